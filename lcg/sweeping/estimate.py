"""The runs of a sweep and an estimate of their time, from a few timed steps of each kind of run.

Runs that differ only in seed and learning rate take the same time, so one of each kind is timed, on
one worker's share of the machine, one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from lcg.config import ConfigError, experiment_identity
from lcg.config.schema import COMPONENTS, Trainer
from lcg.log import log
from lcg.sweeping.file import Sweep, combinations
from lcg.sweeping.state import State, SweepRun, find_run, state_of
from lcg.sweeping.study import key_of, sample, values_text
from lcg.sweeping.worker import share
from lcg.text import duration
from lcg.training.estimate import Projection
from lcg.training.timing import time_runs

EXAMPLES = 5  # runs that are drawn to stand for a sweep that draws


class Planned(NamedTuple):
    """A run, its choices of the swept parameters, and its progress."""

    chosen: dict[str, str]
    run: SweepRun
    state: State


@dataclass
class Kind:
    """Runs that take the same time. timed: one of them; None if none was timed."""

    runs: list[Planned]
    label: str = ""
    timed: Projection | None = None

    def __post_init__(self) -> None:
        labels = self.runs[0].run.config.labels
        self.name = " · ".join(labels[group] for group in COMPONENTS if group in labels)
        self.unfinished = [planned for planned in self.runs if not planned.state.done]

    @property
    def seconds(self) -> float:
        """Seconds of all unfinished runs, one after the other, from their present step."""
        if self.timed is None:
            return 0.0
        return sum(
            self.timed.startup + self.timed.seconds * (1 - state.step / run.config.trainer.steps)
            for _, run, state in self.unfinished
        )

    @property
    def bound(self) -> str:
        """`more than ` if the estimate is a lower bound, since something could not be measured."""
        is_bound = self.unfinished and (self.timed is None or self.timed.is_bound)
        return "more than " if is_bound else ""

    @property
    def common(self) -> dict[str, str]:
        """The choices that its runs share, without those that do not affect the time."""
        return {
            key: text
            for key, text in self.runs[0].chosen.items()
            if key not in ("seed", "optimizer.lr")
            and all(planned.chosen.get(key) == text for planned in self.runs)
        }

    def __str__(self) -> str:
        left = f"{self.label}: {len(self.unfinished)} of {len(self.runs)} runs left"
        if not self.unfinished or self.timed is None:
            return f"{left}, {'not timed' if self.unfinished else 'finished'}"
        each = duration(self.timed.startup + self.timed.seconds)
        step, lengths = self.timed.step, self.timed.lengths.values()
        percent = 100 * min(timing.part / timing.whole for timing in lengths)
        part = f"{percent:.3g} %" if percent >= 0.01 else "less than 0.01 %"
        return (
            f"{left}, {self.bound}{each} each; timed with {step.part:,} of {step.whole:,} "
            f"sequences in a step, {part} of a validation"
        )


def project_sweep(sweep: Sweep, workers: int | None = None) -> Iterator[str]:
    """Yield the runs of a sweep, at once, and then its estimated time, as texts.

    These are all runs of a grid, or examples of a sweep that draws. Draws from few values repeat,
    and a run is trained only once: the number of different runs is counted in draws like those of
    the sweep. Raises ValueError when a run cannot be timed.
    """
    grid = sweep.method == "grid"
    choices = combinations(sweep) if grid else sample(sweep, sweep.run_cap)
    choices = list({key_of(chosen): chosen for chosen in choices}.values())
    runs = []
    for chosen in choices if grid else choices[:EXAMPLES]:
        try:
            run = find_run(sweep.words(chosen))
        except ConfigError as error:
            log.warning(f"not possible: {error}")
            continue
        runs.append(Planned(chosen, run, state_of(run)))
    count = len(runs) if grid else len(choices)
    asked = f"{count} runs" if grid else f"{sweep.run_cap} draws, about {count} different runs"
    asked += "" if grid else f"; {len(runs)} examples"
    lines = [f"{sweep.path}: method {sweep.method}, {asked}:"]
    width = max((len(run.name) for _, run, _ in runs), default=0)
    for chosen, run, state in runs:
        stale = ", trained with different code" if state.stale and state.done else ""
        lines.append(f"  {run.name:<{width}}  {key_of(chosen)}  {state}{stale}")
    yield "\n".join(lines) + "\n"
    yield _time_text(runs, count, workers)


def _time_text(runs: list[Planned], count: int, workers: int | None) -> str:
    """Return the time of `count` runs as text; some of them stand for all."""
    slots = share(workers, runs[0].run.config.trainer if runs else Trainer())
    kinds = _kinds(runs)
    if unfinished := [kind for kind in kinds if kind.unfinished]:
        firsts = [kind.unfinished[0].run for kind in unfinished]
        words = [[*run.words, *slots[0].threads_of(run.config)] for run in firsts]
        for kind, timed in zip(unfinished, time_runs(words, slots[0].environment), strict=False):
            kind.timed = timed
    seconds = sum(kind.seconds for kind in kinds) * count / max(1, len(runs))
    bound = next((kind.bound for kind in kinds if kind.bound), "")
    lines = [
        *(f"  {kind}" for kind in kinds),
        "",
        f"together {bound}{duration(seconds / len(slots))} with {len(slots)} "
        f"worker{'s' if len(slots) > 1 else ''} ({duration(seconds)} one after another)",
        "Estimated from a few steps and validation passes of one run of each kind, timed alone.",
        "Not included: the evaluation after training, and slowdown by workers of one machine.",
    ]
    return "\n".join(lines)


def _kinds(runs: list[Planned]) -> list[Kind]:
    """Return the kinds of runs, labelled; those of one name by further swept parameters."""
    groups: dict[str, list[Planned]] = {}
    for planned in runs:
        groups.setdefault(experiment_identity(planned.run.config), []).append(planned)
    kinds = [Kind(group) for group in groups.values()]
    for kind in kinds:
        alike = [other.common for other in kinds if other.name == kind.name]
        own = {k: v for k, v in kind.common.items() if any(o.get(k) != v for o in alike)}
        kind.label = ", ".join(filter(None, (kind.name, values_text(own))))
    return kinds
