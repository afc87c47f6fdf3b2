"""Graphs to compare predictors with: of places alone, of unprojected queries and keys, and exact.

In graphs of places queries and keys are counted in order, from 0; in cross-attention query i and
key i count as being at the same place. Hidden keys are taken out later, so under a causal mask a
window of w keys keeps the ⌈w/2⌉ that come no later than the query.

Shapes: b batch, h heads, n queries, m keys, q some queries, d head dimension.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lcg.attention.backends.blockwise import KEY_BLOCK, QUERIES
from lcg.attention.backends.reach import needed_blocks, visible_ends
from lcg.sparsefinder.graphs import LayerGraph, Links
from lcg.sparsefinder.predictors import Method, in_window, share_any, shared_clusters, with_globals
from lcg.sparsefinder.projections import Known


def _pattern(family: str, setting: str, linked: Callable[[Tensor, Tensor, int], Tensor]) -> Method:
    """linked: from places of queries [q 1] and keys [m], and the number of heads, to Bool [q m] or
    [h q m]."""

    def predict(heads: LayerGraph, known: Known) -> Links:
        keys = torch.arange(heads.k.shape[2], device=heads.k.device)
        return lambda queries: linked(queries[:, None], keys, heads.k.shape[1])[None]

    return Method(family, setting, predict)


def window(size: int) -> Method:
    """The keys nearby."""
    return _pattern("window", f"of {size}", lambda i, j, heads: in_window(i, j, size))


def random(share: float, seed: int = 0) -> Method:
    """Each key with the same probability, drawn anew for every head and place."""
    return _pattern(
        "random", f"{share:g} of keys", lambda i, j, heads: hashed(i, j, heads, seed) < share
    )


def hashed(queries: Tensor, keys: Tensor, heads: int, seed: int) -> Tensor:
    """Numbers in [0, 1) [h q m] that depend on head, places [q 1] and [m], and seed alone."""
    head = torch.arange(heads, device=queries.device)[:, None, None]
    mixed = (head * 0x9E3779B1 + queries * 0x85EBCA77 + keys * 0xC2B2AE3D) + seed * 0x27D4
    for multiplier in (0x7FEB352D, 0x846CA68B):  # a 32-bit integer hash in 64-bit arithmetic
        mixed = (mixed ^ (mixed >> 16)) & 0xFFFFFFFF
        mixed = (mixed * multiplier) & 0xFFFFFFFF
    return ((mixed ^ (mixed >> 16)) & 0xFFFFFFFF).double() / 2**32


def longformer(count: int, size: int) -> Method:
    """A window and global tokens, the first ones (2004.05150)."""
    return _pattern(
        "Longformer",
        f"{count} globals, window {size}",
        lambda i, j, heads: in_window(i, j, size) | with_globals(i, j, count),
    )


def big_bird(blocks: int, size: int = 4, seed: int = 0) -> Method:
    """Blocks: the neighbouring ones, the first, and `blocks` random ones per head (2007.14062).

    A random block is one of the smallest hashes of its row of blocks; in expectation, as the
    number of key blocks is not the same for all queries of a causal model.
    """

    def linked(queries: Tensor, keys: Tensor, heads: int) -> Tensor:
        row, column = queries // size, keys // size
        share = blocks / max(1, int(column[-1]) + 1)
        near = (row - column).abs() <= 1
        return (hashed(row, column, heads, seed) < share) | near | with_globals(queries, keys, size)

    return _pattern("BigBird", f"{blocks} random blocks of {size}", linked)


def strided(stride: int) -> Method:
    """The last `stride` keys, and every stride-th key (Sparse Transformer, 1904.10509)."""
    return _pattern(
        "strided",
        f"stride {stride}",
        lambda i, j, heads: ((i - j).abs() < stride) | (j % stride == stride - 1),
    )


def lsh(buckets: int, rounds: int = 4, seed: int = 0) -> Method:
    """Linked where a hash is shared in any of some rounds (Reformer, 2001.04451).

    A round's hash is the largest of [xR; -xR] for a random R [d buckets/2], x scaled to length 1.
    Differs from Reformer: queries and keys stay what they are, buckets are not cut into chunks.
    """

    def predict(heads: LayerGraph, known: Known) -> Links:
        draw = torch.Generator().manual_seed(seed)
        shape = (heads.q.shape[1], heads.q.shape[-1], rounds * (buckets // 2))
        rotation = torch.randn(shape, generator=draw).to(heads.q)

        def hashes(x: Tensor) -> Tensor:
            turned = (normalize(x, dim=-1) @ rotation).unflatten(-1, (rounds, -1))
            return torch.cat([turned, -turned], dim=-1).argmax(dim=-1)

        return share_any(hashes(heads.q), hashes(heads.k))

    return Method("LSH", f"{buckets} buckets, {rounds} rounds", predict)


def routing(count: int) -> Method:
    """Linked where the nearest centroid is shared, unprojected (Routing Transformer, 2003.05997).

    Queries and keys are scaled to length 1; centroids come from k-means, not from training.
    """

    def predict(heads: LayerGraph, known: Known) -> Links:
        q, k = normalize(heads.q, dim=-1), normalize(heads.k, dim=-1)
        return shared_clusters(q, k, known.routes[count])

    return Method("routing", f"{count} centroids", predict)


def exact() -> Method:
    """The keys that have weight: the gold graph, which takes all scores to know."""
    return Method("exact graph", "", lambda heads, known: lambda q: heads.captured.weights(q) > 0)


def bound(queries: int = QUERIES, keys: int = KEY_BLOCK) -> Method:
    """The keys that ‖q‖·‖k‖/√d - m·|i - j| does not exclude: what the blockwise backend reads.

    Nothing is learned, and nothing is lost. Blocks of the backend's size, or of one query and key.
    """

    def predict(heads: LayerGraph, known: Known) -> Links:
        captured, n, m = heads.captured, heads.q.shape[2], heads.k.shape[2]
        layer = captured.layer
        normalizer = layer.normalizer
        *_, bias = layer.project(captured.x, captured.ids, **captured.keywords)
        if bias.hooked:
            raise NotImplementedError(
                "this position encoding computes a part of the scores, which no bound knows"
            )
        mask = None if bool(heads.real_keys.all()) else heads.real_keys
        bias = bias._replace(key_mask=mask)
        ends = visible_ends(bias, normalizer.sees_itself)

        def floor(score: Tensor) -> Tensor:
            return normalizer.support_edge(score[..., None], layer.normalizer_state).squeeze(-1)

        def needed(some: Tensor) -> Tensor:
            own = bias.crop(queries=some)
            return needed_blocks(
                heads.q[:, :, some], heads.k, own, floor, ends[some], queries, keys
            )

        if queries == 1:
            return lambda some: needed(some).repeat_interleave(keys, -1)[..., :m]
        blocks = needed(torch.arange(n, device=heads.q.device))
        columns = torch.arange(m, device=heads.k.device) // keys
        return lambda some: blocks[:, :, some // queries][..., columns]

    family = "norm bound" if queries == keys == 1 else "norm bound, blocks"
    return Method(family, f"{queries} × {keys}", predict)
