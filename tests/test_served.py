"""A model as the dispatcher knows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from service import make_request

from demos_hpc import served as served_module
from demos_hpc.errors import BadFrame, Busy, InvalidInput, RegistryError, TooLarge
from demos_hpc.messages import Operation
from demos_hpc.model import LoadedModel
from demos_hpc.revisions import Revisions
from demos_hpc.served import TRIES, Served
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


# ---- parameters that outlive their server ----------------------------------------------------------------------


def keep(directory: Path, spec: ModelSpec = SPEC) -> Served:
    """A server's model whose parameters are kept below ``directory``."""
    served = Served(1, spec, "", 2**40)
    served.keep_in(Revisions(directory, spec.uuid))
    return served


def tell(served: Served) -> tuple[int, list[float]]:
    return served.revision, served.defaults.tolist()


def test_two_servers_of_one_model_follow_one_another(tmp_path: Path) -> None:
    one, two = keep(tmp_path), keep(tmp_path)
    one.set_params({"mu": 3.0})
    assert tell(two) == (1, [0.0, 1.0])
    two.follow()
    assert tell(two) == tell(one) == (2, [3.0, 1.0])
    two.set_params({"sigma": 2.0})
    one.follow()
    assert tell(two) == tell(one) == (3, [3.0, 2.0])


def test_a_change_is_made_to_what_others_have_set_meanwhile(tmp_path: Path) -> None:
    one, two = keep(tmp_path), keep(tmp_path)
    one.set_params({"mu": 3.0})
    two.set_params({"sigma": 2.0})
    assert tell(two) == (3, [3.0, 2.0])
    one.set_params({"mu": 4.0})
    assert tell(one) == (4, [4.0, 2.0])


def test_a_server_that_is_started_again_finds_its_parameters(tmp_path: Path) -> None:
    first = keep(tmp_path)
    for mu in (1.0, 2.0, 3.0):
        first.set_params({"mu": mu})
    assert tell(keep(tmp_path)) == tell(first) == (4, [3.0, 1.0])


def test_parameters_without_a_value_stay_without_one(tmp_path: Path) -> None:
    parameters = ({"name": "a"}, {"name": "b"})
    spec = ModelSpec(name="m", parameters=parameters, outputs=({"name": "y"},))  # type: ignore[arg-type]
    keep(tmp_path, spec).set_params({"b": 2.0})
    again = keep(tmp_path, spec)
    assert np.isnan(again.defaults[0])
    assert again.defaults[1] == 2.0


def test_models_do_not_share_parameters(tmp_path: Path) -> None:
    other = LoadedModel(Gaussian(name="other")).spec
    keep(tmp_path).set_params({"mu": 3.0})
    assert tell(keep(tmp_path, other)) == (1, [0.0, 1.0])


class Rival:
    """A store where another server is always a little faster."""

    def __init__(self, store: Revisions, wins: int) -> None:
        self._store = store
        self._wins = wins
        self.problems: list[Any] = []

    def read(self) -> tuple[int, dict[str, float]] | None:
        return self._store.read()

    def find_newest(self) -> int:
        newest = self._store.find_newest()
        if self._wins:
            self._wins -= 1
            self._store.write(max(newest, 1) + 1, {"mu": float(newest + 1)})
        return newest

    def write(self, revision: int, values: Any) -> bool:
        return self._store.write(revision, values)


@pytest.mark.parametrize("wins", [1, TRIES - 1])
def test_of_two_that_change_at_once_the_second_builds_on_the_first(tmp_path: Path, wins: int) -> None:
    served = Served(1, SPEC, "", 2**40)
    served.keep_in(Rival(Revisions(tmp_path, SPEC.uuid), wins))
    served.set_params({"sigma": 2.0})
    other = keep(tmp_path)
    assert tell(other) == tell(served)
    assert served.defaults[1] == 2.0
    assert served.defaults[0] > 0  # the rival's


def test_who_never_wins_is_told_to_try_again(tmp_path: Path) -> None:
    served = Served(1, SPEC, "", 2**40)
    served.keep_in(Rival(Revisions(tmp_path, SPEC.uuid), 10**6))
    with pytest.raises(Busy, match="other servers of model 'gaussian' change its parameters all the time"):
        served.set_params({"sigma": 2.0})
    assert served.defaults[1] == 1.0


def test_a_change_that_does_not_fit_is_written_nowhere(tmp_path: Path) -> None:
    served = keep(tmp_path)
    with pytest.raises(InvalidInput):
        served.set_params({"sigma": -1.0})
    assert tell(served) == (1, [0.0, 1.0])
    assert Revisions(tmp_path, SPEC.uuid).find_newest() == 0


def test_a_damaged_revision_is_never_written_again(tmp_path: Path) -> None:
    served = keep(tmp_path)
    for mu in (1.0, 2.0, 3.0):
        served.set_params({"mu": mu})
    damage(tmp_path, 4)
    again = keep(tmp_path)
    assert tell(again) == (3, [2.0, 1.0])
    served.follow()
    assert tell(served) == (4, [3.0, 1.0])  # who knows better stays with it
    again.set_params({"sigma": 2.0})
    assert tell(again) == (5, [2.0, 2.0])
    served.follow()
    assert tell(served) == tell(again)


def damage(directory: Path, revision: int) -> None:
    path = Revisions(directory, SPEC.uuid).directory / f"{revision}.json"
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")


def test_parameters_of_another_version_that_do_not_fit(tmp_path: Path) -> None:
    """They are told of once, stay as they are, and do not keep anybody from setting others."""
    keep(tmp_path, rename_parameter("nu")).set_params({"nu": 3.0})
    served = Served(1, SPEC, "", 2**40)
    with pytest.raises(
        InvalidInput, match=r"revision 2 of the stored parameters of model 'gaussian' .* left out: unkn"
    ):
        served.keep_in(Revisions(tmp_path, SPEC.uuid))
    served.follow()  # once is enough
    assert tell(served) == (1, [0.0, 1.0])
    served.set_params({"mu": 4.0})
    assert tell(served) == (3, [4.0, 1.0])
    assert tell(keep(tmp_path)) == (3, [4.0, 1.0])


def test_parameters_of_another_version_that_come_during_a_change(tmp_path: Path) -> None:
    served = keep(tmp_path)
    keep(tmp_path, rename_parameter("nu")).set_params({"nu": 3.0})
    served.set_params({"mu": 4.0})
    assert tell(served) == (3, [4.0, 1.0])


def rename_parameter(name: str) -> ModelSpec:
    return ModelSpec(name=SPEC.name, uuid=SPEC.uuid, parameters=({"name": name, "default": 1.0},))  # type: ignore[arg-type]


def test_a_store_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "params").write_text("not a directory", encoding="utf-8")
    served = keep(tmp_path)
    with pytest.raises(RegistryError):
        served.set_params({"mu": 3.0})
    assert tell(served) == (1, [0.0, 1.0])
