"""The models that the benchmarks serve."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import numpy as np

from demos_hpc import Dataset, ModelSpec, Observable, Output, Parameter


class Normal:
    """Independent normal columns with one mean and one width; d observables."""

    name = "normal"
    d = 8

    def __init__(self) -> None:
        self.spec = ModelSpec(
            name=self.name,
            parameters=(Parameter("mu", default=0.0), Parameter("log_sigma", default=0.0)),
            observables=tuple(Observable(f"x{i}") for i in range(self.d)),
        )

    def log_density(self, x: np.ndarray, params: np.ndarray) -> np.ndarray:
        z = (x - params[..., :1]) * np.exp(-params[..., 1:])
        return -0.5 * np.einsum("ij,ij->i", z, z) - self.d * (params[..., 1] + 0.5 * np.log(2 * np.pi))

    def sample(self, n: int, params: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return params[0] + np.exp(params[1]) * rng.standard_normal((n, self.d))


class Normal2(Normal):
    """The same with two columns."""

    name = "normal2"
    d = 2


class Mixture(Normal):
    """About 60 ns a row: a mixture of two normal densities in eight columns."""

    name = "mixture"

    def log_density(self, x: np.ndarray, params: np.ndarray) -> np.ndarray:
        one = super().log_density(x, params)
        other = super().log_density(x + 1.0, params)
        return np.logaddexp(one, other) - np.log(2.0)


class Busy:
    """Computes for about 1 ms a row: scaling."""

    spec = ModelSpec(
        name="busy", parameters=(Parameter("a", default=1.0),), outputs=(Output("sum"),), row_independent=True
    )

    def evaluate(self, params: np.ndarray) -> np.ndarray:
        return np.array([[spin(a)] for a in params[:, 0].tolist()])


def spin(a: float, steps: int = 25_000) -> float:
    """About 1 ms of arithmetic that stays in one core's registers."""
    total = 0.0
    for i in range(steps):
        total += a * i
    return total


class Sleeper:
    """``evaluate`` sleeps 100 ms a row: many ranks on few cores. ``log_density`` is over at once."""

    spec = ModelSpec(
        name="sleeper",
        parameters=(Parameter("a", default=1.0),),
        observables=(Observable("x", lower=0.0, upper=1.0),),
        outputs=(Output("a"),),
    )

    def evaluate(self, params: np.ndarray) -> np.ndarray:
        time.sleep(0.1 * len(params))
        return params.copy()

    def log_density(self, x: np.ndarray, params: np.ndarray) -> np.ndarray:
        return np.zeros(len(x))


class Witness:
    """``evaluate`` says when it began, on the clock that all processes of this host share, and takes so long."""

    spec = ModelSpec(
        name="witness",
        parameters=(Parameter("seconds", default=0.1),),
        outputs=(Output("began"),),
        row_independent=True,
    )

    def evaluate(self, params: np.ndarray) -> np.ndarray:
        began = time.monotonic()
        time.sleep(params.sum())
        return np.full((len(params), 1), began)


class Data:
    """Datasets alone, as `data.py` makes them in the directory that it names."""

    def __init__(self) -> None:
        folder = os.environ["BENCH_DATA"]
        names = ("plain", "gzip", "zstd", "rows")
        self.spec = ModelSpec("data", datasets=tuple(Dataset(name, f"{folder}/{name}.h5:/x") for name in names))


class Trivial(Normal):
    """One column, and a density that takes no time: what a call costs."""

    name = "trivial"
    d = 1

    def __init__(self) -> None:
        super().__init__()
        folder = os.environ.get("BENCH_DATA", "/nowhere")
        self.spec = replace(self.spec, datasets=(Dataset("block", f"{folder}/block.h5:/x"),))

    def log_density(self, x: np.ndarray, params: np.ndarray) -> np.ndarray:
        return x[:, 0] * params[..., 0]


class Heavy(Normal):
    """Four columns, and about 100 ns of exponentials and logarithms a row: bound by computing."""

    name = "heavy"
    d = 4

    def __init__(self) -> None:
        super().__init__()
        folder = os.environ.get("BENCH_DATA", "/nowhere")
        self.spec = replace(self.spec, datasets=(Dataset("events", f"{folder}/events.h5:/x"),))

    def log_density(self, x: np.ndarray, params: np.ndarray) -> np.ndarray:
        one = super().log_density(x, params)
        other = super().log_density(x + 1.0, params)
        third = super().log_density(x - 1.0, params)
        return np.logaddexp(np.logaddexp(one, other), third) - np.log(3.0)


class Walked(Normal):
    """What samplers walk on: eight columns."""

    name = "walked"

    def __init__(self) -> None:
        super().__init__()
        folder = os.environ.get("BENCH_DATA", "/nowhere")
        self.spec = replace(self.spec, datasets=(Dataset("events", f"{folder}/walked.h5:/x"),))


class Large(Normal):
    """Four columns of 1e8 rows."""

    name = "large"
    d = 4

    def __init__(self) -> None:
        super().__init__()
        folder = os.environ.get("BENCH_DATA", "/nowhere")
        self.spec = replace(self.spec, datasets=(Dataset("large", f"{folder}/large.h5:/x"),))


BY_NAME = {cls.name: cls for cls in (Normal, Normal2, Mixture)}
