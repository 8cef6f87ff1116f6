"""The C side by itself: compilers without warnings, sanitizers, what is exported, and whatever a peer may send."""

from __future__ import annotations

import os
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import cffi
import pytest
from compiling import CSRC, EXAMPLES, MODELS, ROOT, STRICT, Workshop, build, run
from required import find_tool, require

from demos_hpc.config import Config
from demos_hpc.installation import find_installation
from demos_hpc.native import read_header

SOURCES = sorted(path for path in CSRC.rglob("*.[ch]") if path.name != "normal_tables.h")
#: Executions of each fuzzer, for a look; tests/README.md says how to run more.
FUZZ_RUNS = 50_000
SANITIZERS = {
    "address": ["address,undefined"],
    "thread": ["thread"],
}


def test_tests_in_c_succeed(tmp_path: Path) -> None:
    directory = build(tmp_path / "build")
    run([find_tool("meson"), "test", "-C", directory, "--print-errorlogs"])


@pytest.mark.parametrize("sanitizer", SANITIZERS)
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_tests_in_c_succeed_under_sanitizers(compiler: str, sanitizer: str, tmp_path: Path) -> None:
    options = [f"-Db_sanitize={','.join(SANITIZERS[sanitizer])}", "-Db_lundef=false", "-Dbuildtype=debugoptimized"]
    directory = build(tmp_path / "build", *options, compiler=compiler)
    halt = {f"{name}_OPTIONS": "halt_on_error=1:abort_on_error=1" for name in ("ASAN", "UBSAN", "TSAN")}
    run([find_tool("meson"), "test", "-C", directory, "--print-errorlogs"], env={**os.environ, **halt})


@pytest.mark.parametrize("compiler", ["gcc -std=c11", "clang -std=c11", "g++ -std=c++17", "clang++ -std=c++17"])
def test_the_header_is_clean_in_c_and_cpp(compiler: str, tmp_path: Path) -> None:
    program, standard = compiler.split()
    require(program)
    source = tmp_path / ("twice.cpp" if "++" in program else "twice.c")
    source.write_text('#include "demos.h"\n#include "demos.h"\nint main(void) { return DEMOS_OK; }\n', encoding="utf-8")
    run([program, standard, *STRICT, "-I", CSRC / "include", "-c", source, "-o", tmp_path / "twice.o"])


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_examples_compile_without_warnings(compiler: str, workshop: Workshop) -> None:
    for source in [*EXAMPLES.glob("*.c"), *MODELS.glob("*.c")]:
        workshop.make(source, "-Wconversion", "-Wshadow", compiler=compiler)


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_a_plug_in_may_be_written_in_cpp(compiler: str, workshop: Workshop) -> None:
    from demos_hpc.model import load

    assert load(str(workshop.make(MODELS / "spy.c", compiler=compiler))).spec.name == "spy"


# ---- what is in the library -----------------------------------------------------------------------------------------


def find_symbols(library: Path, *options: str) -> list[tuple[str, str]]:
    """Kind and name of the symbols that a library defines."""
    require("nm")
    lines = run(["nm", "--defined-only", *options, library]).splitlines()
    return [(parts[1], parts[2]) for parts in map(str.split, lines) if len(parts) == 3]


def declared_in(*headers: Path) -> set[str]:
    texts = [re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL) for path in headers]
    return {name for text in texts for name in re.findall(r"\b(demos_\w+)\(", text)}


def test_the_library_exports_what_headers_declare_and_nothing_else(workshop: Workshop) -> None:
    exported = {name for _, name in find_symbols(find_installation(Config.load()).library, "-D")}
    public, internal = declared_in(CSRC / "include/demos.h"), declared_in(*(CSRC / "src").glob("*.h"))
    assert exported <= public | internal
    assert public - exported == {"demos_model_init"}  # which plug-ins have


def test_the_library_has_no_variables_but_those_of_threads(tmp_path: Path) -> None:
    directory = build(tmp_path / "build", "-Dtests=false")
    kinds = {name: kind for kind, name in find_symbols(directory / "csrc/libdemos_core.a")}
    variables = {name for name, kind in kinds.items() if kind in "BbDdGgSsC" and not name.startswith(".")}
    # The one pointer of each thread, what programs of their own have (their connection, and what guards their end), and
    # tables that the loader has to relocate.
    programs = r"(handed_over|is_used|at_exit|at_crash|ending|owner|before|is_ours|is_registered|stack)(\.\d+)?$"
    tables = r"(names|NAMES|SPEC|OURS|LEVELS|PROMISES|STREAM|__cpu_)"
    assert variables <= {
        "current",
        *(name for name in variables if re.match(programs, name) or re.match(tables, name)),
    }
    assert "current" in variables
    assert all(name.startswith("demos_") for name, kind in kinds.items() if kind == "T")


def test_the_interface_of_models_is_still_that_of_version_1_0() -> None:
    now, then = cffi.FFI(), cffi.FFI()
    now.cdef(read_header(CSRC / "include"))
    text = (MODELS / "demos_1_0.h").read_text(encoding="utf-8")
    text = re.sub(r"^#ifdef __cplusplus.*?^#endif", "", text, flags=re.DOTALL | re.MULTILINE)
    then.cdef(re.sub(r"^#.*$", "", text, flags=re.MULTILINE))
    for name in ("demos_model", "demos_functions", "demos_error", "demos_stream"):
        old, new = then.typeof(name).fields, dict(now.typeof(name).fields)
        assert [(member, field.offset) for member, field in old] == [
            (member, new[member].offset) for member, _ in old
        ], name
        assert [then.getctype(field.type) for _, field in old] == [now.getctype(new[member].type) for member, _ in old]
    assert now.sizeof("demos_error") == then.sizeof("demos_error")
    assert now.sizeof("demos_stream") == then.sizeof("demos_stream")
    for enum in ("demos_model_flag", "demos_abi"):
        old_numbers = then.typeof(f"enum {enum}").relements
        new_numbers = now.typeof(f"enum {enum}").relements
        assert {n: v for n, v in new_numbers.items() if n in old_numbers} | {"DEMOS_ABI_MINOR": 0} == {
            **old_numbers,
            "DEMOS_ABI_MINOR": 0,
        }


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_sources_are_described_and_narrow(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("/*"), "no comment says what it is"
    assert not [nth for nth, line in enumerate(lines, 1) if len(line) > 120 or line != line.rstrip() or "\t" in line]
    assert len(lines) <= 400 or path.name == "demos.h"


# ---- whatever arrives -----------------------------------------------------------------------------------------------


def test_fuzzers_find_nothing(tmp_path: Path) -> None:
    require("clang")
    directory = build(tmp_path / "build", "-Dfuzz=true", "-Dtests=false", compiler="clang")
    golden = ROOT / "tests/golden"
    for name, seeds in (("wire", golden), ("stream", golden), ("json", tmp_path)):
        corpus = tmp_path / f"corpus-{name}"
        corpus.mkdir()
        command = [
            directory / f"csrc/fuzz/fuzz_{name}",
            f"-runs={FUZZ_RUNS}",
            "-seed=1",
            "-max_len=4096",
            "-verbosity=0",
        ]
        run([*command, corpus, *([seeds] if name != "json" else [])], cwd=tmp_path)


# ---- valgrind -------------------------------------------------------------------------------------------------------

CALLS = """
import sys
import numpy as np
from demos_hpc.config import Config
from demos_hpc.errors import DemosError
from demos_hpc.model import load

for path in sys.argv[1:]:
    model = load(path, Config(threads=2))
    params = np.array([0.5, 1.5])[: model.spec.n_params]
    x = np.arange(40.0).reshape(-1, 1) / 7
    try:
        model.log_density(x, params)
        model.log_density(x, np.tile(params, (40, 1)))
        model.log_density_gradient(x, params)
        model.log_density_gradient(x, params, wrt_x=True)
        model.sample(0, 3000, params, 1)
        model.evaluate(np.tile(params, (5, 1)))
    except DemosError as error:
        print(path, error)
"""


def run_under_valgrind(directory: Path, *models: str) -> list[tuple[str, str]]:
    """What valgrind says of our code and the models', kind and innermost function; Python is left alone."""
    require("valgrind")
    script, report = directory / "calls.py", directory / "report.xml"
    script.write_text(CALLS, encoding="utf-8")
    command = ["valgrind", "--xml=yes", f"--xml-file={report}", "--leak-check=full", "--show-leak-kinds=definite"]
    command += ["--error-limit=no", "--keep-debuginfo=yes"]  # Python alone has thousands; libraries are closed before
    environment = {**os.environ, "PYTHONMALLOC": "malloc", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    run([*command, sys.executable, script, *models], env=environment, cwd=ROOT)
    places = [str(Path(model.split(":")[0]).parent) for model in models]
    places += [str(find_installation(Config.load()).library)]
    found = []
    for error in ET.parse(report).iter("error"):
        frames = [(frame.findtext("obj", ""), frame.findtext("fn", "?")) for frame in error.iter("frame")]
        ours = [fn for obj, fn in frames if any(obj.startswith(place) for place in places)]
        if ours:
            found.append((error.findtext("kind", ""), ours[0]))
    return found


def test_valgrind_finds_what_a_model_does_and_nothing_else(workshop: Workshop, tmp_path: Path) -> None:
    peak = workshop.make(EXAMPLES / "peak.c", linked=False)
    peak.with_name("peak.json").write_bytes((EXAMPLES / "peak.json").read_bytes())
    failing = workshop.make(EXAMPLES / "failing.c")
    models = [str(workshop.make(EXAMPLES / "gaussian.c")), str(peak.with_name("peak.json"))]
    modes = ("error", "nan", "none", "leak", "overflow")
    models += [workshop.describe(failing, f"{mode}.json", settings={"mode": mode}) for mode in modes]
    assert set(run_under_valgrind(tmp_path, *models)) == {("Leak_DefinitelyLost", "fail"), ("InvalidWrite", "fail")}
