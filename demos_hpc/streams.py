"""Random streams that depend on the seed and the block of rows, never on the rank that draws.

Philox (Salmon et al., SC11, "Parallel random numbers: as easy as 1, 2, 3") is a function of a key and a
counter. The key is the seed; the block number stands in the highest word of the 256-bit counter, so each block
has 2^192 numbers of its own before it could meet its neighbor's.
"""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np

SEED_LIMIT = 2**64


def new_seed() -> int:
    """A seed for a caller who gave none: 64 bits from the operating system."""
    return secrets.randbits(64)


class BlockStreams:
    """One generator, set to the stream of one (seed, block) after another.

    Setting its state costs about 1 us; making a new generator would cost 6 to 20.
    """

    def __init__(self) -> None:
        self._philox = np.random.Philox(key=0)
        self._state: Any = dict(self._philox.state)
        self.generator = np.random.Generator(self._philox)

    def set(self, seed: int, block: int) -> np.random.Generator:
        """The generator, at the start of the stream of ``block`` under ``seed``."""
        self._state["state"] = {
            "counter": np.array([0, 0, 0, block], dtype=np.uint64),
            "key": np.array([seed, 0], dtype=np.uint64),
        }
        # Numbers kept back from an earlier stream must not leak into this one.
        self._state["buffer_pos"] = 4
        self._state["has_uint32"] = 0
        self._philox.state = self._state
        return self.generator
