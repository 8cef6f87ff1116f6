"""What the scheduler is told, and what it asks for in return.

Everything is counted in *units*: the smallest runs of work that may stand alone. A unit is a row where rows are
independent, a block of rows where they are not, and a cell of a likelihood. What a unit is in bytes and rows is
the dispatcher's business. NamedTuples, since several are made for every request.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from .errors import Status


class WorkerJoined(NamedTuple):
    """A worker of this model; those of one ``place`` share memory."""

    worker: int
    model: int
    place: Hashable = None


class WorkerLost(NamedTuple):
    """A worker is gone; one that ``has_left`` has said so, and what it had has done it no harm."""

    worker: int
    has_left: bool = False


class ClientJoined(NamedTuple):
    client: int
    user: str


class ClientLost(NamedTuple):
    client: int


class ClientStalled(NamedTuple):
    """The client leaves its answers untaken: compute nothing more for it."""

    client: int


class ClientResumed(NamedTuple):
    """The client takes its answers again."""

    client: int


class Lane(NamedTuple):
    """The units [first, first + count) of a request, for the workers of one place."""

    place: Hashable
    first: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs


class RequestArrived(NamedTuple):
    """A call of ``units`` units, ``available`` of which have arrived so far.

    ``work`` names requests whose units cost about the same (the operation). Requests with the same ``merge``
    may share a chunk; ``None`` for those that may not. A chunk does not cross a multiple of ``limit`` units (a
    large request arrives in parts of that size) and is a rectangle in rows of ``period`` units
    (`blocks.limit_run`). Chunks that kill workers are cut into runs of ``block`` units.
    ``deadline`` is a time as ``now`` is, or infinity.

    ``lanes``, in order and without gaps, make up the request where its units have places at which they are best
    computed; () = anywhere. A chunk does not cross from one into the next. What is for a place without workers,
    and what is to be computed again, any worker may compute.
    """

    request: int
    client: int
    model: int
    work: Hashable
    units: int
    available: int
    deadline: float
    merge: Hashable = None
    period: int = 1
    limit: int = 2**63
    block: int = 1
    lanes: tuple[Lane, ...] = ()


class UnitsArrived(NamedTuple):
    """``units`` further units of a request are there."""

    request: int
    units: int


class ResultArrived(NamedTuple):
    """A worker is done with a chunk; ``seconds`` is what the model took."""

    worker: int
    chunk: int
    status: int
    seconds: float


class Cancelled(NamedTuple):
    request: int


class Tick(NamedTuple):
    """Time has passed: look at the deadlines."""


class Drain(NamedTuple):
    """The server is about to end: finish what runs, take nothing new."""


Event = (
    WorkerJoined
    | WorkerLost
    | ClientJoined
    | ClientLost
    | ClientStalled
    | ClientResumed
    | RequestArrived
    | UnitsArrived
    | ResultArrived
    | Cancelled
    | Tick
    | Drain
)


class Part(NamedTuple):
    """The units [first, first + count) of a request."""

    request: int
    first: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs


class SendChunk(NamedTuple):
    """Give these parts to this worker, as one chunk."""

    worker: int
    chunk: int
    parts: list[Part]


class SendPart(NamedTuple):
    """Pass this part of a chunk's result on to its client; ``final`` where nothing more follows."""

    chunk: int
    index: int  # type: ignore[assignment]  # hides tuple.index
    part: Part
    final: bool


class SendFailure(NamedTuple):
    """Tell the client that its request has failed: its final reply.

    ``chunk`` is that whose RESULT says why, or None; ``part`` the units at fault, where they are known.
    """

    request: int
    status: Status
    message: str
    chunk: int | None = None
    part: Part | None = None
    retry_after: float = 0.0


class Revoke(NamedTuple):
    """Tell this worker that nobody waits for this chunk any more."""

    worker: int
    chunk: int


class Forget(NamedTuple):
    """Free what is kept of this request; its client has its final reply, or is gone."""

    request: int


class Evict(NamedTuple):
    """Give this worker up: it is past its time inside one chunk."""

    worker: int


Action = SendChunk | SendPart | SendFailure | Revoke | Forget | Evict
