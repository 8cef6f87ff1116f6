"""Server-side parameters: each revision is written once, and the newest that is intact is found."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos_hpc.errors import InvalidInput, RegistryError
from demos_hpc.registry import Registry
from demos_hpc.revisions import KEPT, MAX_BYTES, MAX_REVISION, Revisions

CHECK = settings(derandomize=True, deadline=None)
UUID = "1ecf2c40-0000-5000-8000-000000000001"
VALUES = {"mass": 0.05, "angle": -1.5e-3}
#: Writes the next revision until it has won 25 times, and says which; reads what is there all the while.
WRITER = """
import errno, os, sys
from pathlib import Path
from demos_hpc.revisions import Revisions
if sys.argv[3] == "without links":
    def refuse(*args): raise OSError(errno.EPERM, os.strerror(errno.EPERM))
    os.link = refuse
revisions = Revisions(Path(sys.argv[1]), sys.argv[2])
won = []
last = 0
while len(won) < 25:
    number = revisions.find_newest() + 1
    if revisions.write(number, {"pid": os.getpid(), "revision": number}):
        won.append(number)
    found = revisions.read()
    if found is not None:
        assert found[1]["revision"] == found[0], found
    if sys.argv[3] == "with links":
        assert all(problem.vanished for problem in revisions.problems), revisions.problems
        assert found is not None and found[0] >= last, (found, last)
        last = found[0]
print(*won)
"""


@pytest.fixture
def revisions(tmp_path: Path) -> Revisions:
    return Revisions(tmp_path, UUID)


def find_files(revisions: Revisions) -> set[str]:
    return set(os.listdir(revisions.directory))


# ---- reading and writing ------------------------------------------------------------------------------------


def test_the_newest_revision_is_read(revisions: Revisions) -> None:
    assert revisions.read() is None
    assert revisions.find_newest() == 0
    assert revisions.write(2, VALUES)
    assert revisions.read() == (2, VALUES)
    assert revisions.write(3, {"mass": 1.0})
    assert revisions.read() == (3, {"mass": 1.0})
    assert revisions.find_newest() == 3
    assert revisions.problems == []


def test_a_revision_is_written_once(revisions: Revisions) -> None:
    assert revisions.write(2, VALUES)
    assert not revisions.write(2, {"mass": 1.0})
    assert not revisions.write(1, {"mass": 1.0})
    assert revisions.read() == (2, VALUES)
    assert find_files(revisions) == {"2.json"}


def test_a_model_has_revisions_of_its_own(tmp_path: Path) -> None:
    other = Revisions(tmp_path, UUID.replace("1", "2"))
    assert Revisions(tmp_path, UUID).write(2, VALUES)
    assert other.read() is None
    assert Revisions(tmp_path, UUID.upper()).read() == (2, VALUES)


@CHECK
@given(st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False), max_size=5))
def test_any_values_come_back_to_the_last_bit(values: dict[str, float]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        revisions = Revisions(Path(directory), UUID)
        assert revisions.write(1, values)
        found = revisions.read()
        assert found is not None
        assert {name: value.hex() for name, value in found[1].items()} == {n: v.hex() for n, v in values.items()}


def test_numbers_of_any_kind_become_floats(revisions: Revisions) -> None:
    values: dict[str, Any] = {"a": 1, "b": np.float64(0.5), "c": np.float32(0.25)}
    assert revisions.write(1, values)
    assert revisions.read() == (1, {"a": 1.0, "b": 0.5, "c": 0.25})


@pytest.mark.parametrize("value", [math.nan, math.inf, 10**400, True, "1", None, [1.0]])
def test_values_are_finite_numbers(revisions: Revisions, value: Any) -> None:
    with pytest.raises(InvalidInput, match=r"'mass' = .*finite numbers by name"):
        revisions.write(1, {"mass": value})
    assert revisions.read() is None


def test_values_that_no_reader_would_take_are_refused(revisions: Revisions) -> None:
    with pytest.raises(InvalidInput, match=f"at most {MAX_BYTES}"):
        revisions.write(1, {"x" * MAX_BYTES: 1.0})


@pytest.mark.parametrize("revision", [0, -1, MAX_REVISION + 1])
def test_revisions_fit_the_wire(revisions: Revisions, revision: int) -> None:
    with pytest.raises(InvalidInput, match=f"revision {revision} cannot be written"):
        revisions.write(revision, VALUES)


@pytest.mark.parametrize("uuid", ["", "..", "../../etc", "neutrino", UUID + "/..", "0" * 31, None, 3])
def test_a_uuid_is_no_path(tmp_path: Path, uuid: Any) -> None:
    with pytest.raises(InvalidInput, match="is not a UUID"):
        Revisions(tmp_path, uuid)


def test_the_registry_does_not_take_them_for_servers(tmp_path: Path, revisions: Revisions) -> None:
    assert revisions.write(1, VALUES)
    assert Registry(tmp_path).list() == ([], [])


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o2775])
def test_who_may_enter_the_registry_may_enter_here(tmp_path: Path, mode: int) -> None:
    registry = tmp_path / "registry"
    registry.mkdir()
    os.chmod(registry, mode)
    revisions = Revisions(registry, UUID)
    before = os.umask(0o077)
    try:
        assert revisions.write(1, VALUES)
    finally:
        os.umask(before)
    assert [d.stat().st_mode & 0o7777 for d in (revisions.directory.parent, revisions.directory)] == [mode, mode]


# ---- damage -------------------------------------------------------------------------------------------------


def damage(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"values": {"mass": 0.06, "angle": -1.5e-3}}, "checksum"),
        ({"values": {}}, "checksum"),
        ({"revision": 4}, "checksum"),
        ({"sha256": ""}, "checksum"),
        ({"sha256": None}, "checksum"),
        ({"values": {"mass": "heavy"}}, "finite numbers"),
        ({"values": None}, "by name"),
    ],
)
def test_of_damaged_revisions_the_one_before_is_read(
    revisions: Revisions, changes: dict[str, Any], reason: str
) -> None:
    assert revisions.write(2, {"mass": 1.0})
    assert revisions.write(3, VALUES)
    damage(revisions.directory / "3.json", **changes)
    assert revisions.read() == (2, {"mass": 1.0})
    assert [problem.name for problem in revisions.problems] == ["3.json"]
    assert reason in revisions.problems[0].reason
    assert not revisions.write(3, VALUES), "a damaged revision is not written again"
    assert revisions.write(revisions.find_newest() + 1, VALUES)
    assert revisions.read() == (4, VALUES)
    assert revisions.problems == []


def test_a_part_of_a_revision_is_never_taken(revisions: Revisions) -> None:
    """As other hosts see it on a file system without hard links, while it is written."""
    assert revisions.write(1, VALUES)
    assert revisions.write(2, {"mass": 1.0})
    path = revisions.directory / "2.json"
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        assert revisions.read() == (1, VALUES)
    path.write_bytes(content)
    assert revisions.read() == (2, {"mass": 1.0})


def test_a_revision_of_another_model_is_not_taken(tmp_path: Path, revisions: Revisions) -> None:
    other = Revisions(tmp_path, UUID.replace("1", "2"))
    assert revisions.write(1, VALUES)
    assert other.write(2, VALUES)
    (other.directory / "2.json").rename(revisions.directory / "2.json")
    assert revisions.read() == (1, VALUES)


@CHECK
@given(st.binary(max_size=100))
def test_garbage_is_skipped(noise: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        revisions = Revisions(Path(directory), UUID)
        assert revisions.write(1, VALUES)
        (revisions.directory / "2.json").write_bytes(noise)
        assert revisions.read() == (1, VALUES)
        assert len(revisions.problems) == 1


def test_other_files_are_of_no_concern(revisions: Revisions) -> None:
    assert revisions.write(1, VALUES)
    for name in ("README", "x.json", "02.json", "-1.json", "0.json", "3.json~", f"{MAX_REVISION + 1}.json"):
        (revisions.directory / name).touch()
    assert revisions.read() == (1, VALUES)
    assert revisions.problems == []
    assert revisions.find_newest() == 1


def test_a_directory_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "params").touch()
    revisions = Revisions(tmp_path, UUID)
    assert revisions.read() is None
    assert [str(problem) for problem in revisions.problems] == [f"{revisions.directory}: Not a directory"]
    for call in (revisions.find_newest, lambda: revisions.write(1, VALUES)):
        with pytest.raises(RegistryError, match="Not a directory; set DEMOS_REGISTRY"):
            call()


def test_a_full_disk_is_named_and_leaves_nothing(revisions: Revisions, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(RegistryError, match="No space left on device"):
        revisions.write(1, VALUES)
    assert find_files(revisions) == set()


# ---- sweeping -----------------------------------------------------------------------------------------------


def test_the_last_ones_are_kept(revisions: Revisions) -> None:
    n_written = KEPT + 5
    for revision in range(1, n_written + 1):
        assert revisions.write(revision, VALUES)
    assert find_files(revisions) == {f"{n}.json" for n in range(n_written - KEPT + 1, n_written + 1)}


def test_leftovers_of_dead_writers_are_swept(revisions: Revisions) -> None:
    assert revisions.write(1, VALUES)
    for digit, age in (("1", 2 * 3600.0), ("2", 0.0)):
        path = revisions.directory / f".demos-{digit * 16}.tmp"
        path.touch()
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    assert revisions.write(2, VALUES)
    assert find_files(revisions) == {"1.json", "2.json", f".demos-{'2' * 16}.tmp"}


def test_a_number_that_was_swept_is_not_won_again(revisions: Revisions, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that slept, or whose listing NFS remembered, believes that revision 1 is the newest."""
    for revision in range(1, KEPT + 5):
        assert revisions.write(revision, VALUES)
    monkeypatch.setattr(revisions, "find_newest", lambda: 1)
    assert not revisions.write(2, {"mass": 1.0})
    assert revisions.read() == (KEPT + 4, VALUES)
    assert "2.json" not in find_files(revisions)


def test_reading_goes_on_when_all_that_was_listed_has_been_swept(
    revisions: Revisions, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert revisions.write(30, VALUES)
    listdir = os.listdir
    listings = iter([["2.json", "3.json"], listdir(revisions.directory)])
    monkeypatch.setattr(os, "listdir", lambda path: next(listings))
    assert revisions.read() == (30, VALUES)


# ---- several processes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("links", ["with links", "without links"])
def test_of_writers_at_once_exactly_one_wins(tmp_path: Path, links: str) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path), UUID, links]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    try:
        won = [[int(number) for number in writer.communicate(timeout=120)[0].split()] for writer in writers]
        assert [writer.returncode for writer in writers] == [0, 0, 0]
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    numbers = [number for each in won for number in each]
    assert len(numbers) == len(set(numbers)) == 75
    revisions = Revisions(tmp_path, UUID)
    assert revisions.find_newest() == max(numbers)
    found = revisions.read()
    assert found is not None
    revision, values = found
    winner = next(writer for writer, each in zip(writers, won, strict=True) if revision in each)
    assert (revision, values["pid"]) == (max(numbers), winner.pid)
    assert len(find_files(revisions)) == KEPT
