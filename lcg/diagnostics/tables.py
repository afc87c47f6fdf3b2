"""What `lcg inspect` prints of the heads: aligned columns, a row per head."""

from __future__ import annotations

import math
from collections.abc import Callable

from lcg.diagnostics.columns import QUANTILES
from lcg.diagnostics.inspection import HeadFacts, LayerFacts

LEGEND = {
    "slope": "m of the position bias -m·|i - j|; 0: the head has none",
    "alpha": "α of the head: 1 is softmax, 2 sparsemax",
    "support": "keys with a weight above 0, mean and median over queries",
    "max w": "mean of the rows' largest weights",
    "H/log n": "mean entropy of a row by that of n equal weights: 1 is complete dispersion",
    "range": "max - min of a row's scores, and rho: that by 2σ·√(2·log n), 1 for Gaussian scores",
    "scaler": "the factor of the length scaling, at percentiles of the queries",
}

Column = tuple[str, Callable[[HeadFacts], float | None], str]

COLUMNS: list[Column] = [
    ("slope", lambda head: head.slope, ".3g"),
    ("alpha", lambda head: head.alpha, ".3f"),
    ("support", lambda head: head.support, ".1f"),
    ("median", lambda head: head.median_support, ".0f"),
    ("max w", lambda head: head.max_weight, ".3f"),
    ("H/log n", lambda head: head.entropy, ".3f"),
    ("range", lambda head: head.logit_range, ".2f"),
    ("rho", lambda head: head.rho, ".2f"),
    *(
        (f"scaler {name}", lambda head, name=name: head.scaler and head.scaler[name], ".2f")
        for name in QUANTILES
    ),
]


def head_table(layers: list[LayerFacts]) -> str:
    """A row per layer and head; columns that say something of at least one of them."""
    heads = [(facts.name, head) for facts in layers for head in facts.heads]
    columns = [c for c in COLUMNS if any(c[1](head) is not None for _, head in heads)]
    rows = [["layer", "head", *(name for name, _, _ in columns)]]
    for layer, head in heads:
        values = [_text(value(head), form) for _, value, form in columns]
        rows.append([layer, str(head.head), *values])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.rjust, row, widths)) for row in rows]
    silent = max(head.silent for _, head in heads)
    legend = legend_text(LEGEND, [name.partition(" p")[0] for name, _, _ in columns])
    if silent > 0:
        legend += f"\nRows without any weight (up to {100 * silent:.1f} % of a head's) count in "
        legend += "support and max w as 0; they have no entropy and are left out of its mean."
    return "\n".join([*lines, "", legend])


def legend_text(legend: dict[str, str], columns: list[str]) -> str:
    """A line for each of the columns that are shown and explained."""
    return "\n".join(f"{name:<12}{legend[name]}" for name in legend if name in columns)


def _text(value: float | None, form: str) -> str:
    if value is None or math.isnan(value):
        return "–"
    return format(value, form)
