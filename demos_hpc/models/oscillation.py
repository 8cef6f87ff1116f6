"""Three-flavor neutrino oscillations through layers of constant density, with their exact gradient.

In units of 1/km the Hamiltonian is H = U diag(0, dm21, dm31) U^+ / 2E + diag(V, 0, 0) with V = sqrt(2) G_F N_e,
and a layer of length L has the propagator S = exp(-i H L) (Barger, Whisnant, Pakvasa and Phillips, Phys. Rev. D 22
(1980) 2718). Conventions: U = R23 U13 R12 of the Particle Data Group, with U_e3 = s13 exp(-i delta); antineutrinos
have U* and -V; P[a -> b] = |S_ba|^2.

The potential commutes with R23 and with the phase, so H = W M W^+ where W = R23 diag(1, 1, exp(i delta)) and M is
real, symmetric, and free of theta23 and delta (Denton and Parke, arXiv:2405.02400). The layers are diagonalized as
real matrices, and W is applied once at each end.

Gradient of F = sum_a w_a |A_a|^2, where A_a = <final| S_n ... S_1 |a>. The row <final| S_n ... S_k+1 is carried
backwards, the column S_k-1 ... S_1 sum_a w_a A_a* |a> forwards, and dF sums 2 Re(row dS_k column) over the layers.
With eigenvectors V and eigenvalues l of M (Daleckii and Krein 1965; Higham, Functions of Matrices, 2008, chapter 3),
and sinc(x) = sin(x) / x, so that equal eigenvalues need no care,

    dS = -i L V [Phi o (V^T dM V)] V^T,   Phi_ij = exp(-i l_i L / 2) exp(-i l_j L / 2) sinc((l_i - l_j) L / 2).

Where the density changes within a layer, S is taken between exp(-i phi) and exp(i phi) on the electron's component,
phi being the first moment of V over the length: this is the Magnus expansion to fourth order (Blanes, Casas, Oteo
and Ros, Phys. Rep. 470 (2009) 151), because the commutator that it adds is what such a change of phases gives.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..messages import FloatArray
from .earth import Layers

ComplexArray = npt.NDArray[np.complex128]

FERMI_CONSTANT = 1.1663788e-23  # G_F / (hbar c)^3, eV^-2 (Particle Data Group 2022)
AVOGADRO = 6.02214076e23  # 1/mol, exact
HBAR_C = 1.973269804593025e-7  # eV m, exact up to rounding
#: 1 km, in 1/eV.
KM = 1e3 / HBAR_C
#: V of one mole of electrons per cm^3, eV.
POTENTIAL = math.sqrt(2.0) * FERMI_CONSTANT * AVOGADRO * (100 * HBAR_C) ** 3

ELECTRON, MUON, TAU = range(3)


class Mixing(NamedTuple):
    """The oscillation parameters: squares of the sines of the angles, the CP phase in radians, eV^2."""

    s12sq: float
    s13sq: float
    s23sq: float
    delta: float
    dm21: float
    dm31: float


class _Crossing(NamedTuple):
    """A layer that the row was carried back through; b stands for the broadcast dots of the arguments."""

    length: FloatArray  # (..., m), km
    eigenvalues: FloatArray  # (b, 3), 1/km
    vectors: FloatArray  # (b, 3, 3), in columns
    half: ComplexArray  # (b, 3, m), exp(-i l L / 2)
    tilt: ComplexArray  # (b, 3, 1), exp(-i phi), 1, 1
    row: ComplexArray  # (b, 3, m), in the eigenbasis, at the middle of the layer


def compute_probabilities(
    mixing: Mixing, energy: FloatArray, sign: FloatArray, layers: Layers, final: int
) -> FloatArray:
    """P[a -> final] for the three flavors a.

    Parameters
    ----------
    energy
        (...) float64, GeV. The dots of ``energy``, ``sign`` and each layer's ``electrons`` broadcast.
    sign
        (...) float64, 1 for neutrinos and -1 for antineutrinos.
    layers
        What each of m baselines crosses.
    final
        The flavor that is detected: ``ELECTRON``, ``MUON`` or ``TAU``.

    Returns
    -------
    (3, ..., m) float64.
    """
    row, _ = _carry_back(mixing, energy, sign, layers, final)
    return _probabilities(_flavor_basis(mixing, sign).conj() @ row)


def compute_gradient(
    mixing: Mixing, energy: FloatArray, sign: FloatArray, layers: Layers, final: int, weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """P[a -> final], and the gradient of sum_a weights_a P[a -> final].

    Parameters
    ----------
    energy, sign, layers, final
        As for `compute_probabilities`.
    weights
        (3, ..., m) float64, any unit.

    Returns
    -------
    (3, ..., m) and (6, ..., m) float64; derivatives in the order and the units of `Mixing`. At the ends of
    [0, 1] the derivative with respect to a squared sine is infinite in general; a large finite one is returned.
    """
    basis = _flavor_basis(mixing, sign)
    basis_slopes = _flavor_basis_slopes(mixing, sign)
    row, crossings = _carry_back(mixing, energy, sign, layers, final)
    amplitudes = basis.conj() @ row
    weighted = np.moveaxis(weights, 0, -2) * amplitudes.conj()
    column = np.swapaxes(basis, -1, -2).conj() @ weighted
    # dA_a = dW_final S W_a^+ + W_final S dW_a^+ + W_final dS W_a^+: the second term, the third, the first.
    start = np.einsum("p...ai,...am,...im->p...m", basis_slopes.conj(), weighted, row)
    mass_slopes = _mass_matrix_slopes(mixing)
    along = np.zeros(())
    for layer in reversed(crossings):
        transposed = np.swapaxes(layer.vectors, -1, -2)
        column = layer.half * _rotate(transposed, layer.tilt.conj() * column)
        slopes = transposed[..., np.newaxis, :, :] @ mass_slopes @ layer.vectors[..., np.newaxis, :, :]
        along = along + slopes.reshape(*slopes.shape[:-2], 9) @ _weigh_slopes(layer, column)
        column = layer.tilt * _rotate(layer.vectors, layer.half * column)
    end = np.einsum("p...i,...im->p...m", basis_slopes[..., final, :], column)
    s12sq, s13sq, dm21, dm31 = np.moveaxis(along * _per_km(energy)[..., np.newaxis, np.newaxis], -2, 0)
    s23sq, delta = 2 * (start + end).real
    return _probabilities(amplitudes), np.stack([s12sq, s13sq, s23sq, delta, dm21, dm31])


def _carry_back(
    mixing: Mixing, energy: FloatArray, sign: FloatArray, layers: Layers, final: int
) -> tuple[ComplexArray, list[_Crossing]]:
    """The row <final| S_n ... S_1 as (..., 3, m), in the basis of M; and the layers, the last one first."""
    vacuum = _mass_matrix(mixing) * _per_km(energy)[..., np.newaxis, np.newaxis]
    row = _flavor_basis(mixing, sign)[..., final, :, np.newaxis]
    crossings = []
    for length, electrons, tilt in zip(*(array[::-1] for array in layers), strict=True):
        hamiltonian = vacuum + _potential(sign * electrons) * np.diag([1.0, 0.0, 0.0])
        eigenvalues, vectors = np.linalg.eigh(hamiltonian)
        half = np.exp(-0.5j * eigenvalues[..., np.newaxis] * length[..., np.newaxis, :])
        phases = np.exp(-1j * _potential(sign * tilt) * np.array([[1.0], [0.0], [0.0]]))
        row = half * _rotate(np.swapaxes(vectors, -1, -2), phases * row)
        crossings.append(_Crossing(length, eigenvalues, vectors, half, phases, row))
        row = phases.conj() * _rotate(vectors, half * row)
    return row, crossings


def _weigh_slopes(layer: _Crossing, column: ComplexArray) -> FloatArray:
    """2 Re(-i L row_i Phi_ij column_j), which (V^T dM V)_ij is multiplied with: (..., 9, m) km.

    Both ``layer.row`` and ``column`` stand in the middle of the layer, which takes care of two factors of Phi.
    """
    length = layer.length[..., np.newaxis, np.newaxis, :]
    gaps = layer.eigenvalues[..., :, np.newaxis] - layer.eigenvalues[..., np.newaxis, :]
    sinc = np.sinc(gaps[..., np.newaxis] * (length / (2 * np.pi)))
    product = layer.row[..., :, np.newaxis, :] * column[..., np.newaxis, :, :]
    weights: FloatArray = 2 * length * sinc * product.imag
    return weights.reshape(*weights.shape[:-3], 9, weights.shape[-1])


def _rotate(real: FloatArray, states: ComplexArray) -> ComplexArray:
    """real (..., 3, 3) @ states (..., 3, m), without making ``real`` complex."""
    rotated: ComplexArray = (real @ np.ascontiguousarray(states).view(np.float64)).view(np.complex128)
    return rotated


def _probabilities(amplitudes: ComplexArray) -> FloatArray:
    """(..., 3, m) to (3, ..., m)."""
    return np.moveaxis(amplitudes.real**2 + amplitudes.imag**2, -2, 0)


def _potential(electrons: FloatArray) -> FloatArray:
    """V in 1/km as (..., 1, 1), of ``electrons`` (...) in mol/cm^3."""
    return np.asarray(POTENTIAL * KM * electrons)[..., np.newaxis, np.newaxis]


def _per_km(energy: FloatArray) -> FloatArray:
    """1 eV^2 / 2E in 1/km, for E in GeV."""
    return np.asarray(KM / (2e9 * energy))


def _sine_cosine(squared: float) -> tuple[float, float, float, float]:
    """sin, cos and their derivatives with respect to sin^2; the latter kept finite where they are not."""
    sine, cosine = math.sqrt(squared), math.sqrt(1 - squared)
    return sine, cosine, 0.5 / max(sine, 1e-15), -0.5 / max(cosine, 1e-15)


def _mass_matrix(mixing: Mixing) -> FloatArray:
    """R13 R12 diag(0, dm21, dm31) (R13 R12)^T, (3, 3) eV^2."""
    s12, c12, _, _ = _sine_cosine(mixing.s12sq)
    s13, c13, _, _ = _sine_cosine(mixing.s13sq)
    second, third = np.array([s12 * c13, c12, -s12 * s13]), np.array([s13, 0.0, c13])
    return mixing.dm21 * np.outer(second, second) + mixing.dm31 * np.outer(third, third)


def _mass_matrix_slopes(mixing: Mixing) -> FloatArray:
    """Derivatives of `_mass_matrix` with respect to s12sq, s13sq, dm21 and dm31, (4, 3, 3)."""
    s12, c12, ds12, dc12 = _sine_cosine(mixing.s12sq)
    s13, c13, ds13, dc13 = _sine_cosine(mixing.s13sq)
    second, third = np.array([s12 * c13, c12, -s12 * s13]), np.array([s13, 0.0, c13])
    second_12, second_13 = np.array([ds12 * c13, dc12, -ds12 * s13]), np.array([s12 * dc13, 0.0, -s12 * ds13])
    third_13 = np.array([ds13, 0.0, dc13])
    half_12 = mixing.dm21 * np.outer(second_12, second)
    half_13 = mixing.dm21 * np.outer(second_13, second) + mixing.dm31 * np.outer(third_13, third)
    return np.stack([half_12 + half_12.T, half_13 + half_13.T, np.outer(second, second), np.outer(third, third)])


def _flavor_basis(mixing: Mixing, sign: FloatArray) -> ComplexArray:
    """W = R23 diag(1, 1, exp(i delta)), (..., 3, 3); rows are flavors."""
    s23, c23, _, _ = _sine_cosine(mixing.s23sq)
    rotation = np.array([[1.0, 0.0, 0.0], [0.0, c23, s23], [0.0, -s23, c23]])
    return rotation * _phases(mixing.delta, sign)


def _flavor_basis_slopes(mixing: Mixing, sign: FloatArray) -> ComplexArray:
    """Derivatives of `_flavor_basis` with respect to s23sq and delta, (2, ..., 3, 3)."""
    _, _, ds23, dc23 = _sine_cosine(mixing.s23sq)
    rotation = np.array([[0.0, 0.0, 0.0], [0.0, dc23, ds23], [0.0, -ds23, dc23]])
    turned = 1j * np.asarray(sign)[..., np.newaxis, np.newaxis] * np.array([0.0, 0.0, 1.0])
    return np.stack([rotation * _phases(mixing.delta, sign), turned * _flavor_basis(mixing, sign)])


def _phases(delta: float, sign: FloatArray) -> ComplexArray:
    """diag(1, 1, exp(i delta)) as a row, (..., 1, 3)."""
    angle = delta * np.asarray(sign)[..., np.newaxis, np.newaxis] * np.array([0.0, 0.0, 1.0])
    phases: ComplexArray = np.exp(1j * angle)
    return phases
