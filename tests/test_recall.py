"""Requests that come again are answered without a worker, byte for byte as they were, and never after a change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from odd_models import Improper
from service import Service, make_request, read_error

from demos_hpc import pool
from demos_hpc.client import RemoteModel
from demos_hpc.config import Config
from demos_hpc.errors import InvalidInput, ModelFailed, StaleRevision
from demos_hpc.future import Future
from demos_hpc.messages import Flag, Kind, Operation
from demos_hpc.testing import Failing, Gaussian
from demos_hpc.wire import INLINE_BYTES, pack

MODEL = Gaussian(block_rows=16)
X = np.random.default_rng(11).normal(size=(40, 1))
POINT = np.array([0.5, 2.0])
POINTS = np.array([[0.5, 2.0], [0.0, 1.0], [-1.0, 0.25]])
CACHE = Config(timeout=10.0, cache_bytes=1 << 20)


def remember(*models: Any, **settings: Any) -> Service:
    """A service that remembers answers."""
    return Service(*(models or (MODEL,)), workers=2, config=replace(CACHE, **settings))


def count_hits(service: Service) -> int:
    assert service.dispatcher.recall is not None
    return service.dispatcher.recall.cache.hits


def count_kept(service: Service) -> int:
    assert service.dispatcher.recall is not None
    return len(service.dispatcher.recall.cache)


def to_bytes(value: Any) -> bytes:
    arrays = value if isinstance(value, tuple) else (value,)
    return b"".join(np.asarray(array).tobytes() for array in arrays)


def ask(future: Future) -> tuple[bytes, int, int]:
    """An answer with what is said beside it."""
    value = future.result()
    return to_bytes(value), future.revision, future.nonfinite_rows


CALLS: dict[str, Callable[[RemoteModel], Future]] = {
    "log_density": lambda model: model.submit.log_density(X, POINT),
    "log_density at a point for each row": lambda model: model.submit.log_density(X, np.repeat(POINTS[:1], 40, 0)),
    "log_density of one row": lambda model: model.submit.log_density(X[:1], POINT),
    "log_density_gradient": lambda model: model.submit.log_density_gradient(X, POINT),
    "log_density_gradient by x": lambda model: model.submit.log_density_gradient(X, POINT, wrt="x"),
    "log_likelihood": lambda model: model.submit.log_likelihood(X, POINT),
    "log_likelihood at many points": lambda model: model.submit.log_likelihood(X, POINTS),
    "log_likelihood_gradient": lambda model: model.submit.log_likelihood_gradient(X, POINTS),
    "sample": lambda model: model.submit.sample(100, POINT, seed=7),
    "evaluate": lambda model: model.submit.evaluate(POINTS),
    "log_density with the server's parameters": lambda model: model.submit.log_density(X),
    "log_likelihood with the server's parameters": lambda model: model.submit.log_likelihood(X),
    "sample with the server's parameters": lambda model: model.submit.sample(100, seed=7),
    "evaluate with the server's parameters": lambda model: model.submit.evaluate(),
}
by_call = pytest.mark.parametrize("name", CALLS)


# ---- the same answer -------------------------------------------------------------------------------------------


@by_call
@pytest.mark.parametrize("chunk_seconds", [0.02, 1e-9], ids=["in one chunk", "in many"])
def test_the_second_answer_is_the_first(name: str, chunk_seconds: float) -> None:
    service = remember(chunk_seconds=chunk_seconds)
    first, second = service.connect(), service.connect(user="bob")
    truth = ask(CALLS[name](Service(MODEL).connect()))
    assert ask(CALLS[name](first)) == truth
    assert count_hits(service) == 0
    service.workers.clear()  # nobody is there to compute it
    for client in (second, first):
        assert ask(CALLS[name](client)) == truth
    assert count_hits(service) == 2


@pytest.mark.parametrize(
    ("operation", "arrays", "fields"),
    [
        (Operation.LOG_DENSITY, [X, POINT], {}),
        (Operation.LOG_DENSITY, [X], {}),
        (Operation.LOG_DENSITY_GRADIENT, [X, POINT], {"flags": Flag.WRT_X}),
        (Operation.LOG_LIKELIHOOD, [X, POINTS], {"flags": Flag.BLOCK_MAJOR}),
        (Operation.LOG_LIKELIHOOD_GRADIENT, [X, POINTS], {}),
        (Operation.SAMPLE, [POINT], {"n_rows": 16, "seed": 3}),
        (Operation.EVALUATE, [POINTS], {}),
    ],
    ids=lambda value: value.title if isinstance(value, Operation) else "",
)
def test_the_frames_are_the_same(
    monkeypatch: pytest.MonkeyPatch, operation: Operation, arrays: list[Any], fields: dict[str, int]
) -> None:
    monkeypatch.setattr(pool, "SHORTEST_CHUNK", 10.0)
    service = remember(chunk_seconds=10.0)
    peer = service.add_peer()
    peer.ask(make_request(operation, arrays, **(fields | {"id": 4, "seed": 99})), n_frames=20)  # teaches what it costs
    first = peer.ask_one(make_request(operation, arrays, **{**fields, "id": 5}))
    assert first.header.flags & Flag.FINAL
    service.workers.clear()
    again = peer.ask_one(make_request(operation, arrays, **{**fields, "id": 5}))
    assert again.header._replace(seed=first.header.seed, operation=first.header.operation) == first.header
    assert [array.tobytes() for array in again.arrays] == [array.tobytes() for array in first.arrays]
    assert [array.shape for array in again.arrays] == [array.shape for array in first.arrays]


@pytest.mark.parametrize("n", [1, 40, 3000])
def test_rows_that_are_no_numbers_are_counted_again(n: int) -> None:
    service = remember(Improper())
    client = service.connect()
    x = np.resize([1.0, 7.0, 8.0, 9.0], (n, 1)) if n > 1 else np.array([[8.0]])
    first = ask(client.submit.log_density(x, POINT))
    assert first[2] == max(n // 2, 1)
    service.workers.clear()
    assert ask(client.submit.log_density(x, POINT)) == first
    assert client.metadata()["statistics"]["nonfinite_rows"] == 2 * first[2]


def test_merged_requests_are_remembered_one_by_one() -> None:
    service = remember(Improper())
    client = service.connect()
    client.log_density(X, POINT)  # teaches what a row costs
    rows = [np.array([[value]]) for value in (1.0, 7.0, 8.0, 9.0, 2.0, 8.0, 7.5)]
    blocker = client.submit.log_density(np.zeros((30_000, 1)), POINT)
    futures = [client.submit.log_density(row, POINT) for row in rows]
    first = [ask(future) for future in futures]
    blocker.result()
    assert [nonfinite for _, _, nonfinite in first] == [0, 1, 1, 0, 0, 1, 0]
    service.workers.clear()
    assert [ask(client.submit.log_density(row, POINT)) for row in rows] == first


def test_a_large_answer_is_remembered() -> None:
    service = remember(cache_bytes=1 << 24)
    client = service.connect()
    n = INLINE_BYTES  # eight times as many bytes as fit into the head of a frame
    first = ask(client.submit.sample(n, POINT, seed=1))
    service.workers.clear()
    assert ask(client.submit.sample(n, POINT, seed=1)) == first
    assert count_hits(service) == 1


def test_answers_in_use_are_nobody_elses() -> None:
    service = remember()
    client = service.connect()
    first = client.log_density(X, POINT)
    truth = first.copy()
    first[:] = 0.0
    service.workers.clear()
    second = client.log_density(X, POINT)
    assert second.tolist() == truth.tolist()
    second[:] = 0.0
    assert client.log_density(X, POINT).tolist() == truth.tolist()


def test_the_same_request_twice_at_once() -> None:
    service = remember()
    client = service.connect()
    futures = [client.submit.log_density(X, POINT) for _ in range(5)]
    assert len({ask(future) for future in futures}) == 1
    assert count_kept(service) == 1


def test_an_answer_whose_worker_died_in_between() -> None:
    service = remember(chunk_seconds=1e-9)
    client = service.connect()
    future = client.submit.log_density(X, POINT)
    service.turn()
    lost = service.workers.pop()
    service.dispatcher.lose(lost._link._peer)  # type: ignore[attr-defined]
    first = ask(future)
    service.workers.clear()
    assert ask(client.submit.log_density(X, POINT)) == first


# ---- other requests --------------------------------------------------------------------------------------------


def test_other_requests_have_other_answers() -> None:
    service = remember()
    client = service.connect()
    calls = [
        client.submit.log_density(X, POINT),
        client.submit.log_density(X, POINTS[1]),
        client.submit.log_density(X + 1e-16 + 1, POINT),
        client.submit.log_density(X[:39], POINT),
        client.submit.log_density_gradient(X, POINT),
        client.submit.log_density_gradient(X, POINT, wrt="x"),
        client.submit.sample(40, POINT, seed=1),
        client.submit.sample(40, POINT, seed=2),
        client.submit.sample(41, POINT, seed=2),
    ]
    assert len({to_bytes(call.result()) for call in calls}) == len(calls)
    assert (count_hits(service), count_kept(service)) == (0, len(calls))


def test_draws_without_a_seed_are_others_each_time() -> None:
    service = remember()
    client = service.connect()
    assert len({client.sample(5, POINT).tobytes() for _ in range(5)}) == 5
    assert (count_hits(service), count_kept(service)) == (0, 0)
    client.metadata()
    client.set_params(mu=1.0)
    assert client.metadata()["revision"] == 2


def test_draws_of_a_model_with_a_generator_of_its_own() -> None:
    model = Gaussian()
    object.__setattr__(model.spec, "reproducible", False)
    service = remember(model)
    client = service.connect()
    client.sample(5, POINT, seed=1)
    client.sample(5, POINT, seed=1)
    assert count_kept(service) == 0
    client.log_density(X, POINT)
    assert count_kept(service) == 1


def test_a_request_that_comes_in_parts_is_not_looked_for() -> None:
    service = remember()
    peer = service.add_peer()
    for id_ in (1, 2):
        peer.send(make_request(Operation.LOG_DENSITY, [X[:32], POINT], n_rows=40, id=id_))
        service.turn()
        peer.send(pack(Kind.ROWS, [X[32:]], id=id_, first_row=32, n_rows=8))
        np.testing.assert_array_equal(peer.collect(id_, 40), MODEL.log_density(X, POINT))
    assert (count_hits(service), count_kept(service)) == (0, 0)


def test_failures_are_not_remembered() -> None:
    service = remember(Failing("raises", above=0.0))
    client = service.connect()
    for _ in range(2):
        with pytest.raises(ModelFailed, match="row"):
            client.log_density(np.array([[1.0]]), POINT)
    with pytest.raises(InvalidInput):
        client.log_density(X, [1.0, 2.0, 3.0])
    assert (count_hits(service), count_kept(service)) == (0, 0)


def test_what_was_cancelled_gives_its_room_back() -> None:
    service = remember(chunk_seconds=1e-9)
    client = service.connect()
    future = client.submit.log_density(np.zeros((2000, 1)), POINT)
    service.turn()
    future.cancel()
    assert future.exception() is not None
    assert service.dispatcher.recall is not None
    assert service.dispatcher.recall.cache.used_bytes == 0


def test_more_than_there_is_room_for() -> None:
    service = remember(cache_bytes=4096)
    client = service.connect()
    values = [client.log_density(X + shift, POINT) for shift in range(10)]
    client.sample(10_000, POINT, seed=1)
    assert service.dispatcher.recall is not None
    assert service.dispatcher.recall.cache.used_bytes <= 4096
    assert 1 <= count_kept(service) < 10
    for shift in reversed(range(10)):
        np.testing.assert_array_equal(client.log_density(X + shift, POINT), values[shift])


def test_without_room_nothing_is_remembered() -> None:
    service = Service(MODEL)
    assert service.dispatcher.recall is None
    client = service.connect()
    assert ask(client.submit.log_density(X, POINT)) == ask(client.submit.log_density(X, POINT))


def test_two_models_of_one_server() -> None:
    other = Gaussian(block_rows=16, name="other")
    service = remember(MODEL, other)
    one, two = service.connect("gaussian"), service.connect("other")
    one.set_params(mu=3.0)
    values = [client.log_density(X).tolist() for client in (one, two)]
    assert values[0] != values[1]
    assert [client.log_density(X).tolist() for client in (one, two)] == values
    assert count_hits(service) == 2
    one.set_params(mu=0.0)
    two.log_density(X)
    assert count_hits(service) == 3  # the other's answers stay


# ---- changes ---------------------------------------------------------------------------------------------------


@by_call
def test_after_a_change_the_old_answer_never_comes_again(name: str) -> None:
    service = remember()
    client, reference = service.connect(), Service(MODEL).connect()
    revisions = []
    for mu in (0.25, -3.0, 0.25, 8.0):
        client.set_params(mu=mu)
        reference.set_params(mu=mu)
        truth = ask(CALLS[name](reference))
        for _ in range(3):
            assert ask(CALLS[name](client)) == truth
        revisions.append(truth[1])
    assert revisions == [2, 3, 4, 5]
    assert count_hits(service) == 8


def test_a_request_under_way_during_a_change_keeps_nothing_for_the_new_one() -> None:
    service = remember(chunk_seconds=1e-9)
    client, other = service.connect(), service.connect()
    future = client.submit.log_density(X)
    service.dispatcher.step()
    other.set_params(mu=2.0)
    old, new = future.result().tolist(), client.log_density(X).tolist()
    assert old == MODEL.log_density(X, np.array([0.0, 1.0])).tolist()
    assert new == MODEL.log_density(X, np.array([2.0, 1.0])).tolist()
    assert client.log_density(X).tolist() == new


def test_who_pinned_a_revision_hears_of_the_new_one() -> None:
    service = remember()
    client = service.connect()
    client.pin(1)
    client.log_density(X, POINT)
    client.log_density(X, POINT)
    service.connect().set_params(mu=1.0)
    with pytest.raises(StaleRevision, match="have revision 2 now"):
        client.log_density(X, POINT)
    assert count_hits(service) == 1


# ---- counting --------------------------------------------------------------------------------------------------


def test_what_was_remembered_counts_as_what_was_computed() -> None:
    service = remember()
    client = service.connect()
    for _ in range(3):
        client.log_density(X, POINT)
    statistics = client.metadata()["statistics"]
    assert (statistics["requests"], statistics["rows"], statistics["failures"]) == (3, 120, 0)
    described = service.dispatcher.accounts.metrics.describe(0.0)
    assert (described["requests"], described["rows"]) == (3, 120)
    (user,) = (user for user in described["users"] if user["user"] == "ada")
    assert (user["requests"], user["rows"]) == (3, 120)
    assert service.dispatcher.recall is not None
    assert service.dispatcher.recall.cache.describe()["hits"] == 2
    peer = service.add_peer()
    peer.send(make_request(Operation.LOG_DENSITY, [X, POINT], id=4))
    service.turn()
    peer.receive()
    assert service.dispatcher.intake.calls == {}
    assert service.dispatcher.scheduler.is_idle


def test_an_id_may_be_used_again_after_an_answer_from_memory() -> None:
    service = remember()
    peer = service.add_peer()
    for _ in range(3):
        np.testing.assert_array_equal(
            peer.ask_rows(make_request(Operation.LOG_DENSITY, [X, POINT], id=9)), MODEL.log_density(X, POINT)
        )
    frame = peer.ask_one(make_request(Operation.LOG_DENSITY, [X, POINT], id=9, revision=5))
    assert isinstance(read_error(frame), StaleRevision)
