"""The audit log: who asked for what and when, from where, how much of it, and how it ended. Never the data.

One JSON object a line, in a file of mode 0600 that is only ever appended to::

    {"when":"2026-03-01T12:00:00.250Z","who":"alice","what":"log_density","model":"neutrino","from":"10.0.0.7:40112",
     "rows":1000,"seconds":0.012500,"outcome":"ok","request":"3:17"}

A refusal says ``why`` as well, which whoever was refused is not told. A server that runs in an image says which:
``"image":"sha256:…"``.

A file that is full becomes ``audit.jsonl.1``, that one ``.2`` and so on; the oldest goes. Several servers may write to
one file, and a file that was moved away is left alone and a new one begun.

Lines wait for at most a second (`Audit.flush`), refusals not at all. A disk that is full never stops the service:
lines are kept for a while, then counted, and the log says itself how many are missing once it can be written again.
"""

from __future__ import annotations

import math
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import NamedTuple

from .errors import InvalidInput

#: The outcome of what is written at once.
REFUSED = "refused"
#: Characters of a text; what a stranger calls itself must not fill the disk.
LONGEST_TEXT = 256
#: Seconds that a line may wait.
DELAY = 1.0
#: Characters that wait for no second.
ENOUGH = 1 << 16
#: Characters that are kept where the file cannot be written.
MOST_WAITING = 1 << 20

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Entry(NamedTuple):
    """One request, or one attempt. No secret belongs in it."""

    #: Seconds since 1970.
    when: float
    #: The user, as proved, or as claimed where that is what failed.
    who: str
    what: str
    model: str
    address: str
    rows: int
    seconds: float
    #: "ok", `REFUSED`, or in a word what went wrong.
    outcome: str
    request: str = ""
    why: str = ""


class Audit:
    """An audit log that is being written.

    Parameters
    ----------
    path
        Of the file; `InvalidInput` where it cannot be opened now.
    warn
        Called with a line for the operator, once when writing begins to fail and once when it works again.
    max_bytes
        At which a new file is begun.
    n_kept
        Old files that are kept.
    image
        The digest of the image that runs, which every line repeats; "" for none.
    """

    def __init__(
        self,
        path: str | Path,
        warn: Callable[[str], None],
        *,
        max_bytes: int = 64 << 20,
        n_kept: int = 8,
        image: str = "",
    ) -> None:
        if max_bytes < 1 or n_kept < 1:
            raise InvalidInput(f"an audit log of {max_bytes} bytes with {n_kept} old files kept; give numbers > 0")
        self.path = Path(path)
        #: Lines that could not be written since the beginning.
        self.lost = 0
        self._warn = warn
        self._max_bytes = max_bytes
        self._n_kept = n_kept
        self._end = f',"image":{_quote(image)}}}\n' if image else "}\n"
        self._waiting: list[str] = []
        self._n_waiting = 0
        self._flushed = -math.inf
        #: When the latest entry was.
        self._latest = 0.0
        self._second = -1
        self._second_text = ""
        #: Lines lost of which the log does not say so yet.
        self._unsaid = 0
        #: A line was written in part: the next one must not continue it.
        self._is_torn = False
        #: What the operator has been told does not work.
        self._failing: set[str] = set()
        self._file = -1
        try:
            self._open()
        except OSError as error:
            raise InvalidInput(f"audit log {path} cannot be opened: {error.strerror}") from None

    def record(self, entry: Entry) -> None:
        """Notes an entry; never raises for what the disk does."""
        self._latest = entry.when
        if self._n_waiting >= MOST_WAITING:
            self.lost += 1
            self._unsaid += 1
        else:
            line = self._format(entry)
            self._waiting.append(line)
            self._n_waiting += len(line)
        # While writing fails it is tried again by `flush` alone: the service must not pay for it at each request.
        if (entry.outcome == REFUSED or self._n_waiting >= ENOUGH) and "written" not in self._failing:
            self._write()

    def flush(self, now: float) -> None:
        """Writes what waits, at most once a second; ``now`` is of a clock that does not jump."""
        if self._waiting and now - self._flushed >= DELAY:
            self._flushed = now
            self._write()

    def close(self) -> None:
        """Writes what waits and closes the file; lines that cannot be written now are lost."""
        if self._waiting:
            self._write()
        self.lost += len(self._waiting)
        self._waiting, self._n_waiting = [], 0
        self._close_file()

    def _format(self, entry: Entry) -> str:
        """The line of an entry; put together by hand, since json.dumps of it takes four times as long."""
        when, who, what, model, address, rows, seconds, outcome, request, why = entry
        second = math.floor(when)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        line = (
            f'{{"when":"{self._second_text}.{int((when - second) * 1000):03d}Z","who":{_quote(who)},'
            f'"what":{_quote(what)},"model":{_quote(model)},"from":{_quote(address)},"rows":{rows:d},'
            f'"seconds":{seconds if math.isfinite(seconds) else -1.0:.6f},"outcome":{_quote(outcome)},'
            f'"request":{_quote(request)}'
        )
        return f'{line},"why":{_quote(why)}{self._end}' if why else line + self._end

    def _write(self) -> None:
        """All that waits, in one write; what cannot be written goes on waiting."""
        head, data, n_written = "", b"", 0
        try:
            self._prepare(self._n_waiting)
            head = self._format_head()
            data = (head + "".join(self._waiting)).encode("ascii")
            while n_written < len(data):
                n_written += os.write(self._file, data[n_written:])
        except OSError as error:
            if n_written:
                self._is_torn = data[n_written - 1] != ord("\n")
                self._drop_written(n_written - len(head))
            self._complain("written", error.strerror or str(error))
            return
        self._waiting, self._n_waiting = [], 0
        self._is_torn, self._unsaid = False, 0
        self._recover("written")

    def _format_head(self) -> str:
        """What comes before the lines that wait: the end of a torn line, and how many are missing."""
        head = "\n" if self._is_torn else ""
        if self._unsaid:
            outcome = f"{self._unsaid} lines are missing"
            head += self._format(Entry(self._latest, "", "audit", "", "", self._unsaid, 0.0, outcome))
        return head

    def _drop_written(self, n_written: int) -> None:
        """Of the lines that wait, this many characters were written; those written in full wait no more."""
        if n_written < 0:  # not even the head
            return
        self._unsaid = 0
        n_done = 0
        while n_written >= len(self._waiting[n_done]):
            n_written -= len(self._waiting[n_done])
            n_done += 1
        del self._waiting[:n_done]
        self._n_waiting = sum(map(len, self._waiting))

    def _prepare(self, n_bytes: int) -> None:
        """Sees to it that the file is the one of that name, and has room."""
        try:
            named = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            named = None
        opened = os.fstat(self._file) if self._file >= 0 else None
        if named is None or opened is None or not os.path.samestat(named, opened):
            self._open()
        elif opened.st_size and opened.st_size + n_bytes > self._max_bytes:
            self._rotate()

    def _rotate(self) -> None:
        """Makes room by renaming; where that fails, the file grows on."""
        try:
            for n in range(self._n_kept - 1, 0, -1):
                if os.path.lexists(older := self._name_old(n)):
                    os.rename(older, self._name_old(n + 1))
            os.rename(self.path, self._name_old(1))
        except OSError as error:
            self._complain("rotated", error.strerror or str(error))
            return
        self._recover("rotated")
        self._open()

    def _name_old(self, n: int) -> str:
        return f"{self.path}.{n}"

    def _open(self) -> None:
        """Opens the file of that name; the one before is closed."""
        file = os.open(self.path, _FLAGS, 0o600)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise PermissionError(0, "it is not a file")
            if status.st_uid == os.geteuid():
                os.fchmod(file, 0o600)
            elif status.st_uid:
                raise PermissionError(0, f"it belongs to user {status.st_uid}, not to you or root")
        except OSError:
            os.close(file)
            raise
        self._close_file()
        self._file = file
        self._is_torn = False

    def _close_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _complain(self, what: str, why: str) -> None:
        if what not in self._failing:
            self._failing.add(what)
            self._tell(f"audit log {self.path} cannot be {what}: {why}; see to it, the service goes on meanwhile")

    def _recover(self, what: str) -> None:
        if what in self._failing:
            self._failing.remove(what)
            self._tell(f"audit log {self.path} can be {what} again; {self.lost} lines were lost")

    def _tell(self, text: str) -> None:
        with suppress(OSError, ValueError):  # standard error may be on the same full disk, or closed
            self._warn(text)


def _quote(text: str) -> str:
    """JSON in ASCII: whatever the text is, it stays within its line."""
    return encode_basestring_ascii(text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…")
