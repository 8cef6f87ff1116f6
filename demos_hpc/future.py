"""The answer to a request, while it is on its way."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from .errors import Cancelled, DemosError, InvalidInput, TooLarge
from .messages import Array, FloatArray
from .wire import DTYPES, FLOAT64, Layout, Packed

#: The dtypes of an answer whose rows have no fixed size: lengths, bytes.
RAGGED = (DTYPES[3], DTYPES[7])
#: The pieces of an answer, put together as the caller wants them.
Finish = Callable[[list[FloatArray]], Any]


class Waiter(Protocol):
    """What a future asks of the connection that it belongs to."""

    def progress(self) -> bool: ...

    def wait_for(self, future: Future, limit: float | None) -> None: ...

    def cancel(self, future: Future) -> None: ...


class Stream:
    """The parts of a large request that are still to be sent, with the rows that each brings."""

    __slots__ = ("parts", "row_bytes", "rows_sent", "units_per_row")

    def __init__(
        self, parts: Iterator[tuple[int, Packed]], rows_sent: int, row_bytes: int, units_per_row: float
    ) -> None:
        self.parts = parts
        self.rows_sent = rows_sent
        self.row_bytes = row_bytes
        #: How many rows (or cells) of the answer a row of the request has.
        self.units_per_row = units_per_row


class Request:
    """A request as it was sent: its first frame, and how the parts behind it are made."""

    __slots__ = ("cut", "packed", "retries")

    def __init__(self, packed: Packed, cut: Callable[[], Stream] | None, retries: int) -> None:
        self.packed = packed
        self.cut = cut
        #: How often it may be tried again.
        self.retries = retries


class Future:
    """What ``submit`` returns; modeled on `concurrent.futures.Future`, for one thread.

    Nothing moves by itself: answers are taken in whenever the thread waits for any future of the same connection,
    or asks whether one is done. Small requests are on their way when ``submit`` returns; the rows of large ones
    travel while the thread waits.

    ``revision`` is that of the server-side parameters, and ``nonfinite_rows`` counts rows answered with nan or
    +inf; both are known when it is done. ``seed`` is that of a sample.
    """

    error: DemosError | None = None
    value: Any = None
    revision = 0
    nonfinite_rows = 0
    seed = 0
    is_done = False
    #: Rows (or cells) of the answer that have come.
    n_answered = 0
    #: Of all arrays of the answer.
    dtype: np.dtype[np.generic] = FLOAT64
    progress: Callable[[int, int], object] | None = None
    stream: Stream | None = None
    #: What to send once more, should that be necessary.
    request: Request | None = None
    _callbacks: tuple[Callable[[Future], object], ...] = ()

    def __init__(
        self,
        waiter: Waiter,
        id_: int,
        deadline: float,
        n_units: int,
        widths: tuple[tuple[int, ...], ...],
        finish: Finish,
        out: list[FloatArray] | None = None,
    ) -> None:
        self._waiter = waiter
        self.id = id_
        #: On the monotonic clock.
        self.deadline = deadline
        #: Rows (or cells) of the whole answer, and the shape of one row of each of its arrays.
        self.n_units = n_units
        self.widths = widths
        self._finish = finish
        self.out = out

    def __repr__(self) -> str:
        state = "done" if self.is_done else f"{self.n_answered} of {self.n_units} rows answered"
        return f"<Future {self.id}: {state}>"

    def done(self) -> bool:
        """Whether the answer, or an error, is there."""
        if not self.is_done:
            self._waiter.progress()
        return self.is_done

    def result(self, timeout: float | None = None) -> Any:
        """The answer; waits for it, at most ``timeout`` seconds.

        Raises
        ------
        TimeoutError
            If it is not there in time; the request goes on, and its result may be asked for again.
        DemosError
            What became of the request otherwise; `Cancelled` is also a `concurrent.futures.CancelledError`.
        """
        if not self.is_done:
            self._wait(timeout)
        if self.error is not None:
            raise self.error
        return self.value

    def exception(self, timeout: float | None = None) -> DemosError | None:
        """The error that the request ended with, or None; waits like `result`."""
        if not self.is_done:
            self._wait(timeout)
        return self.error

    def _wait(self, timeout: float | None) -> None:
        # Whatever kind of number it is; np.float32 and a float make an np.float32.
        self._waiter.wait_for(self, None if timeout is None else float(time.monotonic() + timeout))
        if not self.is_done:
            raise TimeoutError(f"no answer to request {self.id} within {timeout} s ({self!r})")

    def cancel(self) -> bool:
        """Asks the server to forget the request; False where it is done already."""
        if self.is_done:
            return False
        self._waiter.cancel(self)
        return True

    def cancelled(self) -> bool:
        return isinstance(self.error, Cancelled)

    def add_done_callback(self, function: Callable[[Future], object]) -> None:
        """Calls ``function(self)`` when done, in the thread that takes the answer in; at once if it is there."""
        if not callable(function):
            raise InvalidInput(f"{function!r} cannot be called")
        if self.is_done:
            self._call_back(function)
        else:
            self._callbacks = (*self._callbacks, function)

    # ---- for the connection ---------------------------------------------------------------------------------

    def room(self) -> list[FloatArray]:
        """The arrays in which the answer is put together."""
        if self.out is None:
            self.out = [np.empty((self.n_units, *width), self.dtype) for width in self.widths]
        return self.out

    def fits(self, first: int, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[np.dtype[np.generic]]) -> bool:
        """Whether arrays of these shapes are rows ``first`` and on of the answer."""
        if len(shapes) != len(self.widths) or not shapes[0]:
            return False
        count = shapes[0][0]
        for shape, width, dtype in zip(shapes, self.widths, dtypes, strict=True):
            if shape != (count, *width) or dtype is not self.dtype:
                return False
        return first + count <= self.n_units

    def place(self, first: int, layout: Layout) -> list[Array]:
        """Where rows ``first`` and on, of this layout, are to be received; `take_placed` follows."""
        return [array[first : first + shape[0]] for array, shape in zip(self.room(), layout.shapes, strict=True)]

    def take_placed(self, first: int, arrays: list[Array]) -> None:
        """Rows that `place` was asked about have come there."""
        self.n_answered += len(arrays[0])

    def take(self, first: int, arrays: list[FloatArray]) -> None:
        """Rows ``first`` and on of the answer have come."""
        count = len(arrays[0])
        if self.out is None and count == self.n_units:
            self.out = arrays
        else:
            for target, array in zip(self.room(), arrays, strict=True):
                target[first : first + count] = array
        self.n_answered += count

    def restart(self) -> None:
        """The answer comes once more, from its beginning."""
        self.n_answered = self.nonfinite_rows = 0

    def settle(self, error: DemosError | None = None) -> None:
        """It is over, with an answer or an error."""
        self.is_done = True
        self.error = error
        if error is None:
            try:
                self.value = self._finish(self.out if self.out is not None else self.room())
            except DemosError as problem:  # an answer that cannot be read
                self.error = problem
            except MemoryError:  # whoever waits, perhaps for another answer, is not to hear of it
                self.error = TooLarge("there is no memory to put the answer together: ask for less at a time")
        self.out = None
        for function in self._callbacks:
            self._call_back(function)

    def _call_back(self, function: Callable[[Future], object]) -> None:
        """As `concurrent.futures` does: an exception is shown, and harms nobody's answer."""
        try:
            function(self)
        except Exception:
            traceback.print_exc()


class BytesFuture(Future):
    """The answer to a request for bytes: each row has as many."""

    dtype = DTYPES[7]


class RaggedFuture(Future):
    """The answer to a request whose rows have no fixed size: arrays of their lengths, and of all their bytes.

    ``widths`` has the shape of the lengths of one row. ``finish`` is given the lengths of all rows, int64, and then
    the bytes, uint8, of each run of rows in order.
    """

    _runs: dict[int, list[Array]]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._runs = {}

    def place(self, first: int, layout: Layout) -> list[Array]:
        return [np.empty(shape, dtype) for shape, dtype in zip(layout.shapes, layout.dtypes, strict=True)]

    def fits(self, first: int, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[np.dtype[np.generic]]) -> bool:
        if tuple(dtypes) != RAGGED or not shapes[0] or len(shapes[1]) != 1:
            return False
        return shapes[0][1:] == self.widths[0] and first + shapes[0][0] <= self.n_units

    def take(self, first: int, arrays: list[Array]) -> None:
        self._runs[first] = arrays
        self.n_answered += len(arrays[0])

    take_placed = take

    def restart(self) -> None:
        super().restart()
        self._runs = {}

    def settle(self, error: DemosError | None = None) -> None:
        if error is not None:
            super().settle(error)
            return
        runs = [self._runs[first] for first in sorted(self._runs)]
        lengths = [run[0] for run in runs] or [np.zeros((0, *self.widths[0]), np.int64)]
        self.out, self._runs = [np.concatenate(lengths), *(run[1] for run in runs)], {}
        super().settle()
