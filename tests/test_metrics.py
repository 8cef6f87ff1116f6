"""What a dispatcher counts: every event once, in the right place, cheaply, and told as JSON."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos_hpc.errors import Status
from demos_hpc.installation import PACKAGE
from demos_hpc.messages import Operation
from demos_hpc.metrics import FORMAT, KEPT_TURNS, MOST_GONE, MOST_USERS, OTHERS, TURN_SECONDS, Metrics, Queue

CHECK = settings(derandomize=True, deadline=None, max_examples=100)
DENSITY, SAMPLE = int(Operation.LOG_DENSITY), int(Operation.SAMPLE)
OK, DEADLINE, BUSY = int(Status.OK), int(Status.DEADLINE), int(Status.BUSY)


def start() -> Metrics:
    return Metrics("nu-1", 100.0)


def join(metrics: Metrics, worker: int = 7, name: str = "w0", now: float = 100.0, pid: int = 11) -> None:
    metrics.worker_joined(worker, name, "node1", pid, "nu", "unix", now)


def describe(metrics: Metrics, now: float, **more: Any) -> dict[str, Any]:
    """A description as it arrives: it has been JSON."""
    told = metrics.describe(now, **more)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    return told


def find(told: dict[str, Any], section: str, **wanted: Any) -> dict[str, Any]:
    found = [item for item in told[section] if all(item[key] == value for key, value in wanted.items())]
    assert len(found) == 1
    item: dict[str, Any] = found[0]
    return item


# ---- what is told ------------------------------------------------------------------------------------------------


def test_a_description_has_the_keys_that_are_documented() -> None:
    metrics = start()
    join(metrics)
    metrics.client_joined(1, "ada", "tcp")
    metrics.request_done("ada", "nu", DENSITY, 10, 0.1, OK)
    told = describe(metrics, 101.0)
    latency = {"count", "p50", "p90", "p99", "first", "counts", "seconds"}
    window = {"seconds", "requests", "rows", "latency"}
    assert set(told) == {
        "format", "server", "uptime_seconds", "requests", "rows", "failures", "refused", "latency", "window",
        "operations", "users", "workers", "usage", "queue", "links", "cache", "events",
    }  # fmt: skip
    assert set(told["latency"]) == latency
    assert set(told["window"]) == window
    assert set(told["operations"][0]) == {
        "model", "operation", "requests", "rows", "failures", "latency", "window"
    }  # fmt: skip
    assert set(told["operations"][0]["window"]) == window
    assert set(told["users"][0]) == {
        "user", "clients", "requests", "rows", "failures", "refused", "busy_seconds", "bytes_in", "bytes_out", "window",
    }  # fmt: skip
    assert set(told["users"][0]["window"]) == {"seconds", "requests", "rows", "busy_seconds"}
    assert set(told["workers"][0]) == {
        "name", "model", "host", "pid", "transport", "is_alive", "up_seconds", "chunks", "busy_seconds", "busy_share",
        "running_seconds", "rss_bytes", "datasets", "held_bytes", "budget_bytes", "chunks_lost", "restarts",
    }  # fmt: skip
    assert set(told["usage"]) == {"used", "workers"}
    assert set(told["usage"]["used"][0]) == {"user", "model", "requests", "rows", "draws", "core_seconds"}
    assert set(told["queue"]) == {"length", "oldest_seconds", "backlog_seconds"}
    assert set(told["links"]["tcp"]) == {"clients", "workers", "bytes_in", "bytes_out"}
    assert set(told["events"]) == {"crashes", "evictions", "lost_clients", "upgrades", "refused_connections"}
    # In the source: where that was compiled, methods have lost their docstrings.
    _, _, source = (PACKAGE / "metrics.py").read_text(encoding="utf-8").partition("def describe(")
    documented = source.split('"""')[1]
    for section in (told, told["operations"][0], told["users"][0], told["workers"][0], told["queue"], told["events"]):
        assert not [key for key in section if key not in documented]


def test_nothing_has_happened_yet() -> None:
    told = describe(start(), 100.0)
    assert (told["format"], told["server"], told["uptime_seconds"]) == (FORMAT, "nu-1", 0.0)
    assert (told["requests"], told["rows"], told["operations"], told["users"]) == (0, 0, [], [])
    assert told["latency"]["p50"] is None
    assert told["cache"] is None
    assert told["window"]["seconds"] == 0.0


def test_the_queue_and_the_cache_are_told_as_given() -> None:
    told = describe(start(), 101.0, queue=Queue(3, 0.5, 2.5), cache={"hits": 4})
    assert told["queue"] == {"length": 3, "oldest_seconds": 0.5, "backlog_seconds": 2.5}
    assert told["cache"] == {"hits": 4}


# ---- requests ----------------------------------------------------------------------------------------------------


def test_requests_are_counted_by_operation_and_by_user() -> None:
    metrics = start()
    metrics.request_done("ada", "nu", DENSITY, 10, 0.1, OK)
    metrics.request_done("bob", "nu", DENSITY, 5, 0.3, OK)
    metrics.request_done("ada", "nu", SAMPLE, 7, 2.0, DEADLINE)
    metrics.request_refused("bob", BUSY)
    metrics.charge("ada", "nu", 0.25)
    told = describe(metrics, 110.0)
    assert (told["requests"], told["rows"]) == (3, 15)
    assert told["failures"] == {"DEADLINE": 1}
    assert told["refused"] == {"BUSY": 1}
    density = find(told, "operations", operation="log_density")
    assert (density["model"], density["requests"], density["rows"], density["failures"]) == ("nu", 2, 15, {})
    assert density["latency"]["seconds"] == pytest.approx(0.4)
    sample = find(told, "operations", operation="sample")
    assert (sample["requests"], sample["rows"], sample["failures"]) == (1, 0, {"DEADLINE": 1})
    ada, bob = find(told, "users", user="ada"), find(told, "users", user="bob")
    assert (ada["requests"], ada["rows"], ada["failures"], ada["refused"], ada["busy_seconds"]) == (2, 10, 1, 0, 0.25)
    assert (bob["requests"], bob["rows"], bob["failures"], bob["refused"], bob["busy_seconds"]) == (1, 5, 0, 1, 0.0)
    assert told["latency"]["count"] == 3
    assert told["latency"]["p99"] == pytest.approx(2.0, rel=0.13)


def test_unknown_operations_and_statuses_are_told_somehow() -> None:
    metrics = start()
    metrics.request_done("ada", "nu", 200, 1, 0.1, 4711)
    metrics.request_done("ada", "nu", 200, 1, 0.1, 4712)
    metrics.request_refused("ada", 4713)
    told = describe(metrics, 101.0)
    assert find(told, "operations", operation="200")["failures"] == {"INTERNAL": 2}
    assert told["refused"] == {"INTERNAL": 1}


def test_users_without_end_do_not_fill_memory() -> None:
    metrics = start()
    for nth in range(MOST_USERS + 500):
        metrics.request_done(f"user{nth}", "nu", DENSITY, 1, 0.1, OK)
        metrics.charge(f"user{nth}", "nu", 1.0)
    told = describe(metrics, 101.0)
    assert len(told["users"]) == MOST_USERS + 1
    assert find(told, "users", user=OTHERS)["requests"] == 500
    assert sum(user["busy_seconds"] for user in told["users"]) == MOST_USERS + 500


# ---- the window --------------------------------------------------------------------------------------------------


def test_the_window_is_the_last_ten_seconds_or_so() -> None:
    metrics = start()
    for tenth in range(600):
        now = 100.0 + tenth / 10
        metrics.turn(now)
        metrics.request_done("ada", "nu", DENSITY, 3, 1.0 if tenth < 300 else 0.001, OK)
        metrics.charge("ada", "nu", 0.05)
    told = describe(metrics, 160.0)
    seconds = told["window"]["seconds"]
    assert TURN_SECONDS * (KEPT_TURNS - 1) <= seconds <= TURN_SECONDS * KEPT_TURNS + 0.1
    assert told["window"]["requests"] == pytest.approx(10 * seconds, abs=1)
    assert told["window"]["rows"] == 3 * told["window"]["requests"]
    assert told["window"]["latency"]["p99"] < 0.0012
    assert told["latency"]["p90"] > 0.8
    ada, density = told["users"][0]["window"], told["operations"][0]["window"]
    assert (density["requests"], density["rows"]) == (told["window"]["requests"], told["window"]["rows"])
    assert ada["requests"] == density["requests"]
    assert ada["busy_seconds"] == pytest.approx(0.05 * ada["requests"])


def test_the_window_says_how_long_it_is_where_nobody_turned() -> None:
    metrics = start()
    metrics.request_done("ada", "nu", DENSITY, 1, 0.1, OK)
    assert describe(metrics, 3700.0)["window"] | {"latency": None} == {
        "seconds": 3600.0, "requests": 1, "rows": 1, "latency": None
    }  # fmt: skip


@CHECK
@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 5)), min_size=1, max_size=60))
def test_windows_count_what_came_in_them_whenever_it_came(arrivals: list[tuple[float, int]]) -> None:
    metrics = start()
    now, times = 100.0, []
    for pause, rows in arrivals:
        now += pause
        metrics.turn(now)
        metrics.request_done("ada", "nu", DENSITY, rows, 0.1, OK)
        times.append((now, rows))
    told = describe(metrics, now)
    begin = now - told["window"]["seconds"]
    # The copy is made before what happens at the same time is counted.
    assert told["window"]["requests"] == sum(at >= begin - 1e-9 for at, _ in times)
    assert told["window"]["rows"] == sum(rows for at, rows in times if at >= begin - 1e-9)


# ---- workers -----------------------------------------------------------------------------------------------------


def test_a_worker_is_busy_for_as_long_as_it_says() -> None:
    metrics = start()
    join(metrics)
    metrics.chunk_begun(7, 101.0)
    metrics.chunk_done(7, 2.0, 104.0)
    metrics.worker_told(7, 5_000_000, 2, 64_000, 128_000)
    worker = find(describe(metrics, 108.0), "workers", name="w0")
    assert (worker["datasets"], worker["held_bytes"], worker["budget_bytes"]) == (2, 64_000, 128_000)
    assert (worker["model"], worker["host"], worker["pid"], worker["transport"]) == ("nu", "node1", 11, "unix")
    assert (worker["chunks"], worker["busy_seconds"], worker["rss_bytes"]) == (1, 2.0, 5_000_000)
    assert worker["is_alive"]
    assert worker["up_seconds"] == 8.0
    assert worker["busy_share"] == pytest.approx(2 / 8)
    assert worker["running_seconds"] is None


def test_a_worker_in_a_long_chunk_is_busy_now() -> None:
    metrics = start()
    join(metrics)
    metrics.chunk_begun(7, 110.0)
    for now in range(110, 500):
        metrics.turn(float(now))
    worker = find(describe(metrics, 500.0), "workers", name="w0")
    assert worker["busy_share"] == 1.0
    assert worker["running_seconds"] == 390.0
    assert worker["busy_seconds"] == 0.0  # known once the chunk is done


@pytest.mark.parametrize("lie", [1e10, math.inf, math.nan, -5.0])
def test_a_worker_cannot_have_been_busier_than_it_had_time_for(lie: float) -> None:
    metrics = start()
    join(metrics)
    metrics.chunk_begun(7, 101.0)
    credit = metrics.chunk_done(7, lie, 104.0)
    worker = find(describe(metrics, 110.0), "workers", name="w0")
    assert worker["busy_seconds"] == credit == (0.0 if lie < 0 else 3.0)


def test_results_that_are_taken_in_together_lose_no_time() -> None:
    metrics = start()
    join(metrics)
    metrics.chunk_begun(7, 101.0)
    metrics.chunk_begun(7, 101.0)
    for _ in range(2):
        metrics.chunk_done(7, 1.0, 103.5)  # both answers were found at the same look
    assert find(describe(metrics, 104.0), "workers", name="w0")["busy_seconds"] == 2.0


def test_a_place_remembers_those_that_were_there_before() -> None:
    metrics = start()
    join(metrics, 7)
    metrics.chunk_begun(7, 101.0)
    metrics.chunk_done(7, 1.0, 102.0)
    metrics.chunk_begun(7, 102.0)
    metrics.chunk_begun(7, 102.0)
    metrics.worker_lost(7)
    worker = find(describe(metrics, 103.0), "workers", name="w0")
    assert (worker["is_alive"], worker["chunks_lost"], worker["restarts"], worker["busy_share"]) == (False, 2, 0, 0.0)
    assert worker["running_seconds"] is None
    join(metrics, 8, now=104.0, pid=12)
    metrics.chunk_begun(8, 104.0)
    metrics.chunk_done(8, 0.5, 105.0)
    metrics.chunk_begun(8, 105.0)
    metrics.worker_evicted(8)
    join(metrics, 9, now=106.0, pid=13)
    told = describe(metrics, 106.0)
    worker = find(told, "workers", name="w0")
    assert (worker["pid"], worker["chunks"], worker["busy_seconds"]) == (13, 2, 1.5)
    assert (worker["chunks_lost"], worker["restarts"], worker["up_seconds"]) == (3, 2, 0.0)
    assert (told["events"]["crashes"], told["events"]["evictions"]) == (1, 1)


def test_a_worker_that_ends_as_it_should_is_no_crash() -> None:
    metrics = start()
    join(metrics)
    metrics.worker_left(7)
    told = describe(metrics, 101.0)
    assert told["events"]["crashes"] == 0
    assert told["links"]["unix"]["workers"] == 0
    assert not told["workers"][0]["is_alive"]


def test_two_workers_of_one_name_are_told_apart() -> None:
    metrics = start()
    join(metrics, 7)
    join(metrics, 8)
    metrics.chunk_begun(8, 101.0)
    metrics.chunk_done(8, 0.5, 102.0)
    assert {w["name"]: w["chunks"] for w in describe(metrics, 103.0)["workers"]} == {"w0": 0, "w0 (8)": 1}


def test_workers_that_are_gone_are_forgotten_at_last() -> None:
    metrics = start()
    join(metrics, 1, "stays")
    for nth in range(10, 10 + 3 * MOST_GONE):
        join(metrics, nth, f"w{nth}")
        metrics.worker_lost(nth)
    workers = describe(metrics, 101.0)["workers"]
    assert len(workers) == MOST_GONE + 1
    assert workers[0]["name"] == "stays"
    assert workers[-1]["name"] == f"w{9 + 3 * MOST_GONE}"
    metrics.worker_lost(1)
    join(metrics, 9, "last")
    metrics.worker_lost(9)
    workers = describe(metrics, 101.0)["workers"]
    assert len(workers) == MOST_GONE
    assert [worker["name"] for worker in workers[-2:]] == ["stays", "last"]  # who came first, but went late


# ---- links -------------------------------------------------------------------------------------------------------


def test_links_are_counted_by_transport_also_when_they_change_it() -> None:
    metrics = start()
    metrics.client_joined(1, "ada", "tcp")
    metrics.client_joined(2, "bob", "tcp")
    join(metrics, 7)
    metrics.add_bytes(1, 100, 1000)
    metrics.add_bytes(7, 5, 50)
    metrics.link_upgraded(1, "mpi")
    metrics.add_bytes(1, 1, 2)
    told = describe(metrics, 101.0)
    assert told["links"] == {
        "tcp": {"clients": 1, "workers": 0, "bytes_in": 100, "bytes_out": 1000},
        "unix": {"clients": 0, "workers": 1, "bytes_in": 5, "bytes_out": 50},
        "mpi": {"clients": 1, "workers": 0, "bytes_in": 1, "bytes_out": 2},
    }
    ada = find(told, "users", user="ada")
    assert (ada["clients"], ada["bytes_in"], ada["bytes_out"]) == (1, 101, 1002)
    metrics.link_upgraded(7, "mpi")
    metrics.client_left(1)
    metrics.client_lost(2)
    told = describe(metrics, 102.0)
    assert {name: (link["clients"], link["workers"]) for name, link in told["links"].items()} == {
        "tcp": (0, 0), "unix": (0, 0), "mpi": (0, 1)
    }  # fmt: skip
    assert find(told, "workers", name="w0")["transport"] == "mpi"
    assert told["events"] == {
        "crashes": 0, "evictions": 0, "lost_clients": 1, "upgrades": 2, "refused_connections": 0
    }  # fmt: skip


def test_what_is_told_of_strangers_is_not_counted() -> None:
    metrics = start()
    before = describe(metrics, 101.0)
    metrics.chunk_begun(5, 100.0)
    metrics.chunk_done(5, 1.0, 101.0)
    metrics.worker_lost(5)
    metrics.worker_evicted(5)
    metrics.worker_told(5, 1)
    metrics.client_lost(5)
    metrics.link_upgraded(5, "mpi")
    metrics.add_bytes(5, 1, 1)
    assert describe(metrics, 101.0) == before
    metrics.connection_refused()
    assert describe(metrics, 101.0)["events"]["refused_connections"] == 1


def test_a_late_answer_changes_nothing() -> None:
    metrics = start()
    join(metrics)
    metrics.chunk_done(7, 1.0, 102.0)  # of a chunk that was never given to it
    worker = find(describe(metrics, 103.0), "workers", name="w0")
    assert (worker["chunks"], worker["busy_seconds"], worker["running_seconds"]) == (0, 0.0, None)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["client", "leave", "lose", "worker", "left", "lost", "evicted", "upgrade", "begin", "done"]),
        st.integers(0, 5),
    ),
    max_size=80,
)


@CHECK
@given(EVENTS)
def test_in_whatever_order_peers_come_and_go_the_gauges_are_right(events: list[tuple[str, int]]) -> None:
    """Clients have odd numbers, workers even ones, as they never share one."""
    metrics = start()
    here: dict[int, str] = {}
    chunks = 0
    running = dict.fromkeys(range(0, 12, 2), 0)
    for nth, (what, number) in enumerate(events):
        now = 100.0 + nth
        client, worker = 2 * number + 1, 2 * number
        if what == "client" and client not in here:
            metrics.client_joined(client, f"user{number % 2}", "tcp")
            here[client] = "tcp"
        elif what in ("leave", "lose"):
            (metrics.client_left if what == "leave" else metrics.client_lost)(client)
            here.pop(client, None)
        elif what == "worker" and worker not in here:
            metrics.worker_joined(worker, f"w{number}", "node", number, "nu", "tcp", now)
            here[worker] = "tcp"
        elif what in ("left", "lost", "evicted"):
            {"left": metrics.worker_left, "lost": metrics.worker_lost, "evicted": metrics.worker_evicted}[what](worker)
            here.pop(worker, None)
            running[worker] = 0
        elif what == "upgrade":
            metrics.link_upgraded(client, "mpi")
            if client in here:
                here[client] = "mpi"
        elif what == "begin":
            metrics.chunk_begun(worker, now)
            running[worker] += worker in here
        elif what == "done":
            metrics.chunk_done(worker, 0.5, now)
            chunks += running[worker] > 0
            running[worker] = max(0, running[worker] - 1)
        metrics.turn(now)
    told = describe(metrics, 100.0 + len(events))
    for transport in ("tcp", "mpi"):
        link = told["links"].get(transport, {"clients": 0, "workers": 0})
        assert link["clients"] == sum(way == transport and peer % 2 for peer, way in here.items())
        assert link["workers"] == sum(way == transport and not peer % 2 for peer, way in here.items())
    assert sum(user["clients"] for user in told["users"]) == sum(peer % 2 for peer in here)
    assert sum(worker["is_alive"] for worker in told["workers"]) == sum(not peer % 2 for peer in here)
    assert sum(worker["chunks"] for worker in told["workers"]) == chunks
    assert all(0.0 <= worker["busy_share"] <= 1.0 for worker in told["workers"])
    assert all(worker["busy_seconds"] <= len(events) for worker in told["workers"])
