"""Frames that are passed on as they are, and many small frames made at once: what a dispatcher does all day."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from .messages import Array
from .wire import FIELDS, HEADER_BYTES, OFFSETS, Frame, Layout, Packed, pack

_CODES = dict(FIELDS)
_FLAGS, _ID, _REVISION = (struct.Struct("<" + _CODES[name]) for name in ("flags", "id", "revision"))
_MODEL, _DEADLINE, _FIRST_ROW = (struct.Struct("<" + _CODES[name]) for name in ("model", "deadline_ms", "first_row"))
_KIND_AT, _FLAGS_AT, _ID_AT, _REVISION_AT = (OFFSETS[name] for name in ("kind", "flags", "id", "revision"))
_MODEL_AT, _DEADLINE_AT, _FIRST_ROW_AT = OFFSETS["model"], OFFSETS["deadline_ms"], OFFSETS["first_row"]


def pass_on(
    frame: Frame,
    *,
    kind: int,
    id: int,  # noqa: A002
    flags: int,
    revision: int,
    first_row: int | None = None,
) -> Packed:
    """The same frame under another kind, id, flags and revision, and perhaps another first row.

    Its header is changed in place and its arrays are only referred to: nothing is copied, but where the frame
    shares its buffer with others. A buffer is passed on a second time only if the peer that it was sent to is lost.
    """
    buffer, is_inline = frame.buffer, frame.is_inline
    size = HEADER_BYTES + frame.header.payload
    if is_inline and len(buffer) != size:
        buffer = buffer[frame.start : frame.start + size]
    elif not is_inline and frame.start:
        buffer = buffer[frame.start :]
    buffer[_KIND_AT] = kind
    _FLAGS.pack_into(buffer, _FLAGS_AT, flags)
    _ID.pack_into(buffer, _ID_AT, id)
    _REVISION.pack_into(buffer, _REVISION_AT, revision)
    if first_row is not None:
        _FIRST_ROW.pack_into(buffer, _FIRST_ROW_AT, first_row)
    return Packed(buffer, () if is_inline else flatten(frame.layout, frame.arrays))


def readdress(packed: Packed, *, model: int | None = None, deadline_ms: int | None = None) -> Packed:
    """The same request for another server, or for a second time."""
    head = bytearray(packed.head)
    if model is not None:
        _MODEL.pack_into(head, _MODEL_AT, model)
    if deadline_ms is not None:
        _DEADLINE.pack_into(head, _DEADLINE_AT, deadline_ms)
    return Packed(head, packed.tail)


def pack_many(ids: Sequence[int], arrays: Sequence[Array], rows: int, **fields: int) -> bytearray:
    """A small frame for each of ``ids``, in one message: the i-th has rows [i * rows, (i + 1) * rows) of the arrays.

    The arrays are float64, so that every frame ends at a multiple of 8 bytes. ``fields`` are those of `wire.pack`;
    ``deadline_ms``, if any, stands for the rows with nan or +inf, and each frame gets its own number of them.
    """
    template = pack(arrays=[array[:rows] for array in arrays], n_rows=rows, **fields).head
    frames = np.empty((len(ids), len(template)), dtype=np.uint8)
    frames[:] = np.frombuffer(template, dtype=np.uint8)
    frames[:, _ID_AT : _ID_AT + 8] = np.array(ids, dtype="<u8").view(np.uint8).reshape(-1, 8)
    if fields.get("deadline_ms"):
        counts = find_nonfinite(arrays[0]).reshape(len(ids), -1).sum(axis=1, dtype="<u4")
        frames[:, _DEADLINE_AT : _DEADLINE_AT + 4] = counts.view(np.uint8).reshape(-1, 4)
    at = len(template)
    for array in reversed(arrays):
        data = array.reshape(len(ids), -1).view(np.uint8)
        at -= data.shape[1]
        frames[:, at : at + data.shape[1]] = data
    return bytearray(frames)


def find_nonfinite(values: Array) -> Array:
    """Which rows of (n, ...) have nan or +inf, (n,) bool; -inf is a valid log-density."""
    bad: Array = np.less(values.reshape(len(values), -1), np.inf)
    return np.logical_not(bad.all(axis=1))


def flatten(layout: Layout, arrays: Sequence[Array]) -> list[Array]:
    """The bytes of a large frame behind its head, as uint8 views of the arrays and of the gaps between them."""
    views: list[Array] = []
    at = layout.offsets[0]
    for offset, array in zip(layout.offsets, arrays, strict=True):
        if offset > at:
            views.append(np.zeros(offset - at, dtype=np.uint8))
        if array.nbytes:
            views.append(array.reshape(-1).view(np.uint8))
        at = offset + array.nbytes
    return views
