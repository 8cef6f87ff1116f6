"""``demo`` and ``bench``: what is worth a picture."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..bench import Row, compare, find_benchmarks, run_benchmark
from ..demo import FREE, GRID, MODEL, QUICK_GRID, Demo, Report, check_needs
from ..errors import InvalidInput, LaunchError
from ..programs import connect, is_analysis
from .arrays import check_writable
from .group import FAILURE
from .launches import LauncherKind, start_again
from .output import make_console, make_table


def register(app: typer.Typer) -> None:
    app.command()(demo)
    app.command()(bench)


def demo(
    context: typer.Context,
    events: Annotated[
        int, typer.Option("--events", min=100, metavar="N", help="How many are drawn and fitted.")
    ] = 3000,
    workers: Annotated[int, typer.Option("--workers", "-w", min=1, metavar="N", help="MPI workers.")] = 2,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Names the events.")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="A coarser contour.")] = False,
    launcher: LauncherKind = "auto",
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The picture.")] = Path("demo.png"),
) -> None:
    """Fit neutrino oscillations to events drawn from a served model, over MPI, and draw the result.

    Serves nu_atm with some workers, draws events from it, fits four parameters with iminuit by the log-likelihood and
    its gradient, scans the likelihood around the fit, and writes a table and a PNG. Takes about a minute.
    """
    check_needs()
    check_writable(out, (".png", ".pdf", ".svg"))
    if not is_analysis():
        start_again(context, MODEL, workers, launcher)
    from ..demo import run
    from ..plots import draw_demo

    begin = time.monotonic()
    model = connect()
    with _show_steps() as report:
        found = run(model, events, seed, report, QUICK_GRID if quick else GRID)
    draw_demo(found, out)
    console = make_console()
    console.print(_tabulate(found))
    served = model.metadata()
    console.print(
        f"{events:,} events, {served['workers']} worker(s), {served['statistics']['rows']:,} rows of the model in"
        f" {time.monotonic() - begin:.1f} s; picture in {escape(str(out))}"
    )


def _tabulate(found: Demo) -> Table:
    fit = found.fit
    table = make_table("Fit", "parameter", "truth", "fit", "error", "pull", numbers=(1, 2, 3, 4))
    table.caption = f"ln L = {fit.log_likelihood:.2f}, {fit.calls} calls"
    for name, truth, value, error, pull in zip(FREE, fit.truth, fit.values, fit.errors, fit.pulls, strict=True):
        table.add_row(name, f"{truth:.4g}", f"{value:.4g}", f"± {error:.2g}", f"{pull:+.2f}")
    return table


@contextmanager
def _show_steps() -> Iterator[Report]:
    """A bar for each step, on standard error."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:<42}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:

        def report(name: str, done: int, total: int) -> None:
            step = name.split(",")[0]
            if step not in tasks:
                for earlier in tasks.values():  # the total of a fit is known when the next step begins
                    task = progress.tasks[earlier]
                    progress.update(earlier, total=task.completed)
                tasks[step] = progress.add_task(name, total=total or None)
            progress.update(tasks[step], description=name, completed=done, total=total or None)

        yield report


def bench(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAMES", help="Which; all if none is given.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Less than a minute each.")] = False,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="For figures.json and the plots.")] = Path(
        "bench"
    ),
) -> None:
    """Run the benchmarks of a source checkout, and draw their figures.

    Exit status 1 where one of them failed; a figure that is not reached is shown, and no failure.
    """
    paths = find_benchmarks(names or [])
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{out} cannot be made: {error}") from None
    console, reports, failures = make_console(), [], []
    for path in paths:
        console.rule(path.stem)
        try:
            reports.append(run_benchmark(path, quick=quick, listen=_make_listener(console)))
        except LaunchError as error:
            typer.echo(f"demos-hpc: {error}", err=True)
            failures.append(path.stem)
    rows = compare(reports)
    console.print(_tabulate_figures(rows))
    plain = [{"benchmark": r.benchmark, "figures": r.figures, "machine": r.machine} for r in reports]
    (out / "figures.json").write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
    _draw(rows, out, console)
    if failures:
        typer.echo(f"demos-hpc: failed: {', '.join(failures)}", err=True)
        raise typer.Exit(FAILURE)


def _make_listener(console: Console) -> Callable[[str], None]:
    """Passes on what is for people; the last line is for us."""
    return lambda line: None if line.startswith('{"benchmark"') else console.print(line, markup=False)


def _tabulate_figures(rows: list[Row]) -> Table:
    table = make_table("Figures", "benchmark", "figure", "value", "wanted", "", numbers=(2,))
    for row in rows:
        if row.margin is None:  # the benchmark's own columns have shown it
            continue
        mark = "[green]reached[/]" if row.margin >= 1 else "[yellow]not reached[/]"
        table.add_row(escape(row.benchmark), escape(row.key), f"{row.value:.4g}", str(row.wanted), mark)
    return table


def _draw(rows: list[Row], out: Path, console: Console) -> None:
    try:
        from ..bench_plots import draw_efficiency, draw_figures, draw_wire

        figures = {row.key: row.value for row in rows}
        draw_figures(rows, out / "figures.png")
        draw_efficiency(figures, out / "efficiency.png")
        draw_wire(figures, out / "wire.png")
    except ModuleNotFoundError as error:
        console.print(f"no plots: {error.name} is not installed; pip install 'demos-hpc\\[plot]'")
    console.print(f"figures in {escape(str(out))}: {', '.join(sorted(path.name for path in out.iterdir()))}")
