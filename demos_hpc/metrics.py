"""What a dispatcher counts: for ``demos-hpc top`` and ``stats``, and for Prometheus (`exposition`).

Pure: no clock and no I/O; times are given. Counting is cheap, looking is not: what happened in the last seconds is
found by comparing with marks that were put aside from time to time (`Metrics.turn`), so no request pays for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from .counters import (
    OK,
    SAMPLE,
    CallsAccount,
    CallsMark,
    Slot,
    TransportAccount,
    UserAccount,
    UserMark,
    describe_latency,
    read_status,
    sum_failures,
)
from .usage import Usage

#: Version of what `Metrics.describe` returns; a change that readers notice raises it.
FORMAT = 1
#: Marks are put aside so often, seconds, and so many are kept: the window begins with the oldest.
TURN_SECONDS = 2.0
KEPT_TURNS = 5
#: Users that are told apart, and workers that are remembered when they are gone.
MOST_USERS = 1000
MOST_GONE = 64
#: Who stands for all users beyond `MOST_USERS`.
OTHERS = "(others)"


class Queue(NamedTuple):
    """What waits in a dispatcher: requests without a final reply, the age of the oldest, seconds of work for one."""

    length: int = 0
    oldest_seconds: float = 0.0
    backlog_seconds: float = 0.0


EMPTY = Queue()


class _Peer(NamedTuple):
    """Somebody who is connected: a client, of a user, or a worker, in a slot."""

    transport: TransportAccount
    user: UserAccount | None
    slot: Slot | None


class _Marks(NamedTuple):
    """What had been counted at some time."""

    at: float
    calls: dict[tuple[str, int], CallsMark]
    users: dict[str, UserMark]
    busy: dict[str, float]


class Metrics:
    """The counters of one dispatcher, called ``server``, which started at ``now``.

    ``now`` is in seconds on any steady clock, the same one everywhere; peers have the numbers that the scheduler
    knows them by. What is told of a peer that is not here (any more) is not counted.
    """

    def __init__(self, server: str, now: float) -> None:
        self.server = server
        self._started = now
        self._calls: dict[tuple[str, int], CallsAccount] = {}
        self._users: dict[str, UserAccount] = {}
        self._slots: dict[str, Slot] = {}
        self._transports: dict[str, TransportAccount] = {}
        self._peers: dict[int, _Peer] = {}
        #: What each user has used of each model.
        self.usage = Usage()
        self._refused: dict[int, int] = {}
        self._events = dict.fromkeys(("crashes", "evictions", "lost_clients", "upgrades", "refused_connections"), 0)
        self._marks = deque([_Marks(now, {}, {}, {})], maxlen=KEPT_TURNS)
        self._next_turn = now + TURN_SECONDS

    # ---- requests -------------------------------------------------------------------------------------------

    def request_done(self, user: str, model: str, operation: int, rows: int, seconds: float, status: int) -> None:
        """A request of ``rows`` rows has its final reply ``seconds`` after it came, or nobody waits for it any more."""
        calls = self._calls.get((model, operation))
        if calls is None:
            calls = self._calls[model, operation] = CallsAccount()
        calls.latency.add(seconds)
        account = self._users.get(user) or self._open_account(user)
        account.requests += 1
        used = self.usage.find(user, model)
        used.requests += 1
        if status == OK:
            calls.rows += rows
            account.rows += rows
            used.rows += rows
            used.draws += rows * (operation == SAMPLE)
        else:
            status = read_status(status)
            calls.failures[status] = calls.failures.get(status, 0) + 1
            account.failures += 1

    def request_refused(self, user: str, status: int) -> None:
        """A request was answered with ``status`` without being accepted: no right to it, over a limit, bad, busy."""
        status = read_status(status)
        (self._users.get(user) or self._open_account(user)).refused += 1
        self._refused[status] = self._refused.get(status, 0) + 1

    def charge(self, user: str, model: str, seconds: float, cores: int = 1) -> None:
        """So much of the time of a worker with ``cores`` was for this user."""
        (self._users.get(user) or self._open_account(user)).busy_seconds += seconds
        self.usage.find(user, model).core_seconds += cores * seconds

    def _open_account(self, user: str) -> UserAccount:
        return self._users.setdefault(user if len(self._users) < MOST_USERS else OTHERS, UserAccount())

    # ---- workers --------------------------------------------------------------------------------------------

    def worker_joined(
        self, worker: int, name: str, host: str, pid: int, model: str, transport: str, now: float
    ) -> None:
        """A worker takes the place called ``name``; where one was there before, it has been restarted.

        ``transport`` is that of its link (`transport.Link`).
        """
        slot = self._slots.get(name)
        if slot is not None and slot.is_alive:
            name, slot = f"{name} ({worker})", None  # two of one name
        if slot is None:
            slot = self._slots[name] = Slot(name)
        slot.join(model, host, pid, transport, now)
        way = self._open_transport(transport)
        way.workers += 1
        self._peers[worker] = _Peer(way, None, slot)

    def worker_left(self, worker: int) -> None:
        """A worker has ended as it should."""
        slot = self._find_slot(worker)
        if slot is None:
            return
        self._peers.pop(worker).transport.workers -= 1
        slot.leave()
        # The last to go is remembered longest.
        self._slots[slot.name] = self._slots.pop(slot.name)
        gone = [name for name, other in self._slots.items() if not other.is_alive]
        for name in gone[:-MOST_GONE]:
            del self._slots[name]

    def worker_lost(self, worker: int) -> None:
        """A worker has died, and what it was computing with it."""
        self._events["crashes"] += worker in self._peers
        self.worker_left(worker)

    def worker_evicted(self, worker: int) -> None:
        """A worker was given up: it was in one chunk for too long, or answered something else than it was asked."""
        self._events["evictions"] += worker in self._peers
        self.worker_left(worker)

    def is_working(self, worker: int) -> bool:
        """Whether a worker has a chunk."""
        slot = self._find_slot(worker)
        return slot is not None and slot.is_working

    def worker_told(
        self, worker: int, rss_bytes: int, datasets: int = 0, held_bytes: int = 0, budget_bytes: int = 0
    ) -> None:
        """A worker has said how much memory it has, bytes, and what data it holds."""
        if slot := self._find_slot(worker):
            slot.tell(rss_bytes, datasets, held_bytes, budget_bytes)

    def chunk_begun(self, worker: int, now: float) -> None:
        """A worker was given a chunk, behind what it has already."""
        if slot := self._find_slot(worker):
            slot.begin(now)

    def chunk_done(self, worker: int, seconds: float, now: float) -> float:
        """A worker has answered a chunk, which took its model ``seconds``; returns how many of them can be true."""
        slot = self._find_slot(worker)
        return 0.0 if slot is None else slot.finish(seconds, now)

    def _find_slot(self, worker: int) -> Slot | None:
        peer = self._peers.get(worker)
        return None if peer is None else peer.slot

    # ---- clients, links, the door ---------------------------------------------------------------------------

    def client_joined(self, client: int, user: str, transport: str) -> None:
        account = self._users.get(user) or self._open_account(user)
        account.clients += 1
        way = self._open_transport(transport)
        way.clients += 1
        self._peers[client] = _Peer(way, account, None)

    def client_left(self, client: int) -> None:
        """A client has said goodbye."""
        peer = self._peers.get(client)
        if peer is not None and peer.user is not None:
            del self._peers[client]
            peer.user.clients -= 1
            peer.transport.clients -= 1

    def client_lost(self, client: int) -> None:
        """A client is gone without a goodbye."""
        self._events["lost_clients"] += client in self._peers
        self.client_left(client)

    def connection_refused(self) -> None:
        """Somebody was not let in at the door."""
        self._events["refused_connections"] += 1

    def link_upgraded(self, peer: int, transport: str) -> None:
        """The link of a client or worker goes on by another transport."""
        known = self._peers.get(peer)
        if known is None:
            return
        self._events["upgrades"] += 1
        way = self._open_transport(transport)
        if known.slot is None:
            known.transport.clients -= 1
            way.clients += 1
        else:
            known.transport.workers -= 1
            way.workers += 1
            known.slot.transport = transport
        self._peers[peer] = known._replace(transport=way)

    def add_bytes(self, peer: int, received: int, sent: int) -> None:
        """So many bytes went over the link of a client or worker, since this was last said."""
        known = self._peers.get(peer)
        if known is None:
            return
        known.transport.bytes_in += received
        known.transport.bytes_out += sent
        if known.user is not None:
            known.user.bytes_in += received
            known.user.bytes_out += sent

    def _open_transport(self, name: str) -> TransportAccount:
        return self._transports.setdefault(name, TransportAccount())

    # ---- looking --------------------------------------------------------------------------------------------

    def turn(self, now: float) -> None:
        """Puts marks aside where it is time for that; to be called about every second, or more often."""
        if now >= self._next_turn:
            self._next_turn = now + TURN_SECONDS
            calls = {key: account.mark() for key, account in self._calls.items()}
            users = {name: account.mark() for name, account in self._users.items()}
            busy = {name: slot.count_busy(now) for name, slot in self._slots.items()}
            self._marks.append(_Marks(now, calls, users, busy))

    def describe(self, now: float, queue: Queue = EMPTY, cache: Mapping[str, int] | None = None) -> dict[str, Any]:
        """All of it, for JSON; what ``demos-hpc stats --json`` prints. Numbers are since the server began.

        ================== ========================================================================================
        format             version of this description
        server             its name
        uptime_seconds
        requests, rows     requests that ended, rows answered
        failures           ``{status: requests}``, such as ``{"DEADLINE": 3}``; they are in ``requests``
        refused            the same for requests that were not accepted; they are not in ``requests``
        latency            of all requests: ``count``, ``p50``, ``p90``, ``p99`` (seconds, or null), and the buckets
                           (`Histogram.to_dict`)
        window             the last ~10 s: ``seconds`` that it is long, ``requests``, ``rows``, ``latency``
        operations         for each model and operation: ``model``, ``operation``, ``requests``, ``rows``,
                           ``failures``, ``latency``, ``window``
        users              for each: ``user``, ``clients`` (connected), ``requests``, ``rows``, ``failures``,
                           ``refused``, ``busy_seconds`` (of workers), ``bytes_in``, ``bytes_out``, and ``window``:
                           ``seconds``, ``requests``, ``rows``, ``busy_seconds``
        workers            for each: ``name``, ``model``, ``host``, ``pid``, ``transport``, ``is_alive``,
                           ``up_seconds``, ``chunks``, ``busy_seconds``, ``busy_share`` (of the window, 0 to 1),
                           ``running_seconds`` (in the chunk that it is in; null where in none), ``rss_bytes``,
                           ``datasets`` (whose rows it holds for likelihoods), ``held_bytes`` (of them; workers of a
                           host share them), ``budget_bytes`` (that they may be; 0 where it was not asked for data),
                           ``chunks_lost``, ``restarts``
        queue              ``length``, ``oldest_seconds``, ``backlog_seconds``
        usage              for accounting (`Usage.describe`): ``used``, for each user and model ``user``, ``model``,
                           ``requests``, ``rows``, ``draws`` (of them), ``core_seconds`` (that workers computed, times
                           their threads); and ``workers``, for each model ``model`` and ``core_seconds`` (that they
                           were there, at work or not)
        links              ``{transport: ...}``: ``clients``, ``workers`` (connected), ``bytes_in``, ``bytes_out``
        cache              what `Cache.describe` says; null where there is none
        events             ``crashes`` and ``evictions`` of workers, ``lost_clients``, ``upgrades``,
                           ``refused_connections``
        ================== ========================================================================================

        Bytes are counted as the server sees them: ``bytes_in`` came from clients or workers.
        """
        then = self._marks[0]
        window = now - then.at
        whole, recent = describe_latency(self._calls.values(), then.calls.values())
        operations = [calls.describe(*key, then.calls.get(key), window) for key, calls in self._calls.items()]
        description = {
            "format": FORMAT,
            "server": self.server,
            "uptime_seconds": now - self._started,
            "requests": whole["count"],
            "rows": sum(one["rows"] for one in operations),
            "failures": sum_failures(calls.failures for calls in self._calls.values()),
            "refused": sum_failures([self._refused]),
            "latency": whole,
            "window": {
                "seconds": window,
                "requests": recent["count"],
                "rows": sum(one["window"]["rows"] for one in operations),
                "latency": recent,
            },
            "operations": operations,
            "users": [user.describe(name, then.users.get(name), window) for name, user in self._users.items()],
            "workers": [slot.describe(then.busy.get(slot.name, 0.0), then.at, now) for slot in self._slots.values()],
            "queue": queue._asdict(),
            "usage": self.usage.describe(now),
            "links": {name: transport.describe() for name, transport in self._transports.items()},
            "cache": None if cache is None else dict(cache),
            "events": dict(self._events),
        }
        self.turn(now)
        return description
