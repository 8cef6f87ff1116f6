"""Rank 0: takes requests from clients, lets the scheduler decide, hands out chunks, passes results on.

It computes nothing and decides nothing: what has arrived becomes events, and what the scheduler returns is done.
The mirrored verbs stand in `connection` and `worker`.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable
from typing import Any

from .calls import Batch, Call
from .catalog import Catalog
from .config import Config
from .errors import BadFrame, DemosError, InternalError, InvalidInput, ModelFailed, StaleRevision, Status
from .events import (
    Action,
    Cancelled,
    ClientJoined,
    ClientLost,
    Event,
    Evict,
    Forget,
    RequestArrived,
    ResultArrived,
    Revoke,
    SendChunk,
    SendFailure,
    SendPart,
    Tick,
    UnitsArrived,
    WorkerJoined,
    WorkerLost,
)
from .messages import Array, Failure, Flag, Kind, Offer, Operation, from_json
from .refusals import make_result, refuse, send_failure, warn
from .relay import pass_on
from .scheduler import Limits, Scheduler
from .served import Served
from .transport import LONGEST_WAIT, Link, Port
from .transport.buffers import Buffers
from .wire import Frame, Header, Layout, pack

#: Seconds that running chunks, which nobody waits for any more, are given when the service ends.
LAST_CHUNKS = 10.0
#: Frames up to this size are taken in and then answered, even where the server's limit is lower, bytes.
LARGEST_UNASKED = 1 << 30


class _Peer:
    """A client or a worker, with the number that the scheduler knows it by."""

    __slots__ = ("calls", "has_offered", "is_worker", "link", "number", "served")

    def __init__(self, number: int, link: Link, *, is_worker: bool) -> None:
        self.number = number
        self.link = link
        self.is_worker = is_worker
        self.has_offered = False
        #: What a worker serves.
        self.served: Served | None = None
        #: The numbers of a client's unanswered calls, by their id on the wire.
        self.calls: dict[int, int] = {}


class Dispatcher:
    """The service behind one port.

    ``n_offers`` workers are going to say what they serve; clients that ask before are kept waiting.
    """

    def __init__(self, port: Port, config: Config, n_offers: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._port = port
        port.place = self._place
        self._buffers = Buffers()
        self._config = config
        self._clock = clock
        self._catalog = Catalog(n_offers, config.max_request_bytes)
        self._scheduler = Scheduler(Limits(config.max_queued_requests, config.chunk_seconds, config.chunk_timeout))
        self._peers: dict[Link, _Peer] = {}
        self._numbered: dict[int, _Peer] = {}
        self._departed: list[Link] = []
        self._calls: dict[int, Call] = {}
        self._batches: dict[int, Batch] = {}
        #: The result that is being handled, and the chunk that it belongs to.
        self._result: tuple[Batch, Frame] | None = None
        self._unsent: list[tuple[int, int, Batch]] = []
        self._broken: list[int] = []
        #: Clients that have come and not said goodbye.
        self.n_clients = 0
        self._last_number = 0
        self._next_look = 0.0
        self._takers: dict[int, Callable[[_Peer, Frame], Event | None]] = {
            Kind.REQUEST: self._take_request,
            Kind.ROWS: self._take_rows,
            Kind.CANCEL: self._take_cancel,
            Kind.RESULT: self._take_result,
            Kind.HELLO: self._take_offer,
            Kind.GOODBYE: self._take_goodbye,
        }
        self._doers: dict[type[Any], Callable[[Any], None]] = {
            SendPart: lambda action: None,  # all parts of a result are sent at once, before anything else
            SendChunk: self._send_chunk,
            SendFailure: self._send_failure,
            Revoke: self._revoke,
            Forget: self._forget,
            Evict: self._evict,
        }

    # ---- the loop -------------------------------------------------------------------------------------------

    def serve(self, is_over: Callable[[], bool]) -> list[str]:
        """Serves until ``is_over()``, and says so to everybody; returns the workers that do not come to an end."""
        while not is_over():
            self._turn()
        # A large result that nobody takes would keep its worker from ending.
        end = self._clock() + LAST_CHUNKS
        while self._batches and self._clock() < end:
            self._turn()
        for link in [*self._peers, *self._departed]:
            link.send(pack(Kind.END))
        return sorted({batch.worker.name for batch in self._batches.values()})

    def _turn(self) -> None:
        if not self.step():
            self._port.wait(max(0.0, min(LONGEST_WAIT, self._next_look - self._clock())))

    def step(self) -> bool:
        """Handles what has arrived; whether anything had."""
        now = self._clock()
        arrivals = self._port.receive()
        for link, arrived in arrivals:
            self._take(link, arrived, now)
        if now >= self._next_look:
            self._do(self._scheduler.handle(Tick(), now))
            self._next_look = min(self._scheduler.next_deadline, now + LONGEST_WAIT)
        return bool(arrivals)

    def add_client(self, link: Link, user: str) -> None:
        peer = self._add(link, is_worker=False)
        self.n_clients += 1
        self._scheduler.handle(ClientJoined(peer.number, user), self._clock())

    def add_worker(self, link: Link) -> None:
        self._add(link, is_worker=True)  # it takes part once it has said what it serves

    def lose(self, link: Link) -> None:
        """The peer at the end of this link is gone."""
        peer = self._peers.pop(link, None)
        if peer is None:
            return
        del self._numbered[peer.number]
        event: Event
        if peer.is_worker:
            self._batches = {chunk: b for chunk, b in self._batches.items() if b.worker is not link}
            if peer.served is not None:
                peer.served.workers -= 1
            elif not peer.has_offered:
                self._catalog.note_failure(ModelFailed(f"{link.name} was lost before it said what it serves"))
                self._catalog.answer_all()
            event = WorkerLost(peer.number)
        else:
            self.n_clients -= 1
            event = ClientLost(peer.number)
        self._do(self._scheduler.handle(event, self._clock()))

    def _place(self, link: Link, header: Header, layout: Layout) -> list[Array]:
        """Room for a large frame, unless it is larger than any that could be wanted."""
        if header.payload > max(self._config.max_request_bytes, LARGEST_UNASKED):
            raise BadFrame(f"a frame of {header.payload} bytes; this server takes {self._config.max_request_bytes}")
        return self._buffers.place(link, header, layout)

    def _add(self, link: Link, *, is_worker: bool) -> _Peer:
        number = self._last_number = self._last_number + 1
        peer = self._peers[link] = self._numbered[number] = _Peer(number, link, is_worker=is_worker)
        return peer

    # ---- what arrives ---------------------------------------------------------------------------------------

    def _take(self, link: Link, arrived: Frame | DemosError, now: float) -> None:
        peer = self._peers.get(link)
        if peer is None:
            return
        if isinstance(arrived, DemosError):  # no frames can be told apart on this link any more
            refuse(link, 0, arrived)
            self._departed.append(link)
            self.lose(link)
            return
        header = arrived.header
        try:
            taker = self._takers.get(header.kind)
            if taker is None:
                raise BadFrame(f"frames of kind {header.kind} are not for a dispatcher")
            event = taker(peer, arrived)
        except DemosError as error:
            refuse(link, header.id, error)
            return
        if event is not None:
            self._do(self._scheduler.handle(event, now))

    def _take_request(self, peer: _Peer, frame: Frame) -> Event | None:
        header = frame.header
        if header.operation == Operation.METADATA:
            self._catalog.ask(peer.link, header.id, _read_name(frame))
            return None
        served = self._catalog.models.get(header.model)
        if served is None:
            raise InvalidInput(f"there is no model with handle {header.model} here")
        if header.id in peer.calls:
            raise InvalidInput(f"request id {header.id} is in use already")
        if header.operation == Operation.SET_PARAMS:
            served.set_params(from_json(_only_array(frame)))
            peer.link.send(pack(Kind.REPLY, id=header.id, flags=Flag.FINAL, revision=served.revision))
            return None
        if header.revision not in (0, served.revision):
            raise StaleRevision(
                f"the parameters of model {served.spec.name!r} have revision {served.revision} now;"
                f" this client pinned {header.revision}"
            )
        plan = served.plan(frame)
        number = peer.calls[header.id] = self._last_number = self._last_number + 1
        self._calls[number] = Call(peer.link, frame, plan, served.defaults, served.revision)
        served.statistics.requests += 1
        served.statistics.rows += header.n_rows
        deadline = math.inf
        if header.deadline_ms:
            deadline = self._clock() + header.deadline_ms / 1e3
            self._next_look = min(self._next_look, deadline)
        return RequestArrived(
            number,
            peer.number,
            header.model,
            header.operation,
            plan.units,
            plan.first_units,
            deadline,
            plan.merge_key(served.revision) if frame.is_inline else None,
            plan.period,
            plan.limit,
            plan.block,
        )

    def _take_rows(self, peer: _Peer, frame: Frame) -> Event | None:
        number = peer.calls.get(frame.header.id)
        if number is None:
            return None  # the request has failed meanwhile
        try:
            return UnitsArrived(number, self._calls[number].add(frame))
        except (InvalidInput, BadFrame) as error:
            refuse(peer.link, frame.header.id, error)
            peer.calls.pop(frame.header.id)  # it has its final reply
            return Cancelled(number)

    def _take_cancel(self, peer: _Peer, frame: Frame) -> Event | None:
        number = peer.calls.get(frame.header.id)
        return None if number is None else Cancelled(number)

    def _take_goodbye(self, peer: _Peer, frame: Frame) -> Event | None:
        self._departed.append(peer.link)
        self.lose(peer.link)
        return None

    def _take_offer(self, peer: _Peer, frame: Frame) -> Event | None:
        """A worker says what it serves, or why nothing."""
        if not peer.is_worker or peer.has_offered:
            raise InvalidInput("only workers offer to serve a model, and only once")
        peer.has_offered = True
        event = None
        try:
            served = self._catalog.add(Offer.from_dict(from_json(_only_array(frame))))
        except DemosError as error:
            self._catalog.note_failure(error)
            warn(f"{peer.link.name} serves nothing: {error}")
        else:
            peer.served = served
            event = WorkerJoined(peer.number, served.handle)
            if len(served.fingerprints) > 1:
                warn(f"{peer.link.name} is not like other workers of {served.spec.name!r}: last digits may differ")
        self._catalog.answer_all()
        return event

    def _take_result(self, peer: _Peer, frame: Frame) -> Event | None:
        header = frame.header
        batch = self._batches.get(header.id)
        if batch is None or batch.worker is not peer.link:
            return None  # late, or for the second time
        del self._batches[header.id]
        status = header.status
        if status == Status.OK and not batch.fits(frame):
            error = InternalError(f"{peer.link.name} answered a chunk with something else than was asked for")
            frame, status = make_result(header.id, Failure.of(error)), error.status
        statistics = self._catalog.models[batch.calls[0].first.header.model].statistics
        statistics.nonfinite_rows += header.deadline_ms
        statistics.model_seconds += header.seed / 1e9
        self._result = batch, frame
        return ResultArrived(peer.number, header.id, status, header.seed / 1e9)

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
            self._do(self._scheduler.handle(Cancelled(self._broken.pop()), self._clock()))
        while self._unsent:
            worker, chunk, batch = self._unsent.pop()
            error = InternalError(f"the dispatcher could not put chunk {chunk} together; its traceback is in the log")
            self._result = batch, make_result(chunk, Failure.of(error))
            self._do(self._scheduler.handle(ResultArrived(worker, chunk, error.status, 0.0), self._clock()))

    def _send_chunk(self, action: SendChunk) -> None:
        link = self._numbered[action.worker].link
        batch = Batch(link, [self._calls[part.request] for part in action.parts], action.parts)
        try:
            packed = batch.pack(action.chunk)
        except Exception:  # a defect of ours, which must not cost more than this chunk's requests
            traceback.print_exc()
            self._unsent.append((action.worker, action.chunk, batch))
            return
        self._batches[action.chunk] = batch
        link.send(packed)

    def _send_parts(self, batch: Batch, result: Frame, parts: list[SendPart]) -> None:
        try:
            messages = batch.answer(result, parts)
        except Exception:  # as in _send_chunk
            traceback.print_exc()
            error = InternalError("the dispatcher could not pass the answer on; its traceback is in the log")
            for part in parts:
                call = batch.calls[part.index]
                refuse(call.link, call.id, error)
                self._peers[call.link].calls.pop(call.id, None)  # it has its final reply
            self._broken += [part.part.request for part in parts if not part.final]
            return
        for link, message in messages:
            link.send(message)

    def _send_failure(self, action: SendFailure) -> None:
        call = self._calls[action.request]
        peer = self._peers.get(call.link)
        if peer is None or call.id not in peer.calls:
            return  # gone, or told already
        self._catalog.models[call.first.header.model].statistics.failures += 1
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
        call = self._calls.pop(action.request)
        peer = self._peers.get(call.link)
        if peer is not None:
            peer.calls.pop(call.id, None)

    def _evict(self, action: Evict) -> None:
        link = self._numbered[action.worker].link
        warn(f"{link.name} has been in one chunk for too long and is given up")
        self._departed.append(link)
        self.lose(link)


def _read_name(frame: Frame) -> str | None:
    """Which model a question is about; None for the only one."""
    question = from_json(_only_array(frame)) if frame.header.n_arrays else {}
    if not isinstance(question, dict):
        raise BadFrame(f"a question is a JSON object, not {type(question).__name__}")
    return question.get("model")


def _only_array(frame: Frame) -> Any:
    if len(frame.arrays) != 1:
        raise BadFrame(f"a frame of kind {frame.header.kind} with {len(frame.arrays)} arrays instead of one")
    return frame.arrays[0]
