"""The threshold of a row, from sums over its scores (2502.12082): steps, brackets, and whole tiles.

For α ≤ 2 that is c, how far the edge lies above its lowest possible place; for α > 2 the lowest
supported score and the logarithm of its weight.
"""

import triton
import triton.language as tl

from lcg.attention.backends.triton.rows import (
    ENTMAX_15,
    HIDDEN,
    SPARSEMAX,
    TINY,
    listed_tile,
    prepare_rows,
    weigh,
)

SWEEPS = tl.constexpr(60)
"""Most sweeps over a row; from a good start one is usual."""
UNIT = tl.constexpr(1e-6)
"""A row must sum this near to 1."""


@triton.jit
def row_sums(p, u, C):
    """Sum the rows of a tile: Σ p, Σ u, and the number of keys with weight."""
    total, slope = tl.sum(p, axis=1), tl.sum(u, axis=1)
    count = slope
    if C.MODE != SPARSEMAX:
        count = tl.sum(tl.clamp(u * 1e30, 0.0, 1.0), axis=1)
    return total, slope, count


@triton.jit
def no_sums(SIZE: tl.constexpr):
    """The three sums of no tile, to which those of tiles are added."""
    zero = tl.zeros([SIZE], tl.float64)
    return zero, zero, zero


@triton.jit
def add_sums(sums, more):
    """The three sums of all tiles so far and of one more."""
    return sums[0] + more[0], sums[1] + more[1], sums[2] + more[2]


@triton.jit
def next_level(at, total, slope, count, head, C, COUNTED: tl.constexpr):
    """From c to the next one, by the sums at c.

    Newton on (Σ p)^ε, which is convex and decreases in c: from below it stays below the root. For
    α = 1.5 and the number of keys, the root of the square that Σ p is while no key leaves.
    The step is float32, as exact as the sums it is made of, once 1 is taken from their total; every
    warp that has a part of a row repeats it.
    """
    excess = (total.to(tl.float64) - 1.0).to(tl.float32)
    total = tl.maximum(total.to(tl.float32), TINY)
    slope = tl.maximum(slope.to(tl.float32), TINY)
    if C.MODE == SPARSEMAX:
        step = excess / slope
    elif C.MODE == ENTMAX_15:
        root = tl.sqrt(total)
        above, below = 2.0 * excess * root, slope * (root + 1.0)
        if COUNTED:
            rest = slope * slope - count.to(tl.float32) * excess
            above = tl.where(rest > 0.0, 2.0 * excess, above)
            below = tl.where(rest > 0.0, slope + tl.sqrt(tl.maximum(rest, 0.0)), below)
        step = above / below
    else:
        epsilon = head.epsilon
        # (1 - total^-ε) / ε, near total = 1 by its series.
        third = 1.0 - (2.0 + epsilon) / 3.0 * excess
        near = excess * (1.0 - 0.5 * (1.0 + epsilon) * excess * third)
        far = (1.0 - tl.exp(-epsilon * tl.log(total))) / epsilon
        step = tl.where(tl.abs(excess) < 0.01, near, far) * (total / slope)
    return at + step.to(tl.float64)


@triton.jit
def safe_step(at, low, high, sums, dead, head, C, COUNTED: tl.constexpr):
    """The next c of each row, in a bracket that the sums at c have narrowed.

    Returns it, the bracket, and which rows neither sum to one nor have closed their bracket.
    """
    total, slope, count = sums
    total = tl.where(dead, 1.0, total.to(tl.float64))
    new = next_level(at, total, slope, count, head, C, COUNTED)
    low = tl.where(total >= 1.0, tl.maximum(low, at), low)
    high = tl.where(total < 1.0, tl.minimum(high, at), high)
    new = tl.minimum(tl.maximum(new, low), high)
    return new, low, high, (tl.abs(total - 1.0) > UNIT) & (high - low > 1e-12)


@triton.jit
def halve(step, new, low, high, open, NEWTON: tl.constexpr):
    """After NEWTON steps every second one of a row that is open halves its bracket instead."""
    return tl.where(open & (step >= NEWTON) & (step % 2 == 0), 0.5 * (low + high), new)


@triton.jit
def highest(head):
    """The largest c: that of equal scores."""
    keys = (tl.full([], 0, tl.int32) + head.keys).to(
        tl.float64
    )  # 1 is a constant of the compiler's
    most = (1.0 - tl.exp(-head.exact * tl.log(keys))) / head.exact
    return most * (1.0 + 1e-6) + 1e-9


@triton.jit
def solve_tile(y, more, anchor, dead, head, C, ENOUGH: tl.constexpr):
    """c of each row of a tile of scores, or of two (`more` is the second or None), α ≤ 2: rows sum
    to 1 within ENOUGH when the last step is taken. From below, but for the rounding of steps.
    """
    at = tl.zeros_like(anchor).to(tl.float64)
    going = head.scale > 0.0
    for _sweep in range(SWEEPS):
        if going:
            view = prepare_rows(anchor, at, head, C)
            p, u, _ = weigh(y, view, head, C)
            total, slope = tl.sum(p, axis=1), tl.sum(u, axis=1)
            if more is not None:
                p, u, _ = weigh(more, view, head, C)
                total += tl.sum(p, axis=1)
                slope += tl.sum(u, axis=1)
            total = tl.where(dead, 1.0, total)
            at = next_level(at, total, slope, slope, head, C, False)
            going = tl.max(tl.abs(total - 1.0), axis=0) > ENOUGH
    return at


@triton.jit
def edge_sums(z, at, epsilon):
    """α > 2: the mass that a threshold leaves, and the scores nearest to it.

    These are the lowest at it or above, the lowest above, and the highest below.
    """
    at = at[:, None]
    x = tl.maximum(epsilon * (z - at), TINY)
    p = tl.where(z > at, tl.exp(tl.log(x) / epsilon), 0.0)
    reached = tl.min(tl.where(z >= at, z, -HIDDEN), axis=1)
    above = tl.min(tl.where(z > at, z, -HIDDEN), axis=1)
    below = tl.max(tl.where(z >= at, HIDDEN, z), axis=1)
    return tl.sum(p, axis=1).to(tl.float64), reached, above, below


@triton.jit
def edge_step(at, low, high, above_low, anchor, mass, reached, above, below):
    """Halves the bracket of the edge; anchor is the lowest score known to be supported.

    A score is supported if a threshold at itself leaves less than unit mass. The next threshold is
    the middle, or the lowest score in the bracket if that lies above: no middle ever equals it.
    Goes on while there is a score of which nothing is known.
    """
    good = mass < 1.0
    unknown = tl.where(good, below > low, above < anchor)
    anchor = tl.where(good, tl.minimum(anchor, reached), anchor)
    high = tl.where(good, at, high)
    low = tl.where(good, low, at)
    above_low = tl.where(good, above_low, above)
    at = tl.maximum(0.5 * (low + high), tl.where(above_low < high, above_low, low))
    going = tl.max(unknown.to(tl.int32), axis=0) > 0
    return at, low, high, above_low, anchor, going


@triton.jit
def weight_sums(y, view, head, C):
    """α > 2: Σ p and Σ (P/p)^(α-2), the derivative of the former in P."""
    p, _, log_p = weigh(y, view, head, C)
    log_weight = tl.log(tl.maximum(view.weight, TINY))[:, None]
    excess = head.epsilon - 1.0
    ratio = tl.where(p > 0.0, tl.exp(tl.minimum(excess * (log_weight - log_p), 0.0)), 0.0)
    return tl.sum(p, axis=1).to(tl.float64), tl.sum(ratio, axis=1).to(tl.float64)


@triton.jit
def weight_step(level, dead, total, slope):
    """The next log P of each row: Newton descends from P = 1 on a convex, increasing sum.

    P is known to the rounding of that sum, 1e-7; a smaller one is not told from another.
    """
    total = tl.where(dead, 1.0, total)
    at = tl.exp(level)
    new = at - (total - 1.0) / tl.maximum(slope, 1.0)
    new = tl.where(new > 0.0, new, 0.25 * at)
    gap = tl.max(tl.abs(total - 1.0), axis=0)
    return tl.log(tl.maximum(new, 1e-250)), gap > UNIT


@triton.jit
def solve_high(y, rows, listed, count, full, anchor, dead, head, C):
    """α > 2: the lowest supported score and log P of each row, of a tile y of scores, or (y is
    None) of `count` listed blocks of keys; anchor is the row maximum.
    """
    top = anchor
    low = top - 1.00001 / head.epsilon
    high, above_low = top, low
    at = 0.5 * (low + high)
    going = count > 0
    for _sweep in range(2 * SWEEPS):
        if going:
            if y is not None:
                mass, reached, above, below = edge_sums(y * head.scale, at, head.epsilon)
            else:
                mass = tl.zeros([C.BM], tl.float64)
                reached = tl.full([C.BM], -HIDDEN, tl.float32)
                above = tl.full([C.BM], -HIDDEN, tl.float32)
                below = tl.full([C.BM], HIDDEN, tl.float32)
                for t in range(count):
                    _, _, z = listed_tile(listed, t, rows, full, head, C)
                    more, reach, least, most = edge_sums(z * head.scale, at, head.epsilon)
                    mass += more
                    reached = tl.minimum(reached, reach)
                    above = tl.minimum(above, least)
                    below = tl.maximum(below, most)
            at, low, high, above_low, anchor, going = edge_step(
                at, low, high, above_low, anchor, mass, reached, above, below
            )
    level = tl.zeros([C.BM], tl.float64)
    going = count > 0
    for _sweep in range(SWEEPS):
        if going:
            view = prepare_rows(anchor, level, head, C)
            if y is not None:
                total, slope = weight_sums(y, view, head, C)
            else:
                total = tl.zeros([C.BM], tl.float64)
                slope = tl.zeros([C.BM], tl.float64)
                for t in range(count):
                    _, _, z = listed_tile(listed, t, rows, full, head, C)
                    more, steeper = weight_sums(z, view, head, C)
                    total += more
                    slope += steeper
            level, going = weight_step(level, dead, total, slope)
    return anchor, level
