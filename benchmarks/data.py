"""What does it cost to read datasets through the service, and to leave them there?

    python benchmarks/data.py [--quick] [--part NAME ...] [--cold] [--folder DIRECTORY]

Reading: a contiguous dataset against a bare MPI relay of as many bytes, and directly against h5py in the caller's own
process; compressed ones, inflated by two workers, against h5py; random rows; and how much memory any rank needs while
ten times the dataset streams through. Resident data: a likelihood of 1e7 rows by two workers against what two bare
processes reach at the same moment, what a call costs beyond the computing, against sending the rows, and a sampler
against the same through UM-Bridge and schwimmbad, whose models hold the data as well.

The page cache is warm; ``--cold`` reads the contiguous and the compressed datasets once more with it emptied. The
datasets are made in ``--folder`` (about 6 GB), by default a temporary directory.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import h5py
import numpy as np
from harness import print_table, report
from stage import (
    ANALYZE,
    HERE,
    PATH,
    PYTHON,
    SERVE,
    Peer,
    Program,
    alternate,
    compare,
    list_processes_below,
    start_command,
    start_peer,
    time_together,
)

PIECE = 4 << 20
#: Rows of the likelihoods that samplers walk on: few, so that calling costs, and many, so that computing does.
WALKED_ROWS = (100, 1_000, 10_000)
CLIENT = Program(1, [*ANALYZE, str(HERE / "data_client.py")])
BARE = """
import sys
import h5py, numpy as np
from models import Heavy
first, last, times = map(int, sys.argv[2:])
with h5py.File(sys.argv[1]) as file:
    x = file["x"][first:last]
model, point = Heavy(), np.zeros(2)
step = 32768
def once():
    return sum(model.log_density(x[i:i + step], point).sum() for i in range(0, len(x), step))
once()
print("ready", flush=True)
sys.stdin.readline()
for _ in range(times):
    once()
print("done", flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller datasets; less than two minutes")
    parser.add_argument(
        "--part", action="append", choices=[*PARTS, *EXTRA], help="may be repeated; all but large unless given"
    )
    parser.add_argument("--cold", action="store_true", help="also with an empty page cache")
    parser.add_argument("--folder", type=Path, help="where the datasets are, or are made")
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ["BENCH_DATA"] = str(folder)
        os.environ.setdefault("DEMOS_SPOOL", str(folder / "spool"))
        for part in arguments.part or PARTS:
            figures |= {**PARTS, **EXTRA}[part](Sizes(folder, quick=arguments.quick, cold=arguments.cold))
    report("data", figures)


class Sizes:
    """How large everything is, and the datasets, made when they are first needed."""

    def __init__(self, folder: Path, *, quick: bool, cold: bool) -> None:
        self.folder = folder
        self.quick = quick
        self.cold = cold
        self.rounds = 5 if quick else 11
        self.plain_bytes = (256 << 20) if quick else (2 << 30)
        self.packed_bytes = (128 << 20) if quick else (1 << 30)
        self.n_rows = 1_000_000 if quick else 10_000_000
        self.stream_bytes = (2 << 30) if quick else (20 << 30)

    def make(self, name: str) -> Path:
        """The file of a dataset."""
        path = self.folder / f"{name}.h5"
        if not path.exists():
            partial = path.with_suffix(".partial")
            with h5py.File(partial, "w") as file:
                getattr(self, f"_make_{name}")(file)
            partial.rename(path)
        return path

    def _make_plain(self, file: h5py.File) -> None:
        _fill(file.create_dataset("x", (self.plain_bytes // 64, 8), "f8"))

    def _make_gzip(self, file: h5py.File) -> None:
        self._make_packed(file, {"compression": "gzip", "shuffle": True})

    def _make_zstd(self, file: h5py.File) -> None:
        import hdf5plugin

        self._make_packed(file, dict(hdf5plugin.Zstd()))

    def _make_packed(self, file: h5py.File, filters: dict[str, object]) -> None:
        shape = (self.packed_bytes // 64, 8)
        _fill(file.create_dataset("x", shape, "f8", chunks=(16384, 8), **filters), digits=3)

    def _make_rows(self, file: h5py.File) -> None:
        _fill(file.create_dataset("x", (self.n_rows, 10), "f8"))

    def _make_events(self, file: h5py.File) -> None:
        _fill(file.create_dataset("x", (self.n_rows, 4), "f8"))

    def _make_large(self, file: h5py.File) -> None:
        shape = (1_000_000, 4) if self.quick else (100_000_000, 4)
        _fill(file.create_dataset("x", shape, "f8", chunks=(65536, 4)))

    def _make_block(self, file: h5py.File) -> None:
        _fill(file.create_dataset("x", (1000, 1), "f8"))

    def _make_walked(self, file: h5py.File) -> None:
        _fill(file.create_dataset("x", (max(WALKED_ROWS), 8), "f8"))


def _fill(dataset: h5py.Dataset, digits: int | None = None) -> None:
    """Normal numbers, the same each time; rounded ones can be compressed, as measured data can."""
    rng = np.random.default_rng(7)
    step = max(1, (16 << 20) // dataset[:1].nbytes)
    for start in range(0, len(dataset), step):
        values = rng.normal(size=(min(step, len(dataset) - start), *dataset.shape[1:]))
        dataset[start : start + step] = values if digits is None else values.round(digits)


# ---- reading ----------------------------------------------------------------------------------------------------


def measure_contiguous(sizes: Sizes) -> dict[str, float]:
    sizes.make("plain")
    n_bytes = sizes.plain_bytes // PIECE * PIECE
    with (
        start_peer("bare relay", Program(3, [*PYTHON, str(HERE / "raw_stream.py")]), polls=True) as raw,
        start_server("Data", 1) as ours,
    ):
        runs: list[Callable[[], float]] = [
            lambda: raw.ask("measure", n_bytes=n_bytes),
            lambda: ours.ask("read_whole", name="plain", way="served"),
            lambda: ours.ask("read_whole", name="plain", way="h5py"),
            lambda: ours.ask("read_whole", name="plain", way="direct"),
        ]
        alternate(1, *runs)
        relayed, served, here, direct = alternate(sizes.rounds, *runs)
        cold = _read_cold(sizes, ours, "plain", ("served", "h5py", "direct"))
    gigabytes = sizes.plain_bytes / 1e9
    rows = zip(("bare relay", "served", "h5py", "direct"), (relayed, served, here, direct), strict=True)
    table = [(name, f"{gigabytes / median(column):.2f}", f"{gigabytes / min(column):.2f}") for name, column in rows]
    print_table([f"{gigabytes:.2g} GB contiguous", "GB/s", "best"], [*table, *cold])
    return {
        "contiguous_vs_relay": compare(relayed, served)[0],
        "direct_vs_h5py": compare(here, direct)[0],
        "contiguous_gb_per_s": gigabytes / median(served),
    }


def measure_compressed(sizes: Sizes) -> dict[str, float]:
    figures = {}
    names = ["gzip", *(["zstd"] if importlib.util.find_spec("hdf5plugin") else [])]
    for name in names:
        sizes.make(name)
    with start_server("Data", 2) as ours:
        for name in names:
            runs: list[Callable[[], float]] = [
                lambda name=name: ours.ask("read_whole", name=name, way="served"),
                lambda name=name: ours.ask("read_whole", name=name, way="h5py"),
            ]
            alternate(1, *runs)
            served, here = alternate(max(3, sizes.rounds // 2), *runs)
            ratio = compare(here, served)
            figures["compressed_vs_h5py" if name == "gzip" else f"{name}_vs_h5py"] = ratio[0]
            gigabytes = sizes.packed_bytes / 1e9
            cold = _read_cold(sizes, ours, name, ("served", "h5py"))
            print_table(
                [f"{gigabytes:.2g} GB, {name}", "GB/s", "best"],
                [
                    ("served, 2 workers", f"{gigabytes / median(served):.2f}", f"{gigabytes / min(served):.2f}"),
                    ("h5py", f"{gigabytes / median(here):.2f}", f"{gigabytes / min(here):.2f}"),
                    *cold,
                ],
            )
            print(f"served over h5py {ratio[0]:.2f}, quartiles {ratio[1]:.2f} to {ratio[2]:.2f}\n")
    return figures


def _read_cold(sizes: Sizes, ours: Peer, name: str, ways: tuple[str, ...]) -> list[tuple[str, ...]]:
    if not sizes.cold:
        return []
    n_bytes = sizes.plain_bytes if name == "plain" else sizes.packed_bytes
    runs = [lambda way=way: ours.ask("read_whole", name=name, way=way, cold=True) for way in ways]
    seconds = dict(zip(ways, alternate(3, *runs), strict=True))
    gigabytes = n_bytes / 1e9
    return [
        (f"{way}, cold", f"{gigabytes / median(column):.2f}", f"{gigabytes / min(column):.2f}")
        for way, column in seconds.items()
    ]


def measure_random_rows(sizes: Sizes) -> dict[str, float]:
    sizes.make("rows")
    n = sizes.n_rows // 1000
    ways = ["served", "one by one", "h5py list", "h5py whole", "direct"]
    with start_server("Data", 2) as ours:
        runs = [lambda way=way: ours.ask("read_rows", n=n, way=way) for way in ways]
        alternate(1, *runs)
        seconds = dict(zip(ways, alternate(sizes.rounds, *runs), strict=True))
    print_table(
        [f"{n:,} of {sizes.n_rows:,} x 10 rows", "ms", "best"],
        [(way, f"{median(column) * 1e3:.1f}", f"{min(column) * 1e3:.1f}") for way, column in seconds.items()],
    )
    best = [min(pair) for pair in zip(seconds["h5py list"], seconds["h5py whole"], strict=True)]
    return {
        "random_rows_vs_h5py": compare(best, seconds["served"])[0],
        "random_rows_vs_one_by_one": compare(seconds["one by one"], seconds["served"])[0],
    }


def measure_stream(sizes: Sizes) -> dict[str, float]:
    sizes.make("plain")
    with start_server("Data", 1) as ours:
        start = time.perf_counter()
        done = ours.ask("stream", n_bytes=sizes.stream_bytes)
        seconds = time.perf_counter() - start
        peak = max(_find_peak(pid) for pid in list_processes_below(ours.pid))
    print_table(
        ["blocks, one after the other", ""],
        [("GB", f"{done / 1e9:.1f}"), ("GB/s", f"{done / 1e9 / seconds:.2f}"), ("peak MB of any rank", f"{peak:.0f}")],
    )
    return {"stream_peak_mb": peak, "stream_gb": done / 1e9}


def _find_peak(pid: int) -> float:
    """The most memory that a process has had, MB."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return next((int(line.split()[1]) / 1e3 for line in text.splitlines() if line.startswith("VmHWM")), 0.0)


# ---- resident data ----------------------------------------------------------------------------------------------


def measure_speedup(sizes: Sizes) -> dict[str, float]:
    path = sizes.make("events")
    times = 3
    with start_server("Heavy", 2) as ours:
        ours.ask("likelihood")
        seconds = alternate(
            sizes.rounds,
            lambda: _run_bare(path, sizes.n_rows, times) / times,
            lambda: ours.ask("likelihood", times=times),
        )
    share = compare(*seconds)
    print_table(
        [f"likelihood of {sizes.n_rows:,} rows", "ms"],
        [
            ("two bare processes", f"{median(seconds[0]) * 1e3:.0f}"),
            ("two workers", f"{median(seconds[1]) * 1e3:.0f}"),
        ],
    )
    print(f"share {share[0]:.3f}, quartiles {share[1]:.3f} to {share[2]:.3f}\n")
    return {"likelihood_speedup_2_workers": share[0]}


def _run_bare(path: Path, n_rows: int, times: int) -> float:
    """Seconds until two processes, ready and started together, have computed half of the rows each."""
    half = n_rows // 2
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": PATH}
    commands = [[*PYTHON, "-c", BARE, str(path), str(first), str(first + half), str(times)] for first in (0, half)]
    return time_together(commands, environment=environment)


def measure_overhead(sizes: Sizes) -> dict[str, float]:
    sizes.make("block")
    with start_server("Trivial", 1) as ours:
        ours.ask("overhead", times=200)
        steady = [ours.ask("overhead", times=500) for _ in range(sizes.rounds)]
        rested = [ours.ask("overhead", times=5, pause=0.3) for _ in range(3)]
    beyond = median(run["wall"] - run["model"] for run in steady) * 1e6
    late = median(run["wall"] - run["model"] for run in rested) * 1e6
    print_table(
        ["one block, beyond the model", "us"], [("steady", f"{beyond:.1f}"), ("after 300 ms of silence", f"{late:.0f}")]
    )
    return {"likelihood_overhead_us": beyond, "likelihood_overhead_after_300ms_us": late}


def measure_sent(sizes: Sizes) -> dict[str, float]:
    with start_server("Mixture", 1) as ours:
        runs = [ours.ask("compare_sent", times=8) for _ in range(max(3, sizes.rounds // 2))]
    resident, sent = ([run[name] for run in runs] for name in ("resident", "sent"))
    ratio = compare(sent, resident)[0]
    print_table(
        ["1,000,000 x 8 rows, a call", "ms"],
        [("resident", f"{median(resident) * 1e3:.1f}"), ("sent (64 MB)", f"{median(sent) * 1e3:.1f}")],
    )
    return {"resident_vs_sent": ratio}


def measure_samplers(sizes: Sizes) -> dict[str, float]:
    path = sizes.make("walked")
    steps = 10 if sizes.quick else 30
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(start_server("Walked", 2))
        bridge = stack.enter_context(
            start_command("UM-Bridge", [*PYTHON, str(HERE / "umbridge_walk.py"), "measure", str(path)])
        )
        pool = [*PYTHON, str(HERE / "schwimmbad_walk.py"), str(path)]
        mpi_pool = stack.enter_context(start_peer("schwimmbad", Program(3, pool), polls=True))
        peers = (ours, bridge, mpi_pool)
        figures = {}
        for rows in WALKED_ROWS:
            runs = [lambda peer=peer, rows=rows: peer.ask("walk", steps=steps, rows=rows) / steps for peer in peers]
            alternate(1, *runs)
            seconds = alternate(max(3, sizes.rounds // 2), *runs)
            best = [min(pair) for pair in zip(seconds[1], seconds[2], strict=True)]
            table = [
                (peer.name if nth else "demos-hpc", f"{median(seconds[nth]) * 1e3:.2f}")
                for nth, peer in enumerate(peers)
            ]
            print_table([f"emcee, 64 walkers, {rows:,} x 8 rows", "ms a step"], table)
            figures[f"emcee_{rows}_vs_best_peer"] = compare(best, seconds[0])[0]
    return figures


def measure_large(sizes: Sizes) -> dict[str, float]:
    path = sizes.make("large")
    with start_server("Large", 2) as ours:
        run = ours.ask("use_large")
        peak = max(_find_peak(pid) for pid in list_processes_below(ours.pid))
    size = path.stat().st_size / 1e9
    print_table(
        [f"{run['rows']:,.0f} x 4 rows, {size:.1f} GB, 2 workers", ""],
        [
            ("checksum of all of it (s)", f"{run['verify']:.1f}"),
            ("first likelihood, which reads it (s)", f"{run['first']:.1f}"),
            ("a likelihood (s)", f"{run['call']:.2f}"),
            ("a fit of two parameters by iminuit (s)", f"{run['fit']:.1f}"),
            ("calls of that fit", f"{run['calls']:.0f}"),
            ("10,000 random rows (ms)", f"{run['random'] * 1e3:.0f}"),
            ("peak MB of any rank, shared memory included", f"{peak:.0f}"),
        ],
    )
    return {f"large_{name}": value for name, value in run.items()}


@contextlib.contextmanager
def start_server(model: str, n_workers: int) -> Iterator[Peer]:
    """A launch of a server and of the client that measures."""
    with start_peer("demos-hpc", Program(n_workers + 1, [*SERVE, f"models:{model}"]), CLIENT) as peer:
        yield peer


PARTS = {
    "contiguous": measure_contiguous,
    "compressed": measure_compressed,
    "rows": measure_random_rows,
    "stream": measure_stream,
    "speedup": measure_speedup,
    "overhead": measure_overhead,
    "sent": measure_sent,
    "samplers": measure_samplers,
}

#: Used once, and on request: it takes minutes.
EXTRA = {"large": measure_large}

if __name__ == "__main__":
    sys.exit(main())
