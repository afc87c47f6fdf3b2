"""How well a predicted graph matches the gold graph of a layer's heads.

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

from lcg.sparsefinder.collecting import Heads
from lcg.sparsefinder.predictors import Links

NAMES = ("sparsity", "recall", "exact", "mass")


@dataclass
class Identity:
    """How far weights on the predicted keys are from those on all, of fully predicted queries."""

    queries: int = 0
    largest_difference: float = 0.0
    same_support: bool = True

    def __add__(self, other: Identity) -> Identity:
        return Identity(
            self.queries + other.queries,
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


@torch.no_grad()
def measure(heads: Heads, links: Links, queries: Tensor, identity: bool = True) -> LayerMeasures:
    """The measures of a layer's predicted graph over some queries [q]."""
    sums: dict[str, Tensor] = {}
    found = Identity()
    for some in heads.some_queries(queries):
        weights, visible = heads.weights(some), heads.visible(some)
        predicted = links(some) & visible
        for name, part in _counts(weights, visible, predicted).items():
            sums[name] = part + sums[name] if name in sums else part
        if identity:
            found += _identity(heads, some, weights, predicted)
    per = {
        "sparsity": 1 - sums["predicted"] / sums["visible"],
        "recall": sums["hits"] / sums["gold"],
        "exact": sums["exact"] / sums["queries"],
        "mass": sums["mass"] / sums["heavy"],
    }
    return LayerMeasures(
        **{name: value.nanmean(dim=0).tolist() for name, value in per.items()}, identity=found
    )


def _counts(weights: Tensor, visible: Tensor, predicted: Tensor) -> dict[str, Tensor]:
    """Sums over queries [b h] of some queries."""
    gold = (weights > 0) & visible
    weights = weights.double().masked_fill(~visible, 0.0)
    total = weights.sum(dim=-1)
    held = (weights * predicted).sum(dim=-1)
    real = visible.any(dim=-1).expand(gold.shape[:-1])
    hits = predicted & gold
    counted = {
        "predicted": predicted.sum(dim=(-2, -1)),
        "visible": visible.sum(dim=(-2, -1)).expand(gold.shape[:2]),
        "hits": hits.sum(dim=(-2, -1)),
        "gold": gold.sum(dim=(-2, -1)),
        "exact": ((hits == gold).all(dim=-1) & real).sum(dim=-1),
        "queries": real.sum(dim=-1),
        "mass": torch.where(total > 0, held / total, 0.0).sum(dim=-1),
        "heavy": (total > 0).sum(dim=-1),
    }
    return {name: count.double() for name, count in counted.items()}


def _identity(heads: Heads, queries: Tensor, weights: Tensor, predicted: Tensor) -> Identity:
    visible = heads.visible(queries)
    gold = (weights > 0) & visible
    full = (predicted | ~gold).all(dim=-1) & gold.any(dim=-1)
    if not bool(full.any()):
        return Identity()
    alone = weights_on(heads, queries, predicted)
    apart = (alone - weights).abs()[full]
    same = ((alone > 0) == (weights > 0))[full]
    return Identity(int(full.sum()), float(apart.max()), bool(same.all()))


def weights_on(heads: Heads, queries: Tensor, graph: Tensor) -> Tensor:
    """The layer's weights when each query sees its keys in the graph [b h q m] only.

    A query without any gets zeros.
    """
    layer = heads.watched.layer
    scores = heads.watched.scores(queries)
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
