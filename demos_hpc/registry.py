"""Which servers run, and where: one small file for each, in a directory that all hosts share.

A server writes its file every few seconds, so that its load is known and its silence noticed; a client reads them
all and takes the best. Nothing is locked and nothing is trusted: what is no endpoint is skipped and reported. What
the files say is a hint, and the server behind the door has the last word.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from .endpoint import FORMS, LONGEST_NAME, Endpoint, is_stale, rank_endpoints
from .errors import BadFrame, InvalidInput
from .shared_files import (
    Problem,
    explain,
    list_names,
    make_directory,
    read_json,
    remove_file,
    replace_file,
    sweep_temporary,
    to_content,
)

#: Bytes of the largest endpoint file that is read, and so of the largest that is written.
MAX_BYTES = 64 << 10
SUFFIX = ".json"

#: `list` is a method below.
Endpoints = list[Endpoint]


class Registry:
    """The endpoints in one directory; ``clock`` tells the time in Unix seconds, ``rng`` breaks ties."""

    def __init__(
        self, directory: Path, *, clock: Callable[[], float] = time.time, rng: random.Random | None = None
    ) -> None:
        self.directory = directory
        self._clock = clock
        self._rng = rng or random.Random()

    def publish(self, endpoint: Endpoint) -> None:
        """Writes a server's file, in place of its last one; makes the directory, for this user only, if there is none.

        It waits for the disk: a loop that must not wait calls it in a thread.

        Raises
        ------
        RegistryError
            Where that is not possible; what was there before is untouched.
        InvalidInput
            Where the file would be larger than readers accept.
        """
        content = to_content(endpoint.to_dict(), MAX_BYTES)
        make_directory(self.directory)
        replace_file(self._find_path(endpoint.id), content)

    def withdraw(self, id: str) -> None:  # noqa: A002
        """Removes the file of the server with this id, if there is one.

        Raises
        ------
        RegistryError
            Where it is there and stays.
        """
        remove_file(self._find_path(id))

    def list(self) -> tuple[Endpoints, list[Problem]]:
        """All servers, by name and then by age, and the files that were skipped."""
        endpoints, problems = [], []
        try:
            names = [name for name in list_names(self.directory) if name.endswith(SUFFIX)]
        except OSError as error:
            return [], [explain(error, str(self.directory))]
        for name in names:
            found = self._read(self.directory / name)
            if isinstance(found, Problem):
                problems.append(found)
            else:
                endpoints.append(found)
        return sorted(endpoints, key=lambda endpoint: (endpoint.name, endpoint.started, endpoint.id)), problems

    def find(self, name: str | None = None) -> Endpoints:
        """Servers of this name, or of a model of this name or UUID, or all: the one to try first comes first."""
        endpoints = [e for e in self.list()[0] if name is None or e.answers_to(name)]
        return rank_endpoints(endpoints, self._clock(), self._rng)

    def choose_name(self, model_name: str) -> str:
        """A name for a server of this model that no living server has: ``neutrino``, else ``neutrino-2``, ...

        Two servers that start at once may choose the same; only ids are unique.
        """
        now = self._clock()
        taken = {endpoint.name for endpoint in self.list()[0] if not is_stale(endpoint, now)}
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", model_name).lstrip(".-") or "model"
        endings = ("" if number == 1 else f"-{number}" for number in count(1))
        names = (stem[: LONGEST_NAME - len(ending)] + ending for ending in endings)
        return next(name for name in names if name not in taken)

    def sweep(self, older_than_seconds: float) -> int:
        """Removes temporary files of writers that died, and no endpoint; returns how many."""
        return sweep_temporary(self.directory, older_than_seconds, self._clock())

    def _find_path(self, id: str) -> Path:  # noqa: A002
        pattern, rule = FORMS["id"]
        if not pattern.fullmatch(id):
            raise InvalidInput(f"{id!r} is no server's id; an id {rule}")
        return self.directory / (id + SUFFIX)

    def _read(self, path: Path) -> Endpoint | Problem:
        values = read_json(path, MAX_BYTES)
        if isinstance(values, Problem):
            return values
        try:
            endpoint = Endpoint.from_dict(values)
        except (BadFrame, InvalidInput) as error:
            return Problem(path.name, str(error))
        if path.name != endpoint.id + SUFFIX:
            return Problem(path.name, f"belongs into {endpoint.id}{SUFFIX}: a copy?")
        return endpoint
