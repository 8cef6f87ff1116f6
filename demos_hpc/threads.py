"""How many threads numerical libraries start in a rank: one, since there are as many ranks as cores."""

from __future__ import annotations

from collections.abc import Mapping

#: Read by OpenMP (and by MKL and BLIS, which use it), and by OpenBLAS, when the library is loaded.
VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def limit_threads(environment: Mapping[str, str], threads: int = 1) -> dict[str, str]:
    """Those of the variables that ``environment`` does not set, with their values."""
    return {name: str(threads) for name in VARIABLES if name not in environment}
