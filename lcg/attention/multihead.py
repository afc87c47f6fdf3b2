# ruff: noqa: F722  (shapes in annotations)
"""Multi-head attention: projections around `attend()`, with the four seams in their places.

Shapes: b batch, t tokens, w model width, h heads, q queries, k keys.
"""

from __future__ import annotations

from functools import partial

import torch
from einops import rearrange
from torch import Tensor, nn

from lcg.attention import Attention
from lcg.attention.attend import attend
from lcg.attention.backends import check_backend, usable
from lcg.attention.backends.reference import attention_weights, biased_scores
from lcg.attention.bias import Bias
from lcg.attention.cache import LayerCache
from lcg.shapes import Float, Int, Shaped
from positional.base import BiasContext, PositionEncoding, Sizes


class MultiHeadAttention(nn.Module):
    """Causal self-attention without projection biases.

    The learned tensors of normalizer, scaling, encoding and output norm live here, one set per
    layer; the choices themselves are stateless and shared between layers.

    Raises ValueError, in one line, for sizes that a choice cannot work with.
    """

    def __init__(self, attention: Attention, position: PositionEncoding, sizes: Sizes) -> None:
        super().__init__()
        attention.normalizer.check(sizes)
        position.check(sizes)
        self.attention, self.position, self.sizes = attention, position, sizes
        scaled = position.scaled_heads(sizes.heads)
        if scaled.stop != sizes.heads or scaled.step != 1:
            raise ValueError(
                f"{position.name}: scaled_heads must run up to the last of heads={sizes.heads}, "
                f"got {scaled}"
            )
        self.unscaled_heads = scaled.start
        width = sizes.heads * sizes.head_dim
        kv_width = sizes.kv_heads * sizes.head_dim
        check_backend(attention.backend, attention.normalizer, position)
        self.backend = attention.backend
        if position.data_dependent and attention.backend == "auto":
            self.backend = usable(attention.normalizer, position)[0]
        self.biased = type(position).bias is not PositionEncoding.bias
        self.query = nn.Linear(sizes.d_model, width, bias=False)
        self.key = nn.Linear(sizes.d_model, kv_width, bias=False)
        self.value = nn.Linear(sizes.d_model, kv_width, bias=False)
        self.output = nn.Linear(width, sizes.d_model, bias=False)
        self.normalizer_state = nn.ParameterDict(attention.normalizer.learned(sizes))
        for name, tensor in self.normalizer_state.items():
            if tensor.shape[:1] != (sizes.heads,):
                raise ValueError(
                    f"{attention.normalizer.name}: learned {name!r} must be "
                    f"[heads={sizes.heads} …], got {list(tensor.shape)}"
                )
        self.scaling_state = nn.ParameterDict(attention.scaling.learned(len(scaled), sizes.d_model))
        self.position_state = nn.ParameterDict(position.learned(sizes))
        self.output_norm_state = nn.ParameterDict(attention.output_norm.learned(width))
        slopes = position.slopes(sizes.heads)
        self.slopes: Tensor | None
        self.register_buffer("slopes", slopes, persistent=False)

    def _apply(self, *args, **kwargs):
        """As nn.Module, but .to(bfloat16) leaves the slopes alone: 1/3 would be off by 0.2 %."""
        exact = self.slopes
        super()._apply(*args, **kwargs)
        if exact is not None:
            self.slopes = exact.to(self.slopes.device)
        return self

    def forward(
        self,
        x: Float[Tensor, "b t w"],
        positions: Shaped[Tensor, " k"],
        select: Int[Tensor, " q"] | None = None,
        cache: LayerCache | None = None,
    ) -> Float[Tensor, "b q w"]:
        """x is at positions[-t:]; the queries are all of x, or x[:, select].

        positions covers all keys: those in the cache, then those of x.
        """
        q, k, v, bias = self._prepare(x, positions, select, cache)
        choice = self.attention
        heads = attend(q, k, v, choice.normalizer, bias, self.normalizer_state, self.backend)
        joined = rearrange(heads, "b h q d -> b q (h d)")
        return self.output(choice.output_norm(joined, self.output_norm_state))

    def weights(
        self,
        x: Float[Tensor, "b t w"],
        positions: Shaped[Tensor, " t"],
        select: Int[Tensor, " q"] | None = None,
    ) -> Float[Tensor, "b h q t"]:
        """The weights that `forward` uses, for whoever wants to look at them."""
        q, k, _, bias = self._prepare(x, positions, select, None)
        return attention_weights(q, k, self.attention.normalizer, bias, self.normalizer_state)

    def scores(
        self,
        x: Float[Tensor, "b t w"],
        positions: Shaped[Tensor, " t"],
        select: Int[Tensor, " q"] | None = None,
    ) -> Float[Tensor, "b h q t"]:
        """What the normalizer makes weights of: scaled, biased, -inf on keys that are hidden.

        A query that sees no key at all has zeros.
        """
        q, k, _, bias = self._prepare(x, positions, select, None)
        return biased_scores(q, k, self.attention.normalizer, bias)[0]

    def scaler(
        self, x: Float[Tensor, "b t w"], positions: Shaped[Tensor, " k"]
    ) -> Float[Tensor, "b h t"] | Float[Tensor, "h t"] | None:
        """The multiplier of the scaled heads' queries; None is 1."""
        # n_i counts visible keys: the order of a key, not its position id, and at least 1.
        seen = torch.arange(len(positions), device=x.device)[-x.shape[1] :]
        n = (seen + self.attention.normalizer.sees_itself).clamp_min(1).float()
        return self.attention.scaling(x, n, self.scaling_state)

    def _prepare(self, x, positions, select, cache):
        """Queries (rotated and scaled), keys and values of all that is visible, and the bias."""
        q_positions = positions[-x.shape[1] :]
        queried = x
        scaler = self.scaler(x, positions)
        if select is not None:
            q_positions, queried = q_positions[select], x[:, select]
            scaler = None if scaler is None else scaler[..., select]
        q = rearrange(self.query(queried), "b q (h d) -> b h q d", d=self.sizes.head_dim)
        k = rearrange(self.key(x), "b k (g d) -> b g k d", d=self.sizes.head_dim)
        v = rearrange(self.value(x), "b k (g d) -> b g k d", d=self.sizes.head_dim)
        q = self.position.rotate_queries(q, q_positions)
        k = self.position.rotate_keys(k, positions[-x.shape[1] :])
        if cache is not None:
            k, v = cache.append(k, v)
        context = BiasContext(q, k, queried, q_positions, positions)
        if scaler is not None:
            q = torch.cat(
                [q[:, : self.unscaled_heads], q[:, self.unscaled_heads :] * scaler[..., None]], 1
            )
        bias = Bias(q_positions, positions, self.slopes)
        if self.biased:
            bias = bias._replace(
                additive=partial(self._additive, context), additive_learned=self.position_state
            )
        return q.to(v.dtype), k, v, bias

    def _additive(self, context, queries, keys, learned):
        return self.position.bias(context.crop(queries, keys), learned)
