"""All the data of one worker: where they come from, and what is given back."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from demos_hpc.config import Config
from demos_hpc.errors import DatasetError
from demos_hpc.spec import Dataset, ModelSpec
from demos_hpc.stock import Stock
from demos_hpc.transport.buffers import KEEP_SECONDS

X = np.arange(50_000.0)


def make_stock(directory: Path, **settings: str) -> Stock:
    with h5py.File(directory / "data.h5", "w") as file:
        file["x"] = X
        file["away"] = h5py.ExternalLink(str(directory.parent / "other.h5"), "/x")
    datasets = tuple(Dataset(name, f"{directory}/data.h5:/{name}") for name in ("x", "away"))
    return Stock(ModelSpec("data", datasets=datasets), Config(spool=str(directory / "spool"), **settings))


def test_memory_of_answers_is_given_back(tmp_path: Path) -> None:
    stock = make_stock(tmp_path)
    (described,) = stock.library.describe("x")["datasets"]
    question = {"dataset": "x", "identity": described["identity"], "axes": [[0, 1, len(X)]], "axis": 0, "row_bytes": 8}
    (rows,) = stock.library.read(question, [], 0, len(X))
    np.testing.assert_array_equal(rows.view(np.float64)[:, 0], X)
    for now in (0.0, KEEP_SECONDS, 2 * KEEP_SECONDS):
        stock.trim(now)
    assert stock._buffers._kept_bytes > 0, "it is on its way yet"
    del rows
    for now in (4 * KEEP_SECONDS, 5 * KEEP_SECONDS):
        stock.trim(now)
    assert stock._buffers._kept_bytes == 0
    stock.close()


def test_directories_of_the_operator_are_between_colons(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = X
    stock = make_stock(inside)
    with pytest.raises(DatasetError, match="DEMOS_DATA_DIRECTORIES"):
        stock.library.describe("away")
    stock.close()
    stock = make_stock(inside, data_directories=f"/nowhere::{tmp_path}")
    assert stock.library.describe("away")["datasets"][0]["shape"] == [len(X)]
    stock.close()
