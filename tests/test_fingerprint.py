"""What the last bit may depend on, in words."""

from __future__ import annotations

import numpy as np
import pytest

from demos_hpc.fingerprint import CHOICES, describe_arithmetic


def test_what_is_chosen_by_the_environment_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CHOICES:
        monkeypatch.delenv(name, raising=False)
    plain = describe_arithmetic()
    assert plain.startswith(f"numpy {np.__version__} ")
    for name in CHOICES:
        monkeypatch.setenv(name, "X")
        assert describe_arithmetic() == f"{plain} {name}=X"
        monkeypatch.delenv(name)
