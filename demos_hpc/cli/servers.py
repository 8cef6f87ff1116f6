"""Servers that live by themselves: starting them, joining them, looking at them, ending them."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Annotated

import typer

from ..config import Config
from ..crew import Crew
from ..dialing import TRANSPORTS
from ..endpoint import check_name
from ..errors import InvalidInput
from ..handover import Program, call, work
from ..joining import join
from ..journal import open_log
from ..logs import warn
from ..model_paths import BUNDLED, find
from ..registry import Registry
from ..server import Server
from ..spec import make_name
from ..starter import check_model
from ..supervisor import Supervisor
from .group import WithScript
from .quantities import format_number_of

Executable = Annotated[
    str, typer.Option("--exec", metavar="PROGRAM", help="A program in C, C++ or Fortran that computes.")
]
Description = Annotated[
    str, typer.Option("--spec", metavar="FILE.json", help="The file that describes the program's model.")
]
Transport = Annotated[
    str, typer.Option("--transport", metavar="WAY", help=f"Insist on a way through the door: {', '.join(TRANSPORTS)}.")
]
Arguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="[-- ARGS]...", help="Of the program.", show_default=False),
]


def register(app: typer.Typer) -> None:
    app.command()(worker)
    app.command(cls=WithScript)(ticket)
    app.command(hidden=True)(dispatch)


def supervise(model: str, workers: int, name: str | None, threads: int | None, program: Program | None = None) -> None:
    """Runs a server until it is stopped; its workers have the model, or are the program."""
    config = Config.load()
    if program is None:
        check_model(model)
        _, inside = find(model)
    else:
        inside = make_name(Path(program.spec or program.path).name.partition(".")[0])
    if not name:
        name = Registry(config.registry_directory).choose_name(model if model in BUNDLED else inside)
    check_name(name)
    how_many = format_number_of(workers, "worker")
    announcement = f"server {name!r} with {how_many}; connect by demos_hpc.connect({name!r}), stop by Ctrl-C"
    status = Supervisor(model, workers, name, config, threads or 1, lambda: warn(announcement), program).run()
    raise typer.Exit(status)


def worker(
    server: Annotated[str, typer.Option("--join", metavar="NAME", help="The server to work for.", show_default=False)],
    model: Annotated[
        str, typer.Option("--model", metavar="MODEL", help="What to load, where that is not what the server says.")
    ] = "",
    label: Annotated[str, typer.Option("--label", metavar="LABEL", help="What the worker is called.")] = "",
    family: Annotated[str, typer.Option("--family", hidden=True)] = "",
    program: Executable = "",
    spec: Description = "",
    transport: Transport = "auto",
    workers: Annotated[
        int, typer.Option("--workers", "-w", min=1, metavar="N", help="So many, started again when they die.")
    ] = 1,
    wait: Annotated[
        float, typer.Option("--wait", min=0.0, metavar="S", help="Seconds for the server to appear.")
    ] = 0.0,
    arguments: Arguments = None,
) -> None:
    """Work for a server, from anywhere: compute with its model until it ends.

    SIGTERM lets a worker finish what it computes, and leave.

    With --exec a program in C, C++ or Fortran does, which is started with a connection to the server.

    demos-hpc worker --join nu_atm

    demos-hpc worker --join my_model --exec ./my_model
    """
    given = read_program(program, spec, arguments or [])
    if given is not None and model:
        raise InvalidInput(f"--model {model} is loaded by Python, and --exec {program} is a program: give one of them")
    config = Config.load()
    if workers > 1:
        words = ["--join", server, "--transport", transport, "--wait", str(wait)]
        for name, value in (("--model", model), ("--family", family), ("--exec", program), ("--spec", spec)):
            words += [name, value] if value else []
        after = ["--", *arguments] if arguments else []
        raise typer.Exit(Crew(workers, words, after, label or f"{socket.gethostname()}.{os.getpid()}").run())
    open_log(config, "worker", label.partition("#")[0])
    if given is not None:
        raise typer.Exit(work(server, config, given, label=label, family=family, transport=transport))
    join(server, config, model=model, label=label, family=family, transport=transport, wait=wait)


def ticket(
    server: Annotated[str, typer.Argument(metavar="NAME", help="A server, or a model.", show_default=False)],
    command: Annotated[list[str], typer.Argument(metavar="PROGRAM [ARGS]...", help="What to run.", show_default=False)],
    transport: Transport = "auto",
) -> None:
    """Run a client in C, C++ or Fortran with a connection to a server, and exit as it does.

    demos-hpc ticket my_model -- ./my_analysis --steps 1000
    """
    config = Config.load()
    open_log(config, "client")
    raise typer.Exit(call(server, config, Program(command[0], tuple(command[1:])), transport=transport))


def read_program(program: str, spec: str, arguments: list[str]) -> Program | None:
    """The program that workers are, None where they are not."""
    if program:
        return Program(program, tuple(arguments), spec)
    if arguments or spec:
        raise InvalidInput(f"{' '.join(arguments) or f'--spec {spec}'}: name the program that this is for by --exec")
    return None


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
