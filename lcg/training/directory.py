"""The run directory: where it is, and whether it holds this run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lcg.config import Config, identity, run_directory
from lcg.results import RunRecord
from lcg.speaking import say
from lcg.training import provenance

if TYPE_CHECKING:
    from lcg.keeping.checkpoints import Resume


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
    record = RunRecord.load(directory)
    if record.training.status not in ("finished", "not_finite"):
        return None
    if provenance.read(directory).get("code") != provenance.code_digest():
        say(f"{directory} was trained with different code; delete it to train again")
    return record
