"""Command lines of launches: each launcher's own words, and which launcher it is."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demos_hpc.errors import InvalidInput, LaunchError
from demos_hpc.mpiexec import Launcher, Program, find_launcher, find_version_text, format_multi_prog, plan_launch

PROGRAMS = [Program(3, ["py", "serve", "m.py:M"]), Program(1, ["py", "fit.py", "a b"])]


def write_program(directory: Path, name: str, text: str) -> Path:
    """A program that says ``text`` whatever it is asked."""
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def bare_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python beside which there is no mpiexec; returns a directory for the PATH."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "python"))
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


# ---- building ------------------------------------------------------------------------------------------------


def test_mpich_separates_programs_by_colons() -> None:
    command = Launcher("mpich", "mpiexec").build(PROGRAMS, as_root=True, variables=["A"])
    assert command == ["mpiexec", "-n", "3", "py", "serve", "m.py:M", ":", "-n", "1", "py", "fit.py", "a b"]


def test_open_mpi_is_told_of_root_oversubscription_and_variables() -> None:
    command = Launcher("openmpi", "mpiexec").build(PROGRAMS, as_root=True, variables=["A", "B"])
    assert command[:8] == ["mpiexec", "--oversubscribe", "--allow-run-as-root", "-x", "A", "-x", "B", "-n"]
    assert "--allow-run-as-root" not in Launcher("openmpi", "mpiexec").build(PROGRAMS)


def test_srun_takes_a_file(tmp_path: Path) -> None:
    launcher = Launcher("slurm", "srun", ("--mpi=pmi2",))
    command = launcher.build(PROGRAMS, multi_prog=tmp_path / "f")
    assert command == [
        "srun", "--mpi=pmi2", "--ntasks=4", "--kill-on-bad-exit=1", "--multi-prog", str(tmp_path / "f"),
    ]  # fmt: skip
    with pytest.raises(LaunchError, match="from a file"):
        launcher.build(PROGRAMS)


def test_plan_of_srun_brings_the_file(tmp_path: Path) -> None:
    plan = plan_launch(Launcher("slurm", "srun"), PROGRAMS, {"A": "b c"}, tmp_path, as_root=False)
    assert dict(plan.files) == {tmp_path / "programs": "0-2 py serve m.py:M\n3 py fit.py 'a b'\n"}
    assert str(plan).startswith(f"cat > {tmp_path / 'programs'} <<'END'\n0-2 py serve m.py:M\n")
    assert str(plan).splitlines()[-1] == "A='b c' " + shlex.join(plan.command)


def test_plan_reads_back_as_a_shell_command() -> None:
    plan = plan_launch(Launcher("mpich", "/x y/mpiexec"), PROGRAMS, {"A": "1"}, Path("/nowhere"), as_root=False)
    assert shlex.split(str(plan)) == ["A=1", *plan.command]
    assert not plan.files


# ---- srun's file ---------------------------------------------------------------------------------------------


def read_multi_prog(text: str, rank: int) -> list[str]:
    """What srun makes of its file for one rank: single quotes, backslashes, %t and %o outside of quotes."""
    for line in text.splitlines():
        ranks, rest = line.split(" ", 1)
        first, _, last = ranks.partition("-")
        if int(first) <= rank <= int(last or first):
            tokens = re.findall(r"'[^']*'|\\.|%t|%o|\s+|.", rest)
            words, is_open = [""], True
            for token in tokens:
                if token.isspace():
                    is_open = False
                    continue
                if not is_open:
                    words, is_open = [*words, ""], True
                special = {"%t": str(rank), "%o": "OFFSET"}
                bare = token[1:-1] if token.startswith("'") else token[1:] if token.startswith("\\") else token
                words[-1] += special.get(token, bare)
            return words
    raise AssertionError(f"no program for rank {rank}")


WORDS = st.text(
    st.characters(exclude_characters="\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\0", codec="utf-8"), max_size=20
)


@given(st.lists(WORDS, min_size=1, max_size=6), st.integers(1, 5))
def test_multi_prog_keeps_every_word(words: list[str], ranks: int) -> None:
    text = format_multi_prog([Program(2, ["first"]), Program(ranks, words)])
    assert read_multi_prog(text, 0) == ["first"]
    for rank in (2, 1 + ranks):
        assert read_multi_prog(text, rank) == words


def test_multi_prog_refuses_what_srun_cannot_read() -> None:
    with pytest.raises(InvalidInput, match="line break"):
        format_multi_prog([Program(1, ["a", "b\nc"])])
    with pytest.raises(InvalidInput, match="127 words"):
        format_multi_prog([Program(1, ["a"] * 200)])
    with pytest.raises(InvalidInput, match="4000 characters"):
        format_multi_prog([Program(1, ["a" * 5000])])


# ---- finding -------------------------------------------------------------------------------------------------


def test_finds_the_mpiexec_on_the_path(bare_python: Path) -> None:
    path = write_program(bare_python, "mpiexec", "HYDRA build details:\n    Version: 5.0.2")
    found = find_launcher({"PATH": f"{bare_python}:/bin"})
    assert found == Launcher("mpich", str(path))
    assert "5.0.2" in find_version_text(str(path))


def test_prefers_the_mpiexec_beside_this_python(bare_python: Path) -> None:
    write_program(bare_python, "mpiexec", "HYDRA")
    path = write_program(Path(sys.executable).parent, "mpiexec", "mpiexec (Open MPI) 5.0.11")
    assert find_launcher({"PATH": f"{bare_python}:/bin"}) == Launcher("openmpi", str(path))


def test_without_any_launcher(bare_python: Path) -> None:
    with pytest.raises(LaunchError, match="pip install mpich"):
        find_launcher({"PATH": str(bare_python)})


def test_insisting_on_a_kind(bare_python: Path) -> None:
    write_program(bare_python, "mpiexec", "HYDRA")
    environment = {"PATH": str(bare_python)}
    assert find_launcher(environment, "mpich").kind == "mpich"
    with pytest.raises(LaunchError, match="belongs to mpich, not to openmpi"):
        find_launcher(environment, "openmpi")
    with pytest.raises(LaunchError, match="no srun"):
        find_launcher(environment, "slurm")
    with pytest.raises(InvalidInput, match="there are auto, mpich"):
        find_launcher(environment, "pbs")


def test_mpiexec_that_does_not_run(bare_python: Path) -> None:
    (bare_python / "mpiexec").write_bytes(b"\x7fELF")
    (bare_python / "mpiexec").chmod(0o755)
    with pytest.raises(LaunchError, match="cannot be run"):
        find_launcher({"PATH": str(bare_python)})


@pytest.mark.parametrize(
    ("mpiexec", "plugins", "more", "expected"),
    [
        ("HYDRA", "none pmi2 pmix", {}, ("--mpi=pmi2",)),
        ("HYDRA", "none cray_shasta", {}, ()),
        ("HYDRA", "none pmi2", {"SLURM_MPI_TYPE": "cray_shasta"}, ()),
        ("HYDRA", "none pmi2", {"SLURM_STEP_ID": "0"}, ("--mpi=pmi2", "--overlap")),
        ("mpiexec (Open MPI) 5.0.11", "none pmi2 pmix pmix_v4", {}, ("--mpi=pmix",)),
        ("", "none pmi2", {}, ()),
    ],
)
def test_srun_inside_an_allocation(
    bare_python: Path, mpiexec: str, plugins: str, more: dict[str, str], expected: tuple[str, ...]
) -> None:
    if mpiexec:
        write_program(bare_python, "mpiexec", mpiexec)
    srun = write_program(bare_python, "srun", f"MPI plugin types are...\n\t{plugins}")
    found = find_launcher({"PATH": f"{bare_python}:/bin", "SLURM_JOB_ID": "7", **more})
    assert found == Launcher("slurm", str(srun), expected)


def test_open_mpi_that_srun_does_not_know_is_started_by_its_mpiexec(bare_python: Path) -> None:
    path = write_program(bare_python, "mpiexec", "mpiexec (Open MPI) 5.0.11")
    write_program(bare_python, "srun", "MPI plugin types are...\n\tnone pmi2")
    environment = {"PATH": f"{bare_python}:/bin", "SLURM_JOB_ID": "7"}
    assert find_launcher(environment) == Launcher("openmpi", str(path))
    with pytest.raises(LaunchError, match="no --mpi=pmix"):
        find_launcher(environment, "slurm")


def test_srun_outside_of_an_allocation_only_if_asked_for(bare_python: Path) -> None:
    write_program(bare_python, "mpiexec", "HYDRA")
    write_program(bare_python, "srun", "pmi2")
    environment = {"PATH": f"{bare_python}:/bin"}
    assert find_launcher(environment).kind == "mpich"
    assert find_launcher(environment, "slurm").options == ("--mpi=pmi2",)
