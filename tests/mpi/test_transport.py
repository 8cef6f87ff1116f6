"""Frames between ranks: small and large, in order on each link, both ways at once, and bad ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from demos_hpc.errors import BadFrame, BadVersion, DemosError
from demos_hpc.messages import Kind
from demos_hpc.wire import HEADER_BYTES, INLINE_BYTES, OFFSETS, PIECE_BYTES, Frame, Packed, join, pack

pytestmark = pytest.mark.mpi(min_size=2)

MIB = 1 << 20


#: Arrays of each size, made from random numbers and a seed.
ARRAYS: dict[str, Callable[[np.random.Generator, int], list[Any]]] = {
    "nothing": lambda rng, seed: [],
    "one number": lambda rng, seed: [np.array(float(seed))],
    "small": lambda rng, seed: [rng.normal(size=(7, 3)), rng.normal(size=3)],
    "just inline": lambda rng, seed: [rng.random((INLINE_BYTES - HEADER_BYTES - 16) // 8)],
    "just not inline": lambda rng, seed: [rng.random((INLINE_BYTES - HEADER_BYTES - 16) // 8 + 1)],
    "10 MiB": lambda rng, seed: [rng.random(10 * MIB // 8)],
    "whole pieces": lambda rng, seed: [rng.random(2 * PIECE_BYTES // 8)],
    "uneven": lambda rng, seed: [np.frombuffer(rng.bytes(PIECE_BYTES + 1 + 13 * seed), np.uint8)],
    "several, with gaps": lambda rng, seed: [
        np.frombuffer(rng.bytes(2 * MIB + 3), np.uint8),
        rng.random((0, 5)),
        np.frombuffer(rng.bytes(5), np.uint8),
        rng.random((333, 333)),
        np.array(float(seed)),
        rng.random(5) + 1j,
    ],
    "all empty": lambda rng, seed: [np.empty((0, 3)), np.empty((5, 0, 2), np.int32)],
}


def make_arrays(name: str, seed: int) -> list[Any]:
    return ARRAYS[name](np.random.default_rng(seed), seed)


def assert_is(frame: Any, id_: int, arrays: list[Any]) -> None:
    assert isinstance(frame, Frame), frame
    assert frame.header.id == id_
    assert len(frame.arrays) == len(arrays)
    for got, sent in zip(frame.arrays, arrays, strict=True):
        assert got.dtype == sent.dtype
        np.testing.assert_array_equal(got, sent)


@pytest.mark.parametrize("bell", ["auto", "udp"])
@pytest.mark.parametrize("name", ARRAYS)
def test_frames_arrive_as_they_were_sent(make_hall: Callable[..., Any], name: str, bell: str) -> None:
    """Around a ring, everybody at once: also two large ones towards each other where there are two ranks."""
    hall = make_hall(bell=bell)
    hall.links[hall.next].send(pack(Kind.ROWS, make_arrays(name, hall.rank), id=hall.rank))
    ((link, frame),) = hall.receive(1)
    assert link is hall.links[hall.previous]
    assert_is(frame, hall.previous, make_arrays(name, hall.previous))
    hall.finish()


def test_everybody_sends_to_everybody_and_order_is_kept_on_each_link(hall: Any) -> None:
    """Small frames right behind large ones do not overtake them."""
    names = ("small", "several, with gaps", "small", "nothing", "just not inline", "uneven", "nothing")
    for link in hall.links.values():
        for nth, name in enumerate(names):
            link.send(pack(Kind.ROWS, make_arrays(name, hall.rank + nth), id=nth))
    arrived = hall.receive(len(names) * len(hall.links))
    for rank, link in hall.links.items():
        frames = [frame for source, frame in arrived if source is link]
        for nth, (name, frame) in enumerate(zip(names, frames, strict=True)):
            assert_is(frame, nth, make_arrays(name, rank + nth))
    hall.finish()


def test_many_small_frames_in_one_message(hall: Any) -> None:
    frames = [pack(Kind.REPLY, [np.full(nth % 5, nth % 256, np.uint8)], id=nth).head for nth in range(300)]
    large = pack(Kind.REPLY, make_arrays("10 MiB", hall.rank), id=300)
    link = hall.links[hall.next]
    link.send(Packed(join(frames), ()))
    link.send(large)
    link.send(Packed(join(frames), ()))
    arrived = [frame for _, frame in hall.receive(601)]
    assert [frame.header.id for frame in arrived] == [*range(301), *range(300)]
    for nth in range(300):
        assert_is(arrived[nth], nth, [np.full(nth % 5, nth % 256, np.uint8)])
        assert_is(arrived[301 + nth], nth, [np.full(nth % 5, nth % 256, np.uint8)])
    assert_is(arrived[300], 300, make_arrays("10 MiB", hall.previous))
    hall.finish()


def test_many_messages_are_all_taken_in(hall: Any) -> None:
    link = hall.links[hall.next]
    for nth in range(3000):
        link.send(pack(Kind.CANCEL, id=nth))
    assert [frame.header.id for _, frame in hall.receive(3000)] == list(range(3000))
    hall.finish()


def test_what_was_sent_may_be_sent_on(hall: Any) -> None:
    """A frame goes once around the ring, as it came."""
    arrays = make_arrays("several, with gaps", 0)
    if hall.rank == 0:
        hall.links[hall.next].send(pack(Kind.ROWS, arrays, id=7))
    ((_, frame),) = hall.receive(1)
    assert_is(frame, 7, arrays)
    if hall.rank:
        hall.links[hall.next].send(pack(Kind.ROWS, frame.arrays, id=7))
    hall.finish()


def test_arrays_are_received_where_the_receiver_wants_them(hall: Any) -> None:
    target = np.zeros(3 * MIB // 8)

    def place(link: Any, header: Any, layout: Any) -> list[Any]:
        assert link is hall.links[hall.previous]
        first = header.first_row
        return [target[first : first + layout.shapes[0][0]]]

    hall.port.place = place
    values = np.arange(float(len(target))) + hall.rank
    half = len(target) // 2
    for first in (half, 0):
        part = values[first : first + half]
        hall.links[hall.next].send(pack(Kind.REPLY, [part], id=1, first_row=first))
    hall.receive(2)
    np.testing.assert_array_equal(target, np.arange(float(len(target))) + hall.previous)
    hall.finish()


def test_requests_and_answers_of_all_sizes_between_all_ranks(hall: Any) -> None:
    """Everybody asks everybody and answers at once: large frames in both directions of every link."""
    rng = np.random.default_rng(hall.rank)
    sizes = rng.integers(0, 200_000, size=12)
    asked, answered = 0, 0
    for nth, size in enumerate(sizes):
        for link in hall.links.values():
            link.send(pack(Kind.REQUEST, [np.full(size, float(nth))], id=nth))
            asked += 1
    total = asked
    end = time.monotonic() + 30
    while answered < total or asked > 0:
        for link, frame in hall.port.receive():
            if frame.header.kind == Kind.REQUEST:
                link.send(pack(Kind.REPLY, [frame.arrays[0] + 1.0], id=frame.header.id))
                asked -= 1
            else:
                np.testing.assert_array_equal(frame.arrays[0], np.full(sizes[frame.header.id], frame.header.id + 1.0))
                answered += 1
        assert time.monotonic() < end, f"{answered} of {total} answers, {asked} questions to come"
        hall.port.wait(0.05)
    hall.finish()


# ---- frames that are none ---------------------------------------------------------------------------------------


def change(at: int, byte: int) -> bytearray:
    head = pack(Kind.CANCEL, [np.arange(4.0)], id=5).head
    head[at] = byte
    return head


LARGE = pack(Kind.ROWS, [np.zeros(MIB)], id=5).head
BAD: dict[str, tuple[bytearray, type[DemosError], str]] = {
    "nothing": (bytearray(), BadFrame, "a frame of 0 bytes; its header alone has 64"),
    "header cut": (change(0, ord("D"))[:63], BadFrame, "a frame of 63 bytes"),
    "arrays cut": (change(0, ord("D"))[:-1], BadFrame, "a frame of 112 bytes of which 111 arrived"),
    "no magic": (change(0, 0), BadFrame, "a frame that starts with"),
    "other version": (change(OFFSETS["major"], 7), BadVersion, "wire version 7.0, this side 1.0; install the same"),
    "too many arrays": (change(OFFSETS["n_arrays"], 99), BadFrame, "a frame with 99 arrays; at most 8 are allowed"),
    "descriptors of a large frame cut": (LARGE[:70], BadFrame, "cut off"),
    "large of another length": (
        LARGE[: OFFSETS["payload"]] + b"\xff" + LARGE[OFFSETS["payload"] + 1 :],
        BadFrame,
        "a frame whose header announces",
    ),
    "larger than any memory": (
        bytearray(
            LARGE[: OFFSETS["payload"]]
            + (2**62 + 16).to_bytes(8, "little")
            + LARGE[OFFSETS["payload"] + 8 : HEADER_BYTES + 8]
            + (2**59).to_bytes(8, "little")
        ),
        BadFrame,
        "memory",
    ),
    "the second of two": (join([pack(Kind.CANCEL, id=1).head, bytearray(64)]), BadFrame, "a frame that starts with"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_frame_is_reported_on_its_link_and_harms_no_other(hall: Any, name: str) -> None:
    head, error_type, text = BAD[name]
    large = make_arrays("10 MiB", hall.rank)
    for rank, link in hall.links.items():
        if hall.rank == 0:
            link.send(Packed(bytearray(head), ()))
        elif rank:
            link.send(pack(Kind.ROWS, large, id=2))
            link.send(pack(Kind.CANCEL, id=3))
        else:
            link.send(pack(Kind.CANCEL, id=4))
    if hall.rank == 0:
        assert [frame.header.id for _, frame in hall.receive(hall.size - 1)] == [4] * (hall.size - 1)
        hall.finish()
        return
    n_bad = 2 if name == "the second of two" else 1
    arrived = hall.receive(n_bad + 2 * (hall.size - 2))
    for rank, link in hall.links.items():
        got = [frame for source, frame in arrived if source is link]
        if rank:
            assert_is(got[0], 2, make_arrays("10 MiB", rank))
            assert got[1].header.id == 3
        else:
            assert type(got[-1]) is error_type
            assert text in str(got[-1])
            assert [frame.header.id for frame in got[:-1]] == ([1] if n_bad == 2 else [])
    hall.finish()


def test_a_large_frame_whose_arrays_never_come_holds_up_its_own_link_only(hall: Any) -> None:
    if hall.rank == 0:
        for link in hall.links.values():
            link.send(Packed(bytearray(LARGE), ()))
            link.send(pack(Kind.CANCEL, id=9))
    else:
        hall.links[hall.size - 1 if hall.rank == 1 else hall.rank - 1].send(pack(Kind.CANCEL, id=3)) if (
            hall.size > 2
        ) else None
        if hall.size > 2:
            ((_, frame),) = hall.receive(1)
            assert frame.header.id == 3
        assert hall.port.receive() == []
    hall.finish()


def test_pieces_of_what_is_past_two_gib() -> None:
    """Counted and cut right, without the memory."""
    from demos_hpc.transport.mpi import _pieces

    size = 5 * 2**30 + 7
    pieces = _pieces(np.broadcast_to(np.uint8(0), (size,)))
    assert len(pieces) == 1281
    assert {len(piece) for piece in pieces[:-1]} == {PIECE_BYTES}
    assert sum(map(len, pieces)) == size


def test_nothing_of_ours_is_left_in_shared_memory(make_hall: Callable[..., Any]) -> None:
    hall = make_hall()
    path = hall.bell._flags_file
    assert path.exists()
    hall.meet()
    hall.bell.hide()
    assert not path.exists()
    hall.links[hall.next].send(pack(Kind.CANCEL, id=1))  # the bells ring on
    hall.receive(1)
    hall.finish()
