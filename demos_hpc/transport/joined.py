"""The port of a process that has sockets, and shared memory with some of the peers behind them.

A busy turn asks nothing of the kernel: sockets are looked at when nothing came through memory, after a wait, and once a
millisecond. Frames that a peer has put into memory before it went are taken in before the news of its going.
"""

from __future__ import annotations

import time

from ..config import Config
from ..errors import DemosError
from . import Arrival, Place, Port
from .doorbell import Sleeper
from .pair import is_possible
from .shared import SharedPort
from .tcp import StreamPort

#: Sockets on which something came so many seconds ago are looked at each turn.
ACTIVE = 0.01
#: Otherwise they are looked at so often, seconds: in busy turns, and while yielding.
BUSY_PAUSE, IDLE_PAUSE = 1e-3, 50e-6


class JoinedPort:
    """Sockets and shared memory; without links through memory it is the port of the sockets."""

    def __init__(self, stream: StreamPort, shared: SharedPort, sleeper: Sleeper) -> None:
        self.stream = stream
        self._shared = shared
        self._sleeper = sleeper
        sleeper.watch(stream.fileno())
        #: When the sockets are looked at next, at the latest and in this wait; until when they are each turn.
        self._next_look = self._next_glance = 0.0
        self._active_until = 0.0

    def __repr__(self) -> str:
        return f"<JoinedPort of {self._shared} and {self.stream}>"

    @property
    def place(self) -> Place:
        return self.stream.place

    @place.setter
    def place(self, place: Place) -> None:
        self.stream.place = self._shared.place = place

    def receive(self) -> list[Arrival]:
        if not self._shared.has_links:
            return self.stream.receive()
        arrived = self._shared.receive()
        now = time.perf_counter()
        if now >= self._next_look or now < self._active_until:
            self._receive_stream(arrived, now)
        if arrived:
            self._sleeper.has_come()
        return arrived

    def _receive_stream(self, arrived: list[Arrival], now: float) -> None:
        self._next_look = now + BUSY_PAUSE
        if not self.stream.look():
            return
        came = self.stream.receive()
        self._shared.look_around()  # somebody may have rung
        if came:
            self._active_until = now + ACTIVE
        for link, what in came:
            if isinstance(what, DemosError):
                self._shared.finish(link, arrived)
            arrived.append((link, what))

    def wait(self, seconds: float) -> None:
        if not self._shared.has_links:
            self.stream.wait(seconds)
            return
        self._next_glance = min(self._next_look, time.perf_counter() + IDLE_PAUSE)
        if self._sleeper.wait(self._look, seconds, is_stuck=self._shared.is_stuck):
            self._next_look = 0.0

    def _look(self) -> bool:
        if self._shared.look():
            return True
        now = time.perf_counter()
        if now < self._next_glance and now >= self._active_until:
            return False
        self._next_glance = now + IDLE_PAUSE
        self._next_look = now + BUSY_PAUSE
        if not self.stream.look():
            return False
        self._next_look = now
        return True

    def flush(self, seconds: float) -> None:
        end = time.perf_counter() + seconds
        self._shared.flush(seconds)
        self.stream.flush(max(0.0, end - time.perf_counter()))

    def close(self) -> None:
        self._shared.close()
        self.stream.close()
        self._sleeper.close()


def join_memory(stream: StreamPort, config: Config) -> tuple[Port, SharedPort | None]:
    """The port of a process whose sockets may be left for shared memory, and that of the memory; alone, if not."""
    if config.upgrade == "off" or not is_possible():
        return stream, None
    sleeper = Sleeper(config.yield_seconds)
    shared = SharedPort(sleeper)
    return JoinedPort(stream, shared, sleeper), shared
