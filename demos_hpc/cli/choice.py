"""Where a model is that a command names: at a server that runs, or in this process."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from ..calling import call
from ..client import RemoteModel
from ..config import Config
from ..endpoint import is_stale
from ..errors import AccessRefused, DeadlineExceeded, ModelNotFound, ServerLost
from ..local import local
from ..model import LoadedModel, load
from ..model_paths import BUNDLED, is_path
from ..programs import connect, is_analysis
from ..registry import Registry
from .launches import MODEL_HELP

ModelOrServer = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help=f"{MODEL_HELP.removesuffix('.')}. Or what runs: the name of a server, or of its model.",
        show_default=False,
    ),
]


def open_model(name: str, workers: int | None = None) -> RemoteModel:
    """The model in this launch; at a server that runs, unless ``workers`` are wanted; or in this process."""
    if is_analysis():
        return connect()
    served = find_served(name) if workers is None else None
    return served or local(load_here(name))


def load_here(name: str) -> LoadedModel:
    """The model ``name`` in this process, where no server has it.

    Raises
    ------
    ModelNotFound, ModelFailed
        As `demos_hpc.model.load`.
    """
    try:
        return load(name)
    except ModelNotFound as error:
        if is_path(name):
            raise
        raise ModelNotFound(f"{error}; and no server that runs has this name (DEMOS_REGISTRY)") from None


def find_served(name: str) -> RemoteModel | None:
    """The model ``name`` of a server that runs, as `demos_hpc.connect` finds it; None where none does.

    A path, ``file.py:Class`` or ``file.h5``, is never a server's. The short name of a model that comes with demos-hpc
    may be: where its server does not answer, or does not let us in, the model is still here. What was chosen is said on
    standard error.

    Raises
    ------
    ServerLost, AccessRefused, DeadlineExceeded
        Where a server of this name is registered and cannot be had, and there is no such model here.
    """
    config = Config.load()
    endpoints = [] if is_path(name) else Registry(config.registry_directory).find(name)
    endpoints = [endpoint for endpoint in endpoints if endpoint.state != "draining"]
    is_here, now = name in BUNDLED, time.time()
    if not endpoints or (is_here and all(is_stale(endpoint, now) for endpoint in endpoints)):
        return None
    try:
        return call(name, config, tell=lambda choice: typer.echo(choice, err=True))
    except (AccessRefused, DeadlineExceeded, ServerLost) as error:
        if not is_here:
            raise
        typer.echo(f"{error}; {name} is computed in this process", err=True)
        return None
