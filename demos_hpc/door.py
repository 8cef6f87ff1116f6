"""The door: everybody who was not born in the server's launch comes in here, and proves who they are.

A visit is four frames: Knock (HELLO), CHALLENGE, PROOF, and Admission (WELCOME) or a refusal. All refusals are the
same bytes. Until then a peer may send small frames only, and has to be quick. The door has no socket of its own: links
and what arrives on them are given to it, as to the dispatcher.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from .errors import AccessRefused, BadFrame, BadVersion, DemosError, ServerLost, Status
from .greetings import LONGEST_GREETING, Admission, Challenge, Knock, Proof
from .identity import Key, check, digest_session, find_key, make_nonce, prove
from .messages import Failure, Kind, from_json, to_json
from .munge import decode, encode
from .refusals import pack_failure
from .transport.tcp import StreamLink
from .wire import Frame, pack

#: Seconds that a peer has to prove who it is.
VISIT_SECONDS = 10.0
#: What everybody hears who is not let in.
REFUSAL = Failure(int(Status.REFUSED), "this server does not let you in; its audit log says why")


@dataclass(frozen=True)
class Guest:
    """Somebody who was let in."""

    link: StreamLink
    knock: Knock
    #: Who it is: as proved, or as claimed with a group's key.
    user: str
    #: What it is called, here and in its own log.
    number: int
    #: Whether both sides can compress.
    zstd: bool


class _Visit:
    __slots__ = ("address", "deadline", "hello", "knock", "nonce")

    def __init__(self, deadline: float, address: str) -> None:
        self.deadline = deadline
        self.address = address
        self.knock: Knock | None = None
        self.hello = b""
        self.nonce = ""


@dataclass(frozen=True)
class House:
    """What a door knows of the server behind it."""

    server: str
    name: str
    heartbeat: float
    model_path: str = ""
    zstd: bool = False


class Door:
    """Lets peers in; ``keys`` by their id, MUNGE where ``by_munge``.

    ``find_binding(link)`` is what the peer must have dialed (`endpoint.find_binding`): a proof for one server is none
    for another. ``may_enter(user, role)`` says whether somebody whose identity is proved may come in as what it says.
    ``refused(link, user, why)`` is told of everybody who was not let in.
    """

    def __init__(
        self,
        house: House,
        keys: Mapping[str, Key],
        *,
        by_munge: bool,
        may_enter: Callable[[str, str], bool],
        find_binding: Callable[[StreamLink], str],
        refused: Callable[[StreamLink, str, str], None],
        most_visits: int,
        numbers: Iterator[int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._house = house
        self._keys = keys
        self._by_munge = by_munge
        self._may_enter = may_enter
        self._find_binding = find_binding
        self._refused = refused
        self._most_visits = most_visits
        self._clock = clock
        self._visits: dict[StreamLink, _Visit] = {}
        self._numbers = numbers

    def __repr__(self) -> str:
        return f"<Door of {self._house.name}: {len(self._visits)} visits>"

    def greet(self, link: StreamLink, address: str) -> None:
        """Somebody has connected, from ``address``."""
        if len(self._visits) >= self._most_visits:
            # Whoever floods the door makes room for others: the first of those from where most are.
            [(crowd, _)] = Counter(visit.address for visit in self._visits.values()).most_common(1)
            first = next(other for other, visit in self._visits.items() if visit.address == crowd)
            self._refuse(first, "", "too many from there are waiting at the door")
        self._visits[link] = _Visit(self._clock() + VISIT_SECONDS, address)

    def take(self, link: StreamLink, arrived: Frame | DemosError) -> Guest | None:
        """What has come from a visitor; a guest, once it is one."""
        visit = self._visits.get(link)
        if visit is None:
            return None
        knock = visit.knock
        try:
            if isinstance(arrived, DemosError):
                raise arrived
            if knock is None:
                self._take_knock(link, visit, arrived)
                return None
            return self._take_proof(link, visit, knock, arrived)
        except ServerLost as error:  # nobody is there to hear it
            del self._visits[link]
            self._refused(link, knock.user if knock else "", f"gone before any proof: {error}")
        except BadVersion as error:  # no secret, and the peer can do something about it
            link.send(pack_failure(Kind.REPLY, 0, Failure.of(error)))
            self._refuse(link, knock.user if knock else "", str(error))
        except DemosError as error:
            self._refuse(link, knock.user if knock else "", str(error))
        return None

    def tick(self) -> None:
        """Sends those away who take too long."""
        now = self._clock()
        for link, visit in list(self._visits.items()):
            if visit.deadline > now:
                break  # they are in order
            self._refuse(link, visit.knock.user if visit.knock else "", "no proof in time")

    def _take_knock(self, link: StreamLink, visit: _Visit, frame: Frame) -> None:
        visit.hello = _read(frame, Kind.HELLO)
        visit.knock = Knock.from_dict(from_json(frame.arrays[0]))
        visit.nonce = make_nonce()
        methods = ["munge"] * self._by_munge + ["key"] * bool(self._keys)
        link.send(pack(Kind.CHALLENGE, [to_json(Challenge(visit.nonce, methods).to_dict())]))

    def _take_proof(self, link: StreamLink, visit: _Visit, knock: Knock, frame: Frame) -> Guest:
        _read(frame, Kind.PROOF)
        proof = Proof.from_dict(from_json(frame.arrays[0]))
        binding = self._find_binding(link)
        answer = ""
        if proof.method == "munge" and self._by_munge:
            credential = decode(proof.proof)
            if credential.payload != digest_session("peer", visit.hello, knock.nonce, visit.nonce, binding):
                raise AccessRefused("a credential of MUNGE for another connection")
            user = credential.user
            answer = encode(digest_session("server", visit.hello, knock.nonce, visit.nonce, binding))
        else:
            key = find_key(self._keys, proof.key, knock.user) if proof.method == "key" else None
            if not check(key, proof.proof, "peer", visit.hello, knock.nonce, visit.nonce, binding) or key is None:
                raise AccessRefused(f"no proof of key {proof.key!r}")
            user = knock.user
            answer = prove(key, "server", visit.hello, knock.nonce, visit.nonce, binding)
        if not self._may_enter(user, knock.role):
            raise AccessRefused(f"{user} may not come in as {knock.role}")
        del self._visits[link]
        number = next(self._numbers)
        house = self._house
        admission = Admission(
            house.server,
            house.name,
            number,
            answer,
            house.heartbeat,
            zstd=house.zstd and knock.zstd,
            model_path=house.model_path,
        )
        link.name = f"{knock.role} {number} ({user}, process {knock.pid} on {knock.host})"
        link.send(pack(Kind.WELCOME, [to_json(admission.to_dict())]))
        return Guest(link, knock, user, number, admission.zstd)

    def _refuse(self, link: StreamLink, user: str, why: str) -> None:
        del self._visits[link]
        self._refused(link, user, why)
        link.send(pack_failure(Kind.REPLY, 0, REFUSAL))
        link.part()


def _read(frame: Frame, kind: Kind) -> bytes:
    """The JSON text of a greeting."""
    if frame.header.kind != kind or len(frame.arrays) != 1:
        raise BadFrame(f"a frame of kind {frame.header.kind} where {kind.name} is due")
    if frame.arrays[0].nbytes > LONGEST_GREETING:
        raise BadFrame(f"a greeting of {frame.arrays[0].nbytes} bytes")
    return frame.arrays[0].tobytes()
