"""Answers that are kept: the right one or none, byte for byte, within bounds, in whatever order things happen."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos_hpc.cache import ARRAY_COST, ENTRY_COST, MODEL_BYTES, Cache, Gathering, key_of, may_cache
from demos_hpc.errors import InvalidInput
from demos_hpc.messages import Operation
from demos_hpc.spec import ModelSpec
from demos_hpc.streams import SEED_LIMIT

CHECK = settings(derandomize=True, deadline=None, max_examples=200)
X = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
PARAMS = np.array([0.5, -0.5])
REQUEST: dict[str, Any] = {
    "model": "uuid-1", "version": "1.0.0", "revision": 3, "operation": int(Operation.LOG_DENSITY), "flags": 0,
    "n_rows": 3, "seed": 0, "arrays": [X, PARAMS],
}  # fmt: skip


def key(**changes: Any) -> bytes:
    return key_of(**REQUEST | changes)


def size_of(*n_bytes: int) -> int:
    """What an entry of arrays of so many bytes counts for."""
    return ENTRY_COST + sum(ARRAY_COST + n for n in n_bytes)


def is_same(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


# ---- what may be kept ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", Operation)
def test_which_answers_may_stand_for_others(operation: Operation) -> None:
    spec = ModelSpec("m")
    named = {"log_density", "log_density_gradient", "log_likelihood", "log_likelihood_gradient", "evaluate"}
    assert may_cache(spec, operation) == (operation.title in named)
    assert may_cache(spec, operation, seed=7) == (operation.title in named | {"sample"})


def test_draws_that_cannot_be_repeated_are_not_kept() -> None:
    spec = ModelSpec("m", reproducible=False)
    assert not may_cache(spec, Operation.SAMPLE, seed=7)
    assert may_cache(spec, Operation.LOG_DENSITY)


# ---- keys ------------------------------------------------------------------------------------------------------


def test_the_same_request_has_the_same_key() -> None:
    assert key() == key(arrays=[X.copy(), PARAMS.copy()])
    assert len(key()) >= 16


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "uuid-2"},
        {"version": "1.0.1"},
        {"model": "uuid-11", "version": ".0.0"},
        {"revision": 4},
        {"operation": int(Operation.LOG_LIKELIHOOD)},
        {"flags": 2},
        {"n_rows": 4},
        {"seed": 1},
        {"seed": SEED_LIMIT - 1},
        {"revision": 0, "operation": 3},
        {"arrays": [X]},
        {"arrays": [PARAMS, X]},
        {"arrays": [X, PARAMS, PARAMS]},
        {"arrays": [X.T, PARAMS]},
        {"arrays": [X.reshape(2, 3), PARAMS]},
        {"arrays": [X.reshape(6), PARAMS]},
        {"arrays": [np.concatenate([X.ravel(), PARAMS])]},
        {"arrays": [X.view(np.int64), PARAMS]},
        {"arrays": [X.astype(np.float32), PARAMS]},
        {"arrays": [X.astype(">f8"), PARAMS]},
        {"arrays": [X, np.array([0.5, np.nan])]},
        {"arrays": [X, np.zeros(0), PARAMS]},
    ],
)
def test_another_request_has_another_key(changes: dict[str, Any]) -> None:
    assert key(**changes) != key()


def test_names_do_not_run_into_one_another() -> None:
    """Nor may the digest rely on the part of the key that tells the model."""
    first, then = key(model="uuid-1", version="1.0.0"), key(model="uuid-11", version=".0.0")
    assert first[MODEL_BYTES:] != then[MODEL_BYTES:]


def test_zeros_of_both_signs_differ_and_a_nan_is_like_itself() -> None:
    assert key(arrays=[np.array([0.0])]) != key(arrays=[np.array([-0.0])])
    assert key(arrays=[np.array([np.nan])]) == key(arrays=[np.array([np.nan])])
    assert key(arrays=[np.array([np.nan])]) != key(arrays=[-np.array([np.nan])])


def test_empty_arrays_have_shapes_too() -> None:
    shapes = [(0,), (0, 2), (2, 0), ()]
    assert len({key(arrays=[np.zeros(shape)]) for shape in shapes}) == len(shapes)


@pytest.mark.parametrize("view", [X[::2], X[:, 1], X.T, np.asfortranarray(X), np.broadcast_to(PARAMS, (3, 2)), X[::-1]])
def test_how_an_array_lies_in_memory_does_not_matter(view: np.ndarray[Any, Any]) -> None:
    assert key(arrays=[view]) == key(arrays=[view.copy(order="C")])


def test_objects_have_no_key() -> None:
    for odd in (np.array([object()]), np.zeros(2, dtype=[("a", "<f8")]), np.array(["2020"], dtype="datetime64[Y]")):
        with pytest.raises(InvalidInput, match="has no key"):
            key(arrays=[odd])


DTYPES = st.sampled_from(["<f8", "<f4", "<i8", "u1", "?", "<c16"])
ARRAYS = st.lists(
    st.tuples(DTYPES, st.lists(st.integers(0, 3), max_size=3), st.integers(0, 1)).map(
        lambda t: np.full(t[1], t[2], dtype=t[0])
    ),
    max_size=3,
)


@CHECK
@given(ARRAYS, ARRAYS)
def test_keys_are_equal_for_equal_arrays_only(first: list[Any], then: list[Any]) -> None:
    same = len(first) == len(then) and all(is_same(a, b) for a, b in zip(first, then, strict=True))
    assert (key(arrays=first) == key(arrays=then)) == same


# ---- answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arrays",
    [
        [np.array([1.5, np.nan, -0.0, np.inf])],
        [np.arange(6.0).reshape(3, 2), np.arange(3)],
        [X.T, X[::2, 1], np.asfortranarray(X)],
        [np.zeros((0, 2)), np.zeros((3, 0)), np.array(7.0)],
        [np.array([1 + 2j]), np.array([True, False]), np.array([1, 2], dtype=np.uint8)],
        [],
    ],
)
def test_an_answer_comes_back_byte_for_byte(arrays: list[np.ndarray[Any, Any]]) -> None:
    cache = Cache(1 << 20)
    assert cache.get(key()) is None
    assert cache.put(key(), arrays, nonfinite=2, revision=9)
    answer = cache.get(key())
    assert answer is not None
    assert (answer.nonfinite, answer.revision) == (2, 9)
    assert len(answer.arrays) == len(arrays)
    assert all(is_same(kept, array) for kept, array in zip(answer.arrays, arrays, strict=True))
    assert all(kept.flags.c_contiguous and kept.flags.aligned for kept in answer.arrays)
    assert (cache.hits, cache.misses) == (1, 1)


def gather(cache: Cache, name: bytes, arrays: list[np.ndarray[Any, Any]]) -> bool:
    return Gathering(cache, name, len(arrays[0])).add(0, arrays, 0, 1)


@pytest.mark.parametrize("way", ["put", "gather"])
def test_nobody_can_damage_what_is_kept(way: str) -> None:
    cache = Cache(1 << 20)
    given = X.copy()
    assert cache.put(key(), [given]) if way == "put" else gather(cache, key(), [given])
    given[:] = 0.0
    answer = cache.get(key())
    assert answer is not None
    with pytest.raises(ValueError, match="read-only"):
        answer.arrays[0][0] = 7.0
    with pytest.raises(ValueError, match="WRITEABLE"):
        answer.arrays[0].flags.writeable = True
    answer.arrays.clear()
    again = cache.get(key())
    assert again is not None
    assert is_same(again.arrays[0], X)
    cache.clear("uuid-1")
    assert is_same(again.arrays[0], X)  # who has an answer keeps it


def test_the_first_answer_stays() -> None:
    cache = Cache(1 << 20)
    cache.put(key(), [np.array([1.0])], revision=1)
    used = cache.used_bytes
    assert cache.put(key(), [np.array([2.0, 3.0])], revision=2)
    answer = cache.get(key())
    assert answer is not None
    assert (answer.arrays[0].tolist(), answer.revision, cache.used_bytes, len(cache)) == ([1.0], 1, used, 1)


def test_answers_of_a_model_whose_parameters_changed_are_forgotten() -> None:
    cache = Cache(1 << 20)
    mine, other = key(), key(model="uuid-2")
    second = key(operation=int(Operation.EVALUATE))
    for name in (mine, second, other):
        cache.put(name, [X])
    assert cache.clear("uuid-1") == 2
    assert mine not in cache
    assert second not in cache
    assert other in cache
    assert cache.used_bytes == size_of(X.nbytes)
    assert cache.clear("uuid-1") == 0


# ---- bounds ----------------------------------------------------------------------------------------------------


def test_an_answer_that_is_too_large_is_not_kept_and_evicts_nothing() -> None:
    cache = Cache(size_of(80) + size_of(8))
    cache.put(b"small", [np.zeros(1)])
    assert not cache.put(b"large", [np.zeros(1000)])
    assert b"small" in cache
    assert b"large" not in cache
    assert cache.put(b"fits", [np.zeros(10)])
    assert len(cache) == 2
    assert cache.used_bytes == cache.max_bytes


def test_what_was_asked_for_longest_ago_makes_room() -> None:
    cache = Cache(3 * size_of(8))
    for name in (b"a", b"b", b"c"):
        cache.put(name, [np.zeros(1)])
    cache.get(b"a")
    cache.put(b"d", [np.zeros(1)])
    assert [name in cache for name in (b"a", b"b", b"c", b"d")] == [True, False, True, True]
    assert cache.describe() == {
        "hits": 1, "misses": 0, "entries": 3, "bytes": 3 * size_of(8), "max_bytes": 3 * size_of(8), "evicted": 1
    }  # fmt: skip
    assert repr(cache).startswith("Cache(3 answers, ")


def test_a_cache_of_nothing_keeps_nothing() -> None:
    cache = Cache(0)
    assert not cache.put(b"a", [])
    assert not gather(cache, b"a", [np.zeros(1)])
    assert cache.get(b"a") is None
    assert cache.used_bytes == 0
    with pytest.raises(InvalidInput, match=r"cache of -1 bytes"):
        Cache(-1)


@pytest.mark.parametrize("way", ["put", "gather"])
@pytest.mark.parametrize("shapes", [[(1,)], [(1,), (1, 6)], [(100,)], [(2000, 2)]])
def test_the_bound_is_on_memory_and_not_only_on_numbers(way: str, shapes: list[tuple[int, ...]]) -> None:
    tracemalloc.start()
    try:
        cache = Cache(2_000_000)
        before = tracemalloc.get_traced_memory()[0]
        for nth in range(5000):
            arrays: list[np.ndarray[Any, Any]] = [np.zeros(shape) for shape in shapes]
            name = nth.to_bytes(32, "little")
            assert cache.put(name, arrays) if way == "put" else gather(cache, name, arrays)
        del arrays
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert cache.used_bytes > 1_900_000
    assert used < 1.05 * cache.max_bytes


# ---- answers in parts ------------------------------------------------------------------------------------------


def cut(values: np.ndarray[Any, Any], pieces: list[int]) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
    edges = [0, *sorted(set(pieces)), len(values)]
    for start, stop in pairwise(edges):
        if start < stop:
            yield start, values[start:stop]


@CHECK
@given(st.integers(1, 40), st.lists(st.integers(0, 40), max_size=6), st.randoms(use_true_random=False))
def test_parts_in_any_order_make_the_whole(n: int, pieces: list[int], random: Any) -> None:
    values, gradient = np.arange(float(n)), np.arange(3.0 * n).reshape(n, 3)
    cache = Cache(1 << 20)
    gathering = Gathering(cache, b"key", n)
    parts = list(cut(values, [p for p in pieces if p < n]))
    random.shuffle(parts)
    for nth, (start, part) in enumerate(parts):
        is_last = nth == len(parts) - 1
        assert b"key" not in cache
        assert gathering.add(start, [part, gradient[start : start + len(part)]], 1, 5) == is_last
    answer = cache.get(b"key")
    assert answer is not None
    assert is_same(answer.arrays[0], values)
    assert is_same(answer.arrays[1], gradient)
    assert (answer.nonfinite, answer.revision) == (len(parts), 5)
    assert cache.used_bytes == size_of(values.nbytes, gradient.nbytes)
    gathering.drop()  # it is kept all the same
    assert b"key" in cache
    assert not gathering.add(0, [values, gradient], 0, 5)


@pytest.mark.parametrize(
    ("first", "arrays"),
    [
        (2, [np.zeros(3)]),
        (4, [np.zeros(9)]),
        (4, [np.zeros((3, 1))]),
        (4, [np.zeros(3, dtype=np.float32)]),
        (4, [np.zeros(3), np.zeros(3)]),
        (4, [np.zeros(0)]),
        (4, [np.array(1.0)]),
        (0, [np.zeros(3)]),
        (4, []),
    ],
    ids=["overlap", "too-long", "shape", "dtype", "more-arrays", "empty", "scalar", "twice", "none"],
)
def test_parts_that_do_not_fit_are_not_made_into_an_answer(first: int, arrays: list[np.ndarray[Any, Any]]) -> None:
    cache = Cache(1 << 20)
    gathering = Gathering(cache, b"key", 7)
    assert not gathering.add(0, [np.zeros(4)], 0, 1)
    assert not gathering.add(first, arrays, 0, 1)
    assert not gathering.add(4, [np.zeros(3)], 0, 1) or first == 2
    gathering.drop()
    assert b"key" not in cache
    assert cache.used_bytes == 0


def test_a_failed_request_leaves_nothing_behind() -> None:
    cache = Cache(1 << 20)
    cache.put(b"other", [np.zeros(1)])
    gathering = Gathering(cache, b"key", 1000)
    gathering.add(0, [np.zeros(10)], 0, 1)
    assert cache.used_bytes == size_of(8) + size_of(8000)  # room for all of it
    gathering.drop()
    gathering.drop()
    assert cache.used_bytes == size_of(8)
    forgotten = Gathering(cache, b"key", 1000)
    forgotten.add(0, [np.zeros(10)], 0, 1)
    del forgotten
    assert cache.used_bytes == size_of(8)
    assert len(cache) == 1


def test_what_is_gathered_counts() -> None:
    cache = Cache(2 * size_of(8000))
    cache.put(b"old", [np.zeros(1000)])
    first, second, third = (Gathering(cache, name, 1000) for name in (b"1", b"2", b"3"))
    first.add(0, [np.zeros(10)], 0, 1)
    assert b"old" in cache
    second.add(0, [np.zeros(10)], 0, 1)
    assert b"old" not in cache
    third.add(0, [np.zeros(10)], 0, 1)
    assert third.is_over
    assert not cache.put(b"new", [np.zeros(1)])
    assert second.add(10, [np.zeros(990)], 0, 1)
    assert b"2" in cache
    first.drop()
    assert cache.put(b"new", [np.zeros(1)])
    assert b"2" in cache


# ---- in whatever order -----------------------------------------------------------------------------------------


class Naive:
    """The same in a few lines, slowly: a list, the last used at its end."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.entries: list[tuple[bytes, int, int]] = []  # key, content, size
        self.gathering: dict[bytes, int] = {}

    @property
    def used(self) -> int:
        return sum(size for _, _, size in self.entries) + sum(self.gathering.values())

    def make_room(self, size: int) -> bool:
        if sum(self.gathering.values()) + size > self.max_bytes:
            return False
        while self.used + size > self.max_bytes:
            del self.entries[0]
        return True

    def get(self, name: bytes) -> int | None:
        for entry in self.entries:
            if entry[0] == name:
                self.entries.remove(entry)
                self.entries.append(entry)
                return entry[1]
        return None

    def put(self, name: bytes, content: int, size: int) -> bool:
        if not self.make_room(size):
            return False
        if self.get(name) is None:
            self.entries.append((name, content, size))
        return True


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["get", "get", "put", "put", "open", "finish", "drop", "clear"]),
        st.integers(0, 5),
        st.integers(1, 400),
    ),
    max_size=60,
)


@CHECK
@given(st.integers(0, 12_000), STEPS)
def test_it_keeps_what_a_naive_cache_keeps(max_bytes: int, steps: list[tuple[str, int, int]]) -> None:
    cache, naive = Cache(max_bytes), Naive(max_bytes)
    names = [key(model=f"model {n % 2}", seed=n) for n in range(6)]
    gatherings: dict[bytes, tuple[Gathering, int, int]] = {}
    for what, nth, n in steps:
        name, content = names[nth], n
        if what == "get":
            answer, expected = cache.get(name), naive.get(name)
            assert (answer is None) == (expected is None)
            assert answer is None or answer.arrays[0].tolist() == [expected] * len(answer.arrays[0])
        elif what == "put":
            arrays = [np.full(n, float(content))]
            assert cache.put(name, arrays) == naive.put(name, content, size_of(8 * n))
        elif what == "open" and name not in gatherings:
            gathering = Gathering(cache, name, n + 1)
            gathering.add(n, [np.full(1, float(content))], 0, 0)
            fits = naive.make_room(size_of(8 * (n + 1)))
            assert gathering.is_over != fits
            if fits:
                naive.gathering[name] = size_of(8 * (n + 1))
                gatherings[name] = gathering, n, content
        elif what in ("finish", "drop") and name in gatherings:
            gathering, rows, value = gatherings.pop(name)
            size = naive.gathering.pop(name)
            if what == "drop":
                gathering.drop()
            else:
                assert gathering.add(0, [np.full(rows, float(value))], 0, 0)
                naive.put(name, value, size)
        elif what == "clear":
            model = f"model {nth % 2}"
            gone = [entry for entry in naive.entries if names.index(entry[0]) % 2 == nth % 2]
            assert cache.clear(model) == len(gone)
            naive.entries = [entry for entry in naive.entries if entry not in gone]
        assert cache.used_bytes == naive.used <= max_bytes
        assert [name in cache for name in names] == [any(name == e[0] for e in naive.entries) for name in names]
        assert len(cache) == len(naive.entries)
