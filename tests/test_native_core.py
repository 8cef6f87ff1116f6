"""The C side against Python's: random words, sums, JSON and frames, through cffi and the same questions."""

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
from compiling import CSRC, Workshop
from hypothesis import given, settings
from hypothesis import strategies as st
from test_wire import FRAMES, read_all, read_golden

from demos_hpc.blocks import sum_blocks, sum_pairwise
from demos_hpc.config import Config
from demos_hpc.errors import BadFrame, BadVersion, Status
from demos_hpc.installation import find_installation
from demos_hpc.native import read_header
from demos_hpc.streams import BlockStreams
from demos_hpc.wire import read_layout, split

#: The same examples in every run; no deadline, since machines in use have pauses.
CHECK = settings(derandomize=True, deadline=None, max_examples=300)
#: The parts of the library that no plug-in uses.
INTERNAL = ("sums.h", "json.h", "wire.h", "config.h")


@pytest.fixture(scope="module")
def core(workshop: Workshop) -> tuple[Any, Any]:
    ffi = cffi.FFI()
    ffi.cdef(read_header(CSRC / "include"))
    for name in INTERNAL:
        text = (CSRC / "src" / name).read_text(encoding="utf-8")
        ffi.cdef(re.sub(r"^#.*$", "", text, flags=re.MULTILINE))
    return ffi, ffi.dlopen(str(find_installation(Config.load()).library))


# ---- random numbers -------------------------------------------------------------------------------------------------


@CHECK
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(1, 40))
def test_words_are_those_of_numpy(core: tuple[Any, Any], seed: int, block: int, low: int, n: int) -> None:
    ffi, c = core
    stream = ffi.new("demos_stream *")
    c.demos_stream_set(stream, seed, block)
    assert [c.demos_stream_bits(stream) for _ in range(n)] == BlockStreams().set(seed, block).bit_generator.random_raw(
        n
    ).tolist()
    # Anywhere in the stream, where the counter carries as well.
    c.demos_stream_set(stream, seed, block)
    stream.counter = [low, 2**64 - 1, 2**64 - 1, block]
    counter = np.array([low, 2**64 - 1, 2**64 - 1, block], dtype=np.uint64)
    philox = np.random.Philox(key=seed, counter=counter)
    assert [c.demos_stream_bits(stream) for _ in range(n)] == philox.random_raw(n).tolist()


def test_numbers_are_those_of_numpy_but_for_rounding(core: tuple[Any, Any]) -> None:
    ffi, c = core
    stream = ffi.new("demos_stream *")
    c.demos_stream_set(stream, 11, 3)
    uniform = [c.demos_stream_uniform(stream) for _ in range(1000)]
    rng = BlockStreams().set(11, 3)
    assert uniform == rng.random(1000).tolist()
    normal = np.array([c.demos_stream_normal(stream) for _ in range(200_000)])
    np.testing.assert_allclose(normal, rng.standard_normal(200_000), rtol=1e-13)
    assert np.abs(normal).max() > 3.66  # the tail was among them


def test_tables_of_normal_numbers_are_those_that_make_writes() -> None:
    text = runpy.run_path(str(CSRC / "src/make_normal_tables.py"))["make"]()
    assert text == (CSRC / "src/normal_tables.h").read_text(encoding="utf-8")


# ---- sums -----------------------------------------------------------------------------------------------------------


@st.composite
def values(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    n = draw(st.one_of(st.integers(0, 40), st.integers(0, 3000), st.sampled_from([127, 128, 129, 1024, 8191, 20_000])))
    shape = (n,) if draw(st.booleans()) else (n, draw(st.integers(1, 5)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    array = rng.normal(size=shape) * 10.0 ** rng.integers(-12, 12, size=shape)
    for special in draw(st.lists(st.sampled_from([-np.inf, np.inf, np.nan, -0.0, 5e-324, 1e308]), max_size=2)):
        if array.size:
            array.flat[draw(st.integers(0, array.size - 1))] = special
    return array


@settings(CHECK, max_examples=600)
@given(values(), st.one_of(st.integers(1, 300), st.sampled_from([1024, 4096, 1 << 20])))
def test_sums_have_the_bits_of_numpys(core: tuple[Any, Any], array: np.ndarray[Any, Any], block_rows: int) -> None:
    ffi, c = core
    width = 1 if array.ndim == 1 else array.shape[1]
    with np.errstate(invalid="ignore", over="ignore"):
        wanted = sum_blocks(array, block_rows)
        total = sum_pairwise(wanted)
    sums, added = np.full(wanted.shape, 4711.0), np.full(wanted.shape[1:], 4711.0)

    def at(a: np.ndarray[Any, Any]) -> Any:
        return ffi.from_buffer("double *", a, require_writable=True)

    c.demos_sum_blocks(at(array), len(array), width, block_rows, at(sums))
    assert sums.tobytes() == wanted.tobytes() or np.array_equal(sums, wanted, equal_nan=True)
    assert (np.signbit(sums) == np.signbit(wanted))[~np.isnan(wanted)].all()
    partials = sums.copy()
    c.demos_sum_pairwise(at(partials), len(sums), width, at(added))
    np.testing.assert_array_equal(added, total)


# ---- JSON -----------------------------------------------------------------------------------------------------------


def read_json(core: tuple[Any, Any], text: bytes) -> bool:
    """Whether C takes it for JSON."""
    ffi, c = core
    document, error = ffi.new("demos_json *"), ffi.new("demos_error *")
    status = c.demos_json_open(document, text, len(text), error)
    c.demos_json_close(document)
    assert status in (0, Status.INVALID_INPUT)
    assert (status == 0) == (not ffi.string(error.message))
    return bool(status == 0)


def is_json(text: bytes) -> bool:
    """Whether Python does, without what it takes beyond the standard, or the standard leaves open."""

    def refuse(word: str) -> None:
        raise ValueError(word)

    def read_number(digits: str) -> float:
        number = float(digits)
        if math.isinf(number) or len(digits) > 511:
            raise ValueError(digits)
        return number

    try:
        value = json.loads(text.decode(), parse_constant=refuse, parse_float=read_number, parse_int=read_number)
        json.dumps(value, ensure_ascii=False).encode()  # no half of a pair
    except (ValueError, RecursionError):
        return False
    return not text.startswith(b"\xef\xbb\xbf")


plain = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@CHECK
@given(plain, st.booleans(), st.sampled_from([None, 1]))
def test_what_python_writes_is_read(core: tuple[Any, Any], value: Any, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert read_json(core, text)


FRAGMENTS = [
    *(b'{}[],:"0123456789-+.eE \n\tabtfn\\u', b"\x00", b"\xc3\xa4", b"\xe2\x82\xac", b"\xf0\x9f\x98\x80", b"\xff"),
    *(b"\xed\xa0\x80", b"\\ud83d", b"\\ude00", b"\\u00e4", b"true", b"false", b"null", b"NaN", b"1e400", b"-0", b"01"),
    *(b'"a":', b'{"a":1}', b"[]", b"\xef\xbb\xbf"),
]
fragment = st.sampled_from([bytes([f]) if isinstance(f, int) else f for f in FRAGMENTS])


@settings(CHECK, max_examples=3000)
@given(st.lists(fragment, max_size=12).map(b"".join) | st.binary(max_size=20))
def test_c_and_python_agree_on_what_is_json(core: tuple[Any, Any], text: bytes) -> None:
    assert read_json(core, text) == is_json(text)


@CHECK
@given(plain.map(lambda value: json.dumps(value).encode()), st.data())
def test_damaged_json_is_read_or_refused_alike(core: tuple[Any, Any], text: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text)))
    damaged = text[:at] + data.draw(fragment) + text[at + data.draw(st.integers(0, 2)) :]
    assert read_json(core, damaged) == is_json(damaged)


# ---- frames ---------------------------------------------------------------------------------------------------------


def read_in_c(core: tuple[Any, Any], message: bytes) -> int:
    """The status of reading all of a message, as `test_wire.read_all` does."""
    ffi, c = core
    header, layout = ffi.new("demos_header *"), ffi.new("demos_layout *")
    error, after = ffi.new("demos_error *"), ffi.new("size_t *")
    # In memory of its own, at no particular address.
    memory = ffi.new("char[]", len(message) + 1)
    ffi.buffer(memory, len(message))[:] = message
    start, status = 0, 0
    while not status and (start == 0 or start < len(message)):
        status = c.demos_split(memory, len(message), start, header, after, error)
        status = status or c.demos_read_layout(header, memory + start, len(message) - start, layout, error)
        start = after[0]
    return int(status)


def read_in_python(message: bytes) -> int:
    buffer = bytearray(message)
    try:
        for header, start in split(buffer):
            read_layout(header, buffer, start)
    except (BadFrame, BadVersion) as error:
        return error.status
    return 0


GOOD = [bytes(read_golden(entry)) for entry in FRAMES["good"]]
WORDS = [0, 1, 8, 2**16, 2**31, 2**32, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 64, 2**64 - 1]


@settings(CHECK, max_examples=4000)
@given(st.data())
def test_damaged_frames_are_read_or_refused_alike(core: tuple[Any, Any], data: st.DataObject) -> None:
    message = bytearray(data.draw(st.sampled_from(GOOD)))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, max(len(message) - 1, 0)))
        damage = data.draw(st.sampled_from(["byte", "word", "cut", "insert"]))
        if damage == "byte" and message:
            message[at] = data.draw(st.integers(0, 255))
        elif damage == "word":
            at -= at % 8
            message[at : at + 8] = struct.pack("<Q", data.draw(st.sampled_from(WORDS)))[: len(message) - at]
        elif damage == "cut":
            del message[at:]
        else:
            message[at:at] = bytes(data.draw(st.integers(1, 16)))
    assert read_in_c(core, bytes(message)) == read_in_python(bytes(message))


@pytest.mark.parametrize("entry", FRAMES["bad"], ids=[entry["file"] for entry in FRAMES["bad"]])
def test_golden_frames_are_refused_with_their_status(core: tuple[Any, Any], entry: dict[str, Any]) -> None:
    assert read_in_c(core, bytes(read_golden(entry))) == Status[entry["status"]]


@pytest.mark.parametrize("entry", FRAMES["good"], ids=[entry["file"] for entry in FRAMES["good"]])
def test_golden_frames_are_read(core: tuple[Any, Any], entry: dict[str, Any]) -> None:
    message = read_golden(entry)
    assert len(read_all(message)) == len(entry["frames"])
    assert read_in_c(core, bytes(message)) == 0


# ---- descriptions ---------------------------------------------------------------------------------------------------


def test_names_of_entries_are_the_same_in_c_and_python() -> None:
    from demos_hpc import glue

    text = (CSRC / "src/config.c").read_text(encoding="utf-8")
    lists = {
        name: re.findall(r'"(\w+)"', body) for name, body in re.findall(r"(\w+)\[\] = \{(.*?)\};", text, re.DOTALL)
    }
    promises = re.findall(r'\{"(\w+)", DEMOS_', text)
    assert {*lists["SPEC"], *promises} == set(glue.SPEC)
    ours = {"library", "thread_safe", "threads", "settings", *glue.FUNCTIONS, *glue.OF_PROGRAMS}
    assert set(lists["OURS"]) == ours
    assert Path(CSRC / "src/config.h").read_text(encoding="utf-8").count("demos_hpc/glue.py") == 1
