"""What waits for the same workers, and the chunks that are made of it.

Part of the brain: no clock, no thread, no communicator.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
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
#: Runs that a part is cut into at once. One of more blocks is cut twice, since a list of them all would be too long.
MOST_RUNS = 4096

#: Kinds of work whose cost is remembered in a queue where nothing of them waits.
MOST_WORKS = 64

#: What waits: a request, or one of its stretches.
Item: TypeAlias = "Request | Stretch"
#: Units by client.
Bill: TypeAlias = "dict[Party[Item], int]"


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
    """An accepted request, until its final reply; without lanes, what waits is the request itself."""

    __slots__ = (
        "answered", "arrived", "chunks", "event", "handed", "is_over", "party", "queue", "stretches", "work",
    )  # fmt: skip
    #: See `Stretch`.
    whole: None = None

    def __init__(self, event: RequestArrived, party: Party[Item], queue: Queue, work: Work) -> None:
        self.event = event
        #: Its client's in the queue of what any worker may compute.
        self.party = party
        self.queue = queue
        self.work = work
        #: Units that are here, that workers were given, and whose results are in.
        self.arrived = 0
        self.handed = 0
        self.answered = 0
        #: Those that workers have.
        self.chunks: dict[Chunk, None] = {}
        self.is_over = False
        #: One for each of its lanes; these know what workers were given.
        self.stretches: tuple[Stretch, ...] = ()

    @property
    def is_begun(self) -> bool:
        """Whether a worker was given any of it."""
        return self.handed > 0 or any(stretch.handed > stretch.first for stretch in self.stretches)

    @property
    def items(self) -> tuple[Item, ...]:
        """What of it waits, or may come to wait, in queues."""
        return self.stretches or (self,)

    def add(self, units: int) -> None:
        """``units`` more of it are here."""
        if not self.stretches:
            if units:
                self.queue.add(self, units)
            return
        self.arrived += units
        for stretch in self.stretches:
            here = min(self.arrived, stretch.end)
            if here > stretch.arrived:
                queue = stretch.queue
                if not queue.shares.waiting:
                    queue.lead = max(queue.lead, 0.0)  # who was away saves up no claim
                queue.add(stretch, here - stretch.arrived)

    def drop(self) -> None:
        """Nothing of it waits any more."""
        for item in self.items:
            item.queue.drop(item)


class Stretch:
    """A lane: the units [first, end) of the request ``whole``, counted as those of the request are."""

    __slots__ = ("arrived", "end", "event", "first", "handed", "party", "queue", "whole", "work")

    def __init__(self, whole: Request, first: int, count: int, queue: Queue, party: Party[Item], work: Work) -> None:
        self.whole = whole
        self.event = whole.event
        self.first = self.handed = self.arrived = first
        self.end = first + count
        self.queue = queue
        self.party = party
        self.work = work


class Chunk:
    """Some units of one or several requests, for one worker."""

    __slots__ = (
        "bill", "deaths", "id", "is_block", "parts", "queue", "rate", "requests", "tilt", "units", "work", "worker",
    )  # fmt: skip

    def __init__(
        self, queue: Queue, work: Work, requests: list[Request], parts: list[Part], bill: Bill, rate: float
    ) -> None:
        #: Set whenever it is handed out, so that a result names the one attempt that it belongs to.
        self.id = 0
        #: Where it waited.
        self.queue = queue
        self.work = work
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
        #: What a second of it counts in `Queue.lead` of its worker's place.
        self.tilt = 0.0

    @classmethod
    def of_one(cls, request: Request, part: Part, rate: float) -> Chunk:
        """Some units of one request, for any worker."""
        return cls(request.queue, request.work, [request], [part], {request.party: part.count}, rate)

    @property
    def living(self) -> list[tuple[Request, Part]]:
        """Those of its parts that somebody still waits for."""
        return [(r, p) for r, p in zip(self.requests, self.parts, strict=True) if not r.is_over]

    def free(self) -> None:
        """Any worker may compute it from now on: it is charged in their queue, by the time that it takes."""
        self.tilt = 0.0
        queue = self.requests[0].queue
        if self.queue is not queue:
            for party, units in self.bill.items():
                self.queue.shares.charge(party, -self.rate * units)
            self.queue, self.rate = queue, 0.0
            self.keep(self.living)

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

    __slots__ = ("chunks", "id", "model", "place", "since")

    def __init__(self, id_: int, model: int, place: Queue) -> None:
        self.id = id_
        self.model = model
        #: What waits for the workers of its place.
        self.place = place
        self.chunks: list[Chunk] = []
        #: When it began with the first of its chunks.
        self.since = math.inf


class Queue:
    """What may be given to the same workers, and who of these has room.

    A model has one for all of its workers, ``common``, and one for those of each place.
    """

    __slots__ = ("_chunk_seconds", "common", "half", "idle", "lead", "n_workers", "shares", "works")

    def __init__(self, chunk_seconds: float, common: Queue | None = None) -> None:
        self._chunk_seconds = chunk_seconds
        self.common = common or self
        self.n_workers = 0
        # Workers with no chunk, and with one; the last to come is the first to go, since it is still awake.
        self.idle: dict[Worker, None] = {}
        self.half: dict[Worker, None] = {}
        self.shares: Shares[Item] = Shares()
        self.works: dict[Hashable, Work] = {}
        #: Seconds by which this place has served its own queue more than the common one, for each user that waits.
        self.lead = 0.0

    @property
    def backlog_seconds(self) -> float:
        """What waits, as seconds of one worker, as far as costs are known."""
        return sum([work.backlog * work.per_unit for work in self.works.values()])

    def find_work(self, kind: Hashable, like: Work | None = None) -> Work:
        """This kind of work in this queue; until its cost here is known, it costs what it does elsewhere."""
        work = self.works.get(kind)
        if work is None:
            for old in [old for old, w in self.works.items() if not w.backlog][: 1 - MOST_WORKS]:
                del self.works[old]
            work = self.works[kind] = Work()
        if like is not None and not work.per_unit:
            work.seconds, work.units, work.per_unit = like.seconds, like.units, like.per_unit
        return work

    def add(self, item: Item, units: int) -> None:
        """``units`` more of this item are here."""
        if item.arrived == item.handed:
            self.shares.push(item.party, item)
        item.arrived += units
        item.work.backlog += units

    def drop(self, item: Item) -> None:
        """Nothing of this item waits any more."""
        waiting = item.arrived - item.handed
        if waiting:
            item.work.backlog -= waiting
            self.shares.remove(item.party, item)

    def choose(self) -> Queue:
        """Whose turn it is with the workers of this place: its own queue's, or the common one's."""
        if self.shares.waiting and (self.lead <= 0.0 or not self.common.shares.waiting):
            return self
        return self.common

    def note_given(self, chunk: Chunk) -> None:
        """A worker of this place was given a chunk, while there is a choice of queues.

        Each queue has as many turns as it has users who wait; an absent one saves up no claim (`shares`).
        """
        own, common = self.shares, self.common.shares
        if chunk.queue is self:
            if not common.waiting:
                self.lead = min(self.lead, 0.0)
            chunk.tilt = 1 / max(1, own.n_users)
        else:
            chunk.tilt = -1 / max(1, common.n_users)
        self.lead += chunk.tilt * max(chunk.rate * chunk.units, CHUNK_COST)

    def is_brief(self) -> bool:
        """Whether the next chunk should queue behind a running one, to spare its worker the wait for the post.

        Not if it is long and might soon run elsewhere.
        """
        if not self.shares.waiting:
            return False
        work = next(iter(self.shares.next().queue)).work
        if not work.per_unit:
            return False
        seconds = self._target_units(work) * work.per_unit
        return seconds <= SHORT_CHUNK or self.backlog_seconds >= self.n_workers * seconds

    def next_chunk(self, now: float, late: list[Request]) -> Chunk | None:
        """The chunk whose turn it is, or None where that is void.

        It is void for requests past their deadline: these go to ``late``, and are not started.
        """
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
            item = next(iter(party.queue))
            event = item.event
            if event.deadline <= now:
                if not parts:
                    late.append(item if item.whole is None else item.whole)
                break
            handed = item.handed
            count = item.arrived - handed
            if not parts:
                work, merge = item.work, event.merge
                rate = work.per_unit
                room = min(self._target_units(work), event.limit - handed % event.limit)
                count = min(count, room)
            elif event.merge != merge or count < event.units or count > room:  # only whole requests share a chunk
                break
            if event.period > 1:
                count = limit_run(handed, count, event.period)
            requests.append(item if item.whole is None else item.whole)
            parts.append(Part(event.request, handed, count))
            item.handed = handed + count
            work.backlog -= count
            if item.handed == item.arrived:
                shares.remove(party, item)
            bill[party] += count
            room -= count
            if merge is None or room <= 0 or count < event.units:
                break
        if not parts:
            return None
        for party, units in bill.items():
            shares.charge(party, rate * units)
        return Chunk(self, work, requests, parts, bill, rate)

    def _target_units(self, work: Work) -> int:
        """Units that the next chunk should have: enough for balance at the end, enough to amortize the post."""
        if not work.per_unit:
            return FIRST_UNITS
        n_all = self.common.n_workers
        longest = max(self._chunk_seconds, n_all * CHUNK_COST / DISPATCHER_LOAD)
        waiting = work.backlog * work.per_unit
        # To hand out what waits, here and as much for each worker elsewhere, in chunks of s takes all of it / s *
        # CHUNK_COST, to compute the last of them s: the sum is least here. Shorter chunks would only have workers
        # wait for the dispatcher.
        shortest = max(SHORTEST_CHUNK, math.sqrt(waiting * n_all / self.n_workers * CHUNK_COST))
        seconds = min(max(waiting / (2 * self.n_workers), shortest), longest)
        return int(seconds / work.per_unit) or 1


def cut(part: Part, block: int, period: int) -> Iterator[Part]:
    """The runs of at most ``block`` units of a part, cut at multiples of ``block``; longer ones of a vast part."""
    request, first, count = part
    end = first + count
    step = block * -(-count // (block * MOST_RUNS))
    while first < end:
        count = limit_run(first, min(step - first % step, end - first), period)
        yield Part(request, first, count)
        first += count
