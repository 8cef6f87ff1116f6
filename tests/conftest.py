"""Fixtures: scripts and launches under whichever MPI is installed."""

from __future__ import annotations

import shutil
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cluster_users
import image_yard
import pytest
from compiling import Mold, Workshop, build
from inside import Hall
from launching import Launched, start
from required import find_lacks, find_tool

from demos_hpc.installation import PACKAGE
from demos_hpc.mpiexec import Program

#: Seconds that a launch may take unless the test says otherwise.
DEADLINE = 60.0

testbed, script, right = cluster_users.testbed, cluster_users.script, cluster_users.right
yard, fingerprint = image_yard.yard, image_yard.fingerprint
base_image, server_image, peak_image = image_yard.base_image, image_yard.server_image, image_yard.peak_image


def pytest_sessionstart(session: pytest.Session) -> None:
    """Nothing is run, and nothing skipped in silence, where DEMOS_REQUIRE names what is not there."""
    if not session.config.getoption("--with-mpi") and (lacks := find_lacks()):
        raise pytest.UsageError(f"DEMOS_REQUIRE names what is not there: {'; '.join(lacks)}")


@pytest.fixture(autouse=True)
def _apart(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds the servers of whoever runs the tests, nor is let in by the MUNGE of this machine."""
    monkeypatch.setenv("DEMOS_AUTHENTICATION", "key")
    if request.config.getoption("--with-mpi"):  # ranks would clear one another's directories away
        monkeypatch.setenv("DEMOS_REGISTRY", "/nonexistent/demos-registry")
    else:
        monkeypatch.setenv("DEMOS_REGISTRY", str(request.getfixturevalue("tmp_path") / "registry"))


@pytest.fixture
def hall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hall]:
    """Servers in threads of this process, ``hall.open(MODEL, workers=1)``; all have to end."""
    memory = Path("/dev/shm")  # a file system that has no disk to wait for
    with tempfile.TemporaryDirectory(prefix="demos-tests-", dir=memory if memory.is_dir() else None) as registry:
        hall = Hall(tmp_path, Path(registry), monkeypatch)
        yield hall
        hall.close()


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """Makes models in C: with the libraries that are installed, or with those that are built from the sources.

    Where MPI was installed together with the package, its compiler came too late for libdemos_mpi.
    """
    wanted = ["libdemos.so", *["libdemos_mpi.so"] * bool(find_tool("mpicc"))]
    with pytest.MonkeyPatch.context() as patch:
        if not all((PACKAGE / "lib" / name).is_file() for name in wanted):
            built = build(tmp_path_factory.mktemp("libdemos"), "-Dtests=false")
            shutil.copy(built / "built.json", built / "csrc")  # which lies beside a library that is installed
            patch.setenv("DEMOS_LIBRARY", str(built / "csrc" / "libdemos.so"))
        yield Workshop(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def mold(tmp_path_factory: pytest.TempPathFactory, workshop: Workshop) -> Mold:
    """Makes programs and libraries of Fortran."""
    return Mold(tmp_path_factory.mktemp("fortran"))


@pytest.fixture
def write_script(tmp_path: Path) -> Callable[[str, str], Path]:
    """Writes a script, ``write_script(text, name)``, and returns its path."""

    def write(text: str, name: str = "analysis.py") -> Path:
        path = tmp_path / name
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    """Starts programs in one MPI world: ``launch(serve(MODEL), analyze(SCRIPT), deadline=60.0, timeout=5)``.

    Further keywords are settings, ``timeout`` for ``DEMOS_TIMEOUT``. A launch that takes longer than its deadline,
    or leaves processes behind, fails the test.
    """
    launches: list[Launched] = []

    def launch(*programs: Program, deadline: float = DEADLINE, **settings: Any) -> Launched:
        variables = {f"DEMOS_{name.upper()}": str(value) for name, value in settings.items()}
        launched = start(programs, cwd=tmp_path, deadline=deadline, settings=variables)
        launches.append(launched)
        assert launched.code != -9, f"not done within {deadline} s; {launched.text}"
        return launched

    yield launch
    for launched in launches:
        assert not launched.left, f"processes outlived the launch: {launched.left}\n{launched.text}"
