"""Weights of long sequences, some queries at a time, so that memory stays bounded."""

from __future__ import annotations

TOGETHER = 2**22
"""Weights that exist at a time, beside what a solver needs for them."""
COPIES = 24
"""Tensors of that size at the peak: scores, weights, masks and a solver's own."""
LEAST = 8
"""Queries treated at a time, at least."""


def portion(row: int) -> int:
    """How many queries to treat at a time; row: weights of one, of all samples and heads."""
    return max(LEAST, TOGETHER // row)


def portion_bytes(heads: int, tokens: int) -> int:
    """Memory that the weights of some queries of one sequence take at the peak, solver included."""
    row = heads * tokens
    return 4 * COPIES * row * min(portion(row), tokens)
