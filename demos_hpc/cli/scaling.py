"""``submit workers`` and ``scale``: workers of a server that come and go as jobs of their own."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from .. import slurm
from ..autoscaling import Autoscaler, Look, Policy
from ..cluster import Queued, choose_victims
from ..endpoint import Endpoint
from ..errors import InvalidInput, ServerLost
from ..identity import find_user
from ..job_notes import read_notes
from ..model_paths import find_absolute
from ..needs import Needs
from ..operating import Operator
from ..slurm_plan import (
    LABEL,
    OPENING,
    PREFIX,
    TIME,
    WORKERS,
    Joining,
    Wishes,
    read_megabytes,
    read_minutes,
)
from ..survey import reach
from .batch import read_resources, submit
from .confining import find_subjects
from .jobs import (
    Account,
    DryRun,
    Extra,
    Gpus,
    Image,
    Json,
    Memory,
    Partition,
    Threads,
    Time,
    Workers,
    find_image,
    find_site,
    hand_in,
)
from .operators import Name, open_registry
from .output import print_json
from .quantities import format_number_of

#: Seconds between two looks at a server whose workers go by what waits.
PERIOD = 2.0


def register(app: typer.Typer) -> None:
    submit.command(name="workers")(submit_workers)
    app.command()(scale)


def submit_workers(
    name: Name,
    workers: Workers = 2,
    time_: Time = "",
    partition: Partition = "",
    account: Account = "",
    memory: Memory = "",
    threads: Threads = 0,
    gpus: Gpus = None,
    model: Annotated[
        str,
        typer.Option("--model", metavar="MODEL", help="What to load; else what the server began with."),
    ] = "",
    image: Image = "",
    extra: Extra = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Bring more workers to a server that runs, each a job of its own that may be cancelled.

    demos-hpc submit workers nu_atm --workers 4
    """
    registry, config = open_registry()
    with reach(name, registry, config) as operator:
        kind = Kind(time_, partition, account, memory, threads, tuple(extra or ()), gpus, model, image)
        job = plan_workers(operator.endpoint, workers, kind)
    hand_in(job, dry_run=dry_run, as_json=as_json, server=job.server)


@dataclass(frozen=True)
class Kind:
    """What workers of a server's are like, where that is not as those of its own job."""

    time: str
    partition: str
    account: str
    memory: str
    threads: int
    extra: tuple[str, ...]
    gpus: int | None = None
    model: str = ""
    image: str = ""


def plan_workers(endpoint: Endpoint, workers: int, kind: Kind) -> Joining:
    """Workers like those of the server's own job, unless it is said otherwise; they end when it does."""
    job = slurm.show_job(endpoint.job) if endpoint.job else {}
    notes = read_notes(job.get("Comment", ""))
    needs = Needs(notes.memory_mb, notes.threads, notes.gpus, tuple(filter(None, notes.licenses.split(","))))
    model, image = "", notes.image
    if kind.model or kind.image:
        (subject,) = find_subjects([kind.model or kind.image], [kind.image] if kind.model and kind.image else [])
        image, needs = find_image(subject.image), read_resources(subject)
        model = subject.model if image else find_absolute(subject.model)
    left = max(1, int((endpoint.ends - time.time()) // 60) + 1) if endpoint.ends else TIME
    threads = kind.threads or needs.threads
    wishes = Wishes(
        cpus=threads,
        memory_mb=read_megabytes(kind.memory) if kind.memory else needs.memory_mb,
        minutes=read_minutes(kind.time) if kind.time else left,
        partition=kind.partition or job.get("Partition", ""),
        account=kind.account or job.get("Account", "").replace("(null)", ""),
        gpus=needs.gpus if kind.gpus is None else kind.gpus,
        licenses=needs.licenses,
        extra=kind.extra,
    )
    return Joining(endpoint.name, workers, wishes, threads=threads, model=model, image=image, site=find_site())


def scale(
    name: Name,
    workers: Annotated[int | None, typer.Option("--workers", "-w", min=1, metavar="N", help="In all.")] = None,
    auto: Annotated[bool, typer.Option("--auto", help="Stay, and go by what waits.")] = False,
    least: Annotated[int, typer.Option("--min", min=0, metavar="N", help="With --auto: at least so many.")] = 1,
    most: Annotated[int, typer.Option("--max", min=1, metavar="N", help="With --auto: at most so many.")] = 16,
    wait_seconds: Annotated[
        float, typer.Option("--wait-seconds", metavar="S", help="With --auto: more, where requests wait so long.")
    ] = 10.0,
    idle_seconds: Annotated[
        float, typer.Option("--idle-seconds", metavar="S", help="With --auto: fewer, after so long without work.")
    ] = 60.0,
    cool_down: Annotated[
        float, typer.Option("--cool-down", metavar="S", help="With --auto: between two changes.")
    ] = 30.0,
    time_: Time = "",
    partition: Partition = "",
    account: Account = "",
    memory: Memory = "",
    threads: Threads = 0,
    extra: Extra = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Give a server N workers in all, by submitting jobs of workers, or cancelling some.

    Workers of the server's own job stay as long as it does. Those that are cancelled finish what they compute.

    demos-hpc scale nu_atm --workers 6

    demos-hpc scale nu_atm --auto --min 2 --max 32
    """
    if (workers is None) != auto:
        raise InvalidInput("scale takes either --workers N, or --auto with --min and --max")
    kind = Kind(time_, partition, account, memory, threads, tuple(extra or ()))
    registry, config = open_registry()
    with reach(name, registry, config) as operator:
        if workers is None:
            watch(operator, Autoscaler(Policy(least, most, wait_seconds, idle_seconds, cool_down)), kind)
            return
        change = resize(operator, workers, kind, dry_run=dry_run)
    if as_json:
        print_json(change)
    elif change["cancelled"] or not dry_run:
        typer.echo(describe(change))


def watch(operator: Operator, autoscaler: Autoscaler, kind: Kind) -> None:
    """Changes the number of workers again and again, until the server ends."""
    name = operator.endpoint.name
    typer.echo(f"{name}: its workers go by what waits, until it ends, or Ctrl-C")
    with contextlib.suppress(KeyboardInterrupt, ServerLost):
        while True:
            description = operator.statistics()
            if description["is_stopping"]:
                return
            queue, own = description["queue"], count_own(description, operator.endpoint)
            workers = own + len(list_worker_jobs(name))
            look = Look(workers, queue["backlog_seconds"], queue["oldest_seconds"] or 0.0, queue["length"])
            wanted = max(own, autoscaler.decide(look, time.monotonic()))
            if wanted != workers:
                typer.echo(describe(resize(operator, wanted, kind)))
            time.sleep(PERIOD)


def resize(operator: Operator, workers: int, kind: Kind, *, dry_run: bool = False) -> dict[str, Any]:
    """Submits or cancels jobs of workers; returns what was done."""
    endpoint, own = operator.endpoint, count_own(operator.statistics(), operator.endpoint)
    if workers < own:
        raise InvalidInput(
            f"server {endpoint.name!r} has {own} workers in its own job, which stay: --workers {own} is the least,"
            f" and `demos-hpc stop {endpoint.name}` ends it"
        )
    jobs = list_worker_jobs(endpoint.name)
    missing = workers - own - len(jobs)
    victims = choose_victims(jobs, -missing) if missing < 0 else []
    if victims and not dry_run:
        slurm.cancel(victims)
    id_ = ""
    if missing > 0:
        id_ = hand_in(
            plan_workers(endpoint, missing, kind), dry_run=dry_run, as_json=False, server=endpoint.name, is_told=False
        )
    new = max(0, missing)
    return {"server": endpoint.name, "workers": workers, "own": own, "job": id_, "new": new, "cancelled": victims}


def describe(change: dict[str, Any]) -> str:
    """In a line."""
    if change["cancelled"]:
        leaving = format_number_of(len(change["cancelled"]), "worker")
        ids = ", ".join(change["cancelled"])
        return f"{change['server']}: {leaving} to leave, after what they compute (jobs {ids})"
    if change["new"]:
        return f"{change['server']}: {format_number_of(change['new'], 'worker')} to come with job {change['job']}"
    return f"{change['server']} has {format_number_of(change['workers'], 'worker')} already, those that wait included"


def list_worker_jobs(server: str) -> list[Queued]:
    """This user's jobs of workers, one for each, that wait or run."""
    user = find_user()
    return [job for job in slurm.list_jobs(PREFIX + server + WORKERS) if job.user == user and job.state != "COMPLETING"]


def count_own(description: dict[str, Any], endpoint: Endpoint) -> int:
    """The server's workers that are of no worker job; at first those of its job that are still to come as well."""
    alive = [worker for worker in description["workers"] if worker["is_alive"]]
    own = sum(not str(worker["name"]).startswith(LABEL) for worker in alive)
    if endpoint.job and description["uptime_seconds"] < OPENING:
        own = max(own, read_notes(slurm.show_job(endpoint.job).get("Comment", "")).workers)
    return own
