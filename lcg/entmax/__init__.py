"""alpha-entmax: the map, its closed-form gradients in scores and alpha, and its row statistics."""

import lcg.mkl_workaround  # noqa: F401  (before anything is computed)
from lcg.entmax.above import edge_below, entmax_above
from lcg.entmax.function import (
    entmax,
    support_edge,
    threshold,
    weights_from_threshold,
)

__all__ = [
    "edge_below",
    "entmax",
    "entmax_above",
    "support_edge",
    "threshold",
    "weights_from_threshold",
]
