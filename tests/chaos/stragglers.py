"""Workers that take long, hang, answer late, or answer garbage."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from caller import Tally
from fragile import HANG, HANGS, Steady
from serving import Operator, ServerApart, serving, wait_until
from traffic import calling, sum_up

from demos_hpc.errors import DemosError
from demos_hpc.fingerprint import describe_arithmetic
from demos_hpc.messages import Kind, Offer, Operation, to_json
from demos_hpc.model import load
from demos_hpc.wire import Frame, pack

MODEL = f"{Path(__file__).with_name('fragile.py')}:Fragile"
#: Seconds for something that should happen at once.
SOON = 30.0


def take_long(
    place: Path, transport: str = "auto", *, chunk_timeout: float = 20.0, rounds: int = 10, seed: int = 4
) -> dict[str, float]:
    """Long calls are left alone, hanging ones and stopped workers are not; late answers count for nothing."""
    rng = np.random.default_rng(seed)
    n_wrong = 0
    evicting: list[float] = []
    killing: list[float] = []
    with (
        serving(MODEL, place, transport=transport, workers=3, chunk_timeout=chunk_timeout) as server,
        server.operate() as operator,
    ):
        orders = {"nap": 1e-6, "largest": 20_000}
        with calling(server, 2, seed=seed, **orders) as callers, server.connect() as model:
            for _ in range(rounds):
                point = np.array([*rng.normal(size=2), 0.6 * chunk_timeout])
                n_wrong += model.evaluate(point).tobytes() != Steady().evaluate(point[None]).tobytes()
            events = operator.look()["events"]
            for nth in range(rounds):
                pids = {worker["name"]: worker["pid"] for worker in operator.list_workers()}
                n_before = len(operator.look()["evicted"])
                if nth % 2:
                    asked = _ask_to_hang(server, model, rng)
                else:
                    stopped = _stop_one(operator)
                begin = time.monotonic()
                label = wait_until(lambda n=n_before: operator.look()["evicted"][n:], 3 * chunk_timeout, "eviction")[0]
                evicting.append(time.monotonic() - begin)
                if nth % 2:
                    n_wrong += not asked()
                else:
                    os.kill(stopped, signal.SIGCONT)  # its answer comes late
                pid = pids[label.partition("#")[0]]
                wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), SOON, "the supervisor ends it")
                killing.append(time.monotonic() - begin)
                wait_until(lambda: len(operator.list_workers()) == 3, SOON, "another takes its place")
            figures = sum_up([caller.finish() for caller in callers])
    figures["wrong"] += n_wrong
    return {
        **figures,
        "long_calls": rounds,
        "long_calls_disturbed": events["evictions"] + events["crashes"],
        "evicted": len(evicting),
        "evict_timeouts": max(evicting) / chunk_timeout,
        "killed_after_ms": 1e3 * max(k - e for k, e in zip(killing, evicting, strict=True)),
    }


def _ask_to_hang(server: ServerApart, model: Any, rng: np.random.Generator) -> Callable[[], bool]:
    """Asks for a row that hangs, once; returns what tells whether it is answered rightly in the end."""
    marker = server.directory / HANGS
    marker.touch()
    x = rng.normal(size=(100, 2))
    x[rng.integers(100), 0] = HANG
    future = model.submit.log_density(x, np.zeros(3))
    wait_until(lambda: not marker.exists(), SOON, "a worker hangs")
    return lambda: bool(future.result().tobytes() == Steady().log_density(x, np.zeros(3)).tobytes())


def _stop_one(operator: Operator) -> int:
    """Stops a worker that has a chunk."""
    busy = wait_until(
        lambda: [w["pid"] for w in operator.list_workers() if w["running_seconds"] is not None], SOON, "one works"
    )
    os.kill(busy[0], signal.SIGSTOP)
    return int(busy[0])


# ---- garbage ------------------------------------------------------------------------------------------------


class FalseWorker:
    """A worker that the door lets in, and that answers as it likes."""

    def __init__(self, server: ServerApart) -> None:
        self._dialed = server.dial("worker")
        self.link, self._port = self._dialed.link, self._dialed.port
        model = load(MODEL)
        offer = Offer("a false worker", describe_arithmetic(), model.source, spec=model.spec.to_dict())
        self.link.send(pack(Kind.HELLO, [to_json(offer.to_dict())]))
        self.chunks: list[Frame] = []

    def look(self) -> None:
        """Takes in what has come."""
        for _, arrived in self._port.receive():
            if not isinstance(arrived, DemosError) and arrived.header.kind == Kind.CHUNK:
                self.chunks.append(arrived)

    def close(self) -> None:
        self._port.close()


def compute(chunk: Frame) -> np.ndarray:
    """The right answer to a chunk of densities."""
    return Steady().log_density(*chunk.arrays)


def _answer(chunk: Frame, arrays: list[np.ndarray], **changes: int) -> bytes:
    header = chunk.header
    fields = {"operation": header.operation, "id": header.id, "first_row": header.first_row, "n_rows": header.n_rows}
    return bytes(pack(Kind.RESULT, arrays, **{**fields, **changes}).head)


#: What a false worker sends in answer to a chunk: bytes, after which it says nothing more.
GARBAGE: dict[str, Callable[[Frame], bytes]] = {
    "one row too many": lambda c: _answer(c, [np.zeros(c.header.n_rows + 1)]),
    "one row too few, and says so": lambda c: _answer(c, [np.zeros(c.header.n_rows - 1)], n_rows=c.header.n_rows - 1),
    "another dtype": lambda c: _answer(c, [np.zeros(c.header.n_rows, np.float32)]),
    "two arrays": lambda c: _answer(c, [compute(c), compute(c)]),
    "no array": lambda c: _answer(c, []),
    "another shape": lambda c: _answer(c, [compute(c)[:, None]]),
    "other rows": lambda c: _answer(c, [compute(c)], first_row=c.header.first_row + 1),
    "another id": lambda c: _answer(c, [compute(c)], id=c.header.id + 100_000),
    "twice, and wrong the second time": lambda c: 2 * _answer(c, [compute(c)]) + _answer(c, [compute(c) + 1.0]),
    "an unknown status": lambda c: _answer(c, [], status=999),
    "an error that is no JSON": lambda c: _answer(c, [np.zeros(8, np.uint8)], status=3),
    "no frames": lambda c: b"garbage!" * 64,
    "half a frame": lambda c: _answer(c, [compute(c)])[:100],
    "a request": lambda c: bytes(pack(Kind.REQUEST, c.arrays, operation=Operation.LOG_DENSITY, id=1, model=1).head),
    "nothing": lambda c: b"",
}


def answer_garbage(
    place: Path, transport: str = "auto", *, chunk_timeout: float = 2.0, rounds: int = 5, seed: int = 5
) -> dict[str, float]:
    """A false worker answers one chunk with garbage; another worker is there to answer rightly."""
    rng = np.random.default_rng(seed)
    faults: list[str] = []
    worst = 0.0
    with (
        serving(MODEL, place, transport=transport, workers=1, chunk_timeout=chunk_timeout) as server,
        server.operate() as operator,
        server.connect(timeout=30.0) as model,
    ):
        tally = Tally(model._connection)
        for name in [name for _ in range(rounds) for name in GARBAGE]:
            begin = time.monotonic()
            false = FalseWorker(server)
            try:
                wait_until(lambda: len(operator.list_workers()) == 2, SOON, "the false worker is in")
                if fault := _try_garbage(name, false, model, rng):
                    faults.append(f"{name}: {fault}")
            finally:
                false.close()
            wait_until(lambda: len(operator.list_workers()) == 1, SOON, "the false worker is gone")
            worst = max(worst, time.monotonic() - begin)
    for fault in sorted(set(faults)):
        print(f"{faults.count(fault)} x {fault}", file=sys.stderr)
    n_garbage = rounds * len(GARBAGE)
    return {
        "garbage": n_garbage,
        "completed": N_QUESTIONS * n_garbage,
        "wrong": len(faults),
        "duplicated": tally.duplicated,
        "worst_ms": 1e3 * worst,
    }


#: Requests that are under way when garbage comes.
N_QUESTIONS = 8


def _try_garbage(name: str, false: FalseWorker, model: Any, rng: np.random.Generator) -> str:
    """What became of requests in one of which a false worker had a part, where it is not what should have."""
    xs = [rng.normal(size=(40, 2)) for _ in range(N_QUESTIONS)]
    params = np.array([0.5, 0.5, 1e-4])
    futures = [model.submit.log_density(x, params) for x in xs]

    def has_chunk() -> bool:
        model._connection.progress()
        false.look()
        return bool(false.chunks)

    wait_until(has_chunk, SOON, "the false worker is given a chunk")
    false.link.sock.setblocking(True)
    false.link.sock.sendall(GARBAGE[name](false.chunks[0]))
    if name == "half a frame":
        false.close()
    for future, x in zip(futures, xs, strict=True):
        if (error := future.exception()) is not None:
            return repr(error)
        if future.result().tobytes() != Steady().log_density(x, params).tobytes():
            return "a wrong answer"
    return ""
