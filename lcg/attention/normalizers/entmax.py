"""α-entmax: sparse weights, with α fixed or learned by each head."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lcg.attention.normalizers.base import Normalizer
from lcg.positional.base import torch
from lcg.text import as_number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class AnyEntmax(Normalizer):
    """Base class of α-entmax with fixed and learned α."""

    sparse: ClassVar[bool] = True
    backends: ClassVar[tuple[str, ...]] = ("reference", "blockwise", "triton")

    @abstractmethod
    def exponent(self, learned: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return the arguments of `lcg.entmax` for α."""

    def support_edge(self, scores, learned):
        from lcg.entmax import support_edge

        return support_edge(scores, **self.exponent(learned))

    def row_statistics(self, scores, keys, learned):
        from lcg.entmax import threshold

        return (threshold(scores, **self.exponent(learned)),)

    def weights(self, scores, statistics, keys, learned):
        from lcg.entmax import weights_from_threshold

        return weights_from_threshold(scores, statistics[0], **self.exponent(learned))

    def __call__(self, scores, keys, learned):
        from lcg.entmax import entmax

        return entmax(scores, **self.exponent(learned))


@dataclass
class Entmax(AnyEntmax):
    """p_j = [(α - 1) z_j - τ]₊^(1/(α - 1)), τ such that Σ p = 1 (1905.05702).

    α = 1 is softmax, α = 2 sparsemax.
    """

    name: ClassVar[str] = "entmax"

    alpha: float = 1.5
    """1 is softmax, 2 sparsemax; larger is sparser. Between 1.01 and 32, or exactly 1."""

    def __post_init__(self) -> None:
        self.alpha = number("entmax: alpha", self.alpha)
        if self.alpha != 1 and not 1.01 <= self.alpha <= 32:
            raise ValueError(f"entmax: alpha must be 1 or in [1.01, 32], got {self.alpha:g}")

    def exponent(self, learned):
        return {"alpha": self.alpha}

    def steepness(self, learned):
        return self.alpha - 1

    def kernel(self, learned):
        special = {1.0: "softmax", 1.5: "entmax_15", 2.0: "sparsemax"}
        general = "entmax_low" if self.alpha < 2 else "entmax_high"
        return special.get(self.alpha, general), self.alpha - 1

    @property
    def solves_from_edge(self):
        return self.alpha in (1.5, 2.0)

    def support_edge(self, scores, learned):
        from lcg.entmax import edge_below

        if self.solves_from_edge:
            return edge_below(scores, self.alpha)
        return super().support_edge(scores, learned)

    def from_edge(self, scores, edge):
        from lcg.entmax import entmax_above

        return entmax_above(scores, edge, self.alpha)


@dataclass
class LearnedEntmax(AnyEntmax):
    """α-entmax with α = 1 + sigmoid(a), one learned a per head (1909.00015).

    α - 1 = sigmoid(a) is passed on directly, never recomputed from α, and kept at or above `floor`.
    """

    name: ClassVar[str] = "entmax_learned"
    learns_alpha: ClassVar[bool] = True

    init: Literal["normal", "constant"] = "normal"
    """a ~ N(0, 1), as in the authors' code, or a = logit(alpha - 1) in every head."""
    alpha: float = 1.5
    """Initial α with init=constant."""
    floor: float = 0.01
    """Lower clamp of α - 1; the gradient in a is zero below it."""

    def __post_init__(self) -> None:
        self.alpha = number("entmax_learned: alpha", self.alpha)
        self.floor = number("entmax_learned: floor", self.floor)
        if not 1 < self.alpha < 2:
            raise ValueError(f"entmax_learned: alpha must be in (1, 2), got {self.alpha:g}")
        if not 0.01 <= self.floor < 1:
            raise ValueError(f"entmax_learned: floor must be in [0.01, 1), got {self.floor:g}")

    def learned(self, sizes):
        if self.init == "normal":
            return {"a": torch.randn(sizes.heads)}
        return {"a": torch.full((sizes.heads,), self.alpha - 1).logit()}

    def alpha_minus_one(self, learned):
        """Return α - 1 per head, [h 1 1], in float32 at least; the floor where a is NaN.

        Training detects NaN in its parameters; as an α it would raise an error earlier.
        """
        a = learned["a"]
        wide = a.to(torch.promote_types(a.dtype, torch.float32))
        return wide.sigmoid().nan_to_num(nan=0.0).clamp_min(self.floor)[:, None, None]

    def exponent(self, learned):
        return {"alpha_minus_one": self.alpha_minus_one(learned)}

    def steepness(self, learned):
        return self.alpha_minus_one(learned)

    def kernel(self, learned):
        return "entmax_low", self.alpha_minus_one(learned)


def number(name: str, value: Any) -> float:
    """Return a number of any library as a float. Raises TypeError for other objects."""
    found = as_number(value)
    if found is None:
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    return found
