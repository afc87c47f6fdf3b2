"""metrics.csv of a run: who reads it agrees here on what of it is whole."""

import csv
import io
from pathlib import Path

METRICS = "metrics.csv"


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and whole rows; nothing while there is no file.

    The last row of a killed run may be cut short, inside a number even: only what ends with its
    line counts, has every column, and a step.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return [], []
    lines = io.StringIO(text, newline="\n").readlines()
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    try:
        reader = csv.DictReader(lines)
        rows = [row for row in reader if _whole(row)]
    except csv.Error:
        return [], []
    return list(reader.fieldnames or []), rows


def _whole(row: dict) -> bool:
    return None not in row and None not in row.values() and (row.get("step") or "").isdigit()
