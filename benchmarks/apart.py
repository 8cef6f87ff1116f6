"""A server of its own for a benchmark: a dispatcher behind a door, its workers, and those who call it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stage import HERE, PATH, PYTHON, Peer, list_processes_below, start_command

from demos_hpc.calling import call
from demos_hpc.client import RemoteModel
from demos_hpc.config import Config
from demos_hpc.connection import Connection
from demos_hpc.dialing import dial, find_user
from demos_hpc.identity import make_key_file
from demos_hpc.messages import Operation
from demos_hpc.registry import Registry

#: Seconds for a server to be there, and to be gone.
OPENING, ENDING = 60.0, 60.0
CLIENT = (*PYTHON, str(HERE / "service_client.py"))


class Apart:
    """A running server; ``environment`` is that in which it is found."""

    def __init__(self, process: subprocess.Popen[bytes], environment: dict[str, str]) -> None:
        self.process = process
        self.environment = environment
        self._config = Config.load(environment)

    def wait_until_ready(self, n_workers: int) -> None:
        """Returns once so many workers are there."""
        end = time.monotonic() + OPENING
        while sum(bool(worker["is_alive"]) for worker in self.look()["workers"]) < n_workers:
            if time.monotonic() >= end or self.process.poll() is not None:
                raise RuntimeError("the server has not started")
            time.sleep(0.05)

    def look(self) -> dict[str, list[dict[str, Any]]]:
        """What the server says of itself; no workers before it is there."""
        endpoints = Registry(self._config.registry_directory).find(None)
        if not endpoints:
            return {"workers": []}
        dialed = dial(endpoints[0], self._config, "operator", seconds=OPENING)
        connection = Connection(dialed.port, dialed.link, self._config)
        try:
            return connection.ask(Operation.STATISTICS, {}).result()
        finally:
            connection.say_goodbye()
            dialed.port.flush(1.0)
            dialed.port.close()

    def find_pids(self) -> dict[str, int]:
        """Of the dispatcher and of the first worker."""
        [endpoint] = Registry(self._config.registry_directory).find(None)
        worker = next(worker for worker in self.look()["workers"] if worker["is_alive"])
        return {"dispatcher": endpoint.pid, "worker": int(worker["pid"])}

    def connect(self) -> RemoteModel:
        """A client in this process."""
        return call(None, self._config)

    def start_client(self, transport: str) -> contextlib.AbstractContextManager[Peer]:
        """A plain process that calls the server by ``transport``."""
        return start_command(f"demos-hpc by {transport}", [*CLIENT, transport], environment=self.environment)


@contextlib.contextmanager
def start_server(model: str, n_workers: int = 1, **settings: object) -> Iterator[Apart]:
    """``demos-hpc serve``, with a registry and a key of its own; ``settings`` as in `Config`."""
    with tempfile.TemporaryDirectory() as folder:
        own = {"REGISTRY": f"{folder}/registry", "KEY_FILE": f"{folder}/key"}
        own |= {name.upper(): str(value) for name, value in settings.items()}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DEMOS_")}
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": PATH}
        environment |= {f"DEMOS_{name}": value for name, value in own.items()}
        make_key_file(Path(folder, "key"), find_user())
        command = [*PYTHON, "-m", "demos_hpc", "serve", model, "--workers", str(n_workers), "--name", "bench"]
        log = Path(folder, "log")
        with log.open("wb") as file:
            process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=file)
        try:
            server = Apart(process, environment)
            server.wait_until_ready(n_workers)
            yield server
        except BaseException:
            sys.stderr.write(log.read_text(encoding="utf-8", errors="replace"))
            raise
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Stops a server as Ctrl-C does."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(ENDING)
    except subprocess.TimeoutExpired:
        for pid in list_processes_below(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()
