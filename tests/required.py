"""What tests take that not every machine has; and what DEMOS_REQUIRE names, which has to be there.

A test that needs something that is not there is skipped and says so. Where all of it has to be there nothing is run
without: ``DEMOS_REQUIRE="cc compiled clang valgrind meson mpich fortran slurm apptainer"``.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from demos_hpc.errors import DemosError
from demos_hpc.installation import has_compiled_modules
from demos_hpc.mpiexec import find_launcher

#: Where `tests/testbed/testbed up` has put all of it.
TESTBED = Path(os.environ.get("DEMOS_TESTBED") or "/var/tmp/demos-testbed")
#: A root file system of an ordinary user's, to build images from.
DEBIAN = TESTBED / "images" / "debian"


def require(*names: str) -> None:
    """Skips the test where something is not there."""
    for name in names:
        if lack := find_lack(name):
            pytest.skip(lack)


def find_lack(name: str) -> str:
    """Why a program, or one of what has a name of its own here, is not there; "" where it is."""
    if name in ("mpich", "openmpi"):
        try:
            kind = find_launcher().kind
        except DemosError as error:
            return str(error)
        return "" if kind == name else f"the MPI here is {kind}, not {name}"
    if name == "compiled":
        return "" if has_compiled_modules() else "the package is interpreted: `demos-hpc doctor` says why"
    if name == "slurm":
        is_up = os.geteuid() == 0 and (TESTBED / "site.sh").is_file()
        return "" if is_up else "the testbed is not up, or this is not root: `tests/testbed/testbed up`"
    program = {"fortran": "gfortran"}.get(name, name)
    if find_tool(program) is None:
        return f"{program} is not installed"
    if name in ("apptainer", "buildah") and not DEBIAN.is_dir():
        return f"there is no root file system {DEBIAN}: `tests/testbed/testbed up` makes one"
    return ""


def find_lacks() -> list[str]:
    """Of what DEMOS_REQUIRE names."""
    names = os.environ.get("DEMOS_REQUIRE", "").replace(",", " ").split()
    return [f"{name}: {lack}" for name in names if (lack := find_lack(name))]


def find_tool(name: str) -> str | None:
    """The path of a program, be it beside this Python."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
