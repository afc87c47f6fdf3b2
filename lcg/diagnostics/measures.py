# ruff: noqa: F722  (shapes in annotations)
"""What the heads' weights and scores are summed up by: pure functions of rows.

Shapes: … any, q queries, k keys. A weight of a key that a query does not see is 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lcg.shapes import Bool, Float, Int

EQUAL = 1e-5
"""Weights and scores that differ by less than this share of the largest are equal: the same symbol
twice has scores that differ by rounding, which depends on the processor and on what is multiplied
together."""
STEEPEST = 1e-2
"""The same at most, for weights that grow the rounding of their scores."""


def support(weights: Float[Tensor, "*rows k"]) -> Int[Tensor, "*rows"]:
    """Keys with a weight above 0, of each row."""
    return (weights > 0).sum(dim=-1)


def max_weight(weights: Float[Tensor, "*rows k"]) -> Float[Tensor, "*rows"]:
    """The largest weight of each row."""
    return weights.amax(dim=-1)


def normalised_entropy(
    weights: Float[Tensor, "*rows q k"], visible: Int[Tensor, " q"]
) -> Float[Tensor, "*rows q"]:
    """H(p)/log n of each row: 1 is complete dispersion over its n = visible[q] keys (2506.16640).

    A row that does not sum to one (ReLU, stick-breaking) counts as p = w/Σw. NaN where there is
    nothing to say: rows without any weight, and rows of fewer than two keys, whose log n is 0.
    """
    total = weights.sum(dim=-1)
    # H(w/Σw) = log Σw - Σ w·log w / Σw, without a normalised copy of all weights
    surprise = torch.special.entr(weights).sum(dim=-1)
    entropy = total.log() + surprise / total
    known = (total > 0) & (visible > 1)
    ratio = entropy / visible.clamp_min(2).log()
    return ratio.clamp_min(0.0).masked_fill(~known, torch.nan)


def logit_range(
    scores: Float[Tensor, "*rows k"], visible: Bool[Tensor, "*#rows k"]
) -> Float[Tensor, "*rows"]:
    """Δ = max - min of the scores of visible keys; NaN in rows of fewer than two."""
    high = scores.masked_fill(~visible, -torch.inf).amax(dim=-1)
    low = scores.masked_fill(~visible, torch.inf).amin(dim=-1)
    return (high - low).masked_fill(visible.sum(dim=-1) < 2, torch.nan)


def rho(
    scores: Float[Tensor, "*rows k"], visible: Bool[Tensor, "*#rows k"]
) -> Float[Tensor, "*rows"]:
    """ρ = Δ/(2σ·√(2·log n)), n visible keys, σ the deviation of their scores (2506.16640, eq 10).

    Near 1 for Gaussian scores and many keys: what the bounds on dispersion suppose of scores. NaN
    in rows of fewer than two keys or of equal scores: σ within EQUAL of the largest magnitude.
    """
    n = visible.sum(dim=-1)
    inside = scores.masked_fill(~visible, 0.0)
    mean = inside.sum(dim=-1, keepdim=True) / n.clamp_min(1)[..., None]
    squares = (inside - mean).square().masked_fill(~visible, 0.0).sum(dim=-1)
    sigma = (squares / n.clamp_min(1)).sqrt()
    found = logit_range(scores, visible) / (2 * sigma * (2 * n.clamp_min(2).log()).sqrt())
    return found.masked_fill(sigma <= EQUAL * inside.abs().amax(dim=-1), torch.nan)


def quantiles(values: Tensor, shares: Mapping[str, float]) -> dict[str, float]:
    """Quantiles of all values by name, each a value that occurs: the ⌈share·N⌉-th smallest."""
    ordered = values.flatten().float().sort().values
    last = len(ordered) - 1
    places = [min(last, max(0, -int(-share * len(ordered) // 1) - 1)) for share in shares.values()]
    return dict(zip(shares, ordered[places].tolist(), strict=True))


def density(
    weights: Float[Tensor, "*rows q k"], visible: Int[Tensor, "*#rows q"]
) -> Float[Tensor, "*rows q"]:
    """Share of the visible keys with a weight above 0, of each row (1909.00015).

    visible: how many keys each query sees; NaN where it sees none.
    """
    return support(weights) / visible.float().masked_fill(visible == 0, torch.nan)


def confidence(weights: Float[Tensor, "*rows k"]) -> Float[Tensor, "*rows"]:
    """The largest weight of each row by its sum, max p of p = w/Σw; NaN in rows without weight."""
    total = weights.sum(dim=-1)
    return (weights.amax(dim=-1) / total).masked_fill(total == 0, torch.nan)


def strongest_offset(
    weights: Float[Tensor, "*rows q k"],
    queries: Int[Tensor, " q"],
    steepness: float | Tensor = 0.0,
) -> tuple[Int[Tensor, "*rows q"], Bool[Tensor, "*rows q"]]:
    """Position of the strongest key minus that of the query, and whether the row has any weight.

    Of keys with equal weight the most recent counts: equal is within EQUAL of the largest weight w,
    or EQUAL·w^−steepness where rounding of the scores grows that much, at most STEEPEST. queries:
    the positions of the queries. steepness: that of the normalizer.
    """
    top = weights.amax(dim=-1, keepdim=True)
    keys = torch.arange(weights.shape[-1], device=weights.device)
    near = (EQUAL * top.clamp(max=1.0) ** -steepness).clamp(max=STEEPEST)
    strongest = torch.where(weights >= top * (1 - near), keys, -1).amax(dim=-1)
    return strongest - queries.to(weights.device), top[..., 0] > 0


def head_diversity(
    weights: Float[Tensor, "*rows h q k"],
) -> tuple[Float[Tensor, "*rows q"], Int[Tensor, "*rows q"]]:
    """Generalised Jensen–Shannon divergence between the heads of a layer, of each query, in nats.

    JS = H(mean_h p_h) - mean_h H(p_h): 0 where all heads are alike, log H where no two of H heads
    have a key in common (1909.00015). p = w/Σw, so rows need not sum to one; a head without any
    weight at a query is left out there, and NaN stands where fewer than two heads are left. Also
    returns how many heads are left at each query.
    """
    total = weights.sum(dim=-1, keepdim=True)
    some = total > 0
    p = weights / total.masked_fill(~some, 1.0)
    left = some.sum(dim=-3)[..., 0]
    count = left.clamp_min(1)
    mean = p.sum(dim=-3) / count[..., None]
    own = torch.special.entr(p).sum(dim=-1).sum(dim=-2)
    found = torch.special.entr(mean).sum(dim=-1) - own / count
    return found.clamp_min(0.0).masked_fill(left < 2, torch.nan), left
