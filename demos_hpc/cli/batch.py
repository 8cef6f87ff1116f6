"""``submit`` and ``scale``: servers, workers and analyses as jobs of Slurm."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .. import slurm
from ..config import Config
from ..endpoint import Endpoint, check_name
from ..errors import InvalidInput, LaunchError
from ..image_labels import OURS
from ..logs import warn
from ..model_paths import BUNDLED, find, find_absolute
from ..needs import Needs, Wanted, add_licenses, arrange, read_needs, spread
from ..registry import Registry
from ..slurm_plan import (
    OPENING,
    PREFIX,
    Analyzing,
    Serving,
    Together,
    Wishes,
    read_megabytes,
    read_minutes,
)
from ..starter import check_model
from ..survey import look, survey
from .confining import Subject, find_subjects
from .group import WithScript
from .jobs import (
    Account,
    DryRun,
    Extra,
    Json,
    NoWait,
    Partition,
    Qos,
    Ranks,
    Time,
    check_script,
    find_image,
    find_log,
    find_site,
    hand_in,
)
from .launches import Also, Images, Model
from .operators import open_registry
from .output import print_json
from .quantities import format_number_of

#: Seconds between two looks at a registry, and at Slurm's queue.
LOOK, GLANCE = 0.1, 1.0
#: More than any machine has.
MOST_NODES = 1_000_000
#: Seconds that a door is given.
PATIENCE = 5.0
#: Labels of an image: what its model needs, as JSON, and its name.
RESOURCES_LABEL, NAME_LABEL = f"{OURS}model.resources", f"{OURS}model.name"


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
    also: Also = None,
    workers: Annotated[
        list[int] | None, typer.Option("--workers", "-w", min=1, metavar="N", help="Of a model, on all its nodes; 2.")
    ] = None,
    nodes: Annotated[
        list[int] | None,
        typer.Option("--nodes", "-N", min=1, max=MOST_NODES, metavar="K", help="That its workers spread over; 1."),
    ] = None,
    time_: Time = "60",
    partition: Annotated[
        list[str] | None,
        typer.Option("--partition", "-p", metavar="NAME", help="Of Slurm's; its default if left out."),
    ] = None,
    account: Account = "",
    qos: Qos = "",
    memory: Annotated[
        list[str] | None,
        typer.Option("--mem-per-worker", metavar="SIZE", help="500M, 2G; else what the model says."),
    ] = None,
    gpus: Annotated[
        list[int] | None, typer.Option("--gpus", min=0, metavar="N", help="On each node; else what the model says.")
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option("--threads", min=1, metavar="N", help="Of a worker; else what the model says.")
    ] = None,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What it is called; else as the model.")] = "",
    image: Images = None,
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
    """Serve models in a job, and wait until it answers.

    It ends with its time, with `demos-hpc stop NAME`, or with scancel; a minute before its time is over it takes
    nothing new and finishes what runs. Clients of any job find it by its name.

    Of several models, each has its own --workers, --nodes, --partition, --gpus, --mem-per-worker, --threads and
    --image, in the order of the models; what is given once is for all. Models that want the same nodes, partition and
    GPUs share nodes; others make it a heterogeneous job.

    demos-hpc submit serve nu_atm --workers 8 --nodes 2 --time 2:00:00

    demos-hpc submit serve peak.sif --workers 4

    demos-hpc submit serve flux.py:Flux --model shower.py:OnGpu --workers 4 --workers 1 --gpus 0 --gpus 1

    demos-hpc submit serve nu_atm --workers 8 --analyse fit.py
    """
    registry, config = open_registry()
    subjects = find_subjects([model, *(also or [])], image or [])
    count, images = len(subjects), [find_image(each.image) for each in subjects]
    columns = (
        subjects,
        images,
        spread(workers or [], count, 2, "--workers"),
        spread(threads or [], count, 0, "--threads"),
        spread([read_megabytes(size) for size in memory or []], count, 0, "--mem-per-worker"),
        spread(gpus or [], count, -1, "--gpus"),
        spread(nodes or [], count, 1, "--nodes"),
        spread(partition or [], count, "", "--partition"),
        [read_resources(each) for each in subjects],
    )
    wanted = [
        Wanted(
            each.model if each.image else find_absolute(each.model),
            n,
            replace(
                needs,
                threads=n_threads or needs.threads,
                memory_mb=megabytes or needs.memory_mb,
                gpus=needs.gpus if n_gpus < 0 else n_gpus,
            ),
            inside,
            n_nodes,
            where,
        )
        for each, inside, n, n_threads, megabytes, n_gpus, n_nodes, where, needs in zip(*columns, strict=True)
    ]
    if count > len(set(wanted)):
        raise InvalidInput("a model is named twice, with the same needs: name it once, and give it more --workers")
    common = Wishes(minutes=read_minutes(time_), account=account, qos=qos, extra=tuple(extra or ()))
    if script:
        check_script(script)
        world = join_all(wanted, common, str(Path(script).resolve()), arguments or [], ranks)
        id_ = hand_in(world, dry_run=dry_run, as_json=as_json)
        if wait and not dry_run:
            raise typer.Exit(wait_for_end(id_, find_log(world, id_)))
        return
    if wait or ranks > 1 or arguments:
        raise InvalidInput("--wait, --ranks and arguments are of an analysis in this job: name it by --analyse SCRIPT")
    name = name or choose_name(subjects[0], registry)
    check_name(name)
    job = Serving(name, arrange(wanted, common), requeue, find_site())
    if not dry_run:
        refuse_name_in_use(name, registry, config)
    id_ = hand_in(job, dry_run=dry_run, as_json=as_json and no_wait, server=name)
    if dry_run or no_wait:
        return
    log = find_log(job, id_)
    try:
        endpoint = wait_for_door(id_, name, len({each.model for each in wanted}), registry, config, log)
    except KeyboardInterrupt:
        typer.echo(f"demos-hpc: job {id_} stays; `scancel {id_}` ends it", err=True)
        raise
    if as_json:
        print_json({"job": id_, "log": str(log), **endpoint.to_dict()})
        return
    ways = [name] if count == 1 else [str(each["name"]) for each in endpoint.models]
    calls = ", ".join(f"demos_hpc.connect({way!r})" for way in ways)
    typer.echo(
        f"server {name!r} answers: job {id_} on {endpoint.hostname}, {format_number_of(endpoint.workers, 'worker')}\n"
        f"  call it      {calls}   with DEMOS_REGISTRY={registry.directory}\n"
        f"  analyse      demos-hpc submit analyse fit.py\n"
        f"  look         demos-hpc top {name}\n"
        f"  scale        demos-hpc scale {name} --workers {2 * sum(each.workers for each in wanted)}\n"
        f"  end          demos-hpc stop {name}"
    )


def join_all(wanted: Sequence[Wanted], common: Wishes, script: str, arguments: Sequence[str], ranks: int) -> Together:
    """Servers and an analysis as one MPI world, whose ranks Slurm spreads over nodes that are alike."""
    if len({(each.nodes, each.partition, each.needs.gpus) for each in wanted}) > 1:
        raise InvalidInput(
            "--analyse makes one MPI world of nodes that are alike: say --nodes, --partition and --gpus once for all"
            " models, or submit the server and the analysis by themselves"
        )
    first, nodes = wanted[0], wanted[0].nodes
    # As in `arrange`: where nobody says what one of them takes, the site's own memory is for all.
    memory = [each.needs.memory_mb for each in wanted]
    most = max(memory) if all(memory) else 0
    wishes = replace(
        common,
        nodes=nodes,
        cpus=max(each.needs.threads for each in wanted),
        memory_mb=most * -(-(sum(each.workers for each in wanted) + 1 + ranks) // nodes),
        gpus=first.needs.gpus,
        partition=first.partition,
        licenses=add_licenses(wanted),
    )
    return Together(
        tuple(each.model for each in wanted),
        tuple(each.workers for each in wanted),
        script,
        tuple(arguments),
        wishes,
        ranks,
        tuple(each.image for each in wanted),
        find_site(),
    )


def read_resources(subject: Subject) -> Needs:
    """What the model says that it needs, in the image's labels or as it is loaded here."""
    if subject.image:
        resources: object = None
        with contextlib.suppress(ValueError):
            resources = json.loads(subject.labels.get(RESOURCES_LABEL, "{}"))
        if isinstance(resources, dict):
            return read_needs(resources, subject.image)
        raise InvalidInput(f"label {RESOURCES_LABEL} of {subject.image} is no JSON object: build the image again")
    check_model(subject.model)
    from ..model import load

    try:
        resources = load(subject.model).spec.resources
    except Exception as error:  # it may want what only the nodes have: a GPU, a license
        warn(
            f"model {subject.model} cannot be asked here for what it needs ({error}); say it by --mem-per-worker and"
            " --gpus"
        )
        return Needs()
    return read_needs(resources, f"model {subject.model}")


def choose_name(subject: Subject, registry: Registry) -> str:
    model = subject.model
    return registry.choose_name(subject.labels.get(NAME_LABEL) or (model if model in BUNDLED else find(model)[1]))


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


def wait_for_door(id_: str, name: str, n_models: int, registry: Registry, config: Config, log: Path) -> Endpoint:
    """The server of a job, once it answers with a worker of each model; `LaunchError` where the job ends before."""
    next_look, state, opened = 0.0, "submitted", 0.0
    with Console(stderr=True).status(f"job {id_}: {state} …") as status:
        while True:
            for endpoint in registry.find(name):
                if endpoint.name == name and endpoint.job == id_ and endpoint.state == "ready":
                    sighting = look(endpoint, config, seconds=PATIENCE)
                    if sighting.state == "ready" and len(sighting.endpoint.models) >= n_models:
                        return sighting.endpoint
                    opened = opened or time.monotonic()
                    if time.monotonic() - opened > OPENING:
                        there = ", ".join(str(each["name"]) for each in sighting.endpoint.models)
                        raise LaunchError(
                            f"server {name!r} answers, with {there or 'no model'} and not all {n_models} models, for"
                            f" {OPENING} s now: `scancel {id_}` ends it; the end of {log}:\n{slurm.read_end(log)}"
                        )
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
                missing = "not all models are there yet" if opened else "its door is not open yet"
                why = f" ({job.reason})" if job.state == "PENDING" else f", {missing}"
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
