"""A tile of scores, and from scores to weights given the row's statistics, for all kernels.

A tile holds y = z / scale, so that the scale, 1/√d in most, is part of the one multiplication and
addition that brings a score z to the edge of its row's support.

The statistics of a row are two numbers, `anchor` in float32 and `level` in float64; with
ε = α - 1:

- softmax: the row maximum and log Σ exp(z - maximum).
- ReLU: none.
- entmax, α ≤ 2: the row maximum and c ≥ 0 with p = (1 + ε (z - maximum - c))₊^(1/ε).
- entmax, α > 2: the lowest supported score a and log P, its weight, with
  p = (P^ε + ε (z - a))^(1/ε) from a on. Above α = 2 no threshold fixes the smallest weight.

A score is float32 and so is everything done per score. c is float64, and the edge of the support,
maximum + c - 1/ε, is handed to the scores as a sum of two float32 numbers, so that thousands of
tied scores near the edge still sum to one. A step from one c to the next, which every warp that has
a part of the row repeats, is float32.
"""

from collections import namedtuple

import triton
import triton.language as tl

SOFTMAX = tl.constexpr(0)
RELU = tl.constexpr(1)
ENTMAX_15 = tl.constexpr(2)
SPARSEMAX = tl.constexpr(3)
ENTMAX_LOW = tl.constexpr(4)
"""Any other α below 2."""
ENTMAX_HIGH = tl.constexpr(5)
"""α above 2."""

HIDDEN = tl.constexpr(-1e30)
"""The score of a key that is not visible: finite, so that no difference is NaN."""
SEEN = tl.constexpr(-1e27)
"""Below this a score is HIDDEN, or such a score after arithmetic."""
TINY = tl.constexpr(1e-37)
STEEP = tl.constexpr(75.0)
"""Largest log of a slope above α = 2, where slopes are unbounded; beyond it they saturate."""
CEILING = tl.constexpr(1e30)
LARGE = tl.constexpr(2.0**22)
"""From this magnitude on float64 does not tell an edge from its anchor closely enough."""
GROUP = tl.constexpr(128)
"""Rows whose separable bias is taken relative to the first of them; no block has rows of two."""


Constants = namedtuple("Constants", "MODE CAUSAL PRECISION D DP BM BN")
"""The compile-time constants of a kernel, each a `tl.constexpr`. PRECISION is that of products:
"mixed" for 16-bit types, else as `tl.dot` has it. D is head_dim, DP the power of 2 that holds it.
A tile has BM queries and BN keys."""

Inputs = namedtuple(
    "Inputs",
    "q k v epsilon q_positions k_positions slopes key_mask q_ids k_ids table rows columns window "
    "queries keys heads shared q_blocks k_blocks scale table_start distances",
)
"""The inputs of every kernel: q [b h q d], k and v [b g k d], contiguous, ε = α - 1 [h] in float64,
and what is None where it is not given, without which kernels are then compiled: slopes [h] in
float32, key_mask [b k] in bytes, ids [b q] and [b k] where they are not the positions, and, of what
is added to y = z / scale, a table [h distances] in float32, the first column that of the distance
`table_start`, and rows [b h q] and columns [b h k] in float64; window [h]. And sizes: `shared`
heads of queries share keys."""

Results = namedtuple("Results", "out anchor level tilted mean_log full active")
"""The result of a forward pass: out [b h q d] and, for its backward pass, the statistics of rows
[b h q], anchor and level, and what is empty where unused: tilted [b h q d], the mean of the values
under u = p^(2-α), mean_log [b h q], Σ p log p, full [b h i], the number of first keys that every
query of a block sees, int32, and active [b h i j], 1 where a block holds weight, uint8."""

Head = namedtuple(
    "Head",
    "k v q_positions k_positions slope key_mask q_ids k_ids table table_start distances columns "
    "window sample index first_row first_key queries keys scale exact epsilon",
)
"""One head of one sample, the `index`-th of it: what is read of it, the places of its first query
and key among those of all heads, and what its rows share: ε is `exact` in float64 and `epsilon` in
float32."""

Rows = namedtuple("Rows", "i inside place q u shift")
"""A block of queries of a head: their indices, which of them are there, their places among the rows
of all heads, q, and of a separable bias u relative to that of a row nearby, the shift."""

View = namedtuple("View", "anchor edge rest gain weight")
"""The numbers of rows that `weigh` needs, in float32: the anchor, the edge, its rest or P^ε,
1/(width of the support), and the weight of the anchor."""


@triton.jit
def select_head(inputs, number, C):
    """Select a head by its number among those of all samples."""
    sample, head = number // inputs.heads, number % inputs.heads
    exact = tl.load(inputs.epsilon + head)
    return Head(
        inputs.k,
        inputs.v,
        inputs.q_positions,
        inputs.k_positions,
        None if inputs.slopes is None else tl.load(inputs.slopes + head),
        None if inputs.key_mask is None else inputs.key_mask + sample * inputs.keys,
        None if inputs.q_ids is None else inputs.q_ids + sample * inputs.queries,
        None if inputs.q_ids is None else inputs.k_ids + sample * inputs.keys,
        None if inputs.table is None else inputs.table + head * inputs.distances,
        inputs.table_start,
        inputs.distances,
        None if inputs.columns is None else inputs.columns + number * inputs.keys,
        None if inputs.window is None else tl.load(inputs.window + head),
        sample,
        head,
        number * inputs.queries,
        number // inputs.shared * inputs.keys,  # b·h + h' over h/g: b·g + g'
        inputs.queries,
        inputs.keys,
        inputs.scale,
        exact,
        exact.to(tl.float32),
    )


@triton.jit
def select_rows(inputs, head, block, SIZE: tl.constexpr, C):
    """Load block `block` of SIZE queries of a head."""
    i = block * SIZE + tl.arange(0, SIZE)
    inside = i < head.queries
    places, there = _places(inputs.q, head.first_row, i, inside, C)
    q = tl.load(places, mask=there, other=0.0)
    if inputs.rows is None:
        return Rows(i, inside, head.first_row + i, q, None, None)
    else:
        # Sums over many tokens are large, and what matters are their small differences.
        shift = tl.load(inputs.rows + head.first_row + block * SIZE // GROUP * GROUP)
        u = tl.load(inputs.rows + head.first_row + i, mask=inside, other=0.0) - shift
        return Rows(i, inside, head.first_row + i, q, u.to(tl.float32), shift)


@triton.jit
def select_program(inputs, C):
    """The block of queries of this program, those with most keys first: its place among the blocks
    of all heads, its head, and its rows.
    """
    block = inputs.q_blocks - 1 - tl.program_id(0) % inputs.q_blocks
    number = (tl.program_id(0) // inputs.q_blocks).to(tl.int64)
    head = select_head(inputs, number, C)
    rows = select_rows(inputs, head, block, C.BM, C)
    return number * inputs.q_blocks + block, head, rows


@triton.jit
def _places(pointer, first, i, inside, C):
    """Where rows i of a contiguous [… D] matrix lie, counted from row `first`, and which entries
    of a tile [i DP] are inside.
    """
    dims = tl.arange(0, C.DP)
    places = pointer + first * C.D + i.to(tl.int64)[:, None] * C.D + dims[None, :]
    return places, inside[:, None] & (dims < C.D)[None, :]


@triton.jit
def load_rows(pointer, rows, head, C):
    """The entries of some rows in a [b h q d] tensor, zeros outside: [BM DP]."""
    places, there = _places(pointer, head.first_row, rows.i, rows.inside, C)
    return tl.load(places, mask=there, other=0.0)


@triton.jit
def store_rows(pointer, tile, rows, head, C):
    """The inverse of `load_rows`."""
    places, there = _places(pointer, head.first_row, rows.i, rows.inside, C)
    tl.store(places, tile.to(pointer.dtype.element_ty), mask=there)


@triton.jit
def load_keys(pointer, n, head, C):
    """The entries of block n of keys in a [b g k d] tensor, zeros outside: [BN DP]."""
    j = n * C.BN + tl.arange(0, C.BN)
    places, there = _places(pointer, head.first_key, j, j < head.keys, C)
    return tl.load(places, mask=there, other=0.0)


@triton.jit
def store_keys(pointer, tile, n, head, C):
    """The inverse of `load_keys`."""
    j = n * C.BN + tl.arange(0, C.BN)
    places, there = _places(pointer, head.first_key, j, j < head.keys, C)
    tl.store(places, tile.to(pointer.dtype.element_ty), mask=there)


@triton.jit
def store_columns(pointer, x, n, number, head, C):
    """Store a number for each key of block n in a [b h k] tensor, of head `number` of all."""
    j = n * C.BN + tl.arange(0, C.BN)
    tl.store(pointer + number * head.keys + j, x, mask=j < head.keys)


@triton.jit
def product(x, y, C):
    """x·y in float32 for x computed in float32 and y as stored.

    For 16-bit types x is rounded to the type of y; float16, whose range a gradient may exceed, is
    multiplied as tf32, with as many digits, the others cut off.
    """
    if C.PRECISION != "mixed":
        return tl.dot(x.to(tl.float32), y.to(tl.float32), input_precision=C.PRECISION)
    elif y.dtype == tl.float16:
        return tl.dot(x.to(tl.float32), y.to(tl.float32), input_precision="tf32")
    else:
        return tl.dot(x.to(y.dtype), y)


@triton.jit
def stored_product(x, y, C):
    """x·y in float32 for two operands as stored, exact for 16-bit types."""
    if C.PRECISION != "mixed":
        return tl.dot(x.to(tl.float32), y.to(tl.float32), input_precision=C.PRECISION)
    else:
        return tl.dot(x, y)


@triton.jit
def apart(q_places, k_places, rows, j, head):
    """Return the distances of rows from keys j, by the places of all queries and keys."""
    at = tl.load(q_places + rows.i, mask=rows.inside, other=0)
    key_at = tl.load(k_places + j, mask=j < head.keys, other=0)
    return at[:, None] - key_at[None, :]


@triton.jit
def distance(rows, j, head):
    """The distances of rows from keys j, by their ids."""
    if head.q_ids is None:
        return apart(head.q_positions, head.k_positions, rows, j, head)
    else:
        return apart(head.q_ids, head.k_ids, rows, j, head)


@triton.jit
def table_column(rows, j, head):
    """The columns of the table for rows and keys j; those of hidden keys are any."""
    column = distance(rows, j, head) - head.table_start
    return tl.minimum(tl.maximum(column.to(tl.int32), 0), head.distances - 1)


@triton.jit
def add_bias(y, rows, j, head):
    """y with the bias of the scores of rows and keys j, divided by the scale.

    Only here does a bias enter the scores of a tile.
    """
    if head.slope is not None:
        y = y - head.slope / head.scale * tl.abs(distance(rows, j, head)).to(tl.float32)
    if head.table is not None:
        y += tl.load(head.table + table_column(rows, j, head))
    if head.columns is not None:
        w = tl.load(head.columns + j, mask=j < head.keys, other=0.0) + rows.shift
        y += rows.u[:, None] + w.to(tl.float32)[None, :]
    return y


@triton.jit
def score_tile(rows, k, n, full, head, C):
    """y = q·k + bias / scale of rows and keys j of block n; HIDDEN where j is not seen.

    These queries see all of the first `full` keys, unless there is a window. Tiles of such, of a
    head without bias, are most, and are what the product is.
    Every kernel forms a score from the same tiles in the same orientation, and so with the same
    rounding: at the edge of the support it is on the same side in all of them.
    """
    y = stored_product(rows.q, tl.trans(k), C)
    j = n * C.BN + tl.arange(0, C.BN)
    plain = (full >= n * C.BN + C.BN).to(tl.int32)
    if head.slope is not None:
        plain = plain & (head.slope == 0.0).to(tl.int32)
    if head.table is not None or head.columns is not None or head.window is not None:
        plain = plain & 0
    if plain == 0:
        visible = rows.inside[:, None] & (j < head.keys)[None, :]
        if head.key_mask is not None:
            visible &= (tl.load(head.key_mask + j, mask=j < head.keys, other=0) != 0)[None, :]
        if C.CAUSAL or head.window is not None:
            order = apart(head.q_positions, head.k_positions, rows, j, head)
            if C.CAUSAL:
                visible &= order >= 0
            if head.window is not None:
                visible &= tl.abs(order) < head.window
        y = tl.where(visible, add_bias(y, rows, j, head), HIDDEN)
    return y


@triton.jit
def listed_tile(listed, t, rows, full, head, C):
    """The t-th of some listed blocks of keys: its number, keys and scores."""
    n = tl.load(listed + t).to(tl.int32)
    k = load_keys(head.k, n, head, C)
    return n, k, score_tile(rows, k, n, full, head, C)


@triton.jit
def row_maximum(y, scale):
    """The largest score of each row, HIDDEN if it sees no key, NaN if one is NaN or infinite: of
    a number and NaN a device's maximum is the number.
    """
    # NaN times 0 is NaN, and so is infinity; a score that has fallen to -infinity is HIDDEN.
    spoiled = tl.sum(tl.maximum(y, HIDDEN, propagate_nan=tl.PropagateNan.ALL) * 0.0, axis=1)
    return tl.where(spoiled == 0.0, tl.max(y, axis=1) * scale, float("nan"))


@triton.jit
def sound(anchor):
    """Mark rows that have weights: not those that see no key, nor those whose maximum is NaN."""
    return anchor >= SEEN


@triton.jit
def widest(head, C):
    """The width of a support at c = 0, for α ≤ 2: a division of float64 only for a general α."""
    if C.MODE == ENTMAX_15:
        width = 2.0
    elif C.MODE == SPARSEMAX:
        width = 1.0
    else:
        width = 1.0 / head.exact
    return width


@triton.jit
def prepare_rows(anchor, level, head, C):
    """From the statistics of rows to what `weigh` needs of them, in float32.

    For α = 1.5 the edge is half of it, as √p is half the distance from it. The edge of large scores
    is the anchor itself, and all of its width is the rest.
    """
    zero = tl.zeros_like(anchor)
    if C.MODE == SOFTMAX:
        return View(anchor, zero, zero, zero, level.to(tl.float32))
    elif C.MODE == RELU:
        return View(anchor, zero, zero, zero, zero)
    elif C.MODE <= ENTMAX_LOW:
        width = widest(head, C) - level
        part = 0.5 if C.MODE == ENTMAX_15 else 1.0
        exact = part * (anchor.to(tl.float64) - width)
        large = tl.abs(anchor) >= LARGE
        edge = tl.where(large, part * anchor, exact.to(tl.float32))
        rest = tl.where(large, -part * width, exact - edge.to(tl.float64)).to(tl.float32)
        weight = tl.exp(tl.log(head.exact * width) / head.exact)
        gain = (1.0 / width).to(tl.float32)
        return View(anchor, edge, rest, gain, weight.to(tl.float32))
    else:
        power = tl.exp(tl.maximum(head.exact * level, -600.0)).to(tl.float32)
        weight = tl.exp(tl.maximum(level, -600.0)).to(tl.float32)
        return View(anchor, zero, power, zero, weight)


@triton.jit
def round_rows(anchor, level, head, C):
    """The same for α ≤ 2 and a level so close to this one that its edge has no rest; and that.

    Large scores keep theirs, and so does a general α, whose weights are not of the edge alone.
    """
    view = prepare_rows(anchor, level, head, C)
    if C.MODE == ENTMAX_LOW:
        return view, level
    # The level whose edge the view's is: the inverse of `prepare_rows`.
    exact = view.edge.to(tl.float64)
    if C.MODE == ENTMAX_15:
        exact *= 2.0
    large = tl.abs(anchor) >= LARGE
    level = tl.where(large, level, exact - anchor.to(tl.float64) + widest(head, C))
    rest = tl.where(large, view.rest, 0.0)
    return View(anchor, view.edge, rest, view.gain, view.weight), level


@triton.jit
def weigh(y, view, head, C):
    """Weights p, slopes u = p^(2-α) on the support and 0 off it, and log p (0 where not needed).

    y is of `score_tile`, view of `prepare_rows`.
    """
    anchor, edge, rest = view.anchor[:, None], view.edge[:, None], view.rest[:, None]
    gain, weight = view.gain[:, None], view.weight[:, None]
    if C.MODE == ENTMAX_15:
        x = tl.maximum(tl.fma(y, tl.zeros_like(y) + 0.5 * head.scale, -edge) - rest, 0.0)
        return x * x, x, y
    elif C.MODE == SPARSEMAX:
        x = tl.maximum(tl.fma(y, tl.zeros_like(y) + head.scale, -edge) - rest, 0.0)
        return x, tl.where(x > 0.0, 1.0, 0.0), y
    z = y * head.scale
    if C.MODE == SOFTMAX:
        p = tl.exp((z - anchor) - weight)
        return p, p, z
    elif C.MODE == RELU:
        p = tl.maximum(z, 0.0)
        return p, tl.where(z > 0.0, 1.0, 0.0), z
    elif C.MODE == ENTMAX_LOW:
        # The ratio of this score's distance from the edge to the anchor's: above 1/2 by its
        # difference from 1, with log(1 + x) = log(y) x / (y - 1) for what y = 1 + x has lost, and
        # below from itself. Neither cancels.
        part = ((z - edge) - rest) * gain
        inside = part > 0.0
        below = (z - anchor) * gain
        near = below > -0.5
        ratio = tl.where(near, 1.0 + below, tl.maximum(part, TINY))
        lost = tl.where(near & (ratio != 1.0), ratio - 1.0, 1.0)
        log_part = tl.log(ratio) * (tl.where(near, below, 1.0) / lost)
        log_part = tl.where(ratio == 1.0, below, log_part) * (1.0 / head.epsilon)
        p = tl.where(inside, weight * tl.exp(log_part), 0.0)
        log_p = tl.log(weight) + log_part
        u = tl.where(inside, tl.exp((1.0 - head.epsilon) * log_p), 0.0)
        return p, u, log_p
    else:
        inside = z >= anchor
        x = tl.maximum(rest + head.epsilon * (z - anchor), TINY)
        log_p = tl.where(z == anchor, tl.log(tl.maximum(weight, TINY)), tl.log(x) / head.epsilon)
        p = tl.where(inside, tl.exp(log_p), 0.0)
        u = tl.where(inside, tl.exp(tl.minimum((1.0 - head.epsilon) * log_p, STEEP)), 0.0)
        return p, u, log_p
