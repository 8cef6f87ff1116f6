"""Clients that leave their answers untaken: noticed, waited for, given up."""

from __future__ import annotations

import numpy as np
import pytest
from service import Peer, Service, make_request

from demos_hpc.config import Config
from demos_hpc.events import ClientResumed, ClientStalled
from demos_hpc.messages import Flag, Operation
from demos_hpc.peers import Peer as Known
from demos_hpc.peers import Person
from demos_hpc.stalls import Stalls
from demos_hpc.testing import FakeClock, Gaussian
from demos_hpc.transport.loopback import LoopbackLink
from demos_hpc.wire import Packed

MODEL = Gaussian(block_rows=16)
POINT = np.array([0.5, 2.0])


class SlowLink(LoopbackLink):
    """A link whose other side takes what the test says."""

    unsent_bytes = 0


def make_peer(number: int = 1) -> Known:
    return Known(number, SlowLink(f"client {number}"), "client", Person("ada"), is_guest=True)


def leave(peer: Known, n_bytes: int) -> None:
    peer.link.unsent_bytes = n_bytes  # type: ignore[misc]


# ---- alone -----------------------------------------------------------------------------------------------------


def test_a_client_stalls_once_too_much_is_left() -> None:
    stalls, peer = Stalls(100, 10.0), make_peer(7)
    for n_bytes in (0, 100):
        leave(peer, n_bytes)
        assert stalls.check(peer, 0.0) is None
    assert not stalls
    leave(peer, 101)
    assert stalls.check(peer, 0.0) == ClientStalled(7)
    assert stalls.check(peer, 0.0) is None
    assert stalls


def test_a_client_resumes_when_half_is_taken() -> None:
    stalls, peer = Stalls(100, 10.0), make_peer(7)
    leave(peer, 200)
    stalls.check(peer, 0.0)
    for n_bytes in (150, 100, 50):
        leave(peer, n_bytes)
        assert stalls.look(1.0) == ([], [])
    leave(peer, 49)
    assert stalls.look(2.0) == ([ClientResumed(7)], [])
    assert not stalls
    leave(peer, 101)
    assert stalls.check(peer, 3.0) == ClientStalled(7)


def test_who_takes_nothing_is_given_up_and_who_takes_a_little_is_not(capfd: pytest.CaptureFixture[str]) -> None:
    stalls, deaf, slow = Stalls(100, 10.0), make_peer(1), make_peer(2)
    for peer in (deaf, slow):
        leave(peer, 200)
        stalls.check(peer, 0.0)
    for second in range(1, 11):
        leave(slow, 200 - second)
        assert stalls.look(float(second)) == ([], [])
    leave(slow, 180)
    assert stalls.look(10.5) == ([], [deaf])
    stalls.forget(deaf)
    assert "client 1 has taken no answers for 10 s and is given up" in capfd.readouterr().err
    assert stalls.look(20.0) == ([], [])
    assert stalls.look(20.6) == ([], [slow])
    stalls.forget(slow)
    assert not stalls


def test_who_takes_a_little_is_not_given_up_for_what_comes_on_top() -> None:
    """Chunks that were begun are still answered: more may be left than before, though something was taken."""
    stalls, peer = Stalls(100, 10.0), make_peer()
    leave(peer, 200)
    stalls.check(peer, 0.0)
    left = 5000
    for second in range(1, 50):
        leave(peer, left - second)
        assert stalls.look(float(second)) == ([], [])
    assert stalls.look(59.1) == ([], [peer])


def test_more_and_more_to_take_is_no_sign_of_life() -> None:
    stalls, peer = Stalls(100, 10.0), make_peer()
    leave(peer, 200)
    stalls.check(peer, 0.0)
    for second in range(1, 11):
        leave(peer, 200 + second)
        assert stalls.look(float(second)) == ([], [])
    leave(peer, 300)
    assert stalls.look(10.1) == ([], [peer])


# ---- in a dispatcher -------------------------------------------------------------------------------------------


def add_slow(service: Service, user: str = "eve") -> tuple[Peer, SlowLink]:
    """A client whose link keeps what the test says."""
    peer = Peer(service)
    link = SlowLink("slow")
    link._port, link._peer = service.port, peer.link
    peer.link._peer = link
    peer.there = link
    service.dispatcher.add_client(link, Person(user))
    return peer, link


def make_service(**settings: float) -> tuple[Service, FakeClock]:
    clock = FakeClock()
    config = Config(max_unsent_bytes=1000, stall_timeout=60.0, **settings)  # type: ignore[arg-type]
    return Service(MODEL, workers=2, config=config, clock=clock), clock


def ask(id_: int, n: int = 200) -> Packed:
    return make_request(Operation.LOG_DENSITY, [np.zeros((n, 1)), POINT], id=id_)


def answered(peer: Peer) -> set[int]:
    return {frame.header.id for frame in peer.receive() if frame.header.flags & Flag.FINAL}


def test_a_stalled_client_waits_and_others_do_not() -> None:
    service, clock = make_service(chunk_seconds=1e-9)
    slow, link = add_slow(service)
    other = service.add_peer()
    link.unsent_bytes = 5000
    for id_ in (1, 2, 3):
        slow.send(ask(id_))
    for _ in range(100):
        service.turn()
    assert not answered(slow)
    other.ask_rows(ask(1))
    link.unsent_bytes = 499
    clock.advance(0.1)
    for _ in range(100):
        service.turn()
    assert answered(slow) == {1, 2, 3}


def test_a_client_that_takes_nothing_is_lost() -> None:
    service, clock = make_service()
    slow, link = add_slow(service)
    link.unsent_bytes = 5000
    slow.send(ask(1))
    service.turn()
    clock.advance(59.0)
    service.turn()
    assert link in service.dispatcher.peers
    clock.advance(2.0)
    service.turn()
    assert link not in service.dispatcher.peers
    assert not service.dispatcher._stalls
    assert service.dispatcher.scheduler.is_idle
    assert service.dispatcher.accounts.metrics.describe(clock())["events"]["lost_clients"] == 1
    service.add_peer().ask_rows(ask(1))


def test_who_leaves_while_it_is_stalled_leaves_nothing_behind() -> None:
    service, _ = make_service()
    slow, link = add_slow(service)
    link.unsent_bytes = 5000
    slow.send(ask(1))
    service.turn()
    service.dispatcher.lose(link)
    assert not service.dispatcher._stalls
    assert service.dispatcher.scheduler.is_idle


def test_answers_that_no_worker_computes_count_as_well() -> None:
    """Answers from the cache, metadata: whoever asks for more and more of them and takes none is given up."""
    for request in (ask(1, 4), make_request(Operation.METADATA)):
        service, clock = make_service(cache_bytes=1 << 20)
        service.add_peer().ask_rows(ask(1, 4))
        slow, link = add_slow(service)
        link.unsent_bytes = 5000
        slow.send(request)
        service.turn()
        assert answered(slow) == {1}
        for seconds in (1.5, 61.0):
            clock.advance(seconds)
            service.turn()
        assert link not in service.dispatcher.peers
