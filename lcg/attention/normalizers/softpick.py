"""Softpick: a rectified softmax, with exact zeros and rows that may have no weight at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lcg.attention.normalizers.base import Normalizer, row_maximum
from lcg.positional.base import torch


@dataclass
class Softpick(Normalizer):
    """p_j = max(exp(z_j) - 1, 0) / (Σ |exp(z) - 1| + eps) (2504.20966).

    Keys with negative scores have no weight, and take from that of the others. Rows sum to at most
    one. Numerator and denominator are multiplied by exp(-m), m the largest score or 0, and
    exp(z) - 1 is exp(max(z, 0))·(1 - exp(-|z|)) up to its sign, so that nothing overflows and
    scores near 0 keep their digits. Masked keys are not in the denominator, where each would be 1.
    """

    name: ClassVar[str] = "softpick"
    shift_invariant: ClassVar[bool] = False
    rows_sum_to_one: ClassVar[bool] = False

    eps: float = 1e-8
    """Added to the denominator."""

    def __post_init__(self) -> None:
        if not 0 < self.eps <= 1:
            raise ValueError(f"softpick: eps must be in (0, 1], got {self.eps:g}")

    def steepness(self, learned):
        return 1.0

    def row_statistics(self, scores, keys, learned):
        top = row_maximum(scores).clamp_min(0)
        sizes = -(scores.relu() - top).exp() * torch.expm1(-scores.abs())
        total = sizes.masked_fill(scores == -torch.inf, 0.0).sum(dim=-1, keepdim=True)
        return top, total + self.eps * (-top).exp()

    def weights(self, scores, statistics, keys, learned):
        top, total = statistics
        above = scores.relu()
        return -(above - top).exp() * torch.expm1(-above) / total
