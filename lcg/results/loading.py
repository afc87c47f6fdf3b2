"""Find run directories and read their records."""

import glob
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lcg.results.presets import label_fits
from lcg.results.record import FILE_NAME, RecordError, RunRecord

CONFIG = "config.yaml"  # all that a run directory holds before the first record is written
# The fields of a config.yaml that change the weights, but for seed and learning rate.
SECTIONS = ("task", "attention", "position", "model", "data", "optimizer")
OTHERS = {
    "attention": ("backend",),
    "model": ("unordered",),
    "data": ("workers",),
    "optimizer": ("lr",),
}
OF_TRAINER = ("steps", "precision")


def load_runs(
    paths: Iterable[str | os.PathLike], report: Callable[[str], None] | None = None
) -> list[RunRecord]:
    """Every run under `paths`: see `read_runs`."""
    return list(read_runs(paths, report).values())


def read_runs(
    paths: Iterable[str | os.PathLike], report: Callable[[str], None] | None = None
) -> dict[Path, RunRecord]:
    """Directory -> record of every run under `paths`: run directories, or folders that hold some.

    Ordered by path within each argument; a directory reached twice is read once. A path that holds
    no run, a record that cannot be read, a run that has no record yet, a folder that cannot be
    entered and a run that lies in two places are problems: `report` is called with a line for each
    and the rest goes on. Without `report`, or if no run could be read, RecordError names them.

    Runs of one hash are one run, whatever they are called, and count once: the record that got
    furthest, and of equal ones that whose label fits its attention.
    """
    problems: list[str] = []
    found: dict[Path, bool] = {}
    for path in _expanded(paths):
        before = len(problems)
        directories = _run_directories(path, problems)
        if not directories and len(problems) == before:
            problem = f"no {FILE_NAME} in it or below it" if path.exists() else "no such folder"
            if not path.exists() and glob.has_magic(str(path)):
                problem = "nothing matches this pattern"
            problems.append(f"{path}: {problem}; name a run directory or a folder of runs")
        found.update(directories)
    records: dict[Path, RunRecord] = {}
    places: dict[tuple[str, str], Path] = {}
    for directory, has_record in found.items():
        if not has_record:
            problems.append(f"{directory}: no {FILE_NAME} yet; its training has not begun")
            continue
        try:
            record = load_run(directory)
        except RecordError as error:
            problems.append(str(error))
            continue
        key = (record.group, record.hash)
        other = places.setdefault(key, directory)
        if other != directory:
            better = _worth(record) > _worth(records[other])
            left, kept = (other, directory) if better else (directory, other)
            problems.append(f"{left}: the same run as {kept}; name one of the two")
            if not better:
                continue
            del records[other]
            places[key] = directory
        records[directory] = record
    if problems and (report is None or (not records and len(problems) == 1)):
        raise RecordError(" | ".join(problems))
    for problem in problems:
        report(problem)
    if not records:
        raise RecordError("none of them can be read, so there is nothing to show")
    return records


def _worth(record: RunRecord) -> tuple[int, int, bool]:
    return record.training.step, len(record.ladder), label_fits(record)


def load_run(directory: Path) -> RunRecord:
    """The record of one run directory, with its config. Raises RecordError."""
    record = RunRecord.load(directory)
    return record if record.config else replace(record, config=config_of(directory))


def _expanded(paths: Iterable[str | os.PathLike]) -> list[Path]:
    """Paths, a pattern (`runs/copy-*`) that a shell left as it is being expanded."""
    found: list[Path] = []
    for path in map(Path, paths):
        matching = [] if path.exists() else sorted(glob.glob(str(path)))
        found += map(Path, matching or [path])
    return found


def config_of(directory: Path) -> dict[str, Any]:
    """The config of a run whose record lacks it, as plain data; empty where it cannot be read.

    As in `RunRecord.config`, fields that change no weight, seed and learning rate are left out.
    """
    import yaml

    try:
        text = (directory / CONFIG).read_text(encoding="utf-8")
        tree = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    if not isinstance(tree, dict):
        return {}
    sections = {name: tree[name] for name in SECTIONS if isinstance(tree.get(name), dict)}
    kept: dict[str, Any] = {
        name: {key: value for key, value in fields.items() if key not in OTHERS.get(name, ())}
        for name, fields in sections.items()
    }
    if isinstance(tree.get("trainer"), dict):
        kept |= {key: value for key, value in tree["trainer"].items() if key in OF_TRAINER}
    return kept


def _run_directories(path: Path, problems: list[str]) -> dict[Path, bool]:
    """Resolved run directories at or below `path`, hidden folders left out: have they a record?"""
    if path.name == FILE_NAME and path.is_file():
        return {path.parent.resolve(): True}
    found = {}

    def unreadable(error: OSError) -> None:
        if Path(error.filename) != path or path.exists():
            problems.append(f"{error.filename}: cannot be entered ({error.strerror})")

    for folder, inner, files in os.walk(path, onerror=unreadable):
        place = Path(folder)
        if FILE_NAME in files:
            found[place] = True
            inner.clear()  # a run holds no other run
        elif CONFIG in files and not any(parent in found for parent in place.parents):
            found[place] = False
        inner[:] = sorted(n for n in inner if not n.startswith(".") and n != "wandb")
    # A folder that has a config of its own and runs below it is no run.
    outer = {
        parent for place, has_record in found.items() if has_record for parent in place.parents
    }
    return {place.resolve(): has for place, has in found.items() if has or place not in outer}
