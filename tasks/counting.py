"""Counting."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lcg.tasks.base import Task, distinct, shuffled, uniform


@dataclass
class Majority(Task):
    """The target is the symbol that occurs most often; sources with a tie are drawn again.

    With two symbols the number of zeros is uniform in 0 .. L, else all symbols are independent.
    With a period p the source is p sources of length L // p by turns, and the target has p symbols,
    one for each of them: majority among the positions 0, p, 2p, …, then among 1, p + 1, ….
    A nominal length of L is p·(L // p) tokens.
    Hard because: every symbol has a say, and the lead of the first over the second shrinks as a
    share of the length; with a period it must be known by position whose turn it is.
    Source: arXiv 2410.02140: binary (symbols=2), general (26 symbols), interleaved (symbols=2,
    period=3). Differs from its code in the length of interleaved sources, there rounded to the
    nearest multiple of p.

    >>> print(Majority(symbols=3).example(8))
    inputs <bos> 1 2 2 1 2 1 2 0 <sep> 2
    labels .     . . . . . . . . 2     <eos>
    """

    name: ClassVar[str] = "majority"

    symbols: int = 26
    """Size of the alphabet."""
    period: int = 1
    """Number of interleaved sources."""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.symbols >= 2, f"symbols must be at least 2, got {self.symbols}")
        self.require(self.period >= 1, f"period must be at least 1, got {self.period}")

    @property
    def min_length(self) -> int:
        return self.period

    def source_length(self, length):
        return length // self.period * self.period

    def target_length(self, length):
        return self.period

    def sample(self, rng, lengths):
        each = np.repeat(lengths // self.period, self.period)  # of the sources of all rows
        draw = self._binary if self.symbols == 2 else self._general
        source, answer = draw(rng, each)
        source = source.reshape(len(lengths), self.period, -1).swapaxes(1, 2)
        return source.reshape(len(lengths), -1), answer.reshape(len(lengths), -1)

    @staticmethod
    def _binary(rng, lengths):
        """Sources whose number of zeros is uniform, half of the length left out."""
        even = lengths % 2 == 0
        zeros = rng.integers(0, lengths + 1 - even)
        zeros += even & (zeros >= lengths // 2)
        ordered = np.arange(lengths.max()) >= zeros[:, None]
        return shuffled(rng, ordered.astype(np.int64), lengths), (2 * zeros < lengths).astype(int)

    def _general(self, rng, lengths):
        """Sources of independent symbols; those with a tie are drawn again."""
        source = uniform(rng, 0, self.symbols, (len(lengths), lengths.max()))
        answer = np.empty(len(lengths), np.int64)
        rows = np.arange(len(lengths))
        while rows.size:
            counts = count_symbols(source[rows], lengths[rows], self.symbols)
            answer[rows] = counts.argmax(axis=1)
            rows = rows[(counts == counts.max(axis=1, keepdims=True)).sum(axis=1) > 1]
            source[rows] = uniform(rng, 0, self.symbols, (rows.size, source.shape[1]))
        return source, answer

    def evidence(self, inputs, labels):
        return self.trace(labels, lambda k, n: k % self.period, ends=False)

    def chance(self, length):
        return 100 * float(self.symbols) ** -self.period


@dataclass
class Mode(Task):
    """The target is the symbol that occurs most often among the few that occur.

    Each source has `distinct` different symbols, drawn anew, each of which occurs; sources with a
    tie for the first place are drawn again. With a scratchpad the target is all of them, from the
    rarest to the most frequent (of those as frequent, the one that came first comes first), so that
    the last symbol is the answer.
    Hard because: as majority, and which symbols compete changes from source to source.
    Source: arXiv 2310.16028, whose scratchpad also writes the counts. Differs from the paper in
    that here none are written, since they would need tokens that short sources never have.

    >>> print(Mode(symbols=10, distinct=3, scratchpad=True).example(8))
    inputs <bos> 8 6 5 8 6 8 5 8 <sep> 6 5 8
    labels .     . . . . . . . . 6     5 8 <eos>
    """

    name: ClassVar[str] = "mode"

    symbols: int = 32
    """Size of the alphabet."""
    distinct: int = 5
    """Number of different symbols in a source."""
    scratchpad: bool = False
    """Write all symbols in ascending order of their counts, not the answer alone."""

    def __post_init__(self):
        super().__post_init__()
        self.require(
            2 <= self.distinct <= self.symbols,
            f"distinct must lie in 2 to symbols={self.symbols}, got {self.distinct}",
        )

    @property
    def min_length(self) -> int:
        return self.distinct + 1

    def target_length(self, length):
        return self.distinct if self.scratchpad else 1

    def sample(self, rng, lengths):
        competing = distinct(rng, self.symbols, len(lengths), self.distinct)
        which = np.zeros((len(lengths), lengths.max()), np.int64)  # of them, at each position
        order = np.empty_like(competing)
        rows = np.arange(len(lengths))
        while rows.size:
            drawn, order[rows], tied = self._attempt(rng, lengths[rows])
            which[rows, : drawn.shape[1]] = drawn
            rows = rows[tied]
        source = np.take_along_axis(competing, which, axis=1)
        target = np.take_along_axis(competing, order, axis=1)
        return source, target if self.scratchpad else target[:, -1:]

    def _attempt(self, rng, lengths):
        """Draw rows of 0 .. distinct - 1, each in each, their order by count, and who has a tie."""
        which = rng.integers(0, self.distinct, (len(lengths), lengths.max()))
        which[:, : self.distinct] = np.arange(self.distinct)
        which = shuffled(rng, which, lengths)
        counts = count_symbols(which, lengths, self.distinct)
        first = (which[:, None] == np.arange(self.distinct)[:, None]).argmax(axis=2)
        order = np.lexsort((first, counts), axis=1)
        ranked = np.take_along_axis(counts, order, axis=1)
        return which, order, ranked[:, -1] == ranked[:, -2]

    def evidence(self, inputs, labels):
        return self.trace(labels, lambda k, n: 0, ends=False)

    def chance(self, length):
        if self.scratchpad:  # no order is likelier than another
            return 100 / math.perm(self.symbols, self.distinct)
        return 100 / self.symbols


def count_symbols(rows: np.ndarray, lengths: np.ndarray, symbols: int) -> np.ndarray:
    """[batch, symbols]: how often each symbol occurs within a row's length."""
    own = np.arange(rows.shape[1]) < lengths[:, None]
    slot = np.arange(len(rows))[:, None] * symbols + rows
    return np.bincount(slot[own], minlength=len(rows) * symbols).reshape(-1, symbols)
