"""The datasets of a model as its workers have them: files found, kept open, and looked at for changes."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .chunk_cache import ChunkCache
from .elements import encode
from .errors import BadFrame, DatasetError, InvalidInput
from .hdf5 import DataFile, DataSet, split_path
from .hdf5_format import describe_dtype
from .messages import Array, FloatArray
from .runs import Run, read_run
from .selection import Span
from .spec import Dataset
from .tables import Table, measure_table, read_table

#: Seconds after which it is looked at once more whether a path still leads to the same file.
LOOK_SECONDS = 1.0
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
        self._files: dict[str, DataFile] = {}
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
        if name is not None:
            return {"datasets": [self._describe(self._declared(name))]}
        described = []
        for dataset in self._datasets.values():
            try:
                described.append(self._describe(dataset))
            except DatasetError as error:
                described.append({**_declare(dataset), "problem": str(error)})
        return {"datasets": described}

    def read(self, question: Mapping[str, Any], lists: Sequence[Array], first: int, count: int) -> list[Array]:
        """The rows [first, first + count) of what is asked: bytes (count, row_bytes), or lengths and bytes.

        Raises
        ------
        InvalidInput, BadFrame
            Where it is asked for what is not there.
        DatasetError
            Where the file cannot be read, or is not the one that was described.
        """
        run = read_run(question, lists, first, count)
        file, dataset = self._open(question.get("dataset"), question.get("identity"))
        if dataset.kind != question.get("kind", "rows"):
            raise BadFrame(f"a question for {question.get('kind')} of a dataset of {dataset.kind}")
        room = None
        if dataset.kind == "rows":
            room = self._make_room(dataset.row_dtype(run.fields), run.counts)
        values = dataset.read(run, self._cache, room)
        if not file.is_unchanged():
            raise DatasetError(f"{file.path} was changed while it was read")
        if run.axis:
            values = np.ascontiguousarray(np.moveaxis(values, run.axis, 0))
        if dataset.kind != "rows":
            return encode(values, dataset.kind)
        return [np.ascontiguousarray(values).reshape(-1).view(np.uint8).reshape(count, -1)]

    def digest(self, question: Mapping[str, Any], first: int, count: int) -> list[Array]:
        """SHA-256 of the slabs [first, first + count) of a dataset, (count, 32) uint8."""
        file, dataset = self._open(question.get("dataset"), question.get("identity"))
        digests = np.empty((count, 32), np.uint8)
        for nth in range(count):
            digests[nth] = np.frombuffer(digest_slab(dataset, self._cache, first + nth), np.uint8)
        if not file.is_unchanged():
            raise DatasetError(f"{file.path} was changed while it was read")
        return [digests]

    def check(self, name: str, identity: str) -> None:
        """`DatasetError` where the file of a dataset is not, or no longer, the one that the caller means."""
        self._open(name, identity)

    def find_path(self, name: str) -> str:
        """Where a declared dataset is: ``/path/file.h5:/name/within``."""
        return self._declared(name).path

    def measure(self, name: str, identity: str, columns: Sequence[str] = ()) -> Table:
        """How many rows of numbers a dataset has, and how wide; see `tables.measure_table`."""
        _, dataset = self._open(name, identity)
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
        file, dataset = self._open(name, identity)
        values = read_table(dataset, name, columns, start, stop, self._cache)
        if not file.is_unchanged():
            raise DatasetError(f"{file.path} was changed while it was read")
        return values

    def _describe(self, declared: Dataset) -> dict[str, Any]:
        file, dataset = self._find(declared)
        return {
            **_declare(declared),
            **dataset.describe(),
            "identity": file.identity,
            "item_bytes": dataset.dtype.itemsize,
            "is_compressed": dataset.is_compressed,
        }

    def _declared(self, name: Any) -> Dataset:
        if not isinstance(name, str) or name not in self._datasets:
            there = ", ".join(self._datasets) or "none"
            raise InvalidInput(f"there is no dataset {name!r}; there are: {there}")
        return self._datasets[name]

    def _open(self, name: Any, identity: Any) -> tuple[DataFile, DataSet]:
        """The dataset of this name, in the file that the caller means."""
        file, dataset = self._find(self._declared(name))
        if identity != file.identity:
            raise DatasetError(f"{file.path} was replaced or changed since dataset {name!r} was opened; open it again")
        return file, dataset

    def _find(self, declared: Dataset) -> tuple[DataFile, DataSet]:
        path, inside = split_path(declared.path)
        file = self._files.get(path)
        now = self._clock()
        if file is not None and now >= self._looked[path] + LOOK_SECONDS and not file.is_current():
            del self._files[path]  # the path may lead nowhere for a while, and then back to the same file
            file.close()
            file = None
            self._cache = ChunkCache()
        if file is None:
            file = self._files[path] = DataFile(path, self._allowed)
            self._looked[path] = now
        elif now >= self._looked[path] + LOOK_SECONDS:
            self._looked[path] = now
        return file, file.find(inside)


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


def count_slabs(shape: Sequence[int], item_bytes: int) -> int:
    """Slabs of a dataset of this shape."""
    return -(-shape[0] // count_slab_rows(shape, item_bytes)) if shape else 1


def digest_slab(dataset: DataSet, cache: ChunkCache, slab: int) -> bytes:
    """SHA-256 of the bytes of one slab, as h5py returns its rows."""
    shape = dataset.shape
    if shape is None:
        raise InvalidInput("a dataset that is empty has no checksum")
    if not shape:
        run = Run((), 0, None, False)
    else:
        rows = count_slab_rows(shape, dataset.dtype.itemsize)
        if not 0 <= slab < count_slabs(shape, dataset.dtype.itemsize):
            raise InvalidInput(f"slab {slab} of {count_slabs(shape, dataset.dtype.itemsize)}")
        first = slab * rows
        spans = (Span(first, 1, min(rows, shape[0] - first)), *(Span(0, 1, n) for n in shape[1:]))
        run = Run(spans, 0, None, False)
    values = dataset.read(run, cache)
    parts = encode(values, dataset.kind) if dataset.kind != "rows" else [np.ascontiguousarray(values)]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.reshape(-1).view(np.uint8).data)
    return digest.digest()


def combine_digests(shape: Sequence[int], dtype: Any, digests: Array) -> str:
    """The checksum of a dataset: of its shape, its dtype (`hdf5.describe_dtype`) and the digests of its slabs."""
    head = json.dumps([list(shape), dtype])
    return "sha256:" + hashlib.sha256(head.encode() + digests.tobytes()).hexdigest()


def compute_checksum(path: str, progress: Callable[[int, int], object] | None = None) -> str:
    """The checksum of ``file.h5:/name/within``, computed here."""
    place, inside = split_path(path)
    file = DataFile(place)
    try:
        dataset, cache = file.find(inside), ChunkCache(0)
        if dataset.shape is None:
            raise InvalidInput(f"{path} is empty, and has no checksum")
        n = count_slabs(dataset.shape, dataset.dtype.itemsize)
        digests = np.empty((n, 32), np.uint8)
        for slab in range(n):
            digests[slab] = np.frombuffer(digest_slab(dataset, cache, slab), np.uint8)
            if progress is not None:
                progress(slab + 1, n)
        return combine_digests(dataset.shape, describe_dtype(dataset.dtype), digests)
    finally:
        file.close()
