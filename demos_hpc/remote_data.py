"""A dataset that is served elsewhere, read as if it were an h5py dataset here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .chunk_cache import ChunkCache
from .connection import Connection
from .elements import decode, read_dtype
from .errors import DatasetError, InvalidInput, TooLarge
from .future import BytesFuture, Future, RaggedFuture
from .hdf5 import DataFile, DataSet, split_path
from .hdf5_format import make_empty, read_attribute
from .library import combine_digests, count_slabs
from .messages import Array, Operation, to_json
from .progress import show_progress
from .runs import Run, to_question
from .selection import Selection, arrange, cut, merge, read_selection

#: Bytes of a block, where nobody says how many rows it has.
BLOCK_BYTES = 32 << 20
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
        self._identity = str(description["identity"])
        self._described = description
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
        self._item = read_dtype(description["dtype"])
        self.dtype = self._item if self._kind == "rows" else np.dtype(object)
        chunks = description["chunks"]
        self.chunks: tuple[int, ...] | None = None if chunks is None else tuple(chunks)
        self.filters: list[str] = description["filters"]
        self._file: DataFile | None = None
        self._here: DataSet | None = None
        self._cache = ChunkCache()
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
        return {name: read_attribute(value) for name, value in self._described["attrs"].items()}

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
            return self._give(make_empty(self.dtype))
        names = self._item.names if self._kind == "rows" else None
        return self._start(read_selection(key, self.shape, names, self.name), out, timeout, progress)

    def read(self, keys: Sequence[Any], **options: Any) -> list[Any]:
        """``[dataset[key] for key in keys]``, asked for at once: in one request where only their rows differ."""
        if self.shape is None:
            return [self[key] for key in keys]
        names = self._item.names if self._kind == "rows" else None
        selections = [read_selection(key, self.shape, names, self.name) for key in keys]
        merged = merge(selections)
        if merged is None:
            futures = [self._start(selection, None, options.get("timeout"), None) for selection in selections]
            return [future.result() for future in futures]
        rows = self._start(merged, None, options.get("timeout"), options.get("progress")).result()
        ends = np.cumsum([selection.shape[0] for selection in selections])
        return [part.copy() for part in np.split(rows, ends[:-1])]

    def read_direct(self, dest: Array, source_sel: Any = (), dest_sel: Any = ()) -> None:
        """Reads ``self[source_sel]`` into ``dest[dest_sel]``, without a copy where that is C-contiguous."""
        target = dest[dest_sel] if dest_sel != () else dest
        if not np.shares_memory(target, dest) and dest.size:
            raise InvalidInput("dest_sel has to be of slices and numbers, so that it can be written to")
        key = ... if source_sel == () else source_sel
        if target.flags.c_contiguous and target.dtype == self.dtype and isinstance(target, np.ndarray):
            self.submit(key, out=target).result()
        else:
            target[...] = self[key]

    def blocks(self, rows: int | None = None, *, progress: bool = False) -> Iterator[Array]:
        """The dataset in blocks of so many rows, one after the other; the next ones are on their way meanwhile.

        ``progress`` shows a bar on standard error, where that is a terminal.
        """
        n = len(self)
        if rows is None:
            row_bytes = max(self.nbytes // max(n, 1), 1)
            whole = self.chunks[0] if self.chunks else 1
            rows = max(whole, BLOCK_BYTES // row_bytes // whole * whole)
        if not isinstance(rows, int) or rows < 1:
            raise InvalidInput(f"rows is {rows!r}; a block has 1 or more")
        starts = iter(range(0, n, rows))
        done = 0
        with show_progress(self.name, is_wanted=progress) as tell:
            waiting = [self.submit(slice(start, start + rows)) for _, start in zip(range(AHEAD), starts, strict=False)]
            while waiting:
                block = waiting.pop(0).result()
                waiting += [self.submit(slice(start, start + rows)) for _, start in zip(range(1), starts, strict=False)]
                done += len(block)
                tell(done, n)
                yield block

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
        """Has the workers compute the checksum, each a part, and holds it against the declared one, if any.

        Returns
        -------
        checksum
            ``sha256:`` and 64 digits.

        Raises
        ------
        DatasetError
            Where it is not what was declared.
        """
        if self.shape is None:
            raise InvalidInput(f"dataset {self.name!r} is empty, and has no checksum")
        item_bytes = int(self._described["item_bytes"])
        n = count_slabs(self.shape, item_bytes)
        digests: Array = np.empty((n, 32), np.uint8)
        if n:
            question = to_json({"dataset": self.name, "identity": self._identity, "row_bytes": 32})
            arrays = [question, np.arange(n + 1)]
            future = self._connection.start(
                Operation.DIGEST, arrays, n, n, ((32,),), _first, model=self._model, out=[digests], make=BytesFuture
            )
            future.progress = progress
            future.result()
        found = combine_digests(self.shape, self._described["dtype"], digests)
        if self.checksum and found != self.checksum:
            raise DatasetError(f"{self.path} has checksum {found}, but was declared to have {self.checksum}")
        return found

    # ---- behind all of them ---------------------------------------------------------------------------------

    def _give(self, value: Any) -> Future:
        """A future that is done."""
        future = Future(self._connection, 0, 0.0, 0, (), lambda arrays: value)
        future.settle()
        return future

    def _row_dtype(self, selection: Selection) -> np.dtype[Any]:
        if selection.fields is None or self._kind != "rows":
            return self.dtype
        return np.dtype([(name, self._item[name]) for name in selection.fields])

    def _start(
        self, selection: Selection, out: Array | None, timeout: float | None, progress: Progress | None
    ) -> Future:
        assert self.shape is not None
        dtype = self._row_dtype(selection)
        shown = dtype[0] if selection.is_one_field else dtype
        if out is not None and (
            not isinstance(out, np.ndarray) or out.shape != selection.shape or out.dtype != shown
            or not out.flags.c_contiguous or not out.flags.writeable
        ):  # fmt: skip
            got = f"shape {out.shape}, dtype {out.dtype}" if isinstance(out, np.ndarray) else type(out).__name__
            raise InvalidInput(
                f"out is {got}; {self.name} needs a C-contiguous, writable {shown} of shape {selection.shape}"
            )
        if selection.size == 0:
            return self._give(np.empty(selection.shape, shown) if out is None else out)
        if self._here is not None:
            return self._give(self._read_here(selection, dtype, out))
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
        file_bytes = int(self._described["item_bytes"])
        axis, bounds = cut(selection, self.shape, self.chunks, dtype.itemsize, file_bytes)
        question, lists = to_question(selection, axis)
        counts = list(selection.counts)
        n_rows = counts.pop(axis) if counts else 1
        row_bytes = dtype.itemsize * math.prod(counts)
        question |= {
            "dataset": self.name, "identity": self._identity, "kind": self._kind, "row_bytes": row_bytes,
        }  # fmt: skip
        if n_rows * row_bytes > self._max_bytes:
            raise TooLarge(
                f"an answer of {n_rows * row_bytes} bytes; this server takes {self._max_bytes}: use blocks()"
            )
        arrays = [to_json(question), bounds, *lists]
        outs = None
        widths: tuple[tuple[int, ...], ...] = ((row_bytes,),)
        make: type[Future] = BytesFuture
        if self._kind != "rows":
            widths, make = (tuple(counts),), RaggedFuture
        else:
            outs = [self._make_room(selection, dtype, axis, out, n_rows, row_bytes)]

        def finish(answers: list[Array]) -> Any:
            if self._kind == "rows":
                values = answers[0].reshape(-1).view(dtype).reshape(n_rows, *counts)
            else:
                values = decode(answers[0], answers[1:], self._kind, self._item)
            return arrange(values, selection, axis, out)

        future = self._connection.start(
            Operation.DATASET, arrays, n_rows, n_rows, widths, finish,
            model=self._model, timeout=timeout, out=outs, make=make,
        )  # fmt: skip
        future.progress = progress
        return future

    def _make_room(
        self, selection: Selection, dtype: np.dtype[Any], axis: int, out: Array | None, n_rows: int, row_bytes: int
    ) -> Array:
        """Where the bytes are received: in ``out`` itself, where they come in its order."""
        if out is not None and axis == 0 and selection.order is None:
            return out.reshape(-1).view(np.uint8).reshape(n_rows, row_bytes)
        try:
            return np.empty((n_rows, row_bytes), np.uint8)
        except (MemoryError, ValueError):
            raise TooLarge(f"there is no memory for {n_rows * row_bytes} bytes: use blocks()") from None

    # ---- directly -------------------------------------------------------------------------------------------

    def _open_here(self, *, is_wanted: bool, workers: int) -> None:
        if not is_wanted and self._described["is_compressed"] and workers > 1:
            return  # several inflate faster than one
        path, inside = split_path(self.path)
        try:
            file = DataFile(path)
        except DatasetError as error:
            if is_wanted:
                raise DatasetError(f"dataset {self.name!r} cannot be read directly: {error}") from None
            return
        if file.identity != self._identity:
            file.close()
            if is_wanted:
                raise DatasetError(f"{path} is not the file here that it is at the server: read it without direct=True")
            return
        try:
            self._here = file.find(inside)
        except DatasetError:
            file.close()
            if is_wanted:
                raise
            return
        self._file = file

    def close(self) -> None:
        """Closes the file, where it is read directly."""
        if self._file is not None:
            self._file.close()
            self._file = self._here = None

    def _read_here(self, selection: Selection, dtype: np.dtype[Any], out: Array | None) -> Any:
        assert self._here is not None
        assert self._file is not None
        run = Run(selection.axes, selection.list_axis or 0, selection.fields, selection.is_flat)
        in_place = out is not None and out.dtype == dtype and selection.order is None
        values = self._here.read(run, self._cache, out.reshape(run.counts) if in_place and out is not None else None)
        if not self._file.is_unchanged():
            raise DatasetError(f"{self._file.path} was changed while it was read; open the dataset again")
        return out if in_place else arrange(values, selection, 0, out)


class AsStrings:
    """A dataset of strings that are read as str; see `RemoteDataset.asstr`."""

    def __init__(self, dataset: RemoteDataset, encoding: str, errors: str) -> None:
        self._dataset = dataset
        self._encoding = encoding
        self._errors = errors

    def __getitem__(self, key: Any) -> Any:
        values = self._dataset[key]
        if isinstance(values, bytes):
            return values.decode(self._encoding, self._errors)
        texts = np.empty(values.shape, dtype=object)
        texts.reshape(-1)[:] = [value.decode(self._encoding, self._errors) for value in values.reshape(-1)]
        return texts

    def __len__(self) -> int:
        return len(self._dataset)


def _first(answers: list[Array]) -> Array:
    return answers[0]
