"""How a failure is told to a peer: a frame whose status is not OK, and whose payload says why."""

from __future__ import annotations

from .errors import DemosError
from .messages import Failure, Flag, Kind, to_json
from .transport import Link
from .wire import Frame, Packed, pack, read_header


def pack_failure(kind: Kind, id_: int, failure: Failure) -> Packed:
    """The final frame of this id."""
    return pack(kind, [to_json(failure.to_dict())], status=failure.status, id=id_, flags=Flag.FINAL)


def send_failure(link: Link, id_: int, failure: Failure) -> None:
    """The final reply to a request."""
    link.send(pack_failure(Kind.REPLY, id_, failure))


def refuse(link: Link, id_: int, error: DemosError) -> None:
    """The final reply to a request that was not even begun."""
    send_failure(link, id_, Failure.of(error))


def make_result(id_: int, failure: Failure) -> Frame:
    """The result of a chunk that no worker has sent."""
    head = pack_failure(Kind.RESULT, id_, failure).head
    return Frame(read_header(head), head)
