"""What Slurm's commands say is passed on: commands of our own stand in for them, on a PATH of their own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_survey import make
from typer.testing import CliRunner, Result

from demos_hpc import slurm, survey
from demos_hpc.cli import app, batch, scaling
from demos_hpc.cli.confining import Subject
from demos_hpc.config import Config
from demos_hpc.errors import InvalidInput, LaunchError
from demos_hpc.job_notes import Notes, format_notes
from demos_hpc.registry import Registry

OTHER = """
from demos_hpc import ModelSpec, Observable


class Other:
    spec = ModelSpec(name="other", observables=[Observable("x")], resources={"memory": "2 GB"})

    def log_density(self, x, params):
        return -x[:, 0] ** 2
"""
SINFO = "echo 'main*|up|1:00:00|3|8|8000|(null)'"
Fake = Callable[..., Path]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Puts shell scripts on the PATH, in place of Slurm's commands: ``fake(sbatch="echo 7")``."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def make_programs(**scripts: str) -> Path:
        for name, text in {"squeue": "", "sinfo": SINFO, **scripts}.items():
            path = programs / name
            path.write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/said\n{text}\n', encoding="utf-8")
            path.chmod(0o755)
        return tmp_path / "said"

    return make_programs


def invoke(*words: str) -> Result:
    return CliRunner().invoke(app, words)


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("sbatch: error: invalid partition specified: x", "--partition"),
        ("sbatch: error: Batch job submission failed: Invalid account or account/partition combination", "--account"),
        ("sbatch: error: Batch job submission failed: Job violates accounting/QOS policy", "squeue --me"),
        ("sbatch: error: Memory specification can not be satisfied", "--mem-per-worker"),
        ("sbatch: error: Invalid generic resource (gres) specification", "--gpus"),
        ("squeue: error: Unable to contact slurm controller (connect failure)", "scontrol ping"),
        ("sbatch: fatal: Could not establish a configuration source", "SLURM_CONF"),
        ("sbatch: error: If munged is up, restart with --num-threads=10", "munge -n"),
        ("sbatch: error: the moon is in the wrong place", ""),
    ],
)
def test_errors_of_slurm_are_shown_with_a_remedy(fake: Fake, words: str, remedy: str) -> None:
    fake(sbatch=f"cat > /dev/null; echo '{words}' >&2; exit 1")
    result = invoke("submit", "serve", "nu_atm", "--no-wait")
    assert result.exit_code == 1
    assert words.partition(": ")[2].removeprefix("error: ") in result.stderr
    assert remedy in result.stderr


def test_without_slurm_it_is_said(fake: Fake) -> None:
    os.environ["PATH"] = "/nonexistent"
    with pytest.raises(LaunchError, match=r"there is no sbatch on the PATH.*demos-hpc serve"):
        slurm.submit("")


def test_a_server_is_submitted(fake: Fake, tmp_path: Path) -> None:
    said = fake(sbatch="cat > script; echo '7;cluster'")
    result = invoke("submit", "serve", "nu_atm", "--workers", "4", "--name", "mine", "--no-wait", "--json")
    assert result.exit_code == 0, result.stderr
    log = str(tmp_path / ".demos-hpc/jobs/7.log")
    assert json.loads(result.stdout) == {"job": "7", "server": "mine", "log": log}
    assert "demos-hpc serve nu_atm --name mine --workers 4 &" in Path("script").read_text(encoding="utf-8")
    assert said.read_text(encoding="utf-8").splitlines()[-1] == "sbatch --parsable"


def test_a_dry_run_submits_nothing(fake: Fake) -> None:
    said = fake()
    result = invoke("submit", "serve", "nu_atm", "--dry-run")
    assert result.stdout.startswith("#!/bin/bash\n#SBATCH --job-name=demos:nu_atm\n")
    assert not said.exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--time", "2:00:00"], "ends jobs after 60 minutes"),
        (["--workers", "30"], "nodes of 8 CPUs, and 31 are wanted"),
        (["--mem-per-worker", "9G"], "nodes of 8000 MB"),
        (["--gpus", "1"], "nodes of 0 GPUs"),
        (["--partition", "huge"], "no partition 'huge'"),
        (["--nodes", "4", "--workers", "2"], "2 workers on 4 nodes"),
        (["--image", "nowhere.sif"], "there is no image nowhere.sif"),
        (["--name", "a/b"], "cannot be called"),
        (["--analyse", "nowhere.py"], "no script 'nowhere.py'"),
        (["--extra", "-N 3\n#"], "no option of sbatch"),
        (["--model", "nu_atm"], "a model is named twice"),
        (["--wait"], "name it by --analyse"),
        (["--ranks", "3"], "name it by --analyse"),
        (["--time", "1"], "takes nothing new"),
        (["--workers", "1", "--workers", "2"], "--workers is given 2 times for 1 models"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_refused_before(fake: Fake, words: list[str], why: str) -> None:
    said = fake(sbatch="echo 7")
    result = invoke("submit", "serve", "nu_atm", "--no-wait", *words)
    assert result.exit_code == 1
    assert why in result.stderr
    assert not said.exists() or "sbatch" not in said.read_text(encoding="utf-8")


def test_a_name_in_use_is_refused(fake: Fake) -> None:
    fake(squeue="echo '3|ada|PENDING|Priority|demos:nu_atm'")
    result = invoke("submit", "serve", "nu_atm", "--no-wait")
    assert result.exit_code == 1
    assert "job 3 of ada is to serve as 'nu_atm' (pending)" in result.stderr
    assert "scancel 3" in result.stderr


@pytest.mark.parametrize(("state", "remedy"), [("CANCELLED", "submit it again"), ("TIMEOUT", "--time"), ("FAILED", "")])
def test_a_job_that_ends_before_its_door_opens(fake: Fake, tmp_path: Path, state: str, remedy: str) -> None:
    queue = f"case \"$*\" in *states=all*) echo '7|ada|{state}|None|demos:nu_atm' ;; esac"
    fake(sbatch=f"echo 'no such model' > {tmp_path}/.demos-hpc/jobs/7.log; echo 7", squeue=queue)
    result = invoke("submit", "serve", "nu_atm")
    assert result.exit_code == 1
    assert f"job 7 ended as {state}" in result.stderr
    assert remedy in result.stderr
    assert "no such model" in result.stderr


def test_a_home_that_cannot_be_written(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    said = fake(sbatch="echo 7")
    monkeypatch.setenv("HOME", "/proc")
    result = invoke("submit", "serve", "nu_atm", "--no-wait")
    assert result.exit_code == 1
    assert "no place for what jobs write, /proc/.demos-hpc/jobs: No such file" in result.stderr
    assert "sbatch" not in said.read_text(encoding="utf-8")


def test_ranks_that_no_partition_has(fake: Fake) -> None:
    Path("fit.py").touch()
    fake(sbatch="echo 7")
    result = invoke("submit", "analyse", "--ranks", "25", "fit.py")
    assert result.exit_code == 1
    assert "25 ranks of 1 CPUs take 25, and there are 24" in result.stderr


def test_a_model_that_never_comes(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(squeue="echo '7|ada|RUNNING|None|demos:two'")
    registry = Registry(tmp_path / "registry")
    endpoint = replace(make("two"), job="7", state="ready", models=[{"name": "nu_atm", "uuid": "u", "version": "1"}])
    registry.publish(endpoint)
    log = tmp_path / "7.log"
    log.write_text("no module named flux\n", encoding="utf-8")
    monkeypatch.setattr(batch, "look", lambda endpoint, config, seconds: survey.Sighting(endpoint, "ready"))
    monkeypatch.setattr(batch, "OPENING", -1)
    with pytest.raises(LaunchError, match=r"(?s)with nu_atm and not all 2 models.*scancel 7.*no module named flux"):
        batch.wait_for_door("7", "two", 2, registry, Config(), log)
    assert batch.wait_for_door("7", "two", 1, registry, Config(), log).name == "two"


def test_more_workers_are_as_those_of_the_first_model(fake: Fake, tmp_path: Path) -> None:
    notes = format_notes(Notes(3, 700, 2, 1, "geant4:2", "/a b/x.sif"))
    fake(scontrol=f"echo 'JobId=7 Partition=gpu Account=t2k Comment={notes}'; echo 'JobId=8 Partition=main'")
    endpoint = replace(make("two"), job="7")
    nothing = scaling.Kind("", "", "", "", 0, ())
    job = scaling.plan_workers(endpoint, 4, nothing)
    wishes = job.wishes
    assert (job.image, job.threads, job.elements) == ("/a b/x.sif", 2, 4)
    assert (wishes.cpus, wishes.memory_mb, wishes.gpus, wishes.partition) == (2, 700, 1, "gpu")
    assert (wishes.licenses, wishes.account) == (("geant4:2",), "t2k")

    model = tmp_path / "other.py"
    model.write_text(OTHER, encoding="utf-8")
    job = scaling.plan_workers(endpoint, 1, replace(nothing, model=f"{model}:Other"))
    assert (job.image, job.model, job.wishes.memory_mb, job.wishes.gpus) == ("", f"{model}:Other", 2048, 0)
    job = scaling.plan_workers(endpoint, 1, replace(nothing, model=f"{model}:Other", gpus=2, memory="1G"))
    assert (job.wishes.memory_mb, job.wishes.gpus) == (1024, 2)


@pytest.mark.parametrize("label", ["[1]", "null", "7", "{", '"a"'])
def test_a_label_that_is_no_object(label: str) -> None:
    with pytest.raises(InvalidInput, match="is no JSON object: build the image again"):
        batch.read_resources(Subject("m", "x.sif", {batch.RESOURCES_LABEL: label}))
    with pytest.raises(InvalidInput, match="gpus -1"):
        batch.read_resources(Subject("m", "x.sif", {batch.RESOURCES_LABEL: '{"gpus": -1}'}))


def test_an_analysis_exits_as_its_job(fake: Fake, tmp_path: Path) -> None:
    Path("fit.py").touch()
    fake(
        sbatch=f"cat > script; echo 'not converged' > {tmp_path}/.demos-hpc/jobs/7.log; echo 7",
        squeue="echo '7|ada|FAILED|NonZeroExitCode|demos:analysis'",
        scontrol="echo 'JobId=7 JobState=FAILED ExitCode=3:0'",
    )
    result = invoke("submit", "analyse", "--wait", "fit.py", "--steps", "1 000")
    assert result.exit_code == 3
    assert result.stdout == "not converged\n"
    assert f"exec python {tmp_path}/fit.py --steps '1 000'" in Path("script").read_text(encoding="utf-8")


@pytest.mark.parametrize(("queue", "is_dead"), [("", True), ("echo 41", False), ("exit 1", False)])
def test_the_dead_are_known_by_their_jobs(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, queue: str, is_dead: bool
) -> None:
    fake(squeue=queue)
    registry = Registry(tmp_path / "registry")
    values: dict[str, Any] = {"job": "41", "boot": "another", "host": "127.0.0.1", "port": 1}
    endpoint = replace(make("lost"), **values)
    registry.publish(endpoint)
    [sighting] = survey.survey([endpoint], Config())
    assert sighting.may_sweep == is_dead
    assert ("job 41 is over" in sighting.why) == is_dead
