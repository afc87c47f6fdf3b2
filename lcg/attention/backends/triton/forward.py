"""Entmax of long rows, forward, and its kernel that makes the output (2502.12082).

A row longer than a tile (`short.py`) is scored again in every sweep over its keys, so that what
counts is how many sweeps there are, over how many keys:

1. `candidates_kernel`, all keys: the two largest scores of each lane, a lane being every BN-th key.
   These are scores of the row, so that the row they make, solved in registers, has an edge that
   bounds the row's from below, and closely: nearly all of the support is among them.
2. The same, all keys once more: the sums for a step from there, and a list of the blocks of keys
   that reach above the bound. Nothing else is read from here on.
3. `entmax_kernel`, listed blocks: while steps are large (NEAR), sums alone; rarely needed.
4. The same: the output, and the sums again. They say how far the threshold is from right. Where
   that is little (ALLOWED), what the output lacks is its derivative, -Σ u v, times the rest, and
   the row is done; otherwise the threshold takes another step, and 4. is done again.

Differs from 2502.12082 in all of this. The gradient of a row is u (dp - δ) with δ the mean of dp
under u = p^(2-α): that of the values under u is made beside the output, and δ is its product with
the gradient of the output.

Shapes: q [b h q d], k and v [b g k d], all contiguous; one program per block of queries of a head.
"""

import triton
import triton.language as tl

from lcg.attention.backends.triton.rows import (
    ENTMAX_HIGH,
    ENTMAX_LOW,
    HIDDEN,
    SPARSEMAX,
    load_rows,
    prepare_rows,
    product,
    round_rows,
    row_of,
    score_tile,
    sound,
    store_rows,
    weigh,
)
from lcg.attention.backends.triton.thresholds import (
    SWEEPS,
    edge_step,
    edge_sums,
    halve,
    highest,
    row_sums,
    safe_step,
    weight_step,
    weight_sums,
)

NEAR = tl.constexpr(0.03)
"""The largest step after which the output is worth a try."""
ALLOWED = tl.constexpr(2e-5)
"""The mean of values under u may be off by so much, as a share of them, where the last step is
taken without another sweep; for α ≤ 1.5, where u has a derivative."""
ALLOWED_16 = tl.constexpr(3e-4)
"""The same for values of 16 bits, whose own rounding is ten times as much."""
ROUNDING = tl.constexpr(1.2e-7)
"""Float32 may round an edge by so much, as a share of its magnitude."""


@triton.jit
def entmax_kernel(
    Q,
    K,
    V,
    Q_POSITIONS,
    K_POSITIONS,
    KEY_MASK,
    SLOPES,
    OUT,
    TILTED,
    MEAN_LOG,
    ANCHOR,
    LEVEL,
    SUPPORT,
    MOVED,
    FULL,
    COUNT,
    CANDIDATES,
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
    NEWTON: tl.constexpr,
    GRADIENTS: tl.constexpr,
    CAUSAL: tl.constexpr,
    MASKED: tl.constexpr,
    SLOPED: tl.constexpr,
    PRECISION: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """The threshold of each row and the output, over the blocks that `candidates_kernel` listed.

    GRADIENTS: with the mean of the values under u (TILTED), Σ p log p where α may be learned, and
    which blocks hold weight; not for α > 2, whose backward pass finds its means itself.
    """
    block = q_blocks - 1 - tl.program_id(0) % q_blocks
    head = (tl.program_id(0) // q_blocks).to(tl.int64)
    K += head // shared * keys * D
    V += head // shared * keys * D
    exact = tl.load(EPSILON + head % heads)
    epsilon = exact.to(tl.float32)
    places = Q_POSITIONS, K_POSITIONS, KEY_MASK, SLOPES
    row = row_of(head, places, queries, keys, heads, scale, SLOPED)
    i = block * BM + tl.arange(0, BM)
    inside = i < queries
    q = load_rows(Q + head * queries * D, block * BM, queries, D, DP, BM)
    maximum = tl.load(ANCHOR + head * queries + i, mask=inside, other=HIDDEN)
    dead = ~sound(maximum)
    anchor = tl.where(dead, 0.0, maximum)
    count = tl.load(COUNT + head * q_blocks + block)
    full = tl.load(FULL + head * q_blocks + block)
    candidates = CANDIDATES + (head * q_blocks + block) * k_blocks
    active = ACTIVE + (head * q_blocks + block) * k_blocks

    if MODE == ENTMAX_HIGH:
        top = anchor
        low = top - 1.00001 / epsilon
        high, above_low = top, low
        at = 0.5 * (low + high)
        going = count > 0
        for _sweep in range(2 * SWEEPS):
            if going:
                mass = tl.zeros([BM], tl.float64)
                reached = tl.full([BM], -HIDDEN, tl.float32)
                above = tl.full([BM], -HIDDEN, tl.float32)
                below = tl.full([BM], HIDDEN, tl.float32)
                for t in range(count):
                    n = tl.load(candidates + t).to(tl.int32)
                    k = load_rows(K, n * BN, keys, D, DP, BN)
                    y = score_tile(q, k, i, n, row, full, CAUSAL, MASKED, SLOPED, PRECISION, BN)
                    more, reach, least, most = edge_sums(y * scale, at, epsilon)
                    mass += more
                    reached = tl.minimum(reached, reach)
                    above = tl.minimum(above, least)
                    below = tl.maximum(below, most)
                at, low, high, above_low, anchor, going = edge_step(
                    at, low, high, above_low, anchor, mass, reached, above, below
                )
        level = tl.zeros([BM], tl.float64)
        going = count > 0
        for _sweep in range(SWEEPS):
            if going:
                view = prepare_rows(anchor, level, exact, MODE)
                total = tl.zeros([BM], tl.float64)
                steepness = tl.zeros([BM], tl.float64)
                for t in range(count):
                    n = tl.load(candidates + t).to(tl.int32)
                    k = load_rows(K, n * BN, keys, D, DP, BN)
                    y = score_tile(q, k, i, n, row, full, CAUSAL, MASKED, SLOPED, PRECISION, BN)
                    more, steeper = weight_sums(y, view, scale, epsilon)
                    total += more
                    steepness += steeper
                level, going = weight_step(level, dead, total, steepness)
    else:
        level = tl.load(LEVEL + head * queries + i, mask=inside, other=0.0)
        support = tl.load(SUPPORT + head * queries + i, mask=inside, other=0.0)
        moved = tl.load(MOVED + head * queries + i, mask=inside, other=0.0)
        # The bound it came from, whose edge was rounded to float32.
        low = tl.maximum(level - (1.0 + 1e-6) * moved - 1e-6 - ROUNDING * tl.abs(anchor), 0.0)
        high = tl.zeros([BM], tl.float64) + highest(keys, exact)
        far = (tl.max(moved, axis=0) > NEAR) & (count > 0)
        for step in range(SWEEPS):
            if far:
                view, level = round_rows(anchor, level, exact, MODE)
                total = tl.zeros([BM], tl.float64)
                steepness = tl.zeros([BM], tl.float64)
                supported = tl.zeros([BM], tl.float64)
                for t in range(count):
                    n = tl.load(candidates + t).to(tl.int32)
                    k = load_rows(K, n * BN, keys, D, DP, BN)
                    y = score_tile(q, k, i, n, row, full, CAUSAL, MASKED, SLOPED, PRECISION, BN)
                    p, u, _ = weigh(y, view, scale, epsilon, MODE)
                    more, steeper, extra = row_sums(p, u, MODE)
                    total += more
                    steepness += steeper
                    supported += extra
                sums = (total, steepness, supported)
                new, low, high, open = safe_step(level, low, high, sums, dead, exact, MODE, True)
                new = halve(step, new, low, high, open, NEWTON)
                far = tl.max(tl.where(open, tl.abs(new - level), 0.0), axis=0) > NEAR
                level = new

    out = tl.zeros([BM, DP], tl.float32)
    tilted = tl.zeros([BM, DP], tl.float32)
    total = tl.zeros([BM], tl.float64)
    steepness = tl.zeros([BM], tl.float64)
    mean_log = tl.zeros([BM], tl.float32)
    tilted_log = tl.zeros([BM], tl.float32)
    going = count > 0
    for step in range(SWEEPS):
        if going:
            view = prepare_rows(anchor, level, exact, MODE)
            out = tl.zeros([BM, DP], tl.float32)
            tilted = tl.zeros([BM, DP], tl.float32)
            total = tl.zeros([BM], tl.float64)
            steepness = tl.zeros([BM], tl.float64)
            mean_log = tl.zeros([BM], tl.float32)
            tilted_log = tl.zeros([BM], tl.float32)
            for t in range(count):
                n = tl.load(candidates + t).to(tl.int32)
                k = load_rows(K, n * BN, keys, D, DP, BN)
                v = load_rows(V, n * BN, keys, D, DP, BN)
                y = score_tile(q, k, i, n, row, full, CAUSAL, MASKED, SLOPED, PRECISION, BN)
                p, u, log_p = weigh(y, view, scale, epsilon, MODE)
                out += product(p, v, PRECISION)
                more = tl.sum(p, axis=1)
                if GRADIENTS:
                    tl.store(active + n, tl.max(more, axis=0) > 0.0)
                if MODE != ENTMAX_HIGH:
                    tilted += product(u, v, PRECISION)
                    total += more.to(tl.float64)
                    steepness += tl.sum(u, axis=1).to(tl.float64)
                if GRADIENTS and MODE == ENTMAX_LOW:
                    safe_log = tl.where(p > 1e-30, log_p, 0.0)
                    mean_log += tl.sum(p * safe_log, axis=1)
                    tilted_log += tl.sum(u * safe_log, axis=1)
            if MODE == ENTMAX_HIGH:
                going = count < 0
            else:
                sums = (total, steepness, total)
                new, low, high, open = safe_step(level, low, high, sums, dead, exact, MODE, False)
                if MODE != SPARSEMAX:
                    share = ALLOWED if V.dtype.element_ty == tl.float32 else ALLOWED_16
                    allowed = tl.where(epsilon <= 0.5, share, 0.0) * steepness
                    open = open & (tl.abs(new - level) * support > allowed)
                new = halve(step, new, low, high, open, NEWTON)
                step_taken = (new - level).to(tl.float32)
                going = tl.max(open.to(tl.int32), axis=0) > 0
                # The derivative of p in c is -u.
                out -= step_taken[:, None] * tilted
                mean_log -= step_taken * (tilted_log + steepness.to(tl.float32))
                level = new

    spoiled = (maximum != maximum)[:, None]
    out = tl.where(spoiled, maximum[:, None], out)
    tl.store(ANCHOR + head * queries + i, anchor, mask=inside)
    tl.store(LEVEL + head * queries + i, level, mask=inside)
    store_rows(OUT + head * queries * D, out, block * BM, queries, D, DP, BM)
    if GRADIENTS and MODE != ENTMAX_HIGH:
        mass = steepness.to(tl.float32)
        tilted = tilted / tl.where(mass == 0.0, 1.0, mass)[:, None]
        tilted = tl.where(spoiled, maximum[:, None], tilted)
        store_rows(TILTED + head * queries * D, tilted, block * BM, queries, D, DP, BM)
        if MODE == ENTMAX_LOW:
            tl.store(MEAN_LOG + head * queries + i, mean_log, mask=inside)
