"""Rows, blocks and cells: counted right, and summed to the same bits wherever they stand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos_hpc.blocks import count_blocks, limit_run, sum_blocks, sum_pairwise

fixed = settings(derandomize=True, deadline=None, database=None, max_examples=200)


def is_rectangle(first: int, count: int, period: int) -> bool:
    """Whether a run of cells stays inside one row of ``period``, or consists of whole rows."""
    inside = first // period == (first + count - 1) // period
    return inside or (first % period == 0 and count % period == 0)


@pytest.mark.parametrize(
    ("n_rows", "block_rows", "n_blocks"),
    [(0, 4, 0), (1, 4, 1), (4, 4, 1), (5, 4, 2), (2**63 + 1, 1024, 2**53 + 1), (2**40, 1, 2**40)],
)
def test_count_blocks(n_rows: int, block_rows: int, n_blocks: int) -> None:
    assert count_blocks(n_rows, block_rows) == n_blocks


@fixed
@given(first=st.integers(0, 60), count=st.integers(1, 60), period=st.integers(1, 25))
def test_limit_run_is_the_longest_rectangle(first: int, count: int, period: int) -> None:
    longest = max(n for n in range(1, count + 1) if is_rectangle(first, n, period))
    assert limit_run(first, count, period) == longest


@fixed
@given(units=st.integers(1, 400), period=st.integers(1, 25), wanted=st.integers(1, 60))
def test_runs_cover_everything_once(units: int, period: int, wanted: int) -> None:
    first = 0
    while first < units:
        first += limit_run(first, min(wanted, units - first), period)
    assert first == units


def test_limit_run_of_vast_numbers() -> None:
    assert limit_run(2**62 * 3, 2**62 + 5, 2**62) == 2**62
    assert limit_run(2**62 * 3 + 1, 2**62, 2**62) == 2**62 - 1


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,)])
@pytest.mark.parametrize(("n", "block_rows"), [(0, 4), (1, 4), (4, 4), (11, 4), (4096, 1024), (5000, 1024), (7, 1)])
def test_sum_blocks(n: int, block_rows: int, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(1).normal(size=(n, *shape))
    sums = sum_blocks(values, block_rows)
    assert sums.shape == (count_blocks(n, block_rows), *shape)
    assert sums.dtype == np.float64
    for k, block_sum in enumerate(sums):
        expected = values[k * block_rows : (k + 1) * block_rows].sum(axis=0)
        np.testing.assert_allclose(block_sum, expected, rtol=0, atol=1e-12 * max(block_rows, 1))


@fixed
@given(
    seed=st.integers(0, 2**32 - 1),
    n_blocks=st.integers(1, 6),
    rest=st.integers(0, 40),
    block_rows=st.sampled_from([1, 2, 7, 41, 128, 1024]),
    width=st.sampled_from([None, 1, 2, 5]),
)
def test_sum_of_a_block_has_the_same_bits_wherever_it_stands(
    seed: int, n_blocks: int, rest: int, block_rows: int, width: int | None
) -> None:
    n = n_blocks * block_rows + min(rest, block_rows - 1)
    shape = (n,) if width is None else (n, width)
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape) * 10.0 ** rng.integers(-8, 8, size=shape)
    together = sum_blocks(values, block_rows)
    for k in range(len(together)):
        alone = sum_blocks(values[k * block_rows : (k + 1) * block_rows].copy(), block_rows)
        assert alone[0].tobytes() == together[k].tobytes()
    strided = np.repeat(values, 2, axis=0)[::2]  # the same values, not contiguous
    assert sum_blocks(strided, block_rows).tobytes() == together.tobytes()


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5, 8, 1000])
@pytest.mark.parametrize("shape", [(), (4,)])
def test_sum_pairwise(n: int, shape: tuple[int, ...]) -> None:
    partials = np.random.default_rng(2).normal(size=(n, *shape))
    total = sum_pairwise(partials)
    assert np.shape(total) == shape
    columns = partials.reshape(n, math.prod(shape)).T
    exact = [math.fsum(column) for column in columns]
    np.testing.assert_allclose(np.ravel(total), exact, rtol=1e-13, atol=1e-13)


def test_sum_pairwise_adds_neighbors_first() -> None:
    a, b, c, d, e = 1e16, 1.0, -1e16, 1.0, 3.0
    assert sum_pairwise(np.array([a, b, c, d, e])) == ((a + b) + (c + d)) + e


def test_sum_pairwise_leaves_its_input_alone() -> None:
    partials = np.arange(7.0)
    sum_pairwise(partials)
    np.testing.assert_array_equal(partials, np.arange(7.0))


def test_infinite_and_missing_values_stay_in_their_block() -> None:
    values = np.array([1.0, -np.inf, 2.0, np.nan, 5.0, 6.0, 7.0])
    np.testing.assert_array_equal(sum_blocks(values, 2), [-np.inf, np.nan, 11.0, 7.0])
