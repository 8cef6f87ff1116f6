"""nu_atm_c, the plug-in in C, against nu_atm, its twin in NumPy, and against reference values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cffi
import numpy as np
import pytest
from compiling import EXAMPLES, Mold, Workshop
from launching import Launched, analyze, serve, serve_spec

import demos_hpc
from demos_hpc.config import Config
from demos_hpc.messages import FloatArray
from demos_hpc.model import LoadedModel, load
from demos_hpc.models.earth import CastleWall
from demos_hpc.models.neutrino import AtmosphericNeutrino
from demos_hpc.models.oscillation import MUON, Mixing, compute_gradient, compute_probabilities
from demos_hpc.mpiexec import Program
from demos_hpc.testing import check_model

NEUTRINO = EXAMPLES / "neutrino"
PROGRAMS = "server.c", "test_neutrino.c"
SOURCES = [path for path in sorted(NEUTRINO.glob("*.c")) if path.name not in PROGRAMS]
#: As csrc/examples/neutrino/meson.build and csrc/meson.build have them.
FLAGS = ("-O3", "-fno-math-errno", "-ffp-contract=off", "-fvisibility=hidden", "-pthread")
TWIN = AtmosphericNeutrino()
LOWER, UPPER, DEFAULTS = TWIN.spec.lower, TWIN.spec.upper, TWIN.spec.defaults
INVERTED = np.where(np.arange(10) == 5, -2.4e-3, DEFAULTS)
#: Events all over the window, its corners among them.
EVENTS = np.random.default_rng(4).uniform([3.0, -1.0], [60.0, 0.0], (300, 2))
EVENTS[:4] = [3.0, -1.0], [3.0, 0.0], [60.0, -1.0], [60.0, 0.0]


@pytest.fixture
def library(workshop: Workshop) -> Path:
    first, *others = SOURCES
    return workshop.make(first, *map(str, others), *FLAGS)


@pytest.fixture
def model(library: Path) -> LoadedModel:
    return load(str(library), Config(threads=1))


def draw_points(kind: str) -> FloatArray:
    """Points (n, 10) near the defaults, anywhere in the bounds, in their corners, or on some of their edges."""
    rng = np.random.default_rng(["near", "anywhere", "corners", "edges"].index(kind))
    anywhere = rng.uniform(LOWER, UPPER, (12, 10))
    corners = np.where(rng.random((12, 10)) < 0.5, LOWER, UPPER)
    near = DEFAULTS + 0.02 * (UPPER - LOWER) * rng.normal(size=(12, 10))
    edges = np.where(rng.random((12, 10)) < 0.3, corners, anywhere)
    return {"near": np.clip(near, LOWER, UPPER), "anywhere": anywhere, "corners": corners, "edges": edges}[kind]


def make_units(params: FloatArray) -> FloatArray:
    """What derivatives (10,) are multiplied with, so that 1 is a large one.

    For squared sines that makes them derivatives by the angle: by the squares they are infinite at 0 and 1, where
    both models return what rounding has left times 5e14.
    """
    units = np.array([0.0, 0.0, 0.0, 1.0, 1e-3, 1e-2, 1.0, 1.0, 1.0, 1.0])
    sine, cosine = np.sqrt(params[:3]), np.sqrt(1 - params[:3])
    units[:3] = 2 * np.maximum(sine, 1e-15) * np.maximum(cosine, 1e-15)
    return units


def assert_twins(model: Any, x: FloatArray, params: FloatArray) -> None:
    value, gradient = TWIN.log_density_gradient(x, params)
    got, slopes = model.log_density_gradient(x, params)
    np.testing.assert_array_equal(got, model.log_density(x, params))
    np.testing.assert_allclose(got, value, rtol=1e-12, atol=1e-12)
    scale = np.maximum(np.abs(gradient * make_units(params)).max(axis=0), 1.0)
    np.testing.assert_allclose((slopes - gradient) * make_units(params) / scale, 0, atol=1e-12)


# ---- the same density -----------------------------------------------------------------------------------------------


def test_it_has_the_parameters_and_observables_of_its_twin(model: LoadedModel) -> None:
    assert model.spec.name == "nu_atm_c"
    assert model.spec.version == "1.0.0"
    assert model.spec.parameters == TWIN.spec.parameters
    assert model.spec.observables == TWIN.spec.observables


def test_reference_values(model: LoadedModel) -> None:
    expected = [-0.00491098179, -0.0863839737, 0.0523126362, -0.0013256805, 159.873248]
    expected += [-198.354286, 0.228043344, 0.00143829745, -0.000782059299, -0.396877114]
    value, gradient = model.log_density_gradient(np.array([[10.0, -0.9]]), DEFAULTS)
    np.testing.assert_allclose(value, [-2.915731669158082], rtol=0, atol=1e-12)
    np.testing.assert_allclose(gradient, [expected], rtol=1e-8)


@pytest.mark.parametrize("params", [DEFAULTS, INVERTED], ids=["normal", "inverted"])
def test_it_is_its_twin_in_both_orderings(params: FloatArray, model: LoadedModel) -> None:
    assert_twins(model, EVENTS, params)
    value, gradient = TWIN.log_density_gradient(EVENTS, params)
    got, slopes = model.log_density_gradient(EVENTS, params)
    np.testing.assert_allclose(got, value, rtol=1e-12)
    np.testing.assert_allclose(slopes, gradient, rtol=0, atol=1e-12 * np.abs(gradient).max())


@pytest.mark.parametrize("kind", ["near", "anywhere", "corners", "edges"])
def test_it_is_its_twin_all_over_the_bounds(kind: str, model: LoadedModel) -> None:
    for params in draw_points(kind):
        assert_twins(model, EVENTS, params)


def test_equal_masses(model: LoadedModel) -> None:
    for masses in ([0.0, 0.0], [5e-4, 5e-4], [1e-12, 2e-12], [0.0, 2.5e-3]):
        params = DEFAULTS.copy()
        params[4:6] = masses
        assert_twins(model, EVENTS, params)


def test_the_borders_of_panels_are_no_borders_of_the_density(model: LoadedModel) -> None:
    energy = np.exp(np.log(3) + np.log(20) / 8 * np.arange(1, 8))[:, np.newaxis] * (1 + np.array([-1e-14, 0, 1e-14]))
    zenith = np.array([-0.75, -0.5, -0.25])[:, np.newaxis] + np.array([-1e-15, 0, 1e-15])
    x = np.stack(np.meshgrid(energy.ravel(), zenith.ravel()), axis=-1).reshape(-1, 2)
    assert_twins(model, x, DEFAULTS)


# ---- its support ----------------------------------------------------------------------------------------------------


def test_outside_of_window_and_bounds_and_nan(model: LoadedModel) -> None:
    x = [[2.999, -0.5], [60.001, -0.5], [10.0, 0.001], [10.0, -1.001], [-1.0, -0.5], [0.0, -0.5], [np.inf, -0.5]]
    x += [[np.nan, -0.5], [10.0, np.nan], [np.nan, 7.0], [10.0, -0.9]]
    points = [DEFAULTS]
    for k in range(10):
        lost = LOWER[k] - 1e-9, UPPER[k] + 1e-9, np.nan
        points += [np.where(np.arange(10) == k, value, DEFAULTS) for value in lost]
    for params in points:
        value, gradient = TWIN.log_density_gradient(np.array(x), params)
        got, slopes = model.model.log_density_gradient(np.array(x), params)
        np.testing.assert_allclose(got, value, rtol=1e-12)
        np.testing.assert_allclose(slopes, gradient, rtol=1e-8)
        np.testing.assert_array_equal(got, model.model.log_density(np.array(x), params))


def test_no_rows(model: LoadedModel) -> None:
    value, gradient = model.log_density_gradient(np.empty((0, 2)), DEFAULTS)
    assert value.shape == (0,)
    assert gradient.shape == (0, 10)


def test_it_passes_all_checks(model: LoadedModel) -> None:
    """Draws against the density among them."""
    assert check_model(model).passed


def test_draws_follow_its_twin(model: LoadedModel) -> None:
    """The mean score is zero at the truth: 4 sigma in each parameter."""
    params = draw_points("near")[0]
    _, score = TWIN.log_density_gradient(model.sample(0, 20_000, params, seed=3), params)
    assert (np.abs(score.mean(axis=0)) < 4 * score.std(axis=0) / np.sqrt(len(score))).all()


def test_a_draw_is_that_of_its_twin(model: LoadedModel) -> None:
    """The first one of a block, for which both take their random numbers in the same order."""
    twin = LoadedModel(TWIN)
    for params in (DEFAULTS, INVERTED):
        got = [model.sample(0, 1, params, seed=seed)[0] for seed in range(200)]
        wanted = [twin.sample(0, 1, params, seed=seed)[0] for seed in range(200)]
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)


# ---- served ---------------------------------------------------------------------------------------------------------

#: One draw each.
SEEDS = range(12)
ANALYSIS = """
import sys
import numpy as np
import demos_hpc

inputs = np.load(sys.argv[1])
x, points = inputs["x"], inputs["points"]
with demos_hpc.connect() as model:
    assert model.spec.name == "nu_atm_c", model.spec
    gradients = [model.log_density_gradient(x, point) for point in points]
    likelihoods = model.log_likelihood_gradient(x, points)
    np.savez(
        sys.argv[2],
        log_density=[model.log_density(x, point) for point in points],
        value=[value for value, _ in gradients],
        gradient=[gradient for _, gradient in gradients],
        log_likelihood=model.log_likelihood(x, points),
        log_likelihood_value=likelihoods[0],
        log_likelihood_gradient=likelihoods[1],
        sample=model.sample(3000, points[0], seed=3),
        draws=[model.sample(1, points[0], seed=seed)[0] for seed in inputs["seeds"]],
    )
"""


def make_ranks(language: str, library: Path, workshop: Workshop, mold: Mold, directory: Path) -> list[Program]:
    """The ranks of a launch that serve: Python that has loaded the library, or programs that are linked with it."""
    if language == "python":
        return [serve(str(library), ranks=3)]
    if language == "fortran":
        program = mold.make("neutrino", NEUTRINO / "server.f90", library, mpi=True)
    else:
        source = NEUTRINO / {"c": "server.c", "c++": "server.cpp"}[language]
        program = workshop.link(source, library, compiler={"c": "cc", "c++": "c++"}[language])
    description = directory / "nu.json"
    description.write_text('{"name": "nu_atm_c"}', encoding="ascii")
    return [serve_spec(description), Program(2, [str(program)])]


def analyze_here(x: FloatArray, points: FloatArray, model: Any) -> dict[str, Any]:
    """What ANALYSIS asks for, of a model in this process."""
    gradients = [model.log_density_gradient(x, point) for point in points]
    likelihood, slopes = model.log_likelihood_gradient(x, points)
    return {
        "log_density": [model.log_density(x, point) for point in points],
        "value": [value for value, _ in gradients],
        "gradient": [gradient for _, gradient in gradients],
        "log_likelihood": model.log_likelihood(x, points),
        "log_likelihood_value": likelihood,
        "log_likelihood_gradient": slopes,
        "sample": model.sample(3000, points[0], seed=3),
        "draws": [model.sample(1, points[0], seed=seed)[0] for seed in SEEDS],
    }


@pytest.mark.parametrize("language", ["python", "c", "c++", "fortran"])
def test_it_is_served_by_workers_in_every_language(
    language: str,
    library: Path,
    workshop: Workshop,
    mold: Mold,
    launch: Callable[..., Launched],
    write_script: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """The bits are those of the plug-in in this process, and the numbers those of its twin."""
    x, points = np.tile(EVENTS, (10, 1)), np.stack([DEFAULTS, INVERTED, draw_points("near")[0]])
    np.savez(tmp_path / "inputs.npz", x=x, points=points, seeds=SEEDS)
    files = str(tmp_path / "inputs.npz"), str(tmp_path / "answers.npz")
    ranks = make_ranks(language, library, workshop, mold, tmp_path)
    done = launch(*ranks, analyze(write_script(ANALYSIS), *files))
    assert done.code == 0, done.text
    got = np.load(files[1])
    with demos_hpc.local(str(library)) as model:
        for name, wanted in analyze_here(x, points, model).items():
            np.testing.assert_array_equal(got[name], wanted, err_msg=name)
    for nth, params in enumerate(points):
        value, gradient = TWIN.log_density_gradient(EVENTS, params)
        np.testing.assert_allclose(got["log_density"][nth, : len(EVENTS)], value, rtol=1e-12)
        bound = 1e-12 * np.abs(gradient).max()
        np.testing.assert_allclose(got["gradient"][nth, : len(EVENTS)], gradient, rtol=0, atol=bound)
        np.testing.assert_allclose(got["log_likelihood"][nth], 10 * value.sum(), rtol=1e-12)
        total = 10 * gradient.sum(axis=0)
        np.testing.assert_allclose(got["log_likelihood_gradient"][nth], total, rtol=0, atol=10 * len(EVENTS) * bound)
    twin = LoadedModel(TWIN)
    draws = [twin.sample(0, 1, DEFAULTS, seed=seed)[0] for seed in SEEDS]
    np.testing.assert_allclose(got["draws"], draws, rtol=1e-12, atol=1e-12)


# ---- how it is computed ---------------------------------------------------------------------------------------------


def test_threads_and_the_order_of_points_change_no_bits(library: Path) -> None:
    points = np.concatenate([draw_points("anywhere"), draw_points("near")])
    one, four = (load(str(library), Config(threads=threads)) for threads in (1, 4))
    x = np.tile(EVENTS, (10, 1))
    for params in points:
        one.log_density(x[:1], params)  # without derivatives first, here
        for got, expected in zip(
            one.log_density_gradient(x, params), four.log_density_gradient(x, params), strict=True
        ):
            np.testing.assert_array_equal(got, expected)
    again = [four.log_density(x, params) for params in points[::-1]]
    np.testing.assert_array_equal(again, [one.log_density(x, params) for params in points[::-1]])


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_compilers_and_vectors_change_no_bits(compiler: str, workshop: Workshop, model: LoadedModel) -> None:
    """Nor has any compiler a warning."""
    first, *others = SOURCES
    for flags in ([], ["-DNEUTRINO_ONE_VERSION"]):
        warned = "-Wconversion", "-Wshadow", "-Wmissing-prototypes"
        made = workshop.make(first, *map(str, others), *FLAGS, *warned, *flags, compiler=compiler)
        other = load(str(made), Config(threads=1))
        for params in (DEFAULTS, INVERTED):
            pairs = zip(
                other.log_density_gradient(EVENTS, params), model.log_density_gradient(EVENTS, params), strict=True
            )
            for got, expected in pairs:
                np.testing.assert_array_equal(got, expected)


# ---- probabilities --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["neutrinos", "antineutrinos"])
@pytest.mark.parametrize("dm31", [2.513e-3, -2.4e-3], ids=["normal", "inverted"])
def test_probabilities_of_a_batch(sign: float, dm31: float, library: Path) -> None:
    ffi = cffi.FFI()
    ffi.cdef(
        "void neutrino_probabilities(size_t, const double *, const double *, const double *, double, int, double *);"
        "void neutrino_gradients(size_t, const double *, const double *, const double *, double, int, int, double *,"
        " double *);"
    )
    c = ffi.dlopen(str(library))
    mixing = Mixing(0.308, 0.02215, 0.47, 3.7, 7.49e-5, dm31)
    energy, zenith = np.geomspace(0.5, 100, 23), np.linspace(-1, 0, 17)
    grid = [np.ascontiguousarray(part.ravel()) for part in np.meshgrid(energy, zenith, indexing="ij")]
    probability, gradient = np.empty((391, 3)), np.empty((391, 6))
    again = np.empty_like(probability)
    inputs = [ffi.from_buffer("double[]", part) for part in (*grid, np.array(mixing))]
    outputs = [ffi.from_buffer("double[]", part, require_writable=True) for part in (probability, gradient)]
    c.neutrino_gradients(391, *inputs, sign, MUON, MUON, *outputs)
    c.neutrino_probabilities(391, *inputs, sign, MUON, ffi.from_buffer("double[]", again, require_writable=True))
    np.testing.assert_array_equal(again, probability)
    arguments = mixing, energy, np.array(sign), CastleWall().trace(zenith), MUON
    weights = np.zeros((3, 23, 17))
    weights[MUON] = 1.0
    expected, slopes = compute_gradient(*arguments, weights)
    np.testing.assert_array_equal(expected, compute_probabilities(*arguments))
    np.testing.assert_allclose(probability.T.reshape(expected.shape), expected, rtol=0, atol=1e-12)
    scale = np.abs(slopes).max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(gradient.T.reshape(slopes.shape) / scale, slopes / scale, rtol=0, atol=1e-12)
