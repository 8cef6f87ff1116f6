"""What a batch script says, as a pure function of what is wanted.

The scripts are short, so that an operator can read what was submitted, and `slurm/` has them to be used by hand.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field

from .errors import InvalidInput
from .job_notes import Notes, format_notes
from .threads import limit_threads

#: Begins the names of our jobs; no server's name has a colon.
PREFIX = "demos:"
WORKERS = ":workers"
#: Begins what workers of jobs of their own are called.
LABEL = "slurm:"
#: Seconds before the time limit at which a server is told to finish, and those that it then has for what runs.
LEAD, FINISHING = 60, 35
#: Seconds that workers wait for the server of their own job to open its door.
OPENING = 120
#: Megabytes of a dispatcher with its supervisor.
DISPATCHER_MB = 300
#: Minutes of a job that nobody said anything of.
TIME = 60
UNITS = {"": 1, "M": 1, "G": 1 << 10, "T": 1 << 20}


@dataclass(frozen=True)
class Wishes:
    """What a job asks of Slurm: ``nodes`` alike, each with so many ``cpus``, ``memory_mb`` (0: the site's own) and
    ``gpus``, for ``minutes``; ``licenses`` as Slurm has them, ``name`` or ``name:count``. ``extra`` are further options
    of sbatch, as they are.
    """

    nodes: int = 1
    cpus: int = 1
    memory_mb: int = 0
    gpus: int = 0
    minutes: int = TIME
    partition: str = ""
    account: str = ""
    qos: str = ""
    licenses: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("nodes", "cpus", "minutes"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"a job with {name} {getattr(self, name)}: it takes one at least")
        for name in ("partition", "account", "qos"):
            if not re.fullmatch(r"[\w.,@+-]*", getattr(self, name)):
                raise InvalidInput(f"{name} {getattr(self, name)!r} is no name that Slurm knows")
        if broken := [word for word in self.licenses if not is_license(word)]:
            raise InvalidInput(f"license {broken[0]!r}: write it as Slurm does, name or name:count")
        if broken := [word for word in self.extra if not word.startswith("-") or "\n" in word]:
            raise InvalidInput(f"{broken[0]!r} is no option of sbatch: write --name=value, in one word")


@dataclass(frozen=True)
class Site:
    """What holds for all jobs: a file that they include, where our programs are, and where logs go."""

    settings: str = ""
    programs: str = ""
    logs: str = "."


@dataclass(frozen=True)
class Group:
    """Workers of one model, so many on each node of their part of a job."""

    model: str
    workers: tuple[int, ...]
    threads: int = 1
    image: str = ""
    #: Megabytes of each worker, and what the model takes of the site, for those that are added later.
    worker_mb: int = 0
    licenses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """Nodes that are alike, and the groups that share them."""

    groups: tuple[Group, ...]
    wishes: Wishes


@dataclass(frozen=True)
class Serving:
    """A server behind its door, in a job of its own, which is heterogeneous where it has several parts.

    The dispatcher is on the first node, with its share of the first group.
    """

    name: str
    parts: tuple[Part, ...]
    requeue: bool = False
    site: Site = field(default_factory=Site)

    def __post_init__(self) -> None:
        if self.wishes.minutes * 60 <= LEAD:
            raise InvalidInput(
                f"a server's job of {self.wishes.minutes} minute (--time): give it more, since in its last {LEAD} s it"
                " takes nothing new"
            )

    @property
    def wishes(self) -> Wishes:
        """Of the first part."""
        return self.parts[0].wishes


@dataclass(frozen=True)
class Joining:
    """An array of ``elements`` that each bring ``workers`` to a server that runs."""

    server: str
    elements: int
    wishes: Wishes
    workers: int = 1
    threads: int = 1
    #: What they load, where that is not what the server says.
    model: str = ""
    image: str = ""
    site: Site = field(default_factory=Site)


@dataclass(frozen=True)
class Analyzing:
    """A script with ``ranks``, each of which connects to servers by itself."""

    script: str
    arguments: tuple[str, ...]
    wishes: Wishes
    ranks: int = 1
    site: Site = field(default_factory=Site)


@dataclass(frozen=True)
class Together:
    """Servers of ``models``, with ``workers`` each, and an analysis, as one MPI world in one allocation."""

    models: tuple[str, ...]
    workers: tuple[int, ...]
    script: str
    arguments: tuple[str, ...]
    wishes: Wishes
    ranks: int = 1
    #: Of each model, "" where it runs outside of any; or of none.
    images: tuple[str, ...] = ()
    site: Site = field(default_factory=Site)

    @property
    def n_ranks(self) -> int:
        """Of the whole world, the dispatcher's included."""
        return 1 + sum(self.workers) + self.ranks


Job = Serving | Joining | Analyzing | Together


def is_license(word: object) -> bool:
    """Whether it is one as Slurm has them, ``name`` or ``name:count``."""
    return isinstance(word, str) and re.fullmatch(r"[\w.@-]+(:[1-9]\d*)?", word) is not None


def share(workers: int, nodes: int) -> tuple[int, ...]:
    """How many workers each node has, the dispatcher's, which comes first, not more than others.

    >>> share(8, 3)
    (2, 3, 3)
    """
    if nodes < 1 or workers < nodes:
        raise InvalidInput(f"{workers} workers on {nodes} nodes: each node takes one at least")
    return tuple(workers // nodes + (nth >= nodes - workers % nodes) for nth in range(nodes))


def read_megabytes(text: str) -> int:
    """Memory as Slurm has it, ``500M``, ``2G``; a number alone is megabytes."""
    found = re.fullmatch(r"(\d+)([MGT]?)B?", text.strip(), re.IGNORECASE)
    if found is None or not int(found[1]):
        raise InvalidInput(f"memory {text!r}: write it as 500M or 2G")
    return int(found[1]) * UNITS[found[2].upper()]


def read_minutes(text: str) -> int:
    """A time as Slurm has it: minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS; seconds count as a minute.

    >>> read_minutes("90"), read_minutes("1:30:00"), read_minutes("1-12")
    (90, 90, 2160)
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip())
    if found is None:
        raise InvalidInput(f"time {text!r}: write it as minutes, HH:MM:SS or D-HH:MM:SS")
    days, *rest = found.groups()
    numbers = [int(part) for part in rest if part is not None]
    if days is not None:
        hours, minutes, seconds = [*numbers, 0, 0][:3]
    elif len(numbers) == 3:
        hours, minutes, seconds = numbers
    else:
        hours, (minutes, seconds) = 0, [*numbers, 0][:2]
    total = (int(days or 0) * 24 + hours) * 60 + minutes + (seconds > 0)
    if not total:
        raise InvalidInput(f"time {text!r}: a job takes a minute at least")
    return total


# ---- the text ------------------------------------------------------------------------------------------------------


def format_script(job: Job) -> str:
    """The batch script of a job, as sbatch takes it."""
    formats = {Serving: _serve, Joining: _join, Analyzing: _analyze, Together: _run}
    options, body = formats[type(job)](job)  # type: ignore[operator]
    options += _ask(job.wishes)
    if broken := [option for option in options if not option.isprintable()]:
        raise InvalidInput(f"{broken[0]!r} cannot stand in a batch script, whose options are a line each")
    for part in job.parts[1:] if isinstance(job, Serving) else ():
        own = ["--ntasks-per-node=1", f"--cpus-per-task={part.wishes.cpus}"]
        options += ["hetjob", *own, *_ask(part.wishes), *(["--no-kill"] if part.wishes.nodes > 1 else [])]
    head = ["#!/bin/bash", *(f"#SBATCH {shlex.quote(option)}" for option in options), "set -euo pipefail"]
    site = [f". {shlex.quote(job.site.settings)}"] if job.site.settings else []
    site += [f"export PATH={shlex.quote(job.site.programs)}:$PATH"] if job.site.programs else []
    return "\n".join([*head, *site, *body, ""])


def _ask(wishes: Wishes) -> list[str]:
    """Options of sbatch for what is wanted of a part of a job."""
    options = [f"--nodes={wishes.nodes}", f"--time={wishes.minutes}"]
    options += [f"--mem={wishes.memory_mb}M"] if wishes.memory_mb else []
    options += [f"--gpus-per-node={wishes.gpus}"] if wishes.gpus else []
    options += [f"--licenses={','.join(wishes.licenses)}"] if wishes.licenses else []
    named = {"partition": wishes.partition, "account": wishes.account, "qos": wishes.qos}
    options += [f"--{name}={value}" for name, value in named.items() if value]
    return [*options, *wishes.extra]


def _log(site: Site, name: str) -> str:
    return f"--output={site.logs}/{name}"


#: What GPUs are at this site.
_GPUS = '--gpus "${SITE_GPUS:-nv}"'


def _contain(image: str, gpus: int) -> str:
    """What comes before a command that is to run inside an image."""
    seen = f"{_GPUS} " if gpus else ""
    return f"demos-hpc image run --for submit {seen}{shlex.quote(image)} -- " if image else ""


def _limit(threads: int, before: int = 1) -> list[str]:
    """What numerical libraries read, and a model in C that shares rows among threads; they have read ``before``."""
    if threads == before:
        return []
    return ["export " + " ".join(f"{name}={value}" for name, value in limit_threads({}, threads).items())]


#: For everybody: no server is joined that is about to end. A heterogeneous job has a line for each part.
_END = (
    'if end=$(squeue -h -j "$SLURM_JOB_ID" -o %e | head -n 1 | grep .) && end=$(date +%s -d "$end"); then'
    " export SLURM_JOB_END_TIME=$end; fi"
)


def _serve(job: Serving) -> tuple[list[str], list[str]]:
    first = job.parts[0].groups[0]
    workers = sum(sum(group.workers) for part in job.parts for group in part.groups)
    gpus, licenses = job.wishes.gpus, ",".join(first.licenses)
    notes = format_notes(Notes(workers, first.worker_mb, first.threads, gpus, licenses, first.image))
    options = [
        f"--job-name={PREFIX}{job.name}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={job.wishes.cpus}",
        f"--signal=B:USR1@{LEAD}",
        "--requeue" if job.requeue else "--no-requeue",
        "--open-mode=append",
        _log(job.site, "%j.log"),
        *(["--no-kill"] if job.wishes.nodes > 1 else []),
        f"--comment={notes}",
    ]
    body = [
        f"export DEMOS_HOST=${{SITE_HOST:-$(hostname)}} DEMOS_STOP_SECONDS={FINISHING}",
        _END,
    ]
    threads = 1
    for nth, part in enumerate(job.parts):
        for group in part.groups:
            if group is not first or len(group.workers) > 1:
                body += [*_limit(group.threads, threads), *_send(job, nth, group, is_first=group is first)]
                threads = group.threads
    body += _limit(first.threads, threads)
    inside, name = _contain(first.image, job.wishes.gpus), shlex.quote(job.name)
    body += [
        f"{inside}demos-hpc serve {shlex.quote(first.model)} --name {name} --workers {first.workers[0]} &",
        "server=$! status=0",
        "trap 'kill \"$server\"' TERM",
        "trap 'kill \"$server\"; warned=yes' USR1 # the time is nearly over",
        'while kill -0 "$server" 2> /dev/null; do wait "$server" && status=0 || status=$?; done',
    ]
    if job.requeue:
        body += ['[ -z "${warned:-}" ] || scontrol requeue "$SLURM_JOB_ID"']
    return options, [*body, 'exit "$status"']


def _send(job: Serving, nth: int, group: Group, *, is_first: bool) -> list[str]:
    """Lines that start the workers of a group on the nodes of its part; those of the server itself come with it."""
    part = job.parts[nth]
    is_heterogeneous = len(job.parts) > 1
    nodes = f' "$SLURM_JOB_NODELIST_HET_GROUP_{nth}"' if is_heterogeneous else ""
    where = f"--het-group={nth} " if is_heterogeneous else ""
    # Steps that share a node share what the job has there.
    where += "--overlap " if len(part.groups) > 1 else ""
    skip = '[ "$i" = 0 ] || ' if is_first else ""
    model = "" if group.model == job.parts[0].groups[0].model else f" --model {shlex.quote(group.model)}"
    words = f"demos-hpc worker --join {shlex.quote(job.name)}{model}"
    return [
        f"workers=({' '.join(map(str, group.workers))})",
        f"mapfile -t nodes < <(scontrol show hostnames{nodes})",
        'for i in "${!nodes[@]}"; do # each a step of its own: a node that is lost costs its workers only',
        f'    {skip}srun --quiet {where}--nodes=1 --ntasks=1 --nodelist="${{nodes[i]}}" '
        f'{_contain(group.image, part.wishes.gpus)}{words} --workers "${{workers[i]}}" --wait {OPENING} &',
        "done",
    ]


def _join(job: Joining) -> tuple[list[str], list[str]]:
    options = [
        f"--job-name={PREFIX}{job.server}{WORKERS}",
        f"--array=1-{job.elements}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={job.wishes.cpus}",
        "--no-requeue",
        _log(job.site, "%A_%a.log"),
    ]
    many = f" --model {shlex.quote(job.model)}" if job.model else ""
    many += f" --workers {job.workers}" if job.workers > 1 else ""
    words = f'demos-hpc worker --join {shlex.quote(job.server)}{many} --label "{LABEL}$SLURM_JOB_ID" --wait {OPENING}'
    return options, [*_limit(job.threads), f"exec {_contain(job.image, job.wishes.gpus)}{words}"]


def _analyze(job: Analyzing) -> tuple[list[str], list[str]]:
    wishes = job.wishes
    options = [
        f"--job-name={PREFIX}analysis",
        f"--ntasks={job.ranks}",
        f"--cpus-per-task={wishes.cpus}",
        _log(job.site, "%j.log"),
    ]
    words = shlex.join(["python", job.script, *job.arguments])
    return options, [f'srun --mpi="${{SITE_MPI:-pmi2}}" {words}' if job.ranks > 1 else f"exec {words}"]


def _run(job: Together) -> tuple[list[str], list[str]]:
    options = [
        f"--job-name={PREFIX}analysis",
        f"--ntasks={job.n_ranks}",
        f"--cpus-per-task={job.wishes.cpus}",
        _log(job.site, "%j.log"),
    ]
    first, *others = job.models
    words = [first, *(word for model in others for word in ("--model", model))]
    words += [word for n in job.workers for word in ("--workers", str(n))]
    if any(job.images):
        words += ["--for", "submit", *(word for image in job.images for word in ("--image", image or "-"))]
    words += ["--ranks", str(job.ranks), job.script, *job.arguments]
    seen = f" {_GPUS}" if job.wishes.gpus and any(job.images) else ""
    command = f'exec demos-hpc run --launcher "${{SITE_LAUNCHER:-auto}}"{seen} {shlex.join(words)}'
    return options, [*_limit(job.wishes.cpus), command]
