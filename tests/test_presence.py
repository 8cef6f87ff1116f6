"""A server's entry in the registry: always the latest, and nobody waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from serving import wait_until
from test_endpoint import ENDPOINT

from demos_hpc.endpoint import Endpoint
from demos_hpc.errors import RegistryError
from demos_hpc.presence import Presence
from demos_hpc.registry import Registry

SOON = 20.0


class SlowRegistry(Registry):
    """A registry on a file system that stops when it is told to."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.is_waiting = threading.Event()
        self.published: list[Endpoint] = []
        self.withdrawn: list[str] = []
        self.fail: Callable[[], None] = lambda: None

    def publish(self, endpoint: Endpoint) -> None:
        self.is_waiting.set()
        assert self.goes_on.wait(SOON)
        self.is_waiting.clear()
        self.fail()
        super().publish(endpoint)
        self.published.append(endpoint)

    def withdraw(self, id: str) -> None:  # noqa: A002
        self.fail()
        super().withdraw(id)
        self.withdrawn.append(id)


@pytest.fixture
def registry(tmp_path: Path) -> SlowRegistry:
    return SlowRegistry(tmp_path)


def test_an_entry_is_written_and_taken_away(registry: SlowRegistry) -> None:
    presence = Presence(registry)
    presence.show(ENDPOINT)
    wait_until(lambda: registry.list()[0] == [ENDPOINT], SOON, "it is there")
    presence.show(replace(ENDPOINT, state="draining"))
    wait_until(lambda: registry.list()[0][0].state == "draining", SOON, "it drains")
    presence.close(ENDPOINT.id, SOON)
    assert registry.list()[0] == []


def test_only_the_latest_is_written_however_slow_the_disk_is(registry: SlowRegistry) -> None:
    presence = Presence(registry)
    registry.goes_on.clear()
    presence.show(ENDPOINT)
    assert registry.is_waiting.wait(SOON)
    for workers in range(1, 100):
        presence.show(replace(ENDPOINT, workers=workers))  # returns at once
    registry.goes_on.set()
    wait_until(lambda: len(registry.published) == 2, SOON, "the latest is there")
    assert [endpoint.workers for endpoint in registry.published] == [ENDPOINT.workers, 99]
    presence.close(ENDPOINT.id, SOON)
    assert registry.list()[0] == []


def test_an_end_waits_so_long_and_no_longer(registry: SlowRegistry) -> None:
    presence = Presence(registry)
    registry.goes_on.clear()
    presence.show(ENDPOINT)
    assert registry.is_waiting.wait(SOON)
    presence.close(ENDPOINT.id, 0.05)
    assert registry.withdrawn == []
    registry.goes_on.set()
    presence.close(ENDPOINT.id, SOON)
    assert registry.withdrawn == [ENDPOINT.id]


def test_an_end_takes_away_what_was_still_to_be_written(registry: SlowRegistry) -> None:
    presence = Presence(registry)
    registry.goes_on.clear()
    presence.show(ENDPOINT)
    assert registry.is_waiting.wait(SOON)
    presence.show(replace(ENDPOINT, workers=9))
    threading.Timer(0.02, registry.goes_on.set).start()
    presence.close(ENDPOINT.id, SOON)
    assert registry.list()[0] == []
    assert registry.withdrawn == [ENDPOINT.id]


def test_a_disk_that_fails_is_told_of_once_and_tried_again(
    registry: SlowRegistry, capfd: pytest.CaptureFixture[str]
) -> None:
    tries: list[int] = []

    def fail() -> None:
        tries.append(len(tries))
        raise RegistryError("cannot write: No space left on device")

    registry.fail = fail
    presence = Presence(registry)
    for n in range(1, 4):
        presence.show(ENDPOINT)
        wait_until(lambda n=n: len(tries) == n, SOON, "it was tried")
    registry.fail = lambda: None
    presence.show(ENDPOINT)
    wait_until(lambda: registry.published, SOON, "it is there")
    registry.fail = fail
    presence.show(ENDPOINT)
    wait_until(lambda: len(tries) == 4, SOON, "it was tried")
    presence.close(ENDPOINT.id, SOON)
    err = capfd.readouterr().err
    assert err.count("No space left on device; clients may not find this server") == 2
    assert err.count("No space left on device\n") == 1  # at the end, it stays


def test_an_end_without_anything_shown(registry: SlowRegistry) -> None:
    Presence(registry).close(ENDPOINT.id, SOON)
    assert registry.withdrawn == [ENDPOINT.id]
