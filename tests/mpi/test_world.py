"""Groups of one world and how they are joined, in the way that a launch does it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from demos_hpc.messages import Kind
from demos_hpc.transport.doorbell import Doorbell
from demos_hpc.wire import pack

pytestmark = pytest.mark.mpi(min_size=3)


def split(size: int) -> tuple[list[int], list[list[int]]]:
    """Ranks of the server, and of the groups of clients, in turns: they need not stand together."""
    servers = list(range(2 if size > 3 else 1))
    rest = list(range(len(servers), size))
    groups = [rest[i::3] for i in range(3)]
    return servers, [group for group in groups if group]


def test_groups_are_made_by_their_members_alone_and_joined_one_by_one(world: Any, meet: Callable[[Any], None]) -> None:
    from demos_hpc.transport import mpi

    bell = Doorbell(200e-6)
    bell.meet(world.allgather(bell.address), world.rank, world.bcast(os.urandom(8).hex()))
    here = mpi.World(bell)
    assert (here.rank, here.size) == (world.rank, world.size)
    servers, groups = split(here.size)
    is_server = here.rank in servers
    own = servers if is_server else next(group for group in groups if here.rank in group)
    group = here.make_group(own)
    assert (group.rank, group.size) == (own.index(here.rank), len(own))
    assert group.allgather(here.rank) == own  # a collective of the group alone
    port, links = mpi.MpiPort(bell), []
    for pair, ranks in enumerate(groups):
        if is_server:
            joined = here.join(group, ranks[0], pair, is_high=False)
            assert joined.size == len(servers) + len(ranks)
            if here.rank == 0:
                peers = {len(servers) + i: (rank, f"rank {rank}") for i, rank in enumerate(ranks)}
                links += port.add_links(joined, peers)
        elif ranks is own:
            joined = here.join(group, 0, pair, is_high=True)
            assert joined.rank == len(servers) + own.index(here.rank)
            links += port.add_links(joined, {0: (0, "rank 0")})
    data = np.random.default_rng(here.rank).normal(size=200_000)
    if not is_server:
        links[0].send(pack(Kind.REQUEST, [data], id=here.rank))
    n_expected = len(links) if here.rank == 0 else 0 if is_server else 1
    arrived, end = [], time.monotonic() + 20.0
    while len(arrived) < n_expected:
        for link, frame in port.receive():
            arrived.append((link, frame))
            if here.rank == 0:
                assert frame.header.id == link.peer
                link.send(pack(Kind.REPLY, [frame.arrays[0] * 2], id=link.peer))
            else:
                np.testing.assert_array_equal(frame.arrays[0], data * 2)
        port.wait(0.1)
        assert time.monotonic() < end
    while not port.is_sent():
        port.wait(0.1)
        assert time.monotonic() < end
    meet(world)
    bell.close()


def test_the_roll_is_called_over_a_star_of_links(world: Any, meet: Callable[[Any], None]) -> None:
    from demos_hpc.transport import mpi

    bell = Doorbell(200e-6)  # nobody is known yet
    here = mpi.World(bell)
    links = here.roll_links()
    if here.rank == 0:
        assert [link.name for link in links] == [f"rank {rank}" for rank in range(1, here.size)]
    else:
        assert [link.name for link in links] == ["rank 0"]
        links[0].send(pack(Kind.HELLO, id=here.rank))
    heard, end = set(), time.monotonic() + 20.0
    while here.rank == 0 and len(heard) < here.size - 1:
        assert time.monotonic() < end
        for link, frame in here.port.receive():
            assert link.name == f"rank {frame.header.id}"
            heard.add(link.name)
            link.send(pack(Kind.WELCOME, [np.zeros(100_000)], id=0))
        here.port.is_sent()
    while here.rank and not here.port.receive():
        assert time.monotonic() < end
    while not here.port.is_sent():
        assert time.monotonic() < end
    meet(world)
    bell.close()


def test_the_library_is_described() -> None:
    from demos_hpc.transport import mpi

    name, level = mpi.describe_library()
    assert any(word in name.lower() for word in ("mpich", "open mpi", "intel"))
    assert level in ("single", "funneled", "serialized", "multiple")
