from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from lcg.tasks.base import Task

WRITE, IGNORE_BIT, READ = 2, 3, 4


@dataclass
class FlipFlop(Task):
    """Read a one-bit memory: the target is the bit of the last write.

    A length of L tokens is L // 2 instructions, each a command and a bit. The first writes, the
    last reads, any other writes with some probability and else is to be ignored. The read's bit
    is the target, so source and target together have the nominal length (if that is even).
    Hard because: the last write lies ever further back among ever more bits to be ignored.
    Source: arXiv 2306.00946, as one final read in ASEntmax, arXiv 2506.16640. Differs from both
    in the probability of a write: constant there, so that the last write stays equally near the
    read at every length; here it falls with length. `per=instruction` gives the constant one.

    >>> print(FlipFlop(writes=2.0).example(14, seed=3))
    inputs <bos> w 0 w 0 i 1 i 1 w 0 i 0 r 0
    labels .     . . . . . . . . . . . . 0 <eos>
    """

    name: ClassVar[str] = "flip_flop"
    separator: ClassVar[bool] = False

    writes: float = 4.0
    """Expected number of writes after the first: per sequence, or per instruction."""
    per: Literal["sequence", "instruction"] = "sequence"
    """Unit of `writes`; `instruction` makes it a constant probability."""

    def __post_init__(self):
        super().__post_init__()
        self.require(
            self.per in ("sequence", "instruction"),
            f"per must be sequence or instruction, got {self.per!r}",
        )
        most = 1 if self.per == "instruction" else 2**16
        self.require(
            0 < self.writes <= most,
            f"writes must lie in (0, {most}] per {self.per}, got {self.writes}",
        )

    symbol_count = 5

    def symbol(self, symbol):
        return "01wir"[symbol]

    @property
    def min_length(self) -> int:
        choices = 1 if self.per == "instruction" else int(np.ceil(self.writes))
        return 2 * (choices + 2)

    def source_length(self, length):
        return length // 2 * 2 - 1

    def target_length(self, length):
        return 1

    def sample(self, rng, lengths):
        count = lengths[:, None] // 2
        column, row = np.arange(count.max()), np.arange(len(lengths))
        probability = self.writes / (count - 2) if self.per == "sequence" else self.writes
        writes = rng.random((len(row), len(column))) < probability
        writes[:, 0] = True
        writes &= column < count - 1
        command = np.where(writes, WRITE, IGNORE_BIT)
        command[row, count[:, 0] - 1] = READ
        bit = rng.integers(0, 2, command.shape)
        last_write = np.where(writes, column, 0).max(axis=1)
        source = np.stack([command, bit], axis=2).reshape(len(row), -1)
        return source, bit[row, last_write, None]
