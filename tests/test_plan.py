"""Requests cut into units of work: rows past 2^31 and payloads past 2 GiB counted and split rightly, unallocated."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos_hpc.blocks import count_blocks, limit_run
from demos_hpc.calls import Call
from demos_hpc.errors import InvalidInput, NotOffered, TooLarge
from demos_hpc.events import ClientJoined, Part, RequestArrived, ResultArrived, SendChunk, UnitsArrived, WorkerJoined
from demos_hpc.messages import Flag, Kind, Operation
from demos_hpc.model import LoadedModel
from demos_hpc.plan import MERGED_ROWS, Plan, make_plan
from demos_hpc.scheduler import Limits, Scheduler
from demos_hpc.served import Served
from demos_hpc.spec import ModelSpec
from demos_hpc.testing import Gaussian, LinearGaussian
from demos_hpc.transport.loopback import LoopbackLink
from demos_hpc.wire import HEADER_BYTES, INLINE_BYTES, MAGIC, PIECE_BYTES, WIRE_MAJOR, WIRE_MINOR, Frame, Header

CHECK = settings(derandomize=True, deadline=None, max_examples=200)
SPEC = LoadedModel(Gaussian(d=2)).spec
GROUPED = LoadedModel(LinearGaussian(d=2, block_rows=100)).spec
HUGE = 5 * 2**31 + 7  # rows; with two columns 160 GiB


def plan(
    operation: Operation,
    rows: int,
    *shapes: tuple[int, ...],
    flags: int = 0,
    spec: ModelSpec = SPEC,
) -> Plan:
    """The plan of a request whose arrays have these shapes; nothing of them exists."""
    frame = announce(operation, rows, *shapes, flags=flags)
    return make_plan(spec, frame.header, frame.layout)


def announce(operation: Operation, rows: int, *shapes: tuple[int, ...], flags: int = 0) -> Frame:
    """The head of a request that nobody could hold in memory."""
    head = bytearray(HEADER_BYTES)
    payload = 0
    for shape in shapes:
        descriptor = bytes([1, len(shape), 0, 0, 0, 0, 0, 0]) + b"".join(n.to_bytes(8, "little") for n in shape)
        head += descriptor
        payload += len(descriptor) + 8 * math.prod(shape)
    head += bytes(payload) if payload <= INLINE_BYTES else b""
    header = Header(
        MAGIC, WIRE_MAJOR, WIRE_MINOR, Kind.REQUEST, operation, 0, flags, 1, len(shapes), 1, 0, rows, payload, 0, 0, 0
    )
    return Frame(header, head)


# ---- what the units are --------------------------------------------------------------------------------------


def test_units_of_rows_that_are_independent_are_rows() -> None:
    made = plan(Operation.LOG_DENSITY, 3000, (3000, 2), (2,))
    assert (made.units, made.unit_rows, made.period, made.first_units) == (3000, 1, 1, 3000)
    assert made.rows_of(7, 5) == (7, 12)
    assert made.block == SPEC.block_rows
    assert not made.merges
    assert plan(Operation.LOG_DENSITY, MERGED_ROWS, (MERGED_ROWS, 2), (2,)).merges


def test_units_of_samples_and_of_rows_that_are_not_independent_are_blocks() -> None:
    made = plan(Operation.SAMPLE, 2500, (2,))
    assert (made.units, made.unit_rows, made.block) == (3, 1024, 1)
    assert made.rows_of(1, 2) == (1024, 2500)
    made = plan(Operation.LOG_DENSITY, 250, (250, 2), (1,), spec=GROUPED)
    assert (made.units, made.unit_rows, made.merges) == (3, 100, False)
    assert made.rows_of(2, 1) == (200, 250)


def test_units_of_likelihoods_are_cells() -> None:
    by_points = plan(Operation.LOG_LIKELIHOOD, 2500, (2500, 2), (4, 2))
    assert (by_points.units, by_points.period, by_points.n_blocks, by_points.points) == (12, 3, 3, 4)
    assert by_points.rows_of(4, 2) == (1024, 2500)
    assert by_points.points_of(4, 2) == (1, 2)
    assert by_points.rows_of(3, 6) == (0, 2500)
    assert by_points.points_of(3, 6) == (1, 3)
    by_blocks = plan(Operation.LOG_LIKELIHOOD, 2500, (2500, 2), (4, 2), flags=Flag.BLOCK_MAJOR)
    assert by_blocks.period == 4
    assert by_blocks.rows_of(8, 4) == (2048, 2500)
    assert by_blocks.points_of(8, 4) == (0, 4)
    assert by_blocks.rows_of(5, 2) == (1024, 2048)
    assert by_blocks.points_of(5, 2) == (1, 3)


@CHECK
@given(st.integers(1, 10_000), st.integers(1, 9), st.booleans(), st.data())
def test_every_cell_is_computed_once_by_chunks_that_are_rectangles(
    rows: int, points: int, is_block_major: bool, data: st.DataObject
) -> None:
    flags = Flag.BLOCK_MAJOR if is_block_major else 0
    made = plan(Operation.LOG_LIKELIHOOD, rows, (rows, 2), (points, 2), flags=flags)
    n_blocks = count_blocks(rows, SPEC.block_rows)
    seen: list[tuple[int, int]] = []
    first = 0
    while first < made.units:
        count = limit_run(first, min(data.draw(st.integers(1, made.units)), made.units - first), made.period)
        start, stop = made.rows_of(first, count)
        low, high = made.points_of(first, count)
        blocks = range(start // SPEC.block_rows, count_blocks(stop, SPEC.block_rows))
        cells = [(p, b) for p in range(low, high) for b in blocks]
        assert len(cells) == count
        seen += cells
        first += count
    assert sorted(seen) == [(p, b) for p in range(points) for b in range(n_blocks)]


# ---- huge ones -----------------------------------------------------------------------------------------------


def test_rows_past_two_to_the_31_are_counted_and_split() -> None:
    part = 131_072  # rows of 16 bytes: 2 MiB
    made = plan(Operation.LOG_DENSITY, HUGE, (part, 2), (2,))
    assert (made.units, made.first_units, made.limit) == (HUGE, part, part)
    assert made.rows_of(HUGE - 3, 3) == (HUGE - 3, HUGE)
    assert made.rows_of(3 * 2**31, 2**31 + 5) == (3 * 2**31, 4 * 2**31 + 5)
    made = plan(Operation.SAMPLE, 2**63 + 1, (2,))
    assert made.units == 2**53 + 1
    assert made.rows_of(2**53, 1) == (2**63, 2**63 + 1)


def test_likelihoods_past_two_to_the_31_cells() -> None:
    part = 131_072
    made = plan(Operation.LOG_LIKELIHOOD, HUGE, (part, 2), (1000, 2), flags=Flag.BLOCK_MAJOR)
    n_blocks = -(-HUGE // 1024)
    assert made.units == n_blocks * 1000 > 2**33
    assert (made.period, made.limit) == (1000, 128 * 1000)
    last = made.units - 1000
    assert made.rows_of(last, 1000) == ((n_blocks - 1) * 1024, HUGE)
    assert made.points_of(made.units - 1, 1) == (999, 1000)


def test_payloads_past_two_gib_are_weighed_in_python_integers() -> None:
    served = Served(1, SPEC, "", max_request_bytes=2**40)
    frame = announce(Operation.LOG_DENSITY, HUGE, (131_072, 2), (2,))
    assert served.plan(frame).units == HUGE
    with pytest.raises(TooLarge, match=rf"a request of {HUGE * 10} rows, about \d{{13}} bytes"):
        served.plan(announce(Operation.LOG_DENSITY, HUGE * 10, (131_072, 2), (2,)))
    one_piece = announce(Operation.LOG_DENSITY, 2**36, (2**36, 2), (2,))
    assert one_piece.header.payload > 2**40
    with pytest.raises(TooLarge):
        served.plan(one_piece)


def test_a_large_answer_is_cut_into_chunks_of_a_few_mib() -> None:
    wide = LoadedModel(Gaussian(d=1000)).spec
    made = plan(Operation.LOG_DENSITY_GRADIENT, 10_000, (10_000, 1000), (2,), flags=Flag.WRT_X, spec=wide)
    assert made.limit == PIECE_BYTES // (8 * 1001)
    made = plan(Operation.SAMPLE, 10**7, (2,), spec=wide)
    assert made.limit == 1  # a block of 8 MB at least
    assert plan(Operation.EVALUATE, 10**7, (10**7, 2)).limit == PIECE_BYTES // 16


def fake_rows(rows: int, width: int) -> np.ndarray:
    """So many rows without their memory."""
    return np.broadcast_to(np.arange(float(width)), (rows, width))


def fill(frame: Frame, *arrays: np.ndarray) -> Frame:
    """The frame with arrays that take no memory."""
    return Frame(frame.header, frame.buffer, 0, list(arrays))


def test_rows_are_selected_beyond_two_to_the_31() -> None:
    rows = 2**32 + 100
    frame = announce(Operation.LOG_DENSITY, rows, (rows, 2), (2,))
    made = Served(1, SPEC, "", 2**63).plan(frame)
    call = Call(LoopbackLink("client"), fill(frame, fake_rows(rows, 2), np.ones(2)), made, None, 1)
    first, count, arrays = call.select(Part(1, 2**32 + 90, 10))
    assert (first, count) == (2**32 + 90, 10)
    assert [array.shape for array in arrays] == [(10, 2), (2,)]
    assert arrays[0].tolist() == [[0.0, 1.0]] * 10


def test_parts_are_put_in_their_place_beyond_two_to_the_31() -> None:
    part = 2**31
    frame = announce(Operation.LOG_DENSITY, 3 * part + 5, (part, 2), (part, 2))
    made = Served(1, SPEC, "", 2**63).plan(frame)
    call = Call(LoopbackLink("client"), fill(frame, fake_rows(part, 2), fake_rows(part, 2)), made, None, 1)
    for nth, rows in enumerate((part, part, 5), start=1):
        head = announce(Operation.LOG_DENSITY, rows, (rows, 2), (rows, 2))
        header = head.header._replace(kind=Kind.ROWS, first_row=nth * part)
        follower = fill(Frame(header, head.buffer), *[fake_rows(rows, 2)] * 2)
        assert call.add(follower) == rows
    assert call.rows_here == made.units == 3 * part + 5
    first, count, arrays = call.select(Part(1, 3 * part, 5))
    assert (first, count, arrays[0].shape, arrays[1].shape) == (3 * part, 5, (5, 2), (5, 2))
    with pytest.raises(InvalidInput, match="comes next"):
        call.add(follower)


def test_the_scheduler_hands_out_more_than_two_to_the_31_units_once_each() -> None:
    """Chunks of a huge request, each done in no time: every unit once, none across the end of a part."""
    limit = 2**28
    units = 2**33 + 3
    scheduler = Scheduler(Limits(10, 1e9, 0.0))
    scheduler.handle(WorkerJoined(1, 1), 0.0)
    scheduler.handle(ClientJoined(1, "ada"), 0.0)
    arrived = RequestArrived(1, 1, 1, "work", units, limit, math.inf, None, 1, limit, 1024)
    actions = scheduler.handle(arrived, 0.0)
    next_unit, here = 0, limit
    for _ in range(100_000):
        chunks = [action for action in actions if isinstance(action, SendChunk)]
        actions = []
        for chunk in chunks:
            (part,) = chunk.parts
            assert part.first == next_unit
            assert part.first // limit == (part.first + part.count - 1) // limit
            next_unit += part.count
            actions += scheduler.handle(ResultArrived(1, chunk.chunk, 0, 1e-9 * part.count), 0.0)
        if not any(isinstance(action, SendChunk) for action in actions):
            if here == units:
                break
            more = min(limit, units - here)
            here += more
            actions += scheduler.handle(UnitsArrived(1, more), 0.0)
    assert next_unit == units
    assert scheduler.is_idle


# ---- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "rows", "shapes", "message"),
    [
        (Operation.LOG_DENSITY, 0, [(0, 2), (2,)], "a request of no rows"),
        (Operation.LOG_DENSITY, 3, [(3,)], r"x has shape \(3,\); model 'gaussian' takes \(n, 2\)"),
        (Operation.LOG_DENSITY, 3, [(3, 2), (3,)], r"params has shape \(3,\)"),
        (Operation.LOG_DENSITY, 3, [(3, 2), (4, 2)], "params has 4 rows and x 3"),
        (Operation.LOG_DENSITY, 3, [], "with 0 arrays; it has 1 or 2"),
        (Operation.SAMPLE, 3, [(3, 2)], "sample takes one point"),
        (Operation.EVALUATE, 3, [(2,)], r"evaluate takes \(m, p\), m > 0"),
        (Operation.LOG_LIKELIHOOD, 3, [(3, 2), (0, 2)], r"log_likelihood takes \(m, p\), m > 0"),
        (Operation.LOG_DENSITY, 3, [(5, 2), (2,)], "a first part of 5 rows of 3"),
        (Operation.LOG_LIKELIHOOD, 9000, [(1000, 2), (1, 2)], "parts are whole blocks of 1024"),
        (Operation.LOG_LIKELIHOOD, 9000, [(1024, 2), (1, 2)], "is block-major"),
    ],
)
def test_requests_that_do_not_fit_the_model(
    operation: Operation, rows: int, shapes: list[tuple[int, ...]], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        plan(operation, rows, *shapes)


def test_operations_that_are_not_offered() -> None:
    with pytest.raises(NotOffered, match="does not offer evaluate"):
        plan(Operation.EVALUATE, 1, (1, 1), spec=GROUPED)
