"""Uploaded rows on the file system that the workers share: written in parts, by anyone, and named by their content.

A file has its name, the digest of its rows, only once it is complete and was found to be what it is called.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from .descriptors import write_all
from .errors import BadFrame, DatasetError, InvalidInput, RegistryError, TooLarge
from .messages import Array
from .shared_files import make_directory
from .uploads import check_upload
from .wire import FLOAT64

DIGEST = re.compile(r"[0-9a-f]{64}")
#: Seconds that rows are kept which nobody uses.
KEEP_SECONDS = 14 * 86400.0
_PIECE = 1 << 22


class Spool:
    """The directory of uploads, none of which has more than ``max_bytes``."""

    def __init__(self, directory: Path, max_bytes: int = 1 << 40) -> None:
        self.directory = directory
        self._max_bytes = max_bytes

    def answer(self, question: Mapping[str, Any], rows: Array | None) -> dict[str, Any]:
        """What a client asks of an upload: whether it is here, to write a part of it, or that it is complete.

        Raises
        ------
        BadFrame
            Where the question is none.
        TooLarge
            Where the upload is.
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
        shape, size = (n_rows, n_columns), 8 * n_rows * n_columns
        if size > self._max_bytes:
            raise TooLarge(f"an upload of {size} bytes; this server keeps {self._max_bytes} (DEMOS_MAX_REQUEST_BYTES)")
        try:
            if question.get("do") == "write":
                self._write(digest, shape, question.get("first"), rows)
            elif question.get("do") == "seal":
                self._seal(digest, shape)
            elif question.get("do") != "find":
                raise BadFrame(f"an upload with which {question.get('do')!r} is to be done")
            return {"is_here": self._is_here(digest, shape)}
        except OSError as error:
            if isinstance(error, DatasetError):
                raise
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                self._find_partial(digest, shape).unlink(missing_ok=True)
            why = error.__cause__ if isinstance(error, RegistryError) else error
            raise DatasetError(
                f"{size} bytes of uploaded rows cannot be kept in {self.directory}: {getattr(why, 'strerror', why)};"
                " set DEMOS_SPOOL to a directory with room that all hosts of the server share"
            ) from None

    def sweep(self, now: float | None = None) -> None:
        """Removes rows that nobody has used for `KEEP_SECONDS`."""
        oldest = (time.time() if now is None else now) - KEEP_SECONDS
        with contextlib.suppress(OSError):
            for path in self.directory.iterdir():
                if DIGEST.fullmatch(path.name.partition(".")[0]) and path.lstat().st_mtime < oldest:
                    path.unlink(missing_ok=True)

    def _find_partial(self, digest: str, shape: tuple[int, int]) -> Path:
        """Where rows wait to be complete; whoever says another shape of them does not get in the way."""
        return self.directory / f"{digest}.{shape[0]}x{shape[1]}.partial"

    def _is_here(self, digest: str, shape: tuple[int, int]) -> bool:
        """Whether the upload is complete, and still is; from now on it is in use."""
        with contextlib.suppress(DatasetError):
            check_upload(self.directory, digest, shape)
            return True
        return False

    def _write(self, digest: str, shape: tuple[int, int], first: Any, rows: Array | None) -> None:
        if rows is None or rows.dtype != FLOAT64 or rows.shape[1:] != shape[1:]:
            raise InvalidInput(f"a part of an upload of {shape} rows and columns that is none")
        if type(first) is not int or not 0 <= first <= first + len(rows) <= shape[0]:
            raise InvalidInput(f"rows {first!r} and on of an upload of {shape[0]}, {len(rows)} of them")
        make_directory(self.directory)
        head = _make_head(shape)
        size = len(head) + 8 * shape[0] * shape[1]
        with _opened(self._find_partial(digest, shape), os.O_RDWR | os.O_CREAT) as descriptor:
            if os.fstat(descriptor).st_size != size:
                disk = os.fstatvfs(descriptor)
                if disk.f_blocks and size > disk.f_bavail * disk.f_frsize:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.truncate(descriptor, size)
                write_all(descriptor, head, 0)
            write_all(descriptor, rows.reshape(-1).view(np.uint8).data, len(head) + 8 * shape[1] * first)

    def _seal(self, digest: str, shape: tuple[int, int]) -> None:
        """The upload gets its name, if it deserves it. What is kept is a copy: others may write while we look."""
        partial, new = self._find_partial(digest, shape), self.directory / f"{digest}.{secrets.token_hex(8)}.new"
        try:
            if self._is_here(digest, shape) or self._copy(partial, new, digest, shape):
                partial.unlink(missing_ok=True)
                return
        finally:
            new.unlink(missing_ok=True)
        if not self._is_here(digest, shape):  # somebody who brought the same rows may have been faster
            partial.unlink(missing_ok=True)
            raise DatasetError("the rows that were uploaded are not those that were meant: upload them again")

    def _copy(self, partial: Path, new: Path, digest: str, shape: tuple[int, int]) -> bool:
        """Whether ``partial`` has the rows of this digest; then they are kept under their name, by way of ``new``."""
        head, found = _make_head(shape), hashlib.sha256(f"{shape[0]} {shape[1]} ".encode())
        at, end = len(head), len(head) + 8 * shape[0] * shape[1]
        try:
            with _opened(partial, os.O_RDONLY) as source, _opened(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as target:
                if os.fstat(source).st_size != end:
                    return False
                write_all(target, head, 0)
                while at < end and (piece := os.pread(source, min(_PIECE, end - at), at)):
                    found.update(piece)
                    write_all(target, piece, at)
                    at += len(piece)
                if found.hexdigest() != digest:
                    return False
                os.fsync(target)
        except FileNotFoundError:
            return False
        os.rename(new, self.directory / f"{digest}.npy")
        return True


def _make_head(shape: tuple[int, int]) -> bytes:
    head = BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return head.getvalue()


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
