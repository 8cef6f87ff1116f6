"""A long time of everything at once: what a server has of memory and open files stays what it was."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from fragile import Steady
from serving import Operator, ServerApart, serving, wait_until
from traffic import calling, sum_up
from watching import Watch

import demos_hpc
from demos_hpc.errors import Cancelled

MODEL = f"{Path(__file__).with_name('fragile.py')}:Fragile"
#: The part of the time in which a server may still grow to its size.
WARM_UP = 0.3
#: Seconds between two visits.
PACE = 0.1
#: Seconds for a replacement to come, on a busy machine.
REPLACEMENT = 60.0
#: Visits between two deaths of a worker.
VISITS_PER_DEATH = 40


def mix_load(
    place: Path, transport: str = "auto", *, seconds: float = 600.0, callers: int = 4, seed: int = 12
) -> dict[str, float]:
    """Some call all the time; others come, ask for this and that, change their minds, or talk nonsense."""
    rng = random.Random(seed)
    never = threading.Event()
    n_visits = n_wrong = n_deaths = 0
    with serving(MODEL, place, transport=transport) as server, server.operate() as operator:
        watches = [Watch.of_dispatcher(server), Watch(server.process.pid)]
        visits: list[Callable[[], bool]] = [
            lambda: _visit_for_draws(server, rng),
            lambda: _visit_and_cancel(server, rng),
            lambda: _visit_to_change_params(server, rng),
            lambda: _visit_with_nonsense(server, rng),
        ]
        with calling(server, callers, seed=seed, nap=2e-7) as steady:
            begin = time.monotonic()
            is_warm = False
            while time.monotonic() < begin + seconds:
                n_wrong += not visits[n_visits % len(visits)]()
                n_visits += 1
                if n_visits % VISITS_PER_DEATH == 0:
                    _kill_one(operator)
                    n_deaths += 1
                if not is_warm and time.monotonic() > begin + WARM_UP * seconds:
                    is_warm = True
                    _come_to_rest(operator, watches, "begin")
                never.wait(PACE)
            _come_to_rest(operator, watches, "end")
            figures = sum_up([caller.finish() for caller in steady])
        lost_clients = operator.look()["events"]["lost_clients"]
    figures["wrong"] += n_wrong
    dispatcher, supervisor = (watch.describe() for watch in watches)
    return {
        **figures,
        "seconds": seconds,
        "visits": n_visits,
        "deaths": n_deaths,
        "lost_clients": lost_clients,
        **dispatcher,
        "supervisor_memory_growth": supervisor["memory_growth"],
        "supervisor_fd_growth": supervisor["fd_growth"],
    }


def _come_to_rest(operator: Operator, watches: list[Watch], what: str) -> None:
    """Looks when both workers are there and no visitor is."""
    wait_until(lambda: len(operator.list_workers()) == 2, REPLACEMENT, "two workers are alive")
    for watch in watches:
        getattr(watch, what)()


def _kill_one(operator: Operator) -> None:
    alive = wait_until(lambda: len(found := operator.list_workers()) == 2 and found, REPLACEMENT, "two are alive")
    os.kill(alive[0]["pid"], signal.SIGKILL)


def _visit_for_draws(server: ServerApart, rng: random.Random) -> bool:
    n, point, seed = rng.randrange(1, 50_000), [rng.random(), rng.random(), 0.0], rng.randrange(2**32)
    with server.connect() as model:
        x = model.sample(n, point, seed=seed)
        value = model.log_likelihood(x, point)
    local = demos_hpc.local(Steady())
    return x.tobytes() == local.sample(n, point, seed=seed).tobytes() and value == local.log_likelihood(x, point)


def _visit_and_cancel(server: ServerApart, rng: random.Random) -> bool:
    x = np.full((rng.randrange(1000, 50_000), 2), rng.random())
    with server.connect() as model:
        futures = [model.submit.log_density(x, [0.5, 0.5, 1e-6]) for _ in range(4)]
        for future in futures[1:]:
            future.cancel()
        errors = [future.exception() for future in futures]
    return errors[0] is None and all(error is None or isinstance(error, Cancelled) for error in errors)


def _visit_to_change_params(server: ServerApart, rng: random.Random) -> bool:
    mu, x = rng.random(), np.full((10, 2), rng.random())
    with server.connect() as model:
        revision = model.set_params(mu=mu)
        future = model.submit.log_density(x)
        answer = future.result()
    return (
        future.revision == revision
        and answer.tobytes() == demos_hpc.local(Steady()).log_density(x, [mu, 0.25, 0.0]).tobytes()
    )


def _visit_with_nonsense(server: ServerApart, rng: random.Random) -> bool:
    """Whether the door says nothing but goodbye."""
    with server.knock() as sock:
        sock.settimeout(10.0)
        with contextlib.suppress(OSError):
            sock.sendall(rng.randbytes(rng.randrange(1, 1000)))
            sock.shutdown(1)
            while sock.recv(1 << 16):
                pass
    return True
