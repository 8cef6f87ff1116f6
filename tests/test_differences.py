"""Gradients from values at neighboring points."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from demos_hpc.differences import RELATIVE_STEP, combine, make_stencil


def stencil_of(points: Any, lower: Any = -np.inf, upper: Any = np.inf, scales: Any = 0.0) -> Any:
    columns = (np.broadcast_to(np.asarray(column, float), points.shape[1]) for column in (lower, upper, scales))
    return make_stencil(points, *columns)


def differentiate(function: Any, points: Any, lower: Any = -np.inf, upper: Any = np.inf, scales: Any = 0.0) -> Any:
    stencil, steps = stencil_of(points, lower, upper, scales)
    n, k = points.shape
    return combine(function(stencil).reshape(1 + 2 * k, n), steps)


def test_the_stencil_has_the_points_first_then_both_sides_of_each_coordinate() -> None:
    points = np.array([[1.0, -2.0, 0.0], [4.0, 5.0, 6.0]])
    stencil, steps = stencil_of(points)
    assert stencil.shape == (14, 3)
    assert steps.shape == (2, 2, 3)
    np.testing.assert_array_equal(stencil[:2], points)
    moved = stencil.reshape(7, 2, 3) - points
    for i in range(3):
        for nth, sign in ((1 + 2 * i, 1), (2 + 2 * i, -1)):
            assert (sign * moved[nth, :, i] > 0).all()
            assert (np.delete(moved[nth], i, axis=1) == 0).all()


def test_smooth_functions_are_differentiated_to_eleven_digits_or_so() -> None:
    rng = np.random.default_rng(1)
    points = rng.normal(size=(50, 3)) * [1.0, 1e3, 1e-2]
    value, gradient = differentiate(lambda p: np.sin(p[:, 0]) + p[:, 1] ** 2 * p[:, 2], points)
    exact = np.stack([np.cos(points[:, 0]), 2 * points[:, 1] * points[:, 2], points[:, 1] ** 2], axis=1)
    np.testing.assert_array_equal(value, np.sin(points[:, 0]) + points[:, 1] ** 2 * points[:, 2])
    scale = np.abs(value)[:, np.newaxis] / np.maximum(np.abs(points), 1e-3)
    assert (np.abs(gradient - exact) < 1e-9 * (np.abs(exact) + scale)).all()
    assert gradient.flags.c_contiguous


def test_at_a_bound_the_difference_is_one_sided() -> None:
    lower, upper = np.array([0.0, -np.inf]), np.array([1.0, 2.0])

    def root(p: Any) -> Any:
        assert (p >= lower).all()
        assert (p <= upper).all()
        return np.exp(p[:, 0]) + p[:, 1]

    points = np.array([[0.0, 2.0], [1.0, 0.0], [0.5, 2.0]])
    _, gradient = differentiate(root, points, lower, upper)
    np.testing.assert_allclose(gradient, np.stack([np.exp(points[:, 0]), np.ones(3)], axis=1), rtol=1e-4)


def test_where_the_value_is_minus_infinity_the_gradient_is_zero() -> None:
    values = np.array([[-np.inf, 0.0], [1.0, -np.inf], [1.0, -np.inf]])
    value, gradient = combine(values, np.ones((2, 2, 1)))
    assert value.tolist() == [-np.inf, 0.0]
    assert gradient[0] == 0.0
    assert np.isnan(gradient[1])


def test_nan_stays_nan() -> None:
    _, gradient = differentiate(lambda p: np.full(len(p), np.nan), np.ones((2, 1)))
    assert np.isnan(gradient).all()


@pytest.mark.parametrize(("n", "k"), [(0, 2), (3, 0), (0, 0), (1, 1)])
def test_few_rows_and_few_coordinates(n: int, k: int) -> None:
    value, gradient = differentiate(lambda p: np.ones(len(p)), np.ones((n, k)))
    assert value.shape == (n,)
    assert gradient.shape == (n, k)


def test_points_without_memory_of_their_own_are_left_alone() -> None:
    points = np.broadcast_to(np.array([1.0, 2.0]), (5, 2))
    _, gradient = differentiate(lambda p: p.sum(axis=1), points)
    np.testing.assert_allclose(gradient, 1.0, rtol=1e-8)


def test_steps_are_as_large_as_the_coordinates_and_no_smaller_than_their_scales_ask_for() -> None:
    points = np.array([[3e-12, -5.0, 0.0, 0.0, 1e-20]])
    _, steps = stencil_of(points, scales=[1e-12, 1.0, 1e-12, 0.0, 2.0])
    expected = RELATIVE_STEP * np.array([3e-12, 5.0, 1e-15, 1.0, 2e-3])
    for side in steps:
        np.testing.assert_allclose(side[0], expected, rtol=1e-9)


@pytest.mark.parametrize("at", [1e-12, 3e-12, 0.0])
def test_a_coordinate_of_tiny_size_is_differentiated_in_its_own_units(at: float) -> None:
    _, gradient = differentiate(lambda p: np.exp(p[:, 0] / 1e-12), np.array([[at]]), scales=1e-12)
    np.testing.assert_allclose(gradient, [[1e12 * np.exp(at / 1e-12)]], rtol=1e-6)


def test_at_both_ends_of_a_support_nobody_looks_outside() -> None:
    lower, upper = np.array([0.0]), np.array([1.0])
    points = np.array([[0.0], [1.0], [0.5]])
    stencil, steps = stencil_of(points, lower, upper, upper - lower)
    assert stencil.min() == 0.0
    assert stencil.max() == 1.0
    assert (steps[:, :, 0] > 0).tolist() == [[True, False, True], [False, True, True]]
