"""Tests inside one MPI world: every rank runs all of them, and all ranks agree on each verdict.

A rank that failed alone would leave the others waiting in the next test. `tests/test_mpi.py` starts them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from demos_hpc.config import Config
from demos_hpc.transport import Arrival
from demos_hpc.transport.doorbell import Doorbell

#: Seconds after which what has not come will not come.
PATIENCE = 20.0


def is_under_mpi(config: pytest.Config) -> bool:
    return bool(config.getoption("--with-mpi", default=False))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
    """What failed on one rank has failed on all."""
    report: Any = yield
    if not is_under_mpi(item.config) or call.when != "call":
        return report
    from mpi4py import MPI

    rank = MPI.COMM_WORLD.rank
    failed = np.zeros(MPI.COMM_WORLD.size, np.uint8)
    request = MPI.COMM_WORLD.Iallgather(np.array([report.failed], np.uint8), failed)
    while not request.Test():
        os.sched_yield()  # a blocking call would take the core away from those who still work
    failures = np.flatnonzero(failed).tolist()
    if failures and not report.failed:
        report.outcome = "failed"
        report.longrepr = f"rank {rank} passed; failed on rank {', '.join(map(str, failures))}"
    return report


@pytest.fixture(scope="session")
def world() -> Any:
    """``MPI.COMM_WORLD``."""
    from mpi4py import MPI

    return MPI.COMM_WORLD


def meet(comm: Any) -> None:
    """Until all ranks are here; a blocking barrier would wait for ever for one that has failed."""
    request, end = comm.Ibarrier(), time.monotonic() + PATIENCE
    while not request.Test():
        assert time.monotonic() < end, "some ranks did not come"
        os.sched_yield()


@pytest.fixture(name="meet")
def fixture_meet() -> Callable[[Any], None]:
    return meet


class Hall:
    """This rank, with a port, a bell, and a link to each other rank in a communicator of its own."""

    def __init__(self, world: Any, config: Config) -> None:
        from demos_hpc.transport import mpi

        self.comm = world.Dup()
        self.rank, self.size = world.rank, world.size
        self.bell = Doorbell(config.yield_seconds, by_udp=config.bell == "udp")
        token = self.comm.bcast(os.urandom(8).hex() if self.rank == 0 else None)
        self.bell.meet(self.comm.allgather(self.bell.address), self.rank, token)
        self.port = mpi.MpiPort(self.bell)
        others = [rank for rank in range(self.size) if rank != self.rank]
        links = self.port.add_links(self.comm, {rank: (rank, f"rank {rank}") for rank in others})
        self.links = dict(zip(others, links, strict=True))

    @property
    def next(self) -> int:
        return (self.rank + 1) % self.size

    @property
    def previous(self) -> int:
        return (self.rank - 1) % self.size

    def meet(self) -> None:
        meet(self.comm)

    def receive(self, count: int, *, patience: float = PATIENCE) -> list[Arrival]:
        """So many arrivals; fails where they do not come."""
        arrived: list[Arrival] = []
        end = time.monotonic() + patience
        while len(arrived) < count:
            arrived += (got := self.port.receive())
            if not got:
                assert time.monotonic() < end, f"{len(arrived)} of {count} frames came within {patience:g} s"
                self.port.wait(0.1)
        return arrived

    def finish(self) -> None:
        """Until all that was sent is sent, here and everywhere; nothing more may have come."""
        end = time.monotonic() + PATIENCE
        everywhere = self.comm.Ibarrier() if self.port.is_sent() else None
        while everywhere is None or not everywhere.Test():
            assert time.monotonic() < end, "something could not be sent"
            assert self.port.receive() == []
            if everywhere is None and self.port.is_sent():
                everywhere = self.comm.Ibarrier()
            self.port.wait(0.001)
        assert self.port.receive() == []


@pytest.fixture
def make_hall(world: Any) -> Iterator[Callable[..., Hall]]:
    """Makes a `Hall`, with settings of `Config`; all ranks together."""
    halls: list[Hall] = []

    def make(**settings: Any) -> Hall:
        halls.append(Hall(world, Config(**settings)))
        return halls[-1]

    yield make
    for hall in halls:
        hall.bell.close()


@pytest.fixture
def hall(make_hall: Callable[..., Hall]) -> Hall:
    return make_hall()
