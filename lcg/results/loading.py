"""Find run directories and read their records."""

import os
from collections.abc import Iterable
from pathlib import Path

from lcg.results.record import FILE_NAME, RecordError, RunRecord


def load_runs(paths: Iterable[str | os.PathLike]) -> list[RunRecord]:
    """Every run under `paths`: run directories, or folders holding them at any depth.

    Ordered by path within each argument; a directory reached twice is read once. Raises RecordError
    (one line) if a path holds no run, if records are unreadable (all of them are named), or if one
    run lies in two places.
    """
    directories: dict[Path, None] = {}
    for path in map(Path, paths):
        found = _run_directories(path)
        if not found:
            problem = f"no {FILE_NAME} in it or below it" if path.exists() else "no such folder"
            raise RecordError(f"{path}: {problem}; name a run directory or a folder of runs")
        directories.update(dict.fromkeys(found))
    records, problems, places = [], [], {}
    for directory in directories:
        try:
            record = RunRecord.load(directory)
        except RecordError as error:
            problems.append(str(error))
            continue
        first = places.setdefault((record.run, record.hash), directory)
        if first != directory:
            problems.append(f"{directory}: the same run as {first}; name one of the two")
        records.append(record)
    if problems:
        raise RecordError(" | ".join(problems))
    return records


def _run_directories(path: Path) -> list[Path]:
    """Resolved directories at or below `path` that hold a record, hidden folders left out."""
    if path.name == FILE_NAME and path.is_file():
        return [path.parent.resolve()]
    found = []
    for folder, inner, files in os.walk(path):
        if FILE_NAME in files:
            found.append(Path(folder).resolve())
            inner.clear()  # a run holds no other run
        inner[:] = sorted(name for name in inner if not name.startswith("."))
    return found
