"""Datasets of every kind, read as h5py does, however they lie in the file and however much is read at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np
import pytest
from datafiles import COMPOUNDS, assert_same, list_names, write_everything
from hypothesis import given, settings
from hypothesis import strategies as st
from picking import keys

from demos_hpc import datasets, sources
from demos_hpc.chunk_cache import ChunkCache
from demos_hpc.datasets import DataSet
from demos_hpc.errors import DatasetError, InvalidInput
from demos_hpc.hdf5 import DataFile
from demos_hpc.runs import Run
from demos_hpc.selection import Span, read_selection

CHECK = settings(derandomize=True, deadline=None, max_examples=400)


class House:
    """A file with everything, opened by h5py and by us."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = list_names(path)
        self.theirs = h5py.File(path)
        self.ours = DataFile(str(path))
        self.whole = {name: self.theirs[name][()] for name in self.names}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(write_everything(tmp_path_factory.mktemp("data")))
    yield house
    house.theirs.close()
    house.ours.close()


@contextlib.contextmanager
def reading_little() -> Iterator[None]:
    """So that all ways are gone, also with little data."""
    with (
        mock.patch.multiple(datasets, BLOCK_BYTES=200, TILE_BYTES=64),
        mock.patch.multiple(sources, NEAR_BYTES=16, PAGE_BYTES=128),
    ):
        yield


def list_indices(axis: Any) -> Any:
    return axis.start + axis.step * np.arange(axis.count) if isinstance(axis, Span) else axis


@CHECK
@given(data=st.data())
def test_a_run_is_what_h5py_reads(data: st.DataObject, house: House) -> None:
    name = data.draw(st.sampled_from([name for name in house.names if house.ours.find(name).shape is not None]))
    whole = np.asarray(house.whole[name], house.theirs[name].dtype.base)
    shape = house.theirs[name].shape
    selection = read_selection(data.draw(keys(shape)), shape, None, name)
    fields = None
    if name in COMPOUNDS and data.draw(st.booleans()):
        fields = tuple(data.draw(st.lists(st.sampled_from(whole.dtype.names), min_size=1, unique=True)))
        some = np.empty(whole.shape, [(field, whole.dtype[field]) for field in fields])
        for field in fields:
            some[field] = whole[field]
        whole = some
    run = Run(selection.axes, 0, fields, selection.is_flat)
    if selection.is_flat:
        wanted = whole.reshape(-1, *whole.shape[len(shape) :])[selection.axes[0]]
    else:
        wanted = whole[np.ix_(*map(list_indices, selection.axes))] if selection.axes else whole
    cache = data.draw(st.sampled_from([ChunkCache(), ChunkCache(0)]))
    with reading_little() if data.draw(st.booleans()) else contextlib.nullcontext():
        dataset = DataFile(str(house.path)).find(name) if data.draw(st.booleans()) else house.ours.find(name)
        found = dataset.read(run, cache)
        assert_same(found, wanted)
        if dataset.kind == "rows":
            out = np.empty_like(found)
            assert dataset.read(run, cache, out) is out
            assert_same(out, wanted)
    size = dataset.row_dtype(fields).itemsize
    assert dataset.measure(run) == selection.size * size


# ---- what it is ---------------------------------------------------------------------------------------------


def test_every_dataset_is_described(house: House) -> None:
    for name in house.names:
        theirs, described = house.theirs[name], house.ours.find(name).describe()
        assert described["shape"] == (None if theirs.shape is None else list(theirs.shape))
        assert described["chunks"] == (None if theirs.chunks is None else list(theirs.chunks))
    assert house.ours.find("gzip").describe()["filters"] == ["shuffle", "gzip", "fletcher32"]
    assert house.ours.find("text").describe() == {
        "shape": [80], "dtype": "O", "kind": "text", "chunks": None, "filters": [], "attrs": {},
    }  # fmt: skip
    assert house.ours.find("ragged").describe()["dtype"] == "<i4"
    assert house.ours.find("vectors").describe()["dtype"] == ["<f4", [3]]
    attributes = house.ours.find("contiguous").describe()["attrs"]
    assert set(attributes) == {"unit", "n", "v", "names", "b", "nothing"}, "references are nobody else's"


def test_what_takes_time_is_compressed(house: House) -> None:
    compressed = {name for name in house.names if house.ours.find(name).is_compressed}
    assert compressed == {"gzip", "cube", "chunked_compound", "many"}


def test_bytes_are_read_past_hdf5_only_where_they_are_the_same_in_memory(house: House) -> None:
    """Twelve bits of sixteen are shifted, and spaces at the end are none, in the eyes of HDF5."""
    raw = {name for name in house.names if house.ours.find(name)._offset is not None}
    assert raw >= {"contiguous", "line", "big_endian", "half", "unsigned", "wide", "compound", "padded", "fixed"}
    assert not raw & {"twelve_bits", "space_padded", "never_written", "compact", "text", "chunked", "scalar"}


def test_files_that_begin_with_something_else(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "block.h5", "w", userblock_size=1024) as file:
        file["x"] = np.arange(1000.0)
    dataset = DataFile(str(tmp_path / "block.h5")).find("/x")
    assert dataset._offset is not None
    found = dataset.read(Run((np.array([5, 999]),), 0, None, False), ChunkCache())
    assert found.tolist() == [5.0, 999.0]


def test_gaps_of_elements_are_zero(house: House) -> None:
    """What stood in memory before is nobody's business."""
    for name in ("padded", "nested"):
        dataset = house.ours.find(name)
        for indices in (Span(0, 1, 3), np.array([0, 5])):
            found = dataset.read(Run((indices,), 0, None, False), ChunkCache())
            again = dataset.read(Run((indices,), 0, None, False), ChunkCache())
            assert found.tobytes() == again.tobytes()


# ---- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "run", "message"),
    [
        ("line", Run((Span(0, 1, 401),), 0, None, False), "axis 0: index 400 is out of range, the axis has 400"),
        ("line", Run((Span(0, 2**62, 3),), 0, None, False), "is out of range"),
        ("line", Run((np.array([5, 400]),), 0, None, False), "index 400 is out of range"),
        ("chunked", Run((np.array([60 * 9]),), 0, None, True), "index 540 is out of range, the axis has 540"),
        ("chunked", Run((Span(0, 1, 60),), 0, None, False), r"1 axes of a dataset of shape \(60, 9\)"),
        ("empty", Run((), 0, None, False), "is empty: it has a type, but no shape and no elements"),
        ("line", Run((Span(0, 1, 1),), 0, ("a",), False), "has no fields, such as 'a'"),
        ("compound", Run((Span(0, 1, 1),), 0, ("a", "x"), False), "no field 'x'; there are a, b, naïve name"),
    ],
)
def test_what_is_not_in_the_dataset(house: House, name: str, run: Run, message: str) -> None:
    with pytest.raises(InvalidInput, match=f"all.h5:/{name}.*{message}"):
        house.ours.find(name).read(run, ChunkCache())


def test_nothing_is_read_of_nothing(house: House) -> None:
    run = Run((Span(400, 1, 0),), 0, None, False)
    assert house.ours.find("line").read(run, ChunkCache()).shape == (0,)
    assert house.ours.find("line").measure(Run((np.zeros(0, np.int64),), 0, None, False)) == 0


# ---- chunks -------------------------------------------------------------------------------------------------


class Counting:
    """How much of a dataset is asked of HDF5."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reads: list[tuple[Span, ...]] = []
        whole = datasets.read_slab

        def read_slab(handle: Any, axes: tuple[Span, ...], dtype: Any, out: Any) -> None:
            self.reads.append(axes)
            whole(handle, axes, dtype, out)

        monkeypatch.setattr(datasets, "read_slab", read_slab)


def open_large(path: Path, **options: Any) -> DataSet:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.arange(20_000).reshape(1000, 20), **options)
    return DataFile(str(path)).find("/x")


def test_hot_chunks_are_inflated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, counting = open_large(tmp_path / "x.h5", chunks=(100, 20), compression="gzip"), Counting(monkeypatch)
    cache = ChunkCache()
    for row in (5, 17, 99, 5, 101):
        found = dataset.read(Run((np.array([row]), Span(0, 1, 20)), 0, None, False), cache)
        assert found[0, 0] == row * 20
    assert [axes[0].start for axes in counting.reads] == [0, 100]


def test_what_is_consecutive_is_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, counting = open_large(tmp_path / "x.h5", chunks=(10, 20)), Counting(monkeypatch)
    rows = np.concatenate([np.arange(5, 500), [600, 602]])
    found = dataset.read(Run((rows, Span(0, 1, 20)), 0, None, False), ChunkCache())
    np.testing.assert_array_equal(found[:, 0], rows * 20)
    assert counting.reads[0] == (Span(5, 1, 495), Span(0, 1, 20))
    assert len(counting.reads) == 2


def test_only_chunks_with_something_in_them_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, counting = open_large(tmp_path / "x.h5", chunks=(10, 5), compression="gzip"), Counting(monkeypatch)
    points = np.array([0, 1, 21, 19_999])
    found = dataset.read(Run((points,), 0, None, True), ChunkCache())
    assert found.tolist() == points.tolist()
    assert [axes[0].start for axes in counting.reads] == [0, 990]
    assert all(axes[0].count * axes[1].count == 50 for axes in counting.reads)


def test_little_is_read_at_a_time_to_pick_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of columns must not make a worker read all of them of all rows."""
    dataset, counting = open_large(tmp_path / "x.h5", chunks=(10, 20), compression="gzip"), Counting(monkeypatch)
    monkeypatch.setattr(datasets, "BLOCK_BYTES", 8 * 20 * 50)
    found = dataset.read(Run((Span(0, 1, 1000), np.array([1, 5])), 0, None, False), ChunkCache())
    np.testing.assert_array_equal(found, np.arange(20_000).reshape(1000, 20)[:, [1, 5]])
    assert max(axes[0].count * axes[1].count for axes in counting.reads) <= 20 * 50
    assert all(axes[0].start % 10 == 0 for axes in counting.reads)


@pytest.mark.parametrize(
    ("axes", "is_flat", "n_chunks"),
    [
        ((Span(0, 1, 1000), Span(0, 1, 20)), False, 400),
        ((Span(9, 1, 2), Span(4, 1, 2)), False, 4),
        ((Span(0, 100, 10), Span(0, 1, 1)), False, 10),
        ((np.array([0, 1, 999]), Span(0, 1, 20)), False, 8),
        ((np.array([0, 1, 21, 19_999]),), True, 2),
        ((Span(0, 1, 0), Span(0, 1, 20)), False, 0),
    ],
)
def test_chunks_that_would_be_read_are_counted(tmp_path: Path, axes: Any, is_flat: bool, n_chunks: int) -> None:
    dataset = open_large(tmp_path / "x.h5", chunks=(10, 5), compression="gzip")
    assert dataset.measure_chunks(Run(axes, 0, None, is_flat)) == n_chunks * 8 * 50
    assert open_large(tmp_path / "y.h5").measure_chunks(Run(axes, 0, None, is_flat)) == 0


# ---- filters ------------------------------------------------------------------------------------------------


def test_a_filter_that_is_missing_is_named_with_its_remedy(tmp_path: Path) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((10,))
    plist.set_filter(305, h5py.h5z.FLAG_OPTIONAL, (1,))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        space = h5py.h5s.create_simple((20,))
        made = h5py.h5d.create(file.id, b"x", h5py.h5t.IEEE_F64LE, space, plist)
        made.write_direct_chunk((0,), np.arange(10.0).tobytes())
    dataset = DataFile(str(tmp_path / "x.h5")).find("/x")
    assert dataset.filters == ["lzo"]
    with pytest.raises(DatasetError, match=r"x\.h5:/x cannot be read: its filter lzo is not installed .*hdf5plugin"):
        dataset.read(Run((Span(0, 1, 10),), 0, None, False), ChunkCache())


def test_filters_of_hdf5plugin_are_there(tmp_path: Path) -> None:
    hdf5plugin = pytest.importorskip("hdf5plugin")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=np.arange(100), chunks=(10,), **hdf5plugin.Zstd())
    dataset = DataFile(str(tmp_path / "x.h5")).find("/x")
    assert dataset.filters == ["zstd"]
    assert dataset.read(Run((Span(0, 7, 10),), 0, None, False), ChunkCache()).tolist() == list(range(0, 70, 7))
