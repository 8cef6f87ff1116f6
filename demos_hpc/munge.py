"""Who somebody is, as MUNGE says, which Slurm sites have: a daemon on every node vouches for a process's user.

A credential is text that the daemon of one node makes and that of another understands. It says who made it and when,
carries a payload, is understood once on each node, and expires. The payload is `identity.digest_session`, so that a
credential is worth nothing in another session or at another server.

The programs ``munge`` and ``unmunge`` are used, which every site has; the library's headers are often missing.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from dataclasses import dataclass

from .errors import DemosError

#: Seconds that the daemon may take.
PATIENCE = 5.0
#: Characters; a payload of 32 bytes makes about 170.
LONGEST_CREDENTIAL = 4096

#: Exit statuses of both programs that mean that the daemon does not answer (munge.h: EMUNGE_SOCKET, EMUNGE_TIMEOUT).
_NO_ANSWER = (6, 7)
#: Exit statuses of unmunge (munge.h) that a reader may want to tell apart from a forgery.
_REASONS = {15: "has expired", 16: "comes from the future: are the clocks set?", 17: "was used before"}
_CREDENTIAL = re.compile(r"MUNGE:[A-Za-z0-9+/=]+:\s*")
#: ``UID: 1000``, or ``UID: ada (1000)``.
_FIELD = re.compile(rb"(UID|GID|LENGTH): +(?:.*\()?(\d+)\)?")


class MungeFailed(DemosError, RuntimeError):
    """A credential that is not good, or a MUNGE that does not answer."""


@dataclass(frozen=True)
class Credential:
    """Who made a credential, and what is in it."""

    user: str
    uid: int
    gid: int
    payload: bytes


def is_available(socket: str = "") -> bool:
    """Whether this host has MUNGE and its daemon answers."""
    try:
        return decode(encode(b"", socket), socket).uid == os.geteuid()
    except MungeFailed:
        return False


def encode(payload: bytes, socket: str = "") -> str:
    """A credential of this process's user.

    Parameters
    ----------
    payload
        Signed and encrypted with it.
    socket
        That of the daemon, where it is not the usual one.

    Raises
    ------
    MungeFailed
        Where MUNGE is not there or does not answer.
    """
    done = _run("munge", [], payload, socket)
    credential = done.stdout.decode("ascii", "replace").strip()
    if done.returncode or not _CREDENTIAL.fullmatch(credential):
        raise MungeFailed(f"munge ended with status {done.returncode}: {_describe(done)}")
    return credential


def decode(credential: str, socket: str = "") -> Credential:
    """Who made the credential, and its payload.

    Raises
    ------
    MungeFailed
        Where it is not good, was used before or has expired, where its user has no name on this host, and where MUNGE
        is not there or does not answer.
    """
    if len(credential) > LONGEST_CREDENTIAL or not _CREDENTIAL.fullmatch(credential):
        raise MungeFailed(f"{len(credential)} characters that are no MUNGE credential")
    # Without the other keys: the host's would ask the name service.
    done = _run("unmunge", ["--keys=UID,GID,LENGTH"], credential.encode(), socket)
    if done.returncode:
        raise MungeFailed(f"the MUNGE credential {_REASONS.get(done.returncode, 'is not good')}: {_describe(done)}")
    head, _, payload = done.stdout.partition(b"\n\n")
    fields = {match[1]: int(match[2]) for line in head.splitlines() if (match := _FIELD.fullmatch(line))}
    if fields.keys() != {b"UID", b"GID", b"LENGTH"} or fields[b"LENGTH"] != len(payload):
        raise MungeFailed("unmunge says something that is not understood; which version is it?")
    uid, gid = fields[b"UID"], fields[b"GID"]
    try:
        return Credential(pwd.getpwuid(uid).pw_name, uid, gid, payload)
    except (KeyError, OverflowError):
        raise MungeFailed(f"the MUNGE credential is that of user {uid}, who has no name on this host") from None


def _run(name: str, options: list[str], text: bytes, socket: str) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which(name)
    if program is None:
        raise MungeFailed(f"there is no {name} on the PATH: install MUNGE, or use a key file")
    command = [program, *options, *([f"--socket={socket}"] if socket else [])]
    try:
        # What is secret goes through pipes: a command line can be read by everybody on the host.
        done = subprocess.run(command, input=text, capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise MungeFailed(f"{program} has not answered within {PATIENCE:g} s: is munged well?") from None
    except OSError as error:
        raise MungeFailed(f"{program} cannot be run: {error.strerror}") from None
    if done.returncode in _NO_ANSWER:
        raise MungeFailed(f"munged does not answer: {_describe(done)}: start it, or use a key file")
    return done


def _describe(done: subprocess.CompletedProcess[bytes]) -> str:
    """The first line of what a program says of its failure."""
    return "".join(done.stderr.decode("ascii", "replace").splitlines()[:1])[:200] or "it does not say why"
