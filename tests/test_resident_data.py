"""Likelihoods of data that the workers hold: the same numbers as of an array, to the last bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from service import Service, make_request, read_error

import demos_hpc
from demos_hpc import Config, Dataset, DatasetError, InvalidInput, NotOffered, RemoteModel, TooLarge
from demos_hpc.messages import Array, Flag, Kind, Offer, Operation, to_json
from demos_hpc.reference import Reference
from demos_hpc.residents import Residents
from demos_hpc.testing import Gaussian, LinearGaussian
from demos_hpc.wire import pack

N = 70_001
RNG = np.random.default_rng(21)
X: Array = RNG.normal(size=(N, 1)) * 10.0 ** RNG.integers(-3, 3, (N, 1))
WEIGHTS: Array = RNG.uniform(size=N)
POINTS = RNG.uniform(0.5, 1.5, size=(7, 2))
SLICES = [slice(None), slice(1_000, 60_001), slice(5, None, 7), slice(10, 20), slice(N - 1, N), slice(1024, 2048)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "events.h5"
    columns = np.zeros(N, [("weight", "f4"), ("x", "f4"), ("y", "i2")])
    columns["x"], columns["weight"] = X[:, 0], WEIGHTS
    with h5py.File(path, "w") as file:
        file["events"] = X
        file["weights"] = WEIGHTS
        file["short"] = WEIGHTS[:-1]
        file["wide"] = np.zeros((10, 2))
        file["words"] = ["a", "b"]
        vectors = h5py.h5t.array_create(h5py.h5t.IEEE_F32LE, (3,))
        h5py.h5d.create(file.id, b"vectors", vectors, h5py.h5s.create_simple((8,)))
        file.create_dataset("columns", data=columns, chunks=(1000,), compression="gzip")
        file.create_dataset("counts", data=np.arange(N, dtype=">i4")[:, np.newaxis], chunks=(500, 1))
    return path


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(spool=str(tmp_path / "spool"), chunk_seconds=1e-3)


def make_model(path: Path) -> Gaussian:
    model = Gaussian()
    names = ("events", "weights", "short", "wide", "words", "vectors", "columns", "counts")
    datasets = tuple(Dataset(name, f"{path}:/{name}") for name in names)
    model.spec = dataclasses.replace(model.spec, datasets=datasets)
    return model


@pytest.fixture
def model(path: Path, config: Config) -> Iterator[RemoteModel]:
    with demos_hpc.local(make_model(path), workers=2, config=config) as model:
        yield model


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("kind", ["dataset", "upload"])
def test_sums_are_those_of_the_rows_to_the_last_bit(path: Path, config: Config, workers: int, kind: str) -> None:
    with demos_hpc.local(make_model(path), workers=workers, config=config) as model:
        held = model.resident("events") if kind == "dataset" else model.upload(X)
        for rows in SLICES:
            x = np.ascontiguousarray(X[rows])
            assert held[rows].shape == x.shape
            for point in (POINTS, POINTS[0]):
                np.testing.assert_array_equal(model.log_likelihood(held[rows], point), model.log_likelihood(x, point))
                for mine, theirs in zip(
                    model.log_likelihood_gradient(held[rows], point),
                    model.log_likelihood_gradient(x, point),
                    strict=True,
                ):
                    np.testing.assert_array_equal(mine, theirs)


def test_what_is_given_for_x_may_be_resident_everywhere(model: RemoteModel) -> None:
    held = model.resident("events")[:2000]
    x = X[:2000]
    likelihood, sent = model.likelihood(held), model.likelihood(x)
    np.testing.assert_array_equal(likelihood(POINTS), sent(POINTS))
    np.testing.assert_array_equal(likelihood.gradient(POINTS), sent.gradient(POINTS))
    assert repr(likelihood) == repr(sent)
    assert model.submit.log_likelihood(held, POINTS[0]).result() == model.log_likelihood(x, POINTS[0])
    model.set_params(mu=0.5, sigma=2.0)
    assert model.log_likelihood(held) == model.log_likelihood(x)
    outside = [[0.0, -1.0], [0.0, 1.0], [np.nan, 1.0]]
    np.testing.assert_array_equal(model.log_likelihood(held, outside), model.log_likelihood(x, outside))
    differences = {"method": "finite-difference"}
    value, gradient = model.log_likelihood_gradient(held, POINTS[0], **differences)
    assert value == model.log_likelihood(x, POINTS[0])
    np.testing.assert_array_equal(gradient, model.log_likelihood_gradient(x, POINTS[0], **differences)[1])
    assert model.log_likelihood(held[5:5], POINTS[0]) == model.log_likelihood(x[:0], POINTS[0]) == 0.0


@pytest.mark.parametrize("kind", ["dataset", "field", "upload"])
def test_weights_multiply_the_rows_terms(model: RemoteModel, kind: str) -> None:
    x, weights = X, WEIGHTS
    if kind == "dataset":
        held = model.resident("events", weights="weights")
    elif kind == "upload":
        held = model.upload(X, weights=WEIGHTS)
    else:
        held = model.resident("columns", columns=["x"], weights="weight")
        x, weights = X.astype("f4").astype("f8"), WEIGHTS.astype("f4").astype("f8")
    terms = model.log_density(x, POINTS[0]) * weights
    np.testing.assert_allclose(model.log_likelihood(held, POINTS[0]), terms.sum(), rtol=1e-12)
    np.testing.assert_allclose(model.log_likelihood(held[7:5000], POINTS[0]), terms[7:5000].sum(), rtol=1e-12)
    _, slope = model.log_density_gradient(x, POINTS[0])
    _, gradient = model.log_likelihood_gradient(held, POINTS[0])
    np.testing.assert_allclose(gradient, (slope * weights[:, np.newaxis]).sum(axis=0), rtol=1e-9)


def test_rows_without_weight_count_for_nothing(model: RemoteModel) -> None:
    x = np.array([[1.0], [np.inf], [2.0]])
    weights = [1.0, 0.0, 1.0]
    held = model.upload(x, weights=weights)
    assert np.isneginf(model.log_likelihood(x, POINTS[0]))
    expected = model.log_density(x[[0, 2]], POINTS[0]).sum()
    np.testing.assert_allclose(model.log_likelihood(held, POINTS[0]), expected, rtol=1e-14)


def test_other_types_become_float64(model: RemoteModel) -> None:
    held = model.resident("counts")[:100]
    assert model.log_likelihood(held, POINTS[0]) == model.log_likelihood(np.arange(100.0)[:, np.newaxis], POINTS[0])


def test_the_same_rows_are_uploaded_once(model: RemoteModel) -> None:
    seen: list[tuple[int, int]] = []
    first = model.upload(X, progress=lambda *done: seen.append(done))
    assert seen[-1] == (N, N)
    seen.clear()
    again = model.upload(X.copy(), progress=lambda *done: seen.append(done))
    assert seen == []
    assert repr(again) == repr(first)
    assert repr(model.upload(X + 1)) != repr(first)


def test_large_uploads_travel_in_parts(model: RemoteModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demos_hpc.resident_data.PART_BYTES", 80_000)
    seen: list[tuple[int, int]] = []
    held = model.upload(X, progress=lambda *done: seen.append(done))
    assert seen == [(min(n, N), N) for n in range(10_000, N + 10_000, 10_000)]
    assert model.log_likelihood(held, POINTS[0]) == model.log_likelihood(X, POINTS[0])


@pytest.mark.parametrize("room", [0, 1 << 30])
def test_no_worker_has_more_rows_at_a_time_than_it_says(
    path: Path, config: Config, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """However long a group is that somebody asks for: of rows that are not kept there may be more than memory."""
    monkeypatch.setattr("demos_hpc.model.CALL_BYTES", 3 * 8 * 1024)
    monkeypatch.setattr("demos_hpc.model.TAKE_BYTES", 9 * 8 * 1024)
    lengths, rows = [], Residents.rows

    def note(self: Residents, reference: Reference, start: int, stop: int, step: int = 1) -> Any:
        lengths.append(len(range(start, stop, step)))
        return rows(self, reference, start, stop, step)

    monkeypatch.setattr(Residents, "rows", note)
    monkeypatch.setattr("demos_hpc.resident_data.choose_group", lambda n, block_rows: 64)
    little = dataclasses.replace(config, resident_bytes=room or 1)
    with demos_hpc.local(make_model(path), config=little) as model:
        held = model.resident("events")
        for taken in (slice(None), slice(3, None, 2)):
            lengths.clear()
            found = model.log_likelihood(held[taken], POINTS)
            np.testing.assert_array_equal(found, model.log_likelihood(np.ascontiguousarray(X[taken]), POINTS))
            assert max(lengths) == 9 * 1024


def test_answers_that_nothing_can_hold_are_refused_before_they_are_asked_for(model: RemoteModel) -> None:
    points = np.broadcast_to(POINTS[0], (1 << 20, 2))
    model.submit._max_request_bytes = 1 << 25
    with pytest.raises(TooLarge, match=r"an answer of .* bytes; this server takes"):
        model.log_likelihood(model.resident("events"), points)


def test_steps_may_be_longer_than_any_number(model: RemoteModel) -> None:
    assert model.log_likelihood(model.resident("events")[7 :: 10**30], POINTS[0]) == model.log_likelihood(
        X[7:8], POINTS[0]
    )


def test_rows_need_not_fit_into_memory(path: Path, config: Config) -> None:
    few = dataclasses.replace(config, resident_bytes=100_000)
    with demos_hpc.local(make_model(path), config=few) as model:
        assert model.log_likelihood(model.resident("events"), POINTS[0]) == model.log_likelihood(X, POINTS[0])


@pytest.mark.parametrize("kind", ["dataset", "upload"])
def test_a_worker_that_dies_in_mid_call_changes_nothing(path: Path, config: Config, kind: str) -> None:
    service = Service(make_model(path), workers=3, config=config)
    model = service.connect()
    held = model.resident("events") if kind == "dataset" else model.upload(X)
    expected = model.log_likelihood(X, POINTS)
    assert np.array_equal(model.log_likelihood(held, POINTS), expected)
    future = model.submit.log_likelihood(held, POINTS)
    service.dispatcher.step()
    busy = {batch.worker for batch in service.dispatcher._batches.values()}
    assert busy
    for link in list(busy)[:2]:
        service.dispatcher.lose(link)
    assert np.array_equal(future.result(), expected)
    assert np.array_equal(model.log_likelihood(held, POINTS), expected)


def test_models_whose_rows_depend_on_one_another_give_the_same_bits(config: Config) -> None:
    x = RNG.normal(size=(1000, 4))
    with demos_hpc.local(LinearGaussian(), workers=2, config=config) as model:
        held = model.upload(x)
        assert model.log_likelihood(held[:777], [0.4]) == model.log_likelihood(x[:777], [0.4])


def test_a_file_that_was_replaced_is_told_of(path: Path, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demos_hpc.library.LOOK_SECONDS", 0.0)
    with demos_hpc.local(make_model(path), workers=2, config=config) as model:
        held = model.resident("events")
        model.log_likelihood(held, POINTS[0])
        other = path.with_name("other.h5")
        with h5py.File(other, "w") as file:
            file["events"] = X + 1
        other.rename(path)
        with pytest.raises(DatasetError, match="replaced or changed"):
            model.log_likelihood(held, POINTS[0])
        assert model.log_likelihood(model.resident("events"), POINTS[0]) == model.log_likelihood(X + 1, POINTS[0])


ERRORS: dict[str, tuple[Any, str]] = {
    "another width": (lambda m: m.resident("wide"), r"'wide' has shape \(10, 2\); model 'gaussian' takes \(n, 1\)"),
    "words": (lambda m: m.resident("words"), "'words' has no rows of numbers"),
    "elements that are arrays": (
        lambda m: m.log_likelihood(m.resident("vectors"), POINTS[0]),
        "'vectors' is of type .*; rows are numbers",
    ),
    "no such dataset": (lambda m: m.resident("evnts"), "no dataset 'evnts'; it has 'events', 'weights'"),
    "fields of none": (lambda m: m.resident("events", columns=["x"]), "'events' has no fields"),
    "no such field": (lambda m: m.resident("columns", columns=["z"]), "no field 'z'; it has weight, x, y"),
    "too many fields": (lambda m: m.resident("columns", columns=["x", "y"]), "2 columns of shape"),
    "short weights": (lambda m: m.resident("events", weights="short"), "weights 'short' have shape"),
    "no rows": (lambda m: m.upload(X[:0]), "no rows"),
    "rows of another width": (lambda m: m.upload(np.ones((3, 2))), r"takes \(n, 1\)"),
    "weights of another length": (lambda m: m.upload(X, weights=[1.0]), r"weights have shape \(1,\)"),
    "an array": (lambda m: m.log_density(m.resident("events"), POINTS[0]), "is with the workers: give it to log_lik"),
    "an index": (lambda m: m.upload(X)[3], "a slice can be taken"),
    "a step back": (lambda m: m.upload(X)[::-1], "step .* 1 or more"),
    "a slice of words": (lambda m: m.upload(X)["a":"b"], "slice"),
    "no weights of that name": (lambda m: m.log_likelihood(m.resident("columns", columns=["x"], weights="w")), "w"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_what_is_wrong(model: RemoteModel, name: str) -> None:
    call, message = ERRORS[name]
    with pytest.raises(InvalidInput, match=message):
        call(model)
    assert model.log_likelihood(X[:5], POINTS[0]) == model.log_likelihood(model.upload(X[:5]), POINTS[0])


def test_data_of_one_model_are_not_for_another(model: RemoteModel, config: Config) -> None:
    held = model.upload(X)
    with (
        demos_hpc.local(Gaussian(d=1, name="other"), config=config) as other,
        pytest.raises(InvalidInput, match="made"),
    ):
        other.log_likelihood(held, POINTS[0])


def test_models_without_data_say_so(config: Config) -> None:
    with demos_hpc.local(Gaussian(), config=config) as model, pytest.raises(NotOffered, match="has no datasets"):
        model.resident("events")


def test_workers_that_hold_no_data_say_so(model: RemoteModel) -> None:
    """As ranks in C do, whose specs do not name uploads."""
    held = model.upload(X)
    service = Service(Gaussian(), n_offers=1, workers=0)
    spec = {**model.spec.to_dict(), "operations": ["log_density", "log_likelihood"]}
    rank, peer = service.add_false_worker(), service.add_peer()
    rank.send(pack(Kind.HELLO, [to_json(Offer("rank 1", "", spec=spec).to_dict())]))
    other = service.connect()
    for ask in (
        lambda: other.resident("events"),
        lambda: other.upload(X),
        lambda: other.log_likelihood(held, POINTS[0]),
        lambda: other.likelihood(held, free=["mu"])([0.5]),
    ):
        with pytest.raises(NotOffered, match=r"hold no data \(they are ranks in C\); send the rows"):
            ask()
    arrays, cells = held.ask(1024)
    for request in (
        make_request(Operation.UPLOAD, [to_json({"upload": "5" * 64, "do": "find"})], n_rows=1),
        make_request(Operation.LOG_LIKELIHOOD, [*arrays, POINTS[:1]], n_rows=cells, flags=Flag.RESIDENT),
    ):
        error = read_error(peer.ask_one(request))
        assert isinstance(error, NotOffered)
        assert "hold no data" in str(error)


def test_an_upload_that_is_gone_has_to_be_brought_again(model: RemoteModel, config: Config) -> None:
    held = model.upload(X)
    for file in Path(config.spool).iterdir():
        file.unlink()
    with pytest.raises(DatasetError, match="upload"):
        model.log_likelihood(held, POINTS[0])
    model.upload(X)
    assert model.log_likelihood(held, POINTS[0]) == model.log_likelihood(X, POINTS[0])


def test_each_place_holds_its_part_and_takes_over_that_of_another(
    path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = iter(["here", "there", "there"])
    monkeypatch.setattr("demos_hpc.worker.find_place", lambda directory: next(places))
    monkeypatch.setattr("demos_hpc.residents.choose_slab_rows", lambda row_bytes, chunk_rows=0: 1024)
    # Those of one place share memory; here they have none that is shared at all, so that each reads what it needs.
    monkeypatch.setattr("demos_hpc.residents.is_usable", lambda directory: False)
    service = Service(make_model(path), workers=3, config=config)
    model = service.connect()
    held, expected = model.resident("events"), model.log_likelihood(X, POINTS)
    n_slabs = -(-N // 1024)

    def count_slabs() -> list[int]:
        return [w._stock.residents.statistics()["slabs_read"] for w in service.workers]

    for _ in range(3):
        assert np.array_equal(model.log_likelihood(held, POINTS), expected)
    here, *there = count_slabs()
    assert here == pytest.approx(n_slabs / 3, abs=2), "a third of the workers has a third of the rows"
    assert sum(there) >= n_slabs - here - 2
    links = [link for link, peer in service.dispatcher.peers.items() if peer.role == "worker"]
    service.dispatcher.lose(links[0])
    assert np.array_equal(model.log_likelihood(held, POINTS), expected)
    assert count_slabs()[0] == here


def test_datasets_of_one_axis_are_rows_of_one_column(model: RemoteModel) -> None:
    held = model.resident("weights")
    assert model.log_likelihood(held, POINTS[0]) == model.log_likelihood(WEIGHTS[:, np.newaxis], POINTS[0])


def test_whoever_opens_a_dataset_anew_gets_the_file_that_is_there_now(model: RemoteModel, path: Path) -> None:
    old = model.dataset("events", direct=True)
    model.log_likelihood(model.resident("events"), POINTS[0])
    other = path.with_name("other.h5")
    with h5py.File(other, "w") as file:
        file["events"] = X + 1
    other.rename(path)
    np.testing.assert_array_equal(model.dataset("events", direct=False)[:5], X[:5] + 1)
    assert model.log_likelihood(model.resident("events"), POINTS[0]) == model.log_likelihood(X + 1, POINTS[0])
    with pytest.raises(DatasetError, match="replaced or changed"):
        old[0]
