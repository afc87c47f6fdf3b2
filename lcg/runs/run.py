"""A run directory: `Run` reads what is in it, finds runs below folders, and says where one lies."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcg.config import Config, ConfigError, config_from_tree, identity, run_directory
from lcg.config.load import read_yaml
from lcg.log import log
from lcg.runs.files import BEST, CHECKPOINTS, CONFIG, METRICS, PLOTS, PROVENANCE, RECORD, locked
from lcg.runs.metrics import Series, read_curves
from lcg.runs.presets import label_fits
from lcg.runs.provenance import code_digest, read_provenance
from lcg.runs.record import RecordError, RunRecord, report_problems
from lcg.runs.sources import Trust, locate_sources
from lcg.system import is_storage_error

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

# Fields of a config.yaml, by section, that change no weight, and the learning rate.
OTHERS = {
    "task": (),
    "attention": ("backend",),
    "position": (),
    "model": ("allow_no_position", "unordered"),  # its name in older runs
    "data": ("workers",),
    "optimizer": ("lr",),
}
OF_TRAINER = ("steps", "precision")


class Run:
    """A run directory, there or yet to be made; each of its files is read when first asked for.

    Another `Run` of the same path reads it anew. trust: which code of users' classes may run.
    """

    def __init__(self, path: str | os.PathLike, trust: Trust = "own") -> None:
        self.path, self.trust = Path(path), trust
        self.config_file, self.record_file = self.path / CONFIG, self.path / RECORD
        self.metrics_file = self.path / METRICS
        self.checkpoints, self.plots = self.path / CHECKPOINTS, self.path / PLOTS

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @classmethod
    def place(cls, config: Config) -> Run:
        """The run of a config, whose directory need not be there yet.

        Raises ValueError, in one line, for one that cannot be made, since a part of its path is a
        file, and for one inside a run or around a run, where `lcg table` would show only the outer.
        """
        directory = run_directory(config)
        asked = f"runs={config.runs}" if config.name is None else f"name={config.name}"
        check_folder(f"runs={config.runs}", Path(config.runs))
        check_folder(asked, directory)
        for outer in filter(_is_run, directory.parents):
            runs = Path(config.runs)
            asked = f"runs={config.runs}" if outer in (runs, *runs.parents) else asked
            raise ValueError(f"{asked} is inside the run {outer}; choose another")
        if directory.is_dir() and not _is_run(directory):
            for folder, _, files in os.walk(directory):
                if {RECORD, CONFIG} <= set(files):
                    raise ValueError(f"{asked} holds the run {folder}; choose another name")
        return cls(directory)

    @classmethod
    def find(
        cls, paths: Iterable[str | os.PathLike], report: Callable[[str], None] | None = None
    ) -> list[Run]:
        """Every run under `paths`, with its record: run directories, or folders that hold some.

        Ordered by path within each argument; a directory reached twice is read once. A path that
        holds no run, a record that cannot be read, a run that has no record yet, a folder that
        cannot be entered and a run that lies in two places are problems: `report` is called with a
        line for each and the rest goes on. Without `report`, or if no run could be read,
        RecordError names them.

        Runs of one hash are one run, whatever they are called, and count once: the record that got
        furthest, and of equal ones that whose label fits its attention.
        """
        problems: list[str] = []
        found: dict[Path, bool] = {}
        for path in _expanded(paths):
            before = len(problems)
            directories = _run_directories(path, problems) if path.exists() else {}
            if not directories and len(problems) == before:
                problem = f"no {RECORD} in it or below it"
                if not path.exists():
                    is_pattern = glob.has_magic(str(path))
                    problem = "nothing matches this pattern" if is_pattern else "no such folder"
                problems.append(f"{path}: {problem}; name a run directory or a folder of runs")
            found.update(directories)
        runs: dict[tuple[str, str], Run] = {}
        for directory, has_record in found.items():
            run = cls(directory)
            if not has_record:
                problems.append(f"{directory}: no {RECORD} yet; its training has not begun")
                continue
            try:
                key = (run.record.group, run.record.hash)
            except RecordError as error:
                problems.append(str(error))
                continue
            if (other := runs.get(key)) is not None:
                left, kept = (other, run) if _worth(run) > _worth(other) else (run, other)
                problems.append(f"{left.path}: the same run as {kept.path}; name one of the two")
                if left is run:
                    continue
                del runs[key]  # so that the one that stays stands where it was found
            runs[key] = run
        report_problems(problems, report, bool(runs))
        return list(runs.values())

    @cached_property
    def config(self) -> Config:
        """The config it was trained with; users' classes come from their copies in the run.

        A copy that differs from the user's own file is run with `trust` "any" alone, and said.
        Nothing in the file is resolved: no environment variable gets in.

        Raises ValueError, naming the directory, when there is none or it cannot be used.
        """
        self.check()
        tree = read_yaml(self.config_file, resolve=False)
        for line in locate_sources(self.path, tree, self.trust):
            log.warning(f"note: {line}")
        try:
            return config_from_tree(tree)
        except ConfigError as error:
            raise ConfigError(f"{self.config_file}: {error}") from error.__cause__
        except (TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            problem = f"is not the config of a run ({error!r:.80})"
            raise ConfigError(f"{self.config_file}: {problem}") from error

    @cached_property
    def record(self) -> RunRecord:
        """The record, with its config. Raises RecordError."""
        record = RunRecord.load(self.path)
        return record if record.config else replace(record, config=_experiment(self.config_file))

    @cached_property
    def metrics(self) -> Series:
        """All columns of metrics.csv: see `curves`."""
        return self.curves()

    def curves(self, wanted: Callable[[str], bool] = lambda name: True) -> Series:
        """The columns of metrics.csv that are wanted: steps and finite values; empty without one.

        A row cut short by a crash is left out; where a step was logged twice the later one counts.
        """
        return read_curves(self.metrics_file, wanted)

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Command, code, versions and machine; empty where the file is missing or damaged."""
        return read_provenance(self.path)

    def weights(self, model: Module) -> tuple[dict[str, Tensor], int]:
        """The selected checkpoint's weights, which fit `model`, and its step.

        Where best.ckpt cannot be used, a checkpoint of training of the same step stands in.

        Raises ValueError when there is no checkpoint, UnreadableCheckpoint when none can be used.
        """
        from torch.nn import ModuleDict

        from lcg.runs.checkpoints import UnreadableCheckpoint, check_step, check_weights, load

        def read(which: str, step: str, fitting: Module) -> tuple[dict[str, Tensor], int]:
            def check(content: dict[str, Any]) -> None:
                check_step(content, step)
                check_weights(content.get("state_dict"), fitting)

            content = load(self.checkpoints / f"{which}.ckpt", check)
            return content["state_dict"], content[step]

        self.check_selected()
        try:
            return read("best", "step", model)
        except UnreadableCheckpoint as error:
            problem = error
        selection = RunRecord.load(self.path).selection
        step = None if selection is None else selection.step
        for which in ("last", "previous"):
            with suppress(FileNotFoundError, UnreadableCheckpoint):
                weights, trained = read(which, "global_step", ModuleDict({"model": model}))
                if trained == step:
                    log.warning(f"{problem}; {which}.ckpt has the same weights")
                    return {name.removeprefix("model."): w for name, w in weights.items()}, step
        raise type(problem)(
            f"{problem}, and no other checkpoint has its step {step}; "
            "restore it, or move the run directory away and train it again"
        ) from problem

    def lock(self) -> AbstractContextManager[None]:
        """Hold the directory for this process alone: see `lcg.runs.files.locked`. Raises Busy."""
        return locked(self.path)

    def finished(self, config: Config) -> RunRecord | None:
        """The record, if this run needs no more training; says so when its code has changed.

        Raises ValueError for a run of another config.
        """
        try:
            record = RunRecord.load(self.path)
        except RecordError:  # there is none, or training sets it aside, and says so
            return None
        check_identity(record.hash, config, self.record_file)
        if record.training.status not in ("finished", "not_finite"):
            return None
        if self.provenance.get("code") != code_digest():
            log.warning(f"{self.path} was trained with different code; delete it to train again")
        return record

    def check(self) -> None:
        """Raise ValueError for a path that is no run directory, naming a run below it if any."""
        if os.path.lexists(self.config_file):  # whatever it is: reading it says more
            return
        if not self.path.exists():
            raise ValueError(f"{self.path} does not exist")
        below = (
            path for depth in (1, 2, 3) for path in sorted(self.path.glob("*/" * depth + CONFIG))
        )
        run = next((f"; name a run in it, such as {path.parent}" for path in below), "")
        raise ValueError(f"{self.path} is not a run directory: it has no {CONFIG}{run}")

    @property
    def is_selected(self) -> bool:
        """A checkpoint was selected, whether or not it can be read."""
        return os.path.lexists(self.checkpoints / BEST)

    def check_selected(self) -> None:
        """Raise ValueError when the run has no selected checkpoint yet."""
        if not self.is_selected:
            raise ValueError(f"{self.path} has no {BEST} yet; train it until its first validation")

    def check_is_of(self, config: Config) -> None:
        """Raise ValueError for a directory that holds a run of another config."""
        if not self.config_file.exists():
            return
        held = self.provenance.get("identity")
        if held is None:
            raise ValueError(
                f"{self.path / PROVENANCE} is missing or damaged, so the run cannot be "
                "identified; restore it, or choose another name"
            )
        check_identity(held, config, self.path)


def check_identity(held: str, config: Config, path: Path) -> None:
    """Raise ValueError for a file or directory whose identity is that of another config."""
    if held != identity(config):
        raise ValueError(
            f"{path} belongs to a run of another config ({held}, this is {identity(config)}); "
            "choose another name"
        )


def _worth(run: Run) -> tuple[int, int, bool]:
    return run.record.training.step, len(run.record.ladder), label_fits(run.record)


def _expanded(paths: Iterable[str | os.PathLike]) -> list[Path]:
    """Paths, a pattern (`runs/copy-*`) that a shell left as it is being expanded."""
    found: list[Path] = []
    for path in map(Path, paths):
        matching = [] if path.exists() else sorted(glob.glob(str(path)))
        found += map(Path, matching or [path])
    return found


def _run_directories(path: Path, problems: list[str]) -> dict[Path, bool]:
    """Resolved run directories at or below `path`, hidden folders left out: have they a record?"""
    if path.name == RECORD and path.is_file():
        return {path.parent.resolve(): True}
    found = {}

    def unreadable(error: OSError) -> None:
        problems.append(f"{error.filename}: cannot be entered ({error.strerror})")

    for folder, inner, files in os.walk(path, onerror=unreadable):
        place = Path(folder)
        if RECORD in files:
            found[place] = True
            inner.clear()  # a run holds no other run
        elif CONFIG in files and found.keys().isdisjoint(place.parents):
            found[place] = False
        inner[:] = sorted(n for n in inner if not n.startswith(".") and n != "wandb")
    # A folder that has a config of its own and runs below it is no run.
    outer = {
        parent for place, has_record in found.items() if has_record for parent in place.parents
    }
    return {place.resolve(): has for place, has in found.items() if has or place not in outer}


def _experiment(file: Path) -> dict[str, Any]:
    """The config of a run whose record lacks it, as plain data; empty where it cannot be read.

    As in `RunRecord.config`, fields that change no weight, seed and learning rate are left out.
    """
    try:
        tree = read_yaml(file, resolve=False)
    except ValueError:
        return {}
    sections = {name: fields for name, fields in tree.items() if isinstance(fields, dict)}
    kept: dict[str, Any] = {
        name: {key: value for key, value in sections[name].items() if key not in others}
        for name, others in OTHERS.items()
        if name in sections
    }
    trainer = sections.get("trainer", {})
    return kept | {key: trainer[key] for key in OF_TRAINER if key in trainer}


def check_folder(asked: str, folder: Path) -> None:
    """Raise ValueError, beginning with what was asked for, when a file is in a folder's place.

    Raises OSError for a path that may not be looked at.
    """
    for path in map(Path, ("/proc", "/sys")):
        if folder.resolve().is_relative_to(path):
            raise ValueError(f"{asked} is in {path}, where only the system creates files")
    for path in (folder, *folder.parents):
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
            raise ValueError(f"{asked}: {path} is not a folder; choose another")
        return


def _is_run(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and (folder / RECORD).is_file()
