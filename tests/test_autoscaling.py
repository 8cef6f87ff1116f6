"""More workers where something waits, fewer where nothing does, and never back and forth."""

from __future__ import annotations

import pytest

from demos_hpc.autoscaling import Autoscaler, Look, Policy
from demos_hpc.errors import InvalidInput

POLICY = Policy(1, 16, wait_seconds=10, idle_seconds=60, cool_down=30)


def look(workers: int, backlog: float = 0.0, oldest: float = 0.0, requests: int = 1) -> Look:
    return Look(workers, backlog, oldest, requests)


def test_what_waits_brings_workers() -> None:
    assert Autoscaler(POLICY).decide(look(4, backlog=50), 0.0) == 5
    assert Autoscaler(POLICY).decide(look(4, backlog=70), 0.0) == 7
    assert Autoscaler(POLICY).decide(look(4, backlog=1e6), 0.0) == 8
    assert Autoscaler(POLICY).decide(look(12, backlog=1e6), 0.0) == 16
    assert Autoscaler(POLICY).decide(look(0, backlog=0.0, oldest=11), 0.0) == 1
    assert Autoscaler(POLICY).decide(look(4, backlog=40), 0.0) == 4


def test_after_a_change_nothing_is_changed_for_a_while() -> None:
    scaler = Autoscaler(POLICY)
    assert scaler.decide(look(2, backlog=1e3), 0.0) == 4
    assert scaler.decide(look(2, backlog=1e3), 29.0) == 2
    assert scaler.decide(look(4, backlog=1e3), 31.0) == 8


def test_idle_workers_leave_in_steps() -> None:
    scaler = Autoscaler(POLICY)
    assert scaler.decide(look(8, requests=1), 0.0) == 8
    assert scaler.decide(look(8, requests=0), 59.0) == 8
    assert scaler.decide(look(8, requests=0), 61.0) == 4
    assert scaler.decide(look(4, requests=0), 70.0) == 4
    assert scaler.decide(look(4, requests=0), 92.0) == 2
    assert scaler.decide(look(2, requests=0), 130.0) == 1
    assert scaler.decide(look(1, requests=0), 200.0) == 1


def test_it_keeps_within_its_limits() -> None:
    assert Autoscaler(Policy(3, 5)).decide(look(1), 0.0) == 3
    assert Autoscaler(Policy(3, 5)).decide(look(9), 0.0) == 5
    for least, most in ((3, 2), (0, 0), (-1, 4)):
        with pytest.raises(InvalidInput, match="--min"):
            Policy(least, most)
    with pytest.raises(InvalidInput, match="seconds"):
        Policy(1, 2, wait_seconds=0)
