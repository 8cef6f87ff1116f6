"""Frames over sockets: in both directions at once, cut short, refused, reset, and by many."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from demos_hpc.certificates import client_context, make_certificate, server_context
from demos_hpc.errors import BadFrame, BadVersion, DemosError, ServerLost
from demos_hpc.messages import Array, Kind
from demos_hpc.transport import MOST_BYTES, PARTING, Link, tcp, tuning
from demos_hpc.transport.compression import Compressor
from demos_hpc.transport.tcp import READ_BYTES, StreamLink, StreamPort
from demos_hpc.transport.tuning import tune
from demos_hpc.wire import ALIGNMENT, INLINE_BYTES, OFFSETS, Frame, Header, Layout, Packed, pack, read_header

#: Seconds until something that has not come never will.
DEADLINE = 30.0
KINDS = ("unix", "tcp", "tls")
RNG = np.random.default_rng(3)


class Side:
    """A port with one link or more, and whatever has come in over them."""

    def __init__(self) -> None:
        self.port = StreamPort()
        self.links: list[StreamLink] = []
        self.frames: list[Frame] = []
        self.errors: list[DemosError] = []
        self.arrived: list[tuple[Link, Frame | DemosError]] = []

    @property
    def link(self) -> StreamLink:
        return self.links[-1]

    def add(self, sock: socket.socket, name: str = "peer") -> StreamLink:
        self.links.append(self.port.add(sock, name))
        return self.link

    def take(self, seconds: float = 0.0) -> None:
        self.port.wait(seconds)
        for link, what in self.port.receive():
            self.arrived.append((link, what))
            if isinstance(what, Frame):
                self.frames.append(what)
            else:
                self.errors.append(what)

    @property
    def ids(self) -> list[int]:
        return [frame.header.id for frame in self.frames]


def pump(*sides: Side, until: Callable[[], bool]) -> None:
    """Lets all move until something is so."""
    end = time.monotonic() + DEADLINE
    while not until():
        assert time.monotonic() < end, "it never came to this"
        for side in sides:
            side.take()
        sides[0].port.wait(1e-3)


def settle(*sides: Side) -> None:
    """Until nobody has anything to do any more."""
    end = time.monotonic() + DEADLINE
    while any(side.port.look() for side in sides):
        assert time.monotonic() < end, "it never came to rest"
        for side in sides:
            side.take()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("cryptography")
    return make_certificate(tmp_path_factory.mktemp("tls")).path


class Wires:
    """Makes pairs of sides, and closes them."""

    def __init__(self, kind: str, certificate: Callable[[], Path]) -> None:
        self.kind = kind
        self._certificate = certificate
        self._sides: list[Side] = []

    def make_side(self) -> Side:
        self._sides.append(Side())
        return self._sides[-1]

    def make_sockets(self, buffer_bytes: int = 0) -> tuple[socket.socket, socket.socket]:
        if self.kind == "unix":
            ends = socket.socketpair()
        else:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                there = socket.create_connection(listener.getsockname())
                ends = listener.accept()[0], there
        for end in ends:
            if self.kind != "unix":
                tune(end, 60.0)
            if buffer_bytes:  # a small window for receiving would bring the timers of TCP into play
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
        return ends

    def make_pair(self, buffer_bytes: int = 0) -> tuple[Side, Side]:
        here, there = self.make_side(), self.make_side()
        self.connect(here, there, buffer_bytes)
        return here, there

    def connect(self, here: Side, there: Side, buffer_bytes: int = 0) -> None:
        """A link from ``there`` to ``here``, whose handshake is done as a server's is."""
        mine, its = self.make_sockets(buffer_bytes)
        if self.kind != "tls":
            here.add(mine)
            there.add(its)
            return
        context = server_context(self._certificate())
        here.add(context.wrap_socket(mine, server_side=True, do_handshake_on_connect=False))
        its.setblocking(False)
        wrapped = client_context().wrap_socket(its, do_handshake_on_connect=False)
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            try:
                wrapped.do_handshake()
                break
            except ssl.SSLWantReadError:
                here.take(1e-3)
        there.add(wrapped)

    def close(self) -> None:
        for side in self._sides:
            side.port.close()


@pytest.fixture(params=KINDS)
def wires(request: pytest.FixtureRequest) -> Iterator[Wires]:
    made = Wires(request.param, lambda: request.getfixturevalue("certificate"))
    yield made
    made.close()


@pytest.fixture
def plain() -> Iterator[Wires]:
    """Unix sockets only, for what does not depend on them."""
    made = Wires("unix", Path)
    yield made
    made.close()


def make_frames(n: int, seed: int) -> list[list[Array]]:
    """Small and large, empty and odd, in an order by chance."""
    rng = np.random.default_rng(seed)
    kinds: list[Callable[[], list[Array]]] = [
        list,
        lambda: [rng.normal(size=3)],
        lambda: [rng.integers(0, 9, 5, dtype=np.uint8)],
        lambda: [np.empty((0, 4)), rng.normal(size=(7, 3))],
        lambda: [rng.normal(size=(3000, 2)), rng.integers(0, 9, 11, dtype=np.uint8), rng.normal(size=2500)],
        lambda: [rng.integers(0, 255, INLINE_BYTES + 3, dtype=np.uint8)],
        lambda: [rng.normal(size=70_001)],
    ]
    return [kinds[rng.integers(len(kinds))]() for _ in range(n)]


def assert_same(frames: list[Frame], contents: list[list[Array]]) -> None:
    assert [frame.header.id for frame in frames] == list(range(len(contents)))
    for frame, arrays in zip(frames, contents, strict=True):
        assert [a.tobytes() for a in frame.arrays] == [a.tobytes() for a in arrays]
        assert [(a.dtype, a.shape) for a in frame.arrays] == [(a.dtype, a.shape) for a in arrays]


def spell(packed: Packed) -> bytes:
    data = b"".join([bytes(packed.head), *(array.tobytes() for array in packed.tail)])
    return data + bytes(-len(data) % ALIGNMENT)


def count_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def reset(sock: socket.socket) -> None:
    """Closes a connection of TCP rudely."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# ---- there and back ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffer_bytes", [0, 4096])
def test_both_directions_at_once(wires: Wires, buffer_bytes: int) -> None:
    """Neither side reads until both have sent all they have: nothing may block, and sends are cut anywhere."""
    here, there = wires.make_pair(buffer_bytes)
    contents = {here: make_frames(60, 1), there: make_frames(60, 2)}
    for side, frames in contents.items():
        for nth, arrays in enumerate(frames):
            side.link.send(pack(Kind.ROWS, arrays, id=nth))
            assert side.link.unsent_bytes == sum(map(len, side.link._outgoing))
        assert side.link.unsent_bytes > 0
    pump(here, there, until=lambda: len(here.frames) == len(there.frames) == 60)
    assert_same(here.frames, contents[there])
    assert_same(there.frames, contents[here])
    assert here.link.unsent_bytes == there.link.unsent_bytes == 0
    assert not here.port.sending
    assert not there.port.sending
    assert not here.errors + there.errors
    settle(here, there)  # and nobody is woken for room that nobody needs


def test_sending_never_waits_and_says_how_much_is_left(wires: Wires) -> None:
    here, there = wires.make_pair()
    data = np.arange(3 << 20, dtype=np.float64)
    begun = time.monotonic()
    for nth in range(3):
        here.link.send(pack(Kind.ROWS, [data], id=nth))
    here.port.flush(0.05)
    assert time.monotonic() - begun < DEADLINE / 3
    total = 3 * (64 + 16 + data.nbytes)
    left = here.link.unsent_bytes
    assert total / 2 < left < total
    while here.link.unsent_bytes == left:  # flushing alone is enough, once the other side takes something
        assert time.monotonic() - begun < DEADLINE
        there.take()
        here.port.flush(0.01)
    pump(there, here, until=lambda: len(there.frames) == 3)
    assert here.link.unsent_bytes == 0
    for frame in there.frames:
        np.testing.assert_array_equal(frame.arrays[0], data)


def test_what_is_sent_is_kept_until_it_has_left(wires: Wires) -> None:
    here, there = wires.make_pair(4096)
    for nth in range(30):
        here.link.send(pack(Kind.ROWS, [np.full(9000, float(nth))], id=nth))
    scribble = [np.full(9000, -1.0) for _ in range(60)]  # would be seen in memory that was given back
    pump(here, there, until=lambda: len(there.frames) == 30)
    assert [set(frame.arrays[0]) for frame in there.frames] == [{float(nth)} for nth in range(30)]
    assert len(scribble) == 60


def test_large_arrays_land_where_the_receiver_wants_them(wires: Wires) -> None:
    here, there = wires.make_pair()
    rooms: list[Array] = []

    def place(link: Link, header: Header, layout: Layout) -> list[Array]:
        assert link is there.link
        assert header.id == 5
        rooms.extend(np.full(shape, np.nan) for shape in layout.shapes)
        return rooms

    there.port.place = place
    sent = [RNG.normal(size=(5000, 3)), RNG.normal(size=20_000)]
    here.link.send(pack(Kind.ROWS, sent, id=5))
    pump(here, there, until=lambda: bool(there.frames))
    for mine, room, array in zip(there.frames[0].arrays, rooms, sent, strict=True):
        assert mine is room
        np.testing.assert_array_equal(room, array)


def test_what_says_no_room_ends_the_link_and_nothing_else(wires: Wires) -> None:
    here, there = wires.make_pair()
    wires.connect(there, here)

    def place(link: Link, header: Header, layout: Layout) -> list[Array]:
        raise BadFrame(f"{header.payload} bytes are too many")

    there.port.place = place
    bad, good = here.links
    bad.send(pack(Kind.ROWS, [np.zeros(5000)], id=1))
    bad.send(pack(Kind.CANCEL, id=2))
    good.send(pack(Kind.CANCEL, id=3))
    pump(here, there, until=lambda: bool(there.errors) and bool(there.frames))
    settle(here, there)
    (error,) = there.errors
    assert type(error) is BadFrame
    assert there.ids == [3]
    there.links[0].send(pack(Kind.END, id=9))  # what is wrong may still be said
    pump(here, there, until=lambda: bool(here.frames))
    assert here.ids == [9]


def test_names_of_ways(wires: Wires) -> None:
    here, there = wires.make_pair()
    assert here.link.transport == there.link.transport == ("unix" if wires.kind == "unix" else "tcp")
    assert f"peer: {here.link.transport}" in repr(here.link)


def test_a_faster_link_beside_it_takes_frames_and_this_one_stays(plain: Wires) -> None:
    here, there = plain.make_pair()
    sent: list[Packed] = []
    here.link.faster = SimpleNamespace(transport="shm", send=sent.append, unsent_bytes=7)
    here.link.send(pack(Kind.CANCEL, id=1))
    here.link.send_here(pack(Kind.CANCEL, id=2))
    pump(here, there, until=lambda: bool(there.frames))
    assert there.ids == [2]
    assert [read_header(packed.head).id for packed in sent] == [1]
    assert here.link.transport == "shm"
    assert ": shm, 7 bytes" in repr(here.link)


def test_waiting_ends_when_something_comes(wires: Wires) -> None:
    here, there = wires.make_pair()
    settle(here, there)
    assert not there.port.look()
    here.link.send(pack(Kind.CANCEL, id=1))
    begun = time.monotonic()
    there.port.wait(DEADLINE)
    assert time.monotonic() - begun < DEADLINE / 2
    assert there.port.look()
    assert len(there.port.receive()) == 1
    assert there.port.receive() == []


def test_it_is_known_when_a_peer_was_last_heard(plain: Wires, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = plain.make_pair()
    monkeypatch.setattr(tcp, "time", SimpleNamespace(monotonic=lambda: 1e6, perf_counter=time.perf_counter))
    there.take()
    assert there.link.heard < 1e6
    here.link.send(pack(Kind.CANCEL))
    pump(there, until=lambda: bool(there.frames))
    assert there.link.heard == 1e6
    # A part of a frame is a sign of life as well.
    monkeypatch.setattr(tcp, "time", SimpleNamespace(monotonic=lambda: 2e6, perf_counter=time.perf_counter))
    here.link.sock.send(bytes(pack(Kind.CANCEL).head[:10]))
    pump(there, until=lambda: there.link.heard == 2e6)


def test_an_odd_end_is_padded(plain: Wires) -> None:
    """A frame of 5 bytes leaves with its padding: its reader does not have to wait for the next one."""
    here, there = plain.make_pair()
    for n_bytes in (5, INLINE_BYTES + 5):
        here.link.send(pack(Kind.ROWS, [np.arange(n_bytes).astype(np.uint8)], id=n_bytes))
    pump(here, there, until=lambda: len(there.frames) == 2)
    assert there.ids == [5, INLINE_BYTES + 5]


# ---- ends ----------------------------------------------------------------------------------------------------


def test_a_close_in_mid_frame_is_a_loss_and_no_frame(wires: Wires) -> None:
    here, there = wires.make_pair(4096)
    here.link.send(pack(Kind.CANCEL, id=1))
    here.link.send(pack(Kind.ROWS, [np.ones(1 << 16)], id=2))
    pump(there, until=lambda: there.link._inflow.hole is not None)
    here.link.close()
    pump(there, until=lambda: bool(there.errors))
    assert there.ids == [1]
    assert type(there.errors[0]) is ServerLost
    assert there.link.is_closed
    assert "closed" in repr(there.link)
    there.link.send(pack(Kind.CANCEL))
    there.take()
    assert len(there.errors) == 1


@pytest.mark.parametrize("wires", ["tcp", "tls"], indirect=True)
def test_a_reset_is_a_loss(wires: Wires) -> None:
    here, there = wires.make_pair()
    reset(there.link.sock)
    there.port._links.clear()
    for nth in range(3):
        here.link.send(pack(Kind.ROWS, [np.ones(1 << 16)], id=nth))
    pump(here, until=lambda: bool(here.errors))
    (error,) = here.errors
    assert type(error) is ServerLost
    assert "peer" in str(error)
    assert here.link.is_closed
    assert here.link.unsent_bytes == 0
    assert not here.port.sending


def test_what_came_before_the_end_is_taken_first(wires: Wires) -> None:
    here, there = wires.make_pair()
    for nth in range(5):
        here.link.send(pack(Kind.ROWS, [np.ones(4000)], id=nth))
    here.port.flush(DEADLINE)
    here.link.close()
    pump(there, until=lambda: bool(there.errors))
    assert there.ids == [0, 1, 2, 3, 4]
    assert [type(what) for _, what in there.arrived] == [Frame] * 5 + [ServerLost]


def test_a_peer_that_takes_nothing_more_is_found_when_reading(wires: Wires) -> None:
    here, there = wires.make_pair()
    there.port.close()
    for nth in range(100):
        here.link.send(pack(Kind.ROWS, [np.ones(4000)], id=nth))
    pump(here, until=lambda: bool(here.errors))
    assert type(here.errors[0]) is ServerLost
    assert here.link.unsent_bytes == 0


class Faulty(socket.socket):
    """A socket that fails after so many bytes, for a reason that passes."""

    room = 100

    def send(self, data: Any, flags: int = 0) -> int:
        return self.sendmsg([data])

    def sendmsg(self, buffers: Any, *_: Any) -> int:
        if not self.room:
            raise OSError(errno.ENOBUFS, "No buffer space available")
        sent = super().send(b"".join(buffers)[: self.room])
        self.room -= sent
        return sent


def test_half_a_frame_is_never_followed_by_another(plain: Wires) -> None:
    mine, its = plain.make_sockets()
    here, there = plain.make_side(), plain.make_side()
    here.add(Faulty(fileno=mine.detach()))
    there.add(its)
    here.link.send(pack(Kind.ROWS, [np.ones(30)], id=1))
    Faulty.room = 1 << 20
    here.link.send(pack(Kind.CANCEL, id=2))
    pump(here, there, until=lambda: bool(here.errors) and bool(there.errors))
    assert there.frames == []
    assert [type(error) for error in here.errors + there.errors] == [ServerLost, ServerLost]


@pytest.mark.parametrize("n_rows", [10, 1 << 18])
def test_parting_delivers_what_was_sent(wires: Wires, n_rows: int) -> None:
    """Also where the other side goes on sending, and its bytes lie unread when the socket is closed."""
    here, there = wires.make_pair()
    there.link.send(pack(Kind.ROWS, [np.ones(1 << 16)], id=7))
    for nth in range(3):
        here.link.send(pack(Kind.ROWS, [np.full(n_rows, float(nth))], id=nth))
    here.link.part()
    here.link.send(pack(Kind.ROWS, id=99))
    pump(here, there, until=lambda: bool(there.errors))
    assert there.ids == [0, 1, 2]
    assert [frame.arrays[0].sum() for frame in there.frames] == [0.0, n_rows, 2.0 * n_rows]
    assert type(there.errors[0]) is ServerLost
    pump(here, until=lambda: here.link.is_closed)
    assert here.frames == []
    assert here.errors == []
    assert not here.port.parting
    assert not here.port.sending


def test_parting_from_somebody_who_does_not_take_it_ends_by_the_clock(wires: Wires) -> None:
    here, there = wires.make_pair(4096)
    here.link.send(pack(Kind.ROWS, [np.ones(1 << 18)], id=1))
    here.link.part()
    assert here.link.parting is not None
    here.port.sweep(here.link.parting - 0.01)
    assert not here.link.is_closed
    assert here.link.parting - time.monotonic() == pytest.approx(PARTING, abs=PARTING / 2)
    here.port.sweep(here.link.parting)
    assert here.link.is_closed
    assert here.link.unsent_bytes == 0
    assert not here.port.parting
    pump(there, until=lambda: bool(there.errors))
    assert there.frames == []


def test_parting_from_somebody_who_is_gone_leaves_nothing_behind(plain: Wires) -> None:
    """A dispatcher parts from everybody that it loses: whatever that leaves is left a million times."""
    here, there = plain.make_pair()
    there.port.close()
    pump(here, until=lambda: bool(here.errors))
    here.link.part()
    here.port.sweep(time.monotonic() + 2 * PARTING)
    assert not here.port.parting
    assert not here.port._links


def test_parting_twice_does_not_take_longer(plain: Wires) -> None:
    here, _ = plain.make_pair()
    here.link.part()
    until = here.link.parting
    here.link.part()
    assert here.link.parting == until


def test_a_closed_port_is_closed(wires: Wires) -> None:
    before = count_files()
    here, there = wires.make_pair()
    here.link.send(pack(Kind.ROWS, [np.ones(1 << 20)]))
    here.port.close()
    here.port.close()
    there.port.close()
    assert here.link.is_closed
    here.link.send(pack(Kind.CANCEL))
    here.link.part()
    here.port.flush(1.0)
    assert count_files() == before


# ---- what is no frame ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [BadFrame, BadVersion])
def test_garbage_is_told_once_and_then_nothing_is_heard(wires: Wires, kind: type[DemosError]) -> None:
    here, there = wires.make_pair()
    bad = bytearray(pack(Kind.CANCEL, id=1).head)
    bad[OFFSETS["magic"] if kind is BadFrame else OFFSETS["major"]] = 9
    here.link.send(pack(Kind.CANCEL, id=1))
    here.link.send(Packed(bad, ()))
    here.link.send(pack(Kind.CANCEL, id=2))
    pump(here, there, until=lambda: bool(there.errors))
    here.link.send(pack(Kind.CANCEL, id=3))
    settle(here, there)
    assert there.ids == [1]
    assert [type(error) for error in there.errors] == [kind]
    there.link.send(pack(Kind.END, id=4))
    there.link.part()
    pump(here, there, until=lambda: bool(here.errors))
    assert here.ids == [4]


def test_a_frame_of_any_kind_is_passed_on_but_rings(plain: Wires) -> None:
    here, there = plain.make_pair()
    kinds = [kind for kind in range(256) if kind not in (Kind.RING, Kind.COMPRESSED)]
    for kind in [*kinds, Kind.RING]:
        here.link.send(pack(kind))
    pump(here, there, until=lambda: len(there.frames) >= len(kinds))
    settle(here, there)
    assert [frame.header.kind for frame in there.frames] == kinds


# ---- rings ---------------------------------------------------------------------------------------------------


def test_rings_are_few_and_wake_without_being_seen(plain: Wires, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = plain.make_pair()
    clock = SimpleNamespace(now=5.0)
    monkeypatch.setattr(tcp, "time", SimpleNamespace(monotonic=time.monotonic, perf_counter=lambda: clock.now))
    for _ in range(10):
        here.link.ring()
    clock.now += 2 * tcp.RING_SECONDS
    here.link.ring()
    peer = there.link.sock
    assert len(peer.recv(1 << 16, socket.MSG_PEEK)) == 2 * 64
    assert there.port.look()  # it wakes
    there.take()
    assert there.arrived == []
    # Whoever has something to read anyway needs no ring, and a ring in mid-frame would be read as its data.
    here.link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    here.link.send(pack(Kind.ROWS, [np.ones(1 << 18)], id=1))
    clock.now += 1.0
    unsent = here.link.unsent_bytes
    here.link.ring()
    assert here.link.unsent_bytes == unsent
    pump(here, there, until=lambda: bool(there.frames))
    assert there.frames[0].arrays[0].all()


# ---- many, and greedy ones -----------------------------------------------------------------------------------


class Endless(socket.socket):
    """A socket that has always more to read, and takes whatever is sent."""

    stream = b""
    n_read = n_sent = 0

    def recv_into(self, buffer: Any, *_: Any) -> int:
        n_bytes = len(buffer)
        view = memoryview(buffer).cast("B")
        at = self.n_read % len(self.stream)
        data = (self.stream[at:] + self.stream * (1 + n_bytes // len(self.stream)))[:n_bytes]
        view[:n_bytes] = data
        self.n_read += n_bytes
        return n_bytes

    def sendmsg(self, buffers: Any, *_: Any) -> int:
        n_bytes = min(READ_BYTES, sum(map(len, buffers)))
        self.n_sent += n_bytes
        return n_bytes


def make_endless(wires: Wires, side: Side, stream: bytes) -> Endless:
    mine, its = wires.make_sockets()
    its.send(b"x")  # there is something to read
    its.detach()
    endless = Endless(fileno=mine.detach())
    endless.stream = stream
    side.add(endless, "endless")
    return endless


@pytest.mark.parametrize("arrays", [[], [np.ones(1 << 16)]], ids=["small frames", "large frames"])
def test_one_that_sends_without_end_starves_nobody(plain: Wires, arrays: list[Array]) -> None:
    here, there = plain.make_pair()
    endless = make_endless(plain, here, spell(pack(Kind.ROWS, arrays, id=1)))
    there.link.send(pack(Kind.CANCEL, id=2))
    here.take()
    assert 2 in here.ids
    assert MOST_BYTES <= endless.n_read < 3 * MOST_BYTES
    assert here.ids.count(1) == endless.n_read // len(endless.stream)
    here.links[1].part()
    endless.n_read = 0
    there.link.send(pack(Kind.CANCEL, id=3))
    here.take()  # what comes from one that is being parted from has no end either
    here.take()
    assert 3 in here.ids
    assert READ_BYTES <= endless.n_read < 3 * MOST_BYTES


def test_one_that_takes_without_end_starves_nobody(plain: Wires) -> None:
    here = plain.make_side()
    endless = make_endless(plain, here, spell(pack(Kind.ROWS, [np.ones(1 << 16)])))
    here.link.send(pack(Kind.ROWS, [np.ones(2 * MOST_BYTES)]))
    assert MOST_BYTES <= endless.n_sent < 2 * MOST_BYTES
    for _ in range(20):
        here.take()
    assert endless.n_sent == 16 * MOST_BYTES + 64 + 16
    assert here.link.unsent_bytes == 0


def test_two_hundred_links(wires: Wires) -> None:
    before = count_files()
    here, there = wires.make_side(), wires.make_side()
    n = 200 if wires.kind != "tls" else 40
    for _ in range(n):
        wires.connect(here, there)
    for nth, caller in enumerate(there.links):
        caller.send(pack(Kind.REQUEST, [np.full(10 if nth % 2 else 5000, float(nth))], id=nth))
    pump(here, there, until=lambda: len(here.frames) == n)
    assert sorted(here.ids) == list(range(n))
    for link, what in here.arrived:
        assert isinstance(what, Frame)
        assert link == here.links[what.header.id]
        assert set(what.arrays[0]) == {float(what.header.id)}
        link.send(pack(Kind.REPLY, id=what.header.id))
    pump(there, until=lambda: len(there.frames) == n)
    for caller in there.links[::2]:
        caller.close()
    pump(here, there, until=lambda: len(here.errors) == n // 2)
    assert len(here.port._links) == n // 2
    here.port.close()
    there.port.close()
    assert count_files() == before


# ---- listening -----------------------------------------------------------------------------------------------


def listen(side: Side, *, unix: bool = False) -> tuple[socket.socket, Callable[[], socket.socket]]:
    """A listener whose guests become links, and how to connect to it."""
    if unix:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind("")  # the kernel finds a name
        listener.listen(100)
    else:
        listener = socket.create_server(("127.0.0.1", 0), backlog=100)
    address = listener.getsockname()

    def welcome(sock: socket.socket) -> None:
        side.add(sock)

    side.port.listen(listener, welcome)

    def connect() -> socket.socket:
        with contextlib.ExitStack() as stack:
            sock = stack.enter_context(socket.socket(listener.family, socket.SOCK_STREAM))
            sock.settimeout(DEADLINE)
            sock.connect(address)
            stack.pop_all()
        return sock

    return listener, connect


@pytest.mark.parametrize("unix", [False, True])
def test_who_connects_is_welcomed(plain: Wires, unix: bool) -> None:
    side = plain.make_side()
    _, connect = listen(side, unix=unix)
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect()) for _ in range(20)]
        pump(side, until=lambda: len(side.links) == 20)
        for nth, sock in enumerate(socks):
            sock.sendall(pack(Kind.HELLO, id=nth).head)
        pump(side, until=lambda: len(side.frames) == 20)
        assert sorted(side.ids) == list(range(20))
    pump(side, until=lambda: len(side.errors) == 20)


@pytest.mark.parametrize("unix", [False, True])
def test_who_does_not_listen_is_not_reached_and_guests_stay(plain: Wires, unix: bool) -> None:
    before = count_files()
    side = plain.make_side()
    listener, connect = listen(side, unix=unix)
    with connect() as sock:
        pump(side, until=lambda: bool(side.links))
        side.port.stop_listening()
        side.port.stop_listening()
        assert listener.fileno() == -1
        with pytest.raises(ConnectionRefusedError):
            connect()
        sock.sendall(pack(Kind.HELLO, id=5).head)
        pump(side, until=lambda: bool(side.frames))
    side.port.close()
    assert count_files() == before


def test_who_is_gone_before_being_accepted_harms_nobody(plain: Wires) -> None:
    side = plain.make_side()
    _, connect = listen(side)
    for _ in range(10):
        reset(connect())
    with connect() as sock:
        sock.sendall(pack(Kind.HELLO, id=5).head)
        pump(side, until=lambda: bool(side.frames))
    assert all(type(error) is ServerLost for error in side.errors)


@contextlib.contextmanager
def limit_files(n_more: int) -> Iterator[None]:
    """No more than so many further files can be open in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    numbers = {int(name) for name in os.listdir("/proc/self/fd")}
    top = max(numbers) + 1
    try:
        while (number := os.dup(0)) < top:  # gaps below would be used
            taken.append(number)
        os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (top + n_more, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in taken:
            os.close(number)


@pytest.mark.parametrize("way", ["one leaves", "the clock"])
def test_too_many_open_files_are_waited_out(plain: Wires, way: str) -> None:
    """Neither does it end the process, nor does it turn in its loop, nor do those inside notice."""
    side = plain.make_side()
    _, connect = listen(side)
    with contextlib.ExitStack() as stack:
        first = [stack.enter_context(connect()) for _ in range(3)]
        pump(side, until=lambda: len(side.links) == 3)
        socks = [stack.enter_context(connect()) for _ in range(5)]
        for sock in socks:
            sock.sendall(pack(Kind.HELLO, id=1).head)
        with limit_files(2):
            pump(side, until=lambda: len(side.links) == 5)
            side.take()
            assert not side.port.look()  # nothing to do: it sleeps
            first[0].sendall(pack(Kind.HELLO, id=2).head)
            pump(side, until=lambda: 2 in side.ids)
            assert len(side.links) == 5
            if way == "one leaves":
                first[1].close()
                stack.callback(os.close, os.dup(0))  # what the test itself gives back is not what is meant
                pump(side, until=lambda: len(side.links) == 6)
                settle(side)
                assert len(side.links) == 6
        side.port.sweep(time.monotonic())
        pump(side, until=lambda: len(side.links) == 8 and side.ids.count(1) == 5)


def test_events_of_a_link_that_was_closed_meanwhile_are_nobodys(plain: Wires) -> None:
    """Its number may be another one's by then."""
    here, there = plain.make_pair()
    there.link.send(pack(Kind.CANCEL, id=1))
    here.port.wait(DEADLINE)
    number = here.link.sock.fileno()
    here.link.close()
    mine, its = plain.make_sockets()
    its_port = plain.make_side()
    its_port.add(its)
    if mine.fileno() != number:
        os.dup2(mine.fileno(), number)
        mine.close()
        mine = socket.socket(fileno=number)
    here.add(mine)
    here.take()
    assert here.arrived == []
    its_port.link.send(pack(Kind.CANCEL, id=2))
    pump(here, its_port, until=lambda: bool(here.frames))
    assert here.ids == [2]


@pytest.mark.parametrize("heartbeat", [1e-3, 0.5, 5.0, 1e5, 1e300, float("inf")])
def test_connections_are_set_up_whatever_the_heartbeat(heartbeat: float) -> None:
    mine, its = Wires("tcp", Path).make_sockets()
    with mine, its:
        tune(mine, heartbeat)
        get = mine.getsockopt
        assert get(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert get(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        milliseconds = get(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert milliseconds == max(1, min(2e3 * heartbeat, 2**31 - 1))
        if heartbeat == 5.0:  # found in two heartbeats
            idle, pause = get(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE), get(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
            assert idle + get(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) * pause <= 10
        try:
            pause = get(socket.IPPROTO_TCP, tuning._TCP_RTO_MAX_MS)
        except OSError:
            return  # before Linux 6.15
        assert pause == pytest.approx(min(max(1000, 250 * heartbeat), 120_000), abs=10)


# ---- TLS -----------------------------------------------------------------------------------------------------


@pytest.fixture
def tls(certificate: Path) -> Iterator[Wires]:
    made = Wires("tls", lambda: certificate)
    yield made
    made.close()


def test_what_tls_has_taken_from_the_kernel_is_not_forgotten(tls: Wires, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel does not tell again of bytes that OpenSSL has decrypted, and that nobody has asked it for yet."""
    here, there = tls.make_pair()
    monkeypatch.setattr(tcp, "MOST_BYTES", 100)
    arrays: list[Array] = [np.ones(100), np.ones(5, dtype=np.uint8), np.ones(2500), np.ones(3)]
    # As somebody else may write it: records of TLS that end where no array does.
    here.link.sock.send(b"".join(spell(pack(Kind.ROWS, arrays, id=nth)) for nth in range(20)))
    pump(here, there, until=lambda: len(there.frames) == 20)
    assert there.ids == list(range(20))


def wrap_server(tls: Wires, side: Side, sock: socket.socket) -> StreamLink:
    context = server_context(tls._certificate())
    return side.add(context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False))


def test_plain_text_at_a_tls_door_is_a_loss_of_that_link(tls: Wires) -> None:
    side, other = tls.make_pair()
    mine, its = tls.make_sockets()
    with its:
        wrap_server(tls, side, mine)
        its.sendall(pack(Kind.HELLO, id=5).head)
        pump(side, until=lambda: bool(side.errors))
        assert type(side.errors[0]) is ServerLost
        assert "SSL" in str(side.errors[0])
        assert side.frames == []
        other.link.send(pack(Kind.CANCEL, id=6))
        pump(side, other, until=lambda: bool(side.frames))


def test_tls_at_a_plain_door_is_garbage(plain: Wires) -> None:
    side = plain.make_side()
    mine, its = plain.make_sockets()
    side.add(mine)
    its.setblocking(False)
    wrapped = client_context().wrap_socket(its, do_handshake_on_connect=False)
    with wrapped:
        with pytest.raises(ssl.SSLWantReadError):
            wrapped.do_handshake()
        pump(side, until=lambda: bool(side.errors))
    assert type(side.errors[0]) is BadFrame


def test_nothing_is_said_before_the_handshake_and_nobody_turns_in_circles(tls: Wires) -> None:
    """A visitor that never says anything is refused in the end; its socket has room, so it must not be watched."""
    side = tls.make_side()
    mine, its = tls.make_sockets()
    with its:
        link = wrap_server(tls, side, mine)
        link.send(pack(Kind.REPLY, [np.arange(5, dtype=np.uint8)], id=1))
        link.part()
        assert link.unsent_bytes == 0
        assert not side.port.sending
        settle(side)
        side.port.sweep(time.monotonic() + 2 * PARTING)
        assert not side.port.parting
        its.settimeout(DEADLINE)
        assert its.recv(100) == b""


def test_a_handshake_that_is_cut_off_is_a_loss(tls: Wires) -> None:
    side = tls.make_side()
    mine, its = tls.make_sockets()
    wrap_server(tls, side, mine)
    hello = client_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        hello.wrap_bio(incoming, outgoing).do_handshake()
    its.sendall(outgoing.read()[:100])
    side.take()
    its.close()
    pump(side, until=lambda: bool(side.errors))
    assert type(side.errors[0]) is ServerLost
    assert side.link.is_closed


# ---- compressed ----------------------------------------------------------------------------------------------


def test_where_both_have_agreed_large_frames_are_compressed(wires: Wires) -> None:
    pytest.importorskip("zstandard")
    here, there = wires.make_pair()
    here.link.compressor, there.link.compressor = Compressor(), Compressor()
    contents = make_frames(30, 4)
    contents += [[np.zeros(50_000)], [np.arange(100_000) % 7.0, np.zeros(3, dtype=np.uint8)]]
    for nth, arrays in enumerate(contents):
        here.link.send(pack(Kind.ROWS, arrays, id=nth))
        there.link.send(pack(Kind.REPLY, arrays, id=nth))
    assert here.link.unsent_bytes < sum(array.nbytes for arrays in contents for array in arrays)
    pump(here, there, until=lambda: len(here.frames) == len(there.frames) == len(contents))
    assert_same(here.frames, contents)
    assert_same(there.frames, contents)


def test_where_nobody_has_agreed_a_compressed_frame_ends_the_link(plain: Wires) -> None:
    pytest.importorskip("zstandard")
    here, there = plain.make_pair()
    here.link.compressor = Compressor()
    here.link.send(pack(Kind.ROWS, [np.zeros(50_000)], id=1))
    here.link.send(pack(Kind.CANCEL, id=2))
    pump(here, there, until=lambda: bool(there.errors))
    settle(here, there)
    assert there.frames == []
    assert type(there.errors[0]) is BadFrame
    assert "agreed" in str(there.errors[0])


def test_what_cannot_be_inflated_ends_the_link(plain: Wires) -> None:
    pytest.importorskip("zstandard")
    here, there = plain.make_pair()
    there.link.compressor = Compressor()
    here.link.send(pack(Kind.COMPRESSED, [np.arange(100, dtype=np.uint8)], n_rows=100_000))
    pump(here, there, until=lambda: bool(there.errors))
    assert type(there.errors[0]) is BadFrame
    assert not there.link.is_closed
