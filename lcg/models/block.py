"""Norms, MLPs and the residual block, composed in the constructor by the block's style.

`prenorm` is the plain pre-norm block: RMSNorm, GELU MLP. `gemma2` is the block of the ASEntmax
authors (2506.16640, after Gemma 2, 2408.00118): RMSNorms before and after both sublayers, GeGLU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lcg.attention.layer import CrossAttention, Memory, MultiHeadAttention
from lcg.config.compatibility import cross_encoding
from lcg.positional.base import PositionEncoding, Sizes

if TYPE_CHECKING:
    from lcg.attention import Attention
    from lcg.attention.cache import LayerCache
    from lcg.config.schema import Model


class RMSNorm(nn.Module):
    """x · rsqrt(mean x² + eps) · (1 + w), w = 0 at the start (1910.07467), computed in float32."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (normed * (1 + self.weight.float())).to(x.dtype)


class GELUMLP(nn.Module):
    """W_out · gelu(W_in · x)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.input = nn.Linear(width, hidden, bias=False)
        self.output = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(F.gelu(self.input(x), approximate="tanh"))


class GeGLU(nn.Module):
    """W_out · (gelu(W_gate · x) * (W_in · x)), gelu with the tanh approximation (2002.05202)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=False)
        self.input = nn.Linear(width, hidden, bias=False)
        self.output = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(F.gelu(self.gate(x), approximate="tanh") * self.input(x))


class Block(nn.Module):
    """x + post(attention(pre(x))), then the same around the MLP."""

    def __init__(
        self,
        model: Model,
        attention: Attention,
        position: PositionEncoding,
        kind: type[MultiHeadAttention] = MultiHeadAttention,
    ) -> None:
        super().__init__()
        gemma = model.block == "gemma2"
        self.attention_norm = RMSNorm(model.d_model)
        self.attention = kind(attention, position, sizes_of(model))
        self.attention_post_norm = RMSNorm(model.d_model) if gemma else nn.Identity()
        self.mlp_norm = RMSNorm(model.d_model)
        self.mlp = (GeGLU if gemma else GELUMLP)(model.d_model, model.d_ff)
        self.mlp_post_norm = RMSNorm(model.d_model) if gemma else nn.Identity()
        self.dropout = nn.Dropout(model.dropout)

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        select: Tensor | None = None,
        given: LayerCache | Tensor | None = None,
    ) -> Tensor:
        """x [b t w] -> [b t w], or [b q w] at x[:, select]; given is what the attention needs."""
        heads = self.attention(self.attention_norm(x), positions, select, given)
        x = x if select is None else x[:, select]
        x = x + self.dropout(self.attention_post_norm(heads))
        return x + self.dropout(self.mlp_post_norm(self.mlp(self.mlp_norm(x))))


class CrossBlock(Block):
    """A block of a decoder that reads a source: cross-attention between self-attention and MLP."""

    def __init__(self, model: Model, attention: Attention, position: PositionEncoding) -> None:
        super().__init__(model, attention, position)
        self.cross_norm = RMSNorm(model.d_model)
        self.cross = CrossAttention(attention, cross_encoding(model, position), sizes_of(model))
        self.cross_post_norm = RMSNorm(model.d_model) if model.block == "gemma2" else nn.Identity()

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        select: Tensor | None,
        given: LayerCache | None,
        memory: Memory,
    ) -> Tensor:
        """As `Block`, and attends to the memory."""
        heads = self.attention(self.attention_norm(x), positions, select, given)
        own = positions[-x.shape[1] :]
        if select is not None:
            x, own = x[:, select], own[select]
        x = x + self.dropout(self.attention_post_norm(heads))
        heads = self.cross(self.cross_norm(x), own, None, memory)
        x = x + self.dropout(self.cross_post_norm(heads))
        return x + self.dropout(self.mlp_post_norm(self.mlp(self.mlp_norm(x))))


def sizes_of(model: Model) -> Sizes:
    """The sizes of each of its attention layers."""
    return Sizes(model.heads, model.key_heads, model.width_of_head, model.d_model)


def initialise(transformer: nn.Module, model: Model, embedding_scale: float) -> None:
    """Draw matrices and embeddings as `init_std` says."""
    for module in transformer.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=model.init_std or module.in_features**-0.5)
        elif isinstance(module, nn.Embedding):
            std = model.init_std or 1 / embedding_scale  # 1 where the blocks begin
            nn.init.normal_(module.weight, std=std)
