# ruff: noqa: F722  (shapes in annotations)
"""All heads of a model at one length, query by query and in bounded memory.

Some queries are treated at a time: of their weights remain a few numbers per query, and, of one
sample, a picture of at most SIDE × SIDE in which a pixel is the largest weight in it.

Shapes: n samples, h heads, t tokens, k keys, q queries, p and r pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lcg.diagnostics import measures
from lcg.diagnostics.capture import Watched, portion_bytes, watching
from lcg.diagnostics.columns import QUANTILES
from lcg.evaluation.memory import SHARE, available_bytes, forward_bytes
from lcg.shapes import Float, Int

SIDE = 512
"""Pixels of a picture's side, at most."""

Rows = dict[str, Float[Tensor, "h n_t"]]
"""Each measure of all queries of all samples."""
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
    """The chosen heads of one layer, and the picture of each: [h p r], rows are queries.

    layer: its place in the order of `headers.attention_layers`, which has its name and kind.
    queries, keys: how many the pictured sample has.
    """

    layer: int
    heads: list[HeadFacts]
    pictures: Float[Tensor, "h p r"]
    name: str
    kind: str
    queries: int
    keys: int


def check_fits(config, tokens: int, scored: int, device: torch.device) -> None:
    """Raise ValueError, in one line, when a sequence of that many tokens does not fit in memory."""
    need = forward_bytes(config, 1, tokens, scored) + portion_bytes(config.model.heads, tokens)
    have = available_bytes(device)
    if need > SHARE * have:
        raise ValueError(
            f"a sequence of {tokens:,} tokens needs {need / 2**30:.1f} GiB of the "
            f"{have / 2**30:.1f} GiB available; inspect a shorter length"
        )


def inspect_layers(
    model: nn.Module,
    given: tuple[Int[Tensor, "n _"], ...],
    pictured: int,
    layers: list[int],
    heads: list[int],
    progress: Progress = lambda done, total: None,
) -> Iterator[LayerFacts]:
    """Facts of the chosen heads, a layer at a time; pictures are of sample `pictured`.

    given is what the model reads of all samples; each passes through it without its padding.
    """
    first = torch.zeros(1, dtype=torch.long, device=given[0].device)
    with torch.no_grad(), watching(model) as seen:
        for sample in zip(*given, strict=True):
            model(*(_without_padding(tokens, model.pad)[None] for tokens in sample), select=first)
    count = len(model.attention_layers())
    total, done = sum(w.x.shape[1] for layer in layers for w in seen[layer::count]), 0
    for layer in layers:
        samples = seen[layer::count]
        rows: dict[str, list[Tensor]] = {}
        for index, watched in enumerate(samples):
            size = (watched.x.shape[1], watched.key_count)
            picture = Picture(len(heads), *size) if index == pictured else None
            for queries in watched.some_queries():
                for name, part in _measured(watched, queries, heads, picture).items():
                    rows.setdefault(name, []).append(part)
                done += len(queries)
                progress(done, total)
            if picture is not None:
                drawn, drawn_size = picture.pixels, size
        joined = {name: torch.cat(some, dim=-1) for name, some in rows.items()}
        facts, one = _facts(samples, joined, heads), samples[0]
        yield LayerFacts(layer, facts, drawn, one.name, one.kind, *drawn_size)


def _without_padding(tokens: Int[Tensor, " t"], pad: int | None) -> Int[Tensor, " _"]:
    """A row's tokens without those that fill it up on the right."""
    return tokens if pad is None else tokens[: int((tokens != pad).sum())]


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
    scaler = None if scalers[0] is None else torch.cat([s[0] for s in scalers], dim=-1).cpu()
    alpha, slopes = samples[0].alpha(), layer.slopes
    facts = []
    for place, head in enumerate(heads):
        own = {name: part[place].double() for name, part in rows.items()}
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
                scaler=measures.quantiles(scaler[head], QUANTILES) if scaled else None,
                alpha=None if alpha is None else float(alpha[head]),
                slope=None if slopes is None else float(slopes[head]),
            )
        )
    return facts


class Picture:
    """Weights max-pooled to at most SIDE × SIDE pixels; added some queries at a time."""

    def __init__(self, heads: int, queries: int, keys: int) -> None:
        self.queries, self.rows = queries, min(SIDE, queries)
        self.keys, self.columns = keys, min(SIDE, keys)
        self.pixels: Float[Tensor, "h p r"] = torch.zeros(heads, self.rows, self.columns)

    def add(self, weights: Float[Tensor, "h q k"], queries: Int[Tensor, " q"]) -> None:
        """Pixel (i·p/t, j·r/k) is no less than the weight of query i and key j."""
        heads, count, keys = weights.shape
        columns = torch.arange(keys, device=weights.device) * self.columns // self.keys
        narrow = weights.new_zeros(heads, count, self.columns)
        narrow.scatter_reduce_(-1, columns.expand_as(weights), weights, "amax")
        rows = (queries * self.rows // self.queries).cpu()[:, None]
        rows = rows.expand(heads, -1, self.columns)
        self.pixels.scatter_reduce_(1, rows, narrow.cpu(), "amax")
