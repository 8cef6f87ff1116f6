"""Fortran: the modules demos and demos_mpi against demos.h, models and clients against their twins in Python."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cffi
import numpy as np
import pytest
from compiling import CSRC, EXAMPLES, ROOT, STRICT, Mold, Workshop, run
from launching import Launched, analyze, serve, serve_spec
from required import require
from serving import serving

import demos_hpc
from demos_hpc.config import Config
from demos_hpc.errors import InvalidInput, ModelFailed
from demos_hpc.installation import FORTRAN as MODULES
from demos_hpc.installation import MPI_FORTRAN as MPI_MODULE
from demos_hpc.installation import find_installation
from demos_hpc.messages import FloatArray
from demos_hpc.model import LoadedModel, load
from demos_hpc.mpiexec import Program
from demos_hpc.native import read_header
from demos_hpc.streams import BlockStreams
from demos_hpc.testing import Gaussian, check_model
from demos_hpc.wire import DTYPES, read_layout, split

FORTRAN = CSRC / "fortran"
GAUSSIAN = EXAMPLES / "gaussian_fortran"
PROGRAMS = CSRC / "tests" / "fortran"
GOLDEN = ROOT / "tests" / "golden"
STRUCTS = ("demos_header", "demos_array", "demos_error", "demos_stream", "demos_model", "demos_functions")
#: As old codes want it: words of 8 bytes, and local variables that keep their values.
OLD = ("-fdefault-integer-8", "-fno-automatic")
POINT = np.array([0.5, 2.0])
RNG = np.random.default_rng(8)


@pytest.fixture
def plugin(mold: Mold) -> Path:
    return mold.make("libgaussian.so", GAUSSIAN / "gaussian.f90", GAUSSIAN / "plugin.f90")


@pytest.fixture
def server(mold: Mold) -> Path:
    return mold.make("gaussian", GAUSSIAN / "gaussian.f90", GAUSSIAN / "server.f90", mpi=True)


@pytest.fixture
def rows(mold: Mold, workshop: Workshop) -> Any:
    """The path of a model that fills in the table itself, ``rows(fail=3)``."""
    library = mold.make("librows.so", PROGRAMS / "rows.f90")

    def describe(**settings: Any) -> str:
        return workshop.describe(library, "-".join(["rows", *settings]) + ".json", settings=settings)

    return describe


# ---- the modules against the headers --------------------------------------------------------------------------------


def test_numbers_and_types_are_those_of_the_header(mold: Mold, tmp_path: Path) -> None:
    ffi = cffi.FFI()
    ffi.cdef(text := read_header(CSRC / "include"))
    lines, wanted = [], {}
    for enum in re.findall(r"\benum (demos_\w+) \{", text):
        for name, value in ffi.typeof(f"enum {enum}").relements.items():
            lines.append(f"print '(a,1x,i0)', '{name}', {name}")
            wanted[name] = value
    for nth, struct in enumerate(STRUCTS):
        lines.append(f"print '(a,1x,i0)', '{struct}', c_sizeof(s{nth})")
        wanted[struct] = ffi.sizeof(struct)
        for field, about in ffi.typeof(struct).fields:
            lines.append(f"print '(a,1x,i0)', '{struct}.{field}', at(c_loc(s{nth}%{field})) - at(c_loc(s{nth}))")
            wanted[f"{struct}.{field}"] = about.offset
    declared = [f"type({struct}), target :: s{nth}" for nth, struct in enumerate(STRUCTS)]
    source = tmp_path / "layout.f90"
    head = ["program layout", "use, intrinsic :: iso_c_binding, only: c_intptr_t", "use demos", "implicit none"]
    tail = [
        "contains",
        "function at(pointer)",
        "type(c_ptr), intent(in) :: pointer",
        "integer(c_intptr_t) :: at",
        "at = transfer(pointer, at)",
        "end function",
        "end program",
    ]
    source.write_text("\n".join([*head, *declared, *lines, *tail]) + "\n", encoding="ascii")
    told = dict(line.split() for line in run([mold.make("layout", source)]).splitlines())
    assert {name: int(value) for name, value in told.items()} == wanted
    assert len(wanted) > 130


#: Quoted for C alone: calls of models, and the function that has any number of arguments.
NOT_IN_FORTRAN = r"demos_(fail|model_init|init_model|check_model|end_model|caller_\w+|call_\w+|mpi_comm)"


def squeeze(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"\s*([(),;*])\s*", r" \1 ", text)).strip()


@pytest.mark.parametrize(("header", "modules"), [("demos.h", MODULES), ("demos_mpi.h", (MPI_MODULE,))])
def test_prototypes_are_quoted_as_they_are(header: str, modules: Sequence[str]) -> None:
    text = (CSRC / "include" / header).read_text(encoding="utf-8")
    text = squeeze(re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL))
    source = "".join((FORTRAN / module).read_text(encoding="ascii") for module in modules)
    quoted = re.findall(r"^ +! ((?:typedef |const )?\w+ \**\(?\**\w+\)?\((?:.*\n +! )*?.*\);)$", source, re.MULTILINE)
    quoted = [squeeze(re.sub(r"\n +! ", " ", prototype)) for prototype in quoted]
    foreign = [prototype for prototype in quoted if prototype not in text]
    assert foreign == ([squeeze("size_t strlen(const char *s);")] if header == "demos.h" else [])
    functions = set(re.findall(r"(?<!typedef )\b(demos_\w+) \( ", text))
    functions = {name for name in functions if not re.fullmatch(NOT_IN_FORTRAN, name)}
    assert functions == {name for p in quoted for name in re.findall(r"\b(demos_\w+) \( ", p)}
    bound = re.findall(r"(?:function|subroutine) (demos_\w+)\(.*(?:&\n.*)?\bbind\(c\)", source)
    assert functions <= set(bound)


@pytest.mark.parametrize("path", sorted(FORTRAN.iterdir()), ids=lambda path: path.name)
def test_sources_are_described_narrow_and_compiled(path: Path) -> None:
    lines = path.read_text(encoding="ascii").splitlines()
    assert lines[0].startswith(f"! {path.name}"), "no comment says what it is"
    assert not [nth for nth, line in enumerate(lines, 1) if len(line) > 120 or line != line.rstrip() or "\t" in line]
    assert len(lines) <= 400
    assert path.name in (*MODULES, MPI_MODULE)
    assert f"'csrc/fortran/{path.name}'," in (ROOT / "meson.build").read_text(encoding="utf-8")


def read_golden() -> list[str]:
    return [entry["file"] for entry in json.loads((GOLDEN / "frames.json").read_text(encoding="utf-8"))["good"]]


@pytest.mark.parametrize("file", read_golden())
def test_golden_frames_are_read(file: str, mold: Mold) -> None:
    data = bytearray((GOLDEN / file).read_bytes())
    wanted = []
    for header, start in split(data):
        assert (header.magic, header.major) == (0x534F4D44, 1)
        numbers = np.array([start, *header[2:]], dtype=np.uint64).view(np.int64)  # Fortran has no others of 64 bits
        wanted.append(" ".join(["frame", *map(str, numbers)]))
        layout = read_layout(header, data, start)
        for dtype, shape, offset in zip(layout.dtypes, layout.shapes, layout.offsets, strict=True):
            code = next(code for code, known in DTYPES.items() if known == dtype)
            size = dtype.itemsize * int(np.prod(shape))
            if start + offset + size > len(data):
                shown = ["null"]
            elif dtype == np.float64:
                shown = [f"{bits:016X}" for bits in np.frombuffer(data, np.uint64, size // 8, start + offset)]
            else:
                shown = [f"{byte:02X}" for byte in data[start + offset : start + offset + size]]
            wanted.append(" ".join(["array", *map(str, [code, len(shape), *shape]), "", "data", *shown]))
    told = run([mold.make("frames", PROGRAMS / "frames.f90"), GOLDEN / file]).splitlines()
    assert [line.split() for line in told] == [line.split() for line in wanted]


# ---- plug-ins -------------------------------------------------------------------------------------------------------


def test_a_code_with_a_state_is_a_plug_in(plugin: Path) -> None:
    model, twin = load(str(plugin), Config(threads=4)), LoadedModel(Gaussian())
    assert model.spec == twin.spec
    assert model.model.threads == 1  # it said nothing of threads
    x = RNG.normal(size=(10_000, 1))
    rows = np.stack([RNG.normal(size=10_000), RNG.uniform(0.5, 2, size=10_000)], axis=1)
    for params in (POINT, rows):
        np.testing.assert_allclose(model.log_density(x, params), twin.log_density(x, params), rtol=4e-15)
        for wrt_x in (False, True):
            got = model.log_density_gradient(x, params, wrt_x=wrt_x)
            wanted = twin.log_density_gradient(x, params, wrt_x=wrt_x)
            np.testing.assert_allclose(got[1], wanted[1], rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(model.evaluate(rows), twin.evaluate(rows), rtol=1e-15)
    verdict = check_model(model)
    assert verdict.passed, verdict
    assert not verdict.warnings, verdict


def test_draws_are_those_of_c(plugin: Path, rows: Any, workshop: Workshop) -> None:
    fortran, c = load(str(plugin)), load(str(workshop.make(EXAMPLES / "gaussian.c")))
    standard = np.array([0.0, 1.0])
    np.testing.assert_array_equal(fortran.sample(1024, 5000, standard, 7), c.sample(1024, 5000, standard, 7))
    drawn = load(rows()).sample(1024, 1500, np.array([2.0]), 2**64 - 1)
    words = [BlockStreams().set(2**64 - 1, block).random(2048) for block in (1, 2)]
    np.testing.assert_array_equal(drawn, 2 * np.concatenate(words)[:3000].reshape(1500, 2))


@pytest.mark.parametrize("threads", [1, 3])
def test_a_code_without_a_state_fills_in_the_table(rows: Any, threads: int) -> None:
    model = load(rows(name="boxes", fail=3.5), Config(threads=threads))
    assert (model.spec.name, model.model.threads) == ("boxes", threads)
    x = np.array([[1.0, 1.5], [2.5, 1.0], [np.nan, 1.0]])
    wanted = np.array([-2 * np.log(2.0), -np.inf, np.nan])
    np.testing.assert_array_equal(model.log_density(x, np.array([2.0])), wanted)
    params = np.array([[2.0], [3.0], [2.0]])
    np.testing.assert_array_equal(model.log_density(x, params), [wanted[0], -2 * np.log(3.0), np.nan])
    many = RNG.uniform(0, 3, size=(200_000, 2))
    np.testing.assert_array_equal(
        model.log_density(many, np.array([2.0])), np.where((many > 2).any(axis=1), -np.inf, -2 * np.log(2.0))
    )


def test_status_and_text_become_exceptions(rows: Any, plugin: Path, workshop: Workshop) -> None:
    with demos_hpc.local(rows(fail=3.5)) as model:
        with pytest.raises(
            ModelFailed, match=r"log_density\(\) of model 'box': there is no table for x = 4\.0"
        ) as failed:
            model.log_density([[1.0, 1.0], [4.0, 1.0]], [2.0])
        assert type(failed.value) is ModelFailed
        with pytest.raises(InvalidInput, match=r"a is 13, once more, once more") as refused:
            model.log_density([[1.0, 1.0]], [13.0])
        assert 900 < len(str(refused.value)) < 1500  # a text is cut off where its room ends
        assert np.isfinite(model.log_density([[1.0, 1.0]], [2.0]))
    with pytest.raises(InvalidInput, match='fail: "x" is not a number'):
        load(rows(fail="x"))
    with pytest.raises(InvalidInput, match=r'has no settings, and these are \{"a": ?1\}: leave them out'):
        load(workshop.describe(plugin, settings={"a": 1}))


# ---- programs of their own ------------------------------------------------------------------------------------------

ANALYSIS = """
import numpy as np
import demos_hpc
from demos_hpc.testing import Gaussian

model, twin, point = demos_hpc.connect(), Gaussian(), np.array([0.5, 2.0])
assert model.spec == twin.spec.with_operations(model.spec.operations), model.spec
x = model.sample(5000, point, seed=3)
np.testing.assert_allclose(model.log_density(x, point), twin.log_density(x, point), rtol=4e-15)
value, gradient = model.log_likelihood_gradient(x, point)
np.testing.assert_allclose(gradient, twin.log_density_gradient(x, point)[1].sum(axis=0), rtol=1e-9)
np.testing.assert_array_equal(model.evaluate([point, point]), [[0.5, 4.0]] * 2)
print("mean", x.mean())
"""


@pytest.mark.parametrize("flags", [(), OLD], ids=["new", "old"])
def test_a_program_and_a_client_are_ranks_of_a_launch(
    flags: tuple[str, ...], mold: Mold, launch: Callable[..., Launched], write_script: Callable[..., Path]
) -> None:
    server = mold.make("gaussian", GAUSSIAN / "gaussian.f90", GAUSSIAN / "server.f90", mpi=True, flags=flags)
    client = mold.make("client", GAUSSIAN / "client.f90", mpi=True, flags=flags)
    ranks = Program(2, [str(server)]), analyze(write_script(ANALYSIS)), Program(1, [str(client)])
    launched = launch(serve_spec(GAUSSIAN / "gaussian.json"), *ranks)
    assert launched.code == 0, launched.text
    assert "mean 0.4" in launched.out, launched.text
    assert "log L and its gradient   -21156.503  -21.157   35.646" in launched.out, launched.text
    assert "told: params has the shape (1), this model takes (2)" in launched.out, launched.text


def test_ranks_of_an_analysis_have_a_communicator(mold: Mold, launch: Callable[..., Launched], tmp_path: Path) -> None:
    require("cc", "mpicc")
    run(["cc", "-c", PROGRAMS / "ranks.c", *find_installation(Config.load()).find_mpi()[0].split()], cwd=tmp_path)
    program = mold.make("ranks", PROGRAMS / "ranks.f90", tmp_path / "ranks.o", mpi=True)
    launched = launch(serve("demos_hpc.testing:Gaussian"), Program(2, [str(program)]))
    assert launched.code == 0, launched.text
    with demos_hpc.local(Gaussian) as model:
        x = model.sample(2048, POINT, seed=7)
        together = sum(model.log_likelihood(part, POINT) for part in (x[:1024], x[1024:]))
    assert launched.out.split() == ["together", "2", f"{together:.16E}"]


def test_a_program_serves_and_a_client_calls_behind_a_door(server: Path, mold: Mold, tmp_path: Path) -> None:
    client = mold.make("client", GAUSSIAN / "client.f90", mpi=True)
    with serving(["--exec", str(server)], tmp_path, workers=2) as apart:
        with apart.connect() as model:
            x = RNG.normal(size=(5000, 1))
            np.testing.assert_allclose(model.log_density(x, POINT), Gaussian().log_density(x, POINT), rtol=4e-15)
        command = [sys.executable, "-m", "demos_hpc", "ticket", "apart", "--", client]
        text = run(command, env=apart.environment, cwd=tmp_path)
        assert "log L and its gradient   -21156.503  -21.157   35.646" in text


def test_a_program_without_a_server_says_so(server: Path, mold: Mold, tmp_path: Path) -> None:
    source = tmp_path / "alone.f90"
    text = (GAUSSIAN / "server.f90").read_text(encoding="ascii")
    source.write_text(text.replace("demos_mpi_server", "demos_server").replace("demos_mpi\n", "demos\n"))
    alone = mold.make("alone", GAUSSIAN / "gaussian.f90", source)
    done = subprocess.run([alone], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "demos: INVALID_INPUT: this program has no connection to a server" in done.stderr
    assert "ERROR STOP 1" in done.stderr


# ---- a client in Fortran, a server in Python ------------------------------------------------------------------------


def read_calls(out: str) -> tuple[dict[str, FloatArray], dict[str, str]]:
    """The arrays that calls.f90 shows, and what else it says."""
    arrays, words = {}, {}
    for line in out.splitlines():
        name, _, rest = line.partition(" ")
        parts = rest.split()
        if len(parts) > 2 and re.fullmatch("[0-9A-F]{16}", parts[2]):
            bits = np.array([int(part, 16) for part in parts[2:]], dtype=np.uint64)
            arrays[name] = bits.view(np.float64).reshape(int(parts[0]), int(parts[1]))
        else:
            words[name] = rest
    return arrays, words


def check_calls(out: str) -> None:
    got, words = read_calls(out)
    assert words["shape"] == "1 2 2"
    assert json.loads(words["metadata"])["spec"]["name"] == "gaussian"
    n, other = 1500, np.arange(1, 1501)
    rows = np.stack([0.001 * other, 1 + 0.001 * other], axis=1)
    points = np.array([[0.0, 1.0], [0.5, 2.0], [1.0, -1.0]])
    with demos_hpc.local(Gaussian) as model:
        x = model.sample(n, POINT, seed=7)
        default = np.array([0.0, 1.0])
        wanted = {
            "sample": x,
            "sample_long": LoadedModel(Gaussian()).sample(1024, 3, POINT, 2**64 - 1),
            "log_density": model.log_density(x, POINT)[:, None],
            "log_density_rows": model.log_density(x, rows)[:, None],
            "log_density_backwards": model.log_density(x[::-2], default)[:, None],
            "gradient": model.log_density_gradient(x, POINT)[1],
            "gradient_x_rows": model.log_density_gradient(x, rows, wrt="x")[1],
            "gradient_x": model.log_density_gradient(x, default, wrt="x")[1],
            "log_likelihoods": model.log_likelihood(x, points[:2])[:, None],
            "log_likelihoods_gradient": model.log_likelihood_gradient(x, points[:2])[1],
            "log_likelihoods_bounds": model.log_likelihood(x, points)[:, None],
            "log_likelihood": np.append(*model.log_likelihood_gradient(x, POINT))[:, None],
            "log_likelihood_default": np.array([[model.log_likelihood(x, default)]]),
            "evaluate": points[:2] ** [1, 2],
            "evaluate_default": default[:, None],
            "defaults": np.array([[0.25], [1.0]]),
        }
    assert set(got) == set(wanted)
    for name, array in wanted.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)
    empty = {name: [int(n) for n in words[name].split()] for name in words if name.startswith("no_")}
    assert empty == {
        "no_rows": [0],
        "no_gradients": [0, 2, 0],
        "no_sums": [0, 2, 0],
        "no_outputs": [2, 0],
        "no_draws": [1, 0],
    }
    np.testing.assert_array_equal(np.array(words["sums_of_nothing"].split(), dtype=float), np.zeros(6))
    assert words["revision"] == "2"
    assert words["connected"] == "0 as it was"  # a text is not touched where there is no error
    assert words["unconnected"] == "1 this client has no connection: call connect() first"
    assert words["unknown"].startswith("1 unknown parameter 'mo'; model 'gaussian' takes 2: mu, sigma")
    shape = "1 {} has the shape {}, this model takes {} (C's [n][d] is Fortran's (d, n))"
    assert words["columns"] == shape.format("x", "(2, 2)", "(1, 2)")
    assert words["rows"] == shape.format("params", "(2, 4)", "(2, 1500)")
    assert words["points"] == shape.format("params", "(1, 3)", "(2, 3)")
    assert words["point"] == shape.format("params", "(1)", "(2)")
    assert words["negative"] == "1"


@pytest.mark.parametrize("flags", [(), OLD], ids=["new", "old"])
def test_a_client_calls_in_a_launch(flags: tuple[str, ...], mold: Mold, launch: Callable[..., Launched]) -> None:
    calls = mold.make("calls", PROGRAMS / "calls.f90", mpi=True, flags=flags)
    launched = launch(serve("demos_hpc.testing:Gaussian"), Program(1, [str(calls)]))
    assert launched.code != 0, launched.text  # the last call has no `stat`
    assert "demos: INVALID_INPUT: this client has no connection: call connect() first" in launched.err, launched.text
    assert "not reached" not in launched.out
    check_calls(launched.out)


def test_a_client_calls_through_a_door(mold: Mold, tmp_path: Path) -> None:
    calls = mold.make("calls", PROGRAMS / "calls.f90", mpi=True)
    with serving("demos_hpc.testing:Gaussian", tmp_path) as apart:
        command = [sys.executable, "-m", "demos_hpc", "ticket", "apart", "--", str(calls)]
        done = subprocess.run(command, env=apart.environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 1, done.stderr
        assert "this client has no connection" in done.stderr
        check_calls(done.stdout)


def test_arrays_may_be_large(mold: Mold, tmp_path: Path) -> None:
    """2^31 elements are more than a default integer counts; no memory stands behind them."""
    require("cc")
    played = tmp_path / "large.o"
    run(["cc", *STRICT, "-std=gnu11", "-c", PROGRAMS / "large.c", "-I", CSRC / "include", "-o", played])
    n, k, p = 2**31 + 5, 2**15, 2**16
    told = run([mold.make("large", PROGRAMS / "large.f90", played)]).splitlines()
    assert sorted(told) == sorted(
        [
            *(f"log_density {p} {k} given", f"{k}"),
            *(f"log_likelihood {n} {k} given", f"{k}"),
            *(f"log_likelihood {n} 0 given", "0"),
            *(f"evaluate 0 {k} given", f"{k}"),
            f"params has the shape ({p}, {k}), this model takes ({p}, {n}) (C's [n][d] is Fortran's (d, n))",
        ]
    )
