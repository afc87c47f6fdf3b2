"""One member each of those that classes had before the seams were widened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lcg.attention.output_norms import OutputNorm
from lcg.positional.base import PositionEncoding, torch
from lcg.tasks.base import Task, uniform


@dataclass
class Turned(PositionEncoding):
    """Queries and keys times -1 to the power of their positions."""

    name: ClassVar[str] = "turned"

    def rotate_queries(self, q, positions):
        return q * (1 - 2 * (positions % 2))[:, None]

    def rotate_keys(self, k, positions):
        return k * (1 - 2 * (positions % 2))[:, None]


@dataclass
class Gate(PositionEncoding):
    """A bias of the input."""

    name: ClassVar[str] = "gate"
    data_dependent: ClassVar[bool] = True

    def bias(self, context, learned):
        return context.x.mean(-1)[:, None, :, None]


@dataclass
class Reads(PositionEncoding):
    """A bias of the input that does not say so."""

    name: ClassVar[str] = "reads"

    def bias(self, context, learned):
        return context.x.mean(-1)[:, None, :, None]


@dataclass
class Numbered(PositionEncoding):
    """Ids of its own, and a change of the embeddings."""

    name: ClassVar[str] = "numbered"
    relative: ClassVar[bool] = False

    def positions(self, length, device=None):
        return 2 * torch.arange(length, device=device)

    def embed(self, x, positions, learned):
        return x + positions.to(x)[:, None].sin()

    def scaled_heads(self, heads):
        return range(heads // 2, heads)


@dataclass
class Scaled(OutputNorm):
    """A number for each of the width."""

    name: ClassVar[str] = "scaled"

    def learned(self, width):
        return {"scale": torch.ones(width)}

    def __call__(self, x, learned):
        return x * learned["scale"].to(x)


@dataclass
class Plain(OutputNorm):
    """A map of the joined heads."""

    name: ClassVar[str] = "plain"

    def __call__(self, x, learned):
        return x.tanh()


@dataclass
class Ragged(Task):
    """Rows that end at a negative entry."""

    name: ClassVar[str] = "ragged"
    ragged: ClassVar[bool] = True

    symbols: int = 8

    def sample(self, rng, lengths):
        source = uniform(rng, 0, self.symbols, (len(lengths), lengths.max())).astype(np.int64)
        return source, source


@dataclass
class Placed(Task):
    """A file."""

    name: ClassVar[str] = "placed"
    places: ClassVar[tuple[str, ...]] = ("file",)

    symbols: int = 8
    file: str = "words.txt"

    def sample(self, rng, lengths):
        source = uniform(rng, 0, self.symbols, (len(lengths), lengths.max()))
        return source, source


@dataclass
class Remarked(Task):
    """A line for those who train on it."""

    name: ClassVar[str] = "remarked"

    symbols: int = 8

    def sample(self, rng, lengths):
        source = uniform(rng, 0, self.symbols, (len(lengths), lengths.max()))
        return source, source

    def remarks(self):
        return ["the alphabet is small"]


@dataclass
class Counted(Task):
    """A field may have the name of an old member."""

    name: ClassVar[str] = "counted"

    symbols: int = 8
    places: int = 2

    def sample(self, rng, lengths):
        source = uniform(rng, 0, self.symbols, (len(lengths), lengths.max()))
        return source, (source + self.places) % self.symbols
