"""Operations of a model over many rows, as orders for `writing`: what is computed, from what, and by whom."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .arguments import Params, describe_outside, find_outside, read_count, read_params, read_seed
from .client import RemoteModel
from .columns import Column, name_columns, stack
from .errors import InvalidInput, NotOffered
from .future import Future
from .messages import LIKELIHOODS, FloatArray, Operation
from .result_files import Contents, check_new, find_begun, find_finished
from .row_files import ArrayRows, Progress, Rows, digest_rows, open_rows
from .spec import ModelSpec
from .streams import new_seed
from .version import __version__
from .wire import WIRE_MAJOR, WIRE_MINOR
from .writing import PART_BYTES, Order, Written, write

#: Operations whose answers have a row for each parameter point.
_OF_POINTS = LIKELIHOODS | {Operation.EVALUATE}
#: Operations whose answers have a row for each row of x, or each draw.
_OF_ROWS = frozenset({Operation.LOG_DENSITY, Operation.LOG_DENSITY_GRADIENT, Operation.SAMPLE})


class Points:
    """Parameters: the server's own (None), one point (p,), or many, as an array (m, p), columns by name, or a file."""

    def __init__(self, params: Rows | Params | Path, spec: ModelSpec) -> None:
        self.one: FloatArray | None = None
        self.many: Rows | None = None
        if isinstance(params, str | Path):
            params = open_rows(str(params), "params", spec.param_names)
        if isinstance(params, Rows):
            if params.shape[1] != spec.n_params:
                raise InvalidInput(f"params has shape {params.shape}; {spec.describe_params()}")
            is_one = params.shape[0] == 1
            self.one, self.many = (params.read(0, 1)[0], None) if is_one else (None, params)
        elif (array := read_params(params, spec)) is not None:
            self.one, self.many = (array, None) if array.ndim == 1 else (None, ArrayRows(array, "params"))

    def read(self, first: int, count: int) -> FloatArray | None:
        """What is asked with so many rows of the answer."""
        return self.one if self.many is None else self.many.read(first, count)


class Asking:
    """Asks for parts of an answer; ``seed`` is that of a sample."""

    def __init__(
        self,
        model: RemoteModel,
        operation: Operation,
        x: Rows | None,
        points: Points,
        seed: int,
        options: Mapping[str, Any],
    ) -> None:
        self._submit = model.submit
        self._operation = operation
        self._x = x
        self._points = points
        self._seed = seed
        self._options = {"timeout": math.inf, **options}  # a part may take as long as it likes
        self._data = x.read(0, x.shape[0]) if x is not None and operation in LIKELIHOODS else None

    def __call__(self, first: int, count: int, progress: Progress) -> Future:
        options = {"progress": progress, **self._options}
        params = self._points.read(first, count)
        if self._operation is Operation.SAMPLE:
            return self._submit.sample(count, params, seed=self._seed, first=first, **options)
        if self._operation is Operation.EVALUATE:
            return self._submit.evaluate(params, **options)
        x = self._data
        if x is None:
            assert self._x is not None
            x = self._x.read(first, count)
        future: Future = getattr(self._submit, self._operation.title)(x, params, **options)
        return future


def write_results(
    model: RemoteModel,
    operation: Operation | str,
    path: Path | str,
    *,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
    tell: Callable[[str], object] = lambda text: None,
    **given: Any,
) -> Written:
    """Writes what ``operation`` returns to an HDF5 file, or goes on with the file that was begun.

    A file that has these very rows already stays as it is.

    ``given`` is what `make_order` takes; for the others, and what is raised, see there and `writing.write`. The
    server's own parameters, where none are given, must not change meanwhile: then it ends with `StaleRevision`.

    >>> write_results(model, "evaluate", "spectra.h5", params="points.npy")  # doctest: +SKIP
    """
    path, operation = Path(path), read_operation(operation)
    finished = None if overwrite else find_finished(path)
    if finished is None:
        check_new(path, overwrite=overwrite)
    elif operation is Operation.SAMPLE and given.get("seed") is None and "seed" in finished.attributes:
        given["seed"] = read_seed(finished.attributes["seed"])
    order = make_order(model, operation, path, progress=progress, **given)
    pinned = model.submit.pinned_revision
    try:
        if "revision" in order.contents.facts and not pinned:
            model.pin(order.contents.facts["revision"])
        return write(path, order, overwrite=overwrite, progress=progress, tell=tell)
    finally:
        model.pin(pinned)


def make_order(
    model: RemoteModel,
    operation: Operation,
    path: Path,
    *,
    x: Rows | npt.ArrayLike | Path | None = None,
    params: Rows | Params | Path = None,
    n: int = 0,
    seed: int | None = None,
    options: Mapping[str, Any] | None = None,
    progress: Progress = lambda done, total: None,
) -> Order:
    """What `writing.write` is to write to ``path``.

    Parameters
    ----------
    x
        (n, d), an array or the path of a file (`row_files.open_rows`): of densities, for each of its rows the answer
        has one; of likelihoods, where it is kept in memory.
    params
        The same for points (m, p): for each of them ``evaluate`` and likelihoods have a row, or there is one for each
        row of x; else one point for all. None for the server's own: then the caller pins their revision.
    n, seed
        Of a sample. Without a seed, that of a file that was begun is taken, else one is drawn.
    options
        Of gradients: ``wrt``, ``method``.
    progress
        Is told how far the rows that are given have been read; all are looked at before anything is computed.

    Raises
    ------
    InvalidInput, NotOffered
        Where the model has no such operation, or takes no such rows or parameters.
    """
    spec, told, options = model.spec, model.metadata(), dict(options or {})
    points, x = Points(params, spec), _read_x(x, spec)
    _check(spec, operation, x, points, options)
    facts: dict[str, Any] = {
        "operation": operation.title,
        "model": spec.name,
        "model_uuid": spec.uuid,
        "model_version": spec.version,
        "model_source": str(told["source"]),
        **options,
    }
    notes = {"revision": int(told["revision"])}
    if points.many is not None:
        look = _look_inside(spec) if operation is Operation.EVALUATE else None
        facts["params_digest"] = digest_rows(points.many, progress, look)
    elif points.one is not None:
        facts["params"] = points.one
    else:
        values = [told["params"][name] for name in spec.param_names]
        facts["params"] = np.array([math.nan if value is None else value for value in values], dtype=np.float64)
        facts["revision"] = notes.pop("revision")
        spec.check_complete(facts["params"])
    if x is not None:
        facts["x_digest"] = digest_rows(x, progress)
    number = 0
    if operation is Operation.SAMPLE:
        begun = find_begun(path).get("seed") if seed is None else seed
        number = new_seed() if begun is None else read_seed(begun)
        facts["seed"] = np.uint64(number)
    rows, asked = read_count(n) if operation is Operation.SAMPLE else 1, 0
    for source in (points.many, None if operation in LIKELIHOODS else x):
        if source is not None:
            rows, width = source.shape
            asked += width
    columns = name_columns(spec, operation, options.get("wrt", "params"))
    shape = (rows, len(columns)) if operation not in (Operation.LOG_DENSITY, Operation.LOG_LIKELIHOOD) else (rows,)
    is_in_blocks = operation is Operation.SAMPLE or not (spec.row_independent or operation in LIKELIHOODS)
    copies = 1 + 2 * max(spec.n_params, spec.n_observables) if "method" in options else 1
    contents = Contents(
        operation.title, shape, np.dtype("<f8"), facts, {**notes, **_describe(spec, operation, columns)}
    )
    return Order(
        contents,
        Asking(model, operation, x, points, number, options),
        stack,
        step=spec.block_rows if is_in_blocks else 1,
        row_bytes=8 * (asked + len(columns)) * copies,
        part_bytes=min(PART_BYTES, int(told["max_request_bytes"])),
        workers=int(told["workers"]),
    )


def read_operation(operation: Operation | str) -> Operation:
    """An operation whose answer has rows, by its name."""
    known = {known.title: known for known in (*_OF_POINTS, *_OF_ROWS)}
    title = operation.title if isinstance(operation, Operation) else operation
    if title not in known:
        raise InvalidInput(f"operation {title!r} has no rows to write to a file; {', '.join(sorted(known))} have")
    return known[title]


def _read_x(x: Any, spec: ModelSpec) -> Rows | None:
    if x is None or isinstance(x, Rows):
        return x
    if isinstance(x, str | Path):
        return open_rows(str(x), "x", [o.name for o in spec.observables])
    return ArrayRows(np.asarray(x), "x")


def _check(spec: ModelSpec, operation: Operation, x: Rows | None, points: Points, options: Mapping[str, Any]) -> None:
    """Refuses what could not be computed, before a file is made for it."""
    if "method" not in options and not spec.offers(operation, wrt_x=options.get("wrt") == "x"):
        raise NotOffered(f"model {spec.name!r} offers no {operation.title}; it has {', '.join(spec.operations)}")
    one, many = points.one, points.many
    if operation is Operation.SAMPLE and many is not None:
        raise InvalidInput(f"params has shape {many.shape}; sample takes one point (p,)")
    if operation in (Operation.SAMPLE, Operation.EVALUATE) and one is not None and find_outside(one, spec):
        raise InvalidInput(describe_outside(one, spec))
    if x is None:
        if operation not in (Operation.SAMPLE, Operation.EVALUATE):
            raise InvalidInput(f"{operation.title} without x")
        return
    if x.shape[1] != spec.n_observables:
        names = ", ".join(o.name for o in spec.observables)
        raise InvalidInput(f"x has shape {x.shape}; model {spec.name!r} takes (n, {spec.n_observables}): {names}")
    if many is not None and operation not in _OF_POINTS and many.shape[0] != x.shape[0]:
        raise InvalidInput(
            f"params has {many.shape[0]} rows and x {x.shape[0]}; give one point (p,), or one for each row"
        )


def _look_inside(spec: ModelSpec) -> Any:
    """Sees that points are within their bounds."""

    def look(first: int, points: FloatArray) -> None:
        outside = np.flatnonzero(find_outside(points, spec))
        if len(outside):
            raise InvalidInput(f"params, row {first + outside[0]}: {describe_outside(points[outside[0]], spec)}")

    return look


def _describe(spec: ModelSpec, operation: Operation, columns: list[Column]) -> dict[str, Any]:
    """Attributes for those who find the file."""
    texts = {"license": spec.license, "citation": spec.citation}
    return {
        **{name: text for name, text in texts.items() if text},
        "description": f"{operation.title} of {spec.name} {spec.version}",
        "columns": [column.name for column in columns],
        "units": [column.unit for column in columns],
        "param_names": list(spec.param_names),
        "param_units": [parameter.unit for parameter in spec.parameters],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "demos_hpc_version": __version__,
        "wire_version": f"{WIRE_MAJOR}.{WIRE_MINOR}",
    }
