"""A client's connection through the door: it notices that its server is gone, and may find it, or another, again.

Every operation may be done twice, so whatever is unanswered is simply asked for once more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol

from .config import Config
from .connection import Connection
from .errors import Busy, Cancelled, DeadlineExceeded, DemosError, Draining, ServerLost
from .future import Future, Request, Stream
from .logs import warn
from .messages import Kind
from .relay import readdress
from .transport import Link, Port
from .transport.tcp import StreamLink
from .upgrade import Ascent
from .wire import Frame, Packed, pack

#: Seconds before a lost server is looked for again, the first time and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
#: Seconds that one attempt to find it may take, at most and whoever waits for how long.
ATTEMPT, SHORTEST_ATTEMPT = 10.0, 1.0
#: Seconds for a goodbye to leave.
FAREWELL = 1.0
#: Seconds after which another server is tried where one is about to end.
MOVING = 0.2
#: What to do where a connection that does not reconnect has lost its server.
REMEDY = "`demos-hpc ls` lists others; connect(..., reconnect=True) waits for one that comes back"


class Found(Protocol):
    """A server that was found again."""

    @property
    def port(self) -> Port: ...
    @property
    def link(self) -> Link: ...
    @property
    def handle(self) -> int:
        """Of the model, there."""

    @property
    def ascent(self) -> Ascent | None:
        """The way on through shared memory, if there is one."""


class LastingConnection(Connection):
    """A connection that outlives its server, if ``redial`` (which raises a `DemosError` in vain) is given.

    ``retries`` is how often a request is tried again that a server had no time for. A server that is silent for two
    ``heartbeat`` while somebody waits for it is taken for lost.
    """

    def __init__(
        self,
        port: Port,
        link: Link,
        config: Config,
        *,
        redial: Callable[[float], Found] | None = None,
        retries: int = 0,
        heartbeat: float = math.inf,
        ascent: Ascent | None = None,
    ) -> None:
        super().__init__(port, link, config)
        self._ascent = ascent
        self._redial = redial
        self._retries = retries
        self._heartbeat = heartbeat
        #: Why there is no server now.
        self._cut: ServerLost | None = None
        self._next_try = 0.0
        #: Seconds between a loss, or a try in vain, and the next try; 0 once a server has answered something.
        self._pause_seconds = 0.0
        #: Requests that wait to be sent again: until when.
        self._later: dict[Future, float] = {}
        #: Requests that nobody wants any more, though the server has not said so yet.
        self._unwanted: set[Future] = set()
        #: When something was last heard, or waiting began, and whether the server was asked since.
        self._heard = time.monotonic()
        self._is_asked = False
        #: Bytes that were unsent when this was last looked at: where they become fewer, somebody takes them.
        self._unsent_bytes = 0
        #: Until when somebody waits.
        self._until = -math.inf
        self._is_moving = False
        #: The model's handle, where it is another than when the requests were made.
        self._handle: int | None = None

    # ---- out ------------------------------------------------------------------------------------------------

    def _transmit(self, packed: Packed) -> None:
        if self._cut is not None:
            return
        self._link.send(packed if self._handle is None else readdress(packed, model=self._handle))
        if self._ascent is not None:
            self._ascent.count()

    def _enter(self, future: Future, packed: Packed, cut: Callable[[], Stream] | None) -> None:
        if self._redial is not None or self._retries:
            future.request = Request(packed, cut, self._retries)
        super()._enter(future, packed, cut)

    def cancel(self, future: Future) -> None:
        if self._later.pop(future, None) is not None or self._cut is not None:
            self._check_usable()
            self._settle(future, Cancelled("cancelled"))
        else:
            super().cancel(future)
            self._unwanted.add(future)

    def _send_again(self, future: Future) -> None:
        request = future.request
        assert request is not None
        seconds = future.deadline - time.monotonic()
        milliseconds = max(1, int(min(seconds * 1e3, 2**32 - 1)))
        self._transmit(readdress(request.packed, deadline_ms=milliseconds))
        future.restart()
        if request.cut is not None:
            future.stream = request.cut()
            self._streams[future.id] = future

    def _push(self) -> None:
        if self._cut is None:
            super()._push()

    def say_goodbye(self) -> None:
        super().say_goodbye()
        self._port.flush(FAREWELL)
        self._port.close()

    # ---- in -------------------------------------------------------------------------------------------------

    def progress(self) -> bool:
        if self._cut is not None and time.monotonic() >= self._next_try:
            self._check_usable()
            self._give_up_the_late(time.monotonic())
            self._reconnect(self._cut)
        if self._later:
            self._try_again()
        if not super().progress():
            return False
        self._heard, self._is_asked = time.monotonic(), False
        return True

    def wait_for(self, future: Future, limit: float | None) -> None:
        self._heard, self._is_asked = time.monotonic(), False
        outer, self._until = self._until, future.deadline if limit is None else min(limit, future.deadline)
        try:
            super().wait_for(future, limit)
        finally:
            self._until = outer

    def _pause(self, seconds: float) -> None:
        now = time.monotonic()
        due = [*self._later.values(), *([] if self._cut is None else [self._next_try, self._until])]
        seconds = max(0.0, min([seconds, *(at - now for at in due)]))
        if self._cut is not None:
            self._give_up_the_late(now)
            time.sleep(seconds)
            return
        self._look_for_life(now)
        if now >= self._heard + 2 * self._heartbeat:
            silence = now - self._heard
            self._lose(ServerLost(f"{self._link.name} has given no sign of life for {silence:.3g} s"))
            return
        if now >= self._heard + self._heartbeat and not self._is_asked:
            self._is_asked = True
            self._link.send(pack(Kind.PING))
        self._port.wait(min(seconds, self._heartbeat / 2))

    def _look_for_life(self, now: float) -> None:
        """A frame may be long, and what we ask may stand behind others: bytes that move are as good as an answer."""
        link = self._link
        heard = link.heard if isinstance(link, StreamLink) else -math.inf
        if heard > self._heard or link.unsent_bytes < self._unsent_bytes:
            self._heard, self._is_asked = now, False
        self._unsent_bytes = link.unsent_bytes

    def _take_other(self, frame: Frame) -> None:
        if self._ascent is not None and frame.header.kind in (Kind.TICKET, Kind.SWITCH):
            self._ascent.take(frame)
        else:
            super()._take_other(frame)

    def _settle(self, future: Future, error: DemosError | None) -> None:
        wait = self._find_wait(future, error)
        if error is None:
            self._pause_seconds = 0.0
        if wait is not None and future in self._unwanted:
            wait, error = None, Cancelled("cancelled")
        if wait is None:
            self._later.pop(future, None)
            self._unwanted.discard(future)
            super()._settle(future, error)
        else:
            self._streams.pop(future.id, None)
            self._later[future] = time.monotonic() + wait

    def _find_wait(self, future: Future, error: DemosError | None) -> float | None:
        """Seconds after which a request that has failed is tried again; None where it is not."""
        request, now = future.request, time.monotonic()
        if request is None or self._lost is not None:
            return None
        if isinstance(error, Draining) and self._redial is not None:
            self._is_moving = True
            return MOVING if now + MOVING < future.deadline else None
        if not isinstance(error, Busy | Draining) or not request.retries:
            return None
        request.retries -= 1
        wait = error.retry_after if isinstance(error, Busy) else MOVING
        return wait if now + wait < future.deadline else None

    def _try_again(self) -> None:
        now = time.monotonic()
        if self._is_moving and len(self._later) == len(self._futures) and min(self._later.values()) <= now:
            # What was under way is done: look for another server.
            self._lose(ServerLost(f"{self._link.name} is ending"))
            return
        for future in [future for future, at in self._later.items() if at <= now]:
            del self._later[future]
            if self._cut is None:
                self._send_again(future)

    def _lose(self, error: DemosError) -> None:
        self._link.part()
        if self._redial is None or not isinstance(error, ServerLost) or self._lost is not None:
            super()._lose(ServerLost(f"{error}; {REMEDY}") if isinstance(error, ServerLost) else error)
            return
        if self._cut is None:
            warn(f"{error}; looking for a server of the same model")
            self._cut = error
            self._is_moving = False
            self._streams.clear()
            self._next_try = time.monotonic() + self._pause_seconds
            self._settle_all(list(self._unwanted), Cancelled("cancelled"))

    def _reconnect(self, lost: ServerLost) -> None:
        assert self._redial is not None
        seconds = max(SHORTEST_ATTEMPT, min(ATTEMPT, self._until - time.monotonic()))
        self._pause_seconds = max(FIRST_PAUSE, min(2 * self._pause_seconds, LONGEST_PAUSE))
        try:
            found = self._redial(seconds)
        except (ServerLost, DeadlineExceeded):
            self._next_try = time.monotonic() + self._pause_seconds
            return
        except DemosError as error:  # it is there, and will not have us
            self._cut = None
            super()._lose(error)
            return
        self._port.close()
        self._cut, self._port, self._link, self._handle = None, found.port, found.link, found.handle
        self._ascent = found.ascent
        warn(f"{self._link.name} goes on")
        self._port.place = self._place
        self._heard, self._is_asked, self._unsent_bytes = time.monotonic(), False, 0
        self._later.clear()
        for future in list(self._futures.values()):
            self._send_again(future)

    def _give_up_the_late(self, now: float) -> None:
        """What cannot be answered in time any more has lost its server for good."""
        assert self._cut is not None
        late = [future for future in self._futures.values() if future.deadline <= now]
        self._settle_all(late, ServerLost(f"{self._cut}; it could not be found again in time"))

    def _settle_all(self, futures: list[Future], error: DemosError) -> None:
        for future in futures:
            if not future.is_done:  # as what is called back may cancel others
                self._settle(future, error)
