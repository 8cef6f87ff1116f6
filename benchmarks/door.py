"""What does the door cost, and how soon is a dead worker noticed?

System calls for each request of one row, in each of the three processes; those that only wait (a yield of the core, a
look in vain) apart from the others. A worker is killed while it computes: how long until another has begun with its
chunk?
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections import Counter
from statistics import median

import system_calls
from apart import Apart, start_server
from harness import print_table, report
from stage import ANALYZE, HERE, SERVE, Peer, Program, list_processes_below, start_peer

#: Requests that are counted, and before them: a link that is to go on by something faster has done so by then.
TRACED, BEFORE = 500, 2000
#: Requests that are in flight at once where the dispatcher shall be busy.
BUSY = 20_000
#: Seconds that the chunk of a worker that is killed would take.
HELD = 0.5
NAMES = ("dispatcher", "worker", "client")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less than a minute")
    quick = parser.parse_args().quick
    figures: dict[str, float] = {}
    if tool := system_calls.find_tool():
        figures |= count_system_calls(tool)
    else:
        print("neither perf nor strace works here: system calls are not counted\n")
    seconds = measure_detection(5 if quick else 25)
    print_table(
        ["from a worker's death until another has its chunk", "ms"],
        [("median", f"{median(seconds) * 1e3:.2f}"), ("longest", f"{max(seconds) * 1e3:.2f}")],
    )
    report("door", {**figures, "detect_ms": max(seconds) * 1e3, "detect_ms_median": median(seconds) * 1e3})


def count_system_calls(tool: str) -> dict[str, float]:
    """Per request: by sockets through the door, by what a link goes on by, and within one launch."""
    rows, figures = [], {}

    def take(way: str, client: Peer, pids: list[int]) -> None:
        with system_calls.counting(tool, pids) as counters:
            client.ask("measure", n=1, times=TRACED)
        for name, counter in zip(NAMES, counters, strict=True):
            rows.append(describe(way, name, counter))
            figures[f"syscalls_per_request_{way}_{name}"] = count_work(counter) / TRACED

    for transport, upgrade in (("tcp", "off"), ("auto", "auto")):
        with start_server("models:Normal", upgrade=upgrade) as server, server.start_client(transport) as client:
            client.ask("measure", n=1, times=BEFORE)
            way = client.ask("transport")
            if upgrade == "auto" and way in ("unix", "tcp"):
                print(f"through the door the link stays {way}: what it could go on by is left out\n")
                continue
            pids = server.find_pids()
            take(way, client, [pids["dispatcher"], pids["worker"], client.pid])
            if upgrade == "auto":
                figures[f"door_polls_per_request_{way}"] = count_door_polls(tool, client, pids["dispatcher"])
    program = Program(1, [*ANALYZE, str(HERE / "service_client.py")])
    with start_peer("demos-hpc", Program(2, [*SERVE, "models:Normal"]), program) as peer:
        ranks = find_ranks(peer)
        peer.ask("measure", n=1, times=BEFORE)
        take("inworld", peer, ranks)
        figures["door_polls_per_request_inworld"] = count_door_polls(tool, peer, ranks[0])
    print_table([f"way (by {tool})", "process", "calls a request", "waiting", "which"], rows)
    return figures


def count_work(counter: Counter[str]) -> int:
    """Calls that do not only wait."""
    return sum(n for call, n in counter.items() if not system_calls.is_waiting(call))


def count_door_polls(tool: str, client: Peer, dispatcher: int) -> float:
    """Looks at the door's sockets for each request, while the dispatcher always has something to do."""
    client.ask("throughput", n_requests=BUSY)
    with system_calls.counting(tool, [dispatcher]) as counters:
        client.ask("throughput", n_requests=BUSY)
    return sum(n for call, n in counters[0].items() if call.startswith("epoll_wait")) / BUSY


def describe(way: str, name: str, counter: Counter[str]) -> tuple[str, str, str, str, str]:
    calls = [
        f"{call} {n / TRACED:.2g}"
        for call, n in counter.most_common()
        if n > 0.02 * TRACED and not system_calls.is_waiting(call)
    ]
    work = count_work(counter)
    return way, name, f"{work / TRACED:.2f}", f"{(counter.total() - work) / TRACED:.1f}", ", ".join(calls)


def find_ranks(peer: Peer) -> list[int]:
    """The processes of a launch of three, by their rank."""
    found = {}
    for pid in list_processes_below(peer.pid):
        with open(f"/proc/{pid}/environ", encoding="utf-8", errors="replace") as file:
            variables = dict(entry.partition("=")[::2] for entry in file.read().split("\0"))
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            is_ours = "demos_hpc" in file.read().split("\0")
        rank = variables.get("PMI_RANK") or variables.get("OMPI_COMM_WORLD_RANK")
        if rank is not None and is_ours:
            found[int(rank)] = pid
    return [found[rank] for rank in range(3)]


def measure_detection(rounds: int) -> list[float]:
    """Seconds from a kill until the other worker has begun with the chunk of the one that was killed."""
    seconds = []
    with start_server("models:Witness", n_workers=2) as server, server.connect() as model:
        for _ in range(rounds):
            server.wait_until_ready(2)
            future = model.submit.evaluate([HELD])
            pid = find_busy(server)
            killed = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            seconds.append(future.result()[0] - killed)
            assert seconds[-1] > 0.0, "the worker that was killed had nothing to do"
    return seconds


def find_busy(server: Apart) -> int:
    """The process that computes."""
    end = time.monotonic() + HELD / 2
    while time.monotonic() < end:
        for worker in server.look()["workers"]:
            if worker["is_alive"] and worker["running_seconds"]:
                return int(worker["pid"])
    raise RuntimeError("no worker has begun")


if __name__ == "__main__":
    main()
