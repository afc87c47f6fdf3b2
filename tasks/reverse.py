"""Copying and reordering a source."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lcg.tasks.base import Task, uniform


@dataclass
class Reverse(Task):
    """The target is the source in reverse order.

    Hard because: what comes next lies two positions further back with every symbol written, so
    no fixed distance helps, and distances beyond the training lengths are all new.
    Source: ASEntmax, arXiv 2506.16640; of two symbols: arXiv 2207.02098.

    >>> print(Reverse(symbols=8).example(6))
    inputs <bos> 4 6 7 5 6 4 <sep> 4 6 5 7 6 4
    labels .     . . . . . . 4     6 5 7 6 4 <eos>
    """

    name: ClassVar[str] = "reverse"

    symbols: int = 32
    """Size of the alphabet; symbols are drawn uniformly and independently."""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.symbols >= 2, f"symbols must be at least 2, got {self.symbols}")

    def sample(self, rng, lengths):
        source = uniform(rng, 0, self.symbols, (len(lengths), lengths.max()))
        # Beyond a row's end the index turns negative and wraps: a symbol that is ignored.
        mirrored = lengths[:, None] - 1 - np.arange(lengths.max())
        return source, np.take_along_axis(source, mirrored, axis=1)

    def evidence(self, inputs, labels):
        return self.trace(labels, lambda k, n: n - 1 - k)

    def chance(self, length):
        return 100 * float(self.symbols) ** -length
