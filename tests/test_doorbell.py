"""The wait policy: who rings whom and when, and what ends a wait. Nothing here sleeps."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from demos_hpc.testing import FakeClock
from demos_hpc.transport import LONGEST_WAIT, doorbell
from demos_hpc.transport.doorbell import ASLEEP, AWAKE, FIRST_NAP, LONGEST_BLIND_SLEEP, SHORT_WINDOW, STUCK, Doorbell

#: Seconds after which a datagram that was sent would have come; nothing here takes as long.
AMPLE = 20.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock(100.0)
    monkeypatch.setattr(doorbell, "time", SimpleNamespace(perf_counter=clock))
    return clock


@pytest.fixture
def make_bells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., list[Doorbell]]]:
    """So many bells of one host that have met; those that yield do so for 100 us."""
    monkeypatch.setattr(doorbell, "SHM", tmp_path)
    made: list[Doorbell] = []

    def make(n: int = 2, **options: Any) -> list[Doorbell]:
        bells = [Doorbell(options.get("yield_seconds", 0.0), by_udp=options.get("by_udp", False)) for _ in range(n)]
        made.extend(bells)
        addresses = [bell.address for bell in bells]
        for me, bell in enumerate(bells):
            bell.meet(addresses, me, "token")
        return bells

    yield make
    for bell in made:
        bell.close()


class FakePoll:
    """Says that nobody rang, and how long it would have slept for."""

    def __init__(self) -> None:
        self.milliseconds: list[float] = []

    def poll(self, milliseconds: float) -> list[Any]:
        self.milliseconds.append(milliseconds)
        return []


def is_rung(bell: Doorbell) -> bool:
    return bool(bell._poll.poll(0))


def never() -> bool:
    return False


# ---- bells of one host ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("flag", "rings", "nudges"), [(AWAKE, 0, 0), (ASLEEP, 1, 0), (STUCK, 1, 1)])
def test_who_is_awake_is_not_rung_and_only_who_is_stuck_is_nudged(
    make_bells: Callable[..., list[Doorbell]], flag: int, rings: int, nudges: int
) -> None:
    one, other, third = make_bells(3)
    other._flags[other._me] = flag
    one.nudge(1)
    assert is_rung(other) == bool(nudges)
    other.wait(never, 0.0)
    assert not is_rung(other)
    other._flags[other._me] = flag
    one.ring(1)
    assert is_rung(other) == bool(rings)
    assert not is_rung(one)
    assert not is_rung(third)


@pytest.mark.parametrize(("is_stuck", "flag"), [(False, ASLEEP), (True, STUCK)])
def test_a_process_says_that_it_sleeps_before_it_looks_for_the_last_time(
    make_bells: Callable[..., list[Doorbell]], is_stuck: bool, flag: int
) -> None:
    one, other = make_bells()
    seen = []

    def look() -> bool:
        seen.append(one._flags[1])
        return len(seen) == other._looks

    other._poll = None  # type: ignore[assignment]  # it comes to no sleep
    other.wait(look, AMPLE, is_stuck=is_stuck)
    assert seen == [flag] * other._looks
    assert one._flags[1] == AWAKE


def test_a_ring_between_the_last_look_and_the_sleep_ends_it(make_bells: Callable[..., list[Doorbell]]) -> None:
    one, other = make_bells()
    looks = []

    def look() -> bool:
        looks.append(None)
        if len(looks) == other._looks:
            one.ring(1)
        return False

    other.wait(look, AMPLE)
    assert len(looks) == other._looks
    assert not is_rung(other), "the ring was taken out"
    one.ring(1)
    assert not is_rung(other), "it is awake"


def test_a_look_that_raises_leaves_the_process_awake(make_bells: Callable[..., list[Doorbell]]) -> None:
    one, other = make_bells()

    def look() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        other.wait(look, AMPLE)
    assert one._flags[1] == AWAKE


def test_the_file_of_the_flags_goes_when_all_have_met(
    make_bells: Callable[..., list[Doorbell]], tmp_path: Path
) -> None:
    one, other = make_bells()
    assert [path.name for path in tmp_path.iterdir()] == ["demos-token"]
    assert (tmp_path / "demos-token").stat().st_mode & 0o777 == 0o600
    one.hide()
    other.hide()
    assert list(tmp_path.iterdir()) == []
    other._flags[1] = ASLEEP
    one.ring(1)
    assert is_rung(other)


def test_a_link_in_place_of_the_file_is_not_followed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doorbell, "SHM", tmp_path)
    (tmp_path / "precious").write_text("kept", encoding="ascii")
    (tmp_path / "demos-token").symlink_to(tmp_path / "precious")
    bell = Doorbell(0.0)
    with pytest.raises(OSError, match="symbolic links"):
        bell.meet([bell.address], 0, "token")
    assert (tmp_path / "precious").read_text(encoding="ascii") == "kept"
    bell.close()


def test_before_anybody_is_known_nobody_is_rung() -> None:
    bell = Doorbell(0.0)
    bell.ring(3)
    bell.nudge(3)
    bell.wait(never, 0.0)
    bell.close()


def test_a_peer_that_is_gone_is_rung_in_vain(make_bells: Callable[..., list[Doorbell]]) -> None:
    one, other = make_bells()
    other._flags[1] = STUCK
    other.close()
    one.ring(1)
    one.nudge(1)


# ---- how long a process yields, and sleeps ---------------------------------------------------------------------


def test_who_waits_yields_first_and_looks_all_the_while(
    make_bells: Callable[..., list[Doorbell]], clock: FakeClock
) -> None:
    one, other = make_bells(yield_seconds=100e-6)
    flags = []

    def look() -> bool:
        clock.advance(10e-6)
        flags.append(one._flags[1])
        return len(flags) == 5

    other._poll = None  # type: ignore[assignment]
    other.wait(look, AMPLE)
    assert flags == [AWAKE] * 5


@pytest.mark.parametrize(("waited", "window"), [(50e-6, 100e-6), (1.0, SHORT_WINDOW)])
def test_after_a_long_wait_the_next_one_yields_less(
    make_bells: Callable[..., list[Doorbell]], clock: FakeClock, waited: float, window: float
) -> None:
    bell = make_bells(yield_seconds=100e-6)[0]
    bell._poll = FakePoll()  # type: ignore[assignment]
    bell.wait(lambda: bool(clock.advance(waited)), AMPLE)
    bell.has_come()
    start, spun = clock.now, []

    def look() -> bool:
        spun.append(clock.now - start)
        clock.advance(1e-6)
        return False

    bell.wait(look, 0.0)
    assert len(spun) - bell._looks == pytest.approx(window / 1e-6, abs=2)


def test_sleeps_grow_and_end_at_the_time_limit(make_bells: Callable[..., list[Doorbell]], clock: FakeClock) -> None:
    bell = make_bells()[0]
    poll = bell._poll = FakePoll()  # type: ignore[assignment]
    for seconds in (0.0, AMPLE, 0.05, AMPLE, AMPLE, AMPLE):
        bell.wait(never, seconds)
    assert poll.milliseconds == pytest.approx([0.0, 16.0, 50.0, 256.0, 1e3 * LONGEST_WAIT, 1e3 * LONGEST_WAIT])
    bell.has_come()
    bell.wait(lambda: clock.advance(1e-3) is NotImplemented, AMPLE)  # time passes, and nothing comes
    assert poll.milliseconds[-1] == pytest.approx(1e3 * FIRST_NAP)


# ---- bells of other hosts ------------------------------------------------------------------------------------


@pytest.fixture
def stranger() -> Iterator[socket.socket]:
    """The UDP socket of a process of another host."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(AMPLE)
        yield peer


def meet_stranger(bell: Doorbell, stranger: socket.socket) -> None:
    address = json.dumps(["another host", "nobody", "127.0.0.1", stranger.getsockname()[1]])
    bell.meet([bell.address, address], 0, "token")


def test_a_host_that_cannot_be_seen_is_rung_by_udp_but_not_all_the_time(
    stranger: socket.socket, make_bells: Callable[..., list[Doorbell]], clock: FakeClock
) -> None:
    (bell,) = make_bells(1)
    meet_stranger(bell, stranger)
    for microseconds in (0, 10, 4, 46):  # at 0, 10, 14 and 60
        clock.advance(microseconds * 1e-6)
        bell.ring(1)
    assert [stranger.recv(16), stranger.recv(16)] == [b"!", b"!"]  # at 0 and at 60
    stranger.setblocking(False)
    with pytest.raises(BlockingIOError):
        stranger.recv(16)


def test_whoever_was_rung_is_awake_for_longer_than_rings_are_left_out(
    make_bells: Callable[..., list[Doorbell]], clock: FakeClock
) -> None:
    one, other = make_bells(by_udp=True)
    one._udp_peers[1] = ("127.0.0.1", other._udp.getsockname()[1])
    one.ring(1)
    other.wait(never, AMPLE)  # ended by the ring
    rung_at = clock.now
    clock.advance(10e-6)
    one.ring(1)  # left out, for the other one still looks
    looks = []

    def look() -> bool:
        looks.append(clock.now)
        clock.advance(4e-6)
        return False

    poll = other._poll = FakePoll()  # type: ignore[assignment]
    other.wait(look, 0.0)
    awake = [at for at in looks[: -other._looks] if at < rung_at + SHORT_WINDOW]
    assert len(awake) == 5  # 10, 14, .. 26 us after the ring, without a sleep
    assert len(poll.milliseconds) == 1


def test_who_can_only_be_rung_by_udp_does_not_rely_on_it(
    stranger: socket.socket, make_bells: Callable[..., list[Doorbell]]
) -> None:
    (bell,) = make_bells(1)
    meet_stranger(bell, stranger)
    poll = bell._poll = FakePoll()  # type: ignore[assignment]
    for _ in range(5):
        bell.wait(never, AMPLE)
    assert poll.milliseconds[-1] == pytest.approx(1e3 * LONGEST_BLIND_SLEEP)
    bell.nudge(1)  # nothing is known of its byte


def test_a_datagram_from_anybody_ends_a_sleep_and_is_taken_out(make_bells: Callable[..., list[Doorbell]]) -> None:
    (bell,) = make_bells(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anybody:
        for _ in range(3):
            anybody.sendto(b"what is this?", ("127.0.0.1", bell._udp.getsockname()[1]))
    bell.wait(never, AMPLE)
    assert not is_rung(bell)
