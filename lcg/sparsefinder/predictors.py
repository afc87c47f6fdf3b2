"""Graphs from projected queries and keys: the three predictors of Sparsefinder (2109.12188).

A method is a dataclass of its settings. `links(heads, known)` does what is linear in the length,
and returns a function from some queries [q] to Bool [b h q m], or what broadcasts to it.

Shapes: b batch, h heads, n queries, m keys, q some queries, r projected dimensions, c clusters.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lcg.sparsefinder.graphs import Heads
from lcg.sparsefinder.projections import Known, squared_distances

Links = Callable[[Tensor], Tensor]

ROUNDING = 2e-6
"""Projected numbers that differ by less than this share of the largest are equal."""


@dataclass(frozen=True)
class Method(ABC):
    """A way to predict a graph."""

    family: ClassVar[str]
    """Methods of one family differ in a setting and make one front."""
    learned: ClassVar[bool] = False
    """True when it reads projected queries and keys."""

    @property
    @abstractmethod
    def setting(self) -> str:
        """The setting in words."""

    @property
    def links_all(self) -> bool:
        """True when the setting links every query to every key: the end of a grid."""
        return False

    @abstractmethod
    def links(self, heads: Heads, known: Known) -> Links:
        """The links of a layer, some queries at a time; they may include keys that are hidden."""

    def obstacle(self, heads: Heads) -> str | None:
        """Why a layer's graph cannot be had, or None."""
        return None


@dataclass(frozen=True)
class Distance(Method):
    """Linked where the distance of q' and k' is below a threshold; all of them at infinity.

    l2: ‖q' - k'‖; cosine: 1 - cos(q', k'), from 0 to 2.
    """

    threshold: float
    measure: Literal["l2", "cosine"] = "l2"
    learned: ClassVar[bool] = True

    @property
    def family(self) -> str:
        return "distance" if self.measure == "l2" else "cosine distance"

    @property
    def links_all(self) -> bool:
        return math.isinf(self.threshold)

    @property
    def setting(self) -> str:
        return "any" if math.isinf(self.threshold) else f"below {self.threshold:g}"

    def links(self, heads, known):
        q, k = known.project(heads)
        if self.measure == "l2":
            limit = self.threshold**2
            return lambda queries: squared_distances(q[:, :, queries], k) < limit
        q, k = normalize(q, dim=-1), normalize(k, dim=-1)
        return lambda queries: 1 - q[:, :, queries] @ k.mT < self.threshold


@dataclass(frozen=True)
class Quantized(Method):
    """Linked where q' and k' share a bucket in any projected dimension, of ⌈m/size⌉ buckets."""

    size: int | None
    """None: one bucket."""
    learned: ClassVar[bool] = True

    @property
    def links_all(self) -> bool:
        return self.size is None

    def links(self, heads, known):
        q, k = known.project(heads)
        keys = heads.real_keys.sum(dim=-1)
        count = torch.ones_like(keys) if self.size is None else -(-keys // self.size)
        return share_any(
            self.bucket(q, heads.real_queries, count), self.bucket(k, heads.real_keys, count)
        )

    @staticmethod
    @abstractmethod
    def bucket(x: Tensor, real: Tensor, count: Tensor) -> Tensor:
        """Bucket numbers [b h n r], below count [b], of x [b h n r]; real [b n]: no padding."""


@dataclass(frozen=True)
class Buckets(Quantized):
    """Queries, and by themselves keys, are ordered and cut into buckets of equal size."""

    family: ClassVar[str] = "equal-size buckets"

    @property
    def setting(self) -> str:
        return "one bucket" if self.size is None else f"of {self.size}"

    @staticmethod
    def bucket(x, real, count):
        """The rank among the real tokens of a sequence, in equal parts."""
        rank = ranks(x.masked_fill(~real[:, None, :, None], torch.inf))
        tokens = real.sum(dim=-1).clamp(min=1)
        return rank * count[:, None, None, None] // tokens[:, None, None, None]


def ranks(x: Tensor) -> Tensor:
    """The place of each token among the n of its column, x [b h n r] in ascending order.

    Of numbers apart by rounding, as of the same symbol twice, the first token comes first.
    """
    ordered, order = x.sort(dim=2, stable=True)
    rounding = ROUNDING * x.masked_fill(x == torch.inf, 0.0).abs().amax(dim=2, keepdim=True)
    levels = torch.nn.functional.pad(ordered.diff(dim=2) > rounding, (0, 0, 1, 0)).cumsum(dim=2)
    level = torch.empty_like(order).scatter_(2, order, levels)
    return level.argsort(dim=2, stable=True).argsort(dim=2)


@dataclass(frozen=True)
class Intervals(Quantized):
    """tanh(x) is cut into equal intervals of [-1, 1], whoever falls into them."""

    family: ClassVar[str] = "equal intervals"

    @property
    def setting(self) -> str:
        return "one interval" if self.size is None else f"n/{self.size} intervals"

    @staticmethod
    def bucket(x, real, count):
        count = count[:, None, None, None]
        part = ((x.tanh() + 1) / 2 * count).floor().long()
        return part.clamp(min=0).minimum(count - 1)


def share_any(q: Tensor, k: Tensor) -> Links:
    """Linked where any of the last dimension's numbers [b h n r] and [b h m r] are the same."""

    def links(queries: Tensor) -> Tensor:
        some = q[:, :, queries]
        found = some[..., 0, None] == k[..., None, :, 0]
        for dimension in range(1, q.shape[-1]):
            found |= some[..., dimension, None] == k[..., None, :, dimension]
        return found

    return links


@dataclass(frozen=True)
class Clusters(Method):
    """Linked where q' and k' share a cluster; each is in the `nearest` 1 or 2 of them.

    Centroids come from k-means on projected queries and keys together, learned once.
    """

    count: int
    nearest: int = 1
    learned: ClassVar[bool] = True

    @property
    def family(self) -> str:
        return "clusters" if self.nearest == 1 else f"clusters, {self.nearest} nearest"

    @property
    def links_all(self) -> bool:
        return self.count <= self.nearest

    @property
    def setting(self) -> str:
        return f"{self.count} cluster{'s' * (self.count > 1)}"

    def links(self, heads, known):
        centroids = known.centroids[self.count]
        return shared_clusters(*known.project(heads), centroids, self.nearest)


def shared_clusters(q: Tensor, k: Tensor, centroids: Tensor, nearest: int = 1) -> Links:
    """Linked where q [b h n r] and k [b h m r] share one of their nearest centroids [h c r]."""
    q, k = (_membership(x, centroids, nearest) for x in (q, k))
    return lambda queries: q[:, :, queries] @ k.mT > 0


def _membership(x: Tensor, centroids: Tensor, nearest: int) -> Tensor:
    """1 where a token is in a cluster, else 0: float [b h n c]; of centroids as far, in all."""
    distance = squared_distances(x, centroids)
    last = distance.topk(min(nearest, centroids.shape[1]), dim=-1, largest=False).values[..., -1:]
    squares = x.square().sum(dim=-1, keepdim=True) + centroids.square().sum(dim=-1)[:, None]
    return (distance <= last + ROUNDING * squares).to(x.dtype)
