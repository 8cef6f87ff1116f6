"""The doctor's checks, on installations that are well and on those that are not."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from demos_hpc import doctor, mpi_checks
from demos_hpc.children import Ended
from demos_hpc.config import Config
from demos_hpc.errors import LaunchError
from demos_hpc.installation import Installation
from demos_hpc.mpi_checks import Library
from demos_hpc.mpiexec import Launcher, find_launcher
from demos_hpc.verdict import Outcome

MPICH = Library("MPICH Version: 5.0.2", "multiple")
OPENMPI = Library("Open MPI v5.0.11, package: Open MPI user@host, ident: 5.0.11", "multiple")


@pytest.fixture
def write_launcher(tmp_path: Path) -> Callable[..., Launcher]:
    """A launcher that says ``text`` to whatever it is asked, with an exit status."""

    def write(text: str, kind: str = "mpich", status: int = 0) -> Launcher:
        path = tmp_path / "mpiexec"
        path.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {status}\n", encoding="utf-8")
        path.chmod(0o755)
        return Launcher(kind, str(path))

    return write


def test_this_installation_is_well() -> None:
    found = {d.check: d for d in doctor.examine()}
    wrong = [d for d in found.values() if d.outcome is Outcome.FAILED and not d.remedy.startswith("pip install")]
    assert not wrong
    assert found["ping-pong"].outcome in (Outcome.OK, Outcome.WARNING)
    assert "us one way" in found["ping-pong"].found
    assert {"python", "mpi4py", "MPI library", "thread level", "launcher", "/dev/shm", "cc"} <= set(found)


def test_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "requires", lambda name: ["nosuchpackage>=3", "other; extra == 'plot'"])
    monkeypatch.setattr(doctor, "version", _find_no_version)
    found = {d.check: d for d in doctor.check_packages()}
    assert found["nosuchpackage"].outcome is Outcome.FAILED
    assert found["nosuchpackage"].remedy == "pip install 'nosuchpackage>=3'"
    assert "other" not in found
    assert all(d.outcome is Outcome.SKIPPED for d in doctor.check_optional())


def _find_no_version(name: str) -> str:
    if name == "demos-hpc":
        return "1.0"
    raise doctor.PackageNotFoundError(name)


def test_mpi_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = Ended(1, "", "Traceback\nRuntimeError: cannot load MPI library\n", 0.1)
    monkeypatch.setattr(mpi_checks, "run", lambda *arguments: ended)
    library = mpi_checks.probe_library({})
    found = mpi_checks.check_library(library)
    assert found.outcome is Outcome.FAILED
    assert "cannot load MPI library" in found.found
    assert "pip install mpich" in found.remedy
    assert mpi_checks.check_threads(library).outcome is Outcome.SKIPPED


def test_mpi_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hanging = tmp_path / "python"
    hanging.write_text("#!/bin/sh\nexec sleep 600\n", encoding="utf-8")
    hanging.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(hanging))
    monkeypatch.setattr(mpi_checks, "DEADLINE", 0.05)
    assert "no answer within" in mpi_checks.probe_library(os.environ).problem


def test_thread_levels() -> None:
    assert mpi_checks.check_threads(MPICH).outcome is Outcome.OK
    assert mpi_checks.check_threads(Library("MPICH", "single")).outcome is Outcome.WARNING


def test_launcher_of_the_library(write_launcher: Callable[..., Launcher]) -> None:
    launcher = write_launcher("HYDRA build details:\n Version: 5.0.2")
    assert mpi_checks.check_launcher(launcher, MPICH).outcome is Outcome.OK


def test_launcher_of_another_mpi(write_launcher: Callable[..., Launcher]) -> None:
    found = mpi_checks.check_launcher(write_launcher("HYDRA\n Version: 5.0.2"), OPENMPI)
    assert found.outcome is Outcome.FAILED
    assert "mpich 5.0.2), but the library is openmpi" in found.found
    assert "mpiexec of Open MPI" in found.remedy


def test_launcher_of_another_version(write_launcher: Callable[..., Launcher]) -> None:
    found = mpi_checks.check_launcher(write_launcher("HYDRA\n Version: 4.2"), MPICH)
    assert found.outcome is Outcome.WARNING
    assert "library is 5.0.2" in found.found


def test_no_launcher() -> None:
    found = mpi_checks.check_launcher(LaunchError("there is no mpiexec: pip install mpich"), MPICH)
    assert (found.outcome, found.remedy) == (Outcome.FAILED, "there is no mpiexec: pip install mpich")


def test_ranks_that_are_worlds_of_their_own(write_launcher: Callable[..., Launcher]) -> None:
    report = '{"size": 1, "launched": 2, "library": "Open MPI v5.0.11", "threads": "multiple", "microseconds": null}'
    found = mpi_checks.check_ping_pong(write_launcher(f"{report}\n{report}"), os.environ)
    assert found.outcome is Outcome.FAILED
    assert "a world of its own" in found.found
    assert "different MPIs" in found.remedy
    slurm = mpi_checks.check_ping_pong(write_launcher(report, kind="slurm"), os.environ)
    assert "--mpi=pmi2" in slurm.remedy


def test_slow_messages(write_launcher: Callable[..., Launcher]) -> None:
    report = '{"size": 2, "launched": 2, "library": "MPICH 5", "threads": "multiple", "microseconds": 400.0}'
    found = mpi_checks.check_ping_pong(write_launcher(report), os.environ)
    assert (found.outcome, found.found) == (Outcome.WARNING, "400.0 us one way, MPICH 5")


def test_ranks_that_do_not_start(write_launcher: Callable[..., Launcher]) -> None:
    launcher = write_launcher("some error: no such host", status=3)
    found = mpi_checks.check_ping_pong(launcher, os.environ)
    assert (found.outcome, found.found) == (Outcome.FAILED, "exit status 3: some error: no such host")
    assert mpi_checks.check_oversubscription(launcher, os.environ, 2).outcome is Outcome.FAILED
    assert mpi_checks.check_oversubscription(launcher, os.environ, 64).outcome is Outcome.SKIPPED


@pytest.mark.parametrize(
    ("environment", "world", "outcome"),
    [
        ({"SLURM_NTASKS": "4"}, None, Outcome.OK),
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4"}, 4, Outcome.OK),
        ({"SLURM_STEP_NUM_TASKS": "4"}, 1, Outcome.FAILED),
    ],
)
def test_tasks_of_slurm(environment: dict[str, str], world: int | None, outcome: Outcome) -> None:
    found = mpi_checks.check_tasks(environment, world)
    assert found is not None
    assert found.outcome is outcome
    assert mpi_checks.check_tasks({}, 4) is None


def test_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_shared_memory(tmp_path).outcome is Outcome.OK
    assert doctor.check_shared_memory(tmp_path / "no").outcome is Outcome.FAILED
    monkeypatch.setattr(doctor, "SHARED_MEMORY", 1 << 60)
    assert "--shm-size" in doctor.check_shared_memory(tmp_path).remedy


def test_modules_that_are_not_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left_out = ("libdemos: no C compiler", "compiled modules: no headers")
    installation = Installation(tmp_path, Path("libdemos.so.1"), left_out=left_out)
    monkeypatch.setattr(doctor, "find_installation", lambda config: installation)
    monkeypatch.setattr(doctor, "has_compiled_modules", lambda: False)
    found = doctor.check_compiled_modules(Config())
    assert found.outcome is Outcome.WARNING
    assert found.remedy.endswith("the headers of Python; left out were compiled modules: no headers")
    monkeypatch.setattr(doctor, "has_compiled_modules", lambda: True)
    assert doctor.check_compiled_modules(Config()).outcome is Outcome.OK


def test_compilers_are_optional(tmp_path: Path) -> None:
    found = list(doctor.check_compilers({"PATH": str(tmp_path)}))
    assert [d.outcome for d in found] == [Outcome.SKIPPED] * 3


@pytest.mark.parametrize(("size", "outcome"), [(2, Outcome.OK), (1, Outcome.FAILED)])
def test_inside_a_launch_the_world_is_looked_at(size: int, outcome: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: Sequence[str], environment: dict[str, str], *, as_rank: bool = False) -> Ended:
        assert as_rank == ("PMI_RANK" in environment)
        report = f'{{"size": {size}, "launched": 2, "library": "L", "threads": "multiple", "microseconds": 1.0}}'
        return Ended(0, report if as_rank else '["MPICH Version: 5.0.2", "multiple"]', "", 0.1)

    monkeypatch.setattr(mpi_checks, "run", run)
    for name, value in {"PMI_RANK": "0", "PMI_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    found = {d.check: d for d in doctor.examine_mpi(os.environ)}
    assert found["world"].outcome is outcome
    assert "ping-pong" not in found


def test_doctor_as_a_rank(launch: Callable[..., object]) -> None:
    """Two ranks, of which one shows the table."""
    from demos_hpc.mpiexec import Program

    launched = launch(Program(2, [sys.executable, "-m", "demos_hpc", "doctor"]))
    text = launched.out  # type: ignore[attr-defined]
    assert text.count("2 ranks in one world") == 1, launched.text  # type: ignore[attr-defined]


def test_versions_in_texts() -> None:
    assert mpi_checks.find_version("mpiexec (Open MPI) 5.0.11") == "5.0.11"
    assert mpi_checks.find_version("none") == ""
    assert find_launcher({"PATH": os.environ["PATH"]}).kind in ("mpich", "openmpi")
