"""Whole launches under mpiexec: server and analyses in one MPI world, happy ones and unhappy ones.

Every launch ends within seconds, says which rank was at fault and what to do, and leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from launching import Launched, analyze, run, serve

from demos_hpc.mpiexec import Program

Launch = Callable[..., Launched]
Write = Callable[..., Path]

GAUSSIAN = "demos_hpc.testing:Gaussian"
LINEAR = "demos_hpc.testing:LinearGaussian"
#: Seconds until missing ranks are named; enough for those that come to start on a busy machine.
ROLL_CALL = 8.0

CONNECT = """
    import demos_hpc

    model = demos_hpc.connect()
    print("density", model.log_density([[0.0]], [0.0, 1.0])[0])
"""


def plain(script: Path) -> Program:
    """A rank that was started without our launcher."""
    return Program(1, [sys.executable, str(script)])


def assert_no_files(directory: Path) -> None:
    """Nothing is left of what scripts have noted in ``files``; MPICH may lose what is printed before an abort."""
    paths = (directory / "files").read_text(encoding="utf-8").split()
    assert paths
    assert not [path for path in paths if path != "None" and Path(path).exists()]


def squeeze(text: str) -> str:
    return " ".join(text.split())


# ---- what works -----------------------------------------------------------------------------------------------

FIRST = """
    import os, sys
    from mpi4py import MPI
    import numpy as np
    import beside  # a module beside the script
    import demos_hpc
    from demos_hpc import programs

    assert __name__ == "__main__" and sys.argv[1:] == ["--seed", "3"], sys.argv
    comm = MPI.COMM_WORLD
    assert comm.allreduce(1) == comm.size == 2, "collectives see this analysis only"
    launch = programs._running[0].launch
    if comm.rank == 0:
        with open("files", "w") as notes:
            print(launch._bell._flags_file, f"/dev/shm/demos-run-{os.getuid()}-{os.getppid()}", file=notes)
    with demos_hpc.connect("gaussian") as model:
        x = model.sample(3000, [0.5, 2.0], seed=comm.rank)
        assert x.shape == (3000, 1)
        total = comm.allreduce(model.log_likelihood(x, [0.5, 2.0]))
        futures = [model.submit.log_density(x[i : i + 1], [0.5, 2.0]) for i in range(300)]
        assert np.isclose(sum(f.result()[0] for f in futures), model.log_likelihood(x[:300], [0.5, 2.0]))
        large = np.random.default_rng(comm.rank).normal(size=(700_001, 1))
        expected = beside.truth(large, 0.5, 2.0)
        for threads in range(2):
            np.testing.assert_allclose(model.log_density(large, [0.5, 2.0]), expected, rtol=1e-12)
        for bad in (lambda: model.log_density(x[:, 0]), lambda: demos_hpc.connect("nothing"), demos_hpc.connect):
            try:
                bad()
            except demos_hpc.InvalidInput as error:
                print(f"refused {error}")
    again = demos_hpc.connect("gaussian")
    assert again.set_params(mu=1.0 + comm.rank) > 1
    workers = again.metadata()["workers"]
    print(f"first {comm.rank} {workers} {total}")
"""

SECOND = """
    from mpi4py import MPI
    import demos_hpc

    assert MPI.COMM_WORLD.size == 1
    linear, gaussian = demos_hpc.connect("linear-gaussian"), demos_hpc.connect("gaussian")
    x = linear.sample(1000, [0.5], seed=1)
    likelihood = linear.log_likelihood(x, [[0.5], [1.0]])
    print(f"second {len(x)} {likelihood.shape} {gaussian.evaluate([1.0, 2.0])[1]}")
"""

BESIDE = """
    import math

    def truth(x, mu, sigma):
        return -0.5 * ((x[:, 0] - mu) / sigma) ** 2 - math.log(sigma) - 0.5 * math.log(2 * math.pi)
"""


@pytest.mark.parametrize("bell", ["auto", "udp"])
def test_several_models_and_several_analyses_in_one_launch(
    launch: Launch, write_script: Write, tmp_path: Path, bell: str
) -> None:
    write_script(BESIDE, "beside.py")
    first, second = write_script(FIRST, "first.py"), write_script(SECOND, "second.py")
    done = launch(
        serve(GAUSSIAN, 3), serve(LINEAR, 1), analyze(first, "--seed", "3", ranks=2), analyze(second), bell=bell
    )
    assert done.code == 0, done.text
    assert "second 1000 (2,) 4.0" in done.out
    assert done.out.count("first ") == 2
    assert "first 0 2 " in done.out
    assert done.out.count("refused x has shape (3000,)") == 2
    names = "('gaussian', 'linear-gaussian'|'linear-gaussian', 'gaussian')"
    assert len(re.findall(f"refused there is no model 'nothing' here; there are: {names}", done.out)) == 2
    assert len(re.findall(f"refused several models are served: name one; there are: {names}", done.out)) == 2
    assert done.err.strip() == ""
    assert_no_files(tmp_path)


SUBMIT_AND_END = """
    import sys, numpy as np, demos_hpc

    model = demos_hpc.connect()
    large = np.zeros((3_000_000, 1))
    futures = [model.submit.sample(3_000_000), model.submit.log_density(large), model.submit.log_density(large[:1])]
    if sys.argv[1] == "cancel":
        assert all(future.cancel() for future in futures)
    if sys.argv[1] == "look":
        futures[1].done()
    print(f"ended {sys.argv[1]}")
"""


@pytest.mark.parametrize("how", ["at once", "look", "cancel"])
def test_a_script_that_ends_before_its_answers_have_come(launch: Launch, write_script: Write, how: str) -> None:
    done = launch(serve(GAUSSIAN, 3), analyze(write_script(SUBMIT_AND_END), how), deadline=30)
    assert done.code == 0, done.text
    assert f"ended {how}" in done.out


WORKERS = """
    import hashlib, json, sys
    import numpy as np
    import demos_hpc

    out = {}
    for name, params in (("gaussian", [0.3, 1.7]), ("linear-gaussian", [0.3])):
        model = demos_hpc.connect(name)
        n = 12 * model.spec.block_rows + 1
        drawn = model.sample(n, params, seed=5)
        likelihood = model.log_likelihood(drawn, [params, [2 * p for p in params]])
        gradient = model.log_likelihood_gradient(drawn, params)
        rows = model.log_density(drawn, params)
        parts = [drawn, likelihood, np.float64(gradient[0]), gradient[1], rows]
        out[name] = [hashlib.sha256(np.ascontiguousarray(part).tobytes()).hexdigest() for part in parts]
    print(f"digests {json.dumps(out)}")
"""


def read_digests(text: str) -> Any:
    (found,) = re.findall("^digests (.*)$", text, re.MULTILINE)
    return json.loads(found)


def test_the_same_bits_for_one_two_and_five_workers_and_over_loopback(launch: Launch, write_script: Write) -> None:
    script = write_script(WORKERS)
    got = {}
    for workers in (1, 2, 5):
        programs = [serve(GAUSSIAN, 1 + workers), serve(LINEAR, workers), analyze(script)]
        done = launch(*programs, chunk_seconds=1e-6 if workers == 2 else 0.02)
        assert done.code == 0, done.text
        got[workers] = read_digests(done.out)
    assert got[1] == got[2] == got[5]
    from test_reproducibility import compute_digests

    assert got[1] == compute_digests(workers=1)


# ---- scripts that end in other ways --------------------------------------------------------------------------------


def test_a_script_that_never_connects_is_told_so(launch: Launch, write_script: Write) -> None:
    done = launch(serve(GAUSSIAN), analyze(write_script("print('nothing to do')"), ranks=2))
    assert done.code == 0, done.text
    assert done.out.count("nothing to do") == 2
    for rank in (2, 3):
        assert re.search(rf"analysis.py ended on rank {rank} on \S+ and never called demos_hpc.connect\(\)", done.err)


ONE_EXITS = """
    import sys
    from mpi4py import MPI
    import demos_hpc
    from demos_hpc import programs

    with open("files", "a") as notes:
        print(programs._running[0].launch._bell._flags_file, file=notes)
    if MPI.COMM_WORLD.rank == 0:
        sys.exit(int(sys.argv[1])) if sys.argv[1].isdigit() else sys.exit(sys.argv[1] or None)
    model = demos_hpc.connect()
    for i in range(2000 if sys.argv[1] != "0" else 20):
        model.log_density([[0.0]], [0.0, 1.0])
    print(f"worked on {len(model.sample(1000))}")
"""


def test_a_rank_that_exits_early_leaves_the_others_alone(launch: Launch, write_script: Write, tmp_path: Path) -> None:
    done = launch(serve(GAUSSIAN), analyze(write_script(ONE_EXITS), "0", ranks=2))
    assert done.code == 0, done.text
    assert "worked on 1000" in done.out
    assert_no_files(tmp_path)


def test_an_exit_status_is_that_of_the_launch(launch: Launch, write_script: Write, tmp_path: Path) -> None:
    done = launch(serve(GAUSSIAN), analyze(write_script(ONE_EXITS), "3", ranks=2))
    assert done.code == 3, done.text
    assert re.search(r"analysis.py exited with status 3 on rank 2 on \S+; the launch ends for all ranks", done.err)
    assert_no_files(tmp_path)


def test_an_exit_with_a_message(launch: Launch, write_script: Write) -> None:
    done = launch(serve(GAUSSIAN), analyze(write_script(ONE_EXITS), "no such file", ranks=2))
    assert done.code == 1, done.text
    assert re.search(r"analysis.py exited: no such file on rank 2", done.err)


RAISES = """
    import demos_hpc
    from demos_hpc import programs

    with open("files", "a") as notes:
        print(programs._running[0].launch._bell._flags_file, file=notes)

    def fit():
        raise ArithmeticError("no minimum")

    demos_hpc.connect().submit.sample(1000)
    fit()
"""


def test_an_exception_ends_the_launch_with_its_traceback(launch: Launch, write_script: Write, tmp_path: Path) -> None:
    done = launch(serve(GAUSSIAN), analyze(write_script(RAISES)))
    assert done.code == 1, done.text
    assert "in fit" in done.err
    assert "ArithmeticError: no minimum" in done.err
    assert "runpy" not in done.err
    assert re.search(r"analysis.py raised ArithmeticError on rank 2 on \S+; the launch ends for all ranks", done.err)
    assert_no_files(tmp_path)


def test_a_script_that_does_not_exist(launch: Launch, tmp_path: Path) -> None:
    done = launch(serve(GAUSSIAN), analyze("nowhere.py"))
    assert done.code == 2, done.text
    assert f"there is no script 'nowhere.py' (from {tmp_path})" in done.err


DIES = """
    import demos_hpc
    from demos_hpc import programs

    with open("files", "a") as notes:
        print(programs._running[0].launch._bell._flags_file, file=notes)
    model = demos_hpc.connect()
    model.log_density([[99.0]], [0.0, 1.0])
"""


def test_a_worker_that_dies_ends_the_launch(launch: Launch, write_script: Write, tmp_path: Path) -> None:
    write_script(
        """
        from demos_hpc.testing import Failing

        class Model(Failing):
            def __init__(self):
                super().__init__("dies", above=5.0)
        """,
        "dying.py",
    )
    done = launch(serve("dying.py:Model", 3), analyze(write_script(DIES)))
    assert done.code not in (0, -9), done.text
    assert_no_files(tmp_path)


# ---- ranks that do not come ---------------------------------------------------------------------------------------


def test_a_rank_that_hangs_before_mpi_init_is_named(launch: Launch, write_script: Write) -> None:
    programs = [serve(GAUSSIAN), analyze(write_script(CONNECT)), Program(1, ["sleep", "1000"])]
    done = launch(*programs, roll_call_timeout=ROLL_CALL, deadline=50)
    assert done.code not in (0, -9), done.text
    assert f"of 4 ranks, not started after {ROLL_CALL:g} s (DEMOS_ROLL_CALL_TIMEOUT): rank 3." in done.err
    assert "start servers by `demos-hpc serve`, analyses by `python -m demos_hpc analysis.py`" in squeeze(done.err)


def test_an_analysis_without_our_launcher_is_told_how(launch: Launch, write_script: Write) -> None:
    script = write_script("from mpi4py import MPI\n" + CONNECT.replace("\n    ", "\n"))
    done = launch(serve(GAUSSIAN), plain(script), roll_call_timeout=ROLL_CALL, deadline=50)
    assert done.code not in (0, -9), done.text
    assert "has no part in the launch: start it as `python -m demos_hpc analysis.py`" in done.err


def test_a_program_with_an_mpi_of_its_own_is_named(launch: Launch, write_script: Write) -> None:
    script = write_script(
        """
        from mpi4py import MPI
        import select

        select.select([], [], [], 1000)
        """
    )
    done = launch(serve(GAUSSIAN), plain(script), roll_call_timeout=ROLL_CALL, deadline=50)
    assert done.code not in (0, -9), done.text
    assert f"rank 2 did not call in within {ROLL_CALL:g} s (DEMOS_ROLL_CALL_TIMEOUT)" in done.err
    assert "analyses by `python -m demos_hpc analysis.py`" in squeeze(done.err)


def test_a_program_without_mpi_is_told_how(launch: Launch, write_script: Write) -> None:
    done = launch(serve(GAUSSIAN), plain(write_script(CONNECT)), roll_call_timeout=ROLL_CALL, deadline=50)
    assert done.code not in (0, -9), done.text
    assert "has no part in the launch: start it as `python -m demos_hpc analysis.py`" in done.err


def test_the_server_must_come_first(launch: Launch, write_script: Write) -> None:
    done = launch(analyze(write_script(CONNECT)), serve(GAUSSIAN), roll_call_timeout=ROLL_CALL)
    assert done.code == 2, done.text
    assert re.search("rank 0 is an analysis, .*analysis.py: the server must come first on the command line", done.err)


def test_a_server_of_one_rank_is_too_few(launch: Launch, write_script: Write) -> None:
    done = launch(serve(GAUSSIAN, 1), analyze(write_script(CONNECT)), roll_call_timeout=ROLL_CALL)
    assert done.code == 2, done.text
    assert "the server has one rank and needs two at least, a dispatcher and a worker: mpiexec -n 2" in done.err


RANK = """
    from demos_hpc import launch, programs
    from demos_hpc.config import Config

    call_roll = launch._call_roll

    def note(*arguments):
        welcome = call_roll(*arguments)
        print(f"told {len(welcome.spec)} {welcome.spec[:21]!r}", flush=True)
        return welcome

    launch._call_roll = note
    programs.serve("demos_hpc.testing:Gaussian", Config.load())
"""


def describe(path: Path, ranks: int = 1) -> Program:
    """Ranks that describe the model of a program."""
    return Program(ranks, [sys.executable, "-m", "demos_hpc", "serve", "--spec", str(path)])


def test_ranks_of_a_program_are_told_of_their_model(launch: Launch, write_script: Write, tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text('{"name": "gaussian"}\n' + " " * 100_000, encoding="utf-8")  # more than fits into one message
    rank = write_script(RANK, "rank.py")
    done = launch(describe(path), Program(2, [sys.executable, str(rank)]), analyze(write_script(CONNECT)))
    assert done.code == 0, done.text
    assert done.out.count('told 100021 \'{"name": "gaussian"}\\n\'') == 2, done.text
    assert "density" in done.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--spec", "nowhere.json"], "model file 'nowhere.json' does not exist"),
        (["--spec", "half.json"], "half.json cannot be read"),
        (["--exec", "/bin/true"], "--exec /bin/true is for a server of its own; in a launch the program has ranks"),
    ],
)
def test_what_is_wrong_with_a_program_ends_the_launch(
    words: list[str], message: str, launch: Launch, write_script: Write, tmp_path: Path
) -> None:
    """Were rank 0 to leave before MPI begins, its launcher would let the others wait for it."""
    (tmp_path / "half.json").write_text('{"name": ', encoding="utf-8")
    rank = write_script(RANK, "rank.py")
    server = Program(1, [sys.executable, "-m", "demos_hpc", "serve", *words])
    done = launch(server, Program(1, [sys.executable, str(rank)]), analyze(write_script(CONNECT)))
    assert done.code == 2, done.text
    assert message in done.err


def test_a_description_is_for_the_first_rank(launch: Launch, write_script: Write, tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text("{}", encoding="utf-8")
    done = launch(describe(path, 2), analyze(write_script(CONNECT)), roll_call_timeout=ROLL_CALL)
    assert done.code == 2, done.text
    assert re.search("rank 1 on .* was started with --spec, which is for the first rank alone", done.err)


def test_a_server_without_an_analysis(launch: Launch) -> None:
    done = launch(serve(GAUSSIAN, 2), roll_call_timeout=ROLL_CALL)
    assert done.code == 2, done.text
    assert "there is nobody to call the model: add an analysis to the launch, as in mpiexec -n 3" in squeeze(done.err)


def test_a_rank_of_another_wire_version(launch: Launch, write_script: Write) -> None:
    code = (
        "import runpy, sys, demos_hpc.wire\n"
        "demos_hpc.wire.WIRE_MAJOR = 9\n"
        f"sys.argv = ['demos_hpc', {str(write_script(CONNECT))!r}]\n"
        "runpy.run_module('demos_hpc', run_name='__main__')"
    )
    done = launch(serve(GAUSSIAN), Program(1, [sys.executable, "-c", code]), roll_call_timeout=ROLL_CALL)
    assert done.code == 2, done.text
    assert "rank 2: the peer speaks wire version 9.0, this side 1.0; install the same version" in done.err


def test_ranks_that_are_worlds_of_their_own(write_script: Write, tmp_path: Path) -> None:
    """What srun does with an MPI whose language it does not speak."""
    command = [sys.executable, "-m", "demos_hpc", str(write_script(CONNECT))]
    slurm = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "3", "DEMOS_ROLL_CALL_TIMEOUT": "20"}
    done = run(command, cwd=tmp_path, deadline=50, settings={**slurm, "DEMOS_RUN_DIR": str(tmp_path / "marks")})
    assert done.code not in (0, -9), done.text
    assert "3 ranks were started, and each of them is an MPI world of its own" in done.err
    assert "srun --mpi=pmi2" in done.err


# ---- models that do not come ----------------------------------------------------------------------------------------

BROKEN = {
    "missing": ("nowhere.py:Model", "ModelNotFound: model file 'nowhere.py' does not exist"),
    "import": ("broken.py:Model", "could not be imported: OSError: no matrix elements"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_model_that_does_not_load_is_an_error_of_connect(launch: Launch, write_script: Write, name: str) -> None:
    path, message = BROKEN[name]
    write_script("raise OSError('no matrix elements')", "broken.py")
    done = launch(serve(path, 3), analyze(write_script(CONNECT)))
    assert done.code == 1, done.text
    assert message in done.err
    assert len(re.findall(r"demos-hpc: rank \d on \S+ serves nothing", done.err)) == 2
    assert "analysis.py raised Model" in done.err


def test_a_script_may_go_on_without_its_model(launch: Launch, write_script: Write) -> None:
    script = write_script(
        """
        import demos_hpc

        for name in (None, "gaussian"):
            try:
                demos_hpc.connect(name)
            except demos_hpc.ModelFailed as error:
                print("caught", error, "because", str(error.__cause__).count("Traceback"))
        """
    )
    write_script("raise OSError('no matrix elements')", "broken.py")
    done = launch(serve("broken.py:Model"), analyze(script))
    assert done.code == 0, done.text
    assert done.out.count("could not be imported: OSError: no matrix elements because 1") == 2


def test_the_model_s_errors_name_rank_host_and_traceback(launch: Launch, write_script: Write) -> None:
    write_script(
        """
        from demos_hpc.testing import Failing

        class Model(Failing):
            def __init__(self):
                super().__init__("raises", above=5.0)
        """,
        "failing.py",
    )
    script = write_script(
        """
        import socket
        import demos_hpc

        model = demos_hpc.connect()
        for call in (model.log_density, model.log_likelihood):
            try:
                call([[0.0], [99.0]], [0.0, 1.0])
            except demos_hpc.ModelFailed as error:
                assert str(error).endswith(f"ArithmeticError: row 1 is above 5.0 (rank 1 on {socket.gethostname()})")
                assert "in log_density" in str(error.__cause__)
                print("caught", model.log_density([[0.0]], [0.0, 1.0]).shape)
        """
    )
    done = launch(serve("failing.py:Model"), analyze(script))
    assert done.code == 0, done.text
    assert done.out.count("caught (1,)") == 2


def test_settings_reach_all_ranks(launch: Launch, write_script: Write, tmp_path: Path) -> None:
    script = write_script(
        """
        import demos_hpc

        model = demos_hpc.connect()
        try:
            model.log_density([[0.0]] * 1000, [0.0, 1.0])
        except demos_hpc.TooLarge as error:
            print("caught", model.metadata()["max_request_bytes"])
        """
    )
    marks = tmp_path / "marks"
    done = launch(serve(GAUSSIAN), analyze(script), max_request_bytes=4000, run_dir=marks)
    assert done.code == 0, done.text
    assert "caught 4000" in done.out
    assert not marks.exists()
    assert not [name for name in os.listdir(tmp_path) if name.startswith("demos")]
