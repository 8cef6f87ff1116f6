"""The operations of a served model as requests: arguments checked, sent, and put together again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .answers import scatter, take_first, take_first_row
from .arguments import (
    Params,
    check_out,
    describe_outside,
    find_outside,
    read_count,
    read_first,
    read_params,
    read_rows,
    read_seed,
)
from .blocks import count_blocks, sum_pairwise
from .connection import Connection
from .differences import combine, make_stencil
from .errors import InvalidInput, NotOffered, TooLarge
from .future import Finish, Future
from .messages import Array, Flag, FloatArray, Operation
from .resident_data import ResidentData
from .spec import ModelSpec
from .streams import new_seed
from .wire import PIECE_BYTES

_RESIDENT, _WRT_X = int(Flag.RESIDENT), int(Flag.WRT_X)  # the arithmetic of enumerations takes its time
Progress = Callable[[int, int], object]


class Submit:
    """The operations of a model, each returning a `Future` at once; see `RemoteModel` for what they mean."""

    def __init__(
        self, connection: Connection, description: Mapping[str, Any], defaults: Callable[[], FloatArray]
    ) -> None:
        self._connection = connection
        self.spec = ModelSpec.from_dict(description["spec"])
        self._max_request_bytes = int(description["max_request_bytes"])
        self._defaults = defaults
        self.handle = int(description["handle"])
        self.pinned_revision = 0

    def log_density(
        self,
        x: Any,
        params: Params = None,
        *,
        out: FloatArray | None = None,
        strict: bool = False,
        timeout: float | None = None,
        progress: Progress | None = None,
    ) -> Future:
        x, point, outside = self._read_x_params(x, params, strict=strict)
        outs = None if out is None else [check_out(out, (len(x),))]
        future = self._start_rows(Operation.LOG_DENSITY, x, point, outside, ((),), outs, take_first, timeout)
        future.progress = progress
        return future

    def log_density_gradient(
        self,
        x: Any,
        params: Params = None,
        *,
        wrt: str = "params",
        method: str | None = None,
        out: tuple[FloatArray, FloatArray] | None = None,
        strict: bool = False,
        timeout: float | None = None,
        progress: Progress | None = None,
    ) -> Future:
        if wrt not in ("params", "x"):
            raise InvalidInput(f"wrt is {wrt!r}; it is 'params' or 'x'")
        x, point, outside = self._read_x_params(x, params, strict=strict)
        width = self.spec.n_params if wrt == "params" else self.spec.n_observables
        outs = None
        if out is not None:
            outs = [check_out(out[0], (len(x),), "out[0]"), check_out(out[1], (len(x), width), "out[1]")]
        if self._wants_differences(method, Operation.LOG_DENSITY_GRADIENT, wrt_x=wrt == "x"):
            return self._by_differences(x, point, wrt, outs, timeout, progress)
        flags = Flag.WRT_X if wrt == "x" else Flag.NONE
        operation, widths = Operation.LOG_DENSITY_GRADIENT, ((), (width,))
        future = self._start_rows(operation, x, point, outside, widths, outs, tuple, timeout, flags)
        future.progress = progress
        return future

    def _by_differences(
        self,
        x: FloatArray,
        point: FloatArray | None,
        wrt: str,
        outs: list[FloatArray] | None,
        timeout: float | None,
        progress: Progress | None,
    ) -> Future:
        n, spec = len(x), self.spec
        if point is None:
            point = self._read_defaults()
        points = np.broadcast_to(point, (n, spec.n_params))
        varied = points if wrt == "params" else x
        if wrt == "params":
            stencil, steps = make_stencil(varied, spec.lower, spec.upper, spec.param_scales)
        else:
            stencil, steps = make_stencil(varied, *spec.support, spec.observable_scales)
        copies = 1 + 2 * varied.shape[1]
        if wrt == "params":
            x, points = np.tile(x, (copies, 1)), stencil
        else:
            x, points = stencil, np.tile(points, (copies, 1))

        def finish(answers: list[FloatArray]) -> tuple[FloatArray, ...]:
            value, gradient = combine(answers[0].reshape(copies, n), steps)
            for target, array in zip(outs or [], (value, gradient), strict=False):
                target[...] = array
            return tuple(outs) if outs else (value, gradient)

        outside = find_outside(points, spec)
        future = self._start_rows(Operation.LOG_DENSITY, x, points, outside, ((),), None, finish, timeout)
        future.progress = progress
        return future

    def log_likelihood(
        self,
        x: Any,
        params: Params = None,
        *,
        strict: bool = False,
        timeout: float | None = None,
        progress: Progress | None = None,
    ) -> Future:
        return self._start_likelihood(
            Operation.LOG_LIKELIHOOD, x, params, strict=strict, timeout=timeout, progress=progress
        )

    def log_likelihood_gradient(
        self,
        x: Any,
        params: Params = None,
        *,
        method: str | None = None,
        strict: bool = False,
        timeout: float | None = None,
        progress: Progress | None = None,
    ) -> Future:
        if not self._wants_differences(method, Operation.LOG_LIKELIHOOD_GRADIENT):
            return self._start_likelihood(
                Operation.LOG_LIKELIHOOD_GRADIENT, x, params, strict=strict, timeout=timeout, progress=progress
            )
        point = read_params(params, self.spec)
        point = self._read_defaults() if point is None else point
        points = np.atleast_2d(point)
        stencil, steps = make_stencil(points, self.spec.lower, self.spec.upper, self.spec.param_scales)

        def finish(values: FloatArray) -> tuple[Any, FloatArray]:
            value, gradient = combine(values.reshape(-1, len(points)), steps)
            return (value[0], gradient[0]) if point.ndim == 1 else (value, gradient)

        return self._start_likelihood(
            Operation.LOG_LIKELIHOOD, x, stencil, strict=strict, timeout=timeout, progress=progress, then=finish
        )

    def sample(
        self,
        n: int,
        params: Params = None,
        *,
        seed: int | None = None,
        first: int = 0,
        out: FloatArray | None = None,
        timeout: float | None = None,
        progress: Progress | None = None,
    ) -> Future:
        n, point = read_count(n), self._read_inside(params)
        first = read_first(first, n, self.spec)
        if point is not None and point.ndim != 1:
            raise InvalidInput(f"params has shape {point.shape}; sample takes one point (p,)")
        width = self.spec.n_observables
        outs = None if out is None else [check_out(out, (n, width))]
        number = new_seed() if seed is None else read_seed(seed)
        arrays = [] if point is None else [point]
        flags = Flag.FRESH_SEED if seed is None else Flag.NONE
        widths = ((width,),)
        future = self._start(Operation.SAMPLE, arrays, n, n, widths, take_first, outs, timeout, 0, flags, number, first)
        future.seed = number
        future.progress = progress
        return future

    def evaluate(
        self,
        params: Params = None,
        *,
        out: FloatArray | None = None,
        timeout: float | None = None,
        progress: Progress | None = None,
    ) -> Future:
        point = self._read_inside(params)
        points = None if point is None else np.atleast_2d(point)
        n, width = 1 if points is None else len(points), self.spec.n_outputs
        is_one = point is None or point.ndim == 1
        outs = None if out is None else [check_out(out, (width,) if is_one else (n, width)).reshape(n, width)]
        arrays = [] if points is None else [points]
        finish = take_first_row if is_one else take_first
        future = self._start(Operation.EVALUATE, arrays, n, n, ((width,),), finish, outs, timeout, 1)
        future.progress = progress
        return future

    # ---- behind all of them ----------------------------------------------------------------------------------

    def _read_x_params(self, x: Any, params: Params, *, strict: bool) -> tuple[FloatArray, FloatArray | None, Any]:
        spec = self.spec
        x = read_rows(x, "x", spec.n_observables, spec)
        point = read_params(params, spec, n_rows=len(x))
        outside = find_outside(point, spec)
        if strict and point is not None and np.any(outside):
            raise InvalidInput(describe_outside(point, spec))
        return x, point, outside

    def _read_inside(self, params: Params) -> FloatArray | None:
        point = read_params(params, self.spec)
        if point is not None and np.any(find_outside(point, self.spec)):
            raise InvalidInput(describe_outside(point, self.spec))
        return point

    def _read_defaults(self) -> FloatArray:
        point = self._defaults()
        self.spec.check_complete(point)
        return point

    def _wants_differences(self, method: str | None, operation: Operation, *, wrt_x: bool = False) -> bool:
        if method not in (None, "finite-difference"):
            raise InvalidInput(f"method is {method!r}; it is 'finite-difference', or left out")
        if method is None and not self.spec.offers(operation, wrt_x=wrt_x):
            raise NotOffered(
                f"model {self.spec.name!r} offers no {operation.title}{' with respect to x' if wrt_x else ''}; it has"
                f" {', '.join(self.spec.operations)}. method='finite-difference' computes gradients from densities"
            )
        return method is not None

    def _start_rows(
        self,
        operation: Operation,
        x: FloatArray,
        point: FloatArray | None,
        outside: Any,
        widths: tuple[tuple[int, ...], ...],
        outs: list[FloatArray] | None,
        finish: Finish,
        timeout: float | None,
        flags: int = 0,
    ) -> Future:
        """A request of x and params, those rows left out that are outside the parameters' bounds."""
        if outside is not False and outside.any():
            assert point is not None
            inside = np.flatnonzero(np.broadcast_to(~outside, len(x)))
            finish = scatter(inside, len(x), widths, outs, finish)
            x, outs = np.ascontiguousarray(x[inside]), None
            point = np.ascontiguousarray(point[inside]) if point.ndim == 2 else point
        arrays = [x] if point is None else [x, point]
        n_per_row = 2 if point is not None and point.ndim == 2 else 1
        return self._start(operation, arrays, len(x), len(x), widths, finish, outs, timeout, n_per_row, flags)

    def _start_likelihood(
        self,
        operation: Operation,
        x: Any,
        params: Params,
        *,
        strict: bool,
        timeout: float | None,
        progress: Progress | None,
        then: Callable[[Any], Any] | None = None,
    ) -> Future:
        spec = self.spec
        is_resident = isinstance(x, ResidentData)
        if is_resident and x.model != spec.uuid:
            raise InvalidInput(f"{x!r} was made for another model than {spec.name!r}")
        if is_resident:
            spec.check_holding()
        if not is_resident:
            x = read_rows(x, "x", spec.n_observables, spec)
        point = read_params(params, spec)
        outside = find_outside(point, spec)
        if strict and point is not None and np.any(outside):
            raise InvalidInput(describe_outside(point, spec))
        is_one = point is None or point.ndim == 1
        points = np.empty((1, 0)) if point is None else np.atleast_2d(point)
        inside: Any = slice(None)
        if np.any(outside):
            inside = np.flatnonzero(np.broadcast_to(~np.asarray(outside), len(points)))
        chosen = points[inside]
        n_chosen = len(chosen)
        # Rows that come in parts can be worked on as they come only if cells are block-major.
        is_block_major = is_resident or self._count_part_rows([x]) < len(x)
        arrays, n_blocks = x.ask(spec.block_rows) if is_resident else ([x], count_blocks(len(x), spec.block_rows))
        widths: tuple[tuple[int, ...], ...] = ((),)
        if operation is Operation.LOG_LIKELIHOOD_GRADIENT:
            widths = ((), (spec.n_params,))

        def finish(cells: list[FloatArray]) -> Any:
            sums = []
            for array, width in zip(cells, widths, strict=True):
                total = np.full((len(points), *width), 0.0 if width else -np.inf)
                shape = (n_blocks, n_chosen) if is_block_major else (n_chosen, n_blocks)
                blocks = array.reshape(*shape, *width)
                with np.errstate(invalid="ignore"):  # +inf and -inf in different blocks
                    total[inside] = sum_pairwise(blocks if is_block_major else blocks.swapaxes(0, 1))
                sums.append(total)
            if len(sums) == 2:
                sums[1][np.isneginf(sums[0])] = 0.0
            if then is not None:
                return then(sums[0])
            values = [total[0] for total in sums] if is_one else sums
            return values[0] if len(values) == 1 else tuple(values)

        if point is not None:
            arrays = [*arrays, chosen]
        n_rows, n_cells = len(x) if n_chosen else 0, n_blocks * n_chosen
        flags = int(Flag.BLOCK_MAJOR if is_block_major else Flag.NONE)
        if is_resident:
            n_rows, flags = n_cells, _RESIDENT
        future = self._start(operation, arrays, n_rows, n_cells, widths, finish, None, timeout, 1, flags)
        future.progress = progress
        return future

    def _start(
        self,
        operation: Operation,
        arrays: list[Array],
        n_rows: int,
        n_units: int,
        widths: tuple[tuple[int, ...], ...],
        finish: Finish,
        outs: list[FloatArray] | None,
        timeout: float | None,
        n_per_row: int,
        flags: int = 0,
        seed: int = 0,
        first_row: int = 0,
    ) -> Future:
        """Sends a request, the first ``n_per_row`` arrays in parts where they are large."""
        spec = self.spec
        if not spec.offers(operation, wrt_x=bool(flags & _WRT_X)):
            raise NotOffered(f"model {spec.name!r} offers no {operation.title}; it has {', '.join(spec.operations)}")
        if n_rows == 0:
            future = Future(self._connection, 0, 0.0, n_units, widths, finish, outs)
            future.settle()  # an empty answer needs no server
            return future
        part_rows = 0
        if n_rows > spec.block_rows:
            if not flags & _RESIDENT:
                part_rows = self._count_part_rows(arrays[:n_per_row])
            self._check_size(sum(array.nbytes for array in arrays), "a request")
            if outs is None:
                outs = self._make_room(n_units, widths)
        return self._connection.start(
            operation,
            arrays,
            n_rows,
            n_units,
            widths,
            finish,
            model=self.handle,
            flags=flags,
            revision=self.pinned_revision,
            seed=seed,
            first_row=first_row,
            timeout=timeout,
            out=outs,
            part_rows=part_rows,
            n_per_row=n_per_row,
        )

    def _count_part_rows(self, per_row: list[Array]) -> int:
        """Rows of a part of a large request: whole blocks, at least one, and about 4 MiB; 0 where nothing is cut."""
        row_bytes = sum(8 * array.shape[1] for array in per_row)
        block = self.spec.block_rows
        return block * max(1, PIECE_BYTES // (row_bytes * block)) if row_bytes else 0

    def _make_room(self, n_units: int, widths: tuple[tuple[int, ...], ...]) -> list[FloatArray]:
        """The arrays of a large answer, before it is asked for: there may be no memory for it."""
        size = 8 * n_units * sum(math.prod(width) for width in widths)
        self._check_size(size, "an answer")
        try:
            return [np.empty((n_units, *width)) for width in widths]
        except (MemoryError, ValueError):
            raise TooLarge(f"there is no memory for an answer of {size} bytes: ask for less at a time") from None

    def _check_size(self, size: int, what: str) -> None:
        most = self._max_request_bytes
        if size > most:
            raise TooLarge(f"{what} of {size} bytes; this server takes {most}: ask for less at a time")
