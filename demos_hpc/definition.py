"""Definition files of Apptainer images as text: which template variables they want, and where an image comes from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from .errors import InvalidInput

#: What fetches an image for each of these begins.
REGISTRIES = ("docker", "oras", "library", "shub", "docker-daemon", "docker-archive", "oci", "oci-archive")
#: What a variable is for, where somebody left it out.
PURPOSES = {
    "BOOTSTRAP": "where the first layer comes from: docker, oras, localimage; --from sets it",
    "FROM": "the image to begin with; --from sets it, as docker://debian:12-slim or a folder or file",
    "BASE": "base.sif, which base.def builds",
    "WHEELS": "a folder with what build-requirements.txt lists; without --wheels it is fetched",
    "SOURCE": "the repository of demos-hpc; --source sets it",
    "REVISION": "the revision of the sources; without it, what git says",
    "MODEL": "what is served: nu_atm, or /opt/model/my_model.py:Peak",
    "FILES": "a folder that becomes /opt/model; --files sets it",
    "LICENSE_CLASS": "shareable, restricted or private",
}
_VARIABLE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")


def find_variables(text: str) -> tuple[str, ...]:
    """The template variables of a definition file that have no default, in order."""
    lines = _drop_comments(text)
    defaults, is_default = set(), False
    for line in lines:
        if line.startswith("%"):
            is_default = line.split()[0] == "%arguments"
        elif is_default and "=" in line:
            defaults.add(line.partition("=")[0].strip())
    return tuple(name for name in _find_names(lines) if name not in defaults)


def choose_arguments(
    text: str,
    given: Mapping[str, str],
    path: str = "the definition file",
    offered: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """Those of the arguments that the definition file wants.

    ``offered`` are others, of which it takes what it wants.

    Raises
    ------
    InvalidInput
        Where one is left out, and the message says what it is for; or where one is given that it has not.
    """
    wanted, everywhere = find_variables(text), _find_names(_drop_comments(text))
    if unknown := [name for name in given if name not in everywhere]:
        there = f"it has {', '.join(everywhere)}" if everywhere else "it has none"
        raise InvalidInput(f"{path} has no template variable {', '.join(unknown)}; {there}")
    given = {**offered, **given}
    missing = [name for name in wanted if not given.get(name)]
    if missing:
        told = "; ".join(f"{name} ({PURPOSES.get(name, 'what it is, its comments say')})" for name in missing)
        raise InvalidInput(f"{path} leaves open, and nobody gave: {told}. Give it by --arg {missing[0]}=VALUE")
    return {name: value for name, value in given.items() if name in everywhere}


def split_origin(origin: str) -> tuple[str, str]:
    """What `Bootstrap` and `From` are for an image to begin with, which is an address, a SIF file or a folder.

    >>> split_origin("docker://debian:12-slim")
    ('docker', 'debian:12-slim')
    """
    kind, separator, rest = origin.partition("://")
    if separator:
        if kind not in REGISTRIES or not rest:
            raise InvalidInput(f"an image from {origin!r}; addresses begin with {'://, '.join(REGISTRIES)}://")
        return kind, rest
    path = Path(origin).expanduser()
    if not path.exists():
        raise InvalidInput(
            f"an image from {origin!r}: there is no such file or folder; an address is docker://debian:12-slim"
        )
    if path.is_dir() and not (path / "bin").is_dir():
        raise InvalidInput(f"an image from {origin!r}: the folder holds no root file system, it has no bin/")
    return "localimage", str(path.resolve())


def _drop_comments(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.lstrip().startswith("#")]


def _find_names(lines: list[str]) -> list[str]:
    return list(dict.fromkeys(name for line in lines for name in _VARIABLE.findall(line)))
