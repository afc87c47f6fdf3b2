"""A model whose attention may use a predicted graph only, made so from outside.

While `restricted` lasts, every attention layer gives the output of its own weights on the graph's
keys. The graph is predicted anew from what each layer then works on, as it would be in earnest.
The layers' own forward pass does not run besides, which is why this replaces it for a while
instead of correcting its result in a hook.

Shapes: b batch, h heads, q queries, m keys, d head dimension.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from einops import rearrange
from torch import Tensor, nn

from lcg.attention.backends.reference import grouped_matmul
from lcg.attention.layer import MultiHeadAttention
from lcg.attention.mask import ALL
from lcg.diagnostics.capture import LayerInput, capture_inputs
from lcg.sparsefinder.graphs import Heads, heads_of
from lcg.sparsefinder.metrics import weights_on
from lcg.sparsefinder.predictors import Links

Graph = Callable[[Heads], Links]
"""From a layer's heads to their links."""


def attention_of(model: nn.Module) -> list[MultiHeadAttention]:
    """All attention layers of a model."""
    return [module for module in model.modules() if isinstance(module, MultiHeadAttention)]


@contextmanager
def restricted(model: nn.Module, graph: Graph, real: Tensor | None = None) -> Iterator[None]:
    """Inside, forward passes of the model use the graph's links among visible keys only.

    Not with a cache, and without gradients. real: see `graphs.heads_of`.
    """
    layers = attention_of(model)
    with capture_inputs(model) as seen:
        for layer in layers:
            layer.forward = _replacement(layer, seen, graph, real)
        try:
            yield
        finally:
            for layer in layers:
                del layer.forward


def _replacement(
    layer: MultiHeadAttention, seen: list[LayerInput], graph: Graph, real: Tensor | None
) -> Callable[..., Tensor]:
    signature = inspect.signature(type(layer).forward)

    @torch.no_grad()
    def forward(*words, **options) -> Tensor:
        captured = seen.pop()  # noted by the hook that runs before
        select = signature.bind(layer, *words, **options).arguments.get("select", ALL)
        return output(heads_of(captured, real), graph, select)

    return forward


def output(heads: Heads, graph: Graph, select: Tensor | slice = ALL) -> Tensor:
    """Return the layer's output [b q w] for all queries, or some, if it used the graph only."""
    captured = heads.captured
    layer = captured.layer
    memory = captured.x if captured.memory is None else captured.memory
    values = rearrange(layer.value(memory), "b k (g d) -> b g k d", d=layer.sizes.head_dim)
    links = graph(heads)
    every = torch.arange(heads.q.shape[2], device=heads.q.device)
    parts = []
    for queries in captured.query_chunks(every[select]):
        allowed = links(queries) & heads.visible(queries)
        allowed = allowed.expand(*heads.q.shape[:2], -1, -1)
        weights = weights_on(heads, captured.scores(queries), allowed)
        parts.append(grouped_matmul(weights.to(values.dtype), values))
    joined = rearrange(torch.cat(parts, dim=2), "b h q d -> b q (h d)")
    return layer.output(layer.attention.output_norm(joined, layer.output_norm_state))
