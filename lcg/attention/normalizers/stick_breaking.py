"""Stick-breaking attention: each key takes a share of the weight that more recent keys left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lcg.attention.normalizers.base import Normalizer
from lcg.positional.base import torch


@dataclass
class StickBreaking(Normalizer):
    """p_j = σ(z_j) · Π_{j<k<i} (1 - σ(z_k)), over keys j < i strictly (2410.17980).

    It proceeds from the most recent key backwards, so the order of keys matters and a query never
    sees its own key. Rows sum to at most one; the remainder is dropped. The first query has no key
    and gets zeros. Computed by a scan: not elementwise.
    """

    name: ClassVar[str] = "stick_breaking"
    shift_invariant: ClassVar[bool] = False
    rows_sum_to_one: ClassVar[bool] = False
    elementwise: ClassVar[bool] = False
    sees_itself: ClassVar[bool] = False
    causal_only: ClassVar[bool] = True

    def weights(self, scores, statistics, keys, learned):
        masked = scores == -torch.inf
        finite = scores.masked_fill(masked, 0.0)
        log_take = torch.nn.functional.logsigmoid(finite)
        # log(1 - σ(z)), not as log_take - z: thousands of low scores would add up its rounding.
        log_leave = torch.nn.functional.logsigmoid(-finite).masked_fill(masked, 0.0)
        later = torch.nn.functional.pad(log_leave[..., 1:], (0, 1))
        left = later.flip(-1).cumsum(dim=-1).flip(-1)  # by the more recent keys
        return (log_take + left).masked_fill(masked, -torch.inf).exp()
