"""Structured logs: an event and its fields, as a line of JSON or a line for people, by the standard library's logging.

``log = Logger("door")``, and ``log.info("client joined", client=3, user="ada")`` where there is something to tell;
`configure` once in a process that has a log of its own. ``request=name_request(client, id)`` on every line about a
request lets it be followed from client to worker, ``chunk`` and ``worker`` its work. Secrets are not written, lines
cannot be forged, and a log that cannot be written, for a full disk say, never becomes an error of the service.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from json import dumps
from logging.handlers import RotatingFileHandler
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from .errors import InvalidInput

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
#: Fields of these names, or of names whose last word is one (``server_proof``), are left out.
SECRETS = frozenset({"key", "secret", "proof", "credential", "token", "password", "passphrase"})
#: What every line has; other fields of these names get an underscore behind.
OWN_FIELDS = frozenset({"time", "level", "role", "name", "host", "pid", "part", "event"})
#: A file of so many bytes is put aside, and so many of those are kept.
ROTATE_BYTES = 32 << 20
KEPT_FILES = 5
#: Longest text of one value, characters; most items of a list; how deep lists are looked into.
LONGEST_VALUE = 4000
MOST_ITEMS = 100
DEEPEST_VALUE = 4
#: What may not stand in a bare word.
_MISLEADING = frozenset(" \"'=\\[]{}")

_ROOT = logging.getLogger("demos_hpc")
_ROOT.addHandler(logging.NullHandler())  # a library is silent until somebody listens


def name_request(client: int, number: int) -> str:
    """What a request is called in every log: ``"3:17"`` is number 17 of client 3."""
    return f"{client}:{number}"


def warn(text: str) -> None:
    """A line for the operator: on standard error, and in the log as well where that is a file."""
    # In one write, or what others say at the same time comes in between where Python does not buffer.
    print(f"demos-hpc: {text}\n", end="", file=sys.stderr, flush=True)
    if any(isinstance(handler, _File) for handler in _ROOT.handlers):
        Logger("operator").warning(text)


class Logger:
    """Where one part of the program tells what happens; a level that is off costs a look, and nothing is built."""

    __slots__ = ("_logger",)

    def __init__(self, part: str) -> None:
        self._logger = _ROOT.getChild(part)

    @property
    def traces(self) -> bool:
        """Whether debug events are written: for whoever cannot spare even the making of the fields."""
        return self._logger.isEnabledFor(logging.DEBUG)

    def debug(self, event: str, /, **fields: Any) -> None:
        if self._logger.isEnabledFor(logging.DEBUG):
            self._write(logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: Any) -> None:
        if self._logger.isEnabledFor(logging.INFO):
            self._write(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: Any) -> None:
        if self._logger.isEnabledFor(logging.WARNING):
            self._write(logging.WARNING, event, fields)

    def error(self, event: str, /, **fields: Any) -> None:
        if self._logger.isEnabledFor(logging.ERROR):
            self._write(logging.ERROR, event, fields)

    def exception(self, event: str, /, **fields: Any) -> None:
        """An error, with the traceback of the exception that is being handled."""
        self.error(event, **fields | {"traceback": traceback.format_exc().strip()})

    def _write(self, level: int, event: str, fields: dict[str, Any]) -> None:
        logger = self._logger
        logger.handle(logger.makeRecord(logger.name, level, "", 0, _Message(event, fields), (), None))


def configure(
    level: str, file: str | Path | None = None, *, json: bool = False, role: str = "", name: str = ""
) -> None:
    """From now on this process logs ``level`` and above; what was configured before is forgotten.

    To ``file``, which no other process may write to, and which is put aside when it has grown (`ROTATE_BYTES`); to
    standard error where none is given. With ``json`` each line is an object of ``time`` (UTC), ``level``, ``role``,
    ``name``, ``host``, ``pid``, ``part``, ``event`` and the event's own fields.

    Raises
    ------
    InvalidInput
        Where there is no such level, or the file cannot be opened.
    """
    if level not in LEVELS:
        raise InvalidInput(f"log level {level!r}; it is one of {', '.join(LEVELS)}")
    handler: logging.Handler = _File(Path(file)) if file else _Stderr()
    handler.setFormatter(_JsonLines(role, name) if json else _Lines(role, name))
    restore()
    _ROOT.addHandler(handler)
    _ROOT.setLevel(LEVELS[level])
    _ROOT.propagate = False


def is_configured() -> bool:
    """Whether `configure` has been called in this process."""
    return any(isinstance(handler, _Unfailing) for handler in _ROOT.handlers)


def restore() -> None:
    """Undoes `configure`: events go to whoever listens to Python's logging in this process."""
    for handler in [handler for handler in _ROOT.handlers if isinstance(handler, _Unfailing)]:
        _ROOT.removeHandler(handler)
        with suppress(OSError, ValueError):  # what is left of it cannot be written either
            handler.close()
    _ROOT.setLevel(logging.NOTSET)
    _ROOT.propagate = True


# ---- what is written -----------------------------------------------------------------------------------------------


class _Message:
    """What a record carries; its text is for other people's handlers, and for people."""

    __slots__ = ("event", "fields")

    def __init__(self, event: str, fields: Mapping[str, Any]) -> None:
        self.event = event
        named = {f"{name}_" if name in OWN_FIELDS else name: value for name, value in fields.items()}
        self.fields: dict[str, Any] = _make_plain(named, DEEPEST_VALUE)

    def __str__(self) -> str:
        fields = dict(self.fields)
        # A traceback has lines of its own, which nothing else looks like.
        trace = str(fields.pop("traceback", "")).splitlines()
        event = _quote(self.event, " '[]{}")
        words = [event, *(f"{_quote(name)}={_quote(value)}" for name, value in fields.items())]
        return "\n    | ".join([" ".join(words), *map(_escape, trace)])


class _Lines(logging.Formatter):
    """``2026-11-20T10:02:39.761Z info dispatcher neutrino[4711] door: client joined client=3 user=ada``."""

    def __init__(self, role: str, name: str) -> None:
        super().__init__()
        self._who = _escape(" ".join(filter(None, (role, name))) or "demos-hpc")

    def format(self, record: logging.LogRecord) -> str:
        message = record.msg if isinstance(record.msg, _Message) else _Message(record.getMessage(), {})
        level = record.levelname.lower()
        return f"{_format_time(record)} {level} {self._who}[{os.getpid()}] {_name_part(record)}: {message}"


class _JsonLines(logging.Formatter):
    """One object a line, in ASCII: some readers take U+2028 and the like for ends of lines."""

    def __init__(self, role: str, name: str) -> None:
        super().__init__()
        self._role = role
        self._name = name
        self._host = socket.gethostname()

    def format(self, record: logging.LogRecord) -> str:
        message = record.msg if isinstance(record.msg, _Message) else _Message(record.getMessage(), {})
        own = {
            "time": _format_time(record),
            "level": record.levelname.lower(),
            "role": self._role,
            "name": self._name,
            "host": self._host,
            "pid": os.getpid(),
            "part": _name_part(record),
            "event": message.event,
        }
        return dumps(own | message.fields, allow_nan=False)


def _format_time(record: logging.LogRecord) -> str:
    seconds, milliseconds = divmod(int(record.created * 1e3), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03d}Z"


def _name_part(record: logging.LogRecord) -> str:
    return record.name.removeprefix("demos_hpc.")


def _make_plain(value: Any, depth: int) -> Any:
    """The value in what JSON knows, without secrets, and not too long."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, Mapping) and depth:
        items = list(value.items())[:MOST_ITEMS]
        return {str(name): _make_plain(item, depth - 1) for name, item in items if not _is_secret(str(name))}
    if isinstance(value, list | tuple | set | frozenset) and depth:
        return [_make_plain(item, depth - 1) for item in list(value)[:MOST_ITEMS]]
    try:
        text = f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else str(value)
    except Exception as error:  # whatever a value does when it is looked at, the service goes on
        text = f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"
    if len(text) <= LONGEST_VALUE:
        return text
    half = LONGEST_VALUE // 2  # of a traceback the end matters most
    return f"{text[:half]} ... {len(text) - 2 * half} characters ... {text[-half:]}"


def _is_secret(name: str) -> bool:
    return name.lower().replace("-", "_").rpartition("_")[2] in SECRETS


def _quote(value: Any, allowed: str = "") -> str:
    """One word of a line for people: bare where nothing in it could be misread, as JSON otherwise."""
    if isinstance(value, str) and value and value.isprintable() and not (set(value) & _MISLEADING) - set(allowed):
        return value
    return _escape(dumps(value, ensure_ascii=False))


def _escape(text: str) -> str:
    """Without ends of lines, or anything else that could steer a terminal; what was JSON still is."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else dumps(c)[1:-1] for c in text)


# ---- where it is written -------------------------------------------------------------------------------------------


class _Unfailing(logging.Handler):
    """A line that cannot be written is lost, and the next one that can be says how many were."""

    lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        lost = self.lost
        super().emit(record)
        if lost and self.lost == lost:
            self.lost = 0
            message = _Message("log lines were lost: they could not be written", {"lines": lost})
            super().emit(logging.makeLogRecord({"name": "demos_hpc.logs", "levelname": "WARNING", "msg": message}))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name for it)
        self.lost += 1


class _Stderr(_Unfailing, logging.StreamHandler):  # type: ignore[type-arg]
    """Standard error."""


class _File(_Unfailing, RotatingFileHandler):
    """A file that does not grow without end."""

    def __init__(self, path: Path) -> None:
        try:
            super().__init__(
                path, maxBytes=ROTATE_BYTES, backupCount=KEPT_FILES, encoding="utf-8", errors="backslashreplace"
            )
        except OSError as error:
            raise InvalidInput(
                f"the log file {path} cannot be opened: {error.strerror};"
                " name one in a directory that exists and that you may write to"
            ) from None

    def shouldRollover(self, record: logging.LogRecord) -> int:  # noqa: N802
        # The library's own formats each line twice.
        if self.stream is None:
            self.stream = self._open()
        return os.fstat(self.stream.fileno()).st_size >= self.maxBytes

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        super().handleError(record)
        # What could not even be flushed on closing would be in the way of every later line.
        if self.stream is not None and self.stream.closed:
            self.stream = None
