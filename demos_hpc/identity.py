"""Who somebody is: key files, and a challenge and its response that cannot be replayed.

A key file is text, one key a line, ``ID SECRET``; the secret is 64 to 128 hexadecimal digits::

    # alice's own key: who has it is alice
    alice 8c5f…
    # a key of the whole group: who has it is whoever they say, so its holders trust one another
    *     01be…

Peer and server each choose a nonce and each sign both, with the peer's Hello and what binds the session to its
channel (HMAC-SHA256, RFC 2104). So both know that the other has the key, that it answers now, that nobody has altered
the Hello, and that the answer was meant for this very channel. The secret itself never travels.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import pwd
import re
import secrets
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from .errors import InvalidInput

Speaker = Literal["peer", "server"]

#: The key of a group.
ANYBODY = "*"
#: What is signed begins with it, so that a signature means nothing in another protocol or another version of this one.
LABEL = b"demos-hpc door 1"
SECRET_BYTES = 32
#: Longer secrets would be hashed first: then the time of a check would tell known keys from unknown ones.
LONGEST_SECRET_BYTES = 64
#: Of 32 random bytes about 30 differ; a placeholder's do not.
LEAST_DISTINCT_BYTES = 16
LARGEST_FILE = 1 << 20
#: Modes that are refused: the group may read, nobody else may do anything.
FORBIDDEN_MODE = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+\\-]{0,254}")
_SECRET = re.compile(rf"(?:[0-9A-Fa-f]{{2}}){{{SECRET_BYTES},{LONGEST_SECRET_BYTES}}}")
#: Signed with where there is no key, so that an unknown key costs the same time.
_NO_SECRET = bytes(SECRET_BYTES)


def find_user() -> str:
    """Whose process this is, and not whose it says that it is; a container may have no name for the number."""
    return find_name(os.geteuid())


def find_name(number: int) -> str:
    """Of a user, by the number."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


class Key:
    """A secret and whom it stands for: a user, or `ANYBODY` who has it. It never shows its secret."""

    __slots__ = ("id", "secret")

    def __init__(self, key_id: str, secret: bytes) -> None:
        if key_id != ANYBODY and not _NAME.fullmatch(key_id):
            raise InvalidInput("a key's ID is a user's name (letters, digits, _ . @ + - \\), or * for a group's key")
        if not SECRET_BYTES <= len(secret) <= LONGEST_SECRET_BYTES:
            raise InvalidInput(f"a key's secret has {SECRET_BYTES} to {LONGEST_SECRET_BYTES} bytes, not {len(secret)}")
        if len(set(secret)) < LEAST_DISTINCT_BYTES:
            raise InvalidInput("a key's secret is not random")
        self.id = key_id
        self.secret = secret

    def stands_for(self, user: str) -> bool:
        """Whether its holder may go by the name of ``user``."""
        return bool(_NAME.fullmatch(user)) and self.id in (user, ANYBODY)

    def __repr__(self) -> str:
        return f"Key({self.id!r}, secret=...)"


def choose_key(keys: Mapping[str, Key], user: str) -> Key | None:
    """The key with which ``user`` introduces themselves: their own, else the group's; None without either."""
    return keys.get(user) or keys.get(ANYBODY)


def find_key(keys: Mapping[str, Key], key_id: str, user: str) -> Key | None:
    """The key ``key_id`` of a server, if ``user`` may introduce themselves by it; None for `check` if not.

    A group's key does not speak for users who have a key of their own: give the server's own user one, and nobody
    else of the group can stop the server.
    """
    key = keys.get(key_id)
    if key is None or not key.stands_for(user) or (key.id == ANYBODY and user in keys):
        return None
    return key


def make_nonce() -> str:
    """32 random bytes as hexadecimal digits, to be used once."""
    return secrets.token_hex(32)


def digest_session(speaker: Speaker, hello: bytes, nonce_peer: str, nonce_server: str, binding: str) -> bytes:
    """What both sign, as 32 bytes; the payload of a MUNGE credential.

    Parameters
    ----------
    speaker
        Who signs: a signature of one side is none of the other's.
    hello
        The peer's Hello, byte for byte as it traveled.
    nonce_peer, nonce_server
        Of this session.
    binding
        What tells this channel from any other to the one at its ends: the fingerprint of the certificate that the
        server has, or that the peer was shown.
    """
    parts = (
        LABEL,
        speaker.encode(),
        # What a peer sends is whatever it likes, half a surrogate pair too.
        nonce_peer.encode(errors="surrogatepass"),
        nonce_server.encode(errors="surrogatepass"),
        hashlib.sha256(hello).digest(),
        binding.encode(errors="surrogatepass"),
    )
    digest = hashlib.sha256()
    for part in parts:  # each behind its length: no two lists of parts are the same bytes
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def prove(key: Key, speaker: Speaker, hello: bytes, nonce_peer: str, nonce_server: str, binding: str) -> str:
    """The proof that ``speaker`` has the key, 64 hexadecimal digits; parameters as for `digest_session`."""
    return _sign(key.secret, digest_session(speaker, hello, nonce_peer, nonce_server, binding))


def check(
    key: Key | None, proof: str, speaker: Speaker, hello: bytes, nonce_peer: str, nonce_server: str, binding: str
) -> bool:
    """Whether ``proof`` is that of ``speaker``. Without a key it never is, which takes as long to find out."""
    secret = _NO_SECRET if key is None else key.secret
    wanted = _sign(secret, digest_session(speaker, hello, nonce_peer, nonce_server, binding))
    is_right = hmac.compare_digest(proof.encode(errors="surrogatepass"), wanted.encode())
    return is_right and key is not None


def _sign(secret: bytes, digest: bytes) -> str:
    return hmac.new(secret, digest, hashlib.sha256).hexdigest()


def read_keys(path: str | Path) -> dict[str, Key]:
    """The keys of a file by their IDs.

    Raises
    ------
    InvalidInput
        Where the file is not there, is not private, or has a line that is no key. The line is named, never shown.
    """
    keys: dict[str, Key] = {}
    for number, line in enumerate(read_private_file(path, "key file").decode("ascii", "replace").splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or not _SECRET.fullmatch(words[1]):
            raise InvalidInput(
                f"key file {path}, line {number} is not `ID SECRET`, the secret being {2 * SECRET_BYTES} to"
                f" {2 * LONGEST_SECRET_BYTES} hexadecimal digits"
            )
        try:
            key = Key(words[0], bytes.fromhex(words[1]))
        except InvalidInput as error:
            raise InvalidInput(f"key file {path}, line {number}: {error}") from None
        if key.id in keys:
            raise InvalidInput(f"key file {path}, line {number}: a second key of the same ID; an ID has one")
        keys[key.id] = key
    if not keys:
        raise InvalidInput(f"key file {path} has no key; delete it, and a new one is made")
    return keys


def make_key_file(path: str | Path, key_id: str) -> dict[str, Key]:
    """Makes a file with one new key, unless there is a file already; gives the keys that are in it then.

    Processes that do so at once all get the same keys.
    """
    key = Key(key_id, secrets.token_bytes(SECRET_BYTES))
    if not os.path.exists(path):
        who = "whoever they say" if key_id == ANYBODY else key_id
        text = f"# demos-hpc: who has this key is {who}\n{key_id} {key.secret.hex()}\n"
        write_private_file(Path(path), text.encode())
    return read_keys(path)


def read_private_file(path: str | Path, what: str) -> bytes:
    """The content of a file that nobody else may write, and nobody but its group read; ``what`` it is, for errors.

    Raises
    ------
    InvalidInput
        Where it cannot be read, is too large, is open to others, or belongs to somebody else than us or root.
    """
    content, status = read_file(path, what)
    if status.st_uid not in (os.geteuid(), 0):
        raise InvalidInput(
            f"{what} {path} belongs to user {status.st_uid}, not to you (user {os.geteuid()}) or root: copy it"
        )
    if status.st_mode & FORBIDDEN_MODE:
        raise InvalidInput(
            f"{what} {path} has mode {stat.S_IMODE(status.st_mode):04o}, open to others:"
            f" chmod 600 {shlex.quote(str(path))}"
        )
    return content


def read_file(path: str | Path, what: str) -> tuple[bytes, os.stat_result]:
    """The content of a file, and the owner and mode of that very file, whatever its path comes to mean meanwhile.

    Raises
    ------
    InvalidInput
        Where it cannot be read, is no regular file, or has more than `LARGEST_FILE` bytes.
    """
    try:
        # Non-blocking, or a pipe of that name would hang us.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise InvalidInput(f"{what} {path} is not a file")
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(LARGEST_FILE + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InvalidInput(f"{what} {path} cannot be read: {error.strerror}") from None
    if len(content) > LARGEST_FILE:
        raise InvalidInput(f"{what} {path} is larger than {LARGEST_FILE} bytes")
    return content, status


def write_private_file(path: Path, content: bytes) -> bool:
    """Writes a new file of mode 0600, complete from the first moment on; False where there is one already.

    Its directory is made with mode 0700 where it is missing.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(draft, flags, 0o600), "wb") as file:
            try:
                os.fchmod(file.fileno(), 0o600)  # whatever the umask
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                return _link(draft, path)
            finally:
                os.unlink(draft)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be made: {error.strerror}") from None


def _link(draft: Path, path: Path) -> bool:
    try:
        os.link(draft, path)  # unlike a rename, it leaves alone what is there
    except FileExistsError:
        return False
    return True
