"""For model authors: `check_model` holds a model to the contract; small models and a clock for tests.

>>> print(check_model(Gaussian()))  # doctest: +SKIP
gaussian 1.0.0: passed (24 ok, 0 warning, 0 failed, 4 skipped; seed 0)
  ok      spec ...
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from . import checks, density_checks, sampler_checks
from .errors import DemosError, InvalidInput
from .messages import FloatArray
from .spec import BLOCK_ROWS, ModelSpec, Observable, Output, Parameter
from .subject import DENSITIES, METHODS, Subject
from .verdict import Finding, Outcome, Remark, Verdict

__all__ = ["Failing", "FakeClock", "Finding", "Gaussian", "LinearGaussian", "Outcome", "Verdict", "check_model"]


class Check(NamedTuple):
    """One line of the examination."""

    name: str
    run: Callable[[Subject], str]
    #: Methods without which there is nothing to check.
    needs: tuple[str, ...] = ()
    #: Checks without whose success this one would blame the wrong thing.
    after: tuple[str, ...] = ()


def _per_method(title: str, run: Callable[..., str], *methods: str) -> list[Check]:
    return [Check(f"{method}.{title}", partial(run, method=method), (method,)) for method in methods]


_GRADIENTS = DENSITIES[1:]
CHECKS = (
    Check("spec", checks.check_spec),
    Check("authorship", checks.check_authorship),
    *_per_method("returns", checks.check_returns, *METHODS),
    Check("inputs", checks.check_inputs),
    *_per_method("rows", checks.check_rows, *DENSITIES, "evaluate"),
    *_per_method("outside", checks.check_outside, *DENSITIES),
    *_per_method("nan", checks.check_nan, *DENSITIES),
    Check("bounds", checks.check_bounds),
    Check("log_density.normalized", density_checks.check_normalized, ("log_density",)),
    *[
        Check(f"{m}.{title}", partial(run, method=m), (m, "log_density"))
        for m in _GRADIENTS
        for title, run in (("value", density_checks.check_value), ("derivative", density_checks.check_derivative))
    ],
    Check("sample.seed", sampler_checks.check_seed, ("sample",)),
    Check("sample.support", sampler_checks.check_support, ("sample",)),
    Check("sample.density", sampler_checks.check_draws, ("sample", "log_density"), ("sample.support",)),
    Check(
        "log_density.score",
        density_checks.check_score,
        ("log_density", "log_density_gradient", "sample"),
        ("log_density_gradient.derivative", "sample.density"),
    ),
)


def check_model(
    model: Any,
    *,
    seed: int = 0,
    params: npt.ArrayLike | None = None,
    x: npt.ArrayLike | None = None,
    n_draws: int = 16384,
    max_rows: int = 400_000,
    tolerance: float = 1e-4,
) -> Verdict:
    """Holds a model to the contract and says what was found.

    Parameters
    ----------
    model
        An instance of the author's class, or a `LoadedModel`.
    seed
        Names every random choice: the verdict on a deterministic model is the same for the same seed.
    params
        Points (p,) or (k, p) at which to look, float64, in the spec's units; by default the spec's defaults and two
        points near them (anywhere between two bounds).
    x
        Rows (n, d) where the density is finite, float64, in the spec's units, for a model that cannot sample and whose
        mass is hard to find.
    n_draws
        Draws per parameter point for the tests of the sampler.
    max_rows
        Rows per parameter point for the quadrature; a model that is slow wants fewer. Two observables take
        about 100,000, one about 20,000. More of it settles what was "not converged".
    tolerance
        How far the integral of the density may be from 1.

    Raises
    ------
    InvalidInput
        Where there is no model to speak of (no spec, no methods), or ``params`` or ``x`` has the wrong shape.
    """
    subject = Subject(model, seed, params, x, n_draws, max_rows, tolerance)
    findings: dict[str, Finding] = {}
    for check in CHECKS:
        findings[check.name] = _run(check, subject, findings)
        if check.name.endswith(".returns") and findings[check.name].outcome is Outcome.FAILED:
            subject.broken.update(check.needs)
    return Verdict(subject.spec.name, subject.spec.version, seed, tuple(findings.values()))


def _run(check: Check, subject: Subject, findings: dict[str, Finding]) -> Finding:
    missing = [m for m in check.needs if not subject.has(m)]
    broken = [f"{m}.returns" for m in check.needs if not subject.works(m)]
    before = [name for name in check.after if findings[name].outcome is not Outcome.OK]
    if missing:
        return Finding(check.name, Outcome.SKIPPED, f"the model offers no {'() and no '.join(missing)}()")
    if broken or before:
        return Finding(check.name, Outcome.SKIPPED, f"rests on {' and '.join(broken + before)}, which did not pass")
    try:
        return Finding(check.name, Outcome.OK, check.run(subject))
    except Remark as remark:
        return Finding(check.name, remark.outcome, str(remark))
    except DemosError as error:
        return Finding(check.name, Outcome.FAILED, str(error))


class Gaussian:
    """Independent normal columns with a common mean mu and standard deviation sigma; offers everything."""

    def __init__(self, d: int = 1, *, name: str = "gaussian", block_rows: int = BLOCK_ROWS) -> None:
        self.spec = ModelSpec(
            name=name,
            version="1.0.0",
            parameters=(Parameter("mu", default=0.0), Parameter("sigma", default=1.0, lower=1e-3)),
            observables=tuple(Observable(f"x{j}") for j in range(d)),
            outputs=(Output("mean"), Output("variance")),
            license="BSD-3-Clause",
            authors=("The demos-hpc developers",),
            block_rows=block_rows,
        )

    def log_density(self, x: FloatArray, params: FloatArray) -> FloatArray:
        """x (n, d), params (2,) or (n, 2) to (n,)."""
        z = (x - params[..., 0, None]) / params[..., 1, None]
        constant = x.shape[1] * (np.log(params[..., 1]) + 0.5 * math.log(2 * math.pi))
        return np.asarray(-0.5 * (z**2).sum(axis=1) - constant)

    def log_density_gradient(self, x: FloatArray, params: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Value (n,) and gradient with respect to mu, sigma (n, 2)."""
        sigma = params[..., 1]
        z = (x - params[..., 0, None]) / sigma[..., None]
        by_mu, by_sigma = z.sum(axis=1) / sigma, ((z**2).sum(axis=1) - x.shape[1]) / sigma
        return self.log_density(x, params), np.stack([by_mu, by_sigma], axis=1)

    def log_density_gradient_x(self, x: FloatArray, params: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Value (n,) and gradient with respect to x (n, d)."""
        return self.log_density(x, params), (params[..., 0, None] - x) / params[..., 1, None] ** 2

    def sample(self, n: int, params: FloatArray, rng: np.random.Generator) -> FloatArray:
        """n draws, (n, d)."""
        return np.asarray(params[0] + params[1] * rng.standard_normal((n, self.spec.n_observables)))

    def evaluate(self, params: FloatArray) -> FloatArray:
        """params (m, 2) to mean and variance, (m, 2)."""
        return np.stack([params[:, 0], params[:, 1] ** 2], axis=1)


class LinearGaussian:
    """Normal with the means mu * (1, ..., 1) and a fixed covariance, whitened by a matrix product.

    Its rows go through BLAS, whose last bits depend on how many there are: hence ``row_independent=False``.
    """

    def __init__(self, d: int = 4, *, block_rows: int = 64) -> None:
        self.spec = ModelSpec(
            name="linear-gaussian",
            version="1.0.0",
            parameters=(Parameter("mu", default=0.5),),
            observables=tuple(Observable(f"x{j}") for j in range(d)),
            license="BSD-3-Clause",
            authors=("The demos-hpc developers",),
            block_rows=block_rows,
            row_independent=False,
        )
        order = np.arange(d)
        # Any well-conditioned matrix without zeros will do; y = (x - mu) @ whiten is standard normal.
        self.whiten = np.eye(d) + 0.3 * np.cos(1.0 + order[:, None] * order) / math.sqrt(d)
        self.color = np.linalg.inv(self.whiten)
        self.constant = float(np.linalg.slogdet(self.whiten)[1]) - 0.5 * d * math.log(2 * math.pi)

    def log_density(self, x: FloatArray, params: FloatArray) -> FloatArray:
        """x (n, d), params (1,) or (n, 1) to (n,)."""
        y = (x - params[..., 0, None]) @ self.whiten
        return np.asarray(self.constant - 0.5 * (y**2).sum(axis=1))

    def log_density_gradient(self, x: FloatArray, params: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Value (n,) and gradient with respect to mu (n, 1)."""
        y = (x - params[..., 0, None]) @ self.whiten
        return self.log_density(x, params), (y * self.whiten.sum(axis=0)).sum(axis=1)[:, None]

    def sample(self, n: int, params: FloatArray, rng: np.random.Generator) -> FloatArray:
        """n draws, (n, d)."""
        return np.asarray(params[0] + rng.standard_normal((n, self.spec.n_observables)) @ self.color)


class Failing(Gaussian):
    """A `Gaussian` whose log_density fails on calls that contain a row with x0 above ``above``.

    Parameters
    ----------
    mode
        ``raises`` an exception; returns the wrong ``shape``; returns ``nan`` in the rows above; ``sleeps`` for
        ``seconds``, then answers; ``dies`` as after a segmentation fault, taking its process along.
    above
        Threshold in x0; -inf makes every call fail.
    """

    MODES: ClassVar = ("raises", "shape", "nan", "sleeps", "dies")

    def __init__(self, mode: str = "raises", *, above: float = -math.inf, seconds: float = 0.1) -> None:
        if mode not in self.MODES:
            raise InvalidInput(f"mode {mode!r}; there are {', '.join(self.MODES)}")
        super().__init__(name=f"failing-{mode}")
        self.mode, self.above, self.seconds = mode, above, seconds

    def log_density(self, x: FloatArray, params: FloatArray) -> FloatArray:
        """x (n, 1), params (2,) or (n, 2) to (n,), or not."""
        value = super().log_density(x, params)
        hit = x[:, 0] > self.above
        if not hit.any():
            return value
        if self.mode == "raises":
            raise ArithmeticError(f"row {hit.argmax()} is above {self.above}")
        if self.mode == "shape":
            return value[:, np.newaxis]
        if self.mode == "sleeps":
            time.sleep(self.seconds)
        if self.mode == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        return np.where(hit, math.nan, value) if self.mode == "nan" else value


class FakeClock:
    """A clock that stands still until it is told to advance; call it for the time in seconds."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> float:
        """Moves the time forward, and returns it."""
        if not seconds >= 0:
            raise InvalidInput(f"a clock cannot advance by {seconds} s")
        self.now += seconds
        return self.now
