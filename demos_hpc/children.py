"""Child processes that end when they should: after their work, at a deadline, or with us."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType

#: Seconds that a launcher has to end its ranks, after which it is killed; its ranks then notice themselves.
PATIENCE = 10.0
#: Seconds after Ctrl-C: the terminal has told the whole group of processes, and a second signal means "at once".
AFTER_INTERRUPT = 2.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Ended:
    """How a child ended; ``code`` is None where it was ended at the deadline."""

    code: int | None
    out: str
    err: str
    seconds: float


def run_quietly(
    command: Sequence[str], environment: Mapping[str, str], deadline: float, *, close_fds: bool = True
) -> Ended:
    """Runs a command to its end, or to the deadline, in seconds; returns what it wrote.

    It inherits open files unless ``close_fds``.

    Raises
    ------
    OSError
        Where it cannot be started.
    """
    begin = time.monotonic()
    with subprocess.Popen(
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        close_fds=close_fds,
    ) as child:
        code = None
        try:
            out, err = child.communicate(timeout=deadline)
            code = child.returncode
        except subprocess.TimeoutExpired:
            child.terminate()
            try:
                out, err = child.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                child.kill()
                out, err = "", ""  # a rank that lives on may hold the pipes: nothing to wait for
                for pipe in (child.stdout, child.stderr):
                    if pipe is not None:
                        pipe.close()
        except BaseException:
            end(child)
            raise
    return Ended(code, out, err, time.monotonic() - begin)


def run_aloud(
    command: Sequence[str], environment: Mapping[str, str], deadline: float, listen: Callable[[str], None]
) -> Ended:
    """Runs a command as `run_quietly` does, and tells ``listen`` each line of its standard output when it comes.

    What it writes to its standard error goes to ours.
    """
    begin = time.monotonic()
    lines = []
    with subprocess.Popen(
        command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace"
    ) as child:
        assert child.stdout is not None
        timer = threading.Timer(deadline, end, [child])
        timer.start()
        try:
            for line in child.stdout:
                lines.append(line)
                listen(line.rstrip("\n"))
            code = child.wait()
        except BaseException:
            end(child)
            raise
        finally:
            timer.cancel()
    seconds = time.monotonic() - begin
    return Ended(None if seconds >= deadline else code, "".join(lines), "", seconds)


def run_along(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs a command that reads and writes where we do, and ends it when we are told to end.

    Returns
    -------
    int
        Its exit status as a shell gives it, 128 + n after signal n.
    """
    try:
        code = accompany(command, environment)
    except Signaled as told:
        return 128 + told.number
    return code if code >= 0 else 128 - code


def accompany(
    command: Sequence[str],
    environment: Mapping[str, str],
    files: Sequence[int] = (),
    started: Callable[[], object] = lambda: None,
) -> int:
    """The same with the open ``files`` given to the child, and a call once it has them.

    Returns
    -------
    int
        Its exit status, -n after signal n.

    Raises
    ------
    OSError
        Where it cannot be started.
    Signaled
        Where we were told to end; the child has ended.
    """
    child = subprocess.Popen(command, env=dict(environment), pass_fds=files)
    with _raising(SIGNALS):
        try:
            started()
            return child.wait()
        except Signaled as told:
            if told.number == signal.SIGINT:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(AFTER_INTERRUPT)
            end(child)
            told.code = child.returncode
            raise


def end(child: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """Ends a child by its own pid: first it is asked to, so that a launcher takes its ranks along."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


class Signaled(Exception):
    """A signal has told us to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        #: With what the child has ended then.
        self.code: int | None = None

    @property
    def status(self) -> int:
        """The child's exit status if it has one, as one that takes the signal has; else 128 + n."""
        return 128 + self.number if self.code is None or self.code < 0 else self.code


@contextlib.contextmanager
def _raising(numbers: Sequence[signal.Signals]) -> Iterator[None]:
    """Inside, these signals raise `Signaled`, once; after the first, further ones are ignored."""

    def handle(number: int, frame: FrameType | None) -> None:
        for other in numbers:
            signal.signal(other, signal.SIG_IGN)
        raise Signaled(number)

    # What is ignored stays so: nohup means it.
    before = {n: signal.signal(n, handle) for n in numbers if signal.getsignal(n) is not signal.SIG_IGN}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
