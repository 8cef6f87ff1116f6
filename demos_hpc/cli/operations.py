"""``call``: one operation of a model from the shell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.markup import escape

from ..arguments import Params
from ..client import RemoteModel
from ..columns import name_columns, stack
from ..future import Future
from ..messages import FloatArray
from ..messages import Operation as Asked
from ..model_paths import DATA_FILES
from ..programs import is_analysis
from ..progress import show_progress
from ..spec import ModelSpec
from ..submit import Progress
from .arrays import check_apart, check_writable, read_params, read_rows_like, write_array
from .choice import ModelOrServer, open_model
from .launches import LauncherKind, start_again
from .output import format_number, make_console, make_table, print_json

#: Of a result, as much is shown; all of it is in --json and --out.
MOST_ROWS, MOST_COLUMNS = 20, 8
OUT = (".npy", ".csv", ".json", *DATA_FILES)


class Operation(StrEnum):
    """What may be called."""

    LOG_DENSITY = "log_density"
    LOG_DENSITY_GRADIENT = "log_density_gradient"
    LOG_LIKELIHOOD = "log_likelihood"
    LOG_LIKELIHOOD_GRADIENT = "log_likelihood_gradient"
    SAMPLE = "sample"
    EVALUATE = "evaluate"

    @property
    def takes_x(self) -> bool:
        return self not in (Operation.SAMPLE, Operation.EVALUATE)

    @property
    def is_gradient(self) -> bool:
        return self in (Operation.LOG_DENSITY_GRADIENT, Operation.LOG_LIKELIHOOD_GRADIENT)


class Wrt(StrEnum):
    """What a gradient is taken with respect to."""

    PARAMS = "params"
    X = "x"


def register(app: typer.Typer) -> None:
    app.command()(call)


def call(
    context: typer.Context,
    model: ModelOrServer,
    operation: Annotated[
        Operation, typer.Argument(metavar="OPERATION", help=" | ".join(Operation), show_default=False)
    ],
    x: Annotated[
        str | None,
        typer.Option("--x", metavar="DATA", help='x.npy, x.csv, x.h5:/name, or rows of numbers: "10,-0.9; 20,-0.5".'),
    ] = None,
    params: Annotated[
        list[str] | None,
        typer.Option(
            "--params",
            "-p",
            metavar="NAME=VALUE",
            help="Or a file, .json, .npy, .csv, .h5; may be repeated. Others: defaults.",
        ),
    ] = None,
    n: Annotated[int, typer.Option("--n", metavar="N", help="Draws of sample.")] = 10,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Of sample; another one each time if it is not given.")
    ] = None,
    wrt: Annotated[Wrt, typer.Option("--wrt", help="Gradient of log_density with respect to these.")] = Wrt.PARAMS,
    differences: Annotated[
        bool, typer.Option("--finite-difference", help="Gradient from differences, for models that offer none.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            "-w",
            min=0,
            metavar="N",
            help="MPI workers of its own; 0: in this process, without MPI. By default a server that runs, else 0.",
        ),
    ] = None,
    launcher: LauncherKind = "auto",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Write the result: .npy, .csv or .json; .h5: in parts, and the same again goes on after a stop.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace FILE, and what was begun with something else.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """Call one operation of a model: at a running server of this name, if there is one, else in this process.

    demos-hpc call nu_atm log_density --x "10,-0.9; 20,-0.5" --params s23sq=0.5
    """
    if operation.takes_x and x is None:
        raise typer.BadParameter(f"{operation} needs data: --x x.npy, --x x.csv, or --x '10,-0.9; 20,-0.5'")
    if differences and not operation.is_gradient:
        raise typer.BadParameter(f"{operation} is no gradient: leave --finite-difference out")
    if out is not None:
        check_writable(out, OUT, overwrite=overwrite)
        check_apart(out, model, x or "", *(params or []))
    if workers and not is_analysis():
        start_again(context, model, workers, launcher)
    if out is not None and out.suffix in DATA_FILES:
        from .results import file_results  # h5py takes its time

        options = {"method": "finite-difference"} if differences else {}
        if operation is Operation.LOG_DENSITY_GRADIENT:
            options["wrt"] = str(wrt)
        with open_model(model, workers) as remote:
            filed = file_results(
                remote, Asked[operation.name], out, x, params or [], n, seed, options, overwrite=overwrite
            )
        if as_json:
            print_json(filed)
        return
    with open_model(model, workers) as remote:
        spec, defaults = remote.spec, remote.params
        point = read_params(params or [], spec, defaults)
        data = read_rows_like(x, spec) if operation.takes_x and x is not None else None
        with show_progress(f"{spec.name} {operation}") as progress:
            future = _submit(remote, operation, data, point, n, seed, wrt, progress, differences=differences)
            result = future.result()
    columns = name_columns(spec, Asked[operation.name], str(wrt))
    answer = {
        "model": spec.name,
        "version": spec.version,
        "operation": operation,
        "params": dict(zip(spec.param_names, defaults, strict=True)) if point is None else point,
        "seed": future.seed if operation is Operation.SAMPLE else None,
        "nonfinite_rows": future.nonfinite_rows,
        "columns": [name for name, _ in columns],
        "result": dict(zip(("value", "gradient"), result, strict=True)) if isinstance(result, tuple) else result,
    }
    array = stack(result)
    if out is not None:
        write_array(out, [name for name, _ in columns], array, answer, overwrite=overwrite)
    if as_json:
        print_json(answer)
    else:
        rows = array.reshape(-1, len(columns)) if columns else array
        _show(f"{spec.name} {spec.version}: {operation}", spec, data, columns, rows)
        _show_remarks(answer, out)


def _submit(
    remote: RemoteModel,
    operation: Operation,
    data: FloatArray | None,
    point: Params,
    n: int,
    seed: int | None,
    wrt: Wrt,
    progress: Progress,
    *,
    differences: bool,
) -> Future:
    submit = remote.submit
    if operation is Operation.SAMPLE:
        return submit.sample(n, point, seed=seed, progress=progress)
    if operation is Operation.EVALUATE:
        return submit.evaluate(point, progress=progress)
    options: dict[str, Any] = {"method": "finite-difference"} if differences else {}
    if operation is Operation.LOG_DENSITY_GRADIENT:
        options["wrt"] = str(wrt)
    request: Callable[..., Future] = getattr(submit, operation)
    return request(data, point, progress=progress, **options)


def _show(
    title: str, spec: ModelSpec, data: FloatArray | None, columns: Sequence[tuple[str, str]], rows: FloatArray
) -> None:
    """A table, of one line for each row; a single row is turned upright."""
    console = make_console()
    if len(rows) == 1:
        table = make_table(title, "name", "unit", "value", numbers=[2])
        for (name, unit), value in zip(columns, rows[0].tolist(), strict=True):
            table.add_row(escape(name), escape(unit), format_number(value))
        console.print(table)
        return
    if data is not None and len(data) == len(rows):
        columns = [*((o.name, o.unit) for o in spec.observables), *columns]
        rows = np.concatenate([data, rows], axis=1)
    shown = columns[:MOST_COLUMNS]
    heads = [f"{name}\n{'' if unit == '1' else unit}".rstrip() for name, unit in shown]
    table = make_table(title, "row", *map(escape, heads), numbers=range(len(shown) + 1))
    digits = 10 if len(shown) < 5 else 6
    for nth, row in enumerate(rows[:MOST_ROWS, : len(shown)].tolist()):
        table.add_row(str(nth), *(format_number(value, digits) for value in row))
    console.print(table)
    if rows.shape[0] > MOST_ROWS or len(columns) > len(shown):
        console.print(f"{len(rows)} rows, {len(columns)} columns in all; --out FILE or --json gives them all")


def _show_remarks(answer: dict[str, Any], out: Path | None) -> None:
    console = make_console()
    if answer["seed"] is not None:
        console.print(f"seed {answer['seed']}")
    if answer["nonfinite_rows"]:
        console.print(f"{answer['nonfinite_rows']} rows answered with nan or +inf", style="yellow")
    if out is not None:
        console.print(f"written to {escape(str(out))}")
