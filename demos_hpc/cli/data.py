"""``data``: the datasets of a model: what there is, rows of them, and whether they are what they should be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.markup import escape
from rich.table import Table

from ..client import RemoteModel
from ..elements import read_dtype
from ..errors import DatasetError, InvalidInput
from ..model_paths import DATA_FILES
from ..programs import is_analysis
from ..progress import show_progress
from ..row_files import find_data_file
from .arrays import check_writable
from .brackets import EXAMPLES, read_key
from .choice import ModelOrServer, open_model
from .datasets import (
    count_bytes,
    format_shape,
    format_type,
    format_units,
    format_value,
    iterate_rows,
    tabulate,
    to_summary,
)
from .group import FAILURE
from .interruption import listen
from .launches import LauncherKind, start_again
from .output import make_console, make_table, print_json, to_plain
from .quantities import format_number_of, format_size

if TYPE_CHECKING:
    from .exports import Picked

#: Of what is read, as much is shown; all of it is in --json and --out.
MOST_ROWS, MOST_COLUMNS = 20, 8
OUT = (".npy", ".csv", *DATA_FILES)

Json = Annotated[bool, typer.Option("--json", help="JSON instead of tables.")]
Name = Annotated[str, typer.Argument(metavar="DATASET", help="As `data ls` has it.", show_default=False)]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", "-w", min=1, metavar="N", help="MPI workers of its own; by default a server's, else this process."
    ),
]

data = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")


def register(app: typer.Typer) -> None:
    for command in (ls, describe, read, verify, checksum):
        data.command()(command)
    help_ = "Datasets of a model, or of a file: what there is, rows of them, checksums."
    app.add_typer(data, name="data", help=help_, context_settings={"help_option_names": ["-h", "--help"]})


def ls(model: ModelOrServer, as_json: Json = False) -> None:
    """List the datasets of a model: shape, type, size, filters, units.

    demos-hpc data ls events.h5
    """
    with open_model(model) as remote:
        described = remote.describe_datasets()
        spec = remote.spec
    if as_json:
        print_json([to_summary(dataset) for dataset in described])
    elif described:
        make_console().print(tabulate(described, f"{spec.name} {spec.version}: {_count(described)}"))
    else:
        typer.echo(f"model {spec.name} has no datasets")


def _count(described: Sequence[Mapping[str, Any]]) -> str:
    sizes = [count_bytes(dataset) or 0 for dataset in described if "problem" not in dataset]
    return f"{format_number_of(len(described), 'dataset')}, {format_size(sum(sizes))}"


def describe(model: ModelOrServer, dataset: Name, as_json: Json = False) -> None:
    """Show what a dataset is: shape, type or fields with units, chunks, filters, attributes, checksum, license."""
    with open_model(model) as remote:
        from ..hdf5_format import read_attribute  # h5py takes its time

        described = remote.dataset(dataset, direct=False).described
        attributes = {name: read_attribute(value) for name, value in described["attrs"].items()}
    if as_json:
        print_json({**to_summary(described), "attrs": {name: _to_json(value) for name, value in attributes.items()}})
        return
    console = make_console()
    console.print(f"[bold]{escape(dataset)}[/] {escape(described['description'])}".rstrip())
    chunks = described["chunks"]
    has_fields = read_dtype(described["dtype"]).names is not None
    facts = {
        "path": described["path"],
        "shape": format_shape(described["shape"]),
        "type": "" if has_fields else format_type(described),
        "units": "" if has_fields else format_units(described["units"]),
        "size": format_size(count_bytes(described)),
        "chunks": "stored in one run" if chunks is None else format_shape(chunks),
        "filters": ", ".join(described["filters"]),
        "checksum": described["checksum"] or "none was declared: `demos-hpc data checksum` computes it",
        "license": described["license"],
    }
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if value:
            table.add_row(name, escape(value))
    console.print(table)
    if has_fields:
        console.print(_tabulate_fields(described))
    if attributes:
        shown = make_table("Attributes", "name", "value")
        for name, value in attributes.items():
            shown.add_row(escape(name), escape(_shorten(str(_to_json(value)))))
        console.print(shown)


def _tabulate_fields(described: Mapping[str, Any]) -> Table:
    units = described["units"]
    table = make_table("Fields", "name", "type", "unit")
    for name, kind, *shape in described["dtype"]:
        if not name:  # a gap
            continue
        unit = units if isinstance(units, str) else units.get(name, "")
        text = kind if isinstance(kind, str) else ", ".join(inner[0] for inner in kind)
        table.add_row(escape(name), escape(" ".join([text, *map(str, shape)])), escape(unit))
    return table


def _to_json(value: Any) -> Any:
    """An attribute or element as JSON has it."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if hasattr(value, "tolist"):
        plain = value.tolist()
        return to_plain(plain) if isinstance(plain, np.generic) else _to_json(plain)
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    return to_plain(value) if isinstance(value, str | int | float | bool | None) else str(value)


def _shorten(text: str, length: int = 400) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


# ---- rows -------------------------------------------------------------------------------------------------------


def read(
    context: typer.Context,
    model: ModelOrServer,
    dataset: Name,
    selection: Annotated[
        str,
        typer.Argument(
            metavar="[SELECTION]",
            help=f"As between brackets: {EXAMPLES}; behind `--` if it begins with '-': `-- -1`.",
            show_default=False,
        ),
    ] = "",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write it: .npy, .csv or .h5, in little memory.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace FILE, and what was begun with something else.")
    ] = False,
    workers: Workers = None,
    launcher: LauncherKind = "auto",
    as_json: Json = False,
) -> None:
    """Read rows of a dataset: show them, or write them to a file.

    demos-hpc data read events.h5 muons "energy, 0:5"
    """
    key = read_key(selection)
    if out is not None:
        check_writable(out, OUT, overwrite=overwrite)
    if workers and not is_analysis():
        start_again(context, model, workers, launcher)
    from .exports import Picked, export  # h5py takes its time

    with open_model(model) as remote:
        picked = Picked(remote.dataset(dataset), key, selection.strip())
        if out is not None:
            tell = partial(typer.echo, err=True)
            with show_progress(dataset) as progress, listen(at_once=not picked.dataset.is_direct) as interruption:
                written = export(picked, out, interruption.checked(progress), tell, overwrite=overwrite)
            if not written.was_complete:
                typer.echo(f"written to {out}: {format_number_of(len(picked), 'row')} of {dataset}", err=True)
            if as_json:
                done = {"file": str(out), "rows": written.rows, "resumed_at": written.resumed_at}
                print_json({**_name(dataset, selection, picked), **done})
        elif as_json:
            with show_progress(dataset) as progress, listen(at_once=not picked.dataset.is_direct) as interruption:
                rows = picked.read_all(interruption.checked(progress))
            values = rows if picked.cutting.axis is not None else rows[0]
            print_json({**_name(dataset, selection, picked), "values": _to_json(values)})
        else:
            _show(dataset, selection, picked)


def _name(dataset: str, selection: str, picked: Picked) -> dict[str, Any]:
    """What was read, for scripts."""
    return {"dataset": dataset, "selection": selection, "shape": list(picked.shape), "columns": picked.columns}


def _show(name: str, selection: str, picked: Picked) -> None:
    """A table, of one line for each row; a single row is turned upright."""
    console, n, columns = make_console(), len(picked), picked.columns
    units = picked.dataset.units
    title = escape(f"{name}[{selection.strip() or '...'}]") + (f"  {escape(units)}" if isinstance(units, str) else "")
    rows = list(iterate_rows(picked.read(0, min(n, MOST_ROWS))))

    def find_unit(column: str) -> str:
        return "" if isinstance(units, str) else units.get(column, "")

    if n == 1:
        shown = columns[:MOST_ROWS]
        table = make_table(title, "column", "unit", "value", numbers=[2])
        for column, value in zip(shown, rows[0], strict=False):
            table.add_row(escape(column), escape(find_unit(column)), escape(format_value(value)))
    else:
        shown = columns[:MOST_COLUMNS]
        heads = [f"{column}\n{find_unit(column)}".rstrip() for column in shown]
        table = make_table(title, "row", *map(escape, heads), numbers=range(len(shown) + 1))
        digits = 10 if len(shown) < 5 else 6
        for label, row in zip(picked.label(0, len(rows)), rows, strict=True):
            values = (_shorten(format_value(value, digits), 60) for value in row[: len(shown)])
            table.add_row(*map(escape, [label, *values]))
    console.print(table)
    if n > len(rows) or len(columns) > len(shown):
        console.print(f"{n} rows, {len(columns)} columns in all; --out FILE or --json gives them all")


# ---- checksums --------------------------------------------------------------------------------------------------


def verify(
    context: typer.Context,
    model: ModelOrServer,
    datasets: Annotated[
        list[str] | None, typer.Argument(metavar="[DATASET]...", help="All unless given.", show_default=False)
    ] = None,
    workers: Workers = None,
    launcher: LauncherKind = "auto",
    as_json: Json = False,
) -> None:
    """Have the workers compute checksums, and compare them with those that are declared.

    Exit status 1 where one differs, or a dataset cannot be read.

    demos-hpc data verify nu_atm
    """
    if workers and not is_analysis():
        start_again(context, model, workers, launcher)
    with open_model(model) as remote:
        names = datasets or list(remote.datasets)
        if not names:
            raise InvalidInput(f"model {remote.spec.name!r} has no datasets")
        if unknown := [name for name in names if name not in remote.datasets]:
            raise InvalidInput(f"there is no dataset {unknown[0]!r}; there are: {', '.join(remote.datasets)}")
        results = [_verify(remote, name) for name in names]
    if as_json:
        print_json(results)
    else:
        table = make_table(f"{remote.spec.name} {remote.spec.version}", "dataset", "", "checksum")
        for result in results:
            style = STYLES[result["result"]]
            checksum = escape(str(result["problem"] or result["found"]))
            if result["result"] == DIFFERS:
                checksum = f"declared {result['declared']}\nfound    {result['found']}"
            table.add_row(escape(result["dataset"]), f"[{style}]{result['result']}[/]", checksum)
        make_console().print(table)
    if any(result["result"] in (DIFFERS, FAILED) for result in results):
        raise typer.Exit(FAILURE)


#: What may be found out about a checksum, and how it is shown.
OK, DIFFERS, UNDECLARED, FAILED, EMPTY = "ok", "differs", "not declared", "failed", "empty"
STYLES = {OK: "green", DIFFERS: "bold red", UNDECLARED: "yellow", FAILED: "bold red", EMPTY: "dim"}


def _verify(remote: RemoteModel, name: str) -> dict[str, Any]:
    declared = next(dataset.checksum for dataset in remote.spec.datasets if dataset.name == name)
    found = problem = ""
    try:
        dataset = remote.dataset(name, direct=False)
        if dataset.shape is None and not declared:
            result = EMPTY
        else:
            with show_progress(name) as progress, listen() as interruption:
                found = dataset.compute_checksum(interruption.checked(progress))
            result = UNDECLARED if not declared else OK if found == declared else DIFFERS
    except (DatasetError, InvalidInput) as error:
        result, problem = FAILED, str(error)
    return {"dataset": name, "result": result, "declared": declared, "found": found, "problem": problem}


def checksum(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE.h5[:/NAME]", help="All datasets of it unless one is named.", show_default=False),
    ],
    as_json: Json = False,
) -> None:
    """Compute checksums of a file's datasets here, and print what to write into a model's spec.

    Exit status 1 where a dataset has none, or cannot be read; those of the others are printed.

    demos-hpc data checksum events.h5:/muons
    """
    from ..hdf5 import DataFile
    from ..library import compute_checksum
    from ..models.data import name_datasets

    found = find_data_file(file)
    if found is None:
        raise InvalidInput(
            f"{file!r} is no file of data: its name ends in {' or '.join(DATA_FILES)}, or has :/NAME behind"
        )
    path, inside = found
    opened = DataFile(path)
    try:
        names = [inside] if inside else opened.list_names()
    finally:
        opened.close()
    if not names:
        raise InvalidInput(f"{path} has no datasets")
    called, results = name_datasets(names), []
    for name in names:
        place = f"{path}:{name}"
        result = {"name": called[name], "path": place, "checksum": "", "problem": ""}
        try:
            with show_progress(place) as progress, listen(at_once=False) as interruption:
                result["checksum"] = compute_checksum(place, interruption.checked(progress))
        except (DatasetError, InvalidInput) as error:
            result["problem"] = str(error)
        results.append(result)
    if as_json:
        print_json(results)
    for result in results:
        if result["problem"]:
            of = "" if result["path"] in result["problem"] else f"{result['path']}: "
            typer.echo(f"demos-hpc: {of}{result['problem']}", err=True)
        elif not as_json:
            typer.echo(f'Dataset("{result["name"]}", "{result["path"]}", checksum="{result["checksum"]}"),')
    if any(result["problem"] for result in results):
        raise typer.Exit(FAILURE)
