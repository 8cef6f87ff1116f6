"""What a worker holds of the data that likelihoods are about, within a budget; what it lacks it reads.

Rows come from memory where they are there, and otherwise from their file: the same rows, only later. So it does not
matter to an answer which worker gives it, nor what that worker holds.
"""

from __future__ import annotations

import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import InvalidInput
from .host import find_free_memory, is_usable
from .messages import FloatArray
from .reference import Reference
from .segments import Segment, choose_slab_rows, count_held_bytes, sweep
from .uploads import check_upload, keep_upload, read_upload

if TYPE_CHECKING:
    from .library import Library

#: Where processes of a host share memory.
SHARED_MEMORY = Path("/dev/shm")
#: Datasets that a process holds at a time; each takes two descriptors.
MOST_DATASETS = 64
#: Seconds between looks at what others have filled of what is held here.
COUNT_SECONDS = 1.0
#: Seconds until memory is asked for again where there was none.
FULL_SECONDS = 1.0
#: Bytes that are taken before it is looked again how much memory is free; and what is left to others.
LOOK_BYTES = 64 << 20
RESERVE_BYTES = 256 << 20
#: Seconds after which it is said once more that an upload is in use: long beside a call, short beside what is kept.
USED_SECONDS = 3600.0
Rows = tuple[FloatArray, FloatArray | None]


class Residents:
    """Rows of references, held in memory that the workers of this user on this host share.

    Parameters
    ----------
    library, spool
        Where datasets and uploads are read.
    budget_bytes
        Memory that all rows together may take on this host; 0 for half of what is free.
    directory
        A file system in memory; where it cannot be used, rows are held in memory of this process.
    """

    def __init__(
        self,
        library: Library,
        spool: Path,
        budget_bytes: int,
        directory: Path = SHARED_MEMORY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._library = library
        self._spool = spool
        self._clock = clock
        self._directory = directory if is_usable(directory) else None
        if self._directory is not None:
            sweep(self._directory)
        self.budget_bytes = budget_bytes or choose_budget(self._directory)
        #: The one that was used last stands last.
        self._segments: OrderedDict[Reference, Segment] = OrderedDict()
        #: When it was last said of each that it is in use, if it is an upload.
        self._used: dict[Reference, float] = {}
        self._full_until = self._count_at = -math.inf
        #: Bytes that may be taken without another look at the host's memory.
        self._promised = 0
        self._slabs_read = self._slabs_not_kept = 0

    def close(self) -> None:
        """Lets go of all rows; arrays that were given away stay as they are."""
        while self._let_go(None):
            pass

    def statistics(self) -> dict[str, int]:
        """What is held, and what was read."""
        return {
            "datasets": len(self._segments),
            "held_bytes": self._count_held(),
            "budget_bytes": self.budget_bytes,
            "slabs_read": self._slabs_read,
            "slabs_not_kept": self._slabs_not_kept,
        }

    def rows(self, reference: Reference, start: int, stop: int, step: int = 1) -> Rows:
        """The rows ``start:stop:step`` of all that ``reference`` means, and their weights.

        Returns
        -------
        tuple
            x (k, d) and weights (k,) or None, float64, C-contiguous, read-only: a view of the memory that holds them
            where ``step`` is 1 and they are all there, else copies.

        Raises
        ------
        InvalidInput
            Where there are no such rows.
        DatasetError
            Where the file cannot be read, or is no longer the one that is meant, be its rows held or not.
        """
        if not (0 <= start <= stop <= reference.rows and step >= 1):
            raise InvalidInput(f"rows {start}:{stop}:{step} of {reference.rows}")
        self._check(reference)
        if start == stop:
            return np.empty((0, reference.width)), np.empty(0) if reference.weights else None
        segment = self._find(reference)
        first, last = start // segment.slab_rows, (stop - 1) // segment.slab_rows
        if not segment.has_seen(first, last):
            pieces, kept = [], [True]
            if not segment.is_ready(first, last):
                pieces = list(_cut(start, stop, step, segment.slab_rows))
                kept = [self._hold(reference, segment, slab) for slab, _, _ in pieces]
            self._shrink(segment)
            if not all(kept):
                return self._collect(reference, segment, pieces, kept, step)
        elif self._clock() >= self._count_at:
            self._shrink(segment)
        x, weights = segment.x[start:stop:step], None
        if segment.weights is not None:
            weights = segment.weights[start:stop:step]
        return (x, weights) if step == 1 else _freeze(x.copy(), None if weights is None else weights.copy())

    def _collect(
        self, reference: Reference, segment: Segment, pieces: list[tuple[int, int, int]], kept: list[bool], step: int
    ) -> Rows:
        """Rows of which some are held, and some are not."""
        n = sum(len(range(row, end, step)) for _, row, end in pieces)
        x, weights = np.empty((n, reference.width)), np.empty(n) if reference.weights else None
        at = 0
        for (_, row, end), is_kept in zip(pieces, kept, strict=True):
            if is_kept:
                some, their = segment.x[row:end], None if segment.weights is None else segment.weights[row:end]
            else:
                some, their = self._read(reference, row, end)
                self._slabs_not_kept += 1
            to = at + len(range(row, end, step))
            x[at:to] = some[::step]
            if weights is not None and their is not None:
                weights[at:to] = their[::step]
            at = to
        return _freeze(x, weights)

    # ---- memory ---------------------------------------------------------------------------------------------

    def _find(self, reference: Reference) -> Segment:
        """The memory of these rows, filled or not."""
        segment = self._segments.get(reference)
        if segment is not None:
            self._segments.move_to_end(reference)
            if reference.upload and self._clock() >= self._used[reference] + USED_SECONDS:
                self._used[reference] = self._clock()
                keep_upload(self._spool, reference.upload)
            return segment
        row_bytes = 8 * (reference.width + bool(reference.weights))
        slab_rows = choose_slab_rows(row_bytes, self._measure(reference))
        while len(self._segments) >= MOST_DATASETS and self._let_go(None):
            pass
        self._segments[reference] = segment = Segment(
            self._name(reference), reference.rows, reference.width, bool(reference.weights), slab_rows, self._directory
        )
        self._used[reference] = self._clock()
        return segment

    def _name(self, reference: Reference) -> bytes:
        """What tells these rows from all others of this user; models may have datasets of one name in one file."""
        names = [reference.dataset] if reference.dataset else []
        if reference.weights_identity:
            names.append(reference.weights)
        paths = [os.fsencode(self._library.find_path(name)) for name in names]
        return b"\0".join([reference.to_bytes(), *paths])

    def _hold(self, reference: Reference, segment: Segment, slab: int) -> bool:
        """Whether a slab is there, be it only now."""
        if segment.is_ready(slab, slab):
            return True
        if not self._make_room(segment, slab):
            return False
        x, weights = self._read(reference, *segment.rows_of(slab))
        self._slabs_read += 1
        return segment.put(slab, x, weights)

    def _make_room(self, segment: Segment, slab: int) -> bool:
        """Takes memory for a slab, if need be from datasets that were not used for longest."""
        size = segment.count_bytes(slab)
        is_too_large = segment.held_bytes + size > self.budget_bytes
        if is_too_large or not segment.has_memory or self._clock() < self._full_until:
            return False
        while self._count_held() + size > self.budget_bytes:
            if not self._let_go(segment):
                return False
        while not self._has_host_room(size) or not segment.reserve(slab):
            if not self._let_go(segment):
                self._full_until = self._clock() + FULL_SECONDS
                return False
        return True

    def _has_host_room(self, size: int) -> bool:
        """Whether the host has memory for so much more: models grow as well, and others hold other rows."""
        self._promised -= size
        if self._promised < 0:
            self._promised = LOOK_BYTES if find_free_memory() >= size + LOOK_BYTES + RESERVE_BYTES else 0
        return self._promised > 0

    def _shrink(self, but: Segment) -> None:
        """Keeps to the budget what others have filled as well."""
        self._count_at = self._clock() + COUNT_SECONDS
        while self._count_held() > self.budget_bytes and self._let_go(but):
            pass

    def _let_go(self, but: Segment | None) -> bool:
        """Lets go of what was not used for longest, except for one; False where there is nothing else."""
        for reference, segment in self._segments.items():
            if segment is not but:
                del self._segments[reference]
                self._used.pop(reference, None)
                segment.close()
                return True
        return False

    def _count_held(self) -> int:
        return sum(segment.held_bytes for segment in self._segments.values())

    # ---- files ----------------------------------------------------------------------------------------------

    def _check(self, reference: Reference) -> None:
        """That the files are still those that are meant; uploads have their content's name."""
        if reference.dataset:
            self._library.check(reference.dataset, reference.identity)
        if reference.weights_identity:
            self._library.check(reference.weights, reference.weights_identity)

    def _measure(self, reference: Reference) -> int:
        """Rows of a chunk in the file, 0 without chunks; looks that the reference says what is there."""
        if reference.upload:
            check_upload(self._spool, reference.upload, _upload_shape(reference))
            return 0
        table = self._library.measure(reference.dataset, reference.identity, _fields(reference))
        width = len(reference.columns) or table.width
        if (table.rows, width) != (reference.rows, reference.width):
            raise InvalidInput(
                f"dataset {reference.dataset!r} has {table.rows} rows of {width} columns,"
                f" not {reference.rows} of {reference.width}"
            )
        if reference.weights_identity:
            weights = self._library.measure(reference.weights, reference.weights_identity)
            if (weights.rows, weights.width) != (reference.rows, 1):
                raise InvalidInput(
                    f"weights {reference.weights!r} have shape {(weights.rows, weights.width)};"
                    f" dataset {reference.dataset!r} has {reference.rows} rows"
                )
        return table.chunk_rows

    def _read(self, reference: Reference, start: int, stop: int) -> Rows:
        """Rows from their file."""
        if reference.upload:
            values = read_upload(self._spool, reference.upload, _upload_shape(reference), start, stop)
        else:
            name, identity = reference.dataset, reference.identity
            values = self._library.read_rows(name, identity, start, stop, _fields(reference))
        if reference.weights_identity:
            weights = self._library.read_rows(reference.weights, reference.weights_identity, start, stop)
            return values, weights[:, 0]
        if not reference.weights:
            return values, None
        return np.ascontiguousarray(values[:, :-1]), np.ascontiguousarray(values[:, -1])


def choose_budget(directory: Path | None) -> int:
    """Half of the memory that is free; None where each process of the host holds its own."""
    if directory is None:
        return find_free_memory() // (2 * (os.cpu_count() or 1))
    held = count_held_bytes(directory)  # by others of our kind; they have the same budget, not one more
    status = os.statvfs(directory)
    return (min(find_free_memory(), status.f_bavail * status.f_frsize) + held) // 2


def _cut(start: int, stop: int, step: int, slab_rows: int) -> Iterator[tuple[int, int, int]]:
    """The slabs that ``start:stop:step`` lies in, with its first row in each, and where it ends there."""
    while start < stop:
        slab = start // slab_rows
        end = min((slab + 1) * slab_rows, stop)
        yield slab, start, end
        start += -(-(end - start) // step) * step


def _fields(reference: Reference) -> tuple[str, ...]:
    """What is read of a compound dataset: its weights last."""
    is_own = reference.weights and not reference.weights_identity
    return (*reference.columns, reference.weights) if is_own else reference.columns


def _upload_shape(reference: Reference) -> tuple[int, int]:
    return reference.rows, reference.width + bool(reference.weights)


def _freeze(x: FloatArray, weights: FloatArray | None) -> Rows:
    """Whoever gets a copy may not write either: what a model does must not depend on what is held."""
    for array in (x, weights):
        if array is not None:
            array.flags.writeable = False
    return x, weights
