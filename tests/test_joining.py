"""Workers that join a server through its door, and look for it when it is lost."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inside import GATE, GAUSSIAN, SOON, Gate, Hall, Thread
from serving import wait_until

from demos_hpc import joining
from demos_hpc.config import Config
from demos_hpc.errors import AccessRefused, DemosError, InvalidInput, ModelFailed, ModelNotFound, ServerLost
from demos_hpc.joining import join
from demos_hpc.registry import Registry
from demos_hpc.testing import Gaussian

POINT = np.array([0.5, 2.0])
X = np.random.default_rng(11).normal(size=(40, 1))
TRUTH = Gaussian().log_density(X, POINT)


def come_in(name: str, config: Config, model: str = "") -> None:
    """Joins a server that should not let us work; raises what it says instead."""
    thread = Thread(lambda: join(name, config, model=model), "a worker that is not wanted")
    thread.start()
    error = thread.end()
    assert error is not None
    raise error


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "LONGEST_PAUSE", 0.05)


def test_a_worker_works_until_the_server_ends(hall: Hall) -> None:
    server = hall.open(workers=0)
    worker = server.add_worker("s.0#1")
    with server.connect() as model:
        np.testing.assert_array_equal(model.log_density(X, POINT), TRUTH)
        with server.operate() as operator:
            (told,) = operator.list_workers()
            assert (told["name"], told["transport"]) == ("s.0", "unix")
            assert operator.look()["careers"]["s.0#1"] == told["chunks"] > 0
            wait_until(lambda: operator.list_workers()[0]["rss_bytes"] > 1 << 20, SOON, "it says how it is")
    server.stop()
    assert worker.end() is None


def test_a_worker_finds_its_server_again(hall: Hall, capfd: pytest.CaptureFixture[str]) -> None:
    server = hall.open()
    (worker,) = server.workers
    with server.connect() as model:
        model.set_params(mu=3.0)
    server.crash()
    again = hall.open(workers=0)
    with again.connect() as model:  # waits for the worker
        assert model.params.tolist() == [3.0, 1.0]
        np.testing.assert_array_equal(model.log_density(X, POINT), TRUTH)
        assert model.metadata()["workers"] == 1
    again.stop()
    assert worker.end() is None
    assert "looking for it" in capfd.readouterr().err


def test_a_worker_gives_up_looking(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "PATIENCE", 0.1)
    server = hall.open()
    (worker,) = server.workers
    server.crash()
    assert isinstance(worker.end(), ServerLost)


def test_a_worker_of_no_server(hall: Hall) -> None:
    hall.open(name="here", workers=0)
    with pytest.raises(ServerLost, match=r"there is no server .*'there' in .*; there are: 'here'"):
        come_in("there", hall.make_config())


def test_a_worker_joins_the_server_of_this_name_and_none_with_such_a_model(hall: Hall) -> None:
    """A server that is called as its model is, as by default, and another of the same model."""
    other = hall.open(name="gaussian-2")
    with pytest.raises(ServerLost, match="there is no server"):
        come_in("gaussian", hall.make_config())
    server = hall.open(name="gaussian", workers=0)
    for n in range(1, 5):
        server.add_worker()
        server.wait_for_entry(lambda entry, n=n: entry.workers == n, f"{n} workers")
    assert other.wait_for_entry(lambda entry: True, "is there").workers == 1


def test_workers_of_two_servers_of_one_name_are_told_apart(hall: Hall) -> None:
    one, two = (hall.open(name="twin", workers=0, family=digit * 32) for digit in "12")
    for n in range(1, 4):
        one.add_worker()
        one.wait_for_entry(lambda entry, n=n: entry.workers == n, f"{n} workers")
    assert two.wait_for_entry(lambda entry: True, "is there").workers == 0
    two.add_worker()
    two.wait_for_entry(lambda entry: entry.workers == 1, "its worker")
    two.crash()
    hall.open(name="twin", workers=0, family="2" * 32).wait_for_entry(lambda entry: entry.workers == 1, "finds it")
    assert one.find().workers == 3


def test_a_server_that_drains_gets_no_more_workers(hall: Hall) -> None:
    server = hall.open(GATE)
    with server.connect() as model:
        running = model.submit.log_density(np.full((3, 1), 200.0), POINT)
        assert Gate.entered.wait(SOON)
        server.server._reception.stop()
        server.wait_for_entry(lambda entry: entry.state == "draining", "drains")
        with pytest.raises(ServerLost):
            come_in("here", server.config)
        Gate.opened.set()
        running.result()


def test_a_worker_that_is_no_friend(hall: Hall, tmp_path: Path) -> None:
    server = hall.open(workers=0)
    key = tmp_path / "other"
    key.write_text(f"{server.find().user} {secrets.token_hex(32)}\n", encoding="ascii")
    key.chmod(0o600)
    with pytest.raises(AccessRefused, match="does not let you in"):
        come_in("here", server.config.changed(key_file=str(key)))


# ---- models that cannot be loaded, and others ------------------------------------------------------------------


def write(directory: Path, text: str, name: str = "own.py") -> str:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return f"{path}:Own"


BROKEN: dict[str, tuple[str, type[DemosError], str]] = {
    "raises": ("raise OSError('no matrix elements')", ModelFailed, "no matrix elements"),
    "has another name": ("Another = 3", ModelNotFound, "has no 'Own'"),
    "is no model": ("class Own:\n    spec = 3\n", InvalidInput, "spec"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_model_that_cannot_be_loaded(hall: Hall, tmp_path: Path, what: str) -> None:
    text, kind, message = BROKEN[what]
    path = write(tmp_path, text)
    server = hall.open(path, workers=0)
    with pytest.raises((kind, ModelFailed), match=message) as caught:
        come_in("here", server.config)
    with pytest.raises((kind, ModelFailed), match=message) as told:  # whoever calls hears it as well
        server.connect()
    if what == "raises":
        for error in (caught.value, told.value):
            assert error.__cause__ is not None
    server.add_worker(model=GAUSSIAN)  # and it is not too late
    server.wait_for_entry(lambda entry: entry.workers == 1, "a worker")
    with server.connect() as model:
        np.testing.assert_array_equal(model.log_density(X, POINT), TRUTH)


OWN = """
from demos_hpc.testing import Gaussian

class Own(Gaussian):
    def __init__(self):
        super().__init__({arguments})

    def log_density(self, x, params):
        return super().log_density(x, params){change}
"""


@pytest.mark.parametrize(
    ("arguments", "change", "what"), [("", " + 0.0", "code"), ("d=2", "", "spec"), ("block_rows=4", "", "spec")]
)
def test_a_worker_with_another_model_is_refused_and_says_so(
    hall: Hall, tmp_path: Path, arguments: str, change: str, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    server = hall.open(write(tmp_path, OWN.format(arguments="", change="")))
    other = write(tmp_path, OWN.format(arguments=arguments, change=change), "other.py")
    with pytest.raises(ModelFailed, match=f"two different models are called 'gaussian': workers differ in its {what}"):
        come_in("here", server.config, model=other)
    assert "serves nothing: two different models are called 'gaussian'" in capfd.readouterr().err
    with server.connect() as model:
        assert model.metadata()["workers"] == 1
        np.testing.assert_array_equal(model.log_density(X, POINT), TRUTH)
    with pytest.raises(InvalidInput, match="there is no model 'other'"):  # what nobody knows is nobody's failure
        server.connect_to_model("other")


def test_a_worker_with_a_further_model(hall: Hall) -> None:
    server = hall.open()
    server.add_worker(model="demos_hpc.testing:LinearGaussian")
    server.wait_for_entry(lambda entry: len(entry.models) == 2, "has two models")
    with hall.make_caller("linear-gaussian") as model:
        assert model.spec.name == "linear-gaussian"
    with pytest.raises(InvalidInput, match="several models are served: name one"):
        server.connect()


def test_a_model_is_loaded_once(hall: Hall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []
    load = joining.load

    def count(path: str, config: Any) -> Any:
        loads.append(path)
        return load(path, config)

    monkeypatch.setattr(joining, "load", count)
    server = hall.open()
    server.crash()
    again = hall.open(workers=0)
    again.wait_for_entry(lambda entry: entry.workers == 1, "it is back")
    assert loads == [GAUSSIAN]


def test_the_registry_names_whoever_lives(hall: Hall) -> None:
    """The entry of a server that has crashed does not keep workers from finding the next."""
    server = hall.open()
    server.crash()
    again = hall.open()
    assert {entry.id for entry in Registry(hall.registry).find("here")} == {server.server.id, again.server.id}
    again.wait_for_entry(lambda entry: entry.workers == 2, "both workers")
