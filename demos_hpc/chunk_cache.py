"""Inflated parts of datasets, the latest of them: hot chunks are inflated once."""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import Any

from .messages import Array

#: Bytes of inflated chunks that a process keeps, for rows that are asked for one by one.
CACHE_BYTES = 64 << 20


class ChunkCache:
    """Parts of datasets that were inflated, the latest ``max_bytes`` of them."""

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[Any, Array] = OrderedDict()

    def get(self, key: Any) -> Array | None:
        """What was kept under this key; it is the caller's to look at, not to change."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def put(self, key: Any, array: Array) -> None:
        """Keeps an array, unless it is larger than the cache."""
        self._bytes -= _weigh(self._kept.pop(key)) if key in self._kept else 0
        if _weigh(array) > self._max_bytes:
            return
        self._bytes += _weigh(array)
        self._kept[key] = array
        while self._bytes > self._max_bytes:
            self._bytes -= _weigh(self._kept.popitem(last=False)[1])


def _weigh(array: Array) -> int:
    """Bytes that an array takes, with those of the strings or lists in it."""
    return array.nbytes + (sum(map(sys.getsizeof, array.reshape(-1))) if array.dtype.hasobject else 0)
