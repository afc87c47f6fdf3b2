"""Gated attention (2505.06708)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lcg.attention.output_norms import OutputNorm
from lcg.positional.base import torch


@dataclass
class Gated(OutputNorm):
    """The joined heads times σ(W·x), elementwise, x the attention's input."""

    name: ClassVar[str] = "gated"

    def learned(self, sizes):
        return {"w": torch.randn(sizes.width, sizes.d_model) / sizes.d_model**0.5}

    def join(self, heads, x, learned):
        return super().join(heads, x, learned) * (x @ learned["w"].to(x).mT).sigmoid()
