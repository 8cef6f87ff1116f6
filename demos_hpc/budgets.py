"""Limits per user: requests a second, rows a second, bytes in flight. No clock: ``now`` is given.

Rates are token buckets that hold one second's worth. A request of more rows than that is admitted when the bucket is
full, which it then owes; so over any time t, at most rate t + max(rate, largest request) rows are admitted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

from .errors import InvalidInput

#: What `Budgets.take` says of a request that is too large at any time.
NEVER = math.inf
#: Seconds after which to try again where bytes in flight are too many: when they land cannot be known.
LANDING = 0.1
#: Seconds between two looks for users that are idle.
SWEEP = 10.0
#: Of a second's worth: whoever waits as long as told is admitted, however the clock's readings round.
_SLACK = 1e-6


@dataclass(frozen=True)
class Limits:
    """What a user may ask for; 0 is no limit."""

    requests_per_second: float = 0.0
    rows_per_second: float = 0.0
    bytes_in_flight: int = 0

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise InvalidInput(f"limit {f.name} is {value!r}; it is a number >= 0, 0 for none")


class _Bucket:
    """Tokens that come back with time."""

    __slots__ = ("_filled", "_tokens")

    def __init__(self, tokens: float, now: float) -> None:
        self._tokens = tokens
        self._filled = now

    def fill(self, rate: float, now: float) -> float:
        """Tokens that there are now."""
        self._tokens = min(self._tokens + rate * max(now - self._filled, 0.0), max(rate, 1.0))
        self._filled = max(now, self._filled)
        return self._tokens

    def find_wait(self, n: float, rate: float, now: float) -> float:
        """Seconds until ``n`` could be taken; more than the bucket holds, once it is full."""
        capacity = max(rate, 1.0)
        missing = min(n, capacity) - self.fill(rate, now)
        return missing / rate if n and missing > _SLACK * capacity else 0.0

    def take(self, n: float) -> None:
        self._tokens -= n


class _Account:
    """What a user has left."""

    __slots__ = ("in_flight", "requests", "rows")

    def __init__(self, limits: Limits, now: float) -> None:
        self.in_flight = 0
        self.requests = _Bucket(max(limits.requests_per_second, 1.0), now)
        self.rows = _Bucket(max(limits.rows_per_second, 1.0), now)

    def is_fresh(self, limits: Limits, now: float) -> bool:
        """Whether a new account would be the same."""
        buckets = ((self.requests, limits.requests_per_second), (self.rows, limits.rows_per_second))
        return not self.in_flight and all(not rate or b.fill(rate, now) >= max(rate, 1.0) for b, rate in buckets)


class Budgets:
    """What all users have left; ``find_limits`` gives those of a user, and may change its mind."""

    def __init__(self, find_limits: Callable[[str], Limits]) -> None:
        self._find_limits = find_limits
        self._accounts: dict[str, _Account] = {}
        self._sweep_at = -math.inf

    def __len__(self) -> int:
        """Users that are remembered."""
        return len(self._accounts)

    def take(self, user: str, rows: int, n_bytes: int, now: float) -> float:
        """Admits a request, or says when to try again; nothing is taken then.

        Parameters
        ----------
        rows, n_bytes
            Of the request; the bytes are in flight until `give_back`.
        now
            Seconds of a clock that does not jump.

        Returns
        -------
        Seconds to wait, 0.0 where the request is admitted, `NEVER` where it is larger than all that may be in flight.
        """
        limits = self._find_limits(user)
        requests_rate, rows_rate, most_bytes = (
            limits.requests_per_second,
            limits.rows_per_second,
            limits.bytes_in_flight,
        )
        if not (requests_rate or rows_rate or most_bytes):
            return 0.0
        if most_bytes and n_bytes > most_bytes:
            return NEVER
        if now >= self._sweep_at:
            self._forget_idle(now)
        account = self._accounts.get(user)
        if account is None:
            account = self._accounts[user] = _Account(limits, now)
        wait = 0.0
        if requests_rate:
            wait = account.requests.find_wait(1, requests_rate, now)
        if rows_rate:
            wait = max(wait, account.rows.find_wait(rows, rows_rate, now))
        if most_bytes and account.in_flight + n_bytes > most_bytes:
            wait = max(wait, LANDING)
        if wait:
            return wait
        if requests_rate:
            account.requests.take(1)
        if rows_rate:
            account.rows.take(rows)
        account.in_flight += n_bytes
        return 0.0

    def give_back(self, user: str, n_bytes: int) -> None:
        """These bytes of a request that was admitted have landed."""
        account = self._accounts.get(user)
        if account is not None:
            # Fewer may be known where the user had no limits when the request was admitted.
            account.in_flight = max(account.in_flight - n_bytes, 0)

    def find_in_flight(self, user: str) -> int:
        """Bytes of a user that are on their way; 0 for users without limits."""
        account = self._accounts.get(user)
        return account.in_flight if account is not None else 0

    def _forget_idle(self, now: float) -> None:
        self._sweep_at = now + SWEEP
        idle = [user for user, account in self._accounts.items() if account.is_fresh(self._find_limits(user), now)]
        for user in idle:
            del self._accounts[user]
