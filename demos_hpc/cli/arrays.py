"""Arrays on the command line: files, or a few numbers written out."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..arguments import Params
from ..errors import DatasetError, DemosError, InvalidInput
from ..messages import FloatArray
from ..model_paths import DATA_FILES
from ..row_files import TEXT, is_number, is_row_file, open_rows
from ..spec import ModelSpec
from .output import to_plain

#: Endings of files that hold an array.
TABLES = (".npy", *TEXT, *DATA_FILES)


def read_array(text: str, name: str, columns: Sequence[str] = ()) -> FloatArray:
    """The array that ``text`` names or spells: a file of `TABLES`, or ``"10,-0.9; 20,-0.5"``, rows and columns.

    In an HDF5 file, ``file.h5:/name``, these are the rows of a dataset, or the fields ``columns`` of a compound one.

    Returns
    -------
    array
        float64; of two dimensions, but for a .npy file that has others.

    Raises
    ------
    InvalidInput
        Where it can be neither read nor understood.
    """
    try:
        if text.endswith(".npy"):
            return np.asarray(np.load(text, allow_pickle=False), dtype=np.float64)
    except (OSError, TypeError, ValueError, EOFError) as error:
        raise InvalidInput(f"{name}: {text} cannot be read: {error}") from None
    if is_row_file(text):
        rows = open_rows(text, name, columns)
        return rows.read(0, rows.shape[0])
    try:
        return np.array([[float(word) for word in row.split(",")] for row in text.strip("; ").split(";")])
    except ValueError:
        raise InvalidInput(
            f'{name} is {text!r}; it is a file ({", ".join(TABLES)}), or numbers as in "10,-0.9; 20,-0.5", a row each'
        ) from None


def read_rows_like(text: str, spec: ModelSpec) -> FloatArray:
    """x for a model, (n, d); plain numbers in a .npy file are a column if d is 1, and else one row."""
    x = read_array(text, "x", [o.name for o in spec.observables])
    if x.ndim == 1:
        return x.reshape(-1, 1) if spec.n_observables == 1 else x.reshape(1, -1)
    return x.reshape(0, spec.n_observables) if x.size == 0 else x


def read_params(words: Sequence[str], spec: ModelSpec, defaults: FloatArray) -> Params:
    """Parameters for a model from ``name=value`` words and files, the later ones counting.

    A .json file holds ``{name: value}``, a value being a number or a list of them, or one list in the model's order;
    a table holds points in the model's order, one per row. Names that are not given have their value in ``defaults``
    (p,), nan standing for none. None where there are no words.
    """
    values: dict[str, Any] = {}
    for word in words:
        given = _read_word(word, spec)
        if not isinstance(given, dict):
            if len(words) > 1:
                raise InvalidInput(f"params: {word} has all parameters; it is given alone")
            try:
                points: FloatArray = np.asarray(given, dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise InvalidInput(f"params: {word} holds no numbers: {error}") from None
            return points[0] if points.ndim == 2 and len(points) == 1 else points
        values.update(given)
    if not words:
        return None
    rest = zip(spec.param_names, defaults.tolist(), strict=True)
    return {**{name: value for name, value in rest if name not in values and not np.isnan(value)}, **values}


def _read_word(word: str, spec: ModelSpec) -> Any:
    if word.endswith(".json"):
        try:
            given = json.loads(Path(word).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InvalidInput(f"params: {word} cannot be read: {error}") from None
        if not isinstance(given, dict | list):
            raise InvalidInput(
                f"params: {word} holds {type(given).__name__}, not names with values or a list of values"
            )
        return given
    if "=" not in word:
        if is_row_file(word):
            return read_array(word, "params", spec.param_names)
        raise InvalidInput(f"params: {word!r} is neither name=value nor a file (.json, {', '.join(TABLES)})")
    values = {}
    for pair in word.split(","):
        name, _, value = pair.partition("=")
        if not is_number(value):
            raise InvalidInput(f"params: {pair!r} is not name=value with a number")
        values[name.strip()] = float(value)
    return values


def write_array(path: Path, names: Sequence[str], array: FloatArray, answer: Any, *, overwrite: bool) -> None:
    """Writes a result: .npy the array, .csv its columns with their names, .json ``answer``, as `to_plain` has it."""
    with open_new(path, overwrite=overwrite) as partial:
        if path.suffix == ".npy":
            with partial.open("wb") as file:
                write_npy_header(file, array.dtype, array.shape)
                file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        elif path.suffix == ".csv":
            with partial.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(names)
                writer.writerows(array.reshape(-1, len(names)).tolist())
        else:
            partial.write_text(json.dumps(to_plain(answer), allow_nan=False) + "\n", encoding="utf-8")


def write_npy_header(file: BinaryIO, dtype: np.dtype[Any], shape: Sequence[int]) -> None:
    """What stands in a .npy file before the values; `numpy.save` has no words for a full disk."""
    descr = np.lib.format.dtype_to_descr(dtype)
    header = {"descr": descr, "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_2_0(file, header)


@contextlib.contextmanager
def open_new(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Another name for a file that becomes ``path`` once it is complete, and is there as a whole or not at all.

    Raises
    ------
    InvalidInput
        Where there is such a file that must not be overwritten.
    DatasetError
        Where it cannot be written.
    """
    from ..result_files import PARTIAL, check_new  # h5py takes its time

    there = Path(os.path.realpath(path))
    partial = there.with_name(there.name + PARTIAL)
    check_new(path, overwrite=overwrite)
    try:
        try:
            yield partial
            check_new(path, overwrite=overwrite)
            os.replace(partial, there)
        finally:
            partial.unlink(missing_ok=True)
    except DemosError:  # of what is read, which may be an OSError as well
        raise
    except OSError as error:
        raise DatasetError(f"{path} cannot be written: {error.strerror or error}") from None


def check_writable(path: Path, endings: Sequence[str], *, overwrite: bool = True) -> None:
    """`InvalidInput` where a result could not be written, before it is computed.

    A data file that exists is looked into later: it may be the result already.
    """
    if path.suffix not in endings:
        raise InvalidInput(f"{path}: a file of which kind? Its name ends in {', '.join(endings)}")
    if path.is_dir():
        raise InvalidInput(f"{path} cannot be written: it is a directory")
    if not path.parent.is_dir():
        raise InvalidInput(f"{path} cannot be written: there is no directory {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InvalidInput(f"{path} cannot be written: permission denied")
    if path.exists():
        from ..result_files import check_new  # h5py takes its time

        check_new(path, overwrite=overwrite or path.suffix in DATA_FILES)


def check_apart(path: Path, *read: str) -> None:
    """`InvalidInput` where ``path`` is a file that is read: ``file``, ``file:/name/within``, ``library:file``.

    Other texts, which name no file, are passed over.
    """
    for text in read:
        for name in (text, text.rpartition(":/")[0], *text.split(":")):
            if _is_same(name, path):
                raise InvalidInput(f"{path} is the very file that is read: write to another one")


def _is_same(name: str, path: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return os.path.samefile(name, path)
    return False
