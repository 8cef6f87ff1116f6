"""``ls``, ``health``, ``stats``, ``drain`` and ``stop``: looking after servers that run."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..config import Config
from ..endpoint import Endpoint
from ..errors import InvalidInput, ServerLost
from ..exposition import write_exposition
from ..identity import find_user
from ..logs import warn
from ..operating import Operator
from ..progress import show_progress
from ..registry import Registry
from ..survey import DEAD, ELSEWHERE, NOT_OURS, SIGHTS, SILENT, Sighting, find_named, reach, survey, sweep
from .dashboard import render_stats
from .output import make_console, print_json, to_plain
from .quantities import format_number_of, format_time
from .rates import check_format

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="Of a server, or the beginning of its id; or of its model.", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of tables.")]
Wait = Annotated[bool, typer.Option("--wait", help="Until all that runs is done.")]

#: What ``health`` exits with; 1 and 2 are errors of the command itself.
READY, NOT_READY, DRAINING, GONE, REFUSED, NO_ANSWER = 0, 3, 4, 5, 6, 7
EXIT_STATUS = {
    "ready": READY,
    "starting": NOT_READY,
    "draining": DRAINING,
    DEAD: GONE,
    NOT_OURS: REFUSED,
    SILENT: NO_ANSWER,
    ELSEWHERE: NO_ANSWER,
}
STYLES = {"ready": "green", "starting": "yellow", "draining": "yellow", SILENT: "bold red", DEAD: "bold red"}
#: Seconds between two looks at a server that is waited for.
LOOK = 0.1


def register(app: typer.Typer) -> None:
    for command in (ls, stats, health, drain, stop):
        app.command()(command)


def open_registry() -> tuple[Registry, Config]:
    """Where this user's servers are found, and by which settings."""
    config = Config.load()
    return Registry(config.registry_directory), config


# ---- ls ------------------------------------------------------------------------------------------------------------

#: Columns of ``ls``, those to the right being numbers, and in which order they leave where there is no room for all.
COLUMNS = ("name", "model", "state", "host", "user", "workers", "clients", "load", "age", "address")
NUMBERS = ("workers", "clients", "load", "age", "pid", "answer")
LEAVING = ("address", "age", "user", "clients", "host", "load", "workers")
#: What ``--all`` shows besides.
MORE_COLUMNS = ("answer", "id", "pid", "job", "path", "image")


def ls(
    as_json: Json = False,
    all_: Annotated[
        bool, typer.Option("--all", "-a", help="Every column, however narrow the terminal; also id, process, job.")
    ] = False,
) -> None:
    """List the servers that run, as they say themselves.

    Every server in the registry (DEMOS_REGISTRY) is asked at its door. Those that have died are shown once, and taken
    out of the registry. "not ours": it lives and does not let us in. "silent": it does not answer, and may live.
    "elsewhere": only processes on its own host can ask it. Then figures are those of the registry.
    """
    registry, config = open_registry()
    endpoints, problems = registry.list()
    with Console(stderr=True).status(f"asking {len(endpoints)} servers …"):
        sightings = survey(endpoints, config)
    swept = sweep(registry, sightings)
    now = time.time()
    if as_json:
        print_json([_to_dict(sighting, is_swept=sighting in swept) for sighting in sightings])
    elif sightings:
        show_servers(sightings, now, with_all=all_)
    else:
        typer.echo(f"no servers in {registry.directory}; start one by `demos-hpc serve MODEL --workers 2`")
    for problem in problems:
        if not problem.vanished:
            warn(f"skipped in the registry {registry.directory}: {problem}")
    for sighting in sightings:
        name = f"{sighting.endpoint.name} ({sighting.endpoint.id[:8]})"
        if sighting in swept:
            warn(f"{name} has died and is taken out of the registry: {sighting.why}")
        elif sighting.why and (sighting.state != NOT_OURS or sighting.endpoint.user == find_user()):
            warn(f"{name} is {sighting.state}: {sighting.why}")


def _to_dict(sighting: Sighting, *, is_swept: bool) -> dict[str, Any]:
    """For JSON: the endpoint, its state as it was found, and how."""
    return {
        **sighting.endpoint.to_dict(),
        "state": sighting.state,
        "answer_seconds": sighting.seconds,
        "transport": sighting.transport,
        "why": sighting.why,
        "is_swept": is_swept,
    }


def show_servers(sightings: Sequence[Sighting], now: float, *, with_all: bool = False) -> None:
    """A line for each; where the terminal is narrow, columns are left out."""
    console = make_console()
    lines = [_describe(sighting, now) for sighting in sightings]
    columns = [*COLUMNS, *(MORE_COLUMNS if with_all else ())]
    widths = {name: max(len(name), *(len(line[name]) for line in lines)) for name in columns}
    for name in LEAVING:
        if with_all or sum(widths[name] + 2 for name in columns) <= console.width:
            break
        columns.remove(name)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        table.add_column(name, justify="right" if name in NUMBERS else "left", no_wrap=with_all, overflow="fold")
    for sighting, line in zip(sightings, lines, strict=True):
        style = STYLES.get(sighting.state, "")
        table.add_row(
            *(Text(line[name], style=style if name == "state" else "") for name in columns),
            style="" if sighting.is_living else "dim",
        )
    if with_all:
        console = Console(highlight=False, width=max(console.width, sum(widths.values()) + 2 * len(columns)))
    console.print(table)


def _describe(sighting: Sighting, now: float) -> dict[str, str]:
    endpoint, is_dead = sighting.endpoint, sighting.state == DEAD
    return {
        "name": endpoint.name,
        "model": ", ".join(f"{model['name']} {model['version']}" for model in endpoint.models) or "-",
        "state": sighting.state,
        "host": endpoint.hostname,
        "user": endpoint.user,
        "workers": "-" if is_dead else str(endpoint.workers),
        "clients": "-" if is_dead else str(endpoint.clients),
        "load": "-" if is_dead else format_time(endpoint.load),
        "age": "-" if is_dead else format_time(max(0.0, now - endpoint.started)),
        "address": _name_address(endpoint),
        "answer": format_time(sighting.seconds),
        "id": endpoint.id,
        "pid": str(endpoint.pid),
        "job": endpoint.job or "-",
        "path": endpoint.model_path,
        "image": endpoint.image or "-",
    }


def _name_address(endpoint: Endpoint) -> str:
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return f"{host}:{endpoint.port}{' (TLS)' if endpoint.tls else ''}" if endpoint.port else "unix"


# ---- health --------------------------------------------------------------------------------------------------------


def health(
    name: Name,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, on one line.")] = False,
    seconds: Annotated[float, typer.Option("--timeout", metavar="S", help="Seconds that it has to answer.")] = 5.0,
) -> None:
    """Say in one line how a server is, and by the exit status, for scripts and monitors.

    - 0: ready
    - 3: it lives and is not ready: no worker is there yet, or any more
    - 4: draining: it takes nothing new
    - 5: gone: it has died, or there is none of this name
    - 6: refused: it lives and does not let us in
    - 7: it does not answer in time, and may live; or it can only be asked on its own host
    - 1 and 2: the question itself was wrong

    Of several servers of one model, the best counts.
    """
    registry, config = open_registry()
    try:
        sightings = survey(find_named(name, registry), config, seconds=seconds)
    except ServerLost as error:
        _conclude(name, None, str(error), as_json=as_json)
        raise typer.Exit(GONE) from None
    best = min(sightings, key=lambda sighting: SIGHTS.index(_find_state(sighting)))
    raise typer.Exit(_conclude(name, best, best.why, as_json=as_json))


def _find_state(sighting: Sighting) -> str:
    """A server that has lost all its workers is no more ready than one that has none yet."""
    return "starting" if sighting.state == "ready" and not sighting.endpoint.workers else sighting.state


def _conclude(name: str, sighting: Sighting | None, why: str, *, as_json: bool) -> int:
    """Says how it is, and returns the exit status."""
    state = DEAD if sighting is None else _find_state(sighting)
    status = EXIT_STATUS[state]
    word = "gone" if state == DEAD else state
    facts = ""
    if sighting is not None and sighting.is_living:
        endpoint = sighting.endpoint
        why = "it has no worker that is ready" if state == "starting" else ""
        facts = (
            f"{format_number_of(endpoint.workers, 'worker')}, {format_number_of(endpoint.clients, 'client')},"
            f" load {format_time(endpoint.load)}, answered in {format_time(sighting.seconds)} by {sighting.transport}"
        )
    if as_json:
        found: dict[str, Any] = {} if sighting is None else _to_dict(sighting, is_swept=False)
        typer.echo(json.dumps(to_plain({**found, "name": name, "state": word, "status": status, "why": why})))
    else:
        details = "; ".join(filter(None, [facts, why]))
        typer.echo(f"{name}: {word}{': ' if details else ''}{details}")
    return status


# ---- stats ---------------------------------------------------------------------------------------------------------


def stats(
    name: Name,
    as_json: Json = False,
    prometheus: Annotated[
        Path | None,
        typer.Option(
            "--prometheus", metavar="FILE", help="Write FILE.prom for node_exporter, and show nothing without --json."
        ),
    ] = None,
) -> None:
    """Show what a server has counted since it began: requests, latencies, workers, users, links.

    A server writes the file for Prometheus itself, with every heartbeat, where DEMOS_PROMETHEUS_FILE names one.
    """
    registry, config = open_registry()
    with reach(name, registry, config) as operator:
        description = operator.statistics()
    if prometheus is not None:
        try:
            write_exposition(prometheus, check_format(description))
        except OSError as error:
            raise InvalidInput(f"{prometheus} cannot be written: {error.strerror or error}") from None
    if as_json:
        print_json(description)
    elif prometheus is None:
        console = make_console()
        console.print(render_stats(check_format(description), console.width))


# ---- drain and stop ------------------------------------------------------------------------------------------------


def drain(name: Name, wait: Wait = False) -> None:
    """Let a server finish what it has begun, and take nothing new; clients go to another server of the model.

    Requests that it has not begun are handed back. It stays until it is stopped.
    """
    registry, config = open_registry()
    with reach(name, registry, config) as operator:
        server, n_requests = operator.endpoint.name, operator.drain()["requests"]
        if wait and _wait_until_done(operator, n_requests, f"{server} drains"):
            typer.echo(f"{server} has ended")
            return
    n_left = 0 if wait else n_requests
    under_way = f"{format_number_of(n_left, 'request')} under way" if n_left else "nothing is under way"
    typer.echo(f"{server} takes nothing new; {under_way}; end it by `demos-hpc stop {server}`")


def stop(
    name: Name,
    now: Annotated[bool, typer.Option("--now", help="Without finishing what runs.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Until it has ended.")] = False,
) -> None:
    """End a server: it takes nothing new, finishes what runs, and ends.

    What runs has DEMOS_STOP_SECONDS of the server, 30 unless said otherwise. Supervisor and workers end as well.
    """
    registry, config = open_registry()
    with reach(name, registry, config) as operator:
        server, n_requests = operator.endpoint.name, operator.stop(now=now)["requests"]
        if not wait:
            left = f", after {format_number_of(n_requests, 'request')} under way" if n_requests and not now else ""
            typer.echo(f"{server} ends{left}")
            return
        _wait_until_done(operator, n_requests, f"{server} ends", is_ending=True)
    typer.echo(f"{server} has ended")


def _wait_until_done(operator: Operator, n_requests: int, title: str, *, is_ending: bool = False) -> bool:
    """Until nothing is under way, or the server is no more; whether it is no more."""
    with show_progress(title) as progress:
        while True:
            try:
                n_left = operator.statistics()["queue"]["length"]
            except ServerLost:
                return True
            progress(max(0, n_requests - n_left), n_requests)
            if not n_left and not is_ending:
                return False
            time.sleep(LOOK)
