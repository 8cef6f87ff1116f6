"""The peer: `schwimmbad.MPIPool`, one worker that computes the same model."""

from __future__ import annotations

import sys
import time

import numpy as np
from models import Normal
from schwimmbad import MPIPool
from stage import answer

_model = Normal()


def compute(task: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return _model.log_density(*task)


def measure_throughput(n_requests: int) -> float:
    """Single-row tasks a second."""
    rng = np.random.default_rng(2)
    x, params = rng.normal(size=(n_requests, 1, 8)), rng.normal(size=(n_requests, 2))
    start = time.perf_counter()
    values = [value[0] for value in pool.map(compute, list(zip(x, params, strict=True)))]
    spent = time.perf_counter() - start
    assert np.array_equal(values, _model.log_density(x[:, 0], params))
    return n_requests / spent


if __name__ == "__main__":
    with MPIPool() as pool:
        if not pool.is_master():
            pool.wait()
            sys.exit(0)
        answer({"throughput": measure_throughput})
