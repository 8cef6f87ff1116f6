"""Likelihoods and pools: what samplers and minimizers of the field do with a served model."""

from __future__ import annotations

import copy
import functools
import math
import pickle
import re
import threading
import warnings
from pathlib import Path
from typing import Any

import dynesty
import emcee
import numpy as np
import pytest
from iminuit import Minuit
from launching import analyze, serve
from mpi import sampler_script
from scipy.optimize import minimize

import demos_hpc
from demos_hpc import InvalidInput, ModelFailed, ModelSpec, NotOffered, Observable, Parameter
from demos_hpc.desk import Stopped, open_desk
from demos_hpc.testing import Gaussian, LinearGaussian

DOCS = Path(__file__).parents[1] / "docs" / "samplers.md"


class Means:
    """Correlated normal rows about two bounded means: a normal posterior under a flat prior, a parabola as cost."""

    COVARIANCE = np.array([[1.0, 0.6], [0.6, 2.0]])
    spec = ModelSpec(
        name="means",
        parameters=(
            Parameter("a", default=0.1, lower=-4.0, upper=6.0),
            Parameter("b", lower=-5.0, upper=5.0),
        ),
        observables=(Observable("u"), Observable("v")),
    )

    def log_density(self, x, params):
        z = x - params
        constant = -math.log(2 * math.pi) - 0.5 * np.linalg.slogdet(self.COVARIANCE)[1]
        return constant - 0.5 * np.einsum("ni,ij,nj->n", z, np.linalg.inv(self.COVARIANCE), z, optimize=False)

    def sample(self, n, params, rng):
        return params + rng.standard_normal((n, 2)) @ np.linalg.cholesky(self.COVARIANCE).T


class Odd(Means):
    """Answers nan for a above 3, and raises for a above 5."""

    def log_density(self, x, params):
        if (params[..., 0] > 5).any():
            raise ArithmeticError("a is above 5")
        return np.where(params[..., 0] > 3, np.nan, super().log_density(x, params))


def count_requests(model):
    return model.metadata()["statistics"]["requests"]


@pytest.fixture
def gaussian():
    with demos_hpc.local(Gaussian, workers=2) as model:
        yield model


@pytest.fixture
def means():
    with demos_hpc.local(Means, workers=2) as model:
        yield model


@pytest.fixture
def events(means):
    return means.sample(200, [1.0, -0.5], seed=4)


# ---- the likelihood ---------------------------------------------------------------------------------------------


def test_values_and_gradients_are_those_of_the_model(gaussian):
    x = gaussian.sample(50, [1.0, 2.0], seed=1)
    likelihood = gaussian.likelihood(x)
    points = np.array([[1.0, 2.0], [0.5, 1.0], [0.0, -1.0]])
    expected, slope = gaussian.log_likelihood_gradient(x, points)

    assert (likelihood.names, likelihood.n_free, likelihood.fixed) == (("mu", "sigma"), 2, {})
    assert isinstance(likelihood([1, 2]), float)
    np.testing.assert_array_equal(likelihood(points), expected)
    assert np.isneginf(likelihood(points)[2])
    np.testing.assert_array_equal(likelihood.gradient(points), slope)
    value, gradient = likelihood.value_and_gradient(points[1])
    assert value == expected[1]
    np.testing.assert_array_equal(gradient, slope[1])
    assert likelihood(np.empty((0, 2))).shape == (0,)


def test_points_travel_in_one_request_and_those_outside_do_not(gaussian):
    likelihood = gaussian.likelihood(gaussian.sample(50, [1.0, 2.0], seed=1))
    before = count_requests(gaussian)
    likelihood(np.full((64, 2), 1.5))
    assert count_requests(gaussian) == before + 1
    likelihood(np.full((64, 2), -1.0))
    assert count_requests(gaussian) == before + 1


def test_free_parameters_may_be_chosen_and_ordered(gaussian):
    x = gaussian.sample(50, [1.0, 2.0], seed=1)
    turned = gaussian.likelihood(x, free=["sigma", "mu"])
    assert turned([2.0, 1.0]) == gaussian.log_likelihood(x, [1.0, 2.0])
    np.testing.assert_array_equal(turned.gradient([2.0, 1.0]), gaussian.log_likelihood_gradient(x, [1.0, 2.0])[1][::-1])
    np.testing.assert_array_equal(turned.fill_params([[2.0, 1.0]]), [[1.0, 2.0]])
    assert turned.limits == [(1e-3, None), (None, None)]

    by_mu = gaussian.likelihood(x, fixed={"sigma": 2.0})
    assert (by_mu.names, by_mu.fixed) == (("mu",), {"sigma": 2.0})
    assert by_mu([1.0]) == turned([2.0, 1.0])
    assert by_mu.cost(1.0) == -by_mu([1.0])


def test_the_fixed_are_the_servers_parameters_of_the_moment(gaussian):
    x = gaussian.sample(50, [1.0, 2.0], seed=1)
    gaussian.set_params(sigma=3.0)
    likelihood = gaussian.likelihood(x, free=["mu"])
    gaussian.set_params(sigma=1.0)
    assert likelihood.fixed == {"sigma": 3.0}
    assert likelihood([1.0]) == gaussian.log_likelihood(x, [1.0, 3.0])
    np.testing.assert_array_equal(likelihood.start, [0.0])


def test_a_prior_is_added_and_asked_only_inside_the_bounds(gaussian):
    x = gaussian.sample(50, [1.0, 2.0], seed=1)
    asked = []

    def log_prior(theta):
        asked.append(theta.tolist())
        return -np.inf if theta[0] > 2 else -0.5 * theta[0] ** 2

    likelihood = gaussian.likelihood(
        x, log_prior=log_prior, log_prior_gradient=lambda theta: np.array([-theta[0], 0.0])
    )
    points = np.array([[1.0, 2.0], [3.0, 2.0], [1.0, -1.0]])
    value, gradient = likelihood.value_and_gradient(points)
    expected, slope = gaussian.log_likelihood_gradient(x, [1.0, 2.0])
    np.testing.assert_array_equal(value, [expected - 0.5, -np.inf, -np.inf])
    np.testing.assert_array_equal(gradient, [slope - [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    assert asked == [[1.0, 2.0], [3.0, 2.0]]

    whole = gaussian.likelihood(x, log_prior=lambda theta: -0.5 * theta[:, 0] ** 2, vectorized_prior=True)
    np.testing.assert_array_equal(whole(points[:1]), value[:1])
    assert whole([1.0, 2.0]) == value[0]


def test_nan_becomes_minus_infinity_and_is_counted():
    with demos_hpc.local(Odd) as model:
        x = model.sample(20, [0.0, 0.0], seed=1)
        likelihood = model.likelihood(x)
        with pytest.warns(RuntimeWarning, match=r"'means' or the prior answered nan at a=4\.0, b=0\.0"):
            values = likelihood([[1.0, 0.0], [4.0, 0.0], [np.nan, 0.0]])
        np.testing.assert_array_equal(np.isneginf(values), [False, True, True])
        assert likelihood([4.0, 0.0]) == -np.inf  # no second warning
        assert likelihood.cost(4.0, 0.0) == np.inf
        assert likelihood.n_nan == 4
        assert np.isnan(model.log_likelihood(x, [4.0, 0.0]))


def test_a_gradient_from_differences_is_used_where_it_is_asked_for(means, events):
    plain, asked = means.likelihood(events), means.likelihood(events, method="finite-difference")
    assert (plain.has_gradient, asked.has_gradient) == (False, True)
    with pytest.raises(NotOffered, match="finite-difference"):
        plain.gradient([1.0, 0.0])
    expected = len(events) * np.linalg.solve(Means.COVARIANCE, events.mean(axis=0) - [1.0, 0.0])
    before = count_requests(means)
    np.testing.assert_allclose(asked.gradient([1.0, 0.0]), expected, rtol=1e-5)
    assert count_requests(means) == before + 1
    values, gradients = asked.value_and_gradient([[1.0, 0.0], [9.0, 0.0]])
    np.testing.assert_array_equal(values, plain([[1.0, 0.0], [9.0, 0.0]]))
    np.testing.assert_array_equal(gradients[1], [0.0, 0.0])

    narrow = means.likelihood(
        events, free=["b"], fixed={"a": 1.0}, log_prior=lambda theta: -2 * theta[0] ** 2, method="finite-difference"
    )
    np.testing.assert_allclose(narrow.gradient([0.5]), asked.gradient([1.0, 0.5])[1:] - 2.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"free": ["a", "c"]}, r"unknown parameter 'c'; model 'means' takes 2: a, b"),
        ({"free": ["a"]}, r"'b' is neither free nor fixed.*fixed=\{'b': value\}"),
        ({"free": ["a", "a"]}, "twice: a, a"),
        ({"free": []}, "no parameter is free"),
        ({"free": "a"}, r"\['a'\]"),
        ({"free": ["a", "b"], "fixed": {"a": 1.0}}, "'a' is both free and fixed"),
        ({"method": "fast"}, "method is 'fast'; it is 'finite-difference'"),
        ({"fixed": {"c": 1.0}}, "unknown parameter 'c'"),
        ({"fixed": {"a": 7.0}}, r"'a' is 7\.0, outside"),
        ({"fixed": {"a": "x"}}, "'a' is 'x'; it is a finite number"),
    ],
)
def test_bad_names_and_values_are_named(means, events, options, message):
    with pytest.raises(InvalidInput, match=message):
        means.likelihood(events, **options)


@pytest.mark.parametrize("theta", [1.0, [1.0], [[1.0]], np.zeros((1, 1, 2)), ["1", "2"], [[1.0], [1.0, 2.0]], None])
def test_bad_points_are_refused(means, events, theta):
    with pytest.raises(InvalidInput, match="theta"):
        means.likelihood(events)(theta)


def test_other_bad_input_is_named(means, gaussian, events):
    with pytest.raises(InvalidInput, match=r"x has shape \(200,\)"):
        means.likelihood(events[:, 0])
    with pytest.raises(InvalidInput, match=r"log_prior of \(2,\) returned shape \(2,\); it returns \(\)"):
        means.likelihood(events, log_prior=lambda theta: theta)([1.0, 0.0])
    with pytest.raises(InvalidInput, match=r"log_prior of \(3, 2\) returned shape \(\); it returns \(3,\)"):
        means.likelihood(events, log_prior=lambda theta: 0.0, vectorized_prior=True)(np.zeros((3, 2)))
    with pytest.raises(InvalidInput, match="give log_prior_gradient"):
        gaussian.likelihood([[1.0]], log_prior=lambda theta: 0.0).gradient([1.0, 1.0])
    with pytest.raises(InvalidInput, match="'mu' is bounded by"):
        gaussian.likelihood([[1.0]]).prior_transform([0.5, 0.5])
    with pytest.raises(InvalidInput, match=r"give start="):
        means.likelihood(events).as_nutpie()


def test_a_likelihood_cannot_be_pickled_or_copied(means, events):
    likelihood = means.likelihood(events)
    for attempt in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match=r"pool=model\.pool\(\)"):
            attempt(likelihood)


# ---- the samplers -----------------------------------------------------------------------------------------------


def test_the_formulas_that_samplers_are_held_to():
    """Evidence and moments by brute force, on a grid."""
    x = np.random.default_rng(1).normal(0.7, 1.6, (12, 1))
    prior = sampler_script.PRIOR
    mu, sigma = np.linspace(-9, 10, 1200), np.linspace(0.3, 9, 1200)
    theta = np.stack(np.meshgrid(mu, sigma, indexing="ij"), axis=-1)
    log_joint = prior.log_density(theta)
    for (row,) in x:
        log_joint -= 0.5 * ((row - theta[..., 0]) / theta[..., 1]) ** 2 + np.log(math.sqrt(2 * math.pi) * theta[..., 1])
    joint = np.exp(log_joint)
    evidence = joint.sum() * (mu[1] - mu[0]) * (sigma[1] - sigma[0])
    weights = joint / joint.sum()
    means = np.einsum("ij,ijk->k", weights, theta)
    deviations = np.sqrt(np.einsum("ij,ijk->k", weights, (theta - means) ** 2))
    assert math.log(evidence) == pytest.approx(prior.log_evidence(x), abs=1e-4)
    np.testing.assert_allclose([means, deviations], prior.update(x).moments(), rtol=1e-3)


@pytest.mark.parametrize("name", sampler_script.CHECKS)
def test_a_known_result_is_recovered(gaussian, name):
    sampler_script.CHECKS[name](gaussian)


def test_known_results_are_recovered_over_mpi(launch):
    script = Path(sampler_script.__file__)
    launched = launch(serve("demos_hpc.testing:Gaussian", 3), analyze(script, ranks=2), deadline=240.0)
    assert launched.code == 0, launched.text
    found = re.findall(r"rank (\d): (\w+)", launched.out)  # a launcher may run lines of two ranks together
    assert sorted(found) == [(str(rank), name) for rank in range(2) for name in sorted(sampler_script.CHECKS)]


def run_emcee(likelihood, n_steps=20, **options):
    rng = np.random.default_rng(3)
    sampler = emcee.EnsembleSampler(16, 2, likelihood, **options)
    start = emcee.State(rng.normal(0.0, 0.5, (16, 2)), random_state=np.random.RandomState(3).get_state())
    sampler.run_mcmc(start, n_steps)
    return sampler.get_chain()


def test_emcee_walks_the_same_way_with_a_pool(means, events):
    likelihood = means.likelihood(events)
    before = count_requests(means)
    chain = run_emcee(likelihood, vectorize=True)
    requests = count_requests(means) - before
    assert requests == 2 * 20 + 1  # a request for each half of the walkers
    np.testing.assert_array_equal(run_emcee(likelihood, pool=means.pool()), chain)
    assert count_requests(means) - before == 2 * requests


def test_emcee_with_a_function_that_asks_two_models(means, gaussian, events):
    first, second = means.likelihood(events), gaussian.likelihood(events[:, :1], fixed={"sigma": 1.0})
    before = count_requests(means), count_requests(gaussian)

    def log_posterior(theta, shift):
        return first(theta) + second(theta[:1] + shift)

    pooled = run_emcee(log_posterior, args=(0.1,), pool=means.pool())
    assert (count_requests(means) - before[0], count_requests(gaussian) - before[1]) == (41, 41)
    np.testing.assert_array_equal(pooled, run_emcee(log_posterior, args=(0.1,)))


@pytest.mark.parametrize("sample", ["unif", "rwalk"])
def test_dynesty_recovers_the_evidence_under_uniform_priors(means, events, sample):
    likelihood = means.likelihood(events)
    before = count_requests(means)
    with means.pool() as pool:
        sampler = dynesty.NestedSampler(
            likelihood,
            likelihood.prior_transform,
            2,
            nlive=60,
            sample=sample,
            walks=10,
            pool=pool,
            queue_size=16,
            rstate=np.random.default_rng(5),
        )
        sampler.run_nested(dlogz=0.1, print_progress=False)
    peak = likelihood(events.mean(axis=0))
    covariance = Means.COVARIANCE / len(events)
    exact = peak + 0.5 * np.linalg.slogdet(2 * math.pi * covariance)[1] - math.log(10.0 * 10.0)
    results = sampler.results
    assert abs(results.logz[-1] - exact) < 4 * results.logzerr[-1]
    assert count_requests(means) - before < sum(results.ncall) / 3


@pytest.mark.filterwarnings("ignore:The sampling was stopped short")
def test_dynesty_answers_the_same_with_and_without_threads(means, events):
    """The pool changes where functions run, not what they find."""
    likelihood = means.likelihood(events)

    class Serial:
        def map(self, function, items):
            return list(map(function, items))

    found = []
    for pool in (means.pool(), Serial()):
        sampler = dynesty.NestedSampler(
            likelihood,
            likelihood.prior_transform,
            2,
            nlive=30,
            pool=pool,
            queue_size=8,
            rstate=np.random.default_rng(5),
        )
        sampler.run_nested(maxiter=100, print_progress=False)
        found.append(sampler.results.samples)
    np.testing.assert_array_equal(*found)


@pytest.mark.filterwarnings("ignore:The sampling was stopped short")
def test_a_dynamic_sampler_finds_the_size_of_the_pool(means, events):
    likelihood = means.likelihood(events)
    with means.pool() as pool:
        sampler = dynesty.DynamicNestedSampler(
            likelihood, likelihood.prior_transform, 2, pool=pool, bootstrap=5, rstate=np.random.default_rng(5)
        )
        sampler.run_nested(nlive_init=30, maxiter=150, print_progress=False)
    assert sampler.results.niter > 100


def test_minuit_finds_names_limits_errordef_and_gradient_by_itself(gaussian):
    likelihood = gaussian.likelihood(gaussian.sample(200, [1.0, 2.0], seed=2))
    minuit = Minuit(likelihood.cost, *likelihood.start)
    assert (minuit.parameters, minuit.errordef) == (("mu", "sigma"), Minuit.LIKELIHOOD)
    assert minuit.limits["sigma"] == (1e-3, np.inf)
    assert minuit.migrad().valid
    assert minuit.ngrad > 0

    by_hand = Minuit(likelihood.cost, *likelihood.start, name=likelihood.names, grad=likelihood.cost_gradient)
    by_hand.limits = likelihood.limits
    assert by_hand.migrad().values == minuit.values
    as_array = Minuit(likelihood.cost, likelihood.start).migrad()
    np.testing.assert_array_equal(as_array.values, minuit.values)


def test_minuit_takes_a_model_without_a_gradient(means, events):
    minuit = Minuit(means.likelihood(events).cost, 0.0, 0.0).migrad().hesse()
    assert (minuit.valid, minuit.ngrad) == (True, 0)
    covariance = Means.COVARIANCE / len(events)
    errors = np.sqrt(np.diag(covariance))
    off = (np.array(minuit.values) - events.mean(axis=0)) / errors
    assert np.abs(off).max() < 2 * math.sqrt(2 * minuit.fmin.edm_goal)
    np.testing.assert_allclose(np.array(minuit.covariance), covariance, rtol=0.01)


def test_scipy_minimizes_it_too(gaussian):
    x = gaussian.sample(200, [1.0, 2.0], seed=2)
    likelihood = gaussian.likelihood(x)
    found = minimize(likelihood.cost, [0.5, 1.0], jac=likelihood.cost_gradient, bounds=likelihood.limits)
    np.testing.assert_allclose(found.x, [x.mean(), x.std()], rtol=1e-4)


def import_or_skip(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # announcements of ArviZ
        return pytest.importorskip(name)


@pytest.mark.filterwarnings("ignore")
def test_nutpie_runs_its_chains_in_threads(gaussian):
    nutpie = import_or_skip("nutpie")
    x = gaussian.sample(sampler_script.N_ROWS, sampler_script.TRUTH, seed=1)
    likelihood = gaussian.likelihood(x)
    start = sampler_script.PRIOR.update(x).moments()[0]
    trace = gaussian.pool().run(
        nutpie.sample, likelihood.as_nutpie(start), draws=500, tune=300, chains=4, seed=1, progress_bar=False
    )
    # Flat in mu and sigma: kappa = 0, a = -1/2, b = 0.
    n, spread = len(x), float(((x - x.mean()) ** 2).sum())
    posterior = sampler_script.NormalInverseGamma(float(x.mean()), n, 0.5 * n - 1.0, 0.5 * spread)
    mean, deviation = posterior.moments()
    draws = np.stack([trace.posterior[name].values for name in likelihood.names], axis=-1)
    independent = draws.shape[0] * draws.shape[1] / emcee.autocorr.integrated_time(np.swapaxes(draws, 0, 1), tol=0)
    assert np.abs((draws.mean(axis=(0, 1)) - mean) / (deviation / np.sqrt(independent))).max() < 5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("has_gradient", [True, False])
def test_pymc_takes_it_as_a_potential(means, gaussian, events, has_gradient):
    pymc = import_or_skip("pymc")
    model, x = (gaussian, events[:, :1]) if has_gradient else (means, events)
    likelihood = model.likelihood(x, free=["mu" if has_gradient else "a"], fixed={} if has_gradient else {"b": 0.0})
    with pymc.Model() as whole:
        theta = pymc.Normal("theta", 0.0, 10.0)
        pymc.Potential("events", likelihood.as_tensor(theta))
        at = {"theta": 0.4}
        prior = -0.5 * 0.04**2 - math.log(10 * math.sqrt(2 * math.pi))
        assert whole.compile_logp()(at) == pytest.approx(likelihood([0.4]) + prior)
        if has_gradient:
            slope = likelihood.gradient([0.4]) - 0.4 / 100
            np.testing.assert_allclose(whole.compile_dlogp()(at), slope)
        trace = pymc.sample(draws=50, tune=50, chains=1, cores=1, random_seed=1, progressbar=False)
    assert np.isfinite(trace.posterior["theta"].values).all()
    with pytest.raises(InvalidInput, match="2 tensors"):
        likelihood.as_tensor(theta, theta)


# ---- the pool ---------------------------------------------------------------------------------------------------


def test_own_callables_are_one_request(gaussian):
    x = gaussian.sample(50, [1.0, 2.0], seed=1)
    likelihood, pool = gaussian.likelihood(x), gaussian.pool()
    points = [np.array([0.1 * i, 1.0 + 0.1 * i]) for i in range(7)]
    before = count_requests(gaussian)
    values = pool.map(likelihood, points)
    again = pool.map(functools.partial(gaussian.log_likelihood, x), points)
    wrapped = pool.map(functools.partial(functools.partial(likelihood)), iter(points))
    pairs = pool.map(likelihood.value_and_gradient, points)
    assert count_requests(gaussian) == before + 4

    expected = gaussian.log_likelihood(x, points).tolist()
    assert values == again == wrapped == [value for value, _ in pairs] == expected
    assert all(type(value) is float for value in values)
    np.testing.assert_array_equal([slope for _, slope in pairs], likelihood.gradient(points))
    assert pool.map(likelihood, []) == []


def test_other_operations_are_in_flight_together(gaussian):
    pool = gaussian.pool()
    points = [[0.5, 1.0], [0.6, 2.0]]
    np.testing.assert_array_equal(pool.map(gaussian.evaluate, points), gaussian.evaluate(points))
    x = gaussian.sample(5, [0.0, 1.0], seed=1)
    np.testing.assert_array_equal(
        pool.map(functools.partial(gaussian.log_density, x), points), [gaussian.log_density(x, p) for p in points]
    )
    draws = pool.map(functools.partial(gaussian.sample, params=[0.0, 1.0], seed=1), [2, 5])
    np.testing.assert_array_equal(draws[1], x)
    with pytest.raises(InvalidInput, match="params has shape"):
        pool.map(gaussian.evaluate, [[0.5, 1.0], [0.5]])
    assert gaussian.evaluate([0.5, 1.0])[0] == 0.5


def test_functions_that_ask_are_answered_together(means, events):
    likelihood, pool = means.likelihood(events), means.pool()

    def climb(start):
        theta, path = np.array(start), []
        for _ in range(1 + int(start[0])):
            path.append(likelihood(theta))
            theta = theta + 0.1
        return path

    starts = [[float(i % 3), 0.0] for i in range(10)]
    before = count_requests(means)
    paths = pool.map(climb, starts)
    assert count_requests(means) == before + 3
    assert paths == [climb(start) for start in starts]


def test_more_functions_than_threads(means, events, monkeypatch):
    monkeypatch.setattr("demos_hpc.desk.MOST_THREADS", 4)
    likelihood, before = means.likelihood(events), count_requests(means)
    points = [np.array([0.01 * i, 0.0]) for i in range(10)]
    assert means.pool().map(lambda point: likelihood(point), points) == likelihood(points).tolist()
    assert count_requests(means) == before + 3 + 1


def test_a_function_of_the_users_own_is_refused_with_the_remedy(means, events):
    likelihood = means.likelihood(events)
    with pytest.raises(InvalidInput, match=r"asks the model nothing.*model\.likelihood"):
        means.pool().map(math.sqrt, [1.0, 4.0])

    pool = means.pool()
    with_prior = lambda theta: likelihood(theta) if theta[0] < 1 else -np.inf  # noqa: E731
    assert pool.map(with_prior, [[0.0, 0.0], [2.0, 0.0]])[1] == -np.inf
    assert pool.map(with_prior, [[2.0, 0.0]]) == [-np.inf]  # it has asked before


def test_points_of_bad_shapes_are_refused(means, events):
    likelihood, pool = means.likelihood(events), means.pool()
    for points in ([1.0, 2.0], [[1.0], [1.0, 2.0]], [None]):
        with pytest.raises(InvalidInput, match="map takes points"):
            pool.map(likelihood, points)
    with pytest.raises(InvalidInput, match="theta has shape"):
        pool.map(likelihood, [[1.0, 2.0, 3.0]])


def test_a_closed_pool_maps_no_more(means, events):
    likelihood = means.likelihood(events)
    with means.pool() as pool:
        assert pool.size == 2
    for attempt in (pool.map, pool.run):
        with pytest.raises(ValueError, match="closed"):
            attempt(likelihood, [[0.0, 0.0]])
    assert np.isfinite(likelihood([0.0, 0.0]))
    assert "closed" in repr(pool)


def test_a_failing_model_ends_the_map_and_leaves_no_thread(capsys):
    with demos_hpc.local(Odd) as model:
        likelihood = model.likelihood(model.sample(20, [0.0, 0.0], seed=1))
        points = [np.array([5.5 * (i == 3), 0.0]) for i in range(8)]
        threads = threading.active_count()
        with pytest.raises(ModelFailed, match="a is above 5"):
            model.pool().map(emcee.ensemble._FunctionWrapper(lambda theta: likelihood(theta), (), {}), points)
        assert threading.active_count() == threads
        assert capsys.readouterr().out.count("emcee: Exception") == 1  # not once for each of eight
        assert np.isfinite(likelihood([0.0, 0.0]))


def test_a_failing_function_ends_the_map(means, events):
    likelihood = means.likelihood(events)

    def divide(theta):
        return likelihood(theta) / theta[0]

    with pytest.raises(ZeroDivisionError):
        means.pool().map(divide, [[1.0, 0.0], [0.0, 0.0], [2.0, 0.0]])


def test_a_function_may_catch_the_error_of_its_own_question(means, events):
    likelihood = means.likelihood(events)

    def forgiving(theta):
        try:
            return likelihood(theta)
        except InvalidInput:
            return -np.inf

    assert means.pool().map(forgiving, [[0.0, 0.0], [0.0]]) == [likelihood([0.0, 0.0]), -np.inf]


def test_run_answers_threads_that_a_sampler_starts(means, events):
    likelihood = means.likelihood(events)
    points = np.linspace(-1.0, 1.0, 8).reshape(4, 2)

    def sample_in_threads():
        values = {}

        def walk(i):
            values[i] = [likelihood(points[i]) for _ in range(5)]

        threads = [threading.Thread(target=walk, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [values[i] for i in range(4)]

    expected = likelihood(points)
    assert means.pool().run(sample_in_threads) == [[value] * 5 for value in expected]
    with pytest.raises(ZeroDivisionError):
        means.pool().run(lambda: likelihood(points[0]) / 0)


def test_who_asks_after_the_end_is_told_to_stop():
    with open_desk() as desk:
        pass
    with pytest.raises(Stopped):
        desk.ask(lambda points: (points,), np.zeros((1, 2)))


def test_rows_that_go_through_blas(gaussian):
    with demos_hpc.local(LinearGaussian, workers=2) as model:
        likelihood = model.likelihood(model.sample(130, [0.5], seed=1))
        values = likelihood([[0.4], [0.5]])
        assert model.pool().map(likelihood, [[0.4], [0.5]]) == values.tolist()
        assert [likelihood([0.4]), likelihood([0.5])] == values.tolist()


# ---- the guide --------------------------------------------------------------------------------------------------


def read_sections() -> dict[str, str]:
    """The Python code of each section of the guide that has some."""
    sections = re.split(r"^#+ ", DOCS.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    code = {s.partition("\n")[0]: "\n".join(re.findall(r"```python\n(.*?)```", s, re.DOTALL)) for s in sections}
    return {title: text for title, text in code.items() if text}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("title", list(read_sections())[1:])
def test_the_guide_runs(gaussian, title, capsys):
    sections = read_sections()
    if title in ("nutpie", "PyMC"):
        import_or_skip(title.lower())
    space: dict[str, Any] = {"model": gaussian}
    exec(next(iter(sections.values())), space)
    exec(sections[title], space)
    assert re.search(r"\d\.\d", capsys.readouterr().out)
