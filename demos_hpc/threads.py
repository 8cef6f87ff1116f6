"""How many threads a rank starts for its model: one, since there are as many ranks as cores."""

from __future__ import annotations

from collections.abc import Mapping

#: Read by OpenMP (and by MKL and BLIS, which use it), and by OpenBLAS, when the library is loaded.
VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
#: Read by `config`, for models in C; one where it is not set.
OWN = "DEMOS_THREADS"


def limit_threads(environment: Mapping[str, str], threads: int | None = None) -> dict[str, str]:
    """Those of the variables that ``environment`` does not set, with their values."""
    wanted = dict.fromkeys(VARIABLES, str(threads or 1)) | ({} if threads is None else {OWN: str(threads)})
    return {name: value for name, value in wanted.items() if name not in environment}
