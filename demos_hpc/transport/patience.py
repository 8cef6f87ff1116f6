"""How long a process that waits at its sockets looks again before it sleeps.

Whoever sleeps has to be woken, and a core that has fallen asleep as well: that takes longer than many an answer. So a
process first yields its core for about 200 us, or much less if its last wait was longer than that. A yield that takes
long has let somebody compute on this core. Then it sleeps at once for a while, since the kernel prefers whoever it
wakes, while whoever yields waits for a turn.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

#: Seconds of yielding where the last wait was long.
SHORT_WINDOW = 30e-6
#: Seconds of a yield that has let somebody compute.
CROWDED = 500e-6
#: Seconds without any yield after that, at first and at most: twice as many where it soon happens again, which is
#: within so many pauses.
FIRST_PAUSE, LONGEST_PAUSE, SOON = 0.02, 2.0, 4


class Patience:
    """The way in which one process waits, the first ``yield_seconds`` of it awake."""

    def __init__(
        self,
        yield_seconds: float,
        clock: Callable[[], float] = time.perf_counter,
        yield_core: Callable[[], object] = os.sched_yield,
    ) -> None:
        self._yield_seconds = yield_seconds
        self._clock = clock
        self._yield_core = yield_core
        self._window = yield_seconds
        #: Nothing is yielded before this, after a pause of so many seconds.
        self._yields_at = 0.0
        self._pause = FIRST_PAUSE

    def wait(self, look: Callable[[float], bool], seconds: float) -> None:
        """Returns when ``look`` has found something, and at the latest after ``seconds``.

        ``look`` is given the seconds that it may sleep until there is something.
        """
        clock = self._clock
        start = now = clock()
        if now >= self._yields_at:
            until = now + min(self._window, seconds)
            while now < until:
                if look(0.0):
                    self._window = self._yield_seconds
                    return
                self._yield_core()
                before, now = now, clock()
                if now - before > CROWDED:
                    self._leave(now)
                    break
        look(seconds)
        is_short = clock() - start < self._yield_seconds
        self._window = self._yield_seconds if is_short else min(SHORT_WINDOW, self._yield_seconds)

    def _leave(self, now: float) -> None:
        """Leaves the core to those who compute on it."""
        is_soon = now < self._yields_at + SOON * self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE) if is_soon else FIRST_PAUSE
        self._yields_at = now + self._pause
