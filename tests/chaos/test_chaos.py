"""What a server has to survive, in short; at length by ``benchmarks/chaos.py``."""

from __future__ import annotations

from pathlib import Path

import pytest
from scenarios import SCENARIOS, run


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_service_survives(name: str, tmp_path: Path) -> None:
    scenario = SCENARIOS[name]
    if obstacle := scenario.find_obstacle():
        pytest.skip(obstacle)
    figures = run(name, tmp_path, "tcp" if name.startswith("cut") else "auto", is_long=False)
    assert not scenario.find_misses(figures), figures
