"""Limits that hold over any time, and that let everybody through who waits as long as told."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos_hpc.budgets import LANDING, NEVER, SWEEP, Budgets, Limits
from demos_hpc.errors import InvalidInput

careful = settings(derandomize=True, database=None, deadline=None, max_examples=200)


def budgets(**limits: float) -> Budgets:
    return Budgets(lambda user: Limits(**limits))  # type: ignore[arg-type]


def test_without_limits_everything_is_admitted_and_nobody_remembered() -> None:
    free = budgets()
    assert [free.take("alice", 10**12, 10**15, 0.0) for _ in range(1000)] == [0.0] * 1000
    free.give_back("alice", 10**15)
    assert len(free) == 0
    assert free.find_in_flight("alice") == 0


def test_a_second_s_worth_of_requests_at_once_then_at_the_rate() -> None:
    limited = budgets(requests_per_second=10)
    assert [limited.take("alice", 0, 0, 100.0) for _ in range(10)] == [0.0] * 10
    assert limited.take("alice", 0, 0, 100.0) == pytest.approx(0.1)
    assert limited.take("alice", 0, 0, 100.05) == pytest.approx(0.05)
    assert limited.take("alice", 0, 0, 100.1) == 0.0
    assert limited.take("alice", 0, 0, 100.1) > 0
    assert limited.take("bob", 0, 0, 100.1) == 0.0


def test_less_than_one_request_a_second() -> None:
    limited = budgets(requests_per_second=0.1)
    assert limited.take("alice", 0, 0, 0.0) == 0.0
    assert limited.take("alice", 0, 0, 0.0) == pytest.approx(10.0)
    assert limited.take("alice", 0, 0, 10.0) == 0.0


def test_rows_of_a_large_request_are_paid_off_afterwards() -> None:
    limited = budgets(rows_per_second=100)
    assert limited.take("alice", 1000, 0, 0.0) == 0.0
    assert limited.take("alice", 1, 0, 0.0) == pytest.approx(9.01)
    assert limited.take("alice", 0, 0, 0.0) == 0.0  # a request without rows owes nothing
    assert limited.take("alice", 1000, 0, 9.01) == pytest.approx(0.99)
    assert limited.take("alice", 1000, 0, 10.0) == 0.0


def test_a_large_request_waits_until_the_bucket_is_full() -> None:
    limited = budgets(rows_per_second=100)
    assert limited.take("alice", 1, 0, 0.0) == 0.0
    assert limited.take("alice", 1000, 0, 0.0) == pytest.approx(0.01)
    assert limited.take("alice", 1000, 0, 0.01) == 0.0


def test_bytes_in_flight_come_back() -> None:
    limited = budgets(bytes_in_flight=100)
    assert limited.take("alice", 0, 60, 0.0) == 0.0
    assert limited.take("alice", 0, 60, 0.0) == LANDING
    assert limited.take("alice", 0, 40, 0.0) == 0.0
    assert limited.take("alice", 0, 1, 0.0) == LANDING
    limited.give_back("alice", 60)
    assert limited.find_in_flight("alice") == 40
    assert limited.take("alice", 0, 60, 0.0) == 0.0


def test_what_is_too_large_alone_is_refused_for_good() -> None:
    limited = budgets(bytes_in_flight=100)
    assert limited.take("alice", 0, 101, 0.0) == NEVER
    assert math.isinf(NEVER)
    assert limited.find_in_flight("alice") == 0
    assert limited.take("alice", 0, 100, 0.0) == 0.0


def test_what_is_refused_takes_nothing() -> None:
    limited = budgets(requests_per_second=1, rows_per_second=10, bytes_in_flight=100)
    assert limited.take("alice", 5, 80, 0.0) == 0.0
    for _ in range(100):
        assert limited.take("alice", 10, 80, 0.0) == pytest.approx(1.0)
    limited.give_back("alice", 80)
    assert limited.take("alice", 10, 80, 1.0) == 0.0


def test_giving_back_what_was_never_taken_changes_nothing() -> None:
    limited = budgets(bytes_in_flight=100)
    limited.give_back("alice", 50)
    assert limited.take("alice", 0, 10, 0.0) == 0.0
    limited.give_back("alice", 50)
    assert limited.find_in_flight("alice") == 0
    assert limited.take("alice", 0, 100, 0.0) == 0.0
    assert limited.take("alice", 0, 1, 0.0) == LANDING


def test_limits_may_change() -> None:
    limits = Limits(rows_per_second=10)
    limited = Budgets(lambda user: limits)
    assert limited.take("alice", 10, 0, 0.0) == 0.0
    limits = Limits(rows_per_second=1000)
    assert limited.take("alice", 10, 0, 0.01) == 0.0
    limits = Limits()
    assert limited.take("alice", 10**9, 0, 0.01) == 0.0


def test_a_clock_that_steps_back_gives_nothing() -> None:
    limited = budgets(requests_per_second=1)
    assert limited.take("alice", 0, 0, 100.0) == 0.0
    assert limited.take("alice", 0, 0, 50.0) == pytest.approx(1.0)
    assert limited.take("alice", 0, 0, 100.5) == pytest.approx(0.5)


def test_idle_users_are_forgotten() -> None:
    limited = budgets(requests_per_second=5, rows_per_second=10, bytes_in_flight=100)
    for n in range(1000):
        assert limited.take(f"user {n}", 1, 0, 0.0) == 0.0
    assert limited.take("owes", 1000, 0, 0.0) == 0.0
    assert limited.take("flies", 1, 10, 0.0) == 0.0
    assert len(limited) == 1002
    assert limited.take("late", 1, 0, SWEEP) == 0.0
    assert len(limited) == 3
    assert limited.take("owes", 1, 0, SWEEP) > 80
    limited.give_back("flies", 10)
    assert limited.take("late", 1, 0, 1000.0) == 0.0
    assert len(limited) == 1


@pytest.mark.parametrize("name", ["requests_per_second", "rows_per_second", "bytes_in_flight"])
@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "1", None, True])
def test_limits_are_numbers(name: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=f"limit {name} is {value!r}; it is a number >= 0"):
        Limits(**{name: value})


steps = st.lists(st.tuples(st.floats(0, 3), st.integers(0, 300), st.integers(0, 150)), min_size=1, max_size=60)


@careful
@given(steps, st.floats(0.1, 20), st.floats(0.1, 100))
def test_over_any_time_no_more_than_the_limit_and_a_burst(
    steps: list[tuple[float, int, int]], requests_rate: float, rows_rate: float
) -> None:
    limited = budgets(requests_per_second=requests_rate, rows_per_second=rows_rate)
    now, admitted = 1e5, []
    for pause, rows, _ in steps:
        now += pause
        if limited.take("alice", rows, 0, now) == 0.0:
            admitted.append((now, rows))
    for first in range(len(admitted)):
        n_rows = largest = 0
        for last in range(first, len(admitted)):
            seconds, rows = admitted[last][0] - admitted[first][0], admitted[last][1]
            n_rows, largest = n_rows + rows, max(largest, rows)
            assert last - first + 1 <= requests_rate * seconds + max(requests_rate, 1) + 1e-3
            assert n_rows <= rows_rate * seconds + max(rows_rate, 1, largest) + 1e-3


@careful
@given(steps, st.floats(0.01, 1e9), st.floats(0.01, 1e9), st.floats(0, 4e6))
def test_whoever_waits_as_long_as_told_is_admitted(
    steps: list[tuple[float, int, int]], requests_rate: float, rows_rate: float, now: float
) -> None:
    limited = budgets(requests_per_second=requests_rate, rows_per_second=rows_rate)
    for pause, rows, _ in steps:
        now += pause
        wait = limited.take("alice", rows, 0, now)
        assert 0 <= wait < NEVER
        if wait:
            now += wait
            assert limited.take("alice", rows, 0, now) == 0.0


@careful
@given(steps, st.lists(st.booleans(), min_size=60, max_size=60))
def test_bytes_in_flight_are_never_too_many_and_never_negative(
    steps: list[tuple[float, int, int]], lands: list[bool]
) -> None:
    limited = budgets(bytes_in_flight=100)
    flying: list[int] = []
    now = 0.0
    for (pause, _, n_bytes), land in zip(steps, lands, strict=False):
        now += pause * SWEEP
        wait = limited.take("alice", 0, n_bytes, now)
        if n_bytes > 100:
            assert wait == NEVER
        elif sum(flying) + n_bytes > 100:
            assert wait == LANDING
        else:
            assert wait == 0.0
            flying.append(n_bytes)
        if land and flying:
            limited.give_back("alice", flying.pop(0))
        assert limited.find_in_flight("alice") == sum(flying)
        assert 0 <= limited.find_in_flight("alice") <= 100
