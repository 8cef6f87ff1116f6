"""Child processes that end after their work, at a deadline, or with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from demos_hpc.children import run_along, run_aloud, run_quietly

PYTHON = sys.executable
SLEEP = [PYTHON, "-c", "import time; print('here', flush=True); time.sleep(60)"]


def test_quiet_child_says_what_it_said() -> None:
    ended = run_quietly([PYTHON, "-c", "import sys; print('out'); sys.exit('err')"], os.environ, 30)
    assert (ended.code, ended.out, ended.err) == (1, "out\n", "err\n")


def test_quiet_child_ends_at_its_deadline() -> None:
    ended = run_quietly(SLEEP, os.environ, 0.5)
    assert ended.code is None
    assert ended.seconds < 30


def test_child_that_does_not_exist() -> None:
    with pytest.raises(FileNotFoundError):
        run_quietly(["/no/such/program"], os.environ, 1)


def test_aloud_child_is_heard_line_by_line() -> None:
    lines: list[str] = []
    ended = run_aloud([PYTHON, "-c", "print('a\\nb')"], os.environ, 30, lines.append)
    assert (ended.code, ended.out, lines) == (0, "a\nb\n", ["a", "b"])


def test_aloud_child_ends_at_its_deadline() -> None:
    ended = run_aloud(SLEEP, os.environ, 1.0, lambda line: None)
    assert ended.code is None


def test_child_whose_listener_fails_is_ended() -> None:
    def listen(line: str) -> None:
        raise ValueError(line)

    with pytest.raises(ValueError, match="here"):
        run_aloud(SLEEP, os.environ, 30, listen)


@pytest.mark.parametrize(("code", "expected"), [("pass", 0), ("exit(3)", 3), ("os.kill(os.getpid(), 9)", 137)])
def test_status_of_a_child_along(code: str, expected: int) -> None:
    assert run_along([PYTHON, "-c", f"import os; {code}"], os.environ) == expected


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_child_ends_with_us(number: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent("""
        import os, signal, sys
        from demos_hpc.children import run_along

        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        child = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
        status = run_along([sys.executable, "-c", child], os.environ)
        sys.exit(status)
        """),
        encoding="utf-8",
    )
    with subprocess.Popen([PYTHON, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            child = int(parent.stdout.readline())
            parent.send_signal(number)
            assert parent.wait(30) == 128 + number
        finally:
            parent.kill()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
