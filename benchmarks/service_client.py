"""The measuring side of `roundtrip`, `throughput` and `batch`: an analysis that calls the service."""

from __future__ import annotations

import sys
import time

import models
import numpy as np
from stage import answer

import demos_hpc


def measure(n: int, times: int, in_flight: int = 1) -> float:
    """Seconds a request of n rows."""
    x = np.random.default_rng(1).normal(size=(n, model.spec.n_observables))
    params = np.zeros(2)
    wanted = local.log_density(x, params)
    start = time.perf_counter()
    if in_flight == 1:
        for _ in range(times):
            value = model.log_density(x, params)
    else:
        futures = []
        for _ in range(times):
            if len(futures) == in_flight:
                value = futures.pop(0).result()
            futures.append(model.submit.log_density(x, params))
        for future in futures:
            value = future.result()
    spent = time.perf_counter() - start
    assert np.array_equal(value, wanted)
    return spent / times


def measure_throughput(n_requests: int) -> float:
    """Requests of one row a second, each with parameters of its own."""
    rng = np.random.default_rng(2)
    x, params = rng.normal(size=(n_requests, 1, 8)), rng.normal(size=(n_requests, 2))
    start = time.perf_counter()
    futures = [model.submit.log_density(x[i], params[i]) for i in range(n_requests)]
    values = [future.result()[0] for future in futures]
    spent = time.perf_counter() - start
    assert np.array_equal(values, local.log_density(x[:, 0], params))
    return n_requests / spent


def measure_large(n: int) -> dict[str, float]:
    """Seconds for one large request: served, inside the served model, and computed here."""
    x, params = np.random.default_rng(3).normal(size=(n, model.spec.n_observables)), np.zeros(2)
    start = time.perf_counter()
    wanted = local.log_density(x, params)
    here = time.perf_counter() - start
    before = model.metadata()["statistics"]["model_seconds"]
    start = time.perf_counter()
    value = model.log_density(x, params)
    served = time.perf_counter() - start
    assert np.array_equal(value, wanted)
    return {"served": served, "local": here, "model": model.metadata()["statistics"]["model_seconds"] - before}


def tell_transport() -> str:
    """How frames travel now."""
    return model.submit._connection._link.transport


with demos_hpc.connect(transport=sys.argv[1] if len(sys.argv) > 1 else "auto") as model:
    local = models.BY_NAME[model.spec.name]()
    runs = {"measure": measure, "throughput": measure_throughput, "large": measure_large, "transport": tell_transport}
    answer(runs)
