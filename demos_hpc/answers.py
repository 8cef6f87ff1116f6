"""Answers put together from what has come, as the caller wants them."""

from __future__ import annotations

from typing import Any

import numpy as np

from .future import Finish
from .messages import Array, FloatArray


def take_first(answers: list[FloatArray]) -> FloatArray:
    """The only array of an answer."""
    return answers[0]


def take_first_row(answers: list[FloatArray]) -> FloatArray:
    """The only row of the only array."""
    return answers[0][0]  # type: ignore[no-any-return]


def scatter(
    inside: Array, n: int, widths: tuple[tuple[int, ...], ...], outs: list[FloatArray] | None, finish: Finish
) -> Finish:
    """Puts the answers of those rows that traveled in their places: -inf, and gradient zero, for the others."""

    def finish_all(answers: list[FloatArray]) -> Any:
        whole = outs or [np.empty((n, *width)) for width in widths]
        for target, answer in zip(whole, answers, strict=True):
            target[...] = 0.0 if target.ndim == 2 else -np.inf
            target[inside] = answer
        return finish(whole)

    return finish_all
