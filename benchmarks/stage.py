"""Peers side by side: each is a launch of its own, asleep until it is asked to run, so that runs can be alternated.

The benchmark listens on a Unix socket; the measuring process of each peer connects to it and answers questions, one
JSON line each: ``{"run": NAME, ...arguments}``, the answer any JSON value.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from demos_hpc.mpiexec import Program, find_launcher

HERE = Path(__file__).parent
ADDRESS = "DEMOS_BENCH_ADDRESS"
#: So that the ranks find the benchmarks' models.
PATH = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
PEER_TIMEOUT = 300.0
#: The start of a command that runs a Python file.
PYTHON = (sys.executable, "-P")  # not what the working directory has: the demos-hpc that is measured is ours
SERVE = (*PYTHON, "-m", "demos_hpc", "serve")
ANALYZE = (*PYTHON, "-m", "demos_hpc")


class Peer:
    """A running launch whose measuring process answers questions."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], connection: socket.socket, polls: bool) -> None:
        self.name = name
        self._polls = polls
        self._process = process
        self._connection = connection
        self._lines = connection.makefile("r")

    @property
    def pid(self) -> int:
        """Of the launcher; the ranks are below it."""
        return self._process.pid

    def ask(self, run: str, **arguments: Any) -> Any:
        """Has one thing measured and returns what came of it."""
        self._signal(signal.SIGCONT)
        self._connection.sendall(json.dumps({"run": run, **arguments}).encode() + b"\n")
        line = self._lines.readline()
        self._signal(signal.SIGSTOP)
        if not line:
            raise RuntimeError(f"{self.name} ended while it measured {run!r}")
        return json.loads(line)

    def _signal(self, number: int) -> None:
        """A peer that polls while it waits would disturb the others, and is stopped meanwhile."""
        if self._polls:
            for process in list_processes_below(self.pid):
                os.kill(process, number)

    def close(self) -> None:
        self._signal(signal.SIGCONT)
        self._connection.close()
        self._lines.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def start_peer(
    name: str, *programs: Program, environment: dict[str, str] | None = None, polls: bool = False
) -> Iterator[Peer]:
    """Starts one launch (`demos_hpc.mpiexec`) and waits until its measuring process has connected."""
    command = find_launcher({"PATH": os.environ["PATH"]}).build(programs, as_root=os.geteuid() == 0)
    with start_command(name, command, environment=environment, polls=polls) as peer:
        yield peer


@contextlib.contextmanager
def start_command(
    name: str, command: Sequence[str], *, environment: dict[str, str] | None = None, polls: bool = False
) -> Iterator[Peer]:
    """The same for any command."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        address = f"{folder}/stage"
        listener.bind(address)
        listener.listen()
        listener.settimeout(PEER_TIMEOUT)
        settings = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": PATH, ADDRESS: address}
        process = subprocess.Popen(command, env={**os.environ, **settings, **(environment or {})})
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            process.kill()
            raise RuntimeError(f"{name} has not started within {PEER_TIMEOUT} s: {' '.join(command)}") from None
        connection.settimeout(PEER_TIMEOUT)
        peer = Peer(name, process, connection, polls)
        try:
            yield peer
        finally:
            peer.close()


def list_processes_below(pid: int) -> list[int]:
    """The processes that a launcher has started, directly or not."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it may have ended meanwhile
                parent = (entry / "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[1]
                parents.setdefault(int(parent), []).append(int(entry.name))
    below, found = [pid], []
    while below:
        children = parents.get(below.pop(), [])
        found += children
        below += children
    return found


def answer(runs: dict[str, Callable[..., Any]]) -> None:
    """In the measuring process: answers the benchmark's questions until it has no more."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ[ADDRESS])
        for line in connection.makefile("r"):
            question = json.loads(line)
            result = runs[question.pop("run")](**question)
            connection.sendall(json.dumps(result).encode() + b"\n")


def alternate(rounds: int, *measures: Callable[[], float]) -> list[list[float]]:
    """Each measure ``rounds`` times, in turn: a list of values for each."""
    values: list[list[float]] = [[] for _ in measures]
    for _ in range(rounds):
        for measure, column in zip(measures, values, strict=True):
            column.append(measure())
    return values


def compare(over: Sequence[float], under: Sequence[float]) -> tuple[float, float, float]:
    """Median of the paired ratios, and their quartiles."""
    ratios = sorted(a / b for a, b in zip(over, under, strict=True))
    return median(ratios), ratios[len(ratios) // 4], ratios[(3 * len(ratios)) // 4]


def time_together(
    commands: Sequence[Sequence[str]], *, cwd: Path | None = None, environment: dict[str, str] | None = None
) -> float:
    """Seconds until all commands are done, from when all were ready: each says "ready", is told to go, says "done"."""
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=cwd, env=environment, text=True
                )
            )
            for command in commands
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        start = time.perf_counter()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "done\n"
        return time.perf_counter() - start
