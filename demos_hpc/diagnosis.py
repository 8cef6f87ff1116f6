"""What one check of an installation found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .verdict import Outcome


@dataclass(frozen=True)
class Diagnosis:
    """What one check found; ``remedy`` is empty where nothing needs to be done."""

    check: str
    outcome: Outcome
    found: str
    remedy: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "outcome": str(self.outcome)}
