"""Runs the benchmarks of a source checkout and holds their figures against what is wanted."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .children import Ended, run_aloud
from .errors import InvalidInput, LaunchError

#: Seconds for one benchmark, in full and with ``--quick``.
DEADLINE, QUICK_DEADLINE = 1800.0, 300.0
#: A benchmark ends with this call, of its harness.
REPORTS = re.compile(r"^\s+report\(", re.MULTILINE)


@dataclass(frozen=True)
class Wanted:
    """A figure is to be at most, or at least, ``bound``."""

    sense: str
    bound: float

    def __str__(self) -> str:
        return f"{self.sense} {self.bound:g}"

    def find_margin(self, value: float) -> float:
        """How many times as good as wanted; 1 or more where it is reached."""
        if self.sense == "<=":
            return self.bound / value if value > 0 else float("inf")
        return value / self.bound


def _at_most(bound: float) -> Wanted:
    return Wanted("<=", bound)


def _at_least(bound: float) -> Wanted:
    return Wanted(">=", bound)


#: On two cores.
WANTED: Mapping[str, Mapping[str, Wanted]] = {
    "roundtrip": {
        "ratio_to_raw": _at_most(1.5),
        "speedup_vs_umbridge": _at_least(30),
        "speedup_vs_futures": _at_least(8),
        "tcp_vs_raw_socket": _at_most(1.5),
        "door_shm_vs_inworld": _at_most(1.1),
    },
    "throughput": {"speedup_vs_futures": _at_least(20)},
    "batch": {"rate_vs_bare_mpi": _at_least(0.8), "overhead_ms_64MB": _at_most(12), "time_vs_numpy": _at_most(1.3)},
    "clients": {"rate_32_clients_vs_one": _at_least(0.8)},
    "door": {"detect_ms": _at_most(100), "door_polls_per_request_inworld": _at_most(0)},
    "data": {
        "contiguous_vs_relay": _at_least(0.8),
        "direct_vs_h5py": _at_least(0.98),
        "compressed_vs_h5py": _at_least(1.6),
        "random_rows_vs_h5py": _at_least(1.0),
        "random_rows_vs_one_by_one": _at_least(50),
        "stream_peak_mb": _at_most(512),
        "likelihood_speedup_2_workers": _at_least(0.95),
        "likelihood_overhead_us": _at_most(60),
        "likelihood_overhead_after_300ms_us": _at_most(1000),
        "emcee_100_vs_best_peer": _at_least(10),
    },
    "native": {
        "plugin_vs_c_loop": _at_most(1.02),
        "scalar_overhead_ns": _at_most(3),
        "speedup_2_threads": _at_least(0.95),
        "c_rank_vs_python_worker": _at_most(0.8),
        "served_vs_ctypes": _at_most(1.15),
        "neutrino_c_vs_numpy": _at_least(10),
        "neutrino_gradient_c_vs_numpy": _at_least(10),
    },
    "overhead": {"contained_compute": _at_least(0.98), "contained_roundtrip": _at_most(1.15)},
    "lifecycle": {
        "submit_to_ready_s": _at_most(15),
        "scale_to_chunk_s": _at_most(15),
        "server_sif_mb": _at_most(150),
        "rebuilt_same_list": _at_least(1),
        "cut_same_bits": _at_least(1),
        "requeue_same_bits": _at_least(1),
        "jobs_served": _at_least(50),
        "fair_share": _at_least(0.8),
    },
    "scaling": {
        "speedup_2_workers": _at_least(0.95),
        "busy_fraction_128_ranks": _at_least(0.95),
        "idle_cores_128_ranks": _at_most(0.03),
        "wake_ms": _at_most(2),
    },
}


@dataclass(frozen=True)
class Report:
    """The last line of a benchmark."""

    benchmark: str
    figures: Mapping[str, float]
    machine: Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """A figure beside what is wanted; ``margin`` is at least 1 where it is reached, None where nothing is wanted."""

    benchmark: str
    key: str
    value: float
    wanted: Wanted | None

    @property
    def margin(self) -> float | None:
        return None if self.wanted is None else self.wanted.find_margin(self.value)


def find_benchmarks(names: Sequence[str] = ()) -> list[Path]:
    """The benchmarks of the checkout that this package lies in, or else of the working directory.

    Raises
    ------
    LaunchError
        Where there is no checkout.
    InvalidInput
        Where there is no benchmark of a name.
    """
    places = [place / "benchmarks" for place in (Path(__file__).parents[1], Path.cwd())]
    found = next(filter(None, map(_list_benchmarks, places)), {})
    if not found:
        raise LaunchError(
            f"there are no benchmarks in {places[0]} nor in {places[1]}: they come with the sources, not with an"
            " installed package; clone the repository, and there `pip install '.[bench]'` and `demos-hpc bench`"
        )
    if unknown := [name for name in names if name not in found]:
        raise InvalidInput(f"no benchmark {', '.join(map(repr, unknown))}; there are {', '.join(found)}")
    return [found[name] for name in names] if names else list(found.values())


def _list_benchmarks(directory: Path) -> dict[str, Path]:
    files = [path for path in sorted(directory.glob("*.py")) if path.stem != "harness"]
    return {path.stem: path for path in files if REPORTS.search(path.read_text(encoding="utf-8"))}


def run_benchmark(path: Path, *, quick: bool, listen: Callable[[str], None]) -> Report:
    """Runs one benchmark; ``listen`` is told what it prints.

    Raises
    ------
    LaunchError
        Where it fails, takes too long, or reports nothing.
    """
    command = [sys.executable, str(path), *(["--quick"] if quick else [])]
    package = str(Path(__file__).parents[1])
    places = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(places)}
    ended = run_aloud(command, environment, QUICK_DEADLINE if quick else DEADLINE, listen)
    if ended.code is None:
        raise LaunchError(f"{path.name} was not done within {ended.seconds:.0f} s")
    if ended.code:
        raise LaunchError(f"{path.name} ended with exit status {ended.code}")
    return read_report(path.name, ended)


def read_report(name: str, ended: Ended) -> Report:
    """The report in the last line that a benchmark wrote."""
    lines = ended.out.strip().splitlines() or [""]
    try:
        last = json.loads(lines[-1])
        figures = {str(key): float(value) for key, value in last["figures"].items()}
        return Report(str(last["benchmark"]), figures, dict(last["machine"]))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise LaunchError(f"{name} has no report in its last line: {lines[-1][:80]!r}") from None


def compare(reports: Sequence[Report]) -> list[Row]:
    """All figures, each with what is wanted of it."""
    return [
        Row(report.benchmark, key, value, _find_wanted(report.benchmark, key))
        for report in reports
        for key, value in report.figures.items()
    ]


def _find_wanted(benchmark: str, key: str) -> Wanted | None:
    if re.fullmatch(r"efficiency_\d+(_replicas)?", key):
        return _at_least(0.9)
    return WANTED.get(benchmark, {}).get(key)
