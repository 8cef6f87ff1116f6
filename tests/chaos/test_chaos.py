"""What a server has to survive, in short; at length by ``benchmarks/chaos.py``."""

from __future__ import annotations

from pathlib import Path

import pytest
from scenarios import SCENARIOS, STILL, run

#: How often a scenario is tried on a machine that stands still meanwhile.
TRIES = 3


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_server_survives(name: str, tmp_path: Path) -> None:
    scenario = SCENARIOS[name]
    if obstacle := scenario.find_obstacle():
        pytest.skip(obstacle)
    for nth in range(TRIES):
        place = tmp_path / str(nth)
        place.mkdir()
        figures = run(name, place, is_long=False)
        misses = scenario.find_misses(figures)
        if not misses or figures["stall_ms"] < 1e3 * STILL:
            break
    assert not misses, figures
