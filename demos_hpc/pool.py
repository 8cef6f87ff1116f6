"""The workers of one model, what waits for them, and who gets how much of it next.

Part of the brain: no clock, no thread, no communicator.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Iterator

from .blocks import limit_run
from .events import Part, RequestArrived
from .shares import Party, Shares

#: Units in the first chunk of work whose cost is not known yet.
FIRST_UNITS = 4
#: No chunk is made shorter than this for the sake of balance, seconds.
SHORTEST_CHUNK = 1e-3
#: A worker gets a second chunk ahead of time if it is this short, seconds, or if there is plenty of work.
SHORT_CHUNK = 5e-3
#: Ten times what one chunk costs the dispatcher, seconds: chunks grow with the number of workers, so that the
#: dispatcher does not become the bottleneck.
DISPATCH_SECONDS = 4e-4
#: Requests in one chunk.
MOST_PARTS = 1024


class Cost:
    """Seconds per unit of one kind of work, the recent chunks counting most."""

    __slots__ = ("seconds", "units")

    def __init__(self) -> None:
        self.seconds = self.units = 0.0

    def learn(self, seconds: float, units: int) -> None:
        self.seconds = 0.5 * self.seconds + max(seconds, 1e-9)
        self.units = 0.5 * self.units + units

    @property
    def per_unit(self) -> float:
        return self.seconds / self.units


class Request:
    """An accepted request, until its final reply."""

    __slots__ = ("answered", "arrived", "chunks", "event", "handed", "is_over", "party", "pool", "waits")

    def __init__(self, event: RequestArrived, party: Party[Request], pool: Pool) -> None:
        self.event = event
        self.party = party
        self.pool = pool
        #: Units that are here, that workers were given, and whose results are in.
        self.arrived = 0
        self.handed = 0
        self.answered = 0
        self.chunks: dict[Chunk, None] = {}
        self.waits = False
        self.is_over = False


class Chunk:
    """Some units of one or several requests, for one worker."""

    __slots__ = ("charged", "deaths", "id", "is_block", "parts", "pool", "requests", "work", "worker")

    def __init__(self, requests: list[Request], parts: list[Part], *, is_block: bool = False) -> None:
        #: Set whenever it is handed out, so that a result names the one attempt that it belongs to.
        self.id = 0
        self.pool = requests[0].pool
        self.work = requests[0].event.work
        self.requests = requests
        self.parts = parts
        self.worker: Worker | None = None
        self.deaths = 0
        self.is_block = is_block
        self.charged = 0.0

    @property
    def units(self) -> int:
        return sum(part.count for part in self.parts)

    @property
    def living(self) -> Iterator[tuple[Request, Part]]:
        """Those of its parts that somebody still waits for."""
        return ((r, p) for r, p in zip(self.requests, self.parts, strict=True) if not r.is_over)


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
        self._costs: dict[Hashable, Cost] = {}
        self._backlog: dict[Hashable, int] = {}

    # ---- workers --------------------------------------------------------------------------------------------

    def add(self, worker: Worker) -> None:
        self.n_workers += 1
        self._idle[worker] = None

    def remove(self, worker: Worker) -> None:
        self.n_workers -= 1
        self._idle.pop(worker, None)
        self._half.pop(worker, None)

    def take_worker(self) -> Worker | None:
        """A worker for the next chunk, or None where it had better wait."""
        if self._idle:
            return next(reversed(self._idle))
        if self._half and self._may_queue():
            return next(reversed(self._half))
        return None

    def give(self, worker: Worker, chunk: Chunk, now: float) -> None:
        """The worker has this chunk from now on, behind those it has already."""
        self._idle.pop(worker, None)
        self._half.pop(worker, None)
        if worker.chunks:
            worker.chunks.append(chunk)
        else:
            worker.chunks.append(chunk)
            worker.since = now
            self._half[worker] = None
        chunk.worker = worker

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
        if self.retries or not self.shares:
            return False
        work = self.shares.next().queue[0].event.work
        cost = self._costs.get(work)
        if cost is None:
            return False
        seconds = self._target_units(work) * cost.per_unit
        return seconds <= SHORT_CHUNK or self.backlog_seconds >= self.n_workers * seconds

    # ---- requests -------------------------------------------------------------------------------------------

    @property
    def backlog_seconds(self) -> float:
        """What waits, as seconds of one worker, as far as costs are known."""
        costs = self._costs
        return sum(units * costs[work].per_unit for work, units in self._backlog.items() if work in costs)

    def wait(self, request: Request, units: int) -> None:
        """``units`` more of this request are here and wait for a worker."""
        if not units:
            return
        work = request.event.work
        request.arrived += units
        self._backlog[work] = self._backlog.get(work, 0) + units
        if not request.waits:
            request.waits = True
            self.shares.push(request.party, request)

    def drop(self, request: Request) -> None:
        """Nothing of this request waits any more; its place in the queue is found empty later."""
        self._backlog[request.event.work] -= request.arrived - request.handed

    def learn(self, chunk: Chunk, seconds: float) -> None:
        """A chunk took its worker ``seconds``: for the estimates, and for the clients' accounts."""
        units = chunk.units
        self._costs.setdefault(chunk.work, Cost()).learn(seconds, units)
        excess = (seconds - chunk.charged) / units
        for request, part in zip(chunk.requests, chunk.parts, strict=True):
            Shares.charge(request.party, excess * part.count)

    def next_chunk(self, now: float, expired: list[Request]) -> Chunk | None:
        """The chunk whose turn it is, or None where all that waited was void.

        Requests past their deadline go to ``expired`` and are not started.
        """
        while self.retries:
            chunk = self.retries.popleft()
            living = list(chunk.living)
            if living:
                chunk.requests, chunk.parts = [list(column) for column in zip(*living, strict=True)]  # type: ignore[assignment]
                return chunk
        requests: list[Request] = []
        parts: list[Part] = []
        room = 0
        while self.shares and len(parts) < MOST_PARTS:
            party = self.shares.next()
            request = party.queue[0]
            event = request.event
            if request.is_over or event.deadline <= now:
                self.shares.pop(party)
                if not request.is_over:
                    expired.append(request)
                continue
            waiting = request.arrived - request.handed
            if not parts:
                room = min(self._target_units(event.work), event.limit - request.handed % event.limit)
            elif event.merge != requests[0].event.merge or waiting > room:
                break
            count = min(room, waiting)
            if event.period > 1:
                count = limit_run(request.handed, count, event.period)
            requests.append(request)
            parts.append(self._hand_out(request, count))
            room -= count
            if event.merge is None or room <= 0:
                break
        if not parts:
            return None
        return self._charged(Chunk(requests, parts))

    def _hand_out(self, request: Request, count: int) -> Part:
        part = Part(request.event.request, request.handed, count)
        request.handed += count
        self._backlog[request.event.work] -= count
        if request.handed == request.arrived:
            request.waits = False
            self.shares.pop(request.party)
        return part

    def _charged(self, chunk: Chunk) -> Chunk:
        """Charges the clients what the chunk will probably cost; `learn` corrects it."""
        cost = self._costs.get(chunk.work)
        if cost is not None:
            per_unit = cost.per_unit
            for request, part in zip(chunk.requests, chunk.parts, strict=True):
                Shares.charge(request.party, per_unit * part.count)
            chunk.charged = per_unit * chunk.units
        return chunk

    def _target_units(self, work: Hashable) -> int:
        """Units that the next chunk should have: enough for balance at the end, enough to amortize the post."""
        cost = self._costs.get(work)
        if cost is None:
            return FIRST_UNITS
        longest = max(self._chunk_seconds, self.n_workers * DISPATCH_SECONDS)
        seconds = self._backlog[work] * cost.per_unit / (2 * self.n_workers)
        return max(1, int(min(max(seconds, SHORTEST_CHUNK), longest) / cost.per_unit))
