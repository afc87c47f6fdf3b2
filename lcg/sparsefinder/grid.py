"""Methods and settings that a study compares; the paper's whole grid, or a few of each."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lcg.sparsefinder import baselines
from lcg.sparsefinder.predictors import Method, buckets, clusters, distance, intervals

ALL = math.inf


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

    def methods(self) -> list[Method]:
        """All of them, the predictors first."""
        learned = [
            *(distance(threshold) for threshold in self.l2),
            *(distance(threshold, "cosine") for threshold in self.cosine),
            *(buckets(size) for size in self.bucket_sizes),
            *(intervals(size) for size in self.bucket_sizes),
            *(clusters(count) for count in self.clusters),
            *(clusters(count, 2) for count in self.clusters),
        ]
        return [
            *(
                replace(method, window=window, globals=count)
                for window, count in self.joined
                for method in learned
                if not method.links_all
            ),
            *(method for method in learned if method.links_all),  # a window adds nothing
            *(baselines.window(size) for size in self.only_windows),
            *(baselines.random(share, self.seed) for share in self.random),
            *(baselines.longformer(count, 11) for count in self.longformer),
            *(baselines.big_bird(blocks, seed=self.seed) for blocks in self.bigbird),
            *(baselines.strided(stride) for stride in self.strides),
            *(baselines.lsh(count, seed=self.seed) for count in self.lsh),
            *(baselines.routing(count) for count in self.routing),
            *(baselines.bound(), baselines.bound(1, 1), baselines.exact()),
        ]


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
