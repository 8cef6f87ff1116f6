"""Links inside one process, and the buffers that large frames are received in."""

from __future__ import annotations

import numpy as np
import pytest

from demos_hpc.errors import BadFrame, BadVersion
from demos_hpc.messages import Kind
from demos_hpc.transport.buffers import SMALLEST, Buffers
from demos_hpc.transport.loopback import LoopbackPort, make_pair
from demos_hpc.wire import INLINE_BYTES, OFFSETS, Frame, Packed, join, pack

FLOAT64 = np.dtype("<f8")


def test_frames_arrive_at_the_other_end_in_order() -> None:
    mine, theirs = LoopbackPort(), LoopbackPort()
    there, here = make_pair(mine, theirs, ("alice", "bob"))
    assert (there.name, here.name) == ("bob", "alice")
    arrays = [np.arange(5, dtype=np.uint8), np.zeros(INLINE_BYTES), np.ones((0, 3)), np.ones(2)]
    there.send(pack(Kind.CANCEL, id=1))
    there.send(pack(Kind.ROWS, arrays, id=2))
    there.send(Packed(join([pack(Kind.CANCEL, [np.ones(nth)], id=3 + nth).head for nth in range(3)]), ()))
    arrived = theirs.receive()
    assert [link for link, _ in arrived] == [here] * 5
    frames = [frame for _, frame in arrived if isinstance(frame, Frame)]
    assert [frame.header.id for frame in frames] == [1, 2, 3, 4, 5]
    for got, sent in zip(frames[1].arrays, arrays, strict=True):
        np.testing.assert_array_equal(got, sent)
        assert not np.shares_memory(got, sent)
    assert theirs.receive() == mine.receive() == []


def test_a_message_is_the_senders_again_once_it_is_sent() -> None:
    mine, theirs = LoopbackPort(), LoopbackPort()
    there, _ = make_pair(mine, theirs, ("a", "b"))
    packed = pack(Kind.ROWS, [np.ones(3)], id=1)
    there.send(packed)
    packed.head[:] = bytes(len(packed.head))
    ((_, frame),) = theirs.receive()
    assert isinstance(frame, Frame)
    assert frame.arrays[0].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("head", "error"),
    [
        (bytearray(64), BadFrame),
        (bytearray(10), BadFrame),
        (pack(Kind.ROWS, [np.ones(3)]).head[:-1], BadFrame),
        (bytearray().join([pack(Kind.END).head[: OFFSETS["major"]], b"\x07", pack(Kind.END).head[5:]]), BadVersion),
    ],
    ids=["zeros", "short", "cut", "version"],
)
def test_a_bad_frame_is_the_receivers_concern(head: bytearray, error: type[Exception]) -> None:
    mine, theirs = LoopbackPort(), LoopbackPort()
    there, here = make_pair(mine, theirs, ("a", "b"))
    there.send(Packed(pack(Kind.CANCEL, id=1).head + head, ()))
    good, bad = theirs.receive()
    assert isinstance(good[1], Frame)
    assert bad[0] is here
    assert type(bad[1]) is error


def test_a_buffer_is_used_again_when_nobody_has_it() -> None:
    buffers = Buffers()
    first = buffers.take(FLOAT64, (SMALLEST, 1))
    address = first.ctypes.data
    second = buffers.take(FLOAT64, (SMALLEST,))
    assert not np.shares_memory(first, second)
    view = first[10:]
    del first
    assert not np.shares_memory(buffers.take(FLOAT64, (SMALLEST,)), view)
    del view
    again = buffers.take(np.dtype("<i4"), (2, SMALLEST))
    assert again.ctypes.data == address
    assert again.shape == (2, SMALLEST)


def test_buffers_are_not_kept_without_end() -> None:
    buffers = Buffers(keep_bytes=4 * SMALLEST)
    held = [buffers.take(np.dtype("u1"), (SMALLEST,)) for _ in range(20)]
    assert buffers._kept_bytes == 4 * SMALLEST
    assert len({array.ctypes.data for array in held}) == 20
    assert buffers.take(np.dtype("u1"), (5,)).shape == (5,)
    assert buffers.take(FLOAT64, (0, 3)).shape == (0, 3)
