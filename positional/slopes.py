"""Encodings whose bias is one slope per head: ALiBi, and NAPE, which gives it to half the heads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from lcg.positional.base import PositionEncoding, Sizes, torch

if TYPE_CHECKING:
    from torch import Tensor


def geometric_slopes(heads: int) -> list[float]:
    """2^(-8h/H) for h = 1 … H."""
    return [2.0 ** (-8 * h / heads) for h in range(1, heads + 1)]


def interleaved_slopes(heads: int) -> list[float]:
    """Those of the largest power of two P ≤ H, then every other one of those for 2P."""
    power = 2 ** math.floor(math.log2(heads))
    return geometric_slopes(power) + geometric_slopes(2 * power)[0::2][: heads - power]


@dataclass
class ALiBi(PositionEncoding):
    """Scores get -m_h·|i - j| with m_h = 2^(-8h/H), h = 1 … H (2108.12409).

    Differs from the paper's code where H is not a power of two: that code interleaves the slopes of
    two powers of two, which is `variant=interleaved`.
    """

    name: ClassVar[str] = "alibi"

    variant: Literal["geometric", "interleaved"] = "geometric"
    """Slopes when the number of heads is not a power of two."""

    def slopes(self, heads: int) -> Tensor:
        make = geometric_slopes if self.variant == "geometric" else interleaved_slopes
        return torch.tensor(make(heads), dtype=torch.float32)


@dataclass
class NAPE(PositionEncoding):
    """The first ⌈H/2⌉ heads get ALiBi slopes, the others no position at all (2506.16640).

    Slopes are 1/h (`linear`) or 2^-(h-1) (`exponential`), h = 1 … ⌈H/2⌉. A length scaling applies
    to the heads without position only. The paper has even H; the split of odd H is ours.
    """

    name: ClassVar[str] = "nape"

    variant: Literal["linear", "exponential"] = "linear"
    """Sequence of slopes over the ALiBi heads."""

    def check(self, sizes: Sizes) -> None:
        group, alibi = sizes.heads // sizes.kv_heads, (sizes.heads + 1) // 2
        if sizes.heads < 2:
            raise ValueError("nape: needs at least 2 heads, one with and one without slopes")
        if alibi % group:
            raise ValueError(
                f"nape: its {alibi} ALiBi heads must be whole groups of shared key heads, "
                f"but model.kv_heads={sizes.kv_heads} makes groups of {group}"
            )

    def slopes(self, heads: int) -> Tensor:
        alibi = range(1, (heads + 1) // 2 + 1)
        steep = [1 / h if self.variant == "linear" else 2.0 ** -(h - 1) for h in alibi]
        return torch.tensor(steep + [0.0] * (heads - len(steep)), dtype=torch.float32)

    def scaled_heads(self, heads: int) -> range:
        return range((heads + 1) // 2, heads)
