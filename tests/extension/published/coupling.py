"""Addition with position coupling (2405.20671)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lcg.tasks.base import Task

PLUS = 10


@dataclass
class Addition(Task):
    """a + b, digits from the most significant on; the sum from the least significant one.

    Digits of one weight share a position id, in a, b and the sum; training begins the ids anywhere.

    >>> print(Addition().example(2, seed=0))
    inputs <bos> 8 6 + 5 2 <sep> 8 3 1
    labels .     . . . . . 8     3 1 <eos>
    """

    name: ClassVar[str] = "coupled_addition"
    symbol_count = 11

    most: int = 512
    """Training begins the ids at up to so many."""

    def symbol(self, symbol):
        return "0123456789+"[symbol]

    def source_length(self, length):
        return 2 * length + 1

    def target_length(self, length):
        return length + 1

    def sample(self, rng, lengths):
        rows, n = len(lengths), int(lengths.max())
        digits = rng.integers(0, 10, (2, rows, n))  # from the least significant one
        digits[:, np.arange(n) >= lengths[:, None]] = 0
        source, target = np.full((rows, 2 * n + 1), PLUS), np.zeros((rows, n + 1), np.int64)
        carry = np.zeros(rows, np.int64)
        for k in range(n + 1):
            total = carry + (digits[:, :, k].sum(axis=0) if k < n else 0)
            target[:, k], carry = total % 10, total // 10
        for row, m in enumerate(lengths):
            a, b = digits[:, row, :m][:, ::-1]
            source[row, : 2 * m + 1] = [*a, PLUS, *b]
        return source, target

    def position_ids(self, batch, rng, training):
        column, m = np.arange(batch.inputs.shape[1]), batch.lengths[:, None]
        start = rng.integers(1, self.most, m.shape) if training else 1
        in_a, in_b, in_sum = column - 1, column - m - 2, column - 2 * m - 3
        ids = np.where(in_a < m, m - in_a, np.where(in_b < m, m - in_b, in_sum + 1)) + start
        return np.where((batch.inputs >= PLUS) | (column == 0), 0, ids)
