"""Oscillation probabilities and their gradients, against reference values, identities and another code."""

import math

import numpy as np
import pytest

from demos_hpc.models.earth import PREM_SHELLS, CastleWall, Layers, Prem
from demos_hpc.models.oscillation import (
    ELECTRON,
    FERMI_CONSTANT,
    HBAR_C,
    KM,
    MUON,
    POTENTIAL,
    TAU,
    Mixing,
    compute_gradient,
    compute_probabilities,
)

NEUTRINO, ANTINEUTRINO = np.array(1.0), np.array(-1.0)
#: NuFIT 6.0, normal ordering, rounded: the point at which the reference values were computed.
MIXING = Mixing(0.308, 0.02215, 0.470, math.radians(212.0), 7.49e-5, 2.513e-3)
#: 1300 km of DUNE, 2.848 g/cm^3, Y_e = 0.5.
DUNE = (1300.0, 2.848 * 0.5)


def uniform(length, electrons):
    return Layers(np.array([[length]]), np.array([electrons]), np.zeros(1))


def probability(mixing, energy, sign, layers, initial, final):
    return compute_probabilities(mixing, np.array(energy), sign, layers, final)[initial, ..., 0]


def matrix(mixing, energy, sign, layers):
    """P[from, to], (3, 3)."""
    columns = [compute_probabilities(mixing, np.array(energy), sign, layers, final)[:, 0] for final in range(3)]
    return np.stack(columns, axis=1)


def gradient(mixing, energy, sign, layers, initial, final):
    weights = np.zeros((3, 1))
    weights[initial] = 1.0
    return compute_gradient(mixing, np.array(energy), sign, layers, final, weights)[1][:, 0]


def differentiate(function, point, steps):
    """Central differences of fourth order, (p, ...)."""
    slopes = []
    for k, step in enumerate(steps):
        moved = [Mixing(*(value + (i == k) * far * step for i, value in enumerate(point))) for far in (-2, -1, 1, 2)]
        slopes.append(np.tensordot([1, -8, 8, -1], [function(mixing) for mixing in moved], 1) / (12 * step))
    return np.array(slopes)


def draw_mixing(rng):
    return Mixing(*rng.uniform([0.2, 0.01, 0.3, 0, 6e-5, 2e-3], [0.4, 0.05, 0.7, 6.28, 9e-5, 3e-3]).tolist())


def test_constants_are_those_of_the_reference_values():
    assert pytest.approx(7.632466879122649e-14, rel=1e-15) == POTENTIAL
    assert pytest.approx(5067730716.156395, rel=1e-15) == KM


def test_constant_density_probabilities():
    # DUNE point; agrees with nuSQuIDS 1.13.3 to 9e-13 once that has the same G_F.
    expected = [
        [0.8704298792477465, 0.05346683118769856, 0.076103289564556],
        [0.07005036576926413, 0.009796815863839235, 0.920152818366898],
        [0.059519754982990405, 0.9367363529484636, 0.003743892068547339],
    ]
    computed = matrix(MIXING, 2.5, NEUTRINO, uniform(*DUNE))
    np.testing.assert_allclose(computed, expected, rtol=0, atol=1e-13)
    assert computed[MUON, ELECTRON] == pytest.approx(0.070050365769264, abs=1e-13)


def test_constant_density_antineutrinos():
    assert probability(MIXING, 2.5, ANTINEUTRINO, uniform(*DUNE), MUON, ELECTRON) == pytest.approx(0.01948452, abs=5e-9)


def test_constant_density_gradient():
    expected = [0.00962445856078, 2.78382749077, 0.126796053569, 0.0128042171574, 137.593134274, 18.550686998]
    computed = gradient(MIXING, 2.5, NEUTRINO, uniform(*DUNE), MUON, ELECTRON)
    np.testing.assert_allclose(computed, expected, rtol=1e-11)


CASTLE_WALL = [
    # E, cos zenith; (P_mumu, P_mue) by this formula, by nuSQuIDS 1.13.3, by NuFast-Earth (PREM_Prob3)
    (
        (3.0, -1.0),
        (0.4280576980307869, 0.3453804934758491),
        (0.42805724795985817, 0.3453806262507901),
        (0.4280563724, 0.3453806983),
    ),
    (
        (3.0, -0.8),
        (0.034569119349132385, 0.0020702391398336397),
        (0.034569138173747224, 0.0020702393385972698),
        (0.0345695026, 0.0020702408),
    ),
    (
        (6.0, -0.8),
        (0.33171929667570643, 0.47983930393965124),
        (0.3317194016063841, 0.47983926610586247),
        (0.3317193115, 0.4798392621),
    ),
]


@pytest.mark.parametrize(("where", "own", "nusquids", "nufast"), CASTLE_WALL)
def test_castle_wall_probabilities(where, own, nusquids, nufast):
    energy, cos_zenith = where
    layers = CastleWall().trace(np.array([cos_zenith]))
    computed = [probability(MIXING, energy, NEUTRINO, layers, MUON, final) for final in (MUON, ELECTRON)]
    np.testing.assert_allclose(computed, own, rtol=0, atol=1e-13)
    # The others have constants of their own.
    np.testing.assert_allclose(computed, nusquids, rtol=0, atol=1e-6)
    np.testing.assert_allclose(computed, nufast, rtol=0, atol=5e-6)


def test_castle_wall_gradient():
    expected = [0.342259774773, 22.2268852652, -0.639816236065, 0.019613270075, -1931.12846284, 1294.65666082]
    computed = gradient(MIXING, 3.0, NEUTRINO, CastleWall().trace(np.array([-1.0])), MUON, MUON)
    np.testing.assert_allclose(computed, expected, rtol=1e-11)


@pytest.mark.parametrize(
    ("energy", "cos_zenith", "expected"),
    [
        # P_mumu, P_mue, Pbar_mumu by 800 steps in each shell
        (5.0, -1.0, (0.1639202517558576, 0.44467827611389527, 0.004207425478017073)),
        (5.0, -0.9, (0.8289851053759416, 0.09007649698566897, 0.48404600157702526)),
        (10.0, -0.9, (0.8018530329988384, 0.12375881213659734, 0.8555821805647499)),
        (10.0, -0.5, (0.10794418801040458, 0.1318462090151101, 0.15296240872159467)),
    ],
)
def test_prem_probabilities(energy, cos_zenith, expected):
    layers = Prem().trace(np.array([cos_zenith]))
    channels = [(NEUTRINO, MUON, MUON), (NEUTRINO, MUON, ELECTRON), (ANTINEUTRINO, MUON, MUON)]
    computed = [probability(MIXING, energy, sign, layers, a, b)[0] for sign, a, b in channels]
    np.testing.assert_allclose(computed, expected, rtol=0, atol=1e-6)


def test_prem_layers_are_fine_enough():
    energy, cos_zenith = np.array([[2.0], [3.0], [8.0]]), np.linspace(-1, 0, 31)
    shells = tuple(shell._replace(pieces=4 * shell.pieces) for shell in PREM_SHELLS)
    coarse, fine = (
        compute_probabilities(MIXING, energy, NEUTRINO, earth.trace(cos_zenith), MUON)
        for earth in (Prem(), Prem(shells))
    )
    np.testing.assert_allclose(coarse, fine, rtol=0, atol=5e-6)


@pytest.mark.parametrize(("density", "expected"), [(2.45, 0.154469595866266), (0.0, 0.148849204124672)])
def test_reactor_survival(density, expected):
    computed = probability(MIXING, 3e-3, ANTINEUTRINO, uniform(52.5, density * 0.5), ELECTRON, ELECTRON)
    assert computed == pytest.approx(expected, abs=1e-12)


def test_nufast_default_point():
    # NuFast-LBL v2 (arXiv:2405.02400), exact cubic, with its own constants.
    expected = [
        [0.88310565101, 0.082200803163, 0.034693545827],
        [0.055281587023, 0.181812887057, 0.76290552592],
        [0.061612761967, 0.73598630978, 0.202400928253],
    ]
    matter = 1.52588e-4 / (2e9 * POTENTIAL)
    layers = uniform(1300.0 * HBAR_C / 1.97327e-7, 1.5 * matter * 1.97327e-7 / HBAR_C)
    mixing = Mixing(0.31, 0.02, 0.55, 0.7 * math.pi, 7.5e-5, 2.5e-3)
    np.testing.assert_allclose(matrix(mixing, 2.0, NEUTRINO, layers), expected, rtol=0, atol=2e-8)


def test_cp_asymmetry_in_vacuum():
    # P(nu_mu -> nu_e) - P(nubar_mu -> nubar_e) = -16 J sin sin sin, J the Jarlskog invariant.
    s12, s13, s23 = np.sqrt(MIXING[:3])
    c12, c13, c23 = np.sqrt(1 - np.array(MIXING[:3]))
    jarlskog = s12 * c12 * s13 * c13**2 * s23 * c23 * math.sin(MIXING.delta)
    energy, length = 0.6, 1300.0
    phases = np.array([MIXING.dm21, MIXING.dm31, MIXING.dm31 - MIXING.dm21]) * KM * length / (4e9 * energy)
    vacuum = uniform(length, 0.0)
    difference = np.subtract(
        *(probability(MIXING, energy, s, vacuum, MUON, ELECTRON) for s in (NEUTRINO, ANTINEUTRINO))
    )
    assert abs(difference) > 0.01
    assert difference == pytest.approx(-16 * jarlskog * np.sin(phases).prod(), abs=1e-14)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sign", [NEUTRINO, ANTINEUTRINO])
def test_probabilities_sum_to_one(seed, sign):
    rng = np.random.default_rng(seed)
    probabilities = matrix(draw_mixing(rng), 4.0, sign, CastleWall().trace(rng.uniform(-1, 0, 1)))
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, rtol=1e-13)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-13)


@pytest.mark.parametrize("earth", [CastleWall(), Prem(PREM_SHELLS[1:3])], ids=["shared densities", "own densities"])
@pytest.mark.parametrize("seed", range(3))
def test_gradient_is_that_of_finite_differences(earth, seed):
    rng = np.random.default_rng(seed)
    mixing, layers = draw_mixing(rng), earth.trace(np.array([-0.95, -0.7, -0.2]))
    own = (1,) * (layers.length.ndim - 2)
    energy, sign = np.array([3.0, 7.0, 25.0]).reshape(3, *own), np.array([1.0, -1.0]).reshape(2, 1, *own)
    weights = rng.uniform(0, 1, (3, 2, 3, *layers.length.shape[1:]))

    def weigh(point):
        return (weights * compute_probabilities(point, energy, sign, layers, MUON)).sum(axis=0)

    probabilities, slopes = compute_gradient(mixing, energy, sign, layers, MUON, weights)
    np.testing.assert_allclose((weights * probabilities).sum(axis=0), weigh(mixing), rtol=1e-14)
    numerical = differentiate(weigh, mixing, [1e-3, 2e-4, 1e-3, 1e-3, 2e-8, 2e-7])
    scale = np.abs(numerical).max(axis=tuple(range(1, numerical.ndim)), keepdims=True)
    np.testing.assert_allclose(slopes / scale, numerical / scale, rtol=0, atol=2e-7)


def test_both_forms_of_layers_agree():
    shared = CastleWall().trace(np.array([-0.9, -0.3]))
    electrons = np.stack([shared.electrons] * 2, axis=1)
    own = Layers(shared.length[..., np.newaxis], electrons, np.zeros_like(electrons))
    energy, weights = np.array([[2.0], [9.0]]), np.ones((3, 2, 2, 1))
    for final in (ELECTRON, MUON, TAU):
        by_shared = compute_gradient(MIXING, energy[:, 0], NEUTRINO, shared, final, weights[..., 0])
        by_own = compute_gradient(MIXING, energy, NEUTRINO, own, final, weights)
        for a, b in zip(by_shared, by_own, strict=True):
            np.testing.assert_allclose(a, b[..., 0], rtol=0, atol=1e-10 * max(1, np.abs(a).max()))


def test_equal_eigenvalues():
    # With dm21 = 0 two masses are equal, and in vacuum there is one wavelength.
    mixing, energy, layers = MIXING._replace(dm21=0.0), 3.0, uniform(9000.0, 0.0)
    share = (1 - mixing.s13sq) * mixing.s23sq
    phase = mixing.dm31 * KM * 9000.0 / (4e9 * energy)
    survival = 1 - 4 * share * (1 - share) * math.sin(phase) ** 2
    assert probability(mixing, energy, NEUTRINO, layers, MUON, MUON) == pytest.approx(survival, abs=1e-12)
    computed = gradient(mixing, energy, NEUTRINO, layers, MUON, MUON)
    by_share = -4 * (1 - 2 * share) * math.sin(phase) ** 2
    by_dm31 = -4 * share * (1 - share) * math.sin(2 * phase) * phase / mixing.dm31
    expected = [0.0, -mixing.s23sq * by_share, (1 - mixing.s13sq) * by_share, 0.0, by_dm31]
    np.testing.assert_allclose(computed[[0, 1, 2, 3, 5]], expected, rtol=1e-10, atol=1e-10)
    numerical = differentiate(
        lambda m: probability(m, energy, NEUTRINO, layers, MUON, MUON), mixing, [1e-3] * 4 + [1e-8] * 2
    )
    np.testing.assert_allclose(computed, numerical, rtol=1e-6, atol=1e-6)


def test_no_masses_no_oscillations():
    mixing, layers = MIXING._replace(dm21=0.0, dm31=0.0), CastleWall().trace(np.array([-1.0]))
    np.testing.assert_allclose(matrix(mixing, 3.0, NEUTRINO, layers), np.eye(3), rtol=0, atol=1e-14)
    np.testing.assert_allclose(gradient(mixing, 3.0, NEUTRINO, layers, MUON, MUON), 0, rtol=0, atol=1e-9)


@pytest.mark.parametrize("angle", ["s12sq", "s13sq", "s23sq"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_ends_of_the_angles(angle, value):
    mixing, layers = MIXING._replace(**{angle: value}), CastleWall().trace(np.array([-0.8]))
    inside = MIXING._replace(**{angle: abs(value - 1e-14)})
    at_end, near = (matrix(point, 3.0, NEUTRINO, layers) for point in (mixing, inside))
    np.testing.assert_allclose(at_end, near, rtol=0, atol=1e-6)
    assert np.isfinite(gradient(mixing, 3.0, NEUTRINO, layers, ELECTRON, MUON)).all()


def solve_with_nusquids(nsq, mixing, energy, sign, layers):
    """P[mu -> b], (3,), along the first of the ways, by nuSQuIDS's differential equation."""
    units = nsq.Const()
    solver = nsq.nuSQUIDS(3, nsq.NeutrinoType.neutrino if sign > 0 else nsq.NeutrinoType.antineutrino)
    solver.Set_E(energy * units.GeV)
    for (i, j), squared in zip([(0, 1), (0, 2), (1, 2)], mixing[:3], strict=True):
        solver.Set_MixingAngle(i, j, math.asin(math.sqrt(squared)))
    solver.Set_CPPhase(0, 2, mixing.delta)
    solver.Set_SquareMassDifference(1, mixing.dm21)
    solver.Set_SquareMassDifference(2, mixing.dm31)
    solver.Set_rel_error(1e-13)
    solver.Set_abs_error(1e-13)
    started = False
    for length, electrons in zip(layers.length[:, 0], layers.electrons, strict=True):
        if length > 0:
            solver.Set_Body(nsq.ConstantDensity(2 * electrons, 0.5))
            solver.Set_Track(nsq.ConstantDensity.Track(length * units.km))
            if not started:
                solver.Set_initial_state(np.eye(3)[MUON], nsq.Basis.flavor)
                started = True
            solver.EvolveState()
    return np.array([solver.EvalFlavor(flavor) for flavor in range(3)])


@pytest.mark.parametrize("sign", [NEUTRINO, ANTINEUTRINO])
@pytest.mark.parametrize("cos_zenith", [None, -1.0, -0.85, -0.6, -0.1])
def test_nusquids_agrees(sign, cos_zenith):
    nsq = pytest.importorskip("nuSQuIDS")
    mixing = draw_mixing(np.random.default_rng(7))
    layers = uniform(*DUNE) if cos_zenith is None else CastleWall().trace(np.array([cos_zenith]))
    other = solve_with_nusquids(nsq, mixing, 3.3, sign, layers)
    computed = [probability(mixing, 3.3, sign, layers, MUON, final) for final in range(3)]
    np.testing.assert_allclose(computed, other, rtol=0, atol=1e-8 if cos_zenith is None else 1e-6)
    # Its Fermi constant is that of CODATA; with it, the two agree to what its integrator is asked for.
    same = layers._replace(electrons=layers.electrons * nsq.Const().GF / FERMI_CONSTANT)
    computed = [probability(mixing, 3.3, sign, same, MUON, final) for final in range(3)]
    np.testing.assert_allclose(computed, other, rtol=0, atol=1e-10)
