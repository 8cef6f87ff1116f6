"""Files that are there as a whole or not at all, whatever the file system does."""

from __future__ import annotations

import errno
import itertools
import json
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos_hpc.errors import InvalidInput, RegistryError
from demos_hpc.shared_files import (
    LOOKS,
    TEMPORARY,
    Problem,
    create_file,
    list_names,
    make_directory,
    read_json,
    remove_file,
    replace_file,
    sweep_temporary,
    to_content,
)

CHECK = settings(derandomize=True, deadline=None)
LIMIT = 1000


def fail(number: int, first: int = 1 << 30, then: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """A system call that fails with this errno, as often as ``first`` says, and then is what it was."""
    calls = 0

    def call(*args: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls <= first or then is None:
            raise OSError(number, os.strerror(number))
        return then(*args, **keywords)

    return call


def read_problem(path: Path) -> Problem:
    problem = read_json(path, LIMIT)
    assert isinstance(problem, Problem)
    assert problem.name == path.name
    return problem


# ---- reading ------------------------------------------------------------------------------------------------


@CHECK
@given(st.dictionaries(st.text(), st.none() | st.integers() | st.floats(allow_nan=False) | st.text(), max_size=5))
def test_an_object_comes_back(values: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "a.json")
        if float("inf") in values.values() or -float("inf") in values.values():
            with pytest.raises(ValueError, match="not JSON compliant"):
                to_content(values, 1 << 20)
        else:
            replace_file(path, to_content(values, 1 << 20))
            assert read_json(path, 1 << 20) == values


@CHECK
@given(st.binary(max_size=60))
def test_noise_is_a_problem_or_an_object(noise: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "a.json")
        path.write_bytes(noise)
        found = read_json(path, LIMIT)
        assert isinstance(found, Problem) or found == json.loads(noise)


def test_a_part_of_a_file_is_a_problem(tmp_path: Path) -> None:
    content = to_content({"a": 1.5, "b": {"c": ["d"]}}, LIMIT)
    path = tmp_path / "a.json"
    for size in range(len(content)):
        path.write_bytes(content[:size])
        assert "only a part of it" in read_problem(path).reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is no JSON"),
        (b"[1]", "holds no JSON object, but a list"),
        (b"null", "holds no JSON object, but a NoneType"),
        (b"[" * LIMIT, "is no JSON"),
        (b'{"a": ' + b"9" * 990 + b"}", ""),
        (b"\xff\xfe{\x00}\x00", "is no JSON"),
        (b" " * (LIMIT + 1), f"holds more than {LIMIT} bytes"),
    ],
)
def test_reasons_are_given(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    if reason:
        assert reason in read_problem(path).reason
    else:
        assert read_json(path, LIMIT) == json.loads(content)


def test_the_largest_file_that_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    filler = LIMIT - len(to_content({"a": ""}, LIMIT))
    replace_file(path, to_content({"a": "x" * filler}, LIMIT))
    assert path.stat().st_size == LIMIT
    assert read_json(path, LIMIT) == {"a": "x" * filler}
    with pytest.raises(InvalidInput, match="1001 bytes are too much"):
        to_content({"a": "x" * (filler + 1)}, LIMIT)


def test_nobody_waits_for_a_pipe_or_reads_a_device(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "directory.json").mkdir()
    (tmp_path / "link.json").symlink_to("/dev/zero")
    assert read_problem(tmp_path / "pipe.json").reason == "is no regular file"
    assert read_problem(tmp_path / "directory.json").reason == "is no regular file"
    assert read_problem(tmp_path / "link.json").reason == os.strerror(errno.ELOOP)


def test_descriptors_are_closed_whatever_was_found(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "noise.json").write_bytes(b"\xff")
    before = os.listdir("/proc/self/fd")
    for name in ("pipe.json", "noise.json", "nothing.json"):
        read_problem(tmp_path / name)
    assert os.listdir("/proc/self/fd") == before


def test_a_file_without_permission_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(os, "open", fail(errno.EACCES))  # root may read all
    assert str(read_problem(tmp_path / "a.json")) == "a.json: Permission denied"


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ESTALE])
def test_a_file_that_is_being_replaced_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}', encoding="utf-8")
    monkeypatch.setattr(os, "read", fail(number, LOOKS - 1, os.read))
    assert read_json(path, LIMIT) == {"a": 1}
    monkeypatch.setattr(os, "read", fail(number))
    assert read_problem(path).vanished
    assert read_problem(tmp_path / "gone.json").vanished


def test_names_of_problems_cannot_steer_a_terminal() -> None:
    name = os.fsdecode(b"\x1b[2J\n\xff.json")
    assert str(Problem(name, "is no JSON")) == "?[2J??.json: is no JSON"


def test_what_is_no_directory_has_no_names_or_says_so(tmp_path: Path) -> None:
    assert list_names(tmp_path / "nothing") == []
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        list_names(tmp_path / "file")


# ---- writing ------------------------------------------------------------------------------------------------


def test_the_last_writer_wins(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    replace_file(path, b'{"a": 1, "b": 2}')
    with path.open(encoding="utf-8") as earlier:  # whoever was reading finds what was there
        replace_file(path, b'{"a": 2}')
        assert json.load(earlier) == {"a": 1, "b": 2}
    assert read_json(path, LIMIT) == {"a": 2}
    assert os.listdir(tmp_path) == ["a.json"]


def test_the_first_creator_wins(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert create_file(path, b'{"a": 1}')
    assert not create_file(path, b'{"a": 2}')
    assert read_json(path, LIMIT) == {"a": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_files_may_be_read_by_others_as_far_as_the_umask_says(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for umask, mode in ((0o022, 0o644), (0o077, 0o600), (0o000, 0o644)):
        before = os.umask(umask)
        try:
            replace_file(path, b"{}")
        finally:
            os.umask(before)
        assert path.stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(os, "link", fail(number))
    path = tmp_path / "a.json"
    assert create_file(path, b'{"a": 1}')
    assert not create_file(path, b'{"a": 2}')
    assert read_json(path, LIMIT) == {"a": 1}
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("number", [errno.EEXIST, errno.EIO, errno.EPERM])
def test_link_that_was_made_although_it_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """NFS repeats a request whose answer was lost, and then finds its own file."""
    link = os.link

    def link_and_lose_the_answer(*args: Any) -> None:
        link(*args)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link_and_lose_the_answer)
    path = tmp_path / "a.json"
    assert create_file(path, b'{"a": 1}')
    assert read_json(path, LIMIT) == {"a": 1}
    monkeypatch.setattr(os, "link", link)
    assert not create_file(path, b'{"a": 2}')


@pytest.mark.parametrize(
    ("write", "call", "number"),
    [
        *itertools.product(
            [replace_file, create_file],
            ["open", "fsync"],
            [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO],
        ),
        (replace_file, "rename", errno.EROFS),
        (create_file, "link", errno.EIO),
    ],
)
def test_what_the_disk_refuses_is_named_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, bytes], Any], call: str, number: int
) -> None:
    path = tmp_path / "a.json"
    if write is replace_file:
        write(path, b'{"a": 0}')
    before = os.listdir(tmp_path)
    monkeypatch.setattr(os, call, fail(number))
    with pytest.raises(RegistryError) as caught:
        write(path, b'{"a": 1}')
    monkeypatch.undo()
    assert os.listdir(tmp_path) == before
    for words in (str(path), os.strerror(number), "set DEMOS_REGISTRY"):
        assert words in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)
    if write is replace_file:
        assert read_json(path, LIMIT) == {"a": 0}


def test_without_hard_links_a_full_disk_leaves_nothing_half_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", fail(errno.EPERM))
    fsync = os.fsync
    calls = iter([fsync, fail(errno.ENOSPC)])
    monkeypatch.setattr(os, "fsync", lambda descriptor: next(calls)(descriptor))
    with pytest.raises(RegistryError, match="No space left"):
        create_file(tmp_path / "a.json", b"{}")
    assert os.listdir(tmp_path) == []


def test_a_limit_on_the_size_of_files_leaves_the_last_version(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    replace_file(path, b'{"a": 1}')
    code = """
        import resource, sys
        from pathlib import Path
        from demos_hpc.errors import RegistryError
        from demos_hpc.shared_files import replace_file
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
        try:
            replace_file(Path(sys.argv[1]), b'{"a": "' + b"x" * 100 + b'"}')
        except RegistryError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert done.stdout.startswith(f"cannot write {path}: File too large; set DEMOS_REGISTRY")
    assert read_json(path, LIMIT) == {"a": 1}
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("write", [replace_file, create_file])
def test_a_directory_that_is_none_is_named(tmp_path: Path, write: Callable[[Path, bytes], Any]) -> None:
    (tmp_path / "file").touch()
    for directory in (tmp_path / "file", tmp_path / "nothing"):
        with pytest.raises(RegistryError, match=f"cannot write {directory}"):
            write(directory / "a.json", b"{}")


# ---- directories, removal, leftovers ------------------------------------------------------------------------


def test_directories_are_made_for_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_directory(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b")] == [0o700, 0o700]


def test_directories_get_the_mode_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    make_directory(tmp_path / "a", 0o2775)
    os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o7777 == 0o2775


def test_a_directory_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.chmod(tmp_path / "a", 0o750)
    make_directory(tmp_path / "a", 0o700)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o750


def test_several_may_make_a_directory_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir = os.mkdir

    def come_second(path: Path, mode: int) -> None:
        mkdir(path, mode)
        mkdir(path, mode)

    monkeypatch.setattr(os, "mkdir", come_second)
    make_directory(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("path", ["file", "file/a", "loose", "loose/a"])
def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loose").symlink_to(tmp_path / "nothing")
    with pytest.raises(RegistryError, match=f"cannot write {tmp_path / path}: .*set DEMOS_REGISTRY"):
        make_directory(tmp_path / path)


def test_read_only_file_systems_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "mkdir", fail(errno.EROFS))
    with pytest.raises(RegistryError, match="Read-only file system"):
        make_directory(tmp_path / "a")
    with pytest.raises(RegistryError, match="cannot write /proc/demos-hpc"):
        make_directory(Path("/proc/demos-hpc"))


def test_removing_twice_is_removing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.touch()
    remove_file(path)
    remove_file(path)
    assert not path.exists()
    path.touch()
    monkeypatch.setattr(os, "unlink", fail(errno.EACCES))
    with pytest.raises(RegistryError, match="Permission denied"):
        remove_file(path)


def test_only_old_temporary_files_of_ours_are_swept(tmp_path: Path) -> None:
    now = 1e9
    old, young, ahead = (f".demos-{digit * 16}.tmp" for digit in "123")
    foreign = [".demos-1.tmp", "demos-1111111111111111.tmp", ".other.tmp", ".nfs0001", "a.json", f"{old}.old"]
    for name in [old, young, ahead, *foreign]:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (now - 7200, now - 7200))
    os.utime(tmp_path / young, (now - 60, now - 60))
    os.utime(tmp_path / ahead, (now + 7200, now + 7200))
    assert sweep_temporary(tmp_path, 3600, now) == 1
    assert set(os.listdir(tmp_path)) == {young, ahead, *foreign}


def test_sweeping_what_cannot_be_swept_removes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sweep_temporary(tmp_path / "nothing", 0, 1e9) == 0
    path = tmp_path / f".demos-{'1' * 16}.tmp"
    path.touch()
    monkeypatch.setattr(os, "unlink", fail(errno.EACCES))
    assert sweep_temporary(tmp_path, 0, 1e10) == 0
    assert path.exists()


def test_temporary_files_are_of_the_form_that_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.extend(os.listdir(tmp_path)))
    replace_file(tmp_path / "a.json", b"{}")
    assert len(seen) == 1
    assert TEMPORARY.fullmatch(seen[0])
