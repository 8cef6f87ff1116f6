"""On the testbed: what users have used, beside what Slurm's own accounting says of the jobs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_users import OTHER, OWNER, PATIENCE, Testbed
from serving import wait_until

#: A row costs so many seconds of a core's time, whatever else the machine does meanwhile.
COST = 0.01
MODEL = f"""if True:
    import time
    from demos_hpc.testing import Gaussian

    class Costly(Gaussian):
        def log_density(self, x, params):
            end = time.process_time() + {COST} * len(x)
            while time.process_time() < end:
                pass
            return super().log_density(x, params)
"""
CALLS = """if True:
    import sys
    import demos_hpc
    import numpy as np

    with demos_hpc.connect(sys.argv[1], timeout=240) as model:
        for _ in range(int(sys.argv[2])):
            model.log_density(np.zeros((100, 1)), np.array([0.0, 1.0]))
"""
REQUESTS = {OWNER: 2, OTHER: 6}


@pytest.fixture
def records(testbed: Testbed) -> Iterator[Path]:
    """Where this site's servers leave what was used."""
    directory = Path(f"/home/{OWNER}/usage-{testbed.name}")
    site = Path(f"/home/{OWNER}/site-{testbed.name}.sh")
    site.write_text(
        f"{testbed.site.read_text(encoding='utf-8')}export DEMOS_USAGE_DIRECTORY={directory}\n", encoding="utf-8"
    )
    testbed.site, before = site, testbed.site
    yield directory
    testbed.site = before
    site.unlink()
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()


def check(used: list[dict[str, Any]], workers: list[dict[str, Any]]) -> float:
    """Who has used what; returns the sum of core-seconds."""
    told = {one["user"]: one for one in used}
    for user, requests in REQUESTS.items():
        assert (told[user]["model"], told[user]["requests"], told[user]["rows"]) == (
            "gaussian",
            requests,
            100 * requests,
        )
        assert told[user]["core_seconds"] >= COST * 100 * requests
    sum_ = sum(one["core_seconds"] for one in used)
    assert sum_ <= sum(one["core_seconds"] for one in workers)
    return float(sum_)


def test_usage_fits_what_slurm_says(testbed: Testbed, records: Path, script: Callable[..., str]) -> None:
    model = f"{script(OWNER, MODEL)}:Costly"
    endpoint = testbed.serve("--workers", "2", "--nodes", "2", model=model)
    testbed.demos("scale", testbed.name, "--workers", "3")
    testbed.wait_for_workers(3)
    calls = script(OTHER, CALLS)
    running = [testbed.start(user, "python", calls, testbed.name, str(n)) for user, n in REQUESTS.items()]
    for process in running:
        testbed.finish(process)

    live = json.loads(testbed.demos("usage", testbed.name, "--json"))
    assert live["slurm"]["why"] == ""
    assert {job["state"] for job in live["slurm"]["jobs"]} == {"RUNNING"}
    assert live["slurm"]["jobs"][0]["id"] == endpoint["job"]
    assert len(live["slurm"]["jobs"]) == 2
    used = check(live["used"], live["workers"])

    testbed.demos("scale", testbed.name, "--workers", "2")
    testbed.demos("stop", testbed.name, "--wait")
    testbed.check_gone()

    def ask() -> dict[str, Any]:
        told: dict[str, Any] = json.loads(testbed.demos("usage", "--from", str(records), "--json"))
        return told

    wait_until(lambda: "RUNNING" not in str(ask()["slurm"]), PATIENCE, "Slurm's accounting knows the end", pause=0.2)
    after = ask()
    assert check(after["used"], after["workers"]) == pytest.approx(used)
    jobs = after["slurm"]["jobs"]
    assert len(jobs) == 2
    billed, computed = (sum(job[name] for job in jobs) for name in ("core_seconds", "computed"))
    there = sum(one["core_seconds"] for one in after["workers"])
    assert used <= there <= billed
    # What a row costs is known; TotalCPU has everything else as well.
    cost = COST * 100 * sum(REQUESTS.values())
    assert cost <= computed <= billed
    assert "core-seconds" in testbed.demos("usage", testbed.name, "--from", str(records))
