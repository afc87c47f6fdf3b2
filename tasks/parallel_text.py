"""Real text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import ClassVar

import numpy as np

from lcg.tasks import text
from lcg.tasks.corpora import numbers
from lcg.tasks.streams import stream_rng


@dataclass
class ParallelText(text.TextTask):
    """Translation between two text files, where line i of one translates line i of the other.

    A training sample of nominal length L is a pair whose longer side has at most L tokens, each
    such pair being equally likely; give data.min_length and data.max_length the same value, and all
    pairs up to it are. In evaluation it has more than L/2 and at most L, so that the lengths of a
    ladder that doubles share none, and no pair comes twice before all came.
    Splits: a line is in one split only, on whichever side and however often it occurs. A fixed
    function of the text says in which, so another seed has the same ones.
    Hard because: words are many and most are rare, order differs between languages, and a model
    must know what to leave out. Source: any corpus; that of arXiv 1909.00015 and 2104.07012 is WMT.

    >>> print(ParallelText().example(9))
    inputs <bos> s i e b e n <sep> s e v e n
    labels .     . . . . . . s     e v e n <eos>
    """

    name: ClassVar[str] = "parallel_text"
    variable_length: ClassVar[bool] = True
    metrics: ClassVar[tuple[str, ...]] = ("bleu", "chrf") if find_spec("sacrebleu") else ()
    path_fields: ClassVar[tuple[str, ...]] = ("source", "target")
    making: ClassVar[str] = "python -m lcg.tasks.corpora.gettext_pairs, as docs/real-text.md shows"

    source: str = ""
    """File to translate from, one sentence per line; empty: numbers in German words, no file."""
    target: str = ""
    """File to translate to, with the same number of lines; empty: the same numbers in English."""

    def __post_init__(self):
        super().__post_init__()
        self.require(
            bool(self.source) == bool(self.target), "give both source and target, or neither"
        )
        if self.source:
            self.source, self.target = map(text.absolute, (self.source, self.target))
        self._load(_read, self.source, self.target)

    def render(self, tokens):
        runs = groupby(tokens, key=lambda token: 0 <= token < self.symbol_count)
        parts = (self.words(run) if own else " ".join(map(self.text, run)) for own, run in runs)
        return " ".join(parts)

    def measure(self, predicted, reference):
        """BLEU and chrF of sacrebleu, corpus scores from 0 to 100.

        Both are as by default, but that BLEU is of its effective order: of the n-grams, up to 4
        words, that the predicted texts are long enough for. Otherwise texts of which none has four
        words score 0 however right they are; as soon as one has, the two are the same.
        """
        import sacrebleu

        texts = [[self.words(row) for row in rows] for rows in (predicted, reference)]
        bleu = sacrebleu.BLEU(effective_order=True).corpus_score(texts[0], [texts[1]])
        return {"bleu": bleu.score, "chrf": sacrebleu.corpus_chrf(texts[0], [texts[1]]).score}

    def warnings(self):
        lacking = f"BLEU and chrF are not measured, sacrebleu is missing: {text.EXTRA}"
        return [] if self.metrics else [lacking]

    # ---- lengths

    @property
    def min_length(self) -> int:
        return int(self._corpus.splits["train"].longer[0])

    def distinct_samples(self, split, length):
        low, high = self.for_split(split)._between(np.array([length]))
        return int((high - low)[0])

    def check_evaluation(self, split, length):
        self.check_length(length)
        held = self.for_split(split)._split
        self.require(
            self.distinct_samples(split, length) != 0,
            f"the {split} split has no samples of length {length}, "
            f"{_what_there_is(self._corpus.splits[held].longer, self.min_length)}",
        )

    def _between(self, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the range of pairs of the split, ordered by length, that may be drawn.

        From the first, below the second.
        """
        longer = self._corpus.splits[self._split].longer
        high = np.searchsorted(longer, lengths, side="right")
        if self._split == "train":
            return np.zeros_like(high), high
        return np.searchsorted(longer, lengths // 2, side="right"), high

    # ---- data

    def sample(self, rng, lengths):
        return self._corpus.splits[self._split].padded(rng.integers(*self._between(lengths)))

    def sample_block(self, rng, lengths, start):
        (low, *_), (high, *_) = self._between(lengths)
        order = stream_rng(0, "order", self._split, int(lengths[0])).permutation(high - low)
        place = (start + np.arange(len(lengths))) % (high - low)
        return self._corpus.splits[self._split].padded(low + order[place])


@dataclass(frozen=True)
class _Pairs:
    """The pairs of one split, ordered by the number of tokens of the longer side."""

    source: text.Rows
    target: text.Rows
    longer: np.ndarray

    def padded(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.source.padded(index), self.target.padded(index)


@dataclass(frozen=True)
class _Corpus:
    tokens: text.Bytes | text.BPE
    splits: dict[str, _Pairs]
    digest: str


@lru_cache(maxsize=8)
def _read(paths: tuple[str, ...], stamps: tuple, bpe: int, held_out: float) -> _Corpus:
    """The corpus of a source and a target file; with other `stamps` they are read again."""
    source, target = paths
    sources, targets = _lines(source, target)
    splits = split_pairs(sources, targets, held_out)
    if not sources:
        raise ValueError(f"{source} and {target} have no line with text in both, they are empty")
    for split in text.SPLITS:
        if split not in splits:
            raise ValueError(f"{len(sources)} pairs are too few: none of them is for {split}")
    chosen = {split: np.flatnonzero(splits == split) for split in text.SPLITS}
    vocabulary, tokens = "", text.Bytes()
    if bpe:
        lines = [side[i] for side in (sources, targets) for i in chosen["train"]]
        vocabulary = text.stored_bpe(Path(source) if source else None, lines, bpe)
        tokens = text.BPE(vocabulary)
    sides = [tokens.encode(side) for side in (sources, targets)]
    longer = np.maximum(sides[0].counts, sides[1].counts)
    pairs = {}
    for split, index in chosen.items():
        index = index[np.argsort(longer[index], kind="stable")]
        pairs[split] = _Pairs(*(side.take(index) for side in sides), longer[index])
    whole = ["\n".join(sources).encode(), "\n".join(targets).encode(), vocabulary.encode()]
    return _Corpus(tokens, pairs, text.digest(whole))


def _what_there_is(longer: np.ndarray, shortest: int) -> str:
    """Return the doubling lengths that have pairs, of so many tokens in their longer side."""
    lengths = sorted({1 << (n - 1).bit_length() for n in longer.tolist()})
    able = ", ".join(str(length) for length in lengths if length >= shortest)
    return f"its longest pair has {longer[-1]} tokens; use some of the lengths {able}"


def _lines(source: str, target: str) -> tuple[list[str], list[str]]:
    """Both sides, stripped, without the pairs of which a side is empty."""
    if not source:
        return tuple(map(list, numbers.pairs()))
    sides = [text.read_text(Path(path)).split("\n") for path in (source, target)]
    sides = [side[:-1] if side[-1] == "" else side for side in sides]
    if len(sides[0]) != len(sides[1]):
        counts = f"{len(sides[0])} and {len(sides[1])}"
        raise ValueError(f"{source} and {target} have {counts} lines; line i must translate line i")
    stripped = [(a.strip(), b.strip()) for a, b in zip(*sides, strict=True)]
    kept = [pair for pair in stripped if all(pair)]
    return [a for a, _ in kept], [b for _, b in kept]


def split_pairs(sources: list[str], targets: list[str], held_out: float) -> np.ndarray:
    """[pairs] the split of each; pairs with a line in common, on whichever side, share it.

    What hangs together through such pairs goes where its first line in the alphabet goes.
    """
    parent: dict[str, str] = {}

    def root(line: str) -> str:
        while parent.setdefault(line, line) != line:
            parent[line] = line = parent[parent[line]]
        return line

    for a, b in zip(sources, targets, strict=True):
        first, second = sorted((root(a), root(b)))
        parent[second] = first  # so a root is the first of all the lines it holds
    return np.array([text.split_of(root(line), held_out) for line in sources])
