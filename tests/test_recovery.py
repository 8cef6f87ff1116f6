"""A connection that outlives its server: what is asked for again, of whom, when, and when it is given up.

Servers are ends of loopback links, and time only passes where somebody waits.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from demos_hpc import calling
from demos_hpc.calling import Caller
from demos_hpc.config import Config
from demos_hpc.connection import GRACE
from demos_hpc.errors import (
    AccessRefused,
    BadFrame,
    Busy,
    Cancelled,
    DeadlineExceeded,
    DemosError,
    Draining,
    InvalidInput,
    LaunchError,
    ModelFailed,
    ServerLost,
    Status,
)
from demos_hpc.future import Future
from demos_hpc.messages import Array, Failure, Flag, Kind, Operation, to_json
from demos_hpc.recovery import ATTEMPT, LONGEST_PAUSE, MOVING, SHORTEST_ATTEMPT, LastingConnection
from demos_hpc.registry import Registry
from demos_hpc.transport.loopback import LoopbackLink, LoopbackPort, make_pair
from demos_hpc.transport.tcp import StreamPort
from demos_hpc.wire import INLINE_BYTES, Frame, pack

X = np.zeros((5, 1))
VALUES = np.arange(5.0)
HEARTBEAT = 5.0
#: Steps after which a test has lost its way.
MANY = 10_000


class Clock:
    """Passes only where somebody waits for it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.steps = 0
        #: What happens at which time.
        self._due: list[tuple[float, Callable[[], object]]] = []

    def monotonic(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.steps += 1
        assert self.steps < MANY, "it waits and waits"
        assert seconds >= 0
        end = self.now + seconds
        while self._due and self._due[0][0] <= end:
            self.now, act = self._due.pop(0)
            act()
            return  # whoever waits is woken
        self.now = end

    def at(self, when: float, act: Callable[[], object]) -> None:
        self._due.append((when, act))
        self._due.sort(key=lambda due: due[0])


class Port(LoopbackPort):
    """A client's end; its links say whether they were parted from."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.is_closed = False

    def wait(self, seconds: float) -> None:
        if not self._arrived:
            self._clock.pass_by(seconds)

    def close(self) -> None:
        self.is_closed = True


class Link(LoopbackLink):
    """Counts what was sent before and after it was parted from."""

    is_parted = False
    n_late = 0

    def part(self) -> None:
        self.is_parted = True

    def send(self, packed: Any) -> None:
        if self.is_parted:
            self.n_late += 1
        else:
            super().send(packed)


class Server:
    """What a client was told of a server, and the other end of its link."""

    ascent = None

    def __init__(self, clock: Clock, name: str = "server", handle: int = 1) -> None:
        self.handle = handle
        self.port = Port(clock)
        self.link = Link(name)
        self._inbox = LoopbackPort()
        there, here = make_pair(self._inbox, self.port, (name, "client"))
        self.link._port, self.link._peer, there._peer = here._port, here._peer, self.link
        self._there = there

    def take(self) -> list[Frame]:
        """What has come since the last time."""
        return [frame for _, frame in self._inbox.receive() if isinstance(frame, Frame)]

    def take_ids(self) -> list[int]:
        return [frame.header.id for frame in self.take() if frame.header.kind == Kind.REQUEST]

    def reply(self, id_: int, arrays: list[Any], *, final: bool = True, **fields: int) -> None:
        self._there.send(pack(Kind.REPLY, arrays, id=id_, flags=Flag.FINAL if final else 0, **fields))

    def refuse(self, id_: int, error: DemosError) -> None:
        failure = Failure.of(error)
        self.reply(id_, [to_json(failure.to_dict())], status=failure.status)

    def send(self, kind: int) -> None:
        self._there.send(pack(kind))

    def die(self, error: DemosError | None = None) -> None:
        self.port._arrived.append((self.link, error or ServerLost("the connection to server was closed")))


class World:
    """A client, its first server, and those that it finds one after the other when it looks again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        # Those of the module itself: what is compiled does not look for another.
        monkeypatch.setattr(time, "monotonic", self.clock.monotonic)
        monkeypatch.setattr(time, "sleep", self.clock.pass_by)
        self.server = Server(self.clock)
        self.servers: list[Server | DemosError] = []
        #: When it was looked for a server, and how long that was allowed to take.
        self.tries: list[tuple[float, float]] = []
        self.connection: LastingConnection

    def redial(self, seconds: float) -> Server:
        self.tries.append((self.clock.now, seconds))
        found = self.servers.pop(0) if self.servers else ServerLost("there is none")
        if isinstance(found, DemosError):
            raise found
        return found

    def connect(self, *, reconnect: bool = True, timeout: float = 100.0, **options: Any) -> LastingConnection:
        self.connection = LastingConnection(
            self.server.port,
            self.server.link,
            Config(timeout=timeout),
            redial=self.redial if reconnect else None,
            **options,
        )
        return self.connection

    def start(self, n: int = 5, x: Array = X, **options: Any) -> Future:
        return self.connection.start(Operation.LOG_DENSITY, [x], n, n, ((),), lambda a: a[0], **options)

    def expect(self, handle: int = 2) -> Server:
        """A server that will be found the next time."""
        found = Server(self.clock, "second", handle)
        self.servers.append(found)
        return found

    def look(self) -> None:
        """The client takes in what there is, a loss and what follows from it included."""
        for _ in range(3):
            self.connection.progress()

    @property
    def now(self) -> float:
        return self.clock.now


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


# ---- again ---------------------------------------------------------------------------------------------------


def test_what_is_unanswered_is_asked_for_again_once(world: World) -> None:
    world.connect()
    answered, short, long = world.start(), world.start(timeout=20.0), world.start(timeout=50.0)
    question = world.connection.ask(Operation.SET_PARAMS, {"mu": 1.0}, model=1)
    world.server.take()
    world.server.reply(answered.id, [VALUES])
    np.testing.assert_array_equal(answered.result(), VALUES)
    world.clock.pass_by(8.0)
    world.server.die()
    second = world.expect(handle=7)
    world.look()
    frames = second.take()
    assert [frame.header.id for frame in frames] == [short.id, long.id, question.id]
    assert [frame.header.model for frame in frames] == [7, 7, 7]
    assert [frame.header.deadline_ms for frame in frames[:2]] == [12_000, 42_000]
    for frame in frames[:2]:
        np.testing.assert_array_equal(frame.arrays[0], X)
    assert world.tries == [(world.now, SHORTEST_ATTEMPT)]
    second.reply(long.id, [VALUES * 2])
    second.reply(short.id, [VALUES * 3])
    second.reply(question.id, [], revision=4)
    np.testing.assert_array_equal(short.result(), VALUES * 3)
    np.testing.assert_array_equal(long.result(), VALUES * 2)
    assert question.result() is None
    assert second.take() == []
    assert world.server.link.is_parted
    assert world.server.link.n_late == 0
    assert world.server.port.is_closed
    assert not second.port.is_closed
    # From now on it is the new server that is asked, by its own handle.
    later = world.start(model=1)
    (frame,) = second.take()
    assert (frame.header.id, frame.header.model) == (later.id, 7)


def test_a_server_may_be_lost_many_times(world: World) -> None:
    world.connect(timeout=1e4)
    asked, server = world.start(), world.server
    for _ in range(20):
        server.die()
        server = world.expect()
        world.look()
        world.clock.pass_by(LONGEST_PAUSE)
        world.look()
        assert server.take_ids() == [asked.id]
    server.reply(asked.id, [VALUES])
    np.testing.assert_array_equal(asked.result(), VALUES)


def test_without_an_end_of_time_as_well(world: World) -> None:
    world.connect(timeout=math.inf)
    world.start()
    world.server.die()
    second = world.expect()
    world.look()
    assert [frame.header.deadline_ms for frame in second.take()] == [2**32 - 1]


def test_what_was_due_meanwhile_is_still_asked_for(world: World) -> None:
    """A server that is found in the last moment says itself that it is too late."""
    world.connect()
    world.start(timeout=3.0)

    def find(seconds: float) -> Server:
        world.clock.now += 5.0
        return second

    second = Server(world.clock)
    world.connection._redial = find
    world.server.die()
    world.look()
    assert [frame.header.deadline_ms for frame in second.take()] == [1]


def test_large_requests_are_sent_again_from_their_beginning(world: World) -> None:
    world.connect()
    x = np.arange(100.0)[:, np.newaxis]
    seen: list[tuple[int, int]] = []
    asked = world.start(100, x, part_rows=30, n_per_row=1)
    asked.progress = lambda done, total: seen.append((done, total))
    assert not asked.done()
    assert [frame.header.first_row for frame in world.server.take()] == [0, 30, 60, 90]
    # The first server answers some of it, and wrongly: of that nothing may be left.
    world.server.reply(asked.id, [np.full(30, -1.0)], final=False, first_row=30, deadline_ms=4)
    world.server.reply(asked.id, [np.full(10, -1.0)], final=False, first_row=90)
    assert not asked.done()
    assert asked.n_answered == 40
    world.server.die()
    second = world.expect()
    world.look()
    frames = second.take()
    assert [(f.header.kind, f.header.first_row, len(f.arrays[0])) for f in frames] == [
        (Kind.REQUEST, 0, 30), (Kind.ROWS, 30, 30), (Kind.ROWS, 60, 30), (Kind.ROWS, 90, 10),
    ]  # fmt: skip
    assert [frame.header.id for frame in frames] == [asked.id] * 4
    np.testing.assert_array_equal(np.concatenate([frame.arrays[0] for frame in frames]), x)
    for first in (60, 0, 30):
        rows = np.arange(first, first + 30.0)
        second.reply(asked.id, [rows], final=False, first_row=first, deadline_ms=1)
    second.reply(asked.id, [np.arange(90.0, 100.0)], first_row=90)
    np.testing.assert_array_equal(asked.result(), x[:, 0])
    assert asked.nonfinite_rows == 3
    assert [done for done, _ in seen] == [30, 40, 30, 60, 90, 100]


def test_answers_in_place_are_overwritten(world: World) -> None:
    world.connect()
    n = 4 * INLINE_BYTES
    out = np.full(n, np.nan)
    asked = world.start(n, np.zeros((n, 1)), out=[out])
    world.server.reply(asked.id, [np.full(n // 2, -1.0)], final=False)
    assert not asked.done()
    assert out[0] == -1.0
    world.server.die()
    second = world.expect()
    world.look()
    second.reply(asked.id, [np.arange(n / 2, n)], final=False, first_row=n // 2)
    second.reply(asked.id, [np.arange(n / 2)])
    assert asked.result() is out
    np.testing.assert_array_equal(out, np.arange(n))


def test_a_window_starts_anew(world: World) -> None:
    """Of a large request, only so much is sent ahead of the answers: to the second server as to the first."""
    world.connect()
    world.connection._config = Config(window_bytes=100 * 8)
    asked = world.start(1000, np.zeros((1000, 1)), part_rows=64, n_per_row=1)
    assert not asked.done()
    assert len(world.server.take()) == 2
    world.server.reply(asked.id, [np.zeros(128)], final=False)
    assert not asked.done()
    assert len(world.server.take()) == 2
    world.server.die()
    second = world.expect()
    world.look()
    assert [frame.header.first_row for frame in second.take()] == [0, 64]


def test_what_is_asked_while_there_is_no_server_is_sent_when_there_is_one(world: World) -> None:
    world.connect()
    world.server.die()
    world.look()
    first = world.start()
    world.look()
    second = world.start()
    large = world.start(100, np.zeros((100, 1)), part_rows=50, n_per_row=1)
    world.look()
    found = world.expect()
    world.clock.pass_by(LONGEST_PAUSE)
    world.look()
    assert found.take_ids() == [first.id, second.id, large.id]
    assert world.server.take() == []


def test_without_a_way_to_find_another_a_loss_is_a_loss(world: World) -> None:
    world.connect(reconnect=False, retries=3)
    asked = [world.start() for _ in range(3)]
    world.server.die()
    for one in asked:
        with pytest.raises(ServerLost, match="was closed"):
            one.result()
    with pytest.raises(ServerLost, match="was closed"):
        world.start()
    assert world.tries == []


@pytest.mark.parametrize("end", ["END", "link"])
def test_a_server_that_says_that_it_ends_is_lost(world: World, end: str) -> None:
    world.connect()
    asked = world.start()
    if end == "END":
        world.server.send(Kind.END)
    else:
        world.server.refuse(0, ServerLost("going"))
    second = world.expect()
    world.look()
    assert second.take_ids() == [asked.id]


@pytest.mark.parametrize("error", [BadFrame("no frame"), Draining("ending"), Busy("full"), ModelFailed("?")])
def test_what_is_wrong_with_a_link_ends_everything_on_it(world: World, error: DemosError) -> None:
    """Another server would hear the same; and a request whose link is gone must not wait for it."""
    world.connect(retries=5)
    asked = [world.start() for _ in range(3)]
    world.server.refuse(0, error)
    for one in asked:
        with pytest.raises(type(error)):
            one.result()
    with pytest.raises(type(error)):
        world.start()


# ---- busy ----------------------------------------------------------------------------------------------------


def make_busy(retry_after: float) -> Busy:
    error = Busy("100000 requests are waiting")
    error.retry_after = retry_after
    return error


def test_busy_is_tried_again_when_the_server_says(world: World) -> None:
    world.connect(retries=2)
    asked = world.start()
    for _ in range(2):
        world.server.take()
        begun = world.now
        world.server.refuse(asked.id, make_busy(0.75))
        with pytest.raises(TimeoutError):
            asked.result(timeout=0.7)
        assert world.server.take() == []
        with pytest.raises(TimeoutError):
            asked.result(timeout=0.1)
        (frame,) = world.server.take()
        assert (frame.header.kind, frame.header.id) == (Kind.REQUEST, asked.id)
        assert world.now == pytest.approx(begun + 0.8)
    world.server.refuse(asked.id, make_busy(0.75))
    with pytest.raises(Busy, match="100000") as caught:
        asked.result()
    assert caught.value.retry_after == 0.75
    assert world.server.take() == []


def test_others_go_on_meanwhile(world: World) -> None:
    world.connect(retries=1)
    busy, other = world.start(), world.start()
    world.server.refuse(busy.id, make_busy(10.0))
    world.server.reply(other.id, [VALUES])
    np.testing.assert_array_equal(other.result(), VALUES)
    assert world.now < 1001.0
    world.clock.at(1010.5, lambda: world.server.reply(busy.id, [VALUES * 2]))
    np.testing.assert_array_equal(busy.result(), VALUES * 2)
    assert len(world.server.take()) == 3


@pytest.mark.parametrize("retry_after", [60.0, 1e9, math.inf])
def test_busy_for_longer_than_there_is_time_is_not_waited_for(world: World, retry_after: float) -> None:
    world.connect(retries=3)
    asked = world.start(timeout=50.0)
    if math.isfinite(retry_after):
        world.server.refuse(asked.id, make_busy(retry_after))
    else:
        text = b'{"status": 5, "message": "full", "retry_after": Infinity}'
        world.server.reply(asked.id, [np.frombuffer(text, np.uint8)], status=5)
    with pytest.raises(Busy):
        asked.result()
    assert world.now < 1001.0


@pytest.mark.parametrize("retry_after", [b"NaN", b"-1e300", b"-Infinity"])
def test_nonsense_about_time_does_no_harm(world: World, retry_after: bytes) -> None:
    world.connect(retries=3)
    asked = world.start(timeout=50.0)
    for _ in range(4):
        text = b'{"status": 5, "message": "full", "retry_after": ' + retry_after + b"}"
        world.server.reply(asked.id, [np.frombuffer(text, np.uint8)], status=5)
    with pytest.raises(Busy):
        asked.result()
    assert 1 <= len(world.server.take()) <= 4


def test_without_retries_busy_is_busy(world: World) -> None:
    world.connect()
    asked = world.start()
    world.server.refuse(asked.id, make_busy(0.0))
    with pytest.raises(Busy):
        asked.result()


def test_a_large_request_that_is_turned_down_half_way_is_sent_again_whole(world: World) -> None:
    world.connect(retries=1)
    asked = world.start(100, np.zeros((100, 1)), part_rows=40, n_per_row=1)
    assert not asked.done()
    world.server.take()
    world.server.reply(asked.id, [np.full(40, -1.0)], final=False)
    world.server.refuse(asked.id, make_busy(0.5))
    with pytest.raises(TimeoutError):
        asked.result(timeout=1.0)
    assert [frame.header.first_row for frame in world.server.take()] == [0, 40, 80]
    assert asked.n_answered == 0
    world.server.reply(asked.id, [np.arange(100.0)])
    np.testing.assert_array_equal(asked.result(), np.arange(100.0))


# ---- ending servers ------------------------------------------------------------------------------------------


def test_what_an_ending_server_does_not_take_goes_elsewhere(world: World) -> None:
    """But what it has taken it answers: only then is it left."""
    world.connect()
    running, turned_down = world.start(), world.start()

    def turn_down() -> None:
        for id_ in world.server.take_ids():
            if id_ == turned_down.id:
                world.server.refuse(id_, Draining("the server is ending"))
        world.clock.at(world.now + 0.01, turn_down)

    turn_down()
    second = world.expect()
    with pytest.raises(TimeoutError):
        turned_down.result(timeout=10 * MOVING)
    assert world.tries == []
    world.server.reply(running.id, [VALUES])
    world.clock.at(world.now + 2 * MOVING, lambda: second.reply(turned_down.id, [VALUES * 2]))
    np.testing.assert_array_equal(turned_down.result(), VALUES * 2)
    np.testing.assert_array_equal(running.result(), VALUES)
    assert second.take_ids() == [turned_down.id]
    assert len(world.tries) == 1
    assert world.server.link.is_parted


def test_where_all_servers_end_it_is_said_in_time(world: World) -> None:
    world.connect()
    asked = world.start(timeout=5.0)
    servers = [world.expect() for _ in range(100)]
    for server in [world.server, *servers]:
        server.refuse(asked.id, Draining("the server is ending"))
    with pytest.raises((Draining, ServerLost), match="is ending"):
        asked.result()
    assert world.now <= 1005.0 + 1e-6
    assert len(world.tries) <= 5.0 / MOVING + 1


def test_an_ending_server_is_asked_again_where_there_is_no_other(world: World) -> None:
    world.connect(reconnect=False, retries=1)
    asked = world.start()
    world.server.refuse(asked.id, Draining("the server is ending"))
    with pytest.raises(TimeoutError):
        asked.result(timeout=2 * MOVING)
    assert world.server.take_ids() == [asked.id] * 2
    world.server.refuse(asked.id, Draining("the server is ending"))
    with pytest.raises(Draining):
        asked.result()


# ---- silence -------------------------------------------------------------------------------------------------


def test_a_silent_server_is_asked_after_one_heartbeat_and_lost_after_two(world: World) -> None:
    world.connect(heartbeat=HEARTBEAT, reconnect=False)
    asked = world.start()
    begun = world.now
    world.server.take()
    with pytest.raises(TimeoutError):
        asked.result(timeout=HEARTBEAT - 0.01)
    assert world.server.take() == []
    with pytest.raises(ServerLost, match="no sign of life for 10 s"):
        asked.result()
    assert world.now == pytest.approx(begun + HEARTBEAT - 0.01 + 2 * HEARTBEAT, abs=HEARTBEAT / 2)
    assert [frame.header.kind for frame in world.server.take()] == [Kind.PING]
    assert world.server.link.is_parted


def test_a_server_that_computes_is_not_lost(world: World) -> None:
    """It answers PING, however long the request takes."""
    world.connect(heartbeat=HEARTBEAT, timeout=1e6)
    asked = world.start()
    n_pings = 0

    def answer() -> None:
        nonlocal n_pings
        pings = [frame for frame in world.server.take() if frame.header.kind == Kind.PING]
        n_pings += len(pings)
        for _ in pings:
            world.server.send(Kind.PONG)
        world.clock.at(world.now + 0.1, answer)

    world.clock.at(world.now, answer)
    world.clock.at(world.now + 30 * HEARTBEAT, lambda: world.server.reply(asked.id, [VALUES]))
    np.testing.assert_array_equal(asked.result(), VALUES)
    assert 15 <= n_pings <= 30
    assert world.tries == []


def test_a_silent_server_is_left_for_another(world: World) -> None:
    world.connect(heartbeat=HEARTBEAT)
    asked = world.start()
    second = world.expect()
    world.clock.at(world.now + 3 * HEARTBEAT, lambda: second.reply(asked.id, [VALUES]))
    np.testing.assert_array_equal(asked.result(), VALUES)
    assert second.take_ids() == [asked.id]
    assert 1000.0 + 2 * HEARTBEAT <= world.tries[0][0] <= 1000.0 + 3 * HEARTBEAT


def test_whoever_did_not_look_for_long_does_not_blame_the_server(world: World) -> None:
    world.connect(heartbeat=HEARTBEAT)
    asked = world.start()
    world.clock.pass_by(50 * HEARTBEAT / 5)
    world.clock.at(world.now + 1.0, lambda: world.server.reply(asked.id, [VALUES]))
    np.testing.assert_array_equal(asked.result(), VALUES)
    assert world.tries == []


def test_a_peer_that_takes_bytes_lives(world: World) -> None:
    """On a slow line what we ask stands behind what we have sent: it takes longer than two heartbeats to get there."""
    world.connect(heartbeat=HEARTBEAT, timeout=1e4)
    asked = world.start()
    link: Any = world.server.link
    link.unsent_bytes = 100

    def drain() -> None:
        link.unsent_bytes -= 1
        if link.unsent_bytes:
            world.clock.at(world.now + 0.9 * HEARTBEAT, drain)

    world.clock.at(world.now + 0.9 * HEARTBEAT, drain)
    with pytest.raises(TimeoutError):
        asked.result(timeout=90 * HEARTBEAT)
    assert world.tries == []
    with pytest.raises(TimeoutError):  # and one that has stopped does not
        asked.result(timeout=3 * HEARTBEAT)
    assert len(world.tries) >= 1


def test_a_peer_that_sends_bytes_lives(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame may take longer than two heartbeats to arrive."""
    port, (mine, its) = StreamPort(), socket.socketpair()
    with its:
        link = port.add(mine, "server")
        lasting = LastingConnection(port, link, Config(timeout=1e4), heartbeat=HEARTBEAT)
        asked = lasting.start(Operation.LOG_DENSITY, [X], 5000, 5000, ((),), lambda a: a[0])
        reply = pack(Kind.REPLY, [np.arange(5000.0)], id=asked.id, flags=Flag.FINAL)
        data = bytes(reply.head) + reply.tail[0].tobytes()
        pieces = [data[start : start + 2000] for start in range(0, len(data), 2000)]

        def wait(seconds: float) -> None:
            world.clock.pass_by(seconds)
            if world.now >= due[0]:
                due[0] += 0.9 * HEARTBEAT
                its.sendall(pieces.pop(0))

        due = [world.now + 0.9 * HEARTBEAT]
        monkeypatch.setattr(port, "wait", wait)
        np.testing.assert_array_equal(asked.result(), np.arange(5000.0))
        assert world.now > 1000.0 + 15 * HEARTBEAT
        port.close()


# ---- deadlines -----------------------------------------------------------------------------------------------


def test_deadlines_hold_while_there_is_no_server(world: World) -> None:
    world.connect()
    short, long = world.start(timeout=3.0), world.start(timeout=30.0)
    world.server.die()
    with pytest.raises(TimeoutError, match=r"within 0\.5 s"):
        long.result(timeout=0.5)
    assert world.now == pytest.approx(1000.5)
    with pytest.raises(ServerLost, match="was closed; it could not be found again in time"):
        short.result()
    assert world.now == pytest.approx(1003.0)
    with pytest.raises(ServerLost, match="could not be found again in time"):
        long.result()
    assert world.now == pytest.approx(1030.0)


def test_pauses_grow_and_nobody_waits_longer_for_an_attempt_than_there_is_time(world: World) -> None:
    world.connect()
    asked = world.start(timeout=60.0)
    world.server.die()
    with pytest.raises(ServerLost):
        asked.result()
    whens = [when for when, _ in world.tries]
    pauses = np.diff(whens)
    assert whens[0] == 1000.0
    np.testing.assert_allclose(pauses[:7], 0.05 * 2.0 ** np.arange(7))
    np.testing.assert_allclose(pauses[7:], LONGEST_PAUSE)
    for when, seconds in world.tries:
        assert seconds == pytest.approx(max(SHORTEST_ATTEMPT, min(ATTEMPT, 1060.0 - when)))


def test_an_attempt_is_as_short_as_the_patience_of_whoever_waits(world: World) -> None:
    world.connect()
    asked = world.start()
    world.server.die()
    with pytest.raises(TimeoutError):
        asked.result(timeout=4.0)
    assert all(seconds <= 4.0 for _, seconds in world.tries)
    assert world.tries[0][1] == pytest.approx(4.0)


@pytest.mark.parametrize("error", [ServerLost("none"), DeadlineExceeded("it does not answer")])
def test_in_vain_is_not_for_ever(world: World, error: DemosError) -> None:
    """A server that is about to start takes connections, and answers later."""
    world.connect()
    asked = world.start()
    world.servers += [error] * 5
    second = world.expect()
    world.server.die()
    world.clock.at(world.now + 10.0, lambda: second.reply(asked.id, [VALUES]))
    np.testing.assert_array_equal(asked.result(), VALUES)
    assert len(world.tries) == 6


def test_looking_is_enough_to_learn_that_it_is_too_late(world: World) -> None:
    """Whoever only asks `done` again and again is not kept for ever either."""
    world.connect()
    asked = world.start(timeout=3.0)
    world.server.die()
    while not asked.done():
        world.clock.pass_by(0.1)
    assert isinstance(asked.error, ServerLost)
    assert world.now <= 1003.0 + LONGEST_PAUSE


def test_a_server_that_dies_as_soon_as_it_is_asked_is_not_asked_without_end(world: World) -> None:
    world.connect()
    asked = world.start(timeout=60.0)
    world.server.die()
    for _ in range(1000):
        world.expect().die()
    with pytest.raises(ServerLost):
        asked.result()
    assert len(world.tries) < 30
    # One that has answered something may be looked for at once again.
    world.servers.clear()
    second = world.expect()
    world.clock.pass_by(LONGEST_PAUSE)
    asked = world.start()
    assert not asked.done()
    second.reply(asked.id, [VALUES])
    assert asked.done()
    n_tries = len(world.tries)
    second.die()
    world.expect()
    world.look()
    assert len(world.tries) == n_tries + 1


def test_a_server_that_holds_its_tongue_is_given_up_at_the_deadline(world: World) -> None:
    """Where nothing is known of heartbeats, there is still the request's own time."""
    world.connect(reconnect=False)
    asked = world.start(timeout=3.0)
    with pytest.raises(DeadlineExceeded):
        asked.result()
    assert world.now == pytest.approx(1003.0 + GRACE)


# ---- those who do not want it any more -----------------------------------------------------------------------


def test_cancelled_while_there_is_no_server(world: World) -> None:
    world.connect()
    unwanted, wanted = world.start(), world.start()
    world.server.die()
    assert not wanted.done()
    assert unwanted.cancel()
    assert unwanted.cancelled()
    assert not unwanted.cancel()
    second = world.expect()
    world.clock.pass_by(1.0)
    assert not wanted.done()
    assert second.take_ids() == [wanted.id]


def test_cancelled_and_then_cut(world: World) -> None:
    """The server was told, and has not answered: the next one must not begin what nobody wants."""
    world.connect()
    unwanted, wanted = world.start(), world.start()
    assert unwanted.cancel()
    assert [frame.header.kind for frame in world.server.take()] == [Kind.REQUEST, Kind.REQUEST, Kind.CANCEL]
    assert not unwanted.done()
    world.server.die()
    second = world.expect()
    assert unwanted.done()
    assert unwanted.cancelled()
    assert not wanted.done()
    assert second.take_ids() == [wanted.id]


@pytest.mark.parametrize("error", [make_busy(0.1), Draining("ending")])
def test_cancelled_while_it_waits_to_be_sent_again(world: World, error: DemosError) -> None:
    world.connect(retries=3)
    unwanted = world.start()
    world.server.refuse(unwanted.id, error)
    assert not unwanted.done()
    assert unwanted.cancel()
    assert unwanted.cancelled()
    world.clock.pass_by(1.0)
    world.connection.progress()
    assert len(world.server.take()) == 1
    assert world.tries == []


@pytest.mark.parametrize("error", [make_busy(0.1), Draining("ending")])
def test_cancelled_and_then_turned_down(world: World, error: DemosError) -> None:
    world.connect(retries=3)
    unwanted = world.start()
    assert unwanted.cancel()
    world.server.refuse(unwanted.id, error)
    assert unwanted.done()
    assert unwanted.cancelled()


def test_cancelled_too_late(world: World) -> None:
    world.connect()
    asked = world.start()
    assert asked.cancel()
    world.server.reply(asked.id, [VALUES])
    np.testing.assert_array_equal(asked.result(), VALUES)
    world.server.die()
    assert not world.start().done()
    np.testing.assert_array_equal(asked.result(), VALUES)


def test_those_who_are_told_may_cancel_others(world: World) -> None:
    world.connect()
    asked = [world.start(timeout=3.0) for _ in range(4)]
    asked[0].add_done_callback(lambda _: [one.cancel() for one in asked] and None)
    world.server.die()
    with pytest.raises(ServerLost):
        asked[0].result()
    assert all(one.is_done for one in asked)
    assert all(isinstance(one.error, Cancelled) for one in asked[1:])


# ---- who will not have us ------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [AccessRefused("not you"), LaunchError("version 2"), InvalidInput("no key")])
def test_who_will_not_have_us_is_not_asked_again(world: World, error: DemosError) -> None:
    world.connect()
    asked = [world.start() for _ in range(3)]
    world.servers.append(error)
    world.server.die()
    for one in asked:
        with pytest.raises(type(error), match=str(error)):
            one.result()
    with pytest.raises(type(error), match=str(error)):
        world.start()
    assert len(world.tries) == 1


class Oracle:
    """Stands in for `dial_any`: servers that say what they have."""

    def __init__(self, world: World, **spec: str) -> None:
        self._world = world
        self.spec = {"name": "gaussian", "uuid": "u1", "version": "1.0"} | spec
        self.failure: DemosError | None = None
        self.servers: list[Server] = []

    def __call__(self, name: str | None, registry: Registry, config: Config, role: str, **options: Any) -> Any:
        server = Server(self._world.clock, handle=4)
        self.servers.append(server)
        server.port.wait = lambda seconds: self._answer(server)  # type: ignore[method-assign]
        return SimpleNamespace(
            port=server.port,
            link=server.link,
            ascent=None,
            admission=SimpleNamespace(number=9),
            endpoint=SimpleNamespace(name="server"),
        )

    def _answer(self, server: Server) -> None:
        for frame in server.take():
            if self.failure is not None:
                server.refuse(frame.header.id, self.failure)
            else:
                server.reply(frame.header.id, [to_json({"handle": 4, "spec": self.spec})])


@pytest.fixture
def caller(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Caller:
    monkeypatch.setattr(calling, "describe_choice", lambda *_: "the only one")
    made = Caller("gaussian", Config(), "auto", Registry(tmp_path), tell=lambda text: None)
    made.wanted = "gaussian", "u1", "1.0"
    return made


def test_only_the_very_same_model_is_found_again(world: World, caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = Oracle(world)
    monkeypatch.setattr(calling, "dial_any", oracle)
    found = caller.redial(3.0)
    assert (found.handle, found.link) == (4, oracle.servers[0].link)
    assert not oracle.servers[0].port.is_closed
    for changes in ({"version": "2.0"}, {"uuid": "u2"}):
        oracle = Oracle(world, **changes)
        monkeypatch.setattr(calling, "dial_any", oracle)
        with pytest.raises(LaunchError, match=r"not .*'1\.0'"):
            caller.redial(3.0)
        assert oracle.servers[0].port.is_closed


def test_a_server_that_has_no_such_model_yet_is_none(
    world: World, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = Oracle(world)
    oracle.failure = InvalidInput("there is no model 'u1' here")
    monkeypatch.setattr(calling, "dial_any", oracle)
    with pytest.raises(ServerLost, match="no model 'u1'"):
        caller.redial(3.0)
    assert oracle.servers[0].port.is_closed


# ---- the end -------------------------------------------------------------------------------------------------


def test_goodbye(world: World) -> None:
    world.connect(retries=2)
    asked, busy = world.start(), world.start()
    world.server.refuse(busy.id, make_busy(5.0))
    assert not asked.done()
    world.server.take()
    world.connection.say_goodbye()
    world.connection.say_goodbye()
    assert [frame.header.kind for frame in world.server.take()] == [Kind.GOODBYE]
    assert world.server.port.is_closed
    for one in (asked, busy):
        with pytest.raises(ServerLost, match="this connection was closed"):
            one.result()
    with pytest.raises(ServerLost, match="this connection was closed"):
        world.start()
    assert world.tries == []


def test_goodbye_while_there_is_no_server(world: World) -> None:
    world.connect()
    asked = world.start()
    world.server.die()
    world.look()
    world.connection.say_goodbye()
    with pytest.raises(ServerLost, match="this connection was closed"):
        asked.result()
    assert world.server.port.is_closed
    assert len(world.tries) == 1


def test_statuses_are_what_they_were_taken_for() -> None:
    assert (Busy.status, Draining.status, ServerLost.status) == (Status.BUSY, Status.DRAINING, Status.SERVER_LOST)
