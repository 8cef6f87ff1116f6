"""Networks that are cut, for a while and for ever. The server is on one node, a worker and callers on another."""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from nodes import NEAR_ADDRESS, connected
from serving import Operator, ServerApart, serving, wait_until
from traffic import calling, sum_up

MODEL = f"{Path(__file__).with_name('fragile.py')}:Fragile"
#: Seconds for something that should happen soon.
SOON = 60.0


def cut_for_a_while(
    place: Path, transport: str = "auto", *, seconds: float = 5.0, heartbeat: float = 5.0, cuts: int = 5, seed: int = 9
) -> dict[str, float]:
    """Cuts that are shorter than a heartbeat: nobody is given up, everything goes on."""
    never = threading.Event()
    with connected() as nodes, _serving_far(place, transport, nodes.there, heartbeat) as (server, operator):
        with calling(server, 2, seed=seed, before=nodes.there, nap=1e-6) as callers:
            for _ in range(cuts):
                never.wait(1.0)
                nodes.cut()
                never.wait(seconds)
                nodes.mend()
                _wait_for_traffic(operator)
                never.wait(heartbeat)  # two cuts in a row would be a longer one for those who come back last
            figures = sum_up([caller.finish() for caller in callers])
        events = operator.look()["events"]
    return {
        **figures,
        "cuts": cuts,
        "cut_s": seconds,
        "workers_lost": events["crashes"],
        "clients_lost": events["lost_clients"],
    }


def cut_for_ever(
    place: Path, transport: str = "auto", *, heartbeat: float = 5.0, cuts: int = 2, seed: int = 10
) -> dict[str, float]:
    """Cuts that are longer: either side gives the other up, in time; what was with a worker is done by another."""
    lost: list[float] = []
    declared: list[float] = []
    with connected() as nodes, _serving_far(place, transport, nodes.there, heartbeat) as (server, operator):
        far = {"before": nodes.there, "nap": 1e-6}
        with (
            calling(server, 2, seed=seed, nap=2e-6) as near_callers,
            calling(server, 1, seed=seed + 1, reconnect=True, **far) as lasting,
        ):
            for nth in range(cuts):
                with calling(server, 2, seed=seed + 2 + nth, **far) as others:
                    wait_until(lambda: _find_far(operator, busy=True), SOON, "the far worker has a chunk")
                    cut = time.monotonic()
                    nodes.cut()
                    wait_until(lambda: not _find_far(operator), 10 * heartbeat, "the far worker is given up", 0.02)
                    declared.append(time.monotonic() - cut)
                    lost += [(other.wait(10 * heartbeat).lost_at or math.inf) - cut for other in others]
                    nodes.mend()
                    wait_until(lambda: _find_far(operator), SOON, "the far worker comes again")
                    _wait_for_traffic(operator)
            figures = sum_up([caller.finish() for caller in (*near_callers, *lasting)])
        joins = operator.look()["links"]
    print(joins, file=sys.stderr)
    return {
        **figures,
        "cuts": cuts,
        "lost_heartbeats": max(lost) / heartbeat,
        "declared_heartbeats": max(declared) / heartbeat,
    }


@contextlib.contextmanager
def _serving_far(
    place: Path, transport: str, there: tuple[str, ...], heartbeat: float
) -> Iterator[tuple[ServerApart, Operator]]:
    """A server with one worker here and one on the far node."""
    with (
        serving(MODEL, place, transport=transport, workers=1, heartbeat=heartbeat, host=NEAR_ADDRESS) as server,
        server.operate() as operator,
    ):
        command = [*there, sys.executable, "-m", "demos_hpc", "worker", "--join", server.name, "--label", "far"]
        with (place / "far.log").open("wb") as log:
            worker = subprocess.Popen(command, env=server.environment, stdin=subprocess.DEVNULL, stderr=log)
        try:
            wait_until(lambda: _find_far(operator), SOON, "the far worker is there")
            yield server, operator
        finally:
            worker.kill()
            worker.wait()
            print((place / "far.log").read_text(encoding="utf-8"), file=sys.stderr)


def _find_far(operator: Operator, *, busy: bool = False) -> bool:
    return any(
        worker["name"].startswith("far") and not (busy and worker["running_seconds"] is None)
        for worker in operator.list_workers()
    )


def _wait_for_traffic(operator: Operator) -> None:
    """Until requests are answered again."""
    before = operator.look()["requests"]
    wait_until(lambda: operator.look()["requests"] > before + 10, SOON, "requests are answered", 0.02)
