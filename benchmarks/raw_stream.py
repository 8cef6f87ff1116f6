"""The peer of `data`: bare mpi4py passing so many bytes on, from a worker over a relay to a client, in pieces.

Three ranks, buffers made once, the same wait policy as the service, a window of four pieces, and nothing else.
"""

from __future__ import annotations

import time

import numpy as np
from mpi4py import MPI
from stage import answer

from demos_hpc.transport.doorbell import Doorbell

world = MPI.COMM_WORLD
RELAY, WORKER, CLIENT = range(3)
PIECE, WINDOW = 4 << 20, 4


class Rank:
    """Sends and receives pieces."""

    def __init__(self) -> None:
        self.bell = Doorbell(200e-6)
        self.bell.meet(world.allgather(self.bell.address), world.rank, world.bcast(f"stream{time.time_ns()}"))
        world.Barrier()

    def wait(self, requests: list[MPI.Request]) -> None:
        """Until one of them, the first, is over."""
        while not requests[0].Test():
            self.bell.wait(lambda: requests[0].Test() or MPI.Request.Testall(requests[1:]), 1e-4, is_stuck=True)
        self.bell.has_come()
        requests.pop(0)

    def send(self, piece: np.ndarray, to: int) -> MPI.Request:
        request = world.Isend([piece, MPI.BYTE], to)
        self.bell.ring(to)
        return request

    def receive(self, piece: np.ndarray, source: int) -> MPI.Request:
        return world.Irecv([piece, MPI.BYTE], source)


def work(rank: Rank, n_pieces: int) -> None:
    """Sends the same few pieces again and again."""
    pieces = np.random.default_rng(1).integers(0, 256, (WINDOW, PIECE), dtype=np.uint8)
    sending: list[MPI.Request] = []
    for nth in range(n_pieces):
        if len(sending) == WINDOW:
            rank.wait(sending)
        sending.append(rank.send(pieces[nth % WINDOW], RELAY))
    while sending:
        rank.wait(sending)


def relay(rank: Rank, n_pieces: int) -> None:
    """Passes each piece on once it has come."""
    pieces = np.empty((2 * WINDOW, PIECE), np.uint8)
    receiving = [rank.receive(pieces[nth], WORKER) for nth in range(min(WINDOW, n_pieces))]
    sending: list[MPI.Request] = []
    for nth in range(n_pieces):
        rank.wait(receiving)
        sending.append(rank.send(pieces[nth % len(pieces)], CLIENT))
        if len(sending) > WINDOW:
            rank.wait(sending)
        if nth + WINDOW < n_pieces:
            receiving.append(rank.receive(pieces[(nth + WINDOW) % len(pieces)], WORKER))
    while sending:
        rank.wait(sending)


def take(rank: Rank, out: np.ndarray) -> None:
    pieces = out.reshape(-1, PIECE)
    receiving = [rank.receive(piece, RELAY) for piece in pieces[:WINDOW]]
    for nth in range(len(pieces)):
        rank.wait(receiving)
        if nth + WINDOW < len(pieces):
            receiving.append(rank.receive(pieces[nth + WINDOW], RELAY))


def measure(n_bytes: int) -> float:
    """Seconds for so many bytes."""
    global out
    n_pieces = n_bytes // PIECE
    if len(out) != n_pieces * PIECE:
        out = np.ones(n_pieces * PIECE, np.uint8)
    world.bcast(n_pieces, CLIENT)
    start = time.perf_counter()
    take(rank, out)
    return time.perf_counter() - start


rank, out = Rank(), np.empty(0, np.uint8)
if world.rank == CLIENT:
    answer({"measure": measure})
    world.bcast(0, CLIENT)
else:
    while n_pieces := world.bcast(None, CLIENT):
        (work if world.rank == WORKER else relay)(rank, n_pieces)
world.Barrier()
rank.bell.close()
