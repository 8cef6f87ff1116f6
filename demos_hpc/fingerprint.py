"""What the last bit of a result may depend on: NumPy, and the CPU features that it uses."""

from __future__ import annotations

import platform

import numpy as np


def describe_arithmetic() -> str:
    """Equal for processes whose NumPy gives the same bits: version, instruction sets, BLAS, machine.

    AVX-512 or its absence changes exp and log in the last digit, for example.
    """
    config = np.show_config(mode="dicts")
    assert isinstance(config, dict)
    found = config.get("SIMD Extensions", {}).get("found", [])
    blas = config.get("Build Dependencies", {}).get("blas", {})
    return f"numpy {np.__version__} {platform.machine()} {'+'.join(found)} {blas.get('name')} {blas.get('version')}"
