"""Which rows a likelihood of resident data is about."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from .errors import BadFrame


@dataclass(frozen=True)
class Reference:
    """Rows of a dataset, or of an upload."""

    dataset: str = ""
    upload: str = ""
    identity: str = ""
    columns: tuple[str, ...] = ()
    weights: str = ""
    weights_identity: str = ""
    rows: int = 0
    width: int = 0

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Reference:
        try:
            values = json.loads(data)
            return cls(**{**values, "columns": tuple(values["columns"])})
        except (ValueError, TypeError, KeyError) as error:
            raise BadFrame(f"a reference that is none: {error}") from None
