"""The outcome of a sweep: collected by its launcher, printed for the user."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from optuna.trial import FrozenTrial, TrialState

from lcg.sweeping.file import Sweep
from lcg.sweeping.state import find_run, state_of, value_of
from lcg.sweeping.study import values_text


class Failure(NamedTuple):
    """A failed run. log: None if it was never started."""

    run: str
    reason: str
    log: Path | None


class Best(NamedTuple):
    """The best finished run: by the metric, then by token accuracy at its length.

    chosen: its choices. moved: False if higher is better and every run has 0.
    """

    directory: Path
    value: float
    chosen: str
    moved: bool


@dataclass
class Summary:
    """The outcome of a sweep.

    counts: numbers of finished, skipped, pruned and failed runs. directories: every run that is
    finished, or was ended early, in order of their trials. elsewhere: number of runs that other
    launchers train. signal: the signal that stopped this launcher, 0 if none. trouble: the error of
    the disk or the study that stopped it, or "".
    """

    sweep: Sweep
    counts: Counter[str] = field(default_factory=Counter)
    directories: list[Path] = field(default_factory=list)
    best: Best | None = None
    failures: list[Failure] = field(default_factory=list)
    stale: list[Path] = field(default_factory=list)
    signal: int = 0
    elsewhere: int = 0
    trouble: str = ""

    def add_runs(self, outcomes: list[tuple[dict[str, str], FrozenTrial]]) -> None:
        """Add the runs and the best, from each one's choices and its trial."""
        metric, ranked = self.sweep.metric, []
        for choices, trial in outcomes:
            if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
                continue
            run = find_run(self.sweep.words(choices))
            if run.directory not in self.directories:
                self.directories.append(run.directory)
            state = state_of(run)
            value = value_of(run, metric, state)
            if value is not None and trial.state is TrialState.COMPLETE:
                tokens = value_of(run, metric.token_accuracy, state) or 0.0
                rank = (value if metric.maximize else -value, tokens)
                ranked.append((rank, run.directory, value, values_text(choices)))
        if ranked:
            moved = not metric.maximize or any(value for _, _, value, _ in ranked)
            self.best = Best(*max(ranked, key=lambda entry: entry[0])[1:], moved)

    @property
    def exit_code(self) -> int:
        """0 if all went well, 1 if a run or the storage failed, 128 + signal if one stopped it."""
        return 128 + self.signal if self.signal else int(bool(self.failures or self.trouble))

    @property
    def counts_text(self) -> str:
        """Return the number of finished runs, and of others by outcome."""
        others = [kind for kind in ("skipped", "pruned", "failed") if self.counts[kind]]
        return ", ".join(f"{self.counts[kind]} {kind}" for kind in ("finished", *others))

    def as_text(self) -> str:
        """Return the summary as lines."""
        lines = [self.counts_text]
        for failure in self.failures:
            log = f" (see {failure.log})" if failure.log else ""
            lines.append(f"failed: {failure.run}: {failure.reason}{log}")
        if self.stale:
            lines.append(
                f"{len(self.stale)} runs were trained with different code; delete their "
                "directories to train them again"
            )
        if self.elsewhere:
            lines.append(f"running elsewhere: {self.elsewhere} runs of other launchers")
        if self.best:
            lines.append(self._best_text())
        if self.trouble:
            lines.append(f"stopped: {self.trouble}; fix this, then the same command resumes")
        elif self.signal:
            lines.append("stopped; the same command resumes")
        lines.append(f"study: {_quoted(self.sweep.directory)}")
        if self.directories:
            lines.append(f"next: lcg table {_quoted(self.sweep.runs)}")
        return "\n".join(lines)

    def _best_text(self) -> str:
        metric, where = self.sweep.metric, _quoted(self.best.directory)
        chosen = f" ({self.best.chosen})" if self.best.chosen else ""
        if self.best.moved:
            return f"best: {where}  {metric.name} {self.best.value:.4g}{chosen}"
        never = f"best: none, {metric.name} is 0 in every run"
        if metric.token_accuracy == metric:
            return never
        return f"{never}; token accuracy is highest in {where}{chosen}"


def _quoted(path: Path) -> str:
    """Quote a path for a shell."""
    return shlex.quote(str(path))
