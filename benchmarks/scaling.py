"""Do workers stay busy, and does an idle server stay idle?

Two workers against what two bare processes reach on this machine at the same moment; 128 ranks, most of them
workers that sleep 100 ms a row; the same server without work, and how soon it answers after that.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from pathlib import Path

from harness import print_table, report
from stage import (
    ANALYZE,
    HERE,
    PYTHON,
    SERVE,
    Peer,
    Program,
    alternate,
    compare,
    list_processes_below,
    start_peer,
    time_together,
)

RANKS = 128
ROWS_PER_WORKER = 20
BARE = """
import sys
from models import spin
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[1])):
    spin(1.0)
print("done", flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less than a minute and a half")
    parser.add_argument("--ranks", type=int, default=RANKS)
    arguments = parser.parse_args()
    rounds, rows, idle_seconds = (5, 1000, 5.0) if arguments.quick else (15, 2000, 10.0)
    share = measure_two_workers(rounds, rows)
    many = measure_many_ranks(arguments.ranks, idle_seconds)
    print_table(
        ["figure", "value"],
        [
            ("two workers, share of two bare processes", f"{share[0]:.3f} ({share[1]:.3f} to {share[2]:.3f})"),
            (f"{arguments.ranks} ranks: busy fraction of the workers", f"{many['busy']:.3f}"),
            (f"{arguments.ranks} ranks: cores used while idle", f"{many['idle_cores']:.4f}"),
            ("first request after that (ms)", f"{many['wake'] * 1e3:.2f}"),
        ],
    )
    report(
        "scaling",
        {
            "speedup_2_workers": share[0],
            "busy_fraction_128_ranks": many["busy"],
            "idle_cores_128_ranks": many["idle_cores"],
            "wake_ms": many["wake"] * 1e3,
        },
    )


def measure_two_workers(rounds: int, rows: int) -> tuple[float, float, float]:
    """Speed of two workers over that of two bare processes, with its quartiles."""
    client = Program(1, [*ANALYZE, str(HERE / "scaling_client.py")])
    with start_peer("demos-hpc", Program(3, [*SERVE, "models:Busy"]), client) as ours:
        ours.ask("evaluate", n=rows // 10)  # so that the cost of a row is known
        seconds = alternate(rounds, lambda: run_bare(rows), lambda: ours.ask("evaluate", n=rows)["wall"])
    return compare(*seconds)


def run_bare(rows: int) -> float:
    """Seconds until two processes, ready and started together, have computed half of the rows each."""
    command = [*PYTHON, "-c", BARE, str(rows // 2)]
    return time_together([command] * 2, cwd=HERE)


def measure_many_ranks(ranks: int, idle_seconds: float) -> dict[str, float]:
    """Busy fraction with work, cores used without, and the first answer after that."""
    workers = ranks - 2
    client = Program(1, [*ANALYZE, str(HERE / "scaling_client.py")])
    patience = {"DEMOS_ROLL_CALL_TIMEOUT": "240"}
    with start_peer("demos-hpc", Program(ranks - 1, [*SERVE, "models:Sleeper"]), client, environment=patience) as ours:
        ours.ask("evaluate", n=workers)  # so that the cost of a row is known
        run = ours.ask("evaluate", n=workers * ROWS_PER_WORKER)
        before, start = count_cpu_seconds(ours), time.perf_counter()
        time.sleep(idle_seconds)  # idleness is what is measured
        cores = (count_cpu_seconds(ours) - before) / (time.perf_counter() - start)
        wake = ours.ask("wake")
    return {"busy": run["model"] / (workers * run["wall"]), "idle_cores": cores, "wake": wake}


def count_cpu_seconds(peer: Peer) -> float:
    """Processor time of all ranks so far: of all processes below the launcher."""
    total = 0
    for process in list_processes_below(peer.pid):
        with contextlib.suppress(OSError):  # it may have ended meanwhile
            fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
