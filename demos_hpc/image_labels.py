"""Labels of images: OCI's keys, and ours, by which an operator knows what is inside without running it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from .errors import InvalidInput
from .spec import ModelSpec
from .version import __version__
from .wire import WIRE_MAJOR, WIRE_MINOR

OCI, OURS = "org.opencontainers.image.", "org.demos-hpc."
#: Where files of a model lie that is not a bundled one.
FILES = "/opt/model/"
#: Whether others may have the image: anybody, those who are asked for, nobody.
LICENSE_CLASSES = ("shareable", "restricted", "private")


def make_labels(spec: ModelSpec, path: str, license_class: str, revision: str) -> dict[str, str]:
    """The labels of an image with a model; ``path`` is what it is served by inside, ``revision`` that of its sources.

    Raises
    ------
    InvalidInput
        Where the license class is none.
    """
    if license_class not in LICENSE_CLASSES:
        raise InvalidInput(f"license class {license_class!r}; there are {', '.join(LICENSE_CLASSES)}")
    data = [{"name": d.name, "path": d.path} for d in spec.datasets]
    # What is said here replaces what server.sif says of itself.
    source = {f"{OCI}source": "not given"} if path.startswith(FILES) else {}
    return source | {
        f"{OCI}title": spec.name,
        f"{OCI}version": spec.version,
        f"{OCI}revision": revision,
        f"{OCI}description": " ".join(spec.description.split()) or spec.name,
        f"{OCI}licenses": spec.license or "not given",
        f"{OCI}authors": ", ".join(spec.authors) or "not given",
        f"{OURS}version": __version__,
        f"{OURS}wire-version": f"{WIRE_MAJOR}.{WIRE_MINOR}",
        f"{OURS}model": path,
        f"{OURS}model.name": spec.name,
        f"{OURS}model.uuid": spec.uuid,
        f"{OURS}model.version": spec.version,
        f"{OURS}model.operations": " ".join(spec.operations),
        f"{OURS}model.resources": json.dumps(dict(spec.resources), sort_keys=True),
        f"{OURS}model.data": json.dumps(data),
        f"{OURS}license-class": license_class,
    }


def format_labels(labels: Mapping[str, str]) -> str:
    """As %post appends them to $APPTAINER_LABELS, a line each."""
    return "".join(f"{name} {' '.join(value.split())}\n" for name, value in labels.items())


def check_launcher(
    environment: Mapping[str, str], size: int, read_labels: Callable[[], Mapping[str, str]], image: str
) -> None:
    """`InvalidInput` where the launcher of a world of so many ranks speaks PMIx alone, and the MPI inside does not.

    MPICH would say so in its own words, and end, or each rank would be a world of its own.
    """
    if size > 1 and "PMIX_RANK" in environment and not {"PMI_RANK", "PMI_FD"} & set(environment):
        check_fit("openmpi", read_labels(), image)


def check_fit(launcher: str, labels: Mapping[str, str], image: str) -> None:
    """`InvalidInput` where the MPI inside is not that of this kind of launcher."""
    if launcher == "openmpi" and labels.get(f"{OURS}mpi-abi") == "mpich":
        raise InvalidInput(
            f"ranks are started by a launcher that does not fit the MPI in {image}: it speaks PMIx, as Open MPI's"
            " mpiexec does, and MPICH is inside. Start them by MPICH's mpiexec, or by `srun --mpi=pmi2`"
        )


def find_data_files(labels: Mapping[str, str]) -> list[str]:
    """The files outside of the image that its model reads: absolute paths of its datasets."""
    try:
        paths = [str(item["path"]) for item in json.loads(labels.get(f"{OURS}model.data", "[]"))]
    except (ValueError, TypeError, KeyError):
        raise InvalidInput(f"label {OURS}model.data is not what this version writes: build the image again") from None
    files = (path.rpartition(":/")[0] or path for path in paths)
    return list(dict.fromkeys(file for file in files if not file.startswith("/opt/")))
