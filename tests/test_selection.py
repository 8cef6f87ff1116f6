"""Which rows a key means, held against NumPy; how they are cut; what is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picking import keys, pick

from demos_hpc import selection as module
from demos_hpc.errors import InvalidInput
from demos_hpc.selection import (
    Selection,
    Span,
    arrange,
    count_of,
    cut,
    imagine_chunks,
    merge,
    read_selection,
)

CHECK = settings(derandomize=True, deadline=None, max_examples=300)
SHAPES = st.lists(st.integers(0, 6), max_size=4).map(tuple)


def list_indices(axis: Any) -> np.ndarray[Any, Any]:
    if isinstance(axis, Span):
        return axis.start + axis.step * np.arange(axis.count)
    return axis


def read_all(array: Any, selection: Selection) -> Any:
    """What a worker would read: shaped as the selection's counts."""
    if selection.is_flat:
        return array.reshape(-1)[list_indices(selection.axes[0])]
    if not selection.axes:
        return array
    return array[np.ix_(*map(list_indices, selection.axes))]


@st.composite
def shapes_and_keys(draw: st.DrawFn) -> tuple[tuple[int, ...], Any]:
    shape = draw(SHAPES)
    return shape, draw(keys(shape))


# ---- what is meant ------------------------------------------------------------------------------------------


@CHECK
@given(shapes_and_keys())
def test_a_key_picks_what_numpy_picks(example: tuple[tuple[int, ...], Any]) -> None:
    shape, key = example
    array = np.arange(math.prod(shape)).reshape(shape)
    selection = read_selection(key, shape, None, "d")
    values = read_all(array, selection)
    assert values.shape == (selection.counts if selection.axes else ())
    assert selection.size == values.size
    wanted = pick(array, key)
    np.testing.assert_array_equal(arrange(values, selection, None), wanted)
    assert selection.shape == np.shape(wanted)
    for axis in selection.axes:
        found = list_indices(axis)
        assert (np.diff(found) > 0).all()
        assert count_of(axis) == len(found)


@CHECK
@given(shapes_and_keys())
def test_an_answer_may_go_where_the_caller_wants_it(example: tuple[tuple[int, ...], Any]) -> None:
    shape, key = example
    array = np.arange(math.prod(shape)).reshape(shape)
    selection = read_selection(key, shape, None, "d")
    out = np.full(selection.shape, -1)
    assert arrange(read_all(array, selection), selection, out) is out
    np.testing.assert_array_equal(out, pick(array, key))


def test_a_scalar_is_a_number_or_an_array_of_none_of_axes() -> None:
    array = np.array(5)
    for key, is_array in (((), False), (..., True), ((...,), True)):
        found = arrange(array, read_selection(key, (), None, "d"), None)
        assert isinstance(found, np.ndarray) == is_array
        assert found == 5
    assert isinstance(arrange(np.arange(3)[1:2], read_selection((1, ...), (3,), None, "d"), None), np.integer)


def test_elements_that_are_arrays_are_further_axes() -> None:
    array = np.arange(24).reshape(4, 2, 3)
    chosen = read_selection([3, 0, 0], (4,), None, "d")
    np.testing.assert_array_equal(arrange(array[[0, 3]], chosen, None), array[[3, 0, 0]])
    np.testing.assert_array_equal(arrange(array[2:3], read_selection(2, (4,), None, "d"), None), array[2])


@pytest.mark.parametrize(
    ("key", "fields", "is_one"),
    [
        ("a", ("a",), True),
        (("a", slice(2)), ("a",), True),
        ((slice(2), "b", "a"), ("b", "a"), False),
        (["a"], ("a",), False),
        (["b", "a", "b"], ("b", "a"), False),
        (([1, 0], ["a", "b"]), ("a", "b"), False),
        ((), None, False),
    ],
)
def test_fields_stand_anywhere(key: Any, fields: tuple[str, ...] | None, is_one: bool) -> None:
    selection = read_selection(key, (3,), ("a", "b"), "d")
    assert (selection.fields, selection.is_one_field) == (fields, is_one)


def test_a_mask_may_have_a_field() -> None:
    mask = np.array([[True, False], [False, True]])
    selection = read_selection((mask, "a"), (2, 2), ("a",), "d")
    assert selection.is_flat
    assert selection.fields == ("a",)
    assert list_indices(selection.axes[0]).tolist() == [0, 3]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (4, "d, axis 0: index 4 is out of range, the axis has length 4"),
        ((0, -6), "d, axis 1: index -6 is out of range, the axis has length 5"),
        (10**30, "index 10{30} is out of range"),
        ([0, 4], "axis 0: index 4 is out of range"),
        ([-5, 0], "axis 0: index -5 is out of range"),
        (np.array([2**64 - 1], np.uint64), "index 18446744073709551615 is out of range"),
        ((0, 0, 0), r"3 indices for a dataset of shape \(4, 5\)"),
        ((..., ...), "only once"),
        (slice(None, None, -1), "step -1; it is 1 or more"),
        (slice(0, 3, 0), "slice step cannot be zero"),
        (slice(0.5), "is no slice of it"),
        (1.5, "1.5 is no index; give a slice, an integer, a list of them or a mask"),
        (True, "True is no index"),
        (None, "None is no index"),
        ([0.5], "is no index"),
        (np.zeros(1000), r"an array of shape \(1000,\) and dtype float64 is no index"),
        ([[0], [1]], "is no index"),
        ([[0], [1, 2]], "is no index"),
        ([2**70], "is no index"),
        (([0], [0]), "two lists"),
        ([True, False], "a mask of 2 for 4"),
        (np.zeros(0, bool), "a mask of 0 for 4"),
        (np.zeros((5, 4), bool), r"a mask of shape \(5, 4\) for a dataset of shape \(4, 5\)"),
        ((np.zeros((4, 5), bool), 0), "it stands alone"),
        ("a", "field 'a' of a dataset that has no fields"),
        (b"a", "is no index"),
    ],
)
def test_what_means_nothing_is_refused(key: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_selection(key, (4, 5), None, "d")


def test_lists_are_in_one_piece_and_not_the_callers() -> None:
    """They travel as they are, and again after a server was lost."""
    indices = np.arange(0, 40, 2)[::2]
    selection = read_selection(indices, (100,), None, "d")
    (found,) = selection.axes
    assert isinstance(found, np.ndarray)
    assert found.flags.c_contiguous
    assert not np.shares_memory(found, indices)


def test_fields_that_are_not_there_are_named_with_those_that_are() -> None:
    with pytest.raises(InvalidInput, match="no field 'x', 'y'; there are a, b"):
        read_selection(["a", "x", "y"], (4,), ("a", "b"), "d")


def test_nothing_can_be_asked_of_an_axis_of_no_length_but_nothing() -> None:
    assert read_selection([], (0,), None, "d").shape == (0,)
    assert read_selection(slice(5), (0, 3), None, "d").size == 0
    for key in (0, -1, [0]):
        with pytest.raises(InvalidInput, match="out of range, the axis has length 0"):
            read_selection(key, (0,), None, "d")


# ---- how it is cut ------------------------------------------------------------------------------------------


@contextmanager
def small_units(unit: int, read: int, large: int) -> Iterator[None]:
    with mock.patch.multiple(module, UNIT_BYTES=unit, READ_BYTES=read, LARGE_BYTES=large):
        yield


@st.composite
def cuts(draw: st.DrawFn) -> tuple[Any, ...]:
    shape = draw(st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple))
    chunks = draw(st.one_of(st.none(), st.tuples(*(st.integers(1, 2 * n) for n in shape))))
    return shape, chunks, draw(keys(shape))


@CHECK
@given(cuts(), st.integers(8, 4000), st.integers(8, 20000), st.integers(1, 16))
def test_units_are_a_partition_at_the_boundaries_of_chunks(
    example: tuple[Any, ...], unit: int, read: int, item_bytes: int
) -> None:
    shape, chunks, key = example
    selection = read_selection(key, shape, None, "d")
    with small_units(unit, read, 1 << 30):
        axis, bounds = cut(selection, shape, chunks, item_bytes, item_bytes)
    n_rows = selection.counts[axis] if selection.size else 0
    assert bounds.dtype == np.int64
    assert (bounds[0], bounds[-1]) == (0, n_rows)
    assert (np.diff(bounds) > 0).all()
    if chunks is None or not n_rows:
        return
    rows = list_indices(selection.axes[axis])
    length = chunks[0] * math.prod(shape[1:]) if selection.is_flat else chunks[axis]
    for before, after in pairwise([rows[start:stop] // length for start, stop in pairwise(bounds.tolist())]):
        assert before[-1] < after[0], "a chunk is in two units"


@CHECK
@given(cuts(), st.integers(16, 500))
def test_units_are_no_larger_than_they_may_be(example: tuple[Any, ...], large: int) -> None:
    shape, chunks, key = example
    selection = read_selection(key, shape, None, "d")
    with small_units(16, 64, large):
        axis, bounds = cut(selection, shape, chunks, 8, 8)
    row_bytes = 8 * selection.size // max(bounds[-1], 1)
    assert all(n == 1 or n * row_bytes <= large for n in np.diff(bounds).tolist())
    assert bounds[-1] == (selection.counts[axis] if selection.size else 0)


def cut_evenly(
    key: Any, shape: Sequence[int], chunks: Sequence[int] | None, item_bytes: int = 8
) -> tuple[int, list[int]]:
    axis, bounds = cut(read_selection(key, shape, None, "d"), shape, chunks, item_bytes, item_bytes)
    return axis, bounds.tolist()


def test_units_have_about_four_mebibytes() -> None:
    axis, bounds = cut_evenly((), (10**6, 8), None)
    assert axis == 0
    assert set(np.diff(bounds[:-1])) == {2**22 // 64}
    axis, bounds = cut_evenly((), (10**6, 8), (1000, 8))
    assert set(np.diff(bounds[:-1])) == {65_000}


def test_the_axis_with_most_chunks_is_cut() -> None:
    assert cut_evenly((), (100, 10**6), (100, 1000))[0] == 1
    assert cut_evenly((), (3, 10**9), None)[0] == 1
    assert cut_evenly(0, (100, 10**6), (10, 1000))[0] == 1
    assert cut_evenly((slice(None), 0), (10**6, 100), (1000, 10))[0] == 0


def test_few_columns_of_many_rows_are_cut_by_rows() -> None:
    axis, bounds = cut_evenly((slice(None), [0, 3]), (10**7, 8), (4096, 8))
    assert axis == 0
    assert len(bounds) > 30
    assert all(bound % 4096 == 0 for bound in bounds[:-1])
    many = np.arange(0, 20_000, 2)
    assert cut_evenly((slice(None), many), (10**7, 20_000), (4096, 8))[0] == 1  # too many to send with every unit


def test_rows_that_are_wide_apart_share_units_as_far_as_reading_allows() -> None:
    chunks = (64, 1024)  # half a mebibyte each
    _, bounds = cut_evenly((slice(None, None, 6400),), (64_000_000, 1024), chunks)
    assert set(np.diff(bounds[:-1])) == {16}  # 8 MiB are inflated for them
    _, bounds = cut_evenly((np.arange(0, 64_000_000, 6400),), (64_000_000, 1024), chunks)
    assert set(np.diff(bounds[:-1])) == {16}
    _, bounds = cut_evenly((np.arange(0, 10**7, 10),), (10**7, 8), None)
    assert set(np.diff(bounds[:-1])) <= set(range(64_000, 67_200))


def test_vast_numbers_are_cut_as_well() -> None:
    axis, bounds = cut_evenly((), (2**40, 2), None, 1)
    assert (axis, bounds[-1]) == (0, 2**40)
    assert len(bounds) < 2**22


def test_what_is_stored_in_one_run_is_cut_anywhere() -> None:
    assert imagine_chunks((1000, 7), 8, 560) == (10, 7)
    assert imagine_chunks((3, 10**9), 8, 800) == (1, 100)
    assert imagine_chunks((5, 0, 4), 8, 1000) == (5, 1, 4)
    assert imagine_chunks((), 8, 1000) == ()
    assert imagine_chunks((10, 10), 0, 1000) == (10, 10)


# ---- several at once ----------------------------------------------------------------------------------------


@CHECK
@given(st.data())
def test_merged_selections_are_theirs_one_behind_the_other(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple))
    given_keys = data.draw(st.lists(keys(shape), min_size=2, max_size=4))
    if data.draw(st.booleans()):  # so that they often have the same columns
        rest = [key[1:] if isinstance(key, tuple) else () for key in given_keys]
        given_keys = [(key[0] if isinstance(key, tuple) and key else ..., *rest[0]) for key in given_keys]
    array = np.arange(math.prod(shape)).reshape(shape)
    try:
        selections = [read_selection(key, shape, None, "d") for key in given_keys]
    except InvalidInput:
        return
    merged = merge(selections)
    if merged is None:
        return
    rows = arrange(read_all(array, merged), merged, None)
    wanted = [arrange(read_all(array, s), s, None) for s in selections]
    np.testing.assert_array_equal(rows, np.concatenate(wanted))


def test_only_rows_may_differ() -> None:
    def of(*given_keys: Any, shape: tuple[int, ...] = (9, 5)) -> Selection | None:
        names = ("a", "b")
        return merge([read_selection(key, shape, names, "d") for key in given_keys])

    assert of(slice(3), [5, 4, 4]) is not None
    assert of((slice(3), 2), ([8], 2)) is not None
    assert of((slice(3), "a"), (slice(5), "a")) is not None
    assert of(slice(3)) is None
    assert of(slice(3), 4) is None
    assert of((slice(3), 2), ([8], 3)) is None
    assert of((slice(3), [1]), (slice(3), [1])) is None
    assert of((slice(3), "a"), (slice(3), "b")) is None
    assert of((), (), shape=()) is None
    assert of(np.ones((9, 5), bool), slice(3)) is None
    assert of(slice(None), slice(None), shape=(2**40,)) is None  # no list of so many
