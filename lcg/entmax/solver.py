"""Row solvers of alpha-entmax, and the elementwise map from a solved row statistic to weights.

A row statistic is a pair (anchor, log_weight): the weight of a key whose score is ``anchor`` is
exp(log_weight), and that fixes the row. With epsilon = alpha - 1 and s = exp(epsilon*log_weight),

    p_i = ( s + epsilon * (z_i - anchor) )_+ ** (1/epsilon)         (epsilon = 0: s e^(z_i-anchor))

which is the usual [(alpha-1) z_i - tau]_+^(1/(alpha-1)) with tau = epsilon*anchor - s. A single
tau would do in exact arithmetic. It does not in floating point: near the edge of the support z_i
and tau cancel, so with one dominant key and 65,536 tied ones a float32 tau misses a row sum of 1
by 1e-5, and at alpha = 32 even a float64 tau misses it by 0.3. Anchoring on the lowest supported
key turns every z_i - anchor into a sum of non-negative terms.

All solvers take z [rows, keys] in the compute type (float32 or float64) and write into the
buffers they are given: one chunk of rows stays in the cache for the whole solve.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

NEWTON_STEPS = 8
# Below this distance from the maximum a weight underflows at every alpha >= 1.
_FAR = -1000.0
# epsilon at or below this is softmax to the last bit of the compute type.
_SOFT = {torch.float32: 1e-12, torch.float64: 1e-30}
_TINY = {torch.float32: 1e-37, torch.float64: 1e-300}
# Newton lands left of the root, so stopping early keeps a key too many, never one too few; the
# closed form then notices, and only such rows are refined.
_STEP_CLOSED = 1e-3
_STEP = {torch.float32: 1e-6, torch.float64: 1e-13}
_ROUNDED = {torch.float32: 2.5e-7, torch.float64: 1e-15}
_HALVINGS = {torch.float32: 24, torch.float64: 48}
# From this epsilon on, scores near the support's edge are measured from the edge.
_EDGE_EPSILON = 1.0 / 64
LARGE = {torch.float32: 2.0**22, torch.float64: 2.0**10}
"""From this magnitude on an edge is too coarse as one number; but the difference of a score on the
support and the largest is exact, so distances are measured from the largest."""


class Workspace:
    """Scratch buffers of one chunk of rows, reused from chunk to chunk."""

    def __init__(self, rows: int, keys: int, like: Tensor) -> None:
        self._store = like.new_empty(3, rows, keys)

    def take(self, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        first, third, second = self._store[:, :rows].unbind()
        return first, second, third

    def wide(self, values: Tensor) -> Tensor:
        """The values as float64; overwrites the first and the third buffer."""
        if values.dtype == torch.float64:
            return values
        pair = self._store[:2].view(-1).view(torch.float64)
        return pair[: values.numel()].view(values.shape).copy_(values)


def row_maximum(z: Tensor) -> tuple[Tensor, Tensor]:
    """The maximum of each row [rows, 1], 0 for a fully masked row, and the mask of such rows."""
    top = z.amax(-1, keepdim=True)
    dead = top == -math.inf
    return top.masked_fill(dead, 0.0), dead


def pack(anchor: Tensor, log_weight: Tensor, dead: Tensor) -> Tensor:
    """The statistic [rows, 2] in float64; a fully masked row gets (inf, -inf): all weights 0."""
    anchor = anchor.double().masked_fill(dead, math.inf)
    log_weight = log_weight.double().masked_fill(dead, -math.inf)
    return torch.cat([anchor, log_weight], dim=-1)


def host_reads_free(tensor: Tensor) -> bool:
    """True where the host may look at values without waiting for a device's queue."""
    return tensor.device.type == "cpu"


def keep_going(step: int, gap: Tensor, tolerance: float) -> bool:
    """True while a solver needs another step; on an accelerator asked only every eighth step.

    The answer has to reach the host. A CPU gives it for free, a GPU only after it has finished
    all queued work, so there the usual solve runs its eight Newton steps unasked.
    """
    if not host_reads_free(gap) and (step + 1) % NEWTON_STEPS:
        return True
    if step < 2:
        return True
    return bool((gap > tolerance).any())


def add_relu(x: Tensor, y: Tensor, out: Tensor, alpha: float = 1.0) -> Tensor:
    """(x + alpha y)_+ into ``out``; on a CPU in one pass over memory, where this torch has it.

    A NaN may become 0.
    """
    if out.device.type == "cpu" and hasattr(torch, "_add_relu"):
        return torch._add_relu(x, y, alpha=alpha, out=out)
    return torch.add(x, y, alpha=alpha, out=out).clamp_(min=0)


# alpha = 1.5 and alpha = 2 --------------------------------------------------------------------


def solve_closed(
    z: Tensor, epsilon: float, work: Workspace, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """alpha = 1.5 (epsilon = 0.5) or alpha = 2 (epsilon = 1); writes weights.

    Returns (anchor, s, fully masked) of each row; ``closed_statistic`` makes a statistic of them,
    which costs more than the rest on short rows and is not wanted by every caller.

    Newton on the norm of r = (t + epsilon (z - max))_+, which is convex in t: it starts at t = 1
    and descends to the root without overshooting. It finds the support; the last step then solves
    for s on that support in closed form, so the result depends on the supported keys alone.
    """
    rows, keys = z.shape
    dtype = z.dtype
    x, r, _ = work.take(rows)
    top, dead = row_maximum(z)
    torch.add(top * -epsilon, z, alpha=epsilon, out=x).clamp_(min=-2.0)
    t = torch.ones_like(top)
    for step in range(NEWTON_STEPS):
        move, _ = _newton_move(x, t, epsilon, r)
        t.sub_(move)
        if not keep_going(step, move, _STEP_CLOSED):
            break
    else:
        t = _bisect(x, t, keys**-epsilon * (1 - 1e-6), epsilon, r)

    # A key within rounding of the edge is kept for now, and the anchor is placed at or just below
    # the lowest key kept, so that distances from it are exact where they are small.
    unit = torch.finfo(dtype).eps
    torch.add(x, t.add_(8 * unit), out=r)
    lowest = torch.gt(r, 0, out=weights).mul_(x).amin(-1, keepdim=True) / epsilon
    anchor = _at_or_below(top, lowest)
    s = _solve_on_support(z, anchor, epsilon, work, r, weights)
    doubtful = (s <= 0) & ~dead
    if not host_reads_free(z):
        refined = _refine(z, top, epsilon, r, work, weights, x)
        anchor = torch.where(doubtful, refined, anchor)
        solved = _solve_on_support(z, refined, epsilon, work, r, weights)
        s = torch.where(doubtful, solved, s)
        torch.add(anchor * -epsilon, z, alpha=epsilon, out=r)
    elif doubtful.any():
        some = doubtful.squeeze(-1).nonzero().squeeze(-1)
        some_z, some_r = z[some], r[some]
        spare = torch.empty_like(some_z)
        scratch = torch.empty_like(spare)
        anchor[some] = _refine(some_z, top[some], epsilon, some_r, work, spare, scratch)
        s[some] = _solve_on_support(some_z, anchor[some], epsilon, work, some_r, spare)
        r[some] = some_r
    s = s.clamp_(min=0).masked_fill_(dead, 0.0)
    # As ``weights_closed`` will see it: a float64 s may not survive its own logarithm.
    seen = s if dtype != torch.float64 else (s.log() / epsilon * epsilon).exp_()
    torch.add(r, seen, out=weights).clamp_(min=0)
    if epsilon == 0.5:
        torch.mul(weights, weights, out=weights)
    return anchor, s, dead


def _newton_move(x: Tensor, t: Tensor, epsilon: float, r: Tensor) -> tuple[Tensor, Tensor]:
    """The distance of t from the root of |(t + x)_+| = 1 on its left, to first order; the norm."""
    add_relu(x, t, out=r)
    if epsilon == 0.5:
        norm = torch.linalg.vector_norm(r, dim=-1, keepdim=True)
        return (norm - 1).mul_(norm).div_(r.sum(-1, keepdim=True)), norm
    norm = r.sum(-1, keepdim=True)
    return (norm - 1).div_(torch.gt(r, 0, out=r).sum(-1, keepdim=True)), norm


def _bisect(x: Tensor, t: Tensor, floor: float, epsilon: float, r: Tensor) -> Tensor:
    """Halves [floor, t] with a Newton step from each midpoint: rows Newton alone is slow on."""
    low = torch.full_like(t, floor)
    for step in range(NEWTON_STEPS, NEWTON_STEPS + _HALVINGS[x.dtype]):
        middle = (t + low) / 2
        move, norm = _newton_move(x, middle, epsilon, r)
        low = torch.where(norm < 1, middle, low)
        t = torch.minimum(t, middle - move).clamp_(min=low)
        if not keep_going(step, torch.minimum(move.abs(), t - low), _STEP[x.dtype]):
            break
    return t


def closed_statistic(anchor: Tensor, s: Tensor, dead: Tensor, epsilon: float) -> Tensor:
    return pack(anchor, s.double().log() / epsilon, dead)


def _solve_on_support(
    z: Tensor, anchor: Tensor, epsilon: float, work: Workspace, distance: Tensor, above: Tensor
) -> Tensor:
    """s with sum over z >= anchor of (s + epsilon (z - anchor))^(1/epsilon) = 1, in closed form.

    Negative or 0 if the anchor lies below the edge of the support. Fills ``distance`` with
    epsilon (z - anchor).
    """
    torch.add(anchor * -epsilon, z, alpha=epsilon, out=distance)
    count = torch.ge(distance, 0, out=above).sum(-1, keepdim=True)
    # Summed in float64 and rounded at the end, s does not depend on how the terms are grouped,
    # and so not on the number of keys off the support.
    terms = work.wide(torch.clamp(distance, min=0, out=above))
    total = terms.sum(-1, keepdim=True)
    if epsilon == 1.0:
        return ((1 - total) / count).to(z.dtype)
    missing = 1 - torch.linalg.vector_norm(terms, dim=-1, keepdim=True).square_()
    root = (total.square() + count * missing).clamp_(min=0).sqrt_()
    return (missing / root.add_(total)).to(z.dtype)


def _at_or_below(top: Tensor, lowest: Tensor) -> Tensor:
    """An anchor a few ulps below the key that lies ``lowest`` from the maximum, or the maximum."""
    unit = torch.finfo(top.dtype).eps
    below = (top + lowest) - 2 * unit * (top.abs() - lowest)
    return torch.where(lowest == 0, top, below)


def _refine(
    z: Tensor,
    top: Tensor,
    epsilon: float,
    distance: Tensor,
    work: Workspace,
    above: Tensor,
    scratch: Tensor,
) -> Tensor:
    """An anchor by the lowest supported key, given the distances from one below the edge.

    The same Newton iteration, in s and from s = 0: near the edge the distances are small numbers,
    exact to the last bit, so a key is told from the edge however close the two are.

    The anchor is where it would be were the keys below the edge not there, so that these change
    no bit of the weights; only if one of them is closer than that, it is the key itself, read off
    the scores: rebuilt from its distance it could lie an ulp above itself.
    """
    s = torch.zeros_like(top)
    for step in range(5 * NEWTON_STEPS):
        move, norm = _newton_move(distance, s, epsilon, above)
        s = torch.minimum(s, s - move)
        if not keep_going(step, norm - 1, 2 * torch.finfo(distance.dtype).eps):
            break
    torch.add(distance, s, out=above)
    key = torch.where(above > 0, z, torch.inf).amin(-1, keepdim=True)
    below = _at_or_below(top, torch.add(top * -epsilon, key, alpha=epsilon) / epsilon)
    alone = _solve_on_support(z, below, epsilon, work, scratch, above) > 0
    return torch.where(alone, below, key)


def weights_closed(z: Tensor, statistic: Tensor, epsilon: float, out: Tensor) -> None:
    """Elementwise (s + epsilon (z - anchor))_+ ** (1/epsilon) for epsilon 0.5 and 1."""
    anchor, log_weight = statistic.split(1, dim=-1)
    torch.add(anchor.to(z.dtype) * -epsilon, z, alpha=epsilon, out=out)
    out.add_((log_weight * epsilon).exp_().to(z.dtype)).clamp_(min=0)
    if epsilon == 0.5:
        torch.mul(out, out, out=out)


# alpha = 1 ------------------------------------------------------------------------------------


def solve_softmax(z: Tensor, weights: Tensor) -> Tensor:
    """alpha = 1; the anchor is the row maximum, so its log weight is minus the log of the sum."""
    top, dead = row_maximum(z)
    torch.sub(z, top, out=weights).exp_()
    statistic = pack(top, -weights.sum(-1, keepdim=True).double().log(), dead)
    weights_softmax(z, statistic, weights)
    return statistic


def weights_softmax(z: Tensor, statistic: Tensor, out: Tensor) -> None:
    anchor, log_weight = statistic.split(1, dim=-1)
    torch.sub(z, anchor.to(z.dtype), out=out).exp_().mul_(log_weight.exp().to(z.dtype))


# 1 <= alpha <= 2 ------------------------------------------------------------------------------


def solve_low(
    z: Tensor, work: Workspace, weights: Tensor, epsilon: Tensor, statistic: Tensor
) -> None:
    """Any alpha in [1, 2], one per row (epsilon [rows, 1] or [1, 1], float64).

    The unknown is c in score units, p = (1 + epsilon (z - max - c))_+^(1/epsilon): it stays
    regular as alpha -> 1, where c becomes log-sum-exp. (sum p)^epsilon is a norm, convex and
    decreasing in c, so Newton from c = 0 climbs to the root without overshooting, and a Newton
    step from anywhere lands left of it. Corrections of c in float64, measured on the final weights,
    then remove its rounding.
    """
    rows, keys = z.shape
    dtype = z.dtype
    x, r, w = work.take(rows)
    soft = epsilon <= _SOFT[dtype]
    eps = epsilon.to(dtype)
    inverse = (1 / epsilon).masked_fill(soft, 0.0).to(dtype)
    softness = soft.to(dtype)
    top, dead = row_maximum(z)
    torch.sub(z, top, out=x).clamp_(min=_FAR).masked_fill_(dead, 0.0)
    c = torch.zeros_like(top)
    spread = torch.where(soft, math.log(keys), -torch.expm1(epsilon * -math.log(keys)) / epsilon)
    high = (spread * (1 + 1e-6)).to(dtype).expand_as(top)
    slope = torch.ones_like(top)
    for step in range(NEWTON_STEPS + _HALVINGS[dtype]):
        bisecting = step >= NEWTON_STEPS
        at = (c + high) / 2 if bisecting else c
        torch.sub(x, at, out=r)
        torch.mul(r, eps, out=weights).clamp_(min=-1)
        torch.log1p(weights, out=w).mul_(inverse).addcmul_(r, softness).exp_()
        total = w.sum(-1, keepdim=True)
        w.div_(weights.add_(1).clamp_(min=_TINY[dtype]))
        slope = w.sum(-1, keepdim=True).clamp_min_(_TINY[dtype])
        log_total = total.clamp_min(_TINY[dtype]).log()
        move = torch.where(soft, log_total, -torch.expm1(-eps * log_total) * inverse)
        move = move * total / slope
        gap = move.abs()
        if bisecting:
            high = torch.where(total < 1, at, high)
            gap = torch.minimum(gap, high - c)
        c = torch.maximum(c, at + move).clamp_(max=high)
        if not keep_going(step, gap, _STEP[dtype]):
            break

    c = c.double()
    corrections = 4 if host_reads_free(z) else 2
    for left in range(corrections, -1, -1):
        log_weight = torch.where(soft, -c, torch.log1p(-epsilon * c) / epsilon)
        statistic.copy_(pack(top, log_weight, dead))
        weights_low(z, statistic, work, epsilon, weights)
        # In float64: summing a large weight and thousands of small ones in float32 is off by 1e-6.
        total = weights.sum(-1, keepdim=True, dtype=torch.float64)
        if not left or not keep_going(corrections, (total - 1).abs(), _ROUNDED[dtype]):
            break
        # weights_low leaves the log of the ratio p_i/P, times epsilon, in the second buffer.
        slope = r.clamp_(min=-80.0).neg_().exp_().mul_(weights).sum(-1, keepdim=True)
        slope = slope.double() / (1 - epsilon * c)
        c = c + (total - 1) / slope.clamp_(min=1e-30)


def weights_low(
    z: Tensor, statistic: Tensor, work: Workspace, epsilon: Tensor, out: Tensor
) -> None:
    """p_i = P (1 + epsilon (z_i - anchor)/s)_+^(1/epsilon), the ratio formed without cancellation.

    For a ratio above 1/2 it is log1p of the distance from the anchor, below 1/2 the log of the
    distance from the edge of the support (kept as a sum of two numbers of the compute type).
    """
    dtype = z.dtype
    y, r, _ = work.take(z.shape[0])
    anchor, log_weight = statistic.split(1, dim=-1)
    # The anchor is the row maximum, so only a fully masked row is below this.
    log_weight = log_weight.clamp(min=-200.0)
    s = (epsilon * log_weight).exp()
    soft = epsilon <= _SOFT[dtype]
    edged = epsilon >= _EDGE_EPSILON
    gain = epsilon / s
    width = torch.where(edged, s / epsilon, 0.0)
    large = anchor.abs() >= LARGE[dtype]
    edge = anchor - width
    edge_high = torch.where(large, anchor, edge).to(dtype)
    edge_low = torch.where(large, -width, edge - edge_high).nan_to_num_(0.0).to(dtype)
    torch.sub(z, anchor.to(dtype), out=y).clamp_(min=_FAR)
    torch.sub(z, edge_high, out=r).sub_(edge_low).clamp_(min=_FAR)
    r.mul_((2 * gain * edged).to(dtype)).add_((~edged).to(dtype)).clamp_(0, 1).log_()
    torch.mul(y, gain.to(dtype), out=out)
    torch.maximum(out, torch.where(edged, -0.5, -1.0).to(dtype), out=out)
    r.add_(out.log1p_())
    torch.mul(r, (1 / epsilon).masked_fill(soft, 0.0).to(dtype), out=out)
    out.addcmul_(y, soft.to(dtype)).exp_().mul_(log_weight.exp().to(dtype))


# alpha > 2 ------------------------------------------------------------------------------------


def solve_high(z: Tensor, epsilon: Tensor, statistic: Tensor) -> None:
    """Any alpha in (2, 32], one per row, in float64.

    Above alpha = 2 the weight has unbounded slope in the score at the edge of the support, and
    tau does not determine the smallest weight to any useful precision. So: sort the candidates,
    find the size of the support by binary search, then solve for P, the weight of its lowest key.
    sum_i (P^epsilon + epsilon (z_i - anchor))^(1/epsilon) is convex and increasing in P with
    slope between 1 and the support size: Newton descends from P = 1/size.
    """
    z = z.double()
    top, dead = row_maximum(z)
    keys = z.shape[-1]
    if host_reads_free(z):
        keys = int(((z - top) * epsilon > -1).sum(-1).max().clamp(min=1))
    ranked = z.topk(keys, dim=-1).values.masked_fill(dead, 0.0)
    inverse = 1 / epsilon
    low = torch.ones_like(top, dtype=torch.long)
    high = torch.full_like(low, keys)
    for _ in range((keys - 1).bit_length()):
        middle = (low + high + 1) // 2
        distance = (ranked - ranked.gather(-1, middle - 1)).mul_(epsilon).clamp_(min=0)
        fits = distance.pow_(inverse).sum(-1, keepdim=True) < 1
        low = torch.where(fits, middle, low)
        high = torch.where(fits, high, middle - 1)

    anchor = ranked.gather(-1, low - 1)
    distance = (ranked - anchor).mul_(epsilon).clamp_(min=0)
    member = torch.arange(keys, device=z.device) < low
    upper = 1.0 / low
    lower = torch.zeros_like(upper)
    for step in range(40):
        bisecting = step >= NEWTON_STEPS
        at = ((upper + lower) / 2 if bisecting else upper).clamp(min=1e-300)
        p = torch.maximum((distance + at.pow(epsilon)).pow_(inverse), at)
        total = (p * member).sum(-1, keepdim=True)
        slope = (at / p).pow_(epsilon - 1).mul_(member).sum(-1, keepdim=True)
        move = (total - 1) / slope
        gap = move.abs()
        if bisecting:
            lower = torch.where(total < 1, at, lower)
            gap = torch.minimum(gap, upper - lower)
        upper = torch.minimum(upper, at - move).maximum(lower)
        if not keep_going(step, gap, 1e-14):
            break
    statistic.copy_(pack(anchor, upper.log(), dead))


def weights_high(z: Tensor, statistic: Tensor, epsilon: Tensor, out: Tensor) -> None:
    """The weights of alpha > 2, evaluated in float64 and rounded once into ``out``."""
    anchor, log_weight = statistic.split(1, dim=-1)
    distance = z.double() - anchor
    outside = distance < 0
    distance.mul_(epsilon).add_((epsilon * log_weight).exp()).clamp_(min=0)
    out.copy_(distance.pow_(1 / epsilon).masked_fill_(outside, 0.0))
