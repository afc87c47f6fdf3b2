"""The runs of a report: their records, and the folders that hold the rest of them."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcg.results.record import FILE_NAME, RecordError, RunRecord

Series = dict[str, tuple[list[int], list[float]]]


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
    directories: dict[tuple[str, str], Path] = {}
    records, problems, seen = [], [], set()
    for path in map(Path, paths):
        found = _run_directories(path)
        if not found:
            problem = f"no {FILE_NAME} in it or below it" if path.exists() else "no such folder"
            problems.append(f"{path}: {problem}; name a run directory or a folder of runs")
        for directory in found:
            if directory in seen:
                continue
            seen.add(directory)
            try:
                record = RunRecord.load(directory)
            except RecordError as error:
                problems.append(str(error))
                continue
            first = directories.setdefault((record.run, record.hash), directory)
            if first != directory:
                problems.append(f"{directory}: left out, it is the same run as {first}")
                continue
            records.append(record)
    if not records:
        raise ValueError(" | ".join(["no runs to report", *problems]))
    return Sources(directories, tuple(records), tuple(problems))


def _run_directories(path: Path) -> list[Path]:
    if path.name == FILE_NAME and path.is_file():
        return [path.parent.resolve()]
    found = []
    for folder, inner, files in os.walk(path):
        if FILE_NAME in files:
            found.append(Path(folder).resolve())
            inner.clear()  # a run holds no other run
        inner[:] = sorted(name for name in inner if not name.startswith("."))
    return found


def read_metrics(directory: Path) -> Series:
    """metrics.csv by column: steps and finite values. Empty if there is none.

    A row cut short by a crash is left out; where a step was logged twice the later one counts.
    """
    columns: dict[str, dict[int, float]] = {}
    try:
        with (directory / "metrics.csv").open(newline="", encoding="utf-8", errors="replace") as f:
            for row in csv.DictReader(f):
                if None in row or None in row.values() or not (row.get("step") or "").isdigit():
                    continue
                for name, text in row.items():
                    value = _number(text)
                    if name != "step" and value is not None:
                        columns.setdefault(name, {})[int(row["step"])] = value
    except (OSError, csv.Error):
        return {}
    return {
        name: (sorted(points), [points[step] for step in sorted(points)])
        for name, points in columns.items()
    }


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def read_provenance(directory: Path) -> dict[str, Any]:
    """provenance.json, or nothing where it is missing or damaged."""
    try:
        found = json.loads((directory / "provenance.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


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
