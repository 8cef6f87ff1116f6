"""Requests for data, checked and cut into units of work: the counterpart of `plan` for rows of a dataset.

A request has a question in JSON, the first row of each unit, and the list of indices where there is one. A unit goes
to a worker as it is; what is in it only the worker knows, who has the file.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from .errors import BadFrame, InvalidInput, NotOffered
from .messages import Array, Operation, from_json
from .selection import IndexArray
from .spec import ModelSpec
from .wire import DTYPES, Frame, Layout

_BYTES, _INT64 = DTYPES[7], DTYPES[3]
#: Bytes of a question, and units of a request.
MOST_QUESTION = 1 << 20
MOST_UNITS = 1 << 24
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
        return self.operation, self.question.get("dataset")

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
        if self.question.get("kind") in ("text", "lists"):
            is_ragged = len(layout.shapes) == 2 and layout.dtypes == (_INT64, _BYTES) and len(layout.shapes[1]) == 1
            return is_ragged and layout.shapes[0][:1] == (rows,)
        return layout.shapes == ((rows, self.question.get("row_bytes")),) and layout.dtypes[0] is _BYTES


def make_data_plan(spec: ModelSpec, frame: Frame) -> DataPlan:
    """The plan of a request for data; `InvalidInput`, `BadFrame` or `NotOffered` where it is none."""
    operation = Operation(frame.header.operation)
    if not spec.offers(operation):
        raise NotOffered(f"model {spec.name!r} does not offer {operation.title}; it has {', '.join(spec.operations)}")
    arrays = frame.arrays
    if not arrays or arrays[0].dtype != _BYTES or arrays[0].ndim != 1 or len(arrays[0]) > MOST_QUESTION:
        raise InvalidInput(f"{operation.title} is a question in JSON, of at most {MOST_QUESTION} bytes")
    question = from_json(arrays[0])
    if not isinstance(question, dict) or not isinstance(question.get("dataset", ""), str):
        raise BadFrame("a question for data is a JSON object, with the name of a dataset")
    bounds: IndexArray = np.array([0, frame.header.n_rows])
    if operation in _WHOLE:
        per_row = list(arrays[1:])
    else:
        if len(arrays) < 2 or arrays[1].dtype != _INT64 or arrays[1].ndim != 1:
            raise InvalidInput(f"{operation.title} without the first row of each unit, int64")
        bounds, per_row = arrays[1], list(arrays[2:])
    if not 2 <= len(bounds) <= MOST_UNITS or bounds[0] != 0 or not (np.diff(bounds) > 0).all():
        raise InvalidInput(f"{operation.title}: the first rows of units do not increase from 0")
    if bounds[-1] != frame.header.n_rows:
        raise InvalidInput(f"{operation.title} of {frame.header.n_rows} rows, cut into {bounds[-1]}")
    if any(array.shape[:1] != (bounds[-1],) for array in per_row) or len(per_row) > 1:
        raise InvalidInput(f"{operation.title}: arrays {[a.shape for a in per_row]} for {bounds[-1]} rows")
    return DataPlan(operation, question, arrays[0], per_row, bounds)
