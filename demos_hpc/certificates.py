"""Certificates that a server signs for itself, and TLS by them.

No authority is asked. The server's endpoint in the registry has the certificate's fingerprint, and a client compares
it with that of the certificate that it was shown. Both sides also sign the fingerprint as they see it
(`identity.digest_session`), so that a stranger in between is found out by whoever does not know what to expect.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from .errors import InvalidInput
from .identity import read_private_file, write_private_file

LIFETIME = timedelta(days=365)
#: A certificate with less than this left is not used for a new server.
RENEWAL = timedelta(days=30)
#: How far the clocks of two hosts may be apart.
SKEW = timedelta(days=1)


@dataclass(frozen=True)
class Certificate:
    """A PEM file with key and certificate, and the SHA-256 of the certificate (DER), 64 hexadecimal digits."""

    path: Path
    fingerprint: str


def find_fingerprint(der: bytes) -> str:
    """The SHA-256 of a certificate, 64 hexadecimal digits."""
    return hashlib.sha256(der).hexdigest()


def check_fingerprint(der: bytes | None, expected: str) -> bool:
    """Whether a certificate, or None, as `ssl.SSLSocket.getpeercert` gives it, has this fingerprint."""
    wanted = expected.lower().encode(errors="surrogatepass")
    return der is not None and hmac.compare_digest(find_fingerprint(der).encode(), wanted)


def read_certificate(path: str | Path) -> Certificate:
    """The certificate of a PEM file, the first where there is a chain; `InvalidInput` where there is none."""
    return Certificate(Path(path), find_fingerprint(_read_der(path)))


def _read_der(path: str | Path) -> bytes:
    text = read_private_file(path, "certificate").decode("ascii", "replace")
    begin, end = text.find(ssl.PEM_HEADER), text.find(ssl.PEM_FOOTER)
    if not 0 <= begin < end:
        raise InvalidInput(f"certificate {path} has no {ssl.PEM_HEADER}: it is a PEM file with key and certificate")
    try:
        return ssl.PEM_cert_to_DER_cert(text[begin : end + len(ssl.PEM_FOOTER)])
    except ValueError:
        raise InvalidInput(f"certificate {path} is no PEM file") from None


def make_certificate(directory: str | Path, now: datetime | None = None) -> Certificate:
    """A certificate from ``directory`` that is valid for at least `RENEWAL`; made where there is none.

    Each has a file of its own, named by its fingerprint, so a path and a fingerprint that belong together stay so
    while other servers do the same.

    Raises
    ------
    InvalidInput
        Where the package cryptography is missing, or the directory cannot be written.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    except ImportError as error:
        raise InvalidInput(
            f"TLS takes the package cryptography, which cannot be imported ({error}): pip install cryptography"
        ) from None

    directory = Path(directory)
    now = now or datetime.now(UTC)
    expired = []
    for path in sorted(directory.glob("certificate-*.pem")):
        der = _read_der(path)
        try:
            left = x509.load_der_x509_certificate(der).not_valid_after_utc - now
        except ValueError:
            raise InvalidInput(f"certificate {path} cannot be understood; delete it, and a new one is made") from None
        if left >= RENEWAL:
            return Certificate(path, find_fingerprint(der))
        if left < timedelta():
            expired.append(path)

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "demos-hpc")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + made.public_bytes(serialization.Encoding.PEM)
    fingerprint = find_fingerprint(made.public_bytes(serialization.Encoding.DER))
    path = directory / f"certificate-{fingerprint[:16]}.pem"
    write_private_file(path, pem)
    for old in expired:
        old.unlink(missing_ok=True)
    return Certificate(path, fingerprint)


def server_context(path: str | Path) -> ssl.SSLContext:
    """TLS for a server: version 1.3, with key and certificate of a PEM file that is private."""
    read_certificate(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # Nobody resumes a session: tickets would only be bytes that a client which merely sends never reads.
    context.num_tickets = 0
    try:
        context.load_cert_chain(os.fspath(path), password=_refuse_password)
    except (OSError, ssl.SSLError):
        raise InvalidInput(
            f"certificate {path} and its key cannot be used: they are one PEM file, the key without a password"
        ) from None
    return context


def client_context() -> ssl.SSLContext:
    """TLS for a client: version 1.3. It trusts everybody: whoever uses it compares the fingerprint."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _refuse_password() -> str:
    """Instead of OpenSSL's, which would ask at the terminal."""
    return ""
