"""Flip-flop languages: a one-bit memory."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from lcg.tasks.base import IGNORE, Task

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

    def evidence(self, inputs, labels):
        return _last_write(inputs, (labels != IGNORE) & (labels != self.eos))

    def chance(self, length):
        return 50.0


@dataclass
class FlipFlopLanguage(Task):
    """Read a one-bit memory again and again: FFL(p_w, p_i, p_r).

    A length of L tokens is L // 2 instructions, each a command and a bit. The first writes, the
    last reads; any other writes, is to be ignored or reads with probability p_w = `write`,
    p_i = `ignore`, p_r = 1 - p_w - p_i. The bit after a read is that of the last write, other bits
    are drawn uniformly. Scored is the bit that follows each read.
    Hard because: the last write lies geometrically far back, without bound; attention glitches
    there though a rule of two states solves it. The distance does not grow with the length but with
    p_i, in the sparse test set.
    Test sets: `test=sparse` makes p_i 0.98 in the test split, `test=dense` 0.1, with
    p_w = p_r = (1 - p_i) / 2; validation has the probabilities of training.
    Source: arXiv 2306.00946. Differs from ASEntmax, arXiv 2506.16640, whose one final read finds
    the last write among the last four instructions in 99.8 % of its samples.

    >>> print(FlipFlopLanguage(write=0.2, ignore=0.6).example(16, seed=1))
    inputs <bos> w 1 r 1 w 0 r 0 i 1 i 1 r 0 r 0
    labels .     . . 1 . . . 0 . . . . . 0 . 0 .
    """

    name: ClassVar[str] = "ffl"
    kind: ClassVar[Literal["labelled"]] = "labelled"

    write: float = 0.1
    """Probability p_w that an instruction writes."""
    ignore: float = 0.8
    """Probability p_i that an instruction is to be ignored; the rest is that of a read."""
    test: Literal["same", "sparse", "dense"] = "same"
    """Probabilities in the test split: those of training, few writes and reads, or many."""

    symbol_count = 5
    min_length = 4

    def __post_init__(self):
        super().__post_init__()
        self.require(
            min(self.write, self.ignore) >= 0 and self.write + self.ignore <= 1,
            f"write and ignore must be at least 0, their sum at most 1, got {self.write} and "
            f"{self.ignore}",
        )
        sets = "same", "sparse", "dense"
        self.require(self.test in sets, f"test must be one of {', '.join(sets)}, got {self.test!r}")

    def symbol(self, symbol):
        return "01wir"[symbol]

    def for_split(self, split):
        if split != "test" or self.test == "same":
            return self
        ignore = {"sparse": 0.98, "dense": 0.1}[self.test]
        return replace(self, ignore=ignore, write=(1 - ignore) / 2)

    def source_length(self, length):
        return length // 2 * 2

    def sample(self, rng, lengths):
        count = lengths[:, None] // 2
        shape = len(lengths), count.max()
        column, chosen = np.arange(shape[1]), rng.random(shape)
        command = np.where(chosen < self.write + self.ignore, IGNORE_BIT, READ)
        command[chosen < self.write] = WRITE
        command[:, 0] = WRITE
        command[column == count - 1] = READ
        last_write = np.maximum.accumulate(np.where(command == WRITE, column, 0), axis=1)
        bit, read = rng.integers(0, 2, shape), command == READ
        bit = np.where(read, np.take_along_axis(bit, last_write, axis=1), bit)
        target = np.full((*shape, 2), IGNORE)
        target[..., 0][read] = bit[read]
        source = np.stack([command, bit], axis=2)
        return source.reshape(shape[0], -1), target.reshape(shape[0], -1)

    def evidence(self, inputs, labels):
        return _last_write(inputs, labels != IGNORE)

    def chance(self, length):
        """Return what one bit at every read gets: each write that is read halves it."""
        read = 1 - self.write - self.ignore
        # States: the last write has not been read yet, it has.
        step = [[self.write + self.ignore, read / 2], [self.write, self.ignore + read]]
        return 100 * float(np.linalg.matrix_power(step, length // 2 - 2)[0] @ [0.5, 1])


def _last_write(inputs, scored):
    """Return the position of the last write command before each scored position."""
    writes = np.where(inputs == WRITE, np.arange(inputs.shape[1]), -1)
    return np.where(scored, np.maximum.accumulate(writes, axis=1), -1)
