"""Which processes have a log, and where."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from demos_hpc.config import Config
from demos_hpc.errors import InvalidInput
from demos_hpc.journal import name_file, open_log, open_log_if_wanted
from demos_hpc.logs import Logger, is_configured, restore


@pytest.fixture(autouse=True)
def _silent_afterwards() -> Iterator[None]:
    restore()
    yield
    restore()


@pytest.mark.parametrize(
    ("file", "name", "expected"),
    [
        ("", "neutrino", None),
        ("demos.log", "neutrino.0", "demos-neutrino.0.log"),
        ("/var/log/demos", "a", "/var/log/demos-a"),
        ("/x/demos.json", "a/../b c\n", "/x/demos-a-..-b-c-.json"),
    ],
)
def test_each_process_has_a_file_of_its_own(file: str, name: str, expected: str | None) -> None:
    assert name_file(file, name) == (None if expected is None else Path(expected))


def test_lines_are_json_in_a_file_and_words_on_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Config(log_level="info", log_file=str(tmp_path / "demos.log"))
    open_log(config, "worker", "neutrino.0")
    Logger("a").info("begun", rows=3)
    event = json.loads((tmp_path / "demos-neutrino.0.log").read_text(encoding="utf-8"))
    assert (event["role"], event["name"], event["event"], event["rows"]) == ("worker", "neutrino.0", "begun", 3)
    assert capsys.readouterr().err == ""
    open_log(Config(log_level="info"), "worker", "neutrino.0")
    Logger("a").info("begun", rows=3)
    assert " info worker neutrino.0[" in capsys.readouterr().err


def test_a_process_without_a_name_is_told_apart_by_its_number(tmp_path: Path) -> None:
    for role in ("client", "worker"):
        open_log(Config(log_file=str(tmp_path / "demos.log")), role)
        (path,) = tmp_path.glob(f"demos-{role}-*-*.log")
        path.unlink()


def test_a_log_that_cannot_be_opened_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be opened"):
        open_log(Config(log_file=str(tmp_path / "no" / "demos.log")), "worker")


def test_an_analysis_keeps_its_own_log_unless_ours_is_wanted(tmp_path: Path) -> None:
    open_log_if_wanted(Config(), "client")
    assert not is_configured()
    assert not Logger("a").traces
    open_log_if_wanted(Config(log_level="debug"), "client")
    assert is_configured()
    assert Logger("a").traces


def test_the_log_of_a_server_is_not_replaced_by_that_of_a_client_in_it(tmp_path: Path) -> None:
    config = Config(log_level="info", log_file=str(tmp_path / "demos.log"))
    open_log(config, "dispatcher", "a")
    open_log_if_wanted(config, "client")
    assert [path.name for path in tmp_path.iterdir()] == ["demos-a.log"]
