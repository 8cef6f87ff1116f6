"""What samplers take as a pool."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from .desk import open_desk
from .errors import InvalidInput
from .future import Future
from .likelihood import Likelihood
from .messages import FloatArray

#: Classes of samplers whose objects do nothing but ``f(x, *args, **kwargs)``.
_WRAPPERS = ("_FunctionWrapper", "_function_wrapper")
#: Methods of `Likelihood` that take all points at once.
_BATCHED = frozenset({"value_and_gradient", "gradient", "prior_transform", "fill_params"})


class Served(Protocol):
    """What the pool asks of its model."""

    @property
    def submit(self) -> Any: ...
    def metadata(self) -> dict[str, Any]: ...


class SamplerPool:
    """A pool for samplers: ``map`` spreads points over the workers of a served model. Get it from `RemoteModel.pool`.

    Nothing is pickled, and no function leaves this process: the model is where the work is done. So the pool
    serves functions that ask the model something.
    """

    def __init__(self, model: Served) -> None:
        self._model = model
        self._is_closed = False
        self._was_asked = False

    def __repr__(self) -> str:
        return f"<SamplerPool of {self._model!r}{', closed' if self._is_closed else ''}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """No more maps. The model stays connected."""
        self._is_closed = True

    @property
    def size(self) -> int:
        """How many workers serve the model now; twice that and more in flight keeps them busy."""
        return max(1, int(self._model.metadata()["workers"]))

    def map(self, function: Callable[[Any], Any], iterable: Iterable[Any]) -> list[Any]:
        """``[function(item) for item in iterable]``.

        A `Likelihood`, or `RemoteModel.log_likelihood` bound to its data by `functools.partial`, as they are or in
        emcee's wrapper: all points travel in one request. Another operation of the model: the requests are in
        flight together. Any other function, such as dynesty's proposals, is run here for all items at a time, and
        wherever they ask a `Likelihood` something, all their points travel in one request.

        Raises
        ------
        InvalidInput
            Where a function asks the model nothing: it cannot be sent to the workers, and gains nothing here.
        """
        if self._is_closed:
            raise ValueError("this pool is closed")
        items = list(iterable)
        if not items:
            return []
        inner = _unwrap(function)
        target, arguments, options = _take_apart(inner)
        owner, name = getattr(target, "__self__", None), getattr(target, "__name__", "")
        if isinstance(inner, Likelihood) or (isinstance(owner, Likelihood) and name in _BATCHED and not arguments):
            return _split(inner(_stack(items)))
        if owner is self._model and hasattr(self._model.submit, name):
            if name.startswith("log_likelihood") and len(arguments) == 1:
                return _split(inner(_stack(items)))
            return self._map_requests(getattr(self._model.submit, name), items, arguments, options)
        return self._map_here(function, items)

    def run(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """``function(*arguments, **options)`` for samplers that start threads of their own, such as nutpie.

        A connection belongs to the thread that made it: that thread, this one, answers what the others ask of any
        `Likelihood` meanwhile, and what they ask at the same time travels in one request.
        """
        if self._is_closed:
            raise ValueError("this pool is closed")
        with open_desk() as desk:
            return desk.run(functools.partial(function, *arguments, **options))

    def _map_requests(
        self, submit: Callable[..., Any], items: list[Any], arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> list[Any]:
        futures: list[Future] = []
        try:
            futures.extend(submit(*arguments, item, **options) for item in items)
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise

    def _map_here(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        with open_desk() as desk:
            values = desk.map(function, items)
            self._was_asked = self._was_asked or desk.n_asked > 0
        # dynesty maps prior transforms as well.
        if not self._was_asked and str(function.__module__).partition(".")[0] != "dynesty":
            raise InvalidInput(
                f"{function!r} asks the model nothing. Nothing is pickled, so a function of yours cannot be sent to"
                " the model's workers: let it ask a Likelihood (likelihood = model.likelihood(x, log_prior=...)),"
                " make it part of the model that is served, or use another pool for it"
            )
        return values


def _unwrap(function: Any) -> Any:
    """What is inside the wrappers in which samplers put the functions they are given."""
    while True:
        is_partial = isinstance(function, functools.partial)
        if not is_partial and type(function).__name__ not in _WRAPPERS:
            return function
        options = function.keywords if is_partial else function.kwargs
        if function.args or options:
            return function
        function = function.f if hasattr(function, "f") else function.func


def _take_apart(function: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    if isinstance(function, functools.partial):
        return function.func, function.args, dict(function.keywords)
    return function, (), {}


def _stack(items: list[Any]) -> FloatArray:
    """Points (k,) as (m, k)."""
    try:
        points = np.stack([np.asarray(item, dtype=np.float64) for item in items])
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"map takes points of one shape (k,): {error}") from None
    if points.ndim != 2:
        raise InvalidInput(f"map takes points (k,), not of shape {points.shape[1:]}")
    return points


def _split(answer: Any) -> list[Any]:
    """The answer to m points as m answers; values become floats."""
    if isinstance(answer, tuple):
        return list(zip(*map(_split, answer), strict=True))
    return answer.tolist() if answer.ndim == 1 else list(answer)
