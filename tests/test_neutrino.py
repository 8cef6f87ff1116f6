"""The model nu_atm against its reference values, itself and its own draws."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from demos_hpc.messages import Operation
from demos_hpc.model import LoadedModel, load
from demos_hpc.models import event_rates
from demos_hpc.models.neutrino import ENERGY_EDGES, ZENITH_EDGES, AtmosphericNeutrino, AtmosphericNeutrinoPrem
from demos_hpc.spec import ModelSpec

#: s12sq, s13sq, s23sq, delta, dm21, dm31, dgamma, R_nubar, R_e, dE of the reference values.
DEFAULTS = np.array([0.308, 0.02215, 0.47, 3.7000980142279785, 7.49e-5, 0.002513, 0.0, 1.0, 1.0, 0.0])
#: Far from the defaults, in the inverted ordering, and with everything switched on.
ELSEWHERE = np.array([0.33, 0.03, 0.6, -1.1, 6.5e-5, -2.3e-3, -0.15, 1.3, 0.7, 0.08])
STEPS = np.array([1e-3, 1e-4, 1e-3, 1e-2, 1e-7, 1e-6, 1e-3, 1e-2, 1e-2, 1e-3])


@pytest.fixture(scope="module")
def model():
    return AtmosphericNeutrino()


@pytest.fixture(scope="module")
def events():
    rng = np.random.default_rng(1)
    return np.column_stack([np.exp(rng.uniform(math.log(3), math.log(60), 40)), rng.uniform(-1, 0, 40)])


def differentiate(function, point, steps):
    """Central differences of fourth order with respect to the last axis of ``point``, (..., p)."""
    slopes = []
    for k, step in enumerate(steps):
        move = step * np.eye(len(steps))[k]
        values = [function(point + far * move) for far in (-2, -1, 1, 2)]
        slopes.append(np.tensordot([1, -8, 8, -1], values, 1) / (12 * step))
    return np.stack(slopes, axis=-1)


def draw_params(rng):
    lower = [0.25, 0.01, 0.3, -3.0, 5e-5, 2e-3, -0.2, 0.5, 0.5, -0.1]
    upper = [0.35, 0.04, 0.7, 3.0, 1e-4, 3e-3, 0.2, 1.5, 1.5, 0.1]
    return rng.uniform(lower, upper)


def test_defaults(model):
    np.testing.assert_array_equal(model.spec.defaults, DEFAULTS)


def test_log_density_reference(model):
    value = model.log_density(np.array([[10.0, -0.9]]), DEFAULTS)
    np.testing.assert_allclose(value, [-2.915731669158082], rtol=0, atol=1e-12)


def test_norm_reference(model):
    # The rate in the window is the sum of the rates in the bins, which tile it.
    assert model.evaluate(DEFAULTS[np.newaxis]).sum() == pytest.approx(0.1600547266758848, rel=1e-12)


def test_gradient_reference(model):
    expected = [-0.00491098179, -0.0863839737, 0.0523126362, -0.0013256805, 159.873248]
    expected += [-198.354286, 0.228043344, 0.00143829745, -0.000782059299, -0.396877114]
    value, gradient = model.log_density_gradient(np.array([[10.0, -0.9]]), DEFAULTS)
    np.testing.assert_allclose(value, [-2.915731669158082], rtol=0, atol=1e-12)
    np.testing.assert_allclose(gradient, [expected], rtol=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_gradient_is_that_of_finite_differences(model, events, seed):
    params = draw_params(np.random.default_rng(seed)) if seed else ELSEWHERE
    value, gradient = model.log_density_gradient(events, params)
    np.testing.assert_allclose(value, model.log_density(events, params), rtol=0, atol=1e-13)
    numerical = differentiate(lambda point: model.log_density(events, point), params, STEPS)
    scale = np.abs(numerical).max(axis=0)
    np.testing.assert_allclose(gradient / scale, numerical / scale, rtol=0, atol=1e-6)


@pytest.mark.parametrize("params", [DEFAULTS, ELSEWHERE], ids=["defaults", "elsewhere"])
def test_gradient_by_x_is_that_of_finite_differences(model, params):
    rng = np.random.default_rng(5)
    x = np.column_stack([rng.uniform(3.1, 59.9, 30), rng.uniform(-0.99, -0.01, 30)])
    value, gradient = model.log_density_gradient_x(x, params)
    np.testing.assert_allclose(value, model.log_density(x, params), rtol=0, atol=1e-13)
    numerical = differentiate(lambda point: model.log_density(point, params), x, [1e-3, 1e-3])
    np.testing.assert_allclose(gradient, numerical, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("params", [DEFAULTS, ELSEWHERE], ids=["defaults", "elsewhere"])
def test_density_is_normalized(model, params):
    nodes, weights = np.polynomial.legendre.leggauss(96)
    energy = np.exp(math.log(3) + math.log(20) / 2 * (nodes + 1))
    zenith = (nodes - 1) / 2
    x = np.stack(np.meshgrid(energy, zenith, indexing="ij"), axis=-1).reshape(-1, 2)
    measure = np.outer(weights * energy * math.log(20) / 2, weights / 2).ravel()
    assert measure @ np.exp(model.log_density(x, params)) == pytest.approx(1, abs=1e-12)


def test_rates_integrate_the_density(model):
    nodes, weights = np.polynomial.legendre.leggauss(12)
    rates = model.evaluate(ELSEWHERE[np.newaxis])[0]
    for i, j in [(0, 0), (3, 9), (9, 4)]:
        (low, high), (left, right) = ENERGY_EDGES[i : i + 2], ZENITH_EDGES[j : j + 2]
        energy, zenith = low + (high - low) / 2 * (nodes + 1), left + (right - left) / 2 * (nodes + 1)
        x = np.stack(np.meshgrid(energy, zenith, indexing="ij"), axis=-1).reshape(-1, 2)
        measure = np.outer(weights, weights).ravel() * (high - low) * (right - left) / 4
        share = measure @ np.exp(model.log_density(x, ELSEWHERE))
        assert rates[10 * i + j] / rates.sum() == pytest.approx(share, rel=1e-10)


def test_outputs_name_their_bins(model):
    output = model.spec.outputs[37]
    assert output.name == "rate_E3_cz7"
    assert f"{ENERGY_EDGES[3]:.3f} to {ENERGY_EDGES[4]:.3f} GeV" in output.description
    assert "-0.3 to -0.2" in output.description


@pytest.mark.parametrize("params", [DEFAULTS, ELSEWHERE], ids=["defaults", "elsewhere"])
def test_draws_follow_the_density(model, params):
    n = 200_000
    x = model.sample(n, params, np.random.default_rng(11))
    counts, _, _ = np.histogram2d(x[:, 0], x[:, 1], bins=[ENERGY_EDGES, ZENITH_EDGES])
    assert counts.sum() == n
    rates = model.evaluate(params[np.newaxis])[0]
    expected = n * rates / rates.sum()
    assert expected.min() > 100
    chi_square = ((counts.ravel() - expected) ** 2 / expected).sum()
    assert 1e-4 < stats.chi2.sf(chi_square, df=expected.size - 1) < 1 - 1e-4
    # The mean score is zero at the truth: 4 sigma in each parameter.
    _, score = model.log_density_gradient(x[:20_000], params)
    assert (np.abs(score.mean(axis=0)) < 4 * score.std(axis=0) / math.sqrt(len(score))).all()


def test_draws_are_those_of_the_seed(model):
    first, again, other = (model.sample(50, DEFAULTS, np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


def test_blocks_do_not_depend_on_how_rows_are_cut(model):
    loaded = LoadedModel(model)
    x = loaded.sample(0, 3000, DEFAULTS, seed=8)
    whole = loaded.log_density_gradient(x, ELSEWHERE)
    cuts = [slice(0, 1024), slice(1024, 3000)]
    for k, parts in enumerate(zip(*(loaded.log_density_gradient(x[cut], ELSEWHERE) for cut in cuts), strict=True)):
        np.testing.assert_array_equal(np.concatenate(parts), whole[k])
    values = [AtmosphericNeutrino().log_density(x[cut], ELSEWHERE) for cut in (slice(0, 1024), slice(1024, 2048))]
    np.testing.assert_array_equal(np.concatenate(values), loaded.log_density(x, ELSEWHERE)[:2048])
    np.testing.assert_array_equal(loaded.sample(1024, 1976, DEFAULTS, seed=8), x[1024:])


def test_rows_of_params_are_grouped(model, events):
    loaded = LoadedModel(model)
    params = np.where(np.arange(40)[:, np.newaxis] < 15, DEFAULTS, ELSEWHERE)
    expected = [model.log_density(events[:15], DEFAULTS), model.log_density(events[15:], ELSEWHERE)]
    np.testing.assert_array_equal(loaded.log_density(events, params), np.concatenate(expected))


OUTSIDE = [[2.999, -0.5], [60.001, -0.5], [10.0, 0.001], [10.0, -1.001], [-1.0, -0.5], [0.0, -0.5], [np.inf, -0.5]]
METHODS = ["log_density", "log_density_gradient", "log_density_gradient_x"]


def call(model, method, x, params):
    """Value and gradient, the latter None where there is none."""
    got = getattr(model, method)(x, params)
    return (got, None) if method == "log_density" else got


@pytest.mark.parametrize("method", METHODS)
def test_outside_of_the_window(model, method):
    x = np.array([[10.0, -0.9], *OUTSIDE, [10.0, -0.9]])
    value, gradient = call(model, method, x, DEFAULTS)
    assert np.isneginf(value[1:-1]).all()
    np.testing.assert_allclose(value[[0, -1]], -2.915731669158082, rtol=0, atol=1e-12)
    if gradient is not None:
        assert (gradient[1:-1] == 0).all()
        assert (gradient[[0, -1]] != 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_edges_belong_to_the_window(model, method):
    x = np.array([[3.0, -1.0], [60.0, 0.0]])
    for part in call(model, method, x, DEFAULTS):
        assert part is None or np.isfinite(part).all()


@pytest.mark.parametrize("method", METHODS)
def test_nan_gives_nan(model, method):
    x = np.array([[10.0, -0.9], [np.nan, -0.5], [10.0, np.nan], [np.nan, 7.0]])
    value, gradient = call(model, method, x, DEFAULTS)
    np.testing.assert_array_equal(np.isnan(value), [False, True, True, True])
    if gradient is not None:
        np.testing.assert_array_equal(np.isnan(gradient).all(axis=1), [False, True, True, True])
        assert not np.isnan(gradient[0]).any()
    for k in range(10):
        params = DEFAULTS.copy()
        params[k] = np.nan
        for part in call(model, method, x, params):
            assert part is None or np.isnan(part).all()
    assert np.isnan(model.evaluate(np.array([params, DEFAULTS]))).all(axis=1).tolist() == [True, False]
    assert np.isnan(model.sample(3, params, np.random.default_rng(0))).all()


@pytest.mark.parametrize("method", METHODS)
def test_params_outside_of_their_bounds(model, method, events):
    for k, parameter in enumerate(model.spec.parameters):
        for value in (parameter.lower - 1e-9, parameter.upper + 1e-9):
            params = DEFAULTS.copy()
            params[k] = value
            density, gradient = call(model, method, events, params)
            assert np.isneginf(density).all()
            assert gradient is None or (gradient == 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_no_rows(model, method):
    value, gradient = call(model, method, np.empty((0, 2)), DEFAULTS)
    assert value.shape == (0,)
    assert gradient is None or gradient.shape == (0, 10 if method == "log_density_gradient" else 2)
    assert model.sample(0, DEFAULTS, np.random.default_rng(0)).shape == (0, 2)
    assert model.evaluate(np.empty((0, 10))).shape == (0, 100)


@pytest.mark.parametrize("name", ["s12sq", "s13sq", "s23sq", "dm21", "dm31", "dgamma", "R_nubar", "R_e", "dE", "delta"])
@pytest.mark.parametrize("end", ["lower", "upper"])
def test_bounds_are_inside(model, events, name, end):
    k = model.spec.param_names.index(name)
    params = DEFAULTS.copy()
    params[k] = getattr(model.spec.parameters[k], end)
    value, gradient = model.log_density_gradient(events, params)
    assert np.isfinite(value).all()
    assert np.isfinite(gradient).all()
    params[k] -= 1e-9 * (params[k] - DEFAULTS[k])
    np.testing.assert_allclose(value, model.log_density(events, params), rtol=0, atol=1e-3)


def test_equal_masses(model, events):
    params = DEFAULTS.copy()
    params[[4, 5]] = 0.0
    value, gradient = model.log_density_gradient(events, params)
    # Without masses nothing oscillates, so that mixing does not matter, nor a difference of zero times any matrix.
    np.testing.assert_allclose(gradient[:, :4], 0, atol=1e-9)
    np.testing.assert_allclose(gradient[:, 4:6], 0, atol=1e-6)
    params[[0, 1, 2]] = 0.1, 0.2, 0.3
    np.testing.assert_allclose(model.log_density(events, params), value, rtol=0, atol=1e-12)


def test_delta_has_a_period(model, events):
    turned = DEFAULTS - [0, 0, 0, 2 * math.pi, *[0] * 6]
    np.testing.assert_allclose(model.log_density(events, turned), model.log_density(events, DEFAULTS), atol=1e-12)


def test_factors_do_what_they_say(model):
    # Without antineutrinos the rates are those of neutrinos; twice as many antineutrinos add the rest once more.
    params = np.array([DEFAULTS, DEFAULTS, DEFAULTS])
    params[:, 7] = [0.0, 1.0, 2.0]
    none, once, twice = model.evaluate(params)
    np.testing.assert_allclose(twice - once, once - none, rtol=1e-11)
    # Suppressed by cross section 0.334 / 0.677 and flux 0.83, roughly, as oscillations differ.
    assert (once - none).sum() / none.sum() == pytest.approx(0.334 / 0.677 * 0.83, rel=0.05)


def test_effective_cosine_is_that_of_a_flat_atmosphere_overhead():
    straight, horizontal = event_rates.compute_effective_cosine(np.array([-1.0, 0.0]))
    assert straight == pytest.approx(1, abs=1e-15)
    assert horizontal == pytest.approx(0.102573 / math.sqrt(1 + 0.102573**2 - 0.068287 + 0.0407253), rel=1e-14)


def test_remembered_rates_do_not_change_results(model, events):
    before = model.log_density(events, DEFAULTS)
    for scale in np.linspace(0.9, 1.1, 6):
        model.log_density_gradient(events, DEFAULTS * [1, 1, scale, *[1] * 7])
    np.testing.assert_array_equal(model.log_density(events, DEFAULTS), before)
    np.testing.assert_array_equal(AtmosphericNeutrino().log_density(events, DEFAULTS), before)


def test_prem_differs_from_the_castle_wall_a_little(model, events):
    prem = AtmosphericNeutrinoPrem()
    x = events[:8]
    value, gradient = prem.log_density_gradient(x, DEFAULTS)
    difference = np.abs(value - model.log_density(x, DEFAULTS))
    assert 1e-3 < difference.max() < 0.2
    # One parameter that goes through the layers, one that turns the flavors at their ends.
    for k in (2, 5):
        move = STEPS[k] * np.eye(10)[k]
        numerical = (prem.log_density(x, DEFAULTS + move) - prem.log_density(x, DEFAULTS - move)) / (2 * STEPS[k])
        np.testing.assert_allclose(gradient[:, k], numerical, rtol=0, atol=1e-4 * np.abs(numerical).max())


@pytest.mark.parametrize(
    ("name", "spec_name"), [("AtmosphericNeutrino", "nu_atm"), ("AtmosphericNeutrinoPrem", "nu_atm_prem")]
)
def test_spec(name, spec_name):
    loaded = load(f"demos_hpc.models.neutrino:{name}")
    spec = loaded.spec
    assert spec.name == spec_name
    titles = [operation.title for operation in Operation if operation.value <= 6]
    assert list(spec.operations) == [*titles, "log_density_gradient_x", "upload"]
    traveled = ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict(), allow_nan=False)))
    assert traveled.param_names == spec.param_names
    assert {"constants", "earth", "conventions", "precision", "thread_safety"} <= set(traveled.notes)
    assert traveled.license
    assert traveled.citation
    assert all(column.unit and column.description for column in (*spec.parameters, *spec.observables, *spec.outputs))
