"""Links through shared memory: frames of all sizes in order, bells rung when somebody sleeps, and how links end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from demos_hpc.errors import BadFrame, BadVersion, DemosError
from demos_hpc.messages import Kind
from demos_hpc.testing import FakeClock
from demos_hpc.transport import LONGEST_WAIT, Arrival, pair
from demos_hpc.transport.doorbell import ASLEEP, AWAKE, STUCK, Sleeper
from demos_hpc.transport.pair import QUEUE_BYTES, Unreachable
from demos_hpc.transport.shared import MOST_BYTES, PARTING, QUIET, SharedLink, SharedPort
from demos_hpc.wire import INLINE_BYTES, OFFSETS, Frame, Packed, join, pack

pytestmark = pytest.mark.skipif(not pair.is_possible(), reason="links by shared memory are for x86-64")


class FakeFront:
    """The socket beside a link."""

    transport = "fake"
    unsent_bytes = 0

    def __init__(self, name: str) -> None:
        self.name = name
        self.faster: Any = None
        self.rings = 0
        self.has_parted = False

    def send(self, packed: Packed) -> None:
        raise AssertionError("frames go by shared memory")

    def ring(self) -> None:
        self.rings += 1

    def part(self) -> None:
        self.has_parted = True


class End:
    """One process: its port with one link, the front of that, and what has arrived."""

    def __init__(self, name: str) -> None:
        self.sleeper = Sleeper(0.0)
        self.port = SharedPort(self.sleeper)
        self.front = FakeFront(name)
        self.link: SharedLink
        self.arrived: list[Arrival] = []

    @property
    def frames(self) -> list[Any]:
        return [what for _, what in self.arrived]

    def receive(self) -> None:
        self.arrived += self.port.receive()

    @property
    def flag(self) -> int:
        """What this process has told its peer of its sleep."""
        return self.link.pair._words[self.link.pair._my_flag]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock(100.0)
    monkeypatch.setattr(time, "perf_counter", clock)
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


@pytest.fixture
def connect(clock: FakeClock) -> Iterator[Callable[[], tuple[End, End]]]:
    """Two ends that have met."""
    made: list[End] = []

    def connect() -> tuple[End, End]:
        server, client = End("client"), End("server")
        made.extend((server, client))
        address = server.port.open()
        client.link = client.port.connect(address, client.front, "server")
        server.link = server.port.accept(address, server.front, "client")
        return server, client

    yield connect
    for end in made:
        end.port.close()


def pump(*ends: End, turns: int = 1000) -> None:
    """Until nothing is under way any more."""
    for _ in range(turns):
        for end in ends:
            end.receive()
        if not any(end.port.sending or end.port.look() for end in ends):
            return
    raise AssertionError("it does not come to an end")


def assert_is(frame: Any, id_: int, arrays: list[Any]) -> None:
    assert isinstance(frame, Frame), frame
    assert frame.header.id == id_
    assert len(frame.arrays) == len(arrays)
    for got, sent in zip(frame.arrays, arrays, strict=True):
        assert got.dtype == sent.dtype
        np.testing.assert_array_equal(got, sent)


def make_arrays(seed: int) -> list[list[Any]]:
    """Frames of all sizes, some of which leave gaps."""
    rng = np.random.default_rng(seed)
    return [
        [],
        [rng.random(1)],
        [np.frombuffer(rng.bytes(5), np.uint8)],
        [rng.random((7, 3)), rng.random(3)],
        [rng.random((INLINE_BYTES - 80) // 8)],
        [rng.random((INLINE_BYTES - 80) // 8 + 1)],
        [np.frombuffer(rng.bytes(QUEUE_BYTES // 2 + 3), np.uint8), np.empty((0, 3)), rng.random(5) + 1j],
        [],
        [np.frombuffer(rng.bytes(5 * QUEUE_BYTES + 13 + seed), np.uint8)],
        [np.empty((0, 3)), np.empty((5, 0, 2), np.int32)],
        [rng.random((333, 333))],
    ]


# ---- frames -------------------------------------------------------------------------------------------------


def test_frames_of_all_sizes_come_in_order_both_ways_under_the_name_of_the_front(connect: Any) -> None:
    """Nobody waits for the other: large frames go in both directions at once."""
    server, client = connect()
    for number, end in enumerate((server, client)):
        for nth, arrays in enumerate(make_arrays(number)):
            end.link.send(pack(Kind.ROWS, arrays, id=nth))
    pump(server, client)
    for number, end in ((1, server), (0, client)):
        assert {link for link, _ in end.arrived} == {end.front}
        for nth, (frame, arrays) in enumerate(zip(end.frames, make_arrays(number), strict=True)):
            assert_is(frame, nth, arrays)


def test_many_small_frames_in_one_message(connect: Any) -> None:
    server, client = connect()
    heads = [pack(Kind.REPLY, [np.full(nth % 5, nth % 256, np.uint8)], id=nth).head for nth in range(3000)]
    client.link.send(Packed(join(heads), ()))
    client.link.send(pack(Kind.REPLY, id=3000))
    pump(server, client)
    assert [frame.header.id for frame in server.frames] == list(range(3001))
    for nth in range(3000):
        assert_is(server.frames[nth], nth, [np.full(nth % 5, nth % 256, np.uint8)])


def test_a_small_frame_is_there_at_once_and_may_be_changed_by_its_sender(connect: Any) -> None:
    server, client = connect()
    packed = pack(Kind.ROWS, [np.arange(3.0)], id=7)
    client.link.send(packed)
    packed.head[:] = bytes(len(packed.head))
    assert client.link.unsent_bytes == 0
    server.receive()
    assert_is(server.frames[0], 7, [np.arange(3.0)])


def test_what_does_not_fit_is_kept_and_goes_on_when_there_is_room(connect: Any) -> None:
    server, client = connect()
    rows = np.random.default_rng(3).random(3 * QUEUE_BYTES // 8)
    client.link.send(pack(Kind.ROWS, [rows], id=1))
    client.link.send(pack(Kind.CANCEL, id=2))
    assert client.link.unsent_bytes > 2 * QUEUE_BYTES
    assert client.port.is_stuck
    server.receive()
    assert server.frames == []
    before = client.link.unsent_bytes
    assert client.port.look() is False
    assert client.link.unsent_bytes == before - QUEUE_BYTES
    pump(server, client)
    assert client.link.unsent_bytes == 0
    assert not client.port.is_stuck
    assert_is(server.frames[0], 1, [rows])
    assert_is(server.frames[1], 2, [])


def test_arrays_are_received_where_the_receiver_wants_them(connect: Any) -> None:
    server, client = connect()
    target = np.zeros(100_000)

    def place(link: Any, header: Any, layout: Any) -> list[Any]:
        assert link is server.front
        return [target[header.first_row : header.first_row + layout.shapes[0][0]]]

    server.port.place = place
    for first in (50_000, 0):
        client.link.send(pack(Kind.REPLY, [np.arange(first, first + 50_000.0)], first_row=first))
    pump(server, client)
    np.testing.assert_array_equal(target, np.arange(100_000.0))


def test_one_link_does_not_keep_the_others_waiting(connect: Any) -> None:
    """A peer that writes as fast as it is read is left for a moment all the same."""
    server, client = connect()
    client.link.send(pack(Kind.ROWS, [np.zeros(4 * MOST_BYTES // 8)], id=1))
    read_into = server.link.pair.read_into

    def read_and_refill(target: memoryview) -> int:
        count = read_into(target)
        client.link.push()
        return count

    server.link.pair.read_into = read_and_refill
    server.receive()
    assert client.link.unsent_bytes > 2 * MOST_BYTES


def test_flush_gives_up_in_time(connect: Any, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    server, client = connect()
    client.link.send(pack(Kind.ROWS, [np.zeros(QUEUE_BYTES // 4)], id=1))
    monkeypatch.setattr(os, "sched_yield", lambda: clock.advance(0.1))
    client.port.flush(1.0)
    assert client.port.is_stuck
    assert 101.0 <= clock.now < 101.2
    monkeypatch.setattr(os, "sched_yield", server.receive)
    client.port.flush(1.0)
    assert not client.port.is_stuck


# ---- frames that are none -----------------------------------------------------------------------------------


def change(at: int, byte: int) -> bytearray:
    head = pack(Kind.CANCEL, [np.arange(4.0)], id=5).head
    head[at] = byte
    return head


@pytest.mark.parametrize(
    ("head", "error"),
    [
        (bytearray(64), BadFrame),
        (change(0, 0), BadFrame),
        (change(OFFSETS["major"], 7), BadVersion),
        (change(OFFSETS["n_arrays"], 99), BadFrame),
    ],
)
def test_a_bad_frame_ends_its_link_and_no_other(connect: Any, head: bytearray, error: type[DemosError]) -> None:
    server, client = connect()
    good = End("another")
    address = server.port.open()
    good.link = good.port.connect(address, good.front, "server")
    another = FakeFront("another")
    server.port.accept(address, another, "another")
    client.link.send(pack(Kind.CANCEL, id=1))
    client.link.send(Packed(head, ()))
    client.link.send(pack(Kind.CANCEL, id=2))
    good.link.send(pack(Kind.CANCEL, id=3))
    server.receive()
    assert [what.header.id for what in server.frames[:2]] == [1, 3]
    assert [link for link, _ in server.arrived] == [server.front, another, server.front]
    assert type(server.frames[2]) is error
    good.link.send(pack(Kind.CANCEL, id=4))
    client.link.send(pack(Kind.CANCEL, id=5))
    server.receive()
    assert [what.header.id for what in server.frames[3:]] == [4]
    good.port.close()


def test_what_is_wrong_can_be_said_over_the_socket(connect: Any) -> None:
    server, client = connect()
    server.front.faster = server.link
    client.link.send(Packed(bytearray(64), ()))
    server.receive()
    assert server.front.faster is None


def test_garbage_of_every_kind_does_no_harm(connect: Any) -> None:
    """Whatever a peer writes: frames, an error, or nothing, and never more memory than it has announced."""
    for seed in range(300):
        rng = np.random.default_rng(seed)
        server, client = connect()
        for _ in range(3):
            data = bytearray(b"".join(bytes(pack(Kind.ROWS, [np.zeros(n)], id=n).head) for n in (1, 5, 9)))
            for _ in range(int(rng.integers(1, 6))):
                data[int(rng.integers(len(data)))] = int(rng.integers(256))
            client.link.pair.write(data)
            if rng.random() < 0.2:
                client.link.pair._words[int(rng.integers(0, 64))] = int(rng.integers(2**63))
            server.receive()
            server.receive()
        assert len([what for what in server.frames if isinstance(what, DemosError)]) <= 1
        assert all(link is server.front for link, _ in server.arrived)


def test_a_peer_that_breaks_the_queue_while_we_send_is_found(connect: Any) -> None:
    server, client = connect()
    client.link.pair._words[client.link.pair._read_at] = 2**40
    for _ in range(3):
        server.link.send(pack(Kind.ROWS, [np.zeros(QUEUE_BYTES // 8)], id=1))
    server.receive()
    assert [type(what) for what in server.frames] == [BadFrame]
    assert server.link.pair.is_closed
    server.link.send(pack(Kind.CANCEL))  # to nobody


# ---- who sleeps, and who rings ------------------------------------------------------------------------------


@pytest.mark.parametrize(("flag", "rings"), [(AWAKE, 0), (ASLEEP, 1), (STUCK, 1)])
def test_whoever_sleeps_is_rung(connect: Any, flag: int, rings: int) -> None:
    server, client = connect()
    server.link.pair.say(flag)
    client.link.send(pack(Kind.CANCEL))
    assert client.front.rings == rings


@pytest.mark.parametrize(("flag", "rings"), [(AWAKE, 0), (ASLEEP, 0), (STUCK, 1)])
def test_whoever_waits_for_room_is_rung_by_the_reader(connect: Any, flag: int, rings: int) -> None:
    server, client = connect()
    client.link.send(pack(Kind.CANCEL))
    client.link.pair.say(flag)
    server.receive()
    assert server.front.rings == rings


def test_a_process_that_goes_to_sleep_tells_its_peers_before_it_looks_for_the_last_time(connect: Any) -> None:
    server, _ = connect()
    seen: list[int] = []

    def look() -> bool:
        seen.append(server.flag)
        return len(seen) == server.sleeper._looks

    server.sleeper.wait(look, 1.0)
    assert set(seen) == {ASLEEP}
    assert server.flag == AWAKE
    server.link.send(pack(Kind.ROWS, [np.zeros(QUEUE_BYTES)]))
    seen.clear()
    server.sleeper.wait(look, 1.0, is_stuck=True)
    assert set(seen) == {STUCK}


def test_only_a_link_with_something_to_send_is_stuck(connect: Any) -> None:
    server, client = connect()
    server.sleeper.wait(lambda: client.link.pair.peers_flag == ASLEEP, 0.0, is_stuck=True)
    assert client.link.pair.peers_flag == AWAKE


def test_an_idle_link_is_not_looked_at_until_somebody_rings(connect: Any, clock: FakeClock) -> None:
    server, client = connect()
    flags = []
    for _ in range(4):
        clock.advance(QUIET)
        server.receive()
        flags.append(server.flag)
    assert flags == [AWAKE, ASLEEP, ASLEEP, ASLEEP], "first it is told, and only a while later left alone"
    client.link.send(pack(Kind.CANCEL, id=1))
    assert client.front.rings == 1
    assert not server.port.look()
    server.receive()
    assert server.frames == []
    server.port.look_around()
    assert server.flag == AWAKE
    server.receive()
    assert_is(server.frames[0], 1, [])


def test_what_comes_between_the_two_steps_is_seen_at_once(connect: Any, clock: FakeClock) -> None:
    server, client = connect()
    for _ in range(2):
        clock.advance(QUIET)
        server.receive()
    assert server.flag == ASLEEP
    client.link.send(pack(Kind.CANCEL, id=1))
    server.receive()
    assert_is(server.frames[0], 1, [])
    clock.advance(QUIET)
    server.receive()
    assert server.flag == AWAKE


def test_whoever_sends_looks_for_the_answer(connect: Any, clock: FakeClock) -> None:
    server, client = connect()
    for _ in range(4):
        clock.advance(QUIET)
        server.receive()
    assert server.flag == ASLEEP
    server.link.send(pack(Kind.CANCEL))
    assert server.flag == AWAKE
    client.link.send(pack(Kind.CANCEL, id=1))
    assert client.front.rings == 0
    server.receive()
    assert_is(server.frames[0], 1, [])


def test_a_lost_ring_costs_a_second_at_most(connect: Any, clock: FakeClock) -> None:
    server, client = connect()
    for _ in range(4):
        clock.advance(QUIET)
        server.receive()
    client.link.send(pack(Kind.CANCEL, id=1))
    clock.advance(LONGEST_WAIT)
    server.receive()
    server.receive()
    assert_is(server.frames[0], 1, [])


def test_a_sleeping_process_stays_drowsy_on_idle_links(connect: Any, clock: FakeClock) -> None:
    server, _ = connect()
    for _ in range(2):
        clock.advance(QUIET)
        server.receive()
    server.sleeper.wait(lambda: True, 0.0)
    assert server.flag == ASLEEP


# ---- how links come and go ----------------------------------------------------------------------------------


def test_a_peer_that_has_not_come_has_no_link() -> None:
    end = End("nobody")
    address = end.port.open()
    with pytest.raises(Unreachable, match="nobody has not taken the memory that it was offered"):
        end.port.accept(address, end.front, "nobody")
    assert not end.port.has_links
    with pytest.raises(Unreachable):
        End("late").port.connect(address, end.front, "server")


def test_an_offer_can_be_withdrawn(clock: FakeClock) -> None:
    end = End("nobody")
    end.port.withdraw(end.port.open())
    pid, number, _ = json.loads(address := end.port.open())
    end.port.close()
    with pytest.raises(Unreachable, match=f"{pid}/fd/{number}"):
        End("late").port.connect(address, end.front, "server")


def test_a_link_that_is_held_is_not_looked_at_before_it_begins(connect: Any, clock: FakeClock) -> None:
    """Its peer still sends over the socket, and what it sent there comes first."""
    server, client = connect()
    client.port.hold(client.link)
    server.link.send(pack(Kind.REPLY, id=1))
    for _ in range(4):
        clock.advance(QUIET)
        client.receive()
    assert client.frames == []
    client.link.send(pack(Kind.REQUEST, id=2))
    server.receive()
    assert_is(server.frames[0], 2, [])
    client.port.begin(client.link)
    client.receive()
    assert_is(client.frames[0], 1, [])


def test_a_link_that_has_ended_does_not_begin(connect: Any) -> None:
    _, client = connect()
    client.port.hold(client.link)
    client.link.close()
    client.port.begin(client.link)
    assert client.port.receive() == []


def test_what_a_peer_has_sent_before_it_went_is_taken_in(connect: Any, clock: FakeClock) -> None:
    """Also where the link was idle, and nobody rang."""
    server, client = connect()
    for _ in range(4):
        clock.advance(QUIET)
        server.receive()
    client.link.send(pack(Kind.RESULT, [np.arange(30_000.0)], id=1))
    client.link.send(pack(Kind.RESULT, id=2))
    client.link.send(pack(Kind.RESULT, [np.zeros(QUEUE_BYTES)], id=3))  # half of it
    client.port.close()
    arrived: list[Arrival] = []
    server.port.finish(server.front, arrived)
    assert [link for link, _ in arrived] == [server.front] * 2
    assert_is(arrived[0][1], 1, [np.arange(30_000.0)])
    assert_is(arrived[1][1], 2, [])
    assert not server.port.has_links
    server.port.finish(server.front, arrived)  # there is nothing any more
    assert len(arrived) == 2


def test_a_link_ends_once_what_was_sent_has_left(connect: Any) -> None:
    server, client = connect()
    server.link.send(pack(Kind.REPLY, [np.arange(QUEUE_BYTES // 2.0)], id=1))
    server.link.part()
    server.link.part()
    server.link.send(pack(Kind.REPLY, id=2))  # too late
    client.link.send(pack(Kind.CANCEL, id=3))
    for _ in range(20):
        client.receive()
        assert server.front.has_parted == (not server.port.has_links)
        assert server.port.receive() == [] or not server.front.has_parted
    assert server.front.has_parted
    assert server.link.pair.is_closed
    client.port.finish(client.front, client.arrived)
    assert_is(client.frames[0], 1, [np.arange(QUEUE_BYTES // 2.0)])
    assert len(client.frames) == 1


def test_a_link_with_nothing_to_send_ends_at_once(connect: Any) -> None:
    server, _ = connect()
    server.link.part()
    assert server.front.has_parted
    assert not server.port.has_links


def test_a_peer_that_takes_nothing_is_left_after_a_while(connect: Any, clock: FakeClock) -> None:
    server, _ = connect()
    server.link.send(pack(Kind.REPLY, [np.zeros(QUEUE_BYTES)], id=1))
    server.link.part()
    clock.advance(0.9 * PARTING)
    server.receive()
    assert not server.front.has_parted
    clock.advance(0.2 * PARTING)
    server.receive()
    assert server.front.has_parted
    assert server.link.unsent_bytes == 0
    assert not server.port.is_stuck
