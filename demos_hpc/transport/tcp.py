"""Frames over sockets: TCP, with or without TLS, and Unix sockets on one host. No MPI is needed.

Nothing blocks but `StreamPort.wait`. What cannot be sent at once is kept, with the arrays it refers to, and sent when
the socket takes it; large arrays go from where they lie to where they are wanted.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence

from ..errors import BadFrame, BadVersion, DemosError, ServerLost
from ..messages import Kind
from ..wire import ALIGNMENT, Frame, Packed, lay_out, pack
from . import MOST_BYTES, PARTING, Arrival, Link, Place
from .buffers import Buffers
from .compression import Compressor
from .inflow import Inflow
from .patience import Patience

#: Bytes read at once, into a buffer that all links share.
READ_BYTES = 1 << 18
#: Buffers given to the kernel at once (IOV_MAX is 1024).
MOST_VIEWS = 64
#: Seconds between two rings of one peer: a ring keeps it awake for longer.
RING_SECONDS = 15e-6
#: Why nobody can be let in until something else is closed.
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_RING = bytes(pack(Kind.RING).head)


class StreamLink:
    """A link over one socket. Once a faster one is put beside it, frames take that, and this is its lifeline."""

    def __init__(self, port: StreamPort, sock: socket.socket, name: str) -> None:
        self.name = name
        self.sock = sock
        self._port = port
        self._inflow = Inflow(lambda header, layout: port.place(self, header, layout))
        #: What is still to be sent, with its number of bytes.
        self._outgoing: deque[memoryview] = deque()
        self.pending_bytes = 0
        #: Bytes that came and went over the socket.
        self.bytes_in = self.bytes_out = 0
        self.is_closed = False
        #: Set once both sides have agreed on it.
        self.compressor: Compressor | None = None
        #: The link beside this one, through shared memory.
        self.faster: Link | None = None
        #: When it was last heard of, seconds on the monotonic clock.
        self.heard = time.monotonic()
        #: Until when what is being sent may leave, once nothing more will be taken in.
        self.parting: float | None = None
        self._rung = 0.0
        #: Whether nothing that comes can be understood any more.
        self._is_deaf = False
        self._tls = sock if isinstance(sock, ssl.SSLSocket) else None

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else self.transport
        return f"<StreamLink {self.name}: {state}, {self.unsent_bytes} bytes unsent>"

    @property
    def unsent_bytes(self) -> int:
        return self.pending_bytes + (self.faster.unsent_bytes if self.faster is not None else 0)

    @property
    def is_gone(self) -> bool:
        """Whether nothing more will be taken in."""
        return self.is_closed or self.parting is not None

    @property
    def transport(self) -> str:
        if self.faster is not None:
            return self.faster.transport
        return "unix" if self.sock.family == socket.AF_UNIX else "tcp"

    # ---- out ------------------------------------------------------------------------------------------------

    def send(self, packed: Packed) -> None:
        if self.faster is not None:
            self.faster.send(packed)
        else:
            self.send_here(packed)

    def send_here(self, packed: Packed) -> None:
        """Sends over the socket, whatever else there is."""
        if self.is_closed or self.parting is not None:
            return
        if self.compressor is not None and packed.tail:
            packed = self.compressor.deflate(packed)
        head, tail = packed
        if not tail and not self._outgoing and not len(head) % ALIGNMENT:
            try:
                n_bytes = self.sock.send(head)
            except (BlockingIOError, ssl.SSLWantWriteError):
                n_bytes = 0
            except OSError:
                self._break()
                return
            self.bytes_out += n_bytes
            if n_bytes < len(head):
                self._keep([memoryview(head)[n_bytes:]])
                self._port.watch_sending(self)
            return
        is_first = not self._outgoing
        self._keep(lay_out(packed))
        if is_first:
            self.push()

    def ring(self) -> None:
        """Makes the other side look into the memory that both share."""
        now = time.perf_counter()
        if now - self._rung > RING_SECONDS and not self._outgoing:
            self._rung = now
            self.send_here(Packed(bytearray(_RING), ()))

    def _keep(self, views: Sequence[memoryview]) -> None:
        self._outgoing.extend(views)
        self.pending_bytes += sum(map(len, views))

    def push(self) -> None:
        """Sends what the socket takes, or for long enough."""
        outgoing, until = self._outgoing, self.pending_bytes - MOST_BYTES
        while outgoing and self.pending_bytes > until:
            try:
                if self._tls is not None:
                    n_bytes = self.sock.send(outgoing[0])
                else:
                    n_bytes = self.sock.sendmsg([view for view, _ in zip(outgoing, range(MOST_VIEWS), strict=False)])
            except (BlockingIOError, ssl.SSLWantWriteError):
                break
            except OSError:  # also where TLS has not even begun
                self._break()
                return
            self.pending_bytes -= n_bytes
            self.bytes_out += n_bytes
            while outgoing and n_bytes >= len(outgoing[0]):
                n_bytes -= len(outgoing.popleft())
            if n_bytes:
                outgoing[0] = outgoing[0][n_bytes:]
        self._port.watch_sending(self)
        self._end_sending()

    # ---- in -------------------------------------------------------------------------------------------------

    def read(self, arrived: list[Arrival]) -> None:
        """Takes in what is there."""
        if self.parting is not None or self._is_deaf:
            self._discard()
            return
        scratch, total = self._port.scratch, 0
        try:
            # The kernel will tell again of what it still has; what TLS has taken from it, nobody will.
            while total < MOST_BYTES or (self._tls is not None and self._tls.pending()):
                hole = self._inflow.hole
                n_bytes = self.sock.recv_into(scratch if hole is None else hole)
                self.bytes_in += n_bytes
                if not n_bytes:
                    raise ServerLost(f"the connection to {self.name} was closed by the other side")
                total += n_bytes
                if hole is None:
                    is_all = n_bytes < len(scratch)
                    frames = self._inflow.feed(bytearray(scratch[:n_bytes]))
                else:
                    is_all = n_bytes < len(hole)
                    frames = self._inflow.fill(n_bytes)
                for frame in frames:
                    self._take(frame, arrived)
                if is_all and self._tls is None:  # the kernel has no more; TLS may
                    break
        except _NOT_NOW:
            pass
        except (BadFrame, BadVersion, ServerLost) as error:
            self._end(error, arrived)
        except OSError as error:
            self._end(ServerLost(f"the connection to {self.name} broke: {error.strerror or error}"), arrived)
        if total:
            self.heard = time.monotonic()

    def _take(self, frame: Frame, arrived: list[Arrival]) -> None:
        kind = frame.header.kind
        if kind == Kind.RING:
            return
        if kind == Kind.COMPRESSED:
            if self.compressor is None:
                raise BadFrame("a compressed frame on a link where that was not agreed upon")
            place = self._port.place
            frame = self.compressor.inflate(frame, lambda header, layout: place(self, header, layout))
        arrived.append((self, frame))

    def _end(self, error: DemosError, arrived: list[Arrival]) -> None:
        if not self.is_closed:
            arrived.append((self, error))
            if isinstance(error, ServerLost):
                self.close()
            else:
                self._is_deaf = True  # what is wrong may still be said

    def _break(self) -> None:
        """Sending has failed, perhaps within a frame: nothing can follow it. That the link is lost, reading finds."""
        self._outgoing.clear()
        self.pending_bytes = 0
        self._port.watch_sending(self)
        with contextlib.suppress(OSError):  # that of TLS would leave its records bare to the reader
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    def part(self) -> None:
        """Ends it once what is being sent has left; what still comes is thrown away.

        A socket that is closed with something unread in it would take back what was sent last.
        """
        if self.faster is not None:
            faster, self.faster = self.faster, None
            faster.part()  # and then this one
            return
        if self.parting is None and not self.is_closed:
            self.parting = time.monotonic() + PARTING
            self._port.parting[self] = None
            self._end_sending()

    def _end_sending(self) -> None:
        if self.parting is not None and not self._outgoing and not self.is_closed:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_WR)

    def _discard(self) -> None:
        try:
            for _ in range(MOST_BYTES // READ_BYTES):  # there may be no end of it
                if not self.sock.recv_into(self._port.scratch):
                    self.close()
                    return
        except _NOT_NOW:
            return
        except OSError:
            self.close()

    def close(self) -> None:
        """Ends it, at once."""
        if not self.is_closed:
            self.is_closed = True
            self.faster = None
            self._outgoing.clear()
            self.pending_bytes = 0
            self._port.forget(self)
            self.sock.close()


class StreamPort:
    """All sockets of this process, which is awake for the first ``yield_seconds`` of a wait (`patience`)."""

    def __init__(self, yield_seconds: float = 0.0) -> None:
        self.place: Place = Buffers().place
        self.scratch = memoryview(bytearray(READ_BYTES))
        self._epoll = select.epoll()
        self._links: dict[int, StreamLink] = {}
        self._listeners: dict[int, tuple[socket.socket, Callable[[socket.socket], None]]] = {}
        #: Listeners that wait until there is room for those who have connected.
        self._full: list[int] = []
        #: Links that want to send more than the kernel takes.
        self.sending: dict[StreamLink, None] = {}
        #: Links that only send what they still have to.
        self.parting: dict[StreamLink, None] = {}
        #: What `wait` has found, for `receive`.
        self._ready: list[tuple[int, int]] = []
        self._has_received = False
        self._patience = Patience(yield_seconds)

    def fileno(self) -> int:
        """Readable when there is something to do here."""
        return self._epoll.fileno()

    def add(self, sock: socket.socket, name: str) -> StreamLink:
        """A link over a connected socket."""
        sock.setblocking(False)
        link = StreamLink(self, sock, name)
        self._links[sock.fileno()] = link
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        return link

    def listen(self, sock: socket.socket, welcome: Callable[[socket.socket], None]) -> None:
        """``welcome`` is called with each new connection of a listening socket."""
        sock.setblocking(False)
        self._listeners[sock.fileno()] = sock, welcome
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def stop_listening(self) -> None:
        for number, (sock, _) in self._listeners.items():
            self._epoll.unregister(number)
            sock.close()
        self._listeners.clear()
        self._full.clear()

    def receive(self) -> list[Arrival]:
        # After a turn in which something came, most often nothing is left: `wait` will find out.
        ready, self._ready = self._ready, []
        if not ready:
            if self._has_received:
                self._has_received = False
                return []
            ready = self._epoll.poll(0)
        arrived: list[Arrival] = []
        for number, events in ready:
            link = self._links.get(number)
            if link is None:
                self._accept(number)
                continue
            if events & select.EPOLLOUT:
                link.push()
            if events & ~select.EPOLLOUT and not link.is_closed:
                link.read(arrived)
        self._has_received = bool(arrived)
        return arrived

    def _accept(self, number: int) -> None:
        listener, welcome = self._listeners.get(number, (None, None))
        while listener is not None and welcome is not None:
            try:
                sock, _ = listener.accept()
            except OSError as error:  # no more, or already gone
                if error.errno in _FULL:  # epoll would tell of it all the time
                    self._epoll.modify(number, 0)
                    self._full.append(number)
                return
            welcome(sock)

    def _accept_again(self) -> None:
        while self._full:
            self._epoll.modify(self._full.pop(), select.EPOLLIN)

    def look(self, seconds: float = 0.0) -> bool:
        """Whether there is something to do, now or within ``seconds``."""
        if not self._ready:
            self._ready = self._epoll.poll(seconds)
        return bool(self._ready)

    def wait(self, seconds: float) -> None:
        self._patience.wait(self.look, seconds)

    def flush(self, seconds: float) -> None:
        end = time.perf_counter() + seconds
        while self.sending and (left := end - time.perf_counter()) > 0:
            poll = select.poll()
            for link in self.sending:
                poll.register(link.sock, select.POLLOUT)
            for number, _ in poll.poll(left * 1e3):
                self._links[number].push()

    def watch_sending(self, link: StreamLink) -> None:
        """Looks for room in the kernel where a link has something to send, and only there."""
        wants, watched = link.pending_bytes > 0, link in self.sending
        if wants and not watched:
            self.sending[link] = None
            self._epoll.modify(link.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)
        elif watched and not wants:
            del self.sending[link]
            self._epoll.modify(link.sock.fileno(), select.EPOLLIN)

    def release(self, link: StreamLink) -> socket.socket:
        """The socket of a link that has nothing left to send, for somebody else: the port and the link let go of it."""
        self.forget(link)
        link.is_closed = True
        return link.sock

    def forget(self, link: StreamLink) -> None:
        self.sending.pop(link, None)
        self.parting.pop(link, None)
        number = link.sock.fileno()
        if self._links.pop(number, None) is not None:
            self._epoll.unregister(number)
        self._accept_again()

    def sweep(self, now: float) -> None:
        """Closes links that have had their time to part, ``now`` on the monotonic clock; to be called once a second."""
        self._accept_again()
        for link in [link for link in self.parting if link.parting is not None and link.parting <= now]:
            link.close()

    def close(self) -> None:
        """Closes all sockets."""
        self.stop_listening()
        for link in list(self._links.values()):
            link.close()
        self._epoll.close()
