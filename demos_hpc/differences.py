"""Gradients from values at neighboring points, for models that have none of their own."""

from __future__ import annotations

import numpy as np

from .messages import FloatArray

#: Best relative step of a central difference: the cube root of the machine precision (Press et al., Numerical
#: Recipes, 3rd ed., eq. 5.7.8).
RELATIVE_STEP = float(np.finfo(np.float64).eps ** (1 / 3))


def make_stencil(
    points: FloatArray, lower: FloatArray, upper: FloatArray, scales: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The points, then those a step ahead and behind in each of their k coordinates.

    ``points`` is (n, k); bounds and ``scales``, what is a large change of each coordinate or 0 where nobody knows,
    are (k,). The stencil is (n + 2 n k, k), the steps ahead and behind (2, n, k). At a bound the step is shortened
    to zero on its side, which makes the difference one-sided.
    """
    n, k = points.shape
    size = np.maximum(np.abs(points), 1e-3 * scales)
    step = RELATIVE_STEP * np.where(size > 0, size, 1.0)
    ahead, behind = np.minimum(points + step, upper), np.maximum(points - step, lower)
    stencil = np.repeat(points[np.newaxis], 1 + 2 * k, axis=0)
    for i in range(k):
        stencil[1 + 2 * i, :, i] = ahead[:, i]
        stencil[2 + 2 * i, :, i] = behind[:, i]
    return stencil.reshape((1 + 2 * k) * n, k), np.stack([ahead - points, points - behind])


def combine(values: FloatArray, steps: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Value (n,) and gradient (n, k) from the values (1 + 2 k, n) at a stencil; zero where the value is -inf."""
    value = values[0]
    with np.errstate(invalid="ignore"):
        gradient = ((values[1::2] - values[2::2]) / steps.sum(axis=0).T).T
    gradient[np.isneginf(value)] = 0.0
    return value.copy(), np.ascontiguousarray(gradient)
