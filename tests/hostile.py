"""Peers that say what no program of ours would, to a server in this process: by mutating frames that are good.

`attack` is what tests and benchmarks call. The server is the real one but for its sockets, which are pairs: a door, a
reception, a dispatcher and a worker, moved along by hand, so that a run is the same for the same seed.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import logging
import random
import socket
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np

from demos_hpc import dispatcher as dispatcher_module
from demos_hpc import intake as intake_module
from demos_hpc.accounts import Accounts
from demos_hpc.client import RemoteModel
from demos_hpc.config import Config
from demos_hpc.connection import Connection
from demos_hpc.dispatcher import Dispatcher
from demos_hpc.door import VISIT_SECONDS, Door, House
from demos_hpc.errors import BadFrame, DemosError
from demos_hpc.greetings import Beat, Challenge, Knock, Proof
from demos_hpc.identity import Key, make_nonce, prove
from demos_hpc.messages import Array, Flag, Kind, Offer, Operation, from_json, to_json
from demos_hpc.model import LoadedModel
from demos_hpc.peers import Person
from demos_hpc.reception import Reception
from demos_hpc.reference import Reference
from demos_hpc.sources import find_identity
from demos_hpc.spec import Dataset
from demos_hpc.testing import Gaussian
from demos_hpc.transport import PARTING
from demos_hpc.transport.compression import Compressor, is_available
from demos_hpc.transport.inflow import Inflow
from demos_hpc.transport.tcp import StreamLink, StreamPort
from demos_hpc.wire import ALIGNMENT, HEADER_BYTES, INLINE_BYTES, OFFSETS, Frame, Header, Layout, Packed, pack
from demos_hpc.worker import Worker, find_resident_bytes

GOLDEN = Path(__file__).parent / "golden"
KEY = Key("eve", bytes(range(40)))
BINDING = "a socket pair"
#: Numbers that have been somebody's undoing.
WORDS = (
    0,
    1,
    7,
    8,
    255,
    2**15,
    2**16,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**53,
    2**61,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
#: What a member of JSON may be instead.
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 65536, 2**53, 2**63, 2**64, 10**400, -(10**400), 0.5, 1e308, float("nan"), float("inf"),
    "", "a" * 3000, "\ud800", "\x1b[2J\n", "é", "../../etc/passwd", "%s%n{0}", [], {}, [[]], [None] * 50, {"": {}},
    {"name": "gaussian"}, [{"name": 1}], "log_density",
)  # fmt: skip
#: Turns after which something that needs so many will never come.
MANY_TURNS = 200
#: Seconds that such requests are given to be answered, all together, and those of a good client, each.
PATIENCE, TIMEOUT = 10.0, 20.0
#: Characters that are shown of what went wrong.
LONGEST_EXAMPLE = 4000
#: Frames that one peer gets to say before it makes room for another.
LIFETIME = 40
#: Frames between two looks at whether a good client is served.
PAUSE = 2000
#: Milliseconds that a request to a worker of which nobody knows what it answers is waited for.
TRUST_MS = 50


def spell(packed: Packed | bytes) -> bytes:
    """A frame as it stands in a stream."""
    if isinstance(packed, bytes):
        data = packed
    else:
        data = b"".join([bytes(packed.head), *(array.tobytes() for array in packed.tail)])
    return data + bytes(-len(data) % ALIGNMENT)


@cache
def find_data() -> Path:
    """A file of data, kept until Python ends."""
    directory = tempfile.TemporaryDirectory(prefix="demos-hostile-")
    atexit.register(directory.cleanup)
    path = Path(directory.name) / "data.h5"
    with h5py.File(path, "w") as file:
        file["rows"] = np.arange(400.0).reshape(100, 4)
        file.create_dataset("packed", data=np.arange(400).reshape(100, 4), chunks=(7, 3), compression="gzip")
        file["text"] = ["a", "bb", ""] * 5
        file["line"] = np.arange(5000.0)
    return path


class Holder(Gaussian):
    """A `Gaussian` with datasets."""

    def __init__(self) -> None:
        super().__init__()
        names = ("rows", "packed", "text", "line")
        self.spec = replace(self.spec, datasets=tuple(Dataset(name, f"{find_data()}:/{name}") for name in names))


class Rights:
    """Everybody may do everything but what would end the service."""

    def may(self, user: str, model: str, uuid: str, operation: str) -> bool:
        return operation not in ("drain", "stop")


class Service:
    """A server and one good worker."""

    def __init__(self) -> None:
        spool = str(find_data().parent / "spool")
        self.config = Config(
            timeout=TIMEOUT, max_request_bytes=64 << 20, chunk_seconds=1e-4, heartbeat=1e3, spool=spool
        )
        self.ahead = 0.0
        self.port = StreamPort()
        accounts = Accounts(name="hostile", rights=Rights())
        self.dispatcher = Dispatcher(self.port, self.config, 1, accounts=accounts)
        self.reception = Reception(self.dispatcher, self.port, self.config)
        self.refused: Counter[str] = Counter()
        self.reception.door = self.door = Door(
            House("0" * 32, "hostile", 5.0, zstd=is_available()),
            {"eve": KEY},
            by_munge=False,
            may_enter=lambda user, role: True,
            find_binding=lambda link: BINDING,
            refused=lambda link, user, why: self.refused.update([why[:20]]),
            most_visits=64,
            numbers=self.dispatcher.numbers,
            clock=lambda: time.monotonic() + self.ahead,
        )
        port = StreamPort()
        here, there = socket.socketpair()
        self.dispatcher.add_worker(self.port.add(here, "worker"), Person("ada"))
        self.worker = Worker("worker", port, port.add(there, "dispatcher"), config=self.config)
        self.worker.offer(lambda: LoadedModel(Holder()), "this process")
        self._ports = [self.port, port]
        #: All that is open for those who have come.
        self.sockets = {here, there}
        self.turn()

    def turn(self) -> None:
        """Everybody does what there is to do."""
        for _ in range(3):
            for _ in range(MANY_TURNS):
                if not self.port.look():
                    break
                self.dispatcher.step()
            else:
                raise RuntimeError("the server is awake all the time")
            self.dispatcher.step()
            if not self.worker.step():
                break

    def accept(self, sock: socket.socket) -> StreamLink:
        """Somebody has connected."""
        before = set(self.port._links.values())
        self.reception._greet(sock)
        (link,) = set(self.port._links.values()) - before
        self.sockets.add(link.sock)
        return link

    def expire(self) -> None:
        """So much time has passed that nobody may stand at the door any more, nor be parted from."""
        self.ahead += 2 * VISIT_SECONDS
        self.door.tick()
        self.port.sweep(time.monotonic() + 2 * PARTING)

    def close(self) -> None:
        self.reception.close(5.0)
        for port in self._ports:
            port.close()
        for sock in self.sockets:
            sock.close()

    def ask(self) -> None:
        """A good client comes, is served, and goes."""
        port = StreamPort()
        here, there = socket.socketpair()
        self.sockets |= {here, there}
        link = self.port.add(here, "good client")
        self.dispatcher.add_client(link, Person("ada"), is_guest=True)

        def wait(seconds: float) -> None:
            self.turn()

        port.wait = wait  # type: ignore[method-assign]
        try:
            connection = Connection(port, port.add(there, "server"), self.config)
            model = RemoteModel(connection, connection.ask(Operation.METADATA, {"model": "gaussian"}).result())
            x = np.linspace(-3, 3, 3000)[:, np.newaxis]
            for n in (1, 5, 3000):
                found = model.log_density(x[:n], [0.5, 2.0])
                np.testing.assert_allclose(found, Gaussian().log_density(x[:n], np.array([0.5, 2.0])), rtol=1e-12)
            for name, mean in (("rows", 199.5), ("packed", 199.5)):
                assert model.dataset(name, direct=False)[()].mean() == mean
        finally:
            port.close()
            self.turn()
            for end in (here, there):
                end.close()
                self.sockets.discard(end)


# ---- what is said ---------------------------------------------------------------------------------------------


def make_offer() -> Offer:
    """Of a worker with a model of its own."""
    return Offer("evil", "f", "s", spec=LoadedModel(Gaussian(name="evil")).spec.to_dict())


def make_corpus() -> list[bytes]:
    """Frames that are good, most of them for this very server, and the golden ones, the bad of them too."""
    x, wide, p = np.zeros((3, 1)), np.zeros((2100, 1)), np.array([0.0, 1.0])
    call = {"model": 1, "n_rows": 3, "id": 1}
    large = {**call, "n_rows": 2100}
    data = {"model": 1, "id": 1, "operation": Operation.DATASET}
    asked = {"dataset": "rows", "identity": find_identity(str(find_data())), "kind": "rows", "row_bytes": 32}
    asked |= {"axes": [[0, 1, 100], [0, 1, 4]], "axis": 0, "fields": None, "is_flat": False}
    listed = {**asked, "dataset": "packed", "axes": [None, [0, 1, 4]]}
    upload = {"upload": "5" * 64, "rows": 3, "columns": 1, "do": "find"}
    of_text = {**asked, "dataset": "text", "kind": "text", "axes": [[0, 2, 5]]}
    held = np.frombuffer(Reference("line", identity=asked["identity"], rows=5000, width=1).to_bytes(), np.uint8)
    of_held = {"operation": Operation.LOG_LIKELIHOOD, "flags": Flag.RESIDENT, "model": 1, "id": 1}
    frames: list[Packed] = [
        pack(Kind.REQUEST, [x, p], operation=Operation.LOG_DENSITY, **call),
        pack(Kind.REQUEST, [x], operation=Operation.LOG_DENSITY, **call),
        pack(Kind.REQUEST, [wide, p], operation=Operation.LOG_DENSITY, **large),
        pack(Kind.REQUEST, [x, p], operation=Operation.LOG_DENSITY, deadline_ms=1, **call),
        pack(Kind.REQUEST, [x, p], operation=Operation.LOG_DENSITY_GRADIENT, flags=Flag.WRT_X, **call),
        pack(Kind.REQUEST, [x, np.array([p, p])], operation=Operation.LOG_LIKELIHOOD, **call),
        pack(Kind.REQUEST, [x, np.array([p])], operation=Operation.LOG_LIKELIHOOD_GRADIENT, flags=4, **call),
        pack(Kind.REQUEST, [p], operation=Operation.SAMPLE, seed=5, **call),
        pack(Kind.REQUEST, [np.array([p])], operation=Operation.EVALUATE, **{**call, "n_rows": 1}),
        # In parts: of 6000 rows, blocks of 1024.
        pack(Kind.REQUEST, [wide[:2048], p], operation=Operation.LOG_DENSITY, **{**call, "n_rows": 6000}),
        pack(Kind.ROWS, [wide[:2048]], operation=Operation.LOG_DENSITY, **{**call, "n_rows": 2048}, first_row=2048),
        pack(Kind.ROWS, [wide[:1904]], operation=Operation.LOG_DENSITY, **{**call, "n_rows": 1904}, first_row=4096),
        pack(Kind.REQUEST, [to_json(asked), np.array([0, 50, 100])], **data, n_rows=100),
        pack(Kind.REQUEST, [to_json(listed), np.array([0, 1, 3]), np.array([5, 50, 99])], **data, n_rows=3),
        pack(Kind.REQUEST, [to_json(of_text), np.array([0, 5])], **data, n_rows=5),
        pack(Kind.REQUEST, [to_json(asked), np.array([0, 1])], **{**data, "operation": Operation.DIGEST}, n_rows=1),
        pack(Kind.REQUEST, [to_json({"dataset": "text"})], **{**data, "operation": Operation.DESCRIBE}, n_rows=1),
        pack(Kind.REQUEST, [to_json(upload)], **{**data, "operation": Operation.UPLOAD}, n_rows=1),
        pack(Kind.REQUEST, [held, np.array([7, 2, 2200, 1]), np.array([p, p])], **of_held, n_rows=6),
        pack(Kind.REQUEST, [held, np.array([0, 1, 5000, 2])], **of_held, n_rows=3),
        pack(Kind.REQUEST, operation=Operation.METADATA, id=1),
        pack(Kind.REQUEST, [to_json({"model": "gaussian"})], operation=Operation.METADATA, id=1),
        pack(Kind.REQUEST, [to_json({"mu": 0.5})], operation=Operation.SET_PARAMS, id=1, model=1),
        pack(Kind.REQUEST, [to_json({})], operation=Operation.STATISTICS, id=1),
        pack(Kind.REQUEST, operation=Operation.STOP, id=1),
        pack(Kind.CANCEL, id=1),
        pack(Kind.RESULT, [np.zeros(3)], operation=1, id=1, n_rows=3),
        pack(Kind.HELLO, [to_json(make_offer().to_dict())]),
        pack(Kind.HELLO, [to_json(Offer("evil", "f", failure={"status": 3, "message": "no"}).to_dict())]),
        pack(Kind.HELLO, [to_json(Knock("client", "eve", "there", 1, "5e" * 32).to_dict())]),
        pack(Kind.PROOF, [to_json(Proof("key", "0" * 64, "eve").to_dict())]),
        pack(Kind.BEAT, [to_json(Beat(1 << 20).to_dict())]),
        pack(Kind.PING, id=3),
    ]
    if is_available():
        frames.append(Compressor().deflate(frames[2]))
    golden = [path.read_bytes() for path in sorted(GOLDEN.glob("*.bin"))]
    return [spell(frame) for frame in frames] + [spell(data) for data in golden if data]


class Mutator:
    """Says the same things for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.corpus = make_corpus()

    def make(self) -> bytes:
        """Something that may be a frame."""
        rng = self.random
        data = bytearray(rng.choice(self.corpus))
        if rng.random() < 0.05:
            return bytes(data)
        for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
            if not data:
                break
            rng.choice(self._ways)(self, data)
        if rng.random() < 0.8:
            data += bytes(-len(data) % ALIGNMENT)
        return bytes(data)

    def _flip(self, data: bytearray) -> None:
        for _ in range(self.random.choice((1, 1, 2, 8))):
            data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)

    def _flip_head(self, data: bytearray) -> None:
        data[self.random.randrange(min(len(data), 96))] = self.random.randrange(256)

    def _set_field(self, data: bytearray) -> None:
        name = self.random.choice([name for name in OFFSETS if name not in ("magic", "major")])
        size = (
            8
            if name in ("id", "first_row", "n_rows", "payload", "seed")
            else 4
            if name in ("revision", "deadline_ms")
            else 2
        )
        size = 1 if name in ("minor", "kind", "operation") else size
        value = self.random.choice(WORDS) if self.random.random() < 0.5 else self.random.randrange(24)
        if len(data) >= HEADER_BYTES:
            data[OFFSETS[name] : OFFSETS[name] + size] = (value % 256**size).to_bytes(size, "little")

    def _set_word(self, data: bytearray) -> None:
        at = self.random.randrange(0, max(1, min(len(data), 256) - 8), 8)
        if len(data) >= at + 8:
            struct.pack_into("<Q", data, at, self.random.choice(WORDS))

    def _set_number(self, data: bytearray) -> None:
        if len(data) >= HEADER_BYTES + 24:
            at = self.random.randrange(HEADER_BYTES, len(data) - 8, 8)
            struct.pack_into("<d", data, at, self.random.choice((np.nan, np.inf, -np.inf, 1e308, -0.0, 5e-324)))

    def _announce(self, data: bytearray) -> None:
        """A head that agrees with itself, of whatever size."""
        size = self.random.choice((INLINE_BYTES, 1 << 16, 1 << 20, 1 << 26, 1 << 30, 1 << 40, 1 << 62))
        head = bytearray(pack(self.random.randrange(21), [np.zeros(1, np.uint8)], id=1, n_rows=size).head[:80])
        head[OFFSETS["payload"] : OFFSETS["payload"] + 8] = (16 + size).to_bytes(8, "little")
        head[HEADER_BYTES + 8 : HEADER_BYTES + 16] = size.to_bytes(8, "little")
        data[:0] = head

    def _cut(self, data: bytearray) -> None:
        del data[self.random.randrange(len(data)) :]

    def _cut_out(self, data: bytearray) -> None:
        start = self.random.randrange(len(data))
        del data[start : start + self.random.choice((1, 8, 16, 64))]

    def _repeat(self, data: bytearray) -> None:
        start = self.random.randrange(len(data))
        piece = data[start : start + self.random.choice((1, 8, 16, 64, 4096))]
        data[start:start] = piece

    def _splice(self, data: bytearray) -> None:
        other = self.random.choice(self.corpus)
        data[self.random.randrange(len(data)) :] = other[self.random.randrange(len(other)) :]

    def _append(self, data: bytearray) -> None:
        data += bytes(-len(data) % ALIGNMENT) + self.random.choice(self.corpus)

    def _insert(self, data: bytearray) -> None:
        at = self.random.randrange(len(data))
        data[at:at] = bytes(self.random.randrange(1, 17))

    def _change_json(self, data: bytearray) -> None:
        """Another member, value or type in the JSON of a frame that has some; the frame stays one."""
        start = data.find(b"{", HEADER_BYTES)
        if start < 0:
            return
        try:
            value = json.loads(data[start:].rstrip(b"\0").decode())
        except ValueError:
            return
        text = json.dumps(self._change(value))
        if self.random.random() < 0.1:
            text = text[: self.random.randrange(len(text))]
        array = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)
        header = bytes(data[:HEADER_BYTES])
        packed = pack(header[OFFSETS["kind"]], [array], operation=header[OFFSETS["operation"]], id=1, model=1)
        data[:] = spell(packed)

    def _change(self, value: Any) -> Any:
        rng = self.random
        if isinstance(value, dict) and value and rng.random() < 0.9:
            changed, name = dict(value), rng.choice(sorted(value))
            action = rng.random()
            if action < 0.1:
                del changed[name]
            elif action < 0.2:
                changed[rng.choice(("", "x", "__class__", name + "s"))] = rng.choice(VALUES)
            else:
                changed[name] = self._change(changed[name])
            return changed
        if isinstance(value, list) and value and rng.random() < 0.7:
            changed_list, at = list(value), rng.randrange(len(value))
            if rng.random() < 0.2:
                changed_list *= 2
            changed_list[at] = self._change(changed_list[at])
            return changed_list
        return rng.choice(VALUES)

    _ways = (
        _flip, _flip, _flip_head, _flip_head, _set_field, _set_field, _set_field, _set_word, _set_number, _announce,
        _cut, _cut_out, _repeat, _splice, _append, _insert, _change_json, _change_json,
    )  # fmt: skip


# ---- those who say it -----------------------------------------------------------------------------------------


class Peer:
    """One end of a socket, at whose other end is the server."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.sock, its = socket.socketpair()
        self.sock.setblocking(False)
        service.sockets.add(self.sock)
        self.link = service.accept(its)
        self._inflow = Inflow(self._place)
        self.frames: list[Frame] = []
        #: What the server has said that is no frame.
        self.is_garbled = False
        #: Whether the server has ended the connection.
        self.is_over = False
        #: Whether something could not be sent.
        self.is_clogged = False
        self._n_asked = 0

    def _place(self, header: Header, layout: Layout) -> list[Array]:
        if header.payload > 64 << 20:
            raise BadFrame("a server that answers with more than anybody has asked for")
        return [np.empty(shape, dtype) for dtype, shape in zip(layout.dtypes, layout.shapes, strict=True)]

    def say(self, data: bytes) -> None:
        self.send(data)
        self._service.turn()
        self.hear()

    def send(self, data: bytes) -> None:
        if self.is_over or self.is_clogged:
            return
        try:
            self.is_clogged = self.sock.send(data) < len(data)
        except BlockingIOError:
            self.is_clogged = True
        except OSError:
            self.hear()

    def hear(self) -> None:
        try:
            while data := self.sock.recv(1 << 18):
                for frame in self._inflow.feed(bytearray(data)):
                    is_whole = frame.header.kind != Kind.COMPRESSED
                    self.frames.append(frame if is_whole else Compressor().inflate(frame, self._place))
            self.is_over = True
        except BlockingIOError:
            pass
        except OSError:
            self.is_over = True
        except DemosError:
            self.is_garbled = True

    def enter(self, role: str) -> None:
        """Goes through the door."""
        hello = to_json(knock_as(role).to_dict())
        nonce = from_json(hello)["nonce"]
        self.say(spell(pack(Kind.HELLO, [hello])))
        challenge = Challenge.from_dict(from_json(self.frames.pop().arrays[0]))
        proof = Proof("key", prove(KEY, "peer", hello.tobytes(), nonce, challenge.nonce, BINDING), "eve")
        self.say(spell(pack(Kind.PROOF, [to_json(proof.to_dict())])))
        assert self.frames.pop().header.kind == Kind.WELCOME

    @property
    def is_waited_for(self) -> bool:
        """Whether the server has the beginning of a frame of it."""
        return bool(self.link._inflow._rest) or self.link._inflow.hole is not None

    def is_answered(self) -> bool:
        """Whether the server does what it has to, with whatever was said: hangs up, waits for more, or answers."""
        for _ in range(MANY_TURNS):
            self._service.turn()
            self.hear()
            if self.is_over or self.is_waited_for or self.is_clogged:
                return True
            if self.link not in self._service.dispatcher.peers and not self.link.is_gone:
                return self.link in self._service.door._visits  # it is a visitor as before, until its time is over
            if not self.link.is_gone:
                break
        self._n_asked += 1
        number = 2**63 + self._n_asked
        self.send(spell(pack(Kind.PING, id=number)))
        for _ in range(MANY_TURNS):
            self._service.turn()
            self.hear()
            if self.is_over or self.is_clogged:
                return True
            if any(f.header.kind == Kind.PONG and f.header.id == number for f in self.frames):
                self.frames.clear()
                return True
        return False

    def leave(self) -> bool:
        """Hangs up; whether the server does so as well."""
        self.sock.close()
        for _ in range(MANY_TURNS):
            self._service.turn()
            if self.link.is_closed:
                self._service.sockets -= {self.sock, self.link.sock}
                return True
        return False


def knock_as(role: str) -> Knock:
    return Knock(role, "eve", "there", 4711, make_nonce(), zstd=is_available())


class Ledger:
    """What went wrong, by what it was: the first example of each, and how often."""

    def __init__(self) -> None:
        self.faults: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def note(self, what: str, example: str) -> None:
        self.faults[what] += 1
        self.examples.setdefault(what, example)

    def note_error(self, what: str, said: Sequence[bytes]) -> None:
        """The exception that is being handled."""
        text = traceback.format_exc()
        frames = [line.strip() for line in text.splitlines() if line.startswith("  File")]
        self.note(f"{what}: {text.splitlines()[-1][:100]} at {frames[-1][-60:]}", text + "\n".join(map(repr, said)))


class Attack:
    """A run of so many frames; see `attack`."""

    def __init__(self, seed: int) -> None:
        self.ledger = Ledger()
        self._mutator = Mutator(seed)
        self._random = random.Random(seed + 1)
        self._service = Service()
        self._said: list[bytes] = []
        #: Who has asked a worker that cannot be trusted, how often, and what was said to them.
        self._callers: list[tuple[Peer, int, str]] = []
        self.n_frames = 0
        self.n_ends = 0

    def run(self, n_frames: int) -> None:
        whos = (
            self._visit,
            self._visit,
            self._call,
            self._call,
            self._call,
            self._work,
            self._work_for_others,
            self._operate,
        )
        next_look = 0
        seen = Tracebacks(self.ledger, self._said)
        ours = [mock.patch.object(module, "traceback", seen) for module in (dispatcher_module, intake_module)]
        with self._quiet(), ours[0], ours[1]:
            while self.n_frames < n_frames:
                try:
                    self._random.choice(whos)()
                    if self.n_frames >= next_look:
                        next_look += PAUSE
                        self._look()
                except Exception:  # whatever it is: it is what is looked for
                    self.ledger.note_error("crash", self._said)
                    self._renew()
            self._finish()

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        """The server's complaints are its operator's; models may overflow."""
        before = logging.root.manager.disable
        logging.disable()
        try:
            with contextlib.redirect_stderr(Nowhere()), np.errstate(all="ignore"):
                yield
        finally:
            logging.disable(before)

    def _look(self) -> None:
        """Whether everybody has heard something, and a good client is served."""
        end = time.monotonic() + PATIENCE
        for caller, n_asked, said in self._callers:
            finals: Counter[int] = Counter()
            while len(finals) < n_asked and time.monotonic() < end and not caller.is_over:
                caller.hear()
                finals.update(frame.header.id for frame in caller.frames if frame.header.flags & Flag.FINAL)
                caller.frames.clear()
                self._service.port.wait(0.0 if len(finals) == n_asked else 1e-3)
                self._service.turn()
            if set(finals.values()) != {1} or len(finals) != n_asked:
                self.ledger.note("not answered once", f"{sorted(finals.items())} of {n_asked}: {said}")
            self._part(caller)
        self._callers.clear()
        self._service.expire()
        self._service.ask()

    def _renew(self) -> None:
        self._callers.clear()
        with contextlib.suppress(Exception):
            self._service.close()
        self._service = Service()

    def _finish(self) -> None:
        service = self._service
        try:
            self._look()
            service.expire()
            left = len(service.port._links) - 1  # but the good worker's
            if left or service.port.parting or service.port.sending or service.door._visits:
                self.ledger.note("links left", f"{service.port._links}")
            if service.dispatcher.intake.calls or len(service.dispatcher.peers) != 1:
                self.ledger.note("requests or peers left", f"{service.dispatcher.intake.calls}")
        except Exception:
            self.ledger.note_error("not served afterwards", self._said)
        finally:
            service.close()

    # ---- who ------------------------------------------------------------------------------------------------

    def _meet(self) -> Peer:
        self._said.clear()
        return Peer(self._service)

    def _say(self, peer: Peer, data: bytes | None = None) -> None:
        data = self._mutator.make() if data is None else data
        self._said.append(data)
        self.n_frames += 1
        peer.say(data)

    def _part(self, peer: Peer) -> None:
        if peer.is_garbled:
            self.ledger.note("the server said what is no frame", repr(self._said))
        if not peer.is_answered():
            self.ledger.note("neither closed nor answered", repr(self._said))
        self.n_ends += peer.is_over
        if not peer.leave():
            self.ledger.note("not closed after its peer has left", repr(self._said))

    def _visit(self) -> None:
        """Somebody who was not let in."""
        peer = self._meet()
        if self._random.random() < 0.5:
            peer.say(spell(pack(Kind.HELLO, [to_json(knock_as("client").to_dict())])))
        for _ in range(self._random.choice((1, 1, 1, 2, 3))):
            self._say(peer)
        if peer.link in self._service.dispatcher.peers:
            self.ledger.note("let in", repr(self._said))
        self._part(peer)

    def _call(self) -> None:
        self._stay("client")

    def _operate(self) -> None:
        self._stay("operator")

    def _work(self) -> None:
        self._stay("worker")

    def _stay(self, role: str) -> None:
        """Somebody who was let in, and stays while it is understood."""
        peer = self._meet()
        peer.enter(role)
        for nth in range(LIFETIME):
            self._say(peer)
            if nth % 8 == 0 and not peer.is_answered():
                self.ledger.note("neither closed nor answered", repr(self._said))
            if peer.is_over or peer.is_clogged or peer.link.is_gone:
                break
            if peer.is_waited_for and self._random.random() < 0.3:
                break
        self._part(peer)

    def _work_for_others(self) -> None:
        """A worker with a model of its own that answers as it likes; whoever calls it hears something, and once."""
        worker, caller = self._meet(), Peer(self._service)
        worker.enter("worker")
        caller.enter("client")
        worker.say(spell(pack(Kind.HELLO, [to_json(make_offer().to_dict())])))
        handles = [s.handle for s in self._service.dispatcher.catalog.models.values() if s.spec.name == "evil"]
        x, p = np.zeros((self._random.choice((1, 3, 3000)), 1)), np.array([0.0, 1.0])
        ids = range(1, 5)
        for id_ in ids:
            fields = {"model": handles[0], "id": id_, "n_rows": len(x), "deadline_ms": TRUST_MS}
            caller.say(spell(pack(Kind.REQUEST, [x, p], operation=Operation.LOG_DENSITY, **fields)))
            worker.hear()
            chunks = [frame.header for frame in worker.frames if frame.header.kind == Kind.CHUNK]
            worker.frames.clear()
            for chunk in chunks:
                self._say(worker, self._answer(chunk))
            if worker.is_over or worker.link.is_gone:
                break
        self._part(worker)
        self._callers.append((caller, id_, repr(self._said)))

    def _answer(self, chunk: Header) -> bytes:
        """A RESULT that is nearly right, or anything."""
        rng = self._random
        fields = {"operation": chunk.operation, "id": chunk.id, "first_row": chunk.first_row, "n_rows": chunk.n_rows}
        result = bytearray(spell(pack(Kind.RESULT, [np.zeros(chunk.n_rows)], model=chunk.model, **fields)))
        if rng.random() < 0.2:
            return bytes(result)
        if rng.random() < 0.2:
            return spell(
                pack(Kind.RESULT, [to_json({"status": 3, "message": "no"})], status=rng.choice(WORDS) % 65536, **fields)
            )
        if rng.random() < 0.3:
            wrong = rng.choice(
                ([], [np.zeros(7)], [np.zeros((chunk.n_rows, 2))], [np.zeros(5, np.uint8)] * 8, [np.zeros(5000)])
            )
            return spell(pack(Kind.RESULT, wrong, **fields))
        for _ in range(rng.choice((1, 2))):
            rng.choice(Mutator._ways)(self._mutator, result)
            if not result:
                break
        return bytes(result) + bytes(-len(result) % ALIGNMENT)


class Nowhere(io.TextIOBase):
    """Takes whatever is printed."""

    def write(self, text: str) -> int:
        return len(text)


class Tracebacks:
    """In place of the module, where the server prints what it takes for defects of ours."""

    def __init__(self, ledger: Ledger, said: Sequence[bytes]) -> None:
        self._ledger = ledger
        self._said = said

    def format_exc(self) -> str:
        self._ledger.note_error("defect", self._said)
        return ""


def attack(
    place: Path | None = None, transport: str = "auto", *, frames: int = 20_000, seed: int = 1
) -> dict[str, float]:
    """Sends so many mutated frames, and says what became of the server.

    ``place`` and ``transport`` are those of other scenarios, and without a meaning here. All figures but ``frames``,
    ``ended`` (connections that the server has ended) and ``per_second`` should be 0; what is behind one that is not
    is printed.
    """
    run = Attack(seed)
    before, begun = find_resident_bytes(), time.perf_counter()
    run.run(frames)
    seconds = time.perf_counter() - begun
    faults = run.ledger.faults
    for what, times in faults.most_common():
        print(f"{times} x {what}\n{run.ledger.examples[what][:LONGEST_EXAMPLE]}\n", file=sys.stderr)
    return {
        "frames": run.n_frames,
        "ended": run.n_ends,
        "crashes": sum(count for what, count in faults.items() if what.startswith(("crash", "defect"))),
        "other_faults": sum(count for what, count in faults.items() if not what.startswith(("crash", "defect"))),
        "memory_growth_mb": max(0.0, (find_resident_bytes() - before) / 1e6),
        "per_second": run.n_frames / seconds,
    }
