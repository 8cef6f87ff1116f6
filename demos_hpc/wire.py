"""Frames to bytes and back: the one place in Python that knows an offset.

The format is that of ``csrc/include/demos.h``, its specification ``csrc/WIRE.md``: a header of 64 bytes, a small
descriptor for each array, then the arrays, each at a multiple of 8 bytes. Nothing is pickled.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from .errors import BadFrame, BadVersion
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
_DESCRIPTORS = [struct.Struct(f"<BB6x{n}Q") for n in range(MAX_DIMS + 1)]

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
_CODES = {dtype: code for code, dtype in DTYPES.items()}
_ZEROS = bytes(ALIGNMENT)


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


class Layout(NamedTuple):
    """The arrays of a frame: dtype and shape of each, and the offset of its bytes from the frame's start."""

    dtypes: list[np.dtype[np.generic]]
    shapes: list[tuple[int, ...]]
    offsets: list[int]


class Packed(NamedTuple):
    """A frame ready to be sent: ``head``, then the bytes of ``tail``; a small frame is all head."""

    head: bytearray
    tail: Sequence[Array]


class Frame:
    """A frame as it came in.

    Small ones lie in one buffer, of which ``arrays`` makes views when asked; of large ones the arrays were
    received in place.
    """

    __slots__ = ("_arrays", "buffer", "header", "start")

    def __init__(self, header: Header, buffer: bytearray, start: int = 0, arrays: list[Array] | None = None) -> None:
        self.header = header
        self.buffer = buffer
        self.start = start
        self._arrays = arrays

    @property
    def is_inline(self) -> bool:
        """Whether the whole frame lies in ``buffer``."""
        return HEADER_BYTES + self.header.payload <= INLINE_BYTES

    @property
    def descriptors(self) -> bytes:
        """The bytes that describe the arrays: equal for frames of equal layout."""
        begin = self.start + HEADER_BYTES
        return bytes(self.buffer[begin : begin + _descriptor_bytes(self.header, self.buffer, self.start)])

    @property
    def arrays(self) -> list[Array]:
        """The arrays; views of the buffer where the frame is small."""
        if self._arrays is None:
            layout = read_layout(self.header, self.buffer, self.start)
            self._arrays = [
                np.frombuffer(self.buffer, dtype, math.prod(shape), self.start + offset).reshape(shape)
                for dtype, shape, offset in zip(*layout, strict=True)
            ]
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
    parts = [b""]
    payload = 0
    for array in arrays:
        shape = array.shape
        descriptor = _DESCRIPTORS[len(shape)].pack(_CODES[array.dtype], len(shape), *shape)
        parts.append(descriptor)
        payload += len(descriptor)
    data: list[Array] = []
    for array in arrays:
        if gap := -payload % ALIGNMENT:
            data.append(np.zeros(gap, dtype=np.uint8))
        data.append(array)
        payload += gap + array.nbytes
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
    return header


def read_layout(header: Header, buffer: bytearray, start: int = 0) -> Layout:
    """Dtypes, shapes and offsets of a frame's arrays; `BadFrame` where they contradict the header."""
    at, end = start + HEADER_BYTES, len(buffer)
    dtypes, shapes = [], []
    for _ in range(header.n_arrays):
        if at + 2 > end or buffer[at + 1] > MAX_DIMS or at + ALIGNMENT * (1 + buffer[at + 1]) > end:
            raise BadFrame("a frame whose array descriptors are cut off or have too many dimensions")
        code, n_dims, *shape = _DESCRIPTORS[buffer[at + 1]].unpack_from(buffer, at)
        if code not in DTYPES:
            raise BadFrame(f"a frame with the unknown dtype code {code}")
        dtypes.append(DTYPES[code])
        shapes.append(tuple(shape))
        at += ALIGNMENT * (1 + n_dims)
    at -= start
    offsets = []
    for dtype, array_shape in zip(dtypes, shapes, strict=True):
        at += -at % ALIGNMENT
        offsets.append(at)
        at += dtype.itemsize * math.prod(array_shape)
    if at != HEADER_BYTES + header.payload:
        raise BadFrame(f"a frame whose header announces {header.payload} bytes and whose arrays {at - HEADER_BYTES}")
    if at <= INLINE_BYTES and start + at > end:
        raise BadFrame(f"a frame of {at} bytes of which {end - start} arrived")
    return Layout(dtypes, shapes, offsets)


def split(buffer: bytearray) -> Iterator[tuple[Header, int]]:
    """The frames of one message: the header and start of each."""
    start, end = 0, len(buffer)
    while True:
        header = read_header(buffer, start)
        yield header, start
        start += HEADER_BYTES + header.payload
        start += -start % ALIGNMENT
        if start >= end or HEADER_BYTES + header.payload > INLINE_BYTES:
            return


def readdress(frame: Frame, *, kind: int, id: int) -> Packed:  # noqa: A002
    """The same frame under another kind and id, changed in place: nothing is copied.

    The frame must be inline and the only one in its buffer.
    """
    header = frame.header._replace(kind=kind, id=id)
    _HEADER.pack_into(frame.buffer, 0, *header)
    return Packed(frame.buffer, ())


def _descriptor_bytes(header: Header, buffer: bytearray, start: int) -> int:
    at = start + HEADER_BYTES
    for _ in range(header.n_arrays):
        if at + 2 > len(buffer):
            raise BadFrame("a frame whose array descriptors are cut off")
        at += ALIGNMENT * (1 + buffer[at + 1])
    return at - start - HEADER_BYTES
