"""Real text."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from lcg.tasks import text
from lcg.tasks.base import IGNORE
from lcg.tasks.corpora import numbers


@dataclass
class MaskedLM(text.TextTask):
    """Masked language modelling: predict the hidden tokens of a text.

    A sample of nominal length L is L consecutive tokens from anywhere in the split. Of these
    round(masked·L), but at least one, are chosen and scored: 80 % of them read <mask>, 10 % any
    token at random, 10 % what they are (`random`, `kept`).
    Splits: text is cut at its blank lines, and a fixed function of what stands between two of them
    says in which split it is, so repetitions stay together. A split's passages follow each other in
    the order of files and lines; a window longer than a passage goes on with the next one, which in
    an evaluation split is seldom the one that followed it in the file.
    Hard because: what was hidden follows from words near and far on both sides, and often from
    none of them. Source: BERT, arXiv 1810.04805. Differs from it in the input, which is a window
    of running text, not two segments, and in the hidden tokens, which are not whole words.

    >>> print(MaskedLM(masked=0.3).example(12, seed=1))
    inputs <bos> d <mask> e u n z i g <mask> ␣ d <mask>
    labels .     . n      . u . . . . ,      . . r
    """

    name: ClassVar[str] = "masked_lm"
    kind: ClassVar[Literal["masked"]] = "masked"
    metrics: ClassVar[tuple[str, ...]] = ("masked_accuracy",)
    path_fields: ClassVar[tuple[str, ...]] = ("files",)
    making: ClassVar[str] = "python -m lcg.tasks.corpora.python_sources, as docs/real-text.md shows"

    files: str = ""
    """A text file, a folder of them, or a pattern as src/**/*.py; empty: numbers in words."""
    masked: float = 0.15
    """Share of the tokens that are chosen and scored."""
    random: float = 0.1
    """Share of the chosen tokens that are replaced by a random token."""
    kept: float = 0.1
    """Share of the chosen tokens that stay unchanged."""

    def __post_init__(self):
        super().__post_init__()
        self.require(0 < self.masked < 1, f"masked must lie in (0, 1), got {self.masked}")
        shares = self.random, self.kept
        self.require(
            min(shares) >= 0 and sum(shares) <= 1,
            f"random and kept must be shares, at most 1 together, got {shares[0]}, {shares[1]}",
        )
        if self.files:
            self.files = text.absolute(self.files)
        self._load(_read, self.files, *self._found())

    def _found(self) -> list[str]:
        """The files, in the order of their names."""
        if not self.files:
            return []
        whole = Path(self.files).is_dir()
        pattern = f"{glob.escape(self.files)}/**/*" if whole else self.files
        if not glob.has_magic(pattern):
            return [self.files]
        found = sorted(filter(os.path.isfile, glob.glob(pattern, recursive=True)))
        self.require(bool(found), f"there are no files in {self.files}; {self._remedy()}")
        return found

    def measure(self, predicted, reference):
        """Share of the scored tokens that are right, from 0 to 100."""
        right = sum(int((a == b).sum()) for a, b in zip(predicted, reference, strict=True))
        return {"masked_accuracy": 100 * right / sum(map(len, reference))}

    def check_length(self, length):
        super().check_length(length)
        for split, tokens in self._corpus.splits.items():
            self.require(
                len(tokens) >= length,
                f"length {length} is more than the {len(tokens)} tokens of the {split} split",
            )

    def sample(self, rng, lengths):
        tokens, width = self._corpus.splits[self._split], lengths.max()
        begin = rng.integers(0, len(tokens) - lengths + 1)
        column = np.arange(width)
        inside = column < lengths[:, None]
        window = tokens[np.where(inside, begin[:, None] + column, 0)].astype(np.int64)

        # The first of a random order of a row's positions, those beyond its end last of all.
        order = np.where(inside, rng.random(window.shape), 2).argsort(axis=1).argsort(axis=1)
        chosen = order < np.maximum(1, np.rint(self.masked * lengths))[:, None]
        lot = rng.random(window.shape)
        symbol = rng.integers(0, self.symbol_count, window.shape)
        shown = np.where(lot < self.random, symbol, self.mask)
        shown = np.where((lot >= self.random) & (lot < self.random + self.kept), window, shown)
        return np.where(chosen, shown, window), np.where(chosen, window, IGNORE)


@dataclass(frozen=True)
class _Corpus:
    tokens: text.Bytes | text.BPE
    splits: dict[str, np.ndarray]
    digest: str


@lru_cache(maxsize=8)
def _read(paths: tuple[str, ...], stamps: tuple, bpe: int, held_out: float) -> _Corpus:
    """The corpus of a name, folder or pattern and its files; with other `stamps` these are read
    again."""
    files, *found = paths
    if found:
        texts = [text.read_text(Path(path)) for path in found]
    else:
        texts = ["\n\n".join(side) for side in numbers.pairs()]
    passages = split_passages(texts, held_out)
    _check_passages(passages)
    vocabulary, tokens = "", text.Bytes()
    if bpe:
        vocabulary = text.stored_bpe(_beside(files), passages["train"], bpe)
        tokens = text.BPE(vocabulary)
    splits = {split: tokens.encode(lines).tokens for split, lines in passages.items()}
    whole = text.digest([*(one.encode() for one in texts), vocabulary.encode()])
    return _Corpus(tokens, splits, whole)


def _check_passages(passages: dict[str, list[str]]) -> None:
    """Raise ValueError where a split has none."""
    lacking = [split for split, own in passages.items() if not own]
    if not lacking:
        return
    count = sum(map(len, passages.values()))
    if count == 0:
        raise ValueError("the text is empty")
    what = "is one passage" if count == 1 else f"has {count} passages, too few"
    raise ValueError(
        f"the text {what}: none is for {' and '.join(lacking)}; separate passages by blank lines"
    )


def _beside(files: str) -> Path | None:
    """Return what the vocabulary is stored beside: the file, or the folder of all files."""
    path = Path(files)
    while glob.has_magic(str(path)):
        path = path.parent
    return path if files else None


def split_passages(texts: list[str], held_out: float) -> dict[str, list[str]]:
    """The passages of each split in order: lines up to a blank one, which ends the passage."""
    passages: dict[str, list[str]] = {split: [] for split in text.SPLITS}
    for whole in texts:
        lines: list[str] = []
        for line in [*whole.split("\n"), ""]:
            if line.strip():
                lines.append(line.rstrip())
            elif lines:
                passage = "\n".join(lines)
                passages[text.split_of(passage.strip(), held_out)].append(f"{passage}\n\n")
                lines = []
    return passages
