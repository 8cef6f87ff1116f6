"""Servers in processes of their own, and what a test wants of one: to call it, to look into it, to hurt it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from launching import MARK, PACKAGE, end_marked

from demos_hpc.calling import call
from demos_hpc.client import RemoteModel
from demos_hpc.config import Config
from demos_hpc.connection import Connection
from demos_hpc.dialing import Dialed, dial, find_user
from demos_hpc.endpoint import Endpoint
from demos_hpc.identity import Key, make_key_file
from demos_hpc.messages import Operation
from demos_hpc.registry import Registry

#: Seconds until a server has to be ready, on a machine that has other things to do.
OPENING = 60.0
#: Seconds for a server to end that has been told to.
ENDING = 30.0
#: How callers of this host reach a server: the way through the door, and whether busy links leave it.
WAYS: dict[str, tuple[str, dict[str, str]]] = {
    "auto": ("auto", {}),
    "unix": ("unix", {"upgrade": "off"}),
    "tcp": ("tcp", {"upgrade": "off"}),
}
#: Seconds between two looks at something that tells nobody when it happens.
LOOK = 0.005


def wait_until(is_so: Callable[[], Any], seconds: float, what: str, pause: float = LOOK) -> Any:
    """Looks again and again until ``is_so()`` returns something true, and returns it; fails after ``seconds``."""
    never, deadline = threading.Event(), time.monotonic() + seconds
    while not (found := is_so()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        never.wait(pause)
    return found


class Operator:
    """Looks into a running server; belongs to the thread that made it."""

    def __init__(self, dialed: Dialed, config: Config) -> None:
        self._port = dialed.port
        self._connection = Connection(dialed.port, dialed.link, config)

    def look(self) -> dict[str, Any]:
        """All that the server counts (`demos_hpc.metrics`)."""
        statistics: dict[str, Any] = self._connection.ask(Operation.STATISTICS, {}).result(timeout=OPENING)
        return statistics

    def list_workers(self) -> list[dict[str, Any]]:
        """The workers that are alive."""
        return [worker for worker in self.look()["workers"] if worker["is_alive"]]

    def close(self) -> None:
        self._connection.say_goodbye()
        self._port.flush(1.0)
        self._port.close()


class ServerApart:
    """A server called ``name`` that runs, with all that it keeps in ``directory``; ``settings`` as in `Config`.

    ``model`` is what it serves, or words that say so.
    ``transport`` is one of `WAYS`; ``keys`` are those of other users, beside the owner's.
    """

    def __init__(
        self,
        model: str | Sequence[str],
        directory: Path,
        *,
        workers: int = 2,
        name: str = "apart",
        transport: str = "auto",
        keys: Sequence[Key] = (),
        **settings: Any,
    ) -> None:
        self.name = name
        self.directory = directory
        self.mark = os.urandom(8).hex()
        self.way, more = WAYS[transport]
        self.environment = make_environment(directory, self.mark, **{**more, **settings})
        self.config = Config.load(self.environment)
        self.registry = Registry(self.config.registry_directory)
        make_key_file(self.config.key_path, find_user())
        with self.config.key_path.open("a", encoding="ascii") as file:
            file.writelines(f"{key.id} {key.secret.hex()}\n" for key in keys)
        self._log = directory / f"{name}.log"
        words = [model] if isinstance(model, str) else model
        command = [sys.executable, "-m", "demos_hpc", "serve", *words]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--workers", str(workers), "--name", name],
                cwd=directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        """What the server and its workers have written."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def find(self) -> Endpoint | None:
        """The server's entry in the registry whose process lives."""
        entries = [e for e in self.registry.list()[0] if e.name == self.name and Path(f"/proc/{e.pid}").exists()]
        return entries[0] if entries else None

    def wait_until_ready(self, n_workers: int = 1) -> Endpoint:
        """Returns once so many workers are there."""

        def is_ready() -> Endpoint | None:
            assert self.process.poll() is None, f"the server ended with {self.process.returncode}:\n{self.log}"
            found = self.find()
            return found if found is not None and found.state == "ready" else None

        endpoint: Endpoint = wait_until(is_ready, OPENING, f"server {self.name} is ready")
        with self.operate() as operator:
            wait_until(lambda: len(operator.list_workers()) >= n_workers, OPENING, f"{n_workers} workers are there")
        return endpoint

    def dial(self, role: str = "client", *, seconds: float = 10.0, **options: Any) -> Dialed:
        """A bare connection through the door; `Dialed.port` is to be closed."""
        endpoint = self.find()
        assert endpoint is not None, f"server {self.name} does not run"
        return dial(endpoint, self.config, role, seconds=seconds, **{"transport": self.way, **options})

    def knock(self, way: str = "") -> socket.socket:
        """A bare connection to the door, for those who do not say what they should."""
        endpoint = self.find()
        assert endpoint is not None, f"server {self.name} does not run"
        if (way or self.way) == "tcp":
            return socket.create_connection((endpoint.host, endpoint.port), OPENING)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect("\0" + endpoint.unix.removeprefix("@"))
        return sock

    @contextlib.contextmanager
    def operate(self) -> Iterator[Operator]:
        """Somebody who looks after the server."""
        operator = Operator(self.dial("operator"), self.config)
        try:
            yield operator
        finally:
            operator.close()

    def connect(self, *, timeout: float | None = None, **options: Any) -> RemoteModel:
        """A client in this process and thread."""
        config = self.config if timeout is None else self.config.changed(timeout=timeout)
        return call(self.name, config, transport=self.way, **options)

    def stop(self) -> tuple[str, ...]:
        """Ends the server as Ctrl-C would; returns the commands of processes that it left behind."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(ENDING)
        is_late = self.process.poll() is None
        if is_late:
            self.process.kill()
            self.process.wait()
        left = end_marked(self.mark, seconds=0.0 if is_late else 2.0)
        return (f"the supervisor, after {ENDING:g} s", *left) if is_late else left


@contextlib.contextmanager
def serving(model: str | Sequence[str], directory: Path, **options: Any) -> Iterator[ServerApart]:
    """A `ServerApart` that is ready; it has to end in time and leave nothing behind."""
    n_workers = options.get("workers", 2)
    server = ServerApart(model, directory, **options)
    try:
        server.wait_until_ready(n_workers)
        yield server
    except BaseException:
        server.stop()
        print(server.log, file=sys.stderr)
        raise
    left = server.stop()
    assert not left, f"processes outlived the server: {left}\n{server.log}"


def make_environment(directory: Path, mark: str, **settings: Any) -> dict[str, str]:
    """Of processes that meet in ``directory`` and nowhere else; they carry ``mark``."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DEMOS_")}
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1", MARK: mark}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [PACKAGE, os.environ.get("PYTHONPATH")]))
    environment["HOME"] = str(directory)
    environment["DEMOS_REGISTRY"] = str(directory / "registry")
    environment["DEMOS_KEY_FILE"] = str(directory / "key")
    environment["DEMOS_AUTHENTICATION"] = "key"  # this machine may have a MUNGE that lets anybody in
    return environment | {f"DEMOS_{name.upper()}": str(value) for name, value in settings.items()}
