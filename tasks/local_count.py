"""Counting."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from lcg.tasks.base import IGNORE, Task, uniform


@dataclass
class LocalCount(Task):
    """Label each position with the number of repetitions of its symbol so far: 0, 1, 2, ...

    The source is made of runs of one symbol; a run's length is uniform in 2 .. max_reps and its
    symbol differs from the run before.
    Hard because: equal symbols outside the run must not be counted, and more of them come with
    length. Source: ASEntmax, arXiv 2506.16640. Differs from the authors' data in the length, exact
    here (the last run is cut where the sequence ends), there a sum over a fixed number of runs.

    >>> print(LocalCount(symbols=4, max_reps=5).example(14))
    inputs <bos> 3 3 2 2 1 1 1 1 1 3 3 2 2 0
    labels .     0 1 0 1 0 1 2 3 4 0 1 0 1 0
    """

    name: ClassVar[str] = "local_count"
    kind: ClassVar[Literal["tagging"]] = "tagging"

    symbols: int = 16
    """Size of the alphabet."""
    max_reps: int = 48
    """Longest run."""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.symbols >= 2, f"symbols must be at least 2, got {self.symbols}")
        self.require(self.max_reps >= 2, f"max_reps must be at least 2, got {self.max_reps}")

    @property
    def symbol_count(self) -> int:
        return max(self.symbols, self.max_reps)  # labels share the ids of the symbols

    def sample(self, rng, lengths):
        batch, width = len(lengths), lengths.max()
        runs = (batch, width // 2 + 1)  # enough if every run has its least length
        # A step other than 0 around the alphabet: never the symbol of the run before.
        steps = uniform(rng, 1, self.symbols, runs)
        steps[:, 0] = uniform(rng, 0, self.symbols, (batch,))
        symbols = steps.cumsum(axis=1) % self.symbols

        ends = uniform(rng, 2, self.max_reps + 1, runs).cumsum(axis=1).astype(np.int64)
        begins = np.zeros((batch, width + 1), np.int64)
        np.put_along_axis(begins, np.minimum(ends, width), 1, axis=1)
        run = begins[:, :width].cumsum(axis=1)
        position = np.arange(width)
        begin = np.maximum.accumulate(begins[:, :width] * position, axis=1)
        return np.take_along_axis(symbols, run, axis=1), position - begin

    def evidence(self, inputs, labels):
        """Return the first symbol of the run."""
        begin = np.arange(inputs.shape[1]) - labels
        return np.where(labels == IGNORE, -1, begin)

    def chance(self, length):
        """Return what the longest possible runs get, the last of them cut."""
        runs = -(-length // self.max_reps) - 1
        rest = length - runs * self.max_reps
        uncut = (self.max_reps - max(rest, 2) + 1) / (self.max_reps - 1)
        return 100 * uncut * (self.max_reps - 1.0) ** -runs
