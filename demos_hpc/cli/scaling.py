"""``submit workers`` and ``scale``: workers of a server that come and go as jobs of their own."""

from __future__ import annotations

import time

import typer

from .. import slurm
from ..cluster import choose_victims
from ..endpoint import Endpoint
from ..errors import InvalidInput
from ..operating import Operator
from ..slurm_plan import PREFIX, WORKERS, Joining, Wishes, read_megabytes, read_minutes
from ..survey import reach
from .batch import submit
from .jobs import Account, DryRun, Extra, Json, Memory, Partition, Threads, Time, Workers, find_site, hand_in
from .operators import Name, open_registry
from .output import print_json
from .quantities import format_number_of


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
    threads: Threads = 1,
    extra: Extra = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Bring more workers to a server that runs, each a job of its own that may be cancelled.

    demos-hpc submit workers nu_atm --workers 4
    """
    registry, config = open_registry()
    with reach(name, registry, config) as operator:
        job = plan_workers(operator.endpoint, workers, time_, partition, account, memory, threads, extra)
    hand_in(job, dry_run=dry_run, as_json=as_json, server=job.server)


def plan_workers(
    endpoint: Endpoint,
    workers: int,
    time_: str,
    partition: str,
    account: str,
    memory: str,
    threads: int,
    extra: list[str] | None,
) -> Joining:
    """Workers like those of the server's own job, unless it is said otherwise; they end when it does."""
    job = slurm.show_job(endpoint.job) if endpoint.job else {}
    comment = job.get("Comment", "")
    left = max(1, int((endpoint.ends - time.time()) // 60) + 1) if endpoint.ends else 60
    wishes = Wishes(
        cpus=threads,
        memory_mb=read_megabytes(memory) if memory else 0,
        minutes=read_minutes(time_) if time_ else left,
        partition=partition or job.get("Partition", ""),
        account=account or job.get("Account", "").replace("(null)", ""),
        extra=tuple(extra or ()),
    )
    image = comment.removeprefix("image=") if comment.startswith("image=") else ""
    return Joining(endpoint.name, workers, wishes, threads=threads, image=image, site=find_site())


def scale(
    name: Name,
    workers: Workers,
    time_: Time = "",
    partition: Partition = "",
    account: Account = "",
    memory: Memory = "",
    threads: Threads = 1,
    extra: Extra = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Give a server N workers in all, by submitting jobs of workers, or cancelling some.

    Workers of the server's own job stay as long as it does. Those that are cancelled finish what they compute.

    demos-hpc scale nu_atm --workers 6
    """
    registry, config = open_registry()
    with reach(name, registry, config) as operator:
        endpoint, own = operator.endpoint, count_own(operator)
        jobs = slurm.list_jobs(PREFIX + endpoint.name + WORKERS)
        missing = workers - own - len(jobs)
        if workers < own:
            raise InvalidInput(
                f"server {endpoint.name!r} has {own} workers in its own job, which stay: --workers {own} is the least,"
                f" and `demos-hpc stop {endpoint.name}` ends it"
            )
        victims = choose_victims(jobs, -missing) if missing < 0 else []
        if not dry_run and victims:
            slurm.cancel(victims)
        id_ = ""
        if missing > 0:
            job = plan_workers(endpoint, missing, time_, partition, account, memory, threads, extra)
            id_ = hand_in(job, dry_run=dry_run, as_json=False, server=endpoint.name)
    if as_json:
        print_json({"server": endpoint.name, "own": own, "jobs": len(jobs) + missing, "job": id_, "cancelled": victims})
    elif not missing:
        typer.echo(f"{endpoint.name} has {format_number_of(workers, 'worker')} already, those that wait included")
    elif victims:
        leaving = format_number_of(len(victims), "worker")
        typer.echo(f"{endpoint.name}: {leaving} told to leave, after what they compute")
    elif not dry_run:
        typer.echo(f"{endpoint.name}: {format_number_of(missing, 'worker')} come with job {id_}")


def count_own(operator: Operator) -> int:
    """The server's workers that are of no worker job."""
    alive = [worker for worker in operator.statistics()["workers"] if worker["is_alive"]]
    return sum(not str(worker["name"]).startswith("slurm.") for worker in alive)
