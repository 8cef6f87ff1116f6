"""One launch, from its models and its script to its exit status."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from demos_hpc.errors import InvalidInput, LaunchError, ModelNotFound
from demos_hpc.mpiexec import Launcher, LaunchPlan
from demos_hpc.starter import describe, make_programs, make_run_directory, start
from demos_hpc.threads import OWN, VARIABLES, limit_threads


def test_first_model_brings_the_dispatcher() -> None:
    first, second, analysis = make_programs(["nu_atm", "pkg:M"], [2, 5], ["fit.py", "-x"], 4)
    assert [first.ranks, second.ranks, analysis.ranks] == [3, 5, 4]
    assert first.command == (sys.executable, "-m", "demos_hpc", "serve", "nu_atm")
    assert analysis.command == (sys.executable, "-m", "demos_hpc", "fit.py", "-x")


def test_one_number_of_workers_is_for_all_models() -> None:
    assert [p.ranks for p in make_programs(["nu_atm", "pkg:M", "pkg:N"], [2], ["fit.py"])] == [3, 2, 2, 1]


@pytest.mark.parametrize(("workers", "ranks"), [([1, 2, 3], 1), ([0], 1), ([2], 0), ([-1], 1)])
def test_numbers_that_make_no_launch(workers: list[int], ranks: int) -> None:
    with pytest.raises(InvalidInput, match="workers"):
        make_programs(["nu_atm", "pkg:M"], workers, ["fit.py"], ranks)


def test_model_file_that_does_not_exist() -> None:
    with pytest.raises(ModelNotFound, match=r"no\.py"):
        make_programs(["no.py:M"], [1], ["fit.py"])


def test_ranks_have_one_thread_unless_somebody_said_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "4")
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    plan = describe(Launcher("openmpi", "mpiexec"), make_programs(["nu_atm"], [1], ["fit.py"]), tmp_path, {"A": "b"})
    assert plan.environment == {
        "A": "b",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "DEMOS_RUN_DIR": str(tmp_path / "ranks"),
    }
    for name in plan.environment:
        assert plan.command[plan.command.index(name) - 1] == "-x"
    assert limit_threads({}, 3) == dict.fromkeys((*VARIABLES, OWN), "3")


def test_run_directory_is_fresh_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        make_run_directory(Launcher("mpich", "mpiexec"), {}) as one,
        make_run_directory(Launcher("mpich", "m"), {}) as two,
    ):
        assert one != two
        assert one.is_dir()
    assert not one.exists()


def test_run_directory_of_several_nodes_is_where_the_job_was_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with make_run_directory(Launcher("slurm", "srun"), {"SLURM_JOB_NUM_NODES": "2"}) as directory:
        assert directory.parent == tmp_path
    with make_run_directory(Launcher("slurm", "srun"), {"SLURM_JOB_NUM_NODES": "1"}) as directory:
        assert directory.parent != tmp_path


def test_start_writes_the_files_and_returns_the_status(tmp_path: Path) -> None:
    file = tmp_path / "programs"
    code = f"import sys; sys.exit(7 if open({str(file)!r}).read() == 'text' else 1)"
    assert start(LaunchPlan([sys.executable, "-W", "ignore", "-c", code], {}, {file: "text"})) == 7
    with pytest.raises(LaunchError, match="cannot be started"):
        start(LaunchPlan(["/no/such/launcher"]))
