"""Rows of numbers in files, read in parts: .npy, text, HDF5."""

from __future__ import annotations

import hashlib
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .chunk_cache import ChunkCache
from .errors import DatasetError, InvalidInput
from .messages import FloatArray
from .model_paths import DATA_FILES

#: Endings of files with numbers as text; in .csv there are commas between them, in others white space.
TEXT = (".csv", ".txt", ".dat")
#: Bytes that are read at a time, to make a digest.
READ_BYTES = 8 << 20
Progress = Callable[[int, int], object]


class Rows(ABC):
    """Rows (n, width) of numbers; they are read from the first to the last, or parts of them again."""

    shape: tuple[int, int]

    @abstractmethod
    def read(self, first: int, count: int) -> FloatArray:
        """``count`` rows from row ``first`` on, (count, width) float64, C-contiguous."""


class ArrayRows(Rows):
    """Rows that are an array, of any number type, in memory or mapped into it; ``name`` is for messages."""

    def __init__(self, array: Any, name: str) -> None:
        if array.ndim != 2 or array.dtype.kind not in "fiub":
            raise InvalidInput(f"{name} has shape {array.shape}, dtype {array.dtype}; it takes rows of numbers")
        self._array = array
        self.shape = array.shape

    def read(self, first: int, count: int) -> FloatArray:
        return np.ascontiguousarray(self._array[first : first + count], dtype=np.float64)


class DatasetRows(Rows):
    """Rows of a dataset in an HDF5 file; of a compound one the fields ``columns``."""

    def __init__(self, path: str, inside: str, columns: Sequence[str]) -> None:
        from .hdf5 import DataFile  # h5py takes its time
        from .tables import measure_table, read_table

        self._read_table = read_table
        self._file = DataFile(path)
        self._name = inside
        self._dataset = self._file.find(inside)
        self._columns = columns if self._dataset.dtype.names else ()
        table = measure_table(self._dataset, f"{path}:{inside}", self._columns)
        self.shape = (table.rows, table.width)
        self._cache = ChunkCache()

    def read(self, first: int, count: int) -> FloatArray:
        rows = self._read_table(self._dataset, self._name, self._columns, first, first + count, self._cache)
        if not self._file.is_unchanged():
            raise DatasetError(f"{self._file.path} was changed while it was read")
        return rows


class TextRows(Rows):
    """Rows of a text file; a first line of names is left out, and so are lines that begin with #."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._delimiter = "," if path.endswith(".csv") else None
        self._at = 0
        self._lines: Iterator[str] = iter(())
        n = width = 0
        for line in self._iterate():
            width = width or len(line.split(self._delimiter))
            n += 1
        self.shape = (n, width)

    def read(self, first: int, count: int) -> FloatArray:
        if first < self._at or not self._at:
            self._lines, self._at = self._iterate(), 0
        for _ in itertools.islice(self._lines, first - self._at):
            pass
        lines = list(itertools.islice(self._lines, count))
        self._at = first + count
        try:
            rows = np.loadtxt(lines, delimiter=self._delimiter, ndmin=2) if lines else np.empty((0, self.shape[1]))
        except ValueError as error:
            raise InvalidInput(f"{self._path} cannot be read, rows {first} to {first + count}: {error}") from None
        if rows.shape != (count, self.shape[1]):
            raise InvalidInput(
                f"{self._path}: rows {first} to {first + count} are {rows.shape}, not {self.shape[1]} wide"
            )
        return rows

    def _iterate(self) -> Iterator[str]:
        try:
            with open(self._path, encoding="utf-8") as file:
                for nth, line in enumerate(file):
                    words = line.lstrip("# ").split(self._delimiter) if nth == 0 else []
                    if line.strip() and not line.startswith("#") and not (words and not is_number(words[0])):
                        yield line
        except (OSError, ValueError) as error:
            raise InvalidInput(f"{self._path} cannot be read: {error}") from None


def is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def is_row_file(text: str) -> bool:
    """Whether this names a file that `open_rows` reads."""
    return text.endswith((".npy", *TEXT)) or find_data_file(text) is not None


def find_data_file(text: str) -> tuple[str, str] | None:
    """``file.h5:/name`` as file and name, the name being empty where there is none; None where it is no such file."""
    if text.endswith(DATA_FILES):
        return text, ""
    file, colon, inside = text.rpartition(":/")
    return (file, f"/{inside}") if colon and inside and file.endswith(DATA_FILES) else None


def open_rows(text: str, name: str, columns: Sequence[str]) -> Rows:
    """The rows of a file: .npy, .csv, .txt, .dat, ``file.h5`` with one table, ``file.h5:/name``.

    Plain numbers in a .npy file are a column where there is one of ``columns``, else one row.

    Raises
    ------
    InvalidInput, DatasetError
        Where they cannot be read, or are no rows of numbers.
    """
    found = find_data_file(text)
    if found is not None:
        path, inside = found
        if not Path(path).is_file():
            raise InvalidInput(f"{name}: there is no file {path!r} (from {Path.cwd()})")
        return DatasetRows(path, inside or _find_only(path), columns)
    if text.endswith(TEXT):
        return TextRows(text)
    try:
        array = np.load(text, mmap_mode="r", allow_pickle=False)
    except (OSError, TypeError, ValueError, EOFError) as error:
        raise InvalidInput(f"{name}: {text} cannot be read: {error}") from None
    if array.ndim == 1:
        array = array.reshape(-1, 1) if len(columns) == 1 else array.reshape(1, -1)
    return ArrayRows(array, f"{name}: {text}")


def _find_only(path: str) -> str:
    """The only dataset of a file that has rows."""
    from .hdf5 import DataFile

    file = DataFile(path)
    try:
        names = [name for name in file.list_names() if file.find(name).shape]
    finally:
        file.close()
    if len(names) != 1:
        have = f"has {', '.join(names)}: write {path}:{names[0]}" if names else "has no datasets with rows"
        raise InvalidInput(f"{path} {have}")
    return names[0]


def digest_rows(
    rows: Rows, progress: Progress = lambda done, total: None, look: Callable[[int, FloatArray], None] | None = None
) -> str:
    """``sha256:`` and 64 digits, of the shape and the numbers as float64; ``look(first, rows)`` sees all of them."""
    n, width = rows.shape
    digest = hashlib.sha256(json.dumps([n, width]).encode())
    step = max(1, READ_BYTES // max(8 * width, 1))
    for first in range(0, n, step):
        part = rows.read(first, min(step, n - first))
        digest.update(part.reshape(-1).view(np.uint8).data)
        if look is not None:
            look(first, part)
        progress(first + len(part), n)
    return f"sha256:{digest.hexdigest()}"
