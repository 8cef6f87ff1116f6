"""What a model says of itself: parameters, observables, operations, authorship."""

from __future__ import annotations

import math
import re
import sys
import unicodedata
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np

from .errors import InvalidInput, NotOffered
from .messages import FloatArray, Operation

#: The UUID of a model that was given none: made from its name, under this namespace.
NAMESPACE = uuid.UUID("6ba6f2d0-5a43-5d2e-9d0b-0f2b6f3a7c11")
BLOCK_ROWS = 1024
#: What is offered together with something else.
IMPLIED = {Operation.DESCRIBE: Operation.DATASET, Operation.DIGEST: Operation.DATASET}
#: Names of models and datasets.
NAME = r"[A-Za-z0-9][\w.-]*"
#: What ``operations`` names the gradient of the log-density with respect to x.
GRADIENT_X = "log_density_gradient_x"


@dataclass(frozen=True)
class Parameter:
    """A parameter of a model; ``lower`` and ``upper`` are inclusive bounds, ``None`` where there is none."""

    name: str
    unit: str = "1"
    default: float | None = None
    lower: float | None = None
    upper: float | None = None
    description: str = ""

    def __post_init__(self) -> None:
        _check_range(self)
        if self.default is not None and not self.lower_bound <= self.default <= self.upper_bound:
            raise InvalidInput(f"parameter {self.name!r}: default {self.default} is outside its bounds")

    @property
    def lower_bound(self) -> float:
        return -math.inf if self.lower is None else self.lower

    @property
    def upper_bound(self) -> float:
        return math.inf if self.upper is None else self.upper


@dataclass(frozen=True)
class Observable:
    """A column of x; the density is normalized over [``lower``, ``upper``], ``None`` meaning without end."""

    name: str
    unit: str = "1"
    lower: float | None = None
    upper: float | None = None
    description: str = ""

    def __post_init__(self) -> None:
        _check_range(self)


@dataclass(frozen=True)
class Output:
    """A column of what ``evaluate`` returns."""

    name: str
    unit: str = "1"
    description: str = ""


@dataclass(frozen=True)
class Dataset:
    """A precomputed dataset: ``path`` is ``file.h5:/name/within``, relative to the file that the model is written in.

    ``units`` are those of its values, or of each field by name; ``checksum`` is what ``demos-hpc data checksum`` says.
    """

    name: str
    path: str
    units: str | Mapping[str, str] = ""
    description: str = ""
    checksum: str = ""
    license: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(NAME, self.name):
            raise InvalidInput(f"dataset name {self.name!r}: letters, digits, '_', '.', '-', a letter or digit first")
        file, colon, inside = self.path.rpartition(":/")
        if not colon or not file or not inside:
            raise InvalidInput(f"dataset {self.name!r}: path {self.path!r} is not of the form file.h5:/name/within")


@dataclass(frozen=True)
class ModelSpec:
    """The contract of one model with those who call it. Frozen; travels as JSON.

    Parameters
    ----------
    name, version
        What it is called, and which density it is: when log P changes, so does the major or minor version.
    parameters, observables, outputs
        Columns of params (p,), of x (d,) and of what ``evaluate`` returns (q,), in order.
    datasets
        What the model's workers can read from the shared file system.
    block_rows
        Rows of a block, the unit of random streams and partial sums (`blocks`).
    row_independent
        False where a row's result depends, if only in the last bit, on the rows it is computed with
        (matrix products do that). Such a model is called block by block, and requests are never merged.
    params_per_row
        False where the model takes one parameter vector (p,) per call only; rows are then grouped for it.
    reproducible
        False where ``sample`` uses a generator of its own instead of the one it is given.
    """

    name: str
    version: str = "0.1.0"
    parameters: tuple[Parameter, ...] = ()
    observables: tuple[Observable, ...] = ()
    outputs: tuple[Output, ...] = ()
    datasets: tuple[Dataset, ...] = ()
    uuid: str = ""
    description: str = ""
    license: str = ""
    authors: tuple[str, ...] = ()
    citation: str = ""
    #: ``memory``, ``threads``, ``gpus`` and ``licenses``, by which jobs are submitted (`needs`), and whatever else an
    #: operator may want to know; conventions and constants for callers.
    resources: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    block_rows: int = BLOCK_ROWS
    row_independent: bool = True
    params_per_row: bool = True
    reproducible: bool = True
    #: Filled in when the model is loaded: the names of the operations it has.
    operations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._check_types()
        kinds: dict[str, Any] = {
            "parameters": Parameter,
            "observables": Observable,
            "outputs": Output,
            "datasets": Dataset,
        }
        for name, kind in kinds.items():
            # Plain dicts come from JSON, and a name alone from those who have nothing else to say.
            columns = tuple(_make_column(kind, column) for column in getattr(self, name))
            object.__setattr__(self, name, columns)
            names = [c.name for c in columns]
            if len(set(names)) != len(names):
                raise InvalidInput(f"model {self.name!r}: {name} {names} are not all different")
        for name in ("authors", "operations"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not re.fullmatch(NAME, self.name):
            raise InvalidInput(f"model name {self.name!r}: letters, digits, '_', '.', '-', a letter or digit first")
        if not re.fullmatch(r"\d+\.\d+\.\d+", self.version):
            raise InvalidInput(f"model {self.name!r}: version {self.version!r} is not of the form 1.2.3")
        if not 1 <= self.block_rows <= 1 << 20:
            raise InvalidInput(f"model {self.name!r}: block_rows is {self.block_rows}; it is 1 to {1 << 20}")
        try:
            own = uuid.UUID(self.uuid) if self.uuid else uuid.uuid5(NAMESPACE, self.name)
        except ValueError:
            raise InvalidInput(f"model {self.name!r}: uuid {self.uuid!r} is not a UUID") from None
        object.__setattr__(self, "uuid", str(own))

    def _check_types(self) -> None:
        """What a file says may be anything."""
        for name in ("name", "version", "uuid", "description", "license", "citation"):
            self._check_type(name, str, "a text")
        for name in ("row_independent", "params_per_row", "reproducible"):
            self._check_type(name, bool, "true or false")
        for name in ("parameters", "observables", "outputs", "datasets", "authors", "operations"):
            self._check_type(name, (list, tuple), "a list")
        for name in ("resources", "notes"):
            self._check_type(name, Mapping, "an object of names and values")
        if type(self.block_rows) is not int:
            raise InvalidInput(f"model {self.name!r}: block_rows is {self.block_rows!r}; it is a whole number")

    def _check_type(self, name: str, kind: Any, words: str) -> None:
        value = getattr(self, name)
        if not isinstance(value, kind):
            raise InvalidInput(f"model {self.name!r}: {name} is {value!r}; it is {words}")

    @cached_property
    def n_params(self) -> int:
        return len(self.parameters)

    @cached_property
    def n_observables(self) -> int:
        return len(self.observables)

    @cached_property
    def n_outputs(self) -> int:
        return len(self.outputs)

    @cached_property
    def param_names(self) -> tuple[str, ...]:
        return tuple(p.name for p in self.parameters)

    @cached_property
    def lower(self) -> FloatArray:
        """Lower bounds of the parameters, (p,) float64, -inf where there is none."""
        return np.array([p.lower_bound for p in self.parameters])

    @cached_property
    def upper(self) -> FloatArray:
        """Upper bounds of the parameters, (p,) float64, +inf where there is none."""
        return np.array([p.upper_bound for p in self.parameters])

    @cached_property
    def is_bounded(self) -> bool:
        """Whether any parameter has a bound."""
        return bool(np.isfinite(self.lower).any() or np.isfinite(self.upper).any())

    @property
    def defaults(self) -> FloatArray:
        """Default values of the parameters, (p,) float64, nan where there is none."""
        return np.array([math.nan if p.default is None else p.default for p in self.parameters], dtype=np.float64)

    @cached_property
    def _offered(self) -> frozenset[Operation]:
        named = {op for op in Operation if op.title in self.operations}
        return frozenset(named | {op for op, other in IMPLIED.items() if other in named})

    def offers(self, operation: Operation, *, wrt_x: bool = False) -> bool:
        """Whether the model has this operation; ``wrt_x`` asks for the gradient with respect to x."""
        if wrt_x:
            return GRADIENT_X in self.operations
        return operation in self._offered

    def check_holding(self) -> None:
        """`NotOffered` where the model's workers cannot hold data for likelihoods."""
        if not self.offers(Operation.LOG_LIKELIHOOD):
            raise NotOffered(f"model {self.name!r} offers no log_likelihood, for which data are held")
        if not self.offers(Operation.UPLOAD):
            raise NotOffered(f"the workers of model {self.name!r} hold no data (they are ranks in C); send the rows")

    def check_complete(self, params: FloatArray) -> None:
        """`InvalidInput` where a server-side parameter of params (p,) has no value, which is nan."""
        if missing := [name for name, value in zip(self.param_names, params.tolist(), strict=True) if value != value]:
            raise InvalidInput(
                f"no params were given, and model {self.name!r} has no default for {', '.join(missing)}:"
                " give params, or set_params first"
            )

    def change(self, params: FloatArray, changes: Any) -> FloatArray:
        """A copy of params (p,) with ``changes``, ``{name: value}``; `InvalidInput` where one does not fit."""
        if not isinstance(changes, Mapping):
            raise InvalidInput(f"changes of parameters are given as {{name: value}}, not as {type(changes).__name__}")
        if unknown := [name for name in changes if name not in self.param_names]:
            raise InvalidInput(f"unknown parameter {', '.join(map(repr, unknown))}; {self.describe_params()}")
        changed = params.copy()
        for name, value in changes.items():
            index = self.param_names.index(name)
            if isinstance(value, np.integer | np.floating):
                value = float(value)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not -sys.float_info.max <= value <= sys.float_info.max:
                raise InvalidInput(f"parameter {name!r} is {value!r}; it is a finite number")
            if not self.lower[index] <= value <= self.upper[index]:
                raise InvalidInput(f"parameter {name!r} is {value}, outside [{self.lower[index]}, {self.upper[index]}]")
            changed[index] = value
        return changed

    @cached_property
    def param_scales(self) -> FloatArray:
        """What is a large change of each parameter, (p,) float64: its default, else its range, else 0 for unknown."""
        return np.array([abs(p.default or 0.0) or _find_width(p) for p in self.parameters])

    @cached_property
    def observable_scales(self) -> FloatArray:
        """The same for each observable, (d,) float64: the width of its support, 0 where that is infinite."""
        return np.array([_find_width(o) for o in self.observables])

    @cached_property
    def support(self) -> tuple[FloatArray, FloatArray]:
        """Lower and upper ends of the observables, each (d,) float64, infinite where there is none."""
        lower = [-math.inf if o.lower is None else o.lower for o in self.observables]
        upper = [math.inf if o.upper is None else o.upper for o in self.observables]
        return np.array(lower), np.array(upper)

    def describe_params(self) -> str:
        """For messages: "model 'neutrino' takes 2: mu, sigma"."""
        return f"model {self.name!r} takes {self.n_params}: {', '.join(self.param_names)}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelSpec:
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise InvalidInput(f"model spec with unknown entries {unknown}")
        try:
            return cls(**values)
        except (TypeError, AttributeError, OverflowError) as error:
            raise InvalidInput(f"model spec: {error}") from None

    def with_operations(self, operations: Sequence[str]) -> ModelSpec:
        return replace(self, operations=tuple(operations))


def _make_column(kind: Any, given: Any) -> Any:
    if isinstance(given, kind):
        return given
    if isinstance(given, str):
        return kind(given)
    what, known = kind.__name__.lower(), [f.name for f in fields(kind)]
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        raise InvalidInput(f'{what} {given!r}: it is a name, or an object with a name, {{"name": "mu", ...}}')
    for name in given:
        if name not in known:
            hint = "".join(f"; did you mean {close!r}?" for close in get_close_matches(str(name), known, 1))
            raise InvalidInput(f"{what} {given['name']!r}: unknown entry {name!r}{hint or f'; it has {known}'}")
    return kind(**given)


def make_name(text: str) -> str:
    """The text as the name of a model or a dataset: what cannot be in one becomes "_".

    >>> make_name("run 7 (all)"), make_name("événements")
    ('run_7_all', 'evenements')
    """
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^\w.-]+", "_", letters).strip("_").lstrip("-._") or "data"


def _check_range(column: Parameter | Observable) -> None:
    for name in ("lower", "upper", "default"):
        value = getattr(column, name, None)
        if value is None:
            continue
        try:
            number = float(value if isinstance(value, Real) else "")
        except (ValueError, OverflowError):
            raise InvalidInput(f"{column.name!r}: {name} is {value!r}; it is a number") from None
        if not math.isfinite(number):
            raise InvalidInput(f"{column.name!r}: {name} is {value}; leave it out where there is none")
        object.__setattr__(column, name, number)
    if column.lower is not None and column.upper is not None and not column.lower < column.upper:
        raise InvalidInput(f"{column.name!r}: lower {column.lower} is not below upper {column.upper}")


def _find_width(column: Parameter | Observable) -> float:
    return 0.0 if column.lower is None or column.upper is None else column.upper - column.lower
