"""What a server did lately: from two descriptions of it, or from the window that one description brings.

A description is what `Metrics.describe` returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidInput
from ..histogram import Histogram
from ..metrics import FORMAT

#: Two descriptions closer to one another than this say too little, seconds.
SHORTEST_INTERVAL = 0.2


@dataclass(frozen=True)
class Rate:
    """Requests and rows a second; ``busy``: seconds of workers' time a second."""

    requests: float = 0.0
    rows: float = 0.0
    busy: float = 0.0
    latency: Histogram = field(default_factory=Histogram)


@dataclass(frozen=True)
class Rates:
    """What was done in the last ``seconds``.

    ``operations`` by model and operation; ``users`` by name; ``workers`` are shares of that time, 0 to 1, by name.
    """

    seconds: float
    total: Rate
    operations: dict[tuple[str, ...], Rate]
    users: dict[str, Rate]
    workers: dict[str, float]


def check_format(description: Any) -> dict[str, Any]:
    """The description, if it is one that this version can read; `InvalidInput` otherwise."""
    told = description.get("format") if isinstance(description, dict) else None
    if told != FORMAT:
        raise InvalidInput(
            f"the server describes itself in format {told!r}, and this version reads {FORMAT};"
            " install the same version of demos-hpc on both sides"
        )
    return dict(description)


def compare(description: Mapping[str, Any], previous: Mapping[str, Any] | None = None) -> Rates:
    """What was done since ``previous``; in the server's own window where that is no earlier one of the same server."""
    seconds = _find_interval(description, previous)
    if previous is None or seconds < SHORTEST_INTERVAL:
        return _read_window(description)
    operations = _pair(description, previous, "operations", "model", "operation")
    users = _pair(description, previous, "users", "user")
    workers = _pair(description, previous, "workers", "name")
    return Rates(
        seconds,
        _subtract(description, previous, seconds),
        {key: _subtract(now, then, seconds) for key, (now, then) in operations.items()},
        {key[0]: _subtract(now, then, seconds) for key, (now, then) in users.items()},
        {
            key[0]: max(0.0, min((_count_busy(now) - _count_busy(then)) / seconds, 1.0))
            for key, (now, then) in workers.items()
        },
    )


def _find_interval(description: Mapping[str, Any], previous: Mapping[str, Any] | None) -> float:
    if previous is None or previous["server"] != description["server"]:
        return 0.0
    interval: float = description["uptime_seconds"] - previous["uptime_seconds"]
    return interval  # negative where it has been restarted


def _read_window(description: Mapping[str, Any]) -> Rates:
    seconds = description["window"]["seconds"]

    def read(item: Mapping[str, Any]) -> Rate:
        return _subtract(item["window"], {}, seconds) if seconds > 0.0 else Rate()

    return Rates(
        seconds,
        read(description),
        {(one["model"], one["operation"]): read(one) for one in description["operations"]},
        {one["user"]: read(one) for one in description["users"]},
        {one["name"]: one["busy_share"] for one in description["workers"]},
    )


def _pair(
    description: Mapping[str, Any], previous: Mapping[str, Any], section: str, *names: str
) -> dict[tuple[str, ...], tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """The items of a section, each with what it was before."""
    then = {tuple(item[name] for name in names): item for item in previous[section]}
    keys = [(tuple(item[name] for name in names), item) for item in description[section]]
    return {key: (item, then.get(key, {})) for key, item in keys}


def _subtract(now: Mapping[str, Any], then: Mapping[str, Any], seconds: float) -> Rate:
    """What one item has more than the other, a second."""

    def find(key: str) -> float:
        return max(0.0, float(now.get(key, 0) - then.get(key, 0))) / seconds

    latency = Histogram()
    if "latency" in now:
        earlier = Histogram.from_dict(then["latency"]) if "latency" in then else None
        latency = Histogram.from_dict(now["latency"]).since(earlier)
    return Rate(find("requests"), find("rows"), find("busy_seconds"), latency)


def _count_busy(worker: Mapping[str, Any]) -> float:
    """Seconds of work, that in the running chunk included."""
    return float(worker.get("busy_seconds", 0.0) + (worker.get("running_seconds") or 0.0))
