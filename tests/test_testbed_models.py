"""On the testbed: several models in one job, on nodes that they share or that differ, in images of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster_users import OTHER, OWNER, Testbed
from image_yard import MODEL, Yard

import demos_hpc

FIT = """
import demos_hpc

with demos_hpc.connect("nu_atm", timeout=60) as atmosphere, demos_hpc.connect("peak", timeout=60) as peak:
    print(atmosphere.log_likelihood(atmosphere.sample(2000, seed=1)).hex(), peak.log_density([[91.2]])[0].hex())
"""


@pytest.fixture
def place(testbed: Testbed, script: Callable[..., str]) -> Callable[[str], str]:
    """Writes a file of a model into the owner's home, with other resources; returns what the model is called by."""
    del testbed

    def write(resources: str = "") -> str:
        return script(OWNER, MODEL.replace("'memory': '1 GB'".replace("'", '"'), resources)) + ":Peak"

    return write


@pytest.fixture(scope="module")
def answers(right: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Of the fit, computed here."""
    path = tmp_path_factory.mktemp("peak") / "peak.py"
    path.write_text(MODEL, encoding="utf-8")
    with demos_hpc.local(f"{path}:Peak") as peak:
        return [right, float(peak.log_density([[91.2]])[0]).hex()]


def find_hosts(testbed: Testbed) -> list[str]:
    return sorted(worker["host"] for worker in testbed.list_workers())


def test_models_share_nodes(
    testbed: Testbed, place: Callable[[str], str], script: Callable[..., str], answers: list[str]
) -> None:
    models = ("--model", place(""), "--workers", "3", "--workers", "2", "--nodes", "2")
    endpoint = testbed.serve(*models)
    assert {model["name"] for model in endpoint["models"]} == {"nu_atm", "peak"}
    testbed.wait_for_workers(5)
    assert find_hosts(testbed) == ["demo1"] * 2 + ["demo2"] * 3
    assert testbed.run(OTHER, "demos-hpc", "submit", "analyse", "--wait", script(OTHER, FIT)).split() == answers
    testbed.demos("stop", testbed.name, "--wait")
    testbed.check_gone()


def test_a_model_on_a_gpu_makes_the_job_heterogeneous(
    testbed: Testbed, place: Callable[[str], str], script: Callable[..., str], answers: list[str]
) -> None:
    gpu = place('"gpus": 1')
    testbed.serve("--model", gpu, "--workers", "2", "--workers", "1", "--partition", "main", "--partition", "gpu")
    parts = testbed.run(OWNER, "squeue", "-h", "-S", "i", "-o", "%i %P %b", f"--name=demos:{testbed.name}").split()
    assert parts[1::3] == ["main", "gpu"]
    assert parts[2::3] == ["N/A", "gres:gpu:1"]
    testbed.wait_for_workers(3)
    assert find_hosts(testbed)[-1] == "demo3"
    assert testbed.run(OTHER, "demos-hpc", "submit", "analyse", "--wait", script(OTHER, FIT)).split() == answers
    more = ("--workers", "1", "--model", gpu, "--gpus", "0")
    testbed.demos("submit", "workers", testbed.name, *more)
    testbed.wait_for_workers(4)
    testbed.run(OWNER, "scancel", parts[0].partition("+")[0])
    testbed.check_gone()


def test_licenses_are_asked_for(testbed: Testbed, place: Callable[[str], str]) -> None:
    words = ("submit", "serve", "--name", testbed.name, "--no-wait")
    said = testbed.demos(*words, place('"licenses": ["geant4:3"]'), code=1)
    assert "it takes 3 of license 'geant4', and there are 2" in said
    assert "takes license 'idl', and there are geant4" in testbed.demos(*words, place('"licenses": ["idl"]'), code=1)
    assert not testbed.list_jobs(states=())
    endpoint = testbed.serve(model=place('"licenses": ["geant4:2"]'))
    assert "Licenses=geant4:2" in testbed.run(OWNER, "scontrol", "show", "job", "-o", endpoint["job"])


@pytest.fixture
def _lenient(testbed: Testbed, yard: Yard) -> Iterator[None]:
    """A site where unsigned images run as well."""
    policy = yard.write("lenient.toml", '[submit]\nunsigned = "warn"\nuntrusted = "warn"\n')
    settings = testbed.place / f"site-{testbed.name}.sh"
    settings.write_text(f". {testbed.site}\nexport DEMOS_IMAGE_POLICY={policy}\n", encoding="utf-8")
    testbed.site = settings
    yield
    settings.unlink()


@pytest.mark.usefixtures("_lenient")
def test_images_and_an_analysis_are_one_world(
    testbed: Testbed, server_image: Path, peak_image: Path, script: Callable[..., str], answers: list[str]
) -> None:
    images = ("nu_atm", "--image", str(server_image), "--model", str(peak_image))
    together = ("--workers", "3", "--workers", "2", "--nodes", "3", "--analyse", script(OWNER, FIT), "--wait")
    said = testbed.demos("submit", "serve", "--name", testbed.name, *images, *together)
    assert said.split()[-2:] == answers


@pytest.mark.usefixtures("_lenient")
def test_images_behind_one_door(
    testbed: Testbed, server_image: Path, peak_image: Path, script: Callable[..., str], answers: list[str]
) -> None:
    endpoint = testbed.serve("--image", str(server_image), "--model", str(peak_image), "--workers", "1")
    digest = json.loads(testbed.demos("image", "inspect", str(server_image), "--json"))["digest"]
    assert endpoint["image"] == digest
    assert testbed.run(OTHER, "demos-hpc", "submit", "analyse", "--wait", script(OTHER, FIT)).split() == answers
