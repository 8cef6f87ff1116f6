"""``submit`` and ``scale``: servers, workers and analyses as jobs of Slurm."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from .. import slurm
from ..config import Config
from ..endpoint import Endpoint, check_name
from ..errors import InvalidInput, LaunchError
from ..logs import warn
from ..model_paths import BUNDLED, find, find_absolute
from ..registry import Registry
from ..slurm_plan import (
    DISPATCHER_MB,
    PREFIX,
    Analyzing,
    Serving,
    Together,
    Wishes,
    read_megabytes,
    read_minutes,
    share,
)
from ..starter import check_model
from ..survey import look, survey
from .group import WithScript
from .jobs import (
    Account,
    DryRun,
    Extra,
    Gpus,
    Image,
    Json,
    Memory,
    NoWait,
    Partition,
    Qos,
    Ranks,
    Threads,
    Time,
    Workers,
    check_script,
    find_image,
    find_log,
    find_site,
    hand_in,
)
from .launches import Model
from .operators import open_registry
from .output import print_json
from .quantities import format_number_of

#: Seconds between two looks at a registry, and at Slurm's queue.
LOOK, GLANCE = 0.1, 1.0
#: Seconds that a door is given.
PATIENCE = 5.0
#: The label of an image that has what its model needs, as JSON.
RESOURCES_LABEL = "org.demos-hpc.model.resources"
#: Where a site's settings are, unless DEMOS_SITE says otherwise.
SITES = ("~/.demos-hpc/site.sh", "/etc/demos-hpc/site.sh")


submit = typer.Typer(
    name="submit",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Hand servers, workers and analyses to Slurm.",
)


def register(app: typer.Typer) -> None:
    submit.command(name="serve")(submit_server)
    submit.command(name="analyse", cls=Scripted)(submit_analysis)
    app.add_typer(submit)


class Scripted(WithScript):
    """A command whose first argument is a script already."""

    nth = 1


# ---- submit serve --------------------------------------------------------------------------------------------------


def submit_server(
    model: Model,
    workers: Workers = 2,
    nodes: Annotated[int, typer.Option("--nodes", "-N", min=1, metavar="K", help="That the workers spread over.")] = 1,
    time_: Time = "60",
    partition: Partition = "",
    account: Account = "",
    qos: Qos = "",
    memory: Memory = "",
    gpus: Gpus = None,
    threads: Threads = 0,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What it is called; else as the model.")] = "",
    image: Image = "",
    requeue: Annotated[
        bool, typer.Option("--requeue", help="Begin again, under the same name, when time or a node is lost.")
    ] = False,
    script: Annotated[
        str, typer.Option("--analyse", metavar="SCRIPT", help="An analysis in the same allocation and MPI world.")
    ] = "",
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[-- ARGUMENTS]", help="Of that script.", show_default=False)
    ] = None,
    ranks: Ranks = 1,
    wait: Annotated[bool, typer.Option("--wait", help="Until that analysis has ended; exit as it does.")] = False,
    extra: Extra = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    no_wait: NoWait = False,
) -> None:
    """Serve a model in a job, and wait until it answers.

    It ends with its time, with `demos-hpc stop NAME`, or with scancel; a minute before its time is over it takes
    nothing new and finishes what runs. Clients of any job find it by its name.

    demos-hpc submit serve nu_atm --workers 8 --nodes 2 --time 2:00:00

    demos-hpc submit serve nu_atm --workers 8 --analyse fit.py
    """
    resources = read_resources(model, image)
    memory_mb = read_megabytes(memory) if memory else int(resources.get("memory_mb", 0))
    gpus = int(resources.get("gpus", 0)) if gpus is None else gpus
    threads = threads or int(resources.get("threads", 1))
    common: dict[str, Any] = {
        "minutes": read_minutes(time_), "partition": partition, "account": account, "qos": qos, "gpus": gpus,
        "extra": tuple(extra or ()), "nodes": nodes,
    }  # fmt: skip
    registry, config = open_registry()
    if script:
        check_script(script)
        if image:
            raise InvalidInput(
                "--image and --analyse: one MPI world in which servers are in an image is started by hand (mpiexec -n 3"
                " demos-hpc image run …); or submit the server with --image, and the analysis by itself"
            )
        wishes = Wishes(cpus=threads, memory_mb=memory_mb * -(-(workers + 1 + ranks) // nodes), **common)
        place = (find_absolute(model),), (workers,), str(Path(script).resolve()), tuple(arguments or ())
        world = Together(*place, wishes, ranks, find_site())
        id_ = hand_in(world, dry_run=dry_run, as_json=as_json)
        if wait and not dry_run:
            raise typer.Exit(wait_for_end(id_, find_log(world, id_)))
        return
    name = name or choose_name(model, registry)
    check_name(name)
    shares = share(workers, nodes)
    cpus = max([shares[0] * threads + 1, *(n * threads for n in shares[1:])])
    memory_node = max(shares) * memory_mb + DISPATCHER_MB if memory_mb else 0
    wishes = Wishes(cpus=cpus, memory_mb=memory_node, **common)
    path = model if image else find_absolute(model)
    job = Serving(path, name, shares, wishes, threads, find_image(image), requeue, find_site(), memory_mb)
    if not dry_run:
        refuse_name_in_use(name, registry, config)
    id_ = hand_in(job, dry_run=dry_run, as_json=as_json and no_wait, server=name)
    if dry_run or no_wait:
        return
    endpoint = wait_for_door(id_, name, registry, config, find_log(job, id_))
    if as_json:
        print_json({"job": id_, "log": str(find_log(job, id_)), **endpoint.to_dict()})
        return
    typer.echo(
        f"server {name!r} answers: job {id_} on {endpoint.hostname}, {format_number_of(endpoint.workers, 'worker')}\n"
        f"  call it      demos_hpc.connect({name!r})   with DEMOS_REGISTRY={registry.directory}\n"
        f"  analyse      demos-hpc submit analyse fit.py\n"
        f"  look         demos-hpc top {name}\n"
        f"  scale        demos-hpc scale {name} --workers {2 * workers}\n"
        f"  end          demos-hpc stop {name}"
    )


def read_resources(model: str, image: str) -> dict[str, Any]:
    """What the model says that it needs, in the image's labels or as it is loaded here."""
    if image:
        from .. import containers

        text = containers.read_labels(Path(find_image(image))).get(RESOURCES_LABEL, "{}")
        with contextlib.suppress(ValueError):
            return dict(json.loads(text))
        raise InvalidInput(f"label {RESOURCES_LABEL} of {image} is no JSON: build the image again")
    check_model(model)
    from ..model import load

    try:
        return dict(load(model).spec.resources)
    except Exception as error:  # it may want what only the nodes have: a GPU, a licence
        warn(f"model {model} cannot be asked here for what it needs ({error}); say it by --mem-per-worker and --gpus")
        return {}


def choose_name(model: str, registry: Registry) -> str:
    return registry.choose_name(model if model in BUNDLED else find(model)[1])


def refuse_name_in_use(name: str, registry: Registry, config: Config) -> None:
    """`InvalidInput` where a server that lives, or a job that waits or runs, has this name."""
    remedy = f"choose another by --name, or end that one by `demos-hpc stop {name}`"
    same = [endpoint for endpoint in registry.list()[0] if endpoint.name == name]
    for sighting in survey(same, config):
        if sighting.state != "dead":
            user, host = sighting.endpoint.user, sighting.endpoint.hostname
            raise InvalidInput(f"there is a server {name!r} already, of {user} on {host}: {remedy}")
    for job in slurm.list_jobs(PREFIX + name):
        raise InvalidInput(
            f"job {job.id} of {job.user} is to serve as {name!r} ({job.state.lower()}): choose another by --name, or"
            f" end that one by `scancel {job.id}`"
        )


def wait_for_door(id_: str, name: str, registry: Registry, config: Config, log: Path) -> Endpoint:
    """The server of a job, once it answers with a worker at least; `LaunchError` where the job ends before."""
    next_look, state = 0.0, "submitted"
    with Console(stderr=True).status(f"job {id_}: {state} …") as status:
        while True:
            for endpoint in registry.find(name):
                if endpoint.name == name and endpoint.job == id_ and endpoint.state == "ready":
                    sighting = look(endpoint, config, seconds=PATIENCE)
                    if sighting.state == "ready":
                        return sighting.endpoint
            if time.monotonic() >= next_look:
                job = slurm.find_job(id_)
                if job is None or job.state not in slurm.LIVING:
                    ended = "is gone" if job is None else f"ended as {job.state} ({job.reason})"
                    text = slurm.read_end(log)
                    said = f"; the end of {log}:\n{text}" if text else f"; {log} is empty"
                    remedy = slurm.ENDS.get(job.state, "") if job else ""
                    raise LaunchError(
                        f"job {id_} {ended} before its server answered{f': {remedy}' if remedy else ''}{said}"
                    )
                why = f" ({job.reason})" if job.state == "PENDING" else ", its door is not open yet"
                status.update(f"job {id_}: {job.state.lower()}{why} … Ctrl-C leaves it there, `scancel {id_}` ends it")
                next_look = time.monotonic() + GLANCE
            time.sleep(LOOK)


# ---- submit analyse ------------------------------------------------------------------------------------------------


def wait_for_end(id_: str, log: Path) -> int:
    """Shows what a job has written once it has ended; returns its exit status."""
    with Console(stderr=True).status(f"job {id_} …") as status:
        while (job := slurm.find_job(id_)) is not None and job.state in slurm.LIVING:
            status.update(f"job {id_}: {job.state.lower()}{f' ({job.reason})' if job.state == 'PENDING' else ''} …")
            time.sleep(GLANCE)
    with contextlib.suppress(OSError):
        typer.echo(log.read_text(encoding="utf-8", errors="replace"), nl=False)
    if job is None or job.state == "COMPLETED":
        return 0
    code, _, number = slurm.show_job(id_).get("ExitCode", "1:0").partition(":")
    typer.echo(f"demos-hpc: job {id_} ended as {job.state} ({job.reason})", err=True)
    return int(code) or 128 * (number != "0") + int(number or 0) or 1


def submit_analysis(
    script: Annotated[str, typer.Argument(metavar="SCRIPT", help="A script that calls models.", show_default=False)],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="ARGUMENTS", help="Of the script.", show_default=False)
    ] = None,
    ranks: Ranks = 1,
    time_: Time = "60",
    partition: Partition = "",
    account: Account = "",
    qos: Qos = "",
    memory: Annotated[str, typer.Option("--mem", metavar="SIZE", help="Of all ranks on a node.")] = "",
    extra: Extra = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until it has ended; exit as it does.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Run an analysis in a job: a script that connects to servers by their names.

    demos-hpc submit analyse fit.py --steps 1000
    """
    check_script(script)
    wishes = Wishes(
        minutes=read_minutes(time_),
        partition=partition,
        account=account,
        qos=qos,
        memory_mb=read_megabytes(memory) if memory else 0,
        extra=tuple(extra or ()),
    )
    job = Analyzing(str(Path(script).resolve()), tuple(arguments or ()), wishes, ranks, find_site())
    id_ = hand_in(job, dry_run=dry_run, as_json=as_json)
    if wait and not dry_run:
        raise typer.Exit(wait_for_end(id_, find_log(job, id_)))
