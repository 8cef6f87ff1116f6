"""What Apptainer says, read; images for real are in test_images.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from demos_hpc import containers
from demos_hpc.errors import InvalidInput, LaunchError
from demos_hpc.image_policy import Signature

KEY = "311F1AB6FD72AE7886A2E50A6A7E4E8C4536388F"


def say(*checks: bool, signatures: int = 1) -> str:
    """As `apptainer verify --json`, a part of the image for each check of its data."""
    signer = {"Name": "A <a@b>", "Fingerprint": KEY, "KeyLocal": True, "KeyCheck": True}
    keys = [{"Signer": {**signer, "Partition": "FS", "DataCheck": check}} for check in checks]
    return json.dumps({"Signatures": signatures, "SignerKeys": keys or None}) + "\nINFO:    Verifying image\n"


def test_signatures() -> None:
    assert containers.read_verification(say(True, True), is_good=True) == (Signature(KEY.lower(), "A <a@b>"),)
    assert containers.read_verification(say(signatures=0) + "signature not found", is_good=False) == ()


@pytest.mark.parametrize(
    ("text", "known", "expired", "covers"),
    [
        (say(True, False) + "data object integrity compromised: 3", True, False, False),
        (say(True, True) + "signature not found for object group 2", True, False, False),
        (say() + "object 5: object not signed", False, False, False),
        (say() + "openpgp: signature made by unknown entity", False, False, True),
        (say(True) + "openpgp: key expired", True, True, True),
        (say(True, False) + "key expired", True, True, False),
    ],
)
def test_bad_signatures(text: str, known: bool, expired: bool, covers: bool) -> None:
    (found,) = containers.read_verification(text, is_good=False)
    assert (found.is_known, found.is_expired, found.covers_data) == (known, expired, covers)
    assert not found.is_good


@pytest.mark.parametrize("words", ["integrity: unexpected EOF", "incompatible SIF version", "reading descriptors: EOF"])
def test_a_damaged_image_is_not_called_unsigned(words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        containers.read_verification(
            f"{say(signatures=0)}FATAL:   Failed to verify container: {words}\n", is_good=False
        )


def test_versions() -> None:
    for said in ("apptainer version 1.4.5", "apptainer version 1.2.0-1.el9", "singularity-ce version 4.1.0", "?"):
        containers.check_version(said)
    for said in ("apptainer version 1.0.0", "singularity-ce version 3.11.4", "singularity version 3.8.7"):
        with pytest.raises(LaunchError, match=rf"{said} is too old to build: apptainer 1\.2 or later"):
            containers.check_version(said + "\n")


def test_where_images_are_built(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.txt").write_text("notes", encoding="utf-8")
    containers.check_output(tmp_path / "x.sif", overwrite=False)
    with pytest.raises(InvalidInput, match="no directory"):
        containers.check_output(tmp_path / "none" / "x.sif", overwrite=False)
    for name in ("folder", "notes.txt"):
        with pytest.raises(InvalidInput, match="exists already"):
            containers.check_output(tmp_path / name, overwrite=False)
        with pytest.raises(InvalidInput, match="is no image, and not overwritten"):
            containers.check_output(tmp_path / name, overwrite=True)


def test_what_nobody_understands() -> None:
    with pytest.raises(LaunchError, match="FATAL: no"):
        containers.read_verification("FATAL: no", is_good=False)


def test_no_apptainer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match="no apptainer on the PATH"):
        containers.find_program()


def test_privileges() -> None:
    assert not containers.needs_userns("Uid:\t1001\t1001\t1001\t1001\nCapPrm:\t0000000000000000\n")
    assert not containers.needs_userns("Uid:\t0\t0\t0\t0\nCapPrm:\tffffffffffffffff\n")
    assert containers.needs_userns("Uid:\t0\t0\t0\t0\nCapPrm:\t0000000000000001\n")


def test_scanners(tmp_path: Path) -> None:
    bill = tmp_path / "bill.json"
    assert containers.make_scan("/usr/bin/trivy", bill, "high")[-2:] == ["HIGH,CRITICAL", str(bill)]
    assert containers.make_scan("/opt/grype", bill, "low")[-1] == "low"
    with pytest.raises(InvalidInput, match="low, medium, high, critical"):
        containers.scan(tmp_path / "x.sif", "grave")
    with pytest.raises(LaunchError, match="no scanner"):
        containers.scan(tmp_path / "x.sif", "high", path=str(tmp_path))
