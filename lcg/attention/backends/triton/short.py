"""Kernels of rows whose keys fit one tile: scored once, forward and backward in registers.

Shapes: q [b h q d], k and v [b g k d], all contiguous.
"""

import triton
import triton.language as tl

from lcg.attention.backends.triton.gradients import (
    alpha_gradient,
    alpha_moment,
    alpha_normaliser,
    high_means,
    load_block,
    score_gradient,
)
from lcg.attention.backends.triton.rows import (
    ENTMAX_HIGH,
    HIDDEN,
    RELU,
    SEEN,
    load_rows,
    prepare_rows,
    product,
    row_maximum,
    row_of,
    score_tile,
    sound,
    store_rows,
    stored_product,
    weigh,
)
from lcg.attention.backends.triton.thresholds import (
    SWEEPS,
    UNIT,
    edge_step,
    edge_sums,
    solve_tile,
    weight_step,
    weight_sums,
)


@triton.jit
def tile_kernel(
    Q,
    K,
    V,
    Q_POSITIONS,
    K_POSITIONS,
    KEY_MASK,
    SLOPES,
    OUT,
    ANCHOR,
    LEVEL,
    EPSILON,
    queries,
    keys,
    heads,
    shared,
    q_blocks,
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
    """Entmax of rows whose keys fit one tile; their scores stay in registers."""
    block = tl.program_id(0) % q_blocks
    head = (tl.program_id(0) // q_blocks).to(tl.int64)
    K += head // shared * keys * D
    V += head // shared * keys * D
    exact = tl.load(EPSILON + head % heads)
    epsilon = exact.to(tl.float32)
    places = Q_POSITIONS, K_POSITIONS, KEY_MASK, SLOPES
    row = row_of(head, places, queries, keys, heads, scale, SLOPED)
    i = block * BM + tl.arange(0, BM)
    q = load_rows(Q + head * queries * D, block * BM, queries, D, DP, BM)
    k = load_rows(K, 0, keys, D, DP, BN)
    full = tl.full([], 0, tl.int32)
    y = score_tile(q, k, i, 0, row, full, CAUSAL, MASKED, SLOPED, PRECISION, BN)
    maximum = row_maximum(y, scale)
    dead = ~sound(maximum)
    anchor = tl.where(dead, 0.0, maximum)
    if MODE == ENTMAX_HIGH:
        top = anchor
        low = top - 1.00001 / epsilon
        high, above_low = top, low
        at = 0.5 * (low + high)
        going = keys > 0
        for _sweep in range(2 * SWEEPS):
            if going:
                mass, reached, above, below = edge_sums(y * scale, at, epsilon)
                at, low, high, above_low, anchor, going = edge_step(
                    at, low, high, above_low, anchor, mass, reached, above, below
                )
        level = tl.zeros([BM], tl.float64)
        going = keys > 0
        for _sweep in range(SWEEPS):
            if going:
                view = prepare_rows(anchor, level, exact, MODE)
                total, steepness = weight_sums(y, view, scale, epsilon)
                level, going = weight_step(level, dead, total, steepness)
    else:
        level = solve_tile(y, y, anchor, dead, scale, exact, MODE, TWO=False, ENOUGH=UNIT)
    p, _, _ = weigh(y, prepare_rows(anchor, level, exact, MODE), scale, epsilon, MODE)
    v = load_rows(V, 0, keys, D, DP, BN)
    out = tl.where((maximum == maximum)[:, None], product(p, v, PRECISION), maximum[:, None])
    inside = i < queries
    tl.store(ANCHOR + head * queries + i, anchor, mask=inside)
    tl.store(LEVEL + head * queries + i, level, mask=inside)
    store_rows(OUT + head * queries * D, out, block * BM, queries, D, DP, BM)


@triton.jit
def tile_backward_kernel(
    Q,
    K,
    V,
    GRAD,
    Q_POSITIONS,
    K_POSITIONS,
    KEY_MASK,
    SLOPES,
    ANCHOR,
    LEVEL,
    EPSILON,
    DQ,
    DK,
    DV,
    D_EPSILON,
    queries,
    keys,
    heads,
    shared,
    q_blocks,
    scale,
    MODE: tl.constexpr,
    LEARNED: tl.constexpr,
    CAUSAL: tl.constexpr,
    MASKED: tl.constexpr,
    SLOPED: tl.constexpr,
    PRECISION: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """Rows of one tile: dQ, dK, dV and dL/dε of all queries of the heads that share some keys."""
    key_head = tl.program_id(0).to(tl.int64)
    full = tl.full([], 0, tl.int32)
    k = load_rows(K + key_head * keys * D, 0, keys, D, DP, BN)
    v = load_rows(V + key_head * keys * D, 0, keys, D, DP, BN)
    dk = tl.zeros([BN, DP], tl.float32)
    dv = tl.zeros([BN, DP], tl.float32)
    for turn in range(shared * q_blocks):
        head = key_head * shared + turn // q_blocks
        block = turn % q_blocks
        exact = tl.load(EPSILON + head % heads)
        epsilon = exact.to(tl.float32)
        places = Q_POSITIONS, K_POSITIONS, KEY_MASK, SLOPES
        row = row_of(head, places, queries, keys, heads, scale, SLOPED)
        pointers = Q, GRAD, ANCHOR, LEVEL
        i, inside, place, q, grad, anchor, level = load_block(
            pointers, head, block, queries, D, DP, BM
        )
        view = prepare_rows(anchor, level, exact, MODE)
        y = score_tile(q, k, i, 0, row, full, CAUSAL, MASKED, SLOPED, PRECISION, BN)
        dp = stored_product(grad, tl.trans(v), PRECISION)
        p, u, log_p = weigh(y, view, scale, epsilon, MODE)
        centre = tl.zeros([BM], tl.float32)
        mean, lowest = centre, centre
        if MODE == ENTMAX_HIGH:
            at_edge = (y * scale == anchor[:, None]) & (y > SEEN)
            centre = tl.max(tl.where(at_edge, dp, HIDDEN), axis=1)
            centre = tl.where(centre < SEEN, 0.0, centre)
            difference = dp - centre[:, None]
            mass, mean, lowest = high_means(p, u, log_p, difference, view[4], epsilon)
            mass = tl.where(mass == 0.0, 1.0, mass)
            mean, lowest = mean / mass, lowest / mass
        elif MODE != RELU:
            mass = tl.sum(u, axis=1)
            centre = tl.sum(u * dp, axis=1) / tl.where(mass == 0.0, 1.0, mass)
        statistics = anchor, centre, mean, lowest
        ds = score_gradient(y, p, u, dp, statistics, scale, MODE)
        if LEARNED:
            mean_log = tl.sum(tl.where(p > 1e-30, p * log_p, 0.0), axis=1)
            mean_dp = tl.sum(p * dp, axis=1)
            normaliser = alpha_normaliser(alpha_moment(p, log_p, mean_log, epsilon), exact)
            d_epsilon = alpha_gradient(p, log_p, dp, mean_log, mean_dp, normaliser, epsilon)
            tl.store(D_EPSILON + place, d_epsilon, mask=inside)
        dv += product(tl.trans(p), grad, PRECISION)
        dk += product(tl.trans(ds), q, PRECISION)
        dq = product(ds, k, PRECISION) * scale
        store_rows(DQ + head * queries * D, dq, block * BM, queries, D, DP, BM)
    store_rows(DK + key_head * keys * D, dk * scale, 0, keys, D, DP, BN)
    store_rows(DV + key_head * keys * D, dv, 0, keys, D, DP, BN)
