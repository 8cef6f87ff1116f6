"""When requests expire. Part of the brain: no clock, no thread, no communicator."""

from __future__ import annotations

import heapq
import math
from collections.abc import Container

#: Deadlines of answered requests that may be kept, beyond as many as there are requests.
MOST_PAST = 1000


class Deadlines:
    """The deadlines of requests; those of answered ones are forgotten some time."""

    __slots__ = ("_entries", "_most")

    def __init__(self) -> None:
        self._entries: list[tuple[float, int]] = []
        self._most = MOST_PAST

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def first(self) -> float:
        """The earliest, or infinity."""
        return self._entries[0][0] if self._entries else math.inf

    def add(self, request: int, deadline: float, living: Container[int]) -> None:
        """``request`` expires at ``deadline``; ``living`` are the requests that are not answered."""
        if len(self._entries) > self._most:
            self._entries = [entry for entry in self._entries if entry[1] in living]
            heapq.heapify(self._entries)
            self._most = MOST_PAST + 2 * len(self._entries)
        heapq.heappush(self._entries, (deadline, request))

    def take_past(self, now: float) -> list[int]:
        """The requests whose deadline has come; they are in it no more."""
        past = []
        while self._entries and self._entries[0][0] <= now:
            past.append(heapq.heappop(self._entries)[1])
        return past
