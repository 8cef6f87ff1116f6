"""Do many clients together get as much done as one?

32 clients by TCP through the door of one server, against one of them alone: single rows, each with parameters of its
own. On two cores 32 processes would measure the kernel's scheduler, so they are four, of eight connections each.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from apart import start_server
from harness import print_table, report
from stage import HERE, PYTHON, Peer, alternate, compare, start_command

CLIENTS, PROCESSES = 32, 4
EACH = CLIENTS // PROCESSES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less than a minute")
    quick = parser.parse_args().quick
    rounds, n_requests = (5, 16_000) if quick else (15, 64_000)
    client = [*PYTHON, str(HERE / "many_clients.py"), "tcp", str(EACH)]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(start_server("models:Normal", upgrade="off"))
        peers = [
            stack.enter_context(start_command(f"client process {nth}", client, environment=server.environment))
            for nth in range(PROCESSES)
        ]
        rates = alternate(
            rounds,
            lambda: measure(peers, EACH, n_requests // CLIENTS),
            lambda: measure(peers[:1], 1, n_requests),
            lambda: measure(peers, EACH, n_requests // CLIENTS // 4, in_turn=True),
            lambda: measure(peers[:1], 1, n_requests // 8, in_turn=True),
        )
    together, in_turn = compare(rates[0], rates[1]), compare(rates[2], rates[3])
    print_table(
        ["by TCP", "requests a second", "best"],
        [
            (name, f"{median(column):,.0f}", f"{max(column):,.0f}")
            for name, column in zip(
                (
                    f"{CLIENTS} clients, all requests in flight",
                    "1 client, all requests in flight",
                    f"{CLIENTS} clients, each waiting for every answer",
                    "1 client, waiting for every answer",
                ),
                rates,
                strict=True,
            )
        ],
    )
    for what, ratio in (("in flight", together), ("each waiting", in_turn)):
        print(f"{CLIENTS} clients over one, {what}: {ratio[0]:.2f}, quartiles {ratio[1]:.2f} to {ratio[2]:.2f}")
    figures = {
        "rate_32_clients_vs_one": together[0],
        "requests_per_second_32_clients": median(rates[0]),
        "rate_32_waiting_clients_vs_one": in_turn[0],
    }
    report("clients", figures)


def measure(peers: Sequence[Peer], n_clients: int, n_requests: int, *, in_turn: bool = False) -> float:
    """Requests a second of these processes together, with ``n_clients`` of ``n_requests`` each."""
    arguments = {"n_clients": n_clients, "n_requests": n_requests, "in_turn": in_turn}
    with ThreadPoolExecutor(len(peers)) as pool:
        runs = list(pool.map(lambda peer: peer.ask("measure", **arguments), peers))
    seconds = max(run["end"] for run in runs) - min(run["begin"] for run in runs)
    return len(peers) * n_clients * n_requests / seconds


if __name__ == "__main__":
    main()
