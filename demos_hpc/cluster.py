"""What a cluster has, and what waits and runs there, as Slurm's commands tell it; and whether a job fits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .errors import InvalidInput
from .slurm_plan import Wishes, read_minutes

# ---- what a cluster can give ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Partition:
    """Nodes alike of one partition, as sinfo tells: ``minutes`` is its limit (0: none), ``gpus`` those of a node."""

    name: str
    nodes: int
    cpus: int
    memory_mb: int
    gpus: int = 0
    minutes: int = 0
    is_default: bool = False
    is_up: bool = True


def read_partitions(text: str) -> list[Partition]:
    """What ``sinfo -h -o '%P|%a|%l|%D|%c|%m|%G'`` said."""
    found = []
    for line in text.splitlines():
        name, state, limit, nodes, cpus, memory, features = line.strip().split("|")
        counts = [int(n) for n in re.findall(r"gpu(?::[^:,()]+)?:(\d+)", features)]
        found.append(
            Partition(
                name.rstrip("*"),
                int(nodes),
                int(cpus.rstrip("+")),
                int(memory.rstrip("+")),
                sum(counts),
                0 if limit in ("infinite", "n/a") else read_minutes(limit),
                is_default=name.endswith("*"),
                is_up=state == "up",
            )
        )
    return found


def check_wishes(wishes: Wishes, partitions: Sequence[Partition]) -> None:
    """`InvalidInput` where no partition that was named, or the default one, could ever run such a job.

    Slurm would leave many of these in its queue for ever.
    """
    known = list(dict.fromkeys(p.name for p in partitions))
    names = wishes.partition.split(",") if wishes.partition else [p.name for p in partitions if p.is_default][:1]
    if missing := [name for name in names if name not in known]:
        raise InvalidInput(f"there is no partition {missing[0]!r} here; there are {', '.join(known) or 'none'}")
    problems = []
    for name in names:
        kinds = [p for p in partitions if p.name == name]
        problem = _find_problem(wishes, kinds)
        if not problem:
            return
        problems.append(f"partition {name!r} {problem}")
    if problems:
        fitting = [n for n in known if not _find_problem(wishes, [p for p in partitions if p.name == n])]
        hint = f"--partition {fitting[0]} could" if fitting else "no partition here could; ask for less"
        raise InvalidInput(f"this job cannot run: {'; '.join(problems)}. {hint[0].upper()}{hint[1:]}")


def read_licenses(text: str) -> dict[str, int]:
    """How many of each license there are, as ``scontrol show licenses -o`` tells."""
    return {name: int(total) for name, total in re.findall(r"LicenseName=(\S+)\s+Total=(\d+)", text)}


def check_licenses(wanted: Sequence[str], there: Mapping[str, int]) -> None:
    """`InvalidInput` where the cluster has no such license, or never as many."""
    for word in wanted:
        name, _, count = word.partition(":")
        if name not in there:
            known = f"there are {', '.join(there)}" if there else "Slurm has none here"
            raise InvalidInput(
                f"this job cannot run: it takes license {name!r}, and {known} (`scontrol show licenses`)"
            )
        if int(count or 1) > there[name]:
            raise InvalidInput(
                f"this job cannot run: it takes {count} of license {name!r}, and there are {there[name]}"
            )


def check_sum(wanted: Sequence[Wishes], partitions: Sequence[Partition], licenses: Mapping[str, int]) -> None:
    """`InvalidInput` where parts of a job that fit by themselves do not fit together."""
    nodes: dict[str, int] = {}
    words: dict[str, int] = {}
    for wishes in wanted:
        nodes[wishes.partition] = nodes.get(wishes.partition, 0) + wishes.nodes
        for word in wishes.licenses:
            name, _, count = word.partition(":")
            words[name] = words.get(name, 0) + int(count or 1)
    for partition, n_nodes in nodes.items():
        there = sum(p.nodes for p in partitions if p.name in partition.split(",") or (not partition and p.is_default))
        if n_nodes > there:
            place = f"partition {partition}" if partition else "the default partition"
            raise InvalidInput(
                f"this job cannot run: its parts want {n_nodes} nodes of {place}, which has {there} (--nodes)"
            )
    check_licenses([f"{name}:{count}" for name, count in words.items()], licenses)


def check_ranks(ranks: int, wishes: Wishes, partitions: Sequence[Partition]) -> None:
    """`InvalidInput` where so many ranks have not enough CPUs in any partition that was named, or the default one."""
    names = wishes.partition.split(",")
    there = [p for p in partitions if p.name in names or (not wishes.partition and p.is_default)]
    cpus = max((sum(p.nodes * p.cpus for p in there if p.name == name) for name in {p.name for p in there}), default=0)
    if ranks * wishes.cpus > cpus:
        raise InvalidInput(
            f"this job cannot run: {ranks} ranks of {wishes.cpus} CPUs take {ranks * wishes.cpus}, and there are {cpus}"
            " (--ranks, --workers, --threads)"
        )


def _find_problem(wishes: Wishes, kinds: Sequence[Partition]) -> str:
    """Why nodes of these kinds, of one partition, cannot run it; "" where they can."""
    if not all(p.is_up for p in kinds):
        return "is down"
    limit = max((p.minutes for p in kinds if p.minutes), default=0)
    if limit and wishes.minutes > limit and all(p.minutes for p in kinds):
        return f"ends jobs after {limit} minutes, and {wishes.minutes} are wanted (--time)"
    for what, wanted, given, option in (
        ("CPUs", wishes.cpus, [p.cpus for p in kinds], "workers times threads, and one for a dispatcher"),
        ("MB of memory", wishes.memory_mb, [p.memory_mb for p in kinds], "--mem-per-worker, or --mem"),
        ("GPUs", wishes.gpus, [p.gpus for p in kinds], "--gpus"),
    ):
        if wanted > max(given, default=0):
            return f"has nodes of {max(given, default=0)} {what}, and {wanted} are wanted on one ({option})"
    able = [p for p in kinds if p.cpus >= wishes.cpus and p.memory_mb >= wishes.memory_mb and p.gpus >= wishes.gpus]
    if sum(p.nodes for p in able) < wishes.nodes:
        return f"has {sum(p.nodes for p in able)} nodes that fit, and {wishes.nodes} are wanted (--nodes)"
    return ""


# ---- jobs that there are -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Queued:
    """A job, or an element of an array, as squeue tells."""

    id: str
    name: str
    user: str
    state: str
    reason: str


#: What `read_queue` wants to hear of squeue, an element of an array in a line of its own.
QUEUE_FORMAT = "%i|%u|%T|%r|%j"


def read_queue(text: str) -> list[Queued]:
    """What ``squeue -h -r -o QUEUE_FORMAT`` said."""
    found = []
    for line in text.splitlines():
        id_, user, state, reason, name = line.strip().split("|", 4)
        found.append(Queued(id_, name, user, state, reason))
    return found


def choose_victims(jobs: Iterable[Queued], count: int) -> list[str]:
    """The ids of those ``count`` jobs that are missed least: what waits first, then the youngest."""

    def order(job: Queued) -> tuple[bool, int, int]:
        number, _, element = job.id.partition("_")
        return job.state != "PENDING", -int(number), -int(element or 0)

    return [job.id for job in sorted(jobs, key=order)[:count]]
