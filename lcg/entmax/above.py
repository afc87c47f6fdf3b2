"""alpha-entmax, alpha 1.5 or 2, of long rows in float32 whose support lies above a known score.

An attention backend finds such a score cheaply. Starting there, Newton on the norm of
(alpha-1)(z - edge)_+ climbs to the edge of the support in two or three sweeps over a row instead
of the dozen of ``entmax``, and the weights are normalised at the end instead of solved for in
closed form on the support. They agree to about 1e-6; a weight at the very edge may be 1e-14
instead of 0.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lcg.entmax import gradient
from lcg.entmax.function import entmax

CHUNK = 2**18
"""Scores per thread that are swept together: they and a buffer fit the second-level cache."""
SWEEPS = 24
_NEAR = 1e-7  # steps this short, relative to the edge and to 1, are lost in rounding


def entmax_above(scores: Tensor, edge: Tensor, alpha: float) -> Tensor:
    """``entmax(scores, alpha)`` for alpha 1.5 or 2, written over scores; differentiable in them.

    scores [... k] float32, edge [... 1] at or below the edge of each row's support. A row of -inf
    gets zeros.
    """
    return _Above.apply(scores, edge, alpha - 1)


def edge_below(scores: Tensor, alpha: float) -> Tensor:
    """A score [... 1] a little below the edge of each row's support, for alpha 1.5 or 2.

    Not lower than the maximum - 1/(alpha-1), not higher than the edge. -inf for a row of -inf.
    """
    top = scores.amax(dim=-1, keepdim=True)
    dead = top == -torch.inf
    edge = top.masked_fill(dead, 0.0) - 1 / (alpha - 1)
    buffer = torch.empty_like(scores)
    for _ in range(4):  # the first steps are long; where they end is near enough
        edge += _step(scores, edge, alpha - 1, buffer).clamp_(min=0)
    return edge.masked_fill(dead, -torch.inf)


class _Above(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, edge: Tensor, epsilon: float) -> Tensor:
        rows = scores.view(-1, scores.shape[-1])
        edge = edge.reshape(-1, 1).to(rows.dtype)
        size = max(1, CHUNK * torch.get_num_threads() // rows.shape[-1])
        buffer = torch.empty_like(rows[:size])
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            _solve(rows[part], edge[part], epsilon, buffer)
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
        gradient.scores_gradient_low(weights, grad, epsilon, ctx.epsilon, spare, out)
        return out, None, None


def _solve(z: Tensor, edge: Tensor, epsilon: float, buffer: Tensor) -> None:
    """Writes the weights over z [rows k]."""
    r = buffer[: len(z)]
    edge = edge.masked_fill(edge == -torch.inf, 0.0)
    near = edge.abs().add_(1.0).mul_(_NEAR)
    for sweep in range(SWEEPS):
        move = _step(z, edge, epsilon, r)
        if sweep > 1 and bool((move <= near).all()):
            break
        edge = edge + move
    else:
        some = ~(move <= near).squeeze(-1)
        r[some] = entmax(z[some], 1 + epsilon).pow(epsilon)
    torch.mul(r, r if epsilon == 0.5 else 1.0, out=z)
    # sum adds in pairs; the norm of thousands of equal numbers may be off by 1e-6.
    z.mul_(1 / z.sum(dim=-1, keepdim=True).clamp_(min=1e-37))


def _step(z: Tensor, edge: Tensor, epsilon: float, r: Tensor) -> Tensor:
    """How far the support's edge lies above this one, to first order; (z - edge)_+ into ``r``.

    Newton on the norm |epsilon r| = 1, which for epsilon = 1 is a sum.
    """
    torch.sub(z, edge, out=r).clamp_(min=0)
    total = r.sum(dim=-1, keepdim=True)
    if epsilon == 1.0:
        return (total - 1).div_(torch.count_nonzero(r, dim=-1)[..., None].clamp_(min=1))
    norm = torch.linalg.vector_norm(r, dim=-1, keepdim=True)
    return (norm - 1 / epsilon).mul_(norm).div_(total.clamp_(min=1e-30))
