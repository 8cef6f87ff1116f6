"""Regular files as they were when they were opened: what is read is that very file, whatever becomes of its path."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from itertools import pairwise

import numpy as np

from .descriptors import read_all
from .errors import DatasetError
from .messages import Array
from .selection import IndexArray

#: Rows that lie so near to one another are read together with what is between them, bytes; a system call costs as much.
NEAR_BYTES = 8 << 10
#: Rows that are read together lie within so many bytes.
PAGE_BYTES = 1 << 20
#: Without O_NONBLOCK a pipe of that name would hold us for ever.
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_REMEDIES = {
    errno.ENOENT: "put it there, or correct the path of the dataset; it has to be there on the hosts of all workers",
    errno.ENOTDIR: "correct the path of the dataset",
    errno.EACCES: "it has to be readable by the user whose server this is",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


def identify(status: os.stat_result) -> str:
    """What tells a file from the one that replaces it: size, time of change, inode; 16 hexadecimal digits."""
    text = f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def find_identity(path: str) -> str:
    """The identity of the regular file that a path leads to now.

    Raises
    ------
    DatasetError
        Where there is none.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be opened: {_explain(error)}") from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise DatasetError(f"{path} is {kind}; a dataset is in an HDF5 file: correct its path")
    return identify(status)


class Source:
    """An open file, read-only; what h5py asks of a file object is here as well.

    HDF5 would open a file by its path: another one perhaps than the one that was looked at, for ever where it is a
    pipe, with locks, and together with whoever has it open in this process, the way it was for them.

    Raises
    ------
    DatasetError
        Where there is no regular file that may be read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        find_identity(path)  # so that devices are not even opened
        try:
            self._descriptor = os.open(path, _FLAGS)
        except OSError as error:
            raise DatasetError(f"{path} cannot be opened: {_explain(error)}") from None
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise DatasetError(f"{path} is no regular file any more")
        self.identity = identify(status)
        self._size = status.st_size
        self._at = 0

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def is_unchanged(self) -> bool:
        """Whether the file that was opened, wherever it is now, is as it was."""
        return identify(os.fstat(self._descriptor)) == self.identity

    def is_current(self) -> bool:
        """Whether its path still leads to the file as it was opened."""
        try:
            return find_identity(self.path) == self.identity
        except DatasetError:
            return False

    # ---- rows -----------------------------------------------------------------------------------------------

    def read_rows(self, offset: int, row_bytes: int, rows: IndexArray, out: Array) -> None:
        """Increasing rows of what lies in the file as one run, from ``offset`` on, into (n, row_bytes) uint8."""
        if offset + (int(rows[-1]) + 1) * row_bytes > self._size:
            raise self._make_error(self._size)
        at = rows * row_bytes
        is_far = (np.diff(at) > NEAR_BYTES + row_bytes) | (np.diff(at // PAGE_BYTES) != 0)
        edges = [0, *(np.flatnonzero(is_far) + 1).tolist(), len(rows)]
        if len(edges) > len(rows) and row_bytes <= NEAR_BYTES:  # they are all apart, and many
            pread, descriptor = os.pread, self._descriptor
            data = b"".join([pread(descriptor, row_bytes, place) for place in (at + offset).tolist()])
            if len(data) < out.nbytes:
                raise self._make_error(self._size)
            out.reshape(-1)[:] = np.frombuffer(data, np.uint8)
            return
        for start, stop in pairwise(edges):
            first, last = int(rows[start]), int(rows[stop - 1])
            if last - first == stop - start - 1:
                self.read_at(out[start:stop].reshape(-1).data, offset + first * row_bytes)
                continue
            block = np.empty((last - first + 1, row_bytes), np.uint8)
            self.read_at(block.reshape(-1).data, offset + first * row_bytes)
            out[start:stop] = block[rows[start:stop] - first]

    def read_at(self, view: memoryview, at: int) -> None:
        """Fills memory with what begins at byte ``at``; `OSError` where there is less."""
        if at + len(view) > self._size:  # also where a damaged file says that something is at 2**64
            raise self._make_error(self._size)
        n_bytes = read_all(self._descriptor, view, at)
        if n_bytes < len(view):
            raise self._make_error(at + n_bytes)

    def _make_error(self, at: int) -> OSError:
        return OSError(errno.EIO, f"the file ends at byte {at}, before what was to be read")

    # ---- as a file object -----------------------------------------------------------------------------------

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset if whence == os.SEEK_SET else self._size + offset  # HDF5 asks for the end only
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Nobody calls it, but h5py knows file objects by it."""
        data = bytearray(self._size - self._at if size < 0 else size)
        self.readinto(memoryview(data))
        return bytes(data)

    def readinto(self, view: memoryview) -> int:
        """All of ``view``, or an error: h5py does not ask how many bytes came."""
        self.read_at(view, self._at)
        self._at += len(view)
        return len(view)

    def write(self, data: object) -> int:
        raise OSError(errno.EROFS, f"{self.path} was opened for reading")

    def truncate(self, size: int | None = None) -> int:
        raise OSError(errno.EROFS, f"{self.path} was opened for reading")

    def flush(self) -> None:
        """There is nothing to be written."""


def _explain(error: OSError | ValueError) -> str:
    if isinstance(error, OSError):
        remedy = _REMEDIES.get(error.errno or 0, "")
        return f"{error.strerror}; {remedy}" if remedy else str(error.strerror)
    return str(error)
