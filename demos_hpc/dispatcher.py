"""Rank 0: takes requests from clients, lets the scheduler decide, hands out chunks, passes results on.

It computes nothing and decides nothing: what has arrived becomes events, and what the scheduler returns is done.
The mirrored verbs stand in `connection` and `worker`; what clients ask for is taken in by `intake`.
"""

from __future__ import annotations

import itertools
import time
import traceback
from collections.abc import Callable
from typing import Any, Protocol

from .accounts import Accounts
from .calls import Batch
from .catalog import Catalog
from .config import Config
from .errors import BadFrame, DemosError, InternalError, InvalidInput, ModelFailed, Status
from .events import (
    Action,
    Cancelled,
    ClientJoined,
    ClientLost,
    Drain,
    Event,
    Evict,
    Forget,
    ResultArrived,
    Revoke,
    SendChunk,
    SendFailure,
    SendPart,
    Tick,
    WorkerJoined,
    WorkerLost,
)
from .greetings import Beat
from .intake import Intake, get_only_array
from .logs import warn
from .messages import Array, Failure, Flag, Kind, Offer, from_json
from .peers import Peer, Person
from .recall import Recall
from .refusals import make_result, refuse, send_failure
from .relay import pass_on
from .scheduler import Limits, Scheduler
from .stalls import Stalls
from .transport import LONGEST_WAIT, Link, Port
from .transport.buffers import Buffers
from .wire import Frame, Header, Layout, pack

#: Seconds that running chunks, which nobody waits for any more, are given when the service ends.
LAST_CHUNKS = 10.0
#: Frames up to this size are taken in and then answered, even where the server's limit is lower, bytes.
LARGEST_UNASKED = 1 << 30
#: Seconds between two looks at clients that do not take their answers.
STALL_LOOK = 0.02


class Porch(Protocol):
    """What stands before the dispatcher where others than its own launch may come in (`reception`)."""

    def take(self, link: Link, arrived: Frame | DemosError) -> None:
        """What has come over a link that is no peer's."""

    def upgrade(self, peer: Peer, frame: Frame) -> None:
        """A peer asks to go on through shared memory, or has it."""

    def tick(self, now: float) -> None:
        """Time has passed."""


class Dispatcher:
    """The service behind one port.

    ``n_offers`` workers are going to say what they serve; clients that ask before are kept waiting.
    """

    def __init__(
        self,
        port: Port,
        config: Config,
        n_offers: int,
        clock: Callable[[], float] = time.monotonic,
        accounts: Accounts | None = None,
    ) -> None:
        self._port = port
        port.place = self._place
        self._buffers = Buffers()
        self._config = config
        self._clock = clock
        self.catalog = Catalog(n_offers, config.max_request_bytes)
        self.accounts = accounts or Accounts(clock)
        self.recall = Recall(config.cache_bytes) if config.cache_bytes else None
        self.intake = Intake(self.catalog, self.accounts, self.recall)
        self.porch: Porch | None = None
        self.scheduler = Scheduler(Limits(config.max_queued_requests, config.chunk_seconds, config.chunk_timeout))
        self.peers: dict[Link, Peer] = {}
        self._numbered: dict[int, Peer] = {}
        #: Links whose frames count no more, and which hear when the service ends.
        self._departed: list[Link] = []
        self._batches: dict[int, Batch] = {}
        #: The result that is being handled, and the chunk that it belongs to.
        self._result: tuple[Batch, Frame] | None = None
        self._unsent: list[tuple[int, int, Batch]] = []
        self._broken: list[int] = []
        self._stalls = Stalls(config.max_unsent_bytes, config.stall_timeout)
        #: Clients that have come and not said goodbye.
        self.n_clients = 0
        self.numbers = itertools.count(1)
        self._next_look = 0.0
        self._takers: dict[int, Callable[[Peer, Frame, float], Event | None]] = {
            Kind.REQUEST: self.intake.take_request,
            Kind.ROWS: self.intake.take_rows,
            Kind.CANCEL: self.intake.take_cancel,
            Kind.RESULT: self._take_result,
            Kind.HELLO: self._take_offer,
            Kind.GOODBYE: self._take_goodbye,
            Kind.PING: self._take_ping,
            Kind.BEAT: self._take_beat,
            Kind.TICKET: self._take_upgrade,
            Kind.NOW: self._take_upgrade,
        }
        self._doers: dict[type[Any], Callable[[Any], None]] = {
            SendPart: lambda action: None,  # all parts of a result are sent at once, before anything else
            SendChunk: self._send_chunk,
            SendFailure: self._send_failure,
            Revoke: self._revoke,
            Forget: self._forget,
            Evict: lambda action: self._give_up(self._numbered[action.worker], "has been in one chunk for too long"),
        }

    # ---- the loop -------------------------------------------------------------------------------------------

    def serve(self, is_over: Callable[[], bool]) -> list[str]:
        """Serves until ``is_over()``, and says so to everybody; returns the workers that do not come to an end."""
        while not is_over():
            self._turn()
        # A large result that nobody takes would keep its worker from ending; where it came by itself, its link ends.
        end = self._clock() + LAST_CHUNKS
        while any(not self.peers[b.worker].is_guest for b in self._batches.values()) and self._clock() < end:
            self._turn()
        for link in [*self.peers, *self._departed]:
            link.send(pack(Kind.END))
        return sorted({batch.worker.name for batch in self._batches.values()})

    def _turn(self) -> None:
        if not self.step():
            until = min(self._next_look, self.scheduler.next_deadline)
            self._port.wait(max(0.0, min(LONGEST_WAIT, until - self._clock())))

    def step(self) -> bool:
        """Handles what has arrived; whether anything had."""
        now = self._clock()
        arrivals = self._port.receive()
        for link, arrived in arrivals:
            self._take(link, arrived, now)
        if now >= self._next_look or now >= self.scheduler.next_deadline:
            self._look_around(now)
        return bool(arrivals)

    def _look_around(self, now: float) -> None:
        """What time itself brings."""
        self._buffers.trim(now)
        self._do(self.scheduler.handle(Tick(), now))
        if self.porch is not None:
            self.porch.tick(now)
        callers = [peer for peer in self.peers.values() if peer.role != "worker"]
        stalled = [event for peer in callers if (event := self._stalls.check(peer, now))]
        events, lost = self._stalls.look(now)
        for event in [*stalled, *events]:
            self._do(self.scheduler.handle(event, now))
        for peer in lost:
            self.lose(peer.link)
        self._next_look = now + (STALL_LOOK if self._stalls else LONGEST_WAIT)

    def add_client(self, link: Link, person: Person, *, role: str = "client", is_guest: bool = False) -> Peer:
        """Somebody who calls, or looks after the server."""
        peer = self._add(link, role, person, is_guest=is_guest)
        self.n_clients += role == "client"
        self.scheduler.handle(ClientJoined(peer.number, person.user), self._clock())
        return peer

    def add_worker(self, link: Link, person: Person, *, is_guest: bool = False) -> Peer:
        """A worker; it takes part once it has said what it serves."""
        return self._add(link, "worker", person, is_guest=is_guest)

    @property
    def is_deserted(self) -> bool:
        """Whether no worker is left, nor can come."""
        return self.porch is None and not any(peer.role == "worker" for peer in self.peers.values())

    def drain(self) -> None:
        """Takes nothing new, and finishes what runs."""
        self._do(self.scheduler.handle(Drain(), self._clock()))

    def lose(self, link: Link, *, has_said_so: bool = False) -> None:
        """The peer at the end of this link is gone."""
        peer = self.peers.pop(link, None)
        if peer is None:
            return
        del self._numbered[peer.number]
        self._stalls.forget(peer)
        self.catalog.forget(link)
        if peer.is_guest:
            link.part()
        else:
            self._departed.append(link)
        if peer.role == "worker":
            self._batches = {chunk: b for chunk, b in self._batches.items() if b.worker is not link}
            if peer.served is not None:
                self.catalog.remove(peer.served, peer.place)
            elif not peer.has_offered and not peer.is_guest:
                self.catalog.note_failure(ModelFailed(f"{link.name} was lost before it said what it serves"))
                self.catalog.answer_all()
            event: Event = WorkerLost(peer.number, has_left=has_said_so)
        else:
            self.n_clients -= peer.role == "client"
            event = ClientLost(peer.number)
        self._do(self.scheduler.handle(event, self._clock()))
        self.accounts.note_gone(peer, has_said_so=has_said_so)

    def _place(self, link: Link, header: Header, layout: Layout) -> list[Array]:
        """Room for a large frame, unless it is larger than any that could be wanted."""
        if link not in self.peers:
            raise BadFrame(f"a frame of {header.payload} bytes from somebody who was not let in")
        if header.payload > max(self._config.max_request_bytes, LARGEST_UNASKED):
            raise BadFrame(f"a frame of {header.payload} bytes; this server takes {self._config.max_request_bytes}")
        return self._buffers.place(link, header, layout)

    def _add(self, link: Link, role: str, person: Person, *, is_guest: bool) -> Peer:
        number = person.number or next(self.numbers)
        peer = self.peers[link] = self._numbered[number] = Peer(number, link, role, person, is_guest=is_guest)
        self.accounts.note_come(peer)
        return peer

    # ---- what arrives ---------------------------------------------------------------------------------------

    def _take(self, link: Link, arrived: Frame | DemosError, now: float) -> None:
        peer = self.peers.get(link)
        if peer is None:
            if self.porch is not None:
                self.porch.take(link, arrived)
            return
        if isinstance(arrived, DemosError):  # no frames can be told apart on this link any more
            refuse(link, 0, arrived)
            self.lose(link)
            return
        header = arrived.header
        try:
            taker = self._takers.get(header.kind)
            if taker is None:
                raise BadFrame(f"frames of kind {header.kind} are not for a dispatcher")
            event = taker(peer, arrived, now)
        except DemosError as error:
            refuse(link, header.id, error)
            return
        if event is not None:
            self._do(self.scheduler.handle(event, now))

    def _take_goodbye(self, peer: Peer, frame: Frame, now: float) -> None:
        self.lose(peer.link, has_said_so=True)

    def _take_ping(self, peer: Peer, frame: Frame, now: float) -> None:
        peer.link.send(pack(Kind.PONG, id=frame.header.id))

    def _take_beat(self, peer: Peer, frame: Frame, now: float) -> None:
        self.accounts.note_beat(peer, Beat.from_dict(from_json(get_only_array(frame))))

    def _take_upgrade(self, peer: Peer, frame: Frame, now: float) -> None:
        if self.porch is None:
            raise InvalidInput("links of one launch cannot go faster")
        self.porch.upgrade(peer, frame)

    def _take_offer(self, peer: Peer, frame: Frame, now: float) -> Event | None:
        """A worker says what it serves, or why nothing."""
        if peer.role != "worker" or peer.has_offered:
            raise InvalidInput("only workers offer to serve a model, and only once")
        peer.has_offered = True
        event = None
        try:
            offer = Offer.from_dict(from_json(get_only_array(frame)))
            served = self.catalog.add(offer, is_late=peer.is_guest)
        except DemosError as error:
            self.catalog.note_failure(error, is_late=peer.is_guest)
            warn(f"{peer.link.name} serves nothing: {error}")
            if peer.is_guest:
                refuse(peer.link, 0, error)
        else:
            peer.served, peer.place, peer.cores = served, offer.place, offer.threads
            event = WorkerJoined(peer.number, served.handle, offer.place)
            self.accounts.note_serving(peer, served)
            if len(served.fingerprints) > 1:
                warn(f"{peer.link.name} is not like other workers of {served.spec.name!r}: last digits may differ")
        self.catalog.answer_all()
        return event

    def _take_result(self, peer: Peer, frame: Frame, now: float) -> None:
        header = frame.header
        batch = self._batches.get(header.id)
        if batch is None or batch.worker is not peer.link or not batch.fits(frame):
            if peer.role != "worker":
                raise InvalidInput("only workers answer chunks")
            self._give_up(peer, "has answered something else than it was asked for")
            return
        del self._batches[header.id]
        self._result, seconds = (batch, frame), header.seed / 1e9
        self._do(self.scheduler.handle(ResultArrived(peer.number, header.id, header.status, seconds), now))
        # The books are kept while the answer is on its way.
        self.catalog.models[batch.calls[0].first.header.model].statistics.add_chunk(header.deadline_ms, seconds)
        self.accounts.note_chunk(peer, header.id, batch, seconds)

    # ---- what is to be done ---------------------------------------------------------------------------------

    def _do(self, actions: list[Action]) -> None:
        """Carries out what the scheduler returned: answers first, then in order."""
        if self._result is not None:
            batch, frame = self._result
            if parts := [action for action in actions if type(action) is SendPart]:
                self._send_parts(batch, frame, parts)
        for action in actions:
            self._doers[type(action)](action)
        self._result = None
        while self._broken:
            self._do(self.scheduler.handle(Cancelled(self._broken.pop()), self._clock()))
        while self._unsent:
            worker, chunk, batch = self._unsent.pop()
            error = InternalError(f"the dispatcher could not put chunk {chunk} together; its traceback is in the log")
            self._result = batch, make_result(chunk, Failure.of(error))
            self._do(self.scheduler.handle(ResultArrived(worker, chunk, error.status, 0.0), self._clock()))

    def _send_chunk(self, action: SendChunk) -> None:
        link = self._numbered[action.worker].link
        batch = Batch(link, [self.intake.calls[part.request] for part in action.parts], action.parts)
        try:
            packed = batch.pack(action.chunk)
        except Exception:  # a defect of ours, which must not cost more than this chunk's requests
            warn(traceback.format_exc().strip())
            self._unsent.append((action.worker, action.chunk, batch))
            return
        self._batches[action.chunk] = batch
        link.send(packed)
        self.accounts.note_begun(action.worker, action.chunk, batch)

    def _send_parts(self, batch: Batch, result: Frame, parts: list[SendPart]) -> None:
        try:
            if self.recall is not None:
                self.recall.gather(batch, result, parts)
            messages = batch.answer(result, parts)
        except Exception:  # as in _send_chunk
            warn(traceback.format_exc().strip())
            error = InternalError("the dispatcher could not pass the answer on; its traceback is in the log")
            for part in parts:
                call = batch.calls[part.index]
                refuse(call.link, call.id, error)
                call.status = error.status
                self.peers[call.link].calls.pop(call.id, None)  # it has its final reply
            self._broken += [part.part.request for part in parts if not part.final]
            return
        for link, message in messages:
            link.send(message)
            if link.unsent_bytes and (event := self._stalls.check(self.peers[link], self._clock())) is not None:
                self._next_look = 0.0
                self.scheduler.handle(event, self._clock())  # it only takes work away

    def _send_failure(self, action: SendFailure) -> None:
        call = self.intake.calls[action.request]
        peer = self.peers.get(call.link)
        if peer is None or call.id not in peer.calls:
            return  # gone, or told already
        call.status = int(action.status)
        self.catalog.models[call.first.header.model].statistics.failures += 1
        if action.chunk is not None and self._result is not None:
            _, frame = self._result
            message = pass_on(frame, kind=Kind.REPLY, id=call.id, flags=Flag.FINAL, revision=call.revision)
            call.link.send(message)
            return
        text = action.message
        if action.part is not None:
            start, stop = call.plan.rows_of(action.part.first, action.part.count)
            text = f"rows {start} to {stop} of the request could not be computed: {text}"
        send_failure(call.link, call.id, Failure(int(action.status), text, retry_after=action.retry_after))

    def _revoke(self, action: Revoke) -> None:
        self._numbered[action.worker].link.send(pack(Kind.CANCEL, id=action.chunk))

    def _forget(self, action: Forget) -> None:
        call = self.intake.calls.pop(action.request)
        peer = self.peers.get(call.link)
        if peer is not None:
            peer.calls.pop(call.id, None)
        elif not call.status:  # it is over because its client is gone
            call.status = int(Status.CANCELLED)
        self.accounts.settle(call, self._clock())

    def _give_up(self, peer: Peer, why: str) -> None:
        """A worker counts no more; its chunks are computed by others."""
        warn(f"{peer.link.name} {why} and is given up")
        self.accounts.note_evicted(peer, why)
        self.lose(peer.link)
