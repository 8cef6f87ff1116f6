"""What models need of a cluster, and the nodes of a job that give it to them: pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from .errors import InvalidInput
from .slurm_plan import DISPATCHER_MB, Group, Part, Wishes, is_license, read_megabytes, share

T = TypeVar("T")


@dataclass(frozen=True)
class Needs:
    """Of a worker: ``memory_mb`` (0: the site's own), ``threads``; of its node: ``gpus``; of its job: ``licenses``."""

    memory_mb: int = 0
    threads: int = 1
    gpus: int = 0
    licenses: tuple[str, ...] = ()


def read_needs(resources: Mapping[str, Any], of: str) -> Needs:
    """What a model's ``resources`` say: ``memory`` ("2 GB") or ``memory_mb``, ``threads``, ``gpus``, ``licenses``.

    Other names are for people to read.

    Raises
    ------
    InvalidInput
        Where one of these is not what it has to be.
    """
    numbers = {"memory_mb": 0, "threads": 1, "gpus": 0}
    for name, least in numbers.items():
        value = resources.get(name, least)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InvalidInput(f"{of}: resources has {name} {value!r}; it is a whole number from {least} on")
        numbers[name] = value
    if "memory" in resources:
        numbers["memory_mb"] = read_megabytes(str(resources["memory"]).replace(" ", ""))
    licenses = resources.get("licenses", ())
    if not isinstance(licenses, (list, tuple)) or not all(map(is_license, licenses)):
        raise InvalidInput(
            f"{of}: resources has licenses {licenses!r}; it is a list of words as Slurm has them, name or name:count"
        )
    return Needs(**numbers, licenses=tuple(licenses))


@dataclass(frozen=True)
class Wanted:
    """So many workers of a model, and where."""

    model: str
    workers: int
    needs: Needs
    image: str = ""
    nodes: int = 1
    partition: str = ""


def arrange(wanted: Sequence[Wanted], common: Wishes) -> tuple[Part, ...]:
    """The parts of a job: models that want nodes alike share them, others have nodes of their own.

    ``common`` has what holds for all of them.
    """
    kinds: dict[tuple[int, str, int], list[Wanted]] = {}
    for each in wanted:
        kinds.setdefault((each.nodes, each.partition, each.needs.gpus), []).append(each)
    return tuple(_make_part(kind, common, is_first=nth == 0) for nth, kind in enumerate(kinds.values()))


def _make_part(kind: Sequence[Wanted], common: Wishes, *, is_first: bool) -> Part:
    nodes, dispatchers = kind[0].nodes, int(is_first)
    groups = tuple(
        Group(
            each.model,
            share(each.workers, nodes),
            each.needs.threads,
            each.image,
            each.needs.memory_mb,
            each.needs.licenses,
        )
        for each in kind
    )
    cpus = [sum(group.workers[node] * group.threads for group in groups) for node in range(nodes)]
    cpus[0] += dispatchers
    # Where nobody says what one of them takes, the site's own memory for so many CPUs is for all.
    is_known = all(group.worker_mb for group in groups)
    memory = [sum(group.workers[node] * group.worker_mb for group in groups) for node in range(nodes)]
    return Part(
        groups,
        Wishes(
            nodes=nodes,
            cpus=max(cpus),
            memory_mb=max(memory) + dispatchers * DISPATCHER_MB if is_known else 0,
            gpus=kind[0].needs.gpus,
            minutes=common.minutes,
            partition=kind[0].partition,
            account=common.account,
            qos=common.qos,
            licenses=add_licenses(kind),
            extra=common.extra,
        ),
    )


def add_licenses(wanted: Sequence[Wanted]) -> tuple[str, ...]:
    """Those of all models, each of which takes its own."""
    counts: dict[str, int] = {}
    for each in wanted:
        for word in each.needs.licenses:
            name, _, count = word.partition(":")
            counts[name] = counts.get(name, 0) + int(count or 1)
    return tuple(f"{name}:{count}" if count > 1 else name for name, count in counts.items())


def spread(values: Sequence[T], count: int, default: T, option: str) -> list[T]:
    """A value for each of ``count`` models: one that is given alone is for all of them.

    >>> spread([2], 3, 1, "--workers")
    [2, 2, 2]
    """
    if len(values) not in (0, 1, count):
        raise InvalidInput(f"{option} is given {len(values)} times for {count} models: once for all, or once for each")
    return list(values) if len(values) == count else list(values or [default]) * count
