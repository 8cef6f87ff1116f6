"""What a running server says of itself to those who look for one, and which of several is the best to try."""

from __future__ import annotations

import ipaddress
import math
import os
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from reprlib import repr as abridge
from typing import Any, get_type_hints

from .errors import InvalidInput
from .messages import FromJson

#: From the best to the worst, for a client.
STATES = ("ready", "starting", "draining")
#: Heartbeats that may be missing before a server counts as silent.
HEARTBEATS_MISSED = 3
#: Seconds of waiting work per worker that are as good as none. A load is as old as the heartbeat that brought it:
#: clients that took small differences seriously would all go to the same server until its next one.
IDLE_LOAD = 0.05
#: Loads beyond that, 30 years, are no higher: somebody may ask for as many draws as there are numbers.
HIGHEST_LOAD = 1e9
MAX_PORT = 65535
#: Larger counts do not survive other readers of JSON; later times, after the year 9999, are no dates.
MAX_COUNT, MAX_SECONDS = 1 << 53, 253402300800.0
LONGEST_NAME = 64
#: Seconds before the end of its job from which a server is not joined any more.
LAST_SECONDS = 60.0
#: What the text of some members looks like, as a pattern and in words.
FORMS = {
    "id": (re.compile(r"[0-9a-f]{32}"), "has 32 hexadecimal digits"),
    # Neither a path nor an option of a command, whatever is made of it.
    "name": (
        re.compile(rf"[A-Za-z0-9_][A-Za-z0-9._-]{{0,{LONGEST_NAME - 1}}}"),
        f"has 1 to {LONGEST_NAME} letters, digits, '_', '.', '-', and neither '.' nor '-' first",
    ),
    "state": (re.compile("|".join(STATES)), f"is one of {', '.join(STATES)}"),
    "family": (re.compile(r"(?:[0-9a-f]{32})?"), "is empty or has 32 hexadecimal digits"),
    "tls": (re.compile(r"(?:[0-9a-f]{64})?"), "is empty or has 64 hexadecimal digits"),
    "image": (re.compile(r"(?:sha256:[0-9a-f]{64})?"), "is empty, or sha256: and 64 hexadecimal digits"),
}
MODEL_MEMBERS = ("name", "uuid", "version")


@dataclass(frozen=True)
class Endpoint(FromJson):
    """A running server as others find it; checked at birth, by `InvalidInput`.

    Parameters
    ----------
    id
        What tells this run of a server from all others: 32 hexadecimal digits of a random UUID.
    name
        What people call it: 1 to 64 of ``A-Z a-z 0-9 . _ -``, neither ``.`` nor ``-`` first.
    models
        ``name``, ``uuid`` and ``version`` of each model; empty until the first worker has offered one.
    state
        ``starting``, ``ready`` or ``draining``.
    host, port
        Where its door listens; "" and 0 where it does not listen on TCP.
    unix, boot
        Path of its Unix socket ("" = none), good for those whose `find_boot` gives ``boot``.
    tls
        SHA-256 of the certificate, 64 hexadecimal digits; "" without TLS.
    wire
        Major version of the wire that it speaks.
    user, pid, hostname, job
        Whose process it is and where; ``job`` is Slurm's id, or "".
    started, heartbeat
        When it started, and when this was written: Unix seconds by its own host's clock.
    interval
        Seconds between heartbeats.
    workers, clients
        How many it has.
    load
        Seconds of work that wait per worker.
    model_path
        What a worker that joins loads by default.
    family
        What all runs of this server under one supervisor have in common, 32 hexadecimal digits; "" without one.
    ends
        When its job's time is over, Unix seconds; 0 where nobody knows.
    image
        Digest of the image that its dispatcher runs in, ``sha256:…``; "" where it runs in none.
    """

    id: str
    name: str
    models: list[dict[str, str]]
    state: str
    host: str
    port: int
    unix: str
    boot: str
    tls: str
    wire: int
    user: str
    pid: int
    hostname: str
    job: str
    started: float
    heartbeat: float
    interval: float
    workers: int
    clients: int
    load: float
    model_path: str
    family: str
    ends: float = 0.0
    image: str = ""

    def __post_init__(self) -> None:
        for name, kind in _find_kinds().items():
            check: Callable[[str, Any], Any] = CHECKS.get(kind, _check_models)
            object.__setattr__(self, name, check(name, getattr(self, name)))
        for name, (pattern, rule) in FORMS.items():
            _require(pattern.fullmatch(getattr(self, name)) is not None, name, getattr(self, name), rule)
        _require(self.port <= MAX_PORT, "port", self.port, f"is at most {MAX_PORT}")
        _require(self.interval > 0, "interval", self.interval, "is more than 0")

    def answers_to(self, name: str) -> bool:
        """Whether this is the server's name, or the name or UUID of one of its models."""
        return name == self.name or any(name in (model["name"], model["uuid"]) for model in self.models)

    def is_ending(self, now: float) -> bool:
        """Whether its job's time is nearly over, so that nobody should begin anything there."""
        return 0 < self.ends < now + LAST_SECONDS

    def shares_host(self, boot: str) -> bool:
        """Whether a process whose `find_boot` gives ``boot`` can reach the Unix socket."""
        return bool(self.unix and self.boot) and self.boot == boot


@cache
def _find_kinds() -> dict[str, Any]:
    return get_type_hints(Endpoint)


def _require(is_right: bool, name: str, value: Any, rule: str) -> None:
    if not is_right:
        raise InvalidInput(f"endpoint with {name} = {abridge(value)}: {name} {rule}")


def _check_text(name: str, value: Any) -> str:
    # A line break or an escape sequence could steer the terminal of whoever lists the servers.
    _require(isinstance(value, str) and value.isprintable(), name, value, "is printable text on one line")
    return str(value)


def _check_count(name: str, value: Any) -> int:
    is_right = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_COUNT
    _require(is_right, name, value, "is a whole number >= 0")
    return int(value)


def _check_seconds(name: str, value: Any) -> float:
    is_right = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < MAX_SECONDS
    _require(is_right, name, value, "is a finite number of seconds >= 0")
    return float(value)


def _check_models(name: str, value: Any) -> list[dict[str, str]]:
    """The models with the members that are known here; those of newer versions are left out."""
    is_right = isinstance(value, list) and all(isinstance(model, dict) for model in value)
    _require(is_right, name, value, "is a list of objects")
    return [{member: _check_text(f"{name}.{member}", model.get(member)) for member in MODEL_MEMBERS} for model in value]


CHECKS: dict[Any, Callable[[str, Any], Any]] = {str: _check_text, int: _check_count, float: _check_seconds}


def is_stale(endpoint: Endpoint, now: float) -> bool:
    """Whether a server has been silent for too long; ``now`` in Unix seconds.

    Clocks of hosts differ: a heartbeat from the future is as good as one from now. Only the door knows for sure.
    """
    return now - endpoint.heartbeat > HEARTBEATS_MISSED * endpoint.interval


def rank_endpoints(endpoints: Iterable[Endpoint], now: float, rng: random.Random) -> list[Endpoint]:
    """The best first: those that live, the ready, the idle; at random where that is equal, so that clients spread.

    Silent ones come last whatever their state was, since each may cost a client the time limit of a connection.
    """
    shuffled = list(endpoints)
    rng.shuffle(shuffled)
    return sorted(shuffled, key=lambda e: (is_stale(e, now), STATES.index(e.state), _find_load_step(e.load)))


def _find_load_step(load: float) -> int:
    """0 for idle, and one more for each doubling of the load."""
    return 0 if load < IDLE_LOAD else 1 + int(math.log2(load / IDLE_LOAD))


def describe_choice(chosen: Endpoint, endpoints: Sequence[Endpoint], now: float) -> str:
    """What was chosen of which servers, and why: ``neutrino-2 (ready, 4 workers, load 0.1 s) of 3 servers``."""
    facts = [chosen.state, _count(chosen.workers, "worker"), f"load {chosen.load:.1f} s"]
    if is_stale(chosen, now):
        facts.append(f"silent for {now - chosen.heartbeat:.0f} s")
    return f"{chosen.name} ({', '.join(facts)}) of {_count(len(endpoints), 'server')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)


def find_boot() -> str:
    """Equal for processes under one kernel and network namespace, until the next boot; "" where nobody can tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/net')}"
    except OSError:
        return ""


def find_end(environment: Mapping[str, str] = os.environ) -> float:
    """When the time of the job that this process is in is over, Unix seconds; 0 where nobody has said so."""
    text = environment.get("SLURM_JOB_END_TIME", "")
    return float(text) if text.isdigit() else 0.0


def find_binding(endpoint: Endpoint, *, is_unix: bool) -> str:
    """What both sides sign as the way they are connected, so that nobody between them can pass a proof on.

    That is the certificate under TLS, else the address that was dialed, which only its owner can listen on. Where
    addresses are those of one host, its `find_boot` belongs to them.
    """
    boot = find_boot()
    if is_unix:
        return f"unix:{boot}:{endpoint.unix}"
    if endpoint.tls:
        return endpoint.tls
    return f"tcp:{boot if is_loopback(endpoint.host) else ''}:{endpoint.host}:{endpoint.port}"


def is_loopback(host: str) -> bool:
    """Whether an address is good within one host only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_name(name: str) -> None:
    """`InvalidInput` where a server cannot be called so."""
    pattern, rule = FORMS["name"]
    if not pattern.fullmatch(name):
        raise InvalidInput(f"a server cannot be called {abridge(name)}: its name {rule}")
