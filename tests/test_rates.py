"""What a server did lately, from two descriptions of it."""

from __future__ import annotations

from typing import Any

import pytest

from demos_hpc.cli.rates import Rate, check_format, compare
from demos_hpc.errors import InvalidInput, Status
from demos_hpc.messages import Operation
from demos_hpc.metrics import FORMAT, Metrics

DENSITY, SAMPLE = int(Operation.LOG_DENSITY), int(Operation.SAMPLE)


def start() -> Metrics:
    metrics = Metrics("nu-1", 0.0)
    metrics.worker_joined(7, "w0", "node1", 11, "nu", "mpi", 0.0)
    return metrics


def work(metrics: Metrics, n: int, seconds: float, user: str = "ada", operation: int = DENSITY) -> None:
    for _ in range(n):
        metrics.request_done(user, "nu", operation, 10, seconds, Status.OK)
        metrics.charge(user, "nu", 0.01)


def test_rates_are_differences() -> None:
    metrics = start()
    work(metrics, 1000, 5.0)
    before = metrics.describe(100.0)
    work(metrics, 40, 0.001)
    work(metrics, 10, 0.1, "bob", SAMPLE)
    rates = compare(metrics.describe(104.0), before)
    assert rates.seconds == 4.0
    assert (rates.total.requests, rates.total.rows) == (12.5, 125.0)
    assert rates.total.latency.count == 50
    assert rates.total.latency.quantile(0.5) == pytest.approx(0.001, rel=0.13)
    assert rates.total.latency.quantile(0.99) == pytest.approx(0.1, rel=0.13)
    assert rates.operations["nu", "log_density"].requests == 10.0
    assert rates.operations["nu", "sample"].requests == 2.5  # not there before
    assert rates.users["ada"].requests == 10.0
    assert rates.users["ada"].busy == pytest.approx(0.1)
    assert rates.users["bob"].rows == 25.0


def test_a_worker_is_as_busy_as_it_was_since_then() -> None:
    metrics = start()
    metrics.chunk_begun(7, 1.0)
    before = metrics.describe(2.0)
    metrics.chunk_done(7, 2.0, 3.0)
    assert compare(metrics.describe(6.0), before).workers == {"w0": pytest.approx(0.25)}
    metrics.chunk_begun(7, 6.0)
    before = metrics.describe(6.0)
    assert compare(metrics.describe(10.0), before).workers == {"w0": 1.0}  # in one chunk all the time


@pytest.mark.parametrize("server", ["nu-1", "another"])
def test_of_a_server_that_began_anew_its_own_window_is_taken(server: str) -> None:
    metrics = start()
    work(metrics, 1000, 5.0)
    before = metrics.describe(100.0)
    fresh = Metrics(server, 0.0)
    work(fresh, 30, 0.001)
    rates = compare(fresh.describe(3.0), before)
    assert rates.seconds == 3.0
    assert rates.total.requests == 10.0
    assert rates.operations["nu", "log_density"].rows == 100.0
    assert rates.users["ada"].busy == pytest.approx(0.1)


def test_the_window_is_taken_where_there_is_nothing_to_compare_with() -> None:
    metrics = start()
    work(metrics, 30, 0.001)
    metrics.chunk_begun(7, 0.0)
    described = metrics.describe(3.0)
    for previous in (None, metrics.describe(3.0), metrics.describe(2.9)):
        rates = compare(described, previous)
        assert (rates.seconds, rates.total.requests, rates.workers) == (3.0, 10.0, {"w0": 1.0})


def test_a_server_that_has_only_begun_has_no_rates() -> None:
    rates = compare(start().describe(0.0))
    assert (rates.seconds, rates.total, rates.workers) == (0.0, Rate(), {"w0": 0.0})


@pytest.mark.parametrize("described", [None, {}, {"format": FORMAT + 1}, [1]])
def test_what_cannot_be_read_is_refused_with_the_remedy(described: Any) -> None:
    with pytest.raises(InvalidInput, match=f"this version reads {FORMAT}; install the same version"):
        check_format(described)


def test_what_can_be_read_is_read() -> None:
    described = start().describe(1.0)
    assert check_format(described) == described
