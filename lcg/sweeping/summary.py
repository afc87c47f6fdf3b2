"""The state of a sweep, while it runs and at its end."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path

from optuna.trial import TrialState

from lcg.log import log
from lcg.sweeping.file import Sweep
from lcg.sweeping.state import find_run, state_of, value_of
from lcg.sweeping.study import values_text
from lcg.text import duration


@dataclass
class Counts:
    """Runs by what became of them."""

    finished: int = 0
    skipped: int = 0
    pruned: int = 0
    failed: int = 0

    @property
    def done(self) -> int:
        """Those that need nothing more."""
        return self.finished + self.skipped + self.pruned + self.failed

    def __str__(self) -> str:
        parts = [f"{self.finished} finished"]
        named = (("skipped", self.skipped), ("pruned", self.pruned), ("failed", self.failed))
        return ", ".join([*parts, *(f"{count} {name}" for name, count in named if count)])


@dataclass(frozen=True)
class Failure:
    """A run that could not be done. log: None if it was never started."""

    run: str
    reason: str
    log: Path | None


@dataclass(frozen=True)
class Best:
    """The best finished run: metric first, token accuracy at its length next.

    chosen: what the sweep varies in it. moved: False where more is better and every run has 0.
    """

    directory: Path
    value: float
    chosen: str = ""
    moved: bool = True


@dataclass
class Summary:
    """The outcome of a sweep, filled in by its launcher.

    directories: every run that is finished, or was ended early, in order of their trials.
    elsewhere: how many runs other launchers train. signal: what stopped this one, 0 if nothing.
    trouble: the error of the disk or the study that stopped it, or "".
    """

    sweep: Sweep
    counts: Counts = field(default_factory=Counts)
    directories: list[Path] = field(default_factory=list)
    best: Best | None = None
    failures: list[Failure] = field(default_factory=list)
    stale: list[Path] = field(default_factory=list)
    signal: int = 0
    elsewhere: int = 0
    trouble: str = ""

    def add_runs(self, outcomes: list[tuple[dict[str, str], TrialState]]) -> None:
        """Note which runs there are, and the best: from each one's choices and its outcome."""
        metric, ranked = self.sweep.metric, []
        for choices, outcome in outcomes:
            if outcome not in (TrialState.COMPLETE, TrialState.PRUNED):
                continue
            run = find_run(self.sweep.words(choices))
            if run.directory not in self.directories:
                self.directories.append(run.directory)
            state = state_of(run)
            value = value_of(run, metric, state)
            if value is not None and outcome is TrialState.COMPLETE:
                tokens = value_of(run, metric.token_accuracy, state) or 0.0
                rank = (value if metric.maximize else -value, tokens)
                ranked.append((rank, run.directory, value, values_text(choices)))
        if ranked:
            _, directory, value, chosen = max(ranked, key=lambda entry: entry[0])
            moved = not metric.maximize or any(entry[2] for entry in ranked)
            self.best = Best(directory, value, chosen, moved)

    @property
    def exit_code(self) -> int:
        """0 if all went well, 1 if a run or the storage failed, 128 + signal if one stopped it."""
        return 128 + self.signal if self.signal else int(bool(self.failures or self.trouble))

    def as_text(self) -> str:
        """The summary as lines to read."""
        lines = [str(self.counts)]
        for failure in self.failures:
            log = f" (see {failure.log})" if failure.log else ""
            lines.append(f"failed: {failure.run}: {failure.reason}{log}")
        if self.stale:
            lines.append(
                f"{len(self.stale)} runs were trained with different code; delete their "
                "directories to train them again"
            )
        if self.elsewhere:
            lines.append(f"under way elsewhere: {self.elsewhere} runs of other launchers")
        if self.best:
            lines.append(self._best_text())
        if self.trouble:
            lines.append(f"stopped: {self.trouble}; after that is mended the same command resumes")
        elif self.signal:
            lines.append("stopped; the same command resumes from here")
        lines.append(f"study: {_quoted(self.sweep.directory)}")
        if self.directories:
            lines.append(f"next: lcg table {_quoted(self.sweep.runs)}")
        return "\n".join(lines)

    def _best_text(self) -> str:
        metric, where = self.sweep.metric, _quoted(self.best.directory)
        chosen = f" ({self.best.chosen})" if self.best.chosen else ""
        if self.best.moved:
            return f"best: {where}  {metric.name} {self.best.value:.4g}{chosen}"
        never = f"best: none, {metric.name} never moved: it is 0 in every run"
        if metric.token_accuracy == metric:
            return never
        return f"{never}; token accuracy is highest in {where}{chosen}"


def _quoted(path: Path) -> str:
    """A path as a shell takes it."""
    return shlex.quote(str(path))


@dataclass(frozen=True)
class Running:
    """A run under way. chosen: of what the sweep varies. seconds: since its process started, at
    step `begin`.
    """

    name: str
    step: int
    steps: int
    begin: int
    seconds: float
    value: float | None = None
    chosen: str = ""

    @property
    def projected(self) -> float | None:
        """Seconds that all its steps take at the speed so far."""
        done = self.step - self.begin
        return self.seconds * self.steps / done if done > 0 else None

    def __str__(self) -> str:
        value = "" if self.value is None else f" {self.value:.3g}"
        chosen = f" ({self.chosen})" if self.chosen else ""
        return f"{self.name} {self.step}/{self.steps}{value}{chosen}"


@dataclass
class Pace:
    """The time that runs take: those that are done, or else those under way."""

    durations: list[float] = field(default_factory=list)

    def left(self, pending: int, running: list[Running], workers: int) -> float | None:
        """Seconds until the last run is done; None while nothing is known."""
        known = self.durations or [r.projected for r in running if r.projected is not None]
        if not known:
            return None
        mean = sum(known) / len(known)
        total = pending * mean
        for run in running:
            whole = mean if run.projected is None else run.projected
            total += max(0.0, whole * (1 - run.step / max(1, run.steps)))
        return total / max(1, workers)


class Display:
    """Logs what happens, and on a terminal draws a bar below it."""

    def __init__(self, total: int, name: str) -> None:
        self._bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            form = "{desc} |{bar:20}| {n}/{total}{postfix}"
            self._bar = tqdm(total=total, desc=name, bar_format=form, dynamic_ncols=True)

    def event(self, text: str) -> None:
        """Log an event, above the bar where there is one."""
        if self._bar is None:
            log.info(text)
        else:
            self._bar.write(text, file=sys.stderr)

    def show(self, counts: Counts, running: list[Running], left: float | None) -> None:
        """Draw how it stands now."""
        if self._bar is None:
            return
        self._bar.n = counts.done
        time = [] if left is None else [f"{duration(left)} left"]
        self._bar.set_postfix_str(" · ".join([str(counts), *time, *map(str, running)]), False)
        self._bar.refresh()

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.close()
