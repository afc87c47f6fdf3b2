"""Methods and settings that a study compares; the paper's whole grid, or a few of each."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lcg.sparsefinder.baselines import LSH, Bound, Exact, Routing
from lcg.sparsefinder.graphs import Heads
from lcg.sparsefinder.patterns import (
    BigBird,
    Longformer,
    Random,
    Strided,
    Window,
    in_window,
    with_globals,
)
from lcg.sparsefinder.predictors import Buckets, Clusters, Distance, Intervals, Links, Method
from lcg.sparsefinder.projections import Known

ALL = math.inf


@dataclass(frozen=True)
class Cell:
    """A method, and the window and the global tokens that are joined to its links."""

    method: Method
    window: int = 0
    globals: int = 0

    @property
    def front(self) -> str:
        """The front that it belongs to."""
        joined = [("window", self.window), ("globals", self.globals)]
        return " + ".join([self.method.family, *(name for name, count in joined if count)])

    @property
    def setting(self) -> str:
        """The setting in words."""
        parts = [self.method.setting]
        parts += [f"window {self.window}"] * bool(self.window)
        parts += [f"{self.globals} globals"] * bool(self.globals)
        return ", ".join(filter(None, parts))

    def links(self, heads: Heads, known: Known) -> Links:
        """The links of the method, the window, or the global tokens."""
        own = self.method.links(heads, known)
        keys = torch.arange(heads.k.shape[2], device=heads.k.device)

        def links(queries: Tensor) -> Tensor:
            found = own(queries)
            if self.window:
                found = found | in_window(queries, keys, self.window)
            if self.globals:
                found = found | with_globals(queries, keys, self.globals)
            return found

        return links


@dataclass(frozen=True)
class Grid:
    """The settings of each method; joined: the pairs of a window and a number of global tokens that
    learned predictors are joined with.

    Each grid of a predictor ends with the setting that links everything.
    """

    l2: tuple[float, ...] = (0.5, 1, 2, 3, 5, ALL)
    cosine: tuple[float, ...] = ()
    bucket_sizes: tuple[int | None, ...] = (4, 12, None)
    clusters: tuple[int, ...] = (1, 4, 12)
    joined: tuple[tuple[int, int], ...] = ((0, 0), (5, 0), (5, 1))
    only_windows: tuple[int, ...] = (3, 11, 27)
    random: tuple[float, ...] = (0.1, 0.3, 0.6)
    longformer: tuple[int, ...] = (4, 12)
    bigbird: tuple[int, ...] = (1, 3)
    strides: tuple[int, ...] = (4, 12)
    lsh: tuple[int, ...] = (4, 12)
    routing: tuple[int, ...] = (4, 12)
    seed: int = 0

    def cells(self) -> list[Cell]:
        """All of them, the predictors first."""
        learned = [
            *(Distance(t) for t in self.l2),
            *(Distance(t, "cosine") for t in self.cosine),
            *(Buckets(size) for size in self.bucket_sizes),
            *(Intervals(size) for size in self.bucket_sizes),
            *(Clusters(count) for count in self.clusters),
            *(Clusters(count, 2) for count in self.clusters),
        ]
        ends = [Cell(method) for method in learned if method.links_all]  # a window adds nothing
        cells = [
            Cell(method, window, count)
            for window, count in self.joined
            for method in learned
            if not method.links_all
        ]
        baselines = [
            *(Window(size) for size in self.only_windows),
            *(Random(share, self.seed) for share in self.random),
            *(Longformer(count, 11) for count in self.longformer),
            *(BigBird(blocks, seed=self.seed) for blocks in self.bigbird),
            *(Strided(stride) for stride in self.strides),
            *(LSH(buckets, seed=self.seed) for buckets in self.lsh),
            *(Routing(count) for count in self.routing),
            *(Bound(), Bound(1, 1)),
            Exact(),
        ]
        return [*cells, *ends, *map(Cell, baselines)]


def full_grid(seed: int) -> Grid:
    """The thresholds, bucket sizes, numbers of clusters, and windows of the authors' code.

    Global tokens, as many as Longformer has there, are joined with a window as wide as its own.
    """
    windows, tokens = (0, 1, 3, 5, 7, 9, 11, 15, 19, 23, 27), (4, 8, 12, 16, 20)
    return Grid(
        l2=(*(0.5 * i for i in range(1, 21)), ALL),
        cosine=(*(round(0.1 * i, 1) for i in range(1, 11)), ALL),
        bucket_sizes=(4, 8, 12, 16, 20, None),
        clusters=(1, 2, 4, 8, 12, 16, 20),
        joined=(*((window, 0) for window in windows), *((11, count) for count in tokens)),
        only_windows=windows[1:],
        random=(0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8),
        longformer=tokens,
        bigbird=(1, 2, 3, 4, 5),
        strides=(4, 8, 12, 16, 20),
        lsh=(2, 4, 8, 12, 16, 20, 30),
        routing=(2, 4, 8, 12, 16, 20),
        seed=seed,
    )
