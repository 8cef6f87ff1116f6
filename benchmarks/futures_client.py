"""The peer: `mpi4py.futures`, started by ``python -m mpi4py.futures``; one worker computes the same model."""

from __future__ import annotations

import time

import numpy as np
from models import Normal
from mpi4py.futures import MPIPoolExecutor
from stage import answer

_model = Normal()


def compute(x: np.ndarray, params: np.ndarray) -> np.ndarray:
    return _model.log_density(x, params)


def measure(n: int, times: int) -> float:
    """Seconds from submit to result of n rows."""
    x, params = np.random.default_rng(1).normal(size=(n, _model.d)), np.zeros(2)
    start = time.perf_counter()
    for _ in range(times):
        value = pool.submit(compute, x, params).result()
    spent = time.perf_counter() - start
    assert np.array_equal(value, compute(x, params))
    return spent / times


def measure_throughput(n_requests: int) -> float:
    """Single-row tasks a second, with ``chunksize=1``."""
    rng = np.random.default_rng(2)
    x, params = rng.normal(size=(n_requests, 1, 8)), rng.normal(size=(n_requests, 2))
    start = time.perf_counter()
    values = [value[0] for value in pool.map(compute, x, params, chunksize=1)]
    spent = time.perf_counter() - start
    assert np.array_equal(values, compute(x[:, 0], params))
    return n_requests / spent


if __name__ == "__main__":
    with MPIPoolExecutor() as pool:
        answer({"measure": measure, "throughput": measure_throughput})
