"""The latest chunks are kept, as many as there is room for."""

from __future__ import annotations

import numpy as np

from demos_hpc.chunk_cache import ChunkCache


def test_the_latest_are_kept() -> None:
    cache = ChunkCache(240)
    arrays = [np.arange(10.0) + n for n in range(4)]  # 80 bytes each
    for nth, array in enumerate(arrays[:3]):
        cache.put(nth, array)
    assert cache.get(0) is arrays[0]  # and is the latest now
    cache.put(3, arrays[3])
    assert [cache.get(n) is not None for n in range(4)] == [True, False, True, True]
    assert cache.get("unknown") is None


def test_what_is_put_again_counts_once() -> None:
    cache = ChunkCache(240)
    for _ in range(10):
        cache.put("a", np.zeros(10))
    cache.put("b", np.zeros(20))
    assert cache.get("a") is not None
    assert cache.get("b") is not None


def test_what_is_larger_than_the_cache_is_not_kept_nor_what_it_stands_for() -> None:
    cache = ChunkCache(100)
    cache.put("a", np.zeros(10))
    cache.put("b", np.zeros(1))
    cache.put("a", np.zeros(20))
    assert cache.get("a") is None
    assert cache.get("b") is not None
    cache.put("c", np.zeros(11))
    assert cache.get("b") is not None
    cache.put("c", np.zeros(12))
    assert cache.get("b") is None  # there was room for both no more


def test_strings_count_as_what_they_are() -> None:
    cache = ChunkCache(10_000)
    texts = np.array([b"x" * 2000] * 4, dtype=object)
    cache.put("few", texts[:3])
    assert cache.get("few") is not None
    cache.put("more", texts)
    assert cache.get("few") is None
    assert cache.get("more") is not None


def test_a_cache_of_no_bytes_keeps_nothing() -> None:
    cache = ChunkCache(0)
    cache.put("a", np.zeros(1))
    assert cache.get("a") is None
