"""The normalizer seam: two functions that every backend and every diagnostic shares.

Shapes: scores [… q k] in float32, -inf where a key is masked; keys [k] counts the keys in order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lcg.positional.base import Sizes, torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@dataclass
class Normalizer(ABC):
    """A normalizer is a dataclass: its fields are its options, its methods are pure functions.

    `row_statistics` reads a whole row and returns what `weights` needs to treat every score by
    itself; calling the normalizer composes both, differentiably. Learned tensors are declared by
    `learned` and handed back by name.
    """

    name: ClassVar[str]
    shift_invariant: ClassVar[bool] = True
    """Adding a constant to a row changes nothing; only then may scores be shifted."""
    rows_sum_to_one: ClassVar[bool] = True
    elementwise: ClassVar[bool] = True
    """`weights` treats each score by itself, given the statistics."""
    sees_itself: ClassVar[bool] = True
    """Under a causal mask a query sees its own key."""
    causal_only: ClassVar[bool] = False
    """Makes sense only where a query sees nothing but keys before it: no encoder can have it."""
    sparse: ClassVar[bool] = False
    """Low scores have weight 0, and `support_edge` says which, so that nobody need look at them.
    False where keys without weight change the weights of others, by their number or in a sum."""
    is_softmax: ClassVar[bool] = False
    """The weights are the plain softmax of the scores, for which torch has a fused kernel."""
    learns_alpha: ClassVar[bool] = False
    """It is an entmax that learns α; `alpha_minus_one(learned)` gives α - 1 of each head."""
    backends: ClassVar[tuple[str, ...]] = ("reference", "blockwise")

    def __init_subclass__(cls, **options: Any) -> None:
        """A class with weights of its own makes its own promises: what it inherits of them would
        let a backend compute its parent in its place.
        """
        super().__init_subclass__(**options)

        def home(*names: str) -> int:
            """The place, in the order of its classes, of the first that defines one of these."""
            return next(
                i for i, c in enumerate(cls.__mro__) if not vars(c).keys().isdisjoint(names)
            )

        for name in ("sparse", "is_softmax", "solves_from_edge", "backends"):
            if home("__call__", "weights", "row_statistics") < home(name):
                setattr(cls, name, vars(Normalizer)[name])

    def check(self, sizes: Sizes) -> None:
        """Raise ValueError, in one line, when these sizes cannot work."""

    def learned(self, sizes: Sizes) -> dict[str, Tensor]:
        """Initial values of the learned tensors of one attention layer, each [heads …]."""
        return {}

    def support_edge(self, scores: Tensor, learned: Mapping[str, Tensor]) -> Tensor:
        """A score below which weights are exactly 0 [… q 1], in every row that has these scores
        among its own: adding keys to a row never gives weight to another. -inf where none is;
        a bound from below will do.

        Asked for where `sparse`; not differentiated.
        """
        return torch.full_like(scores[..., :1], -torch.inf)

    def steepness(self, learned: Mapping[str, Tensor]) -> float | Tensor:
        """The power s, of each head [h 1 1] or of all, in ∂ log w / ∂ score = w^−s where w > 0.

        0 for softmax, α − 1 for α-entmax: rounding of the scores grows by w^−s in the weights.
        """
        return 0.0

    def kernel(self, learned: Mapping[str, Tensor]) -> tuple[str, float | Tensor]:
        """The mode of the triton kernels that computes it (`MODES` in their `operators`), and
        α - 1 of each head, or of all.
        """
        raise TypeError(f"{self.name} has no kernel")

    @property
    def solves_from_edge(self) -> bool:
        """True where `from_edge` is there, and much faster than solving a row from nothing."""
        return False

    def from_edge(self, scores: Tensor, edge: Tensor) -> Tensor:
        """The weights, given a `support_edge`, written over float32 scores; differentiable."""
        raise TypeError(f"{self.name} does not solve rows from an edge")

    def row_statistics(
        self, scores: Tensor, keys: Tensor, learned: Mapping[str, Tensor]
    ) -> tuple[Tensor, ...]:
        """Statistics of each row, every one of shape [… q 1] or [… q 2]."""
        return ()

    @abstractmethod
    def weights(
        self,
        scores: Tensor,
        statistics: tuple[Tensor, ...],
        keys: Tensor,
        learned: Mapping[str, Tensor],
    ) -> Tensor:
        """Weights [… q k] from scores and the statistics of their rows."""

    def __call__(self, scores: Tensor, keys: Tensor, learned: Mapping[str, Tensor]) -> Tensor:
        """Weights [… q k], differentiable in the scores and the learned tensors.

        keys is [k], or [… q k] where rows hold different keys; either way they increase.
        """
        return self.weights(scores, self.row_statistics(scores, keys, learned), keys, learned)


def log_sum_exp(scores: Tensor) -> Tensor:
    """log Σ exp over keys [… q 1], 0 for a fully masked row, so that its weights are exactly 0."""
    total = torch.logsumexp(scores, dim=-1, keepdim=True)
    return total.masked_fill(total == -torch.inf, 0.0)


def count_keys(scores: Tensor) -> Tensor:
    """n, the number of keys of each row that are not masked [… q 1], at least 1.

    Exact where a normalizer is not `sparse`: backends then hand it all keys that a query sees.
    """
    return (scores > -torch.inf).sum(dim=-1, keepdim=True).clamp_min(1).to(scores.dtype)


def row_maximum(scores: Tensor) -> Tensor:
    """The largest score [… q 1], 0 for a fully masked row; not differentiated."""
    if not scores.shape[-1]:
        return scores.new_zeros(*scores.shape[:-1], 1)
    top = scores.detach().amax(dim=-1, keepdim=True)
    return top.masked_fill(top == -torch.inf, 0.0)
