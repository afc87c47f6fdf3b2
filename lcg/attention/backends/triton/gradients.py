"""From dL/dp of a tile of weights to dL/dz and dL/dα."""

import triton
import triton.language as tl

from lcg.attention.backends.triton.rows import CEILING, ENTMAX_LOW, RELU, load_rows


@triton.jit
def load_block(pointers, head, block, queries, D: tl.constexpr, DP: tl.constexpr, BM: tl.constexpr):
    """Load a block of queries of a head: their indices, which are there, where their rows lie, and
    q, the output's gradient, anchor and level. pointers are to these four.
    """
    Q, GRAD, ANCHOR, LEVEL = pointers
    i = block * BM + tl.arange(0, BM)
    inside = i < queries
    place = head * queries + i
    q = load_rows(Q + head * queries * D, block * BM, queries, D, DP, BM)
    grad = load_rows(GRAD + head * queries * D, block * BM, queries, D, DP, BM)
    anchor = tl.load(ANCHOR + place, mask=inside, other=0.0)
    level = tl.load(LEVEL + place, mask=inside, other=0.0)
    return i, inside, place, q, grad, anchor, level


@triton.jit
def score_gradient(y, p, u, dp, statistics, scale, MODE: tl.constexpr):
    """dL/dz of a tile from dL/dp: u (dL/dp - δ), with δ = Σ u dL/dp / Σ u for entmax (2502.12082).

    statistics are those of rows: (anchor, centre, mean, lowest). centre is δ. Above α = 2 it is
    dL/dp at the lowest supported key, mean is δ relative to it, and lowest the gradient of that
    key: minus the sum of all others, which its own u would swamp.
    """
    anchor, centre, mean, lowest = statistics
    if MODE == RELU:
        return u * dp
    elif MODE <= ENTMAX_LOW:
        return u * (dp - centre[:, None])
    else:
        difference = dp - centre[:, None]
        ds = tl.minimum(tl.maximum(u * (difference - mean[:, None]), -CEILING), CEILING)
        at_edge = y * scale == anchor[:, None]
        ds = tl.where(at_edge & (difference == 0.0), lowest[:, None], ds)
        return tl.where(p > 0.0, ds, 0.0)


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
def alpha_moment(p, log_p, mean_log, epsilon):
    """The part of M = Σ p ℓ² curve(-ε ℓ) of a tile, ℓ = log p - Σ p log p."""
    live = p > 1e-30
    centred = tl.where(live, log_p - mean_log[:, None], 0.0)
    return tl.sum(tl.where(live, p, 0.0) * centred * centred * _curve(-epsilon * centred), axis=1)


@triton.jit
def alpha_gradient(p, log_p, dp, mean_log, mean_dp, normaliser, epsilon):
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
def alpha_normaliser(moment, exact):
    """N = log(1 + ε² M) / ε², of the rows' M."""
    square = exact * exact
    return (tl.log(1.0 + square * moment.to(tl.float64)) / square).to(tl.float32)


@triton.jit
def high_means(p, u, log_p, difference, weight, epsilon):
    """α > 2: of the rows of a tile Σ (p/P)^(2-α), that with dP, and what the lowest key's dS is."""
    log_weight = tl.log(tl.maximum(weight, 1e-37))[:, None]
    relative = tl.exp(tl.minimum((1.0 - epsilon) * (log_p - log_weight), 0.0))
    relative = tl.where(p > 0.0, relative, 0.0)
    mass = tl.sum(relative, axis=1)
    return mass, tl.sum(relative * difference, axis=1), -tl.sum(u * difference, axis=1)
