"""Elements of datasets as they travel: dtypes as JSON, and strings and lists, which have no fixed size, as bytes."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .errors import InternalError
from .messages import Array

#: Bytes that a string or a list is taken to have, before anybody has looked.
RAGGED_BYTES = 64


def describe_descr(dtype: np.dtype[Any]) -> Any:
    """A dtype without objects for JSON, as NumPy describes it; of arrays of so many numbers also their shape."""
    dtype = strip(dtype)
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return [describe_descr(base), list(shape)]
    return np.lib.format.dtype_to_descr(dtype)


def read_dtype(described: Any) -> np.dtype[Any]:
    """The dtype that was described, objects as ``"O"``; `InternalError` where it is none."""
    if described == "O":
        return np.dtype(object)
    try:
        dtype = np.lib.format.descr_to_dtype(_to_tuples(described))
    except (TypeError, ValueError, IndexError, KeyError, RecursionError):
        dtype = np.dtype(object)
    if dtype.hasobject or not dtype.itemsize:
        raise InternalError(f"the server describes a dtype as {str(described)[:200]}, which is none")
    return dtype


def _to_tuples(described: Any) -> Any:
    """JSON makes lists of the tuples that a dtype is described by."""
    if isinstance(described, str):
        return described
    if described and isinstance(described[0], list) and described[0] and isinstance(described[0][0], str):
        return [(name, _to_tuples(kind), *(tuple(shape) for shape in rest)) for name, kind, *rest in described]
    return (_to_tuples(described[0]), tuple(described[1]))


def strip(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """A dtype without what h5py notes on it beside, such as the names of an enumeration."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        inner, more = strip(base).subdtype or (strip(base), ())
        return np.dtype((inner, (*shape, *more)))
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


def has_gaps(dtype: np.dtype[Any]) -> bool:
    """Whether an element has bytes that belong to no field."""
    if dtype.subdtype is not None:
        return has_gaps(dtype.subdtype[0])
    if dtype.names is None:
        return False
    kinds = [dtype[name] for name in dtype.names]
    return sum(kind.itemsize for kind in kinds) < dtype.itemsize or any(map(has_gaps, kinds))


def encode(values: Array, kind: str) -> list[Array]:
    """Strings or lists as two arrays: the number of bytes of each, int64, and all bytes one behind the other."""
    items = values.reshape(-1)
    if kind == "text":
        parts = [item.encode("utf-8", "surrogateescape") if isinstance(item, str) else bytes(item) for item in items]
    else:
        parts = [np.ascontiguousarray(item).tobytes() for item in items]
    lengths = np.array([len(part) for part in parts], dtype=np.int64).reshape(values.shape)
    return [lengths, np.frombuffer(b"".join(parts), np.uint8)]


def decode(lengths: Array, contents: Sequence[Array], kind: str, item: np.dtype[Any]) -> Array:
    """What `encode` was given, its bytes in several pieces; strings as bytes, as h5py has them."""
    values = np.empty(lengths.size, dtype=object)
    data, at = b"".join(content.tobytes() for content in contents), 0
    size = item.itemsize if kind == "lists" else 1
    # Added up as Python's integers, which do not overflow.
    if (lengths < 0).any() or (lengths % size).any() or sum(lengths.reshape(-1).tolist()) != len(data):
        raise InternalError(f"the server sent {len(data)} bytes of strings or lists, and announced others")
    for nth, length in enumerate(lengths.reshape(-1).tolist()):
        part = data[at : at + length]
        values[nth] = part if kind == "text" else np.frombuffer(bytearray(part), item)
        at += length
    return values.reshape(lengths.shape)


class AsStrings:
    """A dataset of strings that are read as str; see `remote_data.RemoteDataset.asstr`."""

    def __init__(self, dataset: Any, encoding: str, errors: str) -> None:
        self._dataset = dataset
        self._encoding = encoding
        self._errors = errors

    def __getitem__(self, key: Any) -> Any:
        values = self._dataset[key]
        if isinstance(values, bytes):
            return values.decode(self._encoding, self._errors)
        texts = np.empty(values.shape, dtype=object)
        texts.reshape(-1)[:] = [value.decode(self._encoding, self._errors) for value in values.reshape(-1)]
        return texts

    def __len__(self) -> int:
        return len(self._dataset)


def describe_value(value: Any) -> Any:
    """A string, a number or an array for JSON; `TypeError` where it cannot be described."""
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    if array.dtype.kind == "U" or (array.dtype.hasobject and all(isinstance(item, str) for item in array.reshape(-1))):
        return {"shape": list(array.shape), "text": array.reshape(-1).tolist()}
    if array.dtype.hasobject:
        raise TypeError(f"{array.dtype} cannot travel")
    if not array.dtype.itemsize:  # an empty string
        array = array.astype("S1")
    data = base64.b64encode(array.tobytes()).decode()
    return {"shape": list(array.shape), "dtype": describe_descr(array.dtype), "data": data}


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
