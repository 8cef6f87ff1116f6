"""The text file for Prometheus: read back by prometheus-client's own parser, and never there by half."""

from __future__ import annotations

import math
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demos_hpc.errors import InvalidInput, Status
from demos_hpc.exposition import write_exposition
from demos_hpc.messages import Operation
from demos_hpc.metrics import Metrics, Queue

parser = pytest.importorskip("prometheus_client.parser")

DENSITY, SAMPLE = int(Operation.LOG_DENSITY), int(Operation.SAMPLE)
CACHE = {"hits": 30, "misses": 10, "entries": 4, "bytes": 5000, "max_bytes": 9000, "evicted": 6}
#: What would break a line, a label or the encoding.
ODD_NAMES = ['qu"ote', "back\\slash", "new\nline", "{brace}, = #", "ünïcödé", "half \ud800", "other half \udfff", ""]


def make_metrics() -> Metrics:
    metrics = Metrics("nu-1", 100.0)
    metrics.client_joined(1, "ada", "tcp")
    metrics.worker_joined(7, "w0", "node1", 11, "nu", "unix", 100.0)
    metrics.worker_told(7, 5_000_000, 2, 64_000, 128_000)
    metrics.chunk_begun(7, 101.0)
    metrics.chunk_done(7, 2.0, 104.0)
    metrics.charge("ada", "nu", 2.0, cores=4)
    metrics.usage.come(7, "nu", 4, 100.0)
    metrics.add_bytes(1, 100, 1000)
    for seconds in (0.0005, 0.002, 0.002, 2.0, 1e5):
        metrics.request_done("ada", "nu", DENSITY, 10, seconds, Status.OK)
    metrics.request_done("ada", "nu", SAMPLE, 10, 0.1, Status.DEADLINE)
    metrics.request_refused("ada", Status.BUSY)
    metrics.connection_refused()
    return metrics


def read(path: Path) -> dict[str, Any]:
    """The families of a file by name."""
    with path.open(encoding="utf-8") as file:
        return {family.name: family for family in parser.text_fd_to_metric_families(file)}


def find(families: dict[str, Any], name: str, **labels: str) -> float:
    """The one sample of this name that has these labels."""
    samples: Iterator[Any] = (s for family in families.values() for s in family.samples)
    found = [s.value for s in samples if s.name == name and labels.items() <= s.labels.items()]
    assert len(found) == 1, f"{name} {labels}: {found}"
    value: float = found[0]
    return value


def test_every_figure_stands_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "demos.prom"
    write_exposition(path, make_metrics().describe(110.0, Queue(3, 0.5, 2.5), CACHE))
    families = read(path)
    assert all(name.startswith("demos_hpc_") for name in families)
    assert all(sample.labels["server"] == "nu-1" for family in families.values() for sample in family.samples)
    expected = {
        ("demos_hpc_uptime_seconds",): 10.0,
        ("demos_hpc_requests_total", "model=nu", "operation=log_density"): 5,
        ("demos_hpc_rows_total", "model=nu", "operation=log_density"): 50,
        ("demos_hpc_failures_total", "operation=sample", "status=DEADLINE"): 1,
        ("demos_hpc_refused_requests_total", "status=BUSY"): 1,
        ("demos_hpc_user_clients", "user=ada"): 1,
        ("demos_hpc_user_requests_total", "user=ada"): 6,
        ("demos_hpc_user_rows_total", "user=ada"): 50,
        ("demos_hpc_user_failures_total", "user=ada"): 1,
        ("demos_hpc_user_refused_requests_total", "user=ada"): 1,
        ("demos_hpc_user_busy_seconds_total", "user=ada"): 2.0,
        ("demos_hpc_user_received_bytes_total", "user=ada"): 100,
        ("demos_hpc_user_sent_bytes_total", "user=ada"): 1000,
        ("demos_hpc_used_core_seconds_total", "user=ada", "model=nu"): 8.0,
        ("demos_hpc_used_requests_total", "user=ada", "model=nu"): 6,
        ("demos_hpc_used_rows_total", "user=ada", "model=nu"): 50,
        ("demos_hpc_worker_core_seconds_total", "model=nu"): 40.0,
        ("demos_hpc_worker_up", "worker=w0", "model=nu"): 1,
        ("demos_hpc_worker_busy_ratio", "worker=w0"): 0.2,
        ("demos_hpc_worker_resident_memory_bytes", "worker=w0"): 5_000_000,
        ("demos_hpc_worker_held_datasets", "worker=w0"): 2,
        ("demos_hpc_worker_held_bytes", "worker=w0"): 64_000,
        ("demos_hpc_worker_held_budget_bytes", "worker=w0"): 128_000,
        ("demos_hpc_worker_chunks_total", "worker=w0"): 1,
        ("demos_hpc_worker_busy_seconds_total", "worker=w0"): 2.0,
        ("demos_hpc_worker_lost_chunks_total", "worker=w0"): 0,
        ("demos_hpc_worker_restarts_total", "worker=w0"): 0,
        ("demos_hpc_queue_requests",): 3,
        ("demos_hpc_queue_oldest_request_seconds",): 0.5,
        ("demos_hpc_queue_backlog_seconds",): 2.5,
        ("demos_hpc_link_clients", "transport=tcp"): 1,
        ("demos_hpc_link_workers", "transport=unix"): 1,
        ("demos_hpc_link_received_bytes_total", "transport=tcp"): 100,
        ("demos_hpc_link_sent_bytes_total", "transport=tcp"): 1000,
        ("demos_hpc_worker_crashes_total",): 0,
        ("demos_hpc_worker_evictions_total",): 0,
        ("demos_hpc_lost_clients_total",): 0,
        ("demos_hpc_link_upgrades_total",): 0,
        ("demos_hpc_refused_connections_total",): 1,
        ("demos_hpc_cache_hits_total",): 30,
        ("demos_hpc_cache_misses_total",): 10,
        ("demos_hpc_cache_evictions_total",): 6,
        ("demos_hpc_cache_entries",): 4,
        ("demos_hpc_cache_size_bytes",): 5000,
    }
    for (name, *labels), value in expected.items():
        assert find(families, name, **dict(label.split("=") for label in labels)) == pytest.approx(value), name
    named = {name.removesuffix("_total") for name, *_ in expected}
    assert set(families) - named == {"demos_hpc_request_duration_seconds"}


def test_counters_and_gauges_are_called_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "demos.prom"
    write_exposition(path, make_metrics().describe(110.0, cache=CACHE))
    for family in read(path).values():
        assert family.documentation.endswith(".")
        for sample in family.samples:
            assert (family.type == "counter") == sample.name.endswith("_total")
    assert not [name for name in read(path) if "ms" in name.split("_") or "kb" in name.split("_")]


def test_latencies_are_a_histogram_whose_buckets_add_up(tmp_path: Path) -> None:
    path = tmp_path / "demos.prom"
    write_exposition(path, make_metrics().describe(110.0))
    name = "demos_hpc_request_duration_seconds"
    family = read(path)[name]
    assert family.type == "histogram"
    samples = [s for s in family.samples if s.labels["operation"] == "log_density"]
    buckets = {float(s.labels["le"]): s.value for s in samples if s.name == f"{name}_bucket"}
    assert list(buckets) == sorted(buckets)
    assert list(buckets.values()) == sorted(buckets.values())
    assert (buckets[1e-4], buckets[1e-3], buckets[1e-2], buckets[1.0], buckets[10.0]) == (0, 1, 3, 3, 4)
    assert (buckets[1e4], buckets[math.inf]) == (4, 5)
    assert len(buckets) == 42
    assert find(read(path), f"{name}_count", operation="log_density") == 5
    assert find(read(path), f"{name}_sum", operation="log_density") == pytest.approx(100002.0045)


def test_names_that_others_have_chosen_break_nothing(tmp_path: Path) -> None:
    path = tmp_path / "demos.prom"
    metrics = make_metrics()
    for name in ODD_NAMES:
        metrics.request_done(name, name, DENSITY, 1, 0.1, Status.OK)
    write_exposition(path, metrics.describe(110.0))
    users = {s.labels["user"] for s in read(path)["demos_hpc_user_requests"].samples}
    assert users == {"ada", *(name.encode("utf-8", "backslashreplace").decode() for name in ODD_NAMES)}
    assert len(users) == len(ODD_NAMES) + 1


def test_a_server_without_a_cache_has_no_figures_of_one(tmp_path: Path) -> None:
    path = tmp_path / "demos.prom"
    write_exposition(path, make_metrics().describe(110.0))
    assert not [s for family in read(path).values() for s in family.samples if "cache" in s.name]


def test_a_new_file_takes_the_old_ones_place_at_once(tmp_path: Path) -> None:
    path = tmp_path / "demos.prom"
    metrics = make_metrics()
    write_exposition(path, metrics.describe(110.0))
    with path.open(encoding="utf-8") as still_open:
        write_exposition(path, metrics.describe(120.0))
        assert 'uptime_seconds{server="nu-1"} 10.0' in still_open.read()
    assert find(read(path), "demos_hpc_uptime_seconds") == 20.0
    assert os.listdir(tmp_path) == ["demos.prom"]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    """As on a full disk: no file may have more than a few bytes."""
    path = tmp_path / "demos.prom"
    metrics = make_metrics()
    write_exposition(path, metrics.describe(110.0))
    before = path.read_bytes()
    code = f"""if True:
        import resource
        from demos_hpc.exposition import write_exposition
        from demos_hpc.metrics import Metrics
        description = Metrics("other", 0.0).describe(1.0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        try:
            write_exposition({str(path)!r}, description)
        except OSError as error:
            print(error.strerror)
    """
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("File too large\n", "")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["demos.prom"]


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No such file.*nowhere"):
        write_exposition(tmp_path / "nowhere" / "demos.prom", make_metrics().describe(110.0))


def test_a_name_that_the_collector_would_not_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"demos\.txt does not end in \.prom"):
        write_exposition(tmp_path / "demos.txt", make_metrics().describe(110.0))


def test_without_prometheus_client_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(InvalidInput, match=r"prometheus_client is not installed; pip install 'demos-hpc\[door\]'"):
        write_exposition(tmp_path / "demos.prom", make_metrics().describe(110.0))
    assert not os.listdir(tmp_path)


def test_prometheus_client_is_imported_only_when_it_is_wanted() -> None:
    code = "import sys, demos_hpc.exposition; print('prometheus_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")
