"""Rows of a selection as they travel from a client to the workers that read them: JSON, and a list of indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import BadFrame
from .selection import Axis, IndexArray, Selection, Span, count_of

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


def to_question(selection: Selection, axis: int) -> tuple[dict[str, Any], list[IndexArray]]:
    """A selection as JSON, and the list of indices apart; rows are counted along ``axis``."""
    axes = [list(a) if isinstance(a, Span) else None for a in selection.axes]
    question = {"axes": axes, "axis": axis, "fields": selection.fields, "is_flat": selection.is_flat}
    return question, [a for a in selection.axes if not isinstance(a, Span)]


def read_run(question: Mapping[str, Any], lists: Sequence[Any], first: int, count: int) -> Run:
    """``count`` rows, from row ``first``, of what `to_question` gave; ``lists`` has the indices of these rows only.

    Raises
    ------
    BadFrame
        Where it is no selection.
    """
    try:
        axis, fields = question["axis"], question.get("fields")
        spans = [None if a is None else Span(*map(_to_int, a)) for a in question["axes"]]
        is_flat = question.get("is_flat") is True
        if not isinstance(axis, int) or len(spans) > MOST_AXES or not 0 <= axis <= max(len(spans) - 1, 0):
            raise ValueError(f"axis {axis!r} of {len(spans)}")
        if fields is not None and not (isinstance(fields, list) and all(isinstance(name, str) for name in fields)):
            raise ValueError(f"fields {fields!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise BadFrame(f"a question for rows that is none: {type(error).__name__}: {error}") from None
    lacking = [j for j, span in enumerate(spans) if span is None]
    if len(lacking) != len(lists) or (lacking and lacking != [axis]):
        raise BadFrame(f"a question for rows with {len(lists)} lists, for axes {lacking}, cut along axis {axis}")
    if any(span is not None and (span.start < 0 or span.step < 1 or span.count < 0) for span in spans):
        raise BadFrame("a question for rows with a span that is none")
    axes: list[Axis] = []
    for j, span in enumerate(spans):
        if span is None:
            axes.append(_check_list(lists[0], count))
        elif j == axis:
            if first + count > span.count:
                raise BadFrame(f"rows {first} to {first + count} of {span.count}")
            axes.append(span.cut(first, count))
        else:
            axes.append(span)
    return Run(tuple(axes), axis, None if fields is None else tuple(fields), is_flat)


def _to_int(value: Any) -> int:
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise ValueError(f"{value!r} is no index")
    return value


def _check_list(array: Any, count: int) -> IndexArray:
    indices: IndexArray = np.asarray(array)
    if indices.dtype != np.int64 or indices.shape != (count,) or (count and indices[0] < 0):
        raise BadFrame(f"a list of {indices.shape} {indices.dtype} for {count} rows")
    if not (np.diff(indices) > 0).all():
        raise BadFrame("a list of indices that does not increase")
    return indices
