"""Base class of position encodings: hooks that an encoding may override, each with a neutral
default.

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
    """The sizes of one attention layer. layer: its number in the model, from 0; causal: whether
    a query sees no key after it.
    """

    heads: int
    kv_heads: int
    head_dim: int
    d_model: int
    layer: int = 0
    causal: bool = True

    @property
    def width(self) -> int:
        """The width of all heads together."""
        return self.heads * self.head_dim


class Tile(NamedTuple):
    """A tile of queries and keys: the arguments from which a hook computes their bias or scores.

    Position ids broadcast to [b h q k]: q_ids is [q 1] and k_ids [k], or [b 1 q 1] and [b 1 1 k] if
    sequences have different ids. q [b h q d] and k [b kv_heads k d] are the factors of the product:
    normed, rotated, q multiplied by the length scaling. The states of queries and keys are those of
    `PositionEncoding.state`, [b h q] and [b h k]. hidden, broadcastable to [b h q k], is True on
    keys that a query does not see; None if it sees all.
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


def filled_in(part: Any, name: str) -> int:
    """The value of a field that a config fills in. Raises ValueError where none was read."""
    value = getattr(part, name)
    if value is None:
        raise ValueError(f"{part.name}: {name} is not known without a config; set it")
    return value


def device_of_float64(x: Tensor) -> Any:
    """The device of x, or the CPU where that has no float64, as MPS."""
    return "cpu" if x.device.type == "mps" else x.device


def __getattr__(name: str) -> Any:
    if name == "BiasContext":
        raise ImportError("BiasContext is now Tile(q_ids, k_ids, q, k), q_ids of shape [q 1]")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass
class PositionEncoding:
    """A position encoding is a dataclass: its fields are its options, its methods are the hooks.

    Learned tensors are declared by `learned` (one set per attention layer) or `learned_embedding`
    (one set per model) and passed to the hooks; an encoding itself holds no state.
    """

    name: ClassVar[str]
    relative: ClassVar[bool] = True
    """Scores depend on position differences only (shift invariance is then tested)."""
    cumulative: ClassVar[tuple[str, ...]] = ()
    """Names of the `state` tensors that are replaced by their running sums over the tokens."""
    shared: ClassVar[tuple[str, ...]] = ()
    """Names of the `learned` tensors of which there is one for all layers."""
    causal_only: ClassVar[bool] = False
    """It has no meaning where a query sees keys after it."""
    widens: ClassVar[bool] = False
    """Rotations make queries and keys wider than values; no kernel runs that."""

    @property
    def ordered(self) -> bool:
        """True when a hook tells queries about order even without a causal mask."""
        return self.has("slopes") or self.more_than_slopes

    @property
    def more_than_slopes(self) -> bool:
        """True when a hook other than `slopes` tells about order, also in heads of slope 0."""
        return any(map(self.has, ORDERING))

    def has(self, hook: str) -> bool:
        """True when the class overrides this hook."""
        return getattr(type(self), hook) is not getattr(PositionEncoding, hook)

    def of_layer(self, layer: int) -> PositionEncoding:
        """Return the encoding of one layer of a model, numbered from 0."""
        return self

    def check(self, sizes: Sizes) -> None:
        """Raise ValueError, in one line, for unsupported sizes."""

    def check_ids(self, counts: Sequence[int]) -> None:
        """Raise ValueError, in one line, when ids 0 … count - 1 are more than there may be.

        counts are those of each level. Asked before any work with the tokens of the longest
        sequence, and for each batch where a task numbers the tokens.
        """

    def learned(self, sizes: Sizes) -> dict[str, Tensor]:
        """Return the initial values of the learned tensors of one attention layer."""
        return {}

    def learned_embedding(self, sizes: Sizes) -> dict[str, Tensor]:
        """Return the initial values of the learned tensors that `embed` uses."""
        return {}

    def positions(self, length: int, device: Any = None) -> Tensor:
        """Return the position ids [length] of a sequence without ids from a task or
        `draw_positions`.

        They are 0, 1, 2, … by default, and the same in every call.
        """
        return torch.arange(length, device=device)

    def draw_positions(
        self, rng: np.random.Generator, lengths: np.ndarray, training: bool
    ) -> np.ndarray:
        """Draw position ids [b t] for sequences of lengths [b] in tokens; t is the longest of
        these.

        rng is seeded like the data of the batch: by seed and step in training, by seed, split,
        length and block in evaluation.
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

        They are cached with keys and values, so that every query has those of all its keys, and
        passed to `separable`, `bias` and `map_scores`. Those named in `cumulative` are replaced by
        the sum over all tokens up to each, in float64; padding adds nothing to it.
        """
        return {}

    # ---- the forms of a bias, from cheap to general; backends are asked which they run

    def slopes(self, heads: int) -> Tensor | None:
        """Return the slopes m [h] of a bias -m·|i - j|, in float32, or None."""
        return None

    def table(self, distances: Tensor, learned: Mapping[str, Tensor]) -> Tensor:
        """Return the bias [h n] at n increasing whole distances i - j; negative after a query."""
        raise NotImplementedError

    def separable(
        self, q_state: Mapping[str, Tensor], k_state: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return u [b h q] of the queries and w [b h k] of the keys, of a bias u_i + w_j."""
        raise NotImplementedError

    def bias(self, tile: Tile, learned: Mapping[str, Tensor]) -> Tensor | None:
        """Return any other additive bias, broadcastable to [b h q k], or None.

        It is computed for all heads and for some queries and keys at a time, and never scaled by
        length.
        """
        return None

    def map_scores(self, scores: Tensor, tile: Tile, learned: Mapping[str, Tensor]) -> Tensor:
        """Change the scores [b h q k], before any bias is added and before keys are hidden.

        It is called for all heads and for all keys that the queries of a tile see.
        """
        return scores

    def window(self, heads: int) -> list[int | None] | None:
        """Return the number of most recent keys that a query of each head sees, its own included.

        None: all keys. Keys are counted by order; the n of length scalings still counts all keys.
        """
        return None

    def scaled_heads(self, heads: int) -> Sequence[int]:
        """Return the heads that a length scaling applies to, in order."""
        return range(heads)


ORDERING = (
    *("embed", "rotate_queries", "rotate_keys", "table", "separable", "bias", "map_scores"),
    "window",
)
"""The hooks, besides `slopes`, by which an encoding tells of order."""
