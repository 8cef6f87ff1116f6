"""What commands show: tables and bars for people, JSON for scripts."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

#: Columns of text, where standard output is no terminal and nobody said how wide it is.
WIDTH_OF_FILES = 120


def make_console() -> Console:
    """For results."""
    console = Console(highlight=False)
    if console.is_terminal or "COLUMNS" in os.environ:
        return console
    return Console(highlight=False, width=WIDTH_OF_FILES)


def make_table(title: str, *columns: str, numbers: Sequence[int] = ()) -> Table:
    """A table, with the columns ``numbers`` set to the right."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for nth, column in enumerate(columns):
        table.add_column(column, justify="right" if nth in numbers else "left", overflow="fold")
    return table


def format_number(value: float | None, digits: int = 10) -> str:
    """So many significant digits at most; nothing where there is no number."""
    return "" if value is None else f"{value:.{digits}g}"


def print_json(value: Any) -> None:
    """Standard JSON on standard output; nan and infinities, which JSON has not, become "nan", "inf", "-inf"."""
    typer.echo(json.dumps(to_plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def to_plain(value: Any) -> Any:
    """The same in what JSON knows."""
    if isinstance(value, Mapping):
        return {str(name): to_plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        plain = value.tolist()
        return _to_double(plain) if isinstance(plain, np.generic) else to_plain(plain)
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, str | int | float | bool | None):
        return value
    if isinstance(value, Sequence | set | frozenset):
        return [to_plain(item) for item in value]
    return str(value)


def _to_double(value: Any) -> Any:
    """A number that Python has not, such as a long double, as the nearest that it has."""
    if isinstance(value, np.complexfloating):
        return str(complex(value))
    if isinstance(value, np.floating):
        number = float(value)
        return str(value) if math.isinf(number) and np.isfinite(value) else to_plain(number)
    return str(value)
