"""Passes bytes on between two sockets, both ways: one speaks TLS, and whoever has the other need not.

Each direction has one buffer, and reads nothing while that is full. The end of a stream is passed on as such: the
other direction goes on until it ends as well. (TLS has no way to say so and go on reading but to end its bytes: what
the other side has sent until then arrives, and most can send no more.)
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading

#: Bytes under way in each direction.
BUFFER_BYTES = 1 << 18
#: Moves of one direction before the other has its turn.
MOST_MOVES = 16
#: Bytes that are remembered of what came last: those of a frame's header.
LAST_BYTES = 64
_WANTS = {ssl.SSLWantReadError: select.POLLIN, ssl.SSLWantWriteError: select.POLLOUT}


class _Direction:
    """What comes from ``source`` goes to ``sink``."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self._source, self._sink = source, sink
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._start = self._end = 0
        self.last = b""
        #: Whether nothing more comes, and whether nothing more is to be done.
        self.has_ended = self.is_over = False

    def move(self) -> tuple[socket.socket, int] | None:
        """Moves what can be moved; returns what it waits for then, None where it need not wait."""
        for _ in range(MOST_MOVES):
            if self.is_over:
                return None
            is_full = self._start < self._end
            at = self._sink if is_full else self._source
            try:
                if is_full:
                    self._start += at.send(self._buffer[self._start : self._end])
                else:
                    self._start, self._end = 0, at.recv_into(self._buffer)
                    self.last = (self.last + bytes(self._buffer[: self._end][-LAST_BYTES:]))[-LAST_BYTES:]
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
                return at, _WANTS[type(error)]
            except BlockingIOError:
                return at, select.POLLOUT if is_full else select.POLLIN
            except OSError:  # the connection is broken; what is left goes nowhere
                self._finish(has_ended=not is_full)
                continue
            if not is_full and not self._end:
                self._finish(has_ended=True)
        return None

    def _finish(self, *, has_ended: bool) -> None:
        self.has_ended |= has_ended
        self.is_over = True
        with contextlib.suppress(OSError):  # that of TLS would leave its records bare to the other direction
            socket.socket.shutdown(self._sink, socket.SHUT_WR)


class Pump(threading.Thread):
    """Both directions between ``far`` and ``near``, in a thread of its own, until both have ended. It closes both."""

    def __init__(self, far: socket.socket, near: socket.socket) -> None:
        super().__init__(name="pump", daemon=True)
        for sock in (far, near):
            sock.setblocking(False)
        self._sockets = far, near
        self._inward, self._outward = _Direction(far, near), _Direction(near, far)
        self._bell, self._rung = socket.socketpair()
        #: Whether the far side ended before the near one.
        self.is_lost = False

    def run(self) -> None:
        with self._rung, self._sockets[0], self._sockets[1]:
            while True:
                waits = [self._inward.move()]
                # What ends first makes the other end, perhaps at once.
                self.is_lost |= self._inward.has_ended and not self._outward.has_ended
                waits.append(self._outward.move())
                if self._inward.is_over and self._outward.is_over:
                    return
                poll = select.poll()
                poll.register(self._rung, select.POLLIN)
                events: dict[socket.socket, int] = {}
                for sock, event in filter(None, waits):
                    events[sock] = events.get(sock, 0) | event
                for sock, event in events.items():
                    poll.register(sock, event)
                is_idle = all((waits[0] or self._inward.is_over, waits[1] or self._outward.is_over))
                ready = poll.poll(None if is_idle else 0)
                if any(number == self._rung.fileno() for number, _ in ready):
                    return

    @property
    def last(self) -> bytes:
        """The last bytes that the far side has sent."""
        return self._inward.last

    def end(self, seconds: float) -> None:
        """Lets what is under way arrive, for so many seconds at most."""
        self.join(seconds)
        self._bell.close()
        self.join()
