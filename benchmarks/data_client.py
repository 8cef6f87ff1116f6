"""The measuring side of `data`: an analysis that reads datasets, through the service and by itself."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import h5py
import numpy as np
from stage import answer

import demos_hpc

FOLDER = os.environ["BENCH_DATA"]


def clock(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def read_whole(name: str, way: str, cold: bool = False) -> float:
    """Seconds to read a dataset into memory that is there: served, direct, or by h5py in this process."""
    path = f"{FOLDER}/{name}.h5"
    if cold:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    if way == "h5py":
        with h5py.File(path) as file:
            dataset = file["x"]
            out = room(dataset.shape, dataset.dtype)
            return clock(lambda: dataset.read_direct(out))
    dataset = model.dataset(name, direct=way == "direct")
    out = room(dataset.shape, dataset.dtype)
    seconds = clock(lambda: dataset.read_direct(out))
    if way == "served":
        with h5py.File(path) as file:
            step = max(1, len(out) // 7)
            assert all(np.array_equal(out[i], file["x"][i]) for i in range(0, len(out), step))
    dataset.close()
    return seconds


_rooms: dict[tuple[tuple[int, ...], str], np.ndarray] = {}


def room(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Memory whose pages are there already."""
    key = (shape, dtype.str)
    if key not in _rooms:
        _rooms.clear()
        _rooms[key] = np.ones(shape, dtype)
    return _rooms[key]


def read_rows(n: int, way: str) -> float:
    """Seconds for n random rows."""
    path = f"{FOLDER}/rows.h5"
    with h5py.File(path) as file:
        rows = np.sort(np.random.default_rng(1).choice(len(file["x"]), n, replace=False))
        wanted = file["x"][rows]
        if way == "h5py list":
            return clock(lambda: file["x"][rows])
        if way == "h5py whole":
            return clock(lambda: file["x"][()][rows])
    dataset = model.dataset("rows", direct=way == "direct")
    try:
        if way == "one by one":
            few = rows[: n // 20].tolist()
            return 20 * clock(lambda: [dataset[row] for row in few])
        seconds = clock(lambda: dataset[rows])
        assert np.array_equal(dataset[rows], wanted)
        return seconds
    finally:
        dataset.close()


def stream(n_bytes: int) -> int:
    """Reads a dataset in blocks until so many bytes have come; how many did."""
    dataset = model.dataset("plain", direct=False)
    done = 0
    while done < n_bytes:
        for block in dataset.blocks():
            done += block.nbytes
            if done >= n_bytes:
                break
    return done


def likelihood(times: int = 1) -> float:
    """Seconds a call of a likelihood of resident rows."""
    points = np.random.default_rng(3).normal(0.0, 0.1, (times, 2))
    held = hold()
    return clock(lambda: [model.log_likelihood(held, point) for point in points]) / times


_held: list[demos_hpc.ResidentData] = []


def hold() -> demos_hpc.ResidentData:
    if not _held:
        _held.append(model.resident(model.datasets[0]))
        model.log_likelihood(_held[0], [0.0, 0.0])  # so that the rows are held
        model.log_likelihood(_held[0], [0.0, 0.0])
    return _held[0]


def overhead(times: int, pause: float = 0.0) -> dict[str, float]:
    """Seconds a call of one block takes, and of these inside the model."""
    held = hold()
    before = model.metadata()["statistics"]["model_seconds"]
    spent = 0.0
    for _ in range(times):
        time.sleep(pause)
        spent += clock(lambda: model.log_likelihood(held, [0.0, 0.0]))
    inside = model.metadata()["statistics"]["model_seconds"] - before
    return {"wall": spent / times, "model": inside / times}


def compare_sent(times: int) -> dict[str, float]:
    """Seconds a call, where rows are resident and where they travel."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(1_000_000, 8))
    held = model.upload(x)
    point = [0.1, 0.2]
    assert model.log_likelihood(held, point) == model.log_likelihood(x, point)
    resident = clock(lambda: [model.log_likelihood(held, point) for _ in range(times)]) / times
    sent = clock(lambda: [model.log_likelihood(x, point) for _ in range(max(1, times // 4))]) / max(1, times // 4)
    return {"resident": resident, "sent": sent}


def walk(steps: int, rows: int) -> float:
    """Seconds for emcee's walkers to take so many steps, in a likelihood of so many rows."""
    import emcee

    target = model.likelihood(model.resident("events")[:rows])
    sampler = emcee.EnsembleSampler(64, 2, target, vectorize=True)
    start = np.random.default_rng(5).normal(0.0, 0.01, (64, 2))
    sampler.run_mcmc(start, 2)
    return clock(lambda: sampler.run_mcmc(start, steps))


def use_large() -> dict[str, float]:
    """Everything that is done with a large dataset, once."""
    from iminuit import Minuit

    dataset = model.dataset("large", direct=False)
    n = len(dataset)
    verify = clock(dataset.verify)
    held = model.resident("large")
    point = [0.01, 0.02]
    first = clock(lambda: model.log_likelihood(held, point))
    call = clock(lambda: model.log_likelihood(held, point))
    likelihood = model.likelihood(held)
    minuit = Minuit(likelihood.cost, 0.1, 0.1)
    fit = clock(minuit.migrad)
    assert abs(minuit.values["mu"]) < 5 / np.sqrt(4 * n), minuit.values
    assert abs(minuit.values["log_sigma"]) < 5 / np.sqrt(8 * n), minuit.values
    part = slice(n - 100_001, n - 1)
    sent = np.ascontiguousarray(dataset[part])
    assert model.log_likelihood(held[part], point) == model.log_likelihood(sent, point)
    rows = np.random.default_rng(9).choice(n, 10_000, replace=False)
    random = clock(lambda: dataset[rows])
    return {
        "rows": n, "verify": verify, "first": first, "call": call, "fit": fit, "calls": minuit.nfcn, "random": random,
    }  # fmt: skip


with demos_hpc.connect() as model:
    runs = (read_whole, read_rows, stream, likelihood, overhead, compare_sent, walk, use_large)
    answer({run.__name__: run for run in runs})
