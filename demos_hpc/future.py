"""The answer to a request, while it is on its way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from .errors import Cancelled, DemosError
from .messages import FloatArray
from .wire import Packed

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

    def __init__(self, parts: Iterator[tuple[int, Packed]], rows_sent: int, row_bytes: int, units_per_row: float) -> None:
        self.parts = parts
        self.rows_sent = rows_sent
        self.row_bytes = row_bytes
        #: How many rows (or cells) of the answer a row of the request has.
        self.units_per_row = units_per_row


class Future:
    """What ``submit`` returns; modeled on `concurrent.futures.Future`, for one thread.

    Nothing moves by itself: answers are taken in whenever the thread waits for any future of the same connection,
    or asks whether one is done. Small requests are on their way when ``submit`` returns; the rows of large ones
    travel while the thread waits.

    ``revision`` is that of the server-side parameters, and ``nonfinite_rows`` counts rows answered with nan or
    +inf; both are known when it is done. ``seed`` is that of a sample.
    """

    __slots__ = (
        "_callbacks", "_finish", "_waiter", "deadline", "error", "id", "is_done", "n_answered", "n_units",
        "nonfinite_rows", "out", "progress", "revision", "seed", "stream", "value", "widths",
    )  # fmt: skip

    def __init__(
        self,
        waiter: Waiter,
        id_: int,
        n_units: int,
        widths: tuple[tuple[int, ...], ...],
        finish: Finish,
        out: list[FloatArray] | None = None,
    ) -> None:
        self._waiter = waiter
        self._finish = finish
        self._callbacks: list[Callable[[Future], object]] = []
        self.id = id_
        #: Rows (or cells) of the whole answer, and the shape of one row of each of its arrays.
        self.n_units = n_units
        self.widths = widths
        self.out = out
        self.n_answered = 0
        self.deadline = 0.0
        self.stream: Stream | None = None
        self.progress: Callable[[int, int], object] | None = None
        self.is_done = False
        self.error: DemosError | None = None
        self.value: Any = None
        self.revision = 0
        self.nonfinite_rows = 0
        self.seed = 0

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
        self._waiter.wait_for(self, None if timeout is None else time.monotonic() + timeout)
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
        if self.is_done:
            function(self)
        else:
            self._callbacks.append(function)

    # ---- for the connection ---------------------------------------------------------------------------------

    def room(self) -> list[FloatArray]:
        """The arrays in which the answer is put together."""
        if self.out is None:
            self.out = [np.empty((self.n_units, *width)) for width in self.widths]
        return self.out

    def take(self, first: int, arrays: list[FloatArray]) -> None:
        """Rows ``first`` and on of the answer have come, of the right shapes."""
        count = len(arrays[0])
        self.n_answered += count
        if self.out is None and count == self.n_units:
            self.out = arrays
        else:
            for target, array in zip(self.room(), arrays, strict=True):
                target[first : first + count] = array
        if self.progress is not None:
            self.progress(self.n_answered, self.n_units)

    def settle(self, error: DemosError | None = None) -> None:
        """It is over, with an answer or an error."""
        self.is_done = True
        self.stream = None
        if error is None:
            self.value = self._finish(self.room())
        else:
            self.error = error
        self.out = None
        callbacks, self._callbacks = self._callbacks, []
        for function in callbacks:
            function(self)
