"""Find run directories and read their records."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcg.config import Config, ConfigError, config_from_tree, identity, run_directory
from lcg.config.load import read_yaml
from lcg.log import log
from lcg.runs.presets import label_fits
from lcg.runs.provenance import PROVENANCE, code_digest, read_provenance
from lcg.runs.record import FILE_NAME, RecordError, RunRecord
from lcg.runs.sources import Trust, locate_sources
from lcg.system import is_storage_error

if TYPE_CHECKING:
    from lcg.runs.checkpoints import Resume

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


def place(config: Config) -> Path:
    """The run's directory.

    Raises ValueError, in one line, for one that cannot be made, since a part of its path is a file,
    and for one inside a run or around a run, where `lcg table` would show only the outer.
    """
    directory = run_directory(config)
    asked = f"runs={config.runs}" if config.name is None else f"name={config.name}"
    check_folder(f"runs={config.runs}", Path(config.runs))
    check_folder(asked, directory)
    inner = directory
    while inner != inner.parent:
        inner = inner.parent
        if _is_run(inner):
            asked = f"runs={config.runs}" if inner in _and_above(Path(config.runs)) else asked
            raise ValueError(f"{asked} lies inside the run {inner}; choose another")
    if directory.is_dir() and not _is_run(directory):
        for folder, _, files in os.walk(directory):
            if {FILE_NAME, CONFIG} <= set(files):
                raise ValueError(f"{asked} holds the run {folder}; choose another name")
    return directory


def check_folder(asked: str, folder: Path) -> None:
    """Raise ValueError, beginning with what was asked for, when a file is in a folder's place.

    Raises OSError for a path that may not be looked at.
    """
    for path in _and_above(folder):
        try:
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            if not is_storage_error(error):  # such as a name that is too long
                raise ValueError(f"{asked}: {error.strerror}") from None
            remedy = f"{error.strerror}; choose another folder with runs=…"
            raise OSError(error.errno, remedy, str(folder)) from None
        if not stat.S_ISDIR(mode):
            raise ValueError(f"{asked}: {path} is no folder; choose another place")
        return


def _and_above(path: Path) -> list[Path]:
    return [path, *path.parents]


def _is_run(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and (folder / FILE_NAME).is_file()


def check_same_config(config: Config, directory: Path) -> None:
    """Raise ValueError for a directory that holds a run of another config."""
    if not (directory / "config.yaml").exists():
        return
    held = read_provenance(directory).get("identity")
    if held is None:
        raise ValueError(
            f"{directory}/{PROVENANCE} is missing or damaged, so it is unknown what the run "
            "is; restore it, or choose another name"
        )
    _check(held, config, directory)


def check_same_checkpoint(config: Config, resume: Resume) -> None:
    """Raise ValueError for a checkpoint of another config."""
    _check(resume.identity, config, resume.path)


def _check(held: str, config: Config, path: Path) -> None:
    if held != identity(config):
        raise ValueError(
            f"{path} belongs to a run of another config ({held}, this is {identity(config)}); "
            "choose another name"
        )


def finished(config: Config, directory: Path) -> RunRecord | None:
    """The record of a run that needs no more training; says so when its code has changed."""
    if not (directory / "results.json").exists():
        return None
    try:
        record = RunRecord.load(directory)
    except RecordError:  # training sets it aside, and says so
        return None
    _check(record.hash, config, directory / FILE_NAME)
    if record.training.status not in ("finished", "not_finite"):
        return None
    if read_provenance(directory).get("code") != code_digest():
        log.warning(f"{directory} was trained with different code; delete it to train again")
    return record


def read_config(directory: Path, trust: Trust = "own") -> Config:
    """The config a run was trained with; users' classes come from their copies in the run.

    A copy that differs from the user's own file is run with `trust` "any" alone, and said.
    Nothing in the file is resolved: no environment variable gets in.

    Raises ValueError, naming the directory, when there is none or it cannot be used.
    """
    check_run(directory)
    path = directory / "config.yaml"
    tree = read_yaml(path, resolve=False)
    for line in locate_sources(directory, tree, trust):
        log.warning(f"note: {line}")
    try:
        return config_from_tree(tree)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error.__cause__
    except (TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ConfigError(f"{path}: is no config of a run ({error!r:.80})") from error


def check_run(directory: Path) -> None:
    """Raise ValueError for a path that is no run directory; of a folder of runs it names one."""
    if os.path.lexists(directory / "config.yaml"):  # whatever it is: reading it says more
        return
    if not directory.exists():
        raise ValueError(f"{directory} does not exist")
    below = (
        path
        for depth in range(1, 4)
        for path in sorted(directory.glob("*/" * depth + "config.yaml"))
    )
    run = next((f"; name a run in it, such as {path.parent}" for path in below), "")
    raise ValueError(f"{directory} is no run directory: it has no config.yaml{run}")


def check_selected(directory: Path) -> None:
    """Raise ValueError when a run has no selected checkpoint yet."""
    if not os.path.lexists(directory / "checkpoints" / "best.ckpt"):
        raise ValueError(f"{directory} has no best.ckpt yet; train it to a validation first")
