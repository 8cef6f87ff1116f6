"""Models found, loaded and called as the contract says."""

from __future__ import annotations

import importlib
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from odd_models import DensityOnly, Line, OnePoint, Uniform

from demos_hpc.errors import InvalidInput, ModelFailed, ModelNotFound, NotOffered
from demos_hpc.model import LoadedModel, format_traceback, load
from demos_hpc.spec import ModelSpec, Observable
from demos_hpc.testing import Failing, Gaussian, LinearGaussian

X = np.random.default_rng(21).normal(size=(50, 1))
POINT = np.array([0.5, 2.0])

FILE = """
import beside_the_model
from demos_hpc.testing import Gaussian

class Model(Gaussian):
    pass

instance = Gaussian(d=3)
number = 5
"""


@pytest.fixture(autouse=True)
def keep_the_path_of_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a file adds its directory, so that its methods may import later."""
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "beside_the_model.py").write_text("", encoding="utf-8")
    path = tmp_path / "a_model_file.py"
    path.write_text(FILE, encoding="utf-8")
    return path


def test_a_class_or_an_instance_of_a_file(file: Path) -> None:
    assert load(f"{file}:Model").spec.name == "gaussian"
    assert load(f"{file}:instance").spec.n_observables == 3


def test_a_class_of_a_module() -> None:
    assert load("demos_hpc.testing:Gaussian").spec.name == "gaussian"


LATE = """
from demos_hpc.testing import Gaussian

class Model(Gaussian):
    def evaluate(self, params):
        import found_late_beside_the_model
        return params * found_late_beside_the_model.FACTOR
"""


def test_a_method_may_import_the_files_beside_its_model(tmp_path: Path) -> None:
    (tmp_path / "found_late_beside_the_model.py").write_text("FACTOR = 3.0\n", encoding="utf-8")
    (tmp_path / "late.py").write_text(LATE, encoding="utf-8")
    assert load(f"{tmp_path / 'late.py'}:Model").evaluate(np.array([[1.0, 2.0]])).tolist() == [[3.0, 6.0]]


def test_a_model_file_does_not_replace_the_module_of_its_name(tmp_path: Path) -> None:
    path = tmp_path / "random.py"
    path.write_text("import random\nfrom demos_hpc.testing import Gaussian\nrandom.Random(1)\n", encoding="utf-8")
    load(f"{path}:Gaussian")
    assert sys.modules["random"] is random
    assert importlib.import_module("random").Random(1).random() == random.Random(1).random()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import sys\nsys.exit(3)", "could not be imported: SystemExit: 3"),
        (
            "import sys\nclass Model:\n    def __init__(self):\n        sys.exit('no')",
            "could not be made: SystemExit: no",
        ),
    ],
    ids=["import", "constructor"],
)
def test_a_model_that_would_end_the_process_only_fails(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "leaving.py"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ModelFailed, match=message):
        load(f"{path}:Model")


@pytest.mark.parametrize("note", [np.ones(3), np.float64("nan"), float("inf"), {1, 2}], ids=repr)
@pytest.mark.parametrize("name", ["notes", "resources"])
def test_what_cannot_travel_as_json_is_refused_at_load(name: str, note: Any) -> None:
    model = Gaussian()
    object.__setattr__(model.spec, name, {"value": [note]})
    with pytest.raises(InvalidInput, match="the spec of model 'gaussian' cannot be sent as JSON"):
        LoadedModel(model)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{}:Nothing", "a_model_file.py has no 'Nothing'; it has Model, instance$"),
        ("{}", "write file.py:Class or package.module:Class"),
        ("{}:", "write file.py:Class"),
        ("nowhere/{}:Model", "model file 'nowhere//.*' does not exist"),
        ("no.such.module:Model", "there is no module 'no"),
        ("demos_hpc.nothing:Model", "there is no module 'demos_hpc.nothing'"),
    ],
)
def test_paths_that_lead_nowhere(file: Path, path: str, message: str) -> None:
    with pytest.raises(ModelNotFound, match=message):
        load(path.format(file))


def test_what_is_no_model_is_refused(file: Path) -> None:
    with pytest.raises(InvalidInput, match="int has no attribute 'spec'"):
        load(f"{file}:number")


@pytest.mark.parametrize("method", ["log_density", "sample", "evaluate"])
def test_a_method_needs_its_columns(method: str) -> None:
    spec = ModelSpec(name="m", observables=(Observable("x"),) if method == "evaluate" else ())
    model = type("Model", (), {"spec": spec, method: lambda self: None})
    with pytest.raises(InvalidInput, match=rf"has {method}\(\) but its spec declares no "):
        LoadedModel(model())


def test_operations_follow_from_the_methods() -> None:
    assert LoadedModel(DensityOnly()).spec.operations == ("log_density", "log_likelihood", "upload")
    assert LoadedModel(Line()).spec.operations == ("evaluate",)
    assert "sample" in LoadedModel(Uniform()).spec.operations


def test_results_are_checked_and_passed_on() -> None:
    model = LoadedModel(Gaussian())
    np.testing.assert_array_equal(model.log_density(X, POINT), Gaussian().log_density(X, POINT))
    with pytest.raises(NotOffered, match=r"model 'exponential' has no sample\(\); it offers log_density"):
        LoadedModel(DensityOnly()).sample(0, 3, np.array([1.0]), 0)


def test_gradients_are_zero_where_the_density_is() -> None:
    class Step(Gaussian):
        def log_density_gradient(self, x: Any, params: Any) -> Any:
            value = np.where(x[:, 0] < 0, -np.inf, 0.0)
            return value, np.full((len(x), 2), np.nan)

    value, gradient = LoadedModel(Step()).log_density_gradient(np.array([[-1.0], [1.0]]), POINT)
    assert value.tolist() == [-np.inf, 0.0]
    assert gradient[0].tolist() == [0.0, 0.0]
    assert np.isnan(gradient[1]).all()


def test_a_model_of_one_point_per_call_is_called_for_each_run_of_equal_points() -> None:
    calls: list[int] = []

    class Counting(OnePoint):
        def log_density(self, x: Any, params: Any) -> Any:
            calls.append(len(x))
            return super().log_density(x, params)

    points = np.repeat([[0.0, 1.0], [0.5, 1.0], [0.0, 1.0]], [20, 1, 29], axis=0)
    model = LoadedModel(Counting())
    np.testing.assert_array_equal(model.log_density(X, points), Gaussian().log_density(X, points))
    assert calls == [20, 1, 29]
    calls.clear()
    model.log_density(X, POINT)
    assert calls == [50]


def test_rows_that_depend_on_one_another_are_computed_in_blocks() -> None:
    inner = LinearGaussian(d=3, block_rows=16)
    model = LoadedModel(inner)
    x, at = np.random.default_rng(22).normal(size=(40, 3)), np.array([0.5])
    blocks = [inner.log_density(x[i : i + 16], at) for i in (0, 16, 32)]
    np.testing.assert_array_equal(model.log_density(x, at), np.concatenate(blocks))
    (cells,) = model.log_likelihood_cells(x, np.array([[0.5], [1.0]]))
    np.testing.assert_allclose(cells[0], [block.sum() for block in blocks])


def test_samples_start_at_any_block() -> None:
    model = LoadedModel(Gaussian(block_rows=8))
    whole = model.sample(0, 30, POINT, 9)
    np.testing.assert_array_equal(model.sample(16, 14, POINT, 9), whole[16:])
    np.testing.assert_array_equal(model.sample(2**40, 8, POINT, 9), model.sample(2**40, 9, POINT, 9)[:8])


def test_cells_have_the_same_bits_wherever_their_block_stands() -> None:
    model = LoadedModel(Gaussian(block_rows=8))
    value, gradient = model.log_likelihood_cells(X, POINT[np.newaxis], gradient=True)
    assert value.shape == (1, 7)
    assert gradient.shape == (1, 7, 2)
    part, slopes = model.log_likelihood_cells(X[16:], POINT[np.newaxis], gradient=True)
    np.testing.assert_array_equal(part, value[:, 2:])
    np.testing.assert_array_equal(slopes, gradient[:, 2:])


class Thrifty(Gaussian):
    """Writes every answer into the same arrays."""

    def __init__(self) -> None:
        super().__init__(block_rows=8)
        self.value, self.gradient = np.empty(50), np.empty((50, 2))

    def log_density(self, x: Any, params: Any) -> Any:
        self.value[:] = super().log_density(x, params)
        return self.value

    def log_density_gradient(self, x: Any, params: Any) -> Any:
        self.gradient[:] = super().log_density_gradient(x, params)[1]
        return self.log_density(x, params), self.gradient


@pytest.mark.parametrize("gradient", [False, True])
def test_a_model_may_use_its_output_arrays_again(gradient: bool) -> None:
    points = np.array([[0.5, 2.0], [0.0, 1.0], [-1.0, 3.0]])
    cells = LoadedModel(Thrifty()).log_likelihood_cells(X, points, gradient=gradient)
    expected = LoadedModel(Gaussian(block_rows=8)).log_likelihood_cells(X, points, gradient=gradient)
    assert len(cells) == 1 + gradient
    for got, wanted in zip(cells, expected, strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert (cells[0][0] != cells[0][1]).all()


def test_the_models_own_traceback_is_shown() -> None:
    with pytest.raises(
        ModelFailed, match=r"log_density\(\) of model 'failing-raises' raised ArithmeticError"
    ) as caught:
        LoadedModel(Failing("raises")).log_density(X, POINT)
    text = format_traceback(caught.value)
    assert text.startswith("Traceback (most recent call last)")
    assert text.rstrip().endswith("ArithmeticError: row 0 is above -inf")
    assert "_call" not in text
