"""Base class of normalizers: two functions that every backend and every diagnostic uses.

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

    `row_statistics` reads a whole row and returns what `weights` needs to map each score
    separately; calling the normalizer composes both, differentiably. Learned tensors are declared
    by `learned` and passed to the methods by name.
    """

    name: ClassVar[str]
    shift_invariant: ClassVar[bool] = True
    """Adding a constant to a row does not change its weights; only then may scores be shifted."""
    rows_sum_to_one: ClassVar[bool] = True
    elementwise: ClassVar[bool] = True
    """`weights` maps each score separately, given the statistics."""
    sees_itself: ClassVar[bool] = True
    """Under a causal mask a query sees its own key."""
    causal_only: ClassVar[bool] = False
    """Valid only if a query sees no keys after it: not usable in an encoder."""
    sparse: ClassVar[bool] = False
    """Low scores have weight 0; `support_edge` bounds them, so that they need not be computed."""
    is_softmax: ClassVar[bool] = False
    """The weights are the plain softmax of the scores, for which torch has a fused kernel."""
    learns_alpha: ClassVar[bool] = False
    """It is an entmax with learned α; `alpha_minus_one(learned)` returns α - 1 of each head."""
    backends: ClassVar[tuple[str, ...]] = ("reference", "blockwise")

    def __init_subclass__(cls, **options: Any) -> None:
        """Reset class variables that a subclass with its own weights must declare itself.

        If they were inherited, a backend would compute the parent class instead.
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
        """Raise ValueError, in one line, for unsupported sizes."""

    def learned(self, sizes: Sizes) -> dict[str, Tensor]:
        """Return the initial values of the learned tensors of one attention layer, each [heads
        …]."""
        return {}

    def support_edge(self, scores: Tensor, learned: Mapping[str, Tensor]) -> Tensor:
        """Return a score below which weights are exactly 0 [… q 1].

        It must hold for every row that contains these scores, since more keys never add weight to
        others. A lower bound is enough; -inf if there is none. Called only if `sparse`; not
        differentiated.
        """
        return torch.full_like(scores[..., :1], -torch.inf)

    def steepness(self, learned: Mapping[str, Tensor]) -> float | Tensor:
        """Return the power s, per head [h 1 1] or for all, in ∂ log w / ∂ score = w^−s where w > 0.

        0 for softmax, α − 1 for α-entmax: rounding errors of the scores grow by w^−s in the
        weights.
        """
        return 0.0

    def kernel(self, learned: Mapping[str, Tensor]) -> tuple[str, float | Tensor]:
        """Return the mode of the triton kernels (`MODES` in their `operators`), and α - 1 per
        head or for all."""
        raise TypeError(f"{self.name} has no kernel")

    @property
    def solves_from_edge(self) -> bool:
        """True when `from_edge` is defined and much faster than solving a row from scratch."""
        return False

    def from_edge(self, scores: Tensor, edge: Tensor) -> Tensor:
        """Return the weights, given a `support_edge`, in place of float32 scores;
        differentiable."""
        raise TypeError(f"{self.name} does not solve rows from an edge")

    def row_statistics(
        self, scores: Tensor, keys: Tensor, learned: Mapping[str, Tensor]
    ) -> tuple[Tensor, ...]:
        """Return statistics of each row, each [… q 1] or [… q 2]."""
        return ()

    @abstractmethod
    def weights(
        self,
        scores: Tensor,
        statistics: tuple[Tensor, ...],
        keys: Tensor,
        learned: Mapping[str, Tensor],
    ) -> Tensor:
        """Return the weights [… q k] from scores and the statistics of their rows."""

    def __call__(self, scores: Tensor, keys: Tensor, learned: Mapping[str, Tensor]) -> Tensor:
        """Return the weights [… q k], differentiable in the scores and the learned tensors.

        keys is [k], or [… q k] if rows have different keys; either way they increase.
        """
        return self.weights(scores, self.row_statistics(scores, keys, learned), keys, learned)


def log_sum_exp(scores: Tensor) -> Tensor:
    """Return log Σ exp over keys [… q 1], 0 for a fully masked row, whose weights are then
    exactly 0."""
    total = torch.logsumexp(scores, dim=-1, keepdim=True)
    return total.masked_fill(total == -torch.inf, 0.0)


def count_keys(scores: Tensor) -> Tensor:
    """Return n, the number of keys of each row that are not masked [… q 1], at least 1.

    Exact where a normalizer is not `sparse`: backends then hand it all keys that a query sees.
    """
    return (scores > -torch.inf).sum(dim=-1, keepdim=True).clamp_min(1).to(scores.dtype)


def row_maximum(scores: Tensor) -> Tensor:
    """Return the largest score [… q 1], 0 for a fully masked row; not differentiated."""
    if not scores.shape[-1]:
        return scores.new_zeros(*scores.shape[:-1], 1)
    top = scores.detach().amax(dim=-1, keepdim=True)
    return top.masked_fill(top == -torch.inf, 0.0)
