"""A long sample asked for in parts: the same draws as in one piece."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from service import Service, make_request

import demos_hpc
from demos_hpc import Config, InvalidInput
from demos_hpc.errors import Status
from demos_hpc.messages import Flag, Operation
from demos_hpc.streams import BlockStreams
from demos_hpc.testing import Gaussian, LinearGaussian

CHECK = settings(derandomize=True, deadline=None, max_examples=30)
POINT = np.array([0.3, 1.7])
MODEL = Gaussian(d=2, block_rows=16)
#: Chunks of a block each, or as they come.
CHUNKS = {"one block a chunk": 1e-9, "large chunks": 10.0}
by_chunk = pytest.mark.parametrize("seconds", CHUNKS.values(), ids=CHUNKS)


def refuse(service: Service, **fields: Any) -> int:
    """The status that a peer gets who says what no client of ours would."""
    answer = service.add_peer().ask_one(make_request(Operation.SAMPLE, [POINT], **fields))
    assert answer.header.flags & Flag.FINAL
    return answer.header.status


@by_chunk
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_parts_are_the_whole(workers: int, seconds: float) -> None:
    model = demos_hpc.local(MODEL, workers=workers, config=Config(chunk_seconds=seconds))
    whole = model.sample(1000, POINT, seed=7)
    parts = [model.sample(min(208, 1000 - first), POINT, seed=7, first=first) for first in range(0, 1000, 208)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_parts_in_flight_together(workers: int) -> None:
    model = demos_hpc.local(LinearGaussian(), workers=workers, config=Config(chunk_seconds=1e-9))
    whole = model.sample(5000, seed=3)
    futures = [model.submit.sample(min(640, 5000 - first), seed=3, first=first) for first in range(0, 5000, 640)]
    np.testing.assert_array_equal(np.concatenate([future.result() for future in futures]), whole)


@CHECK
@given(st.integers(0, 30), st.integers(0, 200), st.sampled_from([1, 3]))
def test_any_part(block: int, n: int, workers: int) -> None:
    model = demos_hpc.local(MODEL, workers=workers, config=Config(chunk_seconds=1e-9))
    whole = model.sample(30 * 16 + 200, POINT, seed=11)
    np.testing.assert_array_equal(model.sample(n, POINT, seed=11, first=16 * block), whole[16 * block :][:n])


def test_large_parts_that_come_in_pieces() -> None:
    """Answers that are received straight into their place."""
    model = demos_hpc.local(Gaussian(d=2), workers=2, config=Config(chunk_seconds=0.001))
    n, first = 40_000, 1024 * 17
    whole = model.sample(first + n, POINT, seed=1)
    out = np.empty((n, 2))
    assert model.sample(n, POINT, seed=1, first=first, out=out) is out
    np.testing.assert_array_equal(out, whole[first:])


def test_parts_far_out() -> None:
    """Row numbers beyond 2**32, and the last block of all."""
    model = demos_hpc.local(MODEL, config=Config())
    for first in (2**32, 2**40 + 16, 2**63 - 32):
        rng = BlockStreams().set(5, first // 16)
        np.testing.assert_array_equal(model.sample(16, POINT, seed=5, first=first), MODEL.sample(16, POINT, rng))


def test_progress_and_rows_that_are_no_numbers() -> None:
    class Odd(Gaussian):
        def sample(self, n: int, params: Any, rng: Any) -> Any:
            return np.full((n, 1), np.nan)

    model, told = demos_hpc.local(Odd(block_rows=16), config=Config(chunk_seconds=1e-9)), []
    future = model.submit.sample(40, POINT, first=32, progress=lambda done, total: told.append((done, total)))
    assert np.isnan(future.result()).all()
    assert future.nonfinite_rows == 40
    assert told[-1] == (40, 40)


@pytest.mark.parametrize("first", [1, 15, -16, 2**63, 1.5, "0", True, 2**63 - 16])
def test_where_no_part_begins(first: Any) -> None:
    model = demos_hpc.local(MODEL, config=Config())
    with pytest.raises(InvalidInput, match=r"first is .*a multiple of 16 \(block_rows of model 'gaussian'\)"):
        model.sample(20, POINT, first=first)


@pytest.mark.parametrize("first", [1, 17, 2**63 - 16, 2**64 - 16])
def test_peers_that_begin_elsewhere_are_refused(first: int) -> None:
    service = Service(MODEL)
    assert refuse(service, n_rows=40, first_row=first) == Status.INVALID_INPUT
    assert service.connect().sample(3, POINT).shape == (3, 2)


def test_other_operations_have_no_first_row() -> None:
    """It has no meaning there, and is ignored."""
    peer, x = Service(MODEL).add_peer(), np.linspace(0, 1, 600).reshape(300, 2)
    values = peer.ask_rows(make_request(Operation.LOG_DENSITY, [x, POINT], first_row=160, n_rows=300))
    np.testing.assert_array_equal(values, MODEL.log_density(x, POINT))
    assert peer.ask_one(make_request(Operation.LOG_DENSITY, [x[:1], POINT], first_row=5)).header.first_row == 0


@by_chunk
def test_parts_are_remembered_apart(seconds: float) -> None:
    service = Service(MODEL, config=Config(timeout=10.0, cache_bytes=1 << 20, chunk_seconds=seconds))
    client = service.connect()
    parts = [client.sample(64, POINT, seed=2, first=first) for first in (0, 64, 128)]
    assert len({part.tobytes() for part in parts}) == 3
    service.workers.clear()  # nobody is there to compute it
    again = [client.sample(64, POINT, seed=2, first=first) for first in (0, 64, 128)]
    np.testing.assert_array_equal(again, parts)


def test_answers_count_from_the_first_row_that_was_asked_for() -> None:
    service = Service(MODEL, workers=2, config=Config(timeout=10.0, chunk_seconds=1e-9))
    peer = service.add_peer()
    peer.send(make_request(Operation.SAMPLE, [POINT], n_rows=160, first_row=320, seed=9))
    rows: set[int] = set()
    while len(rows) < 160:
        service.turn()
        for frame in peer.receive():
            first = frame.header.first_row
            rows.update(range(first, first + frame.header.n_rows))
    assert rows == set(range(160))
