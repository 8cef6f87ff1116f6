"""`tables`, as `library` reads them: any numeric type becomes float64, and what is no table is said to be none."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from demos_hpc.errors import DatasetError, InvalidInput
from demos_hpc.library import LOOK_SECONDS, Library
from demos_hpc.spec import Dataset
from demos_hpc.tables import Table

Write = Callable[..., Library]
EVENTS = np.zeros(100, dtype=[("e", ">f4"), ("n", "u2"), ("name", "S5"), ("p", "f8", (3,)), ("w", "f8")])
EVENTS["e"], EVENTS["n"], EVENTS["w"] = np.arange(100) / 3, np.arange(100)[::-1], np.linspace(0, 1, 100)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def write(tmp_path: Path, clock: Clock) -> Iterator[Write]:
    """Writes arrays into a file, by name, and opens it."""
    libraries = []

    def write(**arrays: Any) -> Library:
        path = tmp_path / "data.h5"
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
        datasets = [Dataset(name, f"{path}:/{name}") for name in arrays]
        libraries.append(Library(datasets, clock=clock))
        return libraries[-1]

    yield write
    for library in libraries:
        library.close()


def identify(library: Library, name: str) -> str:
    return str(library.describe(name)["datasets"][0]["identity"])


@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", ">f2", "g", "<i8", ">i4", "u1", ">u8", "?"])
def test_any_number_becomes_float64(write: Write, dtype: str) -> None:
    values = np.random.default_rng(1).integers(0, 100, size=(50, 3)).astype(dtype)
    library = write(x=values)
    rows = library.read_rows("x", identify(library, "x"), 7, 40)
    assert rows.dtype == np.float64
    assert rows.flags.c_contiguous
    np.testing.assert_array_equal(rows, values[7:40].astype(np.float64))


def test_numbers_are_rounded_as_by_numpy(write: Write) -> None:
    values = np.array([[2**63 - 1, 2**53 + 1], [-(2**53) - 1, 1 - 2**63]])
    floats = np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324])
    library = write(x=values, y=floats, z=np.array([np.finfo("g").max, 0.1], dtype="g"))
    identity = identify(library, "x")
    np.testing.assert_array_equal(library.read_rows("x", identity, 0, 2), values.astype(np.float64))
    assert library.read_rows("y", identity, 0, 5).tobytes() == floats.tobytes()
    assert library.read_rows("z", identity, 0, 2)[:, 0].tolist() == [np.inf, 0.1]


def test_one_dimension_is_one_column(write: Write) -> None:
    library = write(x=np.arange(10))
    identity = identify(library, "x")
    assert library.measure("x", identity) == Table(10, 1, 0)
    assert library.read_rows("x", identity, 3, 6).tolist() == [[3.0], [4.0], [5.0]]
    assert library.read_rows("x", identity, 3, 3).shape == (0, 1)


def test_fields_in_the_order_of_the_observables(write: Write) -> None:
    library = write(x=EVENTS)
    identity = identify(library, "x")
    assert library.measure("x", identity, ("n", "e")) == Table(100, 2, 0)
    rows = library.read_rows("x", identity, 10, 100, ("n", "e", "n", "w"))
    np.testing.assert_array_equal(rows, np.column_stack([EVENTS[name] for name in ("n", "e", "n", "w")])[10:])


def test_chunks_are_told(write: Write, tmp_path: Path) -> None:
    library = write(x=np.zeros(3))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.create_dataset("y", data=np.arange(60.0).reshape(20, 3), chunks=(7, 2), compression="gzip")
    library = Library([Dataset("y", f"{tmp_path}/other.h5:/y")])
    identity = identify(library, "y")
    assert library.measure("y", identity) == Table(20, 3, 7)
    np.testing.assert_array_equal(library.read_rows("y", identity, 5, 17), np.arange(60.0).reshape(20, 3)[5:17])
    library.close()


@pytest.mark.parametrize(
    ("name", "columns", "words"),
    [
        ("text", (), "dataset 'text' is of type object; rows are numbers"),
        ("complex", (), "is of type complex128; rows are numbers"),
        ("scalar", (), r"has shape \(\); rows of numbers have \(N, d\) or \(N,\)"),
        ("cube", (), r"has shape \(2, 2, 2\)"),
        ("square", ("e",), r"has shape \(10, 10\); rows of numbers have \(N,\) where columns are fields"),
        ("plain", ("e",), "has no fields, such as 'e'"),
        ("events", (), "say which are the columns; e, n, name, p, w"),
        ("events", ("e", "q"), "has no field 'q'; it has e, n, name, p, w"),
        ("events", ("name",), "field 'name' is of type .S5; a column is numbers"),
        ("events", ("p",), "field 'p' is of type .* a column is numbers"),
        ("empty", (), "has shape None"),
        ("nothing", (), "there is no dataset 'nothing'; there are: text, complex"),
    ],
)
def test_what_is_no_table(write: Write, name: str, columns: tuple[str, ...], words: str) -> None:
    library = write(
        text=["a", "b"],
        complex=np.zeros((3, 2), complex),
        scalar=1.0,
        cube=np.zeros((2, 2, 2)),
        square=EVENTS.reshape(10, 10),
        plain=np.zeros((3, 2)),
        events=EVENTS,
        empty=h5py.Empty("f8"),
    )
    identity = identify(library, "plain")
    with pytest.raises(InvalidInput, match=words):
        library.measure(name, identity, columns)
    with pytest.raises(InvalidInput, match=words):
        library.read_rows(name, identity, 0, 1, columns)


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 2), (0, 11), (11, 11)])
def test_rows_that_are_not_there(write: Write, start: int, stop: int) -> None:
    library = write(x=np.zeros((10, 2)))
    with pytest.raises(InvalidInput, match=f"rows {start} to {stop} of dataset 'x', which has 10"):
        library.read_rows("x", identify(library, "x"), start, stop)


def test_a_file_that_was_replaced(write: Write, clock: Clock, tmp_path: Path) -> None:
    library = write(x=np.zeros((10, 2)))
    identity = identify(library, "x")
    library.check("x", identity)
    assert library.find_path("x") == f"{tmp_path}/data.h5:/x"
    with h5py.File(tmp_path / "new.h5", "w") as file:
        file["x"] = np.ones((10, 2))
    os.replace(tmp_path / "new.h5", tmp_path / "data.h5")
    clock.now += LOOK_SECONDS
    for ask in (library.check, library.measure, lambda name, identity: library.read_rows(name, identity, 0, 1)):
        with pytest.raises(DatasetError, match="was replaced or changed since dataset 'x' was opened; open it again"):
            ask("x", identity)
    assert library.read_rows("x", identify(library, "x"), 0, 1).tolist() == [[1.0, 1.0]]


def test_a_file_that_was_away_for_a_while(write: Write, clock: Clock, tmp_path: Path) -> None:
    library = write(x=np.ones((10, 2)))
    identity = identify(library, "x")
    os.rename(tmp_path / "data.h5", tmp_path / "elsewhere")
    library.check("x", identity)
    clock.now += LOOK_SECONDS
    for _ in range(2):
        with pytest.raises(DatasetError, match="cannot be opened: No such file"):
            library.check("x", identity)
    os.rename(tmp_path / "elsewhere", tmp_path / "data.h5")
    assert library.read_rows("x", identity, 0, 1).tolist() == [[1.0, 1.0]]
