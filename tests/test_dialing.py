"""The way to a server: by which address, past which others, and only to the one that it is."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_endpoint import ENDPOINT, NOW

from demos_hpc import dialing
from demos_hpc import door as door_module
from demos_hpc.certificates import Certificate, make_certificate, server_context
from demos_hpc.config import Config
from demos_hpc.dialing import Dialed, dial, dial_any
from demos_hpc.door import Door, Guest, House
from demos_hpc.endpoint import Endpoint, find_binding, find_boot
from demos_hpc.errors import (
    AccessRefused,
    BadFrame,
    BadVersion,
    DeadlineExceeded,
    DemosError,
    InvalidInput,
    ServerLost,
)
from demos_hpc.greetings import Admission, Challenge, Knock
from demos_hpc.identity import Key, find_user, prove
from demos_hpc.messages import Array, Failure, Kind, from_json, to_json
from demos_hpc.munge import Credential, MungeFailed
from demos_hpc.refusals import pack_failure
from demos_hpc.registry import Registry
from demos_hpc.transport import Link
from demos_hpc.transport.tcp import StreamLink, StreamPort
from demos_hpc.transport.tuning import tune
from demos_hpc.wire import HEADER_BYTES, OFFSETS, Header, Layout, Packed, pack, read_header

#: Seconds that something may take that should happen at once, and that nobody waits for in vain.
DEADLINE = 20.0
#: Seconds that are waited for in vain.
SHORT = 0.3
USER = find_user()
KEY, OTHER_KEY = Key(USER, bytes(range(40))), Key(USER, bytes(range(100, 140)))


def refuse_large(link: Link, header: Header, layout: Layout) -> list[Array]:
    raise BadFrame("from somebody who was not let in")


class Doorkeeper:
    """A server of which there is only the door, in a thread; ``endpoint`` says where.

    ``key`` is the one that it checks proofs by, and ``server`` who it says it is.
    """

    def __init__(
        self,
        name: str = "neutrino",
        *,
        key: Key = KEY,
        certificate: Certificate | None = None,
        server: str = "",
        may_enter: bool = True,
        by_munge: bool = False,
        zstd: bool = False,
        has_unix: bool = True,
        **members: Any,
    ) -> None:
        identity = f"{abs(hash((name, id(self)))):032x}"[:32]
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._unix.bind(f"\0demos-test-{identity}")
        if has_unix:
            self._unix.listen(10)
        place: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": self._listener.getsockname()[1],
            "unix": f"@demos-test-{identity}",
            "boot": find_boot(),
            "tls": certificate.fingerprint if certificate else "",
            "user": USER,
            "heartbeat": NOW,
        }
        self.endpoint = replace(ENDPOINT, id=identity, name=name, **(place | members))
        self._guests: list[Guest] = []
        self.refused: list[str] = []
        #: Held for a whole turn: whoever has been welcomed is a guest once it is free.
        self._turn = threading.Lock()
        self._context = server_context(certificate.path) if certificate else None
        self._port = StreamPort()
        self._port.place = refuse_large
        self._door = Door(
            House(server or identity, name, 5.0, zstd=zstd),
            {USER: key},
            by_munge=by_munge,
            may_enter=lambda user, role: may_enter,
            find_binding=lambda link: find_binding(self.endpoint, is_unix=link.transport == "unix"),
            refused=lambda link, user, why: self.refused.append(why),
            most_visits=100,
            numbers=count(1),
        )
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        self._port.listen(self._listener, self._greet)
        self._port.listen(self._unix, self._greet)
        while not self._is_over.is_set():
            self._port.wait(0.01)
            with self._turn:
                for link, arrived in self._port.receive():
                    assert isinstance(link, StreamLink)
                    if guest := self._door.take(link, arrived):
                        self._guests.append(guest)
        self._port.close()

    @property
    def guests(self) -> list[Guest]:
        """Everybody who was let in so far."""
        with self._turn:
            return list(self._guests)

    def _greet(self, sock: socket.socket) -> None:
        tune(sock, 5.0)
        if self._context is not None and sock.family != socket.AF_UNIX:
            sock = self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        self._door.greet(self._port.add(sock, "somebody"), "here")

    def close(self) -> None:
        self._is_over.set()
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()


class Impostor:
    """Whoever answers at an address, one connection after the other, in whatever way ``act(sock)`` does."""

    def __init__(self, act: Callable[[socket.socket], object], **members: Any) -> None:
        self._act = act
        self._listener = socket.create_server(("127.0.0.1", 0))
        place: dict[str, Any] = {"host": "127.0.0.1", "port": self._listener.getsockname()[1], "boot": "elsewhere"}
        self.endpoint = replace(ENDPOINT, id=os.urandom(16).hex(), **(place | {"tls": "", "heartbeat": NOW} | members))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock, contextlib.suppress(OSError):
                sock.settimeout(DEADLINE)
                self._act(sock)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()


@pytest.fixture
def start() -> Iterator[Callable[..., Any]]:
    """Starts a `Doorkeeper` or an `Impostor`; all end with the test, and nothing is left open."""
    before = len(os.listdir("/proc/self/fd"))
    started: list[Any] = []

    def start(kind: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        started.append(kind(*arguments, **options))
        return started[-1]

    yield start
    for one in started:
        one.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> list[Certificate]:
    pytest.importorskip("cryptography")
    return [make_certificate(tmp_path_factory.mktemp("tls")) for _ in range(2)]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "key"
    path.write_text(f"{USER} {KEY.secret.hex()}\n", encoding="ascii")
    path.chmod(0o600)
    return Config(key_file=str(path), registry=str(tmp_path / "registry"), authentication="key")


@contextlib.contextmanager
def reaching(endpoint: Endpoint, config: Config, seconds: float = DEADLINE, **options: Any) -> Iterator[Dialed]:
    """A connection as an operator has it: over the socket and nothing else."""
    dialed = dial(endpoint, config, "operator", seconds=seconds, **options)
    try:
        yield dialed
    finally:
        dialed.port.close()


def fail(endpoint: Endpoint, config: Config, seconds: float = DEADLINE, **options: Any) -> DemosError:
    """The error that dialing ends with."""
    with pytest.raises(DemosError) as caught, reaching(endpoint, config, seconds, **options):
        pass
    assert caught.value.__cause__ is None or not isinstance(caught.value.__cause__, OSError)
    return caught.value


# ---- by which way --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("transport", "way"), [("auto", "unix"), ("unix", "unix"), ("tcp", "tcp")])
def test_on_one_host_the_unix_socket_comes_first(
    start: Callable[..., Any], config: Config, transport: str, way: str
) -> None:
    keeper = start(Doorkeeper)
    with reaching(keeper.endpoint, config, transport=transport, label="w7") as dialed:
        assert dialed.link.transport == way
        assert dialed.endpoint is keeper.endpoint
        assert (dialed.admission.server, dialed.admission.number) == (keeper.endpoint.id, 1)
        assert dialed.link.name == f"server neutrino on {keeper.endpoint.hostname}"
    (guest,) = keeper.guests
    assert (guest.user, guest.knock.role, guest.knock.label) == (USER, "operator", "w7")
    assert (guest.knock.pid, guest.knock.host) == (os.getpid(), socket.gethostname())


def test_from_another_host_it_is_tcp(start: Callable[..., Any], config: Config) -> None:
    keeper = start(Doorkeeper, boot="another boot")
    with reaching(keeper.endpoint, config) as dialed:
        assert dialed.link.transport == "tcp"
    error = fail(keeper.endpoint, config, transport="unix")
    assert type(error) is ServerLost
    assert f"'neutrino' runs on {keeper.endpoint.hostname}" in str(error)


def test_where_the_unix_socket_does_not_answer_it_is_tcp(start: Callable[..., Any], config: Config) -> None:
    keeper = start(Doorkeeper, unix="@demos-test-nobody")
    with reaching(keeper.endpoint, config) as dialed:
        assert dialed.link.transport == "tcp"
    error = fail(keeper.endpoint, config, transport="unix")
    assert type(error) is ServerLost
    assert "@demos-test-nobody: Connection refused" in str(error)


def test_ways_that_there_are_not(start: Callable[..., Any], config: Config) -> None:
    error = fail(start(Doorkeeper).endpoint, config, transport="pigeon")
    assert type(error) is InvalidInput
    assert "'pigeon'" in str(error)
    assert "unix, tcp" in str(error)


def test_one_may_wait_for_ever(start: Callable[..., Any], config: Config) -> None:
    with reaching(start(Doorkeeper).endpoint, config, float("inf")) as dialed:
        assert dialed.admission.number == 1


def test_after_admission_large_frames_are_taken(start: Callable[..., Any], config: Config) -> None:
    keeper = start(Doorkeeper)
    with reaching(keeper.endpoint, config) as dialed:
        keeper.guests[0].link.send(pack(Kind.REPLY, [np.arange(50_000.0)], id=3))
        end = time.monotonic() + DEADLINE
        while not (arrivals := dialed.port.receive()):
            assert time.monotonic() < end
            dialed.port.wait(0.1)
        np.testing.assert_array_equal(arrivals[0][1].arrays[0], np.arange(50_000.0))  # type: ignore[union-attr]


@pytest.mark.parametrize("zstd", [False, True])
@pytest.mark.parametrize("is_near", [False, True])
def test_compression_is_for_those_far_away(
    start: Callable[..., Any], config: Config, monkeypatch: pytest.MonkeyPatch, zstd: bool, is_near: bool
) -> None:
    pytest.importorskip("zstandard")
    keeper = start(Doorkeeper, zstd=zstd)
    if not is_near:
        monkeypatch.setattr(dialing, "_is_near", lambda sock: False)
    with reaching(keeper.endpoint, config, transport="tcp") as dialed:
        assert (dialed.link.compressor is not None) == (zstd and not is_near) == keeper.guests[0].zstd
    with reaching(keeper.endpoint, config.changed(compression="off"), transport="tcp") as dialed:
        assert dialed.link.compressor is None


# ---- TLS -----------------------------------------------------------------------------------------------------


def test_tls_with_the_certificate_of_the_registry(
    start: Callable[..., Any], config: Config, certificates: list[Certificate]
) -> None:
    keeper = start(Doorkeeper, certificate=certificates[0])
    with reaching(keeper.endpoint, config, transport="tcp") as dialed:
        assert isinstance(dialed.link.sock, ssl.SSLSocket)
        assert dialed.link.sock.version() == "TLSv1.3"
        assert not dialed.link.sock.getblocking()
    with reaching(keeper.endpoint, config) as dialed:  # on one host nobody is in between
        assert dialed.link.transport == "unix"


def test_a_strangers_certificate(start: Callable[..., Any], config: Config, certificates: list[Certificate]) -> None:
    keeper = start(Doorkeeper, certificate=certificates[0])
    endpoint = replace(keeper.endpoint, tls=certificates[1].fingerprint)
    error = fail(endpoint, config, transport="tcp")
    assert type(error) is AccessRefused
    assert "another certificate than the registry names" in str(error)
    assert str(endpoint.port) in str(error)
    assert keeper.guests == []


def test_tls_where_plain_text_is_spoken_and_the_other_way_round(
    start: Callable[..., Any], config: Config, certificates: list[Certificate]
) -> None:
    keeper, secret = start(Doorkeeper), start(Doorkeeper, certificate=certificates[0])
    error = fail(replace(keeper.endpoint, tls=certificates[0].fingerprint), config, transport="tcp")
    assert type(error) is ServerLost
    assert "'neutrino'" in str(error)
    error = fail(replace(secret.endpoint, tls=""), config, transport="tcp")
    assert type(error) is ServerLost


# ---- to whom -------------------------------------------------------------------------------------------------


def receive(sock: socket.socket) -> tuple[Header, bytes]:
    """The next small frame, and its only array."""
    data = b""
    while len(data) < HEADER_BYTES or len(data) < HEADER_BYTES + -(-read_header(bytearray(data)).payload // 8) * 8:
        piece = sock.recv(1 << 16)
        if not piece:
            raise ConnectionResetError
        data += piece
    header = read_header(bytearray(data))
    return header, data[HEADER_BYTES + 16 : HEADER_BYTES + header.payload]


def spell(packed: Packed) -> bytes:
    data = bytes(packed.head)
    return data + bytes(-len(data) % 8)


def send(sock: socket.socket, kind: int, value: Any) -> None:
    sock.sendall(spell(pack(kind, [to_json(value)])))


def challenge(sock: socket.socket, methods: tuple[str, ...] = ("key",)) -> tuple[bytes, Knock, str]:
    _, hello = receive(sock)
    nonce = "ab" * 32
    send(sock, Kind.CHALLENGE, Challenge(nonce, list(methods)).to_dict())
    return hello, Knock.from_dict(from_json(np.frombuffer(hello, np.uint8))), nonce


def welcome(sock: socket.socket, endpoint: Endpoint, key: Key, **changes: Any) -> bytes:
    """What a server does that has this key; the bytes of its WELCOME."""
    hello, knock, nonce = challenge(sock)
    receive(sock)
    binding = find_binding(endpoint, is_unix=False)
    proof = prove(key, changes.pop("speaker", "server"), hello, knock.nonce, nonce, binding)
    admission = Admission(endpoint.id, "neutrino", 1, proof, 5.0).to_dict() | changes
    return spell(pack(Kind.WELCOME, [to_json(admission)]))


@pytest.mark.parametrize("misdeed", ["wrong key", "no proof", "reflected", "the proof of another server"])
def test_an_impostor_is_found_out(start: Callable[..., Any], config: Config, misdeed: str) -> None:
    def act(sock: socket.socket) -> None:
        endpoint, key, changes = impostor.endpoint, KEY, dict[str, Any]()
        if misdeed == "wrong key":
            key = OTHER_KEY
        elif misdeed == "no proof":
            changes["proof"] = ""
        elif misdeed == "reflected":
            changes["speaker"] = "peer"
        else:
            endpoint = replace(endpoint, port=1)
        sock.sendall(welcome(sock, endpoint, key, **changes))
        sock.recv(1)

    impostor = start(Impostor, act)
    error = fail(impostor.endpoint, config)
    assert type(error) is AccessRefused
    assert "could not prove who it is" in str(error)
    assert KEY.secret.hex() not in str(error)


def test_who_proves_it_is_believed(start: Callable[..., Any], config: Config) -> None:
    """So that the impostors above fail for what they do, and not for what this test does."""

    def act(sock: socket.socket) -> None:
        sock.sendall(welcome(sock, impostor.endpoint, KEY))
        sock.recv(1)

    impostor = start(Impostor, act)
    with reaching(impostor.endpoint, config) as dialed:
        assert dialed.admission.number == 1


def test_another_server_that_has_the_address_now_is_not_the_one(start: Callable[..., Any], config: Config) -> None:
    keeper = start(Doorkeeper, server="e" * 32)
    error = fail(keeper.endpoint, config)
    assert type(error) is ServerLost
    assert "another one" in str(error)


def test_who_is_not_let_in_hears_that_and_not_that_nobody_is_there(start: Callable[..., Any], config: Config) -> None:
    for keeper in (start(Doorkeeper, key=OTHER_KEY), start(Doorkeeper, may_enter=False)):
        error = fail(keeper.endpoint, config)
        assert type(error) is AccessRefused
        assert str(error) == door_module.REFUSAL.message
        assert len(keeper.refused) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n",
        bytes(100),
        spell(pack(Kind.END)),
        spell(pack(Kind.WELCOME, [to_json({})])),
        spell(pack(Kind.CHALLENGE)),
        spell(pack(Kind.CHALLENGE, [to_json({"nonce": 5})])),
        spell(pack(Kind.CHALLENGE, [np.frombuffer(b"{nonce", np.uint8)])),
        spell(pack(Kind.REPLY, [np.frombuffer(b"{", np.uint8)], status=3)),
        bytes(pack(Kind.CHALLENGE, [np.zeros(1 << 20)]).head),
    ],
    ids=["HTTP", "zeros", "END", "WELCOME", "nothing", "wrong type", "no JSON", "no failure", "large"],
)
def test_who_does_not_speak_as_a_server_is_none(start: Callable[..., Any], config: Config, answer: bytes) -> None:
    """The address of a server that has died may be anybody's."""

    def act(sock: socket.socket) -> None:
        sock.recv(1000)
        sock.sendall(answer)
        while sock.recv(1000):
            pass

    error = fail(start(Impostor, act).endpoint, config)
    assert type(error) is ServerLost
    assert "does not speak as one" in str(error)
    assert f"'{ENDPOINT.name}'" in str(error)


def test_another_version_says_so(start: Callable[..., Any], config: Config) -> None:
    newer = pack(Kind.CHALLENGE, [to_json({})])
    newer.head[OFFSETS["major"]] = 2
    told = pack_failure(Kind.REPLY, 0, Failure.of(BadVersion("the peer speaks wire version 1.0, this side 2.0")))
    for answer in (newer, told):

        def act(sock: socket.socket, answer: Packed = answer) -> None:
            sock.recv(1000)
            sock.sendall(spell(answer))

        error = fail(start(Impostor, act).endpoint, config)
        assert type(error) is BadVersion
        assert "2.0" in str(error)


def test_nobody_makes_us_take_memory_before_proving_anything(start: Callable[..., Any], config: Config) -> None:
    head = bytearray(pack(Kind.CHALLENGE, [np.zeros(40_000, np.uint8)]).head)
    head[OFFSETS["payload"] : OFFSETS["payload"] + 8] = (16 + 2**30).to_bytes(8, "little")
    head[HEADER_BYTES + 8 : HEADER_BYTES + 16] = (2**30).to_bytes(8, "little")

    def act(sock: socket.socket) -> None:
        sock.recv(1000)
        sock.sendall(bytes(head))
        while sock.recv(1000):
            pass

    impostor = start(Impostor, act)
    tracemalloc.start()
    try:
        error = fail(impostor.endpoint, config)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert type(error) is ServerLost
    assert peak < 4 << 20


# ---- in time -------------------------------------------------------------------------------------------------


def test_nobody_at_the_address(config: Config) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    endpoint = replace(ENDPOINT, host="127.0.0.1", port=port, tls="", unix="@demos-test-nobody", boot=find_boot())
    error = fail(endpoint, config)
    assert type(error) is ServerLost
    assert f"127.0.0.1, port {port}: Connection refused" in str(error)
    assert "it may have died" in str(error)


def say_nothing(sock: socket.socket) -> None:
    while sock.recv(1000):
        pass


def challenge_only(sock: socket.socket) -> None:
    challenge(sock)
    say_nothing(sock)


def ring_for_ever(sock: socket.socket) -> None:
    """Rings are no answer, however many there are."""
    sock.settimeout(0.01)
    while True:
        sock.sendall(spell(pack(Kind.RING)))
        with contextlib.suppress(TimeoutError):
            if not sock.recv(1000):
                return


@pytest.mark.parametrize("act", [say_nothing, challenge_only, ring_for_ever])
def test_a_server_that_does_not_answer_is_given_up_in_time(
    start: Callable[..., Any], config: Config, act: Callable[[socket.socket], None]
) -> None:
    impostor = start(Impostor, act)
    begun = time.monotonic()
    error = fail(impostor.endpoint, config, SHORT)
    assert type(error) is DeadlineExceeded
    assert f"'{ENDPOINT.name}'" in str(error) or f"server {ENDPOINT.name} " in str(error)
    assert SHORT <= time.monotonic() - begun < DEADLINE / 2


def test_a_handshake_that_never_ends_is_given_up_in_time(
    start: Callable[..., Any], config: Config, certificates: list[Certificate]
) -> None:
    impostor = start(Impostor, say_nothing, tls=certificates[0].fingerprint)
    begun = time.monotonic()
    assert type(fail(impostor.endpoint, config, SHORT)) is DeadlineExceeded
    assert SHORT <= time.monotonic() - begun < DEADLINE / 2


def test_nobody_takes_the_connection(config: Config) -> None:
    """A process that is stopped, or a host that drops what comes: its queue is full, or there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(4):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect(address)
        endpoint = replace(ENDPOINT, host="127.0.0.1", port=address[1], tls="", boot="elsewhere")
        begun = time.monotonic()
        error = fail(endpoint, config, SHORT)
        assert type(error) is DeadlineExceeded
        assert "in time" in str(error)
        assert time.monotonic() - begun < DEADLINE / 2


@pytest.mark.parametrize("stage", ["at once", "after the knock", "after the proof"])
def test_a_server_that_goes_away_meanwhile_is_lost(start: Callable[..., Any], config: Config, stage: str) -> None:
    def act(sock: socket.socket) -> None:
        if stage == "after the knock":
            receive(sock)
        elif stage == "after the proof":
            challenge(sock)
            receive(sock)

    error = fail(start(Impostor, act).endpoint, config)
    assert type(error) is ServerLost


def test_a_server_that_ends_with_its_welcome_is_lost(start: Callable[..., Any], config: Config) -> None:
    """Its last words come in the same piece: whoever dials must not wait for them later."""

    def act(sock: socket.socket) -> None:
        sock.sendall(welcome(sock, impostor.endpoint, KEY) + spell(pack(Kind.END)))

    impostor = start(Impostor, act)
    error = fail(impostor.endpoint, config)
    assert type(error) is ServerLost
    assert "has ended" in str(error)


# ---- with what proof -----------------------------------------------------------------------------------------


def test_without_a_key_the_remedy_is_named(start: Callable[..., Any], config: Config, tmp_path: Path) -> None:
    keeper = start(Doorkeeper)
    missing = config.changed(key_file=str(tmp_path / "none"))
    error = fail(keeper.endpoint, missing)
    assert type(error) is InvalidInput
    assert str(tmp_path / "none") in str(error)
    path = tmp_path / "others"
    path.write_text(f"somebody-else {KEY.secret.hex()}\n", encoding="ascii")
    path.chmod(0o600)
    error = fail(keeper.endpoint, config.changed(key_file=str(path)))
    assert type(error) is AccessRefused
    assert f"no key for {USER!r}" in str(error)
    assert "DEMOS_KEY_FILE" in str(error)


class FakeMunge:
    """A daemon for both sides, in hexadecimal digits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.user = USER
        self.is_here = True
        monkeypatch.setattr(dialing, "encode", self.encode)
        for module in (dialing, door_module):
            monkeypatch.setattr(module, "decode", self.decode)
        monkeypatch.setattr(door_module, "encode", lambda payload: "MUNGE:" + payload.hex())

    def encode(self, payload: bytes) -> str:
        if not self.is_here:
            raise MungeFailed("there is no munge on the PATH")
        return "MUNGE:" + payload.hex()

    def decode(self, credential: str) -> Credential:
        if not credential.startswith("MUNGE:"):
            raise MungeFailed("no credential")
        return Credential(self.user, 1000, 1000, bytes.fromhex(credential[6:]))


@pytest.fixture
def munge(monkeypatch: pytest.MonkeyPatch) -> FakeMunge:
    return FakeMunge(monkeypatch)


@pytest.mark.parametrize("authentication", ["auto", "munge"])
def test_by_munge(start: Callable[..., Any], config: Config, munge: FakeMunge, authentication: str) -> None:
    keeper = start(Doorkeeper, by_munge=True, key=OTHER_KEY)  # of no use: it is not asked for
    config = config.changed(authentication=authentication)
    with reaching(keeper.endpoint, config):
        assert [guest.user for guest in keeper.guests] == [USER]
    # The server has to be its user's, too.
    error = fail(replace(keeper.endpoint, user="mallory"), config)
    assert type(error) is AccessRefused
    assert "could not prove who it is" in str(error)


def test_where_munge_is_only_at_the_server_there_is_the_key(
    start: Callable[..., Any], config: Config, munge: FakeMunge
) -> None:
    """As in a container, which often has the home directory and seldom MUNGE."""
    munge.is_here = False
    keeper = start(Doorkeeper, by_munge=True)
    with reaching(keeper.endpoint, config.changed(authentication="auto")):
        assert len(keeper.guests) == 1
    error = fail(keeper.endpoint, config.changed(authentication="munge"))
    assert type(error) is MungeFailed
    assert "no munge" in str(error)


def test_ways_to_prove_it_that_do_not_meet(start: Callable[..., Any], config: Config, munge: FakeMunge) -> None:
    error = fail(start(Doorkeeper).endpoint, config.changed(authentication="munge"))
    assert type(error) is AccessRefused
    assert "takes key as a proof, and DEMOS_AUTHENTICATION is 'munge'" in str(error)

    def act(sock: socket.socket) -> None:
        challenge(sock, ("munge", "retina"))
        say_nothing(sock)

    error = fail(start(Impostor, act).endpoint, config)
    assert type(error) is AccessRefused
    assert "takes munge or retina as a proof" in str(error)


def test_the_user_is_who_it_is_and_not_who_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "mallory")
    assert find_user() == USER != "mallory"
    monkeypatch.setattr(os, "geteuid", lambda: 987654)
    assert find_user() == "987654"


# ---- one of several ------------------------------------------------------------------------------------------


@pytest.fixture
def registry(config: Config) -> Registry:
    return Registry(config.registry_directory, clock=lambda: NOW, rng=random.Random(1))


def choose(registry: Registry, config: Config, name: str | None = "neutrino", **options: Any) -> str:
    """The name of the server that one is connected to."""
    options = {"role": "operator", "seconds": DEADLINE, **options}
    dialed = dial_any(name, registry, config, options.pop("role"), **options)
    dialed.port.close()
    return dialed.endpoint.name


def publish(registry: Registry, *keepers: Any) -> None:
    """The first is the best: those behind it have more work."""
    for nth, keeper in enumerate(keepers):
        endpoint = keeper if isinstance(keeper, Endpoint) else keeper.endpoint
        load = 2.0**nth
        registry.publish(replace(endpoint, load=load, models=[{"name": "neutrino", "uuid": "u", "version": "1"}]))


def make_dead(name: str) -> Endpoint:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    place: dict[str, Any] = {"host": "127.0.0.1", "port": port, "tls": "", "boot": "elsewhere", "heartbeat": NOW}
    return replace(ENDPOINT, id=os.urandom(16).hex(), name=name, **place)


def test_the_best_is_taken(start: Callable[..., Any], config: Config, registry: Registry) -> None:
    keepers = [start(Doorkeeper, name) for name in ("one", "two")]
    publish(registry, *keepers)
    assert choose(registry, config) == "one"
    assert choose(registry, config, None) == "one"
    assert choose(registry, config, "two") == "two"


def speak_http(sock: socket.socket) -> None:
    sock.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".ljust(100))
    say_nothing(sock)


def test_who_does_not_answer_or_will_not_have_us_is_passed_over(
    start: Callable[..., Any], config: Config, registry: Registry
) -> None:
    others = [
        make_dead("dead"),
        start(Impostor, speak_http, name="HTTP"),
        start(Impostor, lambda sock: None, name="closes"),
        start(Doorkeeper, "moved", server="e" * 32),
        start(Doorkeeper, "forbids", may_enter=False),
        start(Doorkeeper, "another-key", key=OTHER_KEY),
    ]
    keeper = start(Doorkeeper, "good")
    publish(registry, *others, keeper)
    assert choose(registry, config) == "good"
    assert len(keeper.guests) == 1


def test_one_that_is_silent_does_not_take_the_time_of_the_others(
    start: Callable[..., Any], config: Config, registry: Registry
) -> None:
    silent = start(Impostor, say_nothing, name="silent")
    publish(registry, silent, start(Doorkeeper, "good"))
    begun = time.monotonic()
    assert choose(registry, config, seconds=2 * SHORT + 1.0) == "good"
    assert time.monotonic() - begun >= SHORT


def test_if_there_is_much_time_no_one_gets_all_of_it(
    start: Callable[..., Any], config: Config, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialing, "PATIENCE", SHORT)
    publish(registry, start(Impostor, say_nothing, name="silent"), start(Doorkeeper, "good"))
    begun = time.monotonic()
    assert choose(registry, config, seconds=3600.0) == "good"
    assert SHORT <= time.monotonic() - begun < DEADLINE / 2


def test_if_there_is_none_the_error_says_what_there_is(
    start: Callable[..., Any], config: Config, registry: Registry
) -> None:
    with pytest.raises(ServerLost, match=r"there is no server or model 'neutrino' in .*; there are: none\. Start one"):
        choose(registry, config)
    publish(registry, start(Doorkeeper, "one"))
    with pytest.raises(ServerLost, match=r"no server or model 'other' .*DEMOS_REGISTRY.*there are: 'one'"):
        choose(registry, config, "other")


def test_if_none_lets_us_in_the_error_says_what_can_be_helped(
    start: Callable[..., Any], config: Config, registry: Registry
) -> None:
    publish(registry, make_dead("dead"))
    with pytest.raises(ServerLost, match="'dead' does not answer"):
        choose(registry, config)
    publish(registry, make_dead("dead"), start(Doorkeeper, "forbids", may_enter=False), make_dead("dead-2"))
    with pytest.raises(AccessRefused, match="audit log"):
        choose(registry, config)


def test_workers_do_not_join_a_server_that_is_ending(
    start: Callable[..., Any], config: Config, registry: Registry
) -> None:
    publish(registry, start(Doorkeeper, "ending", state="draining"))
    assert choose(registry, config) == "ending"
    with pytest.raises(ServerLost, match="there is no server or model 'neutrino'"):
        choose(registry, config, role="worker")


def test_nobody_begins_anything_at_a_server_whose_job_ends(
    start: Callable[..., Any], config: Config, registry: Registry
) -> None:
    now = time.time()
    publish(registry, start(Doorkeeper, "neutrino", ends=now + 30))
    for role in ("client", "worker"):
        with pytest.raises(ServerLost, match="the time of the job of server 'neutrino' is nearly over"):
            choose(registry, config, role=role)
    publish(registry, start(Doorkeeper, "neutrino", ends=now + 300))
    assert choose(registry, config) == "neutrino"
