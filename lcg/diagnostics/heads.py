# ruff: noqa: F722  (shapes in annotations)
"""What kind of heads a model has: dense or sparse, alike or not, positional, without any weight.

All heads of all layers over some samples, some queries at a time: of their weights remain sums.
The measures are those of Adaptively Sparse Transformers (1909.00015) and ReLA (2104.07012); see
`measures` for their formulas.

Shapes: n samples, h heads, q queries, k keys, o offsets.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lcg.attention.normalizers.base import Normalizer
from lcg.diagnostics import measures
from lcg.diagnostics.capture import Watched, watching
from lcg.diagnostics.inspection import Progress
from lcg.shapes import Bool, Float, Int

REACH = 8
"""Offsets of the strongest key that are told apart: -REACH to REACH."""

Weigh = Callable[[Watched, Tensor], tuple[Tensor, float | Tensor]]
"""From a layer and some of its queries to weights [b h q k] and `Normalizer.steepness`."""


@dataclass(frozen=True)
class LayerHeads:
    """The heads of one layer; means over all queries that are no padding, one entry a head.

    density: share of visible keys with weight. null: share of queries at which the head has no
    weight at all. confidence: mean largest p = w/Σw, of the queries with weight. offsets: [h o]
    share of queries whose strongest key is at each of `steps` (position of the key less that of the
    query); they and null add up to at most 1. diversity: Jensen–Shannon divergence of the heads in
    nats, mean over the queries at which two heads or more have weight; left_out: share of
    (head, query) that it leaves out for having none. alpha: of each head where it is learned.

    A mean of nothing is NaN.
    """

    name: str
    kind: str
    density: list[float]
    null: list[float]
    confidence: list[float]
    offsets: Float[Tensor, "h o"]
    diversity: float
    left_out: float
    alpha: list[float] | None

    @property
    def steps(self) -> range:
        """The offsets that the columns of `offsets` stand for."""
        reach = self.offsets.shape[1] // 2
        return range(-reach, reach + 1)

    def best_offset(self, head: int) -> tuple[int, float]:
        """The offset of most of a head's queries, the nearest of equals, and their share."""
        shares = self.offsets[head].tolist()
        near = max(zip(self.steps, shares, strict=True), key=lambda pair: (pair[1], -abs(pair[0])))
        return near


def own_weights(
    watched: Watched, queries: Int[Tensor, " q"]
) -> tuple[Float[Tensor, "b h q k"], float | Tensor]:
    """The weights that the model uses, and how steep they are."""
    layer = watched.layer
    return watched.weights(queries), layer.attention.normalizer.steepness(layer.normalizer_state)


def weights_by(normalizer: Normalizer) -> Weigh:
    """What another normalizer, one that learns nothing, makes of the same scores."""

    def weigh(watched: Watched, queries: Tensor) -> tuple[Tensor, float | Tensor]:
        scores = watched.scores(queries)
        keys = torch.arange(scores.shape[-1], device=scores.device)
        weights = normalizer(scores, keys, {})
        return weights * watched.visible(queries)[:, None], normalizer.steepness({})

    return weigh


@torch.no_grad()
def analyse_heads(
    model: nn.Module,
    reads: tuple[Int[Tensor, "n _"], ...],
    weigh: Weigh = own_weights,
    reach: int = REACH,
    progress: Progress = lambda done, total: None,
) -> list[LayerHeads]:
    """Every attention layer of a model that reads these samples, in the order of its calls."""
    last = torch.zeros(1, dtype=torch.long, device=reads[0].device)
    sums: dict[str, _LayerSums] = {}
    count = len(reads[0])
    for sample in range(count):
        with watching(model) as seen:
            model(*(read[sample : sample + 1] for read in reads), select=last)
        for done, watched in enumerate(seen):
            own = sums.setdefault(watched.name, _LayerSums(reach))
            for queries in watched.some_queries():
                if len(queries):
                    weights, steepness = weigh(watched, queries)
                    own.add(weights[0], steepness, watched.visible(queries)[0], queries)
            progress(sample * len(seen) + done + 1, count * len(seen))
    return [sums[watched.name].result(watched) for watched in seen]


class _LayerSums:
    """Sums over queries of what is known of them; NaN is not known."""

    def __init__(self, reach: int) -> None:
        self.steps = torch.arange(-reach, reach + 1)
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}

    def add(
        self,
        weights: Float[Tensor, "h q k"],
        steepness: float | Tensor,
        visible: Bool[Tensor, "q k"],
        queries: Int[Tensor, " q"],
    ) -> None:
        offsets, some = measures.strongest_offset(weights, queries, steepness)
        at = (offsets[:, None] == self.steps.to(offsets.device)[:, None]) & some[:, None]
        diversity, left = measures.head_diversity(weights)
        found = {
            "density": measures.density(weights, visible.sum(dim=-1)),
            "null": ~some,
            "confidence": measures.confidence(weights),
            "offsets": at,
            "diversity": diversity,
            "left_out": 1 - left / len(weights),
        }
        for name, values in found.items():
            values = values.double()
            total, known = values.nansum(dim=-1).cpu(), (~values.isnan()).sum(dim=-1).cpu()
            self._sums[name] = self._sums.get(name, 0) + total
            self._counts[name] = self._counts.get(name, 0) + known

    def result(self, watched: Watched) -> LayerHeads:
        if not self._sums:
            raise ValueError(f"{watched.name} has no query that is no padding")
        means = {name: self._sums[name] / self._counts[name] for name in self._sums}
        alpha = watched.alpha()
        return LayerHeads(
            watched.name,
            watched.kind,
            means["density"].tolist(),
            means["null"].tolist(),
            means["confidence"].tolist(),
            means["offsets"].float(),
            float(means["diversity"]),
            float(means["left_out"]),
            None if alpha is None else alpha.tolist(),
        )


def most_diverse(layer: LayerHeads) -> float:
    """log H, the diversity of H heads that have no key in common."""
    return math.log(len(layer.density))
