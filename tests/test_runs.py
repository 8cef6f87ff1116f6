"""Rows as they travel: there and back, and whatever a client may say instead."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picking import keys, pick

from demos_hpc.errors import BadFrame
from demos_hpc.runs import MOST_AXES, Run, read_run, to_question
from demos_hpc.selection import Span, arrange, cut, read_selection

CHECK = settings(derandomize=True, deadline=None, max_examples=300)
#: What may stand where something else belongs.
VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 7, 2**53, 2**62, 2**63 - 1, 2**63, 2**64, 10**400, 0.5, 1e308, math.nan, math.inf,
    "", "a", "\ud800", "../../etc/passwd", [], [[]], {}, [None], [0, 1, 5], [0, 1, 2**63], [5, -1, 2], [0, 0, 1],
    [-1, 1, 1], [1, 1], [0, 1, True], [[0, 1, 5]] * 40, {"indices": [1, 2]}, {"indices": [2, 1]}, {"indices": 5},
    {"indices": [2**63 - 1]}, {"indices": [-1]}, {"indices": [0.5]}, {"indices": ["a"]}, {"other": []}, ["a", "a"],
    ["a", 1], "axes",
)  # fmt: skip


def list_indices(axis: Any) -> Any:
    return axis.start + axis.step * np.arange(axis.count) if isinstance(axis, Span) else axis


def to_run(question: Any, lists: Any = (), first: int = 0, count: int = 1) -> Run:
    """As it comes out of JSON."""
    return read_run(json.loads(json.dumps(question)), lists, first, count)


@CHECK
@given(st.data())
def test_units_travel_and_come_together_again(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 9), max_size=3).map(tuple))
    key = data.draw(keys(shape))
    selection = read_selection(key, shape, None, "d")
    if not selection.size:
        return
    axis, bounds = cut(selection, shape, None, 8, 8)
    if data.draw(st.booleans()):
        bounds = np.arange(bounds[-1] + 1)
    array = np.arange(math.prod(shape)).reshape(shape)
    question, lists = to_question(selection, axis)
    parts = []
    for start, stop in pairwise(bounds.tolist()):
        run = to_run(question, [some[start:stop] for some in lists], start, stop - start)
        assert run.counts[axis : axis + 1] == ((stop - start,) if shape else ())
        if not run.axes:
            parts.append(array[np.newaxis])
        elif run.is_flat:
            parts.append(array.reshape(-1)[run.axes[0]])
        else:
            parts.append(array[np.ix_(*map(list_indices, run.axes))])
    rows = np.concatenate(parts, axis=axis)
    np.testing.assert_array_equal(arrange(rows if shape else rows[0], selection, None), pick(array, key))


def test_a_list_travels_apart_where_it_is_cut_and_else_with_the_question() -> None:
    selection = read_selection((slice(0, 6, 2), [3, 1]), (9, 5), None, "d")
    question, lists = to_question(selection, 0)
    assert question == {"axes": [[0, 2, 3], {"indices": [1, 3]}], "axis": 0, "fields": None, "is_flat": False}
    assert lists == []
    question, lists = to_question(selection, 1)
    assert question["axes"] == [[0, 2, 3], None]
    assert [some.tolist() for some in lists] == [[1, 3]]
    run = to_run(question, [np.array([3])], 1, 1)
    assert run.axes[0] == Span(0, 2, 3)
    assert run.axes[1].tolist() == [3]
    assert run.list_axis == 1


GOOD: dict[str, Any] = {"axes": [[0, 1, 10], [2, 3, 4]], "axis": 0, "fields": ["a"], "is_flat": False}


@pytest.mark.parametrize(
    "change",
    [
        {"axis": 2},
        {"axis": -1},
        {"axis": True},
        {"axis": "0"},
        {"axes": {}},
        {"axes": "ab"},
        {"axes": None},
        {"axes": [[0, 1, 10]] * (MOST_AXES + 1)},
        {"axes": [[0, 1], [0, 1, 1]]},
        {"axes": [[0, 1, 10], [0, 1, 1.0]]},
        {"axes": [[-1, 1, 10], [0, 1, 1]]},
        {"axes": [[0, 0, 10], [0, 1, 1]]},
        {"axes": [[0, 1, 10], [0, 1, -1]]},
        {"axes": [[0, 1, 2**63], [0, 1, 1]]},
        {"axes": [[0, 1, 10], "abc"]},
        {"axes": [None, [0, 1, 1]]},
        {"axes": [[0, 1, 10], None]},
        {"axes": [[0, 1, 10], {"indices": [1, 1]}]},
        {"axes": [{"indices": [1, 2]}, {"indices": [1, 2]}]},
        {"fields": []},
        {"fields": "a"},
        {"fields": ["a", "a"]},
        {"fields": [1]},
        {"fields": {"a": 1}},
        {"is_flat": 1},
        {"is_flat": True},
        {"axes": [[0, 1, 10]], "is_flat": True},
    ],
)
def test_what_is_no_selection_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadFrame, match="a question for rows"):
        to_run(GOOD | change, count=2)


@pytest.mark.parametrize("missing", ["axes", "axis"])
def test_what_lacks_something_is_refused(missing: str) -> None:
    with pytest.raises(BadFrame, match=f"KeyError: '{missing}'"):
        to_run({name: value for name, value in GOOD.items() if name != missing})


@pytest.mark.parametrize(("first", "count"), [(0, 11), (10, 1), (2**64 - 1, 1), (0, 2**64 - 1)])
def test_rows_beyond_the_selection_are_refused(first: int, count: int) -> None:
    with pytest.raises(BadFrame, match=r"rows \d+ to \d+ of 10"):
        to_run(GOOD, (), first, count)


@pytest.mark.parametrize(("first", "count"), [(0, 2), (1, 1), (0, 2**40)])
def test_a_scalar_is_one_row(first: int, count: int) -> None:
    scalar = {"axes": [], "axis": 0}
    assert to_run(scalar).axes == ()
    with pytest.raises(BadFrame, match="of a scalar, which is one row"):
        to_run(scalar, (), first, count)


@pytest.mark.parametrize(
    "indices",
    [
        np.array([1, 2, 3]),
        np.array([2.0, 3.0]),
        np.array([1, 2], np.int32),
        np.array([[1], [2]]),
        np.array([2, 1]),
        np.array([2, 2]),
        np.array([-1, 2]),
        np.array([5, -(2**63)]),  # their difference overflows, and is positive
        np.array([2**63 - 1, -(2**63)]),
    ],
)
def test_a_list_that_is_none_is_refused(indices: Any) -> None:
    with pytest.raises(BadFrame, match="a list of"):
        to_run({"axes": [None], "axis": 0}, [indices], 0, 2)


def test_lists_that_wrap_around_are_no_increasing_ones() -> None:
    around = np.array([0, 2**62, 2**63 - 1, -(2**63), -1, 5])
    assert (np.diff(around) > 0).all()
    with pytest.raises(BadFrame, match="does not increase"):
        to_run({"axes": [None], "axis": 0}, [around], 0, 6)


@CHECK
@given(st.data())
def test_whatever_is_asked_is_a_run_or_refused(data: st.DataObject) -> None:
    question = dict(GOOD)
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from([*GOOD, "axes.0", "axes.1", "axes.0.1"]))
        value = data.draw(st.sampled_from(VALUES))
        if "." not in name:
            question[name] = value
        elif isinstance(question.get("axes"), list) and len(question["axes"]) == 2:
            axes = list(question["axes"])
            axes[int(name[5])] = value if len(name) == 6 else [0, value, 3]
            question["axes"] = axes
    lists = data.draw(st.sampled_from([(), (np.arange(2),), (np.arange(2), np.arange(2)), (np.arange(2.0),)]))
    first, count = data.draw(st.sampled_from([(0, 2), (1, 1), (0, 1), (2**63, 2**63)]))
    try:
        run = read_run(question, lists, first, count)
    except BadFrame:
        return
    assert len(run.axes) <= MOST_AXES
    assert all(n >= 0 for n in run.counts)
    assert not run.axes or run.counts[run.axis] == count
    for axis in run.axes:
        if not isinstance(axis, Span):
            assert (np.diff(axis) > 0).all()
            assert (axis >= 0).all()
