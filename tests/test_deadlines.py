"""Deadlines come in order, and those of answered requests do not pile up."""

from __future__ import annotations

import math

from demos_hpc.deadlines import MOST_PAST, Deadlines


def test_the_earliest_comes_first() -> None:
    deadlines = Deadlines()
    assert deadlines.first == math.inf
    for request, deadline in ((1, 5.0), (2, 3.0), (3, 9.0), (4, 3.0)):
        deadlines.add(request, deadline, {})
    assert deadlines.first == 3.0
    assert deadlines.take_past(2.9) == []
    assert sorted(deadlines.take_past(5.0)) == [1, 2, 4]
    assert deadlines.take_past(5.0) == []
    assert deadlines.first == 9.0
    assert len(deadlines) == 1


def test_those_of_answered_requests_are_forgotten_some_time() -> None:
    deadlines = Deadlines()
    living = range(0, 100_000, 10)
    for request in range(100_000):
        deadlines.add(request, 1e9 - request, living)
        assert len(deadlines) <= 3 * (request // 10 + 1) + 2 * MOST_PAST
    assert set(deadlines.take_past(math.inf)) >= set(living)
