"""Small JSON files in a directory that several hosts share: each is there as a whole, or not at all.

Made for NFS and Lustre, where locks hang or lie and nobody is told of changes. A file is written under a temporary
name beside its place, brought to the disk, and then given its name: by rename where the last writer is to win, by
a hard link where the first one is. Readers take nothing for granted: whatever a file turns out to be, they get its
content or a `Problem`, never an exception, and they never wait for a pipe that somebody has put there.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import PREFIX
from .descriptors import sync_directory
from .errors import InvalidInput, RegistryError

TEMPORARY = re.compile(r"\.demos-[0-9a-f]{16}\.tmp")
#: What NFS answers to a look at a file that is being replaced; the next look finds the new one.
REPLACED = (errno.ENOENT, errno.ESTALE)
#: Looks until a file is taken to be gone.
LOOKS = 3
#: What `os.link` answers where the file system has no hard links.
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV)
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
#: Without O_NONBLOCK a pipe in the directory would hold its readers for ever.
EXISTING_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
#: Whoever may enter the directory may read what is in it, as far as the writer's umask lets them.
FILE_MODE = 0o644
#: Unless somebody has made the directory for a group, it is its owner's.
DIRECTORY_MODE = 0o700


@dataclass(frozen=True)
class Problem:
    """A file that was skipped, and why; ``vanished`` where it was only replaced or removed under the reader's eyes."""

    name: str
    reason: str
    vanished: bool = False

    def __post_init__(self) -> None:
        # Whoever may write into the directory chooses names; they shall not steer the reader's terminal.
        object.__setattr__(self, "name", "".join(c if c.isprintable() else "?" for c in self.name))

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def read_json(path: Path, limit: int) -> dict[str, Any] | Problem:
    """The JSON object in a file of at most ``limit`` bytes, or why there is none."""
    try:
        values = json.loads(_read_regular(path, limit).decode())
    except OSError as error:
        return explain(error, path.name)
    except (ValueError, RecursionError) as error:  # nested a thousand deep is as bad as malformed
        return Problem(path.name, f"is no JSON, or only a part of it: {error}")
    if not isinstance(values, dict):
        return Problem(path.name, f"holds no JSON object, but a {type(values).__name__}")
    return values


def explain(error: OSError, name: str) -> Problem:
    """Why a file or directory cannot be read."""
    if error.errno in REPLACED:
        return Problem(name, "vanished while it was read", vanished=True)
    return Problem(name, error.strerror or str(error))


def _read_regular(path: Path, limit: int) -> bytes:
    for _ in range(LOOKS - 1):
        try:
            return _read_once(path, limit)
        except OSError as error:
            if error.errno not in REPLACED:
                raise
    return _read_once(path, limit)


def _read_once(path: Path, limit: int) -> bytes:
    descriptor = os.open(path, EXISTING_FILE)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is no regular file")
        content = b""
        while len(content) <= limit and (piece := os.read(descriptor, limit + 1 - len(content))):
            content += piece
    finally:
        os.close(descriptor)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"holds more than {limit} bytes")
    return content


@contextlib.contextmanager
def complain_about(path: Path) -> Iterator[None]:
    """Makes an OSError a `RegistryError` that names what could not be used, why, and what to do."""
    try:
        yield
    except RegistryError:
        raise
    except OSError as error:
        raise RegistryError(
            f"cannot write {path}: {error.strerror or error}; set {PREFIX}REGISTRY to a directory that all hosts"
            " share, with room, where you may write"
        ) from error


def list_names(directory: Path) -> list[str]:
    """Names of all that is in a directory, sorted; none where there is no directory."""
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []


def to_content(values: Mapping[str, Any], limit: int) -> bytes:
    """A JSON object as the content of a file that `read_json` takes with this limit.

    Raises
    ------
    InvalidInput
        Where it would be larger.
    """
    content = json.dumps(values, indent=1, allow_nan=False).encode()
    if len(content) > limit:
        raise InvalidInput(f"{len(content)} bytes are too much for one file; readers take at most {limit}")
    return content


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file in one step: readers find the old one or the new one. Of several writers, the last one wins.

    Raises
    ------
    RegistryError
        Where it cannot be written; what was there before is untouched.
    """
    with complain_about(path), _written(path.parent, content) as temporary:
        os.rename(temporary, path)


def create_file(path: Path, content: bytes) -> bool:
    """Writes a file unless there is one of this name; of several writers at once, exactly one gets True.

    Where the file system has no hard links, readers may see the file while only a part of it is there.

    Raises
    ------
    RegistryError
        Where it cannot be written.
    """
    with complain_about(path):
        with _written(path.parent, content) as temporary:
            try:
                os.link(temporary, path)
                is_ours = True
            except OSError as error:
                # NFS may have made the link and lost the answer: only a look at the file itself tells.
                is_ours = path.exists() and os.path.samefile(temporary, path)
                if not is_ours and error.errno != errno.EEXIST:
                    if error.errno not in NO_LINKS:
                        raise
                    is_ours = _create_directly(path, content)
        if is_ours:
            sync_directory(path.parent)
        return is_ours


def remove_file(path: Path) -> None:
    """Removes a file, if it is there.

    Raises
    ------
    RegistryError
        Where it is there and stays.
    """
    with complain_about(path):
        path.unlink(missing_ok=True)


def make_directory(path: Path, mode: int = DIRECTORY_MODE) -> None:
    """Makes a directory, and those above it, with this mode whatever the umask; one that exists stays as it is.

    Raises
    ------
    RegistryError
        Where that is not possible.
    """
    with complain_about(path):
        if path.is_dir():
            return
        for directory in [*reversed(path.parents), path]:
            if not directory.is_dir():
                with contextlib.suppress(FileExistsError):  # another process was faster, or the next line tells
                    os.mkdir(directory, mode)
                    with contextlib.suppress(OSError):  # only widens what the umask has narrowed
                        os.chmod(directory, mode)
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


def sweep_temporary(directory: Path, older_than_seconds: float, now: float) -> int:
    """Removes the temporary files that writers left when they died; returns how many.

    Younger ones stay, since their writers may live, and so does whatever cannot be removed.
    """
    n_removed = 0
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = list_names(directory)
    for name in filter(TEMPORARY.fullmatch, names):
        with contextlib.suppress(OSError):
            if os.lstat(directory / name).st_mtime < now - older_than_seconds:
                os.unlink(directory / name)
                n_removed += 1
    return n_removed


@contextlib.contextmanager
def _written(directory: Path, content: bytes) -> Iterator[Path]:
    """A temporary file with this content, safe on the disk; gone afterwards unless it was renamed."""
    path = directory / f".demos-{secrets.token_hex(8)}.tmp"
    try:
        _create_directly(path, content)
        yield path
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _create_directly(path: Path, content: bytes) -> bool:
    """Writes a new file and brings it to the disk; False where there is one of this name."""
    try:
        descriptor = os.open(path, NEW_FILE, FILE_MODE)
    except FileExistsError:
        return False
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    return True
