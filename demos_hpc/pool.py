"""The workers of one model, what waits for them, and who gets how much of it next.

Part of the brain: no clock, no thread, no communicator.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable
from typing import TypeAlias

from .blocks import limit_run
from .events import Part, RequestArrived
from .shares import Party, Shares

#: Units in the first chunk of work whose cost is not known yet.
FIRST_UNITS = 4
#: No chunk is made shorter than this for the sake of balance, seconds.
SHORTEST_CHUNK = 1e-3
#: A worker gets a second chunk ahead of time if it is this short, seconds, or if there is plenty of work.
SHORT_CHUNK = 5e-3
#: What one chunk costs the dispatcher, seconds, rather too much than too little (`benchmarks/simulate.py`).
CHUNK_COST = 4e-5
#: Chunks grow with the number of workers, so that this fraction of the dispatcher's time is enough for all.
DISPATCHER_LOAD = 0.1
#: Requests in one chunk.
MOST_PARTS = 1024

#: Units by client.
Bill: TypeAlias = "dict[Party[Request], int]"


class Work:
    """One kind of work: what a unit of it costs, the recent chunks counting most, and how much of it waits."""

    __slots__ = ("backlog", "per_unit", "seconds", "units")

    def __init__(self) -> None:
        self.seconds = self.units = 0.0
        #: Seconds for one unit; 0 = not known yet.
        self.per_unit = 0.0
        #: Units that wait for a worker.
        self.backlog = 0

    def learn(self, seconds: float, units: int) -> None:
        """A chunk of ``units`` took ``seconds``."""
        self.seconds = 0.5 * self.seconds + max(seconds, 1e-9)
        self.units = 0.5 * self.units + units
        self.per_unit = self.seconds / self.units


class Request:
    """An accepted request, until its final reply."""

    __slots__ = ("answered", "arrived", "chunks", "event", "handed", "is_over", "party", "pool", "work")

    def __init__(self, event: RequestArrived, party: Party[Request], pool: Pool, work: Work) -> None:
        self.event = event
        self.party = party
        self.pool = pool
        self.work = work
        #: Units that are here, that workers were given, and whose results are in.
        self.arrived = 0
        self.handed = 0
        self.answered = 0
        #: Those that workers have.
        self.chunks: dict[Chunk, None] = {}
        self.is_over = False


class Chunk:
    """Some units of one or several requests, for one worker."""

    __slots__ = ("bill", "deaths", "id", "is_block", "parts", "pool", "rate", "requests", "units", "work", "worker")

    def __init__(self, requests: list[Request], parts: list[Part], bill: Bill, rate: float) -> None:
        #: Set whenever it is handed out, so that a result names the one attempt that it belongs to.
        self.id = 0
        self.pool = requests[0].pool
        self.work = requests[0].work
        self.requests = requests
        self.parts = parts
        #: Whose units these are, and the seconds for each that was charged when they were handed out.
        self.bill = bill
        self.rate = rate
        self.units = sum(bill.values())
        self.worker: Worker | None = None
        self.deaths = 0
        #: Whether it was cut as far as it may be.
        self.is_block = False

    @classmethod
    def of_one(cls, request: Request, part: Part, rate: float) -> Chunk:
        """Some units of one request."""
        return cls([request], [part], {request.party: part.count}, rate)

    @property
    def living(self) -> list[tuple[Request, Part]]:
        """Those of its parts that somebody still waits for."""
        return [(r, p) for r, p in zip(self.requests, self.parts, strict=True) if not r.is_over]

    def keep(self, living: list[tuple[Request, Part]]) -> None:
        """The other parts are computed no more."""
        self.requests = [request for request, _ in living]
        self.parts = [part for _, part in living]
        self.bill = {}
        for request, part in living:
            self.bill[request.party] = self.bill.get(request.party, 0) + part.count
        self.units = sum(self.bill.values())


class Worker:
    """A worker and what it has been given: what it computes first, then what it got ahead of time."""

    __slots__ = ("chunks", "id", "pool", "since")

    def __init__(self, id_: int, pool: Pool) -> None:
        self.id = id_
        self.pool = pool
        self.chunks: list[Chunk] = []
        #: When it began with the first of its chunks.
        self.since = math.inf


class Pool:
    """The workers of one model and the requests that wait for them."""

    def __init__(self, chunk_seconds: float) -> None:
        self.n_workers = 0
        self.retries: deque[Chunk] = deque()
        self.shares: Shares[Request] = Shares()
        self._chunk_seconds = chunk_seconds
        # Workers with no chunk, and with one; the last to come is the first to go, since it is still awake.
        self._idle: dict[Worker, None] = {}
        self._half: dict[Worker, None] = {}
        self._works: dict[Hashable, Work] = {}

    # ---- workers --------------------------------------------------------------------------------------------

    def add(self, worker: Worker) -> None:
        self.n_workers += 1
        self._idle[worker] = None

    def remove(self, worker: Worker) -> None:
        self.n_workers -= 1
        self._idle.pop(worker, None)
        self._half.pop(worker, None)

    def has_room(self) -> bool:
        """Whether a worker should be given a chunk now."""
        return bool(self._idle) or (bool(self._half) and self._may_queue())

    def give(self, chunk: Chunk, now: float) -> Worker:
        """Gives the chunk to a worker, behind what that has already."""
        if self._idle:
            worker, _ = self._idle.popitem()
            self._half[worker] = None
            worker.since = now
        else:
            worker, _ = self._half.popitem()
        worker.chunks.append(chunk)
        chunk.worker = worker
        return worker

    def release(self, worker: Worker, chunk: Chunk, now: float) -> None:
        """The worker is done with this chunk."""
        worker.chunks.remove(chunk)
        chunk.worker = None
        if worker.chunks:
            self._half[worker] = None
            worker.since = now
        else:
            self._half.pop(worker, None)
            self._idle[worker] = None
            worker.since = math.inf

    def _may_queue(self) -> bool:
        """Whether the next chunk should queue behind a running one, to spare its worker the wait for the post.

        Not if it is long and might soon run elsewhere.
        """
        if self.retries or not self.shares.waiting:
            return False
        work = next(iter(self.shares.next().queue)).work
        if not work.per_unit:
            return False
        seconds = self._target_units(work) * work.per_unit
        return seconds <= SHORT_CHUNK or self.backlog_seconds >= self.n_workers * seconds

    # ---- requests -------------------------------------------------------------------------------------------

    @property
    def backlog_seconds(self) -> float:
        """What waits, as seconds of one worker, as far as costs are known."""
        return sum([work.backlog * work.per_unit for work in self._works.values()])

    def accept(self, event: RequestArrived, party: Party[Request]) -> Request:
        """A request that this pool's workers are to answer."""
        work = self._works.get(event.work)
        if work is None:
            work = self._works[event.work] = Work()
        return Request(event, party, self, work)

    def take_whole(self, request: Request) -> Chunk | None:
        """A request that need neither wait nor be shared out, as one chunk; None where it had better do either."""
        event, work = request.event, request.work
        units = event.units
        if not self._idle or self.shares.waiting or self.retries or event.available != units or units > event.limit:
            return None
        if request.party.is_suspended:
            return None
        if units * work.per_unit > SHORTEST_CHUNK if work.per_unit else units > FIRST_UNITS:
            return None
        request.arrived = request.handed = units
        self.shares.skip(request.party)
        self.shares.charge(request.party, units * work.per_unit)
        return Chunk([request], [Part(event.request, 0, units)], {request.party: units}, work.per_unit)

    def wait(self, request: Request, units: int) -> None:
        """``units`` more of this request are here."""
        if units:
            if request.arrived == request.handed:
                self.shares.push(request.party, request)
            request.arrived += units
            request.work.backlog += units

    def drop(self, request: Request) -> None:
        """Nothing of this request waits any more."""
        waiting = request.arrived - request.handed
        if waiting:
            request.work.backlog -= waiting
            self.shares.remove(request.party, request)

    def settle(self, chunk: Chunk, seconds: float) -> None:
        """A chunk took its worker ``seconds``: corrects what its clients were charged for it."""
        excess = seconds / chunk.units - chunk.rate
        for party, units in chunk.bill.items():
            self.shares.charge(party, excess * units)

    def next_chunk(self, now: float, late: list[Request]) -> Chunk | None:
        """The chunk whose turn it is, or None where that is void.

        It is void for requests past their deadline: these go to ``late``, and are not started.
        """
        while self.retries:
            chunk = self.retries[0]
            living = chunk.living
            late += [request for request, _ in living if request.event.deadline <= now]
            if late:
                return None
            self.retries.popleft()
            if living:
                chunk.keep(living)
                return chunk
        shares = self.shares
        requests: list[Request] = []
        parts: list[Part] = []
        bill: Bill = {}
        party = None
        rate = 0.0
        room = 0
        while shares.waiting and len(parts) < MOST_PARTS:
            if party is None or not party.queue:
                party = shares.next()
                bill.setdefault(party, 0)
            request = next(iter(party.queue))
            event = request.event
            if event.deadline <= now:
                if not parts:
                    late.append(request)
                break
            handed = request.handed
            count = request.arrived - handed
            if not parts:
                work, merge = request.work, event.merge
                rate = work.per_unit
                room = min(self._target_units(work), event.limit - handed % event.limit)
                count = min(count, room)
            elif event.merge != merge or handed or count > room:
                break
            if event.period > 1:
                count = limit_run(handed, count, event.period)
            requests.append(request)
            parts.append(Part(event.request, handed, count))
            request.handed = handed + count
            work.backlog -= count
            if request.handed == request.arrived:
                shares.remove(party, request)
            bill[party] += count
            room -= count
            if merge is None or room <= 0 or count < event.units:  # only whole requests share a chunk
                break
        if not parts:
            return None
        for party, units in bill.items():
            shares.charge(party, rate * units)
        return Chunk(requests, parts, bill, rate)

    def _target_units(self, work: Work) -> int:
        """Units that the next chunk should have: enough for balance at the end, enough to amortize the post."""
        if not work.per_unit:
            return FIRST_UNITS
        longest = max(self._chunk_seconds, self.n_workers * CHUNK_COST / DISPATCHER_LOAD)
        waiting = work.backlog * work.per_unit
        # To hand out what waits in chunks of s takes waiting / s * CHUNK_COST, to compute the last of them s: the
        # sum is least here. Shorter chunks would only have workers wait for the dispatcher.
        shortest = max(SHORTEST_CHUNK, math.sqrt(waiting * CHUNK_COST))
        seconds = min(max(waiting / (2 * self.n_workers), shortest), longest)
        return int(seconds / work.per_unit) or 1
