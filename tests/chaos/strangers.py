"""People who are not let in, or may not do what they ask for: refused alike, and written down."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from fragile import Steady
from serving import ServerApart, serving, wait_until

from demos_hpc.certificates import client_context, make_certificate, server_context
from demos_hpc.dialing import dial, find_user
from demos_hpc.endpoint import find_binding
from demos_hpc.errors import AccessRefused, Busy, DemosError, TooLarge
from demos_hpc.greetings import Challenge, Knock, Proof
from demos_hpc.identity import Key, make_nonce, prove, read_keys
from demos_hpc.messages import Failure, Kind, Operation, from_json, to_json
from demos_hpc.transport.tcp import StreamPort
from demos_hpc.wire import HEADER_BYTES, Frame, Packed, pack, read_header

MODEL = f"{Path(__file__).with_name('fragile.py')}:Fragile"
#: Bob may ask for one thing, and not for much of it.
RULES = """
[[rule]]
model = "chaos"
users = ["bob"]
allow = ["log_density"]

[limits.bob]
requests_per_second = 50
bytes_in_flight = 1_000_000
"""
#: Seconds for something that should happen at once.
SOON = 15.0


class Stranger:
    """A bare connection to a door by somebody who says that they are ``user`` and has ``key``."""

    def __init__(self, server: ServerApart, user: str, key: Key, role: str = "client") -> None:
        endpoint = server.find()
        assert endpoint is not None
        sock = server.knock()
        if endpoint.tls and sock.family != socket.AF_UNIX:
            sock = client_context().wrap_socket(sock)
        self._binding = find_binding(endpoint, is_unix=sock.family == socket.AF_UNIX)
        self._key = key
        knock = Knock(role, user, "there", 1, make_nonce())
        self._nonce = knock.nonce
        #: What it says first; may be replaced by what somebody else has said.
        self.hello = to_json(knock.to_dict())
        self._port = StreamPort()
        self._link = self._port.add(sock, "the door")
        self.proof = Packed(bytearray(), ())

    def ask(self, message: Packed) -> Frame:
        """Says something; the answer."""
        self._link.send(message)
        deadline = time.monotonic() + SOON
        while not (arrivals := self._port.receive()):
            left = deadline - time.monotonic()
            assert left > 0, "the door says nothing"
            self._port.wait(left)
        frame = arrivals[0][1]
        if isinstance(frame, DemosError):
            raise frame
        return frame

    def enter(self, replayed: Packed | None = None) -> Frame:
        """Goes through the door, or what is there instead; with the proof of another visit, if one is given."""
        challenge = Challenge.from_dict(from_json(self.ask(pack(Kind.HELLO, [self.hello])).arrays[0]))
        proof = prove(self._key, "peer", self.hello.tobytes(), self._nonce, challenge.nonce, self._binding)
        self.proof = pack(Kind.PROOF, [to_json(Proof("key", proof, self._key.id).to_dict())])
        return self.ask(replayed or self.proof)

    def close(self) -> None:
        self._port.close()


def turn_away(place: Path, transport: str = "auto", *, rounds: int = 20, seed: int = 11) -> dict[str, float]:
    """Wrong keys, replayed hellos, others' roles and operations, too much at once: refused alike, and written down."""
    rng = np.random.default_rng(seed)
    bob = Key("bob", secrets.token_bytes(32))
    access, audit = place / "access.toml", place / "audit.jsonl"
    access.write_text(RULES, encoding="utf-8")
    faults: list[str] = []
    refusals: list[bytes] = []
    with serving(
        MODEL, place, transport=transport, workers=1, keys=[bob], access_file=access, audit_file=audit, tls="on"
    ) as server:
        for _ in range(rounds):
            for knock in VISITS:
                answer = knock(server, bob)
                refusals.append(bytes(answer.buffer[answer.start :][: HEADER_BYTES + answer.header.payload]))
                if answer.header.kind != Kind.REPLY or not answer.header.status:
                    faults.append(f"{knock.__name__}: let in")
            faults += _meet_impostor(server)
            refusals.append(_be_overheard(server))
        n_operations, n_limits, overstepping = _overstep(server, bob, rng)
        faults += overstepping
        entrances, operations, limits = wait_until(
            lambda: _read_audit(audit, len(refusals), n_operations, n_limits), SOON, "all of it is in the audit log"
        )
        text = audit.read_text(encoding="ascii")
    if any(key.secret.hex() in text for key in read_keys(server.config.key_path).values()):
        faults.append("a secret is in the audit log")
    for fault in sorted(set(faults)):
        print(f"{faults.count(fault)} x {fault}", file=sys.stderr)
    return {
        "refused_entrances": len(refusals),
        "refusals_that_differ": len(set(refusals)) - 1,
        "refused_operations": n_operations,
        "over_limits": n_limits,
        "unaudited": len(refusals) + n_operations + n_limits - entrances - operations - limits,
        "faults": len(faults),
    }


# ---- at the door ----------------------------------------------------------------------------------------------


def come_with_wrong_key(server: ServerApart, bob: Key) -> Frame:
    return _enter(Stranger(server, "bob", Key("bob", secrets.token_bytes(32))))


def come_as_nobody(server: ServerApart, bob: Key) -> Frame:
    return _enter(Stranger(server, "mallory", Key("mallory", bob.secret)))


def come_as_another(server: ServerApart, bob: Key) -> Frame:
    return _enter(Stranger(server, find_user(), bob))


def come_to_work(server: ServerApart, bob: Key) -> Frame:
    return _enter(Stranger(server, "bob", bob, "worker"))


def come_to_rule(server: ServerApart, bob: Key) -> Frame:
    return _enter(Stranger(server, "bob", bob, "operator"))


def replay(server: ServerApart, bob: Key) -> Frame:
    """What bob has said when he was let in, once more."""
    genuine = Stranger(server, "bob", bob)
    assert _enter(genuine).header.kind == Kind.WELCOME, "bob himself is not let in"
    stranger = Stranger(server, "bob", Key("bob", secrets.token_bytes(32)))
    stranger.hello = genuine.hello
    return _enter(stranger, genuine.proof)


VISITS: tuple[Callable[[ServerApart, Key], Frame], ...] = (
    come_with_wrong_key,
    come_as_nobody,
    come_as_another,
    come_to_work,
    come_to_rule,
    replay,
)


def _enter(stranger: Stranger, proof: Packed | None = None) -> Frame:
    try:
        return stranger.enter(proof)
    finally:
        stranger.close()


# ---- between the client and the server ------------------------------------------------------------------------


class Impostor(threading.Thread):
    """Takes one TLS connection with a certificate of its own, and passes on what is said, if it is told to whom."""

    def __init__(self, place: Path, to: Callable[[], socket.socket] | None = None) -> None:
        super().__init__(daemon=True)
        certificate = make_certificate(place)
        self.fingerprint = certificate.fingerprint
        self._context = server_context(str(certificate.path))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(SOON)
        self.port = self._listener.getsockname()[1]
        self._to = to
        #: What the client has said, and what the server has.
        self.heard: list[bytes] = [b"", b""]
        self.start()

    def run(self) -> None:
        with (
            contextlib.suppress(OSError),  # a client that finds out hangs up
            self._listener,
            self._context.wrap_socket(self._listener.accept()[0], server_side=True) as client,
        ):
            if self._to is None:
                self.heard[0] += client.recv(1 << 16)
                return
            with client_context().wrap_socket(self._to()) as server:
                other = threading.Thread(target=self._pass_on, args=(server, client, 1), daemon=True)
                other.start()
                self._pass_on(client, server, 0)
                other.join(SOON)

    def _pass_on(self, source: socket.socket, target: socket.socket, nth: int) -> None:
        with contextlib.suppress(OSError):
            while read := source.recv(1 << 16):
                self.heard[nth] += read
                target.sendall(read)


def _meet_impostor(server: ServerApart) -> list[str]:
    """A stranger with a certificate of its own has taken the server's address: what is wrong with that."""
    impostor = Impostor(server.directory / "impostor")
    endpoint = server.find()
    assert endpoint is not None
    try:
        dial(replace(endpoint, port=impostor.port), server.config, "client", seconds=SOON, transport="tcp").port.close()
    except AccessRefused:
        impostor.join(SOON)
        return ["the client has spoken to an impostor"] if impostor.heard[0] else []
    return ["the client has let itself in with an impostor"]


def _be_overheard(server: ServerApart) -> bytes:
    """Somebody has put a certificate into the registry, and passes on all that is said: how the server refuses."""
    impostor = Impostor(server.directory / "impostor", lambda: server.knock("tcp"))
    endpoint = server.find()
    assert endpoint is not None
    forged = replace(endpoint, port=impostor.port, tls=impostor.fingerprint)
    with contextlib.suppress(DemosError):
        dial(forged, server.config, "client", seconds=SOON, transport="tcp").port.close()
        return b"let in"
    impostor.join(SOON)
    said = impostor.heard[1]
    at = next(at for at in range(HEADER_BYTES, len(said), 8) if said[at : at + 4] == said[:4])
    return said[at : at + HEADER_BYTES + read_header(bytearray(said), at).payload]


# ---- inside ---------------------------------------------------------------------------------------------------


def _overstep(server: ServerApart, bob: Key, rng: np.random.Generator) -> tuple[int, int, list[str]]:
    """Bob asks for what he may not: operations refused, requests over a limit, and what was wrong with that."""
    faults = []
    x, params = rng.normal(size=(1, 2)), np.array([0.5, 0.5, 0.0])  # one row comes in one answer
    guest = Stranger(server, "bob", bob)
    assert guest.enter().header.kind == Kind.WELCOME
    forbidden = {
        Operation.SAMPLE: [params],
        Operation.LOG_LIKELIHOOD: [x, params[None]],
        Operation.EVALUATE: [params[None]],
        Operation.SET_PARAMS: [to_json({"mu": 1.0})],
        Operation.STATISTICS: [],
        Operation.DRAIN: [],
        Operation.STOP: [],
    }
    texts = set()
    for operation, arrays in forbidden.items():
        error = _read_error(guest.ask(_request(operation, arrays)))
        texts.add(str(error))
        if not isinstance(error, AccessRefused):
            faults.append(f"{operation.title}: {error!r}")
    if len(texts) > 1:
        faults.append(f"refusals in different words: {texts}")
    large = np.zeros((100_000, 2))
    if not isinstance(error := _read_error(guest.ask(_request(Operation.LOG_DENSITY, [large, params]))), TooLarge):
        faults.append(f"a request over the limit: {error!r}")
    n_limits = 1
    for _ in range(200):
        answer = guest.ask(_request(Operation.LOG_DENSITY, [x, params]))
        if not answer.header.status:
            if answer.arrays[0].tobytes() != Steady().log_density(x, params).tobytes():
                faults.append("a wrong answer")
            continue
        error = _read_error(answer)
        n_limits += 1
        if not isinstance(error, Busy) or not error.retry_after > 0:
            faults.append(f"too many requests: {error!r}")
    guest.close()
    if n_limits < 50:
        faults.append(f"only {n_limits} of 200 requests were too many")
    return len(forbidden), n_limits, faults


def _request(operation: Operation, arrays: list[np.ndarray]) -> Packed:
    n_rows = len(arrays[0]) if operation in (Operation.LOG_DENSITY, Operation.LOG_LIKELIHOOD) else 1
    return pack(Kind.REQUEST, arrays, operation=operation, model=1, id=1, n_rows=n_rows)


def _read_error(frame: Frame) -> DemosError | None:
    return Failure.from_dict(from_json(frame.arrays[0])).to_exception() if frame.header.status else None


def _read_audit(audit: Path, *wanted: int) -> tuple[int, ...] | None:
    """How many entrances and operations were refused, and requests over a limit; None while some are missing."""
    lines = [json.loads(line) for line in audit.read_text(encoding="ascii").splitlines()]
    refused = [line for line in lines if line["outcome"] == "refused"]
    entrances = sum(line["what"] == "enter" and bool(line["why"]) for line in refused)
    limits = sum(line["outcome"] in ("busy", "too_large") for line in lines)
    found = entrances, len(refused) - entrances, limits
    return found if all(have >= want for have, want in zip(found, wanted, strict=True)) else None
