"""Busy links go on through shared memory: who offers, who takes, and what becomes of those who do not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from inside import SOON, Hall
from serving import wait_until

from demos_hpc.errors import DemosError, ServerLost, Status
from demos_hpc.greetings import Ticket
from demos_hpc.messages import Kind, from_json, to_json
from demos_hpc.peers import Peer, Person
from demos_hpc.testing import Gaussian
from demos_hpc.transport import pair
from demos_hpc.transport.tcp import StreamLink
from demos_hpc.upgrade import Ascent, Tickets
from demos_hpc.wire import Frame, Packed, pack, read_header

POINT = np.array([0.5, 2.0])
X = np.random.default_rng(11).normal(size=(40, 1))


class FakeLink(StreamLink):
    """A link over a socket that is none; what is sent is kept."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.faster = None
        self.sent: list[Frame] = []
        self.is_lost = False

    def send_here(self, packed: Packed) -> None:
        self.sent.append(Frame(read_header(packed.head), packed.head))

    @property
    def is_gone(self) -> bool:
        return self.is_lost

    def take(self) -> list[tuple[Kind, int]]:
        """Kinds and statuses of what was sent since."""
        sent, self.sent = self.sent, []
        return [(Kind(frame.header.kind), frame.header.status) for frame in sent]


class FakePort:
    """Memory that is none."""

    def __init__(self) -> None:
        self.offered: list[str] = []
        self.withdrawn: list[str] = []
        #: Addresses that somebody has taken.
        self.taken: set[str] = set()
        self.held: list[Any] = []
        self.begun: list[Any] = []
        self.can_open = self.can_connect = True

    def open(self) -> str:
        if not self.can_open:
            raise pair.Unreachable("no memory here")
        self.offered.append(f"memory {len(self.offered)}")
        return self.offered[-1]

    def accept(self, address: str, front: Any, name: str) -> Any:
        if address not in self.taken:
            self.withdraw(address)
            raise pair.Unreachable("nobody took it")
        return SimpleNamespace(transport="shm", address=address)

    def withdraw(self, address: str) -> None:
        assert address not in self.withdrawn
        self.withdrawn.append(address)

    def connect(self, address: str, front: Any, name: str) -> Any:
        if not self.can_connect:
            raise pair.Unreachable("another container")
        self.taken.add(address)
        return SimpleNamespace(transport="shm", address=address)

    def hold(self, link: Any) -> None:
        self.held.append(link)

    def begin(self, link: Any) -> None:
        self.begun.append(link)


class Side:
    """A dispatcher's tickets, and peers who ask for them."""

    def __init__(self) -> None:
        self.port = FakePort()
        self.upgraded: list[Peer] = []
        self.tickets = Tickets(cast("Any", self.port), self.upgraded.append)

    def add_peer(self, number: int = 1) -> tuple[Peer, FakeLink]:
        link = FakeLink(f"client {number}")
        return Peer(number, link, "client", Person("ada"), is_guest=True), link


def make_frame(kind: Kind, arrays: list[Any] | None = None, **fields: int) -> Frame:
    head = pack(kind, arrays or [], **fields).head
    return Frame(read_header(head), head)


NOW = make_frame(Kind.NOW)


# ---- the dispatcher's side -------------------------------------------------------------------------------------


def test_who_asks_is_offered_memory_and_goes_on_there() -> None:
    side = Side()
    peer, link = side.add_peer()
    side.tickets.give(peer)
    (frame,) = link.sent
    assert frame.header.kind == Kind.TICKET
    assert Ticket.from_dict(from_json(frame.arrays[0])).address == "memory 0"
    assert link.take() == [(Kind.TICKET, 0)]
    assert link.faster is None
    side.port.taken.add("memory 0")
    side.tickets.accept(peer, NOW)
    assert link.take() == [(Kind.SWITCH, 0)]
    assert link.faster is not None
    assert side.upgraded == [peer]
    for _ in range(3):  # it is there already
        side.tickets.give(peer)
        side.tickets.accept(peer, NOW)
    assert (link.take(), side.port.offered, side.port.withdrawn) == ([], ["memory 0"], [])


def test_who_asks_again_and_again_is_offered_once() -> None:
    side = Side()
    peer, link = side.add_peer()
    for _ in range(1000):
        side.tickets.give(peer)
    assert side.port.offered == ["memory 0"]
    assert link.take() == [(Kind.TICKET, 0)]


def test_where_there_is_no_memory_the_socket_will_do() -> None:
    side = Side()
    peer, link = side.add_peer()
    side.port.can_open = False
    side.tickets.give(peer)
    assert link.take() == [(Kind.SWITCH, Status.NOT_OFFERED)]
    side.tickets.accept(peer, NOW)
    assert (link.take(), link.faster, side.upgraded) == ([], None, [])
    side.port.can_open = True
    side.tickets.give(peer)
    assert link.take() == [(Kind.TICKET, 0)]


def test_who_cannot_take_it_gives_it_back() -> None:
    side = Side()
    peer, link = side.add_peer()
    side.tickets.give(peer)
    link.take()
    side.tickets.accept(peer, make_frame(Kind.NOW, status=Status.NOT_OFFERED))
    assert (link.take(), link.faster, side.upgraded, side.port.withdrawn) == ([], None, [], ["memory 0"])


def test_who_says_so_and_has_not_stays_on_the_socket() -> None:
    side = Side()
    peer, link = side.add_peer()
    side.tickets.accept(peer, NOW)  # without ever having asked
    side.tickets.give(peer)
    link.take()
    side.tickets.accept(peer, NOW)
    assert (link.take(), link.faster, side.upgraded, side.port.withdrawn) == ([], None, [], ["memory 0"])


def test_what_was_offered_to_those_who_are_gone_is_taken_back() -> None:
    side = Side()
    peers = [side.add_peer(number) for number in range(3)]
    for peer, _ in peers:
        side.tickets.give(peer)
    side.tickets.tick()
    assert side.port.withdrawn == []
    peers[1][1].is_lost = True
    for _ in range(2):
        side.tickets.tick()
    assert side.port.withdrawn == ["memory 1"]
    side.port.taken.add("memory 2")
    side.tickets.accept(peers[2][0], NOW)
    side.tickets.accept(peers[1][0], NOW)
    assert side.upgraded == [peers[2][0]]


# ---- the peer's side -------------------------------------------------------------------------------------------


def make_ascent(after: int = 3) -> tuple[Ascent, FakePort, FakeLink]:
    port, link = FakePort(), FakeLink("server")
    return Ascent(cast("Any", port), link, after), port, link


TICKET = make_frame(Kind.TICKET, [to_json(Ticket("memory 0").to_dict())])
SWITCH = make_frame(Kind.SWITCH)


def test_a_busy_link_asks_once() -> None:
    ascent, _, link = make_ascent(3)
    for _ in range(2):
        ascent.count()
    assert link.take() == []
    for _ in range(100):
        ascent.count()
    assert link.take() == [(Kind.TICKET, 0)]


def test_memory_is_used_at_once_and_looked_at_once_it_is_confirmed() -> None:
    ascent, port, link = make_ascent()
    ascent.take(TICKET)
    assert link.take() == [(Kind.NOW, 0)]
    assert port.held == [link.faster]
    assert port.begun == []
    ascent.take(SWITCH)
    assert port.begun == [link.faster]


def test_memory_that_cannot_be_reached_is_left() -> None:
    ascent, port, link = make_ascent()
    port.can_connect = False
    ascent.take(TICKET)
    assert link.take() == [(Kind.NOW, Status.NOT_OFFERED)]
    ascent.take(SWITCH)
    assert (link.faster, port.begun) == (None, [])


def test_a_server_without_memory_says_so() -> None:
    ascent, port, link = make_ascent()
    ascent.take(make_frame(Kind.SWITCH, status=Status.NOT_OFFERED))
    assert (link.take(), link.faster, port.begun) == ([], None, [])


@pytest.mark.parametrize("arrays", [[], [np.zeros(3)], [to_json([1])], [to_json({"address": 3})]], ids=str)
def test_a_ticket_that_is_none_is_the_servers_error(arrays: list[Any]) -> None:
    ascent, port, link = make_ascent()
    with pytest.raises(DemosError):
        ascent.take(make_frame(Kind.TICKET, arrays))
    assert (link.take(), link.faster, port.held) == ([], None, [])


# ---- both, in one process --------------------------------------------------------------------------------------

with_memory = pytest.mark.skipif(not pair.is_possible(), reason="no shared memory that keeps stores in order")


@with_memory
def test_busy_links_go_on_through_memory(hall: Hall) -> None:
    server = hall.open(workers=2, upgrade_after=5)
    with server.connect() as model, server.operate() as operator:
        truth = Gaussian().log_density(X, POINT)
        futures = [model.submit.log_density(X, POINT) for _ in range(300)]
        for future in futures:
            np.testing.assert_array_equal(future.result(), truth)
        for n in range(1, 300):
            np.testing.assert_array_equal(model.log_density(X[: n % 40 + 1], POINT), truth[: n % 40 + 1])
        large = np.linspace(-1.0, 1.0, 200_000)[:, np.newaxis]
        np.testing.assert_array_equal(model.log_density(large, POINT), Gaussian().log_density(large, POINT))
        told = wait_until(
            lambda: (look := operator.look())["links"].get("shm", {}).get("workers") == 2 and look, SOON, "workers too"
        )
        assert told["links"]["shm"]["clients"] == 1
        assert told["events"]["upgrades"] == 3
        assert told["requests"] == 600
        lines = {worker["transport"] for worker in told["workers"] if worker["is_alive"]}
        assert lines == {"shm"}
    server.wait_for_entry(lambda entry: entry.clients == 0, "it has said goodbye")
    with server.operate() as operator:
        assert operator.look()["events"]["lost_clients"] == 0


@with_memory
@pytest.mark.parametrize("options", [{"upgrade": "off"}, {"transport": "unix"}, {"transport": "tcp"}], ids=str)
def test_links_that_are_not_to_go_on_stay_on_their_sockets(hall: Hall, options: dict[str, str]) -> None:
    server = hall.open(upgrade_after=5)
    with hall.make_caller("here", upgrade_after=5, **options) as model, server.operate() as operator:
        for _ in range(50):
            model.log_density(X, POINT)
        assert operator.look()["links"][options.get("transport", "unix")]["clients"] == 1


@with_memory
def test_a_client_in_memory_hears_of_its_servers_end(hall: Hall) -> None:
    server = hall.open(upgrade_after=5)
    with server.connect() as model:
        for _ in range(50):
            model.log_density(X, POINT)
        server.stop()
        with pytest.raises(ServerLost, match="the server has ended"):
            model.log_density(X, POINT)


@with_memory
def test_a_client_in_memory_finds_its_server_again(hall: Hall) -> None:
    server = hall.open(upgrade_after=5)
    truth = Gaussian().log_density(X, POINT)
    with hall.make_caller("here", reconnect=True, upgrade_after=5) as model:
        for _ in range(50):
            model.log_density(X, POINT)
        server.crash()
        hall.open(workers=0)
        for _ in range(50):
            np.testing.assert_array_equal(model.log_density(X, POINT), truth)
