"""Who comes in through the door, who does not, and that nobody learns why."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demos_hpc import door as door_module
from demos_hpc.door import REFUSAL, VISIT_SECONDS, Door, Guest, House
from demos_hpc.errors import AccessRefused, BadFrame, BadVersion, DemosError
from demos_hpc.greetings import LONGEST_GREETING, LONGEST_TEXT, Admission, Beat, Challenge, Knock, Proof, Ticket
from demos_hpc.identity import Key, check, digest_session, make_nonce, prove
from demos_hpc.messages import Array, Failure, FromJson, Kind, from_json, to_json
from demos_hpc.munge import Credential, MungeFailed
from demos_hpc.refusals import pack_failure
from demos_hpc.transport import Link
from demos_hpc.transport.tcp import StreamLink, StreamPort
from demos_hpc.wire import HEADER_BYTES, OFFSETS, Frame, Header, Layout, Packed, pack, split

ADA, GROUP, STRANGER = (
    Key(name, bytes(range(start, start + 40))) for name, start in (("ada", 0), ("*", 50), ("ada", 99))
)
BINDING = "unix:boot:@demos"
HOUSE = House("f" * 32, "neutrino", 2.5, "models/neutrino.py", zstd=True)


def refuse_large(link: Link, header: Header, layout: Layout) -> list[Array]:
    """As a dispatcher does it with whoever is none of its peers."""
    raise BadFrame(f"a frame of {header.payload} bytes from somebody who was not let in")


class Entrance:
    """A door, with a clock that stands still and a port that is moved along by hand."""

    def __init__(self, *, by_munge: bool = False, most_visits: int = 100, house: House = HOUSE) -> None:
        self.now = 1000.0
        self.port = StreamPort()
        self.port.place = refuse_large
        self.keys = {"ada": ADA, "*": GROUP}
        self.refused: list[tuple[StreamLink, str, str]] = []
        self.guests: list[Guest] = []
        self.forbidden = {("bob", "worker"), ("bob", "operator")}
        self.door = Door(
            house,
            self.keys,
            by_munge=by_munge,
            may_enter=lambda user, role: (user, role) not in self.forbidden,
            find_binding=lambda link: BINDING,
            refused=lambda link, user, why: self.refused.append((link, user, why)),
            most_visits=most_visits,
            numbers=count(1),
            clock=lambda: self.now,
        )
        self._stack = contextlib.ExitStack()

    def visit(self, address: str = "10.0.0.7") -> Visitor:
        here, there = socket.socketpair()
        self._stack.enter_context(there)
        link = self.port.add(here, f"somebody at {address}")
        self.door.greet(link, address)
        return Visitor(self, there, link)

    def turn(self) -> None:
        """Whatever has come is given to the door."""
        while self.port.look():
            for link, arrived in self.port.receive():
                assert isinstance(link, StreamLink)
                guest = self.door.take(link, arrived)
                if guest is not None:
                    self.guests.append(guest)

    @property
    def n_visits(self) -> int:
        return len(self.door._visits)

    def close(self) -> None:
        self.port.close()
        self._stack.close()


class Visitor:
    """Somebody at the door who says what the test wants, and hears what comes."""

    def __init__(self, entrance: Entrance, sock: socket.socket, link: StreamLink) -> None:
        self._entrance = entrance
        self._sock = sock
        self.link = link
        self.heard = b""
        #: Whether the door has turned to somebody else for good.
        self.is_over = False
        self.hello = b""
        self.knocked: Knock | None = None
        self.challenge = Challenge("", [])

    def say(self, *messages: Packed | bytes) -> None:
        data = b"".join(m if isinstance(m, bytes) else spell(m) for m in messages)
        self._sock.sendall(data)
        self._entrance.turn()

    def hear(self) -> bytes:
        """All bytes that have come so far."""
        self._sock.setblocking(False)
        try:
            while data := self._sock.recv(1 << 16):
                self.heard += data
            self.is_over = True
        except BlockingIOError:
            pass
        self._sock.setblocking(True)
        return self.heard

    def frames(self) -> list[Frame]:
        buffer = bytearray(self.hear())
        return [Frame(header, buffer, start) for header, start in split(buffer)] if buffer else []

    def leave(self) -> None:
        self._sock.close()
        self._entrance.turn()

    def knock(self, **changes: Any) -> Challenge:
        """Says who it is, and takes the challenge."""
        self.knocked = make_knock(**changes)
        self.hello = to_json(self.knocked.to_dict()).tobytes()
        self.say(pack(Kind.HELLO, [np.frombuffer(self.hello, np.uint8)]))
        (frame,) = self.frames()
        assert frame.header.kind == Kind.CHALLENGE
        self.challenge = Challenge.from_dict(from_json(frame.arrays[0]))
        return self.challenge

    @property
    def session(self) -> tuple[bytes, str, str, str]:
        assert self.knocked is not None
        return self.hello, self.knocked.nonce, self.challenge.nonce, BINDING

    def prove(self, by: Key, forged: str | None = None, **changes: Any) -> None:
        """Gives the proof by this key, or a forged one; ``changes`` are members that are other ones."""
        given = Proof("key", prove(by, "peer", *self.session) if forged is None else forged, by.id)
        self.say(pack(Kind.PROOF, [to_json({**given.to_dict(), **changes})]))

    def read_admission(self) -> Admission:
        frame = self.frames()[-1]
        assert frame.header.kind == Kind.WELCOME
        return Admission.from_dict(from_json(frame.arrays[0]))


def make_knock(**changes: Any) -> Knock:
    return replace(Knock("client", "ada", "node17", 4711, make_nonce(), zstd=True, label="w1"), **changes)


def spell(packed: Packed) -> bytes:
    data = b"".join([bytes(packed.head), *(array.tobytes() for array in packed.tail)])
    return data + bytes(-len(data) % 8)


@pytest.fixture
def entrance() -> Iterator[Entrance]:
    made = Entrance()
    yield made
    made.close()


@pytest.fixture
def make_entrance() -> Iterator[Callable[..., Entrance]]:
    made: list[Entrance] = []

    def make(**options: Any) -> Entrance:
        made.append(Entrance(**options))
        return made[-1]

    yield make
    for one in made:
        one.close()


# ---- who comes in --------------------------------------------------------------------------------------------


def test_who_has_the_key_comes_in_and_the_server_has_it_too(entrance: Entrance) -> None:
    visitor = entrance.visit()
    challenge = visitor.knock()
    assert challenge.methods == ["key"]
    assert entrance.guests == []
    visitor.prove(ADA)
    (guest,) = entrance.guests
    assert (guest.link, guest.knock, guest.user, guest.zstd) == (visitor.link, visitor.knocked, "ada", True)
    admission = visitor.read_admission()
    assert check(ADA, admission.proof, "server", *visitor.session)
    assert (admission.server, admission.name, admission.number) == (HOUSE.server, "neutrino", 1)
    assert (admission.heartbeat, admission.model_path, admission.zstd) == (2.5, "models/neutrino.py", True)
    assert visitor.link.name == "client 1 (ada, process 4711 on node17)"
    assert not visitor.is_over
    assert entrance.refused == []
    assert entrance.n_visits == 0


@pytest.mark.parametrize("role", ["client", "worker", "operator"])
def test_with_the_groups_key_one_is_who_one_says(entrance: Entrance, role: str) -> None:
    visitor = entrance.visit()
    visitor.knock(user="carol", role=role)
    visitor.prove(GROUP)
    assert [(guest.user, guest.knock.role) for guest in entrance.guests] == [("carol", role)]


@pytest.mark.parametrize(("here", "there"), [(True, False), (False, True), (False, False)])
def test_compression_takes_two(make_entrance: Callable[..., Entrance], here: bool, there: bool) -> None:
    entrance = make_entrance(house=replace(HOUSE, zstd=here))
    visitor = entrance.visit()
    visitor.knock(zstd=there)
    visitor.prove(ADA)
    assert not entrance.guests[0].zstd
    assert not visitor.read_admission().zstd


def test_everybody_has_a_number_and_a_challenge_of_their_own(entrance: Entrance) -> None:
    visitors = [entrance.visit() for _ in range(5)]
    challenges = [visitor.knock().nonce for visitor in visitors]
    assert len({*challenges, ""}) == 6
    for visitor in visitors:
        visitor.prove(ADA)
    assert [visitor.read_admission().number for visitor in visitors] == [1, 2, 3, 4, 5]
    assert [guest.link for guest in entrance.guests] == [visitor.link for visitor in visitors]


def test_byte_by_byte_one_comes_in_too(entrance: Entrance) -> None:
    visitor = entrance.visit()
    visitor.knocked = make_knock()
    visitor.hello = to_json(visitor.knocked.to_dict()).tobytes()
    for byte in spell(pack(Kind.HELLO, [np.frombuffer(visitor.hello, np.uint8)])):
        visitor.say(bytes([byte]))
    visitor.challenge = Challenge.from_dict(from_json(visitor.frames()[0].arrays[0]))
    visitor.prove(ADA)
    assert len(entrance.guests) == 1


def test_what_follows_the_proof_is_not_the_doors(entrance: Entrance) -> None:
    """It has come in the same piece: the door lets its sender in, and whoever has the guest takes the rest."""
    visitor = entrance.visit()
    visitor.knock()
    proof = Proof("key", prove(ADA, "peer", *visitor.session), "ada")
    visitor.say(pack(Kind.PROOF, [to_json(proof.to_dict())]), pack(Kind.REQUEST, id=5), pack(Kind.PROOF, id=6))
    assert len(entrance.guests) == 1
    assert [frame.header.kind for frame in visitor.frames()] == [Kind.CHALLENGE, Kind.WELCOME]
    assert not visitor.is_over
    assert entrance.refused == []


# ---- the specification ---------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[1]


def test_proofs_are_those_of_the_specification() -> None:
    rows = re.findall(
        r"^\| (peer|server) \| `(\w{64})` \| `(\w{64})` \|$",
        (ROOT / "csrc/WIRE.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert [speaker for speaker, _, _ in rows] == ["peer", "server"]
    key, said = Key("*", bytes(range(32))), (b"{}", 64 * "a", 64 * "b", 64 * "c")
    for speaker, signed, proof in rows:
        assert digest_session(speaker, *said).hex() == signed
        assert prove(key, speaker, *said) == proof


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("hello_door", Kind.HELLO, Knock),
        ("challenge", Kind.CHALLENGE, Challenge),
        ("proof", Kind.PROOF, Proof),
        ("welcome_door", Kind.WELCOME, Admission),
        ("beat", Kind.BEAT, Beat),
        ("ticket", Kind.TICKET, Ticket),
        ("refusal", Kind.REPLY, Failure),
    ],
)
def test_golden_json_has_the_members_that_there_are(name: str, kind: Kind, message: type[FromJson]) -> None:
    data = bytearray((ROOT / f"tests/golden/good_{name}.bin").read_bytes())
    ((header, start),) = split(data)
    assert header.kind == kind
    values = from_json(Frame(header, data, start).arrays[0])
    assert message.from_dict(values).to_dict() == values


# ---- who does not --------------------------------------------------------------------------------------------


def greet_with(kind: int, *arrays: Array) -> Callable[[Visitor], None]:
    return lambda visitor: visitor.say(pack(kind, list(arrays)))


def knock_with(**members: Any) -> Callable[[Visitor], None]:
    """A knock whose JSON has other members; None takes one away."""
    values = {name: value for name, value in (make_knock().to_dict() | members).items() if value is not None}
    return greet_with(Kind.HELLO, to_json(values))


def answer_with(**changes: Any) -> Callable[[Visitor], None]:
    """The right proof, with some members changed."""

    def act(visitor: Visitor) -> None:
        visitor.knock()
        visitor.prove(ADA, **changes)

    return act


def answer_by(kind: int, *arrays: Array) -> Callable[[Visitor], None]:
    def act(visitor: Visitor) -> None:
        visitor.knock()
        visitor.say(pack(kind, list(arrays)))

    return act


def text(value: str) -> Array:
    return np.frombuffer(value.encode(), np.uint8)


def knock_twice(visitor: Visitor) -> None:
    visitor.knock()
    visitor.say(pack(Kind.HELLO, [to_json(make_knock().to_dict())]))


def prove_by(key: Key, **knock: Any) -> Callable[[Visitor], None]:
    def act(visitor: Visitor) -> None:
        visitor.knock(**knock)
        visitor.prove(key)

    return act


def replay(visitor: Visitor) -> None:
    """Hello and proof of a visit that went well, word for word."""
    entrance = visitor._entrance
    first = entrance.visit()
    first.knock()
    first.prove(ADA)
    entrance.guests.clear()
    visitor.say(pack(Kind.HELLO, [np.frombuffer(first.hello, np.uint8)]))
    visitor.say(pack(Kind.PROOF, [to_json(Proof("key", prove(ADA, "peer", *first.session), "ada").to_dict())]))


def replay_the_proof(visitor: Visitor) -> None:
    first = visitor._entrance.visit()
    first.knock()
    old = prove(ADA, "peer", *first.session)
    first.prove(ADA)
    visitor._entrance.guests.clear()
    visitor.knock()
    visitor.prove(ADA, old)


def reflect(visitor: Visitor) -> None:
    """What the server would say, said to it."""
    visitor.knock()
    visitor.prove(ADA, prove(ADA, "server", *visitor.session))


def pass_on(visitor: Visitor) -> None:
    """A proof for another server, or for this one by another way."""
    visitor.knock()
    hello, mine, its, _ = visitor.session
    visitor.prove(ADA, prove(ADA, "peer", hello, mine, its, "unix:boot:@other"))


def forge_the_hello(visitor: Visitor) -> None:
    """Somebody in between has made a worker of a client."""
    visitor.knock(role="worker")
    assert visitor.knocked is not None
    said = to_json(replace(visitor.knocked, role="client").to_dict()).tobytes()
    visitor.prove(ADA, prove(ADA, "peer", said, visitor.knocked.nonce, visitor.challenge.nonce, BINDING))


def send_bytes(data: bytes) -> Callable[[Visitor], None]:
    return lambda visitor: visitor.say(data)


def send_later(data: bytes) -> Callable[[Visitor], None]:
    def act(visitor: Visitor) -> None:
        visitor.knock()
        visitor.say(data)

    return act


GOOD_HELLO = to_json(make_knock().to_dict())
LARGE = spell(pack(Kind.HELLO, [np.zeros(40_000, np.uint8)]))
HUGE = bytearray(LARGE[:80])
HUGE[OFFSETS["payload"] : OFFSETS["payload"] + 8] = (16 + 2**60).to_bytes(8, "little")
HUGE[HEADER_BYTES + 8 : HEADER_BYTES + 16] = (2**60).to_bytes(8, "little")
MISDEEDS: dict[str, Callable[[Visitor], None]] = {
    # -- the first frame
    "proof first": greet_with(Kind.PROOF, to_json(Proof("key", "ab", "ada").to_dict())),
    "request first": greet_with(Kind.REQUEST, np.zeros((1, 2))),
    "goodbye first": greet_with(Kind.GOODBYE),
    "ping first": greet_with(Kind.PING),
    "unknown kind first": greet_with(200),
    "compressed first": greet_with(Kind.COMPRESSED, np.zeros(100, np.uint8)),
    "hello of nothing": greet_with(Kind.HELLO),
    "hello of two": greet_with(Kind.HELLO, GOOD_HELLO, GOOD_HELLO),
    "no JSON": greet_with(Kind.HELLO, text("{'role': client}")),
    "no UTF-8": greet_with(Kind.HELLO, np.full(50, 255, np.uint8)),
    "JSON that is no object": greet_with(Kind.HELLO, text("[1, 2]")),
    "JSON that is deep": greet_with(Kind.HELLO, text("[" * (LONGEST_GREETING - 1))),
    "numbers instead of text": greet_with(Kind.HELLO, np.zeros((3, 4))),
    "a long greeting": greet_with(Kind.HELLO, text(json.dumps(make_knock().to_dict()).ljust(LONGEST_GREETING + 1))),
    "unknown role": knock_with(role="dispatcher"),
    "role of another type": knock_with(role=["client"]),
    "no user": knock_with(user=None),
    "no nonce": knock_with(nonce=None),
    "a number for a user": knock_with(user=7),
    "text for a number": knock_with(pid="4711"),
    "steers a terminal": knock_with(host="\x1b[2J"),
    "two lines": knock_with(label="w1\nada was here"),
    "half a character": knock_with(user="\ud800"),
    "a long name": knock_with(user="a" * (LONGEST_TEXT + 1)),
    "large": send_bytes(LARGE),
    "huge": send_bytes(bytes(HUGE)),
    "noise": send_bytes(bytes(range(64))),
    "HTTP": send_bytes(b"GET / HTTP/1.1\r\nHost: neutrino\r\nAccept: */*\r\nUser-Agent: curl/8\r\n\r\n"),
    # -- the second
    "knocks twice": knock_twice,
    "request instead of a proof": answer_by(Kind.REQUEST, np.zeros((1, 2))),
    "proof of nothing": answer_by(Kind.PROOF),
    "proof that is no JSON": answer_by(Kind.PROOF, text("{")),
    "proof that is no object": answer_by(Kind.PROOF, text("null")),
    "proof that lacks something": answer_by(Kind.PROOF, text('{"method": "key"}')),
    "a long proof": answer_by(Kind.PROOF, text('"' + "a" * LONGEST_GREETING + '"')),
    "unknown method": answer_with(method="password"),
    "MUNGE where there is none": answer_with(method="munge"),
    "no method": answer_with(method=""),
    "wrong key": prove_by(STRANGER),
    "unknown key": prove_by(Key("eve", ADA.secret)),
    "a key that is somebody else's": prove_by(ADA, user="carol"),
    "the group's key for one who has an own": prove_by(GROUP, user="ada"),
    "a name that is none": prove_by(GROUP, user=""),
    "an own key called the group's": answer_with(key="*"),
    "empty proof": answer_with(proof=""),
    "proof of another alphabet": answer_with(proof="é" * 64),
    "proof of half a character": answer_with(proof="\udcff" * 64),
    "proof that is a number": answer_with(proof=5),
    "replayed visit": replay,
    "replayed proof": replay_the_proof,
    "reflected proof": reflect,
    "proof for another server": pass_on,
    "another hello than was signed": forge_the_hello,
    "worker without the right": prove_by(GROUP, user="bob", role="worker"),
    "operator without the right": prove_by(GROUP, user="bob", role="operator"),
    "large instead of a proof": send_later(LARGE),
    "huge instead of a proof": send_later(bytes(HUGE)),
    "noise instead of a proof": send_later(bytes(range(64))),
}
EXPECTED = bytes(spell(pack_failure(Kind.REPLY, 0, REFUSAL)))


@pytest.mark.parametrize("misdeed", MISDEEDS.values(), ids=MISDEEDS)
def test_whatever_is_wrong_the_refusal_is_the_same_bytes(
    entrance: Entrance, misdeed: Callable[[Visitor], None]
) -> None:
    visitor = entrance.visit()
    misdeed(visitor)
    challenge, found, rest = visitor.hear().partition(EXPECTED)
    assert found == EXPECTED
    assert rest == b""
    assert visitor.is_over  # nothing more will come
    if challenge:
        (header, _) = next(split(bytearray(challenge)))
        assert (header.kind, HEADER_BYTES + header.payload) == (Kind.CHALLENGE, len(challenge.rstrip(b"\0")))
    assert entrance.guests == []
    assert entrance.n_visits == 0
    ((link, user, why),) = entrance.refused
    assert link is visitor.link
    claimed = "ada" if misdeed is replay else ""
    assert user == (claimed if visitor.knocked is None else visitor.knocked.user)
    assert why
    for key in (ADA, GROUP):
        assert key.secret.hex() not in why + repr(visitor.heard) + repr(entrance.door)


def test_why_is_told_to_whoever_keeps_the_log(entrance: Entrance) -> None:
    def find_reason(name: str) -> tuple[str, str]:
        MISDEEDS[name](entrance.visit())
        return entrance.refused[-1][1:]

    assert find_reason("wrong key") == ("ada", "no proof of key 'ada'")
    assert find_reason("unknown key") == ("ada", "no proof of key 'eve'")
    assert find_reason("worker without the right") == ("bob", "bob may not come in as worker")
    assert "HELLO is due" in find_reason("proof first")[1]
    assert "PROOF is due" in find_reason("knocks twice")[1]
    assert "0x20544547" in find_reason("HTTP")[1]
    assert f"{16 + 2**60} bytes" in find_reason("huge")[1]


def test_another_version_is_told_so_since_that_is_no_secret(entrance: Entrance) -> None:
    visitor = entrance.visit()
    hello = pack(Kind.HELLO, [GOOD_HELLO])
    hello.head[OFFSETS["major"]] = 2
    visitor.say(hello)
    first, second = visitor.frames()
    assert isinstance(Failure.from_dict(from_json(first.arrays[0])).to_exception(), BadVersion)
    assert isinstance(Failure.from_dict(from_json(second.arrays[0])).to_exception(), AccessRefused)
    assert visitor.hear().endswith(EXPECTED)
    assert visitor.is_over
    assert "wire version 2.0" in entrance.refused[0][2]


def test_who_was_refused_is_not_heard_any_more(entrance: Entrance) -> None:
    visitor = entrance.visit()
    visitor.knock()
    visitor.prove(STRANGER)
    with contextlib.suppress(BrokenPipeError):
        visitor.prove(ADA)
        visitor.say(pack(Kind.HELLO, [GOOD_HELLO]))
    assert entrance.guests == []
    assert len(entrance.refused) == 1
    assert visitor.hear().count(EXPECTED) == 1


def test_who_was_refused_may_come_again(entrance: Entrance) -> None:
    visitor = entrance.visit()
    visitor.knock()
    visitor.prove(STRANGER)
    visitor = entrance.visit()
    visitor.knock()
    visitor.prove(ADA)
    assert len(entrance.guests) == 1


@pytest.mark.parametrize("when", ["at once", "after the knock", "in mid-frame"])
def test_who_leaves_before_any_proof_is_told_of_as_well(entrance: Entrance, when: str) -> None:
    visitor = entrance.visit()
    if when == "after the knock":
        visitor.knock()
    elif when == "in mid-frame":
        visitor.say(bytes(pack(Kind.HELLO, [GOOD_HELLO]).head[:70]))
    visitor.leave()
    ((link, user, why),) = entrance.refused
    assert (link, user) == (visitor.link, "ada" if when == "after the knock" else "")
    assert "gone before any proof" in why
    assert entrance.n_visits == 0
    assert link.is_closed


# ---- time and numbers ----------------------------------------------------------------------------------------


def test_who_takes_too_long_is_sent_away(entrance: Entrance) -> None:
    idle = entrance.visit()
    entrance.now += 1.0
    slow = entrance.visit()
    slow.knock()
    entrance.now += 1.0
    drip = entrance.visit()
    drip.say(bytes(pack(Kind.HELLO, [GOOD_HELLO]).head[:70]))
    entrance.now += VISIT_SECONDS - 2.0 - 1e-3
    entrance.door.tick()
    assert entrance.refused == []
    for nth, (visitor, user) in enumerate([(idle, ""), (slow, "ada"), (drip, "")]):
        entrance.now += 2e-3
        entrance.door.tick()
        assert entrance.refused[nth:] == [(visitor.link, user, "no proof in time")]
        assert visitor.hear().endswith(EXPECTED)
        assert visitor.is_over
        entrance.now += 1.0 - 2e-3
    assert entrance.n_visits == 0
    entrance.door.tick()
    assert len(entrance.refused) == 3


def test_a_guest_may_take_its_time(entrance: Entrance) -> None:
    visitor = entrance.visit()
    visitor.knock()
    visitor.prove(ADA)
    entrance.now += 10 * VISIT_SECONDS
    entrance.door.tick()
    assert entrance.refused == []
    assert not visitor.link.is_closed
    assert visitor.link.parting is None


def test_a_knock_does_not_buy_time(entrance: Entrance) -> None:
    visitor = entrance.visit()
    entrance.now += VISIT_SECONDS - 0.1
    visitor.knock()
    entrance.now += 0.2
    entrance.door.tick()
    assert [why for _, _, why in entrance.refused] == ["no proof in time"]


def test_whoever_crowds_the_door_makes_room(make_entrance: Callable[..., Entrance]) -> None:
    entrance = make_entrance(most_visits=4)
    alone = entrance.visit("10.0.0.1")
    crowd = [entrance.visit("10.6.6.6") for _ in range(3)]
    last = entrance.visit("10.0.0.2")
    assert [(link, why) for link, _, why in entrance.refused] == [
        (crowd[0].link, "too many from there are waiting at the door")
    ]
    assert crowd[0].hear() == EXPECTED
    crowd += [entrance.visit("10.6.6.6") for _ in range(50)]
    assert entrance.n_visits == 4
    for visitor in (alone, last, crowd[-1]):
        visitor.knock()
        visitor.prove(ADA)
    assert [guest.link for guest in entrance.guests] == [alone.link, last.link, crowd[-1].link]
    assert len(entrance.refused) == 51


def test_nothing_is_kept_of_those_who_were_not_let_in(entrance: Entrance) -> None:
    for _ in range(300):
        visitor = entrance.visit()
        visitor.say(bytes(range(64)))
        visitor.leave()
    assert entrance.n_visits == 0
    assert not entrance.port._links
    assert not entrance.port.parting
    assert len(entrance.refused) == 300


def test_large_frames_cost_no_memory_before_admission(entrance: Entrance) -> None:
    visitors = [entrance.visit() for _ in range(20)]
    tracemalloc.start()
    try:
        for nth, visitor in enumerate(visitors):
            visitor.say(bytes(HUGE) if nth % 2 else LARGE)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20
    assert len(entrance.refused) == 20


# ---- MUNGE ---------------------------------------------------------------------------------------------------


class FakeMunge:
    """A daemon that vouches for ``user`` by turning payloads into hexadecimal digits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.user = "ada"
        monkeypatch.setattr(door_module, "encode", self.encode)
        monkeypatch.setattr(door_module, "decode", self.decode)

    def encode(self, payload: bytes) -> str:
        if self.user == "nobody":
            raise MungeFailed("munged does not answer")
        return "MUNGE:" + payload.hex()

    def decode(self, credential: str) -> Credential:
        if not credential.startswith("MUNGE:"):
            raise MungeFailed("no MUNGE credential")
        return Credential(self.user, 1000, 1000, bytes.fromhex(credential[6:]))


@pytest.fixture
def munge(monkeypatch: pytest.MonkeyPatch) -> FakeMunge:
    return FakeMunge(monkeypatch)


def test_munge_says_who_it_is_and_not_the_peer(make_entrance: Callable[..., Entrance], munge: FakeMunge) -> None:
    entrance = make_entrance(by_munge=True)
    visitor = entrance.visit()
    assert visitor.knock(user="root").methods == ["munge", "key"]
    visitor.say(pack(Kind.PROOF, [to_json(Proof("munge", sign(visitor, "peer")).to_dict())]))
    assert [guest.user for guest in entrance.guests] == ["ada"]
    assert visitor.read_admission().proof == sign(visitor, "server")
    assert "(ada," in visitor.link.name


def sign(visitor: Visitor, speaker: Any, binding: str = BINDING) -> str:
    hello, mine, its, _ = visitor.session
    return "MUNGE:" + digest_session(speaker, hello, mine, its, binding).hex()


@pytest.mark.parametrize("misdeed", ["reflected", "other binding", "other session", "none", "no right", "daemon gone"])
def test_by_munge_as_well_all_refusals_are_the_same(
    make_entrance: Callable[..., Entrance], munge: FakeMunge, misdeed: str
) -> None:
    entrance = make_entrance(by_munge=True)
    other, visitor = entrance.visit(), entrance.visit()
    other.knock()
    visitor.knock(role="worker")
    credential = {
        "reflected": sign(visitor, "server"),
        "other binding": sign(visitor, "peer", "unix:boot:@other"),
        "other session": sign(other, "peer"),
        "none": "REGNUM:00",
    }.get(misdeed, sign(visitor, "peer"))
    munge.user = {"no right": "bob", "daemon gone": "nobody"}.get(misdeed, "ada")
    visitor.say(pack(Kind.PROOF, [to_json(Proof("munge", credential).to_dict())]))
    assert visitor.hear().endswith(EXPECTED)
    assert visitor.hear().count(EXPECTED) == 1
    assert visitor.is_over
    assert entrance.guests == []
    assert len(entrance.refused) == 1
    assert entrance.refused[0][1] == "ada"  # as claimed: nothing was proved


def test_a_door_without_keys_offers_none(make_entrance: Callable[..., Entrance], munge: FakeMunge) -> None:
    entrance = make_entrance(by_munge=True)
    entrance.keys.clear()
    visitor = entrance.visit()
    assert visitor.knock().methods == ["munge"]
    visitor.prove(ADA)
    assert visitor.hear().endswith(EXPECTED)


def test_whatever_the_door_is_told_of_links_that_it_does_not_know_is_nothing(entrance: Entrance) -> None:
    here, there = socket.socketpair()
    link = entrance.port.add(here, "somebody")
    errors: list[DemosError] = [BadFrame("no frame")]
    assert entrance.door.take(link, errors[0]) is None
    there.close()
    entrance.turn()
    assert entrance.refused == []
