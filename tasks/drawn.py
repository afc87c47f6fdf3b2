"""Checks of what a task draws, before it becomes a batch; their errors name class and method.

Shapes: `lengths` is [batch], rows are [batch, tokens].
"""

from typing import Any

import numpy as np

IGNORE = -100
"""The label of a position that is not scored."""


def check_drawn(task: Any, method: str, drawn: Any, lengths: np.ndarray) -> None:
    """Raise ValueError, in one line, unless `drawn` is a source and a target of these lengths."""
    where = f"{type(task).__name__}.{method}()"
    if not isinstance(drawn, tuple | list) or len(drawn) != 2:
        raise ValueError(f"{where} returned {_described(drawn)}, expected (source, target)")
    source, target = drawn
    for name, rows in {"source": source, "target": target}.items():
        if not isinstance(rows, np.ndarray):
            raise ValueError(
                f"{where} returned {_described(rows)} as the {name}, expected a numpy array"
            )
        if rows.dtype.kind not in "iu":
            raise ValueError(
                f"{where} returned a {name} of {rows.dtype}, expected whole numbers, as int64"
            )
        if rows.ndim != 2 or len(rows) != len(lengths):
            raise ValueError(
                f"{where} returned a {name} of shape {list(rows.shape)}, expected "
                f"[{len(lengths)}, tokens], a row for each length"
            )
    counts = _counts(task, "source_length", source, lengths)
    _check_rows(where, "source", source, counts, task.symbol_count, (task.mask, task.sep))
    if task.kind == "seq2seq":
        counts = _counts(task, "target_length", target, lengths)
    allowed = (IGNORE,) if task.partly_scored else ()
    _check_rows(where, "target", target, counts, task.symbol_count, allowed)
    if task.kind != "seq2seq":  # there EOS is scored
        _check_scored(where, target, counts)


def _check_rows(
    where: str, name: str, rows: np.ndarray, counts: np.ndarray, symbols: int, allowed: tuple
) -> None:
    """Raise ValueError unless rows [batch, tokens] have `counts` symbols in range."""
    if rows.shape[1] < counts.max(initial=0):
        raise ValueError(
            f"{where} returned a {name} of shape {list(rows.shape)}, expected "
            f"[{len(rows)}, {counts.max()}] or wider, since its longest row has {counts.max()}"
        )
    if not rows.size or (rows.min() >= 0 and rows.max() < symbols):
        return
    own = rows[np.arange(rows.shape[1]) < counts]
    wrong = own[(own < 0) | (own >= symbols)]
    wrong = wrong[~np.isin(wrong, allowed)]
    if IGNORE in wrong:
        raise ValueError(
            f"{where} returned IGNORE in the {name}, where every symbol is scored; declare "
            'kind = "labelled" for a decoder or kind = "masked" for an encoder to score some'
        )
    if wrong.size:
        raise ValueError(
            f"{where} returned the symbol {wrong[0]} in the {name}, expected 0 to {symbols - 1}, "
            f"since symbol_count is {symbols}"
        )


def _check_scored(where: str, target: np.ndarray, counts: np.ndarray) -> None:
    """Raise ValueError for a row without a scored position: it would always be an exact match."""
    width = counts.max(initial=0)
    scored = (target[:, :width] != IGNORE) & (np.arange(width) < counts)
    empty = np.flatnonzero(~scored.any(axis=1))
    if len(empty):
        raise ValueError(
            f"{where} returned a target with no scored position in row {empty[0]} of "
            f"{len(target)}, expected at least one label that is not IGNORE in each row"
        )


def _counts(task: Any, method: str, rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Symbols of each row [batch, 1]; `method` declares them unless rows vary in length."""
    declared = np.asarray(getattr(task, method)(lengths))
    fits = declared.dtype.kind in "iu" and declared.shape in ((), lengths.shape)
    if not fits or (declared < 0).any():
        found = np.unique(declared)[0] if declared.dtype.kind in "iuf" else declared.dtype
        raise ValueError(
            f"{type(task).__name__}.{method}() returned {found} of shape {list(declared.shape)}, "
            f"expected whole numbers, one or [{len(lengths)}] of them"
        )
    return task.count_symbols(rows, declared, lengths)


def _described(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, np.ndarray):
        return f"one array of shape {list(value.shape)}"
    size = f" of {len(value)}" if isinstance(value, tuple | list) else ""
    return f"a {type(value).__name__}{size}"
