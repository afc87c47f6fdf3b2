"""A study as text: the summary that is printed, and the table of every setting."""

from __future__ import annotations

import json
import math

from lcg.results.markdown import aligned
from lcg.sparsefinder.fronts import best
from lcg.sparsefinder.measuring import Identity
from lcg.sparsefinder.study import CellResult, LengthResult, Study

SPARSITY = 0.5
SUMMARY = f"Best recall and most tokens right (%) at a sparsity of {100 * SPARSITY:.0f} % or more"
NOTHING = "—"
UNREACHED = f"{NOTHING}: no setting of the method reaches a sparsity of {100 * SPARSITY:.0f} %"
COLUMNS = {
    "sparsity": "sparsity",
    "recall": "recall",
    "exact": "exact queries",
    "mass": "mass",
    "token_accuracy": "tokens right",
    "exact_match": "exact match",
}


def percent(value: float) -> str:
    """A share in per cent."""
    return NOTHING if math.isnan(value) else f"{100 * value:.1f}"


def summary(study: Study) -> str:
    """Per front the best recall and, maybe of another setting, the most tokens right of what is at
    least as sparse as SPARSITY.
    """
    lengths = [result for result in study.lengths if result.skipped is None]
    header = ["method", *(f"length {result.length}" for result in lengths)]
    rows = [["the model itself", *(f"  · {percent(x.token_accuracy)}" for x in lengths)]]
    for front in fronts_of(lengths):
        rows.append([front, *(_best_text(result, front) for result in lengths)])
    table = aligned(header, rows)
    unreached = any(NOTHING in row for row in rows)
    return f"{table}\n\n{UNREACHED}" if unreached else table


def _best_text(result: LengthResult, front: str) -> str:
    own = [cell for cell in result.cells if cell.front == front]
    if all(cell.skipped for cell in own):
        return "skipped"
    values = [
        best([(cell.sparsity, getattr(cell, name)) for cell in own], SPARSITY)
        for name in ("recall", "token_accuracy")
    ]
    return NOTHING if values[0] is None else " · ".join(map(percent, values))


def fronts_of(lengths: list[LengthResult]) -> list[str]:
    """The fronts that there are, in the order of the grid."""
    return list(dict.fromkeys(cell.front for result in lengths for cell in result.cells))


def identity_of(study: Study) -> Identity:
    """The identity over all methods, lengths and heads."""
    total = Identity()
    for result in study.lengths:
        for cell in result.cells:
            total += cell.identity
    return total


def identity_text(study: Study) -> str:
    """What the identity check found, in a line."""
    found = identity_of(study)
    if not found.queries:
        return "no query was fully predicted, so there is no identity to check"
    support = "the same" if found.same_support else "NOT the same"
    bits = "the same weights bit for bit"
    if found.different:
        bits = (
            f"weights of {found.different:,} not the same bit for bit, "
            f"by at most {found.largest_difference:.2g}"
        )
    return f"{found.queries:,} fully predicted queries: {support} support, {bits}"


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
            f"{result.samples} sample{'s' * (result.samples > 1)}; the model itself: "
            f"{percent(result.token_accuracy)} % of tokens right, "
            f"{percent(result.exact_match)} % of samples."
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
    content = {"run": run, "step": step, **study.tree()}
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
