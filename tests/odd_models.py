"""Models that are right and unusual, for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from demos_hpc.spec import ModelSpec, Observable, Output, Parameter
from demos_hpc.testing import Gaussian


class DensityOnly:
    """An exponential distribution with nothing but its density; its parameter has no default."""

    spec = ModelSpec(
        name="exponential",
        parameters=(Parameter("rate", lower=0.0),),
        observables=(Observable("t", "s", lower=0.0),),
    )

    def log_density(self, x: Any, params: Any) -> Any:
        with np.errstate(divide="ignore"):
            return np.where(x[:, 0] < 0, -np.inf, np.log(params[..., 0]) - params[..., 0] * x[:, 0])


class Uniform:
    """A square without any parameters."""

    spec = ModelSpec(name="uniform", observables=(Observable("u", lower=0, upper=1), Observable("v", lower=0, upper=1)))

    def log_density(self, x: Any, params: Any) -> Any:
        assert params.shape[-1] == 0
        return np.where(((x < 0) | (x > 1)).any(axis=1), -np.inf, 0.0)

    def log_density_gradient(self, x: Any, params: Any) -> Any:
        return self.log_density(x, params), np.empty((len(x), 0))

    def sample(self, n: int, params: Any, rng: Any) -> Any:
        return rng.random((n, 2))


class OnePoint(Gaussian):
    """A `Gaussian` that takes one parameter vector per call, as Fortran codes do."""

    def __init__(self) -> None:
        super().__init__(name="one-point")
        object.__setattr__(self.spec, "params_per_row", False)

    def log_density(self, x: Any, params: Any) -> Any:
        assert params.ndim == 1
        return super().log_density(x, params)

    def log_density_gradient(self, x: Any, params: Any) -> Any:
        assert params.ndim == 1
        return super().log_density_gradient(x, params)


class Line:
    """Nothing but a forward map: a straight line at three places."""

    spec = ModelSpec(
        name="line",
        parameters=(Parameter("a", default=1.0), Parameter("b", default=2.0, lower=-10, upper=10)),
        outputs=(Output("y0"), Output("y1"), Output("y2")),
    )

    def evaluate(self, params: Any) -> Any:
        return params[:, :1] + params[:, 1:] * np.array([0.0, 1.0, 2.0])


class Improper:
    """A `Gaussian` whose density is +inf at 7 and nan at 8, which is passed on and counted."""

    def __init__(self) -> None:
        self.spec = Gaussian(name="improper").spec
        self._gaussian = Gaussian()

    def log_density(self, x: Any, params: Any) -> Any:
        value = self._gaussian.log_density(x, params)
        value = np.where(x[:, 0] == 7, np.inf, value)
        return np.where(x[:, 0] == 8, np.nan, value)
