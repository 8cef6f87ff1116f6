"""What a process finds out about its host: how much memory it may take, and who shares memory with it."""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
from collections.abc import Iterator
from pathlib import Path

#: This process, among all that are or were.
_PROCESS = secrets.token_hex(8)
#: Files of a control group that say what it may have, has, and could give back, in both versions of Linux's interface.
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = ("memory.max", "memory.current", "inactive_file")


def find_place(directory: Path, boot_id: Path = Path("/proc/sys/kernel/random/boot_id")) -> str:
    """A word that is the same for processes that share files in ``directory``, by host, mount and user.

    Where it cannot be used, the word is this process's own.
    """
    try:
        host = boot_id.read_text(encoding="ascii").strip()
    except OSError:
        host = platform.node()
    if not is_usable(directory):
        return f"{host}-{_PROCESS}"
    return f"{host}-{os.stat(directory).st_dev}-{os.geteuid()}"


def is_usable(directory: Path) -> bool:
    """Whether files can be made and found in this directory."""
    return os.path.isdir(directory) and os.access(directory, os.R_OK | os.W_OK | os.X_OK)


def find_free_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may still take: what the host has, and its control groups allow.

    Slurm makes a control group of each job, and kills those that take more than it was given.
    """
    free = list(_read_limits(root))
    with contextlib.suppress(OSError, ValueError):
        free.append(1024 * _read_table(root / "proc/meminfo")["MemAvailable"])
    return min(free, default=0)


def _read_limits(root: Path) -> Iterator[int]:
    """What each control group that this process is in leaves it."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            base, names = root / "sys/fs/cgroup", _V2
        elif "memory" in controllers.split(","):
            base, names = root / "sys/fs/cgroup/memory", _V1
        else:
            continue
        place = base / path.lstrip("/")
        for group in (place, *place.parents):
            if group.is_relative_to(base):
                # Not all are there, the outermost has no limit, and in a container the path may be that outside.
                with contextlib.suppress(OSError, ValueError):
                    yield _read_limit(group, *names)


def _read_limit(group: Path, limit: str, usage: str, reclaimable: str) -> int:
    most, taken = (int((group / name).read_text(encoding="ascii")) for name in (limit, usage))
    return max(0, most - taken + _read_table(group / "memory.stat").get(reclaimable, 0))


def _read_table(path: Path) -> dict[str, int]:
    """Names and numbers, one of each in a line."""
    rows = (line.split() for line in path.read_text(encoding="ascii").splitlines())
    return {row[0].rstrip(":"): int(row[1]) for row in rows if len(row) > 1}
