"""From `attend` to the kernels: what they are handed, the operators around them, and their tiles.

The operators are opaque to torch.compile: it sees what they return, not how.

Shapes: q [b h q d], k and v [b g k d]; i and j count blocks of queries and keys.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lcg.attention.backends.reach import block_ends, key_window, needed_blocks, visible_ends
from lcg.attention.backends.triton import backward as backward_kernels
from lcg.attention.backends.triton import forward as forward_kernels
from lcg.attention.backends.triton import rows
from lcg.attention.backends.triton.interpreter import INTERPRETED
from lcg.attention.bias import Bias, Learned
from lcg.attention.normalizers.base import Normalizer

ONE_TILE = 256
"""Rows of at most so many keys are solved in registers; fewer where these are wide."""
WINDOWED = 1024
"""Rows of at least so many keys are worth the search for a window when there are slopes."""
BLOCKS: tuple[int, int] | None = None
"""Queries and keys of a tile of a longer row; None: by head_dim and type."""


class Tile(NamedTuple):
    """Queries and keys of a tile, and how a kernel over it is launched."""

    BM: int
    BN: int
    stages: int
    one: bool
    """A row of keys is one tile."""


def run(
    q: Tensor, k: Tensor, v: Tensor, normalizer: Normalizer, bias: Bias, learned: Learned
) -> Tensor:
    """Attention by the kernels, differentiable in q, k, v and what the normalizer learned."""
    common = torch.promote_types(torch.promote_types(q.dtype, k.dtype), v.dtype)
    if common == torch.float64:
        common = torch.float32
    mode, epsilon = _mode(normalizer, learned, q)
    out, *_ = _forward(
        q.to(common),
        k.to(common),
        v.to(common),
        epsilon,
        _positions(bias.q_positions),
        _positions(bias.k_positions),
        None if bias.slopes is None else bias.slopes.float(),
        bias.key_mask,
        mode,
        bias.causal,
    )
    return out.to(v.dtype)


def _mode(normalizer: Normalizer, learned: Learned, q: Tensor) -> tuple[int, Tensor]:
    """The kernels' name of a normalizer, and ε = α - 1 of each head in float64."""
    heads = q.shape[1]
    if normalizer.name == "entmax_learned":
        epsilon = normalizer.alpha_minus_one(learned).reshape(-1).double()
        return rows.ENTMAX_LOW.value, epsilon.to(q.device).expand(heads)
    alpha = getattr(normalizer, "alpha", 1.0)
    epsilon = torch.full((heads,), alpha - 1.0, dtype=torch.float64, device=q.device)
    if normalizer.name == "relu":
        return rows.RELU.value, epsilon
    special = {1.0: rows.SOFTMAX, 1.5: rows.ENTMAX_15, 2.0: rows.SPARSEMAX}
    general = rows.ENTMAX_LOW if alpha < 2 else rows.ENTMAX_HIGH
    return special.get(float(alpha), general).value, epsilon


def _positions(positions: Tensor) -> Tensor:
    return positions if positions.is_floating_point() else positions.to(torch.int32)


def tile_of(queries: int, keys: int, d: int, dtype: torch.dtype) -> Tile:
    """The tile for these sizes: small enough for its scores and operands to stay on the chip."""
    double = dtype == torch.float32
    narrow = d <= (32 if double else 64)
    longest = min(ONE_TILE, {(True, False): 256, (False, True): 64}.get((narrow, double), 128))
    stages = 2 if narrow else 1
    if keys <= longest:
        width = max(16, 1 << (keys - 1).bit_length())
        return Tile(_height(queries, 64 if width <= 64 and not double else 32), width, stages, True)
    height, width = BLOCKS or ((32, 32) if double else (64, 64))
    return Tile(_height(queries, height), width, stages if double else stages + 1, False)


def _height(queries: int, most: int) -> int:
    return min(most, max(16, 1 << (queries - 1).bit_length()))


def _constants(q: Tensor, k: Tensor, mode: int, causal: bool, masked: bool, sloped: bool) -> dict:
    """What kernels are specialised in, the tile's sizes included."""
    d = q.shape[-1]
    tile = tile_of(q.shape[2], k.shape[2], d, q.dtype)
    # tf32x3: float32 in three products on tensor cores, with an error as that of float32. The
    # interpreter's bfloat16 products are wrong.
    precision = "ieee" if INTERPRETED else "tf32x3" if q.dtype == torch.float32 else "mixed"
    return {
        "MODE": mode,
        "CAUSAL": causal,
        "MASKED": masked,
        "SLOPED": sloped,
        "PRECISION": precision,
        "D": d,
        "DP": max(16, 1 << (d - 1).bit_length()),
        "BM": tile.BM,
        "BN": tile.BN,
        "num_warps": 4,
        "num_stages": tile.stages,
    }


def _counts(q: Tensor, k: Tensor, tile: Tile) -> tuple[int, int]:
    """How many blocks of queries and of keys there are."""
    return -(-q.shape[2] // tile.BM), -(-k.shape[2] // tile.BN)


def _window(q, k, epsilon, bias: Bias, mode: int, tile: Tile) -> tuple[Tensor, Tensor]:
    """First key and end of the keys that each block of queries may look at, int32 [b h i]."""
    b, h = q.shape[:2]
    ends = visible_ends(bias, sees_itself=True)
    last = block_ends(ends, tile.BM)
    if bias.slopes is None or mode == rows.SOFTMAX.value or k.shape[2] < WINDOWED:
        first = torch.zeros_like(last)
    else:

        def floor(score: Tensor) -> Tensor:
            if mode == rows.RELU.value:
                return torch.zeros_like(score)
            return score - (1 / epsilon).float()[:, None]

        size = max(tile.BN, -(-k.shape[2] // (1024 * tile.BN)) * tile.BN)
        needed = needed_blocks(q, k, bias, floor, ends, tile.BM, size)
        first, last = key_window(needed, size, last)
    shape = (b, h, -(-q.shape[2] // tile.BM))
    return (
        first.int().expand(shape).contiguous(),
        last.int().expand(shape).contiguous(),
    )


@torch.library.custom_op("lcg::attend_forward", mutates_args=())
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    epsilon: Tensor,
    q_positions: Tensor,
    k_positions: Tensor,
    slopes: Tensor | None,
    key_mask: Tensor | None,
    mode: int,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """out [b h q d], the rows' anchor and level [b h q], and which blocks have weight [b h i j]."""
    out, anchor, level, active = _empty_results(q, k)
    if not out.numel():
        return out, anchor, level, active
    if not k.shape[2]:
        return out.zero_(), anchor, level, active
    q, k, v, epsilon = q.contiguous(), k.contiguous(), v.contiguous(), epsilon.contiguous()
    tile = tile_of(q.shape[2], k.shape[2], q.shape[3], q.dtype)
    q_blocks, k_blocks = _counts(q, k, tile)
    bias = Bias(q_positions, k_positions, slopes, causal=causal, key_mask=key_mask)
    first, last = _window(q, k, epsilon, bias, mode, tile)
    constants = _constants(q, k, mode, causal, key_mask is not None, slopes is not None)
    b, h = q.shape[:2]
    places = (q_positions, k_positions, _bytes(key_mask, q), slopes if slopes is not None else q)
    sizes = (q.shape[2], k.shape[2], h, h // k.shape[1], q_blocks, k_blocks)
    given = (q, k, v, *places, first, last, out, anchor, level, active)
    scale = 1 / math.sqrt(q.shape[-1])
    grid = (b * h * q_blocks,)
    with torch.cuda.device_of(q):  # where triton launches
        if mode in (rows.SOFTMAX.value, rows.RELU.value):
            forward_kernels.streaming_kernel[grid](*given, *sizes, scale, **constants)
        else:
            forward_kernels.entmax_kernel[grid](
                *given, epsilon, *sizes, scale, ONE_TILE=tile.one, **constants
            )
    return out, anchor, level, active


def _empty_results(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    q_blocks, k_blocks = _counts(q, k, tile_of(q.shape[2], k.shape[2], q.shape[3], q.dtype))
    row = q.shape[:3]
    return (
        torch.empty(q.shape, dtype=q.dtype, device=q.device),
        torch.zeros(row, dtype=torch.float32, device=q.device),
        torch.zeros(row, dtype=torch.float64, device=q.device),
        torch.zeros(*q.shape[:2], q_blocks, k_blocks, dtype=torch.uint8, device=q.device),
    )


@_forward.register_fake
def _(q, k, v, epsilon, q_positions, k_positions, slopes, key_mask, mode, causal):
    return _empty_results(q, k)


@torch.library.custom_op("lcg::attend_backward", mutates_args=())
def _backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    epsilon: Tensor,
    q_positions: Tensor,
    k_positions: Tensor,
    slopes: Tensor | None,
    key_mask: Tensor | None,
    out: Tensor,
    anchor: Tensor,
    level: Tensor,
    active: Tensor,
    mode: int,
    causal: bool,
    learned: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of q, k, v, and of ε [h], zeros unless `learned`."""
    q, k, v, epsilon = q.contiguous(), k.contiguous(), v.contiguous(), epsilon.contiguous()
    grad = grad.to(q.dtype).contiguous()
    dq, dk, dv, d_rows = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), level
    if not q.numel() or not k.numel():
        return dq.zero_(), dk.zero_(), dv.zero_(), torch.zeros_like(epsilon)
    tile = tile_of(q.shape[2], k.shape[2], q.shape[3], q.dtype)
    q_blocks, k_blocks = _counts(q, k, tile)
    b, h = q.shape[:2]
    d_rows = torch.zeros(q.shape[:3] if learned else (0,), dtype=torch.float32, device=q.device)
    delta = torch.empty(3, *q.shape[:3], dtype=torch.float32, device=q.device)
    listed = not tile.one
    constants = _constants(q, k, mode, causal, key_mask is not None, slopes is not None)
    constants["LISTED"] = listed
    places = (q_positions, k_positions, _bytes(key_mask, q), slopes if slopes is not None else q)
    sizes = (q.shape[2], k.shape[2], h, h // k.shape[1], q_blocks, k_blocks, anchor.numel())
    scale = 1 / math.sqrt(q.shape[-1])
    by_query = _lists(active) if listed else (active, active)
    by_key = _lists(active.mT) if listed else (active, active)
    stats = (anchor, level, epsilon)
    with torch.cuda.device_of(q):  # where triton launches
        backward_kernels.dq_kernel[(b * h * q_blocks,)](
            *(q, k, v, grad, out, *places, *stats, *by_query, dq, delta, d_rows),
            *(*sizes, scale),
            LEARNED=learned,
            **constants,
        )
        backward_kernels.dkv_kernel[(b * k.shape[1] * k_blocks,)](
            *(q, k, v, grad, *places, *stats, delta, *by_key, dk, dv),
            *(*sizes, scale),
            **constants,
        )
    # In float64: many rows add up.
    d_epsilon = d_rows.sum(dim=(0, 2), dtype=torch.float64) if learned else epsilon.new_zeros(h)
    return dq, dk, dv, d_epsilon


@_backward.register_fake
def _(grad, q, k, v, epsilon, *others):
    return (
        *(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v)),
        torch.empty(epsilon.shape, dtype=epsilon.dtype, device=epsilon.device),
    )


def _keep(ctx, inputs, output) -> None:
    *tensors, mode, causal = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mode, ctx.causal = mode, causal


def _differentiate(ctx, grad, *_):
    learned = ctx.needs_input_grad[3]
    dq, dk, dv, d_epsilon = _backward(grad, *ctx.saved_tensors, ctx.mode, ctx.causal, learned)
    rest = (None,) * 6
    return dq, dk, dv, d_epsilon if learned else None, *rest


_forward.register_autograd(_differentiate, setup_context=_keep)


def _lists(active: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row of [b h i j] how many are active, and which, these first; int32."""
    order = active.sort(dim=-1, descending=True, stable=True).indices.int()
    return active.sum(dim=-1, dtype=torch.int32).contiguous(), order.contiguous()


def _bytes(mask: Tensor | None, otherwise: Tensor) -> Tensor:
    """A mask as bytes, or any tensor where no kernel looks at it."""
    return otherwise if mask is None else mask.to(torch.uint8).contiguous()
