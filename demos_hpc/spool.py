"""Uploaded rows on the file system that the workers share: written in parts, by anyone, and named by their content.

A file has its name, the digest of its rows, only once it is complete and was found to be what it is called.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import time
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from .errors import BadFrame, DatasetError, InvalidInput
from .messages import Array
from .shared_files import make_directory
from .wire import FLOAT64

DIGEST = re.compile(r"[0-9a-f]{64}")
#: Seconds that rows are kept which nobody uses.
KEEP_SECONDS = 14 * 86400.0
_PIECE = 1 << 22


class Spool:
    """The directory of uploads."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def answer(self, question: Mapping[str, Any], rows: Array | None) -> dict[str, Any]:
        """What a client asks of an upload: whether it is here, to write a part of it, or that it is complete.

        Raises
        ------
        BadFrame
            Where the question is none.
        DatasetError
            Where the rows cannot be written, or are not what they are called.
        """
        digest, n_rows, n_columns = (question.get(name) for name in ("upload", "rows", "columns"))
        if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
            raise BadFrame(f"an upload called {digest!r}; it is called by 64 hexadecimal digits")
        for number in (n_rows, n_columns):
            if type(number) is not int or not 0 < number < 2**48:
                raise BadFrame(f"an upload of {n_rows!r} rows and {n_columns!r} columns")
        assert isinstance(n_rows, int)
        assert isinstance(n_columns, int)
        path = self.directory / f"{digest}.npy"
        try:
            if question.get("do") == "write":
                self._write(path, (n_rows, n_columns), question.get("first"), rows)
            elif question.get("do") == "seal":
                self._seal(path, digest, (n_rows, n_columns))
            elif question.get("do") != "find":
                raise BadFrame(f"an upload with which {question.get('do')!r} is to be done")
            elif path.is_file():
                os.utime(path)  # it is in use
            return {"is_here": path.is_file()}
        except OSError as error:
            if isinstance(error, DatasetError):
                raise
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                path.with_suffix(".partial").unlink(missing_ok=True)
            size = 8 * n_rows * n_columns
            raise DatasetError(
                f"{size} bytes of uploaded rows cannot be kept in {self.directory}: {error.strerror}; set DEMOS_SPOOL"
                " to a directory with room that all hosts of the server share"
            ) from None

    def sweep(self, now: float | None = None) -> None:
        """Removes rows that nobody has used for `KEEP_SECONDS`."""
        oldest = (time.time() if now is None else now) - KEEP_SECONDS
        with contextlib.suppress(OSError):
            for path in self.directory.iterdir():
                if DIGEST.fullmatch(path.name.partition(".")[0]) and path.lstat().st_mtime < oldest:
                    path.unlink(missing_ok=True)

    def _write(self, path: Path, shape: tuple[int, int], first: Any, rows: Array | None) -> None:
        if rows is None or rows.dtype != FLOAT64 or rows.shape[1:] != shape[1:]:
            raise InvalidInput(f"a part of an upload of {shape} rows and columns that is none")
        if type(first) is not int or not 0 <= first <= first + len(rows) <= shape[0]:
            raise InvalidInput(f"rows {first!r} and on of an upload of {shape[0]}, {len(rows)} of them")
        make_directory(self.directory)
        head = _make_head(shape)
        with _opened(path.with_suffix(".partial"), os.O_RDWR | os.O_CREAT, 0o600) as descriptor:
            if os.fstat(descriptor).st_size != len(head) + 8 * shape[0] * shape[1]:
                os.truncate(descriptor, len(head) + 8 * shape[0] * shape[1])
                _write_all(descriptor, head, 0)
            _write_all(descriptor, rows.reshape(-1).view(np.uint8).data, len(head) + 8 * shape[1] * first)

    def _seal(self, path: Path, digest: str, shape: tuple[int, int]) -> None:
        """The upload gets its name, if it deserves it."""
        if path.is_file():
            return
        partial, head = path.with_suffix(".partial"), _make_head(shape)
        found = hashlib.sha256(f"{shape[0]} {shape[1]} ".encode())
        with _opened(partial, os.O_RDWR) as descriptor:
            is_whole = os.fstat(descriptor).st_size == len(head) + 8 * shape[0] * shape[1]
            at = len(head)
            while is_whole and (piece := os.pread(descriptor, _PIECE, at)):
                found.update(piece)
                at += len(piece)
            if not is_whole or found.hexdigest() != digest or os.pread(descriptor, len(head), 0) != head:
                partial.unlink(missing_ok=True)
                raise DatasetError("the rows that were uploaded are not those that were meant: upload them again")
            os.fsync(descriptor)
        os.rename(partial, path)


def _make_head(shape: tuple[int, int]) -> bytes:
    head = BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return head.getvalue()


@contextlib.contextmanager
def _opened(path: Path, flags: int, mode: int = 0o600) -> Any:
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: Any, at: int) -> None:
    view = memoryview(data)
    while view:
        n_bytes = os.pwrite(descriptor, view, at)
        view, at = view[n_bytes:], at + n_bytes
