"""Calls from any process: the right server is found, and the same model again; no MPI is needed."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inside import GATE, SOON, Gate, Hall, ServerHere
from launching import PACKAGE, run
from serving import wait_until

import demos_hpc
from demos_hpc import programs
from demos_hpc.calling import Caller
from demos_hpc.endpoint import Endpoint
from demos_hpc.errors import AccessRefused, DeadlineExceeded, InvalidInput, LaunchError, ServerLost
from demos_hpc.registry import Registry
from demos_hpc.testing import Gaussian

POINT = np.array([0.5, 2.0])
X = np.random.default_rng(11).normal(size=(40, 1))
TRUTH = Gaussian().log_density(X, POINT)
LINEAR = "demos_hpc.testing:LinearGaussian"


@pytest.fixture
def here(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> Hall:
    """A hall that `demos_hpc.connect` finds."""
    config = hall.make_config()
    monkeypatch.setenv("DEMOS_REGISTRY", config.registry)
    monkeypatch.setenv("DEMOS_KEY_FILE", config.key_file)
    monkeypatch.setenv("DEMOS_AUTHENTICATION", "key")
    return hall


def wait_for_models(server: ServerHere) -> Endpoint:
    return server.wait_for_entry(lambda entry: bool(entry.models), "has a model")


# ---- whom to call ----------------------------------------------------------------------------------------------


def test_a_model_is_found_by_whatever_it_is_called(here: Hall) -> None:
    entry = wait_for_models(here.open(name="peak"))
    for name in ("peak", "gaussian", entry.models[0]["uuid"], None):
        with demos_hpc.connect(name) as model:
            np.testing.assert_array_equal(model.log_density(X, POINT), TRUTH)


def test_nobody_is_there(here: Hall) -> None:
    with pytest.raises(LaunchError, match=rf"no server runs by itself .there is none in {here.registry}, DEMOS_REGIST"):
        demos_hpc.connect("gaussian")
    here.open(name="peak")
    with pytest.raises(ServerLost, match=r"there is no server or model 'poisson' .* there are: 'peak'\. Start one"):
        demos_hpc.connect("poisson")


def test_whoever_was_there_is_gone(here: Hall) -> None:
    server = here.open(name="peak")
    server.crash()
    for name in ("peak", "gaussian", None):
        with pytest.raises(ServerLost, match=r"server 'peak' does not answer at .*; it may have died"):
            demos_hpc.connect(name)


def test_those_who_died_are_passed_over(here: Hall) -> None:
    server = here.open(name="peak")
    server.crash()
    here.open(name="peak")
    for _ in range(10):
        with demos_hpc.connect("peak") as model:
            np.testing.assert_array_equal(model.log_density(X, POINT), TRUTH)


def test_several_models_and_no_name(here: Hall) -> None:
    servers = [here.open(), here.open(LINEAR, name="there")]
    for server in servers:
        wait_for_models(server)
    with pytest.raises(InvalidInput, match="several models are served: name one; there are: 'gaussian', 'linear-gauss"):
        demos_hpc.connect()
    for name in ("here", "gaussian"):
        with demos_hpc.connect(name) as model:
            assert model.spec.name == "gaussian"


def test_a_server_that_died_is_none_to_choose_from(here: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_for_models(here.open(LINEAR, name="there"))
    here.servers[0].crash()
    entry = here.servers[0].find_entry()
    assert entry is not None
    monkeypatch.setattr("demos_hpc.endpoint.HEARTBEATS_MISSED", 0.001)
    wait_for_models(here.open(heartbeat=1e6))
    with demos_hpc.connect() as model:
        assert model.spec.name == "gaussian"


def test_two_servers_of_one_model_share_the_clients(hall: Hall) -> None:
    one, two = hall.open(GATE, name="one"), hall.open(GATE, name="two")
    for server in (one, two):
        wait_for_models(server)
    chosen = Counter(choose(hall) for _ in range(30))
    assert set(chosen) == {"one", "two"}  # as long as both are idle
    with one.connect() as model:
        model.log_density(X, POINT)
        model.sample(10, POINT, seed=1)  # what it costs is known
        futures = [model.submit.log_density(np.full((2, 1), 200.0), POINT)]
        assert Gate.entered.wait(SOON)
        backlog = [model.submit.log_density(np.zeros((200_000, 1)), POINT) for _ in range(20)]
        one.wait_for_entry(lambda entry: entry.load > 0.05, "has much to do")
        assert Counter(choose(hall) for _ in range(20)) == {"two": 20}
        for future in backlog:
            future.cancel()
        Gate.opened.set()
        for future in futures:
            future.result()
    one.wait_for_entry(lambda entry: entry.load == 0, "has nothing to do")
    assert len({choose(hall) for _ in range(30)}) == 2


def choose(hall: Hall) -> str:
    """The server that a client of the model gets."""
    told: list[str] = []
    hall.make_caller("gate", tell=told.append).close()
    (line,) = told
    assert line.endswith("of 2 servers by unix")
    return line.split()[0]


def test_a_server_that_drains_is_the_last_to_be_asked(hall: Hall) -> None:
    one, two = hall.open(name="one"), hall.open(name="two")
    wait_for_models(two)
    with one.operate() as operator:
        operator._connection.ask(demos_hpc.messages.Operation.DRAIN, {}).result()
        one.wait_for_entry(lambda entry: entry.state == "draining", "drains")
        told: list[str] = []
        for _ in range(10):
            hall.make_caller("gaussian", tell=told.append).close()
    assert {line.split()[0] for line in told} == {"two"}


# ---- how -------------------------------------------------------------------------------------------------------


def test_a_way_that_was_insisted_on(here: Hall) -> None:
    here.open()
    for transport in ("unix", "tcp"):
        with demos_hpc.connect("here", transport=transport) as model:
            assert model._connection._link.transport == transport
    with pytest.raises(InvalidInput, match="transport is 'pigeon'; it is auto, unix or tcp"):
        demos_hpc.connect("here", transport="pigeon")


def test_a_timeout_is_kept(here: Hall) -> None:
    here.open(GATE)
    with demos_hpc.connect("here", timeout=0.2) as model, pytest.raises(DeadlineExceeded):
        model.log_density(np.full((3, 1), 200.0), POINT)
    Gate.opened.set()
    for bad in (-1.0, "soon"):
        with pytest.raises(InvalidInput, match="timeout"):
            demos_hpc.connect("here", timeout=bad)  # type: ignore[arg-type]


def test_who_waits_for_a_model_does_so_for_so_long(here: Hall) -> None:
    here.open(workers=0)
    with pytest.raises(DeadlineExceeded):
        demos_hpc.connect("here", timeout=0.2)


def test_workers_that_differ_are_noticed(here: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    server = here.open()
    demos_hpc.connect("here", identical=True).close()
    monkeypatch.setattr("demos_hpc.joining.describe_arithmetic", lambda: "another CPU")
    server.add_worker()
    server.wait_for_entry(lambda entry: entry.workers == 2, "two workers")
    demos_hpc.connect("here").close()
    with pytest.raises(LaunchError, match=r"the workers are not alike, .*another CPU"):
        demos_hpc.connect("here", identical=True)


def test_who_is_not_let_in(here: Hall) -> None:
    here.open()
    with here.pass_for("mallory"), pytest.raises(AccessRefused, match="does not let you in"):
        demos_hpc.connect("here")


def test_an_analysis_of_a_launch_asks_its_own_server_first(here: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    here.open()

    class Launched:
        def connect(self) -> Any:
            raise ServerLost("this is the launch's own")

    monkeypatch.setattr(programs, "_running", [Launched()])
    with pytest.raises(ServerLost, match="the launch's own"):
        demos_hpc.connect("here")
    with demos_hpc.connect("here", transport="tcp") as model:
        np.testing.assert_array_equal(model.log_density(X, POINT), TRUTH)


# ---- again -----------------------------------------------------------------------------------------------------


def make_caller(hall: Hall, name: str | None) -> Caller:
    return Caller(name, hall.make_config(), "auto", Registry(hall.registry), lambda text: None)


@pytest.mark.parametrize("name", ["here", "gaussian", None])
def test_the_same_model_is_found_again(hall: Hall, name: str | None) -> None:
    hall.open(LINEAR, name="other")
    server = hall.open()
    entry = wait_for_models(server)
    caller = make_caller(hall, name)
    caller.wanted = "gaussian", entry.models[0]["uuid"], entry.models[0]["version"]
    for _ in range(5):
        found = caller.redial(SOON)
        assert found.handle == 1
        assert found.link.name.startswith("server here")
        found.port.close()


def test_another_version_of_the_model_is_not_the_same(hall: Hall) -> None:
    entry = wait_for_models(hall.open())
    caller = make_caller(hall, "here")
    caller.wanted = "gaussian", entry.models[0]["uuid"], "0.9.0"
    with pytest.raises(LaunchError, match=r"has version 1\.0\.0 of the model"):
        caller.redial(SOON)


def test_a_server_without_the_model_is_none(hall: Hall) -> None:
    wait_for_models(hall.open(LINEAR))
    caller = make_caller(hall, "here")
    caller.wanted = "gaussian", "528ea058-8e13-5b49-9724-e7875cbbea2b", "1.0.0"
    with pytest.raises(ServerLost, match="there is no model"):
        caller.redial(SOON)


def test_a_client_goes_on_at_the_next_server(hall: Hall) -> None:
    server = hall.open()
    with hall.make_caller("here", reconnect=True) as model:
        assert model.set_params(mu=3.0) == 2
        server.crash()
        hall.open(LINEAR, name="nearby")
        hall.open(workers=0)  # its worker finds it by itself
        np.testing.assert_array_equal(model.log_density(X), Gaussian().log_density(X, np.array([3.0, 1.0])))
        assert model.metadata()["revision"] == 2


def test_a_client_without_a_name_finds_its_model_among_others(hall: Hall) -> None:
    server = hall.open()
    wait_for_models(server)
    with hall.make_caller(None, reconnect=True) as model:
        other = hall.open(LINEAR, name="other")
        wait_for_models(other)
        server.crash()
        hall.open(name="again")
        for _ in range(3):
            np.testing.assert_array_equal(model.log_density(X, POINT), TRUTH)


def test_a_client_goes_on_where_a_server_has_ended(hall: Hall) -> None:
    one, two = hall.open(name="one"), hall.open(name="two")
    wait_for_models(two)
    told: list[str] = []
    with hall.make_caller("gaussian", reconnect=True, tell=told.append) as model:
        first = {"one": one, "two": two}[told[0].split()[0]]
        first.server._reception.stop()
        assert first.thread.end() is None
        for _ in range(5):
            np.testing.assert_array_equal(model.log_density(X, POINT), TRUTH)
    assert {line.split()[0] for line in told} == {"one", "two"}


# ---- threads and forks -----------------------------------------------------------------------------------------


def test_a_connection_belongs_to_its_thread(hall: Hall) -> None:
    server = hall.open()
    errors: list[BaseException] = []
    with server.connect() as model:
        future = model.submit.log_density(X, POINT)

        def misuse() -> None:
            for do in (lambda: model.log_density(X, POINT), future.result, model.metadata, future.cancel):
                try:
                    do()
                except RuntimeError as error:
                    errors.append(error)

        thread = threading.Thread(target=misuse)
        thread.start()
        thread.join(SOON)
        assert len(errors) == 4
        assert {str(error) for error in errors} == {
            "this connection belongs to the thread that made it; connect once in each thread"
        }
        np.testing.assert_array_equal(future.result(), TRUTH)


def test_each_thread_has_its_own(hall: Hall) -> None:
    server = hall.open()
    answers: list[Any] = []

    def ask(shift: float) -> None:
        with server.connect() as model:
            answers.append((shift, model.log_density(X + shift, POINT)))

    threads = [threading.Thread(target=ask, args=(float(n),)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    assert sorted(shift for shift, _ in answers) == [0.0, 1.0, 2.0, 3.0, 4.0]
    for shift, answer in answers:
        np.testing.assert_array_equal(answer, Gaussian().log_density(X + shift, POINT))


FORKING = """
import os, signal, sys
import numpy as np
import demos_hpc

x, point = np.zeros((5, 1)), [0.5, 2.0]
with demos_hpc.connect("here", timeout=20) as model:
    first = model.log_density(x, point)
    future = model.submit.log_density(x, point)
    child = os.fork()
    if not child:
        signal.alarm(20)
        caught = []
        for do in (lambda: model.log_density(x, point), future.result, model.metadata):
            try:
                do()
            except RuntimeError as error:
                caught.append(str(error))
        assert caught == ["this connection belongs to the process that made it, not to its forks"] * 3, caught
        with demos_hpc.connect("here", timeout=20) as own:
            assert (own.log_density(x, point) == first).all()
        sys.exit(0)  # leaves the with block, and everything is cleaned up
    assert os.waitpid(child, 0)[1] == 0
    assert (future.result() == first).all()
    assert (model.log_density(x, point) == first).all()
print("both were answered")
"""


def run_script(hall: Hall, directory: Path, text: str) -> str:
    """What a script prints that finds the servers in the hall; it must not complain."""
    path = directory / "script.py"
    path.write_text(text, encoding="utf-8")
    config = hall.make_config()
    settings = {"DEMOS_REGISTRY": config.registry, "DEMOS_KEY_FILE": config.key_file, "DEMOS_AUTHENTICATION": "key"}
    # A fork that ends leaves sockets as they are.
    command = [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", str(path)]
    launched = run(command, cwd=directory, deadline=60.0, settings=settings | {"PYTHONPATH": PACKAGE})
    assert (launched.code, launched.err, launched.left) == (0, "", ()), launched.text
    return launched.out


def test_a_connection_belongs_to_its_process(hall: Hall, tmp_path: Path) -> None:
    server = hall.open()
    assert run_script(hall, tmp_path, FORKING) == "both were answered\n"
    wait_until(lambda: server.find_entry().clients == 0, SOON, "both are gone")  # type: ignore[union-attr]


WITHOUT_MPI = """
import sys
sys.modules["mpi4py"] = None
import numpy as np
import demos_hpc, demos_hpc.testing

for transport in ("tcp", "unix", "auto"):
    with demos_hpc.connect("gaussian", transport=transport, timeout=20) as model:
        x = np.linspace(-1.0, 1.0, 1000)[:, None]
        density = model.log_density(x, [0.5, 2.0])
        assert density.sum() == demos_hpc.local(demos_hpc.testing.Gaussian()).log_density(x, [0.5, 2.0]).sum()
        for _ in range(200):  # long enough for the link to go on by something faster, if there is anything
            assert (model.log_density(x[:5], [0.5, 2.0]) == density[:5]).all()
        assert model.sample(10_000, seed=1).shape == (10_000, 1)
assert not [name for name in sys.modules if name.startswith("mpi4py.")]
print("no MPI")
"""


def test_a_client_needs_no_mpi(hall: Hall, tmp_path: Path) -> None:
    wait_for_models(hall.open(workers=2))
    assert run_script(hall, tmp_path, WITHOUT_MPI) == "no MPI\n"
