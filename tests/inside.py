"""Servers, workers and callers in threads of this process: real sockets and files, and nothing to start or to kill."""

from __future__ import annotations

import contextlib
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from serving import Operator, wait_until

from demos_hpc import dialing, dispatcher
from demos_hpc import server as server_module
from demos_hpc.calling import call
from demos_hpc.client import RemoteModel
from demos_hpc.config import Config
from demos_hpc.dialing import Dialed, dial, find_user
from demos_hpc.endpoint import Endpoint
from demos_hpc.errors import DemosError
from demos_hpc.identity import ANYBODY, Key
from demos_hpc.joining import join
from demos_hpc.messages import Operation
from demos_hpc.reception import Reception
from demos_hpc.recovery import LastingConnection
from demos_hpc.server import Server
from demos_hpc.testing import Gaussian
from demos_hpc.transport import Arrival

GAUSSIAN = "demos_hpc.testing:Gaussian"
GATE = "inside:Gate"
#: Seconds for anything that should come at once.
SOON = 20.0
#: Seconds between two looks of a server at its clock; a second, but for tests.
LOOK = 0.02
#: Seconds after which a server shows anew how it is, though its heart beats as slowly as others'.
NEWS = 0.1


class Blocks(Gaussian):
    """A `Gaussian` of small blocks."""

    def __init__(self) -> None:
        super().__init__(block_rows=16)


class Gate(Gaussian):
    """A `Gaussian` whose log_density waits at rows above 100 until somebody opens."""

    opened, entered = threading.Event(), threading.Event()

    def __init__(self) -> None:
        super().__init__(name="gate")

    def log_density(self, x: Any, params: Any) -> Any:
        if (x[:, 0] > 100).any():
            self.entered.set()
            self.opened.wait(SOON)
        return super().log_density(x, params)


class Thread(threading.Thread):
    """A thread that keeps what it was ended by."""

    def __init__(self, target: Callable[[], object], name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._work = target
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self.error = error

    def end(self, seconds: float = SOON) -> BaseException | None:
        """Waits for its end; returns what it was ended by, if anything."""
        self.join(seconds)
        assert not self.is_alive(), f"{self.name} does not end"
        return self.error


class ServerHere:
    """A server of ``model`` that runs in a thread."""

    def __init__(self, config: Config, name: str, model: str, family: str = "") -> None:
        self.config = config
        self.name = name
        self.family = family
        self.server = Server(name, model, config, family=family)
        self.thread = Thread(self.server.serve, f"server {name}")
        self.thread.start()
        self.workers: list[Thread] = []

    def add_worker(self, label: str = "", model: str = "") -> Thread:
        """A worker that joins; it may not have been let in yet."""

        def work() -> None:
            join(self.name, self.config, model=model, label=label, family=self.family)

        worker = Thread(work, f"worker of {self.name}")
        worker.start()
        self.workers.append(worker)
        return worker

    def find(self) -> Endpoint:
        """The server's entry in the registry, as it should be now."""
        return self.server._endpoint

    def find_entry(self) -> Endpoint | None:
        """The server's entry in the registry, as it is."""
        return next((e for e in self.server._registry.list()[0] if e.id == self.server.id), None)

    def wait_for_entry(self, is_so: Callable[[Endpoint], bool], what: str) -> Endpoint:
        """The entry, once it is as it should be."""
        found: list[Endpoint] = []

        def look() -> bool:
            for thread in (self.thread, *self.workers):
                if thread.error is not None:
                    raise thread.error
            entry = self.find_entry()
            found[:] = [entry] if entry is not None and is_so(entry) else []
            return bool(found)

        wait_until(look, SOON, f"the entry of {self.name}: {what}")
        return found[0]

    def dial(self, role: str = "client", **options: Any) -> Dialed:
        """A bare connection; `Dialed.port` is to be closed."""
        return dial(self.find(), self.config, role, seconds=SOON, **options)

    @contextlib.contextmanager
    def operate(self) -> Iterator[Operator]:
        """Somebody who looks after the server."""
        operator = Operator(self.dial("operator"), self.config)
        try:
            yield operator
        finally:
            operator.close()

    def connect(self, name: str | None = None, **options: Any) -> RemoteModel:
        """A client in this thread."""
        return call(self.name if name is None else name, self.config, **options)

    def connect_to_model(self, name: str) -> RemoteModel:
        """Whoever asks this very server for a model."""
        dialed = self.dial()
        connection = LastingConnection(dialed.port, dialed.link, self.config)
        try:
            return RemoteModel(connection, connection.ask(Operation.METADATA, {"model": name}).result())
        except DemosError:
            connection.say_goodbye()
            raise

    def crash(self) -> None:
        """Ends it as if it had been killed: nobody is told, its entry stays, and its workers look for it."""

        def fail() -> list[Arrival]:
            raise SystemError("the server has crashed")

        self.server._presence.close = lambda id_, seconds: None  # type: ignore[method-assign]
        self.server._dispatcher._port.receive = fail  # type: ignore[method-assign]
        assert isinstance(self.thread.end(), SystemError)
        self.thread.error = None
        self.workers.clear()

    def stop(self) -> None:
        """Ends it, and all that belong to it."""
        self.server._reception.stop()
        assert self.thread.end() is None
        for worker in self.workers:
            worker.end()


def _tick_often(tick: Callable[[Reception, float], None]) -> Callable[[Reception, float], None]:
    def tick_often(reception: Reception, now: float) -> None:
        if reception._config.heartbeat < 3600.0:
            reception._next_beat = min(reception._next_beat, now + NEWS)
        tick(reception, now)

    return tick_often


class Hall:
    """A directory where servers of this process meet, and nobody else; ``registry`` is where they are listed."""

    def __init__(self, directory: Path, registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.registry = registry
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(dispatcher, "LONGEST_WAIT", LOOK)
        monkeypatch.setattr(Reception, "tick", _tick_often(Reception.tick))
        Gate.opened.clear()
        Gate.entered.clear()
        # Only the main thread may handle signals.
        deaf = SimpleNamespace(SIGTERM=signal.SIGTERM, SIGINT=signal.SIGINT, signal=lambda number, handler: handler)
        monkeypatch.setattr(server_module, "signal", deaf)
        keys = [Key(id_, secrets.token_bytes(32)) for id_ in (find_user(), ANYBODY)]
        self.key_file = directory / "key"
        self.key_file.write_text("".join(f"{key.id} {key.secret.hex()}\n" for key in keys), encoding="ascii")
        self.key_file.chmod(0o600)
        self.servers: list[ServerHere] = []

    def make_config(self, **settings: Any) -> Config:
        defaults = {
            "registry": str(self.registry),
            "key_file": str(self.key_file),
            "authentication": "key",
            "timeout": SOON,
        }
        return Config().changed(**(defaults | settings))

    def open(
        self, model: str = GAUSSIAN, *, name: str = "here", workers: int = 1, family: str = "", **settings: Any
    ) -> ServerHere:
        """A server with so many workers, all there."""
        server = ServerHere(self.make_config(**settings), name, model, family)
        self.servers.append(server)
        for _ in range(workers):
            server.add_worker()
        if workers:
            server.wait_for_entry(lambda entry: entry.workers >= workers, f"{workers} workers")
        return server

    def make_caller(self, name: str | None = None, **options: Any) -> RemoteModel:
        """Whoever asks for the model or server of this name; ``options`` are those of `call`, and settings."""
        settings = {key: options.pop(key) for key in list(options) if key in Config.__dataclass_fields__}
        return call(name, self.make_config(**settings), **options)

    @contextlib.contextmanager
    def pass_for(self, user: str) -> Iterator[None]:
        """Whoever dials meanwhile is ``user``, as far as the key of the group goes."""
        with self._monkeypatch.context() as patch:
            patch.setattr(dialing, "find_user", lambda: user)
            yield

    def close(self) -> None:
        Gate.opened.set()
        for server in self.servers:
            server.server._reception.stop()
        for server in self.servers:
            server.stop()
