"""`uploads`: rows come back, and files that are not what they should be are said to be so."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from demos_hpc import uploads
from demos_hpc.errors import DatasetError
from demos_hpc.uploads import check_upload, read_upload

ROWS = np.random.default_rng(4).normal(size=(1000, 3))
SHAPE = (1000, 3)
DIGEST = "ab" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / f"{DIGEST}.npy"
    np.save(path, ROWS)
    return path


def test_rows_come_back(path: Path) -> None:
    check_upload(path.parent, DIGEST, SHAPE)
    for start, stop in ((0, 1000), (0, 1), (999, 1000), (17, 400), (5, 5)):
        rows = read_upload(path.parent, DIGEST, SHAPE, start, stop)
        np.testing.assert_array_equal(rows, ROWS[start:stop])
        assert rows.flags.c_contiguous
        assert rows.dtype == np.float64


def test_rows_that_come_in_pieces(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.preadv
    monkeypatch.setattr(os, "preadv", lambda descriptor, views, at: whole(descriptor, [views[0][:1001]], at))
    np.testing.assert_array_equal(read_upload(path.parent, DIGEST, SHAPE, 3, 900), ROWS[3:900])


def test_an_upload_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=f"upload {DIGEST} is not, or no longer, in {tmp_path}: upload it again"):
        check_upload(tmp_path, DIGEST, SHAPE)
    with pytest.raises(DatasetError, match="upload it again"):
        read_upload(tmp_path, DIGEST, SHAPE, 0, 1)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def lengthen(path: Path) -> None:
    os.truncate(path, path.stat().st_size + 1)


def replace_by(rows: object) -> Callable[[Path], None]:
    return lambda path: np.save(path, np.asarray(rows))


def write_head(text: bytes) -> Callable[[Path], None]:
    return lambda path: (
        path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + ROWS.tobytes()) and None
    )


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_link(path: Path) -> None:
    os.rename(path, path.with_suffix(".elsewhere"))
    path.symlink_to(path.with_suffix(".elsewhere"))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (cut, "has 24127 bytes instead of 24128, so it is truncated: upload it again"),
        (lengthen, "has 24129 bytes instead of 24128"),
        (lambda path: os.truncate(path, 50), "a header that is none"),
        (lambda path: os.truncate(path, 9), "only a part of one: upload it again"),
        (lambda path: os.truncate(path, 0), "only a part of one: upload it again"),
        (lambda path: path.write_bytes(b"PK" + bytes(100)) and None, "is no file of NumPy's"),
        (replace_by(ROWS[:, :2]), r"holds .*\(1000, 2\).*; rows \(1000, 3\) of '<f8' in C order were meant"),
        (replace_by(ROWS.astype(">f8")), "holds .*>f8"),
        (replace_by(np.asfortranarray(ROWS)), "holds .*True"),
        (write_head(b"{'descr': __import__('os'), 'fortran_order': False}"), "a header that is none"),
        (write_head(b"(" * 9000), "a header that is none"),
        (write_head(b"\xff\n"), "a header that is none"),
        (write_head(b"7"), "holds 7; rows"),
        (make_pipe, "is no regular file"),
        (make_link, "cannot be opened: Too many levels of symbolic links"),
    ],
)
def test_a_file_that_is_not_what_it_should_be(path: Path, spoil: Callable[[Path], None], words: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    spoil(path)
    with pytest.raises(DatasetError, match=words):
        check_upload(path.parent, DIGEST, SHAPE)
    with pytest.raises(DatasetError, match=words):
        read_upload(path.parent, DIGEST, SHAPE, 0, 5)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_is_cut_while_it_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = path.stat()
    os.truncate(path, 10_000)
    monkeypatch.setattr(uploads.os, "fstat", lambda descriptor: whole)
    with pytest.raises(DatasetError, match="ends at byte 10000, before row 1000: upload it again"):
        read_upload(path.parent, DIGEST, SHAPE, 0, 1000)


def test_a_disk_that_fails(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int, views: object, at: int) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(DatasetError, match="cannot be read: Input/output error"):
        read_upload(path.parent, DIGEST, SHAPE, 0, 10)
