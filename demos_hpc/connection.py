"""A client's end of a link: requests out, answers in. Its verbs mirror the dispatcher's."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from .config import Config
from .errors import BadFrame, DeadlineExceeded, DemosError, InternalError, ServerLost, TooLarge
from .future import Finish, Future, Stream
from .messages import Array, Failure, Flag, FloatArray, Kind, Operation, from_json, to_json
from .plan import FLOAT64
from .transport import Link, Port
from .transport.buffers import Buffers
from .wire import Frame, Header, Layout, pack

#: Longest sleep between two looks, seconds; a ring ends it at once.
LONGEST_WAIT = 1.0
#: Seconds past its deadline after which a request is given up without the server's word on it.
GRACE = 5.0
_LONGEST_DEADLINE_MS = 2**32 - 1


class Connection:
    """One link to a dispatcher; belongs to the thread that made it."""

    def __init__(self, port: Port, link: Link, config: Config) -> None:
        self._port = port
        self._link = link
        self._config = config
        self._thread = threading.get_ident()
        self._ids = itertools.count(1)
        self._futures: dict[int, Future] = {}
        self._streams: dict[int, Future] = {}
        self._lost: DemosError | None = None
        self._scratch = Buffers()
        port.place = self._place

    # ---- out ------------------------------------------------------------------------------------------------

    def start(
        self,
        operation: Operation,
        arrays: Sequence[Array],
        n_rows: int,
        widths: tuple[tuple[int, ...], ...],
        finish: Finish,
        *,
        model: int = 0,
        n_units: int | None = None,
        flags: int = 0,
        revision: int = 0,
        seed: int = 0,
        timeout: float | None = None,
        out: list[FloatArray] | None = None,
        progress: Callable[[int, int], object] | None = None,
        part_rows: int = 0,
        n_per_row: int = 0,
        max_bytes: int = 2**63,
    ) -> Future:
        """Sends a request; the answer has ``n_units`` rows (``n_rows`` if not given) of shapes ``widths``.

        Where ``part_rows`` is less than ``n_rows``, the first ``n_per_row`` arrays travel in parts of so many rows.
        """
        self._check_usable()
        size = sum(array.nbytes for array in arrays)
        if size > max_bytes:
            raise TooLarge(f"a request of {size} bytes; this server takes {max_bytes}: split the request")
        seconds = self._config.timeout if timeout is None else timeout
        number = next(self._ids)
        future = Future(self, number, n_rows if n_units is None else n_units, widths, finish, out)
        future.progress = progress
        future.deadline = time.monotonic() + seconds
        if 0 < part_rows < n_rows:
            per_row, shared = arrays[:n_per_row], arrays[n_per_row:]
            future.stream = self._cut(future, per_row, n_rows, part_rows, operation=operation, model=model)
            self._streams[number] = future
            arrays = [*(array[:part_rows] for array in per_row), *shared]
        self._futures[number] = future
        self._link.send(
            pack(
                Kind.REQUEST,
                arrays,
                operation=operation,
                flags=flags,
                model=model,
                id=number,
                n_rows=n_rows,
                revision=revision,
                deadline_ms=max(1, min(math.ceil(seconds * 1e3), _LONGEST_DEADLINE_MS)),
                seed=seed,
            )
        )
        return future

    def ask(self, operation: Operation, question: dict[str, Any], **fields: int) -> Future:
        """Sends a question in JSON, whose answer is JSON or nothing."""
        self._check_usable()
        number = next(self._ids)
        future = Future(self, number, 0, (), _read_answer)
        future.deadline = time.monotonic() + self._config.timeout
        self._futures[number] = future
        self._link.send(pack(Kind.REQUEST, [to_json(question)], operation=operation, id=number, n_rows=1, **fields))
        return future

    def cancel(self, future: Future) -> None:
        self._check_usable()
        self._streams.pop(future.id, None)
        self._link.send(pack(Kind.CANCEL, id=future.id))

    def say_goodbye(self) -> None:
        """Tells the dispatcher that nothing more will come; whoever waits is told as well."""
        if self._lost is None:
            self._link.send(pack(Kind.GOODBYE))
            self._lose(ServerLost("this connection was closed"))

    def _cut(
        self, future: Future, arrays: Sequence[Array], n_rows: int, part_rows: int, **fields: int
    ) -> Stream:
        starts = range(part_rows, n_rows, part_rows)
        parts = (
            (
                min(part_rows, n_rows - start),
                pack(
                    Kind.ROWS,
                    [array[start : start + part_rows] for array in arrays],
                    id=future.id,
                    first_row=start,
                    n_rows=min(part_rows, n_rows - start),
                    **fields,
                ),
            )
            for start in starts
        )
        row_bytes = sum(array.nbytes for array in arrays) // n_rows
        return Stream(parts, part_rows, row_bytes, future.n_units / n_rows)

    def _push(self) -> None:
        """Sends what the window allows of large requests."""
        for future in list(self._streams.values()):
            stream = future.stream
            if stream is None:
                self._streams.pop(future.id, None)
                continue
            rows_answered = future.n_answered / stream.units_per_row
            while (stream.rows_sent - rows_answered) * stream.row_bytes < self._config.window_bytes:
                rows, packed = next(stream.parts, (0, None))
                if packed is None:
                    del self._streams[future.id]
                    break
                self._link.send(packed)
                stream.rows_sent += rows

    # ---- in -------------------------------------------------------------------------------------------------

    def progress(self) -> bool:
        """Takes in what has arrived and sends on what may be; whether anything had arrived."""
        if threading.get_ident() != self._thread:
            self._check_usable()
        arrivals = self._port.receive()
        for _, arrived in arrivals:
            if isinstance(arrived, Frame):
                self._take(arrived)
            else:
                self._lose(arrived)
        if self._streams:
            self._push()
        return bool(arrivals)

    def wait_for(self, future: Future, limit: float | None) -> None:
        """Until the future is done, or ``limit`` on the monotonic clock."""
        if future.stream is not None:
            self._push()
        while not future.is_done:
            if not self.progress():
                now = time.monotonic()
                if limit is not None and now >= limit:
                    return
                if now >= future.deadline + GRACE:
                    self._settle(future, DeadlineExceeded(f"{future!r}: neither an answer in time nor a refusal"))
                    return
                until = future.deadline + GRACE if limit is None else min(limit, future.deadline + GRACE)
                self._port.wait(min(LONGEST_WAIT, until - now))

    def _take(self, frame: Frame) -> None:
        header = frame.header
        if header.kind == Kind.END:
            self._lose(ServerLost("the server has ended"))
            return
        future = self._futures.get(header.id)
        if header.kind != Kind.REPLY or future is None:
            if header.status and header.id == 0:
                self._lose(_read_failure(frame))
            return  # late: the request was given up
        if header.status:
            self._settle(future, _read_failure(frame))
            return
        arrays = frame.arrays
        if future.widths:
            if not _fits(future, header, [a.shape for a in arrays], [a.dtype for a in arrays]):
                problem = f"rows {header.first_row} of {[a.shape for a in arrays]}, for {future.n_units} of {future.widths}"
                self._settle(future, InternalError(f"the server answered request {future.id} with {problem}"))
                return
            if frame.is_inline:
                future.take(header.first_row, arrays)
            else:
                future.n_answered += len(arrays[0])  # received in place
                if future.progress is not None:
                    future.progress(future.n_answered, future.n_units)
        else:
            future.out = list(arrays)
        future.nonfinite_rows += header.deadline_ms
        if header.flags & Flag.FINAL:
            future.revision = header.revision
            self._settle(future, None)

    def _place(self, link: Link, header: Header, layout: Layout) -> list[Array]:
        """Large answers are received straight into the caller's arrays."""
        future = self._futures.get(header.id)
        if future is None or header.status or not _fits(future, header, layout.shapes, layout.dtypes):
            return self._scratch.place(link, header, layout)
        first = header.first_row
        return [array[first : first + shape[0]] for array, shape in zip(future.room(), layout.shapes, strict=True)]

    def _settle(self, future: Future, error: DemosError | None) -> None:
        del self._futures[future.id]
        self._streams.pop(future.id, None)
        future.settle(error)

    def _lose(self, error: DemosError) -> None:
        """Nothing will come any more."""
        self._lost = error
        for future in list(self._futures.values()):
            self._settle(future, error)

    def _check_usable(self) -> None:
        if threading.get_ident() != self._thread:
            raise RuntimeError("this connection belongs to the thread that made it; connect once in each thread")
        if self._lost is not None:
            raise type(self._lost)(str(self._lost))


def _fits(future: Future, header: Header, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[Any]) -> bool:
    first, widths = header.first_row, future.widths
    if len(shapes) != len(widths) or not shapes[0]:
        return False
    count = shapes[0][0]
    return (
        first + count <= future.n_units
        and all(shape == (count, *width) for shape, width in zip(shapes, widths, strict=True))
        and all(dtype == FLOAT64 for dtype in dtypes)
    )


def _read_failure(frame: Frame) -> DemosError:
    try:
        return Failure.from_dict(from_json(frame.arrays[0])).to_exception()
    except (BadFrame, IndexError, ValueError, KeyError) as error:
        return InternalError(f"the server failed with status {frame.header.status} and without a reason: {error}")


def _read_answer(arrays: list[Any]) -> Any:
    return from_json(arrays[0]) if arrays else None


