"""Likelihoods of data that the workers hold, checked and cut into units of work: `plan` without the rows.

A unit is a cell: one group of blocks, one parameter point; cells stand group by group. A group is 2**k blocks in a
row, so that what a worker has added pairwise within it is a node of the tree in which all blocks are added: the sums
have the bits that they have where the rows travel.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import ClassVar, NamedTuple

import numpy as np

from .blocks import count_blocks
from .errors import InvalidInput, NotOffered
from .messages import GRADIENTS, Array, FloatArray, Operation
from .reference import Reference
from .spec import ModelSpec
from .wire import DTYPES, FLOAT64, PIECE_BYTES, Frame, Layout

_BYTES, _INT64 = DTYPES[7], DTYPES[3]
#: Rows that a group has at least, where there are enough of them for `MANY_GROUPS`; and groups that there are at most.
GROUP_ROWS = 1 << 16
MANY_GROUPS = 64
MOST_GROUPS = 4096
#: Rows that a group may have, unless there would be more than `MOST_GROUPS`: a worker does one without a pause.
MOST_GROUP_ROWS = 1 << 26
#: Bytes of a reference up to which it is worth being remembered.
SHORT_BYTES = 4096
#: No step between rows is longer: NumPy has 64 bits.
LONGEST_STEP = 1 << 62
#: Runs of rows that a dataset is placed by.
STRIPES = 4096


class Rows(NamedTuple):
    """The rows ``start``, ``start + step``, …, ``count`` of them, added in groups of ``group`` blocks."""

    start: int
    step: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs
    group: int

    @classmethod
    def of(cls, array: Array) -> Rows:
        return cls(*array.tolist())

    def to_array(self) -> Array:
        return np.array(self, dtype=np.int64)

    def count_groups(self, block_rows: int) -> int:
        return count_blocks(self.count, block_rows * self.group)

    def cut(self, first: int, stop: int, block_rows: int) -> Rows:
        """The groups [first, stop)."""
        rows = block_rows * self.group
        begin = first * rows
        return Rows(self.start + begin * self.step, self.step, min(stop * rows, self.count) - begin, self.group)


def choose_group(n_rows: int, block_rows: int) -> int:
    """Blocks of a group, a power of two."""
    n_blocks = count_blocks(n_rows, block_rows)
    group = 1
    while -(-n_blocks // group) > MOST_GROUPS or (
        group * block_rows < GROUP_ROWS and n_blocks // (2 * group) >= MANY_GROUPS
    ):
        group *= 2
    return group


@dataclass(frozen=True, eq=False)
class ResidentPlan:
    """How one request is worked on; members that `plan.Plan` has as well mean the same."""

    operation: Operation
    reference: Reference
    #: The reference as it came.
    asked: bytes
    span: Rows
    points: int
    has_params: bool
    block_rows: int
    widths: tuple[tuple[int, ...], ...]
    rows: int = field(init=False)
    part_rows: int = field(init=False)
    n_blocks: int = field(init=False)
    units: int = field(init=False)
    first_units: int = field(init=False)
    period: int = field(init=False)
    limit: int = field(init=False)
    params_per_row: ClassVar[bool] = False
    is_likelihood: ClassVar[bool] = True
    block: ClassVar[int] = 1

    def __post_init__(self) -> None:
        def fix(**values: int) -> None:
            for name, value in values.items():
                object.__setattr__(self, name, value)

        fix(rows=self.span.count, part_rows=self.span.count)
        #: Groups stand for the blocks of a request whose rows travel.
        fix(n_blocks=self.span.count_groups(self.block_rows), period=self.points)
        fix(units=self.n_blocks * self.points)
        fix(first_units=self.units, limit=max(1, PIECE_BYTES // (8 * sum(1 if not w else w[0] for w in self.widths))))

    @property
    def work(self) -> Hashable:
        """Requests whose units cost about the same."""
        return self.operation, self.asked, self.span.group

    def merge_key(self, revision: int) -> Hashable:
        return None

    def rows_of(self, first: int, count: int) -> tuple[int, int]:
        """The rows of the selection that these units need."""
        start, stop = first // self.points, -(-(first + count) // self.points)
        rows = self.block_rows * self.span.group
        return start * rows, min(stop * rows, self.rows)

    def select(self, first: int, count: int, points: FloatArray) -> tuple[int, int, list[Array]]:
        """What a worker needs for these units: first cell, number of cells, arrays."""
        start, stop = first // self.points, -(-(first + count) // self.points)
        chosen = points if count >= self.points else points[first % self.points : first % self.points + count]
        rows = self.span.cut(start, stop, self.block_rows)
        return first, count, [np.frombuffer(self.asked, np.uint8), rows.to_array(), chosen]

    def is_answer(self, rows: int, layout: Layout) -> bool:
        """Whether arrays of this layout are so many cells of the answer."""
        shapes = tuple([(rows, *width) for width in self.widths])
        return layout.shapes == shapes and all(dtype is FLOAT64 for dtype in layout.dtypes)

    @cached_property
    def edges(self) -> list[int]:
        """The first unit of each stripe of the dataset, then the number of units."""
        stripe_rows = -(-self.reference.rows // STRIPES)
        step = min(self.span.step * self.span.group * self.block_rows, LONGEST_STEP)
        stripes = np.arange(1, STRIPES + 1) * stripe_rows
        groups = np.clip(-((self.span.start - stripes) // step), 0, self.n_blocks)
        groups[-1] = self.n_blocks
        return [0, *(group * self.points for group in groups.tolist())]


def read_reference(data: bytes) -> Reference:
    """What `Reference.to_bytes` gave; most come again and again."""
    return _recall_reference(data) if len(data) <= SHORT_BYTES else Reference.from_bytes(data)


_recall_reference = lru_cache(maxsize=1024)(Reference.from_bytes)


def make_resident_plan(spec: ModelSpec, frame: Frame) -> ResidentPlan:
    """The plan of a likelihood of resident data; `InvalidInput`, `BadFrame` or `NotOffered` where it is none."""
    header, layout = frame.header, frame.layout
    operation = Operation(header.operation)
    if not spec.offers(operation):
        raise NotOffered(f"model {spec.name!r} does not offer {operation.title} of resident data")
    spec.check_holding()
    if not 2 <= len(layout.shapes) <= 3 or layout.dtypes[:2] != (_BYTES, _INT64):
        raise InvalidInput(f"{operation.title} of resident data has a reference, rows and perhaps params")
    p, arrays = spec.n_params, frame.arrays
    if len(layout.shapes[0]) != 1 or layout.shapes[1] != (4,):
        raise InvalidInput(f"{operation.title} of resident data with arrays {layout.shapes}")
    points = 1
    if len(layout.shapes) == 3:
        shape = layout.shapes[2]
        if len(shape) != 2 or shape[1] != p or not shape[0] or layout.dtypes[2] != FLOAT64:
            raise InvalidInput(
                f"params has shape {shape}; {operation.title} takes (m, {p}) float64, m > 0, on the wire"
            )
        points = shape[0]
    asked = arrays[0].tobytes()
    reference, span = read_reference(asked), Rows.of(arrays[1])
    if reference.width != spec.n_observables:
        raise InvalidInput(f"rows of {reference.width} columns; model {spec.name!r} takes {spec.n_observables}")
    last = span.start + span.step * (span.count - 1)
    if min(span.start, span.step - 1, span.count - 1) < 0 or last >= reference.rows:
        raise InvalidInput(f"{span} of {reference.rows} rows")
    n_blocks = count_blocks(span.count, spec.block_rows)
    most = max(MOST_GROUP_ROWS // spec.block_rows, choose_group(span.count, spec.block_rows))
    if not 1 <= span.group <= most or span.group & (span.group - 1) or n_blocks > span.group << 24:
        raise InvalidInput(f"groups of {span.group} blocks, of {n_blocks}; a group is a power of two, at most {most}")
    widths: tuple[tuple[int, ...], ...] = ((), (p,)) if operation in GRADIENTS else ((),)
    plan = ResidentPlan(operation, reference, asked, span, points, len(layout.shapes) == 3, spec.block_rows, widths)
    if header.n_rows != plan.units:
        raise InvalidInput(f"{header.n_rows} cells announced, {plan.units} found")
    return plan
