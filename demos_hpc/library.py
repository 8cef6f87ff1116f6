"""The datasets of a model as its workers have them: files found, kept open, and looked at for changes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .chunk_cache import ChunkCache
from .datasets import DataSet
from .elements import RAGGED_BYTES, encode, has_gaps
from .errors import BadFrame, DatasetError, InvalidInput, TooLarge
from .hdf5 import DataFile, split_path
from .hdf5_format import describe_dtype
from .messages import Array, FloatArray
from .runs import Run, read_run
from .selection import LARGE_BYTES, MOST_READ_BYTES, MOST_UNIT_BYTES, Span
from .spec import Dataset
from .tables import Table, measure_table, read_table

#: Seconds after which it is looked at once more whether a path still leads to the same file.
LOOK_SECONDS = 1.0
#: Files that are open at a time; a process may have some 1000 descriptors.
MOST_FILES = 128
#: Bytes of a dataset that have one checksum of their own.
SLAB_BYTES = 4 << 20


class Library:
    """The declared ``datasets``; ``allowed`` are directories that links in the files may lead into."""

    def __init__(
        self,
        datasets: Sequence[Dataset],
        allowed: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
        make_room: Callable[[np.dtype[Any], tuple[int, ...]], Array] | None = None,
    ) -> None:
        self._datasets = {dataset.name: dataset for dataset in datasets}
        self._allowed = allowed
        self._clock = clock
        #: The one that was used last stands last.
        self._files: OrderedDict[str, DataFile] = OrderedDict()
        self._looked: dict[str, float] = {}
        self._cache = ChunkCache()
        #: Memory for answers, as `numpy.empty` with its arguments the other way round.
        self._make_room = make_room or (lambda dtype, shape: np.empty(shape, dtype))

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()

    def describe(self, name: str | None) -> dict[str, Any]:
        """All datasets, or one, for JSON; where one of all cannot be read, ``problem`` says why.

        Raises
        ------
        InvalidInput, DatasetError
            Where there is no dataset ``name``, or it cannot be read.
        """
        self._looked.clear()  # whoever opens a dataset gets what is there now
        if name is not None:
            return {"datasets": [self._describe(name)]}
        described = []
        for dataset in self._datasets.values():
            try:
                described.append(self._describe(dataset.name))
            except DatasetError as error:
                described.append({**_declare(dataset), "problem": str(error)})
        return {"datasets": described}

    def read(self, question: Mapping[str, Any], lists: Sequence[Array], first: int, count: int) -> list[Array]:
        """The rows [first, first + count) of what is asked: bytes (count, row_bytes), or lengths and bytes.

        Raises
        ------
        InvalidInput, BadFrame, TooLarge
            Where it is asked for what is not there, or for too much at a time.
        DatasetError
            Where the file cannot be read, or is not the one that was described.
        """
        run = read_run(question, lists, first, count)
        with self._opened(question.get("dataset"), str(question.get("identity"))) as dataset:
            room = self._find_room(dataset, run, question, count)
            values = dataset.read(run, self._cache, room)
        values = np.moveaxis(values, run.axis, 0) if run.axes else values[np.newaxis]
        if dataset.kind != "rows":
            encoded = encode(values, dataset.kind)
            self._check_size(dataset, count, encoded[1].nbytes, MOST_UNIT_BYTES)
            return encoded
        return [np.ascontiguousarray(values).reshape(-1).view(np.uint8).reshape(count, -1)]

    def _find_room(self, dataset: DataSet, run: Run, question: Mapping[str, Any], count: int) -> Array | None:
        """Memory for a unit of an answer; nobody gets more than he says that he asks for, nor more than is good."""
        kind, row_bytes = question.get("kind", "rows"), question.get("row_bytes")
        if kind != dataset.kind:
            raise BadFrame(f"a question for {str(kind)[:20]!r} of {dataset.name}, which has {dataset.kind}")
        n_bytes = dataset.measure(run)
        if kind != "rows":
            n_bytes = math.prod(run.counts) * RAGGED_BYTES
        elif divmod(n_bytes, max(count, 1)) != (row_bytes, 0):
            raise InvalidInput(f"{count} rows of {dataset.name} have {n_bytes} bytes, not {count} times {row_bytes}")
        self._check_size(dataset, count, n_bytes, MOST_UNIT_BYTES)
        self._check_size(dataset, count, dataset.measure_chunks(run), MOST_READ_BYTES)
        if kind != "rows":
            return None
        dtype = dataset.row_dtype(run.fields)
        room = self._make_room(np.dtype(np.uint8), (n_bytes,))
        if has_gaps(dtype):  # nothing is written there, and what stood there is nobody's business
            room[...] = 0
        base, shape = dtype.subdtype or (dtype, ())
        return room.view(base).reshape((*run.counts, *shape))

    def _check_size(self, dataset: DataSet, count: int, size: int, most: int) -> None:
        if size > most:
            raise TooLarge(
                f"{count} rows of {dataset.name} in one unit, for which {size} bytes are read; a worker reads"
                f" {most} at a time: ask for fewer, or for a part of each"
            )

    def digest(self, question: Mapping[str, Any], first: int, count: int) -> list[Array]:
        """SHA-256 of the slabs [first, first + count) of a dataset, (count, 32) uint8; raises as `read` does."""
        self._looked.clear()  # what is verified is what the path leads to
        with self._opened(question.get("dataset"), str(question.get("identity"))) as dataset:
            n = count_slabs(dataset.shape, dataset.dtype.itemsize)
            if first + count > n:
                raise InvalidInput(f"checksums {first} to {first + count} of {dataset.name}, which has {n}")
            if count * SLAB_BYTES > MOST_UNIT_BYTES:
                raise TooLarge(f"{count} checksums of {SLAB_BYTES} bytes each in one unit: ask for fewer")
            digests = np.empty((count, 32), np.uint8)
            for nth in range(count):
                digests[nth] = np.frombuffer(digest_slab(dataset, self._cache, first + nth), np.uint8)
        return [digests]

    def check(self, name: str, identity: str) -> None:
        """`DatasetError` where the file of a dataset is not, or no longer, the one that the caller means."""
        with self._opened(name, identity):
            pass

    def find_path(self, name: str) -> str:
        """Where a declared dataset is: ``/path/file.h5:/name/within``."""
        return self._declared(name).path

    def measure(self, name: str, identity: str, columns: Sequence[str] = ()) -> Table:
        """How many rows of numbers a dataset has, and how wide; see `tables.measure_table`."""
        with self._opened(name, identity) as dataset:
            return measure_table(dataset, name, columns)

    def read_rows(self, name: str, identity: str, start: int, stop: int, columns: Sequence[str] = ()) -> FloatArray:
        """Rows [start, stop) as numbers, (stop - start, d) float64; of a compound dataset the fields ``columns``.

        Raises
        ------
        InvalidInput
            Where there are no such rows, or they are no numbers.
        DatasetError
            Where the file cannot be read, or is not the one that the caller means.
        """
        with self._opened(name, identity) as dataset:
            return read_table(dataset, name, columns, start, stop, self._cache)

    def _describe(self, name: str) -> dict[str, Any]:
        with self._opened(name) as dataset:
            return {
                **_declare(self._declared(name)),
                **dataset.describe(),
                "identity": dataset.identity,
                "item_bytes": dataset.dtype.itemsize,
                "typical_bytes": dataset.estimate_item_bytes(),
                "is_compressed": dataset.is_compressed,
            }

    def _declared(self, name: Any) -> Dataset:
        if not isinstance(name, str) or name not in self._datasets:
            there = ", ".join(self._datasets) or "none"
            raise InvalidInput(f"there is no dataset {str(name)[:200]!r}; there are: {there}")
        return self._datasets[name]

    @contextlib.contextmanager
    def _opened(self, name: Any, identity: str | None = None) -> Iterator[DataSet]:
        """The dataset of this name, while something is done with it; ``identity`` is that of the file that is meant.

        Raises
        ------
        InvalidInput
            Where there is no such dataset.
        DatasetError
            Where it cannot be opened, is not the one that is meant, or was changed meanwhile.
        """
        path, inside = split_path(self._declared(name).path)
        try:
            file = self._find_file(path)
            dataset = file.find(inside)
            if identity is not None and identity != dataset.identity:
                self._looked.pop(path)  # another worker may have seen a newer one
                file = self._find_file(path)
                dataset = file.find(inside)
        except DatasetError as error:
            raise DatasetError(f"dataset {name!r}: {error}") from None
        if identity is not None and identity != dataset.identity:
            raise DatasetError(f"{path} was replaced or changed since dataset {name!r} was opened; open it again")
        try:
            yield dataset
        except DatasetError as error:
            if file.is_unchanged():
                raise DatasetError(f"dataset {name!r}: {error}") from None
        else:
            if file.is_unchanged():
                return
        self._drop(path)
        raise DatasetError(f"dataset {name!r}: {path} was changed while it was read; open it again")

    def _find_file(self, path: str) -> DataFile:
        """The open file, as it was opened; every now and then it is looked whether the path still leads to it."""
        file, now = self._files.get(path), self._clock()
        if file is not None:
            is_time = now >= self._looked.get(path, -math.inf) + LOOK_SECONDS
            if is_time:
                self._looked[path] = now
            # HDF5 must not read a file of which it remembers what is no longer so.
            if not file.is_unchanged() or (is_time and not file.is_current()):
                self._drop(path)
                file = None
        if file is None:
            while len(self._files) >= MOST_FILES:
                self._files.popitem(last=False)[1].close()
            file = self._files[path] = DataFile(path, self._allowed)
            self._looked[path] = now
        self._files.move_to_end(path)
        return file

    def _drop(self, path: str) -> None:
        self._files.pop(path).close()
        self._cache = ChunkCache()


def _declare(dataset: Dataset) -> dict[str, Any]:
    units = dataset.units if isinstance(dataset.units, str) else dict(dataset.units)
    return {
        "name": dataset.name,
        "path": dataset.path,
        "units": units,
        "description": dataset.description,
        "checksum": dataset.checksum,
        "license": dataset.license,
    }


# ---- checksums --------------------------------------------------------------------------------------------------


def count_slab_rows(shape: Sequence[int], item_bytes: int) -> int:
    """Rows of a slab: about `SLAB_BYTES`, at least one; a scalar is one row."""
    row_bytes = item_bytes * math.prod(shape[1:])
    return max(1, SLAB_BYTES // max(row_bytes, 1))


def count_slabs(shape: Sequence[int] | None, item_bytes: int) -> int:
    """Slabs of a dataset of this shape; `InvalidInput` where it has a type but no elements."""
    if shape is None:
        raise InvalidInput("a dataset that is empty has no checksum")
    return -(-shape[0] // count_slab_rows(shape, item_bytes)) if shape else 1


def digest_slab(dataset: DataSet, cache: ChunkCache, slab: int) -> bytes:
    """SHA-256 of the bytes of one slab, as h5py returns its rows."""
    shape, item_bytes = dataset.shape or (), dataset.dtype.itemsize
    axes: list[Span] = []
    if shape:
        rows = count_slab_rows(shape, item_bytes)
        first = slab * rows
        axes = [Span(first, 1, min(rows, shape[0] - first)), *(Span(0, 1, n) for n in shape[1:])]
    digest = hashlib.sha256()
    pieces = list(_cut_slab(axes, dataset.estimate_item_bytes()))
    if dataset.kind == "rows":
        for piece in pieces:
            values = dataset.read(Run(tuple(piece), 0, None, False), cache)
            digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
        return digest.digest()
    # The lengths of all stand before their bytes: where there are many, they are read once more rather than kept.
    for parts in [slice(None)] if len(pieces) == 1 else [slice(0, 1), slice(1, 2)]:
        for piece in pieces:
            for part in encode(dataset.read(Run(tuple(piece), 0, None, False), cache), dataset.kind)[parts]:
                digest.update(part.reshape(-1).view(np.uint8).data)
    return digest.digest()


def _cut_slab(axes: list[Span], item_bytes: int, at: int = 0) -> Iterator[list[Span]]:
    """Pieces of a slab in the order of its bytes: one row may be larger than a worker's memory."""
    inner = item_bytes * math.prod(axis.count for axis in axes[at + 1 :])
    if at >= len(axes) or inner * axes[at].count <= LARGE_BYTES:
        yield axes
        return
    step = max(1, LARGE_BYTES // inner)
    for start in range(0, axes[at].count, step):
        piece = axes[at].cut(start, min(step, axes[at].count - start))
        yield from _cut_slab([*axes[:at], piece, *axes[at + 1 :]], item_bytes, at + 1)


def combine_digests(shape: Sequence[int], dtype: Any, digests: Array) -> str:
    """The checksum of a dataset: of its shape, its dtype and the digests of its slabs."""
    head = json.dumps([list(shape), dtype])
    return "sha256:" + hashlib.sha256(head.encode() + digests.tobytes()).hexdigest()


def compute_checksum(
    path: str, progress: Callable[[int, int], object] | None = None, allowed: Sequence[str] = ()
) -> str:
    """The checksum of ``file.h5:/name/within``, computed here; ``allowed`` as in `DataFile`."""
    place, inside = split_path(path)
    with contextlib.closing(DataFile(place, allowed)) as file:
        dataset, cache = file.find(inside), ChunkCache(0)
        if dataset.shape is None:
            raise InvalidInput(f"{path} is empty: it has a type, but no elements, and so no checksum")
        n = count_slabs(dataset.shape, dataset.dtype.itemsize)
        digests = np.empty((n, 32), np.uint8)
        for slab in range(n):
            digests[slab] = np.frombuffer(digest_slab(dataset, cache, slab), np.uint8)
            if progress is not None:
                progress(slab + 1, n)
        if not file.is_unchanged():
            raise DatasetError(f"{place} was changed while it was read")
        return combine_digests(dataset.shape, describe_dtype(dataset.dtype), digests)
