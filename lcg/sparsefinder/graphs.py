"""Queries and keys of a model's attention layers, and the graph that they make of them.

The gold graph links a query to the keys that it gives weight to. It is asked for some queries at a
time, so that a long sequence never needs all of its weights at once.

Shapes: b batch, h heads, n queries of a sequence, m keys, q some of the queries, d head dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lcg.diagnostics.capture import LayerInput, capture_inputs
from lcg.evaluation import memory
from lcg.evaluation.scoring import Score, score_teacher_forcing
from lcg.evaluation.test_sets import TestSet
from lcg.models.transformer import batch_tensors, model_inputs


@dataclass(frozen=True)
class Heads:
    """One attention layer and what it was called with.

    q [b h n d] and k [b h m d] are as `attend()` gets them, rotated and scaled, keys repeated for
    the heads that share them; real_queries [b n] and real_keys [b m] are False on padding.
    """

    name: str
    captured: LayerInput
    q: Tensor
    k: Tensor
    real_queries: Tensor
    real_keys: Tensor

    def visible(self, queries: Tensor) -> Tensor:
        """Bool [b 1 q m]: the keys that each of the queries [q] may see; padding sees none."""
        return (self.captured.visible(queries) & self.real_queries[:, queries, None])[:, None]

    def weights(self, queries: Tensor) -> Tensor:
        """Float32 [b h q m]."""
        return self.captured.weights(queries)


def heads_of(captured: LayerInput, real: Tensor | None = None) -> Heads:
    """The queries and keys of a captured layer.

    real [b n] says which tokens are no padding, for a causal layer that is not told: it need not
    know, but ranks and counts of tokens do.
    """
    q, k = captured.queries_and_keys()
    q, k = q.float(), k.float().repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    real_queries, real_keys = captured.query_mask, captured.key_mask
    if captured.memory is None:
        if real_queries is None and captured.kind == "causal":
            real_queries = real
        real_keys = real_queries if real_keys is None else real_keys
    if real_queries is None:
        real_queries = q.new_ones(len(q), q.shape[2], dtype=torch.bool)
    if real_keys is None:
        real_keys = q.new_ones(len(k), k.shape[2], dtype=torch.bool)
    return Heads(captured.name, captured, q, k, real_queries, real_keys)


@torch.no_grad()
def collect(model: nn.Module, reads: tuple[Tensor, ...], real: Tensor | None = None) -> list[Heads]:
    """Every attention layer of a model that reads a batch, in call order.

    real: see `heads_of`. Raises ValueError when a layer is called more than once.
    """
    with capture_inputs(model) as seen:
        model(*reads)
    found = [heads_of(captured, real) for captured in seen]
    if len({heads.name for heads in found}) < len(found):
        raise ValueError("an attention layer is called more than once by a forward pass")
    return found


@dataclass(frozen=True)
class Samples:
    """Inputs and labels [b t], and what an encoder reads besides [b s], if there is one.

    real [b t]: which inputs are no padding.
    """

    parts: dict[str, Tensor]
    real: Tensor

    @property
    def reads(self) -> tuple[Tensor, ...]:
        """Return the arguments of the model's call."""
        return model_inputs(self.parts)


def draw(config: Any, split: str, length: int, count: int, model: nn.Module) -> Samples:
    """The first samples, at most `count`, each once, and no more than fit in memory, on the model's
    device."""
    device = next(model.parameters()).device
    test_set = TestSet(config, split, length, count)
    count = memory.batch_size(config, *test_set.sample_size, test_set.samples, device)
    parts = batch_tensors(test_set.stream.batch(0, count), device)
    return Samples(parts, parts["inputs"] != config.task.pad)


def score(model: nn.Module, samples: Samples) -> Score:
    """Return which samples are right, by one forward pass."""
    return score_teacher_forcing(
        model, samples.parts["inputs"], samples.parts["labels"], samples.parts.get("source")
    )
