"""Calls a model that a server of its own serves: found in the registry, reached through its door."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .client import RemoteModel
from .config import Config
from .dialing import ENTRY, Dialed, dial_any
from .endpoint import Endpoint, describe_choice, is_stale
from .errors import DemosError, InvalidInput, LaunchError, ServerLost
from .journal import open_log_if_wanted
from .logs import Logger
from .messages import Operation
from .recovery import LastingConnection
from .registry import Registry
from .tracing import TracedConnection
from .transport import Link, Port
from .upgrade import Ascent

_LOG = Logger("client")


@dataclass(frozen=True)
class FoundAgain:
    """A server that was found again, as `recovery` needs it."""

    port: Port
    link: Link
    handle: int
    ascent: Ascent | None


class Caller:
    """Finds servers of one model again and again."""

    def __init__(
        self,
        name: str | None,
        config: Config,
        transport: str,
        registry: Registry,
        tell: Callable[[str], object] = _LOG.info,
    ) -> None:
        self._name = name
        self._tell = tell
        self._config = config
        self._transport = transport
        self._registry = registry
        #: The model's name, UUID and version, once they are known.
        self.wanted: tuple[str, str, str] | None = None
        #: What the server calls this client.
        self.number = 0

    def dial(self, seconds: float) -> Dialed:
        """A connection to the best server."""
        # Who named nothing wants the same model again, whatever else has come meanwhile.
        name = self.wanted[1] if self._name is None and self.wanted is not None else self._name
        dialed = dial_any(name, self._registry, self._config, "client", seconds=seconds, transport=self._transport)
        endpoints = self._registry.find(name)
        how = describe_choice(dialed.endpoint, endpoints, time.time())
        self._tell(f"{how} by {dialed.link.transport}")
        self.number = dialed.admission.number
        return dialed

    def ask(self, dialed: Dialed, connection: LastingConnection) -> dict[str, Any]:
        """What the server says of the model."""
        description: dict[str, Any] = connection.ask(Operation.METADATA, self._make_question(dialed.endpoint)).result()
        return description

    def redial(self, seconds: float) -> FoundAgain:
        """A server of the very same model, found within ``seconds``."""
        dialed = self.dial(seconds)
        try:
            config = self._config.changed(timeout=seconds)
            description = self.ask(dialed, LastingConnection(dialed.port, dialed.link, config))
        except DemosError as error:
            dialed.port.close()
            raise ServerLost(str(error)) from error
        spec = description["spec"]
        found = spec["name"], spec["uuid"], spec["version"]
        if self.wanted not in (None, found):
            dialed.port.close()
            raise LaunchError(
                f"{dialed.link.name} has version {found[2]} of the model, and not {self.wanted} as before"
            )
        return FoundAgain(dialed.port, dialed.link, int(description["handle"]), dialed.ascent)

    def _make_question(self, endpoint: Endpoint) -> dict[str, str]:
        if self.wanted is not None:
            return {"model": self.wanted[1] or self.wanted[0]}
        if self._name is None or self._name == endpoint.name:
            return {}
        return {"model": self._name}


def call(
    name: str | None,
    config: Config,
    *,
    transport: str = "auto",
    retries: int = 0,
    reconnect: bool = False,
    tell: Callable[[str], object] = _LOG.info,
) -> RemoteModel:
    """Connects to a model through the door of a server; for the parameters see `demos_hpc.connect`.

    ``tell`` hears in one line which server was chosen, of how many.

    Raises
    ------
    ServerLost
        Where no server of this name is in the registry, or none answers.
    AccessRefused
        Where the server does not let us in.
    InvalidInput
        Where there are several models to choose from, and no name.
    """
    open_log_if_wanted(config, "client")
    registry = Registry(config.registry_directory)
    if name is None:
        _check_only(registry.find(None))
    caller = Caller(name, config, transport, registry, tell)
    dialed = caller.dial(min(config.timeout, ENTRY))
    options: dict[str, Any] = {
        "redial": caller.redial if reconnect else None,
        "retries": retries,
        "heartbeat": dialed.admission.heartbeat,
        "ascent": dialed.ascent,
    }
    connection: LastingConnection
    if _LOG.traces:
        connection = TracedConnection(dialed.port, dialed.link, config, find_number=lambda: caller.number, **options)
    else:
        connection = LastingConnection(dialed.port, dialed.link, config, **options)
    try:
        description = caller.ask(dialed, connection)
    except BaseException:
        connection.say_goodbye()
        raise
    spec = description["spec"]
    caller.wanted = spec["name"], spec["uuid"], spec["version"]
    return RemoteModel(connection, description)


def _check_only(endpoints: Sequence[Endpoint]) -> None:
    """`InvalidInput` where the servers that live have several models between them."""
    now = time.time()
    models = {(m["name"], m["uuid"]) for e in endpoints if not is_stale(e, now) for m in e.models}
    if len(models) > 1:
        names = ", ".join(sorted({repr(name) for name, _ in models}))
        raise InvalidInput(f"several models are served: name one; there are: {names}")
