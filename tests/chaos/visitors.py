"""Clients that die, clients that stop, and clients that all come at once."""

from __future__ import annotations

import contextlib
import math
import random
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from caller import Findings, Orders
from fragile import Steady
from serving import Operator, ServerApart, serving, wait_until
from traffic import Caller, calling, sum_up
from watching import Watch

from demos_hpc.errors import DemosError
from demos_hpc.greetings import Knock
from demos_hpc.identity import find_user, make_nonce
from demos_hpc.messages import Kind, to_json
from demos_hpc.wire import pack

MODEL = f"{Path(__file__).with_name('fragile.py')}:Fragile"
#: Seconds for something that should happen at once.
SOON = 30.0


def kill_clients(
    place: Path, transport: str = "auto", *, kills: int = 50, warm_up: int = 10, callers: int = 4, seed: int = 6
) -> dict[str, float]:
    """Clients are killed in mid-request, while others are at work; memory is looked at after the first ``warm_up``."""
    rng = random.Random(seed)
    never = threading.Event()
    with serving(MODEL, place, transport=transport) as server, server.operate() as operator:
        watch = Watch.of_dispatcher(server)
        with calling(server, callers, seed=seed, nap=1e-6) as steady:
            for nth in range(kills + warm_up):
                if nth == warm_up:
                    wait_until(lambda: _have_settled(server, operator, callers), SOON, "all that stay are upgraded")
                    watch.begin()
                victim = Caller(server, Orders(server.name, seed + nth, transport=server.way, prepared=3, nap=1e-5))
                victim.wait_until_ready()
                never.wait(rng.uniform(0.02, 0.2))
                victim.kill()
            n_lost = wait_until(lambda: _count_lost(operator, kills + warm_up), SOON, "all deaths are noticed")
            watch.end()
            figures = sum_up([caller.finish() for caller in steady])
        queue = operator.look()["queue"]["length"]
    return {**figures, **watch.describe(), "kills": kills, "noticed": n_lost - warm_up, "left_in_queue": queue}


def _have_settled(server: ServerApart, operator: Operator, callers: int) -> bool:
    """Whether links of those that stay have been upgraded, where they are: that takes files once, and no more."""
    shared = operator.look()["links"].get("shm", {"clients": 0})
    return server.config.upgrade == "off" or shared["clients"] >= callers


def _count_lost(operator: Operator, n: int) -> int:
    lost = int(operator.look()["events"]["lost_clients"])
    return lost if lost >= n else 0


def stop_client(
    place: Path,
    transport: str = "auto",
    *,
    seconds: float = 10.0,
    max_unsent_bytes: int = 8 << 20,
    callers: int = 4,
    rest: float = 6.0,
    seed: int = 7,
) -> dict[str, float]:
    """A client that has asked for much is stopped for a while, and then goes on.

    Another one like it comes first, for a quarter of the time, and the server has ``rest`` seconds to let go of what
    that one took; ``first_growth`` is what it kept nevertheless, ``memory_growth`` what the second one adds.
    """
    never = threading.Event()
    with serving(MODEL, place, transport=transport, max_unsent_bytes=max_unsent_bytes) as server:
        first, second = Watch.of_dispatcher(server), Watch.of_dispatcher(server)
        with calling(server, callers, seed=seed, nap=1e-6) as steady:
            never.wait(rest)
            first.begin()
            findings = [_stop_one(server, seconds / 4, first, seed + 1)]
            first.end()
            never.wait(rest)
            second.begin()
            findings.append(_stop_one(server, seconds, second, seed + 2))
            second.end()
            figures = sum_up([caller.finish() for caller in steady])
    for name in ("completed", "wrong", "lost", "duplicated"):
        figures[name] += sum(getattr(found, name) for found in findings)
    growth = first.describe()["memory_growth"]
    return {**figures, **second.describe(), "first_growth": growth, "stopped_s": seconds}


def _stop_one(server: ServerApart, seconds: float, watch: Watch, seed: int) -> Findings:
    """A client with 300 requests under way, stopped for so long."""
    never = threading.Event()
    with calling(server, 1, seed=seed, in_flight=300, prepared=8) as [caller]:
        never.wait(seconds / 8)
        caller.pause()
        never.wait(seconds)
        watch.look()
        caller.resume()
        never.wait(seconds / 8)
        return caller.finish()


# ---- all at once ----------------------------------------------------------------------------------------------

#: Requests after which a link is busy, and more than that.
UPGRADE_AFTER, ENOUGH = 4, 12
#: Clients of one process that ask at the same time: more would only wait for one another.
AT_A_TIME = 4


class Visitor(threading.Thread):
    """A client that connects and asks one thing; it asks more when ``sign`` is given a second time."""

    def __init__(self, server: ServerApart, signs: list[threading.Event], turn: threading.Semaphore, seed: int) -> None:
        super().__init__(daemon=True)
        self._server, self._signs, self._turn, self._seed = server, signs, turn, seed
        #: Seconds from connecting to the answer.
        self.waited = math.inf
        self.n_right = 0
        self.error: Exception | None = None
        self.is_served, self.is_done = threading.Event(), threading.Event()

    def run(self) -> None:
        rng = np.random.default_rng(self._seed)
        x, params = rng.normal(size=(10, 2)), np.array([0.5, 0.5, 0.0])
        expected = Steady().log_density(x, params).tobytes()
        start, go_on, leave = self._signs
        start.wait(SOON)
        begin = time.monotonic()
        try:
            with self._server.connect(timeout=SOON) as model:
                self.n_right += model.log_density(x, params).tobytes() == expected
                self.waited = time.monotonic() - begin
                self.is_served.set()
                go_on.wait(2 * SOON)
                with self._turn:
                    for _ in range(ENOUGH):
                        self.n_right += model.log_density(x, params).tobytes() == expected
                self.is_done.set()
                leave.wait(2 * SOON)
        except (DemosError, OSError) as error:
            self.error = error
        finally:
            self.is_served.set()
            self.is_done.set()


class Dying(threading.Thread):
    """Somebody who says only part of what is to be said, and goes, or stays and is silent."""

    def __init__(self, server: ServerApart, start: threading.Event, nth: int) -> None:
        super().__init__(daemon=True)
        self._server, self._start, self._nth = server, start, nth
        self._stays = bool(nth % 2)
        self.leave: Callable[[], None] = lambda: None

    def run(self) -> None:
        self._start.wait(SOON)
        with contextlib.suppress(DemosError, OSError):
            [self._come_and_go, self._take_ticket, self._say_little, self._say_hello][self._nth % 4]()
        if not self._stays:
            self.leave()

    def _come_and_go(self) -> None:
        """Right after WELCOME."""
        self.leave = self._server.dial(seconds=SOON).port.close

    def _take_ticket(self) -> None:
        """Between the ticket and the memory that it is for."""
        dialed = self._server.dial(seconds=SOON)
        self.leave = dialed.port.close
        dialed.link.send(pack(Kind.TICKET))
        dialed.port.wait(SOON)

    def _say_little(self) -> None:
        self._knock(self._make_hello()[: self._nth])

    def _say_hello(self) -> None:
        """Before the proof."""
        self._knock(self._make_hello())

    def _knock(self, words: bytes) -> None:
        sock = self._server.knock()
        self.leave = sock.close
        sock.sendall(words)

    def _make_hello(self) -> bytes:
        knock = Knock("client", find_user(), "here", 1, make_nonce())
        return bytes(pack(Kind.HELLO, [to_json(knock.to_dict())]).head)


def come_at_once(
    place: Path, transport: str = "auto", *, clients: int = 200, dying: int = 20, seed: int = 8
) -> dict[str, float]:
    """All connect at the same moment, some die at the door; the others are served, and go on as fast as they can."""
    resource.setrlimit(resource.RLIMIT_NOFILE, 2 * resource.getrlimit(resource.RLIMIT_NOFILE)[1:])
    settings = {"upgrade_after": UPGRADE_AFTER}
    with serving(MODEL, place, transport=transport, **settings) as server, server.operate() as operator:
        watch = Watch.of_dispatcher(server)
        with server.connect() as model:  # the workers' links are as fast as they get before anything is counted
            for _ in range(10 * UPGRADE_AFTER):
                model.log_density(np.zeros((100, 2)), [0.5, 0.5, 1e-5])
        watch.begin()
        signs = [threading.Event() for _ in range(3)]
        turn = threading.Semaphore(AT_A_TIME)
        visitors = [Visitor(server, signs, turn, seed + nth) for nth in range(clients - dying)]
        others = [Dying(server, signs[0], nth) for nth in range(dying)]
        everybody = [*visitors, *others]
        random.Random(seed).shuffle(everybody)
        for thread in everybody:
            thread.start()
        stages = [lambda visitor: visitor.is_served, lambda visitor: visitor.is_done]
        for sign, find_stage in zip(signs, stages, strict=False):
            sign.set()
            for visitor in visitors:
                assert find_stage(visitor).wait(2 * SOON), f"{visitor} hangs"
        n_upgraded = operator.look()["links"].get("shm", {"clients": 0})["clients"]
        for event in signs:
            event.set()
        for thread in everybody:
            thread.join(SOON)
            assert not thread.is_alive(), f"{thread} hangs"
        for other in others:
            other.leave()
        wait_until(lambda: not any(way["clients"] for way in operator.look()["links"].values()), SOON, "all have left")
        watch.end()
    for error in {repr(visitor.error) for visitor in visitors if visitor.error is not None}:
        print(error, file=sys.stderr)
    waited = sorted(visitor.waited for visitor in visitors)
    n_lost = sum(visitor.error is not None for visitor in visitors)
    n_right = sum(visitor.n_right for visitor in visitors)
    return {
        "clients": clients,
        "dying": dying,
        "completed": n_right,
        "wrong": (len(visitors) - n_lost) * (ENOUGH + 1) - n_right if not n_lost else 0,
        "lost": n_lost,
        "median_wait_ms": 1e3 * waited[len(waited) // 2],
        "worst_wait_ms": 1e3 * waited[-1],
        "not_upgraded": len(visitors) - n_upgraded if server.config.upgrade != "off" else 0,
        **watch.describe(),
    }
