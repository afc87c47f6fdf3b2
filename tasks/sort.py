from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lcg.tasks.base import Task, uniform


@dataclass
class Sort(Task):
    """The target is the source in ascending order, with repetitions.

    Hard because: each step must count how often a symbol occurred in the whole source and how
    often it has been written; both counts grow with the length. Source: ASEntmax, arXiv 2506.16640.

    >>> print(Sort(symbols=8).example(6))
    inputs <bos> 4 6 7 5 6 4 <sep> 4 4 5 6 6 7
    labels .     . . . . . . 4     4 5 6 6 7 <eos>
    """

    name: ClassVar[str] = "sort"

    symbols: int = 32
    """Size of the alphabet; symbols are drawn uniformly and independently."""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.symbols >= 2, f"symbols must be at least 2, got {self.symbols}")

    def sample(self, rng, lengths):
        source = uniform(rng, 0, self.symbols, (len(lengths), lengths.max()))
        target = source.copy()
        # What lies beyond a row's end takes the largest value, so that it stays there.
        beyond = np.arange(lengths.max()) >= lengths[:, None]
        np.copyto(target, np.iinfo(source.dtype).max, where=beyond)
        target.sort(axis=1)
        return source, target
