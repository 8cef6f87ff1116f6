"""How a running server shows in the registry: written anew with every heartbeat, by a thread of its own.

A shared file system may take seconds over a small file; nobody's request waits for it.
"""

from __future__ import annotations

from .endpoint import Endpoint
from .errors import DemosError
from .logs import warn
from .registry import Registry
from .scribe import Scribe


class Presence:
    """The entry of one server. Only the latest state is written, however slow the file system is."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._scribe: Scribe[Endpoint] = Scribe("presence", registry.publish, "clients may not find this server")

    def show(self, endpoint: Endpoint) -> None:
        """Writes this as soon as possible."""
        self._scribe.show(endpoint)

    def close(self, id_: str, seconds: float) -> None:
        """Takes the entry away, or gives up after so long: readers will find out by asking the door."""
        if self._scribe.close(seconds):
            try:
                self._registry.withdraw(id_)
            except DemosError as error:
                warn(str(error))
