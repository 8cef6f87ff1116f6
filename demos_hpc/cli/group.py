"""How all commands behave: errors are one line, and a command knows the words it was called with."""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from ..errors import DemosError, RegistryError, RemoteTraceback
from ..model import format_traceback

#: Where the words of the command line are kept in a context, for commands that start themselves again under MPI.
WORDS = "demos_hpc.words"
FAILURE = 1


class Commands(TyperGroup):
    """Shows errors of this package as one line, behind the traceback of a model where one raised."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[WORDS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except DemosError as error:
            if ctx.params.get("debug"):
                raise
            show_error(error)
            raise typer.Exit(FAILURE) from None


def show_error(error: DemosError) -> None:
    """The error in one line on standard error, below what the model itself said."""
    sys.stdout.flush()
    cause = error.__cause__
    if cause is not None and not isinstance(error, RegistryError):  # which says all there is to know
        text = str(cause) if isinstance(cause, RemoteTraceback) else format_traceback(error)
        print(text.strip(), file=sys.stderr)
    # In one write, or what others say at the same time comes in between where Python does not buffer.
    print(f"demos-hpc: {error}\n", end="", file=sys.stderr, flush=True)


class WithScript(TyperCommand):
    """A command whose last arguments are a script and what belongs to the script, options included."""

    #: Which argument the script is.
    nth = 2

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        flags = {name for p in self.get_params(ctx) if getattr(p, "is_flag", False) for name in p.opts}
        return super().parse_args(ctx, mark_script(args, flags | {"-h", "--help"}, self.nth))


def mark_script(words: list[str], flags: set[str], wanted: int = 2) -> list[str]:
    """Puts ``--`` before the second word that is neither option nor an option's value; ``flags`` take no value.

    With ``wanted`` it is another than the second.

    >>> mark_script(["model", "--workers", "3", "fit.py", "--workers", "9"], set())
    ['model', '--workers', '3', '--', 'fit.py', '--workers', '9']
    """
    n_arguments = nth = 0
    while nth < len(words):
        word = words[nth]
        if word == "--":
            return words
        if word.startswith("-") and word != "-":
            nth += 1 if word in flags or "=" in word else 2
            continue
        n_arguments += 1
        if n_arguments == wanted:
            return [*words[:nth], "--", *words[nth:]]
        nth += 1
    return words
