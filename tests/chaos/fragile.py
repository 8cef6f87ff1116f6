"""What chaos serves: a model that computes honestly, and one that does the same until it is asked for trouble.

Both are called ``chaos``, so that what a server answers can be compared, bit for bit, with what is computed here.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np

from demos_hpc.spec import ModelSpec, Observable, Output, Parameter

#: Rows with this in their first column end the process that computes them.
CRASH = 666.0
#: Rows with this in their first column hang, in the first process that takes `HANGS` away.
HANG = 777.0
#: A file in the directory of the server: whoever removes it hangs.
HANGS = Path("hang")
#: Seconds of hanging: longer than any test.
FOR_EVER = 3600.0


class Steady:
    """Two independent normal columns with one mean and one width, and one output, their sum.

    ``nap`` is what each row (or point) costs a worker beyond that, seconds; the answer does not depend on it.
    """

    spec = ModelSpec(
        name="chaos",
        parameters=(
            Parameter("mu", default=0.5),
            Parameter("log_sigma", default=0.25),
            Parameter("nap", "s", default=0.0, lower=0.0),
        ),
        observables=(Observable("x"), Observable("y")),
        outputs=(Output("sum"),),
    )

    def log_density(self, x: Any, params: Any) -> Any:
        mu, log_sigma = params[..., :1], params[..., 1]
        z = (x - mu) * np.exp(-params[..., 1:2])
        return -0.5 * np.einsum("ij,ij->i", z, z) - 2 * (log_sigma + 0.5 * np.log(2 * np.pi))

    def sample(self, n: int, params: Any, rng: Any) -> Any:
        return params[0] + np.exp(params[1]) * rng.standard_normal((n, 2))

    def evaluate(self, params: Any) -> Any:
        return params[:, :1] + params[:, 1:2]


class Fragile(Steady):
    """The same, slowly, and with rows that crash or hang."""

    def log_density(self, x: Any, params: Any) -> Any:
        if (x[:, 0] == CRASH).any():
            ctypes.string_at(0)
        if (x[:, 0] == HANG).any() and _takes_away(HANGS):
            sleep_in_c(FOR_EVER)
        sleep_in_c(float(np.broadcast_to(params[..., 2], len(x)).sum()))
        return super().log_density(x, params)

    def sample(self, n: int, params: Any, rng: Any) -> Any:
        sleep_in_c(n * float(params[2]))
        return super().sample(n, params, rng)

    def evaluate(self, params: Any) -> Any:
        sleep_in_c(float(params[:, 2].sum()))
        return super().evaluate(params)


def sleep_in_c(seconds: float) -> None:
    """A long call of foreign code, as far as Python can tell."""
    usleep = ctypes.CDLL(None).usleep
    whole, rest = divmod(seconds, 1.0)
    for _ in range(int(whole)):
        usleep(999_999)
    usleep(int(rest * 1e6))


def _takes_away(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True
