"""The whole service in one process, and `connect` where there is none."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest

import demos_hpc
from demos_hpc import Config, InvalidInput, LaunchError
from demos_hpc.local import LocalService
from demos_hpc.model import LoadedModel
from demos_hpc.testing import Gaussian

X = np.zeros((3, 1))


@pytest.mark.parametrize(
    "model",
    [Gaussian, Gaussian(), LoadedModel(Gaussian()), "demos_hpc.testing:Gaussian"],
    ids=["class", "instance", "loaded", "path"],
)
def test_a_model_may_be_given_in_several_ways(model: object) -> None:
    with demos_hpc.local(model) as served:
        assert served.spec.name == "gaussian"
        assert served.log_density(X).shape == (3,)


def test_what_is_no_model() -> None:
    for model in (5, None, dict, object()):
        with pytest.raises(InvalidInput, match="has no attribute 'spec' of type"):
            demos_hpc.local(model)


@pytest.mark.parametrize("workers", [0, -1])
def test_a_service_needs_a_worker(workers: int) -> None:
    with pytest.raises(InvalidInput, match="workers"):
        demos_hpc.local(Gaussian, workers=workers)


def test_the_number_of_workers_may_be_one_of_numpy() -> None:
    with demos_hpc.local(Gaussian, workers=np.int64(2)) as served:  # type: ignore[arg-type]
        assert served.log_density(X).shape == (3,)


@pytest.mark.parametrize("attempt", [pickle.dumps, copy.deepcopy])
def test_what_has_a_connection_is_neither_pickled_nor_copied(attempt: Callable[[object], object]) -> None:
    with demos_hpc.local(Gaussian) as served:
        for what in (served, served.submit, served.submit.log_density(X)):
            with pytest.raises(TypeError, match="can be neither pickled nor copied: connect once more"):
                attempt(what)


def test_several_clients_of_one_service() -> None:
    service = LocalService(Gaussian(), 2, Config())
    clients = [service.connect(user) for user in ("ada", "ada", "bob")]
    futures = [client.submit.sample(5000, seed=1) for client in clients]
    for future in futures[1:]:
        np.testing.assert_array_equal(future.result(), futures[0].result())
    assert clients[0].metadata()["workers"] == 2
    assert service.dispatcher.n_clients == 3


class Interrupted(Gaussian):
    """Whose first call is interrupted by Ctrl-C."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def log_density(self, x: np.ndarray, params: np.ndarray) -> np.ndarray:
        self.calls += 1
        if self.calls == 1:
            raise KeyboardInterrupt
        return super().log_density(x, params)


def test_what_is_interrupted_goes_on() -> None:
    model = demos_hpc.local(Interrupted)
    request = model.submit.log_density(X, timeout=30.0)
    with pytest.raises(KeyboardInterrupt):
        request.result()
    truth = Gaussian().log_density(X, model.params)
    np.testing.assert_array_equal(model.log_density(X, timeout=30.0), truth)
    np.testing.assert_array_equal(request.result(), truth)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMOS_MAX_REQUEST_BYTES", "1000")
    assert demos_hpc.local(Gaussian).metadata()["max_request_bytes"] == 1000
    assert demos_hpc.local(Gaussian, config=Config()).metadata()["max_request_bytes"] == 2**40


def test_connect_outside_of_a_launch_says_how() -> None:
    with pytest.raises(LaunchError, match=r"not part of a launch, and no server .*`demos-hpc run .* demos_hpc.local"):
        demos_hpc.connect("gaussian")
