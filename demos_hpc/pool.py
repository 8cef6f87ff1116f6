"""The workers of one model, where they stand, and the queues that they serve.

Part of the brain: no clock, no thread, no communicator.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Iterable

from .events import Part, RequestArrived
from .queues import FIRST_UNITS, SHORTEST_CHUNK, Chunk, Item, Queue, Request, Stretch, Worker
from .shares import Party


class Client:
    """A client, with an account at each model that it calls."""

    __slots__ = ("accounts", "is_stalled", "requests", "user")

    def __init__(self, user: str) -> None:
        self.user = user
        #: Whether it leaves its answers untaken.
        self.is_stalled = False
        self.accounts: dict[int, Account] = {}
        self.requests: dict[int, Request] = {}


class Account:
    """A client at one model: its parties in the common queue, and in those of the places that it has work for."""

    __slots__ = ("_client", "parties", "party", "pool")

    def __init__(self, pool: Pool, client: Client) -> None:
        self.pool = pool
        self._client = client
        self.parties: dict[Queue, Party[Item]] = {}
        #: In the common queue.
        self.party = self.find_party(pool.common)

    def find_party(self, queue: Queue) -> Party[Item]:
        """Its party in this queue."""
        party = self.parties.get(queue)
        if party is None:
            party = self.parties[queue] = queue.shares.join(self._client.user)
            if self._client.is_stalled:
                queue.shares.suspend(party)
        return party

    def suspend(self) -> None:
        """Nothing of the client is served until `resume`."""
        for queue, party in self.parties.items():
            queue.shares.suspend(party)

    def resume(self) -> None:
        """The client is served again, as one that was away."""
        for queue, party in self.parties.items():
            queue.shares.resume(party)


class Pool:
    """The workers of one model and the requests that wait for them.

    A worker serves two queues: that of its place, and the common one of what may go anywhere. Until the first request
    with lanes comes there is only the common one to look after.
    """

    def __init__(self, chunk_seconds: float) -> None:
        self.common = Queue(chunk_seconds)
        #: Those of the places where workers stand, and whether there was ever anything for one of these.
        self.places: dict[Hashable, Queue] = {}
        self.is_split = False
        #: To be computed again, by any worker.
        self.retries: deque[Chunk] = deque()
        self._chunk_seconds = chunk_seconds

    @property
    def n_workers(self) -> int:
        return self.common.n_workers

    @property
    def backlog_seconds(self) -> float:
        """What waits, as seconds of one worker, as far as costs are known."""
        return sum([queue.backlog_seconds for queue in (self.common, *self.places.values())])

    # ---- workers --------------------------------------------------------------------------------------------

    def add(self, number: int, model: int, name: Hashable) -> Worker:
        """A worker at the place of this name."""
        place = self.places.get(name)
        if place is None:
            place = self.places[name] = Queue(self._chunk_seconds, self.common)
        worker = Worker(number, model, place)
        for queue in (self.common, place):
            queue.n_workers += 1
            queue.idle[worker] = None
        return worker

    def remove(self, worker: Worker) -> None:
        """The worker is gone; `close` its place if it was the last there."""
        for queue in (self.common, worker.place):
            queue.n_workers -= 1
            queue.idle.pop(worker, None)
            queue.half.pop(worker, None)

    def close(self, place: Queue, requests: Iterable[Request]) -> None:
        """No worker is left at this place: what of these requests waits for it may go anywhere."""
        self.places = {name: queue for name, queue in self.places.items() if queue is not place}
        for request in requests if place.works else ():
            for stretch in request.stretches:
                if stretch.queue is place:
                    waiting = stretch.arrived - stretch.handed
                    place.drop(stretch)
                    stretch.arrived = stretch.handed
                    stretch.queue, stretch.party = self.common, request.party
                    stretch.work = self.common.find_work(request.event.work, like=stretch.work)
                    if waiting:
                        self.common.add(stretch, waiting)

    def has_room(self, queue: Queue) -> bool:
        """Whether one of the workers that serve this queue should be given a chunk now."""
        if queue.idle:
            return True
        if not queue.half or self.retries:
            return False
        if not self.is_split:
            return queue.is_brief()
        if queue is self.common:
            # The next in turn. Unless its place has to wait for a worker without a chunk: else it would never get one.
            worker, _ = queue.half.popitem()
            queue.half[worker] = None
            return worker.place.choose() is queue and queue.is_brief()
        return queue.choose().is_brief()

    def give(self, chunk: Chunk, queue: Queue, now: float) -> Worker:
        """Gives the chunk to one of the workers that serve this queue, behind what that has already."""
        if queue.idle:
            worker, _ = queue.idle.popitem()
            queue.half[worker] = None
            worker.since = now
        else:
            worker, _ = queue.half.popitem()
        worker.chunks.append(chunk)
        chunk.worker = worker
        if self.is_split:
            self._enter(worker)
            if worker.place is chunk.queue or worker.place.shares.waiting:
                worker.place.note_given(chunk)
        return worker

    def release(self, worker: Worker, chunk: Chunk, now: float) -> None:
        """The worker is done with this chunk."""
        worker.chunks.remove(chunk)
        chunk.worker = None
        if worker.chunks:
            self.common.half[worker] = None
            worker.since = now
        else:
            self.common.half.pop(worker, None)
            self.common.idle[worker] = None
            worker.since = math.inf
        if self.is_split:
            self._enter(worker)

    def _enter(self, worker: Worker) -> None:
        """Lets both of its queues know what room the worker has."""
        n_chunks = len(worker.chunks)
        for queue in (self.common, worker.place):
            queue.idle.pop(worker, None)
            queue.half.pop(worker, None)
            if n_chunks == 0:
                queue.idle[worker] = None
            elif n_chunks == 1:
                queue.half[worker] = None

    def settle(self, worker: Worker, chunk: Chunk, seconds: float) -> None:
        """A chunk took this worker ``seconds``: corrects what its clients were charged for it."""
        excess = seconds / chunk.units - chunk.rate
        shares = chunk.queue.shares
        for party, units in chunk.bill.items():
            shares.charge(party, excess * units)
        if chunk.tilt:
            worker.place.lead += chunk.tilt * excess * chunk.units

    # ---- requests -------------------------------------------------------------------------------------------

    def accept(self, event: RequestArrived, account: Account) -> Request:
        """A request that this pool's workers are to answer."""
        common = self.common
        return Request(event, account.party, common, common.works.get(event.work) or common.find_work(event.work))

    def lay_out(self, request: Request, account: Account) -> None:
        """Gives each lane of the request its place."""
        if not self.is_split:
            self._split()
        event, stretches = request.event, []
        for lane in event.lanes:
            queue = self.places.get(lane.place, self.common)
            party, work = account.find_party(queue), queue.find_work(event.work, like=request.work)
            stretches.append(Stretch(request, lane.first, lane.count, queue, party, work))
        request.stretches = tuple(stretches)

    def _split(self) -> None:
        """Each place looks after its workers from now on."""
        self.is_split = True
        for place in self.places.values():
            place.idle = {worker: None for worker in self.common.idle if worker.place is place}
            place.half = {worker: None for worker in self.common.half if worker.place is place}

    def take_whole(self, request: Request) -> Chunk | None:
        """A request without lanes as one chunk; None where it had better wait or be shared out."""
        event, work, common = request.event, request.work, self.common
        units, shares = event.units, common.shares
        if not common.idle or shares.waiting or self.retries or event.available != units or units > event.limit:
            return None
        if request.party.is_suspended:
            return None
        if units * work.per_unit > SHORTEST_CHUNK if work.per_unit else units > FIRST_UNITS:
            return None
        request.arrived = request.handed = units
        shares.skip(request.party)
        shares.charge(request.party, units * work.per_unit)
        return Chunk(common, work, [request], [Part(event.request, 0, units)], {request.party: units}, work.per_unit)

    def retry(self, chunk: Chunk) -> None:
        """The chunk is to be computed again."""
        chunk.free()
        self.retries.append(chunk)

    def next_chunk(self, queue: Queue, now: float, late: list[Request]) -> Chunk | None:
        """The chunk whose turn it is with the workers that serve this queue, or None where that is void.

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
        return (queue.choose() if self.is_split else queue).next_chunk(now, late)
