"""The picture of ``demos-hpc demo``: events, fit, and the likelihood around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .demo import Demo, Profile, Spectrum
from .errors import InvalidInput
from .messages import FloatArray

#: -2 ln L below which a point is inside, for two parameters: 68.3, 95.4 and 99.7 percent.
LEVELS = {2.2957: "1σ", 6.1801: "2σ", 11.829: "3σ"}
BLUE, ORANGE, GRAY = "#1f5fa8", "#e07b1a", "#777777"
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "figure.dpi": 150,
}


def draw_demo(demo: Demo, path: Path) -> None:
    """Events over the fitted density, both projections, and the contour."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 8.2), layout="constrained")
        axes = figure.subplots(2, 2)
        _draw_events(axes[0, 0], demo.events, demo.spectrum)
        _draw_contour(axes[0, 1], demo)
        _draw_projection(axes[1, 0], demo.events[:, 0], demo.spectrum, 0, "reconstructed energy [GeV]")
        _draw_projection(axes[1, 1], demo.events[:, 1], demo.spectrum, 1, "reconstructed cos(zenith)")
        title = f"{len(demo.events):,} atmospheric neutrino events, fitted over MPI by demos-hpc"
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=13)
        save(figure, path)


def save(figure: Any, path: Path) -> None:
    try:
        figure.savefig(path)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error}") from None


def _draw_events(axes: Any, events: FloatArray, spectrum: Spectrum) -> None:
    # Per unit of ln E, as the axis is.
    density = spectrum.fitted * spectrum.energy[:, np.newaxis]
    axes.pcolormesh(spectrum.energy, spectrum.cos_zenith, density.T, cmap="Blues", shading="gouraud", rasterized=True)
    axes.plot(events[:, 0], events[:, 1], ".", color="black", markersize=1.6, alpha=0.5)
    axes.set(
        xscale="log", xlabel="reconstructed energy [GeV]", ylabel="reconstructed cos(zenith)", title="Events and fit"
    )
    axes.set_xlim(spectrum.energy[[0, -1]])
    axes.set_ylim(spectrum.cos_zenith[[0, -1]])
    _label_energies(axes)


def _draw_contour(axes: Any, demo: Demo) -> None:
    fit = demo.fit
    x, y, values = refine(demo.profile)
    values = values - values.min()
    y = y * 1e3
    axes.contourf(x, y, values.T, levels=[-1, *LEVELS], colors=["#5b93cf", "#a3c4e8", "#dce9f7"])
    lines = axes.contour(x, y, values.T, levels=list(LEVELS), colors=BLUE, linewidths=1.2)
    axes.clabel(lines, fmt=dict(LEVELS), fontsize=8)
    truth = (fit.truth[0], fit.truth[1] * 1e3)
    axes.plot(*truth, "*", color=ORANGE, markersize=14, markeredgecolor="white", label="truth", linestyle="none")
    axes.plot(
        fit.values[0], fit.values[1] * 1e3, "P", color=BLUE, markeredgecolor="white", markersize=9, label="fit", ls=""
    )
    axes.set(xlabel=r"$\sin^2\theta_{23}$", ylabel=r"$\Delta m^2_{31}$  [$10^{-3}$ eV$^2$]", title="Profile likelihood")
    axes.legend(loc="upper right")


def _draw_projection(axes: Any, values: FloatArray, spectrum: Spectrum, column: int, label: str) -> None:
    grid = (spectrum.energy, spectrum.cos_zenith)[column]
    other = (spectrum.energy, spectrum.cos_zenith)[1 - column]
    edges = np.geomspace(grid[0], grid[-1], 25) if column == 0 else np.linspace(grid[0], grid[-1], 25)
    counts, _ = np.histogram(values, edges)
    centers = np.sqrt(edges[1:] * edges[:-1]) if column == 0 else 0.5 * (edges[1:] + edges[:-1])
    axes.errorbar(centers, counts, np.sqrt(counts), fmt="o", color="black", markersize=3.5, linewidth=1, label="events")
    for density, color, style, name in (
        (spectrum.fitted, BLUE, "-", "fit"),
        (spectrum.unoscillated, ORANGE, "--", "no oscillations"),
    ):
        marginal = _integrate(density if column == 0 else density.T, other)
        # Events in a bin as wide as those of the histogram, wherever it lies.
        widths = grid * np.log(edges[1] / edges[0]) if column == 0 else edges[1] - edges[0]
        axes.plot(grid, len(values) * marginal * widths, style, color=color, linewidth=1.8, label=name)
    axes.set(xlabel=label, ylabel="events per bin", xlim=(grid[0], grid[-1]), ylim=(0, 1.25 * counts.max()))
    axes.set_title("Energy" if column == 0 else "Zenith angle")
    if column == 0:
        axes.set_xscale("log")
        _label_energies(axes)
    axes.legend(loc="upper right" if column == 0 else "upper left")


def _integrate(values: FloatArray, x: FloatArray) -> FloatArray:
    """By the trapezoidal rule over the last axis."""
    return np.asarray(0.5 * (values[..., 1:] + values[..., :-1]) @ np.diff(x))


def _label_energies(axes: Any) -> None:
    ticks = [3, 5, 10, 20, 30, 60]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xticks([], minor=True)


def refine(profile: Profile, factor: int = 8) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The profile on a grid ``factor`` times as fine, by cubics through four neighbors, for smooth lines."""
    values = _refine_columns(_refine_columns(profile.values, factor).T, factor).T
    x, y = (np.linspace(a[0], a[-1], factor * (a.size - 1) + 1) for a in (profile.x, profile.y))
    return x, y, values


def _refine_columns(values: FloatArray, factor: int) -> FloatArray:
    """(n, m) to (factor (n - 1) + 1, m): cubic Lagrange interpolation between equidistant rows."""
    n = len(values)
    place = np.arange(factor * (n - 1) + 1) / factor
    first = np.clip(np.floor(place).astype(int) - 1, 0, n - 4)
    t = place - first
    weights = [
        -(t - 1) * (t - 2) * (t - 3) / 6,
        t * (t - 2) * (t - 3) / 2,
        -t * (t - 1) * (t - 3) / 2,
        t * (t - 1) * (t - 2) / 6,
    ]
    return np.asarray(sum(w[:, np.newaxis] * values[first + k] for k, w in enumerate(weights)))
