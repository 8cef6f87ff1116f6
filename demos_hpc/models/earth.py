"""Matter on a neutrino's way through the atmosphere and the Earth to a detector at the surface.

The Earth is a ball of concentric shells. A way with zenith angle z has the impact parameter b = R |sin z| and
crosses the sphere of radius r at the distances sqrt(r^2 - b^2) before and behind the middle of its chord, so what
it meets inside the Earth reads the same from both ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.polynomial.polynomial import polyval

from ..messages import FloatArray

#: How high above the ground the neutrinos are made, km; from there to the ground is vacuum.
PRODUCTION_HEIGHT = 15.0


class Layers(NamedTuple):
    """What m neutrinos cross, from the source to the detector, as l layers.

    The dots are () where all baselines have the same densities, which lets them share the eigenvectors of their
    Hamiltonians. Where each baseline has densities of its own, the dots are (m,), and the last axis of ``length``
    is 1.
    """

    #: (l, ..., m) float64, km; 0 where a baseline misses the layer.
    length: FloatArray
    #: (l, ...) float64, mol/cm^3: mean density of electrons (g/cm^3 times electrons per nucleon, Y_e).
    electrons: FloatArray
    #: (l, ...) float64, mol/cm^3 km: first moment of the density about the middle of the layer, over its length.
    tilt: FloatArray


class Earth(Protocol):
    """An Earth that neutrinos can be traced through."""

    def trace(self, cos_zenith: FloatArray) -> Layers:
        """The layers on the ways from ``cos_zenith`` (m,): 1 is straight above the detector, -1 straight below."""


@dataclass(frozen=True)
class CastleWall:
    """Shells of constant density; by default the four of Prob3++, NuFast-Earth's ``PREM_Prob3``.

    Parameters
    ----------
    radii
        Outer radii, km, the innermost first; the last one is the Earth's.
    densities
        g/cm^3.
    electron_fraction
        Electrons per nucleon.
    """

    radii: tuple[float, ...] = (1220.0, 3480.0, 5701.0, 6371.0)
    densities: tuple[float, ...] = (13.0, 11.3, 5.0, 3.3)
    electron_fraction: float = 0.5

    def trace(self, cos_zenith: FloatArray) -> Layers:
        """With shared densities: ``length`` (l, m), ``electrons`` (l,); l is twice the number of shells."""
        half = np.diff(_half_chords(self.radii, cos_zenith), axis=0, prepend=0.0)
        atmosphere = _atmosphere(self.radii[-1], cos_zenith)
        length = np.concatenate([atmosphere[np.newaxis], half[:0:-1], 2 * half[:1], half[1:]])
        electrons = self.electron_fraction * np.array(self.densities)
        electrons = np.concatenate([[0.0], electrons[:0:-1], electrons])
        return Layers(length, electrons, np.zeros_like(electrons))


class Shell(NamedTuple):
    """A shell of `Prem`."""

    #: Outer radius, km.
    radius: float
    #: Electrons per nucleon.
    electron_fraction: float
    #: Coefficients of the density, g/cm^3, in ascending powers of r / R.
    density: tuple[float, ...]
    #: How many layers are made of half a way through the shell.
    pieces: int = 1


#: Electrons per nucleon, the values of IceCube's PISA.
CORE, MANTLE = 0.4656, 0.4957

#: Dziewonski and Anderson, Phys. Earth Planet. Inter. 25 (1981) 297, table I.
PREM_SHELLS = (
    Shell(1221.5, CORE, (13.0885, 0.0, -8.8381), 4),
    Shell(3480.0, CORE, (12.5815, -1.2638, -3.6426, -5.5281), 10),
    Shell(5701.0, MANTLE, (7.9565, -6.4761, 5.5283, -3.0807), 10),
    Shell(5771.0, MANTLE, (5.3197, -1.4836), 2),
    Shell(5971.0, MANTLE, (11.2494, -8.0298), 4),
    Shell(6151.0, MANTLE, (7.1089, -3.8045), 3),
    Shell(6346.6, MANTLE, (2.6910, 0.6924), 3),
    Shell(6356.0, MANTLE, (2.900,)),
    Shell(6368.0, MANTLE, (2.600,)),
    Shell(6371.0, MANTLE, (1.020,)),
)


@dataclass(frozen=True)
class Prem:
    """The Preliminary Reference Earth Model, whose densities are polynomials of the radius.

    Half a way through a shell becomes a few layers of equal length, each with the mean and the first moment of
    its density by two Gauss-Legendre points. These make a Magnus integrator of fourth order (Blanes, Casas, Oteo
    and Ros, Phys. Rep. 470 (2009) 151); with the default layers, probabilities from 2 GeV on are good to 5e-6.
    """

    shells: tuple[Shell, ...] = PREM_SHELLS

    def trace(self, cos_zenith: FloatArray) -> Layers:
        """With densities for each baseline: ``length`` (l, m, 1), ``electrons`` and ``tilt`` (l, m)."""
        radius = self.shells[-1].radius
        outer = _half_chords([shell.radius for shell in self.shells], cos_zenith)
        inner = np.concatenate([np.zeros((1, cos_zenith.size)), outer[:-1]])
        impact = radius * np.sqrt(1 - cos_zenith**2)
        half = []
        for shell, start, stop in zip(self.shells, inner, outer, strict=True):
            step = (stop - start) / shell.pieces
            for piece in range(shell.pieces):
                middle, offset = start + (piece + 0.5) * step, step / np.sqrt(12.0)
                before, after = (
                    shell.electron_fraction * polyval(np.hypot(impact, place) / radius, shell.density)
                    for place in (middle - offset, middle + offset)
                )
                half.append((step, (before + after) / 2, (after - before) / 2 * offset))
        vacuum = (_atmosphere(radius, cos_zenith), np.zeros_like(impact), np.zeros_like(impact))
        inwards = [(length, electrons, -tilt) for length, electrons, tilt in reversed(half)]
        length, electrons, tilt = np.array([vacuum, *inwards, *half]).swapaxes(0, 1)
        return Layers(length[..., np.newaxis], electrons, tilt)


def _half_chords(radii: Sequence[float], cos_zenith: FloatArray) -> FloatArray:
    """From the middle of the chord to each sphere, (len(radii), m) km; 0 where the way passes outside of it."""
    impact_squared = radii[-1] ** 2 * (1 - cos_zenith**2)
    return np.sqrt(np.maximum(np.square(radii)[:, np.newaxis] - impact_squared, 0.0))


def _atmosphere(radius: float, cos_zenith: FloatArray) -> FloatArray:
    """What lies above the ground of a way that comes from below, (m,) km."""
    half = radius * np.abs(cos_zenith)
    return np.sqrt(half**2 + (2 * radius + PRODUCTION_HEIGHT) * PRODUCTION_HEIGHT) - half
