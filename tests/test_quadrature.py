"""The integral of a normalized density is one, or its error says that it may not be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from demos_hpc.quadrature import Axis, integrate

INF = math.inf


def one(distribution):
    return lambda x: distribution.logpdf(x[:, 0])


def two(first, second):
    return lambda x: first.logpdf(x[:, 0]) + second.logpdf(x[:, 1])


def ring(x):
    """Uniform on the unit disk."""
    return np.where((x**2).sum(axis=1) < 1, -math.log(math.pi), -INF)


def banana(x):
    return stats.norm.logpdf(x[:, 0]) + stats.norm.logpdf(x[:, 1], x[:, 0] ** 2, 0.05)


SMOOTH = {
    "normal": (one(stats.norm()), [-INF], [INF]),
    "far and narrow": (one(stats.norm(5000, 1e-6)), [-INF], [INF]),
    "inside a wide support": (one(stats.norm(0.3123, 1e-9)), [0], [1]),
    "cauchy": (one(stats.cauchy(3, 1e-5)), [-INF], [INF]),
    "power law of index 1.1": (one(stats.pareto(0.1)), [1], [INF]),
    "singular ends": (one(stats.beta(0.1, 0.5)), [0], [1]),
    "half-infinite": (one(stats.expon(scale=1e-8)), [0], [INF]),
    "ends at 0": (lambda x: stats.gamma.logpdf(-x[:, 0], 3.0), [-INF], [0]),
    "uniform": (one(stats.uniform(2, 5)), [2], [7]),
    "two scales": (two(stats.norm(5, 1e-4), stats.norm(-300, 100)), [-INF] * 2, [INF] * 2),
    "one end each": (two(stats.expon(), stats.uniform(0, 1)), [0, 0], [INF, 1]),
    "correlated": (stats.multivariate_normal([0, 0], [[1, 0.99], [0.99, 1]]).logpdf, [-INF] * 2, [INF] * 2),
    "cauchy squared": (two(stats.cauchy(), stats.cauchy()), [-INF] * 2, [INF] * 2),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_without_draws(name):
    log_density, lower, upper = SMOOTH[name]
    result = integrate(log_density, np.array(lower), np.array(upper), None, target=1e-5, max_rows=400_000)
    assert result.converged
    assert abs(result.value - 1) < 1e-6 + result.error
    assert result.masses.sum() == result.value


def test_draws_show_the_way_along_a_narrow_ridge():
    ridge = stats.multivariate_normal([0, 0], [[1, 0.999], [0.999, 1]])
    draws = ridge.rvs(4096, random_state=1)
    result = integrate(ridge.logpdf, np.full(2, -INF), np.full(2, INF), draws, target=1e-5, max_rows=400_000)
    assert result.converged
    assert abs(result.value - 1) < 1e-5


def test_wrong_draws_do_no_harm():
    draws = np.full((2048, 1), 1e6)
    result = integrate(one(stats.norm()), np.array([-INF]), np.array([INF]), draws, target=1e-6, max_rows=100_000)
    assert abs(result.value - 1) < 1e-5 + result.error
    assert result.error < 1e-4


@pytest.mark.parametrize("log_density", [ring, banana])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_hard_has_an_error_that_covers_it(log_density, seed):
    limits = np.full(2, 1.0 if log_density is ring else INF)
    result = integrate(log_density, -limits, limits, None, target=1e-5, max_rows=60_000, seed=seed)
    assert not result.converged
    assert abs(result.value - 1) < result.error


def test_cells_tile_the_support_and_count_draws():
    normal = stats.multivariate_normal([1, -2], [[1, 0.8], [0.8, 1]])
    draws = normal.rvs(8192, random_state=3)
    result = integrate(normal.logpdf, np.full(2, -INF), np.full(2, INF), draws[:4096], target=1e-5, max_rows=400_000)
    counts = result.count(draws[4096:])
    assert counts.sum() == 4096
    full = result.masses * 4096 > 10
    assert np.all(np.abs(counts - 4096 * result.masses)[full] < 6 * np.sqrt(4096 * result.masses[full]))


def test_rows_may_be_drawn_from_the_cells():
    result = integrate(one(stats.norm(7, 0.1)), np.array([-INF]), np.array([INF]), None, target=1e-5, max_rows=100_000)
    x = result.draw(20_000, np.random.default_rng(0))
    assert x.shape == (20_000, 1)
    assert abs(x.mean() - 7) < 0.01
    assert abs(x.std() - 0.1) < 0.01


@pytest.mark.parametrize(
    "axis", [Axis(-INF, INF, 3.0, 0.5), Axis(2.0, INF, 0.0, 4.0), Axis(-INF, -1.0), Axis(-1.0, 5.0)]
)
def test_maps_are_monotone_inverted_and_have_the_right_slope(axis):
    y = np.linspace(-2.5, 2.5, 101)
    x, log_slope = axis.to_x(y)
    assert np.all(np.diff(x) > 0)
    assert np.all((x > axis.lower) & (x < axis.upper))
    assert np.allclose(axis.to_y(x), y, atol=1e-6)
    step = 1e-6
    slope = (axis.to_x(y + step)[0] - axis.to_x(y - step)[0]) / (2 * step)
    assert np.allclose(np.exp(log_slope), slope, rtol=1e-3, atol=1e-7)
