"""The pictures of ``demos-hpc bench``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .bench import Row
from .plots import BLUE, GRAY, ORANGE, STYLE, save


def draw_figures(rows: Sequence[Row], path: Path) -> None:
    """How far each figure is from what is wanted: bars that cross the line have reached it."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = [row for row in rows if row.margin is not None][::-1]
    if not rows:
        return
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 1.2 + 0.42 * len(rows)), layout="constrained")
        axes = figure.subplots()
        margins = [min(max(row.margin or 0.0, 0.01), 1000.0) for row in rows]
        colors = [BLUE if margin >= 1 else ORANGE for margin in margins]
        axes.barh(range(len(rows)), np.array(margins) - 1, left=1, color=colors, height=0.6)
        for nth, row in enumerate(rows):
            right = margins[nth] >= 1
            axes.annotate(
                f"{row.value:.3g}", (margins[nth], nth), (4 if right else -4, 0), textcoords="offset points",
                ha="left" if right else "right", va="center", fontsize=9,
            )  # fmt: skip
        axes.axvline(1, color="black", linewidth=1)
        axes.set_yticks(range(len(rows)), [f"{row.benchmark}: {row.key}  ({row.wanted})" for row in rows])
        axes.set(xscale="log", xlabel="times as good as wanted", title="Benchmarks against what is wanted")
        low, high = min(0.45, 0.7 * min(margins)), max(2.2, 1.6 * max(margins))
        axes.set_xlim(low, high)
        ticks = [t for t in (0.01, 0.1, 0.2, 0.5, 1, 2, 5, 10, 100, 1000) if low <= t <= high]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        save(figure, path)


def draw_efficiency(figures: Mapping[str, float], path: Path) -> None:
    """Efficiency against the number of workers, from keys as ``efficiency_1000`` or ``efficiency_1000_20ms``."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    series: dict[str, list[tuple[int, float]]] = {}
    for key, value in figures.items():
        if found := re.fullmatch(r"efficiency_(\d+)_?(.*)", key):
            series.setdefault(found[2].replace("_", " "), []).append((int(found[1]), value))
    if not series:
        return
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 4.4), layout="constrained")
        axes = figure.subplots()
        for name, points in sorted(series.items()):
            workers, efficiency = zip(*sorted(points), strict=True)
            axes.plot(workers, efficiency, "o-", markersize=4, label=name or "chunks sized by the scheduler")
        axes.axhline(0.9, color=GRAY, linewidth=1, linestyle=":")
        axes.set(xscale="log", ylim=(0, 1.05), xlabel="workers", ylabel="time in the model / time of the workers")
        axes.set_title("The scheduler under a virtual clock")
        axes.legend(loc="lower left")
        save(figure, path)


def draw_wire(figures: Mapping[str, float], path: Path) -> None:
    """Encoding and decoding together against the rows of an array, from keys as ``pickle_encode_us_100``."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    totals: dict[str, dict[int, float]] = {}
    for key, value in figures.items():
        if found := re.fullmatch(r"(.+)_(?:encode|decode)_us_(\d+)", key):
            rows = totals.setdefault(found[1].replace("_", " "), {})
            rows[int(found[2])] = rows.get(int(found[2]), 0.0) + value
    if not totals:
        return
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 4.4), layout="constrained")
        axes = figure.subplots()
        for name, points in totals.items():
            n_rows, microseconds = zip(*sorted(points.items()), strict=True)
            width = 2.4 if name.startswith("demos") else 1.2
            axes.plot(n_rows, microseconds, "o-", markersize=4, linewidth=width, label=name)
        axes.set(xscale="log", yscale="log", xlabel="rows of 8 numbers", ylabel="encode and decode [us]")
        axes.set_title("Turning a request into bytes and back")
        axes.legend(fontsize=8)
        save(figure, path)
