"""Which servers live: every door is asked at once, and only the certainly dead are swept."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from serving import OPENING, ServerApart, serving, wait_until
from test_endpoint import ENDPOINT

from demos_hpc import survey as module
from demos_hpc.config import Config
from demos_hpc.endpoint import Endpoint, find_boot
from demos_hpc.errors import AccessRefused, InvalidInput, RegistryError, ServerLost
from demos_hpc.identity import find_user, make_key_file
from demos_hpc.registry import Registry
from demos_hpc.survey import (
    DEAD,
    ELSEWHERE,
    HEARTBEATS_LEFT,
    NOT_OURS,
    SILENT,
    Sighting,
    find_named,
    look,
    reach,
    survey,
    sweep,
)

GAUSSIAN = "demos_hpc.testing:Gaussian"
#: An address where nothing can be: no host may have it (RFC 5737).
NOWHERE = "192.0.2.1"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerApart]:
    with serving(GAUSSIAN, tmp_path_factory.mktemp("server"), workers=1, name="peak", heartbeat=0.5) as running:
        yield running


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def make(name: str, *, age: float = 0.0, **changes: Any) -> Endpoint:
    """An entry of a server of this host that does not run; its heartbeat is ``age`` intervals old."""
    id_ = uuid.uuid5(uuid.NAMESPACE_DNS, name + str(changes)).hex
    here = {"boot": find_boot(), "host": "127.0.0.1", "port": 1, "unix": f"@demos-{id_}", "tls": "", "interval": 1.0}
    now = time.time()
    return replace(ENDPOINT, id=id_, name=name, started=now - 100, heartbeat=now - age, **(here | changes))


def make_abroad(name: str, **changes: Any) -> Endpoint:
    """The same of a server on another host, of which nothing can be seen but whether it answers."""
    return make(name, boot="another kernel", host=NOWHERE, hostname="node18", **changes)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers on other hosts, and that is known at once."""

    def refuse(address: tuple[str, int], timeout: float) -> socket.socket:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket, "create_connection", refuse)


# ---- looking --------------------------------------------------------------------------------------------------


def test_who_lives_gives_its_own_figures(server: ServerApart) -> None:
    endpoint = server.find()
    assert endpoint is not None
    old = replace(endpoint, state="starting", workers=7, clients=8, load=9.0, models=[], heartbeat=0.0)
    sighting = look(old, server.config)
    assert (sighting.state, sighting.transport, sighting.why, sighting.may_sweep) == ("ready", "unix", "", False)
    assert sighting.is_living
    assert sighting.seconds is not None
    assert 0 < sighting.seconds < OPENING
    found = sighting.endpoint
    assert (found.state, found.workers, found.clients, found.load) == ("ready", 1, 0, 0.0)
    assert [model["name"] for model in found.models] == ["gaussian"]


def test_who_describes_itself_in_another_format_lives(server: ServerApart, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORMAT", 99)
    endpoint = server.find()
    assert endpoint is not None
    sighting = look(endpoint, server.config)
    assert (sighting.state, sighting.endpoint) == (endpoint.state, endpoint)


def test_who_does_not_let_us_in_is_not_ours(server: ServerApart, tmp_path: Path) -> None:
    endpoint = server.find()
    assert endpoint is not None
    key = tmp_path / "key"
    sighting = look(endpoint, server.config.changed(key_file=str(key)))
    assert (sighting.state, sighting.may_sweep) == (NOT_OURS, False)
    assert "no key file" in sighting.why or "does not exist" in sighting.why or str(key) in sighting.why
    make_key_file(key, find_user())
    sighting = look(endpoint, server.config.changed(key_file=str(key)))
    assert (sighting.state, sighting.may_sweep) == (NOT_OURS, False)
    assert "does not let you in" in sighting.why


ACCESS = """
[[rule]]
users = ["alice"]
allow = ["read"]

[[rule]]
users = ["bob"]
allow = ["statistics"]
"""


def test_who_may_only_call_sees_that_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [make_key_file(tmp_path / user, user)[user] for user in ("alice", "bob", "eve")]
    access = tmp_path / "access.toml"
    access.write_text(ACCESS, encoding="utf-8")
    with serving(GAUSSIAN, tmp_path, workers=1, name="peak", heartbeat=0.5, access_file=access, keys=keys) as server:
        endpoint = server.find()
        assert endpoint is not None
        told = replace(endpoint, workers=7)
        found = {}
        for user in ("alice", "bob", "eve"):
            with monkeypatch.context() as patch:
                patch.setattr("demos_hpc.dialing.find_user", lambda user=user: user)
                found[user] = look(told, server.config.changed(key_file=str(tmp_path / user)))
    assert {user: sighting.state for user, sighting in found.items()} == {
        "alice": "ready", "bob": "ready", "eve": NOT_OURS
    }  # fmt: skip
    # The registry's figures for one, the server's own for the other.
    assert (found["alice"].endpoint.workers, found["bob"].endpoint.workers) == (7, 1)
    assert found["alice"].seconds is not None


def test_whose_socket_refuses_on_this_host_is_dead_for_sure() -> None:
    sighting = look(make("dead"), Config())
    assert (sighting.state, sighting.may_sweep, sighting.seconds) == (DEAD, True, None)
    assert "does not answer" in sighting.why


@pytest.mark.parametrize("age", [0.0, 1e4])
def test_whose_socket_listens_is_not_dead_however_silent(age: float, server: ServerApart) -> None:
    endpoint = make("hung", age=age)
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind("\0" + endpoint.unix[1:])
        hung.listen()
        sighting = look(endpoint, server.config, seconds=0.1)
    assert (sighting.state, sighting.may_sweep) == (SILENT, False)
    assert sighting.why


@pytest.mark.usefixtures("refused")
@pytest.mark.parametrize(
    ("age", "expected"),
    [(0.0, (SILENT, False)), (4.0, (DEAD, False)), (HEARTBEATS_LEFT + 1.0, (DEAD, True))],
)
def test_on_other_hosts_the_heartbeat_counts(age: float, expected: tuple[str, bool]) -> None:
    sighting = look(make_abroad("abroad", age=age), Config())
    assert (sighting.state, sighting.may_sweep) == expected
    assert f"does not answer at {NOWHERE}, port 1" in sighting.why


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
@pytest.mark.parametrize(
    ("age", "expected"),
    [(0.0, (ELSEWHERE, False)), (4.0, (DEAD, False)), (HEARTBEATS_LEFT + 1.0, (DEAD, True))],
)
def test_nobody_dials_the_loopback_of_another_host(
    host: str, age: float, expected: tuple[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "Operator", None)
    sighting = look(make("far", boot="another kernel", host=host, hostname="node18", age=age), Config())
    assert (sighting.state, sighting.may_sweep) == expected
    assert sighting.why == f"it listens on {host} of node18, and can be asked from there only"


def test_all_are_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(20)

    def look_together(endpoint: Endpoint, config: Config, *, seconds: float) -> Sighting:
        together.wait(OPENING)
        return Sighting(endpoint, "ready")

    monkeypatch.setattr(module, "look", look_together)
    endpoints = [make(f"server-{nth}") for nth in range(20)]
    assert [s.endpoint for s in survey(endpoints, Config(), seconds=OPENING)] == endpoints
    assert survey([], Config()) == []


def test_nobody_waits_for_a_name_that_is_not_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    is_over, find = threading.Event(), socket.getaddrinfo

    def resolve(host: str, *arguments: Any, **options: Any) -> Any:
        if host == "slow.example":
            is_over.wait(OPENING)
        return find(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(module, "GRACE", 0.1)
    before = time.monotonic()
    slow = make_abroad("slow")
    sightings = survey([replace(slow, host="slow.example"), make("dead")], Config(), seconds=0.1)
    assert time.monotonic() - before < OPENING / 2
    is_over.set()
    assert [s.state for s in sightings] == [SILENT, DEAD]
    assert sightings[0].why == "it could not be asked in time"


# ---- sweeping -------------------------------------------------------------------------------------------------


def test_only_the_certainly_dead_are_swept(registry: Registry, refused: None) -> None:
    gone, stale, old = make("gone"), make_abroad("stale", age=4.0), make_abroad("old", age=60.0)
    for endpoint in (gone, stale, old):
        registry.publish(endpoint)
    sightings = survey(registry.list()[0], Config())
    assert {s.endpoint.name for s in sweep(registry, sightings)} == {"gone", "old"}
    assert [endpoint.name for endpoint in registry.list()[0]] == ["stale"]


def test_an_entry_that_we_may_not_remove_stays(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = make("theirs")
    registry.publish(endpoint)

    def refuse(id_: str) -> None:
        raise RegistryError("Operation not permitted")

    monkeypatch.setattr(registry, "withdraw", refuse)
    (sighting,) = survey([endpoint], Config())
    assert sighting.may_sweep
    assert sweep(registry, [sighting]) == []
    assert registry.list()[0] == [endpoint]


def test_what_dead_writers_left_is_swept_as_well(registry: Registry) -> None:
    registry.publish(make("a"))
    left = registry.directory / f".demos-{'0' * 16}.tmp"
    left.touch()
    sweep(registry, [])
    assert left.exists()
    os.utime(left, (0, 0))
    sweep(registry, [])
    assert not left.exists()


def test_a_dispatcher_that_was_killed_is_dead_and_the_next_one_lives(tmp_path: Path) -> None:
    with serving(GAUSSIAN, tmp_path, workers=1, name="phoenix", heartbeat=0.5) as server:
        before = server.find()
        assert before is not None
        os.kill(before.pid, signal.SIGKILL)
        wait_until(lambda: look(before, server.config).state == DEAD, OPENING, "it is dead")
        assert [s.endpoint.id for s in sweep(server.registry, [look(before, server.config)])] == [before.id]
        wait_until(lambda: server.registry.find("phoenix"), OPENING, "it is started again")
        with reach("phoenix", server.registry, server.config) as operator:
            assert operator.endpoint.id != before.id
        server.wait_until_ready()


# ---- by name --------------------------------------------------------------------------------------------------


def test_servers_are_found_by_name_id_or_model(registry: Registry) -> None:
    a, b = make("a"), make("neutrino")
    for endpoint in (a, b):
        registry.publish(endpoint)
    assert find_named("a", registry) == [a]
    assert find_named(a.id[:6].upper(), registry) == [a]
    assert find_named("neutrino", registry) == [b]  # the server of this name comes before models of this name
    assert find_named(ENDPOINT.models[0]["uuid"], registry) == [a, b]
    with pytest.raises(ServerLost, match=r"no server or model 'c' in .*registry \(DEMOS_REGISTRY\); there are: a,"):
        find_named("c", registry)
    with pytest.raises(ServerLost):
        find_named(a.id[:3], registry)


def test_an_empty_registry_and_one_with_nonsense(registry: Registry) -> None:
    with pytest.raises(ServerLost, match=r"there are: none$"):
        find_named("a", registry)
    registry.directory.mkdir()
    (registry.directory / "x.json").write_text("{", encoding="utf-8")
    with pytest.raises(ServerLost, match="there are: none; 1 files there cannot be read"):
        find_named("a", registry)


def test_the_living_one_of_several_is_reached(server: ServerApart, registry: Registry) -> None:
    living = server.find()
    assert living is not None
    for endpoint in (make("peak"), living, make_abroad("peak", age=60.0)):
        registry.publish(endpoint)
    config = server.config
    with reach("peak", registry, config, seconds=5.0) as operator:
        assert operator.endpoint.id == living.id


def test_several_that_live_are_a_question(
    server: ServerApart, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for endpoint in (make("peak", port=1), make("peak", port=2)):
        registry.publish(endpoint)

    def find_alive(endpoints: list[Endpoint], config: Config, *, seconds: float) -> list[Sighting]:
        return [Sighting(endpoint, "ready") for endpoint in endpoints]

    monkeypatch.setattr(module, "survey", find_alive)
    with pytest.raises(InvalidInput, match=r"2 servers are called 'peak': peak \([0-9a-f]{6} on node17\), .*an id"):
        reach("peak", registry, server.config)


def test_none_of_several_lives(registry: Registry) -> None:
    for endpoint in (make("peak", port=1), make("peak", port=2)):
        registry.publish(endpoint)
    with pytest.raises(ServerLost, match="does not answer"):
        reach("peak", registry, Config())


def test_the_only_one_does_not_let_us_in(server: ServerApart, registry: Registry, tmp_path: Path) -> None:
    endpoint = server.find()
    assert endpoint is not None
    make_key_file(tmp_path / "key", find_user())
    for entry in (endpoint, make("peak")):
        registry.publish(entry)
    with pytest.raises(AccessRefused):
        reach("peak", registry, server.config.changed(key_file=str(tmp_path / "key")))
