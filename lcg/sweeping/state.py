"""The state of a sweep's runs, read from their directories."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lcg.config import Config, load_config, run_directory, with_changes
from lcg.evaluation.test_sets import ladder_of
from lcg.runs.metrics import MetricsReader, number
from lcg.runs.provenance import code_digest
from lcg.runs.record import RecordError, RunRecord
from lcg.runs.run import Run
from lcg.sweeping.file import Metric

DONE = ("finished", "not_finite")


@dataclass(frozen=True)
class SweepRun:
    """A run of a sweep: its overrides and its directory, which need not exist yet."""

    words: tuple[str, ...]
    config: Config
    directory: Path

    @property
    def name(self) -> str:
        """The path of its directory below `runs`."""
        return self.directory.name


@dataclass(frozen=True)
class State:
    """The progress of a run: new, resumes (trained in part, or not evaluated yet), or one of DONE.

    stale: it was trained with different code.
    """

    kind: str
    step: int = 0
    stale: bool = False
    record: RunRecord | None = None

    @property
    def done(self) -> bool:
        """True when nothing is left to do."""
        return self.kind in DONE

    def __str__(self) -> str:
        return f"resumes at step {self.step}" if self.kind == "resumes" else self.kind


def find_run(words: list[str]) -> SweepRun:
    """Return the run of these overrides. Raises ConfigError for an invalid combination."""
    config = load_config(words)
    return SweepRun(tuple(words), config, run_directory(config))


def state_of(run: SweepRun) -> State:
    """Read the progress of a run; a directory that cannot be read counts as new: training reports
    why.

    A run is finished when it is evaluated at all its test lengths too.
    """
    try:
        record = RunRecord.load(run.directory)
    except RecordError:
        return State("new")
    stale = Run(run.directory).provenance.get("code") != code_digest()
    kind = record.training.status
    evaluation = run.config.evaluation
    if kind == "finished" and not stale and evaluation.after_training:
        step = record.selection.step if record.selection else None
        changes = [with_changes(run.config, words.split())[1] for words in evaluation.also]
        asked = {
            test_set.cell_key(evaluation.decode, step, each)
            for test_set in ladder_of(run.config)
            for each in ({}, *changes)
        }
        kind = kind if asked <= {cell.key for cell in record.ladder} else "resumes"
    return State(kind if kind in DONE else "resumes", record.training.step, stale, record)


def value_of(run: SweepRun, metric: Metric | None, state: State) -> float | None:
    """Return the metric of a finished run: a validation metric at the selected checkpoint.

    None if it has no value.
    """
    if metric is None or state.record is None or state.kind != "finished":
        return None
    _, _, rest = metric.name.partition("val/len_")
    if rest:
        length, _, name = rest.partition("/")
        validation = state.record.validation.get(int(length))
        return None if validation is None else getattr(validation, name)
    values = MetricColumn(run.directory, metric.name).read()
    return values[-1] if values else None


class MetricColumn:
    """One column of metrics.csv, read incrementally.

    step: the last step with any value. values: the values of the column so far.
    """

    def __init__(self, directory: Path, column: str | None) -> None:
        self.path, self.column = Run(directory).metrics_file, column
        self._begin(None)

    def _begin(self, file: tuple[int, int] | None) -> None:
        self._file, self._reader = file, MetricsReader(self.path)
        self.step, self.values = 0, []

    def read(self) -> list[float]:
        """Read and return the values so far."""
        try:
            status = self.path.stat()
            file, size = (status.st_dev, status.st_ino), status.st_size
        except OSError:
            file, size = None, 0
        if file != self._file or size < self._reader.end:  # a run that resumes writes another
            self._begin(file)
        for step, row in self._reader.rows():
            self.step = step
            if (value := number(row.get(self.column, ""))) is not None:
                self.values.append(value)
        return self.values
