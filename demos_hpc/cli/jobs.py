"""What commands that hand jobs to Slurm have in common: their options, and the handing in."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from .. import slurm
from ..cluster import check_ranks, check_sum, check_wishes
from ..config import Config
from ..errors import InvalidInput
from ..logs import warn
from ..slurm_plan import Analyzing, Job, Joining, Serving, Site, Together, format_script
from .output import print_json

#: Where a site's settings are, unless DEMOS_SITE says otherwise.
SITES = ("~/.demos-hpc/site.sh", "/etc/demos-hpc/site.sh")

Partition = Annotated[
    str, typer.Option("--partition", "-p", metavar="NAME", help="Of Slurm's; its default if left out.")
]
Account = Annotated[str, typer.Option("--account", "-A", metavar="NAME", help="Who pays.")]
Qos = Annotated[str, typer.Option("--qos", metavar="NAME", help="Slurm's quality of service.")]
Time = Annotated[str, typer.Option("--time", "-t", metavar="T", help="Minutes, HH:MM:SS or D-HH:MM:SS.")]
Extra = Annotated[
    list[str] | None, typer.Option("--extra", metavar="--OPTION=VALUE", help="Any other option of sbatch; repeatable.")
]
Workers = Annotated[int, typer.Option("--workers", "-w", min=1, metavar="N", help="How many to add.")]
Threads = Annotated[
    int, typer.Option("--threads", min=0, metavar="N", help="Of each worker; else what the model says.")
]
Memory = Annotated[str, typer.Option("--mem-per-worker", metavar="SIZE", help="500M, 2G; else what the model says.")]
Image = Annotated[str, typer.Option("--image", metavar="FILE.sif", help="An Apptainer image to run in.")]
Gpus = Annotated[int | None, typer.Option("--gpus", min=0, metavar="N", help="On each node; else what the model says.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the batch script, and submit nothing.")]
Json = Annotated[bool, typer.Option("--json", help="JSON, for scripts.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Return once Slurm has the job.")]
Ranks = Annotated[int, typer.Option("--ranks", "-n", min=1, metavar="M", help="Of the analysis.")]


def find_site() -> Site:
    """The site's settings, this installation's programs, and a directory for logs."""
    told = Config.load().site
    files = [told] if told else [path for path in map(os.path.expanduser, SITES) if Path(path).is_file()]
    if told and not Path(told).is_file():
        raise InvalidInput(f"there is no file {told} (DEMOS_SITE) with the settings of this site")
    return Site(files[0] if files else "", str(Path(sys.executable).parent), str(find_log_directory()))


def find_log_directory() -> Path:
    return Path.home() / ".demos-hpc" / "jobs"


def find_log(job: Job, id_: str) -> Path:
    return Path(job.site.logs) / (f"{id_}_*.log" if isinstance(job, Joining) else f"{id_}.log")


def find_image(image: str) -> str:
    if image and not Path(image).is_file():
        raise InvalidInput(f"there is no image {image} (from {Path.cwd()})")
    if image:
        from .. import containers
        from ..image_policy import SUBMIT, read_policy

        judgment = containers.examine(Path(image), read_policy(Config.load().image_policy), SUBMIT)[2]
        for warning in judgment.warnings:
            warn(warning)
        judgment.enforce()
    return str(Path(image).resolve()) if image else ""


def check_script(script: str) -> None:
    if not Path(script).is_file():
        raise InvalidInput(f"there is no script {script!r} (from {Path.cwd()})")


def hand_in(job: Job, *, dry_run: bool, as_json: bool, server: str = "", is_told: bool = True) -> str:
    """Submits a job, or shows it; returns its id."""
    text = format_script(job)
    if dry_run:
        typer.echo(text, nl=False)
        return ""
    partitions = slurm.list_partitions()
    wanted = [part.wishes for part in job.parts] if isinstance(job, Serving) else [job.wishes]
    for wishes in wanted:
        check_wishes(wishes, partitions)
    check_sum(wanted, partitions, slurm.list_licenses() if any(wishes.licenses for wishes in wanted) else {})
    if isinstance(job, (Analyzing, Together)):
        check_ranks(job.ranks if isinstance(job, Analyzing) else job.n_ranks, job.wishes, partitions)
    try:
        Path(job.site.logs).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(
            f"there is no place for what jobs write, {job.site.logs}: {error.strerror}; make it, or set HOME to a"
            " directory of yours"
        ) from None
    id_ = slurm.submit(text)
    if as_json:
        print_json({"job": id_, "server": server, "log": str(find_log(job, id_))})
    elif is_told:
        typer.echo(f"job {id_}: submitted; it writes to {find_log(job, id_)}", err=True)
    return id_
