"""The position-encoding seam: hooks that an encoding may fill in, each with a neutral default.

Shapes: b batch, h heads, t tokens, q queries, k keys, d head dimension, w model width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from torch import Tensor


class _TorchOnFirstUse:
    """Stands for `torch` and imports it when an attribute is first read.

    Importing torch takes over a second; the schema of an encoding (its fields, its checks) must be
    readable without it, so that a mistyped option is reported at once. A class of your own may
    simply `import torch`.
    """

    def __getattr__(self, attribute: str) -> Any:
        import torch

        return getattr(torch, attribute)


torch: Any = _TorchOnFirstUse()


class Sizes(NamedTuple):
    """The sizes of one attention layer; layer: its number in the model, from 0."""

    heads: int
    kv_heads: int
    head_dim: int
    d_model: int
    layer: int = 0

    @property
    def width(self) -> int:
        """The width of all heads together."""
        return self.heads * self.head_dim


class Tile(NamedTuple):
    """Some queries and keys, and what a hook may compute their bias or their scores of.

    Position ids broadcast to [b h q k]: q_ids is [q 1] and k_ids [k], or [b 1 q 1] and [b 1 1 k]
    where each sequence has ids of its own. q [b h q d] and k [b kv_heads k d] are as in the
    product: normed, rotated, q multiplied by the length scaling. The states of queries and keys are
    those of `PositionEncoding.state`, [b h q] and [b h k]. hidden is True, broadcast to [b h q k],
    on keys that a query does not see; None: it sees all.
    """

    q_ids: Tensor
    k_ids: Tensor
    q: Tensor
    k: Tensor
    q_state: Mapping[str, Tensor] = {}
    k_state: Mapping[str, Tensor] = {}
    hidden: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a Tile has no {name}{OF_OLD.get(name, '')}")

    @property
    def distance(self) -> Tensor:
        """q_ids - k_ids."""
        return self.q_ids - self.k_ids


OF_OLD = {
    "q_positions": "; q_positions[:, None] is q_ids now, and q_ids - k_ids is distance",
    "k_positions": "; it is k_ids now",
    "x": "; declare a `state` of x",
}
"""Names of earlier versions and what to write now."""


def __getattr__(name: str) -> Any:
    if name == "BiasContext":
        raise ImportError("BiasContext is now Tile(q_ids, k_ids, q, k), q_ids of shape [q 1]")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass
class PositionEncoding:
    """A position encoding is a dataclass: its fields are its options, its methods are the hooks.

    Learned tensors are declared by `learned` (one set per attention layer) or `learned_embedding`
    (one set per model) and handed back to the hooks, so an encoding itself holds no state.
    """

    name: ClassVar[str]
    relative: ClassVar[bool] = True
    """Scores depend on position differences only (shift invariance is then tested)."""
    cumulative: ClassVar[tuple[str, ...]] = ()
    """Names of the `state` tensors whose running sum over the tokens is kept in their place."""

    @property
    def ordered(self) -> bool:
        """True when any hook tells a query of order where no causal mask does."""
        return self.has("slopes") or self.more_than_slopes

    @property
    def more_than_slopes(self) -> bool:
        """True when any hook but `slopes` tells of order, in heads of slope 0 too."""
        return any(map(self.has, ORDERING))

    def has(self, hook: str) -> bool:
        """True when the class fills in this hook."""
        return getattr(type(self), hook) is not getattr(PositionEncoding, hook)

    def of_layer(self, layer: int) -> PositionEncoding:
        """The encoding of one layer of a model, numbered from 0."""
        return self

    def check(self, sizes: Sizes) -> None:
        """Raise ValueError, in one line, when these sizes cannot work."""

    def learned(self, sizes: Sizes) -> dict[str, Tensor]:
        """Initial values of the learned tensors of one attention layer."""
        return {}

    def learned_embedding(self, sizes: Sizes) -> dict[str, Tensor]:
        """Initial values of the learned tensors that `embed` uses."""
        return {}

    def positions(self, length: int, device: Any = None) -> Tensor:
        """Position ids [length] of a sequence that neither a task nor `draw_positions` numbers.

        They are 0, 1, 2, … if not overridden, and the same in every call.
        """
        return torch.arange(length, device=device)

    def draw_positions(
        self, rng: np.random.Generator, lengths: np.ndarray, training: bool
    ) -> np.ndarray:
        """Draw position ids [b t] for sequences of lengths [b] in tokens, t the longest of these.

        rng is made of the address of the batch, as that of the data is: in training of seed and
        step, in evaluation of seed, split, length and block.
        """
        raise NotImplementedError

    def embed(self, x: Tensor, ids: Tensor, learned: Mapping[str, Tensor]) -> Tensor:
        """Change the token embeddings x [b t w]; ids [t] or [b t]."""
        return x

    def rotate_queries(self, q: Tensor, ids: Tensor, learned: Mapping[str, Tensor]) -> Tensor:
        """Change queries [b h q d] by their ids [q], or [b 1 q]; the width may change too."""
        return q

    def rotate_keys(self, k: Tensor, ids: Tensor, learned: Mapping[str, Tensor]) -> Tensor:
        """Change keys [b kv_heads k d] by their ids [k], or [b 1 k], to the width of queries."""
        return k

    def state(self, x: Tensor, learned: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute tensors [b h t] of each token from x [b t w], the attention's input.

        They are kept beside keys and values, so that every query sees those of all its keys, and
        handed to `separable`, `bias` and `map_scores`. Of those named in `cumulative` the sum over
        all tokens up to each is kept, in float64; padding adds nothing to it.
        """
        return {}

    # ---- the forms of a bias, from cheap to general; backends are asked which they run

    def slopes(self, heads: int) -> Tensor | None:
        """Slopes m [h] of a bias -m·|i - j|, in float32, or None."""
        return None

    def table(self, distances: Tensor, learned: Mapping[str, Tensor]) -> Tensor:
        """The bias [h n] at whole distances i - j [n], which increase; negative after a query."""
        raise NotImplementedError

    def separable(
        self, q_state: Mapping[str, Tensor], k_state: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """u [b h q] of the queries and w [b h k] of the keys, of a bias u_i + w_j."""
        raise NotImplementedError

    def bias(self, tile: Tile, learned: Mapping[str, Tensor]) -> Tensor | None:
        """Any other additive bias, broadcastable to [b h q k], or None. Never scaled by length.

        Asked for all heads, and for some queries and keys at a time.
        """
        return None

    def map_scores(self, scores: Tensor, tile: Tile, learned: Mapping[str, Tensor]) -> Tensor:
        """Change the scores [b h q k], before any bias is added and before keys are hidden.

        Asked for all heads and for all keys that the queries of a tile see.
        """
        return scores

    def window(self, heads: int) -> list[int | None] | None:
        """The number of most recent keys, its own among them, that a query of each head sees.

        None: all. They are counted by order; the n of length scalings still counts all keys.
        """
        return None

    def scaled_heads(self, heads: int) -> Sequence[int]:
        """The heads that a length scaling applies to, in order."""
        return range(heads)


ORDERING = (
    *("embed", "rotate_queries", "rotate_keys", "table", "separable", "bias", "map_scores"),
    "window",
)
"""The hooks, besides `slopes`, by which an encoding tells of order."""
