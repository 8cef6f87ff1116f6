"""Open files: what the kernel may do in part, done as a whole; directories, so that new names survive a crash."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write_all(descriptor: int, data: bytes | memoryview, at: int) -> None:
    """Writes all bytes of ``data``, from byte ``at`` of the file on."""
    view = memoryview(data)
    while view:
        n_bytes = os.pwrite(descriptor, view, at)
        view, at = view[n_bytes:], at + n_bytes


def read_all(descriptor: int, view: memoryview, at: int) -> int:
    """Fills ``view`` with what begins at byte ``at``; returns how many bytes came, fewer where the file ends."""
    begin = at
    while view:
        n_bytes = os.preadv(descriptor, [view], at)
        if not n_bytes:
            break
        view, at = view[n_bytes:], at + n_bytes
    return at - begin


def sync_directory(directory: Path) -> None:
    """Makes a new name in it survive a crash of the file server; some file systems do so anyway and refuse."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
