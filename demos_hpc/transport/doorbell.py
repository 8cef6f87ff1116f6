"""The wait policy: yield for a while, then sleep until somebody rings.

A process that waits yields its core for about 200 us, or much less if its last wait was longer than that, since it
then only takes time from those who work. Then it announces "asleep" in a byte that it shares with the
processes of its host, looks once more whether something has come (one look after a pause is not enough: MPI needs a
few to find a message that has arrived), and blocks on a Unix datagram socket. Whoever sends looks at the byte and
rings. 128 idle processes cost next to nothing that way, and wake in less than a millisecond.

Processes on different hosts, or in containers that do not share /dev/shm, ring by UDP. They cannot see whether the
peer sleeps and ring with each message, though not more often than a ring keeps the peer awake. A datagram may be
lost: no sleep is longer than `LONGEST_WAIT`, or `LONGEST_BLIND_SLEEP` where a peer can only ring by UDP. A datagram
says nothing, so a stranger who sends one only causes a look.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from . import LONGEST_WAIT

LONGEST_BLIND_SLEEP = 0.05
#: Seconds of yielding after a ring, and where the last wait was long.
SHORT_WINDOW = 30e-6
#: The first sleep of a wait, seconds; each further one is four times as long. What the looks before it have missed is
#: found after it.
FIRST_NAP = 4e-3
#: What the shared byte of a process says.
AWAKE, ASLEEP, STUCK = 0, 1, 2
#: Looks after the announcement, before the sleep; four more for each peer, since MPICH looks into the mailbox of one
#: neighbor at a time, and 128 ranks were seen to oversleep with less.
LOOKS = 4
SHM = Path("/dev/shm")


class Sleeper:
    """How this process waits; what wakes it is whatever is watched."""

    def __init__(self, yield_seconds: float) -> None:
        self._yield_seconds = yield_seconds
        self._window = yield_seconds
        self._looks = LOOKS
        self._nap = FIRST_NAP
        self._is_waiting = False
        self._since = 0.0
        self._awake_until = 0.0
        self._longest_sleep = LONGEST_WAIT
        self._poll = select.poll()
        #: Are told AWAKE, ASLEEP or STUCK before it comes true.
        self.listeners: list[Callable[[int], None]] = []

    def watch(self, number: int) -> None:
        """Sleeps end as well when this file descriptor is readable; whoever watches it has to read."""
        self._poll.register(number, select.POLLIN)

    def close(self) -> None:
        """What is watched belongs to others."""

    def has_come(self) -> None:
        """What this process waited for has come."""
        if self._is_waiting:
            self._is_waiting = False
            waited = time.perf_counter() - self._since
            self._window = self._yield_seconds if waited < self._yield_seconds else SHORT_WINDOW

    def wait(self, look: Callable[[], bool], seconds: float, *, is_stuck: bool = False) -> bool:
        """Returns when ``look()`` says that something has come, somebody rang, or after about ``seconds``.

        ``is_stuck`` says that something could not be sent yet: whoever receives from this process will ring. Returns
        whether it slept until somebody rang.
        """
        if not self._is_waiting:
            self._is_waiting = True
            self._since = time.perf_counter()
            self._nap = FIRST_NAP
            self._awake_until = self._since + self._window
        if self.spin(look, self._awake_until):
            return False
        self._announce(STUCK if is_stuck else ASLEEP)
        try:
            if any(look() for _ in range(self._looks)):
                return False
            rung = self._poll.poll(min(seconds, self._nap, self._longest_sleep) * 1e3)
        finally:
            self._announce(AWAKE)
        if not rung:
            self._nap *= 4
        else:
            self._nap = FIRST_NAP
            self._awake_until = time.perf_counter() + SHORT_WINDOW
            self._take_rings()
        return bool(rung)

    def spin(self, look: Callable[[], bool], until: float) -> bool:
        """Yields the core again and again; whether something has come before ``until``."""
        while time.perf_counter() < until:
            if look():
                return True
            os.sched_yield()
        return False

    def _announce(self, flag: int) -> None:
        for tell in self.listeners:
            tell(flag)

    def _take_rings(self) -> None:
        """Takes out what only said that there is something to do."""


class Doorbell(Sleeper):
    """The bell of this process, and the way to those of its peers."""

    def __init__(self, yield_seconds: float, *, by_udp: bool = False) -> None:
        super().__init__(yield_seconds)
        self._by_udp = by_udp
        self._name = f"demos-{os.getpid()}-{os.urandom(6).hex()}"
        self._unix = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._unix.bind("\0" + self._name)
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("", 0))
        for bell in (self._unix, self._udp):
            bell.setblocking(False)
            self.watch(bell.fileno())
        #: A byte for each process of this host.
        self._flags: mmap.mmap | bytearray = bytearray(1)
        self._flags_file: Path | None = None
        self._me = 0
        self._unix_peers: list[str | None] = []
        self._udp_peers: list[tuple[str, int]] = []
        self._rung: dict[int, float] = {}

    @property
    def address(self) -> str:
        """Where others ring, as text for `Hello`."""
        return json.dumps([self._neighborhood(), self._name, socket.gethostname(), self._udp.getsockname()[1]])

    def _neighborhood(self) -> str:
        """Equal for processes that share both /dev/shm and the names of Unix sockets."""
        if self._by_udp:
            return self._name
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {SHM.stat().st_dev} {os.readlink('/proc/self/ns/net')}"

    def meet(self, addresses: Sequence[str], me: int, token: str) -> None:
        """Learns of the peers, this process being the one numbered ``me``; ``token`` is the same for all."""
        self._me = me
        known = [json.loads(address) for address in addresses]
        self._looks = LOOKS + 4 * len(known)
        self._unix_peers = ["\0" + a[1] if a[0] == known[me][0] else None for a in known]
        self._udp_peers = [(a[2], a[3]) for a in known]
        if None in self._unix_peers:
            self._longest_sleep = LONGEST_BLIND_SLEEP
        if self._by_udp:
            self._flags = bytearray(len(known))
            return
        self._flags_file = SHM / f"demos-{token}"
        flags = os.open(self._flags_file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            os.ftruncate(flags, len(known))
            self._flags = mmap.mmap(flags, len(known))
        finally:
            os.close(flags)

    def hide(self) -> None:
        """Everybody of this host has met: what was put into the file system for that is taken away."""
        if self._flags_file is not None:
            self._flags_file.unlink(missing_ok=True)

    def close(self) -> None:
        self.hide()
        self._unix.close()
        self._udp.close()

    def ring(self, peer: int) -> None:
        """Wakes ``peer`` if it sleeps; call it after sending."""
        if not self._unix_peers:
            return  # nobody is known yet, and nobody sleeps
        if self._unix_peers[peer] is None:
            self._ring_by_udp(peer)
        elif self._flags[peer]:
            self._ring_by_unix(peer)

    def nudge(self, peer: int) -> None:
        """Wakes ``peer`` if it sleeps while it has something to send; call it after receiving."""
        if peer < len(self._flags) and self._flags[peer] == STUCK:
            self._ring_by_unix(peer)

    def _ring_by_unix(self, peer: int) -> None:
        with contextlib.suppress(OSError):  # gone, or rung so often that its queue is full
            self._unix.sendto(b"!", self._unix_peers[peer] or "")

    def _ring_by_udp(self, peer: int) -> None:
        now = time.perf_counter()
        if now - self._rung.get(peer, 0.0) > SHORT_WINDOW / 2:
            self._rung[peer] = now
            with contextlib.suppress(OSError):
                self._udp.sendto(b"!", self._udp_peers[peer])

    def _announce(self, flag: int) -> None:
        self._flags[self._me] = flag
        super()._announce(flag)

    def _take_rings(self) -> None:
        for bell in (self._unix, self._udp):
            with contextlib.suppress(BlockingIOError):
                while bell.recv(16):
                    pass
