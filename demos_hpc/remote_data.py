"""A dataset that is served elsewhere, read as if it were an h5py dataset here."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from .answers import take_first
from .connection import Connection
from .direct_data import DirectData
from .elements import AsStrings, decode, read_dtype
from .errors import DatasetError, DemosError, InternalError, InvalidInput, TooLarge
from .future import BytesFuture, Future, RaggedFuture
from .hdf5_format import make_empty, read_attribute
from .library import combine_digests, count_slabs
from .messages import Array, Operation, to_json
from .progress import show_progress
from .runs import to_question
from .selection import MOST_UNIT_BYTES, Selection, arrange, cut, merge, read_selection

#: Bytes of a block, where nobody says how many rows it has.
BLOCK_BYTES = 32 << 20
#: The same where whole chunks make so much of it, which would otherwise be inflated again for each block.
LARGE_BLOCK = 1 << 30
#: Blocks that are asked for ahead of the one that the caller has.
AHEAD = 2
Progress = Callable[[int, int], object]


class RemoteDataset:
    """A dataset of a served model. Get one from `RemoteModel.dataset`.

    Read it as an h5py dataset: ``d[10:20, ::2]``, ``d[[3, 1, 2]]``, ``d[mask]``, ``d["energy"]``, ``d[()]``. Lists may
    be in any order and have doubles; steps are positive. Rows are read, and inflated, by the model's workers, several
    at a time, and received straight into their place; or from the file itself where this process can open it and that
    is faster (``is_direct``).

    Errors: `InvalidInput` for a selection that is not within the dataset, before anything travels; `DatasetError` where
    the file is missing, damaged, or was changed since the dataset was opened; those of all operations (`RemoteModel`).
    """

    def __init__(
        self,
        connection: Connection,
        model: int,
        description: dict[str, Any],
        *,
        max_bytes: int,
        workers: int,
        direct: bool | None = None,
    ) -> None:
        self._connection = connection
        self._model = model
        self._max_bytes = max_bytes
        self._kind = str(description["kind"])
        #: What tells its files from others of the same names; and all that its workers say of it.
        self.identity, self.described = str(description["identity"]), description
        #: As it is called.
        self.name = str(description["name"])
        #: ``file.h5:/name/within``, as the server has it.
        self.path = str(description["path"])
        #: Units of its values, or of each field; what it is; what may be done with it; what it must come to.
        self.units: str | dict[str, str] = description["units"]
        self.description = str(description["description"])
        self.license = str(description["license"])
        self.checksum = str(description["checksum"])
        shape = description["shape"]
        #: None where it is empty in the sense of HDF5: a type without elements.
        self.shape: tuple[int, ...] | None = None if shape is None else tuple(shape)
        #: Of an element, of lists that of their items.
        self._item = read_dtype(description["dtype"])
        self.dtype: np.dtype[Any] = self._item if self._kind == "rows" else np.dtype(object)
        #: What an element takes on its way, of strings and lists about.
        self._item_bytes = self.dtype.itemsize if self._kind == "rows" else int(description["typical_bytes"])
        chunks = description["chunks"]
        self.chunks: tuple[int, ...] | None = None if chunks is None else tuple(chunks)
        self.filters: list[str] = description["filters"]
        self._here: DirectData | None = None
        if direct is not False:
            self._open_here(is_wanted=direct is True, workers=workers)

    def __repr__(self) -> str:
        way = "read directly" if self.is_direct else "served"
        return f"<RemoteDataset {self.name!r}: shape {self.shape}, type {self.dtype}, {way}>"

    @property
    def is_direct(self) -> bool:
        """Whether this process reads the file itself."""
        return self._here is not None

    @property
    def attrs(self) -> dict[str, Any]:
        """Attributes, as h5py has them."""
        return {name: read_attribute(value) for name, value in self.described["attrs"].items()}

    @property
    def ndim(self) -> int:
        return len(self.shape or ())

    @property
    def size(self) -> int | None:
        """Number of elements."""
        return None if self.shape is None else math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return (self.size or 0) * self.dtype.itemsize

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError(f"dataset {self.name!r} has no first axis, and so no length")
        return self.shape[0]

    def __bool__(self) -> bool:
        return True

    # ---- reading --------------------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        return self.submit(key).result()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if self.shape is None:
            raise TypeError(f"dataset {self.name!r} is empty: it has a type, but no elements to make an array of")
        values = np.asarray(self[()])
        return values if dtype is None else values.astype(dtype, copy=False)

    def submit(
        self, key: Any, *, out: Array | None = None, timeout: float | None = None, progress: Progress | None = None
    ) -> Future:
        """Asks for ``dataset[key]`` and returns a `Future` at once.

        ``out`` is a C-contiguous array of the answer's shape and dtype, to receive it in; ``progress(done, total)`` is
        called as rows come; ``timeout`` is in seconds.
        """
        if self.shape is None:
            given = key if isinstance(key, tuple) else (key,)
            if len(given) > 1 or any(k is not Ellipsis for k in given):
                raise InvalidInput(f"dataset {self.name!r} is empty, and has no part {key!r}; all of it is dataset[()]")
            return self._give(make_empty(self.dtype))
        return self._start(read_selection(key, self.shape, self._names, self.name), out, timeout, progress)

    def read(self, keys: Sequence[Any], *, timeout: float | None = None, progress: Progress | None = None) -> list[Any]:
        """``[dataset[key] for key in keys]``, asked for at once: in one request where only their rows differ."""
        if self.shape is None:
            return [self[key] for key in keys]
        selections = [read_selection(key, self.shape, self._names, self.name) for key in keys]
        merged = merge(selections)
        if merged is None:
            futures = [self._start(selection, None, timeout, progress) for selection in selections]
            return [future.result() for future in futures]
        rows = self._start(merged, None, timeout, progress).result()
        ends = np.cumsum([selection.shape[0] for selection in selections])
        return [part.copy() for part in np.split(rows, ends[:-1])]

    def read_direct(self, dest: Array, source_sel: Any = None, dest_sel: Any = None) -> None:
        """Reads ``self[source_sel]`` into ``dest[dest_sel]``, without a copy where that is C-contiguous."""
        if not isinstance(dest, np.ndarray):
            raise InvalidInput(f"dest is {type(dest).__name__}; an array is needed, to be written to")
        into = () if dest_sel is None else dest_sel if isinstance(dest_sel, tuple) else (dest_sel,)
        # With the dots a single element is an array as well, which can be written to.
        target = dest[into if any(key is Ellipsis for key in into) else (*into, ...)]
        if target.size and not np.may_share_memory(target, dest):
            raise InvalidInput("dest_sel has to be of slices and numbers, so that it can be written to")
        if self.shape is None:
            raise InvalidInput(f"dataset {self.name!r} is empty, and has nothing to read")
        key = ... if source_sel is None else source_sel
        selection = read_selection(key, self.shape, self._names, self.name)
        shown = self._find_shown(selection)
        flags, is_alike = target.flags, target.dtype == shown.base and target.shape == (*selection.shape, *shown.shape)
        out = target if is_alike and flags.c_contiguous and flags.writeable else None
        values = self._start(selection, out, None, None).result()
        if values is out:
            return
        try:
            target[...] = values
        except ValueError as error:
            raise InvalidInput(f"{self.name} of shape {np.shape(values)} into shape {target.shape}: {error}") from None

    def blocks(self, rows: int | None = None, *, progress: bool = False) -> Iterator[Array]:
        """The dataset in blocks of so many rows, one after the other; the next ones are on their way meanwhile.

        ``progress`` shows a bar on standard error, where that is a terminal.
        """
        n = len(self)
        if rows is None:
            row_bytes = max(self._item_bytes * math.prod(self.shape[1:] if self.shape else ()), 1)
            most = max(1, min(BLOCK_BYTES, self._max_bytes) // row_bytes)
            whole = self.chunks[0] if self.chunks else 1
            rows = most // whole * whole or max(1, min(whole, LARGE_BLOCK // row_bytes))
        if isinstance(rows, bool) or not isinstance(rows, int | np.integer) or rows < 1:
            raise InvalidInput(f"rows is {rows!r}; a block has 1 or more")
        return self._give_blocks(n, int(rows), progress)

    def _give_blocks(self, n: int, rows: int, progress: bool) -> Iterator[Array]:
        starts = iter(range(0, n, rows))
        waiting: deque[Future] = deque()
        done = 0
        with show_progress(self.name, is_wanted=progress) as tell:
            try:
                while True:
                    for start in islice(starts, (1 if self.is_direct else AHEAD) - len(waiting)):
                        waiting.append(self.submit(slice(start, start + rows)))
                    if not waiting:
                        return
                    block = waiting.popleft().result()
                    done += len(block)
                    tell(done, n)
                    yield block
            finally:  # of those nobody wants any more
                for future in waiting:
                    future.cancel()

    def __iter__(self) -> Iterator[Any]:
        """Row by row, as h5py does; `blocks` is faster."""
        for block in self.blocks():
            yield from block

    def asstr(self, encoding: str = "utf-8", errors: str = "strict") -> AsStrings:
        """The same dataset with its strings as str, not bytes."""
        if self._kind != "text" and self.dtype.kind != "S":
            raise InvalidInput(f"dataset {self.name!r} has {self.dtype}, no strings")
        return AsStrings(self, encoding, errors)

    def verify(self, progress: Progress | None = None) -> str:
        """The checksum as the workers find it; `DatasetError` where it is not what was declared, if anything was."""
        found = self.compute_checksum(progress)
        if self.checksum and found != self.checksum:
            raise DatasetError(
                f"{self.path} has checksum {found}, but was declared to have {self.checksum}: bring back the file that"
                " was meant, or correct what is declared"
            )
        return found

    def compute_checksum(self, progress: Progress | None = None) -> str:
        """``sha256:`` and 64 digits, computed by the workers, each a part."""
        if self.shape is None:
            raise InvalidInput(f"dataset {self.name!r} is empty, and has no checksum")
        item_bytes = int(self.described["item_bytes"])
        n = count_slabs(self.shape, item_bytes)
        digests: Array = np.empty((n, 32), np.uint8)
        if n:
            question = to_json({"dataset": self.name, "identity": self.identity})
            arrays = [question, np.arange(n + 1)]
            future = self._connection.start(
                Operation.DIGEST, arrays, n, n, ((32,),), take_first, model=self._model, out=[digests], make=BytesFuture
            )
            future.progress = progress
            future.result()
        return combine_digests(self.shape, self.described["dtype"], digests)

    # ---- behind all of them ---------------------------------------------------------------------------------

    @property
    def _names(self) -> tuple[str, ...] | None:
        """Fields that may be chosen."""
        return self._item.names if self._kind == "rows" else None

    def _give(self, value: Any, error: DemosError | None = None) -> Future:
        """A future that is done."""
        future = Future(self._connection, 0, 0.0, 0, (), lambda arrays: value)
        future.settle(error)
        return future

    def _row_dtype(self, selection: Selection) -> np.dtype[Any]:
        if selection.fields is None or self._kind != "rows":
            return self.dtype
        return np.dtype([(name, self._item[name]) for name in selection.fields])

    def _find_shown(self, selection: Selection) -> np.dtype[Any]:
        """What an element of the answer is: where one field was asked for, that field itself."""
        dtype = self._row_dtype(selection)
        return dtype[0] if selection.is_one_field else dtype

    def _start(
        self, selection: Selection, out: Array | None, timeout: float | None, progress: Progress | None
    ) -> Future:
        assert self.shape is not None
        dtype, shown = self._row_dtype(selection), self._find_shown(selection)
        shape = (*selection.shape, *shown.shape)
        if out is not None and (
            not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != shown.base
            or not out.flags.c_contiguous or not out.flags.writeable
        ):  # fmt: skip
            got = f"shape {out.shape}, dtype {out.dtype}" if isinstance(out, np.ndarray) else type(out).__name__
            raise InvalidInput(
                f"out is {got}; {self.name} needs a C-contiguous, writable {shown.base} of shape {shape}"
            )
        if selection.size == 0:
            return self._give(np.empty(shape, shown.base) if out is None else out)
        if self._here is not None:
            return self._read_here(selection, dtype, out, progress)
        return self._ask(selection, dtype, out, timeout, progress)

    def _ask(
        self,
        selection: Selection,
        dtype: np.dtype[Any],
        out: Array | None,
        timeout: float | None,
        progress: Progress | None,
    ) -> Future:
        assert self.shape is not None
        is_ragged = self._kind != "rows"
        item_bytes = self._item_bytes if is_ragged else dtype.itemsize
        file_bytes = item_bytes if is_ragged else int(self.described["item_bytes"])
        axis, bounds = cut(selection, self.shape, self.chunks, item_bytes, file_bytes)
        question, lists = to_question(selection, axis)
        counts = list(selection.counts)
        n_rows = counts.pop(axis) if counts else 1
        row_bytes = item_bytes * math.prod(counts)
        question |= {"dataset": self.name, "identity": self.identity, "kind": self._kind}
        if not is_ragged:
            question["row_bytes"] = row_bytes
        if row_bytes > MOST_UNIT_BYTES or n_rows * row_bytes > self._max_bytes:
            most = min(MOST_UNIT_BYTES, self._max_bytes) if row_bytes > MOST_UNIT_BYTES else self._max_bytes
            raise TooLarge(
                f"{self.name}: {n_rows} rows of {row_bytes} bytes; this server sends {most} at a time: ask for parts,"
                " as blocks() does"
            )
        arrays = [to_json(question), bounds, *lists]
        outs = None
        widths: tuple[tuple[int, ...], ...] = ((row_bytes,),)
        make: type[Future] = BytesFuture
        if is_ragged:
            widths, make = (tuple(counts),), RaggedFuture
        else:
            outs = [self._make_room(selection, axis, out, n_rows, row_bytes)]

        def finish(answers: list[Array]) -> Any:
            if is_ragged and answers[0].shape != (n_rows, *counts):
                raise InternalError(f"the server sent {len(answers[0])} strings or lists of {n_rows}")
            if is_ragged:
                values = decode(answers[0], answers[1:], self._kind, self._item)
            else:
                values = answers[0].reshape(-1).view(dtype.base)
            values = values.reshape((*((n_rows, *counts) if selection.axes else ()), *dtype.shape))
            return arrange(np.moveaxis(values, 0, axis) if axis else values, selection, out)

        future = self._connection.start(
            Operation.DATASET, arrays, n_rows, n_rows, widths, finish,
            model=self._model, timeout=timeout, out=outs, make=make,
        )  # fmt: skip
        future.progress = progress
        return future

    def _make_room(self, selection: Selection, axis: int, out: Array | None, n_rows: int, row_bytes: int) -> Array:
        """Where the bytes are received: in ``out`` itself, where they come in its order."""
        if out is not None and axis == 0 and selection.order is None:
            return out.reshape(-1).view(np.uint8).reshape(n_rows, row_bytes)
        try:
            return np.empty((n_rows, row_bytes), np.uint8)
        except (MemoryError, ValueError):
            raise TooLarge(f"there is no memory for {n_rows * row_bytes} bytes: use blocks()") from None

    # ---- directly -------------------------------------------------------------------------------------------

    def _open_here(self, *, is_wanted: bool, workers: int) -> None:
        if not is_wanted and self.described["is_compressed"] and workers > 1:
            return  # several inflate faster than one
        try:
            self._here = DirectData(self.path, self.identity)
        except DatasetError as error:
            if is_wanted:
                raise DatasetError(f"dataset {self.name!r} cannot be read directly: {error}") from None

    def close(self) -> None:
        """Closes the file, where it is read directly; from then on it is read by the workers."""
        if self._here is not None:
            self._here.close()
            self._here = None

    def _read_here(
        self, selection: Selection, dtype: np.dtype[Any], out: Array | None, progress: Progress | None
    ) -> Future:
        """As if it had been asked for: what goes wrong is the future's."""
        assert self._here is not None
        try:
            value = self._here.read(selection, dtype, out)
        except DatasetError as error:
            return self._give(None, DatasetError(f"dataset {self.name!r}: {error}"))
        if progress is not None:
            progress(selection.size, selection.size)
        return self._give(value)
