"""Queries and keys of a model's attention layers, and the graph that they make of them.

The gold graph links a query to the keys that it gives weight to. It is asked for some queries at a
time, so that a long sequence never needs all of its weights at once.

Shapes: b batch, h heads, n queries of a sequence, m keys, q some of the queries, d head dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lcg.diagnostics.capture import LayerInput, capture_inputs
from lcg.evaluation import memory
from lcg.evaluation.test_sets import TestSet
from lcg.models.transformer import batch_tensors

Links = Callable[[Tensor], Tensor]
"""From some queries [q] to Bool [b h q m], or what broadcasts to it."""


class LayerGraph:
    """One attention layer, what it was called with, and the graph that it makes of that.

    q [b h n d] and k [b h m d] are as `attend()` gets them, rotated and scaled, keys repeated for
    the heads that share them; real_queries [b n] and real_keys [b m] are False on padding.
    """

    def __init__(self, captured: LayerInput) -> None:
        q, k = (x.float() for x in captured.queries_and_keys())
        self.captured, self.name, self.q = captured, captured.name, q
        self.k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        real = [captured.query_mask, captured.key_mask]
        if captured.kind == "causal":
            real[1] = real[0]
        self.real_queries, self.real_keys = (
            x.new_ones(len(x), x.shape[2], dtype=torch.bool) if mask is None else mask
            for mask, x in zip(real, (self.q, self.k), strict=True)
        )

    def visible(self, queries: Tensor) -> Tensor:
        """Bool [b 1 q m]: the keys that each of the queries [q] may see; padding sees none."""
        return (self.captured.visible(queries) & self.real_queries[:, queries, None])[:, None]

    def weights_on(self, scores: Tensor, graph: Tensor) -> Tensor:
        """The weights that the layer makes of scores [b h q m] on keys in the graph [b h q m] only.

        A query without any gets zeros.
        """
        layer = self.captured.layer
        blind = ~graph.any(dim=-1, keepdim=True)
        scores = scores.masked_fill(~graph, -torch.inf).masked_fill(blind, 0.0)
        keys = torch.arange(graph.shape[-1], device=scores.device)
        weights = layer.normalizer(scores, keys, layer.normalizer_state)
        return weights.masked_fill(blind, 0.0)


@torch.no_grad()
def collect(model: nn.Module, inputs: Sequence[Tensor]) -> list[LayerGraph]:
    """Every attention layer of a model that reads a batch, in call order.

    Raises ValueError when a layer is called more than once.
    """
    with capture_inputs(model) as seen:
        model(*inputs)
    if len({captured.name for captured in seen}) < len(seen):
        raise ValueError("an attention layer is called more than once by a forward pass")
    return [LayerGraph(captured) for captured in seen]


def draw(config: Any, split: str, length: int, count: int, model: nn.Module) -> dict[str, Tensor]:
    """The first samples, at most `count`, each once, and no more than fit in memory, on the model's
    device, as `batch_tensors` names them."""
    device = next(model.parameters()).device
    test_set = TestSet(config, split, length, count)
    count = memory.batch_size(config, *test_set.sample_size, test_set.samples, device)
    return batch_tensors(test_set.stream.batch(0, count), device)
