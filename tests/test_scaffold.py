"""Folders to begin with: what `demos-hpc new` writes builds, passes the checks, and is served."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from compiling import run
from launching import Launched, analyze, serve_spec
from required import require
from serving import serving
from typer.testing import CliRunner

import demos_hpc
from demos_hpc.cli import app
from demos_hpc.errors import InvalidInput
from demos_hpc.model import load
from demos_hpc.mpiexec import Program
from demos_hpc.scaffold import LANGUAGES, make_files, make_folder
from demos_hpc.testing import check_model

COMPILERS = {"c": "cc", "cpp": "c++", "fortran": "gfortran"}


@pytest.fixture
def words(tmp_path: Path) -> dict[str, str]:
    """An environment in which `demos-hpc` is that of this Python."""
    command = tmp_path / "bin" / "demos-hpc"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m demos_hpc "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    return {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}"}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.usefixtures("workshop")
def test_what_is_made_builds_and_passes(language: str, tmp_path: Path, words: dict[str, str]) -> None:
    name = f"My_{language}"
    folder = tmp_path / name
    make_folder(language, name, folder)
    path = f"{folder}/{name}.py:Model"
    if language != "python":
        require(COMPILERS[language], "make")
        run(["make"], cwd=folder, env=words)
        path = f"{folder}/{name}.json"
    with demos_hpc.local(path) as model:
        assert model.spec.name == name
        x = model.sample(1000, seed=3)
        params = np.array([0.1, 1.3])
        expected = -0.5 * ((x[:, 0] - 0.1) / 1.3) ** 2 - np.log(1.3) - 0.5 * np.log(2 * np.pi)
        assert np.allclose(model.log_density(x, params), expected, rtol=0, atol=1e-14)
    report = check_model(load(path).model, seed=1)
    assert report.passed, report


@pytest.mark.parametrize("language", COMPILERS)
@pytest.mark.usefixtures("workshop")
def test_the_program_is_served(
    language: str, tmp_path: Path, words: dict[str, str], launch: Callable[..., Launched]
) -> None:
    require(COMPILERS[language], "make", "mpicc")
    name = f"{language:_<51}"  # the longest that there may be
    folder = tmp_path / name
    make_folder(language, name, folder)
    run(["make", name], cwd=folder, env=words)
    program, description = folder / name, folder / f"{name}.json"
    launched = launch(serve_spec(description), Program(1, [str(program)]), analyze(folder / "analysis.py"))
    assert launched.code == 0, launched.text
    with serving(["--exec", str(program), "--spec", str(description)], tmp_path, workers=1) as server:
        out = run([sys.executable, folder / "analysis.py"], env=server.environment)
    assert "log_likelihood: -14" in out
    assert out == launched.out


def test_files_name_the_model_and_nothing_is_left_of_the_template() -> None:
    for language, (suffix, _) in LANGUAGES.items():
        texts = make_files(language, "decay")
        assert f"decay.{suffix}" in texts
        assert {"README.md", "analysis.py"} < set(texts)
        for file, text in texts.items():
            assert "NAME" not in file + text
            assert "SUFFIX" not in text


def test_a_name_may_have_words_of_the_template() -> None:
    for name in ("MySUFFIX", "SUFFIX", "NAME", "NAMESUFFIX"):
        texts = make_files("fortran", name)
        assert {f"{name}.f90", f"{name}.json"} < set(texts)
        assert texts == {
            file.replace("decay", name): text.replace("decay", name)
            for file, text in make_files("fortran", "decay").items()
        }


def test_a_new_model_is_called_by_one_thread() -> None:
    """A code with COMMON that takes the Gaussian's place would else be wrong now and then."""
    for language in COMPILERS:
        texts = make_files(language, "decay")
        assert [file for file, text in texts.items() if "thread_safe" in text.lower()] == ["README.md"]


@pytest.mark.parametrize(
    ("language", "name", "message"),
    [
        ("cobol", "decay", r"language 'cobol'; it is one of c, cpp, fortran, python"),
        ("c", "my-model", r"'my-model' is no name for a model in c"),
        ("c", "../decay", "is no name for a model"),
        ("fortran", "server", "is none of server"),
        ("c", "Makefile", "is none of .*makefile"),
        ("python", "1decay", "a letter first"),
        ("python", "d" * 52, "at most 51"),
    ],
)
def test_bad_names(language: str, name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=message):
        make_folder(language, name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "decay").mkdir()
    with pytest.raises(InvalidInput, match=r"decay exists already; choose another name"):
        make_folder("c", "decay", tmp_path / "decay")
    assert not list((tmp_path / "decay").iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match=r"cannot be made: Not a directory"):
        make_folder("c", "decay", tmp_path / "file" / "decay")


def test_the_command_says_what_it_made(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["new", "--language", "c", "decay", "--folder", str(tmp_path / "place")])
    assert result.exit_code == 0, result.output
    assert f"{tmp_path}/place/decay.c" in result.stdout.splitlines()
    result = CliRunner().invoke(app, ["new", "--language", "c", "decay", "--folder", str(tmp_path / "place")])
    assert result.exit_code == 1
