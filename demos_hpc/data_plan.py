"""Requests for data, checked and cut into units of work: the counterpart of `plan` for rows of a dataset.

A request has a question in JSON, the first row of each unit, and the list of indices where there is one. A unit goes
to a worker as it is; what is in it only the worker knows, who has the file. What a worker answers is held against what
the request said that it would be, so a worker has to refuse a request that says something else than its file.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from .elements import RAGGED_BYTES
from .errors import BadFrame, InvalidInput, NotOffered, TooLarge
from .messages import Array, Operation, from_json
from .selection import MOST_UNIT_BYTES, IndexArray
from .spec import ModelSpec
from .wire import DTYPES, Frame, Layout

_BYTES, _INT64 = DTYPES[7], DTYPES[3]
#: Bytes of a question, which goes with every unit, and units of a request.
MOST_QUESTION = 1 << 17
MOST_UNITS = 1 << 24
#: Bytes of one digest, SHA-256.
DIGEST_BYTES = 32
#: Operations that one worker does as a whole, and answers in JSON.
_WHOLE = (Operation.DESCRIBE, Operation.UPLOAD)


@dataclass(frozen=True, eq=False)
class DataPlan:
    """How one request for data is worked on; members that `Plan` has as well mean the same."""

    operation: Operation
    question: Mapping[str, Any]
    #: The question as it came, and what there is for each row.
    asked: Array
    per_row: list[Array]
    #: The first row of each unit, then the number of rows.
    bounds: IndexArray
    #: Bytes of a row of the answer; None where rows have no fixed size, or the answer is JSON.
    row_bytes: int | None = None
    rows: int = field(init=False)
    part_rows: int = field(init=False)
    units: int = field(init=False)
    first_units: int = field(init=False)
    has_params: ClassVar[bool] = True
    params_per_row: ClassVar[bool] = False
    is_likelihood: ClassVar[bool] = False
    period: ClassVar[int] = 1
    limit: ClassVar[int] = 1
    block: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name, value in (("rows", int(self.bounds[-1])), ("units", len(self.bounds) - 1)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "part_rows", self.rows)
        object.__setattr__(self, "first_units", self.units)

    @property
    def work(self) -> Hashable:
        """Requests whose units cost about the same."""
        return self.operation, None if self.operation in _WHOLE else self.question["dataset"]

    def merge_key(self, revision: int) -> Hashable:
        return None

    def rows_of(self, first: int, count: int) -> tuple[int, int]:
        return int(self.bounds[first]), int(self.bounds[first + count])

    def select(self, first: int, count: int) -> tuple[int, int, list[Array]]:
        """What a worker needs for these units: first row, number of rows, arrays."""
        start, stop = self.rows_of(first, count)
        return start, stop - start, [self.asked, *(array[start:stop] for array in self.per_row)]

    def is_answer(self, rows: int, layout: Layout) -> bool:
        """Whether arrays of this layout are so many rows of the answer."""
        if self.operation in _WHOLE:
            return len(layout.shapes) == 1 and layout.dtypes[0] is _BYTES and len(layout.shapes[0]) == 1
        if self.row_bytes is None:
            is_ragged = len(layout.shapes) == 2 and layout.dtypes == (_INT64, _BYTES) and len(layout.shapes[1]) == 1
            return is_ragged and layout.shapes[0][:1] == (rows,)
        return layout.shapes == ((rows, self.row_bytes),) and layout.dtypes[0] is _BYTES


def make_data_plan(spec: ModelSpec, frame: Frame, max_bytes: int) -> DataPlan:
    """The plan of a request for data; ``max_bytes`` is what a request and its answer may have.

    Raises
    ------
    InvalidInput, BadFrame, NotOffered, TooLarge
        Where it is none.
    """
    operation = Operation(frame.header.operation)
    if operation is Operation.UPLOAD:
        spec.check_holding()
    if not spec.offers(operation):
        raise NotOffered(f"model {spec.name!r} does not offer {operation.title}; it has {', '.join(spec.operations)}")
    if frame.header.payload > max_bytes:
        raise TooLarge(f"{operation.title} with {frame.header.payload} bytes; this server takes {max_bytes}")
    arrays = frame.arrays
    if not arrays or arrays[0].dtype != _BYTES or arrays[0].ndim != 1 or len(arrays[0]) > MOST_QUESTION:
        raise InvalidInput(f"{operation.title} is a question in JSON, of at most {MOST_QUESTION} bytes")
    question = from_json(arrays[0])
    if not isinstance(question, dict):
        raise BadFrame(f"{operation.title} is a JSON object, not {type(question).__name__}")
    if operation is not Operation.UPLOAD:
        _check_dataset(spec, question.get("dataset"), operation)
    if operation in _WHOLE:
        bounds, per_row = _check_whole(operation, arrays, frame.header.n_rows)
        return DataPlan(operation, question, arrays[0], per_row, bounds)
    if len(arrays) < 2 or arrays[1].dtype != _INT64 or arrays[1].ndim != 1:
        raise InvalidInput(f"{operation.title} without the first row of each unit, int64")
    bounds, per_row = arrays[1], list(arrays[2:])
    # Differences would overflow.
    if not 2 <= len(bounds) <= MOST_UNITS or bounds[0] != 0 or not (bounds[1:] > bounds[:-1]).all():
        raise InvalidInput(f"{operation.title}: the first rows of units do not increase from 0")
    rows = int(bounds[-1])
    if rows != frame.header.n_rows:
        raise InvalidInput(f"{operation.title} of {frame.header.n_rows} rows, cut into {rows}")
    if len(per_row) > (operation is Operation.DATASET) or any(a.shape != (rows,) or a.dtype != _INT64 for a in per_row):
        raise InvalidInput(
            f"{operation.title} with {', '.join(f'{a.dtype} {a.shape}' for a in per_row)} for {rows} rows; there may be"
            " one list of indices, int64"
        )
    row_bytes = _find_row_bytes(operation, question)
    size = row_bytes or RAGGED_BYTES
    most = int(np.diff(bounds).max())
    if rows * size > max_bytes or most * size > MOST_UNIT_BYTES:
        raise TooLarge(
            f"{operation.title} of {rows} rows, {most} in a unit, of {size} bytes each; this server sends {max_bytes}"
            f" bytes, and {MOST_UNIT_BYTES} of one unit: ask for less at a time"
        )
    return DataPlan(operation, question, arrays[0], per_row, bounds, row_bytes)


def _check_dataset(spec: ModelSpec, name: Any, operation: Operation) -> None:
    names = [dataset.name for dataset in spec.datasets]
    if name not in names and not (name is None and operation is Operation.DESCRIBE):
        raise InvalidInput(f"model {spec.name!r} has no dataset {str(name)[:200]!r}; it has {', '.join(names)}")


def _check_whole(operation: Operation, arrays: list[Array], n_rows: int) -> tuple[IndexArray, list[Array]]:
    shapes = [array.shape for array in arrays]
    most = 2 if operation is Operation.UPLOAD else 1
    if len(arrays) > most or n_rows < 1 or any(shape[:1] != (n_rows,) for shape in shapes[1:] or [(1,)]):
        raise InvalidInput(f"{operation.title} of {n_rows} rows with arrays {shapes}")
    return np.array([0, n_rows], dtype=np.int64), list(arrays[1:])


def _find_row_bytes(operation: Operation, question: Mapping[str, Any]) -> int | None:
    """Bytes of each row of the answer; None where that is left open."""
    if operation is Operation.DIGEST:
        return DIGEST_BYTES
    kind, row_bytes = question.get("kind", "rows"), question.get("row_bytes")
    if kind in ("text", "lists"):
        return None
    if kind != "rows" or type(row_bytes) is not int or row_bytes < 1:
        raise InvalidInput(
            f"{operation.title} of kind {str(kind)[:20]!r} with rows of {str(row_bytes)[:20]} bytes; kinds are rows,"
            " with a size of 1 or more, text and lists"
        )
    return row_bytes
