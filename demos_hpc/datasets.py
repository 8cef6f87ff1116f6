"""One dataset of an HDF5 file, read as h5py would return it, and single rows of large datasets faster."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from .chunk_cache import ChunkCache
from .elements import RAGGED_BYTES, encode
from .errors import DatasetError, InvalidInput
from .hdf5_format import (
    ERRORS,
    describe_dtype,
    explain,
    find_kind,
    has_filter,
    is_raw,
    list_filters,
    read_slab,
)
from .messages import Array
from .runs import Run
from .selection import Axis, IndexArray, Span, count_chunks, imagine_chunks
from .sources import Source

#: Bytes of what is read at a time to pick from, more where one chunk has more.
BLOCK_BYTES = 64 << 20
#: Bytes that are read together where a dataset is stored in one run.
TILE_BYTES = 64 << 10
#: Strings or lists that are looked at, to know how long they are.
SAMPLES = 16
#: Filters that take no time to speak of.
_LIGHT = frozenset({"shuffle", "fletcher32"})


class DataSet:
    """One dataset, ``handle`` as h5py has it, with its attributes for JSON.

    ``file`` is kept open as long as this lives; ``source`` is where its bytes are, None where not in that file.

    Raises
    ------
    InvalidInput, TypeError or what else h5py raises
        Where its elements are of a type that cannot be read.
    """

    def __init__(
        self, handle: Any, name: str, file: object, source: Source | None, identity: str, attributes: dict[str, Any]
    ) -> None:
        self._handle = handle
        self._file = file
        self._attributes = attributes
        #: Where it is, for messages.
        self.name = name
        #: Of the file, or of all files that it is in.
        self.identity = identity
        self.shape: tuple[int, ...] | None = handle.shape
        self.dtype: np.dtype[Any] = handle.dtype
        self.chunks: tuple[int, ...] | None = handle.chunks
        self.kind = find_kind(self.dtype)
        self.filters = list_filters(handle)
        self._described_dtype = describe_dtype(self.dtype)
        #: Of its blocks in a cache.
        self._key = object()
        #: What `estimate_item_bytes` has found.
        self._item_bytes = 0
        self._tile: tuple[int, ...] = self.chunks or imagine_chunks(self.shape or (), self.dtype.itemsize, TILE_BYTES)
        self._source = source
        #: Where its bytes begin, if they lie in the file as in memory, one behind the other.
        self._offset: int | None = None
        if source is not None and self.chunks is None and self.shape and self.kind == "rows" and is_raw(handle):
            self._offset = handle.id.get_offset()

    @property
    def is_compressed(self) -> bool:
        """Whether reading it costs more than copying."""
        return not set(self.filters) <= _LIGHT

    def describe(self) -> dict[str, Any]:
        """Shape, dtype, chunks, filters and attributes, for JSON."""
        return {
            "shape": None if self.shape is None else list(self.shape),
            "dtype": self._described_dtype,
            "kind": self.kind,
            "chunks": None if self.chunks is None else list(self.chunks),
            "filters": self.filters,
            "attrs": self._attributes,
        }

    def estimate_item_bytes(self) -> int:
        """Bytes of one element as it travels; of strings and lists the mean of a few, `RAGGED_BYTES` at least."""
        shape = self.shape
        if self.kind == "rows" or shape is None:
            return self.dtype.itemsize
        if self._item_bytes == 0:
            n, cache = math.prod(shape), ChunkCache(0)
            sizes: list[int] = []
            with contextlib.suppress(DatasetError):  # who reads it is told
                for place in sorted({(n - 1) * nth // (SAMPLES - 1) for nth in range(SAMPLES)}) if n else ():
                    axes = tuple(Span(int(at), 1, 1) for at in np.unravel_index(place, shape)) if shape else ()
                    _, contents = encode(self.read(Run(axes, 0, None, False), cache), self.kind)
                    sizes.append(contents.nbytes)
            self._item_bytes = max(RAGGED_BYTES, sum(sizes) // max(len(sizes), 1))
        return self._item_bytes

    def row_dtype(self, fields: Sequence[str] | None) -> np.dtype[Any]:
        """What one element is, of a compound those fields only."""
        if fields is None:
            return self.dtype
        names = self.dtype.names
        if names is None:
            raise InvalidInput(f"{self.name} has no fields, such as {fields[0]!r}")
        if unknown := [name for name in fields if name not in names]:
            raise InvalidInput(f"{self.name}: no field {', '.join(map(repr, unknown))}; there are {', '.join(names)}")
        return np.dtype([(name, self.dtype[name]) for name in fields])

    def measure(self, run: Run) -> int:
        """Bytes of the elements of a run; `InvalidInput` where it is not within the dataset."""
        shape = self.shape
        if shape is None:
            raise InvalidInput(f"{self.name} is empty: it has a type, but no shape and no elements")
        lengths = (math.prod(shape),) if run.is_flat else shape
        if len(run.axes) != len(lengths):
            raise InvalidInput(f"{self.name}: {len(run.axes)} axes of a dataset of shape {shape}")
        for nth, (axis, length) in enumerate(zip(run.axes, lengths, strict=True)):
            last = _find_last(axis)
            if last >= length:
                raise InvalidInput(f"{self.name}, axis {nth}: index {last} is out of range, the axis has {length}")
        return math.prod(run.counts) * self.row_dtype(run.fields).itemsize

    def measure_chunks(self, run: Run) -> int:
        """Bytes of the chunks that a run touches, of which each is read, and inflated, as a whole."""
        if self.chunks is None or not run.axes:
            return 0
        chunk_bytes = self.dtype.itemsize * math.prod(self.chunks)
        if not run.is_flat:
            return chunk_bytes * math.prod(map(count_chunks, run.axes, self.chunks))
        indices = run.axes[0]
        assert not isinstance(indices, Span)
        return chunk_bytes * len(np.unique(self._find_chunks(self._find_places(indices))))

    def read(self, run: Run, cache: ChunkCache, out: Array | None = None) -> Array:
        """The elements of ``run``, shaped as its counts; into ``out``, C-contiguous, where that is given.

        Elements that are arrays of so many numbers are further axes, as in h5py.

        Raises
        ------
        InvalidInput
            Where the run is not within the dataset.
        DatasetError
            Where the file cannot give it.
        """
        self.measure(run)
        dtype = self.row_dtype(run.fields)
        if out is None:
            # Where elements have gaps, nothing is written into them.
            out = np.empty(run.counts, dtype) if dtype.hasobject else np.zeros(run.counts, dtype)
        if not out.size:
            return out
        try:
            if run.is_flat:
                self._read_points(run, dtype, cache, out)
            elif (place := run.list_axis) is not None:
                self._read_list(run, place, dtype, cache, out)
            else:
                read_slab(self._handle, _spans(run.axes), dtype, out)
        except ERRORS as error:
            raise DatasetError(f"{self.name} cannot be read: {self._explain(error)}") from None
        return out

    def _explain(self, error: Exception) -> str:
        text = explain(error)
        if any(word in text.lower() for word in ("filter", "plugin")):
            missing = [name for name in self.filters if not has_filter(name)]
            if missing:
                remedy = "the package hdf5plugin (pip install 'demos-hpc[data]') brings most of them"
                return f"its filter {', '.join(missing)} is not installed where the file is read; {remedy} ({text})"
            return f"its filter {', '.join(self.filters)} fails, so the file is damaged: write or copy it anew ({text})"
        return text

    # ---- lists ----------------------------------------------------------------------------------------------

    def _read_list(self, run: Run, place: int, dtype: np.dtype[Any], cache: ChunkCache, out: Array) -> None:
        """``run`` has a list of indices along axis ``place``."""
        indices = run.axes[place]
        assert not isinstance(indices, Span)
        assert self.shape is not None
        if self._offset is not None and place == 0 and _is_whole(run.axes[1:], self.shape[1:]):
            self._read_raw(indices, math.prod(self.shape[1:]), dtype, out)
            return
        length = self._tile[place]
        row_bytes = dtype.itemsize * (math.prod(run.counts) // len(indices))
        wide = max((j for j in range(len(run.axes)) if j != place), key=lambda j: run.counts[j], default=place)
        if length * row_bytes > BLOCK_BYTES and wide != place and run.counts[wide] > self._tile[wide]:
            for part, where in self._halve(run, wide):
                block = np.empty((*part.counts, *out.shape[len(run.axes) :]), out.dtype)
                self._read_list(part, place, dtype, cache, block)
                out[where] = block
            return
        before = (slice(None),) * place
        for start, stop, is_run in self._cut(indices, length):
            first = int(indices[start])
            axes = list(run.axes)
            if is_run:
                axes[place] = Span(first, 1, stop - start)
                self._copy(_spans(axes), dtype, out, (*before, slice(start, stop)))
                continue
            begin = first // length * length
            axes[place] = Span(begin, 1, min(length, self.shape[place] - begin))
            block = self._get_block(_spans(axes), run.fields, dtype, cache)
            at: Any = (*before, indices[start:stop] - begin)
            out[(*before, slice(start, stop))] = block[at]

    def _halve(self, run: Run, wide: int) -> Iterator[tuple[Run, tuple[slice, ...]]]:
        """Two runs with half of axis ``wide`` each, cut between chunks, and where they belong."""
        span = run.axes[wide]
        assert isinstance(span, Span)
        tile = self._tile[wide]
        middle = (span.start + span.step * (span.count // 2)) // tile * tile
        count = min(max(-(-(middle - span.start) // span.step), 1), span.count - 1)
        for first, stop in ((0, count), (count, span.count)):
            axes = list(run.axes)
            axes[wide] = span.cut(first, stop - first)
            yield Run(tuple(axes), run.axis, run.fields, False), (*(slice(None),) * wide, slice(first, stop))

    def _cut(self, indices: IndexArray, length: int) -> Iterator[tuple[int, int, bool]]:
        """Pieces of increasing indices: each within one chunk, or consecutive, which is read as such."""
        edges = _find_edges(indices // length)
        pending: tuple[int, int] | None = None
        for start, stop in pairwise(edges):
            first, last = int(indices[start]), int(indices[stop - 1])
            # Of what is inflated, others may be wanted soon.
            is_run = last - first == stop - start - 1 and (not self.is_compressed or 2 * (stop - start) > length)
            if pending is not None:
                if is_run and first == int(indices[start - 1]) + 1:
                    pending = pending[0], stop
                    continue
                yield (*pending, True)
                pending = None
            if is_run:
                pending = start, stop
            else:
                yield start, stop, False
        if pending is not None:
            yield (*pending, True)

    def _copy(self, axes: tuple[Span, ...], dtype: np.dtype[Any], out: Array, place: tuple[slice, ...]) -> None:
        part = out[place]
        if part.flags.c_contiguous:
            read_slab(self._handle, axes, dtype, part)
            return
        block = np.empty(part.shape, part.dtype)
        read_slab(self._handle, axes, dtype, block)
        part[...] = block

    def _get_block(
        self, axes: tuple[Span, ...], fields: tuple[str, ...] | None, dtype: np.dtype[Any], cache: ChunkCache
    ) -> Array:
        key = (self._key, fields, axes)
        block = cache.get(key)
        if block is None:
            counts = tuple(axis.count for axis in axes)
            block = np.empty(counts, dtype) if dtype.hasobject else np.zeros(counts, dtype)
            read_slab(self._handle, axes, dtype, block)
            cache.put(key, block)
        return block

    def _read_raw(self, indices: IndexArray, n_elements: int, dtype: np.dtype[Any], out: Array) -> None:
        """Single rows of so many elements, of what is stored in one run, straight from the file."""
        assert self._source is not None
        assert self._offset is not None
        size = self.dtype.itemsize * n_elements
        if dtype == self.dtype:
            self._source.read_rows(self._offset, size, indices, out.reshape(-1).view(np.uint8).reshape(-1, size))
            return
        rows = max(1, BLOCK_BYTES // size)
        for start in range(0, len(indices), rows):
            some = indices[start : start + rows]
            block = np.empty((len(some), size), np.uint8)
            self._source.read_rows(self._offset, size, some, block)
            elements = block.reshape(-1).view(self.dtype).reshape(len(some), *out.shape[1:])
            for name in dtype.names or ():
                out[name][start : start + rows] = elements[name]

    def _read_points(self, run: Run, dtype: np.dtype[Any], cache: ChunkCache, out: Array) -> None:
        """Single elements by their place in the flattened dataset, chunk after chunk."""
        indices, shape = run.axes[0], self.shape
        assert not isinstance(indices, Span)
        assert shape is not None
        if not shape:
            read_slab(self._handle, (), dtype, out)
            return
        if self._offset is not None:
            self._read_raw(indices, 1, dtype, out)
            return
        places = self._find_places(indices)
        chunks = self._find_chunks(places)
        order = np.argsort(chunks, kind="stable")
        for start, stop in pairwise(_find_edges(chunks[order])):
            some = order[start:stop]
            begins = [int(place[some[0]]) // tile * tile for place, tile in zip(places, self._tile, strict=True)]
            axes = tuple(Span(b, 1, min(t, n - b)) for b, t, n in zip(begins, self._tile, shape, strict=True))
            block = self._get_block(axes, run.fields, dtype, cache)
            out[some] = block[tuple(place[some] - begin for place, begin in zip(places, begins, strict=True))]

    def _find_places(self, indices: IndexArray) -> tuple[IndexArray, ...]:
        """Indices along each axis, of elements of the flattened dataset."""
        assert self.shape is not None
        return np.unravel_index(indices, self.shape)

    def _find_chunks(self, places: Sequence[IndexArray]) -> IndexArray:
        """The numbers of the chunks that elements are in."""
        assert self.shape is not None
        grid = [-(-n // tile) for n, tile in zip(self.shape, self._tile, strict=True)]
        return np.ravel_multi_index([place // tile for place, tile in zip(places, self._tile, strict=True)], grid)


def _spans(axes: Sequence[Axis]) -> tuple[Span, ...]:
    spans = tuple(axis for axis in axes if isinstance(axis, Span))
    assert len(spans) == len(axes)
    return spans


def _find_last(axis: Axis) -> int:
    if isinstance(axis, Span):
        return axis.start + axis.step * (axis.count - 1) if axis.count else -1
    return int(axis[-1]) if len(axis) else -1


def _is_whole(axes: Sequence[Axis], shape: Sequence[int]) -> bool:
    return all(isinstance(axis, Span) and axis == Span(0, 1, n) for axis, n in zip(axes, shape, strict=True))


def _find_edges(values: IndexArray) -> list[int]:
    """Where runs of equal values begin, then the number of all."""
    return [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
