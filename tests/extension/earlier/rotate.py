from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lcg.tasks.base import Task, uniform


@dataclass
class Rotate(Task):
    """The target is the source with its first symbols moved to its end.

    Hard because: what comes next lies at a distance that grows with the length, and jumps once.
    Source: a neighbour of copy, arXiv 2506.16640.

    >>> print(Rotate(symbols=8, shift=2).example(6))
    inputs <bos> 4 6 7 5 6 4 <sep> 7 5 6 4 4 6
    labels .     . . . . . . 7     5 6 4 4 6 <eos>
    """

    name: ClassVar[str] = "rotate"

    symbols: int = 32
    """Size of the alphabet; symbols are drawn uniformly and independently."""
    shift: int = 1
    """How many symbols move."""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.symbols >= 2, f"symbols must be at least 2, got {self.symbols}")
        self.require(self.shift >= 1, f"shift must be at least 1, got {self.shift}")

    @property
    def min_length(self) -> int:
        return self.shift

    def sample(self, rng, lengths):
        source = uniform(rng, 0, self.symbols, (len(lengths), lengths.max()))
        places = (np.arange(lengths.max()) + self.shift) % lengths[:, None]
        return source, np.take_along_axis(source, places, axis=1)
