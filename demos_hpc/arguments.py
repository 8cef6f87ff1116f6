"""What a caller gave, made into the arrays that travel, or refused with the remedy. Nothing has traveled yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import InvalidInput
from .messages import Array, FloatArray
from .spec import ModelSpec
from .streams import SEED_LIMIT

#: One point (p,), points (n, p), or a dict of scalars or of (n,) columns; None for the server's own.
Params = npt.ArrayLike | Mapping[str, Any] | None


def read_rows(values: Any, name: str, width: int, spec: ModelSpec) -> FloatArray:
    """(n, width) float64, C-contiguous."""
    array = _read_float64(values, name)
    if not spec.observables and array.shape[1:] != (0,):
        raise InvalidInput(
            f"model {spec.name!r} has no observables, and takes no x; it has {', '.join(spec.operations)}"
        )
    if array.ndim != 2 or array.shape[1] != width:
        columns = ", ".join(o.name for o in spec.observables)
        remedy = ""
        if array.ndim == 1 and (width == 1 or len(array) == width):
            remedy = f"; for {'one column' if width == 1 else 'one row'} write {name}" + (
                "[:, np.newaxis]" if width == 1 else "[np.newaxis]"
            )
        raise InvalidInput(f"{name} has shape {array.shape}; model {spec.name!r} takes (n, {width}): {columns}{remedy}")
    return array


def read_params(params: Params, spec: ModelSpec, *, n_rows: int | None = None) -> FloatArray | None:
    """(p,) or (m, p) float64, C-contiguous; where ``n_rows`` is given, m must be that."""
    if params is None:
        return None
    array = _from_names(params, spec) if isinstance(params, Mapping) else _read_float64(params, "params")
    if array.ndim not in (1, 2) or array.shape[-1] != spec.n_params:
        raise InvalidInput(f"params has shape {array.shape}; {spec.describe_params()}")
    if n_rows is not None and array.ndim == 2 and len(array) != n_rows:
        raise InvalidInput(f"params has {len(array)} rows and x {n_rows}; give one point (p,), or one for each row")
    return array


def _from_names(params: Mapping[str, Any], spec: ModelSpec) -> FloatArray:
    unknown = [str(name) for name in params if name not in spec.param_names]
    missing = [name for name in spec.param_names if name not in params]
    if unknown or missing:
        parts = [
            f"{word} {', '.join(map(str, names))}"
            for word, names in (("unknown", unknown), ("missing", missing))
            if names
        ]
        raise InvalidInput(f"params: {'; '.join(parts)}; {spec.describe_params()}")
    columns = [_read_float64(params[name], f"parameter {name!r}") for name in spec.param_names]
    try:
        return np.ascontiguousarray(np.stack(np.broadcast_arrays(*columns), axis=-1)) if columns else np.empty(0)
    except ValueError:
        shapes = {name: c.shape for name, c in zip(spec.param_names, columns, strict=True)}
        raise InvalidInput(f"params: columns of different lengths: {shapes}") from None


def _read_float64(values: Any, name: str) -> FloatArray:
    if type(values) is np.ndarray and values.dtype == np.float64 and values.flags.c_contiguous:
        return values
    try:
        array: Array = np.asarray(values)
    except ValueError as error:
        raise InvalidInput(f"{name} is no array: {error}") from None
    if array.dtype.kind not in "fiu":
        raise InvalidInput(f"{name} has dtype {array.dtype}; it takes numbers, sent as float64")
    return np.ascontiguousarray(array, dtype=np.float64).reshape(array.shape)


def find_outside(params: FloatArray | None, spec: ModelSpec) -> Any:
    """Which points are outside their bounds: a bool for (p,), (m,) bool for (m, p); nan is not outside."""
    if params is None or not spec.is_bounded:
        return False
    return ((params < spec.lower) | (params > spec.upper)).any(axis=-1)


def describe_outside(params: FloatArray, spec: ModelSpec) -> str:
    """The first parameter that is outside its bounds, in words."""
    for point in np.atleast_2d(params):
        for parameter, value in zip(spec.parameters, point.tolist(), strict=True):
            if value < parameter.lower_bound or value > parameter.upper_bound:
                return f"parameter {parameter.name!r} is {value}, outside [{parameter.lower}, {parameter.upper}]"
    return "all parameters are within their bounds"


def check_out(out: Any, shape: tuple[int, ...], name: str = "out") -> FloatArray:
    """``out`` as the caller gave it, if the answer can be received into it."""
    if not isinstance(out, np.ndarray) or out.dtype != np.float64 or out.shape != shape or not out.flags.c_contiguous:
        got = f"shape {out.shape}, dtype {out.dtype}" if isinstance(out, np.ndarray) else type(out).__name__
        raise InvalidInput(f"{name} is {got}; the answer needs a C-contiguous float64 array of shape {shape}")
    if not out.flags.writeable:
        raise InvalidInput(f"{name} is read-only")
    return out


def read_count(n: Any) -> int:
    """A number of rows."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or not 0 <= n < 2**63:
        raise InvalidInput(f"n is {n!r}; it is a number of draws, an int from 0 to 2**63 - 1")
    return int(n)


def read_first(first: Any, n: int, spec: ModelSpec) -> int:
    """Where in a seed's sequence n draws begin: at a block."""
    is_count = isinstance(first, int | np.integer) and not isinstance(first, bool) and first >= 0
    if not is_count or first % spec.block_rows or first + n >= 2**63:
        raise InvalidInput(
            f"first is {first!r}; it is the first of {n} draws, a multiple of {spec.block_rows} (block_rows of model"
            f" {spec.name!r}), 0 to 2**63 - 1"
        )
    return int(first)


def read_seed(seed: Any) -> int:
    """64 bits."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < SEED_LIMIT:
        raise InvalidInput(f"seed is {seed!r}; it is an int from 0 to 2**64 - 1")
    return int(seed)


def read_timeout(timeout: Any) -> float:
    """Seconds; infinity is a long time."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float | np.number) or not timeout >= 0:
        raise InvalidInput(f"timeout is {timeout!r}; it is a number of seconds, >= 0")
    return float(timeout)
