"""Randomised positions (2305.16843) around RoPE and ALiBi."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lcg.positional.rotary import RoPE
from lcg.positional.slopes import ALiBi


class Randomised:
    """Token t has the t-th smallest of random ids from 0 … longest - 1, drawn for each sequence."""

    def draw_positions(self, rng, lengths, training):
        if lengths.max() > self.longest:
            raise ValueError(f"{self.name}: {lengths.max()} tokens, longest={self.longest} ids")
        drawn = np.zeros((len(lengths), lengths.max()), np.int64)
        for row, length in zip(drawn, lengths, strict=True):
            row[:length] = np.sort(rng.choice(self.longest, length, replace=False))
        return drawn


@dataclass
class RandomRoPE(Randomised, RoPE):
    name: ClassVar[str] = "random_rope"

    longest: int = 2048
    """Number of ids to draw from."""


@dataclass
class RandomALiBi(Randomised, ALiBi):
    name: ClassVar[str] = "random_alibi"

    longest: int = 2048
    """Number of ids to draw from."""
