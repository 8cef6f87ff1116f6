"""Random streams depend on the seed and the block, and on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos_hpc.messages import FloatArray
from demos_hpc.streams import SEED_LIMIT, BlockStreams, new_seed

numbers = st.integers(0, SEED_LIMIT - 1)


def draw(streams: BlockStreams, seed: int, block: int) -> FloatArray:
    return streams.set(seed, block).normal(size=50)


def test_stream_is_philox_keyed_by_the_seed_and_counting_from_the_block() -> None:
    key, counter = np.array([[2**64 - 1, 0], [0, 12345]], dtype=np.uint64)
    philox = np.random.Philox(key=key, counter=np.array([0, 0, *counter], dtype=np.uint64))
    expected = np.random.Generator(philox).random(1000)
    np.testing.assert_array_equal(BlockStreams().set(2**64 - 1, 12345).random(1000), expected)


@settings(derandomize=True, deadline=None, database=None, max_examples=100)
@given(seed=numbers, block=numbers, other_seed=numbers, other_block=numbers, n=st.integers(0, 9))
def test_nothing_of_an_earlier_stream_leaks(seed: int, block: int, other_seed: int, other_block: int, n: int) -> None:
    expected = draw(BlockStreams(), seed, block)
    streams = BlockStreams()
    earlier = streams.set(other_seed, other_block)
    # Odd numbers of 32 bits leave half a word behind, others part of a buffer of four words.
    earlier.integers(2**32, size=n, dtype=np.uint32)
    earlier.random(n)
    earlier.random(n, dtype=np.float32)
    np.testing.assert_array_equal(draw(streams, seed, block), expected)
    halves = streams.set(seed, block).integers(2**32, size=5, dtype=np.uint32)
    np.testing.assert_array_equal(halves, BlockStreams().set(seed, block).integers(2**32, size=5, dtype=np.uint32))


def test_streams_differ() -> None:
    streams = BlockStreams()
    keys = [(seed, block) for seed in (0, 1, 2**63, SEED_LIMIT - 1) for block in (0, 1, 2**40, SEED_LIMIT - 1)]
    firsts = {streams.set(*key).random() for key in keys}
    assert len(firsts) == len(keys)


def test_neighboring_blocks_are_independent() -> None:
    streams = BlockStreams()
    draws = np.array([streams.set(7, block).normal(size=4000) for block in range(8)])
    correlations = np.corrcoef(draws)[~np.eye(8, dtype=bool)]
    assert np.abs(correlations).max() < 4 / np.sqrt(4000)


@pytest.mark.parametrize(("seed", "block"), [(-1, 0), (SEED_LIMIT, 0), (0, -1), (0, SEED_LIMIT)])
def test_numbers_out_of_range_are_refused(seed: int, block: int) -> None:
    with pytest.raises(OverflowError):
        BlockStreams().set(seed, block)


def test_new_seeds_fit_and_differ() -> None:
    seeds = {new_seed() for _ in range(100)}
    assert len(seeds) == 100
    assert all(0 <= seed < SEED_LIMIT for seed in seeds)
