"""Data that a server's workers hold: a client names them, and only parameters travel."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from .arguments import read_rows
from .connection import Connection
from .elements import read_dtype
from .errors import InvalidInput, NotOffered
from .future import Future
from .messages import Array, FloatArray, Operation, from_json, to_json
from .reference import Reference
from .resident_plan import Rows, choose_group
from .spec import ModelSpec

#: Bytes of an upload that travel as one request, and requests that are under way at a time.
PART_BYTES = 4 << 20
PARTS = 4
Progress = Callable[[int, int], object]


class ResidentData:
    """Rows that the workers hold. Get them from `RemoteModel.resident` or `RemoteModel.upload`.

    Give them to `log_likelihood`, `log_likelihood_gradient` or `likelihood` in place of x. A slice of them,
    ``events[1_000:100_001]``, is such data as well; its sums are those of the same rows as an array, to the last bit.
    """

    def __init__(self, reference: Reference, model: str, rows: range | None = None) -> None:
        self._reference = reference
        self._asked = np.frombuffer(reference.to_bytes(), np.uint8)
        self._rows = range(reference.rows) if rows is None else rows
        #: What `ask` returns, time and again.
        self._words: tuple[list[Array], int] | None = None
        #: The UUID of the model that it was made for.
        self.model = model

    def __repr__(self) -> str:
        name = self._reference.dataset or f"upload {self._reference.upload[:8]}"
        weighted = ", weighted" if self._reference.weights else ""
        return f"<ResidentData {name}: {len(self)} of {self._reference.rows} rows, {self.width} columns{weighted}>"

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def width(self) -> int:
        """Columns, d."""
        return self._reference.width

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), self.width

    def __array__(self, dtype: Any = None, copy: Any = None) -> NoReturn:
        raise InvalidInput(
            f"{self!r} is with the workers: give it to log_likelihood, log_likelihood_gradient or likelihood; rows of a"
            " dataset come by model.dataset(name)"
        )

    def __getitem__(self, key: slice) -> ResidentData:
        if not isinstance(key, slice):
            raise InvalidInput(f"{key!r}: of resident data a slice can be taken, such as data[1_000:100_001]")
        try:
            rows = self._rows[key]
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"{key}: {error}") from None
        if rows.step < 1:
            raise InvalidInput(f"{key}: the step of a slice of resident data is 1 or more")
        return ResidentData(self._reference, self.model, rows)

    def ask(self, block_rows: int) -> tuple[list[Array], int]:
        """The arrays that name these rows in a request, and the number of groups that they are added in."""
        if self._words is None:
            rows = self._rows
            step = rows.step if len(rows) > 1 else 1  # one of any length leads to a single row
            span = Rows(rows.start, step, len(rows), choose_group(len(rows), block_rows))
            self._words = [self._asked, span.to_array()], span.count_groups(block_rows)
        return self._words


def find_dataset(connection: Connection, model: int, spec: ModelSpec, name: str) -> dict[str, Any]:
    """What a model's workers say of a dataset."""
    if not any(dataset.name == name for dataset in spec.datasets):
        if not spec.datasets:
            raise NotOffered(f"model {spec.name!r} has no datasets")
        names = ", ".join(repr(dataset.name) for dataset in spec.datasets)
        raise InvalidInput(f"model {spec.name!r} has no dataset {name!r}; it has {names}")
    answer = connection.ask(Operation.DESCRIBE, {"dataset": name}, model=model).result()
    return answer["datasets"][0]  # type: ignore[no-any-return]


def make_resident(
    description: dict[str, Any],
    spec: ModelSpec,
    columns: Sequence[str] | None,
    weights: dict[str, Any] | str | None,
) -> ResidentData:
    """The rows of a dataset, as its workers describe it; ``weights`` is a field of it, or another dataset.

    Raises
    ------
    InvalidInput
        Where they are no rows of the model's observables.
    """
    name, shape, dtype = description["name"], description["shape"], read_dtype(description["dtype"])
    d, fields = spec.n_observables, dtype.names
    if isinstance(columns, str):
        raise InvalidInput(f"columns is {columns!r}; it is a list of fields: [{columns!r}]")
    if description["kind"] != "rows" or shape is None:
        raise InvalidInput(f"dataset {name!r} has no rows of numbers")
    names: tuple[str, ...] = ()
    if fields is not None:
        names = tuple(columns) if columns is not None else tuple(o.name for o in spec.observables)
        if lacking := [column for column in names if column not in fields]:
            raise InvalidInput(
                f"dataset {name!r} has no field {', '.join(map(repr, lacking))}; it has {', '.join(fields)}: say with"
                f" columns=[…] which ones are {', '.join(o.name for o in spec.observables)}"
            )
        if len(names) != d or len(shape) != 1:
            raise InvalidInput(f"dataset {name!r}: {len(names)} columns of shape {tuple(shape)}; the model takes {d}")
        for column in names:
            _check_numbers(dtype[column], f"field {column!r} of dataset {name!r}")
    elif columns is not None:
        raise InvalidInput(f"dataset {name!r} has no fields, so columns cannot be chosen")
    elif len(shape) not in (1, 2) or (shape[1] if len(shape) == 2 else 1) != d:
        raise InvalidInput(f"dataset {name!r} has shape {tuple(shape)}; model {spec.name!r} takes (n, {d})")
    else:
        _check_numbers(dtype, f"dataset {name!r}")
    words = _read_weights(weights, description, dtype)
    reference = Reference(
        dataset=name, identity=description["identity"], columns=names, rows=shape[0], width=d, **words
    )  # fmt: skip
    return ResidentData(reference, spec.uuid)


def _check_numbers(dtype: np.dtype[Any], what: str) -> None:
    if dtype.kind not in "fiu":
        raise InvalidInput(f"{what} is of type {dtype}; rows are numbers")


def _read_weights(
    weights: dict[str, Any] | str | None, description: dict[str, Any], dtype: np.dtype[Any]
) -> dict[str, str]:
    if weights is None:
        return {}
    if isinstance(weights, str):
        if weights not in (dtype.names or ()):
            raise InvalidInput(
                f"weights {weights!r} are no field of dataset {description['name']!r}, and no dataset of the model"
            )
        _check_numbers(dtype[weights], f"weights {weights!r}")
        return {"weights": weights}
    _check_numbers(read_dtype(weights["dtype"]), f"weights {weights['name']!r}")
    if weights["shape"] != description["shape"][:1]:
        raise InvalidInput(
            f"weights {weights['name']!r} have shape {weights['shape']}; dataset {description['name']!r} has"
            f" {description['shape'][0]} rows"
        )
    return {"weights": weights["name"], "weights_identity": weights["identity"]}


def upload(
    connection: Connection,
    model: int,
    spec: ModelSpec,
    x: npt.ArrayLike,
    weights: npt.ArrayLike | None,
    progress: Progress | None,
) -> ResidentData:
    """Brings rows to the server, unless it has them already; see `RemoteModel.upload`."""
    spec.check_holding()
    rows = read_rows(x, "x", spec.n_observables, spec)
    if not len(rows):
        raise InvalidInput("x has no rows; there is nothing to upload")
    if weights is not None:
        rows = np.column_stack([rows, _check_weights(weights, len(rows))])
    digest = digest_rows(rows)
    reference = Reference(
        upload=digest, rows=len(rows), width=spec.n_observables, weights="" if weights is None else "last"
    )
    question = {"upload": digest, "rows": len(rows), "columns": rows.shape[1]}

    def ask(words: dict[str, Any], part: Array | None = None) -> Future:
        arrays = [to_json({**question, **words})]
        n_rows = 1 if part is None else len(part)
        if part is not None:
            arrays.append(part)
        return connection.start(Operation.UPLOAD, arrays, n_rows, 0, (), _read_json, model=model)

    if not ask({"do": "find"}).result()["is_here"]:
        step = max(1, PART_BYTES // rows[0].nbytes)
        under_way: list[Future] = []
        for first in range(0, len(rows), step):
            part = rows[first : first + step]
            under_way.append(ask({"do": "write", "first": first}, part))
            if len(under_way) >= PARTS:
                under_way.pop(0).result()
            if progress is not None:
                progress(first + len(part), len(rows))
        for future in under_way:
            future.result()
        ask({"do": "seal"}).result()
    return ResidentData(reference, spec.uuid)


def digest_rows(rows: FloatArray) -> str:
    """The name of uploaded rows: SHA-256 of their shape and bytes."""
    digest = hashlib.sha256(f"{rows.shape[0]} {rows.shape[1]} ".encode())
    digest.update(rows.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _check_weights(weights: npt.ArrayLike, n_rows: int) -> FloatArray:
    array = np.asarray(weights)
    if array.shape != (n_rows,) or array.dtype.kind not in "fiu":
        raise InvalidInput(f"weights have shape {array.shape} and dtype {array.dtype}; x takes numbers ({n_rows},)")
    return array.astype(np.float64)


def _read_json(arrays: list[Array]) -> Any:
    return from_json(arrays[0])
