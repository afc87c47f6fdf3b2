"""Mixers: what a layer does with its tokens where it is no attention, and how often layers run."""

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
        """A module whose forward(x, state) takes x [b t w] to (y [b t w], state).

        It is causal: y at a token depends on x up to it. The state is None at the start of a
        sequence, and what it returned for the tokens before where x continues these.
        """
        raise NotImplementedError


@dataclass
class AttentionMixer(Mixer):
    """The attention of `attention`, in all layers."""

    name: ClassVar[str] = "attention"


@dataclass
class Loop:
    """Run the blocks of a model several times, one after the other, with the same weights."""

    name: ClassVar[str]

    inject: bool = False
    """Add the embeddings to what every loop but the first begins with."""

    def count(self, length: int) -> int:
        """The number of loops of a sequence of so many tokens, at least 1."""
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
