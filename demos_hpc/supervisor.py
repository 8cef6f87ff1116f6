"""Keeps a server running: its dispatcher and its workers are processes that are started again when they die.

Whoever dies is noticed at once (`os.pidfd_open`). A worker that has answered something, or was given something to die
of, is replaced at once, one that has not after a pause that doubles. A model that cannot even start, three times in a
row while no worker is left, ends the server.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

from .config import Config
from .connection import Connection
from .dialing import Dialed, dial
from .endpoint import is_stale
from .errors import DeadlineExceeded, DemosError, LaunchError, RegistryError, ServerLost
from .handover import Program
from .identity import find_user
from .logs import warn
from .messages import Operation
from .registry import Registry
from .starter import PYTHON
from .threads import limit_threads

#: Seconds until a process that has done nothing is started again, at first and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
#: Starts in vain, one after the other, after which the model is given up.
MOST_FAILURES = 3
#: Seconds for a dispatcher to open its door.
OPENING = 60.0
#: Seconds for a dispatcher to answer, and where the server is about to end.
PATIENCE, HURRY = 60.0, 10.0
#: Seconds between two looks at a server that runs, and at one that begins.
LOOK, GLANCE = 1.0, 0.02
#: Seconds for children to end by themselves, beyond what requests under way are given.
LEAVING = 15.0


class Child:
    """A process that is started again and again, under one name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None
        #: The exit status of the last one.
        self.status: int | None = None
        self.label = ""
        self.generation = 0
        self.pause = FIRST_PAUSE
        self.start_at = 0.0
        self.handle = -1

    def start(self, command: Sequence[str], environment: dict[str, str]) -> None:
        # In a session of its own: Ctrl-C is for us, and we tell it in our own words.
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
        self.handle = os.pidfd_open(self.process.pid)

    def has_ended(self) -> bool:
        """Whether it runs no more, though it was started."""
        if self.process is None or self.process.poll() is None:
            return False
        self.status = self.process.returncode
        self._forget()
        return True

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends a signal to it and to all that it has started."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def end(self, deadline: float) -> None:
        """Gives it until ``deadline`` on the monotonic clock, and then ends it."""
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(max(0.0, deadline - time.monotonic()))
            self.kill()
            self.process.wait()
            self._forget()

    def _forget(self) -> None:
        self.process = None
        os.close(self.handle)
        self.handle = -1


class Supervisor:
    """A server called ``name`` with ``n_workers`` workers of ``model``, or that are a ``program`` where that is "".

    ``opened`` is called once its door is open.
    """

    def __init__(
        self,
        model: str,
        n_workers: int,
        name: str,
        config: Config,
        threads: int = 1,
        opened: Callable[[], None] = lambda: None,
        program: Program | None = None,
    ) -> None:
        self._model = model
        self._program = program
        self._name = name
        self._config = config
        self._opened = opened
        #: Tells workers from those of another server of the same name.
        self._family = uuid.uuid4().hex
        self._registry = Registry(config.registry_directory)
        self._environment = {**os.environ, **limit_threads(os.environ, threads)}
        self._dispatcher = Child("dispatcher")
        #: The server's id, another one with each dispatcher.
        self._id = ""
        self._workers = [Child(f"worker {slot}") for slot in range(n_workers)]
        self._dialed: Dialed | None = None
        self._operator: Connection | None = None
        self._is_told = False
        self._signals = 0
        self._failures = 0
        self._next_look = 0.0

    def run(self) -> int:
        """Runs the server until somebody stops it; returns the exit status."""
        with self._listening():
            try:
                self._clear()
                self._start_dispatcher()
                self._opened()
                while not self._is_told:
                    self._turn()
            except LaunchError:
                self._is_told = True
                raise
            finally:
                self._end()
        return 0

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {n: signal.signal(n, self._take_signal) for n in numbers if signal.getsignal(n) is not signal.SIG_IGN}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take_signal(self, number: int, frame: FrameType | None) -> None:
        self._is_told = True
        self._signals += 1

    # ---- the dispatcher -------------------------------------------------------------------------------------

    def _clear(self) -> None:
        """Takes away what a server left that was killed before this job of Slurm's began anew: the job lives."""
        job = os.environ.get("SLURM_JOB_ID")
        for endpoint in self._registry.find(self._name) if job else ():
            ours = (endpoint.name, endpoint.job, endpoint.user) == (self._name, job, find_user())
            if ours and is_stale(endpoint, time.time()):
                with contextlib.suppress(RegistryError):
                    self._registry.withdraw(endpoint.id)

    def _start_dispatcher(self) -> None:
        self._id = uuid.uuid4().hex
        family = ("--family", self._family)
        self._run(self._dispatcher, "dispatch", self._model, "--name", self._name, "--id", self._id, *family)
        end = time.monotonic() + OPENING
        while not self._is_told:
            if self._dispatcher.has_ended():
                raise LaunchError(f"the dispatcher of server {self._name!r} ended before its door was open")
            if self._dial():
                return
            if time.monotonic() >= end:
                raise LaunchError(f"the dispatcher of server {self._name!r} has not opened its door in {OPENING:g} s")
            time.sleep(GLANCE)

    def _dial(self) -> bool:
        for endpoint in self._registry.find(self._name):
            if endpoint.id == self._id:
                with contextlib.suppress(ServerLost, DeadlineExceeded):
                    self._dialed = dial(endpoint, self._config, "operator", seconds=OPENING, label="supervisor")
                    self._operator = Connection(self._dialed.port, self._dialed.link, self._config)
                    return True
        return False

    def _ask(self, operation: Operation, question: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """What the dispatcher says; None where it says nothing any more."""
        if self._operator is None:
            return None
        try:
            seconds = HURRY if self._is_told else PATIENCE
            answer: dict[str, Any] = self._operator.ask(operation, question or {}).result(timeout=seconds)
        except DemosError:  # it has ended, or is about to
            self._hang_up()
            return None
        except TimeoutError:
            warn(f"the dispatcher of server {self._name!r} has not answered for {seconds:g} s and is ended")
            self._dispatcher.kill()
            self._hang_up()
            return None
        return answer

    def _hang_up(self) -> None:
        self._operator = None
        if self._dialed is not None:
            self._dialed.port.close()
            self._dialed = None

    # ---- the loop -------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        now = time.monotonic()
        if self._dispatcher.has_ended():
            self._hang_up()
            if self._dispatcher.status == 0:  # somebody has told it to
                self._is_told = True
            else:
                self._replace_dispatcher()
            return
        for worker in self._workers:
            if worker.has_ended():
                self._mourn(worker)
            if worker.process is None and now >= worker.start_at:
                worker.generation += 1
                worker.label = f"{self._name}.{worker.name.split()[1]}#{worker.generation}"
                where = ("--join", self._name, "--family", self._family)
                self._run(worker, "worker", *where, "--label", worker.label, *self._name_program())
        if now >= self._next_look:
            self._look(now)
        self._wait()

    def _name_program(self) -> list[str]:
        """What workers are to run, as words of a command line."""
        program = self._program
        if program is None:
            return []
        spec = ["--spec", program.spec] if program.spec else []
        return ["--exec", program.path, *spec, *(["--", *program.arguments] if program.arguments else [])]

    def _replace_dispatcher(self) -> None:
        """Starts another under the same name, which workers and clients are going to look for."""
        warn(f"server {self._name!r} has lost its dispatcher; it is started again")
        with contextlib.suppress(RegistryError):  # whoever finds the entry will be refused a connection
            self._registry.withdraw(self._id)
        end = time.monotonic() + self._dispatcher.pause
        while not self._is_told and time.monotonic() < end:
            time.sleep(GLANCE)
        self._dispatcher.pause = min(2 * self._dispatcher.pause, LONGEST_PAUSE)
        self._start_dispatcher()

    def _look(self, now: float) -> None:
        """Ends the workers that the dispatcher has given up, and notices that it was stopped by others."""
        self._next_look = now + LOOK
        description = self._ask(Operation.STATISTICS)
        if description is None:
            return
        self._dispatcher.pause = FIRST_PAUSE
        for worker in self._workers:
            if worker.label in description["evicted"]:
                worker.kill()
        self._is_told |= bool(description["is_stopping"])

    def _mourn(self, worker: Child) -> None:
        """A worker has died: says how, and decides when another takes its place."""
        if worker.status is not None and worker.status < 0:
            name = signal.Signals(-worker.status).name if -worker.status in set(signal.Signals) else "?"
            warn(f"worker {worker.label} was ended by signal {-worker.status} ({name}); another takes its place")
        elif worker.status:
            warn(f"worker {worker.label} ended with exit status {worker.status}; another takes its place")
        description = self._ask(Operation.STATISTICS)
        if description is None:
            worker.start_at = time.monotonic() + worker.pause
            return
        chunks = description["careers"].get(worker.label)
        if chunks:
            worker.pause = FIRST_PAUSE
        self._failures = 0 if chunks is not None else self._failures + 1
        is_alone = not any(other["is_alive"] for other in description["workers"])
        if self._failures >= MOST_FAILURES and is_alone:
            hint = "" if self._program else f". Does `demos-hpc check {self._model}` work?"
            raise LaunchError(
                f"workers of server {self._name!r} could not start, {self._failures} times in a row: what they said"
                f" stands above{hint}"
            )
        worker.start_at = time.monotonic() + worker.pause
        worker.pause = min(2 * worker.pause, LONGEST_PAUSE)

    def _wait(self) -> None:
        """Until a child ends, or something is due."""
        poll = select.poll()
        for child in (self._dispatcher, *self._workers):
            if child.process is not None:
                poll.register(child.handle, select.POLLIN)
        due = [self._next_look, *(worker.start_at for worker in self._workers if worker.process is None)]
        poll.poll(max(0.0, min(due) - time.monotonic()) * 1e3)

    def _run(self, child: Child, *words: str) -> None:
        child.start([*PYTHON, *words], self._environment)

    # ---- the end --------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """Lets everybody finish what they do, and ends those who do not."""
        self._is_told = True
        signals = self._signals
        answer = self._ask(Operation.STOP)
        if answer is not None and answer["requests"]:
            how_many = "1 request" if answer["requests"] == 1 else f"{answer['requests']} requests"
            warn(f"server {self._name!r} ends after {how_many} under way; told again, by Ctrl-C, it ends at once")
        deadline = time.monotonic() + (self._config.stop_seconds if self._operator else 0.0) + LEAVING
        if self._operator is None:  # nobody else tells them
            for child in (self._dispatcher, *self._workers):
                child.kill(signal.SIGTERM)
        deadline = self._await_dispatcher(deadline, signals)
        self._dispatcher.end(deadline)
        self._hang_up()
        for worker in self._workers:
            worker.end(min(deadline, time.monotonic() + LEAVING))
        sys.stdout.flush()

    def _await_dispatcher(self, deadline: float, signals: int) -> float:
        """Until it has ended, or somebody tells us once more to end; returns until when anybody may take."""
        process = self._dispatcher.process
        while process is not None and process.poll() is None and time.monotonic() < deadline:
            if self._signals > signals:
                self._ask(Operation.STOP, {"now": True})
                return min(deadline, time.monotonic() + LEAVING)
            time.sleep(GLANCE)
        return deadline
