"""Copying and reordering a source."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from lcg.tasks.base import Task, distinct, uniform


@dataclass
class Copy(Task):
    """The target is the source, once or several times.

    Hard because: a symbol repeats every few positions, so beyond the training lengths its place,
    not its neighbourhood, says what comes next. Where the symbols of a source are `distinct`, the
    neighbour says it at every length. Source: ASEntmax, arXiv 2506.16640; unique copy (distinct
    among 150 symbols) and repeat copy (2 symbols): arXiv 2310.16028, 2410.02140; the string twice:
    arXiv 2207.02098.

    >>> print(Copy(symbols=8).example(6))
    inputs <bos> 4 6 7 5 6 4 <sep> 4 6 7 5 6 4
    labels .     . . . . . . 4     6 7 5 6 4 <eos>
    """

    name: ClassVar[str] = "copy"

    symbols: int = 32
    """Size of the alphabet; symbols are drawn uniformly and independently."""
    distinct: bool = field(default=False, metadata={"identity": "unless default"})
    """Draw the symbols of a source without replacement."""
    times: int = field(default=1, metadata={"identity": "unless default"})
    """Number of copies in the target."""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.symbols >= 2, f"symbols must be at least 2, got {self.symbols}")
        self.require(self.times >= 1, f"times must be at least 1, got {self.times}")

    def check_length(self, length):
        super().check_length(length)
        if self.distinct:
            self.require(
                length <= self.symbols,
                f"length {length} needs as many distinct symbols, but symbols={self.symbols}",
            )

    def target_length(self, length):
        return self.times * length

    def sample(self, rng, lengths):
        rows, width = len(lengths), lengths.max()
        if self.distinct:
            source = distinct(rng, self.symbols, rows, width)
        else:
            source = uniform(rng, 0, self.symbols, (rows, width))
        if self.times == 1:
            return source, source
        places = np.arange(self.times * width) % lengths[:, None]
        return source, np.take_along_axis(source, places, axis=1)

    def evidence(self, inputs, labels):
        return self.trace(labels, lambda k, n: k % n)

    def chance(self, length):
        if self.distinct:
            return 100 / math.perm(self.symbols, length)
        return 100 * float(self.symbols) ** -length
