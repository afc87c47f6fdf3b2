# ruff: noqa: F722  (shapes in annotations)
"""Measure the heads of a model: formulas of rows of weights, and one pass that applies them.

`measure` runs samples through a model and keeps, for every query of every head, a number per
measure: weights exist for some queries at a time only. `lcg inspect`, the report's maps and the
probe during training ask it, or `row_measures`, for the measures they show. Formulas are those of
Adaptively Sparse Transformers (1909.00015), ReLA (2104.07012) and ASEntmax (2506.16640).

Shapes: b samples, h heads, q queries, k keys, n queries of all samples, p and r blocks of a map. In
formulas … is any; a weight of a key that a query does not see is 0.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lcg.attention.normalizers.base import Normalizer
from lcg.diagnostics.capture import LayerInput, capture_inputs, learned_alpha
from lcg.diagnostics.columns import QUANTILES
from lcg.shapes import Bool, Float, Int

EQUAL = 1e-5
"""Weights and scores that differ by less than this share of the largest are equal: the same symbol
twice has scores that differ by rounding, which depends on the processor and on what is multiplied
together."""
STEEPEST = 1e-2
"""The same at most, for weights that grow the rounding of their scores."""
OFFSETS = range(-8, 9)
"""Offsets of the strongest key that are told apart."""


def normalised_entropy(
    weights: Float[Tensor, "*rows q k"], visible: Int[Tensor, "*#rows q"]
) -> Float[Tensor, "*rows q"]:
    """H(p)/log n of each row: 1 is complete dispersion over its n visible keys (2506.16640).

    A row that does not sum to one (ReLU, stick-breaking) counts as p = w/Σw. NaN where there is
    nothing to say: rows without any weight, and rows of fewer than two keys, whose log n is 0.
    """
    total = weights.sum(dim=-1)
    # H(w/Σw) = log Σw - Σ w·log w / Σw, without a normalised copy of all weights
    surprise = torch.special.entr(weights).sum(dim=-1)
    entropy = total.log() + surprise / total
    defined = (total > 0) & (visible > 1)
    ratio = entropy / visible.clamp_min(2).log()
    return ratio.clamp_min(0.0).masked_fill(~defined, torch.nan)


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
    ratio = logit_range(scores, visible) / (2 * sigma * (2 * n.clamp_min(2).log()).sqrt())
    return ratio.masked_fill(sigma <= EQUAL * inside.abs().amax(dim=-1), torch.nan)


def quantiles(values: Tensor, shares: Mapping[str, float]) -> dict[str, float]:
    """Quantiles of all values by name, each a value that occurs: the ⌈share·N⌉-th smallest."""
    ordered = values.flatten().float().sort().values
    last = len(ordered) - 1
    indices = [min(last, max(0, -int(-share * len(ordered) // 1) - 1)) for share in shares.values()]
    return dict(zip(shares, ordered[indices].tolist(), strict=True))


def density(
    weights: Float[Tensor, "*rows q k"], visible: Int[Tensor, "*#rows q"]
) -> Float[Tensor, "*rows q"]:
    """Share of the visible keys with a weight above 0, of each row (1909.00015).

    visible: how many keys each query sees; NaN where it sees none.
    """
    return (weights > 0).sum(dim=-1) / visible.float().masked_fill(visible == 0, torch.nan)


def confidence(weights: Float[Tensor, "*rows k"]) -> Float[Tensor, "*rows"]:
    """The largest weight of each row by its sum, max p of p = w/Σw; NaN in rows without weight."""
    total = weights.sum(dim=-1)
    return (weights.amax(dim=-1) / total).masked_fill(total == 0, torch.nan)


def strongest_offset(
    weights: Float[Tensor, "*rows q k"],
    queries: Int[Tensor, " q"],
    steepness: float | Tensor = 0.0,
) -> Float[Tensor, "*rows q"]:
    """Position of the strongest key minus that of the query; NaN in rows without weight.

    Of keys with equal weight the most recent counts: equal is within EQUAL of the largest weight w,
    or EQUAL·w^−steepness where rounding of the scores grows that much, at most STEEPEST. queries:
    the positions of the queries. steepness: that of the normalizer.
    """
    top = weights.amax(dim=-1, keepdim=True)
    keys = torch.arange(weights.shape[-1], device=weights.device)
    near = (EQUAL * top.clamp(max=1.0) ** -steepness).clamp(max=STEEPEST)
    strongest = torch.where(weights >= top * (1 - near), keys, -1).amax(dim=-1)
    offset = (strongest - queries.to(weights.device)).float()
    return offset.masked_fill(~(top[..., 0] > 0), torch.nan)


def head_diversity(weights: Float[Tensor, "*rows h q k"]) -> Float[Tensor, "*rows q"]:
    """Generalised Jensen–Shannon divergence between the heads of a layer, of each query, in nats.

    JS = H(mean_h p_h) - mean_h H(p_h): 0 where all heads are alike, log H where no two of H heads
    have a key in common (1909.00015). p = w/Σw, so rows need not sum to one; a head without any
    weight at a query is left out there, and NaN stands where fewer than two heads are left.
    """
    total = weights.sum(dim=-1, keepdim=True)
    has_weight = total > 0
    p = weights / total.masked_fill(~has_weight, 1.0)
    left = has_weight.sum(dim=-3)[..., 0]
    count = left.clamp_min(1)
    mean = p.sum(dim=-3) / count[..., None]
    own = torch.special.entr(p).sum(dim=-1).sum(dim=-2)
    divergence = torch.special.entr(mean).sum(dim=-1) - own / count
    return divergence.clamp_min(0.0).masked_fill(left < 2, torch.nan)


class Rows(NamedTuple):
    """Weights [b h q k] of some queries [q], the number of keys that these see [b 1 q], and how
    steep the normalizer is (`Normalizer.steepness`)."""

    weights: Tensor
    visible: Tensor
    queries: Tensor
    steepness: float | Tensor


OF_WEIGHTS: dict[str, Callable[[Rows], Tensor]] = {
    "support": lambda rows: (rows.weights > 0).sum(dim=-1).float(),
    "max_weight": lambda rows: rows.weights.amax(dim=-1),
    "null": lambda rows: (~(rows.weights > 0).any(dim=-1)).float(),
    "density": lambda rows: density(rows.weights, rows.visible),
    "confidence": lambda rows: confidence(rows.weights),
    "entropy": lambda rows: normalised_entropy(rows.weights, rows.visible),
    "offset": lambda rows: strongest_offset(rows.weights, rows.queries, rows.steepness),
    "diversity": lambda rows: head_diversity(rows.weights)[:, None],
}
OF_SCORES = {"logit_range": logit_range, "rho": rho}
HEADS = ("support", "max_weight", "null", "entropy", "logit_range", "rho", "scaler")
"""The measures of `lcg inspect`'s table of heads."""
ANALYSES = ("density", "null", "confidence", "offset", "diversity")
"""The measures of its analyses; diversity is of all heads of a layer together."""


@torch.no_grad()
def row_measures(
    captured: LayerInput,
    queries: Int[Tensor, " q"],
    names: Iterable[str],
    heads: Sequence[int] | slice = slice(None),
    normalizer: Normalizer | None = None,
    pooled: PooledMap | None = None,
) -> dict[str, Float[Tensor, "b _ q"]]:
    """Measures of some queries of one layer, of the model's own weights or of those that another
    normalizer, one that learns nothing, makes of the same scores. The weights are added to
    `pooled`."""
    visible = captured.visible(queries)[:, None]
    own, state = captured.layer.normalizer, captured.layer.normalizer_state
    if normalizer is None:
        weights, steepness = captured.weights(queries), own.steepness(state)
    else:
        scores = captured.scores(queries)
        keys = torch.arange(scores.shape[-1], device=scores.device)
        weights, steepness = normalizer(scores, keys, {}) * visible, normalizer.steepness({})
        del scores
    rows = Rows(weights[:, heads], visible.sum(dim=-1), queries, steepness)
    if pooled is not None:
        pooled.add(rows.weights, queries)
    values = {name: of(rows) for name, of in OF_WEIGHTS.items() if name in names}
    asked = {name: of for name, of in OF_SCORES.items() if name in names}
    if asked:
        del weights, rows
        scores = captured.scores(queries)[:, heads]
        visible = visible & (scores > -torch.inf)  # an encoding may hide more
        values |= {name: of(scores, visible) for name, of in asked.items()}
    return values


@dataclass(frozen=True)
class LayerHeads:
    """Measurements of the heads of one layer.

    heads: their numbers. rows: of each measure [h n] the value at every query that is no padding,
    NaN where there is nothing to say ([1 n] for diversity). alpha: of each head where
    it is learned; slopes: of its position bias, if there is one. map: of the sample of which one
    was asked for.
    """

    name: str
    kind: str
    heads: list[int]
    rows: dict[str, Float[Tensor, "_ n"]] = field(repr=False)
    alpha: list[float] | None = None
    slopes: list[float] | None = None
    map: PooledMap | None = field(default=None, repr=False)

    @cached_property
    def means(self) -> dict[str, list[float]]:
        """The mean of each measure over its rows, per head; NaN where no row says anything."""
        return {name: rows.double().nanmean(dim=-1).tolist() for name, rows in self.rows.items()}

    @cached_property
    def median_support(self) -> list[float]:
        """The median number of keys with weight, per head."""
        return self.rows["support"].double().quantile(0.5, dim=-1).tolist()

    @cached_property
    def scaler(self) -> list[dict[str, float] | None]:
        """Quantiles of the length scaling's factor by name, per head; None where it has none."""
        known = self.rows.get("scaler", torch.full((len(self.heads), 1), torch.nan))
        return [None if row.isnan().any() else quantiles(row, QUANTILES) for row in known]

    @cached_property
    def offsets(self) -> Float[Tensor, "h o"]:
        """The share of a head's queries whose strongest key is at each of `OFFSETS` (position of
        the key less that of the query); with null they add up to at most 1."""
        rows = self.rows["offset"]
        return torch.stack([(rows == step).double().mean(dim=-1) for step in OFFSETS], -1).float()

    def best_offset(self, head: int) -> tuple[int, float]:
        """The offset of most of a head's queries, the nearest of equals, and their share."""
        shares = self.offsets[head].tolist()
        return max(zip(OFFSETS, shares, strict=True), key=lambda pair: (pair[1], -abs(pair[0])))

    @property
    def most_diverse(self) -> float:
        """log H, the diversity of H heads that have no key in common."""
        return math.log(len(self.heads))


class PooledMap:
    """One sample's weights as `blocks` [h p r]: the largest of each `size` × `size` pairs, at most
    `side` in a row; added some queries at a time."""

    def __init__(self, heads: int, queries: int, keys: int, side: int) -> None:
        self.queries, self.keys = queries, keys
        self.size = -(-max(queries, keys) // side)
        self.blocks = torch.zeros(heads, -(-queries // self.size), -(-keys // self.size))

    def add(self, weights: Float[Tensor, "1 h q k"], queries: Int[Tensor, " q"]) -> None:
        """Take some queries in."""
        weights = weights[0]
        narrow = weights.new_zeros(*weights.shape[:2], self.blocks.shape[2])
        columns = torch.arange(self.keys, device=weights.device) // self.size
        narrow.scatter_reduce_(-1, columns.expand_as(weights), weights, "amax")
        rows = (queries // self.size).cpu()[:, None].expand(narrow.shape)
        self.blocks.scatter_reduce_(1, rows, narrow.cpu(), "amax")


@torch.no_grad()
def measure(
    model: nn.Module,
    samples: Sequence[Int[Tensor, "b _"]],
    names: Sequence[str],
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    normalizer: Normalizer | None = None,
    mapped: int | None = None,
    side: int = 512,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[LayerHeads]:
    """Measure heads over samples, each of which passes through the model without its padding.

    samples: what the model reads of all of them. names: of `OF_WEIGHTS`, `OF_SCORES` and `scaler`.
    layers, heads: by number, None for all. normalizer: see `row_measures`. mapped: the sample that
    maps of at most side × side are made of. progress: called with the layers of samples that are
    done, and all. Returns the layers in the order in which the model calls them.
    """
    first = torch.zeros(1, dtype=torch.long, device=samples[0].device)
    rows: dict[str, dict[str, list[Tensor]]] = {}
    maps: dict[str, PooledMap] = {}
    for index, sample in enumerate(zip(*samples, strict=True)):
        with capture_inputs(model) as seen:
            model(*(tokens[None] for tokens in model.unpadded(sample)), select=first)
        seen = seen if layers is None else [seen[layer] for layer in layers]
        for done, captured in enumerate(seen, start=1):
            own = rows.setdefault(captured.name, defaultdict(list))
            chosen = list(range(captured.layer.sizes.heads) if heads is None else heads)
            pooled = None
            if index == mapped:
                shape = (len(chosen), captured.x.shape[1], captured.key_count)
                pooled = maps[captured.name] = PooledMap(*shape, side)
            for queries in captured.query_chunks():
                layers_measured = row_measures(captured, queries, names, chosen, normalizer, pooled)
                for name, part in layers_measured.items():
                    own[name].append(part[0].cpu())
            if "scaler" in names and (scaler := captured.scaler()) is not None:
                scaled = captured.layer.scaled_heads
                unscaled = [h for h in range(scaler.shape[1]) if h not in scaled]
                scaler[:, unscaled] = torch.nan
                own["scaler"].append(scaler[0, chosen].cpu())
            progress(index * len(seen) + done, len(samples[0]) * len(seen))
    layers_measured = []
    for captured in seen:
        if not rows[captured.name]:
            raise ValueError(f"{captured.name} has no query outside the padding")
        own = {name: torch.cat(parts, -1) for name, parts in rows[captured.name].items()}
        alpha = learned_alpha(captured.layer) if normalizer is None else None
        facts = (None if t is None else t[chosen].tolist() for t in (alpha, captured.layer.slopes))
        layer = (captured.name, captured.kind, chosen, own, *facts)
        layers_measured.append(LayerHeads(*layer, maps.get(captured.name)))
    return layers_measured
