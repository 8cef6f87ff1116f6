"""Clients and workers as a dispatcher knows them."""

from __future__ import annotations

from dataclasses import dataclass

from .served import Served
from .transport import Link


@dataclass(frozen=True)
class Person:
    """Whose process a peer is, and where; ``label`` is what a supervisor calls a worker that it has started.

    ``number`` is what the peer was told that it is called; 0 where nobody has told it.
    """

    user: str
    host: str = ""
    pid: int = 0
    label: str = ""
    number: int = 0


class Peer:
    """A process at the other end of a link, with the number that the scheduler knows it by.

    Guests came in through the door: their links end when they go. Those who were born in the server's launch hear
    when the service ends, whatever became of them.
    """

    __slots__ = (
        "calls", "cores", "has_offered", "is_guest", "link", "number", "person", "place", "rights", "role", "served",
    )  # fmt: skip

    def __init__(self, number: int, link: Link, role: str, person: Person, *, is_guest: bool) -> None:
        self.number = number
        self.link = link
        #: client, worker or operator.
        self.role = role
        self.person = person
        self.is_guest = is_guest
        self.has_offered = False
        #: What a worker serves, with whom it shares memory, and the cores that it has.
        self.served: Served | None = None
        self.place = ""
        self.cores = 1
        #: The numbers of a client's unanswered calls, by their id on the wire.
        self.calls: dict[int, int] = {}
        #: What was found out about the rights of its user, by model and operation.
        self.rights: dict[tuple[int, int], bool] = {}

    def __repr__(self) -> str:
        return f"<Peer {self.number}: {self.link.name}, {len(self.calls)} calls>"
