"""Server-side parameters on disk: what ``set_params`` has set, one file for each revision of it.

They belong to a model, by its UUID, and stand beside the servers' entries, so that all servers of the model follow
and a restarted one finds them. A revision is written once and never changed: of two servers that write the same
one at once, exactly one succeeds, and the other looks at what is there now before it tries the next.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
import stat
import time
import uuid
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from reprlib import repr as abridge
from typing import Any

from .errors import InvalidInput
from .shared_files import (
    LOOKS,
    Problem,
    complain_about,
    create_file,
    explain,
    list_names,
    make_directory,
    read_json,
    remove_file,
    sweep_temporary,
    to_content,
)

#: Revisions that are kept: the last is in force, the others are there should it be damaged.
KEPT = 16
#: Bytes of the largest file, some 10,000 parameters.
MAX_BYTES = 1 << 20
#: The wire has 32 bits for a revision, and 0 stands for any.
MAX_REVISION = (1 << 32) - 1
FILE = re.compile(r"([1-9][0-9]{0,9})\.json")
#: Seconds after which a temporary file has lost its writer.
LEFT_BEHIND = 3600.0


class Revisions:
    """The revisions of one model's server-side parameters, under a registry's directory."""

    def __init__(self, directory: Path, model_uuid: str) -> None:
        try:
            self._uuid = str(uuid.UUID(model_uuid))  # in its one canonical form it is no path
        except (ValueError, AttributeError, TypeError):
            raise InvalidInput(f"{model_uuid!r} is not a UUID") from None
        self._registry = directory
        self.directory = directory / "params" / self._uuid
        #: What the last `read` has skipped.
        self.problems: list[Problem] = []

    def read(self) -> tuple[int, dict[str, float]] | None:
        """The newest revision that is intact, and its values by parameter name; None where there is none.

        Never raises for what it finds: damaged files are skipped, and `problems` names them. Since a damaged one may
        have been in force, a server that already follows a newer revision stays with it.
        """
        for _ in range(LOOKS):
            self.problems = []
            try:
                revisions = self._find_revisions()
            except OSError as error:
                self.problems = [explain(error, str(self.directory))]
                return None
            for revision in reversed(revisions):
                found = self._read(revision)
                if not isinstance(found, Problem):
                    return revision, found
                self.problems.append(found)
            # All may be gone because as many newer ones have come; then these are found by looking again.
            if not any(problem.vanished for problem in self.problems):
                break
        return None

    def find_newest(self) -> int:
        """The largest revision that is taken, be it intact or not; 0 where none is. The next to write is one more.

        Raises
        ------
        RegistryError
            Where the directory is there, but cannot be read.
        """
        with complain_about(self.directory):
            return max(self._find_revisions(), default=0)

    def write(self, revision: int, values: Mapping[str, float]) -> bool:
        """Writes a revision, all its values by parameter name; False where this one or a later one is there already.

        Raises
        ------
        RegistryError
            Where it cannot be written.
        InvalidInput
            Where a value is no finite number, or the revision no number that the wire can carry.
        """
        if not 1 <= revision <= MAX_REVISION:
            raise InvalidInput(f"revision {revision} cannot be written; revisions are 1 to {MAX_REVISION}")
        checked = check_values(values)
        content = to_content(
            {"revision": revision, "values": checked, "sha256": self._digest(revision, checked)}, MAX_BYTES
        )
        with complain_about(self.directory):
            self._make_directory()
            if self.find_newest() >= revision or not create_file(self._find_path(revision), content):
                return False
            # A writer that slept, or had an old listing from NFS, may reuse a number that was swept long ago.
            if sum(other > revision for other in self._find_revisions()) >= KEPT:
                remove_file(self._find_path(revision))
                return False
            self._sweep()
        return True

    def _make_directory(self) -> None:
        """Who may enter and write the registry may do so here: a group shares both or neither."""
        make_directory(self._registry)
        make_directory(self.directory, stat.S_IMODE(self._registry.stat().st_mode))

    def _find_path(self, revision: int) -> Path:
        return self.directory / f"{revision}.json"

    def _find_revisions(self) -> list[int]:
        found = (FILE.fullmatch(name) for name in list_names(self.directory))
        return sorted(number for match in found if match and (number := int(match[1])) <= MAX_REVISION)

    def _read(self, revision: int) -> dict[str, float] | Problem:
        path = self._find_path(revision)
        found = read_json(path, MAX_BYTES)
        if isinstance(found, Problem):
            return found
        try:
            values = check_values(found.get("values"))
        except InvalidInput as error:
            return Problem(path.name, str(error))
        if found.get("revision") != revision or found.get("sha256") != self._digest(revision, values):
            return Problem(path.name, "is not as it was written: its checksum is another")
        return values

    def _digest(self, revision: int, values: Mapping[str, float]) -> str:
        text = json.dumps([self._uuid, revision, values], sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def _sweep(self) -> None:
        for revision in self._find_revisions()[:-KEPT]:
            with contextlib.suppress(OSError):  # of another user; the next writer may
                remove_file(self._find_path(revision))
        sweep_temporary(self.directory, LEFT_BEHIND, time.time())


def check_values(values: Any) -> dict[str, float]:
    """Parameters by name; `InvalidInput` where one is no finite number."""
    if not isinstance(values, Mapping):
        raise InvalidInput(f"parameters are given by name, not as {type(values).__name__}")
    for name, value in values.items():
        if not isinstance(name, str) or not _is_finite(value):
            raise InvalidInput(
                f"parameter {abridge(name)} = {abridge(value)}: server-side parameters are finite numbers by name"
            )
    return {name: float(value) for name, value in values.items()}


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond the largest float
        return False
