"""A bar where somebody looks, and nothing where nobody does."""

from __future__ import annotations

import subprocess
import sys

import pytest

from demos_hpc.progress import show_progress


@pytest.mark.parametrize("is_wanted", [False, True])
def test_nothing_is_written_to_what_is_no_terminal(capfd: pytest.CaptureFixture[str], is_wanted: bool) -> None:
    with show_progress("events", is_wanted=is_wanted) as tell:
        for done in range(3):
            tell(done, 3)
    assert capfd.readouterr() == ("", "")


def test_what_draws_bars_is_imported_by_those_who_want_to_see_one() -> None:
    code = (
        "import sys\nfrom demos_hpc.progress import show_progress\n"
        "with show_progress('events', is_wanted=False):\n    sys.exit('rich' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
