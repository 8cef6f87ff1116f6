"""The dispatcher's side of the door: sockets that listen, guests that become peers, and what operators ask for."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .audit import REFUSED, Audit, Entry
from .certificates import server_context
from .config import Config
from .dispatcher import Dispatcher
from .door import Door, Guest
from .errors import DemosError, InvalidInput, LaunchError, Status
from .logs import warn
from .messages import Kind, Operation
from .metrics import Queue
from .peers import Peer, Person
from .scribe import Scribe
from .served import Served, Stored
from .transport import Link
from .transport.compression import Compressor
from .transport.shared import SharedLink, SharedPort
from .transport.tcp import StreamLink, StreamPort
from .transport.tuning import tune
from .upgrade import Tickets
from .wire import Frame, pack

#: Connections that wait to be accepted.
BACKLOG = 1024


@dataclass(frozen=True)
class Addresses:
    """Where a door listens."""

    host: str
    port: int
    unix: str


class Reception:
    """What stands before a dispatcher: a `dispatcher.Porch`.

    ``shared`` is where busy links may go on; ``owner`` is the server's own user; ``certificate`` is the path of key and
    certificate, or empty for no TLS; ``publish`` is told how the server is, each heartbeat, and ``expose`` all that it
    counts.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        port: StreamPort,
        config: Config,
        *,
        shared: SharedPort | None = None,
        owner: str = "",
        certificate: str = "",
        audit: Audit | None = None,
        publish: Callable[[str], None] = lambda state: None,
        expose: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._port = port
        self._config = config
        self._tls = server_context(certificate) if certificate else None
        self._audit = audit
        self._owner = owner
        self._publish = publish
        self._expose = expose
        self.door: Door | None = None
        self._tickets = None if shared is None else Tickets(shared, dispatcher.accounts.note_upgraded)
        self._next_beat = 0.0
        #: The state that everybody knows of.
        self._shown = ""
        self._reader = Scribe("parameters", self._read_stored, "what other servers have set is not known")
        self._found: deque[tuple[Served, Stored | None]] = deque()
        #: When a server that was told to stop does so at the latest.
        self._stop_at = float("inf")
        self._is_told = False
        self._supervisor: Peer | None = None
        self.is_draining = False
        dispatcher.porch = self
        dispatcher.intake.controls = {
            Operation.STATISTICS: self._describe,
            Operation.DRAIN: self._drain,
            Operation.STOP: self._stop,
        }

    # ---- the door -------------------------------------------------------------------------------------------

    def listen(self, name: str) -> Addresses:
        """Opens the door; ``name`` is that of the Unix socket, in the kernel's own namespace.

        Raises
        ------
        LaunchError
            Where the address cannot be had.
        """
        host, port = self._config.host, self._config.port
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
            unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            unix.bind("\0" + name)
            unix.listen(BACKLOG)
        except OSError as error:
            raise LaunchError(
                f"the door cannot listen on {host}, port {port} (DEMOS_HOST, DEMOS_PORT): {error.strerror or error}"
            ) from None
        self._port.listen(listener, self._greet)
        self._port.listen(unix, self._greet)
        return Addresses(host, listener.getsockname()[1], "@" + name)

    def _greet(self, sock: socket.socket) -> None:
        assert self.door is not None
        try:
            tune(sock, self._config.heartbeat)
            address = find_address(sock)
            if self._tls is not None and sock.family != socket.AF_UNIX:
                sock = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        except (OSError, ssl.SSLError):  # gone already
            sock.close()
            return
        self.door.greet(self._port.add(sock, f"somebody at {address}"), address)

    def take(self, link: Link, arrived: Frame | DemosError) -> None:
        """What has come from somebody who is not in yet."""
        assert isinstance(link, StreamLink)
        guest = self.door.take(link, arrived) if self.door is not None else None
        if guest is not None:
            self._admit(guest)

    def _admit(self, guest: Guest) -> None:
        knock, link, dispatcher = guest.knock, guest.link, self._dispatcher
        assert isinstance(link, StreamLink)
        # What stands behind # is between a supervisor and its own workers.
        label = knock.label if guest.user == self._owner else knock.label.partition("#")[0]
        person = Person(guest.user, knock.host, knock.pid, label, guest.number)
        if guest.zstd:
            link.compressor = Compressor()
        if knock.role == "worker":
            peer = dispatcher.add_worker(link, person, is_guest=True)
        else:
            peer = dispatcher.add_client(link, person, role=knock.role, is_guest=True)
        self._note(guest.user, f"enter as {knock.role}", link.name, "ok")
        if knock.role == "operator" and knock.label == "supervisor" and guest.user == self._owner:
            self._supervisor = peer

    def note_refused(self, link: Link, user: str, why: str) -> None:
        """Somebody was not let in."""
        self._dispatcher.accounts.note_stranger(link.name, user, why)
        self._note(user, "enter", link.name, REFUSED, why)

    def _note(self, who: str, what: str, address: str, outcome: str, why: str = "") -> None:
        if self._audit is not None:
            self._audit.record(Entry(time.time(), who, what, "", address, 0, 0.0, outcome, why=why))

    def upgrade(self, peer: Peer, frame: Frame) -> None:
        """A peer would like to go on through shared memory, or does so."""
        if self._tickets is None:
            if frame.header.kind == Kind.TICKET:  # and not an error: that would end the link
                peer.link.send(pack(Kind.SWITCH, status=Status.NOT_OFFERED))
        elif frame.header.kind == Kind.NOW:
            self._tickets.accept(peer, frame)
        else:
            self._tickets.give(peer)

    # ---- time -----------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Once a second, and more often."""
        if self.door is not None:
            self.door.tick()
        self._port.sweep(now)
        if self._tickets is not None:
            self._tickets.tick()
        self._count_bytes()
        self._dispatcher.accounts.metrics.turn(now)
        if self._audit is not None:
            self._audit.flush(now)
        while self._found:
            served, stored = self._found.popleft()
            try:
                served.take_over(stored)
            except InvalidInput as error:
                warn(str(error))
        if now >= self._next_beat or self.state != self._shown:
            self._next_beat, self._shown = now + self._config.heartbeat, self.state
            self._reader.show(list(self._dispatcher.catalog.models.values()))
            self._publish(self.state)
            if self._expose is not None:
                self._expose(self._describe({}))

    def _count_bytes(self) -> None:
        """What went over the links since this was last asked; what goes over memory after a link has ended is lost."""
        for link, peer in self._dispatcher.peers.items():
            for one in (link, link.faster) if isinstance(link, StreamLink) else ():
                if isinstance(one, StreamLink | SharedLink):
                    self._dispatcher.accounts.metrics.add_bytes(peer.number, one.bytes_in, one.bytes_out)
                    one.bytes_in = one.bytes_out = 0

    def _read_stored(self, models: list[Served]) -> None:
        """In a thread of its own, since the file system may be slow: what other servers of the models have set."""
        self._found.extend((served, served.store.read()) for served in models if served.store is not None)

    def close(self, seconds: float) -> None:
        """Nothing is read any more; what is being read has so long."""
        self._reader.close(seconds)

    @property
    def state(self) -> str:
        """draining, ready, or starting: without any worker, perhaps not for the first time."""
        if self.is_draining:
            return "draining"
        has_workers = any(served.workers for served in self._dispatcher.catalog.models.values())
        return "ready" if has_workers else "starting"

    def stop(self) -> None:
        """Lets the server end soon; may be called by a signal's handler."""
        self._is_told = True

    def is_over(self) -> bool:
        """Whether the server has done what it was to do before it ends."""
        if self._is_told and self._stop_at == float("inf"):
            self._stop({})
        if self._supervisor is not None and self._supervisor.link not in self._dispatcher.peers:
            self._supervisor = None
            warn("the supervisor is gone; the server finishes what runs and ends")
            self._stop({})
        if not self.is_draining or self._stop_at == float("inf"):
            return False
        return self._dispatcher.scheduler.is_idle or time.monotonic() >= self._stop_at

    # ---- operators ------------------------------------------------------------------------------------------

    def _describe(self, question: dict[str, Any]) -> dict[str, Any]:
        dispatcher = self._dispatcher
        now = time.monotonic()
        calls = dispatcher.intake.calls
        oldest = min((call.arrived for call in calls.values()), default=now)
        queue = Queue(len(calls), now - oldest, dispatcher.scheduler.backlog_seconds)
        cache = None if dispatcher.recall is None else dispatcher.recall.cache.describe()
        description = dispatcher.accounts.metrics.describe(now, queue, cache)
        description["state"] = self.state
        description["is_stopping"] = self._stop_at < float("inf")
        description["evicted"] = list(dispatcher.accounts.evicted)
        description["careers"] = dict(dispatcher.accounts.careers)
        description["models"] = [served.describe() for served in dispatcher.catalog.models.values()]
        return description

    def _drain(self, question: dict[str, Any]) -> dict[str, Any]:
        """Takes nothing new; the server stays until it is told to stop."""
        if not self.is_draining:
            self.is_draining = True
            self._dispatcher.drain()
        return {"state": self.state, "requests": len(self._dispatcher.intake.calls)}

    def _stop(self, question: dict[str, Any]) -> dict[str, Any]:
        """Takes nothing new, finishes what runs, and ends; with ``now`` it ends at once."""
        answer = self._drain(question)
        seconds = 0.0 if question.get("now") is True else self._config.stop_seconds
        self._stop_at = min(self._stop_at, time.monotonic() + seconds)
        return answer


def find_address(sock: socket.socket) -> str:
    """Where a connection comes from: an address, or on this host a user's number."""
    if sock.family != socket.AF_UNIX:
        return str(sock.getpeername()[0])
    _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return f"the Unix socket, user {uid}"
