"""On the testbed's Slurm, with its users: a server that one submits, another calls, and that comes and goes.

They run where `tests/testbed/testbed up` was said, and fail where DEMOS_REQUIRE wants slurm and it was not.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster_users import OTHER, OWNER, PATIENCE, SCRIPT, Testbed
from serving import wait_until


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
