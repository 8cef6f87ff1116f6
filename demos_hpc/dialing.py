"""The peer's side of the door: finds an address, connects, and proves who it is."""

from __future__ import annotations

import os
import socket
import ssl
import time
from dataclasses import dataclass, replace

from .certificates import check_fingerprint, client_context
from .config import Config
from .endpoint import Endpoint, find_binding, find_boot
from .errors import AccessRefused, BadFrame, DeadlineExceeded, DemosError, InvalidInput, ServerLost
from .greetings import Admission, Challenge, Knock, Proof
from .identity import check, choose_key, digest_session, find_user, make_nonce, prove, read_keys
from .messages import Array, Failure, Kind, from_json, to_json
from .munge import MungeFailed, decode, encode
from .registry import Registry
from .transport import Link, Port
from .transport.compression import Compressor, is_available
from .transport.joined import join_memory
from .transport.tcp import StreamLink, StreamPort
from .transport.tuning import tune
from .upgrade import Ascent
from .wire import Frame, Header, Layout, pack

#: Ways through the door, the best first.
TRANSPORTS = ("unix", "tcp")
#: Seconds that a server has to let us in.
ENTRY = 30.0
#: Seconds that one server has to let us in where there are others to try.
PATIENCE = 10.0
#: Seconds that anybody may wait: the kernel counts milliseconds, and not to infinity.
LONGEST = 86400.0


@dataclass(frozen=True)
class Dialed:
    """A connection to a server that has let us in."""

    port: Port
    link: StreamLink
    admission: Admission
    endpoint: Endpoint
    #: The way on through shared memory, if there is one.
    ascent: Ascent | None = None


def dial(
    endpoint: Endpoint,
    config: Config,
    role: str,
    *,
    seconds: float,
    transport: str = "auto",
    label: str = "",
) -> Dialed:
    """Connects to the server at ``endpoint`` within ``seconds``.

    ``transport`` is "unix", "tcp", or "auto" for the better one that works from here.

    Raises
    ------
    ServerLost
        Where nobody answers there.
    AccessRefused
        Where the server does not let us in, or is not the one that it says it is.
    DeadlineExceeded
        Where it takes too long.
    """
    deadline = time.monotonic() + min(seconds, LONGEST)
    zstd = config.compression == "auto" and is_available()
    knock = Knock(role, find_user(), socket.gethostname(), os.getpid(), make_nonce(), zstd, label)
    port = StreamPort(config.yield_seconds)
    room, port.place = port.place, _refuse_large
    try:
        dialed = _enter(port, endpoint, config, knock, transport, deadline)
    except BadFrame as error:
        port.close()
        raise ServerLost(
            f"whoever answers for server {endpoint.name!r} does not speak as one ({error}); it may have died"
        ) from None
    except DemosError:  # some of which are an OSError
        port.close()
        raise
    except TimeoutError:
        port.close()
        raise DeadlineExceeded(f"server {endpoint.name!r} did not take our connection in time") from None
    except OSError as error:
        port.close()
        raise ServerLost(f"the connection to server {endpoint.name!r} broke: {error.strerror or error}") from None
    except BaseException:
        port.close()
        raise
    port.place = room
    if transport == "auto" and role != "operator" and endpoint.shares_host(find_boot()):
        joined, shared = join_memory(port, config)
        if shared is not None:
            return replace(dialed, port=joined, ascent=Ascent(shared, dialed.link, config.upgrade_after))
    return dialed


def dial_any(
    name: str | None,
    registry: Registry,
    config: Config,
    role: str,
    *,
    seconds: float,
    family: str = "",
    **options: str,
) -> Dialed:
    """Connects to the best of the servers called ``name``, or that have a model of this name; None for any.

    Those that do not answer, or do not let us in, are passed over. A worker's ``name`` is that of its server,
    and its ``family`` tells it from others of that name.

    Raises
    ------
    ServerLost
        Where there is none, or none answers.
    DemosError
        As `dial`.
    """
    deadline = time.monotonic() + min(seconds, LONGEST)
    endpoints = registry.find(name)
    if role == "worker":  # which works for the server that it was told, and not for others of the same model
        endpoints = [endpoint for endpoint in endpoints if endpoint.name == name and endpoint.state != "draining"]
        endpoints = [endpoint for endpoint in endpoints if family in ("", endpoint.family)]
    now = time.time()
    if ending := [endpoint.name for endpoint in endpoints if endpoint.is_ending(now) and role != "operator"]:
        endpoints = [endpoint for endpoint in endpoints if not endpoint.is_ending(now)]
        if not endpoints:
            raise ServerLost(
                f"the time of the job of server {ending[0]!r} is nearly over, and nobody is let in any more: start"
                " another by `demos-hpc submit serve`; one that was submitted with --requeue comes again by itself"
            )
    problem: DemosError | None = None
    for n_others, endpoint in zip(reversed(range(len(endpoints))), endpoints, strict=True):
        left = deadline - time.monotonic()
        try:
            return dial(endpoint, config, role, seconds=min(left / 2, PATIENCE) if n_others else left, **options)
        except AccessRefused as error:
            problem = error
        except (ServerLost, DeadlineExceeded) as error:
            problem = problem or error
    if problem is not None:
        raise problem
    wanted = "server" if name is None else f"server or model {name!r}"
    names = ", ".join(repr(endpoint.name) for endpoint in registry.find(None)) or "none"
    raise ServerLost(
        f"there is no {wanted} in {registry.directory} (DEMOS_REGISTRY); there are: {names}. Start one by"
        " `demos-hpc serve MODEL --workers 2`"
    )


def _refuse_large(link: Link, header: Header, layout: Layout) -> list[Array]:
    raise BadFrame(f"a frame of {header.payload} bytes from somebody who has not proved who they are")


def _enter(
    port: StreamPort, endpoint: Endpoint, config: Config, knock: Knock, transport: str, deadline: float
) -> Dialed:
    sock = _connect(endpoint, transport, deadline)
    is_unix = sock.family == socket.AF_UNIX
    try:
        tune(sock, config.heartbeat)
        if endpoint.tls and not is_unix:
            sock = _wrap(sock, endpoint, deadline)
        if _is_near(sock):
            knock = replace(knock, zstd=False)
        link = port.add(sock, f"server {endpoint.name}")
    except BaseException:
        sock.close()
        raise
    admission = _introduce(port, link, endpoint, config, knock, find_binding(endpoint, is_unix=is_unix), deadline)
    link.name = f"server {endpoint.name} on {endpoint.hostname}"
    if admission.zstd and knock.zstd:
        link.compressor = Compressor()
    return Dialed(port, link, admission, endpoint)


def _connect(endpoint: Endpoint, transport: str, deadline: float) -> socket.socket:
    ways = [way for way in TRANSPORTS if transport in ("auto", way)]
    if not ways:
        raise InvalidInput(f"transport is {transport!r}; through the door it is auto, {', '.join(TRANSPORTS)}")
    if not endpoint.shares_host(find_boot()):
        ways = [way for way in ways if way != "unix"]
    if not ways:
        raise ServerLost(f"server {endpoint.name!r} runs on {endpoint.hostname}, where its Unix socket is")
    problem = ""
    for way in ways:
        try:
            return _connect_by(way, endpoint, deadline)
        except TimeoutError:
            raise DeadlineExceeded(f"server {endpoint.name!r} did not take our connection in time") from None
        except OSError as error:
            where = endpoint.unix if way == "unix" else f"{endpoint.host}, port {endpoint.port}"
            problem = f"{where}: {error.strerror or error}"
    raise ServerLost(f"server {endpoint.name!r} does not answer at {problem}; it may have died")


def _connect_by(way: str, endpoint: Endpoint, deadline: float) -> socket.socket:
    seconds = max(0.01, deadline - time.monotonic())
    if way == "tcp":
        return socket.create_connection((endpoint.host, endpoint.port), seconds)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(seconds)
    try:
        sock.connect("\0" + endpoint.unix.removeprefix("@"))
    except BaseException:
        sock.close()
        raise
    return sock


def _wrap(sock: socket.socket, endpoint: Endpoint, deadline: float) -> ssl.SSLSocket:
    """TLS with the server whose certificate the registry names, and with nobody else."""
    sock.settimeout(max(0.01, deadline - time.monotonic()))
    wrapped = client_context().wrap_socket(sock)
    if not check_fingerprint(wrapped.getpeercert(binary_form=True), endpoint.tls):
        wrapped.close()
        raise AccessRefused(
            f"whoever answers for server {endpoint.name!r} at {endpoint.host}, port {endpoint.port}, has another"
            " certificate than the registry names: it may be an impostor"
        )
    return wrapped


def _introduce(
    port: StreamPort,
    link: StreamLink,
    endpoint: Endpoint,
    config: Config,
    knock: Knock,
    binding: str,
    deadline: float,
) -> Admission:
    hello = to_json(knock.to_dict())
    link.send(pack(Kind.HELLO, [hello]))
    challenge = Challenge.from_dict(from_json(_await(port, link, Kind.CHALLENGE, deadline).arrays[0]))
    session = hello.tobytes(), knock.nonce, challenge.nonce, binding
    key = None
    proof = _prove_by_munge(digest_session("peer", *session), challenge.methods, config)
    if proof is None:
        if "key" not in challenge.methods or config.authentication == "munge":
            ways = " or ".join(map(str, challenge.methods)) or "nothing"
            raise AccessRefused(
                f"server {endpoint.name!r} takes {ways} as a proof, and DEMOS_AUTHENTICATION is"
                f" {config.authentication!r} here"
            )
        key = choose_key(read_keys(config.key_path), knock.user)
        if key is None:
            raise AccessRefused(f"the key file {config.key_path} (DEMOS_KEY_FILE) has no key for {knock.user!r}")
        proof = Proof("key", prove(key, "peer", *session), key.id)
    link.send(pack(Kind.PROOF, [to_json(proof.to_dict())]))
    admission = Admission.from_dict(from_json(_await(port, link, Kind.WELCOME, deadline).arrays[0]))
    is_genuine = (
        _is_users(admission.proof, digest_session("server", *session), endpoint.user)
        if key is None
        else check(key, admission.proof, "server", *session)
    )
    if not is_genuine:
        raise AccessRefused(f"server {endpoint.name!r} could not prove who it is: it may be an impostor")
    if admission.server != endpoint.id:
        raise ServerLost(f"server {endpoint.name!r} is gone; another one, {admission.name!r}, has its address now")
    return admission


def _prove_by_munge(digest: bytes, methods: list[str], config: Config) -> Proof | None:
    """A proof by MUNGE; None where a key is to be used."""
    if "munge" not in methods or config.authentication == "key":
        return None
    try:
        return Proof("munge", encode(digest))
    except MungeFailed:
        if "key" not in methods or config.authentication == "munge":
            raise
        return None


def _is_users(credential: str, payload: bytes, user: str) -> bool:
    """Whether a credential of MUNGE was made for this connection by the server's user."""
    try:
        found = decode(credential)
    except MungeFailed:
        return False
    return found.payload == payload and found.user == user


def _await(port: StreamPort, link: StreamLink, kind: Kind, deadline: float) -> Frame:
    """The next frame, which has to be of this kind, and the last that was sent unasked."""
    while not (arrivals := port.receive()):
        left = deadline - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded(
                f"{link.name} took our connection and says nothing: it hangs, or is overloaded; see `demos-hpc ls`"
            )
        port.wait(left)
    frame = arrivals[0][1]
    if isinstance(frame, DemosError):
        raise frame
    if frame.header.kind == Kind.REPLY and frame.header.status and frame.header.n_arrays == 1:
        raise Failure.from_dict(from_json(frame.arrays[0])).to_exception()
    if frame.header.kind != kind or frame.header.n_arrays != 1:
        raise BadFrame(f"a frame of kind {frame.header.kind} where {kind.name} is due")
    if len(arrivals) > 1:  # it ends, or is none
        raise ServerLost(f"{link.name} has ended")
    return frame


def _is_near(sock: socket.socket) -> bool:
    """Whether the peer is on this host, where compression costs more than it spares."""
    return sock.family == socket.AF_UNIX or sock.getpeername()[0] == sock.getsockname()[0]
