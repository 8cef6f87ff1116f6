"""Checks of the contract's form: what comes back, on which rows it may depend, and what happens at the edges.

A check takes a `Subject` and returns the sentence of its finding; where things are not well it raises a
`Remark`. A model's own exception may pass through: whoever runs the checks makes a finding of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .errors import DemosError, ModelFailed
from .messages import Array, FloatArray
from .model import describe
from .subject import DENSITIES, METHODS, Subject
from .verdict import failed, skipped, warned

#: Two numbers that differ by less than this, relatively, differ by rounding.
_ROUNDING = 1e-9


def check_spec(subject: Subject) -> str:
    """Units are given, and there are observables where there is something to draw."""
    spec = subject.spec
    columns = [("parameter", p.name, p.unit) for p in spec.parameters]
    columns += [("observable", o.name, o.unit) for o in spec.observables]
    columns += [("output", o.name, o.unit) for o in spec.outputs]
    bare = [f"{kind} {name!r}" for kind, name, unit in columns if not unit.strip()]
    if bare:
        raise failed(f"{', '.join(bare)} without unit; write unit='1' where it is a pure number")
    if subject.has("sample") and not spec.observables:
        raise failed("there is sample() but the spec declares no observables: name the columns of what it draws")
    open_ended = [p.name for p in spec.parameters if p.default is None]
    if open_ended:
        used = dict(zip(spec.param_names, subject.points[0].tolist(), strict=True))
        chosen = ", ".join(f"{name} = {used[name]:g}" for name in open_ended)
        raise warned(f"no default for {', '.join(open_ended)}; examined at {chosen}")
    return f"{spec.n_params} parameters, {spec.n_observables} observables, {spec.n_outputs} outputs, all with units"


def check_authorship(subject: Subject) -> str:
    """License and authors are given; without them others may not lawfully use the model."""
    missing = [name for name in ("license", "authors") if not getattr(subject.spec, name)]
    if missing:
        raise warned(f"the spec gives no {' and no '.join(missing)}: others need them to use and to cite the model")
    return f"{subject.spec.license}; {', '.join(subject.spec.authors)}"


def check_returns(subject: Subject, method: str) -> str:
    """Shape and dtype of what the model itself returns, for one row and several."""
    spec = subject.spec
    gradient = "gradient" in method
    width = {"evaluate": spec.n_outputs, "log_density_gradient": spec.n_params}.get(method, spec.n_observables)
    for n in (1, 5):
        for arguments in _examples(subject, method, n):
            got = _call_raw(subject, method, arguments)
            if gradient and not (isinstance(got, tuple | list) and len(got) == 2):
                raise failed(f"{method}() returned {type(got).__name__}, not the pair (value, gradient)")
            parts = [((n,), got[0]), ((n, width), got[1])] if gradient else [((n, width), got)]
            for shape, part in [((n,), got)] if method == "log_density" else parts:
                _require(f"{method}({_describe(arguments)})", part, shape)
    return "shape and float64 as the contract asks, for 1 and 5 rows"


def _examples(subject: Subject, method: str, n: int) -> list[tuple[Any, ...]]:
    """Arguments for the model's own method: n rows, params (p,) and, where they may be, (n, p)."""
    point, points = subject.points[0], np.resize(subject.points, (n, subject.spec.n_params))
    if method == "evaluate":
        return [(points,)]
    if method == "sample":
        return [(n, point.copy(), subject.rng())]
    x = subject.scatter(n)
    return [(x, point.copy()), (x.copy(), points)][: 2 if subject.spec.params_per_row else 1]


def _describe(arguments: tuple[Any, ...]) -> str:
    return ", ".join(str(a.shape) if isinstance(a, np.ndarray) else str(a) for a in arguments[:2])


def _call_raw(subject: Subject, method: str, arguments: tuple[Any, ...]) -> Any:
    """The model's own method, without the loader's conversions."""
    try:
        with np.errstate(all="ignore"):
            return getattr(subject.loaded.model, method)(*arguments)
    except (Exception, SystemExit) as error:
        raise ModelFailed(f"{method}({_describe(arguments)}) raised {describe(error)}") from error


def _require(name: str, part: Any, shape: tuple[int, ...]) -> None:
    try:
        array: Array = np.asarray(part)
    except ValueError as error:
        raise failed(f"{name} returned no array: {error}") from None
    if array.shape != shape:
        raise failed(f"{name} returned shape {array.shape}; the contract asks for {shape}")
    if array.dtype != np.float64:
        raise failed(f"{name} returned dtype {array.dtype}; the contract asks for float64: compute in it throughout")


def check_inputs(subject: Subject) -> str:
    """No method writes into the arrays that it is given; they may be the buffer of a message."""
    offered = [method for method in METHODS if subject.works(method)]
    touchy = ""
    for method in offered:
        for given in _examples(subject, method, 4):
            arrays = [a for a in given if isinstance(a, np.ndarray)]
            before = [a.copy() for a in arrays]
            _call_raw(subject, method, given)
            for name, a, b in zip(("params",) if len(arrays) == 1 else ("x", "params"), arrays, before, strict=True):
                if not np.array_equal(a, b):
                    raise failed(f"{method}() changed its input {name}: work on a copy of it, not in place")
            for a in arrays:
                a.flags.writeable = False
            try:
                _call_raw(subject, method, given)
            except ModelFailed as error:
                touchy = touchy or f"{error} when its input was read-only: declare it const, or copy it"
    if touchy:
        raise warned(touchy)
    return f"{', '.join(offered)} left their inputs unchanged"


def check_rows(subject: Subject, method: str) -> str:
    """A row's result has the same bits whatever rows it is computed with."""
    x, params, n = _rows_for(subject, method)
    first = subject.call(method, x, params)
    whole = [array.copy() for array in first]
    subject.call(method, x[::-1], params[::-1] if method == "evaluate" else params)
    _compare(
        whole,
        first,
        f"a result of {method}() is changed by the next call",
        "return a new array every time",
    )
    _compare(
        whole,
        subject.call(method, x, params),
        f"{method}() of the same arguments differs from call to call",
        "keep no state and use no random numbers or clock in it",
    )
    if not subject.spec.row_independent:
        return _check_blocks(subject, method, x, params, whole)
    remedy = "compute rows by elementwise functions and sums along rows, or declare row_independent=False"
    for start, stop in _cuts(n):
        part = subject.call(method, x[start:stop], params[start:stop] if method == "evaluate" else params)
        what = "alone" if stop - start == 1 else f"in a batch of {stop - start}"
        _compare(
            [w[start:stop] for w in whole],
            part,
            f"{method}() of a row {what} differs from the same row among {n}",
            remedy,
            start,
        )
    if method != "evaluate":
        few = min(n, 97)
        together = subject.call(method, x[:few], np.tile(params, (few, 1)))
        _compare(
            [w[:few] for w in whole],
            together,
            f"{method}() with params (n, p) differs from the same params (p,)",
            "use the same expressions for both, or declare params_per_row=False or row_independent=False",
        )
        mixed = np.resize(subject.points, (few, subject.spec.n_params))
        together = subject.call(method, x[:few], mixed)
        for k in range(len(subject.points)):
            own = slice(k, few, len(subject.points))
            alone = subject.call(method, x[:few][own], subject.points[k])
            _compare([t[own] for t in together], alone, f"{method}() with other params in other rows differs", remedy)
    kinds = "" if method == "evaluate" else ", params (p,) or (n, p)"
    return f"{n} rows: bit-identical alone, in batches of 1 to {n}{kinds}"


def _rows_for(subject: Subject, method: str) -> tuple[FloatArray, FloatArray, int]:
    """x, params and the number of rows: whole blocks and a bit where rows depend on one another."""
    size = subject.spec.block_rows
    n = 1031 if subject.spec.row_independent else 2 * size + max(1, size // 3)
    if method != "evaluate":
        return subject.rows(0, n), subject.points[0], n
    # A point of evaluate() may cost as much as a thousand rows.
    n = min(n, 67 if subject.spec.row_independent else 40)
    # Rows of params that differ from one another, all between known good points.
    share = subject.rng(3).random((n, 1))
    params = subject.points[0] * share + np.resize(subject.points, (n, subject.spec.n_params)) * (1 - share)
    return np.empty((n, 0)), params, n


def _cuts(n: int) -> Iterator[tuple[int, int]]:
    """Runs of rows of many sizes and beginnings."""
    alone = {0, 1, 2, 3, 4, 5, 6, 7, 8, 15, 16, 31, 33, 63, 64, 100, n // 2, n - 2, n - 1}
    yield from ((i, i + 1) for i in sorted(alone) if 0 <= i < n)
    start = 0
    for size in (2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 31, 33, 64, 127, 255, 437):
        if size < n:
            stop = min(start + size, n)
            yield start, stop
            start = stop % (n - 1)


def _check_blocks(subject: Subject, method: str, x: FloatArray, params: FloatArray, whole: list[FloatArray]) -> str:
    size = subject.spec.block_rows
    for first in range(0, len(whole[0]), size):
        block = slice(first, first + size)
        own_x, own_params = x[block], params[block] if method == "evaluate" else params
        for place, shifted in (("alone", False), ("at another address in memory", True)):
            x_there = _shift(own_x) if shifted else own_x
            params_there = _shift(own_params) if shifted else own_params
            part = subject.call(method, x_there, params_there, copy=not shifted)
            _compare(
                [w[block] for w in whole],
                part,
                f"{method}() of block {first // size} {place} differs from the same block among others",
                "a block's result may depend on its own rows only: look for state that the model keeps",
                first,
            )
    return f"{len(whole[0])} rows: blocks of {size} are bit-identical alone and among others (row_independent=False)"


def _shift(array: FloatArray) -> FloatArray:
    """A copy that begins 8 bytes off, as an array inside a message may."""
    shifted = np.empty(array.size + 1)[1:].reshape(array.shape)
    shifted[...] = array
    return shifted


def _compare(first: list[FloatArray], second: list[FloatArray], what: str, remedy: str, start: int = 0) -> None:
    for a, b in zip(first, second, strict=True):
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        if same.all():
            continue
        where = tuple(int(i) for i in np.argwhere(~same)[0])
        left, right = float(a[where]), float(b[where])
        size = max(abs(left), abs(right))
        coarse = not math.isclose(left, right, rel_tol=_ROUNDING, abs_tol=_ROUNDING * float(np.nanmax(np.abs(a))))
        more = f" (by {abs(left - right) / size:.1g} of its value, far more than rounding)" if coarse else ""
        raise failed(f"{what}{more}: row {start + where[0]} gives {left!r} and {right!r}; {remedy}")


def check_outside(subject: Subject, method: str) -> str:
    """Rows outside the support give -inf, neither nan nor an exception, and do not disturb their neighbors."""
    inside, columns = subject.rows(0, 1)[0], []
    for j, o in enumerate(subject.spec.observables):
        width = (o.upper - o.lower) if o.lower is not None and o.upper is not None else None
        for bound, side in ((o.lower, -1.0), (o.upper, 1.0)):
            if bound is not None:
                scale = width or abs(bound) or 1.0
                columns += [(j, o.name, bound + side * scale * step) for step in (1e-3, 1.0, 1e6)]
    if not columns:
        raise skipped("the support has no end: every row is inside")
    x = np.tile(inside, (len(columns) + 1, 1))
    for row, (j, _, place) in enumerate(columns):
        x[row, j] = place
    value = subject.call(method, x, subject.points[0])[0]
    for row, (_, name, place) in enumerate(columns):
        if not np.isneginf(value[row]):
            raise failed(
                f"{method}() is {value[row]} at {name} = {place:g}, outside the declared support; return -inf there"
            )
    reference = subject.call(method, x[-1:], subject.points[0])[0]
    if not np.isclose(value[-1], reference[0], rtol=_ROUNDING, equal_nan=True):
        raise failed(f"{method}() of a row inside is {reference[0]}, but {value[-1]} beside rows outside the support")
    return f"-inf at {len(columns)} places outside the support"


def check_nan(subject: Subject, method: str) -> str:
    """nan in a row gives nan in that row, in no other, and no exception."""
    d = subject.spec.n_observables
    x = np.repeat(subject.rows(0, d + 1), 2, axis=0)
    before = subject.call(method, x, subject.points[0])[0]
    for j in range(d):
        x[2 * j, j] = math.nan
    value = subject.call(method, x, subject.points[0])[0]
    for j, o in enumerate(subject.spec.observables):
        if not math.isnan(value[2 * j]):
            raise failed(
                f"{method}() is {value[2 * j]} where {o.name} is nan; return nan, so that bad data are not mistaken"
                " for improbable data (write x < lower rather than not x >= lower)"
            )
    spoiled = np.flatnonzero(np.isnan(value) & ~np.isnan(before))
    spoiled = spoiled[(spoiled % 2 == 1) | (spoiled >= 2 * d)]
    if len(spoiled):
        raise failed(
            f"{method}() is nan in row {spoiled[0]}, where nan stands in other rows only; rows are independent"
        )
    return "nan in a row gives nan in that row alone"


def check_bounds(subject: Subject) -> str:
    """Parameters on their bounds, which are inclusive, raise nothing."""
    spec = subject.spec
    edges = []
    for k, p in enumerate(spec.parameters):
        for bound in (p.lower, p.upper):
            if bound is not None:
                point = subject.points[0].copy()
                point[k] = bound
                edges.append((f"{p.name} = {bound:g}", point))
    if not edges:
        raise skipped("no parameter has a bound")
    for name, corner in (("all lower bounds", spec.lower), ("all upper bounds", spec.upper)):
        edges.append((name, np.where(np.isfinite(corner), corner, subject.points[0])))
    x, undefined = subject.rows(0, 5), []
    for name, point in edges:
        for method in [m for m in METHODS if subject.works(m)]:
            try:
                if method == "sample":
                    subject.sample(0, 5, point, subject.seed)
                elif np.isnan(subject.call(method, x, point if method in DENSITIES else point[np.newaxis])[0]).any():
                    undefined.append(f"{method}() at {name}")
            except DemosError as error:
                raise failed(f"at {name}: {error}; bounds are inclusive: handle the limit or move the bound") from None
    if undefined:
        raise warned(f"nan from {', '.join(undefined[:3])}; handle the limit or move the bound inwards")
    return f"nothing raised at {len(edges)} points on the bounds"
