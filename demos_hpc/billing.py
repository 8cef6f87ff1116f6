"""What Slurm's accounting says that jobs took, by sacct."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from . import slurm

#: What `read_jobs` wants to hear of sacct, a job in a line of its own.
FORMAT = "JobIDRaw,State,AllocCPUS,ElapsedRaw,CPUTimeRAW,TotalCPU,JobName"


@dataclass(frozen=True)
class Billed:
    """A job, or an element of an array.

    ``core_seconds`` are its cores times the time that it had them, which is what is billed; ``computed`` those that its
    processes computed, which Slurm learns as their steps end.
    """

    id: str
    name: str
    state: str
    cores: int
    seconds: int
    core_seconds: int
    computed: float


def read_jobs(text: str) -> list[Billed]:
    """What ``sacct -P -n -o FORMAT`` said; with ``-X`` for jobs alone it would not sum up what their steps computed."""
    found = []
    for line in text.splitlines():
        id_, state, cores, seconds, core_seconds, computed, name = line.split("|", 6)
        if "." in id_:  # a step
            continue
        found.append(
            Billed(
                id_,
                name,
                state.partition(" ")[0],  # CANCELLED by 1000
                int(cores or 0),
                int(seconds or 0),
                int(core_seconds or 0),
                read_seconds(computed),
            )
        )
    return found


def read_seconds(text: str) -> float:
    """A time as sacct has it: MM:SS.mmm, HH:MM:SS or D-HH:MM:SS; 0 where there is none.

    >>> read_seconds("01:02.500"), read_seconds("1-00:00:01"), read_seconds("")
    (62.5, 86401.0, 0.0)
    """
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):([\d.]+)", text.strip())
    if found is None:
        return 0.0
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def ask(ids: Sequence[str], names: Sequence[str], user: str, since: float, until: float | None = None) -> list[Billed]:
    """What jobs took: those of ``user`` with these ``ids``, or these ``names`` that ran ``since``, or ``until``
    then; times are in seconds since 1970.

    With ``until`` all is over, and what requeued jobs took before they began anew counts as well. `LaunchError` where
    Slurm does not know.
    """
    common = ["sacct", "-P", "-n", "-o", FORMAT, *([] if until is None else ["--duplicates"])]
    ran = [f"--starttime={_format(since)}", *([] if until is None else [f"--endtime={_format(until)}"])]
    return read_jobs(
        slurm.run([*common, f"--user={user}", f"--jobs={','.join(ids)}"])
        + slurm.run([*common, f"--user={user}", f"--name={','.join(names)}", *ran])
    )


def _format(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(moment))
