"""How far a run of a sweep is, from its directory, which is the truth about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcg.config import Config, load_config, run_directory
from lcg.evaluation.test_sets import ladder_of
from lcg.runs.metrics import MetricsReader, number
from lcg.runs.provenance import code_digest
from lcg.runs.record import RecordError, RunRecord
from lcg.runs.run import Run as RunDirectory
from lcg.sweeping.file import Metric

DONE = ("finished", "not_finite")


@dataclass(frozen=True)
class Run:
    """A run that a sweep asks for.

    words: its overrides. directory: where it is, or will be.
    """

    words: tuple[str, ...]
    config: Config
    directory: Path

    @property
    def name(self) -> str:
        """Its directory below `runs`."""
        return self.directory.name

    @property
    def steps(self) -> int:
        """Its budget."""
        return self.config.trainer.steps


@dataclass(frozen=True)
class State:
    """How far a run is: new, resumes (trained in part, or not evaluated yet), or one of DONE.

    stale: it was trained with different code than this.
    """

    kind: str
    step: int = 0
    stale: bool = False
    record: RunRecord | None = None

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        return self.kind in DONE


def find_run(words: list[str]) -> Run:
    """The run of these overrides. Raises ConfigError where they are not possible."""
    config = load_config(words)
    return Run(tuple(words), config, run_directory(config))


def state_of(run: Run) -> State:
    """What the run's directory says; one that cannot be read counts as new, and training says why.

    A run is finished when it is evaluated at all its test lengths too.
    """
    try:
        record = RunRecord.load(run.directory)
    except RecordError:
        return State("new")
    stale = _code(run.directory) != code_digest()
    kind = record.training.status
    if kind not in DONE or (
        kind == "finished" and not stale and not _evaluated(run.config, record)
    ):
        kind = "resumes"
    return State(kind, record.training.step, stale, record)


def value_of(run: Run, metric: Metric | None, state: State) -> float | None:
    """The metric of a finished run: of the selected checkpoint if it is a validation's.

    None if it has no value.
    """
    if metric is None or state.record is None or state.kind != "finished":
        return None
    _, _, rest = metric.name.partition("val/len_")
    if rest:
        length, _, name = rest.partition("/")
        found = state.record.validation.get(int(length))
        return None if found is None else getattr(found, name)
    _, rows = MetricColumn(run.directory, metric.name).read()
    return rows[-1][1] if rows else None


class MetricColumn:
    """One column of metrics.csv, as far as it is written; what was read is not read again."""

    def __init__(self, directory: Path, column: str | None) -> None:
        self.path, self.column = RunDirectory(directory).metrics_file, column
        self._begin(None)

    def _begin(self, file: Any) -> None:
        self._file, self._reader = file, MetricsReader(self.path)
        self._step, self._values = 0, []

    def read(self) -> tuple[int, list[tuple[int, float]]]:
        """The last step of which anything is written, and step and value of rows with a value."""
        file, size = _file_at(self.path)
        if file != self._file or size < self._reader.end:  # a run that resumes writes another
            self._begin(file)
        for step, cells in self._reader.rows():
            self._step = step
            if self.column in self._reader.columns:
                value = number(cells[self._reader.columns.index(self.column)])
                if value is not None:
                    self._values.append((step, value))
        return self._step, list(self._values)


def _file_at(path: Path) -> tuple[Any, int]:
    """What tells a file from another at its path, and its size."""
    try:
        status = path.stat()
    except OSError:
        return None, 0
    return (status.st_dev, status.st_ino), status.st_size


def _code(directory: Path) -> str | None:
    return RunDirectory(directory).provenance.get("code")


def _evaluated(config: Config, record: RunRecord) -> bool:
    """Say if every test length that was asked for is in the record."""
    asked = config.evaluation
    if not asked.after_training:
        return True
    step = record.selection.step if record.selection else None
    evaluated = {cell.key for cell in record.ladder}
    return {s.cell_key(asked.decode, step) for s in ladder_of(config)} <= evaluated
