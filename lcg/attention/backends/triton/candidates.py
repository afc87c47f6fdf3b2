"""The blocks of keys that a row of entmax may give weight to, and a lower bound of its threshold:
steps 1 and 2 of `forward`.

Shapes: q [b h q d] and k [b g k d], contiguous; one program per PARTS blocks of queries of a head.
"""

import triton
import triton.language as tl

from lcg.attention.backends.triton.rows import (
    ENTMAX_HIGH,
    ENTMAX_LOW,
    HIDDEN,
    SPARSEMAX,
    load_rows,
    round_rows,
    row_maximum,
    row_of,
    score_tile,
    sound,
    visible_extent,
    weigh,
)
from lcg.attention.backends.triton.thresholds import (
    next_level,
    row_sums,
    solve_tile,
)

CLOSE = tl.constexpr(1e-4)
"""A row of lanes must sum this near to 1 before the last step to its threshold."""
MARGIN = tl.constexpr(1e-5)
"""By how much a lower bound of a threshold is lowered, for the rounding it was found with."""


@triton.jit
def candidates_kernel(
    Q,
    K,
    Q_POSITIONS,
    K_POSITIONS,
    KEY_MASK,
    LEADING,
    SLOPES,
    FIRST,
    LAST,
    ANCHOR,
    LEVEL,
    SUPPORT,
    MOVED,
    FULL,
    COUNT,
    CANDIDATES,
    EPSILON,
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
    PARTS: tl.constexpr,
):
    """Find the maximum of each row (HIDDEN if it sees no key), c after a step from a close bound,
    and how many keys lie above that bound; and for each block of queries the blocks of keys with
    any of these. A program has PARTS blocks of queries.
    """
    programs = tl.cdiv(q_blocks, PARTS)
    block = programs - 1 - tl.program_id(0) % programs  # those with most keys first
    head = (tl.program_id(0) // programs).to(tl.int64)
    K += head // shared * keys * D
    exact = tl.load(EPSILON + head % heads)
    epsilon = exact.to(tl.float32)
    places = Q_POSITIONS, K_POSITIONS, KEY_MASK, SLOPES
    row = row_of(head, places, queries, keys, heads, scale, SLOPED)
    i = block * (PARTS * BM) + tl.arange(0, PARTS * BM)
    q = load_rows(Q + head * queries * D, block * (PARTS * BM), queries, D, DP, PARTS * BM)
    part = block * PARTS + tl.arange(0, PARTS)
    there = part < q_blocks
    leading = tl.load(LEADING + head // heads) if MASKED else keys
    end, full = visible_extent(i, row, leading, depth, CAUSAL)
    full_parts = tl.min(tl.reshape(full, [PARTS, BM]), axis=1)
    tl.store(FULL + head * q_blocks + part, full_parts, mask=there)
    first, last, full = 0, tl.cdiv(tl.max(end, axis=0), BN), tl.min(full, axis=0)
    if WINDOWED:
        firsts = tl.load(FIRST + head * q_blocks + part, mask=there, other=keys)
        lasts = tl.load(LAST + head * q_blocks + part, mask=there, other=0)
        first, last = tl.min(firsts, axis=0) // BN, tl.cdiv(tl.max(lasts, axis=0), BN)

    largest = tl.full([PARTS * BM, BN], HIDDEN, tl.float32)
    second = tl.full([PARTS * BM, BN], HIDDEN, tl.float32)
    for n in range(first, last):
        k = load_rows(K, n * BN, keys, D, DP, BN)
        y = score_tile(q, k, i, n, row, full, CAUSAL, MASKED, SLOPED, PRECISION, BN)
        if MODE != ENTMAX_HIGH:
            second = tl.maximum(second, tl.minimum(largest, y))
        largest = tl.maximum(largest, y, propagate_nan=tl.PropagateNan.ALL)
    anchor = row_maximum(largest, scale)
    dead = ~sound(anchor)
    top = tl.where(dead, 0.0, anchor)
    zero = tl.zeros_like(top)
    if MODE == ENTMAX_HIGH:
        bound = (top, top, zero - 1.00001 / epsilon, zero, zero)
    else:
        at = solve_tile(largest, second, top, dead, scale, exact, MODE, TWO=True, ENOUGH=CLOSE)
        at = tl.maximum(at - MARGIN * (1.0 + 0.02 * tl.abs(top)), 0.0)
        bound, at = round_rows(top, at, exact, MODE)

    total = tl.zeros([PARTS * BM], tl.float64)
    steepness = tl.zeros([PARTS * BM], tl.float64)
    support = tl.zeros([PARTS * BM], tl.float64)
    count = tl.zeros([PARTS], tl.int32)
    candidates = CANDIDATES + (head * q_blocks + part) * k_blocks
    for n in range(first, last):
        k = load_rows(K, n * BN, keys, D, DP, BN)
        y = score_tile(q, k, i, n, row, full, CAUSAL, MASKED, SLOPED, PRECISION, BN)
        if MODE <= SPARSEMAX:
            p, u, _ = weigh(y, bound, scale, epsilon, MODE)
            more, steeper, extra = row_sums(p, u, MODE)
            total += more
            steepness += steeper
            support += extra
            reached = more
        else:
            reached = tl.max(y, axis=1) * scale - bound[1] - bound[2]
        alive = (tl.max(tl.reshape(reached, [PARTS, BM]), axis=1) > 0.0).to(tl.int32)
        if MODE == ENTMAX_LOW:  # noqa: SIM102  (the inner one is the device's)
            if tl.max(alive, axis=0) != 0:
                p, u, _ = weigh(y, bound, scale, epsilon, MODE)
                more, steeper, extra = row_sums(p, u, MODE)
                total += more
                steepness += steeper
                support += extra
        # What is no candidate is overwritten by the next one.
        tl.store(candidates + count, n, mask=there)
        count += alive
    tl.store(COUNT + head * q_blocks + part, count, mask=there)
    inside = i < queries
    tl.store(ANCHOR + head * queries + i, anchor, mask=inside)
    if MODE != ENTMAX_HIGH:
        total = tl.where(dead, 1.0, total)
        new = tl.maximum(next_level(at, total, steepness, support, exact, MODE, True), 0.0)
        tl.store(LEVEL + head * queries + i, new, mask=inside)
        tl.store(MOVED + head * queries + i, tl.abs(new - at).to(tl.float32), mask=inside)
        tl.store(SUPPORT + head * queries + i, support.to(tl.float32), mask=inside)
