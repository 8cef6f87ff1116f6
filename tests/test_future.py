"""Futures: in whatever order they are asked, each gives its own answer once it is there."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from service import Service

import demos_hpc
from demos_hpc import Cancelled, Config, Future, ModelFailed, RemoteModel, TooLarge
from demos_hpc.testing import Failing, Gaussian

MODEL = Gaussian()
X = np.random.default_rng(14).normal(size=(2000, 1))
POINT = np.array([0.5, 2.0])
TRUTH = MODEL.log_density(X, POINT)


@pytest.fixture
def model() -> Iterator[RemoteModel]:
    with demos_hpc.local(Failing("raises", above=100.0), workers=2, config=Config()) as served:
        yield served


def test_submit_returns_at_once_and_result_waits(model: RemoteModel) -> None:
    future = model.submit.log_density(X, POINT)
    assert isinstance(future, Future)
    assert not future.is_done
    assert repr(future) == f"<Future {future.id}: 0 of 2000 rows answered>"
    np.testing.assert_array_equal(future.result(timeout=30), TRUTH)
    assert future.done()
    assert repr(future) == f"<Future {future.id}: done>"
    assert future.result() is future.result()
    assert future.exception() is None


def test_several_in_flight_asked_in_odd_order(model: RemoteModel) -> None:
    futures = [model.submit.log_density(X[i * 97 : i * 97 + 1 + i * 13], POINT) for i in range(20)]
    futures.append(model.submit.sample(100, POINT, seed=1))
    futures.append(model.submit.log_likelihood(X, POINT))
    order = np.random.default_rng(15).permutation(20)
    for i in order:
        np.testing.assert_array_equal(futures[i].result(), TRUTH[i * 97 : i * 97 + 1 + i * 13])
    assert futures[21].result() == model.log_likelihood(X, POINT)
    np.testing.assert_array_equal(futures[20].result(), model.sample(100, POINT, seed=1))


def test_done_moves_things_along(model: RemoteModel) -> None:
    future = model.submit.log_density(X, POINT)
    other = model.submit.log_density(X[:1], POINT)
    other.result()
    for _ in range(1000):
        if future.done():
            break
        model.log_density(X[:1], POINT)
    np.testing.assert_array_equal(future.result(timeout=0), TRUTH)


def test_a_failed_future_keeps_its_error(model: RemoteModel) -> None:
    future = model.submit.log_density([[200.0]], POINT)
    error = future.exception()
    assert isinstance(error, ModelFailed)
    for _ in range(2):
        with pytest.raises(ModelFailed) as caught:
            future.result()
        assert caught.value is error
    assert not future.cancelled()


def test_an_answer_without_memory_is_an_error_of_its_own(model: RemoteModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(cells: Any) -> Any:
        raise MemoryError

    x = np.zeros((5, 1))
    with monkeypatch.context() as patched:
        patched.setattr("demos_hpc.submit.sum_pairwise", fail)
        without = model.submit.log_likelihood(x, [0.0, 1.0])
        with_ = model.submit.log_density(x, [0.0, 1.0])
        assert len(with_.result()) == 5
        for _ in range(2):
            with pytest.raises(TooLarge, match="there is no memory to put the answer together"):
                without.result()


def test_cancel_in_time_and_too_late(model: RemoteModel) -> None:
    future = model.submit.log_density(X, POINT)
    assert future.cancel() is True
    error = future.exception()
    assert isinstance(error, Cancelled)
    assert isinstance(error, concurrent.futures.CancelledError)
    assert future.cancelled()
    assert future.cancel() is False
    finished = model.submit.log_density(X, POINT)
    finished.result()
    assert finished.cancel() is False
    assert not finished.cancelled()
    np.testing.assert_array_equal(finished.result(), TRUTH)


def test_a_request_that_was_done_before_it_could_be_cancelled() -> None:
    service = Service(MODEL)
    client = service.connect()
    future = client.submit.log_density(X[:3], POINT)
    service.turn()
    service.turn()
    assert future.cancel() is True
    np.testing.assert_array_equal(future.result(), TRUTH[:3])
    np.testing.assert_array_equal(client.log_density(X, POINT), TRUTH)


def test_cancel_frees_the_workers(model: RemoteModel) -> None:
    futures = [model.submit.log_density(X, POINT) for _ in range(20)]
    for future in futures[:-1]:
        future.cancel()
    np.testing.assert_array_equal(futures[-1].result(), TRUTH)
    assert all(future.cancelled() for future in futures[:-1])
    assert model.metadata()["statistics"]["rows"] == 40_000


def test_callbacks_are_called_once_with_the_future(model: RemoteModel) -> None:
    called: list[tuple[str, Future]] = []
    future = model.submit.log_density(X, POINT)
    future.add_done_callback(lambda f: called.append(("first", f)))
    future.add_done_callback(lambda f: called.append(("second", f)))
    assert called == []
    future.result()
    future.add_done_callback(lambda f: called.append(("late", f)))
    assert called == [("first", future), ("second", future), ("late", future)]
    failed = model.submit.log_density([[200.0]], POINT)
    failed.add_done_callback(lambda f: called.append(("failed", f)))
    failed.exception()
    assert called[-1] == ("failed", failed)
    empty = model.submit.log_density(np.empty((0, 1)), POINT)
    empty.add_done_callback(lambda f: called.append(("empty", f)))
    assert called[-1] == ("empty", empty)


def test_a_callback_may_submit_and_wait(model: RemoteModel) -> None:
    got: list[Any] = []
    first = model.submit.log_density(X[:2], POINT)
    others = [model.submit.log_density(X[i : i + 1], POINT) for i in range(50)]
    first.add_done_callback(lambda f: got.append(model.log_density(X, POINT)))
    others[30].add_done_callback(lambda f: got.append(others[49].result()))
    np.testing.assert_array_equal(first.result(), TRUTH[:2])
    assert [f.result()[0] for f in others] == TRUTH[:50].tolist()
    one, all_rows = sorted(got, key=len)  # either may come first
    np.testing.assert_array_equal(all_rows, TRUTH)
    assert one[0] == TRUTH[49]


@pytest.mark.parametrize("error", [LookupError("of the caller"), ModelFailed("of another request")], ids=repr)
@pytest.mark.parametrize("where", ["callback", "progress"])
def test_a_callback_that_raises_loses_no_answers(model: RemoteModel, where: str, error: Exception) -> None:
    def fail(*arguments: object) -> None:
        raise error

    futures = [model.submit.log_density(X[i : i + 1], POINT) for i in range(50)]
    if where == "callback":
        futures[10].add_done_callback(fail)
    else:
        futures[10].progress = fail
    raised = 0
    for i in [*range(49, -1, -1), *range(50)]:
        try:
            assert futures[i].result(timeout=5) == TRUTH[i]
        except type(error):
            raised += 1
    assert raised <= 2
    assert futures[10].result(timeout=5) == TRUTH[10]
    np.testing.assert_array_equal(model.log_density(X, POINT), TRUTH)
