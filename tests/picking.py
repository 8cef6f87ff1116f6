"""Keys such as stand between the brackets of a dataset, and what they pick of an array: orthogonally, as h5py does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st


def indices(length: int) -> st.SearchStrategy[Any]:
    """A single index."""
    numbers = st.integers(-length, length - 1)
    return st.one_of(numbers, numbers.map(np.int64), numbers.map(lambda n: np.array(n, dtype=np.int16)))


def slices(length: int) -> st.SearchStrategy[slice]:
    """Forwards; also out of range, which is cut off, and of nothing."""
    ends = st.one_of(st.none(), st.integers(-length - 2, length + 2))
    return st.builds(slice, ends, ends, st.one_of(st.none(), st.integers(1, length + 2)))


def lists(length: int, *, is_sorted: bool = False) -> st.SearchStrategy[Any]:
    """Indices in a list, an array or as a mask; sorted and each once, or in any order and with doubles."""
    if is_sorted:
        numbers = st.lists(st.integers(0, length - 1), unique=True, max_size=8).map(sorted)
    else:
        numbers = st.lists(st.integers(-length, length - 1), max_size=8)
    arrays = numbers.map(lambda found: np.array(found, dtype=np.int32))
    masks = st.lists(st.booleans(), min_size=length, max_size=length).map(lambda found: np.array(found, dtype=bool))
    return st.one_of(numbers, arrays, masks)


@st.composite
def keys(draw: st.DrawFn, shape: Sequence[int], *, is_sorted: bool = False, is_masked: bool = True) -> Any:
    """What may stand between the brackets, without fields; ``is_masked`` allows masks of the whole."""
    if not shape:
        return draw(st.sampled_from([(), ..., (...,)]))
    if is_masked and draw(st.integers(0, 9)) == 0:
        bits = draw(st.integers(0, 2**32 - 1))
        return np.random.default_rng(bits).random(tuple(shape)) < draw(st.sampled_from([0.02, 0.3, 0.98]))
    n_given = draw(st.integers(0, len(shape)))
    listed = draw(st.integers(-1, len(shape) - 1))
    given: list[Any] = []
    at = draw(st.one_of(st.none(), st.integers(0, n_given)))
    for nth in range(n_given):
        # Behind the dots axes are counted from the end.
        axis = nth if at is None or nth < at else len(shape) - n_given + nth
        length = shape[axis]
        if axis == listed and length:
            given.append(draw(lists(length, is_sorted=is_sorted)))
        else:
            given.append(draw(st.one_of(indices(length), slices(length)) if length else slices(length)))
    if at is not None:
        given.insert(at, ...)
    return given[0] if len(given) == 1 and draw(st.booleans()) else tuple(given)


def pick(array: Any, key: Any) -> Any:
    """``array[key]`` with each axis by itself: where there are lists and single indices, NumPy would turn axes."""
    given = list(key) if isinstance(key, tuple) else [key]
    if any(isinstance(k, np.ndarray) and k.dtype == bool and k.ndim != 1 for k in given) or not array.shape:
        return array[key]
    at = next((nth for nth, k in enumerate(given) if k is Ellipsis), len(given))
    rest = [k for k in given if k is not Ellipsis]
    full = [*rest[:at], *[slice(None)] * (array.ndim - len(rest)), *rest[at:]]
    for axis in reversed(range(len(full))):
        k = full[axis]
        if isinstance(k, slice):
            array = array[(*(slice(None),) * axis, k)]
        elif np.ndim(k) == 0:
            array = array[(*(slice(None),) * axis, int(k))]
        else:
            chosen = np.flatnonzero(k) if np.asarray(k).dtype == bool else np.asarray(k, dtype=np.int64)
            array = np.take(array, chosen, axis=axis)
    return array
