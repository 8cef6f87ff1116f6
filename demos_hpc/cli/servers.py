"""Servers that live by themselves: starting them, joining them, looking at them, ending them."""

from __future__ import annotations

from typing import Annotated

import typer

from ..config import Config
from ..endpoint import check_name
from ..joining import join
from ..journal import open_log
from ..logs import warn
from ..model_paths import BUNDLED, find
from ..registry import Registry
from ..server import Server
from ..starter import check_model
from ..supervisor import Supervisor
from .quantities import format_number_of


def register(app: typer.Typer) -> None:
    app.command()(worker)
    app.command(hidden=True)(dispatch)


def supervise(model: str, workers: int, name: str | None, threads: int | None) -> None:
    """Runs a server until it is stopped."""
    config = Config.load()
    check_model(model)
    if not name:
        _, inside = find(model)
        name = Registry(config.registry_directory).choose_name(model if model in BUNDLED else inside)
    check_name(name)
    how_many = format_number_of(workers, "worker")
    announcement = f"server {name!r} with {how_many}; connect by demos_hpc.connect({name!r}), stop by Ctrl-C"
    status = Supervisor(model, workers, name, config, threads or 1, lambda: warn(announcement)).run()
    raise typer.Exit(status)


def worker(
    server: Annotated[str, typer.Option("--join", metavar="NAME", help="The server to work for.", show_default=False)],
    model: Annotated[
        str, typer.Option("--model", metavar="MODEL", help="What to load, where that is not what the server says.")
    ] = "",
    label: Annotated[str, typer.Option("--label", metavar="LABEL", help="What the worker is called.")] = "",
    family: Annotated[str, typer.Option("--family", hidden=True)] = "",
) -> None:
    """Work for a server, from anywhere: compute with its model until it ends.

    demos-hpc worker --join nu_atm
    """
    config = Config.load()
    open_log(config, "worker", label.partition("#")[0])
    join(server, config, model=model, label=label, family=family)


def dispatch(
    model: Annotated[str, typer.Argument()],
    name: Annotated[str, typer.Option("--name")],
    id_: Annotated[str, typer.Option("--id")] = "",
    family: Annotated[str, typer.Option("--family")] = "",
) -> None:
    """The dispatcher of a server; `serve` starts it."""
    config = Config.load()
    open_log(config, "dispatcher", name)
    Server(name, model, config, id_, family).serve()
