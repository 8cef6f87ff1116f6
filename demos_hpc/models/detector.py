"""What a detector makes of a neutrino: a reconstructed energy and a reconstructed zenith angle.

The energy E_r is lognormal about the true one, and the events outside of a window are lost. The cosine c_r is
Gaussian about the true one, truncated to upgoing directions, so that none is lost there:

    K(E_r | E) = N(ln E_r; ln E + ln(1 + dE), sigma_E) / E_r,    sigma_E = sqrt(0.1^2 + 0.6^2 / E),
    K_c(c_r | c, E) = N(c_r; c, sigma_c) / (its integral over [-1, 0]),    sigma_c = 0.04 + 0.35 / sqrt(E).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ..messages import FloatArray

#: GeV, 1: where reconstructed events are kept.
ENERGY_WINDOW = (3.0, 60.0)
ZENITH_WINDOW = (-1.0, 0.0)

#: sigma_E^2 = a^2 + b^2 / E and sigma_c = a + b / sqrt(E), for E in GeV.
ENERGY_RESOLUTION = (0.1, 0.6)
ZENITH_RESOLUTION = (0.04, 0.35)

_ROOT_2PI = math.sqrt(2 * math.pi)
_erf = np.vectorize(math.erf, otypes=[np.float64])


class Detector:
    """The response to neutrinos of the energies E_i and the zenith cosines c_j.

    Parameters
    ----------
    energy, cos_zenith
        (I,) float64, GeV, and (J,) float64.

    Attributes
    ----------
    energy_width, zenith_width
        sigma_E and sigma_c, (I,) float64.
    cos_zenith
        The cosines c_j, (J,) float64.
    """

    def __init__(self, energy: FloatArray, cos_zenith: FloatArray) -> None:
        constant, statistical = ENERGY_RESOLUTION
        self.energy_width = np.sqrt(constant**2 + statistical**2 / energy)
        constant, statistical = ZENITH_RESOLUTION
        self.zenith_width = constant + statistical / np.sqrt(energy)
        self._log_energy = np.log(energy)
        self.cos_zenith = cos_zenith
        self._zenith_inside = np.diff(self._accumulate_zenith(np.array(ZENITH_WINDOW)), axis=0)[0]

    def compute_log_mean(self, scale: float) -> FloatArray:
        """ln E_i + ln(1 + dE), (I,), for the relative shift of the energy scale dE."""
        return self._log_energy + math.log1p(scale)

    def smear_energy(self, energy: FloatArray, scale: float) -> tuple[FloatArray, FloatArray]:
        """K(E_n | E_i) in 1/GeV, and d ln K / d ln E_i, (I, n) each, for reconstructed energies (n,) in GeV."""
        width = self.energy_width[:, np.newaxis]
        pull = (np.log(energy) - self.compute_log_mean(scale)[:, np.newaxis]) / width
        return np.exp(-(pull**2) / 2) / (_ROOT_2PI * width * energy), pull / width

    def smear_zenith(self, cos_zenith: FloatArray, fields: FloatArray) -> Iterator[FloatArray]:
        """sum_j K_c(c_n | c_j, E_i) F_ijf, for one E_i after another.

        Parameters
        ----------
        cos_zenith
            Reconstructed cosines c_n, (n,) float64.
        fields
            F, (f, I, J) float64.

        Yields
        ------
        (n, f) float64, in the unit of F.
        """
        fields = np.moveaxis(fields / (_ROOT_2PI * self.zenith_width[:, np.newaxis] * self._zenith_inside), 0, -1)
        squares = (cos_zenith[:, np.newaxis] - self.cos_zenith) ** 2
        kernel = np.empty_like(squares)
        for field, width in zip(np.ascontiguousarray(fields), self.zenith_width, strict=True):
            np.multiply(squares, -0.5 / width**2, out=kernel)
            yield np.exp(kernel, out=kernel) @ field

    def accept(self, scale: float) -> tuple[FloatArray, FloatArray]:
        """Probability that an event of energy E_i is in the energy window, and its derivative by dE, (I,) each."""
        pulls = self._pull_edges(np.array(ENERGY_WINDOW), scale)
        slopes = -np.exp(-(pulls**2) / 2) / (_ROOT_2PI * self.energy_width * (1 + scale))
        return np.diff(_normal_cdf(pulls), axis=0)[0], np.diff(slopes, axis=0)[0]

    def bin_energy(self, edges: FloatArray, scale: float) -> FloatArray:
        """Integrals of K over bins of the reconstructed energy, (bins, I), for edges (bins + 1,) in GeV."""
        return np.diff(_normal_cdf(self._pull_edges(edges, scale)), axis=0)

    def bin_zenith(self, edges: FloatArray) -> FloatArray:
        """Integrals of K_c over bins of the reconstructed cosine, (bins, I, J), for edges (bins + 1,)."""
        return np.asarray(np.diff(self._accumulate_zenith(edges), axis=0) / self._zenith_inside)

    def _pull_edges(self, edges: FloatArray, scale: float) -> FloatArray:
        return (np.log(edges)[:, np.newaxis] - self.compute_log_mean(scale)) / self.energy_width

    def _accumulate_zenith(self, edges: FloatArray) -> FloatArray:
        """Distribution function of the Gaussian before truncation, (edges, I, J)."""
        return _normal_cdf((edges[:, np.newaxis, np.newaxis] - self.cos_zenith) / self.zenith_width[:, np.newaxis])


def _normal_cdf(pull: FloatArray) -> FloatArray:
    return np.asarray((1 + _erf(pull / math.sqrt(2.0))) / 2)
