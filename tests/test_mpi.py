"""Starts the tests of `tests/mpi`, which need several ranks in one MPI world."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from launching import Launched

from demos_hpc.mpiexec import Program

HERE = Path(__file__).parent


@pytest.mark.parametrize("ranks", [3, 4, 7])
def test_under_mpi(launch: Callable[..., Launched], ranks: int) -> None:
    options = ["--with-mpi", "-q", "--color=no", "--no-header", "--tb=short", "-p", "no:cacheprovider"]
    places = ["-o", "faulthandler_timeout=60", f"--rootdir={HERE.parent}", str(HERE / "mpi")]
    command = [sys.executable, "-m", "pytest", *options, *places]
    done = launch(Program(ranks, command), deadline=180)
    assert done.code == 0, done.text
    assert " passed" in done.out
    assert " skipped" not in done.out, done.text
