"""Which rows a likelihood of resident data is about: said by a client, and by workers that share them in memory."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from typing import Any

from .errors import BadFrame, InvalidInput

#: Bytes of a reference as JSON.
MOST_BYTES = 1 << 16
#: Columns of rows, and bytes of all rows together: addresses of memory have 47 bits.
MOST_COLUMNS = 1 << 16
MOST_ROW_BYTES = 1 << 46
#: What uploaded rows are called: SHA-256.
UPLOAD = re.compile(r"[0-9a-f]{64}")
#: What an upload says whose last column are weights.
LAST = "last"


@dataclass(frozen=True)
class Reference:
    """All rows of a dataset, or of an upload; one of both has a name.

    Parameters
    ----------
    dataset, identity
        The declared name, and what tells its file from others (`library`).
    upload
        The digest of uploaded rows.
    columns
        Fields of a compound dataset, in the order of the model's observables; none for one of shape (N, d) or (N,).
    weights, weights_identity
        What each row counts: another declared dataset of shape (N,) and the identity of its file; or without
        identity, a field of the same dataset; `LAST` for the last column of an upload; empty for 1.
    rows, width
        N, and d without weights.

    Raises
    ------
    InvalidInput
        Where these contradict one another.
    """

    dataset: str = ""
    upload: str = ""
    identity: str = ""
    columns: tuple[str, ...] = ()
    weights: str = ""
    weights_identity: str = ""
    rows: int = 0
    width: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.width <= MOST_COLUMNS:
            raise InvalidInput(f"resident data of {self.width} columns; there are 1 to {MOST_COLUMNS}")
        most = MOST_ROW_BYTES // (8 * (self.width + 1))
        if not 0 <= self.rows <= most:
            raise InvalidInput(f"resident data of {self.rows} rows; of {self.width} columns there are 0 to {most}")
        if bool(self.dataset) == bool(self.upload):
            raise InvalidInput(f"resident data are of a dataset or of an upload: {self.dataset!r}, {self.upload!r}")
        if self.upload:
            self._check_upload()
        else:
            self._check_dataset()

    def _check_upload(self) -> None:
        if not UPLOAD.fullmatch(self.upload):
            raise InvalidInput(f"an upload called {self.upload!r}; it is called by 64 hexadecimal digits")
        if self.identity or self.columns or self.weights_identity or self.weights not in ("", LAST):
            raise InvalidInput(f"an upload has neither identities nor columns, and weights only as {LAST!r}")

    def _check_dataset(self) -> None:
        if not self.identity or (self.weights_identity and not self.weights):
            raise InvalidInput(f"dataset {self.dataset!r} without the identity of its file, or weights without a name")
        if self.columns and len(self.columns) != self.width:
            raise InvalidInput(f"dataset {self.dataset!r}: {len(self.columns)} columns for {self.width} observables")
        if self.weights and not self.weights_identity and not self.columns:
            raise InvalidInput(
                f"dataset {self.dataset!r} has no fields, so its weights {self.weights!r} are another dataset"
            )

    def to_bytes(self) -> bytes:
        """As JSON; equal references have equal bytes. `InvalidInput` where these are more than `MOST_BYTES`."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        data = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
        if len(data) > MOST_BYTES:
            raise InvalidInput(f"names of columns that take {len(data)} bytes; at most {MOST_BYTES} can travel")
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Reference:
        """What `to_bytes` gave, however it is spaced; `BadFrame` where it is anything else."""
        if len(data) > MOST_BYTES:
            raise BadFrame(f"a reference of {len(data)} bytes; it has at most {MOST_BYTES}")
        try:
            values = json.loads(data.decode())
        except (ValueError, RecursionError) as error:
            raise BadFrame(f"a reference to resident data that is no JSON: {error}") from None
        if not isinstance(values, dict):
            raise BadFrame(f"a reference to resident data is a JSON object, not {type(values).__name__}")
        # Whatever a newer version adds would change which rows are meant: nothing is left out.
        if unknown := sorted(values.keys() - _KINDS.keys()):
            raise BadFrame(f"a reference to resident data with unknown members {', '.join(map(repr, unknown))}")
        if wrong := [name for name, value in values.items() if not _fits(value, _KINDS[name])]:
            raise BadFrame(f"a reference to resident data with {', '.join(wrong)} of the wrong type")
        try:
            return cls(**{**values, "columns": tuple(values.get("columns", ()))})
        except InvalidInput as error:
            raise BadFrame(str(error)) from None


_KINDS: dict[str, type] = {f.name: list if f.name == "columns" else type(f.default) for f in fields(Reference)}


def _fits(value: Any, kind: type) -> bool:
    if not isinstance(value, list):
        return type(value) is kind
    return kind is list and all(type(item) is str for item in value)
