# ruff: noqa: F722  (shapes in annotations)
"""`attend()`: weights = normalizer(q·k/√d + bias), applied to the values, by one of its backends.

Shapes: b batch, h heads, g key heads (h is a multiple of g), q queries, k keys, d head dimension.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lcg.attention.normalizers.base import Normalizer
from lcg.shapes import Bool, Float, Shaped

Learned = Mapping[str, Tensor] | nn.ParameterDict


class Bias(NamedTuple):
    """The additive part of the scores, and who may see whom.

    slopes [h] gives -m·|i - j|; additive, broadcastable to [b h q k], is anything else. A query
    sees keys at positions up to its own (`causal`), and among them those of key_mask [b k].
    """

    q_positions: Shaped[Tensor, " q"]
    k_positions: Shaped[Tensor, " k"]
    slopes: Float[Tensor, " h"] | None = None
    additive: Tensor | None = None
    causal: bool = True
    key_mask: Bool[Tensor, "b k"] | None = None

    def keys_before(self, queries: slice) -> int:
        """How many of the first keys hold all that these queries see; at least one."""
        if not self.causal:
            return len(self.k_positions)
        return max(1, int((self.k_positions <= self.q_positions[queries].max()).sum()))

    def crop(self, queries: slice, keys: int) -> Bias:
        """The same for some of the queries and the first keys."""
        additive, key_mask = self.additive, self.key_mask
        if additive is not None:
            shape = (*torch.broadcast_shapes(additive.shape, (1, 1)),)[:-2]
            full = (*shape, len(self.q_positions), len(self.k_positions))
            additive = additive.expand(full)[..., queries, :keys]
        return self._replace(
            q_positions=self.q_positions[queries],
            k_positions=self.k_positions[:keys],
            additive=additive,
            key_mask=None if key_mask is None else key_mask[:, :keys],
        )


def attend(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    v: Float[Tensor, "b g k d"],
    normalizer: Normalizer,
    bias: Bias,
    learned: Learned | None = None,
    backend: str = "auto",
) -> Float[Tensor, "b h q d"]:
    """Attend with queries q to keys k and values v.

    q carries any length scaling already; the 1/√d is applied here. Scores, row statistics and
    weights are float32 whatever the input; the result has the dtype of v. A query that sees no key
    gets zeros and passes no gradient.

    Raises ValueError when the normalizer has no such backend.
    """
    return BACKENDS[choose_backend(normalizer, backend)](
        q, k, v, normalizer, bias, {} if learned is None else learned
    )


def choose_backend(normalizer: Normalizer, backend: str) -> str:
    """The backend that `auto` means for this normalizer, or the one asked for, or ValueError."""
    from lcg.attention import check_backend

    check_backend(normalizer, backend)
    return "reference" if backend == "auto" else backend


def attention_weights(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    normalizer: Normalizer,
    bias: Bias,
    learned: Learned | None = None,
) -> Float[Tensor, "b h q k"]:
    """Every weight in float32: what the reference backend multiplies with the values."""
    k = _per_query_head(k, q.shape[1])
    visible, blind = _visibility(bias, normalizer.sees_itself)
    with torch.autocast(q.device.type, enabled=False):  # which would round scores to bfloat16
        scores = torch.matmul(q.float() * (1 / math.sqrt(q.shape[-1])), k.float().mT)
    scores += _additive(bias, visible)  # in place: nothing else holds the scores
    if blind is not None:
        scores = scores.masked_fill(blind, 0.0)  # finite, so that no normalizer divides by zero
    keys = torch.arange(k.shape[-2], device=k.device)
    weights = normalizer(scores, keys, {} if learned is None else learned)
    return weights if blind is None else weights.masked_fill(blind, 0.0)


def _reference(q, k, v, normalizer, bias, learned):
    """Materialise all scores: the ground truth of the other backends.

    Where no gradient is asked for, some queries at a time: rows are independent of each other, and
    scores that stay in the cache are faster as well.
    """
    v = _per_query_head(v, q.shape[1])
    rows = rows_per_block(q.shape[0] * q.shape[1], k.shape[2])
    if torch.is_grad_enabled() or q.shape[2] <= rows:
        weights = attention_weights(q, k, normalizer, bias, learned)
        return torch.matmul(weights.to(v.dtype), v)
    k, v = k.contiguous(), v.contiguous()  # once, and not in every block
    attended = []
    for start in range(0, q.shape[2], rows):
        some = slice(start, start + rows)
        seen = bias.keys_before(some)
        weights = attention_weights(
            q[:, :, some], k[:, :, :seen], normalizer, bias.crop(some, seen), learned
        )
        attended.append(torch.matmul(weights.to(v.dtype), v[:, :, :seen]))
    return torch.cat(attended, dim=2)


def rows_per_block(batch_heads: int, keys: int) -> int:
    """Queries treated at a time without gradient: about 2²¹ scores, and at least 16 queries."""
    return max(16, 2**21 // max(1, batch_heads * keys))


def _per_query_head(x: Tensor, heads: int) -> Tensor:
    """Keys or values [b g k d] repeated for the query heads that share them."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


def _visibility(bias: Bias, sees_itself: bool) -> tuple[Tensor | None, Tensor | None]:
    """Which keys a query sees, [q k] or [b 1 q k], and which queries see none, [.. q 1] or None."""
    visible = None
    if bias.causal:
        distance = bias.q_positions[:, None] - bias.k_positions
        visible = distance >= 0 if sees_itself else distance > 0
    if bias.key_mask is not None:
        padded = bias.key_mask[:, None, None, :]
        visible = padded if visible is None else padded & visible
    if visible is None or (bias.key_mask is None and sees_itself):
        return visible, None  # a causal query sees at least itself
    return visible, ~visible.any(dim=-1, keepdim=True)


def _additive(bias: Bias, visible: Tensor | None) -> Tensor:
    """Everything added to q·k/√d, -inf where a key is not visible; broadcastable to [b h q k]."""
    total = torch.zeros((), device=bias.q_positions.device)
    if bias.slopes is not None:
        distance = (bias.q_positions[:, None] - bias.k_positions).abs()
        total = total - bias.slopes.float()[:, None, None] * distance
    if bias.additive is not None:
        total = total + bias.additive.float()
    if visible is not None:
        total = torch.where(visible, total, -torch.inf)
    return total


BACKENDS = {"reference": _reference}
