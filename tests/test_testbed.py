"""On the testbed's Slurm, with its users: a server that one submits, another calls, and that comes and goes.

They run where `tests/testbed/testbed up` was said, and fail where DEMOS_REQUIRE wants slurm and it was not.
"""

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


def test_from_submitting_to_draining(testbed: Testbed, script: Callable[[str], str], right: str) -> None:
    endpoint = testbed.serve("--workers", "3", "--nodes", "2")
    assert endpoint["state"] == "ready"
    assert endpoint["ends"] > endpoint["started"]
    assert f"there is a server '{testbed.name}' already" in testbed.demos(
        "submit", "serve", "nu_atm", "--name", testbed.name, code=1
    )
    analysis = ("demos-hpc", "submit", "analyse", "--wait", script(OTHER), testbed.name, "3")
    assert testbed.run(OTHER, *analysis).split() == [right]
    wait_until(lambda: testbed.count_workers() == 3, PATIENCE, "3 workers", pause=0.2)

    testbed.demos("scale", testbed.name, "--workers", "6")
    wait_until(lambda: testbed.count_workers() == 6, PATIENCE, "6 workers", pause=0.2)
    assert testbed.run(OTHER, *analysis).split() == [right]
    testbed.demos("scale", testbed.name, "--workers", "4")
    wait_until(lambda: testbed.count_workers() == 4, PATIENCE, "4 workers", pause=0.2)
    assert "stay" in testbed.demos("scale", testbed.name, "--workers", "2", code=1)

    testbed.demos("drain", testbed.name, "--wait")
    assert "draining" in testbed.demos("ls")
    testbed.demos("stop", testbed.name, "--wait")
    testbed.check_gone()


def test_a_requeued_server_has_its_clients_again(testbed: Testbed, script: Callable[[str], str], right: str) -> None:
    endpoint = testbed.serve("--workers", "2", "--requeue")
    fit = testbed.start(OTHER, "python", script(OTHER), testbed.name, "300")
    wait_until(lambda: '"clients": 1' in testbed.demos("ls", "--json"), PATIENCE, "the fit has begun", pause=0.2)
    testbed.run(OWNER, "scontrol", "requeue", endpoint["job"])
    assert testbed.finish(fit).split() == [right]


def test_a_node_that_is_cut_off_costs_its_workers_only(
    testbed: Testbed, script: Callable[[str], str], right: str
) -> None:
    testbed.serve("--workers", "3", "--nodes", "3")
    wait_until(lambda: testbed.count_workers() == 3, PATIENCE, "3 workers", pause=0.2)
    fit = testbed.start(OTHER, "python", script(OTHER), testbed.name, "1000")
    wait_until(lambda: '"clients": 1' in testbed.demos("ls", "--json"), PATIENCE, "the fit has begun", pause=0.2)
    link = ("ip", "-n", "demo3", "link", "set", "eth0")
    subprocess.run([*link, "down"], check=True)
    try:
        assert testbed.finish(fit).split() == [right]
        wait_until(lambda: testbed.count_workers() == 2, PATIENCE, "its worker is given up", pause=0.2)
    finally:
        subprocess.run([*link, "up"], check=True)
        # The way to the machine itself goes with the link.
        subprocess.run(["ip", "-n", "demo3", "route", "replace", "default", "via", "10.77.13.1"], check=True)
    wait_until(lambda: testbed.count_workers() == 3, PATIENCE, "it is back", pause=0.2)


def test_server_and_analysis_as_one_world(testbed: Testbed, script: Callable[[str], str], right: str) -> None:
    del script
    path = Path(f"/home/{OWNER}/world-{os.getpid()}.py")
    path.write_text(SCRIPT.replace("sys.argv[1]", "None"), encoding="utf-8")
    path.chmod(0o644)
    try:
        words = ("--workers", "3", "--nodes", "2", "--analyse", str(path), "--wait")
        assert right in testbed.demos("submit", "serve", "nu_atm", *words, "--", "x", "2")
    finally:
        path.unlink()


@pytest.mark.parametrize("phase", ["pending", "starting", "serving", "killed"])
def test_nothing_is_left_of_a_cancelled_job(testbed: Testbed, phase: str) -> None:
    words = ["demos-hpc", "submit", "serve", "nu_atm", "--name", testbed.name, "--workers", "3", "--nodes", "3"]
    if phase in ("pending", "starting"):
        begin = ["--extra=--begin=now+1hour"] if phase == "pending" else []
        waiting = testbed.start(OWNER, *words, *begin)
        wait_until(testbed.list_jobs, PATIENCE, "it is submitted")
        testbed.run(OWNER, "scancel", f"--name=demos:{testbed.name}")
        assert "CANCELLED" in testbed.finish(waiting, 1)
    else:
        testbed.run(OWNER, *words)
        hard = ["--signal=KILL", "--full"] if phase == "killed" else []
        testbed.run(OWNER, "scancel", *hard, f"--name=demos:{testbed.name}")
        wait_until(lambda: not testbed.list_jobs(), PATIENCE, "the job is over", pause=0.2)
        testbed.demos("ls")  # which sweeps
    testbed.check_gone()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--partition", "nowhere"], "no partition 'nowhere'"),
        (["--partition", "short"], "ends jobs after 2 minutes"),
        (["--mem-per-worker", "9G"], "nodes of 8000 MB of memory"),
        (["--extra=--gres=gpu:1"], "sbatch says: Invalid generic resource (gres) specification"),
        (["--extra=--qos=", "--extra=--nodelist=demo9"], "sbatch says: "),
    ],
    ids=str,
)
def test_what_slurm_cannot_do_is_refused(testbed: Testbed, words: list[str], why: str) -> None:
    assert why in testbed.demos("submit", "serve", "nu_atm", "--name", testbed.name, *words, code=1)
