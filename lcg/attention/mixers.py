"""Mixers, which replace attention in a layer, and loops, which run the layers several times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lcg.positional.base import Sizes

if TYPE_CHECKING:
    from torch import nn


@dataclass
class Mixer:
    """A mixer is a dataclass: its fields are its options; `make` gives the module of a layer."""

    name: ClassVar[str]

    def make(self, sizes: Sizes) -> nn.Module:
        """Return a module whose forward(x, state) maps x [b t w] to (y [b t w], state).

        It must be causal: y at a token depends on x up to that token. The state is None at the
        start of a sequence; otherwise it is the state returned for the preceding tokens.
        """
        raise NotImplementedError


@dataclass
class AttentionMixer(Mixer):
    """The attention of `attention`, in all layers."""

    name: ClassVar[str] = "attention"


@dataclass
class Loop:
    """Run the blocks of a model several times in sequence, with the same weights."""

    name: ClassVar[str]

    inject: bool = False
    """Add the embeddings to the input of every loop but the first."""

    def count(self, length: int) -> int:
        """Return the number of loops, at least 1, for a sequence of this many tokens."""
        raise NotImplementedError


@dataclass
class FixedLoop(Loop):
    """The same number of loops for every sequence."""

    name: ClassVar[str] = "fixed"

    loops: int = 1
    """Number of loops."""

    def __post_init__(self) -> None:
        if not 1 <= self.loops <= 1024:
            raise ValueError(f"fixed: loops must be in [1, 1024], got {self.loops}")

    def count(self, length: int) -> int:
        return self.loops
