"""``info``, ``check`` and ``doctor``: what a model says of itself, whether it is right, whether the installation is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..client import RemoteModel
from ..diagnosis import Diagnosis
from ..local import local
from ..model import load
from ..spec import ModelSpec, Observable, Parameter
from ..verdict import Outcome, Verdict
from ..watchdog import find_rank_and_size
from .choice import ModelOrServer, find_served, load_here
from .datasets import tabulate, to_summary
from .group import FAILURE
from .launches import Model
from .output import format_number, make_console, make_table, print_json

#: Seconds that workers have to say what datasets are; they may be inside a chunk for long.
PATIENCE = 10.0
#: Rows of a table of outputs; a spectrum may have thousands.
MOST_OUTPUTS = 12
STYLES = {Outcome.OK: "green", Outcome.WARNING: "yellow", Outcome.FAILED: "bold red", Outcome.SKIPPED: "dim"}
Json = Annotated[bool, typer.Option("--json", help="JSON instead of tables.")]


def register(app: typer.Typer) -> None:
    for command in (info, check, doctor):
        app.command()(command)


def info(model: ModelOrServer, as_json: Json = False) -> None:
    """Show what a model says of itself: parameters, observables, datasets, operations, authors.

    Of a running server also what it has: workers, and parameters that were changed there.
    """
    served = find_served(model)
    server: dict[str, Any] = {}
    if served is None:
        loaded = load_here(model)
        spec = loaded.spec
        described = local(loaded).describe_datasets() if spec.datasets else []
    else:
        with served:
            spec, server, described = served.spec, _describe_server(served), _ask_for_datasets(served)
    if as_json:
        datasets = [to_summary(dataset) for dataset in described]
        print_json({**spec.to_dict(), "datasets": datasets, **({"server": server} if server else {})})
        return
    console = make_console()
    console.print(f"[bold]{escape(spec.name)}[/] {spec.version}")
    if spec.description:
        console.print(escape(spec.description))
    for title, columns in (("Parameters", spec.parameters), ("Observables", spec.observables)):
        if columns:
            console.print(_tabulate_columns(title, columns))
    if spec.outputs:
        console.print(_tabulate_outputs(spec))
    if described:
        console.print(tabulate(described))
    console.print(_tabulate_facts(spec, server))


def _ask_for_datasets(served: RemoteModel) -> list[dict[str, Any]]:
    """What a worker says of the datasets, or what is declared where none has the time."""
    try:
        return served.describe_datasets(timeout=PATIENCE)
    except TimeoutError:
        problem = f"no worker has answered within {PATIENCE:g} s"
        return [{**asdict(dataset), "problem": problem} for dataset in served.spec.datasets]


def _describe_server(served: RemoteModel) -> dict[str, Any]:
    """What differs from server to server."""
    told, defaults = served.metadata(), served.spec.defaults.tolist()
    names = zip(served.spec.param_names, defaults, strict=True)
    before = {name: None if math.isnan(value) else value for name, value in names}
    changed = {name: value for name, value in told["params"].items() if value != before[name]}
    return {"workers": told["workers"], "revision": told["revision"], "changed": changed}


def _tabulate_columns(title: str, columns: Sequence[Parameter | Observable]) -> Table:
    has_defaults = isinstance(columns[0], Parameter)
    heads = ["name", "unit", *(["default"] if has_defaults else []), "lower", "upper", "description"]
    table = make_table(title, *heads, numbers=range(2, len(heads) - 1))
    for c in columns:
        numbers = [c.default, c.lower, c.upper] if isinstance(c, Parameter) else [c.lower, c.upper]
        table.add_row(escape(c.name), escape(c.unit), *map(format_number, numbers), escape(c.description))
    return table


def _tabulate_outputs(spec: ModelSpec) -> Table:
    table = make_table("Outputs of evaluate", "name", "unit", "description")
    for output in spec.outputs[:MOST_OUTPUTS]:
        table.add_row(escape(output.name), escape(output.unit), escape(output.description))
    if spec.n_outputs > MOST_OUTPUTS:
        table.add_row(f"… {spec.n_outputs - MOST_OUTPUTS} more", "", "--json shows all")
    return table


def _tabulate_facts(spec: ModelSpec, server: dict[str, Any]) -> Table:
    promises = {
        "block_rows": spec.block_rows,
        "rows": "independent" if spec.row_independent else "depend on those beside them: called block by block",
        "params": "one point per row if wanted" if spec.params_per_row else "one point per call",
        "draws": "the same for the same seed" if spec.reproducible else "of a generator of its own: no seed",
    }
    facts = {
        "operations": ", ".join(spec.operations),
        "uuid": spec.uuid,
        "license": spec.license,
        "authors": ", ".join(spec.authors),
        "citation": spec.citation,
        "promises": promises if spec.observables or spec.outputs else {},
        "resources": spec.resources,
        "notes": spec.notes,
        "server": {name: value for name, value in server.items() if value},
    }
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if value:
            table.add_row(name, escape(_to_text(value)))
    return table


def _to_text(value: Any, depth: int = 0) -> str:
    """Nested notes as indented lines."""
    if isinstance(value, dict):
        lines = []
        for name, item in value.items():
            text = _to_text(item, depth + 1)
            lines.append(f"{'  ' * depth}{name}: " + (f"\n{text}" if isinstance(item, dict) else text))
        return "\n".join(lines)
    if isinstance(value, list | tuple):
        return ", ".join(_to_text(item) for item in value)
    return format_number(value) if isinstance(value, float) else str(value)


def check(
    model: Model,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Names every random choice.")] = 0,
    max_rows: Annotated[
        int, typer.Option("--max-rows", min=1, help="Rows per parameter point for integrals; less for a slow model.")
    ] = 400_000,
    n_draws: Annotated[int, typer.Option("--draws", min=2, help="Draws per parameter point.")] = 16384,
    tolerance: Annotated[float, typer.Option("--tolerance", help="How far an integral may be from 1.")] = 1e-4,
    as_json: Json = False,
) -> None:
    """Hold a model to the contract: shapes, normalization, gradients, sampler; exit status 1 where it fails."""
    from ..testing import check_model

    loaded = load(model)
    with Console(stderr=True).status(f"checking {escape(loaded.spec.name)} …"):
        verdict = check_model(loaded, seed=seed, max_rows=max_rows, n_draws=n_draws, tolerance=tolerance)
    if as_json:
        print_json(verdict.to_dict())
    else:
        show_verdict(verdict)
    if not verdict.passed:
        raise typer.Exit(FAILURE)


def show_verdict(verdict: Verdict) -> None:
    """The findings, and in one line what they come to."""
    table = make_table(f"{verdict.model} {verdict.version}", "check", "", "finding")
    for finding in verdict:
        style = STYLES[finding.outcome]
        table.add_row(escape(finding.check), f"[{style}]{finding.outcome}[/]", escape(finding.sentence))
    console = make_console()
    console.print(table)
    counts = f"{len(verdict.failures)} failed, {len(verdict.warnings)} warnings, {len(verdict.skipped)} skipped"
    word = "[bold green]passed[/]" if verdict.passed else "[bold red]FAILED[/]"
    console.print(f"{escape(verdict.model)} {word}: {counts} of {len(verdict.findings)} checks; seed {verdict.seed}")


def doctor(as_json: Json = False) -> None:
    """Test the installation: Python, packages, MPI and its launcher, a ping-pong, Slurm, compilers."""
    from ..doctor import examine

    findings = []
    with Console(stderr=True).status("examining …") as status:
        for finding in examine():
            findings.append(finding)
            status.update(f"after {escape(finding.check)} …")
    place = find_rank_and_size()
    if place is None or place[0] == 0:  # one of several ranks is enough
        _show_findings(findings, as_json=as_json)
    if any(finding.outcome is Outcome.FAILED for finding in findings):
        raise typer.Exit(FAILURE)


def _show_findings(findings: Sequence[Diagnosis], *, as_json: bool) -> None:
    if as_json:
        is_well = all(finding.outcome is not Outcome.FAILED for finding in findings)
        print_json({"ok": is_well, "checks": [finding.to_dict() for finding in findings]})
        return
    table = make_table("demos-hpc doctor", "check", "", "found", "remedy")
    for finding in findings:
        style = STYLES[finding.outcome]
        mark = f"[{style}]{finding.outcome}[/]"
        table.add_row(escape(finding.check), mark, escape(finding.found), escape(finding.remedy))
    make_console().print(table)
