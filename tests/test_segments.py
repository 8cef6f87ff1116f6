"""`segments`: memory that processes share, whoever fills it, dies, or stands in its place."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demos_hpc import segments
from demos_hpc.errors import InvalidInput
from demos_hpc.segments import NAME, Segment, choose_slab_rows, count_held_bytes, sweep

ROWS, WIDTH, SLAB = 1000, 3, 300
X = np.random.default_rng(3).normal(size=(ROWS, WIDTH))
W = np.arange(ROWS, dtype=np.float64)
Make = Callable[..., Segment]


def count_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def count_mappings() -> int:
    return Path("/proc/self/maps").read_text(encoding="ascii").count("demos-")


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes segments; all that was opened is closed in the end, and no file stays."""
    before = count_descriptors(), count_mappings()
    made = []

    def make(name: bytes = b"name", weighted: bool = False, directory: Path | None = tmp_path) -> Segment:
        made.append(Segment(name, ROWS, WIDTH, weighted, SLAB, directory))
        return made[-1]

    yield make
    for segment in made:
        segment.close()
        segment.close()
    assert (count_descriptors(), count_mappings()) == before
    assert not find_files(tmp_path)


def find_files(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if NAME.fullmatch(path.name)]


def put(segment: Segment, *slabs: int) -> None:
    for slab in slabs:
        first, stop = segment.rows_of(slab)
        assert segment.reserve(slab)
        assert segment.put(slab, X[first:stop], None if segment.weights is None else W[first:stop])


def fail(number: int) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "private"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_slabs_are_there_once_they_were_put(make: Make, tmp_path: Path, shared: bool, weighted: bool) -> None:
    segment = make(weighted=weighted, directory=tmp_path if shared else None)
    assert len(find_files(tmp_path)) == shared
    assert segment.has_memory
    assert [segment.rows_of(slab) for slab in (0, 3)] == [(0, 300), (900, 1000)]
    assert segment.count_bytes(3) == 100 * 8 * (WIDTH + weighted)
    assert not segment.is_ready(0, 0)
    put(segment, 1, 3)
    assert [segment.is_ready(slab, slab) for slab in range(4)] == [False, True, False, True]
    assert not segment.is_ready(1, 3)
    put(segment, 2)
    assert segment.is_ready(1, 3)
    np.testing.assert_array_equal(segment.x[300:], X[300:])
    assert (segment.weights is not None) is weighted
    if segment.weights is not None:
        np.testing.assert_array_equal(segment.weights[300:], W[300:])
    assert segment.held_bytes >= 700 * 8 * (WIDTH + weighted)
    assert len(find_files(tmp_path)) == shared


def test_nobody_writes_into_what_others_read(make: Make) -> None:
    segment = make(weighted=True)
    put(segment, 0)
    assert segment.weights is not None
    for array in (segment.x, segment.weights):
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True


def test_whoever_has_the_same_name_sees_the_same(make: Make, tmp_path: Path) -> None:
    one, other = make(weighted=True), make(weighted=True)
    (path,) = find_files(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.name.split("-")[1] == str(os.geteuid())
    put(one, 0, 2)
    assert other.is_ready(0, 0)
    put(other, 1, 0)
    assert one.is_ready(0, 2)
    assert not other.is_ready(0, 3)
    np.testing.assert_array_equal(other.x[:900], X[:900])
    np.testing.assert_array_equal(one.x[:900], X[:900])


def test_another_name_or_shape_is_other_memory(make: Make, tmp_path: Path) -> None:
    put(make(), 0)
    for other in (make(b"other"), make(weighted=True), Segment(b"name", ROWS, WIDTH, False, SLAB + 1, tmp_path)):
        assert not other.is_ready(0, 0)
        other.close()


def test_the_last_one_removes_the_file(make: Make, tmp_path: Path) -> None:
    one, other = make(), make()
    put(one, 0)
    one.close()
    assert not one.has_memory
    assert not one.is_ready(0, 0)
    assert len(find_files(tmp_path)) == 1
    assert other.is_ready(0, 0)
    third = make()
    assert third.is_ready(0, 0)
    other.close()
    third.close()
    assert not find_files(tmp_path)
    assert not make().is_ready(0, 0)


def test_arrays_that_were_given_away_stay(make: Make, tmp_path: Path) -> None:
    before = count_mappings()
    segment = make()
    put(segment, 0)
    view = segment.x[:300]
    segment.close()
    assert not find_files(tmp_path)
    np.testing.assert_array_equal(view, X[:300])
    assert count_mappings() == before + 1
    del view
    assert count_mappings() == before


def test_what_nobody_has_any_more_is_removed(tmp_path: Path) -> None:
    before = count_descriptors()
    segment = Segment(b"name", ROWS, WIDTH, False, SLAB, tmp_path)
    assert find_files(tmp_path)
    del segment
    gc.collect()
    assert not find_files(tmp_path)
    assert count_descriptors() == before


HOLD = """
import os, sys
from pathlib import Path
from demos_hpc.segments import Segment
segment = Segment(b"name", 10, 1, False, 5, Path(sys.argv[1]))
if not os.fork():
    sys.exit()  # a fork has nothing to remove
os.wait()
print(len(os.listdir(sys.argv[1])))
"""


def test_nothing_stays_where_python_ends(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", HOLD, str(tmp_path)], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["1"]
    assert not find_files(tmp_path)


def test_memory_of_nothing_is_refused() -> None:
    for rows, width, slab in ((0, 1, 1), (1, 0, 1), (1, 1, 0)):
        with pytest.raises(InvalidInput):
            Segment(b"", rows, width, False, slab, None)


@pytest.mark.parametrize(
    ("row_bytes", "chunk_rows", "rows"),
    [
        (8, 0, 524288),
        (24, 0, 174762),
        (8 << 20, 0, 1),
        (8, 1000, 524000),
        (8, 524288, 524288),
        (8, 600_000, 600_000),
        (8, 1 << 23, 1 << 23),
        (8, (1 << 23) + 1, 524288),
        (8 << 20, 5, 5),
        (8 << 20, 9, 1),
    ],
)
def test_slabs_have_about_4_mib_and_whole_chunks(row_bytes: int, chunk_rows: int, rows: int) -> None:
    assert choose_slab_rows(row_bytes, chunk_rows) == rows


# ---- no memory --------------------------------------------------------------------------------------------------


def test_a_full_file_system_is_no_error(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    segment = make()
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", fail(errno.ENOSPC))
        assert not segment.reserve(0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail(errno.ENOSPC))
        assert segment.reserve(0)
        assert not segment.put(0, X[:300], None)
    assert not segment.is_ready(0, 0)
    put(segment, 0)
    assert segment.is_ready(0, 0)


def test_only_the_last_write_makes_a_slab_ready(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever write fails, nobody takes the slab for complete."""
    segment, witness, write = make(weighted=True), make(weighted=True), os.pwrite
    for most in range(3):
        sizes: list[int] = []

        def count(descriptor: int, data: Any, at: int, sizes: list[int] = sizes, most: int = most) -> int:
            sizes.append(len(data))
            if len(sizes) > most:
                raise OSError(errno.ENOSPC, "no space")
            return write(descriptor, data, at)

        monkeypatch.setattr(os, "pwrite", count)
        assert not segment.put(0, X[:300], W[:300])
        assert sizes == [300 * 8 * WIDTH, 300 * 8, 1][: most + 1]
        assert not witness.is_ready(0, 0)


def test_writes_that_are_cut_short_go_on(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    segment, write = make(), os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, at: write(descriptor, data[:1001], at))
    put(segment, 2)
    np.testing.assert_array_equal(segment.x[600:900], X[600:900])


@pytest.mark.parametrize("call", ["memfd_create", "ftruncate"])
def test_without_any_memory_nothing_can_be_put(make: Make, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    monkeypatch.setattr(os, call, fail(errno.ENOMEM))
    segment = make(directory=None)
    assert not segment.has_memory
    assert not segment.reserve(0)
    assert not segment.is_ready(0, 0)
    assert segment.held_bytes == 0


def test_without_addresses_nothing_can_be_put(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments.mmap, "mmap", fail(errno.ENOMEM))
    segment = make()
    assert not segment.has_memory
    assert not find_files(tmp_path)


# ---- what stands in the place -----------------------------------------------------------------------------------


def squat_mode(path: Path) -> None:
    path.touch()
    path.chmod(0o644)


def squat_size(path: Path) -> None:
    path.write_bytes(b"x" * 17)
    path.chmod(0o600)


def squat_link(path: Path) -> None:
    target = path.with_name("target")
    target.touch(mode=0o600)
    path.symlink_to(target)


@pytest.mark.parametrize(
    "squat",
    [squat_mode, squat_size, squat_link, lambda path: path.symlink_to("none"), os.mkfifo, os.mkdir],
    ids=["mode", "size", "link", "dangling", "pipe", "directory"],
)
def test_what_else_has_the_name_is_left_alone(tmp_path: Path, make: Make, squat: Callable[[Path], None]) -> None:
    make().close()
    one = make()
    (path,) = find_files(tmp_path)
    one.close()
    squat(path)
    before = path.lstat()
    segment = make()
    put(segment, 0)
    np.testing.assert_array_equal(segment.x[:300], X[:300])
    segment.close()
    assert path.lstat() == before
    assert not (tmp_path / "none").exists()
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink()


def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    (tmp_path / "theirs").touch(mode=0o600)  # made by another user than we pretend to be
    put(make(), 0)
    (path,) = find_files(tmp_path)
    assert path.name.startswith("demos-12345-")
    assert path.stat().st_size == 0
    assert sweep(tmp_path) == 0
    path.unlink()


def test_a_file_that_is_removed_while_it_is_opened(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between open and lock somebody else may find the file unused, and remove it."""
    lock, times = fcntl.flock, 0

    def flock(descriptor: int, how: int) -> None:
        nonlocal times
        if how == fcntl.LOCK_SH | fcntl.LOCK_NB and times < 3:
            times += 1
            if times == 1:  # it has been removed
                assert sweep(tmp_path) == 1
            elif times == 2:  # it is being removed
                raise BlockingIOError
            else:  # and another has been made already
                (path,) = find_files(tmp_path)
                path.unlink()
                path.touch(mode=0o600)
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    one = make()
    assert times == 3
    put(one, 0)
    assert make().is_ready(0, 0)


def test_a_file_that_anybody_has_locked_stays(tmp_path: Path, make: Make) -> None:
    segment = make()
    (path,) = find_files(tmp_path)
    descriptor = os.open(path, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    segment.close()
    assert path.exists()
    assert sweep(tmp_path) == 0
    os.close(descriptor)
    assert sweep(tmp_path) == 1


def test_an_exclusive_lock_is_not_waited_for(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "_TRIES", 5)
    one = make()
    (path,) = find_files(tmp_path)
    one.close()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    segment = make()
    put(segment, 0)
    assert path.stat().st_size == 0
    os.close(descriptor)
    assert sweep(tmp_path) == 1


def test_a_file_that_was_cut_short_is_read_no_further(make: Make, tmp_path: Path) -> None:
    one = make()
    (path,) = find_files(tmp_path)
    put(one, 0)
    other = make()
    os.truncate(path, 100)
    assert not other.is_ready(0, 0)


def test_a_file_that_was_removed_under_our_hands(make: Make, tmp_path: Path) -> None:
    """As systemd does when a user logs out (RemoveIPC)."""
    one = make()
    put(one, 0)
    find_files(tmp_path)[0].unlink()
    other = make()
    assert not other.is_ready(0, 0)
    assert one.is_ready(0, 0)
    one.close()
    assert len(find_files(tmp_path)) == 1, "the file of this name is no longer the one that was closed"
    put(other, 1)
    assert make().is_ready(1, 1)


# ---- what is left -----------------------------------------------------------------------------------------------


def test_what_nobody_uses_is_removed(make: Make, tmp_path: Path) -> None:
    used = make()
    put(used, 0)
    (kept,) = find_files(tmp_path)
    uid = os.geteuid()
    left = [tmp_path / f"demos-{uid}-{digit * 32}" for digit in "abc"]
    left[0].write_bytes(b"x" * 10_000)
    left[1].touch(mode=0o644)
    left[2].symlink_to(kept)
    others = [tmp_path / f"demos-{uid + 1}-{'d' * 32}", tmp_path / "demos-other", tmp_path / f"demos-{uid}-{'e' * 31}"]
    for path in others:
        path.touch()
    os.mkfifo(tmp_path / f"demos-{uid}-{'f' * 32}")
    assert sweep(tmp_path) == 2
    assert [path.exists() for path in left] == [False, False, True]
    assert all(path.exists() for path in [kept, *others])
    assert used.is_ready(0, 0)
    left[2].unlink()
    os.unlink(tmp_path / f"demos-{uid}-{'f' * 32}")
    others[0].unlink()


def test_a_directory_that_is_none_has_nothing(tmp_path: Path) -> None:
    assert sweep(tmp_path / "none") == 0
    assert count_held_bytes(tmp_path / "none") == 0


def test_what_is_held_is_counted(make: Make, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(bytes(100_000))
    segment = make()
    assert count_held_bytes(tmp_path) == segment.held_bytes
    put(segment, 0, 1)
    assert count_held_bytes(tmp_path) == segment.held_bytes >= 600 * 8 * WIDTH
