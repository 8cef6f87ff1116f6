"""What `overhead` measures in each layer: a process that computes by itself, calls a server, or is one of two ranks.

    overhead_peer.py plain | served [NAME] | ranks

It runs bare and in an image, and needs nothing beside it but stage.py.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from stage import answer

import demos_hpc
from demos_hpc.model import load

#: The parameters that are fitted, and the first steps.
FREE, STEPS = (2, 5, 9), (0.05, 1e-4, 0.02)
#: Events of a fit.
EVENTS = 300
PIECE = 4 << 20
#: That this process may use.
CORES = os.sched_getaffinity(0)
#: Seconds for a call.
PATIENCE = 300.0
#: Messages before the clock is started.
WARMING = 3


def search(log_likelihood: Callable[[np.ndarray], float], start: np.ndarray, calls: int) -> tuple[float, np.ndarray]:
    """The best point of a compass search with so many calls: the same ones, whoever computes."""
    point, steps = start.copy(), np.array(STEPS)
    best, done = log_likelihood(point), 1
    while True:
        moved = False
        for column, step in zip(FREE, steps, strict=True):
            for change in (step, -step):
                if done == calls:
                    return best, point
                trial = point.copy()
                trial[column] += change
                value = log_likelihood(trial)
                done += 1
                if value > best:
                    best, point, moved = value, trial, True
                    break
        steps = steps if moved else steps / 2


def fit(log_likelihood: Callable[[np.ndarray], float], start: np.ndarray, calls: int) -> dict[str, Any]:
    """Seconds of a fit, and where it ended, to the last bit."""
    begin = time.perf_counter()
    value, point = search(log_likelihood, start, calls)
    return {"seconds": time.perf_counter() - begin, "end": [number.hex() for number in (value, *point.tolist())]}


# ---- a process that computes by itself ----------------------------------------------------------------------------


def compute_alone() -> None:
    model = load("nu_atm")
    start = model.spec.defaults.copy()
    events = model.sample(0, EVENTS, start, 1)

    def log_likelihood(point: np.ndarray) -> float:
        return float(model.log_density(events, point).sum())

    answer(
        {
            "fit": lambda calls: fit(log_likelihood, start, calls),
            "multiply": multiply,
            "copy": copy_memory,
            "write": write_file,
            "read": read_file,
            "open": open_files,
            "load": load_software,
            "describe": describe,
            "settle": settle,
        }
    )


def describe() -> dict[str, str]:
    """What has to be the same for a comparison to mean anything."""
    digest = hashlib.sha256()
    for path in sorted(Path(demos_hpc.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return {
        "python": f"{platform.python_version()} (Debian's of {platform.python_build()[1]})",
        "numpy": np.__version__,
        "libc": " ".join(platform.libc_ver()),
        "demos_hpc": digest.hexdigest()[:12],
    }


def settle(nth: int) -> None:
    """From now on this process stays on one core."""
    cores = sorted(CORES)
    os.sched_setaffinity(0, {cores[nth % len(cores)]})


def multiply(n: int = 512, times: int = 20) -> float:
    """Seconds for products of two square matrices."""
    a = np.random.default_rng(1).normal(size=(n, n))
    out = np.empty_like(a)
    begin = time.perf_counter()
    for _ in range(times):
        np.matmul(a, a, out=out)
    return time.perf_counter() - begin


def copy_memory(n_bytes: int, times: int = 5) -> float:
    """Seconds a copy from memory to memory, beyond what caches hold."""
    source, out = np.ones(n_bytes // 8), np.zeros(n_bytes // 8)
    begin = time.perf_counter()
    for _ in range(times):
        np.copyto(out, source)
    return (time.perf_counter() - begin) / times


def write_file(path: str, n_bytes: int) -> float:
    """Seconds until a new file is on the disk, in place of what was there."""
    piece = b"x" * PIECE
    Path(path).unlink(missing_ok=True)
    begin = time.perf_counter()
    with Path(path).open("xb") as file:
        for _ in range(n_bytes // PIECE):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - begin


def read_file(path: str) -> float:
    """Seconds to read a file that the page cache holds."""
    buffer = bytearray(PIECE)
    begin = time.perf_counter()
    with Path(path).open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - begin


def open_files(folder: str, n: int) -> float:
    """Seconds to make, write, read and remove a small file."""
    paths = [Path(folder, f"small-{os.getpid()}-{nth}") for nth in range(n)]
    begin = time.perf_counter()
    for path in paths:
        path.write_bytes(b"x" * 100)
    for path in paths:
        path.read_bytes()
    for path in paths:
        path.unlink()
    return (time.perf_counter() - begin) / n


def load_software() -> float:
    """Seconds to read all files of NumPy, on the host's disk or in the image."""
    paths = [path for path in sorted(Path(np.__file__).parent.rglob("*")) if path.suffix in (".py", ".so")]
    paths += sorted(Path(np.__file__).parent.with_name("numpy.libs").iterdir())
    begin = time.perf_counter()
    for path in paths:
        path.read_bytes()
    return time.perf_counter() - begin


# ---- a process that calls a server --------------------------------------------------------------------------------


def call_server(name: str | None) -> None:
    with demos_hpc.connect(name, timeout=PATIENCE) as model:
        start = model.spec.defaults.copy()
        events = model.sample(EVENTS, seed=1)
        # Out of the detector's window, so that the model has nothing to compute: what is left is the way.
        outside = np.array([[1e6, 0.0]])

        def trip(times: int) -> float:
            begin = time.perf_counter()
            for _ in range(times):
                value = model.log_density(outside)
            assert np.isneginf(value).all()
            return (time.perf_counter() - begin) / times

        runs = {"fit": lambda calls: fit(lambda point: model.log_likelihood(events, point), start, calls), "trip": trip}
        answer(runs)


# ---- two ranks ----------------------------------------------------------------------------------------------------


def exchange() -> None:
    """Ranks 0 and 1 send messages there and back; rank 1 sleeps while nobody asks."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    assert world.size == 2, f"worlds of {world.size}"
    settle(world.rank)

    def ping(n_bytes: int, times: int) -> float:
        """Seconds there and back."""
        world.send((n_bytes, times), 1, tag=1)
        return bounce(n_bytes, times)

    def bounce(n_bytes: int, times: int) -> float:
        buffer = np.zeros(n_bytes, np.uint8)
        begin = 0.0
        for nth in range(-WARMING, times):
            if nth == 0:
                begin = time.perf_counter()
            if world.rank == 0:
                world.Send(buffer, 1)
                world.Recv(buffer, 1)
            else:
                world.Recv(buffer, 0)
                world.Send(buffer, 0)
        return (time.perf_counter() - begin) / times

    if world.rank == 0:
        answer({"ping": ping})
        world.send((0, 0), 1, tag=1)
        return
    while True:
        while not world.iprobe(0, tag=1):
            time.sleep(5e-3)
        n_bytes, times = world.recv(source=0, tag=1)
        if not times:
            return
        bounce(n_bytes, times)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["plain"]:
            compute_alone()
        case ["served", *names]:
            call_server(names[0] if names else None)
        case ["ranks"]:
            exchange()
