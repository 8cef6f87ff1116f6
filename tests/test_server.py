"""A server of its own: found, reached over real sockets, and faithful to what it was told before."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inside import GATE, GAUSSIAN, SOON, Gate, Hall, ServerHere
from serving import wait_until
from test_recall import CALLS, ask

from demos_hpc import registry
from demos_hpc import server as server_module
from demos_hpc.client import RemoteModel
from demos_hpc.errors import AccessRefused, Busy, InvalidInput, LaunchError
from demos_hpc.identity import ANYBODY
from demos_hpc.local import local
from demos_hpc.revisions import Revisions
from demos_hpc.testing import Gaussian

POINT = np.array([0.5, 2.0])
X = np.random.default_rng(11).normal(size=(40, 1))
TRUTH = Gaussian().log_density(X, POINT)
MODEL = "odd_models:Improper"


# ---- how it shows ----------------------------------------------------------------------------------------------


def test_a_server_is_found_while_it_lives(hall: Hall) -> None:
    server = hall.open(workers=0)
    entry = server.wait_for_entry(lambda entry: True, "is there")
    assert (entry.name, entry.state, entry.models, entry.workers) == ("here", "starting", [], 0)
    assert (entry.host, entry.tls, entry.model_path) == ("127.0.0.1", "", GAUSSIAN)
    for _ in range(2):
        server.add_worker()
    entry = server.wait_for_entry(lambda entry: entry.workers == 2, "has workers")
    assert entry.state == "ready"
    assert [model["name"] for model in entry.models] == ["gaussian"]
    with server.connect(), server.connect():
        server.wait_for_entry(lambda entry: entry.clients == 2, "has clients")
    server.wait_for_entry(lambda entry: entry.clients == 0, "has none any more")
    before = server.wait_for_entry(lambda entry: True, "is there").heartbeat
    server.wait_for_entry(lambda entry: entry.heartbeat > before, "goes on")
    server.stop()
    assert server.find_entry() is None


def test_a_server_that_becomes_ready_says_so_before_its_heartbeat(hall: Hall) -> None:
    server = hall.open(workers=0, heartbeat=3600.0)
    server.wait_for_entry(lambda entry: entry.state == "starting", "starts")
    server.add_worker()
    server.wait_for_entry(lambda entry: entry.state == "ready", "is ready")
    with hall.make_caller("gaussian") as model:
        np.testing.assert_array_equal(model.log_density(X, POINT), TRUTH)


def test_a_model_file_is_found_from_anywhere(hall: Hall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text("from demos_hpc.testing import Gaussian\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    server = hall.open("own.py:Gaussian", workers=0)
    monkeypatch.chdir("/")
    assert server.find().model_path == f"{tmp_path}/own.py:Gaussian"
    server.add_worker()
    server.wait_for_entry(lambda entry: entry.workers == 1, "has a worker")


def test_more_work_than_can_ever_be_done_is_a_load_as_any(hall: Hall) -> None:
    """Rows that are drawn have no bytes, so anybody may ask for 2**63 of them."""
    server = hall.open("inside:Blocks")
    with server.connect() as model, server.connect() as other:
        model.sample(10, POINT)
        futures = [model._connection.start(5, [POINT], 2**63, 2**63, ((1,),), len, model=1, out=[]) for _ in range(3)]
        entry = server.wait_for_entry(lambda entry: entry.load > 0, "has much to do")
        assert entry.load >= 1e6
        np.testing.assert_array_equal(other.log_density(X, POINT), TRUTH)
        for future in futures:
            future.cancel()


# ---- its answers -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def truth() -> dict[str, tuple[bytes, int, int]]:
    """What the same model answers in this process."""
    model = local(Gaussian(block_rows=16))
    return {name: ask(call(model)) for name, call in CALLS.items()}


@pytest.fixture
def caching(hall: Hall) -> ServerHere:
    return hall.open("inside:Blocks", workers=2, cache_bytes=1 << 20)


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_answers_from_memory_are_those_of_workers(
    caching: ServerHere, truth: dict[str, tuple[bytes, int, int]], transport: str
) -> None:
    with caching.connect(transport=transport) as model, caching.connect() as other:
        for client in (model, other, model):
            assert {name: ask(call(client)) for name, call in CALLS.items()} == truth
        with caching.operate() as operator:
            told = operator.look()
            assert told["cache"]["hits"] == 2 * len(CALLS)
            assert told["requests"] == told["models"][0]["statistics"]["requests"] == 3 * len(CALLS)
        other.set_params(mu=2.0)
        changed = {name: ask(call(model)) for name, call in CALLS.items()}
        assert {name: ask(call(other)) for name, call in CALLS.items()} == changed
    for name, (value, revision, nonfinite) in changed.items():
        assert (revision, nonfinite) == (2, 0)
        assert (value != truth[name][0]) == ("server's parameters" in name)


def test_rows_that_are_no_numbers_are_counted_from_memory_too(hall: Hall) -> None:
    server = hall.open(MODEL, cache_bytes=1 << 20)
    with server.connect() as model:
        x = np.resize([1.0, 7.0, 8.0], (300, 1))
        first = ask(model.submit.log_density(x, POINT))
        assert first[2] == 200
        assert ask(model.submit.log_density(x, POINT)) == first
        assert model.metadata()["statistics"]["nonfinite_rows"] == 400


# ---- parameters ------------------------------------------------------------------------------------------------


def tell(model: RemoteModel) -> tuple[int, dict[str, float]]:
    described = model.metadata()
    return described["revision"], described["params"]


def test_two_servers_of_one_model_follow_one_another(hall: Hall) -> None:
    one, two = hall.open(name="one"), hall.open(name="two", cache_bytes=1 << 20)
    with one.connect() as first, two.connect() as second:
        second.log_density(X)
        before = ask(second.submit.log_density(X, POINT))
        assert ask(second.submit.log_density(X, POINT)) == before
        assert first.set_params(mu=3.0) == 2
        wait_until(lambda: tell(second) == (2, {"mu": 3.0, "sigma": 1.0}), SOON, "the second follows")
        truth = Gaussian().log_density(X, np.array([3.0, 1.0]))
        for model in (first, second):
            np.testing.assert_array_equal(model.log_density(X), truth)
        value, revision, _ = ask(second.submit.log_density(X, POINT))
        assert (value, before[1], revision) == (before[0], 1, 2)
        assert second.set_params(sigma=2.0) == 3
        wait_until(lambda: tell(first) == (3, {"mu": 3.0, "sigma": 2.0}), SOON, "the first follows")


def test_a_server_of_the_same_name_keeps_its_parameters(hall: Hall) -> None:
    server = hall.open()
    with server.connect() as model:
        model.set_params(mu=3.0)
        model.set_params(sigma=2.0)
        before = tell(model)
    server.stop()
    with hall.open().connect() as model:
        assert tell(model) == before == (3, {"mu": 3.0, "sigma": 2.0})


# ---- a file system that is slow --------------------------------------------------------------------------------


def test_a_slow_registry_keeps_nobody_waiting(
    hall: Hall, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    server = hall.open()
    goes_on, waiting = threading.Event(), [threading.Event(), threading.Event()]

    def stop(nth: int) -> Any:
        def wait(*arguments: Any) -> None:
            waiting[nth].set()
            goes_on.wait(SOON)

        return wait

    with server.connect() as model:
        monkeypatch.setattr(registry, "replace_file", stop(0))
        monkeypatch.setattr(Revisions, "read", stop(1))
        assert all(event.wait(SOON) for event in waiting)
        for _ in range(50):
            np.testing.assert_array_equal(model.log_density(X, POINT), TRUTH)
        with server.operate() as operator:
            assert operator.look()["state"] == "ready"
    assert not goes_on.is_set()
    monkeypatch.setattr(server_module, "LAST_WORDS", 0.05)
    server.stop()  # gives up
    goes_on.set()


# ---- how it starts ---------------------------------------------------------------------------------------------


def test_a_key_file_that_was_named_has_to_be_there(hall: Hall) -> None:
    missing = hall.directory / "nowhere"
    with pytest.raises(InvalidInput, match=r"there is no key file .*nowhere .DEMOS_KEY_FILE."):
        ServerHere(hall.make_config(key_file=str(missing)), "other", GAUSSIAN)


def test_munge_that_is_not_there(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module.munge, "is_available", lambda: False)
    with pytest.raises(LaunchError, match="DEMOS_AUTHENTICATION is munge, and no munged answers here"):
        ServerHere(hall.make_config(authentication="munge"), "other", GAUSSIAN)


def test_a_key_is_made_where_there_is_none(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(hall.directory))
    server = hall.open(key_file="")
    assert (hall.directory / ".demos-hpc" / "key").exists()
    with server.connect() as model:
        np.testing.assert_array_equal(model.log_density(X, POINT), TRUTH)


def test_a_name_that_is_none(hall: Hall) -> None:
    with pytest.raises(InvalidInput, match="endpoint with name = '-x'"):
        ServerHere(hall.make_config(), "-x", GAUSSIAN)


def test_with_tls_everything_is_as_without(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(hall.directory))
    server = hall.open(tls="on")
    assert len(server.find().tls) == 64
    with server.connect(transport="tcp") as model:
        np.testing.assert_array_equal(model.log_density(X, POINT), TRUTH)


# ---- limits and rules ------------------------------------------------------------------------------------------

ACCESS = """
default = "everyone"

[limits.eve]
requests_per_second = 5
"""


def test_limits_are_those_of_a_user_at_all_connections(hall: Hall, tmp_path: Path) -> None:
    access, audit = tmp_path / "access.toml", tmp_path / "audit.jsonl"
    access.write_text(ACCESS, encoding="utf-8")
    server = hall.open(access_file=str(access), audit_file=str(audit))
    with hall.pass_for("eve"):
        clients = [server.connect() for _ in range(3)]
        patient = server.connect(retries=100)
    waits, begin = [], time.monotonic()
    for client in clients * 5:
        try:
            client.log_density(X, POINT)
        except Busy as error:
            waits.append(error.retry_after)
    assert all(0 < wait <= 1.0 for wait in waits)
    assert 15 - len(waits) <= 5 + 5 * (time.monotonic() - begin)
    np.testing.assert_array_equal(patient.log_density(X, POINT), TRUTH)  # tries again when it was told to
    with server.connect() as owner:
        for _ in range(20):
            owner.log_density(X, POINT)
    with pytest.raises(AccessRefused):
        clients[0].set_params(mu=1.0)
    for client in (*clients, patient):
        client.close()
    server.stop()
    lines = [json.loads(line) for line in audit.read_text(encoding="ascii").splitlines()]
    outcomes = [line["outcome"] for line in lines if line["who"] == "eve" and line["what"] == "log_density"]
    assert outcomes.count("busy") >= len(waits)
    assert outcomes.count("ok") == 16 - len(waits)
    assert ANYBODY not in {line["who"] for line in lines}


def test_who_runs_into_a_busy_worker_is_not_forgotten(hall: Hall) -> None:
    server = hall.open(GATE, max_queued_requests=2)
    with server.connect() as model:
        futures = [model.submit.log_density(np.full((3, 1), 200.0), POINT)]
        assert Gate.entered.wait(SOON)
        futures += [model.submit.log_density(X, POINT) for _ in range(3)]
        with pytest.raises(Busy, match="take some answers first"):
            futures[3].result()
        Gate.opened.set()
        np.testing.assert_array_equal(futures[1].result(), TRUTH)
