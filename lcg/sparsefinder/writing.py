"""Write a study as text: fronts, the summary that is printed, and the table of every setting.

A front says what is the most that a sparsity allows: of the settings of a method only those count
that no other setting beats in both respects. So a front falls as sparsity grows, always. The
settings themselves need not: nested are the graphs of growing distance thresholds, windows and
random shares, but not those of buckets of sizes that do not divide each other, nor of clusters that
k-means finds anew for every number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from lcg.results.table import aligned
from lcg.sparsefinder.metrics import Identity
from lcg.sparsefinder.study import CellResult, LengthResult, Study

SPARSITY = 0.5
SUMMARY = f"Best recall and token accuracy (%) at a sparsity of {100 * SPARSITY:.0f} % or more"
NOTHING = "—"
UNREACHED = f"{NOTHING}: no setting of the method reaches a sparsity of {100 * SPARSITY:.0f} %"
EXPLAINED = (
    "Recall: the share of the pairs with weight that a prediction keeps; token accuracy: of the "
    "model with only the predicted pairs. Test set: {}."
)
COLUMNS = {
    "sparsity": "sparsity",
    "recall": "recall",
    "exact": "exact queries",
    "mass": "mass",
    "token_accuracy": "token accuracy",
    "exact_match": "exact match",
}


def percent(value: float) -> str:
    """A share in per cent."""
    return NOTHING if math.isnan(value) else f"{100 * value:.1f}"


def summary(study: Study) -> str:
    """Per front the best recall and, maybe of another setting, the best token accuracy of what is
    at least as sparse as SPARSITY.
    """
    lengths = [result for result in study.lengths if result.skipped is None]
    header, own = ["method"], ["the model itself"]
    for result in lengths:
        header += [f"recall at {result.length}", f"token accuracy at {result.length}"]
        own += ["", percent(result.token_accuracy)]
    fronts = fronts_of(lengths)
    rows = [
        [name, *(text for result in lengths for text in _best(result, name))] for name in fronts
    ]
    parts = [aligned(header, [own, *rows])]
    if lengths:
        counts = (f"{result.counted} of length {result.length}" for result in lengths)
        parts.append(EXPLAINED.format(", ".join(counts)))
    if any(NOTHING in row for row in rows):
        parts.append(UNREACHED)
    return "\n\n".join(parts)


def _best(result: LengthResult, front: str) -> list[str]:
    cells = [cell for cell in result.cells if cell.front == front]
    if all(cell.skipped for cell in cells):
        return ["skipped"] * 2
    pairs = (
        [(c.sparsity, c.recall) for c in cells],
        [(c.sparsity, c.token_accuracy) for c in cells],
    )
    return [percent(best(points, SPARSITY)) for points in pairs]


def fronts_of(lengths: list[LengthResult]) -> list[str]:
    """The fronts that there are, in the order of the grid."""
    return list(dict.fromkeys(cell.front for result in lengths for cell in result.cells))


def identity_text(study: Study) -> str:
    """The result of the identity check over all methods, lengths and heads, in a line."""
    cells = (cell.identity for result in study.lengths for cell in result.cells)
    identity = sum(cells, Identity())
    if not identity.queries:
        return "no query was fully predicted, so there is no identity to check"
    support = "the same" if identity.same_support else "NOT the same"
    bits = "the same weights bit for bit"
    if identity.different:
        bits = (
            f"weights of {identity.different:,} not the same bit for bit, "
            f"by at most {identity.largest_difference:.2g}"
        )
    return f"{identity.queries:,} fully predicted queries: {support} support, {bits}"


def document(study: Study, title: str) -> str:
    """Markdown: the summary, then every setting at every length, in per cent."""
    parts = [
        f"# Predicted attention graphs: {title}",
        f"Learned from {study.learned_from} validation samples of length {study.plan.learned_at}; "
        "measured on test samples. Per cent; means over heads, then layers.",
        f"## {SUMMARY}",
        summary(study),
        f"Identity: {identity_text(study)}.",
    ]
    for result in study.lengths:
        parts.append(f"## Length {result.length} ({result.tokens:,} tokens)")
        if result.skipped is not None:
            parts.append(f"skipped ({result.skipped})")
            continue
        parts.append(
            f"{result.counted}; the model itself: "
            f"{percent(result.token_accuracy)} % token accuracy, "
            f"{percent(result.exact_match)} % exact match."
        )
        rows = [_row(cell) for cell in result.cells]
        parts.append(aligned(["method", "setting", *COLUMNS.values()], rows))
    return "\n\n".join(parts) + "\n"


def _row(cell: CellResult) -> list[str]:
    if cell.skipped is not None:
        return [cell.front, f"skipped ({cell.skipped})", *[NOTHING] * len(COLUMNS)]
    return [cell.front, cell.setting, *(percent(getattr(cell, name)) for name in COLUMNS)]


def as_json(study: Study, run: str, step: int) -> str:
    """Everything, with each head's measures."""
    content = {"run": run, "step": step, **_plain(asdict(study))}
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    """JSON has neither NaN nor infinity."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


Points = Iterable[tuple[float, float]]
"""Pairs of sparsity and value."""


def front(points: Points) -> list[tuple[float, float]]:
    """The points that no other reaches in both, by growing sparsity; NaN is left out."""
    kept: list[tuple[float, float]] = []
    for point in sorted((p for p in points if not any(map(math.isnan, p))), reverse=True):
        if not kept or point[1] > kept[-1][1]:
            kept.append(point)
    return kept[::-1]


def best(points: Points, sparsity: float) -> float:
    """The largest value of points at least so sparse; NaN without any."""
    good = [value for at, value in points if at >= sparsity and not math.isnan(value)]
    return max(good, default=math.nan)
