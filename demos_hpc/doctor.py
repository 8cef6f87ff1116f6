"""Tests an installation: each check is a function that returns what it found, and the remedy where that is not well."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from . import mpi_checks
from .config import Config
from .diagnosis import Diagnosis
from .errors import DemosError
from .installation import find_installation, has_compiled_modules
from .mpiexec import Launcher
from .verdict import Outcome
from .watchdog import find_rank_and_size

#: Bytes that MPI and the service need in /dev/shm.
SHARED_MEMORY = 64 << 20
#: Packages of the extras, and what they are good for.
OPTIONAL = {
    "iminuit": "fits, the demo",
    "matplotlib": "plots, the demo",
    "emcee": "sampling",
    "dynesty": "evidence",
}
COMPILERS = {"cc": "gcc", "c++": "g++", "gfortran": "gfortran"}


def examine(environment: Mapping[str, str] = os.environ) -> Iterator[Diagnosis]:
    """All checks, each as soon as it is done."""
    yield check_python()
    yield from check_packages()
    yield from examine_mpi(environment)
    yield check_shared_memory(Path("/dev/shm"))
    yield check_compiled_modules(Config.load(environment))
    yield check_libdemos(Config.load(environment))
    yield from check_compilers(environment)
    yield from check_optional()


def examine_mpi(environment: Mapping[str, str]) -> Iterator[Diagnosis]:
    """What concerns MPI; inside a launch, the world that it makes instead of new ones."""
    place = find_rank_and_size()
    is_rank = place is not None and place[1] > 1
    alone = dict(environment)
    if is_rank:  # a process that inherits a launcher's variables would take itself for one of its ranks
        alone = {name: value for name, value in environment.items() if not name.startswith(mpi_checks.OF_LAUNCHERS)}
    library = mpi_checks.probe_library(alone)
    yield mpi_checks.check_library(library)
    yield mpi_checks.check_threads(library)
    if place is not None and is_rank:
        yield mpi_checks.check_world(environment, place[1])
    else:
        launcher = mpi_checks.find_launcher_or_error(environment)
        yield mpi_checks.check_launcher(launcher, library)
        if isinstance(launcher, Launcher) and not library.problem:
            yield mpi_checks.check_ping_pong(launcher, environment)
            yield mpi_checks.check_oversubscription(launcher, environment, os.cpu_count() or 1)
    if (tasks := mpi_checks.check_tasks(environment, place[1] if place else None)) is not None:
        yield tasks


def check_python() -> Diagnosis:
    found = f"{platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return Diagnosis("python", Outcome.OK, found)


def check_packages() -> Iterator[Diagnosis]:
    """What this distribution requires, read from its own metadata."""
    try:
        required = [r for r in requires("demos-hpc") or [] if "extra ==" not in r]
    except PackageNotFoundError:
        yield Diagnosis("demos-hpc", Outcome.WARNING, "run from its sources, not installed", "pip install . (or -e .)")
        required = ["numpy", "mpi4py", "h5py", "cffi", "spython", "typer", "rich"]
    else:
        yield Diagnosis("demos-hpc", Outcome.OK, version("demos-hpc"))
    for requirement in required:
        name = re.split(r"[^\w.-]", requirement)[0]
        try:
            yield Diagnosis(name, Outcome.OK, version(name))
        except PackageNotFoundError:
            yield Diagnosis(name, Outcome.FAILED, "not installed", f"pip install '{requirement}'")


def check_optional() -> Iterator[Diagnosis]:
    for name, purpose in OPTIONAL.items():
        try:
            yield Diagnosis(name, Outcome.OK, version(name))
        except PackageNotFoundError:
            yield Diagnosis(name, Outcome.SKIPPED, f"not installed ({purpose})", f"if wanted: pip install {name}")


def check_shared_memory(place: Path) -> Diagnosis:
    try:
        status = os.statvfs(place)
    except OSError as error:
        return Diagnosis(str(place), Outcome.FAILED, str(error), "mount a tmpfs there: MPI and the service need it")
    free = status.f_bavail * status.f_frsize
    found = f"{free / 2**20:.0f} MiB free"
    if not os.access(place, os.W_OK):
        return Diagnosis(str(place), Outcome.FAILED, "not writable", f"chmod 1777 {place}")
    if free < SHARED_MEMORY:
        remedy = f"remove what dead jobs left in {place}, or enlarge it (docker: --shm-size=1g)"
        return Diagnosis(str(place), Outcome.FAILED, found, remedy)
    return Diagnosis(str(place), Outcome.OK, found)


def check_compiled_modules(config: Config) -> Diagnosis:
    if has_compiled_modules():
        return Diagnosis("compiled modules", Outcome.OK, "in use")
    remedy = "pip install demos-hpc where there are a C compiler and the headers of Python"
    try:
        left_out = [what for what in find_installation(config).left_out if what.startswith("compiled modules")]
    except DemosError:
        left_out = []
    if left_out:
        remedy += f"; left out were {left_out[0]}"
    return Diagnosis("compiled modules", Outcome.WARNING, "none, so that a request takes twice the time", remedy)


def check_libdemos(config: Config) -> Diagnosis:
    """For models in C, C++ and Fortran only."""
    from .native import open_library

    try:
        installation = find_installation(config)
        _, library = open_library(installation)
    except DemosError as error:
        return Diagnosis("libdemos", Outcome.SKIPPED, "none (for compiled models)", f"if wanted: {error}")
    built = f", built by {', '.join(installation.compilers)}" if installation.compilers else ""
    major, minor = divmod(library.demos_abi_version(), 1 << 16)
    ranks = "with libdemos_mpi" if installation.mpi else "no libdemos_mpi (`demos-hpc config --mpi --libs` says why)"
    return Diagnosis("libdemos", Outcome.OK, f"{installation.library}, demos.h {major}.{minor}{built}, {ranks}")


def check_compilers(environment: Mapping[str, str]) -> Iterator[Diagnosis]:
    """For models in C, C++ and Fortran only."""
    for name, package in COMPILERS.items():
        path = shutil.which(name, path=environment.get("PATH"))
        if path is None:
            yield Diagnosis(name, Outcome.SKIPPED, "none (for compiled models)", f"if wanted: install {package}")
            continue
        ended = mpi_checks.run([path, "--version"], environment)
        said = (ended.out or ended.err).splitlines()
        yield Diagnosis(name, Outcome.OK, said[0] if said else path)
