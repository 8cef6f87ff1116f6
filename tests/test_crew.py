"""Workers of one host that join a server, that are told to go, and that are started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from serving import ENDING, OPENING, ServerApart, serving, wait_until
from test_operating import GAUSSIAN

from demos_hpc.calling import call


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerApart]:
    with serving(GAUSSIAN, tmp_path, workers=1, name="peak", heartbeat=0.5) as running:
        yield running


@contextmanager
def joined(server: ServerApart, *words: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "demos_hpc", "worker", "--join", server.name, *words]
    process = subprocess.Popen(command, env=server.environment, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def list_pids(server: ServerApart, label: str) -> list[int]:
    with server.operate() as operator:
        return [worker["pid"] for worker in operator.list_workers() if worker["name"].startswith(label)]


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler of its own for a signal."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_a_worker_that_is_told_leaves_in_peace(server: ServerApart) -> None:
    with joined(server, "--label", "guest") as process:
        wait_until(lambda: list_pids(server, "guest"), OPENING, "it is there")
        wait_until(lambda: catches(process.pid, signal.SIGTERM), OPENING, "it takes signals")
        process.terminate()
        assert process.wait(ENDING) == 0
        assert not list_pids(server, "guest")
    with server.operate() as operator:
        assert operator.look()["events"]["crashes"] == 0


def test_a_crew_is_kept_and_ends_when_it_is_told(server: ServerApart) -> None:
    with joined(server, "--workers", "2", "--label", "crew") as crew:
        pids = wait_until(lambda: (p := list_pids(server, "crew")) and len(p) == 2 and p, OPENING, "both are there")
        os.kill(pids[0], signal.SIGKILL)
        wait_until(lambda: len(set(list_pids(server, "crew")) - {pids[0]}) == 2, OPENING, "another takes its place")
        model = call(server.name, server.config)
        assert model.log_density(np.zeros((5000, 1))).shape == (5000,)
        model.close()
        crew.terminate()
        assert crew.wait(ENDING) == 0
        wait_until(lambda: not list_pids(server, "crew"), ENDING, "they have left")


def test_a_crew_waits_for_its_server_and_ends_with_it(server: ServerApart, tmp_path: Path) -> None:
    server.name = "later"
    with joined(server, "--workers", "2", "--label", "crew", "--wait", "60") as crew:
        with serving(GAUSSIAN, tmp_path, workers=1, name="later", heartbeat=0.5) as later:
            wait_until(lambda: len(list_pids(later, "crew")) == 2, OPENING, "both are there")
        assert crew.wait(ENDING) == 0


def test_a_crew_of_no_server_gives_up(server: ServerApart) -> None:
    server.name = "nowhere"
    with joined(server, "--workers", "2", "--label", "crew") as crew:
        said = crew.communicate(timeout=ENDING)[1]
        assert crew.returncode == 1
    assert "there is no server or model 'nowhere'" in said
    assert "worker 0 of crew is given up after 3 failures in a row" in said
