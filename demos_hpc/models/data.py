"""A file of data as a model: all of its datasets, and nothing to compute."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import DatasetError, InvalidInput
from ..hdf5 import DataFile
from ..hdf5_format import read_attribute
from ..spec import NAME, Dataset, ModelSpec, make_name

#: Attributes of a dataset that say what stands in its declaration, as files have them; the first that is there counts.
UNITS = ("units", "unit")
DESCRIPTIONS = ("description", "long_name", "title")


class DataModel:
    """Serves the datasets of an HDF5 file.

    A dataset is called by its path in the file, ``events/muons`` being ``events.muons``. Units, descriptions, licenses
    and checksums are those of its attributes (``units``, ``description``, ``license``, ``checksum``); where it has an
    attribute ``columns``, units are those of its columns.
    """

    def __init__(self, path: str) -> None:
        place = os.path.abspath(path)
        file = DataFile(place)
        try:
            names = file.list_names()
            if not names:
                raise InvalidInput(f"data file {path!r} has no datasets")
            called = name_datasets(names)
            datasets = [_declare(file, called[name], name) for name in names]
        except (OSError, RuntimeError) as error:
            if isinstance(error, DatasetError):
                raise
            raise DatasetError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
        finally:
            file.close()
        stem = Path(path).stem
        self.spec = ModelSpec(
            name=make_name(stem), version="1.0.0", datasets=tuple(datasets), description=f"The datasets of {place}"
        )


def name_datasets(paths: Sequence[str]) -> dict[str, str]:
    """What each path in a file is called as a dataset: the same without "/", all different.

    >>> name_datasets(["/events/muons", "/a b", "/a_b"])
    {'/events/muons': 'events.muons', '/a_b': 'a_b', '/a b': 'a_b-2'}
    """

    def is_changed(path: str) -> bool:
        return re.fullmatch(NAME, path.strip("/").replace("/", "-")) is None

    called: dict[str, str] = {}
    taken: set[str] = set()
    for path in sorted(paths, key=lambda path: (is_changed(path), path)):
        stem = name = make_name(path.strip("/").replace("/", "."))
        number = 1
        while name in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name)
        called[path] = name
    return called


def _declare(file: DataFile, name: str, path: str) -> Dataset:
    attributes: dict[str, Any] = {}
    with contextlib.suppress(DatasetError):  # one that leads elsewhere is described when it is asked for
        attributes = {key: _to_text(value) for key, value in file.find(path).describe()["attrs"].items()}
    checksum = _find_text(attributes, ["checksum"])
    return Dataset(
        name=name,
        path=f"{file.path}:{path}",
        units=_find_units(attributes),
        description=_find_text(attributes, DESCRIPTIONS),
        license=_find_text(attributes, ["license"]),
        checksum=checksum if checksum.startswith("sha256:") else "",
    )


def _to_text(described: Any) -> Any:
    """An attribute, strings being str."""
    value = read_attribute(described)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind in ("S", "O"):
        return [item.decode(errors="replace") if isinstance(item, bytes) else item for item in value.reshape(-1)]
    return value


def _find_text(attributes: Mapping[str, Any], names: Sequence[str]) -> str:
    return next((attributes[name] for name in names if isinstance(attributes.get(name), str)), "")


def _find_units(attributes: Mapping[str, Any]) -> str | dict[str, str]:
    columns = attributes.get("columns")
    for name in UNITS:
        units = attributes.get(name)
        if isinstance(units, str):
            return units
        if isinstance(units, list) and isinstance(columns, list) and len(units) == len(columns):
            return dict(zip(columns, units, strict=True))
    return ""
