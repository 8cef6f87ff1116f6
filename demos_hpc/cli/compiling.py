"""``config`` and ``new``: what a compiler needs to know, and a folder to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..config import Config
from ..errors import DemosError
from ..installation import MPI_LIBRARY, find_installation, has_compiled_modules
from ..scaffold import LANGUAGES, make_folder
from .examination import Json
from .output import print_json


def register(app: typer.Typer) -> None:
    app.command()(config)
    app.command()(new)


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the model is called.", show_default=False)],
    language: Annotated[
        str, typer.Option("--language", metavar="LANGUAGE", help=f"Its language: {', '.join(LANGUAGES)}.")
    ] = "python",
    folder: Annotated[
        Path | None, typer.Option("--folder", metavar="PATH", help="Where to; ./NAME unless given.", show_default=False)
    ] = None,
) -> None:
    """Begin a model: a folder that builds and serves a Gaussian, to be replaced by your own.

    demos-hpc new --language fortran decay
    """
    made = make_folder(language, name, folder or Path(name))
    for path in made:
        typer.echo(path)
    typer.echo(f"{made[0].parent / 'README.md'} says what to do with them", err=True)


def config(
    cflags: Annotated[bool, typer.Option("--cflags", help="Only what finds the header: -I...")] = False,
    libs: Annotated[bool, typer.Option("--libs", help="Only what links a program or library: -L... -ldemos")] = False,
    fortran: Annotated[bool, typer.Option("--fortran", help="Only the sources of the Fortran modules.")] = False,
    mpi: Annotated[bool, typer.Option("--mpi", help="For programs that are ranks of MPI launches.")] = False,
    as_json: Json = False,
) -> None:
    """Say where the header and the library for models in C, C++ and Fortran are, and what was left out when built.

    cc -shared -fPIC -O2 $(demos-hpc config --cflags) my_model.c -o libmy_model.so $(demos-hpc config --libs)

    gfortran -shared -fPIC $(demos-hpc config --fortran) my_model.f90 -o libmy_model.so $(demos-hpc config --libs)

    c++ -O2 $(demos-hpc config --mpi --cflags) my_server.cpp -o my_server $(demos-hpc config --mpi --libs)
    """
    from ..native import open_library

    installation = find_installation(Config.load())
    problem: DemosError | None = None
    try:
        open_library(installation)
    except DemosError as error:
        problem = error
    if problem is not None and libs:
        raise problem
    to_compile, to_link = installation.find_mpi() if mpi else (installation.cflags, installation.libs)
    sources = " ".join(map(str, installation.find_fortran(mpi=mpi)))
    if cflags or libs or fortran:
        typer.echo(" ".join([to_compile] * cflags + [sources] * fortran + [to_link] * libs))
        return
    found = {
        "include": str(installation.include),
        "library": None if problem else str(installation.library),
        "library_mpi": None if installation.mpi is None else str(installation.mpi / MPI_LIBRARY),
        "cflags": to_compile,
        "libs": None if problem else to_link,
        "fortran": sources,
        "modules": "compiled" if has_compiled_modules() else "interpreted",
        "compilers": list(installation.compilers),
        "left_out": list(installation.left_out),
    }
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        text = "; ".join(value) if isinstance(value, list) else value
        if text:
            typer.echo(f"{name:12} {text}")
    if problem is not None:
        typer.echo(f"{'library':12} none: {problem}")
