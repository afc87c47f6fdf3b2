"""The runs of a report: their records, and the folders that hold the rest of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from lcg.runs.metrics import Series
from lcg.runs.record import RecordError, RunRecord
from lcg.runs.run import Run


@dataclass(frozen=True)
class Sources:
    """Readable runs with the directory of each, and one line for every one that is not."""

    directories: dict[tuple[str, str], Path]
    records: tuple[RunRecord, ...]
    problems: tuple[str, ...]

    def directory(self, record: RunRecord) -> Path:
        """Where the run lies."""
        return self.directories[record.run, record.hash]


def find(paths: Iterable[str | os.PathLike]) -> Sources:
    """Every run at or below `paths`; what cannot be read is told and left out.

    Raises ValueError if no run is left.
    """
    problems: list[str] = []
    try:
        runs = Run.find(paths, problems.append)
    except RecordError as error:
        raise ValueError(" | ".join(["no runs to report", *problems, str(error)])) from None
    directories = {(run.record.run, run.record.hash): run.path for run in runs}
    return Sources(directories, tuple(run.record for run in runs), tuple(problems))


def read_metrics(directory: Path, wanted: Callable[[str], bool] = lambda name: True) -> Series:
    """Read columns of metrics.csv: steps and finite values. Empty if there is none.

    A row cut short by a crash is left out; where a step was logged twice the later one counts.
    """
    return Run(directory).curves(wanted)


def thinned(steps: list[int], values: list[float], most: int = 200) -> tuple[list, list]:
    """At most `most` points of a curve: means over stretches of equal length."""
    size = -(-len(steps) // most) or 1
    if size == 1:
        return steps, values
    stretches = [slice(start, start + size) for start in range(0, len(steps), size)]
    return (
        [round(sum(steps[s]) / len(steps[s])) for s in stretches],
        [sum(values[s]) / len(values[s]) for s in stretches],
    )
