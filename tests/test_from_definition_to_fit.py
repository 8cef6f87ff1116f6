"""From a definition file to a fit in a batch job, all of it real: built, signed, submitted, called, scaled, ended.

One user builds and signs an image of a model and serves it in a job, over several nodes; another one's job does a fit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster_users import OTHER, Testbed
from image_yard import BUILDING, MODEL, Yard, inspect, make_key

import demos_hpc

SERVED = "/opt/model/my_model.py:Peak"
#: A fit without derivatives or other people's code: the best point of a grid that is drawn closer again and again.
FIT = """
import sys
import numpy as np
import demos_hpc

def fit(model):
    events = 91.2 + 1.25 * np.random.default_rng(1).standard_cauchy((100_000, 1))
    best, reach = np.array([91.0, 3.0]), np.array([1.5, 1.5])
    steps = np.linspace(-1, 1, 9)
    for _ in range(10):
        grid = best + reach * np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
        values = model.log_likelihood(events, grid)
        best, reach = grid[np.argmax(values)], reach / 3
    return [float(number) for number in (*best, values.max())]

if __name__ == "__main__":
    with demos_hpc.connect(sys.argv[1], timeout=60) as model:
        print(*[number.hex() for number in fit(model)])
"""


@dataclass(frozen=True)
class Site:
    """What the operator of a site has written: whose images run here, and where it is noted who did what."""

    policy: Path
    audit: Path


@pytest.fixture(scope="session")
def keyring(yard: Yard, fingerprint: str) -> Path:
    """A site's: it has the public half of the key by which the image is signed."""
    del fingerprint
    place = yard.place / "trusted"
    place.mkdir(mode=0o700)
    yard.own(place)
    exported = yard.run("apptainer", "key", "export", "--armor", "trusted.asc", answers="0\n")  # the first one
    assert exported.returncode == 0, exported.stderr
    imported = yard.run("apptainer", "key", "import", "trusted.asc", APPTAINER_KEYSDIR=str(place))
    assert imported.returncode == 0, imported.stderr
    return place


@pytest.fixture
def site(testbed: Testbed, yard: Yard, fingerprint: str, keyring: Path) -> Iterator[Site]:
    """A site that trusts the key by which the image is signed."""
    (yard.place / "audits").mkdir(mode=0o700, exist_ok=True)
    yard.own(yard.place / "audits")
    policy = yard.write("policy.toml", f'trusted = ["{fingerprint}"]\nkeyring = "{keyring}"\n')
    site = Site(policy, yard.place / "audits" / f"{testbed.name}.jsonl")
    settings = testbed.place / f"site-{testbed.name}.sh"
    settings.write_text(
        f". {testbed.site}\nexport DEMOS_IMAGE_POLICY={site.policy} DEMOS_AUDIT_FILE={site.audit}\n", encoding="utf-8"
    )
    testbed.site = settings
    yield site
    settings.unlink()


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Of the fit: the same model, without image, server or job."""
    path = tmp_path_factory.mktemp("peak") / "my_model.py"
    path.write_text(MODEL, encoding="utf-8")
    code: dict[str, Callable[[object], list[float]]] = {}
    exec(compile(FIT, "fit.py", "exec"), code)  # its __name__ is not __main__
    with demos_hpc.local(f"{path}:Peak") as model:
        return code["fit"](model)


def test_from_definition_to_fit(
    testbed: Testbed, yard: Yard, site: Site, peak_image: Path, script: Callable[..., str], answer: list[float]
) -> None:
    digest = inspect(yard, peak_image)["digest"]
    endpoint = testbed.serve("--image", str(peak_image), "--workers", "3", "--nodes", "3", model=SERVED)
    assert (endpoint["state"], endpoint["image"]) == ("ready", digest)
    testbed.wait_for_workers(3)
    assert {worker["host"] for worker in testbed.list_workers()} == {"demo1", "demo2", "demo3"}

    analysis = ("demos-hpc", "submit", "analyse", "--wait", script(OTHER, FIT), testbed.name)
    first = testbed.run(OTHER, *analysis).split()
    found = [float.fromhex(word) for word in first]
    assert found[:2] == answer[:2]
    assert found[2] == pytest.approx(answer[2], rel=1e-12)
    assert found[:2] == pytest.approx([91.2, 2.5], abs=0.05)  # which the events were drawn by

    testbed.demos("scale", testbed.name, "--workers", "6")
    testbed.wait_for_workers(6)
    assert testbed.run(OTHER, *analysis).split() == first
    new = [worker for worker in testbed.list_workers() if worker["name"].startswith("slurm:")]
    assert len(new) == 3
    assert all(worker["chunks"] for worker in new)
    testbed.demos("scale", testbed.name, "--workers", "3")
    testbed.wait_for_workers(3)
    assert testbed.run(OTHER, *analysis).split() == first

    testbed.demos("drain", testbed.name, "--wait")
    assert "draining" in testbed.demos("ls")
    testbed.demos("stop", testbed.name, "--wait")
    testbed.check_gone()
    lines = [json.loads(line) for line in site.audit.read_text(encoding="utf-8").splitlines()]
    assert {line["image"] for line in lines} == {digest}
    assert "log_likelihood" in {line["what"] for line in lines}
    assert {line["who"] for line in lines if line["what"] == "log_likelihood"} == {OTHER}


@pytest.mark.parametrize("flaw", ["unsigned", "altered", "untrusted"])
def test_an_image_that_is_not_trusted_is_no_job(
    testbed: Testbed, yard: Yard, site: Site, peak_image: Path, flaw: str
) -> None:
    del site
    image = yard.copy("peak.sif" if flaw == "altered" else "unsigned.sif", f"{flaw}-peak.sif")
    if flaw == "altered":
        with image.open("r+b") as file:
            file.seek(image.stat().st_size // 2)
            byte = file.read(1)[0]
            file.seek(-1, 1)
            file.write(bytes([byte ^ 1]))
    elif flaw == "untrusted":
        stranger = str(yard.place / "stranger")
        make_key(yard, "B", stranger)
        yard.image("sign", image.name, APPTAINER_KEYSDIR=stranger)
    said = testbed.demos("submit", "serve", SERVED, "--name", testbed.name, "--image", str(image), code=1)
    assert f"image {image} is {flaw}: " in said
    assert not testbed.list_jobs(states=())
    image.unlink()
    del peak_image


def test_a_model_that_fails_its_check_is_no_image(yard: Yard, server_image: Path) -> None:
    depending = MODEL.replace("return np.log(half", "return len(x) * np.log(half")
    yard.write("wrong/my_model.py", depending)
    words = ("--files", "wrong", "--model", SERVED, "--arg", "LICENSE_CLASS=private")
    said = yard.image("build", "model", "wrong.sif", "--from", str(server_image), *words, status=1, timeout=BUILDING)
    assert "failed to execute %test" in said
    assert not (yard.place / "wrong.sif").exists()
