"""The first bytes of images."""

from __future__ import annotations

import os
import struct
from hashlib import sha256
from pathlib import Path

import pytest

from demos_hpc.errors import InvalidInput
from demos_hpc.sif import read_sif

START = b"#!/usr/bin/env run-singularity\n\0" + b"SIF_MAGIC\0" + b"01\0"
SQUASHFS, GOCRYPTFS, SYSTEM, OVERLAY = 1, 6, 2, 4
DESCRIPTORS_AT, DATA = 128, b"rest"


def make_image(number: bytes = b"02", file_system: int = SQUASHFS, purpose: int = SYSTEM) -> bytes:
    """An image with descriptors of a definition file, of a partition, and one that is not used."""
    first = struct.pack("<i?580x", 0x4001, True)
    second = struct.pack("<i?196xii376x", 0x4004, True, file_system, purpose)
    descriptors = first + second + struct.pack("<i?196xii376x", 0x4004, False, SQUASHFS, SYSTEM)
    data_at = DESCRIPTORS_AT + len(descriptors)
    sizes = struct.pack("<5q", 3, DESCRIPTORS_AT, len(descriptors), data_at, len(DATA))
    return (START + number + b"\0").ljust(88, b"\0") + sizes + descriptors + DATA


@pytest.mark.parametrize(("number", "name"), [(b"02", "amd64"), (b"04", "arm64"), (b"99", "unknown (99)")])
def test_an_image(tmp_path: Path, number: bytes, name: str) -> None:
    content = make_image(number)
    (tmp_path / "x.sif").write_bytes(content)
    file = read_sif(tmp_path / "x.sif")
    assert (file.architecture, file.size, file.is_encrypted) == (name, len(content), False)
    assert file.digest == f"sha256:{sha256(content).hexdigest()}"


def test_an_encrypted_image(tmp_path: Path) -> None:
    (tmp_path / "x.sif").write_bytes(make_image(file_system=GOCRYPTFS))
    assert read_sif(tmp_path / "x.sif").is_encrypted


def test_an_image_with_nothing_to_run(tmp_path: Path) -> None:
    (tmp_path / "x.sif").write_bytes(make_image(purpose=OVERLAY))
    with pytest.raises(InvalidInput, match=r"x\.sif has no file system with a system to run: get it again"):
        read_sif(tmp_path / "x.sif")


@pytest.mark.parametrize("size", [len(make_image()) - 1, 200, 100, 48])
def test_an_image_that_is_cut_off(tmp_path: Path, size: int) -> None:
    (tmp_path / "x.sif").write_bytes(make_image()[:size])
    with pytest.raises(InvalidInput, match=rf"x\.sif is cut off after {size} .*bytes: get it again"):
        read_sif(tmp_path / "x.sif")


def test_a_head_of_which_a_byte_is_wrong(tmp_path: Path) -> None:
    """It is read, or refused; nothing else happens."""
    path, refused = tmp_path / "x.sif", 0
    for at in range(48, DESCRIPTORS_AT):
        for byte in (1, 127, 255):
            content = bytearray(make_image())
            content[at] = byte
            path.write_bytes(content)
            try:
                assert read_sif(path).size == len(content)
            except InvalidInput:
                refused += 1
    assert refused


def test_no_image(tmp_path: Path) -> None:
    (tmp_path / "x.sif").write_bytes(b"no image")
    with pytest.raises(InvalidInput, match="SIF_MAGIC"):
        read_sif(tmp_path / "x.sif")
    (tmp_path / "empty.sif").touch()
    with pytest.raises(InvalidInput, match="SIF_MAGIC"):
        read_sif(tmp_path / "empty.sif")
    with pytest.raises(InvalidInput, match="No such file"):
        read_sif(tmp_path / "y.sif")


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.sif")
    for path in (tmp_path, tmp_path / "pipe.sif", Path("/dev/zero")):
        with pytest.raises(InvalidInput, match="it is no file"):
            read_sif(path)


def test_an_address() -> None:
    with pytest.raises(InvalidInput, match=r"oras://registry\.example/x:1 is an address.*apptainer pull"):
        read_sif(Path("oras://registry.example/x:1"))
