"""How long is one row under way, from client through dispatcher to worker and back?

Peers: bare mpi4py making the same two hops under the same wait policy, UM-Bridge, and `mpi4py.futures`. Through the
door of a server of its own, by Unix socket and by TCP: bare blocking sockets making the same two hops. Once its link
goes on by something faster: the client within one launch.
"""

from __future__ import annotations

import argparse
import contextlib
from statistics import median

from apart import start_server
from harness import print_table, report
from stage import ANALYZE, HERE, PYTHON, SERVE, Peer, Program, alternate, compare, start_command, start_peer

#: Requests after which a link has gone on by something faster, if it ever does; in so many tries.
UPGRADING, TRIES = 500, 4


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
        figures = measure_upgraded(ours, rounds, times)
    figures |= measure_sockets(rounds, times)
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
            **figures,
        },
    )


def measure_sockets(rounds: int, times: int) -> dict[str, float]:
    """Through the door, by sockets all the way."""
    ways = ("unix", "tcp")
    bare = [*PYTHON, str(HERE / "raw_sockets.py"), "models:Normal"]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(start_server("models:Normal", upgrade="off"))
        ours = [stack.enter_context(server.start_client(way)) for way in ways]
        raw = [stack.enter_context(start_command(f"raw {way}", [*bare, way])) for way in ways]
        runs = [lambda peer=peer: peer.ask("measure", n=1, times=times) for peer in (*ours, *raw)]
        seconds = alternate(rounds, *runs)
    ratios = [compare(seconds[i], seconds[i + 2]) for i in range(2)]
    print_table(
        ["through the door", "us", "best", "bare sockets (us)", "best", "ratio", "quartiles"],
        [
            (way, *_describe(seconds[i]), *_describe(seconds[i + 2]), f"{r[0]:.2f}", f"{r[1]:.2f} to {r[2]:.2f}")
            for i, (way, r) in enumerate(zip(ways, ratios, strict=True))
        ],
    )
    figures = {f"{way}_vs_raw_socket": ratio[0] for way, ratio in zip(ways, ratios, strict=True)}
    return figures | {f"{way}_us": median(column) * 1e6 for way, column in zip(ways, seconds, strict=False)}


def measure_upgraded(inworld: Peer, rounds: int, times: int) -> dict[str, float]:
    """Through the door, by whatever the link goes on by; nothing where it stays a socket."""
    with start_server("models:Normal") as server, server.start_client("auto") as ours:
        for _ in range(TRIES):
            ours.ask("measure", n=1, times=UPGRADING)
        transport = ours.ask("transport")
        if transport in ("unix", "tcp"):
            print(f"through the door the link stays {transport}: door_shm_vs_inworld is left out\n")
            return {}
        seconds = alternate(
            rounds,
            lambda: ours.ask("measure", n=1, times=times),
            lambda: inworld.ask("measure", n=1, times=times),
        )
    middle, low, high = compare(*seconds)
    print_table(
        ["through the door", "us", "best", "in one launch (us)", "best", "ratio", "quartiles"],
        [(transport, *_describe(seconds[0]), *_describe(seconds[1]), f"{middle:.2f}", f"{low:.2f} to {high:.2f}")],
    )
    return {f"door_{transport}_vs_inworld": middle, f"door_{transport}_us": median(seconds[0]) * 1e6}


def _describe(seconds: list[float]) -> tuple[str, str]:
    """Median and best, in us."""
    return f"{median(seconds) * 1e6:.1f}", f"{min(seconds) * 1e6:.1f}"


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
