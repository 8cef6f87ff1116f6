"""The latest is written, and nobody waits for it."""

from __future__ import annotations

import threading

import pytest

from demos_hpc.errors import RegistryError
from demos_hpc.scribe import Scribe

PATIENCE = 30.0


def test_only_the_latest_is_written_however_slow_that_is() -> None:
    written: list[int] = []
    begun, may_end = threading.Event(), threading.Event()

    def write(value: int) -> None:
        begun.set()
        assert may_end.wait(PATIENCE)
        written.append(value)

    scribe: Scribe[int] = Scribe("test", write, "too bad")
    scribe.show(1)
    assert begun.wait(PATIENCE)
    for value in range(2, 100):  # at once, though the first is not written yet
        scribe.show(value)
    may_end.set()
    assert scribe.close(PATIENCE)
    assert written == [1, 99]


def test_closing_does_not_wait_for_ever() -> None:
    may_end = threading.Event()
    scribe: Scribe[int] = Scribe("test", lambda value: may_end.wait(PATIENCE), "too bad")  # type: ignore[arg-type]
    scribe.show(1)
    assert not scribe.close(0.01)
    may_end.set()
    assert scribe.close(PATIENCE)


def test_nothing_shown_is_nothing_written() -> None:
    written: list[int] = []
    assert Scribe("test", written.append, "too bad").close(PATIENCE)
    assert written == []


def test_failures_are_said_once_and_again_after_a_success(capsys: pytest.CaptureFixture[str]) -> None:
    done = threading.Semaphore(0)
    errors = {1: OSError(28, "No space left on device"), 2: RegistryError("full"), 4: RegistryError("full again")}

    def write(value: int) -> None:
        try:
            if value in errors:
                raise errors[value]
        finally:
            done.release()

    scribe: Scribe[int] = Scribe("test", write, "nobody will know")
    for value in range(1, 5):
        scribe.show(value)
        assert done.acquire(timeout=PATIENCE)
    assert scribe.close(PATIENCE)
    assert capsys.readouterr().err.splitlines() == [
        "demos-hpc: [Errno 28] No space left on device; nobody will know",
        "demos-hpc: full again; nobody will know",
    ]
