"""`spool`: uploaded rows, written in parts by anyone, named by their content."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from demos_hpc.errors import BadFrame, DatasetError, DemosError, InvalidInput, TooLarge
from demos_hpc.messages import Array
from demos_hpc.resident_data import digest_rows
from demos_hpc.spool import KEEP_SECONDS, Spool

ROWS: Array = np.random.default_rng(5).normal(size=(100, 3))
DIGEST = digest_rows(ROWS)
PARTIAL = f"{DIGEST}.100x3.partial"
QUESTION = {"upload": DIGEST, "rows": 100, "columns": 3}


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def write(spool: Spool, *parts: tuple[int, Array], **words: Any) -> None:
    for first, rows in parts:
        spool.answer({**QUESTION, "do": "write", "first": first, **words}, rows)


def test_parts_come_in_any_order_and_more_than_once(spool: Spool) -> None:
    assert not spool.answer({**QUESTION, "do": "find"}, None)["is_here"]
    write(spool, (60, ROWS[60:]), (0, ROWS[:30]), (30, ROWS[30:60]), (0, ROWS[:30]))
    assert not spool.answer({**QUESTION, "do": "find"}, None)["is_here"], "it is not complete before it was looked at"
    assert spool.answer({**QUESTION, "do": "seal"}, None)["is_here"]
    assert spool.answer({**QUESTION, "do": "find"}, None)["is_here"]
    np.testing.assert_array_equal(np.load(spool.directory / f"{DIGEST}.npy"), ROWS)
    assert os.listdir(spool.directory) == [f"{DIGEST}.npy"]


def test_what_is_here_stays_as_it_is(spool: Spool) -> None:
    write(spool, (0, ROWS))
    spool.answer({**QUESTION, "do": "seal"}, None)
    write(spool, (0, np.zeros_like(ROWS)))
    assert spool.answer({**QUESTION, "do": "seal"}, None)["is_here"]
    np.testing.assert_array_equal(np.load(spool.directory / f"{DIGEST}.npy"), ROWS)


@pytest.mark.parametrize("wrong", ["lacking", "others"])
def test_rows_that_are_not_what_they_are_called_are_not_kept(spool: Spool, wrong: str) -> None:
    write(spool, (0, ROWS[:50] if wrong == "lacking" else ROWS + 1))
    with pytest.raises(DatasetError, match="not those that were meant: upload them again"):
        spool.answer({**QUESTION, "do": "seal"}, None)
    assert os.listdir(spool.directory) == []
    write(spool, (0, ROWS))
    assert spool.answer({**QUESTION, "do": "seal"}, None)["is_here"]


def test_a_file_that_was_cut_off_is_not_kept(spool: Spool) -> None:
    write(spool, (0, ROWS))
    os.truncate(spool.directory / PARTIAL, 200)
    with pytest.raises(DatasetError, match="upload them again"):
        spool.answer({**QUESTION, "do": "seal"}, None)


def test_a_full_disk_is_told_of_and_leaves_nothing(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    write(spool, (0, ROWS[:10]))

    def fail(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(DatasetError, match=r"2400 bytes .* No space left on device; set DEMOS_SPOOL"):
        write(spool, (10, ROWS[10:]))
    assert os.listdir(spool.directory) == []


def test_a_disk_that_is_too_small_is_told_of_at_once(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = os.statvfs("/")
    little = SimpleNamespace(f_blocks=disk.f_blocks, f_bavail=1, f_frsize=512)
    monkeypatch.setattr(os, "fstatvfs", lambda descriptor: little)
    with pytest.raises(DatasetError, match=r"2400 bytes .* No space left on device"):
        write(spool, (0, ROWS[:1]))
    assert os.listdir(spool.directory) == []


def test_uploads_have_a_limit(tmp_path: Path) -> None:
    """Else a file that is nothing but a hole would be looked at for days."""
    with pytest.raises(TooLarge, match="2400 bytes; this server keeps 2399"):
        write(Spool(tmp_path, 2399), (0, ROWS[:1]))
    assert os.listdir(tmp_path) == []


def test_a_directory_that_cannot_be_made_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=r"cannot be kept in .*: Not a directory; set DEMOS_SPOOL"):
        write(Spool(tmp_path / "file" / "spool"), (0, ROWS))


def test_what_is_here_but_damaged_is_brought_again(spool: Spool) -> None:
    write(spool, (0, ROWS))
    spool.answer({**QUESTION, "do": "seal"}, None)
    os.truncate(spool.directory / f"{DIGEST}.npy", 1000)
    assert not spool.answer({**QUESTION, "do": "find"}, None)["is_here"]
    write(spool, (0, ROWS))
    assert spool.answer({**QUESTION, "do": "seal"}, None)["is_here"]
    np.testing.assert_array_equal(np.load(spool.directory / f"{DIGEST}.npy"), ROWS)
    assert os.listdir(spool.directory) == [f"{DIGEST}.npy"]


def test_what_is_kept_is_what_was_looked_at(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker may write, for another client, while this one compares."""
    monkeypatch.setattr("demos_hpc.spool._PIECE", 500)
    write(spool, (0, ROWS))
    pread = os.pread

    def read(descriptor: int, count: int, at: int) -> bytes:
        data = pread(descriptor, count, at)
        if partial.exists():
            with partial.open("r+b") as file:
                file.seek(at)
                file.write(bytes(len(data)))
        return data

    partial = spool.directory / PARTIAL
    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", read)
        assert spool.answer({**QUESTION, "do": "seal"}, None)["is_here"]
    np.testing.assert_array_equal(np.load(spool.directory / f"{DIGEST}.npy"), ROWS)


def test_rows_of_another_shape_are_not_in_the_way(spool: Spool) -> None:
    write(spool, (0, ROWS))
    write(spool, (0, ROWS[:5]), rows=50)
    with pytest.raises(DatasetError, match="upload them again"):
        spool.answer({**QUESTION, "rows": 50, "do": "seal"}, None)
    assert spool.answer({**QUESTION, "do": "seal"}, None)["is_here"]
    assert os.listdir(spool.directory) == [f"{DIGEST}.npy"]


def test_two_may_bring_the_same_rows_at_once(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    write(spool, (0, ROWS))
    rename, seals = os.rename, iter([True])

    def give(source: Path, target: Path) -> None:
        if next(seals, False):
            assert spool.answer({**QUESTION, "do": "seal"}, None)["is_here"]
            write(spool, (0, ROWS[:10]))  # and a third one is not done
        rename(source, target)

    monkeypatch.setattr(os, "rename", give)
    assert spool.answer({**QUESTION, "do": "seal"}, None)["is_here"]
    assert os.listdir(spool.directory) == [f"{DIGEST}.npy"]
    write(spool, (10, ROWS[10:]))
    assert spool.answer({**QUESTION, "do": "seal"}, None)["is_here"]
    assert os.listdir(spool.directory) == [f"{DIGEST}.npy"]


def test_a_link_in_the_way_is_not_followed(spool: Spool, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine", encoding="utf-8")
    spool.directory.mkdir()
    (spool.directory / PARTIAL).symlink_to(victim)
    with pytest.raises(DatasetError):
        write(spool, (0, ROWS))
    assert victim.read_text(encoding="utf-8") == "mine"


HOSTILE: dict[str, tuple[dict[str, Any], Array | None, type[DemosError]]] = {
    "a path": ({"upload": "../../etc/passwd"}, ROWS, BadFrame),
    "no name": ({"upload": None}, ROWS, BadFrame),
    "a short name": ({"upload": DIGEST[:-1]}, ROWS, BadFrame),
    "no rows": ({"rows": 0}, ROWS, BadFrame),
    "as many rows as there are atoms": ({"rows": 2**80}, ROWS, BadFrame),
    "true rows": ({"rows": True}, ROWS, BadFrame),
    "columns in words": ({"columns": "3"}, ROWS, BadFrame),
    "nothing to be done": ({"do": None}, ROWS, BadFrame),
    "nothing to be written": ({}, None, InvalidInput),
    "other columns": ({}, ROWS[:, :2].copy(), InvalidInput),
    "another type": ({}, ROWS.astype("f4"), InvalidInput),
    "rows behind the last": ({"first": 1}, ROWS, InvalidInput),
    "rows before the first": ({"first": -1}, ROWS, InvalidInput),
    "no first row": ({"first": None}, ROWS, InvalidInput),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_upload_is_refused(spool: Spool, name: str) -> None:
    words, rows, error = HOSTILE[name]
    with pytest.raises(error):
        spool.answer({**QUESTION, "do": "write", "first": 0, **words}, rows)
    assert not spool.directory.exists() or os.listdir(spool.directory) == []


def test_what_nobody_uses_is_removed(spool: Spool) -> None:
    write(spool, (0, ROWS))
    spool.answer({**QUESTION, "do": "seal"}, None)
    (spool.directory / "letter.txt").write_text("not ours", encoding="utf-8")
    old = time.time() - KEEP_SECONDS - 10
    for name in os.listdir(spool.directory):
        os.utime(spool.directory / name, (old, old))
    spool.answer({**QUESTION, "do": "find"}, None)  # it is in use again
    spool.sweep()
    assert sorted(os.listdir(spool.directory)) == [f"{DIGEST}.npy", "letter.txt"]
    spool.sweep(time.time() + 2 * KEEP_SECONDS)
    assert os.listdir(spool.directory) == ["letter.txt"]
