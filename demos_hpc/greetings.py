"""What is said at the door before frames travel, and on the links behind it. All of it is JSON."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import BadFrame
from .messages import FromJson

#: What comes through the door: those who call, those who compute, those who look after it.
ROLES = ("client", "worker", "operator")
#: Longest text of one of these messages, bytes.
LONGEST_GREETING = 8192
#: Longest text of a knock's own, characters.
LONGEST_TEXT = 256


def _check_number(what: str, number: int) -> None:
    """What will be shown, and counted as a float, is no larger than one can tell."""
    if not 0 <= number < 2**53:
        raise BadFrame(f"a {what} of {str(number)[:20]}")


@dataclass(frozen=True)
class Knock(FromJson):
    """Who a peer says it is: the first frame on a connection.

    ``nonce`` is fresh for each connection; ``zstd`` says that it can inflate. ``label`` is what a supervisor calls a
    worker that it has started.
    """

    role: str
    user: str
    host: str
    pid: int
    nonce: str
    zstd: bool = False
    label: str = ""

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise BadFrame(f"a knock with the unknown role {self.role!r}")
        _check_number("process", self.pid)
        for text in (self.user, self.host, self.nonce, self.label):
            # It will be shown, logged and compared.
            if len(text) > LONGEST_TEXT or not (text.isascii() and text.isprintable()):
                raise BadFrame(f"a knock with a text that is not short and plain: {text[:LONGEST_TEXT]!a}")


@dataclass(frozen=True)
class Challenge(FromJson):
    """What the peer has to prove its right with."""

    nonce: str
    methods: list[str]


@dataclass(frozen=True)
class Proof(FromJson):
    """The answer to a challenge. ``method`` is ``key``, then ``key`` names it, or ``munge``."""

    method: str
    proof: str
    key: str = ""


@dataclass(frozen=True)
class Admission(FromJson):
    """The peer is let in; ``proof`` is the server's own, by the same key (empty by MUNGE).

    ``number`` is what the peer is called in logs. ``heartbeat`` is in seconds. ``model_path`` is what a worker
    loads that was not told otherwise.
    """

    server: str
    name: str
    number: int
    proof: str
    heartbeat: float
    zstd: bool = False
    model_path: str = ""


@dataclass(frozen=True)
class Beat(FromJson):
    """How a worker is: the memory that it has, bytes; and what it holds of the data that likelihoods are about.

    ``held_bytes`` of ``datasets`` are in memory that workers of a host share, so they are not in ``rss``.
    ``budget_bytes`` may be so; 0 where the worker was not asked for data yet.
    """

    rss: int
    datasets: int = 0
    held_bytes: int = 0
    budget_bytes: int = 0

    def __post_init__(self) -> None:
        for number in (self.rss, self.held_bytes, self.budget_bytes):
            _check_number("memory", number)
        _check_number("number of datasets", self.datasets)


@dataclass(frozen=True)
class Ticket(FromJson):
    """The way to go on through shared memory: where it lies."""

    address: str
