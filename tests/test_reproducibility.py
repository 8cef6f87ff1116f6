"""The same bits for any number of workers, however chunks are cut; `test_launch` compares with MPI."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from service import Service

import demos_hpc
from demos_hpc import Config
from demos_hpc.testing import Gaussian, LinearGaussian

MODELS: dict[str, tuple[Any, list[float]]] = {
    "gaussian": (Gaussian(), [0.3, 1.7]),
    "linear-gaussian": (LinearGaussian(), [0.3]),
    "small blocks": (Gaussian(d=3, block_rows=7), [0.3, 1.7]),
}
#: Seconds of work in a chunk: as little as can be, usual, and all at once.
CHUNK_SECONDS = (1e-7, 0.02, 100.0)


def compute(model: Any, point: list[float], served: demos_hpc.RemoteModel) -> dict[str, Any]:
    """Everything whose bits are promised, for more than ten blocks plus one row."""
    n = 12 * model.spec.block_rows + 1
    drawn = served.sample(n, point, seed=5)
    points = [point, [2 * p for p in point]]
    value, gradient = served.log_likelihood_gradient(drawn, point)
    rows = np.multiply.outer(np.linspace(1.0, 2.0, n), point)
    return {
        "sample": drawn,
        "log_likelihood": served.log_likelihood(drawn, points),
        "value": np.float64(value),
        "gradient": gradient,
        "log_density": served.log_density(drawn, point),
        "log_density of rows": served.log_density(drawn, rows),
        "log_density_gradient": served.log_density_gradient(drawn, point)[1],
    }


def compute_digests(workers: int) -> dict[str, list[str]]:
    """What the script of `test_launch` prints."""
    digests = {}
    for name in ("gaussian", "linear-gaussian"):
        model, point = MODELS[name]
        got = compute(model, point, demos_hpc.local(model, workers=workers, config=Config()))
        parts = [got[k] for k in ("sample", "log_likelihood", "value", "gradient", "log_density")]
        digests[name] = [hashlib.sha256(np.ascontiguousarray(part).tobytes()).hexdigest() for part in parts]
    return digests


@pytest.mark.parametrize("name", MODELS)
def test_results_do_not_depend_on_the_number_of_workers_or_on_the_chunks(name: str) -> None:
    model, point = MODELS[name]
    reference = compute(model, point, demos_hpc.local(model, config=Config()))
    assert np.isfinite(reference["log_likelihood"]).all()
    for workers in (1, 2, 5):
        for seconds in CHUNK_SECONDS:
            served = demos_hpc.local(model, workers=workers, config=Config(chunk_seconds=seconds))
            for turn in range(2):  # chunks are cut otherwise once the costs are known
                for what, value in compute(model, point, served).items():
                    np.testing.assert_array_equal(value, reference[what], err_msg=f"{what}, {workers}, {turn}")


def test_samples_are_the_models_own_and_sums_are_over_blocks() -> None:
    model, point = MODELS["linear-gaussian"]
    got = compute(model, point, demos_hpc.local(model, workers=5, config=Config()))
    rows, at = model.spec.block_rows, np.array(point)
    blocks = [model.log_density(got["sample"][i : i + rows], at) for i in range(0, len(got["sample"]), rows)]
    np.testing.assert_array_equal(got["log_density"], np.concatenate(blocks))
    assert got["log_likelihood"][0] == got["value"] == pytest.approx(sum(b.sum() for b in blocks), rel=1e-13)


def test_rows_go_through_blas_and_would_differ_otherwise() -> None:
    """The model of these tests is one for which it matters: some of its rows alone have other bits."""
    model = LinearGaussian(d=64)
    x = np.random.default_rng(3).normal(size=(64, 64))
    at = np.array([0.3])
    whole = model.log_density(x, at)
    alone = np.concatenate([model.log_density(row[np.newaxis], at) for row in x])
    np.testing.assert_allclose(whole, alone, rtol=1e-12)
    assert not np.array_equal(whole, alone)


@pytest.mark.parametrize("name", MODELS)
def test_a_worker_lost_half_way_changes_nothing(name: str) -> None:
    model, point = MODELS[name]
    reference = compute(model, point, demos_hpc.local(model, config=Config()))
    service = Service(model, workers=3, config=Config(chunk_seconds=1e-7))
    client = service.connect()
    futures = [
        client.submit.sample(len(reference["sample"]), point, seed=5),
        client.submit.log_likelihood(reference["sample"], point),
        client.submit.log_density(reference["sample"], point),
    ]
    for _ in range(2):
        service.turn()
        service.dispatcher.step()
        lost = service.workers.pop()
        service.dispatcher.lose(lost._link._peer)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(futures[0].result(), reference["sample"])
    assert futures[1].result() == reference["log_likelihood"][0]
    np.testing.assert_array_equal(futures[2].result(), reference["log_density"])


def test_likelihoods_in_parts_have_the_bits_of_those_in_one() -> None:
    """The cells of a large request are block-major, of a small one point-major: the sums are the same."""
    model = Gaussian(d=2)
    x = np.random.default_rng(4).normal(size=(600_000, 2))  # 9.6 MB: three parts
    points = np.array([[0.3, 1.7], [0.0, 1.0], [1.0, 0.5]])
    many = demos_hpc.local(model, workers=3, config=Config()).log_likelihood(x, points)
    for point, value in zip(points, many, strict=True):
        assert demos_hpc.local(model, config=Config(chunk_seconds=1e-3)).log_likelihood(x, point) == value
