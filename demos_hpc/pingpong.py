"""How long a message takes between two ranks: ``mpiexec -n 2 python -m demos_hpc.pingpong`` prints one JSON line.

Rank 0 exchanges small frames with each other rank in turn, over the same links as the service uses.
"""

from __future__ import annotations

import json
import os
import sys
import time
from statistics import median
from typing import TYPE_CHECKING

from .messages import Kind
from .transport.doorbell import Doorbell
from .watchdog import find_rank_and_size
from .wire import pack

if TYPE_CHECKING:
    from .transport.mpi import MpiLink, World

#: Exchanges before the clock runs, and of which the median is taken.
WARM_UP, EXCHANGES = 100, 1000
#: Seconds without an answer after which a rank gives up; others may have to share a core with many.
PATIENCE = 30.0


def main(exchanges: int) -> None:
    """Measures, and prints what was found on rank 0; a rank that is alone says so."""
    from .transport import mpi  # initializes MPI

    bell = Doorbell(0.0)
    world = mpi.World(bell)
    links = world.roll_links()
    seconds = [_lead(world, link, exchanges) for link in links] if world.rank == 0 else []
    if world.rank:
        _follow(world, links[0], exchanges)
    if world.rank == 0:
        library, threads = mpi.describe_library()
        place = find_rank_and_size()
        found = {
            "size": world.size,
            "launched": place[1] if place else 1,
            "library": library,
            "threads": threads,
            "microseconds": min(seconds) * 1e6 if seconds else None,
        }
        print(json.dumps(found), flush=True)
    bell.close()
    mpi.finalize()


def _lead(world: World, link: MpiLink, exchanges: int) -> float:
    """Seconds for one message, half of the median time there and back."""
    times = []
    for _ in range(WARM_UP + exchanges):
        start = time.perf_counter()
        link.send(pack(Kind.HELLO))
        _receive(world)
        times.append(time.perf_counter() - start)
    return median(times[WARM_UP:]) / 2


def _follow(world: World, link: MpiLink, exchanges: int) -> None:
    for _ in range(WARM_UP + exchanges):
        _receive(world)
        link.send(pack(Kind.HELLO))


def _receive(world: World) -> None:
    end = time.monotonic() + PATIENCE
    while not world.port.receive():
        os.sched_yield()
        if time.monotonic() > end:
            raise SystemExit(f"rank {world.rank}: no answer within {PATIENCE:g} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else EXCHANGES)
