"""The doorbell: who sleeps is woken, and whoever waits takes no processor time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from demos_hpc.messages import Kind
from demos_hpc.transport.doorbell import LONGEST_BLIND_SLEEP
from demos_hpc.wire import pack

pytestmark = pytest.mark.mpi(min_size=2)


@pytest.mark.parametrize("bell", ["auto", "udp"])
def test_a_ring_wakes_who_sleeps(make_hall: Callable[..., Any], bell: str) -> None:
    """A token goes around while all others sleep; without the bell each hop would take a second."""
    hall, rounds = make_hall(bell=bell, yield_seconds=0.0), 20
    start = time.monotonic()
    if hall.rank == 0:
        hall.links[hall.next].send(pack(Kind.CANCEL, id=0))
    for nth in range(rounds):
        arrived: list[Any] = []
        while not arrived:
            arrived = hall.port.receive()
            if not arrived:
                assert time.monotonic() - start < 20
                hall.port.wait(1.0)
        assert arrived[0][1].header.id == nth * hall.size + (hall.rank - 1) % hall.size
        if hall.rank or nth < rounds - 1:
            hall.links[hall.next].send(pack(Kind.CANCEL, id=arrived[0][1].header.id + 1))
    elapsed = time.monotonic() - start
    longest = LONGEST_BLIND_SLEEP if bell == "udp" else 1.0
    assert elapsed < 0.5 * rounds * hall.size * longest
    hall.finish()


@pytest.mark.parametrize("bell", ["auto", "udp"])
def test_who_waits_takes_no_processor_time(make_hall: Callable[..., Any], bell: str) -> None:
    hall = make_hall(bell=bell)
    hall.meet()
    end = time.monotonic() + 1.0
    begin = time.process_time()
    while (left := end - time.monotonic()) > 0:
        assert hall.port.receive() == []
        hall.port.wait(left)
    assert time.process_time() - begin < 0.3
    hall.finish()


def test_a_wait_ends_in_time(hall: Any) -> None:
    for seconds in (0.0, 0.01):
        start = time.monotonic()
        hall.port.wait(seconds)
        assert time.monotonic() - start < 5.0
    hall.finish()


def test_a_ring_for_nothing_is_only_a_look(hall: Any) -> None:
    for rank in hall.links:
        hall.bell.ring(rank)
        hall.bell.nudge(rank)
    hall.meet()
    for _ in range(5):
        hall.port.wait(0.01)
        assert hall.port.receive() == []
    hall.finish()
