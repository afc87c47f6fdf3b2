"""What a launcher shows: a bar on a terminal, a line per event elsewhere; and what is left."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from lcg.speaking import tell
from lcg.units import duration


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
    """How long runs take: those that are done, or else those under way."""

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
    """Speaks on stderr."""

    def __init__(self, total: int, name: str) -> None:
        self._bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            form = "{desc} |{bar:20}| {n}/{total}{postfix}"
            self._bar = tqdm(total=total, desc=name, bar_format=form, dynamic_ncols=True)

    def event(self, text: str) -> None:
        """Something happened."""
        if self._bar is None:
            tell(text)
        else:
            self._bar.write(text, file=sys.stderr)

    def show(self, counts: Counts, running: list[Running], left: float | None) -> None:
        """How it stands now; on a terminal only."""
        if self._bar is None:
            return
        self._bar.n = counts.done
        parts = [str(counts)]
        if left is not None:
            parts.append(f"{duration(left)} left")
        parts += map(str, running)
        self._bar.set_postfix_str(" · ".join(parts), refresh=False)
        self._bar.refresh()

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.close()
