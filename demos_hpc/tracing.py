"""A client's connection that tells of every request in its log, so that it can be followed to the workers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from .chronicle import name_operation
from .config import Config
from .errors import DemosError
from .future import Future, Stream
from .logs import Logger, name_request
from .recovery import Found, LastingConnection
from .transport import Link, Port
from .upgrade import Ascent
from .wire import Packed, read_header

_LOG = Logger("client")


class TracedConnection(LastingConnection):
    """As its base; ``find_number`` says what the server calls this client now."""

    def __init__(
        self,
        port: Port,
        link: Link,
        config: Config,
        *,
        find_number: Callable[[], int],
        redial: Callable[[float], Found] | None = None,
        retries: int = 0,
        heartbeat: float = math.inf,
        ascent: Ascent | None = None,
    ) -> None:
        # One by one: a compiler of Python cannot pass on what it does not see.
        super().__init__(port, link, config, redial=redial, retries=retries, heartbeat=heartbeat, ascent=ascent)
        self._find_number = find_number
        self._begun: dict[Future, float] = {}

    def _enter(self, future: Future, packed: Packed, cut: Callable[[], Stream] | None) -> None:
        header = read_header(packed.head)
        self._begun[future] = time.monotonic()
        _LOG.debug(
            "request", request=self._name(future), operation=name_operation(header.operation), rows=header.n_rows
        )
        super()._enter(future, packed, cut)

    def _send_again(self, future: Future) -> None:
        _LOG.debug("request again", request=self._name(future))
        super()._send_again(future)

    def _settle(self, future: Future, error: DemosError | None) -> None:
        super()._settle(future, error)
        if future.is_done:
            seconds = time.monotonic() - self._begun.pop(future, time.monotonic())
            _LOG.debug("request done", request=self._name(future), seconds=seconds, error=future.error)
        else:
            _LOG.debug("request waits", request=self._name(future), why=error)

    def _name(self, future: Future) -> str:
        return name_request(self._find_number(), future.id)
