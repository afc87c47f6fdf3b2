"""Backward kernels of rows longer than a tile: dQ first, then dK and dV.

dS = U∘(dP - δ), U = P^(2-α) on the support, δ = Σ U dP / Σ U (2502.12082). δ is the product of the
output's gradient with what the forward pass kept, the mean of the values under U, so that both
kernels pass once over the blocks in which there is weight: `list_kernel` lists them, of each block
of queries and of each block of keys.

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
    row_of,
    score_tile,
    store_rows,
    stored_product,
    weigh,
)


@triton.jit
def list_kernel(
    ACTIVE,
    COUNT,
    ORDER,
    lists,
    length,
    list_stride,
    item_stride,
    LISTS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """List the active items of each list, in order, and count them: ORDER [h lists length]."""
    blocks = tl.cdiv(lists, LISTS)
    head = (tl.program_id(0) // blocks).to(tl.int64)
    each = tl.program_id(0) % blocks * LISTS + tl.arange(0, LISTS)
    there = each < lists
    flags_of = ACTIVE + head * lists * length + each.to(tl.int64) * list_stride
    order_of = ORDER + (head * lists + each) * length
    count = tl.zeros([LISTS], tl.int32)
    for start in range(0, length, CHUNK):
        item = start + tl.arange(0, CHUNK)
        real = there[:, None] & (item < length)[None, :]
        places = flags_of[:, None] + (item.to(tl.int64) * item_stride)[None, :]
        flags = tl.load(places, mask=real, other=0).to(tl.int32)
        before = count[:, None] + tl.cumsum(flags, axis=1) - flags
        items = tl.zeros_like(flags) + item[None, :]
        tl.store(order_of[:, None] + before, items, mask=flags != 0)
        count += tl.sum(flags, axis=1)
    tl.store(COUNT + head * lists + each, count, mask=there)


@triton.jit
def dq_kernel(
    Q,
    K,
    V,
    GRAD,
    OUT,
    TILTED,
    MEAN_LOG,
    Q_POSITIONS,
    K_POSITIONS,
    KEY_MASK,
    SLOPES,
    ANCHOR,
    LEVEL,
    FULL,
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
    places = Q_POSITIONS, K_POSITIONS, KEY_MASK, SLOPES
    row = row_of(head, places, queries, keys, heads, scale, SLOPED)
    pointers = Q, GRAD, ANCHOR, LEVEL
    i, inside, place, q, grad, anchor, level = load_block(pointers, head, block, queries, D, DP, BM)
    full = tl.load(FULL + head * q_blocks + block)
    view = prepare_rows(anchor, level, exact, MODE)
    count = tl.load(COUNT + head * q_blocks + block)
    order = ORDER + (head * q_blocks + block) * k_blocks

    centre = tl.zeros([BM], tl.float32)
    mean = tl.zeros([BM], tl.float32)
    lowest = tl.zeros([BM], tl.float32)
    if MODE == ENTMAX_HIGH:
        centre = tl.full([BM], HIDDEN, tl.float32)
        for t in range(count):
            n = tl.load(order + t).to(tl.int32)
            k = load_rows(K, n * BN, keys, D, DP, BN)
            v = load_rows(V, n * BN, keys, D, DP, BN)
            y = score_tile(q, k, i, n, row, full, CAUSAL, MASKED, SLOPED, PRECISION, BN)
            dp = stored_product(grad, tl.trans(v), PRECISION)
            at_edge = (y * scale == anchor[:, None]) & (y > SEEN)
            centre = tl.maximum(centre, tl.max(tl.where(at_edge, dp, HIDDEN), axis=1))
        centre = tl.where(centre < SEEN, 0.0, centre)
        mass = tl.zeros([BM], tl.float32)
        for t in range(count):
            n = tl.load(order + t).to(tl.int32)
            k = load_rows(K, n * BN, keys, D, DP, BN)
            v = load_rows(V, n * BN, keys, D, DP, BN)
            y = score_tile(q, k, i, n, row, full, CAUSAL, MASKED, SLOPED, PRECISION, BN)
            difference = stored_product(grad, tl.trans(v), PRECISION) - centre[:, None]
            p, u, log_p = weigh(y, view, scale, epsilon, MODE)
            more, shift, low = high_means(p, u, log_p, difference, view[4], epsilon)
            mass += more
            mean += shift
            lowest += low
        mass = tl.where(mass == 0.0, 1.0, mass)
        mean = mean / mass
        lowest = lowest / mass
    elif MODE != RELU:
        tilted = load_rows(TILTED + head * queries * D, block * BM, queries, D, DP, BM)
        centre = tl.sum(grad.to(tl.float32) * tilted.to(tl.float32), axis=1)
    if LEARNED:
        out = load_rows(OUT + head * queries * D, block * BM, queries, D, DP, BM)
        mean_dp = tl.sum(grad.to(tl.float32) * out.to(tl.float32), axis=1)
        mean_log = tl.load(MEAN_LOG + place, mask=inside, other=0.0)
        moment = tl.zeros([BM], tl.float32)
        for t in range(count):
            n = tl.load(order + t).to(tl.int32)
            k = load_rows(K, n * BN, keys, D, DP, BN)
            y = score_tile(q, k, i, n, row, full, CAUSAL, MASKED, SLOPED, PRECISION, BN)
            p, u, log_p = weigh(y, view, scale, epsilon, MODE)
            moment += alpha_moment(p, log_p, mean_log, epsilon)
        normaliser = alpha_normaliser(moment, exact)

    dq = tl.zeros([BM, DP], tl.float32)
    d_epsilon = tl.zeros([BM], tl.float32)
    for t in range(count):
        n = tl.load(order + t).to(tl.int32)
        k = load_rows(K, n * BN, keys, D, DP, BN)
        v = load_rows(V, n * BN, keys, D, DP, BN)
        y = score_tile(q, k, i, n, row, full, CAUSAL, MASKED, SLOPED, PRECISION, BN)
        dp = stored_product(grad, tl.trans(v), PRECISION)
        p, u, log_p = weigh(y, view, scale, epsilon, MODE)
        statistics = anchor, centre, mean, lowest
        ds = score_gradient(y, p, u, dp, statistics, scale, MODE)
        dq += product(ds, k, PRECISION)
        if LEARNED:
            d_epsilon += alpha_gradient(p, log_p, dp, mean_log, mean_dp, normaliser, epsilon)
    store_rows(DQ + head * queries * D, dq * scale, block * BM, queries, D, DP, BM)
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
    FULL,
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
    k = load_rows(K + key_head * keys * D, block * BN, keys, D, DP, BN)
    v = load_rows(V + key_head * keys * D, block * BN, keys, D, DP, BN)
    dk = tl.zeros([BN, DP], tl.float32)
    dv = tl.zeros([BN, DP], tl.float32)
    for share in range(shared):
        head = key_head * shared + share
        exact = tl.load(EPSILON + head % heads)
        epsilon = exact.to(tl.float32)
        places = Q_POSITIONS, K_POSITIONS, KEY_MASK, SLOPES
        row = row_of(head, places, queries, keys, heads, scale, SLOPED)
        count = tl.load(COUNT + head * k_blocks + block)
        order = ORDER + (head * k_blocks + block) * q_blocks
        if count > 0:  # a loop that may be skipped has its products one at a time
            for t in range(count):
                m = tl.load(order + t).to(tl.int32)
                pointers = Q, GRAD, ANCHOR, LEVEL
                i, inside, place, q, grad, anchor, level = load_block(
                    pointers, head, m, queries, D, DP, BM
                )
                centre = tl.load(DELTA + place, mask=inside, other=0.0)
                mean, lowest = centre, centre
                if MODE == ENTMAX_HIGH:
                    mean = tl.load(DELTA + rows + place, mask=inside, other=0.0)
                    lowest = tl.load(DELTA + 2 * rows + place, mask=inside, other=0.0)
                full = tl.load(FULL + head * q_blocks + m)
                y = score_tile(q, k, i, block, row, full, CAUSAL, MASKED, SLOPED, PRECISION, BN)
                view = prepare_rows(anchor, level, exact, MODE)
                p, u, _ = weigh(y, view, scale, epsilon, MODE)
                dv += product(tl.trans(p), grad, PRECISION)
                dp = stored_product(grad, tl.trans(v), PRECISION)
                statistics = anchor, centre, mean, lowest
                ds = score_gradient(y, p, u, dp, statistics, scale, MODE)
                dk += product(tl.trans(ds), q, PRECISION)
    store_rows(DK + key_head * keys * D, dk * scale, block * BN, keys, D, DP, BN)
    store_rows(DV + key_head * keys * D, dv, block * BN, keys, D, DP, BN)
