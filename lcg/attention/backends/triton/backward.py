"""Backward kernels: dQ with the sums of each row first, then dK and dV (2502.12082).

dS = U∘(dP - δ), U = P^(2-α) on the support, δ = Σ U dP / Σ U. Both kernels visit only the blocks in
which the forward pass found weight: `ORDER` lists them, `COUNT` says how many there are. Rows of
one tile have no lists.

Shapes: q [b h q d], k and v [b g k d], all contiguous.
"""

import triton
import triton.language as tl

from lcg.attention.backends.triton.rows import (
    ENTMAX_HIGH,
    HIDDEN,
    RELU,
    SEEN,
    SOFTMAX,
    load_rows,
    prepare_rows,
    product,
    score_gradient,
    score_tile,
    store_rows,
    stored_product,
    weigh,
)


@triton.jit
def _curve(x):
    """(e^x - 1 - x) / x², 1/2 at 0."""
    near = tl.where(tl.abs(x) < 0.5, x, 0.0)
    far = tl.where(tl.abs(x) < 0.5, 1.0, x)
    series = 1.0 / 3628800.0
    series = series * near + 1.0 / 362880.0
    series = series * near + 1.0 / 40320.0
    series = series * near + 1.0 / 5040.0
    series = series * near + 1.0 / 720.0
    series = series * near + 1.0 / 120.0
    series = series * near + 1.0 / 24.0
    series = series * near + 1.0 / 6.0
    series = series * near + 0.5
    return tl.where(tl.abs(x) < 0.5, series, (tl.exp(far) - 1.0 - far) / (far * far))


@triton.jit
def _alpha_moment(p, log_p, mean_log, epsilon):
    """The part of M = Σ p ℓ² curve(-ε ℓ) of a tile, ℓ = log p - Σ p log p."""
    live = p > 1e-30
    centred = tl.where(live, log_p - mean_log[:, None], 0.0)
    return tl.sum(tl.where(live, p, 0.0) * centred * centred * _curve(-epsilon * centred), axis=1)


@triton.jit
def _alpha_gradient(p, log_p, dp, mean_log, mean_dp, normaliser, epsilon):
    """The part of dL/dε of a tile, regular down to ε = 0 (1909.00015).

    With u = p^(1-ε), p~ = u / Σ u and log(p~/p) = ε v, v = -ℓ - ε N, N = log(1 + ε² M) / ε²:

        dp/dε = p (N - v² curve(ε v) + (Σ p log p) v (e^(ε v) - 1)/(ε v))

    where curve(x) = (e^x - 1 - x) / x². The same as the usual (p - p~)/ε² + (h - p~ Σ h)/ε, whose
    terms cancel as ε → 0.
    """
    live = p > 1e-30
    centred = tl.where(live, log_p - mean_log[:, None], 0.0)
    v = -centred - epsilon * normaliser[:, None]
    x = epsilon * v
    curve = _curve(x)
    rate = normaliser[:, None] - v * v * curve + mean_log[:, None] * v * (1.0 + x * curve)
    change = tl.where(live, p, 0.0) * rate
    return tl.sum(change * (dp - mean_dp[:, None]), axis=1)


@triton.jit
def dq_kernel(
    Q,
    K,
    V,
    GRAD,
    OUT,
    Q_POSITIONS,
    K_POSITIONS,
    KEY_MASK,
    SLOPES,
    ANCHOR,
    LEVEL,
    EPSILON,
    COUNT,
    ORDER,
    DQ,
    DELTA,
    D_EPSILON,
    queries,
    keys,
    heads,
    shared,
    q_blocks,
    k_blocks,
    rows,
    scale,
    MODE: tl.constexpr,
    LISTED: tl.constexpr,
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
    """dQ, and of each row what dS needs (DELTA [3 rows]) and dL/dε; one block of queries each."""
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
    inside = i < queries
    q = load_rows(Q + head * queries * D, block * BM, queries, D, DP, BM)
    grad = load_rows(GRAD + head * queries * D, block * BM, queries, D, DP, BM)
    anchor = tl.load(ANCHOR + head * queries + i, mask=inside, other=0.0)
    level = tl.load(LEVEL + head * queries + i, mask=inside, other=0.0)
    view = prepare_rows(anchor, level, exact, MODE)
    count = tl.load(COUNT + head * q_blocks + block) if LISTED else k_blocks
    order = ORDER + (head * q_blocks + block) * k_blocks

    centre = tl.zeros([BM], tl.float32)
    mean = tl.zeros([BM], tl.float32)
    lowest = tl.zeros([BM], tl.float32)
    mean_log = tl.zeros([BM], tl.float32)
    mean_dp = tl.zeros([BM], tl.float32)
    moment = tl.zeros([BM], tl.float32)
    if MODE == SOFTMAX:
        out = load_rows(OUT + head * queries * D, block * BM, queries, D, DP, BM)
        centre = tl.sum(grad.to(tl.float32) * out.to(tl.float32), axis=1)
    elif MODE == ENTMAX_HIGH:
        centre = tl.full([BM], HIDDEN, tl.float32)
        for n in range(count):
            m = tl.load(order + n) if LISTED else n
            k = load_rows(K, m * BN, keys, D, DP, BN)
            v = load_rows(V, m * BN, keys, D, DP, BN)
            z = score_tile(q, k, i, m * BN + lane, row, CAUSAL, MASKED, SLOPED, PRECISION)
            dp = stored_product(grad, tl.trans(v), PRECISION)
            at_edge = (z == anchor[:, None]) & (z > SEEN)
            centre = tl.maximum(centre, tl.max(tl.where(at_edge, dp, HIDDEN), axis=1))
        centre = tl.where(centre < SEEN, 0.0, centre)
        mass = tl.zeros([BM], tl.float32)
        for n in range(count):
            m = tl.load(order + n) if LISTED else n
            k = load_rows(K, m * BN, keys, D, DP, BN)
            v = load_rows(V, m * BN, keys, D, DP, BN)
            z = score_tile(q, k, i, m * BN + lane, row, CAUSAL, MASKED, SLOPED, PRECISION)
            difference = stored_product(grad, tl.trans(v), PRECISION) - centre[:, None]
            p, u, log_p = weigh(z, view, epsilon, MODE)
            log_weight = tl.log(tl.maximum(view[4], 1e-37))[:, None]
            relative = tl.exp(tl.minimum((1.0 - epsilon) * (log_p - log_weight), 0.0))
            relative = tl.where(p > 0.0, relative, 0.0)
            mass += tl.sum(relative, axis=1)
            mean += tl.sum(relative * difference, axis=1)
            lowest -= tl.sum(u * difference, axis=1)
        mass = tl.where(mass == 0.0, 1.0, mass)
        mean = mean / mass
        lowest = lowest / mass
    elif MODE != RELU:
        mass = tl.zeros([BM], tl.float32)
        for n in range(count):
            m = tl.load(order + n) if LISTED else n
            k = load_rows(K, m * BN, keys, D, DP, BN)
            v = load_rows(V, m * BN, keys, D, DP, BN)
            z = score_tile(q, k, i, m * BN + lane, row, CAUSAL, MASKED, SLOPED, PRECISION)
            dp = stored_product(grad, tl.trans(v), PRECISION)
            p, u, log_p = weigh(z, view, epsilon, MODE)
            mass += tl.sum(u, axis=1)
            centre += tl.sum(u * dp, axis=1)
            if LEARNED:
                mean_log += tl.sum(tl.where(p > 1e-30, p * log_p, 0.0), axis=1)
                mean_dp += tl.sum(p * dp, axis=1)
        centre = centre / tl.where(mass == 0.0, 1.0, mass)
        if LEARNED:
            for n in range(count):
                m = tl.load(order + n) if LISTED else n
                k = load_rows(K, m * BN, keys, D, DP, BN)
                z = score_tile(q, k, i, m * BN + lane, row, CAUSAL, MASKED, SLOPED, PRECISION)
                p, u, log_p = weigh(z, view, epsilon, MODE)
                moment += _alpha_moment(p, log_p, mean_log, epsilon)

    dq = tl.zeros([BM, DP], tl.float32)
    d_epsilon = tl.zeros([BM], tl.float32)
    if LEARNED:
        square = exact * exact
        normaliser = (tl.log(1.0 + square * moment.to(tl.float64)) / square).to(tl.float32)
    for n in range(count):
        m = tl.load(order + n) if LISTED else n
        k = load_rows(K, m * BN, keys, D, DP, BN)
        v = load_rows(V, m * BN, keys, D, DP, BN)
        z = score_tile(q, k, i, m * BN + lane, row, CAUSAL, MASKED, SLOPED, PRECISION)
        dp = stored_product(grad, tl.trans(v), PRECISION)
        p, u, log_p = weigh(z, view, epsilon, MODE)
        ds = score_gradient(
            z, p, u, dp, anchor[:, None], centre[:, None], mean[:, None], lowest[:, None], MODE
        )
        dq += product(ds, k, PRECISION)
        if LEARNED:
            d_epsilon += _alpha_gradient(p, log_p, dp, mean_log, mean_dp, normaliser, epsilon)
    store_rows(DQ + head * queries * D, dq * scale, block * BM, queries, D, DP, BM)
    place = head * queries + i
    tl.store(DELTA + place, centre, mask=inside)
    if MODE == ENTMAX_HIGH:
        tl.store(DELTA + rows + place, mean, mask=inside)
        tl.store(DELTA + 2 * rows + place, lowest, mask=inside)
    if LEARNED:
        tl.store(D_EPSILON + place, d_epsilon, mask=inside)


@triton.jit
def dkv_kernel(
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
    DELTA,
    COUNT,
    ORDER,
    DK,
    DV,
    queries,
    keys,
    heads,
    shared,
    q_blocks,
    k_blocks,
    rows,
    scale,
    MODE: tl.constexpr,
    LISTED: tl.constexpr,
    CAUSAL: tl.constexpr,
    MASKED: tl.constexpr,
    SLOPED: tl.constexpr,
    PRECISION: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """dK and dV of one block of keys, summed over the heads that share them."""
    block = tl.program_id(0) % k_blocks
    key_head = (tl.program_id(0) // k_blocks).to(tl.int64)
    j = block * BN + tl.arange(0, BN)
    lane = tl.arange(0, BM)
    k = load_rows(K + key_head * keys * D, block * BN, keys, D, DP, BN)
    v = load_rows(V + key_head * keys * D, block * BN, keys, D, DP, BN)
    dk = tl.zeros([BN, DP], tl.float32)
    dv = tl.zeros([BN, DP], tl.float32)
    for share in range(shared):
        head = key_head * shared + share
        exact = tl.load(EPSILON + head % heads)
        epsilon = exact.to(tl.float32)
        slope = tl.load(SLOPES + head % heads) if SLOPED else 0.0
        key_mask = KEY_MASK + head // heads * keys
        row = (queries, keys, Q_POSITIONS, K_POSITIONS, key_mask, slope, scale)
        count = tl.load(COUNT + head * k_blocks + block) if LISTED else q_blocks
        order = ORDER + (head * k_blocks + block) * q_blocks
        for n in range(count):
            m = tl.load(order + n) if LISTED else n
            i = m * BM + lane
            inside = i < queries
            place = head * queries + i
            q = load_rows(Q + head * queries * D, m * BM, queries, D, DP, BM)
            grad = load_rows(GRAD + head * queries * D, m * BM, queries, D, DP, BM)
            anchor = tl.load(ANCHOR + place, mask=inside, other=0.0)
            level = tl.load(LEVEL + place, mask=inside, other=0.0)
            centre = tl.load(DELTA + place, mask=inside, other=0.0)
            mean, lowest = centre, centre
            if MODE == ENTMAX_HIGH:
                mean = tl.load(DELTA + rows + place, mask=inside, other=0.0)
                lowest = tl.load(DELTA + 2 * rows + place, mask=inside, other=0.0)
            z = score_tile(q, k, i, j, row, CAUSAL, MASKED, SLOPED, PRECISION)
            view = prepare_rows(anchor, level, exact, MODE)
            p, u, _ = weigh(z, view, epsilon, MODE)
            dv += product(tl.trans(p), grad, PRECISION)
            dp = stored_product(grad, tl.trans(v), PRECISION)
            ds = score_gradient(
                z, p, u, dp, anchor[:, None], centre[:, None], mean[:, None], lowest[:, None], MODE
            )
            dk += product(tl.trans(ds), q, PRECISION)
    store_rows(DK + key_head * keys * D, dk * scale, block * BN, keys, D, DP, BN)
    store_rows(DV + key_head * keys * D, dv, block * BN, keys, D, DP, BN)
