"""Times sorted into buckets, each 12 % wider than the one before: any quantile to within that, in 200 integers."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate
from typing import Any, Self

from .errors import InvalidInput

#: Buckets in a factor of ten.
PER_DECADE = 20
#: Upper ends of the buckets, inclusive, seconds: 1 us to 10,000 s. One more bucket holds what took longer.
EDGES = [float(f"{10 ** (k / PER_DECADE - 6):.4g}") for k in range(10 * PER_DECADE + 1)]
SHORTEST, LONGEST = EDGES[0], EDGES[-1]
#: What is said of a distribution.
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


class Histogram:
    """How often something took how long.

    ``counts`` has an entry for each of `EDGES` and one for what took longer; ``seconds`` is the sum of the times.
    """

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(EDGES) + 1)
        self.seconds = 0.0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        p50, p99 = self.quantile(0.5), self.quantile(0.99)
        return f"Histogram({self.count} times, {self.seconds:.6g} s, p50 {p50}, p99 {p99})"

    @property
    def count(self) -> int:
        return sum(self.counts)

    def add(self, seconds: float) -> None:
        """Counts one time. What no time should be (nan, negative) counts as none, what is infinite as the longest."""
        self.counts[bisect_left(EDGES, seconds)] += 1
        if 0.0 < seconds <= LONGEST:
            self.seconds += seconds
        elif seconds > LONGEST:
            self.seconds += min(seconds, 1e9)  # one infinity would hide all the others

    def merge(self, other: Histogram) -> None:
        """Adds what another has counted."""
        self.counts = [mine + more for mine, more in zip(self.counts, other.counts, strict=True)]
        self.seconds += other.seconds

    def copy(self) -> Self:
        """The same, to be compared with later (`since`)."""
        same = type(self)()
        same.counts = self.counts.copy()
        same.seconds = self.seconds
        return same

    def since(self, earlier: Histogram | None) -> Histogram:
        """What was counted since ``earlier`` was copied from this one; everything, where that is None."""
        recent = self.copy()
        if earlier is not None:
            recent.counts = [max(0, now - then) for now, then in zip(self.counts, earlier.counts, strict=True)]
            recent.seconds = max(0.0, self.seconds - earlier.seconds)
        return recent

    def quantile(self, q: float) -> float | None:
        """The time that a fraction ``q`` of all did not exceed, seconds, to 12 %; None where there is none."""
        if not 0.0 <= q <= 1.0:
            raise InvalidInput(f"quantile {q}; it is a fraction, 0 to 1")
        sums = list(accumulate(self.counts))
        if not sums[-1]:
            return None
        wanted = max(q * sums[-1], 1.0)
        nth = bisect_left(sums, wanted)
        if nth == 0 or nth == len(EDGES):
            return SHORTEST if nth == 0 else LONGEST
        low, high = EDGES[nth - 1], EDGES[nth]
        fraction = (wanted - sums[nth - 1]) / self.counts[nth]
        return low * math.exp(fraction * math.log(high / low))

    def to_dict(self) -> dict[str, Any]:
        """For JSON: ``first``, the number of the first bucket that is not empty, ``counts`` from there, ``seconds``."""
        filled = [nth for nth, count in enumerate(self.counts) if count]
        if not filled:
            return {"first": 0, "counts": [], "seconds": 0.0}
        return {"first": filled[0], "counts": self.counts[filled[0] : filled[-1] + 1], "seconds": self.seconds}

    def describe(self) -> dict[str, Any]:
        """For JSON and people: `to_dict`, ``count``, and the quantiles ``p50``, ``p90``, ``p99`` (s; or null)."""
        quantiles = {name: self.quantile(q) for name, q in QUANTILES.items()}
        return {"count": self.count, **quantiles, **self.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From what `to_dict` or `describe` has made; `InvalidInput` where it is something else."""
        made = cls()
        try:
            first, counts = int(values["first"]), [int(count) for count in values["counts"]]
            made.seconds = float(values["seconds"])
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f"no histogram: {type(error).__name__}: {error}") from None
        if not 0 <= first <= len(made.counts) - len(counts) or any(count < 0 for count in counts):
            raise InvalidInput(f"a histogram of {len(counts)} buckets from {first} on; there are {len(made.counts)}")
        made.counts[first : first + len(counts)] = counts
        return made
