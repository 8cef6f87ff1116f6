"""A server's counters as a text file for Prometheus, which node_exporter's textfile collector reads.

Made anew each time from what `Metrics.describe` returns, by prometheus-client, which is imported here alone, and only
when it is wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import InvalidInput
from .histogram import EDGES, PER_DECADE, Histogram

if TYPE_CHECKING:
    from prometheus_client.core import Metric

#: The collector reads files that are called so, and no others.
SUFFIX = ".prom"
PREFIX = "demos_hpc_"
#: Every so-many-th of the histogram's buckets is told: 4 in a factor of ten.
STRIDE = PER_DECADE // 4


class _Row(NamedTuple):
    """One metric: from which section of the description, under which key, its kind, name and meaning."""

    section: str
    key: str
    is_counter: bool
    name: str
    about: str


#: What tells the items of a section apart: their labels, and the keys that the labels' values stand under.
_LABELS: dict[str, dict[str, str]] = {
    "server": {},
    "queue": {},
    "events": {},
    "cache": {},
    "refused": {"status": "status"},
    "links": {"transport": "transport"},
    "users": {"user": "user"},
    "workers": {"worker": "name", "model": "model"},
    "operations": {"model": "model", "operation": "operation"},
    "failures": {"model": "model", "operation": "operation", "status": "status"},
    "used": {"user": "user", "model": "model"},
    "there": {"model": "model"},
}
_ROWS = tuple(
    _Row(*row)
    for row in (
        ("server", "uptime_seconds", False, "uptime_seconds", "Time since the server began."),
        ("operations", "requests", True, "requests", "Requests that ended."),
        ("operations", "rows", True, "rows", "Rows that were answered."),
        ("failures", "count", True, "failures", "Requests that failed."),
        ("refused", "count", True, "refused_requests", "Requests that were not accepted."),
        ("users", "clients", False, "user_clients", "Clients of a user that are connected."),
        ("users", "requests", True, "user_requests", "Requests of a user that ended."),
        ("users", "rows", True, "user_rows", "Rows answered to a user."),
        ("users", "failures", True, "user_failures", "Requests of a user that failed."),
        ("users", "refused", True, "user_refused_requests", "Requests of a user that were not accepted."),
        ("users", "busy_seconds", True, "user_busy_seconds", "Workers' time that a user had."),
        ("users", "bytes_in", True, "user_received_bytes", "Bytes that came from a user."),
        ("users", "bytes_out", True, "user_sent_bytes", "Bytes that went to a user."),
        (
            "used",
            "core_seconds",
            True,
            "used_core_seconds",
            "Time that workers computed for a user, times their threads.",
        ),
        ("used", "requests", True, "used_requests", "Requests of a user for a model that ended."),
        ("used", "rows", True, "used_rows", "Rows of a model answered to a user."),
        ("there", "core_seconds", True, "worker_core_seconds", "Time that workers were there, times their threads."),
        ("workers", "is_alive", False, "worker_up", "Whether a worker is there: 1 or 0."),
        ("workers", "busy_share", False, "worker_busy_ratio", "Share of the last seconds that a worker computed."),
        ("workers", "rss_bytes", False, "worker_resident_memory_bytes", "Memory that a worker has."),
        ("workers", "datasets", False, "worker_held_datasets", "Datasets that a worker holds rows of for likelihoods."),
        ("workers", "held_bytes", False, "worker_held_bytes", "Memory of these rows; workers of a host share it."),
        ("workers", "budget_bytes", False, "worker_held_budget_bytes", "Memory that such rows may take on its host."),
        ("workers", "chunks", True, "worker_chunks", "Chunks that a worker has answered."),
        ("workers", "busy_seconds", True, "worker_busy_seconds", "Time that a worker's model has computed."),
        ("workers", "chunks_lost", True, "worker_lost_chunks", "Chunks that were lost with a worker."),
        ("workers", "restarts", True, "worker_restarts", "Workers that took the place of one of the same name."),
        ("queue", "length", False, "queue_requests", "Requests without a final reply."),
        ("queue", "oldest_seconds", False, "queue_oldest_request_seconds", "Age of the oldest of them."),
        ("queue", "backlog_seconds", False, "queue_backlog_seconds", "Work that waits, as time of one worker."),
        ("links", "clients", False, "link_clients", "Clients that are connected by a transport."),
        ("links", "workers", False, "link_workers", "Workers that are connected by a transport."),
        ("links", "bytes_in", True, "link_received_bytes", "Bytes that came by a transport."),
        ("links", "bytes_out", True, "link_sent_bytes", "Bytes that went by a transport."),
        ("events", "crashes", True, "worker_crashes", "Workers that died."),
        ("events", "evictions", True, "worker_evictions", "Workers given up, as slow or for wrong answers."),
        ("events", "lost_clients", True, "lost_clients", "Clients that went without a goodbye."),
        ("events", "upgrades", True, "link_upgrades", "Links that went on by another transport."),
        ("events", "refused_connections", True, "refused_connections", "Connections not let in at the door."),
        ("cache", "hits", True, "cache_hits", "Requests answered from the cache."),
        ("cache", "misses", True, "cache_misses", "Requests whose answer was not in the cache."),
        ("cache", "evicted", True, "cache_evictions", "Answers that made room for others in the cache."),
        ("cache", "entries", False, "cache_entries", "Answers in the cache."),
        ("cache", "bytes", False, "cache_size_bytes", "Memory that the cache takes."),
    )
)


def write_exposition(path: str | Path, description: Mapping[str, Any]) -> None:
    """Writes what `Metrics.describe` returned to a file, which is there as a whole or not at all.

    Raises
    ------
    InvalidInput
        Where the path does not end in ``.prom``, or prometheus-client is not installed.
    OSError
        Where the file cannot be written; one that was there before stays as it is.
    """
    if Path(path).suffix != SUFFIX:
        raise InvalidInput(f"{path} does not end in {SUFFIX}: node_exporter's textfile collector would not read it")
    try:
        from prometheus_client import CollectorRegistry, write_to_textfile
    except ModuleNotFoundError as error:
        raise InvalidInput(
            f"{path} cannot be written: {error.name} is not installed; pip install 'demos-hpc[door]',"
            " or do without a file for Prometheus"
        ) from None
    registry = CollectorRegistry()
    registry.register(_Collector(description))
    write_to_textfile(str(path), registry)  # under another name beside it, then renamed


class _Collector:
    """The metrics of one description, as prometheus-client asks for them."""

    def __init__(self, description: Mapping[str, Any]) -> None:
        self._server = _make_label(description["server"])
        self._sections = _divide(description)

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for row in _ROWS:
            make = CounterMetricFamily if row.is_counter else GaugeMetricFamily
            family = make(PREFIX + row.name, row.about, labels=["server", *_LABELS[row.section]])
            for item in self._sections[row.section]:
                family.add_metric(self._find_labels(row.section, item), float(item[row.key]))
            yield family
        yield self._collect_latencies()

    def _collect_latencies(self) -> Metric:
        from prometheus_client.core import HistogramMetricFamily

        name, about = "request_duration_seconds", "Time from a request's arrival to its final reply."
        family = HistogramMetricFamily(PREFIX + name, about, labels=["server", *_LABELS["operations"]])
        for item in self._sections["operations"]:
            latency = Histogram.from_dict(item["latency"])
            sums = list(accumulate(latency.counts))
            buckets = [(str(EDGES[nth]), float(sums[nth])) for nth in range(0, len(EDGES), STRIDE)]
            buckets.append(("+Inf", float(sums[-1])))
            family.add_metric(self._find_labels("operations", item), buckets, latency.seconds)
        return family

    def _find_labels(self, section: str, item: Mapping[str, Any]) -> list[str]:
        return [self._server, *(_make_label(item[key]) for key in _LABELS[section].values())]


def _divide(description: Mapping[str, Any]) -> dict[str, Sequence[Mapping[str, Any]]]:
    """The description as sections, each a list of items."""
    operations, usage = description["operations"], description.get("usage", {"used": [], "workers": []})
    return {
        "server": [description],
        "queue": [description["queue"]],
        "events": [description["events"]],
        "cache": [] if description["cache"] is None else [description["cache"]],
        "refused": [{"status": status, "count": count} for status, count in description["refused"].items()],
        "links": [{"transport": name, **link} for name, link in description["links"].items()],
        "users": description["users"],
        "workers": description["workers"],
        "operations": operations,
        "used": usage["used"],
        "there": usage["workers"],
        "failures": [
            {**one, "status": status, "count": count} for one in operations for status, count in one["failures"].items()
        ],
    }


def _make_label(value: Any) -> str:
    """Text that can be written: half a character in one name would keep the whole file from being read."""
    return str(value).encode("utf-8", "backslashreplace").decode()
