"""Servers publish, others list: whole entries only, whoever writes at the same time."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
import tempfile
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_endpoint import ENDPOINT, MODEL, NOW

from demos_hpc.endpoint import Endpoint
from demos_hpc.errors import InvalidInput, RegistryError
from demos_hpc.registry import MAX_BYTES, Registry

CHECK = settings(derandomize=True, deadline=None)
#: Publishes an entry of its own and one that all share, again and again, and withdraws every other time; what it says
#: in one member must fit the others, or a reader has seen parts of two.
WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from demos_hpc.registry import Registry
from test_endpoint import ENDPOINT
registry = Registry(Path(sys.argv[1]))
letter = sys.argv[2]
for n in range(120):
    size = (n * 7919) % 20000
    shared = replace(ENDPOINT, hostname=letter * size, clients=size, user=letter)
    own = replace(shared, id=letter * 32)
    registry.publish(shared)
    registry.publish(own)
    if n % 2:
        registry.withdraw(own.id)
"""


def make(name: str, **changes: Any) -> Endpoint:
    """An endpoint of this name with an id of its own."""
    return replace(ENDPOINT, id=uuid.uuid5(uuid.NAMESPACE_DNS, name + str(changes)).hex, name=name, **changes)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry", clock=lambda: NOW, rng=random.Random(1))


def write(registry: Registry, name: str, content: bytes) -> None:
    registry.directory.mkdir(exist_ok=True)
    (registry.directory / name).write_bytes(content)


# ---- publish, list, withdraw --------------------------------------------------------------------------------


def test_what_is_published_is_listed_until_it_is_withdrawn(registry: Registry) -> None:
    assert registry.list() == ([], [])
    registry.publish(ENDPOINT)
    assert registry.list() == ([ENDPOINT], [])
    later = replace(ENDPOINT, heartbeat=NOW, state="draining")
    registry.publish(later)
    assert registry.list() == ([later], [])
    registry.withdraw(ENDPOINT.id)
    registry.withdraw(ENDPOINT.id)
    assert registry.list() == ([], [])
    assert os.listdir(registry.directory) == []


def test_withdrawing_from_no_directory_is_no_error(registry: Registry) -> None:
    registry.withdraw(ENDPOINT.id)
    assert not registry.directory.exists()


@CHECK
@given(
    st.builds(
        replace,
        st.just(ENDPOINT),
        name=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", fullmatch=True),
        port=st.integers(0, 65535),
        load=st.floats(0, 1e9),
        heartbeat=st.floats(0, 1e11),
        workers=st.integers(0, 1 << 50),
        model_path=st.text().filter(str.isprintable),
        models=st.lists(st.just(MODEL), max_size=3),
    )
)
def test_any_endpoint_comes_back(endpoint: Endpoint) -> None:
    with tempfile.TemporaryDirectory() as directory:
        registry = Registry(Path(directory))
        registry.publish(endpoint)
        assert registry.list() == ([endpoint], [])


def test_servers_are_listed_by_name_and_then_by_age(registry: Registry) -> None:
    servers = [make("b", started=2.0), make("c"), make("a"), make("b", started=1.0)]
    for server in servers:
        registry.publish(server)
    assert [(e.name, e.started) for e in registry.list()[0]] == [
        ("a", ENDPOINT.started),
        ("b", 1.0),
        ("b", 2.0),
        ("c", ENDPOINT.started),
    ]


def test_the_directory_is_its_owners(registry: Registry) -> None:
    registry = Registry(registry.directory / "deep")
    registry.publish(ENDPOINT)
    assert [d.stat().st_mode & 0o777 for d in (registry.directory.parent, registry.directory)] == [0o700, 0o700]


def test_a_registry_that_was_removed_is_made_again(registry: Registry) -> None:
    registry.publish(ENDPOINT)
    registry.withdraw(ENDPOINT.id)
    registry.directory.rmdir()
    registry.publish(ENDPOINT)
    assert registry.list() == ([ENDPOINT], [])


@pytest.mark.parametrize("id", ["", "..", "../" * 10 + "aa", "a" * 31, "A" * 32, "a" * 32 + "\n", "/etc/passwd"])
def test_ids_are_no_paths(registry: Registry, id: str) -> None:  # noqa: A002
    with pytest.raises(InvalidInput, match="is no server's id"):
        registry.withdraw(id)


def test_what_readers_would_not_take_is_not_written(registry: Registry) -> None:
    with pytest.raises(InvalidInput, match=f"readers take at most {MAX_BYTES}"):
        registry.publish(replace(ENDPOINT, hostname="x" * MAX_BYTES))
    assert registry.list() == ([], [])


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for directory in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/demos-hpc")):
        with pytest.raises(RegistryError, match=f"cannot write {directory}: .*set DEMOS_REGISTRY"):
            Registry(directory).publish(ENDPOINT)


def test_a_full_disk_leaves_the_last_heartbeat(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.publish(ENDPOINT)

    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(RegistryError, match="No space left on device"):
        registry.publish(replace(ENDPOINT, load=9.0))
    assert registry.list() == ([ENDPOINT], [])
    assert os.listdir(registry.directory) == [f"{ENDPOINT.id}.json"]


# ---- what else may lie in the directory ---------------------------------------------------------------------


def test_a_directory_that_cannot_be_listed_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    registry = Registry(tmp_path / "file")
    endpoints, problems = registry.list()
    assert endpoints == []
    assert [str(problem) for problem in problems] == [f"{tmp_path / 'file'}: Not a directory"]
    assert registry.find("neutrino") == []


def test_bad_files_are_skipped_by_name_and_reason(registry: Registry) -> None:
    registry.publish(ENDPOINT)
    whole = json.dumps(ENDPOINT.to_dict())
    bad = {
        "1" * 32: (b"", "is no JSON"),
        "2" * 32: (whole[:100].encode(), "only a part"),
        "3" * 32: (b"x" * (MAX_BYTES + 1), "holds more than 65536 bytes"),
        "4" * 32: (b"[]", "holds no JSON object"),
        "5" * 32: (b"{}", "Endpoint is incomplete"),
        "6" * 32: (json.dumps(ENDPOINT.to_dict() | {"port": "80"}).encode(), "port of the wrong type"),
        "7" * 32: (json.dumps(ENDPOINT.to_dict() | {"port": 1 << 20}).encode(), "port is at most 65535"),
        "8" * 32: (whole.encode(), f"belongs into {ENDPOINT.id}.json"),
        "9" * 32: (whole.replace(str(ENDPOINT.load), "NaN").encode(), "load is a finite number"),
        "mine": (b"\xff", "is no JSON"),
    }
    for stem, (content, _) in bad.items():
        write(registry, f"{stem}.json", content)
    endpoints, problems = registry.list()
    assert endpoints == [ENDPOINT]
    assert [problem.name for problem in problems] == [f"{stem}.json" for stem in sorted(bad)]
    for problem in problems:
        assert bad[problem.name.removesuffix(".json")][1] in problem.reason
    assert registry.find("neutrino") == [ENDPOINT]


def test_other_files_are_of_no_concern(registry: Registry) -> None:
    registry.publish(ENDPOINT)
    for name in ("README", ".nfs0001", f".demos-{'1' * 16}.tmp", f"{ENDPOINT.id}.json~"):
        write(registry, name, b"x")
    (registry.directory / "params").mkdir()
    assert registry.list() == ([ENDPOINT], [])


def test_members_of_a_newer_format_are_left_out(registry: Registry) -> None:
    newer = ENDPOINT.to_dict() | {"accelerators": [1, 2], "format": "9.9"}
    write(registry, f"{ENDPOINT.id}.json", json.dumps(newer).encode())
    assert registry.list() == ([ENDPOINT], [])


def test_a_file_that_may_not_be_read_is_a_problem(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.publish(ENDPOINT)
    other = make("other")
    registry.publish(other)
    os_open = os.open

    def refuse(path: Path, *args: Any) -> int:
        if other.id in str(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return os_open(path, *args)

    monkeypatch.setattr(os, "open", refuse)  # root may read all
    endpoints, problems = registry.list()
    assert endpoints == [ENDPOINT]
    assert [str(problem) for problem in problems] == [f"{other.id}.json: Permission denied"]


def test_a_file_that_vanishes_is_a_problem(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.publish(ENDPOINT)
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: [*listdir(path), f"{'1' * 32}.json"])
    endpoints, problems = registry.list()
    assert endpoints == [ENDPOINT]
    assert [(problem.name, problem.vanished) for problem in problems] == [(f"{'1' * 32}.json", True)]


@CHECK
@given(st.binary(max_size=200), st.integers(0, 500), st.integers(0, 500))
def test_garbage_is_a_problem_or_a_sound_endpoint(noise: bytes, begin: int, length: int) -> None:
    """Noise in place of a part of a file that was good."""
    content = json.dumps(ENDPOINT.to_dict()).encode()
    with tempfile.TemporaryDirectory() as directory:
        registry = Registry(Path(directory), clock=lambda: NOW)
        write(registry, f"{ENDPOINT.id}.json", content[:begin] + noise + content[begin + length :])
        endpoints, problems = registry.list()
        assert len(endpoints) + len(problems) == 1
        assert all(endpoint.id == ENDPOINT.id for endpoint in endpoints)
        assert registry.find() == endpoints
        assert all(str(problem).isprintable() for problem in problems)


# ---- several processes --------------------------------------------------------------------------------------


def test_a_reader_never_sees_a_part_of_an_entry(registry: Registry) -> None:
    tests = str(Path(__file__).parent)
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(registry.directory), letter, tests]) for letter in "abc"
    ]
    seen: set[tuple[str, int]] = set()
    try:
        while any(writer.poll() is None for writer in writers):
            endpoints, problems = registry.list()
            assert [problem for problem in problems if not problem.vanished] == []
            for endpoint in endpoints:
                assert endpoint.hostname == endpoint.user * endpoint.clients
                seen.add((endpoint.user, endpoint.clients))
        assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    assert {user for user, _ in seen} == set("abc")
    assert len(seen) > 20, "the reader was too slow to see anything change"
    assert os.listdir(registry.directory) == [f"{ENDPOINT.id}.json"]


# ---- finding ------------------------------------------------------------------------------------------------


def test_servers_are_found_by_name_model_and_uuid(registry: Registry) -> None:
    other = [{"name": "gallium", "uuid": "1ecf2c40-0000-5000-8000-000000000002", "version": "0.1.0"}]
    both, one, new = make("both", models=[MODEL, *other]), make("one", models=other), make("new", models=[])
    for endpoint in (both, one, new):
        registry.publish(endpoint)

    def found(name: str | None) -> set[str]:
        return {endpoint.name for endpoint in registry.find(name)}

    assert found(None) == {"both", "one", "new"}
    assert found("gallium") == found(other[0]["uuid"]) == {"both", "one"}
    assert found("neutrino") == {"both"}
    assert found("new") == {"new"}
    assert found("nothing") == set()


def test_the_best_is_found_first(registry: Registry) -> None:
    for endpoint in (
        make("busy", load=5.0),
        make("idle", load=0.0),
        make("silent", load=0.0, heartbeat=NOW - 60),
        make("ahead", load=1.0, heartbeat=NOW + 3600),
    ):
        registry.publish(endpoint)
    assert [e.name for e in registry.find("neutrino")] == ["idle", "ahead", "busy", "silent"]


def test_clients_spread(registry: Registry) -> None:
    for name in "abc":
        registry.publish(make(name, load=0.0))
    assert {registry.find()[0].name for _ in range(50)} == set("abc")


# ---- names --------------------------------------------------------------------------------------------------


def test_names_that_are_taken_are_numbered(registry: Registry) -> None:
    for expected in ("neutrino", "neutrino-2", "neutrino-3"):
        assert registry.choose_name("neutrino") == expected
        registry.publish(make(expected))
    assert registry.choose_name("gallium") == "gallium"


def test_a_server_that_fell_silent_leaves_its_name(registry: Registry) -> None:
    registry.publish(make("neutrino", heartbeat=NOW - 60))
    assert registry.choose_name("neutrino") == "neutrino"


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("a b", "a-b"),
        ("../../etc/passwd", "etc-passwd"),
        ("--force", "force"),
        ("Δm²", "m-"),
        ("", "model"),
        ("..", "model"),
        ("x" * 100, "x" * 64),
    ],
)
def test_any_model_name_gives_a_safe_name(registry: Registry, model: str, name: str) -> None:
    assert registry.choose_name(model) == name
    registry.publish(make(name))
    second = registry.choose_name(model)
    assert second == f"{name[:62]}-2"
    registry.publish(make(second))


# ---- leftovers ----------------------------------------------------------------------------------------------


def test_sweeping_takes_leftovers_and_no_endpoint(registry: Registry) -> None:
    registry.publish(make("silent", heartbeat=0.0))
    leftover = f".demos-{'1' * 16}.tmp"
    write(registry, leftover, b"{")
    for name in os.listdir(registry.directory):
        os.utime(registry.directory / name, (NOW - 7200, NOW - 7200))
    assert registry.sweep(10000) == 0
    assert registry.sweep(3600) == 1
    assert [e.name for e in registry.list()[0]] == ["silent"]
    assert leftover not in os.listdir(registry.directory)
