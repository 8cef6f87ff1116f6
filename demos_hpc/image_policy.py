"""What a site lets images do: whose signatures count, and what happens with those that have none, or not a good one.

The site's file, which ``DEMOS_IMAGE_POLICY`` names, is TOML::

    trusted = ["311f1ab6fd72ae7886a2e50a6a7e4e8c4536388f"]    # fingerprints of keys
    keyring = "/etc/demos-hpc/keys"                           # where their public halves are, for apptainer

    [run]                  # demos-hpc image run
    unsigned = "warn"

    [submit]               # demos-hpc submit: nothing of the kind runs, unless it says so here
    expired = "warn"

Each is "refuse", "warn" or "allow". An altered image and one for another processor never run.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from .errors import AccessRefused, InvalidInput


class Flaw(StrEnum):
    """What may be wrong with an image."""

    UNSIGNED = "unsigned"
    ALTERED = "altered"
    EXPIRED = "expired"
    UNTRUSTED = "untrusted"
    ARCHITECTURE = "architecture"


RUN, SUBMIT = "run", "submit"
USES = (RUN, SUBMIT)
REFUSE, WARN, ALLOW = "refuse", "warn", "allow"
#: What happens where the site says nothing: whoever starts an image by hand is told, a job is not started.
DEFAULTS = {
    RUN: {Flaw.UNSIGNED: WARN, Flaw.EXPIRED: WARN, Flaw.UNTRUSTED: WARN},
    SUBMIT: {Flaw.UNSIGNED: REFUSE, Flaw.EXPIRED: REFUSE, Flaw.UNTRUSTED: REFUSE},
}
#: What no site may allow.
NEVER = (Flaw.ALTERED, Flaw.ARCHITECTURE)
REMEDIES = {
    Flaw.UNSIGNED: "sign it by `demos-hpc image sign`",
    Flaw.ALTERED: "it is not what was signed: get it again from where it came, or build it anew",
    Flaw.EXPIRED: "have it signed again with a key that is good today",
    Flaw.UNTRUSTED: "have it signed by somebody whom the site's policy (DEMOS_IMAGE_POLICY) trusts",
    Flaw.ARCHITECTURE: "build it on a machine of this kind",
}


@dataclass(frozen=True)
class Signature:
    """One signature of an image, as Apptainer found it: is the key known, is it good, are the data what was signed."""

    fingerprint: str
    signer: str = ""
    is_known: bool = True
    is_good: bool = True
    is_expired: bool = False
    covers_data: bool = True


@dataclass(frozen=True)
class Policy:
    """Keys that are trusted, by their fingerprints, and what a flaw leads to for each use."""

    trusted: tuple[str, ...] = ()
    keyring: str = ""
    rules: Mapping[str, Mapping[Flaw, str]] = field(default_factory=lambda: DEFAULTS)

    def decide(self, flaw: Flaw, use: str) -> str:
        return REFUSE if flaw in NEVER else self.rules[use][flaw]


@dataclass(frozen=True)
class Judgment:
    """Whether an image may be used, and why not; ``warnings`` are said in any case."""

    refusals: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def enforce(self) -> None:
        """`AccessRefused` where the image may not be used."""
        if self.refusals:
            raise AccessRefused("; ".join(self.refusals))


def read_policy(path: str) -> Policy:
    """The site's policy; what holds without one where path is "".

    Raises
    ------
    InvalidInput
        Where the file cannot be read, or says what nobody understands: a policy must not be left out in silence.
    """
    if not path:
        return Policy()
    try:
        said = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"DEMOS_IMAGE_POLICY names {path}, which cannot be read: {error}") from None
    return make_policy(said, path)


def make_policy(said: Mapping[str, Any], path: str = "the policy") -> Policy:
    """A policy of what TOML has."""
    unknown = sorted(set(said) - {"trusted", "keyring", *USES})
    if unknown:
        raise InvalidInput(
            f"{path}: unknown entries {', '.join(unknown)}; there are trusted, keyring, {', '.join(USES)}"
        )
    trusted, keyring = said.get("trusted", []), said.get("keyring", "")
    if not isinstance(trusted, list) or not all(_is_fingerprint(key) for key in trusted):
        raise InvalidInput(f"{path}: trusted is {trusted!r}; it is a list of fingerprints, 40 or 64 hexadecimal digits")
    if not isinstance(keyring, str):
        raise InvalidInput(f"{path}: keyring is {keyring!r}; it is the path of a directory")
    rules = {}
    for use in USES:
        chosen = said.get(use, {})
        if not isinstance(chosen, dict):
            raise InvalidInput(f"{path}: {use} is {chosen!r}; it is a table")
        for name, choice in chosen.items():
            if name in NEVER:
                raise InvalidInput(f"{path}: {use}.{name}: such an image never runs; leave it out")
            if name not in DEFAULTS[use] or choice not in (REFUSE, WARN, ALLOW):
                names = ", ".join(DEFAULTS[use])
                raise InvalidInput(f'{path}: {use}.{name} = {choice!r}; {names} are each "refuse", "warn" or "allow"')
        rules[use] = {**DEFAULTS[use], **{Flaw(name): str(choice) for name, choice in chosen.items()}}
    return Policy(tuple(key.lower().replace(" ", "") for key in trusted), keyring, rules)


def find_flaws(signatures: Sequence[Signature], trusted: Sequence[str], architecture: str, here: str) -> list[Flaw]:
    """What is wrong with an image: its signatures, the processor it is for, and the one here.

    One good signature of a trusted key is enough, but a signature that does not fit the data is never made good by
    another.
    """
    flaws = [] if architecture == here else [Flaw.ARCHITECTURE]
    if not signatures:
        return [*flaws, Flaw.UNSIGNED]
    if not all(s.covers_data for s in signatures):
        return [*flaws, Flaw.ALTERED]
    ours = [s for s in signatures if s.is_known and s.fingerprint.lower() in trusted]
    if any(s.is_good and not s.is_expired for s in ours):
        return flaws
    # Whose it was, and of what, Apptainer does not say then.
    return [*flaws, Flaw.EXPIRED if any(s.is_expired for s in signatures) else Flaw.UNTRUSTED]


def judge(image: str, flaws: Sequence[Flaw], policy: Policy, use: str) -> Judgment:
    """Whether an image with these flaws may be used so."""
    refusals, warnings = [], []
    for flaw in flaws:
        words = "for another processor" if flaw is Flaw.ARCHITECTURE else str(flaw)
        text = f"image {image} is {words}: {REMEDIES[flaw]}"
        decision = policy.decide(flaw, use)
        if decision == REFUSE:
            refusals.append(text)
        elif decision == WARN:
            warnings.append(text)
    return Judgment(tuple(refusals), tuple(warnings))


def _is_fingerprint(value: Any) -> bool:
    digits = value.replace(" ", "").lower() if isinstance(value, str) else ""
    return len(digits) in (40, 64) and not set(digits) - set("0123456789abcdef")
