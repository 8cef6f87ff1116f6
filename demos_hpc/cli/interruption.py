"""Ctrl-C, and SIGTERM as batch systems send it, while a file is written: both come soon, and end a command in peace.

An exception that a handler raises is lost where Python happens to be in a callback that must not raise, as h5py has
some: so a signal is noted as well, and what was noted is looked at between two blocks.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from ..programs import is_analysis

SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: What a shell has as the status of a command that a signal has ended.
FIRST_STATUS = 128
Progress = Callable[[int, int], object]


class Terminated(KeyboardInterrupt):
    """As Ctrl-C, but by SIGTERM."""


class Interruption:
    """Signals while something is done; where they are raised ``at_once``, it may be waiting for others."""

    def __init__(self, *, at_once: bool) -> None:
        self._at_once = at_once
        self._number = 0

    def check(self) -> None:
        """KeyboardInterrupt where a signal came; for loops over blocks."""
        if self._number:
            raise KeyboardInterrupt if self._number == signal.SIGINT else Terminated

    def checked(self, progress: Progress) -> Progress:
        """The same ``progress``, which looks for signals as well."""

        def tell(done: int, total: int) -> None:
            progress(done, total)
            self.check()

        return tell

    def take(self, number: int, frame: FrameType | None) -> None:
        """The handler."""
        if self._number:
            return
        self._number = number
        if not is_analysis():  # of a launch, where one Ctrl-C may come more than once
            for other in SIGNALS:
                if signal.getsignal(other) is not signal.SIG_IGN:
                    signal.signal(other, signal.SIG_DFL)  # a second one ends this process at once
        if self._at_once:
            self.check()


@contextlib.contextmanager
def listen(*, at_once: bool = True) -> Iterator[Interruption]:
    """Minds signals; SIGTERM ends as it does in a shell, but only after what Ctrl-C does.

    Not ``at_once``, somebody has to call `Interruption.check` every now and then.
    """
    interruption = Interruption(at_once=at_once)
    before = {}
    if threading.current_thread() is threading.main_thread():
        wanted = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, interruption.take) for number in wanted}
    try:
        yield interruption
    except Terminated:
        raise SystemExit(FIRST_STATUS + signal.SIGTERM) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
