"""Encodings that hide what lies beyond some number of keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from lcg.positional.base import PositionEncoding
from lcg.positional.nope import NoPE
from lcg.positional.wrappers import Wrapper


@dataclass
class Window(Wrapper):
    """A query sees the `size` most recent keys, its own among them.

    In groups of heads and in layers of their own (`position=window:4+nope:4`,
    `position=[window,nope] position.pattern.0.inner=rope`) windows stand beside heads that see all.
    Where no causal mask hides the keys after a query, it sees as many of them.
    """

    name: ClassVar[str] = "window"

    inner: PositionEncoding = field(default_factory=NoPE)
    """The encoding of the keys in the window."""
    size: int = 64
    """Number of keys."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"window: size must be at least 1, got {self.size}")

    def window(self, heads):
        return [self.size] * heads


@dataclass
class HardALiBi(PositionEncoding):
    """Head h ≤ M sees keys at distances up to h - 1, the other heads see all and no position
    (2402.01032).
    """

    name: ClassVar[str] = "hard_alibi"

    windowed: int | None = None
    """M, the number of heads with a window; null: half of them, rounded up."""

    def __post_init__(self) -> None:
        if self.windowed is not None and self.windowed < 1:
            raise ValueError(f"hard_alibi: windowed must be at least 1, got {self.windowed}")

    def check(self, sizes):
        if (self.windowed or 1) > sizes.heads:
            raise ValueError(
                f"hard_alibi: windowed={self.windowed} is more than model.heads={sizes.heads}"
            )

    def window(self, heads):
        windowed = (heads + 1) // 2 if self.windowed is None else self.windowed
        return [h if h <= windowed else None for h in range(1, heads + 1)]

    def scaled_heads(self, heads):
        return [h for h, size in enumerate(self.window(heads)) if size is None] or range(heads)
