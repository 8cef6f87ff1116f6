"""The command line, one module for each family of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from ..version import __version__
from . import (
    batch,
    compiling,
    data,
    examination,
    figures,
    images,
    launches,
    operations,
    operators,
    scaling,
    servers,
    usage,
    watching,
)
from .group import Commands

__all__ = ["app", "main"]

app = typer.Typer(
    name="demos-hpc",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for family in (
    launches,
    servers,
    operators,
    watching,
    operations,
    data,
    examination,
    compiling,
    figures,
    images,
    batch,
    scaling,
    usage,
):
    family.register(app)


@app.callback()
def describe(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", is_eager=True, callback=lambda v: _show_version(v)
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole Python traceback of an error.")] = False,
) -> None:
    """Serve probabilistic physics models over MPI, and call them with NumPy arrays."""


def main() -> None:
    """What ``demos-hpc`` runs."""
    app(prog_name="demos-hpc")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"demos-hpc {__version__}")
        raise typer.Exit
