"""The whole service over loopback: bad input, failures, merged and large requests, deadlines, several clients.

After whatever goes wrong the next request is answered as if nothing had happened.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from odd_models import DensityOnly, Improper, Line, Uniform
from service import MANY_TURNS, Service, make_request, read_error

import demos_hpc
from demos_hpc import (
    Busy,
    Cancelled,
    Config,
    DeadlineExceeded,
    DemosError,
    InvalidInput,
    ModelCrashed,
    ModelFailed,
    ModelNotFound,
    NotOffered,
    RemoteModel,
    ServerLost,
    TooLarge,
)
from demos_hpc.errors import BadFrame, BadVersion, RemoteTraceback
from demos_hpc.messages import Kind, Operation, to_json
from demos_hpc.spec import ModelSpec, Observable, Output, Parameter
from demos_hpc.testing import Failing, FakeClock, Gaussian, LinearGaussian
from demos_hpc.transport.loopback import LoopbackLink
from demos_hpc.wire import OFFSETS, Packed

MODEL = Gaussian()
X = np.random.default_rng(2).normal(size=(3000, 1))
POINT = np.array([0.5, 2.0])
TRUTH = MODEL.log_density(X, POINT)


def assert_serves(model: RemoteModel) -> None:
    """The next request is answered as if nothing had happened."""
    np.testing.assert_array_equal(model.log_density(X[:100], POINT), TRUTH[:100])


@pytest.fixture
def model() -> Iterator[RemoteModel]:
    with demos_hpc.local(MODEL, workers=2, config=Config()) as served:
        yield served


# ---- the caller's errors, raised before anything travels -----------------------------------------------------

CALLERS_ERRORS: dict[str, tuple[Callable[[RemoteModel], object], str]] = {
    "x of one dimension": (
        lambda m: m.log_density(X[:, 0], POINT),
        r"x has shape \(3000,\); model 'gaussian' takes \(n, 1\): x0; for one column write x\[:, np.newaxis\]",
    ),
    "x too wide": (lambda m: m.log_density(np.ones((3, 2)), POINT), r"x has shape \(3, 2\); .* takes \(n, 1\): x0"),
    "x of three dimensions": (lambda m: m.log_likelihood(np.ones((3, 1, 1))), r"x has shape \(3, 1, 1\)"),
    "x a number": (lambda m: m.log_density(1.0), r"x has shape \(\)"),
    "x ragged": (lambda m: m.log_density([[1.0], [1.0, 2.0]]), "x is no array: "),
    "x complex": (lambda m: m.log_density(X + 0j), "x has dtype complex128; it takes numbers, sent as float64"),
    "x of text": (lambda m: m.log_density([["1"]]), "x has dtype <U1"),
    "x of bool": (lambda m: m.log_density([[True]]), "x has dtype bool"),
    "x of objects": (lambda m: m.log_density([[None]]), "x has dtype object"),
    "params too few": (
        lambda m: m.log_density(X, [1.0]),
        r"params has shape \(1,\); model 'gaussian' takes 2: mu, sigma",
    ),
    "params too many": (lambda m: m.log_density(X, [1, 2, 3]), r"params has shape \(3,\)"),
    "params of other rows": (
        lambda m: m.log_density(X[:3], np.ones((2, 2))),
        r"params has 2 rows and x 3; give one point \(p,\), or one for each row",
    ),
    "params of three dimensions": (lambda m: m.log_likelihood(X, np.ones((1, 1, 2))), r"params has shape \(1, 1, 2\)"),
    "params complex": (lambda m: m.log_density(X, [1j, 2]), "params has dtype complex128"),
    "params of text": (lambda m: m.log_density(X, "mu"), "params has dtype"),
    "parameter missing": (
        lambda m: m.log_density(X, {"mu": 1.0}),
        "params: missing sigma; model 'gaussian' takes 2: mu, sigma",
    ),
    "parameter unknown": (
        lambda m: m.log_density(X, {"mu": 1, "sigma": 1, "tau": 1}),
        "params: unknown tau; model 'gaussian' takes 2",
    ),
    "columns of different lengths": (
        lambda m: m.log_density(X[:3], {"mu": [1, 2, 3], "sigma": [1, 2]}),
        "columns of different lengths",
    ),
    "parameter out of bounds": (
        lambda m: m.sample(3, {"mu": 1, "sigma": -1}),
        r"parameter 'sigma' is -1\.0, outside \[0\.001, None\]",
    ),
    "likelihood out of bounds, strict": (lambda m: m.log_likelihood(X, [0, 0], strict=True), "'sigma' is 0.0, outside"),
    "negative n": (lambda m: m.sample(-1), r"n is -1; it is a number of draws, an int from 0 to 2\*\*63 - 1"),
    "n not whole": (lambda m: m.sample(2.5), "n is 2.5"),
    "n a bool": (lambda m: m.sample(True), "n is True"),
    "seed too large": (lambda m: m.sample(1, seed=2**64), r"seed is \d+; it is an int from 0 to 2\*\*64 - 1"),
    "seed negative": (lambda m: m.sample(1, seed=-1), "seed is -1"),
    "seed of text": (lambda m: m.sample(1, seed="1"), "seed is '1'"),
    "sample at many points": (lambda m: m.sample(3, np.ones((3, 2))), r"sample takes one point \(p,\)"),
    "unknown default": (lambda m: m.set_params(tau=1.0), "unknown parameter 'tau'; model 'gaussian' takes 2"),
}


@pytest.mark.parametrize("name", CALLERS_ERRORS)
def test_the_callers_error_is_raised_before_anything_travels(name: str) -> None:
    call, message = CALLERS_ERRORS[name]
    service = Service(MODEL)
    model = service.connect()
    before = model.metadata()["statistics"]
    sent: list[object] = []
    model._connection._link.send = sent.append  # type: ignore[method-assign]
    with pytest.raises(InvalidInput, match=message):
        call(model)
    assert sent == []
    del model._connection._link.send  # type: ignore[method-assign]
    assert model.metadata()["statistics"] == before
    assert_serves(model)


@pytest.mark.parametrize("timeout", [float("nan"), -1, "soon"], ids=str)
def test_a_timeout_that_means_nothing_is_refused(model: RemoteModel, timeout: Any) -> None:
    with pytest.raises(InvalidInput, match=r"timeout is .*; it is a number of seconds"):
        model.log_density(X, POINT, timeout=timeout)
    assert_serves(model)


def test_a_timeout_may_be_infinite_or_longer_than_the_wire_can_say(model: RemoteModel) -> None:
    for timeout in (float("inf"), 1e12):
        np.testing.assert_array_equal(model.log_density(X, POINT, timeout=timeout), TRUTH)


@pytest.mark.parametrize("timeout", [np.float32(30.0), np.int64(30)], ids=repr)
def test_a_timeout_may_be_a_number_of_numpy(model: RemoteModel, timeout: Any) -> None:
    future = model.submit.log_density(X, POINT, timeout=timeout)
    np.testing.assert_array_equal(future.result(timeout=timeout), TRUTH)


def test_an_operation_that_is_not_offered() -> None:
    line, exponential = demos_hpc.local(Line), demos_hpc.local(DensityOnly)
    with pytest.raises(NotOffered, match="model 'line' offers no log_density; it has evaluate"):
        line.log_density(np.empty((3, 0)), [1, 2])
    for call in (lambda: exponential.sample(3, [1.0]), lambda: exponential.evaluate([1.0])):
        with pytest.raises(NotOffered, match="it has log_density, log_likelihood"):
            call()
    np.testing.assert_array_equal(line.evaluate([1, 2]), [1.0, 3.0, 5.0])


def test_a_gradient_with_respect_to_x_that_is_missing() -> None:
    class WithoutX(Gaussian):
        log_density_gradient_x = None

    served = Service(WithoutX()).connect()
    sent: list[object] = []
    served._connection._link.send = sent.append  # type: ignore[method-assign]
    for x in (X, X[:0]):
        with pytest.raises(NotOffered, match="offers no log_density_gradient with respect to x; it has log_density"):
            served.log_density_gradient(x, POINT, wrt="x")
    assert sent == []
    del served._connection._link.send  # type: ignore[method-assign]
    served.log_density_gradient(X, POINT, wrt="x", method="finite-difference")
    assert_serves(served)


def test_a_request_over_the_size_limit() -> None:
    served = demos_hpc.local(MODEL, config=Config(max_request_bytes=10_000))
    for call in (
        lambda: served.log_density(X, POINT),
        lambda: served.log_density(X[:500], np.ones((500, 2))),
        lambda: served.log_likelihood(X[:10], np.ones((1000, 2))),
        lambda: served.evaluate(np.ones((1000, 2))),
    ):
        with pytest.raises(TooLarge, match=r"10000.*: (ask for less at a time|split the request)"):
            call()
    assert_serves(served)


def test_the_server_holds_its_limit_against_clients_that_do_not() -> None:
    service = Service(MODEL, config=Config(max_request_bytes=10_000))
    peer = service.add_peer()
    error = read_error(peer.ask_one(make_request(Operation.LOG_DENSITY, [X, POINT])))
    assert isinstance(error, TooLarge)
    assert "this server takes 10000 (DEMOS_MAX_REQUEST_BYTES): split the request" in str(error)
    huge = make_request(Operation.LOG_DENSITY, [X[:1000], POINT], n_rows=1000 * 2**40)
    assert isinstance(read_error(peer.ask_one(huge)), TooLarge)
    request = make_request(Operation.LOG_DENSITY, [X[:100], POINT])
    np.testing.assert_array_equal(peer.ask_rows(request), TRUTH[:100])


# ---- models that are not there, or do not load ---------------------------------------------------------------

BROKEN_FILES = {
    "raises": ("raise RuntimeError('no license')", "M", ModelFailed, "could not be imported: RuntimeError: no license"),
    "syntax": ("def", "M", ModelFailed, "could not be imported: SyntaxError"),
    "import": ("import no_such_module", "M", ModelFailed, "needs the module 'no_such_module', which is not installed"),
    "constructor": (
        "class M:\n    def __init__(self):\n        raise OSError('no data')",
        "M",
        ModelFailed,
        "could not be made: OSError: no data",
    ),
    "name": (
        "class A:\n    spec = 1",
        "M",
        ModelNotFound,
        "has no 'M'; it has A",
    ),
    "spec": ("class M:\n    pass", "M", InvalidInput, "M has no attribute 'spec' of type demos_hpc.ModelSpec"),
    "methods": (
        "from demos_hpc import ModelSpec\nclass M:\n    spec = ModelSpec(name='m')",
        "M",
        InvalidInput,
        "model 'm' has no datasets and none of the methods evaluate, log_density, log_density_gradient, sample",
    ),
}


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_a_model_file_that_does_not_load_says_why(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    text, class_name, error, message = BROKEN_FILES[name]
    path = tmp_path / f"broken_{name}.py"
    path.write_text(text + "\n", encoding="utf-8")
    with pytest.raises(error, match=message) as caught:
        demos_hpc.local(f"{path}:{class_name}")
    assert "demos-hpc: worker 0 serves nothing" in capfd.readouterr().err
    if error is ModelFailed and name != "import":
        assert isinstance(caught.value.__cause__, RemoteTraceback)
        assert "Error" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere.py:M", "model file 'nowhere.py' does not exist"),
        ("no_such_package.module:M", "there is no module 'no_such_package"),
        ("no_such_package:M", "there is no module 'no_such_package'"),
        ("demos_hpc.testing:Nobody", "demos_hpc.testing has no 'Nobody'"),
        ("my_model.py", "write file.py:Class or package.module:Class"),
        ("", "write file.py:Class"),
    ],
)
def test_a_model_path_that_does_not_exist(path: str, message: str) -> None:
    with pytest.raises(ModelNotFound, match=message):
        demos_hpc.local(path)


def test_an_unknown_name_and_several_models() -> None:
    service = Service(MODEL, LinearGaussian(), workers=2)
    with pytest.raises(InvalidInput, match="there is no model 'nothing' here; there are: 'gaussian', 'linear"):
        service.connect("nothing")
    with pytest.raises(InvalidInput, match="several models are served: name one; there are: 'gaussian'"):
        service.connect()
    assert service.connect("linear-gaussian").spec.n_params == 1
    assert service.connect(MODEL.spec.uuid).spec.name == "gaussian"
    assert_serves(service.connect("gaussian"))


def test_whoever_asks_early_is_answered_when_the_model_has_come() -> None:
    service = Service(workers=0, n_offers=2)
    early, any_name, wrong = service.add_peer(), service.add_peer(), service.add_peer()
    early.send(make_request(Operation.METADATA, [to_json({"model": "gaussian"})]))
    any_name.send(make_request(Operation.METADATA))
    wrong.send(make_request(Operation.METADATA, [to_json({"model": "poisson"})]))
    service.turn()
    service.add_worker(MODEL)
    service.turn()
    assert [len(p.receive()) for p in (early, any_name, wrong)] == [0, 0, 0]
    service.add_worker(ModelFailed("it has no license"))
    service.turn()
    assert [f.header.status for p in (early, any_name) for f in p.receive()] == [0, 0]
    assert "it has no license" in str(read_error(wrong.receive()[0]))  # it may be the one that failed


def test_a_model_that_some_workers_cannot_load_is_served_by_the_others(capfd: pytest.CaptureFixture[str]) -> None:
    service = Service(MODEL, ModelFailed("no memory"), workers=3)
    model = service.connect("gaussian")
    assert model.metadata()["workers"] == 1
    assert_serves(model)
    assert capfd.readouterr().err.count("serves nothing: no memory") == 2


@pytest.mark.parametrize("what", ["spec", "code"])
def test_two_models_of_one_name_are_not_mixed(what: str, capfd: pytest.CaptureFixture[str]) -> None:
    class Other(Gaussian):
        """The same spec, other code."""

    service = Service(MODEL, Gaussian(block_rows=7) if what == "spec" else Other(), workers=2)
    message = f"two different models are called 'gaussian': workers differ in its {what}"
    with pytest.raises(ModelFailed, match=message):
        service.connect()
    assert message in capfd.readouterr().err


# ---- the model's errors --------------------------------------------------------------------------------------


def test_a_model_that_raises_comes_back_with_worker_and_traceback() -> None:
    served = demos_hpc.local(Failing("raises", above=1.0), workers=2)
    with pytest.raises(ModelFailed) as caught:
        served.log_density([[0.0], [2.0]], POINT)
    message = r"log_density() of model 'failing-raises' raised ArithmeticError: row 1 is above 1.0 (worker "
    assert message in str(caught.value)
    trace = str(caught.value.__cause__)
    assert "ArithmeticError: row 1 is above 1.0" in trace
    assert "in log_density" in trace
    assert served.metadata()["statistics"]["failures"] == 1
    np.testing.assert_array_equal(served.log_density([[0.0]], POINT), MODEL.log_density(np.zeros((1, 1)), POINT))


def test_a_model_that_returns_the_wrong_shape() -> None:
    served = demos_hpc.local(Failing("shape", above=1.0))
    for call in (served.log_density, served.log_likelihood):
        with pytest.raises(
            ModelFailed, match=r"returned shape \(2, 1\), dtype float64; the contract asks for \(2,\), float64"
        ):
            call([[0.0], [2.0]], POINT)
    assert served.log_density([[0.0]], POINT).shape == (1,)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, r"returned shape \(\), dtype object"),
        ("text", r"returned shape \(\), dtype <U4"),
        ([[1.0], [1.0, 2.0]], "returned no array"),
        (np.ones(2, complex), "dtype complex128"),
        (np.ones(2, bool), "dtype bool"),
        (1.0, r"returned shape \(\)"),
    ],
    ids=["nothing", "text", "ragged", "complex", "bool", "number"],
)
def test_a_model_that_returns_something_else(returned: Any, message: str) -> None:
    class Strange(Gaussian):
        def log_density(self, x: Any, params: Any) -> Any:
            return returned

        def log_density_gradient(self, x: Any, params: Any) -> Any:
            return returned

    served = demos_hpc.local(Strange())
    with pytest.raises(ModelFailed, match=message):
        served.log_density([[0.0], [2.0]], POINT)
    with pytest.raises(ModelFailed, match=r"no pair|shape|no array"):
        served.log_density_gradient([[0.0], [2.0]], POINT)
    assert served.evaluate(POINT)[0] == 0.5


def test_a_model_may_return_other_numbers() -> None:
    class Integer(Gaussian):
        def log_density(self, x: Any, params: Any) -> Any:
            return [int(value) for value in x[:, 0]]

    np.testing.assert_array_equal(demos_hpc.local(Integer()).log_density([[1.0], [2.0]]), [1.0, 2.0])


@pytest.mark.parametrize("error", [MemoryError("too much"), KeyboardInterrupt(), SystemExit(3), ImportError("late")])
def test_whatever_a_model_raises_in_a_call(error: BaseException) -> None:
    class Raising(Gaussian):
        def evaluate(self, params: Any) -> Any:
            raise error

    served = demos_hpc.local(Raising())
    if isinstance(error, KeyboardInterrupt):  # ends the process, not the request
        with pytest.raises(KeyboardInterrupt):
            served.evaluate(POINT)
    else:
        with pytest.raises(ModelFailed, match=type(error).__name__):
            served.evaluate(POINT)
        assert_serves(served)


def test_a_model_that_returns_nan_is_answered_and_counted() -> None:
    served = demos_hpc.local(Failing("nan", above=1.0))
    future = served.submit.log_density([[0.0], [2.0], [3.0]], POINT)
    assert np.isnan(future.result()).tolist() == [False, True, True]
    assert future.nonfinite_rows == 2
    assert np.isnan(served.log_likelihood([[0.0], [2.0]], POINT))
    assert served.metadata()["statistics"]["nonfinite_rows"] == 3


def test_infinities_are_passed_on_and_counted() -> None:
    served = demos_hpc.local(Improper(), workers=2)
    x = np.zeros((100, 1))
    x[3], x[4], x[5] = 7, 8, np.inf
    future = served.submit.log_density(x, POINT)
    value = future.result()
    assert (value[3], np.isnan(value[4]), value[5]) == (np.inf, True, -np.inf)
    assert future.nonfinite_rows == 2
    assert served.log_likelihood(x[:4], POINT) == np.inf
    assert np.isnan(served.log_likelihood(x, POINT))
    assert served.log_likelihood(x[5:], POINT) == -np.inf
    assert np.isnan(served.log_likelihood(x[[3, 5]], POINT))


# ---- many small requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("params", ["one point", "a point for each row", "the server's"])
def test_merged_requests_equal_unmerged_ones_bit_for_bit(workers: int, rows: int, params: str) -> None:
    calls = count_calls = Counting(d=2)
    x = np.random.default_rng(3).normal(size=(300, rows, 2))
    points = np.random.default_rng(4).uniform(0.5, 2.0, size=(300, rows, 2))
    service = Service(calls, workers=workers)
    one, other = service.connect(), service.connect(user="bob")
    for name in ("log_density", "log_density_gradient"):

        def submit(i: int, name: str = name) -> Any:
            point = {"one point": points[i, 0], "a point for each row": points[i], "the server's": None}[params]
            return getattr((one, other)[i % 2].submit, name)(x[i], point)

        one_by_one = [submit(i).result() for i in range(300)]
        count_calls.calls = 0
        futures = [submit(i) for i in range(300)]
        for expected, future in zip(one_by_one, futures, strict=True):
            np.testing.assert_equal(future.result(), expected)
        assert count_calls.calls < 100, "they were not merged"


class Counting(Gaussian):
    """A `Gaussian` that counts its calls."""

    calls = 0

    def log_density(self, x: Any, params: Any) -> Any:
        self.calls += 1
        return super().log_density(x, params)

    def log_density_gradient(self, x: Any, params: Any) -> Any:
        self.calls += 1
        return super().log_density_gradient(x, params)


def test_evaluations_are_merged_as_well() -> None:
    served = demos_hpc.local(Line, workers=2)
    points = np.random.default_rng(5).normal(size=(200, 2))
    futures = [served.submit.evaluate(point) for point in points] + [served.submit.evaluate() for _ in range(50)]
    np.testing.assert_array_equal([f.result() for f in futures[:200]], Line().evaluate(points))
    np.testing.assert_array_equal([f.result() for f in futures[200:]], np.tile([1.0, 3.0, 5.0], (50, 1)))


class Wide:
    """A model with 100 parameters and 3,000 outputs."""

    spec = ModelSpec(
        name="wide",
        parameters=tuple(Parameter(f"p{i}", default=float(i)) for i in range(100)),
        observables=(Observable("x"),),
        outputs=tuple(Output(f"y{i}") for i in range(3000)),
    )

    def evaluate(self, params: Any) -> Any:
        return np.tile(params, (1, 30)) * np.arange(3000.0)

    def log_density_gradient(self, x: Any, params: Any) -> Any:
        return x[:, 0] * params[..., 1], x * np.arange(100.0) + params


@pytest.mark.parametrize("given", [True, False], ids=["params given", "the server's"])
def test_fifty_requests_with_large_answers(given: bool) -> None:
    served, wide = demos_hpc.local(Wide, workers=2), Wide()
    points = np.random.default_rng(9).normal(size=(50, 100)) if given else np.tile(wide.spec.defaults, (50, 1))
    futures = [served.submit.evaluate(point if given else None) for point in points]
    np.testing.assert_array_equal([f.result() for f in futures], wide.evaluate(points))
    for rows in (1, 30):
        x = np.random.default_rng(10).normal(size=(50, rows, 1))
        futures = [served.submit.log_density_gradient(a, b if given else None) for a, b in zip(x, points, strict=True)]
        for future, a, b in zip(futures, x, points, strict=True):
            for got, wanted in zip(future.result(), wide.log_density_gradient(a, b), strict=True):
                np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("params", [np.empty(0), None, {}], ids=["empty", "left out", "by name"])
@pytest.mark.parametrize("rows", [1, 3])
def test_requests_of_a_model_without_parameters_are_merged(rows: int, params: Any) -> None:
    served = demos_hpc.local(Uniform)
    x = np.random.default_rng(12).uniform(-0.5, 1.5, size=(50, rows, 2))
    futures = [served.submit.log_density(row, params) for row in x]
    slopes = [served.submit.log_density_gradient(row, params) for row in x]
    for row, future, slope in zip(x, futures, slopes, strict=True):
        np.testing.assert_array_equal(future.result(), Uniform().log_density(row, np.empty(0)))
        assert slope.result()[1].shape == (rows, 0)


def test_a_failing_request_inside_a_merged_chunk_harms_only_itself() -> None:
    served = demos_hpc.local(Failing("raises", above=1.0), workers=2)
    x = np.zeros((200, 1, 1))
    x[[7, 8, 150]] = 2.0
    futures = [served.submit.log_density(row, POINT) for row in x]
    failed = [i for i, future in enumerate(futures) if isinstance(future.exception(), ModelFailed)]
    assert failed == [7, 8, 150]
    assert {f.result()[0] for i, f in enumerate(futures) if i not in failed} == {MODEL.log_density(x[0], POINT)[0]}


def test_nan_in_merged_requests_is_counted_where_it_is() -> None:
    served = demos_hpc.local(MODEL)
    x = np.zeros((100, 1, 1))
    x[[3, 50]] = np.nan
    futures = [served.submit.log_density(row, POINT) for row in x]
    assert [i for i, f in enumerate(futures) if np.isnan(f.result()[0])] == [3, 50]
    assert served.metadata()["statistics"]["nonfinite_rows"] == 2
    assert [i for i, f in enumerate(futures) if f.nonfinite_rows] == [3, 50]


def test_requests_of_a_model_whose_rows_depend_on_one_another_are_not_merged() -> None:
    model = LinearGaussian(d=4, block_rows=8)
    served = demos_hpc.local(model, workers=3)
    x = np.random.default_rng(6).normal(size=(50, 3, 4))
    futures = [served.submit.log_density(rows, [0.3]) for rows in x]
    for rows, future in zip(x, futures, strict=True):
        np.testing.assert_array_equal(future.result(), model.log_density(rows, np.array([0.3])))


def test_merged_requests_see_the_defaults_of_their_own_time() -> None:
    service = Service(MODEL)
    one, other = service.connect(), service.connect()
    futures = []
    for i in range(60):
        futures.append(one.submit.log_density(X[:1]))
        if i % 20 == 19:
            service.dispatcher.step()
            other.submit.handle  # noqa: B018  (the other client changes them in between)
            other._connection.ask(Operation.SET_PARAMS, {"mu": float(i)}, model=other.submit.handle)
            service.dispatcher.step()
    expected = [MODEL.log_density(X[:1], np.array([mu, 1.0]))[0] for mu in [0.0] * 20 + [19.0] * 20 + [39.0] * 20]
    assert [f.result()[0] for f in futures] == expected
    assert [f.revision for f in futures] == [1] * 20 + [2] * 20 + [3] * 20


# ---- differences ---------------------------------------------------------------------------------------------


def test_differences_at_the_edge_of_the_support_stay_inside() -> None:
    served = demos_hpc.local(DensityOnly)
    value, gradient = served.log_density_gradient([[0.0], [2.0], [-1.0]], [3.0], wrt="x", method="finite-difference")
    np.testing.assert_allclose(gradient, [[-3.0], [-3.0], [0.0]], rtol=1e-5)
    assert value.tolist()[1:] == [np.log(3.0) - 6.0, -np.inf]

    class Wedge(Uniform):
        def log_density(self, x: Any, params: Any) -> Any:
            with np.errstate(divide="ignore", invalid="ignore"):
                inside = np.log(1.0 + x[:, 0] + 2.0 * x[:, 1])
            return np.where(((x < 0) | (x > 1)).any(axis=1), -np.inf, inside)

    corners = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.5, 0.5]])
    gradient = demos_hpc.local(Wedge).log_density_gradient(corners, wrt="x", method="finite-difference")[1]
    exact = np.array([1.0, 2.0]) / (1.0 + corners @ [1.0, 2.0])[:, np.newaxis]
    np.testing.assert_allclose(gradient, exact, rtol=1e-4)


@pytest.mark.parametrize("at", [1e-12, -2.5e-12, 0.0])
def test_differences_of_a_parameter_of_tiny_size(at: float) -> None:
    class Tiny:
        spec = ModelSpec(
            name="tiny", parameters=(Parameter("g", "GeV-2", default=1e-12),), observables=(Observable("x"),)
        )

        def log_density(self, x: Any, params: Any) -> Any:
            return -0.5 * (x[:, 0] - params[..., 0] * 1e12) ** 2

    served = demos_hpc.local(Tiny)
    x = np.array([[0.3], [2.0]])
    exact = (x - at * 1e12) * 1e12
    gradient = served.log_density_gradient(x, [at], method="finite-difference")[1]
    np.testing.assert_allclose(gradient, exact, rtol=1e-6)
    gradient = served.log_likelihood_gradient(x, [at], method="finite-difference")[1]
    np.testing.assert_allclose(gradient, exact.sum(axis=0), rtol=1e-6)


# ---- large requests ------------------------------------------------------------------------------------------


def test_requests_of_many_parts_and_answers_of_many_parts() -> None:
    model = Gaussian(d=3)
    n = 1_000_003  # 24 MB, no multiple of a block
    x = np.random.default_rng(7).normal(size=(n, 3))
    rows = np.empty((n, 2))
    rows[:, 0], rows[:, 1] = np.linspace(-1, 1, n), np.linspace(0.5, 2, n)
    served = demos_hpc.local(model, workers=2, config=Config(window_bytes=8 << 20))
    np.testing.assert_array_equal(served.log_density(x, POINT), model.log_density(x, POINT))
    np.testing.assert_array_equal(served.log_density(x, rows), model.log_density(x, rows))
    np.testing.assert_array_equal(served.log_density_gradient(x, rows)[1], model.log_density_gradient(x, rows)[1])
    np.testing.assert_array_equal(served.log_density(x), model.log_density(x, np.array([0.0, 1.0])))
    assert served.log_likelihood(x, POINT) == pytest.approx(model.log_density(x, POINT).sum(), rel=1e-12)
    values, gradients = served.log_likelihood_gradient(x, [[0.0, 1.0], POINT, [0.0, -1.0]])
    assert values[1] == served.log_likelihood(x, POINT)
    assert np.isneginf(values[2])
    np.testing.assert_allclose(gradients[1], model.log_density_gradient(x, POINT)[1].sum(axis=0), rtol=1e-9)
    np.testing.assert_array_equal(served.evaluate(rows), model.evaluate(rows))


def test_a_large_request_keeps_within_its_window() -> None:
    service = Service(Gaussian(d=8), config=Config(window_bytes=8 << 20))
    model = service.connect()
    sent: list[int] = []
    link: LoopbackLink = model._connection._link  # type: ignore[assignment]
    send = link.send

    def count(packed: Any) -> None:
        sent.append(sum(array.nbytes for array in packed.tail))
        send(packed)

    link.send = count  # type: ignore[method-assign]
    future = model.submit.log_density(np.zeros((1_000_000, 8)))
    assert not future.done()
    assert sum(sent) <= 12 << 20
    future.result()
    assert sum(sent) >= 64_000_000


def test_several_large_requests_and_small_ones_in_between() -> None:
    served = demos_hpc.local(MODEL, workers=2)
    x = np.random.default_rng(8).normal(size=(600_000, 1))
    large = [served.submit.log_density(x, [mu, 1.0]) for mu in (0.0, 1.0)]
    small = [served.submit.log_density(X[i : i + 1], POINT) for i in range(20)]
    assert [f.result()[0] for f in small] == TRUTH[:20].tolist()
    for mu, future in zip((1.0, 0.0), large[::-1], strict=True):
        np.testing.assert_array_equal(future.result(), MODEL.log_density(x, np.array([mu, 1.0])))


def test_a_failure_in_a_late_part_of_a_large_request() -> None:
    served = demos_hpc.local(Failing("raises", above=1.0), workers=2)
    x = np.zeros((1_500_000, 1))
    x[-1] = 2.0
    with pytest.raises(ModelFailed, match="is above"):
        served.log_density(x, POINT)
    assert served.log_density(x[:5], POINT).shape == (5,)
    x[0] = 2.0
    with pytest.raises(ModelFailed):
        served.log_likelihood(x, POINT)
    assert served.log_likelihood(x[1:5], POINT) < 0


def test_a_large_request_that_is_cancelled_on_its_way() -> None:
    service = Service(MODEL, config=Config(window_bytes=4 << 20))
    model = service.connect()
    future = model.submit.log_density(np.zeros((4_000_000, 1)))
    assert not future.done()
    service.turn()
    assert future.cancel()
    with pytest.raises(Cancelled):
        future.result()
    assert future.cancelled()
    assert_serves(model)


# ---- time ----------------------------------------------------------------------------------------------------


def test_a_request_past_its_deadline_ends_and_is_not_started() -> None:
    clock, model = FakeClock(), Counting()
    service = Service(model, clock=clock)
    client = service.connect()
    future = client.submit.log_density(X, POINT, timeout=5.0)
    service.dispatcher.step()
    clock.advance(5.1)
    service.dispatcher.step()
    with pytest.raises(DeadlineExceeded, match="not done in time: 0 of 3000 units were computed"):
        future.result()
    service.turn()
    assert model.calls == 0
    assert client.metadata()["statistics"]["failures"] == 1
    assert_serves(client)


def test_a_deadline_in_the_middle_says_how_far_it_went() -> None:
    clock = FakeClock()
    service = Service(MODEL, clock=clock, config=Config(chunk_seconds=1e-6))
    client = service.connect()
    future = client.submit.log_density(X, POINT, timeout=5.0)
    service.turn()
    clock.advance(5.1)
    error = future.exception()
    assert isinstance(error, DeadlineExceeded)
    assert "not done in time: 4 of 3000 units" in str(error)
    assert_serves(client)


def test_timeouts_of_result_leave_the_request_alone() -> None:
    service = Service(MODEL)
    client = service.connect()
    workers, service.workers = service.workers, []
    future = client.submit.log_density(X, POINT)
    for wait in (future.result, future.exception):
        with pytest.raises(TimeoutError, match=r"no answer to request \d+ within 0\.001 s"):
            wait(timeout=0.001)
    service.workers = workers
    np.testing.assert_array_equal(future.result(timeout=30), TRUTH)


def test_a_server_that_says_nothing_is_given_up_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demos_hpc.connection.GRACE", 0.01)
    service = Service(MODEL)
    client = service.connect()
    future = client.submit.log_density(X, POINT, timeout=0.01)
    turn, service.turn = service.turn, lambda: None  # type: ignore[method-assign]
    client._connection._port._turn = service.turn  # type: ignore[attr-defined]
    with pytest.raises(DeadlineExceeded, match="neither an answer in time nor a refusal"):
        future.result()
    client._connection._port._turn = turn  # type: ignore[attr-defined]
    assert_serves(client)


def test_too_many_waiting_requests_are_refused_at_once_and_others_are_not() -> None:
    service = Service(MODEL, config=Config(max_queued_requests=3))
    one, other = service.connect(), service.connect(user="bob")
    futures = [one.submit.log_density(X, POINT) for _ in range(20)]
    service.dispatcher.step()
    assert_serves(other)
    errors = [future.exception() for future in futures]
    refused = [error for error in errors if error is not None]
    assert all(isinstance(error, Busy) and error.retry_after > 0 for error in refused)
    assert "3 requests of this client are waiting already; take some answers first" in str(refused[0])
    assert 3 <= len(futures) - len(refused) < 10
    np.testing.assert_array_equal(futures[errors.index(None)].result(), TRUTH)
    assert_serves(one)


# ---- peers that come and go ----------------------------------------------------------------------------------


def test_the_end_of_the_service_reaches_whoever_waits() -> None:
    service = Service(MODEL)
    client = service.connect()
    future = client.submit.log_density(X, POINT)
    service.dispatcher.serve(lambda: True)
    with pytest.raises(ServerLost, match="the server has ended"):
        future.result()
    with pytest.raises(ServerLost, match="the server has ended"):
        client.log_density(X, POINT)


def test_workers_end_with_the_service() -> None:
    service = Service(MODEL, workers=2)
    service.dispatcher.serve(lambda: True)
    for worker in service.workers:
        worker.serve()


def test_a_client_that_leaves_takes_its_requests_along() -> None:
    service = Service(MODEL)
    one, other = service.connect(), service.connect()
    for _ in range(10):
        one.submit.log_density(X, POINT)
    service.dispatcher.step()
    one.close()
    assert_serves(other)
    assert "0 requests, 0 chunks" in repr(service.dispatcher.scheduler)


def test_a_worker_that_is_lost_is_replaced_by_another() -> None:
    service = Service(MODEL, workers=2)
    client = service.connect()
    future = client.submit.log_density(X, POINT)
    service.dispatcher.step()
    lost = service.workers.pop()
    service.dispatcher.lose(lost._link._peer)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(future.result(), TRUTH)


def test_rows_that_kill_their_workers_are_named() -> None:
    service = Service(MODEL, workers=6)
    one, other = service.connect(), service.connect()
    x = X[:10].copy()
    x[6] = 99.0
    culprit, innocent = one.submit.log_density(x, POINT), other.submit.log_density(X[:10], POINT)
    for _ in range(MANY_TURNS):
        service.dispatcher.step()
        for worker in list(service.workers):
            arrived = worker._port._arrived  # type: ignore[attr-defined]
            if any(99.0 in frame.arrays[0] for _, frame in arrived if frame.header.kind == Kind.CHUNK):
                service.workers.remove(worker)  # whoever gets row 6 dies
                service.dispatcher.lose(worker._link._peer)  # type: ignore[attr-defined]
            else:
                worker.step()
        if culprit.done():
            break
    assert isinstance(culprit.error, ModelCrashed)
    assert re.search(r"rows \d to \d+ of the request could not be computed: they were with 2 w", str(culprit.error))
    assert len(service.workers) == 2
    np.testing.assert_array_equal(innocent.result(), TRUTH[:10])
    assert_serves(other)


def test_a_worker_that_stays_in_one_chunk_is_given_up(capfd: pytest.CaptureFixture[str]) -> None:
    clock = FakeClock()
    service = Service(MODEL, workers=2, clock=clock, config=Config(chunk_timeout=60.0))
    client = service.connect()
    future = client.submit.log_density(X[:4], POINT)
    service.dispatcher.step()
    (stuck,) = [w for w in service.workers if w._port._arrived]  # type: ignore[attr-defined]
    service.workers.remove(stuck)
    clock.advance(61.0)
    np.testing.assert_array_equal(future.result(), TRUTH[:4])
    assert "worker" in (err := capfd.readouterr().err)
    assert "has been in one chunk for too long and is given up" in err
    stuck.step()  # its late answer is dropped
    assert_serves(client)


# ---- frames that are none ------------------------------------------------------------------------------------


def corrupt(field: str, value: int) -> bytes:
    frame = make_request(Operation.LOG_DENSITY, [X[:5], POINT]).head
    frame[OFFSETS[field]] = value
    return bytes(frame)


BAD_FRAMES: dict[str, tuple[bytes, type[DemosError], str]] = {
    "other version": (
        corrupt("major", 9),
        BadVersion,
        r"the peer speaks wire version 9\.0, this side 1\.0; install the same version",
    ),
    "truncated": (corrupt("magic", ord("D"))[:-8], BadFrame, "a frame of .* bytes of which .* arrived"),
    "header cut": (corrupt("magic", ord("D"))[:40], BadFrame, "a frame of 40 bytes; its header alone has 64"),
    "no magic": (corrupt("magic", 0), BadFrame, "a frame that starts with"),
    "too many arrays": (corrupt("n_arrays", 200), BadFrame, "a frame with 200 arrays; at most 8 are allowed"),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_a_frame_that_is_none_ends_its_link_and_nothing_else(name: str) -> None:
    message, error_type, text = BAD_FRAMES[name]
    service = Service(MODEL)
    client, peer = service.connect(), service.add_peer()
    pending = client.submit.log_density(X, POINT)
    frame = peer.ask_one(message)
    error = read_error(frame)
    assert type(error) is error_type
    assert re.search(text, str(error))
    assert frame.header.id == 0
    np.testing.assert_array_equal(pending.result(), TRUTH)
    assert_serves(client)
    assert service.dispatcher.n_clients == 1
    peer.send(make_request(Operation.LOG_DENSITY, [X[:5], POINT]))
    service.turn()
    assert peer.receive() == []
    service.dispatcher.serve(lambda: True)
    assert [f.header.kind for f in peer.receive()] == [Kind.END]


def test_a_client_told_that_its_frames_are_none_says_so() -> None:
    service = Service(MODEL)
    client = service.connect()
    future = client.submit.log_density(X[:5], POINT)
    client._connection._link.send(Packed(bytearray(corrupt("major", 2)), ()))
    for call in (future.result, lambda: client.log_density(X[:5], POINT)):
        with pytest.raises(BadVersion, match=r"the peer speaks wire version 2\.0, this side 1\.0"):
            call()
    assert_serves(service.connect())
