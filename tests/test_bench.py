"""Benchmarks as `demos-hpc bench` runs them: found, run, held against what is wanted, drawn."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest
from typer.testing import CliRunner

from demos_hpc import bench, bench_plots
from demos_hpc.bench import Report, Row, Wanted, compare, find_benchmarks, run_benchmark
from demos_hpc.cli import app
from demos_hpc.errors import InvalidInput, LaunchError

GOOD = """
import json, sys

def report(name, figures):
    print(json.dumps({"benchmark": name, "figures": figures, "machine": {"cores": 2}}))

def main():
    print("columns", sys.argv[1:])
    report("roundtrip", {"ratio_to_raw": 1.2, "speedup_vs_futures": 4, "other": 7})

main()
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with benchmarks of its own; returns their directory."""
    directory = tmp_path / "benchmarks"
    directory.mkdir()
    monkeypatch.setattr(bench, "__file__", str(tmp_path / "demos_hpc" / "bench.py"))
    write(directory, "roundtrip", GOOD)
    write(directory, "harness", GOOD)
    write(directory, "peer", "print('no benchmark')\n")
    monkeypatch.chdir(tmp_path)
    return directory


def write(directory: Path, name: str, text: str) -> Path:
    path = directory / f"{name}.py"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def test_benchmarks_are_those_that_report(checkout: Path) -> None:
    assert [path.stem for path in find_benchmarks()] == ["roundtrip"]
    assert find_benchmarks(["roundtrip"]) == [checkout / "roundtrip.py"]
    with pytest.raises(InvalidInput, match=r"no benchmark 'nosuch'; there are roundtrip"):
        find_benchmarks(["nosuch"])


def test_benchmarks_of_this_checkout_are_found() -> None:
    assert {"wire", "simulate"} <= {path.stem for path in find_benchmarks()}


def test_installed_without_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "__file__", str(tmp_path / "site-packages" / "demos_hpc" / "bench.py"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LaunchError, match="come with the sources"):
        find_benchmarks()
    result = CliRunner().invoke(app, ["bench"])
    assert result.exit_code == 1
    assert "clone the repository" in result.stderr


def test_run(checkout: Path) -> None:
    lines: list[str] = []
    report = run_benchmark(checkout / "roundtrip.py", quick=True, listen=lines.append)
    assert report == Report("roundtrip", {"ratio_to_raw": 1.2, "speedup_vs_futures": 4, "other": 7}, {"cores": 2})
    assert lines[0] == "columns ['--quick']"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raise SystemExit(3)", "exit status 3"),
        ("print('no json')", "no report in its last line: 'no json'"),
        ("print('[]')", "no report"),
        ("", "no report"),
        ("import time; time.sleep(60)", "not done within"),
    ],
)
def test_benchmarks_that_fail(checkout: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    monkeypatch.setattr(bench, "QUICK_DEADLINE", 2.0)
    with pytest.raises(LaunchError, match=message):
        run_benchmark(write(checkout, "bad", text), quick=True, listen=lambda line: None)


def test_margins() -> None:
    assert Wanted("<=", 1.5).find_margin(1.0) == 1.5
    assert Wanted(">=", 8).find_margin(4) == 0.5
    assert Wanted("<=", 0.03).find_margin(0.0) == float("inf")
    rows = {row.key: row for row in compare([Report("scaling", {"wake_ms": 1.0, "seconds": 3.0}, {})])}
    assert rows["wake_ms"].margin == 2.0
    assert rows["seconds"].margin is None
    (row,) = compare([Report("simulate", {"efficiency_100000_replicas": 0.99}, {})])
    assert str(row.wanted) == ">= 0.9"


def test_command(checkout: Path, tmp_path: Path) -> None:
    write(checkout, "zbad", GOOD.replace("main()\n", "sys.exit(1)\n", 1).replace("print(", "sys.exit(1), print("))
    result = CliRunner().invoke(app, ["bench", "--quick", "--out", "results"], env={"COLUMNS": "140"})
    assert result.exit_code == 1
    assert "ratio_to_raw" in result.stdout
    assert "not reached" in result.stdout
    assert "failed: zbad" in result.stderr
    (report,) = json.loads((tmp_path / "results" / "figures.json").read_text(encoding="utf-8"))
    assert report["figures"]["other"] == 7
    assert (tmp_path / "results" / "figures.png").read_bytes().startswith(b"\x89PNG")


def test_directory_that_cannot_be_made(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(app, ["bench", "--out", "file/results"])
    assert result.exit_code == 1
    assert "cannot be made" in result.stderr


def test_plots(tmp_path: Path) -> None:
    figures = {"efficiency_100": 1.0, "efficiency_100_chunk_20ms": 0.9, "a_encode_us_1": 2.0, "a_decode_us_1": 3.0}
    bench_plots.draw_efficiency(figures, tmp_path / "efficiency.png")
    bench_plots.draw_wire(figures, tmp_path / "wire.png")
    bench_plots.draw_figures(
        [Row("b", "k", 1.0, Wanted(">=", 30)), Row("b", "l", 0.0, Wanted("<=", 1))], tmp_path / "f.png"
    )
    assert len(list(tmp_path.glob("*.png"))) == 3
    for draw in (bench_plots.draw_efficiency, bench_plots.draw_wire):
        draw({"other": 1.0}, tmp_path / "none.png")
    bench_plots.draw_figures([Row("b", "k", 1.0, None)], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
