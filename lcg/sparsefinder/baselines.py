"""Graphs that look at the unprojected queries and keys, the exact graph, and the norm bound.

Shapes: b batch, h heads, n queries, m keys, q some queries, d head dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn.functional import normalize

from lcg.attention.backends.blockwise import KEY_BLOCK, QUERIES
from lcg.attention.backends.reach import needed_blocks, visible_ends
from lcg.attention.mask import Bias
from lcg.sparsefinder.predictors import Method, share_any, shared_clusters


@dataclass(frozen=True)
class LSH(Method):
    """Linked where a hash is shared in any of some rounds (Reformer, 2001.04451).

    A round's hash is the largest of [xR; -xR] for a random R [d buckets/2], x scaled to length 1.
    Differs from Reformer: queries and keys stay what they are, buckets are not cut into chunks.
    """

    buckets: int
    rounds: int = 4
    seed: int = 0
    family: ClassVar[str] = "LSH"
    setting = property(lambda self: f"{self.buckets} buckets, {self.rounds} rounds")

    def links(self, heads, known):
        draw = torch.Generator().manual_seed(self.seed)
        shape = (heads.q.shape[1], heads.q.shape[-1], self.rounds * (self.buckets // 2))
        rotation = torch.randn(shape, generator=draw).to(heads.q)

        def hashes(x):
            turned = (normalize(x, dim=-1) @ rotation).unflatten(-1, (self.rounds, -1))
            return torch.cat([turned, -turned], dim=-1).argmax(dim=-1)

        return share_any(hashes(heads.q), hashes(heads.k))


@dataclass(frozen=True)
class Routing(Method):
    """Linked where the nearest centroid is shared, unprojected (Routing Transformer, 2003.05997).

    Queries and keys are scaled to length 1; centroids come from k-means, not from training.
    """

    count: int
    family: ClassVar[str] = "routing"
    setting = property(lambda self: f"{self.count} centroids")

    def links(self, heads, known):
        q, k = normalize(heads.q, dim=-1), normalize(heads.k, dim=-1)
        return shared_clusters(q, k, known.routes[self.count])


@dataclass(frozen=True)
class Exact(Method):
    """The keys that have weight: the gold graph, which takes all scores to know."""

    family: ClassVar[str] = "exact graph"
    setting = property(lambda self: "")

    def links(self, heads, known):
        return lambda queries: heads.weights(queries) > 0


@dataclass(frozen=True)
class Bound(Method):
    """The keys that ‖q‖·‖k‖/√d - m·|i - j| does not exclude: what the blockwise backend reads.

    Nothing is learned, and nothing is lost. Blocks of the backend's size, or of one query and key.
    """

    queries: int = QUERIES
    keys: int = KEY_BLOCK

    @property
    def family(self) -> str:
        return "norm bound" if self.queries == self.keys == 1 else "norm bound, blocks"

    @property
    def setting(self) -> str:
        return f"{self.queries} × {self.keys}"

    def obstacle(self, heads):
        if heads.captured.layer.biased:
            return "the bound knows slopes, and this position encoding adds another bias"
        return None

    def links(self, heads, known):
        captured, n, m = heads.captured, heads.q.shape[2], heads.k.shape[2]
        normalizer, learned = captured.layer.attention.normalizer, captured.layer.normalizer_state
        slopes = captured.layer.slopes
        places = captured.positions if captured.memory is None else captured.memory_positions
        bias = Bias(
            captured.positions[-n:],
            places,
            heads.q.new_zeros(heads.q.shape[1]) if slopes is None else slopes,
            causal=captured.kind == "causal",
            key_mask=None if bool(heads.real_keys.all()) else heads.real_keys,
        )
        ends = visible_ends(bias, normalizer.sees_itself)

        def floor(score):
            return normalizer.support_edge(score[..., None], learned).squeeze(-1)

        def needed(queries):
            some = bias._replace(q_positions=bias.q_positions[queries])
            q, sizes = heads.q[:, :, queries], (self.queries, self.keys)
            return needed_blocks(q, heads.k, some, floor, ends[queries], *sizes)

        if self.queries == 1:
            return lambda queries: needed(queries).repeat_interleave(self.keys, -1)[..., :m]
        blocks = needed(torch.arange(n, device=heads.q.device))
        columns = torch.arange(m, device=heads.k.device) // self.keys
        return lambda queries: blocks[:, :, queries // self.queries][..., columns]
