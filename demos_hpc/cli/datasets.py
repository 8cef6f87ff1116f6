"""Datasets as commands show them: what they are, and their values."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from ..elements import read_dtype
from ..messages import Array
from .output import format_number, make_table
from .quantities import NOTHING, format_size


def tabulate(described: Sequence[Mapping[str, Any]], title: str = "Datasets") -> Table:
    """A line for each dataset, as `RemoteModel.describe_datasets` has them."""
    table = make_table(title, "name", "shape", "type", "size", "filters", "units", "description", numbers=[3])
    for dataset in described:
        about = escape(dataset["description"])
        units = escape(format_units(dataset["units"]))
        if "problem" in dataset:
            table.add_row(escape(dataset["name"]), "", "", "", "", units, f"[red]{escape(dataset['problem'])}[/]")
            continue
        filters = ", ".join(dataset["filters"])
        shown = (format_shape(dataset["shape"]), format_type(dataset), format_size(count_bytes(dataset)), filters)
        table.add_row(escape(dataset["name"]), *map(escape, shown), units, about)
    return table


def format_shape(shape: Sequence[int] | None) -> str:
    """
    >>> format_shape([1000, 3]), format_shape([5]), format_shape([]), format_shape(None)
    ('1000 x 3', '5', 'scalar', 'empty')
    """
    if shape is None:
        return "empty"
    return " x ".join(map(str, shape)) or "scalar"


def format_type(dataset: Mapping[str, Any]) -> str:
    """What an element is, in a few words."""
    if dataset["kind"] == "text":
        return "text"
    if dataset["kind"] == "other":
        return "objects"
    dtype = read_dtype(dataset["dtype"])
    if dataset["kind"] == "lists":
        return f"lists of {dtype}"
    return str(dtype) if dtype.names is None else f"{len(dtype.names)} fields: {', '.join(dtype.names)}"


def count_bytes(dataset: Mapping[str, Any]) -> int | None:
    """Bytes of a dataset in memory; None where its elements have no fixed size."""
    if dataset["kind"] != "rows" or dataset["shape"] is None:
        return None
    n_bytes: int = dataset["item_bytes"] * math.prod(dataset["shape"])
    return n_bytes


def format_units(units: str | Mapping[str, str]) -> str:
    """
    >>> format_units("GeV"), format_units({"energy": "GeV", "time": "ns"})
    ('GeV', 'energy: GeV, time: ns')
    """
    return units if isinstance(units, str) else ", ".join(f"{name}: {unit}" for name, unit in units.items())


def to_summary(described: Mapping[str, Any]) -> dict[str, Any]:
    """What workers say of a dataset, for scripts."""
    if "problem" in described:
        return dict(described)
    left_out = ("attrs", "identity", "item_bytes", "typical_bytes", "is_compressed")
    summary = {name: value for name, value in described.items() if name not in left_out}
    return {**summary, "type": format_type(described), "bytes": count_bytes(described)}


# ---- values -----------------------------------------------------------------------------------------------------


def name_columns(dtype: np.dtype[Any], shape: Sequence[int], name: str, names: Sequence[str] = ()) -> list[str]:
    """Names of the columns of rows of this dtype and shape (without the rows): fields, ``names``, or indices."""
    if dtype.names is not None:
        fields: Any = dtype.fields
        inner = [f"{field}{column and '.' + column}" for field in dtype.names for column in _name_parts(fields[field])]
        return [f"{column}{place}" for place in _name_places(shape) for column in inner]
    if len(shape) == 1 and len(names) == shape[0]:
        return list(names)
    return [place.strip("[]") or name for place in _name_places(shape)]


def _name_parts(field: tuple[np.dtype[Any], int]) -> list[str]:
    """Of one field: itself, the elements of an array, the fields of a compound in a compound."""
    base, shape = field[0].subdtype or (field[0], ())
    return [""] if base.names is None and not shape else name_columns(base, shape, "")


def _name_places(shape: Sequence[int]) -> list[str]:
    return [f"[{','.join(map(str, place))}]" for place in np.ndindex(*shape)] if shape else [""]


def iterate_rows(values: Array) -> Iterator[list[Any]]:
    """Rows (n, ...) as lists of plain values, in the order of `name_columns`."""
    is_ragged = values.dtype.hasobject
    for row in values.reshape(len(values), math.prod(values.shape[1:])).tolist():
        yield [_join(item) for item in row] if is_ragged else list(_flatten(row))


def _join(item: Any) -> Any:
    """A string, or a list of any length."""
    return json.dumps(item.tolist()) if isinstance(item, np.ndarray) else to_text(item)


def _flatten(value: Any) -> Iterator[Any]:
    """Numbers and strings out of fields and arrays in them."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, tuple | list):
        for item in value:
            yield from _flatten(item)
    else:
        yield to_text(value) if isinstance(value, bytes) else value


def to_text(value: bytes) -> str:
    """Bytes as people read them; those that are no UTF-8 as in Python."""
    return value.decode("utf-8", "backslashreplace")


def format_value(value: Any, digits: int = 10) -> str:
    if isinstance(value, float):
        return format_number(value, digits)
    return NOTHING if value is None else str(value)
