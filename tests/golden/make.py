"""Writes the golden frames: ``python tests/golden/make.py [directory]``.

The bytes are written from csrc/WIRE.md with `struct` alone. Nothing of demos_hpc is imported, so that the frames
are a second opinion on its codec and not an echo of it.
"""

from __future__ import annotations

import json
import math
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAGIC = 0x534F4D44  # b"DMOS", little-endian
INLINE_BYTES = 16384
FIELDS = (
    "magic", "major", "minor", "kind", "operation", "status", "flags", "model", "n_arrays",
    "id", "first_row", "n_rows", "payload", "revision", "deadline_ms", "seed",
)  # fmt: skip
HEADER = "<IBBBBHHHHQQQQIIQ"
REQUEST, ROWS, CANCEL, REPLY, CHUNK, RESULT, HELLO, WELCOME, GOODBYE, END = range(1, 11)
CHALLENGE, PROOF, PING, PONG, BEAT, TICKET, NOW, SWITCH, RING, COMPRESSED = range(11, 21)
DENSITY, DENSITY_GRADIENT, LIKELIHOOD, LIKELIHOOD_GRADIENT, SAMPLE, EVALUATE, METADATA, SET_PARAMS = range(1, 9)
STATISTICS, DRAIN, STOP, DATASET, DESCRIBE, DIGEST, UPLOAD = range(9, 16)
FINAL, WRT_X, BLOCK_MAJOR, FRESH_SEED, RESIDENT = 1, 2, 4, 8, 16
#: name: (code on the wire, struct code, bytes of one element)
DTYPES = {
    "float64": (1, "d", 8),
    "float32": (2, "f", 4),
    "int64": (3, "q", 8),
    "int32": (4, "i", 4),
    "uint64": (5, "Q", 8),
    "uint32": (6, "I", 4),
    "uint8": (7, "B", 1),
    "bool": (8, "?", 1),
    "complex128": (9, "dd", 16),
}
NAN, INF = math.nan, math.inf
X = [[0.5, 1.5, -2.25, 3.0, 1e-300, -1e300, 0.0, 8.0]]
PARAMS = [0.25, -1.0, 2.0, 0.125, 6.0, 3.5]

Array = tuple[str, tuple[int, ...], Any]


def array(data: Any, dtype: str = "float64") -> Array:
    """dtype, shape, values as nested lists."""
    shape: list[int] = []
    inner = data
    while isinstance(inner, list):
        shape.append(len(inner))
        if not inner:
            break
        inner = inner[0]
    return dtype, tuple(shape), data


def text(value: Any) -> Array:
    """JSON, as (n,) uint8."""
    return array(list(json.dumps(value).encode()), "uint8")


def descriptor(dtype: int, shape: tuple[int, ...], n_dims: int | None = None) -> bytes:
    return struct.pack(f"<BB6x{len(shape)}Q", dtype, len(shape) if n_dims is None else n_dims, *shape)


def header(kind: int, n_arrays: int, payload: int, **fields: int) -> dict[str, int]:
    values = {"magic": MAGIC, "major": 1, "kind": kind, "n_arrays": n_arrays, "payload": payload, **fields}
    return {name: values.get(name, 0) for name in FIELDS}


def to_bytes(values: dict[str, int]) -> bytes:
    return struct.pack(HEADER, *values.values())


def leaves(data: Any) -> Iterator[Any]:
    if isinstance(data, list):
        for inner in data:
            yield from leaves(inner)
    else:
        yield data


def elements(dtype: str, data: Any) -> bytes:
    code = "<" + DTYPES[dtype][1]
    return b"".join(
        struct.pack(code, value.real, value.imag) if dtype == "complex128" else struct.pack(code, value)
        for value in leaves(data)
    )


def frame(kind: int, *arrays: Array, **fields: int) -> tuple[bytes, dict[str, Any]]:
    """The bytes of a frame, and what they mean. Arrays without values only count: the frame is large, a head."""
    descriptors = b"".join(descriptor(DTYPES[dtype][0], shape) for dtype, shape, _ in arrays)
    data = b""
    size = len(descriptors)
    for dtype, shape, values in arrays:
        gap = -size % 8
        n_bytes = DTYPES[dtype][2] * math.prod(shape)
        size += gap + n_bytes
        if values is not None:
            assert len(list(leaves(values))) == math.prod(shape)
            data += bytes(gap) + elements(dtype, values)
    values = header(kind, len(arrays), size, **fields)
    meaning = [{"dtype": dtype, "shape": shape, "data": spell(data)} for dtype, shape, data in arrays]
    return to_bytes(values) + descriptors + data, {"header": values, "arrays": meaning}


def spell(data: Any) -> Any:
    """JSON has no nan, no infinity and no complex numbers: "nan", "inf", "-inf" and [re, im]."""
    if isinstance(data, list):
        return [spell(inner) for inner in data]
    if isinstance(data, complex):
        return [spell(data.real), spell(data.imag)]
    if isinstance(data, float) and not math.isfinite(data):
        return str(data)
    return data


def squeeze(head: bytes, zeros: int) -> bytes:
    """``head`` and so many zeros as a frame of Zstandard (RFC 8878, 3.1.1): a raw block, then one that repeats."""

    def block(kind: int, size: int, content: bytes, last: int) -> bytes:
        return struct.pack("<I", last | kind << 1 | size << 3)[:3] + content

    size = struct.pack("<BI", 0xA0, len(head) + zeros)  # one segment, whose size has 4 bytes
    return struct.pack("<I", 0xFD2FB528) + size + block(0, len(head), head, 0) + block(1, zeros, b"\0", 1)


def good() -> Iterator[tuple[str, str, list[tuple[bytes, dict[str, Any]]]]]:
    """Name, what it shows, frames of the message."""

    def one(name: str, about: str, *args: Any, **fields: int) -> tuple[str, str, list[Any]]:
        return name, about, [frame(*args, **fields)]

    x, params = array(X), array(PARAMS)
    rows = array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    call = {"operation": DENSITY, "model": 2, "id": 7, "n_rows": 1}
    hello = {"role": "client", "group": "fit.py", "host": "node17", "pid": 4711, "user": "ada", "bell": "udp:9"}
    failure = {"status": 3, "message": "log_density() raised", "traceback": "Traceback ...\n", "retry_after": 0.0}
    refusal = {"status": 5, "message": "100000 requests are waiting", "traceback": "", "retry_after": 0.25}
    no_right = {"status": 16, "message": "this server does not let you in", "traceback": "", "retry_after": 0.0}
    knock = {"role": "client", "user": "ada", "host": "node17", "pid": 4711, "nonce": "5e" * 32, "zstd": True,
             "label": ""}  # fmt: skip
    proof = {"method": "key", "proof": "a1" * 32, "key": "ada"}
    admission = {"server": "0f" * 16, "name": "neutrino", "number": 3, "proof": "b2" * 32, "heartbeat": 5.0,
                 "zstd": True, "model_path": "neutrino.py:Neutrino"}  # fmt: skip

    yield one("request", "log_density of one row", REQUEST, x, params, **call, deadline_ms=60000)
    yield one("request_per_row", "a row of params for each row of x", REQUEST, rows, rows, **call | {"n_rows": 3})
    yield one("request_defaults", "x alone: the server's own params, of revision 9", REQUEST, x, **call, revision=9)
    yield one("request_gradient_x", "gradient with respect to x", REQUEST, x, params,
              **call | {"operation": DENSITY_GRADIENT, "flags": WRT_X})  # fmt: skip
    yield one("request_likelihood", "two points, cells run over blocks first", REQUEST, rows, array([PARAMS] * 2),
              **call | {"operation": LIKELIHOOD, "flags": BLOCK_MAJOR, "n_rows": 3})  # fmt: skip
    yield one("request_sample", "the largest seed and more than 2^40 rows", REQUEST, params,
              operation=SAMPLE, id=2**64 - 1, n_rows=2**40 + 3, seed=2**64 - 1)  # fmt: skip
    yield one("request_sample_fresh", "a seed that nobody has chosen", REQUEST, params,
              operation=SAMPLE, flags=FRESH_SEED, id=11, n_rows=10, seed=0xFEDCBA9876543210)  # fmt: skip
    yield one("request_evaluate", "two points", REQUEST, array([PARAMS, PARAMS]), operation=EVALUATE, id=8, n_rows=2)
    yield one("request_metadata", "a header and nothing else", REQUEST, operation=METADATA, id=9, model=2)
    yield one("request_set_params", "JSON", REQUEST, text({"mu": 0.5}), operation=SET_PARAMS, id=10, model=2)
    yield one("rows", "rows 3 to 5 of a large request", ROWS, rows, **call | {"first_row": 3, "n_rows": 3})
    yield one("cancel", "forget request 7", CANCEL, id=7)
    yield one("reply", "values of 3 rows, all there is", REPLY, array([-1.5, -INF, NAN]), flags=FINAL, id=7, n_rows=3,
              operation=DENSITY, revision=9, deadline_ms=1, seed=1_500_000)  # fmt: skip
    yield one("reply_gradient", "value and gradient, more to come, rows from 2^32 + 5 on", REPLY,
              array([-1.5, -2.5]), array([[0.0, 1.0], [-1.0, 0.5]]),
              operation=DENSITY_GRADIENT, id=7, first_row=2**32 + 5, n_rows=2)  # fmt: skip
    yield one("reply_set_params", "the new revision and no array", REPLY, flags=FINAL, id=10, revision=10,
              operation=SET_PARAMS)  # fmt: skip
    yield one("reply_failure", "the model raised", REPLY, text(failure), status=3, flags=FINAL, id=7, operation=DENSITY)
    yield one("reply_busy", "try again in a quarter of a second", REPLY, text(refusal), status=5, flags=FINAL, id=7)
    yield one("chunk", "rows 1024 to 1026 for a worker", CHUNK, rows, array([1.0, 2.0]),
              **call | {"id": 55, "first_row": 1024, "n_rows": 3})  # fmt: skip
    yield one("chunk_sample", "2048 draws from block 2^32 on", CHUNK, params, operation=SAMPLE, id=56,
              first_row=2**42, n_rows=2048, seed=0x0123456789ABCDEF)  # fmt: skip
    yield one("result", "three values, 2.5 ms in the model", RESULT, array([-1.0, -2.0, -3.0]), operation=DENSITY,
              id=55, first_row=1024, n_rows=3, seed=2_500_000)  # fmt: skip
    yield one("result_cells", "cells 4 to 6 and their gradients", RESULT, array([-10.0, -20.0, -30.0]),
              array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), operation=LIKELIHOOD_GRADIENT, id=57, first_row=4,
              n_rows=3)  # fmt: skip
    yield one("hello", "who I am", HELLO, text(hello))
    yield one("welcome", "who everybody is", WELCOME, text({"hellos": [hello], "token": "3f"}))
    yield one("goodbye", "nothing more from me", GOODBYE)
    yield one("end", "the service is over", END)
    yield one("hello_door", "at the door: who I am", HELLO, text(knock))
    yield one(
        "challenge", "prove it, by one of these", CHALLENGE, text({"nonce": "c3" * 32, "methods": ["munge", "key"]})
    )
    yield one("proof", "by a key", PROOF, text(proof))
    yield one("welcome_door", "you are in, and so prove I", WELCOME, text(admission))
    yield one("refusal", "you are not, whatever it was", REPLY, text(no_right), status=16, flags=FINAL)
    yield one("ping", "are you there?", PING, id=12)
    yield one("pong", "I am", PONG, id=12)
    beat = {"rss": 123456789, "datasets": 2, "held_bytes": 64000000, "budget_bytes": 8000000000}
    yield one("beat", "the memory that a worker has, and the data that it holds", BEAT, text(beat))
    yield one("ticket_wanted", "may we go on through shared memory?", TICKET)
    yield one("ticket", "here it is", TICKET, text({"address": "/dev/shm/demos-7f3a"}))
    yield one("now", "I have it; my last frame on the socket", NOW)
    yield one("now_refused", "it is nothing for me", NOW, status=2)
    yield one("switch", "my last frame on the socket", SWITCH)
    yield one("switch_refused", "there is none: it stays at the socket", SWITCH, status=2)
    yield one("ring", "look into your mailbox", RING)
    yield one("request_statistics", "of the server, no model's", REQUEST, operation=STATISTICS, id=13, n_rows=1)
    yield one("request_drain", "take nothing new", REQUEST, text({}), operation=DRAIN, id=14, n_rows=1)
    yield one("request_stop", "and end at once", REQUEST, text({"now": True}), operation=STOP, id=15, n_rows=1)
    yield one("reply_stop", "it ends", REPLY, text({"state": "draining", "requests": 2}), flags=FINAL, id=15)
    where = {"dataset": "events", "identity": "0f" * 8}
    yield one("request_dataset", "rows 10 to 15 of 20 columns, every second, in two units", REQUEST,
              text({**where, "axes": [[10, 1, 6], [0, 2, 10]], "axis": 0, "fields": None, "is_flat": False,
                    "kind": "rows", "row_bytes": 80}), array([0, 4, 6], "int64"),
              operation=DATASET, id=16, model=2, n_rows=6)  # fmt: skip
    yield one("request_dataset_list", "three rows of a list, two fields of them, in one unit", REQUEST,
              text({**where, "axes": [None, [0, 1, 1]], "axis": 0, "fields": ["energy", "time"], "row_bytes": 16}),
              array([0, 3], "int64"), array([7, 2**32 + 1, 2**62], "int64"),
              operation=DATASET, id=21, model=2, n_rows=3)  # fmt: skip
    yield one("request_dataset_columns", "all rows of two columns, strings", REQUEST,
              text({**where, "axes": [[0, 1, 4], {"indices": [1, 5]}], "axis": 0, "kind": "text"}),
              array([0, 4], "int64"), operation=DATASET, id=22, model=2, n_rows=4)  # fmt: skip
    yield one("chunk_dataset", "two rows of a list", CHUNK,
              text({**where, "axes": [None], "axis": 0, "row_bytes": 4}), array([7, 2**32 + 1], "int64"),
              operation=DATASET, id=58, model=2, first_row=3, n_rows=2)  # fmt: skip
    yield one("result_dataset", "two rows of three bytes", RESULT, array([[1, 2, 3], [4, 5, 6]], "uint8"),
              operation=DATASET, id=58, model=2, first_row=3, n_rows=2)  # fmt: skip
    yield one("result_text", "two strings, and their bytes", RESULT, array([2, 0], "int64"), array([195, 164], "uint8"),
              operation=DATASET, id=59, model=2, n_rows=2)  # fmt: skip
    yield one("result_altered", "the file is another one", RESULT,
              text({"status": 17, "message": "events.h5 was replaced", "traceback": "", "retry_after": 0.0}),
              status=17, operation=DATASET, id=60, model=2)  # fmt: skip
    yield one("request_describe", "what there is of it", REQUEST, text({"dataset": "events"}), operation=DESCRIBE,
              id=17, model=2, n_rows=1)  # fmt: skip
    described = {"name": "events", "path": "/data/events.h5:/events", "units": "", "description": "", "checksum": "",
                 "license": "", "shape": [5], "dtype": [["energy", "<f8"], ["", "|V4"], ["pixels", "<u2", [2]]],
                 "kind": "rows", "chunks": None, "filters": [], "attrs": {"run": {"shape": [], "dtype": "<i4",
                 "data": "BwAAAA=="}, "note": "raw"}, "identity": "0f" * 8, "item_bytes": 16,
                 "is_compressed": False}  # fmt: skip
    yield one("reply_describe", "one that there is, and one that cannot be read", REPLY,
              text({"datasets": [described, {"name": "gone", "problem": "gone.h5 cannot be opened"}]}),
              operation=DESCRIBE, flags=FINAL, id=17, model=2, n_rows=1)  # fmt: skip
    yield one("request_describe_all", "what there is at all", REQUEST, text({}), operation=DESCRIBE, id=23, model=2,
              n_rows=1)  # fmt: skip
    yield one("request_digest", "checksums of three slabs", REQUEST, text(where), array([0, 1, 2, 3], "int64"),
              operation=DIGEST, id=18, model=2, n_rows=3)  # fmt: skip
    yield one("result_digest", "of one slab", RESULT, array([list(range(32))], "uint8"), operation=DIGEST, id=61,
              model=2, first_row=2, n_rows=1)  # fmt: skip
    yield one("reply_data_too_large", "nobody has the memory", REPLY,
              text({"status": 9, "message": "ask for less at a time", "traceback": "", "retry_after": 0.0}),
              status=9, operation=DATASET, flags=FINAL, id=16, model=2)  # fmt: skip
    yield one("request_upload", "a part of some rows", REQUEST,
              text({"upload": "c4" * 32, "rows": 9, "columns": 1, "do": "write", "first": 7}),
              array([[0.5], [-0.5]]), operation=UPLOAD, id=19, model=2, n_rows=2)  # fmt: skip
    yield one("request_resident", "two points, rows that the workers hold, in groups of two blocks", REQUEST,
              text({**where, "columns": [], "rows": 5000000000, "upload": "", "weights": "", "weights_identity": "",
                    "width": 1}),
              array([2**32, 1, 3000, 2], "int64"), array([PARAMS] * 2),
              operation=LIKELIHOOD, flags=RESIDENT, id=20, model=2, n_rows=4)  # fmt: skip
    inner, _ = frame(REPLY, ("float64", (2500,), None), operation=DENSITY, flags=FINAL, id=7, n_rows=2500)
    yield one("compressed", "2500 values, all of them 0, of a large REPLY", COMPRESSED,
              array(list(squeeze(inner, 20000)), "uint8"), n_rows=len(inner) + 20000)  # fmt: skip
    yield one("unknown_kind", "a codec reads it, whoever it reaches refuses it", 200, id=1)

    yield one("empty", "no rows: (0, 8), and an empty list", REPLY, ("float64", (0, 8), []), array([], "uint8"))
    yield one("scalar", "no dimensions: one element", REPLY, array(-3.5), array(7, "int64"))
    yield one("eight_dims", "as many as there may be", REPLY, array([[[[[[[[1.0], [2.0]]]], [[[[3.0], [4.0]]]]]]]]))
    yield one("dtypes", "as many arrays as there may be, a dtype each", REPLY,
              array([-0.0, 5e-324, 1.7976931348623157e308, NAN, INF, -INF]), array([0.1015625, -2.0, INF], "float32"),
              array([-(2**63), 2**63 - 1], "int64"), array([-(2**31), 2**31 - 1, 0], "int32"),
              array([0, 2**64 - 1], "uint64"), array([2**32 - 1], "uint32"), array([0, 1, 255], "uint8"),
              array([True, False, True], "bool"))  # fmt: skip
    yield one("complex", "real part first", REPLY, array([[1 - 2j, complex(0.5, INF)]], "complex128"))
    yield one("gap", "5 bytes, 3 bytes of padding, then float64", REPLY, array([1, 2, 3, 4, 5], "uint8"),
              array([1.0, 2.0]))  # fmt: skip
    parts = [frame(RESULT, array([9, 8, 7], "uint8"), id=1), frame(CANCEL, id=2), frame(REPLY, array([0.5]), id=3)]
    yield "several", "three frames in one message, each at a multiple of 8 bytes", parts
    yield one("newer_minor", "a newer minor version is read as this one", CANCEL, id=7, minor=1)
    largest = INLINE_BYTES - 64 - 16
    yield one("large_head", "the head of 1000 x 8 float64, which come apart from it", REPLY,
              ("float64", (1000, 8), None), id=7, n_rows=1000)  # fmt: skip
    yield one("large_head_by_one", "one byte more than an inline frame has", REPLY, ("uint8", (largest + 1,), None))


def streams() -> Iterator[tuple[str, str, list[tuple[bytes, dict[str, Any]]]]]:
    """The same for streams of bytes, where large frames are whole."""
    odd = array(list(range(5)), "uint8")
    large = frame(ROWS, array(list(range(2048)), "int64"), odd, array([0.5, 0.25]), id=2, n_rows=2048)
    large_odd = frame(ROWS, array([0] * 2040, "int64"), odd, id=3)
    yield (
        "stream",
        "five frames, small and large; each begins at a multiple of 8 bytes, and the padding belongs to the one before",
        [frame(REPLY, odd, id=1), large, large_odd, frame(CANCEL, id=4), frame(REPLY, odd, id=5)],
    )


def bad() -> Iterator[tuple[str, str, str, bytes]]:
    """Name, status, why, bytes."""
    request, _ = frame(REQUEST, array(X), array(PARAMS), operation=DENSITY, id=7, n_rows=1)
    frame_, version = "BAD_FRAME", "BAD_VERSION"

    def refused(n_arrays: int, payload: int, rest: bytes, **fields: int) -> bytes:
        return to_bytes(header(REQUEST, n_arrays, payload, **fields)) + rest

    yield "nothing", frame_, "a message without a byte", b""
    yield "header_cut", frame_, "63 bytes, the header has 64", request[:63]
    yield "descriptors_cut", frame_, "ends before the second descriptor", request[: 64 + 24]
    yield "descriptor_cut", frame_, "ends inside the first descriptor's shape", request[: 64 + 12]
    yield "data_cut", frame_, "the last byte is missing", request[:-1]
    yield "second_cut", frame_, "a whole frame, then half a header", request + request[:32]
    yield "trailing_bytes", frame_, "a whole frame, then 8 bytes that are none", request + bytes(8)
    yield "magic", frame_, "begins with DMOX", b"DMOX" + request[4:]
    big = struct.pack(">" + HEADER[1:], *header(CANCEL, 0, 0, id=7).values())
    yield "big_endian", frame_, "the header of a peer with the other byte order", big
    yield "major_newer", version, "wire version 2.0", refused(0, 0, b"", major=2)
    yield "major_older", version, "wire version 0.9", refused(0, 0, b"", major=0, minor=9)
    yield "arrays_too_many", frame_, "9 arrays, at most 8 are allowed", refused(9, 9 * 16, descriptor(1, (0,)) * 9)
    nine = descriptor(1, (1,) * 9)
    yield "dims_too_many", frame_, "9 dimensions, at most 8 are allowed", refused(1, len(nine) + 8, nine + bytes(8))
    yield "dims_255", frame_, "255 dimensions announced, none there", refused(1, 16, descriptor(1, (1,), n_dims=255))
    for code in (0, 10):
        one = descriptor(code, (1,)) + bytes(16)
        yield f"dtype_{code}", frame_, f"dtype code {code} does not exist", refused(1, len(one), one)
    one = descriptor(1, (1,)) + bytes(8)
    yield "payload_too_big", frame_, "8 bytes more than the array has", refused(1, len(one) + 8, one + bytes(8))
    yield "payload_too_small", frame_, "8 bytes less than the array has", refused(1, len(one) - 8, one)
    yield "payload_of_nothing", frame_, "16 bytes and no array", refused(0, 16, bytes(16))
    yield "payload_wraps", frame_, "64 + payload is 2^64", refused(1, 2**64 - 64, one)
    yield "payload_absent", frame_, "descriptors and payload agree, 8 bytes are missing", refused(1, len(one), one[:-8])
    over = descriptor(1, (2**63, 2**63))
    yield "shape_wraps", frame_, "2^63 x 2^63 float64, which is 0 bytes modulo 2^64", refused(1, len(over), over)
    over = descriptor(1, (2**60,))
    yield "shape_sign", frame_, "2^63 bytes, more than a signed size can say", refused(1, 2**63 + 16, over)
    over = descriptor(1, (0, 2**62))
    yield (
        "shape_empty_wraps",
        frame_,
        "0 x 2^62 float64: no byte, but strides that overflow",
        refused(1, len(over), over),
    )

    question, bounds = text({"dataset": "events", "axes": [None], "axis": 0, "row_bytes": 8}), array([0, 2], "int64")
    asked, _ = frame(REQUEST, question, bounds, array([5, 9], "int64"), operation=DATASET, id=16, n_rows=2)
    yield "dataset_index_cut", frame_, "of the indices of a DATASET the last one is missing", asked[:-8]
    yield "dataset_bounds_cut", frame_, "a DATASET whose bounds and indices are announced, and not there", asked[:-32]
    size, gap = len(question[2]), -len(question[2]) % 8
    more = descriptor(7, (size,)) + descriptor(3, (2,)) + descriptor(3, (2**60,))
    wrapped = refused(3, len(more) + size + gap + 16, more + bytes(size + gap + 16), operation=DATASET, id=16, n_rows=2)
    yield "dataset_indices_wrap", frame_, "2^60 indices of 8 bytes each, which is 2^63", wrapped
    reply = to_bytes(header(REPLY, 1, 16 + 8, operation=DATASET, flags=FINAL, id=16, n_rows=2**40))
    wide = descriptor(7, (2**40, 2**30))[:8] + struct.pack("<QQ", 2**40, 2**30)
    yield "dataset_rows_wrap", frame_, "2^40 rows of 2^30 bytes each for the 24 that are announced", reply + wide
    failed, _ = frame(REPLY, text({"status": 17}), status=17, operation=DATASET, flags=FINAL, id=16)
    yield "dataset_failed_cut", frame_, "a failure whose JSON is cut off", failed[:-1]
    held, _ = frame(REQUEST, text({"rows": 5}), array([0, 1, 5, 2], "int64"), operation=LIKELIHOOD, flags=RESIDENT)
    yield "resident_span_cut", frame_, "the span of resident data is cut off", held[:-16]


def write(directory: Path) -> None:
    """All frames and ``frames.json``, which says what each of them means."""
    entries: dict[str, list[dict[str, Any]]] = {"good": [], "streams": [], "bad": []}

    def write_frames(key: str, file: str, about: str, frames: list[tuple[bytes, dict[str, Any]]], end: int = 1) -> None:
        message = b""
        meanings = []
        for content, meaning in frames:
            message += bytes(-len(message) % 8)
            meanings.append({"start": len(message), **meaning})
            message += content
        (directory / file).write_bytes(message + bytes(-len(message) % end))
        entries[key].append({"file": file, "about": about, "frames": meanings})

    for name, about, frames in good():
        write_frames("good", f"good_{name}.bin", about, frames)
    for name, about, frames in streams():
        write_frames("streams", f"{name}.bin", about, frames, end=8)
    for name, status, why, content in bad():
        (directory / f"bad_{name}.bin").write_bytes(content)
        entries["bad"].append({"file": f"bad_{name}.bin", "status": status, "why": why})
    # One line for each file, so that a difference shows what has changed.
    lists = [f'"{key}": [\n' + ",\n".join(json.dumps(e) for e in entries[key]) + "\n]" for key in entries]
    (directory / "frames.json").write_text("{\n" + ",\n".join(lists) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
