"""Buffers that are used again: a fresh 64 MB costs 10 ms of page faults."""

from __future__ import annotations

import math
import sys

import numpy as np

from ..messages import Array
from ..wire import Header, Layout

#: Smaller arrays are left to NumPy.
SMALLEST = 1 << 16


def _count_alone() -> int:
    """What `sys.getrefcount` reports for an array that only a list and a loop variable refer to."""
    for buffer in [np.empty(1)]:
        return sys.getrefcount(buffer)
    raise AssertionError


_ALONE = _count_alone()


class Buffers:
    """A pool of buffers. One is free again when nobody but the pool refers to it, so none is ever given back."""

    def __init__(self, keep_bytes: int = 256 << 20) -> None:
        self._keep_bytes = keep_bytes
        self._kept_bytes = 0
        self._kept: dict[int, list[Array]] = {}

    def take(self, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> Array:
        """An array with whatever contents; keep a reference to it, or to a view of it, while it is in use."""
        n_bytes = dtype.itemsize * math.prod(shape)
        if n_bytes < SMALLEST:
            return np.empty(shape, dtype)
        size = 1 << (n_bytes - 1).bit_length()
        buffers = self._kept.setdefault(size, [])
        for buffer in buffers:
            if sys.getrefcount(buffer) == _ALONE:
                break
        else:
            if self._kept_bytes + size > self._keep_bytes:
                return np.empty(shape, dtype)
            buffer = np.empty(size, np.uint8)
            buffers.append(buffer)
            self._kept_bytes += size
        return buffer[:n_bytes].view(dtype).reshape(shape)

    def place(self, link: object, header: Header, layout: Layout) -> list[Array]:
        """Room for the arrays of a large frame: a `transport.Place`."""
        return [self.take(dtype, shape) for dtype, shape in zip(layout.dtypes, layout.shapes, strict=True)]
