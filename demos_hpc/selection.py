"""Which part of a dataset is meant: what stands between the brackets, made into numbers, and cut for the workers.

Pure arithmetic on shapes. A selection takes from each axis a `Span`, or from one axis a list of indices; or it takes
single elements, by a mask of the whole. The parts that it is cut into, the *units*, are whole HDF5 chunks wherever
that is possible, so that no chunk is inflated twice.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import InvalidInput

IndexArray = npt.NDArray[np.int64]
#: Bytes of an answer that one unit should have, and of what it makes a worker read.
UNIT_BYTES = 4 << 20
READ_BYTES = 8 << 20
#: Bytes of an answer beyond which a unit is cut within chunks, and beyond which a worker does not compute it.
LARGE_BYTES = 64 << 20
MOST_UNIT_BYTES = 256 << 20
#: Bytes of chunks beyond which a worker does not begin to read them for one unit.
MOST_READ_BYTES = 16 << 30
#: Indices of a list that go with every unit, where another axis is better to cut.
MOST_LISTED = 4096
#: Rows that several selections may have for them to become one list.
MOST_MERGED = 1 << 20


class Span(NamedTuple):
    """The indices ``start``, ``start + step``, …, ``count`` of them; ``step`` is 1 or more."""

    start: int
    step: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs

    def cut(self, first: int, count: int) -> Span:
        """``count`` of them, from the one numbered ``first``."""
        return Span(self.start + first * self.step, self.step, count)


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
        return find_list_axis(self.axes)


def count_of(axis: Axis) -> int:
    """How many indices an axis contributes."""
    return axis.count if isinstance(axis, Span) else len(axis)


def find_list_axis(axes: Sequence[Axis]) -> int | None:
    """The axis that has a list of indices, if any."""
    return next((j for j, axis in enumerate(axes) if not isinstance(axis, Span)), None)


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
    n_dots = sum(k is Ellipsis for k in keys)
    if n_dots > 1:
        raise InvalidInput(f"{what}: '...' stands for all axes that are not given, so only once")
    given = len(keys) - n_dots
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
        elif (index := _as_index(k)) is not None:
            axis = Span(_read_index(index, length, place), 1, 1)
        else:
            if find_list_axis(axes) is not None:
                raise InvalidInput(f"{what}: two lists; one axis may have a list, the others slices and numbers")
            axis, order = _read_list(k, length, place)
            counts.append(len(axis) if order is None else len(order))
        axes.append(axis)
    return Selection(tuple(axes), tuple(counts), fields, is_one_field, order=order, is_array=bool(n_dots) and not shape)


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


def _as_index(key: Any) -> int | None:
    """A single index; None where it is something else."""
    if isinstance(key, bool | np.bool_) or (isinstance(key, np.ndarray) and key.ndim):
        return None
    try:
        return operator.index(key)
    except TypeError:
        return None


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
    except (TypeError, ValueError, OverflowError):
        array = np.empty((), object)
    if array.ndim == 1 and not len(array) and array.dtype != bool:
        return np.empty(0, np.int64), None
    if array.ndim != 1 or array.dtype.kind not in "iub":
        found = repr(key) if len(repr(key)) < 100 else f"an array of shape {array.shape} and dtype {array.dtype}"
        raise InvalidInput(f"{place}: {found} is no index; give a slice, an integer, a list of them or a mask")
    if array.dtype == bool:
        if len(array) != length:
            raise InvalidInput(f"{place}: a mask of {len(array)} for {length}")
        return np.flatnonzero(array).astype(np.int64, copy=False), None
    least, most = int(array.min()), int(array.max())
    if least < -length or most >= length:
        bad = least if least < -length else most
        raise InvalidInput(f"{place}: index {bad} is out of range, the axis has length {length}")
    # A copy, in one piece: it travels as it is, perhaps a second time, and the caller may go on with theirs.
    indices = np.array(array, dtype=np.int64, order="C")
    if least < 0:
        indices = np.where(indices < 0, indices + length, indices)
    if (indices[1:] > indices[:-1]).all():
        return indices, None
    unique, order = np.unique(indices, return_inverse=True)
    return unique, order.astype(np.int64, copy=False)


def _read_mask(
    mask: Any, n_keys: int, shape: tuple[int, ...], fields: tuple[str, ...] | None, is_one_field: bool, what: str
) -> Selection:
    if n_keys > 1 or mask.shape != shape:
        raise InvalidInput(f"{what}: a mask of shape {mask.shape} for a dataset of shape {shape}; it stands alone")
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
    counted along the axis that is cut. Only where whole chunks make more than `LARGE_BYTES` are they cut as well.
    """
    if not selection.axes or not selection.size:
        return Cut(0, np.array([0, 1] if not selection.axes else [0]))
    counts, axes = selection.counts, selection.axes
    stored = tuple(chunks) if chunks else imagine_chunks(shape, file_bytes, UNIT_BYTES)
    chunk_bytes = file_bytes * math.prod(stored) if chunks else 0
    if selection.is_flat:
        indices = axes[0]
        assert not isinstance(indices, Span)
        # Chunks that lie beside one another hold as many whole rows of the dataset.
        layer = stored[0] * math.prod(shape[1:]) if chunks and shape else max(1, UNIT_BYTES // max(file_bytes, 1))
        beside = math.prod(-(-n // length) for n, length in zip(shape[1:], stored[1:], strict=False))
        return Cut(0, _limit(_cut_list(indices, layer, item_bytes, chunk_bytes, beside), item_bytes))
    touched = [count_chunks(axis, length) for axis, length in zip(axes, stored, strict=True)]
    axis = touched.index(max(touched))
    listed = selection.list_axis
    if listed is not None and (touched[listed] == touched[axis] or counts[listed] > MOST_LISTED):
        axis = listed
    row_bytes = item_bytes * (math.prod(counts) // counts[axis])
    layer_bytes = chunk_bytes * math.prod(n for j, n in enumerate(touched) if j != axis)
    along = axes[axis]
    if isinstance(along, Span):
        bounds = _cut_span(along, stored[axis], row_bytes, layer_bytes)
    else:
        bounds = _cut_list(along, stored[axis], row_bytes, layer_bytes, 1)
    return Cut(axis, _limit(bounds, row_bytes))


def imagine_chunks(shape: Sequence[int], item_bytes: int, n_bytes: int) -> tuple[int, ...]:
    """What is stored in one run may be cut anywhere: runs of about so many bytes."""
    room, lengths = max(1, n_bytes // max(item_bytes, 1)), []
    for length in reversed(shape):
        lengths.append(max(1, min(length, room)))
        room = max(1, room // lengths[-1])
    return tuple(reversed(lengths))


def count_chunks(axis: Axis, length: int) -> int:
    """Chunks of ``length`` that an axis takes something of."""
    if not isinstance(axis, Span):
        return 1 + int(np.count_nonzero(np.diff(axis // length)))
    if axis.step >= length:
        return axis.count
    return (axis.start + axis.step * (axis.count - 1)) // length - axis.start // length + 1


def _cut_span(span: Span, length: int, row_bytes: int, layer_bytes: int) -> IndexArray:
    """Units of as many whole chunks as make `UNIT_BYTES`, or are `READ_BYTES`; chunks side by side are a layer."""
    rows_in_chunk = max(1, length // span.step)
    n_chunks = max(1, min(UNIT_BYTES // max(row_bytes * rows_in_chunk, 1), READ_BYTES // max(layer_bytes, 1)))
    if span.step >= length:
        return np.append(np.arange(0, span.count, n_chunks, dtype=np.int64), span.count)
    step = length * n_chunks
    last = span.start + span.step * (span.count - 1)
    edges = np.arange(span.start // step + 1, last // step + 1, dtype=np.int64) * step
    inner = -(-(edges - span.start) // span.step)
    return np.unique(np.concatenate([[0], inner, [span.count]]))


def _cut_list(indices: IndexArray, length: int, row_bytes: int, chunk_bytes: int, beside: int) -> IndexArray:
    """Units that make a worker read about `READ_BYTES`, or answer `UNIT_BYTES`; ``beside`` chunks are a layer."""
    starts = _find_starts(indices // length)
    counts = np.diff(starts, append=len(indices))
    read = np.minimum(counts, beside) * min(chunk_bytes / READ_BYTES, 1.0)
    cost = np.maximum(counts * (row_bytes / UNIT_BYTES), read)
    before = np.cumsum(cost) - cost
    return np.append(starts[_find_starts(np.floor(before + 1e-9))], len(indices))


def _find_starts(values: npt.NDArray[Any]) -> IndexArray:
    """Where runs of equal values begin."""
    return np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]])).astype(np.int64, copy=False)


def _limit(bounds: IndexArray, row_bytes: int) -> IndexArray:
    """The same units, those of more than `LARGE_BYTES` cut."""
    most = max(1, LARGE_BYTES // max(row_bytes, 1))
    if (np.diff(bounds) <= most).all():
        return bounds
    pieces = [np.arange(start, stop, most, dtype=np.int64) for start, stop in pairwise(bounds.tolist())]
    return np.append(np.concatenate(pieces), bounds[-1])


# ---- several at once, and put together again --------------------------------------------------------------------


def merge(selections: Sequence[Selection]) -> Selection | None:
    """Selections that differ in their rows only, as one that has all their rows, one behind the other."""
    if len(selections) < 2 or any(not s.axes or s.is_flat or not s.shape for s in selections):
        return None
    first = selections[0]
    rest, fields = first.axes[1:], (first.fields, first.is_one_field)
    if find_list_axis(rest) is not None or sum(s.shape[0] for s in selections) > MOST_MERGED:
        return None
    parts = []
    for s in selections:
        is_alike = (s.fields, s.is_one_field) == fields and s.shape[1:] == first.shape[1:]
        if not is_alike or find_list_axis(s.axes[1:]) is not None or s.axes[1:] != rest:
            return None
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


def arrange(values: Any, selection: Selection, out: Any) -> Any:
    """What was read as the caller wants it: in order, without the axes that one index took away, in ``out`` if given.

    ``values`` has an axis for each of the selection's, and further ones where its elements are arrays.
    """
    if selection.order is not None:
        values = np.take(values, selection.order, axis=selection.list_axis)
    if selection.is_one_field:
        (name,) = selection.fields or ()
        values = values[name]
    values = values.reshape((*selection.shape, *values.shape[len(selection.axes) :]))
    if out is not None:
        if not np.may_share_memory(out, values):
            out[...] = values
        return out
    if not values.shape:
        return values if selection.is_array else values[()]
    return np.ascontiguousarray(values)
