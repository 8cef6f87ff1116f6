"""Analyses of a served `demos_hpc.testing.Gaussian` by emcee, dynesty and iminuit, held to closed formulas.

A script for a rank of one launch, which takes the names of the analyses that are to run (all of them by default):

    mpiexec -n 3 python -m demos_hpc serve demos_hpc.testing:Gaussian : \
            -n 2 python -m demos_hpc tests/mpi/sampler_script.py emcee

Prior and posterior of mean mu and variance sigma^2 are normal-inverse-gamma; see K. P. Murphy, "Conjugate Bayesian
analysis of the Gaussian distribution" (2007), section 3, where precision stands for 1 / sigma^2.
"""

import math
import sys
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaincinv, ndtri

import demos_hpc

N_ROWS = 300
TRUTH = {"mu": 0.7, "sigma": 1.6}
#: How far a result may be from the formula, in its own standard errors.
SIGMAS = 5.0


@dataclass(frozen=True)
class NormalInverseGamma:
    """mu given sigma^2 is normal (m, sigma^2 / kappa), sigma^2 is inverse gamma (a, b)."""

    m: float
    kappa: float
    a: float
    b: float

    def log_density(self, theta):
        """Of theta = mu, sigma (..., 2), to (...)."""
        mu, sigma = theta[..., 0], theta[..., 1]
        variance = sigma**2
        of_mu = -0.5 * self.kappa * (mu - self.m) ** 2 / variance - 0.5 * np.log(2 * np.pi * variance / self.kappa)
        of_variance = self.a * math.log(self.b) - math.lgamma(self.a) - (self.a + 1) * np.log(variance)
        return of_mu + of_variance - self.b / variance + np.log(2 * sigma)

    def transform(self, u):
        """From the unit square (2,) to mu, sigma (2,)."""
        sigma = math.sqrt(self.b / gammaincinv(self.a, 1.0 - u[1]))
        return np.array([self.m + sigma / math.sqrt(self.kappa) * ndtri(u[0]), sigma])

    def update(self, x):
        """The posterior after the rows x (n, 1)."""
        n, mean = len(x), float(x.mean())
        kappa = self.kappa + n
        b = self.b + 0.5 * float(((x - mean) ** 2).sum()) + 0.5 * self.kappa * n * (mean - self.m) ** 2 / kappa
        return NormalInverseGamma((self.kappa * self.m + n * mean) / kappa, kappa, self.a + 0.5 * n, b)

    def log_evidence(self, x):
        """log P(x), all parameters integrated out."""
        after, n = self.update(x), len(x)
        gammas = math.lgamma(after.a) - math.lgamma(self.a)
        powers = self.a * math.log(self.b) - after.a * math.log(after.b)
        return gammas + powers + 0.5 * math.log(self.kappa / after.kappa) - 0.5 * n * math.log(2 * math.pi)

    def moments(self):
        """Mean and standard deviation of mu and of sigma, (2,) each."""
        variance = self.b / (self.a - 1)
        sigma = math.sqrt(self.b) * math.exp(math.lgamma(self.a - 0.5) - math.lgamma(self.a))
        return np.array([self.m, sigma]), np.sqrt([variance / self.kappa, variance - sigma**2])


PRIOR = NormalInverseGamma(m=0.0, kappa=0.01, a=2.0, b=2.0)


def check_emcee(model, seed=0, n_walkers=64, n_steps=400, n_burnt=100):
    """Mean and standard deviation of the posterior."""
    import emcee

    x = model.sample(N_ROWS, TRUTH, seed=1)
    likelihood = model.likelihood(x, log_prior=PRIOR.log_density, vectorized_prior=True)
    mean, deviation = PRIOR.update(x).moments()
    rng = np.random.default_rng(seed)
    start = mean + deviation * rng.standard_normal((n_walkers, 2))

    sampler = emcee.EnsembleSampler(n_walkers, likelihood.n_free, likelihood, vectorize=True)
    start_state = emcee.State(start, random_state=np.random.RandomState(seed).get_state())
    sampler.run_mcmc(start_state, n_steps + n_burnt)

    chain = sampler.get_chain(discard=n_burnt)
    independent = n_walkers * n_steps / emcee.autocorr.integrated_time(chain, tol=0)
    off_mean = (chain.mean(axis=(0, 1)) - mean) / (deviation / np.sqrt(independent))
    off_deviation = (chain.std(axis=(0, 1)) - deviation) / (deviation / np.sqrt(2 * independent))
    assert np.abs(off_mean).max() < SIGMAS, f"posterior mean is off by {off_mean} standard errors"
    assert np.abs(off_deviation).max() < SIGMAS, f"posterior deviation is off by {off_deviation} standard errors"
    return f"mean off by {off_mean.round(2)}, deviation by {off_deviation.round(2)} standard errors"


def check_dynesty(model, seed=0, n_live=150):
    """The evidence."""
    import dynesty

    x = model.sample(N_ROWS, TRUTH, seed=1)
    likelihood = model.likelihood(x)
    with model.pool() as pool:
        sampler = dynesty.NestedSampler(
            likelihood,
            PRIOR.transform,
            likelihood.n_free,
            nlive=n_live,
            pool=pool,
            queue_size=32,
            rstate=np.random.default_rng(seed),
        )
        sampler.run_nested(print_progress=False)
    results = sampler.results
    off = (results.logz[-1] - PRIOR.log_evidence(x)) / results.logzerr[-1]
    assert abs(off) < SIGMAS, f"log evidence is off by {off} of its errors"
    return f"log evidence {results.logz[-1]:.2f} is off by {off:.2f} of its errors"


def check_iminuit(model, seed=0):
    """Minimum and errors; those of a normal sample are sigma / sqrt(n) and sigma / sqrt(2 n)."""
    from iminuit import Minuit

    x = model.sample(N_ROWS, TRUTH, seed=1)
    likelihood = model.likelihood(x)
    minimum = np.array([x.mean(), x.std()])
    errors = x.std() / np.sqrt([len(x), 2 * len(x)])
    start = minimum + 3 * errors * np.random.default_rng(seed).uniform(-1, 1, 2)

    minuit = Minuit(likelihood.cost, *start)
    minuit.migrad().hesse()

    # The cost rises by offset^2 / 2 (offset in errors): where that is EDM, Minuit may stop.
    off = (np.array(minuit.values) - minimum) / errors
    assert minuit.valid
    assert minuit.ngrad > 0, "the gradient was not used"
    assert np.abs(off).max() < 2 * math.sqrt(2 * minuit.fmin.edm_goal), f"minimum is off by {off} errors"
    np.testing.assert_allclose(minuit.errors, errors, rtol=0.01)
    return f"minimum off by {off.round(5)} errors, {minuit.nfcn} values, {minuit.ngrad} gradients"


CHECKS = {"emcee": check_emcee, "dynesty": check_dynesty, "iminuit": check_iminuit}


def main(names):
    from mpi4py import MPI

    with demos_hpc.connect() as model:
        for name in names or CHECKS:
            found = CHECKS[name](model, seed=MPI.COMM_WORLD.rank)
            print(f"rank {MPI.COMM_WORLD.rank}: {name}: {found}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
