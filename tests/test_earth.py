"""Ways through the Earth, against geometry and against what is known of the Earth."""

import numpy as np
import pytest
from numpy.polynomial import Polynomial

from demos_hpc.models.earth import PREM_SHELLS, PRODUCTION_HEIGHT, CastleWall, Prem

RADIUS = 6371.0


def test_castle_wall_straight_up_has_the_layers_of_the_reference_table():
    layers = CastleWall().trace(np.array([-1.0]))
    # Layers of the reference values "castle-wall PREM cz=-1": km, and g/cm^3 times Y_e = 0.5.
    expected = [(15, 0), (670, 3.3), (2221, 5.0), (2260, 11.3), (2440, 13.0), (2260, 11.3), (2221, 5.0), (670, 3.3)]
    np.testing.assert_allclose(layers.length[:, 0], [length for length, _ in expected], rtol=1e-12)
    np.testing.assert_allclose(layers.electrons, [density / 2 for _, density in expected], rtol=1e-15)


@pytest.mark.parametrize("earth", [CastleWall(), Prem()], ids=["castle", "prem"])
def test_total_length_is_that_from_the_production_sphere_to_the_detector(earth):
    cos_zenith = np.linspace(-1, 0, 41)
    length = earth.trace(cos_zenith).length.reshape(-1, *cos_zenith.shape)
    outer = RADIUS + PRODUCTION_HEIGHT
    # Law of cosines in the triangle of the Earth's center, the detector and the place of production.
    expected = np.sqrt(outer**2 - RADIUS**2 * (1 - cos_zenith**2)) - RADIUS * cos_zenith
    np.testing.assert_allclose(length.sum(axis=0), expected, rtol=1e-12)
    assert (length >= 0).all()


@pytest.mark.parametrize("earth", [CastleWall(), Prem()], ids=["castle", "prem"])
def test_ways_read_the_same_from_both_ends(earth):
    layers = earth.trace(np.array([-0.97, -0.6, -0.1]))
    np.testing.assert_array_equal(layers.electrons[1:], layers.electrons[:0:-1])
    np.testing.assert_allclose(layers.length[1:], layers.length[:0:-1])
    np.testing.assert_array_equal(layers.tilt[1:], -layers.tilt[:0:-1])


def test_prem_layers_hold_the_electrons_on_the_way():
    cos_zenith = -0.9
    layers = Prem().trace(np.array([cos_zenith]))
    crossed = (layers.length[:, 0, 0] * layers.electrons[:, 0]).sum()
    half = RADIUS * abs(cos_zenith)
    place = (np.arange(400_000) + 0.5) / 400_000 * half
    radius = np.hypot(RADIUS * np.sqrt(1 - cos_zenith**2), place)
    shell = np.searchsorted([s.radius for s in PREM_SHELLS], radius)
    density = np.choose(shell, [s.electron_fraction * Polynomial(s.density)(radius / RADIUS) for s in PREM_SHELLS])
    assert crossed == pytest.approx(2 * half * density.mean(), rel=1e-6)


def test_prem_shells_have_the_mass_of_the_earth():
    mass, inner = 0.0, 0.0
    for shell in PREM_SHELLS:
        x = np.linspace(inner, shell.radius, 2001)
        integrand = 4 * np.pi * x**2 * Polynomial(shell.density)(x / RADIUS)
        mass += 1e12 * ((integrand[1:] + integrand[:-1]) / 2 * np.diff(x)).sum()  # g/cm^3 km^3 in kg
        inner = shell.radius
    # Dziewonski and Anderson 1981 constrain the mass of their model to 5.974e24 kg.
    assert mass == pytest.approx(5.974e24, rel=5e-4)
