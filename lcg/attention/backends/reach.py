"""The keys that can have weight for a query, known before any score is computed.

Query i and key j score at most ‖q_i‖·‖k_j‖/√d - m·|i - j|. Where a normalizer has a floor, a score
at which its weights are exactly 0, a row has the score of one key that it sees, the nearest one,
and therefore at least the floor of that score alone: blocks of keys whose bound lies under it are
never read. Everything stays on the device of its input.

Shapes: b batch, h heads, g key heads, q queries, k keys, d head dimension, i and j their blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lcg.attention.mask import Bias

Floor = Callable[[Tensor], Tensor]
"""From one score of each row [b h q] to a score below which the row's weights are 0 [b h q]."""


def with_margin(floor: Tensor) -> Tensor:
    """A little below the floor: it was computed with rounding, from scores that have some too."""
    return floor - 1e-3 - 1e-5 * floor.abs()


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

    q [b h q d] and k [b g k d]; bias has slopes, and the bound holds for slopes of 0 and more.
    """
    shared = q.shape[1] // k.shape[1]
    q, k = q.float(), k.float()
    score, seen = _score_of_nearest(q, k, bias, ends)
    lowest = with_margin(floor(score).masked_fill(~seen, -torch.inf))
    scale = (1 + 1e-5) / math.sqrt(q.shape[-1])
    q_norm = _blocks(q.norm(dim=-1), q_size, 0.0).amax(-1) * scale  # [b h i]
    k_norm = _blocks(k.norm(dim=-1), k_size, 0.0).amax(-1)  # [b g j]
    k_norm = k_norm.repeat_interleave(shared, dim=1)
    lowest = _blocks(lowest, q_size, torch.inf).amin(-1)
    q_low, q_high = _extent(bias.q_positions, q_size)
    k_low, k_high = _extent(bias.k_positions, k_size)
    gap = torch.maximum(q_low[:, None] - k_high, k_low - q_high[:, None]).clamp(min=0)
    slopes = bias.slopes.float()[:, None, None]
    bound = q_norm[..., None] * k_norm[..., None, :] - slopes * gap
    starts = torch.arange(0, k.shape[2], k_size, device=k.device)
    below = bound < lowest[..., None]  # not of NaN, which shall be seen
    return ~below & (starts < block_ends(ends, q_size)[:, None])


def key_window(needed: Tensor, k_size: int, ends: Tensor) -> tuple[Tensor, Tensor]:
    """First key and end of the keys [… i] that cover the needed blocks [… i j]; ends is [i]."""
    blocks_after = needed.flip(-1).int().argmax(dim=-1)
    first = needed.int().argmax(dim=-1) * k_size
    last = torch.minimum((needed.shape[-1] - blocks_after) * k_size, ends)
    return first, torch.where(needed.any(dim=-1), last, first)


def _score_of_nearest(q: Tensor, k: Tensor, bias: Bias, ends: Tensor) -> tuple[Tensor, Tensor]:
    """The score [b h q] of one key near to the query, and whether that is visible.

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
    distance = (bias.q_positions - bias.k_positions[near]).abs()  # [b q]
    if bias.causal:
        seen = seen & (bias.k_positions[near] <= bias.q_positions)
    index = near[:, None, :, None].expand(-1, k.shape[1], -1, k.shape[-1])
    nearest = k.gather(2, index).repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    score = (q * nearest).sum(dim=-1) / math.sqrt(q.shape[-1])
    score -= bias.slopes.float()[:, None] * distance[:, None]
    return score, seen[:, None]


def _blocks(x: Tensor, size: int, filler: float) -> Tensor:
    """The last dimension in blocks [… i size], the last of them filled up."""
    return torch.nn.functional.pad(x, (0, -x.shape[-1] % size), value=filler).unflatten(
        -1, (-1, size)
    )


def _extent(positions: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The lowest and the highest position of each block."""
    last = len(positions) - 1
    order = torch.arange(last + 1 + -(last + 1) % size, device=positions.device)
    padded = positions[order.clamp(max=last)].unflatten(0, (-1, size))
    return padded.amin(dim=-1), padded.amax(dim=-1)
