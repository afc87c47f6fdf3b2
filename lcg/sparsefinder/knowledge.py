"""What is learned of a layer from the samples of one length, and then used at all lengths.

Shapes: h heads, c centroids, r projected dimensions, d head dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lcg.sparsefinder.graphs import Heads
from lcg.sparsefinder.projections import Projection

POINTS = 4096
"""Queries and keys of a head that k-means sees, at most."""


@dataclass(frozen=True)
class Known:
    """The projection of a layer's heads; centroids [h c r] of projected queries and keys by their
    number c, and [h c d] of unprojected ones scaled to length 1 (`routes`)."""

    projection: Projection
    centroids: dict[int, Tensor]
    routes: dict[int, Tensor]

    def project(self, heads: Heads) -> tuple[Tensor, Tensor]:
        """Queries [b h n r] and keys [b h m r]."""
        return self.projection.queries(heads.q), self.projection.keys(heads.k)


def together(heads: Heads, q: Tensor, k: Tensor, seed: int) -> Tensor:
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
    import warnings

    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    found = []
    for own in points.cpu().double().numpy():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points
            means = KMeans(count, n_init=1, random_state=seed).fit(own)
        found.append(torch.from_numpy(means.cluster_centers_))
    return torch.stack(found).to(points)


def learn_centroids(
    heads: Heads, projection: Projection, clusters: list[int], routes: list[int], seed: int
) -> Known:
    """All centroids that a grid needs."""
    known = Known(projection, {}, {})
    points = together(heads, *known.project(heads), seed)
    unit = together(heads, normalize(heads.q, dim=-1), normalize(heads.k, dim=-1), seed)
    for count in clusters:
        known.centroids[count] = k_means(points, count, seed)
    for count in routes:
        known.routes[count] = k_means(unit, count, seed)
    return known
