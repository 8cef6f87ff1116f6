"""``call --out file.h5``: results that are written while they are computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from ..arguments import Params
from ..client import RemoteModel
from ..columns import name_columns
from ..messages import Operation
from ..orders import write_results
from ..progress import show_progress
from ..row_files import is_row_file
from .arrays import read_params, read_rows_like
from .interruption import listen


def file_results(
    remote: RemoteModel,
    operation: Operation,
    out: Path,
    x: str | None,
    params: Sequence[str],
    n: int,
    seed: int | None,
    options: Mapping[str, Any],
    *,
    overwrite: bool,
) -> dict[str, Any]:
    """Writes what an operation returns, or goes on with it, and says on standard error what has become of it.

    Returns
    -------
    filed
        The same for JSON.
    """
    spec = remote.spec
    given: dict[str, Any] = {"params": _read_points(params, remote), "options": options}
    if operation is Operation.SAMPLE:
        given |= {"n": n, "seed": seed}
    elif operation is not Operation.EVALUATE and x is not None:
        given["x"] = x if is_row_file(x) else read_rows_like(x, spec)
    with show_progress(f"{spec.name} {operation.title}") as progress, listen() as interruption:
        given |= {"overwrite": overwrite, "progress": interruption.checked(progress), "tell": _tell}
        written = write_results(remote, operation, out, **given)
    if written.nonfinite_rows:
        _tell(f"{written.nonfinite_rows} rows answered with nan or +inf")
    if not written.was_complete:
        _tell(f"written to {out}: {written.rows} rows of {operation.title}")
    return {
        "model": spec.name,
        "version": spec.version,
        "operation": operation.title,
        "file": str(out),
        "dataset": operation.title,
        "rows": written.rows,
        "resumed_at": written.resumed_at,
        "nonfinite_rows": written.nonfinite_rows,
        "columns": [column.name for column in name_columns(spec, operation, options.get("wrt", "params"))],
    }


def _tell(text: str) -> None:
    typer.echo(text, err=True)


def _read_points(words: Sequence[str], remote: RemoteModel) -> Params:
    """Points from a file, in parts; otherwise as for all results."""
    is_file = len(words) == 1 and is_row_file(words[0])
    return words[0] if is_file else read_params(words, remote.spec, remote.params)
