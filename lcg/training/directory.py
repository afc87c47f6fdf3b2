"""The run directory: where it is, who holds it, and whether it holds this run."""

from __future__ import annotations

import fcntl
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from lcg.config import Config, identity, run_directory
from lcg.results import RunRecord
from lcg.training import provenance
from lcg.training.checkpoints import Resume
from lcg.training.processes import say


class Busy(RuntimeError):
    """Another process trains this run; the message is one line."""


def place(config: Config) -> Path:
    """The run's directory. Raises ValueError for a name that leads out of `runs` or into a run."""
    directory = run_directory(config)
    if config.name is not None:
        name = Path(config.name)
        if name.is_absolute() or not name.parts or ".." in name.parts:
            raise ValueError(f"name={config.name} must be a folder below runs={config.runs}")
        for outer in list(directory.parents)[: len(name.parts) - 1]:
            if (outer / "config.yaml").exists():
                raise ValueError(f"name={config.name} lies inside the run {outer}")
    return directory


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the run directory for this process alone; the system lets go when it dies.

    Raises Busy when another process holds it, ValueError when it cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / ".lock").open("a+")
    except OSError as error:
        raise ValueError(
            f"{directory} cannot be written: {error.strerror}; choose another folder with runs=…"
        ) from None
    with file:
        try:
            _take(file)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip()
            by = f"process {holder}" if holder else "another process"
            raise Busy(f"{directory} is being trained by {by}") from None
        except OSError:
            say(f"{directory}: this file system has no locks; do not start the run twice")
        with suppress(OSError):  # for the message above only
            file.truncate(0)
            file.write(f"{os.getpid()} on {platform.node()}")
            file.flush()
        try:
            yield
        finally:
            with suppress(OSError):
                file.truncate(0)


def _take(file: TextIO, patience: float = 0.5) -> None:
    """Lock a file; somebody who only looks whether it is locked holds it for a moment."""
    end = time.monotonic() + patience
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


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
    _check(resume.identity or identity(config), config, resume.path)


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
    record = RunRecord.load(directory)
    if record.training.status not in ("finished", "not_finite"):
        return None
    if provenance.read(directory).get("code") != provenance.code_digest(config):
        say(f"{directory} is stale: it was trained by other code; delete it to train again")
    return record
