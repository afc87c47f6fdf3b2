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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lcg.attention.normalizers.base import Normalizer
from lcg.diagnostics.capture import chunk_size
from lcg.sparsefinder.graphs import LayerGraph, Links

QUERIES, COMPARED = 64, 8
"""Queries of a sample that are looked at, and whose weights on a graph are computed; at most."""
KEYS = 512
"""Keys of a random row that a normalizer is tried on: more than any top-k keeps by default."""


def check_identity(normalizer: Normalizer, learned: Mapping[str, Tensor], heads: int) -> None:
    """Raise ValueError unless keys without weight can be taken away and nothing changes.

    That is what makes a fully predicted support as good as all keys. It is tried, on random rows
    with keys off the support taken away at random, so that it is known of a user's own normalizer.
    """
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(heads, 8, KEYS, generator=draw) * 3
    taken = torch.rand(rows.shape, generator=draw) < 0.5
    learned = {name: tensor.detach().cpu() for name, tensor in learned.items()}
    keys = torch.arange(KEYS)
    with torch.no_grad():
        whole = normalizer(rows, keys, learned)
        part = normalizer(rows.masked_fill(taken & (whole == 0), -torch.inf), keys, learned)
    if not torch.allclose(whole, part, atol=1e-6, rtol=0):
        raise ValueError(
            f"normalizer={normalizer.name} gives other weights when keys without weight are taken "
            "away, so a predicted graph cannot stand for all keys"
        )


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


Measures = dict[str, list[float]]
"""Measure -> its value per head, NaN where there is nothing to say."""


def overall(layers: Iterable[Measures]) -> dict[str, float]:
    """The mean over all heads of each measure."""
    values: dict[str, list[float]] = {}
    for layer in layers:
        for name, heads in layer.items():
            values.setdefault(name, []).extend(v for v in heads if not math.isnan(v))
    return {name: sum(some) / len(some) if some else math.nan for name, some in values.items()}


class Gold:
    """At most QUERIES queries [q] of a layer, evenly spaced, and no more than a chunk of them; what
    they may see Bool [b 1 q m], and their weights [b h q m].

    `compared` [c] are those of them whose weights on a predicted graph are computed as well, from
    the same `scores` [b h c m]: those of fewer queries at a time may be rounded otherwise.
    """

    @torch.no_grad()
    def __init__(self, heads: LayerGraph) -> None:
        b, h, n, _ = heads.q.shape
        most = min(QUERIES, chunk_size(b * h * heads.k.shape[2]))
        self.heads, self.queries = heads, evenly(n, most, heads.q.device)
        self.visible = heads.visible(self.queries)
        self.weights = heads.captured.weights(self.queries).masked_fill(~self.visible, 0.0)
        self.compared = evenly(len(self.queries), COMPARED, heads.q.device)
        self.scores = heads.captured.scores(self.queries)[:, :, self.compared]


@torch.no_grad()
def measure(gold: Gold, links: Links) -> tuple[Measures, Identity]:
    """The measures of a predicted graph; its identity is checked on the queries `compared`."""
    visible, weights = gold.visible, gold.weights
    predicted, linked = (links(gold.queries) & visible).expand_as(weights), weights > 0
    hits = predicted & linked
    real = visible.any(dim=-1).expand(linked.shape[:-1])
    total = weights.sum(dim=-1)
    held = (weights * predicted).sum(dim=-1) / total
    per = {
        "sparsity": 1 - _count(predicted) / _count(visible.expand_as(weights)),
        "recall": _count(hits) / _count(linked),
        "exact": _count((hits == linked).all(dim=-1) & real, 1) / _count(real, 1),
        "mass": held.masked_fill(total == 0, torch.nan).double().nanmean(dim=-1),
    }
    means = {name: value.nanmean(dim=0).tolist() for name, value in per.items()}
    return means, _identity(gold, predicted[:, :, gold.compared])


def _count(found: Tensor, dimensions: int = 2) -> Tensor:
    """Count the True ones by sample and head."""
    return found.sum(dim=tuple(range(-dimensions, 0))).double()


def _identity(gold: Gold, graph: Tensor) -> Identity:
    """Compare the weights of queries `compared` whose edges are all in the graph [b h c m]."""
    weights = gold.weights[:, :, gold.compared]
    linked = weights > 0
    full = (graph | ~linked).all(dim=-1) & linked.any(dim=-1)
    if not bool(full.any()):
        return Identity()
    alone = gold.heads.weights_on(gold.scores, graph)
    difference = (alone - weights).abs().amax(dim=-1)[full]
    same = ((alone > 0) == linked)[full]
    return Identity(
        int(full.sum()), int((difference > 0).sum()), float(difference.max()), bool(same.all())
    )


def evenly(count: int, most: int, device: torch.device | str = "cpu") -> Tensor:
    """At most `most` of `count` queries, the first and the last among them."""
    if count <= most:
        return torch.arange(count, device=device)
    return torch.linspace(0, count - 1, most).round().long().to(device)
