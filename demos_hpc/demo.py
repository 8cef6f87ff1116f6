"""A fit of oscillation parameters to events of the served model `demos_hpc.models.neutrino`, as an analyst writes it.

Nothing here knows how the model is computed, or where: it is given a `RemoteModel`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from .client import RemoteModel
from .errors import LaunchError, ModelFailed
from .messages import FloatArray

MODEL = "nu_atm"
#: What is fitted: mixing and mass splitting, and two nuisances, slope of the flux and scale of the energy.
FREE = ("s23sq", "dm31", "dgamma", "dE")
#: Parameters of the contour, the others being profiled.
PLANE = FREE[:2]
#: Units in which all are of order one, for minuit.
SCALES = np.array([0.1, 1e-4, 0.05, 0.05])
#: Where the search begins: once in each octant, since a mixing angle and its mirror image look much alike.
STARTS = np.array([[0.42, 2.7e-3, 0.05, -0.03], [0.58, 2.7e-3, 0.05, -0.03]])
#: Points of the contour's grid on each axis, in full and in haste, and how many standard deviations it reaches on either.
GRID, QUICK_GRID, REACH = 17, 9, (3.0, 4.2)
NEEDS = ("iminuit", "matplotlib")

#: Told what is being done, and how much of how much is done; a total of 0 is not known.
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Fit:
    """Where the likelihood is greatest; arrays in the order of ``names``, in the model's units.

    ``values`` (k,), ``errors`` (k,) standard deviations, ``covariance`` (k, k); ``params`` (p,) is the whole point.
    """

    names: Sequence[str]
    truth: FloatArray
    values: FloatArray
    errors: FloatArray
    covariance: FloatArray
    params: FloatArray
    log_likelihood: float
    calls: int

    @property
    def pulls(self) -> FloatArray:
        """Distance from the truth in standard deviations, (k,)."""
        return (self.values - self.truth) / self.errors


@dataclass(frozen=True)
class Profile:
    """-2 ln(L / L_max) over two parameters, (len(x), len(y)), the other free ones being best for each point."""

    names: Sequence[str]
    x: FloatArray
    y: FloatArray
    values: FloatArray


@dataclass(frozen=True)
class Spectrum:
    """The density of events over energy (a,) in GeV and cosine (b,): (a, b), for the fit and without oscillations."""

    energy: FloatArray
    cos_zenith: FloatArray
    fitted: FloatArray
    unoscillated: FloatArray


@dataclass(frozen=True)
class Demo:
    """All that the demo has found; ``events`` is (n, 2), GeV and cosine."""

    events: FloatArray
    fit: Fit
    profile: Profile
    spectrum: Spectrum


def check_needs() -> None:
    """`LaunchError` where a package of the extra ``demo`` is missing."""
    if missing := [name for name in NEEDS if find_spec(name) is None]:
        raise LaunchError(f"the demo needs {' and '.join(missing)}: pip install 'demos-hpc[demo]'")


def run(model: RemoteModel, n_events: int, seed: int, report: Report, grid: int = GRID) -> Demo:
    """Draws events at the model's own parameters, fits them, and scans the likelihood around the fit."""
    truth = model.params
    name = f"drawing {n_events} events"
    events = model.sample(n_events, truth, seed=seed, progress=lambda done, total: report(name, done, total))
    fit = fit_events(model, events, truth, report)
    profile = scan(model, events, fit, report, grid)
    return Demo(events, fit, profile, compute_spectrum(model, fit.params))


def fit_events(model: RemoteModel, events: FloatArray, truth: FloatArray, report: Report) -> Fit:
    """The maximum of the likelihood in `FREE`, the other parameters at ``truth`` (p,); by minuit with gradients.

    Raises
    ------
    ModelFailed
        Where there is no minimum to be found.
    """
    from iminuit import Minuit

    spec = model.spec
    free = [spec.param_names.index(name) for name in FREE]
    calls = 0

    def to_params(point: npt.ArrayLike) -> FloatArray:
        params = truth.copy()
        params[free] = np.asarray(point) * SCALES
        return params

    def tell(log_likelihood: float) -> None:
        nonlocal calls
        calls += 1
        report(f"fitting, ln L = {log_likelihood:.2f}", calls, 0)

    def compute(point: FloatArray) -> float:
        value = float(model.log_likelihood(events, to_params(point)))
        tell(value)
        return -value

    def compute_gradient(point: FloatArray) -> FloatArray:
        value, gradient = model.log_likelihood_gradient(events, to_params(point))
        tell(value)
        return np.asarray(-gradient[free] * SCALES)

    def minimize(start: FloatArray) -> Any:
        minuit: Any = Minuit(compute, start / SCALES, grad=compute_gradient, name=FREE)
        minuit.errordef = Minuit.LIKELIHOOD
        minuit.strategy = 0
        for name, low, high in zip(FREE, spec.lower[free] / SCALES, spec.upper[free] / SCALES, strict=True):
            minuit.limits[name] = (low, high)
        return minuit.migrad()

    best = min((minimize(start) for start in STARTS), key=lambda minuit: minuit.fval)
    best.strategy = 1
    best.hesse()
    if not best.valid or best.covariance is None:
        raise ModelFailed(f"the fit has found no minimum (edm {best.fmin.edm:.2g}): try more events")
    params = to_params(best.values)
    errors = np.array(best.errors) * SCALES
    covariance = np.array(best.covariance) * np.outer(SCALES, SCALES)
    return Fit(FREE, truth[free], params[free], errors, covariance, params, -float(best.fval), calls)


def scan(model: RemoteModel, events: FloatArray, fit: Fit, report: Report, n: int) -> Profile:
    """The profile likelihood over `PLANE`, all points in one request for the workers to share.

    The free parameters that are not of the plane start where the fit's covariance expects them; a Newton step takes
    them to the maximum, as far as the likelihood is quadratic.
    """
    spec, k = model.spec, len(PLANE)
    axes = []
    for name, value, distance in zip(PLANE, fit.values[:k], REACH * fit.errors[:k], strict=True):
        index = spec.param_names.index(name)
        low, high = value - distance, value + distance
        axes.append(np.linspace(max(low, spec.lower[index]), min(high, spec.upper[index]), n))
    plane = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, k)
    free = [spec.param_names.index(name) for name in FREE]
    points = np.tile(fit.params, (len(plane), 1))
    points[:, free[:k]] = plane
    regression = np.linalg.solve(fit.covariance[:k, :k], fit.covariance[:k, k:])
    points[:, free[k:]] += (plane - fit.values[:k]) @ regression
    points = np.clip(points, spec.lower, spec.upper)
    total = 2 * len(points)

    def tell(begun: int) -> Callable[[int, int], None]:
        name = f"scanning {len(points)} points, twice"
        return lambda done, of: report(name, begun + done * len(points) // of, total)

    first, gradient = model.log_likelihood_gradient(events, points, progress=tell(0))
    conditional = np.linalg.inv(np.linalg.inv(fit.covariance)[k:, k:])
    points[:, free[k:]] += gradient[:, free[k:]] @ conditional
    points = np.clip(points, spec.lower, spec.upper)
    second = model.log_likelihood(events, points, progress=tell(len(points)))
    return Profile(PLANE, axes[0], axes[1], 2 * (fit.log_likelihood - np.maximum(first, second)).reshape(n, n))


def compute_spectrum(model: RemoteModel, params: FloatArray) -> Spectrum:
    """The density over the window, at ``params`` (p,) and where neutrinos do not oscillate."""
    (low, bottom), (high, top) = ([getattr(o, end) for o in model.spec.observables] for end in ("lower", "upper"))
    energy, cos_zenith = np.geomspace(low, high, 121), np.linspace(bottom, top, 81)
    x = np.stack(np.meshgrid(energy, cos_zenith, indexing="ij"), axis=-1).reshape(-1, 2)
    unmixed = params.copy()
    unmixed[[model.spec.param_names.index(name) for name in ("dm21", "dm31")]] = 0.0
    densities = [np.exp(model.log_density(x, p)).reshape(energy.size, cos_zenith.size) for p in (params, unmixed)]
    return Spectrum(energy, cos_zenith, densities[0], densities[1])
