"""Who may do what, how much of it, and what is written down, at a dispatcher whose parts stand in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from service import Peer, Service, make_request, read_error

from demos_hpc.access import Access
from demos_hpc.accounts import MOST_CAREERS, NO_RIGHT, Accounts
from demos_hpc.audit import Audit
from demos_hpc.budgets import Budgets
from demos_hpc.config import Config
from demos_hpc.errors import AccessRefused, Busy, DeadlineExceeded, Draining, InvalidInput, ModelCrashed, TooLarge
from demos_hpc.greetings import Beat
from demos_hpc.messages import Kind, Offer, Operation, from_json, to_json
from demos_hpc.model import LoadedModel
from demos_hpc.peers import Person
from demos_hpc.served import Served
from demos_hpc.testing import Failing, FakeClock, Gaussian
from demos_hpc.transport.loopback import LoopbackPort, make_pair
from demos_hpc.wire import Frame, Packed, pack, read_header

MODEL = Gaussian(block_rows=16)
X = np.random.default_rng(11).normal(size=(40, 1))
POINT = np.array([0.5, 2.0])
TRUTH = MODEL.log_density(X, POINT)
#: Payload of the request that `ask` makes.
N_BYTES = read_header(make_request(Operation.LOG_DENSITY, [X, POINT]).head).payload

RULES = """
[[rule]]
users = ["ada", "eve"]
allow = ["read"]

[[rule]]
users = ["ada"]
allow = ["set_params", "operate"]

[[rule]]
users = ["eve"]
model = "other"
allow = ["set_params"]

[limits.eve]
bytes_in_flight = 1000
"""


class CountingBudgets(Budgets):
    """Budgets that count what is given back."""

    def __init__(self, find_limits: Callable[[str], Any]) -> None:
        super().__init__(find_limits)
        self.returns = 0

    def give_back(self, user: str, n_bytes: int) -> None:
        self.returns += 1
        super().give_back(user, n_bytes)


class House:
    """A service with rules, limits and an audit log; its clock moves when it is told to."""

    def __init__(self, directory: Path, *models: Any, rules: str = RULES, workers: int = 1, **settings: Any) -> None:
        access = Access.parse(rules, "root")
        self.clock = FakeClock()
        self.budgets = CountingBudgets(access.find_limits)
        self._audit = Audit(directory / "audit.jsonl", print)
        self.asked: list[tuple[str, str, str]] = []
        house = self

        class Rights:
            def may(self, user: str, model: str, uuid: str, operation: str) -> bool:
                house.asked.append((user, model, operation))
                return access.may(user, frozenset(), model, uuid, operation)

        self.accounts = Accounts(self.clock, rights=Rights(), budgets=self.budgets, audit=self._audit)
        config = Config(timeout=10.0, **settings)
        self.service = Service(
            *(models or (MODEL,)), workers=workers, config=config, clock=self.clock, accounts=self.accounts
        )
        self.service.turn()
        self.service.dispatcher.intake.controls = {Operation.STATISTICS: lambda question: {}}

    def read_audit(self) -> list[dict[str, Any]]:
        self._audit.close()
        return [json.loads(line) for line in self._audit.path.read_text(encoding="ascii").splitlines()]

    def read_outcomes(self) -> list[str]:
        return [line["outcome"] for line in self.read_audit()]

    def describe(self) -> dict[str, Any]:
        return self.accounts.metrics.describe(self.clock())

    def find_user(self, name: str) -> dict[str, Any]:
        return next(user for user in self.describe()["users"] if user["user"] == name)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


# ---- rights ----------------------------------------------------------------------------------------------------

REQUESTS: dict[str, Packed] = {
    "log_density": make_request(Operation.LOG_DENSITY, [X, POINT]),
    "log_density_gradient": make_request(Operation.LOG_DENSITY_GRADIENT, [X, POINT]),
    "log_likelihood": make_request(Operation.LOG_LIKELIHOOD, [X, POINT[np.newaxis]]),
    "log_likelihood_gradient": make_request(Operation.LOG_LIKELIHOOD_GRADIENT, [X, POINT[np.newaxis]]),
    "sample": make_request(Operation.SAMPLE, [POINT], n_rows=40),
    "evaluate": make_request(Operation.EVALUATE, [POINT[np.newaxis]]),
    "metadata": make_request(Operation.METADATA),
    "set_params": make_request(Operation.SET_PARAMS, [to_json({"mu": 1.0})]),
    "statistics": make_request(Operation.STATISTICS),
    "a bad request": make_request(Operation.LOG_DENSITY, [POINT]),
    "no such operation": make_request(99),  # type: ignore[arg-type]
    "a stale revision": make_request(Operation.LOG_DENSITY, [X, POINT], revision=7),
    "params that do not fit": make_request(Operation.SET_PARAMS, [to_json({"nu": 1.0})]),
}


def test_who_has_no_right_hears_the_same_whatever_it_was(house: House) -> None:
    peer = house.service.add_peer("mallory")
    frames = {name: peer.ask_one(request) for name, request in REQUESTS.items()}
    errors = [read_error(frame) for frame in frames.values()]
    assert {(type(error), str(error)) for error in errors} == {(AccessRefused, NO_RIGHT)}
    assert len({bytes(frame.buffer) for frame in frames.values()}) == 1
    assert house.service.dispatcher.catalog.models[1].revision == 1
    assert house.find_user("mallory")["refused"] == len(REQUESTS)
    assert house.describe()["refused"] == {"REFUSED": len(REQUESTS)}
    lines = house.read_audit()
    assert {(line["who"], line["outcome"]) for line in lines} == {("mallory", "refused")}
    named = [line["what"] for line in lines]
    assert set(named) == {title for title in REQUESTS if " " not in title} | {"operation 99"}
    assert {line["model"] for line in lines} == {"gaussian", ""}


@pytest.mark.parametrize("name", ["log_density", "log_likelihood", "sample", "evaluate", "metadata"])
def test_who_may_read_reads(house: House, name: str) -> None:
    for user in ("eve", "ada", "root"):
        assert house.service.add_peer(user).ask_one(REQUESTS[name]).header.status == 0


def test_who_may_read_changes_nothing(house: House) -> None:
    peer = house.service.add_peer("eve")
    for name in ("set_params", "statistics"):
        assert isinstance(read_error(peer.ask_one(REQUESTS[name])), AccessRefused)
    for user in ("ada", "root"):
        peer = house.service.add_peer(user)
        for name in ("set_params", "statistics"):
            assert peer.ask_one(REQUESTS[name]).header.status == 0
    lines = house.read_audit()
    assert [(line["who"], line["what"]) for line in lines if line["outcome"] == "ok"] == [
        ("ada", "set_params"),
        ("root", "set_params"),
    ]


def test_a_right_to_one_model_is_none_to_another(tmp_path: Path) -> None:
    house = House(tmp_path, MODEL, Gaussian(name="other"), workers=2)
    handles = {served.spec.name: served.handle for served in house.service.dispatcher.catalog.models.values()}
    peer = house.service.add_peer("eve")
    change = [to_json({"mu": 1.0})]
    frames = [
        peer.ask_one(make_request(Operation.SET_PARAMS, change, model=handles[name])) for name in ("gaussian", "other")
    ]
    assert isinstance(read_error(frames[0]), AccessRefused)
    assert frames[1].header.status == 0


def test_metadata_is_not_for_everybody_who_asked_early(tmp_path: Path) -> None:
    house = House(tmp_path)
    service = Service(workers=0, n_offers=1, accounts=house.accounts)
    good, bad, gone = (service.add_peer(user) for user in ("eve", "mallory", "mallory"))
    for peer in (good, bad, gone):
        peer.send(make_request(Operation.METADATA))
    service.dispatcher.step()
    service.dispatcher.lose(gone.there)
    service.add_worker(MODEL)
    service.dispatcher.step()
    (frame,) = bad.receive()
    assert isinstance(read_error(frame), AccessRefused)
    assert from_json(good.receive()[0].arrays[0])["spec"]["name"] == "gaussian"
    assert gone.receive() == []
    assert house.read_outcomes() == ["refused"]  # who is gone was not refused anything


def test_a_cached_answer_is_not_for_everybody(tmp_path: Path) -> None:
    house = House(tmp_path, cache_bytes=1 << 20)
    for _ in range(2):
        house.service.add_peer("eve").ask_rows(REQUESTS["log_density"])
    frame = house.service.add_peer("mallory").ask_one(REQUESTS["log_density"])
    assert isinstance(read_error(frame), AccessRefused)
    assert house.read_outcomes() == ["ok", "ok", "refused"]


def test_rights_are_looked_up_once_for_each_connection_and_operation(house: House) -> None:
    peer = house.service.add_peer("eve")
    for id_ in range(1, 6):
        peer.ask_rows(make_request(Operation.LOG_DENSITY, [X, POINT], id=id_))
    assert house.asked == [("eve", "gaussian", "log_density")]


def test_a_worker_asks_nothing(house: House) -> None:
    for service in (house.service, Service(MODEL)):
        worker = service.add_false_worker()
        for id_ in (1, 1):
            frame = worker.ask_one(make_request(Operation.LOG_DENSITY, [X, POINT], id=id_))
            assert isinstance(read_error(frame), AccessRefused | InvalidInput)
        assert service.dispatcher.intake.calls == {}
    assert house.budgets.returns == 0


# ---- how requests end ------------------------------------------------------------------------------------------


def ask(id_: int = 1, **fields: int) -> Packed:
    return make_request(Operation.LOG_DENSITY, [X, POINT], id=id_, **fields)


def start_in_parts(peer: Peer) -> None:
    peer.send(make_request(Operation.LOG_DENSITY, [X[:32], POINT], n_rows=40))


def end_by_answer(house: House, peer: Peer) -> None:
    peer.ask_rows(ask())


def end_by_answer_in_parts(house: House, peer: Peer) -> None:
    start_in_parts(peer)
    house.service.turn()
    peer.send(pack(Kind.ROWS, [X[32:]], id=1, first_row=32, n_rows=8))
    np.testing.assert_array_equal(peer.collect(1, 40), TRUTH)


def end_by_cancel(house: House, peer: Peer) -> None:
    start_in_parts(peer)
    house.service.turn()
    peer.send(pack(Kind.CANCEL, id=1))
    peer.send(pack(Kind.CANCEL, id=1))


def end_by_bad_part(house: House, peer: Peer) -> None:
    start_in_parts(peer)
    house.service.turn()
    peer.receive()
    peer.send(pack(Kind.ROWS, [X[:9]], id=1, first_row=32))
    house.service.turn()
    (frame,) = peer.receive()
    assert isinstance(read_error(frame), InvalidInput)


def end_by_loss(house: House, peer: Peer) -> None:
    start_in_parts(peer)
    house.service.turn()
    house.service.dispatcher.lose(peer.there)
    house.service.dispatcher.lose(peer.there)


def end_by_goodbye(house: House, peer: Peer) -> None:
    start_in_parts(peer)
    house.service.turn()
    peer.send(pack(Kind.GOODBYE))


def end_by_deadline(house: House, peer: Peer) -> None:
    house.service.workers, held = [], house.service.workers
    peer.send(ask(deadline_ms=1000))
    house.service.turn()
    house.clock.advance(1.5)
    house.service.turn()
    (frame,) = peer.receive()
    assert isinstance(read_error(frame), DeadlineExceeded)
    house.service.workers = held


def end_by_drain(house: House, peer: Peer) -> None:
    house.service.dispatcher.drain()
    assert isinstance(read_error(peer.ask_one(ask())), Draining)


def end_by_drain_of_what_waits(house: House, peer: Peer) -> None:
    for worker in house.service.workers:
        house.service.dispatcher.lose(worker._link._peer)  # type: ignore[attr-defined]
    peer.send(ask())
    house.service.dispatcher.step()
    house.service.dispatcher.drain()


def end_by_defect(house: House, peer: Peer) -> None:
    def fail(array: Any) -> Any:
        raise ZeroDivisionError("a defect")

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(np, "ascontiguousarray", fail)  # which a chunk is put together with
        assert peer.ask_one(ask()).header.status


ENDINGS: dict[str, tuple[Callable[[House, Peer], None], str]] = {
    "an answer": (end_by_answer, "ok"),
    "an answer in parts": (end_by_answer_in_parts, "ok"),
    "a cancellation": (end_by_cancel, "cancelled"),
    "a bad part": (end_by_bad_part, "invalid_input"),
    "its client's loss": (end_by_loss, "cancelled"),
    "its client's goodbye": (end_by_goodbye, "cancelled"),
    "its deadline": (end_by_deadline, "deadline"),
    "a server that drains": (end_by_drain, "draining"),
    "a server that begins to drain": (end_by_drain_of_what_waits, "draining"),
    "a defect": (end_by_defect, "internal"),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_whatever_ends_a_request_it_is_settled_once(house: House, ending: str) -> None:
    end, outcome = ENDINGS[ending]
    peer = house.service.add_peer("eve")
    end(house, peer)
    for _ in range(20):
        house.service.turn()
    assert house.budgets.find_in_flight("eve") == 0
    assert house.budgets.returns == 1
    assert house.service.dispatcher.intake.calls == {}
    (line,) = house.read_audit()
    assert (line["who"], line["what"], line["model"], line["rows"]) == ("eve", "log_density", "gaussian", 40)
    assert line["outcome"] == outcome
    user, described = house.find_user("eve"), house.describe()
    assert user["requests"] == described["requests"] == 1
    assert user["rows"] == described["rows"] == (40 if outcome == "ok" else 0)
    assert described["failures"] == ({} if outcome == "ok" else {outcome.upper(): 1})


def test_bytes_in_flight_are_those_of_unanswered_requests(house: House) -> None:
    peer = house.service.add_peer("eve")
    house.service.workers, held = [], house.service.workers
    for id_ in (1, 2):
        peer.send(ask(id_))
    house.service.dispatcher.step()
    assert house.budgets.find_in_flight("eve") == 2 * N_BYTES <= 1000
    (frame,) = peer.ask(ask(3))
    error = read_error(frame)
    assert isinstance(error, Busy)
    assert 0 < error.retry_after < 10
    house.service.workers = held
    house.service.turn()
    for _ in range(20):
        house.service.turn()
    peer.receive()
    assert house.budgets.find_in_flight("eve") == 0
    np.testing.assert_array_equal(peer.ask_rows(ask(4)), TRUTH)
    assert house.read_outcomes() == ["busy", "ok", "ok", "ok"]
    assert house.describe()["refused"] == {"BUSY": 1}


def test_more_than_may_ever_be_in_flight(house: House) -> None:
    peer = house.service.add_peer("eve")
    frame = peer.ask_one(make_request(Operation.LOG_DENSITY, [np.zeros((1000, 1)), POINT]))
    assert isinstance(read_error(frame), TooLarge)
    assert house.read_outcomes() == ["too_large"]
    assert house.budgets.returns == 0


def test_a_rate_is_kept_and_whoever_waits_as_told_is_admitted(tmp_path: Path) -> None:
    house = House(tmp_path, rules='default = "everyone"\n[limits."*"]\nrequests_per_second = 2\n', cache_bytes=1 << 20)
    peer, other = house.service.add_peer("eve"), house.service.add_peer("ada")
    for id_ in (1, 2):  # the second from memory, which costs a user as much
        peer.ask_rows(ask(id_))
    error = read_error(peer.ask_one(ask(3)))
    assert isinstance(error, Busy)
    other.ask_rows(ask(1))
    house.clock.advance(error.retry_after)
    peer.ask_rows(ask(4))
    assert isinstance(read_error(peer.ask_one(ask(5))), Busy)
    assert house.read_outcomes() == ["ok", "ok", "busy", "ok", "ok", "busy"]


def test_a_client_retries_what_the_budget_refused(tmp_path: Path) -> None:
    house = House(tmp_path, rules='default = "everyone"\n[limits."*"]\nrequests_per_second = 1\n')
    client = house.service.connect(user="eve")
    client.log_density(X, POINT)
    with pytest.raises(Busy, match="eve is over a limit of this server; try again in") as caught:
        client.log_density(X, POINT)
    house.clock.advance(caught.value.retry_after)
    np.testing.assert_array_equal(client.log_density(X, POINT), TRUTH)


def test_a_request_that_is_none_costs_nothing(house: House) -> None:
    peer = house.service.add_peer("eve")
    for bad in (make_request(Operation.LOG_DENSITY, [POINT]), ask(revision=9), make_request(Operation.SAMPLE, [X])):
        assert peer.ask_one(bad).header.status
    assert house.budgets.find_in_flight("eve") == house.budgets.returns == 0


def test_a_full_queue_gives_back_what_was_taken(tmp_path: Path) -> None:
    house = House(tmp_path, max_queued_requests=1)
    peer = house.service.add_peer("eve")
    house.service.workers, held = [], house.service.workers
    peer.send(ask(1))
    assert isinstance(read_error(peer.ask_one(ask(2))), Busy)
    assert house.budgets.find_in_flight("eve") == N_BYTES
    house.service.workers = held
    for _ in range(20):
        house.service.turn()
    assert house.budgets.find_in_flight("eve") == 0
    assert house.budgets.returns == 2
    assert house.read_outcomes() == ["busy", "ok"]


def test_an_answer_from_memory_is_settled_as_others_are(tmp_path: Path) -> None:
    house = House(tmp_path, cache_bytes=1 << 20)
    peer = house.service.add_peer("eve")
    for id_ in (1, 2, 3):
        peer.ask_rows(ask(id_))
    assert house.budgets.find_in_flight("eve") == 0
    assert house.budgets.returns == 3
    assert house.read_outcomes() == ["ok"] * 3
    assert house.find_user("eve")["rows"] == 120


def test_a_model_that_fails_or_kills_its_workers(tmp_path: Path) -> None:
    house = House(tmp_path, Failing("raises", above=0.0))
    peer = house.service.add_peer("eve")
    assert peer.ask_one(make_request(Operation.LOG_DENSITY, [np.array([[1.0]]), POINT])).header.status
    peer.send(make_request(Operation.LOG_DENSITY, [np.array([[0.0]]), POINT], id=2))
    for _ in range(4):  # deaths
        house.service.dispatcher.step()
        lost = house.service.workers.pop()
        house.service.dispatcher.lose(lost._link._peer)  # type: ignore[attr-defined]
        house.service.add_worker(Failing("raises", above=0.0))
        house.service.dispatcher.step()
    (frame,) = peer.receive()
    assert isinstance(read_error(frame), ModelCrashed)
    assert house.budgets.find_in_flight("eve") == 0
    assert house.read_outcomes() == ["model_failed", "model_crashed"]
    assert house.describe()["failures"] == {"MODEL_FAILED": 1, "MODEL_CRASHED": 1}


# ---- who comes and goes ----------------------------------------------------------------------------------------


def add_guest(house: House, label: str, pid: int = 1) -> Peer:
    """A worker from outside, that says what the test wants."""
    peer = Peer(house.service)
    house.service.dispatcher.add_worker(peer.there, Person("root", "node7", pid, label), is_guest=True)
    return peer


def offer(house: House, worker: Peer) -> None:
    loaded = LoadedModel(MODEL)
    worker.send(pack(Kind.HELLO, [to_json(Offer("w", "", loaded.source, loaded.spec.to_dict()).to_dict())]))
    house.service.dispatcher.step()


def compute(house: House, worker: Peer) -> None:
    """Answers the chunks that the worker has."""
    for frame in worker.receive():
        if frame.header.kind == Kind.CHUNK:
            x, params = frame.arrays
            fields = {"id": frame.header.id, "first_row": frame.header.first_row, "n_rows": frame.header.n_rows}
            worker.send(pack(Kind.RESULT, [MODEL.log_density(x, params)], seed=10**6, **fields))
    house.service.dispatcher.step()


def find_workers(house: House) -> dict[str, dict[str, Any]]:
    return {worker["name"]: worker for worker in house.describe()["workers"]}


def test_workers_that_come_and_go_are_told_apart_by_their_places(tmp_path: Path) -> None:
    house = House(tmp_path, workers=0)
    client = house.service.add_peer("eve")
    first, second = add_guest(house, "s.0#1", 11), add_guest(house, "s.1#1", 12)
    unknown = add_guest(house, "", 13)
    assert find_workers(house) == {}  # they have no model yet
    for worker in (first, second, unknown):
        offer(house, worker)
    assert {name: worker["pid"] for name, worker in find_workers(house).items()} == {"s.0": 11, "s.1": 12, "peer": 13}
    client.send(ask())
    for _ in range(20):
        for worker in (first, second, unknown):
            compute(house, worker)
    careers = house.accounts.careers
    assert set(careers) == {"s.0#1", "s.1#1"}
    assert careers["s.0#1"] == find_workers(house)["s.0"]["chunks"] > 0
    house.service.dispatcher.lose(first.there)
    again = add_guest(house, "s.0#2", 14)
    offer(house, again)
    place = find_workers(house)["s.0"]
    assert (place["pid"], place["restarts"], place["is_alive"]) == (14, 1, True)
    assert place["chunks"] == careers["s.0#1"]  # the place's own
    assert careers["s.0#2"] == 0
    house.service.dispatcher.lose(second.there, has_said_so=True)
    house.service.dispatcher.lose(unknown.there)
    alive = [name for name, worker in find_workers(house).items() if worker["is_alive"]]
    assert alive == ["s.0"]
    assert house.describe()["events"]["crashes"] == 2
    assert house.describe()["links"]["loopback"]["workers"] == 1
    assert house.service.dispatcher.catalog.models[1].workers == 1


def test_a_worker_that_is_given_up_is_no_crash(tmp_path: Path) -> None:
    house = House(tmp_path, workers=0, chunk_timeout=10.0)
    client = house.service.add_peer("eve")
    worker = add_guest(house, "s.0#1")
    offer(house, worker)
    client.send(ask())
    house.service.dispatcher.step()
    for _ in range(2):
        house.clock.advance(10.5)
        house.service.dispatcher.step()
    place = find_workers(house)["s.0"]
    assert (place["is_alive"], place["chunks_lost"], place["running_seconds"]) == (False, 1, None)
    events = house.describe()["events"]
    assert (events["evictions"], events["crashes"]) == (1, 0)
    assert list(house.accounts.evicted) == ["s.0#1"]
    assert house.accounts.careers["s.0#1"] == 1
    assert house.service.dispatcher.catalog.models[1].workers == 0
    compute(house, worker)  # late, and of no concern
    offer(house, add_guest(house, "s.0#2"))
    assert find_workers(house)["s.0"]["restarts"] == 1


def test_who_dies_of_a_chunk_has_a_career_and_who_dies_idle_has_none(tmp_path: Path) -> None:
    house = House(tmp_path, workers=0)
    idle, working = (add_guest(house, label) for label in ("s.0#1", "s.1#1"))
    for worker in (idle, working):
        offer(house, worker)
    house.service.dispatcher.lose(idle.there)
    house.service.add_peer("eve").send(ask())
    house.service.dispatcher.step()
    house.service.dispatcher.lose(working.there)
    assert house.accounts.careers == {"s.0#1": 0, "s.1#1": 1}


def test_labels_are_not_hoarded(house: House) -> None:
    served = house.service.dispatcher.catalog.models[1]
    for nth in range(MOST_CAREERS + 50):
        peer = make_known(house, Person("root", "node7", nth, f"s.0#{nth}"), nth)
        house.accounts.note_serving(peer, served)
        house.accounts.note_evicted(peer, "is slow")
    for labels in (house.accounts.careers, house.accounts.evicted):
        assert len(labels) <= MOST_CAREERS
        assert f"s.0#{MOST_CAREERS + 49}" in labels
        assert "s.0#0" not in labels


def make_known(house: House, person: Person, number: int) -> Any:
    from demos_hpc.peers import Peer as Known

    there, _ = make_pair(house.service.port, LoopbackPort(), ("dispatcher", "worker"))
    return Known(10_000 + number, there, "worker", person, is_guest=True)


def test_clients_are_counted_as_they_come_and_go(house: House) -> None:
    peers = [house.service.add_peer("eve") for _ in range(3)]
    operator = Peer(house.service)
    house.service.dispatcher.add_client(operator.there, Person("root"), role="operator")
    assert (house.find_user("eve")["clients"], house.service.dispatcher.n_clients) == (3, 3)
    house.service.dispatcher.lose(peers[0].there)
    peers[1].send(pack(Kind.GOODBYE))
    house.service.turn()
    house.service.dispatcher.lose(operator.there)
    assert (house.find_user("eve")["clients"], house.service.dispatcher.n_clients) == (1, 1)
    assert house.describe()["events"]["lost_clients"] == 1
    assert house.describe()["links"]["loopback"]["clients"] == 1
    assert {user["user"] for user in house.describe()["users"]} == {"eve"}


def test_a_beat_says_how_much_memory_a_worker_has(tmp_path: Path) -> None:
    house = House(tmp_path, workers=0)
    worker, stranger = add_guest(house, "s.0#1"), house.service.add_peer("eve")
    beat = pack(Kind.BEAT, [to_json(Beat(12345).to_dict())])
    worker.send(beat)  # before it has a model
    house.service.turn()
    offer(house, worker)
    for message in (beat, pack(Kind.BEAT, [to_json({"rss": "much"})]), pack(Kind.BEAT)):
        worker.send(message)
        stranger.send(message)
    house.service.turn()
    told = find_workers(house)["s.0"]
    assert (told["rss_bytes"], told["datasets"], told["held_bytes"], told["budget_bytes"]) == (12345, 0, 0, 0)
    worker.send(pack(Kind.BEAT, [to_json(Beat(12345, 2, 64, 128).to_dict())]))
    worker.send(pack(Kind.BEAT, [to_json({"rss": 1, "held_bytes": "much"})]))
    house.service.turn()
    told = find_workers(house)["s.0"]
    assert (told["rss_bytes"], told["datasets"], told["held_bytes"], told["budget_bytes"]) == (12345, 2, 64, 128)
    worker.send(pack(Kind.BEAT, [to_json({"rss": 1})]))  # of a worker that does not know more
    house.service.turn()
    assert find_workers(house)["s.0"]["budget_bytes"] == 0


def test_seconds_of_workers_are_those_of_the_users_they_worked_for(tmp_path: Path) -> None:
    house = House(tmp_path, workers=0)
    worker, client = add_guest(house, "s.0#1"), house.service.add_peer("eve")
    offer(house, worker)
    client.send(ask())
    house.service.dispatcher.step()
    for _ in range(20):
        house.clock.advance(0.01)
        compute(house, worker)
    chunks = find_workers(house)["s.0"]["chunks"]
    assert chunks > 1
    assert house.find_user("eve")["busy_seconds"] == pytest.approx(1e-3 * chunks)


def test_without_rules_everybody_may_do_everything() -> None:
    accounts = Accounts()
    peer = make_known_alone()
    served = Served(1, LoadedModel(MODEL).spec, "", 100)
    for operation in Operation:
        accounts.check(peer, served, operation)
        accounts.check_operator(peer, operation)


def make_known_alone() -> Any:
    from demos_hpc.peers import Peer as Known

    there, _ = make_pair(LoopbackPort(), LoopbackPort(), ("dispatcher", "client"))
    return Known(1, there, "client", Person("eve"), is_guest=True)


def test_frames_that_are_answered_name_their_request(house: House) -> None:
    frame: Frame = house.service.add_peer("mallory").ask_one(make_request(Operation.LOG_DENSITY, [X, POINT], id=77))
    assert (frame.header.id, frame.header.kind) == (77, Kind.REPLY)
