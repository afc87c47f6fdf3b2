"""A tile of scores, and from scores to weights given the row's statistics, for all kernels.

A tile holds y = z √d, so that the factor 1/√d is part of the one multiplication and addition that
brings a score z to the edge of its row's support.

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


@triton.jit
def product(x, y, PRECISION: tl.constexpr):
    """x·y in float32 for x computed in float32 and y as stored.

    PRECISION "mixed" is for 16-bit types: x is rounded to the type of y; float16, whose range a
    gradient may exceed, is multiplied as tf32, with as many digits, the others cut off. Any other
    is `tl.dot`'s.
    """
    if PRECISION != "mixed":
        return tl.dot(x.to(tl.float32), y.to(tl.float32), input_precision=PRECISION)
    elif y.dtype == tl.float16:
        return tl.dot(x.to(tl.float32), y.to(tl.float32), input_precision="tf32")
    else:
        return tl.dot(x.to(y.dtype), y)


@triton.jit
def stored_product(x, y, PRECISION: tl.constexpr):
    """x·y in float32 for two operands as stored, exact for 16-bit types."""
    if PRECISION != "mixed":
        return tl.dot(x.to(tl.float32), y.to(tl.float32), input_precision=PRECISION)
    else:
        return tl.dot(x, y)


@triton.jit
def load_rows(pointer, first, length, D: tl.constexpr, DP: tl.constexpr, SIZE: tl.constexpr):
    """Rows first … first + SIZE of a contiguous [length D] matrix, zeros outside: [SIZE DP]."""
    rows = first + tl.arange(0, SIZE)
    dims = tl.arange(0, DP)
    inside = (rows < length)[:, None] & (dims < D)[None, :]
    return tl.load(pointer + rows.to(tl.int64)[:, None] * D + dims[None, :], mask=inside, other=0.0)


@triton.jit
def store_rows(pointer, tile, first, length, D: tl.constexpr, DP: tl.constexpr, SIZE: tl.constexpr):
    """The inverse of `load_rows`."""
    rows = first + tl.arange(0, SIZE)
    dims = tl.arange(0, DP)
    inside = (rows < length)[:, None] & (dims < D)[None, :]
    places = pointer + rows.to(tl.int64)[:, None] * D + dims[None, :]
    tl.store(places, tile.to(pointer.dtype.element_ty), mask=inside)


@triton.jit
def row_of(head, places, queries, keys, heads, scale, SLOPED: tl.constexpr):
    """Collect what the rows of one head of one sample share, as `score_tile` takes it.

    places is (positions of queries, of keys, key masks, slopes), of all samples and heads.
    """
    Q_POSITIONS, K_POSITIONS, KEY_MASK, SLOPES = places
    slope = tl.load(SLOPES + head % heads) if SLOPED else 0.0
    key_mask = KEY_MASK + head // heads * keys
    return queries, keys, Q_POSITIONS, K_POSITIONS, key_mask, slope, scale


@triton.jit
def visible_extent(i, row, leading, depth, CAUSAL: tl.constexpr):
    """For a block of queries i, count the first keys among which are all that any of them sees,
    and the first keys that each of them sees; 0 where the block reaches beyond the queries.

    leading is the number of first keys before the first masked one, depth the number of halvings
    that find a place among the keys, whose positions ascend. Both results are per query: int32.
    """
    queries, keys, q_positions, k_positions, _, _, _ = row
    inside = i < queries
    end = tl.zeros_like(i) + keys
    if CAUSAL:
        at = tl.load(q_positions + i, mask=inside, other=0)
        low = tl.zeros_like(i)
        for _halving in range(depth):
            middle = (low + end) // 2
            searching = low < end
            seen = tl.load(k_positions + middle, mask=searching, other=0) <= at
            end = tl.where(searching & (seen == 0), middle, end)
            low = tl.where(searching & seen, middle + 1, low)
    end = tl.where(inside, end, 0)
    return end, tl.minimum(end, leading)


@triton.jit
def score_tile(
    q,
    k,
    i,
    n,
    row,
    full,
    CAUSAL: tl.constexpr,
    MASKED: tl.constexpr,
    SLOPED: tl.constexpr,
    PRECISION: tl.constexpr,
    BN: tl.constexpr,
):
    """y = q·k - m √d |i - j| for queries i and keys j of block n; HIDDEN where j is not seen.

    row is (number of queries, of keys, positions of queries, of keys, key mask, slope, 1/√d); these
    queries see all of the first `full` keys. Tiles of such, of a head without slope, are most, and
    are what the product is.
    Every kernel forms a score from the same tiles in the same orientation, and so with the same
    rounding: at the edge of the support it is on the same side in all of them.
    """
    queries, keys, q_positions, k_positions, key_mask, slope, scale = row
    y = stored_product(q, tl.trans(k), PRECISION)
    j = n * BN + tl.arange(0, BN)
    plain = (n * BN + BN <= full).to(tl.int32)
    if SLOPED:
        plain = plain & (slope == 0.0).to(tl.int32)
    if plain == 0:
        visible = (i < queries)[:, None] & (j < keys)[None, :]
        if MASKED:
            visible &= (tl.load(key_mask + j, mask=j < keys, other=0) != 0)[None, :]
        if CAUSAL or SLOPED:
            at = tl.load(q_positions + i, mask=i < queries, other=0)
            key_at = tl.load(k_positions + j, mask=j < keys, other=0)
            apart = at[:, None] - key_at[None, :]
            if CAUSAL:
                visible &= apart >= 0
            if SLOPED:
                y -= slope / scale * tl.abs(apart).to(tl.float32)
        y = tl.where(visible, y, HIDDEN)
    return y


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
def widest(epsilon, MODE: tl.constexpr):
    """The width of a support at c = 0, for α ≤ 2: a division of float64 only for a general α."""
    if MODE == ENTMAX_15:
        width = 2.0
    elif MODE == SPARSEMAX:
        width = 1.0
    else:
        width = 1.0 / epsilon
    return width


@triton.jit
def prepare_rows(anchor, level, epsilon, MODE: tl.constexpr):
    """From the statistics of rows to what `weigh` needs of them, in float32.

    Returns (anchor, edge, rest of the edge or P^ε, 1/(width of the support), weight of the anchor);
    for α = 1.5 half the edge, as √p is half the distance from it. The edge of large scores is the
    anchor itself, and all of its width is the rest.
    """
    zero = tl.zeros_like(anchor)
    if MODE == SOFTMAX:
        return anchor, zero, zero, zero, level.to(tl.float32)
    elif MODE == RELU:
        return anchor, zero, zero, zero, zero
    elif MODE <= ENTMAX_LOW:
        width = widest(epsilon, MODE) - level
        part = 0.5 if MODE == ENTMAX_15 else 1.0
        exact = part * (anchor.to(tl.float64) - width)
        large = tl.abs(anchor) >= LARGE
        edge = tl.where(large, part * anchor, exact.to(tl.float32))
        rest = tl.where(large, -part * width, exact - edge.to(tl.float64)).to(tl.float32)
        weight = tl.exp(tl.log(epsilon * width) / epsilon)
        return anchor, edge, rest, (1.0 / width).to(tl.float32), weight.to(tl.float32)
    else:
        power = tl.exp(tl.maximum(epsilon * level, -600.0)).to(tl.float32)
        return anchor, zero, power, zero, tl.exp(tl.maximum(level, -600.0)).to(tl.float32)


@triton.jit
def round_rows(anchor, level, epsilon, MODE: tl.constexpr):
    """The same for α ≤ 2 and a level so close to this one that its edge has no rest; and that.

    Large scores keep theirs, and so does a general α, whose weights are not of the edge alone.
    """
    anchor, edge, rest, gain, weight = prepare_rows(anchor, level, epsilon, MODE)
    if MODE == ENTMAX_LOW:
        return (anchor, edge, rest, gain, weight), level
    large = tl.abs(anchor) >= LARGE
    level = tl.where(large, level, level_of(edge, anchor, epsilon, MODE))
    return (anchor, edge, tl.where(large, rest, 0.0), gain, weight), level


@triton.jit
def level_of(edge, anchor, epsilon, MODE: tl.constexpr):
    """The level whose edge this is: the inverse of `prepare_rows`, for α ≤ 2."""
    exact = edge.to(tl.float64)
    if MODE == ENTMAX_15:
        exact *= 2.0
    return exact - anchor.to(tl.float64) + widest(epsilon, MODE)


@triton.jit
def weigh(y, view, scale, epsilon, MODE: tl.constexpr):
    """Weights p, slopes u = p^(2-α) on the support and 0 off it, and log p (0 where not needed).

    y is of `score_tile`, view of `prepare_rows`, ε in float32.
    """
    anchor, edge, rest, gain, weight = view
    anchor, edge, rest = anchor[:, None], edge[:, None], rest[:, None]
    gain, weight = gain[:, None], weight[:, None]
    if MODE == ENTMAX_15:
        x = tl.maximum(tl.fma(y, tl.zeros_like(y) + 0.5 * scale, -edge) - rest, 0.0)
        return x * x, x, y
    elif MODE == SPARSEMAX:
        x = tl.maximum(tl.fma(y, tl.zeros_like(y) + scale, -edge) - rest, 0.0)
        return x, tl.where(x > 0.0, 1.0, 0.0), y
    z = y * scale
    if MODE == SOFTMAX:
        p = tl.exp((z - anchor) - weight)
        return p, p, z
    elif MODE == RELU:
        p = tl.maximum(z, 0.0)
        return p, tl.where(z > 0.0, 1.0, 0.0), z
    elif MODE == ENTMAX_LOW:
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
        log_part = tl.where(ratio == 1.0, below, log_part) * (1.0 / epsilon)
        p = tl.where(inside, weight * tl.exp(log_part), 0.0)
        log_p = tl.log(weight) + log_part
        u = tl.where(inside, tl.exp((1.0 - epsilon) * log_p), 0.0)
        return p, u, log_p
    else:
        inside = z >= anchor
        x = tl.maximum(rest + epsilon * (z - anchor), TINY)
        log_p = tl.where(z == anchor, tl.log(tl.maximum(weight, TINY)), tl.log(x) / epsilon)
        p = tl.where(inside, tl.exp(log_p), 0.0)
        u = tl.where(inside, tl.exp(tl.minimum((1.0 - epsilon) * log_p, STEEP)), 0.0)
        return p, u, log_p
