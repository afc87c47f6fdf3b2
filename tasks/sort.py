"""Copying and reordering a source."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from lcg.tasks.base import Task, distinct, uniform


@dataclass
class Sort(Task):
    """The target is the source in ascending order, with repetitions.

    Hard because: each step must count how often a symbol occurred in the whole source and how
    often it has been written; both counts grow with the length. Where the symbols of a source are
    `distinct`, the next is the least that is larger than the last.
    Source: ASEntmax, arXiv 2506.16640; distinct among 150 symbols: arXiv 2410.02140; bucket sort
    (5 symbols): arXiv 2207.02098.

    >>> print(Sort(symbols=8).example(6))
    inputs <bos> 4 6 7 5 6 4 <sep> 4 4 5 6 6 7
    labels .     . . . . . . 4     4 5 6 6 7 <eos>
    """

    name: ClassVar[str] = "sort"

    symbols: int = 32
    """Size of the alphabet; symbols are drawn uniformly and independently."""
    distinct: bool = field(default=False, metadata={"identity": "unless default"})
    """Draw the symbols of a source without replacement."""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.symbols >= 2, f"symbols must be at least 2, got {self.symbols}")

    def check_length(self, length):
        super().check_length(length)
        if self.distinct:
            self.require(
                length <= self.symbols,
                f"length {length} needs as many distinct symbols, but symbols={self.symbols}",
            )

    def sample(self, rng, lengths):
        shape = len(lengths), lengths.max()
        if self.distinct:
            source = distinct(rng, self.symbols, *shape)
        else:
            source = uniform(rng, 0, self.symbols, shape)
        target = source.copy()
        # What lies beyond a row's end takes the largest value, so that it stays there.
        beyond = np.arange(lengths.max()) >= lengths[:, None]
        np.copyto(target, np.iinfo(source.dtype).max, where=beyond)
        target.sort(axis=1)
        return source, target

    def evidence(self, inputs, labels):
        return self.trace(labels, lambda k, n: 0)

    def chance(self, length):
        if self.distinct:
            return 100 / math.comb(self.symbols, length)
        # The likeliest sorted source has each symbol as often as any other, give or take one.
        often, more = divmod(length, self.symbols)
        ways = math.lgamma(length + 1) - self.symbols * math.lgamma(often + 1)
        return 100 * math.exp(ways - more * math.log(often + 1) - length * math.log(self.symbols))
