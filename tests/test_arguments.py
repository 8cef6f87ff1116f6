"""What a caller gave, read or refused."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos_hpc.arguments import (
    check_out,
    describe_outside,
    find_outside,
    read_count,
    read_params,
    read_rows,
    read_seed,
    read_timeout,
)
from demos_hpc.errors import InvalidInput
from demos_hpc.spec import ModelSpec, Observable, Parameter

CHECK = settings(derandomize=True, deadline=None)
SPEC = ModelSpec(
    name="m",
    parameters=(Parameter("a"), Parameter("b", lower=0.0, upper=1.0), Parameter("c", upper=5.0)),
    observables=(Observable("x"), Observable("y")),
)
FREE = ModelSpec(name="free", parameters=(Parameter("a"),), observables=(Observable("x"),))


def test_an_array_of_the_right_kind_is_taken_as_it_is() -> None:
    x = np.ones((3, 2))
    assert read_rows(x, "x", 2, SPEC) is x
    params = np.ones(3)
    assert read_params(params, SPEC) is params


@pytest.mark.parametrize(
    "x",
    [[[1, 2]], ((1.0, 2.0),), np.ones((1, 2), np.float32), np.ones((2, 1)).T, np.ones((2, 4))[:, ::2], np.ones((0, 2))],
    ids=["ints", "tuples", "float32", "transposed", "strided", "empty"],
)
def test_everything_else_becomes_contiguous_float64(x: Any) -> None:
    got = read_rows(x, "x", 2, SPEC)
    assert got.dtype == np.float64
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, np.asarray(x))


@pytest.mark.parametrize("x", [1, [1.0, 2.0], [[1.0]], [[[1.0, 2.0]]], np.ones((3, 3))], ids=str)
def test_rows_of_another_shape_are_refused(x: Any) -> None:
    with pytest.raises(InvalidInput, match=r"rows has shape .*; model 'm' takes \(n, 2\): x, y"):
        read_rows(x, "rows", 2, SPEC)


def test_the_remedy_for_a_row_or_a_column_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"for one row write x\[np.newaxis\]$"):
        read_rows([1.0, 2.0], "x", 2, SPEC)
    with pytest.raises(InvalidInput, match=r"for one column write x\[:, np.newaxis\]$"):
        read_rows([1.0, 2.0, 3.0], "x", 1, FREE)
    with pytest.raises(InvalidInput, match=r"x, y$"):
        read_rows([1.0, 2.0, 3.0], "x", 2, SPEC)


@pytest.mark.parametrize(
    "values",
    [[["a", "b"]], [[None, 1]], [[1j, 2]], [[True, False]], [[Decimal(1), Fraction(1, 2)]], [[b"1", b"2"]]],
    ids=["text", "nothing", "complex", "bool", "objects", "bytes"],
)
def test_what_is_no_number_is_refused(values: Any) -> None:
    with pytest.raises(InvalidInput, match=r"x has dtype .*; it takes numbers, sent as float64"):
        read_rows(values, "x", 2, SPEC)


def test_what_is_no_array_is_refused() -> None:
    with pytest.raises(InvalidInput, match="x is no array"):
        read_rows([[1.0, 2.0], [1.0]], "x", 2, SPEC)


def test_params_are_one_point_or_points() -> None:
    assert read_params(None, SPEC) is None
    assert read_params([1, 2, 3], SPEC).shape == (3,)  # type: ignore[union-attr]
    assert read_params([[1, 2, 3]] * 4, SPEC, n_rows=4).shape == (4, 3)  # type: ignore[union-attr]
    for params in ([1, 2], [[1, 2]], 1.0, np.ones((2, 2, 3)), []):
        with pytest.raises(InvalidInput, match=r"params has shape .*; model 'm' takes 3: a, b, c"):
            read_params(params, SPEC)
    with pytest.raises(InvalidInput, match="params has 4 rows and x 5"):
        read_params(np.ones((4, 3)), SPEC, n_rows=5)


def test_params_by_name_in_any_order() -> None:
    got = read_params({"c": 3, "a": np.array([1, 2]), "b": 0.5}, SPEC)
    np.testing.assert_array_equal(got, [[1.0, 0.5, 3.0], [2.0, 0.5, 3.0]])  # type: ignore[arg-type]
    assert got.flags.c_contiguous  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "params: missing a, b, c; model 'm' takes 3: a, b, c"),
        ({"a": 1, "b": 2}, "params: missing c;"),
        ({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}, "params: unknown d, e;"),
        ({"a": 1, "B": 2, "c": 3}, "params: unknown B; missing b;"),
        ({"a": "1", "b": 2, "c": 3}, "parameter 'a' has dtype"),
        ({"a": [1, 2], "b": [1, 2, 3], "c": 3}, "columns of different lengths: {'a': .2,., 'b': .3,., 'c': ..}"),
        ({"a": [[[1]]], "b": 2, "c": 3}, "params has shape"),
        ({1: 1, "a": 1, "b": 2, "c": 3}, "params: unknown 1;"),
    ],
)
def test_names_that_do_not_fit(params: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_params(params, SPEC)


def test_bounds_are_inclusive_and_nan_is_not_outside() -> None:
    points = np.array([[0, 0, 5], [0, 1, 5], [0, -1e-9, 0], [0, 2, 0], [9e9, 0.5, 5.1], [np.nan, np.nan, np.nan]])
    np.testing.assert_array_equal(find_outside(points, SPEC), [False, False, True, True, True, False])
    assert find_outside(points[2], SPEC)
    assert not find_outside(points[5], SPEC)
    assert find_outside(None, SPEC) is False
    assert find_outside(np.array([[np.inf]]), FREE) is False


def test_the_first_parameter_outside_is_named() -> None:
    assert describe_outside(np.array([0, 2.0, 9.0]), SPEC) == "parameter 'b' is 2.0, outside [0.0, 1.0]"
    assert describe_outside(np.array([[0, 1.0, 5.0], [0, 1.0, 9.0]]), SPEC).startswith("parameter 'c' is 9.0, outside")
    assert "within" in describe_outside(np.array([0, 1.0, 5.0]), SPEC)


def test_out_is_taken_as_it_is_or_refused() -> None:
    out = np.empty((3, 2))
    assert check_out(out, (3, 2)) is out
    read_only = np.empty((3, 2))
    read_only.flags.writeable = False
    for bad in (np.empty((2, 3)), np.empty((3, 2), ">f8"), np.empty((2, 3)).T, read_only, [[0, 0]] * 3, None):
        with pytest.raises(InvalidInput, match=r"out\[1\] is "):
            check_out(bad, (3, 2), "out[1]")


@pytest.mark.parametrize("n", [0, 5, np.int64(5), np.uint8(5), 2**40])
def test_counts(n: Any) -> None:
    assert read_count(n) == int(n)
    assert type(read_count(n)) is int


@pytest.mark.parametrize("n", [-1, 5.0, "5", None, True, np.float64(5), [5], np.bool_(True)], ids=repr)
def test_counts_that_are_none(n: Any) -> None:
    with pytest.raises(InvalidInput, match="it is a number of draws"):
        read_count(n)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, "1", True, [1]], ids=repr)
def test_seeds_that_are_none(seed: Any) -> None:
    with pytest.raises(InvalidInput, match=r"it is an int from 0 to 2\*\*64 - 1"):
        read_seed(seed)


@CHECK
@given(st.integers(0, 2**64 - 1))
def test_seeds(seed: int) -> None:
    assert read_seed(seed) == seed
    assert read_seed(np.uint64(seed)) == seed


@pytest.mark.parametrize("seconds", [0, 5, 2.5, np.float32(1), float("inf"), np.int64(3)], ids=repr)
def test_timeouts(seconds: Any) -> None:
    assert read_timeout(seconds) == seconds


@pytest.mark.parametrize("seconds", [-1, float("nan"), "5", None, True, [1.0], 1j], ids=repr)
def test_timeouts_that_are_none(seconds: Any) -> None:
    with pytest.raises(InvalidInput, match="it is a number of seconds, >= 0"):
        read_timeout(seconds)
