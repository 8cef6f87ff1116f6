"""A request's arrays checked against the model's spec, and cut into units of work.

Pure arithmetic: what the units are (`events`), which rows, cells and parameter points a run of units stands for.
The client checks the same things with better words before anything travels; this is for peers that did not.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field

from .blocks import count_blocks
from .errors import InvalidInput, NotOffered
from .messages import GRADIENTS, LIKELIHOODS, Flag, Operation
from .spec import ModelSpec
from .wire import FLOAT64, INLINE_BYTES, PIECE_BYTES, Header, Layout

#: Operations whose first array is x; those of the others is params.
_OF_X = frozenset(
    {
        Operation.LOG_DENSITY,
        Operation.LOG_DENSITY_GRADIENT,
        Operation.LOG_LIKELIHOOD,
        Operation.LOG_LIKELIHOOD_GRADIENT,
    }
)
#: Requests of at most this many rows, and with small answers, may share a chunk.
MERGED_ROWS = 64


@dataclass(frozen=True, eq=False)  # made once for each layout of requests, and compared as such
class Plan:
    """How one request is worked on.

    ``rows`` counts the whole request, ``part_rows`` those in its first frame; ``has_params`` is False where the
    server's own parameters are meant. ``unit_rows`` rows are one unit; of a likelihood the units are cells,
    ``points`` x ``n_blocks`` of them. A chunk that kills workers is cut into runs of ``block`` units.
    """

    operation: Operation
    rows: int
    part_rows: int
    unit_rows: int
    has_params: bool
    params_per_row: bool
    points: int
    n_blocks: int
    is_block_major: bool
    merges: bool
    block: int
    #: Bytes that one unit's answer takes.
    unit_bytes: int
    #: Shape of one row (or cell) of each array of the answer.
    widths: tuple[tuple[int, ...], ...]
    is_likelihood: bool = field(init=False)
    units: int = field(init=False)
    #: Units in the first frame.
    first_units: int = field(init=False)
    #: Cells in one row of cells (`blocks.limit_run`).
    period: int = field(init=False)
    #: Units that no chunk crosses: those of one arriving part, or as many as make a large answer.
    limit: int = field(init=False)

    def __post_init__(self) -> None:
        def fix(**values: int) -> None:
            for name, value in values.items():
                object.__setattr__(self, name, value)

        fix(is_likelihood=self.operation in LIKELIHOODS)
        cells = self.points * self.n_blocks
        fix(units=cells if self.is_likelihood else count_blocks(self.rows, self.unit_rows))
        fix(first_units=self.units_in(self.part_rows))
        period = self.points if self.is_block_major else self.n_blocks
        fix(period=period if self.is_likelihood else 1)
        most = max(1, PIECE_BYTES // max(self.unit_bytes, 1))
        fix(limit=self.first_units if self.part_rows < self.rows else most)

    @property
    def work(self) -> Hashable:
        """Requests whose units cost about the same."""
        return self.operation

    def units_in(self, rows: int) -> int:
        """Units in a part of ``rows`` rows."""
        return count_blocks(rows, self.unit_rows) * (self.points if self.is_likelihood else 1)

    def rows_of(self, first: int, count: int) -> tuple[int, int]:
        """The rows [start, stop) that the units [first, first + count) are, or need."""
        if self.is_likelihood:
            if self.is_block_major:
                start, stop = first // self.points, -(-(first + count) // self.points)
            elif count >= self.n_blocks:
                start, stop = 0, self.n_blocks
            else:
                start, stop = first % self.n_blocks, first % self.n_blocks + count
            first, count = start, stop - start
        return first * self.unit_rows, min((first + count) * self.unit_rows, self.rows)

    def points_of(self, first: int, count: int) -> tuple[int, int]:
        """The parameter points [start, stop) that the cells [first, first + count) need."""
        if not self.is_block_major:
            return first // self.n_blocks, -(-(first + count) // self.n_blocks)
        if count >= self.points:
            return 0, self.points
        return first % self.points, first % self.points + count

    def is_answer(self, rows: int, layout: Layout) -> bool:
        """Whether arrays of this layout are so many rows (or cells) of the answer."""
        shapes = tuple([(rows, *width) for width in self.widths])
        return layout.shapes == shapes and all(dtype is FLOAT64 for dtype in layout.dtypes)

    def merge_key(self, revision: int) -> Hashable:
        """Equal for requests that may share a chunk; None for one that may not."""
        if not self.merges:
            return None
        return self if self.has_params else (self, revision)


def make_plan(spec: ModelSpec, header: Header, layout: Layout) -> Plan:
    """The plan of a request; `InvalidInput` or `NotOffered` where it does not fit the model."""
    try:
        operation = Operation(header.operation)
    except ValueError:
        raise InvalidInput(f"operation {header.operation} is not known to this server") from None
    if not spec.offers(operation, wrt_x=bool(header.flags & Flag.WRT_X)):
        raise NotOffered(f"model {spec.name!r} does not offer {operation.title}; it has {', '.join(spec.operations)}")
    if header.n_rows == 0:
        raise InvalidInput("a request of no rows: its answer is an empty array, which needs no server")
    if any(dtype != FLOAT64 for dtype in layout.dtypes):
        raise InvalidInput(f"arrays of dtype {[str(d) for d in layout.dtypes]}; all are float64")
    x_shape, params_shape = _find_arrays(operation, layout.shapes)
    p, d = spec.n_params, spec.n_observables
    if x_shape is not None and (len(x_shape) != 2 or x_shape[1] != d):
        raise InvalidInput(f"x has shape {x_shape}; model {spec.name!r} takes (n, {d})")
    if params_shape is not None and (len(params_shape) not in (1, 2) or params_shape[-1] != p):
        raise InvalidInput(f"params has shape {params_shape}; {spec.describe_params()}")
    _check_params_rank(operation, x_shape, params_shape)
    rows = header.n_rows
    part_rows = rows
    if x_shape is not None:
        part_rows = x_shape[0]
    elif operation is Operation.EVALUATE and params_shape is not None:
        part_rows = params_shape[0]
    block = spec.block_rows
    blockwise = operation is Operation.SAMPLE or operation in LIKELIHOODS or not spec.row_independent
    unit_rows = block if blockwise else 1
    if not 0 < part_rows <= rows or (part_rows < rows and part_rows % unit_rows):
        raise InvalidInput(f"a first part of {part_rows} rows of {rows}; parts are whole blocks of {unit_rows}")
    is_likelihood = operation in LIKELIHOODS
    points = params_shape[0] if is_likelihood and params_shape else 1
    is_block_major = bool(header.flags & Flag.BLOCK_MAJOR)
    if part_rows < rows and is_likelihood and not is_block_major:
        raise InvalidInput("a likelihood whose rows come in parts is block-major (BLOCK_MAJOR)")
    columns = {Operation.SAMPLE: d, Operation.EVALUATE: spec.n_outputs}
    widths: tuple[tuple[int, ...], ...] = ((columns[operation],) if operation in columns else (),)
    if operation in GRADIENTS:
        is_of_x = header.flags & Flag.WRT_X and operation is Operation.LOG_DENSITY_GRADIENT
        widths = ((), (d if is_of_x else p,))
    width = sum(map(math.prod, widths))
    return Plan(
        operation=operation,
        rows=rows,
        part_rows=part_rows,
        unit_rows=unit_rows,
        has_params=params_shape is not None,
        params_per_row=_is_per_row(x_shape, params_shape) and not is_likelihood,
        points=points,
        n_blocks=count_blocks(rows, block),
        is_block_major=is_block_major,
        merges=not blockwise and part_rows == rows <= MERGED_ROWS and 8 * width * rows <= INLINE_BYTES // 2,
        unit_bytes=8 * width * (1 if is_likelihood else unit_rows),
        widths=widths,
        block=1 if blockwise or operation is Operation.EVALUATE else block,
    )


def _find_arrays(
    operation: Operation, shapes: tuple[tuple[int, ...], ...]
) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    """The shapes of x and of params, as far as this operation and this request have them."""
    least, most = (1, 2) if operation in _OF_X else (0, 1)
    if not least <= len(shapes) <= most:
        raise InvalidInput(f"{operation.title} with {len(shapes)} arrays; it has {least} or {most}")
    if operation in _OF_X:
        return shapes[0], shapes[1] if len(shapes) == 2 else None
    return None, shapes[0] if shapes else None


def _check_params_rank(
    operation: Operation, x_shape: tuple[int, ...] | None, params_shape: tuple[int, ...] | None
) -> None:
    if params_shape is None:
        return
    n_dims = len(params_shape)
    if operation in LIKELIHOODS or operation is Operation.EVALUATE:
        if n_dims != 2 or not params_shape[0]:
            raise InvalidInput(f"params has shape {params_shape}; {operation.title} takes (m, p), m > 0, on the wire")
    elif x_shape is None:
        if n_dims != 1:
            raise InvalidInput(f"params has shape {params_shape}; {operation.title} takes one point (p,)")
    elif n_dims == 2 and params_shape[0] != x_shape[0]:
        raise InvalidInput(f"params has {params_shape[0]} rows and x {x_shape[0]}; give one point (p,), or one per row")


def _is_per_row(x_shape: tuple[int, ...] | None, params_shape: tuple[int, ...] | None) -> bool:
    return x_shape is not None and params_shape is not None and len(params_shape) == 2
