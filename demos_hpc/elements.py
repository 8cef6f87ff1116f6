"""Elements of datasets as they travel: dtypes as JSON, and strings and lists, which have no fixed size, as bytes."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .errors import InternalError
from .messages import Array


def read_dtype(described: Any) -> np.dtype[Any]:
    """The dtype that `describe_dtype` described."""
    if described == "O":
        return np.dtype(object)
    return np.lib.format.descr_to_dtype(_to_tuples(described))


def _to_tuples(described: Any) -> Any:
    """JSON makes lists of the tuples that a dtype is described by."""
    if isinstance(described, str):
        return described
    if described and isinstance(described[0], list):
        return [(name, _to_tuples(kind), *(tuple(shape) for shape in rest)) for name, kind, *rest in described]
    return (_to_tuples(described[0]), tuple(described[1]))


def strip(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """A dtype without what h5py notes on it beside, such as the names of an enumeration."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return np.dtype((strip(base), shape))
    if dtype.names is None:
        return np.dtype(dtype.str)
    fields: Any = dtype.fields
    return np.dtype(
        {
            "names": dtype.names,
            "formats": [strip(fields[name][0]) for name in dtype.names],
            "offsets": [fields[name][1] for name in dtype.names],
            "itemsize": dtype.itemsize,
        }
    )


def encode(values: Array, kind: str) -> list[Array]:
    """Strings or lists as two arrays: the number of bytes of each, int64, and all bytes one behind the other."""
    parts = (
        [item.encode() if isinstance(item, str) else bytes(item) for item in values.reshape(-1)]
        if (kind == "text")
        else [np.ascontiguousarray(item).tobytes() for item in values.reshape(-1)]
    )
    lengths = np.array([len(part) for part in parts], dtype=np.int64).reshape(values.shape)
    return [lengths, np.frombuffer(b"".join(parts), np.uint8)]


def decode(lengths: Array, contents: Sequence[Array], kind: str, item: np.dtype[Any]) -> Array:
    """What `encode` was given, its bytes in several pieces; strings as bytes, as h5py has them."""
    values = np.empty(lengths.size, dtype=object)
    data, at = b"".join(content.tobytes() for content in contents), 0
    if len(data) != lengths.sum() or (lengths < 0).any():
        raise InternalError(f"the server sent {len(data)} bytes of strings or lists, and announced {lengths.sum()}")
    for nth, length in enumerate(lengths.reshape(-1).tolist()):
        part = data[at : at + length]
        values[nth] = part if kind == "text" else np.frombuffer(part, item)
        at += length
    return values.reshape(lengths.shape)


def describe_value(value: Any) -> Any:
    """A string, a number or an array for JSON."""
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    if array.dtype.kind == "U" or (array.dtype.hasobject and all(isinstance(item, str) for item in array.reshape(-1))):
        return {"shape": list(array.shape), "text": array.reshape(-1).tolist()}
    if array.dtype.hasobject:
        raise TypeError(f"{array.dtype} cannot travel")
    data = base64.b64encode(array.tobytes()).decode()
    return {"shape": list(array.shape), "dtype": np.lib.format.dtype_to_descr(strip(array.dtype)), "data": data}


def read_value(described: Any) -> Any:
    """What `describe_value` described."""
    if not isinstance(described, Mapping):
        return described
    shape = tuple(described["shape"])
    if "text" in described:
        values = np.empty(len(described["text"]), dtype=object)
        values[:] = described["text"]
        return values.reshape(shape) if shape else values[0]
    data = base64.b64decode(described["data"])
    array = np.frombuffer(bytearray(data), read_dtype(described["dtype"])).reshape(shape)
    return array if shape else array[()]
