"""A model as its author writes it, and the one way in which it is called.

An author writes a class with ``spec`` and some of the methods of `Model`. Everybody else calls it through
`LoadedModel`, which checks what comes back and applies the contract's rules for infinities, blocks and rows.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .blocks import count_blocks, sum_blocks, sum_pairwise
from .config import Config
from .errors import EXCEPTION_OF, InvalidInput, ModelFailed, ModelNotFound, NotOffered, StatusError
from .messages import Array, FloatArray, Operation, to_json
from .model_paths import DATA_FILES, DATA_MODEL, NATIVE_MODEL, find, split_native
from .spec import GRADIENT_X, Dataset, ModelSpec
from .streams import BlockStreams


class Model(Protocol):
    """What a model author writes; every method but ``spec`` may be missing.

    Arrays are C-contiguous float64. ``params`` is (p,), or (n, p) with one point per row unless the spec says
    ``params_per_row=False``; ``params[..., k]`` is right for both. Rows outside the support give ``-inf``.
    """

    spec: ModelSpec

    def log_density(self, x: FloatArray, params: FloatArray) -> FloatArray:
        """log P(x_i | params): x (n, d) to (n,), normalized over the support that the spec declares."""

    def log_density_gradient(self, x: FloatArray, params: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Value (n,) and gradient with respect to params (n, p)."""

    def log_density_gradient_x(self, x: FloatArray, params: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Value (n,) and gradient with respect to x (n, d)."""

    def sample(self, n: int, params: FloatArray, rng: np.random.Generator) -> FloatArray:
        """n draws from P, (n, d); all randomness from ``rng``."""

    def evaluate(self, params: FloatArray) -> FloatArray:
        """A forward map: params (m, p) to (m, q)."""


#: Bytes of rows that a likelihood of resident data calls a model with, and that it has at a time.
CALL_BYTES = 1 << 20
TAKE_BYTES = 64 << 20
#: Rows ``first`` to ``stop``, and their weights if they have any.
TakeRows = Callable[[int, int], tuple[FloatArray, FloatArray | None]]


def load(path: str, config: Config | None = None) -> LoadedModel:
    """The model that ``path`` names: ``file.py:Class``, ``package.module:Class``, or a short name of `BUNDLED`.

    Or a file of `DATA_FILES`: then all that it has are its datasets. Or a library, ``libmodel.so``, a description of
    one, ``model.json``, or both, ``libmodel.so:model.json``; ``config`` says how many threads share its rows.

    Raises
    ------
    ModelNotFound
        Where the file, the module or the name does not exist.
    ModelFailed
        Where it exists and raises; its traceback is the cause.
    InvalidInput
        Where it is not what a model has to be.
    BadVersion
        Where it is a library for another ``demos.h``.
    DatasetError
        Where it is a file of data that cannot be read.
    """
    place, name = find(path)
    if path.endswith(DATA_FILES):
        return LoadedModel(_find_class(DATA_MODEL)(path))
    if split_native(path):
        return LoadedModel(_find_class(NATIVE_MODEL)(path, config or Config.load()))
    try:
        module = _load_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except ModuleNotFoundError as error:
        if not place.endswith(".py") and f"{place}.".startswith(f"{error.name}."):
            raise ModelNotFound(f"model {path!r}: there is no module {error.name!r}") from None
        raise ModelFailed(f"model {path!r} needs the module {error.name!r}, which is not installed") from error
    except (Exception, SystemExit) as error:
        raise ModelFailed(f"model {path!r} could not be imported: {describe(error)}") from error
    made = getattr(module, name, None)
    if made is None:
        offered = ", ".join(k for k, v in vars(module).items() if _may_be_model(v, module)) or "no model at all"
        raise ModelNotFound(f"model {path!r}: {place} has no {name!r}; it has {offered}")
    try:
        return LoadedModel(made() if callable(made) else made)
    except (InvalidInput, NotOffered):
        raise
    except (Exception, SystemExit) as error:
        raise ModelFailed(f"model {path!r} could not be made: {describe(error)}") from error


def _find_class(name: str) -> Any:
    """A class of this package that stands above, or is seldom needed."""
    module, _, kind = name.partition(":")
    return getattr(importlib.import_module(module), kind)


def _may_be_model(value: Any, module: Any) -> bool:
    if not isinstance(value, type):
        return hasattr(value, "spec")
    return value.__module__ == module.__name__ and any(hasattr(value, name) for name in ("spec", *METHODS.values()))


def _load_file(path: Path) -> Any:
    name = f"demos_model_{path.stem}"  # not that of another module, such as random
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.resolve().parent))  # so that a model may import the files beside it, now or later
    spec.loader.exec_module(module)
    return module


#: The method of a model that each operation rests on.
METHODS = {
    Operation.LOG_DENSITY: "log_density",
    Operation.LOG_DENSITY_GRADIENT: "log_density_gradient",
    Operation.LOG_LIKELIHOOD: "log_density",
    Operation.LOG_LIKELIHOOD_GRADIENT: "log_density_gradient",
    Operation.SAMPLE: "sample",
    Operation.EVALUATE: "evaluate",
}


class LoadedModel:
    """A model that can be called as the contract says.

    Every method raises `ModelFailed`, with the model's own exception as cause, where the model raises or
    returns something of the wrong shape or type.
    """

    def __init__(self, model: Any) -> None:
        spec = getattr(model, "spec", None)
        if not isinstance(spec, ModelSpec):
            raise InvalidInput(f"{type(model).__name__} has no attribute 'spec' of type demos_hpc.ModelSpec")
        offered = [op.title for op, method in METHODS.items() if callable(getattr(model, method, None))]
        if callable(getattr(model, GRADIENT_X, None)):
            offered.append(GRADIENT_X)
        if spec.datasets:
            offered.append(Operation.DATASET.title)
        if Operation.LOG_LIKELIHOOD.title in offered:  # workers in Python hold data, and not all others do
            offered.append(Operation.UPLOAD.title)
        if not offered:
            raise InvalidInput(
                f"model {spec.name!r} has no datasets and none of the methods"
                f" {', '.join(sorted(set(METHODS.values())))}"
            )
        for name, columns in (("log_density", "observables"), ("sample", "observables"), ("evaluate", "outputs")):
            if name in offered and not getattr(spec, columns):
                raise InvalidInput(f"model {spec.name!r} has {name}() but its spec declares no {columns}")
        self.model = model
        spec = replace(spec, datasets=tuple(_place(dataset, type(model)) for dataset in spec.datasets))
        self.spec = spec.with_operations(offered)
        try:
            to_json(self.spec.to_dict())
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"the spec of model {spec.name!r} cannot be sent as JSON: {error}") from None
        #: A digest of the code that the model is made of, as far as it can be found: of the file of its class.
        self.source: str = getattr(model, "demos_source", None) or _digest_source(type(model))
        #: Those of a model that has threads of its own (`demos_hpc.native`).
        self.threads: int = getattr(model, "demos_threads", 1)
        self._streams = BlockStreams()
        #: Of a model that sets up the streams of blocks by itself (`demos_hpc.native`).
        self._sample_rows = getattr(model, "demos_sample_rows", None)

    def log_density(self, x: FloatArray, params: FloatArray) -> FloatArray:
        """x (n, d), params (p,) or (n, p) to (n,) float64."""
        return self._by_rows("log_density", x, params, ((),))[0]

    def log_density_gradient(self, x: FloatArray, params: FloatArray, *, wrt_x: bool = False) -> list[FloatArray]:
        """Value (n,) and gradient (n, p), or (n, d) with respect to x; zero where the value is -inf."""
        width = self.spec.n_observables if wrt_x else self.spec.n_params
        method = GRADIENT_X if wrt_x else "log_density_gradient"
        value, gradient = self._by_rows(method, x, params, ((), (width,)))
        outside = np.isneginf(value)
        if outside.any():
            gradient = np.where(outside[:, np.newaxis], 0.0, gradient)
        return [value, gradient]

    def log_likelihood_cells(
        self, x: FloatArray, params: FloatArray, *, gradient: bool = False, weights: FloatArray | None = None
    ) -> list[FloatArray]:
        """Sums over blocks of x (n, d) for params (k, p): (k, blocks), and (k, blocks, p) with ``gradient``.

        ``weights`` (n,) multiply the rows' terms; a row of weight zero counts for nothing, be its density zero.
        """
        rows, shape = self.spec.block_rows, (len(params), count_blocks(len(x), self.spec.block_rows))
        sums = [np.empty(shape), np.empty((*shape, self.spec.n_params))][: 1 + gradient]
        with np.errstate(invalid="ignore", over="ignore"):  # infinities are passed on, see the rule for them
            for nth, point in enumerate(params):  # summed at once, since a model may use its arrays again
                rows_of_point = self.log_density_gradient(x, point) if gradient else [self.log_density(x, point)]
                for target, array in zip(sums, rows_of_point, strict=True):
                    target[nth] = sum_blocks(array if weights is None else _weigh(array, weights), rows)
        return sums

    def log_likelihood_groups(
        self, take: TakeRows, n_rows: int, params: FloatArray, group: int, *, gradient: bool = False
    ) -> list[FloatArray]:
        """The same for groups of ``group`` blocks, a power of two: (groups, k), with ``gradient`` (groups, k, p).

        ``take(first, stop)`` gives rows (stop - first, d) of all ``n_rows`` and their weights, `TAKE_BYTES` at a time:
        where they are not in memory, there may be no room for all of them.
        """
        rows, row_bytes = self.spec.block_rows, 8 * max(self.spec.n_observables, 1)
        step = rows * group
        n_groups = count_blocks(n_rows, step)
        sums = [np.empty((n_groups, len(params))), np.empty((n_groups, len(params), self.spec.n_params))][
            : 1 + gradient
        ]
        # What a model is called with should stay in the processor's cache for all points.
        length = rows * max(1, CALL_BYTES // (rows * row_bytes))
        most = length * max(1, TAKE_BYTES // (length * row_bytes))
        taken = 0
        with np.errstate(invalid="ignore", over="ignore"):
            for nth in range(n_groups):
                end = min((nth + 1) * step, n_rows)
                parts = []
                for start in range(nth * step, end, length):
                    stop = min(start + length, end)
                    if stop > taken:
                        first, taken = start, min(start + most, n_rows)
                        x, weights = take(first, taken)
                    run = slice(start - first, stop - first)
                    some = None if weights is None else weights[run]
                    parts.append(self.log_likelihood_cells(x[run], params, gradient=gradient, weights=some))
                for target, cells in zip(sums, zip(*parts, strict=True), strict=True):
                    blocks = np.concatenate(cells, axis=1) if len(cells) > 1 else cells[0]
                    target[nth] = sum_pairwise(blocks.swapaxes(0, 1))
        return sums

    def sample(self, first_row: int, n: int, params: FloatArray, seed: int) -> FloatArray:
        """Draws ``first_row`` to ``first_row + n`` of the sequence that ``seed`` names, (n, d) float64.

        ``first_row`` stands at the beginning of a block.
        """
        rows = self.spec.block_rows
        if self._sample_rows is not None:
            return np.asarray(self._call("demos_sample_rows", first_row, n, params, seed))
        out = np.empty((n, self.spec.n_observables))
        for start in range(0, n, rows):
            count = min(rows, n - start)
            rng = self._streams.set(seed, (first_row + start) // rows)
            drawn = self._call("sample", count, params, rng)
            out[start : start + count] = self._checked("sample", drawn, (count, self.spec.n_observables))
        return out

    def evaluate(self, params: FloatArray) -> FloatArray:
        """params (m, p) to (m, q) float64."""
        out = np.empty((len(params), self.spec.n_outputs))
        for rows in self._runs(len(params)):
            got = self._call("evaluate", params[rows])
            out[rows] = self._checked("evaluate", got, out[rows].shape)
        return out

    def _by_rows(
        self, method: str, x: FloatArray, params: FloatArray, widths: tuple[tuple[int, ...], ...]
    ) -> list[FloatArray]:
        """Calls a method of (x, params) and checks its results, each (n, *width)."""
        spec = self.spec
        if spec.row_independent and (spec.params_per_row or params.ndim == 1):
            return self._results(method, self._call(method, x, params), len(x), widths)
        runs = list(self._runs(len(x)))
        if params.ndim == 2 and not spec.params_per_row:
            runs = [piece for run in runs for piece in _equal_runs(params, run)]
        out = [np.empty((len(x), *width)) for width in widths]
        for run in runs:
            point = params if params.ndim == 1 else params[run] if spec.params_per_row else params[run.start]
            got = self._results(method, self._call(method, x[run], point), run.stop - run.start, widths)
            for array, part in zip(out, got, strict=True):
                array[run] = part
        return out

    def _runs(self, n: int) -> Iterator[slice]:
        """The rows of one call each: all of them, or block by block where rows depend on one another."""
        step = max(n, 1) if self.spec.row_independent else self.spec.block_rows
        return (slice(start, min(start + step, n)) for start in range(0, n, step))

    def _call(self, method: str, *arguments: Any) -> Any:
        function: Callable[..., Any] | None = getattr(self.model, method, None)
        if function is None:
            raise NotOffered(f"model {self.spec.name!r} has no {method}(); it offers {', '.join(self.spec.operations)}")
        try:
            return function(*arguments)
        except StatusError as error:
            name = method.removeprefix("demos_").removesuffix("_rows")
            raise EXCEPTION_OF[error.status](f"{name}() of model {self.spec.name!r}: {error}") from None
        except (Exception, SystemExit) as error:
            raise ModelFailed(f"{method}() of model {self.spec.name!r} raised {describe(error)}") from error

    def _results(self, method: str, got: Any, n: int, widths: tuple[tuple[int, ...], ...]) -> list[FloatArray]:
        if len(widths) == 1:
            return [self._checked(method, got, (n, *widths[0]))]
        if not isinstance(got, tuple | list) or len(got) != len(widths):
            raise ModelFailed(f"{method}() of model {self.spec.name!r} returned no pair (value, gradient)")
        return [self._checked(method, part, (n, *width)) for part, width in zip(got, widths, strict=True)]

    def _checked(self, method: str, got: Any, shape: tuple[int, ...]) -> FloatArray:
        if type(got) is np.ndarray and got.dtype == np.float64 and got.shape == shape:
            return got
        try:
            array: Array = np.asarray(got)
        except ValueError as error:
            raise ModelFailed(f"{method}() of model {self.spec.name!r} returned no array: {error}") from error
        if array.shape != shape or array.dtype.kind not in "fiu":
            raise ModelFailed(
                f"{method}() of model {self.spec.name!r} returned shape {array.shape}, dtype {array.dtype};"
                f" the contract asks for {shape}, float64"
            )
        return array.astype(np.float64)


def _weigh(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Rows' terms (n,) or (n, p) times their weights (n,)."""
    by_row = weights if values.ndim == 1 else weights[:, np.newaxis]
    return np.where(by_row == 0.0, 0.0, values * by_row)


def _digest_source(kind: type) -> str:
    try:
        code = Path(inspect.getfile(kind)).read_bytes()
    except (TypeError, OSError):
        code = b""  # made in a notebook, or built in
    return hashlib.sha256(code + kind.__qualname__.encode()).hexdigest()


def _place(dataset: Dataset, kind: type) -> Dataset:
    """A dataset with its full path: it is relative to the file of the model's class."""
    try:
        directory = Path(inspect.getfile(kind)).resolve().parent
    except (TypeError, OSError):
        directory = Path.cwd()
    return replace(dataset, path=str(directory / dataset.path))


def _equal_runs(params: FloatArray, run: slice) -> Iterator[slice]:
    """The pieces of ``run`` whose rows of ``params`` are equal."""
    rows = params[run]
    changes = np.flatnonzero((rows[1:] != rows[:-1]).any(axis=1)) + 1
    edges = [run.start, *(run.start + changes).tolist(), run.stop]
    return (slice(a, b) for a, b in pairwise(edges))


def describe(error: BaseException) -> str:
    """Kind and text of an exception, even of one that cannot say what it is."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return f"{type(error).__name__} (whose text cannot be had)"


def format_traceback(error: BaseException) -> str:
    """The traceback of the model's own exception, for the caller far away; it begins where the model's code does."""
    cause = error.__cause__ or error
    trace = cause.__traceback__
    while trace is not None and _is_ours(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(cause), cause, trace))


def _is_ours(filename: str) -> bool:
    return filename == __file__ or filename.startswith("<frozen importlib") or filename == importlib.__file__
