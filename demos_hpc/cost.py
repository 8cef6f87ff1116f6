"""A negative log-likelihood in the form that minimizers want."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .messages import FloatArray


class Differentiable(Protocol):
    """What is adapted: log P of theta (k,), with a gradient if it has one."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def limits(self) -> list[tuple[float | None, float | None]]: ...
    @property
    def has_gradient(self) -> bool: ...
    def __call__(self, theta: npt.ArrayLike) -> Any: ...
    def value_and_gradient(self, theta: npt.ArrayLike) -> tuple[Any, FloatArray]: ...


class Cost:
    """-log P of k parameters, given one by one as iminuit does, or as one array (k,) as scipy does.

    iminuit finds names, limits, gradient and ``errordef`` here by itself: ``Minuit(cost, *start)``.

    Nothing is remembered between calls: Minuit asks for a gradient only where it has just asked for the value, but
    at few points (5 of 50 for a Gaussian, 4 of 63 for the four parameters of the neutrino demo, strategy 1), so
    fetching gradients along with all values would cost more than it saves.
    """

    #: That of a negative log-likelihood (`iminuit.Minuit.LIKELIHOOD`): errors are where it has risen by this.
    errordef = 0.5

    def __init__(self, likelihood: Differentiable) -> None:
        self._likelihood = likelihood
        #: Read by `iminuit.util.describe`.
        self._parameters = {
            name: None if limits == (None, None) else limits
            for name, limits in zip(likelihood.names, likelihood.limits, strict=True)
        }

    @property
    def has_grad(self) -> bool:
        """Read by `iminuit.util.gradient`: without a gradient, Minuit uses finite differences of its own."""
        return self._likelihood.has_gradient

    def __call__(self, *theta: Any) -> float:
        """The cost; ``+inf`` where the likelihood is nil."""
        return -float(self._likelihood(_read(theta)))

    def grad(self, *theta: Any) -> FloatArray:
        """Its gradient, (k,)."""
        return -self._likelihood.value_and_gradient(_read(theta))[1]


def _read(theta: tuple[Any, ...]) -> npt.ArrayLike:
    return theta[0] if len(theta) == 1 and np.ndim(theta[0]) == 1 else theta
