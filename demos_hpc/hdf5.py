"""HDF5 files: opened, described, and read into given memory.

A dataset is read as h5py would return it, and single rows of large datasets faster.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from .chunk_cache import ChunkCache
from .errors import DatasetError, InvalidInput
from .hdf5_format import (
    describe_attributes,
    describe_dtype,
    explain,
    find_kind,
    has_filter,
    is_dataset,
    is_external,
    is_group,
    list_filters,
    open_unlocked,
)
from .messages import Array
from .runs import Run
from .selection import Axis, IndexArray, Span

#: Runs of consecutive indices of which a list may be made up, as a share of it, to be read one by one.
MOST_RUNS = 1 / 16
#: Filters that take no time to speak of.
_LIGHT = frozenset({"shuffle", "fletcher32"})


def split_path(path: str) -> tuple[str, str]:
    """``file.h5:/group/events`` as file and name within; without a name, that of the root."""
    file, colon, inside = path.rpartition(":/")
    return (file, "/" + inside) if colon else (path, "/")


def identify(status: os.stat_result) -> str:
    """What tells a file from the one that replaces it: size, time of change, inode; 16 hexadecimal digits."""
    text = f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class DataFile:
    """An open HDF5 file; ``allowed`` are the directories that its links may lead into."""

    def __init__(self, path: str, allowed: Sequence[str] = ()) -> None:
        self.path = path
        self._allowed = [os.path.realpath(directory) for directory in (os.path.dirname(path) or ".", *allowed)]
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DatasetError(f"{path} cannot be opened: {error.strerror}") from None
        self.identity = identify(os.fstat(self._descriptor))
        try:
            self._file = open_unlocked(path)
        except OSError as error:
            os.close(self._descriptor)
            raise DatasetError(f"{path} cannot be opened: {explain(error)}") from None
        self._datasets: dict[str, DataSet] = {}

    def close(self) -> None:
        for dataset in self._datasets.values():
            dataset.close()
        self._file.close()
        os.close(self._descriptor)

    def is_unchanged(self) -> bool:
        """Whether the file that was opened, wherever it is now, is as it was."""
        return identify(os.fstat(self._descriptor)) == self.identity

    def is_current(self) -> bool:
        """Whether its path still leads to the file as it was opened."""
        try:
            return identify(os.stat(self.path)) == self.identity
        except OSError:
            return False

    def find(self, name: str) -> DataSet:
        """The dataset of this name; the same object each time."""
        if name not in self._datasets:
            self._datasets[name] = DataSet(self._open(name), f"{self.path}:{name}", self.path)
        return self._datasets[name]

    def list_names(self) -> list[str]:
        """Names of all datasets in the file itself, sorted; links to other files are not followed."""
        names: list[str] = []
        self._file.visititems(lambda name, thing: names.append(f"/{name}") if is_dataset(thing) else None)
        return sorted(names)

    def _open(self, name: str) -> Any:
        place = self._file
        walked = ""
        for word in filter(None, name.split("/")):
            walked += f"/{word}"
            if not is_group(place):
                raise DatasetError(f"{self.path}: {walked} lies in something that is no group")
            link = place.get(word, getlink=True)
            if link is None:
                there = ", ".join(list(place)[:20]) or "nothing"
                raise DatasetError(f"{self.path}: there is no {walked}; beside it there are: {there}")
            if is_external(link):
                self._check_place(os.path.join(os.path.dirname(self.path), link.filename), walked)
            try:
                place = place[word]
            except (KeyError, OSError) as error:
                raise DatasetError(f"{self.path}: {walked} leads nowhere: {explain(error)}") from None
        if not is_dataset(place):
            raise DatasetError(f"{self.path}: {name} is a {type(place).__name__.lower()}, not a dataset")
        self._check_place(place.file.filename, name)
        outside = [source.file_name for source in place.virtual_sources()] if place.is_virtual else []
        for other in [*outside, *(str(part[0]) for part in place.external or ())]:
            if other != ".":
                self._check_place(os.path.join(os.path.dirname(self.path), other), name)
        return place

    def _check_place(self, path: str, name: str) -> None:
        real = os.path.realpath(path)
        if real == os.path.realpath(self.path):
            return
        if not any(os.path.commonpath([real, directory]) == directory for directory in self._allowed):
            raise DatasetError(
                f"{self.path}: {name} leads to {path}, which is in none of the directories that this server may read:"
                f" {', '.join(self._allowed)}; its operator may allow others (DEMOS_DATA_DIRECTORIES)"
            )


class DataSet:
    """One dataset, read row by row."""

    def __init__(self, dataset: Any, name: str, path: str) -> None:
        self._dataset = dataset
        self._name = name
        self.shape: tuple[int, ...] | None = dataset.shape
        self.dtype: np.dtype[Any] = dataset.dtype
        self.chunks: tuple[int, ...] | None = dataset.chunks
        self.kind = find_kind(self.dtype)
        self.filters = list_filters(dataset)
        self._descriptor = -1
        self._offset: int | None = None
        is_plain = self.chunks is None and self.kind == "rows" and self.shape and not dataset.is_virtual
        if is_plain and not dataset.external and dataset.file.filename == path:
            self._offset = dataset.id.get_offset()
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if self._offset is not None else -1

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def is_compressed(self) -> bool:
        """Whether reading it costs more than copying."""
        return not set(self.filters) <= _LIGHT

    def describe(self) -> dict[str, Any]:
        """Shape, dtype, chunks, filters and attributes, for JSON."""
        return {
            "shape": None if self.shape is None else list(self.shape),
            "dtype": describe_dtype(self.dtype),
            "kind": self.kind,
            "chunks": None if self.chunks is None else list(self.chunks),
            "filters": self.filters,
            "attrs": describe_attributes(self._dataset),
        }

    def row_dtype(self, fields: Sequence[str] | None) -> np.dtype[Any]:
        """What one element is, of a compound those fields only."""
        if fields is None:
            return self.dtype
        names = self.dtype.names or ()
        if unknown := [name for name in fields if name not in names]:
            raise InvalidInput(f"{self._name}: no field {', '.join(map(repr, unknown))}; there are {', '.join(names)}")
        return np.dtype([(name, self.dtype[name]) for name in fields])

    def read(self, run: Run, cache: ChunkCache, out: Array | None = None) -> Array:
        """The elements of ``run``, shaped as its counts; into ``out``, where that is given and they are of fixed size.

        Raises
        ------
        InvalidInput
            Where the run is not within the dataset.
        DatasetError
            Where the file cannot give it.
        """
        dtype = self.row_dtype(run.fields)
        self._check_run(run)
        if out is None:
            out = np.empty(run.counts, dtype)
        try:
            if not run.axes:
                self._dataset.read_direct(out)
            elif run.is_flat:
                self._read_points(run, dtype, cache, out)
            elif isinstance(run.axes[run.axis], Span):
                if out.size:
                    self._dataset.read_direct(out, tuple(_slice(axis) for axis in run.axes))
            elif out.size:
                self._read_list(run, dtype, cache, out)
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            raise DatasetError(f"{self._name} cannot be read: {self._explain(error)}") from None
        return out

    def _check_run(self, run: Run) -> None:
        shape = self.shape
        if shape is None:
            raise InvalidInput(f"{self._name} is empty: it has a type, but no shape and no elements")
        lengths = (math.prod(shape),) if run.is_flat else shape
        if len(run.axes) != len(lengths):
            raise InvalidInput(f"{self._name}: {len(run.axes)} axes of a dataset of shape {shape}")
        for nth, (axis, length) in enumerate(zip(run.axes, lengths, strict=True)):
            last = _find_last(axis)
            if last >= length:
                raise InvalidInput(f"{self._name}, axis {nth}: index {last} is out of range, the axis has {length}")

    def _explain(self, error: Exception) -> str:
        text = explain(error)
        if any(word in text.lower() for word in ("filter", "plugin")):
            missing = [name for name in self.filters if not has_filter(name)]
            remedy = "the package hdf5plugin brings most of them"
            return f"its filter {', '.join(missing) or ', '.join(self.filters)} is missing or fails ({text}); {remedy}"
        return text

    # ---- lists ----------------------------------------------------------------------------------------------

    def _read_list(self, run: Run, dtype: np.dtype[Any], cache: ChunkCache, out: Array) -> None:
        indices = run.axes[run.axis]
        assert not isinstance(indices, Span)
        if run.axis == 0 and self._offset is not None and dtype == self.dtype and _is_whole(run.axes[1:], self.shape):
            self._read_rows(indices, out)
            return
        edges = np.concatenate([[0], np.flatnonzero(np.diff(indices) != 1) + 1, [len(indices)]])
        before = (slice(None),) * run.axis
        if len(edges) - 1 <= max(1.0, MOST_RUNS * len(indices)):
            for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
                axes = list(run.axes)
                axes[run.axis] = Span(int(indices[start]), 1, stop - start)
                self._copy(tuple(_slice(axis) for axis in axes), dtype, out, (*before, slice(start, stop)))
            return
        length = self.chunks[run.axis] if self.chunks else max(1, (1 << 20) // max(self.dtype.itemsize, 1))
        for chunk, start, stop in _group(indices, length):
            block = self._get_block(run, dtype, cache, chunk, length)
            at: Any = (*before, indices[start:stop] - chunk * length)
            out[(*before, slice(start, stop))] = block[at]

    def _copy(self, source: tuple[slice, ...], dtype: np.dtype[Any], out: Array, place: tuple[slice, ...]) -> None:
        part = out[place]
        if part.flags.c_contiguous:
            self._dataset.read_direct(part, source)
            return
        block = np.empty(part.shape, dtype)
        self._dataset.read_direct(block, source)
        part[...] = block

    def _get_block(self, run: Run, dtype: np.dtype[Any], cache: ChunkCache, chunk: int, length: int) -> Array:
        """One chunk's length along the axis of the list, as far as the other axes are wanted."""
        assert self.shape is not None
        axes = list(run.axes)
        axes[run.axis] = Span(chunk * length, 1, min(length, self.shape[run.axis] - chunk * length))
        key = (id(self), run.fields, tuple(axes))
        block = cache.get(key)
        if block is None:
            block = np.empty(tuple(axis.count for axis in axes if isinstance(axis, Span)), dtype)
            self._dataset.read_direct(block, tuple(_slice(axis) for axis in axes))
            cache.put(key, block)
        return block

    def _read_rows(self, indices: IndexArray, out: Array) -> None:
        """Single rows of what is stored in one run, straight from the file."""
        assert self.shape is not None
        assert self._offset is not None
        size = self.dtype.itemsize * math.prod(self.shape[1:])
        pread, descriptor = os.pread, self._descriptor
        data = b"".join([pread(descriptor, size, at) for at in (indices * size + self._offset).tolist()])
        if len(data) != size * len(indices):
            raise OSError(f"the file ends before row {indices[-1]}")
        out.reshape(-1).view(np.uint8)[:] = np.frombuffer(data, np.uint8)

    def _read_points(self, run: Run, dtype: np.dtype[Any], cache: ChunkCache, out: Array) -> None:
        """Single elements by their place in the flattened dataset."""
        indices, shape = run.axes[0], self.shape
        assert not isinstance(indices, Span)
        assert shape is not None
        if not len(indices):
            return
        if self._offset is not None and dtype == self.dtype:
            row = math.prod(shape[1:])
            first, last = int(indices[0]) // row, int(indices[-1]) // row + 1
            block = np.empty((last - first, *shape[1:]), dtype)
            self._dataset.read_direct(block, np.s_[first:last])
            out[...] = block.reshape(-1)[indices - first * row]
            return
        places = np.unravel_index(indices, shape)
        row_length = self.chunks[0] if self.chunks and shape else 1
        rest = tuple(Span(0, 1, n) for n in shape[1:])
        whole = Run((Span(0, 1, shape[0]), *rest), 0, run.fields, False) if shape else run
        for chunk, start, stop in _group(places[0].astype(np.int64), row_length):
            block = self._get_block(whole, dtype, cache, chunk, row_length)
            at = (places[0][start:stop] - chunk * row_length, *(place[start:stop] for place in places[1:]))
            out[start:stop] = block[at]


def _slice(axis: Axis) -> slice:
    assert isinstance(axis, Span)
    return axis.slice


def _find_last(axis: Axis) -> int:
    if isinstance(axis, Span):
        return axis.start + axis.step * (axis.count - 1) if axis.count else -1
    return int(axis[-1]) if len(axis) else -1


def _is_whole(axes: Sequence[Axis], shape: Sequence[int] | None) -> bool:
    return shape is not None and all(axis == Span(0, 1, n) for axis, n in zip(axes, shape[1:], strict=True))


def _group(indices: IndexArray, length: int) -> Iterator[tuple[int, int, int]]:
    """The chunks that increasing indices lie in, with the first and last of those in each."""
    chunks = indices // length
    edges = np.concatenate([[0], np.flatnonzero(np.diff(chunks)) + 1, [len(chunks)]]).tolist()
    return ((int(chunks[a]), a, b) for a, b in pairwise(edges))
