"""The testbed's scripts where a run before was killed; commands of our own stand in for those of the system."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent / "testbed"


def run(script: str, place: Path, commands: str) -> subprocess.CompletedProcess[str]:
    """Runs commands after those of a script, as `testbed` does."""
    begin = f'set -euo pipefail; place={place} users=(alice bob); fail() {{ echo "$*" >&2; exit 1; }}'
    return subprocess.run(
        ["bash", "-c", f"{begin}\n. {SCRIPTS / script}\n{commands}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


#: Keeps what it is told to add, each in a file.
ACCOUNTING = """
mkdir -p "$place/known" "$place/accounting"
start_database() { :; }
is_running() { :; }
sacctmgr() {
    local words=() word
    for word in "$@"; do [[ $word == --* ]] || words+=("$word"); done
    local file=$place/known/${words[1]}-${words[2]}
    if [ "${words[0]}" = add ]; then echo "${words[*]}" >> "$file"; elif [ -e "$file" ]; then cat "$file"; fi
}
start_accounting
"""


@pytest.mark.parametrize("known", [[], ["cluster-demos"], ["cluster-demos", "account-physics", "user-alice"]])
def test_accounts_that_a_run_before_did_not_come_to_are_added(tmp_path: Path, known: list[str]) -> None:
    (tmp_path / "known").mkdir()
    for name in known:
        (tmp_path / "known" / name).write_text("there\n", encoding="utf-8")
    for _ in range(2):
        done = run("accounting.sh", tmp_path, ACCOUNTING)
        assert done.returncode == 0, done.stderr
    lines = {path.name: path.read_text(encoding="utf-8").splitlines() for path in (tmp_path / "known").iterdir()}
    assert sorted(lines) == ["account-physics", "cluster-demos", "user-alice", "user-bob"]
    assert [len(said) for said in lines.values()] == [1] * 4
    assert {name for name, said in lines.items() if said == ["there"]} == set(known)
