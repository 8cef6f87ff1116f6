"""Logs: one line an event, followed by its request, without secrets, that nobody can forge and that never fail."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos_hpc import logs
from demos_hpc.errors import InvalidInput, Status
from demos_hpc.logs import KEPT_FILES, LONGEST_VALUE, OWN_FIELDS, SECRETS, Logger, configure, name_request, restore

CHECK = settings(derandomize=True, deadline=None, max_examples=200)
log = Logger("door")


@pytest.fixture(autouse=True)
def _leave_logging_alone() -> Iterator[None]:
    yield
    restore()


class Log:
    """A log in a file."""

    def __init__(self, path: Path, level: str = "debug", *, json: bool = True) -> None:
        self.path = path
        configure(level, path, json=json, role="dispatcher", name="nu-1")

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def lines(self) -> list[str]:
        return self.text.split("\n")[:-1]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    @property
    def event(self) -> dict[str, Any]:
        """The one that is there."""
        assert len(self.events) == 1
        return self.events[0]


@pytest.fixture
def log_json(tmp_path: Path) -> Log:
    return Log(tmp_path / "demos.log")


@pytest.fixture
def log_text(tmp_path: Path) -> Log:
    return Log(tmp_path / "demos.log", json=False)


# ---- lines -------------------------------------------------------------------------------------------------------


def test_a_line_of_json_says_when_who_where_and_what(log_json: Log) -> None:
    log.info("client joined", client=3, user="ada")
    event = log_json.event
    assert list(event) == ["time", "level", "role", "name", "host", "pid", "part", "event", "client", "user"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["time"])
    assert abs(datetime.fromisoformat(event["time"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert (event["host"], event["pid"]) == (socket.gethostname(), os.getpid())
    assert [event[name] for name in ("level", "role", "name", "part", "event", "client", "user")] == [
        "info", "dispatcher", "nu-1", "door", "client joined", 3, "ada"
    ]  # fmt: skip


def test_a_line_for_people_says_the_same(log_text: Log) -> None:
    log.warning("client joined", client=3, user="Ada L.", note="", rate=0.5, idle=None)
    time, rest = log_text.lines[0].split(" ", 1)
    assert datetime.fromisoformat(time).tzinfo is not None
    assert rest == (
        f'warning dispatcher nu-1[{os.getpid()}] door: client joined client=3 user="Ada L." note="" rate=0.5 idle=null'
    )


def test_times_are_those_of_the_record_to_the_millisecond() -> None:
    record = logging.makeLogRecord({"created": 1700000000.9996})
    assert logs._format_time(record) == "2023-11-14T22:13:20.999Z"


def test_a_request_is_followed_through_all_lines_about_it(log_json: Log) -> None:
    request = name_request(3, 17)
    assert request == "3:17"
    log.debug("request arrived", request=request, rows=10)
    Logger("scheduler").debug("chunk sent", request=request, chunk=99, worker=4)
    Logger("scheduler").debug("chunk sent", request=name_request(31, 7), chunk=100, worker=4)
    followed = [event for event in log_json.events if event.get("request") == "3:17"]
    assert [(e["part"], e["event"], e.get("chunk"), e.get("worker")) for e in followed] == [
        ("door", "request arrived", None, None),
        ("scheduler", "chunk sent", 99, 4),
    ]


def test_fields_of_an_event_do_not_hide_those_of_the_line(log_json: Log) -> None:
    log.info("joined", host="elsewhere", pid=1, event="x", time=0, level="none", self="me")
    event = log_json.event
    assert (event["host"], event["pid"], event["event"], event["level"]) == (
        socket.gethostname(), os.getpid(), "joined", "info"
    )  # fmt: skip
    assert (event["host_"], event["pid_"], event["event_"], event["level_"], event["self"]) == (
        "elsewhere", 1, "x", "none", "me"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, None),
        (True, True),
        (np.int64(7), 7),
        (np.float64(0.5), 0.5),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (Status.BUSY, "BUSY"),
        (b"abc", "<3 bytes>"),
        (ValueError("why"), "ValueError: why"),
        ([1, (2, float("nan")), {3}], [1, [2, "nan"], [3]]),
        ({"a": {1: b"x"}}, {"a": {"1": "<1 bytes>"}}),
        (Path("/tmp/x"), "/tmp/x"),
        ("a" * LONGEST_VALUE, "a" * LONGEST_VALUE),
        ("a" * LONGEST_VALUE + "b" * LONGEST_VALUE, f"{'a' * 2000} ... {LONGEST_VALUE} characters ... {'b' * 2000}"),
        (list(range(1000)), list(range(100))),
        ([[[[[1]]]]], [[["[[1]]"]]]),
        ("half \ud800", "half \ud800"),
    ],
)
def test_values_become_what_json_knows(log_json: Log, value: Any, written: Any) -> None:
    log.info("event", value=value)
    assert log_json.event["value"] == written


def test_a_value_that_cannot_be_shown_harms_nobody(log_json: Log) -> None:
    class Awkward:
        def __str__(self) -> str:
            raise RuntimeError("not me")

    loop: list[Any] = []
    loop.append(loop)
    log.info("event", awkward=Awkward(), loop=loop)
    assert log_json.event["awkward"] == "<Awkward that cannot be shown: RuntimeError>"


def test_an_exception_brings_its_traceback(log_json: Log, tmp_path: Path) -> None:
    def fail() -> None:
        try:
            raise ValueError("line one\n2026-01-01T00:00:00.000Z info forged: line")
        except ValueError as error:
            log.exception("it failed", error=error, request="3:1")

    fail()
    event = log_json.event
    assert (event["level"], event["request"]) == ("error", "3:1")
    assert event["error"].startswith("ValueError: line one")
    assert event["traceback"].startswith("Traceback (most recent call last)")
    text = Log(tmp_path / "text.log", json=False)
    fail()
    first, *others = text.lines
    assert "it failed" in first
    assert len(others) >= 4
    assert all(line.startswith("    | ") for line in others)


# ---- levels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_levels(tmp_path: Path, level: str, written: list[str]) -> None:
    file = Log(tmp_path / "demos.log", level)
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)(name)
    assert [event["level"] for event in file.events] == written


def test_an_unknown_level_is_refused_and_changes_nothing(log_json: Log) -> None:
    with pytest.raises(InvalidInput, match="log level 'loud'; it is one of debug, info, warning, error"):
        configure("loud")
    log.info("still here")
    assert log_json.event["event"] == "still here"


def test_a_level_that_is_off_builds_nothing(tmp_path: Path) -> None:
    class Untouchable:
        def __str__(self) -> str:
            raise AssertionError("it was looked at")

        __repr__ = __str__

    file = Log(tmp_path / "demos.log", "info")
    value = Untouchable()
    log.debug("event", client=3, value=value)
    assert file.lines == []


# ---- secrets and forgers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*sorted(SECRETS), "Key", "server_proof", "x-auth-token", "API_KEY"])
@pytest.mark.parametrize("as_json", [True, False])
def test_secrets_are_not_written(tmp_path: Path, name: str, as_json: bool) -> None:
    file = Log(tmp_path / "demos.log", json=as_json)
    log.info("hello", user="ada", **{name: "s3cr3t"}, inner={"a": [{name: "s3cr3t"}], name: "s3cr3t"})
    assert "hello" in file.text
    assert "ada" in file.text
    assert "s3cr3t" not in file.text


def test_what_only_sounds_like_a_secret_is_written(log_json: Log) -> None:
    log.info("hello", key_id="k1", key_file="/home/ada/key", monkey="m", tokens=3)
    assert {"key_id": "k1", "key_file": "/home/ada/key", "monkey": "m", "tokens": 3}.items() <= log_json.event.items()


FORGERIES = [
    "x\n2026-01-01T00:00:00.000Z info dispatcher nu-1[1] door: access granted user=mallory",
    "x\r\n{}",
    "x\u2028y\u2029z\x85w\x0b\x0c\x1c\x1d\x1e",
    "\x1b[2J\x1b[31mred",
    'x" user="root',
    "x user=root",
    "\u202egnp.exe",
    "\x00",
    "half \ud800",
]


def read_line(text: str) -> tuple[str, dict[str, Any]]:
    """The event and the fields of a line for people, which can be told apart whatever they contain."""
    decoder = json.JSONDecoder()
    if text.startswith('"'):
        event, at = decoder.raw_decode(text)
    else:
        at = re.match(r"[^=\"\\\\]*", text).end()  # type: ignore[union-attr]
        if at < len(text):  # within the first field's name, or before it
            at = text.rindex(" ", 0, at + 1)
        event = text[:at]
    fields = {}
    while at < len(text):
        assert text[at] == " "
        name, at = read_word(decoder, text, at + 1)
        assert text[at] == "="
        fields[name], at = read_word(decoder, text, at + 1)
    return event, fields


def read_word(decoder: json.JSONDecoder, text: str, at: int) -> tuple[Any, int]:
    if text[at] in '"[{':
        return decoder.raw_decode(text, at)
    match = re.compile(r"[^ =\"'\\\\]+").match(text, at)
    assert match is not None
    return match.group(), match.end()


@pytest.mark.parametrize("text", FORGERIES)
@pytest.mark.parametrize("as_json", [True, False])
def test_no_text_makes_a_line_or_a_field_of_its_own(tmp_path: Path, text: str, as_json: bool) -> None:
    file = Log(tmp_path / "demos.log", json=as_json)
    log.info(text, user=text, **{text: [text]})
    logging.getLogger("demos_hpc.other").info("plain %s", text)
    lines = file.text.splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    if as_json:
        assert [event["event"] for event in file.events] == [text, f"plain {text}"]
        assert (file.events[0]["user"], file.events[0][text]) == (text, [text])
    else:
        assert read_line(lines[0].partition(" door: ")[2]) == (text, {"user": text, text: [text]})
        assert read_line(lines[1].partition(" other: ")[2]) == (f"plain {text}", {})


TEXTS = st.text(st.characters() | st.sampled_from(" =\"'\\\\\n\x1b[{"), max_size=12)


@CHECK
@given(TEXTS.filter(bool), st.dictionaries(TEXTS, TEXTS | st.lists(TEXTS, max_size=2), max_size=4))
def test_lines_for_people_can_be_read_by_programs(event: str, fields: dict[str, Any]) -> None:
    odd = {"traceback", *OWN_FIELDS}
    fields = {name: value for name, value in fields.items() if name not in odd and not logs._is_secret(name)}
    message = str(logs._Message(event, fields))
    assert message.isprintable()
    assert read_line(message) == (event, fields)


# ---- where lines go ----------------------------------------------------------------------------------------------


def test_without_a_file_lines_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", role="worker")
    log.info("hello")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(f" info worker[{os.getpid()}] door: hello\n")


@pytest.mark.parametrize("is_file", [False, True])
def test_warnings_are_shown_once_and_stand_in_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], is_file: bool
) -> None:
    path = tmp_path / "demos.log"
    configure("warning", path if is_file else None, json=is_file)
    logs.warn("rank 3 has gone")
    assert capsys.readouterr().err == "demos-hpc: rank 3 has gone\n"
    if is_file:
        found = json.loads(path.read_text(encoding="utf-8"))
        assert (found["level"], found["part"], found["event"]) == ("warning", "operator", "rank 3 has gone")


def test_the_last_configuration_holds(tmp_path: Path) -> None:
    first = Log(tmp_path / "first.log")
    log.info("one")
    second = Log(tmp_path / "second.log")
    log.info("two")
    restore()
    log.info("three")
    assert [event["event"] for event in first.events] == ["one"]
    assert [event["event"] for event in second.events] == ["two"]


def test_a_library_is_heard_by_those_who_listen(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        log.info("client joined", client=3, key="s3cr3t")
    assert caplog.messages == ["client joined client=3"]
    assert caplog.records[0].name == "demos_hpc.door"


def test_a_log_of_ones_own_is_not_written_twice(log_json: Log) -> None:
    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record)

    heard: list[logging.LogRecord] = []
    listener = Listener()
    logging.getLogger().addHandler(listener)
    try:
        log.info("one")
        restore()
        log.error("two")
    finally:
        logging.getLogger().removeHandler(listener)
    assert [str(record.msg) for record in heard] == ["two"]
    assert log_json.event["event"] == "one"


def test_a_library_is_silent_where_nobody_listens() -> None:
    code = "from demos_hpc.logs import Logger; Logger('door').error('hello')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_file_that_has_grown_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "ROTATE_BYTES", 2000)
    file = Log(tmp_path / "demos.log")
    for nth in range(300):
        log.info("event", nth=nth)
    names = sorted(os.listdir(tmp_path))
    assert names == ["demos.log", *(f"demos.log.{n}" for n in range(1, KEPT_FILES + 1))]
    assert all(path.stat().st_size < 2400 for path in tmp_path.iterdir())
    kept = "".join((tmp_path / name).read_text() for name in [*names[:0:-1], names[0]])
    numbers = [json.loads(line)["nth"] for line in kept.splitlines()]
    assert numbers == list(range(numbers[0], 300))
    assert file.events


def test_a_file_that_cannot_be_opened_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"nowhere/demos.log cannot be opened: No such file.*directory that exists"):
        configure("info", tmp_path / "nowhere" / "demos.log")


# ---- when it cannot be written -----------------------------------------------------------------------------------


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_full_disk_is_no_error_of_the_service(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "/dev/full", json=True)
    for nth in range(5000):
        log.info("event", nth=nth, text="x" * 100)
    restore()
    assert capsys.readouterr() == ("", "")


def test_standard_error_that_is_gone_is_no_error_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure("info")
    log.info("one")
    stream.close()
    log.info("two")
    monkeypatch.setattr(sys, "stderr", None)
    configure("info")
    log.info("three")
    assert stream.closed


def test_a_disk_that_is_full_for_a_while_costs_lines_which_are_counted(tmp_path: Path) -> None:
    """A limit on the size of files is hit, also in the midst of putting a file aside, and lifted again."""
    path = tmp_path / "demos.log"
    code = f"""if True:
        import json, resource, sys
        from demos_hpc import logs
        logs.ROTATE_BYTES = 6000
        log = logs.Logger("part")
        logs.configure("info", {str(path)!r}, json=True)
        for n in range(100):
            if n == 10:
                resource.setrlimit(resource.RLIMIT_FSIZE, (2500, resource.RLIM_INFINITY))
            if n == 60:
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            log.info("event", n=n)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    text = "".join(p.read_text() for p in sorted(tmp_path.iterdir(), reverse=True))
    events = []
    for line in text.splitlines():
        start = line.rfind('{"time"')  # the line in which the disk became full may be cut off
        events.append(json.loads(line[start:]))
    lost = [event for event in events if "lost" in event["event"]]
    numbers = [event["n"] for event in events if "n" in event]
    assert len(lost) == 1
    assert lost[0]["level"] == "warning"
    assert 0 < lost[0]["lines"] <= 50
    assert numbers[:10] == list(range(10))
    assert numbers[-39:] == list(range(61, 100))


def test_a_file_that_can_no_longer_be_closed_is_put_aside_all_the_same(tmp_path: Path) -> None:
    """Where the disk is full just when a file has grown enough: what is left of its last line cannot be written."""
    code = f"""if True:
        import resource
        from demos_hpc import logs
        logs.ROTATE_BYTES = 2400
        log = logs.Logger("part")
        logs.configure("info", {str(tmp_path / "demos.log")!r}, json=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2450, resource.RLIM_INFINITY))
        for n in range(18):
            log.info("event", n=n, text="x" * 750)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    lines = [line for path in sorted(tmp_path.iterdir(), reverse=True) for line in path.read_text().splitlines()]
    events = [json.loads(line) for line in lines if line.endswith("}")]
    numbers = [event["n"] for event in events if "n" in event]
    lost = [event["lines"] for event in events if "lost" in event["event"]]
    # Of four lines two have room, one is cut off, and one finds out that the file cannot be closed.
    assert numbers == [0, 1, 4, 5, 8, 9, 12, 13, 16, 17]
    assert lost == [2, 2, 2, 2]
    assert len(os.listdir(tmp_path)) == 5
