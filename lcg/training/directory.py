"""The run directory: where it is, and whether it holds this run."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from lcg.config import Config, identity, run_directory
from lcg.results import RecordError, RunRecord
from lcg.results.loading import CONFIG
from lcg.results.record import FILE_NAME as RECORD
from lcg.speaking import say
from lcg.storage import is_storage_error
from lcg.training import provenance

if TYPE_CHECKING:
    from lcg.keeping.checkpoints import Resume


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
            if {RECORD, CONFIG} <= set(files):
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
    return (folder / CONFIG).is_file() and (folder / RECORD).is_file()


def check_same_config(config: Config, directory: Path) -> None:
    """Raise ValueError for a directory that holds a run of another config."""
    if not (directory / "config.yaml").exists():
        return
    held = provenance.read(directory).get("identity")
    if held is None:
        raise ValueError(
            f"{directory}/{provenance.NAME} is missing or damaged, so it is unknown what the run "
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
    _check(record.hash, config, directory / RECORD)
    if record.training.status not in ("finished", "not_finite"):
        return None
    if provenance.read(directory).get("code") != provenance.code_digest():
        say(f"{directory} was trained with different code; delete it to train again")
    return record
