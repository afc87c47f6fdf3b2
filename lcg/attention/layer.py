# ruff: noqa: F722  (shapes in annotations)
"""Multi-head attention: projections around `attend()`, and the hooks of its components.

The three kinds differ in the keys that a query sees: `MultiHeadAttention` (causal self-attention,
in decoders), `FullAttention` (self-attention, in encoders) and `CrossAttention` (from decoder to
encoder).

Shapes: b batch, t tokens, w model width, h heads, g key heads, q queries, k keys, s tokens that
keys are computed from, d head dimension.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from lcg.attention import Attention
from lcg.attention.backends import check_backend
from lcg.attention.backends.reach import WHOLE
from lcg.attention.backends.reference import attention_weights, biased_scores
from lcg.attention.cache import NO_CACHE, Kept, LayerCache, NoCache
from lcg.attention.functional import attend
from lcg.attention.hooks import broadcastable, check_hooks, learned_tensors, position_ids, returned
from lcg.attention.mask import ALL, Bias, Learned
from lcg.attention.normalizers.base import Normalizer
from lcg.attention.output_norms import OutputNorm
from lcg.attention.scalings import QueryScaling
from lcg.positional.base import PositionEncoding, Sizes, Tile
from lcg.shapes import Bool, Float, Int, Shaped


class Memory(NamedTuple):
    """The output of an encoder for cross-attention, its position ids, and its key mask (None: no
    padding)."""

    states: Float[Tensor, "b k w"]
    ids: Shaped[Tensor, "... k"]
    mask: Bool[Tensor, "b k"] | None = None


class View(NamedTuple):
    """The keys and values that the queries of one call see.

    They are computed from `states`, the last of the keys; earlier keys are in the cache. The mask
    depends on the order of tokens. ids are the position ids for the encodings; None if they equal
    the order. n counts the keys that a query sees, without padding, and is at least 1.
    """

    states: Float[Tensor, "b s w"]
    q_order: Shaped[Tensor, " t"]
    k_order: Shaped[Tensor, " k"]
    n: Float[Tensor, " t"] | Float[Tensor, "b t"]
    q_ids: Shaped[Tensor, "... t"] | None = None
    k_ids: Shaped[Tensor, "... k"] | None = None
    key_mask: Bool[Tensor, "b k"] | None = None
    cache: NoCache = NO_CACHE


class Projected(NamedTuple):
    """The arguments of `attend`.

    They are queries (normed, rotated, multiplied by the length scaling but not by 1/√d), keys
    (normed, rotated) and values of all visible tokens, and the bias.
    """

    q: Float[Tensor, "b h q p"]
    k: Float[Tensor, "b g k p"]
    v: Float[Tensor, "b g k e"]
    bias: Bias


class HeadNorm(nn.Module):
    """scale · x · rsqrt(mean x² + eps) over each head's dimensions, scale learned, 1 at first."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.scale, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Float[Tensor, "b h t d"]) -> Float[Tensor, "b h t d"]:
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (self.scale * normed).to(x.dtype)


class MultiHeadAttention(nn.Module):
    """Causal self-attention; biases: add them to all four projections.

    `layer(x)` needs no other argument; with a `cache`, x continues the cached sequence. The learned
    tensors of normalizer, scaling, encoding and output norm are parameters of this module, one set
    per layer; the components themselves are stateless and shared by all layers.

    Raises ValueError, in one line, for sizes that a component does not support.
    """

    kind: ClassVar[str] = "causal"

    def __init__(
        self,
        attention: Attention,
        position: PositionEncoding,
        sizes: Sizes,
        biases: bool = False,
    ) -> None:
        super().__init__()
        sizes = sizes._replace(causal=self.kind == "causal")
        normalizer = attention.weighting
        normalizer.check(sizes)
        if self.kind != "causal" and normalizer.causal_only:
            raise ValueError(
                f"attention.normalizer={normalizer.name} runs in causal attention only, "
                f"not in {self.kind} attention; use model.kind=decoder or another normalizer"
            )
        if attention.selective and not isinstance(self, SelectiveAttention):
            raise ValueError(
                "attention.selective=true runs in SelectiveAttention only, which is causal, not in "
                f"{type(self).__name__}; use model.kind=decoder"
            )
        if self.kind != "causal" and position.causal_only:
            raise ValueError(
                f"position={position.name} runs in causal attention only, not in {self.kind} "
                "attention; use model.kind=decoder or another position"
            )
        norm, scaling = attention.output_norm, attention.scaling
        check_hooks(attention.normalizer, Normalizer)
        check_hooks(scaling, QueryScaling)
        check_hooks(norm, OutputNorm)
        check_hooks(position, PositionEncoding)
        position.check(sizes)
        norm.check(sizes)
        check_backend(attention.backend, normalizer, position)
        self.attention, self.position, self.sizes = attention, position, sizes
        self.normalizer, self.backend = normalizer, attention.backend
        scaled = list(position.scaled_heads(sizes.heads))
        if scaled != sorted(set(scaled) & set(range(sizes.heads))):
            raise ValueError(
                f"{position.name}: scaled_heads must be some of heads={sizes.heads} in order, "
                f"got {scaled}"
            )
        # Others see ids before the products alone, so that every backend runs them.
        self.bias_reads_ids = any(map(position.has, ("slopes", "table", "bias", "map_scores")))
        self.scaled_heads = scaled
        keys_width = sizes.kv_heads * sizes.head_dim
        self.query = nn.Linear(sizes.d_model, sizes.width, bias=biases)
        self.key = nn.Linear(sizes.d_model, keys_width, bias=biases)
        self.value = nn.Linear(sizes.d_model, keys_width, bias=biases)
        self.output = nn.Linear(sizes.width, sizes.d_model, bias=biases)
        normed = attention.qk_norm
        self.query_norm = HeadNorm(sizes.head_dim) if normed else nn.Identity()
        self.key_norm = HeadNorm(sizes.head_dim) if normed else nn.Identity()
        tensors = normalizer.learned(sizes)
        self.normalizer_state = learned_tensors(normalizer, tensors, rows=sizes.heads)
        tensors = scaling.learned(len(scaled), sizes.d_model)
        self.scaling_state = learned_tensors(scaling, tensors)
        self.position_state = learned_tensors(position, position.learned(sizes))
        self.output_norm_state = learned_tensors(norm, norm.learned(sizes))
        slopes = position.slopes(sizes.heads)
        if slopes is not None:
            returned(position, "slopes", slopes, (sizes.heads,))
        self._slopes, self._window = slopes, window_of(position, sizes.heads)

    @property
    def window(self) -> Tensor | None:
        """The encoding's windows [h], on the device of the weights; computed like `slopes`."""
        device = self.query.weight.device
        if self._window is not None and self._window.device != device:
            self._window = self._window.to(device)
        return self._window

    @property
    def slopes(self) -> Tensor | None:
        """The encoding's slopes [h], on the device of the weights.

        They are not a buffer: .to(bfloat16) would round 1/3 by 0.2 %, and a module created on the
        meta device has no values to move or load. They are computed again for another device.
        """
        device = self.query.weight.device
        if self._slopes is not None and self._slopes.device != device:
            with torch.inference_mode(False), torch.device(device):
                self._slopes = self.position.slopes(self.sizes.heads).to(device)
        return self._slopes

    def _apply(self, *args, **kwargs):
        """Like nn.Module, and move slopes and windows now, not inside a compiled forward pass."""
        super()._apply(*args, **kwargs)
        _ = self.slopes, self.window
        return self

    def forward(
        self,
        x: Float[Tensor, "b t w"],
        ids: Shaped[Tensor, "... k"] | None = None,
        select: Int[Tensor, " q"] | slice = ALL,
        **keywords: Any,
    ) -> Float[Tensor, "b q w"]:
        """Attend with all tokens of x as queries, or with x[:, select].

        ids: the position ids, [k] or [b k], of all keys: those in the cache, then those of x; None:
        the encoding's own, by default the order of tokens. keywords: those of `view`.
        """
        q, k, v, bias = self.project(x, ids, select, **keywords)
        heads = attend(q, k, v, self.normalizer, bias, self.normalizer_state, self.backend)
        return self.output(self.join(heads, x[:, select]))

    def weights(self, *call: Any, **keywords: Any) -> Float[Tensor, "b h q k"]:
        """Return the attention weights of a call of `forward` with these arguments."""
        q, k, _, bias = self.project(*call, **keywords)
        return attention_weights(q, k, self.normalizer, bias, self.normalizer_state)

    def scores(self, *call: Any, **keywords: Any) -> Float[Tensor, "b h q k"]:
        """Return the scores from which these weights are computed: scaled, biased, -inf on hidden
        keys.

        A query that sees no key has zeros.
        """
        q, k, _, bias = self.project(*call, **keywords)
        return biased_scores(q, k, self.normalizer, bias)[0]

    def scaler(
        self,
        x: Float[Tensor, "b t w"],
        ids: Shaped[Tensor, "... k"] | None = None,
        **keywords: Any,
    ) -> Float[Tensor, "b h t"] | Float[Tensor, "h t"] | None:
        """Return the multiplier of each head's queries, 1 in heads that are not scaled; None is
        1."""
        return self._scaler(x, self.view(x, ids, **keywords).n)

    def view(
        self, x: Tensor, ids: Tensor | None, *, cache: LayerCache | NoCache = NO_CACHE
    ) -> View:
        """Return the view of the queries of x: all cached keys, and x up to each query."""
        tokens, count = x.shape[1], cache.length + x.shape[1]
        order = torch.arange(count, device=x.device)
        ids = self._ids(ids, count, x.device)
        n = (order[-tokens:] + self.normalizer.sees_itself).clamp_min(1).float()
        return View(x, order[-tokens:], order, n, last(ids, tokens), ids, cache=cache)

    def project(
        self,
        x: Float[Tensor, "b t w"],
        ids: Shaped[Tensor, "... k"] | None = None,
        select: Int[Tensor, " q"] | slice = ALL,
        **keywords: Any,
    ) -> Projected:
        """Map the arguments of `forward` to those of `attend`."""
        view, position, learned = self.view(x, ids, **keywords), self.position, self.position_state
        scaler = self._scaler(x, view.n)  # before the rest: the order in which gradients are added
        q = rearrange(self.query(x[:, select]), "b q (h d) -> b h q d", d=self.sizes.head_dim)
        q_ids = None if view.q_ids is None else view.q_ids[..., select]
        q_order = view.q_order[select]
        q = position.rotate_queries(self.query_norm(q), per_head(q_ids, q_order), learned)
        if scaler is not None:
            q = q * scaler[..., select, None]
        kept = self.keep(view)
        k, v = kept.pop("keys"), kept.pop("values")
        returned(position, "rotate_queries", q, (*q.shape[:3], k.shape[-1]))
        bias = Bias(
            q_order,
            view.k_order,
            self.slopes,
            causal=self.kind == "causal",
            key_mask=view.key_mask,
            scale=1 / math.sqrt(self.sizes.head_dim),
            q_ids=q_ids if self.bias_reads_ids else None,
            k_ids=view.k_ids if self.bias_reads_ids else None,
            window=self.window,
            softcap=self.attention.softcap,
            learned=learned,
        )
        return Projected(q.to(v.dtype), k, v, self._with_encoding(bias, kept, x, select))

    def keep(self, view: View) -> Kept:
        """Return keys, values and the encoding's states of all tokens that the queries see."""
        return view.cache.append(self._of_states(view), self.position.cumulative)

    def join(self, heads: Tensor, x: Tensor) -> Float[Tensor, "b q {self.sizes.width}"]:
        """Map the output of the heads, at the queries x [b q w], to the input of the projection."""
        norm = self.attention.output_norm
        joined = norm.join(heads, x, self.output_norm_state)
        method = "__call__" if type(norm).join is OutputNorm.join else "join"
        return returned(norm, method, joined, (*x.shape[:2], self.sizes.width))

    def _ids(self, ids: Tensor | None, count: int, device: Any) -> Tensor | None:
        if ids is not None and ids.shape[-1] != count:
            raise ValueError(f"there are {count} tokens, and position ids of {ids.shape[-1]}")
        if ids is not None or not self.position.has("positions"):
            return ids
        return position_ids(self.position, self.position.positions(count, device=device), count)

    def _scaler(self, x: Tensor, n: Tensor) -> Tensor | None:
        scaling, heads = self.attention.scaling, len(self.scaled_heads)
        scaler = scaling(x, n, self.scaling_state)
        if scaler is None:
            return None
        per_head = heads, x.shape[1]
        for_all = 1, x.shape[1]
        shapes = per_head, (len(x), *per_head), for_all, (len(x), *for_all)
        returned(scaling, "__call__", scaler, *dict.fromkeys(shapes))
        scaler = scaler.expand(*scaler.shape[:-2], *per_head)
        if heads == self.sizes.heads:
            return scaler
        of_all = scaler.new_ones(*scaler.shape[:-2], self.sizes.heads, x.shape[1])
        of_all[..., run_of(self.scaled_heads), :] = scaler
        return of_all

    def _of_states(self, view: View) -> Kept:
        x, count, learned = view.states, view.states.shape[1], self.position_state
        k = rearrange(self.key(x), "b k (g d) -> b g k d", d=self.sizes.head_dim)
        v = rearrange(self.value(x), "b k (g d) -> b g k d", d=self.sizes.head_dim)
        ids = per_head(last(view.k_ids, count), view.k_order[-count:])
        k = self.position.rotate_keys(self.key_norm(k), ids, learned)
        returned(self.position, "rotate_keys", k, (*v.shape[:3], k.shape[-1]))
        v = self.attention.output_norm.values(v, self.output_norm_state)
        returned(self.attention.output_norm, "values", v, (*k.shape[:3], v.shape[-1]))
        state = self.position.state(x, learned)
        if missing := sorted(set(self.position.cumulative) - state.keys()):
            owner = type(self.position).__name__
            raise ValueError(
                f"{owner}.cumulative names {', '.join(missing)}, and state() returns "
                f"{', '.join(state) or 'nothing'}"
            )
        for name, tensor in state.items():
            returned(self.position, "state", tensor, (len(x), self.sizes.heads, count))
            if name in self.position.cumulative and view.key_mask is not None:
                state[name] = tensor.masked_fill(~view.key_mask[:, None], 0.0)
        return {"keys": k, "values": v, **state}

    def _with_encoding(self, bias: Bias, kept: Kept, x: Tensor, select: Any) -> Bias:
        """Return the bias with the contributions of the encoding, in all forms."""
        position = self.position
        if kept:  # the states of self-attention: x is the last of the tokens
            at_queries = {name: t[:, :, -x.shape[1] :][:, :, select] for name, t in kept.items()}
            bias = bias._replace(q_state=at_queries, k_state=kept)
        if position.has("table"):
            bias = bias._replace(**self._table(bias))
        if position.has("separable"):
            rows, columns = position.separable(bias.q_state, bias.k_state)
            bias = bias._replace(rows=rows, columns=columns)
        if position.has("bias"):
            bias = bias._replace(additive=self._additive)
        if position.has("map_scores"):
            bias = bias._replace(score_map=self._map_scores)
        return bias

    def _table(self, bias: Bias) -> dict[str, Any]:
        """Return the fields of the bias for the encoding's table, at all distances that occur."""
        q_ids, k_ids = bias.ids()
        if q_ids.is_floating_point():
            raise ValueError(
                f"{self.position.name} has a bias for each whole distance, and position ids are "
                f"{q_ids.dtype}"
            )
        if bias.q_ids is None:  # the order of tokens: known without asking a device
            low, high = 0 if bias.causal else 1 - k_ids.shape[-1], k_ids.shape[-1] - 1
        else:
            low, high = int(q_ids.min() - k_ids.max()), int(q_ids.max() - k_ids.min())
        distances = torch.arange(low, high + 1, device=q_ids.device)
        table = self.position.table(distances, self.position_state)
        returned(self.position, "table", table, (self.sizes.heads, len(distances)))
        return {"table": table, "table_start": low}

    def _additive(self, tile: Tile, learned: Learned) -> Tensor | None:
        bias = self.position.bias(tile, learned)
        if bias is None:
            return None
        shape = *tile.q.shape[:3], tile.k.shape[2]
        return broadcastable(self.position, "bias", bias, shape)

    def _map_scores(self, scores: Tensor, tile: Tile, learned: Learned) -> Tensor:
        mapped = self.position.map_scores(scores, tile, learned)
        return returned(self.position, "map_scores", mapped, scores.shape).float()


class SelectiveAttention(MultiHeadAttention):
    """Causal self-attention in which queries lower the scores of later ones (2410.02703).

    The scores of every head become s_ij - F_ij, F_ij = Σ_{u<i} max(S_uj, 0) over the queries u
    before i, S the scores of head 0 with all that is added to them, 0 where u = j and at the first
    token. A cache keeps F of the next query. Differs from the paper in that no key is ever removed.
    """

    def project(
        self,
        x: Float[Tensor, "b t w"],
        ids: Shaped[Tensor, "... k"] | None = None,
        select: Int[Tensor, " q"] | slice = ALL,
        *,
        cache: LayerCache | NoCache = NO_CACHE,
    ) -> Projected:
        q, k, v, bias = super().project(x, ids, cache=cache)
        masked, own = self._masked(q, k, bias, cache)[:, :, select], bias.crop(select)

        def additive(tile: Tile, learned: Learned) -> Tensor:
            more = None if bias.additive is None else bias.additive(tile, learned)
            return -masked if more is None else more.float() - masked

        return Projected(q[:, :, select], k, v, own._replace(additive=additive))

    def _masked(
        self, q: Tensor, k: Tensor, bias: Bias, cache: LayerCache | NoCache
    ) -> Float[Tensor, "b 1 q k"]:
        """Return F of every query; it continues the cached F, and that of the next is cached."""
        heads = slice(0, q.shape[1] if bias.hooked else 1)  # functions compute all heads at once
        key_heads = slice(0, k.shape[1] if bias.hooked else 1)
        parts = q[:, heads], k[:, key_heads], self.normalizer, bias.crop(heads=heads)
        scores, _ = biased_scores(*parts)
        spared = (bias.q_positions[:, None] == bias.k_positions) | (bias.k_positions == 0)
        gains = scores[:, :1].relu().masked_fill(spared, 0.0)
        sums = torch.nn.functional.pad(gains.cumsum(dim=2), (0, 0, 1, 0))
        if cache.state is not None:
            sums = sums + torch.nn.functional.pad(cache.state, (0, q.shape[2]))
        cache.proceed(sums[:, :, -1:], 0)
        return sums[:, :, :-1]


class FullAttention(MultiHeadAttention):
    """Self-attention in which every query sees every key but padding; n is their number."""

    kind: ClassVar[str] = "full"

    def view(self, x: Tensor, ids: Tensor | None, *, mask: Tensor | None = None) -> View:
        """Return the view of the queries of x. mask [b t] is False on padding; None: no padding."""
        order = torch.arange(x.shape[1], device=x.device)
        ids = self._ids(ids, x.shape[1], x.device)
        return View(x, order, order, unpadded(x, x, mask), ids, ids, mask)


class CrossAttention(MultiHeadAttention):
    """Attention to a memory: every query sees every key but padding; n is their number.

    `ids` are those of the queries; an encoding compares them with those of the memory. Without an
    encoding (`NoPE`), all heads have the length scaling.
    """

    kind: ClassVar[str] = "cross"

    def __init__(
        self,
        attention: Attention,
        position: PositionEncoding,
        sizes: Sizes,
        biases: bool = False,
    ) -> None:
        super().__init__(attention, position, sizes, biases)
        for hook in ("state", "window"):
            if position.has(hook):
                raise ValueError(
                    f"position={position.name} cannot be used in cross-attention, since it has a "
                    f"{hook}; use model.cross_position=none"
                )

    def view(
        self,
        x: Tensor,
        ids: Tensor | None,
        *,
        memory: Memory,
        cache: LayerCache | NoCache = NO_CACHE,
    ) -> View:
        """Return the view of the memory; a cache computes its keys and values only once."""
        states, k_ids, mask = memory
        q_order, k_order = (torch.arange(t.shape[1], device=x.device) for t in (x, states))
        ids = q_order if ids is None else ids
        return View(states, q_order, k_order, unpadded(x, states, mask), ids, k_ids, mask, cache)

    def keep(self, view: View) -> Kept:
        return dict(view.cache.once(partial(self._of_states, view)))


def causal_attention(
    attention: Attention, position: PositionEncoding, sizes: Sizes, biases: bool = False
) -> MultiHeadAttention:
    """Make a layer of causal self-attention, of the class that its options ask for."""
    kind = SelectiveAttention if attention.selective else MultiHeadAttention
    return kind(attention, position, sizes, biases)


def window_of(position: PositionEncoding, heads: int) -> Int[Tensor, " h"] | None:
    """Return the windows of the heads as whole numbers. Raises ValueError for other values."""
    window = position.window(heads)
    if window is None:
        return None
    whole = all(size is None or (type(size) is int and size > 0) for size in window)
    if len(window) != heads or not whole:
        raise ValueError(
            f"{type(position).__name__}.window() returned {window}, expected {heads} whole numbers "
            "of at least 1, or None for a head that sees all"
        )
    with torch.device("cpu"):  # not on meta: there is nothing to load it from
        return torch.tensor([WHOLE if size is None else size for size in window])


def last(ids: Tensor | None, count: int) -> Tensor | None:
    """Return the ids of the last tokens."""
    return None if ids is None else ids[..., -count:]


def per_head(ids: Tensor | None, order: Tensor) -> Tensor:
    """Return the ids [t], or [b 1 t], for rotations: those given, or the order of tokens."""
    return order if ids is None else ids if ids.dim() == 1 else ids[:, None]


def run_of(heads: list[int]) -> slice | list[int]:
    """Return ordered heads as an index: a slice if they are consecutive, which creates a view
    and never waits for a device."""
    first, count = (heads or [0])[0], len(heads)
    return slice(first, first + count) if heads == [*range(first, first + count)] else heads


def unpadded(
    x: Float[Tensor, "b t w"], memory: Float[Tensor, "b s w"], mask: Bool[Tensor, "b s"] | None
) -> Float[Tensor, " t"] | Float[Tensor, "b t"]:
    """Return the number of memory keys that each query sees."""
    tokens = x.shape[1]
    if mask is None:
        count = float(memory.shape[1])
        return torch.full((tokens,), count, dtype=torch.float32, device=x.device)
    return mask.sum(dim=-1, keepdim=True).clamp_min(1).float().expand(-1, tokens)
