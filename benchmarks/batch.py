"""What does the way cost for larger arrays?

Small batches (160 kB, four in flight) against a bare MPI relay that makes the same hops; one large batch (64 MB)
against the worker's time inside the model, and against the same NumPy in the caller's own process. The same 64 MB
through the door of a server of its own, against bare sockets that pass on the same bytes as they come.
"""

from __future__ import annotations

import argparse
import contextlib
from statistics import median

from apart import start_server
from harness import print_table, report
from stage import ANALYZE, HERE, PYTHON, SERVE, Peer, Program, alternate, compare, start_command, start_peer

LARGE = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less than a minute")
    quick = parser.parse_args().quick
    rounds, times, large_rounds = (7, 100, 7) if quick else (21, 300, 21)
    small = {"n": 10_000, "times": times, "in_flight": 4}
    client = Program(1, [*ANALYZE, str(HERE / "service_client.py")])
    with (
        start_peer("bare relay", Program(3, [*PYTHON, str(HERE / "raw_mpi.py"), "models:Normal2"])) as raw,
        start_peer("demos-hpc", Program(2, [*SERVE, "models:Normal2"]), client) as ours,
    ):
        seconds = alternate(rounds, lambda: raw.ask("measure", **small), lambda: ours.ask("measure", **small))
    rate = compare(*seconds)
    with start_peer("demos-hpc", Program(2, [*SERVE, "models:Mixture"]), client) as ours:
        ours.ask("large", n=LARGE)
        large = [ours.ask("large", n=LARGE) for _ in range(large_rounds)]
    beyond = [(run["served"] - run["model"]) * 1e3 for run in large]
    over_numpy = compare([run["served"] for run in large], [run["local"] for run in large])
    print_table(
        ["10,000 x 2, four in flight", "us a request", "best"],
        [
            ("bare MPI relay", f"{median(seconds[0]) * 1e6:.0f}", f"{min(seconds[0]) * 1e6:.0f}"),
            ("demos-hpc", f"{median(seconds[1]) * 1e6:.0f}", f"{min(seconds[1]) * 1e6:.0f}"),
        ],
    )
    print(f"rate against the bare relay {rate[0]:.2f}, quartiles {rate[1]:.2f} to {rate[2]:.2f}\n")
    print_table(
        ["1,000,000 x 8 (64 MB)", "ms"],
        [
            ("in the caller's process", f"{median(run['local'] for run in large) * 1e3:.1f}"),
            ("served, one worker", f"{median(run['served'] for run in large) * 1e3:.1f}"),
            ("  of it inside the model", f"{median(run['model'] for run in large) * 1e3:.1f}"),
        ],
    )
    print(f"served over local {over_numpy[0]:.2f}, quartiles {over_numpy[1]:.2f} to {over_numpy[2]:.2f}")
    figures = {
        "rate_vs_bare_mpi": rate[0],
        "overhead_ms_64MB": median(beyond),
        "time_vs_numpy": over_numpy[0],
    }
    report("batch", figures | measure_sockets(large_rounds))


def measure_sockets(rounds: int) -> dict[str, float]:
    """64 MB through the door by sockets; the model takes little time, so that the way counts."""
    ways = ("unix", "tcp")
    bare = [*PYTHON, str(HERE / "raw_sockets.py"), "models:Normal"]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(start_server("models:Normal", upgrade="off"))
        ours = [stack.enter_context(server.start_client(way)) for way in ways]
        raw = [stack.enter_context(start_command(f"raw {way}", [*bare, way])) for way in ways]
        runs = [lambda peer=peer: ask_served(peer) for peer in ours]
        runs += [lambda peer=peer: peer.ask("measure", n=LARGE, times=1) for peer in raw]
        alternate(1, *runs)
        seconds = alternate(rounds, *runs)
    ratios = [compare(seconds[i], seconds[i + 2]) for i in range(2)]
    print_table(
        ["64 MB through the door", "ms", "bare sockets (ms)", "ratio", "quartiles"],
        [
            (
                way,
                f"{median(seconds[i]) * 1e3:.1f}",
                f"{median(seconds[i + 2]) * 1e3:.1f}",
                f"{ratios[i][0]:.2f}",
                f"{ratios[i][1]:.2f} to {ratios[i][2]:.2f}",
            )
            for i, way in enumerate(ways)
        ],
    )
    return {f"{way}_64MB_vs_raw_socket": ratio[0] for way, ratio in zip(ways, ratios, strict=True)}


def ask_served(peer: Peer) -> float:
    """Seconds for one large request."""
    seconds: float = peer.ask("large", n=LARGE)["served"]
    return seconds


if __name__ == "__main__":
    main()
