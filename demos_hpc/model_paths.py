"""What a model is called by on a command line: a file and a class, a library, a file of data, a short name."""

from __future__ import annotations

import re
from pathlib import Path

from .errors import ModelNotFound
from .spec import make_name

#: The models that come with this package, by their short names.
BUNDLED = {
    "nu_atm": "demos_hpc.models.neutrino:AtmosphericNeutrino",
    "nu_atm_prem": "demos_hpc.models.neutrino:AtmosphericNeutrinoPrem",
}


#: How files end that are served without a model's class, and what serves all of their datasets: by its name, since it
#: stands above.
DATA_FILES = (".h5", ".hdf5")
DATA_MODEL = "demos_hpc.models.data:DataModel"
#: What serves models in C, C++ and Fortran; and how their libraries and the files about them end.
NATIVE_MODEL = "demos_hpc.native:NativeModel"
LIBRARY = re.compile(r".*\.so(\.\d+)*")
DESCRIPTION = ".json"


def split_native(path: str) -> tuple[str, str] | None:
    """Library and description of a model in C; "" for what is not named, None where it is no such path.

    >>> split_native("./libpeak.so:peak.json"), split_native("libpeak.so.1"), split_native("peak.json")
    (('./libpeak.so', 'peak.json'), ('libpeak.so.1', ''), ('', 'peak.json'))
    """
    if LIBRARY.fullmatch(path):
        return path, ""
    if not path.endswith(DESCRIPTION):
        return None
    library, _, description = path.rpartition(":")
    return (library, description) if LIBRARY.fullmatch(library) else ("", path)


def is_path(path: str) -> bool:
    """Whether this is a path to a model, and not the name of one."""
    return ":" in path or path.endswith(DATA_FILES) or split_native(path) is not None


def find(path: str) -> tuple[str, str]:
    """The file or module, and the name in it, that ``path`` stands for; nothing is imported yet.

    Of a data file, a library or a description it is the model's name.

    Raises
    ------
    ModelNotFound
        Where ``path`` is none, or the file does not exist.
    """
    if path.endswith(DATA_FILES):
        if not Path(path).is_file():
            raise ModelNotFound(f"data file {path!r} does not exist (from {Path.cwd()})")
        return path, make_name(Path(path).stem)
    if native := split_native(path):
        for file in filter(None, native):
            if not Path(file).is_file():
                raise ModelNotFound(f"model file {file!r} does not exist (from {Path.cwd()})")
        stem = Path(native[0] or native[1]).name.partition(".")[0]
        return path, make_name(stem.removeprefix("lib") or stem)
    place, _, name = BUNDLED.get(path, path).rpartition(":")
    if not place or not name:
        raise ModelNotFound(
            f"model {path!r}: write file.py:Class or package.module:Class, a library file.so or its description"
            f" file{DESCRIPTION}, a file {' or '.join(DATA_FILES)} whose datasets are to be served, or the short name"
            f" of a model that comes with demos-hpc: {', '.join(BUNDLED)}"
        )
    if place.endswith(".py") and not Path(place).is_file():
        raise ModelNotFound(f"model file {place!r} does not exist (from {Path.cwd()})")
    return place, name


def find_absolute(path: str) -> str:
    """The same model as it is called from anywhere else on this file system."""
    if path.endswith(DATA_FILES):
        return str(Path(path).absolute())
    if native := split_native(path):
        return ":".join(str(Path(file).absolute()) for file in native if file)
    place, _, name = path.rpartition(":")
    return f"{Path(place).resolve()}:{name}" if place.endswith(".py") else path
