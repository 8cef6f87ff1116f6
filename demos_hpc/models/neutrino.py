"""Upgoing atmospheric muon neutrinos, seen after three-flavor oscillations in the Earth.

An event x is a reconstructed energy E_r and a reconstructed cosine of the zenith angle c_r. Its density is a sum
over the nodes (E_i, c_j) of a quadrature,

    P(x | params) = sum_ij r_ij K(E_r | E_i) K_c(c_r | c_j, E_i) / N,    N = sum_ij r_ij eps_i,

with the rates r_ij of `event_rates`, the response K and K_c of `detector`, and the probability eps_i that an energy
is reconstructed inside the window; so it is normalized over the window. To draw from it is to pick a node by r_ij,
to smear it, and to start again where the energy has left the window.

The gradient is exact: d log P = (sum d(r_ij K) K_c) / (sum r_ij K K_c) - dN / N, with dr_ij as `oscillation` has it.
"""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import numpy.typing as npt

from ..messages import FloatArray
from ..spec import ModelSpec, Observable, Output, Parameter
from . import event_rates, oscillation
from .detector import ENERGY_RESOLUTION, ENERGY_WINDOW, ZENITH_RESOLUTION, ZENITH_WINDOW, Detector
from .earth import PRODUCTION_HEIGHT, CastleWall, Prem
from .event_rates import EventRates

#: Default values: best fit of NuFIT 6.0 (JHEP 12 (2024) 216), normal ordering, with atmospheric data.
PARAMETERS = (
    Parameter("s12sq", "1", 0.308, 0.0, 1.0, "sin^2(theta12)"),
    Parameter("s13sq", "1", 0.02215, 0.0, 1.0, "sin^2(theta13)"),
    Parameter("s23sq", "1", 0.470, 0.0, 1.0, "sin^2(theta23)"),
    Parameter("delta", "rad", math.radians(212.0), -2 * math.pi, 2 * math.pi, "CP phase, of period 2 pi"),
    Parameter("dm21", "eV^2", 7.49e-5, 0.0, 1e-3, "m2^2 - m1^2"),
    Parameter("dm31", "eV^2", 2.513e-3, -1e-2, 1e-2, "m3^2 - m1^2; negative for the inverted ordering"),
    Parameter("dgamma", "1", 0.0, -1.0, 1.0, "added to the spectral index of the flux, 2.7"),
    Parameter("R_nubar", "1", 1.0, 0.0, 5.0, "factor on the flux of antineutrinos"),
    Parameter("R_e", "1", 1.0, 0.0, 5.0, "factor on the flux of electron neutrinos and antineutrinos"),
    Parameter("dE", "1", 0.0, -0.5, 0.5, "relative shift of the energy scale"),
)

OBSERVABLES = (
    Observable("E_reco", "GeV", *ENERGY_WINDOW, "reconstructed energy"),
    Observable("cz_reco", "1", *ZENITH_WINDOW, "reconstructed cosine of the zenith angle; -1 is from straight below"),
)

#: Bins of ``evaluate``, GeV and 1.
ENERGY_EDGES = np.geomspace(*ENERGY_WINDOW, 11)
ZENITH_EDGES = np.linspace(*ZENITH_WINDOW, 11)

OUTPUTS = tuple(
    Output(
        f"rate_E{i}_cz{j}",
        "arbitrary",
        f"expected rate of events with E_reco from {ENERGY_EDGES[i]:.3f} to {ENERGY_EDGES[i + 1]:.3f} GeV"
        f" and cz_reco from {ZENITH_EDGES[j]:.1f} to {ZENITH_EDGES[j + 1]:.1f}",
    )
    for i in range(ENERGY_EDGES.size - 1)
    for j in range(ZENITH_EDGES.size - 1)
)

CITATION = (
    "Oscillations in layers: V. Barger et al., Phys. Rev. D 22 (1980) 2718; P. B. Denton and S. J. Parke,"
    " arXiv:2405.02400. Parameters: I. Esteban et al. (NuFIT 6.0), JHEP 12 (2024) 216. Flux: T. K. Gaisser, Cosmic"
    " Rays and Particle Physics (1990); D. Chirkin, hep-ph/0407078. Earth: A. M. Dziewonski and D. L. Anderson,"
    " Phys. Earth Planet. Inter. 25 (1981) 297."
)


def make_spec(name: str, earth: CastleWall | Prem) -> ModelSpec:
    """The spec of a model whose neutrinos cross ``earth``."""
    return ModelSpec(
        name=name,
        version="1.0.0",
        parameters=PARAMETERS,
        observables=OBSERVABLES,
        outputs=OUTPUTS,
        description="Upgoing atmospheric muon neutrinos after three-flavor oscillations in the Earth: energy and"
        " zenith angle as a detector reconstructs them. evaluate() returns the expected rates in 10 x 10 bins; their"
        " sum is the rate in the window, and divided by it they are the probabilities of the bins.",
        license="BSD-3-Clause",
        authors=("The demos-hpc developers",),
        citation=CITATION,
        resources={"threads": 1, "memory_MB": 100 if isinstance(earth, CastleWall) else 300},
        notes={
            "constants": {
                "G_F / (hbar c)^3 [eV^-2]": oscillation.FERMI_CONSTANT,
                "N_A [1/mol]": oscillation.AVOGADRO,
                "hbar c [eV m]": oscillation.HBAR_C,
                "V / (density Y_e) [eV / (g/cm^3)]": oscillation.POTENTIAL,
            },
            "earth": {"kind": type(earth).__name__, "production_height_km": PRODUCTION_HEIGHT, **asdict(earth)},
            "conventions": {
                "mixing": "U = R23 U13 R12 (Particle Data Group), U_e3 = s13 exp(-i delta); angles in radians",
                "propagation": "S = exp(-i H L), V > 0 for neutrinos; U* and -V for antineutrinos",
                "probability": "P[a -> b] = |S_ba|^2",
            },
            "quadrature": {
                "rule": "Gauss-Legendre in ln E [GeV] and in cos(zenith angle)",
                "nodes": [event_rates.N_ENERGIES, event_rates.N_ZENITHS],
                "ranges": [list(event_rates.ENERGY_RANGE), list(event_rates.ZENITH_RANGE)],
            },
            "resolution": {
                "ln E_reco": "sqrt(a^2 + b^2 / E[GeV]), [a, b] = {:g}, {:g}".format(*ENERGY_RESOLUTION),
                "cz_reco": "a + b / sqrt(E[GeV]), [a, b] = {:g}, {:g}".format(*ZENITH_RESOLUTION),
            },
            "flux": "Gaisser's formula, without muon decay; electron neutrinos by a smooth stand-in for flux tables",
            "precision": "float64; log P as defined by the quadrature to 1e-12, gradients to 1e-9",
            "thread_safety": "safe: nothing is changed after construction but a cache that locks",
            "data": "none",
        },
        row_independent=False,
        params_per_row=False,
    )


class AtmosphericNeutrino:
    """The model "nu_atm", whose Earth is a castle wall of four layers.

    The methods are those of `demos_hpc.model.Model`, with params (10,). Parameters outside of their bounds give
    ``-inf``, and nan from ``sample`` and ``evaluate``.
    """

    earth: CastleWall | Prem = CastleWall()
    spec = make_spec("nu_atm", earth)

    def __init__(self) -> None:
        self._rates = EventRates(self.earth)
        self._detector = Detector(self._rates.energy, self._rates.cos_zenith)
        self._zenith_bins = self._detector.bin_zenith(ZENITH_EDGES)

    def log_density(self, x: FloatArray, params: FloatArray) -> FloatArray:
        """log P: x (n, 2) to (n,), P in 1/GeV."""
        penalty = self._penalize(x, params)
        if not np.isfinite(penalty).any():
            return penalty
        energy, zenith = _replace_lost(x, penalty)
        rates = self._rates.compute(params[:-1])
        kernels, _ = self._detector.smear_energy(energy, params[-1])
        density = np.zeros(len(x))
        for kernel, field in zip(kernels, self._detector.smear_zenith(zenith, rates[np.newaxis]), strict=True):
            density += kernel * field[:, 0]
        accepted, _ = self._detector.accept(params[-1])
        return np.asarray(penalty + np.log(density / (rates.sum(axis=1) @ accepted)))

    def log_density_gradient(self, x: FloatArray, params: FloatArray) -> tuple[FloatArray, FloatArray]:
        """log P, and its gradient with respect to params, (n, 10)."""
        penalty = self._penalize(x, params)
        if not np.isfinite(penalty).any():
            return _mark_lost(penalty, penalty, np.empty((len(x), params.size)))
        energy, zenith = _replace_lost(x, penalty)
        rates = self._rates.compute_gradient(params[:-1])
        kernels, slopes = self._detector.smear_energy(energy, params[-1])
        # What stands in the first column is the density, the others are its derivatives.
        density, by_scale = np.zeros((len(x), len(rates))), np.zeros(len(x))
        for kernel, slope, fields in zip(kernels, slopes, self._detector.smear_zenith(zenith, rates), strict=True):
            density += kernel[:, np.newaxis] * fields
            by_scale += kernel * slope * fields[:, 0]
        accepted, accepted_slopes = self._detector.accept(params[-1])
        norm = rates.sum(axis=2)
        density = np.column_stack([density, by_scale / (1 + params[-1])])
        norm = np.append(norm @ accepted, norm[0] @ accepted_slopes)
        gradient = density[:, 1:] / density[:, :1] - norm[1:] / norm[0]
        return _mark_lost(penalty, np.log(density[:, 0] / norm[0]), gradient)

    def log_density_gradient_x(self, x: FloatArray, params: FloatArray) -> tuple[FloatArray, FloatArray]:
        """log P, and its gradient with respect to x, (n, 2) in 1/GeV and 1."""
        penalty = self._penalize(x, params)
        if not np.isfinite(penalty).any():
            return _mark_lost(penalty, penalty, np.empty_like(x))
        energy, zenith = _replace_lost(x, penalty)
        rates = self._rates.compute(params[:-1])
        kernels, slopes = self._detector.smear_energy(energy, params[-1])
        smeared = self._detector.smear_zenith(zenith, np.stack([rates, rates * self._rates.cos_zenith]))
        density, by_energy, by_zenith = np.zeros((3, len(x)))
        for kernel, slope, width, fields in zip(kernels, slopes, self._detector.zenith_width, smeared, strict=True):
            density += kernel * fields[:, 0]
            by_energy -= kernel * (1 + slope) / energy * fields[:, 0]
            by_zenith += kernel * (fields[:, 1] - zenith * fields[:, 0]) / width**2
        accepted, _ = self._detector.accept(params[-1])
        gradient = np.column_stack([by_energy, by_zenith]) / density[:, np.newaxis]
        return _mark_lost(penalty, np.log(density / (rates.sum(axis=1) @ accepted)), gradient)

    def sample(self, n: int, params: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Draws from P, (n, 2)."""
        x = np.full((n, 2), np.nan)
        if not self._accepts(params):
            return x
        cumulative = self._rates.compute(params[:-1]).ravel().cumsum()
        log_mean, detector = self._detector.compute_log_mean(params[-1]), self._detector
        node = np.zeros(n, dtype=np.intp)
        todo = np.arange(n)
        while todo.size:
            node[todo] = np.searchsorted(cumulative, cumulative[-1] * rng.random(todo.size), side="right")
            i = node[todo] // detector.cos_zenith.size
            x[todo, 0] = np.exp(rng.normal(log_mean[i], detector.energy_width[i]))
            todo = todo[~_is_inside(x[todo, 0], ENERGY_WINDOW)]
        # K_c is normalized over the window: the node stays.
        i, j = np.divmod(node, detector.cos_zenith.size)
        todo = np.arange(n)
        while todo.size:
            x[todo, 1] = rng.normal(detector.cos_zenith[j[todo]], detector.zenith_width[i[todo]])
            todo = todo[~_is_inside(x[todo, 1], ZENITH_WINDOW)]
        return x

    def evaluate(self, params: FloatArray) -> FloatArray:
        """Expected rates in the bins of `OUTPUTS`: params (m, 10) to (m, 100), arbitrary unit."""
        rates = np.full((len(params), len(OUTPUTS)), np.nan)
        for row, point in zip(rates, params, strict=True):
            if self._accepts(point):
                smeared = (self._zenith_bins * self._rates.compute(point[:-1])).sum(axis=-1)
                row[:] = (self._detector.bin_energy(ENERGY_EDGES, point[-1]) @ smeared.T).ravel()
        return rates

    def _accepts(self, params: FloatArray) -> bool:
        """Whether the parameters are inside their bounds; not where one is nan."""
        return bool(((params >= self.spec.lower) & (params <= self.spec.upper)).all())

    def _penalize(self, x: FloatArray, params: FloatArray) -> FloatArray:
        """What is added to log P, (n,): 0, but -inf outside of window or bounds, and nan where there is a nan."""
        inside = _is_inside(x[:, 0], ENERGY_WINDOW) & _is_inside(x[:, 1], ZENITH_WINDOW) & self._accepts(params)
        invalid = np.isnan(x).any(axis=1) | np.isnan(params).any()
        return np.select([invalid, inside], [np.nan, 0.0], -np.inf)


class AtmosphericNeutrinoPrem(AtmosphericNeutrino):
    """The model "nu_atm_prem": the same with the polynomials of PREM, some fifty times slower."""

    earth = Prem()
    spec = make_spec("nu_atm_prem", earth)


def _is_inside(values: FloatArray, window: tuple[float, float]) -> npt.NDArray[np.bool_]:
    inside: npt.NDArray[np.bool_] = (window[0] <= values) & (values <= window[1])
    return inside


def _replace_lost(x: FloatArray, penalty: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Energies and cosines, (n,) each, with a harmless event for each that has a penalty."""
    lost = penalty != 0
    return np.where(lost, ENERGY_WINDOW[0], x[:, 0]), np.where(lost, ZENITH_WINDOW[0], x[:, 1])


def _mark_lost(penalty: FloatArray, value: FloatArray, gradient: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Value and gradient, with the penalty added to the one, and 0 or nan in the other where there is one."""
    gradient[np.isneginf(penalty)] = 0.0
    gradient[np.isnan(penalty)] = np.nan
    return np.where(penalty == 0, value, penalty), gradient
