from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lcg.tasks.base import IGNORE, Task


@dataclass
class MQAR(Task):
    """Multi-query associative recall: where a key comes again, the label is its value.

    A length of L tokens is L // 8 pairs of a key and a value, then each key once more among random
    symbols, the places drawn by a power law. Scored are these places alone.
    Hard because: ever more pairs must be told apart, at ever greater distances.
    Source: Zoology, arXiv 2312.04927. Differs from it in the number of pairs, which grows with the
    length.

    >>> print(MQAR(symbols=10).example(16, seed=1))
    inputs <bos> 1 9 0 8 0 1 1 9 2 3 8 4 2 8 2 4
    labels .     . . . . 8 . 9 . . . . . . . . .
    """

    name: ClassVar[str] = "mqar"
    kind: ClassVar[str] = "labelled"

    symbols: int = 64
    """Size of the alphabet: keys are the first half, values the second."""
    power: float = 0.1
    """Exponent of the distance between pairs and queries; 1 is uniform."""

    min_length = 8

    def check_length(self, length):
        super().check_length(length)
        most = self.symbols // 2 * 8 + 7
        self.require(length <= most, f"length {length} needs more keys than symbols has")

    def source_length(self, length):
        return length // 8 * 8

    def sample(self, rng, lengths):
        keys = self.symbols // 2
        source = rng.integers(0, self.symbols, (len(lengths), lengths.max()))
        target = np.full_like(source, IGNORE)
        for row, labels, pairs in zip(source, target, lengths // 8, strict=True):
            key = rng.permutation(keys)[:pairs]
            value = rng.integers(keys, self.symbols, pairs)
            row[0 : 2 * pairs : 2], row[1 : 2 * pairs : 2] = key, value
            near = np.arange(1, 3 * pairs + 1) ** (self.power - 1)
            places = 2 * (pairs + rng.choice(3 * pairs, pairs, False, near / near.sum()))
            row[places], labels[places] = key, value
        return source, target
