"""A sink: an extra score in every row, whose weight is dropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lcg.attention.normalizers.base import Normalizer
from lcg.positional.base import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class WithSink(Normalizer):
    """The weights that `inner` gives to the keys of a row with an extra score s.

    s is 0, or learned per head, starting at 0. With softmax, p_j = exp(z_j) / (exp(s) + Σ exp(z))
    (softmax1; learned as in gpt-oss). s is not biased, masked or scaled. The option
    `attention.sink` creates this wrapper; it has no name of its own.
    """

    name: ClassVar[str] = "sink"
    shift_invariant: ClassVar[bool] = False
    rows_sum_to_one: ClassVar[bool] = False
    is_softmax: ClassVar[bool] = False

    inner: Normalizer
    score: str

    def __post_init__(self) -> None:
        if not self.inner.elementwise:
            raise ValueError(
                f"attention.sink={self.score} cannot go with normalizer={self.inner.name}, "
                "which depends on the order of keys; use attention.sink=none"
            )
        if not self.inner.rows_sum_to_one:
            raise ValueError(
                f"attention.sink={self.score} is not for normalizer={self.inner.name}, "
                "whose rows need not sum to one; use attention.sink=none"
            )
        self.name = self.inner.name
        self.sparse, self.backends = self.inner.sparse, ("reference", "blockwise")
        self.learns_alpha = self.inner.learns_alpha

    def __getattr__(self, name: str) -> Any:
        """Return the options and properties of the normalizer."""
        if name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def check(self, sizes):
        self.inner.check(sizes)

    def learned(self, sizes):
        own = {"sink": torch.zeros(sizes.heads)} if self.score == "learned" else {}
        return self.inner.learned(sizes) | own

    def steepness(self, learned):
        return self.inner.steepness(learned)

    def support_edge(self, scores, learned):
        keys = torch.arange(scores.shape[-1], device=scores.device)
        return self.inner.support_edge(self._with_sink(scores, keys, learned)[0], learned)

    def __call__(self, scores, keys, learned):
        return self.inner(*self._with_sink(scores, keys, learned), learned)[..., 1:]

    def row_statistics(self, scores, keys, learned):
        return self.inner.row_statistics(*self._with_sink(scores, keys, learned), learned)

    def weights(self, scores, statistics, keys, learned):
        return self.inner.weights(scores, statistics, keys + 1, learned)

    def _with_sink(self, scores: Tensor, keys: Tensor, learned: Any) -> tuple[Tensor, Tensor]:
        """Return the scores after that of the sink [… h q 1 + k], and the shifted keys."""
        sink = scores.new_zeros(*scores.shape[:-1], 1)
        if self.score == "learned":
            sink = sink + learned["sink"].to(scores.dtype)[:, None, None]
        keys = torch.nn.functional.pad(keys + 1, (1, 0))
        return torch.cat([sink, scores], dim=-1), keys
