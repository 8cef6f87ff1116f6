"""What a server has to survive: each scenario by its name, its sizes in short and at length, and what is wanted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cuts
import deaths
import endurance
import hostile
import nodes
import stragglers
import strangers
import visitors

#: Every answer is right, and comes once.
RIGHT = {"wrong": (0, 0), "lost": (0, 0), "duplicated": (0, 0)}
ANY = float("inf")


@dataclass(frozen=True)
class Scenario:
    """One row of the table; ``wanted`` are the least and the most that a figure may be.

    ``short`` and ``long`` are arguments of ``run``, as CI and as ``benchmarks/chaos.py`` call it.
    """

    run: Callable[..., dict[str, float]]
    short: Mapping[str, Any]
    long: Mapping[str, Any]
    wanted: Mapping[str, tuple[float, float]] = field(default_factory=lambda: RIGHT)
    #: Why it cannot be run here; empty where it can.
    find_obstacle: Callable[[], str] = lambda: ""

    def find_misses(self, figures: Mapping[str, float]) -> list[str]:
        """The figures that are not as wanted, in words."""
        return [
            f"{name} is {figures[name]:g}, not {least:g} to {most:g}"
            for name, (least, most) in self.wanted.items()
            if not least <= figures[name] <= most
        ]


SCENARIOS: dict[str, Scenario] = {
    "kill_workers": Scenario(
        deaths.kill_workers,
        {"kills": 5},
        {"kills": 200},
        RIGHT | {"kills_with_chunk": (0.8, 1), "completed": (1, ANY), "detect_ms": (0, 100)},
    ),
    "kill_clients": Scenario(
        visitors.kill_clients,
        {"kills": 3, "warm_up": 2, "callers": 2},
        {"kills": 50},
        RIGHT | {"memory_growth": (-1, 0.05), "fd_growth": (-ANY, 0), "left_in_queue": (0, 0)},
    ),
    "stop_client": Scenario(
        visitors.stop_client,
        {"seconds": 1.0, "max_unsent_bytes": 1 << 20, "callers": 2, "rest": 0.0},
        {"seconds": 10.0},
        RIGHT | {"memory_growth": (-1, 0.05), "fd_growth": (-ANY, 0)},
    ),
    "take_long": Scenario(
        stragglers.take_long,
        {"chunk_timeout": 0.7, "rounds": 2},
        {"chunk_timeout": 5.0, "rounds": 10},
        RIGHT | {"long_calls_disturbed": (0, 0), "evict_timeouts": (0.9, 1.5)},
    ),
    "answer_garbage": Scenario(
        stragglers.answer_garbage,
        {"chunk_timeout": 0.5, "rounds": 1},
        {"chunk_timeout": 2.0, "rounds": 10},
        {"wrong": (0, 0), "duplicated": (0, 0)},
    ),
    "crash_on_rows": Scenario(
        deaths.crash_on_rows,
        {"poisoned": 1, "callers": 2},
        {"poisoned": 20},
        RIGHT | {"unnamed": (0, 0), "completed": (1, ANY)},
    ),
    "kill_dispatcher": Scenario(
        deaths.kill_dispatcher,
        {"kills": 1, "callers": 2, "heartbeat": 1.0},
        {"kills": 10},
        RIGHT | {"lost_heartbeats": (0, 2)},
    ),
    "hang_dispatcher": Scenario(
        deaths.hang_dispatcher,
        {"callers": 1, "heartbeat": 0.5},
        {"callers": 4},
        RIGHT | {"lost_heartbeats": (0, 2.5)},
    ),
    "cut_for_a_while": Scenario(
        cuts.cut_for_a_while,
        {"seconds": 1.0, "heartbeat": 1.5, "cuts": 1},
        {"seconds": 5.0, "heartbeat": 5.0, "cuts": 5},
        RIGHT | {"workers_lost": (0, 0), "clients_lost": (0, 0)},
        nodes.find_obstacle,
    ),
    "cut_for_ever": Scenario(
        cuts.cut_for_ever,
        {"heartbeat": 1.0, "cuts": 1},
        {"heartbeat": 5.0, "cuts": 3},
        RIGHT | {"lost_heartbeats": (0, 3), "declared_heartbeats": (0, 3)},
        nodes.find_obstacle,
    ),
    "come_at_once": Scenario(
        visitors.come_at_once,
        {"clients": 100, "dying": 20},
        {},
        {"wrong": (0, 0), "lost": (0, 0), "worst_wait_ms": (0, 2000), "not_upgraded": (0, 0), "fd_growth": (-ANY, 0)},
    ),
    "mix_load": Scenario(
        endurance.mix_load,
        {"seconds": 5.0, "callers": 2},
        {"seconds": 600.0},
        RIGHT | {"memory_growth": (-1, 0.05), "fd_growth": (-ANY, 0), "supervisor_fd_growth": (-ANY, 0)},
    ),
    "send_nonsense": Scenario(
        hostile.attack,
        {"frames": 2000},
        {"frames": 1_000_000},
        {"crashes": (0, 0), "other_faults": (0, 0), "memory_growth_mb": (0, 400)},
    ),
    "turn_away": Scenario(
        strangers.turn_away,
        {"rounds": 1},
        {"rounds": 20},
        {"faults": (0, 0), "unaudited": (-ANY, 0), "refusals_that_differ": (0, 0)},
    ),
}

#: A machine that stands still for so long makes everything late that is measured on it, seconds.
STILL = 0.5


class _Pulse(threading.Thread):
    """Notices how long the machine itself stands still: a short wait takes that much longer."""

    PAUSE = 0.05

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.longest = 0.0
        self.is_over = threading.Event()

    def run(self) -> None:
        begin = time.monotonic()
        while not self.is_over.wait(self.PAUSE):
            self.longest = max(self.longest, time.monotonic() - begin - self.PAUSE)
            begin = time.monotonic()


def run(name: str, place: Path, transport: str = "auto", *, is_long: bool) -> dict[str, float]:
    """The figures of one scenario; ``stall_ms`` is how long the machine itself stood still."""
    scenario = SCENARIOS[name]
    pulse = _Pulse()
    pulse.start()
    try:
        figures = scenario.run(place, transport, **(scenario.long if is_long else scenario.short))
    finally:
        pulse.is_over.set()
        pulse.join()
    return figures | {"stall_ms": 1e3 * pulse.longest}
