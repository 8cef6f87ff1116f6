"""Requests cut into chunks and results put together: nothing is lost, doubled or moved."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from service import make_request

from demos_hpc.blocks import limit_run
from demos_hpc.calls import Batch, Call
from demos_hpc.errors import BadFrame, InvalidInput, ModelFailed, Status
from demos_hpc.events import Part, SendPart
from demos_hpc.messages import Failure, Flag, Kind, Operation, to_json
from demos_hpc.model import LoadedModel
from demos_hpc.served import Served
from demos_hpc.spec import ModelSpec, Observable, Output, Parameter
from demos_hpc.testing import Gaussian, LinearGaussian
from demos_hpc.transport.loopback import LoopbackLink, LoopbackPort, make_pair
from demos_hpc.wire import Frame, Packed, pack, read_header, split
from demos_hpc.worker import Worker

CHECK = settings(derandomize=True, deadline=None, max_examples=100)
SPEC = LoadedModel(Gaussian(d=2, block_rows=8)).spec
X = np.random.default_rng(31).normal(size=(50, 2))
ROWS = np.random.default_rng(32).uniform(1.0, 2.0, size=(50, 2))
POINT = np.array([0.5, 2.0])
CLIENT, WORKER = LoopbackLink("client"), LoopbackLink("worker")


def receive(packed: Packed) -> Frame:
    """The frame at the other end."""
    head = bytearray(packed.head)
    header = read_header(head)
    if not packed.tail:
        return Frame(header, head)
    flat = np.concatenate([part.reshape(-1).view(np.uint8) for part in packed.tail])
    frame = Frame(header, head)
    layout, first = frame.layout, frame.layout.offsets[0]
    arrays = [
        flat[offset - first : offset - first + int(np.prod(shape)) * dtype.itemsize].view(dtype).reshape(shape)
        for dtype, shape, offset in zip(layout.dtypes, layout.shapes, layout.offsets, strict=True)
    ]
    return Frame(header, head, 0, arrays)


def make_call(operation: Operation, arrays: list[Any], *, spec: Any = SPEC, link: Any = CLIENT, **fields: int) -> Call:
    frame = receive(make_request(operation, arrays, **fields))
    served = Served(1, spec, "", 2**40)
    return Call(link, frame, served.plan(frame), served.defaults, served.revision)


def send(call: Call, part: Part) -> Frame:
    return receive(Batch(WORKER, [call], [part]).pack(99))


def test_a_small_request_is_passed_on_as_it_is() -> None:
    call = make_call(Operation.LOG_DENSITY, [X, POINT], seed=5)
    chunk = send(call, Part(1, 0, 50))
    assert (chunk.header.kind, chunk.header.id, chunk.header.n_rows) == (Kind.CHUNK, 99, 50)
    np.testing.assert_array_equal(chunk.arrays[0], X)


@pytest.mark.parametrize("params", [POINT, ROWS], ids=["one point", "rows"])
def test_rows_of_a_chunk(params: Any) -> None:
    call = make_call(Operation.LOG_DENSITY_GRADIENT, [X, params], flags=Flag.WRT_X)
    chunk = send(call, Part(1, 7, 11))
    assert (chunk.header.first_row, chunk.header.n_rows, chunk.header.flags) == (7, 11, Flag.WRT_X)
    np.testing.assert_array_equal(chunk.arrays[0], X[7:18])
    np.testing.assert_array_equal(chunk.arrays[1], params if params is POINT else params[7:18])


def test_the_servers_params_are_added_where_none_were_given() -> None:
    defaults = SPEC.defaults
    np.testing.assert_array_equal(send(make_call(Operation.LOG_DENSITY, [X]), Part(1, 0, 50)).arrays[1], defaults)
    cells = send(make_call(Operation.LOG_LIKELIHOOD, [X]), Part(1, 0, 7))
    np.testing.assert_array_equal(cells.arrays[1], defaults[np.newaxis])
    drawn = send(make_call(Operation.SAMPLE, [], n_rows=50, seed=3), Part(1, 2, 3))
    np.testing.assert_array_equal(drawn.arrays[0], defaults)
    assert (drawn.header.first_row, drawn.header.n_rows, drawn.header.seed) == (16, 24, 3)
    assert send(make_call(Operation.EVALUATE, [], n_rows=1), Part(1, 0, 1)).arrays[0].tolist() == [[0.0, 1.0]]


def test_the_last_block_of_a_sample_may_be_short() -> None:
    drawn = send(make_call(Operation.SAMPLE, [POINT], n_rows=50), Part(1, 5, 2))
    assert (drawn.header.first_row, drawn.header.n_rows) == (40, 10)


def test_cells_of_a_chunk() -> None:
    points = ROWS[:3]
    call = make_call(Operation.LOG_LIKELIHOOD, [X, points])
    chunk = send(call, Part(1, 9, 4))  # the second point, blocks 2 to 5
    assert (chunk.header.first_row, chunk.header.n_rows) == (9, 4)
    np.testing.assert_array_equal(chunk.arrays[0], X[16:48])
    np.testing.assert_array_equal(chunk.arrays[1], points[1:2])
    whole = send(call, Part(1, 0, 21))
    assert whole.header.n_rows == 21
    np.testing.assert_array_equal(whole.arrays[1], points)
    call = make_call(Operation.LOG_LIKELIHOOD, [X, points], flags=Flag.BLOCK_MAJOR)
    chunk = send(call, Part(1, 18, 3))  # the last block, all points
    np.testing.assert_array_equal(chunk.arrays[0], X[48:])
    np.testing.assert_array_equal(chunk.arrays[1], points)


@CHECK
@given(st.data())
def test_a_request_in_parts_is_worked_on_part_by_part(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 50))
    is_likelihood = data.draw(st.booleans())
    params = data.draw(st.sampled_from([POINT, ROWS[:n]])) if not is_likelihood else ROWS[:3]
    size = data.draw(st.sampled_from([8, 16, 24])) if is_likelihood else data.draw(st.integers(1, 50))
    size = min(size, n)
    if size < n and is_likelihood:
        size -= size % 8
    operation = Operation.LOG_LIKELIHOOD if is_likelihood else Operation.LOG_DENSITY
    per_row = [X[:n]] if params is POINT or is_likelihood else [X[:n], params]
    shared = [params] if params is POINT or is_likelihood else []
    first = [*(array[:size] for array in per_row), *shared]
    call = make_call(operation, first, n_rows=n, flags=Flag.BLOCK_MAJOR if is_likelihood else 0)
    here, sent = call.plan.first_units, size
    while sent < n:
        part = [array[sent : sent + size] for array in per_row]
        here += call.add(receive(pack(Kind.ROWS, part, first_row=sent)))
        sent += size
    assert here == call.plan.units
    seen, unit = np.zeros(call.plan.units, int), 0
    while unit < call.plan.units:
        left = call.plan.limit - unit % call.plan.limit
        count = min(data.draw(st.integers(1, 20)), left, call.plan.units - unit)
        count = limit_run(unit, count, call.plan.period)
        chunk = send(call, Part(1, unit, count))
        start, stop = call.plan.rows_of(unit, count)
        np.testing.assert_array_equal(chunk.arrays[0], X[start:stop])
        if params is not POINT and not is_likelihood:
            np.testing.assert_array_equal(chunk.arrays[1], params[start:stop])
        seen[unit : unit + count] += 1
        unit += count
    assert (seen == 1).all()


def test_a_part_that_does_not_come_next_is_refused() -> None:
    call = make_call(Operation.LOG_DENSITY, [X[:20], POINT], n_rows=50)
    for first, arrays in ((21, [X[:20]]), (20, [X[:19]]), (20, [X[:20], X[:20]]), (20, [X[:20, :1]]), (20, [])):
        with pytest.raises(InvalidInput, match=r"row 20 with arrays .* comes next"):
            call.add(receive(pack(Kind.ROWS, arrays, first_row=first)))
    with pytest.raises(InvalidInput, match="not all float64"):
        call.add(receive(pack(Kind.ROWS, [X[:20].astype(np.float32)], first_row=20)))
    bad = pack(Kind.ROWS, [X[:20]], first_row=20)
    bad.head[64 + 8] = 21
    with pytest.raises(BadFrame):
        call.add(receive(bad))
    assert call.add(receive(pack(Kind.ROWS, [X[:20]], first_row=20))) == 20


# ---- several requests in one chunk ------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("params", ["point", "rows", "none"])
def test_merged_requests_are_put_behind_one_another_and_taken_apart(rows: int, params: str) -> None:
    other = LoopbackLink("other")
    starts = range(0, 5 * rows, rows)
    calls = []
    for nth, start in enumerate(starts):
        own = {"point": [ROWS[nth]], "rows": [ROWS[start : start + rows]], "none": []}[params]
        link = other if nth == 3 else CLIENT
        calls.append(make_call(Operation.LOG_DENSITY, [X[start : start + rows], *own], link=link, id=10 + nth))
    parts = [Part(nth, 0, rows) for nth in range(5)]
    batch = Batch(WORKER, calls, parts)
    chunk = receive(batch.pack(99))
    assert (chunk.header.kind, chunk.header.n_rows, chunk.header.first_row) == (Kind.CHUNK, 5 * rows, 0)
    np.testing.assert_array_equal(chunk.arrays[0], X[: 5 * rows])
    expected = {"point": np.repeat(ROWS[:5], rows, axis=0), "rows": ROWS[: 5 * rows], "none": SPEC.defaults}[params]
    np.testing.assert_array_equal(chunk.arrays[1], expected)
    values = np.arange(5.0 * rows)
    values[0] = np.nan
    result = receive(pack(Kind.RESULT, [values], id=99, n_rows=5 * rows, deadline_ms=1, seed=500))
    assert batch.fits(result)
    wanted = [SendPart(99, nth, parts[nth], True) for nth in (0, 2, 3, 4)]  # nobody waits for the second any more
    got = {}
    for link, message in batch.answer(result, wanted):
        for header, start in split(message.head):
            frame = Frame(header, message.head, start)
            assert (header.kind, header.flags, header.n_rows, header.seed) == (Kind.REPLY, Flag.FINAL, rows, 100)
            got[header.id] = (link, frame.arrays[0].copy(), header.deadline_ms)
    assert sorted(got) == [10, 12, 13, 14]
    for nth in (0, 2, 3, 4):
        link, rows_of, nonfinite = got[10 + nth]
        assert link is (other if nth == 3 else CLIENT)
        np.testing.assert_array_equal(rows_of, values[nth * rows : (nth + 1) * rows])
        assert nonfinite == (nth == 0)


def test_results_that_do_not_fit() -> None:
    calls = [make_call(Operation.LOG_DENSITY, [X[:1], POINT], id=i) for i in range(3)]
    batch = Batch(WORKER, calls, [Part(i, 0, 1) for i in range(3)])
    batch.pack(1)
    good = np.zeros(3)
    wrong = ([], [np.zeros(2)], [np.zeros(())], [np.zeros((3, 1))], [good.astype("f4")], [good, good])
    for arrays in wrong:
        assert not batch.fits(receive(pack(Kind.RESULT, arrays, id=1, n_rows=3)))
    bad = pack(Kind.RESULT, [good], id=1, n_rows=3)
    bad.head[64 + 8] = 2
    assert not batch.fits(Frame(read_header(bad.head), bad.head))
    assert not batch.fits(receive(pack(Kind.RESULT, [good], id=1, n_rows=2)))
    assert batch.fits(receive(pack(Kind.RESULT, [good], id=1, n_rows=3)))


@pytest.mark.parametrize("flags", [0, Flag.WRT_X, Flag.BLOCK_MAJOR, 0xFFFF - Flag.RESIDENT])
@pytest.mark.parametrize("operation", [o for o in Operation if o <= Operation.EVALUATE])
def test_what_a_worker_answers_fits(operation: Operation, flags: int) -> None:
    """Else anybody who sets a flag that has no meaning could have a good worker given up."""
    model = LoadedModel(Gaussian(d=3))
    x = np.random.default_rng(33).normal(size=(5, 3))
    arrays = {
        Operation.SAMPLE: [POINT],
        Operation.EVALUATE: [POINT[np.newaxis]],
        Operation.LOG_LIKELIHOOD: [x, POINT[np.newaxis]],
        Operation.LOG_LIKELIHOOD_GRADIENT: [x, POINT[np.newaxis]],
    }.get(operation, [x, POINT])
    call = make_call(operation, arrays, spec=model.spec, n_rows=len(arrays[0]), flags=flags)
    batch = Batch(WORKER, [call], [Part(0, 0, call.plan.units)])
    port = LoopbackPort()
    worker = Worker("worker", port, make_pair(LoopbackPort(), port, ("dispatcher", "worker"))[1])
    worker.offer(lambda: model, "")
    result = receive(worker._compute(receive(batch.pack(1))))
    assert batch.fits(result)
    assert not batch.fits(receive(pack(Kind.RESULT, [*result.arrays, result.arrays[0]], id=1, n_rows=batch.rows)))
    assert not batch.fits(receive(pack(Kind.RESULT, result.arrays, id=1, n_rows=batch.rows, first_row=1)))


def test_failures_that_fit_have_a_reason() -> None:
    call = make_call(Operation.LOG_DENSITY, [X[:1], POINT])
    batch = Batch(WORKER, [call], [Part(0, 0, 1)])
    batch.pack(1)

    def fail(status: int, *reasons: object) -> bool:
        return batch.fits(receive(pack(Kind.RESULT, [to_json(reason) for reason in reasons], id=1, status=status)))

    reason = Failure.of(ModelFailed("it is out of paper")).to_dict()
    assert fail(Status.MODEL_FAILED, reason)
    assert not fail(Status.MODEL_FAILED)
    assert not fail(Status.MODEL_FAILED, [1])
    assert not fail(Status.INVALID_INPUT, reason)
    assert not fail(999, reason | {"status": 999})
    assert not fail(Status.CANCELLED), "somebody still waits"
    call.status = int(Status.DEADLINE)
    assert fail(Status.CANCELLED)


def test_rows_that_depend_on_one_another_are_never_merged() -> None:
    spec = LoadedModel(LinearGaussian(d=2, block_rows=8)).spec
    call = make_call(Operation.LOG_DENSITY, [X[:5], np.array([0.5])], spec=spec)
    assert call.plan.merge_key(1) is None
    assert make_call(Operation.LOG_DENSITY, [X[:5], POINT]).plan.merge_key(1) is not None
    assert make_call(Operation.SAMPLE, [POINT], n_rows=5).plan.merge_key(1) is None
    assert make_call(Operation.LOG_LIKELIHOOD, [X[:5], POINT[np.newaxis]]).plan.merge_key(1) is None


def make_spec(p: int, q: int) -> ModelSpec:
    return ModelSpec(
        name="wide",
        parameters=tuple(Parameter(f"p{i}", default=float(i)) for i in range(p)),
        observables=(Observable("x"),),
        outputs=tuple(Output(f"y{i}") for i in range(q)),
        operations=("log_density", "log_density_gradient", "evaluate"),
    )


@pytest.mark.parametrize(("q", "rows", "merges"), [(3000, 1, False), (1024, 1, True), (1025, 1, False), (16, 64, True)])
def test_evaluations_with_large_answers_are_never_merged(q: int, rows: int, merges: bool) -> None:
    call = make_call(Operation.EVALUATE, [np.ones((rows, 2))], spec=make_spec(2, q))
    assert (call.plan.merge_key(1) is not None) == merges


def test_gradients_with_large_answers_are_never_merged() -> None:
    spec, x, point = make_spec(100, 1), np.ones((64, 1)), np.ones(100)
    for rows, merges in ((1, True), (10, True), (11, False), (64, False)):
        call = make_call(Operation.LOG_DENSITY_GRADIENT, [x[:rows], point], spec=spec)
        assert (call.plan.merge_key(1) is not None) == merges
    assert make_call(Operation.LOG_DENSITY, [x, point], spec=spec).plan.merge_key(1) is not None


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("params", ["point", "rows", "none"])
def test_requests_without_any_parameters_are_merged(rows: int, params: str) -> None:
    own = {"point": [np.empty(0)], "rows": [np.empty((rows, 0))], "none": []}[params]
    calls = [
        make_call(Operation.LOG_DENSITY, [X[nth * rows : (nth + 1) * rows, :1], *own], spec=make_spec(0, 1))
        for nth in range(3)
    ]
    chunk = receive(Batch(WORKER, calls, [Part(nth, 0, rows) for nth in range(3)]).pack(99))
    x, point = chunk.arrays
    np.testing.assert_array_equal(x, X[: 3 * rows, :1])
    assert point.shape in ((0,), (3 * rows, 0))
