"""A model as the dispatcher knows it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from service import make_request

from demos_hpc import served as served_module
from demos_hpc.errors import BadFrame, InvalidInput, TooLarge
from demos_hpc.messages import Operation
from demos_hpc.model import LoadedModel
from demos_hpc.served import Served
from demos_hpc.spec import ModelSpec
from demos_hpc.testing import Gaussian
from demos_hpc.wire import HEADER_BYTES, Frame, read_header

SPEC = LoadedModel(Gaussian()).spec
X = np.zeros((5, 1))
POINT = np.array([0.0, 1.0])


def frame(operation: Operation, arrays: list[Any], **fields: int) -> Frame:
    head = make_request(operation, arrays, **fields).head
    return Frame(read_header(head), head)


def test_plans_of_requests_that_look_alike_are_made_once() -> None:
    served = Served(1, SPEC, "", 2**40)
    first = served.plan(frame(Operation.LOG_DENSITY, [X, POINT], id=1))
    assert served.plan(frame(Operation.LOG_DENSITY, [X + 1, POINT], id=2, seed=7)) is first
    for other in (
        frame(Operation.LOG_DENSITY, [X[:4], POINT]),
        frame(Operation.LOG_DENSITY, [X]),
        frame(Operation.LOG_DENSITY_GRADIENT, [X, POINT]),
        frame(Operation.LOG_DENSITY, [X, POINT], n_rows=10),
        frame(Operation.LOG_DENSITY, [X, POINT], flags=2),
    ):
        assert served.plan(other) is not first


def test_not_all_plans_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_module, "KEPT_PLANS", 3)
    served = Served(1, SPEC, "", 2**40)
    for n in range(1, 20):
        assert served.plan(frame(Operation.SAMPLE, [POINT], n_rows=n)).rows == n
    assert len(served._plans) <= 3


def test_a_frame_that_only_looks_like_an_earlier_one_is_found_out() -> None:
    served = Served(1, SPEC, "", 2**40)
    good = frame(Operation.LOG_DENSITY, [X, POINT])
    served.plan(good)
    bad = Frame(good.header._replace(payload=good.header.payload - 8), good.buffer)
    with pytest.raises(BadFrame, match="a frame whose header announces"):
        served.plan(bad)
    with pytest.raises(BadFrame):
        served.plan(Frame(good.header, good.buffer[: HEADER_BYTES + 10]))


def test_a_request_over_the_limit_is_refused_every_time() -> None:
    served = Served(1, SPEC, "", 100)
    for _ in range(2):
        with pytest.raises(TooLarge, match="this server takes 100 "):
            served.plan(frame(Operation.LOG_DENSITY, [np.zeros((50, 1)), POINT]))
    assert served.plan(frame(Operation.SAMPLE, [POINT], n_rows=2**50)).rows == 2**50


def test_defaults_and_their_revision() -> None:
    served = Served(1, SPEC, "", 2**40)
    before = served.defaults
    served.set_params({"mu": 3.0})
    assert (served.revision, served.defaults.tolist(), before.tolist()) == (2, [3.0, 1.0], [0.0, 1.0])
    with pytest.raises(InvalidInput):
        served.set_params({"mu": 4.0, "sigma": -1.0})
    assert (served.revision, served.defaults.tolist()) == (2, [3.0, 1.0])


def test_defaults_that_are_missing_are_missed_every_time() -> None:
    spec = ModelSpec(name="m", parameters=({"name": "a"},), outputs=({"name": "y"},))  # type: ignore[arg-type]
    served = Served(1, spec.with_operations(["evaluate"]), "", 2**40)
    for _ in range(2):
        with pytest.raises(InvalidInput, match="has no default for a"):
            served.plan(frame(Operation.EVALUATE, []))
    served.set_params({"a": 1.0})
    assert served.plan(frame(Operation.EVALUATE, [])).rows == 1
    with pytest.raises(InvalidInput, match="evaluate of 3 points without params"):
        served.plan(frame(Operation.EVALUATE, [], n_rows=3))


def test_the_description_is_json() -> None:
    served = Served(3, SPEC, "", 2**40)
    described = json.loads(json.dumps(served.describe(), allow_nan=False))
    assert described["handle"] == 3
    assert described["params"] == {"mu": 0.0, "sigma": 1.0}
    assert described["statistics"]["requests"] == 0
    assert ModelSpec.from_dict(described["spec"]) == SPEC
