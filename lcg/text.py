"""Durations, sizes, numbers of other libraries and columns as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any


def duration(seconds: float) -> str:
    """`12 s`, `3 min`, `4.2 h`, `9.1 days`."""
    for unit, least in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * least:
            count = seconds / least
            return f"{count:.2g} {unit}" if count < 100 else f"{count:,.0f} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def size(count: int) -> str:
    """`1.4 GiB`, `270 KiB`."""
    value = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1000 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"


def as_number(value: Any) -> float | None:
    """Return a number of any library as a float.

    It may be Python's, numpy's, an array or a tensor without dimensions. None for other objects,
    booleans included.
    """
    if type(value) in (int, float):
        return float(value)
    boolean = isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool")
    if boolean or not hasattr(value, "__float__") or tuple(getattr(value, "shape", ())):
        return None
    return float(value)


def in_blocks(columns: list[tuple[str, ...]], width: int) -> list[list[tuple[str, ...]]]:
    """Split columns into blocks of at most `width` characters, at least one column in each."""
    blocks: list[list[tuple[str, ...]]] = []
    used = width
    for column in columns:
        taken = max(map(len, column)) + 1
        if not blocks or used + taken - 1 > width:
            blocks.append([])
            used = 0
        blocks[-1].append(column)
        used += taken
    return blocks


def align(
    rows: Iterable[Sequence[str]], gap: str = "  ", justify: Callable[[str, int], str] = str.rjust
) -> list[str]:
    """Format rows of cells as lines, each column as wide as its widest cell."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [gap.join(map(justify, row, widths)) for row in rows]
