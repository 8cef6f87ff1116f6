"""What an examination of a model found: one finding per check, and the verdict over all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """How a check ended."""

    OK = "ok"
    #: Worth an author's attention, breaks no promise of the contract.
    WARNING = "warning"
    FAILED = "failed"
    #: Nothing could be said; the sentence tells why.
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """What one check found; ``sentence`` names the thing, the value and, where it is not well, the remedy."""

    check: str
    outcome: Outcome
    sentence: str

    def __str__(self) -> str:
        title = "FAILED" if self.outcome is Outcome.FAILED else str(self.outcome)
        return f"{title:8}{self.check:36}{self.sentence}"


@dataclass(frozen=True)
class Verdict:
    """All findings about one model, in the order of the checks."""

    model: str
    version: str
    seed: int
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """True where no check failed; warnings and skipped checks do not count against a model."""
        return not self.failures

    @property
    def failures(self) -> tuple[Finding, ...]:
        return self._select(Outcome.FAILED)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return self._select(Outcome.WARNING)

    @property
    def skipped(self) -> tuple[Finding, ...]:
        return self._select(Outcome.SKIPPED)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __getitem__(self, check: str) -> Finding:
        """The finding of one check, by its name."""
        for finding in self.findings:
            if finding.check == check:
                return finding
        raise KeyError(f"no check {check!r}; there are {', '.join(f.check for f in self.findings)}")

    def __str__(self) -> str:
        counts = Counter(finding.outcome for finding in self.findings)
        summary = ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome)
        title = f"{self.model} {self.version}: {'passed' if self.passed else 'FAILED'} ({summary}; seed {self.seed})"
        return "\n".join([title, *(f"  {finding}" for finding in self.findings)])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "passed": self.passed, "findings": [asdict(finding) for finding in self.findings]}

    def _select(self, outcome: Outcome) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.outcome is outcome)


class Remark(Exception):
    """Ends a check with an outcome other than ok."""

    def __init__(self, outcome: Outcome, sentence: str) -> None:
        super().__init__(sentence)
        self.outcome = outcome


def failed(sentence: str) -> Remark:
    return Remark(Outcome.FAILED, sentence)


def warned(sentence: str) -> Remark:
    return Remark(Outcome.WARNING, sentence)


def skipped(sentence: str) -> Remark:
    return Remark(Outcome.SKIPPED, sentence)
