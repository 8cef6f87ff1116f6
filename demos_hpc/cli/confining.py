"""What a command sees of this host when it runs in an image, by how this host and the image are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..config import Config
from ..errors import InvalidInput
from ..identity import find_user, make_key_file
from ..image_labels import OURS, find_data_files
from ..image_policy import RUN, read_policy
from ..image_run import Bind, Confinement, bind_data, make_exec, read_bind
from ..logs import warn
from ..needs import spread
from ..starter import Contain
from ..usage import make_directory
from ..watchdog import find_rank_and_size

#: How images end, and what stands for the image of a model that has none.
IMAGE_FILE, NO_IMAGE = ".sif", "-"
#: The label of an image that says what it serves.
MODEL_LABEL = f"{OURS}model"


@dataclass(frozen=True)
class Subject:
    """A model, and the image that it runs in, with its labels; "" and none where it runs in this installation."""

    model: str
    image: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


def find_subjects(models: Sequence[str], images: Sequence[str]) -> list[Subject]:
    """What is served: of a model that is an image, the one that this was built with; ``images`` are for the others.

    Raises
    ------
    InvalidInput
        Where an image is not there, was built without a model, or is one too many.
    """
    others = iter(spread(images, sum(not model.endswith(IMAGE_FILE) for model in models), NO_IMAGE, "--image"))
    return [_find_subject(model, model if model.endswith(IMAGE_FILE) else next(others)) for model in models]


def _find_subject(model: str, image: str) -> Subject:
    if image == NO_IMAGE:
        return Subject(model)
    if not Path(image).is_file():
        raise InvalidInput(f"there is no image {image} (from {Path.cwd()})")
    from .. import containers

    labels = containers.read_labels(Path(image))
    if model != image:
        return Subject(model, image, labels)
    if MODEL_LABEL not in labels:
        raise InvalidInput(f"{image} was built without a model of its own: say MODEL --image {image}")
    return Subject(labels[MODEL_LABEL], image, labels)


def confine(
    image: Path,
    data: Sequence[str] = (),
    writable: Sequence[str] = (),
    gpus: str = "",
    userns: bool | None = None,
    use: str = RUN,
) -> Contain:
    """What makes of a command the one that runs it in an image, once the site's policy lets it."""
    from .. import containers

    config = Config.load()
    file, _, judgment = containers.examine(image, read_policy(config.image_policy), use)
    for warning in judgment.warnings:
        warn(warning)
    judgment.enforce()
    if containers.find_lack_of_keys(file, image):  # ranks outside would wait for those that cannot start
        raise InvalidInput(f"image {image} cannot be run without its key")
    named = [read_bind(text) for text in data]
    inside = {bind.inside for bind in named}
    declared = [path for path in find_data_files(containers.read_labels(image)) if path not in inside]
    binds = [*_bind_places(config), *bind_data(declared, of=str(image)), *named]
    binds += [read_bind(text, is_writable=True) for text in writable]
    confinement = Confinement(
        file.path,
        file.digest,
        tuple(binds),
        userns=containers.needs_userns() if userns is None else userns,
        gpus=gpus,
        variables=_find_marks(config),
        directory=_find_directory(binds),
        program=containers.find_program(),
    )
    return partial(make_exec, confinement)


def _bind_places(config: Config) -> Iterator[Bind]:
    """Where servers are found, who opens the door, and where data are left for one another."""
    config.registry_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    written = [Path(file).absolute().parent for file in (config.audit_file, config.log_file) if file]
    if config.usage_directory:
        written.append(make_directory(config.usage_directory))
    for place in dict.fromkeys((config.registry_directory, config.spool_directory, *written)):
        if place.exists():
            yield Bind(str(place.absolute()), is_writable=True)
    if config.authentication != "munge" and not config.key_path.exists():
        make_key_file(config.key_path, find_user())  # which a server inside would make where nobody finds it
    for file in (config.key_path, Path(config.access_file)) if config.access_file else (config.key_path,):
        if file.exists():
            yield Bind(str(file.absolute()))
    # By which MUNGE's numbers become names. Where ours is not there, as with LDAP, Apptainer writes a file with it.
    names = Path("/etc/passwd").read_text(encoding="utf-8", errors="replace").splitlines()
    if any(line.split(":")[2:3] == [str(os.getuid())] for line in names):
        yield from (Bind("/etc/passwd"), Bind("/etc/group"))
    for munge in (Path("/run/munge"), Path("/var/run/munge")):
        if munge.is_dir() and not munge.parent.is_symlink():
            yield Bind(str(munge))


def _find_marks(config: Config) -> dict[str, str]:
    """Ranks of one launch on one host have the same parent here, and inside have not."""
    if config.run_dir or find_rank_and_size() is None:
        return {}
    return {"DEMOS_RUN_DIR": f"/dev/shm/demos-run-{os.getuid()}-{os.getppid()}"}


def _find_directory(binds: list[Bind]) -> str:
    """This one, where something of it is seen inside: so that names of files mean the same."""
    here = Path.cwd()
    return str(here) if any(Path(bind.inside or bind.path).is_relative_to(here) for bind in binds) else ""
