"""Files of data served as they are."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from launching import analyze, serve

import demos_hpc
from demos_hpc.errors import DatasetError, InvalidInput, ModelNotFound
from demos_hpc.library import compute_checksum
from demos_hpc.model import LoadedModel, load
from demos_hpc.model_paths import find, find_absolute, is_path
from demos_hpc.models.data import name_datasets
from demos_hpc.spec import ModelSpec, make_name

ROWS = np.arange(60.0).reshape(20, 3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with datasets of several kinds."""
    path = tmp_path / "run 7.h5"
    with h5py.File(path, "w") as file:
        plain = file.create_dataset("plain", data=ROWS)
        plain.attrs.update({"units": "GeV", "description": "energies", "license": "CC0-1.0"})
        table = file.create_dataset("deep/er/table", data=ROWS)
        table.attrs.update({"columns": ["a", "b", "c"], "units": ["m", "s", "1"], "long_name": np.bytes_(b"a table")})
        file["deep/hits"] = np.arange(5)
        file["deep/hits"].attrs["unit"] = np.bytes_(b"mm")
        file["deep/hits"].attrs["units"] = 5  # no text
        file["text"] = ["a", "b"]
        file["again"] = h5py.SoftLink("/plain")
    return path


def test_the_datasets_of_a_file(path: Path) -> None:
    model = load(str(path))
    assert (model.spec.name, model.spec.operations) == ("run_7", ("dataset",))
    found = {dataset.name: dataset for dataset in model.spec.datasets}
    assert list(found) == ["deep.er.table", "deep.hits", "plain", "text"]
    assert found["deep.er.table"].path == f"{path}:/deep/er/table"
    assert found["plain"].units == "GeV"
    assert (found["plain"].description, found["plain"].license) == ("energies", "CC0-1.0")
    assert found["deep.er.table"].units == {"a": "m", "b": "s", "c": "1"}
    assert found["deep.er.table"].description == "a table"
    assert found["deep.hits"].units == "mm"
    assert ModelSpec.from_dict(model.spec.to_dict()) == model.spec


def test_a_file_is_served_like_a_model(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    with demos_hpc.local("run 7.h5", workers=2) as served:
        np.testing.assert_array_equal(served.dataset("deep.er.table", direct=False)[3:9:2, 1], ROWS[3:9:2, 1])
        assert [described["shape"] for described in served.describe_datasets()] == [[20, 3], [5], [20, 3], [2]]
        with pytest.raises(demos_hpc.NotOffered, match="it has dataset"):
            served.sample(3)


def test_a_checksum_may_stand_in_the_file(path: Path) -> None:
    checksum = compute_checksum(f"{path}:/plain")
    with h5py.File(path, "r+") as file:
        file["plain"].attrs["checksum"] = checksum
        file["deep/hits"].attrs["checksum"] = checksum
        file["text"].attrs["checksum"] = "5"
    model = demos_hpc.local(str(path))
    assert [dataset.checksum for dataset in model.spec.datasets] == ["", checksum, checksum, ""]
    assert model.dataset("plain").verify() == checksum
    with pytest.raises(DatasetError, match="was declared to have"):
        model.dataset("deep.hits").verify()


def test_names_are_valid_and_all_different() -> None:
    called = name_datasets(["/a b", "/a_b", "/a/b", "/a.b", "/_x", "/événements", "/日本", "/a_b-2", "/データ"])
    assert called["/a_b"] == "a_b"
    assert called["/a_b-2"] == "a_b-2"
    assert called["/a b"] == "a_b-3"
    assert {called["/a.b"], called["/a/b"]} == {"a.b", "a.b-2"}
    assert (called["/_x"], called["/événements"]) == ("x", "evenements")
    assert sorted(called[path] for path in ("/日本", "/データ")) == ["data", "data-2"]
    assert len(set(called.values())) == len(called)
    for name in called.values():
        ModelSpec(make_name(name))


@pytest.mark.parametrize(
    ("text", "name"), [("a", "a"), ("run 7 (all)", "run_7_all"), ("..x", "x"), ("--", "data"), ("", "data"), ("é", "e")]
)
def test_names_of_models(text: str, name: str) -> None:
    assert make_name(text) == name


def test_where_files_are_found(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    assert find("run 7.h5") == ("run 7.h5", "run_7")
    assert find_absolute("run 7.h5") == str(path)
    assert [is_path(text) for text in ("x.h5", "x.hdf5", "m.py:M", "a.b:M", "nu_atm", "h5")] == [True] * 4 + [False] * 2
    with pytest.raises(ModelNotFound, match=r"data file 'no\.h5' does not exist"):
        load("no.h5")
    with pytest.raises(ModelNotFound, match=r"a file .h5 or .hdf5 whose datasets"):
        load("no")


def test_both_endings(path: Path) -> None:
    other = path.with_name("other.hdf5")
    os.link(path, other)
    assert load(str(other)).spec.name == "other"


def test_absolute_paths_are_left_alone(path: Path) -> None:
    class Elsewhere:
        spec = ModelSpec("elsewhere", datasets=({"name": "plain", "path": f"{path}:/plain"},))  # type: ignore[arg-type]

    assert LoadedModel(Elsewhere()).spec.datasets[0].path == f"{path}:/plain"


def test_files_that_cannot_be_served(tmp_path: Path) -> None:
    path = tmp_path / "bad.h5"
    path.write_bytes(b"no data at all")
    with pytest.raises(DatasetError, match=r"bad.h5 cannot be opened: .*file signature not found"):
        load(str(path))
    with h5py.File(path, "w"):
        pass
    with pytest.raises(InvalidInput, match=r"bad.h5' has no datasets"):
        load(str(path))
    with h5py.File(path, "w") as file:
        file["a"] = np.arange(1000)
    content = path.read_bytes()
    path.write_bytes(content[:1000])
    with pytest.raises(DatasetError, match=r"bad.h5 cannot be opened: .*truncated"):
        load(str(path))


def test_a_dataset_that_leads_elsewhere_does_not_keep_the_others_away(
    path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with h5py.File(elsewhere / "source.h5", "w") as file:
        file["a"] = np.arange(4)
    layout = h5py.VirtualLayout(shape=(4,), dtype="i8")
    layout[:] = h5py.VirtualSource(elsewhere / "source.h5", "a", shape=(4,))
    with h5py.File(path, "r+") as file:
        file.create_virtual_dataset("virtual", layout)
    with demos_hpc.local(str(path)) as served:
        described = {d["name"]: d for d in served.describe_datasets()}
        assert "DEMOS_DATA_DIRECTORIES" in described["virtual"]["problem"]
        assert described["plain"]["shape"] == [20, 3]
        with pytest.raises(DatasetError, match="may allow others"):
            served.dataset("virtual")


def test_over_mpi(path: Path, launch: Callable[..., Any], write_script: Callable[..., Path]) -> None:
    script = write_script(
        """
        import demos_hpc
        with demos_hpc.connect("run_7") as model:
            print(model.dataset("plain", direct=False)[19, 2], model.datasets)
        """
    )
    launched = launch(serve(path.name, ranks=3), analyze(script))
    assert launched.code == 0, launched.text
    assert launched.out.startswith("59.0 ('deep.er.table', ")
