"""The service in one process, as `demos_hpc.local` builds it, with all of its parts at hand.

A test may stop the clock, move one part without the others, and let a peer say what no client of ours would.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from demos_hpc.accounts import Accounts
from demos_hpc.client import RemoteModel
from demos_hpc.config import Config
from demos_hpc.connection import Connection
from demos_hpc.dispatcher import Dispatcher
from demos_hpc.errors import DemosError
from demos_hpc.messages import Array, Failure, Flag, Kind, Operation, from_json
from demos_hpc.model import LoadedModel
from demos_hpc.peers import Person
from demos_hpc.transport.loopback import LoopbackPort, make_pair
from demos_hpc.wire import Frame, Packed, pack, read_header
from demos_hpc.worker import Worker

#: Turns after which something that needs so many will never come.
MANY_TURNS = 2000


class Peer:
    """A process that speaks frames to a dispatcher, good ones or bad ones."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._port = LoopbackPort(service.turn)
        self.there, self.link = make_pair(service.port, self._port, ("dispatcher", "peer"))

    def send(self, message: Packed | bytes) -> None:
        self.link.send(Packed(bytearray(message), ()) if isinstance(message, bytes) else message)

    def receive(self) -> list[Frame]:
        """What has arrived, without a turn for anybody."""
        frames = []
        for _, arrived in self._port.receive():
            assert isinstance(arrived, Frame), arrived
            frames.append(arrived)
        return frames

    def ask(self, message: Packed | bytes, n_frames: int = 1) -> list[Frame]:
        """Sends, and lets the service work until so many frames have come back."""
        self.send(message)
        frames = self.receive()
        for _ in range(MANY_TURNS):
            if len(frames) >= n_frames:
                break
            self._service.turn()
            frames += self.receive()
        return frames

    def ask_rows(self, message: Packed) -> Array:
        """Sends a request and waits for its answer."""
        self.send(message)
        header = read_header(message.head)
        return self.collect(header.id, header.n_rows)

    def collect(self, id_: int, n_rows: int) -> Array:
        """The first array of the answer to a request, in however many parts it comes; of others nothing may come."""
        rows = np.full(n_rows, np.nan)
        for _ in range(MANY_TURNS):
            self._service.turn()
            for frame in self.receive():
                assert (frame.header.id, frame.header.status) == (id_, 0), frame.arrays
                rows[frame.header.first_row :][: len(frame.arrays[0])] = frame.arrays[0]
                if frame.header.flags & Flag.FINAL:
                    return rows
        raise AssertionError(f"no final reply to request {id_}")

    def ask_one(self, message: Packed | bytes) -> Frame:
        (frame,) = self.ask(message)
        return frame


class Service:
    """A dispatcher and its workers; the i-th worker has the i-th model, the last one's if there are fewer models."""

    def __init__(
        self,
        *models: Any,
        workers: int = 1,
        config: Config | None = None,
        clock: Callable[[], float] = time.monotonic,
        n_offers: int | None = None,
        accounts: Accounts | None = None,
    ) -> None:
        self.config = config or Config(timeout=10.0)
        self.port = LoopbackPort()
        n_offers = workers if n_offers is None else n_offers
        self.dispatcher = Dispatcher(self.port, self.config, n_offers, clock, accounts)
        self.workers: list[Worker] = []
        for nth in range(workers):
            self.add_worker(models[min(nth, len(models) - 1)])

    def add_worker(self, model: Any) -> Worker:
        """A further worker; ``model`` is an instance, or the error that its loading raises."""

        def load() -> LoadedModel:
            if isinstance(model, DemosError):
                raise model
            return LoadedModel(model)

        name = f"worker {len(self.workers)}"
        port = LoopbackPort()
        there, here = make_pair(self.port, port, ("dispatcher", name))
        self.dispatcher.add_worker(there, Person(""))
        worker = Worker(name, port, here, config=self.config)
        worker.offer(load, "the arithmetic of this process")
        self.workers.append(worker)
        return worker

    def turn(self) -> None:
        self.dispatcher.step()
        for worker in self.workers:
            worker.step()
        self.dispatcher.step()

    def connect(self, name: str | None = None, user: str = "ada") -> RemoteModel:
        port = LoopbackPort(self.turn)
        there, here = make_pair(self.port, port, ("dispatcher", "client"))
        self.dispatcher.add_client(there, Person(user))
        connection = Connection(port, here, self.config)
        question = {} if name is None else {"model": name}
        return RemoteModel(connection, connection.ask(Operation.METADATA, question).result())

    def add_peer(self, user: str = "eve") -> Peer:
        """A client that says what the test wants."""
        peer = Peer(self)
        self.dispatcher.add_client(peer.there, Person(user))
        return peer

    def add_false_worker(self) -> Peer:
        """A worker that says what the test wants."""
        peer = Peer(self)
        self.dispatcher.add_worker(peer.there, Person(""))
        return peer


def make_request(operation: Operation, arrays: Sequence[Any] = (), **fields: int) -> Packed:
    """A REQUEST for the only model; it has as many rows as the first array unless ``n_rows`` is given."""
    if "n_rows" not in fields:
        fields["n_rows"] = len(arrays[0]) if arrays else 1
    fields = {"id": 1, "model": 1, **fields}
    return pack(Kind.REQUEST, arrays, operation=operation, **fields)


def read_error(frame: Frame) -> DemosError:
    """The error that a final REPLY or RESULT carries."""
    assert frame.header.status, f"no error: {frame.header}"
    return Failure.from_dict(from_json(frame.arrays[0])).to_exception()
