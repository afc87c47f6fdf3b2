# ruff: noqa: F722  (shapes in annotations)
"""What models of every kind have at both ends: embedding and head.

Shapes: b batch, t tokens, w model width, v vocabulary.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lcg.attention import Attention
from lcg.attention.hooks import learned_tensors, position_ids, returned
from lcg.attention.layer import MultiHeadAttention
from lcg.config.schema import Model
from lcg.models.block import RMSNorm, initialise, sizes_of
from lcg.positional.base import PositionEncoding
from lcg.shapes import Float, Int, Shaped


class Transformer(nn.Module, ABC):
    """Embedding, and after the blocks a final RMSNorm and an untied head; the embedding is
    multiplied by √d_model in the gemma2 style.

    Weights are drawn in the order in which modules are made, so a seed gives the same model only
    while that order stays. pad: the token that fills up rows, where there is one.
    """

    def __init__(
        self,
        model: Model,
        attention: Attention,
        position: PositionEncoding,
        vocabulary: int,
        pad: int | None = None,
    ) -> None:
        super().__init__()
        self.position, self.pad = position, pad
        self.embedding_scale = math.sqrt(model.d_model) if model.block == "gemma2" else 1.0
        self.embedding = nn.Embedding(vocabulary, model.d_model)
        self.dropout = nn.Dropout(model.dropout)
        self.make_blocks(model, attention)
        self.norm = RMSNorm(model.d_model)
        self.head = nn.Linear(model.d_model, vocabulary, bias=False)
        initialise(self, model, self.embedding_scale)

    @abstractmethod
    def make_blocks(self, model: Model, attention: Attention) -> None:
        """What lies between embedding and norm, with the encoding's own tensors."""

    def position_tensors(self, model: Model) -> nn.ParameterDict:
        """The tensors that the encoding learns for the embedding."""
        tensors = self.position.learned_embedding(sizes_of(model))
        return learned_tensors(self.position, tensors, "learned_embedding")

    def attention_layers(self) -> dict[str, MultiHeadAttention]:
        """The attention layers by their names, in the order in which they are called."""
        return {f"layer_{i}": block.attention for i, block in enumerate(self.blocks)}

    def embed(
        self,
        tokens: Int[Tensor, "b t"],
        positions: Shaped[Tensor, " t"],
        learned: Mapping[str, Tensor] | Any,
    ) -> Float[Tensor, "b t w"]:
        """What the first block reads; learned: the encoding's own tensors."""
        x = self.embedding(tokens) * self.embedding_scale
        embedded = self.position.embed(x, positions, learned)
        return self.dropout(returned(self.position, "embed", embedded, x.shape))

    def positions(self, length: int, device: Any) -> Shaped[Tensor, " t"]:
        """Position ids of a sequence of that length."""
        return position_ids(self.position, self.position.positions(length, device=device), length)

    def logits(self, x: Float[Tensor, "b t w"]) -> Float[Tensor, "b t v"]:
        """In float32, of what the last block gives."""
        return self.head(self.norm(x)).float()
