"""One request as it passes through the dispatcher: its arrays, the chunks cut from them, and their results."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from .cache import Gathering
from .data_plan import DataPlan
from .errors import BadFrame, InvalidInput, Status
from .events import Part, SendPart
from .messages import Array, Failure, Flag, FloatArray, Kind, Operation, from_json
from .peers import Peer
from .plan import Plan
from .relay import pack_many, pass_on
from .resident_plan import ResidentPlan
from .transport import Link
from .wire import FLOAT64, Frame, Header, Packed, pack

_STATUSES = frozenset(Status)
_CHUNK, _REPLY, _FINAL = int(Kind.CHUNK), int(Kind.REPLY), int(Flag.FINAL)


class Call:
    """A request, from its first frame to its final reply.

    ``defaults`` are the server-side parameters (p,) where the request brings none.
    """

    __slots__ = (
        "_per_row", "_shared", "arrived", "before", "defaults", "first", "gathering", "id", "link", "model",
        "operation", "peer", "plan", "revision", "rows_here", "status",
    )  # fmt: skip

    def __init__(
        self,
        link: Link,
        frame: Frame,
        plan: Plan | DataPlan | ResidentPlan,
        defaults: FloatArray | None,
        revision: int,
        arrived: float = 0.0,
    ) -> None:
        self.link = link
        self.id = frame.header.id
        self.first = frame
        self.plan = plan
        self.defaults = defaults
        self.revision = revision
        self.rows_here = plan.part_rows
        #: Of whom and of what it is, when it came, and how it has ended.
        self.peer: Peer | None = None
        self.model = ""
        self.operation = frame.header.operation
        #: Of a sample, the draws that its seed names before the first that is wanted; answers count from there.
        self.before = 0
        if frame.header.first_row and self.operation == Operation.SAMPLE:
            assert isinstance(plan, Plan)
            self.before = _check_before(frame.header, plan.unit_rows)
        #: The answer on its way into the cache.
        self.gathering: Gathering | None = None
        self.arrived = arrived
        self.status = 0
        #: For each part that has arrived, its arrays with a row for each row; made when first needed.
        self._per_row: list[list[Array]] = []
        #: The parameters that all rows share: (p,), or (m, p) for a likelihood.
        self._shared: Array | None = None

    def add(self, frame: Frame) -> int:
        """A further part of a large request has come: returns how many units it has."""
        got, plan = frame.arrays, self.plan
        if not isinstance(plan, Plan):
            raise InvalidInput("a request for data is a single frame")
        self._open()
        rows = min(plan.part_rows, plan.rows - self.rows_here)
        shapes = [(rows, *array.shape[1:]) for array in self._per_row[0]]
        if not rows or frame.header.first_row != self.rows_here or [a.shape for a in got] != shapes:
            raise InvalidInput(
                f"a part from row {frame.header.first_row} with arrays {[a.shape for a in got]};"
                f" row {self.rows_here} with arrays {shapes} comes next"
            )
        if any(array.dtype != FLOAT64 for array in got):
            raise InvalidInput("a part whose arrays are not all float64")
        self._per_row.append(got)
        self.rows_here += rows
        return plan.units_in(rows)

    def _open(self) -> None:
        """Sorts the arrays of the first frame into those per row and the shared one."""
        if self._per_row:
            return
        plan, arrays = self.plan, list(self.first.arrays)
        assert isinstance(plan, Plan)
        if not plan.has_params:
            assert self.defaults is not None
            as_points = plan.is_likelihood or plan.operation is Operation.EVALUATE
            arrays.append(self.defaults[np.newaxis] if as_points else self.defaults)
        if not plan.params_per_row and plan.operation is not Operation.EVALUATE:
            self._shared = arrays.pop()
        self._per_row.append(arrays)

    def select(self, part: Part) -> tuple[int, int, list[Array]]:
        """What a worker needs for these units: first row (or cell), number of rows (or cells), arrays."""
        plan = self.plan
        if isinstance(plan, DataPlan):
            return plan.select(part.first, part.count)
        if isinstance(plan, ResidentPlan):
            return plan.select(part.first, part.count, self._find_points())
        self._open()
        start, stop = plan.rows_of(part.first, part.count)
        segment, offset = divmod(start, plan.part_rows)
        here = self._per_row[segment] if segment < len(self._per_row) else []  # samples have rows, but no arrays
        arrays = [array[offset : offset + stop - start] for array in here]
        if plan.is_likelihood:
            assert self._shared is not None
            points = slice(*plan.points_of(part.first, part.count))
            return part.first, part.count, [*arrays, self._shared[points]]
        if self._shared is not None:
            arrays.append(self._shared)
        return self.before + start, stop - start, arrays

    def _find_points(self) -> FloatArray:
        """The parameter points (m, p) of a likelihood of resident data."""
        if self.plan.has_params:
            return self.first.arrays[2]
        assert self.defaults is not None
        return self.defaults[np.newaxis]

    @property
    def n_bytes(self) -> int:
        """Bytes of the whole request, about."""
        return self.first.header.payload * self.plan.rows // self.plan.part_rows

    @property
    def is_small(self) -> bool:
        """Whether it can be passed on as it is: all of it in one buffer, parameters included, and rows its units.

        A likelihood's chunk counts cells, its request rows.
        """
        plan = self.plan
        if isinstance(plan, DataPlan):
            return False
        if isinstance(plan, ResidentPlan):
            return self.first.is_inline and plan.has_params
        return self.first.is_inline and plan.has_params and plan.part_rows == plan.rows and not plan.is_likelihood


class Batch:
    """A chunk: some units of one call, or several small calls merged."""

    __slots__ = ("calls", "first", "parts", "rows", "worker")

    def __init__(self, worker: Link, calls: list[Call], parts: list[Part]) -> None:
        self.worker = worker
        self.calls = calls
        self.parts = parts
        #: The first row (or cell) that the result must have, and how many.
        self.first = self.rows = 0

    def pack(self, chunk: int) -> Packed:
        """The CHUNK frame for the worker."""
        call, part = self.calls[0], self.parts[0]
        header = call.first.header
        if len(self.calls) > 1:
            arrays = self._merge()
            self.rows = len(arrays[0])
        elif call.is_small and part.count == call.plan.units:
            self.first, self.rows = call.before, header.n_rows
            first = self.first if header.first_row else None  # without a meaning but in samples
            revision = call.revision
            return pass_on(call.first, kind=_CHUNK, id=chunk, flags=header.flags, revision=revision, first_row=first)
        else:
            self.first, self.rows, arrays = call.select(part)
        return pack(
            _CHUNK,
            [np.ascontiguousarray(array) for array in arrays],
            operation=header.operation,
            flags=header.flags,
            model=header.model,
            id=chunk,
            first_row=self.first,
            n_rows=self.rows,
            revision=call.revision,
            seed=header.seed,
        )

    def _merge(self) -> list[Array]:
        """The arrays of several calls of equal layout, one behind the other."""
        plan, frame = self.calls[0].plan, self.calls[0].first
        layout = frame.layout
        assert isinstance(plan, Plan)
        merged: list[Array] = []
        for offset, shape in zip(layout.offsets, layout.shapes, strict=True):
            size = 8 * math.prod(shape)
            rows = len(self.calls) * (shape[0] if len(shape) == 2 else 1)
            data = bytearray().join(
                c.first.buffer[c.first.start + offset : c.first.start + offset + size] for c in self.calls
            )
            merged.append(np.frombuffer(data, FLOAT64).reshape(rows, shape[-1]))
        if not plan.has_params:
            assert self.calls[0].defaults is not None
            if plan.operation is Operation.EVALUATE:
                return [np.repeat(self.calls[0].defaults[np.newaxis], len(self.calls), axis=0)]
            return [*merged, self.calls[0].defaults]
        if not plan.params_per_row and plan.operation is not Operation.EVALUATE and plan.rows > 1:
            merged[1] = np.repeat(merged[1], plan.rows, axis=0)
        return merged

    def fits(self, result: Frame) -> bool:
        """Whether a result is what was asked for: the rows, or a reason why there are none."""
        header = result.header
        try:
            if not header.status:
                is_run = (header.first_row, header.n_rows) == (self.first, self.rows)
                return is_run and self.calls[0].plan.is_answer(self.rows, result.layout)
            if header.status == Status.CANCELLED:
                return all(call.status for call in self.calls)  # it was told so, since nobody waits any more
            return Failure.from_dict(from_json(result.arrays[0])).status == header.status in _STATUSES
        except (BadFrame, IndexError):
            return False

    def answer(self, result: Frame, wanted: Sequence[SendPart]) -> list[tuple[Link, Packed]]:
        """The REPLY messages for those of its parts that somebody waits for."""
        if len(self.calls) == 1:
            call, flags = self.calls[0], _FINAL if wanted[0].final else 0
            first = self.first - call.before if call.before else None
            reply = pass_on(result, kind=_REPLY, id=call.id, flags=flags, revision=call.revision, first_row=first)
            return [(call.link, reply)]
        return list(self._answer_all(result, wanted))

    def _answer_all(self, result: Frame, wanted: Sequence[SendPart]) -> Iterator[tuple[Link, Packed]]:
        rows = self.calls[0].plan.rows
        by_link: dict[Link, list[int]] = {}
        for send in wanted:
            by_link.setdefault(self.calls[send.index].link, []).append(send.index)
        for link, indices in by_link.items():
            arrays = result.arrays
            if len(indices) < len(self.calls):
                chosen = np.array(indices)
                rows_of = [a.reshape(len(self.calls), rows, *a.shape[1:]) for a in arrays]
                arrays = [a[chosen].reshape(-1, *a.shape[2:]) for a in rows_of]
            message = pack_many(
                [self.calls[i].id for i in indices],
                arrays,
                rows,
                kind=Kind.REPLY,
                operation=result.header.operation,
                flags=Flag.FINAL,
                model=result.header.model,
                revision=self.calls[0].revision,
                deadline_ms=result.header.deadline_ms,
                seed=result.header.seed // len(self.calls),
            )
            yield link, Packed(message, ())


def _check_before(header: Header, block_rows: int) -> int:
    """Where in the sequence of draws a sample begins."""
    first = header.first_row
    if first % block_rows or first + header.n_rows >= 2**63:
        raise InvalidInput(
            f"draws {first} to {first + header.n_rows}: a sample begins at a multiple of {block_rows} rows, its model's"
            " block, and ends before 2**63"
        )
    return first
