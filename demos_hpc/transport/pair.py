"""Memory that two processes of one host share, with a queue of bytes for each direction; no MPI is needed.

Each queue has one writer and one reader, and a counter for each of them that nobody else writes. So a process that is
killed, at whatever moment, leaves nothing locked and nothing half said: bytes count only once the counter says so.
The memory has no name in any file system and goes with the last process that has it. It is sealed: a peer cannot cut
it short under our hands. Whatever else a peer may have written into it is checked.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import platform
from collections.abc import Callable
from pathlib import Path

from ..errors import BadFrame, DemosError

#: Bytes of one queue, a power of two: small enough to stay in the cache; 64 MB take 3 ms (half as large: 10).
QUEUE_BYTES = 1 << 20
#: Bytes that become visible to the reader at once, so that it reads while the rest is being written.
STRIDE = 1 << 17
#: Bytes before the queues. Every counter has a cache line of its own, here counted in numbers of 8 bytes.
CONTROL_BYTES = 4096
_LINE = 8
_FLAGS, _WRITTEN, _READ, _MARK, _TOKEN = 0, 2 * _LINE, 4 * _LINE, 6 * _LINE, 8 * _LINE
TOKEN_BYTES = 16
_NAME = "demos-pair"
#: Not in `fcntl` before Python 3.12.
_F_ADD_SEALS, _SEALS = getattr(fcntl, "F_ADD_SEALS", 1033), 0x1 | 0x2 | 0x4  # no more seals, no shrinking, no growing


class Unreachable(DemosError, OSError):
    """Two processes that do not share memory: another host, container or user."""


def is_possible() -> bool:
    """Whether this machine keeps stores in order, as Python code has no way to ask for it (x86 does)."""
    return platform.machine().lower() in ("x86_64", "amd64") and hasattr(os, "memfd_create")


class Pair:
    """One end; ``side`` is 0 for whoever made the memory and 1 for the other."""

    def __init__(self, number: int, side: int) -> None:
        size = CONTROL_BYTES + 2 * QUEUE_BYTES
        if os.fstat(number).st_size != size:
            raise Unreachable(f"shared memory of {os.fstat(number).st_size} bytes instead of {size}")
        self._map = mmap.mmap(number, size)
        self._memory = memoryview(self._map)
        #: Numbers of 8 bytes, each written and read as a whole.
        self._words = self._memory[:CONTROL_BYTES].cast("Q")
        queues = [self._memory[CONTROL_BYTES + i * QUEUE_BYTES :][:QUEUE_BYTES] for i in range(2)]
        self._out, self._in = queues[side], queues[1 - side]
        self._my_flag, self._peer_flag = _FLAGS + _LINE * side, _FLAGS + _LINE * (1 - side)
        self._written_at, self._taken_at = _WRITTEN + _LINE * side, _READ + _LINE * side
        self._filled_at, self._read_at = _WRITTEN + _LINE * (1 - side), _READ + _LINE * (1 - side)
        #: Bytes written and read by this process, and how far the peer is known to have read what was written. Only
        #: these are relied upon: what stands in the memory is for the peer.
        self._written = self._read = self._taken = 0
        self.is_closed = False

    # ---- together -------------------------------------------------------------------------------------------

    @classmethod
    def make(cls) -> tuple[Pair, str, Callable[[], None]]:
        """New memory, its address for the peer, and what is to be called once the peer has it, or never will."""
        if not is_possible():
            raise Unreachable(f"links by shared memory are for x86-64; this is {platform.machine()}")
        token = os.urandom(TOKEN_BYTES)
        number = os.memfd_create(f"{_NAME}-{token.hex()}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(number, CONTROL_BYTES + 2 * QUEUE_BYTES)
            fcntl.fcntl(number, _F_ADD_SEALS, _SEALS)
            pair = cls(number, 0)
        except BaseException:
            os.close(number)
            raise
        pair._memory[8 * _TOKEN : 8 * _TOKEN + TOKEN_BYTES] = token
        address = json.dumps([os.getpid(), number, token.hex()])
        return pair, address, lambda: os.close(number)

    @classmethod
    def join(cls, address: str) -> Pair:
        """The memory at ``address``.

        Raises
        ------
        Unreachable
            Where it cannot be had from here: another host, another container, another user's.
        """
        if not is_possible():
            raise Unreachable(f"links by shared memory are for x86-64; this is {platform.machine()}")
        try:
            pid, number, token = json.loads(address)
            link = Path(f"/proc/{int(pid)}/fd/{int(number)}")
            # Elsewhere, or a moment later, the same numbers may mean another file: it is not opened.
            if os.readlink(link).split(" ")[0] != f"/memfd:{_NAME}-{bytes.fromhex(token).hex()}":
                raise Unreachable(f"{link} is something else here")
            opened = os.open(link, os.O_RDWR | os.O_CLOEXEC)
        except (OSError, ValueError, TypeError) as error:
            raise Unreachable(f"the peer's memory cannot be reached from here: {error}") from None
        try:
            pair = cls(opened, 1)
        finally:
            os.close(opened)
        if pair._memory[8 * _TOKEN : 8 * _TOKEN + TOKEN_BYTES] != bytes.fromhex(token):
            pair.close()
            raise Unreachable("the peer's memory is something else here")
        pair._words[_MARK] = 1
        return pair

    @property
    def is_joined(self) -> bool:
        """Whether the other side has the memory as well."""
        return bool(self._words[_MARK])

    def close(self) -> None:
        """Lets the memory go; the other side keeps it, with what is in it."""
        if not self.is_closed:
            self.is_closed = True
            for view in (self._words, self._out, self._in, self._memory):
                view.release()
            self._map.close()

    # ---- who sleeps -----------------------------------------------------------------------------------------

    def say(self, flag: int) -> None:
        """Tells the peer whether this process sleeps (`doorbell`)."""
        self._words[self._my_flag] = flag

    @property
    def peers_flag(self) -> int:
        return self._words[self._peer_flag]

    # ---- bytes ----------------------------------------------------------------------------------------------

    def write(self, data: memoryview | bytearray) -> int:
        """Writes what there is room for and returns the number of bytes; `BadFrame` where the peer broke the queue."""
        size, done = len(data), 0
        while done < size:
            room = QUEUE_BYTES - self._written + self._taken
            if room < min(size - done, STRIDE):
                self._taken = self._words[self._taken_at]
                room = QUEUE_BYTES - self._written + self._taken
                if not 0 <= room <= QUEUE_BYTES:
                    raise BadFrame(f"a peer that has read {self._taken} of {self._written} bytes")
                if not room:
                    break
            at = self._written % QUEUE_BYTES
            count = min(room, size - done, QUEUE_BYTES - at, STRIDE)
            self._out[at : at + count] = data[done : done + count]
            self._written += count
            self._words[self._written_at] = self._written
            done += count
        return done

    def has_room(self, size: int) -> bool:
        """Whether ``write`` would take so many bytes as a whole."""
        if QUEUE_BYTES - self._written + self._taken < size:
            self._taken = self._words[self._taken_at]
        return QUEUE_BYTES - self._written + self._taken >= size

    def look(self) -> bool:
        """Whether something is there to be read."""
        return self._words[self._filled_at] != self._read

    def read(self, most: int) -> bytearray:
        """At most ``most`` bytes of what is there; `BadFrame` where the peer broke the queue."""
        at, count = self._find_run(most)
        data = bytearray(self._in[at : at + count])
        self._free(count)
        return data

    def read_into(self, target: memoryview) -> int:
        """Fills the beginning of ``target`` with what is there and returns the number of bytes; `BadFrame` as above."""
        at, count = self._find_run(len(target))
        target[:count] = self._in[at : at + count]
        self._free(count)
        return count

    def _find_run(self, most: int) -> tuple[int, int]:
        """Where the next bytes begin, and how many there are in one piece."""
        there = self._words[self._filled_at] - self._read
        if not 0 <= there <= QUEUE_BYTES:
            raise BadFrame(f"a queue of {QUEUE_BYTES} bytes with {there} in it")
        at = self._read % QUEUE_BYTES
        return at, min(there, most, QUEUE_BYTES - at)

    def _free(self, count: int) -> None:
        self._read += count
        self._words[self._read_at] = self._read
