"""Rows in memory, shared by all processes of a user on a host; any of them fills what it needs first.

Rows lie in a file of a file system in memory (``/dev/shm``), which is as long as all of them and has room only for what
was written. It is filled in *slabs*, runs of rows. A slab has a byte of its own in the file that is written after its
rows, and then never changes; a process that sees the byte finds the rows. Those who fill the same slab at once write
the same bytes, so nobody waits for anybody, and whoever is killed, at whatever moment, leaves nothing half said.

Rows and byte are written by system calls, and only ever read through the mapping: a full file system is an error of the
call instead of a signal (SIGBUS), and what is between two calls also orders the stores on processors that reorder them.

Whoever has the file open holds a shared lock on it, which the kernel takes from the dead. Whoever gets the exclusive
lock is alone with the file and removes it. Who opens it looks, once the lock is held, whether the file still has its
name, and otherwise begins again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import re
import stat
import weakref
from pathlib import Path

import numpy as np

from .descriptors import write_all
from .errors import InvalidInput
from .messages import Array, FloatArray

#: Bytes of a slab, about; and of one that is made longer, so that no chunk of an HDF5 file is inflated twice.
SLAB_BYTES = 4 << 20
LONG_SLAB_BYTES = 64 << 20
NAME = re.compile(r"demos-(\d+)-[0-9a-f]{32}")
#: How files are laid out: rows, weights, a byte for each slab. Another number for another layout.
_LAYOUT = 1
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
_OLD_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
#: Times that a file is found which is just being removed.
_TRIES = 1000
_ITEM = 8


def choose_slab_rows(row_bytes: int, chunk_rows: int = 0) -> int:
    """Rows of a slab, for rows of so many bytes that are read from chunks of ``chunk_rows``, 0 where there are none."""
    rows = max(1, SLAB_BYTES // row_bytes)
    if not chunk_rows:
        return rows
    if chunk_rows <= rows:
        return rows - rows % chunk_rows
    return chunk_rows if chunk_rows * row_bytes <= LONG_SLAB_BYTES else rows


class Segment:
    """The rows of one reference: x (rows, width), and where ``is_weighted`` weights (rows,).

    Parameters
    ----------
    name
        The reference, as bytes; with the shape it tells this memory from any other.
    directory
        Where the file is; None, or where no such file can be had there, for memory that nobody shares. Where there is
        no memory at all, nothing can be put.
    """

    def __init__(
        self, name: bytes, rows: int, width: int, is_weighted: bool, slab_rows: int, directory: Path | None
    ) -> None:
        if min(rows, width, slab_rows) < 1:
            raise InvalidInput(f"memory for {rows} rows of {width} columns, in slabs of {slab_rows}")
        self.slab_rows = slab_rows
        self._rows = rows
        self._row_bytes = _ITEM * width
        self._weights_at = _ITEM * rows * width
        self._ready_at = self._weights_at + (_ITEM * rows if is_weighted else 0)
        n_slabs = -(-rows // slab_rows)
        self._seen = bytearray(n_slabs)
        self._is_weighted = is_weighted
        #: Rows (rows, width) and weights (rows,), float64, read-only. Slabs that are not ready are not to be looked at.
        self.x: FloatArray = np.empty((0, width))
        self.weights: FloatArray | None = None
        shared: Path | None = None
        self._descriptor = -1
        size = self._ready_at + n_slabs
        if directory is not None:
            layout = f"{_LAYOUT} {rows} {width} {is_weighted} {slab_rows}".encode()
            digest = hashlib.blake2b(name + b"\0" + layout, digest_size=16).hexdigest()
            path = directory / f"demos-{os.geteuid()}-{digest}"
            with contextlib.suppress(OSError):
                self._descriptor = _open_shared(path, size)
                shared = path
        if self._descriptor < 0:
            with contextlib.suppress(OSError):
                self._descriptor = _make_private(size)
        # Also when Python ends, or when nobody has this any more: memory would stay taken until the next worker starts.
        self._finalize = weakref.finalize(self, _let_go, shared, self._descriptor, os.getpid())
        if self._descriptor >= 0:
            self._map(size, (rows, width))

    def _map(self, size: int, shape: tuple[int, int]) -> None:
        try:
            # Nobody may write: a model that works in its argument would alter the data of all others.
            memory = mmap.mmap(self._descriptor, size, prot=mmap.PROT_READ)
        except (OSError, ValueError):  # addresses are limited, or the file was cut short
            self.close()
            return
        self.x = np.frombuffer(memory, np.float64, shape[0] * shape[1]).reshape(shape)
        if self._is_weighted:
            self.weights = np.frombuffer(memory, np.float64, shape[0], self._weights_at)

    def close(self) -> None:
        """Lets go of the memory; its last user removes it. Arrays that were given away stay as they are."""
        self.x, self.weights = self.x[:0].copy(), None
        self._seen = bytearray(len(self._seen))
        self._finalize()
        self._descriptor = -1

    @property
    def has_memory(self) -> bool:
        """Whether anything can be put here."""
        return self._descriptor >= 0

    @property
    def held_bytes(self) -> int:
        """Memory that is taken."""
        return os.fstat(self._descriptor).st_blocks * 512 if self._descriptor >= 0 else 0

    def rows_of(self, slab: int) -> tuple[int, int]:
        """The first row of a slab, and the one after its last."""
        first = slab * self.slab_rows
        return first, min(first + self.slab_rows, self._rows)

    def count_bytes(self, slab: int) -> int:
        """Memory that a slab takes."""
        first, stop = self.rows_of(slab)
        return (stop - first) * (self._row_bytes + (_ITEM if self._is_weighted else 0))

    def has_seen(self, first: int, last: int) -> bool:
        """Whether all slabs from ``first`` to ``last`` are known to be there."""
        return self._seen.find(0, first, last + 1) < 0

    def is_ready(self, first: int, last: int) -> bool:
        """Whether all slabs from ``first`` to ``last`` are there; looks what others have done."""
        if self.has_seen(first, last):
            return True
        if self._descriptor < 0:
            return False
        look = os.pread(self._descriptor, last + 1 - first, self._ready_at + first)
        if len(look) != last + 1 - first:  # cut short by somebody
            return False
        self._seen[first : last + 1] = look
        return 0 not in look

    def reserve(self, slab: int) -> bool:
        """Takes the memory of a slab; False where there is none."""
        if self._descriptor < 0:
            return False
        first, stop = self.rows_of(slab)
        try:
            os.posix_fallocate(self._descriptor, first * self._row_bytes, (stop - first) * self._row_bytes)
            if self._is_weighted:
                at = self._weights_at + _ITEM * first
                os.posix_fallocate(self._descriptor, at, _ITEM * (stop - first))
        except OSError:
            return False
        return True

    def put(self, slab: int, x: FloatArray, weights: FloatArray | None) -> bool:
        """Writes the rows of a slab, C-contiguous, and then that they are there; False where there is no room."""
        first, _ = self.rows_of(slab)
        try:
            _write(self._descriptor, x, first * self._row_bytes)
            if weights is not None:
                _write(self._descriptor, weights, self._weights_at + _ITEM * first)
            _write(self._descriptor, np.ones(1, np.uint8), self._ready_at + slab)
        except OSError:
            return False
        self._seen[slab] = 1
        return True


def _write(descriptor: int, array: Array, at: int) -> None:
    write_all(descriptor, array.reshape(-1).view(np.uint8).data, at)


# ---- files ------------------------------------------------------------------------------------------------------


def _make_private(size: int) -> int:
    descriptor = os.memfd_create("demos-rows", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, size)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _open_shared(path: Path, size: int) -> int:
    """The file of this name, made if need be, with a shared lock; OSError where something else has the name."""
    for _ in range(_TRIES):
        descriptor = os.open(path, _NEW_FILE, 0o600)
        try:
            if _lock_shared(path, descriptor, size):
                return descriptor
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
        os.sched_yield()  # whoever removes the file is about to be done
    raise BlockingIOError(f"{path} is locked")


def _lock_shared(path: Path, descriptor: int, size: int) -> bool:
    """Whether the file is ours now, and has its name."""
    status = os.fstat(descriptor)
    if not _is_ours(status) or stat.S_IMODE(status.st_mode) != 0o600:
        raise FileExistsError(f"{path} belongs to somebody else, or is open to others")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    if not _has_name(path, descriptor):
        return False
    found = os.fstat(descriptor).st_size
    if not found:  # of several that find it so, each makes it the same
        os.ftruncate(descriptor, size)
    elif found != size:
        raise FileExistsError(f"{path} has {found} bytes, and should have {size}")
    return True


def _let_go(path: Path | None, descriptor: int, process: int) -> None:
    """Closes a file, and removes it where nobody else uses it; a fork shares its locks, and only closes its own."""
    if descriptor < 0:
        return
    if path is not None and os.getpid() == process:
        _remove_unused(path, descriptor)
    os.close(descriptor)


def _is_ours(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


def _has_name(path: Path, descriptor: int) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))


def _remove_unused(path: Path, descriptor: int) -> bool:
    """Removes a file unless somebody else uses it; the lock on it is lost or exclusive then."""
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _has_name(path, descriptor):
            path.unlink()
            return True
    return False


def _list_files(directory: Path) -> list[Path]:
    """Names in a directory that can be those of our segments."""
    matches = map(NAME.fullmatch, os.listdir(directory))
    return [directory / found[0] for found in matches if found and int(found[1]) == os.geteuid()]


def sweep(directory: Path) -> int:
    """Removes segments of this user that nobody uses, as killed processes leave them; returns how many."""
    n_removed = 0
    with contextlib.suppress(OSError):
        for path in _list_files(directory):
            with contextlib.suppress(OSError):
                descriptor = os.open(path, _OLD_FILE)
                try:
                    if _is_ours(os.fstat(descriptor)):
                        n_removed += _remove_unused(path, descriptor)
                finally:
                    os.close(descriptor)
    return n_removed


def count_held_bytes(directory: Path) -> int:
    """Memory that segments of this user take in a directory."""
    n_bytes = 0
    with contextlib.suppress(OSError):
        for path in _list_files(directory):
            with contextlib.suppress(OSError):
                n_bytes += os.stat(path, follow_symlinks=False).st_blocks * 512
    return n_bytes
