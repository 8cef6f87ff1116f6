"""Frames passed on as they are, and many made at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from demos_hpc.messages import Flag, Kind
from demos_hpc.relay import find_nonfinite, flatten, pack_many, pass_on
from demos_hpc.wire import INLINE_BYTES, Frame, join, pack, read_header, split

ARRAYS = [np.arange(6.0).reshape(3, 2), np.array([1.5, 2.5, 3.5])]


def read(head: bytearray, arrays: Any = None) -> Frame:
    return Frame(read_header(head), head, 0, arrays)


def test_a_small_frame_is_passed_on_without_a_copy() -> None:
    frame = read(pack(Kind.REQUEST, ARRAYS, id=7, n_rows=3, seed=5, first_row=9).head)
    packed = pass_on(frame, kind=Kind.CHUNK, id=2**63, flags=Flag.WRT_X, revision=4)
    assert packed.head is frame.buffer
    assert packed.tail == ()
    again = read(packed.head)
    header = again.header
    assert (header.kind, header.id, header.flags, header.revision) == (Kind.CHUNK, 2**63, Flag.WRT_X, 4)
    assert (header.n_rows, header.seed, header.first_row) == (3, 5, 9)
    for got, sent in zip(again.arrays, ARRAYS, strict=True):
        np.testing.assert_array_equal(got, sent)


def test_a_frame_among_others_is_taken_out() -> None:
    heads = [pack(Kind.REQUEST, ARRAYS[:n], id=n).head for n in (1, 2, 0)]
    message = join(heads)
    before = bytes(message)
    for nth, (header, start) in enumerate(split(message)):
        packed = pass_on(Frame(header, message, start), kind=Kind.CHUNK, id=50 + nth, flags=0, revision=0)
        assert len(packed.head) == len(heads[nth])
        again = read(packed.head)
        assert again.header.id == 50 + nth
        assert len(again.arrays) == header.n_arrays
    assert bytes(message) == before


def test_a_large_frame_is_passed_on_with_its_arrays_where_they_are() -> None:
    arrays = [np.arange(3, dtype=np.uint8), np.zeros(INLINE_BYTES), np.empty((0, 4)), np.ones(2)]
    sent = pack(Kind.RESULT, arrays, id=3)
    frame = read(sent.head, arrays)
    packed = pass_on(frame, kind=Kind.REPLY, id=9, flags=Flag.FINAL, revision=1)
    assert read_header(packed.head).id == 9
    assert b"".join(part.tobytes() for part in packed.tail) == b"".join(part.tobytes() for part in sent.tail)
    assert any(np.shares_memory(part, arrays[1]) for part in packed.tail)


def test_flattened_arrays_are_views_with_the_gaps_between_them() -> None:
    arrays = [np.arange(3, dtype=np.uint8), np.ones((2, 2)), np.arange(5, dtype=np.int32), np.ones(1)]
    frame = read(pack(Kind.ROWS, arrays).head)
    views = flatten(frame.layout, arrays)
    assert [len(view) for view in views] == [3, 5, 32, 20, 4, 8]
    views[2][:] = 0
    assert (arrays[1] == 0).all()


@pytest.mark.parametrize("rows", [1, 3])
def test_many_frames_at_once_are_those_made_one_by_one(rows: int) -> None:
    ids = [5, 2**64 - 1, 0, 77]
    values = np.arange(4.0 * rows)
    slopes = np.arange(8.0 * rows).reshape(-1, 2)
    fields = {"kind": Kind.REPLY, "flags": Flag.FINAL, "revision": 3, "seed": 11, "model": 2}
    message = pack_many(ids, [values, slopes], rows, **fields)
    frames = [Frame(header, message, start) for header, start in split(message)]
    assert [frame.header.id for frame in frames] == ids
    for nth, frame in enumerate(frames):
        part = slice(nth * rows, (nth + 1) * rows)
        alone = pack(arrays=[values[part], slopes[part]], id=ids[nth], n_rows=rows, **fields)
        size = len(alone.head)
        assert message[frame.start : frame.start + size] == alone.head


def test_each_of_many_frames_counts_its_own_rows_that_are_not_finite() -> None:
    values = np.array([1.0, np.nan, np.inf, -np.inf, 0.0, 0.0, np.nan, np.nan])
    message = pack_many([1, 2, 3, 4], [values], 2, kind=Kind.REPLY, deadline_ms=4)
    assert [header.deadline_ms for header, _ in split(message)] == [1, 1, 0, 2]
    message = pack_many([1, 2], [values[4:]], 2, kind=Kind.REPLY)
    assert [header.deadline_ms for header, _ in split(message)] == [0, 0]


def test_rows_that_are_not_finite() -> None:
    values = np.array([[0.0, 1.0], [np.nan, 0.0], [-np.inf, 0.0], [0.0, np.inf]])
    assert find_nonfinite(values).tolist() == [False, True, False, True]
    assert find_nonfinite(values[:, 0]).tolist() == [False, True, False, False]
