"""Where the C side is found, what is said of it, and what an installation has with and without a compiler."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from compiling import CSRC, EXAMPLES, ROOT, Workshop, run
from required import find_tool, require
from typer.testing import CliRunner, Result

from demos_hpc import installation
from demos_hpc.cli import app
from demos_hpc.config import Config
from demos_hpc.errors import InvalidInput
from demos_hpc.installation import Installation, find_installation


def invoke(*words: str, **variables: str) -> Result:
    return CliRunner().invoke(app, list(words), prog_name="demos-hpc", env={"COLUMNS": "140", **variables})


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A package and a repository of which nothing is built."""
    package, source = tmp_path / "site" / "demos_hpc", tmp_path / "source"
    (source / "csrc" / "include").mkdir(parents=True)
    (source / "csrc" / "include" / "demos.h").touch()
    package.mkdir(parents=True)
    monkeypatch.setattr(installation, "PACKAGE", package)
    monkeypatch.setattr(installation, "SOURCE", source)
    monkeypatch.setattr(installation, "INSTALLED", "libdemos-nowhere.so.1")  # one may be loaded
    return package, source


def put(directory: Path, record: Path, **built: Sequence[str]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "libdemos.so").touch()
    (record / "built.json").write_text(json.dumps(built), encoding="utf-8")
    return directory / "libdemos.so"


def test_the_library_is_searched_in_order(places: tuple[Path, Path], tmp_path: Path) -> None:
    package, source = places
    config = Config()
    assert find_installation(config) == Installation(source / "csrc/include", Path("libdemos-nowhere.so.1"))
    assert find_installation(config).libs == "-ldemos"
    editable = put(source / "build/cp311/csrc", source / "build/cp311", compilers=["cc 1"])
    assert find_installation(config) == Installation(source / "csrc/include", editable, ("cc 1",))
    built = put(source / "build/csrc", source / "build", compilers=["gcc 12"], left_out=["this", "that"])
    assert find_installation(config) == Installation(source / "csrc/include", built, ("gcc 12",), ("this", "that"))
    installed = put(package / "lib", package / "lib", compilers=["clang"])
    (package / "include").mkdir()
    (package / "include" / "demos.h").touch()
    assert find_installation(config).find_fortran(mpi=False)[-1] == package / "fortran" / "demos.f90"
    (package / "include" / "demos_types.f90").touch()
    assert find_installation(config).find_fortran(mpi=True)[-2] == package / "include" / "demos.f90"
    found = find_installation(config)
    assert found == Installation(package / "include", installed, ("clang",))
    assert (found.cflags, found.libs) == (
        f"-I{package}/include",
        f"-L{package}/lib -Wl,-rpath,{package}/lib -ldemos",
    )
    named = tmp_path / "named.so"
    named.touch()
    assert find_installation(Config(library=str(named))) == Installation(package / "include", named)
    with pytest.raises(InvalidInput, match=r"DEMOS_LIBRARY names /nowhere.so, which is no file"):
        find_installation(Config(library="/nowhere.so"))


def test_what_ranks_of_launches_need(places: tuple[Path, Path]) -> None:
    package, source = places
    with pytest.raises(InvalidInput, match=r"no libdemos_mpi \(it was built without MPI\): install .* `mpicc`"):
        find_installation(Config()).find_mpi()
    put(package / "lib", package / "lib", left_out=["libdemos_mpi: no mpicc"])
    with pytest.raises(InvalidInput, match=r"no libdemos_mpi \(libdemos_mpi: no mpicc\)"):
        find_installation(Config()).find_mpi()
    put(package / "lib", package / "lib", mpi_cflags=["-I/mpi"], mpi_libs=["-L/mpi/lib", "-lmpi"])
    (package / "lib" / "libdemos_mpi.so").touch()
    cflags, libs = find_installation(Config()).find_mpi()
    assert cflags == f"-I{source}/csrc/include -I/mpi"
    assert libs.startswith(f"-L{package}/lib -Wl,-rpath,{package}/lib -ldemos_mpi -L")
    assert libs.endswith(f"-L{package}/lib -Wl,-rpath,{package}/lib -ldemos -L/mpi/lib -lmpi")


def test_what_was_left_out_is_told_where_nothing_was_built(places: tuple[Path, Path]) -> None:
    package, _ = places
    (package / "lib").mkdir()
    (package / "lib" / "built.json").write_text('{"left_out": ["libdemos: no C compiler"]}', encoding="utf-8")
    assert find_installation(Config()).left_out == ("libdemos: no C compiler",)


def test_a_compiler_finds_what_config_says(workshop: Workshop, tmp_path: Path) -> None:
    require("cc")
    words = invoke("config", "--cflags", "--libs").output.split()
    assert words == [*invoke("config", "--cflags").output.split(), *invoke("config", "--libs").output.split()]
    library = tmp_path / "libgaussian.so"
    run(["cc", "-shared", "-fPIC", *words[:1], EXAMPLES / "gaussian.c", "-o", library, *words[1:], "-lm"])
    result = invoke("info", str(library), "--json")
    assert json.loads(result.output)["name"] == "gaussian"
    found = json.loads(invoke("config", "--json").output)
    assert found["cflags"] == words[0]
    assert Path(found["library"]).is_file()
    assert found["library"] in invoke("config").output
    modules = invoke("config", "--fortran").output.split()
    assert modules == found["fortran"].split()
    assert all(Path(module).is_file() for module in modules)
    if found["library_mpi"] is not None:
        assert invoke("config", "--fortran", "--mpi").output.split() == [
            *modules,
            modules[-1].replace(".f90", "_mpi.f90"),
        ]


def test_config_says_what_is_missing(places: tuple[Path, Path]) -> None:
    package, _ = places
    (package / "lib").mkdir()
    (package / "lib" / "built.json").write_text('{"left_out": ["libdemos: no C compiler"]}', encoding="utf-8")
    shutil.copy(CSRC / "include/demos.h", installation.SOURCE / "csrc/include/demos.h")
    result = invoke("config", DEMOS_LIBRARY="")
    assert result.exit_code == 0
    assert "libdemos: no C compiler" in result.output
    assert json.loads(invoke("config", "--json", DEMOS_LIBRARY="").output)["library"] is None
    assert invoke("config", "--cflags", DEMOS_LIBRARY="").exit_code == 0
    result = invoke("config", "--libs", DEMOS_LIBRARY="")
    assert result.exit_code == 1
    assert "models in C need libdemos" in result.output


# ---- what pip installs ----------------------------------------------------------------------------------------------


def install(directory: Path, *options: str, path: str | None = None) -> Path:
    """What meson installs, in a directory of its own; ``path`` is where programs are."""
    require("meson", "ninja", "sed")
    environment = {**os.environ, "PATH": path or f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("CC", None)
    meson = [sys.executable, find_tool("meson")]
    run([*meson, "setup", directory / "build", ROOT, "--prefix=/usr", *options], env=environment)
    run([*meson, "install", "-C", directory / "build", "--destdir", directory / "root"], env=environment)
    return directory / "root"


def list_files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def find_package(root: Path) -> Path:
    (package,) = {path.parent for path in root.rglob("py.typed")}
    return package


def read_left_out(package: Path) -> list[str]:
    left_out: list[str] = json.loads((package / "lib/built.json").read_text(encoding="utf-8"))["left_out"]
    return left_out


#: Asks a model, by modules that are compiled.
ASK = """
import pathlib, sys
import numpy as np
import demos_hpc
from demos_hpc import relay, scheduler, wire, worker
from demos_hpc.installation import has_compiled_modules
from demos_hpc.testing import Gaussian

assert has_compiled_modules()
for module in relay, scheduler, wire, worker:
    path = pathlib.Path(module.__file__)
    assert path.suffix == ".so" and path.parent.parent == pathlib.Path(sys.argv[1]), path
    assert path.with_name(module.__name__.split(".")[1] + ".py").is_file()
x = np.linspace(-1, 1, 6).reshape(6, 1)
model = demos_hpc.local(Gaussian, workers=2)
np.testing.assert_array_equal(model.log_density(x, model.params), Gaussian().log_density(x, model.params))
"""

PYTHON = ("-Dpython=true", "-Dtests=false", "-Dpython.bytecompile=-1")


def test_the_package_has_the_c_side_where_there_is_a_compiler(tmp_path: Path) -> None:
    require("cc")
    package = find_package(install(tmp_path, *PYTHON, "-Dcompiled=disabled"))
    files = list_files(package)
    assert files >= {"lib/libdemos.so", "include/demos.h", "lib/pkgconfig/demos.pc", "cli/__init__.py"}
    assert files >= {"include/demos_maas.h", "include/demos_client.hpp"}
    assert files >= {
        f"include/{path.name}" for path in Installation(package / "include", Path()).find_fortran(mpi=True)
    }
    assert not [name for name in files if "__pycache__" in name]
    built = json.loads((package / "lib/built.json").read_text(encoding="utf-8"))
    assert built["compilers"]
    assert not [what for what in built["left_out"] if what.startswith("libdemos,")]
    assert "compiled modules, for requests in half the time: -Dcompiled=disabled" in built["left_out"]
    assert not [path for path in package.rglob("*") if path.is_symlink()]  # a wheel has none
    sources = {str(path.relative_to(ROOT / "demos_hpc")) for path in (ROOT / "demos_hpc").rglob("*.py")}
    assert {name for name in files if name.endswith(".py")} == sources


def test_the_package_is_whole_without_a_compiler(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    require("meson", "ninja", "sed")
    for name in ("sed", "ninja"):
        (programs / name).symlink_to(str(find_tool(name)))
    package = find_package(install(tmp_path, *PYTHON, path=str(programs)))
    files = list_files(package)
    assert files >= {"include/demos.h", "lib/built.json", "native.py"}
    assert "lib/libdemos.so" not in files
    built = json.loads((package / "lib/built.json").read_text(encoding="utf-8"))
    assert "libdemos, which serves models in C: no C compiler was found" in built["left_out"]
    assert "compiled modules, for requests in half the time: no C compiler was found" in built["left_out"]


def test_hot_modules_are_compiled(tmp_path: Path) -> None:
    require("cc")
    pytest.importorskip("mypyc")
    pytest.importorskip("setuptools")
    place = find_package(install(tmp_path, *PYTHON, "-Dcompiled=enabled")).parent
    assert not [what for what in read_left_out(place / "demos_hpc") if what.startswith("compiled modules")]
    run([sys.executable, "-c", ASK, place], env={**os.environ, "PYTHONPATH": str(place)}, cwd=tmp_path)


def test_a_system_has_it_as_other_libraries(tmp_path: Path) -> None:
    require("cc", "pkg-config")
    root = install(tmp_path, "-Dtests=false")
    (description,) = root.rglob("demos.pc")
    libraries = description.parents[1]
    assert (libraries / "libdemos.so.1").resolve().is_file()
    assert not list(root.rglob("*.py"))
    said = run(["pkg-config", "--cflags", "--libs", description]).split()
    program = tmp_path / "program.c"
    program.write_text(
        "#include <demos.h>\n#include <stdio.h>\nint main(void) { puts(demos_version()); }\n", encoding="utf-8"
    )
    run(["cc", program, "-o", tmp_path / "program", *said])
    assert run([tmp_path / "program"], env={"LD_LIBRARY_PATH": str(libraries)}).strip()
