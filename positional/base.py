"""The position-encoding seam: hooks that an encoding may fill in, each with a neutral default.

Shapes: b batch, h heads, t tokens, q queries, k keys, d head dimension, w model width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    """The sizes of one attention layer."""

    heads: int
    kv_heads: int
    head_dim: int
    d_model: int


class BiasContext(NamedTuple):
    """Inputs that an additive bias may be computed from.

    q [b h q d] and k [b kv_heads k d] before any scaling; x [b q w] the attention's input at the
    queries; q_positions [q] and k_positions [k].
    """

    q: Tensor
    k: Tensor
    x: Tensor
    q_positions: Tensor
    k_positions: Tensor

    def crop(self, queries: slice, keys: slice) -> BiasContext:
        """The same for some of the queries and keys."""
        return BiasContext(
            self.q[:, :, queries],
            self.k[:, :, keys],
            self.x[:, queries],
            self.q_positions[queries],
            self.k_positions[keys],
        )


@dataclass
class PositionEncoding:
    """A position encoding is a dataclass: its fields are its options, its methods are the hooks.

    Learned tensors are declared by `learned` (one set per attention layer) or `learned_embedding`
    (one set per model) and handed back to the hooks, so an encoding itself holds no state.
    """

    name: ClassVar[str]
    relative: ClassVar[bool] = True
    """Scores depend on position differences only (shift invariance is then tested)."""
    data_dependent: ClassVar[bool] = False
    """The bias reads q, k or x: it is then computed for all queries and keys at once, which only
    the reference backend does."""

    @property
    def ordered(self) -> bool:
        """True when any hook tells a query of order where no causal mask does."""
        return self._has("slopes") or self.more_than_slopes

    @property
    def more_than_slopes(self) -> bool:
        """True when any hook but `slopes` tells of order, in heads of slope 0 too."""
        return any(map(self._has, ("embed", "rotate_queries", "rotate_keys", "bias")))

    def _has(self, hook: str) -> bool:
        return getattr(type(self), hook) is not getattr(PositionEncoding, hook)

    def check(self, sizes: Sizes) -> None:
        """Raise ValueError, in one line, when these sizes cannot work."""

    def learned(self, sizes: Sizes) -> dict[str, Tensor]:
        """Initial values of the learned tensors of one attention layer."""
        return {}

    def learned_embedding(self, sizes: Sizes) -> dict[str, Tensor]:
        """Initial values of the learned tensors that `embed` uses."""
        return {}

    def positions(self, length: int, device: Any = None) -> Tensor:
        """Position ids [length], strictly increasing, drawn once for the longest length reached."""
        return torch.arange(length, device=device)

    def embed(self, x: Tensor, positions: Tensor, learned: Mapping[str, Tensor]) -> Tensor:
        """Change the token embeddings x [b t w]."""
        return x

    def rotate_queries(self, q: Tensor, positions: Tensor) -> Tensor:
        """Change queries [b h q d] by their positions [q]."""
        return q

    def rotate_keys(self, k: Tensor, positions: Tensor) -> Tensor:
        """Change keys [b kv_heads k d] by their positions [k]."""
        return k

    def slopes(self, heads: int) -> Tensor | None:
        """Slopes m [h] of a bias -m·|i - j|, in float32, or None. Backends know this form."""
        return None

    def bias(self, context: BiasContext, learned: Mapping[str, Tensor]) -> Tensor | None:
        """Any other additive bias, broadcastable to [b h q k], or None. Never scaled by length.

        Asked for some queries and keys at a time unless `data_dependent`.
        """
        return None

    def scaled_heads(self, heads: int) -> range:
        """The heads, a contiguous run up to the last, that a length scaling applies to."""
        return range(heads)
