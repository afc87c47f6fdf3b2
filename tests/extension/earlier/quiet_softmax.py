"""Softmax that may also look at nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from lcg.attention.normalizers.base import Normalizer, log_sum_exp
from lcg.positional.base import torch


@dataclass
class QuietSoftmax(Normalizer):
    """p_j = exp(z_j) / (sink + Σ exp(z)), so that a row of low scores has little weight at all."""

    name: ClassVar[str] = "quiet_softmax"
    shift_invariant: ClassVar[bool] = False
    rows_sum_to_one: ClassVar[bool] = False

    sink: float = 1.0
    """What is added to the denominator; 0 is softmax."""

    def __post_init__(self) -> None:
        if self.sink <= 0:
            raise ValueError(f"quiet_softmax: sink must be positive, got {self.sink:g}")

    def row_statistics(self, scores, keys, learned):
        total = log_sum_exp(scores)
        return (torch.logaddexp(total, torch.full_like(total, math.log(self.sink))),)

    def weights(self, scores, statistics, keys, learned):
        return (scores - statistics[0]).exp()
