"""Parity."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from lcg.tasks.base import Task, shuffled, uniform


@dataclass
class Parity(Task):
    """The target is 1 if the number of ones is odd, else 0.

    With a scratchpad the target is the parity of the bits up to each one; the last is the answer.
    Hard because: every bit turns the answer around, so none may be missed, however many there are.
    A scratchpad leaves one bit and the symbol before to each step.
    Source: arXiv 2410.02140 (the number of ones is uniform in 0 .. L), parity check in arXiv
    2207.02098 (`ones=binomial`: fair bits). Differs from the code of the former in the answer,
    there one of two symbols of its own.
    Known: not in C-RASP; trained at lengths up to 50 without a scratchpad, GPT-2 blocks are right
    on 62 to 63 % of the sources at 101–150, where chance is 50 % (2410.02140).

    >>> print(Parity().example(6))
    inputs <bos> 1 1 1 0 1 1 <sep> 1
    labels .     . . . . . . 1     <eos>
    """

    name: ClassVar[str] = "parity"

    ones: Literal["uniform", "binomial"] = "uniform"
    """Law of the number of ones; binomial: each bit is fair."""
    scratchpad: bool = False
    """Write the parity of the bits up to each one, not the last alone."""

    symbol_count = 2

    def __post_init__(self):
        super().__post_init__()
        self.require(
            self.ones in ("uniform", "binomial"),
            f"ones must be uniform or binomial, got {self.ones!r}",
        )

    def target_length(self, length):
        return length if self.scratchpad else 1

    def sample(self, rng, lengths):
        shape = len(lengths), lengths.max()
        if self.ones == "binomial":
            bits = uniform(rng, 0, 2, shape)
        else:
            ones = np.arange(shape[1]) < rng.integers(0, lengths + 1)[:, None]
            bits = shuffled(rng, ones.astype(np.uint16), lengths)
        parities = np.bitwise_xor.accumulate(bits, axis=1)
        if self.scratchpad:
            return bits, parities
        return bits, np.take_along_axis(parities, lengths[:, None] - 1, axis=1)

    def evidence(self, inputs, labels):
        if self.scratchpad:
            return self.trace(labels, lambda k, n: k)
        return self.trace(labels, lambda k, n: 0, ends=False)

    def chance(self, length):
        if self.ones == "binomial":
            return 100 * 0.5 ** (length if self.scratchpad else 1)
        even = 1 if self.scratchpad else length // 2 + 1  # numbers of ones that the best answer has
        return 100 * even / (length + 1)


@dataclass
class CumulativeParity(Task):
    """Label each bit with the parity of the bits up to it.

    Hard because: as parity, but every prefix is asked for, so that models which carry a state learn
    one step of it. Source: a state tracking task as in arXiv 2312.04927 (zoology) and, for the
    group of two elements, 2404.08819.

    >>> print(CumulativeParity().example(6, seed=1))
    inputs <bos> 1 0 1 1 1 1
    labels .     1 1 0 1 0 1
    """

    name: ClassVar[str] = "cumulative_parity"
    kind: ClassVar[Literal["tagging"]] = "tagging"

    symbol_count = 2

    def sample(self, rng, lengths):
        bits = uniform(rng, 0, 2, (len(lengths), lengths.max()))
        return bits, np.bitwise_xor.accumulate(bits, axis=1)

    def evidence(self, inputs, labels):
        return np.where(labels >= 0, 1, -1)

    def chance(self, length):
        return 100 * 0.5**length
