"""Links through the door that turn out busy go on through shared memory, where both sides are on one host.

A peer asks (TICKET) and is told where memory for the two of them lies (TICKET). It takes that and says so (NOW): its
last frame on the socket. The dispatcher confirms (SWITCH): its last one. So each side has taken in all that came by
socket before it looks into the memory. The socket stays, to tell when the other side dies, and to wake it.

Why not MPI, which the door was meant for: see "No MPI through the door" in the README's decisions.
"""

from __future__ import annotations

from collections.abc import Callable

from .errors import BadFrame, DemosError, Status
from .greetings import Ticket
from .messages import Kind, from_json, to_json
from .peers import Peer
from .transport.shared import SharedLink, SharedPort
from .transport.tcp import StreamLink
from .wire import Frame, pack


class Tickets:
    """The dispatcher's side; ``upgraded`` is told of each link that goes on through memory."""

    def __init__(self, port: SharedPort, upgraded: Callable[[Peer], None]) -> None:
        self._port = port
        self._upgraded = upgraded
        #: Who was told of which memory and has not taken it yet.
        self._offers: dict[Peer, str] = {}

    def give(self, peer: Peer) -> None:
        """A peer would like to go on through shared memory."""
        link = peer.link
        assert isinstance(link, StreamLink)
        if link.faster is not None or peer in self._offers:
            return
        try:
            address = self._offers[peer] = self._port.open()
        except DemosError:
            link.send_here(pack(Kind.SWITCH, status=Status.NOT_OFFERED))
            return
        link.send_here(pack(Kind.TICKET, [to_json(Ticket(address).to_dict())]))

    def accept(self, peer: Peer, frame: Frame) -> None:
        """A peer has taken the memory, or could not."""
        link = peer.link
        address = self._offers.pop(peer, None)
        if address is None or not isinstance(link, StreamLink):
            return
        if frame.header.status:
            self._port.withdraw(address)
            return
        try:
            faster = self._port.accept(address, link, link.name)
        except DemosError:  # it says so, and has not
            return
        link.send_here(pack(Kind.SWITCH))
        link.faster = faster
        self._upgraded(peer)

    def tick(self) -> None:
        """Takes back what was offered to those who have gone."""
        for peer in [peer for peer in self._offers if isinstance(peer.link, StreamLink) and peer.link.is_gone]:
            self._port.withdraw(self._offers.pop(peer))


class Ascent:
    """The peer's side: asks after ``after`` frames."""

    def __init__(self, port: SharedPort, link: StreamLink, after: int) -> None:
        self._port = port
        self._link = link
        self._left = after
        self._faster: SharedLink | None = None

    def count(self) -> None:
        """A frame was sent."""
        self._left -= 1
        if self._left == 0:
            self._link.send_here(pack(Kind.TICKET))

    def take(self, frame: Frame) -> None:
        """The dispatcher's TICKET or SWITCH."""
        if frame.header.kind == Kind.SWITCH:
            if self._faster is not None and not frame.header.status:
                self._port.begin(self._faster)
            return
        if len(frame.arrays) != 1:
            raise BadFrame(f"a ticket with {len(frame.arrays)} arrays instead of one")
        ticket = Ticket.from_dict(from_json(frame.arrays[0]))
        try:
            self._faster = self._port.connect(ticket.address, self._link, self._link.name)
        except DemosError:  # another container, or another user's process: the socket will do
            self._link.send_here(pack(Kind.NOW, status=Status.NOT_OFFERED))
            return
        self._port.hold(self._faster)
        self._link.send_here(pack(Kind.NOW))
        self._link.faster = self._faster
