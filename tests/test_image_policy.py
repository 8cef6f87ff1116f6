"""Whose images may run: flaws, rules of a site, and what nobody may allow."""

from __future__ import annotations

from pathlib import Path

import pytest

from demos_hpc.errors import AccessRefused, InvalidInput
from demos_hpc.image_policy import (
    RUN,
    SUBMIT,
    USES,
    Flaw,
    Policy,
    Signature,
    find_flaws,
    judge,
    make_policy,
    read_policy,
)

OURS, THEIRS = "a" * 40, "b" * 40
GOOD = Signature(OURS, "A")


def flaws_of(*signatures: Signature, architecture: str = "amd64") -> list[Flaw]:
    return find_flaws(signatures, [OURS], architecture, "amd64")


def test_one_good_signature_of_a_trusted_key_is_enough() -> None:
    assert flaws_of(GOOD) == []
    assert flaws_of(Signature(THEIRS), GOOD) == []


@pytest.mark.parametrize(
    ("signatures", "flaw"),
    [
        ((), Flaw.UNSIGNED),
        ((Signature(THEIRS),), Flaw.UNTRUSTED),
        ((Signature("", is_known=False),), Flaw.UNTRUSTED),
        ((Signature(OURS, is_good=False),), Flaw.UNTRUSTED),
        ((Signature(OURS, is_expired=True),), Flaw.EXPIRED),
        ((Signature(OURS, covers_data=False),), Flaw.ALTERED),
        ((GOOD, Signature(THEIRS, covers_data=False)), Flaw.ALTERED),
    ],
)
def test_flaws(signatures: tuple[Signature, ...], flaw: Flaw) -> None:
    assert flaws_of(*signatures) == [flaw]
    assert flaws_of(*signatures, architecture="arm64") == [Flaw.ARCHITECTURE, flaw]


@pytest.mark.parametrize("flaw", list(Flaw))
def test_nothing_runs_in_a_job_unless_the_site_says_so(flaw: Flaw) -> None:
    judgment = judge("x.sif", [flaw], Policy(), SUBMIT)
    with pytest.raises(AccessRefused, match=r"image x\.sif is .*: "):
        judgment.enforce()


def test_by_hand_one_is_told() -> None:
    judgment = judge("x.sif", [Flaw.UNSIGNED], Policy(), RUN)
    judgment.enforce()
    assert judgment.warnings == ("image x.sif is unsigned: sign it by `demos-hpc image sign`",)


@pytest.mark.parametrize("flaw", [Flaw.ALTERED, Flaw.ARCHITECTURE])
@pytest.mark.parametrize("use", USES)
def test_what_never_runs(flaw: Flaw, use: str) -> None:
    assert judge("x.sif", [flaw], Policy(), use).refusals
    with pytest.raises(InvalidInput, match="never runs"):
        make_policy({use: {str(flaw): "allow"}})


def test_a_site_decides() -> None:
    policy = make_policy({"trusted": [OURS.upper()], "run": {"unsigned": "refuse"}, "submit": {"unsigned": "allow"}})
    assert policy.trusted == (OURS,)
    assert judge("x", [Flaw.UNSIGNED], policy, RUN).refusals
    assert judge("x", [Flaw.UNSIGNED], policy, SUBMIT) == judge("x", [], policy, SUBMIT)
    assert judge("x", [Flaw.EXPIRED], policy, SUBMIT).refusals  # what is not said stays as it was


@pytest.mark.parametrize(
    "said",
    [
        {"trust": [OURS]},
        {"trusted": OURS},
        {"trusted": ["0xdeadbeef"]},
        {"keyring": 1},
        {"run": "warn"},
        {"run": {"unsigned": "no"}},
        {"run": {"old": "warn"}},
    ],
)
def test_a_policy_that_nobody_understands_is_refused(said: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match=r"site\.toml"):
        make_policy(said, "site.toml")


def test_a_policy_is_not_left_out_in_silence(tmp_path: Path) -> None:
    assert read_policy("") == Policy()
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_policy(str(tmp_path / "none.toml"))
    (tmp_path / "bad.toml").write_text("trusted = ", encoding="utf-8")
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_policy(str(tmp_path / "bad.toml"))
