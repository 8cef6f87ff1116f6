"""Arithmetic of rows, blocks and cells; Python integers throughout, so nothing overflows.

A *block* is a fixed run of rows: the unit of random streams and of partial sums, and so of reproducibility.
A *cell* is one (parameter point, block) of a likelihood; its value is the sum of log-densities over the block.
"""

from __future__ import annotations

import numpy as np

from .messages import Array


def count_blocks(n_rows: int, block_rows: int) -> int:
    """How many blocks hold ``n_rows``; the last one may be short."""
    return -(-n_rows // block_rows)


def limit_run(first: int, count: int, period: int) -> int:
    """The longest run of cells, at most ``count`` from ``first``, that is a rectangle.

    Cells lie in rows of ``period``. A chunk is a product (some parameter points) x (some blocks), hence either
    stays inside one row of cells or consists of whole rows.
    """
    into = first % period
    if into:
        return min(count, period - into)
    return count - count % period if count >= period else count


def sum_blocks(values: Array, block_rows: int) -> Array:
    """Sums over runs of ``block_rows`` along the first axis: (n, ...) to (n_blocks, ...), float64.

    Each full block is summed over a contiguous axis of its own, so the result has the same bits wherever the
    block stands in ``values``.
    """
    n = len(values)
    if 0 < n <= block_rows and values.ndim == 1:
        total: Array = values.sum(keepdims=True)
        return total
    whole = n - n % block_rows
    blocks = values[:whole].reshape(n // block_rows, block_rows, *values.shape[1:])
    # (blocks, ..., rows): rows last and contiguous, so that NumPy adds each block pairwise, in one fixed order.
    full = np.ascontiguousarray(np.moveaxis(blocks, 1, -1))
    sums: Array = full.sum(axis=-1)
    if whole == n:
        return sums
    rest = np.ascontiguousarray(np.moveaxis(values[whole:], 0, -1)).sum(axis=-1)
    return np.concatenate([sums, rest[np.newaxis]])


def sum_pairwise(partials: Array) -> Array:
    """Adds partial sums along the first axis, pairwise in their order: (n, ...) to (...), float64.

    The tree depends on ``n`` alone, never on who computed which part or in which order it arrived.
    """
    if len(partials) == 0:
        return np.zeros(partials.shape[1:])
    while len(partials) > 1:
        odd = len(partials) % 2
        paired = partials[0 : len(partials) - odd : 2] + partials[1::2]
        partials = np.concatenate([paired, partials[-1:]]) if odd else paired
    total: Array = partials[0]
    return total
