"""A server among peers that say what no program of ours would: nobody gets in, nobody is hurt, nothing is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hostile import Attack, Mutator, Peer, Service, attack, make_corpus, make_offer, spell

from demos_hpc.dispatcher import Dispatcher
from demos_hpc.door import Door
from demos_hpc.intake import Intake
from demos_hpc.messages import Flag, Kind, Operation, to_json
from demos_hpc.transport.tcp import StreamLink
from demos_hpc.wire import HEADER_BYTES, OFFSETS, pack
from demos_hpc.worker import find_resident_bytes

FRAMES = 20_000
#: What the server may keep for good of what it was sent: its pool of buffers, and caches of limited size.
MOST_GROWTH = 400.0


def test_a_server_survives_what_it_is_sent() -> None:
    figures = attack(frames=FRAMES, seed=1)
    assert figures["crashes"] == 0
    assert figures["other_faults"] == 0
    assert figures["memory_growth_mb"] < MOST_GROWTH
    assert figures["frames"] >= FRAMES
    assert figures["ended"] > FRAMES / 10  # most of it was bad enough


# ---- would it be found? --------------------------------------------------------------------------------------


def raise_error(*_: Any) -> None:
    raise ZeroDivisionError("planted")


def say_nothing(*_: Any) -> None:
    return None


def keep_the_visit(self: Door, link: StreamLink, user: str, why: str) -> None:
    """As `Door._refuse`, but that it forgets to hang up."""
    del self._visits[link]


@pytest.mark.parametrize(
    ("owner", "name", "planted", "found"),
    [
        (Dispatcher, "_take_beat", raise_error, "crash: ZeroDivisionError: planted"),
        (Intake, "take_cancel", raise_error, "crash: ZeroDivisionError: planted"),
        (Dispatcher, "_take_result", raise_error, "crash: ZeroDivisionError: planted"),
        (Dispatcher, "_take_ping", say_nothing, "neither closed nor answered"),
        (Dispatcher, "_take_result", say_nothing, "not served afterwards"),
        (Dispatcher, "_send_failure", say_nothing, "not answered once"),
        (Door, "_refuse", keep_the_visit, "neither closed nor answered"),
        (StreamLink, "close", say_nothing, "crash: RuntimeError: the server is awake all the time"),
    ],
)
def test_what_is_wrong_would_be_found(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, planted: Callable[..., Any], found: str
) -> None:
    for what in ("hostile.PATIENCE", "hostile.TIMEOUT", "demos_hpc.connection.GRACE"):
        monkeypatch.setattr(what, 0.1)
    monkeypatch.setattr(owner, name, planted)
    faults: set[str] = set()
    for seed in range(10):
        run = Attack(seed)
        run.run(100)
        faults |= set(run.ledger.faults)
        if any(what.startswith(found) for what in faults):
            return
    raise AssertionError(f"found was only {faults}")


def test_the_same_seed_says_the_same() -> None:
    one, two, other = Mutator(4), Mutator(4), Mutator(5)
    said = [one.make() for _ in range(300)]
    assert said == [two.make() for _ in range(300)]
    assert said != [other.make() for _ in range(300)]
    assert len(set(said)) > 250


def test_much_of_it_is_well_formed_enough_to_be_looked_at() -> None:
    """Noise alone would be turned away by the first four bytes."""
    mutator = Mutator(6)
    said = [mutator.make() for _ in range(1000)]
    heads = [data for data in said if len(data) >= HEADER_BYTES and data[:5] == b"DMOS\x01"]
    assert len(heads) > 600
    assert {data[OFFSETS["kind"]] for data in heads} >= set(Kind)
    assert {data[OFFSETS["operation"]] for data in heads} >= set(Operation)


def test_all_that_is_mutated_was_good_or_golden() -> None:
    corpus = make_corpus()
    assert all(len(data) % 8 == 0 for data in corpus)
    assert {data[OFFSETS["kind"]] for data in corpus if data[:5] == b"DMOS\x01"} >= set(Kind)


# ---- one by one ----------------------------------------------------------------------------------------------


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.close()


def test_a_crowd_at_the_door_keeps_nobody_out(service: Service) -> None:
    crowd = [Peer(service) for _ in range(200)]
    good = Peer(service)
    good.enter("client")
    assert len(service.door._visits) <= 64
    for peer in crowd:
        peer.hear()
    assert sum(peer.is_over for peer in crowd) >= 200 - 64
    service.expire()
    service.turn()
    assert not service.door._visits
    for peer in crowd:
        peer.hear()
        assert peer.is_over
    assert good.is_answered()


def test_rings_are_no_knock(service: Service) -> None:
    peer = Peer(service)
    for _ in range(100):
        peer.say(spell(pack(Kind.RING)) * 50)
    assert not peer.is_over
    service.expire()
    service.turn()
    peer.hear()
    assert peer.is_over
    assert peer.frames[-1].header.status


@pytest.mark.parametrize("role", ["client", "worker", "operator"])
def test_what_is_announced_takes_no_memory_until_it_comes(service: Service, role: str) -> None:
    """Not even from somebody who was let in: pages are only taken when they are written to."""
    peers = [Peer(service) for _ in range(20)]
    for peer in peers:
        peer.enter(role)
    size = 60 << 20
    head = bytearray(pack(Kind.ROWS, [np.zeros(1, np.uint8)]).head[: HEADER_BYTES + 16])
    head[OFFSETS["payload"] : OFFSETS["payload"] + 8] = (16 + size).to_bytes(8, "little")
    head[HEADER_BYTES + 8 : HEADER_BYTES + 16] = size.to_bytes(8, "little")
    before = find_resident_bytes()
    for peer in peers:
        peer.say(bytes(head) + bytes(1000))
        assert peer.is_waited_for
    assert find_resident_bytes() - before < size
    assert all(peer.leave() for peer in peers)
    service.ask()


def test_a_worker_that_answers_for_another_is_not_heard(service: Service) -> None:
    """Ids of chunks are easily guessed."""
    caller, other, worker, stranger = [Peer(service) for _ in range(4)]
    for peer, role in ((caller, "client"), (other, "client"), (worker, "worker"), (stranger, "worker")):
        peer.enter(role)
    worker.say(spell(pack(Kind.HELLO, [to_json(make_offer().to_dict())])))
    (handle,) = [s.handle for s in service.dispatcher.catalog.models.values() if s.spec.name == "evil"]
    request = pack(Kind.REQUEST, [np.zeros((2, 1)), np.ones(2)], operation=1, model=handle, id=9, n_rows=2)
    caller.say(spell(request))
    worker.hear()
    chunk = worker.frames[-1].header
    assert chunk.kind == Kind.CHUNK
    for peer in (other, stranger):
        for id_ in range(chunk.id + 20):
            peer.say(spell(pack(Kind.RESULT, [np.full(2, -1.0)], operation=1, id=id_, n_rows=2)))
    caller.hear()
    assert caller.frames == []
    worker.say(spell(pack(Kind.RESULT, [np.full(2, 5.0)], operation=1, id=chunk.id, n_rows=2)))
    caller.hear()
    (reply,) = caller.frames
    assert (reply.header.id, reply.header.status, reply.header.flags) == (9, 0, Flag.FINAL)
    np.testing.assert_array_equal(reply.arrays[0], [5.0, 5.0])
    worker.say(spell(pack(Kind.RESULT, [np.full(2, -1.0)], operation=1, id=chunk.id, n_rows=2)))  # once more
    assert caller.is_answered()
    assert caller.frames == []
    for peer in (caller, other, worker, stranger):
        assert peer.leave()


@pytest.mark.parametrize("role", ["client", "worker", "operator"])
def test_nobody_stops_a_server_without_the_right(service: Service, role: str) -> None:
    peer = Peer(service)
    peer.enter(role)
    for operation in (Operation.DRAIN, Operation.STOP):
        peer.say(spell(pack(Kind.REQUEST, [to_json({"now": True})], operation=operation, id=3)))
    assert [frame.header.id for frame in peer.frames] == [3, 3]
    assert all(frame.header.status for frame in peer.frames)
    assert not service.reception.is_draining
    service.ask()
