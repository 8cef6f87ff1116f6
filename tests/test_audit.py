"""The audit log: every line stays one, no line is lost in silence, and the disk never stops the service."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos_hpc import audit as audit_module
from demos_hpc.audit import ENOUGH, LONGEST_TEXT, MOST_WAITING, REFUSED, Audit, Entry
from demos_hpc.errors import InvalidInput

NOON = 1772366400.25
ENTRY = Entry(NOON, "alice", "log_density", "neutrino", "10.0.0.7:40112", 1000, 0.0125, "ok", "3:17")


def refuse_warning(text: str) -> None:
    raise AssertionError(text)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@contextlib.contextmanager
def full_disk(n_bytes: int) -> Iterator[None]:
    """No file may have more bytes than that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# ---- lines --------------------------------------------------------------------------------------------------


def test_a_line_says_all_there_is(path: Path) -> None:
    audit = Audit(path, refuse_warning)
    audit.record(ENTRY)
    audit.close()
    assert read(path) == [
        {
            "when": "2026-03-01T12:00:00.250Z",
            "who": "alice",
            "what": "log_density",
            "model": "neutrino",
            "from": "10.0.0.7:40112",
            "rows": 1000,
            "seconds": 0.0125,
            "outcome": "ok",
            "request": "3:17",
        }
    ]


def test_the_example_of_the_documentation_is_a_line(path: Path) -> None:
    audit = Audit(path, refuse_warning)
    audit.record(ENTRY)
    audit.close()
    assert audit_module.__doc__
    example = audit_module.__doc__.partition("::\n")[2].partition("}")[0]
    assert "".join(path.read_text(encoding="ascii").split()) == "".join(example.split()) + "}"


def test_a_refusal_says_why(path: Path) -> None:
    audit = Audit(path, refuse_warning)
    audit.record(ENTRY._replace(outcome=REFUSED, why="no proof of key 'bob'"))
    assert read(path)[0]["why"] == "no proof of key 'bob'"


@settings(derandomize=True, database=None, deadline=None)
@given(texts=st.lists(st.text(st.characters(), max_size=20), min_size=7, max_size=7))
def test_no_text_leaves_its_line(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    audit = Audit(path, refuse_warning)
    who, what, model, address, outcome, request, why = texts
    for _ in range(2):
        audit.record(Entry(NOON, who, what, model, address, 1, 0.0, outcome, request, why))
    audit.close()
    lines = path.read_bytes().split(b"\n")
    assert lines[0] == lines[1]
    assert lines[2:] == [b""]
    assert all(32 <= byte < 128 for byte in lines[0])
    values = json.loads(lines[0])
    found = [values[key] for key in ("who", "what", "model", "from", "outcome", "request")]
    assert [*found, values.get("why", "")] == texts


def test_forged_lines_stay_text(path: Path) -> None:
    audit = Audit(path, refuse_warning)
    audit.record(ENTRY._replace(who='eve","outcome":"ok"}\n{"who":"alice'))
    audit.close()
    assert [line["who"] for line in read(path)] == ['eve","outcome":"ok"}\n{"who":"alice']


def test_long_texts_are_cut(path: Path) -> None:
    audit = Audit(path, refuse_warning)
    audit.record(ENTRY._replace(who="x" * 10**6))
    audit.close()
    assert len(read(path)[0]["who"]) == LONGEST_TEXT
    assert path.stat().st_size < 1000


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_does_not_have(path: Path, seconds: float) -> None:
    audit = Audit(path, refuse_warning)
    audit.record(ENTRY._replace(seconds=seconds))
    audit.close()
    assert read(path)[0]["seconds"] == -1.0


@pytest.mark.parametrize(
    ("when", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1772366400.9999, "2026-03-01T12:00:00.999Z"),
        (1772366399.999, "2026-03-01T11:59:59.999Z"),
        (1772366401.0, "2026-03-01T12:00:01.000Z"),
    ],
)
def test_time_is_utc_with_milliseconds(path: Path, when: float, text: str) -> None:
    audit = Audit(path, refuse_warning)
    audit.record(ENTRY)
    audit.record(ENTRY._replace(when=when))
    audit.close()
    assert read(path)[1]["when"] == text


# ---- when lines are written ---------------------------------------------------------------------------------


def test_lines_wait_for_a_second_at_most(path: Path) -> None:
    audit = Audit(path, refuse_warning)
    audit.flush(100.0)
    audit.record(ENTRY)
    assert read(path) == []
    audit.flush(100.1)
    assert len(read(path)) == 1
    audit.record(ENTRY)
    audit.flush(101.0)
    assert len(read(path)) == 1
    audit.flush(101.1)
    assert len(read(path)) == 2
    audit.close()


def test_refusals_do_not_wait_and_take_along_what_does(path: Path) -> None:
    audit = Audit(path, refuse_warning)
    audit.record(ENTRY)
    audit.record(ENTRY._replace(outcome=REFUSED))
    assert [line["outcome"] for line in read(path)] == ["ok", "refused"]
    audit.close()


def test_many_lines_do_not_wait(path: Path) -> None:
    audit = Audit(path, refuse_warning)
    n = 0
    while not path.stat().st_size:
        audit.record(ENTRY)
        n += 1
    assert ENOUGH <= path.stat().st_size < ENOUGH + 1000
    assert len(read(path)) == n
    audit.close()


# ---- the file -----------------------------------------------------------------------------------------------


def test_the_file_is_private_and_only_appended_to(path: Path) -> None:
    path.write_text('{"who":"before"}\n', encoding="ascii")
    path.chmod(0o644)
    mask = os.umask(0)
    try:
        audit = Audit(path, refuse_warning)
    finally:
        os.umask(mask)
    audit.record(ENTRY)
    audit.close()
    assert [line["who"] for line in read(path)] == ["before", "alice"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_files_that_cannot_be_the_log(tmp_path: Path, path: Path) -> None:
    path.symlink_to(tmp_path / "victim")
    with pytest.raises(InvalidInput, match=r"audit\.jsonl cannot be opened"):
        Audit(path, refuse_warning)
    assert not (tmp_path / "victim").exists()
    for bad in (tmp_path, tmp_path / "nowhere" / "audit", Path("/dev/null")):
        with pytest.raises(InvalidInput, match=f"audit log {bad} cannot be opened"):
            Audit(bad, refuse_warning)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInput, match="cannot be opened"):
        Audit(tmp_path / "pipe", refuse_warning)


def test_a_file_of_somebody_else_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.touch()
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(InvalidInput, match=r"it belongs to user \d+, not to you or root"):
        Audit(path, refuse_warning)


@pytest.mark.parametrize("numbers", [{"max_bytes": 0}, {"n_kept": 0}, {"n_kept": -1}])
def test_sizes_that_mean_nothing(path: Path, numbers: dict[str, int]) -> None:
    with pytest.raises(InvalidInput, match="give numbers > 0"):
        Audit(path, refuse_warning, **numbers)
    assert not path.exists()


def test_no_descriptor_is_left_open(tmp_path: Path, path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    audit = Audit(path, refuse_warning, max_bytes=300)
    for n in range(20):
        audit.record(ENTRY)
        audit.flush(float(n))
    with pytest.raises(InvalidInput):
        Audit(Path("/dev/null"), refuse_warning)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    audit.close()
    audit.close()
    assert len(os.listdir("/proc/self/fd")) == before


# ---- rotation -----------------------------------------------------------------------------------------------


def test_full_files_are_kept_and_the_oldest_goes(tmp_path: Path, path: Path) -> None:
    audit = Audit(path, refuse_warning, max_bytes=600, n_kept=3)
    for n in range(40):
        audit.record(ENTRY._replace(rows=n))
        audit.flush(float(n))
    audit.close()
    names = sorted(os.listdir(tmp_path))
    assert names == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2", "audit.jsonl.3"]
    rows = [line["rows"] for name in [*reversed(names[1:]), names[0]] for line in read(tmp_path / name)]
    assert rows == list(range(rows[0], 40))
    assert rows[0] > 20
    for name in names:
        assert (tmp_path / name).stat().st_size <= 600
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_a_file_that_was_moved_away_is_left_alone(tmp_path: Path, path: Path) -> None:
    audit = Audit(path, refuse_warning)
    audit.record(ENTRY._replace(rows=1))
    audit.flush(1.0)
    path.rename(tmp_path / "moved")
    audit.record(ENTRY._replace(rows=2))
    audit.flush(2.0)
    path.unlink()
    audit.record(ENTRY._replace(rows=3))
    audit.close()
    assert [line["rows"] for line in read(tmp_path / "moved")] == [1]
    assert [line["rows"] for line in read(path)] == [3]


def test_two_servers_share_a_file(tmp_path: Path, path: Path) -> None:
    logs = [Audit(path, refuse_warning, max_bytes=1000, n_kept=50) for _ in range(2)]
    for n in range(60):
        logs[n % 2].record(ENTRY._replace(rows=n))
        logs[n % 2].flush(float(n))
    for log in logs:
        log.close()
    rows = [line["rows"] for name in os.listdir(tmp_path) for line in read(tmp_path / name)]
    assert sorted(rows) == list(range(60))
    assert len(os.listdir(tmp_path)) > 5


def test_where_rotation_fails_the_file_grows(tmp_path: Path, path: Path) -> None:
    warnings: list[str] = []
    audit = Audit(path, warnings.append, max_bytes=300, n_kept=1)
    (tmp_path / "audit.jsonl.1" / "in the way").mkdir(parents=True)
    for n in range(5):
        audit.record(ENTRY._replace(rows=n))
        audit.flush(float(n))
    assert [line["rows"] for line in read(path)] == [0, 1, 2, 3, 4]
    assert len(warnings) == 1
    assert "cannot be rotated: Is a directory" in warnings[0]
    (tmp_path / "audit.jsonl.1" / "in the way").rmdir()
    (tmp_path / "audit.jsonl.1").rmdir()
    audit.record(ENTRY._replace(rows=5))
    audit.close()
    assert len(read(tmp_path / "audit.jsonl.1")) == 5
    assert [line["rows"] for line in read(path)] == [5]
    assert audit.lost == 0
    assert len(warnings) == 2
    assert "can be rotated again" in warnings[1]


# ---- trouble ------------------------------------------------------------------------------------------------


def test_a_full_disk_is_told_once_and_nothing_is_lost_meanwhile(path: Path) -> None:
    warnings: list[str] = []
    audit = Audit(path, warnings.append)
    audit.record(ENTRY._replace(rows=0))
    audit.flush(0.0)
    with full_disk(path.stat().st_size):
        for n in range(1, 20):
            audit.record(ENTRY._replace(rows=n, outcome=REFUSED if n == 5 else "ok"))
            audit.flush(float(n))
    assert [line["rows"] for line in read(path)] == [0]
    assert len(warnings) == 1
    assert f"audit log {path} cannot be written: File too large; see to it" in warnings[0]
    audit.flush(20.0)
    assert [line["rows"] for line in read(path)] == list(range(20))
    assert len(warnings) == 2
    assert f"audit log {path} can be written again; 0 lines were lost" in warnings[1]
    audit.close()


def test_what_was_written_in_part_is_whole_afterwards(path: Path) -> None:
    """However much of it the disk had room for."""
    line = len(Audit(path, refuse_warning)._format(ENTRY._replace(rows=100)))
    path.unlink()
    for room in range(3 * line):
        warnings: list[str] = []
        audit = Audit(path, warnings.append)
        for n in range(100, 103):
            audit.record(ENTRY._replace(rows=n))
        with full_disk(room):
            audit.flush(0.0)
        assert path.stat().st_size == room
        audit.record(ENTRY._replace(rows=103))
        audit.close()
        lines = path.read_text(encoding="ascii").splitlines()
        rows, torn = [], 0
        for text in lines:
            try:
                rows.append(json.loads(text)["rows"])
            except ValueError:
                torn += 1
        # A whole line without its end of line is read as a line, and then comes again.
        assert sorted(set(rows)) == [100, 101, 102, 103]
        assert torn + len(rows) - 4 == (1 if room % line else 0)
        assert "" not in lines
        assert len(warnings) == 2
        assert audit.lost == 0
        path.unlink()


def test_lines_that_are_too_many_to_wait_are_counted_and_the_log_says_so(path: Path) -> None:
    warnings: list[str] = []
    audit = Audit(path, warnings.append)
    n = 0
    with full_disk(0):
        while audit.lost < 10:
            audit.record(ENTRY._replace(rows=n))
            n += 1
    assert audit._n_waiting < MOST_WAITING + 1000
    assert len(warnings) == 1
    audit.record(ENTRY)
    audit.flush(1.0)
    assert "can be written again; 11 lines were lost" in warnings[1]
    lines = read(path)
    assert lines[0]["what"] == "audit"
    assert lines[0]["rows"] == 11
    assert lines[0]["outcome"] == "11 lines are missing"
    assert [line["rows"] for line in lines[1:]] == list(range(n - 10))
    audit.record(ENTRY)
    audit.close()
    assert read(path)[-1] == read(path)[-1] | {"who": "alice", "rows": 1000}
    assert audit.lost == 11


def test_while_writing_fails_it_is_tried_at_ticks_only(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def fail(descriptor: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        raise OSError(28, "No space left on device")

    audit = Audit(path, lambda text: None)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail)
        for _ in range(1000):
            audit.record(ENTRY._replace(outcome=REFUSED))
        assert calls == 1
        for n in range(10):
            audit.flush(n / 4)
        assert calls == 1 + 3
    audit.close()
    assert len(read(path)) == 1000


def test_a_directory_that_is_gone_and_comes_back(tmp_path: Path) -> None:
    warnings: list[str] = []
    directory = tmp_path / "logs"
    directory.mkdir()
    path = directory / "audit.jsonl"
    audit = Audit(path, warnings.append)
    path.unlink()
    directory.rmdir()
    for n in range(3):
        audit.record(ENTRY._replace(rows=n))
        audit.flush(float(n))
    assert len(warnings) == 1
    directory.mkdir()
    audit.flush(3.0)
    assert [line["rows"] for line in read(path)] == [0, 1, 2]
    audit.close()


def test_what_cannot_be_written_at_the_end_is_lost_and_counted(path: Path) -> None:
    audit = Audit(path, lambda text: None)
    for _ in range(3):
        audit.record(ENTRY)
    with full_disk(0):
        audit.close()
    assert audit.lost == 3


def test_a_warning_that_cannot_be_given_stops_nothing(path: Path) -> None:
    def fail(text: str) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    audit = Audit(path, fail)
    audit.record(ENTRY)
    with full_disk(0):
        audit.flush(0.0)
    audit.flush(1.0)
    assert len(read(path)) == 1
    audit.close()
