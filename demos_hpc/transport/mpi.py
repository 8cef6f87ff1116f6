"""Frames between the ranks of one MPI launch. The only module that imports mpi4py.

A small frame is one message; a larger one is a message with its header and descriptors, then each array in pieces
of at most 4 MiB, received in place. Probe and receive are the plain ones, in one thread, and nothing is sent
blocking: see "Sending" in the README's decisions. Importing this module initializes MPI.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from mpi4py import MPI

from ..errors import BadFrame, BadVersion
from ..messages import Array
from ..relay import flatten
from ..wire import HEADER_BYTES, INLINE_BYTES, PIECE_BYTES, Frame, Header, Packed, read_layout, split
from . import Arrival, Place
from .buffers import Buffers
from .doorbell import Doorbell

#: Tags of the first message of a frame, and of the pieces behind it.
HEAD, PIECE = 1, 2
#: Tags for making communicators; each pair has its own (MPICH crashes when successive intercommunicators share one).
GROUP_TAG, PAIR_TAG = 32001, 16000
#: How long to sleep at most while large messages are under way, which only move when both sides look.
MOVING_SECONDS = 1e-3


class MpiLink:
    """A link to one rank of a communicator."""

    def __init__(self, port: MpiPort, comm: MPI.Comm, rank: int, peer: int, name: str) -> None:
        self.name = name
        #: The peer's rank in the world.
        self.peer = peer
        self._port = port
        self._comm = comm
        self._rank = rank
        #: What is being sent, in order, with the buffers that must be kept until it is sent.
        self._outgoing: deque[tuple[MPI.Request, object]] = deque()
        #: Frames in order, the first of them still incomplete.
        self._incoming: deque[tuple[Arrival, list[MPI.Request]]] = deque()

    def send(self, packed: Packed) -> None:
        head, tail = packed
        self._start(head, HEAD)
        for array in tail:
            for piece in _pieces(array.reshape(-1).view(np.uint8)):
                self._start(piece, PIECE)
        self._port.bell.ring(self.peer)

    def _start(self, buffer: bytearray | Array, tag: int) -> None:
        request = self._comm.Isend([buffer, MPI.BYTE], self._rank, tag)
        if self._outgoing or not request.Test():
            self._outgoing.append((request, buffer))
            self._port.sending[self] = None

    def is_sent(self) -> bool:
        """Whether nothing is under way any more."""
        outgoing = self._outgoing
        while outgoing and outgoing[0][0].Test():
            outgoing.popleft()
        return not outgoing


class MpiPort:
    """All MPI links of this rank."""

    def __init__(self, bell: Doorbell) -> None:
        self.place: Place = Buffers().place
        self.bell = bell
        #: Links that have something under way, out and in.
        self.sending: dict[MpiLink, None] = {}
        self._incomplete: dict[MpiLink, None] = {}
        self._status = MPI.Status()
        self._comms: list[tuple[MPI.Comm, dict[int, MpiLink]]] = []

    def add_links(self, comm: MPI.Comm, peers: dict[int, tuple[int, str]]) -> list[MpiLink]:
        """Links to ranks of ``comm``, each given with its world rank and its name."""
        links = {rank: MpiLink(self, comm, rank, peer, name) for rank, (peer, name) in peers.items()}
        self._comms.append((comm, links))
        return list(links.values())

    def receive(self) -> list[Arrival]:
        if self.sending:
            self.is_sent()
        arrived: list[Arrival] = []
        status = self._status
        for comm, links in self._comms:
            while comm.Iprobe(MPI.ANY_SOURCE, HEAD, status):
                source = status.Get_source()
                buffer = bytearray(status.Get_count(MPI.BYTE))
                comm.Recv([buffer, MPI.BYTE], source, HEAD)
                self._take(links[source], buffer, arrived)
        if self._incomplete:
            self._finish(arrived)
        if arrived:
            self.bell.stay_awake()
        return arrived

    def is_sent(self) -> bool:
        """Whether nothing is being sent any more."""
        for link in [link for link in self.sending if link.is_sent()]:
            del self.sending[link]
        return not self.sending

    def _take(self, link: MpiLink, buffer: bytearray, arrived: list[Arrival]) -> None:
        try:
            for header, start in split(buffer):
                if header.payload <= INLINE_BYTES - HEADER_BYTES:
                    self._put(link, (link, Frame(header, buffer, start)), [], arrived)
                else:
                    self._take_large(link, header, buffer, start, arrived)
        except (BadFrame, BadVersion) as error:
            self._put(link, (link, error), [], arrived)

    def _take_large(
        self, link: MpiLink, header: Header, buffer: bytearray, start: int, arrived: list[Arrival]
    ) -> None:
        layout = read_layout(header, buffer, start)
        arrays = self.place(link, header, layout)
        requests = [
            link._comm.Irecv([piece, MPI.BYTE], link._rank, PIECE)
            for flat in flatten(layout, arrays)
            for piece in _pieces(flat)
        ]
        self._put(link, (link, Frame(header, buffer, start, arrays)), requests, arrived)

    def _put(self, link: MpiLink, arrival: Arrival, requests: list[MPI.Request], arrived: list[Arrival]) -> None:
        if requests or link._incoming:
            link._incoming.append((arrival, requests))
            self._incomplete[link] = None
        else:
            arrived.append(arrival)

    def _finish(self, arrived: list[Arrival]) -> None:
        for link in list(self._incomplete):
            incoming = link._incoming
            while incoming and MPI.Request.Testall(incoming[0][1]):
                arrived.append(incoming.popleft()[0])
            if not incoming:
                del self._incomplete[link]

    def wait(self, seconds: float) -> None:
        if self.sending or self._incomplete:
            seconds = min(seconds, MOVING_SECONDS)
        self.bell.wait(self._has_come, seconds)

    def _has_come(self) -> bool:
        for comm, _ in self._comms:
            if comm.Iprobe(MPI.ANY_SOURCE, HEAD):
                return True
        return any(MPI.Request.Testall(link._incoming[0][1]) for link in self._incomplete)


def _pieces(flat: Array) -> list[Array]:
    return [flat[start : start + PIECE_BYTES] for start in range(0, len(flat), PIECE_BYTES)]


class World:
    """The ranks of one launch, before they have found their groups and after."""

    def __init__(self, bell: Doorbell) -> None:
        self._comm = MPI.COMM_WORLD
        self.rank: int = self._comm.rank
        self.size: int = self._comm.size
        self.bell = bell
        #: For the roll call: links between rank 0 and everybody else.
        self.port = MpiPort(bell)

    def roll_links(self) -> list[MpiLink]:
        """Rank 0's links to all others, or the others' link to rank 0."""
        ranks = range(1, self.size) if self.rank == 0 else [0]
        return self.port.add_links(self._comm, {rank: (rank, f"rank {rank}") for rank in ranks})

    def make_group(self, ranks: list[int]) -> MPI.Intracomm:
        """A communicator of these ranks, made by them alone."""
        return self._comm.Create_group(self._comm.group.Incl(ranks), GROUP_TAG)

    def join(self, group: MPI.Intracomm, remote_leader: int, pair: int) -> MPI.Intercomm:
        """An intercommunicator of this group with that of world rank ``remote_leader``."""
        return group.Create_intercomm(0, self._comm, remote_leader, PAIR_TAG + pair)

    @staticmethod
    def stand_in(group: MPI.Intracomm) -> None:
        """Lets the script that runs in this process see its own group as ``MPI.COMM_WORLD``."""
        MPI.COMM_WORLD = group

    def abort(self, code: int) -> None:
        """Ends every rank of the launch at once."""
        self._comm.Abort(code)


def describe_library() -> tuple[str, str]:
    """The MPI library's one-line name, and the thread level that it gave."""
    levels = {
        MPI.THREAD_SINGLE: "single",
        MPI.THREAD_FUNNELED: "funneled",
        MPI.THREAD_SERIALIZED: "serialized",
        MPI.THREAD_MULTIPLE: "multiple",
    }
    library = MPI.Get_library_version().split("\n")[0].strip().strip("\0")
    return " ".join(library.split()), levels[MPI.Query_thread()]


def finalize() -> None:
    """Ends MPI; collective over all ranks of the launch."""
    if MPI.Is_initialized() and not MPI.Is_finalized():
        MPI.Finalize()

