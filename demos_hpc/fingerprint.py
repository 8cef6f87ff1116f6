"""What the last bit of a result may depend on: NumPy, and the CPU features that it uses."""

from __future__ import annotations

import os
import platform

import numpy as np

#: Environment variables by which a user chooses other routines for the same processor (OpenBLAS, NumPy, MKL).
CHOICES = ("OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES", "MKL_CBWR")


def describe_arithmetic() -> str:
    """Equal for processes whose NumPy gives the same bits: version, machine, instruction sets, BLAS, what was chosen.

    AVX-512 or its absence changes exp and log in the last digit, for example.
    """
    config = np.show_config(mode="dicts")
    assert isinstance(config, dict)
    found = config.get("SIMD Extensions", {}).get("found", [])
    blas = config.get("Build Dependencies", {}).get("blas", {})
    chosen = "".join(f" {name}={os.environ[name]}" for name in CHOICES if name in os.environ)
    numbers = f"numpy {np.__version__} {platform.machine()} {'+'.join(found)}"
    return f"{numbers} {blas.get('name')} {blas.get('version')}{chosen}"
