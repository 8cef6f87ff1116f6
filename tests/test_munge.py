"""Credentials of MUNGE: with programs that only pretend, and with a daemon of its own where MUNGE is installed."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demos_hpc import munge
from demos_hpc.errors import DemosError
from demos_hpc.identity import digest_session
from demos_hpc.munge import Credential, MungeFailed, decode, encode, is_available

ME = pwd.getpwuid(os.geteuid()).pw_name
#: Seconds for a daemon to answer.
DEADLINE = 20.0

FAKE_MUNGE = """
payload = sys.stdin.buffer.read()
text = base64.b64encode(json.dumps([os.geteuid(), os.getegid(), payload.hex()]).encode()).decode()
print(f"MUNGE:{text}:")
"""
FAKE_UNMUNGE = """
text = sys.stdin.read().strip()
used = pathlib.Path(__file__).with_name("used")
uid, gid, payload = json.loads(base64.b64decode(text[6:-1]))
status = 17 if used.exists() and text in used.read_text() else 0
with used.open("a") as file:
    file.write(text)
payload = bytes.fromhex(payload)
print(f"UID:{' ' * 14}%s", f"GID:{' ' * 14}%s", f"LENGTH:{' ' * 11}{len(payload)}", sep=os.linesep)
print(flush=True)
sys.stdout.buffer.write(payload)
if status:
    print("unmunge: Error: Replayed credential", file=sys.stderr)
sys.exit(status)
"""
Install = Callable[[str, str], None]


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory for programs."""
    directory = tmp_path / "bin"
    directory.mkdir()
    return directory


@pytest.fixture
def install(programs: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts ``install(name, code)`` a program on the PATH, on which there is no other."""
    monkeypatch.setenv("PATH", str(programs))

    def install(name: str, code: str) -> None:
        path = programs / name
        header = f"#!{sys.executable} -SE\nimport base64, json, os, pathlib, sys\n"
        log = "pathlib.Path(__file__).with_name('arguments').open('a').write(repr(sys.argv[1:]) + os.linesep)\n"
        path.write_text(header + log + code, encoding="utf-8")
        path.chmod(0o700)

    return install


@pytest.fixture(params=["{uid}", "some (odd) name ({uid})"])
def fakes(install: Install, request: pytest.FixtureRequest) -> None:
    """Both programs, with numbers only, or with names."""
    uid, gid = (request.param.replace("uid", word) for word in ("uid", "gid"))
    install("munge", FAKE_MUNGE)
    install("unmunge", FAKE_UNMUNGE % (uid, gid))


@pytest.fixture(scope="module")
def daemon() -> Iterator[str]:
    """The socket of a daemon of our own."""
    if not all(map(shutil.which, ("munge", "unmunge", "munged"))):
        pytest.skip("MUNGE is not installed")
    with tempfile.TemporaryDirectory(prefix="munge-") as directory:  # tmp_path is too long for a socket's name
        socket, key = os.path.join(directory, "socket"), os.path.join(directory, "key")
        Path(key).write_bytes(secrets.token_bytes(128))
        os.chmod(key, 0o600)
        files = [f"--{name}-file={os.path.join(directory, name)}" for name in ("key", "log", "pid", "seed")]
        command = ["munged", "--foreground", "--force", f"--socket={socket}", *files]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            begin = time.monotonic()
            while not is_available(socket):
                assert process.poll() is None, process.communicate()[0].decode()
                assert time.monotonic() < begin + DEADLINE
            yield socket
        finally:
            process.terminate()
            process.communicate(timeout=DEADLINE)


def test_a_failure_is_an_error_of_the_package() -> None:
    assert issubclass(MungeFailed, DemosError)


# ---- programs that pretend ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize("payload", [b"", b"payload", b"\n\nUID: 0\n\n", bytes(range(256))])
def test_a_credential_says_who_made_it_and_what_is_in_it(payload: bytes) -> None:
    assert decode(encode(payload)) == Credential(ME, os.geteuid(), os.getegid(), payload)


@pytest.mark.usefixtures("fakes")
def test_it_is_available_where_both_programs_work() -> None:
    assert is_available()


@pytest.mark.usefixtures("fakes")
def test_a_credential_is_good_once() -> None:
    credential = encode(b"payload")
    decode(credential)
    with pytest.raises(MungeFailed, match="was used before: unmunge: Error: Replayed"):
        decode(credential)


@pytest.mark.usefixtures("fakes")
def test_nothing_secret_is_on_a_command_line(programs: Path) -> None:
    credential = encode(b"payload", "/run/socket")
    decode(credential, "/run/socket")
    lines = (programs / "arguments").read_text(encoding="utf-8").splitlines()
    assert lines == ["['--socket=/run/socket']", "['--keys=UID,GID,LENGTH', '--socket=/run/socket']"]


def test_without_the_programs(install: Install) -> None:
    assert not is_available()
    with pytest.raises(MungeFailed, match="there is no munge on the PATH: install MUNGE, or use a key file"):
        encode(b"")
    with pytest.raises(MungeFailed, match="there is no unmunge on the PATH"):
        decode("MUNGE:AAAA:")


@pytest.mark.parametrize("status", [6, 7])
def test_a_daemon_that_is_not_there(install: Install, status: int) -> None:
    for name in ("munge", "unmunge"):
        install(name, f"sys.stderr.write('Did you start munged?' + chr(10) * 2); sys.exit({status})")
    assert not is_available()
    for call in (lambda: encode(b""), lambda: decode("MUNGE:AAAA:")):
        with pytest.raises(MungeFailed, match=r"munged does not answer: Did you start munged\?: start it"):
            call()


def test_a_daemon_that_hangs(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(munge, "PATIENCE", 0.2)
    install("munge", "import signal; signal.pause()")
    with pytest.raises(MungeFailed, match=r"has not answered within 0\.2 s") as caught:
        encode(b"secret")
    assert "secret" not in str(caught.value)


def test_a_program_that_cannot_be_run(install: Install, programs: Path) -> None:
    install("munge", "")
    (programs / "munge").write_text("#!/nowhere/interpreter\n", encoding="utf-8")
    with pytest.raises(MungeFailed, match="cannot be run: No such file"):
        encode(b"")


@pytest.mark.parametrize("code", ["sys.exit(3)", "", "print('no credential')", "print('MUNGE:AA AA:')"])
def test_what_is_no_credential_is_not_handed_out(install: Install, code: str) -> None:
    install("munge", code)
    with pytest.raises(MungeFailed, match=r"munge ended with status [03]: it does not say why"):
        encode(b"")


@pytest.mark.parametrize(
    ("status", "why"), [(8, "is not good"), (14, "is not good"), (15, "has expired"), (16, "comes from the future")]
)
def test_credentials_that_are_not_good(install: Install, status: int, why: str) -> None:
    # The real one shows what is in a replayed or expired credential all the same: it must not count.
    install("unmunge", f"print('UID: 0\\nGID: 0\\nLENGTH: 0\\n'); sys.exit({status})")
    with pytest.raises(MungeFailed, match=why):
        decode("MUNGE:AAAA:")


@pytest.mark.parametrize(
    "said",
    ["", "UID: 0", "UID: 0\\nGID: 0\\n", "UID: 0\\nGID: 0\\nLENGTH: 5\\n\\nfour", "UID: me\\nGID: 0\\nLENGTH: 0\\n\\n"],
)
def test_what_unmunge_never_says(install: Install, said: str) -> None:
    install("unmunge", f"print('{said}', end='')")
    with pytest.raises(MungeFailed, match="not understood"):
        decode("MUNGE:AAAA:")


@pytest.mark.parametrize("uid", [3_999_999_999, 1 << 70])
def test_a_user_without_a_name_is_nobody(install: Install, uid: int) -> None:
    install("unmunge", f"print('UID: {uid}\\nGID: 0\\nLENGTH: 0\\n')")
    with pytest.raises(MungeFailed, match=f"that of user {uid}, who has no name on this host"):
        decode("MUNGE:AAAA:")


@pytest.mark.parametrize(
    "text", ["", "MUNGE::", "munge", "MUNGE:AAAA", "MUNGE:é:", "MUNGE:\ud800:", f"MUNGE:{'A' * 5000}:"]
)
def test_what_cannot_be_a_credential_is_not_even_tried(install: Install, programs: Path, text: str) -> None:
    install("unmunge", "")
    with pytest.raises(MungeFailed, match="characters that are no MUNGE credential"):
        decode(text)
    assert not (programs / "arguments").exists()


# ---- the real one -------------------------------------------------------------------------------------------


def test_the_real_munge_says_who_made_a_credential(daemon: str) -> None:
    payload = digest_session("peer", b"hello", "a", "b", "")
    credential = encode(payload, daemon)
    assert decode(credential, daemon) == Credential(ME, os.geteuid(), os.getegid(), payload)
    with pytest.raises(MungeFailed, match="was used before"):
        decode(credential, daemon)


@pytest.mark.parametrize("payload", [b"", b"\n\n", b"UID: 0\n\n", bytes(range(256))])
def test_the_real_munge_keeps_any_payload(daemon: str, payload: bytes) -> None:
    assert decode(encode(payload, daemon), daemon).payload == payload


def test_the_real_munge_finds_forgeries(daemon: str) -> None:
    credential = encode(b"payload", daemon)
    middle = len(credential) // 2
    letter = "A" if credential[middle] != "A" else "B"
    for forged in (credential[:middle] + letter + credential[middle + 1 :], "MUNGE:AAAA:"):
        with pytest.raises(MungeFailed, match="is not good"):
            decode(forged, daemon)
    assert decode(credential, daemon).payload == b"payload"


def test_without_its_daemon_the_real_munge_is_not_available(daemon: str, tmp_path: Path) -> None:
    assert is_available(daemon)
    assert not is_available(str(tmp_path / "nowhere"))
