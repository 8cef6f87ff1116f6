"""Links through the door that turn out busy go on by MPI, if both sides share one that can; their sockets stay.

A peer asks (TICKET); when its turn comes it is given a port (TICKET) and says that it is there (NOW); only then does
the dispatcher say that it accepts (NOW) and does so, for a second at most, and the peer connects. So nobody connects
to a port where nobody waits, nor two at once: MPICH survives neither. What was sent before the last frame on the
socket (SWITCH) is taken in before what comes by MPI.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from .errors import DemosError, ServerLost, Status
from .greetings import Ticket
from .messages import Kind, from_json, to_json
from .peers import Peer
from .transport import Arrival, Link
from .transport.tcp import StreamLink, StreamPort
from .wire import Frame, pack

#: Seconds that a peer has to say that it is there, and then to connect.
PATIENCE = 1.0


class Connector(Protocol):
    """What of `transport.mpi.MpiPort` makes new links; all of it may fail with a `DemosError`."""

    def open(self) -> str: ...

    def accept(self, port: str, seconds: float, front: Link, name: str) -> Link: ...

    def connect(self, port: str, seconds: float, front: Link, name: str) -> Link: ...


class Tickets:
    """The dispatcher's side: a `reception.Upgrader`."""

    def __init__(self, connector: Connector, upgraded: Callable[[Peer], None]) -> None:
        self._connector = connector
        self._upgraded = upgraded
        self._waiting: deque[Peer] = deque()
        #: Whose turn it is, the port that it was given, and until when.
        self._current: Peer | None = None
        self._port = ""
        self._until = 0.0

    def __repr__(self) -> str:
        return f"<Tickets: {len(self._waiting)} waiting, now {self._current}>"

    def ask(self, peer: Peer) -> None:
        """A peer would like to go on by MPI."""
        self._waiting.append(peer)
        self._call_next()

    def accept(self, peer: Peer) -> None:
        """A peer is there, and connects once it is told."""
        link = peer.link
        assert isinstance(link, StreamLink)
        if peer is not self._current:
            link.send_here(pack(Kind.SWITCH, status=Status.BUSY))
            return
        self._current = None
        link.send_here(pack(Kind.NOW))
        try:
            faster = self._connector.accept(self._port, PATIENCE, link, link.name)
        except DemosError:
            link.send_here(pack(Kind.SWITCH, status=Status.INTERNAL))
        else:
            link.send_here(pack(Kind.SWITCH))
            link.faster = faster
            self._upgraded(peer)
        self._call_next()

    def tick(self, now: float) -> None:
        """Passes over a peer that does not say that it is there."""
        if self._current is not None and (now >= self._until or _is_gone(self._current)):
            self._current = None
        self._call_next()

    def _call_next(self) -> None:
        while self._current is None and self._waiting:
            peer = self._waiting.popleft()
            if _is_gone(peer):
                continue
            try:
                self._port = self._connector.open()
            except DemosError:
                continue
            self._current, self._until = peer, time.monotonic() + PATIENCE
            peer.link.send(pack(Kind.TICKET, [to_json(Ticket(self._port).to_dict())]))


def _is_gone(peer: Peer) -> bool:
    return isinstance(peer.link, StreamLink) and (peer.link.is_closed or peer.link.parting is not None)


def go_faster(stream: StreamPort, link: StreamLink, connector: Connector, frame: Frame, take: Callable[[Arrival], None]) -> bool:
    """The peer's side: a ticket has come. What else arrives meanwhile is given to ``take``; whether it worked."""
    ticket = Ticket.from_dict(from_json(frame.arrays[0]))
    link.send_here(pack(Kind.NOW))
    if not _await(stream, Kind.NOW, take):
        return False
    try:
        faster = connector.connect(ticket.port, PATIENCE, link, link.name)
    except DemosError:
        faster = None
    if not _await(stream, Kind.SWITCH, take) or faster is None:
        return False
    link.faster = faster
    return True


def _await(stream: StreamPort, kind: Kind, take: Callable[[Arrival], None]) -> bool:
    """Until a frame of this kind comes; False where it says no, or does not come."""
    deadline = time.monotonic() + 3 * PATIENCE
    while (left := deadline - time.monotonic()) > 0:
        arrivals = stream.receive()
        found = None
        for _, arrived in arrivals:
            if isinstance(arrived, Frame) and arrived.header.kind in (kind, Kind.SWITCH):
                found = arrived.header.kind == kind and not arrived.header.status
            else:
                take((_, arrived))
                if isinstance(arrived, ServerLost):
                    return False
        if found is not None:
            return found
        if not arrivals:
            stream.wait(left)
    return False
