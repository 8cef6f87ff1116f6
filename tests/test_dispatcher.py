"""The dispatcher, told things that no client or worker of ours would say: never a crash, and others go on."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_models import Line
from service import Peer, Service, make_request, read_error

from demos_hpc.config import Config
from demos_hpc.errors import BadFrame, DemosError, InternalError, InvalidInput, ModelFailed, NotOffered, Status
from demos_hpc.messages import Array, Flag, Kind, Offer, Operation, from_json, to_json
from demos_hpc.model import LoadedModel
from demos_hpc.peers import Person
from demos_hpc.recall import Recall
from demos_hpc.served import Served
from demos_hpc.testing import FakeClock, Gaussian
from demos_hpc.transport import Arrival
from demos_hpc.wire import DTYPES, HEADER_BYTES, INLINE_BYTES, Frame, Packed, join, pack, read_header

CHECK = settings(derandomize=True, deadline=None, max_examples=150)
#: One message each; stream.bin is what comes over a socket.
GOLDEN = sorted(path for path in (Path(__file__).parent / "golden").glob("*.bin") if path.stem != "stream")
MODEL = Gaussian(block_rows=16)
X = np.random.default_rng(11).normal(size=(40, 1))
POINT = np.array([0.5, 2.0])
TRUTH = MODEL.log_density(X, POINT)


def assert_serves(service: Service, peer: Peer | None = None) -> None:
    """A new client is served as if nothing had happened, and so is the peer whose link still stands."""
    np.testing.assert_array_equal(service.connect("gaussian").log_density(X, POINT), TRUTH)
    if peer is not None:
        peer.receive()
        request = make_request(Operation.LOG_DENSITY, [X, POINT], id=2**63)
        np.testing.assert_array_equal(peer.ask_rows(request), TRUTH)


# ---- requests that no client of ours sends -------------------------------------------------------------------


def with_other_length(packed: Packed) -> Packed:
    """The same frame, its first array announced with another number of rows."""
    packed.head[HEADER_BYTES + 8] -= 1
    return packed


def cells(n: int, d: int = 1) -> Array:
    return np.ones((n, d))


BAD_REQUESTS: dict[str, tuple[Packed, type[DemosError], str]] = {
    "no such model": (
        make_request(Operation.LOG_DENSITY, [X, POINT], model=7),
        InvalidInput,
        "there is no model with handle 7 here",
    ),
    "no such operation": (
        make_request(99, [X, POINT]),  # type: ignore[arg-type]
        InvalidInput,
        "operation 99 is not known to this server",
    ),
    "no rows": (
        make_request(Operation.LOG_DENSITY, [X, POINT], n_rows=0),
        InvalidInput,
        "a request of no rows: its answer is an empty array, which needs no server",
    ),
    "x missing": (make_request(Operation.LOG_DENSITY), InvalidInput, "log_density with 0 arrays; it has 1 or 2"),
    "three arrays": (
        make_request(Operation.LOG_DENSITY, [X, POINT, POINT]),
        InvalidInput,
        "log_density with 3 arrays; it has 1 or 2",
    ),
    "x of another width": (
        make_request(Operation.LOG_DENSITY, [cells(3, 2), POINT]),
        InvalidInput,
        "x has shape (3, 2); model 'gaussian' takes (n, 1)",
    ),
    "x of one dimension": (make_request(Operation.LOG_DENSITY, [np.ones(3), POINT]), InvalidInput, "x has shape (3,)"),
    "float32": (
        make_request(Operation.LOG_DENSITY, [X.astype(np.float32), POINT]),
        InvalidInput,
        "arrays of dtype ['float32', 'float64']; all are float64",
    ),
    "params of another width": (
        make_request(Operation.LOG_DENSITY, [X, np.ones(3)]),
        InvalidInput,
        "params has shape (3,); model 'gaussian' takes 2: mu, sigma",
    ),
    "params of other rows": (
        make_request(Operation.LOG_DENSITY, [X, cells(3, 2)]),
        InvalidInput,
        "params has 3 rows and x 40; give one point (p,), or one per row",
    ),
    "params of no dimension": (make_request(Operation.EVALUATE, [np.ones(())], n_rows=1), InvalidInput, "shape ()"),
    "likelihood at one point": (
        make_request(Operation.LOG_LIKELIHOOD, [X, POINT]),
        InvalidInput,
        "params has shape (2,); log_likelihood takes (m, p), m > 0, on the wire",
    ),
    "likelihood at no point": (make_request(Operation.LOG_LIKELIHOOD, [X, cells(0, 2)]), InvalidInput, "m > 0"),
    "sample at many points": (
        make_request(Operation.SAMPLE, [cells(3, 2)]),
        InvalidInput,
        "params has shape (3, 2); sample takes one point (p,)",
    ),
    "sample with x": (make_request(Operation.SAMPLE, [X, POINT]), InvalidInput, "sample with 2 arrays; it has 0 or 1"),
    "more rows than announced": (
        make_request(Operation.LOG_DENSITY, [X, POINT], n_rows=10),
        InvalidInput,
        "a first part of 40 rows of 10; parts are whole blocks of 1",
    ),
    "a first part of nothing": (
        make_request(Operation.LOG_DENSITY, [cells(0), POINT], n_rows=10),
        InvalidInput,
        "a first part of 0 rows of 10",
    ),
    "a part of half a block": (
        make_request(Operation.LOG_LIKELIHOOD, [X, cells(1, 2)], n_rows=80, flags=Flag.BLOCK_MAJOR),
        InvalidInput,
        "a first part of 40 rows of 80; parts are whole blocks of 16",
    ),
    "parts by points": (
        make_request(Operation.LOG_LIKELIHOOD, [X[:32], cells(1, 2)], n_rows=80),
        InvalidInput,
        "a likelihood whose rows come in parts is block-major (BLOCK_MAJOR)",
    ),
    "evaluate many without params": (
        make_request(Operation.EVALUATE, [], n_rows=3),
        InvalidInput,
        "evaluate of 3 points without params",
    ),
    "params that are no JSON": (make_request(Operation.SET_PARAMS, [np.arange(5, dtype=np.uint8)]), BadFrame, "JSON"),
    "params that are no object": (
        make_request(Operation.SET_PARAMS, [to_json([1])]),
        InvalidInput,
        "changes of parameters are given as {name: value}, not as list",
    ),
    "no params at all": (make_request(Operation.SET_PARAMS), BadFrame, "with 0 arrays instead of one"),
    "params of a huge number": (
        make_request(Operation.SET_PARAMS, [np.frombuffer(b'{"mu": 1%s}' % (b"0" * 400), np.uint8)]),
        InvalidInput,
        "parameter 'mu' is 1",
    ),
    "params that are nan": (
        make_request(Operation.SET_PARAMS, [np.frombuffer(b'{"mu": NaN}', np.uint8)]),
        InvalidInput,
        "parameter 'mu' is nan; it is a finite number",
    ),
    "a question that is no JSON": (make_request(Operation.METADATA, [np.arange(5, dtype=np.uint8)]), BadFrame, "JSON"),
    "a question that is no object": (make_request(Operation.METADATA, [to_json([1])]), BadFrame, "object"),
    "a name that is no text": (
        make_request(Operation.METADATA, [to_json({"model": [1]})]),
        InvalidInput,
        "there is no model [1] here",
    ),
    "two questions": (make_request(Operation.METADATA, [X, X]), BadFrame, "with 2 arrays instead of one"),
    "arrays that contradict the header": (
        with_other_length(make_request(Operation.LOG_DENSITY, [X, POINT])),
        BadFrame,
        "a frame whose header announces",
    ),
    "an unknown kind": (pack(99, id=1), BadFrame, "frames of kind 99 are not for a dispatcher"),
    "a reply": (pack(Kind.REPLY, [X], id=1), BadFrame, "frames of kind 4 are not for a dispatcher"),
    "an offer of a client": (
        pack(Kind.HELLO, [to_json(Offer("eve", "", spec=MODEL.spec.to_dict()).to_dict())], id=1),
        InvalidInput,
        "serve",
    ),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_bad_request_is_answered_with_its_error(name: str) -> None:
    message, error_type, text = BAD_REQUESTS[name]
    service = Service(MODEL)
    peer = service.add_peer()
    frame = peer.ask_one(message)
    error = read_error(frame)
    assert type(error) is error_type
    assert text in str(error)
    assert (frame.header.kind, frame.header.id, frame.header.flags) == (Kind.REPLY, 1, Flag.FINAL)
    assert_serves(service, peer)


def test_an_operation_that_is_not_offered() -> None:
    peer = Service(Line()).add_peer()
    error = read_error(peer.ask_one(make_request(Operation.SAMPLE)))
    assert isinstance(error, NotOffered)
    assert "model 'line' does not offer sample; it has evaluate" in str(error)


def test_an_id_that_is_in_use() -> None:
    service = Service(MODEL)
    peer = service.add_peer()
    peer.send(make_request(Operation.LOG_DENSITY, [X, POINT], id=5))
    service.dispatcher.step()
    frames = peer.ask(make_request(Operation.LOG_DENSITY, [X, POINT], id=5), n_frames=2)
    refused = [f for f in frames if f.header.status]
    assert "request id 5 is in use already" in str(read_error(refused[0]))
    assert_serves(service, peer)


def test_a_question_of_another_is_answered_although_one_is_bad() -> None:
    service = Service(workers=0, n_offers=1)
    good, bad = service.add_peer(), service.add_peer()
    good.send(make_request(Operation.METADATA))
    bad.send(make_request(Operation.METADATA, [to_json([1])], id=3))
    service.dispatcher.step()
    service.add_worker(MODEL)
    service.dispatcher.step()
    assert from_json(good.receive()[0].arrays[0])["spec"]["name"] == "gaussian"
    (frame,) = bad.receive()
    assert frame.header.id == 3
    assert isinstance(read_error(frame), BadFrame)


def test_a_client_cannot_pass_for_a_worker() -> None:
    service = Service(workers=0, n_offers=1)
    peer, false = service.add_peer(), service.add_peer()
    peer.send(make_request(Operation.METADATA))
    false.send(pack(Kind.HELLO, [to_json(Offer("eve", "", spec=Gaussian().spec.to_dict()).to_dict())]))
    service.dispatcher.step()
    assert peer.receive() == []
    service.add_worker(MODEL)
    service.dispatcher.step()
    assert from_json(peer.receive()[0].arrays[0])["workers"] == 1
    peer.send(make_request(Operation.LOG_DENSITY, [X, POINT]))
    false.send(pack(Kind.RESULT, [np.zeros(40)], id=1, n_rows=40))
    service.turn()
    false.send(pack(Kind.RESULT, [np.zeros(40)], id=2, n_rows=40))
    assert_serves(service, peer)


# ---- rows that come in parts ---------------------------------------------------------------------------------


def start_in_parts(peer: Peer, id_: int = 1) -> None:
    peer.send(make_request(Operation.LOG_DENSITY, [X[:32], POINT], n_rows=40, id=id_))


def test_rows_in_parts_are_put_together() -> None:
    peer = Service(MODEL, workers=2).add_peer()
    start_in_parts(peer)
    peer.send(pack(Kind.ROWS, [X[32:]], id=1, first_row=32, n_rows=8))
    np.testing.assert_array_equal(peer.collect(1, 40), TRUTH)


def test_several_frames_in_one_message() -> None:
    peer = Service(MODEL).add_peer()
    first = make_request(Operation.LOG_DENSITY, [X[:32], POINT], n_rows=40).head
    second = pack(Kind.ROWS, [X[32:]], id=1, first_row=32, n_rows=8).head
    peer.send(bytes(join([pack(Kind.CANCEL, id=3).head, first, second])))
    np.testing.assert_array_equal(peer.collect(1, 40), TRUTH)


BAD_PARTS: dict[str, Packed] = {
    "too long": pack(Kind.ROWS, [X[:9]], id=1, first_row=32),
    "too short": pack(Kind.ROWS, [X[:7]], id=1, first_row=32),
    "at another row": pack(Kind.ROWS, [X[:8]], id=1, first_row=31),
    "of another width": pack(Kind.ROWS, [cells(8, 2)], id=1, first_row=32),
    "of another dtype": pack(Kind.ROWS, [X[:8].astype("<i8")], id=1, first_row=32),
    "with two arrays": pack(Kind.ROWS, [X[:8], X[:8]], id=1, first_row=32),
    "with no array": pack(Kind.ROWS, id=1, first_row=32),
    "whose layout contradicts its header": with_other_length(pack(Kind.ROWS, [X[:8]], id=1, first_row=32)),
}


@pytest.mark.parametrize("name", BAD_PARTS)
def test_a_bad_part_ends_its_request_with_one_error(name: str) -> None:
    service = Service(MODEL)
    peer = service.add_peer()
    start_in_parts(peer)
    service.dispatcher.step()
    peer.send(BAD_PARTS[name])
    for _ in range(20):
        service.turn()
    final = [f for f in peer.receive() if f.header.flags & Flag.FINAL]
    assert [f.header.id for f in final] == [1]
    assert isinstance(read_error(final[0]), InvalidInput | BadFrame)
    assert "0 requests, 0 chunks" in repr(service.dispatcher.scheduler)
    assert_serves(service, peer)


def test_rows_of_no_request_and_rows_too_many_are_of_no_concern() -> None:
    service = Service(MODEL)
    peer = service.add_peer()
    peer.send(pack(Kind.ROWS, [X], id=77))
    peer.send(make_request(Operation.SAMPLE, [POINT], n_rows=40, id=3))
    peer.send(pack(Kind.ROWS, [X], id=3))
    service.turn()
    assert_serves(service, peer)


# ---- workers that are none -----------------------------------------------------------------------------------


def test_a_worker_that_offers_nonsense_is_no_worker(capfd: pytest.CaptureFixture[str]) -> None:
    service = Service(MODEL, n_offers=5)
    for nth, (spec, failure) in enumerate(
        [({"name": "a b"}, None), ({"parameters": 3}, None), ({"name": 5}, None), (None, {"status": 3})]
    ):
        worker = service.add_false_worker()
        worker.send(pack(Kind.HELLO, [to_json(Offer(f"worker {nth}", "", spec=spec, failure=failure).to_dict())]))
        service.dispatcher.step()
    assert_serves(service)
    assert "serves nothing" in capfd.readouterr().err


def offer(worker: Peer, service: Service) -> None:
    spec = {**MODEL.spec.to_dict(), "operations": service.workers[0]._model.spec.operations}  # type: ignore[union-attr]
    source = service.workers[0]._model.source  # type: ignore[union-attr]
    worker.send(pack(Kind.HELLO, [to_json(Offer("false", "", source, spec).to_dict())]))
    service.dispatcher.step()


def test_an_offer_for_the_second_time_changes_nothing() -> None:
    service = Service(MODEL, n_offers=2)
    false = service.add_false_worker()
    offer(false, service)
    offer(false, service)
    assert service.connect().metadata()["workers"] == 2


RESULTS: dict[str, dict[str, Any]] = {
    "too many rows": {"arrays": [np.zeros(41)], "n_rows": 41},
    "no arrays": {"arrays": [], "n_rows": 40},
    "another dtype": {"arrays": [np.zeros(40, np.int64)], "n_rows": 40},
    "an unknown status": {"arrays": [to_json({"status": 99, "message": "?"})], "status": 99},
    "a status without a reason": {"arrays": [], "status": int(Status.MODEL_FAILED)},
    "a reason that is none": {"arrays": [to_json([1])], "status": int(Status.MODEL_FAILED)},
    "cancelled unasked": {"arrays": [], "status": int(Status.CANCELLED)},
}


@pytest.mark.parametrize("merged", [False, True], ids=["one request", "merged"])
@pytest.mark.parametrize("name", RESULTS)
def test_whose_result_is_none_is_given_up_and_others_answer(name: str, merged: bool) -> None:
    service = Service(MODEL, n_offers=2)
    false = service.add_false_worker()
    offer(false, service)
    client = service.connect("gaussian")
    honest, service.workers = service.workers, []
    service.dispatcher.lose(honest[0]._link._peer)  # type: ignore[attr-defined]
    size = 1 if merged else 4
    futures = [client.submit.log_density(X[:size], POINT) for _ in range(10 if merged else 1)]
    service.dispatcher.step()
    for _ in range(30):
        for frame in false.receive():
            if frame.header.kind == Kind.CHUNK:
                fields = {k: v for k, v in RESULTS[name].items() if k != "arrays"}
                false.send(pack(Kind.RESULT, RESULTS[name]["arrays"], id=frame.header.id, **fields))
        service.dispatcher.step()
    assert false.there not in service.dispatcher.peers
    service.add_worker(MODEL)
    for future in futures:
        assert future.result(timeout=10).tolist() == TRUTH[:size].tolist()
    assert_serves(service)


@pytest.mark.parametrize("id_", [0, 1, 2, 2**63])
def test_who_answers_unasked_is_given_up(id_: int) -> None:
    service = Service(MODEL, n_offers=2)
    false = service.add_false_worker()
    offer(false, service)
    false.send(pack(Kind.RESULT, [np.zeros(1)], id=id_, n_rows=1))
    service.dispatcher.step()
    assert false.there not in service.dispatcher.peers
    assert_serves(service)


def test_a_client_has_no_results_to_give() -> None:
    service = Service(MODEL)
    service.turn()
    peer = service.add_peer()
    error = read_error(peer.ask_one(pack(Kind.RESULT, [np.zeros(1)], id=1, n_rows=1)))
    assert isinstance(error, InvalidInput)
    assert_serves(service, peer)


# ---- workers that are lost -----------------------------------------------------------------------------------


def test_a_worker_that_is_lost_before_its_offer_keeps_nobody_waiting() -> None:
    service = Service(workers=0, n_offers=1)
    peer, false = service.add_peer(), service.add_false_worker()
    peer.send(make_request(Operation.METADATA))
    service.dispatcher.step()
    assert peer.receive() == []
    service.dispatcher.lose(false.there)
    service.dispatcher.step()
    (frame,) = peer.receive()
    error = read_error(frame)
    assert isinstance(error, ModelFailed)
    assert "peer was lost before it said what it serves" in str(error)


def test_a_worker_that_is_lost_is_not_counted_any_more() -> None:
    service = Service(MODEL, workers=3)
    client = service.connect()
    counts = [client.metadata()["workers"]]
    for worker in service.workers[:2]:
        for _ in range(2):  # once is enough
            service.dispatcher.lose(worker._link._peer)  # type: ignore[attr-defined]
        counts.append(client.metadata()["workers"])
    assert counts == [3, 2, 1]
    service.workers = service.workers[2:]
    assert_serves(service)


def test_a_worker_that_was_given_up_is_told_of_the_end(capfd: pytest.CaptureFixture[str]) -> None:
    clock = FakeClock()
    service = Service(MODEL, workers=2, clock=clock, config=Config(chunk_timeout=60.0))
    client = service.connect()
    future = client.submit.log_density(X[:4], POINT)
    service.dispatcher.step()
    (stuck,) = [w for w in service.workers if w._port._arrived]  # type: ignore[attr-defined]
    service.workers.remove(stuck)
    clock.advance(61.0)
    np.testing.assert_array_equal(future.result(), TRUTH[:4])
    assert client.metadata()["workers"] == 1
    service.dispatcher.serve(lambda: True)
    arrived = [frame.header.kind for _, frame in stuck._port._arrived]  # type: ignore[attr-defined]
    assert arrived.count(Kind.END) == 1
    assert arrived[-1] == Kind.END
    stuck.serve()  # ends
    assert "is given up" in capfd.readouterr().err


# ---- signs of life, and guests -------------------------------------------------------------------------------


def test_a_ping_is_answered_whatever_else_there_is_to_do() -> None:
    service = Service(MODEL)
    peer = service.add_peer()
    service.workers.clear()
    peer.send(make_request(Operation.LOG_DENSITY, [X, POINT]))
    (frame,) = peer.ask(pack(Kind.PING, id=77))
    assert (frame.header.kind, frame.header.id) == (Kind.PONG, 77)


@pytest.mark.parametrize("kind", [Kind.TICKET, Kind.NOW], ids=lambda kind: kind.name)
def test_links_of_a_launch_do_not_go_faster(kind: Kind) -> None:
    service = Service(MODEL)
    peer = service.add_peer()
    error = read_error(peer.ask_one(pack(kind)))
    assert isinstance(error, InvalidInput)
    assert_serves(service, peer)


def test_a_guest_that_is_lost_before_its_offer_fails_nobody() -> None:
    service = Service(workers=0, n_offers=1)
    asking, guest = service.add_peer(), Peer(service)
    service.dispatcher.add_worker(guest.there, Person("ada"), is_guest=True)
    asking.send(make_request(Operation.METADATA))
    service.dispatcher.step()
    service.dispatcher.lose(guest.there)
    service.dispatcher.step()
    assert asking.receive() == []  # another may come
    service.add_worker(MODEL)
    service.dispatcher.step()
    assert from_json(asking.receive()[0].arrays[0])["spec"]["name"] == "gaussian"


@pytest.mark.parametrize("is_guest", [False, True], ids=["of the launch", "a guest"])
def test_at_the_end_workers_of_the_launch_are_waited_for(is_guest: bool) -> None:
    """A worker that has an answer to give cannot end before somebody takes it; a guest's link simply ends."""
    clock = FakeClock()
    service = Service(workers=0, n_offers=1, clock=clock)
    worker, peer = Peer(service), service.add_peer()
    service.dispatcher.add_worker(worker.there, Person("ada"), is_guest=is_guest)
    loaded = LoadedModel(MODEL)
    worker.send(pack(Kind.HELLO, [to_json(Offer("w", "", loaded.source, loaded.spec.to_dict()).to_dict())]))
    peer.send(make_request(Operation.LOG_DENSITY, [X[:1], POINT]))
    service.dispatcher.step()
    receive, n_steps = service.port.receive, []

    def count() -> list[Arrival]:
        n_steps.append(clock.advance(1.0))
        return receive()

    service.port.receive = count  # type: ignore[method-assign]
    left = service.dispatcher.serve(lambda: True)
    assert (len(n_steps) > 5) is not is_guest
    assert left == ["peer"]
    assert worker.receive()[-1].header.kind == Kind.END


# ---- defects of our own --------------------------------------------------------------------------------------


#: What is called when a chunk is put together, and when an answer is passed on that is to be kept; what is said then.
DEFECTS = {
    "chunk": (np, "ascontiguousarray", "could not put chunk [0-9]+ together", Config(timeout=10.0)),
    "answer": (Recall, "gather", "could not pass the answer on", Config(timeout=10.0, cache_bytes=1 << 20)),
}


def break_once(monkeypatch: pytest.MonkeyPatch, defect: str) -> None:
    """The next of these calls raises, those after it do not."""
    owner, name, _, _ = DEFECTS[defect]
    function, broken = getattr(owner, name), [True]

    def call(*arguments: Any, **options: Any) -> Any:
        if broken:
            broken.clear()
            raise ZeroDivisionError("a defect")
        return function(*arguments, **options)

    monkeypatch.setattr(owner, name, call)


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("n", [1, 10], ids=["one request", "merged"])
def test_a_defect_costs_the_requests_of_its_chunk_and_no_others(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], defect: str, n: int
) -> None:
    _, _, message, config = DEFECTS[defect]
    service = Service(MODEL, config=config)
    client, other = service.connect(), service.connect(user="bob")
    break_once(monkeypatch, defect)
    lost = [client.submit.log_density(X[:1]) for _ in range(n)]  # without parameters, or it is passed on as it is
    safe = other.submit.log_density(X, POINT)
    np.testing.assert_array_equal(safe.result(), TRUTH)
    errors = [future.exception() for future in lost]
    failed = [error for error in errors if error is not None]
    assert failed
    for error in failed:
        assert isinstance(error, InternalError)
        assert re.search(message, str(error))
    for future, error in zip(lost, errors, strict=True):
        if error is None:
            assert future.result().tolist() == MODEL.log_density(X[:1], np.array([0.0, 1.0])).tolist()
    err = capfd.readouterr().err
    assert err.count("ZeroDivisionError: a defect") == 1
    assert "0 requests, 0 chunks" in repr(service.dispatcher.scheduler)
    assert service.dispatcher._batches == service.dispatcher.intake.calls == {}
    assert_serves(service)


def test_a_defect_in_the_plan_of_a_request_costs_that_one(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    service = Service(MODEL)
    client = service.connect()

    def fail(self: Served, frame: Frame) -> Any:
        raise ZeroDivisionError("a defect")

    with monkeypatch.context() as patched:
        patched.setattr(Served, "plan", fail)
        with pytest.raises(InternalError, match="could not be made sense of; the server's log has a traceback"):
            client.log_density(X, POINT)
    assert "ZeroDivisionError: a defect" in capfd.readouterr().err
    assert service.dispatcher.intake.calls == {}
    np.testing.assert_array_equal(client.log_density(X, POINT), TRUTH)


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_in_one_chunk_of_many_ends_the_request_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], defect: str
) -> None:
    service = Service(MODEL, workers=2, config=replace(DEFECTS[defect][3], chunk_seconds=1e-9))
    peer = service.add_peer()
    break_once(monkeypatch, defect)
    frames = peer.ask(make_request(Operation.LOG_DENSITY, [X, POINT]))
    for _ in range(200):
        service.turn()
        frames += peer.receive()
    final = [frame for frame in frames if frame.header.flags & Flag.FINAL]
    assert len(final) == 1
    assert isinstance(read_error(final[0]), InternalError)
    assert "ZeroDivisionError" in capfd.readouterr().err
    assert service.dispatcher._batches == service.dispatcher.intake.calls == {}
    assert_serves(service, peer)


# ---- anything at all -----------------------------------------------------------------------------------------

arrays = st.lists(
    st.builds(
        lambda dtype, shape: np.ones(shape, dtype),
        st.sampled_from(list(DTYPES.values())),
        st.lists(st.integers(0, 17), max_size=3).map(tuple),
    ),
    max_size=3,
)
numbers = st.one_of(st.integers(0, 70), st.integers(0, 2**64 - 1), st.just(40))
frames = st.builds(
    pack,
    st.one_of(st.sampled_from(list(Kind)), st.integers(0, 255)),
    st.one_of(arrays, st.sampled_from([[X, POINT], [X], [POINT], [X[:16], POINT[np.newaxis]]])),
    operation=st.one_of(st.sampled_from(list(Operation)), st.integers(0, 255)),
    status=st.sampled_from([0, 0, 0, 3, 99]),
    flags=st.one_of(st.integers(0, 7), st.integers(0, 2**16 - 1)),
    model=st.sampled_from([1, 1, 1, 0, 2, 65535]),
    id=st.one_of(st.integers(0, 5), st.integers(0, 2**64 - 1)),
    first_row=numbers,
    n_rows=numbers,
    revision=st.sampled_from([0, 0, 1, 7]),
    deadline_ms=st.integers(0, 2**32 - 1),
    seed=numbers,
)
whole_frames = frames.filter(lambda packed: not packed.tail).map(lambda packed: bytes(packed.head))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A message with bytes changed, cut off or added."""
    goldens = st.sampled_from(GOLDEN).map(Path.read_bytes)
    good = st.builds(lambda parts: bytes(join([bytearray(p) for p in parts])), st.lists(whole_frames, min_size=1))
    message = bytearray(draw(st.one_of(goldens, whole_frames, good)))
    for _ in range(draw(st.integers(0, 3))):
        if message:
            message[draw(st.integers(0, len(message) - 1))] = draw(st.integers(0, 255))
    cut = draw(st.one_of(st.just(len(message)), st.integers(0, len(message))))
    return bytes(message[:cut]) + draw(st.one_of(st.just(b""), st.binary(max_size=100)))


@CHECK
@given(st.lists(st.one_of(damaged(), whole_frames, st.binary(max_size=200)), min_size=1, max_size=4))
def test_whatever_bytes_a_client_sends_the_others_are_served(messages: list[bytes]) -> None:
    service = Service(MODEL, workers=2, config=Config(chunk_seconds=1e-4))
    peer = service.add_peer()
    for message in messages:
        peer.send(message)
        service.turn()
    assert_serves(service)


@CHECK
@given(st.lists(whole_frames, min_size=1, max_size=5))
def test_whatever_frames_a_client_sends_it_is_served_afterwards(messages: list[bytes]) -> None:
    service = Service(MODEL, workers=2, config=Config(chunk_seconds=1e-4))
    peer = service.add_peer()
    for message in messages:
        peer.send(message)
        service.turn()
    headers = [read_header(bytearray(message)) for message in messages]
    left = any(header.kind == Kind.GOODBYE for header in headers)
    for id_ in {header.id for header in headers}:
        peer.send(pack(Kind.CANCEL, id=id_))
    service.turn()
    peer.receive()
    assert_serves(service, None if left else peer)


@CHECK
@given(st.lists(st.one_of(damaged(), whole_frames), min_size=1, max_size=4))
def test_whatever_a_worker_sends_the_others_serve(messages: list[bytes]) -> None:
    service = Service(MODEL, n_offers=2)
    service.turn()
    false = service.add_false_worker()
    offer(false, service)
    for message in messages:
        false.send(message)
        service.turn()
    service.dispatcher.lose(false.there)
    assert_serves(service)


def test_golden_requests_have_the_size_of_small_frames() -> None:
    """`damaged` draws frames that are all head; a large one would need its payload as well."""
    assert all(len(path.read_bytes()) <= INLINE_BYTES + 4096 for path in GOLDEN)
    assert json.loads((GOLDEN[0].parent / "frames.json").read_text(encoding="utf-8"))
