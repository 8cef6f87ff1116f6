"""A worker answers every chunk exactly once, whatever it is told, and goes on."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos_hpc.errors import (
    BadFrame,
    DemosError,
    InternalError,
    InvalidInput,
    ModelFailed,
    ModelNotFound,
    ServerLost,
    Status,
)
from demos_hpc.greetings import Beat
from demos_hpc.messages import Failure, Flag, Kind, Offer, Operation, from_json
from demos_hpc.model import LoadedModel, load
from demos_hpc.refusals import refuse
from demos_hpc.testing import Failing, FakeClock, Gaussian, LinearGaussian
from demos_hpc.transport.loopback import LoopbackPort, make_pair
from demos_hpc.wire import DTYPES, Frame, Packed, pack, read_header
from demos_hpc.worker import Worker

CHECK = settings(derandomize=True, deadline=None, max_examples=200)
MODEL = Gaussian(block_rows=16)
X = np.random.default_rng(12).normal(size=(40, 1))
POINT = np.array([0.5, 2.0])


class Desk:
    """A worker, and the dispatcher's end of its link."""

    def __init__(self, model: Any = MODEL) -> None:
        self._port = LoopbackPort()
        port = LoopbackPort()
        self.link, here = make_pair(self._port, port, ("dispatcher", "worker 7"))
        self.worker = Worker("worker 7", port, here)

        def load() -> LoadedModel:
            if isinstance(model, DemosError):
                raise model
            return LoadedModel(model)

        self.worker.offer(load, "numpy of this process")
        ((_, offer),) = self._port.receive()
        assert isinstance(offer, Frame)
        self.offer = Offer.from_dict(from_json(offer.arrays[0]))

    def receive(self) -> list[Frame]:
        return [frame for _, frame in self._port.receive() if isinstance(frame, Frame)]

    def ask(self, packed: Packed) -> Frame:
        self.link.send(packed)
        assert self.worker.step()
        (result,) = self.receive()
        assert result.header.kind == Kind.RESULT
        return result

    def assert_computes(self) -> None:
        result = self.ask(chunk(Operation.LOG_DENSITY, [X, POINT], id=2**63))
        assert (result.header.id, result.header.status) == (2**63, 0)
        np.testing.assert_array_equal(result.arrays[0], MODEL.log_density(X, POINT))


def chunk(operation: int, arrays: list[Any], **fields: int) -> Packed:
    fields = {"id": 1, "model": 1, "n_rows": len(X), **fields}
    return pack(Kind.CHUNK, arrays, operation=operation, **fields)


def read_error(result: Frame) -> DemosError:
    return Failure.from_dict(from_json(result.arrays[0])).to_exception()


def test_an_offer_is_the_spec_of_the_model() -> None:
    offer = Desk().offer
    assert (offer.worker, offer.fingerprint, offer.failure) == ("worker 7", "numpy of this process", None)
    assert offer.spec is not None
    assert offer.spec["name"] == "gaussian"
    assert "log_likelihood" in offer.spec["operations"]


@pytest.mark.parametrize("error", [ModelNotFound("there is no module 'x'"), ModelFailed("no license")], ids=repr)
def test_an_offer_without_a_model_says_why(error: DemosError) -> None:
    desk = Desk(error)
    assert desk.offer.spec is None
    assert desk.offer.failure is not None
    told = Failure.from_dict(desk.offer.failure).to_exception()
    assert (type(told), str(told)) == (type(error), str(error))
    assert isinstance(read_error(desk.ask(chunk(Operation.LOG_DENSITY, [X, POINT]))), InvalidInput)


def test_an_offer_brings_the_traceback_along(tmp_path: Any) -> None:
    path = tmp_path / "broken_offer.py"
    path.write_text("def find():\n    raise OSError('no matrix elements')\nfind()\n", encoding="utf-8")
    port, mine = LoopbackPort(), LoopbackPort()
    _, here = make_pair(mine, port, ("dispatcher", "worker"))
    Worker("worker", port, here).offer(lambda: load(f"{path}:Model"), "")
    ((_, frame),) = mine.receive()
    assert isinstance(frame, Frame)
    failure = from_json(frame.arrays[0])["failure"]
    assert failure["status"] == Status.MODEL_FAILED
    assert "in find" in failure["traceback"]


def test_all_operations() -> None:
    desk, model = Desk(), LoadedModel(MODEL)
    rows = np.stack([X[:, 0], 1 + X[:, 0] ** 2], axis=1)
    for params in (POINT, rows):
        value, gradient = MODEL.log_density_gradient(X, params)
        (got,) = desk.ask(chunk(Operation.LOG_DENSITY, [X, params])).arrays
        np.testing.assert_array_equal(got, value)
        got, slope = desk.ask(chunk(Operation.LOG_DENSITY_GRADIENT, [X, params])).arrays
        np.testing.assert_array_equal(slope, gradient)
        got, slope = desk.ask(chunk(Operation.LOG_DENSITY_GRADIENT, [X, params], flags=Flag.WRT_X)).arrays
        np.testing.assert_array_equal(slope, MODEL.log_density_gradient_x(X, params)[1])
    (got,) = desk.ask(chunk(Operation.EVALUATE, [rows])).arrays
    np.testing.assert_array_equal(got, MODEL.evaluate(rows))
    result = desk.ask(chunk(Operation.SAMPLE, [POINT], first_row=32, n_rows=40, seed=9))
    np.testing.assert_array_equal(result.arrays[0], model.sample(0, 72, POINT, 9)[32:])
    assert (result.header.first_row, result.header.n_rows) == (32, 40)


def test_cells_of_a_likelihood_run_over_points_or_over_blocks_first() -> None:
    desk, points = Desk(), np.array([POINT, [0.0, 1.0]])
    cells, slopes = LoadedModel(MODEL).log_likelihood_cells(X, points, gradient=True)
    assert cells.shape == (2, 3)
    request = chunk(Operation.LOG_LIKELIHOOD_GRADIENT, [X, points], n_rows=6, first_row=12)
    result = desk.ask(request)
    np.testing.assert_array_equal(result.arrays[0], cells.reshape(6))
    np.testing.assert_array_equal(result.arrays[1], slopes.reshape(6, 2))
    assert (result.header.first_row, result.header.n_rows) == (12, 6)
    result = desk.ask(chunk(Operation.LOG_LIKELIHOOD, [X, points], n_rows=6, flags=Flag.BLOCK_MAJOR))
    np.testing.assert_array_equal(result.arrays[0], cells.T.reshape(6))


def test_a_result_says_how_long_it_took_and_what_is_not_finite() -> None:
    x = X.copy()
    x[[3, 4]] = np.nan
    result = Desk().ask(chunk(Operation.LOG_DENSITY, [x, POINT]))
    assert result.header.deadline_ms == 2
    assert 0 < result.header.seed < 10**10
    assert Desk().ask(chunk(Operation.LOG_DENSITY, [np.full((40, 1), np.inf), POINT])).header.deadline_ms == 0
    for n in (5, 40):  # few rows are counted another way
        x = np.full((n, 1), np.nan)
        assert Desk().ask(chunk(Operation.LOG_DENSITY, [x, POINT], n_rows=n)).header.deadline_ms == n


def test_a_model_that_fails_is_named_with_worker_and_traceback() -> None:
    desk = Desk(Failing("raises", above=5.0))
    result = desk.ask(chunk(Operation.LOG_DENSITY, [X + 10.0, POINT]))
    error = read_error(result)
    assert isinstance(error, ModelFailed)
    assert str(error).endswith("(worker 7)")
    assert "ArithmeticError: row 0 is above 5.0" in str(error.__cause__)
    desk.assert_computes()


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("deep"), np.linalg.LinAlgError("singular")], ids=repr)
def test_a_defect_is_told_and_survived(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    desk = Desk()

    def fail(*arguments: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(LoadedModel, "log_density", fail)
        told = read_error(desk.ask(chunk(Operation.LOG_DENSITY, [X, POINT])))
    assert isinstance(told, InternalError)
    assert type(error).__name__ in str(told)
    assert "in fail" in str(told.__cause__)
    desk.assert_computes()


def test_a_chunk_that_is_cancelled_in_time_is_not_computed() -> None:
    desk = Desk()
    for id_ in (1, 2, 3):
        desk.link.send(chunk(Operation.LOG_DENSITY, [X, POINT], id=id_))
    desk.link.send(pack(Kind.CANCEL, id=2))
    desk.link.send(pack(Kind.CANCEL, id=77))
    while desk.worker.step():
        pass
    assert sorted((r.header.id, r.header.status) for r in desk.receive()) == [(1, 0), (2, Status.CANCELLED), (3, 0)]
    desk.link.send(pack(Kind.CANCEL, id=1))
    assert not desk.worker.step()


def test_the_end_ends_it() -> None:
    desk = Desk()
    desk.link.send(pack(Kind.END))
    desk.worker.serve()


def test_a_dispatcher_that_sends_no_frames_is_none() -> None:
    desk = Desk()
    desk.link.send(Packed(bytearray(80), ()))
    with pytest.raises(BadFrame, match="a frame that starts with"):
        desk.worker.step()


def test_rows_that_depend_on_one_another_are_computed_block_by_block() -> None:
    model = LinearGaussian(d=4, block_rows=8)
    x = np.random.default_rng(13).normal(size=(20, 4))
    whole = Desk(model).ask(chunk(Operation.LOG_DENSITY, [x, np.array([0.3])], n_rows=20)).arrays[0]
    for start in (0, 8, 16):
        rows = x[start : start + 8]
        part = Desk(model).ask(chunk(Operation.LOG_DENSITY, [rows, np.array([0.3])], n_rows=len(rows))).arrays[0]
        np.testing.assert_array_equal(whole[start : start + 8], part)


CHUNKS: dict[str, Packed] = {
    "no arrays": chunk(Operation.LOG_DENSITY, []),
    "too many arrays": chunk(Operation.LOG_DENSITY, [X, POINT, X]),
    "x of another shape": chunk(Operation.LOG_DENSITY, [X[:, 0], POINT]),
    "params of another shape": chunk(Operation.LOG_DENSITY, [X, np.ones(5)]),
    "likelihood at one point": chunk(Operation.LOG_LIKELIHOOD, [X, POINT]),
    "other cells than announced": chunk(Operation.LOG_LIKELIHOOD, [X, POINT[np.newaxis]], n_rows=99),
    "sample of no params": chunk(Operation.SAMPLE, []),
    "sample of more than memory": chunk(Operation.SAMPLE, [POINT], n_rows=2**60),
    "sample beyond all blocks": chunk(Operation.SAMPLE, [POINT], n_rows=4, first_row=2**64 - 1),
    "evaluate of text": chunk(Operation.EVALUATE, [np.zeros((3, 2), np.uint8)]),
    "an unknown operation": chunk(99, [X, POINT]),
    "metadata": chunk(Operation.METADATA, []),
}


@pytest.mark.parametrize("name", CHUNKS)
def test_a_chunk_that_is_none_is_answered_all_the_same(name: str) -> None:
    desk = Desk()
    result = desk.ask(CHUNKS[name])
    assert result.header.id == 1
    if result.header.status:
        assert isinstance(read_error(result), DemosError)
    desk.assert_computes()


frames = st.builds(
    pack,
    st.sampled_from([Kind.CHUNK] * 5 + list(Kind)[:8]),
    st.lists(
        st.builds(
            lambda dtype, shape: np.ones(shape, dtype),
            st.sampled_from(list(DTYPES.values())),
            st.one_of(st.sampled_from([(40, 1), (2,), (40, 2), (1, 2)]), st.lists(st.integers(0, 5), max_size=3)),
        ),
        max_size=3,
    ),
    operation=st.one_of(st.sampled_from(list(Operation)), st.integers(0, 255)),
    flags=st.integers(0, 2**16 - 1),
    id=st.integers(0, 2**63 - 1),
    first_row=st.integers(0, 2**64 - 1),
    n_rows=st.one_of(st.integers(0, 50), st.just(40), st.integers(2**58, 2**64 - 1)),
    seed=st.integers(0, 2**64 - 1),
)


@CHECK
@given(st.lists(frames.filter(lambda packed: not packed.tail), min_size=1, max_size=5))
def test_whatever_frames_come_each_chunk_is_answered_once(messages: list[Packed]) -> None:
    desk = Desk()
    for message in messages:
        desk.link.send(message)
        with np.errstate(all="ignore"):
            desk.worker.step()
    headers = [read_header(message.head) for message in messages]
    chunks = [header.id for header in headers if header.kind == Kind.CHUNK]
    assert sorted(result.header.id for result in desk.receive()) == sorted(chunks)
    desk.assert_computes()


# ---- through the door ----------------------------------------------------------------------------------------


def make_beating(monkeypatch: pytest.MonkeyPatch, seconds: float) -> tuple[Desk, FakeClock]:
    """A worker that says every so often how it is, and the clock that it looks at."""
    clock = FakeClock(1000.0)
    monkeypatch.setattr(time, "monotonic", clock)
    desk = Desk()
    desk.worker._beat_seconds, desk.worker._next_beat = seconds, 0.0 if seconds < math.inf else math.inf
    return desk, clock


def count_beats(desk: Desk) -> int:
    beats = [frame for frame in desk.receive() if frame.header.kind == Kind.BEAT]
    for beat in beats:
        assert 1 << 20 < Beat.from_dict(from_json(beat.arrays[0])).rss < 1 << 40
    return len(beats)


def test_a_worker_says_every_so_often_how_much_memory_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    desk, clock = make_beating(monkeypatch, 5.0)
    counts = []
    for _ in range(11):
        desk.worker.step()
        counts.append(count_beats(desk))
        clock.advance(1.0)
    assert counts == [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    clock.advance(100.0)  # a long chunk
    desk.worker.step()
    desk.worker.step()
    assert count_beats(desk) == 1
    desk.assert_computes()


def test_a_worker_says_what_data_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    desk, clock = make_beating(monkeypatch, 5.0)
    held = {"datasets": 2, "held_bytes": 64, "budget_bytes": 128, "slabs_read": 3, "slabs_not_kept": 0}
    told = []
    for stock in (None, SimpleNamespace(residents=SimpleNamespace(statistics=lambda: held))):
        desk.worker._opened = stock  # type: ignore[assignment]
        desk.worker.step()
        (beat,) = desk.receive()
        told.append(replace(Beat.from_dict(from_json(beat.arrays[0])), rss=0))
        clock.advance(5.0)
    assert told == [Beat(0), Beat(0, datasets=2, held_bytes=64, budget_bytes=128)]


def test_a_worker_of_a_launch_has_no_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    desk, clock = make_beating(monkeypatch, math.inf)
    for _ in range(3):
        desk.worker.step()
        clock.advance(1e9)
    assert count_beats(desk) == 0


def test_a_worker_that_is_not_wanted_ends_with_the_reason() -> None:
    desk = Desk()
    refuse(desk.link, 0, ModelFailed("two different models are called 'gaussian'"))
    with pytest.raises(ModelFailed, match="two different models"):
        desk.worker.serve()


def test_the_end_of_the_link_behind_the_end_is_no_news() -> None:
    desk = Desk()
    desk.link.send(pack(Kind.END))
    desk.worker._port._arrived.append((desk.worker._link, ServerLost("closed by the other side")))  # type: ignore[attr-defined]
    desk.worker.serve()
    desk = Desk()
    desk.worker._port._arrived.append((desk.worker._link, ServerLost("closed by the other side")))  # type: ignore[attr-defined]
    with pytest.raises(ServerLost):
        desk.worker.serve()
