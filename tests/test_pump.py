"""Bytes passed on between two sockets, both ways, with an end for each direction."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from inside import SOON

from demos_hpc.certificates import client_context, make_certificate, server_context
from demos_hpc.pump import BUFFER_BYTES, Pump

DATA = np.random.default_rng(3).bytes(20 * BUFFER_BYTES + 17)


class Line:
    """A server's socket and a program's, with a pump between."""

    def __init__(self, far: socket.socket, server: socket.socket) -> None:
        near, self.program = socket.socketpair()
        self.server = server
        for sock in (self.program, self.server):
            sock.settimeout(SOON)
        self.pump = Pump(far, near)
        self.pump.start()

    def close(self) -> None:
        self.server.close()
        self.program.close()
        self.pump.end(SOON)


@pytest.fixture(params=["plain", "tls"])
def line(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Line]:
    far, server = socket.socketpair()
    if request.param == "tls":
        certificate = make_certificate(tmp_path)
        ends: list[ssl.SSLSocket] = []
        context = server_context(certificate.path)
        thread = threading.Thread(target=lambda: ends.append(context.wrap_socket(server, server_side=True)))
        thread.start()
        far = client_context().wrap_socket(far)
        thread.join()
        server = ends[0]
    line = Line(far, server)
    yield line
    line.close()
    assert not line.pump.is_alive()


def read(sock: socket.socket, size: int) -> bytes:
    """So many bytes, or those until the end."""
    data = bytearray()
    while len(data) < size and (part := sock.recv(min(size - len(data), 1 << 16))):
        data += part
    return bytes(data)


def test_bytes_pass_both_ways(line: Line) -> None:
    def send_back() -> None:
        for start in range(0, len(DATA), 1 << 15):
            line.program.sendall(read(line.program, len(DATA[start : start + (1 << 15)])))

    echo = threading.Thread(target=send_back)
    echo.start()
    for start in range(0, len(DATA), BUFFER_BYTES):
        part = DATA[start : start + BUFFER_BYTES]
        line.server.sendall(part)
        assert read(line.server, len(part)) == part
    echo.join()


def test_what_was_sent_before_the_end_arrives(line: Line) -> None:
    sender = threading.Thread(target=lambda: (line.program.sendall(DATA), line.program.close()))
    sender.start()
    assert read(line.server, len(DATA) + 1) == DATA
    sender.join()
    line.server.close()
    line.pump.join(SOON)
    assert not line.pump.is_lost


@pytest.mark.parametrize("line", ["plain"], indirect=True)
def test_one_end_is_not_the_end_of_the_other(line: Line) -> None:
    line.program.sendall(b"that is all")
    line.program.shutdown(socket.SHUT_WR)
    assert read(line.server, 100) == b"that is all"
    for word in (b"one", b"two"):
        line.server.sendall(word)
        assert line.program.recv(100) == word
    line.server.close()
    assert line.program.recv(100) == b""
    line.pump.join(SOON)
    assert not line.pump.is_lost


def test_a_server_that_goes_first_is_lost(line: Line) -> None:
    line.program.sendall(b"a")
    assert line.server.recv(1) == b"a"
    line.server.close()
    assert line.program.recv(100) == b""
    line.program.close()
    line.pump.join(SOON)
    assert line.pump.is_lost


def test_a_program_that_goes_takes_the_connection_along(line: Line) -> None:
    line.server.sendall(b"unread")
    line.program.close()
    assert line.server.recv(100) == b""
    line.server.close()
    line.pump.join(SOON)
    assert not line.pump.is_lost


def test_what_nobody_takes_is_not_kept(line: Line) -> None:
    """Whoever sends to a program that does not read has to wait."""
    line.server.setblocking(False)
    sent = 0
    with pytest.raises((BlockingIOError, ssl.SSLWantWriteError)):  # noqa: PT012
        while True:
            sent += line.server.send(DATA[: 1 << 16])
            assert sent < len(DATA)
    line.pump.end(0.0)
    assert not line.pump.is_alive()
