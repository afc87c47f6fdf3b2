"""Sigmoid attention: each key by itself, against the number of keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lcg.attention.normalizers.base import Normalizer, count_keys


@dataclass
class Sigmoid(Normalizer):
    """p_j = σ(z_j - ln n), n the number of keys that the query sees, padding excluded (2409.04431).

    A row of scores of 0 sums to n/(n + 1). Differs from the paper in that n there is the training
    length for every row, so that sums grow with the row.
    """

    name: ClassVar[str] = "sigmoid"
    shift_invariant: ClassVar[bool] = False
    rows_sum_to_one: ClassVar[bool] = False

    def row_statistics(self, scores, keys, learned):
        return (count_keys(scores).log(),)

    def weights(self, scores, statistics, keys, learned):
        return (scores - statistics[0]).sigmoid()
