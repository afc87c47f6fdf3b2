"""Backward kernels: rows of one tile, and longer ones, dQ first, then dK and dV.

dS = U∘(dP - δ), U = P^(2-α) on the support, δ = Σ U dP / Σ U (2502.12082). For longer rows δ is the
product of the output's gradient with what the forward pass kept, the mean of the values under U, so
that both kernels pass once over the blocks in which there is weight: `list_kernel` lists them, of
each block of queries and of each block of keys.
"""

from collections import namedtuple

import triton
import triton.language as tl

from lcg.attention.backends.triton.rows import (
    CEILING,
    ENTMAX_HIGH,
    ENTMAX_LOW,
    HIDDEN,
    RELU,
    SEEN,
    SOFTMAX,
    listed_tile,
    load_keys,
    load_rows,
    prepare_rows,
    product,
    score_tile,
    select_head,
    select_program,
    select_rows,
    store_columns,
    store_keys,
    store_rows,
    stored_product,
    table_column,
    weigh,
)

LISTS = tl.constexpr(16)
"""Lists that one program makes."""
CHUNK = tl.constexpr(128)
"""Items that it looks at together."""


Gradients = namedtuple(
    "Gradients", "out q k v row_epsilon centre mean lowest table_sums rows columns"
)
"""The gradient of the output, and those to be made: that of ε by rows [b h q], and those of the
bias, in float64, each None where nobody learns; and of rows longer than a tile what
`score_gradient` takes [b h q]. Those of the table add up."""

Lists = namedtuple("Lists", "count order")
"""The active blocks of each block: how many, and which, in order."""


@triton.jit
def load_gradient(results, gradients, rows, head, C):
    """The gradient of the output of some rows, and what `weigh` needs of them."""
    grad = load_rows(gradients.out, rows, head, C)
    anchor = tl.load(results.anchor + rows.place, mask=rows.inside, other=0.0)
    level = tl.load(results.level + rows.place, mask=rows.inside, other=0.0)
    return grad, prepare_rows(anchor, level, head, C)


@triton.jit
def score_gradient(y, p, u, dp, view, means, head, C):
    """dL/dz of a tile from dL/dp: u (dL/dp - δ), with δ = Σ u dL/dp / Σ u for entmax (2502.12082).

    means are (centre, mean, lowest) of rows. centre is δ. Above α = 2 it is dL/dp at the lowest
    supported key, mean is δ relative to it, and lowest the gradient of that key: minus the sum of
    all others, which its own u would swamp.
    """
    centre, mean, lowest = means
    if C.MODE == RELU:
        return u * dp
    elif C.MODE <= ENTMAX_LOW:
        return u * (dp - centre[:, None])
    else:
        difference = dp - centre[:, None]
        ds = tl.minimum(tl.maximum(u * (difference - mean[:, None]), -CEILING), CEILING)
        at_edge = y * head.scale == view.anchor[:, None]
        ds = tl.where(at_edge & (difference == 0.0), lowest[:, None], ds)
        return tl.where(p > 0.0, ds, 0.0)


@triton.jit
def lowest_gradient(y, dp, view, head):
    """α > 2: dL/dp at the lowest supported key of each row, HIDDEN if that is not in this tile."""
    at_edge = (y * head.scale == view.anchor[:, None]) & (y > SEEN)
    return tl.max(tl.where(at_edge, dp, HIDDEN), axis=1)


@triton.jit
def high_means(p, u, log_p, difference, view, head):
    """α > 2: of the rows of a tile Σ (p/P)^(2-α), that with dP, and what the lowest key's dS is."""
    log_weight = tl.log(tl.maximum(view.weight, 1e-37))[:, None]
    relative = tl.exp(tl.minimum((1.0 - head.epsilon) * (log_p - log_weight), 0.0))
    relative = tl.where(p > 0.0, relative, 0.0)
    mass = tl.sum(relative, axis=1)
    return mass, tl.sum(relative * difference, axis=1), -tl.sum(u * difference, axis=1)


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
def alpha_moment(p, log_p, mean_log, head):
    """The part of M = Σ p ℓ² curve(-ε ℓ) of a tile, ℓ = log p - Σ p log p."""
    live = p > 1e-30
    centred = tl.where(live, log_p - mean_log[:, None], 0.0)
    curve = _curve(-head.epsilon * centred)
    return tl.sum(tl.where(live, p, 0.0) * centred * centred * curve, axis=1)


@triton.jit
def alpha_gradient(p, log_p, dp, mean_log, mean_dp, normaliser, head):
    """The part of dL/dε of a tile, regular down to ε = 0 (1909.00015).

    With u = p^(1-ε), p~ = u / Σ u and log(p~/p) = ε v, v = -ℓ - ε N, N = log(1 + ε² M) / ε²:

        dp/dε = p (N - v² curve(ε v) + (Σ p log p) v (e^(ε v) - 1)/(ε v))

    where curve(x) = (e^x - 1 - x) / x². The same as the usual (p - p~)/ε² + (h - p~ Σ h)/ε, whose
    terms cancel as ε → 0.
    """
    live = p > 1e-30
    centred = tl.where(live, log_p - mean_log[:, None], 0.0)
    v = -centred - head.epsilon * normaliser[:, None]
    x = head.epsilon * v
    curve = _curve(x)
    rate = normaliser[:, None] - v * v * curve + mean_log[:, None] * v * (1.0 + x * curve)
    change = tl.where(live, p, 0.0) * rate
    return tl.sum(change * (dp - mean_dp[:, None]), axis=1)


@triton.jit
def alpha_normaliser(moment, head):
    """N = log(1 + ε² M) / ε², of the rows' M."""
    square = head.exact * head.exact
    return (tl.log(1.0 + square * moment.to(tl.float64)) / square).to(tl.float32)


@triton.jit
def add_table_gradient(ds, rows, n, gradients, head, C):
    """Add the gradients of a tile's scores to those of the table's entries.

    In float64, so that the order of additions, which is that of chance, is lost in the rounding.
    """
    j = n * C.BN + tl.arange(0, C.BN)
    places = gradients.table_sums + head.index * head.distances + table_column(rows, j, head)
    tl.atomic_add(places, ds.to(tl.float64), mask=ds != 0.0, sem="relaxed")


@triton.jit
def row_gradient(ds, C):
    """Sum the gradients of a tile's scores over keys: nothing where the weights of a row sum to
    one, which are the same for all u; there a sum would be the rounding of δ.
    """
    if C.MODE == RELU:
        return tl.sum(ds, axis=1)
    else:
        return tl.zeros([C.BM], tl.float32)


@triton.jit
def tile_backward_kernel(inputs, results, gradients, C):
    """Rows of one tile: dQ, dK, dV and dL/dε of all queries of the heads that share some keys."""
    group = select_head(inputs, tl.program_id(0).to(tl.int64) * inputs.shared, C)
    full = tl.full([], 0, tl.int32)
    k = load_keys(inputs.k, 0, group, C)
    v = load_keys(inputs.v, 0, group, C)
    dk = tl.zeros([C.BN, C.DP], tl.float32)
    dv = tl.zeros([C.BN, C.DP], tl.float32)
    d_column = tl.zeros([C.BN], tl.float32)
    for turn in range(inputs.shared * inputs.q_blocks):
        number = tl.program_id(0).to(tl.int64) * inputs.shared + turn // inputs.q_blocks
        head = select_head(inputs, number, C)
        rows = select_rows(inputs, head, turn % inputs.q_blocks, C.BM, C)
        grad, view = load_gradient(results, gradients, rows, head, C)
        y = score_tile(rows, k, 0, full, head, C)
        dp = stored_product(grad, tl.trans(v), C)
        p, u, log_p = weigh(y, view, head, C)
        centre = tl.zeros([C.BM], tl.float32)
        mean, lowest = centre, centre
        if C.MODE == ENTMAX_HIGH:
            centre = lowest_gradient(y, dp, view, head)
            centre = tl.where(centre < SEEN, 0.0, centre)
            mass, mean, lowest = high_means(p, u, log_p, dp - centre[:, None], view, head)
            mass = tl.where(mass == 0.0, 1.0, mass)
            mean, lowest = mean / mass, lowest / mass
        elif C.MODE != RELU:
            mass = tl.sum(u, axis=1)
            centre = tl.sum(u * dp, axis=1) / tl.where(mass == 0.0, 1.0, mass)
        ds = score_gradient(y, p, u, dp, view, (centre, mean, lowest), head, C)
        if gradients.row_epsilon is not None:
            mean_log = tl.sum(tl.where(p > 1e-30, p * log_p, 0.0), axis=1)
            mean_dp = tl.sum(p * dp, axis=1)
            normaliser = alpha_normaliser(alpha_moment(p, log_p, mean_log, head), head)
            d_epsilon = alpha_gradient(p, log_p, dp, mean_log, mean_dp, normaliser, head)
            tl.store(gradients.row_epsilon + rows.place, d_epsilon, mask=rows.inside)
        if gradients.table_sums is not None:
            add_table_gradient(ds, rows, 0, gradients, head, C)
        if gradients.rows is not None:
            tl.store(gradients.rows + rows.place, row_gradient(ds, C), mask=rows.inside)
            d_column = tl.where(turn % inputs.q_blocks == 0, 0.0, d_column) + tl.sum(ds, axis=0)
            store_columns(gradients.columns, d_column, 0, number, head, C)
        dv += product(tl.trans(p), grad, C)
        dk += product(tl.trans(ds), rows.q, C)
        store_rows(gradients.q, product(ds, k, C) * inputs.scale, rows, head, C)
    store_keys(gradients.k, dk * inputs.scale, 0, group, C)
    store_keys(gradients.v, dv, 0, group, C)


@triton.jit
def list_kernel(active, lists, total, length, list_stride, item_stride):
    """List the active items of each of `total` lists, in order, and count them: order
    [h total length].
    """
    blocks = tl.cdiv(total, LISTS)
    head = (tl.program_id(0) // blocks).to(tl.int64)
    each = tl.program_id(0) % blocks * LISTS + tl.arange(0, LISTS)
    there = each < total
    flags_of = active + head * total * length + each.to(tl.int64) * list_stride
    order_of = lists.order + (head * total + each) * length
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
    tl.store(lists.count + head * total + each, count, mask=there)


@triton.jit
def listed_gradient(listed, t, rows, grad, full, head, C):
    """As `listed_tile`: keys and scores, and dL/dp of the tile."""
    n, k, y = listed_tile(listed, t, rows, full, head, C)
    v = load_keys(head.v, n, head, C)
    return k, y, stored_product(grad, tl.trans(v), C)


@triton.jit
def dq_kernel(inputs, results, gradients, lists, C):
    """dQ, dL/dε, and of each row what dS needs; one block of queries each."""
    block, head, rows = select_program(inputs, C)
    grad, view = load_gradient(results, gradients, rows, head, C)
    full = tl.load(results.full + block)
    count = tl.load(lists.count + block)
    listed = lists.order + block * inputs.k_blocks

    centre = tl.zeros([C.BM], tl.float32)
    mean = tl.zeros([C.BM], tl.float32)
    lowest = tl.zeros([C.BM], tl.float32)
    if C.MODE == ENTMAX_HIGH:
        centre = tl.full([C.BM], HIDDEN, tl.float32)
        for t in range(count):
            _, y, dp = listed_gradient(listed, t, rows, grad, full, head, C)
            centre = tl.maximum(centre, lowest_gradient(y, dp, view, head))
        centre = tl.where(centre < SEEN, 0.0, centre)
        mass = tl.zeros([C.BM], tl.float32)
        for t in range(count):
            _, y, dp = listed_gradient(listed, t, rows, grad, full, head, C)
            p, u, log_p = weigh(y, view, head, C)
            more, shift, low = high_means(p, u, log_p, dp - centre[:, None], view, head)
            mass += more
            mean += shift
            lowest += low
        mass = tl.where(mass == 0.0, 1.0, mass)
        mean = mean / mass
        lowest = lowest / mass
    elif C.MODE != RELU:
        tilted = load_rows(results.out if C.MODE == SOFTMAX else results.tilted, rows, head, C)
        centre = tl.sum(grad.to(tl.float32) * tilted.to(tl.float32), axis=1)
    if gradients.row_epsilon is not None:
        out = load_rows(results.out, rows, head, C)
        mean_dp = tl.sum(grad.to(tl.float32) * out.to(tl.float32), axis=1)
        mean_log = tl.load(results.mean_log + rows.place, mask=rows.inside, other=0.0)
        moment = tl.zeros([C.BM], tl.float32)
        for t in range(count):
            _, _, y = listed_tile(listed, t, rows, full, head, C)
            p, _, log_p = weigh(y, view, head, C)
            moment += alpha_moment(p, log_p, mean_log, head)
        normaliser = alpha_normaliser(moment, head)

    dq = tl.zeros([C.BM, C.DP], tl.float32)
    d_epsilon = tl.zeros([C.BM], tl.float32)
    d_row = tl.zeros([C.BM], tl.float32)
    if count > 0:  # a loop that may be skipped has its products one at a time
        for t in range(count):
            k, y, dp = listed_gradient(listed, t, rows, grad, full, head, C)
            p, u, log_p = weigh(y, view, head, C)
            ds = score_gradient(y, p, u, dp, view, (centre, mean, lowest), head, C)
            dq += product(ds, k, C)
            if gradients.table_sums is not None:
                n = tl.load(listed + t).to(tl.int32)
                add_table_gradient(ds, rows, n, gradients, head, C)
            if gradients.rows is not None:
                d_row += row_gradient(ds, C)
            if gradients.row_epsilon is not None:
                d_epsilon += alpha_gradient(p, log_p, dp, mean_log, mean_dp, normaliser, head)
    store_rows(gradients.q, dq * inputs.scale, rows, head, C)
    tl.store(gradients.centre + rows.place, centre, mask=rows.inside)
    if C.MODE == ENTMAX_HIGH:
        tl.store(gradients.mean + rows.place, mean, mask=rows.inside)
        tl.store(gradients.lowest + rows.place, lowest, mask=rows.inside)
    if gradients.row_epsilon is not None:
        tl.store(gradients.row_epsilon + rows.place, d_epsilon, mask=rows.inside)
    if gradients.rows is not None:
        tl.store(gradients.rows + rows.place, d_row, mask=rows.inside)


@triton.jit
def dkv_kernel(inputs, results, gradients, lists, C):
    """dK and dV of one block of keys, summed over the heads that share them."""
    n = tl.program_id(0) % inputs.k_blocks
    first = (tl.program_id(0) // inputs.k_blocks).to(tl.int64) * inputs.shared
    group = select_head(inputs, first, C)
    k = load_keys(inputs.k, n, group, C)
    v = load_keys(inputs.v, n, group, C)
    dk = tl.zeros([C.BN, C.DP], tl.float32)
    dv = tl.zeros([C.BN, C.DP], tl.float32)
    for share in range(inputs.shared):
        number = first + share
        head = select_head(inputs, number, C)
        count = tl.load(lists.count + number * inputs.k_blocks + n)
        listed = lists.order + (number * inputs.k_blocks + n) * inputs.q_blocks
        d_column = tl.zeros([C.BN], tl.float32)
        if count > 0:  # a loop that may be skipped has its products one at a time
            for t in range(count):
                m = tl.load(listed + t).to(tl.int32)
                rows = select_rows(inputs, head, m, C.BM, C)
                grad, view = load_gradient(results, gradients, rows, head, C)
                centre = tl.load(gradients.centre + rows.place, mask=rows.inside, other=0.0)
                mean, lowest = centre, centre
                if C.MODE == ENTMAX_HIGH:
                    mean = tl.load(gradients.mean + rows.place, mask=rows.inside, other=0.0)
                    lowest = tl.load(gradients.lowest + rows.place, mask=rows.inside, other=0.0)
                full = tl.load(results.full + number * inputs.q_blocks + m)
                y = score_tile(rows, k, n, full, head, C)
                p, u, _ = weigh(y, view, head, C)
                dv += product(tl.trans(p), grad, C)
                dp = stored_product(grad, tl.trans(v), C)
                ds = score_gradient(y, p, u, dp, view, (centre, mean, lowest), head, C)
                dk += product(tl.trans(ds), rows.q, C)
                if gradients.columns is not None:
                    d_column += tl.sum(ds, axis=0)
        if gradients.columns is not None:
            store_columns(gradients.columns, d_column, n, number, head, C)
    store_keys(gradients.k, dk * inputs.scale, n, group, C)
    store_keys(gradients.v, dv, n, group, C)
