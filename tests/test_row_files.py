"""Rows of numbers in files, read in parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from demos_hpc.errors import DatasetError, DemosError, InvalidInput
from demos_hpc.row_files import ArrayRows, Rows, digest_rows, find_data_file, is_row_file, open_rows

ROWS = np.random.default_rng(8).normal(size=(50, 3))
NAMES = ("a", "b", "c")


def write(path: Path, rows: Any = ROWS) -> Path:
    """The rows in a file of the kind that its ending says."""
    if path.suffix == ".npy":
        np.save(path, rows)
    elif path.suffix == ".csv":
        np.savetxt(path, rows, delimiter=",", fmt="%.17g", header=",".join(NAMES), comments="")
    elif path.suffix in (".txt", ".dat"):
        np.savetxt(path, rows, fmt="%.17g", header=" ".join(NAMES))
    else:
        with h5py.File(path, "w") as file:
            file.create_dataset("rows", data=rows, chunks=(7, 3), compression="gzip")
            file["n"] = 5
    return path


@pytest.fixture(params=["x.npy", "x.csv", "x.txt", "x.dat", "x.h5", "x.hdf5", "array"])
def rows(request: pytest.FixtureRequest, tmp_path: Path) -> Rows:
    if request.param == "array":
        return ArrayRows(ROWS, "x")
    return open_rows(str(write(tmp_path / request.param)), "x", NAMES)


def test_rows_in_parts(rows: Rows) -> None:
    assert rows.shape == (50, 3)
    for first, count in ((0, 50), (0, 7), (7, 20), (40, 10), (3, 4), (0, 0), (50, 0), (20, 1)):
        got = rows.read(first, count)
        assert (got.shape, got.dtype) == ((count, 3), np.dtype("f8"))
        assert got.flags.c_contiguous
        np.testing.assert_array_equal(got, ROWS[first : first + count])


def test_digests_are_of_the_numbers(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = digest_rows(ArrayRows(ROWS, "x"))
    monkeypatch.setattr("demos_hpc.row_files.READ_BYTES", 100)
    told: list[tuple[int, int]] = []
    seen: list[int] = []
    assert digest_rows(rows, lambda *news: told.append(news), lambda first, part: seen.append(first)) == whole
    assert told[-1] == (50, 50)
    assert seen[:3] == [0, 4, 8]
    assert digest_rows(ArrayRows(ROWS.reshape(75, 2), "x")) != whole
    assert digest_rows(ArrayRows(ROWS + 0.0, "x")) == whole


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i2", "u1", "?"])
def test_numbers_of_any_type(tmp_path: Path, dtype: str) -> None:
    array = (ROWS > 0).astype(dtype)
    for name in ("x.npy", "x.h5"):
        got = open_rows(str(write(tmp_path / name, array)), "x", NAMES).read(5, 10)
        np.testing.assert_array_equal(got, array[5:15].astype(float))


def test_plain_numbers_are_a_column_or_a_row(tmp_path: Path) -> None:
    path = str(write(tmp_path / "x.npy", ROWS[0]))
    assert open_rows(path, "x", NAMES).shape == (1, 3)
    assert open_rows(path, "x", ("a",)).shape == (3, 1)


def test_text_with_comments_and_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("# made by hand\n\n1,2\n# more\n3,4\n\n", encoding="utf-8")
    rows = open_rows(str(path), "x", NAMES)
    assert rows.shape == (2, 2)
    assert rows.read(1, 1).tolist() == [[3.0, 4.0]]
    path.write_text("\n1,2\n", encoding="utf-8")
    assert open_rows(str(path), "x", NAMES).shape == (1, 2)
    path.write_text("", encoding="utf-8")
    assert open_rows(str(path), "x", NAMES).read(0, 0).shape == (0, 0)


def test_fields_are_found_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["r"] = np.rec.fromarrays([ROWS[:, 1], ROWS[:, 0], ROWS[:, 2] > 0], names=["b", "a", "c"])
    got = open_rows(f"{path}:/r", "x", NAMES).read(0, 50)
    np.testing.assert_array_equal(got[:, :2], ROWS[:, :2])
    with pytest.raises(InvalidInput, match="has no field 'd'; it has b, a, c"):
        open_rows(str(path), "x", ("d",))


def test_what_names_a_file() -> None:
    assert [is_row_file(text) for text in ("a.npy", "a.csv", "a.h5", "a.h5:/b/c", "1,2;3", "a.json", "a=1")] == [
        *[True] * 4,
        *[False] * 3,
    ]
    assert find_data_file("d/a.h5:/b/c") == ("d/a.h5", "/b/c")
    assert find_data_file("a.hdf5") == ("a.hdf5", "")
    assert find_data_file("a.py:/b") is None
    assert find_data_file("a.h5:/") is None


def make_bad(path: Path) -> dict[str, tuple[type[DemosError], str]]:
    """Files that hold no rows of numbers, with what is said of each."""
    np.save(path / "text.npy", np.array(["a"]))
    np.save(path / "cube.npy", np.zeros((2, 2, 2)))
    (path / "empty.npy").write_bytes(b"")
    (path / "words.csv").write_text("1,2\na,b\n", encoding="utf-8")
    (path / "ragged.csv").write_text("1,2\n3\n", encoding="utf-8")
    (path / "bytes.csv").write_bytes(b"\xff\xfe\xfd")
    (path / "bad.h5").write_bytes(b"no")
    with h5py.File(path / "odd.h5", "w") as file:
        file["text"], file["cube"], file["scalar"] = ["a"], np.zeros((2, 2, 2)), 5.0
    with h5py.File(path / "scalar.h5", "w") as file:
        file["scalar"] = 5.0
    return {
        "no.npy": (InvalidInput, "x: .*no.npy cannot be read"),
        "no.csv": (InvalidInput, "no.csv cannot be read"),
        "no.h5": (InvalidInput, "x: there is no file"),
        "text.npy": (InvalidInput, "dtype <U1; it takes rows of numbers"),
        "cube.npy": (InvalidInput, r"has shape \(2, 2, 2\)"),
        "empty.npy": (InvalidInput, "cannot be read"),
        "words.csv": (InvalidInput, "rows 0 to 2"),
        "ragged.csv": (InvalidInput, "rows 0 to 2"),
        "bytes.csv": (InvalidInput, "cannot be read"),
        "bad.h5": (DatasetError, "cannot be opened"),
        "odd.h5": (InvalidInput, "has /cube, /text: write .*odd.h5:/cube"),
        "odd.h5:/text": (InvalidInput, "rows are numbers"),
        "odd.h5:/cube": (InvalidInput, r"has shape \(2, 2, 2\)"),
        "odd.h5:/scalar": (InvalidInput, r"has shape \(\)"),
        "odd.h5:/none": (DatasetError, "there is no /none"),
        "scalar.h5": (InvalidInput, "has no datasets with rows"),
    }


def test_files_without_rows_of_numbers(tmp_path: Path) -> None:
    def read(name: str) -> Any:
        rows = open_rows(str(tmp_path / name), "x", NAMES)
        return rows.read(0, rows.shape[0])

    for name, (error, message) in make_bad(tmp_path).items():
        with pytest.raises(error, match=message):
            read(name)


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "x.h5")
    rows = open_rows(str(path), "x", NAMES)
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(DatasetError, match=r"x.h5 was changed while it was read"):
        rows.read(0, 5)
