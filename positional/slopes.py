"""ALiBi, whose bias is one slope per head."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from lcg.positional.base import PositionEncoding, torch

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
    two powers of two, which is `variant=interleaved`. Steeper are 1/h (`linear`) and 2^-(h-1)
    (`exponential`), of NAPE (2506.16640).
    """

    name: ClassVar[str] = "alibi"

    variant: Literal["geometric", "interleaved", "linear", "exponential"] = "geometric"
    """Sequence of slopes over the heads."""

    def slopes(self, heads: int) -> Tensor:
        return torch.tensor(SEQUENCES[self.variant](heads), dtype=torch.float32)


SEQUENCES = {
    "geometric": geometric_slopes,
    "interleaved": interleaved_slopes,
    "linear": lambda heads: [1 / h for h in range(1, heads + 1)],
    "exponential": lambda heads: [2.0 ** -(h - 1) for h in range(1, heads + 1)],
}
"""ALiBi's variant -> the slopes of so many heads."""
