"""Several workers of one host that join a server through its door, each started again when it dies.

The server's own workers are its supervisor's; these are of other jobs and other nodes. They end with the server, or
when they are told to, after what they compute.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Sequence
from types import FrameType

from .logs import warn
from .starter import PYTHON
from .supervisor import FIRST_PAUSE, LEAVING, LONGEST_PAUSE, LOOK, MOST_FAILURES, Child
from .threads import limit_threads

#: Seconds after which a worker has done well, and is replaced at once when it dies.
STEADY = 30.0


class Crew:
    """``n_workers`` processes ``demos-hpc worker WORDS --label LABEL.0#1 AFTER``."""

    def __init__(self, n_workers: int, words: Sequence[str], after: Sequence[str], label: str) -> None:
        self._command = [*PYTHON, "worker", *words]
        self._after = after
        self._label = label
        self._environment = {**os.environ, **limit_threads(os.environ)}
        self._children = [Child(f"worker {slot}") for slot in range(n_workers)]
        self._began = dict.fromkeys(self._children, 0.0)
        self._failures = dict.fromkeys(self._children, 0)
        self._is_told = False

    def run(self) -> int:
        """Stays with the workers until the server has ended, or a signal comes; returns the exit status."""
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self._take_signal) for number in numbers}
        try:
            while self._children and not self._is_told:
                self._turn()
            return 0 if self._is_told else 1
        finally:
            for child in self._children:
                child.kill(signal.SIGTERM)
            # Whoever computes for an hour is ended by those who wait for us.
            for child in self._children:
                child.end(time.monotonic() + LEAVING)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take_signal(self, number: int, frame: FrameType | None) -> None:
        self._is_told = True

    def _turn(self) -> None:
        now = time.monotonic()
        for child in list(self._children):
            if child.has_ended():
                self._mourn(child, now)
            elif child.process is None and now >= child.start_at:
                child.generation += 1
                label = f"{self._label}.{child.name.split()[1]}#{child.generation}"
                child.start([*self._command, "--label", label, *self._after], self._environment)
                self._began[child] = now
        poll = select.poll()
        for child in self._children:
            if child.process is not None:
                poll.register(child.handle, select.POLLIN)
        due = [child.start_at for child in self._children if child.process is None]
        # A signal does not end the wait.
        poll.poll(max(0.0, min([now + LOOK, *due]) - time.monotonic()) * 1e3)

    def _mourn(self, child: Child, now: float) -> None:
        if child.status == 0:  # the server has ended, or somebody wants it to leave
            self._is_told = True
            return
        if now - self._began[child] > STEADY:
            self._failures[child], child.pause = 0, FIRST_PAUSE
        self._failures[child] += 1
        if self._failures[child] >= MOST_FAILURES:
            self._children.remove(child)
            warn(f"{child.name} of {self._label} is given up after {MOST_FAILURES} failures in a row")
            return
        warn(f"{child.name} of {self._label} ended with status {child.status}; another takes its place")
        child.start_at = now + child.pause
        child.pause = min(2 * child.pause, LONGEST_PAUSE)
