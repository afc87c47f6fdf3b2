"""Measures of a ladder cell that tables and plots show: exact match, token accuracy, BLEU, …"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lcg.runs.record import Cell, RunRecord

TITLES = {
    "exact_match": "exact match",
    "token_accuracy": "token accuracy",
    "prefix": "longest correct prefix",
    "bleu": "BLEU",
    "chrf": "chrF",
    "masked_accuracy": "masked-token accuracy",
}
FIELDS = ("exact_match", "token_accuracy", "prefix")  # of every cell; others are its `metrics`


@dataclass(frozen=True)
class Measure:
    """A number that cells hold, by its name in a record."""

    name: str

    @property
    def title(self) -> str:
        """The name in words."""
        return TITLES.get(self.name, self.name.replace("_", " "))

    @property
    def scale(self) -> str:
        """The unit that tables and plots show it in."""
        return "%" if self.name in FIELDS else "0 to 100"

    def of(self, cell: Cell) -> float | None:
        """The value in [0, 1] (a metric of a task, which is 0 to 100, divided by 100), or None."""
        if cell.state != "value":
            return None
        if self.name in FIELDS:
            return getattr(cell, self.name)
        value = (cell.metrics or {}).get(self.name)
        return None if value is None else value / 100


EXACT_MATCH = Measure("exact_match")


def task_measures(records: Iterable[RunRecord]) -> list[Measure]:
    """The measures of a task's own that any cell holds, in the order of the records."""
    cells = [cell for record in records for cell in record.ladder]
    return [Measure(n) for n in dict.fromkeys(name for c in cells for name in c.metrics or ())]


def measure_named(name: str, records: Iterable[RunRecord]) -> Measure:
    """The measure of that name. Raises ValueError, listing those the records hold, for another."""
    records = list(records)
    cells = [cell for record in records for cell in record.ladder]
    fields = [Measure(field) for field in FIELDS]
    held = [m for m in fields if m == EXACT_MATCH or any(m.of(cell) is not None for cell in cells)]
    held += task_measures(records)
    if Measure(name) not in held:
        names = ", ".join(measure.name for measure in held)
        raise ValueError(f"--metric {name}: no run holds it; the runs hold {names}")
    return Measure(name)
