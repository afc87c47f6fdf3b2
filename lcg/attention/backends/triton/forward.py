"""Forward kernels: softmax and ReLU, entmax of rows of one tile, and of longer ones (2502.12082).

Softmax and ReLU need no threshold: one pass over the keys of a row. Rows of entmax whose keys fit
one tile are scored once and solved in registers. A longer row is scored again in every sweep over
its keys, so that what counts is how many sweeps there are, over how many keys:

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

One program per block of queries of a head, or per PARTS of them.
"""

from collections import namedtuple

import triton
import triton.language as tl

from lcg.attention.backends.triton.rows import (
    ENTMAX_HIGH,
    ENTMAX_LOW,
    HIDDEN,
    SEEN,
    SOFTMAX,
    SPARSEMAX,
    View,
    listed_tile,
    load_keys,
    prepare_rows,
    product,
    round_rows,
    row_maximum,
    score_tile,
    select_head,
    select_program,
    select_rows,
    sound,
    store_rows,
    weigh,
)
from lcg.attention.backends.triton.thresholds import (
    SWEEPS,
    UNIT,
    add_sums,
    halve,
    highest,
    next_level,
    no_sums,
    row_sums,
    safe_step,
    solve_high,
    solve_tile,
)

CLOSE = tl.constexpr(1e-4)
"""A row of lanes must sum this near to 1 before the last step to its threshold."""
MARGIN = tl.constexpr(1e-5)
"""By how much a lower bound of a threshold is lowered, for the rounding it was found with."""
NEAR = tl.constexpr(0.03)
"""The largest step after which the output is worth a try."""
ALLOWED = tl.constexpr(2e-5)
"""The mean of values under u may be off by so much, as a share of them, where the last step is
taken without another sweep; for α ≤ 1.5, where u has a derivative."""
ALLOWED_16 = tl.constexpr(3e-4)
"""The same for values of 16 bits, whose own rounding is ten times as much."""
ROUNDING = tl.constexpr(1.2e-7)
"""Float32 may round an edge by so much, as a share of its magnitude."""


Reach = namedtuple("Reach", "leading first last depth")
"""The keys that blocks of queries may look at: the number of keys before the first masked one [b],
None without a key mask; first key and end of the window [b h i], None where the bias leaves out no
key; and the number of halvings that find a place among the keys."""

Candidates = namedtuple("Candidates", "support moved count listed")
"""How many keys of a row lie above a bound, and how far c has come from it [b h q]; how many blocks
of keys a block of queries may give weight to [b h i], and which [b h i j]."""


@triton.jit
def visible_extent(rows, reach, head, C):
    """For each row, count the first keys among which are all that it sees, and the first keys all
    of which it sees; 0 where the block reaches beyond the queries. Positions of keys ascend.
    """
    end = tl.zeros_like(rows.i) + head.keys
    if C.CAUSAL:
        at = tl.load(head.q_positions + rows.i, mask=rows.inside, other=0)
        low = tl.zeros_like(rows.i)
        for _halving in range(reach.depth):
            middle = (low + end) // 2
            searching = low < end
            seen = tl.load(head.k_positions + middle, mask=searching, other=0) <= at
            end = tl.where(searching & (seen == 0), middle, end)
            low = tl.where(searching & seen, middle + 1, low)
    end = tl.where(rows.inside, end, 0)
    leading = head.keys if reach.leading is None else tl.load(reach.leading + head.sample)
    return end, tl.minimum(end, leading)


@triton.jit
def one_pass_kernel(inputs, reach, results, C):
    """Softmax with a running maximum and sum, or ReLU, which needs neither."""
    block, head, rows = select_program(inputs, C)
    end, full = visible_extent(rows, reach, head, C)
    first, last, full = 0, tl.cdiv(tl.max(end, axis=0), C.BN), tl.min(full, axis=0)
    tl.store(results.full + block, full)
    if reach.first is not None:
        first = tl.load(reach.first + block) // C.BN
        last = tl.cdiv(tl.load(reach.last + block), C.BN)
    active = results.active + block * inputs.k_blocks

    top = tl.full([C.BM], HIDDEN, tl.float32)
    total = tl.zeros([C.BM], tl.float32)
    out = tl.zeros([C.BM, C.DP], tl.float32)
    for n in range(first, last):
        k = load_keys(head.k, n, head, C)
        v = load_keys(head.v, n, head, C)
        y = score_tile(rows, k, n, full, head, C)
        z = y * inputs.scale
        if C.MODE == SOFTMAX:
            higher = tl.maximum(top, tl.max(z, axis=1))
            # A row that has seen no key: HIDDEN - HIDDEN is 0, and its weights must not be 1.
            base = tl.where(higher < SEEN, 0.0, higher)
            fade = tl.exp(tl.where(top < SEEN, HIDDEN, top - base))
            p = tl.exp(z - base[:, None])
            total = total * fade + tl.sum(p, axis=1)
            out = out * fade[:, None] + product(p, v, C)
            top = higher
            tl.store(active + n, 1)
        else:
            p = tl.maximum(z, 0.0, propagate_nan=tl.PropagateNan.ALL)
            out += product(p, v, C)
            weighty = (p > 0.0).to(tl.int32)
            tl.store(active + n, tl.max(tl.max(weighty, axis=1), axis=0))
    if C.MODE == SOFTMAX:
        total = tl.where(top < SEEN, 1.0, total)
        out = out / total[:, None]
        tl.store(results.anchor + rows.place, tl.where(top < SEEN, 0.0, top), mask=rows.inside)
        tl.store(results.level + rows.place, tl.log(total).to(tl.float64), mask=rows.inside)
    store_rows(results.out, out, rows, head, C)


@triton.jit
def tile_kernel(inputs, results, C):
    """Entmax of rows whose keys fit one tile; their scores stay in registers."""
    _, head, rows = select_program(inputs, C)
    k = load_keys(head.k, 0, head, C)
    full = tl.full([], 0, tl.int32)
    y = score_tile(rows, k, 0, full, head, C)
    maximum = row_maximum(y, inputs.scale)
    dead = ~sound(maximum)
    anchor = tl.where(dead, 0.0, maximum)
    if C.MODE == ENTMAX_HIGH:
        anchor, level = solve_high(y, rows, None, inputs.keys, full, anchor, dead, head, C)
    else:
        level = solve_tile(y, None, anchor, dead, head, C, ENOUGH=UNIT)
    p, _, _ = weigh(y, prepare_rows(anchor, level, head, C), head, C)
    v = load_keys(head.v, 0, head, C)
    out = tl.where((maximum == maximum)[:, None], product(p, v, C), maximum[:, None])
    tl.store(results.anchor + rows.place, anchor, mask=rows.inside)
    tl.store(results.level + rows.place, level, mask=rows.inside)
    store_rows(results.out, out, rows, head, C)


@triton.jit
def candidates_kernel(inputs, reach, results, candidates, C, PARTS: tl.constexpr):
    """Find the maximum of each row (HIDDEN if it sees no key), c after a step from a close bound,
    and how many keys lie above that bound; and for each block of queries the blocks of keys with
    any of these. A program has PARTS blocks of queries.
    """
    programs = tl.cdiv(inputs.q_blocks, PARTS)
    block = programs - 1 - tl.program_id(0) % programs  # those with most keys first
    number = (tl.program_id(0) // programs).to(tl.int64)
    head = select_head(inputs, number, C)
    rows = select_rows(inputs, head, block, PARTS * C.BM, C)
    part = block * PARTS + tl.arange(0, PARTS)
    parts = number * inputs.q_blocks + part
    there = part < inputs.q_blocks
    end, full = visible_extent(rows, reach, head, C)
    full_parts = tl.min(tl.reshape(full, [PARTS, C.BM]), axis=1)
    tl.store(results.full + parts, full_parts, mask=there)
    first, last, full = 0, tl.cdiv(tl.max(end, axis=0), C.BN), tl.min(full, axis=0)
    if reach.first is not None:
        firsts = tl.load(reach.first + parts, mask=there, other=inputs.keys)
        lasts = tl.load(reach.last + parts, mask=there, other=0)
        first, last = tl.min(firsts, axis=0) // C.BN, tl.cdiv(tl.max(lasts, axis=0), C.BN)

    largest = tl.full([PARTS * C.BM, C.BN], HIDDEN, tl.float32)
    second = tl.full([PARTS * C.BM, C.BN], HIDDEN, tl.float32)
    for n in range(first, last):
        k = load_keys(head.k, n, head, C)
        y = score_tile(rows, k, n, full, head, C)
        if C.MODE != ENTMAX_HIGH:
            second = tl.maximum(second, tl.minimum(largest, y))
        largest = tl.maximum(largest, y, propagate_nan=tl.PropagateNan.ALL)
    anchor = row_maximum(largest, inputs.scale)
    dead = ~sound(anchor)
    top = tl.where(dead, 0.0, anchor)
    if C.MODE == ENTMAX_HIGH:
        zero = tl.zeros_like(top)
        bound = View(top, top, zero - 1.00001 / head.epsilon, zero, zero)
    else:
        at = solve_tile(largest, second, top, dead, head, C, ENOUGH=CLOSE)
        at = tl.maximum(at - MARGIN * (1.0 + 0.02 * tl.abs(top)), 0.0)
        bound, at = round_rows(top, at, head, C)

    sums = no_sums(PARTS * C.BM)
    count = tl.zeros([PARTS], tl.int32)
    listed = candidates.listed + parts * inputs.k_blocks
    for n in range(first, last):
        k = load_keys(head.k, n, head, C)
        y = score_tile(rows, k, n, full, head, C)
        if C.MODE <= SPARSEMAX:
            p, u, _ = weigh(y, bound, head, C)
            more = row_sums(p, u, C)
            sums = add_sums(sums, more)
            reached = more[0]
        else:
            reached = tl.max(y, axis=1) * inputs.scale - bound.edge - bound.rest
        alive = (tl.max(tl.reshape(reached, [PARTS, C.BM]), axis=1) > 0.0).to(tl.int32)
        if C.MODE == ENTMAX_LOW:  # noqa: SIM102  (the inner one is the device's)
            if tl.max(alive, axis=0) != 0:
                p, u, _ = weigh(y, bound, head, C)
                sums = add_sums(sums, row_sums(p, u, C))
        # What is no candidate is overwritten by the next one.
        tl.store(listed + count, n, mask=there)
        count += alive
    tl.store(candidates.count + parts, count, mask=there)
    tl.store(results.anchor + rows.place, anchor, mask=rows.inside)
    if C.MODE != ENTMAX_HIGH:
        total, steepness, support = sums
        total = tl.where(dead, 1.0, total)
        new = tl.maximum(next_level(at, total, steepness, support, head, C, True), 0.0)
        tl.store(results.level + rows.place, new, mask=rows.inside)
        tl.store(candidates.moved + rows.place, tl.abs(new - at).to(tl.float32), mask=rows.inside)
        tl.store(candidates.support + rows.place, support.to(tl.float32), mask=rows.inside)


@triton.jit
def entmax_kernel(inputs, results, candidates, C, GRADIENTS: tl.constexpr, NEWTON: tl.constexpr):
    """The threshold of each row and the output, over the blocks that `candidates_kernel` listed.

    GRADIENTS: with the mean of the values under u, Σ p log p where α may be learned, and which
    blocks hold weight; not for α > 2, whose backward pass finds its means itself.
    """
    block, head, rows = select_program(inputs, C)
    maximum = tl.load(results.anchor + rows.place, mask=rows.inside, other=HIDDEN)
    dead = ~sound(maximum)
    anchor = tl.where(dead, 0.0, maximum)
    count = tl.load(candidates.count + block)
    full = tl.load(results.full + block)
    listed = candidates.listed + block * inputs.k_blocks
    active = results.active + block * inputs.k_blocks

    if C.MODE == ENTMAX_HIGH:
        anchor, level = solve_high(None, rows, listed, count, full, anchor, dead, head, C)
    else:
        level = tl.load(results.level + rows.place, mask=rows.inside, other=0.0)
        support = tl.load(candidates.support + rows.place, mask=rows.inside, other=0.0)
        moved = tl.load(candidates.moved + rows.place, mask=rows.inside, other=0.0)
        # The bound it came from, whose edge was rounded to float32.
        low = tl.maximum(level - (1.0 + 1e-6) * moved - 1e-6 - ROUNDING * tl.abs(anchor), 0.0)
        high = tl.zeros([C.BM], tl.float64) + highest(head)
        far = (tl.max(moved, axis=0) > NEAR) & (count > 0)
        for step in range(SWEEPS):
            if far:
                view, level = round_rows(anchor, level, head, C)
                sums = no_sums(C.BM)
                for t in range(count):
                    _, _, y = listed_tile(listed, t, rows, full, head, C)
                    p, u, _ = weigh(y, view, head, C)
                    sums = add_sums(sums, row_sums(p, u, C))
                new, low, high, open = safe_step(level, low, high, sums, dead, head, C, True)
                new = halve(step, new, low, high, open, NEWTON)
                far = tl.max(tl.where(open, tl.abs(new - level), 0.0), axis=0) > NEAR
                level = new

    out = tl.zeros([C.BM, C.DP], tl.float32)
    tilted = tl.zeros([C.BM, C.DP], tl.float32)
    total, steepness = tl.zeros([C.BM], tl.float64), tl.zeros([C.BM], tl.float64)
    mean_log = tl.zeros([C.BM], tl.float32)
    tilted_log = tl.zeros([C.BM], tl.float32)
    going = count > 0
    for step in range(SWEEPS):
        if going:
            view = prepare_rows(anchor, level, head, C)
            out = tl.zeros([C.BM, C.DP], tl.float32)
            tilted = tl.zeros([C.BM, C.DP], tl.float32)
            total, steepness = tl.zeros([C.BM], tl.float64), tl.zeros([C.BM], tl.float64)
            mean_log = tl.zeros([C.BM], tl.float32)
            tilted_log = tl.zeros([C.BM], tl.float32)
            for t in range(count):
                n, _, y = listed_tile(listed, t, rows, full, head, C)
                v = load_keys(head.v, n, head, C)
                p, u, log_p = weigh(y, view, head, C)
                out += product(p, v, C)
                more = tl.sum(p, axis=1)
                if GRADIENTS:
                    tl.store(active + n, tl.max(more, axis=0) > 0.0)
                if C.MODE != ENTMAX_HIGH:
                    tilted += product(u, v, C)
                    total += more.to(tl.float64)
                    steepness += tl.sum(u, axis=1).to(tl.float64)
                if GRADIENTS and C.MODE == ENTMAX_LOW:
                    safe_log = tl.where(p > 1e-30, log_p, 0.0)
                    mean_log += tl.sum(p * safe_log, axis=1)
                    tilted_log += tl.sum(u * safe_log, axis=1)
            if C.MODE == ENTMAX_HIGH:
                going = count < 0
            else:
                sums = (total, steepness, total)
                new, low, high, open = safe_step(level, low, high, sums, dead, head, C, False)
                if C.MODE != SPARSEMAX:
                    share = ALLOWED if inputs.v.dtype.element_ty == tl.float32 else ALLOWED_16
                    allowed = tl.where(head.epsilon <= 0.5, share, 0.0) * steepness
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
    tl.store(results.anchor + rows.place, anchor, mask=rows.inside)
    tl.store(results.level + rows.place, level, mask=rows.inside)
    store_rows(results.out, out, rows, head, C)
    if GRADIENTS and C.MODE != ENTMAX_HIGH:
        mass = steepness.to(tl.float32)
        tilted = tilted / tl.where(mass == 0.0, 1.0, mass)[:, None]
        tilted = tl.where(spoiled, maximum[:, None], tilted)
        store_rows(results.tilted, tilted, rows, head, C)
        if C.MODE == ENTMAX_LOW:
            tl.store(results.mean_log + rows.place, mean_log, mask=rows.inside)
