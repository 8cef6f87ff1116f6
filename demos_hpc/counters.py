"""What is counted of one operation, one user, one worker's place, one transport (`metrics`), and how it is told.

Each has a ``mark``, what it had counted at some time, and ``describe`` tells what came since a mark beside the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from .errors import Status
from .histogram import Histogram
from .messages import Operation

OK, SAMPLE = int(Status.OK), int(Operation.SAMPLE)
_STATUSES = {int(status): status.name for status in Status}
_OPERATIONS = {int(operation): operation.title for operation in Operation}


class CallsMark(NamedTuple):
    latency: Histogram | None = None
    rows: int = 0


class CallsAccount:
    """One operation of one model: each request that ended is in ``latency``; ``rows`` are those of answered ones."""

    __slots__ = ("failures", "latency", "rows")

    def __init__(self) -> None:
        self.latency = Histogram()
        self.rows = 0
        self.failures: dict[int, int] = {}

    def mark(self) -> CallsMark:
        return CallsMark(self.latency.copy(), self.rows)

    def describe(self, model: str, operation: int, then: CallsMark | None, window: float) -> dict[str, Any]:
        then = then or CallsMark()
        latency = self.latency.describe()
        recent = self.latency.since(then.latency).describe()
        return {
            "model": model,
            "operation": _OPERATIONS.get(operation, str(operation)),
            "requests": latency["count"],
            "rows": self.rows,
            "failures": sum_failures([self.failures]),
            "latency": latency,
            "window": {
                "seconds": window,
                "requests": recent["count"],
                "rows": self.rows - then.rows,
                "latency": recent,
            },
        }


class UserMark(NamedTuple):
    requests: int = 0
    rows: int = 0
    busy_seconds: float = 0.0


class UserAccount:
    """What one user had; ``busy_seconds`` are workers' time, ``refused`` requests that were not accepted."""

    __slots__ = ("busy_seconds", "bytes_in", "bytes_out", "clients", "failures", "refused", "requests", "rows")

    def __init__(self) -> None:
        self.clients = self.requests = self.rows = self.failures = self.refused = 0
        self.busy_seconds = 0.0
        self.bytes_in = self.bytes_out = 0

    def mark(self) -> UserMark:
        return UserMark(self.requests, self.rows, self.busy_seconds)

    def describe(self, name: str, then: UserMark | None, window: float) -> dict[str, Any]:
        then = then or UserMark()
        return {
            "user": name,
            "clients": self.clients,
            "requests": self.requests,
            "rows": self.rows,
            "failures": self.failures,
            "refused": self.refused,
            "busy_seconds": self.busy_seconds,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "window": {
                "seconds": window,
                "requests": self.requests - then.requests,
                "rows": self.rows - then.rows,
                "busy_seconds": self.busy_seconds - then.busy_seconds,
            },
        }


class TransportAccount:
    """One way for frames: the peers that are connected by it, and the bytes that went over it."""

    __slots__ = ("bytes_in", "bytes_out", "clients", "workers")

    def __init__(self) -> None:
        self.clients = self.workers = self.bytes_in = self.bytes_out = 0

    def describe(self) -> dict[str, int]:
        return {
            "clients": self.clients,
            "workers": self.workers,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
        }


class Slot:
    """A place for a worker: the one that is there now, and what was done by all that have been."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.model = self.host = self.transport = ""
        self.pid = self.joins = self.chunks = self.chunks_lost = 0
        #: What it has said last: memory, and of data that likelihoods are about what it holds, and may hold.
        self.rss_bytes = self.datasets = self.held_bytes = self.budget_bytes = 0
        self.is_alive = False
        self.joined = 0.0
        self.busy_seconds = 0.0
        #: Chunks that it has now, and since when it has been working on the first of them.
        self._running = 0
        self._since = 0.0
        #: Since when it has not been without a chunk, and the work that it was credited with in that time.
        self._began = 0.0
        self._credited = 0.0

    @property
    def is_working(self) -> bool:
        """Whether it has a chunk."""
        return self._running > 0

    def join(self, model: str, host: str, pid: int, transport: str, now: float) -> None:
        self.model, self.host, self.pid, self.transport, self.joined = model, host, pid, transport, now
        self.is_alive = True
        self.joins += 1

    def leave(self) -> None:
        self.is_alive = False
        self.chunks_lost += self._running
        self._running = 0
        self.tell(0, 0, 0, 0)

    def tell(self, rss_bytes: int, datasets: int, held_bytes: int, budget_bytes: int) -> None:
        """It has said how it is."""
        self.rss_bytes, self.datasets, self.held_bytes, self.budget_bytes = (
            rss_bytes,
            datasets,
            held_bytes,
            budget_bytes,
        )

    def begin(self, now: float) -> None:
        """It was given a chunk."""
        if not self._running:
            self._since = self._began = now
            self._credited = 0.0
        self._running += 1

    def finish(self, seconds: float, now: float) -> float:
        """It has answered a chunk, which took ``seconds`` as it says; returns them, or the time that it had for it."""
        if not self._running:
            return 0.0
        credit = max(0.0, min(now - self._began - self._credited, seconds))
        self._credited += credit
        self.busy_seconds += credit
        self.chunks += 1
        self._running -= 1
        self._since = now
        return credit

    def count_busy(self, now: float) -> float:
        """Seconds of work, that in the running chunk included."""
        return self.busy_seconds + (max(0.0, now - self._since) if self._running else 0.0)

    def describe(self, then: float, began: float, now: float) -> dict[str, Any]:
        """``then`` is what it had worked when the window ``began``."""
        window = now - max(began, self.joined) if self.is_alive else 0.0
        share = (self.count_busy(now) - then) / window if window > 0.0 else 0.0
        return {
            "name": self.name,
            "model": self.model,
            "host": self.host,
            "pid": self.pid,
            "transport": self.transport,
            "is_alive": self.is_alive,
            "up_seconds": now - self.joined if self.is_alive else 0.0,
            "chunks": self.chunks,
            "busy_seconds": self.busy_seconds,
            "busy_share": max(0.0, min(share, 1.0)),
            "running_seconds": max(0.0, now - self._since) if self._running else None,
            "rss_bytes": self.rss_bytes,
            "datasets": self.datasets,
            "held_bytes": self.held_bytes,
            "budget_bytes": self.budget_bytes,
            "chunks_lost": self.chunks_lost,
            "restarts": self.joins - 1,
        }


def read_status(status: int) -> int:
    """The status, or `Status.INTERNAL` where there is no such one: nobody shall fill memory with inventions."""
    return status if status in _STATUSES else int(Status.INTERNAL)


def sum_failures(counted: Iterable[Mapping[int, int]]) -> dict[str, int]:
    """``{status: requests}`` by the statuses' names, in order of their numbers."""
    total: dict[int, int] = {}
    for failures in counted:
        for status, count in failures.items():
            total[status] = total.get(status, 0) + count
    return {_STATUSES[status]: total[status] for status in sorted(total)}


def describe_latency(accounts: Iterable[CallsAccount], then: Iterable[CallsMark]) -> tuple[Any, Any]:
    """The latencies of all requests together, since the server began and since the marks."""
    whole, earlier = Histogram(), Histogram()
    for account in accounts:
        whole.merge(account.latency)
    for mark in then:
        if mark.latency is not None:
            earlier.merge(mark.latency)
    return whole.describe(), whole.since(earlier).describe()
