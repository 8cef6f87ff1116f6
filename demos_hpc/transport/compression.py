"""Large frames made smaller by zstd, on links that are slower than it.

A COMPRESSED frame holds one array of bytes: a whole large frame, compressed; its ``n_rows`` is that frame's size,
which both sides bound: whoever inflates serves nobody else meanwhile, and a few kilobytes can announce gigabytes.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from ..errors import BadFrame
from ..messages import Array, Kind
from ..wire import HEADER_BYTES, INLINE_BYTES, PIECE_BYTES, Frame, Header, Layout, Packed, pack
from .inflow import Inflow, Room

#: What is tried first, bytes: compression is only worth its time if these become smaller.
SAMPLE_BYTES = 1 << 16
#: Largest size after compression, relative to the size before, that is worth it.
WORTH = 0.8
LEVEL = 1
#: Bytes that are inflated at a time.
STEP = 1 << 20
#: Larger frames travel as they are.
LARGEST = 4 * PIECE_BYTES
#: What an inflater looks back at, bytes: more than we ever need, and all that RFC 8878 asks of it.
WINDOW = 8 << 20


def is_available() -> bool:
    """Whether this process can compress: whether the package ``zstandard`` is installed."""
    return importlib.util.find_spec("zstandard") is not None


class Compressor:
    """Both directions of one link."""

    def __init__(self) -> None:
        import zstandard

        self._deflater = zstandard.ZstdCompressor(level=LEVEL)
        self._inflater = zstandard.ZstdDecompressor(max_window_size=WINDOW)
        self._error: type[Exception] = zstandard.ZstdError

    def deflate(self, packed: Packed) -> Packed:
        """The frame compressed, or as it was where that does not pay."""
        size = len(packed.head) + sum(array.nbytes for array in packed.tail)
        if not packed.tail or not INLINE_BYTES < size <= LARGEST:
            return packed
        largest = max(packed.tail, key=lambda array: array.nbytes).reshape(-1).view(np.uint8)
        middle = max(0, (largest.nbytes - SAMPLE_BYTES) // 2)
        sample = memoryview(largest[middle : middle + SAMPLE_BYTES])  # type: ignore[arg-type]
        if len(self._deflater.compress(sample)) > WORTH * len(sample):
            return packed
        runner: Any = self._deflater.compressobj()
        parts = [runner.compress(part) for part in (packed.head, *(a.reshape(-1).view(np.uint8) for a in packed.tail))]
        data = b"".join([*parts, runner.flush()])
        if len(data) > WORTH * size:
            return packed
        return pack(Kind.COMPRESSED, [np.frombuffer(data, np.uint8)], n_rows=size)

    def inflate(self, frame: Frame, place: Room) -> Frame:
        """The frame inside a COMPRESSED one, its arrays where ``place`` puts them."""
        size = frame.header.n_rows
        if len(frame.arrays) != 1 or frame.arrays[0].dtype != np.uint8 or not INLINE_BYTES < size <= LARGEST:
            raise BadFrame(f"a compressed frame that is not one array of bytes of a large frame, but of {size} bytes")

        def place_all(header: Header, layout: Layout) -> list[Array]:
            if HEADER_BYTES + header.payload != size:
                raise BadFrame(f"{size} compressed bytes that are a frame of {HEADER_BYTES + header.payload}")
            return place(header, layout)

        inflow = Inflow(place_all)
        found: list[Frame] = []
        left = size
        try:
            reader = self._inflater.stream_reader(memoryview(frame.arrays[0]))  # type: ignore[arg-type]
            while left and not found:
                hole = inflow.hole
                if hole is None:
                    data = bytearray(reader.read(min(left, INLINE_BYTES)))
                    n_bytes = len(data)
                    found += inflow.feed(data)
                else:
                    n_bytes = reader.readinto(hole[: min(left, STEP)])
                    found += inflow.fill(n_bytes) if n_bytes else ()
                if not n_bytes:
                    break
                left -= n_bytes
            is_more = bool(reader.read(1))
        except self._error as error:
            raise BadFrame(f"a compressed frame that cannot be inflated: {error}") from None
        if not left and not found and inflow.hole is not None:
            found += inflow.fill(len(inflow.hole))  # the padding that would follow on a stream
        if left or is_more or len(found) != 1:
            raise BadFrame(f"a compressed frame that is not one frame of {size} bytes")
        return found[0]
