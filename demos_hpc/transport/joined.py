"""The port of a process that has sockets and something faster as well: shared memory, MPI, or both.

A busy turn asks nothing of the kernel: sockets are looked at when nothing came the fast way, after a wait, and once a
millisecond. Frames that a peer has sent the fast way before it went are taken in before the news of its going.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from ..errors import DemosError
from . import Arrival, Link, Place
from .doorbell import Sleeper
from .tcp import StreamPort

#: Sockets on which something came so many seconds ago are looked at each turn.
ACTIVE = 0.01
#: Otherwise they are looked at so often, seconds: in busy turns, and while yielding.
BUSY_PAUSE, IDLE_PAUSE = 1e-3, 50e-6
#: Length of a wait that must not become a sleep, seconds.
NAP = 1e-3


class FastPort(Protocol):
    """A port of links that stand beside a socket, or need none."""

    place: Place

    def receive(self) -> list[Arrival]:
        """As `Port.receive`."""

    def flush(self, seconds: float) -> None:
        """As `Port.flush`."""

    def close(self) -> None:
        """As `Port.close`."""

    @property
    def has_links(self) -> bool:
        """Whether there is anything to look at."""

    @property
    def is_stuck(self) -> bool:
        """Whether something could not be sent yet."""

    @property
    def longest_sleep(self) -> float:
        """Seconds after which it has to be looked at again, rung or not; 0 = it must not sleep now."""

    def look(self) -> bool:
        """Whether something has come; also moves along what is being sent."""

    def look_around(self) -> None:
        """Somebody rang on a socket: looks at links that are not looked at otherwise."""

    def finish(self, front: Link, arrived: list[Arrival]) -> None:
        """The socket ``front`` is gone: takes in what is left of the link beside it, and ends that."""


class JoinedPort:
    """Sockets, and what is faster."""

    def __init__(self, stream: StreamPort, fast: Sequence[FastPort], sleeper: Sleeper) -> None:
        self.stream = stream
        self._fast = tuple(fast)
        self._sleeper = sleeper
        sleeper.watch(stream.fileno())
        #: When the sockets are looked at next, at the latest and in this wait; until when they are each turn.
        self._next_look = self._next_glance = 0.0
        self._active_until = 0.0

    @property
    def place(self) -> Place:
        return self.stream.place

    @place.setter
    def place(self, place: Place) -> None:
        for port in (self.stream, *self._fast):
            port.place = place

    def _has_fast(self) -> bool:
        for port in self._fast:  # a loop of its own: this is asked each turn
            if port.has_links:
                return True
        return False

    def receive(self) -> list[Arrival]:
        if not self._has_fast():
            return self.stream.receive()
        arrived: list[Arrival] = []
        for port in self._fast:
            arrived += port.receive()
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
        for port in self._fast:
            port.look_around()
        if came:
            self._active_until = now + ACTIVE
        for link, what in came:
            if isinstance(what, DemosError):
                for port in self._fast:
                    port.finish(link, arrived)
            arrived.append((link, what))

    def wait(self, seconds: float) -> None:
        if not self._has_fast():
            self.stream.wait(seconds)
            return
        self._next_glance = min(self._next_look, time.perf_counter() + IDLE_PAUSE)
        nap = min(port.longest_sleep for port in self._fast)
        if not nap:
            self._sleeper.spin(self._look, time.perf_counter() + NAP)
        else:
            is_stuck = any([port.is_stuck for port in self._fast])
            if self._sleeper.wait(self._look, min(seconds, nap), is_stuck=is_stuck):
                self._next_look = 0.0

    def _look(self) -> bool:
        for port in self._fast:
            if port.look():
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
        for port in self._fast:
            port.flush(seconds)
        self.stream.flush(max(0.0, end - time.perf_counter()))

    def close(self) -> None:
        for port in self._fast:
            port.close()
        self.stream.close()
        self._sleeper.close()
