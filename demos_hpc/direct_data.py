"""A dataset that is served, read from the very file by the process that asks for it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from .chunk_cache import ChunkCache
from .errors import DatasetError
from .hdf5 import DataFile, split_path
from .library import LOOK_SECONDS
from .messages import Array
from .runs import Run
from .selection import Selection, arrange


class DirectData:
    """The dataset at ``path``, which is ``file.h5:/name/within``, if its identity is the one that the server has.

    Raises
    ------
    DatasetError
        Where it cannot be read, or is another one here.
    """

    def __init__(self, path: str, identity: str) -> None:
        place, inside = split_path(path)
        self._file = DataFile(place)
        try:
            self._dataset = self._file.find(inside)
            if self._dataset.identity != identity:
                raise DatasetError(
                    f"{place} is not the file here that it is at the server: read it without direct=True"
                )
        except DatasetError:
            self._file.close()
            raise
        self._cache = ChunkCache()
        self._next_look = 0.0

    def close(self) -> None:
        self._file.close()

    def read(self, selection: Selection, dtype: np.dtype[Any], out: Array | None) -> Any:
        """What is selected, elements as ``dtype``, as the caller wants it; in ``out``, where that is given.

        Raises
        ------
        DatasetError
            Where it cannot be read, or was changed since it was opened.
        """
        run = Run(selection.axes, 0, selection.fields, selection.is_flat)
        in_place = out is not None and out.dtype == dtype.base and selection.order is None and not dtype.hasobject
        room = out.reshape((*run.counts, *dtype.shape)) if in_place and out is not None else None
        # HDF5 must not read a file of which it remembers what is no longer so.
        if self._is_as_it_was():
            try:
                values = self._dataset.read(run, self._cache, room)
            except DatasetError:
                if self._file.is_unchanged():
                    raise
            else:
                if self._file.is_unchanged():
                    return out if in_place else arrange(values, selection, out)
        raise DatasetError(f"{self._file.path} was replaced or changed since it was opened; open the dataset again")

    def _is_as_it_was(self) -> bool:
        """Whether the file is unchanged and, looked at every now and then, its path still leads to it."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            if not self._file.is_current():
                return False
        return self._file.is_unchanged()
