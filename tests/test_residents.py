"""`residents`: the rows that were asked for, whoever holds them, whatever there is room for."""

from __future__ import annotations

import errno
import gc
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from demos_hpc import residents as module
from demos_hpc import segments
from demos_hpc.errors import DatasetError, InvalidInput
from demos_hpc.library import LOOK_SECONDS, Library
from demos_hpc.messages import FloatArray
from demos_hpc.reference import LAST, Reference
from demos_hpc.residents import (
    COUNT_SECONDS,
    FULL_SECONDS,
    LOOK_BYTES,
    RESERVE_BYTES,
    USED_SECONDS,
    Residents,
    choose_budget,
)
from demos_hpc.segments import NAME
from demos_hpc.spec import Dataset

N, D = 10_000, 2
#: Rows of a slab of the plain dataset: 16 of its rows are a slab of 256 bytes.
SLAB_BYTES = 1 << 14
RNG = np.random.default_rng(8)
X = RNG.normal(size=(N, D))
W = RNG.integers(0, 5, size=N).astype(np.float64)
EVENTS = np.zeros(N, dtype=[("w", "<i4"), ("b", ">f4"), ("a", "<f8")])
EVENTS["w"], EVENTS["a"], EVENTS["b"] = W, X[:, 0], X[:, 1].astype(np.float32)
ANY = 1 << 30


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class House:
    """A host: files, memory to be shared, and workers of one user."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = Clock()
        self.memory = root / "memory"
        self.spool = root / "spool"
        self.memory.mkdir()
        self.spool.mkdir()
        self.path = root / "data.h5"
        with h5py.File(self.path, "w") as file:
            for name in "xyz":
                file[name] = X if name == "x" else X + ord(name)
            file["w"] = W.astype(np.int16)
            file["events"] = EVENTS
            file["short"] = W[:-1]
            file.create_dataset("packed", data=X, chunks=(300, 1), compression="gzip")
        self._opened: list[Any] = []

    def open_library(self) -> Library:
        names = ["x", "y", "z", "w", "events", "short", "packed"]
        self._opened.append(Library([Dataset(name, f"{self.path}:/{name}") for name in names], clock=self.clock))
        library: Library = self._opened[-1]
        return library

    def open(self, budget: int = ANY, directory: Path | None = None) -> Residents:
        place = self.memory if directory is None else directory
        made = Residents(self.open_library(), self.spool, budget, place, self.clock)
        self._opened.append(made)
        return made

    def close(self) -> None:
        for thing in reversed(self._opened):
            thing.close()
            thing.close()

    def refer(self, name: str = "x", **values: Any) -> Reference:
        identity = self.open_library().describe(name)["datasets"][0]["identity"]
        return Reference(**{"dataset": name, "identity": identity, "rows": N, "width": D, **values})

    def upload(self, rows: FloatArray, digest: str = "5" * 64) -> None:
        np.save(self.spool / f"{digest}.npy", rows)

    @property
    def files(self) -> list[Path]:
        return [path for path in self.memory.iterdir() if NAME.fullmatch(path.name)]


def count_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def count_mappings() -> int:
    return Path("/proc/self/maps").read_text(encoding="ascii").count("demos-")


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """All that was opened is closed in the end, and nothing stays."""
    monkeypatch.setattr(segments, "SLAB_BYTES", SLAB_BYTES)
    house = House(tmp_path)
    gc.collect()  # what other tests have left
    before = count_descriptors(), count_mappings()
    yield house
    house.close()
    assert (count_descriptors(), count_mappings()) == before
    assert not house.files


def check(
    residents: Residents, reference: Reference, start: int, stop: int, step: int = 1, x: FloatArray = X
) -> tuple[FloatArray, FloatArray | None]:
    """The rows are those of ``x``, and nobody may write into them."""
    rows, weights = residents.rows(reference, start, stop, step)
    np.testing.assert_array_equal(rows, x[start:stop:step])
    assert rows.shape == (len(range(start, stop, step)), reference.width)
    for array in (rows, weights):
        if array is not None and array.size:
            assert array.flags.c_contiguous
            assert array.dtype == np.float64
            assert not array.flags.writeable
    assert (weights is not None) is bool(reference.weights)
    if weights is not None:
        np.testing.assert_array_equal(weights, W[start:stop:step])
    return rows, weights


def is_view(rows: FloatArray) -> bool:
    return not rows.flags.owndata


# ---- rows -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "private"])
@pytest.mark.parametrize("name", ["x", "packed"])
def test_rows_are_those_of_the_file(house: House, name: str, shared: bool) -> None:
    residents, reference = house.open(directory=None if shared else house.root / "none"), house.refer(name)
    for start, stop in ((0, 1), (5, 5), (1000, 3000), (N - 1, N), (0, N), (17, 9000)):
        rows, _ = check(residents, reference, start, stop)
        assert start == stop or is_view(rows)
    for start, stop, step in ((0, N, 2), (3, 9999, 7), (1, N, 5000), (0, N, N), (9, 10, 3), (4, 4, 2)):
        check(residents, reference, start, stop, step)
    assert len(house.files) == shared


def test_what_is_held_is_read_once(house: House) -> None:
    residents, reference = house.open(), house.refer()
    check(residents, reference, 0, 100)
    assert residents.statistics()["slabs_read"] == 1
    for _ in range(3):
        check(residents, reference, 0, N)
    said = residents.statistics()
    assert said["slabs_read"] == 10
    assert said["datasets"] == 1
    assert said["budget_bytes"] == ANY
    assert N * D * 8 <= said["held_bytes"] <= N * D * 8 + (1 << 16)
    assert said["slabs_not_kept"] == 0


def test_a_stride_reads_only_the_slabs_that_it_meets(house: House) -> None:
    residents, reference = house.open(), house.refer()
    for _ in range(2):
        check(residents, reference, 0, N, 4000)
        assert residents.statistics()["slabs_read"] == 3
    check(residents, reference, 0, N, 1)
    assert residents.statistics()["slabs_read"] == 10


def test_columns_and_weights_of_a_compound(house: House) -> None:
    residents, events = house.open(), house.refer("events", columns=("b", "a"))
    expected = np.column_stack([EVENTS["b"].astype(np.float64), EVENTS["a"]])
    check(residents, events, 3, N, x=expected)
    check(residents, replace(events, weights="w"), 3, N, x=expected)
    check(residents, replace(events, weights="w"), 3, N, 11, x=expected)
    beside = replace(events, columns=("a", "b"), weights="w", weights_identity=events.identity)
    check(residents, beside, 0, N, x=expected[:, ::-1])
    assert len(house.files) == 3


def test_weights_of_another_dataset(house: House) -> None:
    residents, plain = house.open(), house.refer()
    reference = replace(plain, weights="w", weights_identity=plain.identity)
    check(residents, reference, 0, N)
    check(residents, reference, 77, 9999, 3)
    rows, weights = check(residents, reference, 5, 5)
    assert len(rows) == 0
    assert weights is not None


def test_one_column(house: House) -> None:
    residents, reference = house.open(), house.refer("w", width=1)
    check(residents, reference, 2, N, x=W[:, np.newaxis])


def test_uploads(house: House) -> None:
    residents = house.open()
    house.upload(X)
    check(residents, Reference(upload="5" * 64, rows=N, width=D), 4, N)
    house.upload(np.column_stack([X, W]), "7" * 64)
    weighted = Reference(upload="7" * 64, rows=N, width=D, weights=LAST)
    check(residents, weighted, 4, N)
    check(residents, weighted, 4, N, 9)


@pytest.mark.parametrize(
    ("start", "stop", "step"), [(-1, 5, 1), (5, 4, 1), (0, N + 1, 1), (0, 5, 0), (0, 5, -1), (N + 1, N + 1, 1)]
)
def test_rows_that_are_not_there(house: House, start: int, stop: int, step: int) -> None:
    with pytest.raises(InvalidInput, match=f"rows {start}:{stop}:{step} of {N}"):
        house.open().rows(house.refer(), start, stop, step)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("x", {"rows": N - 1}, "has 10000 rows of 2 columns, not 9999 of 2"),
        ("x", {"width": 3}, "has 10000 rows of 2 columns, not 10000 of 3"),
        ("x", {"dataset": "nothing"}, "there is no dataset 'nothing'"),
        ("events", {"columns": ("a", "q")}, "no field 'q'"),
        ("events", {"columns": ("a", "b"), "weights": "q"}, "no field 'q'"),
        ("x", {"weights": "short", "weights_identity": "same"}, r"weights 'short' have shape \(9999, 1\)"),
        ("x", {"weights": "y", "weights_identity": "same"}, r"weights 'y' have shape \(10000, 2\)"),
    ],
)
def test_references_to_what_is_not_there(house: House, name: str, changes: dict[str, Any], words: str) -> None:
    residents, reference = house.open(), house.refer(name, **({"columns": ("a", "b")} if name == "events" else {}))
    if "weights_identity" in changes:
        changes = {**changes, "weights_identity": reference.identity}
    with pytest.raises(InvalidInput, match=words):
        residents.rows(replace(reference, **changes), 0, 10)
    assert residents.statistics()["datasets"] == 0
    check(residents, house.refer("x"), 0, 10)


def test_rows_beyond_2_to_the_32(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    path, n = house.root / "long.h5", 2**33
    with h5py.File(path, "w") as file:
        long = file.create_dataset("long", (n, 1), chunks=(4096, 1), dtype="<f4", fillvalue=-1.5)
        for first in (0, 2**32 - 5, n - 10):
            long[first : first + 10, 0] = np.arange(10) + first % 1000
    library = Library([Dataset("long", f"{path}:/long")])
    identity = library.describe("long")["datasets"][0]["identity"]
    reference = Reference(dataset="long", identity=identity, rows=n, width=1)
    residents = Residents(library, house.spool, ANY, house.memory)
    for first in (0, 2**32 - 5, n - 10):
        rows, _ = residents.rows(reference, first, first + 10)
        assert rows[:, 0].tolist() == [number + first % 1000 for number in range(10)]
    rows, _ = residents.rows(reference, 2**32 - 15, 2**32 + 15, 5)
    assert rows[:, 0].tolist() == [-1.5, -1.5, (2**32 - 5) % 1000, (2**32 - 5) % 1000 + 5, -1.5, -1.5]
    rows, _ = residents.rows(reference, 5, n, 2**32)
    assert rows[:, 0].tolist() == [5.0, -1.5]
    assert residents.statistics()["slabs_read"] == 4
    assert residents.statistics()["held_bytes"] < 20 << 20
    residents.close()
    library.close()


# ---- several workers --------------------------------------------------------------------------------------------


def test_what_one_has_read_the_others_have(house: House) -> None:
    reference = house.refer()
    one, two, three = house.open(), house.open(), house.open()
    check(one, reference, 0, 5000)
    check(two, reference, 3000, N)
    check(three, reference, 0, N)
    check(one, reference, 0, N)
    assert [w.statistics()["slabs_read"] for w in (one, two, three)] == [5, 5, 0]
    assert len(house.files) == 1
    one.close()
    two.close()
    check(house.open(), reference, 0, N)
    three.close()
    assert len(house.files) == 1


def test_workers_share_what_they_hold_if_they_are_at_one_place(house: House) -> None:
    one = house.open()
    private = house.open(directory=house.root / "none")
    check(one, house.refer(), 0, N)
    check(private, house.refer(), 0, N)
    assert private.statistics()["slabs_read"] == 10


def test_models_may_have_datasets_of_one_name_in_one_file(house: House) -> None:
    one, reference = house.open(), house.refer("x")
    library = Library([Dataset("x", f"{house.path}:/y")])
    other = Residents(library, house.spool, ANY, house.memory)
    check(one, reference, 0, N)
    check(other, reference, 0, N, x=X + ord("y"))
    other.close()
    library.close()


WORKER = """
    import os, sys
    from pathlib import Path
    from demos_hpc import segments
    from demos_hpc.library import Library
    from demos_hpc.reference import Reference
    from demos_hpc.residents import Residents
    from demos_hpc.spec import Dataset

    segments.SLAB_BYTES = {slab_bytes}
    library = Library([Dataset("x", "{path}:/x")])
    residents = Residents(library, Path("{spool}"), 1 << 30, Path("{memory}"))
    reference = Reference.from_bytes({reference!r})
    """
INTERRUPTED = """
    write = os.pwrite

    def wait(descriptor, data, at):
        if len(data) == {size}:
            print("now", flush=True)
            sys.stdin.read()
        return write(descriptor, data, at)

    os.pwrite = wait
    residents.rows(reference, {first}, {first} + 1)
    """
READING = """
    import hashlib
    digest = hashlib.sha256()
    n = reference.rows
    for first in range(0, n, 500):
        first = (first * {stride} + {offset}) % n
        residents.rows(reference, first, min(first + 700, n))
    print(hashlib.sha256(residents.rows(reference, 0, n)[0].tobytes()).hexdigest(), flush=True)
    sys.stdin.read()
    residents.close()
    """


def start(house: House, reference: Reference, script: str, **values: Any) -> subprocess.Popen[str]:
    text = textwrap.dedent(WORKER) + textwrap.dedent(script)
    values |= {"path": house.path, "spool": house.spool, "memory": house.memory, "slab_bytes": SLAB_BYTES}
    command = [sys.executable, "-W", "error", "-c", text.format(reference=reference.to_bytes(), **values)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("size", [SLAB_BYTES, 1], ids=["before its rows", "before it says so"])
def test_a_worker_killed_while_it_fills(house: House, size: int) -> None:
    reference, residents = house.refer(), house.open()
    check(residents, reference, 0, 1)
    with start(house, reference, INTERRUPTED, size=size, first=5000) as worker:
        assert read_line(worker) == "now"
        check(residents, reference, 3000, 4000)
        worker.send_signal(signal.SIGKILL)
    check(residents, reference, 0, N)
    assert residents.statistics()["slabs_read"] == 10


def test_what_a_killed_worker_leaves_is_removed(house: House) -> None:
    with start(house, house.refer(), INTERRUPTED, size=1, first=0) as worker:
        assert read_line(worker) == "now"
        house.open()
        assert len(house.files) == 1
        worker.send_signal(signal.SIGKILL)
    assert len(house.files) == 1
    house.open()
    assert not house.files


def test_workers_that_fill_at_the_same_time(house: House) -> None:
    reference, residents = house.refer(), house.open()
    orders = [(1, 0), (1, 5000), (3, 100)]
    workers = [start(house, reference, READING, stride=stride, offset=offset) for stride, offset in orders]
    check(residents, reference, 0, N)
    assert len({read_line(worker) for worker in workers}) == 1
    residents.close()
    assert len(house.files) == 1
    for worker in workers:
        with worker:
            assert worker.stdin is not None
            worker.stdin.close()
        assert worker.returncode == 0
    assert not house.files


# ---- files that change ------------------------------------------------------------------------------------------


def test_a_file_that_is_replaced(house: House) -> None:
    residents, old = house.open(), house.refer()
    check(residents, old, 0, N)
    with h5py.File(house.root / "new.h5", "w") as file:
        file["x"] = X + 1
    os.replace(house.root / "new.h5", house.path)
    house.clock.now += LOOK_SECONDS
    with pytest.raises(DatasetError, match="was replaced or changed since dataset 'x' was opened; open it again"):
        residents.rows(old, 0, N)
    new = house.refer()
    check(residents, new, 0, N, x=X + 1)
    assert len(house.files) == 2, "what is held of the old file is memory of its own"
    with pytest.raises(DatasetError):
        residents.rows(old, 0, 10)


def test_weights_whose_file_is_replaced(house: House) -> None:
    residents, plain = house.open(), house.refer()
    with pytest.raises(DatasetError, match="dataset 'w'"):
        residents.rows(replace(plain, weights="w", weights_identity="another"), 0, 10)


def test_a_file_that_changes_in_its_place(house: House) -> None:
    residents, reference = house.open(), house.refer()
    check(residents, reference, 0, 10)
    os.utime(house.path, ns=(0, 0))
    for _ in range(2):
        with pytest.raises(DatasetError, match="was replaced or changed since dataset 'x' was opened; open it again"):
            residents.rows(reference, 5000, 5010)


def test_an_upload_in_use_is_kept(house: House) -> None:
    """However long all of its rows have been in memory: the next worker will have to read them."""
    residents, reference = house.open(), Reference(upload="5" * 64, rows=N, width=D)
    house.upload(X)
    path = house.spool / f"{reference.upload}.npy"
    for _ in range(2):
        os.utime(path, (0, 0))
        check(residents, reference, 4, N)
        assert path.stat().st_mtime > 0
        os.utime(path, (0, 0))
        house.clock.now += USED_SECONDS / 2
        check(residents, reference, 4, N)
        assert path.stat().st_mtime == 0, "not for every call"
        house.clock.now += USED_SECONDS / 2


def test_an_upload_that_is_cut_or_gone(house: House) -> None:
    residents, reference = house.open(), Reference(upload="5" * 64, rows=N, width=D)
    with pytest.raises(DatasetError, match=r"not, or no longer, in .*: upload it again"):
        residents.rows(reference, 0, 10)
    house.upload(X)
    check(residents, reference, 0, 10)
    os.truncate(house.spool / f"{'5' * 64}.npy", 100_000)
    with pytest.raises(DatasetError, match="truncated: upload it again"):
        residents.rows(reference, 9000, N)
    check(residents, reference, 0, 10)
    house.upload(X)
    check(residents, reference, 0, N)


# ---- budget -----------------------------------------------------------------------------------------------------


def slabs(n: int) -> int:
    """A budget for so many slabs, and what files take beside."""
    return n * SLAB_BYTES + (1 << 14) - 1


def test_what_is_over_the_budget_is_read_each_time(house: House) -> None:
    residents, reference = house.open(slabs(4)), house.refer()
    rows, _ = check(residents, reference, 0, N)
    assert not is_view(rows)
    first = residents.statistics()
    assert first["slabs_read"] == 4
    assert first["slabs_not_kept"] == 6
    assert first["held_bytes"] <= slabs(4)
    assert is_view(check(residents, reference, 0, 4000)[0])
    check(residents, reference, 5, N, 3)
    check(residents, reference, 5, N, 4000)
    second = residents.statistics()
    assert second["slabs_read"] == 4
    assert second["slabs_not_kept"] == 6 + 6 + 1
    assert second["held_bytes"] == first["held_bytes"]


def test_weights_that_are_over_the_budget(house: House) -> None:
    residents, plain = house.open(slabs(4)), house.refer()
    check(residents, replace(plain, weights="w", weights_identity=plain.identity), 3, N, 2)
    house.upload(np.column_stack([X, W]))
    check(residents, Reference(upload="5" * 64, rows=N, width=D, weights=LAST), 3, N)
    assert residents.statistics()["slabs_not_kept"] > 0


def test_a_budget_for_nothing(house: House) -> None:
    residents = house.open(1)
    check(residents, house.refer(), 0, N)
    assert residents.statistics()["slabs_read"] == 0
    assert residents.statistics()["slabs_not_kept"] == 10


def test_what_was_not_used_for_longest_goes_first(house: House) -> None:
    residents = house.open(slabs(25))
    x, y, z = (house.refer(name) for name in "xyz")
    expected = {x: X, y: X + ord("y"), z: X + ord("z")}
    for reference in (x, y, x, z):
        check(residents, reference, 0, N, x=expected[reference])
    assert residents.statistics()["datasets"] == 2
    assert residents.statistics()["slabs_read"] == 30
    assert len(house.files) == 2
    check(residents, x, 0, N)
    assert residents.statistics()["slabs_read"] == 30
    check(residents, y, 0, N, x=expected[y])
    assert residents.statistics()["slabs_read"] == 40
    assert residents.statistics()["slabs_not_kept"] == 0


def test_what_one_lets_go_of_others_keep(house: House) -> None:
    one, two = house.open(slabs(15)), house.open(slabs(15))
    x, y = house.refer("x"), house.refer("y")
    for worker in (one, two):
        check(worker, x, 0, N)
    check(one, y, 0, N, x=X + ord("y"))
    assert one.statistics()["datasets"] == 1
    assert len(house.files) == 2
    check(two, x, 0, N)
    assert two.statistics()["slabs_read"] == 0
    check(two, y, 0, N, x=X + ord("y"))
    assert two.statistics()["datasets"] == 1, "what others have filled counts as well"
    assert len(house.files) == 1


def test_arrays_outlive_what_they_were_taken_from(house: House) -> None:
    residents = house.open(slabs(15))
    rows, _ = check(residents, house.refer("x"), 0, N)
    check(residents, house.refer("y"), 0, N, x=X + ord("y"))
    assert residents.statistics()["datasets"] == 1
    np.testing.assert_array_equal(rows, X)


def test_a_process_has_so_many_datasets_open(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_DATASETS", 3)
    residents = house.open()
    for nth in range(6):
        digest = f"{nth:064x}"
        house.upload(X + nth, digest)
        check(residents, Reference(upload=digest, rows=N, width=D), 0, 5, x=X + nth)
    assert residents.statistics()["datasets"] == 3


def test_a_budget_is_half_of_what_is_free(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_free_memory", lambda: 10**6)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert choose_budget(None) == 10**5
    assert choose_budget(house.memory) == 5 * 10**5
    monkeypatch.setattr(module, "LOOK_BYTES", 1)
    monkeypatch.setattr(module, "RESERVE_BYTES", 0)
    check(house.open(), house.refer(), 0, N)
    held = house.files[0].stat().st_blocks * 512
    assert held > 0
    assert choose_budget(house.memory) == (10**6 + held) // 2
    assert house.open(0).statistics()["budget_bytes"] == (10**6 + held) // 2
    monkeypatch.setattr(module, "find_free_memory", lambda: 1 << 60)
    status = os.statvfs(house.memory)
    assert choose_budget(house.memory) < status.f_blocks * status.f_frsize


def test_a_host_without_memory_is_left_in_peace(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """However large the budget is: a model that grows, or rows that others hold, are not in it."""
    residents, reference = house.open(), house.refer()
    free = [LOOK_BYTES + RESERVE_BYTES]
    monkeypatch.setattr(module, "find_free_memory", lambda: free[0])
    assert not is_view(check(residents, reference, 0, N)[0])
    assert residents.statistics()["held_bytes"] == 0
    free[0] *= 2
    assert not is_view(check(residents, reference, 0, N)[0]), "it is not looked at all the time"
    house.clock.now += FULL_SECONDS
    assert is_view(check(residents, reference, 0, N)[0])
    free[0] = 0
    assert is_view(check(residents, reference, 0, N)[0])
    house.clock.now += FULL_SECONDS
    residents._promised = 0
    check(residents, house.refer("y"), 0, N, x=X + ord("y"))
    assert residents.statistics()["held_bytes"] == 0, "what is held gives way"


def fill_up(monkeypatch: pytest.MonkeyPatch, room: int) -> list[int]:
    """A file system that has room for so many slabs only; the slabs that it was asked for."""
    asked: list[int] = []
    allocate = os.posix_fallocate

    def call(descriptor: int, at: int, size: int) -> None:
        asked.append(at)
        if len(asked) > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        allocate(descriptor, at, size)

    monkeypatch.setattr(os, "posix_fallocate", call)
    return asked


def test_a_full_file_system_is_asked_again_later(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    residents, reference = house.open(), house.refer()
    asked = fill_up(monkeypatch, 3)
    check(residents, reference, 0, N)
    check(residents, reference, 0, N)
    assert len(asked) == 4
    assert residents.statistics()["slabs_not_kept"] == 14
    house.clock.now += FULL_SECONDS
    check(residents, reference, 0, N)
    assert len(asked) == 5
    monkeypatch.undo()
    monkeypatch.setattr(segments, "SLAB_BYTES", SLAB_BYTES)
    house.clock.now += FULL_SECONDS
    assert is_view(check(residents, reference, 0, N)[0])
    assert residents.statistics()["slabs_read"] == 10


def test_a_full_file_system_is_emptied_of_what_is_not_used(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    residents = house.open()
    check(residents, house.refer("y"), 0, N, x=X + ord("y"))
    fill_up(monkeypatch, 3)
    check(residents, house.refer("x"), 0, N)
    assert residents.statistics()["datasets"] == 1
    assert residents.statistics()["slabs_not_kept"] == 7


def test_a_file_system_that_is_full_at_the_last_moment(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    residents, reference, write = house.open(), house.refer(), os.pwrite

    def fail(descriptor: int, data: Any, at: int) -> int:
        if len(data) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data, at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        check(residents, reference, 0, N)
        assert residents.statistics()["slabs_not_kept"] == 10
    assert is_view(check(residents, reference, 0, N)[0])


def test_without_any_memory_rows_are_read_each_time(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> int:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(os, "memfd_create", fail)
    residents, reference = house.open(directory=house.root / "none"), house.refer()
    for _ in range(2):
        check(residents, reference, 0, N)
    assert residents.statistics()["slabs_read"] == 0
    assert residents.statistics()["slabs_not_kept"] == 20
    assert residents.statistics()["held_bytes"] == 0


# ---- all at once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_whatever_happens_the_rows_are_right(house: House, seed: int) -> None:
    """Three workers with little room, which ask, let go and come back in any order."""
    rng = np.random.default_rng(seed)
    house.upload(np.column_stack([X, W]))
    plain = house.refer()
    arrays = {
        plain: X,
        house.refer("y"): X + ord("y"),
        house.refer("packed"): X,
        replace(plain, weights="w", weights_identity=plain.identity): X,
        Reference(upload="5" * 64, rows=N, width=D, weights=LAST): X,
    }
    references = list(arrays)
    is_tight = seed % 2 == 0
    budgets = [slabs(int(rng.integers(1, 9 if is_tight else 30))) for _ in range(3)]
    workers = [house.open(budget) for budget in budgets]
    kept: list[tuple[FloatArray, FloatArray]] = []
    for _ in range(150):
        nth = int(rng.integers(3))
        if rng.random() < 0.05:
            workers[nth].close()
        reference = references[rng.integers(len(references))]
        first, last = sorted(rng.integers(0, N + 1, size=2).tolist())
        step = int(rng.choice([1, 1, 1, 3, 2000]))
        rows, _ = check(workers[nth], reference, first, last, step, x=arrays[reference])
        said = workers[nth].statistics()
        assert said["held_bytes"] <= budgets[nth] or said["datasets"] == 1
        house.clock.now += COUNT_SECONDS
        if rng.random() < 0.1:
            kept.append((rows, arrays[reference][first:last:step]))
    for rows, expected in kept:
        np.testing.assert_array_equal(rows, expected)
    assert not is_tight or sum(worker.statistics()["slabs_not_kept"] for worker in workers) > 0
