"""The keys that can have weight for a query, known before any score is computed.

Query i and key j score at most ‖q_i‖·‖k_j‖·scale and the bias that slopes, a table, or a sum
u_i + w_j give to their distance. Where a normalizer has a floor, a score at which its weights are
exactly 0, a row has the score of one key that it sees, the nearest one, and therefore at least the
floor of that score alone: blocks of keys whose bound lies under it are never read, nor those beyond
a window. Everything stays on the device of its input.

Shapes: b batch, h heads, g key heads, q queries, k keys, d head dimension, i and j their blocks.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lcg.attention.mask import Bias

WHOLE = 2**62
"""A window of so many keys hides none."""
Floor = Callable[[Tensor], Tensor]
"""From one score of each row [b h q] to a score below which the row's weights are 0 [b h q]."""


def with_margin(floor: Tensor) -> Tensor:
    """A little below the floor: it was computed with rounding, from scores that have some too."""
    return floor - 1e-3 - 1e-5 * floor.abs()


def bounded_heads(bias: Bias, heads: int, edged: bool) -> Tensor:
    """True for the heads whose keys a bound may exclude, bool [h]; edged: low scores weigh 0."""
    found = torch.zeros(heads, dtype=torch.bool)
    if bias.hooked:
        return found
    if bias.window is not None:
        found |= bias.window.cpu() < WHOLE
    if edged and bias.slopes is not None:
        found |= bias.slopes.detach().cpu() > 0
    return found | (edged and (bias.table is not None or bias.rows is not None))


def visible_ends(bias: Bias, sees_itself: bool) -> Tensor:
    """The number of first keys [q] among which are all that a query sees."""
    if not bias.causal:
        return torch.full_like(bias.q_positions, len(bias.k_positions), dtype=torch.long)
    return torch.searchsorted(bias.k_positions, bias.q_positions, right=sees_itself)


def block_ends(ends: Tensor, size: int) -> Tensor:
    """The largest of the ends [q] in each block of queries [i]."""
    return _blocks(ends, size, 0).amax(dim=-1)


def needed_blocks(
    q: Tensor,
    k: Tensor,
    bias: Bias,
    floor: Floor,
    ends: Tensor,
    q_size: int,
    k_size: int,
) -> Tensor:
    """True where any query of block i may give weight to any key of block j, bool [b h i j].

    q [b h q d] and k [b g k d].
    """
    shared = q.shape[1] // k.shape[1]
    q, k = q.detach().float(), k.detach().float()
    score, seen, shift = _score_of_nearest(q, k, bias, ends)
    lowest = with_margin(floor(score).masked_fill(~seen, -torch.inf)) - shift
    scale = (1 + 1e-5) * bias.scale_for(q)
    q_norm = _blocks(q.norm(dim=-1), q_size, 0.0).amax(-1) * scale  # [b h i]
    k_norm = _blocks(k.norm(dim=-1), k_size, 0.0).amax(-1)  # [b g j]
    k_norm = k_norm.repeat_interleave(shared, dim=1)
    lowest = _blocks(lowest, q_size, torch.inf).amin(-1)
    product = bias.capped(q_norm[..., None] * k_norm[..., None, :])
    bound = product + _largest_bias(bias, q_size, k_size)
    starts = torch.arange(0, k.shape[2], k_size, device=k.device)
    below = bound < lowest[..., None]  # not of NaN, which shall be seen
    needed = ~below & (starts < block_ends(ends, q_size)[:, None])
    if bias.window is None:
        return needed
    nearest, _ = _distances(bias.q_positions, bias.k_positions, q_size, k_size, signed=False)
    return needed & (nearest < bias.window[:, None, None])


def _largest_bias(bias: Bias, q_size: int, k_size: int) -> Tensor | float:
    """The largest bias between block i and block j, [h i j] or [b h i j], without u_i."""
    (q_ids, k_ids), found = bias.ids(), 0.0
    if bias.slopes is not None:
        slopes = bias.slopes.detach().float()[:, None, None]
        nearest, farthest = _distances(q_ids, k_ids, q_size, k_size, signed=False)
        found = found - torch.minimum(slopes * nearest, slopes * farthest)
    if bias.table is not None:
        table, last = bias.table.detach().float(), bias.table.shape[1] - 1
        low, high = (d - bias.table_start for d in _distances(q_ids, k_ids, q_size, k_size))
        upward = table.flip(-1).cummax(dim=-1).values.flip(-1)  # the largest from here on
        downward = table.cummax(dim=-1).values
        low, high = low.clamp(0, last).long(), high.clamp(0, last).long()
        of_table = torch.minimum(_columns(upward, low), _columns(downward, high))
        found = found + of_table
    if bias.columns is not None:
        columns = _blocks(bias.columns.detach().double(), k_size, -torch.inf).amax(-1)
        found = found + columns[..., None, :]
    return found


def _columns(table: Tensor, at: Tensor) -> Tensor:
    """table [h n] at [i j] or [b 1 i j], [h i j] or [b h i j]."""
    found = table[:, at]
    return found if at.dim() == 2 else found.squeeze(2).transpose(0, 1)


def _distances(
    q_ids: Tensor, k_ids: Tensor, q_size: int, k_size: int, signed: bool = True
) -> tuple[Tensor, Tensor]:
    """The least and the largest q_id - k_id of each block of queries and of keys, [i j], or
    [b 1 i j]; unless signed the least and the largest |q_id - k_id|.
    """
    (q_low, q_high), (k_low, k_high) = _extent(q_ids, q_size), _extent(k_ids, k_size)
    low = q_low[..., :, None] - k_high[..., None, :]
    high = q_high[..., :, None] - k_low[..., None, :]
    if not signed:
        low, high = torch.maximum(low, -high).clamp(min=0), torch.maximum(-low, high)
    return (low, high) if q_ids.dim() == 1 else (low[:, None], high[:, None])


def key_window(needed: Tensor, k_size: int, ends: Tensor) -> tuple[Tensor, Tensor]:
    """First key and end of the keys [… i] that cover the needed blocks [… i j]; ends is [i]."""
    blocks_after = needed.flip(-1).int().argmax(dim=-1)
    first = needed.int().argmax(dim=-1) * k_size
    last = torch.minimum((needed.shape[-1] - blocks_after) * k_size, ends)
    return first, torch.where(needed.any(dim=-1), last, first)


def _score_of_nearest(
    q: Tensor, k: Tensor, bias: Bias, ends: Tensor
) -> tuple[Tensor, Tensor, Tensor | float]:
    """The score [b h q] of one key near to the query, whether that is visible, and u of the query.

    Under a causal mask that is the nearest one; without, there may be a nearer one to the right.
    """
    if bias.causal:
        near = ends - 1
    else:
        near = torch.searchsorted(bias.k_positions, bias.q_positions, right=True) - 1
    near = near.clamp(min=0).expand(len(k), -1)
    seen = torch.ones_like(near, dtype=torch.bool)
    if bias.key_mask is not None:
        order = torch.arange(k.shape[2], device=k.device)
        latest = torch.where(bias.key_mask, order, -1).cummax(dim=-1).values  # [b k]
        near = latest.gather(-1, near)
        seen = near >= 0
        near = near.clamp(min=0)
    order = bias.q_positions - bias.k_positions[near]  # [b q]
    if bias.causal:
        seen = seen & (order >= 0)
    seen = seen[:, None]
    if bias.window is not None:
        seen = seen & (order.abs()[:, None] < bias.window[:, None])
    index = near[:, None, :, None].expand(-1, k.shape[1], -1, k.shape[-1])
    nearest = k.gather(2, index).repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    score = bias.capped((q * nearest).sum(dim=-1) * bias.scale_for(q))
    q_ids, k_ids = bias.ids()
    distance = q_ids - k_ids.expand(len(k), -1).gather(-1, near)  # [b q]
    if bias.slopes is not None:
        score -= bias.slopes.detach().float()[:, None] * distance.abs()[:, None]
    if bias.table is not None:
        column = (distance - bias.table_start).clamp(0, bias.table.shape[1] - 1).long()
        score += bias.table.detach().float()[:, column].transpose(0, 1)
    shift = 0.0
    if bias.rows is not None:
        shift = bias.rows.detach().double()
        columns = bias.columns.detach().double()
        score = score + (shift + columns.gather(-1, near[:, None].expand_as(shift)))
    return score, seen, shift


def _blocks(x: Tensor, size: int, filler: float) -> Tensor:
    """The last dimension in blocks [… i size], the last of them filled up."""
    return torch.nn.functional.pad(x, (0, -x.shape[-1] % size), value=filler).unflatten(
        -1, (-1, size)
    )


def _extent(ids: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The lowest and the highest id of each block."""
    last = ids.shape[-1] - 1
    order = torch.arange(last + 1 + -(last + 1) % size, device=ids.device)
    padded = ids[..., order.clamp(max=last)].unflatten(-1, (-1, size))
    return padded.amin(dim=-1), padded.amax(dim=-1)
