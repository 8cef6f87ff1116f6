"""Launches under mpiexec that end in time and leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import demos_hpc
from demos_hpc.mpiexec import Program, find_launcher

#: Where the package that is tested lies: the ranks import the same one.
PACKAGE = str(Path(demos_hpc.__file__).parents[1])
#: Every process of a launch carries this variable, by which it is found.
MARK = "DEMOS_TESTS_LAUNCH"
#: Seconds for a process to end that has been told to.
PATIENCE = 10.0


@dataclass(frozen=True)
class Launched:
    """How a launch has ended; ``left`` are the commands of processes that outlived it."""

    code: int
    out: str
    err: str
    seconds: float
    left: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"exit status {self.code} after {self.seconds:.1f} s\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


def serve(model: str, ranks: int = 2) -> Program:
    """Ranks of a server: a dispatcher, if they come first, and workers."""
    return Program(ranks, [sys.executable, "-m", "demos_hpc", "serve", model])


def serve_spec(description: Path) -> Program:
    """The first rank of a launch whose workers are a program."""
    return Program(1, [sys.executable, "-m", "demos_hpc", "serve", "--spec", str(description)])


def analyze(script: Path | str, *arguments: str, ranks: int = 1) -> Program:
    """Ranks of an analysis."""
    return Program(ranks, [sys.executable, "-m", "demos_hpc", str(script), *arguments])


def start(programs: Sequence[Program], *, cwd: Path, deadline: float, settings: dict[str, str]) -> Launched:
    """Runs one launch to its end; one that takes longer than ``deadline`` seconds is killed, with code -SIGKILL."""
    launcher = find_launcher({"PATH": os.environ.get("PATH", "")})  # mpiexec, inside a Slurm allocation as well
    return run(launcher.build(programs, as_root=os.geteuid() == 0), cwd=cwd, deadline=deadline, settings=settings)


def run(command: Sequence[str], *, cwd: Path, deadline: float, settings: dict[str, str]) -> Launched:
    """Runs a command as `start` does."""
    mark = os.urandom(8).hex()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DEMOS_")}
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1", MARK: mark}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [PACKAGE, os.environ.get("PYTHONPATH")]))
    environment |= settings
    begin = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    code = None
    try:
        out, err = process.communicate(timeout=deadline)
        code = process.returncode
    except subprocess.TimeoutExpired:
        _signal(process, signal.SIGTERM)  # lets the launcher end its ranks, which have process groups of their own
        out, err = _collect(process, mark)
    finally:
        left = end_marked(mark)
    return Launched(-signal.SIGKILL if code is None else code, out, err, time.monotonic() - begin, left)


def _collect(process: subprocess.Popen[str], mark: str) -> tuple[str, str]:
    try:
        return process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        _signal(process, signal.SIGKILL)
        end_marked(mark)  # those that hold the other ends of the pipes
        return process.communicate(timeout=PATIENCE)


def _signal(process: subprocess.Popen[str], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def end_marked(mark: str, seconds: float = PATIENCE) -> tuple[str, ...]:
    """The commands of processes with this mark that do not end by themselves in time; they are killed."""
    left = []
    for pid, command in _find_marked(mark):
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if not select.select([handle], [], [], seconds)[0]:
                left.append(command)
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)
    return tuple(left)


def _find_marked(mark: str) -> list[tuple[int, str]]:
    wanted = f"{MARK}={mark}".encode()
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            with contextlib.suppress(OSError):
                if wanted in (directory / "environ").read_bytes().split(b"\0"):
                    command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found.append((int(directory.name), command))
    return found
