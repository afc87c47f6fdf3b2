# ruff: noqa: F722  (shapes in annotations)
"""The ground truth: every score of every row at once.

Shapes: b batch, h heads, g key heads, q queries, k keys, d head dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lcg.attention.hooks import normalized
from lcg.attention.mask import Bias, Learned
from lcg.attention.normalizers.base import Normalizer
from lcg.shapes import Float


def attend(q, k, v, normalizer: Normalizer, bias: Bias, learned: Learned) -> Tensor:
    """Materialise the weights and multiply them with the values."""
    weights = attention_weights(q, k, normalizer, bias, learned)
    return grouped_matmul(weights.to(v.dtype), v)


def attention_weights(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    normalizer: Normalizer,
    bias: Bias,
    learned: Learned | None = None,
) -> Float[Tensor, "b h q k"]:
    """Every weight in float32."""
    scores, blind = biased_scores(q, k, normalizer, bias)
    keys = torch.arange(k.shape[-2], device=k.device)
    weights = normalized(normalizer, scores, keys, {} if learned is None else learned)
    return weights if blind is None else weights.masked_fill(blind, 0.0)


def biased_scores(
    q, k, normalizer: Normalizer, bias: Bias, buffer: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """The scores [b h q k] in float32, and the queries that see no key.

    They are written into `buffer`, where it is given: flat, float32, at least as large.
    """
    products = grouped_matmul(q.float() * bias.scale_for(q), k.float().mT, buffer)
    return bias.scores(products, q, k, normalizer.sees_itself)  # in place: nobody else holds them


def grouped_matmul(
    rows: Float[Tensor, "b h q k"],
    shared: Float[Tensor, "b g k e"],
    buffer: Tensor | None = None,
) -> Float[Tensor, "b h q e"]:
    """Their product in their type; heads that share a matrix are multiplied with it as one taller
    matrix. Autocast, which would round scores, has no say in it.

    It is written into `buffer`, where it is given: flat, at least as large.
    """
    b, h, q, k = rows.shape
    g, _, e = shared.shape[1:]
    with torch.autocast(rows.device.type, enabled=False):
        if buffer is None and h == g:
            return torch.matmul(rows, shared)
        taller = rows.reshape(b * g, h // g * q, k)
        out = None if buffer is None else buffer[: b * h * q * e].view(b * g, -1, e)
        return torch.bmm(taller, shared.flatten(0, 1), out=out).view(b, h, q, e)
