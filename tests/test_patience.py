"""When a waiting process yields and when it sleeps, by a clock that the test moves."""

from __future__ import annotations

import pytest

from demos_hpc.transport.patience import CROWDED, FIRST_PAUSE, LONGEST_PAUSE, SHORT_WINDOW, SOON, Patience

WINDOW = 200e-6
#: Seconds that one look and one yield take, in a process that has the core for itself.
STEP = 10e-6


class Scene:
    """A process that waits: ``arrives_at`` is when something comes, ``yields_take`` what each yield costs."""

    def __init__(self, yield_seconds: float = WINDOW) -> None:
        self.now = 100.0
        self.arrives_at = float("inf")
        self.yields_take = STEP
        self.n_yields = 0
        self.slept: list[float] = []
        self.patience = Patience(yield_seconds, lambda: self.now, self.yield_core)

    def yield_core(self) -> None:
        self.n_yields += 1
        self.now += self.yields_take

    def look(self, seconds: float) -> bool:
        if seconds:
            self.slept.append(seconds)
            self.now = min(self.now + seconds, max(self.now, self.arrives_at))
        return self.now >= self.arrives_at

    def wait(self, arrives_in: float, seconds: float = 1.0) -> tuple[int, int]:
        """Yields and sleeps in one wait, for something that comes so many seconds after its begin."""
        n_yields, n_sleeps, self.arrives_at = self.n_yields, len(self.slept), self.now + arrives_in
        self.patience.wait(self.look, seconds)
        return self.n_yields - n_yields, len(self.slept) - n_sleeps


def test_what_comes_soon_is_found_awake() -> None:
    scene = Scene()
    n_yields, n_sleeps = scene.wait(arrives_in=10 * STEP)
    assert (n_yields, n_sleeps) == (10, 0)


def test_what_is_there_is_found_at_once() -> None:
    assert Scene().wait(arrives_in=0.0) == (0, 0)


def test_what_does_not_come_is_slept_for_and_no_longer_than_asked() -> None:
    scene = Scene()
    n_yields, n_sleeps = scene.wait(arrives_in=5.0, seconds=1.0)
    assert n_yields == pytest.approx(WINDOW / STEP, abs=1)
    assert n_sleeps == 1
    assert scene.now == pytest.approx(101.0, abs=2 * WINDOW)


def test_a_long_wait_makes_the_next_one_impatient_and_a_short_one_patient_again() -> None:
    scene = Scene()
    scene.wait(arrives_in=0.1)
    n_yields, n_sleeps = scene.wait(arrives_in=0.5 * WINDOW)
    assert n_yields == pytest.approx(SHORT_WINDOW / STEP, abs=1)
    assert n_sleeps == 1
    assert scene.wait(arrives_in=0.5 * WINDOW)[1] == 0


def test_where_somebody_computes_nothing_is_yielded_for_a_while() -> None:
    scene = Scene()
    scene.yields_take = 2 * CROWDED
    assert scene.wait(arrives_in=1e-3)[0] == 1
    scene.yields_take = STEP
    assert scene.wait(arrives_in=5 * STEP) == (0, 1)
    scene.now += FIRST_PAUSE
    assert scene.wait(arrives_in=5 * STEP) == (5, 0)


def measure_pause(scene: Scene) -> float:
    """Seconds after a yield that took long until the next one."""
    scene.yields_take = 2 * CROWDED
    assert scene.wait(arrives_in=CROWDED)[0] == 1
    begin = scene.now
    scene.yields_take = STEP
    while not scene.wait(arrives_in=STEP)[0]:
        scene.now += 1e-3
    return scene.now - begin


def test_where_somebody_goes_on_computing_pauses_grow() -> None:
    scene = Scene()
    pauses = [measure_pause(scene) for _ in range(12)]
    assert pauses[:4] == pytest.approx([FIRST_PAUSE * 2**nth for nth in range(4)], rel=0.1)
    assert pauses[-1] == pytest.approx(LONGEST_PAUSE, rel=0.1)
    scene.now += SOON * LONGEST_PAUSE
    assert measure_pause(scene) == pytest.approx(FIRST_PAUSE, rel=0.1)


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_a_process_that_is_to_yield_nothing_sleeps_at_once(seconds: float) -> None:
    scene = Scene(yield_seconds=0.0)
    n_yields, _ = scene.wait(arrives_in=5.0, seconds=seconds)
    assert n_yields == 0
    assert scene.now == 100.0 + seconds


def test_no_wait_is_longer_than_asked() -> None:
    scene = Scene()
    scene.wait(arrives_in=5.0, seconds=0.0)
    assert scene.now == 100.0
    assert scene.n_yields == 0
