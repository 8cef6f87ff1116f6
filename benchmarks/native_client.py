"""The measuring process of native.py: calls a served model, and the same function by ctypes in its own process."""

from __future__ import annotations

import ctypes
import sys
import time

import numpy as np
from stage import answer

import demos_hpc

POINT = np.array([0.3, 1.7])
_rows: dict[int, np.ndarray] = {}


def find_rows(n: int) -> np.ndarray:
    if n not in _rows:
        _rows[n] = np.random.default_rng(1).normal(size=(n, 1))
    return _rows[n]


def serve(n: int, times: int) -> float:
    """Seconds a call of the served model."""
    x, out = find_rows(n), np.empty(n)
    begin = time.perf_counter()
    for _ in range(times):
        model.log_density(x, POINT, out=out)
    return (time.perf_counter() - begin) / times


def call(n: int, times: int) -> float:
    """Seconds a call of the loop in the library."""
    x, out = find_rows(n), np.empty(n)
    arguments = (ctypes.c_size_t(n), *(ctypes.c_void_p(array.ctypes.data) for array in (x, POINT, out)))
    library.wave_loop(*arguments)
    assert np.array_equal(out, model.log_density(x, POINT))
    begin = time.perf_counter()
    for _ in range(times):
        library.wave_loop(*arguments)
    return (time.perf_counter() - begin) / times


library = ctypes.CDLL(sys.argv[1])
with demos_hpc.connect() as model:
    answer({"serve": serve, "call": call})
