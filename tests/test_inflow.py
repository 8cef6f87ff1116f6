"""Bytes of a stream made into frames again, wherever they were cut and whatever they are."""

from __future__ import annotations

import itertools
import json
import struct
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos_hpc.errors import BadFrame, BadVersion
from demos_hpc.messages import Array, Kind
from demos_hpc.transport.buffers import Buffers
from demos_hpc.transport.inflow import Inflow, Room
from demos_hpc.wire import (
    ALIGNMENT,
    DTYPES,
    HEADER_BYTES,
    INLINE_BYTES,
    MAX_ARRAYS,
    OFFSETS,
    Frame,
    Header,
    Layout,
    Packed,
    pack,
)

CHECK = settings(derandomize=True, deadline=None, max_examples=200)
GOLDEN = Path(__file__).parent / "golden"


def spell(packed: Packed) -> bytes:
    """A frame as it stands in a stream, with the padding behind it."""
    data = b"".join([bytes(packed.head), *(array.tobytes() for array in packed.tail)])
    return data + bytes(-len(data) % ALIGNMENT)


class Reader:
    """Keeps the room that was given to large frames, to find out what was written there."""

    def __init__(self) -> None:
        self.rooms: list[list[Array]] = []
        self.headers: list[Header] = []
        self.inflow = Inflow(self._place)

    def _place(self, header: Header, layout: Layout) -> list[Array]:
        room = [np.full(shape, 77, dtype) for dtype, shape in zip(layout.dtypes, layout.shapes, strict=True)]
        self.headers.append(header)
        self.rooms.append(room)
        return room

    def take(self, data: bytes, *, in_place: bool = True) -> list[Frame]:
        """The frames that these bytes complete; those that belong into a hole go there, as a socket does it."""
        frames: list[Frame] = []
        while data:
            hole = self.inflow.hole if in_place else None
            if hole is None:
                frames += self.inflow.feed(bytearray(data))
                return frames
            n_bytes = min(len(hole), len(data))
            hole[:n_bytes] = data[:n_bytes]
            data = data[n_bytes:]
            frames += self.inflow.fill(n_bytes)
        return frames

    def take_all(self, pieces: Iterable[bytes]) -> Iterator[Frame]:
        for piece in pieces:
            yield from self.take(piece)


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    at = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(at)]


def assert_same(frame: Frame, arrays: Sequence[Array], fields: dict[str, int]) -> None:
    header = frame.header._asdict()
    assert {name: header[name] for name in fields} == fields
    assert [(a.dtype, a.shape) for a in frame.arrays] == [(a.dtype, a.shape) for a in arrays]
    assert [a.tobytes() for a in frame.arrays] == [a.tobytes() for a in arrays]


# ---- good frames, cut anywhere -------------------------------------------------------------------------------

#: Lengths that leave every kind of gap, and that end just before, at and behind the largest inline frame.
LENGTHS = st.one_of(
    st.integers(0, 40),
    st.sampled_from([INLINE_BYTES - HEADER_BYTES - 16 + excess for excess in (-9, -8, -1, 0, 1, 7, 8, 9)]),
    st.integers(INLINE_BYTES, INLINE_BYTES + 5000),
)


@st.composite
def make_arrays(draw: st.DrawFn) -> list[Array]:
    arrays: list[Array] = []
    for _ in range(draw(st.integers(0, MAX_ARRAYS))):
        dtype = draw(st.sampled_from([d for d in DTYPES.values() if d.kind != "b"]))
        n_bytes = draw(LENGTHS if draw(st.booleans()) else st.integers(0, 40))
        data = (np.arange(n_bytes) * 37 + draw(st.integers(0, 255))).astype(np.uint8)
        array = data[: n_bytes // dtype.itemsize * dtype.itemsize].view(dtype)
        shape = draw(st.sampled_from([array.shape, (1, *array.shape), (*array.shape, 1)]))
        arrays.append(array.reshape(shape))
    return arrays


@settings(CHECK, max_examples=300)
@given(st.lists(make_arrays(), min_size=1, max_size=6), st.lists(st.integers(0, 1 << 40), max_size=30), st.booleans())
def test_whatever_is_sent_arrives_in_order_wherever_it_is_cut(
    contents: list[list[Array]], places: list[int], in_place: bool
) -> None:
    fields = [
        {"kind": Kind.ROWS, "id": nth, "n_rows": 7 * nth, "seed": 2**64 - 1 - nth} for nth in range(len(contents))
    ]
    packed = [pack(arrays=arrays, **of) for arrays, of in zip(contents, fields, strict=True)]
    reader = Reader()
    frames = [
        frame for piece in cut(b"".join(map(spell, packed)), places) for frame in reader.take(piece, in_place=in_place)
    ]
    assert len(frames) == len(contents)
    for frame, arrays, of in zip(frames, contents, fields, strict=True):
        assert_same(frame, arrays, of)
    # The arrays of the large ones are those that `place` gave: nothing was copied, and nobody else was asked.
    large = [frame for frame in frames if not frame.is_inline]
    assert len(large) == len(reader.rooms) == sum(bool(p.tail) for p in packed)
    for frame, room in zip(large, reader.rooms, strict=True):
        assert all(mine is given for mine, given in zip(frame.arrays, room, strict=True))
    assert reader.inflow.hole is None


@CHECK
@given(make_arrays(), make_arrays())
def test_byte_by_byte_is_as_good(first: list[Array], second: list[Array]) -> None:
    reader = Reader()
    contents = [first[:3], second[:3]]
    data = b"".join(spell(pack(Kind.REPLY, arrays)) for arrays in contents)
    # One byte at a time up to the first head's end and at each frame's, larger steps between.
    near = range(min(200, len(data)))
    frames = [frame for piece in cut(data, [*near, *range(len(data) - 50, len(data))]) for frame in reader.take(piece)]
    for frame, arrays in zip(frames, contents, strict=True):
        assert_same(frame, arrays, {"kind": Kind.REPLY})


def test_a_frame_is_there_with_its_last_byte_and_not_before() -> None:
    for arrays in ([], [np.ones(3)], [np.arange(5, dtype=np.uint8)], [np.ones(3000)], [np.ones(20001, dtype=np.uint8)]):
        data, reader = spell(pack(Kind.REPLY, arrays)), Reader()
        assert reader.take(data[:-1]) == []
        (frame,) = reader.take(data[-1:])
        assert_same(frame, arrays, {})


def test_holes_are_the_arrays_themselves() -> None:
    """What a socket writes into a hole is written into the caller's array."""
    reader = Reader()
    sent = [np.arange(3000.0), np.arange(5, dtype=np.uint8), np.arange(2500.0)]
    packed = pack(Kind.ROWS, sent)
    assert reader.take(bytes(packed.head)) == []
    holes = []
    rest = b"".join(array.tobytes() for array in packed.tail)
    while (hole := reader.inflow.hole) is not None:
        holes.append(len(hole))
        hole[:] = rest[: len(hole)]
        rest = rest[len(hole) :]
        frames = list(reader.inflow.fill(len(hole)))
    assert holes == [24000, 5, 3, 20000]
    (frame,) = frames
    assert_same(frame, sent, {})
    assert all(np.shares_memory(a, b) for a, b in zip(frame.arrays, reader.rooms[0], strict=True))


def test_small_frames_are_views_of_what_was_read() -> None:
    reader = Reader()
    data = bytearray(b"".join(spell(pack(Kind.CANCEL, [np.full(nth, 1.0)], id=nth)) for nth in range(5)))
    frames = list(reader.inflow.feed(data))
    assert [frame.header.id for frame in frames] == list(range(5))
    memory = np.frombuffer(data, np.uint8)
    assert all(np.shares_memory(frame.arrays[0], memory) for frame in frames[1:])
    frames[4].arrays[0][0] = 5.0  # may be written, by whoever has it
    assert frames[4].buffer is data


def test_frames_keep_their_bytes_when_more_come() -> None:
    reader = Reader()
    first, second = spell(pack(Kind.ROWS, [np.arange(9.0)])), spell(pack(Kind.ROWS, [np.zeros(9)]))
    (one,) = reader.take(first + second[:100])
    (two,) = reader.take(second[100:])
    np.testing.assert_array_equal(one.arrays[0], np.arange(9.0))
    np.testing.assert_array_equal(two.arrays[0], np.zeros(9))


@pytest.mark.parametrize("step", [1, 7, 64, 1000, 1 << 20])
def test_the_golden_stream(step: int) -> None:
    ((entry,),) = [json.loads((GOLDEN / "frames.json").read_text(encoding="utf-8"))["streams"]]
    data, reader = (GOLDEN / entry["file"]).read_bytes(), Reader()
    frames = list(reader.take_all(data[start : start + step] for start in range(0, len(data), step)))
    assert len(frames) == len(entry["frames"])
    for frame, expected in zip(frames, entry["frames"], strict=True):
        assert frame.header._asdict() == expected["header"]
        for array, wanted in zip(frame.arrays, expected["arrays"], strict=True):
            assert (array.dtype.name, list(array.shape)) == (wanted["dtype"], wanted["shape"])
            assert array.tolist() == wanted["data"]
    packed = [pack(frame.header.kind, frame.arrays, id=frame.header.id, n_rows=frame.header.n_rows) for frame in frames]
    assert b"".join(map(spell, packed)) == data


# ---- what is no frame ----------------------------------------------------------------------------------------


def read_bad(name: str) -> bytes:
    return (GOLDEN / f"bad_{name}.bin").read_bytes()


WRONG = [
    "arrays_too_many", "big_endian", "dims_255", "dims_too_many", "dtype_0", "dtype_10", "magic", "payload_of_nothing",
    "payload_too_big", "payload_too_small", "payload_wraps", "shape_empty_wraps", "shape_sign", "shape_wraps",
]  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("step", [1, 13, 10**6])
def test_what_is_no_frame_ends_the_stream_or_is_found_by_its_reader(name: str, step: int) -> None:
    """A small frame that contradicts itself has an end, at least: only its arrays cannot be read."""
    data = read_bad(name)
    data += bytes(-len(data) % ALIGNMENT) + bytes(INLINE_BYTES)
    reader = Reader()

    def read() -> None:
        for frame in reader.take_all(data[start : start + step] for start in range(0, len(data), step)):
            _ = frame.arrays

    with pytest.raises(BadFrame):
        read()
    assert reader.rooms == []


@pytest.mark.parametrize("name", ["major_newer", "major_older"])
def test_another_version_ends_the_stream(name: str) -> None:
    with pytest.raises(BadVersion, match="wire version"):
        Reader().take(read_bad(name))


@pytest.mark.parametrize("name", ["header_cut", "descriptors_cut", "descriptor_cut", "data_cut", "nothing"])
def test_what_is_cut_off_waits_for_its_rest(name: str) -> None:
    reader = Reader()
    assert reader.take(read_bad(name)) == []
    assert reader.rooms == []


@CHECK
@given(st.binary(min_size=HEADER_BYTES, max_size=600), st.lists(st.integers(0, 600), max_size=5))
def test_noise_ends_the_stream(noise: bytes, places: list[int]) -> None:
    reader = Reader()
    with pytest.raises((BadFrame, BadVersion)):
        list(reader.take_all(cut(noise, places)))
    assert reader.rooms == []


@settings(CHECK, max_examples=500)
@given(st.data())
def test_damaged_streams_end_or_give_frames(data: st.DataObject) -> None:
    """No other exception than those that say why, and no room that nobody has given."""
    contents: list[list[Array]] = [[np.ones(3)], [np.arange(5, dtype=np.uint8), np.ones(2500)], [], [np.ones((9, 300))]]
    stream = bytearray(b"".join(spell(pack(Kind.ROWS, arrays)) for arrays in contents))
    for _ in range(data.draw(st.integers(1, 4))):
        # Damage is done where it hurts: in heads, more than in arrays.
        at = data.draw(st.one_of(st.integers(0, 300), st.integers(0, len(stream) - 9)))
        damage = data.draw(st.sampled_from(["byte", "word", "cut", "insert"]))
        if damage == "byte":
            stream[at] = data.draw(st.integers(0, 255))
        elif damage == "word":
            word = data.draw(st.sampled_from([0, 1, 8, 2**31, 2**32, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 1]))
            struct.pack_into("<Q", stream, at - at % 8, word)
        elif damage == "cut":
            del stream[at : at + data.draw(st.integers(1, 64))]
        else:
            stream[at:at] = bytes(data.draw(st.integers(1, 16)))
    given_bytes = 0

    def place(header: Header, layout: Layout) -> list[Array]:
        nonlocal given_bytes
        given_bytes += header.payload
        if header.payload > 1 << 20:
            raise BadFrame("too large")
        return [np.empty(shape, dtype) for dtype, shape in zip(layout.dtypes, layout.shapes, strict=True)]

    inflow = Inflow(place)
    places = data.draw(st.lists(st.integers(0, 1 << 30), max_size=6))
    try:
        for piece in cut(bytes(stream), places):
            for frame in inflow.feed(bytearray(piece)):
                assert frame.is_inline or sum(a.nbytes for a in frame.arrays) <= frame.header.payload <= 1 << 20
    except (BadFrame, BadVersion):
        pass
    else:
        assert given_bytes <= 4 << 20


# ---- memory --------------------------------------------------------------------------------------------------


def announce(n_bytes: int) -> bytes:
    """The head of a frame that is as large as it says."""
    head = pack(Kind.ROWS, [np.ones(INLINE_BYTES, dtype=np.uint8)]).head
    struct.pack_into("<Q", head, OFFSETS["payload"], 16 + n_bytes)
    struct.pack_into("<Q", head, HEADER_BYTES + 8, n_bytes)
    return bytes(head)


def measure_peak(run: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refuse(header: Header, layout: Layout) -> list[Array]:
    raise BadFrame(f"{header.payload} bytes")


@pytest.mark.parametrize("exponent", [15, 30, 40, 62])
def test_nothing_is_allocated_for_what_is_refused(exponent: int) -> None:
    def run() -> None:
        with pytest.raises(BadFrame, match=str(2**exponent + 16)):
            list(Inflow(refuse).feed(bytearray(announce(2**exponent))))

    assert measure_peak(run) < 1 << 18


@pytest.mark.parametrize("room", [Reader()._place, lambda header, layout: Buffers().place(None, header, layout)])
def test_memory_that_is_not_there_is_an_error_of_this_stream_alone(room: Room) -> None:
    with pytest.raises(BadFrame, match="no memory"):
        list(Inflow(room).feed(bytearray(announce(2**62))))


def test_a_head_that_never_ends_is_small() -> None:
    """255 dimensions for each of 8 arrays come to 16 kB, and are refused as soon as they are there."""
    head = bytearray(pack(Kind.ROWS, [np.ones(INLINE_BYTES)] * 8).head[:HEADER_BYTES])
    descriptor = bytes([1, 255, *bytes(6)]) + bytes(255 * 8)
    data = bytes(head) + descriptor * 8

    def run() -> None:
        with pytest.raises(BadFrame, match="dimensions"):
            list(Reader().take_all(data[start : start + 100] for start in range(0, len(data), 100)))

    assert measure_peak(run) < 1 << 18


def test_what_waits_for_its_rest_is_never_more_than_the_largest_small_frame() -> None:
    reader = Reader()
    data = spell(pack(Kind.ROWS, [np.ones(INLINE_BYTES - HEADER_BYTES - 16, dtype=np.uint8)]))
    assert len(data) == INLINE_BYTES
    for start in range(0, len(data) - 1, 1000):
        assert reader.take(data[start : min(start + 1000, len(data) - 1)]) == []
        assert len(reader.inflow._rest) < INLINE_BYTES
    (frame,) = reader.take(data[-1:])
    assert frame.arrays[0].all()
