"""Where the C side of this installation is: header and library, and what was left out when it was built."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import wire
from .config import Config
from .errors import InvalidInput

PACKAGE = Path(__file__).resolve().parent
#: The repository, where the package is used from it.
SOURCE = PACKAGE.parent
HEADER = "demos.h"
#: Sources of the Fortran modules, in the order in which a compiler takes them; users have the last ones, `demos` and
#: `demos_mpi`.
FORTRAN = (
    *("demos_types.f90", "demos_library.f90", "demos_texts.f90", "demos_serving.f90"),
    *("demos_connecting.f90", "demos_calling.f90", "demos.f90"),
)
MPI_FORTRAN = "demos_mpi.f90"
LIBRARY = "libdemos.so"
#: What ranks of MPI launches need beside it.
MPI_LIBRARY = "libdemos_mpi.so"
#: What a system's own library is called, for the dynamic linker.
INSTALLED = "libdemos.so.1"
BUILT = "built.json"


@dataclass(frozen=True)
class Installation:
    """The C side, as far as it is there."""

    #: Directory of ``demos.h``.
    include: Path
    #: The library; without a directory where only the dynamic linker knows one.
    library: Path
    #: With what it was built, and what was left out and why; () where nobody wrote it down.
    compilers: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    #: Directory of libdemos_mpi, None where there is none, and what a compiler and a linker need to know of its MPI.
    mpi: Path | None = None
    mpi_cflags: tuple[str, ...] = ()
    mpi_libs: tuple[str, ...] = ()

    @property
    def cflags(self) -> str:
        """What a compiler needs to find the header."""
        return f"-I{self.include}"

    def find_fortran(self, *, mpi: bool) -> tuple[Path, ...]:
        """The sources of the module ``demos``, then of ``demos_mpi`` if wanted; installed beside the header."""
        beside = self.include if (self.include / FORTRAN[0]).is_file() else self.include.parent / "fortran"
        return tuple(beside / name for name in (*FORTRAN, *[MPI_FORTRAN] * mpi))

    @property
    def missing_libraries(self) -> str:
        """Which of the libraries were left out, and why."""
        return "; ".join(what for what in self.left_out if what.startswith("libdemos"))

    @property
    def is_bare(self) -> bool:
        """Whether only the dynamic linker knows where the library is, if there is one."""
        return self.library.parent == Path()

    @property
    def libs(self) -> str:
        """What a linker needs to find the library, and the program when it runs."""
        if self.is_bare:
            return "-ldemos"
        return f"-L{self.library.parent} -Wl,-rpath,{self.library.parent} -ldemos"

    def find_mpi(self) -> tuple[str, str]:
        """What a compiler and a linker need for ranks of MPI launches.

        Raises
        ------
        InvalidInput
            Where there is no libdemos_mpi.
        """
        if self.mpi is None:
            raise InvalidInput(
                f"this installation has no libdemos_mpi ({self.missing_libraries or 'it was built without MPI'}):"
                " install demos-hpc again where `mpicc` is found, in PATH or beside Python"
            )
        libs = f"-L{self.mpi} -Wl,-rpath,{self.mpi} -ldemos_mpi"
        return " ".join([self.cflags, *self.mpi_cflags]), " ".join([libs, self.libs, *self.mpi_libs])


def find_installation(config: Config) -> Installation:
    """The C side that this process uses.

    The library is, first of all, the one that ``DEMOS_LIBRARY`` names; then that of the installed package; then, where
    the package is used from its repository, that of ``meson setup build && ninja -C build`` or ``pip install -e .``;
    then the one that the dynamic linker knows. The header is the package's, or the repository's.

    Raises
    ------
    InvalidInput
        Where ``DEMOS_LIBRARY`` names no file.
    """
    includes = PACKAGE / "include", SOURCE / "csrc" / "include"
    include = next(place for place in includes if (place / HEADER).is_file())
    if config.library:
        if not Path(config.library).is_file():
            raise InvalidInput(f"DEMOS_LIBRARY names {config.library}, which is no file")
        return _describe(include, Path(config.library).resolve(), Path(config.library).parent)
    built = [SOURCE / "build" / "csrc", *sorted((SOURCE / "build").glob("cp*/csrc"))]
    for directory, record in [(PACKAGE / "lib", PACKAGE / "lib"), *((place, place.parent) for place in built)]:
        if (directory / LIBRARY).is_file():
            return _describe(include, directory / LIBRARY, record)
    return _describe(include, Path(INSTALLED), PACKAGE / "lib")


def has_compiled_modules() -> bool:
    """Whether the modules that every request goes through are compiled, and not interpreted."""
    return not str(wire.__file__).endswith(".py")


def _describe(include: Path, library: Path, record: Path) -> Installation:
    try:
        built = json.loads((record / BUILT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Installation(include, library)
    places = library.parent, library.parent / "mpi"
    mpi = next((place for place in places if (place / MPI_LIBRARY).is_file()), None)
    words = (_to_texts(built.get(name)) for name in ("compilers", "left_out", "mpi_cflags", "mpi_libs"))
    compilers, left_out, mpi_cflags, mpi_libs = words
    return Installation(include, library, compilers, left_out, mpi, mpi_cflags, mpi_libs)


def _to_texts(items: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(map(str, items or ()))
