"""An operator asks one server how it is, and lets it drain and stop."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from launching import end_marked
from serving import ENDING, OPENING, ServerApart, make_environment, serving, wait_until
from test_endpoint import ENDPOINT

from demos_hpc.calling import call
from demos_hpc.config import Config
from demos_hpc.dialing import find_user
from demos_hpc.endpoint import Endpoint, find_boot
from demos_hpc.errors import AccessRefused, DeadlineExceeded, Draining, ServerLost
from demos_hpc.identity import make_key_file
from demos_hpc.metrics import FORMAT
from demos_hpc.operating import Operator
from demos_hpc.registry import Registry

GAUSSIAN = "demos_hpc.testing:Gaussian"
#: Rows take a while, until a file says that it is enough.
SLOW = """
import os, time
from demos_hpc.testing import Gaussian

class Slow(Gaussian):
    def log_density(self, x, params):
        while not os.path.exists({flag!r}):
            time.sleep(0.005)
        return super().log_density(x, params)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerApart]:
    """A server that tests only look at."""
    with serving(GAUSSIAN, tmp_path_factory.mktemp("server"), workers=1, name="peak", heartbeat=0.5) as running:
        yield running


@contextlib.contextmanager
def unsupervised(model: str, directory: Path, name: str = "alone") -> Iterator[tuple[Config, Endpoint]]:
    """A dispatcher and a worker that nobody starts again."""
    mark = os.urandom(8).hex()
    environment = make_environment(directory, mark, heartbeat=0.5)
    config = Config.load(environment)
    make_key_file(config.key_path, find_user())
    registry = Registry(config.registry_directory)
    words = [["dispatch", model, "--name", name], ["worker", "--join", name]]
    children = []
    try:
        for command in words:
            children.append(
                subprocess.Popen(
                    [sys.executable, "-m", "demos_hpc", *command], env=environment, stdin=subprocess.DEVNULL
                )
            )
            wait_until(lambda: registry.find(name), OPENING, "the dispatcher is there")
        wait_until(lambda: registry.find(name)[0].state == "ready", OPENING, "the worker is there")
        yield config, registry.find(name)[0]
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait(ENDING)
        assert not end_marked(mark, seconds=2.0)


def operate(server: ServerApart, seconds: float = 10.0) -> Operator:
    endpoint = server.find()
    assert endpoint is not None
    return Operator(endpoint, server.config, seconds=seconds)


def test_statistics_say_how_the_server_is(server: ServerApart) -> None:
    with operate(server) as operator:
        description = operator.statistics()
    assert (description["format"], description["server"], description["state"]) == (FORMAT, "peak", "ready")
    assert [worker["is_alive"] for worker in description["workers"]] == [True]
    assert [model["spec"]["name"] for model in description["models"]] == ["gaussian"]


def test_operators_are_no_clients(server: ServerApart) -> None:
    with operate(server), operate(server) as operator:
        assert sum(user["clients"] for user in operator.statistics()["users"]) == 0


def test_a_ping_is_measured(server: ServerApart) -> None:
    with operate(server) as operator:
        assert operator.transport == "unix"
        trips = [operator.ping() for _ in range(50)]
    assert min(trips) > 0
    assert min(trips) < 0.1
    assert repr(operator) == "<Operator of peak by unix>"


def test_over_tcp_where_there_is_no_unix_socket_to_reach(server: ServerApart) -> None:
    endpoint = server.find()
    assert endpoint is not None
    with Operator(replace(endpoint, unix=""), server.config) as operator:
        assert operator.transport == "tcp"
        assert operator.statistics()["state"] == "ready"


def test_a_closed_operator_asks_nothing_more(server: ServerApart) -> None:
    with operate(server) as operator:
        pass
    with pytest.raises(ServerLost, match="was closed"):
        operator.statistics()
    with pytest.raises(ServerLost, match="was closed"):
        operator.ping()
    operator.close()


def test_strangers_are_refused(server: ServerApart, tmp_path: Path) -> None:
    endpoint = server.find()
    assert endpoint is not None
    make_key_file(tmp_path / "key", find_user())
    with pytest.raises(AccessRefused, match="does not let you in"):
        Operator(endpoint, server.config.changed(key_file=str(tmp_path / "key")))


def test_nobody_is_there() -> None:
    endpoint = replace(ENDPOINT, name="gone", unix="@demos-gone", boot=find_boot(), host="127.0.0.1", port=1, tls="")
    with pytest.raises(ServerLost, match=r"server 'gone' does not answer at 127\.0\.0\.1, port 1"):
        Operator(endpoint, Config())


def test_a_server_that_says_nothing_is_not_waited_for(server: ServerApart) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind("\0demos-silent")
        silent.listen()
        endpoint = replace(ENDPOINT, name="silent", unix="@demos-silent", boot=find_boot())
        with pytest.raises(DeadlineExceeded, match="silent"):
            Operator(endpoint, server.config, seconds=0.2)


def test_a_server_that_hangs_is_not_waited_for(server: ServerApart) -> None:
    with operate(server, seconds=0.2) as operator:
        os.kill(operator.endpoint.pid, signal.SIGSTOP)
        try:
            with pytest.raises(DeadlineExceeded, match=r"server peak on .* has not answered within 0\.2 s: it hangs"):
                operator.ping()
            with pytest.raises(DeadlineExceeded, match="has not answered"):
                operator.statistics()
        finally:
            os.kill(operator.endpoint.pid, signal.SIGCONT)
        with operate(server) as other:
            assert other.statistics()["state"] == "ready"


def test_a_server_that_dies_meanwhile(tmp_path: Path) -> None:
    with unsupervised(GAUSSIAN, tmp_path) as (config, endpoint), Operator(endpoint, config) as operator:
        os.kill(endpoint.pid, signal.SIGKILL)
        with pytest.raises(ServerLost):
            operator.ping()
        with pytest.raises(ServerLost):
            operator.statistics()


def test_drained_it_finishes_and_takes_nothing_new_and_then_it_stops(
    tmp_path: Path, write_script: Callable[..., Path]
) -> None:
    flag = tmp_path / "enough"
    script = write_script(SLOW.format(flag=str(flag)), "slow.py")
    with unsupervised(f"{script}:Slow", tmp_path) as (config, endpoint), Operator(endpoint, config) as operator:
        model = call("alone", config)
        before = model.submit.log_density(np.zeros((3, 1)))
        wait_until(lambda: operator.statistics()["workers"][0]["running_seconds"], OPENING, "the worker has begun")
        assert operator.drain() == {"state": "draining", "requests": 1}
        with pytest.raises(Draining):
            model.log_density([[0.0]])
        assert operator.drain()["state"] == "draining"
        assert not operator.statistics()["is_stopping"]
        assert operator.stop()["requests"] == 1
        assert operator.statistics()["is_stopping"]
        flag.touch()
        assert len(before.result()) == 3
        model.close()
        with pytest.raises(ServerLost):
            wait_until(lambda: not operator.statistics(), ENDING, "it ends")


def test_stopped_now_it_waits_for_no_queue(tmp_path: Path, write_script: Callable[..., Path]) -> None:
    flag = tmp_path / "enough"
    script = write_script(SLOW.format(flag=str(flag)), "slow.py")
    with unsupervised(f"{script}:Slow", tmp_path) as (config, endpoint), Operator(endpoint, config) as operator:
        model = call("alone", config)
        futures = [model.submit.log_density(np.zeros((3, 1))) for _ in range(20)]
        wait_until(lambda: operator.statistics()["workers"][0]["running_seconds"], OPENING, "the worker has begun")
        assert operator.stop(now=True)["requests"] == 1  # what was not begun is handed back
        flag.touch()  # a chunk that runs already may be awaited
        with pytest.raises((ServerLost, Draining)):
            futures[-1].result(timeout=ENDING)
        model.close()


def test_each_thread_has_an_operator_of_its_own(server: ServerApart) -> None:
    states: list[str] = []

    def look() -> None:
        with operate(server) as operator:
            states.append(operator.statistics()["state"])

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(OPENING)
    assert states == ["ready"] * 8
