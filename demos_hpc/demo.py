"""A fit of oscillation parameters to events of the served model `demos_hpc.models.neutrino`, as an analyst writes it.

Nothing here knows how the model is computed, or where: it is given a `RemoteModel`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from .client import RemoteModel
from .errors import LaunchError, ModelFailed
from .likelihood import Likelihood
from .messages import FloatArray

MODEL = "nu_atm"
#: What is fitted: mixing and mass splitting, and two nuisances, slope of the flux and scale of the energy.
FREE = ("s23sq", "dm31", "dgamma", "dE")
#: Parameters of the contour, the others being profiled.
PLANE = FREE[:2]
#: Where the search begins: once in each octant, since a mixing angle and its mirror image look much alike.
STARTS = np.array([[0.42, 2.7e-3, 0.05, -0.03], [0.58, 2.7e-3, 0.05, -0.03]])
#: Points of the contour's grid on each axis, in full and in haste.
GRID, QUICK_GRID = 17, 9
#: How many standard deviations the grid reaches, on either axis.
REACH = (3.0, 4.2)
NEEDS = ("iminuit", "matplotlib")

#: Told what is being done, and how much of how much is done; a total of 0 is not known.
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Fit:
    """Where the likelihood is greatest; arrays in the order of `FREE`, in the model's units.

    ``values`` (k,), ``errors`` (k,) standard deviations, ``covariance`` (k, k).
    """

    truth: FloatArray
    values: FloatArray
    errors: FloatArray
    covariance: FloatArray
    log_likelihood: float
    calls: int

    @property
    def pulls(self) -> FloatArray:
        """Distance from the truth in standard deviations, (k,)."""
        return (self.values - self.truth) / self.errors


@dataclass(frozen=True)
class Profile:
    """-2 ln(L / L_max) over `PLANE`, (len(x), len(y)), the other free parameters being best at each point."""

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
    name = f"drawing {n_events} events"
    events = model.sample(n_events, seed=seed, progress=lambda done, total: report(name, done, total))
    likelihood = model.likelihood(events, free=FREE)
    fit = fit_events(likelihood, report)
    profile = scan(model, events, likelihood, fit, report, grid)
    return Demo(events, fit, profile, compute_spectrum(model, likelihood.fill_params(fit.values)))


def fit_events(likelihood: Likelihood, report: Report) -> Fit:
    """The maximum of the likelihood, by minuit with gradients.

    Raises
    ------
    ModelFailed
        Where none was found.
    """
    from iminuit import Minuit

    calls = 0

    def compute(theta: FloatArray) -> float:
        nonlocal calls
        value = likelihood.cost(theta)
        calls += 1
        report(f"fitting, ln L = {-value:.2f}", calls, 0)
        return value

    def minimize(start: FloatArray) -> Any:
        minuit: Any = Minuit(compute, start, grad=likelihood.cost_gradient, name=likelihood.names)
        minuit.errordef = Minuit.LIKELIHOOD
        minuit.limits = likelihood.limits
        minuit.strategy = 0
        return minuit.migrad()

    best = min((minimize(start) for start in STARTS), key=lambda minuit: minuit.fval)
    best.strategy = 1
    best.hesse()
    if not best.valid or best.covariance is None:
        raise ModelFailed(f"the fit has found no minimum (edm {best.fmin.edm:.2g}): try more events")
    values, errors, covariance = (np.array(a) for a in (best.values, best.errors, best.covariance))
    return Fit(likelihood.start, values, errors, covariance, -float(best.fval), calls)


def scan(model: RemoteModel, events: FloatArray, likelihood: Likelihood, fit: Fit, report: Report, n: int) -> Profile:
    """The profile likelihood over `PLANE`, all points in one request for the workers to share.

    The free parameters that are not of the plane start where the fit's covariance expects them; a Newton step takes
    them to the maximum, as far as the likelihood is quadratic.
    """
    k, spec = len(PLANE), model.spec
    columns = [spec.param_names.index(name) for name in FREE]
    distance = REACH * fit.errors[:k]
    low = np.maximum(fit.values[:k] - distance, spec.lower[columns[:k]])
    high = np.minimum(fit.values[:k] + distance, spec.upper[columns[:k]])
    x, y = np.linspace(low, high, n).T
    plane = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, k)
    regression = np.linalg.solve(fit.covariance[:k, :k], fit.covariance[:k, k:])
    conditional = np.linalg.inv(np.linalg.inv(fit.covariance)[k:, k:])
    others = fit.values[k:] + (plane - fit.values[:k]) @ regression

    def tell(begun: int) -> Callable[[int, int], None]:
        name = f"scanning {len(plane)} points, twice"
        return lambda done, of: report(name, begun + done * len(plane) // of, 2 * len(plane))

    params = likelihood.fill_params(np.concatenate([plane, others], axis=1)).clip(spec.lower, spec.upper)
    first, gradient = model.log_likelihood_gradient(events, params, progress=tell(0))
    params[:, columns[k:]] += gradient[:, columns[k:]] @ conditional
    second = model.log_likelihood(events, params.clip(spec.lower, spec.upper), progress=tell(len(plane)))
    return Profile(x, y, 2 * (fit.log_likelihood - np.maximum(first, second)).reshape(n, n))


def compute_spectrum(model: RemoteModel, params: FloatArray) -> Spectrum:
    """The density over the window, at ``params`` (p,) and where neutrinos do not oscillate."""
    (low, bottom), (high, top) = ([getattr(o, end) for o in model.spec.observables] for end in ("lower", "upper"))
    energy, cos_zenith = np.geomspace(low, high, 121), np.linspace(bottom, top, 81)
    x = np.stack(np.meshgrid(energy, cos_zenith, indexing="ij"), axis=-1).reshape(-1, 2)
    unmixed = params.copy()
    unmixed[[model.spec.param_names.index(name) for name in ("dm21", "dm31")]] = 0.0
    densities = [np.exp(model.log_density(x, p)).reshape(energy.size, cos_zenith.size) for p in (params, unmixed)]
    return Spectrum(energy, cos_zenith, densities[0], densities[1])
