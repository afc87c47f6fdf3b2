"""Forward kernel of softmax and ReLU, which need no threshold: one pass over the keys of a row.

Shapes: q [b h q d], k and v [b g k d], all contiguous; one program per block of queries of a head.
"""

import triton
import triton.language as tl

from lcg.attention.backends.triton.rows import (
    HIDDEN,
    SEEN,
    SOFTMAX,
    load_rows,
    product,
    row_of,
    score_tile,
    store_rows,
    visible_extent,
)


@triton.jit
def any_of(condition):
    """1 if a tile of booleans holds a true one, else 0."""
    return tl.max(tl.max(condition.to(tl.int32), axis=1), axis=0)


@triton.jit
def one_pass_kernel(
    Q,
    K,
    V,
    Q_POSITIONS,
    K_POSITIONS,
    KEY_MASK,
    LEADING,
    SLOPES,
    FIRST,
    LAST,
    OUT,
    ANCHOR,
    LEVEL,
    FULL,
    ACTIVE,
    queries,
    keys,
    heads,
    shared,
    q_blocks,
    k_blocks,
    depth,
    scale,
    MODE: tl.constexpr,
    CAUSAL: tl.constexpr,
    MASKED: tl.constexpr,
    SLOPED: tl.constexpr,
    WINDOWED: tl.constexpr,
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
    places = Q_POSITIONS, K_POSITIONS, KEY_MASK, SLOPES
    row = row_of(head, places, queries, keys, heads, scale, SLOPED)
    i = block * BM + tl.arange(0, BM)
    q = load_rows(Q + head * queries * D, block * BM, queries, D, DP, BM)
    leading = tl.load(LEADING + head // heads) if MASKED else keys
    end, full = visible_extent(i, row, leading, depth, CAUSAL)
    first, last, full = 0, tl.cdiv(tl.max(end, axis=0), BN), tl.min(full, axis=0)
    tl.store(FULL + head * q_blocks + block, full)
    if WINDOWED:
        first = tl.load(FIRST + head * q_blocks + block) // BN
        last = tl.cdiv(tl.load(LAST + head * q_blocks + block), BN)
    active = ACTIVE + (head * q_blocks + block) * k_blocks

    top = tl.full([BM], HIDDEN, tl.float32)
    total = tl.zeros([BM], tl.float32)
    out = tl.zeros([BM, DP], tl.float32)
    for n in range(first, last):
        k = load_rows(K + key_head * keys * D, n * BN, keys, D, DP, BN)
        v = load_rows(V + key_head * keys * D, n * BN, keys, D, DP, BN)
        y = score_tile(q, k, i, n, row, full, CAUSAL, MASKED, SLOPED, PRECISION, BN)
        z = y * scale
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
            p = tl.maximum(z, 0.0, propagate_nan=tl.PropagateNan.ALL)
            out += product(p, v, PRECISION)
            tl.store(active + n, any_of(p > 0.0))
    if MODE == SOFTMAX:
        total = tl.where(top < SEEN, 1.0, total)
        out = out / total[:, None]
        inside = i < queries
        tl.store(ANCHOR + head * queries + i, tl.where(top < SEEN, 0.0, top), mask=inside)
        tl.store(LEVEL + head * queries + i, tl.log(total).to(tl.float64), mask=inside)
    store_rows(OUT + head * queries * D, out, block * BM, queries, D, DP, BM)
