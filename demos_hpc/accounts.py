"""What users of a server may do, how much of it, and what they have done."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from .audit import Audit, Entry
from .budgets import NEVER, Budgets
from .calls import Batch, Call
from .chronicle import Chronicle, name_operation, name_status
from .errors import AccessRefused, Busy, Status, TooLarge
from .greetings import Beat
from .messages import Operation
from .metrics import Metrics
from .peers import Peer
from .served import Served

#: Said to everybody who has no right, whatever it was.
NO_RIGHT = "you may not do this here; the server's audit log says why"
#: Workers that are remembered by their labels.
MOST_CAREERS = 1000


class Rights(Protocol):
    """Who may do what (`access`)."""

    def may(self, user: str, model: str, uuid: str, operation: str) -> bool: ...


class Accounts:
    """The accounts of one server. Without ``rights`` everybody may do everything: one launch trusts its ranks."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        name: str = "",
        rights: Rights | None = None,
        budgets: Budgets | None = None,
        audit: Audit | None = None,
    ) -> None:
        self.metrics = Metrics(name, clock())
        self._clock = clock
        self._rights = rights
        self._budgets = budgets
        self._audit = audit
        self._chronicle = Chronicle()
        #: Labels of workers that were given up, for whoever has started them.
        self.evicted: deque[str] = deque(maxlen=MOST_CAREERS)
        #: How many chunks those that somebody has started have answered, or died of, by their labels; of the latest.
        self.careers: dict[str, int] = {}

    # ---- requests -------------------------------------------------------------------------------------------

    def check(self, peer: Peer, served: Served, operation: int) -> None:
        """`AccessRefused` where the peer's user has no right to this."""
        right = peer.rights.get((served.handle, operation))
        if right is None:
            right = self._rights is None or self._rights.may(
                peer.person.user, served.spec.name, served.spec.uuid, name_operation(operation)
            )
            peer.rights[served.handle, operation] = right
        if not right:
            self._refuse(peer, served.spec.name, operation)

    def check_operator(self, peer: Peer, operation: int) -> None:
        """The same for what is asked of the server, and not of a model."""
        if self._rights is not None and not self._rights.may(peer.person.user, "", "", name_operation(operation)):
            self._refuse(peer, "", operation)
        if self._audit is not None and operation != Operation.STATISTICS:
            self._record(peer, "", operation, 0, 0, 0.0, int(Status.OK))
        if operation != Operation.STATISTICS:
            self._chronicle.tell_asked(peer, operation)

    def _refuse(self, peer: Peer, model: str, operation: int) -> None:
        self.metrics.request_refused(peer.person.user, int(Status.REFUSED))
        if self._audit is not None:
            self._record(peer, model, operation, 0, 0, 0.0, int(Status.REFUSED))
        self._chronicle.tell_refused(peer, model, operation, "no right")
        raise AccessRefused(NO_RIGHT)

    def charge(self, call: Call, now: float) -> None:
        """`Busy` or `TooLarge` where the user is over a limit."""
        peer = call.peer
        if self._chronicle.traces:
            self._chronicle.tell_request(call)
        if self._budgets is None or peer is None:
            return
        user, rows = peer.person.user, call.plan.rows
        wait = self._budgets.take(user, rows, call.n_bytes, now)
        if not wait:
            return
        status = Status.TOO_LARGE if wait == NEVER else Status.BUSY
        self.metrics.request_refused(user, int(status))
        if self._audit is not None:
            self._record(peer, call.model, call.operation, call.id, rows, 0.0, int(status))
        self._chronicle.tell_refused(peer, call.model, call.operation, "over a limit")
        if wait == NEVER:
            raise TooLarge(f"a request of {call.n_bytes} bytes is over what {user} may have in flight: split it")
        error = Busy(f"{user} is over a limit of this server; try again in {wait:.3g} s")
        error.retry_after = wait
        raise error

    def settle(self, call: Call, now: float) -> None:
        """A request has its final reply, or its client is gone."""
        peer = call.peer
        if peer is None:
            return
        user, rows, seconds = peer.person.user, call.plan.rows, now - call.arrived
        self.metrics.request_done(user, call.model, call.operation, rows, seconds, call.status)
        if self._budgets is not None:
            self._budgets.give_back(user, call.n_bytes)
        if self._audit is not None:
            self._record(peer, call.model, call.operation, call.id, rows, seconds, call.status)
        if call.status or self._chronicle.traces:
            self._chronicle.tell_settled(call, seconds)

    def note_params(self, peer: Peer, served: Served) -> None:
        """Server-side parameters were changed."""
        if self._audit is not None:
            self._record(peer, served.spec.name, int(Operation.SET_PARAMS), 0, 0, 0.0, int(Status.OK))
        self._chronicle.tell_params(peer, served)

    def _record(
        self, peer: Peer, model: str, operation: int, request: int, rows: int, seconds: float, status: int
    ) -> None:
        assert self._audit is not None
        outcome = name_status(status)
        user, address, number = peer.person.user, peer.link.name, f"{peer.number}:{request}"
        self._audit.record(
            Entry(time.time(), user, name_operation(operation), model, address, rows, seconds, outcome, number)
        )

    # ---- who comes and goes ---------------------------------------------------------------------------------

    def note_come(self, peer: Peer) -> None:
        """Somebody is here."""
        self._chronicle.tell_come(peer)
        if peer.role == "client":
            self.metrics.client_joined(peer.number, peer.person.user, peer.link.transport)

    def note_stranger(self, link_name: str, user: str, why: str) -> None:
        """Somebody was not let in at the door."""
        self.metrics.connection_refused()
        self._chronicle.tell_stranger(link_name, user, why)

    def note_serving(self, peer: Peer, served: Served) -> None:
        """A worker has a model."""
        person = peer.person
        name = person.label.partition("#")[0] or peer.link.name
        if person.label:
            self.careers[person.label] = 0
            for label in list(self.careers)[:-MOST_CAREERS]:
                del self.careers[label]
        self.metrics.worker_joined(
            peer.number, name, person.host, person.pid, served.spec.name, peer.link.transport, self._clock()
        )
        self.metrics.usage.come(peer.number, served.spec.name, peer.cores, self._clock())
        self._chronicle.tell_serving(peer, served)

    def note_gone(self, peer: Peer, *, has_said_so: bool) -> None:
        """A peer has left, or was lost."""
        self._chronicle.tell_gone(peer, has_said_so=has_said_so)
        if peer.role == "worker":
            self._count_last_chunk(peer)
            self.metrics.usage.go(peer.number, self._clock())
            (self.metrics.worker_left if has_said_so else self.metrics.worker_lost)(peer.number)
        elif peer.role == "client":
            (self.metrics.client_left if has_said_so else self.metrics.client_lost)(peer.number)

    def note_evicted(self, peer: Peer, why: str) -> None:
        """A worker is given up."""
        self._count_last_chunk(peer)
        self.metrics.worker_evicted(peer.number)
        self._chronicle.tell_evicted(peer, why)
        if peer.person.label:
            self.evicted.append(peer.person.label)

    def _count_last_chunk(self, peer: Peer) -> None:
        """Who dies over its work was no bad start: its place need not stay empty for long."""
        if peer.person.label and self.metrics.is_working(peer.number):
            self.careers[peer.person.label] = self.careers.get(peer.person.label, 0) + 1

    def note_upgraded(self, peer: Peer) -> None:
        """A peer's link goes on through shared memory."""
        self.metrics.link_upgraded(peer.number, peer.link.transport)
        self._chronicle.tell_upgraded(peer)

    # ---- workers --------------------------------------------------------------------------------------------

    def note_begun(self, worker: int, chunk: int, batch: Batch) -> None:
        """A worker was given a chunk."""
        self.metrics.chunk_begun(worker, self._clock())
        if self._chronicle.traces:
            self._chronicle.tell_begun(worker, chunk, batch)

    def note_chunk(self, peer: Peer, chunk: int, batch: Batch, seconds: float) -> None:
        """A worker is done with a chunk, which took its model ``seconds``."""
        credit = self.metrics.chunk_done(peer.number, seconds, self._clock())
        if self._chronicle.traces:
            self._chronicle.tell_chunk(peer.number, chunk, seconds)
        if label := peer.person.label:
            self.careers[label] = self.careers.get(label, 0) + 1
        each = credit / len(batch.calls)
        for call in batch.calls:
            if call.peer is not None:
                self.metrics.charge(call.peer.person.user, call.model, each, peer.cores)

    def note_beat(self, peer: Peer, beat: Beat) -> None:
        """A worker says how it is."""
        self.metrics.worker_told(peer.number, beat.rss, beat.datasets, beat.held_bytes, beat.budget_bytes)
