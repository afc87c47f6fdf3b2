# ruff: noqa: F722  (shapes in annotations)
"""The encoder–decoder: an encoder reads the source, a decoder writes the target and looks at it.

Shapes: b batch, s source tokens, t target tokens, q selected positions, v vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lcg.attention import Attention
from lcg.attention.cache import CrossKVCache
from lcg.attention.layer import FullAttention, Memory, MultiHeadAttention
from lcg.config.schema import Model
from lcg.models.block import Block, CrossBlock, RMSNorm
from lcg.models.encoder import real_tokens
from lcg.models.greedy import continued
from lcg.models.transformer import Transformer
from lcg.shapes import Float, Int


class EncoderDecoder(Transformer):
    """Blocks with full attention and a final RMSNorm over the source; blocks with causal attention,
    cross-attention to that, and MLP over the target (1706.03762, with the norms of `Block`).

    Both sides share the embedding; each has its own tensors of an encoding that learns. Padding of
    the source, the tokens that are `pad`, is never attended to; that of the target comes last.
    """

    def make_blocks(self, model: Model, attention: Attention) -> None:
        """As `Transformer` says."""
        self.source_position_state = self.position_tensors(model)
        self.position_state = self.position_tensors(model)
        self.source_blocks = nn.ModuleList(
            Block(model, attention, self.position, FullAttention)
            for _ in range(model.source_layers)
        )
        self.source_norm = RMSNorm(model.d_model)
        self.blocks = nn.ModuleList(
            CrossBlock(model, attention, self.position) for _ in range(model.layers)
        )

    def attention_layers(self) -> dict[str, MultiHeadAttention]:
        """The attention layers by their names, in the order in which they are called."""
        layers = {f"encoder_{i}": block.attention for i, block in enumerate(self.source_blocks)}
        for i, block in enumerate(self.blocks):
            layers |= {f"decoder_{i}": block.attention, f"cross_{i}": block.cross}
        return layers

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        source: Int[Tensor, "b s"],
        select: Int[Tensor, " q"] | None = None,
    ) -> Float[Tensor, "b q v"]:
        """Next-token logits of the target in float32, of all tokens or at tokens[:, select]."""
        return self.decode(tokens, self.encode(source), select)

    def encode(self, source: Int[Tensor, "b s"]) -> Memory:
        """What the decoder attends to."""
        positions = self.positions(source.shape[1], source.device)
        mask = real_tokens(source, self.pad)
        x = self.embed(source, positions, self.source_position_state)
        for block in self.source_blocks:
            x = block(x, positions, None, mask)
        return Memory(self.source_norm(x), positions, mask)

    def decode(
        self,
        tokens: Int[Tensor, "b t"],
        memory: Memory,
        select: Int[Tensor, " q"] | None = None,
        cache: CrossKVCache | None = None,
    ) -> Float[Tensor, "b q v"]:
        """As `forward`, from an encoded source.

        Only the selected positions have queries in the last layer and logits. With a cache, tokens
        continue what the cache has read, and keys and values are made of the memory once.
        """
        count = len(self.blocks)
        if cache is None:
            positions = self.positions(tokens.shape[1], tokens.device)
            caches, memories = [None] * count, [memory] * count
        else:
            positions = cache.next_positions(tokens.shape[1])
            caches = cache.layers
            memories = [memory._replace(cache=crossed) for crossed in cache.crossed]
        x = self.embed(tokens, positions[-tokens.shape[1] :], self.position_state)
        for i, block in enumerate(self.blocks):
            chosen = select if i == count - 1 else None
            x = block(x, positions, chosen, caches[i], memories[i])
        return self.logits(x)

    def make_cache(self, length: int) -> CrossKVCache:
        """An empty cache for targets of up to `length` tokens of one batch of sources."""
        positions = self.positions(length, self.embedding.weight.device)
        return CrossKVCache(len(self.blocks), positions)

    @torch.no_grad()
    def greedy(
        self, tokens: Int[Tensor, "b t"], source: Int[Tensor, "b s"], count: int
    ) -> Int[Tensor, "b {count}"]:
        """Continue the target's tokens by `count` greedy tokens, read one at a time; -1 where
        logits are not finite. The source is encoded once.
        """
        memory, cache = self.encode(source), self.make_cache(tokens.shape[1] + count)

        def read(tokens: Tensor, select: Tensor | None) -> Tensor:
            return self.decode(tokens, memory, select, cache)

        return continued(read, tokens, count)
