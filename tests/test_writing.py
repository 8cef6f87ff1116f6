"""Results written to files in parts: the rows that one answer would have, whatever happens in between."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from launching import PACKAGE
from odd_models import Improper, Line
from service import Service

import demos_hpc
from demos_hpc import Config, InvalidInput, NotOffered, StaleRevision, hdf5_format, result_files, writing
from demos_hpc.errors import DatasetError, InternalError, ModelFailed
from demos_hpc.messages import Operation
from demos_hpc.orders import make_order, write_results
from demos_hpc.result_files import Contents, compare, find_begun, open_result
from demos_hpc.row_files import ArrayRows, open_rows
from demos_hpc.spec import ModelSpec, Output, Parameter
from demos_hpc.testing import Gaussian, LinearGaussian
from demos_hpc.writing import Order, Pace, write

MODEL = Gaussian(d=2, block_rows=16)
POINT = np.array([0.3, 1.7])
POINTS = np.stack([np.linspace(-1, 1, 200), np.linspace(0.5, 2, 200)], axis=1)
X = np.random.default_rng(4).normal(size=(300, 2))
#: What must not change while a file is written.
STEPS = ("pwrite", "fsync", "rename", "statvfs")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a few rows."""
    monkeypatch.setattr(writing, "PART_BYTES", 1 << 10)
    monkeypatch.setattr("demos_hpc.orders.PART_BYTES", 1 << 10)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.h5"


def partial_of(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def read(path: Path, name: str) -> Any:
    """The rows of a file that is complete."""
    with h5py.File(path) as file:
        assert file.attrs["complete"]
        assert file["rows_written"][()] == len(file[name])
        return file[name][()]


def read_attributes(path: Path, name: str) -> dict[str, Any]:
    with h5py.File(path) as file:
        return dict(file[name].attrs)


class Done:
    """A future that is done."""

    nonfinite_rows = 0

    def __init__(self, value: Any) -> None:
        self.value = value
        self.is_cancelled = False

    def result(self) -> Any:
        return self.value

    def cancel(self) -> bool:
        self.is_cancelled = True
        return True


ROWS = np.arange(90.0).reshape(30, 3)


def order(rows: Any = ROWS, **facts: Any) -> Order:
    """Rows that are there already, in parts of one."""
    contents = Contents("rows", rows.shape, rows.dtype, {"a": 1, **facts}, {"date": os.urandom(2).hex()})
    return Order(contents, lambda first, count, progress: Done(rows[first : first + count]), part_bytes=40)  # type: ignore[arg-type, return-value]


# ---- the same rows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_a_sample_in_parts_is_the_sample(path: Path, workers: int) -> None:
    model = demos_hpc.local(MODEL, workers=workers, config=Config(chunk_seconds=1e-9))
    written = write_results(model, Operation.SAMPLE, path, n=1000, seed=7, params=POINT)
    assert (written.rows, written.resumed_at) == (1000, 0)
    np.testing.assert_array_equal(read(path, "sample"), model.sample(1000, POINT, seed=7))
    assert os.listdir(path.parent) == ["out.h5"]


@pytest.mark.parametrize("kind", ["npy", "csv", "h5", "array", "columns"])
def test_a_scan_over_points(path: Path, tmp_path: Path, kind: str) -> None:
    model = demos_hpc.local(MODEL, workers=2)
    names = model.spec.param_names
    params: Any = {name: POINTS[:, nth] for nth, name in enumerate(names)} if kind == "columns" else POINTS
    if kind == "npy":
        np.save(tmp_path / "points.npy", np.asfortranarray(POINTS))
    elif kind == "csv":
        np.savetxt(tmp_path / "points.csv", POINTS, delimiter=",", header="mu,sigma", comments="")
    elif kind == "h5":
        with h5py.File(tmp_path / "points.h5", "w") as file:
            file["points"] = np.rec.fromarrays([POINTS[:, 1], POINTS[:, 0]], names=["sigma", "mu"])
    if kind in ("npy", "csv", "h5"):
        params = open_rows(str(tmp_path / f"points.{kind}"), "params", names)
    write_results(model, Operation.EVALUATE, path, params=params)
    np.testing.assert_array_equal(read(path, "evaluate"), model.evaluate(POINTS))


@pytest.mark.parametrize("params", [None, POINT, "rows"], ids=["the server's", "one point", "one for each row"])
def test_densities_and_gradients_of_rows(path: Path, params: Any) -> None:
    model, rows = demos_hpc.local(MODEL), np.resize(POINTS, (300, 2))
    params = rows if isinstance(params, str) else params
    write_results(model, Operation.LOG_DENSITY, path, x=ArrayRows(X, "x"), params=params)
    np.testing.assert_array_equal(read(path, "log_density"), model.log_density(X, params))
    for wrt in ("params", "x"):
        there = path.with_name(f"{wrt}.h5")
        options = {"wrt": wrt}
        write_results(model, Operation.LOG_DENSITY_GRADIENT, there, x=ArrayRows(X, "x"), params=params, options=options)
        got, (value, gradient) = read(there, "log_density_gradient"), model.log_density_gradient(X, params, wrt=wrt)
        np.testing.assert_array_equal(got[:, 0], value)
        np.testing.assert_array_equal(got[:, 1:], gradient)


def test_likelihoods_of_points(path: Path) -> None:
    model = demos_hpc.local(MODEL)
    write_results(model, Operation.LOG_LIKELIHOOD, path, x=ArrayRows(X, "x"), params=POINTS)
    np.testing.assert_array_equal(read(path, "log_likelihood"), model.log_likelihood(X, POINTS))
    there = path.with_name("gradient.h5")
    write_results(model, Operation.LOG_LIKELIHOOD_GRADIENT, there, x=ArrayRows(X, "x"), params=POINTS)
    got = read(there, "log_likelihood_gradient")
    np.testing.assert_array_equal(got[:, 1:], model.log_likelihood_gradient(X, POINTS)[1])


def test_one_point_is_one_row(path: Path) -> None:
    model = demos_hpc.local(MODEL)
    write_results(model, Operation.EVALUATE, path, params=POINT)
    np.testing.assert_array_equal(read(path, "evaluate"), [model.evaluate(POINT)])
    there = path.with_name("server.h5")
    write_results(model, Operation.EVALUATE, there)
    np.testing.assert_array_equal(read(there, "evaluate"), [model.evaluate()])
    there = path.with_name("likelihood.h5")
    write_results(model, Operation.LOG_LIKELIHOOD, there, x=ArrayRows(X, "x"), params=POINT)
    np.testing.assert_array_equal(read(there, "log_likelihood"), [model.log_likelihood(X, POINT)])


def test_finite_differences(path: Path) -> None:
    model = demos_hpc.local(MODEL)
    options = {"method": "finite-difference", "wrt": "params"}
    write_results(model, Operation.LOG_DENSITY_GRADIENT, path, x=ArrayRows(X, "x"), params=POINT, options=options)
    _, gradient = model.log_density_gradient(X, POINT, method="finite-difference")
    np.testing.assert_array_equal(read(path, "log_density_gradient")[:, 1:], gradient)


def test_rows_that_depend_on_one_another_keep_their_bits(path: Path) -> None:
    model, x = demos_hpc.local(LinearGaussian(), workers=2), np.random.default_rng(0).normal(size=(1000, 4))
    write_results(model, Operation.LOG_DENSITY, path, x=ArrayRows(x, "x"))
    np.testing.assert_array_equal(read(path, "log_density"), model.log_density(x))


@pytest.mark.parametrize("n", [0, 1, 16, 17])
def test_few_rows(path: Path, n: int) -> None:
    model = demos_hpc.local(MODEL)
    write_results(model, Operation.SAMPLE, path, n=n, seed=1)
    np.testing.assert_array_equal(read(path, "sample"), model.sample(n, seed=1))


def test_rows_that_are_no_numbers_are_counted(path: Path) -> None:
    x = np.resize([1.0, 7.0, 8.0, 9.0], (300, 1))
    written = write_results(demos_hpc.local(Improper()), Operation.LOG_DENSITY, path, x=ArrayRows(x, "x"))
    assert written.nonfinite_rows == 150


@pytest.mark.parametrize("dtype", ["<i4", ">f8", "S5", [("a", "<i2"), ("b", "<f8", (2,))]])
def test_rows_of_any_type_and_shape(path: Path, dtype: Any) -> None:
    rows = np.frombuffer(np.random.default_rng(1).bytes(30 * 6 * np.dtype(dtype).itemsize), dtype).reshape(30, 2, 3)
    write(path, order(rows))
    got = read(path, "rows")
    assert got.dtype == rows.dtype
    assert got.tobytes() == rows.tobytes()


# ---- what is said of them ------------------------------------------------------------------------------------


def test_provenance(path: Path) -> None:
    model = demos_hpc.local(MODEL)
    model.set_params(mu=0.5)
    write_results(model, Operation.SAMPLE, path, n=100, seed=2**64 - 1)
    told = read_attributes(path, "sample")
    assert told["seed"] == 2**64 - 1
    assert (told["model"], told["model_version"], told["model_uuid"]) == ("gaussian", "1.0.0", MODEL.spec.uuid)
    assert told["model_source"] == model.metadata()["source"]
    assert (told["revision"], told["params"].tolist(), told["param_names"].tolist()) == (2, [0.5, 1.0], ["mu", "sigma"])
    assert (told["columns"].tolist(), told["units"].tolist()) == (["x0", "x1"], ["1", "1"])
    assert (told["operation"], told["wire_version"]) == ("sample", "1.0")
    assert told["demos_hpc_version"] == demos_hpc.__version__
    assert told["date"][4] == "-"
    assert told["license"] == "BSD-3-Clause"
    there = path.with_name("scan.h5")
    write_results(model, Operation.EVALUATE, there, params=POINTS)
    told = read_attributes(there, "evaluate")
    assert told["params_digest"].startswith("sha256:")
    assert "seed" not in told


def test_digests_are_those_of_the_numbers(path: Path, tmp_path: Path) -> None:
    model = demos_hpc.local(MODEL)
    np.save(tmp_path / "x.npy", X)
    np.savetxt(tmp_path / "x.csv", X, delimiter=",", fmt="%.17g")
    digests = set()
    for name in ("x.npy", "x.csv"):
        rows = open_rows(str(tmp_path / name), "x", ("x0", "x1"))
        digests.add(make_order(model, Operation.LOG_DENSITY, path, x=rows).contents.facts["x_digest"])
    assert len(digests) == 1
    fewer = make_order(model, Operation.LOG_DENSITY, path, x=ArrayRows(X[:-1], "x"))
    assert fewer.contents.facts["x_digest"] not in digests


def test_files_are_served_with_units(path: Path) -> None:
    model = demos_hpc.local("nu_atm")
    write_results(model, Operation.SAMPLE, path, n=3, seed=1)
    (dataset,) = [d for d in demos_hpc.local(str(path)).spec.datasets if d.name == "sample"]
    assert dataset.units == {observable.name: observable.unit for observable in model.spec.observables}
    assert dataset.description == f"sample of nu_atm {model.spec.version}"


def test_more_columns_than_an_attribute_holds(path: Path) -> None:
    class Wide:
        spec = ModelSpec(
            "wide",
            parameters=tuple(Parameter(f"p{n}", default=1.0) for n in range(3000)),
            outputs=tuple(Output(f"a column of a rather long name {n}") for n in range(5000)),
        )

        def evaluate(self, params: Any) -> Any:
            return np.repeat(params[:, :1], 5000, axis=1)

    model = demos_hpc.local(Wide())
    write_results(model, Operation.EVALUATE, path)
    with h5py.File(path) as file:
        assert file["columns"].asstr()[4999] == "a column of a rather long name 4999"
        assert len(file["params"]) == 3000
    order = make_order(model, Operation.EVALUATE, path)
    assert compare(hdf5_format.read_blank(str(path)), order.contents) == []


# ---- interrupted ---------------------------------------------------------------------------------------------


class Crash(BaseException):
    """The end of a process, as far as that can be had within one."""


class Fault:
    """Calls ``end`` at the ``nth`` step, before it is done, behind it, or half way through a write."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, nth: int, when: str, end: Callable[[], object]) -> None:
        self.nth, self.when, self.end = nth, when, end
        self.count = 0
        for name in STEPS:
            monkeypatch.setattr(os, name, partial(self.call, getattr(os, name)))
        for name in ("make_blank", "mark_complete"):
            monkeypatch.setattr(result_files, name, partial(self.call, getattr(result_files, name)))

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        self.count += 1
        if self.count != self.nth + 1:
            return function(*arguments)
        if self.when == "half way" and len(arguments) == 3 and len(arguments[1]) > 8:
            descriptor, view, at = arguments
            function(descriptor, view[: len(view) // 2], at)
        elif self.when == "behind":
            function(*arguments)
        self.end()
        raise AssertionError("it goes on")

    @property
    def has_come(self) -> bool:
        return self.count > self.nth


def crash() -> None:
    raise Crash


def fail() -> None:
    raise OSError(errno.EIO, "I/O error")


@pytest.mark.parametrize("when", ["before", "behind", "half way"])
@pytest.mark.parametrize("end", [crash, fail])
def test_an_interruption_at_any_step(path: Path, when: str, end: Callable[[], None]) -> None:
    nth, n_resumed = 0, 0
    while True:
        with pytest.MonkeyPatch.context() as patch:
            fault = Fault(patch, nth, when, end)
            with contextlib.suppress(Crash, DatasetError):
                write(path, order())
        if not fault.has_come:
            break
        if path.exists():
            np.testing.assert_array_equal(read(path, "rows"), ROWS)
        else:
            heard: list[str] = []
            n_resumed += write(path, order(), tell=heard.append).resumed_at > 0
            assert not heard or "going on" in heard[0]
        np.testing.assert_array_equal(read(path, "rows"), ROWS)
        assert os.listdir(path.parent) == ["out.h5"]
        path.unlink()
        nth += 1
    assert nth > 40  # rows, their number and the disk, for each part
    assert n_resumed > 30


def test_an_interruption_of_an_interruption(path: Path) -> None:
    """Every run gets a few steps further."""
    n_runs, is_done = 0, False
    while not is_done:
        n_runs += 1
        with pytest.MonkeyPatch.context() as patch:
            Fault(patch, 9, "half way", crash)
            try:
                write(path, order())
                is_done = True
            except Crash:
                assert not path.exists()
    assert n_runs > 5
    np.testing.assert_array_equal(read(path, "rows"), ROWS)


KILLED = """
import os, signal, sys
from pathlib import Path

import numpy as np
import test_writing as t

path, n = Path(sys.argv[1]), 0
while True:
    child = os.fork()
    if not child:
        t.Fault(t.pytest.MonkeyPatch(), n, sys.argv[2], lambda: os.kill(os.getpid(), signal.SIGKILL))
        t.write(path, t.order())
        os._exit(0)
    _, status = os.waitpid(child, 0)
    is_killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert is_killed or status == 0, status
    if not path.exists():
        t.write(path, t.order())
    np.testing.assert_array_equal(t.read(path, "rows"), t.ROWS)
    assert os.listdir(path.parent) == ["out.h5"]
    path.unlink()
    if not is_killed:
        break
    n += 1
print(n)
"""


def run_python(code: str, *words: str) -> str:
    """What a process prints."""
    paths = [PACKAGE, str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", code, *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("when", ["before", "behind", "half way"])
def test_killed_at_any_step(path: Path, when: str) -> None:
    assert int(run_python(KILLED, str(path), when)) > 40


SLOW = """
import os
from demos_hpc.testing import Gaussian

class Slow(Gaussian):
    def __init__(self):
        super().__init__(block_rows=16)

    def evaluate(self, params):
        if (params[:, 0] > 0.5).any() and not os.path.exists({go!r}):
            with open({fifo!r}, "w") as fifo:
                fifo.write("here")
            with open({fifo!r}) as fifo:
                fifo.read()
        return super().evaluate(params)
"""


def test_a_command_that_is_killed_goes_on(path: Path, tmp_path: Path) -> None:
    fifo, go, model, points = (tmp_path / name for name in ("fifo", "go", "slow.py", "points.npy"))
    os.mkfifo(fifo)
    model.write_text(SLOW.format(go=str(go), fifo=str(fifo)), encoding="utf-8")
    np.save(points, POINTS)
    command = [sys.executable, "-m", "demos_hpc", "call", f"{model}:Slow", "evaluate", "-p", str(points)]
    command += ["--out", str(path), "--json"]
    environment = {**os.environ, "PYTHONPATH": PACKAGE}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    with fifo.open() as barrier:  # until it is there
        assert barrier.read() == "here"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not path.exists()
    assert find_begun(path)["operation"] == "evaluate"
    go.touch()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = int(done.stderr.split("out.h5.partial has ")[1].split(" of 200 rows: going on")[0])
    assert 0 < rows < 151
    np.testing.assert_array_equal(read(path, "evaluate"), MODEL.evaluate(POINTS))
    assert {name for name in os.listdir(tmp_path) if name.startswith("out")} == {"out.h5"}


def test_an_error_of_the_model_leaves_what_was_there(path: Path) -> None:
    class Shy(Gaussian):
        is_shy = True

        def evaluate(self, params: Any) -> Any:
            if self.is_shy and (params[:, 0] > 0.5).any():
                raise ArithmeticError("no")
            return super().evaluate(params)

    model, told = demos_hpc.local(Shy()), list[str]()
    with pytest.raises(ModelFailed, match="ArithmeticError: no"):
        write_results(model, Operation.EVALUATE, path, params=POINTS, tell=told.append)
    assert told[0].startswith(f"{path}.partial has ")
    assert told[0].endswith(" of 200 rows: the same again goes on with it")
    Shy.is_shy = False
    assert write_results(model, Operation.EVALUATE, path, params=POINTS).resumed_at > 50
    np.testing.assert_array_equal(read(path, "evaluate"), model.evaluate(POINTS))


def test_a_sample_without_a_seed_goes_on_with_the_one_it_had(path: Path) -> None:
    model = demos_hpc.local(MODEL)
    with pytest.MonkeyPatch.context() as patch:
        Fault(patch, 9, "before", crash)
        with pytest.raises(Crash):
            write_results(model, Operation.SAMPLE, path, n=500)
    seed = find_begun(path)["seed"]
    assert write_results(model, Operation.SAMPLE, path, n=500).resumed_at > 0
    np.testing.assert_array_equal(read(path, "sample"), model.sample(500, seed=int(seed)))
    assert find_begun(path) == {}


# ---- begun with something else -------------------------------------------------------------------------------


@pytest.fixture
def begun(path: Path) -> Path:
    """A file that was begun."""
    with pytest.MonkeyPatch.context() as patch:
        Fault(patch, 9, "before", crash)
        with pytest.raises(Crash):
            write_results(demos_hpc.local(MODEL), Operation.SAMPLE, path, n=500, seed=3)
    return path


class Newer(Gaussian):
    """The same model in another version."""

    def __init__(self) -> None:
        super().__init__(d=2, block_rows=16)
        self.spec = replace(self.spec, version="1.1.0")


CHANGES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "seed": (MODEL, {"seed": 4}, r"seed is 3 there, 4 here"),
    "rows": (MODEL, {"n": 501}, r"shape is \[500, 2\] there, \[501, 2\] here"),
    "params": (
        MODEL,
        {"params": POINT},
        r"revision is 1 there, not given here|params is \[0.0, 1.0\] there, \[0.3, 1.7\]",
    ),
    "version": (Newer(), {}, r"model_version is 1.0.0 there, 1.1.0 here; model_source is "),
    "model": (Gaussian(d=2, name="other"), {}, "model is gaussian there, other here"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_begun_with_something_else_is_not_gone_on_with(begun: Path, change: str) -> None:
    model, changes, message = CHANGES[change]
    given = {"n": 500, "seed": 3, **changes}
    with pytest.raises(InvalidInput, match=message) as caught:
        write_results(demos_hpc.local(model), Operation.SAMPLE, begun, **given)
    assert "of 500 rows and was begun with something else" in str(caught.value)
    assert str(caught.value).endswith("Go on with the same, choose another name, or begin anew (--overwrite)")
    written = write_results(demos_hpc.local(model), Operation.SAMPLE, begun, overwrite=True, **given)
    assert written.resumed_at == 0
    assert len(read(begun, "sample")) == given["n"]


def test_another_revision_or_operation_or_input_is_something_else(path: Path) -> None:
    model = demos_hpc.local(MODEL)
    with pytest.MonkeyPatch.context() as patch:
        Fault(patch, 9, "before", crash)
        with pytest.raises(Crash):
            write_results(model, Operation.LOG_DENSITY, path, x=ArrayRows(X, "x"))
    with pytest.raises(InvalidInput, match=r"x_digest is sha256:\w+... there, sha256:\w+... here"):
        write_results(model, Operation.LOG_DENSITY, path, x=ArrayRows(X[::-1], "x"))
    with pytest.raises(InvalidInput, match="dataset is log_density there, log_density_gradient here"):
        write_results(model, Operation.LOG_DENSITY_GRADIENT, path, x=ArrayRows(X, "x"))
    model.set_params(mu=0.0)
    with pytest.raises(InvalidInput, match="revision is 1 there, 2 here"):
        write_results(model, Operation.LOG_DENSITY, path, x=ArrayRows(X, "x"))


def test_overwriting_goes_on_with_the_same(begun: Path) -> None:
    begun.write_bytes(b"an old result")
    model = demos_hpc.local(MODEL)
    assert write_results(model, Operation.SAMPLE, begun, n=500, seed=3, overwrite=True).resumed_at > 0
    assert len(read(begun, "sample")) == 500


def test_a_result_is_not_overwritten_unasked(path: Path) -> None:
    write(path, order())
    before = path.read_bytes()
    with pytest.raises(
        InvalidInput, match=r"out.h5 exists already, and has something else: a is 1 there, 2 here\. .*--o"
    ):
        write(path, order(a=2))
    assert path.read_bytes() == before
    write(path, order(ROWS + 1), overwrite=True)
    np.testing.assert_array_equal(read(path, "rows"), ROWS + 1)


def test_a_result_that_is_complete_stays_as_it_is(path: Path) -> None:
    heard: list[str] = []
    write(path, order())
    before = path.read_bytes(), path.stat().st_mtime_ns
    written = write(path, order(), tell=heard.append)
    assert (written.rows, written.resumed_at, written.was_complete) == (30, 30, True)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert heard == [f"{path} is complete already, 30 rows of the very same: nothing to do (--overwrite begins anew)"]
    assert not write(path, order(), overwrite=True).was_complete
    path.write_bytes(before[0][:-300])
    with pytest.raises(InvalidInput, match=r"out.h5 exists already: choose another name"):
        write(path, order())  # cut off


@pytest.mark.parametrize("kind", ["no HDF5", "another"])
def test_other_files_are_in_the_way(path: Path, kind: str) -> None:
    if kind == "no HDF5":
        path.write_bytes(b"no HDF5")
    else:
        with h5py.File(path, "w") as file:
            file.attrs.update({"table": "rows", "complete": True})
            file.create_group("rows_written")
    with pytest.raises(InvalidInput, match=r"out.h5 exists already: choose another name"):
        write(path, order())


def test_the_same_sample_again_has_the_seed_that_it_had(path: Path) -> None:
    model = demos_hpc.local(MODEL)
    write_results(model, Operation.SAMPLE, path, n=50, params=POINT)
    assert write_results(model, Operation.SAMPLE, path, n=50, params=POINT).was_complete
    seed = int(read_attributes(path, "sample")["seed"])
    with pytest.raises(InvalidInput, match=f"seed is {seed} there, {seed ^ 1} here"):
        write_results(model, Operation.SAMPLE, path, n=50, params=POINT, seed=seed ^ 1)
    write_results(model, Operation.SAMPLE, path, n=50, params=POINT, overwrite=True)
    assert int(read_attributes(path, "sample")["seed"]) != seed


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_source_that_was_changed_is_named(path: Path, is_finished: bool) -> None:
    def of(source: str, identity: str) -> Order:
        return order(source=source, identity=identity)

    with pytest.MonkeyPatch.context() as patch:
        if not is_finished:
            Fault(patch, 30, "before", crash)
        with contextlib.nullcontext() if is_finished else pytest.raises(Crash):
            write(path, of("/a.h5:/x", "1"))
    with pytest.raises(InvalidInput, match=r"something else: /a.h5:/x was replaced or changed since\. "):
        write(path, of("/a.h5:/x", "2"))
    with pytest.raises(InvalidInput, match=r"something else: source is /a.h5:/x there, /b.h5:/x here\. "):
        write(path, of("/b.h5:/x", "2"))


def test_a_result_that_came_meanwhile_is_not_overwritten(path: Path) -> None:
    def progress(done: int, total: int) -> None:
        if done == total:
            path.write_bytes(b"somebody else's")

    with pytest.raises(InvalidInput, match="exists already"):
        write(path, order(), progress=progress)
    assert path.read_bytes() == b"somebody else's"
    path.unlink()
    assert write(path, order()).resumed_at == 30


# ---- parameters of the server --------------------------------------------------------------------------------


def test_parameters_that_change_midway_end_it(path: Path) -> None:
    service = Service(MODEL)
    model, other = service.connect(), service.connect()

    def change(done: int, total: int) -> None:
        if done and other.metadata()["revision"] == 1:
            other.set_params(mu=1.0)

    with pytest.raises(StaleRevision, match="revision 2 now; this client pinned 1"):
        write_results(model, Operation.SAMPLE, path, n=500, seed=1, progress=change)
    assert not path.exists()
    assert model.submit.pinned_revision == 0
    other.set_params(mu=0.0)
    with pytest.raises(InvalidInput, match="revision is 1 there, 3 here"):
        write_results(model, Operation.SAMPLE, path, n=500, seed=1)


def test_parameters_of_ones_own_may_change_at_the_server(path: Path) -> None:
    service = Service(MODEL)
    model, other = service.connect(), service.connect()
    with pytest.MonkeyPatch.context() as patch:
        Fault(patch, 9, "before", crash)
        with pytest.raises(Crash):
            write_results(model, Operation.SAMPLE, path, n=500, seed=1, params=POINT)
    other.set_params(mu=1.0)
    write_results(model, Operation.SAMPLE, path, n=500, seed=1, params=POINT)
    np.testing.assert_array_equal(read(path, "sample"), model.sample(500, POINT, seed=1))


def test_a_revision_that_is_pinned_stays_pinned(path: Path) -> None:
    model = demos_hpc.local(MODEL)
    model.pin(1)
    write_results(model, Operation.SAMPLE, path, n=5, seed=1)
    assert model.submit.pinned_revision == 1


# ---- the disk ------------------------------------------------------------------------------------------------


def test_a_disk_that_fills_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, written = os.pwrite, [0]

    def pwrite(descriptor: int, data: Any, at: int) -> int:
        written[0] += len(data)
        if written[0] > 300:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(DatasetError) as caught:
        write(path, order())
    assert str(caught.value) == (
        f"{path} cannot be written: it needs 720 bytes, and there is no room for them (No space left on device);"
        f" {path}.partial stays, and the same again goes on with it"
    )
    assert not path.exists()
    monkeypatch.undo()
    assert write(path, order()).resumed_at > 5
    np.testing.assert_array_equal(read(path, "rows"), ROWS)


def test_a_write_that_takes_only_a_part(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, at: real(descriptor, data[:5], at))
    write(path, order())
    np.testing.assert_array_equal(read(path, "rows"), ROWS)


def test_a_disk_without_room_is_found_before_anything_is_computed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=1, f_frsize=512, f_blocks=100))
    large = order(np.zeros((1000, 30)))
    with pytest.raises(DatasetError, match=r"needs 240000 bytes, and there is no room .* \(.*: 512 bytes are free\)"):
        write(path, replace(large, submit=lambda first, count, progress: asked.append(first)))  # type: ignore[arg-type, return-value]
    assert not asked
    assert os.listdir(path.parent) == []
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=0, f_frsize=0, f_blocks=0))
    write(path, order())  # a file system that does not say


def test_a_file_that_cannot_be_as_long_as_that(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 finds that out when it closes the file, and h5py calls it a RuntimeError then."""

    def make_blank(name: str, *arguments: Any) -> None:
        raise RuntimeError("Can't decrement id ref count (unable to extend file, error message = 'File too large')")

    monkeypatch.setattr(result_files, "make_blank", make_blank)
    with pytest.raises(DatasetError, match=r"out.h5 cannot be written: .*File too large"):
        write(path, order())
    assert os.listdir(path.parent) == []


def test_places_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere/out.h5 cannot be written: No such file or directory"):
        write(tmp_path / "nowhere" / "out.h5", order())
    (tmp_path / "out.h5.partial").mkdir()
    with pytest.raises(DatasetError, match="cannot be written: Is a directory"):
        write(tmp_path / "out.h5", order())


def test_a_link_leads_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "out.h5").symlink_to(tmp_path / "there" / "real.h5")
    write(tmp_path / "out.h5", order())
    assert os.listdir(tmp_path / "there") == ["real.h5"]
    np.testing.assert_array_equal(read(tmp_path / "out.h5", "rows"), ROWS)


@pytest.mark.parametrize("content", [b"", b"no HDF5", None], ids=["empty", "something else", "cut off"])
def test_what_cannot_be_gone_on_with(begun: Path, content: bytes | None) -> None:
    partial = partial_of(begun)
    whole = partial.read_bytes()
    partial.write_bytes(whole[:-3000] if content is None else content)
    with pytest.raises(InvalidInput, match=r"out.h5.partial is no file to go on with \(.*begin anew \(--overwrite\)"):
        write_results(demos_hpc.local(MODEL), Operation.SAMPLE, begun, n=500, seed=3)
    assert write_results(demos_hpc.local(MODEL), Operation.SAMPLE, begun, n=500, seed=3, overwrite=True).rows == 500


@pytest.mark.parametrize("count", [-1, 501, 2**62])
def test_a_number_of_rows_that_cannot_be(begun: Path, count: int) -> None:
    blank = hdf5_format.read_blank(str(partial_of(begun)))
    with partial_of(begun).open("r+b") as file:
        file.seek(blank.counter)
        file.write(np.int64(count).tobytes())
    with pytest.raises(InvalidInput, match=f"it has {count} of 500 rows"):
        write_results(demos_hpc.local(MODEL), Operation.SAMPLE, begun, n=500, seed=3)


def test_some_other_file_called_partial(path: Path) -> None:
    with h5py.File(partial_of(path), "w") as file:
        file["rows"] = ROWS
    with pytest.raises(InvalidInput, match="no file to go on with"):
        write(path, order())


def test_a_file_without_any_row_is_not_worth_keeping(path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        Fault(patch, 6, "before", crash)
        patch.setattr(result_files.ResultFile, "discard", lambda file: None)  # as where the process was killed
        with pytest.raises(Crash):
            write(path, order())
    assert partial_of(path).exists()
    write(path, order(ROWS[:7]))
    np.testing.assert_array_equal(read(path, "rows"), ROWS[:7])


def test_a_mark_left_by_a_library_that_was_killed(begun: Path) -> None:
    """HDF5 notes in a file that somebody writes it; nobody who reads one of ours minds."""
    with partial_of(begun).open("r+b") as file:
        head = bytearray(file.read(24))
        assert head[8] == 0  # the version of the superblock that has no such mark
        head[20] = 1
        file.seek(0)
        file.write(head)
    assert write_results(demos_hpc.local(MODEL), Operation.SAMPLE, begun, n=500, seed=3).resumed_at > 0
    assert len(read(begun, "sample")) == 500


def test_two_writers_of_one_file(path: Path) -> None:
    heard: list[str] = []

    def progress(done: int, total: int) -> None:
        if done == 3:
            with pytest.raises(InvalidInput, match=r"out.h5.partial is being written by another process"):
                write(path, order())
            heard.append("refused")

    write(path, order(), progress=progress)
    assert heard
    np.testing.assert_array_equal(read(path, "rows"), ROWS)


def test_two_who_begin_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second finds the first's file where there was none a moment ago."""
    real, is_first = result_files._lock, [True]

    def lock(there: Path, flags: int, opened: Any) -> int | None:
        got = real(there, flags, opened)
        if got is None and is_first[0]:
            is_first[0] = False
            with pytest.MonkeyPatch.context() as patch:
                Fault(patch, 30, "before", crash)
                with pytest.raises(Crash):
                    write(path, order())
        return got

    monkeypatch.setattr(result_files, "_lock", lock)
    assert write(path, order()).resumed_at > 0
    assert os.listdir(path.parent) == ["out.h5"]


def test_file_systems_without_locks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fcntl(descriptor: int, command: int, lock: bytes) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(result_files.fcntl, "fcntl", fcntl)
    write(path, order())
    np.testing.assert_array_equal(read(path, "rows"), ROWS)


@pytest.mark.parametrize("locking", ["TRUE", "FALSE", "BEST_EFFORT"])
def test_locks_of_hdf5_do_not_get_in_the_way(path: Path, monkeypatch: pytest.MonkeyPatch, locking: str) -> None:
    monkeypatch.setenv("HDF5_USE_FILE_LOCKING", locking)
    code = "import sys, test_writing as t; from pathlib import Path; t.write(Path(sys.argv[1]), t.order())"
    run_python(code, str(path))
    np.testing.assert_array_equal(read(path, "rows"), ROWS)


def test_a_file_that_is_moved_while_it_is_written(path: Path) -> None:
    def progress(done: int, total: int) -> None:
        if done == total:
            partial_of(path).rename(path.with_name("elsewhere"))

    with pytest.raises(DatasetError, match="was moved or removed while it was written"):
        write(path, order(), progress=progress)
    assert not path.exists()


def test_a_billion_rows(path: Path) -> None:
    """Places beyond 2**32 bytes and rows; nothing is stored of what is not written."""
    rows = 5 * 10**9
    contents = Contents("sample", (rows, 2), np.dtype("<f8"), {}, {})
    with open_result(path, contents, overwrite=False) as file:
        assert partial_of(path).stat().st_blocks * 512 < 1 << 16
        file.written = rows - 3
        file.add(ROWS[:3, :2])
        file.finish(overwrite=False)
    with h5py.File(path) as done:
        np.testing.assert_array_equal(done["sample"][-3:], ROWS[:3, :2])
    assert path.stat().st_blocks * 512 < 1 << 16


# ---- parts ---------------------------------------------------------------------------------------------------


def test_no_more_is_asked_for_than_is_wanted_in_memory(path: Path) -> None:
    asked, done, most = [0], [0], [0]

    class Counted(Done):
        def result(self) -> Any:
            done[0] += len(self.value)
            return self.value

    def submit(first: int, count: int, progress: Any) -> Any:
        assert count * 24 <= 240
        assert first == asked[0]
        asked[0] += count
        most[0] = max(most[0], asked[0] - done[0])
        return Counted(rows[first : first + count])

    rows = np.zeros((1000, 3))
    write(path, replace(order(rows), submit=submit, row_bytes=24, part_bytes=240))
    assert asked == [1000]
    assert most[0] <= writing.AHEAD * 10


def test_what_is_under_way_is_cancelled(path: Path) -> None:
    made: list[Done] = []

    def submit(first: int, count: int, progress: Any) -> Any:
        made.append(Done(ROWS[first : first + count]))
        return made[-1]

    def arrange(rows: Any) -> Any:
        raise Crash

    with pytest.raises(Crash):
        write(path, replace(order(), submit=submit, arrange=arrange))
    assert [future.is_cancelled for future in made] == [True] * writing.AHEAD


def test_rows_of_another_shape(path: Path) -> None:
    contents = order().contents
    with (
        open_result(path, contents, overwrite=False) as file,
        pytest.raises(InternalError, match=r"rows \(2, 4\) at row 0"),
    ):
        file.add(np.zeros((2, 4)))


def test_progress_counts_rows(path: Path) -> None:
    told: list[tuple[int, int]] = []
    model = demos_hpc.local(MODEL, workers=2, config=Config(chunk_seconds=1e-9))
    write_results(model, Operation.SAMPLE, path, n=500, seed=1, progress=lambda *news: told.append(news))
    assert told[0] == (0, 500)
    assert told[-1] == (500, 500)
    assert {total for _, total in told} == {500}
    assert all(a <= b for (a, _), (b, _) in pairwise(told))


def make_pace(**options: Any) -> Pace:
    return Pace(replace(order(), **{"part_bytes": 100_000, **options}))


def test_parts_grow_until_they_take_a_while() -> None:
    pace = make_pace(row_bytes=1, step=10, workers=2)
    sizes = []
    for _ in range(5):
        sizes.append(pace.rows)
        pace.note(pace.rows, pace.rows / 80.0)
    assert sizes == [20, 40, 80, 80, 80]
    pace.note(80, 100.0)
    assert pace.rows == 40
    for _ in range(5):
        pace.note(pace.rows, 100.0)
    assert pace.rows == 20
    pace.note(3, 0.0)  # the last one, which is short
    assert pace.rows == 20


def test_parts_are_no_larger_than_they_may() -> None:
    pace = make_pace(row_bytes=1000, step=7)
    for _ in range(10):
        pace.note(pace.rows, 0.0)
    assert pace.rows == 98
    assert make_pace(row_bytes=10**6, step=1024, workers=9).rows == 1024
    assert make_pace(row_bytes=0, step=1, workers=0).rows == 1


# ---- orders --------------------------------------------------------------------------------------------------


def test_words_and_files_will_do(path: Path, tmp_path: Path) -> None:
    model = demos_hpc.local(MODEL)
    np.save(tmp_path / "points.npy", POINTS)
    np.save(tmp_path / "x.npy", X)
    write_results(model, "evaluate", str(path), params=str(tmp_path / "points.npy"))
    np.testing.assert_array_equal(read(path, "evaluate"), model.evaluate(POINTS))
    write_results(model, "log_density", str(path), x=tmp_path / "x.npy", params=POINT, overwrite=True)
    np.testing.assert_array_equal(read(path, "log_density"), model.log_density(X, POINT))
    write_results(model, "log_density", str(path), x=X.tolist(), params=POINT, overwrite=True)
    np.testing.assert_array_equal(read(path, "log_density"), model.log_density(X, POINT))
    for operation in ("metadata", "rvs", Operation.DATASET):
        with pytest.raises(InvalidInput, match="has no rows to write to a file; evaluate, log_density"):
            write_results(model, operation, path.with_name("other.h5"))
    with pytest.raises(InvalidInput, match="log_density without x"):
        write_results(model, "log_density", path.with_name("other.h5"))


# ---- orders that are refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "operation", "given", "error", "message"),
    [
        (Line(), Operation.SAMPLE, {"n": 5}, NotOffered, "model 'line' offers no sample; it has evaluate"),
        (MODEL, Operation.SAMPLE, {"n": -1}, InvalidInput, "n is -1"),
        (MODEL, Operation.SAMPLE, {"n": 5, "seed": -1}, InvalidInput, "seed is -1"),
        (MODEL, Operation.SAMPLE, {"n": 5, "params": POINTS}, InvalidInput, r"sample takes one point \(p,\)"),
        (MODEL, Operation.SAMPLE, {"n": 5, "params": [0, -1]}, InvalidInput, "'sigma' is -1.0, outside"),
        (MODEL, Operation.EVALUATE, {"params": np.ones((3, 4))}, InvalidInput, r"params has shape \(3, 4\)"),
        (
            MODEL,
            Operation.EVALUATE,
            {"params": ArrayRows(np.ones((3, 4)), "p")},
            InvalidInput,
            r"shape \(3, 4\); model",
        ),
        (MODEL, Operation.LOG_DENSITY, {"x": ArrayRows(np.ones((3, 4)), "x")}, InvalidInput, r"takes \(n, 2\): x0, x1"),
        (MODEL, Operation.LOG_DENSITY, {"x": ArrayRows(X, "x"), "params": POINTS}, InvalidInput, "200 rows and x 300"),
    ],
)
def test_orders_that_are_refused(
    path: Path, model: Any, operation: Operation, given: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        write_results(demos_hpc.local(model), operation, path, **given)
    assert os.listdir(path.parent) == []


def test_points_are_looked_at_before_anything_is_computed(path: Path) -> None:
    points = POINTS.copy()
    points[150, 1] = -1.0
    with pytest.raises(InvalidInput, match=r"params, row 150: parameter 'sigma' is -1.0, outside \[0.001, None\]"):
        write_results(demos_hpc.local(MODEL), Operation.EVALUATE, path, params=points)
    assert os.listdir(path.parent) == []


def test_a_server_that_takes_little(path: Path) -> None:
    model = demos_hpc.local(MODEL, config=Config(max_request_bytes=600))
    write_results(model, Operation.SAMPLE, path, n=500, seed=1)
    assert len(read(path, "sample")) == 500
