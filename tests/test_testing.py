"""Good models pass; every planted fault is named by the check that is meant for it, and by no other."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from demos_hpc.errors import InvalidInput
from demos_hpc.model import LoadedModel, load
from demos_hpc.spec import ModelSpec, Observable, Output, Parameter
from demos_hpc.testing import Failing, FakeClock, Gaussian, LinearGaussian, Outcome, check_model

AUTHORSHIP = {"license": "BSD-3-Clause", "authors": ("A. Author",)}


def normal(x, mean, sigma):
    return -0.5 * ((x - mean) / sigma) ** 2 - np.log(sigma) - 0.5 * math.log(2 * math.pi)


# Good models


class Exponential:
    """A half-infinite support, and every operation on a density of x."""

    def __init__(self, **changes):
        self.spec = ModelSpec(
            name="exponential",
            parameters=(Parameter("tau", "ns", 2.0, lower=0.1, upper=10.0),),
            observables=(Observable("t", "ns", lower=0.0),),
            **{**AUTHORSHIP, **changes},
        )

    def outside(self, x):
        return x[:, 0] < 0

    def log_density(self, x, params):
        tau = params[..., 0]
        return np.where(self.outside(x), -np.inf, -x[:, 0] / tau - np.log(tau))

    def log_density_gradient(self, x, params):
        tau = params[..., 0]
        return self.log_density(x, params), ((x[:, 0] / tau - 1) / tau)[:, np.newaxis]

    def log_density_gradient_x(self, x, params):
        return self.log_density(x, params), np.broadcast_to(-1 / params[..., 0, None], x.shape).copy()

    def sample(self, n, params, rng):
        return rng.exponential(params[0], (n, 1))


class Cauchy:
    """Tails so heavy that there is no mean; as narrow as 1e-6 of its position."""

    spec = ModelSpec(
        name="cauchy",
        parameters=(Parameter("x0", "eV", 125.0), Parameter("gamma", "eV", 1e-4, lower=1e-12)),
        observables=(Observable("x", "eV"),),
        **AUTHORSHIP,
    )

    def log_density(self, x, params):
        z = (x[:, 0] - params[..., 0]) / params[..., 1]
        return -np.log(math.pi * params[..., 1]) - np.log1p(z**2)

    def log_density_gradient(self, x, params):
        gamma = params[..., 1]
        z = (x[:, 0] - params[..., 0]) / gamma
        slope = 2 * z / (1 + z**2) / gamma
        return self.log_density(x, params), np.stack([slope, slope * z - 1 / gamma], axis=1)

    def sample(self, n, params, rng):
        return params[0] + params[1] * rng.standard_cauchy((n, 1))


class Narrow:
    """A peak 1e-9 of the support wide, whose position has to be found where there is no sampler."""

    spec = ModelSpec(
        name="narrow",
        parameters=(Parameter("mass", "GeV", 0.31234, lower=0.1, upper=0.9),),
        observables=(Observable("m", "GeV", lower=0.0, upper=1.0),),
        **AUTHORSHIP,
    )

    def log_density(self, x, params):
        out = (x[:, 0] < 0) | (x[:, 0] > 1)
        return np.where(out, -np.inf, normal(x[:, 0], params[..., 0], 1e-9))


class SampledNarrow(Narrow):
    def sample(self, n, params, rng):
        return params[0] + 1e-9 * rng.standard_normal((n, 1))


class Correlated:
    """Two observables with a correlation of rho; the parameters rho and mean have no defaults."""

    spec = ModelSpec(
        name="correlated",
        parameters=(Parameter("mean"), Parameter("rho", lower=-0.98, upper=0.98)),
        observables=(Observable("a"), Observable("b")),
        **AUTHORSHIP,
    )

    def log_density(self, x, params):
        rho = params[..., 1]
        a = x[:, 0] - params[..., 0]
        return normal(a, 0, 1) + normal(x[:, 1], rho * a, np.sqrt(1 - rho**2))

    def sample(self, n, params, rng):
        a, b = rng.standard_normal((2, n))
        return np.stack([a + params[0], params[1] * a + math.sqrt(1 - params[1] ** 2) * b], axis=1)


class TwoPeaks:
    """Two narrow peaks far apart."""

    spec = ModelSpec(
        name="two-peaks",
        parameters=(Parameter("share", default=0.3, lower=0.1, upper=0.9),),
        observables=(Observable("x"),),
        **AUTHORSHIP,
    )
    means, sigmas = np.array([-3.0, 70.0]), np.array([1e-3, 0.5])

    def log_density(self, x, params):
        share, first, second = params[..., 0], *normal(x, self.means, self.sigmas).T
        return np.logaddexp(np.log(share) + first, np.log1p(-share) + second)

    def sample(self, n, params, rng):
        peak = (rng.random(n) > params[0]).astype(int)
        return (self.means[peak] + self.sigmas[peak] * rng.standard_normal(n))[:, np.newaxis]


class Shifted:
    """An exponential that begins at a parameter, in three observables: the support moves with it."""

    spec = ModelSpec(
        name="shifted",
        parameters=(Parameter("start", default=1.0), Parameter("tau", default=2.0, lower=0.1)),
        observables=tuple(Observable(f"t{j}") for j in range(3)),
        **AUTHORSHIP,
    )

    def log_density(self, x, params):
        z = (x - params[..., 0, None]) / params[..., 1, None]
        return np.where((z < 0).any(axis=1), -np.inf, -z.sum(axis=1) - 3 * np.log(params[..., 1]))

    def log_density_gradient(self, x, params):
        tau = params[..., 1]
        z = (x - params[..., 0, None]) / tau[..., None]
        by_start = np.broadcast_to(3 / tau, len(x))
        return self.log_density(x, params), np.stack([by_start, (z.sum(axis=1) - 3) / tau], axis=1)

    def sample(self, n, params, rng):
        return params[0] + params[1] * rng.standard_exponential((n, 3))


class Triangle:
    """Flat where a + b < edge: a boundary inside the declared support, seen neither by axes nor by gradients."""

    spec = ModelSpec(
        name="triangle",
        parameters=(Parameter("edge", default=0.7, lower=0.2, upper=1.0),),
        observables=(Observable("a", lower=0.0, upper=1.0), Observable("b", lower=0.0, upper=1.0)),
        **AUTHORSHIP,
    )

    def log_density(self, x, params):
        out = (x < 0).any(axis=1) | (x > 1).any(axis=1) | (x.sum(axis=1) > params[..., 0])
        return np.where(out, -np.inf, math.log(2) - 2 * np.log(params[..., 0]) + 0 * x.sum(axis=1))

    def sample(self, n, params, rng):
        u = np.sort(rng.random((n, 2)), axis=1)
        return params[0] * np.stack([u[:, 0], u[:, 1] - u[:, 0]], axis=1)


GOOD = [
    Gaussian(), Gaussian(2), Gaussian(3), LinearGaussian(), Exponential(), Cauchy(), Narrow(), SampledNarrow(),
    Correlated(), TwoPeaks(), Shifted(), Triangle(),
]  # fmt: skip


@pytest.mark.parametrize("model", GOOD, ids=lambda m: f"{m.spec.name}-{m.spec.n_observables}")
def test_good_models_pass(model):
    verdict = check_model(model)
    assert verdict.passed, str(verdict)
    assert not [f for f in verdict.warnings if f.check != "spec"], str(verdict)


@pytest.mark.parametrize("model", [m for m in GOOD if m.spec.n_observables < 3 and not isinstance(m, Triangle)])
def test_normalization_is_settled_in_one_and_two_dimensions(model):
    assert check_model(model)["log_density.normalized"].outcome is Outcome.OK


def test_three_observables_are_judged_by_draws_and_score():
    verdict = check_model(Gaussian(3))
    assert verdict["log_density.normalized"].outcome is Outcome.SKIPPED
    assert "3 observables" in verdict["log_density.normalized"].sentence
    assert "Metropolis" in verdict["sample.density"].sentence
    assert verdict["log_density.score"].outcome is Outcome.OK


def test_a_moving_support_is_no_false_alarm():
    finding = check_model(Shifted())["log_density.score"]
    assert finding.outcome is Outcome.SKIPPED
    assert "moves with start" in finding.sentence


def test_what_does_not_converge_is_skipped_not_failed():
    finding = check_model(Triangle(), max_rows=1000)["log_density.normalized"]
    assert finding.outcome is Outcome.SKIPPED
    assert "not converged" in finding.sentence
    assert "max_rows" in finding.sentence


def test_missing_defaults_are_a_warning_that_names_the_values_used():
    finding = check_model(Correlated())["spec"]
    assert finding.outcome is Outcome.WARNING
    assert "mean = 1, rho = 0" in finding.sentence


# Planted faults


class NoGradient(Gaussian):
    """For faults of log_density that a gradient would inherit."""

    log_density_gradient = None
    log_density_gradient_x = None


class Unnormalized(Gaussian):
    def log_density(self, x, params):
        return super().log_density(x, params) + 0.01


class Infinite(NoGradient):
    def log_density(self, x, params):
        return np.where(np.abs(x[:, 0]) < 1e-2, np.inf, super().log_density(x, params))

    sample = None


class ForgottenSigma(Gaussian):
    """d log sigma missing from log P and, consistently, from its gradient."""

    def log_density(self, x, params):
        return super().log_density(x, params) + x.shape[1] * np.log(params[..., 1])

    def log_density_gradient(self, x, params):
        value, gradient = super().log_density_gradient(x, params)
        gradient[:, 1] += x.shape[1] / params[..., 1]
        return value, gradient


class WrongComponent(Gaussian):
    def log_density_gradient(self, x, params):
        value, gradient = super().log_density_gradient(x, params)
        gradient[:, 1] *= 1.001
        return value, gradient


class WrongGradientX(Gaussian):
    def log_density_gradient_x(self, x, params):
        value, gradient = super().log_density_gradient_x(x, params)
        return value, gradient * params[..., 1, None]


class OtherValue(Gaussian):
    def log_density_gradient(self, x, params):
        value, gradient = super().log_density_gradient(x, params)
        return value + 0.5 * math.log(2 * math.pi), gradient


class WideSampler(Gaussian):
    """One column is 10 % too wide."""

    def sample(self, n, params, rng):
        x = super().sample(n, params, rng)
        x[:, -1] = params[0] + 1.1 * (x[:, -1] - params[0])
        return x


class SkewSampler(Gaussian):
    """The right mean and variance, the wrong distribution."""

    def sample(self, n, params, rng):
        x = rng.gamma(40.0, 1.0, (n, self.spec.n_observables))
        return params[0] + params[1] * (x - 40) / math.sqrt(40)


class LooseSampler(Exponential):
    def sample(self, n, params, rng):
        return super().sample(n, params, rng) - 1e-3


class OwnGenerator(Gaussian):
    def __init__(self):
        super().__init__()
        self.rng = np.random.default_rng(1)

    def sample(self, n, params, rng):
        return super().sample(n, params, self.rng)


class FrozenGenerator(Gaussian):
    def sample(self, n, params, rng):
        return super().sample(n, params, np.random.default_rng(1))


class ByBatch(NoGradient):
    """The last bits depend on the number of rows, as those of a matrix product do."""

    def log_density(self, x, params):
        return super().log_density(x, params) * (1 + 1e-15 * (len(x) % 7))


class ByParamsShape(NoGradient):
    def log_density(self, x, params):
        return super().log_density(x, params) * (1 + 1e-15 * params.ndim)


class Forgetful(NoGradient):
    """Keeps a state from call to call."""

    calls = 0

    def log_density(self, x, params):
        self.calls += 1
        return super().log_density(x, params) * (1 + 1e-14 * self.calls)


class ForgetfulBlocks(LinearGaussian):
    """Depends on the address of its input, which blocks may not do either."""

    log_density_gradient = None

    def log_density(self, x, params):
        return super().log_density(x, params) * (1 + 1e-15 * (x.ctypes.data % 16))


class OneBuffer(NoGradient):
    """Returns the same memory every time."""

    buffer = np.empty(1 << 20)

    def log_density(self, x, params):
        out = self.buffer[: len(x)]
        out[:] = super().log_density(x, params)
        return out


class NanOutside(Exponential):
    def log_density(self, x, params):
        return np.where(self.outside(x), np.nan, super().log_density(x, params))

    def log_density_gradient(self, x, params):
        return Exponential().log_density_gradient(x, params)

    def log_density_gradient_x(self, x, params):
        return Exponential().log_density_gradient_x(x, params)


class RaisesOutside(NanOutside):
    def log_density(self, x, params):
        if self.outside(x).any():
            raise ValueError("negative time")
        return Exponential.log_density(self, x, params)


class FiniteOutside(NanOutside):
    def log_density(self, x, params):
        return -x[:, 0] / params[..., 0] - np.log(params[..., 0])


class NanIsImprobable(NanOutside):
    def log_density(self, x, params):
        return np.where(x[:, 0] >= 0, Exponential.log_density(self, x, params), -np.inf)


class NanSpreads(NoGradient):
    def log_density(self, x, params):
        return super().log_density(x, params) + (0.0 * x[:, 0]).sum()


class RaisesAtBound(Exponential):
    def sample(self, n, params, rng):
        if params[0] == 10.0:
            raise ZeroDivisionError("tau")
        return super().sample(n, params, rng)


class Column(NoGradient):
    def log_density(self, x, params):
        return super().log_density(x, params)[:, np.newaxis]


class Single(NoGradient):
    def log_density(self, x, params):
        return super().log_density(x, params).astype(np.float32)


class NoPair(Gaussian):
    def log_density_gradient(self, x, params):
        return super().log_density_gradient(x, params)[1]


class NarrowGradient(Gaussian):
    def log_density_gradient(self, x, params):
        value, gradient = super().log_density_gradient(x, params)
        return value, gradient[:, :1]


class FlatSample(Gaussian):
    def sample(self, n, params, rng):
        return super().sample(n, params, rng)[:, 0]


class WritesX(NoGradient):
    def log_density(self, x, params):
        value = super().log_density(x, params)
        x -= params[..., 0, None]
        return value


class WritesParams(Gaussian):
    def evaluate(self, params):
        params[:, 1] **= 2
        return params


class SlowRow(Gaussian):
    """evaluate() of a point depends on the points beside it."""

    def evaluate(self, params):
        return super().evaluate(params) * (1 + 1e-15 * (len(params) % 3))


class NoUnit(Exponential):
    def __init__(self):
        super().__init__(outputs=())
        self.spec = replace(self.spec, observables=(Observable("t", "", lower=0.0),))


class Undeclared(LinearGaussian):
    """Rows that go through BLAS, and a spec that hides it."""

    def __init__(self):
        super().__init__()
        self.spec = replace(self.spec, row_independent=True)


FAULTS = [
    (Unnormalized(), "log_density.normalized", "integrates to 1.01005"),
    (Unnormalized(2), "log_density.normalized", "integrates to 1.01005"),
    (Infinite(), "log_density.normalized", "integrates to inf"),
    (ForgottenSigma(), "log_density.normalized", "sigma = "),
    (ForgottenSigma(3), "log_density.score", "d log P / d sigma"),
    (WrongComponent(), "log_density_gradient.derivative", "d log P / d sigma"),
    (WrongGradientX(2), "log_density_gradient_x.derivative", "d log P / d x0"),
    (OtherValue(), "log_density_gradient.value", "constants included"),
    (WideSampler(), "sample.density", "chi-square"),
    (WideSampler(2), "sample.density", "chi-square"),
    (WideSampler(3), "sample.density", "the width of x2"),
    (SkewSampler(), "sample.density", "chi-square"),
    (SkewSampler(4), "sample.density", "the skewness of"),
    (LooseSampler(), "sample.support", "the declared support is 0 to inf"),
    (OwnGenerator(), "sample.seed", "from the generator rng"),
    (ByBatch(), "log_density.rows", "declare row_independent=False"),
    (ByParamsShape(), "log_density.rows", "params (n, p) differs from the same params (p,)"),
    (Forgetful(), "log_density.rows", "from call to call"),
    (ForgetfulBlocks(), "log_density.rows", "at another address"),
    (OneBuffer(), "log_density.rows", "return a new array every time"),
    (NanOutside(), "log_density.outside", "nan at t = -0.001"),
    (RaisesOutside(), "log_density.outside", "negative time"),
    (FiniteOutside(), "log_density.outside", "return -inf there"),
    (NanIsImprobable(), "log_density.nan", "-inf where t is nan"),
    (NanSpreads(), "log_density.nan", "rows are independent"),
    (RaisesAtBound(), "bounds", "at tau = 10: sample() of model 'exponential' raised ZeroDivisionError"),
    (Column(), "log_density.returns", "returned shape (1, 1); the contract asks for (1,)"),
    (Single(), "log_density.returns", "dtype float32"),
    (NoPair(), "log_density_gradient.returns", "not the pair (value, gradient)"),
    (NarrowGradient(), "log_density_gradient.returns", "the contract asks for (1, 2)"),
    (FlatSample(), "sample.returns", "the contract asks for (1, 1)"),
    (WritesX(), "inputs", "log_density() changed its input x"),
    (WritesParams(), "inputs", "evaluate() changed its input params"),
    (SlowRow(), "evaluate.rows", "declare row_independent=False"),
    (NoUnit(), "spec", "observable 't' without unit"),
]


@pytest.mark.parametrize(
    ("model", "check", "words"), FAULTS, ids=lambda v: v if isinstance(v, str) else type(v).__name__
)
def test_a_planted_fault_is_named_by_its_check_alone(model, check, words):
    verdict = check_model(model)
    assert [f.check for f in verdict.failures] == [check], str(verdict)
    assert words in verdict[check].sentence


def test_a_frozen_generator_is_found_twice():
    verdict = check_model(FrozenGenerator())
    assert "every seed or block" in verdict["sample.seed"].sentence
    assert [f.check for f in verdict.failures] == ["sample.seed", "sample.density"]  # 16 times the same 1024 draws


def test_rows_through_blas_are_named_with_the_remedy():
    verdict = check_model(Undeclared(), n_draws=2048)
    if verdict.passed:
        pytest.skip("with this BLAS the bits of a row do not depend on its neighbors")
    assert {f.check for f in verdict.failures} <= {"log_density.rows", "log_density_gradient.rows"}
    assert "declare row_independent=False" in verdict.failures[0].sentence
    assert "more than rounding" not in verdict.failures[0].sentence


def test_a_density_of_the_whole_batch_is_said_to_be_more_than_rounding():
    class Centered(NoGradient):
        def log_density(self, x, params):
            return super().log_density(x - 1e-3 * x.mean(axis=0), params)

    assert "far more than rounding" in check_model(Centered())["log_density.rows"].sentence


def test_read_only_input_that_is_refused_is_a_warning():
    class Touchy(NoGradient):
        def log_density(self, x, params):
            if not x.flags.writeable:
                raise ValueError("buffer source array is read-only")
            return super().log_density(x, params)

    finding = check_model(Touchy())["inputs"]
    assert finding.outcome is Outcome.WARNING
    assert "buffer source array is read-only when its input was read-only" in finding.sentence


def test_a_model_that_raises_is_quoted_and_not_asked_again():
    verdict = check_model(Failing("raises"))
    assert "raised ArithmeticError: row 0 is above -inf" in verdict["log_density.returns"].sentence
    assert verdict["log_density.nan"].outcome is Outcome.SKIPPED
    assert "log_density.returns" in verdict["log_density.nan"].sentence
    assert verdict["sample.seed"].outcome is Outcome.OK


def test_rare_failures_are_found_at_the_draws():
    verdict = check_model(Failing("nan", above=3.0))
    assert "log_density() is nan at the draw" in verdict["sample.support"].sentence


def test_a_generator_of_its_own_may_be_declared():
    model = OwnGenerator()
    model.spec = replace(model.spec, reproducible=False)
    verdict = check_model(model)
    assert verdict.passed, str(verdict)
    assert verdict["sample.seed"].outcome is Outcome.SKIPPED


def test_one_parameter_vector_a_call_may_be_declared():
    class OneVector(NoGradient):
        def __init__(self):
            super().__init__()
            self.spec = replace(self.spec, params_per_row=False)

        def log_density(self, x, params):
            mu, sigma = params
            return super().log_density(x, np.array([mu, sigma]))

    assert check_model(OneVector()).passed


def test_a_forward_map_alone_is_a_model():
    class Square:
        spec = ModelSpec(name="square", parameters=(Parameter("a"),), outputs=(Output("a2"),), **AUTHORSHIP)

        def evaluate(self, params):
            return params**2

    verdict = check_model(Square())
    assert verdict.passed, str(verdict)
    assert "offers no log_density" in verdict["log_density.normalized"].sentence
    assert verdict["evaluate.rows"].outcome is Outcome.OK


def test_a_model_without_parameters():
    class Standard:
        spec = ModelSpec(name="standard", observables=(Observable("x"),), **AUTHORSHIP)

        def log_density(self, x, params):
            return normal(x[:, 0], 0.0, 1.0)

        def sample(self, n, params, rng):
            return rng.standard_normal((n, 1))

    verdict = check_model(Standard())
    assert verdict.passed, str(verdict)
    assert verdict["log_density.normalized"].outcome is Outcome.OK


def test_a_density_in_single_precision_does_not_condemn_its_gradient():
    class Coarse(Gaussian):
        def log_density(self, x, params):
            return super().log_density(x.astype(np.float32), params.astype(np.float32)).astype(np.float64)

        def log_density_gradient(self, x, params):
            return self.log_density(x, params), Gaussian().log_density_gradient(x, params)[1]

    verdict = check_model(Coarse())
    assert verdict["log_density_gradient.derivative"].outcome is Outcome.OK, str(verdict)


def test_authorship_is_a_warning():
    finding = check_model(Exponential(license="", authors=()))["authorship"]
    assert finding.outcome is Outcome.WARNING
    assert "no license and no authors" in finding.sentence


# The verdict


def test_the_verdict_reads_well_and_travels_as_json():
    verdict = check_model(Unnormalized())
    lines = str(verdict).splitlines()
    assert lines[0].startswith("gaussian 1.0.0: FAILED (")
    assert any(line.split()[:2] == ["FAILED", "log_density.normalized"] for line in lines)
    values = json.loads(json.dumps(verdict.to_dict(), allow_nan=False))
    assert values["passed"] is False
    assert values["findings"][0] == {"check": "spec", "outcome": "ok", "sentence": verdict["spec"].sentence}
    assert list(verdict) == list(verdict.findings)
    with pytest.raises(KeyError, match="no check 'spelling'"):
        verdict["spelling"]


def test_the_same_seed_gives_the_same_verdict():
    assert check_model(Gaussian(), seed=7) == check_model(Gaussian(), seed=7)
    assert check_model(Gaussian(), seed=7) != check_model(Gaussian(), seed=8)


def test_a_loaded_model_points_and_rows_may_be_given():
    verdict = check_model(LoadedModel(Narrow()), params=[0.5], x=[[0.5], [0.5 + 1e-9]])
    assert verdict["log_density.normalized"].outcome is Outcome.OK
    assert "at 1 parameter points" in verdict["log_density.normalized"].sentence


def test_what_is_no_model_is_refused():
    with pytest.raises(InvalidInput, match="no attribute 'spec'"):
        check_model(object())
    with pytest.raises(InvalidInput, match=r"params has shape \(3,\); it is \(n, 2\)"):
        check_model(Gaussian(), params=[0.0, 1.0, 2.0])


# Reference models and the clock


def test_reference_models_can_be_loaded_by_name():
    assert load("demos_hpc.testing:Gaussian").spec.name == "gaussian"
    assert load("demos_hpc.testing:LinearGaussian").spec.row_independent is False
    assert load("demos_hpc.testing:Failing").spec.name == "failing-raises"


def test_failing_models_fail_above_their_threshold_only(monkeypatch):
    x, params = np.array([[0.0], [2.0]]), np.array([0.0, 1.0])
    good = Gaussian().log_density(x, params)
    with pytest.raises(ArithmeticError, match="row 1"):
        Failing("raises", above=1.0).log_density(x, params)
    assert np.array_equal(Failing("raises", above=1.0).log_density(x[:1], params), good[:1])
    assert Failing("shape").log_density(x, params).shape == (2, 1)
    assert np.isnan(Failing("nan", above=1.0).log_density(x, params)).tolist() == [False, True]
    slept, killed = [], []
    monkeypatch.setattr("time.sleep", slept.append)
    monkeypatch.setattr("os.kill", lambda *arguments: killed.append(arguments))
    assert np.array_equal(Failing("sleeps", seconds=3.0).log_density(x, params), good)
    Failing("dies").log_density(x, params)
    assert slept == [3.0]
    assert len(killed) == 1
    with pytest.raises(InvalidInput, match="there are raises, shape"):
        Failing("explodes")


def test_the_clock_stands_until_it_is_told():
    clock = FakeClock(10.0)
    assert clock() == clock() == 10.0
    assert clock.advance(2.5) == clock() == 12.5
    with pytest.raises(InvalidInput, match="cannot advance by -1"):
        clock.advance(-1)
