"""A run directory: `Run` reads its files, finds runs below folders, and locates the run of a
config."""

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
    """A run directory, existing or not; each of its files is read on first access.

    Another `Run` of the same path reads it again. trust: which code of users' classes may run.
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
        """Return the run of a config, whose directory need not exist yet.

        Raises ValueError, in one line, if it cannot be created because a part of its path is a
        file, and for a run inside or around another run, of which `lcg table` would show only the
        outer.
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
        """Return every run under `paths`, with its record: run directories, or folders of runs.

        They are ordered by path within each argument; a directory reached twice is read once.
        Problems are a path without a run, a record that cannot be read, a run without a record, a
        folder that cannot be entered, and a run in two places. `report` is called with a line for
        each, and the other runs are returned. Without `report`, or if no run could be read,
        RecordError names them.

        Runs with the same hash are one run, under any name, and count once: the record that got
        furthest, and of equal ones the one whose label fits its attention.
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

        A copy that differs from the user's own file runs only with `trust` "any", and a warning is
        logged. Interpolations in the file are not resolved, so no environment variable has an
        effect.

        Raises ValueError, naming the directory, if there is no config or it cannot be used.
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
        """Return the `wanted` columns of metrics.csv: steps and finite values; empty without a
        file.

        A row cut short by a crash is left out; of values logged twice at a step, the later counts.
        """
        return read_curves(self.metrics_file, wanted)

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Command, code, versions and machine; empty if the file is missing or damaged."""
        return read_provenance(self.path)

    def weights(self, model: Module) -> tuple[dict[str, Tensor], int]:
        """Return the selected checkpoint's weights, which must fit `model`, and its step.

        If best.ckpt cannot be used, a training checkpoint of the same step replaces it.

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
        """Hold the directory for this process: see `lcg.runs.files.locked`. Raises Busy."""
        return locked(self.path)

    def finished(self, config: Config) -> RunRecord | None:
        """Return the record if the run is fully trained; log a note if its code has changed.

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
        """Raise ValueError for a path that is not a run directory, naming a run below it if any."""
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
        """True when a checkpoint was selected, whether or not it can be read."""
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
    """Raise ValueError for a file or directory with the identity of another config."""
    if held != identity(config):
        raise ValueError(
            f"{path} belongs to a run of another config ({held}, this is {identity(config)}); "
            "choose another name"
        )


def _worth(run: Run) -> tuple[int, int, bool]:
    return run.record.training.step, len(run.record.ladder), label_fits(run.record)


def _expanded(paths: Iterable[str | os.PathLike]) -> list[Path]:
    """Return the paths, with a pattern (`runs/copy-*`) that the shell left expanded."""
    expanded: list[Path] = []
    for path in map(Path, paths):
        matching = [] if path.exists() else sorted(glob.glob(str(path)))
        expanded += map(Path, matching or [path])
    return expanded


def _run_directories(path: Path, problems: list[str]) -> dict[Path, bool]:
    """Return resolved run directories at or below `path`, without hidden folders, and whether
    they have a record."""
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
    """Return the config of a run whose record lacks it, as plain data; empty if it cannot be read.

    As in `RunRecord.config`, without seed, learning rate and fields that do not affect the weights.
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
    """Raise ValueError, naming the requested path, if a part of it is a file.

    Raises OSError for a path that may not be read.
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
