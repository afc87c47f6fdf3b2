"""Graphs from projected queries and keys: the three predictors of Sparsefinder (2109.12188).

A function here and in `baselines` makes a `Method` of its setting.

Shapes: b batch, h heads, n queries, m keys, q some queries, r projected dimensions, c clusters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from lcg.sparsefinder.graphs import LayerGraph, Links
from lcg.sparsefinder.projections import Known, squared_distances

ROUNDING = 2e-6
"""Projected numbers that differ by less than this share of the largest are equal."""


@dataclass(frozen=True)
class Method:
    """A way to predict a graph: one setting of a family, joined with a window and global tokens.

    predict: does what is linear in the length, and returns the links, hidden keys perhaps included;
    raises NotImplementedError, with the reason, for a layer whose graph cannot be had. learned: it
    reads projected queries and keys. links_all: it links every query to every key.
    """

    family: str
    own_setting: str
    predict: Callable[[LayerGraph, Known], Links]
    learned: bool = False
    links_all: bool = False
    window: int = 0
    globals: int = 0

    @property
    def front(self) -> str:
        """The front that it belongs to: that of its family and what is joined."""
        joined = [" + window"] * bool(self.window) + [" + globals"] * bool(self.globals)
        return self.family + "".join(joined)

    @property
    def setting(self) -> str:
        """The setting in words."""
        window = f"window {self.window}" * bool(self.window)
        tokens = f"{self.globals} globals" * bool(self.globals)
        return ", ".join(filter(None, (self.own_setting, window, tokens)))

    def links(self, heads: LayerGraph, known: Known) -> Links:
        """The links of the method, the window, or the global tokens."""
        own = self.predict(heads, known)
        keys = torch.arange(heads.k.shape[2], device=heads.k.device)

        def links(queries: Tensor) -> Tensor:
            found = own(queries)
            if self.window:
                found = found | in_window(queries[:, None], keys, self.window)
            if self.globals:
                found = found | with_globals(queries[:, None], keys, self.globals)
            return found

        return links


def in_window(queries: Tensor, keys: Tensor, size: int) -> Tensor:
    """|i - j| ≤ (size - 1)/2."""
    return (queries - keys).abs() <= (size - 1) // 2


def with_globals(queries: Tensor, keys: Tensor, count: int) -> Tensor:
    """The first `count` tokens link to all and all link to them."""
    return (queries < count) | (keys < count)


def distance(threshold: float, measure: Literal["l2", "cosine"] = "l2") -> Method:
    """Linked where the distance of q' and k' is below a threshold; all of them at infinity.

    l2: ‖q' - k'‖; cosine: 1 - cos(q', k'), from 0 to 2.
    """

    def predict(heads: LayerGraph, known: Known) -> Links:
        q, k = known.project(heads)
        if measure == "l2":
            return lambda queries: squared_distances(q[:, :, queries], k) < threshold**2
        q, k = normalize(q, dim=-1), normalize(k, dim=-1)
        return lambda queries: 1 - q[:, :, queries] @ k.mT < threshold

    family = "distance" if measure == "l2" else "cosine distance"
    any_distance = math.isinf(threshold)
    setting = "any" if any_distance else f"below {threshold:g}"
    return Method(family, setting, predict, learned=True, links_all=any_distance)


def buckets(size: int | None) -> Method:
    """Queries, and by themselves keys, are ordered and cut into ⌈m/size⌉ buckets of equal size, one
    for None; linked where q' and k' share a bucket in any projected dimension."""
    setting = "one bucket" if size is None else f"of {size}"
    return _quantized("equal-size buckets", setting, size, equal_parts)


def intervals(size: int | None) -> Method:
    """The same, but tanh(x) is cut into equal intervals of [-1, 1], whoever falls into them."""
    setting = "one interval" if size is None else f"n/{size} intervals"

    def bucket(x: Tensor, real: Tensor, count: Tensor) -> Tensor:
        part = ((x.tanh() + 1) / 2 * count).floor().long()
        return part.clamp(min=0).minimum(count - 1)

    return _quantized("equal intervals", setting, size, bucket)


def _quantized(
    family: str, setting: str, size: int | None, bucket: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> Method:
    """bucket: from x [b h n r], which tokens are no padding [b n], and how many buckets there are
    [b 1 1 1] to numbers of buckets [b h n r]."""

    def predict(heads: LayerGraph, known: Known) -> Links:
        q, k = known.project(heads)
        keys = heads.real_keys.sum(dim=-1)[:, None, None, None]
        count = torch.ones_like(keys) if size is None else -(-keys // size)
        return share_any(bucket(q, heads.real_queries, count), bucket(k, heads.real_keys, count))

    return Method(family, setting, predict, learned=True, links_all=size is None)


def equal_parts(x: Tensor, real: Tensor, count: Tensor) -> Tensor:
    """The rank of x [b h n r] among the real tokens [b n] of its column, in `count` equal parts.

    Of numbers apart by rounding, as of the same symbol twice, the first token comes first.
    """
    x = x.masked_fill(~real[:, None, :, None], torch.inf)
    ordered, order = x.sort(dim=2, stable=True)
    rounding = ROUNDING * x.masked_fill(x == torch.inf, 0.0).abs().amax(dim=2, keepdim=True)
    levels = pad(ordered.diff(dim=2) > rounding, (0, 0, 1, 0)).cumsum(dim=2)
    level = torch.empty_like(order).scatter_(2, order, levels)
    rank = level.argsort(dim=2, stable=True).argsort(dim=2)
    return rank * count // real.sum(dim=-1).clamp(min=1)[:, None, None, None]


def share_any(q: Tensor, k: Tensor) -> Links:
    """Linked where any of the last dimension's numbers [b h n r] and [b h m r] are the same."""

    def links(queries: Tensor) -> Tensor:
        pairs = zip(q[:, :, queries].unbind(-1), k.unbind(-1), strict=True)
        found, *more = (own[..., None] == other[..., None, :] for own, other in pairs)
        for same in more:
            found |= same
        return found

    return links


def clusters(count: int, nearest: int = 1) -> Method:
    """Linked where q' and k' share a cluster; each is in the `nearest` 1 or 2 of them.

    Centroids come from k-means on projected queries and keys together, learned once.
    """
    family = "clusters" if nearest == 1 else f"clusters, {nearest} nearest"

    def predict(heads: LayerGraph, known: Known) -> Links:
        return shared_clusters(*known.project(heads), known.centroids[count], nearest)

    setting = f"{count} cluster{'s' * (count > 1)}"
    return Method(family, setting, predict, learned=True, links_all=count <= nearest)


def shared_clusters(q: Tensor, k: Tensor, centroids: Tensor, nearest: int = 1) -> Links:
    """Linked where q [b h n r] and k [b h m r] share one of their nearest centroids [h c r]; where
    centroids are as far, a token is in the clusters of all."""
    squares = centroids.square().sum(dim=-1)[:, None]

    def membership(x: Tensor) -> Tensor:
        """1 where a token is in a cluster, else 0: float [b h n c]."""
        distances = squared_distances(x, centroids)
        last = distances.topk(min(nearest, centroids.shape[1]), dim=-1, largest=False).values[
            ..., -1:
        ]
        rounding = ROUNDING * (x.square().sum(dim=-1, keepdim=True) + squares)
        return (distances <= last + rounding).to(x.dtype)

    q, k = membership(q), membership(k)
    return lambda queries: q[:, :, queries] @ k.mT > 0
