"""Softmax over the k largest scores of a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lcg.attention.normalizers.base import Normalizer, log_sum_exp
from lcg.positional.base import torch

TIED = 1e-5
"""Scores this near to the k-th largest, or this share of it, are tied with it: rounding, which
depends on the backend and the processor, orders them either way."""


@dataclass
class TopK(Normalizer):
    """Softmax over the k largest visible scores, exactly 0 elsewhere (2106.06899).

    Of scores tied at the k-th place up to rounding (`TIED`) the most recent keys are kept, so that
    every backend keeps the same. The gradient passes through the kept scores only.
    """

    name: ClassVar[str] = "topk"
    sparse: ClassVar[bool] = True

    k: int = 32
    """Number of keys that a query keeps; all if it sees fewer."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"topk: k must be at least 1, got {self.k}")

    def support_edge(self, scores, learned):
        if scores.shape[-1] < self.k:
            return torch.full_like(scores[..., :1], -torch.inf)
        return _tied_with(scores.topk(self.k, dim=-1).values[..., -1:])[0]

    def __call__(self, scores, keys, learned):
        if not scores.shape[-1]:
            return scores
        if scores.device.type == "cpu":  # elsewhere asking for ties would stall the device
            kept = min(self.k, scores.shape[-1])
            kth = scores.detach().topk(kept, dim=-1, sorted=False).values.amin(dim=-1, keepdim=True)
            lowest = _tied_with(kth)[0].clamp_(min=torch.finfo(scores.dtype).min)
            out = scores < lowest  # masked keys too
            left = scores.shape[-1] - out.sum(dim=-1)
            tied = left > kept  # a few rows, by chance
            if bool(tied.any()) and keys.dim() == 1:
                rows = scores.detach()[tied]
                out[tied] = ~self._kept(rows, *self._threshold(rows, keys), keys)
            if bool((left > 0).all()) and (keys.dim() == 1 or not bool(tied.any())):
                return torch.softmax(scores.masked_fill(out, -torch.inf), dim=-1)
        kept = self._keep(scores, *self._threshold(scores, keys), keys)
        empty = (kept == -torch.inf).all(dim=-1, keepdim=True)
        return torch.softmax(kept.masked_fill(empty, 0.0), dim=-1).masked_fill(empty, 0.0)

    def row_statistics(self, scores, keys, learned):
        """Return the k-th largest score, the first key kept of those tied with it, and log Σ
        exp."""
        kth, first_kept = self._threshold(scores, keys)
        return kth, first_kept, log_sum_exp(self._keep(scores, kth, first_kept, keys))

    def _threshold(self, scores, keys):
        """Return the k-th largest score, and the first key kept of those tied with it."""
        kept = min(self.k, scores.shape[-1])
        kth = scores.detach().topk(kept, dim=-1).values[..., -1:]
        lowest, highest = _tied_with(kth)
        places = kept - (scores > highest).sum(dim=-1, keepdim=True)  # left for those tied with kth
        tied = (scores >= lowest) & (scores <= highest)
        from_the_right = tied.flip(-1).cumsum(dim=-1).flip(-1)
        kept_ties = torch.where(
            tied & (from_the_right <= places), keys, torch.iinfo(keys.dtype).max
        )
        return kth, kept_ties.amin(dim=-1, keepdim=True)

    def weights(self, scores, statistics, keys, learned):
        kth, first_kept, total = statistics
        return (self._keep(scores, kth, first_kept, keys) - total).exp()

    @staticmethod
    def _keep(scores, kth, first_kept, keys):
        return scores.masked_fill(~TopK._kept(scores, kth, first_kept, keys), -torch.inf)

    @staticmethod
    def _kept(scores, kth, first_kept, keys):
        lowest, highest = _tied_with(kth)
        # NaN is neither below nor tied: it is kept, and seen in what comes of it.
        return ~(scores < lowest) & (~(scores <= highest) | (keys >= first_kept))


def _tied_with(kth):
    """Return the lowest and the highest score that are tied with the k-th largest."""
    reach = TIED * kth.abs().clamp(min=1)
    return kth - reach, kth + reach
