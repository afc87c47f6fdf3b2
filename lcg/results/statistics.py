"""Numbers made from ladder cells: measures, intervals, effective length, statistics over seeds.

Everything is a fraction in [0, 1]. A cell without a value (skipped, out of memory, not finite) is
left out of every mean, never counted as 0.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from statistics import fmean, median

from lcg.runs.record import Cell, RunRecord

NOT_EVALUATED = ("skipped", "out_of_memory")
PASSES = 0.9  # what a length must reach to count towards the effective length
OF_BASE = 0.85  # or of the base value, where that is what counts
TITLES = {
    "exact_match": "exact match",
    "token_accuracy": "token accuracy",
    "prefix": "longest correct prefix",
    "oracle_length": "exact match, EOS not scored",
    "edit_distance": "edit distance per token of the target",
    "bleu": "BLEU",
    "chrf": "chrF",
    "masked_accuracy": "masked-token accuracy",
}
FIELDS = ("exact_match", "token_accuracy", "prefix", "oracle_length", "edit_distance")
"""Measures that are fields of a cell; others are its `metrics`."""


@dataclass(frozen=True)
class Measure:
    """A number that cells hold, by its name in a record: exact match, token accuracy, BLEU, …"""

    name: str

    @property
    def title(self) -> str:
        """The name in words."""
        return TITLES.get(self.name, self.name.replace("_", " "))

    @property
    def scale(self) -> str:
        """The unit that tables and plots show it in."""
        return "%" if self.name in FIELDS else "0 to 100"

    @property
    def accuracy(self) -> bool:
        """True for shares of what is right, of which an effective length can be told."""
        return self.name in FIELDS and self.name != "edit_distance"

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
    cells = (cell for record in records for cell in record.ladder)
    return [*map(Measure, dict.fromkeys(name for cell in cells for name in cell.metrics or ()))]


def measure_named(name: str, records: Sequence[RunRecord]) -> Measure:
    """The measure of that name. Raises ValueError, listing those the records hold, for another."""
    cells = [cell for record in records for cell in record.ladder]
    others = [
        field
        for field in map(Measure, FIELDS[1:])
        if any(field.of(cell) is not None for cell in cells)
    ]
    held = [EXACT_MATCH, *others, *task_measures(records)]
    if Measure(name) not in held:
        names = ", ".join(measure.name for measure in held)
        raise ValueError(f"--metric {name}: no run has it; the runs have {names}")
    return Measure(name)


def wilson(correct: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson score interval of a proportion; z = 1.96 gives 95 %.

    Raises ValueError unless 0 <= correct <= n and n >= 1.
    """
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"{correct} correct of {n} is not a proportion")
    p, z2 = correct / n, z * z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    low = 0.0 if correct == 0 else max(0.0, centre - half)
    high = 1.0 if correct == n else min(1.0, centre + half)
    return low, high


def effective_length(
    cells: Iterable[Cell], threshold: float = PASSES, measure: Measure = EXACT_MATCH
) -> int | None:
    """The largest evaluated length L such that every evaluated length <= L passes.

    Skipped and out-of-memory cells were not evaluated; a length that did not train or was not
    finite was, and fails. None if the shortest evaluated length fails or nothing was evaluated.
    """
    evaluated = sorted(
        (cell.length, measure.of(cell) or 0.0) for cell in cells if cell.state not in NOT_EVALUATED
    )
    passing = [length for length, _ in takewhile(lambda point: point[1] >= threshold, evaluated)]
    return passing[-1] if passing else None


def base_value(cells: Iterable[Cell], train_max: int, measure: Measure) -> float | None:
    """The best value at a length up to the longest in training; None if there is none."""
    values = (measure.of(cell) for cell in cells if cell.length <= train_max)
    return max((value for value in values if value is not None), default=None)


def nnch_score(cells: Iterable[Cell], train_max: int) -> float | None:
    """The mean token accuracy over all lengths from train_max + 1 to the longest with a value.

    Between evaluated lengths it is interpolated linearly, so it is that of 2207.02098 where every
    length was evaluated. None unless a length up to train_max and one beyond have a value.
    """
    points = sorted((c.length, c.token_accuracy) for c in cells if c.token_accuracy is not None)
    inside = [point for point in points if point[0] <= train_max]
    beyond = [point for point in points if point[0] > train_max]
    if not inside or not beyond:
        return None
    total = 0.0
    for (left, low), (right, high) in pairwise([inside[-1], *beyond]):
        first = max(left, train_max) + 1  # of the lengths first … right
        slope = (high - low) / (right - left)
        total += (right - first + 1) * (high - slope * (right - first) / 2)
    return total / (beyond[-1][0] - train_max)


@dataclass(frozen=True)
class Mean:
    """A mean over `n` values out of `of` that could have had one; None if there is none."""

    value: float | None
    n: int
    of: int


def mean(values: Iterable[float | None]) -> Mean:
    """The mean of the values present."""
    values = list(values)
    present = [value for value in values if value is not None]
    return Mean(fmean(present) if present else None, len(present), len(values))


@dataclass(frozen=True)
class OverSeeds:
    """One quantity over the runs of a group, in the runs' order.

    values: None where a run has none. median, low, high: over the values present.
    trained: how many of `runs` trained. mean_trained, mean_all: over those, and over all runs.
    """

    values: tuple[float | None, ...]
    median: float | None
    low: float | None
    high: float | None
    trained: int
    runs: int
    mean_trained: Mean
    mean_all: Mean


def over_seeds(values: Sequence[float | None], trained: Sequence[bool | None]) -> OverSeeds:
    """Aggregate one value per run; `trained` says of each run whether it trained (None: unknown).

    Raises ValueError if the two differ in length.
    """
    present = [value for value in values if value is not None]
    return OverSeeds(
        values=tuple(values),
        median=median(present) if present else None,
        low=min(present, default=None),
        high=max(present, default=None),
        trained=sum(flag is True for flag in trained),
        runs=len(values),
        mean_trained=mean(v for v, flag in zip(values, trained, strict=True) if flag),
        mean_all=mean(values),
    )
