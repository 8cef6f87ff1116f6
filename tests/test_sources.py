"""Files as they were opened: which ones are, what is read of them, and what is seen of changes."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos_hpc import sources
from demos_hpc.errors import DatasetError
from demos_hpc.sources import Source, find_identity

CHECK = settings(derandomize=True, deadline=None, max_examples=200)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 16)
    return path


# ---- opened -------------------------------------------------------------------------------------------------


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.path.relpath(path))


def make_loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Path.mkdir, "is a directory; a dataset is in an HDF5 file: correct its path"),
        (make_fifo, "is no regular file; a dataset is in an HDF5 file"),
        (make_socket, "is no regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "is no regular file"),
        (lambda path: path.symlink_to("nowhere"), "No such file or directory; put it there, or correct the path"),
        (lambda path: None, "No such file or directory; put it there, .* on the hosts of all workers"),
        (make_loop, "cannot be opened: "),
    ],
)
def test_only_regular_files_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)  # addresses of sockets are short
    path = tmp_path / "thing"
    make(path)
    with pytest.raises(DatasetError, match=message) as caught:
        Source(str(path))
    assert str(path) in str(caught.value)


def test_names_that_are_none(tmp_path: Path) -> None:
    for name in ("a\0b", str(tmp_path / "file" / "below"), "x" * 5000):
        with pytest.raises(DatasetError, match="cannot be opened"):
            Source(name)


def test_what_may_not_be_read_says_who_should(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run as root, to whom nothing is forbidden."""

    def refuse(*_: Any) -> int:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(DatasetError, match="Permission denied; it has to be readable by the user whose server this is"):
        Source(str(path))


def test_a_pipe_that_comes_in_between_is_not_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(os.listdir("/proc/self/fd"))

    def replace(path: str) -> str:
        identity = find_identity(path)
        os.unlink(path)
        os.mkfifo(path)
        return identity

    monkeypatch.setattr(sources, "find_identity", replace)
    with pytest.raises(DatasetError, match="is no regular file any more"):
        Source(str(path))
    assert len(os.listdir("/proc/self/fd")) == before


def test_closed_twice_is_closed_once(path: Path) -> None:
    source = Source(str(path))
    source.close()
    descriptor = os.open(path, os.O_RDONLY)  # has the number that was given back
    source.close()
    os.close(descriptor)


# ---- changed ------------------------------------------------------------------------------------------------


def test_a_file_is_the_same_until_it_is_written(path: Path) -> None:
    source = Source(str(path))
    assert source.identity == find_identity(str(path))
    path.chmod(0o600)
    assert source.is_unchanged()
    assert source.is_current()
    os.utime(path, ns=(0, 0))
    assert not source.is_unchanged()
    assert not source.is_current()
    source.close()


def test_a_file_that_was_replaced_is_what_it_was(path: Path) -> None:
    source = Source(str(path))
    other = path.with_name("other")
    other.write_bytes(b"x" * 4096)
    os.replace(other, path)
    assert source.is_unchanged()
    assert not source.is_current()
    view = bytearray(4)
    source.read_at(memoryview(view), 0)
    assert view == bytes(range(4))
    path.unlink()
    assert source.is_unchanged()
    assert not source.is_current()
    source.close()


# ---- read ---------------------------------------------------------------------------------------------------


@CHECK
@given(data=st.data())
def test_rows_are_those_that_were_asked_for(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    row_bytes, offset = data.draw(st.integers(1, 20)), data.draw(st.integers(0, 30))
    n_rows = data.draw(st.integers(1, 60))
    content = np.random.default_rng(0).integers(0, 256, offset + n_rows * row_bytes, dtype=np.uint8)
    path = tmp_path_factory.getbasetemp() / "rows"
    path.write_bytes(content.tobytes())
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, n_rows - 1), min_size=1))), dtype=np.int64)
    out = np.empty((len(rows), row_bytes), np.uint8)
    near, page = data.draw(st.sampled_from([0, 5, 40, 8192])), data.draw(st.sampled_from([1, 16, 100, 1 << 20]))
    source = Source(str(path))
    with mock.patch.multiple(sources, NEAR_BYTES=near, PAGE_BYTES=page):
        source.read_rows(offset, row_bytes, rows, out)
    source.close()
    np.testing.assert_array_equal(out, content[offset:].reshape(n_rows, row_bytes)[rows])


@pytest.mark.parametrize("rows", [[0, 1, 2], [0, 9], [2, 5, 6, 7, 8, 9], [9]])
def test_what_is_beyond_the_end_is_an_error(path: Path, rows: list[int]) -> None:
    source = Source(str(path))
    with mock.patch.multiple(sources, NEAR_BYTES=1, PAGE_BYTES=64), pytest.raises(OSError, match="the file ends at"):
        source.read_rows(4000, 50, np.array(rows), np.empty((len(rows), 50), np.uint8))
    source.close()


def test_as_a_file_object_it_fills_what_it_is_given_or_raises(path: Path) -> None:
    source = Source(str(path))
    assert source.seek(0, os.SEEK_END) == 4096
    assert source.seek(4090) == source.tell() == 4090
    view = bytearray(6)
    assert source.readinto(memoryview(view)) == 6
    assert (view, source.tell()) == (bytes(range(250, 256)), 4096)
    source.seek(4095)
    with pytest.raises(OSError, match="the file ends at byte 4096"):
        source.readinto(memoryview(view))
    source.seek(2)
    assert source.read(3) == b"\2\3\4"
    source.flush()
    for change in (lambda: source.write(b"x"), source.truncate):
        with pytest.raises(OSError, match="was opened for reading"):
            change()
    source.close()


def test_a_system_call_may_read_less_than_it_should(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As from 2 GiB on, or where a signal comes."""
    whole = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, at: whole(fd, [views[0][:7]], at))
    source = Source(str(path))
    view = bytearray(256)
    source.read_at(memoryview(view), 0)
    assert view == bytes(range(256))
    source.close()
