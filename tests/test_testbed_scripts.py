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


#: A machine with a policy of its own, or with none; `apt-get install` does what is asked for in the end.
INSTALLING = """
policy=$place/policy-rc.d wanted=(missing:no-such-program)
apt-get() { [ "$2" != install ] || eval "$MEANWHILE"; }
"""


@pytest.mark.parametrize("before", ["", "#!/bin/sh\n# the site's\nexit 104\n"])
@pytest.mark.parametrize("after", ["wanted=()", ""])
def test_services_may_start_again_after_a_run_that_was_killed(tmp_path: Path, before: str, after: str) -> None:
    policy = tmp_path / "policy-rc.d"
    if before:
        policy.write_text(before, encoding="utf-8")
        policy.chmod(0o755)
    killed = run("packages.sh", tmp_path, f"{INSTALLING}MEANWHILE='kill -9 $BASHPID'\ninstall_packages")
    assert killed.returncode == -9
    assert "exit 101" in policy.read_text(encoding="utf-8")
    done = run("packages.sh", tmp_path, f"{INSTALLING}MEANWHILE='grep 101 $policy'\n{after}\ninstall_packages")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.glob("policy*")] == ["policy-rc.d"] * bool(before)
    if before:
        assert policy.read_text(encoding="utf-8") == before
        assert policy.stat().st_mode & 0o777 == 0o755
