"""Per head a linear map of queries and of keys to few dimensions, where near means linked.

Per query the loss is

    relu( 1 + Σ_{k in support} ‖q' - k‖² - Σ_{k in negatives} ‖q' - k‖² ),

over as many negatives as the support has keys, drawn uniformly from the visible keys without
weight; then the mean over queries and heads. The relu comes after the sums, as in the authors'
code, not per pair as in its docstring. Differs from that code in two ways: a query without any
negative takes no part, as there is nothing to tell apart; where the support has more keys than
there are negatives, all of them are taken and their sum weighed up, which is what drawing with
replacement gives on average (the code then takes keys of the support for negatives).

Shapes: s samples, h heads, q queries, m keys, d head dimension, r projected dimensions.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from lcg.sparsefinder.graphs import LayerGraph

QUERIES = 128
"""Queries of a sample that are learned from, at most."""
SAMPLES_OF_A_STEP, QUERIES_OF_A_STEP = 4, 64
MARGIN = 1.0
START = 0.1
"""Scale of the matrices' entries, as a share of 1/√d. From far larger ones a query's sums differ by
more than the margin whatever the map is; small ones grow in the directions that tell keys apart."""


class Projection(nn.Module):
    """q·W_q + b_q and k·W_k + b_k per head, [s h n d] -> [s h n r]; `shared`: both are one map."""

    def __init__(self, heads: int, width: int, rank: int, shared: bool, seed: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        count = 1 if shared else 2
        matrices = torch.randn(count, heads, width, rank, generator=draw) * START * width**-0.5
        self.matrices = nn.Parameter(matrices)
        self.offsets = nn.Parameter(torch.zeros(count, heads, 1, rank))

    def queries(self, q: Tensor) -> Tensor:
        """The projected queries."""
        return q @ self.matrices[0] + self.offsets[0]

    def keys(self, k: Tensor) -> Tensor:
        """The projected keys."""
        return k @ self.matrices[-1] + self.offsets[-1]


@dataclass(frozen=True)
class Examples:
    """Queries q [s h q d] of a layer, all keys k [s h m d], and gold and negative links
    Bool [s h q m]."""

    q: Tensor
    k: Tensor
    gold: Tensor
    negative: Tensor


@torch.no_grad()
def examples(heads: LayerGraph, seed: int) -> Examples:
    """At most QUERIES queries of each sample with their links."""
    n = heads.q.shape[2]
    draw = torch.Generator().manual_seed(seed)
    queries = torch.randperm(n, generator=draw)[:QUERIES].sort().values.to(heads.q.device)
    links = []
    for some in heads.captured.query_chunks(queries):
        visible = heads.visible(some)
        gold = (heads.captured.weights(some) > 0) & visible
        links.append((gold, visible & ~gold))
    parts = (torch.cat(part, dim=2) for part in zip(*links, strict=True))
    return Examples(heads.q[:, :, queries], heads.k, *parts)


def margin_loss(distance: Tensor, gold: Tensor, negative: Tensor, draw: torch.Generator) -> Tensor:
    """The loss above of squared distances [s h q m], as a mean over the queries that take part.

    gold and negative are Bool [s h q m] and disjoint. 0 where no query takes part.
    """
    wanted = gold.sum(dim=-1, keepdim=True)
    order = torch.rand(negative.shape, generator=draw).to(distance.device)
    rank = order.masked_fill(~negative, 2.0).argsort(dim=-1).argsort(dim=-1)
    drawn = negative & (rank < wanted)
    count = drawn.sum(dim=-1)
    near = (distance * gold).sum(dim=-1)
    far = (distance * drawn).sum(dim=-1) * (wanted[..., 0] / count.clamp(min=1))
    part = (count > 0) & (wanted[..., 0] > 0)
    losses = (MARGIN + near - far).relu() * part
    return losses.sum() / part.sum().clamp(min=1)


def squared_distances(q: Tensor, k: Tensor) -> Tensor:
    """‖q_i - k_j‖² of [… q r] and [… m r] as [… q m], never below 0."""
    squares = q.square().sum(dim=-1)[..., None] + k.square().sum(dim=-1)[..., None, :]
    return (squares - 2 * q @ k.mT).clamp(min=0)


def learn(
    data: Examples,
    rank: int,
    shared: bool,
    steps: int,
    seed: int,
    progress: Callable[[], None] = lambda: None,
    rate: float = 0.003,
) -> tuple[Projection, list[float]]:
    """A projection of one layer's heads by `steps` steps of Adam, and the loss at each of them.

    Each step takes a few samples and some of their queries. The same seed gives the same result.
    """
    s, h, n, d = data.q.shape
    draw = torch.Generator().manual_seed(seed)
    projection = Projection(h, d, rank, shared, seed).to(data.q.device)
    adam = torch.optim.Adam(projection.parameters(), lr=rate)
    losses = []
    for _ in range(steps):
        rows = torch.randperm(s, generator=draw)[:SAMPLES_OF_A_STEP]
        queries = torch.randperm(n, generator=draw)[:QUERIES_OF_A_STEP]
        q, gold, negative = (x[rows][:, :, queries] for x in (data.q, data.gold, data.negative))
        distances = squared_distances(projection.queries(q), projection.keys(data.k[rows]))
        loss = margin_loss(distances, gold, negative, draw)
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(float(loss.detach()))
        progress()
    return projection.requires_grad_(False), losses


POINTS = 4096
"""Queries and keys of a head that k-means sees, at most."""


@dataclass(frozen=True)
class Known:
    """The projection of a layer's heads; centroids [h c r] of projected queries and keys by their
    number c, and [h c d] of unprojected ones scaled to length 1 (`routes`)."""

    projection: Projection
    centroids: dict[int, Tensor]
    routes: dict[int, Tensor]

    def project(self, heads: LayerGraph) -> tuple[Tensor, Tensor]:
        """Queries [b h n r] and keys [b h m r]."""
        return self.projection.queries(heads.q), self.projection.keys(heads.k)


def _together(heads: LayerGraph, q: Tensor, k: Tensor, seed: int) -> Tensor:
    """Points [h p …]: the real queries and keys of all samples, a random POINTS of them."""
    q, k = q.transpose(1, 2)[heads.real_queries], k.transpose(1, 2)[heads.real_keys]
    points = torch.cat([q, k])
    draw = torch.Generator().manual_seed(seed)
    some = torch.randperm(len(points), generator=draw)[:POINTS].to(points.device)
    return points[some].transpose(0, 1)


def k_means(points: Tensor, count: int, seed: int) -> Tensor:
    """Centroids [h c …] of points [h p …], each head by itself (scikit-learn, k-means++).

    A head with fewer distinct points than `count` has some centroids twice.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points
        means = [
            KMeans(count, n_init=1, random_state=seed).fit(own).cluster_centers_
            for own in points.cpu().double().numpy()
        ]
    return torch.from_numpy(np.stack(means)).to(points)


def learn_centroids(
    heads: LayerGraph, projection: Projection, clusters: list[int], routes: list[int], seed: int
) -> Known:
    """All centroids that a grid needs."""
    points = _together(heads, projection.queries(heads.q), projection.keys(heads.k), seed)
    unit = _together(heads, normalize(heads.q, dim=-1), normalize(heads.k, dim=-1), seed)
    centroids = {count: k_means(points, count, seed) for count in clusters}
    return Known(projection, centroids, {count: k_means(unit, count, seed) for count in routes})
