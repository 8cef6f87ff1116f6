"""Models and clients in C++: the program that it all began with, callables that throw, and a client."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiling import CSRC, EXAMPLES, MODELS, STRICT, Workshop, run
from launching import Launched, analyze, serve, serve_spec
from required import require
from serving import serving

import demos_hpc
from demos_hpc.config import Config
from demos_hpc.errors import InvalidInput, ModelFailed
from demos_hpc.installation import find_installation
from demos_hpc.model import LoadedModel, load
from demos_hpc.mpiexec import Program
from demos_hpc.spec import ModelSpec
from demos_hpc.streams import BlockStreams
from demos_hpc.testing import Gaussian

MAAS = EXAMPLES / "maas"
DESCRIPTION = MAAS / "my_model.json"
#: Byte for byte; what serves it may change, this may not.
PROGRAM = """\
#include "demos_maas.h"

// Benutzer implementiert diese Funktionen
double my_model_density(const double* x, const double* params);
void my_model_sample(double* x, const double* params);

int main() {
    DemosMaaSServer server;
    server.register_density(my_model_density);
    server.register_sampler(my_model_sample);
    server.serve(); // Auf Anfragen hören
}
"""
#: The two functions as a linker knows them.
DENSITY, SAMPLE = "_Z16my_model_densityPKdS0_", "_Z15my_model_samplePdPKd"
by_compiler = pytest.mark.parametrize("compiler", ["g++", "clang++"])


class Decay:
    """The twin of my_model.cpp."""

    spec = ModelSpec.from_dict(
        {name: value for name, value in json.loads(DESCRIPTION.read_text()).items() if name != "thread_safe"}
    )

    def log_density(self, x: Any, params: Any) -> Any:
        lifetime, energy, resolution = np.moveaxis(params, -1, 0)
        z = (x[:, 1] - energy) / resolution
        norm = lifetime * resolution * np.sqrt(2 * np.pi)
        with np.errstate(divide="ignore"):
            return np.log(np.where(x[:, 0] < 0, 0, np.exp(-x[:, 0] / lifetime - z**2 / 2) / norm))

    def sample(self, n: int, params: Any, rng: np.random.Generator) -> Any:
        draws = [(rng.random(), rng.standard_normal()) for _ in range(n)]
        return np.array([(-params[0] * np.log(1 - u), params[1] + params[2] * z) for u, z in draws])


def ask(model: Any) -> dict[str, Any]:
    """All that my_model can be asked, in whatever process."""
    import numpy as np

    rng, point = np.random.default_rng(3), np.array([2.2, 52.8, 1.5])
    x = np.stack([rng.normal(3, 2, 5000), rng.normal(52.8, 1.5, 5000)], axis=1)
    points = rng.uniform(0.5, 2, (5000, 3)) * point
    return {
        "density": model.log_density(x, point),
        "each": model.log_density(x, points),
        "own": model.log_density(x),
        "draws": model.sample(3000, point, seed=9),
        "likelihood": model.log_likelihood(np.abs(x), points[:3]),
    }


def assert_close(got: Any, wanted: Any, tolerance: float = 1e-15) -> None:
    """Equal but for the last bit of logarithms, where C's and NumPy's differ."""
    np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)


def assert_right(answers: Mapping[str, Any], compiler: str, workshop: Workshop) -> None:
    """The bits of the same functions in a plug-in, and the answers of their twin."""
    library = workshop.make(MAAS / "my_model.cpp", compiler=compiler)
    entries = json.loads(DESCRIPTION.read_text(encoding="utf-8"))
    with demos_hpc.local(workshop.describe(library, density=DENSITY, sample=SAMPLE, **entries)) as plug_in:
        for name, wanted in ask(plug_in).items():
            np.testing.assert_array_equal(answers[name], wanted, err_msg=name)
    with demos_hpc.local(Decay()) as twin:
        for name, wanted in ask(twin).items():
            assert_close(answers[name], wanted)
    assert np.isneginf(answers["density"]).any()


def make_server(workshop: Workshop, compiler: str = "g++", *, mpi: bool = True) -> Path:
    return workshop.link(MAAS / "my_server.cpp", MAAS / "my_model.cpp", compiler=compiler, mpi=mpi)


# ---- the program that it all began with ----------------------------------------------------------------------------


def test_the_example_is_the_program_byte_for_byte() -> None:
    assert (MAAS / "my_server.cpp").read_bytes() == PROGRAM.encode()


@pytest.mark.parametrize(("compiler", "workers"), [("g++", 2), ("clang++", 1)])
def test_it_is_served_in_one_launch(
    compiler: str,
    workers: int,
    workshop: Workshop,
    launch: Callable[..., Launched],
    write_script: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    program = make_server(workshop, compiler)
    connect = "\nimport demos_hpc, numpy\nnumpy.savez('answers.npz', **ask(demos_hpc.connect()))\n"
    script = write_script("from typing import Any\n" + inspect.getsource(ask) + connect)
    done = launch(serve_spec(DESCRIPTION), Program(workers, [str(program)]), analyze(script))
    assert done.code == 0, done.text
    assert done.err == ""
    assert_right(np.load(tmp_path / "answers.npz"), compiler, workshop)


@pytest.mark.parametrize(("mpi", "workers"), [(True, 1), (False, 2)])
def test_it_joins_a_server(mpi: bool, workers: int, workshop: Workshop, tmp_path: Path) -> None:
    program = make_server(workshop, mpi=mpi)
    words = ["--exec", str(program), "--spec", str(DESCRIPTION)]
    with serving(words, tmp_path, workers=workers) as server, server.connect() as model:
        assert_right(ask(model), "g++", workshop)
        assert model.spec.with_operations([]) == Decay.spec.with_operations([])


# ---- headers -------------------------------------------------------------------------------------------------------


@by_compiler
@pytest.mark.parametrize("mpi", [True, False])
@pytest.mark.usefixtures("workshop")
def test_headers_are_clean(compiler: str, mpi: bool, tmp_path: Path) -> None:
    require(compiler, *["mpicc"] * mpi)
    source = tmp_path / "twice.cpp"
    source.write_text('#include "demos_maas.h"\n#include "demos_client.hpp"\n#include "demos_maas.h"\n')
    installation = find_installation(Config.load())
    cflags = installation.find_mpi()[0].split() if mpi else [installation.cflags, "-DDEMOS_WITHOUT_MPI"]
    more = ["-Wconversion", "-Wshadow", "-Wold-style-cast"] if not mpi else ["-Wconversion", "-Wshadow"]
    run([compiler, "-std=c++17", *STRICT, *more, *cflags, "-c", source, "-o", tmp_path / "twice.o"])


def test_headers_say_what_they_are() -> None:
    for name in ("demos_maas.h", "demos_client.hpp"):
        lines = (CSRC / "include" / name).read_text(encoding="utf-8").splitlines()
        assert lines[1].startswith(f" * {name}: ")
        assert max(map(len, lines)) <= 120
        assert len(lines) <= 400


# ---- callables -----------------------------------------------------------------------------------------------------


@pytest.fixture
def lambdas(workshop: Workshop) -> Callable[..., str]:
    """The model of callables, ``lambdas("error", scale=2)``."""

    def describe(mode: str = "", compiler: str = "g++", **settings: Any) -> str:
        library = workshop.make(MODELS / "lambdas.cpp", compiler=compiler)
        return workshop.describe(library, f"{mode}.json", settings={"mode": mode, **settings})

    return describe


@by_compiler
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("mode", ["", "density"])
def test_callables_with_a_state(compiler: str, threads: int, mode: str, lambdas: Callable[..., str]) -> None:
    model = load(lambdas(mode, compiler, scale=2.0), Config(threads=threads))
    rng = np.random.default_rng(1)
    x, points = rng.exponential(2, (20_000, 1)), rng.uniform(1, 3, (20_000, 1))
    t, mean = x[:, 0], 2 * points[:, 0]
    value = -t / mean - np.log(mean)
    assert_close(model.log_density(x, points), value, 1e-14)
    assert_close(model.log_density_gradient(x, points)[0], value, 1e-14)
    assert_close(model.log_density_gradient(x, points)[1][:, 0], t / (mean * points[:, 0]) - 1 / points[:, 0], 1e-14)
    assert_close(model.log_density_gradient(x, points, wrt_x=True)[1][:, 0], -1 / mean)
    assert_close(model.evaluate(points)[:, 0], mean)
    uniform = np.concatenate([BlockStreams().set(5, block).random(1024) for block in (0, 1)])
    assert_close(model.sample(0, 2048, points[0], 5)[:, 0], -mean[0] * np.log(1 - uniform))
    assert np.isneginf(model.log_density(np.array([[-1.0]]), points[0]))


def test_callables_are_described_column_by_column(lambdas: Callable[..., str]) -> None:
    spec = load(lambdas()).spec
    assert spec.name == "lambdas"
    assert [p.name for p in spec.parameters] == ['lifetime "\\\t"']
    assert [(p.unit, p.default, p.lower, p.upper) for p in spec.parameters] == [("us", 2.2, 1e-3, None)]
    assert [(o.name, o.unit, o.lower, o.upper) for o in spec.observables] == [("t", "1", 0.0, None)]
    assert [(o.name, o.unit) for o in spec.outputs] == [("mean", "us")]
    assert not {"sample", "log_density_gradient", "evaluate"} & set(load(lambdas("plain")).spec.operations)


@pytest.mark.parametrize(
    ("mode", "kind", "message"),
    [
        ("", ModelFailed, "the model has thrown: no table for x"),
        ("number", ModelFailed, r"the model has thrown something that is no std::exception"),
        ("error", InvalidInput, "x is above 100"),
        ("ok", ModelFailed, "an error that is none"),
        ("status", ModelFailed, r"returned 16, REFUSED, which no model does: not for models"),
    ],
)
def test_what_is_thrown_is_what_callers_get(
    mode: str, kind: type[Exception], message: str, lambdas: Callable[..., str]
) -> None:
    model = load(lambdas(mode), Config(threads=2))
    x, point = np.concatenate([np.full((5000, 1), 1.0), [[101.0]]]), np.array([2.0])
    for call in (
        lambda: model.log_density(x, point),
        lambda: model.log_density_gradient(x, point),
        lambda: model.log_density_gradient(x, point, wrt_x=True),
        lambda: model.sample(0, 10, np.array([101.0]), 1),
    ):
        with pytest.raises(kind, match=message):
            call()
        assert_close(model.log_density(x[:1], point), [-0.5 - np.log(2)])


@pytest.mark.parametrize("mode", ["plain", "density"])
def test_a_density_below_zero(mode: str, lambdas: Callable[..., str]) -> None:
    model = load(lambdas(mode))
    assert np.isneginf(model.log_density(np.array([[99.0]]), np.array([0.01])))  # exp() has become 0
    with pytest.raises(
        ModelFailed, match=r"is \(-1\), and none is negative, at x = \(101\), params = \(2\); .* register_log_density"
    ):
        model.log_density(np.array([[101.0]]), np.array([2.0]))


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("nothing", "the model offers nothing: "),
        ("undescribed", "the model's name, parameters, observables, outputs are not given"),
        ("no json", "the spec in .* is no JSON: "),
        ("twice", r"described by describe\(\), or by its name, register_parameter\(\)"),
    ],
)
def test_plug_ins_that_are_made_wrongly(mode: str, message: str, lambdas: Callable[..., str]) -> None:
    with pytest.raises((InvalidInput, ModelFailed), match=message):
        load(lambdas(mode))


# ---- programs that leave something out -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("without", "message"),
    [
        ("functions", "the model offers nothing: "),
        ("words", 'the configuration lacks "parameters": [...], "observables": [...]'),
        ("json", "the model's spec: not JSON at byte 0"),
    ],
)
def test_what_is_missing_is_told_to_callers(
    without: str,
    message: str,
    workshop: Workshop,
    launch: Callable[..., Launched],
    write_script: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    script = write_script("""
        import demos_hpc

        try:
            demos_hpc.connect()
        except demos_hpc.DemosError as error:
            print(error)
    """)
    (tmp_path / "square.json").write_text('{"name": "square"}', encoding="utf-8")
    program = Program(1, [str(workshop.link(MODELS / "server.cpp", compiler="g++")), without])
    done = launch(serve_spec(tmp_path / "square.json"), program, analyze(script))
    assert done.code == 0, done.text
    assert message in done.out
    assert f"serves nothing: {message}" in done.err
    assert "served" in done.err


@pytest.mark.parametrize("without", ["", "scalars"])
def test_a_program_that_describes_itself(without: str, workshop: Workshop, tmp_path: Path) -> None:
    program = workshop.link(MODELS / "server.cpp", compiler="g++", mpi=False)
    with serving(["--exec", str(program), without], tmp_path, workers=1) as server, server.connect() as model:
        x = np.array([[0.5], [2.0]])
        np.testing.assert_array_equal(model.log_density(x, []), [0, -np.inf])
        if without == "scalars":
            with pytest.raises(ModelFailed, match=r"model 'square': the model has thrown: x is above 100 \(worker"):
                model.log_density([[101.0]], [])
        np.testing.assert_array_equal(model.log_density(x, []), [0, -np.inf])
    assert "served" in server.log


@pytest.mark.parametrize("name", ["server", "client"])
def test_programs_without_a_connection(name: str, workshop: Workshop) -> None:
    program = workshop.link(MODELS / f"{name}.cpp", compiler="g++", mpi=False)
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr.startswith("INVALID_INPUT: this program has no connection to a server: start it by `demos-hpc")


# ---- clients -------------------------------------------------------------------------------------------------------

TWO = """
from demos_hpc.testing import Gaussian

class Two(Gaussian):
    def __init__(self):
        super().__init__(2)
"""


def assert_answers(out: str) -> None:
    """What the client prints is what the model's twin says."""
    lines = dict(line.partition(" ")[::2] for line in out.splitlines())
    model = LoadedModel(Gaussian(2))
    x, point = np.array([[0.5, -1], [2, 0.25], [3, 4]]), np.array([0.3, 1.7])
    points, own = np.array([[0.3, 1.7], [0.1, 1.1], [-2, 0.9]]), np.array([0.0, 1.0])
    slopes = [model.log_density_gradient(x, p) for p in points]
    wanted: dict[str, list[Any]] = {
        "widths": [2, 2, 2],
        "log_density": [model.log_density(x, point)],
        "log_density_each": [model.log_density(x, points)],
        "log_density_own": [model.log_density(x, own)],
        "log_density_gradient": model.log_density_gradient(x, point),
        "log_density_gradient_x": model.log_density_gradient(x, points, wrt_x=True),
        "log_likelihood": [value.sum() for value, _ in slopes],
        "log_likelihood_own": [model.log_density(x, own).sum()],
        "log_likelihood_gradient": [*(v.sum() for v, _ in slopes), *(g.sum(axis=0) for _, g in slopes)],
        "sample": [model.sample(0, 3, point, 7)],
        "sample_later": [model.sample(1024, 2, point, 7)],
        "evaluate": [model.evaluate(points)],
        "evaluate_own": [0, 1],
        "nothing": [],
        "defaults": [0, 1],
        "revision": [2],
        "defaults_now": [0.5, 1],
    }
    for name, arrays in wanted.items():
        numbers = np.concatenate([np.empty(0), *(np.ravel(array) for array in arrays)])
        assert_close(np.array(lines[name].split(), float), numbers, 1e-14)
    assert json.loads(lines["metadata"])["params"] == {"mu": 0.5, "sigma": 1.0}
    assert {name: lines[name] for name in ("odd_x", "odd_params", "odd_points", "odd_point", "outside")} == {
        "odd_x": "INVALID_INPUT: x has 3 numbers; this model takes a multiple of 2",
        "odd_params": "INVALID_INPUT: params has 3 numbers; this model takes one point, or one for each row, of 2",
        "odd_points": "INVALID_INPUT: params has 3 numbers; this model takes a multiple of 2",
        "odd_point": "INVALID_INPUT: params has 6 numbers; this model takes exactly 2",
        "outside": "INVALID_INPUT: parameter 1 of point 0 is -1, outside [0.001, inf]",
    }
    assert lines["unknown"].startswith("INVALID_INPUT: unknown parameter 'nu'")
    assert lines["nobody"].startswith("INVALID_INPUT: there is no model 'nobody'")


@by_compiler
def test_a_client_in_one_launch(
    compiler: str, workshop: Workshop, launch: Callable[..., Launched], write_script: Callable[[str, str], Path]
) -> None:
    write_script(TWO, "two.py")
    program = workshop.link(MODELS / "client.cpp", compiler=compiler)
    done = launch(serve("two.py:Two"), Program(1, [str(program), "gaussian"]))
    assert done.code == 0, done.text
    assert_answers(done.out)


@pytest.mark.parametrize("mpi", [True, False])
def test_a_client_of_a_server(
    mpi: bool, workshop: Workshop, tmp_path: Path, write_script: Callable[[str, str], Path]
) -> None:
    write_script(TWO, "two.py")
    program = workshop.link(MODELS / "client.cpp", compiler="g++", mpi=mpi)
    with serving("two.py:Two", tmp_path, workers=1) as server:
        words = [sys.executable, "-m", "demos_hpc", "ticket", server.name, "--", program]
        assert_answers(run(words, env=server.environment))
