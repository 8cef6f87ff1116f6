"""How frames travel: in one process (`loopback`), between ranks (`mpi`), over sockets (`tcp`) and memory (`shared`).

A *link* is a two-way channel of frames between two processes; a *port* is where all links of a process end.
Dispatcher, worker and client know these two protocols and nothing of what is behind them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..errors import DemosError
from ..messages import Array
from ..wire import Frame, Header, Layout, Packed


class Link(Protocol):
    """A two-way channel of frames to one peer."""

    @property
    def name(self) -> str:
        """The peer, for messages: "rank 3 on node17"."""

    @property
    def transport(self) -> str:
        """How frames travel now: loopback, mpi, tcp, unix or shm."""

    @property
    def unsent_bytes(self) -> int:
        """What was sent and has not left yet."""

    def part(self) -> None:
        """Ends the link once what was sent has left; links of one launch end with it."""

    def send(self, packed: Packed) -> None:
        """Sends a frame, or several small ones joined; never blocks, and keeps what it needs until it is sent."""


#: Longest sleep between two looks, seconds; whatever arrives ends it at once.
LONGEST_WAIT = 1.0
#: Bytes that one stream may bring in, or take, before the others are looked at.
MOST_BYTES = 4 << 20
#: What is being sent when a stream ends has so many seconds to leave.
PARTING = 5.0

#: Where the arrays of a large frame are to be received: C-contiguous, of the layout's dtypes and shapes.
Place = Callable[[Link, Header, Layout], list[Array]]

#: What came in over a link: a frame, or the error that ends this link.
Arrival = tuple[Link, Frame | DemosError]


class Port(Protocol):
    """Where all links of a process end."""

    #: Set by a receiver that wants large arrays to land in their final place.
    place: Place

    def receive(self) -> list[Arrival]:
        """Whatever has arrived, in order for each link; also moves along what is being sent."""

    def wait(self, seconds: float) -> None:
        """Returns when something may have arrived, and at the latest after ``seconds``."""

    def flush(self, seconds: float) -> None:
        """Gives what is being sent so many seconds to leave, before its sender does something else for long."""

    def close(self) -> None:
        """Ends all links that are this port's own; those of one launch end with it."""
