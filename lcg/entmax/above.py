"""alpha-entmax, alpha 1.5 or 2, of long rows in float32 whose support lies above a known score.

An attention backend finds such a score cheaply. From there Newton on the norm of
r = epsilon (z - edge)_+, epsilon = alpha - 1, climbs to the edge of the support in three or four
sweeps over a row instead of the dozen of ``entmax``. Each sweep lowers r in place: what falls to 0
has no weight, and what is left are small numbers, exact to the last bit. The weights are
r^(1/epsilon), normalised if need be; they are not solved for in closed form on the support. They
agree to 1e-6; a weight at the very edge may be 1e-14 instead of 0.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lcg.entmax import gradient
from lcg.entmax.function import entmax
from lcg.entmax.solver import LARGE, add_relu

CHUNK = 2**18
"""Scores per thread that are swept together: they fit the second-level cache."""
SWEEPS = 24
_NEAR = 5e-8  # r this near to what it should be
_EXACT = 1e-6  # weights this near to what they should be


def entmax_above(scores: Tensor, edge: Tensor | None, alpha: float) -> Tensor:
    """``entmax(scores, alpha)`` for alpha 1.5 or 2, written over scores; differentiable in them.

    scores [... k] float32, edge [... 1] at or below the edge of each row's support, -inf or None
    when nothing is known of it. A row of -inf gets zeros.
    """
    return _Above.apply(scores, edge, float(alpha) - 1)


def edge_below(scores: Tensor, alpha: float) -> Tensor:
    """A score [... 1] a little below the edge of each row's support, for alpha 1.5 or 2.

    Not lower than the maximum - 1/(alpha-1), not higher than the edge. -inf for a row of -inf.
    """
    epsilon = float(alpha) - 1
    edge, dead = _floor(scores, epsilon)
    r = _heights(scores, edge, epsilon)
    total_move = torch.zeros_like(edge)
    for _ in range(2):  # the first steps are long; where the third ends is near enough
        move, _ = _move(r, epsilon)
        total_move += move
        add_relu(r, move, out=r, alpha=-1)
    total_move += _move(r, epsilon)[0]
    edge += total_move.div_(epsilon)
    return edge.masked_fill_(dead, -torch.inf)


class _Above(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, edge: Tensor | None, epsilon: float) -> Tensor:
        rows = scores.view(-1, scores.shape[-1])
        if edge is not None:
            edge = edge.reshape(-1, 1).to(rows.dtype)
            unknown = edge == -torch.inf
            if bool(unknown.any()):
                edge = torch.where(unknown, _floor(rows, epsilon)[0], edge)
        size = max(1, CHUNK * torch.get_num_threads() // rows.shape[-1])
        for start in range(0, len(rows), size):
            z = rows[start : start + size]
            low = _floor(z, epsilon)[0] if edge is None else edge[start : start + size]
            _solve(_heights(z, low, epsilon, out=z), epsilon)
        ctx.mark_dirty(scores)
        ctx.save_for_backward(scores)
        ctx.epsilon = epsilon
        return scores

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (weights,) = ctx.saved_tensors
        epsilon = grad.new_tensor([[ctx.epsilon]], dtype=torch.float64)
        spare, out = torch.empty_like(weights), torch.empty_like(weights)
        gradient.scores_gradient_low(weights, grad, ctx.epsilon, spare, epsilon, out)
        return out, None, None


def _floor(z: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The maximum - 1/epsilon, below which no edge lies, and the rows of -inf, where it is 0."""
    top = z.amax(dim=-1, keepdim=True)
    dead = top == -torch.inf
    return (top - 1 / epsilon).masked_fill_(dead, 0.0), dead


def _heights(z: Tensor, edge: Tensor, epsilon: float, out: Tensor | None = None) -> Tensor:
    """epsilon (z - edge)_+ [... k]; for large scores, among which there may be no such edge, above
    the lowest edge that their maximum allows.
    """
    large = edge.abs() >= LARGE[z.dtype]
    if not bool(large.any()):
        return torch.add(edge * -epsilon, z, alpha=epsilon, out=out).clamp_(min=0)
    base = torch.where(large, z.amax(dim=-1, keepdim=True), edge)
    return torch.add(base * -epsilon, z, alpha=epsilon, out=out).add_(large).clamp_(min=0)


def _solve(r: Tensor, epsilon: float) -> None:
    """Writes the weights over r = epsilon (z - edge)_+ [rows k]."""
    before, broken = 1e-30, None
    for _ in range(SWEEPS):
        move, reach = _move(r, epsilon)
        add_relu(r, move, out=r, alpha=-1)
        largest = float(move.max())
        if broken is None and math.isnan(largest):
            broken = move.isnan()
        # Newton's steps square, but for alpha = 2, where they end when no key is left to fall.
        rest = largest * min(1.0, largest / before) ** 2 if epsilon == 0.5 else largest
        if rest <= _NEAR:
            break
        before = largest
    if epsilon == 0.5:
        torch.mul(r, r, out=r)
    # sum adds in pairs; the norm of thousands of equal numbers may be off by more than 1e-6. A sum
    # that is off by x leaves no weight off by more than x max(r)/sum(r), and max(r) <= 1.
    total = r.sum(dim=-1, keepdim=True)
    off = (total - 1).abs_().masked_fill_(total == 0, 0.0)
    if not bool((off <= _EXACT / 2).all()):
        lost = (off <= _EXACT * reach.clamp_(min=1)).logical_not_().squeeze(-1)
        some = r[lost].pow_(epsilon)
        r[lost] = entmax(some.masked_fill_(some == 0, -torch.inf) / epsilon, 1 + epsilon)
        total[lost] = 1.0
        r.mul_(1 / total.clamp_(min=1e-37))
    if broken is not None:
        r.masked_fill_(broken, math.nan)


def _move(r: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The excess of r = epsilon (z - edge)_+ [... k], to first order and never more than that, and
    the sum of r.

    Newton on the norm |r| = 1, which for epsilon = 1 is the sum.
    """
    total = r.sum(dim=-1, keepdim=True)
    if epsilon == 1.0:
        count = r.sign().sum(dim=-1, keepdim=True)
        return (total - 1).div_(count.clamp_(min=1)).clamp_(min=0), total
    total.clamp_(min=1e-30)
    norm = torch.linalg.vector_norm(r, dim=-1, keepdim=True)
    return (norm - 1).mul_(norm).div_(total).clamp_(min=0), total
