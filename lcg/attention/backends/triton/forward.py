"""Forward kernels: one pass for softmax and ReLU; for entmax the row is solved first (2502.12082).

A row that is one tile is scored once and solved in registers. Of a longer row the scores are
formed again in every sweep over its keys: one for the maximum, some for the threshold, one for the
output. The threshold only grows from sweep to sweep, and no key adds to its lower bound, so a block
of keys that has once fallen under it is never read again. What is left at the end is written down
for the backward pass. Differs from 2502.12082 in the solver: no bracket to bisect for 1 < α ≤ 2,
but Newton on the convex norm (Σ p)^ε, which climbs to the root from below.

Shapes: q [b h q d], k and v [b g k d], all contiguous; one program per block of queries of a head.
"""

import triton
import triton.language as tl

from lcg.attention.backends.triton.rows import (
    ENTMAX_HIGH,
    HIDDEN,
    SEEN,
    SOFTMAX,
    TINY,
    load_rows,
    prepare_rows,
    product,
    score_tile,
    store_rows,
    weigh,
)

NEWTON = tl.constexpr(10)
"""Newton steps before their targets are bisected too."""
SWEEPS = tl.constexpr(40)
"""Most sweeps over a row; six are usual."""
UNIT = tl.constexpr(2e-6)
"""How near to 1 a row must sum before the last step."""


@triton.jit
def any_of(condition):
    """Whether a tile of booleans holds a true one, as 0 or 1."""
    return tl.max(tl.max(condition.to(tl.int32), axis=1), axis=0)


@triton.jit
def _newton_sums(z, view, epsilon, MODE: tl.constexpr):
    """Σ p and Σ p^(2-α) of the rows of a tile, in float64."""
    p, u, _ = weigh(z, view, epsilon, MODE)
    return tl.sum(p, axis=1).to(tl.float64), tl.sum(u, axis=1).to(tl.float64)


@triton.jit
def _newton_step(step, level, at, high, total, slope, epsilon):
    """The next c of each row and the next bracket end, from the sums at `at`; whether to go on.

    (Σ p)^ε is convex and decreases in c: a step from anywhere lands left of the root, or beyond it
    by rounding, which the next one takes back.
    """
    slope = tl.maximum(slope, TINY)
    total = tl.maximum(total, TINY)
    move = (1.0 - tl.exp(-epsilon * tl.log(total))) / epsilon * total / slope
    bisecting = step >= NEWTON
    high = tl.where(bisecting & (total < 1.0), at, high)
    target = tl.where(bisecting, tl.maximum(level, at + move), at + move)
    level = tl.minimum(tl.maximum(target, 0.0), high)
    gap = tl.where(tl.abs(total - 1.0) <= UNIT, 0.0, high - level)
    return level, high, tl.max(gap, axis=0) > 1e-12


@triton.jit
def _edge_sums(z, at, epsilon):
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
def _edge_step(at, low, high, above_low, anchor, mass, reached, above, below):
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
def _weight_sums(z, view, epsilon):
    """α > 2: Σ p and Σ (P/p)^(α-2), the derivative of the former in P."""
    p, _, log_p = weigh(z, view, epsilon, ENTMAX_HIGH)
    log_weight = tl.log(tl.maximum(view[4], TINY))[:, None]
    ratio = tl.where(p > 0.0, tl.exp(tl.minimum((epsilon - 1.0) * (log_weight - log_p), 0.0)), 0.0)
    return tl.sum(p, axis=1).to(tl.float64), tl.sum(ratio, axis=1).to(tl.float64)


@triton.jit
def _weight_step(level, dead, total, slope):
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
def streaming_kernel(
    Q,
    K,
    V,
    Q_POSITIONS,
    K_POSITIONS,
    KEY_MASK,
    SLOPES,
    FIRST,
    LAST,
    OUT,
    ANCHOR,
    LEVEL,
    ACTIVE,
    queries,
    keys,
    heads,
    shared,
    q_blocks,
    k_blocks,
    scale,
    MODE: tl.constexpr,
    CAUSAL: tl.constexpr,
    MASKED: tl.constexpr,
    SLOPED: tl.constexpr,
    PRECISION: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """Softmax with a running maximum and sum, or ReLU, which needs neither."""
    block = q_blocks - 1 - tl.program_id(0) % q_blocks  # those with most keys first
    head = (tl.program_id(0) // q_blocks).to(tl.int64)
    key_head = head // shared  # b·h + h' over h/g: that of b·g + g'
    slope = tl.load(SLOPES + head % heads) if SLOPED else 0.0
    key_mask = KEY_MASK + head // heads * keys
    row = (queries, keys, Q_POSITIONS, K_POSITIONS, key_mask, slope, scale)
    i = block * BM + tl.arange(0, BM)
    q = load_rows(Q + head * queries * D, block * BM, queries, D, DP, BM)
    first = tl.load(FIRST + head * q_blocks + block) // BN
    last = tl.cdiv(tl.load(LAST + head * q_blocks + block), BN)
    active = ACTIVE + (head * q_blocks + block) * k_blocks

    top = tl.full([BM], HIDDEN, tl.float32)
    total = tl.zeros([BM], tl.float32)
    out = tl.zeros([BM, DP], tl.float32)
    for n in range(first, last):
        j = n * BN + tl.arange(0, BN)
        k = load_rows(K + key_head * keys * D, n * BN, keys, D, DP, BN)
        v = load_rows(V + key_head * keys * D, n * BN, keys, D, DP, BN)
        z = score_tile(q, k, i, j, row, CAUSAL, MASKED, SLOPED, PRECISION)
        if MODE == SOFTMAX:
            higher = tl.maximum(top, tl.max(z, axis=1))
            # A row that has seen no key: HIDDEN - HIDDEN is 0, and its weights must not be 1.
            base = tl.where(higher < SEEN, 0.0, higher)
            fade = tl.exp(tl.where(top < SEEN, HIDDEN, top - base))
            p = tl.exp(z - base[:, None])
            total = total * fade + tl.sum(p, axis=1)
            out = out * fade[:, None] + product(p, v, PRECISION)
            top = higher
            tl.store(active + n, 1)
        else:
            p = tl.maximum(z, 0.0)
            out += product(p, v, PRECISION)
            tl.store(active + n, any_of(p > 0.0))
    if MODE == SOFTMAX:
        total = tl.where(top < SEEN, 1.0, total)
        out = out / total[:, None]
        inside = i < queries
        tl.store(ANCHOR + head * queries + i, tl.where(top < SEEN, 0.0, top), mask=inside)
        tl.store(LEVEL + head * queries + i, tl.log(total).to(tl.float64), mask=inside)
    store_rows(OUT + head * queries * D, out, block * BM, queries, D, DP, BM)


@triton.jit
def entmax_kernel(
    Q,
    K,
    V,
    Q_POSITIONS,
    K_POSITIONS,
    KEY_MASK,
    SLOPES,
    FIRST,
    LAST,
    OUT,
    ANCHOR,
    LEVEL,
    ACTIVE,
    EPSILON,
    queries,
    keys,
    heads,
    shared,
    q_blocks,
    k_blocks,
    scale,
    MODE: tl.constexpr,
    ONE_TILE: tl.constexpr,
    CAUSAL: tl.constexpr,
    MASKED: tl.constexpr,
    SLOPED: tl.constexpr,
    PRECISION: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """Entmax with α > 1. ONE_TILE: all keys fit BN, and their scores stay in registers."""
    block = q_blocks - 1 - tl.program_id(0) % q_blocks
    head = (tl.program_id(0) // q_blocks).to(tl.int64)
    K += head // shared * keys * D
    V += head // shared * keys * D
    exact = tl.load(EPSILON + head % heads)
    epsilon = exact.to(tl.float32)
    slope = tl.load(SLOPES + head % heads) if SLOPED else 0.0
    key_mask = KEY_MASK + head // heads * keys
    row = (queries, keys, Q_POSITIONS, K_POSITIONS, key_mask, slope, scale)
    i = block * BM + tl.arange(0, BM)
    lane = tl.arange(0, BN)
    q = load_rows(Q + head * queries * D, block * BM, queries, D, DP, BM)
    first = tl.load(FIRST + head * q_blocks + block) // BN
    last = tl.cdiv(tl.load(LAST + head * q_blocks + block), BN)
    active = ACTIVE + (head * q_blocks + block) * k_blocks

    # The maximum, and which blocks come within 1/ε of it.
    if ONE_TILE:
        k = load_rows(K, 0, keys, D, DP, BN)
        z = score_tile(q, k, i, lane, row, CAUSAL, MASKED, SLOPED, PRECISION)
        top = tl.max(z, axis=1)
    else:
        top = tl.full([BM], HIDDEN, tl.float32)
        for n in range(first, last):
            k = load_rows(K, n * BN, keys, D, DP, BN)
            z = score_tile(q, k, i, n * BN + lane, row, CAUSAL, MASKED, SLOPED, PRECISION)
            top = tl.maximum(top, tl.max(z, axis=1))
            floor = tl.maximum(top - 1.00001 / epsilon, SEEN)
            tl.store(active + n, any_of(z > floor[:, None]))
        tl.debug_barrier()  # what one thread stored, others load below
    dead = top < SEEN
    top = tl.where(dead, 0.0, top)

    if MODE == ENTMAX_HIGH:
        low = top - 1.00001 / epsilon
        high, anchor, above_low = top, top, low
        at = 0.5 * (low + high)
        going = last > 0
        for _sweep in range(2 * SWEEPS):
            if going:
                if ONE_TILE:
                    mass, reached, above, below = _edge_sums(z, at, epsilon)
                else:
                    mass = tl.zeros([BM], tl.float64)
                    reached = tl.full([BM], -HIDDEN, tl.float32)
                    above = tl.full([BM], -HIDDEN, tl.float32)
                    below = tl.full([BM], HIDDEN, tl.float32)
                    for n in range(first, last):
                        if tl.load(active + n) != 0:
                            k = load_rows(K, n * BN, keys, D, DP, BN)
                            j = n * BN + lane
                            z = score_tile(q, k, i, j, row, CAUSAL, MASKED, SLOPED, PRECISION)
                            more, reach, least, most = _edge_sums(z, at, epsilon)
                            mass += more
                            reached = tl.minimum(reached, reach)
                            above = tl.minimum(above, least)
                            below = tl.maximum(below, most)
                at, low, high, above_low, anchor, going = _edge_step(
                    at, low, high, above_low, anchor, mass, reached, above, below
                )
        level = tl.zeros([BM], tl.float64)
        going = last > 0
        for _sweep in range(SWEEPS):
            if going:
                view = prepare_rows(anchor, level, exact, MODE)
                if ONE_TILE:
                    total, steepness = _weight_sums(z, view, epsilon)
                else:
                    total = tl.zeros([BM], tl.float64)
                    steepness = tl.zeros([BM], tl.float64)
                    for n in range(first, last):
                        if tl.load(active + n) != 0:
                            k = load_rows(K, n * BN, keys, D, DP, BN)
                            j = n * BN + lane
                            z = score_tile(q, k, i, j, row, CAUSAL, MASKED, SLOPED, PRECISION)
                            more, steeper = _weight_sums(z, view, epsilon)
                            total += more
                            steepness += steeper
                level, going = _weight_step(level, dead, total, steepness)
    else:
        anchor = top
        level = tl.zeros([BM], tl.float64)
        most = (1.0 - tl.exp(-exact * tl.log(keys.to(tl.float64)))) / exact * (1.0 + 1e-6)
        high = tl.zeros([BM], tl.float64) + most
        going = last > 0
        for step in range(SWEEPS):
            if going:
                at = tl.where(step >= NEWTON, 0.5 * (level + high), level)
                view = prepare_rows(anchor, at, exact, MODE)
                if ONE_TILE:
                    total, steepness = _newton_sums(z, view, epsilon, MODE)
                else:
                    # A bound from below on the edge, whatever the rounding of the last step.
                    bound = anchor + (level - 1.00001 / exact).to(tl.float32)
                    total = tl.zeros([BM], tl.float64)
                    steepness = tl.zeros([BM], tl.float64)
                    for n in range(first, last):
                        if tl.load(active + n) != 0:
                            k = load_rows(K, n * BN, keys, D, DP, BN)
                            j = n * BN + lane
                            z = score_tile(q, k, i, j, row, CAUSAL, MASKED, SLOPED, PRECISION)
                            more, steeper = _newton_sums(z, view, epsilon, MODE)
                            total += more
                            steepness += steeper
                            tl.store(active + n, any_of(z > tl.maximum(bound, SEEN)[:, None]))
                    tl.debug_barrier()
                total = tl.where(dead, 1.0, total)
                level, high, going = _newton_step(step, level, at, high, total, steepness, exact)

    view = prepare_rows(anchor, level, exact, MODE)
    if ONE_TILE:
        p, _, _ = weigh(z, view, epsilon, MODE)
        v = load_rows(V, 0, keys, D, DP, BN)
        out = product(p, v, PRECISION)
        tl.store(active, 1)
    else:
        out = tl.zeros([BM, DP], tl.float32)
        for n in range(first, last):
            if tl.load(active + n) != 0:
                k = load_rows(K, n * BN, keys, D, DP, BN)
                j = n * BN + lane
                z = score_tile(q, k, i, j, row, CAUSAL, MASKED, SLOPED, PRECISION)
                p, _, _ = weigh(z, view, epsilon, MODE)
                alive = any_of(p > 0.0)
                if alive != 0:
                    v = load_rows(V, n * BN, keys, D, DP, BN)
                    out += product(p, v, PRECISION)
                tl.store(active + n, alive)
    inside = i < queries
    tl.store(ANCHOR + head * queries + i, anchor, mask=inside)
    tl.store(LEVEL + head * queries + i, level, mask=inside)
    store_rows(OUT + head * queries * D, out, block * BM, queries, D, DP, BM)
