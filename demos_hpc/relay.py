"""Frames that are passed on as they are, and many small frames made at once: what a dispatcher does all day."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from .messages import Array
from .wire import FIELDS, HEADER_BYTES, Frame, Layout, Packed, pack, read_layout

_CODES = dict(FIELDS)
_OFFSETS = {
    name: struct.calcsize("<" + "".join(code for _, code in FIELDS[:nth])) for nth, (name, _) in enumerate(FIELDS)
}
_KIND, _FLAGS, _ID, _REVISION = (struct.Struct("<" + _CODES[name]) for name in ("kind", "flags", "id", "revision"))


def pass_on(frame: Frame, *, kind: int, id: int, flags: int, revision: int) -> Packed:  # noqa: A002
    """The same frame under another kind, id, flags and revision.

    Its header is changed in place and its arrays are only referred to: nothing is copied, but where the frame
    shares its buffer with others.
    """
    buffer, size = frame.buffer, HEADER_BYTES + frame.header.payload
    if frame.is_inline and len(buffer) != size:
        buffer = buffer[frame.start : frame.start + size]
    elif not frame.is_inline and frame.start:
        buffer = buffer[frame.start :]
    _KIND.pack_into(buffer, _OFFSETS["kind"], kind)
    _FLAGS.pack_into(buffer, _OFFSETS["flags"], flags)
    _ID.pack_into(buffer, _OFFSETS["id"], id)
    _REVISION.pack_into(buffer, _OFFSETS["revision"], revision)
    if frame.is_inline:
        return Packed(buffer, ())
    return Packed(buffer, flatten(read_layout(frame.header, buffer), frame.arrays))


def pack_many(ids: Sequence[int], arrays: Sequence[Array], rows: int, **fields: int) -> bytearray:
    """A small frame for each of ``ids``, in one message: the i-th has rows [i * rows, (i + 1) * rows) of the arrays.

    The arrays are float64, so that every frame ends at a multiple of 8 bytes. ``fields`` are those of `wire.pack`.
    """
    template = pack(arrays=[array[:rows] for array in arrays], n_rows=rows, **fields).head
    frames = np.empty((len(ids), len(template)), dtype=np.uint8)
    frames[:] = np.frombuffer(template, dtype=np.uint8)
    frames[:, _OFFSETS["id"] : _OFFSETS["id"] + 8] = np.array(ids, dtype="<u8").view(np.uint8).reshape(-1, 8)
    at = len(template)
    for array in reversed(arrays):
        data = array.reshape(len(ids), -1).view(np.uint8)
        at -= data.shape[1]
        frames[:, at : at + data.shape[1]] = data
    return bytearray(frames)  # type: ignore[call-overload, no-any-return]


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
