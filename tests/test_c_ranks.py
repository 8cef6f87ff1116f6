"""Ranks in C: models and analyses without Python in them, in one launch with others that are Python."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from compiling import CSRC, EXAMPLES, STRICT, Workshop, run
from launching import Launched, analyze, serve
from required import require

from demos_hpc.config import Config
from demos_hpc.errors import InvalidInput
from demos_hpc.installation import find_installation
from demos_hpc.mpiexec import Program

RANKS = CSRC / "tests" / "ranks"
DESCRIPTION = {"settings": {"d": 3}, "threads": 1}
SETTINGS = '{"d": 3}'

#: What ``call.c`` does, in Python: `call.py FILE`.
CALL = """
    import sys
    import numpy as np
    import demos_hpc
    from mpi4py import MPI

    model = demos_hpc.connect()
    N = 1000003
    points, outside = np.array([[0.3, 1.7], [-0.2, 0.9], [5.0, 40.0]]), np.array([0.0, -1.0])
    parts = [x := model.sample(N, points[0], seed=5)]
    rows = np.arange(N)
    params = np.stack([1e-6 * rows, np.where(rows % 1000 == 7, -1.0, 1.0 + 1e-6 * rows)], axis=1)
    for n in (N, 1000, 1):
        parts.append(model.log_density(x[:n], points[0]))
        parts.append(model.log_density(x[:n], params[:n]))
        parts.append(model.log_density_gradient(x[:n], params[:n])[1])
        parts.append(model.log_density_gradient(x[:n], points[0], wrt="x")[1])
        parts += model.log_likelihood_gradient(x[:n], points)
    parts.append(np.array(model.log_likelihood(x, outside)))
    parts.append(model.evaluate(points))
    with open(f"{sys.argv[1]}{MPI.COMM_WORLD.rank}", "wb") as file:
        for part in parts:
            file.write(np.ascontiguousarray(part).tobytes())
"""

ASK = """
    import sys
    import demos_hpc

    model = demos_hpc.connect()
    print(model.log_density([[float(sys.argv[1]), 0.0, 0.0]], [0.3, 1.7]))
"""


Launch = Callable[..., Launched]
Write = Callable[..., Path]


@pytest.fixture(scope="module")
def made(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The server and the client, and a plug-in of the same model."""
    require("cc")
    try:
        cflags, libs = map(shlex.split, find_installation(Config.load()).find_mpi())
    except InvalidInput as error:
        pytest.skip(str(error))
    directory = tmp_path_factory.mktemp("ranks")
    common = ["cc", "-std=c11", *STRICT, "-O2", *cflags]
    gaussian = EXAMPLES / "gaussian.c"
    run([*common, RANKS / "serve.c", gaussian, "-o", directory / "serve", *libs, "-lm"])
    run([*common, RANKS / "call.c", "-o", directory / "call", *libs, "-lm"])
    library = workshop.make(gaussian)
    workshop.describe(library, "plug-in.json", **DESCRIPTION)
    (directory / "spec.json").write_text('{"threads": 1}', encoding="utf-8")
    return {
        "serve": directory / "serve",
        "call": directory / "call",
        "spec": directory / "spec.json",
        "library": library,
        "plug-in": library.with_name("plug-in.json"),
    }


def server(made: dict[str, Path], ranks: int, settings: str = SETTINGS) -> list[Program]:
    """A dispatcher, and workers in C."""
    words = [sys.executable, "-m", "demos_hpc", "serve", "--spec", str(made["spec"])]
    return [Program(1, words), Program(ranks, [str(made["serve"]), settings])]


def call(made: dict[str, Path], *words: str, ranks: int = 1) -> Program:
    """Ranks of an analysis in C."""
    return Program(ranks, [str(made["call"]), *words])


def squeeze(text: str) -> str:
    return " ".join(text.split())


def test_whoever_serves_and_whoever_calls_bits_are_the_same(
    launch: Launch, made: dict[str, Path], write_script: Write, tmp_path: Path
) -> None:
    script = write_script(CALL, "call.py")
    servers = {str(ranks): server(made, ranks) for ranks in (1, 2, 5)}
    servers["python"] = [serve(f"{made['library']}:{made['plug-in']}", ranks=3)]
    answers = {}
    for name, programs in servers.items():
        launched = launch(*programs, call(made, f"c{name}-"), analyze(script, f"python{name}-"), deadline=240.0)
        assert launched.code == 0, launched.text
        assert "it: 1 of 1, d 3 p 2 q 2" in launched.out
        for caller in ("c", "python"):
            path = tmp_path / f"{caller}{name}-0"
            answers[caller, name] = path.read_bytes()
            path.unlink()
    first = answers["python", "python"]
    assert len(first) > 8 * 1_000_003 * 10
    assert {caller: answer == first for caller, answer in answers.items()} == dict.fromkeys(answers, True)


def test_analyses_have_communicators_of_their_own(launch: Launch, made: dict[str, Path], tmp_path: Path) -> None:
    launched = launch(*server(made, 2), call(made, "a", ranks=2), call(made, "b", "gaussian"), deadline=240.0)
    assert launched.code == 0, launched.text
    assert launched.out.count("it: 2 of 2,") == 2
    assert launched.out.count("gaussian: 1 of 1,") == 1
    assert launched.out.count("1 this rank has disconnected, and cannot connect again") == 3
    assert (tmp_path / "a0").read_bytes() == (tmp_path / "a1").read_bytes() == (tmp_path / "b0").read_bytes()


@pytest.mark.parametrize(("row", "what"), [(77, "called exit()"), (78, "crashed"), (79, "crashed")])
def test_a_model_that_ends_its_process_ends_the_launch_and_says_how_to_avoid_that(
    row: int, what: str, launch: Launch, made: dict[str, Path], write_script: Write
) -> None:
    launched = launch(*server(made, 2), analyze(write_script(ASK), str(row)))
    assert launched.code != 0
    assert f"the code of the model has {what}, and MPI ends the whole launch with it" in launched.err, launched.text
    assert "demos-hpc serve --exec PROGRAM --workers 4" in launched.err
    if row == 77:
        assert "no table" in launched.out, launched.text


def test_an_analysis_that_ends_in_the_middle_ends_the_launch(launch: Launch, made: dict[str, Path]) -> None:
    launched = launch(*server(made, 1), call(made, "exit"))
    assert launched.code != 0
    assert "has ended in the middle, without demos_disconnect(); the launch ends for all ranks" in launched.err


def test_a_model_that_is_not_there_is_named(launch: Launch, made: dict[str, Path]) -> None:
    launched = launch(*server(made, 1), call(made, "out", "gausian"))
    assert launched.code != 0
    assert "gausian" in launched.err, launched.text
    assert "gaussian" in launched.err


def test_a_model_that_cannot_be_served_says_why(launch: Launch, made: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"threads": 1, "paramters": []}', encoding="utf-8")
    launched = launch(*server({**made, "spec": tmp_path / "bad.json"}, 1), call(made, "out"))
    assert launched.code != 0
    assert "paramters" in launched.err, launched.text


@pytest.mark.parametrize("program", ["serve", "call"])
def test_a_program_in_c_that_is_rank_0_says_what_comes_first(
    program: str, launch: Launch, made: dict[str, Path]
) -> None:
    words = [str(made[program]), SETTINGS]
    message = {
        "serve": "this program is rank 0, where the dispatcher has to be: mpiexec -n 1 demos-hpc serve --spec",
        "call": "this program calls a model, and has no connection to one: demos-hpc ticket NAME -- PROGRAM, or",
    }[program]
    for launched in (launch(Program(1, words)), launch(Program(2, words))):
        assert launched.code != 0
        assert message in squeeze(launched.err)
