"""Sockets and shared memory in one port: what is looked at when, and what becomes of peers that are killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from launching import PACKAGE
from serving import wait_until

from demos_hpc.errors import ServerLost
from demos_hpc.messages import Kind
from demos_hpc.testing import FakeClock
from demos_hpc.transport import Arrival, joined, pair
from demos_hpc.transport.doorbell import Sleeper
from demos_hpc.transport.joined import ACTIVE, BUSY_PAUSE, JoinedPort
from demos_hpc.transport.shared import SharedPort
from demos_hpc.transport.tcp import StreamLink, StreamPort
from demos_hpc.wire import Frame, pack

#: Seconds after which what has not come will not come.
PATIENCE = 20.0


class FakeStream:
    """A port of sockets on which something is ready when the test says so."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.place: Any = None
        self.ready: list[Any] = []
        self.is_ready = False
        self._pipe = os.pipe()

    def fileno(self) -> int:
        return self._pipe[0]

    def look(self) -> bool:
        self.log.append("look at sockets")
        return self.is_ready or bool(self.ready)

    def receive(self) -> list[Any]:
        self.log.append("receive from sockets")
        ready, self.ready, self.is_ready = self.ready, [], False
        return ready

    def wait(self, seconds: float) -> None:
        self.log.append(f"wait for sockets {seconds:g}")

    def flush(self, seconds: float) -> None:
        self.log.append(f"flush sockets {seconds:g}")

    def close(self) -> None:
        self.log.append("close sockets")
        for number in self._pipe:
            os.close(number)


class FakeShared:
    """A port of links through memory."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.place: Any = None
        self.has_links = True
        self.is_stuck = False
        self.ready: list[Any] = []
        self.left: list[Any] = []

    def receive(self) -> list[Any]:
        ready, self.ready = self.ready, []
        return ready

    def look(self) -> bool:
        return bool(self.ready)

    def look_around(self) -> None:
        self.log.append("look around")

    def finish(self, front: Any, arrived: list[Any]) -> None:
        self.log.append(f"finish {front}")
        arrived += self.left

    def flush(self, seconds: float) -> None:
        self.log.append(f"flush memory {seconds:g}")

    def close(self) -> None:
        self.log.append("close memory")


class FakeSleeper(Sleeper):
    """Does not sleep, and says so."""

    def __init__(self, log: list[str], clock: FakeClock) -> None:
        super().__init__(0.0)
        self.log, self.clock = log, clock
        self.is_rung = False

    def wait(self, look: Any, seconds: float, *, is_stuck: bool = False) -> bool:
        self.log.append(f"wait {seconds:g}{' stuck' if is_stuck else ''}")
        look()
        return self.is_rung


class Joined:
    """A joined port of fakes."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.log: list[str] = []
        self.stream, self.shared = FakeStream(self.log), FakeShared(self.log)
        self.sleeper = FakeSleeper(self.log, clock)
        self.port = JoinedPort(self.stream, self.shared, self.sleeper)  # type: ignore[arg-type]

    def receive(self) -> list[Any]:
        return self.port.receive()

    def read_log(self) -> list[str]:
        log = list(self.log)
        self.log.clear()
        return log


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Iterator[Joined]:
    clock = FakeClock(100.0)
    monkeypatch.setattr(joined, "time", SimpleNamespace(perf_counter=clock))
    both = Joined(clock)
    yield both
    both.port.close()


# ---- what is looked at when ---------------------------------------------------------------------------------


def test_without_links_through_memory_there_are_only_sockets(both: Joined) -> None:
    both.shared.has_links = False
    both.stream.ready = ["frame"]
    assert both.receive() == ["frame"]
    both.port.wait(0.5)
    assert both.read_log() == ["receive from sockets", "wait for sockets 0.5"]


def test_a_busy_turn_asks_nothing_of_the_kernel(both: Joined) -> None:
    looks = 0
    both.receive()
    both.read_log()
    for _ in range(1000):
        both.clock.advance(20e-6)
        both.shared.ready = [("link", "frame")]
        assert both.receive() == [("link", "frame")]
        both.port.wait(1.0)
        both.clock.advance(5e-6)
        both.shared.ready = [("link", "frame")]
        looks += both.read_log().count("look at sockets")
    assert 10 <= looks <= 0.025 / BUSY_PAUSE + 1


def test_sockets_are_looked_at_each_turn_while_something_comes_there(both: Joined) -> None:
    both.stream.ready = [("socket", "frame")]
    assert both.receive() == [("socket", "frame")]
    both.read_log()
    for _ in range(9):
        both.clock.advance(ACTIVE / 10)
        both.receive()
    assert both.read_log() == ["look at sockets"] * 9
    both.clock.advance(ACTIVE)
    both.receive()
    both.clock.advance(BUSY_PAUSE / 2)
    both.receive()
    assert both.read_log() == ["look at sockets"]


def test_a_ring_makes_idle_links_be_looked_at_and_is_nothing_else(both: Joined) -> None:
    both.stream.is_ready = True
    assert both.receive() == []
    assert both.read_log() == ["look at sockets", "receive from sockets", "look around"]
    both.clock.advance(BUSY_PAUSE / 2)
    both.receive()
    assert both.read_log() == []


@pytest.mark.parametrize("is_rung", [False, True])
def test_after_a_sleep_that_somebody_ended_sockets_are_looked_at(both: Joined, is_rung: bool) -> None:
    both.receive()
    both.sleeper.is_rung = is_rung
    both.port.wait(1.0)
    both.read_log()
    both.receive()
    assert both.read_log() == ["look at sockets"] * is_rung


def test_while_waiting_sockets_are_looked_at_now_and_then(both: Joined) -> None:
    both.receive()
    both.port.wait(1.0)
    both.read_log()
    for _ in range(125):
        both.clock.advance(1e-6)
        both.port._look()
    assert both.read_log() == ["look at sockets"] * 2
    both.stream.is_ready = True
    both.clock.advance(51e-6)
    assert both.port._look()
    both.receive()
    assert "receive from sockets" in both.read_log()


def test_a_process_that_could_not_send_says_so_when_it_sleeps(both: Joined) -> None:
    both.port.wait(1.0)
    both.shared.is_stuck = True
    both.port.wait(0.125)
    assert [line for line in both.read_log() if "sockets" not in line] == ["wait 1", "wait 0.125 stuck"]


def test_what_was_put_into_memory_comes_before_the_news_of_its_sender(both: Joined) -> None:
    lost = ServerLost("gone")
    both.shared.left = [("one", "last words")]
    both.stream.ready = [("two", "frame"), ("one", lost)]
    assert both.receive() == [("two", "frame"), ("one", "last words"), ("one", lost)]
    assert both.read_log()[-1] == "finish one"


def test_all_ports_place_flush_and_close_alike(both: Joined) -> None:
    both.port.place = place = lambda link, header, layout: []
    assert both.stream.place is both.shared.place is both.port.place is place
    both.port.flush(2.0)
    assert both.read_log() == ["flush memory 2", "flush sockets 2"]


def test_close_ends_everything() -> None:
    both = Joined(FakeClock(0.0))
    both.port.close()
    assert both.read_log() == ["close memory", "close sockets"]


# ---- processes that are killed ------------------------------------------------------------------------------

CHILD = """
import itertools, socket, sys
import numpy as np
from demos_hpc.transport.doorbell import Sleeper
from demos_hpc.transport.joined import JoinedPort
from demos_hpc.transport.shared import SharedPort
from demos_hpc.transport.tcp import StreamPort
from demos_hpc.wire import pack

stream, sleeper = StreamPort(), Sleeper(200e-6)
shared = SharedPort(sleeper)
port = JoinedPort(stream, shared, sleeper)
front = stream.add(socket.socket(fileno=int(sys.argv[1])), "server")
front.faster = shared.connect(sys.argv[2], front, "server")
flood = sys.argv[3] == "flood"
sizes = [1, 300, 2000, 5000, 300_000]
answers = 0
for nth in itertools.count():
    front.send(pack(2, [np.full(sizes[nth % 5], float(nth))], id=nth))
    while front.faster.unsent_bytes > 4_000_000 or (not flood and answers <= nth):
        came = port.receive()
        answers += len(came)
        if not came:
            port.wait(1.0)
"""


class Child:
    """A process that sends frames 0, 1, 2, ... through shared memory, and waits for answers unless it floods."""

    def __init__(self, hub: Hub, mode: str) -> None:
        mine, its = socket.socketpair()
        address = hub.shared.open()
        environment = os.environ | {"PYTHONPATH": PACKAGE, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", CHILD, str(its.fileno()), address, mode]
        self.process = subprocess.Popen(command, pass_fds=[its.fileno()], env=environment)
        its.close()
        self.front = hub.stream.add(mine, f"child {self.process.pid}")
        offered, _ = hub.shared._offered[address]
        wait_until(lambda: offered.is_joined, PATIENCE, "the child has the memory")
        self.front.faster = hub.shared.accept(address, self.front, self.front.name)
        self.count = 0
        self.ends: list[ServerLost] = []
        hub.children[self.front] = self

    def take(self, what: Any) -> None:
        assert not self.ends
        if isinstance(what, Frame):
            sizes = [1, 300, 2000, 5000, 300_000]
            assert what.header.id == self.count
            np.testing.assert_array_equal(what.arrays[0], np.full(sizes[self.count % 5], float(self.count)))
            self.count += 1
            self.front.send(pack(Kind.REPLY, [what.arrays[0]], id=what.header.id))
        else:
            self.ends.append(what)

    def end(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)


class Hub:
    """The process in the middle."""

    def __init__(self) -> None:
        self.stream, self.sleeper = StreamPort(), Sleeper(200e-6)
        self.shared = SharedPort(self.sleeper)
        self.port = JoinedPort(self.stream, self.shared, self.sleeper)
        self.children: dict[StreamLink, Child] = {}

    def serve_until(self, is_over: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not is_over():
            arrived: list[Arrival] = self.port.receive()
            for link, what in arrived:
                self.children[link].take(what)  # type: ignore[index]
            if not arrived:
                self.port.wait(0.1)
            assert time.monotonic() < end, "it did not come"


@pytest.fixture
def hub() -> Iterator[Hub]:
    if not pair.is_possible():
        pytest.skip("links by shared memory are for x86-64")
    hub = Hub()
    yield hub
    for child in hub.children.values():
        child.end()
    hub.port.close()


def count_memory() -> tuple[int, int]:
    """Files that are open, and pieces of shared memory."""
    return len(os.listdir("/proc/self/fd")), Path("/proc/self/maps").read_text(encoding="ascii").count("demos-pair")


@pytest.mark.parametrize("mode", ["answers", "flood"])
def test_a_peer_that_is_killed_harms_nobody_and_leaves_nothing(hub: Hub, mode: str) -> None:
    """At whatever moment: what arrived is right and in order, the end is told once, and the other child goes on."""
    witness = Child(hub, "answers")
    hub.serve_until(lambda: witness.count > 10)
    before = count_memory()
    rng = np.random.default_rng(5)
    for _ in range(4):
        child = Child(hub, mode)
        wanted = int(rng.integers(1, 300))
        hub.serve_until(lambda child=child, wanted=wanted: child.count >= wanted)
        child.process.kill()
        hub.serve_until(lambda child=child: bool(child.ends))
        assert isinstance(child.ends[0], ServerLost)
        child.process.wait(PATIENCE)
        assert count_memory() == before
        seen = witness.count
        hub.serve_until(lambda seen=seen: witness.count > seen + 10)


def test_a_peer_that_is_stopped_keeps_nobody_waiting_and_goes_on_later(hub: Hub) -> None:
    witness, child = Child(hub, "answers"), Child(hub, "flood")
    hub.serve_until(lambda: child.count > 20)
    child.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.process.pid, os.WSTOPPED)
    seen = witness.count
    hub.serve_until(lambda: witness.count > seen + 200)
    child.process.send_signal(signal.SIGCONT)
    seen = child.count
    hub.serve_until(lambda: child.count > seen + 20)


def test_who_sleeps_is_woken(hub: Hub) -> None:
    """The hub sleeps for long; each frame of the child, and each answer, has to end a sleep."""
    child = Child(hub, "answers")
    hub.serve_until(lambda: child.count > 0)
    child.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.process.pid, os.WSTOPPED)
    for _ in range(10):
        for _, what in hub.port.receive():
            child.take(what)
        hub.port.wait(0.05)
    seen, start = child.count, time.monotonic()
    child.process.send_signal(signal.SIGCONT)
    hub.serve_until(lambda: child.count > seen + 100)
    assert time.monotonic() - start < 10.0
