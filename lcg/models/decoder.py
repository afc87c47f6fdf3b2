# ruff: noqa: F722  (shapes in annotations)
"""The decoder-only transformer.

Shapes: b batch, t tokens, q selected positions, v vocabulary.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from lcg.attention import Attention
from lcg.attention.cache import KVCache
from lcg.config.schema import Model
from lcg.models.block import Block
from lcg.models.greedy import continued
from lcg.models.transformer import Transformer
from lcg.shapes import Float, Int


class Decoder(Transformer):
    """Blocks with causal attention between embedding and head.

    Padding comes last, so a causal model needs no mask; `pad` is known for who looks at it.
    Nothing depends on a maximum length.
    """

    def make_blocks(self, model: Model, attention: Attention) -> None:
        """As `Transformer` says."""
        self.position_state = self.position_tensors(model)
        self.blocks = nn.ModuleList(
            Block(model, attention, self.position) for _ in range(model.layers)
        )

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        select: Int[Tensor, " q"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "b q v"]:
        """Next-token logits in float32, of all tokens or at tokens[:, select].

        Only the selected positions have queries in the last layer and logits. With a cache, tokens
        continue what the cache has read.
        """
        if cache is None:
            positions = self.positions(tokens.shape[1], tokens.device)
            layer_caches = [None] * len(self.blocks)
        else:
            positions = cache.next_positions(tokens.shape[1])
            layer_caches = cache.layers
        x = self.embed(tokens, positions[-tokens.shape[1] :], self.position_state)
        last = len(self.blocks) - 1
        for i, (block, layer_cache) in enumerate(zip(self.blocks, layer_caches, strict=True)):
            x = block(x, positions, select if i == last else None, layer_cache)
        return self.logits(x)

    def make_cache(self, length: int) -> KVCache:
        """An empty cache for sequences of up to `length` tokens."""
        positions = self.positions(length, self.embedding.weight.device)
        return KVCache(len(self.blocks), positions)

    @torch.no_grad()
    def greedy(self, tokens: Int[Tensor, "b t"], count: int) -> Int[Tensor, "b {count}"]:
        """Continue tokens by `count` greedy tokens, read one at a time; -1 where logits are not
        finite.
        """
        cache = self.make_cache(tokens.shape[1] + count)
        return continued(partial(self, cache=cache), tokens, count)
