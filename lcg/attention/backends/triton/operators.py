"""From `attend` to the kernels: what they are handed, and the operators around them.

The operators are opaque to torch.compile: it sees what they return, not how.

Shapes: q [b h q d], k and v [b g k d]; i and j count blocks of queries and keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from lcg.attention.backends.reach import block_ends, key_window, needed_blocks, visible_ends
from lcg.attention.backends.triton import backward, forward, rows
from lcg.attention.backends.triton.interpreter import INTERPRETED
from lcg.attention.backends.triton.rows import Constants, Inputs, Results
from lcg.attention.backends.triton.tiles import FUSED, Tile, tile_for
from lcg.attention.mask import Bias, Learned
from lcg.attention.normalizers.base import Normalizer
from lcg.attention.normalizers.softmax import UNDERFLOW

WINDOWED = 1024
"""Rows of at least so many keys are worth the search for a window when there is a bias."""
NEWTON = 10
"""Steps of a row's threshold before every second one halves its bracket."""

MODES = {
    "softmax": rows.SOFTMAX,
    "relu": rows.RELU,
    "entmax_15": rows.ENTMAX_15,
    "sparsemax": rows.SPARSEMAX,
    "entmax_low": rows.ENTMAX_LOW,
    "entmax_high": rows.ENTMAX_HIGH,
}
"""`Normalizer.kernel` -> what the kernels are specialised in."""
STREAMING = rows.SOFTMAX.value, rows.RELU.value
"""Modes without a threshold."""
FARTHEST = 2**31 - 1
"""The largest int32: a window of so many keys hides none."""
LEARNED = ("epsilon", "table", "rows", "columns")
"""The tensors, besides q, k and v, that have a gradient."""
CONSTANTS = ("mode", "causal", "scale", "table_start", "gradients")
"""The arguments of `_forward` after the tensors."""


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
    tensors = (
        *(q.to(common), k.to(common), v.to(common), epsilon),
        _positions(bias.q_positions),
        _positions(bias.k_positions),
        _read_as(bias.slopes, torch.float32),
        _read_as(bias.key_mask, torch.uint8),
        None if bias.q_ids is None else _positions(bias.q_ids.expand(len(q), -1)),
        None if bias.k_ids is None else _positions(bias.k_ids.expand(len(q), -1)),
        _read_as(bias.table, torch.float32),
        _read_as(bias.rows, torch.float64),
        _read_as(bias.columns, torch.float64),
        None if bias.window is None else _positions(bias.window.clamp(max=FARTHEST)),
    )
    gradients = torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in tensors
    )
    constants = (mode, bias.causal, bias.scale_for(q), bias.table_start)
    out, *_ = _forward(*tensors, *constants, gradients)
    return out.to(v.dtype)


def _positions(positions: Tensor) -> Tensor:
    """As the kernels read them, one after the other."""
    return _read_as(positions, positions.dtype if positions.is_floating_point() else torch.int32)


def _read_as(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype).contiguous()


class Given(NamedTuple):
    """The tensors that operators are given, the first fields of `Inputs`, with a bias of scores."""

    q: Tensor
    k: Tensor
    v: Tensor
    epsilon: Tensor
    q_positions: Tensor
    k_positions: Tensor
    slopes: Tensor | None
    key_mask: Tensor | None
    q_ids: Tensor | None
    k_ids: Tensor | None
    table: Tensor | None
    rows: Tensor | None
    columns: Tensor | None
    window: Tensor | None

    def tile(self) -> Tile:
        """The tile of scores."""
        return tile_for(self.q, self.k, self.table is not None or self.rows is not None)

    def bias(self, causal: bool, scale: float, table_start: int) -> Bias:
        """The bias that they were taken from."""
        named = {name: getattr(self, name) for name in Bias._fields if name in self._fields}
        named["key_mask"] = None if self.key_mask is None else self.key_mask.bool()
        return Bias(**named, causal=causal, scale=scale, table_start=table_start)


def _prepare(
    given: Given, mode: int, causal: bool, scale: float, table_start: int
) -> tuple[Inputs, Constants]:
    """Return the inputs of the kernels and their compile-time constants."""
    q, k, v, epsilon = given[:4]
    d, tile = q.shape[-1], given.tile()
    # tf32x3: float32 in three products on tensor cores, with an error as that of float32. The
    # interpreter's bfloat16 products are wrong.
    precision = "ieee" if INTERPRETED else "tf32x3" if q.dtype == torch.float32 else "mixed"
    constants = (mode, causal, precision, d, max(16, 1 << (d - 1).bit_length()), tile.BM, tile.BN)
    scaled = {name: getattr(given, name) for name in ("table", "rows", "columns")}
    scaled = {name: None if x is None else x / scale for name, x in scaled.items()}
    inputs = Inputs(
        *(x.contiguous() for x in (q, k, v, epsilon)),
        *given._replace(**scaled)[4:],
        queries=q.shape[2],
        keys=k.shape[2],
        heads=q.shape[1],
        shared=q.shape[1] // k.shape[1],
        q_blocks=-(-q.shape[2] // tile.BM),
        k_blocks=-(-k.shape[2] // tile.BN),
        scale=scale,
        table_start=table_start,
        distances=0 if given.table is None else given.table.shape[1],
    )
    return inputs, Constants(*map(tl.constexpr, constants))


def _index_type(blocks: int) -> torch.dtype:
    """The smallest integer that numbers so many blocks: there are many lists of them."""
    return torch.int16 if blocks <= torch.iinfo(torch.int16).max else torch.int32


def _reach(inputs: Inputs, bias: Bias, mode: int, tile: Tile) -> forward.Reach:
    """The keys that each block of queries may look at."""
    q, k, mask = inputs.q, inputs.k, inputs.key_mask
    leading = None if mask is None else mask.int().cumprod(dim=-1).sum(-1).int()
    depth = inputs.keys.bit_length()
    biased = any(form is not None for form in (bias.slopes, bias.table, bias.rows))
    if not (biased or bias.window is not None) or inputs.keys < WINDOWED:
        return forward.Reach(leading, None, None, depth)

    def floor(score: Tensor) -> Tensor:
        if mode == rows.SOFTMAX.value:
            return score - UNDERFLOW
        if mode == rows.RELU.value:
            return torch.zeros_like(score)
        return score - (1 / inputs.epsilon).float()[:, None]

    ends = visible_ends(bias, sees_itself=True)
    size = max(tile.BN, -(-inputs.keys // (1024 * tile.BN)) * tile.BN)
    needed = needed_blocks(q, k, bias, floor, ends, tile.BM, size)
    window = key_window(needed, size, block_ends(ends, tile.BM))
    first, last = (x.int().expand(*q.shape[:2], inputs.q_blocks).contiguous() for x in window)
    return forward.Reach(leading, first, last, depth)


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
    q_ids: Tensor | None,
    k_ids: Tensor | None,
    table: Tensor | None,
    rows: Tensor | None,
    columns: Tensor | None,
    window: Tensor | None,
    mode: int,
    causal: bool,
    scale: float,
    table_start: int,
    gradients: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`Results`; for a backward pass to follow if `gradients`."""
    results = _empty_results(q, k, mode, gradients)
    if not q.numel() or not k.shape[2]:
        return results._replace(out=results.out.zero_())
    places = q_positions, k_positions, slopes, key_mask, q_ids, k_ids
    given = Given(q, k, v, epsilon, *places, table, rows, columns, window)
    tile = given.tile()
    inputs, constants = _prepare(given, mode, causal, scale, table_start)
    b, h = q.shape[:2]
    grid = (b * h * inputs.q_blocks,)
    with torch.cuda.device_of(q):  # where triton launches
        if tile.one and mode not in STREAMING:
            options = tile.options(mode, solving=True)
            forward.tile_kernel[grid](inputs, results, constants, **options)
            return results
        options = tile.options(mode)
        reach = _reach(inputs, given.bias(causal, scale, table_start), mode, tile)
        if mode in STREAMING:
            forward.one_pass_kernel[grid](inputs, reach, results, constants, **options)
            return results
        blocks = b, h, inputs.q_blocks
        candidates = forward.Candidates(
            *torch.empty(2, *q.shape[:3], dtype=torch.float32, device=q.device),
            torch.empty(blocks, dtype=torch.int32, device=q.device),
            torch.empty(
                *blocks, inputs.k_blocks, dtype=_index_type(inputs.k_blocks), device=q.device
            ),
        )
        parts = tile.parts(b * h, inputs.q_blocks)
        forward.candidates_kernel[(b * h * -(-inputs.q_blocks // parts),)](
            *(inputs, reach, results, candidates, constants),
            PARTS=parts,
            **tile.options(mode, parts),
        )
        forward.entmax_kernel[grid](
            *(inputs, results, candidates, constants),
            GRADIENTS=gradients,
            NEWTON=NEWTON,
            **options,
        )
    return results


def _empty_results(q: Tensor, k: Tensor, mode: int, gradients: bool) -> Results:
    tile = tile_for(q, k)
    row, blocks = q.shape[:3], (-(-q.shape[2] // tile.BM), -(-k.shape[2] // tile.BN))
    streaming = mode in STREAMING
    kept = gradients and not tile.one
    tilted = kept and not streaming and mode != rows.ENTMAX_HIGH.value

    def make(like, *shape: int, used: bool = True, dtype: torch.dtype = torch.float32) -> Tensor:
        return like(shape if used else (0,), dtype=dtype, device=q.device)

    full = streaming or not tile.one
    return Results(
        out=make(torch.empty, *q.shape, dtype=q.dtype),
        anchor=make(torch.zeros, *row),
        level=make(torch.zeros, *row, dtype=torch.float64),
        tilted=make(torch.empty, *q.shape, used=tilted, dtype=q.dtype),
        mean_log=make(torch.empty, *row, used=kept and mode == rows.ENTMAX_LOW.value),
        full=make(torch.empty, *row[:2], blocks[0], used=full, dtype=torch.int32),
        active=make(torch.zeros, *row[:2], *blocks, used=streaming or kept, dtype=torch.uint8),
    )


@_forward.register_fake
def _(q, k, *others):
    mode, *_, gradients = others[len(Given._fields) - 2 :]
    return _empty_results(q, k, mode, gradients)


@torch.library.custom_op("lcg::attend_backward", mutates_args=())
def _backward(
    grad: Tensor,
    kept: Sequence[Tensor | None],
    mode: int,
    causal: bool,
    scale: float,
    table_start: int,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of q, k and v, and of those of `LEARNED` that are `wanted`, else empty; kept
    are the tensors that `_forward` was given, and those that it returned.
    """
    given, results = Given(*kept[: len(Given._fields)]), Results(*kept[len(Given._fields) :])
    q, k = given[:2]
    found = _empty_gradients(given, wanted)
    if not q.numel() or not k.numel():
        return tuple(x.zero_() for x in found)
    dq, dk, dv, d_epsilon, d_table, d_rows, d_columns = found
    inputs, constants = _prepare(given, mode, causal, scale, table_start)
    tile = given.tile()
    b, h = q.shape[:2]
    like, (learned, tabled, separable, _) = results.anchor, _made(wanted)
    gradients = backward.Gradients(
        *(grad.to(q.dtype).contiguous(), dq, dk, dv),
        torch.empty_like(like) if learned else None,
        *like.new_empty(3, 0 if tile.one else like.numel()),
        table_sums=torch.zeros_like(d_table, dtype=torch.float64) if tabled else None,
        rows=d_rows if separable else None,
        columns=d_columns if separable else None,
    )
    common = inputs, results, gradients
    options = tile.options(mode)
    with torch.cuda.device_of(q):  # where triton launches
        if tile.one:
            grid = (b * k.shape[1],)
            backward.tile_backward_kernel[grid](*common, constants, **options)
        else:
            active = results.active
            grid = (b * h * inputs.q_blocks,)
            backward.dq_kernel[grid](*common, _lists(active), constants, **options)
            grid = (b * k.shape[1] * inputs.k_blocks,)
            backward.dkv_kernel[grid](*common, _lists(active.mT), constants, **options)
    if learned:  # in float64: many rows add up
        d_epsilon = gradients.row_epsilon.sum(dim=(0, 2), dtype=torch.float64)
    if tabled:
        d_table = gradients.table_sums.to(d_table.dtype)
    return dq, dk, dv, d_epsilon, d_table, d_rows, d_columns


def _made(wanted: Sequence[bool]) -> tuple[bool, bool, bool, bool]:
    """Which gradients of `LEARNED` kernels make: those of rows and columns together."""
    epsilon, table, *separable = wanted
    return epsilon, table, any(separable), any(separable)


def _empty_gradients(given: Given, wanted: Sequence[bool]) -> tuple[Tensor, ...]:
    """Memory for what `_backward` returns."""
    none = given.q.new_empty(0)
    made = zip(LEARNED, _made(wanted), strict=True)
    like = [*given[:3], *(getattr(given, name) if is_made else none for name, is_made in made)]
    return tuple(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in like)


@_backward.register_fake
def _(grad, kept, *others):
    return _empty_gradients(Given(*kept[: len(Given._fields)]), others[-1])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    tensors, ctx.constants = inputs[: len(Given._fields)], inputs[len(Given._fields) : -1]
    ctx.set_materialize_grads(False)  # most outputs have none
    ctx.save_for_backward(*tensors, *output)


def _differentiate(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    gradients = dict.fromkeys([*Given._fields, *CONSTANTS])
    if grad is not None:
        needed = dict(zip(Given._fields, ctx.needs_input_grad, strict=False))
        wanted = [needed[name] for name in LEARNED]
        found = _backward(grad, ctx.saved_tensors, *ctx.constants, wanted)
        named = dict(zip(("q", "k", "v", *LEARNED), found, strict=True))
        gradients |= {name: x for name, x in named.items() if needed[name]}
    return tuple(gradients.values())


_forward.register_autograd(_differentiate, setup_context=_keep)


def _lists(active: Tensor) -> backward.Lists:
    """Count the active items of each row of [b h i j], int32 [b h i], and list them in order
    [b h i j].

    The first two dimensions must lie as in a contiguous tensor.
    """
    b, h, total, length = active.shape
    lists = backward.Lists(
        torch.empty(b, h, total, dtype=torch.int32, device=active.device),
        torch.empty(active.shape, dtype=_index_type(length), device=active.device),
    )
    backward.list_kernel[(b * h * -(-total // backward.LISTS.value),)](
        *(active, lists, total, length, *active.stride()[2:]), **FUSED
    )
    return lists
