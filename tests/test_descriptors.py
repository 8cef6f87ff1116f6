"""What the kernel does in part is done as a whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from demos_hpc.descriptors import read_all, sync_directory, write_all


def test_parts_become_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite, preadv = os.pwrite, os.preadv
    monkeypatch.setattr(os, "pwrite", lambda descriptor, view, at: pwrite(descriptor, view[:3], at))
    monkeypatch.setattr(os, "preadv", lambda descriptor, views, at: preadv(descriptor, [views[0][:3]], at))
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        write_all(descriptor, b"0123456789", 5)
        write_all(descriptor, memoryview(b""), 100)
        found = bytearray(7)
        assert read_all(descriptor, memoryview(found), 4) == 7
        assert found == b"\x000123" + b"45"
        assert read_all(descriptor, memoryview(found), 11) == 4, "where the file ends"
        assert found[:4] == b"6789"
        assert read_all(descriptor, memoryview(found), 50) == 0
    finally:
        os.close(descriptor)
    sync_directory(tmp_path)
