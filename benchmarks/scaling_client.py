"""The measuring side of `scaling`: an analysis that calls the service."""

from __future__ import annotations

import time

import numpy as np
from models import spin
from stage import answer

import demos_hpc


def evaluate(n: int) -> dict[str, float]:
    """Seconds for n rows, and those that workers spent inside the model."""
    params = np.linspace(0.5, 1.5, n)[:, np.newaxis]
    before = model.metadata()["statistics"]["model_seconds"]
    start = time.perf_counter()
    values = model.evaluate(params)
    wall = time.perf_counter() - start
    if model.spec.name == "busy":
        assert values[n // 2, 0] == spin(float(params[n // 2, 0]))
    else:
        assert np.array_equal(values, params)
    return {"wall": wall, "model": model.metadata()["statistics"]["model_seconds"] - before}


def wake() -> float:
    """Seconds for one row whose computation takes no time."""
    start = time.perf_counter()
    model.log_density(np.full((1, 1), 0.5), [1.0])
    return time.perf_counter() - start


with demos_hpc.connect() as model:
    answer({"evaluate": evaluate, "wake": wake})
