"""The command that runs something in an image, as a pure function: what it sees of the host, and what it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .errors import InvalidInput

#: Ranks in separate containers have separate user namespaces, across which the kernel lets nobody open another's files
#: (UCX) or read another's memory (MPICH): both have to go through shared memory that they find by name.
MPI_SETTINGS = {"UCX_POSIX_USE_PROC_LINK": "n", "MPIR_CVAR_CH4_CMA_ENABLE": "0"}
DIGEST = "DEMOS_IMAGE_DIGEST"
#: What of the host's Python would mislead the one inside.
MISLEADING = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV")
#: Kinds of GPUs, as Apptainer's options are called, and what their drivers make.
GPU_DEVICES = {"nv": "/dev/nvidiactl", "rocm": "/dev/kfd"}


@dataclass(frozen=True)
class Bind:
    """A file or directory of the host that is seen inside, at the same place unless ``inside`` says otherwise."""

    path: str
    inside: str = ""
    is_writable: bool = False

    def __str__(self) -> str:
        return f"{self.path}:{self.inside or self.path}:{'rw' if self.is_writable else 'ro'}"


@dataclass(frozen=True)
class Confinement:
    """How a command runs in an image.

    Parameters
    ----------
    image, digest
        Path of the SIF file, and ``sha256:…`` of its bytes, which endpoint and audit log repeat.
    binds
        All that is seen of the host's files besides /dev: data read-only, registry and spool writable.
    userns
        Whether to go without the privileges that Apptainer may have: what root in a container needs.
    gpus
        "" for none, or one of `GPU_DEVICES`.
    variables
        Set inside; nothing secret, command lines are seen by everybody.
    directory
        Where the command starts, inside.
    """

    image: str
    digest: str = ""
    binds: tuple[Bind, ...] = ()
    userns: bool = False
    gpus: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    directory: str = ""
    program: str = "apptainer"


def make_exec(confinement: Confinement, command: Sequence[str]) -> list[str]:
    """The command line that runs ``command`` in the image.

    Raises
    ------
    InvalidInput
        Where a path or a value cannot be told to Apptainer: it splits at colons and commas.
    """
    if not command:
        raise InvalidInput(f"what is to run in {confinement.image}? Give a command, after --")
    # --contain would give each container a /dev/shm of its own, where ranks do not find one another: the host's stays.
    words = [confinement.program, "--quiet", "exec", "--contain", "--bind", "/dev"]
    if confinement.userns:
        words.append("--userns")
    if confinement.gpus:
        if confinement.gpus not in GPU_DEVICES:
            raise InvalidInput(f"GPUs {confinement.gpus!r}; there are nv (NVIDIA) and rocm (AMD)")
        words.append(f"--{confinement.gpus}")
    for bind in confinement.binds:
        if set(":,") & set(bind.path + bind.inside):
            raise InvalidInput(f"{bind} cannot be seen in an image: Apptainer takes no ':' and no ',' in a path")
        words += ["--bind", str(bind)]
    told = {**MPI_SETTINGS, **dict.fromkeys(MISLEADING, "")}
    if confinement.digest:
        told[DIGEST] = confinement.digest
    for name, value in {**told, **confinement.variables}.items():
        if "," in value or "\n" in value:
            raise InvalidInput(f"variable {name}={value!r} cannot be set in an image: Apptainer splits it at commas")
        words += ["--env", f"{name}={value}"]
    if confinement.directory:
        words += ["--pwd", confinement.directory]
    return [*words, confinement.image, *command]


def bind_data(paths: Sequence[str], *, of: str) -> tuple[Bind, ...]:
    """Read-only binds of the files that a model's datasets are in.

    Raises
    ------
    InvalidInput
        Where one is not there: the model would say so too, but only after the job has waited in the queue.
    """
    missing = [path for path in paths if not Path(path).exists()]
    if missing:
        raise InvalidInput(
            f"{of} declares data in {', '.join(missing)}, which this host has not: mount the file system, or bind"
            f" another place by --data HERE:{missing[0]}"
        )
    return tuple(Bind(path) for path in dict.fromkeys(paths))


def read_bind(text: str, *, is_writable: bool = False) -> Bind:
    """What ``--data PATH`` or ``--data HERE:INSIDE`` says; `InvalidInput` where there is no such file."""
    option = "--writable" if is_writable else "--data"
    here, _, inside = text.partition(":")
    path = Path(here).expanduser()
    if not here or not path.exists():
        raise InvalidInput(f"{option} {text}: there is no {here or 'file without a name'} on this host")
    if inside and not inside.startswith("/"):
        raise InvalidInput(f"{option} {text}: {inside} is to be an absolute path, the place inside the image")
    return Bind(str(path.resolve()), inside or str(path.absolute()), is_writable)
