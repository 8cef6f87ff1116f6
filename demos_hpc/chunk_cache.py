"""Inflated parts of datasets, the latest of them: hot chunks are inflated once."""

from __future__ import annotations

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
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def put(self, key: Any, array: Array) -> None:
        if array.nbytes > self._max_bytes:
            return
        old = self._kept.pop(key, None)
        self._bytes += array.nbytes - (0 if old is None else old.nbytes)
        self._kept[key] = array
        while self._bytes > self._max_bytes:
            _, gone = self._kept.popitem(last=False)
            self._bytes -= gone.nbytes
