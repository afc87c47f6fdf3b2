"""Recall by key."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from lcg.tasks.base import IGNORE, Task, distinct, others, places, uniform


@dataclass
class MQAR(Task):
    """Multi-query associative recall: where a key comes again, the label is its value.

    First come `pairs` pairs of a key and its value, the keys of a sequence distinct, its values
    too. Each key comes once more, in slot g after the pairs with P(g) ∝ g^(power - 1); a slot has
    room for a key and one more token. All else are fillers: keys that this sequence gives no value.
    A length of L is L tokens, whatever the number of pairs, so that it is fillers that grow.
    Forms: `updates` gives so many of the keys another value, after all pairs; the last one counts
    (forgetting). `passes` states the pairs so often, each time in another order. In the form
    `compositional` a key is two tokens, the pairs a grid of m × m of these, so that neither token
    alone tells the value. In the form `stacked` a pair is one token.
    Hard because: a key must be found by content, at a distance up to the length; recurrent models
    must keep all pairs in their state.
    Source: Zoology, arXiv 2312.04927; several passes: arXiv 2407.05483. Differs from the authors'
    code: its fillers are any symbols, and equal a live key in 56 % of the sequences of its own
    example; a key stated early is asked for no earlier here; orders differ between passes; values
    after updates differ from all of the sequence.

    >>> print(MQAR(pairs=2, keys=6, values=6).example(14, seed=1))
    inputs <bos> k2 v4 k3 v5 k3 k5 k1 k1 k2 k1 k1 k4 k4 k0
    labels .     .  .  .  .  v5 .  .  .  v4 .  .  .  .  .
    >>> print(MQAR(pairs=4, keys=8, values=6, form="compositional").example(26))
    inputs <bos> k2 k5 v4 k3 k5 v3 k2 k6 v2 k3 k6 v5 k3 k6 k4 k3 k5 k4 k2 k6 k0 k2 k5 k4 k0 k1
    labels .     .  .  .  .  .  .  .  .  .  .  .  .  .  v5 .  .  v3 .  .  v2 .  .  v4 .  .  .
    """

    name: ClassVar[str] = "mqar"
    kind: ClassVar[Literal["labelled"]] = "labelled"

    form: Literal["plain", "compositional", "stacked"] = "plain"
    """Form of a pair: key and value, two keys and value, or both as one token."""
    pairs: int = 4
    """Number of pairs, at every length."""
    updates: int = 0
    """Number of keys that are given another value later."""
    passes: int = 1
    """Number of times that all pairs are stated."""
    keys: int = 4096
    """Number of keys, those that no sequence uses at once included."""
    values: int = 4096
    """Number of values."""
    power: float = 0.01
    """Exponent of the distance of the queries: 1 is uniform."""

    def __post_init__(self):
        super().__post_init__()
        forms = "plain", "compositional", "stacked"
        self.require(self.form in forms, f"form must be one of {', '.join(forms)}, got {self.form}")
        for name in ("pairs", "passes", "values"):
            value = getattr(self, name)
            self.require(value >= 1, f"{name} must be at least 1, got {value}")
        self.require(
            0 <= self.updates <= self.pairs,
            f"updates must lie in 0 to pairs={self.pairs}, got {self.updates}",
        )
        self.require(self.power > 0, f"power must be above 0, got {self.power}")
        if self.form == "compositional":
            square = math.isqrt(self.pairs) ** 2 == self.pairs
            self.require(square, f"pairs must be a square for a grid, got {self.pairs}")
        live = self._live
        self.require(
            self.keys > live,
            f"keys must be more than the {live} of a sequence, got {self.keys}",
        )
        self.require(
            self.values >= self.pairs + self.updates,
            f"values must be at least pairs + updates = {self.pairs + self.updates}, "
            f"got {self.values}",
        )
        self.require(
            self.symbol_count <= 2**20,
            f"stacked pairs need keys · values = {self.keys * self.values} symbols; at most 2^20 "
            "are possible",
        )

    @property
    def _live(self) -> int:
        """Number of key tokens of a sequence."""
        side = math.isqrt(self.pairs)
        return 2 * side if self.form == "compositional" else self.pairs

    @property
    def _key(self) -> int:
        """Tokens of a key."""
        return 2 if self.form == "compositional" else 1

    @property
    def _pair(self) -> int:
        """Tokens of a pair."""
        return {"plain": 2, "compositional": 3, "stacked": 1}[self.form]

    @property
    def _context(self) -> int:
        """Tokens of all pairs."""
        return (self.pairs * self.passes + self.updates) * self._pair

    @property
    def min_length(self) -> int:
        return self._context + self.pairs * (self._key + 1)

    @property
    def symbol_count(self) -> int:
        single = self.keys + self.values
        return single + self.keys * self.values * (self.form == "stacked")

    def symbol(self, symbol):
        if symbol < self.keys:
            return f"k{symbol}"
        if symbol < self.keys + self.values:
            return f"v{symbol - self.keys}"
        key, value = divmod(symbol - self.keys - self.values, self.values)
        return f"k{key}v{value}"

    def sample(self, rng, lengths):
        rows, row = len(lengths), np.arange(len(lengths))[:, None]
        live, key = self._draw_keys(rng, rows)
        value = self.keys + distinct(rng, self.values, rows, self.pairs + self.updates)
        stated = np.tile(np.arange(self.pairs), (rows, self.passes, 1))
        stated = rng.permuted(stated, axis=2).reshape(rows, -1)
        final, told = value[:, : self.pairs].copy(), np.take_along_axis(value, stated, axis=1)
        if self.updates:
            updated = distinct(rng, self.pairs, rows, self.updates)
            final[row, updated] = value[:, self.pairs :]
            stated = np.concatenate([stated, updated], axis=1)
            told = np.concatenate([told, value[:, self.pairs :]], axis=1)
        pair = np.concatenate([key[row, stated], told[..., None]], axis=2)
        if self.form == "stacked":  # numbered after the keys and the values, by key
            pair = self.values * (1 + pair[..., :1]) + pair[..., 1:]

        source = others(rng, live, self.keys, (rows, lengths.max()))
        target = np.full(source.shape, IGNORE)
        source[:, : self._context] = pair.reshape(rows, -1)
        slot = self._key + 1
        query = places(rng, (lengths - self._context) // slot, self.pairs, self.power)
        query = self._context + slot * query
        source[row[..., None], query[..., None] + np.arange(self._key)] = key
        target[row, query + self._key - 1] = final
        return source, target

    def _draw_keys(self, rng, rows):
        """Draw the key tokens of each row, and make keys of them, [rows, pairs, tokens]."""
        if self.form != "compositional":
            live = distinct(rng, self.keys, rows, self.pairs)
            return live, live[..., None]
        side, half = math.isqrt(self.pairs), self.keys // 2
        first = distinct(rng, half, rows, side)
        second = half + distinct(rng, self.keys - half, rows, side)
        i, j = np.divmod(np.arange(self.pairs), side)
        return np.concatenate([first, second], axis=1), np.stack([first[:, i], second[:, j]], 2)

    def evidence(self, inputs, labels):
        """Return the key in the last pair that states the value."""
        row, at = np.nonzero(labels != IGNORE)
        context = inputs[:, 1 : 1 + self._context].reshape(len(inputs), -1, self._pair)
        key = context[..., : self._key]
        if self.form == "stacked":
            key = (key - self.keys - self.values) // self.values
        asked = inputs[row[:, None], at[:, None] - np.arange(self._key)[::-1]]
        same = (key[row] == asked[:, None]).all(axis=2)
        found = np.full(labels.shape, -1)
        found[row, at] = 1 + (same.shape[1] - 1 - same[:, ::-1].argmax(axis=1)) * self._pair
        return found

    def chance(self, length):
        return 100 * falling(self.values, self.pairs)


@dataclass
class FuzzyRecall(Task):
    """Recall in context of words: where a key comes again, its value is to be told, token by token.

    Each sequence draws keys and a value for each, words of 1 to `longest` tokens, from alphabets of
    their own; by default so many keys that each comes some four times, however long the sequence.
    The stream is pairs, each a key drawn uniformly and its value; a pair is followed by a token of
    noise with probability `noise`. The pair at the end is cut. Scored is each token, in the stream,
    of the value of a key that came before. `longest=1` with noise is noisy recall. A length of L is
    L tokens.
    Hard because: words of unknown size must be joined, all their tokens must match, and noise moves
    them about; with the number of keys the distances grow. Where `keys` is fixed they do not.
    Source: MAD, arXiv 2403.17844. Differs from the authors' data: keys are those of the sequence,
    where theirs are drawn from all words; noise of one token; every token of a recurring value is
    scored; tokens of a word may be equal; test words are as long as those of training.

    >>> print(FuzzyRecall(symbols=3, longest=2, noise=0.3).example(20, seed=1))
    inputs <bos> k0 k0 v0 k0 k0 v0 k2 k2 v2 v1 k2 k2 v2 v1 n0 k0 k0 v0 k0 k0
    labels .     .  .  .  .  v0 .  .  .  .  .  .  v2 v1 .  .  .  v0 .  .  .
    """

    name: ClassVar[str] = "fuzzy_recall"
    kind: ClassVar[Literal["labelled"]] = "labelled"

    keys: int = 0
    """Number of keys of a sequence; 0: in proportion to its length."""
    symbols: int = 16
    """Size of each alphabet: of keys, of values, of noise."""
    longest: int = 3
    """Most tokens of a key, and of a value; each length is equally likely."""
    noise: float = 0.0
    """Probability of a token of noise after a pair."""

    def __post_init__(self):
        super().__post_init__()
        for name, least in (("keys", 0), ("symbols", 2), ("longest", 1)):
            value = getattr(self, name)
            self.require(value >= least, f"{name} must be at least {least}, got {value}")
        self.require(0 <= self.noise < 1, f"noise must lie in [0, 1), got {self.noise}")
        self.require(
            self.longest * math.log2(self.symbols + 1) < 52,
            f"longest={self.longest} gives too many words of {self.symbols} symbols; use less",
        )
        self._check_words(self.keys)

    def _check_words(self, keys):
        words = sum(self.symbols**n for n in range(1, self.longest + 1))
        self.require(keys <= words, f"keys={keys}, but only {words} words exist")

    def check_length(self, length):
        super().check_length(length)
        self._check_words(self.keys_at(length))

    def keys_at(self, length):
        """Return the number of keys at a nominal length."""
        if self.keys:
            return np.full_like(length, self.keys)
        return np.maximum(2, length // (4 * (self.longest + 1)))

    @property
    def min_length(self) -> int:
        """The tokens of more pairs than there are keys: one of these comes again."""
        return ((self.keys or 2) + 1) * (2 * self.longest + (self.noise > 0))

    @property
    def symbol_count(self) -> int:
        return 3 * self.symbols

    def symbol(self, symbol):
        return "kvn"[symbol // self.symbols] + str(symbol % self.symbols)

    def sample(self, rng, lengths):
        rows, width = len(lengths), lengths.max()
        row = np.arange(rows)[:, None]
        keys = self.keys_at(lengths)
        size, word, whole = self._draw_pairs(rng, rows, keys.max())
        which = rng.integers(0, keys[:, None], (rows, width // 2 + 1))
        count = whole[row, which] + (rng.random(which.shape) < self.noise)
        begin = count.cumsum(axis=1) - count
        begins = np.zeros((rows, width + 1), np.int64)
        np.put_along_axis(begins, np.minimum(begin, width), 1, axis=1)
        pair = begins[:, :width].cumsum(axis=1) - 1
        offset = np.arange(width) - begin[row, pair]

        key, last = which[row, pair], word.shape[2] - 1
        source = word[row, key, np.minimum(offset, last)]
        noise = 2 * self.symbols + uniform(rng, 0, self.symbols, source.shape).astype(np.int64)
        source = np.where(offset == whole[row, key], noise, source)
        order = np.argsort(which, axis=1, kind="stable")
        again = np.empty(which.shape, bool)
        earlier = np.diff(np.take_along_axis(which, order, axis=1), axis=1, prepend=-1) == 0
        np.put_along_axis(again, order, earlier, axis=1)
        inside = (offset >= size[row, key] - 1) & (offset < whole[row, key] - 1)
        inside[row[:, 0], lengths - 1] = False  # the end may cut a key, so that it equals another
        following = word[row, key, np.minimum(offset + 1, last)]
        return source, np.where(again[row, pair] & inside, following, IGNORE)

    def _draw_pairs(self, rng, rows, keys):
        """Draw pairs: the key's size, the tokens [rows, keys, 2 · longest], and their number."""
        self._check_words(keys)  # or it would draw for ever
        shape = rows, keys, self.longest
        size, letter = rng.integers(1, self.longest + 1, shape[:2]), np.zeros(shape, np.int64)
        again = np.ones(shape[:2], bool)
        while again.any():  # all, then those that another of the row equals
            size[again] = rng.integers(1, self.longest + 1, again.sum())
            letter[again] = rng.integers(0, self.symbols, (again.sum(), self.longest))
            code = _code(
                np.where(np.arange(self.longest) < size[..., None], letter, -1), self.symbols
            )
            order = np.argsort(code, axis=1, kind="stable")
            same = np.diff(np.take_along_axis(code, order, axis=1), axis=1, prepend=-1) == 0
            np.put_along_axis(again, order, same, axis=1)
        value = self.symbols + rng.integers(0, self.symbols, shape)
        place = np.arange(2 * self.longest)
        of_value = np.clip(place - size[..., None], 0, self.longest - 1)
        word = np.where(
            place < size[..., None],
            np.concatenate([letter, letter], axis=2),
            np.take_along_axis(value, of_value, axis=2),
        )
        return size, word, size + rng.integers(1, self.longest + 1, shape[:2])

    def evidence(self, inputs, labels):
        """Return the first token of the key where it came last."""
        in_key = inputs < self.symbols
        starts = in_key & ~np.pad(in_key[:, :-1], ((0, 0), (1, 0)))
        run = starts.cumsum().reshape(inputs.shape) - 1  # numbered through all rows
        row, begin = np.nonzero(starts)
        offset = np.arange(inputs.shape[1]) - begin[np.maximum(run, 0)]
        weight = (self.symbols + 1) ** np.clip(offset, 0, self.longest - 1)
        code = np.bincount(run[in_key], weights=((inputs + 1) * weight)[in_key])
        order = np.lexsort((begin, code, row))
        same = (np.diff(code[order], prepend=-1) == 0) & (np.diff(row[order], prepend=-1) == 0)
        before = np.full(len(row), -1)
        before[order[same]] = begin[order[np.flatnonzero(same) - 1]]
        return np.where(labels == IGNORE, -1, before[np.maximum(run, 0)])

    def chance(self, length):
        """Return what one symbol everywhere gets, if every key comes again (in long sequences)."""
        sizes = range(1, self.longest + 1)
        value = sum(float(self.symbols) ** -n for n in sizes) / self.longest
        return 100 * value ** float(self.keys_at(length))


@dataclass
class SelectiveCopy(Task):
    """Copy the symbols of a source that is mostly blank, in their order.

    A length of L tokens has `copied` symbols at random places, blanks elsewhere.
    Hard because: gaps are of any size, so that no distance tells what comes next; it must be
    counted how many symbols were copied, or passed.
    Source: Mamba, arXiv 2312.00752; MAD, arXiv 2403.17844.

    >>> print(SelectiveCopy(copied=3, symbols=8).example(10))
    inputs <bos> _ 4 6 7 _ _ _ _ _ _ <sep> 4 6 7
    labels .     . . . . . . . . . . 4     6 7 <eos>
    """

    name: ClassVar[str] = "selective_copy"

    copied: int = 16
    """Number of symbols to copy, at every length."""
    symbols: int = 16
    """Size of the alphabet, the blank left out."""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.copied >= 1, f"copied must be at least 1, got {self.copied}")
        self.require(self.symbols >= 2, f"symbols must be at least 2, got {self.symbols}")

    @property
    def symbol_count(self) -> int:
        return self.symbols + 1  # the blank last

    @property
    def min_length(self) -> int:
        return self.copied

    def symbol(self, symbol):
        return "_" if symbol == self.symbols else str(symbol)

    def target_length(self, length):
        return self.copied

    def sample(self, rng, lengths):
        source = np.full((len(lengths), lengths.max()), self.symbols)
        target = uniform(rng, 0, self.symbols, (len(lengths), self.copied)).astype(np.int64)
        place = np.sort(places(rng, lengths, self.copied), axis=1)
        np.put_along_axis(source, place, target, axis=1)
        return source, target

    def evidence(self, inputs, labels):
        shown = (inputs < self.symbols) & (np.cumsum(inputs == self.sep, axis=1) == 0)
        place = np.nonzero(shown)[1].reshape(len(inputs), self.copied) - 1

        def of_symbol(k, n):
            return np.take_along_axis(place, np.clip(k, 0, self.copied - 1), axis=1)

        return self.trace(labels, of_symbol, ends=False)

    def chance(self, length):
        return 100 * float(self.symbols) ** -self.copied


@dataclass
class NGramLookup(Task):
    """Look up an n-gram that occurs once: the target is what follows it.

    The source is a string of L uniform symbols and one of its n-grams, `|` between them: the n-gram
    last (`key=suffix`) or first (`key=prefix`). L is the nominal length; the source has
    L + gram + 1 tokens. The target is the `answer` symbols that follow the n-gram in the string,
    whose place is uniform.
    Hard because: all symbols of the n-gram must match, among ever more places that share some. With
    the n-gram first, a recurrent model need only wait for it; with it last, it must have kept the
    whole string.
    Source: Repeat After Me, arXiv 2402.01032. Differs from the authors' code: the n-gram occurs
    once (theirs may occur more often, and the first counts); the answer has a fixed length, where
    theirs is by default the rest of the string.

    >>> print(NGramLookup(symbols=4, gram=2, answer=2).example(10))
    inputs <bos> 3 2 2 1 1 0 0 0 0 3 | 1 0 <sep> 0 0
    labels .     . . . . . . . . . . . . . 0     0 <eos>
    """

    name: ClassVar[str] = "ngram_lookup"

    symbols: int = 26
    """Size of the alphabet."""
    gram: int = 3
    """Number of symbols of the n-gram."""
    answer: int = 4
    """Number of symbols to tell."""
    key: Literal["suffix", "prefix"] = "suffix"
    """Place of the n-gram: after the string or before it."""

    def __post_init__(self):
        super().__post_init__()
        for name, least in (("symbols", 2), ("gram", 1), ("answer", 1)):
            value = getattr(self, name)
            self.require(value >= least, f"{name} must be at least {least}, got {value}")
        found = self.key in ("suffix", "prefix")
        self.require(found, f"key must be suffix or prefix, got {self.key!r}")

    @property
    def symbol_count(self) -> int:
        return self.symbols + 1  # the separator last

    def symbol(self, symbol):
        return "|" if symbol == self.symbols else str(symbol)

    @property
    def min_length(self) -> int:
        return self.gram + self.answer

    def source_length(self, length):
        return length + self.gram + 1

    def target_length(self, length):
        return self.answer

    def sample(self, rng, lengths):
        rows, row = len(lengths), np.arange(len(lengths))[:, None]
        string = rng.integers(0, self.symbols, (rows, lengths.max()))
        place = rng.integers(0, lengths - self.min_length + 1)[:, None]
        gram = string[row, place + np.arange(self.gram)]
        while True:  # break up other places of the n-gram, at the end that is not in it
            at = string.shape[1] - self.gram + 1
            same = [string[:, i : i + at] == gram[:, i, None] for i in range(self.gram)]
            found, begin = np.nonzero(np.logical_and.reduce(same) & (np.arange(at) != place))
            if not len(found):
                break
            end = begin + np.where(begin < place[found, 0], 0, self.gram - 1)
            step = rng.integers(1, self.symbols, len(found))
            string[found, end] = (string[found, end] + step) % self.symbols
        target = string[row, place + self.gram + np.arange(self.answer)]
        mark = np.full((rows, 1), self.symbols)
        if self.key == "prefix":
            return np.concatenate([gram, mark, string], axis=1), target
        source = np.concatenate([string, np.zeros_like(gram), mark], axis=1)
        source[row, lengths[:, None]] = mark
        source[row, lengths[:, None] + 1 + np.arange(self.gram)] = gram
        return source, target

    def evidence(self, inputs, labels):
        """Return the place of the n-gram for the first symbol, of the symbol itself for others."""
        end = (labels != IGNORE).argmax(axis=1)[:, None]  # of SEP
        first = np.where(self.key == "prefix", 1, end - self.gram)
        gram = np.take_along_axis(inputs, first + np.arange(self.gram), axis=1)
        at = inputs.shape[1] - self.gram + 1
        same = [inputs[:, i : i + at] == gram[:, i, None] for i in range(self.gram)]
        same = np.logical_and.reduce(same) & (np.arange(at) != first)
        place = same.argmax(axis=1)[:, None] - 1
        return self.trace(
            labels, lambda k, n: place + np.where(k == 0, 0, self.gram + k), ends=False
        )

    def chance(self, length):
        return 100 * float(self.symbols) ** -self.answer


def falling(high: int, count: int) -> float:
    """Return the probability of one row of `count` distinct numbers below `high`."""
    return math.exp(math.lgamma(high - count + 1) - math.lgamma(high + 1))


def _code(letters, symbols):
    """Number the words: the last axis of `letters`, -1 after a word's end."""
    return ((letters + 1) * (symbols + 1) ** np.arange(letters.shape[-1])).sum(axis=-1)
