"""Rows asked for in parts and written to HDF5 files, in little memory, so that an interruption costs little."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import DemosError
from .future import Future
from .messages import Array
from .result_files import Contents, ResultFile, has_all, open_result

#: Bytes of a part at most, and how many parts are asked for at a time.
PART_BYTES = 32 << 20
AHEAD = 3
#: Seconds that a part should take: long beside the overhead of one, short beside what may be lost.
PART_SECONDS = 2.0
Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Order:
    """Rows that are to be written.

    Parameters
    ----------
    contents
        What they are, and what is said of them.
    submit
        Asks for ``count`` rows from row ``first`` on: ``submit(first, count, progress)``.
    arrange
        Makes a future's result into an array that has the elements of these rows.
    step
        Parts begin at multiples of so many rows.
    row_bytes, part_bytes
        What a row takes in memory, with what is sent to ask for it, and a part at most.
    workers
        How many work on it.
    """

    contents: Contents
    submit: Callable[[int, int, Progress], Future]
    arrange: Callable[[Any], Array] = np.asarray
    step: int = 1
    row_bytes: int = 8
    part_bytes: int = PART_BYTES
    workers: int = 1


@dataclass(frozen=True)
class Written:
    """What has become of an order: ``resumed_at`` is the row at which a file was gone on with, 0 where it was begun.

    It is ``rows`` where the file was complete already.
    """

    rows: int
    resumed_at: int
    #: Rows with nan or +inf among those that were computed now.
    nonfinite_rows: int
    was_complete: bool = False


def write(
    path: Path,
    order: Order,
    *,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
    tell: Callable[[str], object] = lambda text: None,
    clock: Callable[[], float] = time.monotonic,
) -> Written:
    """Writes a file of these rows, or goes on with the one that was begun; one that is complete stays as it is.

    Parameters
    ----------
    overwrite
        Takes the place of a file of this name, and of one that was begun with something else.
    progress
        Is told ``(done, total)`` in rows.
    tell
        Hears in one line that a file is gone on with, or may be, or that there is nothing to do.

    Raises
    ------
    InvalidInput
        Where there is a file of this name that has, or was begun with, something else, or that another process writes.
    DatasetError
        Where there is no room for it, or it cannot be written.
    """
    rows = order.contents.rows
    if not overwrite and has_all(path, order.contents):
        tell(f"{path} is complete already, {rows} rows of the very same: nothing to do (--overwrite begins anew)")
        return Written(rows, rows, 0, was_complete=True)
    with open_result(path, order.contents, overwrite=overwrite) as file:
        resumed_at = file.written
        if resumed_at:
            tell(f"{file.partial} has {resumed_at} of {rows} rows: going on")
        try:
            file.check_room()
            nonfinite = _fill(file, order, progress, clock)
        except BaseException:
            if file.written:
                tell(f"{file.partial} has {file.written} of {rows} rows: the same again goes on with it")
            else:
                file.discard()
            raise
        file.finish(overwrite=overwrite)
    return Written(rows, resumed_at, nonfinite)


def _fill(file: ResultFile, order: Order, progress: Progress, clock: Callable[[], float]) -> int:
    """Asks for all rows that lack, and writes them as they come; returns how many are nan or +inf."""
    n_rows, *width = order.contents.shape
    pace = Pace(order)
    under_way: deque[tuple[int, int, Future]] = deque()
    #: Rows of each part that have come and are not written yet.
    arrived: dict[int, int] = {}
    nonfinite, begin, last = 0, file.written, clock()

    def show() -> None:
        progress(file.written + sum(arrived.values()), n_rows)

    def ask(first: int, count: int) -> Future:
        def note(done: int, total: int) -> None:
            arrived[first] = done * count // max(total, 1)
            show()

        return order.submit(first, count, note)

    show()
    try:
        while begin < n_rows or under_way:
            while begin < n_rows and len(under_way) < AHEAD:
                count = min(pace.rows, n_rows - begin)
                under_way.append((begin, count, ask(begin, count)))
                begin += count
            first, count, future = under_way[0]
            rows = order.arrange(future.result())
            under_way.popleft()
            file.add(rows.reshape(count, *width))
            arrived.pop(first, None)
            nonfinite += future.nonfinite_rows
            show()
            now = clock()
            pace.note(count, now - last)
            last = now
    finally:
        for _, _, future in under_way:
            with contextlib.suppress(DemosError, RuntimeError):
                future.cancel()
    return nonfinite


class Pace:
    """How many rows a part has: enough for all workers, no more than fit, and about `PART_SECONDS` long."""

    def __init__(self, order: Order) -> None:
        self._step = order.step
        self._most = max(order.step, order.part_bytes // max(order.row_bytes, 1) // order.step * order.step)
        self._least = min(order.step * max(order.workers, 1), self._most)
        self.rows = self._least

    def note(self, count: int, seconds: float) -> None:
        """A part of so many rows was there so long after the one before it."""
        if seconds < PART_SECONDS / 2 and count == self.rows:
            self.rows = min(2 * self.rows, self._most)
        elif seconds > 4 * PART_SECONDS:
            self.rows = max(self.rows // 2 // self._step * self._step, self._least)
