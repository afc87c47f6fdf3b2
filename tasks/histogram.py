"""Counting."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from lcg.tasks.base import IGNORE, Task, uniform


@dataclass
class Count(Task):
    """Count from one number to another: the source is a and b, the target a, a + 1, ..., b.

    A length of L is that of the target, L = b - a + 1; the source has two tokens. Numbers are
    symbols; a is uniform among those that leave room.
    Hard because: the last number must be told from all others at ever more steps; what comes next
    is a fixed rule, so that a model which knows all successors generalizes.
    Source: RASP-L, arXiv 2310.16028.

    >>> print(Count().example(5))
    inputs <bos> 214 218 <sep> 214 215 216 217 218
    labels .     .   .   214   215 216 217 218 <eos>
    """

    name: ClassVar[str] = "count"

    symbols: int = 256
    """Number of numbers: the longest target."""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.symbols >= 2, f"symbols must be at least 2, got {self.symbols}")

    def check_length(self, length):
        super().check_length(length)
        self.require(
            length <= self.symbols,
            f"length {length} needs as many numbers, but symbols={self.symbols}",
        )

    def source_length(self, length):
        return 2

    def sample(self, rng, lengths):
        first = rng.integers(0, self.symbols - lengths + 1)[:, None]
        source = np.concatenate([first, first + lengths[:, None] - 1], axis=1)
        return source, np.minimum(first + np.arange(lengths.max()), self.symbols - 1)

    def evidence(self, inputs, labels):
        """Return a for the first number, b for all others: it says if one more is to come."""
        return self.trace(labels, lambda k, n: np.where(k == 0, 0, 1))

    def chance(self, length):
        return 100 / (self.symbols - length + 1)


@dataclass
class Histogram(Task):
    """Label each position with the number of times that its symbol has occurred, itself included.

    Counted modulo `modulus`, so that there are as many labels at every length.
    Hard because: all earlier occurrences count, of which there are ever more; their share of the
    attention does not tell their number, which must be exact.
    Source: RASP, arXiv 2106.06981. Differs from it in that a causal model counts what it has read,
    and in the modulus.

    >>> print(Histogram(symbols=3).example(10))
    inputs <bos> 1 2 2 1 2 1 2 0 2 0
    labels .     1 1 2 2 3 3 4 1 5 2
    """

    name: ClassVar[str] = "histogram"
    kind: ClassVar[Literal["tagging"]] = "tagging"

    symbols: int = 8
    """Size of the alphabet; symbols are drawn uniformly and independently."""
    modulus: int = 10
    """Number of labels."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("symbols", "modulus"):
            value = getattr(self, name)
            self.require(value >= 2, f"{name} must be at least 2, got {value}")

    @property
    def symbol_count(self) -> int:
        return max(self.symbols, self.modulus)  # labels share the ids of the symbols

    def sample(self, rng, lengths):
        source = uniform(rng, 0, self.symbols, (len(lengths), lengths.max()))
        return source, (1 + _earlier(source)[0]) % self.modulus

    def evidence(self, inputs, labels):
        """Return the first occurrence of the symbol."""
        return np.where(labels == IGNORE, -1, _earlier(inputs)[1])

    def chance(self, length):
        """Return what the count that most symbols can have next gets, label by label."""
        ready, share = [self.symbols] + [0] * (self.modulus - 1), 100.0  # symbols by their count
        for _ in range(length):
            most = ready.index(max(ready))
            share *= ready[most] / self.symbols
            ready[most] -= 1
            ready[(most + 1) % self.modulus] += 1
            if share < 1e-9:
                return 0.0
        return share


def _earlier(rows):
    """Count the earlier occurrences of each symbol in its row, and find the first."""
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, axis=1)
    column = np.arange(rows.shape[1])
    new = np.diff(ordered, axis=1, prepend=-1) != 0
    begin = np.maximum.accumulate(np.where(new, column, 0), axis=1)
    count, first = np.empty_like(order), np.empty_like(order)
    np.put_along_axis(count, order, column - begin, axis=1)
    np.put_along_axis(first, order, np.take_along_axis(order, begin, axis=1), axis=1)
    return count, first
