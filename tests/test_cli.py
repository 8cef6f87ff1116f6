"""The command line as people and scripts meet it."""

from __future__ import annotations

import json
import math
import os
import select
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from launching import PACKAGE, Launched
from launching import run as run_command
from typer.testing import CliRunner, Result

import demos_hpc
from demos_hpc.cli import app
from demos_hpc.cli.arrays import read_array
from demos_hpc.cli.group import mark_script
from demos_hpc.cli.output import to_plain
from demos_hpc.errors import InvalidInput
from demos_hpc.handover import Program
from demos_hpc.mpiexec import find_launcher

GAUSSIAN = "demos_hpc.testing:Gaussian"
ODD = str(Path(__file__).with_name("odd_models.py"))
COMMANDS = ("run", "serve", "info", "call", "check", "demo", "bench", "doctor")
DEMOS = (sys.executable, "-m", "demos_hpc")


def invoke(*words: str) -> Result:
    """Runs a command in this process."""
    return CliRunner().invoke(app, list(words), prog_name="demos-hpc", env={"COLUMNS": "140"})


def read(*words: str) -> Any:
    """The JSON that a command prints, which is standard JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    result = invoke(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout, parse_constant=refuse)


def fail(*words: str, status: int = 1) -> str:
    """What a command that fails says, without a Python stack."""
    result = invoke(*words)
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return " ".join(result.stderr.replace("│", " ").split())


# ---- for all commands ----------------------------------------------------------------------------------------


def test_version_and_help() -> None:
    assert invoke("--version").stdout == f"demos-hpc {demos_hpc.__version__}\n"
    text = invoke("--help").stdout
    assert all(command in text for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert f"Usage: demos-hpc {command}" in result.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["nosuch"],
        ["info"],
        ["info", "nu_atm", "--nosuch"],
        ["call", "nu_atm"],
        ["run", "nu_atm"],
        ["bench", "--nosuch"],
    ],
)
def test_wrong_usage_has_status_2(words: list[str]) -> None:
    assert "Usage: demos-hpc" in fail(*words, status=2)


def test_debug_shows_our_stack_and_nothing_else_does(tmp_path: Path) -> None:
    result = invoke("--debug", "info", "no.py:Model")
    assert isinstance(result.exception, demos_hpc.ModelNotFound)
    assert fail("info", "no.py:Model") == f"demos-hpc: model file 'no.py' does not exist (from {Path.cwd()})"


def test_json_of_anything() -> None:
    value = {
        "a": np.array([1.0, math.nan]),
        "b": (np.float64("inf"), -math.inf, np.int64(3), True, None),
        "c": Path("x"),
    }
    assert to_plain(value) == {"a": [1.0, "nan"], "b": ["inf", "-inf", 3, True, None], "c": "x"}


# ---- models --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no.py:Model", "model file 'no.py' does not exist"),
        ("no_such_module:Model", "there is no module 'no_such_module'"),
        ("demos_hpc.testing:Nobody", "has no 'Nobody'"),
        (f"{ODD}:Nobody", "it has DensityOnly"),
        ("neutrino", "short name of a model that comes with demos-hpc: nu_atm"),
    ],
)
@pytest.mark.parametrize("command", ["info", "check"])
def test_model_that_is_not_there(command: str, path: str, message: str) -> None:
    assert message in fail(command, path)


def test_call_of_a_model_that_is_not_there() -> None:
    assert fail("call", "no.py:Model", "sample").startswith("demos-hpc: model file 'no.py' does not exist")


def test_model_that_cannot_be_imported_shows_its_own_traceback(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("def load():\n    return 1 / 0\n\n\nload()\n", encoding="utf-8")
    result = invoke("info", f"{path}:Model")
    assert result.exit_code == 1
    lines = result.stderr.strip().splitlines()
    assert lines[-1].startswith("demos-hpc: model")
    assert "ZeroDivisionError" in lines[-1]
    assert lines[0] == "Traceback (most recent call last):"
    assert f'File "{path}", line 5' in lines[1]
    assert not any("demos_hpc" in line for line in lines[:-1])


def test_model_without_a_spec(tmp_path: Path) -> None:
    path = tmp_path / "bare.py"
    path.write_text("class Model:\n    pass\n", encoding="utf-8")
    assert "has no attribute 'spec'" in fail("info", f"{path}:Model")


def test_info() -> None:
    text = invoke("info", "nu_atm").stdout
    for word in (
        "nu_atm",
        "s23sq",
        "eV^2",
        "E_reco",
        "rate_E0_cz0",
        "88 more",
        "log_density_gradient",
        "BSD-3",
        "NuFIT",
    ):
        assert word in text
    spec = read("info", "nu_atm")
    assert [p["name"] for p in spec["parameters"]][2] == "s23sq"
    assert len(spec["outputs"]) == 100


def test_info_of_brackets(tmp_path: Path) -> None:
    """Names and descriptions are no markup."""
    path = tmp_path / "brackets.py"
    path.write_text(
        "from demos_hpc.testing import Gaussian\nfrom dataclasses import replace\n\n\nclass Model(Gaussian):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.spec = replace(self.spec, description='energies [bold] in [GeV]', citation='[/]')\n",
        encoding="utf-8",
    )
    assert "energies [bold] in [GeV]" in invoke("info", f"{path}:Model").stdout


# ---- call ----------------------------------------------------------------------------------------------------


def test_density_of_rows_given_in_words() -> None:
    answer = read("call", GAUSSIAN, "log_density", "--x", "0; 1 ;2", "--params", "mu=1,sigma=2")
    expected = -0.5 * ((np.arange(3) - 1) / 2) ** 2 - math.log(2) - 0.5 * math.log(2 * math.pi)
    assert answer["params"] == {"mu": 1, "sigma": 2}
    np.testing.assert_allclose(answer["result"], expected, rtol=1e-15)
    text = invoke("call", GAUSSIAN, "log_density", "--x", "0; 1 ;2", "-p", "mu=1", "-p", "sigma=2").stdout
    assert f"{expected[0]:.10g}" in text


def test_parameters_that_are_not_given_have_their_defaults() -> None:
    answer = read("call", GAUSSIAN, "log_density", "--x", "0", "--params", "mu=0.5")
    assert answer["params"] == {"mu": 0.5, "sigma": 1}
    assert read("call", GAUSSIAN, "log_density", "--x", "0")["params"] == {"mu": 0, "sigma": 1}


def test_results_that_are_not_finite_are_valid_json() -> None:
    answer = read("call", f"{ODD}:Improper", "log_density", "--x", "7;8;nan;0", "--params", "sigma=1")
    assert answer["result"][:3] == ["inf", "nan", "nan"]
    assert answer["nonfinite_rows"] == 3
    assert read("call", GAUSSIAN, "log_density", "--x", "0", "--params", "sigma=-1")["result"] == ["-inf"]
    assert "3 rows answered with nan" in invoke("call", f"{ODD}:Improper", "log_density", "--x", "7;8;nan").stdout


def test_gradients_come_behind_their_value() -> None:
    answer = read("call", GAUSSIAN, "log_density_gradient", "--x", "1;2")
    assert answer["columns"] == ["log_density", "d/dmu", "d/dsigma"]
    np.testing.assert_allclose(answer["result"]["gradient"], [[1, 0], [2, 3]])
    answer = read("call", GAUSSIAN, "log_density_gradient", "--x", "1;2", "--wrt", "x")
    np.testing.assert_allclose(answer["result"]["gradient"], [[-1], [-2]])
    answer = read("call", GAUSSIAN, "log_likelihood_gradient", "--x", "1;2")
    np.testing.assert_allclose(answer["result"]["gradient"], [3, 3])


def test_finite_differences() -> None:
    words = ("call", f"{ODD}:DensityOnly", "log_density_gradient", "--x", "1;2", "--params", "rate=2")
    assert "method='finite-difference'" in fail(*words)
    np.testing.assert_allclose(read(*words, "--finite-difference")["result"]["gradient"], [[-0.5], [-1.5]], rtol=1e-6)
    assert "is no gradient" in fail("call", GAUSSIAN, "sample", "--finite-difference", status=2)


def test_samples_have_a_seed() -> None:
    one, two = (read("call", GAUSSIAN, "sample", "--n", "5", "--seed", "3") for _ in range(2))
    assert one == two
    assert np.shape(one["result"]) == (5, 1)
    other = read("call", GAUSSIAN, "sample", "--n", "5")
    assert read("call", GAUSSIAN, "sample", "--n", "5", "--seed", str(other["seed"])) == other
    assert read("call", GAUSSIAN, "sample", "--n", "0")["result"] == []


def test_evaluate_of_several_points(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text("a,b\n1,2\n3,4\n", encoding="utf-8")
    answer = read("call", f"{ODD}:Line", "evaluate", "--params", str(path))
    assert answer["result"] == [[1, 3, 5], [3, 7, 11]]
    assert read("call", f"{ODD}:Line", "evaluate")["result"] == [1, 3, 5]
    assert "y2" in invoke("call", f"{ODD}:Line", "evaluate").stdout


def test_parameters_from_json(tmp_path: Path) -> None:
    path = tmp_path / "params.json"
    path.write_text('{"mu": [0, 1]}', encoding="utf-8")
    answer = read("call", GAUSSIAN, "log_density", "--x", "1;1", "--params", str(path))
    assert answer["result"][1] - answer["result"][0] == pytest.approx(0.5)
    path.write_text("[1, 1]", encoding="utf-8")
    assert read("call", GAUSSIAN, "log_density", "--x", "1", "--params", str(path))["params"] == [1, 1]


@pytest.mark.parametrize("name", ["x.npy", "x.csv", "x.txt", "flat.npy"])
def test_data_from_files(tmp_path: Path, name: str) -> None:
    x = np.array([[0.5], [1.5]])
    path = tmp_path / name
    if name.endswith(".npy"):
        np.save(path, x[:, 0] if name == "flat.npy" else x)
    else:
        path.write_text(("x0\n" if name == "x.csv" else "# x0\n") + "0.5\n1.5\n", encoding="utf-8")
    assert len(read("call", GAUSSIAN, "log_density", "--x", str(path))["result"]) == 2


@pytest.mark.parametrize("ending", ["npy", "csv", "json"])
def test_results_are_written(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"out.{ending}"
    result = invoke("call", GAUSSIAN, "log_density_gradient", "--x", "1;2;nan", "--out", str(path))
    assert result.exit_code == 0, result.output
    assert "written to" in result.stdout
    if ending == "npy":
        assert np.load(path).shape == (3, 3)
    elif ending == "csv":
        assert path.read_text(encoding="utf-8").splitlines()[0] == "log_density,d/dmu,d/dsigma"
        assert np.isnan(read_array(str(path), "out")[2]).all()
    else:
        assert json.loads(path.read_text(encoding="utf-8"))["result"]["value"][2] == "nan"


@pytest.mark.parametrize("ending", ["npy", "csv", "json", "h5"])
def test_results_are_not_overwritten_unasked(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"out.{ending}"
    words = ("call", GAUSSIAN, "sample", "--n", "3", "--out", str(path))
    assert invoke(*words, "--seed", "1").exit_code == 0
    before = path.read_bytes()
    assert "exists already" in fail(*words, "--seed", "2")
    assert path.read_bytes() == before
    assert invoke(*words, "--seed", "2", "--overwrite").exit_code == 0
    assert path.read_bytes() != before


@pytest.mark.parametrize("option", ["--x", "--params"])
def test_what_a_call_reads_is_not_overwritten(tmp_path: Path, option: str) -> None:
    path = tmp_path / "points.npy"
    np.save(path, [[0.0, 1.0], [1.0, 2.0]])
    words = ("call", GAUSSIAN, "log_density", "--x", "1;2", option, str(path), "--out", str(path), "--overwrite")
    assert "points.npy is the very file that is read" in fail(*words)


def test_empty_results_are_written(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    assert invoke("call", GAUSSIAN, "sample", "--n", "0", "--out", str(path)).exit_code == 0
    assert path.read_text(encoding="utf-8").split() == ["x0"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["log_density", "--x", "1,2;3,4"], "takes (n, 1)"),
        (["log_density", "--x", "1;a"], "it is a file (.npy"),
        (["log_density", "--x", "1,2;3"], "it is a file (.npy"),
        (["log_density", "--x", "no.npy"], "no.npy cannot be read"),
        (["log_density", "--x", "no.csv"], "no.csv cannot be read"),
        (["log_density", "--x", "1", "--params", "tau=1"], "unknown tau"),
        (["log_density", "--x", "1", "--params", "mu"], "neither name=value nor a file"),
        (["log_density", "--x", "1", "--params", "mu=abc"], "'mu=abc' is not name=value"),
        (["log_density", "--x", "1", "--params", "no.json"], "no.json cannot be read"),
        (["log_density", "--x", "1", "--params", "no.npy"], "no.npy cannot be read"),
        (["sample", "--n", "-1"], "n is -1"),
        (["sample", "--seed", "-1"], "seed is -1"),
        (["sample", "--params", "sigma=-1"], "'sigma' is -1.0, outside"),
        (["sample", "--out", "/no/such/place/x.npy"], "cannot be written"),
        (["sample", "--out", "x.xlsx"], "ends in .npy, .csv, .json"),
        (["sample", "--out", "."], "of which kind"),
    ],
)
def test_bad_input_of_call(words: list[str], message: str) -> None:
    assert message in fail("call", GAUSSIAN, *words)


def test_bad_files_of_parameters(tmp_path: Path) -> None:
    path = tmp_path / "params.json"
    for text, message in (
        ("{", "cannot be read"),
        ('"a"', "holds str"),
        ('["a"]', "no numbers"),
        ('{"mu": "a"}', "dtype"),
    ):
        path.write_text(text, encoding="utf-8")
        assert message in fail("call", GAUSSIAN, "log_density", "--x", "1", "--params", str(path))
    path.write_text("[0, 1]", encoding="utf-8")
    assert "given alone" in fail("call", GAUSSIAN, "log_density", "--x", "1", "-p", "mu=1", "-p", str(path))


def test_arrays_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    for content in (b"", b"no array", b"\x93NUMPY\x01\x00v\x00"):
        path.write_bytes(content)
        with pytest.raises(InvalidInput, match="cannot be read"):
            read_array(str(path), "x")
    np.save(path, np.array(["a"]))
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_array(str(path), "x")


def test_operations_that_are_not_there() -> None:
    assert "is not one of" in fail("call", GAUSSIAN, "integrate", status=2)
    assert "needs data: --x" in fail("call", GAUSSIAN, "log_density", status=2)
    assert "offers no evaluate" in fail("call", f"{ODD}:Uniform", "evaluate")


def test_model_that_raises_shows_its_traceback() -> None:
    result = invoke("call", "demos_hpc.testing:Failing", "log_density", "--x", "1")
    lines = result.stderr.strip().splitlines()
    assert result.exit_code == 1
    assert "raised ArithmeticError: row 0 is above" in lines[-1]
    assert lines[0] == "Traceback (most recent call last):"
    assert not any("model.py" in line or "worker.py" in line for line in lines)


# ---- check ---------------------------------------------------------------------------------------------------

QUICK = ("--draws", "2000", "--max-rows", "20000")


def test_check_of_a_good_model() -> None:
    result = invoke("check", GAUSSIAN, *QUICK)
    assert result.exit_code == 0, result.output
    assert "gaussian passed: 0 failed" in result.stdout


def test_check_of_a_wrong_model(tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(
        "from demos_hpc.testing import Gaussian\n\n\nclass Wrong(Gaussian):\n"
        "    def log_density(self, x, params):\n        return super().log_density(x, params) + 0.1\n",
        encoding="utf-8",
    )
    result = invoke("check", f"{path}:Wrong", *QUICK)
    assert result.exit_code == 1
    assert "gaussian FAILED" in result.stdout
    plain = invoke("check", f"{path}:Wrong", *QUICK, "--json")
    assert plain.exit_code == 1
    verdict = json.loads(plain.stdout)
    assert not verdict["passed"]
    assert "log_density.normalized" in [f["check"] for f in verdict["findings"] if f["outcome"] == "failed"]


# ---- launches ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["m", "fit.py", "--workers", "9"], ["m", "--", "fit.py", "--workers", "9"]),
        (
            ["--workers", "3", "m", "--dry-run", "fit.py", "-h"],
            ["--workers", "3", "m", "--dry-run", "--", "fit.py", "-h"],
        ),
        (["m", "--workers=3", "fit.py"], ["m", "--workers=3", "--", "fit.py"]),
        (["m", "-w", "3", "--", "fit.py", "a"], ["m", "-w", "3", "--", "fit.py", "a"]),
        (["m"], ["m"]),
        ([], []),
    ],
)
def test_what_stands_behind_the_script_is_its_own(words: list[str], expected: list[str]) -> None:
    assert mark_script(words, {"--dry-run", "-h", "--help"}) == expected


def test_dry_run(write_script: Callable[..., Path]) -> None:
    script = write_script("")
    result = invoke(
        "run",
        GAUSSIAN,
        "-w",
        "2",
        "-w",
        "1",
        "--model",
        "nu_atm",
        "--dry-run",
        "--ranks",
        "3",
        str(script),
        "--ranks",
        "a b",
    )
    assert result.exit_code == 0, result.output
    words = shlex.split(result.stdout)
    assert any(word.startswith("DEMOS_RUN_DIR=") for word in words)
    text = " ".join(words)
    python = " ".join(DEMOS)
    for part in (
        f"-n 3 {python} serve {GAUSSIAN} :",
        f"-n 1 {python} serve nu_atm :",
        f"-n 3 {python} {script} --ranks a b",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([GAUSSIAN, "no.py"], "there is no script 'no.py'"),
        (["no.py:Model", "SCRIPT"], "model file 'no.py' does not exist"),
        ([GAUSSIAN, "--workers", "0", "SCRIPT"], "each needs one at least"),
        ([GAUSSIAN, "--ranks", "0", "SCRIPT"], "each needs one at least"),
        ([GAUSSIAN, "-w", "1", "-w", "2", "SCRIPT"], "give one for all"),
        ([GAUSSIAN, "--launcher", "pbs", "SCRIPT"], "there are auto, mpich, openmpi, slurm"),
    ],
)
def test_bad_input_of_run(words: list[str], message: str, write_script: Callable[..., Path]) -> None:
    script = str(write_script(""))
    assert message in fail("run", *(script if word == "SCRIPT" else word for word in words))


def test_no_launcher_at_all(write_script: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert "pip install mpich" in fail("run", GAUSSIAN, str(write_script("")))
    assert "pip install mpich" in fail("call", GAUSSIAN, "sample", "--workers", "1")


def test_serve_without_a_launch_is_a_server_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("PMI", "OMPI", "SLURM", "PALS")):
            monkeypatch.delenv(name)
    begun = []
    monkeypatch.setattr("demos_hpc.cli.servers.supervise", lambda *arguments: begun.append(arguments))
    assert invoke("serve", GAUSSIAN, "--workers", "3", "--name", "peak").exit_code == 0
    assert begun == [(GAUSSIAN, 3, "peak", None)]
    begun.clear()
    assert invoke("serve", "--exec", "sh", "--name", "peak", "--", "-c", "exit").exit_code == 0
    assert begun == [("", 2, "peak", None, Program("sh", ("-c", "exit")))]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["serve"], "serve takes a MODEL, or a program by --exec"),
        (["serve", GAUSSIAN, "other"], f"{GAUSSIAN} other: serve takes one MODEL"),
        (["serve", GAUSSIAN, "--spec", "m.json"], "a MODEL describes itself, and --spec is for programs"),
        (["serve", "--spec", "m.json"], "mpiexec -n 1 demos-hpc serve --spec m.json : -n 4 ./program : -n 1 python"),
        (["serve", "--exec", "./none"], "there is no program './none'"),
        (["serve", "--exec", "sh", "--spec", "m.json"], "model file 'm.json' does not exist"),
        (["worker", "--join", "x", "--spec", "m.json"], "--spec m.json: name the program that this is for by --exec"),
        (["worker", "--join", "x", "a", "b"], "a b: name the program that this is for by --exec"),
        (["worker", "--join", "x", "--exec", "sh", "--model", "m"], "--model m is loaded by Python, and --exec sh is"),
        (["ticket", "x", "./none", "--help"], "there is no program './none'"),
    ],
)
def test_programs_that_are_not_as_they_should_be(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("PMI", "OMPI", "SLURM", "PALS")):
            monkeypatch.delenv(name)
    assert message in fail(*words)


def test_a_rank_that_describes_a_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    served = []
    monkeypatch.setattr("demos_hpc.programs.serve", lambda *arguments: served.append((arguments[0], arguments[2])))
    monkeypatch.setattr("demos_hpc.cli.launches.limit_threads", lambda *arguments: {})
    for name, value in {"PMI_RANK": "0", "PMI_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "m.json"
    path.write_text('{"name": "x"}', encoding="utf-8")
    assert invoke("serve", "--spec", str(path)).exit_code == 0
    assert invoke("serve", GAUSSIAN).exit_code == 0
    assert served == [("", str(path)), (GAUSSIAN, "")]


@pytest.mark.parametrize(
    ("words", "before", "expected"),
    [([], None, "1"), ([], "4", None), (["--threads", "3"], "4", "3"), (["--threads", "4"], "4", None)],
)
def test_serve_begins_anew_where_libraries_have_read_other_numbers_of_threads(
    words: list[str], before: str | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Begun(Exception):
        pass

    def begin_anew(*arguments: object) -> None:
        raise Begun

    def serve(*arguments: object) -> None:
        assert expected is None

    monkeypatch.setattr(os, "execv", begin_anew)
    monkeypatch.setattr(os, "environ", os.environ.copy())  # which a rank changes for good
    monkeypatch.setattr("demos_hpc.programs.serve", serve)
    for name, value in {
        "PMI_RANK": "0",
        "PMI_SIZE": "2",
        "OMP_NUM_THREADS": before,
        "OPENBLAS_NUM_THREADS": before,
    }.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    result = invoke("serve", GAUSSIAN, *words)
    assert isinstance(result.exception, Begun) == (expected is not None), result.output
    assert os.environ["OMP_NUM_THREADS"] == (expected or before)


@pytest.fixture
def demos(tmp_path: Path) -> Callable[..., Launched]:
    """Runs ``demos-hpc`` with its own processes, in an empty directory."""

    def run(*words: str, deadline: float = 60.0) -> Launched:
        launched = run_command([*DEMOS, *words], cwd=tmp_path, deadline=deadline, settings={"COLUMNS": "140"})
        assert launched.code != -9, launched.text
        assert not launched.left, launched.text
        return launched

    return run


ANALYSIS = """
import sys
import demos_hpc
from mpi4py import MPI

model = demos_hpc.connect("gaussian")
total = MPI.COMM_WORLD.allreduce(1)
if MPI.COMM_WORLD.rank == 0:
    print("ranks", total, "arguments", sys.argv[1:], "density", model.log_density([[0.0]]))
sys.exit(int(sys.argv[-1]))
"""


def test_run(demos: Callable[..., Launched], write_script: Callable[..., Path]) -> None:
    write_script(ANALYSIS)
    launched = demos("run", GAUSSIAN, "--workers", "1", "--ranks", "2", "analysis.py", "--workers", "a b", "0")
    assert launched.code == 0, launched.text
    assert "ranks 2 arguments ['--workers', 'a b', '0'] density [-0.91893853]" in launched.out
    assert launched.err == ""


def test_run_leaves_nothing_behind(write_script: Callable[..., Path], tmp_path: Path) -> None:
    write_script(ANALYSIS)
    with tempfile.TemporaryDirectory() as place:  # short, since MPI puts sockets there
        command = [*DEMOS, "run", GAUSSIAN, "--workers", "1", "analysis.py", "0"]
        launched = run_command(command, cwd=tmp_path, deadline=60, settings={"TMPDIR": place})
        assert launched.code == 0, launched.text
        assert not list(Path(place).glob("demos-run-*"))


def test_run_passes_the_exit_status_on(demos: Callable[..., Launched], write_script: Callable[..., Path]) -> None:
    write_script(ANALYSIS)
    launched = demos("run", GAUSSIAN, "--workers", "1", "analysis.py", "7")
    assert launched.code == 7, launched.text
    assert "analysis.py exited with status 7 on rank 2" in launched.err
    assert launched.err.rstrip().endswith("demos-hpc: the launch ended with exit status 7")


def test_script_that_raises_shows_its_own_traceback(
    demos: Callable[..., Launched], write_script: Callable[..., Path]
) -> None:
    write_script("import demos_hpc\nmodel = demos_hpc.connect()\n1 / 0\n")
    launched = demos("run", GAUSSIAN, "--workers", "1", "analysis.py")
    assert launched.code == 1
    assert "ZeroDivisionError" in launched.err
    assert "runpy" not in launched.err
    assert "programs.py" not in launched.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_ends_its_launch_when_it_is_told_to_end(
    number: signal.Signals, write_script: Callable[..., Path], tmp_path: Path
) -> None:
    write_script("import os, time\nimport demos_hpc\ndemos_hpc.connect()\nprint('pid', os.getpid())\ntime.sleep(100)\n")
    command = [*DEMOS, "run", GAUSSIAN, "--workers", "1", "analysis.py"]
    environment = {**os.environ, "PYTHONPATH": PACKAGE}
    # What a shell starts in the background ignores SIGINT, and so would all that is started here.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        signal.signal(signal.SIGINT, before)
        try:
            line = process.stdout.readline()
            rank = os.pidfd_open(int(line.split()[1]))
            process.send_signal(number)
            assert process.wait(40) == 128 + number
            assert select.select([rank], [], [], 20)[0], "a rank outlived its launch"
            os.close(rank)
        finally:
            process.terminate()


def test_call_over_mpi(demos: Callable[..., Launched]) -> None:
    launched = demos(
        "call", "nu_atm", "sample", "--n", "2000", "--seed", "1", "--workers", "2", "--out", "x.npy", "--json"
    )
    assert launched.code == 0, launched.text
    assert json.loads(launched.out) == read("call", "nu_atm", "sample", "--n", "2000", "--seed", "1")
    assert "\x1b" not in launched.out


SRUN = """
import os, shlex, sys
from pathlib import Path

if "--mpi=list" in sys.argv:
    print("MPI plugin types are...\\n\\tnone pmi2 pmix")
    sys.exit()
words, ranks = [{mpiexec!r}, *{options!r}], 0
for line in Path(sys.argv[-1]).read_text().splitlines():
    place, *command = shlex.split(line)
    first, _, last = place.partition("-")
    n = int(last or first) - int(first) + 1
    ranks += n
    words += ["-n", str(n), *command, ":"]
assert f"--ntasks={{ranks}}" in sys.argv
print("srun was here", flush=True)
del os.environ["SLURM_JOB_ID"]
os.execv(words[0], words[:-1])
"""


def test_run_inside_an_allocation(
    demos: Callable[..., Launched], write_script: Callable[..., Path], tmp_path: Path
) -> None:
    """A program in srun's place reads its file of programs, and starts them by mpiexec."""
    launcher = find_launcher({"PATH": os.environ["PATH"]})
    options = ["--oversubscribe", "--allow-run-as-root"] if launcher.kind == "openmpi" else []
    script = write_script(SRUN.format(mpiexec=launcher.path, options=options), "srun.py")
    srun = tmp_path / "srun"
    srun.write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(script))} "$@"\n', encoding="utf-8"
    )
    srun.chmod(0o755)
    write_script(ANALYSIS)
    command = [*DEMOS, "run", GAUSSIAN, "--workers", "1", "--ranks", "2", "analysis.py", "it's 50 %t", "0"]
    settings = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    launched = run_command(command, cwd=tmp_path, deadline=60, settings=settings)
    assert launched.code == 0, launched.text
    assert "srun was here" in launched.out
    assert "ranks 2 arguments [\"it's 50 %t\", '0']" in launched.out


def test_errors_of_a_call_over_mpi_are_one_line(demos: Callable[..., Launched]) -> None:
    launched = demos("call", GAUSSIAN, "sample", "--n", "-1", "--workers", "1")
    assert (launched.code, launched.out) == (1, "")
    assert launched.err.strip() == "demos-hpc: n is -1; it is a number of draws, an int from 0 to 2**63 - 1"


def test_launcher_that_is_insisted_on(demos: Callable[..., Launched]) -> None:
    kind = find_launcher({"PATH": os.environ["PATH"]}).kind
    other = {"mpich": "openmpi", "openmpi": "mpich"}[kind]
    assert demos("call", GAUSSIAN, "sample", "-w", "1", "--launcher", kind).code == 0
    launched = demos("call", GAUSSIAN, "sample", "-w", "1", "--launcher", other)
    assert launched.code == 1
    assert f"belongs to {kind}, not to {other}" in launched.err
