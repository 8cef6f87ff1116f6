"""The Containerfile for real: built by buildah, and a model called inside.

It takes buildah, and a Debian to begin with, which `tests/testbed/testbed up` makes.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from compiling import ROOT as SOURCE
from compiling import run
from image_yard import COPIED
from required import DEBIAN, require

from demos_hpc import containers
from demos_hpc.software import DPKG, PIP

BASE, BUILT = "localhost/debian:12-slim", "localhost/demos-hpc"
CALLING = """
import demos_hpc

with demos_hpc.connect(timeout=60) as model:
    print(model.spec.name, model.log_density([[8.0, 0.5]]).shape)
"""


class Buildah:
    """Images and containers in a folder of their own; processes see this host's network."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.container = ""

    def say(self, command: str, *words: object) -> str:
        own = "--root", self.place / "storage", "--runroot", self.place / "run"
        return run(["buildah", *own, command, *words], env={**os.environ, "BUILDAH_ISOLATION": "chroot"})

    def run(self, command: Sequence[str], *options: object) -> str:
        """What a command prints in a container of the image."""
        return self.say("run", *options, self.container, "--", *command)


@pytest.fixture(scope="module")
def twin() -> Iterator[Buildah]:
    require("buildah")
    place = Path(tempfile.mkdtemp(prefix="demos-twin-", dir="/var/tmp"))
    buildah = Buildah(place)
    for name in COPIED:
        if (SOURCE / name).is_dir():
            shutil.copytree(SOURCE / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(SOURCE / name, place / name)
    containers.fetch_wheels(SOURCE / "apptainer" / "build-requirements.txt", place / "wheels")
    bare = buildah.say("from", "scratch").strip()
    buildah.say("copy", "--quiet", "--chown", "0:0", bare, DEBIAN, "/")
    buildah.say("commit", "--quiet", "--rm", bare, BASE)
    arguments = "--build-arg", f"FROM={BASE}", "--build-arg", "REVISION=abc"
    buildah.say(
        *("build", "--pull-never", *arguments, "--file", place / "apptainer" / "Containerfile", "--tag", BUILT, place)
    )
    buildah.container = buildah.say("from", "--pull-never", BUILT).strip()
    yield buildah
    buildah.say("rm", "--all")
    buildah.say("rmi", "--all", "--force")
    shutil.rmtree(place, ignore_errors=True)  # of an ordinary user, parts of it are other users' in its namespace


def test_it_serves(twin: Buildah) -> None:
    assert "MPICH" in twin.run(["demos-hpc", "doctor"])
    assert "nu_atm passed: 0 failed" in twin.run(["demos-hpc", "check", "nu_atm"])
    (twin.place / "work").mkdir()
    (twin.place / "work" / "calling.py").write_text(CALLING, encoding="utf-8")
    volume = "--volume", f"{twin.place / 'work'}:/work:ro"
    said = twin.run(["demos-hpc", "run", "nu_atm", "--workers", "1", "/work/calling.py"], *volume)
    assert said.splitlines()[-1] == "nu_atm (1,)"


def test_it_has_what_the_definition_files_name(twin: Buildah) -> None:
    pins = (SOURCE / "apptainer" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = {tuple(pin.split("==")) for pin in pins if "==" in pin and not pin.startswith("#")}
    found = {(name.lower().replace("_", "-"), version) for name, version, _ in json.loads(twin.run(PIP))}
    assert {pin for pin in found if pin[0] != "demos-hpc"} == wanted
    assert twin.run(["sh", "-c", "command -v gcc cc g++ mpicc ld pip; ls /etc/munge"]) == ""
    packages = [line.split("\t")[0] for line in twin.run(DPKG).splitlines()]
    assert {"libc6", "python3-minimal", "munge"} < set(packages)
    # That of base.def, where tests of images left one.
    for base in sorted(DEBIAN.parent.glob("base-*.sif"))[-1:]:
        inside = containers.run_inside(base, DPKG).splitlines()
        assert packages == [line.split("\t")[0] for line in inside]


def test_its_labels(twin: Buildah) -> None:
    labels = json.loads(twin.say("inspect", "--type", "image", BUILT))["OCIv1"]["config"]["Labels"]
    assert labels["org.opencontainers.image.revision"] == "abc"
    assert labels["org.demos-hpc.mpi-abi"] == "mpich"
