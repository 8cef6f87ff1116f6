"""Where settings come from, and what is refused."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demos_hpc.config import CHOICES, PREFIX, Config
from demos_hpc.errors import InvalidInput


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Config.load({}) == Config()


def test_environment_sets_by_name_and_type() -> None:
    environment = {
        "DEMOS_TIMEOUT": "2.5",
        "DEMOS_MAX_QUEUED_REQUESTS": "7",
        "DEMOS_BELL": "udp",
        "DEMOS_RUN_DIR": "/run",
    }
    config = Config.load(environment)
    assert (config.timeout, config.max_queued_requests, config.bell, config.run_dir) == (2.5, 7, "udp", "/run")
    assert isinstance(config.max_queued_requests, int)


@pytest.mark.parametrize("name", [f.name for f in fields(Config)])
def test_every_setting_can_be_set_in_the_environment(name: str) -> None:
    value = CHOICES[name][-1] if name in CHOICES else "3"
    assert str(getattr(Config.load({PREFIX + name.upper(): value}), name)) in (value, "3.0")


def test_other_variables_are_of_no_concern() -> None:
    assert Config.load({"TIMEOUT": "1", "DEMOS_SOMETHING_ELSE": "1"}) == Config()


def test_a_misspelt_setting_is_not_left_out_in_silence() -> None:
    with pytest.raises(InvalidInput, match=r"DEMOS_HEARBEAT is no setting; did you mean DEMOS_HEARTBEAT\?"):
        Config.load({"DEMOS_HEARBEAT": "3"})


def test_toml_file_sets_and_the_environment_wins(tmp_path: Path) -> None:
    path = tmp_path / "demos.toml"
    path.write_text("timeout = 5\nchunk_seconds = 0.5\nmax_request_bytes = 1e9\n", encoding="utf-8")
    config = Config.load({"DEMOS_CONFIG": str(path), "DEMOS_TIMEOUT": "6"})
    assert config == Config(timeout=6.0, chunk_seconds=0.5, max_request_bytes=10**9)
    assert isinstance(config.max_request_bytes, int)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("timeout =", "cannot be read"),
        ("timeuot = 5", "unknown setting 'timeuot'; there are roll_call_timeout"),
        ("timeout = 'long'", "timeout .* is 'long'; it is a number"),
        ("timeout = [1]", r"timeout .* is \[1\]; it is a number"),
        ("max_queued_requests = 2.5", r"max_queued_requests .* is 2\.5; it is a whole number"),
        ("max_queued_requests = inf", "max_queued_requests .* is inf; it is a whole number"),
        ("run_dir = 3", "run_dir .* is 3; it is text"),
        ("[server]\ntimeout = 5", "unknown setting 'server'"),
    ],
)
def test_toml_that_means_nothing_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "demos.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInput, match=message):
        Config.load({"DEMOS_CONFIG": str(path)})


def test_a_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"DEMOS_CONFIG names .*nowhere\.toml"):
        Config.load({"DEMOS_CONFIG": str(tmp_path / "nowhere.toml")})


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("DEMOS_TIMEOUT", "soon", "timeout .* is 'soon'; it is a number"),
        ("DEMOS_TIMEOUT", "-1", r"timeout is -1\.0; it is a number >= 0"),
        ("DEMOS_TIMEOUT", "nan", "timeout is nan; it is a number >= 0"),
        ("DEMOS_WINDOW_BYTES", "1e6", "window_bytes .* is '1e6'; it is a whole number"),
        ("DEMOS_WINDOW_BYTES", "", "window_bytes .* is ''; it is a whole number"),
        ("DEMOS_PORT", "70000", "port is 70000; it is a number from 1 to 65535, or 0 for any"),
        ("DEMOS_BELL", "gong", "bell is 'gong'; it is 'auto' or 'udp'"),
    ],
)
def test_values_that_mean_nothing_are_refused(variable: str, value: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Config.load({variable: value})


@pytest.mark.parametrize("values", [{"timeout": -1}, {"timeout": None}, {"patience": 1}])
def test_changed_refuses_as_load_does(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        Config().changed(**values)


@pytest.mark.parametrize("name", ["window_bytes", "max_queued_requests"])
def test_what_would_keep_everything_from_being_sent_is_refused(name: str) -> None:
    for make in (lambda: Config(**{name: 0}), lambda: Config.load({f"DEMOS_{name.upper()}": "0"})):  # type: ignore[arg-type]
        with pytest.raises(InvalidInput, match=f"setting {name} is 0; nothing could ever be sent: give a number > 0"):
            make()


def test_numbers_of_numpy_are_as_good() -> None:
    config = Config(timeout=np.float32(2.5), max_queued_requests=np.int64(7))  # type: ignore[arg-type]
    assert (type(config.timeout), type(config.max_queued_requests)) == (float, int)
    assert config == Config(timeout=2.5, max_queued_requests=7)


@pytest.mark.parametrize("count", [7.0, np.float64(7), 7])
def test_whole_numbers_may_be_floats(count: Any) -> None:
    config = Config(max_queued_requests=count)
    assert (type(config.max_queued_requests), config.max_queued_requests) == (int, 7)
    assert type(Config(timeout=5).timeout) is float


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_queued_requests": 2.5}, r"max_queued_requests .* is 2\.5; it is a whole number"),
        ({"threads": np.float64("inf")}, "threads .* it is a whole number"),
        ({"timeout": 10**400}, "timeout .* it is a number"),
        ({"timeout": [1]}, r"timeout .* is \[1\]; it is a number"),
    ],
)
def test_the_constructor_refuses_what_is_no_such_number(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Config(**values)


def test_changed_is_a_copy() -> None:
    config = Config()
    assert config.changed(timeout=1).timeout == 1.0
    assert config == Config()
    with pytest.raises(FrozenInstanceError):
        config.timeout = 1.0  # type: ignore[misc]
