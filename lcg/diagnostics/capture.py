# ruff: noqa: F722  (shapes in annotations)
"""Capture the inputs of a model's attention layers with hooks.

A layer can recompute its weights and scalers from its input. So the forward pass needs no changes,
and runs on any backend.

Shapes: b batch, h heads, g key heads, t tokens of the input, k keys, q queries, w model width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lcg.attention.cache import LayerCache
from lcg.attention.layer import Memory, MultiHeadAttention
from lcg.attention.mask import ALL
from lcg.config import Config
from lcg.evaluation import memory
from lcg.shapes import Bool, Float, Int, Shaped


@dataclass(frozen=True)
class LayerInput:
    """One attention layer, and the arguments of its call.

    ids: its position ids, None for the order of tokens. name: see `columns.attention_layers`. kind:
    causal, full or cross. memory: in cross-attention, the tokens that keys are computed from, with
    memory_ids; else None, and keys are computed from x. key_mask: False on padded keys, None if the
    layer has no mask. query_mask: False on padded queries, whose weights are meaningless; None if
    no padding is known. select: the selected queries.
    """

    layer: MultiHeadAttention
    x: Float[Tensor, "b t w"]
    ids: Shaped[Tensor, "... t"] | None
    name: str
    kind: str
    memory: Float[Tensor, "b k w"] | None
    memory_ids: Shaped[Tensor, "... k"] | None
    key_mask: Bool[Tensor, "b k"] | None
    query_mask: Bool[Tensor, "b t"] | None
    select: Int[Tensor, " q"] | slice

    @property
    def key_count(self) -> int:
        """The number of keys, padding included."""
        return (self.x if self.memory is None else self.memory).shape[1]

    @property
    def keywords(self) -> dict[str, Any]:
        """Return the arguments of the layer's call besides x and ids."""
        if self.memory is not None:
            return {"memory": Memory(self.memory, self.memory_ids, self.key_mask)}
        return {"mask": self.key_mask} if self.kind == "full" else {}

    def query_chunks(self, queries: Int[Tensor, " q"] | None = None) -> Iterator[Tensor]:
        """Yield the queries, or all that are not padding in some sample, in chunks."""
        if queries is None:
            queries = torch.arange(self.x.shape[1], device=self.x.device)
            if self.query_mask is not None:
                queries = queries[self.query_mask.any(dim=0)]
        row = len(self.x) * self.layer.sizes.heads * self.key_count
        yield from queries.split(chunk_size(row))

    def weights(self, queries: Int[Tensor, " q"] | slice = ALL) -> Float[Tensor, "b h q k"]:
        """Return the weights of all queries, or of some; float32, 0 on keys that a query does
        not see."""
        return self.layer.weights(self.x, self.ids, queries, **self.keywords)

    def scores(self, queries: Int[Tensor, " q"] | slice = ALL) -> Float[Tensor, "b h q k"]:
        """Return the scores from which these weights are computed: see
        `MultiHeadAttention.scores`."""
        return self.layer.scores(self.x, self.ids, queries, **self.keywords)

    def queries_and_keys(self) -> tuple[Float[Tensor, "b h t d"], Float[Tensor, "b g k d"]]:
        """Return queries and keys as passed to `attend`: rotated, queries scaled by the length
        scaling.

        Scores without bias are their products divided by √d.
        """
        return self.layer.project(self.x, self.ids, **self.keywords)[:2]

    def visible(self, queries: Int[Tensor, " q"]) -> Bool[Tensor, "b q k"]:
        """Return the keys that a query sees: no padding, under a causal mask none after it, and
        not its own if the normalizer never sees that."""
        keys = torch.arange(self.key_count, device=self.x.device)
        seen = torch.ones(len(queries), len(keys), dtype=torch.bool, device=keys.device)
        if self.kind == "causal":
            own = int(self.layer.normalizer.sees_itself)
            seen = keys < queries.to(keys.device)[:, None] + own
        if self.key_mask is not None:
            return seen & self.key_mask[:, None]
        return seen.expand(len(self.x), -1, -1)

    def scaler(self) -> Float[Tensor, "b h t"] | None:
        """Return the factor of each query by the scaling, 1 in heads that are not scaled; None
        without."""
        factors = self.layer.scaler(self.x, self.ids, **self.keywords)
        if factors is None:
            return None
        return factors.float().expand(len(self.x), -1, -1).clone()


def learned_alpha(layer: MultiHeadAttention) -> Float[Tensor, " h"] | None:
    """Return α of each head if the normalizer learns it, else None."""
    normalizer = layer.normalizer
    if not normalizer.learns_alpha:
        return None
    return 1 + normalizer.alpha_minus_one(layer.normalizer_state).detach().flatten()


@contextmanager
def capture_inputs(model: nn.Module) -> Iterator[list[LayerInput]]:
    """Capture the input of every attention layer in forward passes of this block, in call order.

    All tokens of a call are captured, also if the model computes outputs for some only.
    """
    names = {layer: name for name, layer in model.attention_layers().items()}
    crosses = any(layer.kind == "cross" for layer in names)
    seen: list[LayerInput] = []
    real = selected = None

    def before(model: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        """Keep which tokens of a model's call are no padding. With cross-attention keep `select`
        from it: the last block selects before it attends to the source."""
        nonlocal real, selected
        real = None if model.pad is None else args[0] != model.pad
        if not crosses:
            return None
        selected = kwargs.get("select", args[2] if len(args) > 2 else None)
        return args[:2], {key: value for key, value in kwargs.items() if key != "select"}

    def after(model: nn.Module, args: tuple, logits: Tensor) -> Tensor | None:
        return None if selected is None else logits[:, selected]

    def note(layer: MultiHeadAttention, args: tuple, kwargs: dict) -> None:
        call = dict(zip(("x", "ids", "select"), args, strict=False)) | kwargs
        if isinstance(call.get("cache"), LayerCache):
            raise ValueError(
                "a layer that reads from a cache cannot be captured: give it all tokens"
            )
        mask = call.get("mask")
        states, memory_ids, key_mask = call.get("memory") or (None, None, mask)
        seen.append(
            LayerInput(
                layer,
                call["x"].detach(),
                call.get("ids"),
                names[layer],
                layer.kind,
                None if states is None else states.detach(),
                memory_ids,
                key_mask,
                mask if layer.kind == "full" else real,
                call.get("select", ALL),
            )
        )

    with ExitStack() as hooks:
        for layer in names:
            hooks.enter_context(layer.register_forward_pre_hook(note, with_kwargs=True))
        hooks.enter_context(model.register_forward_pre_hook(before, with_kwargs=True))
        hooks.enter_context(model.register_forward_hook(after))
        yield seen


TOGETHER = 2**22
"""Weights that exist at a time, beside what a solver needs for them."""
COPIES = 24
"""Tensors of that size at the peak: scores, weights, masks and a solver's own."""
LEAST = 8
"""Queries treated at a time, at least."""


def chunk_size(row: int) -> int:
    """Return the number of queries to process at a time; row: weights of one, of all samples and
    heads."""
    return max(LEAST, TOGETHER // row)


def obstacle(config: Config, tokens: int, scored: int, device: torch.device) -> str | None:
    """Return why one sequence and the weights of some of its queries do not fit in memory, or
    None."""
    row = config.model.heads * tokens
    chunk = 4 * COPIES * row * min(chunk_size(row), tokens)  # the peak, a solver's tensors included
    need = memory.forward_bytes(config, 1, tokens, scored) + chunk
    have = memory.available_bytes(device)
    if need <= memory.SHARE * have:
        return None
    return (
        f"a sequence of {tokens:,} tokens needs {need / 2**30:.1f} GiB of the "
        f"{have / 2**30:.1f} GiB available"
    )
