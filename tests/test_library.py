"""The datasets of a model as a worker has them: files come, change and go, and nobody gets half of one."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from datafiles import PADDED, list_names, write_everything

from demos_hpc import Dataset, datasets, library
from demos_hpc.errors import BadFrame, DatasetError, InvalidInput, TooLarge
from demos_hpc.library import LOOK_SECONDS, SLAB_BYTES, Library, compute_checksum, count_slabs
from demos_hpc.testing import FakeClock

N = 50
X = np.arange(N * 3.0).reshape(N, 3)


class House:
    """A file, and a library that has it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "data.h5"
        self.write(X)
        self.clock = FakeClock()
        self.library = self.open()

    def write(self, x: Any, name: str = "data.h5") -> Path:
        """A file of the same datasets with other values."""
        with h5py.File(self.directory / name, "w") as file:
            file["x"] = x
            file.create_dataset("packed", data=x, chunks=(7, 2), compression="gzip")
            file["text"] = ["a", "bb", ""]
        return self.directory / name

    def open(self, names: tuple[str, ...] = ("x", "packed", "text"), **options: Any) -> Library:
        declared = [Dataset(name, f"{self.path}:/{name}") for name in names]
        return Library(declared, clock=self.clock, **options)

    def identify(self, name: str = "x", library: Library | None = None) -> str:
        (described,) = (library or self.library).describe(name)["datasets"]
        return str(described["identity"])

    def ask(self, identity: str, name: str = "x", **words: Any) -> dict[str, Any]:
        whole = {"axes": [[0, 1, N], [0, 1, 3]], "axis": 0, "kind": "rows", "row_bytes": 24}
        return {"dataset": name, "identity": identity, **whole, **words}

    def read(self, identity: str, name: str = "x") -> Any:
        (rows,) = self.library.read(self.ask(identity, name), [], 0, N)
        return rows.view(np.float64)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


BOTH = pytest.mark.parametrize("name", ["x", "packed"])


# ---- what there is ------------------------------------------------------------------------------------------


def test_a_dataset_is_described_with_what_was_declared(house: House) -> None:
    declared = Dataset("x", f"{house.path}:/x", {"a": "GeV"}, "events", "sha256:0", "CC-BY-4.0")
    (described,) = Library([declared]).describe("x")["datasets"]
    assert json.loads(json.dumps(described)) == {
        "name": "x", "path": f"{house.path}:/x", "units": {"a": "GeV"}, "description": "events", "checksum": "sha256:0",
        "license": "CC-BY-4.0", "shape": [N, 3], "dtype": "<f8", "kind": "rows", "chunks": None, "filters": [],
        "attrs": {}, "identity": house.identify(), "item_bytes": 8, "typical_bytes": 8,
        "is_compressed": False,
    }  # fmt: skip


def test_of_all_datasets_those_that_cannot_be_read_say_why(house: House) -> None:
    declared = [Dataset(name, f"{house.path}:/{name}") for name in ("x", "nothing")]
    found = Library([*declared, Dataset("away", "/nowhere/file.h5:/x")]).describe(None)["datasets"]
    assert [described["name"] for described in found] == ["x", "nothing", "away"]
    assert "problem" not in found[0]
    assert found[1]["problem"].startswith(f"dataset 'nothing': {house.path}: there is no /nothing; in its place")
    assert "dataset 'away': /nowhere/file.h5 cannot be opened: No such file" in found[2]["problem"]


@pytest.mark.parametrize("name", ["y", "", "/x", "../x", "x\0", None, 5, ["x"], {}, "x" * 5000])
def test_what_is_not_declared_is_not_there(house: House, name: Any) -> None:
    with pytest.raises(InvalidInput, match=r"there is no dataset .*; there are: x, packed, text") as caught:
        house.library.read(house.ask("", name), [], 0, N)
    assert len(str(caught.value)) < 300
    with pytest.raises(InvalidInput, match="there are: none"):
        Library([]).describe("x")


# ---- what is read -------------------------------------------------------------------------------------------


@BOTH
def test_rows_are_bytes(house: House, name: str) -> None:
    identity = house.identify(name)
    np.testing.assert_array_equal(house.read(identity, name), X)
    (some,) = house.library.read(house.ask(identity, name), [], 10, 5)
    np.testing.assert_array_equal(some.view(np.float64), X[10:15])
    columns = house.ask(identity, name, axis=1, row_bytes=8 * N)
    (some,) = house.library.read(columns, [], 1, 2)
    np.testing.assert_array_equal(some.view(np.float64), X.T[1:])


def test_memory_of_answers_is_used_again_and_nothing_of_the_last_one_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "padded.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("p", data=np.zeros(9, PADDED), chunks=(4,), compression="gzip")
    memory = np.full(10_000, 0xAA, np.uint8)

    def make_room(dtype: Any, shape: tuple[int, ...]) -> Any:
        return memory[: np.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)

    made = Library([Dataset("p", f"{path}:/p")], make_room=make_room)
    identity = made.describe("p")["datasets"][0]["identity"]
    question = {"dataset": "p", "identity": identity, "axes": [[0, 1, 9]], "axis": 0, "row_bytes": PADDED.itemsize}
    (rows,) = made.read(question, [], 0, 9)
    assert np.shares_memory(rows, memory)
    assert not rows.any()


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"row_bytes": 8}, InvalidInput, "50 rows of .*data.h5:/x have 1200 bytes, not 50 times 8"),
        ({"row_bytes": None}, InvalidInput, "not 50 times None"),
        ({"kind": "text"}, BadFrame, "a question for 'text' of .*data.h5:/x, which has rows"),
        ({"kind": ["rows"]}, BadFrame, "which has rows"),
        ({"axes": [[0, 1, N], [0, 1, 4]]}, InvalidInput, "axis 1: index 3 is out of range"),
        ({"axes": 5}, BadFrame, "a question for rows that is none"),
    ],
)
def test_a_question_is_held_against_the_dataset(
    house: House, words: dict[str, Any], error: type[Exception], message: str
) -> None:
    identity = house.identify()
    with pytest.raises(error, match=message):
        house.library.read(house.ask(identity, **words), [], 0, N)
    np.testing.assert_array_equal(house.read(identity), X)


def test_no_unit_has_more_than_a_worker_should_hold(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    identities = {name: house.identify(name) for name in ("x", "packed", "text")}
    monkeypatch.setattr(library, "MOST_UNIT_BYTES", 24 * N - 1)
    with pytest.raises(
        TooLarge, match=r"50 rows of .* in one unit, for which 1200 bytes are read; a worker reads 1199"
    ):
        house.read(identities["x"])
    monkeypatch.setattr(library, "MOST_UNIT_BYTES", 24 * N)
    house.read(identities["x"])
    monkeypatch.setattr(library, "MOST_READ_BYTES", 1000)
    house.read(identities["x"])  # which has no chunks
    with pytest.raises(TooLarge, match="a worker reads 1000 at a time: ask for fewer"):
        house.read(identities["packed"], "packed")
    monkeypatch.setattr(library, "MOST_UNIT_BYTES", 100)
    with pytest.raises(TooLarge, match=r"3 rows of .*text in one unit"):
        house.library.read(house.ask(identities["text"], "text", kind="text", axes=[[0, 1, 3]]), [], 0, 3)


def write_long(directory: Path) -> Path:
    """Strings and lists of different lengths, some of them long."""
    with h5py.File(directory / "long.h5", "w") as file:
        file["text"] = [[b"x" * (7919 * nth % 3000), b"y"] for nth in range(100)]
        lists = file.create_dataset("lists", (100,), h5py.vlen_dtype("f4"), chunks=(9,))
        for nth in range(100):
            lists[nth] = np.arange(7919 * nth % 3000)
        file.create_dataset("none", (0, 3), h5py.string_dtype())
        file["one"] = "é" * 500
    return directory / "long.h5"


def test_what_has_no_size_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_long(tmp_path)
    made = Library([Dataset(name, f"{path}:/{name}") for name in ("text", "lists", "none", "one")])
    described = {one["name"]: one for one in made.describe(None)["datasets"]}
    assert 200 < described["text"]["typical_bytes"] < 2000
    assert 3000 < described["lists"]["typical_bytes"] < 9000
    assert described["none"]["typical_bytes"] == 64
    assert described["one"]["typical_bytes"] == 1000
    identity = described["lists"]["identity"]
    question = {"dataset": "lists", "identity": identity, "axes": [[0, 1, 100]], "axis": 0, "kind": "lists"}
    monkeypatch.setattr(library, "MOST_UNIT_BYTES", 100_000)
    with pytest.raises(TooLarge, match=r"100 rows of .*lists in one unit, for which [0-9]{6} bytes are read"):
        made.read(question, [], 0, 100)
    lengths, contents = made.read(question, [], 0, 5)
    assert lengths.tolist() == [4 * (7919 * nth % 3000) for nth in range(5)]
    assert contents.nbytes == lengths.sum()


@pytest.mark.parametrize("name", ["text", "lists"])
def test_checksums_of_long_strings_and_lists_are_read_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = write_long(tmp_path)
    whole = compute_checksum(f"{path}:/{name}")
    most, read = 0, datasets.DataSet.read

    def note(self: datasets.DataSet, *arguments: Any) -> Any:
        nonlocal most
        found = read(self, *arguments)
        most = max(most, found.size)
        return found

    monkeypatch.setattr(datasets.DataSet, "read", note)
    monkeypatch.setattr(library, "LARGE_BYTES", 20_000)
    assert compute_checksum(f"{path}:/{name}") == whole
    assert 1 < most < 100


# ---- files that change --------------------------------------------------------------------------------------


@BOTH
def test_a_file_that_is_replaced_is_the_old_one_for_a_while_and_then_another(house: House, name: str) -> None:
    old = house.identify(name)
    os.replace(house.write(X + 1, "new.h5"), house.path)
    np.testing.assert_array_equal(house.read(old, name), X)
    house.clock.advance(LOOK_SECONDS)
    for _ in range(2):
        with pytest.raises(DatasetError, match=f"was replaced or changed since dataset '{name}' was opened; open it"):
            house.read(old, name)
    np.testing.assert_array_equal(house.read(house.identify(name), name), X + 1)


@BOTH
def test_a_file_that_is_changed_in_place_is_seen_at_once(house: House, name: str) -> None:
    old = house.identify(name)
    house.read(old, name)
    data = house.write(X + 1, "new.h5").read_bytes()
    with house.path.open("r+b") as file:
        file.write(data)
        file.truncate(len(data))
    for _ in range(2):
        with pytest.raises(DatasetError, match=rf"data\.h5 was replaced or changed since dataset '{name}' was opened"):
            house.read(old, name)
    np.testing.assert_array_equal(house.read(house.identify(name), name), X + 1)


@BOTH
def test_a_file_that_has_changed_can_be_opened_again_at_once(house: House, name: str) -> None:
    old = house.identify(name)
    house.write(X + 1)
    new = house.identify(name)
    assert new != old
    np.testing.assert_array_equal(house.read(new, name), X + 1)


def test_a_file_that_is_changed_while_it_is_read(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    identity, whole = house.identify(), datasets.read_slab

    def change(*arguments: Any) -> None:
        whole(*arguments)
        with h5py.File(house.path, "r+") as file:
            file["x"][N // 2 :] = -1.0

    monkeypatch.setattr(datasets, "read_slab", change)
    with pytest.raises(DatasetError, match="was changed while it was read; open it again"):
        house.read(identity)


@BOTH
def test_a_file_that_shrinks_while_it_is_read_has_changed_and_is_not_damaged(
    house: House, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity, whole = house.identify(name), datasets.read_slab

    def shrink(*arguments: Any) -> None:
        os.truncate(house.path, 1000)
        whole(*arguments)

    monkeypatch.setattr(datasets, "read_slab", shrink)
    with pytest.raises(DatasetError, match=f"dataset '{name}': .*data.h5 was changed while it was read; open it again"):
        house.read(identity, name)


@BOTH
def test_a_file_that_shrinks_is_truncated(house: House, name: str) -> None:
    identity = house.identify(name)
    os.truncate(house.path, 1000)
    for _ in range(2):
        with pytest.raises(
            DatasetError, match=f"dataset '{name}': .*data.h5 cannot be opened: .*copy or write it anew"
        ):
            house.read(identity, name)
    house.write(X)
    np.testing.assert_array_equal(house.read(house.identify(name), name), X)


def test_a_file_that_goes_and_comes_back(house: House) -> None:
    identity = house.identify()
    house.path.rename(house.directory / "away")
    np.testing.assert_array_equal(house.read(identity), X)
    house.clock.advance(LOOK_SECONDS)
    for _ in range(3):
        with pytest.raises(
            DatasetError, match=r"dataset 'x': .*data.h5 cannot be opened: No such file .*; put it there"
        ):
            house.read(identity)
    (house.directory / "away").rename(house.path)
    np.testing.assert_array_equal(house.read(identity), X)


def test_a_symbolic_link_may_be_led_elsewhere(house: House) -> None:
    house.path.rename(house.directory / "one.h5")
    house.path.symlink_to("one.h5")
    identity = house.identify()
    house.write(X + 1, "two.h5")
    house.path.unlink()
    house.path.symlink_to("two.h5")
    np.testing.assert_array_equal(house.read(identity), X)
    house.clock.advance(LOOK_SECONDS)
    with pytest.raises(DatasetError, match="was replaced or changed"):
        house.read(identity)
    np.testing.assert_array_equal(house.read(house.identify()), X + 1)


def test_a_file_that_may_not_be_read(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        patch.setattr("demos_hpc.sources.os.open", refuse)
        with pytest.raises(DatasetError, match=r"dataset 'x': .*Permission denied; it has to be readable by the user"):
            house.library.describe("x")
    np.testing.assert_array_equal(house.read(house.identify()), X)


def test_one_file_that_changes_leaves_others_as_they_are(house: House) -> None:
    other = house.write(X * 2, "other.h5")
    made = Library([Dataset("x", f"{house.path}:/packed"), Dataset("y", f"{other}:/packed")], clock=house.clock)
    identities = {name: house.identify(name, made) for name in "xy"}
    os.utime(house.path, ns=(1, 1))
    with pytest.raises(DatasetError, match="dataset 'x'"):
        made.read(house.ask(identities["x"], "x"), [], 0, N)
    (rows,) = made.read(house.ask(identities["y"], "y"), [], 0, N)
    np.testing.assert_array_equal(rows.view(np.float64), X * 2)


def test_no_file_is_kept_open_that_is_not_used(house: House) -> None:
    before = set(os.listdir("/proc/self/fd"))
    made = house.open()
    for nth in range(5):
        made.describe(None)
        os.replace(house.write(X + nth, "new.h5"), house.path)
        house.clock.advance(LOOK_SECONDS)
        house.path.rename(house.directory / "away")
        with pytest.raises(DatasetError):
            made.describe("x")
        (house.directory / "away").rename(house.path)
    made.describe(None)
    made.close()
    made.close()
    assert set(os.listdir("/proc/self/fd")) <= before


def test_few_files_are_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model may have more files than a process may have descriptors."""
    monkeypatch.setattr(library, "MOST_FILES", 3)
    declared = []
    for nth in range(7):
        with h5py.File(tmp_path / f"{nth}.h5", "w") as file:
            file["x"] = X + nth
        declared.append(Dataset(f"x{nth}", f"{tmp_path}/{nth}.h5:/x"))
    before = len(os.listdir("/proc/self/fd"))
    made = Library(declared)
    described = made.describe(None)["datasets"]
    for nth in (0, 6, 0, 3, 1):
        rows = made.read_rows(f"x{nth}", described[nth]["identity"], 0, N)
        np.testing.assert_array_equal(rows, X + nth)
        assert len(os.listdir("/proc/self/fd")) <= before + 3
    made.close()


def test_directories_of_the_operator(house: House, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with h5py.File(elsewhere / "main.h5", "w") as file:
        file["x"] = h5py.ExternalLink(str(house.path), "/x")
    declared = [Dataset("x", f"{elsewhere}/main.h5:/x")]
    with pytest.raises(DatasetError, match=r"dataset 'x': .*DEMOS_DATA_DIRECTORIES"):
        Library(declared).describe("x")
    assert Library(declared, [str(tmp_path)]).describe("x")["datasets"][0]["shape"] == [N, 3]


# ---- checksums ----------------------------------------------------------------------------------------------


def digest(made: Library, name: str, **words: Any) -> Any:
    (described,) = made.describe(name)["datasets"]
    n = count_slabs(described["shape"], described["item_bytes"])
    question = {"dataset": name, "identity": described["identity"], **words}
    return library.combine_digests(described["shape"], described["dtype"], made.digest(question, 0, n)[0])


def test_the_checksum_is_that_of_shape_type_and_bytes(house: House) -> None:
    head, slab = json.dumps([[N, 3], "<f8"]).encode(), hashlib.sha256(X.tobytes()).digest()
    wanted = "sha256:" + hashlib.sha256(head + slab).hexdigest()
    assert compute_checksum(f"{house.path}:/x") == wanted
    assert compute_checksum(f"{house.path}:/packed") == wanted, "however it is stored"
    assert digest(house.library, "x") == digest(house.library, "packed") == wanted


def test_workers_and_command_line_agree_on_everything(tmp_path: Path) -> None:
    path = write_everything(tmp_path)
    names = [name for name in list_names(path) if name != "empty"]
    made = Library([Dataset(name, f"{path}:/{name}") for name in names])
    found = {name: digest(made, name) for name in names}
    assert found == {name: compute_checksum(f"{path}:/{name}") for name in names}
    assert len(set(found.values())) == len(names)


@BOTH
def test_one_changed_byte_is_another_checksum(house: House, name: str) -> None:
    before = compute_checksum(f"{house.path}:/{name}")
    with h5py.File(house.path, "r+") as file:
        file[name][N - 1, 2] += 1e-9
    assert compute_checksum(f"{house.path}:/{name}") != before
    house.clock.advance(LOOK_SECONDS)
    assert digest(house.library, name) != before


@pytest.mark.parametrize("shape", [(1000, 100), (3, 100_000), (2, 30, 5000), (1, 1, 300_000)])
def test_slabs_are_read_in_pieces_where_one_row_is_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    values = np.random.default_rng(1).integers(0, 1 << 30, shape)
    with h5py.File(tmp_path / "wide.h5", "w") as file:
        file["x"] = values
    monkeypatch.setattr(library, "SLAB_BYTES", 100_000)
    whole = compute_checksum(f"{tmp_path}/wide.h5:/x")
    sizes, read_slab = [], datasets.read_slab

    def measure(handle: Any, axes: Any, dtype: Any, out: Any) -> None:
        sizes.append(out.nbytes)
        read_slab(handle, axes, dtype, out)

    monkeypatch.setattr(datasets, "read_slab", measure)
    monkeypatch.setattr(library, "LARGE_BYTES", 50_000)
    assert compute_checksum(f"{tmp_path}/wide.h5:/x") == whole
    assert sum(sizes) == values.nbytes
    assert max(sizes) <= 50_000


def test_progress_is_told(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "SLAB_BYTES", 240)
    told: list[tuple[int, int]] = []
    compute_checksum(f"{house.path}:/x", lambda done, total: told.append((done, total)))
    assert told == [(n, 5) for n in range(1, 6)]


def test_a_file_that_changes_while_its_checksum_is_computed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "SLAB_BYTES", 240)
    with pytest.raises(DatasetError, match=r"data\.h5 was changed while it was read"):
        compute_checksum(f"{house.path}:/x", lambda done, total: os.utime(house.path, ns=(done, done)))


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("all.h5:/empty", InvalidInput, "/empty is empty: it has a type, but no elements, and so no checksum"),
        ("all.h5:/nothing", DatasetError, "there is no /nothing"),
        ("all.h5", DatasetError, "/ is a group, not a dataset"),
        ("nowhere.h5:/x", DatasetError, "No such file"),
    ],
)
def test_what_has_no_checksum(tmp_path: Path, path: str, error: type[Exception], message: str) -> None:
    write_everything(tmp_path)
    with pytest.raises(error, match=message):
        compute_checksum(f"{tmp_path}/{path}")


def test_digests_beyond_the_dataset_are_refused(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    question = {"dataset": "x", "identity": house.identify()}
    assert house.library.digest(question, 0, 1)[0].shape == (1, 32)
    for first, count in ((0, 2), (1, 1), (2**63, 2**40)):
        with pytest.raises(InvalidInput, match=f"checksums {first} to {first + count} of .*, which has 1"):
            house.library.digest(question, first, count)
    monkeypatch.setattr(library, "MOST_UNIT_BYTES", SLAB_BYTES - 1)
    with pytest.raises(TooLarge, match="in one unit: ask for fewer"):
        house.library.digest(question, 0, 1)
