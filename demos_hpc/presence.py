"""How a running server shows in the registry: written anew with every heartbeat, by a thread of its own.

A shared file system may take seconds over a small file; nobody's request waits for it.
"""

from __future__ import annotations

import threading

from .endpoint import Endpoint
from .errors import DemosError
from .refusals import warn
from .registry import Registry


class Presence:
    """The entry of one server. Only the latest state is written, however slow the file system is."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._latest: Endpoint | None = None
        self._is_over = False
        self._changed = threading.Condition()
        self._has_warned = False
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)
        self._thread.start()

    def show(self, endpoint: Endpoint) -> None:
        """Writes this as soon as possible."""
        with self._changed:
            self._latest = endpoint
            self._changed.notify()

    def close(self, id_: str, seconds: float) -> None:
        """Takes the entry away, or gives up after so long: readers will find out by asking the door."""
        with self._changed:
            self._is_over = True
            self._changed.notify()
        self._thread.join(seconds)
        if not self._thread.is_alive():
            try:
                self._registry.withdraw(id_)
            except DemosError as error:
                warn(str(error))

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._latest is None and not self._is_over:
                    self._changed.wait()
                endpoint, self._latest = self._latest, None
            if endpoint is None:
                return
            try:
                self._registry.publish(endpoint)
                self._has_warned = False
            except DemosError as error:
                if not self._has_warned:
                    self._has_warned = True
                    warn(f"{error}; clients may not find this server")
