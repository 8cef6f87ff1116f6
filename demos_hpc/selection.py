"""Which part of a dataset is meant: what stands between the brackets, made into numbers, and cut for the workers.

Pure arithmetic on shapes. A selection takes from each axis a `Span`, or from one axis a list of indices; or it takes
single elements, by a mask of the whole. The parts that it is cut into, the *units*, are whole HDF5 chunks wherever
that is possible, so that no chunk is inflated twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import InvalidInput

IndexArray = npt.NDArray[np.int64]
#: Bytes of an answer that one unit should have, and of what it makes a worker read.
UNIT_BYTES = 4 << 20
READ_BYTES = 8 << 20


class Span(NamedTuple):
    """The indices ``start``, ``start + step``, …, ``count`` of them; ``step`` is 1 or more."""

    start: int
    step: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs

    def cut(self, first: int, count: int) -> Span:
        """``count`` of them, from the one numbered ``first``."""
        return Span(self.start + first * self.step, self.step, count)

    @property
    def slice(self) -> slice:
        return slice(self.start, self.start + self.step * (self.count - 1) + 1 if self.count else self.start, self.step)


Axis = Span | IndexArray


@dataclass(frozen=True, eq=False)
class Selection:
    """A part of a dataset.

    ``axes`` has a `Span` for each axis, or on one of them increasing indices. Where ``is_flat``, it has one entry
    instead: increasing indices into the flattened dataset. ``order`` brings what was asked for into the order it was
    asked for in, where that is another one. ``shape`` is that of the answer, without the axes that one index has
    taken away; ``fields`` those of a compound type, None for all, ``is_one_field`` where it was a name and no list.
    """

    axes: tuple[Axis, ...]
    shape: tuple[int, ...]
    fields: tuple[str, ...] | None = None
    is_one_field: bool = False
    is_flat: bool = False
    order: IndexArray | None = None
    #: Whether an answer without axes is still an array, as ``dataset[...]`` is.
    is_array: bool = False

    @property
    def counts(self) -> tuple[int, ...]:
        """How many indices each axis contributes."""
        return tuple(count_of(axis) for axis in self.axes)

    @property
    def size(self) -> int:
        """How many elements are read."""
        return math.prod(self.counts)

    @property
    def list_axis(self) -> int | None:
        """The axis that has a list of indices, if any."""
        return next((j for j, axis in enumerate(self.axes) if not isinstance(axis, Span)), None)


def count_of(axis: Axis) -> int:
    """How many indices an axis contributes."""
    return axis.count if isinstance(axis, Span) else len(axis)


# ---- what stands between the brackets ---------------------------------------------------------------------------


def read_selection(key: Any, shape: Sequence[int], names: Sequence[str] | None, what: str) -> Selection:
    """The selection that ``dataset[key]`` means.

    Parameters
    ----------
    key
        Slices, integers, one list or 1-d mask, ``...``, names of fields, alone or in a tuple; or one mask of the
        whole shape. As in h5py; lists may be in any order and have doubles.
    shape, names
        Of the dataset; the names of its fields, None where it is no compound.
    what
        Its name, for messages.

    Raises
    ------
    InvalidInput
        Where nothing of the dataset is meant: out of range, too many axes, no such field.
    """
    keys = list(key) if isinstance(key, tuple) else [key]
    keys, fields, is_one_field = _take_fields(keys, names, what)
    masks = [k for k in keys if isinstance(k, np.ndarray) and k.dtype == bool and k.ndim != 1]
    if masks:
        return _read_mask(masks[0], len(keys), tuple(shape), fields, is_one_field, what)
    if sum(k is Ellipsis for k in keys) > 1:
        raise InvalidInput(f"{what}: '...' stands for all axes that are not given, so only once")
    given = sum(k is not Ellipsis for k in keys)
    if given > len(shape):
        raise InvalidInput(f"{what}: {given} indices for a dataset of shape {tuple(shape)}")
    at = next((nth for nth, k in enumerate(keys) if k is Ellipsis), len(keys))
    full = [slice(None)] * (len(shape) - given)
    keys = [*keys[:at], *full, *keys[at + 1 :]]
    axes: list[Axis] = []
    counts: list[int] = []
    order = None
    for nth, (k, length) in enumerate(zip(keys, shape, strict=True)):
        place = f"{what}, axis {nth}"
        if isinstance(k, slice):
            axis: Axis = _read_slice(k, length, place)
            counts.append(count_of(axis))
        elif isinstance(k, int | np.integer) and not isinstance(k, bool):
            axis = Span(_read_index(int(k), length, place), 1, 1)
        else:
            if any(not isinstance(a, Span) for a in axes):
                raise InvalidInput(f"{what}: two lists; one axis may have a list, the others slices and numbers")
            axis, order = _read_list(k, length, place)
            counts.append(len(axis) if order is None else len(order))
        axes.append(axis)
    return Selection(tuple(axes), tuple(counts), fields, is_one_field, order=order, is_array=key is Ellipsis)


def _take_fields(
    keys: list[Any], names: Sequence[str] | None, what: str
) -> tuple[list[Any], tuple[str, ...] | None, bool]:
    """Sorts names of fields from what is about axes."""
    words = [k for k in keys if isinstance(k, str)]
    rest = [k for k in keys if not isinstance(k, str)]
    lists = [k for k in rest if isinstance(k, list) and k and all(isinstance(word, str) for word in k)]
    if lists:
        words += lists[0]
        rest = [k for k in rest if k is not lists[0]]
    if not words:
        return rest, None, False
    if names is None:
        raise InvalidInput(f"{what}: field {words[0]!r} of a dataset that has no fields")
    if unknown := [word for word in words if word not in names]:
        raise InvalidInput(f"{what}: no field {', '.join(map(repr, unknown))}; there are {', '.join(names)}")
    return rest, tuple(dict.fromkeys(words)), len(words) == 1 and not lists


def _read_slice(key: slice, length: int, place: str) -> Span:
    try:
        start, stop, step = key.indices(length)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{place}: {key} is no slice of it: {error}") from None
    if step < 1:
        raise InvalidInput(f"{place}: step {step}; it is 1 or more: read it forwards and turn it around")
    return Span(start, step, max(0, -(-(stop - start) // step)))


def _read_index(index: int, length: int, place: str) -> int:
    if not -length <= index < length:
        raise InvalidInput(f"{place}: index {index} is out of range, the axis has length {length}")
    return index % length


def _read_list(key: Any, length: int, place: str) -> tuple[IndexArray, IndexArray | None]:
    """Increasing indices, and the order in which they were asked for where that is another."""
    try:
        array = np.asarray(key)
    except ValueError:
        array = np.empty((), object)
    if array.size == 0 and array.ndim == 1:
        return np.empty(0, np.int64), None
    if array.ndim != 1 or array.dtype.kind not in "iub":
        raise InvalidInput(f"{place}: {key!r} is no index; give a slice, an integer, a list of them or a mask")
    if array.dtype == bool:
        if len(array) != length:
            raise InvalidInput(f"{place}: a mask of {len(array)} for {length}")
        return np.flatnonzero(array).astype(np.int64, copy=False), None
    if array.dtype.kind == "u" and array.max() >= 2**63:
        raise InvalidInput(f"{place}: index {array.max()} is out of range, the axis has length {length}")
    indices = array.astype(np.int64, copy=False)
    if indices.min() < -length or indices.max() >= length:
        bad = indices[(indices < -length) | (indices >= length)][0]
        raise InvalidInput(f"{place}: index {bad} is out of range, the axis has length {length}")
    indices = np.where(indices < 0, indices + length, indices)
    if (np.diff(indices) > 0).all():
        return indices, None
    unique, order = np.unique(indices, return_inverse=True)
    return unique, order.astype(np.int64, copy=False)


def _read_mask(
    mask: Any, n_keys: int, shape: tuple[int, ...], fields: tuple[str, ...] | None, is_one_field: bool, what: str
) -> Selection:
    if n_keys > 1 or mask.shape != shape:
        raise InvalidInput(f"{what}: a mask of shape {mask.shape} for a dataset of shape {shape}; it stands alone")
    if not shape:
        mask = mask.reshape(1)
    indices = np.flatnonzero(mask).astype(np.int64, copy=False)
    return Selection((indices,), (len(indices),), fields, is_one_field, is_flat=True)


# ---- cut for the workers ----------------------------------------------------------------------------------------


class Cut(NamedTuple):
    """How a selection is shared out: along which axis, and the first row of each unit, then the number of all rows."""

    axis: int
    bounds: IndexArray


def cut(
    selection: Selection, shape: Sequence[int], chunks: Sequence[int] | None, item_bytes: int, file_bytes: int
) -> Cut:
    """Cuts a selection into units of about `UNIT_BYTES`, at the boundaries of HDF5 chunks.

    ``item_bytes`` is what an element takes in the answer, ``file_bytes`` in the dataset. The rows of the answer are
    counted along the axis that is cut.
    """
    if not selection.axes:
        return Cut(0, np.array([0, 1]))
    counts = selection.counts
    if selection.is_flat:
        length = math.prod(chunks) if chunks else max(1, UNIT_BYTES // file_bytes)
        return Cut(0, _cut_list(selection.axes[0], length, item_bytes, length * file_bytes))
    stored = tuple(chunks) if chunks else _imagine_chunks(shape, file_bytes)
    axis = selection.list_axis
    if axis is None:
        spans = [_count_chunks(a, c) for a, c in zip(selection.axes, stored, strict=True)]
        axis = spans.index(max(spans))
    row_bytes = item_bytes * math.prod(counts) // max(counts[axis], 1)
    along = selection.axes[axis]
    if not isinstance(along, Span):
        touched = file_bytes * stored[axis] * math.prod(n for j, n in enumerate(counts) if j != axis)
        return Cut(axis, _cut_list(along, stored[axis], row_bytes, touched if chunks else 0))
    return Cut(axis, _cut_span(along, stored[axis], row_bytes))


def _imagine_chunks(shape: Sequence[int], item_bytes: int) -> tuple[int, ...]:
    """What is stored in one run may be cut anywhere along its first axis."""
    row_bytes = item_bytes * math.prod(shape[1:])
    return (max(1, UNIT_BYTES // max(row_bytes, 1)), *shape[1:])


def _count_chunks(axis: Axis, length: int) -> int:
    assert isinstance(axis, Span)
    if not axis.count or not length:
        return 0
    return (axis.start + axis.step * (axis.count - 1)) // length - axis.start // length + 1


def _cut_span(span: Span, length: int, row_bytes: int) -> IndexArray:
    """Units of as many whole chunks as make `UNIT_BYTES`."""
    if not span.count:
        return np.zeros(1, np.int64)
    rows_in_chunk = max(1, length // span.step)
    step = length * max(1, UNIT_BYTES // max(row_bytes * rows_in_chunk, 1))
    last = span.start + span.step * (span.count - 1)
    edges = np.arange(span.start // step + 1, last // step + 1, dtype=np.int64) * step
    inner = -(-(edges - span.start) // span.step)
    return np.unique(np.concatenate([[0], inner, [span.count]]))


def _cut_list(indices: Axis, length: int, row_bytes: int, chunk_bytes: int) -> IndexArray:
    """Units that make a worker read about `READ_BYTES`, and answer `UNIT_BYTES`."""
    assert not isinstance(indices, Span)
    n = len(indices)
    if not n:
        return np.zeros(1, np.int64)
    is_new = np.concatenate([[True], np.diff(indices // max(length, 1)) != 0])
    read, answered = np.cumsum(is_new * chunk_bytes), np.arange(n) * row_bytes
    units = np.maximum(read // READ_BYTES, 0) + answered // UNIT_BYTES
    return np.concatenate([np.flatnonzero(np.concatenate([[True], np.diff(units) != 0])), [n]]).astype(np.int64)


# ---- several at once, and put together again --------------------------------------------------------------------


def merge(selections: Sequence[Selection]) -> Selection | None:
    """Selections that differ in their rows only, as one that has all their rows, one behind the other."""
    if len(selections) < 2 or any(not s.axes or s.is_flat or len(s.shape) < 1 for s in selections):
        return None
    first = selections[0]
    rest, fields = first.axes[1:], (first.fields, first.is_one_field)
    if any(not isinstance(axis, Span) for axis in rest):
        return None
    for other in selections:
        is_alike = (other.fields, other.is_one_field) == fields and len(other.shape) == len(first.shape)
        if not is_alike or any(not isinstance(a, Span) or a != b for a, b in zip(other.axes[1:], rest, strict=True)):
            return None
        if other.shape[1:] != first.shape[1:]:
            return None
    parts = []
    for s in selections:
        along = s.axes[0]
        if isinstance(along, Span):
            rows = along.start + along.step * np.arange(along.count, dtype=np.int64)
        else:
            rows = along if s.order is None else along[s.order]
        if len(rows) != s.shape[0]:
            return None  # a single index, without an axis of its own
        parts.append(rows)
    rows, order = np.unique(np.concatenate(parts), return_inverse=True)
    return Selection((rows, *rest), (len(order), *first.shape[1:]), *fields, order=order.astype(np.int64, copy=False))


def arrange(values: Any, selection: Selection, axis: int, out: Any) -> Any:
    """Rows along ``axis`` as the caller wants them: in order, without the axes that one index took away."""
    if axis:
        values = np.moveaxis(values, 0, axis)
    if selection.order is not None:
        values = np.take(values, selection.order, axis=selection.list_axis)
    if selection.is_one_field:
        (name,) = selection.fields or ()
        values = values[name]
    values = values.reshape(selection.shape)
    if out is not None:
        if not np.shares_memory(out, values):
            out[...] = values
        return out
    if not selection.shape:
        return values if selection.is_array else values[()]
    return np.ascontiguousarray(values)
