"""A client process: keeps requests in flight, holds every answer against its own, and counts what comes twice.

`traffic` starts it with its orders as JSON. It says "ready" in a line, works until its time is over or its standard
input is closed, takes in what is still under way, and ends with its findings in a line of JSON.
"""

from __future__ import annotations

import json
import select
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from fragile import Steady

import demos_hpc
from demos_hpc.calling import call
from demos_hpc.connection import Connection
from demos_hpc.errors import DemosError
from demos_hpc.future import Future
from demos_hpc.messages import Kind
from demos_hpc.transport import Arrival
from demos_hpc.wire import Frame


@dataclass(frozen=True)
class Orders:
    """What a caller is to do."""

    server: str
    seed: int
    #: Seconds to go on for; it may be told to stop before.
    seconds: float = 3600.0
    transport: str = "auto"
    in_flight: int = 4
    #: Rows of the largest requests; sizes are spread evenly over their logarithm.
    largest: int = 100_000
    #: What each row costs a worker, seconds.
    nap: float = 0.0
    #: Different requests, whose answers are computed before anything is asked.
    prepared: int = 24
    timeout: float = 120.0
    reconnect: bool = False


@dataclass
class Findings:
    """How it went."""

    completed: int = 0
    rows: int = 0
    wrong: int = 0
    #: Requests that were not answered.
    lost: int = 0
    #: Frames with rows, or ends of answers, that had come before.
    duplicated: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    #: When the first request was lost, on the monotonic clock, which is the same in all processes of a host.
    lost_at: float | None = None
    seconds: float = 0.0
    #: Seconds from asking to the answer: median, 99th percentile and worst.
    latency: list[float] = field(default_factory=list)


class Tally(deque[Arrival]):
    """What answers wait in, whatever they came by, before each is taken in; notices rows that come twice."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection._arrivals)
        self.duplicated = 0
        self._connection = connection
        self._port: object = None
        self._seen: dict[int, np.ndarray] = {}
        connection._arrivals = self

    def popleft(self) -> Arrival:
        link, arrived = super().popleft()
        if isinstance(arrived, Frame):
            self._look_at(arrived)
        return link, arrived

    def _look_at(self, frame: Frame) -> None:
        header = frame.header
        if header.kind == Kind.REPLY and header.id:
            if self._connection._port is not self._port:  # another server begins anew
                self._port = self._connection._port
                self._seen.clear()
            self._count(frame, self._connection._futures.get(header.id))

    def _count(self, frame: Frame, future: Future | None) -> None:
        first = frame.header.first_row
        if future is None:
            self.duplicated += 1
        elif future.widths and not frame.header.status and frame.layout.shapes and frame.layout.shapes[0]:
            seen = self._seen.setdefault(future.id, np.zeros(future.n_units, dtype=bool))
            rows = slice(first, first + frame.layout.shapes[0][0])
            self.duplicated += bool(seen[rows].any())
            seen[rows] = True
            if seen.all():
                del self._seen[future.id]


class Question:
    """One request, and what its answer has to be."""

    def __init__(self, rng: np.random.Generator, orders: Orders, local: demos_hpc.RemoteModel) -> None:
        self.n = int(np.exp(rng.uniform(0.0, np.log(orders.largest + 0.99))))
        self._params = np.array([rng.normal(), rng.normal(), orders.nap])
        self._seed = int(rng.integers(2**63))
        self._x = rng.normal(size=(self.n, 2))
        self._kind = str(rng.choice(["log_density", "log_likelihood", "sample"]))
        self._expected = self.ask(local.submit).result()

    def ask(self, submit: Any) -> Future:
        future: Future
        if self._kind == "sample":
            future = submit.sample(self.n, self._params, seed=self._seed)
        else:
            future = getattr(submit, self._kind)(self._x, self._params)
        return future

    def is_answered_by(self, answer: Any) -> bool:
        """Whether the answer is the same to the last bit."""
        return np.asarray(answer).tobytes() == np.asarray(self._expected).tobytes()


def work(orders: Orders, model: demos_hpc.RemoteModel, is_told: Callable[[], bool]) -> Findings:
    """Asks, until the time is over, ``is_told()``, or the server is lost."""
    rng = np.random.default_rng(orders.seed)
    local = demos_hpc.local(Steady())
    questions = [Question(rng, orders, local) for _ in range(orders.prepared)]
    tally = Tally(model._connection)
    findings, errors = Findings(), Counter[str]()
    spent: list[float] = []
    under_way: list[tuple[Question, Future, float]] = []
    print("ready", flush=True)
    begin = time.monotonic()
    is_over = False
    while not is_over or under_way:
        is_over = is_over or time.monotonic() - begin > orders.seconds or is_told()
        if not is_over and len(under_way) < orders.in_flight:
            question = questions[rng.integers(len(questions))]
            try:
                under_way.append((question, question.ask(model.submit), time.monotonic()))
            except DemosError as error:
                _note_lost(findings, errors, error)
                is_over = True
            continue
        if not under_way:
            continue
        question, future, asked = under_way.pop(0)
        try:
            answer = future.result()
        except DemosError as error:
            _note_lost(findings, errors, error)
            is_over = True
            continue
        spent.append(time.monotonic() - asked)
        findings.completed += 1
        findings.rows += question.n
        findings.wrong += not question.is_answered_by(answer)
    findings.seconds = time.monotonic() - begin
    findings.duplicated, findings.errors = tally.duplicated, dict(errors)
    if spent:
        findings.latency = [float(q) for q in np.quantile(spent, [0.5, 0.99, 1.0])]
    return findings


def _note_lost(findings: Findings, errors: Counter[str], error: DemosError) -> None:
    findings.lost += 1
    errors[f"{type(error).__name__}: {error}"[:200]] += 1
    if findings.lost_at is None:
        findings.lost_at = time.monotonic()


def main() -> None:
    orders = Orders(**json.loads(sys.argv[1]))
    config = demos_hpc.Config.load().changed(timeout=orders.timeout)
    with call(orders.server, config, transport=orders.transport, reconnect=orders.reconnect) as model:
        findings = work(orders, model, lambda: bool(select.select([0], [], [], 0)[0]))
    print(json.dumps(asdict(findings)), flush=True)


if __name__ == "__main__":
    main()
