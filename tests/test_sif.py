"""The first bytes of images."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from demos_hpc.errors import InvalidInput
from demos_hpc.sif import read_sif

HEAD = b"#!/usr/bin/env run-singularity\n\0" + b"SIF_MAGIC\0" + b"01\0"


@pytest.mark.parametrize(("number", "name"), [(b"02", "amd64"), (b"04", "arm64"), (b"99", "unknown (99)")])
def test_an_image(tmp_path: Path, number: bytes, name: str) -> None:
    content = HEAD + number + b"\0" + b"rest"
    (tmp_path / "x.sif").write_bytes(content)
    file = read_sif(tmp_path / "x.sif")
    assert (file.architecture, file.size) == (name, len(content))
    assert file.digest == f"sha256:{sha256(content).hexdigest()}"


def test_no_image(tmp_path: Path) -> None:
    (tmp_path / "x.sif").write_bytes(b"no image")
    with pytest.raises(InvalidInput, match="SIF_MAGIC"):
        read_sif(tmp_path / "x.sif")
    with pytest.raises(InvalidInput, match="No such file"):
        read_sif(tmp_path / "y.sif")
