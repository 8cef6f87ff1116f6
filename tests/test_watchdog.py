"""The watchdog by itself; `test_launch` lets it bark."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from demos_hpc import watchdog

LAUNCHERS = [name for pair in watchdog.RANK_AND_SIZE for name in pair]


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("names", watchdog.RANK_AND_SIZE, ids=lambda names: names[0])
def test_launchers_say_rank_and_size(monkeypatch: pytest.MonkeyPatch, names: tuple[str, str]) -> None:
    assert watchdog.find_rank_and_size() is None
    monkeypatch.setenv(names[0], "3")
    assert watchdog.find_rank_and_size() is None
    monkeypatch.setenv(names[1], "7")
    assert watchdog.find_rank_and_size() == (3, 7)
    monkeypatch.setenv(names[0], "none")
    assert watchdog.find_rank_and_size() is None


def test_without_a_launcher_there_is_nothing_to_watch(tmp_path: Path) -> None:
    with watchdog.watch_start(str(tmp_path / "marks"), 1.0):
        assert not (tmp_path / "marks").exists()


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_rank_leaves_its_mark_and_rank_0_takes_all_away(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rank: str
) -> None:
    monkeypatch.setenv("PMI_RANK", rank)
    monkeypatch.setenv("PMI_SIZE", "3")
    marks = tmp_path / "marks"
    with watchdog.watch_start(str(marks), 60.0):
        assert (marks / rank).exists()
        assert watchdog.find_missing(marks, 3) == [r for r in range(3) if r != int(rank)]
    assert marks.exists() == (rank != "0")


def test_who_is_missing_is_said_and_the_process_ended(tmp_path: Path) -> None:
    (tmp_path / "1").touch()
    hanging = subprocess.Popen([sys.executable, "-c", "import select; select.select([], [], [], 600)"])
    reading, writing = os.pipe()  # never closed while the dog watches
    try:
        command = [sys.executable, "-S", watchdog.__file__, str(tmp_path), "3", "0.1", str(hanging.pid)]
        done = subprocess.run(command, stdin=reading, capture_output=True, text=True, timeout=60, check=False)
        assert hanging.wait(timeout=60) == -15
    finally:
        hanging.kill()
        hanging.wait()
        os.close(reading)
        os.close(writing)
    assert "of 3 ranks, not started after 0.1 s (DEMOS_ROLL_CALL_TIMEOUT): rank 0, rank 2." in done.stderr
    assert not tmp_path.exists()


def test_the_dog_is_quiet_when_all_is_well(tmp_path: Path) -> None:
    command = [sys.executable, "-S", watchdog.__file__, str(tmp_path), "3", "60", "1"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
