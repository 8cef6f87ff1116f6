"""Key files that are private, proofs that are worth nothing elsewhere, and secrets that show nowhere."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
import threading
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos_hpc import identity
from demos_hpc.errors import InvalidInput
from demos_hpc.identity import (
    Key,
    check,
    choose_key,
    digest_session,
    find_key,
    make_key_file,
    make_nonce,
    prove,
    read_keys,
    read_private_file,
    write_private_file,
)

SECRET = bytes(range(32))
OTHER = bytes(range(100, 132))
SESSION: dict[str, Any] = {"hello": b"hello", "nonce_peer": "aa", "nonce_server": "bb", "binding": "cc"}
texts = st.text(max_size=8) | st.text(st.characters(categories=["Cs", "Lu"]), max_size=4)


def write(directory: Path, text: str, mode: int = 0o600) -> Path:
    path = directory / "keys"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


# ---- keys ---------------------------------------------------------------------------------------------------


def test_a_key_never_shows_its_secret() -> None:
    key = Key("alice", SECRET)
    for shown in (repr(key), str(key), f"{key}", repr([key]), repr({"key": key})):
        assert SECRET.hex() not in shown
        assert repr(SECRET)[2:-1] not in shown
        assert "alice" in shown
    assert not hasattr(key, "__dict__")


@pytest.mark.parametrize(
    ("key_id", "user", "may"),
    [
        ("alice", "alice", True),
        ("alice", "bob", False),
        ("*", "bob", True),
        ("*", "*", False),
        ("*", "", False),
        ("*", "bob\nalice", False),
        ("*", "x" * 256, False),
        ("*", "\ud800", False),
        ("*", "DESY\\bob", True),
    ],
)
def test_whom_a_key_stands_for(key_id: str, user: str, may: bool) -> None:
    assert Key(key_id, SECRET).stands_for(user) is may


def test_ones_own_key_comes_before_the_groups() -> None:
    own, shared = Key("alice", SECRET), Key("*", OTHER)
    assert choose_key({"alice": own, "*": shared}, "alice") is own
    assert choose_key({"alice": own, "*": shared}, "bob") is shared
    assert choose_key({"alice": own}, "bob") is None


def test_a_groups_key_does_not_speak_for_those_who_have_one() -> None:
    own, shared = Key("alice", SECRET), Key("*", OTHER)
    keys = {"alice": own, "*": shared}
    assert find_key(keys, "alice", "alice") is own
    assert find_key(keys, "*", "bob") is shared
    assert find_key(keys, "*", "alice") is None
    assert find_key({"*": shared}, "*", "alice") is shared


@pytest.mark.parametrize(
    ("key_id", "user"), [("alice", "bob"), ("alice", "*"), ("bob", "bob"), ("", ""), ("*", "*"), ("*", "x\n")]
)
def test_nobody_goes_by_anothers_key(key_id: str, user: str) -> None:
    assert find_key({"alice": Key("alice", SECRET), "*": Key("*", OTHER)}, key_id, user) is None


@pytest.mark.parametrize("secret", [b"short", bytes(range(65)), bytes(32), b"0123456789" * 4])
def test_poor_secrets_are_refused(secret: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        Key("alice", secret)
    assert secret.hex() not in str(caught.value)


# ---- challenge and response ---------------------------------------------------------------------------------


def test_each_side_proves_that_it_has_the_key() -> None:
    key = Key("alice", SECRET)
    for speaker in ("peer", "server"):
        proof = prove(key, speaker, **SESSION)
        assert len(proof) == 64
        assert check(key, proof, speaker, **SESSION)


def test_the_proof_is_an_hmac_of_parts_with_lengths() -> None:
    parts = [b"demos-hpc door 1", b"peer", b"aa", b"bb", hashlib.sha256(b"hello").digest(), b"cc"]
    signed = b"".join(len(part).to_bytes(8, "little") + part for part in parts)
    expected = hmac.digest(SECRET, hashlib.sha256(signed).digest(), "sha256").hex()
    assert prove(Key("alice", SECRET), "peer", **SESSION) == expected
    assert expected == "7fff7ff234ef1c4b228e4154ba00aa2620dc65ac09c56b7ccdde0a8a007b0385"


@pytest.mark.parametrize(
    "change",
    [
        {"hello": b"Hello"},
        {"nonce_peer": "ab"},
        {"nonce_server": "ba"},  # a replay: the server has another nonce now
        {"binding": ""},  # a proof for another server's certificate
        {"nonce_peer": "aab", "nonce_server": "b"},
        {"nonce_peer": "bb", "nonce_server": "aa"},
    ],
)
def test_a_proof_is_worth_nothing_in_another_session(change: dict[str, Any]) -> None:
    key = Key("alice", SECRET)
    assert not check(key, prove(key, "peer", **SESSION), "peer", **(SESSION | change))


def test_a_proof_is_not_reflected() -> None:
    key = Key("alice", SECRET)
    assert not check(key, prove(key, "peer", **SESSION), "server", **SESSION)


def test_another_secret_proves_nothing() -> None:
    assert not check(Key("alice", OTHER), prove(Key("alice", SECRET), "peer", **SESSION), "peer", **SESSION)


def test_an_unknown_key_costs_the_same_work_and_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    sign = identity._sign

    def count(secret: bytes, digest: bytes) -> str:
        calls.append(len(secret))
        return sign(secret, digest)

    monkeypatch.setattr(identity, "_sign", count)
    for key in (Key("alice", SECRET), None):
        assert not check(key, "0" * 64, "peer", **SESSION)
    assert calls == [32, 32]
    # Nor does what was signed with the secret that stands in.
    assert not check(None, sign(bytes(32), digest_session("peer", **SESSION)), "peer", **SESSION)


@pytest.mark.parametrize("proof", ["", "0", "\ud800", "é" * 64, "0" * 100_000])
def test_whatever_is_no_proof_is_refused_without_an_error(proof: str) -> None:
    assert not check(Key("alice", SECRET), proof, "peer", **SESSION)


@settings(derandomize=True, database=None, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=8), texts, texts, texts), min_size=2, max_size=2, unique=True))
def test_no_two_sessions_have_the_same_digest(sessions: list[tuple[bytes, str, str, str]]) -> None:
    digests = {digest_session(speaker, *session) for session in sessions for speaker in ("peer", "server")}
    assert len(digests) == 4


def test_nonces_are_fresh() -> None:
    nonces = {make_nonce() for _ in range(100)}
    assert len(nonces) == 100
    assert {len(bytes.fromhex(nonce)) for nonce in nonces} == {32}


# ---- key files ----------------------------------------------------------------------------------------------


def test_a_key_file_has_keys_comments_and_empty_lines(tmp_path: Path) -> None:
    path = write(tmp_path, f"# ours\n\nalice {SECRET.hex()}  # hers\n\t* {OTHER.hex().upper()}\r\n")
    keys = read_keys(path)
    assert {key_id: key.secret for key_id, key in keys.items()} == {"alice": SECRET, "*": OTHER}
    assert keys["*"].id == "*"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o440, 0o400])
def test_modes_that_are_private(tmp_path: Path, mode: int) -> None:
    assert read_keys(write(tmp_path, f"alice {SECRET.hex()}\n", mode)).keys() == {"alice"}


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o604, 0o602, 0o620, 0o610, 0o601, 0o777])
def test_modes_that_are_open_to_others(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path, f"alice {SECRET.hex()}\n", mode)
    with pytest.raises(InvalidInput, match=rf"{path} has mode {mode:04o}, open to others: chmod 600 {path}") as caught:
        read_keys(path)
    assert SECRET.hex() not in str(caught.value)


def test_the_remedy_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    directory = tmp_path / "my keys; rm"
    directory.mkdir()
    with pytest.raises(InvalidInput, match=r"chmod 600 '.*my keys; rm/keys'"):
        read_keys(write(directory, f"alice {SECRET.hex()}\n", 0o644))


def test_a_file_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, f"alice {SECRET.hex()}\n")
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(InvalidInput, match=rf"{path} belongs to user \d+, not to you .* or root: copy it"):
        read_keys(path)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("alice", "is not `ID SECRET`"),
        ("alice {secret} {secret}", "is not `ID SECRET`"),
        ("{secret} alice", "is not `ID SECRET`"),  # the wrong way around
        ("alice {secret}x", "is not `ID SECRET`"),
        ("alice {secret}0", "is not `ID SECRET`"),
        ("alice 00{secret}{secret}", "is not `ID SECRET`"),
        ("alice={secret}", "is not `ID SECRET`"),
        ("alicé {secret}", "a key's ID is"),
        ("a/b {secret}", "a key's ID is"),
        ("alice " + "01" * 32, "is not random"),
        ("alice {secret}\nalice {secret}", "a second key"),
    ],
)
def test_what_is_no_key_is_named_by_its_line_and_never_shown(tmp_path: Path, line: str, why: str) -> None:
    path = write(tmp_path, "# first\n" + line.format(secret=SECRET.hex()) + "\n")
    with pytest.raises(InvalidInput, match=why) as caught:
        read_keys(path)
    shown = "".join(traceback.format_exception(caught.value))
    assert str(path) in shown
    assert "line 2" in shown or "line 3" in shown
    assert SECRET.hex()[:16] not in shown


@pytest.mark.parametrize("content", [b"", b"# nothing\n"])
def test_a_file_without_keys_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InvalidInput, match="has no key"):
        read_keys(write(tmp_path, content.decode()))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    path.write_bytes(b"\xff\xfe\x00 \x80\n")
    with pytest.raises(InvalidInput, match="line 1"):
        read_keys(path)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="nowhere cannot be read: No such file"):
        read_keys(tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match="is not a file"):
        read_keys(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(InvalidInput, match="is not a file"):
        read_keys(tmp_path / "pipe")


def test_a_huge_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    os.truncate(path, 1 << 40)
    with pytest.raises(InvalidInput, match="larger than 1048576 bytes"):
        read_private_file(path, "key file")


def test_it_is_the_open_file_that_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that comes to mean another file between open and check gains nothing."""
    path = write(tmp_path, f"alice {SECRET.hex()}\n", 0o644)
    good = tmp_path / "good"
    good.write_text(f"alice {OTHER.hex()}\n", encoding="utf-8")
    good.chmod(0o600)
    real_open = os.open

    def open_and_swap(*arguments: Any, **keywords: Any) -> int:
        descriptor = real_open(*arguments, **keywords)
        os.replace(good, path)
        return descriptor

    monkeypatch.setattr(os, "open", open_and_swap)
    with pytest.raises(InvalidInput, match="open to others"):
        read_keys(path)


# ---- making key files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0, 0o277])
def test_a_new_key_file_is_private(tmp_path: Path, mask: int) -> None:
    path = tmp_path / "keys"
    before = os.umask(mask)  # neither a narrow nor a wide one counts
    try:
        keys = make_key_file(path, "alice")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keys.keys() == {"alice"}
    assert len(keys["alice"].secret) == 32
    assert read_keys(path)["alice"].secret == keys["alice"].secret
    assert os.listdir(tmp_path) == ["keys"]


def test_a_missing_directory_is_made_and_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_key_file(tmp_path / "new" / "keys", "*")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert read_keys(tmp_path / "new" / "keys").keys() == {"*"}


def test_a_key_file_that_is_there_stays(tmp_path: Path) -> None:
    path = write(tmp_path, f"bob {SECRET.hex()}\n")
    assert make_key_file(path, "alice").keys() == {"bob"}
    assert os.listdir(tmp_path) == ["keys"]


def test_names_that_no_user_has_make_no_key_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="a key's ID is"):
        make_key_file(tmp_path / "keys", "al ice")
    assert os.listdir(tmp_path) == []


def test_all_who_make_a_key_file_at_once_have_the_same_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys"
    n = 8
    start = threading.Barrier(n)
    monkeypatch.setattr(os.path, "exists", lambda path: False)  # each finds that there is none
    secrets_seen: list[bytes] = []

    def make() -> None:
        start.wait()
        secrets_seen.append(make_key_file(path, "alice")["alice"].secret)

    threads = [threading.Thread(target=make) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(secrets_seen) == n
    assert len(set(secrets_seen)) == 1
    assert os.listdir(tmp_path) == ["keys"]


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (tmp_path / "keys").symlink_to(victim)
    with pytest.raises(InvalidInput, match="cannot be read"):
        make_key_file(tmp_path / "keys", "alice")
    assert not victim.exists()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="keys cannot be made"):
        make_key_file(tmp_path / "file" / "keys", "alice")


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InvalidInput, match="keys cannot be made: No space left on device"):
        write_private_file(tmp_path / "keys", b"content")
    assert os.listdir(tmp_path) == []
