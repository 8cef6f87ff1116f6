"""What a process has of memory and open files, and how that grows."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from serving import ServerApart

#: Looks at the memory, of which the least counts, and seconds between them: what is on its way is no growth.
LOOKS, PAUSE = 10, 0.05
#: Seconds for what is not needed any more to go back to the kernel, and what is no growth.
SETTLING, NOISE = 10.0, 0.05


class Watch:
    """Looks at one process from outside."""

    def __init__(self, pid: int) -> None:
        self._process = Path(f"/proc/{pid}")
        self._before = self._after = self._peak = (0, 0)

    def look(self) -> tuple[int, int]:
        """Bytes of memory and open files, now."""
        pages = int((self._process / "statm").read_text(encoding="ascii").split()[1])
        now = pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir(self._process / "fd"))
        self._peak = max(self._peak[0], now[0]), max(self._peak[1], now[1])
        return now

    def _find_least(self) -> tuple[int, int]:
        never = threading.Event()
        looks = []
        for _ in range(LOOKS):
            looks.append(self.look())
            never.wait(PAUSE)
        memory, files = zip(*looks, strict=True)
        return min(memory), min(files)

    @classmethod
    def of_dispatcher(cls, server: ServerApart) -> Watch:
        endpoint = server.find()
        assert endpoint is not None, "there is no server to watch"
        return cls(endpoint.pid)

    def begin(self) -> None:
        """What it has now is what it needs."""
        self._before = self._find_least()

    def end(self) -> None:
        """What it has in the end, and did not have when it began, is growth; it has a while to let go of the rest."""
        begin = time.monotonic()
        self._after = self._find_least()
        while time.monotonic() < begin + SETTLING and (
            self._after[0] > (1.0 + NOISE) * self._before[0] or self._after[1] > self._before[1]
        ):
            memory, files = self._find_least()
            self._after = min(self._after[0], memory), files

    def describe(self) -> dict[str, float]:
        """Growth of memory as a fraction, of files as a number."""
        return {
            "memory_MB": self._before[0] / 1e6,
            "memory_peak_MB": self._peak[0] / 1e6,
            "memory_growth": self._after[0] / self._before[0] - 1.0,
            "fd_growth": self._after[1] - self._before[1],
        }
