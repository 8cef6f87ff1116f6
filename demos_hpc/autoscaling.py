"""How many workers a server should have, from what waits there: decided without a clock, a server or a scheduler."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .errors import InvalidInput


@dataclass(frozen=True)
class Policy:
    """Between ``least`` and ``most`` workers.

    More where a request has waited for ``wait_seconds``, or each worker has so much ahead of it; fewer once nothing was
    to be done for ``idle_seconds``. After each change nothing is changed for ``cool_down`` seconds: workers take their
    time to come.
    """

    least: int
    most: int
    wait_seconds: float = 10.0
    idle_seconds: float = 60.0
    cool_down: float = 30.0

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most or not self.most:
            raise InvalidInput(f"between {self.least} and {self.most} workers: --min is 0 to --max, and that 1 or more")
        if not (self.wait_seconds > 0 and self.idle_seconds >= 0 and self.cool_down >= 0):
            raise InvalidInput("seconds of waiting are more than 0, those of idling and cooling down not less")


@dataclass(frozen=True)
class Look:
    """What was seen of a server: its ``workers``, those that are on their way included, what waits, who computes."""

    workers: int
    backlog_seconds: float
    oldest_seconds: float
    n_requests: int


class Autoscaler:
    """Decides again and again how many workers there should be."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._changed = -math.inf
        self._busy = -math.inf

    def decide(self, look: Look, now: float) -> int:
        """How many there should be, as many as there are where nothing is to be changed; ``now`` in seconds."""
        wanted = min(max(self._find_wanted(look, now), self._policy.least), self._policy.most)
        if wanted == look.workers:
            return wanted
        if now < self._changed + self._policy.cool_down:
            return look.workers
        self._changed = now
        return wanted

    def _find_wanted(self, look: Look, now: float) -> int:
        policy = self._policy
        if look.n_requests or self._busy == -math.inf:
            self._busy = now
        share = look.backlog_seconds / max(1, look.workers)
        if share > policy.wait_seconds or look.oldest_seconds > policy.wait_seconds:
            enough = math.ceil(look.backlog_seconds / policy.wait_seconds)
            # Twice as many at most: what a request costs is an estimate at first.
            return max(look.workers + 1, min(enough, 2 * look.workers))
        if now >= self._busy + policy.idle_seconds:
            return look.workers // 2
        return look.workers
