"""What a dispatcher's log tells: who comes and goes, what fails, and, at level debug, the way of each request.

``request`` is ``"3:17"``, number 17 of client 3, in the client's log as well; ``chunk`` is the same number in the
worker's log.
"""

from __future__ import annotations

from .calls import Batch, Call
from .errors import Status
from .logs import MOST_ITEMS, Logger, name_request
from .messages import Operation
from .peers import Peer
from .served import Served

_LOG = Logger("service")
_STATUSES = frozenset(Status)
#: What its caller can do nothing about.
_OURS = frozenset({Status.MODEL_CRASHED, Status.INTERNAL})


class Chronicle:
    """Writes the log of one dispatcher."""

    __slots__ = ("traces",)

    def __init__(self) -> None:
        #: Whether each request is told of: asked where that happens, since even a call that does nothing takes time.
        self.traces = _LOG.traces

    # ---- peers ----------------------------------------------------------------------------------------------

    def tell_come(self, peer: Peer) -> None:
        person = peer.person
        tell = _LOG.debug if peer.role == "operator" else _LOG.info  # monitors look in every few seconds
        tell(
            f"{peer.role} came", peer=peer.number, user=person.user, from_host=person.host, process=person.pid,
            by=peer.link.transport, label=person.label,
        )  # fmt: skip

    def tell_stranger(self, link_name: str, user: str, why: str) -> None:
        _LOG.warning("refused at the door", who=link_name, user=user, why=why)

    def tell_serving(self, peer: Peer, served: Served) -> None:
        _LOG.info("worker serves", worker=peer.number, label=peer.person.label, model=served.spec.name)

    def tell_gone(self, peer: Peer, *, has_said_so: bool) -> None:
        how = "left" if has_said_so else "lost"
        tell = _LOG.debug if peer.role == "operator" else _LOG.info
        if peer.role == "worker" and not has_said_so:
            tell = _LOG.warning
        tell(f"{peer.role} {how}", peer=peer.number, user=peer.person.user, label=peer.person.label)

    def tell_evicted(self, peer: Peer, why: str) -> None:
        _LOG.info("worker given up", worker=peer.number, label=peer.person.label, why=why)

    def tell_upgraded(self, peer: Peer) -> None:
        _LOG.info("link upgraded", peer=peer.number, by=peer.link.transport)

    # ---- requests -------------------------------------------------------------------------------------------

    def tell_refused(self, peer: Peer, model: str, operation: int, why: str) -> None:
        _LOG.warning(
            "request refused", peer=peer.number, user=peer.person.user, model=model,
            operation=name_operation(operation), why=why,
        )  # fmt: skip

    def tell_asked(self, peer: Peer, operation: int) -> None:
        _LOG.info("operator asks", peer=peer.number, user=peer.person.user, operation=name_operation(operation))

    def tell_params(self, peer: Peer, served: Served) -> None:
        _LOG.info("parameters set", peer=peer.number, user=peer.person.user, model=served.spec.name,
                  revision=served.revision)  # fmt: skip

    def tell_request(self, call: Call) -> None:
        """It is accepted."""
        if self.traces:
            operation = name_operation(call.operation)
            _LOG.debug("request", request=_name(call), model=call.model, operation=operation, rows=call.plan.rows)

    def tell_settled(self, call: Call, seconds: float) -> None:
        """It has its final reply."""
        if not call.status:
            if self.traces:
                _LOG.debug("request done", request=_name(call), seconds=seconds)
            return
        tell = _LOG.warning if call.status in _OURS else _LOG.info
        tell(
            "request failed", request=_name(call), user=call.peer.person.user if call.peer else "", model=call.model,
            operation=name_operation(call.operation), status=name_status(call.status), seconds=seconds,
        )  # fmt: skip

    def tell_begun(self, worker: int, chunk: int, batch: Batch) -> None:
        """A chunk is on its way."""
        for start in range(0, len(batch.calls) if self.traces else 0, MOST_ITEMS):
            requests = [_name(call) for call in batch.calls[start : start + MOST_ITEMS]]
            _LOG.debug("chunk given", chunk=chunk, worker=worker, rows=batch.rows, requests=requests)

    def tell_chunk(self, worker: int, chunk: int, seconds: float) -> None:
        """Its result is here."""
        if self.traces:
            _LOG.debug("chunk done", chunk=chunk, worker=worker, seconds=seconds)


def name_operation(operation: int) -> str:
    """For people; also of an operation that only a newer version has."""
    try:
        return Operation(operation).title
    except ValueError:
        return f"operation {operation}"


def name_status(status: int) -> str:
    """For people: ``invalid_input``."""
    return Status(status).name.lower() if status in _STATUSES else str(status)


def _name(call: Call) -> str:
    return name_request(call.peer.number if call.peer is not None else 0, call.id)
