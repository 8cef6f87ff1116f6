"""Large frames made smaller, and what a peer may send that says that it is one."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos_hpc.errors import BadFrame
from demos_hpc.messages import Array, Kind
from demos_hpc.transport.compression import LARGEST, SAMPLE_BYTES, WINDOW, WORTH, Compressor, is_available
from demos_hpc.transport.inflow import Inflow
from demos_hpc.wire import DTYPES, HEADER_BYTES, INLINE_BYTES, Frame, Header, Layout, Packed, pack, read_header

zstandard = pytest.importorskip("zstandard")

CHECK = settings(derandomize=True, deadline=None, max_examples=100)
RNG = np.random.default_rng(5)
NOISE = RNG.integers(0, 256, 1 << 20).astype(np.uint8)
#: A frame that zstd makes much smaller, with gaps between arrays and padding behind the last.
PLAIN: list[Array] = [
    np.zeros(30_000),
    np.arange(5, dtype=np.uint8),
    np.ones((100, 3)),
    np.zeros(20_003, dtype=np.uint8),
]


class Room:
    """What was asked of `place`."""

    def __init__(self) -> None:
        self.given: list[list[Array]] = []

    def place(self, header: Header, layout: Layout) -> list[Array]:
        room = [np.full(shape, 77, dtype) for dtype, shape in zip(layout.dtypes, layout.shapes, strict=True)]
        self.given.append(room)
        return room


def spell(packed: Packed) -> bytes:
    """The bytes of a frame, without what would follow it on a stream."""
    return b"".join([bytes(packed.head), *(array.tobytes() for array in packed.tail)])


def arrive(packed: Packed) -> Frame:
    """The frame as it comes out of a stream."""
    data = spell(packed)
    (frame,) = Inflow(Room().place).feed(bytearray(data + bytes(-len(data) % 8)))
    return frame


def wrap(data: bytes, n_rows: int | None = None, *, inner: bytes = b"") -> Frame:
    """A COMPRESSED frame of these bytes."""
    n_rows = len(inner) if n_rows is None else n_rows
    return arrive(pack(Kind.COMPRESSED, [np.frombuffer(data, np.uint8)], n_rows=n_rows))


def squeeze(data: bytes, **parameters: Any) -> bytes:
    return bytes(zstandard.ZstdCompressor(**parameters).compress(data))


def assert_refused(frame: Frame, match: str = "compressed") -> Room:
    room = Room()
    with pytest.raises(BadFrame, match=match):
        Compressor().inflate(frame, room.place)
    return room


# ---- there and back ------------------------------------------------------------------------------------------


def test_what_can_be_smaller_becomes_smaller_and_comes_back() -> None:
    packed = pack(Kind.REPLY, PLAIN, operation=2, id=7, flags=1, first_row=11, n_rows=12, revision=3, seed=9)
    small = Compressor().deflate(packed)
    header = read_header(small.head)
    assert (header.kind, header.n_rows, header.n_arrays, header.id) == (Kind.COMPRESSED, len(spell(packed)), 1, 0)
    assert len(spell(small)) < len(spell(packed)) / 20
    room = Room()
    frame = Compressor().inflate(arrive(small), room.place)
    assert frame.header == read_header(packed.head)
    for mine, given_, sent in zip(frame.arrays, room.given[0], PLAIN, strict=True):
        assert mine is given_
        assert mine.tobytes() == sent.tobytes()
    assert not frame.is_inline
    assert len(room.given) == 1


@pytest.mark.parametrize(
    "arrays",
    [
        [np.zeros(100)],
        [np.zeros(INLINE_BYTES - HEADER_BYTES - 16, dtype=np.uint8)],
        [NOISE],
        [NOISE.view(np.float64)],
        [RNG.normal(size=30_000)],
        [np.zeros(LARGEST // 8)],
    ],
    ids=["small", "largest inline", "noise", "noise as float64", "normal numbers", "too large"],
)
def test_what_would_not_pay_travels_as_it_is(arrays: list[Array]) -> None:
    packed = pack(Kind.ROWS, arrays, id=1)
    assert Compressor().deflate(packed) is packed


def test_the_largest_array_is_looked_at_in_its_middle() -> None:
    good = pack(Kind.ROWS, [NOISE[:SAMPLE_BYTES], np.zeros(1 << 20)])
    assert read_header(Compressor().deflate(good).head).kind == Kind.COMPRESSED
    mixed = NOISE.copy()
    mixed[mixed.size // 2 - SAMPLE_BYTES : mixed.size // 2 + SAMPLE_BYTES] = 0
    other = pack(Kind.ROWS, [mixed, np.zeros(5)])
    # The sample looked well, the whole was not worth it.
    assert len(squeeze(spell(other))) > WORTH * len(spell(other))
    assert Compressor().deflate(other) is other


def test_one_compressor_serves_a_link_for_long() -> None:
    """A frame that is refused does not spoil those of other links, nor one frame the next."""
    here, there = Compressor(), Compressor()
    for nth in range(20):
        packed = pack(Kind.ROWS, [np.full(5000 + nth, float(nth))], id=nth)
        with pytest.raises(BadFrame):
            there.inflate(wrap(squeeze(spell(packed))[:-3], inner=spell(packed)), Room().place)
        frame = there.inflate(arrive(here.deflate(packed)), Room().place)
        assert frame.header.id == nth
        np.testing.assert_array_equal(frame.arrays[0], np.full(5000 + nth, float(nth)))


def test_the_bounds_are_those_of_the_specification() -> None:
    assert (LARGEST, WINDOW) == (1 << 24, 1 << 23)


def test_a_frame_as_large_as_allowed() -> None:
    packed = pack(Kind.ROWS, [np.zeros(LARGEST - HEADER_BYTES - 16, dtype=np.uint8)])
    assert len(spell(packed)) == LARGEST
    frame = Compressor().inflate(arrive(Compressor().deflate(packed)), Room().place)
    assert frame.arrays[0].nbytes == LARGEST - HEADER_BYTES - 16
    assert not frame.arrays[0].any()


@st.composite
def make_arrays(draw: st.DrawFn) -> list[Array]:
    arrays: list[Array] = []
    for _ in range(draw(st.integers(1, 8))):
        dtype = draw(st.sampled_from([d for d in DTYPES.values() if d.kind != "b"]))
        n_bytes = draw(st.one_of(st.integers(0, 40), st.integers(0, 60_000)))
        data = NOISE[:n_bytes] if draw(st.booleans()) else np.full(n_bytes, draw(st.integers(0, 255)), np.uint8)
        arrays.append(data[: n_bytes // dtype.itemsize * dtype.itemsize].view(dtype))
    return arrays


@CHECK
@given(make_arrays())
def test_whatever_it_is_comes_back(arrays: Sequence[Array]) -> None:
    packed = pack(Kind.ROWS, arrays, id=2**64 - 1)
    sent = Compressor().deflate(packed)
    assert len(spell(sent)) <= len(spell(packed))
    frame = arrive(sent)
    if sent is not packed:
        frame = Compressor().inflate(frame, Room().place)
    assert frame.header == read_header(packed.head)
    assert [a.tobytes() for a in frame.arrays] == [a.tobytes() for a in arrays]


def test_the_golden_frame_that_is_compressed() -> None:
    data = (Path(__file__).parent / "golden/good_compressed.bin").read_bytes()
    (frame,) = Inflow(Room().place).feed(bytearray(data))
    room = Room()
    inner = Compressor().inflate(frame, room.place)
    assert inner.header == read_header(pack(Kind.REPLY, [np.zeros(2500)], operation=1, flags=1, id=7, n_rows=2500).head)
    assert inner.arrays[0] is room.given[0][0]
    assert not inner.arrays[0].any()


# ---- what is none --------------------------------------------------------------------------------------------

INNER = spell(pack(Kind.ROWS, PLAIN, id=3))


def test_what_is_inside_counts_and_not_who_compressed_it() -> None:
    for data in (squeeze(INNER), squeeze(INNER, level=19), squeeze(INNER, write_checksum=True)):
        frame = Compressor().inflate(wrap(data, inner=INNER), Room().place)
        assert frame.arrays[0].tobytes() == PLAIN[0].tobytes()


@pytest.mark.parametrize("difference", [-20_000, -9, -8, -3, -1, 1, 3, 8, 20_000])
def test_a_size_that_is_not_the_frames(difference: int) -> None:
    """One byte less, and there would be a byte in the array that nobody has sent."""
    room = assert_refused(wrap(squeeze(INNER), len(INNER) + difference))
    assert room.given == []  # its own header tells


def test_more_behind_the_frame() -> None:
    assert_refused(wrap(squeeze(INNER + b"\0"), len(INNER)))
    assert_refused(wrap(squeeze(INNER + bytes(8)), len(INNER) + 8))
    assert_refused(wrap(squeeze(INNER + INNER), 2 * len(INNER)))


def test_less_than_the_frame() -> None:
    assert_refused(wrap(squeeze(INNER[:-1]), len(INNER)))
    assert_refused(wrap(squeeze(INNER[:100]), len(INNER)))
    assert_refused(wrap(squeeze(b""), len(INNER)))


@pytest.mark.parametrize(
    ("inner", "n_rows"),
    [
        (bytes(INLINE_BYTES + 1), None),
        (bytes(pack(Kind.CANCEL, id=1).head), None),
        (bytes(pack(Kind.CANCEL, id=1).head) * 1000, None),
        (bytes(pack(Kind.CANCEL, id=1).head), INLINE_BYTES + 1),
    ],
    ids=["zeros", "a small frame", "many small frames", "a small frame that says it is large"],
)
def test_what_is_inside_is_one_large_frame(inner: bytes, n_rows: int | None) -> None:
    assert_refused(wrap(squeeze(inner), len(inner) if n_rows is None else n_rows), match="frame")


def test_a_frame_within_a_frame_within_a_frame_is_not_opened() -> None:
    """It comes out as the COMPRESSED frame that it is, which is not for anybody."""
    middle = spell(pack(Kind.COMPRESSED, [NOISE[:40_000]], n_rows=len(INNER)))
    frame = Compressor().inflate(wrap(squeeze(middle), inner=middle), Room().place)
    assert frame.header.kind == Kind.COMPRESSED


@pytest.mark.parametrize("n_rows", [0, 1, INLINE_BYTES, LARGEST + 1, 2**62, 2**64 - 1])
def test_sizes_that_no_compressed_frame_has(n_rows: int) -> None:
    assert assert_refused(wrap(squeeze(INNER), n_rows)).given == []


def test_what_is_not_one_array_of_bytes() -> None:
    data = np.frombuffer(squeeze(INNER).ljust(1000, b"\0"), np.uint8)
    for arrays in ([], [data, data], [data.view(np.float64)], [data.view(np.bool_)]):
        assert_refused(arrive(pack(Kind.COMPRESSED, arrays, n_rows=len(INNER))), match="array")
    for shape in ((), (0,), (8, 125), (1000, 1)):
        odd = np.resize(data, shape)
        assert_refused(arrive(pack(Kind.COMPRESSED, [odd], n_rows=len(INNER) + 1)))


@CHECK
@given(st.data())
def test_corrupt_zstd_is_refused_or_right(data: st.DataObject) -> None:
    """Without a checksum some damage goes unnoticed, as anywhere on a stream; but never does it go out of bounds."""
    squeezed = bytearray(squeeze(INNER))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(squeezed) - 1))
        damage = data.draw(st.sampled_from(["byte", "cut", "insert"]))
        if damage == "byte":
            squeezed[at] ^= data.draw(st.integers(1, 255))
        elif damage == "cut" and len(squeezed) > 1:
            del squeezed[at:]
            break
        else:
            squeezed[at:at] = data.draw(st.binary(min_size=1, max_size=8))
    try:
        frame = Compressor().inflate(wrap(bytes(squeezed), inner=INNER), Room().place)
    except BadFrame:
        return
    assert HEADER_BYTES + frame.header.payload == len(INNER)


@CHECK
@given(st.binary(max_size=300))
def test_noise_is_refused(noise: bytes) -> None:
    assert_refused(wrap(noise, 100_000))


# ---- bombs ---------------------------------------------------------------------------------------------------


def measure_peak(frame: Frame, place: Any) -> int:
    compressor = Compressor()
    tracemalloc.start()
    try:
        with pytest.raises(BadFrame):
            compressor.inflate(frame, place)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def announce(n_bytes: int) -> bytes:
    """A head that says that so many bytes follow."""
    head = bytearray(pack(Kind.ROWS, [np.zeros(INLINE_BYTES, dtype=np.uint8)]).head)
    head[40:48] = (16 + n_bytes).to_bytes(8, "little")
    head[72:80] = n_bytes.to_bytes(8, "little")
    return bytes(head)


def test_little_is_announced_and_much_comes_out() -> None:
    """100 kB that inflate to 1 GB: no more of it is inflated than was announced."""
    runner = zstandard.ZstdCompressor().compressobj()
    zeros = bytes(1 << 20)
    bomb = b"".join([runner.compress(INNER), *(runner.compress(zeros) for _ in range(1024)), runner.flush()])
    assert len(bomb) < 200_000
    assert measure_peak(wrap(bomb, len(INNER)), Room().place) < 1 << 20


def test_much_is_announced_and_little_comes_out() -> None:
    def place(header: Header, layout: Layout) -> list[Array]:
        raise BadFrame("asked for room")

    for size in (1 << 20, 1 << 30, 1 << 40, 1 << 62):
        frame = wrap(squeeze(announce(size)), HEADER_BYTES + 16 + size)
        assert measure_peak(frame, place) < 1 << 18


def test_within_bounds_room_is_asked_for_and_given_back() -> None:
    room = Room()
    head = announce(1 << 20)
    assert measure_peak(wrap(squeeze(head + bytes(1000)), len(head) + (1 << 20)), room.place) < 3 << 20
    assert len(room.given) == 1


def test_an_inflater_does_not_look_back_for_ever() -> None:
    """A frame of zstd says itself how much memory its reader needs: up to 2 GB, if it is believed."""
    far = zstandard.ZstdCompressionParameters(window_log=27, compression_level=1)
    runner = zstandard.ZstdCompressor(compression_params=far).compressobj()
    data = runner.compress(INNER) + runner.flush()
    assert_refused(wrap(data, inner=INNER), match="memory|window")
    near = zstandard.ZstdCompressionParameters(window_log=23, compression_level=1)
    runner = zstandard.ZstdCompressor(compression_params=near).compressobj()
    data = runner.compress(INNER) + runner.flush()
    assert Compressor().inflate(wrap(data, inner=INNER), Room().place).header.id == 3


def test_without_the_package_nothing_is_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_available()
    monkeypatch.setitem(sys.modules, "zstandard", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not is_available()
    with pytest.raises(ImportError):
        Compressor()
