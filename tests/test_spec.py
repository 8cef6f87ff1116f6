"""What a model says of itself: checked at birth, and the same after a journey as JSON."""

from __future__ import annotations

import json
import uuid
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest

from demos_hpc.errors import InvalidInput, NotOffered
from demos_hpc.messages import Operation
from demos_hpc.spec import GRADIENT_X, ModelSpec, Observable, Output, Parameter

SPEC = ModelSpec(
    name="rates",
    version="1.2.3",
    parameters=(Parameter("a", "GeV", 1.0, 0.0, 10.0, "scale"), Parameter("b", lower=-1.0), Parameter("c", default=3)),
    observables=(Observable("E", "GeV", 0.0, 100.0), Observable("cz")),
    outputs=(Output("n", "1/s"),),
    authors=("Ada", "Emmy"),
    resources={"memory_gib": 40},
    notes={"nested": {"list": [1, 2.5, "x", None]}},
    block_rows=100,
    row_independent=False,
    operations=("log_density", "sample"),
)


def test_it_is_the_same_after_a_journey_as_json() -> None:
    back = ModelSpec.from_dict(json.loads(json.dumps(SPEC.to_dict())))
    assert back == SPEC
    assert back.parameters[0].description == "scale"
    assert isinstance(back.authors, tuple)


def test_columns_in_numbers() -> None:
    assert (SPEC.n_params, SPEC.n_observables, SPEC.n_outputs) == (3, 2, 1)
    assert SPEC.param_names == ("a", "b", "c")
    np.testing.assert_array_equal(SPEC.lower, [0.0, -1.0, -np.inf])
    np.testing.assert_array_equal(SPEC.upper, [10.0, np.inf, np.inf])
    np.testing.assert_array_equal(SPEC.defaults, [1.0, np.nan, 3.0])
    assert SPEC.defaults.dtype == np.float64
    assert SPEC.is_bounded
    assert not ModelSpec(name="free", parameters=(Parameter("a"),)).is_bounded
    empty = ModelSpec(name="empty")
    assert empty.defaults.shape == empty.lower.shape == (0,)
    assert not empty.is_bounded


def test_operations_that_are_offered() -> None:
    assert [op for op in Operation if SPEC.offers(op)] == [Operation.LOG_DENSITY, Operation.SAMPLE]
    assert SPEC.with_operations(["evaluate"]).offers(Operation.EVALUATE)


def test_data_are_held_by_those_who_say_so() -> None:
    SPEC.with_operations(["log_likelihood", "upload"]).check_holding()
    with pytest.raises(NotOffered, match="offers no log_likelihood, for which data are held"):
        SPEC.check_holding()
    with pytest.raises(NotOffered, match=r"hold no data \(they are ranks in C\); send the rows"):
        SPEC.with_operations(["log_likelihood"]).check_holding()


def test_a_uuid_is_made_from_the_name_unless_given() -> None:
    assert ModelSpec(name="a").uuid == ModelSpec(name="a", version="2.0.0").uuid != ModelSpec(name="b").uuid
    own = str(uuid.uuid4())
    assert ModelSpec(name="a", uuid=own.upper()).uuid == own


def test_it_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        SPEC.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": ""}, "model name ''"),
        ({"name": "a b"}, "letters, digits"),
        ({"name": "-a"}, "a letter or digit first"),
        ({"name": "a\n"}, "model name"),
        ({"version": "1.0"}, r"version '1\.0' is not of the form 1\.2\.3"),
        ({"uuid": "abc"}, "uuid 'abc' is not a UUID"),
        ({"block_rows": 0}, "block_rows is 0; it is 1 to 1048576"),
        ({"block_rows": 2**21}, "block_rows is 2097152"),
        ({"parameters": [{"name": "a"}, {"name": "a"}]}, r"parameters \['a', 'a'\] are not all different"),
        ({"observables": [{"name": "a"}, {"name": "a"}]}, "observables .* not all different"),
        ({"parameters": [{"name": "a", "lower": 2, "upper": 1}]}, r"lower 2\.0 is not below upper 1\.0"),
        ({"parameters": [{"name": "a", "lower": 1, "upper": 1}]}, "is not below"),
        ({"parameters": [{"name": "a", "default": 5, "upper": 1}]}, r"default 5\.0 is outside its bounds"),
        ({"parameters": [{"name": "a", "lower": float("-inf")}]}, "'a': lower is -inf; leave it out where there is"),
        ({"parameters": [{"name": "a", "default": float("nan")}]}, "'a': default is nan"),
        ({"observables": [{"name": "x", "lower": 1, "upper": 0}]}, r"'x': lower 1\.0 is not below upper 0\.0"),
        ({"colour": "red"}, r"unknown entries \['colour'\]"),
        ({"parameters": 3}, "parameters is 3; it is a list"),
        ({"parameters": [{"nom": "a"}]}, "parameter .*nom.*: it is a name, or an object with a name"),
        (
            {"parameters": [{"name": "a", "defualt": 1}]},
            r"parameter 'a': unknown entry 'defualt'; did you mean 'default'\?",
        ),
        ({"parameters": {"a": 1}}, "parameters is .*; it is a list"),
        ({"authors": "me"}, "authors is 'me'; it is a list"),
        ({"reproducible": 1}, "reproducible is 1; it is true or false"),
        ({"block_rows": 1.5}, r"block_rows is 1\.5; it is a whole number"),
        ({"version": 1}, "version is 1; it is a text"),
        ({"parameters": [3]}, "parameter 3: it is a name, or an object with a name"),
        ({"name": 3}, "name is 3; it is a text"),
        ({"uuid": 3}, "uuid is 3; it is a text"),
        ({"block_rows": "100"}, "block_rows is '100'; it is a whole number"),
        ({"parameters": [{"name": "a", "lower": "0"}]}, "'a': lower is '0'; it is a number"),
        ({"parameters": [{"name": "a", "lower": 10**400}]}, "'a': lower is 10*; it is a number"),
        ({"parameters": [{"name": "a", "default": [1.0]}]}, r"'a': default is \[1\.0\]; it is a number"),
        ({"parameters": [{"name": "a", "upper": float("nan")}]}, "'a': upper is nan; leave it out"),
        ({"observables": [{"name": "x", "lower": float("nan"), "upper": 1}]}, "'x': lower is nan; leave it out"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        ModelSpec.from_dict({"name": "m", **values})


def test_a_name_is_wanted() -> None:
    with pytest.raises(InvalidInput, match="name"):
        ModelSpec.from_dict({})


def test_changes_are_made_in_a_copy() -> None:
    params = np.array([1.0, 2.0, 3.0])
    changed = SPEC.change(params, {"c": 5, "a": np.float32(0.5)})
    np.testing.assert_array_equal(changed, [0.5, 2.0, 5.0])
    np.testing.assert_array_equal(params, [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(SPEC.change(params, {"a": 10.0, "b": -1}), [10.0, -1.0, 3.0])


@pytest.mark.parametrize(
    "value", [np.nan, np.inf, -np.inf, 10**400, "1", None, True, [1.0], 1j], ids=lambda v: f"{v}"[:5]
)
def test_values_that_are_no_finite_numbers(value: Any) -> None:
    with pytest.raises(InvalidInput, match=r"parameter 'c' is .*; it is a finite number"):
        SPEC.change(np.zeros(3), {"c": value})


@pytest.mark.parametrize("number", [np.int64(1), np.float32(1.0), np.uint8(1), True, 1], ids=lambda v: type(v).__name__)
def test_numbers_of_numpy_become_floats_and_travel(number: Any) -> None:
    column = Parameter("a", default=number, lower=number - number, upper=number + number)
    assert [type(v) for v in (column.default, column.lower, column.upper)] == [float] * 3
    spec = ModelSpec(name="m", parameters=(column,))
    back = ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict(), allow_nan=False)))
    assert back == spec
    assert back.defaults.tolist() == [1.0]


@pytest.mark.parametrize("value", [np.complex128(1), np.bool_(True), np.ones(1)], ids=repr)
def test_numpy_values_that_are_no_real_numbers(value: Any) -> None:
    with pytest.raises(InvalidInput, match=r"parameter 'c' is .*; it is a finite number"):
        SPEC.change(np.zeros(3), {"c": value})


def test_scales_are_the_default_or_the_width_of_the_range() -> None:
    parameters = (
        Parameter("a", default=-1e-12),
        Parameter("b", default=0.0, lower=1.0 - 1.0, upper=4.0),
        Parameter("c", lower=0.0),
        Parameter("d", default=3.0, lower=0.0, upper=10.0),
    )
    observables = (Observable("x", lower=-1.0, upper=1.0), Observable("y", lower=0.0))
    spec = ModelSpec(name="m", parameters=parameters, observables=observables)
    assert spec.param_scales.tolist() == [1e-12, 4.0, 0.0, 3.0]
    assert spec.observable_scales.tolist() == [2.0, 0.0]
    assert [ends.tolist() for ends in spec.support] == [[-1.0, 0.0], [1.0, np.inf]]


def test_the_gradient_with_respect_to_x_is_offered_by_name() -> None:
    spec = SPEC.with_operations(["log_density_gradient"])
    assert spec.offers(Operation.LOG_DENSITY_GRADIENT)
    assert not spec.offers(Operation.LOG_DENSITY_GRADIENT, wrt_x=True)
    only_x = SPEC.with_operations(["log_density", GRADIENT_X])
    assert only_x.offers(Operation.LOG_DENSITY_GRADIENT, wrt_x=True)
    assert not only_x.offers(Operation.LOG_DENSITY_GRADIENT)


def test_a_missing_value_is_named() -> None:
    with pytest.raises(InvalidInput, match="model 'rates' has no default for b: give params, or set_params first"):
        SPEC.check_complete(SPEC.defaults)
    SPEC.check_complete(np.zeros(3))
