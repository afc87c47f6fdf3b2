# ruff: noqa: F722  (shapes in annotations)
"""What models of every kind have at both ends: embedding and head.

Shapes: b batch, t tokens, w model width, v vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lcg.config.schema import Model
from lcg.models.block import RMSNorm, initialise
from lcg.shapes import Float, Int, Shaped
from positional.base import PositionEncoding


class Transformer(nn.Module):
    """Embedding, and after the blocks a final RMSNorm and an untied head; the embedding is
    multiplied by √d_model in the gemma2 style.

    A kind of model makes its blocks between the two calls: weights are drawn in the order in which
    they are made, so a seed gives the same model only while that order stays.
    """

    def __init__(
        self, model: Model, position: PositionEncoding, vocabulary: int, pad: int | None
    ) -> None:
        super().__init__()
        self.position, self.pad = position, pad
        self.embedding_scale = math.sqrt(model.d_model) if model.block == "gemma2" else 1.0
        self.embedding = nn.Embedding(vocabulary, model.d_model)
        self.dropout = nn.Dropout(model.dropout)

    def make_head(self, model: Model, vocabulary: int) -> None:
        """Norm and head, and then the first values of all matrices, as `init_std` says."""
        self.norm = RMSNorm(model.d_model)
        self.head = nn.Linear(model.d_model, vocabulary, bias=False)
        initialise(self, model, self.embedding_scale)

    def embed(
        self,
        tokens: Int[Tensor, "b t"],
        positions: Shaped[Tensor, " t"],
        learned: Mapping[str, Tensor] | Any,
    ) -> Float[Tensor, "b t w"]:
        """What the first block reads; learned: the encoding's own tensors."""
        x = self.embedding(tokens) * self.embedding_scale
        return self.dropout(self.position.embed(x, positions, learned))

    def logits(self, x: Float[Tensor, "b t w"]) -> Float[Tensor, "b t v"]:
        """In float32, of what the last block gives."""
        return self.head(self.norm(x)).float()
