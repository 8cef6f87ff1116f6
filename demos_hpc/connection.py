"""A client's end of a link: requests out, answers in. Its verbs mirror the dispatcher's."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

from .arguments import read_timeout
from .config import Config
from .errors import BadFrame, DeadlineExceeded, DemosError, InternalError, ServerLost
from .future import Finish, Future, Stream
from .messages import Array, Failure, Flag, FloatArray, Kind, Operation, from_json, to_json
from .transport import LONGEST_WAIT, Arrival, Link, Port
from .transport.buffers import Buffers
from .wire import Frame, Header, Layout, Packed, pack

#: Seconds past its deadline after which a request is given up without the server's word on it.
GRACE = 5.0
_LONGEST_DEADLINE_MS = 2**32 - 1
_REQUEST, _REPLY, _FINAL = int(Kind.REQUEST), int(Kind.REPLY), int(Flag.FINAL)


class Connection:
    """One link to a dispatcher; belongs to the thread that made it."""

    def __init__(self, port: Port, link: Link, config: Config) -> None:
        self._port = port
        self._link = link
        self._config = config
        self._owner = threading.get_ident()
        self._process = os.getpid()
        self._last_id = 0
        self._futures: dict[int, Future] = {}
        self._arrivals: deque[Arrival] = deque()
        self._streams: dict[int, Future] = {}
        self._lost: DemosError | None = None
        self._scratch = Buffers()
        port.place = self._place

    def __reduce__(self) -> NoReturn:
        raise TypeError("a connection, and what has one, can be neither pickled nor copied: connect once more")

    @property
    def is_ours(self) -> bool:
        """Whether this process made it, and is not a fork of the one that did."""
        return os.getpid() == self._process

    # ---- out ------------------------------------------------------------------------------------------------

    def start(
        self,
        operation: int,
        arrays: Sequence[Array],
        n_rows: int,
        n_units: int,
        widths: tuple[tuple[int, ...], ...],
        finish: Finish,
        *,
        model: int = 0,
        flags: int = 0,
        revision: int = 0,
        seed: int = 0,
        first_row: int = 0,
        timeout: Any = None,  # as the caller gave it
        out: list[FloatArray] | None = None,
        part_rows: int = 0,
        n_per_row: int = 0,
        make: Callable[..., Future] = Future,
    ) -> Future:
        """Sends a request of ``n_rows``; the answer has ``n_units`` rows (or cells) of shapes ``widths``.

        Where ``part_rows`` is given and less than ``n_rows``, the first ``n_per_row`` arrays travel in parts of so
        many rows. ``first_row`` is where a sample begins. ``make`` is the kind of future.
        """
        self._check_usable()
        seconds = self._config.timeout if timeout is None else read_timeout(timeout)
        number = self._last_id = self._last_id + 1
        cut = None
        if 0 < part_rows < n_rows:
            per_row, shared = arrays[:n_per_row], arrays[n_per_row:]
            cut = partial(_cut, number, per_row, n_rows, part_rows, n_units / n_rows, operation)
            arrays = [*(array[:part_rows] for array in per_row), *shared]
        packed = pack(
            _REQUEST,
            arrays,
            operation=operation,
            flags=flags,
            model=model,
            id=number,
            first_row=first_row,
            n_rows=n_rows,
            revision=revision,
            deadline_ms=_to_milliseconds(seconds),
            seed=seed,
        )
        self._transmit(packed)
        # The rest is done while the request is on its way.
        future = make(self, number, time.monotonic() + seconds, n_units, widths, finish, out)
        self._futures[number] = future
        self._enter(future, packed, cut)
        return future

    def ask(self, operation: Operation, question: dict[str, Any], **fields: int) -> Future:
        """Sends a question in JSON, whose answer is JSON or nothing."""
        self._check_usable()
        number = self._last_id = self._last_id + 1
        seconds = self._config.timeout
        future = Future(self, number, time.monotonic() + seconds, 0, (), _read_answer)
        self._futures[number] = future
        fields |= {"n_rows": 1, "deadline_ms": _to_milliseconds(seconds)}  # which counts where workers are asked
        packed = pack(Kind.REQUEST, [to_json(question)], operation=operation, id=number, **fields)
        self._transmit(packed)
        self._enter(future, packed, None)
        return future

    def _transmit(self, packed: Packed) -> None:
        """Sends the first frame of a request."""
        self._link.send(packed)

    def _enter(self, future: Future, packed: Packed, cut: Callable[[], Stream] | None) -> None:
        """A request is on its way; ``cut`` makes the parts behind its first frame."""
        if cut is not None:
            future.stream = cut()
            self._streams[future.id] = future

    def cancel(self, future: Future) -> None:
        self._check_usable()
        self._streams.pop(future.id, None)
        self._link.send(pack(Kind.CANCEL, id=future.id))

    def say_goodbye(self) -> None:
        """Tells the dispatcher that nothing more will come; whoever waits is told as well."""
        if self._lost is None:
            self._link.send(pack(Kind.GOODBYE))
            Connection._lose(self, ServerLost("this connection was closed"))

    def _push(self) -> None:
        """Sends what the window allows of large requests."""
        for future in list(self._streams.values()):
            stream = future.stream
            assert stream is not None
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
        if threading.get_ident() != self._owner or os.getpid() != self._process:
            self._check_usable()
        self._arrivals.extend(self._port.receive())
        is_any = bool(self._arrivals)
        while self._arrivals:  # one by one: what is called meanwhile may raise, or come here itself
            _, arrived = self._arrivals.popleft()
            if isinstance(arrived, Frame):
                self._take(arrived)
            else:
                self._lose(arrived)
        if self._streams:
            self._push()
        return is_any

    def wait_for(self, future: Future, limit: float | None) -> None:
        """Until the future is done, or ``limit`` on the monotonic clock."""
        # Of most questions the server heeds no deadline.
        end = future.deadline + (GRACE if future.widths else 0.0)
        while not future.is_done:
            if not self.progress():
                now = time.monotonic()
                if limit is not None and now >= limit:
                    return
                if now >= end:
                    self._settle(future, DeadlineExceeded(f"{future!r}: neither an answer in time nor a refusal"))
                    return
                until = end if limit is None else min(limit, end)
                self._pause(min(LONGEST_WAIT, until - now))

    def _pause(self, seconds: float) -> None:
        """Until something has come, at most so long."""
        self._port.wait(seconds)

    def _take(self, frame: Frame) -> None:
        header = frame.header
        future = self._futures.get(header.id)
        if future is None or header.kind != _REPLY:
            self._take_other(frame)
        elif header.status:
            self._settle(future, _read_failure(frame))
        else:
            try:
                self._accept(future, frame)
            except DemosError as error:
                self._settle(future, error)
                return
            # Outside of try: what the caller wants to have called may raise as well.
            if header.flags & _FINAL:
                future.revision = header.revision
                self._settle(future, None)
            if future.progress is not None:
                future.progress(future.n_answered, future.n_units)

    def _take_other(self, frame: Frame) -> None:
        """The end of the service, a complaint about the link as a whole, or a late answer."""
        header = frame.header
        if header.kind == Kind.END:
            self._lose(ServerLost("the server has ended"))
        elif header.kind == Kind.REPLY and header.status and not header.id:
            self._lose(_read_failure(frame))

    def _accept(self, future: Future, frame: Frame) -> None:
        """Puts rows of an answer in their place."""
        header, layout = frame.header, frame.layout
        first = header.first_row
        if not future.widths:
            future.out = frame.arrays
        elif not future.fits(first, layout.shapes, layout.dtypes):
            problem = f"rows {first} of {layout.shapes} instead of {future.n_units} of {future.widths}"
            raise InternalError(f"the server answered request {future.id} with {problem}")
        elif frame.is_inline:
            future.take(first, frame.arrays)
        else:
            future.take_placed(first, frame.arrays)
        future.nonfinite_rows += header.deadline_ms
        if header.flags & _FINAL and future.n_answered != future.n_units:
            rows = f"{future.n_answered} of {future.n_units} rows"
            raise InternalError(f"the server ended its answer to request {future.id} after {rows}")

    def _place(self, link: Link, header: Header, layout: Layout) -> list[Array]:
        """Large answers are received straight into the caller's arrays."""
        future, first = self._futures.get(header.id), header.first_row
        if future is None or header.status or not future.fits(first, layout.shapes, layout.dtypes):
            return self._scratch.place(link, header, layout)
        return future.place(first, layout)

    def _settle(self, future: Future, error: DemosError | None) -> None:
        del self._futures[future.id]
        self._streams.pop(future.id, None)
        future.settle(error)

    def _lose(self, error: DemosError) -> None:
        """Nothing will come any more."""
        self._lost = self._lost or error  # the first says why
        for future in list(self._futures.values()):
            self._settle(future, error)

    def _check_usable(self) -> None:
        if threading.get_ident() != self._owner:
            raise RuntimeError("this connection belongs to the thread that made it; connect once in each thread")
        if not self.is_ours:
            raise RuntimeError("this connection belongs to the process that made it, not to its forks")
        if self._lost is not None:
            raise type(self._lost)(str(self._lost))


def _to_milliseconds(seconds: float) -> int:
    """Until a deadline, as it travels."""
    return int(min(seconds * 1e3, _LONGEST_DEADLINE_MS - 1)) + 1


def _cut(
    id_: int, arrays: Sequence[Array], n_rows: int, part_rows: int, units_per_row: float, operation: int
) -> Stream:
    """The parts of a request behind its first frame."""

    def pack_part(start: int) -> tuple[int, Packed]:
        rows = min(part_rows, n_rows - start)
        part = [array[start : start + rows] for array in arrays]
        return rows, pack(Kind.ROWS, part, operation=operation, id=id_, first_row=start, n_rows=rows)

    row_bytes = sum(array.nbytes for array in arrays) // n_rows
    return Stream(map(pack_part, range(part_rows, n_rows, part_rows)), part_rows, row_bytes, units_per_row)


def _read_failure(frame: Frame) -> DemosError:
    try:
        return Failure.from_dict(from_json(frame.arrays[0])).to_exception()
    except (BadFrame, IndexError, ValueError, KeyError) as error:
        return InternalError(f"the server failed with status {frame.header.status} and without a reason: {error}")


def _read_answer(arrays: list[Any]) -> Any:
    return from_json(arrays[0]) if arrays else None
