"""Certificates that a server makes itself, and handshakes by them."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from demos_hpc.certificates import (
    LIFETIME,
    RENEWAL,
    Certificate,
    check_fingerprint,
    client_context,
    find_fingerprint,
    make_certificate,
    read_certificate,
    server_context,
)
from demos_hpc.errors import InvalidInput
from demos_hpc.identity import Key, check, prove

x509 = pytest.importorskip("cryptography.x509")

#: Seconds that a handshake may take.
DEADLINE = 20.0
SECOND = timedelta(seconds=1)


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return make_certificate(tmp_path / "tls")


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[bytes | None, str | None, bytes]:
    """The certificate that the client is shown, the version, and what the server hears of the client."""
    ends = socket.socketpair()
    for end in ends:
        end.settimeout(DEADLINE)
    heard: list[bytes] = []

    def serve() -> None:
        with ends[0], server.wrap_socket(ends[0], server_side=True) as stream:
            heard.append(stream.recv(100))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with ends[1], client.wrap_socket(ends[1]) as stream:
            shown, version = stream.getpeercert(binary_form=True), stream.version()
            stream.sendall(b"hello")
    finally:
        thread.join()
    return shown, version, heard[0]


# ---- making them --------------------------------------------------------------------------------------------


def test_a_certificate_is_private_and_valid_for_a_year(certificate: Certificate) -> None:
    assert stat.S_IMODE(certificate.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(certificate.path.parent.stat().st_mode) == 0o700
    made = x509.load_pem_x509_certificate(certificate.path.read_bytes())
    left = made.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=364) < left <= LIFETIME
    assert made.not_valid_before_utc < datetime.now(UTC)
    assert made.public_key().curve.name == "secp256r1"
    assert certificate.fingerprint == find_fingerprint(ssl.PEM_cert_to_DER_cert(pem_of(certificate)))
    assert len(bytes.fromhex(certificate.fingerprint)) == 32


def pem_of(certificate: Certificate) -> str:
    text = certificate.path.read_text(encoding="ascii")
    return text[text.index(ssl.PEM_HEADER) :]


def test_no_key_is_shown(certificate: Certificate) -> None:
    assert "PRIVATE KEY" in certificate.path.read_text(encoding="ascii")
    assert "PRIVATE" not in repr(certificate)


def test_a_certificate_is_used_again(certificate: Certificate) -> None:
    assert make_certificate(certificate.path.parent) == certificate
    assert read_certificate(certificate.path) == certificate
    assert len(os.listdir(certificate.path.parent)) == 1


def test_a_certificate_is_renewed_in_time(tmp_path: Path) -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    first = make_certificate(tmp_path, now)
    assert make_certificate(tmp_path, now + LIFETIME - RENEWAL) == first
    second = make_certificate(tmp_path, now + LIFETIME - RENEWAL + SECOND)
    assert second.fingerprint != first.fingerprint
    assert first.path.exists()  # a server may still be about to read it
    third = make_certificate(tmp_path, now + LIFETIME + 400 * RENEWAL)
    assert {path.name for path in tmp_path.iterdir()} == {third.path.name}


def test_servers_that_make_one_at_once_have_each_a_pair_that_fits(tmp_path: Path) -> None:
    start = threading.Barrier(4)

    def make() -> Certificate:
        start.wait(DEADLINE)
        return make_certificate(tmp_path)

    with ThreadPoolExecutor(4) as pool:
        made = [future.result() for future in [pool.submit(make) for _ in range(4)]]
    for certificate in made:
        assert read_certificate(certificate.path) == certificate
        shown, _, _ = shake_hands(server_context(certificate.path), client_context())
        assert check_fingerprint(shown, certificate.fingerprint)


def test_without_cryptography_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(InvalidInput, match="pip install cryptography"):
        make_certificate(tmp_path)


def test_files_that_are_no_certificate(tmp_path: Path, certificate: Certificate) -> None:
    path = tmp_path / "certificate-broken.pem"
    path.touch(0o600)
    for text, why in [
        ("", "has no -----BEGIN CERTIFICATE-----"),
        (ssl.PEM_FOOTER + ssl.PEM_HEADER, "has no -----BEGIN CERTIFICATE-----"),
        (f"{ssl.PEM_HEADER}\n!\n{ssl.PEM_FOOTER}\n", "is no PEM file|cannot be understood"),
        (f"{ssl.PEM_HEADER}\nAAAA\n{ssl.PEM_FOOTER}\n", "cannot be understood; delete it"),
    ]:
        path.write_text(text, encoding="ascii")
        with pytest.raises(InvalidInput, match=why):
            make_certificate(tmp_path)
    path.write_text(pem_of(certificate), encoding="ascii")
    with pytest.raises(InvalidInput, match="and its key cannot be used"):
        server_context(path)


def test_a_key_with_a_password_asks_nobody(tmp_path: Path, certificate: Certificate) -> None:
    from cryptography.hazmat.primitives import serialization as s

    key = s.load_pem_private_key(certificate.path.read_bytes(), None)
    sealed = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(b"password"))
    path = tmp_path / "sealed.pem"
    path.touch(0o600)
    path.write_bytes(sealed + pem_of(certificate).encode())
    with pytest.raises(InvalidInput, match="the key without a password"):
        server_context(path)


def test_a_key_that_others_can_read_is_not_used(certificate: Certificate) -> None:
    certificate.path.chmod(0o644)
    for use in (server_context, read_certificate):
        with pytest.raises(InvalidInput, match=r"has mode 0644, open to others: chmod 600"):
            use(certificate.path)
    with pytest.raises(InvalidInput, match="has mode 0644"):
        make_certificate(certificate.path.parent)


# ---- handshakes ---------------------------------------------------------------------------------------------


def test_a_handshake_by_tls_1_3(certificate: Certificate) -> None:
    shown, version, heard = shake_hands(server_context(certificate.path), client_context())
    assert version == "TLSv1.3"
    assert heard == b"hello"
    assert check_fingerprint(shown, certificate.fingerprint)
    assert check_fingerprint(shown, certificate.fingerprint.upper())


def test_older_versions_are_refused(certificate: Certificate) -> None:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        client.wrap_bio(incoming, outgoing).do_handshake()
    server = server_context(certificate.path).wrap_bio(outgoing, ssl.MemoryBIO(), server_side=True)
    with pytest.raises(ssl.SSLError, match=r"(?i)unsupported.protocol"):
        server.do_handshake()


def test_a_strangers_certificate_is_found_out(certificate: Certificate, tmp_path: Path) -> None:
    stranger = make_certificate(tmp_path / "stranger")
    shown, _, _ = shake_hands(server_context(stranger.path), client_context())
    assert check_fingerprint(shown, stranger.fingerprint)
    assert not check_fingerprint(shown, certificate.fingerprint)


def test_a_stranger_in_between_cannot_pass_on_a_proof(certificate: Certificate, tmp_path: Path) -> None:
    """Even where the client does not know which certificate to expect."""
    stranger = make_certificate(tmp_path / "stranger")
    shown, _, _ = shake_hands(server_context(stranger.path), client_context())
    assert shown is not None
    key = Key("alice", bytes(range(32)))
    proof = prove(key, "peer", b"hello", "a", "b", find_fingerprint(shown))
    assert not check(key, proof, "peer", b"hello", "a", "b", certificate.fingerprint)


@pytest.mark.parametrize("expected", ["", "0" * 64, "é" * 64, "\ud800"])
def test_what_is_no_fingerprint_fits_nothing(expected: str) -> None:
    assert not check_fingerprint(b"der", expected)
    assert not check_fingerprint(None, expected)
    assert not check_fingerprint(None, find_fingerprint(b""))
