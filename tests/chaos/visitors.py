"""Clients that die, clients that stop, and clients that all come at once."""

from __future__ import annotations

import contextlib
import math
import random
import socket
import sys
import threading
import time
from pathlib import Path

import numpy as np
from caller import Orders
from fragile import Steady
from serving import Operator, ServerApart, serving, wait_until
from traffic import Caller, calling, sum_up
from watching import Watch

from demos_hpc.dialing import Dialed, find_user
from demos_hpc.errors import DemosError
from demos_hpc.greetings import Knock
from demos_hpc.identity import make_nonce
from demos_hpc.messages import Flag, Kind, Operation, to_json
from demos_hpc.wire import pack

MODEL = f"{Path(__file__).with_name('fragile.py')}:Fragile"
#: Seconds for something that should happen at once.
SOON = 30.0


def kill_clients(place: Path, transport: str = "auto", *, kills: int = 50, seed: int = 6) -> dict[str, float]:
    """Clients are killed in mid-request, while four others are at work."""
    rng = random.Random(seed)
    never = threading.Event()
    with serving(MODEL, place) as server, server.operate() as operator:
        watch = Watch.of_dispatcher(server)
        with calling(server, 4, seed=seed, transport=transport, nap=1e-6) as callers:
            # What a server needs for so many clients is no growth.
            for nth in range(kills + WARM_UP):
                if nth == WARM_UP:
                    watch.begin()
                victim = Caller(server, Orders(server.name, seed + nth, transport=transport, prepared=3, nap=1e-5))
                victim.wait_until_ready()
                never.wait(rng.uniform(0.02, 0.2))
                victim.kill()
            n_lost = wait_until(lambda: _count_lost(operator, kills + WARM_UP), SOON, "all deaths are noticed")
            watch.end()
            figures = sum_up([caller.finish() for caller in callers])
        queue = operator.look()["queue"]["length"]
    return {**figures, **watch.describe(), "kills": kills, "noticed": n_lost - WARM_UP, "left_in_queue": queue}


#: Clients that die before memory is looked at.
WARM_UP = 3


def _count_lost(operator: Operator, n: int) -> int:
    lost = int(operator.look()["events"]["lost_clients"])
    return lost if lost >= n else 0


def stop_client(
    place: Path, transport: str = "auto", *, seconds: float = 10.0, max_unsent_bytes: int = 8 << 20, seed: int = 7
) -> dict[str, float]:
    """A client that has asked for much is stopped for a while, and then goes on."""
    never = threading.Event()
    with serving(MODEL, place, max_unsent_bytes=max_unsent_bytes) as server:
        watch = Watch.of_dispatcher(server)
        greedy = {"in_flight": 100, "prepared": 8}
        with calling(server, 4, seed=seed, transport=transport, nap=1e-6) as callers:
            with calling(server, 1, seed=seed + 1, transport=transport, **greedy) as warm:
                never.wait(seconds / 4)
                assert not warm[0].finish().lost
            watch.begin()
            with calling(server, 1, seed=seed + 2, transport=transport, **greedy) as stopped:
                never.wait(seconds / 8)
                stopped[0].pause()
                never.wait(seconds)
                watch.look()
                stopped[0].resume()
                never.wait(seconds / 8)
                victim = stopped[0].finish()
            watch.end()
            figures = sum_up([caller.finish() for caller in callers])
    for name in ("completed", "wrong", "lost", "duplicated"):
        figures[name] += getattr(victim, name)
    return {**figures, **watch.describe(), "stopped_completed": victim.completed, "stopped_s": seconds}


# ---- all at once ----------------------------------------------------------------------------------------------


class Visitor(threading.Thread):
    """A client that connects and asks one thing."""

    def __init__(self, server: ServerApart, start: threading.Event, transport: str, seed: int) -> None:
        super().__init__(daemon=True)
        self._server, self._sign, self._transport, self._seed = server, start, transport, seed
        #: Seconds from connecting to the answer.
        self.waited = math.inf
        self.is_right = False
        self.error: Exception | None = None

    def run(self) -> None:
        rng = np.random.default_rng(self._seed)
        x, params = rng.normal(size=(10, 2)), np.array([0.5, 0.5, 0.0])
        expected = Steady().log_density(x, params).tobytes()
        self._sign.wait(SOON)
        begin = time.monotonic()
        try:
            dialed = self._server.dial(transport=self._transport, seconds=SOON)
            try:
                self.is_right = _ask(dialed, x, params).tobytes() == expected
                self.waited = time.monotonic() - begin
            finally:
                dialed.port.close()
        except (DemosError, OSError, AssertionError) as error:
            self.error = error


def _ask(dialed: Dialed, x: np.ndarray, params: np.ndarray) -> np.ndarray:
    """The answer to one request over a bare connection."""
    request = pack(Kind.REQUEST, [x, params], operation=Operation.LOG_DENSITY, model=1, id=7, n_rows=len(x))
    dialed.link.send(request)
    deadline = time.monotonic() + SOON
    answer = np.full(len(x), np.nan)
    while time.monotonic() < deadline:
        for _, arrived in dialed.port.receive():
            assert not isinstance(arrived, DemosError), arrived
            header = arrived.header
            assert (header.kind, header.id, header.status) == (Kind.REPLY, 7, 0), header
            answer[header.first_row : header.first_row + header.n_rows] = arrived.arrays[0]
            if header.flags & Flag.FINAL:
                return answer
        dialed.port.wait(1.0)
    raise AssertionError("no answer in time")


class Dying(threading.Thread):
    """Somebody at the door who says only part of what is to be said, and goes, or stays and is silent."""

    def __init__(self, server: ServerApart, start: threading.Event, transport: str, nth: int) -> None:
        super().__init__(daemon=True)
        self._server, self._sign, self._transport, self._nth = server, start, transport, nth
        self._sock: socket.socket | None = None

    def run(self) -> None:
        self._sign.wait(SOON)
        if self._nth % 4 == 0:  # right after WELCOME
            with contextlib.suppress(DemosError):
                self._server.dial(transport=self._transport, seconds=SOON).port.close()
            return
        self._sock = self._server.knock(self._transport)
        knock = Knock("client", find_user(), "here", 1, make_nonce())
        hello = bytes(pack(Kind.HELLO, [to_json(knock.to_dict())]).head)
        with contextlib.suppress(OSError):
            self._sock.sendall([b"", hello[:100], hello][self._nth % 3])
        if self._nth % 2:
            self._sock.close()

    def leave(self) -> None:
        if self._sock is not None:
            self._sock.close()


def come_at_once(
    place: Path, transport: str = "auto", *, clients: int = 200, dying: int = 20, seed: int = 8
) -> dict[str, float]:
    """All connect at the same moment, some die at the door."""
    with serving(MODEL, place) as server, server.operate() as operator:
        watch = Watch.of_dispatcher(server)
        watch.begin()
        start = threading.Event()
        visitors = [Visitor(server, start, transport, seed + nth) for nth in range(clients - dying)]
        others = [Dying(server, start, transport, nth) for nth in range(dying)]
        everybody = [*visitors, *others]
        random.Random(seed).shuffle(everybody)
        for thread in everybody:
            thread.start()
        start.set()
        for thread in everybody:
            thread.join(2 * SOON)
            assert not thread.is_alive(), f"{thread} hangs"
        for other in others:
            other.leave()
        wait_until(lambda: _count_clients(operator) == 0, SOON, "all have left")
        watch.end()
    for error in {repr(visitor.error) for visitor in visitors if visitor.error is not None}:
        print(error, file=sys.stderr)
    waited = sorted(visitor.waited for visitor in visitors)
    return {
        "clients": clients,
        "dying": dying,
        "completed": sum(visitor.is_right for visitor in visitors),
        "wrong": sum(visitor.error is None and not visitor.is_right for visitor in visitors),
        "lost": sum(visitor.error is not None for visitor in visitors),
        "median_wait_ms": 1e3 * waited[len(waited) // 2],
        "worst_wait_ms": 1e3 * waited[-1],
        **watch.describe(),
    }


def _count_clients(operator: Operator) -> int:
    return sum(int(way["clients"]) for way in operator.look()["links"].values())
