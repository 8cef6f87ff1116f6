"""Hands the connection to a server over to a program in C, which so needs no cryptography.

We dial, prove who we are, and start the program with the connected socket: open, its number in `TICKET`, JSON in one
line. Frames travel on it as behind the door (csrc/WIRE.md), none of them compressed, none through shared memory:

    {"fd": 5, "end": 7, "role": "worker", "name": "worker 3", "server": "decay", "heartbeat": 5.0}

``role`` is "worker" or "client"; ``heartbeat`` are the seconds between two BEATs, 0 for none. ``end`` is a socket in
which one byte lies: the one process that takes it has the connection. A worker writes one byte there before it
leaves: E where END has come, L where the connection was lost; where we die, it finds its other end closed, and ends.
`SPEC` names the file that describes its model. Where the door speaks TLS, we stay between (`pump`).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .children import Signaled, accompany
from .config import Config
from .dialing import ENTRY, Dialed, dial_any
from .errors import InvalidInput, ModelCrashed, ModelNotFound
from .joining import LONGEST_PAUSE, find_again
from .logs import Logger, warn
from .messages import Kind
from .pump import Pump
from .registry import Registry
from .transport.tcp import StreamPort
from .wire import MAGIC

TICKET, SPEC = "DEMOS_TICKET", "DEMOS_SPEC"
#: Largest file that describes a model, bytes.
MOST_SPEC_BYTES = 1 << 20
#: Seconds for the last bytes to arrive, and for a server to hang up that has ended.
LAST_WORDS, HANGING_UP = 5.0, 2.0
_OVER, _LOST, _CLAIM = b"E", b"L", b"T"
_MAGIC = MAGIC.to_bytes(4, "little")
#: What it means that a program has ended by a signal.
_MEANINGS = {
    signal.SIGSEGV: "it has used memory that is not its own",
    signal.SIGBUS: "it has used memory that is not there",
    signal.SIGFPE: "it has divided by zero, or trapped another floating-point exception",
    signal.SIGILL: "it has an instruction that this processor does not know",
    signal.SIGABRT: "it has called abort(), or let a C++ exception go uncaught",
    signal.SIGKILL: "somebody has killed it, or there was no memory left",
}
_LOG = Logger("handover")


@dataclass(frozen=True)
class Program:
    """A program and its arguments, and the file that describes its model, if there is one.

    Raises
    ------
    ModelNotFound
        Where there is no such program.
    InvalidInput
        Where it cannot be executed, or the file is none.
    """

    path: str
    arguments: tuple[str, ...] = ()
    spec: str = ""

    def __post_init__(self) -> None:
        if shutil.which(self.path) is None:
            place = Path(self.path)
            if place.is_dir() or place.is_file():
                what = "is a directory" if place.is_dir() else "cannot be executed"
                how = f"./{place}" if os.access(place, os.X_OK) else f"chmod +x {place}"
                raise InvalidInput(f"program {self.path!r} {what}" + (f"; try {how}" if place.is_file() else ""))
            raise ModelNotFound(f"there is no program {self.path!r} (from {Path.cwd()})")
        if self.spec:
            read_description(self.spec)

    @property
    def command(self) -> list[str]:
        return [self.path, *self.arguments]


def read_description(path: str) -> str:
    """The text of a file that describes a model in C.

    Raises
    ------
    ModelNotFound
        Where it does not exist.
    InvalidInput
        Where it is too large, or no object of JSON.
    """
    if not Path(path).is_file():
        raise ModelNotFound(f"model file {path!r} does not exist (from {Path.cwd()})")
    try:
        size = Path(path).stat().st_size
        if size > MOST_SPEC_BYTES:
            raise InvalidInput(f"{path} has {size} bytes; the description of a model has at most {MOST_SPEC_BYTES}")
        text = Path(path).read_text(encoding="utf-8")
        is_object = isinstance(json.loads(text), dict)
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(f"{path} cannot be read: {error}") from None
    if not is_object:
        raise InvalidInput(f"{path} is no object of JSON, {{...}}")
    return text


def work(
    name: str, config: Config, program: Program, *, label: str = "", family: str = "", transport: str = "auto"
) -> int:
    """Lets ``program`` work for the server ``name`` until that ends; as `demos_hpc.joining.join`.

    Returns
    -------
    int
        0, or 128 + n where we were told to end by signal n, and the program has.

    Raises
    ------
    ServerLost, AccessRefused
        As `join`.
    ModelCrashed
        Where the program ends though the server has not.
    """
    config = _make_plain(config)
    registry = Registry(config.registry_directory)
    options = {"family": family, "label": label, "transport": transport}
    dialed = dial_any(name, registry, config, "worker", seconds=ENTRY, **options)
    while True:
        admission = dialed.admission
        who = f"worker {admission.number}"
        _LOG.info("joined", server=admission.name, worker=admission.number, program=program.path, label=label)
        with _handed_over(dialed, program, "worker", who, config.heartbeat) as handed:
            try:
                code = handed.run()
            except Signaled as told:
                return 128 + told.number
            if handed.is_server_gone(code):
                warn(f"the connection to server {admission.name!r} was lost; looking for it")
            elif code or not handed.is_over():
                raise ModelCrashed(_describe_end(program, who, code, handed))
            else:
                return 0
        dialed = find_again(name, registry, config, **options)


def call(name: str, config: Config, program: Program, *, transport: str = "auto") -> int:
    """Runs a client in C, connected to the server or model ``name``; returns its exit status as a shell gives it.

    ``transport`` is as of `demos_hpc.connect`.

    Raises
    ------
    ServerLost, AccessRefused
        As `demos_hpc.dialing.dial_any`.
    """
    config = _make_plain(config)
    dialed = dial_any(name, Registry(config.registry_directory), config, "client", seconds=ENTRY, transport=transport)
    with _handed_over(dialed, program, "client", f"client {dialed.admission.number}", 0.0) as handed:
        try:
            code = handed.run()
        except Signaled as told:
            return told.status
    return code if code >= 0 else 128 - code


def _make_plain(config: Config) -> Config:
    """The settings of a connection that a program understands."""
    return config.changed(upgrade="off", compression="off")


class _Handed:
    """A connection that a program has, or is about to have."""

    def __init__(self, sock: socket.socket, command: list[str], ticket: dict[str, object], spec: str) -> None:
        self._sock = sock
        self._command = command
        self._pump: Pump | None = None
        self._given = sock
        if isinstance(sock, ssl.SSLSocket):
            near, self._given = socket.socketpair()
            self._pump = Pump(sock, near)
            self._pump.start()
        else:
            sock.setblocking(True)
        self._said, self._end = socket.socketpair()
        self._said.setblocking(False)
        self._said.send(_CLAIM)
        #: The last that the program has said.
        self.word = b""
        #: Whether it has taken the connection.
        self.was_taken = True
        ticket = {"fd": self._given.fileno(), "end": self._end.fileno(), **ticket}
        self._environment = {**os.environ, TICKET: json.dumps(ticket)}
        if spec:
            self._environment[SPEC] = str(Path(spec).absolute())

    def run(self) -> int:
        """Runs the program to its end."""
        try:
            return accompany(self._command, self._environment, (self._given.fileno(), self._end.fileno()), self._begin)
        except OSError as error:
            raise InvalidInput(f"program {self._command[0]!r} cannot be executed: {error.strerror}") from None
        finally:
            self._begin()
            if self._pump is not None:
                self._pump.end(LAST_WORDS)
            with contextlib.suppress(BlockingIOError):
                self.word = self._said.recv(1)
            with contextlib.suppress(BlockingIOError):
                self.was_taken = not self._end.recv(1, socket.MSG_DONTWAIT)

    def _begin(self) -> None:
        """The program has what it needs."""
        if self._pump is not None:
            self._given.close()  # or the program's end would not be that of the connection

    def is_server_gone(self, code: int) -> bool:
        """Whether the program has ended with this status since it lost the server."""
        if self.word:
            return self.word == _LOST
        return code != 0 and self._has_hung_up(0.0)

    def is_over(self) -> bool:
        """Whether the server has ended, and so its service."""
        if self.word == _OVER:
            return True
        if self._pump is not None:
            return self._pump.last[:7].endswith(bytes([Kind.END])) and self._pump.last[:4] == _MAGIC
        return self._has_hung_up(HANGING_UP)

    def _has_hung_up(self, seconds: float) -> bool:
        """Whether the server was the first to go."""
        if self._pump is not None:
            return self._pump.is_lost
        poll = select.poll()
        poll.register(self._sock, select.POLLRDHUP)
        return bool(poll.poll(seconds * 1e3))

    def close(self) -> None:
        for sock in (self._sock, self._given, self._said, self._end):
            sock.close()


@contextlib.contextmanager
def _handed_over(dialed: Dialed, program: Program, role: str, name: str, heartbeat: float) -> Iterator[_Handed]:
    assert isinstance(dialed.port, StreamPort)
    dialed.port.flush(LONGEST_PAUSE)
    sock = dialed.port.release(dialed.link)
    dialed.port.close()
    ticket = {"role": role, "name": name, "server": dialed.admission.name, "heartbeat": heartbeat}
    handed = _Handed(sock, program.command, ticket, program.spec)
    try:
        yield handed
    finally:
        handed.close()


def _describe_end(program: Program, who: str, code: int, handed: _Handed) -> str:
    subject = f"program {program.path!r} ({who})"
    if code < 0:
        number = -code
        name = signal.Signals(number).name if number in set(signal.Signals) else "?"
        meaning = _MEANINGS.get(signal.Signals(number), "") if name != "?" else ""
        return f"{subject} was ended by signal {number} ({name})" + (f": {meaning}" if meaning else "")
    if not handed.was_taken:
        return (
            f"{subject} ended with exit status {code}, and never asked for its connection: does it call demos_serve()?"
        )
    when = ", after the service was over" if handed.word == _OVER else ", though the service goes on"
    return f"{subject} ended with exit status {code}: it has called exit() or STOP, or main() has returned{when}"
