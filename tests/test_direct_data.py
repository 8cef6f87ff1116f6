"""A dataset read by whoever asks for it: the very file that the server has, or none."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from demos_hpc.direct_data import DirectData
from demos_hpc.errors import DatasetError
from demos_hpc.selection import read_selection
from demos_hpc.sources import find_identity

X = np.arange(12.0).reshape(4, 3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"] = X
        file["text"] = ["a", "bb"]
    return tmp_path / "data.h5"


def test_it_is_read_into_the_callers_array_where_that_is_possible(path: Path) -> None:
    data = DirectData(f"{path}:/x", find_identity(str(path)))
    out = np.empty((2, 3))
    for key in (slice(2), [1, 0], [3, 3]):
        assert data.read(read_selection(key, (4, 3), None, "x"), np.dtype("f8"), out) is out
        np.testing.assert_array_equal(out, X[key])
    data.close()
    text = DirectData(f"{path}:/text", find_identity(str(path)))
    words = np.empty(2, object)
    assert text.read(read_selection((), (2,), None, "text"), np.dtype(object), words) is words
    assert words.tolist() == [b"a", b"bb"]
    text.close()


@pytest.mark.parametrize(
    ("name", "identity", "message"),
    [
        ("/x", "0" * 16, "is not the file here that it is at the server: read it without direct=True"),
        ("/y", "", "there is no /y"),
    ],
)
def test_another_file_is_closed_again(path: Path, name: str, identity: str, message: str) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(DatasetError, match=message):
        DirectData(f"{path}:{name}", identity)
    assert os.listdir("/proc/self/fd") == before


def test_a_file_that_has_changed_is_not_read_any_more(path: Path) -> None:
    data = DirectData(f"{path}:/x", find_identity(str(path)))
    os.utime(path, ns=(1, 1))
    for _ in range(2):
        with pytest.raises(DatasetError, match="was replaced or changed since it was opened; open the dataset again"):
            data.read(read_selection((), (4, 3), None, "x"), np.dtype("f8"), None)
    data.close()
