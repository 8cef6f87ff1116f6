"""Looks after one server: asks how it is, and lets it drain or stop. A short connection through its door."""

from __future__ import annotations

import contextlib
import time
from types import TracebackType
from typing import Any, Self

from .config import Config
from .connection import Connection
from .dialing import Dialed, dial
from .endpoint import Endpoint
from .errors import DeadlineExceeded, DemosError, ServerLost
from .messages import Kind, Operation
from .wire import Frame, pack

#: Seconds that a server has to let us in, and to answer, unless it is said otherwise.
PATIENCE = 10.0
#: Seconds for a goodbye to leave.
FAREWELL = 0.2


class Operator:
    """An operator's connection to the server at ``endpoint``; belongs to the thread that made it.

    ``seconds`` is what the server has to let us in, and then for each answer. With another ``role``, whoever may not
    come in as an operator sees at least whether it lives (`ping`).

    Raises
    ------
    ServerLost
        Where nobody answers there.
    AccessRefused
        Where the server does not let us in as an operator, or is not the one that it says it is.
    DeadlineExceeded
        Where it takes too long.
    """

    def __init__(
        self, endpoint: Endpoint, config: Config, *, seconds: float = PATIENCE, role: str = "operator"
    ) -> None:
        self.endpoint = endpoint
        self._seconds = seconds
        self._dialed = dial(endpoint, config, role, seconds=seconds)
        self._line = _Line(self._dialed, config)

    def __repr__(self) -> str:
        return f"<Operator of {self.endpoint.name} by {self.transport}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def transport(self) -> str:
        """How the server is reached: unix or tcp."""
        return self._dialed.link.transport

    def statistics(self) -> dict[str, Any]:
        """All that the server counts (`Metrics.describe`), with ``state``, ``is_stopping`` and ``models``."""
        return self._ask(Operation.STATISTICS)

    def drain(self) -> dict[str, Any]:
        """From now on it takes nothing new; returns its ``state``, and how many ``requests`` are under way."""
        return self._ask(Operation.DRAIN)

    def stop(self, *, now: bool = False) -> dict[str, Any]:
        """Lets it end once what runs is done, or ``now``; returns as `drain`."""
        return self._ask(Operation.STOP, {"now": now})

    def ping(self) -> float:
        """Seconds that a sign of life takes, there and back."""
        begin = time.perf_counter()
        if not self._line.ping(self._seconds):
            raise self._complain()
        return time.perf_counter() - begin

    def close(self) -> None:
        """Says goodbye."""
        with contextlib.suppress(DemosError):  # it may be gone already
            self._line.say_goodbye()
        self._dialed.port.flush(FAREWELL)
        self._dialed.port.close()

    def _ask(self, operation: Operation, question: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            answer = self._line.ask(operation, question or {}).result(self._seconds)
        except DeadlineExceeded:
            raise
        except TimeoutError:
            raise self._complain() from None
        if not isinstance(answer, dict):
            raise ServerLost(f"{self._dialed.link.name} answers {operation.title} with {type(answer).__name__}")
        return answer

    def _complain(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"{self._dialed.link.name} has not answered within {self._seconds:g} s: it hangs, or has too much to do"
        )


class _Line(Connection):
    """A connection that hears the answers to its pings."""

    def __init__(self, dialed: Dialed, config: Config) -> None:
        super().__init__(dialed.port, dialed.link, config)
        self._last_ping = self._last_pong = 0

    def ping(self, seconds: float) -> bool:
        """Whether a sign of life comes back in time."""
        end = time.monotonic() + seconds
        self._check_usable()
        self._last_ping += 1
        self._link.send(pack(Kind.PING, id=self._last_ping))
        while self._last_pong < self._last_ping:
            if not self.progress():
                self._check_usable()
                if time.monotonic() >= end:
                    return False
                self._port.wait(max(0.0, end - time.monotonic()))
        return True

    def _take_other(self, frame: Frame) -> None:
        if frame.header.kind == Kind.PONG:
            self._last_pong = frame.header.id
        else:
            super()._take_other(frame)
