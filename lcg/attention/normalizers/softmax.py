"""Softmax, and softmax with a temperature that depends on the entropy of the row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lcg.attention.normalizers.base import Normalizer, log_sum_exp, row_maximum
from lcg.positional.base import torch

if TYPE_CHECKING:
    from torch import Tensor

UNDERFLOW = 104.0
"""exp(-104) is less than half of the least number of float32."""


@dataclass
class Softmax(Normalizer):
    """p_j = exp(z_j) / Σ exp(z)."""

    name: ClassVar[str] = "softmax"
    is_softmax: ClassVar[bool] = True
    backends: ClassVar[tuple[str, ...]] = ("reference", "blockwise", "triton")

    def row_statistics(self, scores, keys, learned):
        return (log_sum_exp(scores),)

    def weights(self, scores, statistics, keys, learned):
        return (scores - statistics[0]).exp()

    def __call__(self, scores, keys, learned):
        return torch.softmax(scores, dim=-1)  # one fused pass

    def support_edge(self, scores, learned):
        """Return the score below which weights are 0 in float32."""
        return scores.amax(dim=-1, keepdim=True) - UNDERFLOW

    def kernel(self, learned):
        return "softmax", 0.0


POLYNOMIAL = (-0.037, 0.481, -2.3, 4.917, -1.791)  # highest power first


def inverse_temperature(entropy: Tensor) -> Tensor:
    """Return β as a function of the entropy of softmax(z), in nats."""
    value = torch.zeros_like(entropy)
    for coefficient in POLYNOMIAL:
        value = value * entropy + coefficient
    return torch.where(entropy > 0.5, value.clamp_min(1.0), torch.ones_like(value))


@dataclass
class AdaptiveTemperature(Normalizer):
    """softmax(β·z), β = max(1, polynomial(H)) where the entropy H of softmax(z) exceeds 0.5 nats.

    polynomial(H) = -0.037 H⁴ + 0.481 H³ - 2.3 H² + 4.917 H - 1.791 (2410.01104), highest power
    first: in ascending order it would do nothing beyond 8.6 effective keys. Differs from the paper
    in that it is used in training too; the gradient passes through β. Scores are taken relative to
    the largest of their row, which changes nothing but their rounding.
    """

    name: ClassVar[str] = "adaptive_temperature"

    def row_statistics(self, scores, keys, learned):
        top = row_maximum(scores)
        scores = scores - top
        log_p = scores - log_sum_exp(scores)
        p = log_p.exp()
        entropy = -(p * log_p.masked_fill(scores == -torch.inf, 0.0)).sum(dim=-1, keepdim=True)
        beta = inverse_temperature(entropy)
        return top, beta, log_sum_exp(self._heated(scores, beta))

    def weights(self, scores, statistics, keys, learned):
        top, beta, total = statistics
        return (self._heated(scores - top, beta) - total).exp()

    @staticmethod
    def _heated(scores: Tensor, beta: Tensor) -> Tensor:
        """Return beta·scores without multiplying -inf, whose gradient in beta would be NaN."""
        masked = scores == -torch.inf
        return (beta * scores.masked_fill(masked, 0.0)).masked_fill(masked, -torch.inf)
