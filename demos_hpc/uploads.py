"""Uploaded rows as workers read them: ``<digest>.npy`` in a directory that client's and workers' hosts share."""

from __future__ import annotations

import ast
import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .descriptors import read_all
from .errors import DatasetError
from .messages import FloatArray

#: Without O_NONBLOCK a pipe of that name would hold us for ever.
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
#: How files of NumPy's format 1.0 begin; the length of a header in Python's words follows (numpy.lib.format).
_MAGIC = b"\x93NUMPY\x01\x00"
_REMEDY = "upload it again"


def check_upload(spool: Path, digest: str, shape: tuple[int, int]) -> None:
    """`DatasetError` where the upload is not there, or not as a whole, or of another shape."""
    with _opened(spool, digest) as (path, descriptor):
        _find_rows(path, descriptor, shape)
    keep_upload(spool, digest)


def keep_upload(spool: Path, digest: str) -> None:
    """Says that an upload is in use, so that it is not swept away."""
    with contextlib.suppress(OSError):  # whose it is must not matter
        os.utime(spool / f"{digest}.npy", follow_symlinks=False)


def read_upload(spool: Path, digest: str, shape: tuple[int, int], start: int, stop: int) -> FloatArray:
    """Rows [start, stop) of an upload of this shape, (stop - start, columns) float64.

    Raises
    ------
    DatasetError
        Where the upload is not there, or not as a whole, or of another shape.
    """
    rows = np.empty((stop - start, shape[1]))
    with _opened(spool, digest) as (path, descriptor):
        at = _find_rows(path, descriptor, shape) + start * shape[1] * rows.itemsize
        n_bytes = read_all(descriptor, rows.reshape(-1).view(np.uint8).data, at)
        if n_bytes < rows.nbytes:
            raise DatasetError(f"{path} ends at byte {at + n_bytes}, before row {stop}: {_REMEDY}")
    return rows


@contextlib.contextmanager
def _opened(spool: Path, digest: str) -> Iterator[tuple[Path, int]]:
    path = spool / f"{digest}.npy"
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise DatasetError(f"upload {digest} is not, or no longer, in {spool}: {_REMEDY}") from None
        raise DatasetError(f"{path} cannot be opened: {error.strerror}") from None
    try:
        yield path, descriptor
    except OSError as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)


def _find_rows(path: Path, descriptor: int, shape: tuple[int, int]) -> int:
    """Where in the file the rows begin."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise DatasetError(f"{path} is no regular file: {_REMEDY}")
    head = os.pread(descriptor, len(_MAGIC) + 2, 0)
    if len(head) < len(_MAGIC) + 2 or not head.startswith(_MAGIC):
        raise DatasetError(f"{path} is no file of NumPy's, or only a part of one: {_REMEDY}")
    length = int.from_bytes(head[len(_MAGIC) :], "little")
    begin = len(head) + length
    text = os.pread(descriptor, length, len(head))
    try:
        found = ast.literal_eval(text.decode("ascii").strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise DatasetError(f"{path} has a header that is none: {_REMEDY}") from None
    if found != {"descr": "<f8", "fortran_order": False, "shape": shape}:
        raise DatasetError(f"{path} holds {found}; rows {shape} of '<f8' in C order were meant: {_REMEDY}")
    size = begin + 8 * shape[0] * shape[1]
    if status.st_size != size:
        raise DatasetError(f"{path} has {status.st_size} bytes instead of {size}, so it is truncated: {_REMEDY}")
    return begin
