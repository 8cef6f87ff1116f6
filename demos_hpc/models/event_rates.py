"""Rates of muon neutrinos that interact in a detector, on a grid of true energies and zenith angles.

The rate at a node (i, j) is the node's weight times efficiency, flux, cross section and oscillation, summed over
neutrinos and antineutrinos: r_ij = w_i E_i w_j eff(E_i) sum phi f sigma [P(mu -> mu) + r_e P(e -> mu)]. Its unit is
arbitrary: a density does not depend on it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..messages import FloatArray
from .earth import Earth
from .oscillation import ELECTRON, MUON, Mixing, compute_gradient, compute_probabilities

#: Gauss-Legendre nodes, in ln E and in cos zenith, and the ranges that they cover (GeV; upgoing neutrinos).
N_ENERGIES, ENERGY_RANGE = 64, (2.0, 100.0)
N_ZENITHS, ZENITH_RANGE = 48, (-1.0, 0.0)

# Neutrinos, antineutrinos:
SIGN = np.array([1.0, -1.0])  # of the matter potential and of the CP phase
FLUX = np.array([1.0, 0.83])  # relative to neutrinos
CROSS_SECTION = np.array([0.677, 0.334])  # charged current, 1e-38 cm^2 / GeV / nucleon (Particle Data Group)

# Pions, kaons (Gaisser, Cosmic Rays and Particle Physics, 1990; quoted in Chirkin, hep-ph/0407078):
SPECTRAL_INDEX = 2.7
MESON_SHARE = np.array([1.0, 0.213])
CRITICAL_ENERGY = np.array([115.0 / 6.0, 850.0 / 1.44])  # GeV

#: p1 to p5 of the effective cosine, Chirkin, hep-ph/0407078.
COSINE = (0.102573, -0.068287, 0.958633, 0.0407253, 0.817285)

#: Efficiency 1 / (1 + (E / threshold)^(-1 / width)): GeV, 1.
THRESHOLD, THRESHOLD_WIDTH = 6.0, 0.3


def compute_effective_cosine(cos_zenith: FloatArray) -> FloatArray:
    """cos of the zenith angle where the neutrino was made, since the atmosphere is curved; (...) to (...)."""
    p1, p2, p3, p4, p5 = COSINE
    cosine = np.abs(cos_zenith)
    squared = cosine**2 + p1**2 + p2 * cosine**p3 + p4 * cosine**p5
    return np.asarray(np.sqrt(squared / (1 + p1**2 + p2 + p4)))


def compute_flux(energy: FloatArray, effective_cosine: FloatArray) -> FloatArray:
    """Muon neutrinos made in the atmosphere, arbitrary unit; ``energy`` (...) GeV broadcasts with the cosine."""
    decay = 1 / (1 + (energy * effective_cosine)[..., np.newaxis] / CRITICAL_ENERGY)
    return np.asarray(energy**-SPECTRAL_INDEX * (MESON_SHARE * decay).sum(axis=-1))


def compute_electron_share(energy: FloatArray, effective_cosine: FloatArray) -> FloatArray:
    """Electron neutrinos made per muon neutrino: a smooth stand-in for flux tables, not a measurement."""
    return np.asarray(0.45 * (1 + energy * effective_cosine / 5) ** -0.4)


class EventRates:
    """The rates r_ij as a function of mixing, flux and cross section parameters.

    Parameters
    ----------
    earth
        What the neutrinos cross.

    Attributes
    ----------
    energy, cos_zenith
        The nodes, (64,) float64 in GeV and (48,) float64.
    """

    def __init__(self, earth: Earth) -> None:
        log_energy, energy_weight = _gauss_legendre(N_ENERGIES, *np.log(ENERGY_RANGE))
        self.energy = np.exp(log_energy)
        self.cos_zenith, zenith_weight = _gauss_legendre(N_ZENITHS, *ZENITH_RANGE)
        energy, cosine = self.energy[:, np.newaxis], compute_effective_cosine(self.cos_zenith)
        efficiency = 1 / (1 + (energy / THRESHOLD) ** (-1 / THRESHOLD_WIDTH))
        # One power of the energy belongs to the cross section, the other to dE = E dlnE.
        common = energy_weight[:, np.newaxis] * zenith_weight * efficiency * energy**2 * compute_flux(energy, cosine)
        self._scale = (FLUX * CROSS_SECTION)[:, np.newaxis, np.newaxis] * common
        self._electron_share = compute_electron_share(energy, cosine)
        self._layers = earth.trace(self.cos_zenith)
        # A fit asks for the same point once for each of its blocks of events.
        self._remember = lru_cache(maxsize=4)(self._compute)

    def compute(self, params: FloatArray) -> FloatArray:
        """Rates, (64, 48) float64, arbitrary unit.

        Parameters
        ----------
        params
            (9,) float64: the six of `Mixing`, then what is added to the spectral index, and the factors on
            antineutrinos and on electron neutrinos.
        """
        return np.asarray(self._remember(params.tobytes(), False)[0])

    def compute_gradient(self, params: FloatArray) -> FloatArray:
        """Rates and, after them, their derivatives with respect to each of ``params``: (10, 64, 48) float64."""
        return self._remember(params.tobytes(), True)

    def _compute(self, key: bytes, gradient: bool) -> FloatArray:
        *mixing, index, antineutrino_factor, electron_factor = np.frombuffer(key).tolist()
        unscaled = self._scale * self.energy[:, np.newaxis] ** -index
        scale = unscaled * np.array([1.0, antineutrino_factor])[:, np.newaxis, np.newaxis]
        made = np.zeros((3, *self._electron_share.shape))
        made[ELECTRON], made[MUON] = electron_factor * self._electron_share, 1.0
        weights = made[:, np.newaxis] * scale
        probabilities, slopes = self._oscillate(Mixing(*mixing), weights if gradient else None)
        rates: FloatArray = (weights * probabilities).sum(axis=(0, 1))
        if not gradient:
            return _freeze(rates[np.newaxis])
        return _freeze(
            np.stack(
                [
                    rates,
                    *slopes.sum(axis=1),
                    -np.log(self.energy)[:, np.newaxis] * rates,
                    unscaled[1] * (made * probabilities[:, 1]).sum(axis=0),
                    self._electron_share * (scale * probabilities[ELECTRON]).sum(axis=0),
                ]
            )
        )

    def _oscillate(self, mixing: Mixing, weights: FloatArray | None) -> tuple[FloatArray, FloatArray]:
        """P[a -> mu] as (3, 2, 64, 48); with weights of that shape also derivatives of their sum, (6, 2, 64, 48)."""
        nodes = (2, N_ENERGIES, N_ZENITHS)
        # Axes of the baselines, see `Layers`: (48,) with shared densities, else (48, 1).
        baselines = self._layers.length.shape[1:]
        own = (1,) * (len(baselines) - 1)
        arguments = mixing, self.energy.reshape(-1, *own), SIGN.reshape(2, 1, *own), self._layers, MUON
        if weights is None:
            return compute_probabilities(*arguments).reshape(3, *nodes), np.empty((6, 0))
        probabilities, slopes = compute_gradient(*arguments, weights.reshape(3, 2, N_ENERGIES, *baselines))
        return probabilities.reshape(3, *nodes), slopes.reshape(6, *nodes)


def _gauss_legendre(n: int, lower: float, upper: float) -> tuple[FloatArray, FloatArray]:
    """Nodes and weights, (n,) each."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    half = (upper - lower) / 2
    return np.asarray(lower + half * (nodes + 1)), np.asarray(half * weights)


def _freeze(array: FloatArray) -> FloatArray:
    """The array, read-only, because it is remembered and handed out again."""
    array.flags.writeable = False
    return array
