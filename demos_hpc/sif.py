"""What a SIF file, an Apptainer image, says of itself in its first bytes."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from pathlib import Path

from .errors import InvalidInput

#: Where things are in the header, and for which processors its numbers stand (sylabs/sif, pkg/sif/sif.go and arch.go).
MAGIC_AT, MAGIC = 32, b"SIF_MAGIC\0"
ARCHITECTURE_AT, HEADER_BYTES = 45, 48
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


def read_sif(path: Path) -> SifFile:
    """Reads the header, and the file for its digest.

    Raises
    ------
    InvalidInput
        Where it is no SIF file, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEADER_BYTES)
            if head[MAGIC_AT : MAGIC_AT + len(MAGIC)] != MAGIC:
                raise InvalidInput(f"{path} is no image: a SIF file has SIF_MAGIC at byte {MAGIC_AT}")
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except OSError as error:
        raise InvalidInput(f"image {path} cannot be read: {error.strerror}") from None
    number = head[ARCHITECTURE_AT:HEADER_BYTES].rstrip(b"\0").decode("ascii", "replace")
    return SifFile(str(path.resolve()), f"sha256:{digest}", size, ARCHITECTURES.get(number, f"unknown ({number})"))


def find_architecture() -> str:
    """Of this machine, in the words of images."""
    machine = platform.machine()
    return MACHINES.get(machine, machine)
