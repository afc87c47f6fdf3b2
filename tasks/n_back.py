"""Recall by distance."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from lcg.tasks.base import IGNORE, Task, uniform


@dataclass
class NBack(Task):
    """Label each position with the symbol n positions earlier.

    The source is a 0 followed by uniform symbols 1 .. symbols - 1; the first n labels are 0.
    Hard because: the distance is fixed and small, but must stay exact wherever in the sequence.
    Source: ASEntmax, arXiv 2506.16640. Differs from the authors' data in the length: the leading 0
    counts as one of the tokens.

    >>> print(NBack(n=2, symbols=6).example(10))
    inputs <bos> 0 5 5 4 5 3 4 2 5 2
    labels .     0 0 0 5 5 4 5 3 4 2
    """

    name: ClassVar[str] = "n_back"
    kind: ClassVar[Literal["tagging"]] = "tagging"

    n: int = 2
    """Distance of the label, in positions."""
    symbols: int = 16
    """Size of the alphabet, the leading 0 included."""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.n >= 1, f"n must be at least 1, got {self.n}")
        self.require(self.symbols >= 3, f"symbols must be at least 3, got {self.symbols}")

    @property
    def min_length(self) -> int:
        return self.n + 1

    def sample(self, rng, lengths):
        source = uniform(rng, 1, self.symbols, (len(lengths), lengths.max()))
        source[:, 0] = 0
        target = np.zeros_like(source)
        target[:, self.n :] = source[:, : -self.n]
        return source, target

    def evidence(self, inputs, labels):
        position = np.arange(inputs.shape[1])
        known = (labels != IGNORE) & (position > self.n)  # the first labels are 0 anyway
        return np.where(known, position - self.n, -1)

    def chance(self, length):
        return 100 * (self.symbols - 1.0) ** -(length - self.n - 1)
