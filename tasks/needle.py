"""Needles in a stream."""

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np

from lcg.tasks.base import Task, distinct, others, places
from lcg.tasks.streams import stream_rng

TELLS, ASKS, FIRST_WORD = 0, 1, 2


@dataclass
class Needle(Task):
    """Find needles in a stream: `key : value` somewhere among other words, then `? key`.

    The source has L tokens, L the nominal length: needles at uniform places among random words,
    then the queries, each `?` and a key. The target is the value of each key asked for; of several
    values of a key all are asked for, in the order in which they stand. However long the stream,
    there are keys · values needles. No other word, in needles or around them, is a key of the
    sequence. The kinds of RULER: single (all 1), multi-key (`keys=4`), multi-value (`values=4`),
    multi-query (`keys=4 queries=4`).
    Without `literal`, queries name not the key but its associate, as in NoLiMa: words come in pairs
    by a table that is the same in all sequences and must have been learned; neither word of a pair
    stands anywhere else in the sequence.
    Hard because: a few tokens must outweigh ever more that tell nothing.
    Source: RULER, arXiv 2404.06654; NoLiMa, arXiv 2502.05167. Differs from both: words, not text;
    an exact answer, not one that contains the words; the association is a table, not knowledge of
    the world.

    >>> print(Needle(words=20).example(12))
    inputs <bos> 12 9 5 5 17 : 11 3 15 12 ? 17 <sep> 11
    labels .     .  . . . .  . .  . .  .  . .  11    <eos>
    >>> print(Needle(words=20, keys=2, literal=False).example(14))
    inputs <bos> 4 6 : 12 2 5 : 18 12 13 19 15 ? 11 <sep> 18
    labels .     . . . .  . . . .  .  .  .  .  . .  18    <eos>
    """

    name: ClassVar[str] = "needle"

    keys: int = 1
    """Number of keys in the stream."""
    values: int = 1
    """Number of values of each key, in needles of their own."""
    queries: int = 1
    """Number of keys asked for."""
    value_length: int = 1
    """Words of a value."""
    words: int = 1000
    """Number of words."""
    literal: bool = True
    """Ask with the key itself, not with its associate."""
    table_seed: int = 0
    """Seed of the table of associates."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("keys", "values", "queries", "value_length"):
            value = getattr(self, name)
            self.require(value >= 1, f"{name} must be at least 1, got {value}")
        self.require(
            self.queries <= self.keys,
            f"queries must be at most keys={self.keys}, got {self.queries}",
        )
        least = self._live + 2
        self.require(
            self.words >= least and self.words % 2 == 0,
            f"words must be even and at least {least}, got {self.words}",
        )

    @property
    def symbol_count(self) -> int:
        return FIRST_WORD + self.words

    def symbol(self, symbol):
        return ":?"[symbol] if symbol < FIRST_WORD else str(symbol - FIRST_WORD)

    @property
    def _live(self) -> int:
        """Number of words of a sequence that occur only as keys or queries."""
        return self.keys * (1 if self.literal else 2)

    @property
    def _needle(self) -> int:
        return 2 + self.value_length

    @property
    def min_length(self) -> int:
        return self.keys * self.values * self._needle + 2 * self.queries

    def target_length(self, length):
        return self.queries * self.values * self.value_length

    def sample(self, rng, lengths):
        rows, row = len(lengths), np.arange(len(lengths))[:, None]
        needles, size = self.keys * self.values, self._needle
        if self.literal:
            key = asks = live = distinct(rng, self.words, rows, self.keys)
        else:
            pair = distinct(rng, self.words // 2, rows, self.keys)
            live = _pairs(self.words, self.table_seed)[pair]
            live = rng.permuted(live, axis=2).transpose(2, 0, 1)
            key, asks = live
            live = np.concatenate([key, asks], axis=1)
        source = others(rng, live, self.words, (rows, lengths.max())) + FIRST_WORD
        value = others(rng, live, self.words, (rows, needles * self.value_length)) + FIRST_WORD
        value = value.reshape(rows, needles, self.value_length)

        hay = lengths - 2 * self.queries - needles * (size - 1)  # where a needle is one token
        begin = np.sort(places(rng, hay, needles), axis=1) + (size - 1) * np.arange(needles)
        of_key = rng.permuted(np.tile(np.arange(needles) % self.keys, (rows, 1)), axis=1)
        source[row, begin] = key[row, of_key] + FIRST_WORD
        source[row, begin + 1] = TELLS
        source[row[..., None], begin[..., None] + 2 + np.arange(self.value_length)] = value

        asked = distinct(rng, self.keys, rows, self.queries)
        end = lengths[:, None] - 2 * self.queries + 2 * np.arange(self.queries)
        source[row, end], source[row, end + 1] = ASKS, asks[row, asked] + FIRST_WORD
        # Stable: the needles of a key stay in their order.
        ordered = np.argsort(of_key, axis=1, kind="stable").reshape(rows, self.keys, self.values)
        return source, value[row[..., None], ordered[row, asked]].reshape(rows, -1)

    def evidence(self, inputs, labels):
        """Return the key of the needle."""
        rows = len(inputs)
        begin = np.nonzero(inputs == TELLS)[1].reshape(rows, -1) - 1
        key = np.take_along_axis(inputs, begin, axis=1)
        asks = np.nonzero(inputs == ASKS)[1].reshape(rows, -1) + 1
        asked = np.take_along_axis(inputs, asks, axis=1)
        if not self.literal:
            pairs = _pairs(self.words, self.table_seed)
            associate = np.empty(self.words, np.int64)
            associate[pairs] = pairs[:, ::-1]
            asked = associate[asked - FIRST_WORD] + FIRST_WORD
        other = key[:, None] != asked[..., None]
        found = np.argsort(other, axis=2, kind="stable")[..., : self.values].reshape(rows, -1)
        begin = np.take_along_axis(begin, found, axis=1) - 1

        def of_symbol(k, n):
            needle = np.clip(k // self.value_length, 0, begin.shape[1] - 1)
            return np.take_along_axis(begin, needle, axis=1)

        return self.trace(labels, of_symbol, ends=False)

    def chance(self, length):
        """Return what one word everywhere gets: values may be any word that is no key."""
        rest = float(self.words - self._live)
        return 100 / self.words * rest ** (1 - self.target_length(length))


@cache
def _pairs(words, seed):
    """Draw the pairs of associated words, [words // 2, 2], a fixed function of the arguments."""
    return stream_rng(0, "associates", words, seed).permutation(words).reshape(-1, 2)
