# ruff: noqa: F722  (shapes in annotations)
"""What the attention layers of a model work on, observed from outside.

A layer's input says everything: the layer itself gives its weights and scalers again from it. So
nothing in a forward pass knows that it is watched, and it runs on whatever backend it runs on.

Shapes: b batch, h heads, t tokens, q queries, w model width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lcg.attention.multihead import MultiHeadAttention
from lcg.attention.normalizers.entmax import LearnedEntmax
from lcg.shapes import Float, Int, Shaped


@dataclass(frozen=True)
class Watched:
    """One attention layer, and what it was called with."""

    layer: MultiHeadAttention
    x: Float[Tensor, "b t w"]
    positions: Shaped[Tensor, " t"]

    def of(self, samples: slice) -> Watched:
        """The same for some samples."""
        return Watched(self.layer, self.x[samples], self.positions)

    def weights(self, queries: Int[Tensor, " q"] | None = None) -> Float[Tensor, "b h q t"]:
        """The weights of all queries, or of some; float32, 0 on keys that a query does not see."""
        return self.layer.weights(self.x, self.positions, queries)

    def scaler(self) -> Float[Tensor, "b h t"] | None:
        """What the scaling multiplies each query by, 1 in heads it leaves alone; None without."""
        found = self.layer.scaler(self.x, self.positions)
        if found is None:
            return None
        found = found.float().expand(len(self.x), -1, -1)
        ones = found.new_ones(len(self.x), self.layer.unscaled_heads, found.shape[-1])
        return torch.cat([ones, found], dim=1)

    def alpha(self) -> Float[Tensor, " h"] | None:
        """α of each head where it is learned."""
        return learned_alpha(self.layer)


def learned_alpha(layer: MultiHeadAttention) -> Float[Tensor, " h"] | None:
    """α of each head where the normalizer learns it, else None."""
    normalizer = layer.attention.normalizer
    if not isinstance(normalizer, LearnedEntmax):
        return None
    return 1 + normalizer.alpha_minus_one(layer.normalizer_state).detach().flatten()


@contextmanager
def watching(model: nn.Module) -> Iterator[list[Watched]]:
    """Note what every attention layer is called with by forward passes inside, in call order.

    All tokens of a call are noted, also where the layer answers for some of its queries only.
    """
    seen: list[Watched] = []

    def note(layer, words, options) -> None:
        given = dict(zip(("x", "positions", "select", "cache"), words, strict=False)) | options
        if given.get("cache") is not None:
            raise ValueError(
                "a layer that reads from a cache cannot be watched: give it all tokens"
            )
        seen.append(Watched(layer, given["x"].detach(), given["positions"]))

    layers = [module for module in model.modules() if isinstance(module, MultiHeadAttention)]
    hooks = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
