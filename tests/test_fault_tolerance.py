"""Workers of one launch die, and the launch goes on: under Open MPI, the only one that tells the others."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from launching import run as run_command

from demos_hpc.errors import LaunchError
from demos_hpc.mpiexec import Launcher, find_launcher, tolerate_faults

#: A worker that finds the file takes it away and dies; the rows it had are computed by another.
MODEL = """
import os, pathlib, signal
import numpy as np
from demos_hpc import ModelSpec, Observable, Parameter

class Mortal:
    spec = ModelSpec(name="mortal", parameters=[Parameter("mu", default=0.0)], observables=[Observable("x")])

    def log_density(self, x, params):
        try:
            pathlib.Path("poison").unlink()
        except FileNotFoundError:
            return -0.5 * (x[:, 0] - params[..., 0]) ** 2 - 0.5 * np.log(2 * np.pi)
        os.kill(os.getpid(), signal.SIGKILL)
"""
ANALYSIS = """
import pathlib
import numpy as np
import demos_hpc

x = np.random.default_rng(0).normal(size=(100_000, 1))
wanted = -0.5 * x[:, 0] ** 2 - 0.5 * np.log(2 * np.pi)
with demos_hpc.connect("mortal") as model:
    for deaths in range({deaths}):
        assert model.metadata()["workers"] == {workers} - deaths
        pathlib.Path("poison").touch()
        assert np.array_equal(model.log_density(x, [0.0]), wanted)
    print("survived", model.metadata()["workers"])
"""


open_mpi_only = pytest.mark.skipif(
    find_launcher().kind != "openmpi", reason="other MPIs end the launch with the first rank that dies"
)


@pytest.fixture
def run(tmp_path: Path, write_script: Callable[[str, str], Path]) -> Callable[..., str]:
    def run(deaths: int, workers: int, code: int = 0) -> str:
        write_script(MODEL, "mortal.py")
        write_script(ANALYSIS.format(deaths=deaths, workers=workers))
        command = [sys.executable, "-m", "demos_hpc", "run", "--fault-tolerant", "--workers", str(workers)]
        launched = run_command([*command, "mortal.py:Mortal", "analysis.py"], cwd=tmp_path, deadline=60.0, settings={})
        assert (launched.code == 0) == (code == 0), launched.text
        return launched.text

    return run


@open_mpi_only
def test_workers_of_a_launch_die_and_it_goes_on(run: Callable[..., str]) -> None:
    assert "survived 1" in run(deaths=2, workers=3)


@open_mpi_only
def test_the_launch_ends_with_its_last_worker(run: Callable[..., str]) -> None:
    assert "all workers have died" in run(deaths=1, workers=1, code=1)


def test_other_launchers_are_refused_with_a_way_out() -> None:
    with pytest.raises(LaunchError, match=r"demos-hpc serve MODEL --workers 2"):
        tolerate_faults(Launcher("mpich", "mpiexec"))
    assert tolerate_faults(Launcher("openmpi", "mpiexec")).options == ("--with-ft", "ulfm")
