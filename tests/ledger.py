"""An independent bookkeeping of what the scheduler was told and what it asked for.

It knows the rules, not how the scheduler keeps them: `Ledger.tell` hands an event over, follows every action, and
fails at the first that breaks a rule. Units are kept as runs, so that 2**40 of them are no more work than ten.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Hashable
from typing import Any

from demos_hpc.errors import Status
from demos_hpc.events import (
    Cancelled,
    ClientJoined,
    ClientLost,
    ClientResumed,
    ClientStalled,
    Drain,
    Evict,
    Forget,
    Lane,
    Part,
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
from demos_hpc.queues import MOST_RUNS, Item, Queue
from demos_hpc.scheduler import Limits, Scheduler
from demos_hpc.shares import Party


class Runs:
    """A set of units, each with a value, as disjoint runs (start, stop, value) in order."""

    def __init__(self) -> None:
        self.runs: list[tuple[int, int, int]] = []
        self.total = 0

    def over(self, part: Part) -> list[tuple[int, int, int]]:
        """What there is of a part."""
        first, end = part.first, part.first + part.count
        i, j = self._find(first, end)
        return [(max(a, first), min(b, end), n) for a, b, n in self.runs[i:j]]

    def put(self, part: Part, value: int | None) -> None:
        """All units of the part have this value from now on, or are gone."""
        first, end = part.first, part.first + part.count
        i, j = self._find(first - 1, end + 1)
        runs: list[tuple[int, int, int]] = []
        for a, b, n in self.runs[i:j]:
            self.total -= b - a
            runs += [(x, y, n) for x, y in ((a, min(b, first)), (max(a, end), b)) if x < y]
        if value is not None:
            runs = sorted([*runs, (first, end, value)])
        joined: list[tuple[int, int, int]] = []
        for a, b, n in runs:
            self.total += b - a
            if joined and joined[-1][1:] == (a, n):
                joined[-1] = (joined[-1][0], b, n)
            else:
                joined.append((a, b, n))
        self.runs[i:j] = joined

    def add(self, part: Part) -> None:
        assert not self.over(part), f"{part} for the second time"
        self.put(part, 0)

    def remove(self, part: Part) -> None:
        assert sum(b - a for a, b, _ in self.over(part)) == part.count
        self.put(part, None)

    def _find(self, first: int, end: int) -> tuple[int, int]:
        """Where the runs lie that reach into [first, end)."""
        i = bisect.bisect_right(self.runs, first, key=lambda run: run[1])
        return i, bisect.bisect_left(self.runs, end, lo=i, key=lambda run: run[0])


class Call:
    """A request as its client sees it, and where its units are."""

    def __init__(self, event: RequestArrived) -> None:
        self.event = event
        self.arrived = event.available
        self.delivered = Runs()
        self.held = Runs()
        #: Units that some worker was given, if only once.
        self.begun = Runs()
        #: Deaths that units have seen while they were computed.
        self.deaths = Runs()
        #: Parts of dead workers, to be computed again as they were.
        self.again: list[Part] = []
        #: Whether a part was cut that has more blocks than are made at once.
        self.was_vast = False
        #: Lanes whose place has had a worker ever since the request came.
        self.bound: tuple[Lane, ...] = ()

    @property
    def pending(self) -> int:
        """Units that are here and with nobody."""
        return self.arrived - self.delivered.total - self.held.total

    @property
    def interrupted(self) -> int:
        """Those of them that a worker has had already."""
        return self.begun.total - self.delivered.total - self.held.total

    def count_fresh(self, lane: Lane) -> int:
        """Units of a lane that are here and that no worker has had."""
        here = min(max(0, self.arrived - lane.first), lane.count)
        begun = self.begun.over(Part(self.event.request, lane.first, lane.count))
        return here - sum(stop - start for start, stop, _ in begun)


class Ledger:
    """A scheduler under watch."""

    def __init__(self, *, max_queued: int = 10**6, chunk_seconds: float = 0.02, chunk_timeout: float = 0.0) -> None:
        self.limits = Limits(max_queued, chunk_seconds, chunk_timeout)
        self.scheduler = Scheduler(self.limits)
        self.now = 0.0
        #: False once a rule was broken.
        self.is_sound = True
        self.is_draining = False
        self.users: dict[int, str] = {}
        #: Clients that leave their answers untaken.
        self.stalled: set[int] = set()
        self.models: dict[int, int] = {}
        #: Where each worker stands.
        self.places: dict[int, Hashable] = {}
        #: What each worker has, first that which it computes; and since when.
        self.hands: dict[int, list[int]] = {}
        self.since: dict[int, float] = {}
        #: Chunks at workers, and those of the past.
        self.chunks: dict[int, SendChunk] = {}
        self.past: dict[int, SendChunk] = {}
        self.revoked: set[int] = set()
        #: Requests without a final reply, and how the others ended.
        self.calls: dict[int, Call] = {}
        self.ends: dict[int, Status | None] = {}
        self.failures: dict[int, SendFailure] = {}
        self.forgotten: set[int] = set()
        self._result: ResultArrived | None = None
        self._refused: Status | None = None

    # ---- telling ----------------------------------------------------------------------------------------

    def tell(self, event: Any) -> list[Any]:
        """Hands an event over, and checks and follows the actions."""
        self._result = None
        self.is_sound = False
        getattr(self, "_" + type(event).__name__)(event)
        actions = self.scheduler.handle(event, self.now)
        for action in actions:
            getattr(self, "_" + type(action).__name__)(action)
        self._check(event)
        self.is_sound = True
        return actions

    def _WorkerJoined(self, event: WorkerJoined) -> None:  # noqa: N802  (named as the event is)
        self.models[event.worker] = event.model
        self.places[event.worker] = event.place
        self.hands[event.worker] = []

    def _WorkerLost(self, event: WorkerLost) -> None:  # noqa: N802
        if event.worker not in self.models:
            return
        model, place = self.models.pop(event.worker), self.places.pop(event.worker)
        if (model, place) not in self._stations():
            for call in self.calls.values():
                if call.event.model == model:
                    call.bound = tuple(lane for lane in call.bound if lane.place != place)
        for nth, number in enumerate(self.hands.pop(event.worker)):
            chunk = self._put_down(number)
            for part in chunk.parts:
                if call := self.calls.get(part.request):
                    deaths = max((n for _, _, n in call.deaths.over(part)), default=0) + (
                        nth == 0 and not event.has_left
                    )
                    call.deaths.put(part, deaths)
                    call.was_vast |= deaths == 2 and part.count > MOST_RUNS * call.event.block
                    if nth or event.has_left or deaths % 2:  # otherwise it is cut, or blamed
                        call.again.append(part)

    def _ClientJoined(self, event: ClientJoined) -> None:  # noqa: N802
        self.users[event.client] = event.user

    def _ClientLost(self, event: ClientLost) -> None:  # noqa: N802
        self.users.pop(event.client, None)
        self.stalled.discard(event.client)
        for number in [n for n, call in self.calls.items() if call.event.client == event.client]:
            self._close(number, None)

    def _ClientStalled(self, event: ClientStalled) -> None:  # noqa: N802
        if event.client in self.users:
            self.stalled.add(event.client)

    def _ClientResumed(self, event: ClientResumed) -> None:  # noqa: N802
        self.stalled.discard(event.client)

    def _RequestArrived(self, event: RequestArrived) -> None:  # noqa: N802
        assert event.request not in self.calls
        unanswered = sum(call.event.client == event.client for call in self.calls.values())
        self._refused = None
        if event.client not in self.users:
            self.ends[event.request] = None
        elif self.is_draining:
            self._refused = Status.DRAINING
        elif event.deadline <= self.now:
            self._refused = Status.DEADLINE
        elif unanswered >= self.limits.max_queued_requests:
            self._refused = Status.BUSY
        if event.client in self.users:
            call = self.calls[event.request] = Call(event)
            call.bound = tuple(lane for lane in event.lanes if (event.model, lane.place) in self._stations())

    def _UnitsArrived(self, event: UnitsArrived) -> None:  # noqa: N802
        if call := self.calls.get(event.request):
            call.arrived += event.units

    def _ResultArrived(self, event: ResultArrived) -> None:  # noqa: N802
        if event.chunk in self.hands.get(event.worker, ()):
            self._result = event
            self.hands[event.worker].remove(event.chunk)
            self.since[event.worker] = self.now
            chunk = self._put_down(event.chunk)
            if event.status != Status.OK and len(chunk.parts) > 1:
                for part in chunk.parts:
                    if call := self.calls.get(part.request):
                        call.deaths.put(part, 0)

    def _Cancelled(self, event: Cancelled) -> None:  # noqa: N802
        pass

    def _Tick(self, event: Tick) -> None:  # noqa: N802
        pass

    def _Drain(self, event: Drain) -> None:  # noqa: N802
        self.is_draining = True

    # ---- following --------------------------------------------------------------------------------------

    def _SendChunk(self, chunk: SendChunk) -> None:  # noqa: N802
        assert chunk.worker in self.models, "work for a worker that is gone"
        hand = self.hands[chunk.worker]
        assert len(hand) < 2, "more than two chunks at a worker"
        assert chunk.chunk not in self.chunks
        assert chunk.chunk not in self.past
        assert chunk.parts
        assert len({part.request for part in chunk.parts}) == len(chunk.parts)
        calls = [self.calls[part.request] for part in chunk.parts]
        if len(calls) > 1:
            assert len({call.event.merge for call in calls}) == 1
            assert calls[0].event.merge is not None
            whole = [part.count == call.event.units for call, part in zip(calls, chunk.parts, strict=True)]
            assert all(whole), "a part of a request among others: `calls.Batch` merges whole ones"
        limit = calls[0].event.limit
        assert sum(part.count for part in chunk.parts) <= limit
        for call, part in zip(calls, chunk.parts, strict=True):
            event, first, last = call.event, part.first, part.first + part.count - 1
            assert event.model == self.models[chunk.worker]
            assert event.deadline > self.now, "started after its deadline"
            assert 0 <= first <= last < call.arrived
            assert first // limit == last // limit, "crosses the limit of an arriving part"
            whole_rows = first % event.period == 0 and part.count % event.period == 0
            assert first // event.period == last // event.period or whole_rows, "no rectangle"
            assert not call.delivered.over(part), "computed again"
            begun = sum(stop - start for start, stop, _ in call.begun.over(part))
            if begun != part.count:
                assert begun == 0
                assert event.client not in self.stalled, "begun for a client that takes nothing"
                lanes = [lane for lane in event.lanes if lane.first <= last and first < lane.first + lane.count]
                assert len(lanes) == bool(event.lanes), "crosses from one lane into the next"
                for lane in lanes:
                    assert lane not in call.bound or lane.place == self.places[chunk.worker], "at the wrong place"
            call.begun.put(part, 1)
            call.held.add(part)
            again = [a for a in call.again if a.first <= last and first < a.first + a.count]
            assert again in ([], [part]), "another part than the dead worker had"
            call.again = [a for a in call.again if a not in again]
            if any(n >= 2 for _, _, n in call.deaths.over(part)):
                assert len(chunk.parts) == 1
                assert call.was_vast or first // event.block == last // event.block, "longer than a block"
        if not hand:
            self.since[chunk.worker] = self.now
        hand.append(chunk.chunk)
        self.chunks[chunk.chunk] = chunk

    def _SendPart(self, reply: SendPart) -> None:  # noqa: N802
        assert self._result is not None
        assert self._result.status == Status.OK
        assert self._result.chunk == reply.chunk
        assert self.past[reply.chunk].parts[reply.index] == reply.part
        call = self.calls[reply.part.request]
        call.delivered.add(reply.part)
        assert reply.final == (call.delivered.total == call.event.units)
        if reply.final:
            self._close(reply.part.request, Status.OK)

    def _SendFailure(self, reply: SendFailure) -> None:  # noqa: N802
        call = self.calls[reply.request]
        event = call.event
        if reply.status == Status.BUSY:
            assert reply.retry_after > 0
        elif reply.status == Status.DEADLINE:
            assert event.deadline <= self.now
        elif reply.status == Status.MODEL_CRASHED and not self._result:
            assert reply.part is not None
            assert reply.part.count <= event.block
            runs = call.deaths.over(reply.part)
            assert sum(stop - start for start, stop, _ in runs) == reply.part.count
            assert call.was_vast or all(deaths == 4 for _, _, deaths in runs)
        elif reply.chunk is not None:
            assert self._result is not None
            assert reply.chunk == self._result.chunk
            known = self._result.status in [*Status]
            assert reply.status == (self._result.status if known else Status.INTERNAL)
            assert self.past[reply.chunk].parts == [reply.part]
        self._close(reply.request, reply.status)
        self.failures[reply.request] = reply

    def _Forget(self, action: Forget) -> None:  # noqa: N802
        assert action.request in self.ends, "forgotten before its final reply"
        assert action.request not in self.forgotten
        self.forgotten.add(action.request)

    def _Revoke(self, action: Revoke) -> None:  # noqa: N802
        assert action.chunk in self.hands[action.worker], "revoked where it is not"
        assert action.chunk not in self.revoked
        assert all(part.request not in self.calls for part in self.chunks[action.chunk].parts), "still wanted"
        self.revoked.add(action.chunk)

    def _Evict(self, action: Evict) -> None:  # noqa: N802
        assert self.hands[action.worker]
        assert self.now >= self.since[action.worker] + self.limits.chunk_timeout > self.since[action.worker]
        self._WorkerLost(WorkerLost(action.worker))

    def _put_down(self, number: int) -> SendChunk:
        chunk = self.past[number] = self.chunks.pop(number)
        for part in chunk.parts:
            if call := self.calls.get(part.request):
                call.held.remove(part)
        return chunk

    def _close(self, request: int, status: Status | None) -> None:
        assert request not in self.ends, "a second final reply"
        del self.calls[request]
        self.ends[request] = status

    # ---- what holds between events ----------------------------------------------------------------------

    def _check(self, event: Any) -> None:
        if isinstance(event, RequestArrived):
            if self._refused is not None:
                assert self.ends[event.request] == self._refused
            elif event.client in self.users:
                assert self.ends.get(event.request) in (None, Status.OK), "refused without a reason"
        assert self.forgotten == set(self.ends)
        for number, call in self.calls.items():
            assert call.was_vast or all(n < 4 for _, _, n in call.deaths.runs), f"{number} is guilty and not blamed"
        for worker, hand in self.hands.items():
            for number in hand:
                abandoned = all(part.request not in self.calls for part in self.chunks[number].parts)
                assert abandoned == (number in self.revoked), f"worker {worker} should know"
        idle = {(self.models[worker], self.places[worker]) for worker, hand in self.hands.items() if not hand}
        idle_models = {model for model, _ in idle}
        for number, call in self.calls.items():
            model = call.event.model
            waiting = call.interrupted
            if call.event.client not in self.stalled:
                waiting = call.pending
                for lane in call.bound:
                    fresh = call.count_fresh(lane)
                    waiting -= fresh
                    assert not (fresh and (model, lane.place) in idle), f"{number} waits while a worker there is idle"
            assert not (waiting and model in idle_models), f"{number} waits while a worker is idle"
        self._check_shares()
        if isinstance(event, Tick):
            assert all(call.event.deadline > self.now for call in self.calls.values())
        assert self.scheduler.is_idle == (not self.calls)
        deadline = self.scheduler.next_deadline
        assert deadline <= min([math.inf, *(call.event.deadline for call in self.calls.values())])
        if timeout := self.limits.chunk_timeout:
            oldest = min([math.inf, *(self.since[worker] for worker, hand in self.hands.items() if hand)])
            assert deadline <= oldest + 1.02 * timeout
            if isinstance(event, Tick):
                assert self.now < oldest + 1.02 * timeout, "not given up"

    def _check_shares(self) -> None:
        """What is said to wait does, and what a client has that takes nothing is not counted."""
        for model, pool in self.scheduler._pools.items():
            assert {(model, place) for place in pool.places} == {s for s in self._stations() if s[0] == model}
            queues = [pool.common, *pool.places.values()]
            accounts = [
                (number, account)
                for number, client in self.scheduler._clients.items()
                for account in client.accounts.values()
                if account.pool is pool
            ]
            assert all(account.parties.keys() <= set(queues) for _, account in accounts)
            assert all(chunk.queue is pool.common for chunk in pool.retries)
            for queue in queues:
                mine = [(number, account.parties[queue]) for number, account in accounts if queue in account.parties]
                self._check_queue(queue, mine, is_kept=queue is pool.common or pool.is_split)

        for chunk in self.scheduler._chunks.values():
            assert all(party.user in chunk.queue.shares._users.values() for party in chunk.bill)

    def _check_queue(self, queue: Queue, mine: list[tuple[int, Party[Item]]], *, is_kept: bool) -> None:
        assert all(party.is_suspended == (number in self.stalled) for number, party in mine)
        parties = [party for number, party in mine if number not in self.stalled]
        shares = queue.shares
        assert shares.waiting == sum(len(party.queue) for party in parties)
        for user in shares._users.values():
            assert user.waiting == sum(len(party.queue) for party in parties if party.user is user)
        assert shares.n_users == sum(user.waiting > 0 for user in shares._users.values())
        items = [item for _, party in mine for item in party.queue]
        assert all(item.queue is queue for item in items)
        for work in queue.works.values():
            assert work.backlog == sum(item.arrived - item.handed for item in items if item.work is work)
        workers = [
            worker
            for worker in self.scheduler._workers.values()
            if worker.place is queue or worker.place.common is queue
        ]
        assert queue.n_workers == len(workers)
        if is_kept:
            assert set(queue.idle) == {worker for worker in workers if not worker.chunks}
            assert set(queue.half) == {worker for worker in workers if len(worker.chunks) == 1}

    def _stations(self) -> set[tuple[int, Hashable]]:
        """Models and places that have workers."""
        return {(self.models[worker], self.places[worker]) for worker in self.models}

    def check_empty(self) -> None:
        """Nothing is left in the scheduler of requests that are over."""
        scheduler = self.scheduler
        assert not self.calls
        assert not self.chunks
        assert not scheduler._requests
        assert not scheduler._chunks
        assert not any(client.requests for client in scheduler._clients.values())
        for pool in scheduler._pools.values():
            assert not pool.retries
            assert pool.backlog_seconds == 0
            for queue in (pool.common, *pool.places.values()):
                assert queue.shares.waiting == 0
                assert not any(work.backlog for work in queue.works.values())
                assert not any(user.waiting for user in queue.shares._users.values())
