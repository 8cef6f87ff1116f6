"""Results of operations as tables: names and units of their columns."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np

from .messages import GRADIENTS, FloatArray, Operation
from .spec import ModelSpec


class Column(NamedTuple):
    """A column of a result."""

    name: str
    unit: str


def name_columns(spec: ModelSpec, operation: Operation, wrt: str = "params") -> list[Column]:
    """The columns of a result; of gradients, the value comes first."""
    if operation is Operation.SAMPLE:
        return [Column(o.name, o.unit) for o in spec.observables]
    if operation is Operation.EVALUATE:
        return [Column(o.name, o.unit) for o in spec.outputs]
    columns = [Column(operation.title.removesuffix("_gradient"), "1")]
    if operation in GRADIENTS:
        by_x = operation is Operation.LOG_DENSITY_GRADIENT and wrt == "x"
        varied = spec.observables if by_x else spec.parameters
        columns += [Column(f"d/d{v.name}", _invert(v.unit)) for v in varied]
    return columns


def _invert(unit: str) -> str:
    if unit == "1":
        return unit
    return f"1/{unit}" if re.fullmatch(r"[\w^]+", unit) else f"1/({unit})"


def stack(result: Any) -> FloatArray:
    """A result as one array; of gradients, the value is the first column."""
    if isinstance(result, tuple):
        value, gradient = result
        return np.concatenate([np.asarray(value)[..., np.newaxis], gradient], axis=-1)
    return np.asarray(result)
