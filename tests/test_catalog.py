"""The models of a server: offers taken, questions answered or kept."""

from __future__ import annotations

from typing import Any

import pytest

from demos_hpc.catalog import Catalog
from demos_hpc.errors import InvalidInput, ModelFailed, ModelNotFound
from demos_hpc.messages import Failure, Offer
from demos_hpc.model import LoadedModel
from demos_hpc.testing import Gaussian, LinearGaussian

GAUSSIAN = LoadedModel(Gaussian()).spec
LINEAR = LoadedModel(LinearGaussian()).spec


def make_offer(spec: Any, fingerprint: str = "a") -> Offer:
    return Offer("worker", fingerprint, spec=spec.to_dict())


def test_workers_with_the_same_model_share_its_handle() -> None:
    catalog = Catalog(4, 100)
    first = catalog.add(make_offer(GAUSSIAN))
    other = catalog.add(make_offer(LINEAR))
    assert catalog.add(make_offer(GAUSSIAN, "b")) is first
    assert catalog.add(make_offer(GAUSSIAN, "b")) is first
    assert (first.handle, other.handle) == (1, 2)
    assert (first.workers, other.workers) == (3, 1)
    assert first.fingerprints == ["a", "b"]
    assert first.spec == GAUSSIAN
    assert catalog.models == {1: first, 2: other}


def test_an_offer_of_a_failure_raises_it() -> None:
    catalog = Catalog(1, 100)
    failure = Failure.of(ModelNotFound("no such file"), "its traceback").to_dict()
    with pytest.raises(ModelNotFound, match="no such file") as caught:
        catalog.add(Offer("worker", "a", failure=failure))
    assert "its traceback" in str(caught.value.__cause__)
    assert catalog.models == {}


@pytest.mark.parametrize("offer", [Offer("w", "a"), Offer("w", "a", spec={"name": "m", "color": "red"})], ids=str)
def test_an_offer_of_nothing_is_refused(offer: Offer) -> None:
    catalog = Catalog(1, 100)
    with pytest.raises(InvalidInput):
        catalog.add(offer)
    assert catalog.find(None) is None


def test_another_model_of_the_same_name_is_refused() -> None:
    catalog = Catalog(2, 100)
    served = catalog.add(make_offer(GAUSSIAN))
    with pytest.raises(ModelFailed, match="two different models are called 'gaussian': workers differ in its spec"):
        catalog.add(make_offer(LoadedModel(Gaussian(d=2)).spec))
    assert (served.workers, list(catalog.models)) == (1, [1])


def test_a_model_is_found_when_all_have_offered() -> None:
    catalog = Catalog(2, 100)
    assert catalog.find("gaussian") is None
    served = catalog.add(make_offer(GAUSSIAN))
    assert [catalog.find(name) for name in ("gaussian", None, "poisson")] == [None] * 3
    catalog.note_failure(ModelFailed("no license"))
    assert [catalog.find(name) for name in ("gaussian", GAUSSIAN.uuid, None)] == [served] * 3
    with pytest.raises(ModelFailed, match="no license"):  # it may be the one that failed
        catalog.find("poisson")


def test_names_that_are_not_there_and_several_models() -> None:
    catalog = Catalog(2, 100)
    catalog.add(make_offer(GAUSSIAN))
    catalog.add(make_offer(LINEAR))
    with pytest.raises(InvalidInput, match="no model 'poisson' here; there are: 'gaussian', 'linear-gaussian'"):
        catalog.find("poisson")
    with pytest.raises(InvalidInput, match="several models are served: name one; there are: 'gaussian'"):
        catalog.find(None)


def test_a_server_without_workers_has_no_model() -> None:
    with pytest.raises(InvalidInput, match="there is no model None here; there are: none"):
        Catalog(0, 100).find(None)


def test_one_failure_of_all_is_what_whoever_asks_is_told() -> None:
    catalog = Catalog(1, 100)
    catalog.note_failure(ModelFailed("no memory"))
    for name in (None, "gaussian"):
        with pytest.raises(ModelFailed, match="no memory"):
            catalog.find(name)
