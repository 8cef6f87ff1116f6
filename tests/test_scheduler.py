"""The scheduler, rule by rule; `ledger.Ledger` checks all the others at every step."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from ledger import Ledger

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
from demos_hpc.queues import MOST_RUNS, MOST_WORKS


def ask(request: int, units: int = 1, **changes: Any) -> RequestArrived:
    """A request of client 0 for model 0, all of it here, without a deadline."""
    event = RequestArrived(request, 0, 0, "density", units, units, math.inf)
    return event._replace(**changes)


def chunks_of(actions: list[Any]) -> list[SendChunk]:
    return [action for action in actions if isinstance(action, SendChunk)]


def one(actions: list[Any], kind: type) -> Any:
    found = [action for action in actions if isinstance(action, kind)]
    assert len(found) == 1, actions
    return found[0]


def serve(n_workers: int = 1, places: Sequence[str] = (), **limits: Any) -> Ledger:
    """A server of model 0 with client 0 and workers 0, 1, ..., which stand at one place or at those given."""
    ledger = Ledger(**limits)
    ledger.tell(ClientJoined(0, "ada"))
    for worker, place in enumerate(places or [None] * n_workers):
        ledger.tell(WorkerJoined(worker, 0, place))
    return ledger


def lay(**counts: int) -> dict[str, Any]:
    """What `ask` takes for a request of lanes with so many units at each place."""
    ends = list(itertools.accumulate(counts.values()))
    lanes = tuple(Lane(place, end - n, n) for (place, n), end in zip(counts.items(), ends, strict=True))
    return {"units": ends[-1], "lanes": lanes}


def teach(ledger: Ledger, per_unit: float) -> None:
    """Lets the scheduler learn what a unit of client 0's work costs."""
    ledger.tell(ask(10**9))
    [chunk] = ledger.chunks.values()
    ledger.tell(ResultArrived(chunk.worker, chunk.chunk, Status.OK, per_unit))


def finish(ledger: Ledger, per_unit: float = 1e-3) -> None:
    """Returns every chunk, first to last, until nothing is left to do."""
    while ledger.chunks:
        chunk = next(iter(ledger.chunks.values()))
        seconds = per_unit * sum(part.count for part in chunk.parts)
        ledger.tell(ResultArrived(chunk.worker, chunk.chunk, Status.OK, seconds))
    ledger.check_empty()


class Farm:
    """A ledger whose workers compute in virtual time; clients' seconds are counted apart from the scheduler's."""

    def __init__(self, users: list[str], n_workers: int, places: Sequence[str | None] = (None,)) -> None:
        self.ledger = Ledger()
        self.served: Counter[int] = Counter()
        self.answered_at: dict[int, float] = {}
        self._cost: Callable[[RequestArrived], float]
        self._due: list[tuple[float, int, SendChunk, float]] = []
        self._events: dict[int, RequestArrived] = {}
        self._free_at = dict.fromkeys(range(n_workers), 0.0)
        for worker in range(n_workers):
            self.tell(WorkerJoined(worker, 0, places[worker % len(places)]))
        for client, user in enumerate(users):
            self.tell(ClientJoined(client, user))

    def tell(self, event: Any) -> None:
        if isinstance(event, RequestArrived):
            self._events[event.request] = event
        for action in self.ledger.tell(event):
            if isinstance(action, SendChunk):
                # A unit of work "fail 0.3" takes 0.3 s and then fails.
                seconds = sum(
                    part.count * float(str(self._events[part.request].work).split()[-1]) for part in action.parts
                )
                begin = max(self.ledger.now, self._free_at[action.worker])
                self._free_at[action.worker] = begin + seconds
                heapq.heappush(self._due, (begin + seconds, action.chunk, action, seconds))
            elif isinstance(action, Forget):
                self.answered_at[action.request] = self.ledger.now

    def run(self, until: float) -> None:
        """Lets the time pass."""
        while self._due and self._due[0][0] <= until:
            self.ledger.now, _, chunk, seconds = heapq.heappop(self._due)
            fails = False
            for part in chunk.parts:
                event = self._events[part.request]
                self.served[event.client] += part.count * float(str(event.work).split()[-1])
                fails |= str(event.work).startswith("fail")
            status = Status.MODEL_FAILED if fails else Status.OK
            self.tell(ResultArrived(chunk.worker, chunk.chunk, status, seconds))
        self.ledger.now = until

    def served_in(self, seconds: float) -> list[float]:
        """Seconds that each client gets from now on."""
        before = self.served.copy()
        self.run(self.ledger.now + seconds)
        return [self.served[client] - before[client] for client in self.ledger.users]


# ---- requests and replies -------------------------------------------------------------------------------------


def test_request_is_answered_once_and_forgotten() -> None:
    ledger = serve()
    chunk = one(ledger.tell(ask(7, 3)), SendChunk)
    assert chunk.parts == [Part(7, 0, 3)]
    actions = ledger.tell(ResultArrived(0, chunk.chunk, Status.OK, 1e-3))
    assert actions == [SendPart(chunk.chunk, 0, Part(7, 0, 3), final=True), Forget(7)]
    ledger.check_empty()


def test_large_request_is_answered_in_parts() -> None:
    ledger = serve(n_workers=3)
    ledger.tell(ask(1, 1000))
    finish(ledger)
    assert ledger.ends[1] == Status.OK
    assert len(ledger.past) > 10


def test_streamed_request_is_computed_as_it_comes() -> None:
    ledger = serve()
    assert ledger.tell(ask(1, 10, available=0)) == []
    assert one(ledger.tell(UnitsArrived(1, 2)), SendChunk).parts == [Part(1, 0, 2)]
    finish_one(ledger)
    assert chunks_of(ledger.tell(UnitsArrived(1, 8)))[0].parts[0].first == 2
    finish(ledger)


def finish_one(ledger: Ledger, seconds: float = 1e-3, status: Status = Status.OK) -> list[Any]:
    """Returns the oldest chunk."""
    chunk = next(iter(ledger.chunks.values()))
    return ledger.tell(ResultArrived(chunk.worker, chunk.chunk, status, seconds))


def test_units_of_a_forgotten_request_are_ignored() -> None:
    ledger = serve(n_workers=0)
    ledger.tell(ask(1, 10, available=1))
    ledger.tell(Cancelled(1))
    assert ledger.tell(UnitsArrived(1, 9)) == []
    ledger.check_empty()


@pytest.mark.parametrize("units", [0, -1])
def test_request_of_nothing_is_refused(units: int) -> None:
    ledger = serve()
    actions = ledger.scheduler.handle(ask(1, units), 0.0)
    assert [type(action) for action in actions] == [SendFailure, Forget]
    assert actions[0].status == Status.INVALID_INPUT
    assert ledger.scheduler.is_idle


def test_request_of_an_unknown_client_is_forgotten() -> None:
    ledger = serve()
    assert ledger.tell(ask(1, client=99)) == [Forget(1)]


def test_request_waits_for_the_first_worker_of_its_model() -> None:
    ledger = serve()
    assert ledger.tell(ask(1, model=5)) == []
    assert ledger.tell(WorkerJoined(8, 4)) == []
    assert one(ledger.tell(WorkerJoined(9, 5)), SendChunk).worker == 9
    finish(ledger)


def test_full_queue_is_busy_at_once_and_only_for_its_client() -> None:
    ledger = serve(n_workers=0, max_queued=2)
    ledger.tell(ClientJoined(1, "ada"))
    ledger.tell(ask(1))
    ledger.tell(ask(2, available=0))
    refusal, _ = ledger.tell(ask(3))
    assert refusal.status == Status.BUSY
    assert refusal.retry_after > 0
    ledger.tell(ask(4, client=1))
    assert 4 in ledger.calls
    ledger.tell(Cancelled(1))  # makes room at once, though no worker came
    ledger.tell(ask(5))
    assert 5 in ledger.calls


def test_retry_after_says_how_long_the_backlog_is() -> None:
    ledger = serve(max_queued=2)
    teach(ledger, 0.5)
    ledger.tell(ask(1, 100))
    ledger.tell(ask(2, 20))
    refusal, _ = ledger.tell(ask(3))
    assert 45 < refusal.retry_after <= 60


def test_cancelled_request_leaves_queue_and_worker() -> None:
    ledger = serve()
    teach(ledger, 0.01)
    [chunk] = chunks_of(ledger.tell(ask(1, 50)))[:1]
    actions = ledger.tell(Cancelled(1))
    assert one(actions, SendFailure).status == Status.CANCELLED
    assert Revoke(0, chunk.chunk) in actions
    assert ledger.tell(Cancelled(1)) == []
    finish(ledger)


def test_revoked_worker_is_busy_until_it_answers() -> None:
    ledger = serve()
    chunk = one(ledger.tell(ask(1)), SendChunk)
    ledger.tell(Cancelled(1))
    assert ledger.tell(ask(2)) == []
    actions = ledger.tell(ResultArrived(0, chunk.chunk, Status.CANCELLED, 0.0))
    assert one(actions, SendChunk).parts == [Part(2, 0, 1)]
    finish(ledger)


def test_unasked_cancellation_by_a_worker_is_answered() -> None:
    ledger = serve()
    ledger.tell(ask(1))
    assert one(finish_one(ledger, status=Status.CANCELLED), SendFailure).request == 1
    ledger.check_empty()


def test_lost_client_is_cancelled_without_a_word() -> None:
    ledger = serve()
    ledger.tell(ClientJoined(1, "bea"))
    chunk = one(ledger.tell(ask(1)), SendChunk)
    ledger.tell(ask(2))
    ledger.tell(ask(3, client=1))
    actions = ledger.tell(ClientLost(0))
    assert not any(isinstance(action, SendFailure | SendPart) for action in actions)
    assert Revoke(0, chunk.chunk) in actions
    finish(ledger)
    assert ledger.ends == {1: None, 2: None, 3: Status.OK}
    assert ledger.tell(ClientLost(0)) == []


def test_clients_that_come_and_go_leave_nothing_behind() -> None:
    ledger = serve(n_workers=0)
    for client in range(1, 200):
        ledger.tell(ClientJoined(client, "ada"))
        ledger.tell(ask(client, client=client))
        ledger.tell(ClientLost(client))
        ledger.check_empty()


# ---- results ---------------------------------------------------------------------------------------------------


def test_late_duplicate_and_foreign_results_are_dropped() -> None:
    ledger = serve(n_workers=2)
    first, second = chunks_of(ledger.tell(ask(1, 4))) + chunks_of(ledger.tell(ask(2, 4)))
    assert ledger.tell(ResultArrived(first.worker, second.chunk, Status.OK, 1e-3)) == []
    assert ledger.tell(ResultArrived(first.worker, 12345, Status.OK, 1e-3)) == []
    assert ledger.tell(ResultArrived(77, first.chunk, Status.OK, 1e-3)) == []
    ledger.tell(ResultArrived(first.worker, first.chunk, Status.OK, 1e-3))
    assert ledger.tell(ResultArrived(first.worker, first.chunk, Status.OK, 1e-3)) == []
    [again] = chunks_of(ledger.tell(WorkerLost(second.worker)))
    assert ledger.tell(ResultArrived(second.worker, second.chunk, Status.OK, 1e-3)) == []
    assert ledger.tell(ResultArrived(again.worker, second.chunk, Status.OK, 1e-3)) == []
    finish(ledger)
    assert ledger.ends == {1: Status.OK, 2: Status.OK}


def test_failure_of_one_part_fails_its_request() -> None:
    ledger = serve(n_workers=2)
    first, second = chunks_of(ledger.tell(ask(1, 8)))
    actions = ledger.tell(ResultArrived(second.worker, second.chunk, Status.MODEL_FAILED, 1e-3))
    assert actions == [
        SendFailure(1, Status.MODEL_FAILED, "", second.chunk, Part(1, 4, 4)),
        Forget(1),
        Revoke(first.worker, first.chunk),
    ] or set(map(type, actions)) == {SendFailure, Forget, Revoke}
    finish(ledger)


def merge_five() -> Ledger:
    """A ledger with requests 1 to 5 in one chunk."""
    ledger = serve()
    teach(ledger, 1e-5)
    ledger.tell(WorkerLost(0))
    for request in range(1, 6):
        ledger.tell(ask(request, merge="m"))
    ledger.tell(WorkerJoined(1, 0))
    [merged] = ledger.chunks.values()
    assert [part.request for part in merged.parts] == [1, 2, 3, 4, 5]
    return ledger


def test_failure_of_a_merged_chunk_harms_only_the_culprit() -> None:
    ledger = merge_five()
    finish_one(ledger, status=Status.MODEL_FAILED)
    assert not ledger.failures.keys() & set(range(1, 6))
    while ledger.chunks:
        [part] = next(iter(ledger.chunks.values())).parts
        finish_one(ledger, status=Status.MODEL_FAILED if part.request == 3 else Status.OK)
    assert {n: ledger.ends[n] for n in range(1, 6)} == {
        n: Status.MODEL_FAILED if n == 3 else Status.OK for n in range(1, 6)
    }
    ledger.check_empty()


def test_merged_chunk_is_revoked_once_nobody_waits_for_it() -> None:
    ledger = merge_five()
    [merged] = ledger.chunks
    for request in (5, 1, 2, 4):
        assert not any(isinstance(action, Revoke) for action in ledger.tell(Cancelled(request)))
    assert Revoke(1, merged) in ledger.tell(Cancelled(3))
    finish(ledger)


def test_unknown_status_is_an_internal_error() -> None:
    ledger = serve()
    chunk = one(ledger.tell(ask(1)), SendChunk)
    assert ledger.tell(ResultArrived(0, chunk.chunk, 4711, 1e-3))[0].status == Status.INTERNAL


def test_model_that_takes_no_time_at_all() -> None:
    ledger = serve()
    ledger.tell(ask(1, 10**6))
    finish(ledger, per_unit=0.0)


# ---- chunks ----------------------------------------------------------------------------------------------------


def test_chunks_take_the_wanted_time_and_get_shorter_at_the_end() -> None:
    ledger = serve(n_workers=2)
    teach(ledger, 1e-4)
    ledger.tell(ask(1, 10_000))
    finish(ledger, per_unit=1e-4)
    lengths = [chunk.parts[0].count for chunk in ledger.past.values()][1:]
    assert max(lengths) == pytest.approx(200, abs=2)  # 20 ms
    assert lengths[-2] <= 20
    assert min(lengths[:-1]) >= 9  # 1 ms


def test_chunks_grow_with_the_number_of_workers() -> None:
    ledger = serve(n_workers=200)
    teach(ledger, 1e-3)
    ledger.tell(ask(1, 100_000))
    assert max(chunk.parts[0].count for chunk in ledger.chunks.values()) == pytest.approx(80, abs=1)


def test_two_short_chunks_at_each_worker_but_one_long() -> None:
    for per_unit, chunks in ((1e-3, 2), (10.0, 1)):
        ledger = serve(n_workers=2)
        teach(ledger, per_unit)
        ledger.tell(ask(1, 2 * chunks))
        ledger.tell(ask(2, 1))
        assert len(ledger.chunks) == 2 * chunks


def test_small_requests_are_merged() -> None:
    ledger = serve()
    teach(ledger, 1e-5)
    ledger.tell(ask(0, 10**5))
    for request in range(1, 100):
        ledger.tell(ask(request, merge="m"))
    ledger.tell(Cancelled(0))
    for chunk in list(ledger.chunks.values()):
        ledger.tell(ResultArrived(0, chunk.chunk, Status.CANCELLED, 0.0))
    assert max(len(chunk.parts) for chunk in ledger.chunks.values()) > 20
    finish(ledger)


def test_the_rest_of_a_request_is_not_merged() -> None:
    ledger = serve()
    [first] = chunks_of(ledger.tell(ask(1, 40, merge="m")))
    assert first.parts[0].count < 40
    ledger.tell(ask(2, 40, merge="m"))
    [second] = chunks_of(ledger.tell(ResultArrived(0, first.chunk, Status.OK, 1e-5)))[:1]
    assert second.parts == [Part(1, first.parts[0].count, 40 - first.parts[0].count)]
    finish(ledger)


def test_other_keys_and_none_are_not_merged() -> None:
    ledger = serve()
    teach(ledger, 1e-5)
    ledger.tell(ask(0, 10**5))
    for request in range(1, 100):
        ledger.tell(ask(request, merge=[None, "a", "b"][request % 3]))
    finish(ledger, per_unit=1e-5)


def test_small_request_above_the_limit_is_cut() -> None:
    ledger = serve(n_workers=2)
    assert [chunk.parts for chunk in chunks_of(ledger.tell(ask(1, 3, limit=2)))] == [[Part(1, 0, 2)], [Part(1, 2, 1)]]
    finish(ledger)


@pytest.mark.parametrize("period", [1, 3, 7, 64])
@pytest.mark.parametrize("limit", [1, 5, 16, 2**63])
def test_chunks_are_rectangles_within_the_limit(period: int, limit: int) -> None:
    ledger = serve(n_workers=3)
    ledger.tell(ask(1, period * 11, period=period, limit=limit))
    finish(ledger)  # the ledger looks at each


# ---- deadlines -------------------------------------------------------------------------------------------------


def test_request_that_arrives_late_is_refused() -> None:
    ledger = serve()
    ledger.now = 5.0
    assert one(ledger.tell(ask(1, deadline=5.0)), SendFailure).status == Status.DEADLINE


def test_expired_request_is_not_started_even_without_a_tick() -> None:
    ledger = serve()
    ledger.tell(ask(1))
    ledger.tell(ask(2, deadline=1.0))
    ledger.tell(ask(3))
    ledger.now = 2.0
    actions = finish_one(ledger)
    assert one(actions, SendFailure).request == 2
    assert one(actions, SendChunk).parts == [Part(3, 0, 1)]
    finish(ledger)


def test_expired_request_is_not_started_again() -> None:
    ledger = serve(n_workers=2)
    chunk = one(ledger.tell(ask(1, deadline=1.0)), SendChunk)
    ledger.now = 2.0
    assert one(ledger.tell(WorkerLost(chunk.worker)), SendFailure).status == Status.DEADLINE
    ledger.check_empty()


def test_tick_ends_what_is_late_and_says_how_far_it_came() -> None:
    ledger = serve()
    ledger.tell(ask(1, 10, deadline=1.0))
    finish_one(ledger)
    assert ledger.scheduler.next_deadline == 1.0
    ledger.now = 1.0
    failure = one(ledger.tell(Tick()), SendFailure)
    assert failure.status == Status.DEADLINE
    assert "4 of 10" in failure.message
    finish(ledger)
    assert ledger.scheduler.next_deadline == math.inf


def test_deadlines_of_answered_requests_are_not_hoarded() -> None:
    ledger = serve()
    for request in range(5000):
        chunk = one(ledger.scheduler.handle(ask(request, deadline=1e9), 0.0), SendChunk)
        ledger.scheduler.handle(ResultArrived(0, chunk.chunk, Status.OK, 1.0), 0.0)
    assert len(ledger.scheduler._deadlines) < 1100


def test_worker_in_a_long_call_is_busy_not_dead() -> None:
    ledger = serve()
    ledger.tell(ask(1))
    ledger.now = 3600.0
    assert ledger.tell(Tick()) == []
    finish(ledger)


def test_worker_past_its_time_is_evicted_once() -> None:
    ledger = serve(n_workers=2, chunk_timeout=10.0)
    chunk = one(ledger.tell(ask(1)), SendChunk)
    for _ in range(3):  # a look or two may come early
        ledger.now = ledger.scheduler.next_deadline
        if actions := ledger.tell(Tick()):
            break
    assert 10.0 <= ledger.now <= 10.2
    assert one(actions, Evict).worker == chunk.worker
    again = one(actions, SendChunk)
    assert again.worker != chunk.worker
    assert ledger.tell(Tick()) == []
    assert ledger.tell(WorkerLost(chunk.worker)) == []
    assert ledger.tell(ResultArrived(chunk.worker, chunk.chunk, Status.OK, 11.0)) == []
    finish(ledger)


def test_time_in_a_chunk_counts_from_its_own_start() -> None:
    ledger = serve(chunk_timeout=10.0)
    teach(ledger, 1e-4)
    ledger.tell(ask(1, 50))
    ledger.now = 9.0
    finish_one(ledger)  # the second chunk starts
    assert ledger.chunks
    ledger.now = 18.5
    assert ledger.tell(Tick()) == []
    assert ledger.scheduler.next_deadline >= 18.5
    ledger.now = 19.2
    assert one(ledger.tell(Tick()), Evict).worker == 0


# ---- deaths ----------------------------------------------------------------------------------------------------


class Ward:
    """Workers that die of poisonous units, each replaced by a new one."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.deaths = 0

    def run(self, is_poison: Callable[[Part], bool], per_unit: float = 1e-3) -> None:
        ledger = self.ledger
        while busy := [worker for worker, hand in ledger.hands.items() if hand]:
            worker = busy[0]
            chunk = ledger.chunks[ledger.hands[worker][0]]
            if any(is_poison(part) for part in chunk.parts):
                self.deaths += 1
                ledger.tell(WorkerLost(worker))
                ledger.tell(WorkerJoined(1000 + self.deaths, 0))
            else:
                seconds = per_unit * sum(part.count for part in chunk.parts)
                ledger.tell(ResultArrived(worker, chunk.chunk, Status.OK, seconds))


def has(unit: int, request: int = 1) -> Callable[[Part], bool]:
    return lambda part: part.request == request and part.first <= unit < part.first + part.count


def test_chunk_of_a_dead_worker_is_computed_elsewhere() -> None:
    ledger = serve(n_workers=2)
    chunk = one(ledger.tell(ask(1)), SendChunk)
    again = one(ledger.tell(WorkerLost(chunk.worker)), SendChunk)
    assert again.parts == chunk.parts
    assert again.chunk != chunk.chunk
    finish(ledger)


def test_a_worker_that_leaves_blames_nobody() -> None:
    ledger = serve(n_workers=2)
    chunk = one(ledger.tell(ask(1)), SendChunk)
    for worker in range(10, 20):
        [chunk] = [a for a in ledger.tell(WorkerLost(chunk.worker, has_left=True)) if isinstance(a, SendChunk)]
        ledger.tell(WorkerJoined(worker, 0))
    finish(ledger)
    assert ledger.ends[1] == Status.OK


@pytest.mark.parametrize(("unit", "block"), [(0, 1), (17, 1), (39, 1), (17, 4), (39, 16), (17, 100)])
def test_poison_is_found_and_named(unit: int, block: int) -> None:
    ledger = serve(n_workers=2)
    teach(ledger, 1e-3)
    ward = Ward(ledger)
    ledger.tell(ask(1, 40, block=block))
    ledger.tell(ask(2, 40))
    ward.run(has(unit))
    assert ward.deaths == 4
    assert ledger.ends[1] == Status.MODEL_CRASHED
    assert ledger.ends[2] == Status.OK
    part = ledger.failures[1].part
    assert part is not None
    assert has(unit)(part)
    assert part.first // block == (part.first + part.count - 1) // block
    ledger.check_empty()


def test_poison_in_a_merged_chunk_harms_only_the_culprit() -> None:
    ledger = serve()
    teach(ledger, 1e-5)
    ledger.tell(ask(0, 10**4))
    for request in range(1, 30):
        ledger.tell(ask(request, 2, merge="m"))
    Ward(ledger).run(has(1, request=20), per_unit=1e-5)
    assert {n for n, end in ledger.ends.items() if end != Status.OK} == {20}
    assert ledger.failures[20].status == Status.MODEL_CRASHED
    ledger.check_empty()


def test_random_deaths_do_not_condemn_the_innocent() -> None:
    ledger = serve(n_workers=4)
    ledger.tell(ask(1, 400))
    for n in range(100):  # every third chunk dies, whichever it is
        if not ledger.chunks:
            break
        worker = max(worker for worker, hand in ledger.hands.items() if hand)
        if n % 3 == 0:
            ledger.tell(WorkerLost(worker))
            ledger.tell(WorkerJoined(100 + n, 0))
        else:
            ledger.tell(ResultArrived(worker, ledger.hands[worker][0], Status.OK, 1e-2))
    finish(ledger)
    assert ledger.ends[1] == Status.OK


def test_chunk_that_only_waited_at_a_dead_worker_is_innocent() -> None:
    ledger = serve()
    teach(ledger, 1e-3)
    ledger.tell(ask(1, 1, work="killer"))
    ledger.tell(ask(2, 1))
    assert [ledger.chunks[n].parts for n in ledger.hands[0]] == [[Part(1, 0, 1)], [Part(2, 0, 1)]]
    ward = Ward(ledger)
    ward.run(has(0))
    assert ward.deaths == 4
    assert ledger.ends[1] == Status.MODEL_CRASHED
    assert ledger.ends[2] == Status.OK


def test_waiting_at_a_dead_worker_does_not_count() -> None:
    ledger = serve()
    teach(ledger, 1e-3)
    ledger.tell(ask(1, 40))
    first, second = (ledger.chunks[number] for number in ledger.hands[0])
    ledger.tell(WorkerLost(0))
    assert one(ledger.tell(WorkerJoined(1, 0)), SendChunk).parts == first.parts
    assert chunks_of(finish_one(ledger))[0].parts == second.parts
    ledger.tell(WorkerLost(1))  # the first death that it has seen at work: it is not cut
    assert chunks_of(ledger.tell(WorkerJoined(2, 0)))[0].parts == second.parts
    finish(ledger)


def test_dead_worker_is_not_told_anything() -> None:
    # Both chunks of the last to die are of one request, which is blamed: nothing is to be revoked there.
    ledger = serve()
    teach(ledger, 1e-4)
    ledger.tell(ask(1, 2000))
    Ward(ledger).run(has(0), per_unit=1e-4)
    assert ledger.failures[1].status == Status.MODEL_CRASHED
    assert len(ledger.hands) == 1
    ledger.check_empty()


def test_pieces_of_a_poisonous_chunk_are_rectangles() -> None:
    ledger = serve()
    teach(ledger, 1e-4)
    ledger.tell(ask(1, 60, period=3, block=2))
    Ward(ledger).run(has(31))
    assert ledger.failures[1].part == Part(1, 30, 2)


def test_cancelled_chunk_of_a_dead_worker_is_not_computed_again() -> None:
    ledger = serve()
    ledger.tell(ask(1))
    ledger.tell(Cancelled(1))
    ledger.tell(WorkerLost(0))
    assert ledger.tell(WorkerJoined(1, 0)) == []
    ledger.check_empty()


# ---- clients that take no answers ------------------------------------------------------------------------------


def test_nothing_more_is_computed_for_a_client_that_takes_nothing() -> None:
    ledger = serve(n_workers=2)
    ledger.tell(ClientJoined(1, "bea"))
    ledger.tell(ask(1, 1000))
    ledger.tell(ClientStalled(0))
    ledger.tell(ask(2))
    ledger.tell(ask(3, 10, available=4))
    ledger.tell(ask(4, 50, client=1))
    while ledger.chunks:  # what was begun is computed; what comes after it is another's
        for chunk in chunks_of(finish_one(ledger)):
            assert {part.request for part in chunk.parts} == {4}
    assert ledger.ends == {4: Status.OK}
    assert ledger.tell(UnitsArrived(3, 6)) == []
    assert ledger.tell(ClientStalled(0)) == []
    assert {part.request for chunk in chunks_of(ledger.tell(ClientResumed(0))) for part in chunk.parts} >= {1}
    finish(ledger)
    assert ledger.ends == dict.fromkeys(range(1, 5), Status.OK)


def test_a_client_stalls_at_all_models() -> None:
    ledger = serve()
    ledger.tell(WorkerJoined(1, 5))
    ledger.tell(ask(1))
    ledger.tell(ask(2, model=5))
    ledger.tell(ClientStalled(0))
    for request, model in ((3, 0), (4, 5), (5, 6)):  # the third for the first time
        assert ledger.tell(ask(request, model=model)) == []
    while ledger.chunks:
        assert chunks_of(finish_one(ledger)) == []
    assert ledger.tell(WorkerJoined(2, 6)) == []
    assert len(chunks_of(ledger.tell(ClientResumed(0)))) == 3
    finish(ledger)


def test_a_chunk_of_a_stalled_client_whose_worker_dies_is_computed_again() -> None:
    ledger = serve(n_workers=2)
    ledger.tell(ask(1, 100))
    first, second = ledger.chunks.values()
    ledger.tell(ClientStalled(0))
    assert chunks_of(finish_one(ledger)) == []
    [again] = chunks_of(ledger.tell(WorkerLost(second.worker)))
    assert (again.worker, again.parts) == (first.worker, second.parts)
    assert chunks_of(finish_one(ledger)) == []
    ledger.tell(ClientResumed(0))
    finish(ledger)
    assert ledger.ends == {1: Status.OK}


def test_merged_requests_of_a_stalled_client_are_tried_one_by_one() -> None:
    ledger = merge_five()
    ledger.tell(ClientStalled(0))
    ledger.tell(ask(6))
    finish_one(ledger, status=Status.MODEL_FAILED)
    while ledger.chunks:
        finish_one(ledger)
    assert set(ledger.calls) == {6}
    ledger.tell(ClientResumed(0))
    finish(ledger)


@pytest.mark.parametrize("ending", [Cancelled(1), ClientLost(0), Drain()], ids=repr)
def test_requests_of_a_stalled_client_end_as_others_do(ending: Any) -> None:
    ledger = serve(n_workers=0)
    ledger.tell(ask(1, 10, available=5))
    ledger.tell(ClientStalled(0))
    ledger.tell(ending)
    assert set(ledger.ends) == {1}
    ledger.tell(ClientResumed(0))
    ledger.check_empty()


def test_requests_of_a_stalled_client_expire() -> None:
    ledger = serve()
    ledger.tell(ClientStalled(0))
    ledger.tell(ask(1, deadline=1.0))
    ledger.now = ledger.scheduler.next_deadline
    assert one(ledger.tell(Tick()), SendFailure).status == Status.DEADLINE
    assert ledger.tell(ClientResumed(0)) == []
    ledger.check_empty()


def test_a_full_queue_of_a_stalled_client_is_busy() -> None:
    ledger = serve(max_queued=2)
    ledger.tell(ClientStalled(0))
    ledger.tell(ask(1))
    ledger.tell(ask(2))
    assert one(ledger.tell(ask(3)), SendFailure).status == Status.BUSY


def test_who_stalls_leaves_its_share_to_others_and_does_not_claim_it_afterwards() -> None:
    farm = Farm(["ada", "ada", "bea"], n_workers=2)
    for client in range(3):
        farm.tell(ask(client, 10**6, client=client, work="0.001"))
    farm.run(1.0)
    for stalled, shares in ((0, [0, 10, 10]), (2, [10, 10, 0]), (1, [10, 0, 10])):
        farm.tell(ClientStalled(stalled))
        assert farm.served_in(10.0) == pytest.approx(shares, abs=0.3)
        farm.tell(ClientResumed(stalled))
        for _ in range(5):
            assert farm.served_in(2.0) == pytest.approx([1, 1, 2], abs=0.2)


# ---- the end ---------------------------------------------------------------------------------------------------


def test_draining_finishes_what_runs_and_hands_the_rest_back() -> None:
    ledger = serve()
    ledger.tell(ask(1, 10))
    ledger.tell(ask(2, 10))
    ledger.tell(ask(3, 10, available=0))
    actions = ledger.tell(Drain())
    failures = [action for action in actions if isinstance(action, SendFailure)]
    assert {(f.request, f.status) for f in failures} == {(2, Status.DRAINING), (3, Status.DRAINING)}
    assert one(ledger.tell(ask(4)), SendFailure).status == Status.DRAINING
    finish(ledger)
    assert ledger.ends[1] == Status.OK
    assert "draining" in repr(ledger.scheduler)


# ---- fairness --------------------------------------------------------------------------------------------------


def test_users_share_seconds_not_requests() -> None:
    farm = Farm(["ada", "bea"], n_workers=3)
    farm.tell(ask(0, 10**6, client=0, work="0.001"))
    for request in range(1, 300):
        farm.tell(ask(request, 7, client=1, work="0.05"))
    ada, bea = farm.served_in(60.0)
    assert ada == pytest.approx(90, abs=2)
    assert bea == pytest.approx(90, abs=2)


def test_user_with_two_clients_gets_no_more() -> None:
    farm = Farm(["ada", "ada", "bea"], n_workers=4)
    for client in range(3):
        farm.tell(ask(client, 10**6, client=client, work=f"0.00{client + 1}"))
    first, second, bea = farm.served_in(100.0)
    assert bea == pytest.approx(200, abs=2)
    assert first == pytest.approx(100, abs=2)
    assert second == pytest.approx(100, abs=2)


@pytest.mark.parametrize("users", [["ada", "bea"], ["ada", "ada"]])
def test_newcomer_does_not_claim_the_past(users: list[str]) -> None:
    farm = Farm(users, n_workers=2)
    farm.tell(ask(0, 10**6, client=0, work="0.001"))
    farm.tell(ask(1, 1000, client=1, work="0.001"))
    farm.run(100.0)  # the second has been idle for about 99 seconds
    farm.tell(ask(2, 10**6, client=1, work="0.001"))
    for _ in range(10):
        old, new = farm.served_in(2.0)
        assert old == pytest.approx(2, abs=0.2)
        assert new == pytest.approx(2, abs=0.2)


def test_newcomer_is_not_behind_either() -> None:
    farm = Farm(["ada", "bea"], n_workers=2)
    farm.tell(ask(0, 10**6, client=0, work="0.001"))
    farm.run(100.0)
    farm.tell(ask(1, 10**6, client=1, work="0.001"))
    old, new = farm.served_in(2.0)
    assert new == pytest.approx(2, abs=0.2)
    assert old == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize("users", [["ada", "bea"], ["ada", "ada"]])
def test_newcomer_does_not_claim_a_past_of_small_calls(users: list[str]) -> None:
    farm = Farm(users, n_workers=1)
    for request in range(4000):  # one after the other, so that none ever waits
        farm.tell(ask(request, client=0, work="0.001"))
        farm.run(0.001 * (request + 1))
    for client in (1, 0):
        farm.tell(ask(20_000 + client, 10**6, client=client, work="0.001"))
    for share in farm.served_in(4.0):
        assert share == pytest.approx(2, abs=0.2)


def test_small_request_does_not_wait_for_a_large_one() -> None:
    farm = Farm(["ada", "bea"], n_workers=2)
    farm.tell(ask(0, 10**6, client=0, work="0.001"))
    for nth in range(1, 11):
        farm.run(10.0 * nth)
        farm.tell(ask(nth, 10, client=1, work="0.001"))
    farm.run(200.0)
    for nth in range(1, 11):
        assert farm.answered_at[nth] - 10.0 * nth < 0.1
    assert 0 not in farm.answered_at


def test_failures_are_paid_for() -> None:
    farm = Farm(["ada", "bea"], n_workers=1)
    for request in range(120):
        farm.tell(ask(2 * request, client=0, work="fail 1.0"))
        farm.tell(ask(2 * request + 1, client=1, work="1.0"))
    ada, bea = farm.served_in(100.0)
    assert ada == pytest.approx(50, abs=3)
    assert bea == pytest.approx(50, abs=3)


def test_wrong_estimate_is_given_back() -> None:
    # The first units are slow, as where a model compiles itself: the client must not pay for that estimate.
    ledger = serve(n_workers=20)
    ledger.tell(ClientJoined(1, "bea"))
    teach(ledger, 10.0)
    ledger.tell(ask(1, 400))
    finish_some(ledger, 200, per_unit=1e-3)
    ledger.tell(ask(2, 10_000))
    ledger.tell(ask(3, 10_000, client=1))
    served: Counter[int] = Counter()
    for _ in range(200):
        chunk = next(iter(ledger.chunks.values()))
        for part in chunk.parts:
            served[part.request] += part.count
        finish_one(ledger, 1e-3 * sum(part.count for part in chunk.parts))
    assert served[2] > 500
    assert served[3] > 500


def finish_some(ledger: Ledger, n: int, per_unit: float) -> None:
    for _ in range(n):
        if ledger.chunks:
            chunk = next(iter(ledger.chunks.values()))
            finish_one(ledger, per_unit * sum(part.count for part in chunk.parts))


# ---- lanes -----------------------------------------------------------------------------------------------------


def test_each_lane_is_computed_at_its_place() -> None:
    ledger = serve(places=["west", "east", "east"])
    ledger.tell(ask(1, **lay(west=40, east=60, north=10)))
    assert {chunk.worker for chunk in ledger.chunks.values()} == {0, 1, 2}
    finish(ledger)  # the ledger looks at each chunk
    at_west = [part.first < 40 for chunk in ledger.past.values() if chunk.worker == 0 for part in chunk.parts]
    assert sum(at_west) > 4
    assert ledger.ends[1] == Status.OK


def test_nobody_else_computes_what_has_a_place() -> None:
    ledger = serve(places=["west", "east"])
    ledger.tell(ask(1, **lay(west=100)))
    ledger.tell(ask(2, **lay(west=1)))
    assert {chunk.worker for chunk in ledger.chunks.values()} == {0}
    assert one(ledger.tell(ask(3)), SendChunk).worker == 1
    finish(ledger)
    assert {chunk.worker for chunk in ledger.past.values() if chunk.parts[0].request < 3} == {0}


def test_nobody_waits_behind_what_waits_for_another_place() -> None:
    ledger = serve(places=["west", "east"])
    for request in range(10):
        ledger.tell(ask(request, **lay(west=100)))
    ledger.tell(ask(10, **lay(east=8)))
    ledger.tell(ask(11))
    while ledger.hands[1]:
        finish_one_of(ledger, 1)
    assert ledger.ends == {10: Status.OK, 11: Status.OK}
    assert ledger.past.keys().isdisjoint(ledger.hands[0])
    finish(ledger)


def finish_one_of(ledger: Ledger, worker: int, seconds: float = 1e-3, status: Status = Status.OK) -> list[Any]:
    """Returns what this worker computes."""
    return ledger.tell(ResultArrived(worker, ledger.hands[worker][0], status, seconds))


def test_a_place_that_loses_its_last_worker_leaves_its_work_to_others() -> None:
    ledger = serve(places=["west", "west", "east"])
    ledger.tell(ask(1, **lay(west=100)))
    first, _ = ledger.chunks.values()
    again = one(ledger.tell(WorkerLost(first.worker)), SendChunk)  # what was begun may go anywhere
    assert (again.worker, again.parts) == (2, first.parts)
    assert chunks_of(finish_one_of(ledger, 2)) == []
    assert chunks_of(ledger.tell(WorkerLost(1 - first.worker)))
    ledger.tell(WorkerJoined(3, 0, "west"))
    finish(ledger)
    late = [chunk for chunk in ledger.past.values() if chunk.worker == 2 and chunk.parts[0].first < 100]
    assert sum(part.count for chunk in late for part in chunk.parts) > 20
    assert ledger.scheduler._pools[0].places.keys() == {"west", "east"}


def test_lanes_of_places_without_workers_wait_for_anybody() -> None:
    ledger = serve(n_workers=0)
    ledger.tell(ask(1, **lay(west=10, east=10)))
    ledger.tell(WorkerJoined(1, 0, "north"))
    finish(ledger)
    assert ledger.ends[1] == Status.OK


def test_lanes_are_computed_as_their_units_come() -> None:
    ledger = serve(places=["west", "east"])
    assert ledger.tell(ask(1, **lay(west=4, east=8), available=0)) == []
    assert one(ledger.tell(UnitsArrived(1, 3)), SendChunk).worker == 0
    both = chunks_of(ledger.tell(UnitsArrived(1, 3)))
    assert [(chunk.worker, chunk.parts) for chunk in both] == [(1, [Part(1, 4, 2)])]
    finish_one_of(ledger, 1)
    assert chunks_of(ledger.tell(UnitsArrived(1, 6)))[0].parts[0].first == 6
    ledger.tell(WorkerLost(1))
    finish(ledger)
    assert ledger.ends[1] == Status.OK


def test_units_that_come_once_the_place_is_gone_are_anybodys() -> None:
    ledger = serve(places=["west", "east"])
    ledger.tell(ask(1, **lay(west=8), available=0))
    ledger.tell(WorkerLost(0))
    assert one(ledger.tell(UnitsArrived(1, 8)), SendChunk).worker == 1
    finish(ledger)


@pytest.mark.parametrize(
    "lanes",
    [
        [("west", 0, 5), ("east", 6, 4)],
        [("west", 0, 5), ("east", 4, 6)],
        [("west", 0, 9)],
        [("west", 0, 11)],
        [("west", 0, 10), ("east", 10, 0)],
        [("west", 1, 9)],
    ],
)
def test_lanes_that_do_not_make_up_a_request_are_refused(lanes: list[tuple[str, int, int]]) -> None:
    ledger = serve(places=["west", "east"])
    event = ask(1, 10, lanes=tuple(Lane(*lane) for lane in lanes))
    failure, forget = ledger.scheduler.handle(event, 0.0)
    assert isinstance(failure, SendFailure)
    assert failure.status == Status.INTERNAL
    assert "10 units" in failure.message
    assert forget == Forget(1)
    assert ledger.scheduler.is_idle


def test_lanes_of_a_stalled_client_wait() -> None:
    ledger = serve(places=["west", "east"])
    ledger.tell(ask(1, **lay(west=50, east=50)))
    ledger.tell(ClientStalled(0))
    ledger.tell(ask(2, **lay(west=5, east=5)))
    while ledger.chunks:
        assert chunks_of(finish_one(ledger)) == []
    assert {chunk.worker for chunk in chunks_of(ledger.tell(ClientResumed(0)))} == {0, 1}
    finish(ledger)


@pytest.mark.parametrize("ending", [Cancelled(1), ClientLost(0), Tick()], ids=repr)
def test_requests_of_lanes_end_as_others_do(ending: Any) -> None:
    ledger = serve(places=["west", "east"])
    ledger.tell(ask(1, **lay(west=50, east=50, north=5), deadline=5.0))
    sent = set(ledger.chunks)
    ledger.now = 5.0
    actions = ledger.tell(ending)
    assert {action.chunk for action in actions if isinstance(action, Revoke)} == sent
    finish(ledger)
    assert set(ledger.ends) == {1}


def test_draining_finishes_requests_of_which_any_lane_was_begun() -> None:
    ledger = serve(places=["west", "east"])
    ledger.tell(ask(1, **lay(west=100)))
    ledger.tell(ask(2, **lay(west=50, east=50)))
    ledger.tell(ask(3, **lay(west=50)))
    ledger.tell(Drain())
    assert ledger.ends == {3: Status.DRAINING}
    finish(ledger)
    assert ledger.ends == {1: Status.OK, 2: Status.OK, 3: Status.DRAINING}


def test_expired_lanes_are_not_started() -> None:
    ledger = serve(places=["west", "east"])
    ledger.tell(ask(1, **lay(west=1)))
    ledger.tell(ask(2, **lay(west=5, north=5), deadline=1.0))
    ledger.tell(ask(3, **lay(west=1)))
    ledger.now = 2.0
    actions = finish_one_of(ledger, 0)
    assert one(actions, SendFailure).request == 2
    finish(ledger)


def test_requests_of_one_place_are_merged_but_not_with_a_lane_of_another() -> None:
    ledger = serve(places=["west", "west", "east"])
    teach(ledger, 1e-5)
    for request in range(1, 4):
        ledger.tell(ask(request, **lay(west=3), merge="m"))
    ledger.tell(ask(4, **lay(west=2, east=2), merge="m"))
    ledger.tell(ask(5, **lay(west=3), merge="m"))
    ledger.tell(WorkerLost(1))
    ledger.tell(WorkerLost(0))
    finish(ledger)
    assert set(ledger.ends.values()) == {Status.OK}
    # The same while nobody is free at that place.
    ledger = serve(places=["west", "east"])
    teach(ledger, 1e-5)
    ledger.tell(ask(0, **lay(west=10**5)))
    for request in (1, 2, 3):
        ledger.tell(ask(request, **lay(west=3), merge="m"))
    ledger.tell(ask(4, **lay(west=2, east=2), merge="m"))
    ledger.tell(ask(5, **lay(west=3), merge="m"))
    finish(ledger, per_unit=1e-5)
    merged = [[part.request for part in chunk.parts] for chunk in ledger.past.values() if len(chunk.parts) > 1]
    assert merged == [[1, 2, 3]]


def test_poison_in_a_lane_is_found_and_named() -> None:
    ledger = serve(places=["west", "east"])
    teach(ledger, 1e-3)
    ledger.tell(ask(1, **lay(west=40, east=40), block=4))
    ledger.tell(ask(2, **lay(west=40, east=40)))
    Ward(ledger).run(has(50))
    assert ledger.failures[1].part == Part(1, 48, 4)
    assert ledger.ends[2] == Status.OK
    ledger.check_empty()


def test_what_is_computed_again_elsewhere_is_charged_once() -> None:
    ledger = serve(places=["west", "east"])
    teach(ledger, 1e-3)
    pool = ledger.scheduler._pools[0]
    account = ledger.scheduler._clients[0].accounts[0]
    before = account.party.served
    ledger.tell(ask(1, **lay(west=1)))
    party = account.parties[pool.places["west"]]
    assert party.served == pytest.approx(1e-3)
    ledger.tell(WorkerLost(0))
    assert party.served == pytest.approx(0)
    finish(ledger, per_unit=0.5)
    assert account.party.served - before == pytest.approx(0.5)
    assert pool.places["east"].lead == 0
    ledger.check_empty()


def test_cost_that_is_known_elsewhere_is_known_at_a_place() -> None:
    ledger = serve(places=["west", "east"])
    teach(ledger, 1e-4)
    chunk = chunks_of(ledger.tell(ask(1, **lay(west=1000))))[0]
    assert chunk.parts[0].count > 50
    finish(ledger, 1e-4)
    # And the other way round, once the place is gone.
    ledger = serve(places=["west", "east"])
    ledger.tell(ask(1, **lay(west=2000)))
    finish_one_of(ledger, 0, 4e-4)
    ledger.tell(WorkerLost(0))
    finish_one_of(ledger, 1, 4e-4)  # what was begun comes first
    finish_one_of(ledger, 1, 4e-4)
    chunk = ledger.chunks[ledger.hands[1][0]]
    assert chunk.parts[0].count > 50
    finish(ledger, 1e-4)


def test_lanes_are_not_cut_smaller_than_all_of_them_are_worth() -> None:
    places = [f"host {n}" for n in range(100)]
    ledger = serve(places=places)
    teach(ledger, 1e-4)
    ledger.tell(ask(1, **lay(**dict.fromkeys(places, 20))))
    assert len(ledger.chunks) == 100
    assert all(chunk.parts[0].count == 20 for chunk in ledger.chunks.values())
    finish(ledger, 1e-4)


def test_kinds_of_work_are_not_hoarded() -> None:
    ledger = serve(places=["west", "east"])
    pool = ledger.scheduler._pools[0]
    ledger.tell(ask(0, work=0, **lay(west=1000)))
    for kind in range(1, 3 * MOST_WORKS):
        ledger.tell(ask(kind, work=kind, **lay(west=3, east=3)))
    assert len(pool.places["west"].works) == 3 * MOST_WORKS  # something of each waits
    finish(ledger)
    for kind in range(10 * MOST_WORKS, 13 * MOST_WORKS):
        ledger.tell(ask(kind, work=kind, **lay(west=3, east=3)))
        finish(ledger)
        assert len(pool.places["east"].works) == len(pool.common.works) == MOST_WORKS
        assert pool.places["east"].works[kind].per_unit


@pytest.mark.parametrize(("period", "limit"), [(1, 7), (3, 2**63), (8, 16), (50, 1000)])
def test_chunks_of_lanes_are_rectangles_within_the_limit(period: int, limit: int) -> None:
    ledger = serve(places=["west", "east", "west"])
    ledger.tell(ask(1, **lay(west=period * 7, east=period * 11, north=3), period=period, limit=limit))
    finish(ledger)


def test_vast_lanes() -> None:
    ledger = serve(places=["west", "east"])
    teach(ledger, 1e-12)
    ledger.tell(ask(1, **lay(west=2**40 + 5, east=2**41 + 3), period=2**20))
    finish(ledger, 1e-12)
    assert ledger.ends[1] == Status.OK
    assert len(ledger.past) < 1000


@pytest.mark.parametrize(
    ("bound", "free"),
    [(["ada"], ["bea"]), (["ada"], ["bea", "cid", "dan"]), (["ada", "bea", "cid"], ["dan"]), (["ada"], ["ada"])],
)
def test_what_has_a_place_and_what_has_none_take_turns(bound: list[str], free: list[str]) -> None:
    farm = Farm([*bound, *free], n_workers=2, places=["west"])
    for client in range(len(bound)):
        farm.tell(ask(client, **lay(west=10**6), client=client, work="0.003"))
    for client in range(len(bound), len(bound + free)):
        farm.tell(ask(client, 10**6, client=client, work="0.001"))
    farm.run(1.0)
    for _ in range(3):
        assert farm.served_in(20.0) == pytest.approx([40 / len(bound + free)] * len(bound + free), abs=1)


def test_users_share_the_queue_of_a_place() -> None:
    farm = Farm(["ada", "ada", "bea"], n_workers=4, places=["west", "east"])
    for client in range(3):
        farm.tell(ask(client, **lay(west=10**6, east=10**6), client=client, work="0.001"))
    assert farm.served_in(40.0) == pytest.approx([40, 40, 80], abs=1)


def test_who_was_served_alone_owes_nothing() -> None:
    farm = Farm(["ada", "bea"], n_workers=2, places=["west"])
    farm.tell(ask(0, **lay(west=10**6), client=0, work="0.001"))
    farm.run(100.0)
    farm.tell(ask(1, 10**6, client=1, work="0.001"))
    assert farm.served_in(4.0) == pytest.approx([4, 4], abs=0.3)
    farm.tell(Cancelled(0))
    farm.run(200.0)
    farm.tell(ask(2, **lay(west=10**6), client=0, work="0.001"))
    assert farm.served_in(4.0) == pytest.approx([4, 4], abs=0.3)


def test_who_leaves_takes_no_claim_along() -> None:
    # What is not known to be slow comes first, and much of it at once: that much the place would owe its own.
    farm = Farm(["ada", "bea"], n_workers=4, places=["west"])
    farm.tell(ask(0, **lay(west=10**6), client=0, work="0.001"))
    farm.run(1.0)
    farm.tell(ask(1, 10**6, client=1, work="10.0"))
    farm.run(10.0)
    farm.tell(Cancelled(0))
    farm.run(200.0)
    farm.tell(ask(2, **lay(west=10**6), client=0, work="0.001"))
    ada, bea = farm.served_in(200.0)
    assert ada == pytest.approx(400, abs=60)
    assert bea == pytest.approx(400, abs=60)


def test_failures_are_paid_for_between_queues_too() -> None:
    farm = Farm(["ada", "bea"], n_workers=1, places=["west"])
    for request in range(120):
        farm.tell(ask(2 * request, **lay(west=1), client=0, work="fail 1.0"))
        farm.tell(ask(2 * request + 1, client=1, work="1.0"))
    ada, bea = farm.served_in(100.0)
    assert ada == pytest.approx(50, abs=3)
    assert bea == pytest.approx(50, abs=3)


def test_a_small_request_does_not_wait_for_what_has_a_place() -> None:
    farm = Farm(["ada", "bea"], n_workers=4, places=["west", "east"])
    farm.tell(ask(0, **lay(west=10**6, east=10**6), client=0, work="0.001"))
    for nth in range(1, 11):
        farm.run(5.0 * nth)
        farm.tell(ask(nth, 10, client=1, work="0.001"))
    farm.run(100.0)
    for nth in range(1, 11):
        assert farm.answered_at[nth] - 5.0 * nth < 0.1


# ---- large numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("units", [2**31 - 1, 2**31 + 1, 2**40 + 12345])
@pytest.mark.parametrize(("period", "limit"), [(1, 2**63), (1000, 2**34 + 1), (2**33, 2**63)])
def test_vast_requests(units: int, period: int, limit: int) -> None:
    units -= units % period if period > 1 else 0
    if not units:
        return
    ledger = serve(n_workers=3)
    per_unit = 1.0 / units
    teach(ledger, per_unit)
    ledger.tell(ask(1, units, available=units // 2, period=period, limit=limit))
    ledger.tell(UnitsArrived(1, units - units // 2))
    finish(ledger, per_unit)
    assert ledger.ends[1] == Status.OK
    assert len(ledger.past) < 500


@pytest.mark.parametrize("block", [1, 1024])
def test_poison_in_a_vast_chunk_is_found_without_a_list_of_all_its_units(block: int) -> None:
    ledger = serve()
    teach(ledger, 1e-15)
    ledger.tell(ask(1, 2**40, block=block))
    ward = Ward(ledger)
    unit = 2**39 + 7
    pool = ledger.scheduler._pools[0]
    longest = 0

    def is_poison(part: Part) -> bool:
        nonlocal longest
        longest = max(longest, len(pool.retries))
        return has(unit)(part)

    ward.run(is_poison, per_unit=1e-15)
    assert longest <= 4 * MOST_RUNS
    part = ledger.failures[1].part
    assert part is not None
    assert part.count == block
    assert has(unit)(part)
    ledger.check_empty()


# ---- any order of events ---------------------------------------------------------------------------------------

#: Seconds for one unit, by kind of work.
COSTS = {"quick": 1e-4, "slow": 3e-2}
#: Requests of one key have one kind of work and one limit.
MERGES = {"a": ("quick", 64), "b": ("slow", 8)}
#: Where workers stand, and where none ever comes.
PLACES = ["west", "east", None]
NOWHERE = "atlantis"
FAILURES = [Status.MODEL_FAILED, Status.INVALID_INPUT, Status.CANCELLED]


class AnyOrder(RuleBasedStateMachine):
    """Everything that may happen, in any order; the ledger judges."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = count()
        self.ledger: Ledger

    @initialize(
        max_queued=st.sampled_from([3, 1000]),
        chunk_timeout=st.sampled_from([0.0, 30.0]),
        chunk_seconds=st.sampled_from([0.02, 0.5]),
        n_workers=st.integers(0, 4),
    )
    def start(self, max_queued: int, chunk_timeout: float, chunk_seconds: float, n_workers: int) -> None:
        self.ledger = Ledger(max_queued=max_queued, chunk_timeout=chunk_timeout, chunk_seconds=chunk_seconds)
        for nth in range(n_workers):
            self.worker_joins(model=nth % 2, place=PLACES[nth // 2])
        self.client_joins(user="ada")
        self.client_joins(user="bea")

    # ---- who is there

    @rule(model=st.integers(0, 1), place=st.sampled_from(PLACES))
    def worker_joins(self, model: int, place: str | None) -> None:
        self.ledger.tell(WorkerJoined(next(self.numbers), model, place))

    @precondition(lambda self: self.ledger.models)
    @rule(data=st.data())
    def worker_is_lost(self, data: st.DataObject) -> None:
        self.ledger.tell(WorkerLost(data.draw(st.sampled_from(list(self.ledger.models)))))

    @precondition(lambda self: self.ledger.chunks)
    @rule(data=st.data(), deaths=st.integers(1, 5))
    def unit_kills(self, data: st.DataObject, deaths: int) -> None:
        """The workers that compute one unit die, one after the other, and are replaced."""
        ledger = self.ledger
        chunk = data.draw(st.sampled_from(list(ledger.chunks.values())))
        part = data.draw(st.sampled_from(chunk.parts))
        unit = data.draw(st.integers(part.first, part.first + part.count - 1))
        model = ledger.models[chunk.worker]
        for _ in range(deaths):
            for worker, hand in list(ledger.hands.items()):
                if hand and any(has(unit, part.request)(p) for p in ledger.chunks[hand[0]].parts):
                    place = ledger.places[worker]
                    ledger.tell(WorkerLost(worker))
                    self.worker_joins(model, place)

    @precondition(lambda self: self.ledger.models)
    @rule(data=st.data())
    def place_is_lost(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from(list(self.ledger.places.values())))
        for worker in [worker for worker, where in self.ledger.places.items() if where == place]:
            self.ledger.tell(WorkerLost(worker))

    @rule(user=st.sampled_from(["ada", "bea", "cid"]))
    def client_joins(self, user: str) -> None:
        self.ledger.tell(ClientJoined(next(self.numbers), user))

    @precondition(lambda self: self.ledger.users)
    @rule(data=st.data())
    def client_is_lost(self, data: st.DataObject) -> None:
        self.ledger.tell(ClientLost(data.draw(st.sampled_from(list(self.ledger.users)))))

    @precondition(lambda self: self.ledger.users)
    @rule(data=st.data())
    def client_stalls(self, data: st.DataObject) -> None:
        self.ledger.tell(ClientStalled(data.draw(st.sampled_from([*self.ledger.users, -1]))))

    @precondition(lambda self: self.ledger.users)
    @rule(data=st.data())
    def client_resumes(self, data: st.DataObject) -> None:
        stalled = list(self.ledger.stalled) or list(self.ledger.users)
        self.ledger.tell(ClientResumed(data.draw(st.sampled_from([*stalled, -1]))))

    # ---- requests

    @precondition(lambda self: self.ledger.users)
    @rule(
        data=st.data(),
        model=st.integers(0, 1),
        units=st.integers(1, 40),
        stay=st.sampled_from([math.inf, math.inf, 0.0, 0.5, 5.0, 30.0]),
        period=st.sampled_from([1, 1, 3, 8]),
        limit=st.sampled_from([2**63, 2**63, 1, 5, 16]),
        block=st.sampled_from([1, 1, 4]),
        work=st.sampled_from(sorted(COSTS)),
        arrived=st.sampled_from([1.0, 1.0, 0.5, 0.0]),
        cuts=st.one_of(st.none(), st.lists(st.tuples(st.sampled_from([*PLACES, NOWHERE]), st.integers(1, 39)))),
    )
    def request_arrives(
        self,
        data: st.DataObject,
        model: int,
        units: int,
        stay: float,
        period: int,
        limit: int,
        block: int,
        work: str,
        arrived: float,
        cuts: list[tuple[str | None, int]] | None,
    ) -> None:
        client = data.draw(st.sampled_from([*self.ledger.users, -1]))
        units += -units % period
        lanes: tuple[Lane, ...] = ()
        if cuts is not None:
            firsts = dict([(0, "west"), *[(cut, place) for place, cut in cuts if cut < units]])
            edges = [*sorted(firsts), units]
            lanes = tuple(Lane(firsts[a], a, b - a) for a, b in itertools.pairwise(edges))
        self.ledger.tell(
            RequestArrived(
                next(self.numbers), client, model, work, units, int(arrived * units), self.ledger.now + stay,
                None, period, limit, block, lanes,
            )
        )  # fmt: skip

    @precondition(lambda self: self.ledger.users)
    @rule(
        data=st.data(),
        merge=st.sampled_from(sorted(MERGES)),
        sizes=st.lists(st.integers(1, 4), min_size=1, max_size=8),
        is_bound=st.booleans(),
    )
    def small_requests_arrive(self, data: st.DataObject, merge: str, sizes: list[int], is_bound: bool) -> None:
        work, limit = MERGES[merge]
        for units in sizes:
            client = data.draw(st.sampled_from(list(self.ledger.users)))
            lanes = (Lane("west", 0, units),) if is_bound else ()
            self.ledger.tell(
                RequestArrived(
                    next(self.numbers), client, 0, work, units, units, math.inf, merge, limit=limit, lanes=lanes
                )
            )

    @precondition(lambda self: self.ledger.calls)
    @rule(data=st.data(), share=st.sampled_from([0.0, 0.5, 1.0, 1.0]))
    def units_arrive(self, data: st.DataObject, share: float) -> None:
        number, call = data.draw(st.sampled_from(list(self.ledger.calls.items())))
        self.ledger.tell(UnitsArrived(number, int(share * (call.event.units - call.arrived))))

    @precondition(lambda self: self.ledger.calls or self.ledger.ends)
    @rule(data=st.data())
    def request_is_cancelled(self, data: st.DataObject) -> None:
        numbers = [*self.ledger.calls, *list(self.ledger.ends)[-1:]]
        self.ledger.tell(Cancelled(data.draw(st.sampled_from(numbers))))

    # ---- results

    def answer(self, chunk: SendChunk, status: int, factor: float = 1.0) -> None:
        works = [self.ledger.calls[p.request].event.work for p in chunk.parts if p.request in self.ledger.calls]
        seconds = factor * sum(COSTS[str(work)] * part.count for work, part in zip(works, chunk.parts, strict=False))
        self.ledger.tell(ResultArrived(chunk.worker, chunk.chunk, status, seconds))

    @precondition(lambda self: self.ledger.chunks)
    @rule(data=st.data(), n=st.integers(1, 10), factor=st.floats(0, 3), seconds=st.sampled_from([0.0, 0.0, 10.0]))
    def results_arrive(self, data: st.DataObject, n: int, factor: float, seconds: float) -> None:
        self.ledger.now += seconds  # and deadlines may have passed, of which nobody has told yet
        for _ in range(n):
            hands = [hand for hand in self.ledger.hands.values() if hand]
            if hands:
                self.answer(self.ledger.chunks[data.draw(st.sampled_from(hands))[0]], Status.OK, factor)

    @precondition(lambda self: self.ledger.chunks)
    @rule(data=st.data(), status=st.sampled_from([Status.OK, *FAILURES]))
    def any_result_arrives(self, data: st.DataObject, status: Status) -> None:
        """Also that of a second chunk before the first."""
        self.answer(data.draw(st.sampled_from(list(self.ledger.chunks.values()))), status)

    @precondition(lambda self: self.ledger.past or self.ledger.chunks)
    @rule(data=st.data())
    def result_that_nobody_waits_for(self, data: st.DataObject) -> None:
        ledger = self.ledger
        chunk = data.draw(st.sampled_from([*list(ledger.past)[-5:], *ledger.chunks, 10**9]))
        workers = [w for w in [*ledger.models, -1] if chunk not in ledger.hands.get(w, ())]
        if workers:
            worker = data.draw(st.sampled_from(workers))
            assert ledger.tell(ResultArrived(worker, chunk, Status.OK, 1.0)) == []

    # ---- time

    @rule(seconds=st.sampled_from([1e-3, 1.0, 1.0, 20.0]), tick=st.sampled_from([False, False, True]))
    def time_passes(self, seconds: float, tick: bool) -> None:
        self.ledger.now += seconds
        if tick:
            self.ledger.tell(Tick())

    @precondition(lambda self: math.isfinite(self.ledger.scheduler.next_deadline))
    @rule()
    def deadline_comes(self) -> None:
        self.ledger.now = max(self.ledger.now, self.ledger.scheduler.next_deadline)
        self.ledger.tell(Tick())

    @precondition(lambda self: not self.ledger.is_draining and self.ledger.past)
    @rule(sure=st.sampled_from([False, False, False, True]))
    def server_drains(self, sure: bool) -> None:
        if sure:
            started = {n for n, call in self.ledger.calls.items() if call.held.total or call.delivered.total}
            self.ledger.tell(Drain())
            assert started <= set(self.ledger.calls)

    # ---- the end

    def teardown(self) -> None:
        """Once everything went well for long enough, everything is answered and nothing is left."""
        ledger = self.ledger
        if not ledger.is_sound:
            return
        for model in (0, 1):
            self.worker_joins(model, None)
        for client in list(ledger.stalled):
            ledger.tell(ClientResumed(client))
        for number, call in list(ledger.calls.items()):
            ledger.tell(UnitsArrived(number, call.event.units - call.arrived))
        steps = 0
        while ledger.chunks:
            steps += 1
            assert steps < 10_000
            self.answer(next(iter(ledger.chunks.values())), Status.OK)
        ledger.check_empty()
        assert all(not hand for hand in ledger.hands.values())


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=400, stateful_step_count=60, derandomize=True, deadline=None, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
