"""A model whose attention may use a predicted graph only, made so from outside.

While `restricted` lasts, every attention layer gives the output of its own weights on the graph's
keys. The graph is predicted anew from what each layer then works on, as it would be in earnest.
The layers' own forward pass does not run besides, which is why this replaces it for a while
instead of correcting its result in a hook.

Shapes: b batch, h heads, q queries, m keys, d head dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from einops import rearrange
from torch import Tensor, nn

from lcg.attention.backends.reference import grouped_matmul
from lcg.diagnostics.capture import capture_inputs
from lcg.sparsefinder.graphs import LayerGraph, Links

Graph = Callable[[LayerGraph], Links]
"""From a layer to the links that are predicted of it."""


@contextmanager
def restricted(model: nn.Module, graph: Graph) -> Iterator[None]:
    """Inside, forward passes of the model use the graph's links among visible keys only.

    Not with a cache, and without gradients.
    """
    layers = model.attention_layers().values()
    with capture_inputs(model) as seen:
        for layer in layers:  # the hook that runs before has noted the call
            layer.forward = lambda *args, **kwargs: output(LayerGraph(seen.pop()), graph)
        try:
            yield
        finally:
            for layer in layers:
                del layer.forward


@torch.no_grad()
def output(heads: LayerGraph, graph: Graph) -> Tensor:
    """Return the layer's output [b q w] for the queries of its call, if it used the graph only."""
    captured, layer = heads.captured, heads.captured.layer
    memory = captured.x if captured.memory is None else captured.memory
    values = rearrange(layer.value(memory), "b k (g d) -> b g k d", d=layer.sizes.head_dim)
    values = layer.attention.output_norm.values(values, layer.output_norm_state)
    links = graph(heads)
    every = torch.arange(heads.q.shape[2], device=heads.q.device)
    parts = []
    for queries in captured.query_chunks(every[captured.select]):
        allowed = (links(queries) & heads.visible(queries)).expand(*heads.q.shape[:2], -1, -1)
        weights = heads.weights_on(captured.scores(queries), allowed)
        parts.append(grouped_matmul(weights.to(values.dtype), values))
    x = captured.x[:, captured.select]
    return layer.output(layer.join(torch.cat(parts, dim=2), x))
