"""Bytes that come in over a stream, made into frames.

On a stream a frame is its bytes, and the next begins at a multiple of 8. Small frames are cut out of what was read;
the arrays of a large one are received straight into their final place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from ..errors import BadFrame
from ..messages import Array
from ..relay import flatten
from ..wire import (
    ALIGNMENT,
    HEADER_BYTES,
    INLINE_BYTES,
    Frame,
    Header,
    Layout,
    find_head_bytes,
    read_header,
    read_layout,
)

#: Room for the arrays of a large frame.
Room = Callable[[Header, Layout], list[Array]]


class Inflow:
    """One direction of one stream. `BadFrame` or `BadVersion` end it: frames cannot be told apart any more."""

    __slots__ = ("_frame", "_place", "_rest", "_runs")

    def __init__(self, place: Room) -> None:
        self._place = place
        #: The beginning of a frame whose head is not complete.
        self._rest = bytearray()
        #: The large frame that is being received, and what is still to be filled of it.
        self._frame: Frame | None = None
        self._runs: list[memoryview] = []

    @property
    def hole(self) -> memoryview | None:
        """Where the next bytes belong, if a large frame is being received."""
        return self._runs[0] if self._runs else None

    def fill(self, n_bytes: int) -> Iterator[Frame]:
        """So many bytes were written to the beginning of `hole`."""
        run = self._runs[0]
        if n_bytes < len(run):
            self._runs[0] = run[n_bytes:]
            return
        del self._runs[0]
        if not self._runs:
            yield self._finish()

    def feed(self, data: bytearray) -> Iterable[Frame]:
        """The frames that ``data``, which follows what came before, completes; it is kept by them."""
        if not self._rest and not self._runs and len(data) >= HEADER_BYTES:
            header = read_header(data)
            size = HEADER_BYTES + header.payload
            if size <= INLINE_BYTES and size + -size % ALIGNMENT == len(data):
                return (Frame(header, data),)  # most often it is one small frame
        return self._cut(data)

    def _cut(self, data: bytearray) -> Iterator[Frame]:
        if self._rest:
            data = self._rest + data
            self._rest = bytearray()
        at, end = 0, len(data)
        while at < end:
            if self._runs:
                run = self._runs[0]
                n_bytes = min(len(run), end - at)
                run[:n_bytes] = memoryview(data)[at : at + n_bytes]
                at += n_bytes
                yield from self.fill(n_bytes)
                continue
            if end - at < HEADER_BYTES:
                break
            header = read_header(data, at)
            size = HEADER_BYTES + header.payload
            if size <= INLINE_BYTES:
                size += -size % ALIGNMENT
                if end - at < size:
                    break
                yield Frame(header, data, at)
                at += size
                continue
            head_bytes = find_head_bytes(header, data, at)
            if end - at < head_bytes:
                break
            self._begin(header, data[at : at + head_bytes])
            at += head_bytes
        self._rest = data[at:]

    def _begin(self, header: Header, head: bytearray) -> None:
        layout = read_layout(header, head)
        try:
            arrays = self._place(header, layout)
        except MemoryError:
            raise BadFrame(f"a frame of {header.payload} bytes, for which there is no memory here") from None
        self._frame = Frame(header, head, 0, arrays)
        runs = flatten(layout, arrays)
        if gap := -layout.end % ALIGNMENT:
            runs.append(np.empty(gap, np.uint8))
        self._runs = [memoryview(run) for run in runs]  # type: ignore[arg-type]

    def _finish(self) -> Frame:
        frame, self._frame = self._frame, None
        assert frame is not None
        return frame
