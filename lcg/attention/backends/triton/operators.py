"""From `attend` to the kernels: what they are handed, and the operators around them.

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
from lcg.attention.backends.triton import candidates as candidate_kernels
from lcg.attention.backends.triton import forward as forward_kernels
from lcg.attention.backends.triton import one_pass, rows, short
from lcg.attention.backends.triton.interpreter import INTERPRETED
from lcg.attention.backends.triton.tiles import FUSED, Tile, tile_for
from lcg.attention.mask import Bias, Learned
from lcg.attention.normalizers.base import Normalizer

WINDOWED = 1024
"""Rows of at least so many keys are worth the search for a window when there are slopes."""
NEWTON = 10
"""Steps of a row's threshold before every second one halves its bracket."""
LISTS, CHUNK = 16, 128
"""Lists that one program makes, and items that it looks at together."""


MODES = {
    "softmax": rows.SOFTMAX,
    "relu": rows.RELU,
    "entmax_15": rows.ENTMAX_15,
    "sparsemax": rows.SPARSEMAX,
    "entmax_low": rows.ENTMAX_LOW,
    "entmax_high": rows.ENTMAX_HIGH,
}
"""`Normalizer.kernel` -> what the kernels are specialised in."""


class Results(NamedTuple):
    """The result of a forward pass: the output and, for its backward pass, statistics of rows."""

    out: Tensor
    """[b h q d]"""
    anchor: Tensor
    """With `level` the statistics of rows [b h q]."""
    level: Tensor
    tilted: Tensor
    """The mean of the values under u = p^(2-α) [b h q d]; as the next three, empty where unused."""
    mean_log: Tensor
    """Σ p log p [b h q]."""
    full: Tensor
    """The number of first keys that every query of a block sees, int32 [b h i]."""
    active: Tensor
    """1 where a block holds weight, uint8 [b h i j]."""


def run(
    q: Tensor, k: Tensor, v: Tensor, normalizer: Normalizer, bias: Bias, learned: Learned
) -> Tensor:
    """Attention by the kernels, differentiable in q, k, v and what the normalizer learned."""
    common = torch.promote_types(torch.promote_types(q.dtype, k.dtype), v.dtype)
    if common == torch.float64:
        common = torch.float32
    name, minus_one = normalizer.kernel(learned)
    mode, heads = MODES[name].value, q.shape[1]
    if isinstance(minus_one, Tensor):
        epsilon = minus_one.reshape(-1).double().to(q.device).expand(heads)
    else:
        epsilon = torch.full((heads,), minus_one, dtype=torch.float64, device=q.device)
    inputs = (q.to(common), k.to(common), v.to(common), epsilon)
    out, *_ = _forward(
        *inputs,
        _positions(bias.q_positions),
        _positions(bias.k_positions),
        None if bias.slopes is None else bias.slopes.float().contiguous(),
        bias.key_mask,
        mode,
        bias.causal,
        torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs),
    )
    return out.to(v.dtype)


def _positions(positions: Tensor) -> Tensor:
    """As the kernels read them, one after the other."""
    narrow = positions if positions.is_floating_point() else positions.to(torch.int32)
    return narrow.contiguous()


def _constants(q: Tensor, k: Tensor, mode: int, causal: bool, masked: bool, sloped: bool) -> dict:
    """The constants that kernels are specialised in, the tile's sizes included."""
    d = q.shape[-1]
    tile = tile_for(q, k)
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
        **tile.options(mode),
    }


def _counts(q: Tensor, k: Tensor, tile: Tile) -> tuple[int, int]:
    """The number of blocks of queries, and of keys."""
    return -(-q.shape[2] // tile.BM), -(-k.shape[2] // tile.BN)


def _index_type(blocks: int) -> torch.dtype:
    """The smallest integer that numbers so many blocks: there are many lists of them."""
    return torch.int16 if blocks <= torch.iinfo(torch.int16).max else torch.int32


def _window(q, k, epsilon, bias: Bias, mode: int, tile: Tile) -> tuple[Tensor, Tensor] | None:
    """First key and end of the keys that each block of queries may look at, int32 [b h i].

    None where slopes leave none out.
    """
    if bias.slopes is None or mode == rows.SOFTMAX.value or k.shape[2] < WINDOWED:
        return None

    def floor(score: Tensor) -> Tensor:
        if mode == rows.RELU.value:
            return torch.zeros_like(score)
        return score - (1 / epsilon).float()[:, None]

    ends = visible_ends(bias, sees_itself=True)
    last = block_ends(ends, tile.BM)
    size = max(tile.BN, -(-k.shape[2] // (1024 * tile.BN)) * tile.BN)
    needed = needed_blocks(q, k, bias, floor, ends, tile.BM, size)
    first, last = key_window(needed, size, last)
    shape = (*q.shape[:2], -(-q.shape[2] // tile.BM))
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
    gradients: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`Results`; for a backward pass to follow if `gradients`."""
    results = _empty_results(q, k, mode, gradients)
    if not q.numel() or not k.shape[2]:
        return results._replace(out=results.out.zero_())
    q, k, v, epsilon = q.contiguous(), k.contiguous(), v.contiguous(), epsilon.contiguous()
    tile = tile_for(q, k)
    q_blocks, k_blocks = _counts(q, k, tile)
    constants = _constants(q, k, mode, causal, key_mask is not None, slopes is not None)
    b, h = q.shape[:2]
    places = (q_positions, k_positions, _bytes(key_mask, q))
    slopes_or_any = q if slopes is None else slopes
    sizes = (q.shape[2], k.shape[2], h, h // k.shape[1], q_blocks)
    scale = 1 / math.sqrt(q.shape[-1])
    statistics = results.anchor, results.level
    streaming = mode in (rows.SOFTMAX.value, rows.RELU.value)
    with torch.cuda.device_of(q):  # where triton launches
        if tile.one and not streaming:
            short.tile_kernel[(b * h * q_blocks,)](
                *(q, k, v, *places, slopes_or_any, results.out, *statistics, epsilon),
                *(*sizes, scale),
                **(constants | tile.options(mode, solving=True)),
            )
            return results
        bias = Bias(q_positions, k_positions, slopes, causal=causal, key_mask=key_mask)
        window = _window(q, k, epsilon, bias, mode, tile)
        # The keys before the first masked one.
        leading = q if key_mask is None else key_mask.int().cumprod(dim=-1).sum(-1).int()
        reach = (*places, leading, slopes_or_any, *(window or (q, q)))
        depth = k.shape[2].bit_length()
        constants["WINDOWED"] = window is not None
        if streaming:
            one_pass.one_pass_kernel[(b * h * q_blocks,)](
                *(q, k, v, *reach, results.out, *statistics, results.full, results.active),
                *(*sizes, k_blocks, depth, scale),
                **constants,
            )
            return results
        count = torch.empty(b, h, q_blocks, dtype=torch.int32, device=q.device)
        candidates = torch.empty(
            *(b, h, q_blocks, k_blocks), dtype=_index_type(k_blocks), device=q.device
        )
        support, moved = torch.empty(2, *q.shape[:3], dtype=torch.float32, device=q.device)
        listed = (*statistics, support, moved, results.full, count, candidates)
        parts = tile.parts(b * h, q_blocks)
        candidate_kernels.candidates_kernel[(b * h * -(-q_blocks // parts),)](
            *(q, k, *reach, *listed, epsilon, *sizes, k_blocks, depth, scale),
            PARTS=parts,
            **(constants | tile.options(mode, parts)),
        )
        del constants["WINDOWED"]
        forward_kernels.entmax_kernel[(b * h * q_blocks,)](
            *(q, k, v, *places, slopes_or_any, results.out, results.tilted, results.mean_log),
            *(*listed, results.active, epsilon, *sizes, k_blocks, scale),
            GRADIENTS=gradients,
            NEWTON=NEWTON,
            **constants,
        )
    return results


def _empty_results(q: Tensor, k: Tensor, mode: int, gradients: bool) -> Results:
    tile = tile_for(q, k)
    blocks = _counts(q, k, tile)
    entmax = mode in (rows.ENTMAX_15.value, rows.SPARSEMAX.value, rows.ENTMAX_LOW.value)
    kept = gradients and not tile.one
    streaming = mode in (rows.SOFTMAX.value, rows.RELU.value)

    def make(like, *shape: int, used: bool = True, dtype: torch.dtype = torch.float32) -> Tensor:
        return like(shape if used else (0,), dtype=dtype, device=q.device)

    row = q.shape[:3]
    return Results(
        out=make(torch.empty, *q.shape, dtype=q.dtype),
        anchor=make(torch.zeros, *row),
        level=make(torch.zeros, *row, dtype=torch.float64),
        tilted=make(torch.empty, *q.shape, used=kept and entmax, dtype=q.dtype),
        mean_log=make(torch.empty, *row, used=kept and mode == rows.ENTMAX_LOW.value),
        full=make(
            torch.empty, *row[:2], blocks[0], used=streaming or not tile.one, dtype=torch.int32
        ),
        active=make(torch.zeros, *row[:2], *blocks, used=streaming or kept, dtype=torch.uint8),
    )


@_forward.register_fake
def _(q, k, v, epsilon, q_positions, k_positions, slopes, key_mask, mode, causal, gradients):
    return _empty_results(q, k, mode, gradients)


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
    tilted: Tensor,
    mean_log: Tensor,
    full: Tensor,
    active: Tensor,
    mode: int,
    causal: bool,
    learned: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of q, k, v, and of ε [h], zeros unless `learned`."""
    q, k, v, epsilon = q.contiguous(), k.contiguous(), v.contiguous(), epsilon.contiguous()
    grad = grad.to(q.dtype).contiguous()
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    if not q.numel() or not k.numel():
        return dq.zero_(), dk.zero_(), dv.zero_(), torch.zeros_like(epsilon)
    tile = tile_for(q, k)
    q_blocks, k_blocks = _counts(q, k, tile)
    b, h = q.shape[:2]
    d_rows = torch.empty(q.shape[:3] if learned else (0,), dtype=torch.float32, device=q.device)
    constants = _constants(q, k, mode, causal, key_mask is not None, slopes is not None)
    places = (q_positions, k_positions, _bytes(key_mask, q), q if slopes is None else slopes)
    sizes = (q.shape[2], k.shape[2], h, h // k.shape[1], q_blocks)
    scale = 1 / math.sqrt(q.shape[-1])
    with torch.cuda.device_of(q):  # where triton launches
        if tile.one:
            short.tile_backward_kernel[(b * k.shape[1],)](
                *(q, k, v, grad, *places, anchor, level, epsilon, dq, dk, dv, d_rows),
                *(*sizes, scale),
                LEARNED=learned,
                **constants,
            )
        else:
            delta = torch.empty(3, *q.shape[:3], dtype=torch.float32, device=q.device)
            statistics = (anchor, level, full, epsilon)
            means = (out, out if mode == rows.SOFTMAX.value else tilted, mean_log)
            more = (*sizes, k_blocks, anchor.numel(), scale)
            backward_kernels.dq_kernel[(b * h * q_blocks,)](
                *(q, k, v, grad, *means, *places, *statistics, *_lists(active)),
                *(dq, delta, d_rows, *more),
                LEARNED=learned,
                **constants,
            )
            backward_kernels.dkv_kernel[(b * k.shape[1] * k_blocks,)](
                *(q, k, v, grad, *places, *statistics, delta, *_lists(active.mT)),
                *(dk, dv, *more),
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
    *tensors, mode, causal, _ = inputs
    ctx.set_materialize_grads(False)  # most outputs have none
    ctx.save_for_backward(*tensors, *output)
    ctx.mode, ctx.causal = mode, causal


def _differentiate(ctx, grad, *_):
    if grad is None:
        return (None,) * 11
    learned = ctx.needs_input_grad[3]
    dq, dk, dv, d_epsilon = _backward(grad, *ctx.saved_tensors, ctx.mode, ctx.causal, learned)
    rest = (None,) * 7
    return dq, dk, dv, d_epsilon if learned else None, *rest


_forward.register_autograd(_differentiate, setup_context=_keep)


def _lists(active: Tensor) -> tuple[Tensor, Tensor]:
    """Count the active items of each row of [b h i j], int32 [b h i], and list them in order
    [b h i j].

    The first two dimensions must lie as in a contiguous tensor.
    """
    b, h, lists, length = active.shape
    count = torch.empty(b, h, lists, dtype=torch.int32, device=active.device)
    order = torch.empty(*(b, h, lists, length), dtype=_index_type(length), device=active.device)
    backward_kernels.list_kernel[(b * h * -(-lists // LISTS),)](
        *(active, count, order, lists, length, *active.stride()[2:]),
        LISTS=LISTS,
        CHUNK=CHUNK,
        **FUSED,
    )
    return count, order


def _bytes(mask: Tensor | None, otherwise: Tensor) -> Tensor:
    """A mask as bytes, or any tensor where no kernel looks at it."""
    return otherwise if mask is None else mask.to(torch.uint8).contiguous()
