"""Names the ranks that hang, or were never ours, while all others wait for them inside MPI_Init.

MPI_Init returns when every rank has called it. A rank that never does hangs the others in C code, where no Python
timer fires. So each rank leaves a mark in a directory before it calls MPI_Init, and rank 0 starts this very file as a
process of its own, which says which marks are missing when time is up, and ends rank 0: the launcher ends the rest.
Only the standard library is imported here, since the process must start fast.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

#: Environment variables in which launchers tell a process its rank and the size of its world before MPI_Init.
RANK_AND_SIZE = (
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)
#: Seconds after which a rank that the watchdog did not end shows where it hangs and exits.
GRACE = 10.0


def find_rank_and_size() -> tuple[int, int] | None:
    """This process's world rank and the world's size, as the launcher says them; None without a launcher."""
    for rank, size in RANK_AND_SIZE:
        if os.environ.get(rank, "").isdigit() and os.environ.get(size, "").isdigit():
            return int(os.environ[rank]), int(os.environ[size])
    return None


@contextlib.contextmanager
def watch_start(run_dir: str, timeout: float) -> Iterator[None]:
    """MPI is initialized inside; takes at most about ``timeout`` seconds. ``run_dir`` is empty for a default."""
    place = find_rank_and_size()
    if place is None or place[1] < 2:
        yield
        return
    rank, size = place
    # Ranks of one launch on one host have the same parent.
    directory = Path(run_dir or f"/dev/shm/demos-run-{os.getuid()}-{os.getppid()}")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    (directory / str(rank)).touch()
    watchdog = None
    if rank == 0:
        command = [sys.executable, "-S", __file__, str(directory), str(size), str(timeout), str(os.getpid())]
        watchdog = subprocess.Popen(command, stdin=subprocess.PIPE)
    faulthandler.dump_traceback_later(timeout + GRACE, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        if watchdog is not None:
            watchdog.communicate()  # closes its standard input, which ends it
            shutil.rmtree(directory, ignore_errors=True)


def find_missing(directory: Path, size: int) -> list[int]:
    """The ranks that have left no mark."""
    return [rank for rank in range(size) if not (directory / str(rank)).exists()]


def main(directory: Path, size: int, timeout: float, process: int) -> None:
    """Waits until standard input is closed; if that takes longer than ``timeout``, says why and ends ``process``."""
    if select.select([sys.stdin], [], [], timeout)[0]:
        return
    missing = find_missing(directory, size)
    shutil.rmtree(directory, ignore_errors=True)
    who = ", ".join(f"rank {rank}" for rank in missing) or "none of them"
    print(
        f"demos-hpc: of {size} ranks, not started after {timeout:g} s (DEMOS_ROLL_CALL_TIMEOUT): {who}. They hang"
        " before MPI_Init, or are programs of another kind: start servers by `demos-hpc serve`, analyses by"
        " `python -m demos_hpc analysis.py`",
        file=sys.stderr,
        flush=True,
    )
    os.kill(process, signal.SIGTERM)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
