"""How many single-row requests a second, each with parameters of its own, in flight from one client?

Peers: `mpi4py.futures`, ``map`` with ``chunksize=1``, and `schwimmbad.MPIPool`, ``map``.
"""

from __future__ import annotations

import argparse
from statistics import median

from harness import print_table, report
from stage import ANALYZE, HERE, PYTHON, SERVE, Program, alternate, compare, start_peer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less than a minute")
    quick = parser.parse_args().quick
    rounds, n_requests = (5, 20_000) if quick else (15, 50_000)
    futures = [*PYTHON, "-m", "mpi4py.futures", str(HERE / "futures_client.py")]
    client = Program(1, [*ANALYZE, str(HERE / "service_client.py")])
    with (
        start_peer("demos-hpc", Program(2, [*SERVE, "models:Normal"]), client) as ours,
        start_peer("mpi4py.futures", Program(2, futures), polls=True) as peer,
        start_peer("schwimmbad", Program(2, [*PYTHON, str(HERE / "schwimmbad_client.py")]), polls=True) as pool,
    ):
        rates = alternate(
            rounds,
            lambda: ours.ask("throughput", n_requests=n_requests),
            lambda: peer.ask("throughput", n_requests=n_requests // 20),
            lambda: pool.ask("throughput", n_requests=n_requests // 5),
        )
    over_pool = compare(rates[0], rates[2])
    middle, low, high = compare(rates[0], rates[1])
    print_table(
        ["peer", "requests a second", "best"],
        [
            ("demos-hpc", f"{median(rates[0]):,.0f}", f"{max(rates[0]):,.0f}"),
            ("mpi4py.futures", f"{median(rates[1]):,.0f}", f"{max(rates[1]):,.0f}"),
            ("schwimmbad", f"{median(rates[2]):,.0f}", f"{max(rates[2]):,.0f}"),
        ],
    )
    print(f"paired ratio to mpi4py.futures {middle:.1f}, quartiles {low:.1f} to {high:.1f}")
    figures = {
        "speedup_vs_futures": middle,
        "speedup_vs_schwimmbad": over_pool[0],
        "requests_per_second": median(rates[0]),
    }
    report("throughput", figures)


if __name__ == "__main__":
    main()
