"""Slurm's own commands, and what they say: errors are shown as Slurm wrote them, with what can be done about them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from .cluster import QUEUE_FORMAT, Partition, Queued, read_licenses, read_partitions, read_queue
from .errors import LaunchError

#: Seconds for a command of Slurm, which asks again by itself where the controller is busy.
PATIENCE = 120.0
#: States of jobs that can still come to something.
LIVING = ("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD", "STOPPED", "COMPLETING")
#: What Slurm says, and what to do then; the first that fits.
REMEDIES = (
    ("invalid partition", "`sinfo` lists the partitions: name one by --partition"),
    ("invalid account", "`sacctmgr show associations user=$USER` lists your accounts: name one by --account"),
    ("invalid qos", "`sacctmgr show qos` lists them: name one by --extra=--qos=NAME, or leave it out"),
    ("requested node configuration is not available", "ask for fewer CPUs, or less memory, on a node"),
    ("memory specification can not be satisfied", "ask for less by --mem-per-worker, or for more --nodes"),
    ("invalid license", "`scontrol show licenses` lists them and how many there are"),
    ("invalid feature", "`sinfo -o '%n %f'` lists what --constraint may ask for"),
    ("invalid job array", "ask for fewer at a time: `scontrol show config | grep MaxArraySize`"),
    ("time limit", "ask for less by --time; `sinfo -o '%P %l'` lists the limits"),
    ("generic resource", "this cluster has no such GPUs: leave --gpus out, or name another partition"),
    (
        "violates accounting/qos policy",
        "wait until jobs of yours have ended, or ask for less: `squeue --me`",
    ),
    ("unable to contact slurm controller", "Slurm's controller does not answer: `scontrol ping`; try again later"),
    (
        "configuration source",
        "set SLURM_CONF to the cluster's slurm.conf, or log in to one of its machines",
    ),
    ("munge", "munged does not run on this machine, or its key is not that of the cluster: `munge -n | unmunge`"),
)
#: What can be done about a job that has ended before its time, by its state.
ENDS = {
    "CANCELLED": "somebody has cancelled it; submit it again where that was not meant",
    "TIMEOUT": "its time was over; give it more by --time",
    "OUT_OF_MEMORY": "it took more memory than it had; give it more by --mem-per-worker",
    "NODE_FAIL": "its node was lost; with --requeue it begins again by itself",
    "PREEMPTED": "it had to make room for others; with --requeue it begins again by itself",
}


def run(command: Sequence[str], text: str = "", *, seconds: float = PATIENCE) -> str:
    """What one of Slurm's commands says; `LaunchError` with all of its words where it fails."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=seconds, check=False)
    except FileNotFoundError:
        raise LaunchError(
            f"there is no {command[0]} on the PATH: this is no machine of a Slurm cluster, or its module is not"
            " loaded. Without Slurm, serve by `demos-hpc serve MODEL --workers 2`"
        ) from None
    except subprocess.TimeoutExpired:
        raise LaunchError(f"{command[0]} has said nothing for {seconds:g} s: try `scontrol ping`") from None
    except OSError as error:
        raise LaunchError(f"{command[0]} cannot be run: {error.strerror or error}") from None
    if done.returncode:
        raise LaunchError(explain(command[0], done.stderr.strip() or f"exit status {done.returncode}"))
    return done.stdout


def explain(program: str, words: str) -> str:
    """What Slurm said, and the remedy."""
    said = "; ".join(line.removeprefix(f"{program}: ").removeprefix("error: ") for line in words.splitlines())
    remedy = next((remedy for sign, remedy in REMEDIES if sign in words.lower()), "")
    return f"{program} says: {said}{f'. Remedy: {remedy}' if remedy else ''}"


def submit(script: str) -> str:
    """Hands a batch script in; returns the job's id."""
    return run(["sbatch", "--parsable"], script).strip().partition(";")[0]


def cancel(ids: Sequence[str]) -> None:
    """Ends jobs, or elements of arrays."""
    if ids:
        run(["scancel", *ids])


def list_partitions() -> list[Partition]:
    """What the cluster has."""
    return read_partitions(run(["sinfo", "-h", "-o", "%P|%a|%l|%D|%c|%m|%G"]))


def list_licenses() -> dict[str, int]:
    """How many of each license there are."""
    return read_licenses(run(["scontrol", "show", "licenses", "-o"]))


def list_jobs(name: str) -> list[Queued]:
    """The jobs of this name that wait or run, whoever's they are; elements of arrays each by itself."""
    return read_queue(run(["squeue", "-h", "-r", f"--name={name}", "-o", QUEUE_FORMAT]))


def list_living(users: Iterable[str], *, seconds: float) -> set[str]:
    """The numbers of these users' jobs that wait or run."""
    return set(run(["squeue", "-h", f"--user={','.join(sorted(users))}", "-o", "%A"], seconds=seconds).split())


def find_job(id_: str) -> Queued | None:
    """A job that waits or runs, or has just ended; None where Slurm does not know it any more."""
    try:
        found = read_queue(run(["squeue", "-h", "-r", "--states=all", f"--jobs={id_}", "-o", QUEUE_FORMAT]))
    except LaunchError as error:
        if "Invalid job id" in str(error):
            return None
        raise
    return found[0] if found else None


def show_job(id_: str) -> dict[str, str]:
    """What ``scontrol show job`` knows, by its words; of a heterogeneous job, what it knows of the first part."""
    text = run(["scontrol", "show", "job", "-o", id_]).partition("\n")[0]
    return dict(word.split("=", 1) for word in text.split() if "=" in word)


def read_end(path: Path, lines: int = 20) -> str:
    """The last lines of a job's log; "" where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - (16 << 10)))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
