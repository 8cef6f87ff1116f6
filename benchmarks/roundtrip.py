"""How long is one row under way, from client through dispatcher to worker and back?

Peers: bare mpi4py making the same two hops under the same wait policy, UM-Bridge, and `mpi4py.futures`.
"""

from __future__ import annotations

import argparse
from statistics import median

from harness import print_table, report
from stage import ANALYZE, HERE, PYTHON, SERVE, Program, alternate, compare, start_command, start_peer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less than a minute")
    quick = parser.parse_args().quick
    rounds, times = (7, 300) if quick else (25, 1000)
    client = Program(1, [*ANALYZE, str(HERE / "service_client.py")])
    with (
        start_peer("raw mpi4py", Program(3, [*PYTHON, str(HERE / "raw_mpi.py"), "models:Normal"])) as raw,
        start_peer("demos-hpc", Program(2, [*SERVE, "models:Normal"]), client) as ours,
    ):
        seconds = alternate(
            rounds,
            lambda: ours.ask("measure", n=1, times=times),
            lambda: raw.ask("measure", n=1, times=times),
        )
        over_raw = compare(*seconds)
        rows = [("demos-hpc", seconds[0]), ("raw mpi4py", seconds[1])]
        ratios = {"raw mpi4py": over_raw}
        futures = [*PYTHON, "-m", "mpi4py.futures", str(HERE / "futures_client.py")]
        for name, start in (
            ("mpi4py.futures", lambda: start_peer("mpi4py.futures", Program(2, futures), polls=True)),
            ("UM-Bridge", lambda: start_command("UM-Bridge", [*PYTHON, str(HERE / "umbridge_peer.py"), "client"])),
        ):
            with start() as peer:
                pair = alternate(
                    rounds,
                    lambda peer=peer: peer.ask("measure", n=1, times=times // 5),
                    lambda: ours.ask("measure", n=1, times=times),
                )
            rows.append((name, pair[0]))
            ratios[name] = compare(*pair)
    print_table(
        ["peer", "round trip (us)", "best (us)", "ratio to demos-hpc", "quartiles"],
        [(name, f"{median(s) * 1e6:.1f}", f"{min(s) * 1e6:.1f}", *describe(name, ratios)) for name, s in rows],
    )
    report(
        "roundtrip",
        {
            "ratio_to_raw": ratios["raw mpi4py"][0],
            "speedup_vs_umbridge": ratios["UM-Bridge"][0],
            "speedup_vs_futures": ratios["mpi4py.futures"][0],
            "roundtrip_us": median(seconds[0]) * 1e6,
            "raw_us": median(seconds[1]) * 1e6,
        },
    )


def describe(name: str, ratios: dict[str, tuple[float, float, float]]) -> tuple[str, str]:
    """The ratio of this peer's time to ours, and its quartiles."""
    if name not in ratios:
        return "1", ""
    middle, low, high = ratios[name]
    if name == "raw mpi4py":
        middle, low, high = 1 / middle, 1 / high, 1 / low
    return f"{middle:.2f}", f"{low:.2f} to {high:.2f}"


if __name__ == "__main__":
    main()
