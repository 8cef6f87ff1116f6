"""Rows of a selection as they travel from a client to the workers that read them: JSON, and a list of indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import BadFrame
from .selection import Axis, IndexArray, Selection, Span, count_of, find_list_axis

#: Axes of a dataset, as HDF5 has it.
MOST_AXES = 32


@dataclass(frozen=True, eq=False)
class Run:
    """Some rows of a selection, for one worker: ``axes`` as in `Selection`, rows along ``axis``."""

    axes: tuple[Axis, ...]
    axis: int
    fields: tuple[str, ...] | None
    is_flat: bool
    counts: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", tuple(count_of(axis) for axis in self.axes))

    @property
    def list_axis(self) -> int | None:
        """The axis that has a list of indices, if any."""
        return find_list_axis(self.axes)


def to_question(selection: Selection, axis: int) -> tuple[dict[str, Any], list[IndexArray]]:
    """A selection as JSON, and apart the list of indices along ``axis``, by which rows are counted, if it has one."""
    axes: list[Any] = [list(a) if isinstance(a, Span) else {"indices": a.tolist()} for a in selection.axes]
    question = {"axes": axes, "axis": axis, "fields": selection.fields, "is_flat": selection.is_flat}
    if not axes or isinstance(along := selection.axes[axis], Span):
        return question, []
    axes[axis] = None
    return question, [along]


def read_run(question: Mapping[str, Any], lists: Sequence[Any], first: int, count: int) -> Run:
    """``count`` rows, from row ``first``, of what `to_question` gave; ``lists`` has the indices of these rows only.

    Raises
    ------
    BadFrame
        Where it is no selection.
    """
    try:
        axis, fields, is_flat = question["axis"], question.get("fields"), question.get("is_flat", False)
        described = question["axes"]
        if not isinstance(described, list) or len(described) > MOST_AXES or not isinstance(is_flat, bool):
            raise ValueError("axes")
        if type(axis) is not int or not 0 <= axis <= max(len(described) - 1, 0):
            raise ValueError(f"axis {axis!r} of {len(described)}")
        if fields is not None:
            _check_fields(fields)
        axes = [None if a is None else _read_axis(a) for a in described]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadFrame(f"a question for rows that is none: {type(error).__name__}: {str(error)[:200]}") from None
    lacking = [j for j, a in enumerate(axes) if a is None]
    if len(lacking) != len(lists) or lacking not in ([], [axis]):
        raise BadFrame(f"a question for rows with {len(lists)} lists, for axes {lacking}, cut along axis {axis}")
    if not axes and (first, count) != (0, 1):
        raise BadFrame(f"rows {first} to {first + count} of a scalar, which is one row")
    if axes:
        axes[axis] = _take(axes[axis], lists, first, count)
    whole = tuple(a for a in axes if a is not None)
    n_lists = sum(not isinstance(a, Span) for a in whole)
    if n_lists > 1 or (is_flat and (len(whole) != 1 or n_lists != 1)):
        raise BadFrame(f"a question for rows with {n_lists} lists for {len(whole)} axes")
    return Run(whole, axis, None if fields is None else tuple(fields), is_flat)


def _take(axis: Axis | None, lists: Sequence[Any], first: int, count: int) -> Axis:
    """The rows that are meant, of the axis by which they are counted."""
    if axis is None:
        return _check_list(lists[0], count)
    if first + count > count_of(axis):
        raise BadFrame(f"rows {first} to {first + count} of {count_of(axis)}")
    return axis.cut(first, count) if isinstance(axis, Span) else axis[first : first + count]


def _check_fields(fields: Any) -> None:
    if not isinstance(fields, list) or not fields or not all(isinstance(name, str) for name in fields):
        raise ValueError("fields are a list of names")
    if len(set(fields)) < len(fields):
        raise ValueError("fields that are not all different")


def _read_axis(described: Any) -> Axis:
    if isinstance(described, dict):
        indices = described["indices"]
        return _check_list(np.array([_to_int(index) for index in indices], dtype=np.int64), len(indices))
    span = Span(*map(_to_int, described))
    if span.start < 0 or span.step < 1 or span.count < 0:
        raise ValueError(f"{span}")
    return span


def _to_int(value: Any) -> int:
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise ValueError(f"{value!r} is no index")
    return value


def _check_list(array: Any, count: int) -> IndexArray:
    indices: IndexArray = np.asarray(array)
    if indices.dtype != np.int64 or indices.shape != (count,) or (count and indices[0] < 0):
        raise BadFrame(f"a list of {indices.shape} {indices.dtype} for {count} rows")
    if not (indices[1:] > indices[:-1]).all():
        raise BadFrame("a list of indices that does not increase")
    return indices
