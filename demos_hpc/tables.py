"""Rows of numbers, as likelihoods take them, out of datasets of any numeric type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .chunk_cache import ChunkCache
from .datasets import DataSet
from .errors import InvalidInput
from .messages import FloatArray
from .runs import Run
from .selection import Span

#: Kinds of dtypes that become float64: floating point, integers, booleans.
NUMERIC = "fiub"


class Table(NamedTuple):
    """Rows of numbers: N, d, and how many rows a chunk has, 0 where the dataset is stored in one run."""

    rows: int
    width: int
    chunk_rows: int


def measure_table(dataset: DataSet, name: str, columns: Sequence[str] = ()) -> Table:
    """A dataset of shape (N, d) or (N,), or of a compound one of shape (N,) the fields ``columns``, as a table.

    Raises
    ------
    InvalidInput
        Where it is none.
    """
    shape, dtype = dataset.shape, dataset.dtype
    if dtype.names is not None:
        if not columns:
            raise InvalidInput(f"dataset {name!r} has fields: say which are the columns; {', '.join(dtype.names)}")
        for column in columns:
            if column not in dtype.names:
                raise InvalidInput(f"dataset {name!r} has no field {column!r}; it has {', '.join(dtype.names)}")
            if dtype[column].kind not in NUMERIC:
                raise InvalidInput(
                    f"dataset {name!r}: field {column!r} is of type {dtype[column]}; a column is numbers"
                )
    elif columns:
        raise InvalidInput(f"dataset {name!r} has no fields, such as {columns[0]!r}: its columns cannot be chosen")
    elif dtype.kind not in NUMERIC:
        raise InvalidInput(f"dataset {name!r} is of type {dtype}; rows are numbers")
    if not shape or len(shape) > 2 or (columns and len(shape) > 1):
        wanted = "(N,) where columns are fields" if columns else "(N, d) or (N,)"
        raise InvalidInput(f"dataset {name!r} has shape {shape}; rows of numbers have {wanted}")
    width = len(columns) or (shape[1] if len(shape) > 1 else 1)
    return Table(shape[0], width, dataset.chunks[0] if dataset.chunks else 0)


def read_table(
    dataset: DataSet, name: str, columns: Sequence[str], start: int, stop: int, cache: ChunkCache
) -> FloatArray:
    """Rows [start, stop) of such a table, (stop - start, d) float64, in memory of their own.

    Raises
    ------
    InvalidInput
        As `measure_table`, and where there are no such rows.
    DatasetError
        Where the file cannot give them.
    """
    table = measure_table(dataset, name, columns)
    if not 0 <= start <= stop <= table.rows:
        raise InvalidInput(f"rows {start} to {stop} of dataset {name!r}, which has {table.rows}")
    assert dataset.shape is not None
    spans = (Span(start, 1, stop - start), *(Span(0, 1, n) for n in dataset.shape[1:]))
    fields = tuple(dict.fromkeys(columns)) or None  # one field may be asked for twice
    # HDF5 could convert as well, but not every version of it rounds as NumPy does.
    values = dataset.read(Run(spans, 0, fields, False), cache)
    with np.errstate(all="ignore"):  # long doubles that are too large become infinite
        if not columns:
            return values.astype(np.float64, copy=False).reshape(stop - start, table.width)
        rows = np.empty((stop - start, table.width))
        for nth, column in enumerate(columns):
            rows[:, nth] = values[column]
    return rows
