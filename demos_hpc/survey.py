"""Which of the servers in the registry live: every door is asked, all at once. Entries of the dead are swept.

What the registry says is up to a heartbeat old, or a lie; only who answers at the door lives for sure. And only where
nobody can answer any more, an entry is taken away: a server that was merely slow writes it again.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .config import Config
from .endpoint import HIGHEST_LOAD, STATES, Endpoint, find_boot, is_loopback, is_stale
from .errors import AccessRefused, DeadlineExceeded, DemosError, InvalidInput, LaunchError, RegistryError, ServerLost
from .metrics import FORMAT
from .operating import PATIENCE, Operator
from .registry import Registry
from .slurm import list_living

#: Seconds that each door is given.
GLANCE = 2.0
#: Seconds beyond that for names to be resolved, and for a host that has other things to do.
GRACE = 1.0
#: Heartbeats after which an entry whose server does not answer is taken away.
HEARTBEATS_LEFT = 10
#: Temporary files in the registry that are older than this, seconds, belong to nobody any more.
OLD_FILES = 3600.0
#: What a server is where it is not as it says (`endpoint.STATES`): it lives and does not let us in, not even as a
#: client; it does not answer, and may live; it listens on another host's loopback, and cannot be asked; it has died.
NOT_OURS, SILENT, ELSEWHERE, DEAD = "not ours", "silent", "elsewhere", "dead"
#: The best first.
SIGHTS = (*STATES, NOT_OURS, SILENT, ELSEWHERE, DEAD)
#: Hexadecimal digits of an id that are enough to name a server by.
SHORTEST_ID = 6


@dataclass(frozen=True)
class Sighting:
    """What was found at a server's door; ``endpoint`` has the figures that it gave, or else those of the registry.

    ``seconds`` is how long a sign of life takes, there and back; None where there was none. ``why`` there is none
    stands in an error's words. ``may_sweep`` says that the server is dead for sure.
    """

    endpoint: Endpoint
    state: str
    seconds: float | None = None
    transport: str = ""
    why: str = ""
    may_sweep: bool = False

    @property
    def is_living(self) -> bool:
        """Whether it has answered us as servers do."""
        return self.state in STATES


def survey(endpoints: Sequence[Endpoint], config: Config, *, seconds: float = GLANCE) -> list[Sighting]:
    """Asks all of these servers at once, each within ``seconds``; in the order given."""
    found: dict[int, Sighting] = {}

    def ask(nth: int, endpoint: Endpoint) -> None:
        found[nth] = look(endpoint, config, seconds=seconds)

    # Names may take longer to be resolved than anybody waits: such a thread is left behind.
    threads = [threading.Thread(target=ask, args=item, daemon=True) for item in enumerate(endpoints)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds + GRACE
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    late = DeadlineExceeded("it could not be asked in time")
    now = time.time()
    return _bury([found.get(nth) or _judge(endpoint, late, now) for nth, endpoint in enumerate(endpoints)])


def _bury(sightings: list[Sighting]) -> list[Sighting]:
    """The same, with those for dead who do not answer and whose job is over, as Slurm says where there is one."""
    lost = [s for s in sightings if not s.is_living and not s.may_sweep and s.state != NOT_OURS and s.endpoint.job]
    if not lost:
        return sightings
    try:
        living = list_living({s.endpoint.user for s in lost}, seconds=PATIENCE)
    except LaunchError:  # this is no machine of the cluster
        return sightings
    return [
        replace(s, state=DEAD, why=f"its job {s.endpoint.job} is over", may_sweep=True)
        if s in lost and s.endpoint.job not in living
        else s
        for s in sightings
    ]


def look(endpoint: Endpoint, config: Config, *, seconds: float = GLANCE) -> Sighting:
    """Asks one server how it is."""
    if is_loopback(endpoint.host) and endpoint.boot != find_boot():
        why = f"it listens on {endpoint.host} of {endpoint.hostname}, and can be asked from there only"
        return _judge_by_age(endpoint, ELSEWHERE, why, time.time())
    try:
        return _ask(endpoint, config, seconds)
    except (AccessRefused, InvalidInput) as error:  # or there is no key to prove anything with
        return Sighting(endpoint, NOT_OURS, why=str(error))
    except DemosError as error:
        return _judge(endpoint, error, time.time())


def _ask(endpoint: Endpoint, config: Config, seconds: float) -> Sighting:
    """What an operator is told; who may only be a client sees that it lives, and the registry's figures."""
    end = time.monotonic() + seconds
    try:
        with Operator(endpoint, config, seconds=seconds) as operator:
            trip = operator.ping()
            return Sighting(*_renew(endpoint, operator.statistics()), trip, operator.transport)
    except AccessRefused:
        left = max(0.0, end - time.monotonic())
        with Operator(endpoint, config, seconds=left, role="client") as client:
            return Sighting(endpoint, endpoint.state, client.ping(), client.transport)


def _renew(endpoint: Endpoint, description: dict[str, Any]) -> tuple[Endpoint, str]:
    """The endpoint with what the server says of itself now, and its state."""
    if description.get("format") != FORMAT:  # of another version: it lives, and the rest is as in the registry
        return endpoint, endpoint.state
    specs = [model["spec"] for model in description["models"]]
    n_workers = sum(worker["is_alive"] for worker in description["workers"])
    renewed = replace(
        endpoint,
        models=[{name: spec[name] for name in ("name", "uuid", "version")} for spec in specs],
        state=description["state"],
        workers=n_workers,
        clients=sum(user["clients"] for user in description["users"]),
        load=min(description["queue"]["backlog_seconds"] / max(1, n_workers), HIGHEST_LOAD),
    )
    return renewed, renewed.state


def _judge(endpoint: Endpoint, error: DemosError, now: float) -> Sighting:
    """What to think of a server that has not answered."""
    if not endpoint.shares_host(find_boot()):
        return _judge_by_age(endpoint, SILENT, str(error), now)
    is_gone = isinstance(error, ServerLost) and not _has_listener(endpoint.unix)
    return Sighting(endpoint, DEAD if is_gone else SILENT, why=str(error), may_sweep=is_gone)


def _judge_by_age(endpoint: Endpoint, state: str, why: str, now: float) -> Sighting:
    is_old = now - endpoint.heartbeat > HEARTBEATS_LEFT * endpoint.interval
    return Sighting(endpoint, DEAD if is_stale(endpoint, now) else state, why=why, may_sweep=is_old)


def _has_listener(unix: str) -> bool:
    """Whether a process listens at a Unix socket under this very kernel: a hung one does, a dead one cannot.

    Process ids would tell less: a container has its own.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect("\0" + unix.removeprefix("@"))
        except ConnectionRefusedError:
            return False
        except OSError:  # too many wait to be let in
            return True
    return True


def sweep(registry: Registry, sightings: Sequence[Sighting]) -> list[Sighting]:
    """Takes the entries of the dead out of the registry, as far as we may; returns those that are gone."""
    swept = []
    for sighting in sightings:
        if sighting.may_sweep:
            with contextlib.suppress(RegistryError):  # somebody else's, who may not have made it ours to remove
                registry.withdraw(sighting.endpoint.id)
                swept.append(sighting)
    registry.sweep(OLD_FILES)
    return swept


def find_named(name: str, registry: Registry) -> list[Endpoint]:
    """The servers of this name, or of an id that begins so; else those that have a model of this name or UUID.

    Raises
    ------
    ServerLost
        Where there is none.
    """
    endpoints, problems = registry.list()
    is_id = len(name) >= SHORTEST_ID
    for wanted in (
        [e for e in endpoints if name == e.name],
        [e for e in endpoints if is_id and e.id.startswith(name.lower())],
        [e for e in endpoints if e.answers_to(name)],
    ):
        if wanted:
            return wanted
    names = ", ".join(sorted({endpoint.name for endpoint in endpoints})) or "none"
    skipped = f"; {len(problems)} files there cannot be read" if problems else ""
    raise ServerLost(
        f"there is no server or model {name!r} in {registry.directory} (DEMOS_REGISTRY); there are: {names}{skipped}"
    )


def reach(name: str, registry: Registry, config: Config, *, seconds: float = PATIENCE) -> Operator:
    """An operator of the one server that is called so; dead ones of the same name do not count.

    Raises
    ------
    ServerLost
        Where there is none, or it does not answer.
    AccessRefused
        Where it does not let us in.
    InvalidInput
        Where there are several.
    """
    endpoints = find_named(name, registry)
    if len(endpoints) > 1:
        sightings = [s for s in survey(endpoints, config, seconds=min(seconds, GLANCE)) if s.state != DEAD]
        living = [s.endpoint for s in sightings if s.is_living]
        endpoints = living or [s.endpoint for s in sightings] or endpoints[-1:]
    if len(endpoints) > 1:
        which = ", ".join(f"{e.name} ({e.id[:SHORTEST_ID]} on {e.hostname})" for e in endpoints)
        raise InvalidInput(
            f"{len(endpoints)} servers are called {name!r}: {which}; give a name, or the beginning of an id"
        )
    return Operator(endpoints[0], config, seconds=seconds)
