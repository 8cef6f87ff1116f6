"""The testbed of `tests/testbed/testbed up`, as its users see it: commands of theirs, and what is left of them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import wait_until

import demos_hpc

OWNER, OTHER = "alice", "bob"
#: Seconds that a command may take, and that jobs have to come and go, on a machine that has other things to do.
PATIENCE = 120.0
SCRIPT = """if True:
    import sys, time
    import demos_hpc

    with demos_hpc.connect(sys.argv[1], reconnect=True, timeout=240) as model:
        events = model.sample(2000, seed=1)
        values = {model.log_likelihood(events) for _ in range(int(sys.argv[2]))}
    print(*[value.hex() for value in values])
"""


class Testbed:
    """Commands of the testbed's users."""

    __test__ = False

    def __init__(self, place: Path, name: str) -> None:
        self.place = place
        self.name = name
        self.registry = place / "registry"

    def start(self, user: str, *words: str) -> subprocess.Popen[str]:
        settings = {
            "HOME": f"/home/{user}",
            "SLURM_CONF": str(self.place / "slurm/slurm.conf"),
            "DEMOS_SITE": str(self.place / "site.sh"),
            "PATH": f"{self.place}/venv/bin:/usr/bin:/bin",
            "COLUMNS": "200",
        }
        command = ["runuser", "-u", user, "--", "env", "-i", *(f"{k}={v}" for k, v in settings.items())]
        shell = ["bash", "-c", '. "$DEMOS_SITE"; cd; exec "$@"', "bash", *words]
        return subprocess.Popen([*command, *shell], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, user: str, *words: str, code: int = 0) -> str:
        """What a user's command says on standard output; it has to end with this status."""
        return self.finish(self.start(user, *words), code)

    def finish(self, process: subprocess.Popen[str], code: int = 0) -> str:
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == code, f"{process.args}\n{out}\n{err}"
        return out if code == 0 else err

    def demos(self, *words: str, code: int = 0) -> str:
        return self.run(OWNER, "demos-hpc", *words, code=code)

    def serve(self, *words: str) -> dict[str, Any]:
        """Submits a server, and waits for its door."""
        said = self.demos("submit", "serve", "nu_atm", "--name", self.name, "--time", "15", "--json", *words)
        endpoint: dict[str, Any] = json.loads(said[said.index("{") :])
        return endpoint

    def count_workers(self) -> int:
        workers = json.loads(self.demos("stats", self.name, "--json"))["workers"]
        return sum(worker["is_alive"] for worker in workers)

    def list_jobs(self) -> list[str]:
        """Names of our jobs that wait or run."""
        names = self.run(OWNER, "squeue", "-h", "-r", "--states=all", "-o", "%T %j").splitlines()
        ended = ("CANCELLED", "COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL")
        return [line for line in names if f"demos:{self.name}" in line and not line.startswith(ended)]

    def is_gone(self) -> bool:
        """Whether no job is left, no process, and no entry in the registry."""
        processes = subprocess.run(
            ["pgrep", "-f", f"demos_hpc.*{self.name}"], capture_output=True, text=True, check=False
        )
        entries = [path for path in self.registry.glob("*.json") if self.name in path.read_text(encoding="utf-8")]
        return not processes.stdout and not entries and not self.list_jobs()

    def check_gone(self) -> None:
        wait_until(self.is_gone, PATIENCE, f"jobs, processes and entries of {self.name} are gone", pause=0.2)


@pytest.fixture
def testbed(request: pytest.FixtureRequest) -> Iterator[Testbed]:
    """The testbed, for a server of a name of its own; afterwards nothing of it may be left."""
    place = Path(os.environ.get("DEMOS_TESTBED") or "/var/tmp/demos-testbed")
    if os.geteuid() or not (place / "site.sh").is_file():
        why = "the testbed is not up, or this is not root: tests/testbed/testbed up"
        if "slurm" in os.environ.get("DEMOS_REQUIRE", "").replace(",", " ").split():
            pytest.fail(f"{why}; DEMOS_REQUIRE names slurm")
        pytest.skip(why)
    testbed = Testbed(place, f"t{os.getpid()}-{abs(hash(request.node.name)) % 1000}")
    yield testbed
    for name in (testbed.name, f"{testbed.name}:workers"):
        testbed.run(OWNER, "scancel", "--quiet", f"--name=demos:{name}")
    testbed.check_gone()


@pytest.fixture
def script() -> Iterator[Callable[[str], str]]:
    """Writes the analysis into a user's home, and returns its path."""
    paths = []

    def write(user: str) -> str:
        path = Path(f"/home/{user}/fit-{os.getpid()}.py")
        path.write_text(SCRIPT, encoding="utf-8")
        path.chmod(0o644)
        paths.append(path)
        return str(path)

    yield write
    for path in paths:
        path.unlink()


@pytest.fixture(scope="module")
def right() -> str:
    """The answer, computed here."""
    with demos_hpc.local("nu_atm") as model:
        return str(model.log_likelihood(model.sample(2000, seed=1)).hex())
