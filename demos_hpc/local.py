"""The whole service in one process, for notebooks, first steps and tests; no MPI."""

from __future__ import annotations

import itertools
import operator
from typing import Any

import numpy as np

from .client import RemoteModel
from .config import Config
from .connection import Connection
from .dispatcher import Dispatcher
from .errors import InvalidInput
from .fingerprint import describe_arithmetic
from .messages import Operation
from .model import LoadedModel, load
from .peers import Person
from .transport.loopback import LoopbackPort, make_pair
from .worker import Worker


def local(model: Any, *, workers: int = 1, config: Config | None = None) -> RemoteModel:
    """Serves a model inside this process and connects to it.

    Parameters
    ----------
    model
        An instance or a class with ``spec``, a `LoadedModel`, or a path as `demos_hpc.model.load` takes it.
    workers
        How many; they take turns, so more are not faster, but chunks are cut as with so many.
    """
    service = LocalService(model, operator.index(workers), config or Config.load())
    return service.connect()


class LocalService:
    """Dispatcher and workers in this process; they move while a client waits."""

    def __init__(self, model: Any, n_workers: int, config: Config) -> None:
        if n_workers < 1:
            raise InvalidInput(f"workers is {n_workers}; a service needs one at least")
        self._config = config
        self._port = LoopbackPort()
        self.dispatcher = Dispatcher(self._port, config, n_workers)
        self._workers = []
        for nth in range(n_workers):
            port = LoopbackPort()
            there, here = make_pair(self._port, port, ("dispatcher", f"worker {nth}"))
            self.dispatcher.add_worker(there, Person(""))
            worker = Worker(f"worker {nth}", port, here, config=config)
            worker.offer(lambda: _load(model, config), describe_arithmetic())
            self._workers.append(worker)
        self._names = itertools.count()

    def turn(self) -> None:
        """Everybody does what there is to do, once."""
        self.dispatcher.step()
        with np.errstate(all="ignore"):  # as in Worker.serve
            for worker in self._workers:
                worker.step()
        self.dispatcher.step()

    def connect(self, user: str = "") -> RemoteModel:
        """A further client."""
        port = LoopbackPort(self.turn)
        there, here = make_pair(self._port, port, ("dispatcher", f"client {next(self._names)}"))
        self.dispatcher.add_client(there, Person(user))
        connection = Connection(port, here, self._config)
        return RemoteModel(connection, connection.ask(Operation.METADATA, {}).result())


def _load(model: Any, config: Config) -> LoadedModel:
    if isinstance(model, str):
        return load(model, config)
    if isinstance(model, LoadedModel):
        return model
    return LoadedModel(model() if isinstance(model, type) else model)
