"""The runs of a sweep and the time they take, from a few timed steps of each kind of run.

Runs that differ only in seed and learning rate take the same time, so one of each is timed, on one
worker's share of the machine, one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from lcg.config import ConfigError, experiment_identity
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
    """A run, what it chooses of the parameters that the sweep varies, and how far it is."""

    chosen: dict[str, str]
    run: SweepRun
    state: State


@dataclass
class Kind:
    """Runs that take the same time. timed: one of them; None where none was timed."""

    runs: list[Planned]
    label: str = ""
    timed: Projection | None = None

    @property
    def unfinished(self) -> int:
        """The number of them that are left to do."""
        return sum(not planned.state.done for planned in self.runs)

    @property
    def left(self) -> float:
        """Seconds of all of them, one after the other, from where they stand."""
        if self.timed is None:
            return 0.0
        return sum(
            self.timed.startup + self.timed.seconds * (1 - state.step / run.steps)
            for _, run, state in self.runs
            if not state.done
        )

    @property
    def is_bound(self) -> bool:
        """True when they take longer than `left`, since something could not be measured."""
        return self.unfinished > 0 and (self.timed is None or self.timed.is_bound)

    @property
    def name(self) -> str:
        """Task, attention and position."""
        labels = self.runs[0].run.config.labels
        return " · ".join(labels[group] for group in ("task", "attention", "position"))

    @property
    def common(self) -> dict[str, str]:
        """The choices that its runs share, without those that make no kind of their own."""
        first, *others = (planned.chosen for planned in self.runs)
        return {
            key: text
            for key, text in first.items()
            if key not in ("seed", "optimizer.lr") and all(o.get(key) == text for o in others)
        }

    def __str__(self) -> str:
        if not self.unfinished:
            return f"{self.label}: 0 of {len(self.runs)} runs left, finished"
        left = f"{self.label}: {self.unfinished} of {len(self.runs)} runs left"
        if self.timed is None:
            return f"{left}, not timed"
        bound = "more than " if self.is_bound else ""
        each = duration(self.timed.startup + self.timed.seconds)
        step, lengths = self.timed.step, self.timed.lengths.values()
        percent = 100 * min(timing.part / timing.whole for timing in lengths)
        share = f"{percent:.3g} %" if percent >= 0.01 else "less than 0.01 %"
        return (
            f"{left}, {bound}{each} each; timed with {step.part:,} of {step.whole:,} sequences in "
            f"a step, {share} of a validation"
        )


@dataclass(frozen=True)
class Plan:
    """The runs of a sweep: `runs` are listed and timed, `count` are to be made.

    drawn: how many draws make `count` different runs; None in a grid.
    """

    runs: list[Planned]
    count: int
    drawn: int | None = None


def plan_runs(sweep: Sweep) -> Plan:
    """Find every run of a grid, or a few that a sweep which draws could draw; and how far each is.

    Draws repeat where there is a choice of few values, and a run is made once: the different ones
    are counted, in draws like those that the sweep will make.
    """
    if sweep.method == "grid":
        choices, count, drawn = combinations(sweep), None, None
    else:
        different = {key_of(chosen): chosen for chosen in sample(sweep, sweep.run_cap)}
        choices, count, drawn = list(different.values())[:EXAMPLES], len(different), sweep.run_cap
    runs = []
    for chosen in choices:
        try:
            run = find_run(sweep.words(chosen))
        except ConfigError as error:
            log.warning(f"not possible: {error}")
            continue
        runs.append(Planned(chosen, run, state_of(run)))
    return Plan(runs, len(runs) if count is None else count, drawn)


def project_sweep(sweep: Sweep, workers: int | None = None) -> Iterator[str]:
    """Yield the runs of a sweep, at once, and then its estimated time, as texts.

    Raises ValueError when a run cannot be timed.
    """
    plan = plan_runs(sweep)
    yield _list_text(sweep, plan)
    yield _time_text(plan, workers)


def _list_text(sweep: Sweep, plan: Plan) -> str:
    title = f"{sweep.path}: method {sweep.method}, "
    if plan.drawn is None:
        title += f"{plan.count} runs:"
    else:
        title += f"{plan.drawn} draws, about {plan.count} different runs; "
        title += f"{len(plan.runs)} that it could draw:"
    lines = [title]
    width = max((len(planned.run.name) for planned in plan.runs), default=0)
    for chosen, run, state in plan.runs:
        stale = ", trained with different code" if state.stale and state.done else ""
        lines.append(f"  {run.name:<{width}}  {key_of(chosen)}  {state}{stale}")
    return "\n".join(lines) + "\n"


def _time_text(plan: Plan, workers: int | None) -> str:
    trainer = plan.runs[0].run.config.trainer if plan.runs else None
    cpu_only = trainer is not None and trainer.accelerator == "cpu"
    slots = share(workers, trainer.devices if trainer else 1, cpu_only)
    kinds = _kinds(plan)
    unfinished = [kind for kind in kinds if kind.unfinished]
    if unfinished:
        runs = [next(p.run for p in kind.runs if not p.state.done) for kind in unfinished]
        words = [[*run.words, *slots[0].threads_of(run.config)] for run in runs]
        for kind, timed in zip(unfinished, time_runs(words, slots[0].environment), strict=False):
            kind.timed = timed
    scale = plan.count / len(plan.runs) if plan.runs else 0.0
    seconds = scale * sum(kind.left for kind in kinds)
    bound = "more than " if any(kind.is_bound for kind in kinds) else ""
    lines = [
        *(f"  {kind}" for kind in kinds),
        "",
        f"together {bound}{duration(seconds / len(slots))} with {len(slots)} "
        f"worker{'s' if len(slots) > 1 else ''} ({duration(seconds)} one after another)",
        "Estimated from a few steps and validation passes of one run of each kind, timed alone.",
        "Not in it: the test ladder after training, and what workers take from each other.",
    ]
    return "\n".join(lines)


def _kinds(plan: Plan) -> list[Kind]:
    """The kinds of runs, labelled: those of one name by what else the sweep varies in them."""
    kinds: dict[str, Kind] = {}
    for planned in plan.runs:
        kinds.setdefault(experiment_identity(planned.run.config), Kind([])).runs.append(planned)
    for kind in kinds.values():
        alike = [other.common for other in kinds.values() if other.name == kind.name]
        own = {k: v for k, v in kind.common.items() if any(o.get(k) != v for o in alike)}
        kind.label = ", ".join(filter(None, (kind.name, values_text(own))))
    return list(kinds.values())
