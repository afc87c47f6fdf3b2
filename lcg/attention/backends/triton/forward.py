"""Forward kernels: one pass for softmax and ReLU; for entmax the row is solved first (2502.12082).

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
    SEEN,
    SOFTMAX,
    SPARSEMAX,
    load_rows,
    prepare_rows,
    product,
    round_rows,
    row_maximum,
    row_of,
    score_tile,
    sound,
    store_rows,
    visible_extent,
    weigh,
)
from lcg.attention.backends.triton.thresholds import (
    SWEEPS,
    edge_step,
    edge_sums,
    halve,
    highest,
    next_level,
    row_sums,
    safe_step,
    solve_tile,
    weight_step,
    weight_sums,
)

NEAR = tl.constexpr(0.03)
"""The largest step after which the output is worth a try."""
ALLOWED = tl.constexpr(2e-5)
"""How far the mean of values under u may be off, as a share of them, for the last step to be taken
without another sweep; for α ≤ 1.5, where u has a derivative."""
ALLOWED_16 = tl.constexpr(3e-4)
"""The same for values of 16 bits, whose own rounding is ten times as much."""
MARGIN = tl.constexpr(1e-5)
"""By how much a lower bound of a threshold is lowered, for the rounding it was found with."""


@triton.jit
def any_of(condition):
    """Whether a tile of booleans holds a true one, as 0 or 1."""
    return tl.max(tl.max(condition.to(tl.int32), axis=1), axis=0)


@triton.jit
def streaming_kernel(
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
    NEWTON: tl.constexpr,
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
    """Of each row the maximum (HIDDEN if it sees no key), c after a step from a close bound, and
    how many keys lie above that bound; of each block of queries the blocks of keys with any of
    these. A program has PARTS blocks of queries.
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
        bound = (top, top - 1.00001 / epsilon, zero, zero, zero)
    else:
        at, low, far = solve_tile(
            largest, second, top, dead, keys, scale, exact, MODE, NEWTON, True
        )
        at = tl.maximum(tl.where(far, low, at) - MARGIN * (1.0 + 0.02 * tl.abs(top)), 0.0)
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
            reached = tl.max(y, axis=1) * scale - bound[1]
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
        low = tl.maximum(level - (1.0 + 1e-6) * moved - 1e-6, 0.0)  # the bound it came from
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
