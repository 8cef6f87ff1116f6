"""How many workers one dispatcher can feed: the real scheduler under a virtual clock.

    python benchmarks/simulate.py [--quick] [--plot FILE.png]

The scheduler is the one that the dispatcher runs; only the clock, the messages and the models are simulated. The
dispatcher does one thing after another: each message that arrives keeps it busy for ``--handling`` and for the CPU
time that the scheduler really took over it, measured as the simulation runs; messages that arrive meanwhile wait.
Efficiency is time inside the model / (workers x wall time), from the arrival of the requests to the last reply, so
that start and end count.

Payload is not simulated: ``--handling`` is that of small frames, as where data are resident or drawn by the workers.
Rows that travel keep the dispatcher busy in proportion; give their cost per chunk instead.

Two cases. *Given chunks*: one unit of work is one chunk, as where a single row takes that long. *Rows of 1 ms*:
the scheduler cuts as it sees fit (`demos_hpc.queues`). Replicas are dispatchers of their own, each with its share of
workers and of the rows; as they are alike and know nothing of one another, a few are simulated in place of all, with
different random durations, and the slowest sets the wall time.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import math
import random
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from harness import print_table, report

from demos_hpc.errors import Status
from demos_hpc.events import ClientJoined, RequestArrived, ResultArrived, SendChunk, SendFailure, SendPart, WorkerJoined
from demos_hpc.scheduler import Limits, Scheduler

CHUNK_SECONDS = (0.02, 0.2, 2.0)
WORKERS = (100, 300, 1000, 3000, 10_000)
ROW_SECONDS = 1e-3
REPLICAS, REPLICA_WORKERS = 100, 1000
#: Analyses that call at once, and their users.
CLIENTS, USERS = 8, 2
WANTED = 0.9


class Costs(NamedTuple):
    """Seconds that are spent around the model."""

    #: The dispatcher's, for a message that arrives and those that it sends on account of it, scheduler apart.
    handling: float
    #: A message's on its way.
    latency: float
    #: A worker's, around each chunk.
    worker: float
    #: Durations of chunks vary uniformly by this fraction, up and down.
    spread: float


class Outcome(NamedTuple):
    """What came of one dispatcher's work."""

    n_workers: int
    n_chunks: int
    wall: float
    #: Inside the model, all workers together.
    model_seconds: float
    #: Of the dispatcher, and of this the scheduler's own.
    dispatcher_seconds: float
    scheduler_seconds: float

    @property
    def efficiency(self) -> float:
        return self.model_seconds / (self.n_workers * self.wall)

    @property
    def load(self) -> float:
        """How much of the wall time the dispatcher is busy."""
        return self.dispatcher_seconds / self.wall

    @property
    def chunk_cost(self) -> float:
        """What one chunk costs the dispatcher, seconds."""
        return self.dispatcher_seconds / self.n_chunks


class Server:
    """A dispatcher and its workers in virtual time."""

    def __init__(self, n_workers: int, costs: Costs, seed: int) -> None:
        self._n_workers = n_workers
        self._costs = costs
        self._random = random.Random(seed)
        self._scheduler = Scheduler(Limits(10**6, 0.02, 0.0))
        self._unit_seconds = 0.0
        self._free_at = [0.0] * n_workers
        # What is on its way to the dispatcher, by time of arrival: worker, chunk, seconds in the model.
        self._arrivals: list[tuple[float, int, int, float]] = []
        self._busy_until = 0.0
        self._dispatcher = self._scheduling = self._model = 0.0
        self._n_chunks = 0
        self._missing: dict[int, int] = {}
        for worker in range(n_workers):
            self._scheduler.handle(WorkerJoined(worker, 0), 0.0)
        for client in range(CLIENTS):
            self._scheduler.handle(ClientJoined(client, f"user {client % USERS}"), 0.0)

    def run(self, unit_seconds: float, units: int, limit: int) -> Outcome:
        """All clients ask for ``units`` together, which come in chunks of at most ``limit``."""
        self._unit_seconds = unit_seconds
        for client in range(CLIENTS):
            share = units // CLIENTS + (client < units % CLIENTS)
            self._missing[client] = share
            self._handle(RequestArrived(client, client, 0, 0, share, share, math.inf, limit=limit), 0.0)
        while self._arrivals:
            arrived, worker, chunk, seconds = heapq.heappop(self._arrivals)
            self._handle(ResultArrived(worker, chunk, Status.OK, seconds), arrived)
        if any(self._missing.values()) or not self._scheduler.is_idle:
            raise AssertionError(f"units without an answer: {self._missing}; {self._scheduler}")
        return Outcome(
            self._n_workers, self._n_chunks, self._busy_until, self._model, self._dispatcher, self._scheduling
        )

    def _handle(self, event: Any, arrived: float) -> None:
        """The dispatcher takes a message as soon as it can; what it sends leaves once it is done."""
        now = max(arrived, self._busy_until)
        begin = time.thread_time_ns()
        actions = self._scheduler.handle(event, now)
        scheduling = (time.thread_time_ns() - begin) * 1e-9
        self._scheduling += scheduling
        self._dispatcher += self._costs.handling + scheduling
        self._busy_until = now + self._costs.handling + scheduling
        for action in actions:
            if isinstance(action, SendChunk):
                self._compute(action)
            elif isinstance(action, SendPart):
                request, _, count = action.part
                self._missing[request] -= count
                if action.final != (self._missing[request] == 0):
                    raise AssertionError(f"{action} with {self._missing[request]} units missing")
            elif isinstance(action, SendFailure):
                raise AssertionError(str(action))

    def _compute(self, chunk: SendChunk) -> None:
        costs = self._costs
        units = sum(part.count for part in chunk.parts)
        seconds = units * self._unit_seconds * (1 + costs.spread * self._random.uniform(-1, 1))
        end = max(self._busy_until + costs.latency, self._free_at[chunk.worker]) + costs.worker + seconds
        self._free_at[chunk.worker] = end
        self._model += seconds
        self._n_chunks += 1
        heapq.heappush(self._arrivals, (end + costs.latency, chunk.worker, chunk.chunk, seconds))


def simulate(n_workers: int, unit_seconds: float, units_each: int, limit: int, costs: Costs, seed: int) -> Outcome:
    """One dispatcher whose workers have ``units_each`` to compute on average."""
    gc.collect()
    gc.disable()  # its pauses would be those of the simulation's own objects
    try:
        return Server(n_workers, costs, seed).run(unit_seconds, n_workers * units_each, limit)
    finally:
        gc.enable()


def simulate_replicas(n_simulated: int, units_each: int, costs: Costs) -> Outcome:
    """A few of many dispatchers that are alike, as one outcome for all."""
    outcomes = [
        simulate(REPLICA_WORKERS, ROW_SECONDS, units_each, 2**63, costs, seed=nth + 1) for nth in range(n_simulated)
    ]
    each = REPLICAS / n_simulated
    return Outcome(
        n_workers=REPLICAS * REPLICA_WORKERS,
        n_chunks=round(each * sum(outcome.n_chunks for outcome in outcomes)),
        wall=max(outcome.wall for outcome in outcomes),
        model_seconds=each * sum(outcome.model_seconds for outcome in outcomes),
        dispatcher_seconds=sum(outcome.dispatcher_seconds for outcome in outcomes) / n_simulated,
        scheduler_seconds=sum(outcome.scheduler_seconds for outcome in outcomes) / n_simulated,
    )


def make_row(title: str, outcome: Outcome, n_dispatchers: int = 1) -> list[str]:
    chunks = outcome.n_chunks / n_dispatchers  # of one dispatcher
    return [
        title,
        f"{outcome.n_workers:,}",
        f"{outcome.efficiency:.3f}",
        f"{outcome.model_seconds / outcome.n_chunks:.3g}",
        f"{outcome.wall:.3g}",
        f"{outcome.load:.3f}",
        f"{outcome.dispatcher_seconds / chunks * 1e6:.1f}",
        f"{outcome.scheduler_seconds / chunks * 1e6:.1f}",
    ]


def draw(path: str, series: dict[str, list[Outcome]], replicas: Outcome) -> None:
    """Efficiency against the number of workers."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for title, outcomes in series.items():
        axes.semilogx([o.n_workers for o in outcomes], [o.efficiency for o in outcomes], marker="o", label=title)
    label = f"rows of 1 ms, {REPLICAS} dispatchers"
    axes.semilogx([replicas.n_workers], [replicas.efficiency], "k*", markersize=12, label=label)
    axes.axhline(WANTED, color="gray", linewidth=0.8, linestyle="--")
    axes.set(xlabel="workers", ylabel="time in the model / (workers x wall time)", ylim=(0, 1.03))
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less work for each worker, so start and end weigh more")
    parser.add_argument("--plot", metavar="FILE.png", help="draw efficiency against workers")
    parser.add_argument(
        "--handling", type=float, default=9.0, help="us for a message in and what follows from it (12 with scheduler)"
    )
    parser.add_argument("--latency", type=float, default=5.0, help="us for a message on its way")
    parser.add_argument("--worker", type=float, default=10.0, help="us of a worker around a chunk")
    parser.add_argument("--spread", type=float, default=0.1, help="durations vary by this fraction")
    options = parser.parse_args(arguments)
    costs = Costs(options.handling * 1e-6, options.latency * 1e-6, options.worker * 1e-6, options.spread)
    chunks_each, row_seconds_each, n_simulated = (12, 30, 2) if options.quick else (30, 60, 4)
    rows_each = round(row_seconds_each / ROW_SECONDS)

    header = [
        "work",
        "workers",
        "efficiency",
        "chunk [s]",
        "wall [s]",
        "dispatcher load",
        "per chunk [us]",
        "scheduler [us]",
    ]
    table: list[list[str]] = []
    figures: dict[str, float] = {}
    series: dict[str, list[Outcome]] = {}
    for seconds in CHUNK_SECONDS:
        title = f"given chunks of {seconds:g} s"
        series[title] = [simulate(n, seconds, chunks_each, 1, costs, seed=n) for n in WORKERS]
        for outcome in series[title]:
            figures[f"efficiency_{outcome.n_workers}_chunk_{round(seconds * 1e3)}ms"] = outcome.efficiency
    title = "rows of 1 ms"
    series[title] = [simulate(n, ROW_SECONDS, rows_each, 2**63, costs, seed=n) for n in WORKERS]
    for outcome in series[title]:
        figures[f"efficiency_{outcome.n_workers}"] = outcome.efficiency
    replicas = simulate_replicas(n_simulated, rows_each, costs)
    figures[f"efficiency_{replicas.n_workers}_replicas"] = replicas.efficiency

    table = [make_row(title, outcome) for title, outcomes in series.items() for outcome in outcomes]
    table.append(make_row(f"the same, {REPLICAS} dispatchers ({n_simulated} simulated)", replicas, REPLICAS))
    print_table(header, table)
    for title, outcomes in series.items():
        fed = [outcome for outcome in outcomes if outcome.efficiency >= WANTED]
        print(f"{title}: {WANTED} or better up to {max((o.n_workers for o in fed), default=0):,} workers")
    largest = series["rows of 1 ms"][-1]
    figures["chunk_cost_us"] = largest.chunk_cost * 1e6
    for seconds in CHUNK_SECONDS:
        feeds = seconds / series[f"given chunks of {seconds:g} s"][2].chunk_cost
        print(f"chunks of {seconds:g} s / what one costs the dispatcher: {feeds:,.0f} workers")
    print()
    if options.plot:
        draw(options.plot, series, replicas)
    report("simulate", figures)


if __name__ == "__main__":
    main()
