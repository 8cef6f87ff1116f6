"""What stands before a dispatcher: who is let in as what, and what operators and supervisors may do."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inside import GATE, SOON, Gate, Hall, ServerHere
from serving import Operator, wait_until

from demos_hpc.client import RemoteModel
from demos_hpc.connection import Connection
from demos_hpc.errors import AccessRefused, BadFrame, DemosError, Draining, LaunchError, ServerLost
from demos_hpc.future import Future
from demos_hpc.greetings import Beat
from demos_hpc.messages import Kind, Offer, Operation, to_json
from demos_hpc.model import LoadedModel
from demos_hpc.testing import Gaussian
from demos_hpc.wire import pack

POINT = np.array([0.5, 2.0])
X = np.random.default_rng(11).normal(size=(40, 1))
TRUTH = Gaussian().log_density(X, POINT)
#: Waits until the gate is opened.
SLOW = np.full((3, 1), 200.0)


def ask(operator: Operator, operation: Operation, question: dict[str, Any] | None = None) -> dict[str, Any]:
    answer: dict[str, Any] = operator._connection.ask(operation, question or {}).result(timeout=SOON)
    return answer


def enter(model: RemoteModel) -> Future:
    """A request that is at its worker, and waits there."""
    future = model.submit.log_density(SLOW, POINT)
    assert Gate.entered.wait(SOON)
    return future


def ask_for_ever(model: RemoteModel) -> None:
    while True:
        model.metadata()


def is_running(server: ServerHere) -> bool:
    return server.thread.is_alive()


# ---- draining and stopping -------------------------------------------------------------------------------------


def test_a_server_that_drains_finishes_what_runs_and_takes_nothing_new(hall: Hall) -> None:
    server = hall.open(GATE)
    with server.connect() as model, server.connect() as other, server.operate() as operator:
        running, waiting = enter(model), other.submit.log_density(X, POINT)
        assert ask(operator, Operation.STATISTICS)["state"] == "ready"
        answer = ask(operator, Operation.DRAIN)
        assert answer["state"] == "draining"
        assert answer["requests"] == 2 - isinstance(waiting.exception(), Draining)
        with pytest.raises(Draining, match="try another"):
            other.log_density(X, POINT)
        with pytest.raises(Draining):
            model.log_density(X, POINT)
        server.wait_for_entry(lambda entry: entry.state == "draining", "draining")
        assert other.metadata()["statistics"]["failures"] == 3  # questions are still answered
        assert not running.done()
        Gate.opened.set()
        np.testing.assert_array_equal(running.result(), Gaussian().log_density(SLOW, POINT))
        described = ask(operator, Operation.STATISTICS)
        assert (described["state"], described["is_stopping"]) == ("draining", False)
        assert is_running(server)  # until it is told to stop
        assert ask(operator, Operation.STOP)["requests"] == 0
        with pytest.raises(ServerLost, match="the server has ended"):
            ask_for_ever(model)
    assert server.thread.end() is None
    assert server.find_entry() is None


def test_a_server_that_is_told_to_stop_finishes_what_runs(hall: Hall) -> None:
    server = hall.open(GATE)
    with server.connect() as model, server.operate() as operator:
        running = enter(model)
        answer = ask(operator, Operation.STOP)
        assert answer == {"state": "draining", "requests": 1}
        assert ask(operator, Operation.STATISTICS)["is_stopping"]
        Gate.opened.set()
        np.testing.assert_array_equal(running.result(), Gaussian().log_density(SLOW, POINT))
    assert server.thread.end() is None


def test_a_server_waits_no_longer_than_it_was_told_to(hall: Hall) -> None:
    server = hall.open(GATE, stop_seconds=0.3)
    with server.connect() as model, server.operate() as operator:
        running = enter(model)
        ask(operator, Operation.STOP)
        assert isinstance(running.exception(timeout=5.0), ServerLost)
    assert server.thread.end(5.0) is None


@pytest.mark.parametrize("is_stopping", [False, True], ids=["at once", "after a stop that takes its time"])
def test_a_server_that_is_told_to_stop_now_does(hall: Hall, is_stopping: bool) -> None:
    server = hall.open(GATE)
    with server.connect() as model, server.operate() as operator:
        running = enter(model)
        if is_stopping:
            ask(operator, Operation.STOP)
        ask(operator, Operation.STOP, {"now": True})
        assert isinstance(running.exception(timeout=5.0), ServerLost)
    assert server.thread.end(5.0) is None
    assert server.find_entry() is None


def test_only_true_is_now(hall: Hall) -> None:
    server = hall.open(GATE)
    with server.connect() as model, server.operate() as operator:
        running = enter(model)
        ask(operator, Operation.STOP, {"now": "no"})
        Gate.opened.set()
        assert running.exception() is None


def test_a_question_that_is_none_stops_nothing(hall: Hall) -> None:
    server = hall.open()
    with server.operate() as operator:
        connection = operator._connection
        for text in (b"[1]", b"{"):
            number = connection._last_id = connection._last_id + 1
            future = connection._futures[number] = Future(connection, number, 1e12, 0, (), lambda arrays: arrays)
            array = np.frombuffer(text, np.uint8)
            connection._link.send(pack(Kind.REQUEST, [array], operation=Operation.STOP, id=number, n_rows=1))
            assert isinstance(future.exception(timeout=SOON), BadFrame)
        assert not operator.look()["is_stopping"]


def test_a_signal_is_as_good_as_an_operator(hall: Hall) -> None:
    server = hall.open(GATE)
    with server.connect() as model:
        running = enter(model)
        server.server._take_signal(15, None)
        server.wait_for_entry(lambda entry: entry.state == "draining", "draining")
        Gate.opened.set()
        assert running.exception() is None
    assert server.thread.end() is None


# ---- the supervisor --------------------------------------------------------------------------------------------


def test_a_server_whose_supervisor_is_gone_ends(hall: Hall, capfd: pytest.CaptureFixture[str]) -> None:
    server = hall.open(GATE)
    with server.connect() as model:
        supervisor = server.dial("operator", label="supervisor")
        running = enter(model)
        supervisor.port.close()
        server.wait_for_entry(lambda entry: entry.state == "draining", "draining")
        Gate.opened.set()
        assert running.exception() is None
    assert server.thread.end() is None
    assert "the supervisor is gone; the server finishes what runs and ends" in capfd.readouterr().err


ACCESS = """
[[rule]]
users = ["eve"]
allow = ["read", "statistics"]

[[rule]]
users = ["joan"]
allow = ["join"]
"""


@pytest.fixture
def shared(hall: Hall, tmp_path: Path) -> ServerHere:
    """A server that lets others in, and writes down what they do."""
    access = tmp_path / "access.toml"
    access.write_text(ACCESS, encoding="utf-8")
    return hall.open(access_file=str(access), audit_file=str(tmp_path / "audit.jsonl"))


def read_audit(server: ServerHere) -> list[dict[str, Any]]:
    """The lines of a server that has ended."""
    server.stop()
    lines = Path(server.config.audit_file).read_text(encoding="ascii").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(("user", "role"), [("eve", "operator"), ("eve", "client"), (None, "client"), (None, "worker")])
def test_only_the_owners_operator_is_a_supervisor(
    hall: Hall, shared: ServerHere, user: str | None, role: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with hall.pass_for(user or shared.find().user):
        false = shared.dial(role, label="supervisor")
    false.port.close()
    with shared.operate() as operator:
        wait_until(lambda: len(shared.server._dispatcher.peers) == 2, SOON, "it is gone")
        assert operator.look()["state"] == "ready"
    with shared.connect() as model:
        np.testing.assert_array_equal(model.log_density(X, POINT), TRUTH)
    assert "supervisor is gone" not in capfd.readouterr().err


def test_a_supervisor_that_comes_back_is_followed(hall: Hall) -> None:
    """As after a connection that broke: the first one's end is noticed, or the second one's."""
    server = hall.open()
    first = server.dial("operator", label="supervisor")
    second = server.dial("operator", label="supervisor")
    first.port.close()
    with server.operate() as operator:
        wait_until(lambda: len(server.server._dispatcher.peers) == 3, SOON, "the first is gone")
        assert operator.look()["state"] == "ready"
    second.port.close()
    assert server.thread.end() is None


# ---- who may do what -------------------------------------------------------------------------------------------


def test_who_comes_in_and_what_they_may_do(hall: Hall, shared: ServerHere) -> None:
    with hall.pass_for("eve"), shared.connect() as model, shared.operate() as operator:
        np.testing.assert_array_equal(model.log_density(X, POINT), TRUTH)
        operator.look()
        for refused in (
            lambda: model.set_params(mu=1.0),
            lambda: ask(operator, Operation.DRAIN),
            lambda: ask(operator, Operation.STOP, {"now": True}),
        ):
            with pytest.raises(AccessRefused, match="you may not do this here"):
                refused()
        with pytest.raises(AccessRefused, match="does not let you in"):
            shared.dial("worker")
    with hall.pass_for("joan"):
        for role in ("client", "operator"):
            with pytest.raises(AccessRefused, match="does not let you in"):
                shared.dial(role)
        shared.dial("worker").port.close()
    with hall.pass_for("mallory"), pytest.raises(AccessRefused, match="does not let you in"):
        shared.connect()
    with shared.operate() as operator:
        assert operator.look()["events"]["refused_connections"] == 4
    told = [(line["who"], line["what"], line["outcome"]) for line in read_audit(shared)]
    for line in (
        ("eve", "enter as client", "ok"),
        ("eve", "enter as operator", "ok"),
        ("eve", "log_density", "ok"),
        ("eve", "set_params", "refused"),
        ("eve", "drain", "refused"),
        ("eve", "stop", "refused"),
        ("joan", "enter as worker", "ok"),
    ):
        assert told.count(line) == 1, line
    assert [line for line in told if line[1] == "enter"] == [
        ("eve", "enter", "refused"),
        ("joan", "enter", "refused"),
        ("joan", "enter", "refused"),
        ("mallory", "enter", "refused"),
    ]


def test_what_an_operator_does_is_written_down(shared: ServerHere) -> None:
    owner = shared.find().user
    with shared.operate() as operator:
        ask(operator, Operation.DRAIN)
        ask(operator, Operation.STOP)
    assert shared.thread.end() is None
    lines = [(line["who"], line["what"], line["outcome"]) for line in read_audit(shared)]
    assert (owner, "drain", "ok") in lines
    assert (owner, "stop", "ok") in lines


@pytest.mark.parametrize("role", ["client", "operator", "worker"])
def test_nobody_goes_on_by_memory_where_the_server_does_not(hall: Hall, role: str) -> None:
    server = hall.open(upgrade="off")
    dialed = server.dial(role)
    connection = Connection(dialed.port, dialed.link, server.config)
    dialed.link.send(pack(Kind.TICKET))
    future = connection.ask(Operation.METADATA, {})
    assert future.result(timeout=SOON)["spec"]["name"] == "gaussian"  # the link goes on as it was
    assert dialed.link.transport == "unix"
    dialed.port.close()


# ---- what there is to know -------------------------------------------------------------------------------------


def test_a_server_tells_all_about_itself(hall: Hall) -> None:
    server = hall.open(workers=2, cache_bytes=1 << 20)
    with server.connect() as model, server.operate() as operator:
        for _ in range(2):
            model.log_density(X, POINT)
        told = operator.look()
        assert json.loads(json.dumps(told, allow_nan=False)) == told
        assert (told["server"], told["state"], told["requests"], told["rows"]) == ("here", "ready", 2, 80)
        assert told["cache"]["hits"] == 1
        assert [described["spec"]["name"] for described in told["models"]] == ["gaussian"]
        assert told["models"][0]["statistics"]["requests"] == 2
        assert len([worker for worker in told["workers"] if worker["is_alive"]]) == 2
        assert told["queue"] == {"length": 0, "oldest_seconds": 0.0, "backlog_seconds": 0.0}
        assert {name: link["clients"] for name, link in told["links"].items()} == {"unix": 1}
        (user,) = told["users"]
        assert (user["user"], user["clients"], user["requests"]) == (server.find().user, 1, 2)


def test_what_waits_is_told(hall: Hall) -> None:
    server = hall.open(GATE)
    with server.connect() as model, server.operate() as operator:
        futures = [enter(model), model.submit.log_density(X, POINT)]
        told = wait_until(lambda: (look := operator.look())["queue"]["length"] == 2 and look, SOON, "both are there")
        assert told["queue"]["oldest_seconds"] > 0
        (worker,) = told["workers"]
        assert worker["running_seconds"] > 0
        Gate.opened.set()
        for future in futures:
            future.result()


# ---- the door --------------------------------------------------------------------------------------------------


def test_an_address_that_is_taken(hall: Hall) -> None:
    server = hall.open()
    with pytest.raises(LaunchError, match=f"port {server.find().port} .DEMOS_HOST, DEMOS_PORT.: Address already in"):
        ServerHere(hall.make_config(port=server.find().port), "other", GATE)


def test_a_guest_that_breaks_off_harms_nobody(hall: Hall) -> None:
    server = hall.open()
    for role in ("client", "worker", "operator"):
        for words in ([], [pack(Kind.HELLO, [to_json({})])], [pack(Kind.RESULT, id=3)], [pack(99)]):
            dialed = server.dial(role)
            for word in words:
                dialed.link.send(word)
            dialed.port.close()
    with server.connect() as model:
        np.testing.assert_array_equal(model.log_density(X, POINT), TRUTH)
        wait_until(lambda: len(server.server._dispatcher.peers) == 2, SOON, "all are gone")
        assert model.metadata()["workers"] == 1


def test_many_come_at_once(hall: Hall) -> None:
    server = hall.open()
    errors: list[BaseException] = []

    def visit() -> None:
        try:
            with server.connect(transport="tcp") as model:
                np.testing.assert_array_equal(model.log_density(X, POINT), TRUTH)
        except (DemosError, AssertionError) as error:
            errors.append(error)

    threads = [threading.Thread(target=visit) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    assert errors == []


def test_a_server_without_workers_is_not_ready(hall: Hall) -> None:
    server = hall.open(workers=0)
    dialed = server.dial("worker")
    loaded = LoadedModel(Gaussian())
    dialed.link.send(pack(Kind.HELLO, [to_json(Offer("w", "", loaded.source, loaded.spec.to_dict()).to_dict())]))
    server.wait_for_entry(lambda entry: entry.state == "ready", "is ready")
    dialed.port.close()
    server.wait_for_entry(lambda entry: entry.state == "starting", "waits for another")
    server.add_worker()
    server.wait_for_entry(lambda entry: entry.state == "ready", "is ready again")


def test_labels_of_others_are_no_workers_of_the_supervisor(hall: Hall, shared: ServerHere) -> None:
    with hall.pass_for("joan"):
        dialed = shared.dial("worker", label="here.0#1")
    loaded = LoadedModel(Gaussian())
    dialed.link.send(pack(Kind.HELLO, [to_json(Offer("w", "", loaded.source, loaded.spec.to_dict()).to_dict())]))
    with shared.operate() as operator:
        told = wait_until(lambda: len((look := operator.look())["workers"]) == 2 and look, SOON, "joan's worker")
        assert "here.0#1" not in told["careers"]
        assert "here.0" in {worker["name"] for worker in told["workers"]}
    dialed.port.close()


# ---- links that would like to go on through memory ------------------------------------------------------------------


def test_a_server_that_keeps_links_on_their_sockets_says_so_and_serves_on(hall: Hall) -> None:
    hall.open(upgrade="off")
    with hall.make_caller("here", upgrade="auto", upgrade_after=2) as model:
        for _ in range(6):
            np.testing.assert_array_equal(model.log_density(X, POINT), Gaussian().log_density(X, POINT))
        assert model._connection._link.transport == "unix"


def test_a_beat_that_no_memory_can_be_is_refused() -> None:
    with pytest.raises(BadFrame, match="a memory of 1000"):
        Beat(10**400)
    with pytest.raises(BadFrame, match="a memory of -1"):
        Beat(-1)
    with pytest.raises(BadFrame, match="a memory of -1"):
        Beat(1, 1, -1)
    with pytest.raises(BadFrame, match="a number of datasets of 1000"):
        Beat(1, 10**400)
