"""On the testbed's Slurm, with its users: a server that one submits, another calls, and that comes and goes.

They run where `tests/testbed/testbed up` was said, and fail where DEMOS_REQUIRE wants slurm and it was not.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from cluster_users import OTHER, OWNER, PATIENCE, SCRIPT, Testbed
from serving import wait_until

#: One request that takes minutes.
CALLING = """if True:
    import sys
    import numpy as np
    import demos_hpc

    with demos_hpc.connect(sys.argv[1], timeout=600) as model:
        start = [parameter.default for parameter in model.spec.parameters]
        model.log_likelihood(model.sample(2000, seed=1), np.tile(start, (200_000, 1)))
"""


def test_from_submitting_to_draining(testbed: Testbed, script: Callable[..., str], right: str) -> None:
    endpoint = testbed.serve("--workers", "3", "--nodes", "2")
    assert endpoint["state"] == "ready"
    assert endpoint["ends"] > endpoint["started"]
    assert f"there is a server '{testbed.name}' already" in testbed.demos(
        "submit", "serve", "nu_atm", "--name", testbed.name, code=1
    )
    analysis = ("demos-hpc", "submit", "analyse", "--wait", script(OTHER), testbed.name, "3")
    assert testbed.run(OTHER, *analysis).split() == [right]
    testbed.wait_for_workers(3)

    testbed.demos("scale", testbed.name, "--workers", "6")
    testbed.wait_for_workers(6)
    assert testbed.run(OTHER, *analysis).split() == [right]
    testbed.demos("scale", testbed.name, "--workers", "4")
    testbed.wait_for_workers(4)
    assert "stay" in testbed.demos("scale", testbed.name, "--workers", "2", code=1)

    testbed.demos("drain", testbed.name, "--wait")
    assert "draining" in testbed.demos("ls")
    testbed.demos("stop", testbed.name, "--wait")
    testbed.check_gone()


def test_a_requeued_server_has_its_clients_again(testbed: Testbed, script: Callable[..., str], right: str) -> None:
    endpoint = testbed.serve("--workers", "2", "--requeue")
    fit = testbed.start(OTHER, "python", script(OTHER), testbed.name, "300")
    wait_until(testbed.is_busy, PATIENCE, "the fit has begun", pause=0.2)
    testbed.run(OWNER, "scontrol", "requeue", endpoint["job"])
    assert testbed.finish(fit).split() == [right]


def test_a_node_that_is_cut_off_costs_its_workers_only(
    testbed: Testbed, script: Callable[..., str], right: str
) -> None:
    testbed.serve("--workers", "3", "--nodes", "3")
    testbed.wait_for_workers(3)
    fit = testbed.start(OTHER, "python", script(OTHER), testbed.name, "1000")
    wait_until(testbed.is_busy, PATIENCE, "the fit has begun", pause=0.2)
    link = ("ip", "-n", "demo3", "link", "set", "eth0")
    subprocess.run([*link, "down"], check=True)
    try:
        assert testbed.finish(fit).split() == [right]
        testbed.wait_for_workers(2)  # its own is given up
    finally:
        subprocess.run([*link, "up"], check=True)
        # The way to the machine itself goes with the link.
        subprocess.run(["ip", "-n", "demo3", "route", "replace", "default", "via", "10.77.13.1"], check=True)
    testbed.wait_for_workers(3)  # it is back


def test_server_and_analysis_as_one_world(testbed: Testbed, script: Callable[..., str], right: str) -> None:
    words = ("--workers", "3", "--nodes", "2", "--wait", "--analyse")
    analysis = script(OWNER, SCRIPT.replace("sys.argv[1]", "None"))
    assert right in testbed.demos("submit", "serve", "nu_atm", *words, analysis, "--", "x", "2")


@pytest.mark.parametrize("phase", ["pending", "starting"])
def test_nothing_is_left_of_a_job_that_is_cancelled_before_its_server_answers(testbed: Testbed, phase: str) -> None:
    begin = ["--extra=--begin=now+1hour"] if phase == "pending" else []
    words = ["--name", testbed.name, "--workers", "3", "--nodes", "3", *begin]
    waiting = testbed.start(OWNER, "demos-hpc", "submit", "serve", "nu_atm", *words)
    states = ["PENDING"] if begin else ["RUNNING"]
    wait_until(lambda: testbed.list_jobs(states), PATIENCE, f"the job is {phase}")
    testbed.cancel()
    said = testbed.finish(waiting, 1)
    assert "ended as CANCELLED" in said
    assert "somebody has cancelled it; submit it again" in said
    testbed.check_gone()


@pytest.mark.parametrize("phase", ["ready", "working", "draining", "killed"])
def test_nothing_is_left_of_a_server_whose_job_is_cancelled(
    testbed: Testbed, script: Callable[..., str], phase: str
) -> None:
    testbed.serve("--workers", "3", "--nodes", "3")
    fit = None
    if phase in ("working", "draining"):
        fit = testbed.start(OTHER, "python", script(OTHER, CALLING), testbed.name)
        wait_until(testbed.is_busy, PATIENCE, "it computes", pause=0.2)
    if phase == "draining":
        testbed.demos("drain", testbed.name)
        wait_until(lambda: "draining" in testbed.demos("ls"), PATIENCE, "it drains", pause=0.2)
    testbed.cancel(*["--signal=KILL", "--full"] * (phase == "killed"))
    if fit is not None:
        said = testbed.finish(fit, 1)
        assert "ServerLost: " in said
        assert "`demos-hpc ls` lists others; connect(..., reconnect=True) waits" in said
    if phase != "ready":  # those that compute have more to finish than Slurm gives them time for
        wait_until(lambda: not testbed.list_jobs(), PATIENCE, "the job is over", pause=0.2)
        said = testbed.run(OTHER, "demos-hpc", "stats", testbed.name, code=1)
        assert "it may have died" in said or "there is no server or model" in said
        testbed.demos("ls")  # by which its owner sweeps
    testbed.check_gone()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--partition", "nowhere"], "no partition 'nowhere'"),
        (["--partition", "short"], "ends jobs after 2 minutes"),
        (["--mem-per-worker", "9G"], "nodes of 8000 MB of memory"),
        (["--extra=--gres=fpga:1"], "sbatch says: Invalid generic resource (gres) specification"),
        (["--extra=--qos=", "--extra=--nodelist=demo9"], "sbatch says: "),
    ],
    ids=str,
)
def test_what_slurm_cannot_do_is_refused(testbed: Testbed, words: list[str], why: str) -> None:
    assert why in testbed.demos("submit", "serve", "nu_atm", "--name", testbed.name, *words, code=1)
