"""Workers, models and dispatchers that die."""

from __future__ import annotations

import math
import os
import random
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from fragile import CRASH, Steady
from serving import Operator, serving, wait_until
from traffic import calling, sum_up

import demos_hpc
from demos_hpc.errors import DemosError, ModelCrashed
from demos_hpc.spec import BLOCK_ROWS

MODEL = f"{Path(__file__).with_name('fragile.py')}:Fragile"
#: Seconds between two kills at least.
PACE = 0.2
#: Seconds for a replacement to come, on a busy machine.
REPLACEMENT = 60.0


def kill_workers(place: Path, transport: str = "auto", *, kills: int = 200, seed: int = 1) -> dict[str, float]:
    """A worker is killed as soon as two are alive and at most every 200 ms, while four clients are at work."""
    rng = random.Random(seed)
    never = threading.Event()
    detected: list[float] = []
    n_with_chunk = 0
    begin = time.monotonic()
    with serving(MODEL, place, transport=transport) as server, server.operate() as operator:
        with calling(server, 4, seed=seed, nap=2e-6) as callers:
            for nth in range(kills):
                if ended := [caller for caller in callers if caller.process.poll() is not None]:
                    raise AssertionError(f"a caller gave up after {nth} kills: {ended[0].wait()}")
                victim = wait_until(lambda: _choose_victim(operator, rng), REPLACEMENT, "two workers are alive")
                killed = time.monotonic()
                os.kill(victim["pid"], signal.SIGKILL)
                buried = wait_until(lambda v=victim: _find_dead(operator, v), 10.0, f"{victim['name']} is dead", 1e-3)
                detected.append(time.monotonic() - killed)
                n_with_chunk += buried["chunks_lost"] > victim["chunks_lost"]
                never.wait(max(0.0, killed + PACE - time.monotonic()))
            figures = sum_up([caller.finish() for caller in callers])
        figures["crashes"] = operator.look()["events"]["crashes"]
    detected.sort()
    return {
        **figures,
        "kills": kills,
        "kills_with_chunk": n_with_chunk / kills,
        "kills_per_second": kills / (time.monotonic() - begin),
        "detect_ms": 1e3 * detected[len(detected) // 2],
        "worst_detect_ms": 1e3 * detected[-1],
    }


def _choose_victim(operator: Operator, rng: random.Random) -> dict[str, Any] | None:
    """One of two workers or more, that has a chunk if any has."""
    alive = operator.list_workers()
    if len(alive) < 2:
        return None
    busy = [worker for worker in alive if worker["running_seconds"] is not None]
    return rng.choice(busy or alive)


def _find_dead(operator: Operator, victim: dict[str, Any]) -> dict[str, Any] | None:
    """The place of a worker, once that is known to be dead."""
    place = next(worker for worker in operator.look()["workers"] if worker["name"] == victim["name"])
    return place if not place["is_alive"] or place["pid"] != victim["pid"] else None


# ---- rows that crash ------------------------------------------------------------------------------------------


def crash_on_rows(
    place: Path, transport: str = "auto", *, poisoned: int = 20, callers: int = 4, seed: int = 2
) -> dict[str, float]:
    """Requests with one row that crashes every worker, among those of callers who know nothing of it."""
    rng = np.random.default_rng(seed)
    n_named = 0
    with serving(MODEL, place, transport=transport) as server, calling(server, callers, seed=seed, nap=1e-6) as others:
        with server.connect(timeout=120.0) as model:
            for nth in range(poisoned):
                x = rng.normal(size=(int(rng.integers(1, 20_000)), 2))
                row = int(rng.integers(len(x)))
                x[row, 0] = CRASH
                ask = model.submit.log_likelihood if nth % 3 == 2 else model.submit.log_density
                n_named += _names(ask(x).exception(), row)
        figures = sum_up([other.finish() for other in others])
        with server.operate() as operator:
            figures["crashes"] = operator.look()["events"]["crashes"]
    return {**figures, "poisoned": poisoned, "unnamed": poisoned - n_named}


def _names(error: DemosError | None, row: int) -> bool:
    """Whether an error says that this row, or a block with it, has crashed its workers."""
    found = re.search(r"rows (\d+) to (\d+)", str(error))
    is_right = found is not None and int(found[1]) <= row < int(found[2]) <= int(found[1]) + BLOCK_ROWS
    if not (isinstance(error, ModelCrashed) and is_right):
        print(f"row {row}: {error!r}", file=sys.stderr)
    return isinstance(error, ModelCrashed) and is_right


# ---- the dispatcher -------------------------------------------------------------------------------------------


def kill_dispatcher(
    place: Path, transport: str = "auto", *, kills: int = 10, callers: int = 4, heartbeat: float = 5.0, seed: int = 3
) -> dict[str, float]:
    """The dispatcher is killed under callers of whom half find it again, and half want to know that it is gone."""
    lost: list[float] = []
    back: list[float] = []
    n_left_alone = 0
    with serving(MODEL, place, transport=transport, heartbeat=heartbeat) as server:
        orders = {"nap": 1e-6, "prepared": 12}
        with server.connect(timeout=120.0, reconnect=True) as model:
            revision = model.set_params(mu=0.125, log_sigma=-0.5)
            draws = demos_hpc.local(Steady()).sample(3000, [0.125, -0.5, 0.0], seed=seed).tobytes()
            with calling(server, callers, seed=seed, reconnect=True, **orders) as lasting:
                for nth in range(kills):
                    with calling(server, callers, seed=seed + nth, **orders) as others:
                        endpoint = server.find()
                        assert endpoint is not None
                        killed = time.monotonic()
                        os.kill(endpoint.pid, signal.SIGKILL)
                        for found in [other.wait() for other in others]:
                            n_left_alone += found.lost_at is None
                            lost.append((found.lost_at or math.inf) - killed)
                    is_kept = model.sample(3000, seed=seed).tobytes() == draws
                    back.append(time.monotonic() - killed)
                    assert is_kept, "the server-side parameters are others than before"
                    assert model.metadata()["revision"] == revision, "their revision is another than before"
                figures = sum_up([caller.finish() for caller in lasting])
    return {
        **figures,
        "kills": kills,
        "lost_heartbeats": max(lost) / heartbeat,
        "lost_ms": 1e3 * max(lost),
        "back_ms": 1e3 * max(back),
        "left_alone": n_left_alone,
    }


def hang_dispatcher(
    place: Path, transport: str = "auto", *, callers: int = 4, heartbeat: float = 5.0, seed: int = 13
) -> dict[str, float]:
    """The dispatcher is stopped, not killed: nothing is closed, and all the same callers notice; others wait for it."""
    with serving(MODEL, place, transport=transport, heartbeat=heartbeat) as server:
        orders = {"nap": 1e-6, "prepared": 12}
        with (
            calling(server, callers, seed=seed, reconnect=True, **orders) as lasting,
            calling(server, callers, seed=seed + 1, **orders) as others,
        ):
            endpoint = server.find()
            assert endpoint is not None
            hung = time.monotonic()
            os.kill(endpoint.pid, signal.SIGSTOP)
            try:
                lost = [(other.wait(20 * heartbeat).lost_at or math.inf) - hung for other in others]
            finally:
                os.kill(endpoint.pid, signal.SIGCONT)
            figures = sum_up([caller.finish() for caller in lasting])
    return {**figures, "lost_heartbeats": max(lost) / heartbeat, "lost_ms": 1e3 * max(lost)}
