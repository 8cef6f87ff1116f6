"""Buffers that are used again: a fresh 64 MB costs 10 ms of page faults."""

from __future__ import annotations

import math
import mmap
import sys

import numpy as np

from ..messages import Array
from ..wire import Header, Layout

#: Smaller arrays are left to NumPy.
SMALLEST = 1 << 16
#: From here on the kernel is asked for large pages, as NumPy does.
HUGE = 1 << 22
#: Buffers that were not needed for so long go back to the kernel, seconds.
KEEP_SECONDS = 2.0


def _count_alone() -> int:
    """What `sys.getrefcount` reports for an array that only a list and a loop variable refer to."""
    for buffer in [np.empty(1)]:
        return sys.getrefcount(buffer)
    raise AssertionError


_ALONE = _count_alone()


class Buffers:
    """A pool of buffers. One is free again when nobody but the pool refers to it, so nobody gives one back."""

    def __init__(self, keep_bytes: int = 256 << 20) -> None:
        self._keep_bytes = keep_bytes
        self._kept_bytes = 0
        #: By size. The first that is free is taken, so that the last ones are needed least.
        self._kept: dict[int, list[Array]] = {}
        #: How many of each size were needed at a time since they were last trimmed.
        self._needed: dict[int, int] = {}
        self._next_trim = 0.0

    def take(self, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> Array:
        """An array with whatever contents; keep a reference to it, or to a view of it, while it is in use."""
        n_bytes = dtype.itemsize * math.prod(shape)
        if n_bytes < SMALLEST:
            return np.empty(shape, dtype)
        size = 1 << (n_bytes - 1).bit_length()
        buffers = self._kept.setdefault(size, [])
        nth = 0
        for buffer in buffers:
            if sys.getrefcount(buffer) == _ALONE:
                break
            nth += 1
        else:
            if self._kept_bytes + size > self._keep_bytes:
                return np.empty(shape, dtype)
            buffer = _map(size)
            buffers.append(buffer)
            self._kept_bytes += size
        if nth >= self._needed.get(size, 0):
            self._needed[size] = nth + 1
        return buffer[:n_bytes].view(dtype).reshape(shape)

    def trim(self, now: float) -> None:
        """Lets go of what was not needed lately; call it every second or so, ``now`` on the monotonic clock."""
        if now < self._next_trim:
            return
        self._next_trim = now + KEEP_SECONDS
        for size, buffers in self._kept.items():
            for buffer in reversed(buffers):
                if len(buffers) <= self._needed.get(size, 0) or sys.getrefcount(buffer) != _ALONE:
                    break
                buffers.pop()
                self._kept_bytes -= size
        self._needed.clear()

    def place(self, link: object, header: Header, layout: Layout) -> list[Array]:
        """Room for the arrays of a large frame: a `transport.Place`."""
        return [self.take(dtype, shape) for dtype, shape in zip(layout.dtypes, layout.shapes, strict=True)]


def _map(size: int) -> Array:
    """A buffer that leaves nothing behind when it goes; what is in the heap may lie below something that stays."""
    area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= HUGE:
        area.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(area, np.uint8)
