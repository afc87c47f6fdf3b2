# ruff: noqa: F722  (shapes in annotations)
"""All heads of a model at one length, query by query and in bounded memory.

Some queries are treated at a time: of their weights remain a few numbers per query, and, of one
sample, a picture of at most SIDE × SIDE in which a pixel is the largest weight in it.

Shapes: n samples, h heads, t tokens, q queries, p pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lcg.diagnostics import measures
from lcg.diagnostics.headers import QUANTILES
from lcg.diagnostics.watching import Watched, watching
from lcg.evaluation.memory import SHARE, available_bytes, forward_bytes
from lcg.models.decoder import Decoder
from lcg.shapes import Float, Int

SIDE = 512
"""Pixels of a picture's side, at most."""
TOGETHER = 2**22
"""Weights that exist at a time, beside what a solver needs for them."""
COPIES = 24
"""Tensors of that size at the peak: scores, weights, masks and a solver's own."""
LEAST = 8
"""Queries treated at a time, at least."""

Rows = dict[str, Float[Tensor, "n h t"]]
Progress = Callable[[int, int], None]  # queries done, queries in all


@dataclass(frozen=True)
class HeadFacts:
    """One head in numbers; means over queries of all samples, NaN where there is nothing to say.

    support: keys with weight, mean and median; max_weight: mean of the rows' largest weights;
    entropy: mean H/log n; silent: share of rows without any weight, which have no entropy;
    logit_range, rho: means of `measures.logit_range` and `measures.rho`; scaler: quantiles by name,
    None in heads without one.
    """

    head: int
    support: float
    median_support: float
    max_weight: float
    entropy: float
    silent: float
    logit_range: float
    rho: float
    scaler: dict[str, float] | None
    alpha: float | None
    slope: float | None


@dataclass(frozen=True)
class LayerFacts:
    """The chosen heads of one layer, and the picture of each: [h p p], rows are queries."""

    layer: int
    heads: list[HeadFacts]
    pictures: Float[Tensor, "h p p"]


def check_fits(config, tokens: int, scored: int, device: torch.device) -> None:
    """Raise ValueError, in one line, when a sequence of that many tokens does not fit in memory."""
    queries = max(LEAST, TOGETHER // (config.model.heads * tokens))
    need = forward_bytes(config, 1, tokens, scored)
    need += 4 * COPIES * min(queries, tokens) * config.model.heads * tokens
    have = available_bytes(device)
    if need > SHARE * have:
        raise ValueError(
            f"a sequence of {tokens:,} tokens needs {need / 2**30:.1f} GiB of the "
            f"{have / 2**30:.1f} GiB available; inspect a shorter length"
        )


def inspect_layers(
    model: Decoder,
    inputs: Int[Tensor, "n t"],
    pictured: int,
    layers: list[int],
    heads: list[int],
    progress: Progress = lambda done, total: None,
) -> Iterator[LayerFacts]:
    """Facts of the chosen heads, a layer at a time; pictures are of sample `pictured`."""
    last = torch.zeros(1, dtype=torch.long, device=inputs.device)
    with torch.no_grad(), watching(model) as seen:
        for sample in inputs:
            model(sample[None], last)
    count = len(model.blocks)
    total, done = len(layers) * inputs.numel(), 0
    for layer in layers:
        samples = seen[layer::count]
        rows: dict[str, list[Tensor]] = {}
        for index, watched in enumerate(samples):
            picture = Picture(len(heads), inputs.shape[1]) if index == pictured else None
            parts: dict[str, list[Tensor]] = {}
            for queries in _some_queries(watched):
                for name, part in _measured(watched, queries, heads, picture).items():
                    parts.setdefault(name, []).append(part)
                done += len(queries)
                progress(done, total)
            for name, some in parts.items():
                rows.setdefault(name, []).append(torch.cat(some, dim=-1))
            if picture is not None:
                pictures = picture.pixels
        joined = {name: torch.stack(some) for name, some in rows.items()}
        yield LayerFacts(layer, _facts(samples, joined, heads), pictures)


def _some_queries(watched: Watched) -> Iterator[Tensor]:
    """All queries, some at a time."""
    t = watched.x.shape[1]
    together = max(LEAST, TOGETHER // (watched.layer.sizes.heads * t))
    yield from torch.arange(t, device=watched.x.device).split(together)


@torch.no_grad()
def _measured(
    watched: Watched, queries: Tensor, heads: list[int], picture: Picture | None
) -> dict[str, Float[Tensor, "h q"]]:
    """Each measure of these queries."""
    visible = watched.visible(queries)[0]
    weights = watched.weights(queries)[0, heads]
    if picture is not None:
        picture.add(weights, queries)
    found = {
        "support": measures.support(weights).float(),
        "max_weight": measures.max_weight(weights),
        "entropy": measures.normalised_entropy(weights, visible.sum(dim=-1)),
    }
    del weights
    scores = watched.scores(queries)[0, heads]
    visible = visible & (scores > -torch.inf)  # an encoding may hide more
    found["logit_range"] = measures.logit_range(scores, visible)
    found["rho"] = measures.rho(scores, visible)
    return {name: part.cpu() for name, part in found.items()}


@torch.no_grad()
def _facts(samples: list[Watched], rows: Rows, heads: list[int]) -> list[HeadFacts]:
    layer = samples[0].layer
    scalers = [watched.scaler() for watched in samples]
    scaler = None if scalers[0] is None else torch.cat(scalers).cpu()
    alpha, slopes = samples[0].alpha(), layer.slopes
    facts = []
    for place, head in enumerate(heads):
        own = {name: part[:, place].double() for name, part in rows.items()}
        scaled = scaler is not None and head >= layer.unscaled_heads
        facts.append(
            HeadFacts(
                head=head,
                support=float(own["support"].mean()),
                median_support=float(own["support"].quantile(0.5)),
                max_weight=float(own["max_weight"].mean()),
                entropy=float(own["entropy"].nanmean()),
                silent=float((own["support"] == 0).double().mean()),
                logit_range=float(own["logit_range"].nanmean()),
                rho=float(own["rho"].nanmean()),
                scaler=measures.quantiles(scaler[:, head], QUANTILES) if scaled else None,
                alpha=None if alpha is None else float(alpha[head]),
                slope=None if slopes is None else float(slopes[head]),
            )
        )
    return facts


class Picture:
    """Weights max-pooled to at most SIDE × SIDE pixels; added some queries at a time."""

    def __init__(self, heads: int, tokens: int) -> None:
        self.tokens, self.side = tokens, min(SIDE, tokens)
        self.pixels: Float[Tensor, "h p p"] = torch.zeros(heads, self.side, self.side)

    def add(self, weights: Float[Tensor, "h q t"], queries: Int[Tensor, " q"]) -> None:
        """Pixel (i·p/t, j·p/t) is no less than the weight of query i and key j."""
        heads, count, tokens = weights.shape
        columns = torch.arange(tokens, device=weights.device) * self.side // self.tokens
        narrow = weights.new_zeros(heads, count, self.side)
        narrow.scatter_reduce_(-1, columns.expand_as(weights), weights, "amax")
        rows = (queries * self.side // self.tokens).cpu()[:, None].expand(heads, -1, self.side)
        self.pixels.scatter_reduce_(1, rows, narrow.cpu(), "amax")
