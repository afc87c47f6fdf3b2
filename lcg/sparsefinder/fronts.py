"""Fronts: what is the most that a sparsity allows.

Of the settings of a method only those count that no other setting beats in both respects. So a
front falls as sparsity grows, always. The settings themselves need not: nested are the graphs of
growing distance thresholds, windows and random shares, but not those of buckets of sizes that do
not divide each other, nor of clusters that k-means finds anew for every number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeVar

Point = TypeVar("Point")


def front(points: Iterable[tuple[float, float, Point]]) -> list[tuple[float, float, Point]]:
    """Of (sparsity, value, which) those that no other reaches in both, by growing sparsity.

    NaN is left out.
    """
    known = [point for point in points if not (math.isnan(point[0]) or math.isnan(point[1]))]
    kept: list[tuple[float, float, Point]] = []
    for point in sorted(known, key=lambda point: (-point[0], -point[1])):
        if not kept or point[1] > kept[-1][1]:
            kept.append(point)
    return kept[::-1]


def best(points: Iterable[tuple[float, float]], sparsity: float) -> float | None:
    """The largest value of points (sparsity, value) at least so sparse; None without any."""
    good = [value for at, value in points if at >= sparsity and not math.isnan(value)]
    return max(good, default=None)
