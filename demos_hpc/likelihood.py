"""A log-likelihood of data as a function of the free parameters: what samplers and minimizers want."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from .adapters import make_nutpie_model, make_tensor
from .arguments import find_outside, read_rows
from .cost import Cost
from .desk import bring
from .differences import combine, make_stencil
from .errors import InvalidInput
from .messages import FloatArray, Operation
from .resident_data import ResidentData
from .spec import ModelSpec
from .submit import Submit


class Likelihood:
    """log P(x | theta), and log_prior(theta) where there is one; get it from `RemoteModel.likelihood`.

    k free parameters, m points; all arrays float64, units as in the model's spec. Called with theta (k,) it
    returns a float, with (m, k) an array (m,), in one request. Points outside the parameters' bounds, or where
    the prior is ``-inf``, do not travel: they are ``-inf``, with gradient zero.

    nan, which most samplers refuse or silently mistake, is turned into ``-inf`` here; ``n_nan`` counts such
    points, and the first is named in a warning. `RemoteModel.log_likelihood` returns nan as it is.

    The data x are those of the caller, not a copy; the fixed parameters are those of the moment it was made.
    """

    def __init__(
        self,
        submit: Submit,
        spec: ModelSpec,
        params: FloatArray,
        x: npt.ArrayLike,
        *,
        free: Sequence[str] | None = None,
        fixed: Mapping[str, float] | None = None,
        log_prior: Callable[[FloatArray], Any] | None = None,
        log_prior_gradient: Callable[[FloatArray], Any] | None = None,
        vectorized_prior: bool = False,
        method: str | None = None,
    ) -> None:
        self._submit = submit
        self._spec = spec
        self._owner = threading.get_ident()
        self._x = x if isinstance(x, ResidentData) else read_rows(x, "x", spec.n_observables, spec)
        self._log_prior = log_prior
        self._log_prior_gradient = log_prior_gradient
        self._vectorized_prior = vectorized_prior
        if method not in (None, "finite-difference"):
            raise InvalidInput(f"method is {method!r}; it is 'finite-difference', or left out")
        self._has_differences = method is not None
        #: Names of the free parameters, in the order of theta.
        self.names = _read_free(free, fixed or {}, spec)
        self._columns = np.array([spec.param_names.index(name) for name in self.names])
        self._params = spec.change(params, fixed or {})
        kept = [name for name in spec.param_names if name not in self.names]
        #: The other parameters and their values.
        self.fixed = {name: float(self._params[spec.param_names.index(name)]) for name in kept}
        if missing := [name for name, value in self.fixed.items() if np.isnan(value)]:
            raise InvalidInput(
                f"parameter {', '.join(map(repr, missing))} is neither free nor fixed, and model {spec.name!r} has no"
                f" default for it: add it to free, or give fixed={{{missing[0]!r}: value}}"
            )
        #: How many points were answered with nan so far.
        self.n_nan = 0

    def __repr__(self) -> str:
        fixed = "".join(f", {name}={value:g} fixed" for name, value in self.fixed.items())
        return f"<Likelihood of {len(self._x)} rows, {self._spec.name}: {', '.join(self.names)}{fixed}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Likelihood cannot be pickled: its connection belongs to this process. Samplers that want a pool take"
            " pool=model.pool(), which pickles nothing; PyMC takes cores=1"
        )

    @property
    def n_free(self) -> int:
        """k."""
        return len(self.names)

    @property
    def start(self) -> FloatArray:
        """The model's own values of the free parameters, (k,), nan where it has none."""
        return np.take(self._params, self._columns)

    @property
    def limits(self) -> list[tuple[float | None, float | None]]:
        """Bounds of the free parameters, None where there is none: ``minuit.limits = likelihood.limits``."""
        return [(self._spec.parameters[j].lower, self._spec.parameters[j].upper) for j in self._columns]

    @property
    def has_gradient(self) -> bool:
        """Whether `gradient` can be had."""
        has_prior = self._log_prior is None or self._log_prior_gradient is not None
        return self._has_differences or (has_prior and self._spec.offers(Operation.LOG_LIKELIHOOD_GRADIENT))

    def fill_params(self, theta: npt.ArrayLike) -> FloatArray:
        """All parameters of the model, fixed ones included: theta (k,) to (p,), (m, k) to (m, p)."""
        points, is_one = self._read(theta)
        params = np.tile(self._params, (len(points), 1))
        params[:, self._columns] = points
        return params[0] if is_one else params

    def __call__(self, theta: npt.ArrayLike) -> Any:
        """The value at theta: (k,) to float, (m, k) to (m,)."""
        points, is_one = self._read(theta)
        (value,) = bring(self._owner, self._compute_value, points)
        return float(value[0]) if is_one else value

    def value_and_gradient(self, theta: npt.ArrayLike) -> tuple[Any, FloatArray]:
        """Value and gradient by the free parameters: (k,) to float and (k,); (m, k) to (m,) and (m, k)."""
        points, is_one = self._read(theta)
        value, gradient = bring(self._owner, self._compute_gradient, points)
        return (float(value[0]), gradient[0]) if is_one else (value, gradient)

    def gradient(self, theta: npt.ArrayLike) -> FloatArray:
        """The gradient by the free parameters, (k,) or (m, k)."""
        return self.value_and_gradient(theta)[1]

    def prior_transform(self, u: npt.ArrayLike) -> FloatArray:
        """From the unit cube, (k,) or (m, k), to theta uniform between the bounds, as nested samplers want it."""
        points, is_one = self._read(u)
        for name, limits in zip(self.names, self.limits, strict=True):
            if None in limits:
                raise InvalidInput(
                    f"parameter {name!r} is bounded by {limits}, so no uniform prior lies between its bounds:"
                    " write a prior_transform of your own, or leave it out of free"
                )
        lower, upper = self._spec.lower[self._columns], self._spec.upper[self._columns]
        theta: FloatArray = lower + points * (upper - lower)
        return theta[0] if is_one else theta

    @cached_property
    def cost(self) -> Cost:
        """-log P for minimizers: ``Minuit(likelihood.cost, *start)``."""
        return Cost(self)

    @property
    def cost_gradient(self) -> Callable[..., FloatArray]:
        """The gradient of `cost`."""
        return self.cost.grad

    def as_tensor(self, *theta: Any) -> Any:
        """log P as a PyTensor scalar: ``pymc.Potential("events", likelihood.as_tensor(mu, sigma))``."""
        return make_tensor(self, theta)

    def as_nutpie(self, start: npt.ArrayLike | None = None) -> Any:
        """A model for ``pool.run(nutpie.sample, ...)``; chains begin at ``start``, (k,) or one of (m, k)."""
        return make_nutpie_model(self, self._read(self.start if start is None else start)[0])

    # ---- in the thread that owns the connection -------------------------------------------------------------

    def _read(self, theta: npt.ArrayLike) -> tuple[FloatArray, bool]:
        """Points (m, k), and whether it was one, (k,)."""
        try:
            points = np.asarray(theta)
        except ValueError as error:
            raise InvalidInput(f"theta is no array: {error}") from None
        if points.ndim not in (1, 2) or points.shape[-1] != self.n_free or points.dtype.kind not in "fiu":
            raise InvalidInput(
                f"theta has shape {points.shape} and dtype {points.dtype}; {self!r} takes numbers ({self.n_free},) or"
                f" (m, {self.n_free})"
            )
        return np.atleast_2d(points).astype(np.float64, copy=False), points.ndim == 1

    def _compute_value(self, points: FloatArray) -> tuple[FloatArray]:
        value, asked, params = self._begin(points)
        if len(asked):
            value[asked] += self._submit.log_likelihood(self._x, params).result()
        self._drop_nan(points, value)
        return (value,)

    def _compute_gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        if self._has_differences:
            spec = self._spec
            limits = (np.take(column, self._columns) for column in (spec.lower, spec.upper, spec.param_scales))
            stencil, steps = make_stencil(points, *limits)
            (values,) = self._compute_value(stencil)
            return combine(values.reshape(-1, len(points)), steps)
        if self._log_prior is not None and self._log_prior_gradient is None:
            raise InvalidInput(
                "the gradient of the likelihood with log_prior needs that of the prior: give log_prior_gradient too,"
                " or method='finite-difference'"
            )
        value, asked, params = self._begin(points)
        gradient = np.zeros_like(points)
        if len(asked):
            answer = self._submit.log_likelihood_gradient(self._x, params).result()
            value[asked] += answer[0]
            gradient[asked] = answer[1][:, self._columns]
            if self._log_prior_gradient is not None:
                gradient[asked] += self._call_prior(
                    self._log_prior_gradient, points[asked], (self.n_free,), "log_prior_gradient"
                )
        self._drop_nan(points, value)
        gradient[np.isneginf(value)] = 0.0
        return value, gradient

    def _begin(self, points: FloatArray) -> tuple[FloatArray, npt.NDArray[np.intp], FloatArray]:
        """The prior's part of the value; which points the model is asked for; all parameters of those."""
        params = self.fill_params(points)
        value = np.zeros(len(points))
        value[find_outside(params, self._spec)] = -np.inf
        if self._log_prior is not None:
            inside = value == 0.0
            value[inside] = self._call_prior(self._log_prior, points[inside], (), "log_prior")
        asked = np.flatnonzero(~np.isneginf(value))
        return value, asked, params[asked]

    def _call_prior(
        self, function: Callable[[FloatArray], Any], points: FloatArray, width: tuple[int, ...], name: str
    ) -> FloatArray:
        one = (self.n_free,)
        if self._vectorized_prior:
            return _check_shape(function(points), (len(points), *width), f"{name} of {points.shape}")
        values = [_check_shape(function(point), width, f"{name} of {one}") for point in points]
        return np.array(values).reshape(len(points), *width)

    def _drop_nan(self, points: FloatArray, value: FloatArray) -> None:
        bad = np.flatnonzero(np.isnan(value))
        if len(bad) == 0:
            return
        value[bad] = -np.inf
        self.n_nan += len(bad)
        if self.n_nan == len(bad):
            where = ", ".join(f"{name}={v}" for name, v in zip(self.names, points[bad[0]].tolist(), strict=True))
            warnings.warn(
                f"model {self._spec.name!r} or the prior answered nan at {where}; nan is taken as -inf, and from now on"
                " only counted (n_nan)",
                RuntimeWarning,
                stacklevel=2,
            )


def _read_free(free: Sequence[str] | None, fixed: Mapping[str, float], spec: ModelSpec) -> tuple[str, ...]:
    if isinstance(free, str):
        raise InvalidInput(f"free is {free!r}; it is a sequence of names: [{free!r}]")
    names = tuple(name for name in spec.param_names if name not in fixed) if free is None else tuple(free)
    if unknown := [name for name in names if name not in spec.param_names]:
        raise InvalidInput(f"free: unknown parameter {', '.join(map(repr, unknown))}; {spec.describe_params()}")
    if len(set(names)) != len(names):
        raise InvalidInput(f"free names a parameter twice: {', '.join(names)}")
    if both := [name for name in names if name in fixed]:
        raise InvalidInput(f"parameter {', '.join(map(repr, both))} is both free and fixed")
    if not names:
        raise InvalidInput(f"no parameter is free; {spec.describe_params()}")
    return names


def _check_shape(value: Any, shape: tuple[int, ...], name: str) -> FloatArray:
    array = np.asarray(value, dtype=np.float64)
    if array.shape != shape:
        raise InvalidInput(f"{name} returned shape {array.shape}; it returns {shape}")
    return array
