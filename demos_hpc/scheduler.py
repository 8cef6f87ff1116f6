"""The brain: what is told to whom, decided without a clock, a thread or a communicator.

``handle(event, now)`` returns what the caller is to do. The same code runs in the dispatcher, in the tests under
random interleavings, and in ``benchmarks/simulate.py`` under a virtual clock.

The rules, held by ``tests/test_scheduler.py``:

* every accepted request gets exactly one final answer, unless its client is gone;
* a chunk is with at most one live worker; results that nobody waits for are dropped by name;
* a chunk that has seen two workers die is cut into blocks; a block that again sees two die is the culprit;
* a failure inside a chunk of several requests fails only the request at fault;
* worker time is shared fairly (`shares`); queues are bounded; an expired request is never started;
* what has a place goes to workers of this place while there are any, and no worker is idle that could have work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from .deadlines import Deadlines
from .errors import Status
from .events import (
    Action,
    Cancelled,
    ClientJoined,
    ClientLost,
    ClientResumed,
    ClientStalled,
    Drain,
    Event,
    Evict,
    Forget,
    Lane,
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
from .pool import Account, Client, Pool
from .queues import Chunk, Queue, Request, Worker, cut

#: Deaths that a chunk may see before it is cut into blocks, and a block before it is blamed.
DEATHS = 2

_OK = int(Status.OK)
_STATUSES = frozenset(Status)


class Limits(NamedTuple):
    """The settings of `Config` that concern the scheduler."""

    max_queued_requests: int
    chunk_seconds: float
    chunk_timeout: float


class Scheduler:
    """The state of one dispatcher's work; see the module."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.is_draining = False
        self._pools: dict[int, Pool] = {}
        self._workers: dict[int, Worker] = {}
        self._clients: dict[int, Client] = {}
        self._requests: dict[int, Request] = {}
        self._chunks: dict[int, Chunk] = {}
        self._deadlines = Deadlines()
        #: When to look for workers that are past their time.
        self._next_check = math.inf
        self._last_chunk = 0
        self._handlers: dict[type[Any], Callable[[Any, float, list[Action]], None]] = {
            RequestArrived: self._request_arrived,
            ResultArrived: self._result_arrived,
            UnitsArrived: self._units_arrived,
            WorkerJoined: self._worker_joined,
            WorkerLost: self._worker_lost,
            ClientJoined: self._client_joined,
            ClientLost: self._client_lost,
            ClientStalled: self._client_stalled,
            ClientResumed: self._client_resumed,
            Cancelled: self._cancelled,
            Tick: self._tick,
            Drain: self._drain,
        }

    def __repr__(self) -> str:
        return (
            f"Scheduler({len(self._workers)} workers, {len(self._clients)} clients, {len(self._requests)} requests,"
            f" {len(self._chunks)} chunks{', draining' if self.is_draining else ''})"
        )

    @property
    def is_idle(self) -> bool:
        """Whether no accepted request is unanswered."""
        return not self._requests

    @property
    def backlog_seconds(self) -> float:
        """What waits, as seconds of one worker, as far as costs are known."""
        return sum(pool.backlog_seconds for pool in self._pools.values())

    @property
    def next_deadline(self) -> float:
        """When `Tick` has to come at the latest; infinity where nothing waits for the clock."""
        return min(self._deadlines.first, self._next_check)

    def handle(self, event: Event, now: float) -> list[Action]:
        """What is to be done about ``event``, which happened at ``now`` (seconds on any steady clock)."""
        actions: list[Action] = []
        self._handlers[type(event)](event, now, actions)
        return actions

    # ---- requests come and go -------------------------------------------------------------------------------

    def _request_arrived(self, event: RequestArrived, now: float, actions: list[Action]) -> None:
        client = self._clients.get(event.client)
        if client is None:
            actions.append(Forget(event.request))
            return
        account = client.accounts.get(event.model)
        if account is None:
            account = client.accounts[event.model] = Account(self._pool(event.model), client)
        pool, lanes = account.pool, event.lanes
        refusal = None
        if self.is_draining:
            refusal = SendFailure(event.request, Status.DRAINING, "the server is ending; try another")
        elif event.units < 1:
            refusal = SendFailure(event.request, Status.INVALID_INPUT, f"a request of {event.units} units of work")
        elif lanes and not _is_partition(lanes, event.units):
            message = f"lanes {lanes} do not make up the {event.units} units of a request"
            refusal = SendFailure(event.request, Status.INTERNAL, message)
        elif event.deadline <= now:
            refusal = SendFailure(event.request, Status.DEADLINE, "the deadline had passed when the request arrived")
        elif len(client.requests) >= self.limits.max_queued_requests:
            wait = max(pool.backlog_seconds / max(pool.n_workers, 1), 0.01)
            message = f"{len(client.requests)} requests of this client are waiting already; take some answers first"
            refusal = SendFailure(event.request, Status.BUSY, message, retry_after=wait)
        if refusal:
            actions += (refusal, Forget(event.request))
            return
        request = pool.accept(event, account)
        self._requests[event.request] = client.requests[event.request] = request
        if event.deadline < math.inf:
            self._deadlines.add(event.request, event.deadline, self._requests)
        if lanes:
            pool.lay_out(request, account)
            request.add(event.available)
            self._fill_for(request, now, actions)
            return
        whole = pool.take_whole(request)
        if whole is not None:
            self._assign(pool, whole, pool.common, now, actions)
            return
        if event.available:
            pool.common.add(request, event.available)
        self._fill(pool, (), now, actions)

    def _units_arrived(self, event: UnitsArrived, now: float, actions: list[Action]) -> None:
        request = self._requests.get(event.request)
        if request is not None:
            request.add(event.units)
            self._fill_for(request, now, actions)

    def _cancelled(self, event: Cancelled, now: float, actions: list[Action]) -> None:
        request = self._requests.get(event.request)
        if request is not None:
            self._fail(request, SendFailure(event.request, Status.CANCELLED, "cancelled"), actions)
            self._fill_for(request, now, actions)

    def _fail(self, request: Request, failure: SendFailure, actions: list[Action]) -> None:
        actions.append(failure)
        self._end(request, actions)

    def _end(self, request: Request, actions: list[Action]) -> None:
        """Nothing more is done for this request."""
        self._forget(request, actions)
        request.drop()
        actions += [
            Revoke(chunk.worker.id, chunk.id)
            for chunk in request.chunks
            # Backwards: where a client's requests end one after the other, the last still lives.
            if chunk.worker and all(r.is_over for r in reversed(chunk.requests))
        ]

    def _forget(self, request: Request, actions: list[Action]) -> None:
        event = request.event
        request.is_over = True
        del self._requests[event.request]
        if client := self._clients.get(event.client):
            del client.requests[event.request]
        actions.append(Forget(event.request))

    def _client_joined(self, event: ClientJoined, now: float, actions: list[Action]) -> None:
        self._clients[event.client] = Client(event.user)

    def _client_lost(self, event: ClientLost, now: float, actions: list[Action]) -> None:
        client = self._clients.pop(event.client, None)
        if client is None:
            return
        for request in client.requests.values():
            self._end(request, actions)
        for account in client.accounts.values():
            self._fill(account.pool, account.parties, now, actions)

    def _client_stalled(self, event: ClientStalled, now: float, actions: list[Action]) -> None:
        if client := self._clients.get(event.client):
            client.is_stalled = True
            for account in client.accounts.values():
                account.suspend()

    def _client_resumed(self, event: ClientResumed, now: float, actions: list[Action]) -> None:
        if client := self._clients.get(event.client):
            client.is_stalled = False
            for account in client.accounts.values():
                account.resume()
                self._fill(account.pool, account.parties, now, actions)

    # ---- workers come and go --------------------------------------------------------------------------------

    def _worker_joined(self, event: WorkerJoined, now: float, actions: list[Action]) -> None:
        pool = self._pool(event.model)
        worker = self._workers[event.worker] = pool.add(event.worker, event.model, event.place)
        if self.limits.chunk_timeout:
            self._next_check = min(self._next_check, now + self.limits.chunk_timeout)
        self._fill(pool, (worker.place,), now, actions)

    def _worker_lost(self, event: WorkerLost, now: float, actions: list[Action]) -> None:
        worker = self._workers.pop(event.worker, None)
        if worker is None:
            return
        pool, place = self._pools[worker.model], worker.place
        pool.remove(worker)
        if not place.n_workers:
            pool.close(place, self._requests.values())
            for client in self._clients.values():
                if account := client.accounts.get(worker.model):
                    account.parties.pop(place, None)
        for chunk in worker.chunks:
            self._detach(chunk)
            chunk.worker = None
        # Only the first chunk was being computed; the second is innocent.
        for nth, chunk in enumerate(worker.chunks):
            chunk.deaths += nth == 0 and not event.has_left
            self._retry(pool, chunk, actions)
        self._fill(pool, (), now, actions)

    def _retry(self, pool: Pool, chunk: Chunk, actions: list[Action]) -> None:
        """A chunk whose worker has died is given to another, cut into blocks, or blamed."""
        if chunk.deaths < DEATHS:
            pool.retry(chunk)
            return
        for request, part in chunk.living:
            if chunk.is_block:
                message = f"they were with {DEATHS} workers, one after the other, that died"
                failure = SendFailure(part.request, Status.MODEL_CRASHED, message, part=part)
                self._fail(request, failure, actions)
                return
            for run in cut(part, request.event.block, request.event.period):
                piece = Chunk.of_one(request, run, chunk.rate)
                piece.is_block = run.count <= request.event.block
                pool.retry(piece)

    def _detach(self, chunk: Chunk) -> None:
        """No request counts on this chunk any more, and its result has no name."""
        del self._chunks[chunk.id]
        for request in chunk.requests:
            request.chunks.pop(chunk, None)

    # ---- results --------------------------------------------------------------------------------------------

    def _result_arrived(self, event: ResultArrived, now: float, actions: list[Action]) -> None:
        chunk = self._chunks.get(event.chunk)
        if chunk is None or (worker := chunk.worker) is None or worker.id != event.worker:
            return  # late, or for the second time
        pool = self._pools[worker.model]
        pool.release(worker, chunk, now)
        self._detach(chunk)
        pool.settle(worker, chunk, event.seconds)
        if event.status == _OK:
            chunk.work.learn(event.seconds, chunk.units)
            self._deliver(chunk, actions)
        else:
            self._blame(pool, chunk, Status(event.status) if event.status in _STATUSES else Status.INTERNAL, actions)
        self._fill(pool, (worker.place,), now, actions)

    def _deliver(self, chunk: Chunk, actions: list[Action]) -> None:
        for index, (request, part) in enumerate(zip(chunk.requests, chunk.parts, strict=True)):
            if request.is_over:
                continue
            request.answered += part.count
            final = request.answered == request.event.units
            actions.append(SendPart(chunk.id, index, part, final))
            if final:
                self._forget(request, actions)

    def _blame(self, pool: Pool, chunk: Chunk, status: Status, actions: list[Action]) -> None:
        """A worker did not compute this chunk: its request fails; several requests are tried one by one."""
        for request, part in chunk.living:
            if len(chunk.parts) == 1:
                self._fail(request, SendFailure(part.request, status, "", chunk.id, part), actions)
            else:
                pool.retry(Chunk.of_one(request, part, 0.0))

    # ---- time -----------------------------------------------------------------------------------------------

    def _tick(self, event: Tick, now: float, actions: list[Action]) -> None:
        expired: list[Request] = []
        for number in self._deadlines.take_past(now):
            if request := self._requests.get(number):
                self._expire(request, actions)
                expired.append(request)
        if now >= self._next_check:
            self._evict(now, actions)
        for request in expired:
            self._fill_for(request, now, actions)

    def _evict(self, now: float, actions: list[Action]) -> None:
        """Gives up the workers that are past their time inside one chunk; no result of theirs counts any more."""
        timeout = self.limits.chunk_timeout
        for worker in [w for w in self._workers.values() if w.since + timeout <= now]:
            actions.append(Evict(worker.id))
            self._worker_lost(WorkerLost(worker.id), now, actions)
        # Nothing that starts from now on can be late before that. At most a hundred looks per timeout: with many
        # workers one look is long.
        oldest = min([now, *(w.since for w in self._workers.values())])
        self._next_check = max(oldest + timeout, now + 0.01 * timeout)

    def _expire(self, request: Request, actions: list[Action]) -> None:
        event = request.event
        message = f"not done in time: {request.answered} of {event.units} units were computed"
        self._fail(request, SendFailure(event.request, Status.DEADLINE, message), actions)

    def _drain(self, event: Drain, now: float, actions: list[Action]) -> None:
        self.is_draining = True
        for request in list(self._requests.values()):
            if not request.is_begun:
                message = "the server is ending and has not started this request; try another"
                self._fail(request, SendFailure(request.event.request, Status.DRAINING, message), actions)

    # ---- handing out work -----------------------------------------------------------------------------------

    def _fill_for(self, request: Request, now: float, actions: list[Action]) -> None:
        """Gives work to workers where this request waits, or has waited."""
        places = [stretch.queue for stretch in request.stretches] if request.stretches else ()
        self._fill(self._pools[request.event.model], places, now, actions)

    def _fill(self, pool: Pool, places: Iterable[Queue], now: float, actions: list[Action]) -> None:
        """Gives work to workers while there is both: at these places, and then of what may go anywhere."""
        common = pool.common
        for queue in (*places, common) if pool.is_split else (common,):
            while (queue.shares.waiting or pool.retries) and pool.has_room(queue):
                late: list[Request] = []
                chunk = pool.next_chunk(queue, now, late)
                for request in late:
                    self._expire(request, actions)
                if chunk is not None:
                    self._assign(pool, chunk, queue, now, actions)

    def _assign(self, pool: Pool, chunk: Chunk, queue: Queue, now: float, actions: list[Action]) -> None:
        number = self._last_chunk = chunk.id = self._last_chunk + 1
        self._chunks[number] = chunk
        for request in chunk.requests:
            request.chunks[chunk] = None
        worker = pool.give(chunk, queue, now)
        actions.append(SendChunk(worker.id, number, chunk.parts))

    def _pool(self, model: int) -> Pool:
        pool = self._pools.get(model)
        if pool is None:
            pool = self._pools[model] = Pool(self.limits.chunk_seconds)
        return pool


def _is_partition(lanes: tuple[Lane, ...], units: int) -> bool:
    """Whether lanes follow one another from the first unit to the last."""
    end = 0
    for lane in lanes:
        if lane.first != end or lane.count < 1:
            return False
        end += lane.count
    return end == units
