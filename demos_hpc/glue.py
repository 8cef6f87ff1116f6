"""The description of a model in another language: which library, which functions, and what it is.

A JSON object of entries of `ModelSpec`, and of those of `Glue` beside them (docs/legacy.md). `csrc/src/config.c` reads
the same.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from .errors import InvalidInput
from .spec import ModelSpec

#: Functions that a library may have, by the members of ``demos_functions`` (demos.h, 3).
FUNCTIONS = ("density", "log_density", "log_density_gradient", "log_density_gradient_x", "sample", "evaluate")
#: What programs in C read from the same file.
OF_PROGRAMS = ("log_level", "log_file", "limits")
SPEC = tuple(f.name for f in fields(ModelSpec) if f.name != "operations")
#: What a model needs to say, with any function; where it has rows; where it has outputs.
NEEDED = ("name", "parameters")
#: Entries and what stands in them, for messages.
EXAMPLES = {
    "name": '"name": "peak"',
    "parameters": '"parameters": [{"name": "mass", "unit": "GeV", "default": 91.2}]',
    "observables": '"observables": [{"name": "energy", "unit": "GeV"}]',
    "outputs": '"outputs": [{"name": "rate", "unit": "1/s"}]',
}


@dataclass(frozen=True)
class Glue:
    """What is said of a library from outside; ``path`` is the file that says it, or the library itself."""

    path: Path
    library: Path
    #: Names in the library, by `FUNCTIONS`; none where it makes its model itself, by ``demos_model_init``.
    functions: Mapping[str, str] = field(default_factory=dict)
    #: Entries of the spec; they win over those that the library brings.
    spec: Mapping[str, Any] = field(default_factory=dict)
    #: Whether its functions may be called by several threads at a time, None where that is not said.
    thread_safe: bool | None = None
    #: Threads of each worker; None for those that the worker was given (``DEMOS_THREADS``).
    threads: int | None = None
    #: For the model itself: what ``demos_model_init`` gets.
    settings: Mapping[str, Any] = field(default_factory=dict)

    def digest(self) -> str:
        """Tells this model from another that is called the same: of the library's bytes and the description."""
        said = json.dumps([self.functions, self.spec, self.settings], sort_keys=True)
        return hashlib.sha256(self.library.read_bytes() + said.encode()).hexdigest()


def read_glue(library: str, description: str) -> Glue:
    """What is said of a model; "" where ``library`` stands in the description, or where there is no description.

    Raises
    ------
    InvalidInput
        Where the description is none, has an unknown entry or one of another type, or no library is named.
    """
    if not description:
        return Glue(Path(library), Path(library))
    path = Path(description)
    said = _read_object(path)
    if not library:
        if not isinstance(said.get("library"), str):
            raise InvalidInput(f'{path}: name the library of the model, "library": "./libmy_model.so"')
        library = str(path.parent / said["library"])
    if not Path(library).is_file():
        raise InvalidInput(f"{path}: there is no library {library}")
    functions = {name: said[name] for name in FUNCTIONS if name in said}
    for name, symbol in functions.items():
        if not isinstance(symbol, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", symbol):
            raise InvalidInput(f"{path}: {name} is {symbol!r}; it is the name of a function in {library}")
    return Glue(
        path,
        Path(library),
        functions,
        {name: said[name] for name in SPEC if name in said},
        _check(path, said, "thread_safe", bool),
        _check(path, said, "threads", int),
        _check(path, said, "settings", dict) or {},
    )


def make_spec(glue: Glue, own: Mapping[str, Any], *, has_rows: bool, has_outputs: bool) -> ModelSpec:
    """The spec of a model that says ``own`` of itself.

    Raises
    ------
    InvalidInput
        Where something is missing, all of which is named, or wrong.
    """
    said = {**own, **glue.spec}
    needed = [*NEEDED, *["observables"] * has_rows, *["outputs"] * has_outputs]
    if missing := [name for name in needed if name not in said]:
        where = "there" if glue.path != glue.library else f"in a file, and serve {glue.path}:file.json"
        raise InvalidInput(
            f"{glue.path}: the model's {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not given; write"
            f" {', '.join(EXAMPLES[name] for name in missing)} {where}"
        )
    try:
        spec = ModelSpec.from_dict(said)
    except InvalidInput as error:
        raise InvalidInput(f"{glue.path}: {error}") from None
    directory = glue.path.resolve().parent
    return replace(spec, datasets=tuple(replace(d, path=str(directory / d.path)) for d in spec.datasets))


def _read_object(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from None
    if not isinstance(said, dict):
        raise InvalidInput(f"{path} is no object of JSON, {{...}}")
    known = [*SPEC, *FUNCTIONS, *OF_PROGRAMS, "library", "thread_safe", "threads", "settings"]
    for name in said:
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else "what is for the model alone stands in 'settings'"
            raise InvalidInput(f"{path}: unknown entry {name!r}; {hint}")
    return said


def _check(path: Path, said: Mapping[str, Any], name: str, kind: type) -> Any:
    value: Any = said.get(name)
    is_small = isinstance(value, int) and kind is int and value < 1
    if is_small or type(value) not in (kind, type(None)):
        wanted = {bool: "true or false", int: "a number, 1 or more", dict: "an object, {...}"}[kind]
        raise InvalidInput(f"{path}: {name} is {value!r}; it is {wanted}")
    return value
