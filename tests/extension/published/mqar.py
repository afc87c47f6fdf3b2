"""Multi-query associative recall (2312.04927)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lcg.tasks.base import IGNORE, Task


@dataclass
class MQAR(Task):
    """Pairs of a key and its value, then the keys again among fillers: each asks for its value.

    Scored are the repeated keys, wherever they stand in the stream.

    >>> print(MQAR(pairs=2, keys=4).example(10, seed=1))
    inputs <bos> k3 v2 k1 v0 k1 . k3 . . .
    labels .     .  .  .  .  v0 . v2 . . .
    """

    name: ClassVar[str] = "mqar"
    kind: ClassVar[str] = "labelled"

    pairs: int = 4
    """Number of pairs, whatever the length."""
    keys: int = 16
    """Number of keys, and of values."""

    @property
    def symbol_count(self):
        return 2 * self.keys + 1

    @property
    def min_length(self):
        return 3 * self.pairs

    def symbol(self, symbol):
        return (
            "." if symbol == 2 * self.keys else "kv"[symbol // self.keys] + str(symbol % self.keys)
        )

    def sample(self, rng, lengths):
        rows, width = len(lengths), int(lengths.max())
        keys = rng.permuted(np.tile(np.arange(self.keys), (rows, 1)), axis=1)[:, : self.pairs]
        values = rng.integers(self.keys, 2 * self.keys, keys.shape)
        source = np.full((rows, width), 2 * self.keys)
        source[:, 0 : 2 * self.pairs : 2], source[:, 1 : 2 * self.pairs : 2] = keys, values
        target = np.full((rows, width), IGNORE)
        for row, length in enumerate(lengths):
            at = 2 * self.pairs + rng.choice(length - 2 * self.pairs, self.pairs, replace=False)
            source[row, at], target[row, at] = keys[row], values[row]
        return source, target
