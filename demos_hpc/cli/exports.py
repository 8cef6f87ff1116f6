"""Rows of a dataset written to files: .npy, .csv, .h5."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidInput, TooLarge
from ..future import Future
from ..hdf5_format import COUNTER
from ..host import find_free_memory
from ..messages import Array
from ..remote_data import RemoteDataset
from ..result_files import Contents, check_room
from ..selection import read_selection
from ..writing import Order, Written, write
from .arrays import check_apart, open_new, write_npy_header
from .brackets import Cutting
from .datasets import iterate_rows, name_columns, to_text
from .interruption import Progress

#: Bytes of a block that is read at a time, and how many are asked for ahead.
BLOCK_BYTES = 32 << 20
AHEAD = 2
#: Values that are written as text at a time: much less than a second.
TEXT_VALUES = 1 << 16
#: What Python has around a string or a list, in bytes.
OBJECT_BYTES = 64


class Picked:
    """What is to be read of a dataset: ``key`` as between brackets."""

    def __init__(self, dataset: RemoteDataset, key: Any, text: str) -> None:
        self.dataset = dataset
        self.text = text
        if dataset.shape is None:
            raise InvalidInput(f"dataset {dataset.name!r} is empty: it has a type, and no elements")
        self._selection = read_selection(key, dataset.shape, dataset.dtype.names, dataset.name)
        self.cutting = Cutting(key, dataset.shape)
        empty = np.asarray(dataset[self.cutting.cut(0, 0) if self.cutting.axis is not None else key])
        self.dtype = empty.dtype
        #: Of one row of the answer.
        self.width = empty.shape[1:] if self.cutting.axis is not None else empty.shape
        item_bytes = self.dtype.itemsize
        if self.dtype.hasobject:
            item_bytes = OBJECT_BYTES + int(dataset.described["typical_bytes"])
        row_bytes = max(item_bytes * math.prod(self.width), 1)
        chunk = dataset.chunks[self.cutting.axis] if dataset.chunks and self.cutting.axis is not None else 1
        self.block = max(chunk, BLOCK_BYTES // row_bytes // chunk * chunk)
        self.row_bytes = row_bytes

    def __len__(self) -> int:
        return len(self.cutting)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the answer."""
        return self.width if self.cutting.axis is None else (len(self), *self.width)

    @property
    def columns(self) -> list[str]:
        """Names of the columns of the answer's rows."""
        if self._selection.is_one_field and self._selection.fields:
            name = self._selection.fields[0]
            field = np.dtype([(name, self.dataset.dtype[name])])
            return name_columns(field, self.width[: len(self.width) - field[name].ndim], self.dataset.name)
        names = self._names_along_second_axis if self.cutting.axis == 0 else []
        return name_columns(self.dtype, self.width, self.dataset.name, names)

    def label(self, first: int, count: int) -> list[str]:
        """What rows of the answer are called: by their place in the dataset, or, if they are columns there, so."""
        if self.cutting.axis == 1 and (names := self._names_along_second_axis):
            return names[first : first + count]
        return [str(place) for place in self.cutting.label(first, count)]

    @property
    def _names_along_second_axis(self) -> list[str]:
        """Of a dataset with two axes, the names of those columns that were picked."""
        axes, shape = self.cutting.axes, self.dataset.shape
        if shape is None or len(shape) != 2 or isinstance(axes[1], int):
            return []
        names = np.asarray(self.dataset.attrs.get("columns", ()))
        if names.shape != shape[1:]:
            names = np.arange(shape[1])
        return [to_text(name) if isinstance(name, bytes) else str(name) for name in names[axes[1]].tolist()]

    def submit(self, first: int, count: int, progress: Progress | None = None) -> Future:
        """Asks for rows of the answer."""
        return self.dataset.submit(self.cutting.cut(first, count), progress=progress)

    def read(self, first: int, count: int) -> Array:
        """Rows of the answer, (count, ...)."""
        values: Any = self.submit(first, count).result()
        if self.cutting.axis is not None:
            return np.asarray(values)
        rows: Array = np.empty((1, *self.width), self.dtype)
        rows[0] = values
        return rows

    def read_all(self, progress: Progress) -> Array:
        """All rows of the answer, block by block."""
        n_bytes = self.row_bytes * len(self)
        if n_bytes > find_free_memory():  # taken bit by bit, until something else is killed for it
            raise TooLarge(f"there is no memory for {n_bytes} bytes: write them to a file (--out), or read fewer")
        rows: Array = np.empty((len(self), *self.width), self.dtype)
        done = 0
        for block in self.blocks(progress):
            rows[done : done + len(block)] = block
            done += len(block)
        return rows

    def blocks(self, progress: Progress) -> Iterator[Array]:
        """All rows, block by block, the next ones being on their way."""
        n = len(self)
        if self.cutting.axis is None:
            yield self.read(0, 1)
            return
        starts = iter(range(0, n, self.block))
        ahead = range(1 if self.dataset.is_direct else AHEAD)
        waiting = [self.submit(start, self.block) for _, start in zip(ahead, starts, strict=False)]
        done = 0
        while waiting:
            rows = np.asarray(waiting.pop(0).result())
            progress(done, n)
            waiting += [self.submit(start, self.block) for _, start in zip(range(1), starts, strict=False)]
            done += len(rows)
            yield rows
            progress(done, n)


def export(
    picked: Picked, path: Path, progress: Progress, tell: Callable[[str], object], *, overwrite: bool
) -> Written:
    """Writes what is picked to a file, which is there as a whole or not at all.

    Raises
    ------
    InvalidInput, DatasetError
        Where a file of this kind cannot hold it, or it cannot be written.
    """
    check_apart(path, picked.dataset.path)
    if path.suffix not in (".npy", ".csv"):
        return _write_hdf5(picked, path, progress, tell, overwrite=overwrite)
    is_text = path.suffix == ".csv"
    if not is_text:
        _check_fixed(picked, path)
    with open_new(path, overwrite=overwrite) as partial:
        (_write_csv if is_text else _write_npy)(picked, partial, progress)
    return Written(len(picked), 0, 0)


def _write_npy(picked: Picked, path: Path, progress: Progress) -> None:
    with path.open("wb") as file:
        check_room(path, picked.dtype.itemsize * math.prod(picked.shape))
        write_npy_header(file, picked.dtype, picked.shape)
        for rows in picked.blocks(progress):
            file.write(np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data)


def _write_csv(picked: Picked, path: Path, progress: Progress) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        columns, n, done = picked.columns, len(picked), 0
        writer.writerow(columns)
        step = max(1, TEXT_VALUES // max(len(columns), 1))
        for rows in picked.blocks(progress):
            for first in range(0, len(rows), step):
                some = rows[first : first + step]
                writer.writerows(iterate_rows(some))
                done += len(some)
                progress(done, n)


def _write_hdf5(
    picked: Picked, path: Path, progress: Progress, tell: Callable[[str], object], *, overwrite: bool
) -> Written:
    """In parts that are gone on with after an interruption, as results are."""
    _check_fixed(picked, path)
    dataset = picked.dataset
    facts = {"source": dataset.path, "identity": dataset.identity, "selection": picked.text}
    notes = {name: value for name, value in dataset.attrs.items() if name not in facts}
    if not (len(picked.cutting.axes) == 2 and picked.width == (dataset.shape or ())[1:]):
        notes.pop("columns", None)  # they may be others
    name = dataset.name if dataset.name != COUNTER else "data"
    contents = Contents(name, (len(picked), *picked.width), picked.dtype, facts, notes)

    def ask(first: int, count: int, note: Progress) -> Future:
        return picked.submit(first, count, note)

    order = Order(contents, ask, row_bytes=picked.row_bytes, step=picked.block)
    return write(path, order, overwrite=overwrite, progress=progress, tell=tell)


def _check_fixed(picked: Picked, path: Path) -> None:
    if picked.dtype.hasobject:
        raise InvalidInput(
            f"{path}: elements of dataset {picked.dataset.name!r} have no fixed size: write a .csv file, or use --json"
        )
