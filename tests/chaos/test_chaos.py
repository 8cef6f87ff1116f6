"""What a server has to survive, in short; at length by ``benchmarks/chaos.py``."""

from __future__ import annotations

from pathlib import Path

import pytest
from scenarios import SCENARIOS, STILL, run

#: How often a scenario is tried on a machine that stands still meanwhile.
TRIES = 3
#: Speed, and growth of a few per cent: what a short run on a machine with other work cannot tell. `benchmarks/chaos.py`
#: holds servers to them.
LEFT_TO_LONG_RUNS = (
    "detect_ms", "worst_wait_ms", "lost_heartbeats", "declared_heartbeats", "memory_growth", "fd_growth",
    "kills_with_chunk",
)  # fmt: skip
#: A short run must not take more memory than this, relative to what there was, nor leave a file open for each death.
MOST_GROWTH, MOST_FILES = 0.5, 2


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_server_survives(name: str, tmp_path: Path) -> None:
    scenario = SCENARIOS[name]
    if obstacle := scenario.find_obstacle():
        pytest.skip(obstacle)
    for nth in range(TRIES):
        place = tmp_path / str(nth)
        place.mkdir()
        figures = run(name, place, is_long=False)
        misses = [miss for miss in scenario.find_misses(figures) if not miss.startswith(LEFT_TO_LONG_RUNS)]
        if not misses or figures["stall_ms"] < 1e3 * STILL:
            break
    assert not misses, figures
    assert figures.get("memory_growth", 0.0) < MOST_GROWTH
    assert figures.get("fd_growth", 0) <= MOST_FILES
