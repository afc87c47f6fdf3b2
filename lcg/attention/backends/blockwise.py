"""Exact attention with memory linear in the length, in plain torch, forward and backward.

Rows of scores are independent, so some queries are treated at a time, and only the scores of these
exist; with gradients they are computed again in the backward pass. What makes it fast is where a
normalizer has an edge, a score below which weights are exactly 0 (α-entmax, ReLU, top-k):

- Keys out of reach of a query (`reach`) are never read.
- Candidates. The largest scores of short segments of a row are scores of that row, so their edge
  bounds that of the row, and closely. The row is solved on the segments above it.

Plain softmax has an edge where weights underflow, so that slopes keep keys out of reach; of its
tiles torch's fused kernel makes the output at once.

Shapes: b batch, h heads, g key heads, q queries, k keys, d head dimension.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lcg.attention.backends import reference
from lcg.attention.backends.reach import (
    block_ends,
    bounded_heads,
    key_window,
    needed_blocks,
    visible_ends,
    with_margin,
)
from lcg.attention.hooks import normalized
from lcg.attention.mask import Bias, Learned
from lcg.attention.normalizers.base import Normalizer

TILE = 2**22
"""Scores treated at a time: enough that calling torch costs little, few enough for a cache."""
SMALL = 2**20
"""So few scores are the reference backend's work."""
KEPT = 2**26
"""With gradients, so many scores are rather kept than computed twice."""
QUERIES, LEAST_QUERIES = 128, 16
"""Most queries of a tile, so that windows are narrow and little lies above the diagonal; and
fewest, so that keys are not read too often."""
KEY_BLOCK = 64
"""Keys that share a bound; of longer rows more, so that there are at most 1024 blocks."""
SEGMENT = 16
"""Keys of which only the largest score is looked at first."""
PROBED = 8
"""One query in so many says whether the candidates of all are worth counting."""
LONG = 512
"""Rows with fewer keys are not worth a search for candidates."""


class Tile(NamedTuple):
    """Some heads and queries, and the keys that may have weight for them."""

    heads: slice
    queries: slice
    keys: slice
    sloped: bool
    """Any of the heads has a slope other than 0."""


class Problem(NamedTuple):
    """The arguments of `attend` that do not change from tile to tile, besides q, k and v."""

    normalizer: Normalizer
    bias: Bias
    learned: Learned


def attend(q, k, v, normalizer: Normalizer, bias: Bias, learned: Learned) -> Tensor:
    """Tile by tile; what is small is the reference backend's work."""
    if q.shape[:3].numel() * k.shape[2] <= (KEPT if torch.is_grad_enabled() else SMALL):
        return reference.attend(q, k, v, normalizer, bias, learned)
    return in_tiles(q, k, v, normalizer, bias, learned)


def most_scores(queries: int) -> int:
    """The most scores of one tile, or of what is left to the reference backend."""
    tile = min(TILE, queries * QUERIES)
    return max(tile, queries * LEAST_QUERIES, SMALL)


def in_tiles(q, k, v, normalizer: Normalizer, bias: Bias, learned: Learned) -> Tensor:
    """Tile by tile, however small."""
    tensors = [*learned.values(), *bias.tensors().values()]
    return _Blockwise.apply(q, k, v, Problem(normalizer, bias, learned), *tensors)


class _Blockwise(torch.autograd.Function):
    """Keeps its inputs and no scores; the backward pass differentiates one tile after the other."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, problem: Problem, *tensors: Tensor):
        plan = list(tiles(q, k, problem))
        out = v.new_empty(*q.shape[:3], v.shape[-1])
        k_once, v_once = k.contiguous(), v.contiguous()  # and not in every tile
        # The same memory for the scores of every tile: it is still in the cache.
        buffer = q.new_empty(max(_scores_of(q, tile) for tile in plan), dtype=torch.float32)
        for tile in plan:
            operands = *_crop(q, k_once, v_once, tile), _crop_problem(problem, tile)
            out[:, tile.heads, tile.queries] = _attend_tile(*operands, buffer)
        ctx.save_for_backward(q, k, v, *tensors)
        ctx.problem, ctx.plan = problem, plan
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor):
        q, k, v, *tensors = (tensor.detach() for tensor in ctx.saved_tensors)
        tensors = [tensor.requires_grad_() for tensor in tensors]
        problem = _with_tensors(ctx.problem, tensors)
        # In float32: many tiles add up.
        sums = [torch.zeros_like(tensor, dtype=torch.float32) for tensor in (q, k, v, *tensors)]
        for tile in ctx.plan:
            parts = [part.detach().requires_grad_() for part in _crop(q, k, v, tile)]
            with torch.enable_grad():
                out = _attend_tile(*parts, _crop_problem(problem, tile))
            cotangent = grad[:, tile.heads, tile.queries]
            with torch.autocast(q.device.type, enabled=False):
                found = torch.autograd.grad(out, [*parts, *tensors], cotangent, allow_unused=True)
            affected = [*_crop(*sums[:3], tile), *sums[3:]]
            for total, part in zip(affected, found, strict=True):
                if part is not None:
                    total += part
        gradients = [
            total.to(tensor.dtype) for total, tensor in zip(sums, (q, k, v, *tensors), strict=True)
        ]
        return *gradients[:3], None, *gradients[3:]


def _with_tensors(problem: Problem, tensors: list[Tensor]) -> Problem:
    """The problem with other learned tensors, in the order in which `attend` lists them."""
    names, places = list(problem.learned), list(problem.bias.tensors())
    learned, others = tensors[: len(names)], tensors[len(names) :]
    bias = problem.bias.with_tensors(dict(zip(places, others, strict=True)))
    return Problem(problem.normalizer, bias, dict(zip(names, learned, strict=True)))


def _crop(q: Tensor, k: Tensor, v: Tensor, tile: Tile) -> tuple[Tensor, Tensor, Tensor]:
    shared = q.shape[1] // k.shape[1]
    key_heads = slice(tile.heads.start // shared, tile.heads.stop // shared)
    return q[:, tile.heads, tile.queries], k[:, key_heads, tile.keys], v[:, key_heads, tile.keys]


def _crop_problem(problem: Problem, tile: Tile) -> Problem:
    bias = problem.bias.crop(tile.queries, tile.keys, tile.heads)
    if not tile.sloped:
        bias = bias._replace(slopes=None)
    learned = {name: tensor[tile.heads] for name, tensor in problem.learned.items()}
    return Problem(problem.normalizer, bias, learned)


def _scores_of(q: Tensor, tile: Tile) -> int:
    """The number of scores of a tile."""
    return len(q) * math.prod(part.stop - part.start for part in tile[:3])


def _attend_tile(
    q: Tensor, k: Tensor, v: Tensor, problem: Problem, buffer: Tensor | None = None
) -> Tensor:
    """Differentiable: what is searched for are keys without weight, which have no gradient.

    buffer: memory for the scores, where no gradient is asked for.
    """
    normalizer, bias, learned = problem
    fused = normalizer.is_softmax and bias.score_map is None and bias.softcap is None
    if fused and q.device.type == "cpu" and q.dtype == torch.float32:
        return _softmax_tile(q, k, v, bias)
    scores, blind = reference.biased_scores(q, k, normalizer, bias, buffer)
    keys = edge = None
    with torch.no_grad():
        if normalizer.sparse and scores.shape[-1] >= LONG:
            edge, keys = candidates(scores.detach(), normalizer, learned)
    if keys is not None:
        weights = normalized(normalizer, scores.gather(-1, keys), keys, learned)
    elif normalizer.solves_from_edge:
        weights = normalizer.from_edge(scores, edge)
    else:
        everything = torch.arange(scores.shape[-1], device=scores.device)
        weights = normalized(normalizer, scores, everything, learned)
    if blind is not None:
        weights = weights.masked_fill(blind, 0.0)
    if keys is not None:
        return _matmul_of_some(weights, keys, v.float()).to(v.dtype)
    return reference.grouped_matmul(weights.to(v.dtype), v)


def _softmax_tile(q: Tensor, k: Tensor, v: Tensor, bias: Bias) -> Tensor:
    """torch's fused softmax attention, with everything that is added to the scores as its mask."""
    per_sequence = (bias.key_mask, bias.additive, bias.rows, bias.q_ids)
    alike = all(part is None for part in per_sequence)  # for all sequences of the batch
    per_head = (bias.slopes, bias.table, bias.window)
    heads = 1 if alike and all(part is None for part in per_head) else q.shape[1]
    mask = q.new_zeros(1 if alike else len(q), heads, q.shape[2], k.shape[2])
    mask, blind = bias.scores(mask, q, k)
    with torch.autocast(q.device.type, enabled=False):
        out = torch.nn.functional.scaled_dot_product_attention(
            q, k, v.float(), mask, scale=bias.scale_for(q), enable_gqa=q.shape[1] != k.shape[1]
        ).to(v.dtype)
    return out if blind is None else out.masked_fill(blind, 0.0)


def candidates(
    scores: Tensor, normalizer: Normalizer, learned: Learned
) -> tuple[Tensor, Tensor | None]:
    """An edge of the support of every row, and the keys [b h q c] above it, in order.

    No keys where these are too many to be worth the search. A segment takes one key from each of
    SEGMENT stretches of the row, which is what is fast to reduce in memory.
    """
    count = scores.shape[-1]
    width = count // SEGMENT
    tops = scores[..., : width * SEGMENT].unflatten(-1, (SEGMENT, width)).amax(dim=-2)
    edge = with_margin(normalizer.support_edge(tops, learned)).to(scores.dtype)
    limit = count // (16 * SEGMENT) if normalizer.solves_from_edge else count // (2 * SEGMENT)
    some = slice(None, None, PROBED)
    if _most(tops[..., some, :], edge[..., some, :]) > limit:
        return edge, None
    if (most := _most(tops, edge)) > limit:
        return edge, None
    chosen = _largest(tops, most)
    stretches = torch.arange(0, width * SEGMENT, width, device=scores.device)
    keys = (stretches[:, None] + chosen[..., None, :]).flatten(-2)
    rest = torch.arange(width * SEGMENT, count, device=scores.device)
    keys = torch.cat([keys, rest.expand(*keys.shape[:-1], -1)], dim=-1)
    inside = scores.gather(-1, keys)
    most = _most(inside, edge)
    if most < keys.shape[-1]:
        keys = keys.gather(-1, _largest(inside, most))
    return edge, keys.sort(dim=-1).values


def _most(scores: Tensor, edge: Tensor) -> int:
    """The most scores at or above the edge that any row has, at least 1."""
    return max(1, int((scores >= edge).sum(dim=-1).max()))


def _largest(scores: Tensor, count: int) -> Tensor:
    return scores.topk(count, dim=-1, sorted=False).indices


def _matmul_of_some(weights: Tensor, keys: Tensor, v: Tensor) -> Tensor:
    """Weights [b h q c] of keys [b h q c], applied to the values [b g k e] of these alone."""
    b, h, queries, chosen = keys.shape
    g, count = v.shape[1:3]
    which = torch.arange(b * g, device=keys.device).view(b, g).repeat_interleave(h // g, dim=1)
    rows = (keys + (which * count)[..., None, None]).view(-1, chosen)
    out = torch.nn.functional.embedding_bag(
        rows, v.reshape(-1, v.shape[-1]), mode="sum", per_sample_weights=weights.reshape(-1, chosen)
    )
    return out.view(b, h, queries, v.shape[-1])


def tiles(q: Tensor, k: Tensor, problem: Problem) -> Iterator[Tile]:
    """Tiles that cover all heads and queries: heads in groups, and of each group the queries."""
    bias, normalizer = problem.bias, problem.normalizer
    shared = q.shape[1] // k.shape[1]
    edged = normalizer.sparse or normalizer.is_softmax
    reaching = bounded_heads(bias, q.shape[1], edged) & (k.shape[2] >= LONG)
    windowed = [bool(unit.all()) for unit in reaching.split(shared)]
    ends = visible_ends(bias, normalizer.sees_itself).cpu()
    start = 0
    for has_window, units in itertools.groupby(windowed):
        heads = slice(start, start + shared * len(list(units)))
        make = _windowed if has_window else _whole_rows
        yield from make(q, k, problem, heads, ends)
        start = heads.stop


def _whole_rows(q, k, problem: Problem, heads: slice, ends: Tensor) -> Iterator[Tile]:
    """Tiles of all keys that a query sees."""
    b, h, queries, _ = q.shape
    shared = h // k.shape[1]
    together = shared * max(1, TILE // (b * shared * QUERIES * k.shape[2]))
    if problem.bias.hooked:  # functions compute all heads at once
        together = h
    for start in range(heads.start, heads.stop, together):
        some_heads = slice(start, min(heads.stop, start + together))
        slopes = problem.bias.slopes
        sloped = slopes is not None and (slopes.requires_grad or bool(slopes[some_heads].any()))
        first = 0
        while first < queries:
            seen = int(ends[first : first + LEAST_QUERIES].max())
            fitting = TILE // (b * (some_heads.stop - start) * max(1, seen))
            count = min(QUERIES, max(LEAST_QUERIES, fitting))
            some = slice(first, min(queries, first + count))
            yield Tile(some_heads, some, slice(0, max(1, int(ends[some].max()))), sloped)
            first = some.stop


def _windowed(q, k, problem: Problem, heads: slice, ends: Tensor) -> Iterator[Tile]:
    """Tiles of the keys that the bound cannot exclude; heads with windows alike go together."""
    b, h, queries, _ = q.shape
    shared = h // k.shape[1]
    whole = Tile(heads, slice(0, queries), slice(0, k.shape[2]), True)
    q, k, _ = _crop(q, k, k, whole)
    first, last = key_range(q, k, _crop_problem(problem, whole), ends)
    widths = (last - first).double().mean(dim=-1).tolist()
    for units in _alike(widths, TILE // (b * shared * QUERIES)):
        some = slice(heads.start + shared * units.start, heads.start + shared * units.stop)
        lows, highs = first[units].amin(dim=0).tolist(), last[units].amax(dim=0).tolist()
        for i, (low, high) in enumerate(zip(lows, highs, strict=True)):
            keys = slice(low, max(high, low + 1))
            size = max(LEAST_QUERIES, TILE // (b * (some.stop - some.start) * (keys.stop - low)))
            end = min(queries, (i + 1) * QUERIES)
            for start in range(i * QUERIES, end, size):
                yield Tile(some, slice(start, min(end, start + size)), keys, True)


def _alike(widths: list[float], most: float) -> Iterator[slice]:
    """Runs of units whose windows differ by no more than a factor of 2 and fit together."""
    start = 0
    for stop in range(1, len(widths) + 1):
        run = widths[start : stop + 1]
        if stop == len(widths) or max(run) > 2 * min(run) or len(run) * max(run) > most:
            yield slice(start, stop)
            start = stop


def key_range(q: Tensor, k: Tensor, problem: Problem, ends: Tensor) -> tuple[Tensor, Tensor]:
    """The first and the end of the keys [g i] that may have weight, for each block of QUERIES."""
    normalizer, bias, learned = problem
    size = max(KEY_BLOCK, -(-k.shape[2] // 1024))
    ends = ends.to(k.device)

    def floor(score: Tensor) -> Tensor:
        return normalizer.support_edge(score[..., None], learned).squeeze(-1)

    needed = needed_blocks(q, k, bias, floor, ends, QUERIES, size)
    needed = needed.unflatten(1, (k.shape[1], -1)).any(dim=2).any(dim=0)
    first, last = key_window(needed, size, block_ends(ends, QUERIES))
    return first.cpu(), last.cpu()
