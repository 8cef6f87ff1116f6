"""A model under examination: the parameter points and rows at which it is looked at, and safe calls of it."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import DemosError, InvalidInput
from .messages import FloatArray
from .model import LoadedModel
from .quadrature import Integral, integrate
from .spec import Observable, Parameter

#: The methods that return a value per row of (x, params).
DENSITIES = ("log_density", "log_density_gradient", "log_density_gradient_x")
METHODS = (*DENSITIES, "evaluate", "sample")
#: Cells of a quadrature are refined until its error is below this share of the tolerance.
_TARGET = {1: 0.01, 2: 0.1}
_TINY = np.finfo(np.float64).tiny


class Subject:
    """What the checks share.

    Parameters
    ----------
    model
        A `LoadedModel`, or what one can be made of.
    seed
        Names the parameter points, the draws and every other random choice.
    params
        The parameter points (p,) or (k, p) float64, in the spec's units; None for the defaults and two points
        near them.
    x
        Rows (n, d) float64 for a model without a sampler, in the spec's units; None to search for some.
    n_draws, max_rows, tolerance
        See `demos_hpc.testing.check_model`.
    """

    def __init__(
        self,
        model: Any,
        seed: int,
        params: npt.ArrayLike | None,
        x: npt.ArrayLike | None,
        n_draws: int,
        max_rows: int,
        tolerance: float,
    ) -> None:
        self.loaded = model if isinstance(model, LoadedModel) else LoadedModel(model)
        self.spec = self.loaded.spec
        self.seed, self.n_draws, self.max_rows, self.tolerance = seed, n_draws, max_rows, tolerance
        self.points = _choose_points(self) if params is None else _as_rows(params, self.spec.n_params, "params")
        self._x = None if x is None else _as_rows(x, self.spec.n_observables, "x")
        #: Methods whose results have the wrong shape or type, so that other checks leave them alone.
        self.broken: set[str] = set()
        self._draws: dict[int, FloatArray] = {}
        self._integrals: dict[int, Integral] = {}

    def rng(self, purpose: int = 0) -> np.random.Generator:
        """A generator of its own for every purpose, so that no check depends on another's numbers."""
        return np.random.default_rng([self.seed, purpose])

    @cached_property
    def lower(self) -> FloatArray:
        """Lower ends of the support, (d,) float64, -inf where there is none."""
        return np.array([-math.inf if o.lower is None else o.lower for o in self.spec.observables])

    @cached_property
    def upper(self) -> FloatArray:
        """Upper ends of the support, (d,) float64, +inf where there is none."""
        return np.array([math.inf if o.upper is None else o.upper for o in self.spec.observables])

    def describe(self, point: FloatArray) -> str:
        """A parameter point (p,) in words."""
        if not len(point):
            return "its only point"
        names = self.spec.param_names
        values = [f"{name} = {value:.6g}" for name, value in zip(names, point.tolist(), strict=True)]
        return ", ".join(values[:6]) + (", ..." if len(values) > 6 else "")

    def has(self, method: str) -> bool:
        return callable(getattr(self.loaded.model, method, None))

    def works(self, method: str) -> bool:
        return self.has(method) and method not in self.broken

    def call(self, method: str, x: FloatArray, params: FloatArray, *, copy: bool = True) -> list[FloatArray]:
        """Calls a method as the service would, on copies, so that a model that writes into its input harms none."""
        if copy:
            x, params = x.copy(), params.copy()
        with np.errstate(all="ignore"):
            if method == "log_density":
                return [self.loaded.log_density(x, params)]
            if method == "evaluate":
                return [self.loaded.evaluate(params)]
            wrt_x = method == "log_density_gradient_x"
            return list(self.loaded.log_density_gradient(x, params, wrt_x=wrt_x))

    def log_density(self, x: FloatArray, params: FloatArray) -> FloatArray:
        """x (n, d), params (p,) or (n, p) to (n,), at most 2**15 rows a call to bound the model's memory."""
        if len(x) <= 1 << 15 or params.ndim == 2:
            return self.call("log_density", x, params)[0]
        pieces = range(0, len(x), 1 << 15)
        return np.concatenate([self.call("log_density", x[i : i + (1 << 15)], params)[0] for i in pieces])

    def sample(self, first_row: int, n: int, params: FloatArray, seed: int) -> FloatArray:
        with np.errstate(all="ignore"):
            return self.loaded.sample(first_row, n, params.copy(), seed)

    def draws(self, k: int) -> FloatArray:
        """The model's own draws at point k, (n_draws, d)."""
        if k not in self._draws:
            self._draws[k] = self.sample(0, self.n_draws, self.points[k], self.seed + k)
        return self._draws[k]

    def scatter(self, n: int) -> FloatArray:
        """n rows anywhere inside the support, or those that the caller gave."""
        if self._x is not None:
            return np.resize(self._x, (n, self.spec.n_observables))
        columns = [_scatter(o, self.rng(2 + j), n) for j, o in enumerate(self.spec.observables)]
        return np.stack(columns, axis=1) if columns else np.empty((n, 0))

    def rows(self, k: int, n: int) -> FloatArray:
        """n rows where the density at point k is finite, near its mass if they can be found."""
        x = self._x
        if x is None:
            x = self._find_draws(k)
        if x is None and self.works("log_density"):
            if self.spec.n_observables <= 2:
                integral = self.integral(k)
                x = integral.draw(n, self.rng(0)) if math.isfinite(integral.value) and integral.value > 0 else None
            if x is None:
                x = self.scatter(4096)
                value = self.log_density(x, self.points[k])
                # The better half: far out in a tail there is nothing but roundoff to compare.
                x = x[np.isfinite(value) & (value >= np.median(value))]
        return np.resize(x, (n, self.spec.n_observables)) if x is not None and len(x) else self.scatter(n)

    def integral(self, k: int) -> Integral:
        """The integral of the density at point k over the support; one or two observables."""
        if k not in self._integrals:
            point = self.points[k]
            self._integrals[k] = integrate(
                lambda x: self.log_density(x, point),
                self.lower,
                self.upper,
                self._x if self._x is not None else self._find_draws(k),
                target=self.tolerance * _TARGET[self.spec.n_observables],
                max_rows=self.max_rows,
                seed=self.seed,
            )
        return self._integrals[k]

    def _find_draws(self, k: int) -> FloatArray | None:
        """Up to 4096 draws inside the support; None where the sampler offers none."""
        if not self.works("sample"):
            return None
        try:
            x = self.draws(k)[:4096]
        except DemosError:
            return None  # a check of its own tells
        inside = x[((x >= self.lower) & (x <= self.upper)).all(axis=1)]
        return inside if len(inside) else None


def _as_rows(values: npt.ArrayLike, width: int, name: str) -> FloatArray:
    rows = np.atleast_2d(np.array(values, dtype=np.float64))
    if rows.ndim != 2 or rows.shape[1] != width or not len(rows):
        raise InvalidInput(f"{name} has shape {np.shape(values)}; it is (n, {width}), or one row ({width},)")
    return rows


def _choose_points(subject: Subject) -> FloatArray:
    """The defaults and two points near them or, between two bounds, anywhere; (3, p) float64."""
    rng = subject.rng(1)
    columns = [np.concatenate([[center], _vary(p, center, rng)]) for p, center in _centers(subject.spec.parameters)]
    return np.stack(columns, axis=1) if columns else np.empty((1, 0))


def _centers(parameters: tuple[Parameter, ...]) -> list[tuple[Parameter, float]]:
    """A value for each parameter: its default; else the middle of its bounds; else 1 from the one it has; else 1."""
    values = []
    for p in parameters:
        if p.default is not None:
            value = p.default
        elif p.lower is not None and p.upper is not None:
            value = (p.lower + p.upper) / 2
        elif p.lower is not None:
            value = p.lower + 1.0
        else:
            value = 1.0 if p.upper is None else p.upper - 1.0
        values.append((p, value))
    return values


def _vary(p: Parameter, center: float, rng: np.random.Generator, n: int = 2) -> FloatArray:
    if p.lower is not None and p.upper is not None:
        return rng.uniform(p.lower, p.upper, n)
    if p.lower is None and p.upper is None:
        return center + rng.standard_normal(n) * 0.1 * (abs(center) or 1.0)
    # The distance from the only bound is scaled, so that no point crosses it.
    bound, side = (p.upper, -1.0) if p.lower is None else (p.lower, 1.0)
    assert bound is not None
    return np.asarray(bound + ((center - bound) or side * 0.1) * np.exp(rng.normal(0, 0.3, n)))


def _scatter(o: Observable, rng: np.random.Generator, n: int) -> FloatArray:
    if o.lower is not None and o.upper is not None:
        return rng.uniform(o.lower, o.upper, n)
    if o.lower is not None:
        return o.lower + np.maximum(rng.standard_exponential(n) * 10 ** rng.uniform(-2, 2, n), _TINY)
    if o.upper is not None:
        return o.upper - np.maximum(rng.standard_exponential(n) * 10 ** rng.uniform(-2, 2, n), _TINY)
    return rng.standard_normal(n) * 10 ** rng.uniform(-2, 2, n)
