"""What a SIF file, an Apptainer image, says of itself in its first bytes."""

from __future__ import annotations

import hashlib
import platform
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .errors import InvalidInput

#: Where things are, and for which processors its numbers stand (sylabs/sif, pkg/sif/sif.go and arch.go).
MAGIC_AT, MAGIC = 32, b"SIF_MAGIC\0"
ARCHITECTURE_AT, SIZES_AT, HEADER_BYTES = 45, 88, 128
#: At `SIZES_AT`: number of descriptors, their offset and size, offset and size of the data.
SIZES = struct.Struct("<5q")
#: Of a descriptor: type, whether it is used; and, for a partition, its file system and what it is for.
DESCRIPTOR, DESCRIPTOR_BYTES, PARTITION, PARTITION_AT = struct.Struct("<i?"), 585, struct.Struct("<ii"), 201
PARTITION_TYPE, SYSTEM = 0x4004, 2
#: File systems that take a key: by dm-crypt, which needs root, and by gocryptfs.
ENCRYPTED = (4, 6)
#: More than any image has.
MOST_DESCRIPTORS = 10_000
ARCHITECTURES = {
    "01": "386", "02": "amd64", "03": "arm", "04": "arm64", "05": "ppc64", "06": "ppc64le", "07": "mips",
    "08": "mipsle", "09": "mips64", "10": "mips64le", "11": "s390x", "12": "riscv64",
}  # fmt: skip
#: The same in the words of the kernel.
MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm"}


@dataclass(frozen=True)
class SifFile:
    """An image on disk: ``digest`` is ``sha256:`` and 64 hexadecimal digits of the whole file."""

    path: str
    digest: str
    size: int
    architecture: str
    is_encrypted: bool = False


def read_sif(path: Path) -> SifFile:
    """Reads the header, and the file for its digest.

    Raises
    ------
    InvalidInput
        Where it is no SIF file, is cut off, has no system to run, or cannot be read.
    """
    if re.match(r"[a-z-]+:/", str(path)) and not path.exists():
        raise InvalidInput(
            f"{str(path).replace(':/', '://', 1)} is an address; an image is a file, which can be signed: fetch it by"
            " `apptainer pull FILE.sif ADDRESS`, or build on it by `demos-hpc image build … --from ADDRESS`"
        )
    if path.exists() and not path.is_file():  # a pipe would be waited for, for ever
        raise InvalidInput(f"{path} is no image: it is no file, and a SIF file is one")
    try:
        with path.open("rb") as file:
            if not is_sif(path):
                raise InvalidInput(f"{path} is no image: a SIF file has SIF_MAGIC at byte {MAGIC_AT}")
            head = file.read(HEADER_BYTES)
            is_encrypted = _read_partition(path, file, head)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except OSError as error:
        raise InvalidInput(f"image {path} cannot be read: {error.strerror}") from None
    number = head[ARCHITECTURE_AT : ARCHITECTURE_AT + 3].rstrip(b"\0").decode("ascii", "replace")
    architecture = ARCHITECTURES.get(number, f"unknown ({number})")
    return SifFile(str(path.resolve()), f"sha256:{digest}", size, architecture, is_encrypted)


def is_sif(path: Path) -> bool:
    """Whether a file begins as an image does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(HEADER_BYTES)[MAGIC_AT : MAGIC_AT + len(MAGIC)] == MAGIC


def _read_partition(path: Path, file: BinaryIO, head: bytes) -> bool:
    """Whether the system in it is encrypted; `InvalidInput` where there is none, or not all of it."""
    again = "get it again from where it came, or build it anew"
    size = file.seek(0, 2)
    if len(head) < HEADER_BYTES:
        raise InvalidInput(f"image {path} is cut off after {size} bytes: {again}")
    count, at, _, data_at, data = SIZES.unpack_from(head, SIZES_AT)
    if data_at + data > size:
        raise InvalidInput(f"image {path} is cut off after {size} of {data_at + data} bytes: {again}")
    file.seek(min(max(at, 0), size))
    descriptors = file.read(DESCRIPTOR_BYTES * max(0, min(count, MOST_DESCRIPTORS)))
    for start in range(0, len(descriptors) - DESCRIPTOR_BYTES + 1, DESCRIPTOR_BYTES):
        if DESCRIPTOR.unpack_from(descriptors, start) == (PARTITION_TYPE, True):
            kind, purpose = PARTITION.unpack_from(descriptors, start + PARTITION_AT)
            if purpose == SYSTEM:
                return kind in ENCRYPTED
    raise InvalidInput(f"image {path} has no file system with a system to run: {again}")


def find_architecture() -> str:
    """Of this machine, in the words of images."""
    machine = platform.machine()
    return MACHINES.get(machine, machine)
