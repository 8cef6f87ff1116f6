"""What users have used of models, and how long workers were there for them: for accounting.

Counted in core-seconds: the time that workers computed for somebody, times the threads that they have. A server leaves
records of it in a file, one JSON object a line, each about the time since the one before::

    {"from":"2026-03-01T12:00:00Z","until":"2026-03-01T12:05:00Z","server":"nu_atm","id":"5c0e…","owner":"ada",
     "host":"node17","job":"41",
     "used":[{"user":"bob","model":"nu_atm","requests":10,"rows":20000,"draws":0,"core_seconds":12.5}],
     "workers":[{"model":"nu_atm","core_seconds":2400.0}]}

What is summed up is right whatever the order of the records, and whoever has died in between.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from .errors import InvalidInput
from .identity import find_name
from .shared_files import EXISTING_FILE

#: Pairs of users and models that are told apart; who stands for the users of all others.
MOST_PAIRS = 4096
OTHERS = "(others)"
SUFFIX = ".jsonl"
#: What is counted of a user and a model, in the order in which it is shown.
COUNTS = ("requests", "rows", "draws", "core_seconds")
#: Bytes of a line, and the largest of its numbers: more than anybody has used is no record.
LONGEST_LINE, LARGEST = 16 << 20, 1e18

Description = dict[str, list[dict[str, Any]]]


class Account:
    """What one user had of one model; ``draws`` are those of the ``rows`` that were drawn."""

    __slots__ = COUNTS

    def __init__(self) -> None:
        self.requests = self.rows = self.draws = 0
        self.core_seconds = 0.0


class _Worker(NamedTuple):
    model: str
    cores: int
    since: float


class Usage:
    """The books of one server. Pure: times are given, in seconds of any steady clock."""

    def __init__(self) -> None:
        self._accounts: dict[tuple[str, str], Account] = {}
        self._workers: dict[int, _Worker] = {}
        #: Core-seconds of workers that are gone, by their models.
        self._past: dict[str, float] = {}

    def find(self, user: str, model: str) -> Account:
        """The account of a user and a model; that of all others where there are too many."""
        account = self._accounts.get((user, model))
        if account is None:
            key = (user if len(self._accounts) < MOST_PAIRS else OTHERS, model)
            account = self._accounts.setdefault(key, Account())
        return account

    def come(self, worker: int, model: str, cores: int, now: float) -> None:
        """A worker has so many cores for a model."""
        self._workers[worker] = _Worker(model, cores, now)

    def go(self, worker: int, now: float) -> None:
        """A worker is gone."""
        gone = self._workers.pop(worker, None)
        if gone is not None:
            self._past[gone.model] = self._past.get(gone.model, 0.0) + gone.cores * (now - gone.since)

    def describe(self, now: float) -> Description:
        """``used`` for each user and model; ``workers`` for each model, how long they were there, at work or not."""
        there = dict(self._past)
        for worker in self._workers.values():
            there[worker.model] = there.get(worker.model, 0.0) + worker.cores * (now - worker.since)
        return {
            "used": [
                {"user": user, "model": model, **{name: getattr(account, name) for name in COUNTS}}
                for (user, model), account in self._accounts.items()
            ],
            "workers": [{"model": model, "core_seconds": seconds} for model, seconds in there.items()],
        }


# ---- records -------------------------------------------------------------------------------------------------------


class Book:
    """The file in ``directory`` that keeps what a server's users have used; ``facts`` are what each record repeats.

    Raises
    ------
    InvalidInput
        Where there can be no such file.
    """

    def __init__(self, directory: str | Path, facts: Mapping[str, str], now: float) -> None:
        self.path = Path(directory) / f"{facts['server']}-{facts['id']}{SUFFIX}"
        self._facts = dict(facts)
        self._written: Description = {"used": [], "workers": []}
        self._until = now
        self._is_torn = False
        make_directory(directory)
        try:
            os.close(self._open())
        except OSError as error:
            raise InvalidInput(_explain(directory, error)) from None

    def write(self, told: tuple[float, Description]) -> None:
        """Appends what has been used since the last record until ``now``, in seconds since 1970.

        Raises OSError where it cannot; then the next record has it.
        """
        now, description = told
        record = {
            "from": format_moment(self._until),
            "until": format_moment(now),
            **self._facts,
            **subtract(description, self._written),
        }
        data = (("\n" if self._is_torn else "") + json.dumps(record, separators=(",", ":")) + "\n").encode()
        file = self._open()
        try:
            n_written = os.write(file, data)
            self._is_torn = (self._is_torn or n_written > 0) and n_written < len(data)
            if n_written < len(data):
                raise OSError(f"usage cannot be kept: {self.path} took {n_written} of {len(data)} bytes")
        finally:
            os.close(file)
        self._written, self._until = description, now

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def make_directory(directory: str | Path) -> Path:
    """Where records lie; `InvalidInput` where it cannot be."""
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(_explain(directory, error)) from None
    return Path(directory)


def _explain(directory: str | Path, error: OSError) -> str:
    return (
        f"usage cannot be kept in {directory} (DEMOS_USAGE_DIRECTORY): {error.strerror or error}; make it by mkdir -m"
        " 1777, or leave the variable out"
    )


def subtract(description: Description, before: Description) -> Description:
    """What has come since ``before``, without those to whom nothing did."""
    known = {(one["user"], one["model"]): one for one in before["used"]}
    past = {one["model"]: one["core_seconds"] for one in before["workers"]}
    used = []
    for one in description["used"]:
        then = known.get((one["user"], one["model"]), {})
        more = {name: one[name] - then.get(name, 0) for name in COUNTS}
        if any(more.values()):
            used.append({"user": one["user"], "model": one["model"], **more})
    workers = [
        {"model": one["model"], "core_seconds": one["core_seconds"] - past.get(one["model"], 0.0)}
        for one in description["workers"]
    ]
    return {"used": used, "workers": workers}


def format_moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def read_moment(text: str) -> datetime:
    """A time such as 2026-03-01, 2026-03-01T12:00 or 2026-03-01T12:00:00Z; local unless it says otherwise."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(f"time {text!r}: write it as 2026-03-01, or 2026-03-01T12:00") from None


# ---- sums ----------------------------------------------------------------------------------------------------------


def find_records(paths: Iterable[Path]) -> list[Path]:
    """The files of records: these, and those in directories of them, each once.

    Raises
    ------
    InvalidInput
        Where a directory cannot be read.
    """
    found: dict[Path, None] = {}
    for path in paths:
        try:
            inside = sorted(path.iterdir()) if path.is_dir() else [path]
        except OSError as error:
            raise InvalidInput(f"{_show(path)} cannot be read: {error.strerror or error}") from None
        found.update(dict.fromkeys(one for one in inside if one == path or one.suffix == SUFFIX))
    return list(found)


def read_records(path: Path) -> Iterator[dict[str, Any] | str]:
    """The records of a file, or what is wrong with a line of it, which then does not count.

    Files lie where everybody may write: a record counts where it is of the file's owner, or where root or whoever reads
    it has put the file there.

    Raises
    ------
    InvalidInput
        Where the file cannot be read, or is none.
    """
    name = _show(path)
    try:
        number = os.open(path, EXISTING_FILE)
        about = os.fstat(number)
        if not stat.S_ISREG(about.st_mode):
            os.close(number)
            raise InvalidInput(f"{name} is no file of records")
        with open(number, "rb") as file:
            owner = "" if about.st_uid in (0, os.geteuid()) else find_name(about.st_uid)
            for nth, line in enumerate(iter(lambda: file.readline(LONGEST_LINE + 1), b""), 1):
                if len(line) > LONGEST_LINE:  # files with holes in them have lines without end
                    yield f"what follows from line {nth} of {name} on is too long for a record, and does not count"
                    return
                if line.strip():
                    try:
                        yield _check_record(json.loads(line), owner)
                    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, InvalidInput):
                        yield f"line {nth} of {name} is no record of usage, and does not count"
    except OSError as error:
        raise InvalidInput(f"{name} cannot be read: {error.strerror or error}") from None


def _show(path: Path) -> str:
    """Whoever may write into the directory chooses names; they shall not steer the reader's terminal."""
    return "".join(c if c.isprintable() else "?" for c in str(path))


def _check_record(record: dict[str, Any], owner: str) -> dict[str, Any]:
    read_moment(record["from"]), read_moment(record["until"])
    texts = [record["server"], record["owner"], record.get("job", "")]
    texts += [one[name] for one in record["used"] for name in ("user", "model")]
    texts += [one["model"] for one in record["workers"]]
    numbers = [one[name] for one in record["used"] for name in COUNTS]
    numbers += [one["core_seconds"] for one in record["workers"]]
    if owner and record["owner"] != owner:
        raise ValueError(record)
    if not all(isinstance(text, str) and text.isprintable() for text in texts):
        raise ValueError(record)
    if not all(0 <= n < LARGEST for n in numbers):
        raise ValueError(record)
    return record


def add_up(descriptions: Iterable[Mapping[str, Sequence[Mapping[str, Any]]]]) -> Description:
    """The sum over users and models, who has used most first."""
    used: dict[tuple[str, str], dict[str, Any]] = {}
    there: dict[str, float] = {}
    for description in descriptions:
        for one in description["used"]:
            total = used.setdefault((one["user"], one["model"]), dict.fromkeys(COUNTS, 0))
            for name in COUNTS:
                total[name] += one[name]
        for one in description["workers"]:
            there[one["model"]] = there.get(one["model"], 0.0) + one["core_seconds"]
    rows = [{"user": user, "model": model, **counts} for (user, model), counts in used.items()]
    return {
        "used": sorted(rows, key=lambda one: (-one["core_seconds"], one["user"], one["model"])),
        "workers": [{"model": model, "core_seconds": seconds} for model, seconds in sorted(there.items())],
    }
