"""Memory that two processes share: bytes come whole and in order, and a peer cannot do worse than end the link."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from demos_hpc.errors import BadFrame
from demos_hpc.transport import pair as module
from demos_hpc.transport.doorbell import ASLEEP, AWAKE, STUCK
from demos_hpc.transport.pair import QUEUE_BYTES, STRIDE, Pair, Unreachable

pytestmark = pytest.mark.skipif(not module.is_possible(), reason="links by shared memory are for x86-64")


@pytest.fixture
def ends() -> Iterator[tuple[Pair, Pair]]:
    """Both ends, in one process."""
    one, address, close_file = Pair.make()
    other = Pair.join(address)
    close_file()
    yield one, other
    one.close()
    other.close()


def read(pair: Pair, most: int = 1 << 30) -> bytes:
    got = bytearray()
    while len(got) < most and (data := pair.read(most - len(got))):
        got += data
    return bytes(got)


def test_bytes_come_as_they_went_in_both_directions(ends: tuple[Pair, Pair]) -> None:
    for one, other in (ends, ends[::-1]):
        assert not other.look()
        assert one.write(bytearray(b"physics")) == 7
        assert other.look()
        assert not one.look()
        assert read(other) == b"physics"
        assert not other.look()


def test_any_pattern_of_writing_and_reading_keeps_every_byte(ends: tuple[Pair, Pair]) -> None:
    """Around the queue's end many times, in pieces of all sizes."""
    rng = np.random.default_rng(1)
    data = rng.bytes(9 * QUEUE_BYTES + 13)
    view, got, at = memoryview(data), bytearray(), 0
    while len(got) < len(data):
        at += ends[0].write(view[at : at + int(rng.integers(0, 2 * STRIDE))])
        got += read(ends[1], int(rng.integers(1, 2 * STRIDE)))
    assert got == data


def test_bytes_can_be_read_to_where_they_belong(ends: tuple[Pair, Pair]) -> None:
    target = bytearray(8)
    ends[0].write(bytearray(b"physicsphysics"))
    assert ends[1].read_into(memoryview(target)) == 8
    assert target == b"physicsp"
    assert ends[1].read_into(memoryview(target)) == 6
    assert target == b"hysicssp"
    assert ends[1].read_into(memoryview(target)) == 0


def test_a_full_queue_takes_what_there_is_room_for(ends: tuple[Pair, Pair]) -> None:
    one, other = ends
    data = memoryview(np.random.default_rng(2).bytes(QUEUE_BYTES + 100))
    assert one.has_room(QUEUE_BYTES)
    assert not one.has_room(QUEUE_BYTES + 1)
    assert one.write(data) == QUEUE_BYTES
    assert not one.has_room(1)
    assert one.write(data) == 0
    assert read(other, 60) == data[:60]
    assert one.has_room(60)
    assert one.write(data[QUEUE_BYTES:]) == 60
    assert read(other) == bytes(data[60 : QUEUE_BYTES + 60])


def test_what_was_written_outlives_the_writer(ends: tuple[Pair, Pair]) -> None:
    one, other = ends
    one.write(bytearray(b"last words"))
    one.close()
    one.close()
    assert one.is_closed
    assert read(other) == b"last words"


def test_each_side_says_whether_it_sleeps(ends: tuple[Pair, Pair]) -> None:
    one, other = ends
    assert (one.peers_flag, other.peers_flag) == (AWAKE, AWAKE)
    one.say(ASLEEP)
    other.say(STUCK)
    assert (one.peers_flag, other.peers_flag) == (STUCK, ASLEEP)


def test_nothing_is_left_when_both_have_let_go() -> None:
    before = len(os.listdir("/proc/self/fd"))
    one, address, close_file = Pair.make()
    assert not one.is_joined
    other = Pair.join(address)
    assert one.is_joined
    close_file()
    one.close()
    other.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert "demos-pair" not in Path("/proc/self/maps").read_text(encoding="ascii")


def test_the_memory_cannot_be_cut_short() -> None:
    one, address, close_file = Pair.make()
    _, number, _ = json.loads(address)
    with pytest.raises(PermissionError):
        os.ftruncate(number, 0)
    with pytest.raises(PermissionError):
        os.ftruncate(number, 1 << 30)
    close_file()
    one.close()


# ---- what is not the peer's memory --------------------------------------------------------------------------


def test_whatever_else_has_the_same_numbers_is_not_opened(tmp_path: Path) -> None:
    one, address, close_file = Pair.make()
    pid, number, token = json.loads(address)
    with (tmp_path / "file").open("wb") as file:
        for wrong in (
            [pid, file.fileno(), token],
            [pid, number, token[:-2] + ("00" if token[-2:] != "00" else "11")],
            [pid, 99_999, token],
            [2**31 - 1, number, token],
        ):
            with pytest.raises(Unreachable):
                Pair.join(json.dumps(wrong))
    assert not one.is_joined
    close_file()
    one.close()
    with pytest.raises(Unreachable, match="cannot be reached from here"):
        Pair.join(address)


@pytest.mark.parametrize("address", ["", "{}", "[1, 2]", '["../../etc", "passwd", "00"]', "[1, 2, 3]", '[1, 2, "xy"]'])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(Unreachable):
        Pair.join(address)


def test_memory_of_another_name_or_size_is_not_taken() -> None:
    token = "00" * module.TOKEN_BYTES
    number = os.memfd_create(f"demos-pair-{token}")
    try:
        with pytest.raises(Unreachable, match="shared memory of 0 bytes"):
            Pair.join(json.dumps([os.getpid(), number, token]))
        os.ftruncate(number, module.CONTROL_BYTES + 2 * QUEUE_BYTES)
        os.pwrite(number, b"x", 8 * 8 * 8)
        with pytest.raises(Unreachable, match="something else"):
            Pair.join(json.dumps([os.getpid(), number, token]))
    finally:
        os.close(number)


def test_machines_that_reorder_stores_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(Unreachable, match="x86-64; this is aarch64"):
        Pair.make()
    with pytest.raises(Unreachable, match="x86-64"):
        Pair.join('[1, 2, "00"]')


# ---- a peer that writes nonsense ----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [QUEUE_BYTES + 1, 2**64 - 1, 2**63])
def test_a_counter_of_nonsense_is_found(ends: tuple[Pair, Pair], value: int) -> None:
    one, other = ends
    other._words[other._written_at] = value
    with pytest.raises(BadFrame, match="a queue of"):
        one.read(100)
    other._words[other._read_at] = value
    with pytest.raises(BadFrame, match="a peer that has read"):
        one.write(memoryview(bytes(2 * QUEUE_BYTES)))


def test_our_own_counters_are_not_read_back(ends: tuple[Pair, Pair]) -> None:
    one, other = ends
    one.write(bytearray(b"abcdefgh"))
    other._words[one._written_at] = 3
    one.write(bytearray(b"ijklmnop"))
    assert read(other) == b"abcdefghijklmnop"
