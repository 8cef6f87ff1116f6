"""One launch: server and analyses, which know nothing of one another, in one MPI world.

Every rank starts here. World rank 0 is the dispatcher; it calls the roll with a deadline that names who is missing,
and tells everybody who is there. Then groups and intercommunicators are made in one order that all can compute. An
analysis sees its own group as ``MPI.COMM_WORLD``, and says goodbye when its script ends.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import socket
import stat
import sys
import termios
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn

from .config import Config
from .errors import DemosError, LaunchError
from .identity import find_user
from .messages import Hello, Kind, Welcome, from_json, to_json
from .peers import Person
from .transport import LONGEST_WAIT, Arrival, Link, Port
from .transport.doorbell import Doorbell
from .watchdog import find_rank_and_size, watch_start
from .wire import pack

if TYPE_CHECKING:
    from .transport.mpi import MpiLink, MpiPort, World

#: How often a rank looks while the roll is called, seconds; 128 of them must not starve those still starting.
ROLL_PAUSE = 2e-3
#: How much longer than rank 0 the others wait, seconds: it is for rank 0 to say who is missing.
ROLL_GRACE = 5.0
#: Seconds for the launcher to read the last words of a rank.
READING = 1.0
#: How long something may be under way at the end, seconds.
LAST_WORDS = 60.0
REMEDY = "start servers by `demos-hpc serve`, analyses by `python -m demos_hpc analysis.py`"


class Launch:
    """This rank's place in the launch, after the roll call; ``servers`` and ``clients`` are its links.

    ``spec`` is what rank 0 tells ranks in C of their model.

    Raises
    ------
    LaunchError
        Where the ranks could not be brought together. Others may still wait: end the launch by `abort`.
    """

    def __init__(self, role: str, group: str, config: Config, spec: str = "") -> None:
        with watch_start(config.run_dir, config.roll_call_timeout):
            from .transport import mpi  # initializes MPI
        self.config = config
        self._role = role
        try:
            self._bell = Doorbell(config.yield_seconds, by_udp=config.bell == "udp")
            self._world: World = mpi.World(self._bell)
            self.rank, self.size = self._world.rank, self._world.size
            self.port: MpiPort = mpi.MpiPort(self._bell)
            self.servers: list[MpiLink] = []
            self.clients: list[MpiLink] = []
            self._come_together(group, spec)
        except LaunchError as error:
            self.abort(str(error), 2)
        except BaseException:  # the others would wait for this rank for ever
            traceback.print_exc()
            self.abort(f"process {os.getpid()} on {socket.gethostname()} could not take part in the launch", 1)

    def _come_together(self, group: str, spec: str) -> None:
        _check_size(self.size, self.config.image_digest)
        hello = Hello(self._role, group, socket.gethostname(), os.getpid(), find_user(), self._bell.address)
        welcome = _call_roll(self._world, hello, self.config.roll_call_timeout, spec)
        self._hellos = [Hello.from_dict(values) for values in welcome.hellos]
        self._bell.meet([h.bell for h in self._hellos], self.rank, welcome.token)
        self._link_up()
        if self.rank == 0:
            self._bell.hide()  # rank 0 is linked to everybody, and whoever is linked has met

    @property
    def name(self) -> str:
        return self._name(self.rank)

    def person_of(self, link: MpiLink) -> Person:
        """Whose process is at the other end."""
        hello = self._hellos[link.peer]
        return Person(hello.user, hello.host, hello.pid)

    def _name(self, rank: int) -> str:
        return f"rank {rank} on {self._hellos[rank].host}"

    def _link_up(self) -> None:
        """Makes the groups and the intercommunicators, in the same order everywhere, and this rank's links."""
        hellos = self._hellos
        servers = [rank for rank, h in enumerate(hellos) if h.role == "server"]
        groups: dict[str, list[int]] = {}
        for rank, h in enumerate(hellos):
            if h.role == "client":
                groups.setdefault(h.group, []).append(rank)
        own = servers if self._role == "server" else groups[hellos[self.rank].group]
        group = self._world.make_group(own)
        if self.rank == 0:
            self.servers = self.port.add_links(group, {i: (r, self._name(r)) for i, r in enumerate(servers) if r})
        elif self._role == "server":
            self.servers = self.port.add_links(group, {0: (0, self._name(0))})
        for pair, ranks in enumerate(groups.values()):
            if self._role == "server":
                joined = self._world.join(group, ranks[0], pair, is_high=False)
                if self.rank == 0:
                    numbered = enumerate(ranks, start=len(servers))
                    self.clients += self.port.add_links(joined, {i: (r, self._name(r)) for i, r in numbered})
            elif ranks is own:
                joined = self._world.join(group, 0, pair, is_high=True)
                self.servers = self.port.add_links(joined, {0: (0, self._name(0))})
        if self._role == "client":
            self._world.stand_in(group)

    def leave(self) -> None:
        """Ends MPI, together with all other ranks."""
        from .transport import mpi

        end = time.monotonic() + LAST_WORDS
        while not self.port.is_sent():
            if time.monotonic() > end:
                self.abort(f"{self.name} has something to send that nobody took within {LAST_WORDS:g} s", 1)
            self.port.wait(LONGEST_WAIT)
        self._bell.close()
        if self.port.has_lost:
            # After a death MPI_Finalize fails the job.
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
        mpi.finalize()

    def abort(self, message: str, code: int) -> NoReturn:
        """Says why, and ends every rank of the launch at once."""
        print(f"demos-hpc: {message}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        _wait_until_read(2, READING)
        if hasattr(self, "_bell"):
            self._bell.close()
        from .transport import mpi

        mpi.abort(code)
        os._exit(code)  # MPICH's Abort may return before the launcher has ended this process


def _wait_until_read(pipe: int, seconds: float) -> None:
    """Until the launcher has read what this process wrote: it throws the rest away when it ends an aborted launch."""
    if not stat.S_ISFIFO(os.fstat(pipe).st_mode):
        return
    end = time.monotonic() + seconds
    while int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder) and time.monotonic() < end:
        time.sleep(ROLL_PAUSE)


def _call_roll(world: World, hello: Hello, timeout: float, spec: str) -> Welcome:
    """Who is there, in order of ranks; `LaunchError` where somebody is missing."""
    links = world.roll_links()
    if world.rank == 0:
        return _take_roll(world, links, hello, timeout, spec)
    links[0].send(pack(Kind.HELLO, [to_json(hello.to_dict())]))
    for _, arrived in _arrivals(world.port, timeout + ROLL_GRACE):
        if isinstance(arrived, DemosError):
            raise LaunchError(f"rank {world.rank} does not understand rank 0: {arrived}")
        if arrived.header.kind == Kind.WELCOME:
            return Welcome.from_dict(from_json(arrived.arrays[0]))
    raise LaunchError(
        f"rank {world.rank}: rank 0 has not called the roll within {timeout + ROLL_GRACE:g} s: the server must come"
        f" first on the command line; {REMEDY}"
    )


def _take_roll(world: World, links: Sequence[Link], hello: Hello, timeout: float, spec: str) -> Welcome:
    hellos: dict[str, Hello] = {}
    if hello.role != "server":
        raise LaunchError(f"rank 0 is an analysis, {hello.group}: the server must come first on the command line")
    for link, arrived in _arrivals(world.port, timeout if links else 0.0):
        if isinstance(arrived, DemosError):
            raise LaunchError(f"{link.name}: {arrived}")
        hellos[link.name] = Hello.from_dict(from_json(arrived.arrays[0]))
        if len(hellos) == len(links):
            break
    if missing := [link.name for link in links if link.name not in hellos]:
        raise LaunchError(
            f"{', '.join(missing)} did not call in within {timeout:g} s (DEMOS_ROLL_CALL_TIMEOUT); {REMEDY}"
        )
    everybody = [hello, *(hellos[link.name] for link in links)]
    _check_roles(everybody)
    welcome = Welcome([h.to_dict() for h in everybody], os.urandom(8).hex(), spec)
    packed = pack(Kind.WELCOME, [to_json(welcome.to_dict())])
    for link in links:
        link.send(packed)
    end = time.monotonic() + timeout
    while not world.port.is_sent():  # a large welcome moves only while both sides look
        if time.monotonic() > end:
            raise LaunchError(f"some rank called in and did not listen to the answer within {timeout:g} s")
        time.sleep(ROLL_PAUSE)
    return welcome


def _check_roles(hellos: Sequence[Hello]) -> None:
    n_servers = sum(h.role == "server" for h in hellos)
    if n_servers < 2:
        raise LaunchError(
            "the server has one rank and needs two at least, a dispatcher and a worker: mpiexec -n 2 demos-hpc serve"
            " MODEL, or with --spec ranks of the program, mpiexec -n 1 demos-hpc serve --spec FILE.json : -n 4 PROGRAM"
        )
    if n_servers == len(hellos):
        raise LaunchError(
            "there is nobody to call the model: add an analysis to the launch, as in"
            " mpiexec -n 3 demos-hpc serve MODEL : -n 1 python -m demos_hpc analysis.py"
        )


def _arrivals(port: Port, timeout: float) -> Iterator[Arrival]:
    """What arrives within ``timeout`` seconds."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        arrived = port.receive()
        yield from arrived
        if not arrived:
            time.sleep(ROLL_PAUSE)


def _check_size(size: int, image: str) -> None:
    place = find_rank_and_size()
    if size == 1 and place is not None and place[1] > 1:
        raise LaunchError(
            f"{place[1]} ranks were started, and each of them is an MPI world of its own, since the launcher and this"
            " MPI library do not speak the same language: `demos-hpc doctor` tells more. With Slurm, try"
            " srun --mpi=pmi2 or --mpi=pmix, or mpiexec inside the allocation"
            + (". This MPI library is that of the image, which the launcher outside has to fit" if image else "")
        )
