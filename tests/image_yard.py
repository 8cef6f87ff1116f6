"""A yard in which an ordinary user builds images, and those that several tests look at: each is built once.

They take Apptainer, and a Debian to begin with: where `tests/testbed/testbed up` was said both are there.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from compiling import ROOT as SOURCE
from required import DEBIAN, TESTBED, require

from demos_hpc import containers

COPIED = ("apptainer", "demos_hpc", "csrc", "meson.build", "meson.options", "pyproject.toml", "README.md", "LICENSE")
#: Seconds for a build, and for anything else.
BUILDING, PATIENCE = 600.0, 120.0
MODEL = """
import numpy as np
from demos_hpc import ModelSpec, Observable, Parameter


class Peak:
    spec = ModelSpec(
        name="peak", version="1.2.3", license="CC0-1.0", authors=["A. Physicist"],
        parameters=[Parameter("mass", unit="GeV", default=91.2), Parameter("width", unit="GeV", default=2.5, lower=1)],
        observables=[Observable("energy", unit="GeV")],
        resources={"memory": "1 GB"},
    )

    def log_density(self, x, params):
        mass, half = params[..., 0], params[..., 1] / 2
        return np.log(half / np.pi) - np.log((x[:, 0] - mass) ** 2 + half**2)
"""


@dataclass
class Yard:
    """A folder of an ordinary user, who builds images there and runs them."""

    place: Path
    user: str
    python: str
    variables: dict[str, str] = field(default_factory=dict)

    def command(self, words: Sequence[str], **variables: str) -> list[str]:
        told = {
            "HOME": str(self.place / "home"),
            "PATH": f"{Path(self.python).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "PYTHONPATH": str(self.place / "source"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(self.place / "tmp"),
            "APPTAINER_TMPDIR": str(self.place / "tmp"),
            "APPTAINER_KEYSDIR": str(self.place / "keys"),
            "DEMOS_REGISTRY": str(self.place / "registry"),
            **self.variables,
            **variables,
        }
        become = ["runuser", "-u", self.user, "--"] if os.geteuid() == 0 else []
        return [*become, "env", "-i", *(f"{name}={value}" for name, value in told.items()), *words]

    def run(
        self, *words: str, timeout: float = PATIENCE, answers: str = "", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """What a command says, and its end; ``answers`` is what it is told where it asks."""
        return subprocess.run(
            self.command(words, **variables),
            cwd=self.place,
            input=answers,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def image(self, *words: str, status: int = 0, timeout: float = PATIENCE, **variables: str) -> str:
        """What `demos-hpc image …` says."""
        done = self.run(self.python, "-m", "demos_hpc", "image", *words, timeout=timeout, **variables)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout if status == 0 else done.stderr

    def write(self, name: str, text: str) -> Path:
        path = self.place / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        self.own(path.parent if path.parent != self.place else path)
        return path

    def own(self, path: Path) -> None:
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", f"{self.user}:", str(path)], check=True)

    def copy(self, name: str, new: str) -> Path:
        shutil.copy(self.place / name, self.place / new)
        self.own(self.place / new)
        return self.place / new


@pytest.fixture(scope="session")
def yard() -> Iterator[Yard]:
    require("apptainer")
    place = Path(tempfile.mkdtemp(prefix="demos-images-", dir="/var/tmp"))
    user = pwd.getpwuid(DEBIAN.stat().st_uid if os.geteuid() == 0 else os.geteuid()).pw_name
    beds = TESTBED / "venv" / "bin" / "python"
    yard = Yard(place, user, str(beds) if os.geteuid() == 0 and beds.exists() else shutil.which("python3") or "python3")
    for name in COPIED:
        if (SOURCE / name).is_dir():
            shutil.copytree(SOURCE / name, place / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(SOURCE / name, place / "source" / name)
    for name in ("home", "tmp", "keys", "registry", "wheels"):
        (place / name).mkdir(mode=0o700)
    containers.fetch_wheels(SOURCE / "apptainer" / "build-requirements.txt", place / "wheels")
    yard.own(place)
    yield yard
    shutil.rmtree(place)


@pytest.fixture(scope="session")
def base_image(yard: Yard) -> Path:
    """Kept, since it changes with requirements.txt alone."""
    parts = [SOURCE / "apptainer" / name for name in ("base.def", "requirements.txt")]
    digest = sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()[:16]
    image = DEBIAN.parent / f"base-{digest}.sif"
    if not image.exists():
        words = ("base", "base.sif", "--from", str(DEBIAN), "--wheels", "wheels")
        yard.image("build", *words, timeout=BUILDING)
        shutil.move(yard.place / "base.sif", image)
    return image


@pytest.fixture(scope="session")
def server_image(yard: Yard, base_image: Path) -> Path:
    words = ("--from", str(DEBIAN), "--arg", f"BASE={base_image}", "--wheels", "wheels", "--arg", "REVISION=abc")
    yard.image("build", "server", "server.sif", *words, timeout=BUILDING)
    return yard.place / "server.sif"


def make_key(yard: Yard, name: str, keyring: str) -> str:
    """Makes a pair of keys without a passphrase; returns its fingerprint."""
    words = ("--name", name, "--email", f"{name}@b.example", "--comment", "", "--password", "", "--push=false")
    made = yard.run("apptainer", "key", "newpair", *words, APPTAINER_KEYSDIR=keyring)
    assert made.returncode == 0, made.stderr
    said = yard.run("apptainer", "key", "list", APPTAINER_KEYSDIR=keyring).stdout
    return next(line.split(":")[1].strip() for line in said.splitlines() if "Fingerprint" in line)


@pytest.fixture(scope="session")
def fingerprint(yard: Yard) -> str:
    """Of a key in the yard's keyring."""
    return make_key(yard, "A", str(yard.place / "keys"))


@pytest.fixture(scope="session")
def peak_image(yard: Yard, server_image: Path, fingerprint: str) -> Path:
    """An image with a model, signed by a key that the site trusts; unsigned.sif is the same before it was signed."""
    yard.write("model/my_model.py", MODEL)
    words = ("--files", "model", "--model", "/opt/model/my_model.py:Peak", "--arg", "LICENSE_CLASS=private")
    yard.image("build", "model", "unsigned.sif", "--from", str(server_image), *words, timeout=BUILDING)
    image = yard.copy("unsigned.sif", "peak.sif")
    yard.image("sign", "peak.sif")
    yard.variables["DEMOS_IMAGE_POLICY"] = str(yard.write("site.toml", f'trusted = ["{fingerprint}"]\n'))
    return image


def inspect(yard: Yard, image: Path) -> Any:
    return json.loads(yard.image("inspect", str(image), "--json"))
