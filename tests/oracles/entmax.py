"""alpha-entmax by the definition, in float64 and numpy: bisection, 200 halvings.

p_i = [(alpha-1) z_i - tau]_+^(1/(alpha-1)). Up to alpha = 2, tau is bisected. Above, tau does not
determine the smallest weight in float64; there the scores are sorted, the support is the longest
prefix for which a threshold at its last score leaves less than unit mass, and the weight of that
last score is bisected.
"""

from __future__ import annotations

import numpy as np


def entmax_row(scores: np.ndarray, alpha: float) -> np.ndarray:
    """scores [keys] -> weights [keys], float64; -inf is a masked key."""
    z = np.asarray(scores, dtype=np.float64)
    if z.size == 0 or np.all(z == -np.inf):
        return np.zeros_like(z)
    if alpha == 1:
        e = np.exp(z - z.max())
        return e / e.sum()
    if alpha <= 2:
        return _bisect_threshold(z - z.max(), alpha - 1)
    return _bisect_smallest_weight(z, alpha - 1)


def _bisect_threshold(z: np.ndarray, a: float) -> np.ndarray:
    low, high = -1.0, 0.0
    for _ in range(200):
        tau = (low + high) / 2
        if np.sum(np.maximum(a * z - tau, 0) ** (1 / a)) > 1:
            low = tau
        else:
            high = tau
    return np.maximum(a * z - low, 0) ** (1 / a)


def _bisect_smallest_weight(z: np.ndarray, a: float) -> np.ndarray:
    order = np.argsort(-z, kind="stable")
    ranked = z[order]
    ranked = ranked[ranked > -np.inf]

    def mass(at: float) -> float:
        return float(np.sum((a * (ranked[ranked > at] - at)) ** (1 / a)))

    low, high = 0, ranked.size - 1
    while low < high:
        middle = (low + high + 1) // 2
        if mass(ranked[middle]) < 1:
            low = middle
        else:
            high = middle - 1
    edge = ranked[low]
    excess = a * (ranked[ranked >= edge] - edge)
    left, right = 0.0, 1.0
    for _ in range(200):
        smallest = (left + right) / 2
        if np.sum((smallest**a + excess) ** (1 / a)) < 1:
            left = smallest
        else:
            right = smallest
    p = np.zeros_like(z)
    p[order[: excess.size]] = (right**a + excess) ** (1 / a)
    return p


def entmax_rows(scores: np.ndarray, alpha: float) -> np.ndarray:
    """scores [..., keys] -> weights [..., keys], row by row."""
    z = np.asarray(scores, dtype=np.float64)
    flat = [entmax_row(row, alpha) for row in z.reshape(-1, z.shape[-1])]
    return np.stack(flat).reshape(z.shape)
