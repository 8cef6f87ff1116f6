"""Files of results that are not complete yet, and how they become so.

Such a file is called ``file.h5.partial`` until all of its rows are there. Everything that HDF5 itself keeps is written
before the first row (`hdf5_format.make_blank`). Rows then go where they belong by plain writes, in order; once they are
on the disk, a number in the file says how many there are. So a process that is killed, at whatever moment, leaves a
file to go on with, and what is called ``file.h5`` is complete.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import stat
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .descriptors import sync_directory, write_all
from .errors import DatasetError, DemosError, InternalError, InvalidInput
from .hdf5_format import ERRORS, Blank, make_blank, mark_complete, read_blank
from .messages import Array

#: What a file that is not complete is called behind its name, and one that is being made.
PARTIAL, NEW = ".partial", ".partial.new"
_COUNT = np.dtype("<i8")
#: A lock (struct flock) that belongs to the open file: those of HDF5, which are others, do not get in its way, and it
#: ends with the process.
_WHOLE_FILE = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


@dataclass(frozen=True)
class Contents:
    """What a file is to have.

    Parameters
    ----------
    name, shape, dtype
        Of its dataset; rows are counted along the first axis.
    facts
        What the rows depend on, as attributes: a file that was begun with others is not gone on with.
    notes
        Further attributes.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    facts: Mapping[str, Any]
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return self.shape[0]

    @property
    def n_bytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)


def check_new(path: Path, *, overwrite: bool) -> None:
    """`InvalidInput` where there is a file of this name that must not be overwritten, or what is no file."""
    if path.exists() and not path.is_file():
        raise InvalidInput(f"{path} is in the way: it is no regular file")
    if not overwrite and path.exists():
        raise InvalidInput(f"{path} exists already: choose another name, or overwrite it (--overwrite)")


def find_begun(path: Path) -> dict[str, Any]:
    """The attributes of a file that was begun; none where there is none."""
    try:
        return read_blank(os.path.realpath(path) + PARTIAL).attributes
    except (OSError, KeyError, ValueError):
        return {}


def find_finished(path: Path) -> Blank | None:
    """What a file of this name has, where it is one of these and all of its rows are there."""
    if not path.is_file():  # a pipe would be waited for
        return None
    try:
        blank = read_blank(os.path.realpath(path))
        size, end = os.stat(path).st_size, (blank.offset or 0) + blank.dtype.itemsize * math.prod(blank.shape)
    except ERRORS:
        return None
    return blank if blank.is_complete and size >= end else None


def has_all(path: Path, contents: Contents) -> bool:
    """Whether there is a file already that has all of this.

    Raises
    ------
    InvalidInput
        Where there is a file of this name that has something else.
    """
    finished = find_finished(path)
    if finished is None:
        check_new(path, overwrite=False)
        return False
    if differing := compare(finished, contents):
        raise InvalidInput(
            f"{path} exists already, and has something else: {'; '.join(differing)}. Choose another name, or overwrite"
            " it (--overwrite)"
        )
    return True


def check_room(path: Path, n_bytes: int) -> None:
    """OSError where the disk that ``path`` is on, which exists, has no room for so many more bytes."""
    disk = os.statvfs(path)
    free = disk.f_bavail * disk.f_frsize
    if disk.f_blocks and n_bytes > free:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {free} bytes are free")


class ResultFile:
    """A file that is not complete yet; ``descriptor`` is open, and locked where the file system has locks.

    ValueError where it is none.
    """

    def __init__(self, path: Path, descriptor: int, blank: Blank) -> None:
        self.path = path
        self.partial = path.with_name(path.name + PARTIAL)
        self._descriptor = descriptor
        self._blank = blank
        self._row_bytes = blank.dtype.itemsize * math.prod(blank.shape[1:])
        count = os.pread(descriptor, _COUNT.itemsize, blank.counter)
        #: Rows that are on the disk.
        self.written = int(np.frombuffer(count, _COUNT)[0]) if len(count) == _COUNT.itemsize else -1
        if not 0 <= self.written <= blank.shape[0]:
            raise ValueError(f"it has {self.written} of {blank.shape[0]} rows")
        size, end = os.fstat(descriptor).st_size, (blank.offset or 0) + blank.shape[0] * self._row_bytes
        if size < end:
            raise ValueError(f"it has {size} of {end} bytes")

    def add(self, rows: Array) -> None:
        """Writes the rows that come next, (n, ...), and then that they are there."""
        blank = self._blank
        if rows.shape[1:] != blank.shape[1:] or self.written + len(rows) > blank.shape[0]:
            raise InternalError(f"rows {rows.shape} at row {self.written} of a dataset of shape {blank.shape}")
        if rows.nbytes:
            assert blank.offset is not None
            data = np.ascontiguousarray(rows, dtype=blank.dtype).reshape(-1).view(np.uint8)
            write_all(self._descriptor, data.data, blank.offset + self.written * self._row_bytes)
            os.fsync(self._descriptor)
        count = np.array([self.written + len(rows)], _COUNT)
        write_all(self._descriptor, count.view(np.uint8).data, blank.counter)
        self.written = int(count[0])

    def check_room(self) -> None:
        """OSError where the disk has no room for the rows that lack."""
        needed = self._blank.shape[0] * self._row_bytes - os.fstat(self._descriptor).st_blocks * 512
        check_room(self.partial, needed)

    def discard(self) -> None:
        """Removes a file that is not worth going on with."""
        if _is_same(self._descriptor, self.partial):
            self.partial.unlink()

    def finish(self, *, overwrite: bool) -> None:
        """Says that all rows are there, and gives the file its name."""
        if not _is_same(self._descriptor, self.partial):
            raise DatasetError(f"{self.partial} was moved or removed while it was written")
        os.fsync(self._descriptor)
        mark_complete(str(self.partial))
        os.fsync(self._descriptor)
        check_new(self.path, overwrite=overwrite)
        os.rename(self.partial, self.path)
        sync_directory(self.path.parent)


@contextlib.contextmanager
def open_result(path: Path, contents: Contents, *, overwrite: bool) -> Iterator[ResultFile]:
    """The file that was begun with the same facts, or a new one.

    Raises
    ------
    InvalidInput
        Where it was begun with something else and is not to be overwritten, or another process writes it.
    DatasetError
        Where it cannot be made, read or written.
    """
    check_new(path, overwrite=overwrite)
    path = Path(os.path.realpath(path))
    with _complain(path, contents), contextlib.ExitStack() as opened:
        file = None
        while file is None:
            before = _lock(path.with_name(path.name + PARTIAL), os.O_RDWR, opened)
            if before is not None:
                file = _resume(path, before, contents, overwrite=overwrite)
            if file is None:
                new = _lock(path.with_name(path.name + NEW), os.O_RDWR | os.O_CREAT, opened)
                assert new is not None
                file = _begin(path, new, contents, is_first=before is None)
        yield file


def _resume(path: Path, descriptor: int, contents: Contents, *, overwrite: bool) -> ResultFile | None:
    """The file that was begun, or None where it was begun with something else and is not worth keeping."""
    partial = path.with_name(path.name + PARTIAL)
    remedy = "choose another name, or begin anew (--overwrite)"
    try:
        blank = read_blank(str(partial))
        file = ResultFile(path, descriptor, blank)
    except (OSError, KeyError, ValueError) as error:
        if overwrite:
            return None
        raise InvalidInput(f"{partial} is no file to go on with ({' '.join(str(error).split())}): {remedy}") from None
    differing = compare(blank, contents)
    if not differing:
        return file
    if overwrite or not file.written:
        return None
    rows = f"{file.written} of {blank.shape[0]} rows"
    raise InvalidInput(
        f"{partial} has {rows} and was begun with something else: {'; '.join(differing)}. Go on with the same, {remedy}"
    )


def compare(blank: Blank, contents: Contents) -> list[str]:
    """In what a file differs from what it is to have, in words."""
    there, here = dict(blank.attributes), dict(contents.facts)
    there |= {"dataset": blank.name, "shape": list(blank.shape), "dtype": str(blank.dtype)}
    here |= {"dataset": contents.name, "shape": list(contents.shape), "dtype": str(contents.dtype)}
    names = [*here, *(name for name in there if name not in here and name not in contents.notes)]
    differing = [name for name in names if not _is_equal(there.get(name), here.get(name))]
    if "source" in differing and "identity" in differing:
        differing.remove("identity")  # another file is another one
    return [_describe(name, there.get(name), here.get(name), here.get("source")) for name in differing]


def _describe(name: str, there: Any, here: Any, source: Any) -> str:
    """A difference in words; the identity of a file tells nobody anything."""
    if name == "identity" and source is not None and here is not None:
        return f"{source} was replaced or changed since"
    return f"{name} is {_show(there)} there, {_show(here)} here"


def _is_equal(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    a, b = np.asarray(one), np.asarray(other)
    return a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == b.dtype.kind == "f")


def _show(value: Any) -> str:
    text = "not given" if value is None else str(np.asarray(value).tolist())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _begin(path: Path, descriptor: int, contents: Contents, *, is_first: bool) -> ResultFile | None:
    """A new file, all of which but its rows is written before it is called ``.partial``.

    None where it ``is_first`` and another process has been faster.
    """
    new = path.with_name(path.name + NEW)
    try:
        if is_first and path.with_name(path.name + PARTIAL).exists():
            new.unlink()
            return None
        attributes = {**contents.facts, **contents.notes}
        try:
            make_blank(str(new), contents.name, contents.shape, contents.dtype, attributes)
        except RuntimeError as error:  # of HDF5, where a file cannot be as long as that
            raise OSError(str(error)) from None
        file = ResultFile(path, descriptor, read_blank(str(new)))
        os.fsync(descriptor)
        os.rename(new, file.partial)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
    return file


def _lock(path: Path, flags: int, opened: contextlib.ExitStack) -> int | None:
    """Opens a file that no other process writes, until ``opened`` is left; None where there is none.

    Raises
    ------
    InvalidInput
        Where another process writes it.
    """
    while True:
        try:
            descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            if flags & os.O_CREAT:
                raise
            return None
        opened.callback(os.close, descriptor)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise InvalidInput(f"{path} is in the way: it is no regular file")
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _WHOLE_FILE)
        except (BlockingIOError, PermissionError):
            raise InvalidInput(
                f"{path} is being written by another process: wait for it, or choose another name"
            ) from None
        except OSError:
            pass  # a file system without locks
        if _is_same(descriptor, path):
            return descriptor
        # It was given another name meanwhile, so this is to be looked at anew.


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _complain(path: Path, contents: Contents) -> Iterator[None]:
    """Makes an OSError of the file system a `DatasetError` that says what to do."""
    try:
        yield
    except DemosError:
        raise
    except OSError as error:
        why = " ".join((error.strerror or str(error)).split())
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            why = f"it needs {contents.n_bytes} bytes, and there is no room for them ({why})"
        partial = path.with_name(path.name + PARTIAL)
        kept = f"; {partial} stays, and the same again goes on with it" if partial.exists() else ""
        raise DatasetError(f"{path} cannot be written: {why}{kept}") from None
