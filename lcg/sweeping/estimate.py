"""What a sweep will run, and how long that takes, from a few timed steps of each kind of run.

Runs that differ only in seed and learning rate take the same time, so one of each is timed, on one
worker's share of the machine, one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lcg.config import ConfigError, experiment_identity
from lcg.log import log
from lcg.sweeping.file import Sweep
from lcg.sweeping.grid import combinations
from lcg.sweeping.state import Run, State, find_run, state_of
from lcg.sweeping.study import key_of, sample, values_text
from lcg.sweeping.worker import Slot, share
from lcg.text import duration
from lcg.training.estimate import Projection
from lcg.training.timing import time_runs

EXAMPLES = 5  # runs that are drawn to stand for a sweep that draws


@dataclass(frozen=True)
class Kind:
    """Runs that take the same time. timed: one of them; None where none was timed."""

    label: str
    runs: list[tuple[Run, State]]
    timed: Projection | None = None

    @property
    def unfinished(self) -> int:
        """How many of them are left to do."""
        return sum(not state.done for _, state in self.runs)

    @property
    def each(self) -> float:
        """Seconds of one from its start to its end."""
        return self.timed.startup + self.timed.seconds if self.timed else 0.0

    @property
    def left(self) -> float:
        """Seconds of all of them, one after the other, from where they stand."""
        if self.timed is None:
            return 0.0
        return sum(
            self.timed.startup + self.timed.seconds * (1 - state.step / run.steps)
            for run, state in self.runs
            if not state.done
        )

    @property
    def is_bound(self) -> bool:
        """Whether they take longer than `left`, since something could not be measured."""
        return self.unfinished > 0 and (self.timed is None or self.timed.is_bound)

    def __str__(self) -> str:
        if not self.unfinished:
            return f"{self.label}: 0 of {len(self.runs)} runs left, finished"
        each = f"{'more than ' if self.is_bound else ''}{duration(self.each)} each"
        rest = "not timed" if self.timed is None else f"{each}; {self._measured()}"
        return f"{self.label}: {self.unfinished} of {len(self.runs)} runs left, {rest}"

    def _measured(self) -> str:
        """How much of a batch and of a validation was timed."""
        step, lengths = self.timed.step, self.timed.lengths.values()
        parts = [timing.part / timing.whole for timing in lengths]
        return (
            f"timed with {step.part:,} of {step.whole:,} sequences in a step, "
            f"{_percent(min(parts))} of a validation"
        )


@dataclass(frozen=True)
class Plan:
    """The runs of a sweep: `runs` are listed and timed, `count` are to be made.

    drawn: how many draws make `count` different runs; None in a grid.
    """

    runs: list[tuple[dict[str, str], Run, State]]
    count: int
    drawn: int | None = None


@dataclass(frozen=True)
class SweepProjection:
    """The time and disk that a sweep takes."""

    kinds: list[Kind]
    count: int
    workers: int

    @property
    def core_seconds(self) -> float:
        """Seconds of all runs that are left, one after the other."""
        looked_at = sum(len(kind.runs) for kind in self.kinds)
        scale = self.count / looked_at if looked_at else 0.0
        return scale * sum(kind.left for kind in self.kinds)

    @property
    def seconds(self) -> float:
        """Wall time with all workers."""
        return self.core_seconds / self.workers

    @property
    def is_bound(self) -> bool:
        """Whether it takes longer than that, since something could not be measured."""
        return any(kind.is_bound for kind in self.kinds)


def plan_runs(sweep: Sweep) -> Plan:
    """Find every run of a grid, or a few that a sweep which draws could draw; and how far each is.

    Draws repeat where there is a choice of few values, and a run is made once: the different ones
    are counted, in draws like those that the sweep will make.
    """
    if sweep.method == "grid":
        choices = combinations(sweep)
        count, drawn = len(choices), None
    else:
        different = {key_of(chosen): chosen for chosen in sample(sweep, sweep.run_cap)}
        choices = list(different.values())[:EXAMPLES]
        count, drawn = len(different), sweep.run_cap
    found = []
    for chosen in choices:
        try:
            run = find_run(sweep.words(chosen))
        except ConfigError as error:
            log.warning(f"not possible: {error}")
            continue
        found.append((chosen, run, state_of(run)))
    return Plan(found, len(found) if drawn is None else count, drawn)


def project_sweep(sweep: Sweep, workers: int | None = None) -> Iterator[str]:
    """Yield the runs of a sweep, at once, and then its estimated time, as texts.

    Raises ValueError when a run cannot be timed.
    """
    plan = plan_runs(sweep)
    yield _as_list(sweep, plan)
    yield _as_time(_project(plan, workers))


def _as_list(sweep: Sweep, plan: Plan) -> str:
    title = f"{sweep.path}: method {sweep.method}, "
    if plan.drawn is None:
        title += f"{plan.count} runs:"
    else:
        title += f"{plan.drawn} draws, about {plan.count} different runs; "
        title += f"{len(plan.runs)} that it could draw:"
    lines = [title]
    width = max((len(run.name) for _, run, _ in plan.runs), default=0)
    for chosen, run, state in plan.runs:
        how = f"resumes at step {state.step}" if state.kind == "resumes" else state.kind
        how += ", trained with different code" if state.stale and state.done else ""
        lines.append(f"  {run.name:<{width}}  {key_of(chosen)}  {how}")
    return "\n".join(lines) + "\n"


def _as_time(projection: SweepProjection) -> str:
    bound = "more than " if projection.is_bound else ""
    workers = f"{projection.workers} worker{'s' if projection.workers > 1 else ''}"
    lines = [
        *(f"  {kind}" for kind in projection.kinds),
        "",
        f"together {bound}{duration(projection.seconds)} with {workers} "
        f"({duration(projection.core_seconds)} one after another)",
        "Estimated from a few steps and validation passes of one run of each kind, timed alone.",
        "Not in it: the test ladder after training, and what workers take from each other.",
    ]
    return "\n".join(lines)


def _project(plan: Plan, workers: int | None) -> SweepProjection:
    groups: dict[str, list[tuple[dict[str, str], Run, State]]] = {}
    for chosen, run, state in plan.runs:
        groups.setdefault(experiment_identity(run.config), []).append((chosen, run, state))
    trainer = plan.runs[0][1].config.trainer if plan.runs else None
    cpu_only = trainer is not None and trainer.accelerator == "cpu"
    slots = share(workers, trainer.devices if trainer else 1, cpu_only)
    return SweepProjection(_kinds(list(groups.values()), slots[0]), plan.count, len(slots))


def _kinds(groups: list[list[tuple[dict[str, str], Run, State]]], slot: Slot) -> list[Kind]:
    """The kinds of runs; of each that is not finished a run is timed, within the time of all."""
    labels = _labels([[(chosen, run) for chosen, run, _ in own] for own in groups])
    kinds = [
        Kind(label, [(run, state) for _, run, state in own])
        for label, own in zip(labels, groups, strict=True)
    ]
    left = [kind for kind in kinds if kind.unfinished]
    timed = dict(zip(map(id, left), _time(left, slot), strict=False))
    return [Kind(kind.label, kind.runs, timed.get(id(kind))) for kind in kinds]


def _time(kinds: list[Kind], slot: Slot) -> list[Projection]:
    if not kinds:
        return []
    runs = [next(run for run, state in kind.runs if not state.done) for kind in kinds]
    return time_runs([_words(run, slot) for run in runs], slot.environment)


def _words(run: Run, slot: Slot) -> list[str]:
    threads = [] if run.config.trainer.threads else [f"trainer.threads={slot.threads}"]
    return [*run.words, *threads]


def _labels(groups: list[list[tuple[dict[str, str], Run]]]) -> list[str]:
    """Task, attention and position of each kind; of kinds alike in these, what else they vary."""
    names = [_name(own[0][1]) for own in groups]
    varied = [_common([chosen for chosen, _ in own]) for own in groups]
    labels = []
    for name, own in zip(names, varied, strict=True):
        alike = [other for its, other in zip(names, varied, strict=True) if its == name]
        differing = {k: v for k, v in own.items() if any(other.get(k) != v for other in alike)}
        labels.append(", ".join(filter(None, (name, values_text(differing)))))
    return labels


def _name(run: Run) -> str:
    return " · ".join(run.config.labels[group] for group in ("task", "attention", "position"))


def _common(choices: list[dict[str, str]]) -> dict[str, str]:
    """What runs of one kind choose alike, without what makes no kind of its own."""
    return {
        key: text
        for key, text in choices[0].items()
        if key not in ("seed", "optimizer.lr") and all(other.get(key) == text for other in choices)
    }


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.3g} %" if percent >= 0.01 else "less than 0.01 %"
