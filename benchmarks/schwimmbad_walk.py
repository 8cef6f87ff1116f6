"""The peer: emcee over `schwimmbad.MPIPool`; each worker holds the rows and computes one point at a time."""

from __future__ import annotations

import sys
import time

import emcee
import h5py
import numpy as np
from models import Normal
from schwimmbad import MPIPool
from stage import answer

with h5py.File(sys.argv[1]) as file:
    held = file["x"][()]
model = Normal()


def log_likelihood(point: np.ndarray, rows: int) -> float:
    return float(model.log_density(held[:rows], point).sum())


def walk(steps: int, rows: int) -> float:
    """Seconds for 64 walkers to take so many steps, in a likelihood of so many rows."""
    sampler = emcee.EnsembleSampler(64, 2, log_likelihood, pool=pool, args=[rows])
    start = np.random.default_rng(5).normal(0.0, 0.01, (64, 2))
    sampler.run_mcmc(start, 2)
    begin = time.perf_counter()
    sampler.run_mcmc(start, steps)
    return time.perf_counter() - begin


if __name__ == "__main__":
    with MPIPool() as pool:
        if not pool.is_master():
            pool.wait()
            sys.exit(0)
        answer({"walk": walk})
