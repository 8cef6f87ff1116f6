"""Frames through memory that two processes of one host share: as fast as within one launch, without MPI.

Such a link stands beside a socket, its front, which tells when the peer dies, wakes it when it sleeps, and under whose
name frames arrive. A link that is idle is not looked at: its peer rings after sending.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from ..errors import BadFrame, BadVersion, DemosError
from ..wire import ALIGNMENT, INLINE_BYTES, Packed, lay_out
from . import LONGEST_WAIT, MOST_BYTES, PARTING, Arrival, Link, Place
from .buffers import Buffers
from .doorbell import ASLEEP, AWAKE, STUCK, Sleeper
from .inflow import Inflow
from .pair import Pair, Unreachable

#: Seconds without a frame after which a link is called idle; it is looked at for as long again, since the peer may
#: have seen only then that it has to ring.
QUIET = 0.01


class Front(Link, Protocol):
    """The link that a faster one is put beside; what is sent over it takes ``faster``, if that is set."""

    faster: Link | None

    def ring(self) -> None:
        """Wakes the peer."""


class SharedLink:
    """A link through shared memory."""

    transport = "shm"

    def __init__(self, port: SharedPort, pair: Pair, front: Front, name: str) -> None:
        self.name = name
        self.front = front
        self.pair = pair
        self._port = port
        self._inflow = Inflow(lambda header, layout: port.place(front, header, layout))
        self._outgoing: deque[memoryview] = deque()
        self.unsent_bytes = 0
        self.bytes_in = self.bytes_out = 0
        #: Whether a frame came or went since somebody asked; and whether the peer has been told to ring.
        self.is_used, self.is_drowsy = True, False
        #: Until when what is being sent may leave, once nothing more will be.
        self.parting: float | None = None

    def __repr__(self) -> str:
        return f"<SharedLink {self.name}: {'closed' if self.pair.is_closed else f'{self.unsent_bytes} bytes unsent'}>"

    def send(self, packed: Packed) -> None:
        pair = self.pair
        if pair.is_closed or self.parting is not None:
            return
        head, tail = packed
        self.is_used = True
        if not tail and not self._outgoing:
            if gap := -len(head) % ALIGNMENT:
                head = head + bytes(gap)
            if pair.has_room(len(head)):
                self._write(head)
                if self.is_drowsy:
                    self._port.rouse(self)  # an answer is to be expected
                return
        views = lay_out(packed)
        self._outgoing.extend(views)
        self.unsent_bytes += sum(map(len, views))
        self._port.sending[self] = None
        self._port.rouse(self)
        self.push()

    def push(self) -> bool:
        """Writes what there is room for; whether any was."""
        outgoing, before = self._outgoing, self.unsent_bytes
        while outgoing:
            view = outgoing[0]
            count = self._write(view)
            self.unsent_bytes -= count
            if count < len(view):
                outgoing[0] = view[count:]
                break
            outgoing.popleft()
        if not outgoing:
            self._port.sending.pop(self, None)
            if self.parting is not None:
                self._leave()
        return self.unsent_bytes < before

    def _write(self, data: memoryview | bytearray) -> int:
        try:
            count = self.pair.write(data)
        except BadFrame as error:
            self._port.broken.append((self, error))
            return len(data)
        self.bytes_out += count
        if count and self.pair.peers_flag:
            self.front.ring()
        return count

    def read(self, arrived: list[Arrival]) -> None:
        """Takes in what is there."""
        pair, inflow, front, total = self.pair, self._inflow, self.front, 0
        self.is_used = True
        try:
            while total < MOST_BYTES:
                hole = inflow.hole
                if hole is None:
                    data = pair.read(INLINE_BYTES)  # copied before it is looked at: the peer could still change it
                    if not (count := len(data)):
                        break
                    frames = inflow.feed(data)
                else:
                    if not (count := pair.read_into(hole)):
                        break
                    frames = inflow.fill(count)
                total += count
                for frame in frames:  # also those before a bad one
                    arrived.append((front, frame))  # noqa: PERF401  (compiled, an extend() would take them all or none)
        except (BadFrame, BadVersion) as error:
            self._port.broken.append((self, error))
        if pair.peers_flag == STUCK:
            front.ring()

    def say(self, flag: int) -> None:
        """Tells the peer whether this process sleeps."""
        if flag == STUCK and not self._outgoing:
            flag = ASLEEP
        self.pair.say(ASLEEP if flag == AWAKE and self.is_drowsy else flag)

    def part(self) -> None:
        """Ends it, and its front, once what was sent has left; what still comes is not looked at."""
        if self.parting is None:
            self.parting = time.monotonic() + PARTING
            self._port.parting[self] = None
            self.push()

    def _leave(self) -> None:
        self.close()
        self.front.part()

    def close(self) -> None:
        """Ends it, at once; the peer keeps the memory, with what has been written into it."""
        self._port.forget(self)
        if self.front.faster is self:
            self.front.faster = None  # what is wrong may still be said over the socket
        self._outgoing.clear()
        self.unsent_bytes = 0
        self.pair.close()


class SharedPort:
    """All links of this process through shared memory; how they come about is said in `open`."""

    def __init__(self, sleeper: Sleeper) -> None:
        self.place: Place = Buffers().place
        self._links: dict[Link, SharedLink] = {}
        #: Links that are looked at each turn, and those that are not until somebody rings.
        self._awake: dict[SharedLink, None] = {}
        self._idle: dict[SharedLink, None] = {}
        #: Links that have something to send, and those that only send what they still have to.
        self.sending: dict[SharedLink, None] = {}
        self.parting: dict[SharedLink, None] = {}
        #: What is wrong with which link, until it has been told.
        self.broken: list[tuple[SharedLink, DemosError]] = []
        #: Memory that a peer was offered, by its address, and what closes its file.
        self._offered: dict[str, tuple[Pair, Callable[[], None]]] = {}
        self._next_sweep = 0.0
        self._next_round = 0.0
        sleeper.listeners.append(self._tell)

    def __repr__(self) -> str:
        return f"<SharedPort: {len(self._awake)} links, {len(self._idle)} idle>"

    @property
    def has_links(self) -> bool:
        return bool(self._links)

    @property
    def is_stuck(self) -> bool:
        return bool(self.sending)

    # ---- links come and go ----------------------------------------------------------------------------------

    def open(self) -> str:
        """New memory for one peer, who gets its address: the peer calls `connect`, and this side `accept`.

        Raises
        ------
        Unreachable
            Where there is no such memory on this machine.
        """
        pair, address, close = Pair.make()
        self._offered[address] = pair, close
        return address

    def accept(self, address: str, front: Front, name: str) -> SharedLink:
        """The link to whoever has joined the memory at ``address``.

        Raises
        ------
        Unreachable
            Where nobody has; the offer is withdrawn.
        """
        pair, close = self._offered[address]
        if not pair.is_joined:
            self.withdraw(address)
            raise Unreachable(f"{name} has not taken the memory that it was offered")
        del self._offered[address]
        close()
        return self._add(pair, front, name)

    def withdraw(self, address: str) -> None:
        """The peer cannot, or will not, take what it was offered."""
        pair, close = self._offered.pop(address)
        close()
        pair.close()

    def connect(self, address: str, front: Front, name: str) -> SharedLink:
        """The link to the process that offers the memory at ``address``.

        Raises
        ------
        Unreachable
            Where it cannot be reached from here: another host, another container, another user's.
        """
        return self._add(Pair.join(address), front, name)

    def _add(self, pair: Pair, front: Front, name: str) -> SharedLink:
        link = self._links[front] = SharedLink(self, pair, front, name)
        self._awake[link] = None
        return link

    def hold(self, link: SharedLink) -> None:
        """Nothing is taken in from this link before `begin`."""
        self._awake.pop(link, None)

    def begin(self, link: SharedLink) -> None:
        """From now on this link is looked at."""
        if not link.pair.is_closed:
            self._awake[link] = None

    def forget(self, link: SharedLink) -> None:
        for links in (self._awake, self._idle, self.sending, self.parting):
            links.pop(link, None)
        if self._links.get(link.front) is link:
            del self._links[link.front]

    def finish(self, front: Link, arrived: list[Arrival]) -> None:
        """The peer is gone: takes in what it has still sent, and lets the memory go."""
        link = self._links.get(front)
        if link is not None:
            if link.parting is None:
                link.read(arrived)
            link.close()

    def close(self) -> None:
        for link in list(self._links.values()):
            link.close()
        for address in list(self._offered):
            self.withdraw(address)

    # ---- frames ---------------------------------------------------------------------------------------------

    def receive(self) -> list[Arrival]:
        arrived: list[Arrival] = []
        if self.sending:
            self._push()
        for link in self._awake:
            if link.pair.look():
                link.read(arrived)
        if self._links and (now := time.perf_counter()) >= self._next_sweep:
            self._sweep(now)
        if self.broken:
            for link, error in self.broken:
                if not link.pair.is_closed:
                    link.close()
                    arrived.append((link.front, error))
            self.broken.clear()
        return arrived

    def look(self) -> bool:
        """Whether there is something to do; also moves along what is being sent."""
        if self.sending:
            self._push()
        for link in self._awake:
            if link.pair.look():
                return True
        return bool(self.broken)

    def _push(self) -> bool:
        has_moved = False
        for link in list(self.sending):
            has_moved |= link.push()
        return has_moved

    def flush(self, seconds: float) -> None:
        end = time.perf_counter() + seconds
        while self.sending and time.perf_counter() < end:
            if not self._push():
                os.sched_yield()

    def look_around(self) -> None:
        """Somebody rang: looks at idle links as well."""
        for link in [link for link in self._idle if link.pair.look()]:
            self.rouse(link)

    def rouse(self, link: SharedLink) -> None:
        """Looks at this link each turn, and has no bell rung."""
        if link.is_drowsy:
            link.is_drowsy = False
            self._idle.pop(link, None)
            self._awake[link] = None
            link.pair.say(AWAKE)

    def _sweep(self, now: float) -> None:
        """Lets links that are not used fall asleep, in two steps; awake and parting ones are attended to."""
        self._next_sweep = now + QUIET
        for link in list(self._awake):
            if link.is_used or link.unsent_bytes:
                link.is_used = False
                self.rouse(link)
            elif link.is_drowsy:
                del self._awake[link]
                self._idle[link] = None
            else:
                link.is_drowsy = True
                link.pair.say(ASLEEP)
        if now >= self._next_round:  # no bell is relied upon altogether
            self._next_round = now + LONGEST_WAIT
            self.look_around()
        for link in [link for link in self.parting if link.parting is not None and link.parting < time.monotonic()]:
            link._leave()

    def _tell(self, flag: int) -> None:
        for link in self._awake:
            link.say(flag)
