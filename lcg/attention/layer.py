# ruff: noqa: F722  (shapes in annotations)
"""Multi-head attention: projections around `attend()`, with the four seams in their places.

Three kinds differ in what a query sees: `MultiHeadAttention` (causal self-attention, a decoder's),
`FullAttention` (self-attention, an encoder's) and `CrossAttention` (of a decoder to an encoder).

Shapes: b batch, t tokens, w model width, h heads, g key heads, q queries, k keys, s tokens that
keys are made of, d head dimension.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from lcg.attention import Attention
from lcg.attention.backends import check_backend, usable
from lcg.attention.backends.reference import attention_weights, biased_scores
from lcg.attention.cache import NO_CACHE, LayerCache, NoCache
from lcg.attention.functional import attend
from lcg.attention.hooks import broadcastable, learned_tensors, position_ids, returned
from lcg.attention.mask import ALL, Bias, Learned
from lcg.positional.base import BiasContext, PositionEncoding, Sizes
from lcg.shapes import Bool, Float, Int, Shaped


class Memory(NamedTuple):
    """An encoder's output for cross-attention, its tokens' position ids, and which of them are no
    padding (None: all).
    """

    states: Float[Tensor, "b k w"]
    positions: Shaped[Tensor, " k"]
    mask: Bool[Tensor, "b k"] | None = None


class View(NamedTuple):
    """The keys and values that the queries of one call see.

    They are made of `states`, whose tokens are at the last of k_positions; those before
    are in the cache. n counts the keys that a query sees, padding excluded, and is at least 1.
    """

    states: Float[Tensor, "b s w"]
    q_positions: Shaped[Tensor, " t"]
    k_positions: Shaped[Tensor, " k"]
    n: Float[Tensor, " t"] | Float[Tensor, "b t"]
    key_mask: Bool[Tensor, "b k"] | None = None
    cache: LayerCache | NoCache = NO_CACHE


class Projected(NamedTuple):
    """The arguments of `attend`: queries (rotated, scaled by the length scaling but not by 1/√d),
    keys (rotated) and values of all that is visible, and the bias.
    """

    q: Float[Tensor, "b h q d"]
    k: Float[Tensor, "b g k d"]
    v: Float[Tensor, "b g k d"]
    bias: Bias


class MultiHeadAttention(nn.Module):
    """Causal self-attention without projection biases.

    `layer(x)` is all it takes; with a `cache`, x continues what that holds. The learned tensors of
    normalizer, scaling, encoding and output norm live here, one set per layer; the choices
    themselves are stateless and shared between layers.

    Raises ValueError, in one line, for sizes that a choice cannot work with.
    """

    kind: ClassVar[str] = "causal"

    def __init__(self, attention: Attention, position: PositionEncoding, sizes: Sizes) -> None:
        super().__init__()
        attention.normalizer.check(sizes)
        if self.kind != "causal" and attention.normalizer.causal_only:
            raise ValueError(
                f"attention.normalizer={attention.normalizer.name} runs in causal attention only, "
                f"not in {self.kind} attention; use model.kind=decoder or another normalizer"
            )
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
        norm, scaling = attention.output_norm, attention.scaling
        tensors = attention.normalizer.learned(sizes)
        self.normalizer_state = learned_tensors(attention.normalizer, tensors, rows=sizes.heads)
        tensors = scaling.learned(len(scaled), sizes.d_model)
        self.scaling_state = learned_tensors(scaling, tensors)
        self.position_state = learned_tensors(position, position.learned(sizes))
        self.output_norm_state = learned_tensors(norm, norm.learned(width))
        slopes = position.slopes(sizes.heads)
        if slopes is not None:
            returned(position, "slopes", slopes, (sizes.heads,))
        self._slopes = slopes

    @property
    def slopes(self) -> Tensor | None:
        """The encoding's slopes [h], where the weights are.

        No buffer: .to(bfloat16) would round 1/3 by 0.2 %, and a module made on the meta device has
        nothing to move or to load them from. They are made anew for another device.
        """
        device = self.query.weight.device
        if self._slopes is not None and self._slopes.device != device:
            with torch.inference_mode(False), torch.device(device):
                self._slopes = self.position.slopes(self.sizes.heads).to(device)
        return self._slopes

    def _apply(self, *args, **kwargs):
        """As nn.Module, and the slopes follow at once, not inside a compiled forward pass."""
        super()._apply(*args, **kwargs)
        _ = self.slopes
        return self

    def forward(
        self,
        x: Float[Tensor, "b t w"],
        positions: Shaped[Tensor, " k"] | None = None,
        select: Int[Tensor, " q"] | slice = ALL,
        **keywords: Any,
    ) -> Float[Tensor, "b q w"]:
        """x is at positions[-t:]; the queries are all of x, or x[:, select].

        positions covers all keys: those in the cache, then those of x; if not given they are the
        encoding's own, 0, 1, 2, … in most. keywords: those of `view`.
        """
        choice = self.attention
        q, k, v, bias = self.project(x, positions, select, **keywords)
        heads = attend(q, k, v, choice.normalizer, bias, self.normalizer_state, self.backend)
        joined = rearrange(heads, "b h q d -> b q (h d)")
        normed = choice.output_norm(joined, self.output_norm_state)
        return self.output(returned(choice.output_norm, "__call__", normed, joined.shape))

    def weights(self, *call: Any, **keywords: Any) -> Float[Tensor, "b h q k"]:
        """The weights of a call of `forward` with these arguments, to look at."""
        q, k, _, bias = self.project(*call, **keywords)
        return attention_weights(q, k, self.attention.normalizer, bias, self.normalizer_state)

    def scores(self, *call: Any, **keywords: Any) -> Float[Tensor, "b h q k"]:
        """The scores that these weights are made of: scaled, biased, -inf on keys that are hidden.

        A query that sees no key at all has zeros.
        """
        q, k, _, bias = self.project(*call, **keywords)
        return biased_scores(q, k, self.attention.normalizer, bias)[0]

    def scaler(
        self,
        x: Float[Tensor, "b t w"],
        positions: Shaped[Tensor, " k"] | None = None,
        **keywords: Any,
    ) -> Float[Tensor, "b h t"] | Float[Tensor, "h t"] | None:
        """The multiplier of the scaled heads' queries; None is 1."""
        return self._scaler(x, self.view(x, positions, **keywords).n)

    def view(
        self, x: Tensor, positions: Tensor | None, *, cache: LayerCache | NoCache = NO_CACHE
    ) -> View:
        """The queries of x see all that the cache holds, and of x what is not after them."""
        positions = self._ids(x, positions)
        # n_i counts visible keys: the order of a key, not its position id, and at least 1.
        order = torch.arange(len(positions), device=x.device)[-x.shape[1] :]
        n = (order + self.attention.normalizer.sees_itself).clamp_min(1).float()
        return View(x, positions[-x.shape[1] :], positions, n, cache=cache)

    def project(
        self,
        x: Float[Tensor, "b t w"],
        positions: Shaped[Tensor, " k"] | None = None,
        select: Int[Tensor, " q"] | slice = ALL,
        **keywords: Any,
    ) -> Projected:
        """From the arguments of `forward` to those of `attend`."""
        view = self.view(x, positions, **keywords)
        scaler = self._scaler(x, view.n)
        queried, q_positions = x[:, select], view.q_positions[select]
        q = rearrange(self.query(queried), "b q (h d) -> b h q d", d=self.sizes.head_dim)
        rotated = self.position.rotate_queries(q, q_positions)
        q = returned(self.position, "rotate_queries", rotated, q.shape)
        k, v = self._keys_and_values(view)
        context = BiasContext(q, k, queried, q_positions, view.k_positions)
        if scaler is not None:
            scaled = q[:, self.unscaled_heads :] * scaler[..., select, None]
            q = torch.cat([q[:, : self.unscaled_heads], scaled], 1)
        bias = Bias(
            q_positions,
            view.k_positions,
            self.slopes,
            causal=self.kind == "causal",
            key_mask=view.key_mask,
        )
        if self.biased:
            bias = bias._replace(
                additive=partial(self._additive, context), additive_learned=self.position_state
            )
        return Projected(q.to(v.dtype), k, v, bias)

    def _ids(self, x: Tensor, positions: Tensor | None) -> Tensor:
        if positions is not None:
            return positions
        ids = self.position.positions(x.shape[1], device=x.device)
        return position_ids(self.position, ids, x.shape[1])

    def _scaler(self, x: Tensor, n: Tensor) -> Tensor | None:
        scaling, heads = self.attention.scaling, self.sizes.heads - self.unscaled_heads
        scaler = scaling(x, n, self.scaling_state)
        if scaler is None:
            return None
        per_head = heads, x.shape[1]
        return returned(scaling, "__call__", scaler, per_head, (len(x), *per_head))

    def _keys_and_values(self, view: View) -> tuple[Tensor, Tensor]:
        return view.cache.append(*self._of_states(view))

    def _of_states(self, view: View) -> tuple[Tensor, Tensor]:
        k = rearrange(self.key(view.states), "b k (g d) -> b g k d", d=self.sizes.head_dim)
        v = rearrange(self.value(view.states), "b k (g d) -> b g k d", d=self.sizes.head_dim)
        rotated = self.position.rotate_keys(k, view.k_positions[-view.states.shape[1] :])
        return returned(self.position, "rotate_keys", rotated, k.shape), v

    def _additive(
        self, context: BiasContext, queries: slice, keys: slice, learned: Learned
    ) -> Tensor | None:
        context = context.crop(queries, keys)
        bias = self.position.bias(context, learned)
        if bias is None:
            return None
        shape = *context.q.shape[:3], context.k.shape[2]
        return broadcastable(self.position, "bias", bias, shape)


class FullAttention(MultiHeadAttention):
    """Self-attention in which every query sees every key but padding; n is the number of these."""

    kind: ClassVar[str] = "full"

    def view(self, x: Tensor, positions: Tensor | None, *, mask: Tensor | None = None) -> View:
        """The queries of x see what mask [b t] leaves: it is False where padded; None: nothing."""
        positions = self._ids(x, positions)
        return View(x, positions, positions, unpadded(x, x, mask), mask)


class CrossAttention(MultiHeadAttention):
    """Attention to a memory: every query sees every key but padding, n is their number.

    `positions` are those of the queries alone; an encoding compares them with those of the memory.
    An attention without an encoding is one with `NoPE`: then all heads have the length scaling.
    """

    kind: ClassVar[str] = "cross"

    def view(
        self,
        x: Tensor,
        positions: Tensor | None,
        *,
        memory: Memory,
        cache: LayerCache | NoCache = NO_CACHE,
    ) -> View:
        """The queries of x see the memory; with a cache its keys and values are made once."""
        states, k_positions, mask = memory
        n = unpadded(x, states, mask)
        return View(states, self._ids(x, positions), k_positions, n, mask, cache)

    def _keys_and_values(self, view: View) -> tuple[Tensor, Tensor]:
        return view.cache.once(partial(self._of_states, view))


def unpadded(
    x: Float[Tensor, "b t w"], memory: Float[Tensor, "b s w"], mask: Bool[Tensor, "b s"] | None
) -> Float[Tensor, " t"] | Float[Tensor, "b t"]:
    """The number of keys of each query that sees all of memory but what the mask hides."""
    tokens = x.shape[1]
    if mask is None:
        count = float(memory.shape[1])
        return torch.full((tokens,), count, dtype=torch.float32, device=x.device)
    return mask.sum(dim=-1, keepdim=True).clamp_min(1).float().expand(-1, tokens)
