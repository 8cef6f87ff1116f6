"""Buffers that are used again, and never while somebody still looks at them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos_hpc.transport.buffers import KEEP_SECONDS, SMALLEST, Buffers
from demos_hpc.wire import FLOAT64, pack, read_header, read_layout

CHECK = settings(derandomize=True, deadline=None, max_examples=60)
#: Rows of one float64 column that make the smallest buffer that is kept.
ROWS = SMALLEST // 8


def address_of(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


def test_a_buffer_is_given_again_when_nobody_refers_to_it() -> None:
    buffers = Buffers()
    first = buffers.take(FLOAT64, (ROWS, 2))
    assert (first.shape, first.dtype, first.flags.c_contiguous) == ((ROWS, 2), FLOAT64, True)
    where = address_of(first)
    del first
    again = buffers.take(np.dtype(np.uint8), (SMALLEST + 1,))  # another shape and type, of the same power of two
    assert address_of(again) == where
    assert again.shape == (SMALLEST + 1,)


VIEWS: dict[str, Any] = {
    "the array": lambda array: array,
    "a slice": lambda array: array[5:6],
    "a view of a view": lambda array: array.reshape(-1, 2)[1:].view(np.uint8),
    "a memoryview": memoryview,
    "an array over a memoryview": lambda array: np.frombuffer(memoryview(array), np.uint8)[3:],
    "a flat iterator": lambda array: array.flat,
}


@pytest.mark.parametrize("name", VIEWS)
def test_no_buffer_is_given_out_while_a_view_of_it_lives(name: str) -> None:
    buffers = Buffers()
    array = buffers.take(FLOAT64, (ROWS,))
    where = address_of(array)
    view = VIEWS[name](array)
    del array
    other = buffers.take(FLOAT64, (ROWS,))
    assert address_of(other) != where
    del view
    assert address_of(buffers.take(FLOAT64, (ROWS,))) == where


def test_small_arrays_are_left_to_numpy() -> None:
    buffers = Buffers()
    assert buffers.take(FLOAT64, (ROWS - 1,)).base is None
    assert buffers.take(FLOAT64, (0, 5)).shape == (0, 5)
    assert buffers._kept_bytes == 0


def test_no_more_is_kept_than_allowed() -> None:
    buffers = Buffers(keep_bytes=2 * SMALLEST)
    held = [buffers.take(FLOAT64, (ROWS,)) for _ in range(4)]
    assert [array.base is None for array in held] == [False, False, True, True]
    assert len({address_of(array) for array in held}) == 4
    assert buffers.take(FLOAT64, (ROWS * 4,)).base is None
    assert buffers._kept_bytes == 2 * SMALLEST
    kept = {address_of(array) for array in held[:2]}
    held.clear()
    again = [buffers.take(FLOAT64, (ROWS,)) for _ in range(2)]
    assert {address_of(array) for array in again} == kept


def test_room_for_a_frame_has_its_shapes_and_types() -> None:
    packed = pack(1, [np.zeros((ROWS, 3)), np.zeros(2), np.zeros((ROWS, 2), np.int32)])
    header = read_header(packed.head)
    arrays = Buffers().place(None, header, read_layout(header, packed.head))
    assert [(array.shape, array.dtype) for array in arrays] == [
        ((ROWS, 3), FLOAT64),
        ((2,), FLOAT64),
        ((ROWS, 2), np.dtype(np.int32)),
    ]


@CHECK
@given(st.lists(st.one_of(st.integers(1, 5 * ROWS), st.none()), max_size=25), st.randoms(use_true_random=False))
def test_whatever_is_taken_and_dropped_what_is_held_keeps_its_contents(sizes: list[int | None], random: Any) -> None:
    buffers = Buffers(keep_bytes=6 * SMALLEST)
    held: dict[int, Any] = {}
    for nth, size in enumerate(sizes):
        if size is None:
            if held:
                del held[random.choice(sorted(held))]
            continue
        array = buffers.take(FLOAT64, (size,))
        array[:] = nth
        held[nth] = array[size // 2 :]
        del array
    for nth, view in held.items():
        assert (view == nth).all()
    assert buffers._kept_bytes <= 6 * SMALLEST


def test_what_is_not_needed_any_more_goes_back_to_the_kernel() -> None:
    buffers = Buffers()
    held = [buffers.take(FLOAT64, (ROWS,)) for _ in range(5)]
    held.append(buffers.take(FLOAT64, (8 * ROWS,)))
    buffers.trim(0.0)
    del held[1:]
    buffers.take(FLOAT64, (ROWS,))
    buffers.trim(KEEP_SECONDS / 2)  # not yet
    assert buffers._kept_bytes == 13 * SMALLEST
    buffers.trim(KEEP_SECONDS)
    assert buffers._kept_bytes == 2 * SMALLEST, "the one that is held, and the one that was needed"
    buffers.trim(2 * KEEP_SECONDS)
    assert buffers._kept_bytes == SMALLEST
    held.clear()
    buffers.trim(3 * KEEP_SECONDS)
    assert buffers._kept_bytes == 0


def test_what_is_held_stays_however_long() -> None:
    buffers = Buffers()
    first, last = (buffers.take(FLOAT64, (ROWS,)) for _ in range(2))
    first[:], last[:] = 1.0, 2.0
    for turn in range(5):
        buffers.trim(turn * KEEP_SECONDS)
        buffers.take(FLOAT64, (ROWS,))[:] = 3.0
    assert (first == 1.0).all()
    assert (last == 2.0).all()
