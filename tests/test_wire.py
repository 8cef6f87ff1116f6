"""The codec against the C header, against the golden frames, and against whatever bytes a peer may send."""

from __future__ import annotations

import json
import math
import re
import runpy
import struct
from pathlib import Path
from typing import Any

import cffi
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos_hpc import errors, wire
from demos_hpc.errors import BadFrame, BadVersion, InvalidInput, Status
from demos_hpc.messages import Failure, Flag, Hello, Kind, Operation, Welcome, from_json
from demos_hpc.streams import BlockStreams
from demos_hpc.wire import (
    ALIGNMENT,
    DTYPES,
    HEADER_BYTES,
    INLINE_BYTES,
    MAX_ARRAYS,
    MAX_DIMS,
    Frame,
    Header,
    join,
    pack,
    read_header,
    read_layout,
    split,
)

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests/golden"
FRAMES = json.loads((GOLDEN / "frames.json").read_text(encoding="utf-8"))
#: The same examples in every run; no deadline, since machines in use have pauses.
CHECK = settings(derandomize=True, deadline=None, max_examples=200)


def by_file(entries: list[dict[str, Any]]) -> Any:
    return pytest.mark.parametrize("entry", entries, ids=[entry["file"].removesuffix(".bin") for entry in entries])


def read_golden(entry: dict[str, Any]) -> bytearray:
    return bytearray((GOLDEN / entry["file"]).read_bytes())


def read_all(message: bytearray) -> list[Frame]:
    """Everything that a receiver looks at; of large frames the layout."""
    frames = [Frame(header, message, start) for header, start in split(message)]
    for frame in frames:
        layout = read_layout(frame.header, message, frame.start)
        if frame.is_inline:
            assert [array.shape for array in frame.arrays] == list(layout.shapes)
    return frames


def fields_of(header: Header) -> dict[str, int]:
    """The fields that `pack` takes."""
    return {
        name: value
        for name, value in header._asdict().items()
        if name not in ("magic", "major", "minor", "kind", "n_arrays", "payload")
    }


# ---- demos.h ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ffi() -> cffi.FFI:
    text = (ROOT / "csrc/include/demos.h").read_text(encoding="utf-8")
    text = re.sub(r"^#ifdef __cplusplus.*?^#endif", "", text, flags=re.DOTALL | re.MULTILINE)
    ffi = cffi.FFI()
    ffi.cdef(re.sub(r"^#.*$", "", text, flags=re.MULTILINE))
    return ffi


def test_header_has_the_fields_of_the_c_struct(ffi: cffi.FFI) -> None:
    struct_ = ffi.typeof("demos_header")
    sizes = {name: struct.calcsize("<" + code) for name, code in wire.FIELDS}
    assert [name for name, _ in struct_.fields] == [name for name, _ in wire.FIELDS] == list(Header._fields)
    assert {name: field.offset for name, field in struct_.fields} == wire.OFFSETS
    assert {name: ffi.sizeof(field.type) for name, field in struct_.fields} == sizes
    assert ffi.sizeof("demos_header") == HEADER_BYTES == 64


def test_descriptor_has_the_fields_of_the_c_struct(ffi: cffi.FFI) -> None:
    shape = (2, 3, 5, 1, 1, 1, 1, 7)
    described = bytes(pack(Kind.REPLY, [np.zeros(shape, dtype="f4")]).head[HEADER_BYTES : HEADER_BYTES + 72])
    c = ffi.from_buffer("demos_array *", described, require_writable=False)
    assert (c.dtype, c.n_dims, tuple(c.shape)) == (2, 8, shape)
    assert bytes(c.reserved) == bytes(6)
    assert len(described) == ffi.sizeof("demos_array")
    (offset,) = Frame(*packed_header(pack(Kind.REPLY, [np.zeros((2, 3))]))).layout.offsets
    assert offset - HEADER_BYTES == ffi.offsetof("demos_array", "shape") + 2 * 8


@pytest.mark.parametrize(
    ("enum", "here"),
    [
        ("demos_kind", {kind.name: kind.value for kind in Kind}),
        ("demos_operation", {operation.name: operation.value for operation in Operation}),
        ("demos_status", {status.name: status.value for status in Status}),
        ("demos_flag", {flag.name: flag.value for flag in Flag}),
        ("demos_dtype", {dtype.name.upper(): code for code, dtype in DTYPES.items()}),
        ("demos_wire", {n: v for n, v in vars(wire).items() if type(v) is int and re.fullmatch("[A-Z][A-Z_]+", n)}),
    ],
)
def test_enum_is_the_one_of_the_c_header(ffi: cffi.FFI, enum: str, here: dict[str, int]) -> None:
    there = {name.removeprefix("DEMOS_"): value for name, value in ffi.typeof(f"enum {enum}").relements.items()}
    if enum == "demos_wire":
        there["HEADER_BYTES"] = ffi.sizeof("demos_header")
    assert here == there


def packed_header(packed: wire.Packed) -> tuple[Header, bytearray]:
    return read_header(packed.head), packed.head


# ---- golden frames ------------------------------------------------------------------------------------------


def expected_array(entry: dict[str, Any]) -> np.ndarray[Any, Any]:
    shape, dtype = tuple(entry["shape"]), np.dtype(entry["dtype"])
    if entry["data"] is None:
        return np.zeros(shape, dtype)
    if dtype.kind == "c":
        parts = np.array(entry["data"], dtype=np.float64)
        return parts.view(np.complex128).reshape(shape)
    return np.array(entry["data"], dtype=dtype).reshape(shape)


def test_golden_frames_are_those_that_make_writes(tmp_path: Path) -> None:
    runpy.run_path(str(GOLDEN / "make.py"))["write"](tmp_path)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    kept = {path.name: path.read_bytes() for path in GOLDEN.iterdir() if path.suffix in (".bin", ".json")}
    assert written == kept


def test_golden_frames_show_every_kind_operation_flag_and_dtype() -> None:
    frames = [frame for entry in FRAMES["good"] for frame in entry["frames"]]
    headers = [frame["header"] for frame in frames]
    assert {header["kind"] for header in headers} >= set(Kind)
    assert {header["operation"] for header in headers} >= set(Operation)
    assert {header["flags"] for header in headers} >= {flag.value for flag in Flag}
    assert {array["dtype"] for frame in frames for array in frame["arrays"]} == {d.name for d in DTYPES.values()}


@by_file(FRAMES["good"])
def test_good_frame_means_what_is_written(entry: dict[str, Any]) -> None:
    frames = read_all(read_golden(entry))
    assert [frame.start for frame in frames] == [expected["start"] for expected in entry["frames"]]
    for frame, expected in zip(frames, entry["frames"], strict=True):
        assert frame.header._asdict() == expected["header"]
        arrays = [expected_array(array) for array in expected["arrays"]]
        layout = read_layout(frame.header, frame.buffer, frame.start)
        assert list(layout.shapes) == [array.shape for array in arrays]
        assert list(layout.dtypes) == [array.dtype for array in arrays]
        if frame.is_inline:
            for array, wanted in zip(frame.arrays, arrays, strict=True):
                assert array.dtype == wanted.dtype
                np.testing.assert_array_equal(array, wanted)
        else:
            with pytest.raises(BadFrame, match="are here"):
                _ = frame.arrays


@by_file([entry for entry in FRAMES["good"] if entry["file"] != "good_newer_minor.bin"])
def test_good_frame_is_written_as_the_same_bytes(entry: dict[str, Any]) -> None:
    heads = []
    for expected in entry["frames"]:
        header = Header(**expected["header"])
        packed = pack(header.kind, [expected_array(array) for array in expected["arrays"]], **fields_of(header))
        heads.append(packed.head)
    message = read_golden(entry)
    assert join(heads)[: len(message)] == message


@by_file(FRAMES["bad"])
def test_bad_frame_is_refused(entry: dict[str, Any]) -> None:
    exception = errors.EXCEPTION_OF[Status[entry["status"]]]
    with pytest.raises(errors.DemosError) as caught:
        read_all(read_golden(entry))
    assert type(caught.value) is exception


def test_golden_json_is_what_messages_understands() -> None:
    def payload(name: str) -> Any:
        (frame,) = read_all(bytearray((GOLDEN / f"good_{name}.bin").read_bytes()))
        return from_json(frame.arrays[0])

    hello = Hello.from_dict(payload("hello"))
    assert (hello.role, hello.pid) == ("client", 4711)
    assert [Hello.from_dict(h) for h in Welcome.from_dict(payload("welcome")).hellos] == [hello]
    assert isinstance(Failure.from_dict(payload("reply_failure")).to_exception(), errors.ModelFailed)
    busy = Failure.from_dict(payload("reply_busy")).to_exception()
    assert isinstance(busy, errors.Busy)
    assert busy.retry_after == 0.25


# ---- there and back -----------------------------------------------------------------------------------------

FIELD_VALUES = {
    name: st.integers(0, 2 ** (8 * struct.calcsize(code)) - 1)
    for name, code in wire.FIELDS
    if name not in ("magic", "major", "minor", "n_arrays", "payload")
}


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    dtype = draw(st.sampled_from(list(DTYPES.values())))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=4)))
    data = np.arange(math.prod(shape) * dtype.itemsize) + draw(st.integers(0, 255))
    if dtype.kind == "b":
        return (data % 2 == 0)[: math.prod(shape)].reshape(shape)
    return data.astype(np.uint8).view(dtype).reshape(shape)


frames_ = st.tuples(st.fixed_dictionaries(FIELD_VALUES), st.lists(arrays(), max_size=MAX_ARRAYS))


@CHECK
@given(st.lists(frames_, min_size=1, max_size=4))
def test_what_is_packed_is_read(contents: list[tuple[dict[str, int], list[np.ndarray[Any, Any]]]]) -> None:
    packed = [pack(arrays=sent, **fields) for fields, sent in contents]
    frames = read_all(join([p.head for p in packed]))
    for (fields, sent), frame in zip(contents, frames, strict=True):
        header = frame.header._asdict()
        assert {name: header[name] for name in fields} == fields
        assert header["n_arrays"] == len(sent) == len(frame.arrays)
        assert frame.start % ALIGNMENT == 0
        for theirs, ours in zip(frame.arrays, sent, strict=True):
            assert (theirs.dtype, theirs.shape) == (ours.dtype, ours.shape)
            assert theirs.tobytes() == ours.tobytes()
            assert (theirs.ctypes.data - np.frombuffer(frame.buffer, np.uint8).ctypes.data) % ALIGNMENT == 0


def test_arrays_are_views_that_may_be_written() -> None:
    frame = Frame(*packed_header(pack(Kind.REPLY, [np.arange(4.0)])))
    frame.arrays[0][2] = 9.0
    assert frame.buffer[-16:-8] == struct.pack("<d", 9.0)
    assert frame.arrays[0] is frame.arrays[0]
    with pytest.raises(BufferError):
        frame.buffer.clear()  # would leave the array without memory


def test_frames_of_equal_layout_have_the_same_layout() -> None:
    def layout(*arrays: np.ndarray[Any, Any]) -> wire.Layout:
        return Frame(*packed_header(pack(Kind.REQUEST, arrays))).layout

    assert layout(np.zeros((3, 2))) is layout(np.ones((3, 2)))
    assert layout(np.zeros((3, 2))) is not layout(np.zeros((2, 3)))
    assert layout().shapes == ()


@pytest.mark.parametrize("excess", [0, 1])
def test_inline_ends_exactly_where_it_says(excess: int) -> None:
    data = np.arange(INLINE_BYTES - HEADER_BYTES - 16 + excess).astype(np.uint8)
    packed = pack(Kind.REPLY, [data])
    header, start = next(split(packed.head))
    frame = Frame(header, packed.head, start, list(packed.tail) or None)
    assert frame.is_inline == (not excess) == (not packed.tail)
    assert len(packed.head) == (HEADER_BYTES + 16 if excess else INLINE_BYTES)
    np.testing.assert_array_equal(frame.arrays[0], data)


def test_large_arrays_are_referred_to_not_copied() -> None:
    small, large, empty = np.arange(3, dtype=np.uint8), np.zeros((3000, 1)), np.zeros((0, 4))
    packed = pack(Kind.REPLY, [large, small, empty, large])
    assert [array.nbytes for array in packed.tail] == [large.nbytes, 3, 5, large.nbytes]
    assert packed.tail[0] is large
    header = read_header(packed.head)
    assert header.payload == len(packed.head) - HEADER_BYTES + sum(array.nbytes for array in packed.tail)
    assert [offset % ALIGNMENT for offset in read_layout(header, packed.head).offsets] == [0] * 4


def test_a_large_frame_ends_its_message() -> None:
    message = join([pack(Kind.CANCEL, id=1).head, pack(Kind.REPLY, [np.zeros(3000)], id=2).head])
    assert [header.id for header, _ in split(message)] == [1, 2]


@pytest.mark.parametrize(
    "arrays",
    [
        [np.zeros(2, dtype=np.float16)],
        [np.zeros(2, dtype=">f8")],
        [np.array(["text"])],
        [np.zeros((1,) * (MAX_DIMS + 1))],
        [np.zeros(1)] * (MAX_ARRAYS + 1),
    ],
)
def test_what_no_frame_can_hold_is_refused(arrays: list[np.ndarray[Any, Any]]) -> None:
    with pytest.raises(InvalidInput):
        pack(Kind.REQUEST, arrays)


# ---- whatever a peer may send -------------------------------------------------------------------------------

GOOD = [read_golden(entry) for entry in FRAMES["good"]]


@settings(CHECK, max_examples=2000)
@given(st.data())
def test_damaged_frames_are_read_or_refused(data: st.DataObject) -> None:
    message = bytearray(data.draw(st.sampled_from(GOOD)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, max(len(message) - 1, 0)))
        damage = data.draw(st.sampled_from(["byte", "word", "cut", "insert"]))
        if damage == "byte" and message:
            message[at] = data.draw(st.integers(0, 255))
        elif damage == "word":
            word = data.draw(st.sampled_from([0, 1, 8, 2**31, 2**32, 2**61, 2**63 - 1, 2**63, 2**64 - 1]))
            at -= at % 8
            message[at : at + 8] = struct.pack("<Q", word)[: len(message) - at]
        elif damage == "cut":
            del message[at:]
        else:
            message[at:at] = bytes(data.draw(st.integers(1, 16)))
    try:
        frames = read_all(message)
    except (BadFrame, BadVersion):
        return
    for frame in frames:
        size = HEADER_BYTES + frame.header.payload
        assert not frame.is_inline or frame.start + size <= len(message)
        if frame.is_inline:
            memory = np.frombuffer(message, np.uint8)
            assert all(np.may_share_memory(array, memory) for array in frame.arrays if array.size)


@CHECK
@given(st.binary(max_size=400))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises((BadFrame, BadVersion)):
        read_all(bytearray(noise))


def test_refusals_name_what_is_wrong() -> None:
    with pytest.raises(BadVersion, match=r"wire version 2\.0, this side 1\.0"):
        read_header(bytearray((GOLDEN / "bad_major_newer.bin").read_bytes()))
    with pytest.raises(BadFrame, match="63 bytes"):
        read_header(bytearray(63))


# ---- the specification --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def specification() -> str:
    return (ROOT / "csrc/WIRE.md").read_text(encoding="utf-8")


def test_specification_has_the_offsets_of_the_header(specification: str) -> None:
    rows = re.findall(r"^\| (\d+) \| (\d+) \| `(\w+)` \|", specification.split("## 3.")[0], re.MULTILINE)
    sizes = {name: struct.calcsize("<" + code) for name, code in wire.FIELDS}
    assert {name: (int(at), int(size)) for at, size, name in rows} == {n: (wire.OFFSETS[n], sizes[n]) for n in sizes}


def test_specification_has_every_number_by_its_name(specification: str) -> None:
    rows = re.findall(r"^\| (\d+) \| `([A-Z_\d]+)` \|", specification, re.MULTILINE)
    limits = re.findall(r"`([A-Z_]+)` = ([\d,]+)", specification.split("## 11.")[1])
    numbers = {name: int(value) for value, name in rows}
    assert numbers == {member.name: member.value for enum in (Kind, Operation, Status, Flag) for member in enum} | {
        dtype.name.upper(): code for code, dtype in DTYPES.items()
    }
    assert {name: int(value.replace(",", "")) for name, value in limits} == {
        name: getattr(wire, name) for name in ("MAX_ARRAYS", "MAX_DIMS", "INLINE_BYTES", "PIECE_BYTES", "ALIGNMENT")
    }


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x64-10 as WIRE.md writes it."""
    mask = 2**64 - 1
    c, k = list(counter), list(key)
    for _ in range(10):
        high0, low0 = divmod(0xD2E7470EE14C6C93 * c[0], 2**64)
        high1, low1 = divmod(0xCA5A826395121157 * c[2], 2**64)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B97F4A7C15) & mask, (k[1] + 0xBB67AE8584CAA73B) & mask]
    return c


def test_random_numbers_are_those_of_the_specification(specification: str) -> None:
    row = r"^\| (\d+) \| (\d+) \| `(\w{16})` \| `(\w{16})` \| ([\d.e-]+) \|$"
    rows = re.findall(row, specification, re.MULTILINE)
    assert len(rows) >= 3
    for seed, block, first, fifth, uniform in rows:
        words = [*philox([1, 0, 0, int(block)], [int(seed), 0]), *philox([2, 0, 0, int(block)], [int(seed), 0])]
        drawn = BlockStreams().set(int(seed), int(block)).bit_generator.random_raw(8)
        assert drawn.tolist() == words
        assert (words[0], words[4]) == (int(first, 16), int(fifth, 16))
        assert BlockStreams().set(int(seed), int(block)).random() == float(uniform) == (words[0] >> 11) * 2.0**-53
