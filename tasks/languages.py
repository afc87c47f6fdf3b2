"""Recognition of formal languages.

A language draws members of a length, regular ones by their automata and others by construction,
and tells members from non-members. Words are [batch, symbols], the first `lengths` symbols of each
row; what lies beyond is any symbol.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from lcg.tasks.base import Task, shuffled

CHUNK = 2**20
"""Symbols at which automata look at once."""
MOST_EXCHANGES = 16
"""Attempts to leave a language by exchanging symbols, before they are replaced instead."""


@dataclass
class Recognition(Task):
    """The target is yes if the source is a word of a language, else no.

    Regular languages: tomita-1 … tomita-7 (1*; (10)*; no odd run of ones before an odd run of
    zeros; no 000; zeros and ones even in number; as many zeros as ones modulo 3; 0*1*0*1*), parity
    (an odd number of ones), even-pairs (pairs 01 and 10 even in number), repeat-01 ((01)*), first
    (begins with 1), dyck-K-M (K kinds of brackets, balanced, at most M deep; dyck-1-M is a bounded
    counter). Others: dyck-K (any depth; dyck-1 is a counter), shuffle-K (K counters: each kind
    balanced, whatever the others do), counter-K (as many a as b as …, in this order), majority
    (more ones than zeros), unmarked-reversal (w and then w reversed), marked-reversal (with #
    between them).
    Half of all sources are members: uniform ones of their length for dyck-K and regular languages,
    with a uniform number of ones for majority, with independent kinds of pairs for shuffle-K. The
    others are members after a few edits; half of these have symbols exchanged, so that no count of
    symbols tells them, where a language allows it, and half have symbols replaced. Where about half
    of all words are members (parity, even-pairs, first, tomita-5, tomita-6, majority) the others
    are drawn as members are.
    A nominal length of L is as many tokens, or the next smaller number that words can have.
    Hard because: one edit anywhere makes a non-member. Source: FLaRe, arXiv 2411.07107; Tomita's
    languages, bounded and unbounded counters, shuffles: 2009.11264. Differs from FLaRe in that all
    sources of one nominal length are equally long, so that no edit inserts or deletes.

    >>> print(Recognition().example(8, seed=1))
    inputs <bos> [ ] [ [ ) [ ] ] <sep> no
    labels .     . . . . . . . . no    <eos>
    >>> print(Recognition(language="tomita-4").example(8))
    inputs <bos> 0 0 1 1 1 1 1 1 <sep> yes
    labels .     . . . . . . . . yes   <eos>
    """

    name: ClassVar[str] = "recognition"

    language: str = "dyck-2-3"
    """The language."""

    def __post_init__(self):
        super().__post_init__()
        try:
            language_called(self.language)
        except ValueError as error:
            self.require(False, str(error))

    @property
    def _language(self) -> Language:
        return language_called(self.language)

    @property
    def symbol_count(self) -> int:
        return len(self._language.alphabet) + 2

    def symbol(self, symbol):
        return [*self._language.alphabet, "no", "yes"][symbol]

    @property
    def min_length(self) -> int:
        return self._language.least

    def source_length(self, length):
        step, offset = self._language.step, self._language.offset
        return (length - offset) // step * step + offset

    def target_length(self, length):
        return 1

    def sample(self, rng, lengths):
        lengths = self.source_length(lengths)
        source = np.zeros((len(lengths), lengths.max()), np.int64)
        member = rng.integers(0, 2, len(lengths))
        for draw, wanted in ((self._language.others, 0), (self._language.members, 1)):
            rows = np.flatnonzero(member == wanted)
            if rows.size:
                words = draw(rng, lengths[rows])
                source[rows, : words.shape[1]] = words
        return source, len(self._language.alphabet) + member[:, None]

    def evidence(self, inputs, labels):
        return self.trace(labels, lambda k, n: 0, ends=False)

    def chance(self, length):
        return 50.0


class Language(ABC):
    """A set of words over the symbols 0 .. len(alphabet) - 1.

    Its words have offset + i·step symbols; from `least` symbols on there are also non-members.
    """

    alphabet: Sequence[str] = "01"
    step, offset, least = 1, 0, 1

    @abstractmethod
    def members(self, rng: np.random.Generator, lengths: np.ndarray) -> np.ndarray:
        """Draw a member of each length."""

    @abstractmethod
    def accepts(self, words: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """[batch]: True for members."""

    def others(self, rng: np.random.Generator, lengths: np.ndarray) -> np.ndarray:
        """Draw a non-member of each length: a member after a few edits, drawn again if needed."""
        words = np.empty((len(lengths), lengths.max()), np.int64)
        rows, exchange = np.arange(len(lengths)), rng.random(len(lengths)) < 0.5
        attempts = 0
        while rows.size:
            edited = self.members(rng, lengths[rows])
            edit(rng, edited, lengths[rows], len(self.alphabet), exchange[rows])
            words[rows, : edited.shape[1]] = edited
            rows, attempts = rows[self.accepts(edited, lengths[rows])], attempts + 1
            exchange &= attempts < MOST_EXCHANGES
        return words


def edit(
    rng: np.random.Generator,
    words: np.ndarray,
    lengths: np.ndarray,
    symbols: int,
    exchange: np.ndarray,
) -> None:
    """Edit words, in place, at one place, at two with probability 1/4, at three with 1/8, ….

    Where `exchange` [batch] is True, the symbol there and another are exchanged, which keeps all
    counts; else it is replaced.
    """
    edits = rng.geometric(0.5, len(words))
    for done in range(edits.max()):
        row = np.flatnonzero(edits > done)
        place, other = rng.integers(0, lengths[row], (2, row.size))
        now, elsewhere = words[row, place], words[row, other]
        replaced = (now + rng.integers(1, symbols, row.size)) % symbols
        words[row, place] = np.where(exchange[row], elsewhere, replaced)
        words[row[exchange[row]], other[exchange[row]]] = now[exchange[row]]


# ---- regular languages


class Automaton(Language):
    """The words over two symbols after which an automaton that begins in state 0 accepts.

    transitions: for each state the next one after symbol 0, and after 1. half: about half of all
    words are members, so that a non-member is a uniform one.
    """

    def __init__(
        self,
        transitions: Sequence[tuple[int, int]],
        accepting: Sequence[int],
        half: bool = False,
        step: int = 1,
        least: int = 1,
    ):
        self.transitions = np.array(transitions, np.int8)
        self.accepting = np.isin(np.arange(len(transitions)), accepting)
        self.half, self.step, self.least = half, step, least

    def members(self, rng, lengths):
        return self._draw(rng, lengths, self.accepting)

    def others(self, rng, lengths):
        if self.half:
            return self._draw(rng, lengths, ~self.accepting)
        return super().others(rng, lengths)

    def accepts(self, words, lengths):
        found = np.empty(len(words), bool)
        for rows in _chunks(words.shape):
            states = _states(self.transitions[:, words[rows]].transpose(1, 2, 0))
            end = np.take_along_axis(states, lengths[rows, None] - 1, axis=1)
            found[rows] = self.accepting[end[:, 0]]
        return found

    def _draw(self, rng, lengths, wanted):
        """Draw words that lead to a wanted state, each with the same probability."""
        width = lengths.max()
        zero = self._zero(wanted, width)
        draws = rng.random((len(lengths), width))
        words = np.empty(draws.shape, np.int64)
        for rows in _chunks(draws.shape):
            left = np.maximum(lengths[rows, None] - np.arange(width), 1)
            one = draws[rows, :, None] >= zero[left]  # the symbol that each state would read
            after = np.where(one, self.transitions[:, 1], self.transitions[:, 0])
            before = np.pad(_states(after), ((0, 0), (1, 0)))[:, :-1]
            words[rows] = np.take_along_axis(one, before[..., None], axis=2)[..., 0]
        return words

    def _zero(self, wanted, most):
        """[symbols left, states]: the share of the words that lead from a state to a wanted one
        which begin with 0."""
        return _share_of_zero(
            tuple(map(tuple, self.transitions.tolist())),
            tuple(wanted.tolist()),
            -(-most // 4096) * 4096,
        )


@lru_cache(maxsize=64)
def _share_of_zero(transitions: tuple, wanted: tuple, most: int) -> np.ndarray:
    states = len(wanted)
    after, ways = np.array(transitions).T, np.array([wanted], float)
    step = np.zeros((states, states))
    for symbol in after:
        np.add.at(step, (np.arange(states), symbol), 1)
    # States that lead to no wanted one would outgrow all others in the powers of the step.
    leads = np.linalg.matrix_power(step + np.eye(states), states) @ ways[0] > 0
    step *= leads * leads[:, None]
    while len(ways) < most:  # the ways of twice as many lengths; their ratios are all that matters
        ways = np.concatenate([ways, ways @ step.T])
        ways /= ways.max(axis=1, keepdims=True)
        step = step @ step
        step /= step.max()
    zero, one = ways[:most, after[0]], ways[:most, after[1]]
    share = np.zeros((most + 1, states))
    np.divide(zero, zero + one, out=share[1:], where=zero + one > 0)
    return share


def _states(after: np.ndarray) -> np.ndarray:
    """[batch, symbols]: the states after each symbol, of [batch, symbols, states] that say the next
    state for each state; the first is 0."""
    return _compositions(after)[:, :, 0]


def _compositions(maps: np.ndarray) -> np.ndarray:
    """Each map after all that come before it: those of neighbours first, then of pairs."""
    if maps.shape[1] == 1:
        return maps
    pairs = _compositions(_compose(maps[:, :-1:2], maps[:, 1::2]))
    found = np.empty_like(maps)
    found[:, 0], found[:, 1::2] = maps[:, 0], pairs
    found[:, 2::2] = _compose(pairs[:, : (maps.shape[1] - 1) // 2], maps[:, 2::2])
    return found


def _compose(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.take_along_axis(second, first, axis=2)


def _chunks(shape: tuple[int, int]) -> list[slice]:
    """Rows a few at a time, so that memory for their states is bounded."""
    rows, width = shape
    size = max(1, CHUNK // width)
    return [slice(start, start + size) for start in range(0, rows, size)]


# ---- other languages


class Majority(Language):
    """Words with more ones than zeros; how many more is uniform, among others how many less."""

    def members(self, rng, lengths):
        return self._with_ones(rng, lengths, rng.integers(lengths // 2 + 1, lengths + 1))

    def others(self, rng, lengths):
        return self._with_ones(rng, lengths, rng.integers(0, lengths // 2 + 1))

    def accepts(self, words, lengths):
        return 2 * np.where(_within(words, lengths), words, 0).sum(axis=1) > lengths

    @staticmethod
    def _with_ones(rng, lengths, ones):
        ordered = np.arange(lengths.max()) < ones[:, None]
        return shuffled(rng, ordered.astype(np.int64), lengths)


class Reversal(Language):
    """w and then w reversed, with a marker between them or without."""

    step = 2

    def __init__(self, marked: bool):
        self.alphabet, self.offset = ("01#", 1) if marked else ("01", 0)
        self.least = 1 if marked else 2

    def members(self, rng, lengths):
        bits = rng.integers(0, 2, (len(lengths), lengths.max()))
        words = np.take_along_axis(bits, np.minimum(*self._mirrored(lengths)), axis=1)
        if self.offset:
            words[np.arange(len(lengths)), lengths // 2] = 2
        return words

    def accepts(self, words, lengths):
        place, mirror = self._mirrored(lengths)
        own = _within(words, lengths)
        found = ((words == np.take_along_axis(words, mirror, axis=1)) | ~own).all(axis=1)
        if self.offset:
            found &= (((words == 2) == (2 * place + 1 == lengths[:, None])) | ~own).all(axis=1)
        return found

    @staticmethod
    def _mirrored(lengths):
        """Each place, and the one as far from the other end."""
        place = np.tile(np.arange(lengths.max()), (len(lengths), 1))
        return place, np.maximum(lengths[:, None] - 1 - place, 0)


class Counter(Language):
    """Words a…ab…b…, each letter as often."""

    def __init__(self, letters: int):
        self.alphabet = [f"c{i}" if letters > 26 else chr(ord("a") + i) for i in range(letters)]
        self.step = self.least = letters

    def members(self, rng, lengths):
        each = lengths[:, None] // self.step
        return np.minimum(np.arange(lengths.max()) // each, self.step - 1)

    def accepts(self, words, lengths):
        equal = words == self.members(None, lengths)[:, : words.shape[1]]
        return (equal | ~_within(words, lengths)).all(axis=1)


class Brackets(Language):
    """Words of opening brackets 0 .. kinds - 1 and closing ones kinds .. 2·kinds - 1."""

    step = least = 2

    def __init__(self, kinds: int):
        self.kinds = kinds
        few = ["()", "[]", "{}", "<>"][:kinds]
        pairs = few if kinds <= 4 else [(f"({i}", f"{i})") for i in range(kinds)]
        self.alphabet = [pair[closing] for closing in (0, 1) for pair in pairs]

    def _change(self, words, lengths):
        """By how much each symbol changes the depth."""
        return np.where(words < self.kinds, 1, -1) * _within(words, lengths)


class Dyck(Brackets):
    """Balanced brackets of some kinds, at most `depth` deep; 0: of any depth."""

    def __init__(self, kinds: int, depth: int = 0):
        super().__init__(kinds)
        self.depth = depth
        dead = depth + 1
        steps = [(min(d + 1, dead), d - 1 if d else dead) for d in range(dead)]
        self.skeleton = Automaton([*steps, (dead, dead)], [0], step=2, least=2)

    def members(self, rng, lengths):
        draw = self.skeleton.members if self.depth else balanced
        words = draw(rng, lengths)
        order = self._partners(np.where(words == 0, 1, -1) * _within(words, lengths), lengths)
        kinds = rng.integers(0, self.kinds, (len(lengths), words.shape[1] // 2))
        kind = np.empty_like(words)
        np.put_along_axis(kind, order, np.repeat(kinds, 2, axis=1), axis=1)
        return words * self.kinds + kind

    def accepts(self, words, lengths):
        change = self._change(words, lengths)
        depth = change.cumsum(axis=1)
        fits = (depth.min(axis=1) >= 0) & (depth[:, -1] == 0)
        if self.depth:
            fits &= depth.max(axis=1) <= self.depth
        kind = words % self.kinds * _within(words, lengths)
        kind = np.take_along_axis(kind, self._partners(change, lengths), axis=1)
        return fits & (kind[:, ::2] == kind[:, 1::2]).all(axis=1)

    @staticmethod
    def _partners(change, lengths):
        """An order in which each bracket stands beside its partner: at each level opening and
        closing ones come by turns."""
        level = change.cumsum(axis=1) + (change < 0)
        level[change == 0] = change.shape[1] + 1
        return level.argsort(axis=1, kind="stable")


class Shuffle(Brackets):
    """Words in which the brackets of each kind are balanced, whatever the others do."""

    def members(self, rng, lengths):
        width = lengths.max()
        kind = np.repeat(rng.integers(0, self.kinds, (len(lengths), width // 2)), 2, axis=1)
        kind = shuffled(rng, kind, lengths)
        own, closing = _within(kind, lengths), np.zeros_like(kind)
        for one in range(self.kinds):
            mine = own & (kind == one)
            count = mine.sum(axis=1)
            words = balanced(rng, count)
            closing[mine] = words[_within(words, count)]  # row by row, as in `mine`
        return kind + self.kinds * closing

    def accepts(self, words, lengths):
        found = np.ones(len(words), bool)
        change = self._change(words, lengths)
        for one in range(self.kinds):
            depth = (change * (words % self.kinds == one)).cumsum(axis=1)
            found &= (depth.min(axis=1) >= 0) & (depth[:, -1] == 0)
        return found


def balanced(rng: np.random.Generator, lengths: np.ndarray) -> np.ndarray:
    """Draw balanced words of 0 (opening) and 1 (closing), each with the same probability.

    Of a word with one closing bracket too many exactly one rotation is balanced but for its end.
    """
    width = lengths.max(initial=0) + 1
    closing = np.arange(width) >= lengths[:, None] // 2
    closing = shuffled(rng, closing.astype(np.int64), lengths + 1)
    depth = (1 - 2 * closing).cumsum(axis=1)
    depth[np.arange(width) > lengths[:, None]] = 1
    start = depth.argmin(axis=1)[:, None] + 1
    rotated = (start + np.arange(width - 1)) % (lengths[:, None] + 1)
    return np.take_along_axis(closing, rotated, axis=1)


def _within(words: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return np.arange(words.shape[1]) < lengths[:, None]


# ---- their names

LANGUAGES: dict[str, Language] = {
    "tomita-1": Automaton([(1, 0), (1, 1)], [0]),
    "tomita-2": Automaton([(2, 1), (0, 2), (2, 2)], [0], step=2, least=2),
    # Even runs of ones, or none before; an odd run; zeros after it, odd or even in number.
    "tomita-3": Automaton([(0, 1), (2, 0), (3, 4), (2, 1), (4, 4)], [0, 1, 3], least=2),
    "tomita-4": Automaton([(1, 0), (2, 0), (3, 0), (3, 3)], [0, 1, 2], least=3),
    "tomita-5": Automaton([(1, 2), (0, 3), (3, 0), (2, 1)], [0], half=True, step=2, least=2),
    "tomita-6": Automaton([(1, 2), (2, 0), (0, 1)], [0], half=True, least=2),
    "tomita-7": Automaton([(0, 1), (2, 1), (2, 3), (4, 3), (4, 4)], [0, 1, 2, 3], least=4),
    "parity": Automaton([(0, 1), (1, 0)], [1], half=True),
    # Nothing read; the first and the last symbol: 00, 01, 11, 10.
    "even-pairs": Automaton([(1, 3), (1, 2), (1, 2), (4, 3), (4, 3)], [1, 3], half=True, least=2),
    "repeat-01": Automaton([(1, 2), (2, 0), (2, 2)], [0], step=2, least=2),
    "first": Automaton([(1, 2), (1, 1), (2, 2)], [2], half=True),
    "majority": Majority(),
    "unmarked-reversal": Reversal(marked=False),
    "marked-reversal": Reversal(marked=True),
}
FAMILIES = {
    r"dyck-([1-9]\d{0,2})": lambda kinds: Dyck(kinds),
    r"dyck-([1-9]\d{0,2})-([1-9]\d?)": lambda kinds, depth: Dyck(kinds, depth),
    r"shuffle-([1-9]\d{0,2})": lambda kinds: Shuffle(kinds),
    r"counter-([2-9]|[1-9]\d)": lambda letters: Counter(letters),
}


@lru_cache(maxsize=256)
def language_called(name: str) -> Language:
    """The language of a name. Raises ValueError for a name of none."""
    if name in LANGUAGES:
        return LANGUAGES[name]
    for pattern, make in FAMILIES.items():
        if found := re.fullmatch(pattern, name):
            return make(*map(int, found.groups()))
    known = ", ".join([*LANGUAGES, "dyck-KINDS", "dyck-KINDS-DEPTH", "shuffle-KINDS"])
    raise ValueError(f"language={name} is not known; choose from {known}, counter-LETTERS")
