"""Frames to bytes and back: the one place in Python that knows an offset.

The format is that of ``csrc/include/demos.h``, its specification ``csrc/WIRE.md``: a header of 64 bytes, a small
descriptor for each array, then the arrays, each at a multiple of 8 bytes. Nothing is pickled.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .errors import BadFrame, BadVersion, InvalidInput
from .messages import Array

MAGIC = 0x534F4D44
WIRE_MAJOR = 1
WIRE_MINOR = 0
MAX_ARRAYS = 8
MAX_DIMS = 8
ALIGNMENT = 8
INLINE_BYTES = 16384
PIECE_BYTES = 4194304

#: The header's fields in order, with their `struct` codes; all little-endian, no padding.
FIELDS = (
    ("magic", "I"),
    ("major", "B"),
    ("minor", "B"),
    ("kind", "B"),
    ("operation", "B"),
    ("status", "H"),
    ("flags", "H"),
    ("model", "H"),
    ("n_arrays", "H"),
    ("id", "Q"),
    ("first_row", "Q"),
    ("n_rows", "Q"),
    ("payload", "Q"),
    ("revision", "I"),
    ("deadline_ms", "I"),
    ("seed", "Q"),
)
_HEADER = struct.Struct("<" + "".join(code for _, code in FIELDS))
HEADER_BYTES = _HEADER.size
#: Where each field begins, bytes.
OFFSETS = {name: struct.calcsize("<" + "".join(code for _, code in FIELDS[:i])) for i, (name, _) in enumerate(FIELDS)}
_DESCRIPTORS = [struct.Struct(f"<BB6x{n}Q") for n in range(MAX_DIMS + 1)]
#: No array has more bytes, a dimension of zero counted as one: NumPy and C index with signed 64 bits.
_MOST_BYTES = 2**63 - 1

DTYPES: dict[int, np.dtype[np.generic]] = {
    1: np.dtype("<f8"),
    2: np.dtype("<f4"),
    3: np.dtype("<i8"),
    4: np.dtype("<i4"),
    5: np.dtype("<u8"),
    6: np.dtype("<u4"),
    7: np.dtype("u1"),
    8: np.dtype("?"),
    9: np.dtype("<c16"),
}
FLOAT64 = DTYPES[1]
_CODES = {dtype: code for code, dtype in DTYPES.items()}
_ZEROS = bytes(ALIGNMENT)
_GAPS = [np.zeros(n, dtype=np.uint8) for n in range(ALIGNMENT)]


class Header(NamedTuple):
    """What stands in front of a frame; the meaning of each field is in ``demos.h``."""

    magic: int
    major: int
    minor: int
    kind: int
    operation: int
    status: int
    flags: int
    model: int
    n_arrays: int
    id: int
    first_row: int
    n_rows: int
    payload: int
    revision: int
    deadline_ms: int
    seed: int


@dataclass(frozen=True, slots=True, eq=False)  # compared as what they are: one for each layout in use
class Layout:
    """The arrays of a frame: dtype and shape of each, and the offset of its bytes from the frame's start."""

    dtypes: tuple[np.dtype[np.generic], ...]
    shapes: tuple[tuple[int, ...], ...]
    offsets: tuple[int, ...]
    #: Of each array: dtype, number of elements, offset, shape.
    views: tuple[tuple[np.dtype[np.generic], int, int, tuple[int, ...]], ...]
    #: Where the last array ends, from the frame's start.
    end: int


class Packed(NamedTuple):
    """A frame ready to be sent: ``head``, then the bytes of ``tail``; a small frame is all head.

    ``tail`` holds the arrays that are not empty, and the padding between them as arrays of its own.
    """

    head: bytearray
    tail: Sequence[Array]


class Frame:
    """A frame as it came in.

    Small ones lie in one buffer, of which ``arrays`` makes views when asked; of large ones the arrays were
    received in place.
    """

    __slots__ = ("_arrays", "_layout", "buffer", "header", "start")

    def __init__(self, header: Header, buffer: bytearray, start: int = 0, arrays: list[Array] | None = None) -> None:
        self.header = header
        self.buffer = buffer
        self.start = start
        self._layout: Layout | None = None
        self._arrays = arrays

    @property
    def is_inline(self) -> bool:
        """Whether the whole frame lies in ``buffer``."""
        return HEADER_BYTES + self.header.payload <= INLINE_BYTES

    @property
    def layout(self) -> Layout:
        """What the arrays are; the same object for most frames of equal layout."""
        if self._layout is None:
            self._layout = read_layout(self.header, self.buffer, self.start)
        return self._layout

    @property
    def arrays(self) -> list[Array]:
        """The arrays; views of the buffer where the frame is small."""
        if self._arrays is None:
            buffer, start, layout = self.buffer, self.start, self.layout
            if start + layout.end > len(buffer):
                raise BadFrame(f"a frame of {layout.end} bytes of which {len(buffer) - start} are here")
            arrays = []
            for dtype, count, offset, shape in layout.views:
                # frombuffer, not ndarray(buffer=...): it forbids the buffer to be resized under the array.
                array = np.frombuffer(buffer, dtype, count, start + offset)
                arrays.append(array if len(shape) == 1 else array.reshape(shape))
            self._arrays = arrays
        return self._arrays


def pack(
    kind: int,
    arrays: Sequence[Array] = (),
    *,
    operation: int = 0,
    status: int = 0,
    flags: int = 0,
    model: int = 0,
    id: int = 0,  # noqa: A002  (the header's name for it)
    first_row: int = 0,
    n_rows: int = 0,
    revision: int = 0,
    deadline_ms: int = 0,
    seed: int = 0,
) -> Packed:
    """A frame of C-contiguous arrays, ready to be sent; large arrays are referred to, not copied."""
    if len(arrays) > MAX_ARRAYS:
        raise InvalidInput(f"{len(arrays)} arrays for one frame; it takes {MAX_ARRAYS}")
    parts = [b""]
    data: list[Array] = []
    payload = gap = 0
    for array in arrays:
        descriptor = _describe(array.dtype, array.shape)
        parts.append(descriptor)
        if gap:
            data.append(_GAPS[gap])
        data.append(array)
        size = array.nbytes
        payload += len(descriptor) + gap + size
        gap = -size % ALIGNMENT
    parts[0] = _HEADER.pack(
        MAGIC, WIRE_MAJOR, WIRE_MINOR, kind, operation, status, flags, model, len(arrays),
        id, first_row, n_rows, payload, revision, deadline_ms, seed,
    )  # fmt: skip
    if HEADER_BYTES + payload > INLINE_BYTES:
        return Packed(bytearray().join(parts), [array for array in data if array.nbytes])
    parts.extend(array.tobytes() for array in data)
    return Packed(bytearray().join(parts), ())


def join(frames: Sequence[bytearray]) -> bytearray:
    """Several small frames as one message: each starts at a multiple of 8 bytes."""
    parts: list[bytes | bytearray] = []
    for frame in frames:
        parts += [frame, _ZEROS[: -len(frame) % ALIGNMENT]]
    return bytearray().join(parts)


def read_header(buffer: bytearray, start: int = 0) -> Header:
    """The header at ``start``; `BadFrame` or `BadVersion` where it is none of ours."""
    if len(buffer) - start < HEADER_BYTES:
        raise BadFrame(f"a frame of {len(buffer) - start} bytes; its header alone has {HEADER_BYTES}")
    header = Header(*_HEADER.unpack_from(buffer, start))
    if header.magic != MAGIC:
        raise BadFrame(f"a frame that starts with {header.magic:#010x} instead of {MAGIC:#010x}")
    if header.major != WIRE_MAJOR:
        raise BadVersion(
            f"the peer speaks wire version {header.major}.{header.minor}, this side {WIRE_MAJOR}.{WIRE_MINOR};"
            " install the same version of demos-hpc on both sides"
        )
    if header.n_arrays > MAX_ARRAYS:
        raise BadFrame(f"a frame with {header.n_arrays} arrays; at most {MAX_ARRAYS} are allowed")
    if header.payload and not header.n_arrays:
        raise BadFrame(f"a frame of no arrays whose header announces {header.payload} bytes")
    return header


def lay_out(packed: Packed) -> list[memoryview]:
    """The bytes of a frame as they travel over a stream: filled up to a multiple of `ALIGNMENT`."""
    head, tail = packed
    views = [memoryview(head), *(memoryview(array.reshape(-1).view(np.uint8)) for array in tail)]  # type: ignore[arg-type]
    if gap := -sum(map(len, views)) % ALIGNMENT:
        views.append(memoryview(bytes(gap)))
    return views


def read_layout(header: Header, buffer: bytearray, start: int = 0) -> Layout:
    """Dtypes, shapes and offsets of a frame's arrays; `BadFrame` where they contradict the header."""
    layout = _measure(_read_descriptors(header, buffer, start))
    end = layout.end
    if end != HEADER_BYTES + header.payload:
        announced, found = header.payload, end - HEADER_BYTES
        raise BadFrame(f"a frame whose header announces {announced} bytes and whose arrays come to {found}")
    if end <= INLINE_BYTES and start + end > len(buffer):
        raise BadFrame(f"a frame of {end} bytes of which {len(buffer) - start} arrived")
    return layout


def split(buffer: bytearray) -> Iterator[tuple[Header, int]]:
    """The frames of one message: the header and start of each."""
    start, end = 0, len(buffer)
    while True:
        header = read_header(buffer, start)
        size = HEADER_BYTES + header.payload
        if size <= INLINE_BYTES and start + size > end:
            raise BadFrame(f"a frame of {size} bytes of which {end - start} arrived")
        yield header, start
        start += size + -size % ALIGNMENT
        if start >= end or size > INLINE_BYTES:
            return


def find_head_bytes(header: Header, buffer: bytearray, start: int = 0) -> int:
    """Bytes of header and descriptors; more than there are after ``start`` where the descriptors are cut off."""
    at = start + HEADER_BYTES
    for _ in range(header.n_arrays):
        if at + 1 >= len(buffer):
            return at + ALIGNMENT - start
        at += ALIGNMENT * (1 + buffer[at + 1])
    return at - start


def _read_descriptors(header: Header, buffer: bytearray, start: int) -> bytes:
    at = begin = start + HEADER_BYTES
    try:
        for _ in range(header.n_arrays):
            at += ALIGNMENT * (1 + buffer[at + 1])
    except IndexError:
        raise BadFrame(f"a frame of {header.n_arrays} arrays whose descriptors are cut off") from None
    return bytes(buffer[begin:at])


@lru_cache(maxsize=1024)
def _describe(dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> bytes:
    if dtype not in _CODES or len(shape) > MAX_DIMS:
        raise InvalidInput(
            f"an array of dtype {dtype}, shape {shape} cannot be sent; a frame takes {', '.join(map(str, _CODES))}"
            f" of at most {MAX_DIMS} dimensions"
        )
    return _DESCRIPTORS[len(shape)].pack(_CODES[dtype], len(shape), *shape)


@lru_cache(maxsize=1024)  # an analysis sends frames of few layouts, many times each
def _measure(descriptors: bytes) -> Layout:
    dtypes, shapes, counts = [], [], []
    at = 0
    while at < len(descriptors):
        n_dims = descriptors[at + 1]
        size = ALIGNMENT * (1 + n_dims)
        if n_dims > MAX_DIMS or at + size > len(descriptors):
            raise BadFrame(f"an array descriptor that is cut off or has more than {MAX_DIMS} dimensions: {n_dims}")
        code, _, *shape = _DESCRIPTORS[n_dims].unpack_from(descriptors, at)
        if code not in DTYPES:
            raise BadFrame(f"a frame with the unknown dtype code {code}")
        dtype = DTYPES[code]
        if dtype.itemsize * math.prod(n or 1 for n in shape) > _MOST_BYTES:
            raise BadFrame(f"an array of shape {tuple(shape)}, which no memory can hold")
        dtypes.append(dtype)
        shapes.append(tuple(shape))
        counts.append(math.prod(shape))
        at += size
    at += HEADER_BYTES
    offsets = []
    for dtype, count in zip(dtypes, counts, strict=True):
        at += -at % ALIGNMENT
        offsets.append(at)
        at += dtype.itemsize * count
    views = tuple(zip(dtypes, counts, offsets, shapes, strict=True))
    return Layout(tuple(dtypes), tuple(shapes), tuple(offsets), views, at)
