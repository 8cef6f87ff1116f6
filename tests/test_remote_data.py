"""Datasets that are served are those that h5py would read: values, dtypes and types, however they are asked for."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np
import pytest
from datafiles import COMPOUNDS, assert_same, list_names, make_model, write_everything
from hypothesis import given, settings
from hypothesis import strategies as st
from launching import Launched, analyze, serve
from picking import keys, pick
from service import Service

import demos_hpc
from demos_hpc import Config, DatasetError, InvalidInput, NotOffered, RemoteModel, TooLarge
from demos_hpc import selection as cutting
from demos_hpc.errors import DeadlineExceeded, InternalError
from demos_hpc.library import compute_checksum
from demos_hpc.remote_data import RemoteDataset
from demos_hpc.testing import FakeClock, Gaussian

CHECK = settings(derandomize=True, deadline=None, max_examples=500)
X = np.arange(3000.0).reshape(1000, 3)


class House:
    """A file with everything: as h5py has it, and served by 1, 2 and 3 workers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = list_names(path)
        self.theirs = h5py.File(path)
        self.whole = {name: self.theirs[name][()] for name in self.names}
        models = {n: demos_hpc.local(make_model(path), workers=n, config=Config(timeout=20.0)) for n in (1, 2, 3)}
        self.ours = {
            (name, n, direct): models[n].dataset(name, direct=direct)
            for name in self.names
            for n in models
            for direct in (False, True)
        }


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(write_everything(tmp_path_factory.mktemp("data")))
    yield house
    house.theirs.close()


BOTH = pytest.mark.parametrize("direct", [False, True], ids=["served", "direct"])


def cut_small() -> Any:
    """Answers in many units, with little data."""
    return mock.patch.multiple(cutting, UNIT_BYTES=100, READ_BYTES=800, LARGE_BYTES=300)


def pick_from(whole: Any, key: Any, fields: tuple[str, ...], n_axes: int) -> Any:
    """What NumPy makes of it; elements may be arrays."""
    if fields:
        some = np.empty(whole.shape, [(field, whole.dtype[field]) for field in fields])
        for field in fields:
            some[field] = whole[field]
        whole = some[fields[0]] if len(fields) == 1 else some
    if isinstance(key, np.ndarray) and key.dtype == bool and key.ndim > 1:
        return whole[key]
    key = key if isinstance(key, tuple) else (key,)
    if whole.ndim > n_axes and not any(k is Ellipsis for k in key):
        key = (*key, ...)
    return pick(whole, (*key, *[slice(None)] * (whole.ndim - n_axes)))


# ---- as h5py ------------------------------------------------------------------------------------------------


@CHECK
@given(data=st.data())
def test_served_and_direct_are_what_h5py_reads(data: st.DataObject, house: House) -> None:
    name = data.draw(st.sampled_from(house.names))
    ours = house.ours[name, data.draw(st.sampled_from([1, 2, 3])), data.draw(st.booleans())]
    theirs = house.theirs[name]
    is_sorted = data.draw(st.booleans())  # h5py takes no other lists
    key = data.draw(keys(ours.shape, is_sorted=is_sorted)) if ours.shape else data.draw(st.sampled_from([(), ...]))
    fields: tuple[str, ...] = ()
    if name in COMPOUNDS and data.draw(st.booleans()):
        fields = tuple(data.draw(st.lists(st.sampled_from(theirs.dtype.names), min_size=1, unique=True)))
    whole_key = (*fields, *(key if isinstance(key, tuple) else (key,))) if fields else key
    with cut_small() if data.draw(st.booleans()) else contextlib.nullcontext():
        found = ours[whole_key]
    if not ours.shape:
        assert_same(found, theirs[key])
        return
    wanted = pick_from(house.whole[name], key, fields, len(ours.shape))
    assert_same(found, wanted, is_type_checked=bool(np.shape(wanted)))
    if is_sorted:
        with contextlib.suppress(TypeError):  # some masks are too much for it
            assert_same(found, theirs[whole_key])


def test_what_is_said_of_a_dataset_is_what_h5py_says(house: House) -> None:
    for name in house.names:
        for direct in (False, True):
            ours, theirs = house.ours[name, 2, direct], house.theirs[name]
            assert (ours.shape, ours.dtype, ours.chunks) == (theirs.shape, theirs.dtype, theirs.chunks)
            assert (ours.size, ours.ndim) == (theirs.size, theirs.ndim)
            assert ours.nbytes == (theirs.nbytes if theirs.shape is not None else 0)
            assert bool(ours)
            if ours.shape:
                assert len(ours) == len(theirs)
            else:
                with pytest.raises(TypeError, match="has no first axis"):
                    len(ours)
    assert house.ours["gzip", 2, False].filters == ["shuffle", "gzip", "fletcher32"]


def test_attributes_are_those_that_h5py_reads(house: House) -> None:
    theirs, found = house.theirs["contiguous"].attrs, house.ours["contiguous", 1, False].attrs
    assert set(found) == set(theirs) - {"reference"}
    for name, value in found.items():
        assert_same(value, theirs[name])


def test_an_array_is_made_of_it(house: House) -> None:
    ours, theirs = house.ours["gzip", 2, False], house.theirs["gzip"]
    np.testing.assert_array_equal(np.asarray(ours), theirs[()])
    assert np.asarray(ours, "f4").dtype == np.float32
    assert np.asarray(house.ours["scalar", 1, False]) == 3.5
    with pytest.raises(TypeError, match="dataset 'empty' is empty"):
        np.asarray(house.ours["empty", 1, False])


def test_rows_come_one_after_the_other(house: House) -> None:
    for name in ("line", "gzip", "text", "no_rows"):
        for ours, theirs in zip(house.ours[name, 2, False], house.theirs[name], strict=True):
            assert_same(ours, theirs)


@BOTH
def test_a_type_without_elements_is_empty_as_in_h5py(house: House, direct: bool) -> None:
    ours = house.ours["empty", 1, direct]
    for key in ((), ..., (...,)):
        assert ours[key] == h5py.Empty("f4")
    assert ours.read([(), ...]) == [h5py.Empty("f4")] * 2
    for key in (0, slice(3), [0], np.array([True])):
        with pytest.raises(InvalidInput, match="dataset 'empty' is empty, and has no part"):
            ours[key]
    with pytest.raises(InvalidInput, match="has nothing to read"):
        ours.read_direct(np.zeros(3))


@BOTH
def test_strings_may_be_read_as_such(house: House, direct: bool) -> None:
    for name in ("text", "texts", "fixed", "text_chunked"):
        ours, theirs = house.ours[name, 2, direct].asstr(), house.theirs[name].asstr()
        assert_same(ours[()], theirs[()])
        assert_same(ours[1], theirs[1])
        assert len(ours) == len(theirs)
    assert house.ours["scalar_text", 1, direct].asstr()[()] == "héllo"
    assert house.ours["scalar_fixed", 1, direct].asstr()[()] == "abc"
    ascii_ = house.ours["text", 1, direct].asstr("ascii", "replace")
    assert ascii_[0] == "h��llo"
    with pytest.raises(UnicodeDecodeError):
        house.ours["text", 1, direct].asstr("ascii")[0]
    with pytest.raises(InvalidInput, match="dataset 'line' has int32, no strings"):
        house.ours["line", 1, direct].asstr()


# ---- where it goes ------------------------------------------------------------------------------------------


@CHECK
@given(data=st.data())
def test_an_answer_may_come_into_an_array_of_the_callers(data: st.DataObject, house: House) -> None:
    name = data.draw(st.sampled_from([n for n in house.names if house.theirs[n].shape and n != "ragged"]))
    ours = house.ours[name, data.draw(st.sampled_from([1, 2, 3])), data.draw(st.booleans())]
    key = data.draw(keys(ours.shape))
    wanted = np.asarray(pick_from(house.whole[name], key, (), len(ours.shape)), house.whole[name].dtype)
    out = np.empty(wanted.shape, wanted.dtype)
    with cut_small() if data.draw(st.booleans()) else contextlib.nullcontext():
        assert ours.submit(key, out=out).result() is out
    assert_same(out, wanted)


@BOTH
def test_an_array_that_does_not_fit_says_what_would(house: House, direct: bool) -> None:
    ours = house.ours["gzip", 2, direct]
    read_only = np.empty((5, 11), np.int64)
    read_only.flags.writeable = False
    wrong: list[Any] = [
        np.empty((5, 10), np.int64), np.empty((5, 11), np.int32), np.empty((11, 5), np.int64).T, read_only, [1], None,
    ]  # fmt: skip
    for out in wrong[:-1]:
        with pytest.raises(InvalidInput, match=r"gzip needs a C-contiguous, writable int64 of shape \(5, 11\)"):
            ours.submit(slice(5), out=out)


@BOTH
def test_reading_into_part_of_an_array(house: House, direct: bool) -> None:
    ours, theirs = house.ours["gzip", 2, direct], house.theirs["gzip"]
    cases: list[tuple[tuple[int, ...], Any, Any, Any]] = [
        ((120, 11), None, None, np.int64),
        ((120, 11), (), (), np.int64),
        ((20, 11), np.s_[10:15], np.s_[3:8], np.int64),
        ((20, 30), np.s_[10:15], np.s_[3:8, 2:13], np.int64),
        ((20, 30), np.s_[10:15], np.s_[3:8, 2:13], np.float32),
        ((20, 11), np.s_[7], np.s_[3], np.int64),
        ((20, 11), np.s_[7, 3], np.s_[3, 5], np.int64),
        ((20, 11), np.s_[7:8], np.s_[3], np.int64),
    ]
    for shape, source, dest, dtype in cases:
        found, wanted = np.full(shape, -1, dtype), np.full(shape, -1, dtype)
        ours.read_direct(found, source, dest)
        theirs.read_direct(wanted, source if source != () else None, dest if dest != () else None)
        np.testing.assert_array_equal(found, wanted, err_msg=f"{source} {dest}")
    whole = np.zeros((120, 11), np.int64)
    ours.read_direct(whole)
    np.testing.assert_array_equal(whole, theirs[()])
    with pytest.raises(InvalidInput, match="dest_sel has to be of slices and numbers"):
        ours.read_direct(whole, np.s_[:2], [0, 5])
    with pytest.raises(InvalidInput, match=r"gzip of shape \(2, 11\) into shape \(3, 11\)"):
        ours.read_direct(whole, np.s_[:2], np.s_[:3])
    with pytest.raises(InvalidInput, match="dest is list"):
        ours.read_direct([0], np.s_[:2])


# ---- several at once ----------------------------------------------------------------------------------------


@BOTH
def test_several_selections_are_asked_for_at_once(house: House, direct: bool) -> None:
    for name in ("gzip", "compound", "text", "vectors", "padded"):
        ours, whole = house.ours[name, 2, direct], house.whole[name]
        selections: list[Any] = [np.s_[1:3], [4, 2, 2], np.s_[5:5], np.s_[::3]]
        with cut_small():
            found = ours.read(selections)
        for one, key in zip(found, selections, strict=True):
            assert_same(one, pick_from(whole, key, (), len(ours.shape)))
        mixed: list[Any] = [np.s_[1:3], 4, ...]
        for one, key in zip(ours.read(mixed), mixed, strict=True):
            assert_same(one, pick_from(whole, key, (), len(ours.shape)), is_type_checked=bool(np.shape(one)))
    assert ours.read([]) == []


def count_requests(model: RemoteModel) -> int:
    return int(model.metadata()["statistics"]["requests"])


def test_rows_of_several_selections_are_one_request(house: House) -> None:
    model = demos_hpc.local(make_model(house.path, ["gzip"]), workers=2, config=Config())
    ours = model.dataset("gzip", direct=False)
    before = count_requests(model)
    ours.read([np.s_[1:3], [4, 2], np.s_[100:]])
    assert count_requests(model) == before + 1
    ours.read([np.s_[1:3], np.s_[:, 2]])
    assert count_requests(model) == before + 3


@BOTH
@pytest.mark.parametrize("rows", [1, 7, 60, 119, 120, 1000, np.int64(50), None])
def test_blocks_are_the_dataset_one_after_the_other(house: House, direct: bool, rows: Any) -> None:
    for name in ("gzip", "cube", "text", "ragged", "no_rows"):
        ours = house.ours[name, 3, direct]
        blocks = list(ours.blocks(rows))
        assert all(len(block) == (rows or len(ours)) for block in blocks[:-1])
        whole = np.concatenate(blocks) if blocks else house.whole[name]
        assert_same(whole, house.whole[name])


def test_blocks_have_whole_chunks_and_fit_into_memory(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = house.ours["gzip", 2, False]  # 88 bytes a row, 13 rows a chunk
    for n_bytes, rows in ((88 * 30, 26), (88 * 13, 13), (88 * 12, 13), (1, 13)):
        monkeypatch.setattr("demos_hpc.remote_data.BLOCK_BYTES", n_bytes)
        assert len(next(ours.blocks())) == rows
    monkeypatch.setattr("demos_hpc.remote_data.LARGE_BLOCK", 88 * 5)
    assert len(next(ours.blocks())) == 5


def test_long_strings_come_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no size is cut by the size that it is likely to have."""
    monkeypatch.setattr("demos_hpc.selection.UNIT_BYTES", 1 << 20)
    wanted = [b"x" * 40_000 for _ in range(100)]
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = wanted
    service = Service(make_model(tmp_path / "x.h5", ["x"]))
    ours = service.connect().dataset("x", direct=False)
    done: list[int] = []
    found = ours.submit(..., progress=lambda n, total: done.append(n)).result()
    assert found.tolist() == wanted
    assert done == [26, 52, 78, 100]


@pytest.mark.parametrize("rows", [0, -1, 1.5, True, "5"])
def test_blocks_have_rows(house: House, rows: Any) -> None:
    with pytest.raises(InvalidInput, match="a block has 1 or more"):
        house.ours["gzip", 1, False].blocks(rows)


def test_blocks_that_nobody_wants_any_more_are_not_waited_for(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = X
    service = Service(make_model(tmp_path / "x.h5", ["x"]))
    ours = service.connect().dataset("x", direct=False)
    for nth, block in enumerate(ours.blocks(10)):
        np.testing.assert_array_equal(block, X[nth * 10 : nth * 10 + 10])
        if nth == 3:
            break
    for _ in range(5):
        service.turn()
    assert service.dispatcher.scheduler.is_idle
    np.testing.assert_array_equal(ours[5], X[5])


@BOTH
def test_progress_is_told(house: House, direct: bool) -> None:
    told: list[tuple[int, int]] = []
    with cut_small():
        house.ours["gzip", 2, direct].submit((), progress=lambda done, total: told.append((done, total))).result()
        house.ours["gzip", 2, direct].read([[1, 2], [3]], progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1]


# ---- checksums ----------------------------------------------------------------------------------------------


def test_the_checksum_is_held_against_the_one_that_was_declared(house: House) -> None:
    wanted = compute_checksum(f"{house.path}:/gzip")
    for checksum in ("", wanted):
        model = demos_hpc.local(make_model(house.path, ["gzip"], checksum=checksum), workers=2, config=Config())
        assert model.dataset("gzip").verify() == wanted
    wrong = "sha256:" + "0" * 64
    model = demos_hpc.local(make_model(house.path, ["gzip"], checksum=wrong), config=Config())
    with pytest.raises(DatasetError, match=f"all.h5:/gzip has checksum {wanted}, but was declared to have {wrong}"):
        model.dataset("gzip").verify()


def test_every_kind_has_a_checksum(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in house.names:
        ours = house.ours[name, 3, False]
        if ours.shape is None:
            with pytest.raises(InvalidInput, match="is empty, and has no checksum"):
                ours.verify()
        else:
            assert ours.verify() == compute_checksum(f"{house.path}:/{name}")
    monkeypatch.setattr("demos_hpc.library.SLAB_BYTES", 200)
    told: list[tuple[int, int]] = []
    found = house.ours["gzip", 3, False].verify(lambda done, total: told.append((done, total)))
    assert found == compute_checksum(f"{house.path}:/gzip")
    assert told[-1] == (60, 60)


# ---- directly, or not ---------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"] = X
        file.create_dataset("packed", data=X, chunks=(100, 3), compression="gzip")
    return tmp_path / "data.h5"


def open_service(path: Path, workers: int = 2, **settings: Any) -> RemoteModel:
    return demos_hpc.local(make_model(path, ["x", "packed"]), workers=workers, config=Config(timeout=20.0, **settings))


def test_a_file_is_read_here_where_that_is_no_slower(path: Path) -> None:
    one, two = open_service(path, 1), open_service(path, 2)
    assert one.dataset("x").is_direct
    assert two.dataset("x").is_direct
    assert one.dataset("packed").is_direct
    assert not two.dataset("packed").is_direct, "two inflate faster than one"
    assert two.dataset("packed", direct=True).is_direct
    assert not two.dataset("x", direct=False).is_direct
    assert "served" in repr(two.dataset("x", direct=False))
    assert "read directly" in repr(two.dataset("x"))


def test_a_file_that_is_not_here_is_read_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_service(path)
    model.dataset("x")  # so that the workers have it

    def refuse(*_: Any) -> Any:
        raise DatasetError("data.h5 cannot be opened: No such file or directory")

    monkeypatch.setattr("demos_hpc.direct_data.DataFile", refuse)
    ours = model.dataset("x")
    assert not ours.is_direct
    np.testing.assert_array_equal(ours[()], X)
    with pytest.raises(DatasetError, match=r"dataset 'x' cannot be read directly: data\.h5 cannot be opened"):
        model.dataset("x", direct=True)


def test_a_file_that_is_another_one_here_is_read_there(path: Path) -> None:
    model = open_service(path)
    described = {**model.dataset("x", direct=False).described, "identity": "0" * 16}
    arguments: Any = (model._connection, model.submit.handle, described)
    assert not RemoteDataset(*arguments, max_bytes=1 << 30, workers=1).is_direct
    with pytest.raises(DatasetError, match="is not the file here that it is at the server: read it without direct"):
        RemoteDataset(*arguments, max_bytes=1 << 30, workers=1, direct=True)


def test_closed_it_is_read_there(path: Path) -> None:
    ours = open_service(path).dataset("x")
    ours.close()
    ours.close()
    assert not ours.is_direct
    np.testing.assert_array_equal(ours[3:5], X[3:5])


# ---- what goes wrong ----------------------------------------------------------------------------------------


def test_what_is_wrong_is_said_before_anything_travels(path: Path) -> None:
    model = open_service(path)
    ours = model.dataset("x", direct=False)
    before = count_requests(model)
    for key, message in (
        (1000, "x, axis 0: index 1000 is out of range"),
        ((0, [3]), "x, axis 1: index 3 is out of range"),
        ("a", "field 'a' of a dataset that has no fields"),
        (slice(None, None, -1), "step -1"),
    ):
        with pytest.raises(InvalidInput, match=message):
            ours.submit(key)
    assert ours[5:5].shape == (0, 3)
    assert count_requests(model) == before


def test_what_is_no_dataset_is_said_with_those_that_are(path: Path) -> None:
    with pytest.raises(InvalidInput, match="model 'data' has no dataset 'y'; it has 'x', 'packed'"):
        open_service(path).dataset("y")
    with pytest.raises(NotOffered, match="model 'gaussian' has no datasets"):
        demos_hpc.local(Gaussian()).dataset("x")


def test_more_than_a_server_sends_is_refused_here(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = open_service(path, max_request_bytes=5000).dataset("x", direct=False)
    with pytest.raises(TooLarge, match=r"x: 1000 rows of 24 bytes; this server sends 5000 at a time: .* blocks\(\)"):
        ours[()]
    np.testing.assert_array_equal(np.concatenate(list(ours.blocks())), X)
    monkeypatch.setattr("demos_hpc.remote_data.MOST_UNIT_BYTES", 10)
    with pytest.raises(TooLarge, match="of 24 bytes; this server sends 10 at a time"):
        ours[:2]


def test_memory_that_is_not_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = open_service(path).dataset("x", direct=False)

    def refuse(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr("demos_hpc.remote_data.np.empty", refuse)
    with pytest.raises(TooLarge, match=r"there is no memory for 24000 bytes: use blocks\(\)"):
        ours.submit(())


def test_a_request_has_so_much_time(path: Path) -> None:
    clock = FakeClock()
    service = Service(make_model(path, ["x"]), clock=clock)
    ours = service.connect().dataset("x", direct=False)
    future = ours.submit((), timeout=5.0)
    whole, service.workers[:] = service.workers[:], []  # nobody works
    service.turn()
    clock.advance(6.0)
    for _ in range(3):
        service.turn()
    with pytest.raises(DeadlineExceeded, match="not done in time: 0 of 1 units"):
        future.result(timeout=5.0)
    service.workers[:] = whole
    np.testing.assert_array_equal(ours.submit(7, timeout=5.0).result(), X[7])


def replace(path: Path) -> None:
    with h5py.File(path.with_name("new.h5"), "w") as file:
        file["x"] = X + 1
        file.create_dataset("packed", data=X + 1, chunks=(100, 3), compression="gzip")
    os.replace(path.with_name("new.h5"), path)


def rewrite(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        for name in ("x", "packed"):
            file[name][...] = X + 1


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


OPEN_AGAIN = "was changed while it was read; open it again|was replaced or changed since dataset .* was opened; open it"


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", ["x", "packed"])
@pytest.mark.parametrize(
    ("change", "first", "again"),
    [
        (replace, OPEN_AGAIN, ""),
        (rewrite, OPEN_AGAIN, ""),
        (truncate, "cannot be opened: .* copy or write it anew", "it is no HDF5 file, or not all of one"),
        (Path.unlink, "cannot be opened: No such file .*; put it there", "cannot be opened: No such file"),
        (make_fifo, "is no regular file", "is no regular file"),
        (make_directory, "is a directory", "is a directory"),
    ],
)
def test_a_file_that_changes_under_a_server_is_an_error_and_no_more(
    path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, name: str, change: Any, first: str, again: str
) -> None:
    monkeypatch.setattr("demos_hpc.library.LOOK_SECONDS", 0.0)
    model = open_service(path, workers)
    ours = model.dataset(name, direct=False)
    np.testing.assert_array_equal(ours[()], X)
    good = path.read_bytes()
    change(path)
    for _ in range(2 * workers):
        with pytest.raises(DatasetError, match=f"(?=.*{name})(?=.*data.h5).*({first}|{again or first})"):
            ours[()]
    assert model.metadata()["workers"] == workers
    if again:
        with pytest.raises(DatasetError, match=again):
            model.dataset(name, direct=False)
        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        path.write_bytes(good)
        np.testing.assert_array_equal(model.dataset(name, direct=False)[()], X)
    else:
        np.testing.assert_array_equal(model.dataset(name, direct=False)[()], X + 1)


@pytest.mark.parametrize("name", ["x", "packed"])
@pytest.mark.parametrize("change", [rewrite, truncate])
def test_a_file_that_changes_under_its_reader_is_an_error_of_the_future(path: Path, name: str, change: Any) -> None:
    model = open_service(path)
    ours = model.dataset(name, direct=True)
    np.testing.assert_array_equal(ours[:5], X[:5])
    change(path)
    future = ours.submit(())
    assert isinstance(future.exception(), DatasetError)
    with pytest.raises(DatasetError, match=f"dataset '{name}': .*data.h5 was replaced or changed since it was opened"):
        future.result()
    if change is rewrite:
        np.testing.assert_array_equal(model.dataset(name, direct=True)[()], X + 1)


def test_a_file_that_may_not_be_read_here_nor_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    model = open_service(path)
    with monkeypatch.context() as patch:
        patch.setattr("demos_hpc.sources.os.open", refuse)
        with pytest.raises(
            DatasetError, match=r"dataset 'x': .*data\.h5 cannot be opened: Permission denied; it has to"
        ):
            model.dataset("x")
    np.testing.assert_array_equal(model.dataset("x", direct=False)[()], X)


def test_datasets_that_cannot_be_served_say_so(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.create_dataset("references", (3,), h5py.ref_dtype)
        file["away"] = h5py.ExternalLink("/etc/passwd", "/x")
        file.create_group("group")
    model = demos_hpc.local(make_model(path, ["x", "references", "away", "group", "nothing"]), config=Config())
    for name, message in (
        ("references", "cannot be served: its elements are references"),
        ("away", "leads to /etc/passwd, which is in none of the directories"),
        ("group", "/group is a group, not a dataset"),
        ("nothing", "there is no /nothing; in its place there are: "),
    ):
        with pytest.raises(DatasetError, match=f"dataset '{name}': .*data.h5.*{message}"):
            model.dataset(name)
    np.testing.assert_array_equal(model.dataset("x", direct=False)[()], X)


def test_what_cannot_be_inflated_is_an_error_and_no_more(path: Path) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((10,))
    plist.set_filter(305, h5py.h5z.FLAG_OPTIONAL, (1,))
    with h5py.File(path, "r+") as file:
        space = h5py.h5s.create_simple((20,))
        lacking = h5py.h5d.create(file.id, b"lacking", h5py.h5t.IEEE_F64LE, space, plist)
        lacking.write_direct_chunk((0,), np.arange(10.0).tobytes())
        at = file["packed"].id.get_chunk_info(3).byte_offset
    with path.open("r+b") as raw:
        raw.seek(at)
        raw.write(b"\xff" * 20)
    for workers, direct in ((1, False), (2, False), (2, True)):
        names = ["x", "packed", "lacking"]
        model = demos_hpc.local(make_model(path, names), workers=workers, config=Config(timeout=20.0))
        packed, lacking = (model.dataset(name, direct=direct) for name in names[1:])
        assert lacking.filters == ["lzo"]
        for _ in range(workers + 1):
            with pytest.raises(
                DatasetError, match=r"dataset 'lacking': .*:/lacking .*filter lzo is not installed .*pip"
            ):
                lacking[0]
            with pytest.raises(DatasetError, match=r"dataset 'packed': .*:/packed .*filter gzip fails, so the file is"):
                packed[()]
            np.testing.assert_array_equal(packed[:300], X[:300])
            assert lacking[15] == 0.0  # of which nothing was written
        assert model.metadata()["workers"] == workers


def test_answers_that_are_not_what_was_asked_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As from a server that is not ours."""
    with h5py.File(path, "r+") as file:
        file["text"] = ["a", "bb", "c"]
    ours = demos_hpc.local(make_model(path, ["text"]), config=Config()).dataset("text", direct=False)
    monkeypatch.setattr("demos_hpc.future.RaggedFuture.take", lambda self, first, arrays: self.__dict__.update(
        _runs={0: [arrays[0][:1], arrays[1][:1]]}, n_answered=3))  # fmt: skip
    with pytest.raises(InternalError, match="the server sent 1 strings or lists of 3"):
        ours[()]


# ---- through the door, and over MPI -------------------------------------------------------------------------

MODEL = """
from dataclasses import replace
from demos_hpc import Dataset
from demos_hpc.testing import Gaussian as Base

class Gaussian(Base):
    def __init__(self):
        super().__init__()
        names = {names!r}
        self.spec = replace(self.spec, datasets=tuple(Dataset(name, f"all.h5:/{{name}}") for name in names))
"""


@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_through_the_door(hall: Any, house: House, write_script: Callable[..., Path], transport: str) -> None:
    script = write_script(MODEL.format(names=house.names), "own.py")
    os.link(house.path, script.with_name("all.h5"))
    server = hall.open(f"{script}:Gaussian", workers=2, upgrade="off")
    with server.connect(transport=transport) as model:
        for name in house.names:
            ours = model.dataset(name, direct=False)
            assert_same(ours[()], house.theirs[name][()])
        large = np.concatenate([np.arange(5000)[::-1]] * 20)
        assert_same(model.dataset("wide", direct=False)[:, large], house.whole["wide"][:, large])
        assert model.dataset("gzip", direct=False).verify() == compute_checksum(f"{house.path}:/gzip")
        ours = model.dataset("gzip", direct=False)
        ours.identity = "0" * 16
        with pytest.raises(DatasetError, match="was replaced or changed"):
            ours[()]
        assert_same(model.dataset("gzip", direct=False)[3], house.theirs["gzip"][3])


ANALYSIS = """
import sys
import h5py, numpy as np
import demos_hpc

with demos_hpc.connect() as model, h5py.File("all.h5") as file:
    for name in ("gzip", "compound", "scalar", "wide"):
        np.testing.assert_array_equal(model.dataset(name, direct=False)[()], file[name][()])
    assert model.dataset("text", direct=False)[()].tolist() == file["text"][()].tolist()
    rows = np.tile(np.arange(400)[::-1], 300)
    np.testing.assert_array_equal(model.dataset("line", direct=False)[rows], file["line"][()][rows])
    blocks = [block for block in model.dataset("gzip", direct=False).blocks(17)]
    np.testing.assert_array_equal(np.concatenate(blocks), file["gzip"][()])
    try:
        model.dataset("away", direct=False)
    except demos_hpc.DatasetError as error:
        assert "none of the directories" in str(error)
    print(model.dataset("gzip", direct=False).verify(), model.log_density([[0.5]], [0.0, 1.0]).shape)
"""


def test_over_mpi(house: House, launch: Callable[..., Launched], write_script: Callable[..., Path]) -> None:
    script = write_script(MODEL.format(names=[*house.names, "away"]), "own.py")
    copied = script.with_name("all.h5")
    copied.write_bytes(house.path.read_bytes())
    with h5py.File(copied, "r+") as file:
        file["away"] = h5py.ExternalLink("/etc/passwd", "/x")
    done = launch(serve(f"{script}:Gaussian", 3), analyze(write_script(ANALYSIS), ranks=2))
    assert done.code == 0, done.text
    assert done.out.count(f"{compute_checksum(f'{house.path}:/gzip')} (1,)") == 2
