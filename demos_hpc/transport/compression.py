"""Large frames made smaller by zstd, on links that are slower than it.

A COMPRESSED frame holds one array of bytes: a whole large frame, compressed; its ``n_rows`` is that frame's size.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from ..errors import BadFrame
from ..messages import Kind
from ..wire import ALIGNMENT, INLINE_BYTES, Frame, Packed, pack
from .inflow import Inflow, Room

#: What is tried first, bytes: compression is only worth its time if these become smaller.
SAMPLE_BYTES = 1 << 16
#: Largest size after compression, relative to the size before, that is worth it.
WORTH = 0.8
LEVEL = 1
#: Bytes that are inflated at a time.
STEP = 1 << 20


def is_available() -> bool:
    """Whether this process can compress: whether the package ``zstandard`` is installed."""
    return importlib.util.find_spec("zstandard") is not None


class Compressor:
    """Both directions of one link."""

    def __init__(self) -> None:
        import zstandard

        self._deflater = zstandard.ZstdCompressor(level=LEVEL)
        self._inflater = zstandard.ZstdDecompressor()
        self._error: type[Exception] = zstandard.ZstdError

    def deflate(self, packed: Packed) -> Packed:
        """The frame compressed, or as it was where that does not pay."""
        size = len(packed.head) + sum(array.nbytes for array in packed.tail)
        if not packed.tail or size <= INLINE_BYTES:
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
        if len(frame.arrays) != 1 or frame.arrays[0].dtype != np.uint8 or frame.header.n_rows <= INLINE_BYTES:
            raise BadFrame("a compressed frame that does not hold one array of bytes of a large frame")
        found: list[Frame] = []
        inflow = Inflow(place)
        left = frame.header.n_rows
        try:
            reader = self._inflater.stream_reader(memoryview(frame.arrays[0]))  # type: ignore[arg-type]
            while left and not found:
                hole = inflow.hole
                if hole is None:
                    data = bytearray(reader.read(min(left, INLINE_BYTES)))
                    if not data:
                        break
                    left -= len(data)
                    found += inflow.feed(data)
                else:
                    n_bytes = reader.readinto(hole[: min(left, STEP)])
                    if not n_bytes:
                        break
                    left -= n_bytes
                    found += inflow.fill(n_bytes)
            if left == 0 and not found and inflow.hole is not None and len(inflow.hole) < ALIGNMENT:
                found += inflow.fill(len(inflow.hole))  # the padding that follows on a stream
        except self._error as error:
            raise BadFrame(f"a compressed frame that cannot be inflated: {error}") from None
        if left or len(found) != 1:
            raise BadFrame(f"a compressed frame that is not one frame of {frame.header.n_rows} bytes")
        return found[0]
