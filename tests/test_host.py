"""`host`: what is free, whatever limits it; and who shares memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from demos_hpc import host
from demos_hpc.host import find_free_memory, find_place, is_usable

GIB = 1 << 30


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, {"proc/meminfo": f"MemTotal: {64 * GIB // 1024} kB\nMemAvailable: {40 * GIB // 1024} kB\nEmpty:\n"})
    return tmp_path


def test_the_host_alone(root: Path) -> None:
    assert find_free_memory(root) == 40 * GIB
    write(root, {"proc/self/cgroup": "1:cpu:/a\n0::/job\n"})
    assert find_free_memory(root) == 40 * GIB


def test_the_narrowest_control_group_counts(root: Path) -> None:
    """Slurm limits the job, and tasks stand in groups within it that have no limit of their own."""
    job = "sys/fs/cgroup/system.slice/slurm/job_7"
    stat = f"anon {GIB}\nfile {4 * GIB}\ninactive_file {3 * GIB}\n"
    write(
        root,
        {
            "proc/self/cgroup": "0::/system.slice/slurm/job_7/step_0/task_0\n",
            f"{job}/step_0/task_0/memory.max": "max\n",
            f"{job}/step_0/task_0/memory.current": "1000\n",
            f"{job}/memory.max": f"{16 * GIB}\n",
            f"{job}/memory.current": f"{9 * GIB}\n",
            f"{job}/memory.stat": stat,
            "sys/fs/cgroup/system.slice/memory.max": f"{32 * GIB}\n",
            "sys/fs/cgroup/system.slice/memory.current": f"{9 * GIB}\n",
            "sys/fs/cgroup/system.slice/memory.stat": stat,
        },
    )
    assert find_free_memory(root) == 10 * GIB


def test_version_1_of_control_groups(root: Path) -> None:
    job = "sys/fs/cgroup/memory/slurm/uid_5/job_7"
    write(
        root,
        {
            "proc/self/cgroup": "9:cpu:/x\n4:hugetlb,memory:/slurm/uid_5/job_7/step_0\n0::/\n",
            f"{job}/memory.limit_in_bytes": f"{2 * GIB}\n",
            f"{job}/memory.usage_in_bytes": f"{GIB}\n",
            f"{job}/memory.stat": "inactive_file 5\ntotal_inactive_file 7\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "1\n",
            "sys/fs/cgroup/memory/memory.stat": "",
        },
    )
    assert find_free_memory(root) == GIB + 7
    write(root, {f"{job}/memory.usage_in_bytes": f"{3 * GIB}\n"})
    assert find_free_memory(root) == 0


def test_what_cannot_be_read_is_no_limit(root: Path) -> None:
    write(root, {"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "lots", "proc/meminfo": "MemFree: x"})
    assert find_free_memory(root) == 0
    assert find_free_memory() > 0


def test_a_place_is_a_host_a_mount_and_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "boot").write_text("5f-3a\n", encoding="ascii")
    place = find_place(tmp_path, tmp_path / "boot")
    assert place.startswith("5f-3a-")
    monkeypatch.setattr(host, "_PROCESS", "another process")
    assert find_place(tmp_path, tmp_path / "boot") == place
    (tmp_path / "boot").write_text("77\n", encoding="ascii")
    assert find_place(tmp_path, tmp_path / "boot") != place
    assert find_place(tmp_path, tmp_path / "none") == find_place(tmp_path, tmp_path / "none") != place


def test_without_shared_memory_a_place_is_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = find_place(tmp_path / "none")
    assert find_place(tmp_path / "none") == place
    monkeypatch.setattr(host, "_PROCESS", "another process")
    assert find_place(tmp_path / "none") != place


def test_a_directory_is_usable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert is_usable(tmp_path)
    assert not is_usable(tmp_path / "file")
    assert not is_usable(tmp_path / "none")
