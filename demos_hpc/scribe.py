"""Writes the latest of something again and again, in a thread of its own: nobody waits for a slow disk."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from .errors import DemosError
from .logs import warn

T = TypeVar("T")


class Scribe(Generic[T]):
    """Calls ``write`` with what `show` was given last, however slow that is.

    ``write`` raises an OSError or a `DemosError` where it cannot; the first of a row of failures is told on standard
    error, with ``consequence``.
    """

    def __init__(self, name: str, write: Callable[[T], None], consequence: str) -> None:
        self._write = write
        self._consequence = consequence
        self._latest: T | None = None
        self._is_over = False
        self._changed = threading.Condition()
        self._has_warned = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def show(self, latest: T) -> None:
        """Writes this as soon as possible."""
        with self._changed:
            self._latest = latest
            self._changed.notify()

    def close(self, seconds: float) -> bool:
        """Writes nothing more; whether what is being written was done in time."""
        with self._changed:
            self._is_over = True
            self._changed.notify()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._latest is None and not self._is_over:
                    self._changed.wait()
                latest, self._latest = self._latest, None
            if latest is None:
                return
            try:
                self._write(latest)
                self._has_warned = False
            except (DemosError, OSError) as error:
                if not self._has_warned:
                    self._has_warned = True
                    warn(f"{error}; {self._consequence}")
