"""Starts one launch, stays with it, and says how it ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from .children import run_along
from .errors import InvalidInput, LaunchError
from .model import load
from .model_paths import DATA_FILES, find
from .mpiexec import Launcher, LaunchPlan, Program, plan_launch
from .threads import limit_threads

#: How a rank of ours begins: this Python, this package.
PYTHON = (sys.executable, "-m", "demos_hpc")
#: Makes of a command the one that runs it in an image.
Contain = Callable[[Sequence[str]], list[str]]


def make_programs(
    models: Sequence[str],
    workers: Sequence[int],
    analysis: Sequence[str],
    ranks: int = 1,
    *,
    contain: Sequence[Contain | None] = (),
) -> list[Program]:
    """The programs of a launch: a server for each model, the first of which brings the dispatcher, and the analysis.

    Parameters
    ----------
    models
        As `demos_hpc.model.load` takes them.
    workers
        How many each model gets; one number is for each of them.
    analysis
        A script and its arguments, or ``-m``, a module and its arguments.
    ranks
        Of the analysis.
    contain
        For each model, what puts its command into an image; None, or nothing at all, where it is served outside of any.

    Raises
    ------
    InvalidInput
        Where the numbers make no launch.
    ModelNotFound, DatasetError
        Where a model's file does not exist, or one of data cannot be opened.
    """
    if len(workers) not in (1, len(models)):
        raise InvalidInput(
            f"workers: {len(workers)} numbers for {len(models)} model(s); give one for all, or one for each"
        )
    if ranks < 1 or min(workers) < 1:
        raise InvalidInput(
            f"a launch of {min(workers)} workers and {ranks} ranks of the analysis; each needs one at least"
        )
    counts = list(workers) * len(models) if len(workers) == 1 else list(workers)
    counts[0] += 1
    servers = []
    for n, model, inside in zip(counts, models, contain or [None] * len(models), strict=True):
        if inside is None:
            check_model(model)
        servers.append(Program(n, inside(["demos-hpc", "serve", model]) if inside else (*PYTHON, "serve", model)))
    return [*servers, Program(ranks, (*PYTHON, *analysis))]


def check_model(model: str) -> None:
    """Looks for what is to be served, and opens a file of data, for its errors: each of the processes would say them.

    Raises
    ------
    ModelNotFound, DatasetError, InvalidInput
        As `demos_hpc.model.load`; models are not loaded, only files of data.
    """
    find(model)
    if model.endswith(DATA_FILES):
        load(model)


def describe(
    launcher: Launcher, programs: Sequence[Program], directory: Path, variables: Mapping[str, str] | None = None
) -> LaunchPlan:
    """The launch of these programs; its ranks get ``variables``, and one thread each unless that is set."""
    environment = {**(variables or {}), **limit_threads(os.environ)}
    if "PYTHONUNBUFFERED" not in os.environ:
        environment["PYTHONUNBUFFERED"] = "1"  # what a rank prints shall be seen when it prints it
    environment["DEMOS_RUN_DIR"] = str(directory / "ranks")
    return plan_launch(launcher, programs, environment, directory, as_root=os.geteuid() == 0)


@contextlib.contextmanager
def make_run_directory(launcher: Launcher, environment: Mapping[str, str] = os.environ) -> Iterator[Path]:
    """A fresh directory that all ranks see, removed at the end."""
    nodes = environment.get("SLURM_JOB_NUM_NODES", "1")
    # /tmp belongs to one node alone; the directory where a job is submitted is shared.
    place = Path.cwd() if launcher.kind == "slurm" and nodes != "1" else None
    try:
        directory = Path(tempfile.mkdtemp(prefix=".demos-run-" if place else "demos-run-", dir=place))
    except OSError as error:
        raise LaunchError(f"there is no place for the files of a launch: {error}") from None
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def start(plan: LaunchPlan) -> int:
    """Runs a launch to its end and returns its exit status."""
    for path, text in plan.files.items():
        path.write_text(text, encoding="utf-8")
    try:
        return run_along(plan.command, {**os.environ, **plan.environment})
    except OSError as error:
        raise LaunchError(f"{plan.command[0]} cannot be started: {error}") from None
