"""The peer: nuSQuIDS, which takes upgoing muon neutrinos through the layers of the castle wall; and our kernel in C.

Its densities are constant in each layer, so that it need not integrate. Prints seconds of both, for the same tracks.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time

import numpy as np
import nuSQuIDS

ENERGIES, ZENITHS = np.geomspace(2.0, 100.0, 1000), np.linspace(-1.0, -0.01, 100)
#: s12sq, s13sq, s23sq, delta, dm21, dm31: NuFIT 6.0, as in models/neutrino.py.
POINT = np.array([0.308, 0.02215, 0.470, np.deg2rad(212.0), 7.49e-5, 2.513e-3])
RADII, DENSITIES = (1220.0, 3480.0, 5701.0, 6371.0), (13.0, 11.3, 5.0, 3.3)
HEIGHT = 15.0
MUON = 1
UNITS = nuSQuIDS.Const()


def find_layers(cosine: float) -> list[tuple[float, float]]:
    """Density in g/cm^3, 0 for the atmosphere, and length in km, of each layer on the way."""
    radius = RADII[-1]
    chords = [np.sqrt(max(r * r - radius**2 * (1 - cosine**2), 0.0)) for r in RADII]
    halves = np.diff([0.0, *chords])
    air = np.sqrt((radius * cosine) ** 2 + (2 * radius + HEIGHT) * HEIGHT) - radius * abs(cosine)
    outer = [(DENSITIES[k], halves[k]) for k in (3, 2, 1) if halves[k] > 0]
    inner = [(DENSITIES[0], 2 * halves[0])] if halves[0] > 0 else []
    return [(0.0, air), *outer, *inner, *reversed(outer)]


def ask_nusquids() -> np.ndarray:
    """P(muon -> any), (zeniths, energies, 3)."""
    found = np.empty((len(ZENITHS), len(ENERGIES), 3))
    state = nuSQuIDS.nuSQUIDS(ENERGIES * UNITS.GeV, 3, nuSQuIDS.NeutrinoType.neutrino, False)
    for pair, sine_squared in zip(((0, 1), (0, 2), (1, 2)), POINT[:3], strict=True):
        state.Set_MixingAngle(*pair, np.arcsin(np.sqrt(sine_squared)))
    state.Set_CPPhase(0, 2, POINT[3])
    state.Set_SquareMassDifference(1, POINT[4])
    state.Set_SquareMassDifference(2, POINT[5])
    state.Set_AllowConstantDensityOscillationOnlyEvolution(True)
    start = np.zeros((len(ENERGIES), 3))
    start[:, MUON] = 1.0
    for nth, cosine in enumerate(ZENITHS):
        for step, (density, length) in enumerate(find_layers(cosine)):
            body = nuSQuIDS.Vacuum() if density == 0 else nuSQuIDS.ConstantDensity(density, 0.5)
            kind = nuSQuIDS.Vacuum if density == 0 else nuSQuIDS.ConstantDensity
            state.Set_Body(body)
            state.Set_Track(kind.Track(length * UNITS.km))
            if step == 0:
                state.Set_initial_state(start, nuSQuIDS.Basis.flavor)
            state.EvolveState()
        for row in range(len(ENERGIES)):
            for flavor in range(3):
                found[nth, row, flavor] = state.EvalFlavorAtNode(flavor, row, 0)
    return found


def ask_ours(library: ctypes.CDLL) -> np.ndarray:
    """The same."""
    energies = np.ascontiguousarray(np.tile(ENERGIES, len(ZENITHS)))
    cosines = np.repeat(ZENITHS, len(ENERGIES))
    found = np.empty((3, len(energies), 3))
    for final in range(3):
        arrays = (ctypes.c_void_p(array.ctypes.data) for array in (energies, cosines, POINT))
        n, to = ctypes.c_size_t(len(energies)), ctypes.c_void_p(found[final].ctypes.data)
        library.neutrino_probabilities(n, *arrays, ctypes.c_double(1.0), ctypes.c_int(final), to)
    return found[:, :, MUON].T.reshape(len(ZENITHS), len(ENERGIES), 3)


def main() -> None:
    library = ctypes.CDLL(sys.argv[1])
    ask_ours(library)
    begin = time.perf_counter()
    ours = ask_ours(library)
    middle = time.perf_counter()
    theirs = ask_nusquids()
    end = time.perf_counter()
    difference = float(np.abs(ours - theirs).max())
    told = {"tracks": ours[..., 0].size, "ours": middle - begin, "theirs": end - middle, "difference": difference}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
