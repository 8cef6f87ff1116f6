"""docs/legacy.md does what it says, from its first line to its last command."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from compiling import ROOT, Workshop, run
from launching import PACKAGE, start
from required import require

from demos_hpc.model import load
from demos_hpc.mpiexec import Program

DOCS = ROOT / "docs" / "legacy.md"
#: A block with a file, by its first line or, of JSON, by the last name before it; or commands.
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TITLE = re.compile(r"(?:! |/\* )(\S+\.\w+)")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workshop: Workshop) -> Path:
    """A directory where ``demos-hpc`` is a command."""
    command = tmp_path / "bin" / "demos-hpc"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m demos_hpc "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", f"{PACKAGE}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_everything_that_is_shown_runs(place: Path) -> None:
    require("cc", "c++", "gfortran", "mpicc", "bash")
    text = DOCS.read_text(encoding="utf-8")
    commands = []
    for block in BLOCK.finditer(text):
        language, body = block.groups()
        if language == "":
            for line in body.splitlines():
                commands.append(line)
                run(["bash", "-c", line], cwd=place)
            continue
        title = TITLE.match(body)
        name = title[1] if title else re.findall(r"`(\w+\.json)`", text[: block.start()])[-1]
        (place / name).write_text(body, encoding="utf-8")
    assert len(commands) == 10
    # Two languages, one model.
    x, point = np.linspace(-1.0, 9.0, 50)[:, None], np.array([2.2])
    fortran, c = load("decay.json"), load("./libmy_model.so")
    np.testing.assert_allclose(fortran.log_density(x, point), c.log_density(x, point), rtol=1e-14)
    np.testing.assert_allclose(fortran.sample(0, 100, point, 3), c.sample(0, 100, point, 3), rtol=1e-14)
    # The programs of two languages are workers of that model, and a client in C calls them.
    for program in ("decay", "decay_fortran"):
        server = Program(1, [sys.executable, "-m", "demos_hpc", "serve", "--spec", "decay.json"])
        programs = [server, Program(1, [f"./{program}"]), Program(1, ["./client"])]
        launched = start(programs, cwd=place, deadline=100, settings={})
        t = c.sample(0, 10_000, point, 1)
        sums = [c.log_density(t, np.array([lifetime])).sum() for lifetime in (2.0, 2.2, 2.4)]
        assert launched.code == 0, launched.text
        assert launched.out.strip() == "log L = " + " ".join(f"{total:.3f}" for total in sums)


def test_entries_are_those_that_are_read() -> None:
    from demos_hpc import glue

    text = DOCS.read_text(encoding="utf-8")
    entries = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert set(entries) <= {
        "library",
        "thread_safe",
        "threads",
        "settings",
        *glue.OF_PROGRAMS,
        *glue.FUNCTIONS,
        *glue.SPEC,
    }
    assert set(glue.FUNCTIONS) <= set(entries)
