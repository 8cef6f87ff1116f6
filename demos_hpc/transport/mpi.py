"""Frames between the ranks of one MPI launch. The only module that imports mpi4py.

A small frame is one message; a larger one is a message with its header and descriptors, then each array in pieces
of at most 4 MiB, received in place. Probe and receive are the plain ones, in one thread, and nothing is sent
blocking: see "Isend only" in the README's decisions. Importing this module initializes MPI.
"""

from __future__ import annotations

import time
from collections import deque

import numpy as np
from mpi4py import MPI

from ..errors import BadFrame, BadVersion, ServerLost
from ..messages import Array
from ..relay import flatten
from ..wire import HEADER_BYTES, INLINE_BYTES, PIECE_BYTES, Frame, Header, Packed, read_header, read_layout, split
from . import Arrival, Place
from .buffers import Buffers
from .doorbell import Doorbell

#: Tags of the first message of a frame, and of the pieces behind it.
HEAD, PIECE = 1, 2
#: Tags for making communicators; each pair has its own (MPICH crashes when successive intercommunicators share one).
GROUP_TAG, PAIR_TAG = 32001, 16000
#: Longest sleep while something is under way, seconds.
NAP = 1e-3
#: How MPI says that a process has died, where it can (ULFM).
DEATHS = {MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING, MPI.ERR_REVOKED} - {MPI.ERR_UNKNOWN}
#: The launch as a whole, and its end; a script sees others under these names (`World.stand_in`).
_WORLD, _FINALIZE = MPI.COMM_WORLD, MPI.Finalize
#: A large message that has not come in after so many seconds is not waited for without sleep any longer.
PATIENCE = 0.1
#: Messages that are taken in at once, before any of them is looked at.
MOST_ARRIVALS = 256


class MpiLink:
    """A link to one rank of a communicator."""

    transport = "mpi"

    def __init__(self, port: MpiPort, comm: MPI.Comm, rank: int, peer: int, name: str) -> None:
        self.name = name
        #: The peer's rank in the world.
        self.peer = peer
        self._port = port
        self.comm = comm
        self._rank = rank
        #: What is being sent, in order, with the buffers that must be kept until it is sent.
        self._outgoing: deque[tuple[MPI.Request, bytearray | Array]] = deque()
        self.is_dead = False
        #: Frames in order, the first of them still incomplete, with room for their arrays.
        self.incoming: deque[tuple[Arrival, list[Array]]] = deque()

    @property
    def unsent_bytes(self) -> int:
        return sum(b.nbytes if isinstance(b, np.ndarray) else len(b) for _, b in self._outgoing)

    def part(self) -> None:
        """A link of one launch ends with it."""

    def send(self, packed: Packed) -> None:
        if self.is_dead:
            return
        head, tail = packed
        try:
            self._start(head, HEAD)
            for array in tail:
                for piece in _pieces(array.reshape(-1).view(np.uint8)):
                    self._start(piece, PIECE)
        except MPI.Exception as error:
            self._port.mourn(self.comm, error)
        self._port.bell.ring(self.peer)

    def die(self) -> None:
        """The peer is dead: nothing is sent any more, nor waited for."""
        self.is_dead = True
        self._outgoing.clear()
        self.incoming.clear()

    def _start(self, buffer: bytearray | Array, tag: int) -> None:
        request = self.comm.Isend([buffer, MPI.BYTE], self._rank, tag)
        if self._outgoing or not request.Test():
            self._outgoing.append((request, buffer))
            self._port.sending[self] = None
            self.is_sent()  # what waits leaves only if somebody looks

    def post(self) -> list[MPI.Request]:
        """Receives the arrays of the first incomplete frame; those of a second one would only delay it."""
        comm, rank = self.comm, self._rank
        return [comm.Irecv([p, MPI.BYTE], rank, PIECE) for flat in self.incoming[0][1] for p in _pieces(flat)]

    def is_sent(self) -> bool:
        """Whether nothing is under way any more."""
        outgoing = self._outgoing
        try:
            while outgoing and outgoing[0][0].Test():
                outgoing.popleft()
        except MPI.Exception as error:
            self._port.mourn(self.comm, error)
            outgoing.clear()
        return not outgoing


class MpiPort:
    """All MPI links of this rank."""

    def __init__(self, bell: Doorbell) -> None:
        self.place: Place = Buffers().place
        self.bell = bell
        #: Links that have something to send.
        self.sending: dict[MpiLink, None] = {}
        #: Links whose first frame is incomplete, with what is being received of it.
        self._incomplete: dict[MpiLink, list[MPI.Request]] = {}
        self._moving_until = 0.0
        self._status = MPI.Status()
        self._comms: list[tuple[MPI.Comm, dict[int, MpiLink]]] = []
        #: What is still to be said of peers that have died, and whether any rank of this launch has.
        self._obituaries: list[Arrival] = []
        self.has_lost = False

    def add_links(self, comm: MPI.Comm, peers: dict[int, tuple[int, str]]) -> list[MpiLink]:
        """Links to ranks of ``comm``, each given with its world rank and its name."""
        links = {rank: MpiLink(self, comm, rank, peer, name) for rank, (peer, name) in peers.items()}
        self._comms.append((comm, links))
        return list(links.values())

    def receive(self) -> list[Arrival]:
        if self.sending:
            self.is_sent()
        arrived: list[Arrival] = []
        for comm, links in self._comms:
            try:
                self._receive_from(comm, links, arrived)
            except MPI.Exception as error:
                self.mourn(comm, error)
        if self._incomplete:
            self._finish(arrived)
        if self._obituaries:  # behind what they had said
            arrived += self._obituaries
            self._obituaries = []
        if arrived:
            self.bell.has_come()
        return arrived

    def mourn(self, comm: MPI.Comm, error: MPI.Exception) -> None:
        """A rank of the launch has died, which few MPIs tell: Open MPI does under ``mpiexec --with-ft ulfm``."""
        if error.Get_error_class() not in DEATHS:
            raise error
        self.has_lost = True
        comm.Ack_failed(comm.size)
        failed = comm.Get_failed()
        ranks = failed.Translate_ranks(None, comm.group)
        links = next(links for other, links in self._comms if other is comm)
        for link in [links[rank] for rank in ranks if rank in links and not links[rank].is_dead]:
            link.die()
            self.sending.pop(link, None)
            self._incomplete.pop(link, None)
            self._obituaries.append((link, ServerLost(f"{link.name} has died")))

    def _receive_from(self, comm: MPI.Comm, links: dict[int, MpiLink], arrived: list[Arrival]) -> None:
        status, nudge = self._status, self.bell.nudge
        while comm.Iprobe(MPI.ANY_SOURCE, HEAD, status) and len(arrived) < MOST_ARRIVALS:
            source = status.Get_source()
            buffer = bytearray(status.Get_count(MPI.BYTE))
            comm.Recv([buffer, MPI.BYTE], source, HEAD)
            link = links[source]
            self._take(link, buffer, arrived)
            nudge(link.peer)
            if link.incoming:
                break  # something large is on its way: look what else there is to do

    def is_sent(self) -> bool:
        """Whether nothing is being sent any more."""
        for link in list(self.sending):
            if link.is_sent():
                self.sending.pop(link, None)
        return not self.sending

    def flush(self, seconds: float) -> None:
        if self.sending:
            self.bell.spin(self.is_sent, time.perf_counter() + seconds)

    def close(self) -> None:
        """Links of one launch end with it."""

    def _take(self, link: MpiLink, buffer: bytearray, arrived: list[Arrival]) -> None:
        try:
            header = read_header(buffer)
            if len(buffer) == HEADER_BYTES + header.payload and not link.incoming:
                arrived.append((link, Frame(header, buffer)))  # most messages are one small frame
                return
            for header, start in split(buffer):
                if header.payload <= INLINE_BYTES - HEADER_BYTES:
                    self._put(link, (link, Frame(header, buffer, start)), [], arrived)
                else:
                    self._take_large(link, header, buffer, start, arrived)
        except (BadFrame, BadVersion) as error:
            self._put(link, (link, error), [], arrived)

    def _take_large(self, link: MpiLink, header: Header, buffer: bytearray, start: int, arrived: list[Arrival]) -> None:
        layout = read_layout(header, buffer, start)
        try:
            arrays = self.place(link, header, layout)
        except MemoryError:
            raise BadFrame(f"a frame of {header.payload} bytes, for which there is no memory here") from None
        self._put(link, (link, Frame(header, buffer, start, arrays)), flatten(layout, arrays), arrived)

    def _put(self, link: MpiLink, arrival: Arrival, room: list[Array], arrived: list[Arrival]) -> None:
        """What is complete has arrived, unless something incomplete came before it on the same link."""
        if room or link.incoming:
            link.incoming.append((arrival, room))
            if link not in self._incomplete:
                self._incomplete[link] = link.post()
                self._moving_until = time.monotonic() + PATIENCE
        else:
            arrived.append(arrival)

    def _finish(self, arrived: list[Arrival]) -> None:
        for link, requests in list(self._incomplete.items()):
            while self._are_in(link, requests):
                arrived.append(link.incoming.popleft()[0])
                self._moving_until = time.monotonic() + PATIENCE
                self.bell.nudge(link.peer)
                if not link.incoming:
                    del self._incomplete[link]
                    break
                requests = self._incomplete[link] = link.post()
                if requests:
                    break  # the next large frame may take a while

    def _are_in(self, link: MpiLink, requests: list[MPI.Request]) -> bool:
        try:
            return bool(MPI.Request.Testall(requests))
        except MPI.Exception as error:
            self.mourn(link.comm, error)
            return False

    def wait(self, seconds: float) -> None:
        if self._incomplete and time.monotonic() < self._moving_until:
            self.bell.spin(self._look, time.perf_counter() + NAP)  # large messages move only while both sides look
        else:
            moving = self.sending or self._incomplete
            self.bell.wait(self._look, min(seconds, NAP) if moving else seconds, is_stuck=bool(self.sending))

    def _look(self) -> bool:
        for comm, _ in self._comms:
            try:
                if comm.Iprobe(MPI.ANY_SOURCE, HEAD):
                    return True
            except MPI.Exception as error:
                self.mourn(comm, error)
        for link, requests in list(self._incomplete.items()):
            self.bell.nudge(link.peer)
            if self._are_in(link, requests):
                return True
        return bool(self._obituaries)


def _pieces(flat: Array) -> list[Array]:
    return [flat[start : start + PIECE_BYTES] for start in range(0, len(flat), PIECE_BYTES)]


class World:
    """The ranks of one launch, before they have found their groups and after."""

    def __init__(self, bell: Doorbell) -> None:
        self._comm = _WORLD
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

    def join(self, group: MPI.Intracomm, remote_leader: int, pair: int, *, is_high: bool) -> MPI.Intracomm:
        """Joins this group with that of world rank ``remote_leader``, by an intercommunicator.

        Returns the two merged, the high group behind the low one: MPICH 5.0 moves large messages within a merged
        communicator 2.5 times as fast as over the intercommunicator itself, which it does not know to be local.
        """
        bridge = group.Create_intercomm(0, self._comm, remote_leader, PAIR_TAG + pair)
        return bridge.Merge(is_high)

    @staticmethod
    def stand_in(group: MPI.Intracomm) -> None:
        """Lets the script that runs in this process see its own group as ``MPI.COMM_WORLD``."""
        MPI.COMM_WORLD = group  # type: ignore[misc]
        MPI.Finalize = lambda: None  # the launch ends MPI, for all ranks at once


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


def abort(code: int) -> None:
    """Ends every rank of the launch at once."""
    _WORLD.Abort(code)


def finalize() -> None:
    """Ends MPI; collective over all ranks of the launch."""
    if MPI.Is_initialized() and not MPI.Is_finalized():
        _FINALIZE()
