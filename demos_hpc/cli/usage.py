"""``usage``: what users have used of models, beside what Slurm bills for it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from .. import billing
from ..errors import InvalidInput, LaunchError
from ..logs import warn
from ..slurm_plan import PREFIX, WORKERS
from ..survey import reach
from ..usage import COUNTS, Description, add_up, find_records, read_moment, read_records
from .operators import Json, open_registry
from .output import make_console, make_table, print_json
from .quantities import format_count, format_number_of, format_share
from .rates import check_format

#: Core-seconds from which on sums are shown in core-hours.
HOURS_FROM = 3600.0


def register(app: typer.Typer) -> None:
    app.command()(usage)


def usage(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="Of a server; with --from: only what is of it.", show_default=False)
    ] = "",
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="PATH",
            help="What servers have left: a file, or a directory of them (DEMOS_USAGE_DIRECTORY). Repeat it for more.",
        ),
    ] = None,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="With --from: what was recorded then or later.")
    ] = "",
    until: Annotated[str, typer.Option("--until", metavar="TIME", help="With --from: what was before.")] = "",
    as_json: Json = False,
) -> None:
    """Show what each user has used of each model, and what Slurm says that it took.

    Core-seconds are the time that workers computed for a user, times the threads that they have.

    demos-hpc usage nu_atm

    demos-hpc usage --from /shared/demos-hpc/usage --since 2026-03-01 --until 2026-04-01
    """
    if files:
        told = sum_records(files, name, since, until)
    elif not name:
        raise InvalidInput("usage takes the NAME of a server that runs, or --from DIRECTORY for those that have ended")
    elif since or until:
        raise InvalidInput("--since and --until are for --from: a server that runs tells what was since it began")
    else:
        told = ask_server(name)
    if as_json:
        print_json(told)
    else:
        show(told)


def ask_server(name: str) -> dict[str, Any]:
    """Of a server that runs."""
    registry, config = open_registry()
    with reach(name, registry, config) as operator:
        endpoint, description = operator.endpoint, check_format(operator.statistics())
    if "usage" not in description:
        raise InvalidInput(f"server {endpoint.name!r} does not count usage: it is of an older demos-hpc")
    since = time.time() - description["uptime_seconds"]
    jobs = [endpoint.job] if endpoint.job else []
    told: dict[str, Any] = {"servers": [endpoint.name], **add_up([description["usage"]])}
    told["slurm"] = ask_slurm(jobs, [endpoint.name], endpoint.user, since) if jobs else None
    return told


def sum_records(files: Sequence[Path], name: str, since: str, until: str) -> dict[str, Any]:
    """Of servers that have left records."""
    begin, end = (read_moment(text) if text else None for text in (since, until))
    records = []
    for record in read_files(files):
        at = read_moment(record["until"])
        if (not name or record["server"] == name) and (not begin or at >= begin) and (not end or at < end):
            records.append(record)
    if not records:
        warn("no record of usage fits what was asked for")
    owners: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        if record.get("job"):
            owners.setdefault(record["owner"], []).append(record)
    slurm = [
        ask_slurm(
            sorted({one["job"] for one in ones}),
            sorted({one["server"] for one in ones}),
            owner,
            min(read_moment(one["from"]).timestamp() for one in ones),
            max(read_moment(one["until"]).timestamp() for one in ones),
        )
        for owner, ones in owners.items()
    ]
    return {
        "servers": sorted({one["server"] for one in records}),
        **add_up(records),
        "slurm": None if not slurm else {
            "jobs": [job for one in slurm for job in one["jobs"]],
            "why": "; ".join(dict.fromkeys(one["why"] for one in slurm if one["why"])),
        },
    }  # fmt: skip


def read_files(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """The records of all files, and a word on what is none; what cannot be read is left out unless it was named."""
    unread = []
    for path in find_records(files):
        first, n_wrong = "", 0
        try:
            for record in read_records(path):
                if isinstance(record, str):
                    first, n_wrong = first or record, n_wrong + 1
                else:
                    yield record
        except InvalidInput as error:
            if path in files:
                raise
            unread.append(f"{error}; it does not count")
        warn_of(first, n_wrong)
    warn_of("".join(unread[:1]), len(unread))


def warn_of(first: str, number: int) -> None:
    """One line, however much it is."""
    if number:
        warn(first if number == 1 else f"{first}, nor do {number - 1} further ones")


def ask_slurm(
    jobs: Sequence[str], servers: Sequence[str], owner: str, since: float, until: float | None = None
) -> dict[str, Any]:
    """Their jobs and those of workers that joined them, as Slurm's accounting has them, or ``why`` it has nothing."""
    names = [PREFIX + server + WORKERS for server in servers]
    try:
        found = billing.ask(jobs, names, owner, since, until)
    except LaunchError as error:
        return {"jobs": [], "why": str(error)}
    return {"jobs": [asdict(job) for job in found], "why": "" if found else "sacct knows none of these jobs"}


# ---- for people ----------------------------------------------------------------------------------------------------


def show(told: Mapping[str, Any]) -> None:
    """A table, and what it is to be compared with."""
    description: Description = {"used": told["used"], "workers": told["workers"]}
    used = sum(one["core_seconds"] for one in description["used"])
    there = sum(one["core_seconds"] for one in description["workers"])
    in_hours = max(used, there) >= HOURS_FROM
    unit, scale = ("core-hours", 3600.0) if in_hours else ("core-seconds", 1.0)
    draws = any(one["draws"] for one in description["used"])
    columns = ["user", "model", "requests", "rows", *(["draws"] if draws else []), unit, "share"]
    table = make_table("", *columns, numbers=range(2, len(columns)))
    table.title = None

    def add(user: str, model: str, counts: Mapping[str, Any], style: str = "") -> None:
        seconds = counts["core_seconds"]
        cells = [format_count(counts[name]) for name in ("requests", "rows", *(["draws"] if draws else []))]
        cells += [f"{seconds / scale:.2f}", format_share(seconds / used if used else None)]
        table.add_row(Text(user), Text(model), *cells, style=style)

    for one in description["used"]:
        add(one["user"], one["model"], one)
    if len(description["used"]) != 1:
        add("all", "", {name: sum(one[name] for one in description["used"]) for name in COUNTS}, "bold")
    console = make_console()
    console.print(table)
    busy = f", {format_share(used / there)} of them at work" if there else ""
    lines = [f"workers were there for {there / scale:.2f} {unit}{busy}"]
    slurm = told["slurm"]
    if slurm is not None and slurm["why"]:
        lines.append(f"what Slurm bills is not known: {slurm['why']}")
    elif slurm is not None:
        billed, computed = (sum(job[name] for job in slurm["jobs"]) for name in ("core_seconds", "computed"))
        running = sum(job["state"] == "RUNNING" for job in slurm["jobs"])
        still = f" ({running} of them still running)" if running else ""
        lines.append(
            f"Slurm bills {billed / scale:.2f} {unit}, cores times time, for"
            f" {format_number_of(len(slurm['jobs']), 'job')}{still}; in steps that have ended, processes computed"
            f" {computed / scale:.2f}"
        )
    for line in lines:
        console.print(Text(line))
