"""A served model answers as the model itself would, through every operation and with every option."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from odd_models import DensityOnly, Line, OnePoint, Uniform
from service import Service

import demos_hpc
from demos_hpc import Config, InvalidInput, NotOffered, RemoteModel, ServerLost, StaleRevision
from demos_hpc.model import LoadedModel
from demos_hpc.streams import BlockStreams
from demos_hpc.testing import Gaussian

MODEL = Gaussian(d=2)
N = 2500
X = np.random.default_rng(1).normal(size=(N, 2))
POINT = np.array([0.3, 1.7])
ROWS = np.stack([np.linspace(-1, 1, N), np.linspace(0.5, 2, N)], axis=1)
POINTS = np.array([[0.0, 1.0], [0.3, 1.7], [-1.0, 0.4]])


@pytest.fixture(params=[1, 3], ids=["1 worker", "3 workers"])
def model(request: pytest.FixtureRequest) -> Iterator[RemoteModel]:
    with demos_hpc.local(MODEL, workers=request.param, config=Config()) as served:
        yield served


@pytest.fixture
def gaussian() -> Iterator[RemoteModel]:
    with demos_hpc.local(MODEL, config=Config()) as served:
        yield served


# ---- what each operation returns -----------------------------------------------------------------------------


@pytest.mark.parametrize("params", [POINT, ROWS], ids=["one point", "a point for each row"])
def test_densities_and_gradients_are_the_models_own(model: RemoteModel, params: Any) -> None:
    value, gradient = MODEL.log_density_gradient(X, params)
    np.testing.assert_array_equal(model.log_density(X, params), value)
    got = model.log_density_gradient(X, params)
    assert isinstance(got, tuple)
    np.testing.assert_array_equal(got[0], value)
    np.testing.assert_array_equal(got[1], gradient)
    got = model.log_density_gradient(X, params, wrt="x")
    np.testing.assert_array_equal(got[0], value)
    np.testing.assert_array_equal(got[1], MODEL.log_density_gradient_x(X, params)[1])


def test_likelihoods_are_sums_over_the_rows(model: RemoteModel) -> None:
    one = model.log_likelihood(X, POINT)
    assert isinstance(one, float)
    assert one == pytest.approx(MODEL.log_density(X, POINT).sum(), rel=1e-13)
    many = model.log_likelihood(X, POINTS)
    assert many.shape == (3,)
    assert many[1] == one
    np.testing.assert_allclose(many, [MODEL.log_density(X, p).sum() for p in POINTS], rtol=1e-13)
    value, gradient = model.log_likelihood_gradient(X, POINT)
    assert value == one
    assert gradient.shape == (2,)
    np.testing.assert_allclose(gradient, MODEL.log_density_gradient(X, POINT)[1].sum(axis=0), rtol=1e-11)
    values, gradients = model.log_likelihood_gradient(X, POINTS)
    np.testing.assert_array_equal(values, many)
    np.testing.assert_array_equal(gradients[1], gradient)


def test_samples_are_the_streams_of_their_blocks(model: RemoteModel) -> None:
    got = model.sample(N, POINT, seed=7)
    rows, streams = MODEL.spec.block_rows, BlockStreams()
    for block in range(3):
        n = min(rows, N - block * rows)
        np.testing.assert_array_equal(
            got[block * rows : block * rows + n], MODEL.sample(n, POINT, streams.set(7, block))
        )
    assert np.abs(got.mean() - 0.3) < 0.1


def test_a_shorter_sample_is_the_beginning_of_a_longer_one_block_by_block(gaussian: RemoteModel) -> None:
    np.testing.assert_array_equal(gaussian.sample(2048, POINT, seed=3), gaussian.sample(2500, POINT, seed=3)[:2048])


@pytest.mark.parametrize("seed", [0, 2**64 - 1, np.uint64(2**63), np.int32(5)])
def test_seeds_are_64_bits(gaussian: RemoteModel, seed: Any) -> None:
    rng = BlockStreams().set(int(seed), 0)
    np.testing.assert_array_equal(gaussian.sample(5, POINT, seed=seed), MODEL.sample(5, POINT, rng))


def test_a_sample_without_a_seed_names_the_one_it_drew(gaussian: RemoteModel) -> None:
    first, second = gaussian.submit.sample(10, POINT), gaussian.submit.sample(10, POINT)
    assert first.seed != second.seed
    np.testing.assert_array_equal(gaussian.sample(10, POINT, seed=first.seed), first.result())
    assert not np.array_equal(first.result(), second.result())


def test_evaluate_is_a_forward_map_of_one_point_or_of_many(model: RemoteModel) -> None:
    np.testing.assert_array_equal(model.evaluate(POINTS), MODEL.evaluate(POINTS))
    one = model.evaluate(POINT)
    assert one.shape == (2,)
    np.testing.assert_array_equal(one, MODEL.evaluate(POINT[np.newaxis])[0])
    line = demos_hpc.local(Line)
    np.testing.assert_array_equal(line.evaluate([1, 2]), [1.0, 3.0, 5.0])
    np.testing.assert_array_equal(line.evaluate(), [1.0, 3.0, 5.0])


def test_aliases_are_the_same_operations(gaussian: RemoteModel) -> None:
    value = gaussian.log_density(X, POINT)
    for alias in (gaussian.log_prob, gaussian.logpdf, gaussian.logp):
        np.testing.assert_array_equal(alias(X, POINT), value)
    np.testing.assert_array_equal(gaussian.rvs(5, POINT, seed=1), gaussian.sample(5, POINT, seed=1))


# ---- what may be given for x and params ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "x",
    [
        X[:6].tolist(),
        np.asfortranarray(X[:6]),
        np.repeat(X[:6], 2, axis=0)[::2],
        X[:6].astype(">f8"),
        np.ma.masked_array(X[:6]),
    ],
    ids=["list", "Fortran order", "strided", "big-endian", "subclass"],
)
def test_x_may_be_anything_of_the_right_shape(gaussian: RemoteModel, x: Any) -> None:
    np.testing.assert_array_equal(gaussian.log_density(x, POINT), MODEL.log_density(X[:6], POINT))


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8, np.float16, np.longdouble])
def test_other_numbers_become_float64(gaussian: RemoteModel, dtype: Any) -> None:
    x = np.arange(6).reshape(3, 2)
    np.testing.assert_array_equal(gaussian.log_density(x.astype(dtype), POINT), MODEL.log_density(x * 1.0, POINT))


def test_params_may_be_a_dict_of_scalars_or_columns(gaussian: RemoteModel) -> None:
    expected = MODEL.log_density(X, POINT)
    np.testing.assert_array_equal(gaussian.log_density(X, {"sigma": 1.7, "mu": 0.3}), expected)
    columns = {"mu": ROWS[:, 0], "sigma": ROWS[:, 1]}
    np.testing.assert_array_equal(gaussian.log_density(X, columns), MODEL.log_density(X, ROWS))
    mixed = {"mu": ROWS[:, 0], "sigma": 2}
    np.testing.assert_array_equal(
        gaussian.log_density(X, mixed), MODEL.log_density(X, np.stack([ROWS[:, 0], np.full(N, 2.0)], axis=1))
    )
    assert gaussian.log_likelihood(X, {"mu": [0.0, 0.3], "sigma": 1.7}).shape == (2,)


def test_the_callers_arrays_are_left_alone(model: RemoteModel) -> None:
    x, rows = X.copy(), ROWS.copy()
    x.flags.writeable = rows.flags.writeable = False
    model.log_density(x, rows)
    model.log_likelihood(x, rows[:3])
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(rows, ROWS)


def test_a_model_of_one_point_per_call_serves_a_point_for_each_row() -> None:
    served = demos_hpc.local(OnePoint(), workers=2)
    rows = np.repeat([[0.0, 1.0], [0.5, 2.0], [0.0, 1.0]], [3, 1, 6], axis=0)
    np.testing.assert_array_equal(served.log_density(X[:10, :1], rows), Gaussian().log_density(X[:10, :1], rows))
    _, gradient = served.log_density_gradient(X[:10, :1], rows)
    np.testing.assert_array_equal(gradient, Gaussian().log_density_gradient(X[:10, :1], rows)[1])


def test_a_model_may_have_no_parameters() -> None:
    served = demos_hpc.local(Uniform)
    x = np.array([[0.5, 0.5], [0.5, 1.5]])
    for params in (None, [], {}, np.empty((2, 0))):
        np.testing.assert_array_equal(served.log_density(x, params), [0.0, -np.inf])
    assert served.log_likelihood(x[:1]) == 0.0
    assert served.log_likelihood_gradient(x[:1])[1].shape == (0,)
    assert served.log_density_gradient(x)[1].shape == (2, 0)
    assert served.sample(2000).shape == (2000, 2)
    assert served.params.shape == (0,)


# ---- outside the bounds, nan, nothing at all -----------------------------------------------------------------


def test_points_outside_their_bounds_have_no_density_and_do_not_travel(model: RemoteModel) -> None:
    rows = ROWS[:100].copy()
    rows[::3, 1] = -1.0
    inside = np.arange(100) % 3 > 0
    value = model.log_density(X[:100], rows)
    np.testing.assert_array_equal(value[inside], MODEL.log_density(X[:100][inside], rows[inside]))
    assert np.isneginf(value[~inside]).all()
    value, gradient = model.log_density_gradient(X[:100], rows)
    assert np.isneginf(value[~inside]).all()
    assert (gradient[~inside] == 0).all()
    np.testing.assert_array_equal(gradient[inside], MODEL.log_density_gradient(X[:100], ROWS[:100])[1][inside])
    assert np.isneginf(model.log_density(X[:5], [0.0, 1e-4])).all()
    before = model.metadata()["statistics"]["rows"]
    assert np.isneginf(model.log_density(X, [0.0, -1.0])).all()
    assert model.metadata()["statistics"]["rows"] == before


def test_likelihoods_outside_the_bounds_are_minus_infinity(model: RemoteModel) -> None:
    points = np.array([[0.0, -1.0], POINT, [0.0, 0.0]])
    value, gradient = model.log_likelihood_gradient(X, points)
    assert value.tolist() == [-np.inf, model.log_likelihood(X, POINT), -np.inf]
    np.testing.assert_array_equal(gradient[[0, 2]], 0.0)
    np.testing.assert_array_equal(gradient[1], model.log_likelihood_gradient(X, POINT)[1])
    assert model.log_likelihood(X, [0.0, -1.0]) == -np.inf
    assert np.isneginf(model.log_likelihood(X, points[::2])).all()


@pytest.mark.parametrize("name", ["log_density", "log_density_gradient", "log_likelihood", "log_likelihood_gradient"])
def test_strict_raises_instead(gaussian: RemoteModel, name: str) -> None:
    call = getattr(gaussian, name)
    with pytest.raises(InvalidInput, match=r"parameter 'sigma' is -1\.0, outside \[0\.001, None\]"):
        call(X[:3], [[0, 1.0], [0, -1.0], [0, 1.0]], strict=True)
    call(X[:3], POINT, strict=True)


def test_bounds_are_inclusive(gaussian: RemoteModel) -> None:
    assert np.isfinite(gaussian.log_density(X[:1], [0.0, 1e-3], strict=True)).all()
    np.testing.assert_array_equal(demos_hpc.local(Line).evaluate([0, -10]), [0, -10, -20])


def test_what_cannot_be_minus_infinity_is_an_error_outside_the_bounds(gaussian: RemoteModel) -> None:
    for call in (lambda: gaussian.sample(3, [0, -1]), lambda: gaussian.evaluate([[0, 1], [0, -1]])):
        with pytest.raises(InvalidInput, match=r"parameter 'sigma' is -1\.0, outside"):
            call()
    with pytest.raises(InvalidInput, match=r"parameter 'sigma' is -1, outside"):
        gaussian.set_params(sigma=-1)


def test_nan_is_answered_and_counted(gaussian: RemoteModel) -> None:
    x = X[:10].copy()
    x[3, 1] = np.nan
    x[5] = np.inf
    future = gaussian.submit.log_density(x, POINT)
    value = future.result()
    assert np.flatnonzero(np.isnan(value)).tolist() == [3]
    assert np.isneginf(value[5])
    assert future.nonfinite_rows == 1
    assert np.isnan(gaussian.log_density(X[:3], [np.nan, 1.0])).all()
    assert np.isnan(gaussian.log_likelihood(x, POINT))
    assert gaussian.metadata()["statistics"]["nonfinite_rows"] == 5


def test_no_rows_give_empty_arrays(model: RemoteModel) -> None:
    none = np.empty((0, 2))
    assert model.log_density(none, POINT).shape == (0,)
    assert model.log_density(none, none).shape == (0,)
    assert [a.shape for a in model.log_density_gradient(none, POINT)] == [(0,), (0, 2)]
    assert [a.shape for a in model.log_density_gradient(none, POINT, wrt="x")] == [(0,), (0, 2)]
    assert [a.shape for a in model.log_density_gradient(none, POINT, method="finite-difference")] == [(0,), (0, 2)]
    assert model.sample(0, POINT).shape == (0, 2)
    assert model.evaluate(none).shape == (0, 2)
    assert model.log_likelihood(none, POINT) == 0.0
    assert model.log_likelihood(none, POINTS).tolist() == [0.0, 0.0, 0.0]
    assert model.log_likelihood(X, none).shape == (0,)
    value, gradient = model.log_likelihood_gradient(none, POINT)
    assert (value, gradient.tolist()) == (0.0, [0.0, 0.0])
    assert model.submit.log_density(none).done()
    out = np.empty(0)
    assert model.log_density(none, POINT, out=out) is out


# ---- out -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 10, N, 400_000], ids=["one row", "some rows", "several chunks", "several parts"])
def test_answers_go_into_the_callers_arrays(model: RemoteModel, n: int) -> None:
    x = np.resize(X, (n, 2))
    out = np.empty(n)
    assert model.log_density(x, POINT, out=out) is out
    np.testing.assert_array_equal(out, MODEL.log_density(x, POINT))
    outs = np.empty(n), np.empty((n, 2))
    got = model.log_density_gradient(x, POINT, out=outs)
    assert got[0] is outs[0]
    assert got[1] is outs[1]
    np.testing.assert_array_equal(outs[1], MODEL.log_density_gradient(x, POINT)[1])
    drawn = np.empty((n, 2))
    assert model.sample(n, POINT, seed=1, out=drawn) is drawn
    np.testing.assert_array_equal(drawn, model.sample(n, POINT, seed=1))


def test_out_of_evaluate_differences_and_rows_outside(gaussian: RemoteModel) -> None:
    out = np.empty((3, 2))
    gaussian.evaluate(POINTS, out=out)
    np.testing.assert_array_equal(out, MODEL.evaluate(POINTS))
    one = np.empty(2)
    gaussian.evaluate(POINT, out=one)
    np.testing.assert_array_equal(one, MODEL.evaluate(POINT[np.newaxis])[0])
    outs = np.empty(10), np.empty((10, 2))
    got = gaussian.log_density_gradient(X[:10], POINT, out=outs, method="finite-difference")
    assert got[0] is outs[0]
    assert got[1] is outs[1]
    rows = ROWS[:10].copy()
    rows[4, 1] = 0.0
    expected = gaussian.log_density(X[:10], rows)
    out = np.full(10, 99.0)
    assert gaussian.log_density(X[:10], rows, out=out) is out
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.empty(9), r"out is shape \(9,\), dtype float64; the answer needs .* of shape \(10,\)"),
        (np.empty((10, 1)), r"out is shape \(10, 1\)"),
        (np.empty(10, np.float32), "dtype float32"),
        (np.empty(20)[::2], "C-contiguous"),
        ([0.0] * 10, "out is list"),
        (np.frombuffer(bytes(80)), "out is read-only"),
    ],
)
def test_out_that_cannot_hold_the_answer_is_refused(gaussian: RemoteModel, out: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        gaussian.log_density(X[:10], POINT, out=out)


# ---- gradients by differences --------------------------------------------------------------------------------


def test_differences_agree_with_the_analytic_gradient(model: RemoteModel) -> None:
    for wrt in ("params", "x"):
        value, gradient = model.log_density_gradient(X[:200], ROWS[:200], wrt=wrt, method="finite-difference")
        exact = model.log_density_gradient(X[:200], ROWS[:200], wrt=wrt)
        np.testing.assert_array_equal(value, exact[0])
        np.testing.assert_allclose(gradient, exact[1], rtol=1e-7, atol=1e-7)
    for params in (POINT, POINTS):
        value, gradient = model.log_likelihood_gradient(X, params, method="finite-difference")
        exact = model.log_likelihood_gradient(X, params)
        np.testing.assert_array_equal(value, exact[0])
        np.testing.assert_allclose(gradient, exact[1], rtol=1e-6, atol=1e-4)


def test_differences_at_and_outside_a_bound(gaussian: RemoteModel) -> None:
    x = X[:20] * 1e-3
    value, gradient = gaussian.log_density_gradient(x, [0.0, 1e-3], method="finite-difference")
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient, gaussian.log_density_gradient(x, [0.0, 1e-3])[1], rtol=1e-3, atol=0.1)
    value, gradient = gaussian.log_density_gradient(x, [0.0, 1e-4], method="finite-difference")
    assert np.isneginf(value).all()
    assert (gradient == 0).all()


def test_differences_are_never_used_unasked() -> None:
    served = demos_hpc.local(DensityOnly)
    t = np.array([[0.5], [2.0]])
    for call in (served.log_density_gradient, served.log_likelihood_gradient):
        with pytest.raises(NotOffered, match=r"offers no log_.*gradient; it has log_density.*finite-difference"):
            call(t, [2.0])
    gradient = served.log_density_gradient(t, [2.0], method="finite-difference")[1]
    np.testing.assert_allclose(gradient, [[0.0], [-1.5]], atol=1e-8)
    assert served.log_likelihood_gradient(t, [2.0], method="finite-difference")[1] == pytest.approx([-1.5])


def test_differences_use_the_servers_params(gaussian: RemoteModel) -> None:
    gaussian.set_params(mu=0.3, sigma=1.7)
    exact = gaussian.log_density_gradient(X[:20])[1]
    np.testing.assert_allclose(
        gaussian.log_density_gradient(X[:20], method="finite-difference")[1], exact, rtol=1e-7, atol=1e-7
    )
    np.testing.assert_allclose(
        gaussian.log_likelihood_gradient(X[:20], method="finite-difference")[1], exact.sum(axis=0), rtol=1e-6
    )


def test_differences_without_any_params_are_refused_as_densities_are() -> None:
    served = demos_hpc.local(DensityOnly)
    for call in (served.log_density_gradient, served.log_likelihood_gradient):
        with pytest.raises(InvalidInput, match="no default for rate"):
            call([[1.0]], method="finite-difference")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wrt": "y"}, "wrt is 'y'; it is 'params' or 'x'"),
        ({"method": "magic"}, "method is 'magic'; it is 'finite-difference', or left out"),
    ],
)
def test_unknown_options_of_gradients(gaussian: RemoteModel, options: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        gaussian.log_density_gradient(X, POINT, **options)


# ---- parameters on the server --------------------------------------------------------------------------------


def test_the_servers_params_are_used_where_none_are_given(model: RemoteModel) -> None:
    np.testing.assert_array_equal(model.params, [0.0, 1.0])
    for params in (np.array([0.0, 1.0]), POINT):
        model.set_params(mu=params[0], sigma=params[1])
        np.testing.assert_array_equal(model.params, params)
        np.testing.assert_array_equal(model.log_density(X), model.log_density(X, params))
        np.testing.assert_array_equal(model.log_density_gradient(X)[1], model.log_density_gradient(X, params)[1])
        assert model.log_likelihood(X) == model.log_likelihood(X, params)
        np.testing.assert_array_equal(model.sample(N, seed=1), model.sample(N, params, seed=1))
        np.testing.assert_array_equal(model.evaluate(), model.evaluate(params))


def test_every_change_has_a_revision_and_every_answer_names_its_own() -> None:
    service = Service(MODEL)
    one, other = service.connect(), service.connect()
    first = one.submit.log_density(X[:5])
    assert first.result().shape == (5,)
    assert first.revision == 1
    assert one.set_params(mu=1.0) == 2
    assert other.set_params({"mu": 2.0}, sigma=3.0) == 3
    np.testing.assert_array_equal(one.params, [2.0, 3.0])
    future = one.submit.log_density(X[:5])
    future.result()
    assert future.revision == 3
    assert one.metadata()["revision"] == 3


def test_a_request_keeps_the_params_it_arrived_with() -> None:
    service = Service(MODEL)
    one, other = service.connect(), service.connect()
    future = one.submit.log_density(X)
    service.dispatcher.step()
    other.submit.log_density(X[:1])
    assert other.set_params(mu=5.0) == 2
    np.testing.assert_array_equal(future.result(), MODEL.log_density(X, np.array([0.0, 1.0])))
    assert future.revision == 1


def test_a_pinned_client_is_told_when_the_params_change() -> None:
    service = Service(MODEL)
    one, other = service.connect(), service.connect()
    one.pin(1)
    one.log_density(X[:5])
    other.set_params(mu=1.0)
    for params in (None, POINT):
        with pytest.raises(StaleRevision, match="have revision 2 now; this client pinned 1"):
            one.log_density(X[:5], params)
    other.log_density(X[:5])
    one.pin(2)
    assert one.log_density(X[:5]).shape == (5,)
    one.pin(0)
    other.set_params(mu=2.0)
    assert one.log_density(X[:5]).shape == (5,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nu": 1.0}, r"unknown parameter 'nu'; model 'gaussian' takes 2: mu, sigma"),
        ({"mu": np.nan}, "parameter 'mu' is nan; it is a finite number"),
        ({"mu": "1"}, "parameter 'mu' is '1'; it is a finite number"),
        ({"mu": True}, "parameter 'mu' is True; it is a finite number"),
        ({"mu": 10**400}, "parameter 'mu' is 1.*; it is a finite number"),
        ({"sigma": 0.0}, r"parameter 'sigma' is 0\.0, outside \[0\.001, inf\]"),
    ],
    ids=["unknown", "nan", "text", "bool", "huge", "bound"],
)
def test_changes_that_do_not_fit_are_refused(gaussian: RemoteModel, changes: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        gaussian.set_params(changes)
    assert gaussian.metadata()["revision"] == 1


def test_a_model_without_defaults_wants_params() -> None:
    served = demos_hpc.local(DensityOnly)
    assert np.isnan(served.params).all()
    with pytest.raises(InvalidInput, match="model 'exponential' has no default for rate: give params, or set_params"):
        served.log_density([[1.0]])
    served.set_params(rate=2.0)
    assert served.log_density([[1.0]])[0] == np.log(2.0) - 2.0


def test_metadata_says_what_there_is_to_know(model: RemoteModel) -> None:
    metadata = model.metadata()
    assert metadata["spec"]["name"] == "gaussian"
    assert metadata["spec"]["observables"][1]["name"] == "x1"
    assert metadata["params"] == {"mu": 0.0, "sigma": 1.0}
    assert metadata["workers"] in (1, 3)
    assert len(metadata["fingerprints"]) == 1
    assert model.spec == LoadedModel(MODEL).spec
    assert repr(model) == (
        "<RemoteModel gaussian 1.0.0: log_density, log_density_gradient, log_likelihood, log_likelihood_gradient,"
        " sample, evaluate, log_density_gradient_x, upload>"
    )


def test_statistics_count_what_was_done(model: RemoteModel) -> None:
    model.log_density(X, POINT)
    model.sample(10, POINT)
    with pytest.raises(InvalidInput):
        model.log_density(X, [1.0])
    statistics = model.metadata()["statistics"]
    assert (statistics["requests"], statistics["rows"], statistics["failures"]) == (2, N + 10, 0)
    assert statistics["model_seconds"] > 0


# ---- progress, threads, the end ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda m, **o: m.log_density(X, POINT, **o),
        lambda m, **o: m.log_density_gradient(X, ROWS, **o),
        lambda m, **o: m.log_density_gradient(X, ROWS, method="finite-difference", **o),
        lambda m, **o: m.log_likelihood(X, POINTS, **o),
        lambda m, **o: m.log_likelihood_gradient(X, POINT, **o),
        lambda m, **o: m.log_likelihood_gradient(X, POINT, method="finite-difference", **o),
        lambda m, **o: m.sample(N, POINT, **o),
        lambda m, **o: m.evaluate(ROWS, **o),
    ],
    ids=["density", "gradient", "differences", "likelihood", "its gradient", "its differences", "sample", "evaluate"],
)
def test_progress_is_told_until_all_is_done(model: RemoteModel, call: Any) -> None:
    told: list[tuple[int, int]] = []
    call(model, progress=lambda done, total: told.append((done, total)))
    assert told
    assert told == sorted(told)
    assert {total for _, total in told} == {told[-1][0]}


@pytest.mark.parametrize(
    "call",
    [
        lambda m, f: m.log_density(X, POINT),
        lambda m, f: m.submit.sample(3),
        lambda m, f: m.metadata(),
        lambda m, f: f.result(),
        lambda m, f: f.done(),
        lambda m, f: f.exception(1.0),
        lambda m, f: f.cancel(),
    ],
    ids=["call", "submit", "metadata", "result", "done", "exception", "cancel"],
)
@pytest.mark.parametrize("n", [5, 400_000], ids=["small", "streamed"])
def test_another_thread_is_refused(gaussian: RemoteModel, call: Any, n: int) -> None:
    future = gaussian.submit.log_density(np.resize(X, (n, 2)), POINT)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            call(gaussian, future)
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    assert [str(e) for e in errors] == [
        "this connection belongs to the thread that made it; connect once in each thread"
    ]
    np.testing.assert_array_equal(future.result()[:5], MODEL.log_density(X[:5], POINT))


def test_a_closed_model_says_so_and_others_go_on() -> None:
    service = Service(MODEL)
    with service.connect() as one:
        other = service.connect()
        pending = one.submit.log_density(X, POINT)
    for call in (lambda: one.log_density(X, POINT), pending.result, one.metadata):
        with pytest.raises(ServerLost, match="this connection was closed"):
            call()
    one.close()
    np.testing.assert_array_equal(other.log_density(X, POINT), MODEL.log_density(X, POINT))
    assert service.dispatcher.n_clients == 1
