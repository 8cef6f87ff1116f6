"""The baseline: bare mpi4py making the same two hops, client to relay to worker and back.

Three ranks, buffers made once, the same model and the same wait policy as the service, and nothing else.
Rank 0 relays, rank 1 computes, rank 2 asks and measures.
"""

from __future__ import annotations

import importlib
import sys
import time

import numpy as np
from mpi4py import MPI
from stage import answer

from demos_hpc.transport.doorbell import Doorbell

world = MPI.COMM_WORLD
RELAY, WORKER, CLIENT = range(3)
STOP, HEAD, DATA = 9, 1, 2
PIECE = 4 << 20


class Rank:
    """Sends and receives whole float64 arrays, in pieces where they are large."""

    def __init__(self) -> None:
        self.bell = Doorbell(200e-6)
        self.bell.meet(world.allgather(self.bell.address), world.rank, world.bcast(f"raw{time.time_ns()}"))
        world.Barrier()
        self.sending: list[MPI.Request] = []

    def send(self, array: np.ndarray, to: int) -> None:
        flat = array.reshape(-1).view(np.uint8)
        for start in range(0, max(len(flat), 1), PIECE):
            self.sending.append(world.Isend([flat[start : start + PIECE], MPI.BYTE], to, DATA))
        self.bell.ring(to)

    def receive(self, array: np.ndarray, source: int) -> None:
        flat = array.reshape(-1).view(np.uint8)
        self._wait(lambda: world.Iprobe(source, DATA))
        if len(flat) <= PIECE:
            world.Recv([flat, MPI.BYTE], source, DATA)
            self.bell.nudge(source)
            return
        starts = range(0, len(flat), PIECE)
        requests = [world.Irecv([flat[start : start + PIECE], MPI.BYTE], source, DATA) for start in starts]
        self.bell.spin(lambda: MPI.Request.Testall(requests), time.perf_counter() + 1.0)
        self.bell.nudge(source)

    def _wait(self, has_come) -> None:
        while not has_come():
            self.bell.wait(has_come, 1e-3 if self.sending else 1.0, is_stuck=bool(self.sending))
            self.sending = [request for request in self.sending if not request.Test()]
        self.bell.has_come()

    def flush(self) -> None:
        self._wait(lambda: MPI.Request.Testall(self.sending))
        self.sending = []


def relay(rank: Rank) -> None:
    """Passes requests on until told to stop."""
    shape = np.empty(3)
    while True:
        rank.receive(shape, CLIENT)
        rank.send(shape, WORKER)
        n, d, times = (int(value) for value in shape)
        if not n:
            rank.flush()
            return
        buffers = [(np.empty((n, d)), np.empty(n)) for _ in range(4)]
        asked = answered = 0
        # Several requests may be in flight: look at both sides.
        while answered < times:
            moved = False
            if asked < times and world.Iprobe(CLIENT, DATA):
                rank.receive(buffers[asked % 4][0], CLIENT)
                rank.send(buffers[asked % 4][0], WORKER)
                asked += 1
                moved = True
            if world.Iprobe(WORKER, DATA):
                rank.receive(buffers[answered % 4][1], WORKER)
                rank.send(buffers[answered % 4][1], CLIENT)
                answered += 1
                moved = True
            if moved:
                rank.bell.has_come()
            else:
                rank.sending = [request for request in rank.sending if not request.Test()]
                rank.bell.wait(lambda: world.Iprobe(CLIENT, DATA) or world.Iprobe(WORKER, DATA), 1e-3)


def work(rank: Rank, model, params: np.ndarray) -> None:
    shape = np.empty(3)
    while True:
        rank.receive(shape, RELAY)
        n, d, times = (int(value) for value in shape)
        if not n:
            return
        x = np.empty((n, d))
        for _ in range(times):
            rank.receive(x, RELAY)
            value = model.log_density(x, params)
            rank.send(value, RELAY)
        rank.flush()


def measure(rank: Rank, model, params: np.ndarray, n: int, times: int, in_flight: int = 1) -> float:
    """Seconds a request."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(n, model.d))
    out = [np.empty(n) for _ in range(4)]
    rank.send(np.array([n, model.d, times], dtype=np.float64), RELAY)
    asked = 0
    start = time.perf_counter()
    for done in range(times):
        while asked < times and asked - done < in_flight:
            rank.send(x, RELAY)
            asked += 1
        rank.receive(out[done % 4], RELAY)
    spent = time.perf_counter() - start
    assert np.array_equal(out[0], model.log_density(x, params))
    rank.flush()
    return spent / times


def main() -> None:
    module, name = sys.argv[1].split(":")
    model = getattr(importlib.import_module(module), name)()
    rank, params = Rank(), np.zeros(2)
    if world.rank == RELAY:
        relay(rank)
    elif world.rank == WORKER:
        work(rank, model, params)
    else:
        answer({"measure": lambda **arguments: measure(rank, model, params, **arguments)})
        rank.send(np.zeros(3), RELAY)
        rank.flush()
    world.Barrier()
    rank.bell.close()


if __name__ == "__main__":
    main()
