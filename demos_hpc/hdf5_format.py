"""HDF5 as its library has it: files, links, types of elements, attributes. The one module that knows h5py."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import h5py
import numpy as np

from .elements import describe_descr, describe_value, read_dtype, read_value
from .messages import Array
from .selection import Span
from .sources import Source

with contextlib.suppress(ImportError):  # filters beyond those of HDF5 itself: zstd, blosc, lz4 and others
    import hdf5plugin  # noqa: F401  (registers them)

#: Names of filters by their number (https://github.com/HDFGroup/hdf5_plugins, RegisteredFilterPlugins).
FILTERS = {
    1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 305: "lzo", 307: "bzip2",
    32000: "lzf", 32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32013: "zfp", 32015: "zstd", 32026: "blosc2",
}  # fmt: skip
#: What h5py raises where a file is not as it should be, or has what h5py does not know.
ERRORS = (OSError, RuntimeError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, MemoryError)
#: Names that a message about a group lists.
MOST_NAMES = 20
#: Versions of the format for files that are made: the oldest, which every library reads, and which has no checksums
#: or marks of its own that a process killed in between would leave wrong.
MADE = ("earliest", "v110")
#: The dataset that says how many rows of a file have been written, and attributes of the file: whether that is all of
#: them, and what the dataset with the rows is called.
COUNTER, COMPLETE, TABLE = "rows_written", "complete", "table"
#: Items of a list that stands in an attribute, which has 64 KiB at most; longer ones are datasets of their own.
MOST_ITEMS = 2000


# ---- files and links --------------------------------------------------------------------------------------------


class Link(NamedTuple):
    """What a name in a group is: ``kind`` is group, dataset, type, soft or external; the last two lead to ``path``."""

    kind: str
    path: str = ""
    file: str = ""


def open_source(source: Source) -> Any:
    """An HDF5 file as an h5py file. It has to be closed before Python ends: HDF5 would call ``source`` later."""
    return h5py.File(source, "r")


def open_path(path: str) -> Any:
    """The same as HDF5 does it itself, without locks: they hang or lie on shared file systems."""
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        if "flag values" not in str(error):
            raise
        return h5py.File(path, "r")  # this process has it open already, with locks


def find_link(group: Any, name: str) -> Link | None:
    """What a name in a group is; None where there is none. No link is followed: HDF5 would open files by itself."""
    word = name.encode("utf-8", "surrogateescape")
    if not group.id.links.exists(word):
        return None
    kind = group.id.links.get_info(word).type
    if kind == h5py.h5l.TYPE_SOFT:
        return Link("soft", _decode(group.id.links.get_val(word)))
    if kind == h5py.h5l.TYPE_EXTERNAL:
        file, path = group.id.links.get_val(word)
        return Link("external", _decode(path), _decode(file))
    if kind != h5py.h5l.TYPE_HARD:
        return Link("other")
    kinds = {h5py.h5o.TYPE_GROUP: "group", h5py.h5o.TYPE_DATASET: "dataset"}
    return Link(kinds.get(h5py.h5o.get_info(group.id, word).type, "type"))


def _decode(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def list_some(group: Any) -> str:
    """The first names in a group, for a message."""
    names = list(islice(group, MOST_NAMES + 1))
    return ", ".join(names[:MOST_NAMES] + ["…"] * (len(names) > MOST_NAMES)) or "nothing"


def list_datasets(file: Any) -> list[str]:
    """Names of all datasets in the file itself, sorted; links of all kinds are left out.

    So is what only tells how many rows of a file that was made here have been written.
    """
    names: list[str] = []
    file.visititems(lambda name, thing: names.append(f"/{name}") if isinstance(thing, h5py.Dataset) else None)
    is_made_here = COMPLETE in file.attrs and TABLE in file.attrs
    return sorted(name for name in names if not (is_made_here and name == f"/{COUNTER}"))


def open_group(group: Any, name: str) -> Any:
    return h5py.Group(h5py.h5g.open(group.id, name.encode("utf-8", "surrogateescape")))


def open_dataset(group: Any, name: str, beside: str | None = None) -> Any:
    """A dataset; other files that it is in have their places relative to the directory ``beside``.

    HDF5 has one such directory for a dataset, as long as anybody has it open, and reads no attributes where it is not
    the usual one.
    """
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    if beside is not None:
        access.set_efile_prefix(os.fsencode(beside))
        access.set_virtual_prefix(os.fsencode(beside))
    return h5py.Dataset(h5py.h5d.open(group.id, name.encode("utf-8", "surrogateescape"), access))


# ---- elements ---------------------------------------------------------------------------------------------------


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
        return describe_descr(np.dtype(base))
    return "O" if dtype.hasobject else describe_descr(dtype)


def name_type(dataset: Any) -> str:
    """What the elements of a dataset are, for a message."""
    kinds = {
        h5py.h5t.REFERENCE: "references to objects or regions",
        h5py.h5t.VLEN: "lists of lists, or of strings",
        h5py.h5t.COMPOUND: "compounds that have strings, lists or references in them",
        h5py.h5t.TIME: "times in a form that no library reads",
    }
    with contextlib.suppress(*ERRORS):
        return kinds.get(dataset.id.get_type().get_class(), str(dataset.dtype))
    return "of a type that h5py does not know"


def is_raw(dataset: Any) -> bool:
    """Whether the bytes of elements in the file are those in memory: one type in both, padding and all."""
    with contextlib.suppress(*ERRORS):
        return bool(h5py.h5t.py_create(dataset.dtype, logical=True) == dataset.id.get_type())
    return False


def read_slab(dataset: Any, axes: Sequence[Span], dtype: np.dtype[Any], out: Array) -> None:
    """Reads what the spans select, all of a scalar, into C-contiguous memory; elements as ``dtype``."""
    in_file = dataset.id.get_space()
    in_memory = h5py.h5s.create(h5py.h5s.SCALAR)
    if axes:
        counts = tuple(axis.count for axis in axes)
        steps = tuple(axis.step if axis.count > 1 else 1 for axis in axes)
        in_file.select_hyperslab(tuple(axis.start for axis in axes), counts, steps)
        in_memory = h5py.h5s.create_simple(counts)
    dataset.id.read(in_memory, in_file, out, h5py.h5t.py_create(dtype))


# ---- filters and attributes -------------------------------------------------------------------------------------


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
        with contextlib.suppress(*ERRORS):
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


# ---- files that are made ----------------------------------------------------------------------------------------


class Blank(NamedTuple):
    """A file whose rows are written past the library: where they go, how many there are, what is said of them."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    #: Bytes before the first row, None where there are no rows; and before the number of those written, int64.
    offset: int | None
    counter: int
    attributes: dict[str, Any]
    is_complete: bool


def make_blank(path: str, name: str, shape: Sequence[int], dtype: np.dtype[Any], attributes: Mapping[str, Any]) -> None:
    """Makes a file with a dataset of this shape, its attributes, and the place set aside where its rows are to go.

    All that HDF5 keeps of a file is written here and now; no row is, so that the file takes no room on the disk yet.
    """
    with h5py.File(path, "w", libver=MADE, locking=False) as file:
        file.attrs[COMPLETE] = False
        file.attrs[TABLE] = name
        counter = _set_aside(file, COUNTER, (), np.dtype("<i8"))
        counter.attrs["description"] = f"how many rows of {name} have been written"
        dataset = _set_aside(file, name, shape, dtype)
        for key, value in attributes.items():
            if isinstance(value, list | np.ndarray) and len(value) > MOST_ITEMS:
                file[key] = value
            else:
                dataset.attrs[key] = value


def _set_aside(file: Any, name: str, shape: Sequence[int], dtype: np.dtype[Any]) -> Any:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.CONTIGUOUS)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple(tuple(shape)) if shape else h5py.h5s.create(h5py.h5s.SCALAR)
    kind = h5py.h5t.py_create(dtype, logical=True)
    return h5py.Dataset(h5py.h5d.create(file.id, name.encode(), kind, space, plist))


def read_blank(path: str) -> Blank:
    """What `make_blank` has made; OSError, KeyError or ValueError where it is no such file."""
    with open_path(path) as file:
        name, counter = str(file.attrs[TABLE]), file[COUNTER].id.get_offset()
        dataset = file[name]
        if counter is None or (dataset.id.get_offset() is None) is not (dataset.size == 0):
            raise ValueError("it is not stored in one run")
        apart = {
            key: thing.asstr()[()].tolist() if is_text(thing) else thing[()]
            for key, thing in file.items()
            if key not in (name, COUNTER)
        }
        return Blank(
            name,
            dataset.shape,
            dataset.dtype,
            dataset.id.get_offset(),
            counter,
            {**dict(dataset.attrs), **apart},
            bool(file.attrs[COMPLETE]),
        )


def is_text(dataset: Any) -> bool:
    """Whether its elements are strings of any length."""
    return find_kind(dataset.dtype) == "text"


def mark_complete(path: str) -> None:
    """Says in a file that all of its rows are there."""
    with h5py.File(path, "r+", libver=MADE, locking=False) as file:
        file.attrs.modify(COMPLETE, True)
