"""Measure how well a predicted graph matches the gold graph of a layer's heads.

Per sample and head, over the queries looked at:

    sparsity  1 - predicted edges / visible pairs
    recall    predicted edges that have weight / edges that have weight
    exact     share of queries whose edges with weight are all predicted; one without any counts
    mass      mean over queries with weight of the share of their weight that predicted edges hold

then the mean over samples, heads, and layers. A head without any edge with weight has no recall.

The identity: where all edges with weight are predicted, the normalizer gives the same weights on
the predicted keys alone as on all of them, as keys below the threshold do not take part in it.

Shapes: b batch, h heads, q queries, m keys.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lcg.diagnostics.capture import chunk_size
from lcg.sparsefinder.graphs import Heads
from lcg.sparsefinder.predictors import Links

QUERIES, COMPARED = 64, 8
"""Queries of a sample that are looked at, and whose weights on a graph are computed; at most."""
NAMES = ("sparsity", "recall", "exact", "mass")


@dataclass
class Identity:
    """Largest difference of weights on predicted keys from those on all keys."""

    queries: int = 0
    different: int = 0
    """Queries whose weights are not the same bit for bit."""
    largest_difference: float = 0.0
    same_support: bool = True

    def __add__(self, other: Identity) -> Identity:
        return Identity(
            self.queries + other.queries,
            self.different + other.different,
            max(self.largest_difference, other.largest_difference),
            self.same_support and other.same_support,
        )


@dataclass
class LayerMeasures:
    """Each measure per head: a list of numbers, NaN where there is nothing to say."""

    sparsity: list[float]
    recall: list[float]
    exact: list[float]
    mass: list[float]
    identity: Identity = field(default_factory=Identity)


def overall(layers: list[LayerMeasures]) -> dict[str, float]:
    """The mean over all heads of each measure."""
    found = {}
    for name in NAMES:
        values = [v for layer in layers for v in getattr(layer, name) if not math.isnan(v)]
        found[name] = sum(values) / len(values) if values else math.nan
    return found


@dataclass(frozen=True)
class Gold:
    """Some queries [q] of a layer, what they may see Bool [b 1 q m], and their weights [b h q m].

    `compared` [c] are those of them whose weights on a predicted graph are computed as well, from
    the same `scores` [b h c m]: those of fewer queries at a time may be rounded otherwise.
    """

    heads: Heads
    queries: Tensor
    visible: Tensor
    weights: Tensor
    compared: Tensor
    scores: Tensor


@torch.no_grad()
def gold(heads: Heads) -> Gold:
    """At most QUERIES queries, evenly spaced, and no more than a chunk of them."""
    b, h, n, _ = heads.q.shape
    most = min(QUERIES, chunk_size(b * h * heads.k.shape[2]))
    queries = evenly(n, most, heads.q.device)
    visible = heads.visible(queries)
    weights = heads.weights(queries).masked_fill(~visible, 0.0)
    compared = evenly(len(queries), COMPARED, queries.device)
    scores = heads.captured.scores(queries)[:, :, compared]
    return Gold(heads, queries, visible, weights, compared, scores)


@torch.no_grad()
def measure(gold: Gold, links: Links) -> LayerMeasures:
    """The measures of a predicted graph; its identity is checked on the queries `compared`."""
    visible, weights = gold.visible, gold.weights
    predicted = links(gold.queries) & visible
    linked = weights > 0
    hits = predicted & linked
    real = visible.any(dim=-1).expand(linked.shape[:-1])
    total = weights.sum(dim=-1)
    held = (weights * predicted).sum(dim=-1) / total
    edges = visible.expand(len(linked), linked.shape[1], -1, -1)
    per = {
        "sparsity": 1 - _count(predicted) / _count(edges),
        "recall": _count(hits) / _count(linked),
        "exact": _count((hits == linked).all(dim=-1) & real, 1) / _count(real, 1),
        "mass": held.masked_fill(total == 0, torch.nan).double().nanmean(dim=-1),
    }
    means = {name: value.nanmean(dim=0).tolist() for name, value in per.items()}
    return LayerMeasures(**means, identity=identity(gold, predicted))


def _count(found: Tensor, dimensions: int = 2) -> Tensor:
    """Count the True ones by sample and head."""
    return found.sum(dim=tuple(range(-dimensions, 0))).double()


def identity(gold: Gold, predicted: Tensor) -> Identity:
    """Compare the weights of queries `compared` whose edges are all predicted [b h q m]."""
    some = gold.compared
    weights, graph = gold.weights[:, :, some], predicted.expand_as(gold.weights)[:, :, some]
    linked = weights > 0
    full = (graph | ~linked).all(dim=-1) & linked.any(dim=-1)
    if not bool(full.any()):
        return Identity()
    alone = weights_on(gold.heads, gold.scores, graph)
    apart = (alone - weights).abs().amax(dim=-1)[full]
    same = ((alone > 0) == linked)[full]
    return Identity(int(full.sum()), int((apart > 0).sum()), float(apart.max()), bool(same.all()))


def weights_on(heads: Heads, scores: Tensor, graph: Tensor) -> Tensor:
    """The weights that the layer makes of scores [b h q m] on the keys in the graph [b h q m] only.

    A query without any gets zeros.
    """
    layer = heads.captured.layer
    scores = scores.masked_fill(~graph, -torch.inf)
    blind = ~graph.any(dim=-1, keepdim=True)
    keys = torch.arange(graph.shape[-1], device=scores.device)
    normalizer = layer.attention.normalizer
    weights = normalizer(scores.masked_fill(blind, 0.0), keys, layer.normalizer_state)
    return weights.masked_fill(blind, 0.0)


def evenly(count: int, most: int, device: torch.device | str = "cpu") -> Tensor:
    """At most `most` of `count` queries, the first and the last among them."""
    if count <= most:
        return torch.arange(count, device=device)
    return torch.linspace(0, count - 1, most).round().long().to(device)
