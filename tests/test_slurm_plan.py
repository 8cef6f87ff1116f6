"""Batch scripts are text that depends on nothing but what is wanted: compared with files, and read by shellcheck."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from demos_hpc.cluster import (
    Partition,
    Queued,
    check_ranks,
    check_sum,
    check_wishes,
    choose_victims,
    read_partitions,
    read_queue,
)
from demos_hpc.errors import InvalidInput
from demos_hpc.job_notes import Notes, format_notes, read_notes
from demos_hpc.slurm_plan import (
    Analyzing,
    Group,
    Job,
    Joining,
    Part,
    Serving,
    Site,
    Together,
    Wishes,
    format_script,
    read_megabytes,
    read_minutes,
    share,
)

GOLDEN = Path(__file__).parent / "golden" / "slurm"
TEMPLATES = Path(__file__).parents[1] / "slurm"
SITE = Site("/etc/demos-hpc/site.sh", "/software/demos-hpc/bin", "/home/ada/.demos-hpc/jobs")
JOBS: dict[str, Job] = {
    "serve": Serving("nu_atm", (Part((Group("nu_atm", (2,)),), Wishes(cpus=3)),), site=SITE),
    "serve-nodes": Serving(
        "peak",
        (
            Part(
                (Group("/home/ada/my model.py:Peak", (2, 3), 2, "/images/peak.sif"),),
                Wishes(2, 6, 1800, 1, 120, "gpu", "t2k", "high", ("geant4:2",), ("--constraint=a100",)),
            ),
        ),
        requeue=True,
        site=SITE,
    ),
    "serve-models": Serving(
        "two",
        (
            Part((Group("nu_atm", (1, 2), threads=4), Group("/b.py:B", (1, 1), image="/b.sif")), Wishes(2, cpus=9)),
            Part((Group("/c.py:OnGpu", (2,)),), Wishes(cpus=2, gpus=1, partition="gpu")),
        ),
        site=SITE,
    ),
    "workers": Joining("nu_atm", 4, Wishes(memory_mb=500, minutes=30), site=SITE),
    "workers-model": Joining("two", 2, Wishes(gpus=1), model="/opt/model/b.py:B", image="/b.sif", site=SITE),
    "analyze": Analyzing("/home/ada/fit.py", ("--steps", "1 000"), Wishes(), site=SITE),
    "analyze-ranks": Analyzing("/home/ada/fit.py", (), Wishes(nodes=2), ranks=8, site=SITE),
    "serve-and-analyze": Together(
        ("nu_atm", "peak.py:Peak"), (4, 2), "/home/ada/fit.py", ("-v",), Wishes(), 2, ("", "/images/p.sif"), SITE
    ),
}
PARTITIONS = [
    Partition("main", 3, 8, 8000, minutes=60, is_default=True),
    Partition("gpu", 2, 32, 128000, gpus=4, minutes=1440),
    Partition("gpu", 1, 64, 512000, gpus=8, minutes=1440),
    Partition("old", 9, 8, 8000, is_up=False),
]


@pytest.mark.parametrize("name", JOBS)
def test_scripts_are_as_they_were(name: str) -> None:
    assert format_script(JOBS[name]) == (GOLDEN / f"{name}.sbatch").read_text(encoding="utf-8")


SCRIPTS = sorted([*GOLDEN.glob("*.sbatch"), *TEMPLATES.glob("*.sbatch"), TEMPLATES / "site.sh"])


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="there is no shellcheck")
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_shells_understand_them(path: Path) -> None:
    command = ["shellcheck", "-x", "-e", "SC1091", path.name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=path.parent)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*.sbatch")), ids=lambda path: path.name)
def test_templates_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 30


def test_workers_are_shared_by_nodes() -> None:
    for nodes in range(1, 9):
        for workers in range(nodes, 30):
            shares = share(workers, nodes)
            assert sum(shares) == workers
            assert max(shares) - min(shares) <= 1
            assert shares[0] == min(shares)
    with pytest.raises(InvalidInput, match="2 workers on 3 nodes"):
        share(2, 3)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("1", 1),
        ("90", 90),
        ("0:30", 1),
        ("5:00", 5),
        ("2:30:00", 150),
        ("1-0", 1440),
        ("1-2:03", 1563),
        ("2-0:0:1", 2881),
    ],
)
def test_times_are_those_of_slurm(text: str, minutes: int) -> None:
    assert read_minutes(text) == minutes


@pytest.mark.parametrize("text", ["", "an hour", "0", "-5", "1:2:3:4", "1h"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="time"):
        read_minutes(text)


def test_memory_is_that_of_slurm() -> None:
    assert [read_megabytes(text) for text in ("500", "500M", "2G", "1t", "2GB")] == [500, 500, 2048, 1 << 20, 2048]
    for text in ("", "0", "1.5G", "much"):
        with pytest.raises(InvalidInput, match="memory"):
            read_megabytes(text)


@pytest.mark.parametrize(
    "changes",
    [
        {"nodes": 0},
        {"minutes": 0},
        {"partition": "a b"},
        {"account": "x\n#SBATCH -N 9"},
        {"extra": ("N 9",)},
        {"licenses": ("a b",)},
    ],
    ids=str,
)
def test_nonsense_is_no_wish(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        replace(Wishes(), **changes)  # type: ignore[arg-type]


# ---- what a cluster has ---------------------------------------------------------------------------------------------


def test_partitions_are_read() -> None:
    text = "main*|up|1:00:00|3|8|8000|(null)\ngpu|up|infinite|2|32+|128000+|gpu:a100:4(S:0-1),license:1\n"
    assert read_partitions(text) == [
        Partition("main", 3, 8, 8000, minutes=60, is_default=True),
        Partition("gpu", 2, 32, 128000, gpus=4),
    ]


@pytest.mark.parametrize(
    "wishes",
    [
        Wishes(),
        Wishes(3, 8, 8000, 0, 60),
        Wishes(gpus=8, partition="gpu"),
        Wishes(3, partition="main,gpu", minutes=900),
    ],
    ids=str,
)
def test_what_fits_is_let_through(wishes: Wishes) -> None:
    check_wishes(wishes, PARTITIONS)


@pytest.mark.parametrize(
    ("wishes", "why"),
    [
        (Wishes(partition="huge"), r"no partition 'huge' here; there are main, gpu, old"),
        (
            Wishes(minutes=61),
            r"'main' ends jobs after 60 minutes, and 61 are wanted \(--time\)\. --partition gpu could",
        ),
        (Wishes(cpus=9), r"nodes of 8 CPUs, and 9 are wanted"),
        (
            Wishes(memory_mb=8001),
            r"nodes of 8000 MB of memory, and 8001 are wanted on one \(--mem-per-worker, or --mem\)",
        ),
        (Wishes(gpus=1), r"nodes of 0 GPUs, and 1 are wanted on one \(--gpus\)\. --partition gpu could"),
        (Wishes(nodes=4), r"has 3 nodes that fit, and 4 are wanted"),
        (Wishes(nodes=2, gpus=8, partition="gpu"), r"has 1 nodes that fit, and 2 are wanted.*No partition here could"),
        (Wishes(partition="old"), r"'old' is down"),
    ],
    ids=str,
)
def test_what_cannot_run_is_refused(wishes: Wishes, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        check_wishes(wishes, PARTITIONS)


def test_a_queue_is_read() -> None:
    text = "7_2|ada|PENDING|Priority|demos:nu:workers\n8|bob|RUNNING|None|a|b\n"
    first, second = read_queue(text)
    assert first == Queued("7_2", "demos:nu:workers", "ada", "PENDING", "Priority")
    assert second.name == "a|b"


def test_notes_come_back() -> None:
    notes = Notes(5, 500, 2, 1, "geant4:2,idl", "/a b/ü=&;\n.sif")
    assert format_notes(notes).isascii()
    assert not set(" ;\n'") & set(format_notes(notes))  # as words of scontrol are read
    assert read_notes(format_notes(notes)) == notes
    for foreign in ("(null)", "threads=two", "bring=a coat&threads=", ""):
        assert read_notes(foreign) == Notes()


def test_nothing_gets_into_a_script_by_the_name_of_a_file() -> None:
    script = format_script(
        Serving("n", (Part((Group("nu_atm", (1,), image="/a/A\ntouch /tmp/x #.sif"),), Wishes(cpus=2)),))
    )
    assert "\ntouch /tmp/x" not in script.replace("/a/A\ntouch", "")  # inside of quotes it is a part of the name
    with pytest.raises(InvalidInput, match="cannot stand in a batch script"):
        format_script(Serving("n", (Part((Group("nu_atm", (1,)),), Wishes(cpus=2)),), site=Site(logs="/a\n/b")))


def test_a_server_takes_more_than_its_last_minute() -> None:
    with pytest.raises(InvalidInput, match=r"1 minute \(--time\).*last 60 s"):
        Serving("n", (Part((Group("nu_atm", (1,)),), Wishes(cpus=2, minutes=1)),))


def test_an_analysis_with_images_is_told_of_gpus_and_threads() -> None:
    together = Together(("a",), (1,), "fit.py", (), Wishes(cpus=4, gpus=1), images=("/p.sif",))
    script = format_script(together)
    assert '--gpus "${SITE_GPUS:-nv}" a' in script
    assert "OMP_NUM_THREADS=4" in script


def test_parts_have_to_fit_together() -> None:
    parts = [Wishes(2, licenses=("idl",)), Wishes(1, gpus=1, partition="gpu", licenses=("idl:2",))]
    check_sum(parts, PARTITIONS, {"idl": 3})
    with pytest.raises(InvalidInput, match="takes 3 of license 'idl', and there are 2"):
        check_sum(parts, PARTITIONS, {"idl": 2})
    with pytest.raises(InvalidInput, match="want 4 nodes of the default partition, which has 3"):
        check_sum([Wishes(2), Wishes(2)], PARTITIONS, {})
    with pytest.raises(InvalidInput, match="want 4 nodes of partition gpu, which has 3"):
        check_sum([Wishes(2, partition="gpu"), Wishes(2, partition="gpu")], PARTITIONS, {})


def test_ranks_have_to_fit() -> None:
    check_ranks(24, Wishes(), PARTITIONS)
    check_ranks(64, Wishes(cpus=2, partition="main,gpu"), PARTITIONS)
    with pytest.raises(InvalidInput, match="25 ranks of 1 CPUs take 25, and there are 24"):
        check_ranks(25, Wishes(), PARTITIONS)
    with pytest.raises(InvalidInput, match="there are 0"):
        check_ranks(1, Wishes(partition="nowhere"), PARTITIONS)


def test_who_waits_goes_first_and_then_the_youngest() -> None:
    jobs = [Queued(id_, "", "", state, "") for id_, state in
            [("7_1", "RUNNING"), ("7_2", "RUNNING"), ("9_1", "RUNNING"), ("8_1", "PENDING")]]  # fmt: skip
    assert choose_victims(jobs, 3) == ["8_1", "9_1", "7_2"]
    assert choose_victims(jobs, 0) == []
