"""Answers kept for requests that come again: byte for byte the same, within a bound on memory.

Pure, and for one thread. Whoever answers requests, a client's connection or a dispatcher, makes a key of each
that `may_cache` allows, asks `Cache.get`, and has a `Gathering` collect the parts of an answer that was not there.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from struct import Struct
from typing import NamedTuple

import numpy as np

from .errors import InvalidInput
from .messages import Array, Operation
from .spec import ModelSpec

#: A key: so many bytes that tell the model, then a digest of everything. Nobody can make two requests of one key.
MODEL_BYTES = 8
DIGEST_BYTES = 24
#: What an entry and an array of it take beside the array's bytes, rather too much than too little.
ENTRY_COST = 512
ARRAY_COST = 512

_CACHED = frozenset(
    {
        Operation.LOG_DENSITY,
        Operation.LOG_DENSITY_GRADIENT,
        Operation.LOG_LIKELIHOOD,
        Operation.LOG_LIKELIHOOD_GRADIENT,
        Operation.EVALUATE,
    }
)
_FIELDS = Struct("<8Q")

_Dtype = np.dtype[np.generic]


def may_cache(spec: ModelSpec, operation: int, seed: int | None = None) -> bool:
    """Whether the answer to a request may stand for that to the next one like it.

    Not that to ``metadata``, which changes, nor that to ``set_params``, which does something. Draws only with a
    ``seed`` (None where the caller gave none: then others are wanted each time), and only where the model says that
    the same seed gives the same draws.
    """
    if operation == Operation.SAMPLE:
        return seed is not None and spec.reproducible
    return operation in _CACHED


def key_of(
    model: str,
    version: str,
    revision: int,
    operation: int,
    flags: int,
    n_rows: int,
    seed: int,
    arrays: Sequence[Array],
    first_row: int = 0,
) -> bytes:
    """What tells a request from all that have another answer.

    ``model`` is what names the model for good: its UUID, and a digest of its code where that is known. ``revision``
    is that of the server-side parameters which the answer is computed with, not that which the client pinned, which
    may be 0 for any; ``first_row`` is where a sample begins. Arrays are taken by dtype, shape and bytes: 0.0 and -0.0
    differ, a nan is like itself.

    Raises
    ------
    InvalidInput
        Where the elements of an array are no plain numbers.
    """
    names = model.encode(), version.encode()
    fields = _FIELDS.pack(*map(len, names), revision, operation, flags, n_rows, seed, first_row)
    digest = blake2b(fields, digest_size=DIGEST_BYTES)
    for name in names:
        digest.update(name)
    for array in arrays:
        # Dtype and shape say how many bytes follow, so no two lists of arrays come to the same bytes.
        digest.update(_describe(array.dtype, array.shape))
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return _digest_model(model) + digest.digest()


@lru_cache(maxsize=256)
def _digest_model(model: str) -> bytes:
    return blake2b(model.encode(), digest_size=MODEL_BYTES).digest()


@lru_cache(maxsize=1024)
def _describe(dtype: _Dtype, shape: tuple[int, ...]) -> bytes:
    if dtype.kind not in "fiubc":
        raise InvalidInput(f"an array of dtype {dtype} has no key; arrays of numbers have")
    name = dtype.str.encode()
    return bytes([len(name), len(shape)]) + name + b"".join(n.to_bytes(8, "little") for n in shape)


class Answer(NamedTuple):
    """An answer as it was: arrays that nobody can write to, and what the header of the reply has to say."""

    arrays: list[Array]
    #: Rows answered with nan or +inf.
    nonfinite: int
    #: Revision of the server-side parameters.
    revision: int


class _Kept(NamedTuple):
    """An array. Were it one itself, its views could be made writable."""

    data: bytes | memoryview
    dtype: _Dtype
    shape: tuple[int, ...]

    def view(self) -> Array:
        # frombuffer, since ndarray(buffer=...) looks behind a memoryview and finds something that may be written to.
        return np.frombuffer(self.data, self.dtype).reshape(self.shape)


class _Entry(NamedTuple):
    arrays: list[_Kept]
    nonfinite: int
    revision: int
    size: int


class Cache:
    """The answers that were asked for last, of at most ``max_bytes``, those included that are being gathered."""

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise InvalidInput(f"a cache of {max_bytes} bytes; give a number >= 0, 0 for none")
        self.max_bytes = max_bytes
        self.hits = 0
        self.misses = 0
        #: Answers that made room for others.
        self.evicted = 0
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        #: What they take, and the room for answers that are being gathered.
        self._kept_bytes = 0
        self._reserved_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: bytes) -> bool:
        return key in self._entries

    def __repr__(self) -> str:
        return f"Cache({len(self)} answers, {self.used_bytes} of {self.max_bytes} bytes, {self.hits} hits)"

    @property
    def used_bytes(self) -> int:
        """Memory that is in use, about; the answers that are being gathered have all their room already."""
        return self._kept_bytes + self._reserved_bytes

    def get(self, key: bytes) -> Answer | None:
        """The answer kept under this key; None where there is none."""
        entry = self._entries.get(key)
        if entry is None:
            self.misses += 1
            return None
        self.hits += 1
        self._entries.move_to_end(key)
        return Answer([kept.view() for kept in entry.arrays], entry.nonfinite, entry.revision)

    def put(self, key: bytes, arrays: Sequence[Array], nonfinite: int = 0, revision: int = 0) -> bool:
        """Keeps a copy of an answer; whether there is room for it. The first answer under a key stays."""
        size = _measure([(array.dtype, array.shape) for array in arrays])
        if not self._make_room(size):
            return False
        kept = [_Kept(array.tobytes(), array.dtype, array.shape) for array in arrays]
        self._keep(key, _Entry(kept, nonfinite, revision, size))
        return True

    def clear(self, model: str) -> int:
        """Forgets the answers of this model, whose parameters have changed; returns how many there were."""
        start = _digest_model(model)
        keys = [key for key in self._entries if key.startswith(start)]
        for key in keys:
            self._kept_bytes -= self._entries.pop(key).size
        return len(keys)

    def describe(self) -> dict[str, int]:
        """For JSON: ``hits``, ``misses``, ``entries``, ``bytes``, ``max_bytes``, ``evicted``."""
        return {
            "hits": self.hits,
            "misses": self.misses,
            "entries": len(self),
            "bytes": self.used_bytes,
            "max_bytes": self.max_bytes,
            "evicted": self.evicted,
        }

    def _keep(self, key: bytes, entry: _Entry) -> None:
        """An answer for which there is room."""
        if key not in self._entries:
            self._entries[key] = entry
            self._kept_bytes += entry.size
        self._entries.move_to_end(key)

    def _make_room(self, size: int) -> bool:
        """Evicts answers that nobody has asked for longest; whether there is room for ``size`` bytes then."""
        most = self.max_bytes - self._reserved_bytes - size
        if most < 0:
            return False
        while self._kept_bytes > most:
            _, entry = self._entries.popitem(last=False)
            self._kept_bytes -= entry.size
            self.evicted += 1
        return True

    # ---- for Gathering --------------------------------------------------------------------------------------

    def _reserve(self, size: int) -> bool:
        if not self._make_room(size):
            return False
        self._reserved_bytes += size
        return True

    def _release(self, size: int) -> None:
        self._reserved_bytes -= size


class Gathering:
    """The parts of an answer of ``n_rows`` rows (or cells) on their way into the cache, kept once all are there.

    Parts come in any order, each once. The room for the whole answer is taken with the first one, and given back
    when the answer is dropped: because its request has failed, or because nobody refers to this object any more.
    """

    def __init__(self, cache: Cache, key: bytes, n_rows: int) -> None:
        self.key = key
        self._cache = cache
        self._n_rows = self._rows_due = n_rows
        self._size = 0
        self._nonfinite = 0
        #: How many rows the parts have that have come, by their first rows.
        self._parts: dict[int, int] = {}
        self._buffers: list[bytearray] = []
        self._arrays: list[Array] = []
        #: Whether nothing more is gathered: the answer is kept, or was dropped.
        self.is_over = False

    def __del__(self) -> None:
        self.drop()

    def add(self, first_row: int, arrays: Sequence[Array], nonfinite: int, revision: int) -> bool:
        """Copies a part of the answer: arrays (rows, ...) from ``first_row`` on. Whether the answer is kept now.

        An answer whose parts do not fit together is dropped, and so is one that there is no room for.
        """
        if self.is_over:
            return False
        rows = len(arrays[0]) if arrays and arrays[0].ndim else 0
        if not self._parts and not self._open(arrays):
            self.drop()
            return False
        fits = [(a.dtype, (rows, *a.shape[1:])) for a in self._arrays] == [(a.dtype, a.shape) for a in arrays]
        if not fits or not 0 < rows <= self._n_rows - first_row or first_row in self._parts:
            self.drop()
            return False
        for target, array in zip(self._arrays, arrays, strict=True):
            target[first_row : first_row + rows] = array
        self._parts[first_row] = rows
        self._rows_due -= rows
        self._nonfinite += nonfinite
        return self._rows_due <= 0 and self._finish(revision)

    def drop(self) -> None:
        """Forgets what was gathered, if the answer is not kept by now."""
        if not self.is_over:
            self.is_over = True
            self._cache._release(self._size)
            self._buffers, self._arrays = [], []

    def _open(self, arrays: Sequence[Array]) -> bool:
        """Takes room for the whole answer, whose first part this is."""
        kinds = [(array.dtype, (self._n_rows, *array.shape[1:])) for array in arrays]
        size = _measure(kinds)
        if not arrays or not self._cache._reserve(size):
            return False
        self._size = size
        self._buffers = [bytearray(dtype.itemsize * math.prod(shape)) for dtype, shape in kinds]
        pairs = zip(kinds, self._buffers, strict=True)
        self._arrays = [np.ndarray(shape, dtype, data) for (dtype, shape), data in pairs]
        return True

    def _finish(self, revision: int) -> bool:
        row = 0
        for first in sorted(self._parts):
            if first != row:  # one part lies over another, and there is a gap
                self.drop()
                return False
            row += self._parts[first]
        pairs = zip(self._buffers, self._arrays, strict=True)
        kept = [_Kept(memoryview(data).toreadonly(), array.dtype, array.shape) for data, array in pairs]
        self.drop()
        self._cache._keep(self.key, _Entry(kept, self._nonfinite, revision, self._size))
        return True


def _measure(kinds: Sequence[tuple[_Dtype, tuple[int, ...]]]) -> int:
    """Bytes that arrays of these dtypes and shapes take as an entry."""
    return ENTRY_COST + sum(ARRAY_COST + dtype.itemsize * math.prod(shape) for dtype, shape in kinds)
