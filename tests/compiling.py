"""Compilers, and what tests build with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from required import find_tool, require

from demos_hpc.config import Config
from demos_hpc.installation import find_installation

ROOT = Path(__file__).parents[1]
CSRC = ROOT / "csrc"
EXAMPLES = CSRC / "examples"
MODELS = CSRC / "tests" / "models"
STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")
STRICT_FORTRAN = ("-std=f2008", *STRICT, "-Wconversion")
#: One formula has the same bits in every language, also where a processor multiplies and adds in one step.
ROUNDED = "-ffp-contract=off"


def run(command: Sequence[Any], **options: Any) -> str:
    """The output of a command that has to succeed."""
    done = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **options,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}"
    return done.stdout


def build(directory: Path, *options: str, compiler: str = "cc") -> Path:
    """The C side, built by meson in ``directory``, which it returns; warnings are errors."""
    require("meson", "ninja", compiler)
    environment = {**os.environ, "CC": compiler, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    run([find_tool("meson"), "setup", directory, ROOT, "-Dwerror=true", *options], env=environment)
    run([find_tool("ninja"), "-C", directory], env=environment)
    return directory


class Workshop:
    """Makes libraries and programs out of models in C and C++; each of them once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._made: dict[tuple[Path, tuple[str, ...], str], Path] = {}
        self._linked: dict[tuple[tuple[Path, ...], str, bool], Path] = {}

    def make(self, source: Path, *flags: str, compiler: str = "cc", linked: bool = True) -> Path:
        """The library of one file of C, ``libNAME.so`` in a directory of its own; linked with libdemos if wanted."""
        key = (source, flags, f"{compiler} {linked}")
        if key not in self._made:
            require(compiler)
            library = Path(tempfile.mkdtemp(dir=self.directory)) / f"lib{source.stem}.so"
            installation = find_installation(Config.load())
            libs = installation.libs.split() if linked else []
            standard = ("-x", "c++", "-std=c++17") if compiler.endswith("++") else ("-std=c11",)
            kind = ("-shared", "-fPIC", "-O2", "-g", ROUNDED)
            found = ("-I", str(installation.include))
            run([compiler, *standard, *STRICT, *kind, *found, *flags, source, "-o", library, *libs, "-lm"])
            self._made[key] = library
        return self._made[key]

    def link(self, *sources: Path, compiler: str = "cc", mpi: bool = True) -> Path:
        """The program of some sources, called as the first of them; with libdemos_mpi, or with libdemos alone."""
        key = (sources, compiler, mpi)
        if key not in self._linked:
            require(compiler, *["mpicc"] * mpi)
            program = Path(tempfile.mkdtemp(dir=self.directory)) / sources[0].stem
            installation = find_installation(Config.load())
            cflags, libs = installation.find_mpi() if mpi else (installation.cflags, installation.libs)
            standard = "-std=c++17" if compiler.endswith("++") else "-std=c11"
            options = (standard, *STRICT, "-O2", "-g", ROUNDED, *["-DDEMOS_WITHOUT_MPI"] * (not mpi))
            run([compiler, *options, *cflags.split(), *sources, "-o", program, *libs.split(), "-lm"])
            self._linked[key] = program
        return self._linked[key]

    def describe(self, library: Path, file: str = "model.json", /, **entries: Any) -> str:
        """``library:description``, with a description of these entries beside the library."""
        path = library.with_name(file)
        path.write_text(json.dumps(entries), encoding="utf-8")
        return f"{library}:{path}"


class Mold:
    """Makes programs and libraries of Fortran; each of them once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._made: dict[tuple[str, tuple[Path, ...], tuple[str, ...]], Path] = {}

    def make(self, name: str, *sources: Path, mpi: bool = False, flags: tuple[str, ...] = ()) -> Path:
        """A library where the name is ``libNAME.so``, else a program, by the commands that users have.

        Sources may be objects as well.
        """
        key = (name, sources, flags)
        if key not in self._made:
            require("gfortran", *["mpicc"] * mpi)
            installation = find_installation(Config.load())
            libs = installation.find_mpi()[1] if mpi else installation.libs
            modules = installation.find_fortran(mpi=mpi)
            made = Path(tempfile.mkdtemp(dir=self.directory)) / name
            kind = ("-shared", "-fPIC") if made.suffix == ".so" else ()
            options = (*STRICT_FORTRAN, "-O2", "-g", ROUNDED, *flags, *kind, "-J", made.parent)
            run(["gfortran", *options, *modules, *sources, "-o", made, *libs.split()])
            self._made[key] = made
        return self._made[key]
