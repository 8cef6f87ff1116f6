"""HDF5 as its library has it: files opened, kinds of elements, filters, attributes. The one module that knows h5py."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from .elements import describe_value, read_dtype, read_value, strip

with contextlib.suppress(ImportError):  # filters beyond those of HDF5 itself: zstd, blosc, lz4 and others
    import hdf5plugin  # noqa: F401  (registers them)

#: Names of filters by their number (https://github.com/HDFGroup/hdf5_plugins, RegisteredFilterPlugins).
FILTERS = {
    1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 305: "lzo", 307: "bzip2",
    32000: "lzf", 32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32013: "zfp", 32015: "zstd", 32026: "blosc2",
}  # fmt: skip


def open_unlocked(path: str) -> Any:
    """Locks hang or lie on shared file systems, and keep others from writing; a file that is only read needs none."""
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        if "flag values" not in str(error):
            raise
        return h5py.File(path, "r")  # this process has it open already, with locks


def is_dataset(thing: Any) -> bool:
    return isinstance(thing, h5py.Dataset)


def is_group(thing: Any) -> bool:
    return isinstance(thing, h5py.Group)


def is_external(link: Any) -> bool:
    """Whether a link leads to another file."""
    return isinstance(link, h5py.ExternalLink)


def find_kind(dtype: np.dtype[Any]) -> str:
    """``rows`` where each element has the same size; ``text`` and ``lists`` where it does not; else ``other``."""
    if not dtype.hasobject:
        return "rows"
    string = h5py.check_string_dtype(dtype)
    if string is not None and string.length is None:
        return "text"
    base = h5py.check_vlen_dtype(dtype)
    return "lists" if base is not None and not np.dtype(base).hasobject else "other"


def describe_dtype(dtype: np.dtype[Any]) -> Any:
    """A dtype for JSON; of lists that of their items."""
    base = h5py.check_vlen_dtype(dtype)
    if base is not None and base is not str and base is not bytes:
        return np.lib.format.dtype_to_descr(strip(np.dtype(base)))
    return "O" if dtype.hasobject else np.lib.format.dtype_to_descr(strip(dtype))


def list_filters(dataset: Any) -> list[str]:
    plist = dataset.id.get_create_plist()
    return [FILTERS.get(number := plist.get_filter(n)[0], str(number)) for n in range(plist.get_nfilters())]


def has_filter(name: str) -> bool:
    number = next((number for number, known in FILTERS.items() if known == name), None)
    return bool(h5py.h5z.filter_avail(int(name) if number is None else number))


def describe_attributes(dataset: Any) -> dict[str, Any]:
    """Attributes for JSON; those of kinds that cannot travel are left out."""
    found = {}
    for name in dataset.attrs:
        with contextlib.suppress(OSError, TypeError, ValueError, NotImplementedError):
            value = dataset.attrs[name]
            is_empty = isinstance(value, h5py.Empty)
            found[name] = {"empty": describe_dtype(value.dtype)} if is_empty else describe_value(value)
    return found


def read_attribute(described: Any) -> Any:
    """An attribute as h5py has it."""
    if isinstance(described, Mapping) and "empty" in described:
        return make_empty(read_dtype(described["empty"]))
    return read_value(described)


def make_empty(dtype: np.dtype[Any]) -> Any:
    """What h5py returns of a dataset that has a type, but no shape."""
    return h5py.Empty(dtype)


def explain(error: BaseException) -> str:
    """What HDF5 says, without its stack."""
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    return " ".join(text.split())
