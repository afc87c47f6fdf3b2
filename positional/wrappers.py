"""Encodings that modify another one, the option `inner`: `position=NAME position.inner=alibi`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from lcg.positional.base import PositionEncoding, Sizes, Tile
from lcg.positional.rotary import RoPE

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Named = Mapping[str, Any]


@dataclass
class Wrapper(PositionEncoding):
    """An encoding with the hooks of `inner`, except for those that a subclass overrides.

    Learned tensors keep the names that they have in `inner`. A subclass with tensors of its own
    adds them to `super().learned(sizes)`, under names that no other encoding has.
    """

    inner: PositionEncoding = field(default_factory=RoPE)
    """The encoding that is modified, with options of its own."""

    def has(self, hook: str) -> bool:
        own = getattr(type(self), hook) is not getattr(Wrapper, hook)
        return own or self.inner.has(hook)

    @property
    def relative(self) -> bool:
        return self.inner.relative

    @property
    def cumulative(self) -> tuple[str, ...]:
        return self.inner.cumulative

    @property
    def shared(self) -> tuple[str, ...]:
        return self.inner.shared

    @property
    def causal_only(self) -> bool:
        return self.inner.causal_only

    @property
    def widens(self) -> bool:
        return self.inner.widens

    def of_layer(self, layer: int) -> PositionEncoding:
        return replace(self, inner=self.inner.of_layer(layer))

    def check(self, sizes: Sizes) -> None:
        self.inner.check(sizes)

    def check_ids(self, counts: Sequence[int]) -> None:
        self.inner.check_ids(counts)

    def learned(self, sizes: Sizes) -> dict[str, Tensor]:
        return self.inner.learned(sizes)

    def learned_embedding(self, sizes: Sizes) -> dict[str, Tensor]:
        return self.inner.learned_embedding(sizes)

    def positions(self, length: int, device: Any = None) -> Tensor:
        return self.inner.positions(length, device)

    def draw_positions(
        self, rng: np.random.Generator, lengths: np.ndarray, training: bool
    ) -> np.ndarray:
        return self.inner.draw_positions(rng, lengths, training)

    def embed(self, x: Tensor, ids: Tensor, learned: Named) -> Tensor:
        return self.inner.embed(x, ids, learned)

    def rotate_queries(self, q: Tensor, ids: Tensor, learned: Named) -> Tensor:
        return self.inner.rotate_queries(q, ids, learned)

    def rotate_keys(self, k: Tensor, ids: Tensor, learned: Named) -> Tensor:
        return self.inner.rotate_keys(k, ids, learned)

    def state(self, x: Tensor, learned: Named) -> dict[str, Tensor]:
        return self.inner.state(x, learned)

    def slopes(self, heads: int) -> Tensor | None:
        return self.inner.slopes(heads)

    def table(self, distances: Tensor, learned: Named) -> Tensor:
        return self.inner.table(distances, learned)

    def separable(self, q_state: Named, k_state: Named) -> tuple[Tensor, Tensor]:
        return self.inner.separable(q_state, k_state)

    def bias(self, tile: Tile, learned: Named) -> Tensor | None:
        return self.inner.bias(tile, learned)

    def map_scores(self, scores: Tensor, tile: Tile, learned: Named) -> Tensor:
        return self.inner.map_scores(scores, tile, learned)

    def window(self, heads: int) -> list[int | None] | None:
        return self.inner.window(heads)

    def scaled_heads(self, heads: int) -> Sequence[int]:
        return self.inner.scaled_heads(heads)


@dataclass
class Randomised(Wrapper):
    """Tokens have sorted random ids, all different, from 0 … longest - 1 (2305.16843).

    One draw serves a whole batch, also in evaluation: token t has the t-th smallest of as many ids
    as the longest sequence has tokens. The `draw_positions` of `inner` is not called.
    """

    name: ClassVar[str] = "randomised"

    longest: int = 2048
    """Number of ids to draw from: at least as many as the longest sequence has tokens."""

    def __post_init__(self) -> None:
        if self.longest < 1:
            raise ValueError(f"randomised: longest must be at least 1, got {self.longest}")

    def check_ids(self, counts: Sequence[int]) -> None:
        if counts[0] > self.longest:
            raise ValueError(
                f"randomised: {counts[0]} tokens need as many different ids, but longest="
                f"{self.longest}; set it to {counts[0]} or more"
            )
        self.inner.check_ids([self.longest, *counts[1:]])

    def draw_positions(self, rng, lengths, training):
        count = int(lengths.max())
        self.check_ids([count])
        ids = rng.choice(self.longest, count, replace=False)
        ids.sort()
        return ids[None].repeat(len(lengths), axis=0)
