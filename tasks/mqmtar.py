"""Recall by key."""

import math
from copy import copy
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar

import numpy as np

from lcg.tasks.base import Task, distinct
from lcg.tasks.streams import stream_rng

SPACE, PAIR, QUERY, FIRST_LETTER = 0, 1, 2, 3


@dataclass
class MQMTAR(Task):
    """Multi-query multi-token associative recall: look up the values of some keys.

    The body holds floor(density·L / (key_length + value_length + 2)) pairs, or `pairs`, in slots of
    equal size, each `key : value` at a uniform place of its slot, spaces elsewhere. Then come the
    queries `? key`, keys of the body drawn with replacement; the target is `? value` for each.
    Within a sequence all keys are distinct words, all values too, and no word holds a space.
    Hard because: all letters of a key must match, among ever more keys that share some of them.
    Source: ASEntmax, arXiv 2506.16640. The nominal length L is about the body's: the source has 76
    tokens at L = 64 and 61178 at 65536.
    Vocabulary: which `words` keys and values exist is a fixed function of (vocabulary_seed, split,
    these fields). Evaluation splits have their own, mostly unseen in training, as in the authors'
    data; `fresh_words=false` or words = alphabet**key_length makes them those of training.
    Differs from the authors' data: they draw the words anew with each file; their places within a
    slot gather about its middle; they allow fewer pairs than asked for where words run out.

    >>> print(MQMTAR(alphabet=8, words=16, queries=1).example(18))
    inputs <bos> _ 4 8 : 7 7 _ _ _ 5 7 : 7 5 _ _ _ _ ? 4 8 <sep> ? 7 7
    labels .     . . . . . . . . . . . . . . . . . . . . . ?     7 7 <eos>
    """

    name: ClassVar[str] = "mqmtar"

    alphabet: int = 256
    """Number of letters."""
    words: int = 10_000
    """Number of keys, and of values; alphabet**key_length uses every possible word."""
    queries: int = 4
    """Number of queries."""
    density: float = 0.8
    """Share of the body taken up by pairs, each with one space after it."""
    key_length: int = 2
    """Letters of a key."""
    value_length: int = 2
    """Letters of a value."""
    vocabulary_seed: int = 0
    """Seed from which the words are drawn."""
    fresh_words: bool = True
    """Use different words in each evaluation split; otherwise all splits use those of training."""
    pairs: int = field(default=0, metadata={"identity": "unless default"})
    """Number of pairs at every length, so that only the spaces between them grow; 0: by density."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("alphabet", "words", "queries", "key_length", "value_length"):
            value = getattr(self, name)
            self.require(value >= 1, f"{name} must be at least 1, got {value}")
        self.require(
            0 <= self.pairs <= self.words,
            f"pairs must lie in 0 to words={self.words}, got {self.pairs}",
        )
        self.require(0 < self.density <= 1, f"density must lie in (0, 1], got {self.density}")
        letters = max(self.key_length, self.value_length)
        self.require(
            letters * math.log2(self.alphabet) < 63,
            f"alphabet={self.alphabet} gives 2**63 words of {letters} letters or more; use fewer",
        )
        possible = self.alphabet ** min(self.key_length, self.value_length)
        self.require(self.words < 2**31, f"words must be below 2**31, got {self.words}")
        self.require(self.words <= possible, f"words={self.words}, but only {possible} exist")
        self._split = "train"

    @property
    def symbol_count(self) -> int:
        return FIRST_LETTER + self.alphabet

    def symbol(self, symbol):
        return str(symbol) if symbol >= FIRST_LETTER else "_:?"[symbol]

    def for_split(self, split):
        task = copy(self)
        task._split = split if self.fresh_words else "train"
        return task

    # ---- lengths

    @property
    def _unit(self) -> int:
        return self.key_length + self.value_length + 2  # with the separator and a space

    def pairs_at(self, length):
        """Number of key-value pairs at a nominal length."""
        if self.pairs:
            return np.full_like(length, self.pairs) if np.ndim(length) else self.pairs
        return _whole(self.density * length // self._unit)

    def source_length(self, length):
        pairs = self.pairs_at(length)
        return pairs * (length // pairs) + self.queries * (1 + self.key_length)

    def target_length(self, length):
        return self.queries * (1 + self.value_length)

    @property
    def min_length(self) -> int:
        if self.pairs:
            return self.pairs * self._unit
        length = int(self._unit / self.density)
        return length if self.pairs_at(length) else length + 1

    def check_length(self, length):
        super().check_length(length)
        pairs = self.pairs_at(length)
        self.require(
            pairs <= self.words,
            f"length {length} needs {pairs} distinct keys, but words={self.words}",
        )

    # ---- data

    def sample(self, rng, lengths):
        batch, pairs = len(lengths), self.pairs_at(lengths)
        most = pairs.max()
        slot = (lengths // pairs)[:, None]
        vocabulary = self.words, self.alphabet, self.vocabulary_seed, self._split
        # Rows with fewer pairs use the first of them; the others land behind the body.
        keys = _words("key", self.key_length, *vocabulary)[distinct(rng, self.words, batch, most)]
        values = _words("value", self.value_length, *vocabulary)
        values = values[distinct(rng, self.words, batch, most)]
        begin = np.arange(most) * slot + rng.integers(0, slot - self._unit + 1, (batch, most))

        body = pairs * slot[:, 0]
        width = most * slot.max() + self.queries * (1 + self.key_length)
        source = np.full((batch, width), SPACE, keys.dtype)
        row = np.arange(batch)[:, None, None]
        separator = np.full((batch, most, 1), PAIR, keys.dtype)
        written = np.concatenate([keys, separator, values], axis=2)
        source[row, begin[..., None] + np.arange(self._unit - 1)] = written

        asked = rng.integers(0, pairs[:, None], (batch, self.queries))
        question = _marked(np.take_along_axis(keys, asked[..., None], axis=1))
        answer = _marked(np.take_along_axis(values, asked[..., None], axis=1))
        source[row[..., 0], body[:, None] + np.arange(question.shape[1])] = question
        return source[:, : self.source_length(lengths).max()], answer

    def evidence(self, inputs, labels):
        """Return the first letter of the key asked for; none for the `?`."""
        letters = 1 + self.value_length
        place = np.zeros((len(inputs), self.queries), np.int64)
        for row, answers in zip(inputs, place, strict=True):
            begin = np.flatnonzero(row == PAIR) - self.key_length
            keys = {row[b : b + self.key_length].tobytes(): b for b in begin}
            asked = np.flatnonzero(row == QUERY)[: self.queries] + 1
            answers[:] = [keys[row[a : a + self.key_length].tobytes()] for a in asked]

        def of_symbol(k, n):
            query = np.clip(k // letters, 0, self.queries - 1)
            return np.where(k % letters, np.take_along_axis(place, query, axis=1) - 1, -1)

        return self.trace(labels, of_symbol, ends=False)

    def chance(self, length):
        """Return what one value as the answer to every query gets."""
        return 100 / self.words / float(self.pairs_at(length)) ** (self.queries - 1)


@lru_cache(maxsize=16)
def _words(role, letters, count, alphabet, seed, split):
    """[count, letters] distinct words, a fixed function of the arguments."""
    rng = stream_rng(0, "words", role, letters, count, alphabet, seed, split)
    numbers = rng.choice(alphabet**letters, count, replace=False)
    places = alphabet ** np.arange(letters)
    dtype = np.int16 if alphabet < 2**15 - FIRST_LETTER else np.int64
    return (numbers[:, None] // places % alphabet + FIRST_LETTER).astype(dtype)


def _marked(words):
    """`? word` for each of [batch, queries, letters], one after the other."""
    return np.insert(words, 0, QUERY, axis=2).reshape(len(words), -1)


def _whole(number):
    return number.astype(np.int64) if isinstance(number, np.ndarray) else int(number)
