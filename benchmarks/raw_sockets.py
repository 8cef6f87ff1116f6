"""The baseline of the door: bare blocking sockets making the same two hops, client to relay to worker and back.

Three processes, buffers made once, the same model, the same socket options, and nothing else. As with a server on one
host, the relay and the worker are always joined by a Unix socket; the client comes by ``unix`` or by ``tcp``.
"""

from __future__ import annotations

import importlib
import multiprocessing
import socket
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
from stage import answer

from demos_hpc.transport.tuning import tune

#: Bytes of a large array that are passed on, and rows' worth of them computed, at a time.
PIECE = 4 << 20


def join(kind: str) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection, set up as a server's are."""
    if kind == "unix":
        ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname())
            ends = near, listener.accept()[0]
    for end in ends:
        tune(end, 5.0)
    return ends


def take(sock: socket.socket, room: memoryview) -> None:
    """Fills ``room`` with what comes."""
    while room:
        n_bytes = sock.recv_into(room)
        if not n_bytes:
            sys.exit(0)
        room = room[n_bytes:]


def view(array: np.ndarray) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8))


def relay(client: socket.socket, worker: socket.socket) -> None:
    """Passes on whatever comes: small messages one after the other, large ones in both directions at once."""
    shape = np.empty(3)
    while True:
        take(client, view(shape))
        worker.sendall(shape)
        n, width, times = (int(value) for value in shape)
        n_bytes = 8 * (2 + n * width)
        if n_bytes <= PIECE:
            request, reply = memoryview(bytearray(n_bytes)), memoryview(bytearray(8 * n))
            for _ in range(times):
                take(client, request)
                worker.sendall(request)
                take(worker, reply)
                client.sendall(reply)
        else:
            returning = threading.Thread(target=pass_on, args=(worker, client, 8 * n * times))
            returning.start()
            pass_on(client, worker, n_bytes * times)
            returning.join()


def pass_on(source: socket.socket, target: socket.socket, n_bytes: int) -> None:
    """So many bytes, as they come."""
    room = memoryview(bytearray(PIECE))
    while n_bytes:
        got = source.recv_into(room[: min(PIECE, n_bytes)])
        if not got:
            sys.exit(0)
        target.sendall(room[:got])
        n_bytes -= got


def work(sock: socket.socket, compute: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    """Computes what comes, a piece at a time."""
    shape = np.empty(3)
    while True:
        take(sock, view(shape))
        n, width, times = (int(value) for value in shape)
        message = np.empty(2 + n * width)
        params, x = message[:2], message[2:].reshape(n, width)
        step = min(n, PIECE // (8 * width))
        pieces = [x[start : start + step] for start in range(0, n, step)]
        rooms = [view(message)] if len(pieces) == 1 else [view(piece) for piece in pieces]
        for _ in range(times):
            if len(pieces) > 1:
                take(sock, view(params))
            for piece, room in zip(pieces, rooms, strict=True):
                take(sock, room)
                sock.sendall(compute(piece, params))


def measure(n: int, times: int) -> float:
    """Seconds a request of n rows."""
    x = np.random.default_rng(1).normal(size=(n, model.d))
    message = np.concatenate([np.zeros(2), x.reshape(-1)])
    value = np.empty(n)
    room = view(value)
    client.sendall(np.array([n, model.d, times], dtype=np.float64))
    start = time.perf_counter()
    for _ in range(times):
        if message.nbytes <= PIECE:
            client.sendall(message)
            take(client, room)
        else:
            sending = threading.Thread(target=client.sendall, args=(message,))
            sending.start()
            take(client, room)
            sending.join()
    spent = time.perf_counter() - start
    assert np.array_equal(value, model.log_density(x, np.zeros(2)))
    return spent / times


if __name__ == "__main__":
    module, name = sys.argv[1].split(":")
    model = getattr(importlib.import_module(module), name)()
    client, to_client = join(sys.argv[2])
    to_worker, to_relay = join("unix")
    processes = multiprocessing.get_context("fork")
    for target, own in ((relay, (to_client, to_worker)), (work, (to_relay, model.log_density))):
        processes.Process(target=target, args=own, daemon=True).start()
    for end in (to_client, to_worker, to_relay):
        end.close()
    answer({"measure": measure})
