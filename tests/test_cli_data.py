"""Commands about datasets, and results that are written to files."""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from datafiles import write_everything
from launching import PACKAGE
from launching import run as run_command
from serving import serving
from test_cli import DEMOS, GAUSSIAN, fail, invoke, read

import demos_hpc
from demos_hpc.cli.brackets import Cutting, read_key
from demos_hpc.cli.datasets import format_value, iterate_rows, name_columns, tabulate
from demos_hpc.cli.examination import _ask_for_datasets
from demos_hpc.cli.interruption import SIGNALS, listen
from demos_hpc.cli.output import to_plain
from demos_hpc.errors import InvalidInput
from demos_hpc.library import compute_checksum
from demos_hpc.model import load

ROWS = np.random.default_rng(3).normal(size=(100, 3))
EVENTS = np.array(
    [(n, n / 2, [n, -n], f"e{n}".encode()) for n in range(50)],
    dtype=[("id", "<i4"), ("energy", "<f8"), ("p", "<f4", (2,)), ("tag", "S4")],
)
MODEL = """
from demos_hpc import Dataset, ModelSpec

class Tables:
    spec = ModelSpec("tables", datasets=(
        Dataset("plain", "data.h5:/plain", units="GeV", checksum="{plain}", license="CC0-1.0"),
        Dataset("events", "data.h5:/events", units={{"energy": "GeV"}}, description="what was [seen]"),
        Dataset("wrong", "data.h5:/deep/zipped", checksum="sha256:{zeros}"),
        Dataset("gone", "no.h5:/x"),
    ))
"""
DATA_COMMANDS = ("ls", "describe", "read", "verify", "checksum")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with datasets of several kinds, in the directory where commands are run."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file["plain"] = ROWS
        file["plain"].attrs.update({"columns": ["x", "y", "z"], "run": 7, "mean": np.array([1.0, np.nan])})
        file["events"] = EVENTS
        file.create_dataset("deep/zipped", data=np.arange(4000).reshape(400, 10), chunks=(30, 10), compression="gzip")
        file["text"] = ["héllo", "a,b", ""]
        lists = file.create_dataset("lists", (3,), dtype=h5py.vlen_dtype("i4"))
        lists[2] = [1, 2]
        file["scalar"] = 3.5
        file["empty"] = h5py.Empty("f4")
    return path


@pytest.fixture
def model(path: Path) -> str:
    """A model that declares some of them, and others that are not there."""
    text = MODEL.format(plain=compute_checksum(f"{path}:/plain"), zeros="0" * 64)
    path.with_name("tables.py").write_text(text, encoding="utf-8")
    return "tables.py:Tables"


# ---- selections in words -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("10:20, ::2", (slice(10, 20), slice(None, None, 2))),
        ("energy, 0:5", ("energy", slice(0, 5))),
        ("[3, 1,2],4", ([3, 1, 2], 4)),
        ("'a, b: c', ...", ("a, b: c", ...)),
        ('["id", energy]', ["id", "energy"]),
        ("", ...),
        ("...", ...),
        ("()", ()),
        (" -1 ", -1),
        ("3,", 3),
        ("1_000:", slice(1000, None)),
        ("[]", []),
        ('"5"', "5"),
    ],
)
def test_selections(text: str, key: Any) -> None:
    assert read_key(text) == key


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:b", "'a:b' is no slice"),
        ("1:2:3:4", "is no slice"),
        ("::0", "the step of '::0' is 0"),
        ("1,,2", "nothing between two commas"),
        (",", "nothing between two commas"),
        ("[1, a]", "neither of numbers nor of names"),
        ("[1:2]", "neither of numbers nor of names"),
        ("[1, [2]]", r"cannot be read from '[1, [2]]' on"),
        ("[1", "cannot be read"),
        ("'a", "cannot be read"),
        ("'a' b", "cannot be read"),
        ("1]", "cannot be read"),
    ],
)
def test_what_is_no_selection(text: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_key(text)
    assert message in str(caught.value)


def test_nothing_is_evaluated() -> None:
    assert read_key("__import__('os')"[:10]) == "__import__"
    for text in ("__import__('os').system('true')", "(1).__class__", "lambda: 0"):
        try:
            key = read_key(text)
        except InvalidInput:
            continue
        assert key == text


@pytest.mark.parametrize("key", [..., 3, (slice(5, 90, 7),), ([9, 2, 2],), (slice(None), 1), (3, slice(1, 3)), (4, 2)])
@pytest.mark.parametrize("rows", [1, 2, 100])
def test_a_selection_in_blocks_is_the_selection(key: Any, rows: int) -> None:
    cutting = Cutting(key, ROWS.shape)
    blocks = [ROWS[cutting.cut(first, rows)] for first in range(0, len(cutting), rows)]
    expected = ROWS[key]
    if cutting.axis is None:
        assert blocks == [expected]
        return
    np.testing.assert_array_equal(np.concatenate(blocks), expected)
    places = np.take(np.indices(ROWS.shape)[cutting.axis], cutting.label(0, len(cutting)), axis=cutting.axis)
    np.testing.assert_array_equal(np.unique(places), np.unique(np.indices(ROWS.shape)[cutting.axis][key]))


def test_fields_stay_with_each_block() -> None:
    cutting = Cutting(("energy", slice(10, 20)), EVENTS.shape)
    assert cutting.cut(2, 3) == ("energy", slice(12, 15, 1))
    assert cutting.label(2, 3) == [12, 13, 14]
    assert Cutting(["id", "energy"], EVENTS.shape).cut(0, 2) == (["id", "energy"], slice(0, 2, 1))
    assert len(Cutting(slice(5, 2), (100,))) == 0


def test_selections_that_do_not_fit() -> None:
    with pytest.raises(InvalidInput, match="3 indices for a dataset of shape"):
        Cutting((1, 2, 3), (5, 5))
    with pytest.raises(InvalidInput, match="only once"):
        Cutting((..., 1, ...), (5, 5))


# ---- how values are shown ------------------------------------------------------------------------------------


def test_columns_and_rows_of_fields() -> None:
    dtype = np.dtype([("a", "i4"), ("p", "f8", (2,)), ("c", [("x", "f4"), ("y", "S3")])])
    assert name_columns(dtype, (), "n") == ["a", "p.0", "p.1", "c.x", "c.y"]
    assert name_columns(np.dtype("f8"), (2, 2), "n") == ["0,0", "0,1", "1,0", "1,1"]
    assert name_columns(np.dtype("f8"), (), "n") == ["n"]
    values = np.zeros(2, dtype)
    values["p"][1], values["c"]["y"] = [3, 4], b"\xff"
    assert list(iterate_rows(values)) == [[0, 0.0, 0.0, 0.0, "\\xff"], [0, 3.0, 4.0, 0.0, "\\xff"]]
    assert list(iterate_rows(np.empty((0, 3)))) == []
    assert list(iterate_rows(np.empty((2, 0)))) == [[], []]


def test_values() -> None:
    values = (1.23456789012345, 5, "a", None, True)
    assert [format_value(value) for value in values] == ["1.23456789", "5", "a", "-", "True"]


# ---- ls, describe, info --------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", DATA_COMMANDS)
def test_help_of_each_command(command: str) -> None:
    result = invoke("data", command, "-h")
    assert result.exit_code == 0
    assert f"Usage: demos-hpc data {command}" in result.stdout
    assert command in invoke("data", "--help").stdout


def test_ls(path: Path) -> None:
    text = invoke("data", "ls", "data.h5").stdout
    for word in ("data 1.0.0: 7 datasets, 35.6 kB", "deep.zipped", "400 x 10", "gzip", "4 fields: id", "lists of"):
        assert word in text
    found = {dataset["name"]: dataset for dataset in read("data", "ls", "data.h5")}
    assert found["deep.zipped"]["bytes"] == 32_000
    assert found["deep.zipped"]["chunks"] == [30, 10]
    assert (found["text"]["type"], found["text"]["bytes"]) == ("text", None)
    assert found["empty"]["shape"] is None
    assert found["scalar"]["shape"] == []


def test_ls_of_a_model(model: str) -> None:
    text = invoke("data", "ls", model).stdout
    for word in ("tables 0.1.0: 4 datasets", "energy: GeV", "what was [seen]", "no.h5 cannot be opened"):
        assert word in " ".join(text.replace("│", " ").split())
    found = read("data", "ls", model)
    assert "cannot be opened" in found[3]["problem"]
    assert invoke("data", "ls", GAUSSIAN).stdout == "model gaussian has no datasets\n"
    assert read("data", "ls", GAUSSIAN) == []


def test_info_has_the_datasets(model: str) -> None:
    text = invoke("info", model).stdout
    assert "Datasets" in text
    assert "100 x 3" in text
    assert [dataset["name"] for dataset in read("info", model)["datasets"]] == ["plain", "events", "wrong", "gone"]
    assert "Datasets" not in invoke("info", GAUSSIAN).stdout
    assert "plain" in invoke("info", "data.h5").stdout


def test_info_does_not_wait_for_workers_that_compute(model: str) -> None:
    class Busy:
        spec = load(model).spec

        def describe_datasets(self, timeout: float) -> Any:
            raise TimeoutError

    described = _ask_for_datasets(Busy())  # type: ignore[arg-type]
    assert [dataset["name"] for dataset in described] == ["plain", "events", "wrong", "gone"]
    assert {dataset["problem"] for dataset in described} == {"no worker has answered within 10 s"}
    assert tabulate(described).row_count == 4


def test_describe_what_is_made_of_several(tmp_path: Path) -> None:
    path = str(write_everything(tmp_path))
    assert "Fields" not in invoke("data", "describe", path, "vectors").stdout
    assert "('<f4', (3,))" in invoke("data", "describe", path, "vectors").stdout
    lines = [line.split() for line in invoke("data", "describe", path, "padded").stdout.split("unit")[1].splitlines()]
    assert [words[1] for words in lines if len(words) > 2] == ["a", "b", "c"]


def test_describe(model: str) -> None:
    text = invoke("data", "describe", model, "plain").stdout
    for word in ("100 x 3", "float64", "GeV", "2.40 kB", "sha256:", "CC0-1.0", "stored in one run", "['x', 'y', 'z']"):
        assert word in text
    text = invoke("data", "describe", model, "events").stdout
    for word in ("what was [seen]", "Fields", "energy", "<f8", "GeV", "none was declared"):
        assert word in text
    told = read("data", "describe", model, "plain")
    assert told["attrs"] == {"columns": ["x", "y", "z"], "mean": [1.0, "nan"], "run": 7}
    assert told["license"] == "CC0-1.0"
    assert "30 x 10" in invoke("data", "describe", model, "wrong").stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["describe", "tables.py:Tables", "x"], "has no dataset 'x'; it has 'plain', 'events', 'wrong', 'gone'"),
        (["describe", "tables.py:Tables", "gone"], "no.h5 cannot be opened: No such file"),
        (["describe", GAUSSIAN, "x"], "model 'gaussian' has no datasets"),
        (["ls", "nosuch.h5"], "data file 'nosuch.h5' does not exist"),
        (["ls", "nosuch"], "and no server that runs has this name"),
        (["read", "data.h5", "plain", "200"], "index 200 is out of range, the axis has length 100"),
        (["read", "data.h5", "plain", "[1, 200]"], "index 200 is out of range"),
        (["read", "data.h5", "plain", "::-1"], "step -1; it is 1 or more"),
        (["read", "data.h5", "plain", "1,2,3"], "3 indices for a dataset of shape (100, 3)"),
        (["read", "data.h5", "plain", "a"], "field 'a' of a dataset that has no fields"),
        (["read", "data.h5", "events", "a"], "no field 'a'; there are id, energy, p, tag"),
        (["read", "data.h5", "empty"], "dataset 'empty' is empty"),
        (["read", "data.h5", "plain", "a:"], "is no slice start:stop:step"),
        (["read", "data.h5", "plain", "--out", "x.json"], "ends in .npy, .csv, .h5, .hdf5"),
        (["read", "data.h5", "plain", "--out", "no/x.npy"], "there is no directory no"),
        (["read", "data.h5", "text", "--out", "x.npy"], "have no fixed size: write a .csv file"),
        (["read", "data.h5", "lists", "--out", "x.h5"], "have no fixed size: write a .csv file"),
        (["verify", "data.h5", "x"], "there is no dataset 'x'; there are: deep.zipped"),
        (["verify", GAUSSIAN], "model 'gaussian' has no datasets"),
        (["checksum", "data.txt"], "'data.txt' is no file of data"),
        (["checksum", "data.h5:/x"], "there is no /x; "),
        (["checksum", "no.h5"], "no.h5 cannot be opened"),
    ],
)
def test_bad_input(model: str, words: list[str], message: str) -> None:
    assert message in fail("data", *words)


# ---- read ----------------------------------------------------------------------------------------------------


def test_read_shows_some_rows(path: Path) -> None:
    text = invoke("data", "read", "data.h5", "plain").stdout
    assert "100 rows, 3 columns in all" in text
    assert f"{ROWS[19, 1]:.10g}" in text
    assert f"{ROWS[20, 1]:.10g}" not in text
    lines = invoke("data", "read", "data.h5", "plain", "90:,::2").stdout.splitlines()
    assert [line.split("│")[1].strip() for line in lines if line.startswith("│")] == [str(n) for n in range(90, 100)]
    assert lines[2].replace("┃", " ").split() == ["row", "x", "z"]


def test_read_shows_one_row_upright(path: Path) -> None:
    text = invoke("data", "read", "data.h5", "events", "7:8").stdout
    assert "p.1" in text
    assert "e7" in text
    lines = invoke("data", "read", "data.h5", "plain", "5").stdout.splitlines()
    assert [line.split("│")[1].strip() for line in lines if line.startswith("│")] == ["x", "y", "z"]
    assert "3.5" in invoke("data", "read", "data.h5", "scalar").stdout


def test_read_shows_strings_and_lists(path: Path) -> None:
    text = invoke("data", "read", "data.h5", "text").stdout
    assert "héllo" in text
    assert "[1, 2]" in invoke("data", "read", "data.h5", "lists").stdout
    assert invoke("data", "read", "data.h5", "plain", "0:0").exit_code == 0


def test_read_as_json(path: Path) -> None:
    told = read("data", "read", "data.h5", "plain", "[5, 2], 1:")
    assert (told["shape"], told["columns"]) == ([2, 2], ["y", "z"])
    np.testing.assert_array_equal(told["values"], ROWS[[5, 2], 1:])
    assert read("data", "read", "data.h5", "text")["values"] == ["héllo", "a,b", ""]
    assert read("data", "read", "data.h5", "lists")["values"] == [[], [], [1, 2]]
    assert read("data", "read", "data.h5", "scalar")["values"] == 3.5
    assert read("data", "read", "data.h5", "plain", "3,1")["values"] == ROWS[3, 1]
    assert read("data", "read", "data.h5", "events", "3:5")["values"][1] == [4, 2.0, [4.0, -4.0], "e4"]
    assert read("data", "read", "data.h5", "events", "energy, 4")["values"] == 2.0


def test_numbers_that_python_has_not(tmp_path: Path) -> None:
    large = np.array([1.5, "nan", "1e4000"], "g")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["long"] = large
        file["pairs"] = np.array([(1, 2)], [("a", "g"), ("b", "c16")])
    told = read("data", "read", str(tmp_path / "x.h5"), "long")
    assert told["values"] == [1.5, "nan", "1e+4000"]
    assert read("data", "read", str(tmp_path / "x.h5"), "pairs")["values"] == [[1.0, "(2+0j)"]]
    assert to_plain(large) == [1.5, "nan", "1e+4000"]
    assert to_plain(np.array([1 + 2j], "G")) == ["(1+2j)"]


@pytest.mark.parametrize("selection", ["", "10:20, ::2", "[7, 3, 3]", ":, 1", "5", "3, 2", "0:0"])
@pytest.mark.parametrize("block", [None, 100], ids=["one block", "many blocks"])
def test_read_into_npy(path: Path, monkeypatch: pytest.MonkeyPatch, selection: str, block: int | None) -> None:
    if block:
        monkeypatch.setattr("demos_hpc.cli.exports.BLOCK_BYTES", block)
    result = invoke("data", "read", "data.h5", "plain", selection, "--out", "x.npy")
    assert result.exit_code == 0, result.output
    assert "written to x.npy" in result.stderr
    expected = ROWS[read_key(selection)]
    got = np.load("x.npy")
    assert (got.shape, got.dtype) == (np.shape(expected), np.dtype("f8"))
    np.testing.assert_array_equal(got, expected)
    assert not [name for name in os.listdir() if "partial" in name]


def test_read_compressed_rows_in_blocks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demos_hpc.cli.exports.BLOCK_BYTES", 100)
    assert invoke("data", "read", "data.h5", "deep.zipped", "::3", "-o", "x.npy").exit_code == 0
    np.testing.assert_array_equal(np.load("x.npy"), np.arange(4000).reshape(400, 10)[::3])


def test_read_fields_into_npy(path: Path) -> None:
    assert invoke("data", "read", "data.h5", "events", "-o", "x.npy").exit_code == 0
    assert np.load("x.npy").tobytes() == EVENTS.tobytes()
    assert invoke("data", "read", "data.h5", "events", "energy", "-o", "x.npy", "--overwrite").exit_code == 0
    np.testing.assert_array_equal(np.load("x.npy"), EVENTS["energy"])


@pytest.mark.parametrize(
    ("selection", "columns"),
    [
        ("energy, 0:3", ["energy"]),
        ("energy", ["energy"]),
        ("energy, 4", ["energy"]),
        ("p, :2", ["p.0", "p.1"]),
        ("p, 1", ["p.0", "p.1"]),
        ("[energy], :2", ["energy"]),
    ],
)
def test_columns_of_one_field_have_its_name(path: Path, selection: str, columns: list[str]) -> None:
    assert read("data", "read", "data.h5", "events", selection)["columns"] == columns
    assert invoke("data", "read", "data.h5", "events", selection, "-o", "x.csv").exit_code == 0
    head, row, *_ = read_csv("x.csv")
    assert head == columns
    assert len(row) == len(columns)


def read_csv(path: str) -> list[list[str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_read_into_csv(path: Path) -> None:
    assert invoke("data", "read", "data.h5", "plain", "2:4", "-o", "x.csv", "--overwrite").exit_code == 0
    head, *rows = read_csv("x.csv")
    assert head == ["x", "y", "z"]
    np.testing.assert_array_equal(np.array(rows, dtype=float), ROWS[2:4])
    assert invoke("data", "read", "data.h5", "events", "3:5", "-o", "x.csv", "--overwrite").exit_code == 0
    assert read_csv("x.csv")[::2] == [["id", "energy", "p.0", "p.1", "tag"], ["4", "2.0", "4.0", "-4.0", "e4"]]
    assert invoke("data", "read", "data.h5", "text", "-o", "x.csv", "--overwrite").exit_code == 0
    assert read_csv("x.csv") == [["text"], ["héllo"], ["a,b"], [""]]
    assert invoke("data", "read", "data.h5", "lists", "-o", "x.csv", "--overwrite").exit_code == 0
    assert read_csv("x.csv")[3] == ["[1, 2]"]


def test_read_into_hdf5(path: Path) -> None:
    assert invoke("data", "read", "data.h5", "events", "5:9", "-o", "x.h5").exit_code == 0
    with h5py.File("x.h5") as file:
        assert file["events"][()].tobytes() == EVENTS[5:9].tobytes()
        assert file["events"].attrs["selection"] == "5:9"
        assert file["events"].attrs["source"] == f"{path}:/events"
        assert file.attrs["complete"]
    assert "exists already" in fail("data", "read", "data.h5", "plain", "-o", "x.h5")
    assert invoke("data", "read", "data.h5", "plain", ":, 1:", "-o", "x.h5", "--overwrite").exit_code == 0
    with h5py.File("x.h5") as file:
        np.testing.assert_array_equal(file["plain"][()], ROWS[:, 1:])
        assert file["plain"].attrs["run"] == 7
        assert "columns" not in file["plain"].attrs  # they were others
    assert [dataset["name"] for dataset in read("data", "ls", "x.h5")] == ["plain"]
    with h5py.File("y.h5", "w") as file:
        file["rows_written"] = ROWS  # somebody else's
    assert invoke("data", "read", "y.h5", "rows_written", "-o", "z.h5").exit_code == 0
    with h5py.File("z.h5") as file:
        np.testing.assert_array_equal(file["data"][()], ROWS)


@pytest.mark.parametrize("name", ["x.npy", "x.csv", "x.h5"])
def test_files_are_not_overwritten_unasked(path: Path, name: str) -> None:
    told = read("data", "read", "data.h5", "plain", "5:9, 1:", "-o", name)
    assert told == {
        "dataset": "plain", "selection": "5:9, 1:", "shape": [4, 2], "columns": ["y", "z"],
        "file": name, "rows": 4, "resumed_at": 0,
    }  # fmt: skip
    before = Path(name).read_bytes()
    assert f"{name} exists already" in fail("data", "read", "data.h5", "plain", "6:9", "-o", name)
    assert Path(name).read_bytes() == before
    assert invoke("data", "read", "data.h5", "plain", "6:9", "-o", name, "--overwrite").exit_code == 0
    assert Path(name).read_bytes() != before


def test_the_same_rows_again(path: Path) -> None:
    words = ("data", "read", "data.h5", "plain", "5:9", "-o", "x.h5")
    assert "written to x.h5: 4 rows of plain" in invoke(*words).stderr
    result = invoke(*words, "--json")
    assert result.exit_code == 0
    assert "x.h5 is complete already, 4 rows of the very same: nothing to do" in result.stderr
    assert "written to" not in result.stderr
    assert json.loads(result.stdout)["resumed_at"] == 4
    with h5py.File(path, "a") as file:
        file["more"] = 1
    assert f"something else: {path}:/plain was replaced or changed since." in fail(*words)


def test_what_is_read_is_not_overwritten(path: Path) -> None:
    before = path.read_bytes()
    Path("link.h5").symlink_to(path)
    for out in ("data.h5", "link.h5", str(path)):
        for more in ((), ("--overwrite",)):
            words = ("data", "read", "data.h5", "plain", "-o", out, *more)
            assert f"{out} is the very file that is read: write to another one" in " ".join(fail(*words).split())
    assert path.read_bytes() == before


def test_a_file_that_comes_meanwhile_is_not_overwritten(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(picked: Any, partial: Path, progress: Any) -> None:
        partial.write_text("ours", encoding="utf-8")
        Path("x.csv").write_text("theirs", encoding="utf-8")

    monkeypatch.setattr("demos_hpc.cli.exports._write_csv", write)
    assert "x.csv exists already" in fail("data", "read", "data.h5", "plain", "-o", "x.csv")
    assert Path("x.csv").read_text(encoding="utf-8") == "theirs"
    assert not Path("x.csv.partial").exists()


def test_what_a_killed_process_has_left_is_replaced(path: Path) -> None:
    for name in ("x.npy", "x.csv"):
        Path(f"{name}.partial").write_bytes(b"left" * 10**6)
        assert invoke("data", "read", "data.h5", "plain", "-o", name).exit_code == 0
        assert not Path(f"{name}.partial").exists()
        assert Path(name).stat().st_size < 10**6


def test_a_full_disk_while_rows_are_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __call__(self, *arguments: Any, **options: Any) -> Any:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("demos_hpc.cli.exports.np.lib.format.write_array_header_2_0", Full())
    assert fail("data", "read", "data.h5", "plain", "-o", "x.npy") == (
        "demos-hpc: x.npy cannot be written: No space left on device"
    )
    assert not [name for name in os.listdir() if name.startswith("x")]


@pytest.mark.parametrize("name", ["x.npy", "x.csv", "x.h5"])
def test_results_that_a_disk_has_no_room_for(path: Path, name: str) -> None:
    """Such as a quota, or as here the process's own limit."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        said = fail("call", GAUSSIAN, "sample", "--n", "100000", "--seed", "1", "-o", name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot be written: " in said
    assert "File too large" in said
    assert not [name for name in os.listdir() if name.startswith("x")]


def test_what_is_larger_than_disk_or_memory_is_not_begun(path: Path) -> None:
    with h5py.File("huge.h5", "w") as file:
        file.create_dataset("huge", shape=(10**9, 10**6), dtype="f8", chunks=(1000, 1000))
    words = ("data", "read", "huge.h5", "huge")
    assert "x.npy cannot be written: No space left on device" in fail(*words, "-o", "x.npy")
    assert "x.h5 cannot be written: " in fail(*words, "-o", "x.h5")  # too long a file, or no room
    assert not [name for name in os.listdir() if name.startswith("x")]
    assert fail(*words, "--json") == (
        f"demos-hpc: there is no memory for {8 * 10**15} bytes: write them to a file (--out), or read fewer"
    )


@pytest.mark.parametrize("name", ["x.npy", "x.csv", "x.h5"])
def test_a_damaged_chunk_is_an_error_of_what_is_read(path: Path, name: str) -> None:
    with h5py.File("damaged.h5", "w") as file:
        rows = file.create_dataset("rows", data=np.arange(1000.0), chunks=(100,), compression="gzip")
        rows.id.write_direct_chunk((500,), b"no gzip")
    said = fail("data", "read", "damaged.h5", "rows", "-o", name)
    assert said.startswith("demos-hpc: dataset 'rows': ")
    assert "its filter gzip fails, so the file is damaged" in said
    assert not [other for other in os.listdir() if other.startswith("x")]


@pytest.mark.parametrize("name", ["x.npy", "x.csv", "x.h5"])
@pytest.mark.parametrize("linked", [False, True], ids=["itself", "by a link"])
def test_only_files_are_overwritten(path: Path, name: str, linked: bool) -> None:
    """Whoever may write where devices are would put a file in the place of one; and a pipe would be waited for."""
    os.mkfifo("pipe" if linked else name)
    if linked:
        os.symlink("pipe", name)
    for words in (("data", "read", "data.h5", "plain"), ("call", GAUSSIAN, "sample", "--n", "5")):
        for more in ((), ("--overwrite",)):
            assert fail(*words, "-o", name, *more) == f"demos-hpc: {name} is in the way: it is no regular file"
    assert stat.S_ISFIFO(os.stat(name).st_mode)
    assert os.path.islink(name) == linked


# ---- interruptions -------------------------------------------------------------------------------------------


#: A command that stops where a part is done, says so, and goes on when it gets a line.
HALTING = """if True:
    import signal, sys
    from demos_hpc.cli import exports, main
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which may be ignored where tests run
    exports.BLOCK_BYTES = 300
    real, n = exports.Picked.submit, 0
    def submit(*arguments):
        global n
        n += 1
        if n == 4:
            print("here", flush=True)
            sys.stdin.readline()
            if sys.argv[-1] == "--overwrite":
                print("there", flush=True)
                sys.stdin.readline()
        return real(*arguments)
    exports.Picked.submit = submit
    sys.argv = ["demos-hpc", *sys.argv[1:]]
    main()
"""


def start_halting(*words: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", HALTING, *words], stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("out", ["x.npy", "x.csv", "x.h5", ""])
def test_signals_end_reading_with_the_block(path: Path, out: str, number: int, status: int) -> None:
    words = ("data", "read", "data.h5", "plain", *(("--out", out) if out else ("--json",)))
    with start_halting(*words) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "here\n"
        child.send_signal(number)
        shown, said = child.communicate("\n")
    assert (child.returncode, shown) == (status, ""), said
    assert "Traceback" not in said
    assert not out or not Path(out).exists()
    if out == "x.h5":
        assert "of 100 rows: the same again goes on with it" in said
        assert "going on" in invoke(*words).stderr
    else:
        assert not [name for name in os.listdir() if name.startswith("x")]


def test_a_second_interrupt_ends_at_once(path: Path) -> None:
    """The first one is noted; the process is not yet where it looks for that."""
    with start_halting("data", "read", "data.h5", "plain", "-o", "x.npy", "--overwrite") as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == "here\n"
        child.send_signal(signal.SIGINT)
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "there\n"
        child.send_signal(signal.SIGINT)
        assert child.wait() == -signal.SIGINT
    assert not Path("x.npy").exists()


@pytest.mark.parametrize("words", [("checksum", "data.h5"), ("read", "data.h5", "deep.zipped", "--out", "x.csv")])
def test_an_interrupt_that_python_swallows_comes_nevertheless(path: Path, words: tuple[str, ...]) -> None:
    """What a handler raises in a callback of a weak reference is lost, and h5py has such callbacks."""
    code = """if True:
        import os, signal, sys, weakref
        from demos_hpc import datasets
        from demos_hpc.cli import exports, main
        signal.signal(signal.SIGINT, signal.default_int_handler)
        exports.BLOCK_BYTES = 3000
        real, n = datasets.DataSet.read, 0
        class Thing: pass
        def interrupt(reference):
            os.kill(os.getpid(), signal.SIGINT)
            sum(range(1000))
        def read(*arguments):
            global n
            n += 1
            if n == 2:
                thing = Thing()
                reference = weakref.ref(thing, interrupt)
                del thing
            return real(*arguments)
        datasets.DataSet.read = read
        sys.argv = ["demos-hpc", "data", *sys.argv[1:]]
        main()
    """
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert "ignored" not in done.stderr
    assert not Path("x.csv").exists()


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(SystemExit) as caught, listen():
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == 143
    with listen(at_once=False) as interruption:
        interruption.check()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            interruption.check()
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_all_rows_in_blocks_are_all_rows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demos_hpc.cli.exports.BLOCK_BYTES", 100)
    monkeypatch.setattr("demos_hpc.cli.exports.TEXT_VALUES", 5)
    assert read("data", "read", "data.h5", "plain")["values"] == ROWS.tolist()
    assert read("data", "read", "data.h5", "lists")["values"] == [[], [], [1, 2]]
    assert invoke("data", "read", "data.h5", "plain", "-o", "x.csv").exit_code == 0
    np.testing.assert_array_equal(np.array(read_csv("x.csv")[1:], dtype=float), ROWS)


def test_a_selection_that_looks_like_an_option(path: Path) -> None:
    text = " ".join(invoke("data", "read", "--help").stdout.replace("│", " ").split())
    assert "if it begins with '-'" in text
    result = invoke("data", "read", "data.h5", "plain", "--json", "--", "-1")
    assert json.loads(result.stdout)["values"] == ROWS[-1].tolist()


# ---- checksums -----------------------------------------------------------------------------------------------


def test_verify(model: str) -> None:
    result = invoke("data", "verify", model, "--json")
    assert result.exit_code == 1
    found = {line["dataset"]: line for line in json.loads(result.stdout)}
    assert [line["result"] for line in found.values()] == ["ok", "not declared", "differs", "failed"]
    assert found["plain"]["found"] == found["plain"]["declared"]
    assert found["wrong"]["declared"] == f"sha256:{'0' * 64}"
    assert "cannot be opened" in found["gone"]["problem"]
    text = invoke("data", "verify", model).stdout
    assert f"found    {found['wrong']['found']}" in text
    assert invoke("data", "verify", model, "plain", "events").exit_code == 0


def test_verify_of_a_file(path: Path) -> None:
    found = {line["dataset"]: line["result"] for line in read("data", "verify", "data.h5")}
    assert set(found.values()) == {"not declared", "empty"}
    assert found["empty"] == "empty"


def test_checksums_to_paste(path: Path, tmp_path: Path) -> None:
    text = invoke("data", "checksum", "data.h5:/deep/zipped").stdout
    checksum = compute_checksum(f"{path}:/deep/zipped")
    assert text == f'Dataset("deep.zipped", "data.h5:/deep/zipped", checksum="{checksum}"),\n'
    result = invoke("data", "checksum", "data.h5")
    lines = result.stdout.splitlines()
    assert len(lines) == 6
    assert result.exit_code == 1
    assert result.stderr == ("demos-hpc: data.h5:/empty is empty: it has a type, but no elements, and so no checksum\n")
    spec = f"ModelSpec('p', datasets=({''.join(lines)}))"
    code = f"from demos_hpc import Dataset, ModelSpec\nclass Pasted:\n    spec = {spec}\n"
    (tmp_path / "pasted.py").write_text(code, encoding="utf-8")
    assert {line["result"] for line in read("data", "verify", "pasted.py:Pasted")} == {"ok"}
    told = read("data", "checksum", "data.h5:/deep/zipped")
    assert told == [{"name": "deep.zipped", "path": "data.h5:/deep/zipped", "checksum": checksum, "problem": ""}]


def test_checksums_of_what_has_some_and_some_not(path: Path) -> None:
    with h5py.File("mixed.h5", "w") as file:
        file["a"] = [1]
        file.create_dataset("b", data=file["a"].ref, dtype=h5py.ref_dtype)
        file["c"] = h5py.Empty("f4")
        file["d"] = [2]
    result = invoke("data", "checksum", "mixed.h5", "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert [bool(line["checksum"]) for line in told] == [True, False, False, True]
    assert "references to objects" in told[1]["problem"]
    for name in "bc":
        assert f"demos-hpc: mixed.h5:/{name} " in result.stderr
    with h5py.File("none.h5", "w"):
        pass
    assert fail("data", "checksum", "none.h5") == "demos-hpc: none.h5 has no datasets"


# ---- over MPI, and at servers --------------------------------------------------------------------------------


def test_workers_of_its_own(model: str, path: Path) -> None:
    """The command is started once more, as the analysis of a launch; what it exits with is what it found."""
    words = (*DEMOS, "data", "verify", model, "--workers", "2", "--json")
    done = run_command(words, cwd=path.parent, deadline=60.0, settings={})
    assert done.code == 1, done.text
    assert [line["result"] for line in json.loads(done.out)] == ["ok", "not declared", "differs", "failed"]
    words = (*DEMOS, "data", "read", "data.h5", "deep.zipped", "7,:3", "-w", "2", "--json")
    done = run_command(words, cwd=path.parent, deadline=60.0, settings={})
    assert json.loads(done.out)["values"] == [70, 71, 72], done.text


HALTED = """
import os
import numpy as np
from demos_hpc import ModelSpec, Observable, Parameter

class Halted:
    observables = [Observable("energy", "GeV")]
    spec = ModelSpec(name="halted", parameters=[Parameter("mass", "GeV", 91.0)], observables=observables, block_rows=8)
    rows = 0

    def log_density(self, x, params):
        return -x[:, 0] * params[..., 0]

    def sample(self, n, params, rng):
        self.rows += n
        if self.rows > 100 and os.path.exists("halt"):  # parts are of 16 rows, and 3 are ahead of what is written
            open("halt", "w").close()
            open("never")
        return rng.normal(params[0], 1.0, (n, 1))
"""


@pytest.mark.parametrize("everybody", [True, False], ids=["group", "process"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_launch_that_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: int, everybody: bool
) -> None:
    """A terminal tells the whole group of processes, a batch system the first of them; the same again goes on."""
    monkeypatch.chdir(tmp_path)
    Path("halted.py").write_text(HALTED, encoding="utf-8")
    words = (*DEMOS, "call", "halted.py:Halted", "sample", "--n", "4000", "--seed", "1", "-w", "2", "--out", "x.h5")
    os.mkfifo("halt")
    os.mkfifo("never")
    code = "import os, signal, sys; signal.signal(2, signal.default_int_handler); os.execv(sys.argv[1], sys.argv[1:])"
    with (
        subprocess.Popen(
            [sys.executable, "-c", code, *words],
            env={**os.environ, "PYTHONPATH": PACKAGE},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as child,
        open("halt", encoding="ascii"),
    ):  # a worker has come so far
        (os.killpg if everybody else os.kill)(child.pid, number)
        _, said = child.communicate()
    assert child.returncode == status, said
    assert "Traceback" not in said
    assert not Path("x.h5").exists()
    assert Path("x.h5.partial").exists(), said
    os.unlink("halt")
    done = run_command(words, cwd=tmp_path, deadline=60.0, settings={})
    assert done.code == 0, done.text
    assert "of 4000 rows: going on" in done.err
    with h5py.File("x.h5") as file:
        np.testing.assert_array_equal(file["sample"][()], demos_hpc.local("halted.py:Halted").sample(4000, seed=1))


def test_a_server_of_a_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(str(path), path.parent, workers=1, name="rows") as server:
        for name, value in server.environment.items():
            if name.startswith("DEMOS_"):
                monkeypatch.setenv(name, value)
        with server.connect() as remote:
            assert remote.spec.name == "data"
            np.testing.assert_array_equal(remote.dataset("plain", direct=False)[5:7], ROWS[5:7])
        assert "deep.zipped" in invoke("data", "ls", "rows").stdout
        assert read("data", "read", "data", "plain", "3")["values"] == ROWS[3].tolist()
        assert "100 x 3" in invoke("info", "rows").stdout
        assert invoke("data", "verify", "data", "plain").exit_code == 0


def test_a_file_that_cannot_be_served_is_found_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("demos_hpc.cli.servers.Supervisor", None)
    monkeypatch.setattr("demos_hpc.cli.launches.start", None)
    Path("fit.py").touch()
    Path("garbage.h5").write_bytes(b"no HDF5")
    with h5py.File("none.h5", "w"):
        pass
    for name, said in (
        ("garbage.h5", "garbage.h5 cannot be opened"),
        ("none.h5", "data file 'none.h5' has no datasets"),
        ("lost.h5", "data file 'lost.h5' does not exist"),
    ):
        for words in (
            ["serve", name, "--workers", "1"],
            ["run", name, "fit.py"],
            ["run", "nu_atm", "--model", name, "--dry-run", "--", "fit.py"],
            ["call", name, "evaluate", "-w", "1"],
            ["data", "verify", name, "-w", "1"],
            ["data", "read", name, "x", "-w", "1"],
            ["data", "ls", name],
        ):
            assert said in fail(*words)


# ---- results into files --------------------------------------------------------------------------------------


def test_results_into_hdf5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer = read("call", GAUSSIAN, "sample", "--n", "3000", "--seed", "5", "--out", "s.h5")
    assert (answer["rows"], answer["resumed_at"], answer["columns"]) == (3000, 0, ["x0"])
    gaussian = demos_hpc.local(GAUSSIAN)
    with h5py.File("s.h5") as file:
        np.testing.assert_array_equal(file["sample"][()], gaussian.sample(3000, seed=5))
    result = invoke("call", GAUSSIAN, "log_density", "--x", "s.h5:/sample", "--out", "d.h5", "-p", "mu=1")
    assert result.exit_code == 0, result.output
    assert "written to d.h5: 3000 rows of log_density" in result.stderr
    with h5py.File("d.h5") as file:
        expected = gaussian.log_density(gaussian.sample(3000, seed=5), [1, 1])
        np.testing.assert_array_equal(file["log_density"][()], expected)
    answer = read("call", GAUSSIAN, "log_density_gradient", "--x", "s.h5", "--wrt", "x", "--out", "g.h5")
    assert answer["columns"] == ["log_density", "d/dx0"]
    answer = read("call", GAUSSIAN, "log_likelihood", "--x", "1;2", "--out", "l.h5")
    assert answer["rows"] == 1


@pytest.mark.parametrize("name", ["p.npy", "p.csv", "p.h5", "p.h5:/points"])
def test_scans_into_hdf5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    points = np.stack([np.linspace(-1, 1, 50), np.linspace(1, 2, 50)], axis=1)
    if name.endswith(".npy"):
        np.save(name, points)
    elif name.endswith(".csv"):
        np.savetxt(name, points, delimiter=",", header="mu,sigma", comments="")
    else:
        with h5py.File("p.h5", "w") as file:
            file["points"] = points
    answer = read("call", GAUSSIAN, "evaluate", "-p", name, "--out", "e.h5")
    assert answer["rows"] == 50
    with h5py.File("e.h5") as file:
        np.testing.assert_array_equal(file["evaluate"][:, 1], points[:, 1] ** 2)
    # The same files, where the result is no HDF5 file.
    assert len(read("call", GAUSSIAN, "evaluate", "-p", name)["result"]) == 50


def test_rows_of_fields_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with h5py.File("p.h5", "w") as file:
        file["p"] = np.rec.fromarrays([[2.0, 3.0], [0.5, 0.6], [7, 8]], names=["sigma", "mu", "other"])
    answer = read("call", GAUSSIAN, "evaluate", "-p", "p.h5:/p")
    assert answer["result"] == [[0.5, 4.0], [0.6, 9.0]]


def test_a_file_of_data_has_no_density(path: Path) -> None:
    said = "demos-hpc: model 'data' has no observables, and takes no x; it has dataset"
    assert fail("call", "data.h5", "log_density", "--x", "1") == said


def test_a_single_row_is_one_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("p.npy", [[1.0, 2.0]])
    assert read("call", GAUSSIAN, "sample", "--n", "50", "-p", "p.npy", "--seed", "1", "--out", "s.h5")["rows"] == 50
    with h5py.File("s.h5") as file:
        assert file["sample"].attrs["params"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", "-p", "no.npy"], "params: no.npy cannot be read"),
        (["evaluate", "-p", "no.h5"], "params: there is no file 'no.h5'"),
        (["evaluate", "-p", "two.h5"], "two.h5 has /a, /b: write two.h5:/a"),
        (["evaluate", "-p", "two.h5:/c"], "there is no /c"),
        (["evaluate", "-p", "two.h5:/a"], "params has shape (4, 1)"),
        (["log_density", "--x", "no.csv"], "no.csv cannot be read"),
        (["log_density", "--x", "1,2"], "x has shape (1, 2)"),
        (["sample", "--n", "-1"], "n is -1"),
        (["sample", "--seed", "-1"], "seed is -1"),
        (["sample", "-p", "sigma=-1"], "'sigma' is -1.0, outside"),
    ],
)
def test_bad_input_of_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    with h5py.File("two.h5", "w") as file:
        file["a"], file["b"] = np.arange(4.0), np.arange(5.0)
    assert message in fail("call", GAUSSIAN, *words, "--out", "x.h5")
    assert not [name for name in os.listdir() if name.startswith("x")]


def test_finite_differences_into_hdf5(tmp_path: Path) -> None:
    out = str(tmp_path / "g.h5")
    words = ("call", GAUSSIAN, "log_density_gradient", "--x", "1;2", "--finite-difference", "--out", out)
    assert read(*words)["rows"] == 2
    with h5py.File(out) as file:
        np.testing.assert_allclose(file["log_density_gradient"][:, 1], [1.0, 2.0], rtol=1e-6)
        assert file["log_density_gradient"].attrs["method"] == "finite-difference"


@pytest.mark.parametrize(("number", "status"), [("SIGKILL", -9), ("SIGTERM", 143), ("SIGINT", 130)])
def test_a_sample_that_is_begun_again_with_another_seed(tmp_path: Path, number: str, status: int) -> None:
    """A file is gone on with or refused, and the command says which."""
    out = tmp_path / "s.h5"
    code = f"""if True:
        import os, signal, sys
        from demos_hpc import writing
        from demos_hpc.cli import main
        signal.signal(signal.SIGINT, signal.default_int_handler)
        real, n = os.pwrite, [0]
        def pwrite(*arguments):
            n[0] += 1
            if n[0] == 6:
                os.kill(os.getpid(), signal.{number})
            return real(*arguments)
        os.pwrite = pwrite
        sys.argv = "demos-hpc call {GAUSSIAN} sample --n 100000 --seed 1 --out {out}".split()
        main()
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert ("the same again goes on with it" in done.stderr) is (number != "SIGKILL")
    assert "Traceback" not in done.stderr
    words = ("call", GAUSSIAN, "sample", "--n", "100000", "--out", str(out))
    assert "seed is 1 there, 2 here" in fail(*words, "--seed", "2")
    result = invoke(*words)
    assert result.exit_code == 0
    assert " of 100000 rows: going on" in result.stderr
    with h5py.File(out) as file:
        np.testing.assert_array_equal(file["sample"][()], demos_hpc.local(GAUSSIAN).sample(100_000, seed=1))
