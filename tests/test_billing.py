"""What sacct says that jobs took: a command of our own stands in for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from inside import Hall
from test_usage import FACTS, GOOD, invoke, read

from demos_hpc.billing import Billed, ask, read_jobs, read_seconds

SAID = """11|COMPLETED|4|3600|14400|02:55:03|demos:nu
11.batch|COMPLETED|4|3600|14400|02:55:01|batch
11.0|COMPLETED|4|3600|14400|00:02.500|demos-hpc
12|CANCELLED by 1001|1|1800|1800|00:29:59|demos:nu:workers
13|PENDING|||||demos:nu:workers
14|RUNNING|1|60|60|00:00:00|demos:nu:workers|x
"""


def test_a_job_is_a_line_and_its_steps_are_none() -> None:
    assert read_jobs(SAID) == [
        Billed("11", "demos:nu", "COMPLETED", 4, 3600, 14400, 10503.0),
        Billed("12", "demos:nu:workers", "CANCELLED", 1, 1800, 1800, 1799.0),
        Billed("13", "demos:nu:workers", "PENDING", 0, 0, 0, 0.0),
        Billed("14", "demos:nu:workers|x", "RUNNING", 1, 60, 60, 0.0),
    ]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("00:00.009", 0.009), ("59:59", 3599.0), ("23:00:01", 82801.0), ("2-00:00:00", 172800.0), ("", 0.0), ("?", 0.0)],
)
def test_times_of_sacct(text: str, seconds: float) -> None:
    assert read_seconds(text) == pytest.approx(seconds)


@pytest.fixture
def sacct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a script in place of sacct; returns the file with the words that it was called with."""

    def put(text: str) -> Path:
        program = tmp_path / "programs" / "sacct"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\n{text}\n', encoding="utf-8")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
        return tmp_path / "asked"

    return put


def test_sacct_is_asked_for_the_job_and_for_those_of_its_workers(sacct: Any) -> None:
    asked = sacct("echo '11|COMPLETED|4|1|4|00:01|x'")
    assert [job.id for job in ask(["11", "12"], ["demos:nu:workers"], "ada", 0.0)] == ["11", "11"]
    ask(["11"], ["demos:nu:workers"], "ada", 0.0, 3600.0)
    first, second, third, fourth = asked.read_text(encoding="utf-8").splitlines()
    assert first.endswith("CPUTimeRAW,TotalCPU,JobName --user=ada --jobs=11,12")
    assert "--user=ada --name=demos:nu:workers --starttime=19" in second
    assert "--endtime" not in second
    assert "--duplicates" in third
    assert "--endtime=19" in fourth


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A record of a server that was in a job."""
    path = tmp_path / "records"
    path.mkdir()
    (path / "nu-1.jsonl").write_text(json.dumps(GOOD | FACTS) + "\n", encoding="utf-8")
    return path


def test_usage_is_shown_beside_the_bill(hall: Hall, sacct: Any, kept: Path) -> None:
    lines = ["11|COMPLETED|4|3600|14400|02:00:00|demos:nu", "12|RUNNING|1|3600|3600|00:00:00|demos:nu:workers"]
    sacct(f'case "$*" in *--jobs*) echo "{lines[0]}";; *) echo "{lines[1]}";; esac')
    told = read(invoke(hall, "--from", str(kept), "--json"))
    assert told["slurm"]["why"] == ""
    assert [(job["id"], job["core_seconds"], job["computed"]) for job in told["slurm"]["jobs"]] == [
        ("11", 14400, 7200.0),
        ("12", 3600, 0.0),
    ]
    shown = " ".join(invoke(hall, "--from", str(kept)).stdout.split())
    assert (
        "Slurm bills 18000.00 core-seconds, cores times time, for 2 jobs (1 of them still running);"
        " in steps that have ended, processes computed 7200.00" in shown
    )


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'Slurm accounting storage is disabled' >&2; exit 1", "sacct says: Slurm accounting storage is disabled"),
        ("", "sacct knows none of these jobs"),
    ],
)
def test_where_slurm_keeps_no_accounts_it_is_said_below_the_table(
    hall: Hall, sacct: Any, kept: Path, script: str, why: str
) -> None:
    sacct(script)
    shown = invoke(hall, "--from", str(kept))
    assert shown.exit_code == 0
    assert "bob" in shown.stdout
    assert f"what Slurm bills is not known: {why}" in " ".join(shown.stdout.split())
    assert read(invoke(hall, "--from", str(kept), "--json"))["slurm"] == {"jobs": [], "why": why}


def test_without_sacct_it_is_said_as_well(hall: Hall, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "there is no sacct on the PATH" in " ".join(invoke(hall, "--from", str(kept)).stdout.split())
