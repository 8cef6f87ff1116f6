"""The whole service in one process: frames go from hand to hand. For notebooks, first steps and tests."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

from ..errors import BadFrame, BadVersion
from ..relay import flatten
from ..wire import Frame, Packed, read_header, read_layout, split
from . import Arrival, Place
from .buffers import Buffers


class LoopbackPort:
    """A port of this process; ``turn`` is called while its owner waits, and moves the others along."""

    def __init__(self, turn: Callable[[], object] = lambda: None) -> None:
        self.place: Place = Buffers().place
        self._turn = turn
        self._arrived: deque[Arrival] = deque()

    def receive(self) -> list[Arrival]:
        arrived = list(self._arrived)
        self._arrived.clear()
        return arrived

    def wait(self, seconds: float) -> None:
        self._turn()

    def flush(self, seconds: float) -> None:
        """Nothing is ever under way."""

    def close(self) -> None:
        """There is nothing to end."""


class LoopbackLink:
    """One end of a pair."""

    transport = "loopback"
    unsent_bytes = 0

    def __init__(self, name: str) -> None:
        self.name = name
        self._port: LoopbackPort | None = None
        self._peer: LoopbackLink | None = None

    def part(self) -> None:
        """Nothing is ever under way."""

    def send(self, packed: Packed) -> None:
        assert self._peer is not None
        assert self._peer._port is not None
        port, head = self._peer._port, packed.head
        if not packed.tail:
            head = bytearray(head)  # the sender may use its own again
            try:
                port._arrived.extend((self._peer, Frame(header, head, start)) for header, start in split(head))
            except (BadFrame, BadVersion) as error:  # for the receiver to find, as over MPI
                port._arrived.append((self._peer, error))
            return
        header = read_header(head)
        layout = read_layout(header, head)
        arrays = port.place(self._peer, header, layout)
        for target, source in zip(flatten(layout, arrays), packed.tail, strict=True):
            target[...] = source.reshape(-1).view(np.uint8)
        port._arrived.append((self._peer, Frame(header, head, 0, arrays)))


def make_pair(port: LoopbackPort, peer_port: LoopbackPort, names: tuple[str, str]) -> tuple[LoopbackLink, LoopbackLink]:
    """Two linked ends: what is sent into the one arrives at the other's port. Each is named after its peer."""
    mine, peers = LoopbackLink(names[1]), LoopbackLink(names[0])
    mine._port, peers._port = port, peer_port
    mine._peer, peers._peer = peers, mine
    return mine, peers
