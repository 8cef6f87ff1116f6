"""The models of a server: offers taken, questions answered or kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from demos_hpc.catalog import Catalog
from demos_hpc.errors import AccessRefused, InvalidInput, ModelFailed, ModelNotFound, Status
from demos_hpc.messages import Failure, Offer
from demos_hpc.model import LoadedModel
from demos_hpc.revisions import Revisions
from demos_hpc.served import Served
from demos_hpc.testing import Gaussian, LinearGaussian
from demos_hpc.transport.loopback import LoopbackPort, make_pair
from demos_hpc.wire import Frame

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


# ---- offers that come late, through the door -------------------------------------------------------------------


def test_a_late_worker_with_another_model_of_the_name_is_itself_in_the_wrong() -> None:
    catalog = Catalog(1, 100)
    served = catalog.add(make_offer(GAUSSIAN))
    other = Offer("worker", "a", source="another digest", spec=GAUSSIAN.to_dict())
    for offer, what in ((make_offer(LoadedModel(Gaussian(d=2)).spec), "spec"), (other, "code")):
        with pytest.raises(ModelFailed, match=f"'gaussian': workers differ in its {what}; rename one"):
            catalog.add(offer, is_late=True)
    newer = replace(GAUSSIAN, version="2.0.0")
    with pytest.raises(ModelFailed, match="two different models"):
        catalog.add(make_offer(newer), is_late=True)
    assert catalog.find("gaussian") is served  # others are served as before
    assert served.workers == 1


def test_a_conflict_among_the_workers_of_a_launch_is_everybodys() -> None:
    catalog = Catalog(2, 100)
    catalog.add(make_offer(GAUSSIAN))
    with pytest.raises(ModelFailed) as caught:
        catalog.add(make_offer(LoadedModel(Gaussian(d=2)).spec))
    catalog.note_failure(caught.value)
    with pytest.raises(ModelFailed, match="two different models are called 'gaussian'"):
        catalog.find("gaussian")


def test_a_worker_that_comes_after_one_that_failed_serves() -> None:
    catalog = Catalog(1, 100)
    catalog.note_failure(ModelFailed("no license"))
    with pytest.raises(ModelFailed, match="no license"):
        catalog.find(None)
    served = catalog.add(make_offer(GAUSSIAN), is_late=True)
    assert catalog.find(None) is catalog.find("gaussian") is served
    catalog.note_failure(ModelFailed("no license"), is_late=True)
    with pytest.raises(InvalidInput, match="there is no model 'poisson' here"):  # it has not failed
        catalog.find("poisson")


def test_a_model_may_come_late() -> None:
    catalog = Catalog(1, 100)
    catalog.add(make_offer(GAUSSIAN))
    late = catalog.add(make_offer(LINEAR), is_late=True)
    assert catalog.find("linear-gaussian") is late


# ---- questions -------------------------------------------------------------------------------------------------


class Asker:
    """Somebody who asks for models; ``may`` says whether there is a right to them."""

    def __init__(self, *, may: bool = True) -> None:
        self._port = LoopbackPort()
        self.link, _ = make_pair(LoopbackPort(), self._port, ("dispatcher", "asker"))
        self.checked: list[str] = []
        self._may = may

    def check(self, served: Served) -> None:
        self.checked.append(served.spec.name)
        if not self._may:
            raise AccessRefused("no")

    def receive(self) -> list[tuple[int, int]]:
        """Ids and statuses of the answers."""
        frames = [frame for _, frame in self._port.receive() if isinstance(frame, Frame)]
        return [(frame.header.id, frame.header.status) for frame in frames]


def test_who_asks_is_answered_once_it_is_known() -> None:
    catalog, asker = Catalog(1, 1 << 20), Asker()
    for number, name in enumerate((None, "gaussian", GAUSSIAN.uuid, "poisson"), 1):
        catalog.ask(asker.link, number, name, asker.check)
    assert asker.receive() == asker.checked == []
    catalog.add(make_offer(GAUSSIAN), is_late=True)
    catalog.answer_all()
    catalog.answer_all()
    assert asker.receive() == [(1, 0), (2, 0), (3, 0), (4, Status.INVALID_INPUT)]
    catalog.ask(asker.link, 5, None, asker.check)
    assert asker.receive() == [(5, 0)]


def test_who_has_no_right_to_a_model_is_refused_late_as_well() -> None:
    catalog, good, bad = Catalog(1, 1 << 20), Asker(), Asker(may=False)
    for asker in (bad, good):
        catalog.ask(asker.link, 1, None, asker.check)
    catalog.add(make_offer(GAUSSIAN))
    catalog.answer_all()
    assert (bad.receive(), good.receive()) == ([(1, Status.REFUSED)], [(1, 0)])
    assert bad.checked == ["gaussian"]


def test_who_is_gone_is_not_answered() -> None:
    catalog, gone, here = Catalog(1, 1 << 20), Asker(), Asker()
    for asker in (gone, here, gone):
        catalog.ask(asker.link, 1, None, asker.check)
    catalog.forget(gone.link)
    catalog.add(make_offer(GAUSSIAN))
    catalog.answer_all()
    assert (gone.receive(), gone.checked, here.receive()) == ([], [], [(1, 0)])


# ---- parameters that are kept ----------------------------------------------------------------------------------


def make_catalog(directory: Path) -> Catalog:
    catalog = Catalog(1, 1 << 20)
    catalog.store = lambda uuid: Revisions(directory, uuid)
    return catalog


def test_a_model_finds_its_parameters(tmp_path: Path) -> None:
    make_catalog(tmp_path).add(make_offer(GAUSSIAN)).set_params({"mu": 3.0})
    served = make_catalog(tmp_path).add(make_offer(GAUSSIAN))
    assert (served.revision, served.defaults.tolist()) == (2, [3.0, 1.0])
    assert make_catalog(tmp_path).add(make_offer(LINEAR)).revision == 1


def test_parameters_that_do_not_fit_keep_nobody_from_serving(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Revisions(tmp_path, GAUSSIAN.uuid).write(7, {"nu": 3.0})
    catalog = make_catalog(tmp_path)
    served = catalog.add(make_offer(GAUSSIAN), is_late=True)
    assert catalog.add(make_offer(GAUSSIAN), is_late=True) is served
    assert (served.revision, served.workers) == (1, 2)
    served.set_params({"mu": 3.0})
    assert served.revision == 8
    assert capfd.readouterr().err.count("revision 7 of the stored parameters of model 'gaussian' does not fit") == 1


def test_damaged_parameters_are_told_of(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = Revisions(tmp_path, GAUSSIAN.uuid)
    store.write(2, {"mu": 3.0})
    store.write(3, {"mu": 4.0})
    (store.directory / "3.json").write_text("{", encoding="utf-8")
    served = make_catalog(tmp_path).add(make_offer(GAUSSIAN))
    assert (served.revision, served.defaults.tolist()) == (2, [3.0, 1.0])
    assert "stored parameters of model 'gaussian' are left out: 3.json: is no JSON" in capfd.readouterr().err
