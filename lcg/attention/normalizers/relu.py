"""Rectified linear attention: weights without a sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lcg.attention.normalizers.base import Normalizer


@dataclass
class ReLU(Normalizer):
    """p_j = max(z_j, 0) (ReLA, 2104.07012). Rows need not sum to one and may be all zeros.

    The paper follows it with an RMSNorm over the concatenated heads: the presets `rela` and
    `rela_g`. Its sum grows with the number of keys.
    """

    name: ClassVar[str] = "relu"
    shift_invariant: ClassVar[bool] = False
    rows_sum_to_one: ClassVar[bool] = False

    sparse: ClassVar[bool] = True
    backends: ClassVar[tuple[str, ...]] = ("reference", "blockwise", "triton")

    def support_edge(self, scores, learned):
        return scores.new_zeros(*scores.shape[:-1], 1)

    def steepness(self, learned):
        return 1.0

    def kernel(self, learned):
        return "relu", 0.0

    def weights(self, scores, statistics, keys, learned):
        return scores.relu()
