"""The testbed of `tests/testbed/testbed up`, as its users see it: commands of theirs, and what is left of them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
from required import TESTBED, find_lack
from serving import wait_until

import demos_hpc
from demos_hpc.slurm import LIVING

OWNER, OTHER = "alice", "bob"
#: Seconds that a command may take, and that jobs have to come and go, on a machine that has other things to do.
PATIENCE = 240.0
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
        #: What this site's operator has written, for all jobs.
        self.site = place / "site.sh"

    def start(self, user: str, *words: str) -> subprocess.Popen[str]:
        settings = {
            "HOME": f"/home/{user}",
            "SLURM_CONF": str(self.place / "slurm/slurm.conf"),
            "DEMOS_SITE": str(self.site),
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
        try:
            out, err = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.terminate()
            raise AssertionError(f"{process.args} still runs; {process.communicate()}") from None
        assert process.returncode == code, f"{process.args}\n{out}\n{err}"
        return out if code == 0 else err

    def demos(self, *words: str, code: int = 0) -> str:
        return self.run(OWNER, "demos-hpc", *words, code=code)

    def serve(self, *words: str, model: str = "nu_atm") -> dict[str, Any]:
        """Submits a server, and waits for its door."""
        said = self.demos("submit", "serve", model, "--name", self.name, "--time", "15", "--json", *words)
        endpoint: dict[str, Any] = json.loads(said[said.index("{") :])
        return endpoint

    def list_workers(self) -> list[dict[str, Any]]:
        """Those that are there, as the server describes them."""
        workers = json.loads(self.demos("stats", self.name, "--json"))["workers"]
        return [worker for worker in workers if worker["is_alive"]]

    def wait_for_workers(self, count: int) -> None:
        wait_until(lambda: len(self.list_workers()) == count, PATIENCE, f"{count} workers", pause=0.2)

    def is_busy(self) -> bool:
        """Whether the server has requests of somebody."""
        return bool(json.loads(self.demos("stats", self.name, "--json"))["queue"]["length"])

    def cancel(self, *options: str) -> None:
        """As whoever has no other way: all of our jobs."""
        for name in (self.name, f"{self.name}:workers"):
            self.run(OWNER, "scancel", "--quiet", *options, f"--name=demos:{name}")

    def list_jobs(self, states: Collection[str] = LIVING) -> list[str]:
        """Numbers of our jobs that are in one of these states."""
        lines = self.run(OWNER, "squeue", "-h", "-r", "--states=all", "-o", "%A %T %j").splitlines()
        jobs = [line.split(maxsplit=2) for line in lines]
        names = (f"demos:{self.name}", f"demos:{self.name}:workers")
        return [id_ for id_, state, name in jobs if name in names and (not states or state in states)]

    def list_processes(self) -> list[str]:
        """Command lines of all processes of our jobs, or with the name of our server."""
        jobs = {f"SLURM_JOB_ID={id_}".encode() for id_ in self.list_jobs(states=())}
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it ends while we look
                words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                ours = "demos" in words and "scancel" not in words and self.name in words
                if ours or jobs & set((process / "environ").read_bytes().split(b"\0")):
                    found.append(words)
        return found

    def list_entries(self) -> list[Path]:
        """What the registry has of our server."""
        return [path for path in self.registry.glob("*.json") if self.name in path.read_text(encoding="utf-8")]

    def list_left(self) -> list[Any]:
        return [*self.list_jobs(), *self.list_processes(), *self.list_entries()]

    def check_gone(self) -> None:
        """Before long no job is left, no process, and no entry in the registry."""
        try:
            wait_until(lambda: not self.list_left(), PATIENCE, f"all of {self.name} is gone", pause=0.2)
        except AssertionError as error:
            raise AssertionError(f"{error}; there is {self.list_left()}") from None


@pytest.fixture
def testbed(request: pytest.FixtureRequest) -> Iterator[Testbed]:
    """The testbed, for a server of a name of its own; afterwards nothing of it may be left."""
    if lack := find_lack("slurm"):
        pytest.skip(lack)
    testbed = Testbed(TESTBED, f"t{os.getpid()}-{abs(hash(request.node.name)) % 1000}")
    yield testbed
    testbed.cancel()
    wait_until(lambda: not testbed.list_jobs(), PATIENCE, "its jobs are over", pause=0.2)
    testbed.demos("ls")  # which sweeps what a server that was killed could not take away
    testbed.check_gone()


@pytest.fixture
def script() -> Iterator[Callable[..., str]]:
    """Writes an analysis into a user's home, ``script(user, text)``, and returns its path."""
    paths = []

    def write(user: str, text: str = SCRIPT) -> str:
        path = Path(f"/home/{user}/fit-{os.getpid()}-{len(paths)}.py")
        path.write_text(text, encoding="utf-8")
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
