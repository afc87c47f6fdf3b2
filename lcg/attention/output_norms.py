"""Output norms: what is done to values before they are weighted, and to the heads before the output
projection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lcg.positional.base import Sizes, torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@dataclass
class OutputNorm:
    """An output norm is a dataclass: its fields are its options; learned tensors are handed in.

    Most fill in `__call__` alone.
    """

    name: ClassVar[str]

    def check(self, sizes: Sizes) -> None:
        """Raise ValueError, in one line, when these sizes cannot work."""

    def learned(self, sizes: Sizes) -> dict[str, Tensor]:
        """Initial values of the learned tensors of one attention layer."""
        return {}

    def values(self, v: Tensor, learned: Mapping[str, Tensor]) -> Tensor:
        """Change the values v [b kv_heads t d] of each token; their width may change too."""
        return v

    def join(self, heads: Tensor, x: Tensor, learned: Mapping[str, Tensor]) -> Tensor:
        """From what the heads give [b h q d] to what the output projection takes [b q width].

        x [b q w] is the attention's input at the queries.
        """
        return self(heads.transpose(1, 2).flatten(2), learned)

    def __call__(self, x: Tensor, learned: Mapping[str, Tensor]) -> Tensor:
        """Change the concatenated heads x [b q width]."""
        return x


@dataclass
class NoNorm(OutputNorm):
    """The heads go to the output projection as they are."""

    name: ClassVar[str] = "none"


@dataclass
class RMSNorm(OutputNorm):
    """scale · x · rsqrt(mean x² + eps), and · sigmoid(gate · x) when gated (ReLA, 2104.07012).

    scale starts at 1, gate from U(-√(3/width), √(3/width)). `gated` is the paper's ReLA-g.
    """

    name: ClassVar[str] = "rms"

    gated: bool = False
    """Multiply by sigmoid(gate · x), elementwise."""
    eps: float = 1.0e-6
    """Keeps an all-zero row from dividing by zero."""

    def learned(self, sizes):
        width = sizes.width
        tensors = {"scale": torch.ones(width)}
        if self.gated:
            tensors["gate"] = (2 * torch.rand(width) - 1) * (3 / width) ** 0.5
        return tensors

    def __call__(self, x, learned):
        wide = x.float()
        normed = learned["scale"] * wide * torch.rsqrt(wide.square().mean(-1, True) + self.eps)
        if self.gated:
            normed = normed * torch.sigmoid(learned["gate"] * wide)
        return normed.to(x.dtype)
